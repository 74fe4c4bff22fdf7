//! Models of the lane under shuttle, which runs them under hundreds of different interleavings each: no lost wake-up (it reports a
//! deadlock when the test waits for something nobody will do), no job run twice or not at all, order kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use shuttle::sync::Mutex;
use shuttle::sync::mpsc;
use shuttle::{check_pct, check_random, thread};

use crate::{Class, Executor, Horizon, Lane, LaneOptions, Lanes, Lease, Refusal, Sabotage, Sequencer, Worker};

/// Random schedules per model.
const SCHEDULES: usize = 400;
/// Schedules in which priorities change a few times only, which finds what needs one rare preemption.
const PRIORITY_SCHEDULES: usize = 200;

fn check(model: impl Fn() + Send + Sync + Clone + 'static) {
    check_random(model.clone(), SCHEDULES);
    check_pct(model, PRIORITY_SCHEDULES, 3);
}

/// Every piece of work is a thread of its own, so that shuttle decides when it runs.
struct Threads {
    idle: usize,
}

impl Executor for Threads {
    fn execute(&self, run: Box<dyn FnOnce() + Send>) {
        thread::spawn(run);
    }

    fn idle_threads(&self) -> usize {
        self.idle
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// By whom, which, and the writes that ran before.
    Ran(u32, u32, u32),
    Refused(u32, u32, Refusal),
}

#[derive(Clone, Copy)]
enum Kind {
    Write,
    Read,
    Panic,
}

struct Job {
    by: u32,
    number: u32,
    kind: Kind,
    done: mpsc::Sender<Done>,
}

/// The `Arc` is what readers share: a write that finds it shared breaks G2 and panics.
struct Model {
    writes: Arc<u32>,
    closed: mpsc::Sender<Refusal>,
}

impl Worker for Model {
    type Job = Job;
    type View = Arc<u32>;
    type Answer = (Job, u32);

    fn class(job: &Job) -> Class {
        if matches!(job.kind, Kind::Read) { Class::Read } else { Class::Write }
    }

    fn run(&mut self, jobs: &mut VecDeque<Job>) {
        while let Some(job) = jobs.pop_front() {
            match job.kind {
                Kind::Write => {
                    let writes = Arc::get_mut(&mut self.writes).expect("a write runs alone");
                    *writes += 1;
                    thread::yield_now();
                    job.done.send(Done::Ran(job.by, job.number, *writes)).expect("the model listens");
                }
                Kind::Read => job.done.send(Done::Ran(job.by, job.number, *self.writes)).expect("the model listens"),
                Kind::Panic => {
                    // Shuttle's primitives must not be dropped while unwinding.
                    std::mem::forget(job);
                    std::panic::resume_unwind(Box::new("asked to"));
                }
            }
        }
    }

    fn view(&mut self) -> Arc<u32> {
        self.writes.clone()
    }

    fn read(view: &Arc<u32>, job: Job) -> (Job, u32) {
        assert!(matches!(job.kind, Kind::Read), "only reads run together");
        thread::yield_now();
        (job, **view)
    }

    fn finish(&mut self, answers: Vec<(Job, u32)>) {
        for (job, saw) in answers {
            job.done.send(Done::Ran(job.by, job.number, saw)).expect("the model listens");
        }
    }

    fn close(&mut self, refusal: Refusal) {
        self.closed.send(refusal).expect("the model listens");
    }

    fn refuse(job: Job, refusal: Refusal) {
        job.done.send(Done::Refused(job.by, job.number, refusal)).expect("the model listens");
    }
}

struct Setup {
    lane: Lane<Model>,
    done: mpsc::Sender<Done>,
    results: mpsc::Receiver<Done>,
    closings: mpsc::Receiver<Refusal>,
}

/// Times are of no use under a model, so each option is at one of its ends.
fn setup(inline_max: Duration, turn_max: Duration, idle: usize) -> Setup {
    let options = LaneOptions {
        queue_jobs_max: 100,
        queue_bytes_max: usize::MAX,
        inline_max,
        turn_max,
        together_min: Duration::ZERO,
        sabotage: Sabotage::None,
    };
    let (closed, closings) = mpsc::channel();
    let (done, results) = mpsc::channel();
    let lanes = Lanes::new(Arc::new(Threads { idle }), options);
    Setup { lane: Lane::new(Model { writes: Arc::new(0), closed }, &lanes), done, results, closings }
}

const NEVER: Duration = Duration::ZERO;
/// Longer than the four seconds at which expectations are cut off, so that it always holds.
const ALWAYS: Duration = Duration::from_secs(3_600);

impl Setup {
    fn submitter(&self, by: u32, kinds: &'static [Kind], in_one_batch: bool) -> thread::JoinHandle<()> {
        let (lane, done) = (self.lane.clone(), self.done.clone());
        thread::spawn(move || {
            let jobs = kinds.iter().zip(0..).map(|(&kind, number)| Job { by, number, kind, done: done.clone() });
            if in_one_batch {
                let mut jobs = jobs.collect();
                if lane.submit_batch(&mut jobs).is_err() {
                    jobs.drain(..).for_each(|job| Model::refuse(job, Refusal::Closed));
                }
                return;
            }
            for job in jobs {
                let mut one = vec![job];
                if lane.submit_batch(&mut one).is_err() {
                    one.drain(..).for_each(|job| Model::refuse(job, Refusal::Closed));
                }
            }
        })
    }

    /// Waits for `count` results, and checks that each submitter's came in order.
    fn take(&self, count: usize) -> Vec<Done> {
        let results: Vec<Done> = (0..count).map(|_| self.results.recv().expect("a result")).collect();
        let mut next = [0u32; 4];
        for result in &results {
            if let Done::Ran(by, number, _) = *result {
                assert!(number >= next[by as usize], "jobs of one submitter stay in order: {results:?}");
                next[by as usize] = number + 1;
            }
        }
        results
    }
}

const WRITES: &[Kind] = &[Kind::Write, Kind::Write];
const MIXED: &[Kind] = &[Kind::Write, Kind::Read, Kind::Read, Kind::Write];

#[test]
fn submitting_from_two_threads_runs_each_job_once_and_in_order() {
    for (inline_max, turn_max) in [(NEVER, ALWAYS), (NEVER, NEVER), (ALWAYS, ALWAYS), (ALWAYS, NEVER)] {
        check(move || {
            let setup = setup(inline_max, turn_max, 0);
            let submitters = [setup.submitter(0, WRITES, false), setup.submitter(1, WRITES, true)];
            let results = setup.take(4);
            for submitter in submitters {
                submitter.join().expect("submitted");
            }
            let counts: Vec<u32> =
                results.iter().map(|done| if let Done::Ran(_, _, count) = done { *count } else { 0 }).collect();
            assert_eq!(counts, [1, 2, 3, 4], "writes run one at a time");
            assert!(setup.results.try_recv().is_err(), "nothing runs twice");
        });
    }
}

#[test]
fn reads_run_together_between_writes() {
    for turn_max in [NEVER, ALWAYS] {
        check(move || {
            let setup = setup(NEVER, turn_max, 2);
            let submitter = setup.submitter(0, MIXED, true);
            let other = setup.submitter(1, &[Kind::Read, Kind::Read], true);
            let results = setup.take(6);
            submitter.join().expect("submitted");
            other.join().expect("submitted");
            let mine: Vec<u32> = results
                .iter()
                .filter_map(|done| if let Done::Ran(0, _, count) = done { Some(*count) } else { None })
                .collect();
            assert_eq!(mine, [1, 1, 1, 2], "reads see the write before them and not the one after");
        });
    }
}

#[test]
fn a_lease_is_exclusive_and_the_lane_goes_on_after_it() {
    check(|| {
        let setup = setup(ALWAYS, ALWAYS, 0);
        let first = setup.submitter(0, WRITES, false);
        let (granted, leases) = mpsc::channel::<Option<Lease<Model>>>();
        setup.lane.lease(move |lease| granted.send(lease).expect("the model listens"));
        let second = setup.submitter(1, WRITES, true);
        let mut lease = leases.recv().expect("granted").expect("not closed");
        *Arc::get_mut(&mut lease.writes).expect("a lease is alone") += 10;
        drop(lease);
        setup.take(4);
        first.join().expect("submitted");
        second.join().expect("submitted");
    });
}

#[test]
fn closing_answers_every_job_once() {
    for inline_max in [NEVER, ALWAYS] {
        check(move || {
            let setup = setup(inline_max, ALWAYS, 1);
            let submitters = [setup.submitter(0, MIXED, true), setup.submitter(1, WRITES, false)];
            let lane = setup.lane.clone();
            let closer = thread::spawn(move || lane.close());
            setup.take(6);
            closer.join().expect("closed");
            assert_eq!(setup.closings.recv(), Ok(Refusal::Closed));
            for submitter in submitters {
                submitter.join().expect("submitted");
            }
            assert!(setup.lane.is_closed());
            assert!(setup.results.try_recv().is_err() && setup.closings.try_recv().is_err(), "answered once");
        });
    }
}

#[test]
fn a_panic_answers_every_other_job_once() {
    for inline_max in [NEVER, ALWAYS] {
        check(move || {
            let setup = setup(inline_max, ALWAYS, 1);
            let faulty = setup.submitter(0, &[Kind::Write, Kind::Panic, Kind::Read, Kind::Read], true);
            let other = setup.submitter(1, WRITES, false);
            // The job that panics answers nobody: whoever waits for it learns from its connection's end.
            setup.take(5);
            assert_eq!(setup.closings.recv(), Ok(Refusal::Faulted));
            faulty.join().expect("submitted");
            other.join().expect("submitted");
            assert!(setup.results.try_recv().is_err() && setup.closings.try_recv().is_err(), "answered once");
        });
    }
}

#[test]
fn replies_filled_by_two_threads_leave_in_order() {
    check(|| {
        let sequencer = Arc::new(Sequencer::default());
        let delivered = Arc::new(Mutex::new(Vec::new()));
        let places: Vec<_> = (0..4u32).map(|number| (number, sequencer.reserve())).collect();
        let threads: Vec<_> = [[3, 0], [1, 2]]
            .into_iter()
            .map(|mine| {
                let (sequencer, delivered, places) = (sequencer.clone(), delivered.clone(), places.clone());
                thread::spawn(move || {
                    for position in mine {
                        let (number, place) = places[position as usize];
                        sequencer.fill(place, number, |reply| delivered.lock().expect("sound").push(reply));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("filled");
        }
        assert_eq!(*delivered.lock().expect("sound"), [0, 1, 2, 3]);
    });
}

#[test]
fn a_committed_read_behind_a_commit_is_not_older() {
    check(|| {
        let horizon = Arc::new(Horizon::default());
        let published = Arc::new(Mutex::new(0u64));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let writer = {
            let (horizon, published, seen) = (horizon.clone(), published.clone(), seen.clone());
            thread::spawn(move || {
                for version in 1..=3 {
                    *published.lock().expect("sound") = version;
                    horizon.deliver(version, || seen.lock().expect("sound").push(version));
                }
            })
        };
        for _ in 0..2 {
            let latest = || (*published.lock().expect("sound"), ());
            let read = |(): &()| thread::yield_now();
            // Overtaken too often is an answer too: the read goes to the lane.
            let _ = horizon.read_committed(latest, read, |version, ()| seen.lock().expect("sound").push(version));
        }
        writer.join().expect("wrote");
        let seen = seen.lock().expect("sound");
        assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]), "{seen:?}");
    });
}
