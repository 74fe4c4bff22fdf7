//! Publishing: new databases, new modules for databases and forks, and starting over with empty ones.

use std::sync::Arc;

use tine_module::CompiledModule;
use tine_store::{ForkId, Lsn};
use tine_tables::SchemaError;
use tine_types::Identity;

use crate::client::{Actor, Requester};
use crate::database::Database;
use crate::handle::ForkHandle;
use crate::host::Host;
use crate::jobs::Job;
use crate::module::ActiveModule;
use crate::names::split_address;
use crate::plan::{PublishPlan, UpdatePlan};
use crate::publish::{ClientPolicy, PublishJob, new_schema, planned_schema, schedules_follow};
use crate::{HostError, IsolationMode};

/// A module to be published.
#[derive(Clone, Debug, Default)]
pub struct PublishRequest {
    /// The bytes of a [`tine_module::SourceBundle`], or of another form that the module crate knows.
    pub program: Vec<u8>,
    /// Whether the data there is goes: the name moves to a new fork that starts empty, and `init` runs.
    pub clear: bool,
    /// What may happen to connected clients. A clear closes their connections in any case.
    pub policy: ClientPolicy,
    /// Where the module is to run; `None`: as before, or where the server says.
    pub isolation: Option<IsolationMode>,
}

/// What a publish did.
#[derive(Clone, Debug)]
pub struct Published {
    /// Identity of the database.
    pub database_identity: Identity,
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
    /// Name of the fork that now runs the module.
    pub fork: Arc<str>,
    /// Whether the database is new.
    pub created: bool,
    /// The commit that holds the module.
    pub lsn: Lsn,
}

impl Host {
    /// Publishes a module to an address: a new database if there is none of that name, else a new module for that database or fork.
    /// Blocks until the change is durable.
    ///
    /// # Errors
    /// [`HostError::AdminRequired`], [`HostError::NotAuthorized`], [`HostError::Compile`], [`HostError::Schema`] (which tells why the
    /// data does not fit), [`HostError::BreaksClients`], [`HostError::PlanOutdated`], [`HostError::InitFailed`].
    pub fn publish(
        &self,
        address: Option<&str>,
        actor: &Actor,
        request: PublishRequest,
    ) -> Result<Published, HostError> {
        self.shared().instances.check_isolation(request.isolation)?;
        match address.map(|address| (address, self.resolve(address))) {
            Some((address, Ok(_))) if request.clear => {
                self.publish_cleared(address, actor, request.program, request.isolation)
            }
            Some((_, Ok(handle))) => self.publish_update(&handle, actor, request),
            Some((address, Err(HostError::NotFound(_)))) => self.publish_new(Some(address), actor, request),
            Some((_, Err(error))) => Err(error),
            None => self.publish_new(None, actor, request),
        }
    }

    /// What publishing `program` to an address that exists would do.
    ///
    /// # Errors
    /// [`HostError::NotFound`], [`HostError::NotAuthorized`], [`HostError::Compile`]; [`HostError::Schema`] when the program's tables
    /// contradict themselves.
    pub fn plan(&self, address: &str, actor: &Actor, program: &[u8]) -> Result<PublishPlan, HostError> {
        let handle = self.resolve(address)?;
        self.authorize(&handle.database, actor, "update database")?;
        let present = handle.module();
        let compiled = self.compile(program, present.isolation)?;
        let schema = match planned_schema(&compiled, &present.schema) {
            Ok(schema) => schema,
            Err(SchemaError::Incompatible(changes)) => return Ok(PublishPlan::Incompatible(changes)),
            Err(error) => return Err(error.into()),
        };
        let next = ActiveModule::new(compiled, schema, present.isolation)?;
        Ok(PublishPlan::Update(UpdatePlan::between(handle.fork_identity(), &present, &next)))
    }

    /// Starts the database or fork at `address` over: without data, with another module or the one it has.
    ///
    /// # Errors
    /// As for [`Host::publish`]; [`HostError::NotFound`].
    pub fn reset(&self, address: &str, actor: &Actor, program: Option<Vec<u8>>) -> Result<Published, HostError> {
        let program = match program {
            Some(program) => program,
            None => {
                let (database, fork) = self.locate(address)?;
                database.program(fork)?
            }
        };
        self.publish_cleared(address, actor, program, None)
    }

    pub(crate) fn compile(
        &self,
        program: &[u8],
        isolation: Option<IsolationMode>,
    ) -> Result<Arc<CompiledModule>, HostError> {
        self.shared().modules.compile(program, isolation)
    }

    fn publish_update(
        &self,
        handle: &ForkHandle,
        actor: &Actor,
        request: PublishRequest,
    ) -> Result<Published, HostError> {
        self.authorize(&handle.database, actor, "update database")?;
        let isolation = request.isolation.or(handle.module().isolation);
        let compiled = self.compile(&request.program, isolation)?;
        let PublishRequest { program, policy, .. } = request;
        let job = PublishJob { compiled, program, first: None, policy, isolation, publisher: requester(actor) };
        let lsn = publish_on_lane(handle, job)?;
        Ok(published(handle, lsn, false))
    }

    fn publish_new(&self, name: Option<&str>, actor: &Actor, request: PublishRequest) -> Result<Published, HostError> {
        let PublishRequest { program, isolation, .. } = request;
        if let Some((_, fork)) = name.and_then(|name| name.split_once('@')) {
            return Err(HostError::NotFound(format!("{}@{fork}", name.map_or("", |name| split_address(name).0))));
        }
        if !actor.is_admin && !self.shared().options.open_publish {
            return Err(HostError::AdminRequired);
        }
        let compiled = self.compile(&program, isolation)?;
        let mut lsn = Lsn::new(0);
        let database = self.create_with(self.create_row(name, actor.identity), |database| {
            let program = FirstProgram { compiled, program, isolation };
            lsn = publish_first(database, ForkId::MAIN, ForkId::MAIN, actor, program)?;
            Ok(())
        })?;
        let handle = ForkHandle { fork: database.fork(ForkId::MAIN)?, database };
        Ok(published(&handle, lsn, true))
    }

    fn publish_cleared(
        &self,
        address: &str,
        actor: &Actor,
        program: Vec<u8>,
        isolation: Option<IsolationMode>,
    ) -> Result<Published, HostError> {
        let (database, fork) = self.locate(address)?;
        self.authorize(&database, actor, "reset database")?;
        let isolation = isolation.or(database.fork(fork)?.module().isolation);
        let compiled = self.compile(&program, isolation)?;
        let _one_at_a_time = self.changing();
        if database.is_main(fork) {
            database.check_unlocked()?;
        }
        let before = database.fork(fork)?;
        let staged = database.stage(fork, None)?;
        let run_on = schedules_follow(before.schedules_run(), before.schedules_run_on(), staged.id);
        drop(before);
        let mut lsn = Lsn::new(0);
        self.replace(&database, fork, &staged, || {
            lsn = publish_first(&database, staged.id, run_on, actor, FirstProgram { compiled, program, isolation })?;
            Ok(())
        })?;
        let handle = ForkHandle { fork: database.fork(staged.id)?, database };
        Ok(published(&handle, lsn, false))
    }
}

/// What a fork begins with.
struct FirstProgram {
    compiled: Arc<CompiledModule>,
    program: Vec<u8>,
    isolation: Option<IsolationMode>,
}

/// Publishes the first module of a fork that has none and runs its `init`.
fn publish_first(
    database: &Arc<Database>,
    fork: ForkId,
    schedules_run_on: ForkId,
    actor: &Actor,
    first: FirstProgram,
) -> Result<Lsn, HostError> {
    let FirstProgram { compiled, program, isolation } = first;
    let schema = new_schema(&database.store, &compiled, None)?;
    let module = Arc::new(ActiveModule::new(compiled.clone(), schema, isolation)?);
    let fork = database.start_first(fork, module.clone(), schedules_run_on)?;
    let handle = ForkHandle { database: database.clone(), fork };
    let policy = ClientPolicy::default();
    let job = PublishJob { compiled, program, first: Some(module), policy, isolation, publisher: requester(actor) };
    publish_on_lane(&handle, job)
}

fn requester(actor: &Actor) -> Requester {
    Requester { identity: actor.identity, jwt_payload: None }
}

fn publish_on_lane(handle: &ForkHandle, job: PublishJob) -> Result<Lsn, HostError> {
    let reply = handle.ask(|reply| Job::Publish { job: Box::new(job), reply })?;
    reply.result??;
    if handle.is_durable() {
        handle.wait_durable(reply.durable)?;
    }
    Ok(reply.lsn)
}

fn published(handle: &ForkHandle, lsn: Lsn, created: bool) -> Published {
    Published {
        database_identity: handle.database_identity(),
        name: handle.database.name(),
        fork: handle.fork_name(),
        created,
        lsn,
    }
}
