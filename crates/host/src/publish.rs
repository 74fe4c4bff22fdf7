//! Publishing: a new program takes over a fork in one transaction of its lane.
//!
//! The schema changes with the program: rows get what the new schema asks for in the same transaction, so a publish is one commit, and
//! one that fails leaves no trace. Connections and subscriptions stay, unless the plan says that clients cannot cope.

use std::collections::HashSet;
use std::sync::Arc;

use tine_module::CompiledModule;
use tine_store::{ForkId, WriteError};
use tine_tables::{DatabaseSchema, SchemaError, TableError, TableId};

use crate::client::{CloseReason, Requester};
use crate::logs::LogLevel;
use crate::meta::Meta;
use crate::module::ActiveModule;
use crate::plan::{PlanStep, UpdatePlan};
use crate::record::{CallKind, CallParts, Record};
use crate::worker::{ForkWorker, Invocation};
use crate::{CallFailure, HostError, IsolationMode};

/// What a publish may do to connected clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientPolicy {
    /// Nothing: a module that breaks them is refused.
    #[default]
    Compatible,
    /// Disconnect them, if the plan has this token.
    BreakClients {
        /// The token of the plan that was agreed to.
        token: String,
    },
}

/// A program to take over a fork.
pub(crate) struct PublishJob {
    pub compiled: Arc<CompiledModule>,
    pub program: Vec<u8>,
    /// The module with its schema when the version has none yet: then `init` runs.
    pub first: Option<Arc<ActiveModule>>,
    pub policy: ClientPolicy,
    /// Where it is to run, which it was compiled for; `None`: where the server says.
    pub isolation: Option<IsolationMode>,
    pub publisher: Requester,
}

impl ForkWorker {
    /// Replaces module and schema, keeps the data, and keeps clients connected unless they would be broken. On an error nothing has
    /// changed.
    pub fn publish(&mut self, job: PublishJob) -> Result<(), HostError> {
        let previous_module = self.module.clone();
        let (module, plan) = match &job.first {
            Some(module) => (module.clone(), None),
            None => {
                let schema = new_schema(&self.fork.store, &job.compiled, Some(&previous_module.schema))?;
                let module = Arc::new(ActiveModule::new(job.compiled.clone(), schema, job.isolation)?);
                let plan = UpdatePlan::between(self.fork.identity, &previous_module, &module);
                check_policy(&plan, &job.policy)?;
                (module, Some(plan))
            }
        };
        let (seen, views) = self.put_views_away();
        self.drop_instance();
        self.set_schema(module.schema.clone());
        self.module = module.clone();
        let previous = job.first.is_none().then_some(&*previous_module.schema);
        let result = self.publish_transaction(&job, &module, previous);
        if let Err(error) = result {
            self.tables_mut().rollback();
            self.drop_instance();
            self.set_schema(previous_module.schema.clone());
            self.module = previous_module;
            self.views = views;
            return Err(error);
        }
        let fork = self.fork.clone();
        fork.activate(module.clone(), self.tables())?;
        if plan.as_ref().is_some_and(UpdatePlan::breaks_clients) {
            let reason = "the module was replaced by one that its clients cannot follow: connect again";
            self.clients.disconnect_all(&CloseReason::ModuleExited(reason));
        } else {
            let changed = plan.map(|plan| changed_tables(&plan, &module.schema)).unwrap_or_default();
            self.recompile(&changed, &seen);
        }
        Ok(())
    }

    fn publish_transaction(
        &mut self,
        job: &PublishJob,
        module: &Arc<ActiveModule>,
        previous: Option<&DatabaseSchema>,
    ) -> Result<(), HostError> {
        if self.fork.host.options.call_log {
            let hash = Record::Module { hash: *module.hash() };
            self.fork.store.append_call(self.fork.id, &hash.encode())?;
        }
        let program = job.program.clone();
        let schedules_run_on = self.fork.schedules_run_on();
        if let Some(previous) = previous {
            let migrated = tine_tables::migrate(self.tables_mut().writer_mut(), previous, &module.schema);
            migrated.map_err(migration_error)?;
        }
        let meta = Meta { program, schema: module.schema.clone(), schedules_run_on, isolation: module.isolation };
        meta.write(self.tables_mut().writer_mut())?;
        if let (Some(_), Some(init)) = (&job.first, &module.init) {
            let executed = self.execute(
                init,
                &Invocation {
                    kind: CallKind::Lifecycle,
                    sender: self.fork.owner,
                    connection: None,
                    jwt_payload: None,
                    session: 0,
                    arguments: &[],
                    not_before_micros: i64::MIN,
                },
            );
            return executed.result.map(drop).map_err(|failure| HostError::InitFailed(self.init_failure(&failure)));
        }
        let publisher = job.publisher.clone();
        self.commit_administration(CallKind::Publish, &publisher)
    }

    /// What the publisher is told of an `init` that failed: all of it. The module's log, where a caller's
    /// details go, may belong to a database that does not come to be.
    fn init_failure(&self, failure: &CallFailure) -> String {
        if let CallFailure::Failed { .. } = failure
            && let Some(record) = self.fork.log.recent(Some(1), Some(&self.fork.name())).pop()
            && record.level == LogLevel::Panic
        {
            return record.trace.as_deref().unwrap_or(&record.message).to_owned();
        }
        failure.to_string()
    }

    /// Commits the open transaction as something that an administrator did.
    pub fn commit_administration(&mut self, kind: CallKind, actor: &Requester) -> Result<(), HostError> {
        let session = self.open_session(actor.identity, None, actor.jwt_payload.as_deref());
        let timestamp_micros = self.next_timestamp(i64::MIN);
        self.commit_call(&CallParts {
            kind,
            function: "",
            arguments: &[],
            session,
            timestamp_micros,
            seed: 0,
            module: self.module.short_hash(),
            failure: None,
            is_fresh: true,
        })?;
        Ok(())
    }

    /// Lets the schedules of this fork run from now on (G10). Entries that are overdue run once, intervals skip what they missed.
    pub fn resume_schedules(&mut self, actor: &Requester) -> Result<(), HostError> {
        if self.fork.schedules_run() {
            return Ok(());
        }
        let id = self.fork.id;
        let written = Meta::write_schedules_run_on(self.tables_mut().writer_mut(), id);
        let committed = written.and_then(|()| self.commit_administration(CallKind::SchedulesResumed, actor));
        if let Err(error) = committed {
            self.tables_mut().rollback();
            return Err(error);
        }
        let fork = self.fork.clone();
        fork.run_schedules_on(id);
        fork.arm_all_schedules(self.tables())
    }
}

/// Tells a store that has failed from rows that do not allow what the new module asks for.
fn migration_error(error: TableError) -> HostError {
    match error {
        TableError::Store(error) | TableError::Write(WriteError::Store(error)) => HostError::Store(error),
        error => HostError::Migrate(error),
    }
}

fn check_policy(plan: &UpdatePlan, policy: &ClientPolicy) -> Result<(), HostError> {
    match policy {
        ClientPolicy::BreakClients { token } if *token != plan.token => Err(HostError::PlanOutdated),
        ClientPolicy::Compatible if plan.breaks_clients() => Err(HostError::BreaksClients(plan.reasons())),
        _ => Ok(()),
    }
}

/// Tables whose rows have other bytes than before.
fn changed_tables(plan: &UpdatePlan, schema: &DatabaseSchema) -> HashSet<TableId> {
    let steps = plan.steps.iter().filter_map(|step| match step {
        PlanStep::Schema(step) if step.changes_rows() => schema.table_named(step.table()),
        _ => None,
    });
    steps.map(|table| table.id).collect()
}

/// The schema of `compiled`, reached from `previous`, with ids from the store's counter.
pub(crate) fn new_schema(
    store: &tine_store::Store,
    compiled: &CompiledModule,
    previous: Option<&DatabaseSchema>,
) -> Result<Arc<DatabaseSchema>, HostError> {
    let mut allocate = |count: u32| -> Result<u32, SchemaError> {
        store.allocate_keyspaces(count).map(|first| first.get()).map_err(|error| SchemaError::Allocate(error.into()))
    };
    Ok(Arc::new(DatabaseSchema::from_module_def(compiled.def(), previous, &mut allocate)?))
}

/// The schema of `compiled` as [`new_schema`] would make it, with ids that only serve to look at it.
pub(crate) fn planned_schema(
    compiled: &CompiledModule,
    previous: &DatabaseSchema,
) -> Result<Arc<DatabaseSchema>, SchemaError> {
    // From the far end: a store hands ids out from the start, and one that came so far has none left.
    let mut allocate = |count: u32| Ok(u32::MAX - count);
    Ok(Arc::new(DatabaseSchema::from_module_def(compiled.def(), Some(previous), &mut allocate)?))
}

/// On which fork the schedules of a fork run whose rows were made on another.
pub(crate) fn schedules_follow(ran: bool, before: ForkId, new: ForkId) -> ForkId {
    if ran { new } else { before }
}
