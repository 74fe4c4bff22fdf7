//! The worker of a fork's lane: everything that happens on a fork, one request at a time.
//!
//! Invariants:
//! - Between requests the table writer has no open transaction: every request commits or rolls back what it began.
//! - Replies and updates of a batch reach the connections after the batch's commits are published to readers (G4).
//! - A commit's updates are computed before the next request runs, so they see exactly that commit (G5).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tine_lanes::{Class, Refusal, Worker};
use tine_module::{CallContext, CallError, CallHost, Instance, LogEntry, ReducerIndex, SyscallError};
use tine_query::Caller;
use tine_store::{Commit, DurableTicket, Lsn};
use tine_tables::{ChangeSet, TableError, TableWriter};
use tine_types::protocol::{QuerySetUpdate, ReducerOutcome, ServerMessage, TransactionUpdate};
use tine_types::{ConnectionId, Identity, Timestamp};

use crate::client::{CloseReason, Reply};
use crate::clients::{ClientKey, Clients};
use crate::fork::Fork;
use crate::instances::HeapWatch;
use crate::jobs::Job;
use crate::logs::{LogLevel, LogRecord};
use crate::module::{ActiveModule, Function};
use crate::reads::{Answer, View};
use crate::record::{CallKind, CallParts, Record};
use crate::views::{ViewTables, Views};
use crate::{CallFailure, HostError};

/// See the module documentation.
pub(crate) struct ForkWorker {
    pub fork: Arc<Fork>,
    pub module: Arc<ActiveModule>,
    tables: Option<TableWriter>,
    instance: Option<Instance>,
    heap_watch: HeapWatch,
    pub clients: Clients,
    /// Views that somebody subscribes to, and those of the running query.
    pub views: Views,
    /// The newest commit, with its place in the log.
    head: Head,
    last_timestamp_micros: i64,
    seeds: Seeds,
    /// Replies to callers that are no clients, sent when the batch is published.
    replies: Vec<Box<dyn FnOnce() + Send>>,
    record: Vec<u8>,
    json_arguments: Vec<u8>,
}

#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub lsn: Lsn,
    pub durable: DurableTicket,
}

/// Seeds of calls: a SplitMix64 sequence (Steele, Lea, Flood 2014) started from the environment's randomness, because asking the
/// system for every call would cost more than the call.
struct Seeds(u64);

impl Seeds {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// On whose behalf a reducer runs.
pub(crate) struct Invocation<'a> {
    pub kind: CallKind,
    pub sender: Identity,
    pub connection: Option<ConnectionId>,
    pub jwt_payload: Option<Arc<str>>,
    pub session: u64,
    pub arguments: &'a [u8],
    /// The earliest timestamp the call may have; scheduled calls are not before their time.
    pub not_before_micros: i64,
}

/// A call that ran.
pub(crate) struct Executed {
    pub timestamp: Timestamp,
    pub result: Result<Committed, CallFailure>,
}

pub(crate) struct Committed {
    pub value: Bytes,
    /// `None` when the call changed nothing.
    pub commit: Option<(Commit, ChangeSet)>,
}

/// What a reducer's syscalls act on.
struct ReducerHost<'a> {
    tables: &'a mut TableWriter,
    fork: &'a Fork,
    function: &'a str,
}

impl CallHost for ReducerHost<'_> {
    fn tables(&mut self) -> Option<&mut TableWriter> {
        Some(self.tables)
    }

    fn log(&mut self, entry: LogEntry) {
        self.fork.log_entry(self.function, entry);
    }

    fn begin_transaction(&mut self) -> Result<Timestamp, SyscallError> {
        Err(SyscallError::new(SyscallError::WOULD_BLOCK_TRANSACTION, "a reducer is one transaction itself"))
    }

    fn commit_transaction(&mut self) -> Result<(), SyscallError> {
        Err(not_a_procedure())
    }

    fn abort_transaction(&mut self) -> Result<(), SyscallError> {
        Err(not_a_procedure())
    }

    fn schedule_immediate(&mut self, function: &str, arguments: Vec<u8>) -> Result<(), SyscallError> {
        self.fork.schedule_immediate(function, arguments)
    }
}

pub(crate) fn not_a_procedure() -> SyscallError {
    SyscallError::new(SyscallError::TRANSACTION_NOT_ANONYMOUS, "only procedures end transactions themselves")
}

impl ForkWorker {
    pub fn new(fork: Arc<Fork>, module: Arc<ActiveModule>, tables: TableWriter, head: Lsn) -> Self {
        let mut seed = [0; 8];
        fork.host.env.random_bytes(&mut seed);
        ForkWorker {
            // Whatever was committed before this worker began is at most as new as the newest log entry now.
            head: Head { lsn: head, durable: fork.store.stats().appended },
            fork,
            module,
            tables: Some(tables),
            instance: None,
            heap_watch: HeapWatch::default(),
            clients: Clients::new(),
            views: Views::default(),
            last_timestamp_micros: 0,
            seeds: Seeds(u64::from_le_bytes(seed)),
            replies: Vec::new(),
            record: Vec::new(),
            json_arguments: Vec::new(),
        }
    }

    pub fn head(&self) -> Head {
        self.head
    }

    /// Moves the durable position of the head on: the next replies wait for it.
    pub fn note_durable(&mut self, ticket: DurableTicket) {
        self.head.durable = self.head.durable.max(ticket);
    }

    pub fn tables(&self) -> &TableWriter {
        self.tables.as_ref().expect("the writer is back in its place after every request")
    }

    pub fn tables_mut(&mut self) -> &mut TableWriter {
        self.tables.as_mut().expect("the writer is back in its place after every request")
    }

    /// Swaps the tables to another schema. No transaction may be open.
    pub fn set_schema(&mut self, schema: Arc<tine_tables::DatabaseSchema>) {
        let tables = self.tables.take().expect("the writer is back in its place after every request");
        self.tables = Some(TableWriter::new(tables.into_writer(), schema));
    }

    pub fn drop_instance(&mut self) {
        self.instance = None;
        self.fork.usage.set_lane(0, self.last_timestamp_micros);
    }

    /// Tells the memory budget what the instance takes, and gives it up when its heap stays high.
    fn weigh_instance(&mut self) {
        let Some(instance) = &self.instance else { return };
        let (bytes, limit_bytes) = (instance.memory_bytes(), self.fork.host.options.instance_limits.memory_bytes);
        self.fork.usage.set_lane(bytes, self.last_timestamp_micros);
        if self.heap_watch.is_to_retire(bytes, limit_bytes) {
            self.fork.host.metrics.instances_retired.add(1);
            self.drop_instance();
        }
    }

    /// The time of the newest call.
    pub fn last_timestamp_micros(&self) -> i64 {
        self.last_timestamp_micros
    }

    pub fn next_seed(&mut self) -> u64 {
        self.seeds.next()
    }

    /// The timestamp of a call that starts now: later than that of every commit before.
    pub fn next_timestamp(&mut self, not_before_micros: i64) -> i64 {
        let now = self.fork.host.env.now_micros().max(not_before_micros);
        self.last_timestamp_micros = now.max(self.last_timestamp_micros + 1);
        self.last_timestamp_micros
    }

    /// Runs one reducer as one transaction.
    pub fn execute(&mut self, function: &Function<ReducerIndex>, invocation: &Invocation<'_>) -> Executed {
        let started = Instant::now();
        let timestamp_micros = self.next_timestamp(invocation.not_before_micros);
        let seed = self.seeds.next();
        let is_fresh = self.instance.is_none();
        let outcome = self.run_in_instance(function, invocation, timestamp_micros, seed);
        let mut parts = CallParts {
            kind: invocation.kind,
            function: &function.name,
            arguments: invocation.arguments,
            session: invocation.session,
            timestamp_micros,
            seed,
            module: self.module.short_hash(),
            failure: None,
            is_fresh,
        };
        let result = match outcome {
            Ok(value) => {
                parts.encode(&mut self.record);
                self.commit_recorded(timestamp_micros).map(|commit| Committed { value, commit })
            }
            Err(failure) => {
                self.tables_mut().rollback();
                parts.failure = Some(failure.code());
                parts.encode(&mut self.record);
                self.append_failed_call();
                Err(failure)
            }
        };
        let duration = started.elapsed();
        let metrics = &self.fork.host.metrics;
        metrics.call_ns.add_duration(duration);
        if result.is_ok() {
            metrics.calls_ok.add(1)
        } else {
            metrics.calls_failed.add(1)
        }
        Executed { timestamp: Timestamp::from_micros(timestamp_micros), result }
    }

    fn run_in_instance(
        &mut self,
        function: &Function<ReducerIndex>,
        invocation: &Invocation<'_>,
        timestamp_micros: i64,
        seed: u64,
    ) -> Result<Bytes, CallFailure> {
        let context = CallContext {
            sender: invocation.sender,
            connection_id: invocation.connection,
            timestamp: Timestamp::from_micros(timestamp_micros),
            seed,
            database_identity: self.fork.database_identity,
            deadline: self.fork.host.options.reducer_deadline,
            jwt_payload: invocation.jwt_payload.clone(),
        };
        let outcome = self.with_instance(|instance, tables, fork| {
            let mut host = ReducerHost { tables, fork, function: &function.name };
            instance.call_reducer(function.index, &context, invocation.arguments, &mut host)
        });
        outcome?.map_err(|error| self.fork.call_failure(&function.name, error))
    }

    /// Runs a call in the lane's instance, which is made if there is none and given up if it was stopped.
    pub fn with_instance<T>(
        &mut self,
        call: impl FnOnce(&mut Instance, &mut TableWriter, &Fork) -> Result<T, CallError>,
    ) -> Result<Result<T, CallError>, CallFailure> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => {
                let taken = self.fork.host.instances.take(&self.fork, &self.module);
                taken.map_err(|error| CallFailure::from_host(&error))?
            }
        };
        let tables = self.tables.as_mut().expect("the writer is back in its place after every request");
        let outcome = call(&mut instance, tables, &self.fork);
        let replaces = outcome.as_ref().is_err_and(CallError::replaces_instance) || instance.needs_replacement();
        if replaces {
            self.fork.host.metrics.instances_replaced.add(1);
        } else {
            self.instance = Some(instance);
        }
        Ok(outcome)
    }

    /// Commits the open transaction with the record in `self.record`; a failed commit leaves no trace. Views that it touches run before,
    /// and what changes in them is part of the changes.
    fn commit_recorded(&mut self, timestamp_micros: i64) -> Result<Option<(Commit, ChangeSet)>, CallFailure> {
        let rerun = if self.views.is_empty() { Vec::new() } else { self.rerun_touched() };
        let tables = self.tables.as_mut().expect("the writer is back in its place after every request");
        match tables.commit(&self.record, timestamp_micros) {
            Ok((commit, mut changes)) => {
                // A commit that only raised events changed nothing that is kept, but has something to tell.
                if !commit.changed && changes.is_empty() {
                    return Ok(None);
                }
                self.head = Head { lsn: commit.lsn, durable: commit.durable };
                self.last_timestamp_micros = self.last_timestamp_micros.max(commit.timestamp_micros);
                self.fork.host.metrics.commits.add(1);
                self.fork.after_commit(&changes, tables);
                if !self.views.is_empty() {
                    self.refresh_views(rerun, &mut changes);
                }
                Ok(Some((commit, changes)))
            }
            Err(error) => {
                tables.rollback();
                Err(table_failure(&error))
            }
        }
    }

    /// Takes note of a commit that the store made, and tells the subscribers of its tables.
    pub fn enter_commit(&mut self, commit: (Commit, ChangeSet)) {
        let tables = self.tables.as_ref().expect("the writer is back in its place after every request");
        self.head = Head { lsn: commit.0.lsn, durable: commit.0.durable };
        self.last_timestamp_micros = self.last_timestamp_micros.max(commit.0.timestamp_micros);
        self.fork.host.metrics.commits.add(1);
        self.fork.after_commit(&commit.1, tables);
        self.announce(Some(&commit), None);
    }

    /// Commits whatever the open transaction changed as a call of the given parts.
    pub fn commit_call(&mut self, parts: &CallParts<'_>) -> Result<Option<(Commit, ChangeSet)>, CallFailure> {
        parts.encode(&mut self.record);
        self.commit_recorded(parts.timestamp_micros)
    }

    /// Logs the failed call in `self.record`. A store that takes no more records has already refused every write.
    fn append_failed_call(&mut self) {
        if self.fork.host.options.call_log {
            let _ = self.fork.store.append_call(self.fork.id, &self.record);
        }
    }

    /// Logs who calls in this session and returns its number.
    pub fn open_session(&mut self, caller: Identity, connection: Option<ConnectionId>, jwt: Option<&str>) -> u64 {
        let number = self.seeds.next();
        if self.fork.host.options.call_log {
            let session = Record::Session {
                number,
                caller,
                connection: connection.unwrap_or(ConnectionId::new(0)),
                jwt_payload: jwt.unwrap_or_default().into(),
            };
            // A store that takes no more records has already refused every write.
            let _ = self.fork.store.append_call(self.fork.id, &session.encode());
        }
        number
    }

    /// Queues a commit's updates for everybody but `caller` and returns the caller's own.
    pub fn announce(&mut self, commit: Option<&(Commit, ChangeSet)>, caller: Option<ClientKey>) -> Vec<QuerySetUpdate> {
        let Some((commit, changes)) = commit else { return Vec::new() };
        let metrics = self.fork.host.metrics.clone();
        let tables = self.tables.as_ref().expect("the writer is back in its place after every request");
        let head = Head { lsn: commit.lsn, durable: commit.durable };
        if self.views.is_empty() {
            return self.clients.announce(changes, tables, head, caller, &metrics);
        }
        let tables = ViewTables::new(tables, &self.views);
        self.clients.announce(changes, &tables, head, caller, &metrics)
    }

    /// Queues changes of views that no commit of its own has made.
    pub fn announce_changes(&mut self, changes: &ChangeSet) {
        let metrics = self.fork.host.metrics.clone();
        let tables = self.tables.as_ref().expect("the writer is back in its place after every request");
        let tables = ViewTables::new(tables, &self.views);
        self.clients.announce(changes, &tables, self.head, None, &metrics);
    }

    /// Runs a client's reducer call and queues its result.
    pub fn call_for_client(&mut self, key: ClientKey, request_id: u32, reducer: &str, arguments: &Bytes) {
        let Some(client) = self.clients.get(key) else { return };
        let (info, session) = (client.info.clone(), client.session);
        let module = self.module.clone();
        let Some(function) = module.reducers.get(reducer).filter(|function| function.callable) else {
            let timestamp = Timestamp::from_micros(self.next_timestamp(i64::MIN));
            let outcome = ReducerOutcome::InternalError(format!("no such reducer: `{reducer}`"));
            let head = self.head;
            self.clients.send(key, ServerMessage::ReducerResult { request_id, timestamp, outcome }, Some(head));
            return;
        };
        let executed = self.execute(
            function,
            &Invocation {
                kind: CallKind::Reducer,
                sender: info.identity,
                connection: Some(info.connection_id),
                jwt_payload: info.jwt_payload.clone(),
                session,
                arguments,
                not_before_micros: i64::MIN,
            },
        );
        let outcome = match executed.result {
            Ok(committed) => {
                let query_sets = self.announce(committed.commit.as_ref(), Some(key));
                ReducerOutcome::Ok { return_value: committed.value, update: TransactionUpdate { query_sets } }
            }
            Err(CallFailure::User(text)) => ReducerOutcome::Err(encode_string(&text)),
            Err(failure) => ReducerOutcome::InternalError(failure.to_string()),
        };
        let message = ServerMessage::ReducerResult { request_id, timestamp: executed.timestamp, outcome };
        // A result depends on all commits before it: it may tell what the reducer read.
        let head = self.head;
        self.clients.send(key, message, Some(head));
    }

    /// Sends `reply` when the batch is published.
    pub fn reply<T: Send + 'static>(
        &mut self,
        to: crate::client::ReplyTo<T>,
        result: Result<T, CallFailure>,
        duration: Duration,
    ) {
        let Head { lsn, durable } = self.head;
        self.replies.push(Box::new(move || to(Reply { result, lsn, durable, duration })));
    }

    /// Encodes JSON arguments for a function's parameters.
    pub fn encode_arguments(
        &mut self,
        arguments: crate::client::CallArguments,
        parameters: &tine_types::ProductType,
    ) -> Result<Bytes, CallFailure> {
        match arguments {
            crate::client::CallArguments::Bsatn(bytes) => Ok(bytes),
            crate::client::CallArguments::Json(value) => {
                let ty = tine_types::AlgebraicType::Product(parameters.clone());
                self.json_arguments.clear();
                tine_types::json::json_to_bsatn(&ty, &value, &mut self.json_arguments)
                    .map_err(|error| CallFailure::BadArguments(error.to_string()))?;
                Ok(Bytes::copy_from_slice(&self.json_arguments))
            }
        }
    }

    /// Publishes the batch's commits and lets its replies go.
    pub fn finish_batch(&mut self) {
        if (self.views.take_made() || self.clients.take_ended()) && !self.views.is_empty() {
            let (views, clients) = (&mut self.views, &self.clients);
            views.sweep(|id| clients.watches(id));
        }
        self.tables_mut().writer_mut().publish();
        self.weigh_instance();
        self.fork.log.flush();
        self.clients.flush();
        for reply in self.replies.drain(..) {
            reply();
        }
    }

    pub fn caller(&self, identity: Identity) -> Caller {
        self.fork.caller(identity)
    }
}

/// BSATN of a string: the error value of a reducer.
fn encode_string(text: &str) -> Bytes {
    use tine_types::bsatn::BsatnWrite;
    let mut bytes = Vec::with_capacity(4 + text.len());
    bytes.put_str(text);
    bytes.into()
}

pub(crate) fn table_failure(error: &TableError) -> CallFailure {
    CallFailure::Failed { code: error.code(), message: error.to_string() }
}

impl Worker for ForkWorker {
    type Job = Job;
    type View = View;
    type Answer = Answer;

    fn class(job: &Job) -> Class {
        job.class()
    }

    fn bytes(job: &Job) -> usize {
        job.bytes()
    }

    fn deadline(job: &Job) -> Option<Instant> {
        job.deadline()
    }

    fn view(&mut self) -> View {
        self.share()
    }

    fn read(view: &View, job: Job) -> Answer {
        view.evaluate(job)
    }

    fn finish(&mut self, answers: Vec<Answer>) {
        answers.into_iter().for_each(|answer| self.conclude(answer));
        self.finish_batch();
    }

    fn run(&mut self, jobs: &mut VecDeque<Job>) {
        while let Some(job) = jobs.pop_front() {
            self.handle(job);
        }
        self.finish_batch();
    }

    fn close(&mut self, refusal: Refusal) {
        let reason = match refusal {
            Refusal::Closed | Refusal::Expired => "the database or fork was closed",
            Refusal::Faulted => "module exited",
        };
        self.clients.close_all(&CloseReason::ModuleExited(reason));
        self.instance = None;
        for reply in self.replies.drain(..) {
            reply();
        }
        // The writer goes first: whoever waits for the fork to close may start it anew at once.
        self.tables = None;
        self.fork.closed(refusal);
    }

    fn refuse(job: Job, refusal: Refusal) {
        match refusal {
            Refusal::Expired => job.refuse(&HostError::Overloaded("the fork's lane")),
            Refusal::Closed | Refusal::Faulted => job.refuse(&HostError::Closed),
        }
    }
}

impl Fork {
    pub(crate) fn caller(&self, identity: Identity) -> Caller {
        Caller { identity, is_owner: identity == self.owner }
    }

    /// What the caller is told about a call that failed in the module, after the details went to the module's log.
    pub(crate) fn call_failure(&self, function: &str, error: CallError) -> CallFailure {
        let (code, error_text) = (error.code(), error.to_string());
        match error {
            CallError::User(text) => CallFailure::User(text),
            CallError::BadArguments { source, .. } => CallFailure::BadArguments(format!("{error_text}: {source}")),
            error => {
                let (message, location, trace) = match &error {
                    CallError::Thrown(thrown) => {
                        let location = thrown.location.as_ref().map(|place| (place.file.as_str().into(), place.line));
                        (thrown.message.clone(), location, Some(error_text.into()))
                    }
                    _ => (error_text, None, None),
                };
                self.log.push(LogRecord {
                    level: LogLevel::Panic,
                    timestamp_micros: self.host.env.now_micros(),
                    fork: self.name(),
                    function: function.into(),
                    location,
                    message: message.into(),
                    trace,
                });
                CallFailure::Failed { code, message: public_message(&error).to_owned() }
            }
        }
    }
}

/// What a client learns of a failure that is not for it; the module's log has the rest.
fn public_message(error: &CallError) -> &'static str {
    match error {
        CallError::Deadline { .. } => "the call ran out of time",
        CallError::OutOfMemory { .. } => "the call ran out of memory",
        CallError::StackOverflow { .. } => "the call nested too deeply",
        CallError::ReturnedPromise { .. } => "the function returned a promise: reducers and procedures cannot be async",
        CallError::Interrupted { .. } => "the call was interrupted",
        CallError::NoSuchFunction => "the module has no such function",
        CallError::Worker(_) => "the process that ran the call failed",
        _ => "The instance encountered a fatal error.",
    }
}

impl From<HostError> for CallFailure {
    fn from(error: HostError) -> Self {
        CallFailure::from_host(&error)
    }
}
