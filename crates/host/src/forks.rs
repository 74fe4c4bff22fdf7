//! Making, listing, showing, renaming, resetting and deleting forks.
//!
//! A reset moves a fork's name to another fork, so that LSNs never decrease on any: the new one is made beside the old one under a
//! name that no client can say, and one record of the store's log drops the old one and hands its name over. Whatever was cut short
//! by a crash is dropped on the next start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tine_store::{Durability, ForkId, ForkInfo, ForkOptions, HistoryError, Lsn, Snapshot, VersionAt};
use tine_types::{Identity, Timestamp};

use crate::HostError;
use crate::client::{Actor, ClientInfo, Requester};
use crate::database::Database;
use crate::handle::ForkHandle;
use crate::host::Host;
use crate::jobs::Job;
use crate::meta::Meta;
use crate::names::{MAIN, check_name, fork_identity};

/// The longest a fork can be made to live, in milliseconds: beyond ten years a mistake is likelier than a wish.
const LIFETIME_MS_MAX: i64 = 10 * 366 * 24 * 3_600 * 1_000;

/// How long a change of forks may take to reach stable storage before the request fails.
const DURABLE_WITHIN: Duration = Duration::from_secs(30);

/// A fork to be made.
#[derive(Clone, Debug, Default)]
pub struct ForkRequest {
    /// Its name within the database.
    pub name: String,
    /// Never logged and gone at the next start.
    pub ephemeral: bool,
    /// The version it starts from; `None` for the newest.
    pub at: Option<VersionAt>,
    /// How long it lives, in milliseconds; then it is deleted, connected or not.
    pub lifetime_ms: Option<i64>,
    /// Whether its schedules run.
    pub resume_schedules: bool,
    /// Whether the module's disconnect hook runs on it for every client that was connected to the parent.
    pub disconnect_clients: bool,
}

/// To which version a fork's name moves. Without either there is nothing to do.
#[derive(Clone, Debug, Default)]
pub struct ResetRequest {
    /// Name of another fork of the database; `None` for the fork itself.
    pub from: Option<String>,
    /// The version of that fork; `None` for its newest.
    pub at: Option<VersionAt>,
}

/// What the lane tells of a fork it made.
#[derive(Debug)]
pub struct ForkMade {
    pub(crate) info: ForkInfo,
    /// Clients of the parent, if asked for.
    pub(crate) clients: Vec<Arc<ClientInfo>>,
}

/// What is known of a fork.
#[derive(Clone, Debug)]
pub struct ForkSummary {
    /// Name within the database.
    pub name: String,
    /// Routable identity.
    pub identity: Identity,
    /// Number within the database; `main` is 1 unless it was reset.
    pub id: u64,
    /// The fork it was made from, with its name if that still exists, and the LSN.
    pub parent: Option<ForkParent>,
    /// The newest commit.
    pub head: Lsn,
    /// The oldest version that forks can be made from.
    pub oldest: Lsn,
    /// Never logged and gone at the next start.
    pub ephemeral: bool,
    /// Microseconds since the Unix epoch.
    pub created_micros: i64,
    /// When it is deleted, in microseconds since the Unix epoch.
    pub expires_micros: Option<i64>,
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
    /// Makes a fork of the fork at `address`: at the newest commit of its lane, or of an older version. Returns the time the store
    /// took, without queueing.
    ///
    /// # Errors
    /// [`HostError::NotAuthorized`], [`HostError::InvalidName`], [`HostError::Fork`] when the name is taken,
    /// [`HostError::NotRetained`], [`HostError::NoSuchVersion`], [`HostError::ClientsUnknown`].
    pub fn fork_create(
        &self,
        address: &str,
        actor: &Actor,
        request: &ForkRequest,
    ) -> Result<(ForkSummary, Duration), HostError> {
        let (database, parent) = self.locate(address)?;
        self.authorize(&database, actor, "create fork")?;
        check_name(&request.name)?;
        let options = self.fork_options(request)?;
        let (made, took) = match request.at {
            None => self.fork_on_lane(address, options, request.disconnect_clients)?,
            Some(_) if request.disconnect_clients => return Err(HostError::ClientsUnknown),
            Some(at) => {
                let started = Instant::now();
                let base = self.version(&database, parent, at)?;
                let (info, ticket) = database.store.fork_from(&base, options)?;
                let took = started.elapsed();
                database.store.wait_durable(ticket, DURABLE_WITHIN)?;
                (ForkMade { info, clients: Vec::new() }, took)
            }
        };
        let id = made.info.id;
        self.fork_added(&database, &made.info);
        if let Err(error) = self.settle(&database, id, actor, request, made.clients) {
            // The caller hears of no fork, so there must be none.
            let _ = database.delete_fork(id);
            self.fork_removed(&database, id);
            return Err(error);
        }
        let info = database.store.fork_info(id).ok_or(HostError::Closed)?;
        Ok((summarize(&database, info)?, took))
    }

    fn fork_on_lane(
        &self,
        address: &str,
        options: ForkOptions,
        clients: bool,
    ) -> Result<(ForkMade, Duration), HostError> {
        let parent = self.resolve(address)?;
        let reply = parent.ask(|reply| Job::CreateFork { options, clients, reply })?;
        let made = reply.result??;
        if made.info.durability == Durability::Durable {
            parent.wait_durable(reply.durable)?;
        }
        Ok((made, reply.duration))
    }

    fn fork_options(&self, request: &ForkRequest) -> Result<ForkOptions, HostError> {
        let now_micros = self.shared().env.now_micros();
        let expires = |lifetime_ms: i64| match lifetime_ms {
            1..=LIFETIME_MS_MAX => Ok(now_micros.saturating_add(lifetime_ms * 1_000)),
            _ => Err(HostError::BadLifetime(lifetime_ms)),
        };
        Ok(ForkOptions {
            name: request.name.clone(),
            durability: if request.ephemeral { Durability::Ephemeral } else { Durability::Durable },
            expires_at_micros: request.lifetime_ms.map(expires).transpose()?,
        })
    }

    /// Does on a new fork what was asked for besides making it.
    fn settle(
        &self,
        database: &Arc<Database>,
        id: ForkId,
        actor: &Actor,
        request: &ForkRequest,
        clients: Vec<Arc<ClientInfo>>,
    ) -> Result<(), HostError> {
        if clients.is_empty() && !request.resume_schedules {
            return Ok(());
        }
        let handle = ForkHandle { fork: database.fork(id)?, database: database.clone() };
        if !clients.is_empty() {
            handle.ask(|reply| Job::DisconnectInherited { clients, reply })?.result?;
        }
        if request.resume_schedules { resume(&handle, actor) } else { Ok(()) }
    }

    /// An older version of a fork that can be run.
    pub(crate) fn version(&self, database: &Database, fork: ForkId, at: VersionAt) -> Result<Snapshot, HostError> {
        let version = self.retained(database, fork, at)?;
        match Meta::read_schedules_run_on(&version)? {
            Some(_) => Ok(version),
            None => Err(HostError::BeforeFirstModule(version.version().lsn.get())),
        }
    }

    /// An older version of a fork.
    pub(crate) fn retained(&self, database: &Database, fork: ForkId, at: VersionAt) -> Result<Snapshot, HostError> {
        if let VersionAt::Time(micros) = at
            && micros > self.shared().env.now_micros()
        {
            return Err(HostError::InFuture(Timestamp::from_micros(micros).to_rfc3339()));
        }
        let name = || database.store.fork_info(fork).map_or_else(String::new, |info| database.address(&info.name));
        database.store.snapshot_at(fork, at).map_err(|error| match error {
            HistoryError::NotRetained { oldest, .. } => HostError::NotRetained { fork: name(), oldest: oldest.get() },
            HistoryError::NoSuchVersion { head, .. } => HostError::NoSuchVersion { fork: name(), head: head.get() },
            other => HostError::History(other),
        })
    }

    /// All forks of the database at `address`, by number.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn fork_list(&self, address: &str) -> Result<Vec<ForkSummary>, HostError> {
        let (database, _) = self.locate(address)?;
        // One that was deleted meanwhile is left out.
        Ok(database.forks().into_iter().filter_map(|info| summarize(&database, info).ok()).collect())
    }

    /// The fork at `address`.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn fork_show(&self, address: &str) -> Result<ForkSummary, HostError> {
        let (database, fork) = self.locate(address)?;
        let info = database.store.fork_info(fork).ok_or_else(|| HostError::NotFound(address.to_owned()))?;
        summarize(&database, info)
    }

    /// Where the fork at `address` comes from: its parent, the parent's parent and so on. Ends at a fork that was made from nothing,
    /// or that was deleted, of which nothing more is known.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn fork_lineage(&self, address: &str) -> Result<Vec<ForkParent>, HostError> {
        let (database, fork) = self.locate(address)?;
        let mut lineage: Vec<ForkParent> = Vec::new();
        let mut next = database.store.fork_info(fork).and_then(|info| info.parent);
        while let Some(version) = next {
            let parent = database.store.fork_info(version.fork);
            next = parent.as_ref().and_then(|info| info.parent);
            let (id, name) = (version.fork.get(), parent.map(|info| info.name));
            assert!(lineage.last().is_none_or(|child| child.id > id), "parents are older than their forks");
            lineage.push(ForkParent { id, name, lsn: version.lsn });
        }
        Ok(lineage)
    }

    /// Gives the fork at `address` another name. Its connections stay.
    ///
    /// # Errors
    /// [`HostError::MainFork`], [`HostError::InvalidName`], [`HostError::NameTaken`], [`HostError::NotAuthorized`].
    pub fn fork_rename(&self, address: &str, actor: &Actor, name: &str) -> Result<ForkSummary, HostError> {
        let (database, fork) = self.locate(address)?;
        self.authorize(&database, actor, "rename fork")?;
        check_name(name)?;
        let _one_at_a_time = self.changing();
        if database.is_main(fork) {
            return Err(HostError::MainFork("renamed"));
        }
        if name == MAIN || database.store.fork_named(name).is_some_and(|other| other != fork) {
            return Err(HostError::NameTaken(name.to_owned()));
        }
        let ticket = database.store.rename_fork(fork, name)?;
        database.store.wait_durable(ticket, DURABLE_WITHIN)?;
        if let Some(running) = database.running(fork) {
            running.rename(name);
        }
        self.fork_show(&database.address(name))
    }

    /// Moves the name of the fork at `address` to a new fork, made of the version asked for. Connections to the old one are closed;
    /// forks made from it stay. Schedules run on the new fork if they ran on the old one.
    ///
    /// # Errors
    /// [`HostError::NotAuthorized`], [`HostError::NoVersion`], and those of [`Host::fork_create`] about versions.
    pub fn fork_reset(&self, address: &str, actor: &Actor, request: &ResetRequest) -> Result<ForkSummary, HostError> {
        let (database, fork) = self.locate(address)?;
        self.authorize(&database, actor, "reset fork")?;
        if database.is_main(fork) {
            database.check_unlocked()?;
        }
        let _one_at_a_time = self.changing();
        let not_found = |name: &String| HostError::NotFound(database.address(name));
        let source = match &request.from {
            Some(name) => database.store.fork_named(name).ok_or_else(|| not_found(name))?,
            None => fork,
        };
        let base = match request.at {
            Some(at) => self.version(&database, source, at)?,
            None if source == fork => return Err(HostError::NoVersion),
            None => database.store.snapshot(source)?,
        };
        let schedules_ran = database.schedules_run(fork)?;
        let staged = database.stage(fork, Some(&base))?;
        self.replace(&database, fork, &staged, || {
            if !schedules_ran {
                return Ok(());
            }
            let handle = ForkHandle { fork: database.fork(staged.id)?, database: database.clone() };
            resume(&handle, actor)
        })?;
        let info = database.store.fork_info(staged.id).ok_or(HostError::Closed)?;
        summarize(&database, info)
    }

    /// Prepares a staged fork and moves the name of `replaced` to it. If either fails the old fork stays.
    pub(crate) fn replace(
        &self,
        database: &Arc<Database>,
        replaced: ForkId,
        staged: &ForkInfo,
        prepare: impl FnOnce() -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        if let Err(error) = prepare().and_then(|()| database.replace_fork(replaced, staged.id)) {
            if database.is_staged(staged.id) {
                // What cannot be dropped now is on the next start.
                let _ = database.delete_fork(staged.id);
            }
            return Err(error);
        }
        self.fork_removed(database, replaced);
        self.fork_added(database, staged);
        Ok(())
    }

    /// Lets the schedules of the fork at `address` run.
    ///
    /// # Errors
    /// [`HostError::NotFound`], [`HostError::NotAuthorized`].
    pub fn fork_resume(&self, address: &str, actor: &Actor) -> Result<ForkSummary, HostError> {
        let handle = self.resolve(address)?;
        self.authorize(&handle.database, actor, "resume schedules")?;
        resume(&handle, actor)?;
        self.fork_show(address)
    }

    /// Deletes the fork at `address`; its children stay.
    ///
    /// # Errors
    /// [`HostError::MainFork`], [`HostError::NotAuthorized`].
    pub fn fork_delete(&self, address: &str, actor: &Actor) -> Result<(), HostError> {
        let (database, fork) = self.locate(address)?;
        self.authorize(&database, actor, "delete fork")?;
        let _one_at_a_time = self.changing();
        if database.is_main(fork) {
            return Err(HostError::MainFork("deleted"));
        }
        database.delete_fork(fork)?;
        self.fork_removed(&database, fork);
        Ok(())
    }
}

fn resume(handle: &ForkHandle, actor: &Actor) -> Result<(), HostError> {
    let actor = Requester { identity: actor.identity, jwt_payload: None };
    let reply = handle.ask(|reply| Job::ResumeSchedules { actor, reply })?;
    reply.result??;
    if handle.is_durable() { handle.wait_durable(reply.durable) } else { Ok(()) }
}

fn summarize(database: &Database, info: ForkInfo) -> Result<ForkSummary, HostError> {
    let parent = info.parent.map(|version| ForkParent {
        id: version.fork.get(),
        name: database.store.fork_info(version.fork).map(|parent| parent.name),
        lsn: version.lsn,
    });
    Ok(ForkSummary {
        identity: fork_identity(database.identity, info.id),
        id: info.id.get(),
        parent,
        head: info.head,
        oldest: database.store.oldest_retained(info.id)?,
        ephemeral: info.durability == Durability::Ephemeral,
        created_micros: info.created_at_micros,
        expires_micros: info.expires_at_micros,
        schedules_run: database.schedules_run(info.id)?,
        name: info.name,
    })
}
