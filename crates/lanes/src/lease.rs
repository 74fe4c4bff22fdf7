//! The worker on loan to a thread of its own choosing, such as one that runs a procedure's transaction.

use std::sync::Arc;

use crate::lane::{Inner, State};
use crate::{Refusal, Worker};

/// Exclusive hold of a lane's worker, outside the lane's runner. Dropping it lets the lane go on; dropping it while panicking
/// faults the lane.
pub struct Lease<W: Worker> {
    worker: Option<Box<W>>,
    inner: Arc<Inner<W>>,
}

impl<W: Worker> Lease<W> {
    pub(crate) fn new(worker: Box<W>, inner: Arc<Inner<W>>) -> Self {
        Lease { worker: Some(worker), inner }
    }
}

impl<W: Worker> std::ops::Deref for Lease<W> {
    type Target = W;
    fn deref(&self) -> &W {
        self.worker.as_ref().expect("a lease holds the worker until it is dropped")
    }
}

impl<W: Worker> std::ops::DerefMut for Lease<W> {
    fn deref_mut(&mut self) -> &mut W {
        self.worker.as_mut().expect("a lease holds the worker until it is dropped")
    }
}

impl<W: Worker> Drop for Lease<W> {
    fn drop(&mut self) {
        let worker = self.worker.take().expect("a lease is dropped once");
        self.inner.take_back(worker, std::thread::panicking());
    }
}

impl<W: Worker> Inner<W> {
    fn take_back(self: &Arc<Self>, worker: Box<W>, faulted: bool) {
        let mut queue = self.queue.lock();
        assert_eq!(queue.state, State::Leased, "a lease ends once");
        if faulted {
            queue.closing = Some(Refusal::Faulted);
        }
        if queue.closing.is_some() {
            return self.finish_closing(queue, worker);
        }
        if queue.entries.is_empty() {
            return queue.rest(worker);
        }
        queue.worker = Some(worker);
        queue.state = State::Idle;
        self.start(queue);
    }
}
