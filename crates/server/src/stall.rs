//! Keeps the runtime serving while a lane runs on one of its threads.
//!
//! Short work of a lane runs on the thread that submitted it, which is a thread of the runtime. Work
//! that turns out long (a module that was quick a thousand times and now loops) holds that thread. The
//! runtime's other threads may all be asleep then, and the one that is held may be the one that had
//! last asked the system for events: until it returns nobody would ask again, and clients of other
//! databases would wait. So a watching thread looks at how long the runtime's threads have been inside
//! lanes, and when one stays too long it hands the runtime an empty task. That wakes another thread,
//! which asks for events from then on.
//!
//! The watching thread looks every [`INTERVAL`] while lanes run here, and sleeps when none did for
//! [`QUIET_ROUNDS_MAX`] looks. Entering a lane costs a clock reading and two stores.

use std::cell::Cell;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tine_base::Env;
use tokio::runtime::Handle;

use crate::metrics::Metrics;

/// Pause between two looks, and how long a run may take without being noticed.
const INTERVAL: Duration = Duration::from_millis(2);
/// Looks without news before the watching thread sleeps.
const QUIET_ROUNDS_MAX: u32 = 100;
/// Places for threads inside lanes. More threads share places, and then one may hide the stay of
/// another: a stall is noticed later, nothing else.
const SLOTS: usize = 64;
/// Set in a slot while its thread is inside a lane; the other bits say since when.
const INSIDE: u64 = 1;

struct Slots {
    origin: Instant,
    slots: [AtomicU64; SLOTS],
    /// The watching thread sleeps, or is about to.
    ///
    /// SYNC: with `slots`, all sequentially consistent: whoever enters stores its slot and then reads
    /// this; the watcher sets this and then reads the slots. One of them sees the other.
    asleep: AtomicBool,
    stopping: AtomicBool,
}

/// See the module documentation. Dropping it ends the watching thread.
pub(crate) struct StallWatch {
    slots: Arc<Slots>,
    watcher: Thread,
}

impl StallWatch {
    /// Starts the watching thread for the runtime this is called in.
    pub fn start(env: &dyn Env, metrics: Arc<Metrics>) -> io::Result<StallWatch> {
        let slots = Arc::new(Slots {
            origin: Instant::now(),
            slots: [const { AtomicU64::new(0) }; SLOTS],
            asleep: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let (watched, runtime) = (slots.clone(), Handle::current());
        let body = Box::new(move || watched.watch(&runtime, &metrics));
        let watcher = env.spawn("tine-stall-watch", body)?.thread().clone();
        Ok(StallWatch { slots, watcher })
    }

    /// Runs `work`, which may run a lane on this thread.
    pub fn watch<T>(&self, work: impl FnOnce() -> T) -> T {
        let slot = &self.slots.slots[slot_of_this_thread()];
        let since = self.slots.now() & !INSIDE;
        slot.store(since | INSIDE, Ordering::SeqCst);
        if self.slots.asleep.load(Ordering::SeqCst) && self.slots.asleep.swap(false, Ordering::SeqCst) {
            self.watcher.unpark();
        }
        // Also when `work` panics: the thread is then inside no more.
        let _left = Left { slot, since };
        work()
    }
}

impl Drop for StallWatch {
    fn drop(&mut self) {
        self.slots.stopping.store(true, Ordering::SeqCst);
        self.watcher.unpark();
    }
}

struct Left<'a> {
    slot: &'a AtomicU64,
    since: u64,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.slot.store(self.since, Ordering::Relaxed);
    }
}

impl Slots {
    /// Nanoseconds since the watch was started.
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn watch(&self, runtime: &Handle, metrics: &Metrics) {
        let (mut latest_known, mut quiet_rounds, mut stalled_known) = (0, 0, 0);
        while !self.stopping.load(Ordering::SeqCst) {
            let (latest, oldest_inside) = self.look();
            if let Some(since) = oldest_inside
                && self.now().saturating_sub(since) >= INTERVAL.as_nanos() as u64
            {
                if since != stalled_known {
                    stalled_known = since;
                    metrics.stalls.increment();
                }
                drop(runtime.spawn(ready(())));
            }
            quiet_rounds = if latest == latest_known && oldest_inside.is_none() { quiet_rounds + 1 } else { 0 };
            latest_known = latest;
            if quiet_rounds < QUIET_ROUNDS_MAX {
                std::thread::sleep(INTERVAL);
                continue;
            }
            self.asleep.store(true, Ordering::SeqCst);
            if self.look() == (latest, None) && !self.stopping.load(Ordering::SeqCst) {
                std::thread::park();
            }
            self.asleep.store(false, Ordering::SeqCst);
            quiet_rounds = 0;
        }
    }

    /// When a lane was last entered, and since when the thread is inside that is so the longest.
    fn look(&self) -> (u64, Option<u64>) {
        let (mut latest, mut oldest_inside) = (0, None::<u64>);
        for slot in &self.slots {
            let value = slot.load(Ordering::SeqCst);
            let since = value & !INSIDE;
            latest = latest.max(since);
            if value & INSIDE != 0 {
                oldest_inside = Some(oldest_inside.map_or(since, |oldest| oldest.min(since)));
            }
        }
        (latest, oldest_inside)
    }
}

fn slot_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SLOT: Cell<Option<usize>> = const { Cell::new(None) });
    SLOT.with(|slot| match slot.get() {
        Some(index) => index,
        None => {
            let index = NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS;
            slot.set(Some(index));
            index
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tine_base::SystemEnv;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_long_stay_is_noticed_once_also_after_sleep() {
        let metrics = Arc::new(Metrics::default());
        let watch = Arc::new(StallWatch::start(&SystemEnv, metrics.clone()).unwrap());
        for round in 1..=3 {
            watch.watch(|| ());
            assert_eq!(metrics.stalls.get(), round - 1, "a short stay is none");
            let inside = watch.clone();
            let long = move || inside.watch(|| std::thread::sleep(20 * INTERVAL));
            tokio::task::spawn_blocking(long).await.unwrap();
            assert_eq!(metrics.stalls.get(), round);
            // Long enough for the watching thread to fall asleep.
            tokio::time::sleep(INTERVAL * (2 * QUIET_ROUNDS_MAX)).await;
            assert!(watch.slots.asleep.load(Ordering::SeqCst));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_panic_inside_is_left_behind() {
        let watch = StallWatch::start(&SystemEnv, Arc::default()).unwrap();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| watch.watch(|| panic!("inside"))));
        assert!(caught.is_err());
        assert_eq!(watch.slots.look().1, None);
    }
}
