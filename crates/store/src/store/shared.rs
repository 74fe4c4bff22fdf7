//! What is behind the handles of a store.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use tine_base::{Env, EnvFile};

use super::table::{Entry, Name, Table};
use super::{FORK_ID_BLOCK, LOG_WAIT_MAX, MAIN_NAME, Names};
use crate::error::StoreError;
use crate::fork::{Fork, Lineage};
use crate::history::Retention;
use crate::ids::{DurableTicket, ForkId};
use crate::images::{Cut, ForkEntry, Images};
use crate::log::{LogQueue, RecordRef};
use crate::options::RecoveryReport;
use crate::read::Published;
use crate::recovery::{Recovered, RecoveredFork};
use crate::versions::Pages;

/// What handles, writers and the log thread's starter share.
pub(crate) struct Shared {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) queue: Arc<LogQueue>,
    pub(crate) log_directory: PathBuf,
    pub(crate) retention: Retention,
    pub(crate) pages: Arc<Pages>,
    pub(crate) images: Option<Images>,
    pub(crate) store_id: [u8; 16],
    pub(super) log_thread: Mutex<Option<JoinHandle<()>>>,
    /// Held by flock while the store is open.
    pub(super) lock_file: Mutex<Option<Box<dyn EnvFile>>>,
    /// Held while a fork is made, named or dropped. Not for one that is neither named nor logged.
    pub(super) admin: Mutex<()>,
    pub(super) table: RwLock<Table>,
    /// Changed with `admin` held.
    pub(super) names: Mutex<Names>,
    pub(super) next_keyspace: Mutex<u64>,
    pub(super) report: RecoveryReport,
}

impl Shared {
    /// Takes over what was recovered. A new store gets its first fork here. Ends with a durable record in any
    /// case, so that this opening has an epoch in the log.
    pub(super) fn fill_table(&self, recovered: Recovered) -> Result<(), StoreError> {
        let mut forks = recovered.forks;
        let _admin = self.admin.lock();
        if self.table.write().take_main() {
            let created_at_micros = self.env.now_micros();
            let (fork, name) = (ForkId::MAIN, MAIN_NAME);
            let (parent, expires_at_micros) = (None, None);
            let record = RecordRef::ForkCreated { fork, name, created_at_micros, parent, expires_at_micros };
            self.queue.append(&record)?;
            let empty = Published::empty(&self.pages, DurableTicket::NONE);
            let lineage = Lineage::new(fork, None);
            let created = RecoveredFork::new(name, lineage, created_at_micros, None, empty);
            forks.insert(fork, created);
        }
        self.reserve_fork_ids()?;
        let mut table = self.table.write();
        for (id, recovered) in forks {
            let RecoveredFork { name, lineage, created_at_micros, expires_at_micros, head, history, .. } = recovered;
            let fork = Fork::recovered(id, lineage, created_at_micros, expires_at_micros, head, history);
            table.insert(Entry { fork: Arc::new(fork), name: Name::new(&name) });
        }
        Ok(())
    }

    /// What the next images hold: the published heads of all durable forks, as of one moment of the log.
    pub(crate) fn cut(&self) -> Cut {
        // With `admin` held no durable fork comes or goes, and with the keyspaces' lock no number is given out.
        let _admin = self.admin.lock();
        let next_keyspace = self.next_keyspace.lock();
        let sequence = self.queue.appended().get();
        let durable: Vec<(Arc<Fork>, String)> = {
            let table = self.table.read();
            let durable = table.iter().filter(|entry| entry.fork.is_durable());
            durable.map(|entry| (Arc::clone(&entry.fork), entry.name.as_str().to_owned())).collect()
        };
        let forks = durable.into_iter().map(|(fork, name)| {
            // Commits are handed to the log under this lock, so all up to `sequence` are noted.
            let last_commit = {
                let _dropped = fork.dropped.lock();
                fork.more().last_commit.load(Ordering::Relaxed)
            };
            let info = ForkEntry {
                fork: fork.id,
                name,
                created_at_micros: fork.created_at_micros,
                parent: fork.parent(),
                expires_at_micros: fork.expires_at_micros(),
            };
            let head = fork.published.lock().clone();
            (info, Arc::clone(fork.lineage()), fork.history().first(), head, last_commit)
        });
        let reserved_end = self.table.read().reserved_end();
        let names = self.names.lock().clone();
        Cut::new(sequence, reserved_end, *next_keyspace, forks, names)
    }

    /// Reserves numbers for more forks; `admin` is held.
    pub(super) fn reserve_fork_ids(&self) -> Result<(), StoreError> {
        let end = ForkId::new(self.table.read().next_fork().get() + FORK_ID_BLOCK);
        let ticket = self.queue.append(&RecordRef::ForkIdsReserved { end })?;
        self.queue.wait_durable(ticket, LOG_WAIT_MAX)?;
        self.table.write().reserve(end);
        Ok(())
    }

    pub(super) fn find(&self, id: ForkId) -> Result<Arc<Fork>, StoreError> {
        let table = self.table.read();
        table.get(id).map(|entry| Arc::clone(&entry.fork)).ok_or(StoreError::NoSuchFork(id))
    }

    /// Gives up the pins of a fork that was dropped. Only durable ones have any but their first, which goes with them.
    pub(super) fn close_history(&self, fork: &Fork) {
        if let Some(history) = fork.known_history().filter(|_| fork.is_durable()) {
            self.retention.close(fork.id, history);
        }
    }

    pub(super) fn close(&self) -> Result<(), StoreError> {
        self.queue.close();
        // Held until all is written, so that nobody who closes at the same time unlocks the directory before.
        let mut log_thread = self.log_thread.lock();
        if let Some(thread) = log_thread.take()
            // A listener may hold the last handle.
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic there has made the log fail, which is reported below.
            let _ = self.env.join(thread);
        }
        if let Some(images) = &self.images {
            images.close();
        }
        self.lock_file.lock().take();
        match self.queue.health() {
            Err(StoreError::Closed) => Ok(()),
            health => health,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody is left to hear about a failure; those who care call `close`.
        let _ = self.close();
    }
}
