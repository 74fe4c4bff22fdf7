//! Outcomes in a queue with a descriptor: what event loops and other languages build on.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tine_base::event::Event;

use super::Client;
use super::inner::CallResult;
use crate::error::CallError;

/// The outcome of one submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What the caller called it.
    pub token: u64,
    /// Its reply, or why there is none.
    pub result: CallResult,
}

#[derive(Debug)]
struct Shared {
    done: Mutex<VecDeque<Completion>>,
    arrived: Condvar,
    event: Event,
}

/// Submissions whose outcomes are polled for. What it holds is bounded by the requests in flight, and by how often it is polled.
#[derive(Debug)]
pub struct CompletionQueue {
    client: Client,
    shared: Arc<Shared>,
}

impl CompletionQueue {
    pub(super) fn new(client: Client) -> io::Result<Self> {
        let shared = Shared { done: Mutex::default(), arrived: Condvar::new(), event: Event::new()? };
        Ok(CompletionQueue { client, shared: Arc::new(shared) })
    }

    /// Sends a request whose outcome will carry `token`.
    ///
    /// # Errors
    /// [`CallError`]: the request was not sent, and no outcome of it will come.
    pub fn submit(&self, token: u64, payload: &[u8]) -> Result<(), CallError> {
        let shared = self.shared.clone();
        self.client.submit(payload, move |result| {
            let was_empty = {
                let mut done = shared.done.lock();
                done.push_back(Completion { token, result });
                done.len() == 1
            };
            shared.arrived.notify_one();
            if was_empty {
                shared.event.ring();
            }
        })
    }

    /// The next outcome, waiting up to `limit` for one.
    pub fn poll(&self, limit: Duration) -> Option<Completion> {
        let until = Instant::now().checked_add(limit);
        let mut done = self.shared.done.lock();
        loop {
            if let Some(completion) = done.pop_front() {
                if done.is_empty() {
                    self.shared.event.drain();
                }
                return Some(completion);
            }
            match until {
                Some(until) if self.shared.arrived.wait_until(&mut done, until).timed_out() => return done.pop_front(),
                Some(_) => {}
                None => self.shared.arrived.wait(&mut done),
            }
        }
    }
}

impl AsFd for CompletionQueue {
    /// Readable while outcomes wait to be polled.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}
