//! Ending a procedure that nobody waits for any more, because its client left or its fork closed.
//!
//! It ends at a transaction boundary: a transaction that is open goes on to its end, the next one does not begin, and code that runs
//! between transactions is interrupted.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tine_module::InterruptHandle;

/// Whether one procedure is to end, and how it can be reached.
#[derive(Debug, Default)]
pub(crate) struct Cancellation {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cancelled: bool,
    in_transaction: bool,
    /// The instance it runs in, while it runs.
    running: Option<InterruptHandle>,
    interrupted: bool,
}

impl State {
    fn interrupt(&mut self) {
        if let Some(running) = &self.running {
            running.interrupt();
            self.interrupted = true;
        }
    }
}

impl Cancellation {
    /// Ends the procedure at the next transaction boundary, or before it starts.
    pub fn cancel(&self) {
        let mut state = self.state.lock();
        state.cancelled = true;
        if !state.in_transaction {
            state.interrupt();
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.state.lock().cancelled
    }

    /// The procedure starts; false when it is not to.
    pub fn begin(&self, running: InterruptHandle) -> bool {
        let mut state = self.state.lock();
        state.running = Some(running);
        !state.cancelled
    }

    /// The procedure has ended; true when its instance was interrupted and is not to be used again.
    pub fn end(&self) -> bool {
        let mut state = self.state.lock();
        state.running = None;
        state.interrupted
    }

    /// A transaction has its turn; false when it is not to begin.
    pub fn enter_transaction(&self) -> bool {
        let mut state = self.state.lock();
        state.in_transaction = !state.cancelled;
        state.in_transaction
    }

    /// The transaction is over.
    pub fn leave_transaction(&self) {
        let mut state = self.state.lock();
        state.in_transaction = false;
        if state.cancelled {
            state.interrupt();
        }
    }
}

/// Procedures that share a fate: those of one client, or of one fork.
#[derive(Debug, Default)]
pub(crate) struct Cancellations {
    running: Vec<Weak<Cancellation>>,
    /// Length at which those that have ended are swept out; the sweep is paid for by the additions since the last.
    sweep_at: usize,
}

impl Cancellations {
    /// Fewer are not worth sweeping.
    const SWEEP_MIN: usize = 32;

    pub fn add(&mut self, cancellation: &Arc<Cancellation>) {
        if self.running.len() >= self.sweep_at {
            self.running.retain(|running| running.strong_count() > 0);
            self.sweep_at = (2 * self.running.len()).max(Self::SWEEP_MIN);
        }
        self.running.push(Arc::downgrade(cancellation));
    }

    /// Cancels all of them.
    pub fn cancel(&mut self) {
        for running in self.running.drain(..) {
            if let Some(running) = running.upgrade() {
                running.cancel();
            }
        }
    }
}

/// Somebody waits for the answer to a call. Dropping it before the answer came ends a procedure at the next transaction boundary;
/// a reducer that was accepted runs all the same.
#[must_use = "dropping it cancels a procedure"]
#[derive(Debug)]
pub struct CallGuard(pub(crate) Arc<Cancellation>);

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
