//! The runner: the one thread that has a lane's worker at a time, and what it does in its turn.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::counters::nanoseconds;
use crate::group::Group;
use crate::lane::{Entry, Inner, Queue, State};
use crate::sync::{MutexGuard, Ordering};
use crate::{Class, Lease, Refusal, Sabotage, Worker};

/// Jobs handed to the worker in one call. Long enough to share the cost of the worker's per-batch work (publishing, flushing
/// replies), short enough that the first reply of a batch of 10 us jobs waits well under a millisecond.
pub(crate) const BATCH_JOBS_MAX: usize = 64;

/// A runner's time with a lane.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    pub began: Instant,
    pub length: Duration,
    /// On the submitting thread: when the turn is over the lane goes to the executor, whether somebody waits there or not.
    pub inline: bool,
}

/// What to do next.
enum Next<W: Worker> {
    Batch,
    Together,
    Lease(Box<dyn FnOnce(Option<Lease<W>>) + Send>),
    Nothing,
}

/// Jobs taken from the queue.
struct Taken<W: Worker> {
    jobs: VecDeque<W::Job>,
    reads: usize,
    expired: Vec<W::Job>,
}

impl<W: Worker> Inner<W> {
    pub fn dispatch(self: &Arc<Self>) {
        let inner = self.clone();
        self.lanes.executor.execute(Box::new(move || {
            let worker = inner.queue.lock().worker.take().expect("a lane that is to run holds its worker");
            let turn = Turn { began: Instant::now(), length: inner.lanes.options.turn_max, inline: false };
            inner.run(worker, turn);
        }));
    }

    /// Runs jobs that never were in the queue. The state is `Running`.
    pub fn run_inline(self: &Arc<Self>, mut worker: Box<W>, jobs: &mut Vec<W::Job>) {
        let turn = Turn { began: Instant::now(), length: self.lanes.options.inline_max, inline: true };
        // Both conversions keep the allocation.
        let mut batch = VecDeque::from(std::mem::take(jobs));
        sabotage(self.lanes.options.sabotage, &mut batch, |job| W::class(job) == Class::Read);
        let reads = batch.iter().filter(|job| W::class(job) == Class::Read).count();
        let ended = self.run_batch(&mut worker, &mut batch, reads, turn.began, true);
        *jobs = Vec::from(batch);
        match ended {
            Some(now) if now - turn.began < turn.length => self.run(worker, turn),
            Some(_) => self.end_turn(worker),
            None => self.fault(worker),
        }
    }

    /// Runs batches until the queue is empty, the turn is over, or the worker goes to a lease or a group of reads.
    pub fn run(self: &Arc<Self>, mut worker: Box<W>, turn: Turn) {
        let mut taken = Taken { jobs: VecDeque::new(), reads: 0, expired: Vec::new() };
        let mut now = turn.began;
        loop {
            let next = {
                let mut queue = self.queue.lock();
                assert_eq!(queue.state, State::Running, "only the runner changes the state of a running lane");
                if queue.closing.is_some() {
                    return self.finish_closing(queue, worker);
                }
                let next = self.take(&mut queue, &mut taken, &turn, now);
                match next {
                    Next::Nothing if taken.expired.is_empty() => return queue.rest(worker),
                    Next::Lease(_) => queue.state = State::Leased,
                    _ => {}
                }
                next
            };
            if !taken.expired.is_empty() {
                self.lanes.counters.expired(taken.expired.len());
                taken.expired.drain(..).for_each(|job| W::refuse(job, Refusal::Expired));
            }
            let ended = match next {
                Next::Nothing => continue,
                Next::Lease(granted) => return granted(Some(Lease::new(worker, self.clone()))),
                Next::Together => match Group::run(self, worker, std::mem::take(&mut taken.jobs), turn) {
                    None => return,
                    Some(returned) => {
                        worker = returned;
                        Some(Instant::now())
                    }
                },
                Next::Batch => self.run_batch(&mut worker, &mut taken.jobs, taken.reads, now, turn.inline),
            };
            match ended {
                None => return self.fault(worker),
                Some(ended) => now = ended,
            }
            if self.is_over(&turn, now) {
                return self.end_turn(worker);
            }
        }
    }

    pub fn is_over(&self, turn: &Turn, now: Instant) -> bool {
        now - turn.began >= turn.length && (turn.inline || self.lanes.executor.is_waited_for())
    }

    /// Queues the lane behind the others on the executor.
    fn end_turn(self: &Arc<Self>, worker: Box<W>) {
        self.queue.lock().worker = Some(worker);
        self.dispatch();
    }

    /// Takes what comes next from the queue.
    fn take(&self, queue: &mut Queue<W>, taken: &mut Taken<W>, turn: &Turn, now: Instant) -> Next<W> {
        taken.reads = 0;
        let now_ns = self.lanes.since_began_ns(now);
        let (mut wait_ns, mut left) = (0u64, 0usize);
        // Whether the reads are to run together, and whether that was asked about the present run of reads.
        let (mut together, mut judged) = (false, false);
        while taken.jobs.len() < BATCH_JOBS_MAX {
            let is_read = match queue.entries.front() {
                Some(Entry::Job { job, .. }) => W::class(job) == Class::Read,
                Some(Entry::Lease(_)) | None => break,
            };
            if together && !is_read {
                break;
            }
            if is_read && !judged && self.pays_together(queue, turn) {
                if !taken.jobs.is_empty() {
                    break;
                }
                together = true;
            }
            judged = is_read;
            let Some(Entry::Job { job, queued_ns }) = queue.entries.pop_front() else { break };
            queue.bytes -= W::bytes(&job);
            wait_ns += now_ns.saturating_sub(queued_ns);
            left += 1;
            if W::deadline(&job).is_some_and(|deadline| deadline <= now) {
                taken.expired.push(job);
                continue;
            }
            taken.reads += usize::from(is_read);
            taken.jobs.push_back(job);
        }
        if left > 0 {
            self.lanes.counters.left_queue(left, wait_ns);
        }
        if self.lanes.options.sabotage != Sabotage::None {
            sabotage(self.lanes.options.sabotage, &mut taken.jobs, |job| W::class(job) == Class::Read);
            taken.reads = taken.jobs.iter().filter(|job| W::class(job) == Class::Read).count();
        }
        if taken.jobs.is_empty() {
            return match queue.entries.front() {
                Some(Entry::Lease(_)) if taken.expired.is_empty() => match queue.entries.pop_front() {
                    Some(Entry::Lease(granted)) => Next::Lease(granted),
                    _ => unreachable!("the front was a lease"),
                },
                _ => Next::Nothing,
            };
        }
        assert!(!together || taken.reads == taken.jobs.len(), "only reads run together");
        if together && taken.jobs.len() > 1 { Next::Together } else { Next::Batch }
    }

    /// Whether the reads at the front of the queue take long enough to be worth several threads, and there are such.
    fn pays_together(&self, queue: &Queue<W>, turn: &Turn) -> bool {
        let read_ns = u64::from(self.read_ns.load(Ordering::Relaxed));
        let needed_ns = nanoseconds(self.lanes.options.together_min);
        if turn.inline || read_ns.saturating_mul(BATCH_JOBS_MAX as u64) < needed_ns {
            return false;
        }
        let is_read = |entry: &&Entry<W>| matches!(entry, Entry::Job { job, .. } if W::class(job) == Class::Read);
        let reads = queue.entries.iter().take(BATCH_JOBS_MAX).take_while(is_read).count() as u64;
        reads > 1 && reads * read_ns >= needed_ns && self.lanes.executor.idle_threads() > 0
    }

    /// Returns when the batch ended, or `None` when a job panicked. Jobs of the batch that did not run are then refused.
    fn run_batch(
        &self,
        worker: &mut W,
        batch: &mut VecDeque<W::Job>,
        reads: usize,
        began: Instant,
        inline: bool,
    ) -> Option<Instant> {
        let jobs = batch.len();
        self.running.store(jobs as u32, Ordering::Relaxed);
        let sound = catch_unwind(AssertUnwindSafe(|| worker.run(batch))).is_ok();
        let ended = Instant::now();
        self.running.store(0, Ordering::Relaxed);
        self.learn(jobs - reads, reads, nanoseconds(ended - began));
        self.lanes.counters.ran(jobs, ended - began, inline);
        if sound {
            assert!(batch.is_empty(), "a worker runs every job of its batch");
            return Some(ended);
        }
        batch.drain(..).for_each(|job| W::refuse(job, Refusal::Faulted));
        None
    }

    /// Moves the averages towards what a batch took; a mixed batch is shared out in proportion to what was expected.
    pub fn learn(&self, writes: usize, reads: usize, elapsed_ns: u64) {
        let write_ns = u64::from(self.write_ns.load(Ordering::Relaxed)).max(1);
        let read_ns = u64::from(self.read_ns.load(Ordering::Relaxed)).max(1);
        let expected_ns = (writes as u64 * write_ns).saturating_add(reads as u64 * read_ns).max(1);
        for (count, average, known_ns) in [(writes, &self.write_ns, write_ns), (reads, &self.read_ns, read_ns)] {
            if count > 0 {
                let sample_ns = (u128::from(elapsed_ns) * u128::from(known_ns) / u128::from(expected_ns)) as u64;
                let moved_ns = known_ns - known_ns / 8 + sample_ns / 8;
                average.store(u32::try_from(moved_ns).unwrap_or(u32::MAX), Ordering::Relaxed);
            }
        }
    }

    /// Closes the lane because a job panicked.
    pub fn fault(self: &Arc<Self>, worker: Box<W>) {
        let mut queue = self.queue.lock();
        queue.closing = Some(Refusal::Faulted);
        self.finish_closing(queue, worker);
    }

    pub fn finish_closing(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue<W>>, mut worker: Box<W>) {
        let refusal = queue.closing.take().expect("closing was asked for");
        queue.state = State::Closed(refusal);
        queue.bytes = 0;
        let entries = std::mem::take(&mut queue.entries);
        drop(queue);
        let jobs = entries.iter().filter(|entry| matches!(entry, Entry::Job { .. })).count();
        self.lanes.counters.left_queue(jobs, 0);
        for entry in entries {
            match entry {
                Entry::Job { job, .. } => W::refuse(job, refusal),
                Entry::Lease(granted) => granted(None),
            }
        }
        // After a fault the worker's own close may panic again; the lane is closed either way.
        let _ = catch_unwind(AssertUnwindSafe(move || {
            worker.close(refusal);
            drop(worker);
        }));
    }
}

/// Breaks the order if a test asked for it.
fn sabotage<Job>(sabotage: Sabotage, jobs: &mut VecDeque<Job>, is_read: impl Fn(&Job) -> bool) {
    match sabotage {
        Sabotage::None => {}
        Sabotage::SwapNeighbours => {
            if jobs.len() > 1 {
                jobs.swap(0, 1);
            }
        }
        Sabotage::HoistReads => jobs.make_contiguous().sort_by_key(|job| !is_read(job)),
        Sabotage::LoseJobs => {
            if jobs.len() > 2 {
                jobs.remove(1);
            }
        }
    }
}
