//! What the server does with one fork: connect clients, call functions, query, read logs.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tine_lanes::{Quota, SubmitError};
use tine_query::Caller;
use tine_store::{DurableTicket, Lsn};
use tine_types::Identity;
use tine_types::protocol::ClientMessage;
use tokio::sync::watch;

use crate::HostError;
use crate::cancel::{CallGuard, Cancellation};
use crate::client::{
    CallArguments, CallReturn, ClientInfo, ClientSink, Durability, Reply, ReplyTo, Requester, SqlRows,
};
use crate::clients::ClientKey;
use crate::database::Database;
use crate::fork::Fork;
use crate::jobs::{Job, Share};
use crate::logs::ModuleLog;
use crate::module::ActiveModule;
use crate::options::{CLIENT_BYTES_MAX, CLIENT_REQUESTS_MAX};

/// How long a request waits for its turn on the lane: as long as whoever sent it is answered at all.
pub(crate) const LANE_WITHIN: Duration = Duration::from_secs(60);

/// What a queued request costs in memory besides its arguments.
const REQUEST_OVERHEAD_BYTES: usize = 64;

/// A fork that runs; cheap to clone.
#[derive(Clone)]
pub struct ForkHandle {
    pub(crate) database: Arc<Database>,
    pub(crate) fork: Arc<Fork>,
}

impl ForkHandle {
    /// Identity of the database: what the module sees, on every fork.
    pub fn database_identity(&self) -> Identity {
        self.fork.database_identity
    }

    /// Routable identity of the fork itself.
    pub fn fork_identity(&self) -> Identity {
        self.fork.identity
    }

    /// Who owns the database.
    pub fn owner(&self) -> Identity {
        self.fork.owner
    }

    /// Name of the database, with `@fork` unless it is main.
    pub fn address(&self) -> String {
        self.database.address(&self.fork.name())
    }

    /// Name of the fork.
    pub fn fork_name(&self) -> Arc<str> {
        self.fork.name()
    }

    /// The module that runs now.
    pub fn module(&self) -> Arc<ActiveModule> {
        self.fork.module()
    }

    /// The log of the database's modules; records carry the fork's name.
    pub fn log(&self) -> &Arc<ModuleLog> {
        &self.fork.log
    }

    /// How far the log is durable, to be watched by confirmed deliveries.
    pub fn durability(&self) -> watch::Receiver<Durability> {
        self.fork.durability.subscribe()
    }

    /// Whether deliveries can be confirmed: not on an ephemeral fork.
    pub fn is_durable(&self) -> bool {
        self.database
            .store
            .fork_info(self.fork.id)
            .is_some_and(|info| info.durability == tine_store::Durability::Durable)
    }

    /// Queues a client's connection. `InitialConnection` is the first message its sink gets, unless the module refuses it.
    ///
    /// # Errors
    /// [`HostError::NeverConfirmed`], [`HostError::Overloaded`], [`HostError::Closed`].
    pub fn connect(&self, info: ClientInfo, sink: Arc<dyn ClientSink>) -> Result<Connection, HostError> {
        if info.confirmed == Some(true) && !self.is_durable() {
            return Err(HostError::NeverConfirmed);
        }
        let key = self.fork.host.next_client();
        let quota = Arc::new(Quota::new(CLIENT_REQUESTS_MAX, CLIENT_BYTES_MAX));
        let caller = self.fork.caller(info.identity);
        let job = Job::Connect { key, info: Arc::new(info), sink };
        self.fork.lane().submit(job).map_err(refused)?;
        Ok(Connection { fork: self.fork.clone(), key, caller, quota, jobs: Vec::new() })
    }

    /// Calls a reducer or procedure on behalf of a caller that is no client.
    ///
    /// Short work on an idle fork runs before this returns. The guard tells that somebody waits: keep it until the reply came.
    pub fn call(
        &self,
        requester: Requester,
        function: &str,
        arguments: CallArguments,
        reply: ReplyTo<CallReturn>,
    ) -> CallGuard {
        let deadline = Instant::now() + LANE_WITHIN;
        let cancellation = Arc::new(Cancellation::default());
        let guard = CallGuard(cancellation.clone());
        self.submit(Job::Call { requester, function: function.into(), arguments, deadline, cancellation, reply });
        guard
    }

    /// Runs one statement: a SELECT as an ordered read, one that changes rows as a write.
    pub fn sql(&self, requester: Requester, text: &str, reply: ReplyTo<SqlRows>) {
        let alone = self.fork.module().has_hooks() || tine_query::writes(text);
        let deadline = Instant::now() + LANE_WITHIN;
        self.submit(Job::Sql { requester, text: text.into(), alone, deadline, reply });
    }

    pub(crate) fn submit(&self, job: Job) {
        let mut jobs = vec![job];
        if let Err(error) = self.fork.lane().submit_batch(&mut jobs) {
            let is_full = matches!(error, SubmitError::Full(()));
            self.fork.host.metrics.requests_refused.add(u64::from(is_full));
            let error = refused(error);
            jobs.into_iter().for_each(|job| job.refuse(&error));
        }
    }

    /// Waits for a job that answers through `make`'s reply function.
    pub(crate) fn ask<T: Send + 'static>(&self, make: impl FnOnce(ReplyTo<T>) -> Job) -> Result<Reply<T>, HostError> {
        let (answered, answer) = mpsc::sync_channel(1);
        // Nobody may wait any more: then the answer is dropped.
        self.submit(make(Box::new(move |reply| drop(answered.send(reply)))));
        answer.recv_timeout(LANE_WITHIN).map_err(|_| HostError::Overloaded("the fork's lane"))
    }

    /// Waits until `ticket` is on stable storage.
    pub(crate) fn wait_durable(&self, ticket: DurableTicket) -> Result<(), HostError> {
        Ok(self.fork.store.wait_durable(ticket, LANE_WITHIN)?)
    }

    /// The newest commit that readers see.
    pub fn head(&self) -> Lsn {
        self.database.store.fork_info(self.fork.id).map_or(Lsn::new(0), |info| info.head)
    }
}

fn refused<T>(error: SubmitError<T>) -> HostError {
    match error {
        SubmitError::Full(_) => HostError::Overloaded("the fork's lane"),
        SubmitError::Closed(_) => HostError::Closed,
    }
}

/// A client's end of a connection. Dropping it queues the disconnect.
pub struct Connection {
    fork: Arc<Fork>,
    key: ClientKey,
    caller: Caller,
    quota: Arc<Quota>,
    jobs: Vec<Job>,
}

impl Connection {
    /// Queues `messages` in order and leaves them empty; never waits for their results. Short work on an idle fork runs before this
    /// returns.
    ///
    /// # Errors
    /// [`HostError::Overloaded`] when the connection has too many unanswered requests (close with 1013; those before the one that is
    /// too many are queued); [`HostError::Closed`].
    pub fn submit(&mut self, messages: &mut Vec<ClientMessage>) -> Result<(), HostError> {
        let mut overloaded = false;
        for message in messages.drain(..) {
            let bytes = message_bytes(&message) + REQUEST_OVERHEAD_BYTES;
            if overloaded || !self.quota.take(bytes) {
                overloaded = true;
                continue;
            }
            let share = Share { quota: self.quota.clone(), bytes };
            self.jobs.push(match message {
                ClientMessage::CallReducer { .. } | ClientMessage::CallProcedure { .. } => {
                    Job::Client { key: self.key, message, share }
                }
                query => Job::Query { key: self.key, caller: self.caller, message: query, share },
            });
        }
        let submitted = self.fork.lane().submit_batch(&mut self.jobs);
        if submitted.is_err() {
            self.jobs.clear();
        }
        submitted.map_err(refused)?;
        if overloaded {
            self.fork.host.metrics.requests_refused.add(1);
            return Err(HostError::Overloaded("requests of this connection"));
        }
        Ok(())
    }
}

fn message_bytes(message: &ClientMessage) -> usize {
    match message {
        ClientMessage::Subscribe { queries, .. } => queries.iter().map(|query| query.len()).sum(),
        ClientMessage::Unsubscribe { .. } => 0,
        ClientMessage::OneOffQuery { query, .. } => query.len(),
        ClientMessage::CallReducer { reducer, args, .. } => reducer.len() + args.len(),
        ClientMessage::CallProcedure { procedure, args, .. } => procedure.len() + args.len(),
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A closed lane has already forgotten its clients.
        let _ = self.fork.lane().submit_unbounded(Job::Disconnect { key: self.key });
    }
}
