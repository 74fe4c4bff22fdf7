//! `tine-bench SUITE [--json]`: how fast a real `tine serve` is, seen from a client of its own process.
//!
//! The server is the release binary, started as a child on loopback with a temporary data directory;
//! the driver speaks WebSocket `v3` through `tine-client`. Nothing is measured in process, so the
//! numbers hold for users. `README.md` beside this crate says what each case is and how to run it.
//!
//! Invariants:
//!
//! - Every reply is checked: a failed call, a reply out of order or a lost update ends the run.
//! - A number is the median of rounds, and the rounds of different cases are interleaved, so that a
//!   change of the machine's speed during the run touches all cases alike.
//! - Throughput cases start with a warm-up whose calls are not counted.

mod bundle;
mod conditions;
mod dev;
mod load;
mod peers;
mod report;
mod server;
mod suites;

use std::{path::PathBuf, time::Duration};

use anyhow::bail;
use clap::{Parser, ValueEnum};

use crate::{report::Reporter, server::Binary};

/// Measure a real Tine server.
#[derive(Debug, Parser)]
#[command(
    name = "tine-bench",
    after_help = "\
Examples:
  cargo run --release -p tine-bench -- reducers
  cargo run --release -p tine-bench -- all --json > results.ndjson
  cargo run --release -p tine-bench -- subscriptions --rounds 3 --round-ms 500

With --json one object per line goes to standard output: suite, case, value, unit, peer, peer_value,
ratio, target, met. The conditions of the run go to standard error. A missed target is reported, and
is an error only with --strict."
)]
struct Arguments {
    /// What to measure
    suite: Suite,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Rounds of each case; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Length of a round of a throughput case, in milliseconds
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    round_ms: u64,
    /// Server binary [default: build and use the release binary of this workspace]
    #[arg(long, value_name = "FILE")]
    server_binary: Option<PathBuf>,
    /// Where the temporary data directory is made: durability costs what this disk costs
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Exit with status 1 when a target is missed
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Calls per second, CPU per call, latency, and what an instance costs
    Reducers,
    /// Changes reaching many subscribers
    Subscriptions,
    /// Making a fork and calling it
    Forks,
    /// What ordering costs, and good clients beside bad ones
    Lanes,
    /// The store as a library, beside maps and embedded databases
    Store,
    /// Local calls over sockets and shared memory, against bare ones and iceoryx2
    Ipc,
    /// Sandboxed worker processes, beside children with pipes
    Workers,
    /// A world state beside the server it stands in for
    WorldState,
    /// All of them
    All,
}

/// How a suite is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds of each case.
    pub rounds: u32,
    /// Length of a throughput round.
    pub round: Duration,
    /// The server to start.
    pub binary: Binary,
}

fn main() -> anyhow::Result<()> {
    suites::workers::init();
    let arguments = Arguments::parse();
    if cfg!(debug_assertions) {
        eprintln!("warning: this driver was built without optimisation; its own cost will show. Use --release.");
    }
    raise_file_limit();
    let binary = Binary::find(arguments.server_binary, arguments.scratch)?;
    let plan = Plan { rounds: arguments.rounds, round: Duration::from_millis(arguments.round_ms), binary };
    let mut reporter = Reporter::new(arguments.json);
    reporter.conditions(&conditions::describe(&plan.binary.scratch()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wants = |suite| arguments.suite == suite || arguments.suite == Suite::All;
    runtime.block_on(async {
        if wants(Suite::Reducers) {
            suites::reducers::run(&plan, &mut reporter).await?;
        }
        if wants(Suite::Subscriptions) {
            suites::subscriptions::run(&plan, &mut reporter).await?;
        }
        if wants(Suite::Forks) {
            suites::forks::run(&plan, &mut reporter).await?;
        }
        if wants(Suite::Lanes) {
            suites::lanes::run(&plan, &mut reporter).await?;
        }
        if wants(Suite::Store) {
            suites::store::run(&plan, &mut reporter)?;
        }
        if wants(Suite::Ipc) {
            suites::ipc::run(&plan, &mut reporter)?;
        }
        if wants(Suite::WorldState) {
            suites::world_state::run(&plan, &mut reporter)?;
        }
        anyhow::Ok(())
    })?;
    if wants(Suite::Workers) {
        suites::workers::run(&plan, &mut reporter)?;
    }
    let missed = reporter.finish()?;
    if arguments.strict && missed > 0 {
        bail!("{missed} targets were missed");
    }
    Ok(())
}

/// A thousand subscribers are a thousand sockets; the usual soft limit is 1,024 files.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the struct they are given, which lives on this stack.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
