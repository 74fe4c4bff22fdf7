//! What an instance knows besides its JavaScript: the limits it runs under, the call that is running, and what was looked up
//! once for all calls.
//!
//! Natives reach it through the context. All of it is cells, because a native may be entered while another one is further
//! up the stack (a getter on a row object can call anything).

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tine_tables::ReadSet;
use tine_types::Identity;

use super::boot::Boot;
use super::bundle::BundleState;
use super::heap::Heap;
use super::lent::{Lent, LentShared};
use super::program::Program;
use super::raw::{Loaded, Slot, Value};
use super::scan::Scans;
use super::tables::Tables;
use crate::call::{CallContext, CallHost};
use crate::source::resolve::SDK_MODULE;

/// Why running code was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Deadline,
    OutOfMemory,
    Interrupted,
}

/// What the engine asks every few thousand steps.
pub(super) struct Guard {
    deadline: Cell<Option<Instant>>,
    stop: Cell<Option<Stop>>,
    interrupt: Arc<AtomicBool>,
}

impl Guard {
    fn new(interrupt: Arc<AtomicBool>) -> Guard {
        Guard { deadline: Cell::new(None), stop: Cell::new(None), interrupt }
    }

    /// Starts a call that has to end by `deadline`.
    pub(super) fn arm(&self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
        self.stop.set(None);
    }

    /// Whether the code has to stop. Once true it stays so until the guard is armed again.
    pub(super) fn should_stop(&self) -> bool {
        if self.stop.get().is_none() {
            if self.interrupt.load(Ordering::Relaxed) {
                self.stop.set(Some(Stop::Interrupted));
            } else if self.deadline.get().is_some_and(|deadline| Instant::now() >= deadline) {
                self.stop.set(Some(Stop::Deadline));
            }
        }
        self.stop.get().is_some()
    }

    /// Why the code was stopped, if it was.
    pub(super) fn stop(&self) -> Option<Stop> {
        self.stop.get()
    }
}

/// Which modules can be imported.
pub(super) enum Modules {
    /// Any, all of them empty: enough to compile against.
    Stubs,
    /// Those of a program, and the SDK.
    Program(Arc<Program>),
}

/// See the module doc.
pub(super) struct State {
    pub(super) heap: Heap,
    pub(super) guard: Guard,
    pub(super) modules: Modules,
    pub(super) boot: OnceCell<Boot>,
    /// Set in an instance of a bundle.
    pub(super) bundle: OnceCell<BundleState>,
    pub(super) tables: OnceCell<Tables>,
    pub(super) scans: Scans,
    pub(super) call: CallState,
    panic: Cell<Option<Box<dyn Any + Send>>>,
    fault: RefCell<Option<String>>,
}

/// The call that is running. Empty between calls, but for the caches.
pub(super) struct CallState {
    pub(super) host: Lent<dyn CallHost>,
    pub(super) context: LentShared<CallContext>,
    /// The time of the open transaction of a procedure.
    pub(super) transaction_micros: Cell<Option<i64>>,
    /// The state of the random numbers: a splitmix64.
    pub(super) random: Cell<u64>,
    /// How many version 7 UUIDs the call made.
    pub(super) uuid_count: Cell<u32>,
    /// Set while a view runs: then tables cannot be changed, and what is read of them is noted.
    pub(super) is_view: Cell<bool>,
    pub(super) reads: RefCell<ReadSet>,
    /// How many lines the call logged.
    pub(super) log_lines: Cell<u32>,
    /// Console timers that run.
    pub(super) timers: RefCell<Vec<(String, Instant)>>,
    /// The object of the last sender that somebody looked at, for calls by the same one.
    pub(super) sender: (Cell<Option<Identity>>, Slot),
    /// The same for the time.
    pub(super) timestamp: (Cell<Option<i64>>, Slot),
    /// Buffers that are used again.
    pub(super) row: Cell<Vec<u8>>,
    pub(super) generated: Cell<Vec<u8>>,
}

impl State {
    pub(super) fn new(memory_bytes: usize, modules: Modules, interrupt: Arc<AtomicBool>) -> State {
        State {
            heap: Heap::new(memory_bytes),
            guard: Guard::new(interrupt),
            modules,
            boot: OnceCell::new(),
            bundle: OnceCell::new(),
            tables: OnceCell::new(),
            scans: Scans::default(),
            call: CallState {
                host: Lent::empty(),
                context: LentShared::empty(),
                transaction_micros: Cell::new(None),
                random: Cell::new(0),
                uuid_count: Cell::new(0),
                is_view: Cell::new(false),
                reads: RefCell::default(),
                log_lines: Cell::new(0),
                timers: RefCell::default(),
                sender: (Cell::new(None), Slot::empty()),
                timestamp: (Cell::new(None), Slot::empty()),
                row: Cell::default(),
                generated: Cell::default(),
            },
            panic: Cell::new(None),
            fault: RefCell::new(None),
        }
    }

    /// Runs a view's call: see [`CallState::is_view`]. Returns also what was read.
    pub(super) fn as_view<T>(&self, call: impl FnOnce() -> T) -> (T, ReadSet) {
        self.call.reads.take();
        self.call.is_view.set(true);
        let result = call();
        self.call.is_view.set(false);
        (result, self.call.reads.take())
    }

    /// Forgets the last call and prepares for one with this context.
    pub(super) fn begin(&self, context: &CallContext) {
        self.call.transaction_micros.set(None);
        self.call.random.set(context.seed);
        self.call.uuid_count.set(0);
        self.call.log_lines.set(0);
        self.call.timers.borrow_mut().clear();
        self.guard.arm(Instant::now().checked_add(context.deadline));
    }

    /// Every slot of the state; the runtime empties them before it goes.
    pub(super) fn slots(&self) -> [&Slot; 2] {
        [&self.call.sender.1, &self.call.timestamp.1]
    }

    /// What the SDK gave us.
    ///
    /// # Panics
    /// Before it was loaded.
    pub(super) fn boot(&self) -> &Boot {
        self.boot.get().expect("the SDK is loaded before anything else runs")
    }

    /// The program that runs.
    pub(super) fn program(&self) -> Option<&Program> {
        match &self.modules {
            Modules::Program(program) => Some(program),
            Modules::Stubs => None,
        }
    }

    /// The module that `specifier` means in the file `importer`. Linking has resolved all of them.
    pub(super) fn resolve_import(&self, importer: &str, specifier: &str) -> String {
        let file = self.program().and_then(|program| program.files.get(importer));
        let resolved = file.and_then(|file| file.imports.get(specifier));
        resolved.cloned().unwrap_or_else(|| specifier.to_owned())
    }

    /// The module with a name that [`State::resolve_import`] returned.
    pub(super) fn load_module(&self, name: &str) -> Loaded<'_> {
        let Modules::Program(program) = &self.modules else { return Loaded::Stub };
        if let Some(found) = self.bundle.get().and_then(|bundle| bundle.load_module(name)) {
            return found;
        }
        if name == SDK_MODULE {
            return Loaded::Object(self.boot().sdk().exports, &program.sdk_names);
        }
        program.files.get(name).map_or(Loaded::Missing, |file| Loaded::File(&file.bytecode))
    }

    /// A promise was rejected and nobody looks at it.
    pub(super) fn promise_rejected(&self, reason: &Value<'_>) {
        super::console::log_rejection(reason);
    }

    /// Keeps a panic of a native until the engine's frames are gone.
    pub(super) fn set_panic(&self, payload: Box<dyn Any + Send>) {
        self.panic.set(Some(payload));
    }

    /// Goes on with a panic of a native.
    pub(super) fn resume_panic(&self) {
        if let Some(payload) = self.panic.take() {
            std::panic::resume_unwind(payload);
        }
    }

    /// Notes a failure of the host: from here on the call can do nothing.
    pub(super) fn set_fault(&self, message: String) {
        self.fault.borrow_mut().get_or_insert(message);
    }

    pub(super) fn take_fault(&self) -> Option<String> {
        self.fault.borrow_mut().take()
    }

    pub(super) fn has_fault(&self) -> bool {
        self.fault.borrow().is_some()
    }
}
