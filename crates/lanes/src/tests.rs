use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use crate::{Executor, FixedPool, Lane, LaneOptions, Refusal, SubmitError, Worker};

enum Job {
    Note(u32),
    Panic,
}

struct Recorder {
    events: mpsc::Sender<Event>,
}

#[derive(Debug, PartialEq)]
enum Event {
    Ran(u32, String),
    Closed(Refusal),
}

impl Worker for Recorder {
    type Job = (Job, mpsc::Sender<Refusal>);

    fn run(&mut self, jobs: &mut VecDeque<Self::Job>) {
        while let Some((job, _)) = jobs.pop_front() {
            match job {
                Job::Note(number) => {
                    let thread = std::thread::current().name().unwrap_or("").to_owned();
                    self.events.send(Event::Ran(number, thread)).expect("the test listens");
                }
                Job::Panic => panic!("asked to"),
            }
        }
    }

    fn close(&mut self, refusal: Refusal) {
        self.events.send(Event::Closed(refusal)).expect("the test listens");
    }

    fn refuse((_, refused): Self::Job, refusal: Refusal) {
        refused.send(refusal).expect("the test listens");
    }
}

fn pool(threads: usize) -> Arc<FixedPool> {
    let spawn =
        |name: &str, run: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name.to_owned()).spawn(run);
    Arc::new(FixedPool::start("lane", threads, &spawn).expect("threads start"))
}

fn lane(executor: Arc<dyn Executor>, options: LaneOptions) -> (Lane<Recorder>, mpsc::Receiver<Event>) {
    let (events, received) = mpsc::channel();
    (Lane::new(Recorder { events }, executor, options), received)
}

const OPTIONS: LaneOptions = LaneOptions { queue_jobs_max: 100_000, inline_max: Duration::ZERO };
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn jobs_of_many_threads_run_once_and_in_each_threads_order() {
    let (lane, events) = lane(pool(2), OPTIONS);
    let (refused, _refusals) = mpsc::channel();
    let threads: Vec<_> = (0..4u32)
        .map(|thread| {
            let (lane, refused) = (lane.clone(), refused.clone());
            std::thread::spawn(move || {
                for number in 0..5_000 {
                    lane.submit((Job::Note(thread * 5_000 + number), refused.clone())).ok().expect("room");
                }
            })
        })
        .collect();
    let mut next = [0u32; 4];
    for _ in 0..20_000 {
        let Event::Ran(number, _) = events.recv_timeout(PATIENCE).expect("every job runs") else {
            panic!("not closed")
        };
        let thread = (number / 5_000) as usize;
        assert_eq!(number % 5_000, next[thread], "jobs of one thread stay in order");
        next[thread] += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().expect("submitter"));
    assert_eq!(lane.depth(), 0);
}

#[test]
fn short_work_on_an_idle_lane_runs_on_the_submitting_thread() {
    let (lane, events) = lane(pool(1), LaneOptions { inline_max: Duration::from_millis(100), ..OPTIONS });
    let (refused, _refusals) = mpsc::channel();
    lane.submit_batch(&mut vec![(Job::Note(1), refused.clone())]).expect("room");
    let here = std::thread::current().name().unwrap_or("").to_owned();
    assert_eq!(events.try_recv(), Ok(Event::Ran(1, here)));
    lane.submit((Job::Note(2), refused)).ok().expect("room");
    assert_eq!(events.recv_timeout(PATIENCE), Ok(Event::Ran(2, "lane-0".to_owned())));
}

#[test]
fn a_lease_stands_in_its_place_in_the_queue() {
    let (lane, events) = lane(pool(2), OPTIONS);
    let (refused, _refusals) = mpsc::channel();
    let (granted, leases) = mpsc::channel();
    lane.submit((Job::Note(1), refused.clone())).ok().expect("room");
    lane.lease(move |lease| granted.send(lease).expect("the test listens"));
    lane.submit((Job::Note(2), refused)).ok().expect("room");
    let lease = leases.recv_timeout(PATIENCE).expect("granted").expect("not closed");
    assert!(matches!(events.try_recv(), Ok(Event::Ran(1, _))), "what was queued before ran before");
    assert!(events.recv_timeout(Duration::from_millis(30)).is_err(), "what was queued after waits");
    drop(lease);
    assert!(matches!(events.recv_timeout(PATIENCE), Ok(Event::Ran(2, _))));
}

#[test]
fn a_full_queue_gives_the_job_back() {
    let (lane, _events) = lane(pool(1), LaneOptions { queue_jobs_max: 2, ..OPTIONS });
    let (refused, _refusals) = mpsc::channel();
    let (granted, leases) = mpsc::channel();
    lane.lease(move |lease| granted.send(lease).expect("the test listens"));
    let lease = leases.recv_timeout(PATIENCE).expect("granted");
    for number in 0..2 {
        lane.submit((Job::Note(number), refused.clone())).ok().expect("room");
    }
    assert!(matches!(lane.submit((Job::Note(3), refused.clone())), Err(SubmitError::Full((Job::Note(3), _)))));
    let mut batch = vec![(Job::Note(4), refused)];
    assert_eq!(lane.submit_batch(&mut batch), Err(SubmitError::Full(())));
    assert_eq!(batch.len(), 1, "a refused batch stays with the caller");
    drop(lease);
}

#[test]
fn closing_refuses_what_waits_and_closes_once() {
    let (lane, events) = lane(pool(1), OPTIONS);
    let (refused, refusals) = mpsc::channel();
    let (granted, leases) = mpsc::channel();
    lane.lease(move |lease| granted.send(lease).expect("the test listens"));
    let lease = leases.recv_timeout(PATIENCE).expect("granted").expect("not closed");
    lane.submit((Job::Note(1), refused.clone())).ok().expect("room");
    lane.close();
    lane.close();
    assert!(matches!(lane.submit((Job::Note(2), refused)), Err(SubmitError::Closed(_))));
    drop(lease);
    assert_eq!(refusals.recv_timeout(PATIENCE), Ok(Refusal::Closed));
    assert_eq!(events.recv_timeout(PATIENCE), Ok(Event::Closed(Refusal::Closed)));
    assert!(lane.is_closed());
    let (granted, leases) = mpsc::channel();
    lane.lease(move |lease| granted.send(lease.is_none()).expect("the test listens"));
    assert_eq!(leases.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn a_panic_faults_the_lane_and_answers_the_rest() {
    let (lane, events) = lane(pool(1), OPTIONS);
    let (refused, refusals) = mpsc::channel();
    lane.submit_batch(&mut vec![(Job::Panic, refused.clone()), (Job::Note(1), refused)]).expect("room");
    assert_eq!(refusals.recv_timeout(PATIENCE), Ok(Refusal::Faulted));
    assert_eq!(events.recv_timeout(PATIENCE), Ok(Event::Closed(Refusal::Faulted)));
}
