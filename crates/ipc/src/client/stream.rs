//! The receiving end of a stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::inner::{CallResult, Inner, Waiter};
use crate::error::CallError;
use crate::frame::Kind;

/// How long telling the server of credit or a cancellation may take.
const NOTIFY_LIMIT: Duration = Duration::from_secs(5);

type Waker = Arc<dyn Fn() + Send + Sync>;

/// Items that have arrived and were not taken.
pub(crate) struct StreamQueue {
    state: Mutex<State>,
    /// Whoever waits for items.
    waiter: Arc<Waiter>,
}

struct State {
    items: VecDeque<Vec<u8>>,
    end: Option<CallResult>,
    /// Items the server may still send.
    credit: u32,
    waker: Option<Waker>,
}

impl StreamQueue {
    fn new(credit: u32) -> Self {
        let state = State { items: VecDeque::new(), end: None, credit, waker: None };
        StreamQueue { state: Mutex::new(state), waiter: Arc::default() }
    }

    pub fn is_watched(&self) -> bool {
        self.state.lock().waker.is_some()
    }

    /// Adds an item; false: there was no credit for it.
    pub fn push(&self, item: Vec<u8>) -> bool {
        self.change(|state| {
            let Some(credit) = state.credit.checked_sub(1) else { return false };
            state.credit = credit;
            state.items.push_back(item);
            true
        })
    }

    pub fn end(&self, result: CallResult) {
        self.change(|state| state.end.get_or_insert(result).is_ok());
    }

    fn change(&self, change: impl FnOnce(&mut State) -> bool) -> bool {
        let (outcome, waker) = {
            let mut state = self.state.lock();
            (change(&mut state), state.waker.clone())
        };
        self.waiter.look();
        if let Some(waker) = waker {
            waker();
        }
        outcome
    }
}

/// What a stream has for its reader now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamItem {
    /// An item.
    Item(Vec<u8>),
    /// The end, with the service's last word.
    End(Vec<u8>),
}

/// A stream of items. Dropping it tells the server to stop.
pub struct ClientStream {
    inner: Arc<Inner>,
    queue: Arc<StreamQueue>,
    id: u64,
    /// Room for items, in items.
    window: u32,
    /// Held by the thread that waits: others wait for it, not beside it.
    turn: Mutex<()>,
}

impl std::fmt::Debug for ClientStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClientStream").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ClientStream {
    pub(crate) fn open(
        inner: &Arc<Inner>,
        payload: &[u8],
        window: u32,
        limit: Duration,
    ) -> Result<ClientStream, CallError> {
        if inner.is_plain() {
            return Err(CallError::NotStreamed("a plain connection has no streams".into()));
        }
        let window = window.max(1);
        let queue = Arc::new(StreamQueue::new(window));
        let mut request = Vec::with_capacity(4 + payload.len());
        request.extend_from_slice(&window.to_le_bytes());
        request.extend_from_slice(payload);
        let pending = super::inner::Pending::Stream(queue.clone());
        let id = inner.request(Kind::StreamRequest, &request, pending, limit)?;
        Ok(ClientStream { inner: inner.clone(), queue, id, window, turn: Mutex::default() })
    }

    /// What is there now, without waiting. None: nothing yet. After the end, the end again.
    ///
    /// # Errors
    /// What ended the stream, if it was not the service's own end.
    pub fn try_next(&self) -> Option<Result<StreamItem, CallError>> {
        let mut state = self.queue.state.lock();
        let Some(item) = state.items.pop_front() else {
            return state.end.clone().map(|end| end.map(StreamItem::End));
        };
        // Half the window at a time: often enough to keep the server going, seldom enough to be cheap.
        let spent = self.window - state.credit - state.items.len() as u32;
        let refill = state.end.is_none() && spent > self.window / 2;
        if refill {
            state.credit += spent;
        }
        drop(state);
        if refill {
            // If the connection has ended, the queue says so.
            let _ = self.inner.notify(Kind::Credit, self.id, &spent.to_le_bytes(), NOTIFY_LIMIT);
        }
        Some(Ok(StreamItem::Item(item)))
    }

    /// Waits up to `limit` for the next item, or the end. Several threads may wait; each item goes to one of them.
    ///
    /// # Errors
    /// `TimedOut`, after which one may go on waiting, and whatever else ended the stream.
    pub fn next(&self, limit: Duration) -> Result<StreamItem, CallError> {
        let started = Instant::now();
        let Some(_turn) = self.turn.try_lock_for(limit) else { return Err(CallError::TimedOut) };
        let left = limit.saturating_sub(started.elapsed());
        let next = self.inner.wait_until(&self.queue.waiter, left, || self.try_next());
        next.unwrap_or(Err(CallError::TimedOut))
    }

    /// `waker` is called whenever [`try_next`](Self::try_next) may have something new, on the thread that reads the connection: it
    /// must not block. Called once right away.
    pub fn on_ready(&self, waker: impl Fn() + Send + Sync + 'static) {
        let waker: Waker = Arc::new(waker);
        self.inner.watch(self.id, || self.queue.state.lock().waker.replace(waker.clone()).is_none());
        waker();
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        let ended = self.queue.state.lock().end.is_some();
        if !ended {
            self.inner.forget(self.id);
            // If the connection has ended, so has the stream.
            let _ = self.inner.notify(Kind::Cancel, self.id, &[], NOTIFY_LIMIT);
        }
    }
}
