//! The lane: its queue, who may own it, and how work gets in. See the crate documentation for the invariants; [`crate::run`] has the
//! runner.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::counters::nanoseconds;
use crate::sync::{AtomicU32, Mutex, MutexGuard, Ordering};
use crate::{Counters, Executor, Lease};

/// How a job relates to the others of its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Runs alone.
    Write,
    /// Sees every write queued before it; may run together with its neighbours.
    Read,
}

/// The state a lane orders access to.
pub trait Worker: Send + 'static {
    /// One request.
    type Job: Send + 'static;
    /// What an ordered read may look at while it runs beside others: a snapshot, or shared access to the state itself. It is dropped
    /// before the next write begins.
    type View: Send + Sync + 'static;
    /// What a read found, for [`Worker::finish`].
    type Answer: Send + 'static;

    /// What kind of request `job` is. Must not change while it is queued.
    fn class(_job: &Self::Job) -> Class {
        Class::Write
    }

    /// Memory that `job` keeps while it is queued, beside its own size.
    fn bytes(_job: &Self::Job) -> usize {
        0
    }

    /// When `job` is not worth running any more; it is then refused as [`Refusal::Expired`].
    fn deadline(_job: &Self::Job) -> Option<Instant> {
        None
    }

    /// Runs `jobs`, writes and reads, in order, and leaves the queue empty.
    fn run(&mut self, jobs: &mut VecDeque<Self::Job>);

    /// What the reads queued next may look at. Only called by lanes that run reads together.
    fn view(&mut self) -> Self::View;

    /// Runs one read, possibly beside others. Nothing it does may depend on the others.
    fn read(view: &Self::View, job: Self::Job) -> Self::Answer;

    /// Takes the answers of reads that ran together, in the order the reads were queued.
    fn finish(&mut self, answers: Vec<Self::Answer>);

    /// Called once, after the last job, when the lane closes. `refusal` says why.
    fn close(&mut self, refusal: Refusal);

    /// Answers a job that will not run. Called without the worker, from any thread, never under a lock of the lane.
    fn refuse(job: Self::Job, refusal: Refusal);
}

/// Why an accepted job was not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The lane was closed by its owner.
    Closed,
    /// A job panicked: the worker's state is not to be trusted any more.
    Faulted,
    /// Its deadline had passed when its turn came.
    Expired,
}

/// A job that was not accepted, with the reason.
#[derive(Debug, PartialEq, Eq)]
pub enum SubmitError<Job> {
    /// The queue is at [`LaneOptions::queue_jobs_max`] or [`LaneOptions::queue_bytes_max`].
    Full(Job),
    /// The lane is closed or faulted.
    Closed(Job),
}

/// The bounds of a lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneOptions {
    /// Jobs that may wait; one more is refused.
    pub queue_jobs_max: usize,
    /// Bytes of waiting jobs ([`Worker::bytes`]); more are refused.
    pub queue_bytes_max: usize,
    /// Expected run time up to which an idle lane runs on the submitting thread; zero sends everything to the executor. The
    /// expectation is a moving average, and a lane that never ran is expected to be slow.
    pub inline_max: Duration,
    /// How long a runner keeps a lane while others wait for a thread.
    pub turn_max: Duration,
    /// Expected run time from which neighbouring reads are spread over idle threads: handing over costs two thread wake-ups.
    pub together_min: Duration,
    /// Breaks the scheduler on purpose, so that tests can prove that they would notice.
    #[doc(hidden)]
    pub sabotage: Sabotage,
}

impl Default for LaneOptions {
    fn default() -> Self {
        LaneOptions {
            // A million small requests are some hundred megabytes: a server that far behind should refuse.
            queue_jobs_max: 1 << 20,
            queue_bytes_max: 256 << 20,
            // Less than what two thread hand-offs cost when the cores are busy.
            inline_max: Duration::from_micros(300),
            turn_max: Duration::from_millis(2),
            together_min: Duration::from_micros(200),
            sabotage: Sabotage::None,
        }
    }
}

/// A deliberate fault of the scheduler.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// None.
    #[default]
    None,
    /// Runs the first two jobs of a batch in the wrong order.
    SwapNeighbours,
    /// Runs the reads of a batch before its writes.
    HoistReads,
    /// Now and then forgets a job of a batch.
    LoseJobs,
}

/// What a family of lanes shares: bounds, executor, counters.
pub struct Lanes {
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) options: LaneOptions,
    pub(crate) counters: Counters,
    /// Times in queues count from here: eight bytes instead of sixteen per job.
    began: Instant,
}

impl Lanes {
    /// A family whose lanes run on `executor` when they do not run on the submitting thread.
    pub fn new(executor: Arc<dyn Executor>, options: LaneOptions) -> Arc<Self> {
        Arc::new(Lanes { executor, options, counters: Counters::default(), began: Instant::now() })
    }

    /// What the lanes did.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn since_began_ns(&self, now: Instant) -> u64 {
        nanoseconds(now.duration_since(self.began))
    }
}

pub(crate) enum Entry<W: Worker> {
    Job { job: W::Job, queued_ns: u64 },
    Lease(Box<dyn FnOnce(Option<Lease<W>>) + Send>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    /// A runner or a group of reads has the worker, or the lane is queued on the executor.
    Running,
    Leased,
    Closed(Refusal),
}

pub(crate) struct Queue<W: Worker> {
    pub entries: VecDeque<Entry<W>>,
    pub bytes: usize,
    pub state: State,
    /// Set by `close`; whoever holds the worker closes the lane when it gives it back.
    pub closing: Option<Refusal>,
    /// `None` while a runner, a group or a lease has it, and after closing.
    pub worker: Option<Box<W>>,
}

impl<W: Worker> Queue<W> {
    fn is_closed(&self) -> bool {
        self.closing.is_some() || matches!(self.state, State::Closed(_))
    }

    /// Lets go of the queue's memory: a hundred thousand lanes are idle most of the time.
    pub fn rest(&mut self, worker: Box<W>) {
        assert!(self.entries.is_empty() && self.bytes == 0, "a lane that rests has nothing to do");
        self.entries = VecDeque::new();
        self.worker = Some(worker);
        self.state = State::Idle;
    }
}

pub(crate) struct Inner<W: Worker> {
    pub queue: Mutex<Queue<W>>,
    pub lanes: Arc<Lanes>,
    /// Moving averages of the run times of one write and one read, in nanoseconds. Only ever hints, so relaxed.
    pub write_ns: AtomicU32,
    pub read_ns: AtomicU32,
    /// Jobs in the batch that runs now.
    pub running: AtomicU32,
}

/// A queue with an owner; cheap to clone. See the crate documentation.
pub struct Lane<W: Worker>(pub(crate) Arc<Inner<W>>);

impl<W: Worker> Clone for Lane<W> {
    fn clone(&self) -> Self {
        Lane(self.0.clone())
    }
}

impl<W: Worker> Lane<W> {
    /// Makes an idle lane around `worker`.
    pub fn new(worker: W, lanes: &Arc<Lanes>) -> Self {
        let queue = Queue {
            entries: VecDeque::new(),
            bytes: 0,
            state: State::Idle,
            closing: None,
            worker: Some(Box::new(worker)),
        };
        // A first job most often has to build something; it is not run on an I/O thread until it has shown that it is quick.
        let unknown_ns = u32::try_from(nanoseconds(lanes.options.inline_max)).unwrap_or(u32::MAX);
        Lane(Arc::new(Inner {
            queue: Mutex::new(queue),
            lanes: lanes.clone(),
            write_ns: AtomicU32::new(unknown_ns),
            read_ns: AtomicU32::new(unknown_ns),
            running: AtomicU32::new(0),
        }))
    }

    /// Queues one job for the executor: never runs anything on this thread.
    ///
    /// # Errors
    /// The job comes back when the queue is full or the lane closed.
    pub fn submit(&self, job: W::Job) -> Result<(), SubmitError<W::Job>> {
        let options = &self.0.lanes.options;
        self.submit_within(job, options.queue_jobs_max, options.queue_bytes_max)
    }

    /// Queues a job that must not be lost for want of room, such as the end of a connection: the caller bounds their number.
    ///
    /// # Errors
    /// The job comes back when the lane is closed.
    pub fn submit_unbounded(&self, job: W::Job) -> Result<(), SubmitError<W::Job>> {
        self.submit_within(job, usize::MAX, usize::MAX)
    }

    fn submit_within(&self, job: W::Job, jobs_max: usize, bytes_max: usize) -> Result<(), SubmitError<W::Job>> {
        let bytes = W::bytes(&job);
        let queued_ns = self.0.lanes.since_began_ns(Instant::now());
        let mut queue = self.0.queue.lock();
        if queue.is_closed() {
            return Err(SubmitError::Closed(job));
        }
        if queue.entries.len() >= jobs_max || queue.bytes.saturating_add(bytes) > bytes_max {
            drop(queue);
            self.0.lanes.counters.refused(1);
            return Err(SubmitError::Full(job));
        }
        queue.bytes += bytes;
        queue.entries.push_back(Entry::Job { job, queued_ns });
        self.0.lanes.counters.queued(1);
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
        let inner = &self.0;
        let options = &inner.lanes.options;
        let (mut bytes, mut expected_ns) = (0usize, 0u64);
        let write_ns = inner.write_ns.load(Ordering::Relaxed);
        let read_ns = inner.read_ns.load(Ordering::Relaxed);
        for job in jobs.iter() {
            bytes = bytes.saturating_add(W::bytes(job));
            expected_ns += u64::from(if W::class(job) == Class::Read { read_ns } else { write_ns });
        }
        let mut queue = inner.queue.lock();
        if queue.is_closed() {
            return Err(SubmitError::Closed(()));
        }
        if queue.entries.len() + jobs.len() > options.queue_jobs_max
            || queue.bytes.saturating_add(bytes) > options.queue_bytes_max
        {
            drop(queue);
            inner.lanes.counters.refused(jobs.len());
            return Err(SubmitError::Full(()));
        }
        if queue.state == State::Idle && u128::from(expected_ns) < options.inline_max.as_nanos() {
            queue.state = State::Running;
            let worker = queue.worker.take().expect("an idle lane holds its worker");
            drop(queue);
            inner.run_inline(worker, jobs);
        } else {
            inner.lanes.counters.queued(jobs.len());
            let queued_ns = inner.lanes.since_began_ns(Instant::now());
            queue.bytes += bytes;
            queue.entries.extend(jobs.drain(..).map(|job| Entry::Job { job, queued_ns }));
            inner.start(queue);
        }
        Ok(())
    }

    /// Asks for the worker itself: `granted` gets a [`Lease`] when all jobs queued before have run, and the lane stands still until
    /// the lease is dropped. When the lane closes first, `granted` gets `None`. The caller bounds the number of leases asked for.
    ///
    /// `granted` runs on the lane's runner and must be short: send the lease to the thread that wants it.
    pub fn lease(&self, granted: impl FnOnce(Option<Lease<W>>) + Send + 'static) {
        let mut queue = self.0.queue.lock();
        if queue.is_closed() {
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
            self.0.finish_closing(queue, worker);
        }
    }

    /// Jobs waiting or in the batch that runs now.
    pub fn depth(&self) -> usize {
        self.0.queue.lock().entries.len() + self.0.running.load(Ordering::Relaxed) as usize
    }

    /// Whether the lane refuses all work.
    pub fn is_closed(&self) -> bool {
        matches!(self.0.queue.lock().state, State::Closed(_))
    }
}

impl<W: Worker> Inner<W> {
    /// Makes sure that somebody will run what `queue` holds.
    pub fn start(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue<W>>) {
        if queue.state == State::Idle {
            queue.state = State::Running;
            drop(queue);
            self.dispatch();
        }
    }
}
