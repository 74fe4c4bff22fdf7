//! Suite `forks`: a fork, and its first call, as a program meets them over HTTP.

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
    server.stop()?;
    let case =
        |case, value: &[f64], target| Case { suite: SUITE, case, value: median(value), unit: "ms", peer: None, target };
    reporter.record(case("fork_http_ms", &fork_ms, Target::AtMost(1.0)))?;
    reporter.record(case("fork_first_call_ms", &first_call_ms, Target::AtMost(6.0)))?;
    Ok(())
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
