//! Cases inside this process: a lane against a direct call, and against a queue with an awaited reply per request.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use parking_lot::Mutex;
use tine_lanes::{Class, Executor, FixedPool, FunctionExecutor, Lane, LaneOptions, Lanes, Refusal, Worker};
use tokio::sync::{mpsc, oneshot};

/// Jobs of the cheapest cases.
const JOBS: u64 = 100_000;
/// Requests that arrive together, as in one frame.
const FRAME: usize = 64;
/// Work of one read, in rounds of arithmetic: some 30 us.
const READ_ROUNDS: u64 = 40_000;
/// Reads between two writes of the mixed case.
const READS_PER_WRITE: usize = 100;
/// Reads that wait at the same time.
const READS_IN_FLIGHT: usize = 256;
/// Lanes that do nothing.
const IDLE_LANES: usize = 100_000;

/// Where replies go: what a connection's task would send.
type Outbox = Arc<Mutex<Vec<u64>>>;

/// What jobs of the cases do.
pub(super) enum Job {
    /// Answers its number.
    Noop(u64, Outbox),
    Write,
    Read,
}

/// A worker that counts.
pub(super) struct Counting {
    pub writes: u64,
    pub done: Arc<AtomicU64>,
}

impl Counting {
    pub fn handle(&mut self, job: Job) {
        match job {
            Job::Noop(number, outbox) => outbox.lock().push(number),
            Job::Write => self.writes += 1,
            Job::Read => {
                std::hint::black_box(spin(self.writes));
                self.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Worker for Counting {
    type Job = Job;
    type View = u64;
    type Answer = u64;

    fn class(job: &Job) -> Class {
        if matches!(job, Job::Read) { Class::Read } else { Class::Write }
    }

    fn run(&mut self, jobs: &mut VecDeque<Job>) {
        while let Some(job) = jobs.pop_front() {
            self.handle(job);
        }
    }

    fn view(&mut self) -> u64 {
        self.writes
    }

    fn read(view: &u64, _job: Job) -> u64 {
        spin(*view)
    }

    fn finish(&mut self, answers: Vec<u64>) {
        self.done.fetch_add(answers.len() as u64, Ordering::Relaxed);
    }

    fn close(&mut self, _refusal: Refusal) {}

    fn refuse(_job: Job, _refusal: Refusal) {}
}

fn spin(seed: u64) -> u64 {
    let mut value = seed;
    for round in 0..READ_ROUNDS {
        value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round));
    }
    value
}

pub(super) fn pool(threads: usize) -> anyhow::Result<Arc<FixedPool>> {
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.to_owned()).spawn(run);
    Ok(Arc::new(FixedPool::start("lane", threads, &spawn)?))
}

pub(super) fn lane(executor: Arc<dyn Executor>) -> (Lane<Counting>, Arc<AtomicU64>) {
    let lanes = Lanes::new(executor, LaneOptions::default());
    let done = Arc::new(AtomicU64::new(0));
    (Lane::new(Counting { writes: 0, done: done.clone() }, &lanes), done)
}

/// Submits until the lane has learnt that its jobs are short.
pub(super) fn warm_up(lane: &Lane<Counting>) {
    for _ in 0..200 {
        lane.submit_batch(&mut vec![Job::Write]).expect("room");
        while lane.depth() > 0 {
            thread::yield_now();
        }
    }
}

/// Nanoseconds from submitting to an idle lane until the job has run, over calling the worker.
pub(super) fn idle_overhead_ns() -> f64 {
    let (lane, _) = lane(Arc::new(FunctionExecutor::new(1, |run: Box<dyn FnOnce() + Send>| drop(thread::spawn(run)))));
    warm_up(&lane);
    let mut jobs = Vec::with_capacity(1);
    let started = Instant::now();
    for _ in 0..JOBS {
        jobs.push(Job::Write);
        lane.submit_batch(&mut jobs).expect("room");
    }
    let with_lane = started.elapsed();
    let mut worker = Counting { writes: 0, done: Arc::default() };
    let mut queue = VecDeque::with_capacity(1);
    let started = Instant::now();
    for _ in 0..JOBS {
        queue.push_back(Job::Write);
        std::hint::black_box(&mut worker).run(std::hint::black_box(&mut queue));
    }
    let direct = started.elapsed();
    (with_lane.as_secs_f64() - direct.as_secs_f64()) * 1e9 / JOBS as f64
}

/// Processor time of this process so far, user and system.
fn cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is valid for a whole `rusage`, and all-zero is a valid one should the call fail.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let part = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000);
    part(usage.ru_utime) + part(usage.ru_stime)
}

/// Requests per CPU second of a lane over those of the design it replaces, on the same runtime.
pub(super) fn pipelined_over_baseline(length: Duration) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let handle = runtime.handle().clone();
    runtime.block_on(async move {
        let baseline = tokio::spawn(baseline(length)).await?;
        let laned = tokio::spawn(laned(handle, length)).await?;
        Ok(laned / baseline)
    })
}

/// One queue; the connection waits for each answer before it takes the next request.
async fn baseline(length: Duration) -> f64 {
    let (queue, mut requests) = mpsc::channel::<(u64, oneshot::Sender<u64>)>(1_024);
    let worker = tokio::spawn(async move {
        let mut handled = 0u64;
        while let Some((number, reply)) = requests.recv().await {
            handled += 1;
            // The connection may have ended.
            let _ = reply.send(number);
        }
        handled
    });
    let outbox = Outbox::default();
    let (started, cpu_before) = (Instant::now(), cpu_time());
    let mut requests = 0u64;
    while started.elapsed() < length {
        for _ in 0..FRAME {
            let (reply_to, reply) = oneshot::channel();
            queue.send((requests, reply_to)).await.expect("the worker runs");
            let reply = reply.await.expect("the worker answers");
            outbox.lock().push(reply);
            requests += 1;
        }
        outbox.lock().clear();
    }
    let cpu = cpu_time() - cpu_before;
    drop(queue);
    assert_eq!(worker.await.expect("the worker does not panic"), requests);
    requests as f64 / cpu.as_secs_f64()
}

async fn laned(handle: tokio::runtime::Handle, length: Duration) -> f64 {
    let execute = move |run: Box<dyn FnOnce() + Send>| drop(handle.spawn(async move { run() }));
    let (lane, _) = lane(Arc::new(FunctionExecutor::new(2, execute)));
    let outbox = Outbox::default();
    let mut jobs = Vec::with_capacity(FRAME);
    let (started, cpu_before) = (Instant::now(), cpu_time());
    let (mut requests, mut replies) = (0u64, 0u64);
    while started.elapsed() < length || replies < requests {
        if started.elapsed() < length {
            jobs.extend((0..FRAME as u64).map(|number| Job::Noop(requests + number, outbox.clone())));
            requests += FRAME as u64;
            lane.submit_batch(&mut jobs).expect("room");
        }
        let ready = std::mem::take(&mut *outbox.lock());
        assert!(ready.first().is_none_or(|first| *first == replies), "replies come in order");
        replies += ready.len() as u64;
        if ready.is_empty() {
            tokio::task::yield_now().await;
        }
    }
    requests as f64 / (cpu_time() - cpu_before).as_secs_f64()
}

/// Reads per second of a lane on `threads` threads with a write after every `reads_per_write` reads.
fn reads_per_second(threads: usize, reads_per_write: usize, length: Duration) -> anyhow::Result<f64> {
    let (lane, done) = lane(pool(threads)?);
    let (mut submitted, mut since_write) = (0u64, 0usize);
    let started = Instant::now();
    while started.elapsed() < length {
        let mut jobs = Vec::with_capacity(FRAME + 1);
        for _ in 0..FRAME {
            jobs.push(Job::Read);
            since_write += 1;
            if since_write == reads_per_write {
                jobs.push(Job::Write);
                since_write = 0;
            }
        }
        submitted += FRAME as u64;
        lane.submit_batch(&mut jobs).ok().context("the lane has no room")?;
        while submitted - done.load(Ordering::Relaxed) > READS_IN_FLIGHT as u64 {
            thread::sleep(Duration::from_micros(100));
        }
    }
    while done.load(Ordering::Relaxed) < submitted {
        thread::sleep(Duration::from_micros(100));
    }
    Ok(submitted as f64 / started.elapsed().as_secs_f64())
}

/// Reads per second on two threads over one.
pub(super) fn parallel_over_single_reads(length: Duration) -> anyhow::Result<f64> {
    let single = reads_per_second(1, usize::MAX, length)?;
    Ok(reads_per_second(2, usize::MAX, length)? / single)
}

/// Reads per second with a write every [`READS_PER_WRITE`] over reads alone.
pub(super) fn mixed_over_pure_reads(length: Duration) -> anyhow::Result<f64> {
    let pure = reads_per_second(2, usize::MAX, length)?;
    Ok(reads_per_second(2, READS_PER_WRITE, length)? / pure)
}

/// What lanes cost that do nothing.
pub(super) struct Idle {
    pub bytes_per_lane: f64,
    /// Time of a job on one lane among many idle ones, over alone.
    pub slowdown: f64,
}

/// Bytes that the C library's allocator has given out, with its own overhead. Resident memory would count what is free, too: by how
/// much says more about the order of earlier cases than about lanes.
fn allocated_bytes() -> f64 {
    // SAFETY: takes nothing and returns plain numbers.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as f64
}

/// Makes many lanes that have all run something, and looks at memory and at the speed of one more.
pub(super) fn idle_lanes() -> anyhow::Result<Idle> {
    let executor = pool(1)?;
    let lanes = Lanes::new(executor.clone(), LaneOptions::default());
    let done = Arc::new(AtomicU64::new(0));
    let (busy, _) = lane(executor);
    warm_up(&busy);
    let time = |busy: &Lane<Counting>| {
        let started = Instant::now();
        let mut jobs = Vec::with_capacity(1);
        for _ in 0..JOBS {
            jobs.push(Job::Write);
            busy.submit_batch(&mut jobs).expect("room");
        }
        started.elapsed().as_secs_f64()
    };
    let alone = time(&busy).min(time(&busy));
    let mut idle = Vec::with_capacity(IDLE_LANES);
    let before = allocated_bytes();
    for _ in 0..IDLE_LANES {
        let lane = Lane::new(Counting { writes: 0, done: done.clone() }, &lanes);
        lane.submit_batch(&mut vec![Job::Write]).expect("room");
        idle.push(lane);
    }
    while idle.iter().any(|lane| lane.depth() > 0) {
        thread::sleep(Duration::from_millis(1));
    }
    let bytes_per_lane = (allocated_bytes() - before) / IDLE_LANES as f64;
    let among_many = time(&busy).min(time(&busy));
    Ok(Idle { bytes_per_lane, slowdown: among_many / alone })
}
