//! Pools: workers of one kind, one for each key that is in use, and ready spares for the next key.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tine_base::slots::Shape;

use crate::call::Keyed;
use crate::error::KillCause;
use crate::key::Key;
use crate::metrics::{add, subtract};
use crate::process::{Process, Usage, WorkerId};
use crate::sandbox::Shared;

/// Whom a worker works for. One worker serves a key at a time, and never another key after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerKey(pub u128);

/// Takes a line that a worker wrote to its standard output or error; without its end, at most [`LogLine::BYTES_MAX`] bytes.
pub type LogSink = Arc<dyn Fn(LogLine<'_>) + Send + Sync>;

/// A line of a worker's log.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// Who wrote it.
    pub worker: WorkerId,
    /// Whom it works for; `None` before it has a key.
    pub key: Option<WorkerKey>,
    /// The text. What is not UTF-8 was replaced.
    pub text: &'a str,
    /// The rest of the line was dropped.
    pub is_cut: bool,
}

impl LogLine<'_> {
    /// Longer lines are cut: a worker must not decide how much its server allocates.
    pub const BYTES_MAX: usize = 1_024;
}

/// Waits for the replies of a worker on somebody else's event loop, such as that of an async runtime: given a new worker's
/// [`Completions`], it calls [`Completions::drain`] whenever their descriptor was rung, until [`Completions::is_over`]. Called by the
/// sandbox's own thread; must not block.
pub type Driver = Arc<dyn Fn(Completions) + Send + Sync>;

/// The replies of one worker to requests that nobody attends.
#[derive(Debug)]
pub struct Completions {
    pub(crate) process: Arc<Process>,
    pub(crate) over: Arc<AtomicBool>,
}

impl Completions {
    /// Takes the replies that are there, wakes those who wait for them, and asks for a ring at the next one. Cheap when there is none.
    pub fn drain(&self) {
        self.process.drain();
    }

    /// Takes the replies that are there and wakes those who wait for them. `true`: several came together, so more are likely to be
    /// there once the callers that were woken have run. Nobody rings until this was called again, so call it again then, at the back
    /// of the executor's queue. `false`: a ring at the next reply was asked for, as by [`Completions::drain`].
    #[must_use = "after `true` nobody rings"]
    pub fn drain_once(&self) -> bool {
        self.process.drain_once()
    }

    /// Whether the worker is gone. The descriptor is rung when it ends.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl AsFd for Completions {
    /// An eventfd, to be watched edge-triggered: nobody reads it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.event.as_fd()
    }
}

/// What the workers of a pool are like.
#[derive(Clone)]
pub struct PoolOptions {
    /// Name of the [`Entry`](crate::Entry) they run.
    pub entry: &'static str,
    /// Sizes of the memory shared with each worker; also the bound of bytes in flight to it.
    pub shape: Shape,
    /// Private memory a worker may have, in bytes, what the program starts with included.
    pub memory_bytes: u64,
    /// Workers kept ready without a key.
    pub spares: usize,
    /// How long after a spare was taken the next is started: not while the first request of its new key runs.
    pub refill_delay: Duration,
    /// Time a worker has from being asked for to being ready.
    pub launch_timeout: Duration,
    /// Workers unused for so long are ended.
    pub idle_max: Duration,
    /// Callers of one key who may wait for a slot.
    pub queue_max: usize,
    /// How often a worker looks for an answer to its call, and an attendant for a reply, before going to sleep. 0 where cores are
    /// scarce.
    pub spins: u32,
    /// Who waits for replies; `None`: the sandbox's own thread.
    pub driver: Option<Driver>,
    /// Where lines of workers' logs go; `None`: nowhere.
    pub log: Option<LogSink>,
}

impl PoolOptions {
    /// 32 slots of 16 KiB and an arena of 4 MiB, 256 MiB of memory, one spare, and the sandbox's own thread to wait for replies.
    pub fn new(entry: &'static str) -> PoolOptions {
        PoolOptions {
            entry,
            shape: Shape::new(32, 16 << 10, 4 << 20).expect("a good shape"),
            memory_bytes: 256 << 20,
            spares: 1,
            refill_delay: Duration::from_millis(5),
            launch_timeout: Duration::from_secs(5),
            idle_max: Duration::from_secs(60),
            queue_max: 4_096,
            spins: if tine_base::cpu::budget().cores.get() > 1 { 2_000 } else { 0 },
            driver: None,
            log: None,
        }
    }
}

/// Workers of one kind. Cheap to clone; its workers live until the [`Sandbox`](crate::Sandbox) is shut down.
#[derive(Clone)]
pub struct Pool {
    pub(crate) shared: Arc<PoolShared>,
}

pub(crate) struct PoolShared {
    pub(crate) options: PoolOptions,
    pub(crate) sandbox: Arc<Shared>,
    pub(crate) keys: Mutex<HashMap<WorkerKey, Arc<Key>>>,
    pub(crate) spares: Mutex<Spares>,
}

#[derive(Debug, Default)]
pub(crate) struct Spares {
    pub(crate) ready: Vec<Arc<Process>>,
    /// Launched or ordered, not ready.
    pub(crate) coming: usize,
    /// When the next may be ordered.
    pub(crate) refill_at: Option<Instant>,
}

impl std::fmt::Debug for PoolShared {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pool").field("entry", &self.options.entry).finish_non_exhaustive()
    }
}

/// A worker that works for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerState {
    /// Which.
    pub worker: WorkerId,
    /// Its process.
    pub pid: i32,
    /// What it runs.
    pub entry: &'static str,
    /// Whom it works for; `None`: a spare.
    pub key: Option<WorkerKey>,
    /// What it uses; `None` when it has just ended.
    pub usage: Option<Usage>,
}

impl Pool {
    /// The place where requests for `key` go. Keep it for as long as requests come; making it takes a lock and a look-up.
    pub fn key(&self, key: WorkerKey) -> Keyed {
        let mut keys = self.shared.keys.lock();
        let key = keys.entry(key).or_insert_with(|| Arc::new(Key::new(key, self.shared.clone())));
        Keyed::new(key.clone())
    }

    /// Ends the worker of a key, if it has one. Requests at work are cancelled; others go to the next worker.
    pub fn end(&self, key: WorkerKey) {
        let key = self.shared.keys.lock().get(&key).cloned();
        if let Some(key) = key {
            key.kill(KillCause::Requested);
        }
    }

    /// What the pool was made with.
    pub fn options(&self) -> &PoolOptions {
        &self.shared.options
    }

    /// Spares that are ready.
    pub fn spares(&self) -> usize {
        self.shared.spares.lock().ready.len()
    }

    /// Slots of a key's worker that are in use.
    pub fn slots_in_use(&self, key: WorkerKey) -> u32 {
        self.shared.keys.lock().get(&key).map_or(0, |key| key.slots_in_use())
    }
}

impl PoolShared {
    pub(crate) fn take_spare(&self) -> Option<Arc<Process>> {
        let mut spares = self.spares.lock();
        let spare = spares.ready.pop()?;
        spares.refill_at = Some(Instant::now() + self.options.refill_delay);
        add(&self.sandbox.metrics.spares_used, 1);
        subtract(&self.sandbox.metrics.spares, 1);
        Some(spare)
    }

    pub(crate) fn add_spare(&self, process: Arc<Process>) {
        self.spares.lock().ready.push(process);
        add(&self.sandbox.metrics.spares, 1);
    }

    /// Removes a spare that ended; whether it was one.
    pub(crate) fn remove_spare(&self, worker: WorkerId) -> bool {
        let mut spares = self.spares.lock();
        let count = spares.ready.len();
        spares.ready.retain(|process| process.id != worker);
        let is_removed = spares.ready.len() < count;
        if is_removed {
            // One that ends by itself may do so again.
            spares.refill_at = Some(Instant::now() + SPARE_RETRY);
            subtract(&self.sandbox.metrics.spares, 1);
        }
        is_removed
    }

    pub(crate) fn all_keys(&self) -> Vec<Arc<Key>> {
        self.keys.lock().values().cloned().collect()
    }
}

/// Wait before a spare that failed is started again.
pub(crate) const SPARE_RETRY: Duration = Duration::from_secs(1);
