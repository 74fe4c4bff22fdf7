//! Module instances: spares that make a fork's first call quick, and the memory that all instances may take together.
//!
//! Invariants:
//! - A spare was never used by any fork. From its first call an instance belongs to one fork until it is dropped, so module globals
//!   never carry anything from one fork to another.
//! - Over the budget, the instances of the fork that was idle longest go first; the one that needs memory now keeps its own.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tine_base::Env;
use tine_module::{CompiledModule, Instance};

use crate::fork::Fork;
use crate::isolation::{InstanceMaker, RedoPlace};
use crate::metrics::Metrics;
use crate::module::ActiveModule;
use crate::{HostError, IsolationMode};

/// Spares kept per module and schema: one for the next fork's lane and one for its first procedure or the fork after it. Each costs
/// one to two megabytes.
const SPARES_PER_MODULE: usize = 2;

/// Modules for which spares are kept; the one asked for least recently loses its own.
const SPARE_MODULES_MAX: usize = 16;

/// An instance whose heap stays above this share of its limit is given up before a call fails for want of memory.
pub(crate) const HEAP_HIGH_DIVISOR: usize = 2;

/// Batches over which the heap has to stay high. QuickJS counts references and collects cycles whenever the heap has grown by half,
/// so a heap that is high through so many batches has been through its collections.
const HEAP_HIGH_BATCHES: u32 = 64;

/// How long the refilling thread waits after a spare was taken: whoever took it runs first.
const REFILL_PAUSE: Duration = Duration::from_millis(2);

/// What an instance is made from: equal keys make equal instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SpareKey(pub [u8; 32]);

struct Spares {
    compiled: Weak<CompiledModule>,
    ready: Vec<Instance>,
    /// When it was last asked for, by [`State::asked`].
    asked: u64,
}

#[derive(Default)]
struct State {
    spares: HashMap<SpareKey, Spares>,
    /// Modules that lack spares. Each at most once, so at most [`SPARE_MODULES_MAX`] and those that come and go.
    wanted: VecDeque<(SpareKey, Weak<ActiveModule>)>,
    asked: u64,
    /// Forks whose lane or procedures hold instances.
    holders: Vec<Weak<Fork>>,
    stopping: bool,
}

/// What one fork's instances take, kept up to date by the fork and read by whoever needs memory.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    lane_bytes: AtomicUsize,
    procedure_bytes: AtomicUsize,
    used_micros: AtomicI64,
}

impl Usage {
    pub fn set_lane(&self, bytes: usize, now_micros: i64) {
        self.lane_bytes.store(bytes, Ordering::Relaxed);
        self.used_micros.store(now_micros, Ordering::Relaxed);
    }

    pub fn set_procedures(&self, bytes: usize) {
        self.procedure_bytes.store(bytes, Ordering::Relaxed);
    }

    fn bytes(&self) -> usize {
        self.lane_bytes.load(Ordering::Relaxed) + self.procedure_bytes.load(Ordering::Relaxed)
    }
}

/// Tells when an instance's heap has stayed high.
#[derive(Debug, Default)]
pub(crate) struct HeapWatch {
    high_batches: u32,
}

impl HeapWatch {
    /// Takes the heap after a batch; true when the instance is to be given up.
    pub fn is_to_retire(&mut self, heap_bytes: usize, limit_bytes: usize) -> bool {
        let is_high = heap_bytes > limit_bytes / HEAP_HIGH_DIVISOR;
        self.high_batches = if is_high { self.high_batches + 1 } else { 0 };
        let is_over = self.high_batches >= HEAP_HIGH_BATCHES;
        if is_over {
            self.high_batches = 0;
        }
        is_over
    }
}

struct Shared {
    state: Mutex<State>,
    wanted_or_stop: Condvar,
    maker: Arc<InstanceMaker>,
    memory_max: usize,
    metrics: Arc<Metrics>,
}

/// See the module documentation.
pub(crate) struct Instances {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Instances {
    pub fn start(
        env: &Arc<dyn Env>,
        maker: Arc<InstanceMaker>,
        memory_max: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, HostError> {
        let shared =
            Arc::new(Shared { state: Mutex::default(), wanted_or_stop: Condvar::new(), maker, memory_max, metrics });
        let refilled = shared.clone();
        let thread = env
            .spawn("tine-spares", Box::new(move || refilled.refill()))
            .map_err(|source| HostError::Io { action: "starting the thread of spare instances".to_owned(), source })?;
        Ok(Instances { shared, thread: Mutex::new(Some(thread)) })
    }

    /// An instance for `fork`, a spare if there is one. Makes room for it at the cost of idle forks.
    pub fn take(&self, fork: &Arc<Fork>, module: &Arc<ActiveModule>) -> Result<Instance, HostError> {
        let spare = self.shared.take_spare(module);
        let instance = match spare {
            Some(instance) => {
                self.shared.metrics.instances_spare.add(1);
                instance
            }
            None => self.shared.build(module)?,
        };
        self.shared.make_room(fork, instance.memory_bytes());
        Ok(instance)
    }

    /// An instance that belongs to no fork and does not count against the budget.
    pub fn make(&self, module: &ActiveModule) -> Result<Instance, HostError> {
        self.shared.maker.make(module)
    }

    /// Where recorded calls run again.
    pub fn redo_place(&self) -> RedoPlace {
        self.shared.maker.redo_place()
    }

    /// Whether modules that ask for this can run here.
    pub fn check_isolation(&self, asked: Option<IsolationMode>) -> Result<(), HostError> {
        self.shared.maker.check(asked)
    }

    /// Sees to it that the module has spares soon.
    pub fn prepare(&self, module: &Arc<ActiveModule>) {
        let mut state = self.shared.state.lock();
        if self.shared.want(&mut state, module) {
            self.shared.wanted_or_stop.notify_one();
        }
    }

    pub fn stop(&self) {
        let spares = {
            let mut state = self.shared.state.lock();
            state.stopping = true;
            std::mem::take(&mut state.spares)
        };
        drop(spares);
        self.shared.wanted_or_stop.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic was already reported by the thread's own hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn build(&self, module: &ActiveModule) -> Result<Instance, HostError> {
        let started = Instant::now();
        let instance = self.maker.make(module)?;
        self.metrics.instances_loaded.add(1);
        self.metrics.instance_load_ns.add_duration(started.elapsed());
        self.metrics.instance_memory_bytes.set(i64::try_from(instance.memory_bytes()).unwrap_or(i64::MAX));
        Ok(instance)
    }

    fn take_spare(&self, module: &Arc<ActiveModule>) -> Option<Instance> {
        let mut state = self.state.lock();
        let spare = state.spares.get_mut(&module.spare_key()).and_then(|spares| spares.ready.pop());
        if self.want(&mut state, module) {
            self.wanted_or_stop.notify_one();
        }
        spare
    }

    /// Notes that `module` is in use; true when it now waits for spares.
    fn want(&self, state: &mut State, module: &Arc<ActiveModule>) -> bool {
        let key = module.spare_key();
        state.asked += 1;
        let asked = state.asked;
        let known = state.spares.entry(key).or_insert_with(|| Spares {
            compiled: Arc::downgrade(&module.compiled),
            ready: Vec::new(),
            asked,
        });
        known.asked = asked;
        if known.ready.len() >= SPARES_PER_MODULE || state.wanted.iter().any(|(wanted, _)| *wanted == key) {
            return false;
        }
        state.wanted.push_back((key, Arc::downgrade(module)));
        true
    }

    fn refill(&self) {
        let mut state = self.state.lock();
        while !state.stopping {
            let Some((key, module)) = state.wanted.front().cloned() else {
                self.wanted_or_stop.wait(&mut state);
                continue;
            };
            let Some(module) = module.upgrade() else {
                state.wanted.pop_front();
                continue;
            };
            let unused = trim(&mut state);
            let built = parking_lot::MutexGuard::unlocked(&mut state, || {
                drop(unused);
                std::thread::sleep(REFILL_PAUSE);
                // The last use of the module may end here, together with what it keeps alive.
                let built = self.build(&module);
                drop(module);
                built
            });
            let is_stopping = state.stopping;
            let ready = match (built, state.spares.get_mut(&key)) {
                (Ok(instance), Some(spares)) if !is_stopping => {
                    spares.ready.push(instance);
                    spares.ready.len() >= SPARES_PER_MODULE
                }
                // A module that does not load any more says so to whoever calls it.
                _ => true,
            };
            if ready {
                state.wanted.retain(|(wanted, _)| *wanted != key);
            }
        }
    }

    /// Asks idle forks to give up their instances until `needed_bytes` more are within the budget.
    fn make_room(&self, fork: &Arc<Fork>, needed_bytes: usize) {
        let mut state = self.state.lock();
        state.holders.retain(|holder| holder.strong_count() > 0);
        if !state.holders.iter().any(|holder| std::ptr::eq(holder.as_ptr(), Arc::as_ptr(fork))) {
            state.holders.push(Arc::downgrade(fork));
        }
        let mut holders: Vec<Arc<Fork>> = state.holders.iter().filter_map(Weak::upgrade).collect();
        let spare_bytes: usize =
            state.spares.values().flat_map(|spares| &spares.ready).map(Instance::memory_bytes).sum();
        drop(state);
        let held_bytes: usize = holders.iter().map(|holder| holder.usage.bytes()).sum();
        let mut excess = (held_bytes + spare_bytes + needed_bytes).saturating_sub(self.memory_max);
        if excess == 0 {
            return;
        }
        holders.sort_by_key(|holder| holder.usage.used_micros.load(Ordering::Relaxed));
        for holder in holders.iter().filter(|holder| !Arc::ptr_eq(holder, fork)) {
            let bytes = holder.usage.bytes();
            if bytes > 0 {
                self.metrics.instances_evicted.add(1);
                holder.give_up_instances();
                excess = excess.saturating_sub(bytes);
            }
            if excess == 0 {
                return;
            }
        }
    }
}

/// Takes out the spares of modules that no fork runs any more, and of the least wanted ones beyond the bound.
fn trim(state: &mut State) -> Vec<Spares> {
    let mut unused: Vec<Spares> =
        state.spares.extract_if(|_, spares| spares.compiled.strong_count() == 0).map(|(_, spares)| spares).collect();
    while state.spares.len() > SPARE_MODULES_MAX {
        let oldest = state.spares.iter().min_by_key(|(_, spares)| spares.asked).map(|(key, _)| *key);
        unused.extend(oldest.and_then(|key| state.spares.remove(&key)));
    }
    unused
}

#[cfg(test)]
mod tests {
    use super::{HEAP_HIGH_BATCHES, HeapWatch};

    #[test]
    fn a_heap_that_stays_high_retires_its_instance() {
        // Heap after each batch as a share of a limit of 100, how often, and whether the last one retires the instance.
        let cases: &[(&[(usize, u32)], bool)] = &[
            (&[(90, HEAP_HIGH_BATCHES)], true),
            (&[(90, HEAP_HIGH_BATCHES - 1)], false),
            (&[(90, HEAP_HIGH_BATCHES - 1), (40, 1), (90, HEAP_HIGH_BATCHES - 1)], false),
            (&[(40, 1), (51, HEAP_HIGH_BATCHES)], true),
            (&[(50, 10 * HEAP_HIGH_BATCHES)], false),
        ];
        for (steps, expected) in cases {
            let mut watch = HeapWatch::default();
            let mut last = false;
            for (heap_bytes, times) in *steps {
                for _ in 0..*times {
                    last = watch.is_to_retire(*heap_bytes, 100);
                }
            }
            assert_eq!(last, *expected, "{steps:?}");
        }
    }
}
