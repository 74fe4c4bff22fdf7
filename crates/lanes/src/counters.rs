//! What the lanes of one family did, all together: a fork has no label, because there may be a hundred thousand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of all lanes of a [`crate::Lanes`]. Each is a statistic of its own: nothing is ordered by them.
#[derive(Debug, Default)]
pub struct Counters {
    jobs: AtomicU64,
    run_ns: AtomicU64,
    wait_ns: AtomicU64,
    batches_inline: AtomicU64,
    batches_dispatched: AtomicU64,
    reads_together: AtomicU64,
    refused: AtomicU64,
    expired: AtomicU64,
    waiting: AtomicU64,
}

/// The values of [`Counters`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterValues {
    /// Jobs that ran.
    pub jobs: u64,
    /// Nanoseconds the workers spent on them.
    pub run_ns: u64,
    /// Nanoseconds that jobs waited in queues; those that ran on the submitting thread did not wait.
    pub wait_ns: u64,
    /// Batches that ran on the thread that submitted them.
    pub batches_inline: u64,
    /// Batches that ran on the executor.
    pub batches_dispatched: u64,
    /// Ordered reads that were spread over several threads.
    pub reads_together: u64,
    /// Jobs refused because a queue was full.
    pub refused: u64,
    /// Jobs refused because their deadline had passed when their turn came.
    pub expired: u64,
    /// Jobs waiting in queues now.
    pub waiting: u64,
}

impl Counters {
    /// The values now.
    pub fn values(&self) -> CounterValues {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CounterValues {
            jobs: get(&self.jobs),
            run_ns: get(&self.run_ns),
            wait_ns: get(&self.wait_ns),
            batches_inline: get(&self.batches_inline),
            batches_dispatched: get(&self.batches_dispatched),
            reads_together: get(&self.reads_together),
            refused: get(&self.refused),
            expired: get(&self.expired),
            waiting: get(&self.waiting),
        }
    }

    pub(crate) fn ran(&self, jobs: usize, run: Duration, inline: bool) {
        self.jobs.fetch_add(jobs as u64, Ordering::Relaxed);
        self.run_ns.fetch_add(nanoseconds(run), Ordering::Relaxed);
        let batches = if inline { &self.batches_inline } else { &self.batches_dispatched };
        batches.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ran_together(&self, jobs: usize, run_ns: u64) {
        self.jobs.fetch_add(jobs as u64, Ordering::Relaxed);
        self.run_ns.fetch_add(run_ns, Ordering::Relaxed);
        self.batches_dispatched.fetch_add(1, Ordering::Relaxed);
        self.reads_together.fetch_add(jobs as u64, Ordering::Relaxed);
    }

    pub(crate) fn queued(&self, jobs: usize) {
        self.waiting.fetch_add(jobs as u64, Ordering::Relaxed);
    }

    pub(crate) fn left_queue(&self, jobs: usize, wait_ns: u64) {
        self.waiting.fetch_sub(jobs as u64, Ordering::Relaxed);
        self.wait_ns.fetch_add(wait_ns, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, jobs: usize) {
        self.refused.fetch_add(jobs as u64, Ordering::Relaxed);
    }

    pub(crate) fn expired(&self, jobs: usize) {
        self.expired.fetch_add(jobs as u64, Ordering::Relaxed);
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
