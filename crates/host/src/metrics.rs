//! Counters of the host. Plain relaxed atomics: each is a statistic of its own, none orders anything.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A value that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn add_duration(&self, duration: Duration) {
        self.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! metrics {
    ($($kind:ident $field:ident, $name:literal, $help:literal;)*) => {
        /// All metrics of the host.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Metrics {
            /// Appends the metrics in the Prometheus text format.
            pub fn write_prometheus(&self, out: &mut String) {
                use std::fmt::Write;
                $(
                    let kind = if stringify!($kind) == "Counter" { "counter" } else { "gauge" };
                    // Writing into a string cannot fail.
                    let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {kind}\n{} {}", $name, $help, $name, $name, self.$field.get());
                )*
            }
        }
    };
}

metrics! {
    Counter calls_ok, "tine_calls_ok_total", "Reducer calls that committed or changed nothing.";
    Counter calls_failed, "tine_calls_failed_total", "Reducer calls that failed and left no trace.";
    Counter call_ns, "tine_call_nanoseconds_total", "Time spent running reducers.";
    Counter procedures, "tine_procedures_total", "Procedures that ran.";
    Counter procedures_refused, "tine_procedures_refused_total", "Procedures refused because too many waited.";
    Counter http_requests, "tine_http_requests_total", "HTTP requests that procedures asked for.";
    Counter commits, "tine_commits_total", "Commits on all forks.";
    Counter queries, "tine_queries_total", "One-off and SQL queries.";
    Counter views_run, "tine_views_run_total", "Views that ran, because somebody asked or because what they read has changed.";
    Counter views_failed, "tine_views_failed_total", "Views that failed and lost their subscribers.";
    Counter subscriptions_applied, "tine_subscriptions_applied_total", "Query sets subscribed.";
    Counter updates_delivered, "tine_updates_delivered_total", "Query-set updates handed to clients.";
    Counter scheduled_runs, "tine_scheduled_runs_total", "Runs started by schedules.";
    Counter scheduled_late_ns, "tine_scheduled_late_nanoseconds_total", "Delay of scheduled runs behind their time.";
    Counter requests_refused, "tine_requests_refused_total", "Requests refused because a queue was full.";
    Counter modules_loaded, "tine_modules_loaded_total", "Modules made ready: compiled, or taken from the cache of compiled code.";
    Counter module_load_ns, "tine_module_load_nanoseconds_total", "Time spent making modules ready.";
    Counter instances_loaded, "tine_instances_loaded_total", "Module instances built.";
    Counter instance_load_ns, "tine_instance_load_nanoseconds_total", "Time spent building module instances.";
    Counter instances_spare, "tine_instances_spare_total", "First calls of a fork that found a spare instance.";
    Counter instances_evicted, "tine_instances_evicted_total", "Times an idle fork gave up its instances to stay within the memory budget.";
    Counter instances_retired, "tine_instances_retired_total", "Instances given up because their heap stayed high.";
    Counter procedures_cancelled, "tine_procedures_cancelled_total", "Procedures ended because nobody waited for them any more.";
    Counter instances_replaced, "tine_instances_replaced_total", "Instances given up after a trap, a deadline or running out of memory.";
    Gauge instance_memory_bytes, "tine_instance_memory_bytes", "Memory of the module instance that was built last, after loading.";
    Gauge clients, "tine_clients", "Connected clients.";
    Gauge databases, "tine_databases", "Databases.";
    Counter forks_made, "tine_forks_made_total", "Forks made by requests.";
    Counter fork_ns, "tine_fork_nanoseconds_total", "Time the store spent making these forks.";
    Counter forks_expired, "tine_forks_expired_total", "Forks deleted because their time was over.";
    Gauge history_pins, "tine_history_pins", "Older versions of forks kept at hand, besides their origins; at most 4,096 per database.";
    Gauge history_pin_bytes, "tine_history_pin_bytes", "Bytes that these versions keep in memory; at most 256 MiB per database.";
    Gauge forks, "tine_forks", "Forks of all databases, main included.";
}
