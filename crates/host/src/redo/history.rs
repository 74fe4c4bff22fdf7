//! Listing what happened on a fork.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use tine_store::{Lsn, Operation};
use tine_types::{ConnectionId, Identity};

use super::replica::is_administration;
use super::report::arguments;
use super::timeline::{Event, Timeline};
use crate::HostError;
use crate::client::Actor;
use crate::host::Host;
use crate::module::ActiveModule;
use crate::record::CallKind;

/// Entries returned at most.
const ENTRIES_MAX: usize = 10_000;

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct HistoryRequest {
    /// The first commit; `None` for the oldest that is known.
    pub from: Option<Lsn>,
    /// The last commit; `None` for the newest.
    pub to: Option<Lsn>,
    /// How many entries, the newest ones; at most 10,000.
    pub limit: usize,
    /// Whether calls that committed nothing are listed, too.
    pub uncommitted: bool,
}

/// Rows that a commit wrote in one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Inserted, or replaced.
    pub written: u64,
    /// Deleted.
    pub deleted: u64,
}

/// A commit, or a call that committed nothing.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// `None` when nothing was committed.
    pub lsn: Option<Lsn>,
    /// The fork's newest commit before it.
    pub after: Lsn,
    /// Microseconds since the Unix epoch.
    pub timestamp_micros: i64,
    /// What started it; `None` when the commit has no record.
    pub kind: Option<CallKind>,
    /// The function, empty where there is none.
    pub function: String,
    /// By parameter, as far as the fork's present module knows them; otherwise their bytes in hex.
    pub arguments: Value,
    /// Who called; `None` for the database itself.
    pub caller: Option<Identity>,
    /// The caller's connection.
    pub connection: Option<ConnectionId>,
    /// The code of its failure.
    pub failure: Option<String>,
    /// Rows by table, of the tables that the fork has now.
    pub tables: BTreeMap<String, TableCounts>,
    /// Whether it changed code, schema or settings.
    pub is_administration: bool,
}

impl Host {
    /// The newest entries of a fork's past, in order: its commits and, if asked for, calls that committed nothing.
    ///
    /// # Errors
    /// [`HostError::NotFound`], [`HostError::NotAuthorized`]: arguments may be private, so that only the owner may see them;
    /// [`HostError::NeverRecorded`] for ephemeral forks; a damaged log.
    pub fn history(
        &self,
        address: &str,
        actor: &Actor,
        request: &HistoryRequest,
    ) -> Result<Vec<HistoryEntry>, HostError> {
        let (database, fork) = self.locate(address)?;
        self.authorize(&database, actor, "read the history")?;
        self.check_recorded(&database, fork)?;
        let module = self.resolve(address)?.module();
        let from = request.from.unwrap_or(Lsn::new(1));
        let to = request.to.unwrap_or(Lsn::new(u64::MAX));
        let mut timeline = Timeline::open(self, &database, fork, from, to)?;
        let limit = request.limit.clamp(1, ENTRIES_MAX);
        let mut entries = VecDeque::with_capacity(limit.min(1024));
        while let Some(event) = timeline.next()? {
            if event.lsn.is_none() && !request.uncommitted {
                continue;
            }
            if entries.len() == limit {
                entries.pop_front();
            }
            entries.push_back(event);
        }
        Ok(entries.iter().map(|event| entry(event, &module)).collect())
    }
}

fn entry(event: &Event, module: &ActiveModule) -> HistoryEntry {
    let call = event.call.as_ref();
    HistoryEntry {
        lsn: event.lsn,
        after: event.after,
        timestamp_micros: event.timestamp_micros,
        kind: call.map(|call| call.kind),
        function: call.map(|call| call.function.to_string()).unwrap_or_default(),
        arguments: call.map_or(Value::Null, |call| arguments(call, module)),
        caller: event.session.as_ref().map(|session| session.caller),
        connection: event.session.as_ref().and_then(|session| session.connection),
        failure: call.and_then(|call| call.failure.as_deref().map(str::to_owned)),
        tables: counts(&event.operations, module),
        is_administration: is_administration(&event.operations),
    }
}

fn counts(operations: &[Operation], module: &ActiveModule) -> BTreeMap<String, TableCounts> {
    let mut tables: BTreeMap<String, TableCounts> = BTreeMap::new();
    for operation in operations {
        let Some(table) = module.schema.table(tine_tables::TableId(operation.keyspace.get())) else { continue };
        let counts = tables.entry(table.name.to_string()).or_default();
        match operation.value {
            Some(_) => counts.written += 1,
            None => counts.deleted += 1,
        }
    }
    tables
}
