//! Outcomes in a queue: what event loops and other languages build on.
//!
//! Who polls reads the connection itself, as who waits for a call does: a thread that submits and polls needs no other one, and takes
//! every reply that has come with one system call. Once the queue's descriptor was asked for, the connection's pump reads instead,
//! since somebody must while the caller waits elsewhere.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tine_base::event::Event;

use super::inner::{CallResult, Pending, Waiter};
use super::{Client, SUBMIT_LIMIT};
use crate::error::CallError;
use crate::frame::Kind;

/// The outcome of one submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What the caller called it.
    pub token: u64,
    /// Its reply, or why there is none.
    pub result: CallResult,
}

/// Outcomes that wait to be polled.
#[derive(Debug)]
pub(crate) struct Outcomes {
    done: Mutex<VecDeque<Completion>>,
    /// The thread that polls.
    waiter: Arc<Waiter>,
    event: Event,
    /// Somebody waits for the event. Set under the lock of the connection's state.
    watched: AtomicBool,
}

impl Outcomes {
    /// Whether the pump has to read for this queue; changes only under the lock of the connection's state.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    pub fn push(&self, token: u64, result: CallResult) {
        let was_empty = {
            let mut done = self.done.lock();
            done.push_back(Completion { token, result });
            let was_empty = done.len() == 1;
            // Under the lock, as is draining: the event never rings for what has been taken.
            if was_empty && self.is_watched() {
                self.event.ring();
            }
            was_empty
        };
        // Who waits has found nothing: what comes after the first finds it awake.
        if was_empty {
            self.waiter.look();
        }
    }

    fn pop(&self) -> Option<Completion> {
        let mut done = self.done.lock();
        let completion = done.pop_front()?;
        if done.is_empty() && self.is_watched() {
            self.event.drain();
        }
        Some(completion)
    }

    /// From now on the descriptor tells whether outcomes wait. False: it does already.
    pub fn watch(&self) -> bool {
        let done = self.done.lock();
        let is_new = !self.watched.swap(true, Ordering::Relaxed);
        if is_new && !done.is_empty() {
            self.event.ring();
        }
        is_new
    }
}

/// Submissions whose outcomes are polled for. What it holds is bounded by the requests in flight, and by how often it is polled.
#[derive(Debug)]
pub struct CompletionQueue {
    client: Client,
    outcomes: Arc<Outcomes>,
    /// Held by the thread that waits: others wait for it, not beside it.
    turn: Mutex<()>,
}

impl CompletionQueue {
    pub(super) fn new(client: Client) -> io::Result<Self> {
        let outcomes = Outcomes {
            done: Mutex::default(),
            waiter: Arc::default(),
            event: Event::new()?,
            watched: AtomicBool::new(false),
        };
        Ok(CompletionQueue { client, outcomes: Arc::new(outcomes), turn: Mutex::default() })
    }

    /// Sends a request whose outcome will carry `token`.
    ///
    /// # Errors
    /// [`CallError`]: the request was not sent, and no outcome of it will come.
    pub fn submit(&self, token: u64, payload: &[u8]) -> Result<(), CallError> {
        let pending = Pending::Completion(self.outcomes.clone(), token);
        self.client.inner().request(Kind::Request, payload, pending, SUBMIT_LIMIT).map(drop)
    }

    /// The next outcome, waiting up to `limit` for one.
    pub fn poll(&self, limit: Duration) -> Option<Completion> {
        if let Some(completion) = self.outcomes.pop() {
            return Some(completion);
        }
        let started = Instant::now();
        let _turn = self.turn.try_lock_for(limit)?;
        let inner = self.client.inner();
        if limit.is_zero() {
            inner.read_now();
            return self.outcomes.pop();
        }
        loop {
            let left = limit.saturating_sub(started.elapsed());
            let next = || self.outcomes.pop().map(Some).or_else(|| inner.is_closed().then_some(None));
            match inner.wait_until(&self.outcomes.waiter, left, next)? {
                Some(completion) => return Some(completion),
                None if left.is_zero() => return None,
                // The connection has ended: what can still come are the errors of what was in flight.
                None => self.outcomes.waiter.sleep(left),
            }
        }
    }
}

impl AsFd for CompletionQueue {
    /// Readable while outcomes wait to be polled.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.inner().watch_outcomes(&self.outcomes);
        self.outcomes.event.as_fd()
    }
}
