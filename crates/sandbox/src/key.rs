//! One key: its worker, the callers who wait for it, and the requests it works on.
//!
//! A caller holds a *ticket* from its question to its answer. All tickets of a key, its queue and the book of its worker's slots are
//! under one lock, held for moments; nobody waits for anything while holding it, and wakers are called after it.
//!
//! ```text
//! Queued -> Granted -> Posted -> Finished -> (gone)
//!    |         |          |  \
//!    v         v          v   -> Abandoned, when its caller is gone, until the worker is done with it
//!  Failed    Failed     Failed
//! ```
//!
//! Invariants:
//! - A slot is in use exactly as long as a ticket holds its grant: Granted, Posted, Finished or Abandoned.
//! - A worker that is closed for whatever reason settles all its tickets at once: done, guilty (begun), or a bystander (not begun).
//!   A bystander may be tried again, but then it runs alone, so that a second death has one possible cause.
//! - Lock order: pool's keys, key, pool's spares.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tine_base::slots::{Exchange, Incoming, Notify, Place, SLOTS_MAX, Seen, SlotTable, Turn};

use crate::error::{CallError, Death, KillCause, LaunchError};
use crate::metrics::add;
use crate::pool::{PoolShared, WorkerKey};
use crate::process::{Process, WorkerId};
use crate::sandbox::Order;
use crate::tickets::{Ticket, TicketId, Tickets};

/// First wait after workers of a key kept dying or could not be launched; doubled each time.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest such wait: an operator who repaired something should not wait longer to see it work.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Deaths without an answer before callers are refused: the first may be bad luck.
const DEATHS_FORGIVEN: u32 = 1;
/// Large requests are held back while others have so many bytes of the arena: enough to keep a worker busy, and little enough to stay
/// in the caches of both sides, which is worth more than being posted early.
const WARM_BYTES: u32 = 256 << 10;
/// A worker that gets so many requests between two looks of the supervisor is hot: that is one every 150 us.
const HOT_REQUESTS: u64 = 64;
/// A request that is done but was not announced is given this long past its deadline.
const DONE_GRACE: Duration = Duration::from_millis(200);

/// A worker's slot, held for one request.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) process: Arc<Process>,
    pub(crate) place: Place,
    pub(crate) generation: u32,
}

/// A reply that waits to be copied: where it is, and what the worker claims about it.
pub(crate) type Replied = (Grant, Exchange, Incoming);

/// Why a ticket failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Final(CallError),
    /// The worker was closed before it began this request.
    Bystander(Death),
}

#[derive(Debug)]
pub(crate) enum Stage {
    Queued,
    Granted(Grant),
    Posted(Grant),
    Abandoned(Grant),
    Finished(Grant, Exchange, Incoming),
    Failed(Failure),
}

#[derive(Debug)]
enum Phase {
    Idle,
    Launching,
    Ready(Arc<Process>),
    Closed,
}

#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) id: WorkerKey,
    pub(crate) pool: Arc<PoolShared>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    queue: VecDeque<TicketId>,
    tickets: Tickets,
    table: SlotTable,
    /// The ticket of each slot in use.
    flights: [Option<TicketId>; SLOTS_MAX as usize],
    generation: u32,
    /// The request at work has been a bystander: nobody runs beside it.
    is_alone: bool,
    last_used: Instant,
    /// When the first caller asked for the present worker, until its first reply.
    wanted_since: Option<Instant>,
    failures: Failures,
    tally: Tally,
}

/// What was counted since the last flush. Counters shared by all keys would bounce between cores several times per call.
#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    /// Requests posted that nobody attends.
    unattended: u64,
    granted_at_once: u64,
    in_flight: i64,
    in_flight_bytes: i64,
    abandoned_slots: i64,
}

#[derive(Debug, Default)]
struct Failures {
    /// Workers in a row that ended without a reply.
    count: u32,
    refusing: Option<(Instant, LaunchError)>,
}

/// What must be woken once the lock is released.
type Wakes = Vec<Waker>;

impl Key {
    pub(crate) fn new(id: WorkerKey, pool: Arc<PoolShared>) -> Key {
        let inner = Inner {
            phase: if pool.sandbox.is_stopping.load(Ordering::SeqCst) { Phase::Closed } else { Phase::Idle },
            queue: VecDeque::new(),
            tickets: Tickets::default(),
            table: SlotTable::new(pool.options.shape),
            flights: [None; SLOTS_MAX as usize],
            generation: 0,
            is_alone: false,
            last_used: Instant::now(),
            wanted_since: None,
            failures: Failures::default(),
            tally: Tally::default(),
        };
        Key { id, pool, inner: Mutex::new(inner) }
    }

    /// Asks for a slot. The ticket has its grant already when one is free.
    pub(crate) fn enqueue(self: &Arc<Self>, ticket: Ticket) -> Result<(TicketId, Option<Grant>), CallError> {
        let mut inner = self.inner.lock();
        if matches!(inner.phase, Phase::Closed) {
            return Err(CallError::Cancelled(KillCause::ShutDown));
        }
        if !ticket.is_alone {
            self.refuse_early(&mut inner, ticket.asked_at)?;
        }
        let is_alone = ticket.is_alone;
        let mut is_for_supervisor = inner.tickets.is_empty() && self.pool.sandbox.key_is_busy();
        let id = inner.tickets.insert(ticket);
        match is_alone {
            true => inner.queue.push_front(id),
            false => inner.queue.push_back(id),
        }
        match inner.phase {
            Phase::Idle => is_for_supervisor |= self.launch(&mut inner),
            Phase::Launching => add(&self.pool.sandbox.metrics.waiters_coalesced, 1),
            Phase::Ready(_) | Phase::Closed => {}
        }
        let mut wakes = Wakes::new();
        self.grant(&mut inner, &mut wakes);
        let grant = match &inner.tickets.get(id).stage {
            Stage::Granted(grant) => Some(grant.clone()),
            _ => None,
        };
        inner.tally.granted_at_once += u64::from(grant.is_some());
        wake(inner, wakes);
        // Not under the lock: the supervisor may take this thread's core, and everybody else who comes would wait for that, too.
        if is_for_supervisor {
            self.pool.sandbox.bell.ring();
        }
        Ok((id, grant))
    }

    fn refuse_early(&self, inner: &mut Inner, now: Instant) -> Result<(), CallError> {
        if let Some((until, error)) = &inner.failures.refusing
            && now < *until
            && matches!(inner.phase, Phase::Idle)
        {
            return Err(CallError::Launch { error: error.clone(), retry_after: *until - now });
        }
        if inner.queue.len() >= self.pool.options.queue_max {
            return Err(CallError::Overloaded);
        }
        Ok(())
    }

    /// Takes a spare or orders a worker, unless it is too early after a failure. `true`: there is an order, ring the supervisor's bell.
    #[must_use]
    fn launch(self: &Arc<Self>, inner: &mut Inner) -> bool {
        let now = Instant::now();
        if inner.failures.refusing.as_ref().is_some_and(|(until, _)| now < *until) {
            return false;
        }
        inner.wanted_since = Some(now);
        let spare = self.pool.take_spare();
        let is_ordered = spare.is_none();
        match spare {
            Some(process) => self.attach_locked(inner, process),
            None => {
                inner.phase = Phase::Launching;
                self.pool.sandbox.orders.lock().push(Order::Launch { key: self.clone(), at: now });
            }
        }
        is_ordered
    }

    /// Gives this key the worker that was launched for it. `false`: it no longer wants one.
    pub(crate) fn attach(self: &Arc<Self>, process: Arc<Process>) -> bool {
        let mut inner = self.inner.lock();
        if !matches!(inner.phase, Phase::Launching) {
            return false;
        }
        self.attach_locked(&mut inner, process);
        let mut wakes = Wakes::new();
        self.grant(&mut inner, &mut wakes);
        wake(inner, wakes);
        true
    }

    fn attach_locked(self: &Arc<Self>, inner: &mut Inner, process: Arc<Process>) {
        process.key.set(self.clone()).expect("a worker never changes its key");
        inner.table = SlotTable::new(process.end.shape());
        inner.phase = Phase::Ready(process);
        inner.last_used = Instant::now();
    }

    /// Grants slots to those who wait, as far as there are any.
    fn grant(&self, inner: &mut Inner, wakes: &mut Wakes) {
        while let Phase::Ready(process) = &inner.phase
            && let Some(&id) = inner.queue.front()
        {
            let ticket = inner.tickets.get_mut(id);
            if inner.is_alone || (ticket.is_alone && inner.table.in_use() > 0) {
                break;
            }
            if ticket.bytes > self.pool.options.shape.slot_bytes() && inner.table.arena_bytes_in_use() >= WARM_BYTES {
                break;
            }
            let Some(place) = inner.table.take(ticket.bytes) else { break };
            inner.queue.pop_front();
            inner.is_alone = ticket.is_alone;
            inner.generation = inner.generation.wrapping_add(1);
            inner.flights[place.slot as usize] = Some(id);
            ticket.stage = Stage::Granted(Grant { process: process.clone(), place, generation: inner.generation });
            if let Some(waker) = ticket.waker.take() {
                self.pool.sandbox.metrics.queue_wait.record(ticket.asked_at.elapsed());
                wakes.push(waker);
            }
        }
    }

    /// Whether the ticket has its grant.
    pub(crate) fn poll_grant(&self, id: TicketId, waker: &Waker) -> Poll<Result<Grant, Failure>> {
        let mut inner = self.inner.lock();
        let ticket = inner.tickets.get_mut(id);
        match &ticket.stage {
            Stage::Granted(grant) => Poll::Ready(Ok(grant.clone())),
            Stage::Queued => {
                ticket.wake_later(waker);
                Poll::Pending
            }
            Stage::Failed(_) => Poll::Ready(Err(self.take_failure(&mut inner, id))),
            stage => unreachable!("a ticket that waits for a grant is {stage:?}"),
        }
    }

    /// Posts the request that was written to the granted slot.
    pub(crate) fn post(
        &self,
        id: TicketId,
        grant: &Grant,
        exchange: Exchange,
        notify: Notify,
        waker: Option<&Waker>,
    ) -> Result<(), Failure> {
        let mut inner = self.inner.lock();
        let ticket = inner.tickets.get_mut(id);
        match std::mem::replace(&mut ticket.stage, Stage::Queued) {
            Stage::Granted(held) => {
                ticket.stage = Stage::Posted(held);
                ticket.exchange = exchange;
                ticket.is_attended = notify == Notify::Attended;
                ticket.waker = waker.cloned();
                // Under the lock, so that whoever closes the worker finds either no post or a request that was not begun.
                grant.process.end.prepare(grant.place, grant.generation, exchange, notify);
            }
            Stage::Failed(failure) => {
                self.remove(&mut inner, id);
                return Err(failure);
            }
            stage => unreachable!("a ticket that was granted a slot is {stage:?}"),
        }
        inner.tally.unattended += u64::from(notify == Notify::Event);
        inner.tally.in_flight += 1;
        inner.tally.in_flight_bytes += i64::from(grant.place.bytes);
        drop(inner);
        // Outside of the lock, since it may wake a process.
        grant.process.end.submit(grant.place.slot);
        Ok(())
    }

    /// Whether the reply is there. It must be [released](Key::release) once it was copied.
    pub(crate) fn poll_reply(&self, id: TicketId, waker: Option<&Waker>) -> Poll<Result<Replied, Failure>> {
        self.reply_of(&mut self.inner.lock(), id, waker)
    }

    /// The worker says that an attended request is done; its reply, as [`Key::poll_reply`] has it.
    pub(crate) fn attended_done(&self, id: TicketId) -> Poll<Result<Replied, Failure>> {
        let mut inner = self.inner.lock();
        let mut wakes = Wakes::new();
        if let Stage::Posted(grant) = &inner.tickets.get(id).stage {
            let (process, slot) = (grant.process.clone(), grant.place.slot);
            self.complete(&mut inner, &process, slot, &mut wakes);
        }
        let replied = self.reply_of(&mut inner, id, None);
        wake(inner, wakes);
        replied
    }

    fn reply_of(&self, inner: &mut Inner, id: TicketId, waker: Option<&Waker>) -> Poll<Result<Replied, Failure>> {
        let ticket = inner.tickets.get_mut(id);
        match &ticket.stage {
            Stage::Finished(grant, exchange, incoming) => Poll::Ready(Ok((grant.clone(), *exchange, *incoming))),
            Stage::Failed(_) => Poll::Ready(Err(self.take_failure(inner, id))),
            Stage::Posted(_) => {
                if let Some(waker) = waker {
                    ticket.wake_later(waker);
                }
                Poll::Pending
            }
            stage => unreachable!("a ticket that was posted is {stage:?}"),
        }
    }

    /// The worker claims that the requests in these slots are done.
    pub(crate) fn completed(&self, process: &Arc<Process>, bits: u64) {
        let mut inner = self.inner.lock();
        if !inner.is_current(process.id) {
            return;
        }
        let mut wakes = Wakes::with_capacity(bits.count_ones() as usize);
        self.complete_all(&mut inner, process, bits, &mut wakes);
        wake(inner, wakes);
    }

    fn complete_all(&self, inner: &mut Inner, process: &Arc<Process>, bits: u64, wakes: &mut Wakes) {
        let mut left = bits;
        while left != 0 && inner.is_current(process.id) {
            let slot = left.trailing_zeros();
            left &= left - 1;
            self.complete(inner, process, slot, wakes);
        }
    }

    /// Settles one slot that the worker claims is done, or closes a worker that lies.
    fn complete(&self, inner: &mut Inner, process: &Arc<Process>, slot: u32, wakes: &mut Wakes) {
        let flight = inner.flights.get(slot as usize).copied().flatten();
        let Some(id) = flight else {
            return self.close_locked(inner, Death::Killed(KillCause::Protocol), wakes);
        };
        match harvest(process, inner.tickets.get(id)) {
            Harvest::Done(incoming) => {
                self.note_reply(inner);
                self.finish(inner, id, incoming, wakes);
            }
            Harvest::Settled | Harvest::NotBegun | Harvest::Begun | Harvest::Garbage => {
                self.close_locked(inner, Death::Killed(KillCause::Protocol), wakes);
            }
        }
    }

    /// The worker answered: it is of use.
    fn note_reply(&self, inner: &mut Inner) {
        inner.failures = Failures::default();
        if let Some(since) = inner.wanted_since.take() {
            self.pool.sandbox.metrics.first_reply.record(since.elapsed());
        }
    }

    fn finish(&self, inner: &mut Inner, id: TicketId, incoming: Incoming, wakes: &mut Wakes) {
        inner.landed(id);
        let ticket = inner.tickets.get_mut(id);
        match std::mem::replace(&mut ticket.stage, Stage::Queued) {
            Stage::Posted(grant) => {
                ticket.stage = Stage::Finished(grant, ticket.exchange, incoming);
                wakes.extend(ticket.waker.take());
            }
            Stage::Abandoned(grant) => {
                ticket.stage = Stage::Abandoned(grant);
                self.release_locked(inner, id, wakes);
            }
            stage => unreachable!("a request that is done was {stage:?}"),
        }
    }

    /// Gives back a ticket whose reply was copied, and its slot.
    pub(crate) fn release(&self, id: TicketId) {
        let mut inner = self.inner.lock();
        inner.tally.requests += 1;
        let mut wakes = Wakes::new();
        self.release_locked(&mut inner, id, &mut wakes);
        wake(inner, wakes);
    }

    fn release_locked(&self, inner: &mut Inner, id: TicketId, wakes: &mut Wakes) {
        let ticket = self.remove(inner, id);
        let grant = match ticket.stage {
            Stage::Granted(grant) | Stage::Posted(grant) | Stage::Abandoned(grant) | Stage::Finished(grant, ..) => {
                grant
            }
            Stage::Queued | Stage::Failed(_) => return,
        };
        inner.free(&grant, ticket.is_alone, ticket.asked_at);
        self.grant(inner, wakes);
    }

    fn remove(&self, inner: &mut Inner, id: TicketId) -> Ticket {
        let ticket = inner.tickets.remove(id);
        if inner.tickets.is_empty() {
            self.pool.sandbox.key_is_quiet();
        }
        ticket
    }

    fn take_failure(&self, inner: &mut Inner, id: TicketId) -> Failure {
        match self.remove(inner, id).stage {
            Stage::Failed(failure) => failure,
            stage => unreachable!("a failed ticket is {stage:?}"),
        }
    }

    /// The caller is gone. Its neighbours notice nothing; a request that was begun keeps its slot until the worker is done with it.
    pub(crate) fn abandon(&self, id: TicketId) {
        let mut inner = self.inner.lock();
        let ticket = inner.tickets.get_mut(id);
        let mut wakes = Wakes::new();
        match &ticket.stage {
            Stage::Queued => {
                inner.queue.retain(|&queued| queued != id);
                self.remove(&mut inner, id);
            }
            Stage::Posted(grant) if grant.process.end.withdraw(grant.place.slot, grant.generation) => {
                inner.landed(id);
                self.release_locked(&mut inner, id, &mut wakes);
            }
            Stage::Posted(_) if ticket.is_attended => {
                // The worker may wait for an answer that nobody will give.
                self.close_locked(&mut inner, Death::Killed(KillCause::Aborted), &mut wakes);
                self.remove(&mut inner, id);
            }
            Stage::Posted(grant) => {
                ticket.stage = Stage::Abandoned(grant.clone());
                ticket.waker = None;
                add(&self.pool.sandbox.metrics.abandoned, 1);
                inner.tally.abandoned_slots += 1;
            }
            Stage::Granted(_) | Stage::Finished(..) | Stage::Failed(_) => {
                self.release_locked(&mut inner, id, &mut wakes);
            }
            Stage::Abandoned(_) => unreachable!("a caller goes away once"),
        }
        wake(inner, wakes);
    }

    /// Closes the worker a caller found guilty; its own ticket fails with the others that were begun.
    pub(crate) fn close(&self, worker: WorkerId, death: Death) {
        let mut inner = self.inner.lock();
        if inner.is_current(worker) {
            let mut wakes = Wakes::new();
            self.close_locked(&mut inner, death, &mut wakes);
            wake(inner, wakes);
        }
    }

    /// Settles everything that the worker holds, kills it if it lives, and starts the next one if somebody waits.
    fn close_locked(&self, inner: &mut Inner, death: Death, wakes: &mut Wakes) {
        let Phase::Ready(process) = std::mem::replace(&mut inner.phase, Phase::Idle) else {
            unreachable!("only a worker that is ready can be closed")
        };
        if let Death::Killed(cause) = death {
            process.kill(cause);
        }
        inner.is_alone = false;
        for flight in std::mem::replace(&mut inner.flights, [None; SLOTS_MAX as usize]).into_iter().flatten() {
            let harvested = harvest(&process, inner.tickets.get(flight));
            match harvested {
                Harvest::Done(incoming) => {
                    self.note_reply(inner);
                    self.finish(inner, flight, incoming, wakes);
                }
                Harvest::Settled => {}
                Harvest::NotBegun | Harvest::Begun | Harvest::Garbage => {
                    wakes.extend(self.fail_flight(inner, flight, verdict(&harvested, death)));
                }
            }
        }
        inner.note_end(death);
    }

    /// Fails a request whose worker is closed.
    fn fail_flight(&self, inner: &mut Inner, id: TicketId, failure: Failure) -> Option<Waker> {
        inner.landed(id);
        let ticket = inner.tickets.get_mut(id);
        if let (Stage::Posted(grant), true) = (&ticket.stage, ticket.is_attended) {
            grant.process.end.close(grant.place.slot, grant.generation);
        }
        if matches!(ticket.stage, Stage::Abandoned(_)) {
            self.remove(inner, id);
            return None;
        }
        ticket.stage = Stage::Failed(failure);
        ticket.waker.take()
    }

    /// The worker process has ended.
    pub(crate) fn ended(self: &Arc<Self>, worker: WorkerId, death: Death) {
        let mut inner = self.inner.lock();
        let mut wakes = Wakes::new();
        if inner.is_current(worker) {
            self.close_locked(&mut inner, death, &mut wakes);
        }
        self.launch_if_wanted(&mut inner);
        self.grant(&mut inner, &mut wakes);
        wake(inner, wakes);
    }

    fn launch_if_wanted(self: &Arc<Self>, inner: &mut Inner) {
        if matches!(inner.phase, Phase::Idle) && !inner.queue.is_empty() && self.launch(inner) {
            self.pool.sandbox.bell.ring();
        }
    }

    /// No worker could be launched: those who wait are told, and so is, for a while, who comes later.
    pub(crate) fn launch_failed(&self, error: &LaunchError) {
        let mut inner = self.inner.lock();
        if !matches!(inner.phase, Phase::Launching) {
            return;
        }
        inner.phase = Phase::Idle;
        let retry_after = inner.failures.note(error.clone());
        let mut wakes = Vec::new();
        for id in std::mem::take(&mut inner.queue) {
            let ticket = inner.tickets.get_mut(id);
            ticket.stage = Stage::Failed(Failure::Final(CallError::Launch { error: error.clone(), retry_after }));
            wakes.extend(ticket.waker.take());
        }
        wake(inner, wakes);
    }

    /// Fails what is over its deadline. A worker that works on such a request is killed, and so is one that takes up none.
    pub(crate) fn check_deadlines(self: &Arc<Self>, now: Instant) {
        let mut inner = self.inner.lock();
        let is_hot = inner.tally.unattended >= HOT_REQUESTS;
        self.flush(&mut inner);
        let mut wakes = Vec::new();
        if let Phase::Ready(process) = &inner.phase {
            process.set_hot(is_hot);
            // Whoever waits for the event may be late itself.
            let process = process.clone();
            let bits = process.end.take_completed();
            self.complete_all(&mut inner, &process, bits, &mut wakes);
        }
        let late: Vec<TicketId> = inner.tickets.late(now).collect();
        for id in late {
            // Closing the worker for one of them settles others.
            let Some(ticket) = inner.tickets.find_mut(id) else { continue };
            match &ticket.stage {
                Stage::Queued => {
                    add(&self.pool.sandbox.metrics.timeouts, 1);
                    ticket.stage = Stage::Failed(Failure::Final(CallError::QueueTimedOut));
                    wakes.extend(ticket.waker.take());
                    inner.queue.retain(|&queued| queued != id);
                }
                Stage::Posted(_) | Stage::Abandoned(_) => self.posted_is_late(&mut inner, id, now, &mut wakes),
                // It is the caller who must come and see.
                Stage::Granted(_) | Stage::Finished(..) | Stage::Failed(_) => {}
            }
        }
        self.launch_if_wanted(&mut inner);
        self.grant(&mut inner, &mut wakes);
        wake(inner, wakes);
    }

    fn posted_is_late(&self, inner: &mut Inner, id: TicketId, now: Instant, wakes: &mut Wakes) {
        let ticket = inner.tickets.get_mut(id);
        let (Stage::Posted(grant) | Stage::Abandoned(grant)) = &ticket.stage else { unreachable!("asked before") };
        let grant = grant.clone();
        if matches!(harvest(&grant.process, ticket), Harvest::Done(_)) && now < ticket.deadline + DONE_GRACE {
            // Between its last two steps, or whoever attends it is about to look.
            return;
        }
        add(&self.pool.sandbox.metrics.timeouts, 1);
        let is_begun = |flight: &TicketId| {
            *flight != id && matches!(harvest(&grant.process, inner.tickets.get(*flight)), Harvest::Begun)
        };
        if inner.flights.iter().flatten().any(is_begun)
            && grant.process.end.withdraw(grant.place.slot, grant.generation)
        {
            // It waited behind others, whose deadlines are later.
            inner.landed(id);
            let ticket = inner.tickets.get_mut(id);
            let (waker, is_alone, asked_at) = (ticket.waker.take(), ticket.is_alone, ticket.asked_at);
            ticket.stage = Stage::Failed(Failure::Final(CallError::TimedOut));
            inner.free(&grant, is_alone, asked_at);
            self.grant(inner, wakes);
            wakes.extend(waker);
            return;
        }
        self.close_locked(inner, Death::Killed(KillCause::Deadline), wakes);
        // Begun or not, it is this one that was late.
        if let Some(Ticket { stage: Stage::Failed(failure), .. }) = inner.tickets.find_mut(id) {
            *failure = Failure::Final(CallError::TimedOut);
        }
    }

    /// Ends the worker if nobody needs it now. `since`: only if nobody used it after that moment.
    pub(crate) fn retire(&self, cause: KillCause, since: Option<Instant>) -> bool {
        let mut inner = self.inner.lock();
        let is_idle = matches!(inner.phase, Phase::Ready(_)) && inner.tickets.is_empty();
        if !is_idle || since.is_some_and(|since| inner.last_used > since) {
            return false;
        }
        let mut wakes = Wakes::new();
        self.close_locked(&mut inner, Death::Killed(cause), &mut wakes);
        wake(inner, wakes);
        true
    }

    /// When the worker was last used, if it is ready and nobody needs it now.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let inner = self.inner.lock();
        (matches!(inner.phase, Phase::Ready(_)) && inner.tickets.is_empty()).then_some(inner.last_used)
    }

    /// Ends the worker whatever it does.
    pub(crate) fn kill(&self, cause: KillCause) {
        let mut inner = self.inner.lock();
        if matches!(inner.phase, Phase::Ready(_)) {
            let mut wakes = Wakes::new();
            self.close_locked(&mut inner, Death::Killed(cause), &mut wakes);
            wake(inner, wakes);
        }
    }

    /// Cancels everything, for good.
    pub(crate) fn shut_down(&self) {
        self.kill(KillCause::ShutDown);
        let mut inner = self.inner.lock();
        self.flush(&mut inner);
        inner.phase = Phase::Closed;
        let mut wakes = Vec::new();
        for id in std::mem::take(&mut inner.queue) {
            let ticket = inner.tickets.get_mut(id);
            ticket.stage = Stage::Failed(Failure::Final(CallError::Cancelled(KillCause::ShutDown)));
            wakes.extend(ticket.waker.take());
        }
        wake(inner, wakes);
    }

    /// Whether nothing would be lost by forgetting this key.
    pub(crate) fn is_vacant(&self, now: Instant) -> bool {
        let mut inner = self.inner.lock();
        self.flush(&mut inner);
        let is_refusing = inner.failures.refusing.as_ref().is_some_and(|(until, _)| now < *until + BACKOFF_MAX);
        matches!(inner.phase, Phase::Idle) && inner.tickets.is_empty() && !is_refusing
    }

    /// Adds what this key counted to what all did.
    fn flush(&self, inner: &mut Inner) {
        let Tally { requests, unattended: _, granted_at_once, in_flight, in_flight_bytes, abandoned_slots } =
            std::mem::take(&mut inner.tally);
        let metrics = &self.pool.sandbox.metrics;
        add(&metrics.requests, requests);
        metrics.queue_wait.record_many(Duration::ZERO, granted_at_once);
        // Differences, which may be negative: two's complement makes the sums right.
        add(&metrics.in_flight, in_flight as u64);
        add(&metrics.in_flight_bytes, in_flight_bytes as u64);
        add(&metrics.abandoned_slots, abandoned_slots as u64);
    }

    /// The worker, if there is one.
    pub(crate) fn process(&self) -> Option<Arc<Process>> {
        match &self.inner.lock().phase {
            Phase::Ready(process) => Some(process.clone()),
            _ => None,
        }
    }

    /// Slots in use now.
    pub(crate) fn slots_in_use(&self) -> u32 {
        let inner = self.inner.lock();
        if matches!(inner.phase, Phase::Ready(_)) { inner.table.in_use() } else { 0 }
    }
}

impl Inner {
    fn is_current(&self, worker: WorkerId) -> bool {
        matches!(&self.phase, Phase::Ready(process) if process.id == worker)
    }

    /// Gives a slot back. A worker that was closed meanwhile took its book along.
    fn free(&mut self, grant: &Grant, was_alone: bool, asked_at: Instant) {
        if self.is_current(grant.process.id) {
            self.flights[grant.place.slot as usize] = None;
            self.table.give_back(grant.place);
            self.is_alone &= !was_alone;
            self.last_used = self.last_used.max(asked_at);
        }
    }

    /// Counts a request that is no longer with a worker.
    fn landed(&mut self, id: TicketId) {
        let stage = &self.tickets.get(id).stage;
        if let Stage::Posted(grant) | Stage::Abandoned(grant) = stage {
            self.tally.in_flight -= 1;
            self.tally.in_flight_bytes -= i64::from(grant.place.bytes);
            self.tally.abandoned_slots -= i64::from(matches!(stage, Stage::Abandoned(_)));
        }
    }

    /// Draws the consequences of a worker's end for the next one.
    fn note_end(&mut self, death: Death) {
        use KillCause::{Aborted, Evicted, Idle, Requested, ShutDown};
        let is_deliberate = matches!(death, Death::Killed(Idle | Evicted | Aborted | Requested | ShutDown));
        if !is_deliberate && self.wanted_since.is_some() {
            self.failures.count += 1;
            if self.failures.count > DEATHS_FORGIVEN {
                self.failures.refuse(LaunchError::CrashLoop(self.failures.count));
            }
        }
    }
}

impl Failures {
    fn note(&mut self, error: LaunchError) -> Duration {
        self.count += 1;
        self.refuse(error)
    }

    fn refuse(&mut self, error: LaunchError) -> Duration {
        let doublings = self.count.saturating_sub(1).min(20);
        let wait = (BACKOFF_MIN * (1 << doublings)).min(BACKOFF_MAX);
        self.refusing = Some((Instant::now() + wait, error));
        wait
    }
}

/// What the worker says about a request, checked against the key's own book.
enum Harvest {
    Done(Incoming),
    /// The reply was taken already.
    Settled,
    NotBegun,
    Begun,
    Garbage,
}

fn harvest(process: &Process, ticket: &Ticket) -> Harvest {
    let grant = match &ticket.stage {
        Stage::Posted(grant) | Stage::Abandoned(grant) => grant,
        Stage::Granted(_) => return Harvest::NotBegun,
        Stage::Finished(..) | Stage::Queued | Stage::Failed(_) => return Harvest::Settled,
    };
    match process.end.seen(grant.place.slot, grant.generation) {
        Seen::Turn(Turn::Done) => {
            process.end.incoming(grant.place.slot, ticket.exchange).map_or(Harvest::Garbage, Harvest::Done)
        }
        Seen::Turn(Turn::Request) => Harvest::NotBegun,
        Seen::Turn(Turn::Running | Turn::Part | Turn::Call | Turn::More | Turn::Answer) => Harvest::Begun,
        Seen::Turn(Turn::Idle | Turn::Closed) | Seen::Garbage => Harvest::Garbage,
    }
}

fn verdict(harvested: &Harvest, death: Death) -> Failure {
    use KillCause::{Aborted, Evicted, Idle, Requested, ShutDown};
    match (harvested, death) {
        (Harvest::NotBegun, _) => Failure::Bystander(death),
        (_, Death::Killed(cause @ (Aborted | Evicted | Idle | Requested | ShutDown))) => {
            Failure::Final(CallError::Cancelled(cause))
        }
        _ => Failure::Final(CallError::Died(death)),
    }
}

/// Releases the lock, then wakes.
fn wake(inner: MutexGuard<'_, Inner>, wakes: Wakes) {
    drop(inner);
    for waker in wakes {
        waker.wake();
    }
}
