//! Where lanes run when they do not run on the submitting thread.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

/// Runs lane work somewhere else than on the calling thread.
pub trait Executor: Send + Sync {
    /// Queues `run` for execution. Must not run it before returning and must not drop it unrun while the executor is alive.
    fn execute(&self, run: Box<dyn FnOnce() + Send>);
}

struct PoolState {
    queue: VecDeque<Box<dyn FnOnce() + Send>>,
    idle_threads: usize,
    stopping: bool,
}

struct PoolShared {
    state: Mutex<PoolState>,
    work_or_stop: Condvar,
}

impl PoolShared {
    fn serve(&self) {
        loop {
            let run = {
                let mut state = self.state.lock();
                loop {
                    if let Some(run) = state.queue.pop_front() {
                        break run;
                    }
                    if state.stopping {
                        return;
                    }
                    state.idle_threads += 1;
                    self.work_or_stop.wait(&mut state);
                    state.idle_threads -= 1;
                }
            };
            run();
        }
    }
}

/// Starts one named thread of a pool; the seam through which a caller decides how threads are made.
pub type SpawnThread<'a> = &'a dyn Fn(&str, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;

/// A fixed number of named threads that take lane work first come, first served.
///
/// The queue needs no bound of its own: a lane is queued at most once at a time, so its length is at most the number of lanes.
pub struct FixedPool {
    shared: Arc<PoolShared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl FixedPool {
    /// Starts `threads` threads named `{name}-{n}` through `spawn`.
    ///
    /// # Errors
    /// Passes on the error of a thread that could not be started; those already running are stopped.
    ///
    /// # Panics
    /// When `threads` is zero.
    pub fn start(name: &str, threads: usize, spawn: SpawnThread<'_>) -> io::Result<Self> {
        assert!(threads > 0, "a pool without threads would never run anything");
        let shared = Arc::new(PoolShared {
            state: Mutex::new(PoolState { queue: VecDeque::new(), idle_threads: 0, stopping: false }),
            work_or_stop: Condvar::new(),
        });
        let pool = FixedPool { shared, threads: Mutex::new(Vec::with_capacity(threads)) };
        for number in 0..threads {
            let shared = pool.shared.clone();
            let thread = spawn(&format!("{name}-{number}"), Box::new(move || shared.serve()))?;
            pool.threads.lock().push(thread);
        }
        Ok(pool)
    }

    /// Lets the threads finish what is queued and waits for them. Called from a thread of the pool, it waits for the others only.
    pub fn stop(&self) {
        self.shared.state.lock().stopping = true;
        self.shared.work_or_stop.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.thread().id() != std::thread::current().id() {
                // A panic was already reported by the thread's own hook; stopping goes on with the others.
                let _ = thread.join();
            }
        }
    }
}

impl Executor for FixedPool {
    fn execute(&self, run: Box<dyn FnOnce() + Send>) {
        let wake = {
            let mut state = self.shared.state.lock();
            state.queue.push_back(run);
            state.idle_threads > 0
        };
        if wake {
            self.shared.work_or_stop.notify_one();
        }
    }
}

impl Drop for FixedPool {
    fn drop(&mut self) {
        self.stop();
    }
}
