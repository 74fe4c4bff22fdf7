//! Running views: when they are asked for, and when a transaction touches what they have read.

use std::collections::BTreeMap;
use std::sync::Arc;

use tine_module::{CallContext, CallError, CallHost, LogEntry, SyscallError, ViewOutcome, ViewRows};
use tine_query::{Caller, Catalog};
use tine_tables::{ChangeSet, ReadSet, TableChanges, TableId, TableRead, TableSchema, TableWriter};
use tine_types::protocol::{TableUpdate, TableUpdateRows};
use tine_types::{Identity, Timestamp};

use super::read::evaluate;
use super::rows::RowSet;
use super::{Form, Materialised, VIEW_BYTES_MAX, VIEWS_MAX, ViewKey, Views};
use crate::fork::Fork;
use crate::logs::{LogLevel, LogRecord};
use crate::worker::ForkWorker;

/// A view that ran again, with what came of it.
pub(crate) type Rerun = (TableId, Result<ViewOutcome, String>);

/// What a view's syscalls act on.
struct ViewHost<'a> {
    tables: &'a mut TableWriter,
    fork: &'a Fork,
    view: &'a str,
}

impl CallHost for ViewHost<'_> {
    fn tables(&mut self) -> Option<&mut TableWriter> {
        Some(self.tables)
    }

    fn log(&mut self, entry: LogEntry) {
        self.fork.log_entry(self.view, entry);
    }

    fn begin_transaction(&mut self) -> Result<Timestamp, SyscallError> {
        Err(SyscallError::new(SyscallError::WOULD_BLOCK_TRANSACTION, "a view is part of a transaction"))
    }

    fn commit_transaction(&mut self) -> Result<(), SyscallError> {
        Err(not_a_procedure())
    }

    fn abort_transaction(&mut self) -> Result<(), SyscallError> {
        Err(not_a_procedure())
    }

    fn schedule_immediate(&mut self, _: &str, _: Vec<u8>) -> Result<(), SyscallError> {
        Err(SyscallError::new(SyscallError::TRANSACTION_IS_READ_ONLY, "a view only reads: it cannot queue calls"))
    }
}

fn not_a_procedure() -> SyscallError {
    SyscallError::new(SyscallError::TRANSACTION_NOT_ANONYMOUS, "only procedures end transactions themselves")
}

impl ForkWorker {
    /// The views that texts name, for a caller who may read them.
    pub fn views_named<'t>(&self, texts: impl IntoIterator<Item = &'t str>, caller: &Caller) -> Vec<ViewKey> {
        if !self.module.has_views() {
            return Vec::new();
        }
        let names = texts.into_iter().flat_map(tine_query::names_of);
        let mut keys: Vec<ViewKey> = names.filter_map(|name| self.view_key(&name, caller)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn view_key(&self, name: &str, caller: &Caller) -> Option<ViewKey> {
        let view = self.module.view_named(name).filter(|view| view.public || caller.is_owner)?;
        Some(ViewKey { view: view.index.0, sender: (!view.is_anonymous).then_some(caller.identity) })
    }

    /// Makes a view's rows, unless they are there, and returns its table.
    ///
    /// # Errors
    /// The view fails or is disabled, or too much is kept already.
    pub fn materialise(&mut self, key: ViewKey) -> Result<Arc<TableSchema>, String> {
        if let Some(table) = self.views.table(&key) {
            return Ok(table.clone());
        }
        if self.views.by_id.len() >= VIEWS_MAX {
            return Err(format!("more than {VIEWS_MAX} views are in use on this fork"));
        }
        let view = self.module.views[key.view as usize].clone();
        let outcome = self.run_view(key)?;
        let table = self.views.new_table(&view);
        let form = self.form_of(outcome.rows, &table).map_err(|problem| failed(&view.name, &problem))?;
        if self.views.row_bytes + form.row_bytes() > VIEW_BYTES_MAX {
            return Err(too_large(&view.name));
        }
        self.views.insert(Materialised { key, table: table.clone(), form, reads: outcome.reads });
        Ok(table)
    }

    /// Calls a view in the open transaction.
    fn run_view(&mut self, key: ViewKey) -> Result<ViewOutcome, String> {
        let view = self.module.views[key.view as usize].clone();
        if let Some(reason) = self.views.disabled.get(&key.view) {
            return Err(format!("the view `{}` is disabled until the next publish: {reason}", view.name));
        }
        let context = CallContext {
            sender: key.sender.unwrap_or(Identity::from_le_bytes([0; 32])),
            connection_id: None,
            timestamp: Timestamp::from_micros(self.last_timestamp_micros()),
            // Views have no randomness; equal tables give equal rows.
            seed: 0,
            database_identity: self.fork.database_identity,
            deadline: self.fork.host.options.reducer_deadline,
            jwt_payload: None,
        };
        self.fork.host.metrics.views_run.add(1);
        let outcome = self.with_instance(|instance, tables, fork| {
            instance.call_view(view.index, &context, &mut ViewHost { tables, fork, view: &view.name })
        });
        let outcome = outcome.map_err(|failure| failure.to_string())?;
        outcome.map_err(|error| {
            self.fork.host.metrics.views_failed.add(1);
            let is_stopped = matches!(error, CallError::Deadline { .. } | CallError::OutOfMemory { .. });
            let failure = self.fork.call_failure(&view.name, error).to_string();
            if is_stopped {
                self.disable_view(key.view, &failure);
            }
            failed(&view.name, &failure)
        })
    }

    /// A view that had to be stopped would stop every transaction that touches it for as long.
    fn disable_view(&mut self, view: u32, reason: &str) {
        let name = self.module.views[view as usize].name.clone();
        self.fork.log.push(LogRecord {
            level: LogLevel::Error,
            timestamp_micros: self.fork.host.env.now_micros(),
            fork: self.fork.name(),
            function: (&*name).into(),
            location: None,
            message: format!("the view `{name}` is disabled until the next publish: {reason}").into(),
            trace: None,
        });
        self.views.disabled.insert(view, reason.into());
    }

    fn form_of(&self, rows: ViewRows, table: &TableSchema) -> Result<Form, String> {
        let text = match rows {
            ViewRows::Rows(array) => return RowSet::of_array(&array, table).map(Form::Rows),
            ViewRows::Query(text) => text,
        };
        // The module reads all of its tables, whoever asks.
        let module = Caller { identity: self.fork.database_identity, is_owner: true };
        let plan = tine_query::compile_subscription(&text, Catalog::from(&self.module.schema), &module)
            .map_err(|error| format!("the query that it returned: {error}"))?;
        let returned = plan.table();
        if returned.is_event {
            return Err(format!("it returned a query of the event table `{}`", returned.name));
        }
        let types = |table: &TableSchema| table.columns.iter().map(|column| column.ty.clone()).collect::<Vec<_>>();
        if types(returned) != types(table) {
            return Err(format!(
                "it returned a query of `{}`, whose rows are of another type than its own",
                returned.name
            ));
        }
        Ok(Form::Query { text: text.into(), plan })
    }

    /// Runs the views whose reads the open transaction has touched.
    pub fn rerun_touched(&mut self) -> Vec<Rerun> {
        let tables = self.tables();
        let touched = self.views.readers.touched(tables.schema(), tables.changes().rows());
        // Rows that were just written are rows.
        let touched = touched.expect("the transaction's rows were checked when they were written");
        let rerun = touched.into_iter().map(|id| {
            let key = self.views.by_id[&id].key;
            (id, self.run_view(key))
        });
        rerun.collect()
    }

    /// Brings the views up to the commit whose changes these are, and adds what changed in them.
    pub fn refresh_views(&mut self, rerun: Vec<Rerun>, changes: &mut ChangeSet) {
        let mut views = std::mem::take(&mut self.views);
        let (changed, failures) = query_changes(&views, self.tables(), changes);
        let mut refresh = Refresh { changes: changed, failed: failures };
        for (id, outcome) in rerun {
            let form = outcome.and_then(|outcome| {
                let table = &views.by_id[&id].table;
                let form = self.form_of(outcome.rows, table).map_err(|problem| failed(&table.name, &problem))?;
                Ok((form, outcome.reads))
            });
            match form {
                Ok((form, reads)) => refresh.replace(&mut views, self.tables(), id, form, reads),
                Err(error) => refresh.failed.push((id, error)),
            }
        }
        self.views = views;
        for (id, error) in refresh.failed {
            refresh.changes.remove(&id);
            self.views.remove(id);
            self.clients.fail_table(id, &error);
        }
        changes.tables.extend(refresh.changes.into_values());
    }
}

/// A refresh under way.
struct Refresh {
    /// What changed in which view.
    changes: BTreeMap<TableId, TableChanges>,
    failed: Vec<(TableId, String)>,
}

impl Refresh {
    /// Puts a view's new form in the place of the old one.
    fn replace(&mut self, views: &mut Views, after: &dyn TableRead, id: TableId, form: Form, reads: ReadSet) {
        let Some(old) = views.remove(id) else { return };
        let table = &old.table;
        let changed = match (&old.form, &form) {
            (Form::Query { text: before, .. }, Form::Query { text, .. }) if before == text => {
                Ok(self.changes.remove(&id))
            }
            (Form::Rows(before), Form::Rows(rows)) => Ok(rows.changes_from(before, id)),
            (before, now) => {
                let before = before.rows_before(after, table, self.changes.remove(&id));
                let now = now.rows_now(after, table);
                before.and_then(|before| Ok(now?.changes_from(&before, id)))
            }
        };
        let name = table.name.clone();
        match changed {
            Ok(_) if views.row_bytes + form.row_bytes() > VIEW_BYTES_MAX => self.failed.push((id, too_large(&name))),
            Ok(changed) => {
                self.changes.extend(changed.map(|changed| (id, changed)));
                views.insert(Materialised { form, reads, ..old });
            }
            Err(problem) => self.failed.push((id, failed(&name, &problem))),
        }
    }
}

impl Form {
    pub(super) fn rows_now(&self, now: &dyn TableRead, table: &TableSchema) -> Result<RowSet, String> {
        match self {
            Form::Rows(rows) => RowSet::of_rows(rows.rows().to_vec(), table),
            Form::Query { plan, .. } => evaluate(plan, now, table),
        }
    }

    /// The rows before a change that has happened: those of a query are its rows now with the change taken back.
    fn rows_before(
        &self,
        after: &dyn TableRead,
        table: &TableSchema,
        changed: Option<TableChanges>,
    ) -> Result<RowSet, String> {
        let now = self.rows_now(after, table)?;
        let (Form::Query { .. }, Some(changed)) = (self, changed) else { return Ok(now) };
        let kept = now.rows().iter().filter(|row| !changed.inserts.contains(row)).cloned();
        RowSet::of_rows(kept.chain(changed.deletes).collect(), table)
    }
}

/// How the views that return queries changed with a commit, and those for which that cannot be told.
fn query_changes(
    views: &Views,
    after: &dyn TableRead,
    changes: &ChangeSet,
) -> (BTreeMap<TableId, TableChanges>, Vec<(TableId, String)>) {
    let (mut found, mut failures) = (BTreeMap::new(), Vec::new());
    views.queries.affected(
        changes,
        after,
        &mut |id: TableId, updates| {
            let mut changes = TableChanges { table: id, inserts: Vec::new(), deletes: Vec::new() };
            updates.iter().for_each(|update| add_update(update, &mut changes));
            found.insert(id, changes);
        },
        &mut |id, error| failures.push((id, error.to_string())),
    );
    (found, failures)
}

fn add_update(update: &TableUpdate, changes: &mut TableChanges) {
    match &update.rows {
        TableUpdateRows::Persistent { inserts, deletes } => {
            changes.inserts.extend((0..inserts.len()).map(|place| inserts.row_bytes(place)));
            changes.deletes.extend((0..deletes.len()).map(|place| deletes.row_bytes(place)));
        }
        TableUpdateRows::Event { .. } => unreachable!("a view of events is refused when it is made"),
    }
}

fn failed(view: &str, problem: &str) -> String {
    format!("the view `{view}` failed: {problem}")
}

fn too_large(view: &str) -> String {
    format!("the view `{view}` has too many rows: those of all views may take {VIEW_BYTES_MAX} bytes")
}
