//! Suite `forks`: a fork, and its first call, as a program meets them over HTTP; and what many forks and many rows cost
//! the server.

use std::time::Instant;

use serde_json::json;

use crate::{
    Plan,
    load::{Caller, Work},
    report::{Case, Reporter, Target, median},
    server::Server,
};

const SUITE: &str = "forks";
/// Rows in the database that is forked: a fork must not cost by size, so there is some.
const ROWS: usize = 50_000;
/// Forks per round.
const FORKS: usize = 24;
/// Forks that are made and then do nothing.
const IDLE_FORKS: usize = 10_000;
const PAIRS: &str = include_str!("../../modules/pairs.ts");
/// Rows of 16 bytes in the large database.
const PAIR_ROWS: u64 = 5_000_000;
/// Rows per call that fills it.
const PAIR_ROWS_PER_CALL: u64 = 20_000;

/// Runs the suite.
pub async fn run(plan: &Plan, reporter: &mut Reporter) -> anyhow::Result<()> {
    let server = Server::start(&plan.binary)?;
    server.publish("bench")?;
    let mut caller = Caller::connect(&server, "bench", true, 0).await?;
    caller.pipelined(Work::Insert, ROWS).await?;
    caller.close().await?;
    let (mut fork_ms, mut first_call_ms) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        reporter.progress(&format!("forks: round {} of {}", round + 1, plan.rounds));
        let (forks, calls) = one_round(&server)?;
        fork_ms.push(forks);
        first_call_ms.push(calls);
    }
    reporter.progress(&format!("forks: {IDLE_FORKS} idle forks"));
    let (store_us, idle_kb) = idle(&server)?;
    server.stop()?;
    let case = |case, value, unit, target| Case {
        suite: SUITE,
        case,
        value,
        unit,
        peer: None,
        target: Target::AtMost(target),
    };
    reporter.record(case("fork_http_ms", median(&fork_ms), "ms", 1.0))?;
    reporter.record(case("fork_first_call_ms", median(&first_call_ms), "ms", 6.0))?;
    reporter.record(case("fork_store_us", store_us, "us", 2.0))?;
    reporter.record(case("fork_idle_kb", idle_kb, "KB", 4.0))?;
    reporter.progress(&format!("forks: filling {PAIR_ROWS} rows"));
    let (restart_s, row_bytes) = many_rows(plan)?;
    reporter.record(case("restart_5m_rows_s", restart_s, "s", 1.0))?;
    reporter.record(case("bytes_per_16b_row", row_bytes, "B", 80.0))?;
    Ok(())
}

/// Time that the store takes to make a durable fork, in microseconds by the server's own clock, and resident memory that
/// one which does nothing keeps, in kilobytes.
fn idle(server: &Server) -> anyhow::Result<(f64, f64)> {
    let made = || anyhow::Ok((server.metric("tine_fork_nanoseconds_total")?, server.metric("tine_forks_made_total")?));
    let (ns_before, forks_before) = made()?;
    let before = server.resident_bytes()?;
    for fork in 0..IDLE_FORKS {
        server.http().create_fork("bench", &format!("idle{fork}"), false)?;
    }
    let grown = server.resident_bytes()?.saturating_sub(before);
    let (ns, forks) = made()?;
    anyhow::ensure!((forks - forks_before) as usize == IDLE_FORKS, "every fork was counted");
    Ok(((ns - ns_before) / 1e3 / IDLE_FORKS as f64, grown as f64 / 1e3 / IDLE_FORKS as f64))
}

/// Seconds from starting a server with many rows until it has answered a query of one of them, and resident memory per
/// row after they were inserted, in bytes.
fn many_rows(plan: &Plan) -> anyhow::Result<(f64, f64)> {
    let mut server = Server::start(&plan.binary)?;
    server.publish_source("pairs", PAIRS)?;
    server.http().call("pairs", "fill", &json!([PAIR_ROWS, 1]))?;
    let before = server.resident_bytes()?;
    for first in (0..PAIR_ROWS).step_by(PAIR_ROWS_PER_CALL as usize) {
        server.http().call("pairs", "fill", &json!([first, PAIR_ROWS_PER_CALL]))?;
    }
    let row_bytes = server.resident_bytes()?.saturating_sub(before) as f64 / PAIR_ROWS as f64;
    server.end()?;
    let start = Instant::now();
    server.start_again(&plan.binary)?;
    let found = server.http().sql("pairs", "SELECT * FROM pair WHERE id = 4999999")?;
    let restart_s = start.elapsed().as_secs_f64();
    anyhow::ensure!(found.first().is_some_and(|result| result.rows.len() == 1), "the row is there after the restart");
    server.stop()?;
    Ok((restart_s, row_bytes))
}

/// Median times of making a durable fork, and of the first call on it (which loads an instance), both
/// over one HTTP connection that is open already.
fn one_round(server: &Server) -> anyhow::Result<(f64, f64)> {
    let http = server.http();
    let (mut fork_ms, mut call_ms) = (Vec::new(), Vec::new());
    for fork in 0..FORKS {
        let name = format!("f{fork}");
        let start = Instant::now();
        http.create_fork("bench", &name, false)?;
        fork_ms.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        http.call(&format!("bench@{name}"), "insert", &json!([1_u64 << 40, "first call", 1]))?;
        call_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    for fork in 0..FORKS {
        http.delete_fork("bench", &format!("f{fork}"))?;
    }
    Ok((median(&fork_ms), median(&call_ms)))
}
