//! Administration: publishing, and making, listing, renaming and deleting forks.

use std::sync::Arc;
use std::time::Duration;

use tine_store::{Durability, ForkId, ForkInfo, ForkOptions, Lsn};
use tine_types::Identity;

use crate::HostError;
use crate::client::{Actor, Requester};
use crate::database::Database;
use crate::handle::ForkHandle;
use crate::host::Host;
use crate::jobs::Job;
use crate::module::ActiveModule;
use crate::names::{MAIN, check_name, fork_identity, split_address};
use crate::publish::{PublishJob, new_schema};

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

/// A fork to be made.
#[derive(Clone, Debug)]
pub struct ForkRequest {
    /// Its name within the database.
    pub name: String,
    /// Never logged and gone at the next start.
    pub ephemeral: bool,
}

/// What is known of a fork.
#[derive(Clone, Debug)]
pub struct ForkSummary {
    /// Name within the database.
    pub name: String,
    /// Routable identity.
    pub identity: Identity,
    /// Number within the database; `main` is 1.
    pub id: u64,
    /// The fork it was made from, with its name if that still exists, and the LSN.
    pub parent: Option<ForkParent>,
    /// The newest commit.
    pub head: Lsn,
    /// Never logged and gone at the next start.
    pub ephemeral: bool,
    /// Microseconds since the Unix epoch.
    pub created_micros: i64,
    /// Whether its schedules run.
    pub schedules_run: bool,
}

/// Where a fork began.
#[derive(Clone, Debug)]
pub struct ForkParent {
    /// Number of the parent fork.
    pub id: u64,
    /// Its name, unless it was deleted.
    pub name: Option<String>,
    /// The commit at which the fork was made.
    pub lsn: Lsn,
}

impl Host {
    /// Publishes `program` (the bytes of a [`tine_module::SourceBundle`]) to an address: a new database if there is none of that
    /// name, else a new module for that database or fork. Blocks until the change is durable.
    ///
    /// # Errors
    /// [`HostError::AdminRequired`], [`HostError::NotAuthorized`], [`HostError::Compile`], [`HostError::Schema`],
    /// [`HostError::InitFailed`].
    pub fn publish(&self, address: Option<&str>, actor: &Actor, program: Vec<u8>) -> Result<Published, HostError> {
        match address.map(|address| (address, self.resolve(address))) {
            Some((_, Ok(handle))) => self.publish_update(&handle, actor, program),
            Some((address, Err(HostError::NotFound(_)))) => self.publish_new(Some(address), actor, program),
            Some((_, Err(error))) => Err(error),
            None => self.publish_new(None, actor, program),
        }
    }

    fn publish_update(&self, handle: &ForkHandle, actor: &Actor, program: Vec<u8>) -> Result<Published, HostError> {
        self.authorize(&handle.database, actor, "update database")?;
        let shared = self.shared();
        let compiled = shared.modules.compile(&program, &shared.options.instance_limits)?;
        let publisher = Requester { identity: actor.identity, jwt_payload: None };
        let job = PublishJob { compiled, program, first: None, publisher };
        let lsn = publish_on_lane(handle, job)?;
        Ok(published(handle, lsn, false))
    }

    fn publish_new(&self, name: Option<&str>, actor: &Actor, program: Vec<u8>) -> Result<Published, HostError> {
        if let Some((_, fork)) = name.and_then(|name| name.split_once('@')) {
            return Err(HostError::NotFound(format!("{}@{fork}", name.map_or("", |name| split_address(name).0))));
        }
        if !actor.is_admin && !self.shared().options.open_publish {
            return Err(HostError::AdminRequired);
        }
        let shared = self.shared();
        let compiled = shared.modules.compile(&program, &shared.options.instance_limits)?;
        let mut lsn = Lsn::new(0);
        let database = self.create_with(self.create_row(name, actor.identity), |database| {
            let schema = new_schema(&database.store, &compiled, None)?;
            let module = Arc::new(ActiveModule::new(compiled.clone(), schema)?);
            let fork = database.start_main(module.clone())?;
            let handle = ForkHandle { database: database.clone(), fork };
            let publisher = Requester { identity: actor.identity, jwt_payload: None };
            lsn = publish_on_lane(&handle, PublishJob { compiled, program, first: Some(module), publisher })?;
            Ok(())
        })?;
        let handle = ForkHandle { fork: database.fork(ForkId::MAIN)?, database };
        Ok(published(&handle, lsn, true))
    }

    /// Makes a fork of the fork at `address`, at the newest commit of its lane. Returns the time the store took, without queueing.
    ///
    /// # Errors
    /// [`HostError::NotAuthorized`], [`HostError::InvalidName`], [`HostError::Fork`] when the name is taken.
    pub fn fork_create(
        &self,
        address: &str,
        actor: &Actor,
        request: &ForkRequest,
    ) -> Result<(ForkSummary, Duration), HostError> {
        let parent = self.resolve(address)?;
        self.authorize(&parent.database, actor, "create fork")?;
        check_name(&request.name)?;
        let durability = if request.ephemeral { Durability::Ephemeral } else { Durability::Durable };
        let options = ForkOptions { name: request.name.clone(), durability, expires_at_micros: None };
        let reply = parent.ask(|reply| Job::CreateFork { options, reply })?;
        let info = reply.result??;
        if info.durability == Durability::Durable {
            parent.wait_durable(reply.durable)?;
        }
        self.fork_added(&parent.database, info.id);
        Ok((summarize(&parent.database, info), reply.duration))
    }

    /// All forks of the database at `address`, `main` first.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn fork_list(&self, address: &str) -> Result<Vec<ForkSummary>, HostError> {
        let (database, _) = self.locate(address)?;
        let mut forks = database.store.forks();
        forks.sort_by_key(|fork| fork.id);
        Ok(forks.into_iter().map(|info| summarize(&database, info)).collect())
    }

    /// The fork at `address`.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn fork_show(&self, address: &str) -> Result<ForkSummary, HostError> {
        let (database, fork) = self.locate(address)?;
        let info = database.store.fork_info(fork).ok_or_else(|| HostError::NotFound(address.to_owned()))?;
        Ok(summarize(&database, info))
    }

    /// Gives the fork at `address` another name. Its connections stay.
    ///
    /// # Errors
    /// [`HostError::MainFork`], [`HostError::InvalidName`], [`HostError::NameTaken`], [`HostError::NotAuthorized`].
    pub fn fork_rename(&self, address: &str, actor: &Actor, name: &str) -> Result<ForkSummary, HostError> {
        let (database, fork) = self.locate(address)?;
        self.authorize(&database, actor, "rename fork")?;
        check_name(name)?;
        if fork == ForkId::MAIN {
            return Err(HostError::MainFork("renamed"));
        }
        if name == MAIN || database.store.fork_named(name).is_some_and(|other| other != fork) {
            return Err(HostError::NameTaken(name.to_owned()));
        }
        let ticket = database.store.rename_fork(fork, name)?;
        database.store.wait_durable(ticket, Duration::from_secs(30))?;
        if let Some(running) = database.running(fork) {
            running.rename(name);
        }
        self.fork_show(&database.address(name))
    }

    /// Deletes the fork at `address`; its children stay.
    ///
    /// # Errors
    /// [`HostError::MainFork`], [`HostError::NotAuthorized`].
    pub fn fork_delete(&self, address: &str, actor: &Actor) -> Result<(), HostError> {
        let (database, fork) = self.locate(address)?;
        self.authorize(&database, actor, "delete fork")?;
        if fork == ForkId::MAIN {
            return Err(HostError::MainFork("deleted"));
        }
        database.delete_fork(fork)?;
        self.fork_removed(&database, fork);
        Ok(())
    }
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
        name: handle.database.name.clone(),
        fork: handle.fork_name(),
        created,
        lsn,
    }
}

fn summarize(database: &Database, info: ForkInfo) -> ForkSummary {
    let parent = info.parent.map(|version| ForkParent {
        id: version.fork.get(),
        name: database.store.fork_info(version.fork).map(|parent| parent.name),
        lsn: version.lsn,
    });
    ForkSummary {
        identity: fork_identity(database.identity, info.id),
        id: info.id.get(),
        parent,
        head: info.head,
        ephemeral: info.durability == Durability::Ephemeral,
        created_micros: info.created_at_micros,
        // Until schedules can be resumed on a fork, they run on main alone.
        schedules_run: info.id == ForkId::MAIN,
        name: info.name,
    }
}
