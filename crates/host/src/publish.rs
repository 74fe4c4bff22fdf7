//! Publishing: a new program takes over a fork in one transaction of its lane.

use std::sync::Arc;

use tine_module::CompiledModule;
use tine_tables::{DatabaseSchema, SchemaError};

use crate::HostError;
use crate::client::Requester;
use crate::meta::Meta;
use crate::module::ActiveModule;
use crate::record::{CallKind, CallParts, Record};
use crate::worker::{ForkWorker, Invocation};

/// A program to take over a fork.
pub(crate) struct PublishJob {
    pub compiled: Arc<CompiledModule>,
    pub program: Vec<u8>,
    /// The module with its schema when the version has none yet: then `init` runs.
    pub first: Option<Arc<ActiveModule>>,
    pub publisher: Requester,
}

impl ForkWorker {
    /// Replaces module and schema, keeps the data, and keeps clients connected. On an error nothing has changed.
    pub fn publish(&mut self, job: PublishJob) -> Result<(), HostError> {
        let previous_module = self.module.clone();
        let module = match &job.first {
            Some(module) => module.clone(),
            None => {
                let schema = new_schema(&self.fork.store, &job.compiled, Some(&previous_module.schema))?;
                Arc::new(ActiveModule::new(job.compiled.clone(), schema)?)
            }
        };
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
            return Err(error);
        }
        let fork = self.fork.clone();
        fork.activate(module.clone(), self.tables())?;
        self.clients.recompile(&module.schema);
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
            tine_tables::migrate(self.tables_mut().writer_mut(), previous, &module.schema)?;
        }
        let meta = Meta { program, schema: module.schema.clone(), schedules_run_on };
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
            return executed.result.map(drop).map_err(|failure| HostError::InitFailed(failure.to_string()));
        }
        let session = self.open_session(job.publisher.identity, None, job.publisher.jwt_payload.as_deref());
        let timestamp_micros = self.next_timestamp(i64::MIN);
        self.commit_call(&CallParts {
            kind: CallKind::Publish,
            function: "",
            arguments: &[],
            session,
            timestamp_micros,
            seed: 0,
            module: module.short_hash(),
            failure: None,
        })?;
        Ok(())
    }
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
