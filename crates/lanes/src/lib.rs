//! Per-key request ordering without a thread per key.
//!
//! A [`Lane`] is a queue with an owner. It holds one [`Worker`] (the state that requests of the lane may touch) and the jobs
//! waiting for it. Whoever makes an idle lane non-empty becomes its owner and either runs the jobs on the spot or hands the lane to
//! the [`Executor`] the caller supplied; the crate owns no thread and knows no runtime. Submitting never waits for a job to finish,
//! and a job answers its caller itself, straight from the thread that ran it.
//!
//! A job is a write or an ordered read ([`Class`]). Writes run alone. Neighbouring reads see the same state, so a run of them that is
//! long enough to pay for it is spread over the executor's idle threads, and the next write waits for all of them. Committed reads
//! take no part: they read what the worker has published, and [`Horizon`] keeps them from showing a connection the past.
//!
//! Invariants:
//! - The worker is in exactly one place: in the lane (idle or scheduled), with the one runner, with the one group of reads, or in the
//!   one [`Lease`].
//! - Jobs run in the order they were queued; a lease is granted in its place in that order. Reads of one group run in any order
//!   among themselves and are finished in the order they were queued.
//! - A job that was accepted is either run or passed to [`Worker::refuse`], exactly once, also when the lane closes or a job panics.
//! - A lane with a non-empty queue is always running, scheduled on the executor, or leased: no wake-up is lost.
//! - No thread ever waits for another one's job.

mod connection;
mod counters;
mod executor;
mod group;
mod lane;
mod lease;
#[cfg(test)]
mod models;
mod run;
mod sync;

pub use connection::{Horizon, Overtaken, Place, Quota, Sequencer};
pub use counters::{CounterValues, Counters};
pub use executor::{Executor, FixedPool, FunctionExecutor, ManualExecutor, SpawnThread};
pub use lane::{Class, Lane, LaneOptions, Lanes, Refusal, Sabotage, SubmitError, Worker};
pub use lease::Lease;
