//! One connection, used by any number of threads without a thread of its own.
//!
//! Whoever waits for an answer and finds nobody reading becomes the *leader*: it reads, hands every answer to whom it is for, and when
//! it has its own, passes the lead on to one of those who sleep. So a single caller talks to the wire directly. Answers that nobody
//! waits for (callbacks, streams that are watched, calls given up) are read by the *pump*, a thread that is started when it is first
//! needed and follows the same rules. A call through rings that finds nobody reading or writing is not even entered, unless its answer
//! takes longer than a spin.
//!
//! Invariants:
//! - Who holds the reader and leaves passes the lead on; a sleeper announces itself before it looks for the reader a last time. So
//!   while anybody waits, somebody reads.
//! - Every request has an entry until its answer came or the connection ended, and every entry is resolved exactly once. One request
//!   may be in flight without: that of the thread that reads.
//! - Who cannot write because the server's side is full reads meanwhile: two full directions do not wait for each other.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::completions::Outcomes;
use super::entries::Entries;
use super::link::{Parts, Reader, Sent, Wire, Writer, shut_down};
use super::stream::StreamQueue;
use crate::error::CallError;
use crate::frame::{Framing, Header, Kind, decode_error};
use crate::inbound::{Arrival, InboundError};

/// Longest uninterrupted wait of a thread that has no deadline of its own.
const WAIT_SLICE: Duration = Duration::from_secs(1);
/// How long a thread that finds the connection broken waits for the one that reads to learn why.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(50);
/// Longest uninterrupted wait for room to write, after which it is looked anew who reads.
const WRITE_SLICE: Duration = Duration::from_millis(50);

/// The outcome of a call.
pub type CallResult = Result<Vec<u8>, CallError>;

/// Who gets an answer.
pub(crate) enum Pending {
    /// A thread that waits.
    Waiter(Arc<Waiter>),
    /// Called by whichever thread reads.
    Callback(Box<dyn FnOnce(CallResult) + Send>),
    /// A queue that is polled, and what the request is called there.
    Completion(Arc<Outcomes>, u64),
    Stream(Arc<StreamQueue>),
    /// A call that was given up: its answer is still to come.
    Forgotten,
}

/// A thread that waits for an answer, or for the lead.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    state: Mutex<WaiterState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WaiterState {
    result: Option<CallResult>,
    /// Something has changed.
    look: bool,
}

impl Waiter {
    pub fn look(&self) {
        self.state.lock().look = true;
        self.changed.notify_all();
    }

    fn resolve(&self, result: CallResult) {
        let mut state = self.state.lock();
        state.result = Some(result);
        state.look = true;
        self.changed.notify_all();
    }

    pub fn take(&self) -> Option<CallResult> {
        self.state.lock().result.take()
    }

    pub fn sleep(&self, limit: Duration) {
        let mut state = self.state.lock();
        if !state.look {
            self.changed.wait_for(&mut state, limit);
        }
        state.look = false;
    }

    fn reset(&mut self) {
        *self.state.get_mut() = WaiterState::default();
    }
}

struct State {
    pending: Entries<Pending>,
    /// Ids of plain requests, in order: their replies name none.
    plain_order: VecDeque<u64>,
    /// Entries that only the pump reads for.
    pump_work: usize,
    pump_runs: bool,
    closed: Option<CallError>,
    /// The server's last words.
    farewell: Option<String>,
}

/// A connection.
pub(crate) struct Inner {
    wire: Wire,
    reader: Mutex<Reader>,
    writer: Mutex<Writer>,
    state: Mutex<State>,
    pump_wanted: Condvar,
    /// Who waits while somebody else reads.
    sleepers: Mutex<Vec<Arc<Waiter>>>,
    /// How many these are, or are about to be: most of the time none, and then the lock is not worth taking.
    sleepers_count: AtomicUsize,
    /// As many entries are pending; written under the lock of the state.
    pending_count: AtomicUsize,
    /// A request is in flight that has no entry, see [`Inner::call_directly`].
    is_direct: AtomicBool,
    is_closed: AtomicBool,
    requests_max: u32,
    request_bytes_max: u32,
}

impl Inner {
    pub fn new(parts: Parts) -> Inner {
        let state = State {
            pending: Entries::default(),
            plain_order: VecDeque::new(),
            pump_work: 0,
            pump_runs: false,
            closed: None,
            farewell: None,
        };
        Inner {
            wire: parts.wire,
            reader: Mutex::new(parts.reader),
            writer: Mutex::new(parts.writer),
            state: Mutex::new(state),
            pump_wanted: Condvar::new(),
            sleepers: Mutex::default(),
            sleepers_count: AtomicUsize::new(0),
            pending_count: AtomicUsize::new(0),
            is_direct: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            requests_max: parts.requests_max,
            request_bytes_max: parts.request_payload_bytes_max,
        }
    }

    pub fn is_plain(&self) -> bool {
        self.wire.framing != Framing::Full
    }

    pub fn is_closed(&self) -> bool {
        // SYNC: with `fail`: what it hands out comes after this.
        self.is_closed.load(Ordering::Acquire)
    }

    /// Why the connection has ended, if it has.
    pub fn closed(&self) -> Option<CallError> {
        self.state.lock().closed.clone()
    }

    /// Sends a request whose answer goes to `pending`. Returns its id.
    pub fn request(
        self: &Arc<Self>,
        kind: Kind,
        payload: &[u8],
        pending: Pending,
        limit: Duration,
    ) -> Result<u64, CallError> {
        if payload.len() as u64 > u64::from(self.request_bytes_max) {
            let text = format!("a request of {} bytes where {} are allowed", payload.len(), self.request_bytes_max);
            return Err(CallError::TooLarge(text));
        }
        let Some(mut writer) = self.writer.try_lock_for(limit) else { return Err(CallError::TimedOut) };
        let id = writer.next_id;
        let for_pump = self.register(id, pending)?;
        writer.next_id = id.wrapping_add(1);
        let header = Header { kind, id, payload_bytes: payload.len() as u32 };
        let sent = self.send(&mut writer, header, payload, limit);
        drop(writer);
        match sent {
            Ok(()) => {
                if for_pump {
                    self.wake_pump();
                }
                Ok(id)
            }
            Err(error) => {
                self.remove(id);
                Err(error)
            }
        }
    }

    /// Makes an entry; returns whether the pump is to read for it. Called with the writer held, so that entries are made one by one.
    fn register(&self, id: u64, pending: Pending) -> Result<bool, CallError> {
        let mut state = self.state.lock();
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        let in_flight = state.pending.len() + usize::from(self.is_direct.load(Ordering::Relaxed));
        if in_flight >= self.requests_max as usize {
            let text =
                format!("{} requests of this connection are in flight, which is as many as may be", self.requests_max);
            return Err(CallError::Overloaded(text));
        }
        let for_pump = is_for_pump(&pending);
        self.insert(&mut state, id, pending);
        if self.wire.framing != Framing::Full {
            state.plain_order.push_back(id);
        }
        Ok(for_pump)
    }

    fn insert(&self, state: &mut State, id: u64, pending: Pending) {
        state.pump_work += usize::from(is_for_pump(&pending));
        state.pending.insert(id, pending);
        self.pending_count.store(state.pending.len(), Ordering::Relaxed);
    }

    /// Calls through rings that nobody else uses at the moment: without an entry, a look at the clock or a copy more than it takes.
    /// None: there is more to it, and nothing was sent.
    pub fn call_directly(self: &Arc<Self>, payload: &[u8], limit: Duration) -> Option<CallResult> {
        if self.wire.bells.is_none() || payload.len() as u64 > u64::from(self.request_bytes_max) || limit.is_zero() {
            return None;
        }
        let mut reader = self.reader.try_lock()?;
        let Some(id) = self.send_directly(payload) else {
            drop(reader);
            self.pass_on();
            return None;
        };
        if let Some(reply) = reader.read_reply(&self.wire, id) {
            self.is_direct.store(false, Ordering::Relaxed);
            drop(reader);
            self.pass_on();
            return Some(Ok(reply));
        }
        let waiter = borrow_waiter();
        let result = self.await_late(reader, &waiter, id, limit);
        return_waiter(waiter);
        Some(result)
    }

    /// Sends a request that gets no entry; its id.
    fn send_directly(&self, payload: &[u8]) -> Option<u64> {
        let mut writer = self.writer.try_lock()?;
        // With the writer held no entry is added.
        if self.pending_count.load(Ordering::Relaxed) >= self.requests_max as usize || self.is_closed() {
            return None;
        }
        let id = writer.next_id;
        let header = Header { kind: Kind::Request, id, payload_bytes: payload.len() as u32 };
        // A fault is found again, and told, in the ordinary way.
        if !writer.write_at_once(&self.wire, header, payload).ok()? {
            return None;
        }
        self.is_direct.store(true, Ordering::Relaxed);
        writer.next_id = id.wrapping_add(1);
        Some(id)
    }

    /// Goes on with a call that was sent directly as with any other one.
    fn await_late(
        self: &Arc<Self>,
        reader: MutexGuard<'_, Reader>,
        waiter: &Arc<Waiter>,
        id: u64,
        limit: Duration,
    ) -> CallResult {
        {
            let mut state = self.state.lock();
            self.is_direct.store(false, Ordering::Relaxed);
            if let Some(error) = &state.closed {
                let error = error.clone();
                drop(state);
                drop(reader);
                self.pass_on();
                return Err(error);
            }
            self.insert(&mut state, id, Pending::Waiter(waiter.clone()));
        }
        let result = self.lead(reader, limit, &mut None, &mut || waiter.take());
        self.pass_on();
        result.unwrap_or_else(|| {
            self.forget(id);
            Err(CallError::TimedOut)
        })
    }

    fn remove(&self, id: u64) -> Option<Pending> {
        let mut state = self.state.lock();
        let pending = state.pending.remove(id)?;
        self.pending_count.store(state.pending.len(), Ordering::Relaxed);
        state.pump_work -= usize::from(is_for_pump(&pending));
        Some(pending)
    }

    /// Sends a frame that has no answer of its own.
    pub fn notify(&self, kind: Kind, id: u64, payload: &[u8], limit: Duration) -> Result<(), CallError> {
        let Some(mut writer) = self.writer.try_lock_for(limit) else { return Err(CallError::TimedOut) };
        self.send(&mut writer, Header { kind, id, payload_bytes: payload.len() as u32 }, payload, limit)
    }

    /// Writes one frame. A frame that cannot be finished in time ends the connection, as nothing could follow it.
    fn send(&self, writer: &mut Writer, header: Header, payload: &[u8], limit: Duration) -> Result<(), CallError> {
        let mut sent = Sent::NOTHING;
        match writer.write(&self.wire, header, payload, &mut sent) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => return Err(self.lose(error)),
        }
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if !sent.has_begun() {
                    return Err(CallError::TimedOut);
                }
                self.fail(CallError::Disconnected { reason: "a request could not be sent in time".into() });
                return Err(CallError::TimedOut);
            }
            self.wait_for_room(writer, left.min(WRITE_SLICE)).map_err(|error| self.lose(error))?;
            match writer.write(&self.wire, header, payload, &mut sent) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(self.lose(error)),
            }
            if let Some(error) = self.closed() {
                return Err(error);
            }
        }
    }

    /// Waits for room to write, and reads meanwhile if nobody else does.
    fn wait_for_room(&self, writer: &mut Writer, limit: Duration) -> io::Result<()> {
        let reader = self.reader.try_lock();
        let Some([room, end]) = writer.arm(&self.wire)? else { return Ok(()) };
        let Some(mut reader) = reader else {
            return crate::link::poll(&mut [room, end], limit).map(drop);
        };
        self.read(&mut reader, Duration::ZERO);
        if reader.arm(&self.wire).map_err(|error| io::Error::other(error.to_string()))? {
            crate::link::poll(&mut [room, end, reader.pollable(&self.wire)], limit)?;
            self.read(&mut reader, Duration::ZERO);
        }
        drop(reader);
        self.pass_on();
        Ok(())
    }

    /// The connection broke while it was used; the error says how, or better the server's last words do.
    fn lose(&self, error: io::Error) -> CallError {
        // The server may have said why before it closed: to be read here, or by whoever leads and is just finding out.
        if let Some(mut reader) = self.reader.try_lock_for(LAST_WORDS_LIMIT) {
            self.read(&mut reader, Duration::ZERO);
            self.read(&mut reader, Duration::ZERO);
        }
        let reason = match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => "the server closed it".to_owned(),
            _ => error.to_string(),
        };
        self.fail(CallError::Disconnected { reason });
        self.closed().expect("it has just failed")
    }

    /// Ends the connection: every pending call gets `error`, or the server's last words.
    pub fn fail(&self, error: CallError) {
        let (pending, error) = {
            let mut state = self.state.lock();
            if state.closed.is_some() {
                return;
            }
            let error = match (error, state.farewell.take()) {
                (CallError::Disconnected { .. }, Some(reason)) => CallError::Disconnected { reason },
                (error, _) => error,
            };
            state.closed = Some(error.clone());
            self.is_closed.store(true, Ordering::Release);
            state.pump_work = 0;
            self.pending_count.store(0, Ordering::Relaxed);
            (std::mem::take(&mut state.pending), error)
        };
        shut_down(&self.wire.socket);
        self.pump_wanted.notify_all();
        for pending in pending.into_values() {
            resolve(pending, Err(error.clone()));
        }
        for sleeper in self.sleepers.lock().iter() {
            sleeper.look();
        }
    }

    /// Reads for up to `limit` and hands out what came.
    fn read(&self, reader: &mut Reader, limit: Duration) {
        self.read_lazily(reader, &mut || limit);
    }

    /// The same with a limit that is asked for only when there is something to wait for.
    fn read_lazily(&self, reader: &mut Reader, limit: &mut dyn FnMut() -> Duration) {
        match reader.read(&self.wire, limit, |arrival| self.dispatch(arrival)) {
            Ok(true) => {}
            Ok(false) => self.fail(CallError::Disconnected { reason: "the server is gone".into() }),
            Err(InboundError::Read(error)) if crate::link::ring_fault(&error).is_none() => {
                self.fail(CallError::Disconnected { reason: error.to_string() });
            }
            Err(error) => self.fail(CallError::Protocol(error.to_string())),
        }
    }

    /// Hands out what has come, without waiting; nothing to do if another thread reads.
    pub fn read_now(&self) {
        if let Some(mut reader) = self.reader.try_lock() {
            self.read(&mut reader, Duration::ZERO);
            drop(reader);
            self.pass_on();
        }
    }

    fn dispatch(&self, arrival: Arrival<'_>) {
        let (header, payload) = match arrival {
            Arrival::Frame(header, payload) => (header, Ok(payload)),
            Arrival::TooLarge(header) => {
                let text = format!("an answer of {} bytes, which is more than this client takes", header.payload_bytes);
                (header, Err(CallError::TooLarge(text)))
            }
        };
        match header.kind {
            Kind::Reply => self.resolve(header.id, payload.map(Cow::into_owned)),
            Kind::Error => {
                let error = payload.map_or_else(|error| error, |payload| CallError::from_frame(&payload));
                self.resolve(header.id, Err(error));
            }
            Kind::Item | Kind::End => {
                let payload = payload.map(Cow::into_owned);
                if header.kind == Kind::End || payload.is_err() {
                    return self.resolve(header.id, payload);
                }
                let stream = match self.state.lock().pending.get_mut(header.id) {
                    Some(Pending::Stream(stream)) => Some(stream.clone()),
                    _ => None,
                };
                if let (Some(stream), Ok(item)) = (stream, payload)
                    && !stream.push(item)
                {
                    self.fail(CallError::Protocol("the server sent more items than it had credit for".into()));
                }
            }
            Kind::Closing => {
                let (code, message) = payload.map_or_else(|_| Default::default(), |payload| decode_error(&payload));
                self.state.lock().farewell = Some(format!("the server closed it: {message} ({code})"));
            }
            kind => self.fail(CallError::Protocol(format!("a server does not send frames of kind {kind:?} here"))),
        }
    }

    fn resolve(&self, id: u64, result: CallResult) {
        let id = match self.wire.framing {
            Framing::Full => Some(id),
            Framing::Plain(_) => self.state.lock().plain_order.pop_front(),
        };
        match id.map(|id| self.remove(id)) {
            Some(Some(pending)) => resolve(pending, result),
            // The answer of a stream that was dropped here.
            Some(None) => {}
            None => self.fail(CallError::Protocol("a reply without a request".into())),
        }
    }

    /// A call is given up: its answer is dropped when it comes.
    pub fn forget(self: &Arc<Self>, id: u64) {
        let mut state = self.state.lock();
        let Some(pending) = state.pending.get_mut(id) else { return };
        let was_for_pump = is_for_pump(pending);
        let before = std::mem::replace(pending, Pending::Forgotten);
        state.pump_work += usize::from(!was_for_pump);
        drop(state);
        // A callback may own anything, also this connection.
        drop(before);
        self.wake_pump();
    }

    /// Waits until `ready` says so, leading if nobody else does. None: `limit` has passed.
    pub fn wait_until<T>(
        &self,
        waiter: &Arc<Waiter>,
        limit: Duration,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let mut left = limit;
        let mut started = None;
        loop {
            if left.is_zero() {
                return ready();
            }
            if let Some(reader) = self.reader.try_lock() {
                let value = self.lead(reader, limit, &mut started, &mut ready);
                self.pass_on();
                return value;
            }
            self.announce(waiter);
            if let Some(reader) = self.reader.try_lock() {
                let value = self.lead(reader, limit, &mut started, &mut ready);
                self.leave(waiter);
                self.pass_on();
                return value;
            }
            let started = *started.get_or_insert_with(Instant::now);
            // What came between the last look and the announcement has set the waiter's flag.
            waiter.sleep(left.min(WAIT_SLICE));
            let was_passed_the_lead = self.leave(waiter);
            if let Some(value) = ready() {
                if was_passed_the_lead {
                    // This thread has no use for it.
                    self.pass_on();
                }
                return Some(value);
            }
            left = limit.saturating_sub(started.elapsed());
            if left.is_zero() && was_passed_the_lead {
                self.pass_on();
            }
        }
    }

    fn lead<T>(
        &self,
        mut reader: MutexGuard<'_, Reader>,
        limit: Duration,
        started: &mut Option<Instant>,
        ready: &mut impl FnMut() -> Option<T>,
    ) -> Option<T> {
        loop {
            // An answer may have come while nobody held the reader.
            if let Some(value) = ready() {
                return Some(value);
            }
            let mut left = started.map_or(limit, |started| limit.saturating_sub(started.elapsed()));
            if left.is_zero() {
                return None;
            }
            // The clock is looked at only by who is about to sleep: an answer that comes at once comes sooner without.
            self.read_lazily(&mut reader, &mut || {
                let started = *started.get_or_insert_with(Instant::now);
                left = limit.saturating_sub(started.elapsed());
                left.min(WAIT_SLICE)
            });
        }
    }

    /// Takes a place among those to whom the lead is passed. Who does so looks for the reader once more afterwards.
    fn announce(&self, waiter: &Arc<Waiter>) {
        self.sleepers.lock().push(waiter.clone());
        // SYNC: with `pass_on`: either it sees the count, or this thread finds the reader free.
        self.sleepers_count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Leaves the sleepers; true: the lead had been passed to this one.
    fn leave(&self, waiter: &Arc<Waiter>) -> bool {
        let mut sleepers = self.sleepers.lock();
        match sleepers.iter().position(|sleeper| Arc::ptr_eq(sleeper, waiter)) {
            Some(position) => {
                sleepers.swap_remove(position);
                self.sleepers_count.fetch_sub(1, Ordering::SeqCst);
                false
            }
            None => true,
        }
    }

    /// Wakes one of those who wait, to lead. To be called after the reader was let go.
    fn pass_on(&self) {
        // SYNC: with `announce`.
        fence(Ordering::SeqCst);
        if self.sleepers_count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let next = self.sleepers.lock().pop();
        if let Some(next) = next {
            self.sleepers_count.fetch_sub(1, Ordering::SeqCst);
            next.look();
        }
    }

    /// Makes sure that somebody reads what nobody waits for.
    pub fn wake_pump(self: &Arc<Self>) {
        let start = {
            let mut state = self.state.lock();
            if state.pump_work == 0 || state.closed.is_some() {
                return;
            }
            !std::mem::replace(&mut state.pump_runs, true)
        };
        if !start {
            self.pump_wanted.notify_one();
            return;
        }
        let inner = self.clone();
        let spawned = std::thread::Builder::new().name("tine-ipc pump".into()).spawn(move || inner.pump());
        if let Err(error) = spawned {
            self.fail(CallError::Disconnected { reason: format!("no thread to read answers with: {error}") });
        }
    }

    fn pump(&self) {
        let waiter = Arc::new(Waiter::default());
        loop {
            {
                let mut state = self.state.lock();
                while state.pump_work == 0 && state.closed.is_none() {
                    self.pump_wanted.wait_for(&mut state, WAIT_SLICE);
                }
                if state.closed.is_some() {
                    return;
                }
            }
            self.wait_until(&waiter, Duration::MAX, || {
                let state = self.state.lock();
                (state.pump_work == 0 || state.closed.is_some()).then_some(())
            });
        }
    }

    /// A stream that threads waited for is from now on read by the pump, if `begin` says that this is new.
    pub fn watch(self: &Arc<Self>, id: u64, begin: impl FnOnce() -> bool) {
        {
            let mut state = self.state.lock();
            // Under the lock, so that the entry counts the same when it goes.
            let is_new = begin();
            if is_new && state.pending.get_mut(id).is_some() {
                state.pump_work += 1;
            }
        }
        self.wake_pump();
    }

    /// What is submitted to a queue is from now on read by the pump.
    pub fn watch_outcomes(self: &Arc<Self>, outcomes: &Arc<Outcomes>) {
        {
            let mut state = self.state.lock();
            if outcomes.watch() {
                let is_own =
                    |pending: &&Pending| matches!(pending, Pending::Completion(of, _) if Arc::ptr_eq(of, outcomes));
                let in_flight = state.pending.values().filter(is_own).count();
                state.pump_work += in_flight;
            }
        }
        self.wake_pump();
    }
}

/// Streams and queues are read by who waits for what comes, unless they are watched.
fn is_for_pump(pending: &Pending) -> bool {
    match pending {
        Pending::Waiter(_) => false,
        Pending::Callback(_) | Pending::Forgotten => true,
        Pending::Completion(outcomes, _) => outcomes.is_watched(),
        Pending::Stream(stream) => stream.is_watched(),
    }
}

fn resolve(pending: Pending, result: CallResult) {
    match pending {
        Pending::Waiter(waiter) => waiter.resolve(result),
        Pending::Callback(callback) => callback(result),
        Pending::Completion(outcomes, token) => outcomes.push(token, result),
        Pending::Stream(stream) => stream.end(result),
        Pending::Forgotten => {}
    }
}

thread_local! {
    /// Each thread waits for one answer at a time.
    static WAITER: std::cell::RefCell<Option<Arc<Waiter>>> = const { std::cell::RefCell::new(None) };
}

/// A waiter of this thread.
pub(crate) fn borrow_waiter() -> Arc<Waiter> {
    WAITER.with_borrow_mut(Option::take).unwrap_or_default()
}

/// Gives it back, if nobody else can resolve it any more.
pub(crate) fn return_waiter(mut waiter: Arc<Waiter>) {
    if let Some(own) = Arc::get_mut(&mut waiter) {
        own.reset();
        WAITER.with_borrow_mut(|place| *place = Some(waiter));
    }
}
