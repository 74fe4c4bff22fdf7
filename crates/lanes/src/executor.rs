//! Where lanes run when they do not run on the submitting thread.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

/// A piece of lane work.
type Run = Box<dyn FnOnce() + Send>;

/// Runs lane work somewhere else than on the calling thread.
pub trait Executor: Send + Sync {
    /// Queues `run` for execution. Must not run it before returning and must not drop it unrun while lanes are to be served.
    fn execute(&self, run: Box<dyn FnOnce() + Send>);

    /// Threads that have nothing to do now, with nothing waiting for them: a group of reads may spread over so many. A guess may be
    /// out of date at once; zero keeps every lane on one thread at a time.
    fn idle_threads(&self) -> usize {
        0
    }

    /// Whether somebody waits for a thread, so that a lane whose turn is over must queue behind. `true` is always right.
    fn is_waited_for(&self) -> bool {
        true
    }
}

/// Runs lane work with a function, such as one that spawns a task of an async runtime:
/// `FunctionExecutor::new(move |run| drop(handle.spawn(async move { run() })))`.
pub struct FunctionExecutor<F> {
    execute: F,
    threads: usize,
    /// Work that was handed over and has not ended.
    active: Arc<AtomicUsize>,
}

impl<F: Fn(Box<dyn FnOnce() + Send>) + Send + Sync> FunctionExecutor<F> {
    /// `execute` queues its argument and has `threads` threads for all lanes together.
    pub fn new(threads: usize, execute: F) -> Self {
        FunctionExecutor { execute, threads, active: Arc::default() }
    }
}

impl<F: Fn(Box<dyn FnOnce() + Send>) + Send + Sync> Executor for FunctionExecutor<F> {
    fn execute(&self, run: Box<dyn FnOnce() + Send>) {
        self.active.fetch_add(1, Ordering::Relaxed);
        let active = self.active.clone();
        (self.execute)(Box::new(move || {
            run();
            active.fetch_sub(1, Ordering::Relaxed);
        }));
    }

    fn idle_threads(&self) -> usize {
        self.threads.saturating_sub(self.active.load(Ordering::Relaxed))
    }

    fn is_waited_for(&self) -> bool {
        self.active.load(Ordering::Relaxed) > self.threads
    }
}

/// An executor for tests: work waits until the test runs it, piece by piece, on the test's own thread.
#[derive(Default)]
pub struct ManualExecutor {
    queue: Mutex<VecDeque<Run>>,
}

impl ManualExecutor {
    /// Runs the oldest waiting piece and tells whether there was one.
    pub fn run_one(&self) -> bool {
        let run = self.queue.lock().pop_front();
        run.map(|run| run()).is_some()
    }

    /// Runs until nothing waits any more.
    pub fn run_all(&self) {
        while self.run_one() {}
    }

    /// Pieces waiting.
    pub fn waiting(&self) -> usize {
        self.queue.lock().len()
    }
}

impl Executor for ManualExecutor {
    fn execute(&self, run: Box<dyn FnOnce() + Send>) {
        self.queue.lock().push_back(run);
    }
}

struct PoolState {
    queue: VecDeque<Run>,
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

/// A fixed number of named threads that take lane work first come, first served. With the lanes' bounded turns that is what keeps a
/// hot lane from taking more than its share.
///
/// The queue needs no bound of its own: a lane is queued at most once at a time, and helpers of reads are queued for idle threads
/// only, so its length is at most the number of lanes and threads.
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

    fn idle_threads(&self) -> usize {
        let state = self.shared.state.lock();
        state.idle_threads.saturating_sub(state.queue.len())
    }

    fn is_waited_for(&self) -> bool {
        !self.shared.state.lock().queue.is_empty()
    }
}

impl Drop for FixedPool {
    fn drop(&mut self) {
        self.stop();
    }
}
