//! Ordered reads that run together: neighbours in the queue, one view, several threads.
//!
//! Threads enter, claim reads one after the other, and leave. The last one to leave after everything was claimed takes the worker,
//! gives it the answers in order, and goes on as the lane's runner: nobody waits for anybody.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crate::counters::nanoseconds;
use crate::lane::Inner;
use crate::run::Turn;
use crate::sync::{Mutex, Ordering};
use crate::{Refusal, Worker};

enum Read<W: Worker> {
    Waiting(W::Job),
    Claimed,
    Answered(W::Answer),
}

struct State<W: Worker> {
    reads: Vec<Read<W>>,
    /// Reads before this one are claimed.
    next: usize,
    /// Threads that have entered and not left.
    active: usize,
    /// Time spent reading, over all threads.
    run_ns: u64,
    faulted: bool,
    /// The worker and the group's hold of the view; `None` when the group is over.
    rest: Option<(Box<W>, Arc<W::View>)>,
}

pub(crate) struct Group<W: Worker> {
    lane: Arc<Inner<W>>,
    state: Mutex<State<W>>,
}

impl<W: Worker> Group<W> {
    /// Runs `jobs` on this thread and on idle ones of the executor. The lane's state is `Running` and stays so until the group is
    /// over. Returns the worker if the group ended here; otherwise another thread is the lane's runner now, or the lane faulted.
    pub fn run(lane: &Arc<Inner<W>>, mut worker: Box<W>, jobs: VecDeque<W::Job>, turn: Turn) -> Option<Box<W>> {
        let Ok(view) = catch_unwind(AssertUnwindSafe(|| worker.view())) else {
            jobs.into_iter().for_each(|job| W::refuse(job, Refusal::Faulted));
            lane.fault(worker);
            return None;
        };
        let helpers = lane.lanes.executor.idle_threads().min(jobs.len() - 1);
        lane.running.store(jobs.len() as u32, Ordering::Relaxed);
        let group = Arc::new(Group {
            lane: lane.clone(),
            state: Mutex::new(State {
                reads: jobs.into_iter().map(Read::Waiting).collect(),
                next: 0,
                active: 0,
                run_ns: 0,
                faulted: false,
                rest: Some((worker, Arc::new(view))),
            }),
        });
        for _ in 0..helpers {
            group.dispatch();
        }
        group.take_part(turn)
    }

    fn dispatch(self: &Arc<Self>) {
        let group = self.clone();
        let length = self.lane.lanes.options.turn_max;
        self.lane.lanes.executor.execute(Box::new(move || {
            let turn = Turn { began: Instant::now(), length, inline: false };
            if let Some(worker) = group.take_part(turn) {
                group.lane.run(worker, Turn { began: Instant::now(), ..turn });
            }
        }));
    }

    /// Claims reads until there are none or the turn is over. Returns the worker if that ended the group.
    fn take_part(self: &Arc<Self>, turn: Turn) -> Option<Box<W>> {
        let view = {
            let mut state = self.state.lock();
            // Whoever comes late finds nothing to do, and possibly not even a view.
            let (_, view) = state.rest.as_ref().filter(|_| state.next < state.reads.len())?;
            let view = view.clone();
            state.active += 1;
            view
        };
        let mut now = Instant::now();
        let mut has_read = false;
        let mut answered: Option<(usize, Option<W::Answer>, u64)> = None;
        loop {
            let (number, job) = {
                let mut state = self.state.lock();
                if let Some((number, answer, run_ns)) = answered.take() {
                    state.run_ns += run_ns;
                    match answer {
                        Some(answer) => state.reads[number] = Read::Answered(answer),
                        None => {
                            // What is not claimed yet is refused by whoever ends the group.
                            state.faulted = true;
                            state.next = state.reads.len();
                        }
                    }
                }
                let number = state.next;
                // Nobody leaves without having read anything, or a turn that is too short would be passed around for ever.
                if number == state.reads.len() || has_read && self.lane.is_over(&turn, now) {
                    drop(view);
                    state.active -= 1;
                    if state.active > 0 {
                        return None;
                    }
                    let is_done = number == state.reads.len();
                    drop(state);
                    if is_done {
                        return self.finish();
                    }
                    self.dispatch();
                    return None;
                }
                state.next += 1;
                let Read::Waiting(job) = std::mem::replace(&mut state.reads[number], Read::Claimed) else {
                    unreachable!("a read is claimed once");
                };
                (number, job)
            };
            let answer = catch_unwind(AssertUnwindSafe(|| W::read(&view, job))).ok();
            let ended = Instant::now();
            has_read = true;
            answered = Some((number, answer, nanoseconds(ended - now)));
            now = ended;
        }
    }

    /// Ends the group: everything is claimed and nobody is inside, nor can anybody come in.
    fn finish(&self) -> Option<Box<W>> {
        let (reads, rest, run_ns, faulted) = {
            let mut state = self.state.lock();
            let rest = state.rest.take().expect("only the last one out ends the group");
            (std::mem::take(&mut state.reads), rest, state.run_ns, state.faulted)
        };
        let (mut worker, view) = rest;
        assert!(Arc::into_inner(view).is_some(), "the view is given back before the next write");
        let lane = &self.lane;
        lane.running.store(0, Ordering::Relaxed);
        lane.lanes.counters.ran_together(reads.len(), run_ns);
        lane.learn(0, reads.len(), run_ns);
        let mut answers = Vec::with_capacity(reads.len());
        for read in reads {
            match read {
                Read::Waiting(job) => W::refuse(job, Refusal::Faulted),
                Read::Answered(answer) => answers.push(answer),
                Read::Claimed => assert!(faulted, "a claimed read has an answer when nobody is inside"),
            }
        }
        if faulted || catch_unwind(AssertUnwindSafe(|| worker.finish(answers))).is_err() {
            lane.fault(worker);
            return None;
        }
        Some(worker)
    }
}
