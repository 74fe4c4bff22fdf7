//! The recorded past of a fork, in order: its own commits, before them those of the fork it was made from, and so on.
//!
//! The log is read from its beginning, because sessions are recorded once and referenced from then on. Calls that committed nothing
//! have no LSN; they stand after the commit they followed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tine_store::{ForkId, LogReader, LogRecord, LogRecordKind, Lsn, Operation, Store};
use tine_types::{ConnectionId, Identity};

use crate::HostError;
use crate::database::Database;
use crate::host::Host;
use crate::record::{CallKind, CallRecord, Record};

/// How long what was committed before may take to reach the log's files.
const DURABLE_WITHIN: Duration = Duration::from_secs(30);

/// Who called.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub caller: Identity,
    /// `None` for callers that were no clients.
    pub connection: Option<ConnectionId>,
    /// JSON text, empty if there was none.
    pub jwt_payload: Arc<str>,
}

/// A commit, or a call that committed nothing.
#[derive(Debug)]
pub(super) struct Event {
    /// `None` for a call that committed nothing.
    pub lsn: Option<Lsn>,
    /// The fork's newest commit before it.
    pub after: Lsn,
    pub timestamp_micros: i64,
    pub operations: Vec<Operation>,
    /// `None` for a commit whose record says nothing of a call.
    pub call: Option<CallRecord>,
    pub session: Option<Session>,
}

/// See the module documentation.
pub(super) struct Timeline {
    reader: LogReader,
    /// The forks whose commits are part of the past, each with the last LSN that is.
    lineage: HashMap<ForkId, Lsn>,
    /// The newest commit seen of each of them.
    heads: HashMap<ForkId, Lsn>,
    /// Those of which a fork on the line was made: what they were asked later is no part of its past.
    left: HashSet<ForkId>,
    sessions: HashMap<u64, Session>,
    /// The first LSN that is shown.
    from: Lsn,
}

impl Timeline {
    /// The past of `fork` from the commit `from` to `to`, both included, with the calls that committed nothing in between.
    pub fn open(host: &Host, database: &Database, fork: ForkId, from: Lsn, to: Lsn) -> Result<Timeline, HostError> {
        let store = &database.store;
        store.wait_durable(store.stats().appended, DURABLE_WITHIN)?;
        let open = || Store::read_log(host.database_directory(database.identity), host.shared().env.clone());
        let parents = parents(store, fork, open)?;
        let (mut lineage, mut heads) = (HashMap::from([(fork, to)]), HashMap::new());
        let (mut child, mut last) = (fork, to);
        while let Some((parent, origin)) = parents.get(&child).copied() {
            heads.insert(child, origin);
            last = last.min(origin);
            lineage.insert(parent, last);
            child = parent;
        }
        Ok(Timeline {
            reader: open().map_err(HostError::Log)?,
            lineage,
            heads,
            left: HashSet::new(),
            sessions: HashMap::new(),
            from,
        })
    }

    /// The next event; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Event>, HostError> {
        loop {
            let Some(record) = self.reader.next() else { return Ok(None) };
            if let Some(event) = self.take(record.map_err(HostError::Log)?)? {
                return Ok(Some(event));
            }
        }
    }

    fn take(&mut self, record: LogRecord) -> Result<Option<Event>, HostError> {
        match record.kind {
            LogRecordKind::Commit { version, timestamp_micros, operations, call } => {
                let Some(&last) = self.lineage.get(&version.fork) else { return Ok(None) };
                let call = self.call(&call)?;
                let after = self.heads.insert(version.fork, version.lsn).unwrap_or(Lsn::new(0));
                if version.lsn > last || version.lsn < self.from {
                    return Ok(None);
                }
                let session = self.session(call.as_ref());
                Ok(Some(Event { lsn: Some(version.lsn), after, timestamp_micros, operations, call, session }))
            }
            LogRecordKind::Call { fork, call } => {
                let Some(&last) = self.lineage.get(&fork) else { return Ok(None) };
                let Some(call) = self.call(&call)? else { return Ok(None) };
                let after = self.heads.get(&fork).copied().unwrap_or(Lsn::new(0));
                let session = self.session(Some(&call));
                let is_shown = after.get() + 1 >= self.from.get() && after <= last && !self.left.contains(&fork);
                let timestamp_micros = call.timestamp_micros;
                let event =
                    Event { lsn: None, after, timestamp_micros, operations: Vec::new(), call: Some(call), session };
                Ok(is_shown.then_some(event))
            }
            LogRecordKind::ForkCreated { fork, parent: Some(parent), .. } if self.lineage.contains_key(&fork) => {
                self.left.insert(parent.fork);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The call in a record; sessions are noted.
    fn call(&mut self, bytes: &[u8]) -> Result<Option<CallRecord>, HostError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        match Record::decode(bytes).map_err(|_| HostError::Damaged("call record"))? {
            Record::Call(call) => Ok(Some(call)),
            Record::Session { number, caller, connection, jwt_payload } => {
                let connection = Some(connection).filter(|&connection| connection != ConnectionId::new(0));
                self.sessions.insert(number, Session { caller, connection, jwt_payload: (&*jwt_payload).into() });
                Ok(None)
            }
            Record::Module { .. } => Ok(None),
        }
    }

    /// The session of a call. One without a connection ends with its only call, so that it is not kept; only procedures and handlers
    /// may have several transactions.
    fn session(&mut self, call: Option<&CallRecord>) -> Option<Session> {
        let call = call?;
        let session = self.sessions.get(&call.session)?;
        if session.connection.is_none() && !matches!(call.kind, CallKind::Procedure | CallKind::Handler) {
            return self.sessions.remove(&call.session);
        }
        Some(session.clone())
    }
}

/// The parent of every fork on the way from `fork` to the beginning. A parent that was dropped is only known to the log.
fn parents(
    store: &Store,
    fork: ForkId,
    open: impl Fn() -> Result<LogReader, tine_store::LogError>,
) -> Result<HashMap<ForkId, (ForkId, Lsn)>, HostError> {
    let mut parents = HashMap::new();
    let mut child = fork;
    let dropped = loop {
        let Some(info) = store.fork_info(child) else { break true };
        let Some(parent) = info.parent else { break false };
        parents.insert(child, (parent.fork, parent.lsn));
        child = parent.fork;
    };
    if dropped {
        for record in open().map_err(HostError::Log)? {
            if let LogRecordKind::ForkCreated { fork, parent: Some(parent), .. } = record.map_err(HostError::Log)?.kind
            {
                parents.insert(fork, (parent.fork, parent.lsn));
            }
        }
    }
    Ok(parents)
}
