//! The requests a lane carries, and how the worker answers each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tine_lanes::{Class, Quota};
use tine_query::Caller;
use tine_store::{Durability as ForkDurability, ForkOptions};
use tine_types::ConnectionId;
use tine_types::protocol::{ClientMessage, ServerMessage};

use crate::cancel::Cancellation;
use crate::client::{CallArguments, CallReturn, ClientInfo, ClientSink, CloseReason, ReplyTo, Requester, SqlRows};
use crate::clients::ClientKey;
use crate::forks::ForkMade;
use crate::http::{HttpAnswer, HttpCall};
use crate::local::{LocalRead, LocalReply, LocalWrite, RowForm};
use crate::procedures::{ProcedureReply, ProcedureTask, Work};
use crate::publish::PublishJob;
use crate::record::CallKind;
use crate::scheduler::ScheduledEntry;
use crate::worker::{ForkWorker, Invocation};
use crate::{CallFailure, HostError};

/// One request on a fork's lane.
pub(crate) enum Job {
    Connect {
        key: ClientKey,
        info: Arc<ClientInfo>,
        sink: Arc<dyn ClientSink>,
    },
    Disconnect {
        key: ClientKey,
    },
    /// A client's call.
    Client {
        key: ClientKey,
        message: ClientMessage,
        share: Share,
    },
    /// A client's ordered read.
    Query {
        key: ClientKey,
        caller: Caller,
        message: ClientMessage,
        share: Share,
    },
    Call {
        requester: Requester,
        function: Box<str>,
        arguments: CallArguments,
        deadline: Instant,
        cancellation: Arc<Cancellation>,
        reply: ReplyTo<CallReturn>,
    },
    /// A request to the module's HTTP handlers.
    Http {
        call: Box<HttpCall>,
        deadline: Instant,
        cancellation: Arc<Cancellation>,
        reply: ReplyTo<HttpAnswer>,
    },
    /// A statement; `alone` when it changes rows, or the module's hooks do before and after it.
    Sql {
        requester: Requester,
        text: Box<str>,
        alone: bool,
        deadline: Instant,
        reply: ReplyTo<SqlRows>,
    },
    /// A local program's read.
    LocalRead {
        form: RowForm,
        read: LocalRead,
        reply: ReplyTo<LocalReply>,
    },
    /// A local program's write.
    LocalWrite {
        requester: Requester,
        form: RowForm,
        write: LocalWrite,
        deadline: Instant,
        reply: ReplyTo<LocalReply>,
    },
    CreateFork {
        options: ForkOptions,
        /// Whether the reply lists the connected clients.
        clients: bool,
        reply: ReplyTo<Result<ForkMade, HostError>>,
    },
    /// Runs the disconnect hook for clients that were connected to the fork this one was made from.
    DisconnectInherited {
        clients: Vec<Arc<ClientInfo>>,
        reply: ReplyTo<()>,
    },
    ResumeSchedules {
        actor: Requester,
        reply: ReplyTo<Result<(), HostError>>,
    },
    Publish {
        job: Box<PublishJob>,
        reply: ReplyTo<Result<(), HostError>>,
    },
    Scheduled {
        entry: ScheduledEntry,
    },
    /// A call that the module itself queued.
    Immediate {
        function: Box<str>,
        arguments: Bytes,
    },
    /// Others need the memory.
    DropInstance,
}

/// A request's part of what its connection may have unanswered; given back when the request is done with.
pub(crate) struct Share {
    pub quota: Arc<Quota>,
    pub bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.quota.give_back(self.bytes);
    }
}

impl Job {
    pub fn class(&self) -> Class {
        match self {
            Job::Query { .. } | Job::Sql { alone: false, .. } | Job::LocalRead { .. } => Class::Read,
            _ => Class::Write,
        }
    }

    /// Memory that the request keeps while it waits.
    pub fn bytes(&self) -> usize {
        match self {
            Job::Client { share, .. } | Job::Query { share, .. } => share.bytes,
            Job::Call { arguments, .. } => arguments.bytes(),
            Job::Immediate { arguments, .. } => arguments.len(),
            Job::Http { call, .. } => call.body.len() + call.uri.len(),
            Job::Sql { text, .. } => text.len(),
            Job::Publish { job, .. } => job.program.len(),
            Job::LocalWrite { write, .. } => write.bytes(),
            _ => 0,
        }
    }

    /// When nobody waits for the answer any more. A connection's requests have none: the connection itself ends.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Job::Call { deadline, .. } | Job::Sql { deadline, .. } | Job::Http { deadline, .. } => Some(*deadline),
            Job::LocalWrite { deadline, .. } => Some(*deadline),
            _ => None,
        }
    }

    /// Answers a job that will not run, because of `error`. Clients need no answer: the lane closes their connections.
    pub fn refuse(self, error: &HostError) {
        fn answer<T>(reply: ReplyTo<T>, error: &HostError) {
            let (lsn, durable) = (tine_store::Lsn::new(0), tine_store::DurableTicket::new(0));
            let result = Err(CallFailure::from_host(error));
            reply(crate::client::Reply { result, lsn, durable, duration: Duration::ZERO });
        }
        match self {
            Job::Connect { sink, .. } => sink.close(CloseReason::ModuleExited("the database or fork was closed")),
            Job::Call { reply, .. } => answer(reply, error),
            Job::Sql { reply, .. } => answer(reply, error),
            Job::Http { reply, .. } => answer(reply, error),
            Job::LocalRead { reply, .. } | Job::LocalWrite { reply, .. } => answer(reply, error),
            Job::CreateFork { reply, .. } => answer(reply, error),
            Job::DisconnectInherited { reply, .. } => answer(reply, error),
            Job::ResumeSchedules { reply, .. } => answer(reply, error),
            Job::Publish { reply, .. } => answer(reply, error),
            Job::Client { .. } | Job::Query { .. } | Job::Disconnect { .. } => {}
            Job::Scheduled { .. } | Job::Immediate { .. } | Job::DropInstance => {}
        }
    }
}

impl ForkWorker {
    pub fn handle(&mut self, job: Job) {
        match job {
            Job::Client { key, message, share: _share } => self.client_call(key, message),
            Job::Query { .. } | Job::Sql { .. } => self.read_alone(job),
            Job::Connect { key, info, sink } => self.connect(key, info, sink),
            Job::Disconnect { key } => self.disconnect(key),
            Job::Call { requester, function, arguments, cancellation, reply, .. } => {
                self.call(requester, &function, arguments, cancellation, reply);
            }
            Job::Http { call, cancellation, reply, .. } => self.start_handler(*call, cancellation, reply),
            Job::LocalRead { form, read, reply } => {
                let started = Instant::now();
                let result = crate::local::read(self.tables(), form, &read);
                self.reply(reply, result, started.elapsed());
            }
            Job::LocalWrite { requester, form, write, reply, .. } => {
                let started = Instant::now();
                let result = self.write_locally(&requester, form, &write);
                self.reply(reply, result, started.elapsed());
            }
            Job::CreateFork { options, clients, reply } => {
                let started = Instant::now();
                let result = self.create_fork(options, clients);
                self.reply(reply, Ok(result), started.elapsed());
            }
            Job::DisconnectInherited { clients, reply } => {
                let started = Instant::now();
                self.disconnect_inherited(&clients);
                self.reply(reply, Ok(()), started.elapsed());
            }
            Job::ResumeSchedules { actor, reply } => {
                let started = Instant::now();
                let result = self.resume_schedules(&actor);
                self.reply(reply, Ok(result), started.elapsed());
            }
            Job::Publish { job, reply } => {
                let started = Instant::now();
                let result = self.publish(*job);
                self.reply(reply, Ok(result), started.elapsed());
            }
            Job::Scheduled { entry } => self.run_scheduled(entry),
            Job::Immediate { function, arguments } => self.run_immediate(&function, arguments),
            Job::DropInstance => self.drop_instance(),
        }
    }

    fn client_call(&mut self, key: ClientKey, message: ClientMessage) {
        if !self.clients.get(key).is_some_and(|client| client.accepted) {
            return;
        }
        match message {
            ClientMessage::CallReducer { request_id, reducer, args } => {
                self.call_for_client(key, request_id, &reducer, &args);
            }
            ClientMessage::CallProcedure { request_id, procedure, args } => {
                self.start_client_procedure(key, request_id, &procedure, args);
            }
            _ => unreachable!("queries are jobs of their own"),
        }
    }

    fn connect(&mut self, key: ClientKey, info: Arc<ClientInfo>, sink: Arc<dyn ClientSink>) {
        let session = self.open_session(info.identity, Some(info.connection_id), info.jwt_payload.as_deref());
        let caller = self.caller(info.identity);
        self.clients.add(key, info.clone(), caller, sink.clone(), session);
        let hook = self.module.connected.clone();
        let accepted = self.lifecycle(hook.as_deref(), &requester_of(&info), Some(info.connection_id), session);
        if let Err(failure) = accepted {
            self.clients.remove(key);
            sink.close(CloseReason::Refused(failure.to_string()));
            return;
        }
        if let Some(client) = self.clients.get_mut(key) {
            client.accepted = true;
        }
        self.fork.host.metrics.clients.add(1);
        let message = ServerMessage::InitialConnection {
            identity: info.identity,
            connection_id: info.connection_id,
            token: info.token.to_string(),
        };
        self.clients.send(key, message, None);
    }

    fn disconnect(&mut self, key: ClientKey) {
        let Some(client) = self.clients.remove(key) else { return };
        if client.accepted {
            self.fork.host.metrics.clients.add(-1);
            let hook = self.module.disconnected.clone();
            // The client is gone either way; what its hook had to say is in the module's log.
            let _ = self.lifecycle(
                hook.as_deref(),
                &requester_of(&client.info),
                Some(client.info.connection_id),
                client.session,
            );
        }
    }

    fn lifecycle(
        &mut self,
        hook: Option<&crate::module::Function<tine_module::ReducerIndex>>,
        requester: &Requester,
        connection: Option<ConnectionId>,
        session: u64,
    ) -> Result<(), CallFailure> {
        let Some(hook) = hook else { return Ok(()) };
        let executed = self.execute(
            hook,
            &Invocation {
                kind: CallKind::Lifecycle,
                sender: requester.identity,
                connection,
                jwt_payload: requester.jwt_payload.clone(),
                session,
                arguments: &[],
                not_before_micros: i64::MIN,
            },
        );
        let committed = executed.result?;
        self.announce(committed.commit.as_ref(), None);
        Ok(())
    }

    /// Runs `work` between the module's connect and disconnect hooks, as the peer does for HTTP requests: with a connection that
    /// lasts for the request, and its session if the hooks needed one.
    pub fn between_hooks<T>(
        &mut self,
        requester: &Requester,
        work: impl FnOnce(&mut Self, ConnectionId, Option<u64>) -> Result<T, CallFailure>,
    ) -> Result<T, CallFailure> {
        let (connected, disconnected) = (self.module.connected.clone(), self.module.disconnected.clone());
        let connection = self.fork.host.random_connection_id();
        if connected.is_none() && disconnected.is_none() {
            return work(self, connection, None);
        }
        let session = self.open_session(requester.identity, Some(connection), requester.jwt_payload.as_deref());
        self.lifecycle(connected.as_deref(), requester, Some(connection), session)
            .map_err(CallFailure::into_refusal)?;
        let result = work(self, connection, Some(session));
        // The work is done either way; what the hook had to say is in the module's log.
        let _ = self.lifecycle(disconnected.as_deref(), requester, Some(connection), session);
        result
    }

    fn call(
        &mut self,
        requester: Requester,
        name: &str,
        arguments: CallArguments,
        cancellation: Arc<Cancellation>,
        reply: ReplyTo<CallReturn>,
    ) {
        let started = Instant::now();
        let module = self.module.clone();
        if let Some(function) = module.reducers.get(name).filter(|function| function.callable) {
            let result = self.between_hooks(&requester, |worker, connection, session| {
                let arguments = worker.encode_arguments(arguments, &function.parameters)?;
                let session = session.unwrap_or_else(|| {
                    worker.open_session(requester.identity, Some(connection), requester.jwt_payload.as_deref())
                });
                let executed = worker.execute(
                    function,
                    &Invocation {
                        kind: CallKind::Reducer,
                        sender: requester.identity,
                        connection: Some(connection),
                        jwt_payload: requester.jwt_payload.clone(),
                        session,
                        arguments: &arguments,
                        not_before_micros: i64::MIN,
                    },
                );
                let committed = executed.result?;
                worker.announce(committed.commit.as_ref(), None);
                Ok(CallReturn::Reducer)
            });
            return self.reply(reply, result, started.elapsed());
        }
        let Some(function) = module.procedures.get(name).filter(|function| function.callable) else {
            return self.reply(reply, Err(CallFailure::NoSuchFunction), started.elapsed());
        };
        match self.encode_arguments(arguments, &function.parameters) {
            Ok(arguments) => {
                let reply = ProcedureReply::Requester(reply);
                let connection = Some(self.fork.host.random_connection_id());
                self.start_procedure(function.clone(), requester, connection, arguments, cancellation, reply);
            }
            Err(failure) => self.reply(reply, Err(failure), started.elapsed()),
        }
    }

    fn start_client_procedure(&mut self, key: ClientKey, request_id: u32, name: &str, arguments: Bytes) {
        let Some(client) = self.clients.get(key) else { return };
        let (requester, sink) = (requester_of(&client.info), client.sink.clone());
        let connection = Some(client.info.connection_id);
        let reply = ProcedureReply::Client { sink, request_id };
        match self.module.procedures.get(name).filter(|function| function.callable).cloned() {
            Some(function) => {
                let cancellation = Arc::new(Cancellation::default());
                if let Some(client) = self.clients.get_mut(key) {
                    client.procedures.add(&cancellation);
                }
                self.start_procedure(function, requester, connection, arguments, cancellation, reply);
            }
            None => {
                let timestamp = self.next_timestamp(i64::MIN);
                let failure = CallFailure::Failed {
                    code: CallFailure::NoSuchFunction.code(),
                    message: format!("no such procedure: `{name}`"),
                };
                reply.send(Err(failure), timestamp, Duration::ZERO, self.head());
            }
        }
    }

    pub fn start_procedure(
        &mut self,
        function: Arc<crate::module::Function<tine_module::ProcedureIndex>>,
        requester: Requester,
        connection: Option<ConnectionId>,
        arguments: Bytes,
        cancellation: Arc<Cancellation>,
        reply: ProcedureReply,
    ) {
        self.start_work(Work::Procedure(function), requester, connection, arguments, cancellation, reply);
    }

    pub fn start_work(
        &mut self,
        work: Work,
        requester: Requester,
        connection: Option<ConnectionId>,
        arguments: Bytes,
        cancellation: Arc<Cancellation>,
        reply: ProcedureReply,
    ) {
        self.fork.add_procedure(&cancellation);
        let session = self.open_session(requester.identity, connection, requester.jwt_payload.as_deref());
        let task = ProcedureTask {
            fork: self.fork.clone(),
            module: self.module.clone(),
            work,
            requester,
            connection,
            session,
            arguments,
            timestamp_micros: self.next_timestamp(i64::MIN),
            seed: self.next_seed(),
            head: self.head(),
            cancellation,
            reply,
        };
        self.fork.host.procedures.submit(task);
    }

    fn create_fork(&mut self, options: ForkOptions, clients: bool) -> Result<ForkMade, HostError> {
        self.tables_mut().writer_mut().publish();
        let durable = options.durability == ForkDurability::Durable;
        let started = Instant::now();
        let (info, ticket) = self.fork.store.fork(self.fork.id, options)?;
        self.fork.host.metrics.fork_ns.add_duration(started.elapsed());
        self.fork.host.metrics.forks_made.add(1);
        if durable {
            self.note_durable(ticket);
        }
        let clients = if clients { self.clients.accepted() } else { Vec::new() };
        Ok(ForkMade { info, clients })
    }

    /// The clients have no connection here, so only the hook hears of them.
    fn disconnect_inherited(&mut self, clients: &[Arc<ClientInfo>]) {
        let hook = self.module.disconnected.clone();
        for client in clients {
            let connection = Some(client.connection_id);
            let session = self.open_session(client.identity, connection, client.jwt_payload.as_deref());
            // As for a client that goes: what its hook had to say is in the module's log.
            let _ = self.lifecycle(hook.as_deref(), &requester_of(client), connection, session);
        }
    }
}

fn requester_of(info: &ClientInfo) -> Requester {
    Requester { identity: info.identity, jwt_payload: info.jwt_payload.clone() }
}
