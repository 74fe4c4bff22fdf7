//! What other threads hand to the reactor: finished work, mostly.
//!
//! Invariant: after [`Queue::arm`] has said "sleep", the next push says "ring". Both happen under one lock, so no push is missed, and
//! a reactor that is awake is never rung. The hint beside the lock is for spinning only.

use crate::sync::{AtomicBool, Mutex, Ordering};

/// A queue with many writers and one reader that sleeps elsewhere.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    hint: AtomicBool,
}

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    reader_sleeps: bool,
    closed: bool,
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        let state = State { items: Vec::new(), reader_sleeps: false, closed: false };
        Queue { state: Mutex::new(state), hint: AtomicBool::new(false) }
    }

    /// Adds an item; true: the reader sleeps, wake it. After [`close`](Self::close) the item is dropped.
    #[must_use]
    pub fn push(&self, item: T) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            // What is dropped may push in turn.
            drop(state);
            drop(item);
            return false;
        }
        state.items.push(item);
        // SYNC: only makes a spinning reader look; what it finds it finds under the lock.
        self.hint.store(true, Ordering::Relaxed);
        std::mem::take(&mut state.reader_sleeps)
    }

    /// There may be items: worth a look.
    pub fn may_have_items(&self) -> bool {
        self.hint.load(Ordering::Relaxed)
    }

    /// Moves all items to `target`, which must be empty.
    pub fn take(&self, target: &mut Vec<T>) {
        assert!(target.is_empty(), "what was taken is handled before more is");
        let mut state = self.state.lock();
        self.hint.store(false, Ordering::Relaxed);
        std::mem::swap(&mut state.items, target);
    }

    /// Announces that the reader sleeps. False: there are items, do not sleep.
    pub fn arm(&self) -> bool {
        let mut state = self.state.lock();
        state.reader_sleeps = state.items.is_empty();
        state.reader_sleeps
    }

    /// No further item is wanted; returns those that are there.
    pub fn close(&self) -> Vec<T> {
        let mut state = self.state.lock();
        state.closed = true;
        std::mem::take(&mut state.items)
    }
}
