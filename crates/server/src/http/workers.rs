//! What is counted of worker processes, in the Prometheus text format.

use std::fmt::Write as _;

use tine_sandbox::{Histogram, KillCause, Sandbox, WorkerState};

use crate::metrics::write_metric;

/// Appends everything that the sandbox counts, and what each of its workers uses. Reads files of the kernel for each worker.
pub(super) fn write(text: &mut String, sandbox: &Sandbox) {
    let metrics = sandbox.metrics();
    for counted in metrics.counters() {
        let (kind, suffix) = if counted.only_grows { ("counter", "_total") } else { ("gauge", "") };
        // Those that name workers already are not named twice.
        let name = counted.name.strip_prefix("workers").map_or_else(|| format!("_{}", counted.name), str::to_owned);
        write_metric(text, &format!("tine_workers{name}{suffix}"), kind, counted.help, counted.value);
    }
    let name = "tine_workers_killed_total";
    head(text, name, "counter", "Workers that the server ended, by cause.");
    for cause in KillCause::ALL {
        line(text, format_args!("{name}{{cause=\"{}\"}} {}", cause.name(), metrics.killed(cause)));
    }
    for (name, help, histogram) in metrics.histograms() {
        write_histogram(text, &format!("tine_workers_{name}_seconds"), help, histogram);
    }
    write_usage(text, &sandbox.workers());
}

fn write_histogram(text: &mut String, name: &str, help: &str, histogram: &Histogram) {
    head(text, name, "histogram", help);
    let buckets = histogram.cumulative();
    for (bound_us, count) in &buckets {
        let bound = bound_us.map_or_else(|| "+Inf".to_owned(), |us| seconds(us).to_string());
        line(text, format_args!("{name}_bucket{{le=\"{bound}\"}} {count}"));
    }
    line(text, format_args!("{name}_sum {}", seconds(histogram.sum_us())));
    // Of the same look as the buckets, so that the last of them is never another number.
    line(text, format_args!("{name}_count {}", buckets.last().map_or(0, |(_, count)| *count)));
}

fn write_usage(text: &mut String, workers: &[WorkerState]) {
    let used = workers.iter().filter_map(|worker| Some((worker, worker.usage?)));
    let labels = |worker: &WorkerState| {
        let role = if worker.key.is_some() { "working" } else { "spare" };
        format!("entry=\"{}\",worker=\"{}\",pid=\"{}\",role=\"{role}\"", worker.entry, worker.worker.0, worker.pid)
    };
    let name = "tine_worker_resident_bytes";
    head(text, name, "gauge", "Resident memory of each worker, shared pages included.");
    for (worker, usage) in used.clone() {
        line(text, format_args!("{name}{{{}}} {}", labels(worker), usage.resident_bytes));
    }
    let name = "tine_worker_cpu_seconds_total";
    head(text, name, "counter", "Processor time of each worker.");
    for (worker, usage) in used {
        line(text, format_args!("{name}{{{}}} {}", labels(worker), seconds(usage.cpu_us)));
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    line(text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let written = writeln!(text, "{line}");
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}
