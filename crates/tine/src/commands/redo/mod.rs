//! `tine history`, `tine verify`, `tine replay`: what happened, whether it can be explained, and what other code would have done.

mod args;
mod history;
mod report;

use std::time::Instant;

use serde_json::{Value, json};
use tine_client::http::{JsonLines, RedoLine, RedoOptions};
use tine_module::SourceBundle;

pub use self::args::{HistoryArgs, ReplayArgs, VerifyArgs};
pub use self::history::history;
use super::Context;
use crate::{failure::Failure, progress::Progress};

/// Runs the recorded calls of a range again and tells which did something else.
///
/// # Errors
/// [`Failure::Differs`] when some did; the client's.
pub fn verify(context: &Context, args: &VerifyArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let lines = context.http.verify(&args.database, &args.range.options())?;
    let report = follow(lines, "verifying")?;
    let differences = report["differences"].as_u64().unwrap_or(0);
    if context.output.is_json() {
        context.output.json(&with_duration(report, started))?;
    } else {
        report::print_verified(context.output, &args.database, &report, started.elapsed())?;
    }
    match differences {
        0 => Ok(()),
        count => Err(Failure::Differs { count }),
    }
}

/// Runs a range of history again on a new fork, with the recorded code or other code.
///
/// # Errors
/// Files that cannot be collected, and the client's.
pub fn replay(context: &Context, args: &ReplayArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let program = match &args.module {
        Some(path) => Some(SourceBundle::collect(path).map_err(|source| Failure::Collect { source })?.encode()),
        None => None,
    };
    let lines = context.http.replay(&args.database, &args.fork, &args.range.options(), program, args.resume)?;
    let report = follow(lines, "replaying").map_err(|failure| failure.with_next(resume_advice(args)))?;
    if context.output.is_json() {
        return context.output.json(&with_duration(report, started));
    }
    report::print_replayed(context.output, &args.database, &report, started.elapsed())
}

fn resume_advice(args: &ReplayArgs) -> String {
    format!("`tine replay {} --as {} --resume` goes on where it was", args.database, args.fork)
}

fn with_duration(mut report: Value, started: Instant) -> Value {
    report["took_us"] = json!(started.elapsed().as_micros() as u64);
    report
}

/// Shows how far a run is until its report comes.
fn follow(lines: JsonLines<RedoLine>, what: &'static str) -> Result<Value, Failure> {
    let mut bar: Option<(Progress, u64)> = None;
    for line in lines {
        match line? {
            RedoLine::Progress(progress) => {
                let total = (progress.to + 1).saturating_sub(progress.from);
                let done = (progress.lsn + 1).saturating_sub(progress.from);
                let (bar, shown) = bar.get_or_insert_with(|| (Progress::of_items(what, "commits", total), 0));
                bar.add(done.saturating_sub(*shown));
                *shown = done.max(*shown);
            }
            RedoLine::Report(report) => return Ok(report),
            RedoLine::Error { code, message } => return Err(Failure::Remote { code, message, next: None }),
        }
    }
    let message = "the server ended before the run did".to_owned();
    Err(Failure::Remote { code: "TN0652".to_owned(), message, next: None })
}

impl args::Range {
    fn options(&self) -> RedoOptions {
        RedoOptions { from: self.from, to: self.to, stop_at_first_difference: self.stop_at_first_difference }
    }
}
