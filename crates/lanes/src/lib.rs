//! Per-key request ordering without a thread per key.
//!
//! A [`Lane`] is a queue with an owner. It holds one *worker* (the state that requests of the lane may touch) and the jobs
//! waiting for it. Whoever makes an idle lane non-empty becomes its owner and either runs the jobs on the spot or hands the lane to
//! the [`Executor`] the caller supplied; the crate owns no thread and knows no runtime. Submitting never waits for a job to finish.
//!
//! Invariants:
//! - The worker is in exactly one place: in the lane (idle or scheduled), with the one runner, or in the one [`Lease`].
//! - Jobs run in the order they were queued; a lease is granted in its place in that order.
//! - A job that was accepted is either run or passed to [`Worker::refuse`], exactly once, also when the lane closes or a job panics.
//! - A lane with a non-empty queue is always running, scheduled on the executor, or leased: no wake-up is lost.

mod executor;
mod lane;
#[cfg(test)]
mod tests;

pub use executor::{Executor, FixedPool, SpawnThread};
pub use lane::{Lane, LaneOptions, Lease, Refusal, SubmitError, Worker};
