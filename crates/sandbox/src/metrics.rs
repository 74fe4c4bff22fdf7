//! What a sandbox counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::KillCause;

/// Bounds of a histogram's buckets in microseconds: powers of two from 1 us to a bit more than 8 s, then everything.
pub const HISTOGRAM_BUCKETS: usize = 25;

/// Durations, counted by their magnitude.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; HISTOGRAM_BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn record(&self, duration: Duration) {
        self.record_many(duration, 1);
    }

    pub(crate) fn record_many(&self, duration: Duration, count: u64) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - us.saturating_sub(1).leading_zeros()) as usize;
        self.buckets[bucket.min(HISTOGRAM_BUCKETS - 1)].fetch_add(count, Ordering::Relaxed);
        self.sum_us.fetch_add(us.saturating_mul(count), Ordering::Relaxed);
    }

    /// The upper bound of each bucket in microseconds and the number of durations up to it, cumulative as Prometheus wants them; the
    /// last bound is `None`, infinity.
    pub fn cumulative(&self) -> Vec<(Option<u64>, u64)> {
        let mut total = 0;
        let bounds = (0..HISTOGRAM_BUCKETS).map(|bucket| (bucket < HISTOGRAM_BUCKETS - 1).then(|| 1u64 << bucket));
        let counts = self.buckets.iter().map(|bucket| {
            total += bucket.load(Ordering::Relaxed);
            total
        });
        bounds.zip(counts.collect::<Vec<_>>()).collect()
    }

    /// Durations recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Sum of all durations, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Ordering::Relaxed)
    }
}

/// A number with what it means, as [`Metrics::counters`] lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// In snake case, without a prefix.
    pub name: &'static str,
    /// What is counted, a sentence.
    pub help: &'static str,
    /// Whether it only grows; otherwise it is what there is now.
    pub only_grows: bool,
    /// The number.
    pub value: u64,
}

macro_rules! counters {
    (@only_grows total) => { true };
    (@only_grows now) => { false };
    ($(#[doc = $text:literal] $kind:ident $name:ident),* $(,)?) => {
        /// Everything a sandbox counts. What concerns single requests is brought up to date a hundred times a second.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $text] pub(crate) $name: AtomicU64,)*
            /// Time the server spends to ask for a worker: making its memory, and the message to the zygote.
            pub launch_call: Histogram,
            /// From asking the zygote until the worker takes requests.
            pub fork_to_ready: Histogram,
            /// From the first request that wanted a worker for its key to the first reply of that worker.
            pub first_reply: Histogram,
            /// From asking for a place until a worker had one.
            pub queue_wait: Histogram,
            /// From the decision that a worker must end until it is reaped.
            pub kill_to_reaped: Histogram,
            pub(crate) kills: [AtomicU64; KillCause::ALL.len() + 1],
        }

        impl Metrics {
            $(#[doc = $text] pub fn $name(&self) -> u64 {
                self.$name.load(Ordering::Relaxed)
            })*

            /// Every plain counter.
            pub fn counters(&self) -> Vec<Counted> {
                vec![$(Counted {
                    name: stringify!($name),
                    help: $text.trim_ascii(),
                    only_grows: counters!(@only_grows $kind),
                    value: self.$name(),
                }),*]
            }
        }
    };
}

counters! {
    /// Workers asked for.
    total launches,
    /// Workers that did not get ready.
    total launches_failed,
    /// Callers who found a launch for their key under way and waited for it.
    total waiters_coalesced,
    /// First callers of a key who got a spare.
    total spares_used,
    /// Spares ready now.
    now spares,
    /// Live workers now, spares and those not reaped yet included.
    now workers,
    /// Workers reaped.
    total workers_reaped,
    /// Workers that died without the server's doing.
    total workers_died,
    /// Times a zygote was started.
    total zygotes_started,
    /// Requests done, rejected ones included.
    total requests,
    /// Requests the worker rejected.
    total requests_rejected,
    /// Requests posted and not done now.
    now in_flight,
    /// Bytes of the places of those, now.
    now in_flight_bytes,
    /// Requests over their deadline, in the queue or at work.
    total timeouts,
    /// Requests that were tried again after a neighbour ended the worker.
    total retries,
    /// Requests whose caller went away while the worker had them.
    total abandoned,
    /// Slots held now for requests whose caller went away.
    now abandoned_slots,
    /// Calls of workers that were answered.
    total nested_calls,
    /// Lines of workers' logs handed on.
    total log_lines,
    /// Bytes of workers' logs dropped, by the bounds on lines and in all.
    total log_bytes_dropped,
}

impl Metrics {
    /// Every histogram by its name, with what it measures.
    pub fn histograms(&self) -> [(&'static str, &'static str, &Histogram); 5] {
        [
            ("launch_call", "Time spent to ask for a worker: making its memory, and the message.", &self.launch_call),
            ("fork_to_ready", "Time from asking for a worker until it takes requests.", &self.fork_to_ready),
            (
                "first_reply",
                "Time from the first request that wanted a worker until its first reply.",
                &self.first_reply,
            ),
            ("queue_wait", "Time that requests waited for a place with a worker.", &self.queue_wait),
            (
                "kill_to_reaped",
                "Time from the decision that a worker must end until it is reaped.",
                &self.kill_to_reaped,
            ),
        ]
    }

    /// Workers killed for a cause.
    pub fn killed(&self, cause: KillCause) -> u64 {
        self.kills[cause as usize].load(Ordering::Relaxed)
    }
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

pub(crate) fn subtract(counter: &AtomicU64, count: u64) {
    counter.fetch_sub(count, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_count_up_to_their_bounds() {
        let histogram = Histogram::default();
        for us in [0, 1, 2, 3, 4, 5, 1_000, 100_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        let up_to = |bound| histogram.cumulative().iter().find(|(at, _)| *at == bound).expect("a bound").1;
        assert_eq!([1, 2, 4, 8, 1_024].map(|us| up_to(Some(us))), [2, 3, 5, 6, 7]);
        assert_eq!((up_to(None), histogram.count(), histogram.sum_us()), (8, 8, 100_001_015));
    }

    #[test]
    fn counters_say_what_they_are() {
        let metrics = Metrics::default();
        add(&metrics.launches, 3);
        let counters = metrics.counters();
        let of = |name: &str| *counters.iter().find(|counter| counter.name == name).expect("known");
        let help = "Workers asked for.";
        assert_eq!(of("launches"), Counted { name: "launches", help, only_grows: true, value: 3 });
        assert!(!of("in_flight").only_grows);
        assert!(counters.iter().all(|counter| counter.help.ends_with('.')));
    }
}
