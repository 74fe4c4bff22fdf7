//! Threads that take turns.
//!
//! Of the threads of a simulated machine one runs at a time. A spawned thread begins to wait at once. How it goes on
//! depends on what it is for:
//! - *By records*: the log thread. It goes on between two steps of the simulation, and when somebody waits for a record,
//!   from one operation to the next: so it may have written half of a frame while others append, and be asleep when they
//!   do. When the store closes it is joined, and runs to its end.
//! - *By operations*: the thread that prepares a log segment. It holds no locks, so any other thread's operation lets it
//!   make a few of its own.
//! - *By objects*: the thread that images. It takes the store's locks, so it goes on only between two steps of the
//!   simulation, from one access to the object store to the next, where it holds none but that of its own round.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};

use parking_lot::{Condvar, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Records,
    Operations,
    Objects,
}

#[derive(Default)]
struct State {
    turns: u64,
    free: bool,
    waits: bool,
    ended: bool,
}

struct Gate {
    turn: Turn,
    state: Mutex<State>,
    changed: Condvar,
}

thread_local! {
    static OWN: RefCell<Option<Arc<Gate>>> = const { RefCell::new(None) };
}

/// The spawned threads that have not ended.
#[derive(Default)]
pub struct Threads(Mutex<Vec<(ThreadId, Arc<Gate>)>>);

impl Gate {
    /// Waits for a turn, on the thread itself.
    fn wait(&self) {
        let mut state = self.state.lock();
        if !state.free {
            state.waits = true;
            self.changed.notify_all();
            while state.turns == 0 && !state.free {
                self.changed.wait(&mut state);
            }
            state.turns = state.turns.saturating_sub(1);
            state.waits = false;
        }
    }

    /// Lets the thread go on, and waits until it waits again or has ended.
    fn go(&self) {
        let mut state = self.state.lock();
        while !state.waits && !state.ended {
            self.changed.wait(&mut state);
        }
        if state.ended {
            return;
        }
        state.turns = 1;
        state.waits = false;
        self.changed.notify_all();
        while !state.waits && !state.ended {
            self.changed.wait(&mut state);
        }
    }

    fn free(&self) {
        self.state.lock().free = true;
        self.changed.notify_all();
    }
}

impl Threads {
    pub fn spawn(&self, turn: Turn, name: &str, body: Box<dyn FnOnce() + Send>) -> std::io::Result<JoinHandle<()>> {
        let gate = Arc::new(Gate { turn, state: Mutex::default(), changed: Condvar::new() });
        let own = Arc::clone(&gate);
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            /// Says that the thread ended, also by a panic.
            struct Ended(Arc<Gate>);
            impl Drop for Ended {
                fn drop(&mut self) {
                    self.0.state.lock().ended = true;
                    self.0.changed.notify_all();
                }
            }
            let _ended = Ended(Arc::clone(&own));
            OWN.set(Some(Arc::clone(&own)));
            own.wait();
            body();
        })?;
        self.0.lock().push((handle.thread().id(), gate));
        Ok(handle)
    }

    /// Lets the thread run to its end and waits for it.
    pub fn join(&self, handle: JoinHandle<()>) -> std::thread::Result<()> {
        let id = handle.thread().id();
        if let Some((_, gate)) = self.0.lock().iter().find(|(other, _)| *other == id) {
            gate.free();
        }
        let result = handle.join();
        self.0.lock().retain(|(other, _)| *other != id);
        result
    }

    /// Whether this is a thread of that kind.
    pub fn is(turn: Turn) -> bool {
        OWN.with_borrow(|own| own.as_ref().is_some_and(|own| own.turn == turn))
    }

    /// Where a thread of that kind waits for its turn; does nothing on others.
    pub fn turn(turn: Turn) {
        let own = OWN.with_borrow(|own| own.as_ref().filter(|own| own.turn == turn).map(Arc::clone));
        if let Some(own) = own {
            own.wait();
        }
    }

    fn of(&self, turn: Turn) -> Option<Arc<Gate>> {
        let mut gates = self.0.lock();
        if turn == Turn::Objects {
            // Nobody joins these.
            gates.retain(|(_, gate)| gate.turn != turn || !gate.state.lock().ended);
        }
        gates.iter().find(|(_, gate)| gate.turn == turn).map(|(_, gate)| Arc::clone(gate))
    }

    /// Gives the first thread of a kind, if there is one, a turn. A thread gives none to itself.
    pub fn give_turn(&self, turn: Turn) {
        if Threads::is(turn) {
            return;
        }
        if let Some(gate) = self.of(turn) {
            gate.go();
        }
    }

    /// Gives the threads of a kind turns until all have ended.
    pub fn finish(&self, turn: Turn) {
        while let Some(gate) = self.of(turn) {
            gate.go();
        }
    }
}
