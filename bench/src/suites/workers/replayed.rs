//! Recorded calls run again on a fork, per second, with the comparison of every call.

use std::time::Instant;

use anyhow::{Context, ensure};
use tine_client::http::{RedoLine, RedoOptions};

use crate::{
    load::{Caller, Work},
    server::Server,
};

/// Calls that are recorded and replayed.
const CALLS: usize = 10_000;

/// One round: inserts, then their replay on a fork of the version before them.
pub async fn rate(server: &Server, number: u32) -> anyhow::Result<f64> {
    let database = format!("replayed-{number}");
    server.publish(&database)?;
    let mut caller = Caller::connect(server, &database, false, 0).await?;
    caller.pipelined(Work::Insert, CALLS).await?;
    let expected = caller.rows_inserted();
    caller.close().await?;
    let started = Instant::now();
    let lines = server.http().replay(&database, "again", &RedoOptions::default(), None, false)?;
    let mut report = None;
    for line in lines {
        match line? {
            RedoLine::Report(found) => report = Some(found),
            RedoLine::Error { code, message } => anyhow::bail!("{code}: {message}"),
            RedoLine::Progress(_) => {}
        }
    }
    let took = started.elapsed();
    let report = report.context("the replay has no report")?;
    ensure!(report["differences"] == 0, "the same code does the same: {report}");
    let calls = report["calls"].as_u64().context("a number of calls")?;
    ensure!(calls >= expected, "{expected} calls were made, {calls} were replayed");
    server.http().delete(&database, true)?;
    Ok(calls as f64 / took.as_secs_f64())
}
