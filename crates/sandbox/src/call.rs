//! Calling a worker: as a future on any executor, or blocking, with calls back in between.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tine_base::slots::{Exchange, Incoming, Notify, Seen, Turn};

use crate::error::{CallError, Death, KillCause};
use crate::key::{Failure, Grant, Key, Replied};
use crate::metrics::add;
use crate::process::WorkerId;
use crate::tickets::{Ticket, TicketId};
use crate::worker::status;

/// Times a request is tried again that was not begun when its worker died. Each such death has another request to blame, so a third
/// in a row is a sign of something else.
const RETRIES_MAX: u32 = 2;
/// Who attends a request looks this often whether it was settled otherwise. The wake-up for it may be lost if the worker writes into
/// the word at the same moment.
const ATTEND_SLICE: Duration = Duration::from_millis(20);
/// Calls of a worker may have so many bytes; more is garbage.
const NESTED_CALL_BYTES_MAX: usize = 64 << 20;

/// How one request is to be treated.
#[derive(Clone, Copy, Debug)]
pub struct CallOptions {
    /// Bytes the request has at most. Room for them is reserved before the request is built.
    pub request_bytes_max: u32,
    /// Bytes the reply may have; of an attended request, bytes of each piece of the reply and of the worker's calls.
    pub reply_bytes_max: u32,
    /// Bytes of each piece of an answer to the worker's calls; 0 where it makes none.
    pub answer_piece_bytes: u32,
    /// Bytes the whole reply of an attended request may have.
    pub attended_reply_bytes_max: usize,
    /// From asking until the reply is there.
    pub timeout: Duration,
}

impl CallOptions {
    /// Room for a request and a reply of these sizes, within 10 seconds.
    pub fn new(request_bytes_max: u32, reply_bytes_max: u32) -> CallOptions {
        CallOptions {
            request_bytes_max,
            reply_bytes_max,
            answer_piece_bytes: 0,
            attended_reply_bytes_max: reply_bytes_max as usize,
            timeout: Duration::from_secs(10),
        }
    }

    /// With this time limit.
    pub fn timeout(mut self, timeout: Duration) -> CallOptions {
        self.timeout = timeout;
        self
    }

    /// For a request whose worker calls back: answers and replies travel in pieces of such sizes, and the reply has at most
    /// `reply_bytes_max` bytes in all.
    pub fn attended(mut self, answer_piece_bytes: u32, reply_bytes_max: usize) -> CallOptions {
        self.answer_piece_bytes = answer_piece_bytes;
        self.attended_reply_bytes_max = reply_bytes_max;
        self
    }

    fn exchange(&self, request_bytes: u32) -> Exchange {
        Exchange { request_bytes, reply_capacity: self.reply_bytes_max, answer_capacity: self.answer_piece_bytes }
    }
}

/// What a worker replied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The bytes, copied out of the worker's reach.
    pub bytes: Vec<u8>,
    /// Who replied.
    pub worker: WorkerId,
}

/// Where a request is written: directly into the memory shared with the worker, once there is room for it.
#[derive(Debug)]
pub struct RequestWriter<'a> {
    grant: &'a Grant,
    bytes_max: u32,
    position: u32,
    is_over: bool,
}

impl RequestWriter<'_> {
    /// Appends to the request. What is beyond [`CallOptions::request_bytes_max`] fails the call with [`CallError::TooLarge`].
    pub fn write(&mut self, bytes: &[u8]) {
        let fits = bytes.len() <= (self.bytes_max - self.position) as usize;
        if !fits || self.is_over {
            self.is_over = true;
            return;
        }
        self.grant.process.end.write(self.grant.place, self.position, bytes);
        self.position += bytes.len() as u32;
    }
}

/// Whoever attends a request gives it up; the worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort;

/// The place where requests for one key go.
#[derive(Clone, Debug)]
pub struct Keyed {
    key: Arc<Key>,
}

impl Keyed {
    pub(crate) fn new(key: Arc<Key>) -> Keyed {
        Keyed { key }
    }

    /// Sends a request. `fill` writes it, once a worker has room for it; again, if a neighbour's request ended that worker.
    ///
    /// Dropping the future gives the request up; nobody else notices.
    ///
    /// # Errors
    /// The future's, see [`CallError`].
    pub fn call<F: FnMut(&mut RequestWriter<'_>) + Unpin>(&self, options: CallOptions, fill: F) -> Call<F> {
        let deadline = Instant::now() + options.timeout;
        Call { key: self.key.clone(), options, fill, deadline, retries: 0, state: State::Start }
    }

    /// Sends a request and waits for the reply, which is written to `reply` (cleared first). `attend` answers the worker's calls: it
    /// gets a call's payload and writes the answer.
    ///
    /// # Errors
    /// See [`CallError`]. A request whose worker made a call is never tried again.
    pub fn call_attended(
        &self,
        options: CallOptions,
        mut fill: impl FnMut(&mut RequestWriter<'_>),
        mut attend: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), Abort>,
        reply: &mut Vec<u8>,
    ) -> Result<WorkerId, CallError> {
        let deadline = Instant::now() + options.timeout;
        let mut retries = 0;
        loop {
            let mut attended =
                Attended { key: &self.key, options: &options, ticket: None, calls: 0, is_over: false, reply };
            let failure = match attended.run(deadline, retries > 0, &mut fill, &mut attend) {
                Ok(worker) => return Ok(worker),
                Err(failure) => failure,
            };
            let may_retry = attended.calls == 0 && retries < RETRIES_MAX;
            retries = retry(&self.key, failure, may_retry, retries)?;
        }
    }

    /// Sends a request whose worker makes no calls, and waits for the reply.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call_blocking(
        &self,
        options: CallOptions,
        fill: impl FnMut(&mut RequestWriter<'_>),
    ) -> Result<Reply, CallError> {
        let mut bytes = Vec::new();
        let worker = self.call_attended(options, fill, |_, _| Err(Abort), &mut bytes)?;
        Ok(Reply { bytes, worker })
    }
}

/// The number of the next try, or why there is none.
fn retry(key: &Key, failure: Failure, may_retry: bool, retries: u32) -> Result<u32, CallError> {
    match failure {
        Failure::Final(error) => Err(error),
        Failure::Bystander(death) if !may_retry => Err(CallError::Bystander(death)),
        Failure::Bystander(_) => {
            add(&key.pool.sandbox.metrics.retries, 1);
            Ok(retries + 1)
        }
    }
}

/// A ticket for a place that holds the largest request allowed.
fn ticket(key: &Key, options: &CallOptions, is_alone: bool, deadline: Instant) -> Result<Ticket, CallError> {
    let max = key.pool.options.shape.exchange_bytes_max();
    match options.exchange(options.request_bytes_max).bytes() {
        Some(bytes) if bytes <= max => Ok(Ticket::new(bytes, is_alone, deadline - options.timeout, deadline)),
        bytes => {
            let needed = bytes.map_or(u64::MAX, u64::from);
            Err(CallError::TooLarge { needed, max: max.into() })
        }
    }
}

/// Writes the request; its length.
fn fill_request(
    grant: &Grant,
    options: &CallOptions,
    fill: &mut impl FnMut(&mut RequestWriter<'_>),
) -> Result<u32, CallError> {
    let mut writer = RequestWriter { grant, bytes_max: options.request_bytes_max, position: 0, is_over: false };
    fill(&mut writer);
    let max = options.request_bytes_max.into();
    if writer.is_over {
        Err(CallError::TooLarge { needed: u64::from(writer.position) + 1, max })
    } else {
        Ok(writer.position)
    }
}

/// Copies a reply whose ticket still holds its slot, and judges it.
fn take_reply(
    key: &Key,
    grant: &Grant,
    exchange: Exchange,
    incoming: Incoming,
    reply: &mut Vec<u8>,
) -> Result<(), CallError> {
    let metrics = &key.pool.sandbox.metrics;
    let from = reply.len();
    grant.process.end.copy_incoming(grant.place, exchange, incoming, reply);
    match incoming.status {
        status::DONE => Ok(()),
        status::REJECTED => {
            add(&metrics.requests_rejected, 1);
            Err(CallError::Rejected(String::from_utf8_lossy(&reply[from..]).into_owned()))
        }
        status::TOO_LARGE => Err(CallError::ReplyTooLarge { max: exchange.reply_capacity.into() }),
        _ => {
            let death = Death::Killed(KillCause::Protocol);
            key.close(grant.process.id, death);
            Err(CallError::Died(death))
        }
    }
}

/// A request under way. Resolves to the reply.
#[must_use = "a request is sent when its future is polled"]
#[derive(Debug)]
pub struct Call<F> {
    key: Arc<Key>,
    options: CallOptions,
    fill: F,
    deadline: Instant,
    retries: u32,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Start,
    Waiting(TicketId),
    Posted(TicketId),
    Over,
}

impl<F: FnMut(&mut RequestWriter<'_>) + Unpin> Call<F> {
    /// Writes and posts the request in the slot that was granted.
    fn post(&mut self, id: TicketId, grant: &Grant, waker: &Waker) -> Result<(), Failure> {
        // A panic of `fill` drops this future, which gives the slot back.
        let request_bytes = fill_request(grant, &self.options, &mut self.fill).map_err(Failure::Final)?;
        let exchange = self.options.exchange(request_bytes);
        self.state = State::Over;
        self.key.post(id, grant, exchange, Notify::Event, Some(waker))?;
        self.state = State::Posted(id);
        Ok(())
    }

    fn step(&mut self, waker: &Waker) -> Poll<Result<Reply, Failure>> {
        match self.state {
            State::Start => {
                let ticket =
                    ticket(&self.key, &self.options, self.retries > 0, self.deadline).map_err(Failure::Final)?;
                let (id, grant) = self.key.enqueue(ticket).map_err(Failure::Final)?;
                self.state = State::Waiting(id);
                match grant {
                    Some(grant) => self.post(id, &grant, waker)?,
                    None => return self.step(waker),
                }
                Poll::Pending
            }
            State::Waiting(id) => match self.key.poll_grant(id, waker) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(grant)) => {
                    self.post(id, &grant, waker)?;
                    Poll::Pending
                }
                Poll::Ready(Err(failure)) => {
                    self.state = State::Over;
                    Poll::Ready(Err(failure))
                }
            },
            State::Posted(id) => {
                let Poll::Ready(settled) = self.key.poll_reply(id, Some(waker)) else { return Poll::Pending };
                let (grant, exchange, incoming) = match settled {
                    Ok(reply) => reply,
                    Err(failure) => {
                        self.state = State::Over;
                        return Poll::Ready(Err(failure));
                    }
                };
                let mut bytes = Vec::with_capacity(incoming.bytes as usize);
                let outcome = take_reply(&self.key, &grant, exchange, incoming, &mut bytes);
                self.state = State::Over;
                self.key.release(id);
                let worker = grant.process.id;
                Poll::Ready(outcome.map(|()| Reply { bytes, worker }).map_err(Failure::Final))
            }
            State::Over => panic!("a call was polled after its end"),
        }
    }
}

impl<F: FnMut(&mut RequestWriter<'_>) + Unpin> Future for Call<F> {
    type Output = Result<Reply, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let failure = match self.step(context.waker()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(reply)) => return Poll::Ready(Ok(reply)),
                Poll::Ready(Err(failure)) => failure,
            };
            // A request that was too large to write still holds its slot.
            if let State::Waiting(id) = std::mem::replace(&mut self.state, State::Over) {
                self.key.abandon(id);
            }
            match retry(&self.key, failure, self.retries < RETRIES_MAX, self.retries) {
                Ok(next) => self.retries = next,
                Err(error) => return Poll::Ready(Err(error)),
            }
            self.state = State::Start;
        }
    }
}

impl<F> Drop for Call<F> {
    fn drop(&mut self) {
        if let State::Waiting(id) | State::Posted(id) = self.state {
            self.key.abandon(id);
        }
    }
}

/// One try of a request that its caller's thread attends.
struct Attended<'a> {
    key: &'a Arc<Key>,
    options: &'a CallOptions,
    /// Held now; given up when this is dropped.
    ticket: Option<TicketId>,
    /// Calls of the worker that were answered.
    calls: u64,
    /// The reply is longer than allowed; its pieces are dropped until the worker is done.
    is_over: bool,
    reply: &'a mut Vec<u8>,
}

impl Attended<'_> {
    fn run(
        &mut self,
        deadline: Instant,
        is_alone: bool,
        fill: &mut impl FnMut(&mut RequestWriter<'_>),
        attend: &mut impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), Abort>,
    ) -> Result<WorkerId, Failure> {
        self.reply.clear();
        let ticket = ticket(self.key, self.options, is_alone, deadline).map_err(Failure::Final)?;
        let (id, grant) = self.key.enqueue(ticket).map_err(Failure::Final)?;
        self.ticket = Some(id);
        let grant = match grant {
            Some(grant) => grant,
            None => self.await_grant(id)?,
        };
        let request_bytes = fill_request(&grant, self.options, fill).map_err(Failure::Final)?;
        let exchange = self.options.exchange(request_bytes);
        self.settle(|key| key.post(id, &grant, exchange, Notify::Attended, None))?;
        let (grant, exchange, incoming) = self.attend(id, &grant, exchange, attend)?;
        if incoming.status != status::DONE {
            self.reply.clear();
        }
        self.is_over |= incoming.status == status::DONE && !self.has_room(incoming);
        let mut outcome = take_reply(self.key, &grant, exchange, incoming, self.reply);
        if self.is_over && outcome.is_ok() {
            outcome = Err(CallError::ReplyTooLarge { max: self.options.attended_reply_bytes_max as u64 });
        }
        self.ticket = None;
        self.key.release(id);
        outcome.map(|()| grant.process.id).map_err(Failure::Final)
    }

    fn has_room(&self, incoming: Incoming) -> bool {
        self.reply.len() + incoming.bytes as usize <= self.options.attended_reply_bytes_max
    }

    /// A failure is taken together with its ticket.
    fn settle<T>(&mut self, step: impl FnOnce(&Key) -> Result<T, Failure>) -> Result<T, Failure> {
        let outcome = step(self.key);
        if outcome.is_err() {
            self.ticket = None;
        }
        outcome
    }

    fn await_grant(&mut self, id: TicketId) -> Result<Grant, Failure> {
        thread_local! {
            static WAKER: Waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        }
        WAKER.with(|waker| {
            loop {
                match self.key.poll_grant(id, waker) {
                    Poll::Ready(settled) => return self.settle(|_| settled),
                    // The ticket's deadline ends the wait.
                    Poll::Pending => std::thread::park(),
                }
            }
        })
    }

    /// Serves the worker's calls until the request is settled, and returns the reply.
    fn attend(
        &mut self,
        id: TicketId,
        grant: &Grant,
        exchange: Exchange,
        attend: &mut impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), Abort>,
    ) -> Result<Replied, Failure> {
        let end = &grant.process.end;
        let (slot, generation) = (grant.place.slot, grant.generation);
        let mut conversation = Conversation::default();
        loop {
            let seen = end.await_guest(slot, generation, self.key.pool.options.spins, ATTEND_SLICE);
            if !matches!(seen, Seen::Turn(Turn::Part | Turn::Call | Turn::More)) {
                let replied = match seen {
                    Seen::Turn(Turn::Done) => self.key.attended_done(id),
                    _ => self.key.poll_reply(id, None),
                };
                match replied {
                    Poll::Ready(settled) => return self.settle(|_| settled),
                    Poll::Pending if seen == Seen::Garbage => self.key.close(grant.process.id, PROTOCOL),
                    Poll::Pending => {}
                }
                continue;
            }
            let Seen::Turn(turn) = seen else { unreachable!("just looked") };
            let outcome = conversation.go_on(self, grant, exchange, turn, attend);
            if let Err(death) = outcome {
                // Fails this ticket too, as the next look will show.
                self.key.close(grant.process.id, death);
            }
        }
    }
}

const PROTOCOL: Death = Death::Killed(KillCause::Protocol);

/// What passed so far between a worker and who attends it.
#[derive(Default)]
struct Conversation {
    payload: Vec<u8>,
    answer: Vec<u8>,
    /// Bytes of the answer that the worker has.
    answered: usize,
}

impl Conversation {
    fn go_on(
        &mut self,
        attended: &mut Attended<'_>,
        grant: &Grant,
        exchange: Exchange,
        turn: Turn,
        attend: &mut impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), Abort>,
    ) -> Result<(), Death> {
        let end = &grant.process.end;
        let incoming = end.incoming(grant.place.slot, exchange).ok_or(PROTOCOL)?;
        match turn {
            Turn::Part => {
                if incoming.status != status::CALL {
                    attended.is_over |= !attended.has_room(incoming);
                    if !attended.is_over {
                        end.copy_incoming(grant.place, exchange, incoming, attended.reply);
                    }
                } else if self.payload.len() + incoming.bytes as usize <= NESTED_CALL_BYTES_MAX {
                    end.copy_incoming(grant.place, exchange, incoming, &mut self.payload);
                } else {
                    return Err(PROTOCOL);
                }
                end.answer(grant.place, grant.generation, exchange, &[]);
            }
            Turn::Call => {
                end.copy_incoming(grant.place, exchange, incoming, &mut self.payload);
                self.answer.clear();
                attend(&self.payload, &mut self.answer).map_err(|Abort| Death::Killed(KillCause::Aborted))?;
                self.payload.clear();
                attended.calls += 1;
                add(&attended.key.pool.sandbox.metrics.nested_calls, 1);
                self.answered = end.answer(grant.place, grant.generation, exchange, &self.answer);
            }
            Turn::More => {
                if self.answered >= self.answer.len() {
                    return Err(PROTOCOL);
                }
                self.answered += end.answer(grant.place, grant.generation, exchange, &self.answer[self.answered..]);
            }
            _ => unreachable!("asked before"),
        }
        Ok(())
    }
}

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.ticket {
            self.key.abandon(id);
        }
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
