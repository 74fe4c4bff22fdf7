//! Procedures: on threads of their own, so that one that waits or works for long holds back nothing but itself.
//!
//! A transaction inside a procedure takes the fork's lane for itself ([`tine_lanes::Lease`]): it stands in the lane's order like any
//! write, and other forks and this connection's other requests go on meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tine_base::Env;
use tine_lanes::Lease;
use tine_module::{CallContext, CallError, CallHost, HandlerIndex, LogEntry, ProcedureIndex, SyscallError};
use tine_tables::TableWriter;
use tine_types::protocol::{ProcedureStatus, ServerMessage};
use tine_types::{AlgebraicType, ConnectionId, TimeDuration, Timestamp};

use crate::cancel::Cancellation;
use crate::client::{CallReturn, ClientSink, Delivery, Reply, ReplyTo, Requester};
use crate::fork::Fork;
use crate::http::{self, HttpAnswer};
use crate::instances::HEAP_HIGH_DIVISOR;
use crate::metrics::Metrics;
use crate::module::{ActiveModule, Function};
use crate::record::{CallKind, CallParts};
use crate::worker::{ForkWorker, Head};
use crate::{CallFailure, HostError};

/// Procedures that may wait for a thread, over all databases; one more is refused at once.
const QUEUE_MAX: usize = 4_096;

fn cancelled() -> CallFailure {
    CallFailure::from_host(&HostError::Closed)
}

/// Where a procedure's result goes.
pub(crate) enum ProcedureReply {
    Client {
        sink: Arc<dyn ClientSink>,
        request_id: u32,
    },
    Requester(ReplyTo<CallReturn>),
    /// A request to an HTTP handler.
    Http(ReplyTo<HttpAnswer>),
    /// A scheduled run: failures are in the module's log.
    Nobody,
}

impl ProcedureReply {
    pub fn send(self, result: Result<Outcome, CallFailure>, timestamp_micros: i64, duration: Duration, head: Head) {
        let value = |outcome| match outcome {
            Outcome::Value { ty, value } => CallReturn::Procedure { ty, value },
            Outcome::Answer(_) => unreachable!("handlers answer requests only"),
        };
        match self {
            ProcedureReply::Client { sink, request_id } => {
                let status = match result {
                    Ok(Outcome::Value { value, .. }) => ProcedureStatus::Returned(value),
                    Ok(Outcome::Answer(_)) => unreachable!("handlers answer requests only"),
                    Err(failure) => ProcedureStatus::InternalError(failure.to_string()),
                };
                let message = ServerMessage::ProcedureResult {
                    status,
                    timestamp: Timestamp::from_micros(timestamp_micros),
                    duration: TimeDuration::from_micros(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)),
                    request_id,
                };
                sink.deliver(&mut vec![Delivery::new(message, Some(head))]);
            }
            ProcedureReply::Requester(reply) => {
                let result = result.map(value);
                reply(Reply { result, lsn: head.lsn, durable: head.durable, duration });
            }
            ProcedureReply::Http(reply) => {
                let result = result.map(|outcome| match outcome {
                    Outcome::Answer(answer) => answer,
                    Outcome::Value { .. } => unreachable!("requests are answered by handlers only"),
                });
                reply(Reply { result, lsn: head.lsn, durable: head.durable, duration });
            }
            ProcedureReply::Nobody => {}
        }
    }
}

/// What runs on a procedure's thread.
pub(crate) enum Work {
    Procedure(Arc<Function<ProcedureIndex>>),
    Handler { handler: HandlerIndex, name: Arc<str>, body: Bytes },
}

impl Work {
    fn name(&self) -> &str {
        match self {
            Work::Procedure(function) => &function.name,
            Work::Handler { name, .. } => name,
        }
    }
}

/// What it came to.
pub(crate) enum Outcome {
    Value { ty: AlgebraicType, value: Bytes },
    Answer(HttpAnswer),
}

/// A procedure call that was accepted.
pub(crate) struct ProcedureTask {
    pub fork: Arc<Fork>,
    pub module: Arc<ActiveModule>,
    pub work: Work,
    pub requester: Requester,
    pub connection: Option<ConnectionId>,
    pub session: u64,
    /// BSATN of the arguments, or of a handler's request.
    pub arguments: Bytes,
    pub timestamp_micros: i64,
    pub seed: u64,
    /// The fork's head when the call was accepted; its result depends on at least this.
    pub head: Head,
    pub cancellation: Arc<Cancellation>,
    pub reply: ProcedureReply,
}

struct PoolState {
    queue: VecDeque<ProcedureTask>,
    stopping: bool,
}

/// The threads that run procedures of all databases.
pub(crate) struct ProcedurePool {
    state: Arc<(Mutex<PoolState>, Condvar)>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    metrics: Arc<Metrics>,
}

impl ProcedurePool {
    pub fn start(env: &Arc<dyn Env>, threads: usize, metrics: Arc<Metrics>) -> Result<Self, HostError> {
        let state = Arc::new((Mutex::new(PoolState { queue: VecDeque::new(), stopping: false }), Condvar::new()));
        let pool = ProcedurePool { state, threads: Mutex::new(Vec::new()), metrics };
        for number in 0..threads {
            let state = pool.state.clone();
            let thread = env
                .spawn(&format!("tine-procedure-{number}"), Box::new(move || serve(&state)))
                .map_err(|source| HostError::Io { action: "starting a procedure thread".to_owned(), source })?;
            pool.threads.lock().push(thread);
        }
        Ok(pool)
    }

    /// Queues a call; when too many wait or the pool stops, it is answered with an error.
    pub fn submit(&self, task: ProcedureTask) {
        let (state, work) = &*self.state;
        let mut state = state.lock();
        if state.stopping || state.queue.len() >= QUEUE_MAX {
            drop(state);
            self.metrics.procedures_refused.add(1);
            let failure = CallFailure::from_host(&HostError::Overloaded("procedures"));
            return task.reply.send(Err(failure), task.timestamp_micros, Duration::ZERO, task.head);
        }
        state.queue.push_back(task);
        drop(state);
        work.notify_one();
    }

    /// Answers what still waits with an error and waits for what runs.
    pub fn stop(&self) {
        let (state, work) = &*self.state;
        let waiting = {
            let mut state = state.lock();
            state.stopping = true;
            std::mem::take(&mut state.queue)
        };
        work.notify_all();
        for task in waiting {
            task.reply.send(Err(CallFailure::closed()), task.timestamp_micros, Duration::ZERO, task.head);
        }
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // The last owner of the host may be a procedure's own thread.
            if thread.thread().id() != std::thread::current().id() {
                // A panic was already reported by the thread's own hook.
                let _ = thread.join();
            }
        }
    }
}

fn serve(state: &(Mutex<PoolState>, Condvar)) {
    let (state, work) = state;
    loop {
        let task = {
            let mut state = state.lock();
            loop {
                if let Some(task) = state.queue.pop_front() {
                    break task;
                }
                if state.stopping {
                    return;
                }
                work.wait(&mut state);
            }
        };
        run(task);
    }
}

fn run(task: ProcedureTask) {
    let started = Instant::now();
    task.fork.host.metrics.procedures.add(1);
    let mut host = ProcedureHost {
        task: &task,
        lease: None,
        head: task.head,
        until: started + task.fork.host.options.procedure_deadline,
    };
    let result = call(&task, &mut host);
    host.abandon();
    let head = host.head;
    drop(host);
    task.fork.log.flush();
    task.reply.send(result, task.timestamp_micros, started.elapsed(), head);
}

fn call(task: &ProcedureTask, host: &mut ProcedureHost<'_>) -> Result<Outcome, CallFailure> {
    let fork = &task.fork;
    let mut instance = match fork.take_procedure_instance(&task.module) {
        Some(instance) => instance,
        None => fork.host.instances.take(fork, &task.module)?,
    };
    if !task.cancellation.begin(instance.interrupt_handle()) {
        fork.keep_procedure_instance(&task.module, instance);
        return Err(cancelled());
    }
    let context = CallContext {
        sender: task.requester.identity,
        connection_id: task.connection,
        timestamp: Timestamp::from_micros(task.timestamp_micros),
        seed: task.seed,
        database_identity: fork.database_identity,
        deadline: fork.host.options.procedure_deadline,
        jwt_payload: task.requester.jwt_payload.clone(),
    };
    let outcome = match &task.work {
        Work::Procedure(function) => {
            let ty = function.return_type.clone();
            let value = instance.call_procedure(function.index, &context, &task.arguments, host);
            value.map(|value| Ok(Outcome::Value { ty, value }))
        }
        Work::Handler { handler, body, .. } => {
            let outcome = instance.call_handler(*handler, &context, &task.arguments, body, host);
            outcome.map(|outcome| http::answer(outcome).map(Outcome::Answer))
        }
    };
    let was_interrupted = task.cancellation.end();
    let limit_bytes = fork.host.options.instance_limits.memory_bytes;
    if was_interrupted || outcome.as_ref().is_err_and(CallError::replaces_instance) || instance.needs_replacement() {
        fork.host.metrics.instances_replaced.add(1);
    } else if instance.memory_bytes() > limit_bytes / HEAP_HIGH_DIVISOR {
        fork.host.metrics.instances_retired.add(1);
    } else {
        fork.keep_procedure_instance(&task.module, instance);
    }
    if outcome.is_err() && task.cancellation.is_cancelled() {
        fork.host.metrics.procedures_cancelled.add(1);
        return Err(cancelled());
    }
    outcome.map_err(|error| fork.call_failure(task.work.name(), error))?
}

/// What a procedure's syscalls act on.
struct ProcedureHost<'a> {
    task: &'a ProcedureTask,
    /// Held while a transaction is open.
    lease: Option<(Lease<ForkWorker>, i64)>,
    head: Head,
    until: Instant,
}

impl ProcedureHost<'_> {
    /// Rolls back a transaction the procedure left open.
    fn abandon(&mut self) {
        if let Some((mut lease, _)) = self.lease.take() {
            lease.tables_mut().rollback();
            lease.finish_batch();
            drop(lease);
            self.task.cancellation.leave_transaction();
        }
    }

    fn failed(message: impl Into<String>) -> SyscallError {
        SyscallError::new(SyscallError::HOST_CALL_FAILURE, message)
    }
}

fn no_transaction() -> SyscallError {
    SyscallError::new(SyscallError::TRANSACTION_NOT_ANONYMOUS, "no transaction of a procedure is open")
}

impl Drop for ProcedureHost<'_> {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl CallHost for ProcedureHost<'_> {
    fn tables(&mut self) -> Option<&mut TableWriter> {
        self.lease.as_mut().map(|(lease, _)| lease.tables_mut())
    }

    fn log(&mut self, entry: LogEntry) {
        self.task.fork.log_entry(self.task.work.name(), entry);
    }

    fn begin_transaction(&mut self) -> Result<Timestamp, SyscallError> {
        if self.lease.is_some() {
            return Err(SyscallError::new(SyscallError::WOULD_BLOCK_TRANSACTION, "a transaction is open already"));
        }
        let (granted, lease) = mpsc::sync_channel(1);
        // When nobody waits any more the lease inside the refused message is dropped, and the lane goes on.
        self.task.fork.lane().lease(move |lease| drop(granted.send(lease)));
        let remaining = self.until.saturating_duration_since(Instant::now());
        let mut lease = match lease.recv_timeout(remaining) {
            Ok(Some(lease)) => lease,
            Ok(None) => return Err(Self::failed(HostError::Closed.to_string())),
            Err(_) => return Err(Self::failed("the deadline passed while the transaction waited for its turn")),
        };
        if !Arc::ptr_eq(&lease.module, &self.task.module) {
            return Err(Self::failed("another version of the module was published while the procedure ran"));
        }
        if !self.task.cancellation.enter_transaction() {
            return Err(Self::failed("nobody waits for the procedure any more"));
        }
        let timestamp_micros = lease.next_timestamp(i64::MIN);
        self.lease = Some((lease, timestamp_micros));
        Ok(Timestamp::from_micros(timestamp_micros))
    }

    fn commit_transaction(&mut self) -> Result<(), SyscallError> {
        let Some((mut lease, timestamp_micros)) = self.lease.take() else {
            return Err(no_transaction());
        };
        let parts = CallParts {
            kind: match self.task.work {
                Work::Procedure(_) => CallKind::Procedure,
                Work::Handler { .. } => CallKind::Handler,
            },
            function: self.task.work.name(),
            arguments: &self.task.arguments,
            session: self.task.session,
            timestamp_micros,
            seed: self.task.seed,
            module: self.task.module.short_hash(),
            failure: None,
            is_fresh: true,
        };
        let committed = lease.commit_call(&parts);
        if let Ok(commit) = &committed {
            lease.announce(commit.as_ref(), None);
        }
        self.head = lease.head();
        lease.finish_batch();
        drop(lease);
        self.task.cancellation.leave_transaction();
        committed.map(drop).map_err(|failure| Self::failed(failure.to_string()))
    }

    fn schedule_immediate(&mut self, function: &str, arguments: Vec<u8>) -> Result<(), SyscallError> {
        self.task.fork.schedule_immediate(function, arguments)
    }

    fn http_request(&mut self, request: &[u8], body: &[u8]) -> Result<(Vec<u8>, Vec<u8>), SyscallError> {
        if self.lease.is_some() {
            let problem = "an HTTP request would hold the transaction open: make it outside withTx()";
            return Err(SyscallError::new(SyscallError::WOULD_BLOCK_TRANSACTION, problem));
        }
        let fork = &self.task.fork;
        if !fork.schedules_run() {
            let problem = "this fork sends no requests, because its schedules are paused: resume them to let it act";
            return Err(SyscallError::new(SyscallError::HTTP_ERROR, problem));
        }
        fork.host.metrics.http_requests.add(1);
        fork.host.http.send(request, body, self.until)
    }

    fn abort_transaction(&mut self) -> Result<(), SyscallError> {
        if self.lease.is_none() {
            return Err(no_transaction());
        }
        self.abandon();
        Ok(())
    }
}
