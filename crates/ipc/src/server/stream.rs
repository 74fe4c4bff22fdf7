//! Answers of many items. The client says how many items it has room for; no more are sent, so a stream that nobody reads costs its
//! server nothing.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::responder::{AnswerKind, Ticket};
use crate::error::{CODE_DROPPED, StreamError};
use crate::frame::encode_error;

/// Called when a stream can go on, or is no longer wanted.
type Waker = Arc<dyn Fn() + Send + Sync>;

/// What the reactor and the sender of a stream both know.
pub(crate) struct StreamState {
    state: Mutex<State>,
    changed: Condvar,
    item_bytes_max: usize,
}

struct State {
    credit: u64,
    cancelled: bool,
    waker: Option<Waker>,
}

impl std::fmt::Debug for StreamState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        formatter
            .debug_struct("StreamState")
            .field("credit", &state.credit)
            .field("cancelled", &state.cancelled)
            .finish()
    }
}

impl StreamState {
    pub fn new(credit: u32, item_bytes_max: usize) -> Self {
        let state = State { credit: credit.into(), cancelled: false, waker: None };
        StreamState { state: Mutex::new(state), changed: Condvar::new(), item_bytes_max }
    }

    pub fn cancelled() -> Self {
        let stream = StreamState::new(0, 0);
        stream.state.lock().cancelled = true;
        stream
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.state.lock();
            change(&mut state);
            state.waker.clone()
        };
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker();
        }
    }

    pub fn add_credit(&self, items: u32) {
        self.change(|state| state.credit = state.credit.saturating_add(items.into()));
    }

    pub fn cancel(&self) {
        self.change(|state| state.cancelled = true);
    }

    fn take_credit(&self, wait: Option<Instant>) -> Result<(), StreamError> {
        let mut state = self.state.lock();
        loop {
            if state.cancelled {
                return Err(StreamError::Cancelled);
            }
            if state.credit > 0 {
                state.credit -= 1;
                return Ok(());
            }
            let timed_out = wait.is_none_or(|until| self.changed.wait_until(&mut state, until).timed_out());
            if timed_out && state.credit == 0 && !state.cancelled {
                return Err(StreamError::NoCredit);
            }
        }
    }
}

/// Sends the items of one stream, from any thread. Dropped without an end, it ends with an error (TN0926).
#[derive(Debug)]
pub struct StreamSender {
    /// None: the client called for no stream.
    ticket: Option<Ticket>,
    state: Arc<StreamState>,
}

impl StreamSender {
    pub(crate) fn new(ticket: Option<Ticket>, state: Arc<StreamState>) -> Self {
        StreamSender { ticket, state }
    }

    /// Sends one item, if the client has room for it. Never blocks.
    ///
    /// # Errors
    /// [`StreamError`]; after `NoCredit` try again when [`on_ready`](Self::on_ready) calls.
    pub fn send(&self, item: &[u8]) -> Result<(), StreamError> {
        self.send_until(item, None)
    }

    /// Sends one item, waiting up to `limit` for the client to have room. Not for the reactor's own thread, where it would wait for
    /// itself.
    ///
    /// # Errors
    /// [`StreamError`]; `NoCredit` when the limit has passed.
    pub fn send_timeout(&self, item: &[u8], limit: Duration) -> Result<(), StreamError> {
        self.send_until(item, Some(Instant::now() + limit))
    }

    fn send_until(&self, item: &[u8], wait: Option<Instant>) -> Result<(), StreamError> {
        let Some(ticket) = &self.ticket else { return Err(StreamError::Cancelled) };
        if item.len() > self.state.item_bytes_max {
            return Err(StreamError::TooLarge);
        }
        self.state.take_credit(wait)?;
        ticket.answer(AnswerKind::Item, Cow::Borrowed(item));
        Ok(())
    }

    /// The client does not want more, or is gone.
    pub fn is_cancelled(&self) -> bool {
        self.state.state.lock().cancelled
    }

    /// `waker` is called when the client has room again and when it cancels: on the reactor's thread, so it must not block. Called
    /// once right away if either is the case already.
    pub fn on_ready(&self, waker: impl Fn() + Send + Sync + 'static) {
        let waker: Waker = Arc::new(waker);
        let ready = {
            let mut state = self.state.state.lock();
            state.waker = Some(waker.clone());
            state.credit > 0 || state.cancelled
        };
        if ready {
            waker();
        }
    }

    /// Ends the stream with a last word, which may be empty.
    pub fn finish(mut self, last: &[u8]) {
        if let Some(ticket) = self.ticket.take() {
            ticket.answer(AnswerKind::StreamEnd, Cow::Borrowed(last));
        }
    }

    /// Ends the stream with an error.
    pub fn fail(mut self, code: &str, message: &str) {
        if let Some(ticket) = self.ticket.take() {
            ticket.answer(AnswerKind::StreamError, Cow::Owned(encode_error(code, message)));
        }
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        // The waker may own what owns this sender.
        self.state.state.lock().waker = None;
        if let Some(ticket) = self.ticket.take() {
            let error = encode_error(CODE_DROPPED, "the service dropped the stream without an end");
            ticket.answer(AnswerKind::StreamError, Cow::Owned(error));
        }
    }
}
