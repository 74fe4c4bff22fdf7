//! The store: its forks, their names, and the log they share.
//!
//! Locks, in the order in which they may be taken: `admin` (creating, naming, dropping forks), a fork's
//! `dropped`, the log queue's, `table`, `names` or a fork's `published`. `table` is never held while anything waits, so readers and
//! writers that look a fork up are never held up by a full log queue.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tine_base::{Env, EnvFile, OpenMode};

use crate::error::{ForkError, LogError, OpenError, Poison, StoreError};
use crate::history::Retention;
use crate::ids::{DurableTicket, ForkId, KeyspaceId, Version};
use crate::images::{Catalog, ImageError, ImagePager, ImageReport, Images, Manifest};
use crate::log::{LogBegin, LogQueue, LogReader, LogWriter, QUEUE_BYTES_MAX, RecordRef, SegmentSizes};
use crate::options::{ForkInfo, RecoveryProgress, RecoveryReport, StoreOptions, StoreStats};
use crate::page::PAGE_BYTES;
use crate::read::Snapshot;
use crate::recovery::{ImageBase, recover};
use crate::versions::{PageCheck, Pages};
use crate::writer::Writer;

mod names;
mod shared;
mod table;
mod versions;

pub use names::NAMED_VERSIONS_MAX;
pub(crate) use names::{Named, Names};
pub(crate) use shared::Shared;
use table::{Entry, Table};

/// The longest fork name in bytes: beyond any sensible rule for names, so that the log's records stay small.
pub const FORK_NAME_BYTES_MAX: usize = 1024;

/// Fork numbers reserved in the log at a time. Ephemeral forks leave no other trace, and their numbers must
/// not be used again after a restart; one wait for the log per this many forks does not show.
const FORK_ID_BLOCK: u64 = 1 << 16;

/// How long opening and reserving fork numbers wait for the log. A disk that takes longer is as good as broken.
pub(crate) const LOG_WAIT_MAX: Duration = Duration::from_secs(60);

const LOCK_FILE: &str = "LOCK";
pub(crate) const LOG_DIRECTORY: &str = "log";
pub(crate) const IMAGES_DIRECTORY: &str = "images";
const MAIN_NAME: &str = "main";

/// A store with branches; see the [crate]. Clones are handles to the same store, which closes with the last
/// handle or [`Writer`].
#[derive(Clone)]
pub struct Store(Arc<Shared>);

impl Store {
    /// Opens the store in a directory, creating it if there is none, and recovers its state from the log.
    ///
    /// A torn tail, which a crash leaves, is cut off; [`Store::recovery_report`] says how much.
    ///
    /// # Errors
    /// The store is in use, its log is damaged before the end, or the disk fails.
    pub fn open(options: StoreOptions, env: Arc<dyn Env>) -> Result<Store, OpenError> {
        Store::open_with_progress(options, env, &mut |_| {})
    }

    /// [`Store::open`], telling how far recovery is every few megabytes and at its end.
    ///
    /// # Errors
    /// As there.
    pub fn open_with_progress(
        options: StoreOptions,
        env: Arc<dyn Env>,
        progress: &mut dyn FnMut(RecoveryProgress),
    ) -> Result<Store, OpenError> {
        let log_directory = options.directory.join(LOG_DIRECTORY);
        create_directory(&*env, &options.directory, &log_directory)
            .map_err(|source| OpenError::Io { path: log_directory.clone(), source })?;
        let lock_file = lock(&*env, &options.directory)?;
        let retention = Retention::new(&options);
        let pages = reserve_pages(&options, &env)?;
        let place = open_images(&options)?;
        let newest = place.as_ref().map(Catalog::newest).transpose()?.flatten();
        let pager = place.as_ref().map(|place| open_pager(place, newest.as_ref(), &options, &pages));
        if let Some(pager) = &pager {
            pager.add(newest.as_ref().map_or(&[], |newest| &newest.packs));
            pages.arena.set_pager(Box::new(Arc::clone(pager)));
        }
        let base = newest.as_ref().zip(pager.as_ref()).map(|(manifest, pager)| ImageBase { manifest, pager });
        let mut recovered = recover(&env, log_directory.clone(), &retention, &pages, base.as_ref(), progress)?;
        let sizes = SegmentSizes { min_bytes: options.segment_bytes_min, max_bytes: options.segment_bytes_max };
        let begin = match &newest {
            Some(newest) => LogBegin { store_id: newest.store_id, next_sequence: newest.last_record() + 1 },
            None => {
                let mut store_id = [0; 16];
                env.random_bytes(&mut store_id);
                LogBegin { store_id, next_sequence: 1 }
            }
        };
        let (log_writer, chain) =
            LogWriter::open(Arc::clone(&env), log_directory.clone(), sizes, recovered.tail.take(), begin)?;
        let store_id = log_writer.store_id();
        if let Some(newest) = newest.as_ref().filter(|newest| newest.store_id != store_id) {
            let detail = format!("manifest {} is of another store than the log", newest.number);
            return Err(OpenError::Corrupt { file: log_directory, offset: 32, detail });
        }
        let places = std::mem::take(&mut recovered.places);
        let queue = Arc::new(LogQueue::new(Arc::clone(&env), chain.next_sequence, places, log_writer));
        let log_thread = spawn_log_thread(&*env, &queue)?;
        let images = place
            .zip(pager)
            .map(|(place, pager)| Images::new(place, pager, newest.unwrap_or_default(), &options, &*env));
        let shared = Arc::new(Shared {
            env,
            queue,
            log_directory,
            retention,
            pages,
            images,
            store_id,
            log_thread: Mutex::new(Some(log_thread)),
            lock_file: Mutex::new(Some(lock_file)),
            admin: Mutex::new(()),
            table: RwLock::new(Table::new(recovered.next_fork)),
            names: Mutex::new(std::mem::take(&mut recovered.names)),
            next_keyspace: Mutex::new(recovered.next_keyspace),
            report: recovered.report,
        });
        shared.fill_table(recovered)?;
        shared.trim_history();
        shared.image_when_due();
        Ok(Store(shared))
    }

    /// What recovery found when the store was opened.
    pub fn recovery_report(&self) -> RecoveryReport {
        self.0.report
    }

    /// All forks, by number.
    pub fn forks(&self) -> Vec<ForkInfo> {
        let table = self.0.table.read();
        let mut forks: Vec<ForkInfo> = table.iter().map(Entry::info).collect();
        forks.sort_by_key(|fork| fork.id);
        forks
    }

    /// One fork; `None` if it does not exist or was dropped.
    pub fn fork_info(&self, id: ForkId) -> Option<ForkInfo> {
        self.0.table.read().get(id).map(Entry::info)
    }

    /// The fork with that name.
    pub fn fork_named(&self, name: &str) -> Option<ForkId> {
        self.0.table.read().named(name).map(|entry| entry.fork.id)
    }

    /// Gives a fork another name; its own is fine.
    ///
    /// # Errors
    /// The name is taken or too long, the fork does not exist, or the store cannot write.
    pub fn rename_fork(&self, id: ForkId, name: &str) -> Result<DurableTicket, ForkError> {
        check_name(name)?;
        self.0.queue.health()?;
        let _admin = self.0.admin.lock();
        let fork = {
            let table = self.0.table.read();
            let entry = table.get(id).ok_or(StoreError::NoSuchFork(id))?;
            if entry.name.as_str() != name {
                table.check_free(name)?;
            }
            Arc::clone(&entry.fork)
        };
        let mut ticket = DurableTicket::NONE;
        if fork.is_durable() {
            ticket = self.0.queue.append(&RecordRef::ForkRenamed { fork: id, name })?;
        }
        self.0.table.write().rename(id, name);
        Ok(ticket)
    }

    /// Drops a fork. Forks made from it and snapshots of it stay as they are; an open writer's commits are
    /// refused from now on. Dropping a fork that was dropped before succeeds.
    ///
    /// Its memory is freed by this call, or by the last writer or snapshot of it.
    ///
    /// # Errors
    /// The fork never existed, or the store cannot write.
    pub fn drop_fork(&self, id: ForkId) -> Result<DurableTicket, ForkError> {
        self.0.queue.health()?;
        let admin = self.0.admin.lock();
        let (fork, next_fork) = {
            let table = self.0.table.read();
            (table.get(id).map(|entry| Arc::clone(&entry.fork)), table.next_fork())
        };
        let Some(fork) = fork else {
            let existed = id >= ForkId::MAIN && id < next_fork;
            return if existed { Ok(self.0.queue.appended()) } else { Err(StoreError::NoSuchFork(id).into()) };
        };
        let mut ticket = DurableTicket::NONE;
        {
            let mut dropped = fork.dropped.lock();
            if fork.is_durable() {
                ticket = self.0.queue.append(&RecordRef::ForkDropped { fork: id })?;
            }
            *dropped = true;
        }
        let entry = self.0.table.write().remove(id);
        drop(admin);
        self.0.close_history(&fork);
        // Frees what only this fork held, without a lock.
        drop((entry, fork));
        Ok(ticket)
    }

    /// The last published version of a fork.
    ///
    /// # Errors
    /// The fork does not exist.
    pub fn snapshot(&self, id: ForkId) -> Result<Snapshot, StoreError> {
        let published = {
            let table = self.0.table.read();
            table.get(id).ok_or(StoreError::NoSuchFork(id))?.fork.published.lock().clone()
        };
        Ok(Snapshot::new(Version { fork: id, lsn: published.lsn }, published))
    }

    /// The exclusive right to change a fork, until it is dropped.
    ///
    /// # Errors
    /// The fork does not exist, its writer is taken, or the store cannot write.
    pub fn writer(&self, id: ForkId) -> Result<Writer, StoreError> {
        self.0.queue.health()?;
        Writer::open(Arc::clone(&self.0), self.0.find(id)?)
    }

    /// Hands out `count` consecutive keyspace numbers that no fork of this store ever had; returns the first.
    ///
    /// # Errors
    /// There are none left, or the store cannot write.
    pub fn allocate_keyspaces(&self, count: u32) -> Result<KeyspaceId, StoreError> {
        let mut next = self.0.next_keyspace.lock();
        let end = *next + u64::from(count);
        let first = u32::try_from(*next).ok().filter(|_| end <= 1 << 32).ok_or(StoreError::KeyspacesExhausted)?;
        let first = KeyspaceId::new(first);
        self.0.queue.append(&RecordRef::KeyspacesAllocated { first, count })?;
        *next = end;
        Ok(first)
    }

    /// Logs a call that committed nothing. It takes no LSN. Calls on ephemeral forks are not logged.
    ///
    /// # Errors
    /// The fork does not exist, or the store cannot write.
    pub fn append_call(&self, id: ForkId, call: &[u8]) -> Result<DurableTicket, StoreError> {
        self.0.queue.health()?;
        let fork = self.0.find(id)?;
        let dropped = fork.dropped.lock();
        if *dropped {
            return Err(StoreError::NoSuchFork(id));
        }
        if !fork.is_durable() {
            return Ok(DurableTicket::NONE);
        }
        self.0.queue.append(&RecordRef::Call { fork: id, call })
    }

    /// Everything up to this ticket is on stable storage.
    pub fn durable(&self) -> DurableTicket {
        self.0.queue.durable()
    }

    /// Blocks until `ticket` is durable. In a store without a listener (see [`Store::on_durable`]) the caller may do the
    /// write itself; then a disk that hangs holds it up beyond the timeout.
    ///
    /// # Errors
    /// The time is over, or the store failed and the ticket will never be durable.
    pub fn wait_durable(&self, ticket: DurableTicket, timeout: Duration) -> Result<(), StoreError> {
        self.0.queue.wait_durable(ticket, timeout)
    }

    /// Has `listener` called after each sync with what is durable now. It runs on the log thread, so it must be
    /// short and must not wait for the log or close the store.
    pub fn on_durable(&self, listener: Box<dyn Fn(DurableTicket) + Send + Sync>) {
        self.0.queue.on_durable(listener.into());
    }

    /// Has `listener` called once if the log fails, at once if it has failed already. Nothing that is not
    /// durable by then ever will be.
    pub fn on_poisoned(&self, listener: Box<dyn Fn(&Poison) + Send + Sync>) {
        self.0.queue.on_failure(listener.into());
    }

    /// Whether the store accepts writes; if not, why.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] after a failed write or sync, [`StoreError::Closed`] after closing.
    pub fn health(&self) -> Result<(), StoreError> {
        self.0.queue.health()
    }

    /// Counters.
    pub fn stats(&self) -> StoreStats {
        let queue = &self.0.queue;
        let counters = &queue.counters;
        let arena = self.0.pages.arena.stats();
        StoreStats {
            forks: self.0.table.read().len() as u64,
            appended: queue.appended(),
            durable: queue.durable(),
            frames: counters.frames.load(Ordering::Relaxed),
            bytes_logged: counters.bytes_logged.load(Ordering::Relaxed),
            queue_bytes: queue.queue_bytes(),
            queue_bytes_max: QUEUE_BYTES_MAX as u64,
            queue_waits: counters.queue_waits.load(Ordering::Relaxed),
            log_busy_ns: counters.log_busy_ns.load(Ordering::Relaxed),
            segment: counters.segment.load(Ordering::Relaxed),
            pins: self.0.retention.pins(),
            pin_bytes: self.0.retention.held_bytes(),
            versions: self.0.pages.versions(),
            pages: arena.allocated,
            pages_free: arena.free,
            pages_max: arena.limit,
        }
    }

    /// Walks the pages of every version that is kept, and compares them with those that are allocated: for tests and
    /// tools. Takes long, and nothing else may use the store meanwhile but idle writers and snapshots.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_pages(&self) -> Result<PageCheck, String> {
        self.0.pages.check()
    }

    /// Images the state now: writes what changed since the last images, and deletes the log segments that nothing needs
    /// any more. The store does this by itself after [`StoreOptions::image_bytes`] of log.
    ///
    /// Opening the store reads the images in place of the log before them, and their pages only when they are asked for.
    ///
    /// # Errors
    /// The place for images cannot be written, another writer has taken it over, or the log failed.
    pub fn image(&self) -> Result<ImageReport, ImageError> {
        self.0.image_round()
    }

    /// The versions that are imaged: of each durable fork the newest one of the last round, and some that its history
    /// goes back to.
    pub fn imaged_versions(&self) -> Vec<Version> {
        self.0.images.as_ref().map_or_else(Vec::new, Images::versions)
    }

    /// Why the last automatic round of imaging failed, if it did. It is tried again.
    pub fn image_failure(&self) -> Option<ImageError> {
        self.0.images.as_ref().and_then(Images::failure)
    }

    /// An imaged version, read from the image: no page of it is in memory before it is asked for.
    ///
    /// # Errors
    /// There is no such image, or no room for its pages.
    pub fn snapshot_of_image(&self, version: Version) -> Result<Snapshot, ImageError> {
        self.0.snapshot_of_image(version)
    }

    /// Writes and syncs what was committed, ends the log thread and unlocks the directory. Snapshots stay
    /// readable; writes are refused from now on. Closing again does nothing.
    ///
    /// # Errors
    /// The log failed, now or earlier: not everything that was committed is durable.
    pub fn close(&self) -> Result<(), StoreError> {
        self.0.close()
    }

    /// Reads the log of the store in `directory`, which may be open elsewhere, up to the first frame that is
    /// not there completely. Changes nothing.
    ///
    /// # Errors
    /// The directory holds no readable log. Damage further on is reported by the iterator.
    pub fn read_log(directory: impl AsRef<Path>, env: Arc<dyn Env>) -> Result<LogReader, LogError> {
        LogReader::open(&directory.as_ref().join(LOG_DIRECTORY), env)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Store").field(&self.stats()).finish()
    }
}

fn check_name(name: &str) -> Result<(), ForkError> {
    if name.len() > FORK_NAME_BYTES_MAX {
        return Err(ForkError::NameTooLong { bytes: name.len(), limit: FORK_NAME_BYTES_MAX });
    }
    Ok(())
}

/// Where pages will lie: in memory up to the budget, behind it in a file without a name in the store's directory.
pub(crate) fn reserve_pages(options: &StoreOptions, env: &Arc<dyn Env>) -> Result<Arc<Pages>, OpenError> {
    let (env, directory) = (Arc::clone(env), options.directory.clone());
    let make = Box::new(move || env.open_unnamed(&directory));
    Pages::reserve(options.reservation_bytes, options.memory_bytes, make).map_err(|source| {
        let path = PathBuf::from("the reservation of addresses for pages");
        OpenError::Io { path, source }
    })
}

/// Pages are brought through the file if they may become more than the memory for them.
pub(crate) fn open_pager(
    place: &Catalog,
    newest: Option<&Manifest>,
    options: &StoreOptions,
    pages: &Pages,
) -> Arc<ImagePager> {
    let imaged: u64 = newest.map_or(0, |newest| newest.packs.iter().map(|pack| u64::from(pack.pages)).sum());
    let is_large = imaged * PAGE_BYTES as u64 > options.memory_bytes;
    // Without such a file, pages stay in memory once they were read.
    let file = is_large.then(|| pages.arena.backing_file()).flatten();
    Arc::new(ImagePager::new(place.shared_objects(), file, options.memory_bytes))
}

pub(crate) fn open_images(options: &StoreOptions) -> Result<Option<Catalog>, ImageError> {
    Ok(options.images.objects(&options.directory)?.map(Catalog::new))
}

/// Makes the directories of a new store, durably up to the store's own.
fn create_directory(env: &dyn Env, directory: &Path, log_directory: &Path) -> std::io::Result<()> {
    if env.exists(log_directory) {
        return Ok(());
    }
    env.create_dir_all(log_directory)?;
    env.sync_dir(directory)?;
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => env.sync_dir(parent),
        _ => Ok(()),
    }
}

fn lock(env: &dyn Env, directory: &Path) -> Result<Box<dyn EnvFile>, OpenError> {
    let path: PathBuf = directory.join(LOCK_FILE);
    let attempt = || {
        let file = env.open(&path, OpenMode::Create)?;
        let locked = file.try_lock_exclusive()?;
        Ok((file, locked))
    };
    match attempt() {
        Ok((file, true)) => Ok(file),
        Ok((_, false)) => Err(OpenError::Locked { path }),
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

fn spawn_log_thread(env: &dyn Env, queue: &Arc<LogQueue>) -> Result<JoinHandle<()>, OpenError> {
    let queue = Arc::clone(queue);
    let spawned = env.spawn("tine-log", Box::new(move || queue.run()));
    spawned.map_err(|source| OpenError::Io { path: PathBuf::from("the log thread"), source })
}

#[cfg(test)]
mod tests;
