//! A sandbox: its zygote, its supervisor, and its pools.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tine_base::event::Event;

use crate::error::{StartError, StillRunning};
use crate::key::Key;
use crate::level::Level;
use crate::metrics::Metrics;
use crate::pool::{Pool, PoolOptions, PoolShared, Spares, WorkerState};
use crate::process::Usage;
use crate::supervisor::Supervisor;
use crate::wire::NAME_BYTES_MAX;

/// How a sandbox is set up.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// The program that calls [`init`](crate::init) first thing; its workers are forks of it. By default the running one.
    pub program: PathBuf,
    /// Live workers at most, spares included. The one unused longest makes room.
    pub workers_max: usize,
    /// Whether workers may run where system calls cannot be filtered, or the self-test found a forbidden call possible.
    pub allow_weak: bool,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        // Through /proc, so that the zygote is the program that runs even when its file was replaced by another version.
        SandboxOptions { program: PathBuf::from("/proc/self/exe"), workers_max: 64, allow_weak: false }
    }
}

/// Hardened worker processes, started by a zygote and watched by a thread of their own. See the crate's documentation.
///
/// Dropping it shuts it down, without waiting for long.
#[derive(Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the supervisor, the pools and the callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: SandboxOptions,
    pub(crate) metrics: Metrics,
    pub(crate) pools: Mutex<Vec<Arc<PoolShared>>>,
    pub(crate) orders: Mutex<Vec<Order>>,
    /// Wakes the supervisor.
    pub(crate) bell: Event,
    pub(crate) is_stopping: AtomicBool,
    pub(crate) state: Mutex<State>,
    pub(crate) state_changed: Condvar,
    /// Keys that somebody waits for: while there are some, the supervisor looks at the clock regularly.
    busy_keys: AtomicU64,
    is_ticking: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) level: Option<Level>,
    pub(crate) zygote_pid: Option<i32>,
    pub(crate) children: usize,
    pub(crate) is_over: bool,
}

/// What callers want of the supervisor.
#[derive(Debug)]
pub(crate) enum Order {
    Launch { key: Arc<Key>, at: Instant },
    Pool(Arc<PoolShared>),
}

/// Longest wait for the end of the supervisor when a sandbox is dropped.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

impl Sandbox {
    /// Starts the zygote and the supervisor's thread. Returns before the zygote is ready; requests wait for it.
    ///
    /// # Errors
    /// [`StartError`], when the system refuses.
    pub fn start(options: SandboxOptions) -> Result<Sandbox, StartError> {
        let shared = Arc::new(Shared {
            options,
            metrics: Metrics::default(),
            pools: Mutex::default(),
            orders: Mutex::default(),
            bell: Event::new()?,
            is_stopping: AtomicBool::new(false),
            state: Mutex::default(),
            state_changed: Condvar::new(),
            busy_keys: AtomicU64::new(0),
            is_ticking: AtomicBool::new(false),
        });
        let mut supervisor = Supervisor::new(shared.clone())?;
        // The thread starts the zygote: the kernel ends a process's children with the thread that made them.
        let thread = std::thread::Builder::new().name("sandbox".to_owned()).spawn(move || supervisor.run())?;
        Ok(Sandbox { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Makes a pool, which starts its spares.
    ///
    /// # Errors
    /// [`StartError::Options`].
    pub fn pool(&self, options: PoolOptions) -> Result<Pool, StartError> {
        if options.entry.len() > NAME_BYTES_MAX {
            return Err(StartError::Options("the name of the entry is too long"));
        }
        let spares = parking_lot::Mutex::new(Spares::default());
        let shared = PoolShared { options, sandbox: self.shared.clone(), keys: Mutex::default(), spares };
        let pool = Pool { shared: Arc::new(shared) };
        self.shared.order(Order::Pool(pool.shared.clone()));
        Ok(pool)
    }

    /// What was counted.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// How far workers are locked in, once the zygote has found out; waits for that at most `timeout`.
    pub fn level(&self, timeout: Duration) -> Option<Level> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.state.lock();
        while state.level.is_none() && !state.is_over {
            if self.shared.state_changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.level
    }

    /// The zygote's process, while there is one.
    pub fn zygote_pid(&self) -> Option<i32> {
        self.shared.state.lock().zygote_pid
    }

    /// The workers there are, and what they use. Reads files of the kernel for each.
    pub fn workers(&self) -> Vec<WorkerState> {
        let pools = self.shared.pools.lock().clone();
        let mut workers = Vec::new();
        for pool in pools {
            let spares = pool.spares.lock().ready.clone();
            let working = pool.all_keys().into_iter().filter_map(|key| key.process());
            for process in spares.into_iter().chain(working) {
                let key = process.key.get().map(|key| key.id);
                let (entry, usage) = (pool.options.entry, Usage::of(process.pid));
                workers.push(WorkerState { worker: process.id, pid: process.pid, entry, key, usage });
            }
        }
        workers
    }

    /// Ends everything: requests are cancelled, workers and zygote killed. Returns when every child is reaped.
    ///
    /// # Errors
    /// [`StillRunning`] when that takes longer than `timeout`; it goes on in the background.
    pub fn shut_down(&self, timeout: Duration) -> Result<(), StillRunning> {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        self.shared.bell.ring();
        let deadline = Instant::now() + timeout;
        {
            let mut state = self.shared.state.lock();
            while !state.is_over {
                if self.shared.state_changed.wait_until(&mut state, deadline).timed_out() && !state.is_over {
                    return Err(StillRunning { children: state.children });
                }
            }
        }
        if let Some(thread) = self.thread.lock().take() {
            // It has nothing left to do but to return; a panic of it was reported by the panic itself.
            let _ = thread.join();
        }
        Ok(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Whoever wants to know calls it before.
        let _ = self.shut_down(DROP_TIMEOUT);
    }
}

impl Shared {
    pub(crate) fn order(&self, order: Order) {
        self.orders.lock().push(order);
        self.bell.ring();
    }

    /// A key has its first caller: from now on somebody must watch the deadlines. `true`: the supervisor rests, ring its bell.
    #[must_use]
    pub(crate) fn key_is_busy(&self) -> bool {
        // SYNC: with `rest`: either this sees that nobody ticks, or the supervisor sees the key.
        self.busy_keys.fetch_add(1, Ordering::SeqCst);
        !self.is_ticking.load(Ordering::SeqCst)
    }

    pub(crate) fn key_is_quiet(&self) {
        self.busy_keys.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether somebody has a deadline.
    pub(crate) fn has_callers(&self) -> bool {
        self.busy_keys.load(Ordering::SeqCst) > 0
    }

    /// Supervisor: from now on the clock is looked at regularly.
    pub(crate) fn tick(&self) {
        self.is_ticking.store(true, Ordering::SeqCst);
    }

    /// Supervisor: stops looking at the clock; `false` if somebody came meanwhile.
    pub(crate) fn rest(&self) -> bool {
        self.is_ticking.store(false, Ordering::SeqCst);
        if self.has_callers() {
            self.tick();
            return false;
        }
        true
    }
}
