//! Instances in processes of their own.
//!
//! An engine contains what it was made to contain. Code that finds a hole in it, or that keeps a native busy where the engine does not
//! look at the clock, is contained by a process: a worker of `tine-sandbox` that can compute and nothing else. It compiles the program
//! and runs the calls with the same engine; each table operation, log line and transaction of a call is a question that the thread
//! which waits for the call answers ([`server`]), so a call sees and does the same as beside its tables.
//!
//! # Invariants
//!
//! 1. One worker serves one instance, or the one evaluation that tells what a program defines, and is ended with it. No other code of
//!    an isolated module runs in the server, not even its top level when it is published.
//! 2. Nothing a worker says is believed: questions are decoded with bounds and asked of the tables, which check them; results are
//!    checked against their types. A view's writes are refused here, and what it reads is noted here.
//! 3. A worker that ends between calls is replaced without anybody noticing; one that ends during a call fails that call.
//! 4. The engine's own deadline comes first, because it knows the place in the source; the kill from outside comes a little later.

mod server;
mod wire;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tine_sandbox::{Entry, Pool, PoolOptions, Sandbox, Shape, StartError, WorkerKey};
use tine_tables::DatabaseSchema;

use crate::module::Limits;

pub(crate) use server::{ModuleSource, RemoteIsolate, describe};
pub use wire::{Ask, IndexRange, Refusal};

/// What a program that isolates modules passes to [`tine_sandbox::init`].
pub const ENTRY: Entry = Entry::new("tine-module", worker::serve);

/// Most bytes of a request, of a piece of its reply and of a piece of an answer. Arguments and rows rarely have more, and what has
/// travels in pieces.
const PIECE_BYTES: u32 = 64 << 10;
/// A slot holds a piece of each kind.
const SLOT_BYTES: u32 = 4 * PIECE_BYTES;
/// An instance runs one call at a time; a second slot is for the call after one that was given up.
const SLOTS: u32 = 2;
/// What a worker may have beside its instance's memory: the program, its compiler, and rows on their way.
const HEADROOM_BYTES: u64 = 256 << 20;
/// Instances are worth their memory for longer than other workers, because a new one compiles its module.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Where isolated instances run. Cheap to clone.
#[derive(Clone)]
pub struct Isolation {
    pool: Pool,
    next_key: Arc<AtomicU64>,
}

impl Isolation {
    /// Prepares a pool of workers for instances with these limits.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(sandbox: &Sandbox, limits: &Limits) -> Result<Isolation, StartError> {
        let pool = sandbox.pool(PoolOptions {
            shape: Shape::new(SLOTS, SLOT_BYTES, 0).expect("a good shape"),
            // Rows are copied once on their way from the border to the engine.
            memory_bytes: 2 * limits.memory_bytes as u64 + HEADROOM_BYTES,
            idle_max: IDLE_MAX,
            ..PoolOptions::new("tine-module")
        })?;
        Ok(Isolation { pool, next_key: Arc::default() })
    }

    /// A place for one more instance.
    fn place(&self) -> WorkerPlace {
        let number = self.next_key.fetch_add(1, Ordering::Relaxed);
        WorkerPlace { pool: self.pool.clone(), key: WorkerKey(number.into()) }
    }
}

impl std::fmt::Debug for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Isolation").finish_non_exhaustive()
    }
}

/// The place of one instance's worker.
#[derive(Clone)]
pub(crate) struct WorkerPlace {
    pool: Pool,
    key: WorkerKey,
}

impl WorkerPlace {
    /// Ends the worker; a call that runs is cancelled.
    pub(crate) fn end(&self) {
        self.pool.end(self.key);
    }
}

impl std::fmt::Debug for WorkerPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerPlace").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The tables of a transaction on the other side of the border.
pub trait RemoteTables {
    /// The schema of the tables.
    fn schema(&self) -> &Arc<DatabaseSchema>;

    /// Asks for one operation and waits for the answer.
    ///
    /// # Errors
    /// See [`Refusal`].
    fn ask(&mut self, ask: &Ask<'_>) -> Result<&[u8], Refusal>;
}
