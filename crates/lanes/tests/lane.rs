//! Lanes on real threads: order, inline running, reads together, leases, bounds, closing and faults.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tine_lanes::{
    Class, Executor, FixedPool, FunctionExecutor, Lane, LaneOptions, Lanes, ManualExecutor, Refusal, SubmitError,
    Worker,
};

/// What a job of the tests does.
enum Work {
    Note(u32),
    /// Sleeps, then notes.
    Slow(u32, Duration),
    /// Reads the state and notes it, after a pause.
    Read(u32, Duration),
    Panic,
    PanicReading,
    Expiring(Instant),
    Bytes(usize),
}

struct Job {
    work: Work,
    refused: mpsc::Sender<Refusal>,
}

#[derive(Debug, PartialEq)]
enum Event {
    Ran(u32, String),
    /// A read with the number of writes it saw.
    Saw(u32, u32),
    Closed(Refusal),
}

/// Its state is shared with readers through the `Arc` itself: a write while a reader still has it panics.
struct Recorder {
    events: mpsc::Sender<Event>,
    writes: Arc<u32>,
}

impl Recorder {
    fn note(&mut self, number: u32) {
        *Arc::get_mut(&mut self.writes).expect("no reader holds the state while a write runs") += 1;
        let thread = thread::current().name().unwrap_or("").to_owned();
        self.events.send(Event::Ran(number, thread)).expect("the test listens");
    }
}

impl Worker for Recorder {
    type Job = Job;
    type View = Arc<u32>;
    type Answer = (u32, u32);

    fn class(job: &Job) -> Class {
        if matches!(job.work, Work::Read(..) | Work::PanicReading) { Class::Read } else { Class::Write }
    }

    fn bytes(job: &Job) -> usize {
        if let Work::Bytes(bytes) = job.work { bytes } else { 0 }
    }

    fn deadline(job: &Job) -> Option<Instant> {
        if let Work::Expiring(deadline) = job.work { Some(deadline) } else { None }
    }

    fn run(&mut self, jobs: &mut VecDeque<Job>) {
        while let Some(job) = jobs.pop_front() {
            match job.work {
                Work::Note(number) => self.note(number),
                Work::Slow(number, pause) => {
                    thread::sleep(pause);
                    self.note(number);
                }
                Work::Read(..) => {
                    let answer = Self::read(&self.view(), job);
                    self.finish(vec![answer]);
                }
                Work::Panic | Work::PanicReading => panic!("asked to"),
                Work::Expiring(_) | Work::Bytes(_) => self.note(0),
            }
        }
    }

    fn view(&mut self) -> Arc<u32> {
        self.writes.clone()
    }

    fn read(view: &Arc<u32>, job: Job) -> (u32, u32) {
        match job.work {
            Work::Read(number, pause) => {
                thread::sleep(pause);
                (number, **view)
            }
            _ => panic!("asked to"),
        }
    }

    fn finish(&mut self, answers: Vec<(u32, u32)>) {
        for (number, saw) in answers {
            self.events.send(Event::Saw(number, saw)).expect("the test listens");
        }
    }

    fn close(&mut self, refusal: Refusal) {
        self.events.send(Event::Closed(refusal)).expect("the test listens");
    }

    fn refuse(job: Job, refusal: Refusal) {
        job.refused.send(refusal).expect("the test listens");
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
const TO_EXECUTOR: LaneOptions = LaneOptions {
    queue_jobs_max: 100_000,
    queue_bytes_max: 1_000,
    inline_max: Duration::ZERO,
    turn_max: Duration::from_millis(2),
    together_min: Duration::from_micros(200),
    sabotage: tine_lanes::Sabotage::None,
};

fn pool(threads: usize) -> Arc<FixedPool> {
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.to_owned()).spawn(run);
    Arc::new(FixedPool::start("lane", threads, &spawn).expect("threads start"))
}

struct Bench {
    lane: Lane<Recorder>,
    events: mpsc::Receiver<Event>,
    refused: mpsc::Sender<Refusal>,
    refusals: mpsc::Receiver<Refusal>,
    lanes: Arc<Lanes>,
}

fn bench(executor: Arc<dyn Executor>, options: LaneOptions) -> Bench {
    let (events_sender, events) = mpsc::channel();
    let (refused, refusals) = mpsc::channel();
    let lanes = Lanes::new(executor, options);
    let lane = Lane::new(Recorder { events: events_sender, writes: Arc::new(0) }, &lanes);
    Bench { lane, events, refused, refusals, lanes }
}

impl Bench {
    fn job(&self, work: Work) -> Job {
        Job { work, refused: self.refused.clone() }
    }

    fn submit(&self, work: Work) {
        self.lane.submit(self.job(work)).ok().expect("room");
    }

    fn submit_all(&self, works: impl IntoIterator<Item = Work>) {
        let mut jobs: Vec<Job> = works.into_iter().map(|work| self.job(work)).collect();
        self.lane.submit_batch(&mut jobs).expect("room");
    }

    fn event(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    fn lease(&self) -> tine_lanes::Lease<Recorder> {
        let (granted, leases) = mpsc::channel();
        self.lane.lease(move |lease| granted.send(lease).expect("the test listens"));
        leases.recv_timeout(PATIENCE).expect("granted").expect("not closed")
    }
}

#[test]
fn jobs_of_many_threads_run_once_and_in_each_threads_order() {
    let bench = bench(pool(2), TO_EXECUTOR);
    let threads: Vec<_> = (0..4u32)
        .map(|thread| {
            let (lane, refused) = (bench.lane.clone(), bench.refused.clone());
            thread::spawn(move || {
                for number in 0..5_000 {
                    let job = Job { work: Work::Note(thread * 5_000 + number), refused: refused.clone() };
                    lane.submit(job).ok().expect("room");
                }
            })
        })
        .collect();
    let mut next = [0u32; 4];
    for _ in 0..20_000 {
        let Event::Ran(number, _) = bench.event() else { panic!("not closed") };
        let thread = (number / 5_000) as usize;
        assert_eq!(number % 5_000, next[thread], "jobs of one thread stay in order");
        next[thread] += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().expect("submitter"));
    let counted = |jobs| bench.lanes.counters().values().jobs == jobs;
    let until = Instant::now() + PATIENCE;
    while (!counted(20_000) || bench.lane.depth() > 0) && Instant::now() < until {
        thread::yield_now();
    }
    assert_eq!((bench.lane.depth(), bench.lanes.counters().values().waiting), (0, 0));
    assert!(counted(20_000), "{:?}", bench.lanes.counters().values());
}

#[test]
fn a_lane_runs_on_the_submitting_thread_once_it_has_shown_that_it_is_quick() {
    let bench = bench(pool(1), LaneOptions { inline_max: Duration::from_millis(100), ..TO_EXECUTOR });
    let here = thread::current().name().unwrap_or("").to_owned();
    bench.submit_all([Work::Note(1)]);
    assert_eq!(bench.event(), Event::Ran(1, "lane-0".to_owned()), "nothing is known of it yet");
    let mut threads = Vec::new();
    for number in 0..64 {
        while bench.lane.depth() > 0 {
            thread::yield_now();
        }
        bench.submit_all([Work::Note(number)]);
        let Event::Ran(_, thread) = bench.event() else { panic!("not closed") };
        threads.push(thread);
    }
    assert_eq!(threads.last(), Some(&here), "{threads:?}");
    bench.submit(Work::Note(2));
    assert_eq!(bench.event(), Event::Ran(2, "lane-0".to_owned()), "`submit` never runs anything here");
    // A batch is counted when it is over, which is after its last job has said so.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let values = bench.lanes.counters().values();
        if values.batches_inline > 0 && values.batches_dispatched >= 2 {
            break;
        }
        assert!(Instant::now() < deadline, "{values:?}");
        thread::yield_now();
    }
}

#[test]
fn one_slow_job_sends_a_lane_to_the_executor() {
    let bench = bench(pool(1), LaneOptions { inline_max: Duration::from_millis(2), ..TO_EXECUTOR });
    for number in 0..64 {
        bench.submit_all([Work::Note(number)]);
        bench.event();
    }
    let pause = Duration::from_millis(50);
    bench.submit_all([Work::Slow(1, pause)]);
    bench.event();
    let started = Instant::now();
    bench.submit_all([Work::Slow(2, pause)]);
    assert!(started.elapsed() < pause / 2, "the lane ran a slow job on the submitting thread again");
    assert_eq!(bench.event(), Event::Ran(2, "lane-0".to_owned()));
}

#[test]
fn reads_between_two_writes_run_together_and_see_the_first_write() {
    const READS: u32 = 8;
    let pause = Duration::from_millis(20);
    let bench = bench(pool(4), TO_EXECUTOR);
    // The lane learns that its reads are slow.
    bench.submit_all([Work::Read(0, pause)]);
    assert_eq!(bench.event(), Event::Saw(0, 0));
    let lease = bench.lease();
    let reads = (1..=READS).map(|number| Work::Read(number, pause));
    bench.submit_all([Work::Note(100)].into_iter().chain(reads).chain([Work::Note(101), Work::Read(9, pause)]));
    let started = Instant::now();
    drop(lease);
    assert!(matches!(bench.event(), Event::Ran(100, _)));
    for number in 1..=READS {
        assert_eq!(bench.event(), Event::Saw(number, 1), "answers come in the order of the requests");
    }
    let elapsed = started.elapsed();
    assert!(elapsed < pause * READS / 2, "{READS} reads of {pause:?} on four threads took {elapsed:?}");
    assert!(matches!(bench.event(), Event::Ran(101, _)), "the next write waits for all of them");
    assert_eq!(bench.event(), Event::Saw(9, 2));
    assert_eq!(bench.lanes.counters().values().reads_together, u64::from(READS));
}

#[test]
fn a_group_of_reads_leaves_its_threads_to_other_lanes() {
    let pool = pool(2);
    let hot = bench(pool.clone(), TO_EXECUTOR);
    let other = bench(pool, TO_EXECUTOR);
    let pause = Duration::from_millis(10);
    hot.submit_all([Work::Read(0, pause)]);
    hot.event();
    hot.submit_all((0..60).map(|number| Work::Read(number, pause)));
    thread::sleep(pause * 2);
    let started = Instant::now();
    other.submit_all([Work::Note(1)]);
    assert!(matches!(other.event(), Event::Ran(1, _)));
    let waited = started.elapsed();
    assert!(waited < pause * 10, "another lane waited {waited:?} for a group of 600 ms of reads");
    for number in 0..60 {
        assert_eq!(hot.event(), Event::Saw(number, 0));
    }
}

#[test]
fn a_hot_lane_gives_the_only_thread_away_after_its_turn() {
    let pool = pool(1);
    let hot = bench(pool.clone(), TO_EXECUTOR);
    let other = bench(pool, TO_EXECUTOR);
    let pause = Duration::from_millis(1);
    for batch in 0..10 {
        hot.submit_all((0..64).map(|number| Work::Slow(batch * 64 + number, pause)));
    }
    assert!(matches!(hot.event(), Event::Ran(0, _)), "the hot lane has the thread");
    other.submit(Work::Note(1));
    assert!(matches!(other.event(), Event::Ran(1, _)));
    let ran_first = hot.events.try_iter().count();
    assert!(ran_first <= 3 * 64, "{ran_first} jobs of the hot lane ran before the other lane's one");
}

#[test]
fn a_lease_stands_in_its_place_in_the_queue() {
    let bench = bench(pool(2), TO_EXECUTOR);
    let (granted, leases) = mpsc::channel();
    bench.submit(Work::Note(1));
    bench.lane.lease(move |lease| granted.send(lease).expect("the test listens"));
    bench.submit(Work::Note(2));
    let lease = leases.recv_timeout(PATIENCE).expect("granted").expect("not closed");
    assert!(matches!(bench.events.try_recv(), Ok(Event::Ran(1, _))), "what was queued before ran before");
    assert!(bench.events.recv_timeout(Duration::from_millis(30)).is_err(), "what was queued after waits");
    drop(lease);
    assert!(matches!(bench.event(), Event::Ran(2, _)));
}

#[test]
fn full_queues_give_jobs_back() {
    let bench = bench(pool(1), LaneOptions { queue_jobs_max: 2, ..TO_EXECUTOR });
    let lease = bench.lease();
    bench.submit_all([Work::Note(0), Work::Note(1)]);
    let third = bench.job(Work::Note(3));
    assert!(matches!(bench.lane.submit(third), Err(SubmitError::Full(Job { work: Work::Note(3), .. }))));
    let mut batch = vec![bench.job(Work::Note(4))];
    assert_eq!(bench.lane.submit_batch(&mut batch), Err(SubmitError::Full(())));
    assert_eq!(batch.len(), 1, "a refused batch stays with the caller");
    bench.lane.submit_unbounded(bench.job(Work::Note(5))).ok().expect("not closed");
    assert_eq!(bench.lanes.counters().values().refused, 2);
    drop(lease);
    assert!(matches!((bench.event(), bench.event(), bench.event()), (_, _, Event::Ran(5, _))));
}

#[test]
fn bytes_are_bounded_too() {
    let bench = bench(pool(1), TO_EXECUTOR);
    let lease = bench.lease();
    bench.submit(Work::Bytes(600));
    assert!(matches!(bench.lane.submit(bench.job(Work::Bytes(600))), Err(SubmitError::Full(_))));
    bench.submit(Work::Bytes(400));
    drop(lease);
    bench.event();
    bench.event();
    bench.submit(Work::Bytes(1_000));
    bench.event();
}

#[test]
fn a_job_past_its_deadline_is_refused() {
    let bench = bench(pool(1), TO_EXECUTOR);
    let lease = bench.lease();
    let now = Instant::now();
    bench.submit_all([Work::Expiring(now), Work::Expiring(now + PATIENCE), Work::Note(2)]);
    drop(lease);
    assert_eq!(bench.refusals.recv_timeout(PATIENCE), Ok(Refusal::Expired));
    assert!(matches!(bench.event(), Event::Ran(0, _)), "the one with time left");
    assert!(matches!(bench.event(), Event::Ran(2, _)));
    assert_eq!(bench.lanes.counters().values().expired, 1);
}

#[test]
fn closing_refuses_what_waits_and_closes_once() {
    let bench = bench(pool(1), TO_EXECUTOR);
    let lease = bench.lease();
    bench.submit(Work::Note(1));
    bench.lane.close();
    bench.lane.close();
    assert!(matches!(bench.lane.submit(bench.job(Work::Note(2))), Err(SubmitError::Closed(_))));
    drop(lease);
    assert_eq!(bench.refusals.recv_timeout(PATIENCE), Ok(Refusal::Closed));
    assert_eq!(bench.event(), Event::Closed(Refusal::Closed));
    assert!(bench.lane.is_closed());
    let (granted, leases) = mpsc::channel();
    bench.lane.lease(move |lease| granted.send(lease.is_none()).expect("the test listens"));
    assert_eq!(leases.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn a_panic_faults_the_lane_and_answers_the_rest() {
    let bench = bench(pool(1), TO_EXECUTOR);
    bench.submit_all([Work::Panic, Work::Note(1)]);
    assert_eq!(bench.refusals.recv_timeout(PATIENCE), Ok(Refusal::Faulted));
    assert_eq!(bench.event(), Event::Closed(Refusal::Faulted));
}

#[test]
fn a_panic_in_a_group_of_reads_faults_the_lane_and_answers_the_rest() {
    let pause = Duration::from_millis(20);
    let bench = bench(pool(2), TO_EXECUTOR);
    bench.submit_all([Work::Read(0, pause)]);
    bench.event();
    let lease = bench.lease();
    bench.submit_all([Work::PanicReading, Work::Read(1, pause), Work::Read(2, pause), Work::Read(3, pause)]);
    bench.submit(Work::Note(1));
    drop(lease);
    let refusals: Vec<Refusal> = (0..3).map(|_| bench.refusals.recv_timeout(PATIENCE).expect("refused")).collect();
    assert!(refusals.iter().all(|&refusal| refusal == Refusal::Faulted), "two reads and the write: {refusals:?}");
    assert_eq!(bench.event(), Event::Closed(Refusal::Faulted));
}

#[test]
fn a_function_can_be_the_executor() {
    let started = Arc::new(AtomicUsize::new(0));
    let count = started.clone();
    let executor = FunctionExecutor::new(2, move |run| {
        count.fetch_add(1, Ordering::Relaxed);
        thread::spawn(run);
    });
    let bench = bench(Arc::new(executor), TO_EXECUTOR);
    bench.submit(Work::Note(1));
    assert!(matches!(bench.event(), Event::Ran(1, _)));
    assert_eq!(started.load(Ordering::Relaxed), 1);
}

#[test]
fn a_manual_executor_runs_when_the_test_says() {
    let executor = Arc::new(ManualExecutor::default());
    let bench = bench(executor.clone(), TO_EXECUTOR);
    bench.submit_all([Work::Note(1), Work::Note(2)]);
    assert_eq!(executor.waiting(), 1, "a lane is queued once");
    assert!(bench.events.try_recv().is_err(), "submitting does not run anything");
    executor.run_all();
    assert!(matches!((bench.event(), bench.event()), (Event::Ran(1, _), Event::Ran(2, _))));
    assert!(!executor.run_one());
}
