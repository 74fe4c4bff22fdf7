//! One database: its store, its forks, and which of them run.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tine_lanes::Refusal;
use tine_store::{ForkId, RecoveryProgress, Store, StoreOptions};
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

/// How long closing a fork waits for the request that runs: longer than a reducer may run.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

pub(crate) struct Database {
    pub host: Arc<HostShared>,
    pub identity: Identity,
    pub owner: Identity,
    pub name: Option<Arc<str>>,
    pub created_micros: i64,
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
    /// Opens the store in `directory`, which exists afterwards.
    pub fn open(
        host: Arc<HostShared>,
        directory: &Path,
        row: DatabaseRow,
        progress: &mut dyn FnMut(RecoveryProgress),
    ) -> Result<Arc<Database>, HostError> {
        let store = Store::open_with_progress(StoreOptions::new(directory.to_owned()), host.env.clone(), progress)?;
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
            name: row.name,
            created_micros: row.created_micros,
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
        let database = self.name.as_deref().map_or_else(|| self.identity.to_hex(), str::to_owned);
        if fork == MAIN { database } else { format!("{database}@{fork}") }
    }

    /// The fork at run time, started if it does not run.
    pub fn fork(&self, id: ForkId) -> Result<Arc<Fork>, HostError> {
        let mut running = self.running.lock();
        if let Some(fork) = running.get(&id)
            && !fork.lane().is_closed()
        {
            return Ok(fork.clone());
        }
        let meta = Meta::read(&self.store.snapshot(id)?)?.ok_or(HostError::Damaged("module"))?;
        let compiled = self.host.modules.compile(&meta.program, &self.host.options.instance_limits)?;
        let module = Arc::new(ActiveModule::new(compiled, meta.schema)?);
        self.start(&mut running, id, module, meta.schedules_run_on)
    }

    /// Starts main with the first module of the database; publishing it is the caller's next step.
    pub fn start_main(&self, module: Arc<ActiveModule>) -> Result<Arc<Fork>, HostError> {
        self.start(&mut self.running.lock(), ForkId::MAIN, module, ForkId::MAIN)
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
            name: info.name.as_str().into(),
            store: self.store.clone(),
            log: self.log.clone(),
            durability: self.durability.clone(),
            module,
            schedules_run_on,
            head: info.head,
            on_closed: Box::new(move |id, refusal| {
                if let (Some(database), Refusal::Faulted) = (database.upgrade(), refusal) {
                    database.running.lock().remove(&id);
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
