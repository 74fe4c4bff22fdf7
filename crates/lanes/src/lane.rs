//! The lane itself: see the crate documentation for the invariants.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::Executor;

/// Jobs handed to the worker in one call. Long enough to share the cost of the worker's per-batch work (publishing, flushing
/// replies), short enough that the first reply of a batch of 10 us jobs waits well under a millisecond.
const BATCH_JOBS_MAX: usize = 64;

/// How long a runner on the executor keeps a lane before it queues behind the other lanes.
const TURN_MAX: Duration = Duration::from_millis(2);

/// The state a lane orders access to.
pub trait Worker: Send + 'static {
    /// One request.
    type Job: Send;

    /// Runs `jobs` in order and leaves the queue empty.
    fn run(&mut self, jobs: &mut VecDeque<Self::Job>);

    /// Called once, after the last job, when the lane closes. `refusal` says why.
    fn close(&mut self, refusal: Refusal);

    /// Answers a job that will not run. Called without the worker, from any thread, never under a lock of the lane.
    fn refuse(job: Self::Job, refusal: Refusal);
}

/// Why accepted jobs were not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The lane was closed by its owner.
    Closed,
    /// A job panicked: the worker's state is not to be trusted any more.
    Faulted,
}

/// A job that was not accepted, with the reason.
#[derive(Debug, PartialEq, Eq)]
pub enum SubmitError<Job> {
    /// The queue holds [`LaneOptions::queue_jobs_max`] jobs.
    Full(Job),
    /// The lane is closed or faulted.
    Closed(Job),
}

/// The bounds of a lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneOptions {
    /// Jobs that may wait; one more is refused.
    pub queue_jobs_max: usize,
    /// Expected run time up to which an idle lane runs on the submitting thread; zero sends everything to the executor.
    pub inline_max: Duration,
}

enum Entry<W: Worker> {
    Job(W::Job),
    Lease(Box<dyn FnOnce(Option<Lease<W>>) + Send>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// A runner has the worker or is queued on the executor.
    Running,
    Leased,
    Closed(Refusal),
}

struct Queue<W: Worker> {
    entries: VecDeque<Entry<W>>,
    state: State,
    /// Set by `close`; whoever holds the worker closes the lane when it gives it back.
    closing: Option<Refusal>,
    /// `None` while a runner or a lease has it, and after closing.
    worker: Option<Box<W>>,
}

struct Inner<W: Worker> {
    queue: Mutex<Queue<W>>,
    executor: Arc<dyn Executor>,
    options: LaneOptions,
    /// Moving average of the run time of one job, in nanoseconds; decides on running inline. Only ever a hint, so relaxed.
    job_ns: AtomicU64,
    depth: AtomicUsize,
}

/// A queue with an owner; cheap to clone. See the crate documentation.
pub struct Lane<W: Worker>(Arc<Inner<W>>);

impl<W: Worker> Clone for Lane<W> {
    fn clone(&self) -> Self {
        Lane(self.0.clone())
    }
}

impl<W: Worker> Lane<W> {
    /// Makes an idle lane around `worker`.
    pub fn new(worker: W, executor: Arc<dyn Executor>, options: LaneOptions) -> Self {
        let queue =
            Queue { entries: VecDeque::new(), state: State::Idle, closing: None, worker: Some(Box::new(worker)) };
        Lane(Arc::new(Inner {
            queue: Mutex::new(queue),
            executor,
            options,
            job_ns: AtomicU64::new(0),
            depth: AtomicUsize::new(0),
        }))
    }

    /// Queues one job for the executor.
    ///
    /// # Errors
    /// The job comes back when the queue is full or the lane closed.
    pub fn submit(&self, job: W::Job) -> Result<(), SubmitError<W::Job>> {
        self.submit_within(job, self.0.options.queue_jobs_max)
    }

    /// Queues a job that must not be lost for want of room, such as the end of a connection: the caller bounds their number.
    ///
    /// # Errors
    /// The job comes back when the lane is closed.
    pub fn submit_unbounded(&self, job: W::Job) -> Result<(), SubmitError<W::Job>> {
        self.submit_within(job, usize::MAX)
    }

    fn submit_within(&self, job: W::Job, queue_jobs_max: usize) -> Result<(), SubmitError<W::Job>> {
        let mut queue = self.0.queue.lock();
        if matches!(queue.state, State::Closed(_)) || queue.closing.is_some() {
            return Err(SubmitError::Closed(job));
        }
        if queue.entries.len() >= queue_jobs_max {
            return Err(SubmitError::Full(job));
        }
        queue.entries.push_back(Entry::Job(job));
        self.0.start(queue);
        Ok(())
    }

    /// Queues all `jobs` in order. An idle lane whose recent jobs were short runs them on this thread before this returns, up to the
    /// bound of [`LaneOptions::inline_max`]; otherwise the executor does.
    ///
    /// # Errors
    /// When the queue has no room for all of them or the lane is closed, none is taken: they stay in `jobs`, and the error says why.
    pub fn submit_batch(&self, jobs: &mut Vec<W::Job>) -> Result<(), SubmitError<()>> {
        if jobs.is_empty() {
            return Ok(());
        }
        let mut queue = self.0.queue.lock();
        if matches!(queue.state, State::Closed(_)) || queue.closing.is_some() {
            return Err(SubmitError::Closed(()));
        }
        if queue.entries.len() + jobs.len() > self.0.options.queue_jobs_max {
            return Err(SubmitError::Full(()));
        }
        let expected_ns = self.0.job_ns.load(Ordering::Relaxed).saturating_mul(jobs.len() as u64);
        let inline = queue.state == State::Idle && u128::from(expected_ns) < self.0.options.inline_max.as_nanos();
        queue.entries.extend(jobs.drain(..).map(Entry::Job));
        if inline {
            queue.state = State::Running;
            drop(queue);
            self.0.run(self.0.options.inline_max);
        } else {
            self.0.start(queue);
        }
        Ok(())
    }

    /// Asks for the worker itself: `granted` gets a [`Lease`] when all jobs queued before have run, and the lane stands still until
    /// the lease is dropped. When the lane closes first, `granted` gets `None`.
    ///
    /// `granted` runs on the lane's runner and must be short: send the lease to the thread that wants it.
    pub fn lease(&self, granted: impl FnOnce(Option<Lease<W>>) + Send + 'static) {
        let mut queue = self.0.queue.lock();
        if matches!(queue.state, State::Closed(_)) || queue.closing.is_some() {
            drop(queue);
            return granted(None);
        }
        queue.entries.push_back(Entry::Lease(Box::new(granted)));
        self.0.start(queue);
    }

    /// Closes the lane at the next job boundary: waiting jobs are refused, then [`Worker::close`] runs. Idempotent.
    pub fn close(&self) {
        let mut queue = self.0.queue.lock();
        if matches!(queue.state, State::Closed(_)) {
            return;
        }
        queue.closing.get_or_insert(Refusal::Closed);
        if queue.state == State::Idle {
            let worker = queue.worker.take().expect("an idle lane holds its worker");
            self.0.finish_closing(queue, Some(worker));
        }
    }

    /// Jobs waiting or in the batch that runs now.
    pub fn depth(&self) -> usize {
        self.0.queue.lock().entries.len() + self.0.depth.load(Ordering::Relaxed)
    }

    /// Whether the lane refuses all work.
    pub fn is_closed(&self) -> bool {
        matches!(self.0.queue.lock().state, State::Closed(_))
    }
}

impl<W: Worker> Inner<W> {
    fn start(self: &Arc<Self>, mut queue: parking_lot::MutexGuard<'_, Queue<W>>) {
        if queue.state == State::Idle {
            queue.state = State::Running;
            drop(queue);
            self.dispatch();
        }
    }

    fn dispatch(self: &Arc<Self>) {
        let inner = self.clone();
        self.executor.execute(Box::new(move || inner.run(TURN_MAX)));
    }

    /// Runs batches until the queue is empty, the turn is over, or a lease takes the worker away. The state is `Running`.
    fn run(self: &Arc<Self>, turn_max: Duration) {
        let started = Instant::now();
        let mut batch = VecDeque::with_capacity(BATCH_JOBS_MAX);
        let mut worker = self.queue.lock().worker.take().expect("a lane that is to run holds its worker");
        loop {
            let mut queue = self.queue.lock();
            assert_eq!(queue.state, State::Running, "only the runner changes the state of a running lane");
            if queue.closing.is_some() {
                return self.finish_closing(queue, Some(worker));
            }
            while batch.len() < BATCH_JOBS_MAX && matches!(queue.entries.front(), Some(Entry::Job(_))) {
                if let Some(Entry::Job(job)) = queue.entries.pop_front() {
                    batch.push_back(job);
                }
            }
            if batch.is_empty() {
                let Some(Entry::Lease(granted)) = queue.entries.pop_front() else {
                    queue.worker = Some(worker);
                    queue.state = State::Idle;
                    return;
                };
                queue.state = State::Leased;
                drop(queue);
                return granted(Some(Lease { worker: Some(worker), inner: self.clone() }));
            }
            drop(queue);
            if !self.run_batch(&mut worker, &mut batch) {
                let mut queue = self.queue.lock();
                queue.closing = Some(Refusal::Faulted);
                drop(batch);
                return self.finish_closing(queue, Some(worker));
            }
            if started.elapsed() >= turn_max {
                let mut queue = self.queue.lock();
                queue.worker = Some(worker);
                drop(queue);
                return self.dispatch();
            }
        }
    }

    /// Returns false when a job panicked. Jobs of the batch that did not run are refused.
    fn run_batch(&self, worker: &mut W, batch: &mut VecDeque<W::Job>) -> bool {
        let jobs = batch.len() as u64;
        self.depth.store(batch.len(), Ordering::Relaxed);
        let started = Instant::now();
        let sound = catch_unwind(AssertUnwindSafe(|| worker.run(batch))).is_ok();
        let elapsed_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX) / jobs;
        self.depth.store(0, Ordering::Relaxed);
        let average_ns = self.job_ns.load(Ordering::Relaxed);
        self.job_ns.store(average_ns - average_ns / 8 + elapsed_ns / 8, Ordering::Relaxed);
        if sound {
            assert!(batch.is_empty(), "a worker runs every job of its batch");
        }
        for job in batch.drain(..) {
            W::refuse(job, Refusal::Faulted);
        }
        sound
    }

    fn finish_closing(self: &Arc<Self>, mut queue: parking_lot::MutexGuard<'_, Queue<W>>, worker: Option<Box<W>>) {
        let refusal = queue.closing.take().expect("closing was asked for");
        queue.state = State::Closed(refusal);
        let entries = std::mem::take(&mut queue.entries);
        drop(queue);
        for entry in entries {
            match entry {
                Entry::Job(job) => W::refuse(job, refusal),
                Entry::Lease(granted) => granted(None),
            }
        }
        if let Some(mut worker) = worker {
            // After a fault the worker's own close may panic again; the lane is closed either way.
            let _ = catch_unwind(AssertUnwindSafe(move || {
                worker.close(refusal);
                drop(worker);
            }));
        }
    }

    fn give_back(self: &Arc<Self>, worker: Box<W>, faulted: bool) {
        let mut queue = self.queue.lock();
        assert_eq!(queue.state, State::Leased, "a lease ends once");
        if faulted {
            queue.closing = Some(Refusal::Faulted);
        }
        if queue.closing.is_some() {
            return self.finish_closing(queue, Some(worker));
        }
        queue.worker = Some(worker);
        queue.state = State::Idle;
        if !queue.entries.is_empty() {
            self.start(queue);
        }
    }
}

/// Exclusive hold of a lane's worker, outside the lane's runner. Dropping it lets the lane go on; dropping it while panicking
/// faults the lane.
pub struct Lease<W: Worker> {
    worker: Option<Box<W>>,
    inner: Arc<Inner<W>>,
}

impl<W: Worker> std::ops::Deref for Lease<W> {
    type Target = W;
    fn deref(&self) -> &W {
        self.worker.as_ref().expect("a lease holds the worker until it is dropped")
    }
}

impl<W: Worker> std::ops::DerefMut for Lease<W> {
    fn deref_mut(&mut self) -> &mut W {
        self.worker.as_mut().expect("a lease holds the worker until it is dropped")
    }
}

impl<W: Worker> Drop for Lease<W> {
    fn drop(&mut self) {
        let worker = self.worker.take().expect("a lease is dropped once");
        self.inner.give_back(worker, std::thread::panicking());
    }
}
