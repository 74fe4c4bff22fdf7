//! One database: its store, its forks, and which of them run.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tine_lanes::Refusal;
use tine_store::{ForkId, ForkInfo, ForkOptions, RecoveryProgress, Snapshot, Store, StoreOptions};
use tine_types::Identity;
use tokio::sync::watch;

use crate::HostError;
use crate::client::Durability;
use crate::control::DatabaseRow;
use crate::fork::{Fork, ForkParts};
use crate::host::HostShared;
use crate::logs::ModuleLog;
use crate::meta::Meta;
use crate::module::ActiveModule;
use crate::names::{MAIN, fork_identity};

/// Begins the names of forks that are about to take over another one's; no client can say such a name.
const STAGED: char = '~';

/// Begins the names of forks on which a replay runs that is not done: it may be resumed after the next start.
pub(crate) const REPLAY: &str = "~replay:";

/// How long closing a fork waits for the request that runs: longer than a reducer may run.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

pub(crate) struct Database {
    pub host: Arc<HostShared>,
    pub identity: Identity,
    pub owner: Identity,
    /// What it is called by; the first is the one it is shown by. Changed together with the control store's row.
    pub names: RwLock<Vec<Arc<str>>>,
    pub created_micros: i64,
    /// Refuses to be deleted and to start over. Changed together with the control store's row.
    pub locked: AtomicBool,
    pub store: Store,
    pub log: Arc<ModuleLog>,
    durability: Arc<watch::Sender<Durability>>,
    /// Forks that run. A fork starts on its first use; a closed one leaves the map.
    running: Mutex<HashMap<ForkId, Arc<Fork>>>,
    /// Forks being deleted: they do not start again.
    deleted: RwLock<Vec<ForkId>>,
    this: Weak<Database>,
}

impl Database {
    /// The name it is shown by, if it has one.
    pub fn name(&self) -> Option<Arc<str>> {
        self.names.read().first().cloned()
    }

    /// What the control store keeps of it.
    pub fn row(&self) -> DatabaseRow {
        DatabaseRow {
            identity: self.identity,
            owner: self.owner,
            names: self.names.read().clone(),
            created_micros: self.created_micros,
            locked: self.locked.load(Ordering::Acquire),
        }
    }

    /// Refuses what a lock is there to prevent.
    pub fn check_unlocked(&self) -> Result<(), HostError> {
        match self.locked.load(Ordering::Acquire) {
            true => Err(HostError::Locked(self.address(MAIN))),
            false => Ok(()),
        }
    }

    /// Opens the store in `directory`, which exists afterwards.
    pub fn open(
        host: Arc<HostShared>,
        directory: &Path,
        row: DatabaseRow,
        progress: &mut dyn FnMut(RecoveryProgress),
    ) -> Result<Arc<Database>, HostError> {
        host.images.move_in(&*host.env, directory, row.identity)?;
        let options =
            StoreOptions { images: host.images.place(row.identity), ..StoreOptions::new(directory.to_owned()) };
        let store = Store::open_with_progress(options, host.env.clone(), progress)?;
        let durability = Arc::new(watch::Sender::new(Durability { ticket: store.durable(), failed: false }));
        let sender = durability.clone();
        store.on_durable(Box::new(move |ticket| {
            sender.send_modify(|durability| durability.ticket = durability.ticket.max(ticket));
        }));
        let (sender, identity) = (durability.clone(), row.identity);
        store.on_poisoned(Box::new(move |poison| {
            tracing::error!(database = %identity.to_hex(), cause = %poison, disk_full = poison.disk_full, "the store refuses writes until the server is started again");
            sender.send_modify(|durability| durability.failed = true);
        }));
        let log = Arc::new(ModuleLog::open(host.env.clone(), directory));
        Ok(Arc::new_cyclic(|this| Database {
            host,
            identity: row.identity,
            owner: row.owner,
            names: RwLock::new(row.names),
            created_micros: row.created_micros,
            locked: AtomicBool::new(row.locked),
            store,
            log,
            durability,
            running: Mutex::new(HashMap::new()),
            deleted: RwLock::new(Vec::new()),
            this: this.clone(),
        }))
    }

    /// The name for people: the database's name or its identity, with the fork's unless it is main.
    pub fn address(&self, fork: &str) -> String {
        let database = self.name().map_or_else(|| self.identity.to_hex(), |name| name.to_string());
        if fork == MAIN { database } else { format!("{database}@{fork}") }
    }

    /// The fork at run time, started if it does not run.
    pub fn fork(&self, id: ForkId) -> Result<Arc<Fork>, HostError> {
        let mut running = self.running.lock();
        if let Some(fork) = running.get(&id) {
            if !fork.lane().is_closed() {
                return Ok(fork.clone());
            }
            // It faulted: its successor needs the store's writer, which it is about to give up.
            fork.close(CLOSE_WITHIN)?;
        }
        let meta = Meta::read(&self.store.snapshot(id)?)?.ok_or(HostError::Damaged("module"))?;
        let module = self.host.modules.of_version(&meta)?;
        self.start(&mut running, id, module, meta.schedules_run_on)
    }

    /// Starts an empty fork with its first module; publishing it is the caller's next step.
    pub fn start_first(
        &self,
        id: ForkId,
        module: Arc<ActiveModule>,
        schedules_run_on: ForkId,
    ) -> Result<Arc<Fork>, HostError> {
        self.start(&mut self.running.lock(), id, module, schedules_run_on)
    }

    /// The number of `main`.
    pub fn main(&self) -> Result<ForkId, HostError> {
        self.store.fork_named(MAIN).ok_or(HostError::Damaged("name of the main fork"))
    }

    pub fn is_main(&self, id: ForkId) -> bool {
        self.store.fork_named(MAIN) == Some(id)
    }

    /// All forks that have a name of their own, by number.
    pub fn forks(&self) -> Vec<ForkInfo> {
        let mut forks = self.store.forks();
        forks.retain(|fork| !fork.name.starts_with(STAGED));
        forks
    }

    /// Whether the schedules of a fork run on it.
    pub fn schedules_run(&self, id: ForkId) -> Result<bool, HostError> {
        Ok(Meta::read_schedules_run_on(&self.store.snapshot(id)?)? == Some(id))
    }

    /// The program of a fork.
    pub fn program(&self, id: ForkId) -> Result<Vec<u8>, HostError> {
        Ok(Meta::read(&self.store.snapshot(id)?)?.ok_or(HostError::Damaged("module"))?.program)
    }

    /// Makes a fork that is to take over `replaced`: of a version, or empty.
    pub fn stage(&self, replaced: ForkId, base: Option<&Snapshot>) -> Result<ForkInfo, HostError> {
        let old = self.store.fork_info(replaced).ok_or(HostError::Closed)?;
        let name = format!("{STAGED}{}", old.name);
        if let Some(left) = self.store.fork_named(&name) {
            self.delete_fork(left)?;
        }
        let (durability, expires_at_micros) = (old.durability, old.expires_at_micros);
        let options = ForkOptions { name, durability, expires_at_micros };
        let (staged, _) = match base {
            Some(base) => self.store.fork_from(base, options)?,
            None => self.store.fork_empty(options)?,
        };
        if staged.durability != durability {
            // A durable fork cannot be made of one that is not logged.
            self.store.drop_fork(staged.id)?;
            return Err(HostError::NeverDurable);
        }
        Ok(staged)
    }

    pub fn is_staged(&self, id: ForkId) -> bool {
        self.store.fork_info(id).is_some_and(|fork| fork.name.starts_with(STAGED))
    }

    /// Drops what a crash left of staged forks.
    pub fn drop_staged(&self) -> Result<(), HostError> {
        let is_left = |name: &str| name.starts_with(STAGED) && !name.starts_with(REPLAY);
        for fork in self.store.forks().into_iter().filter(|fork| is_left(&fork.name)) {
            self.store.drop_fork(fork.id)?;
        }
        Ok(())
    }

    /// Closes `replaced` for good and gives its name to a staged fork.
    pub fn replace_fork(&self, replaced: ForkId, staged: ForkId) -> Result<(), HostError> {
        self.deleted.write().push(replaced);
        let result = self.close_fork(replaced).and_then(|()| {
            let ticket = self.store.replace_fork(replaced, staged)?;
            Ok(self.store.wait_durable(ticket, CLOSE_WITHIN)?)
        });
        self.deleted.write().retain(|&deleted| deleted != replaced);
        if let (Some(running), Some(info)) = (self.running(staged), self.store.fork_info(staged)) {
            running.rename(info.name.trim_start_matches(STAGED));
        }
        result
    }

    fn start(
        &self,
        running: &mut HashMap<ForkId, Arc<Fork>>,
        id: ForkId,
        module: Arc<ActiveModule>,
        schedules_run_on: ForkId,
    ) -> Result<Arc<Fork>, HostError> {
        if self.deleted.read().contains(&id) {
            return Err(HostError::Closed);
        }
        let info = self.store.fork_info(id).ok_or(HostError::Closed)?;
        let database = self.this.clone();
        let fork = Fork::start(ForkParts {
            host: self.host.clone(),
            database_identity: self.identity,
            identity: fork_identity(self.identity, id),
            owner: self.owner,
            id,
            name: info.name.trim_start_matches(STAGED).into(),
            store: self.store.clone(),
            log: self.log.clone(),
            durability: self.durability.clone(),
            module,
            schedules_run_on,
            head: info.head,
            on_closed: Box::new(move |id, refusal| {
                if let (Some(database), Refusal::Faulted) = (database.upgrade(), refusal) {
                    let mut running = database.running.lock();
                    // Its successor may be there already.
                    if running.get(&id).is_some_and(|fork| fork.lane().is_closed()) {
                        running.remove(&id);
                    }
                }
            }),
        })?;
        running.insert(id, fork.clone());
        Ok(fork)
    }

    /// Closes a fork at run time, if it runs: queued requests get an error, its connections are closed.
    pub fn close_fork(&self, id: ForkId) -> Result<(), HostError> {
        let fork = self.running.lock().remove(&id);
        match fork {
            Some(fork) => fork.close(CLOSE_WITHIN),
            None => Ok(()),
        }
    }

    /// Closes a fork for good and drops its version.
    pub fn delete_fork(&self, id: ForkId) -> Result<(), HostError> {
        self.deleted.write().push(id);
        let result = self.close_fork(id).and_then(|()| {
            let ticket = self.store.drop_fork(id)?;
            Ok(self.store.wait_durable(ticket, CLOSE_WITHIN)?)
        });
        self.deleted.write().retain(|&deleted| deleted != id);
        result
    }

    /// Closes every fork, then the store.
    pub fn close(&self) -> Result<(), HostError> {
        let forks: Vec<_> = self.running.lock().drain().map(|(_, fork)| fork).collect();
        forks.iter().for_each(|fork| fork.lane().close());
        let closed = forks.iter().try_for_each(|fork| fork.close(CLOSE_WITHIN));
        self.store.close()?;
        closed
    }

    pub fn running(&self, id: ForkId) -> Option<Arc<Fork>> {
        self.running.lock().get(&id).cloned()
    }

    /// Requests waiting on all lanes.
    pub fn depth(&self) -> usize {
        self.running.lock().values().map(|fork| fork.lane().depth()).sum()
    }
}
