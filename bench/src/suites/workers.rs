//! Suite `workers`: sandboxed worker processes, beside the design that is common for them ([`baseline`]).
//!
//! Both sides run in this process on the same tokio runtime of two threads, and answer with a page of 8 KiB, also to pings. Rounds of
//! both sides alternate. Isolated modules ([`isolated`]) are measured in a server.

pub mod baseline;
mod isolated;
mod measured;
#[path = "../../../crates/sandbox/examples/page_redo/redo.rs"]
mod redo;
mod replayed;

use std::sync::Arc;
use std::time::Duration;

use tine_sandbox::{Entry, Never, Rejected, Sandbox, SandboxOptions, Start, WorkerKey};

use crate::{
    Plan,
    peers::Peer,
    report::{Case, Reporter, Target, median},
    server::Server,
};
use measured::Worker;

const SUITE: &str = "workers";
const ENTRY: &str = "bench-worker";
/// What the baseline is called in reports.
const BASELINE: &str = "pipes";
/// Every reply is a page.
const REPLY_BYTES: usize = redo::PAGE_BYTES;
/// First byte of a ping; a page's request begins with 0 or 1.
const PING: u8 = 0xff;
/// Request bytes of the short and the medium case.
const SHORT_BYTES: usize = 1_132;
const MEDIUM_BYTES: usize = 26_393;
/// Cold starts per round.
const COLD_TRIALS: usize = 25;
/// Trials of giving up a request, per round.
const CANCEL_TRIALS: usize = 100;
/// Memory made resident for the second measurement of blocking.
const BALLAST_BYTES: usize = 1 << 30;

/// Turns this process into a worker's zygote or the baseline's child, if it was started as one.
pub fn init() {
    tine_sandbox::init(&[Entry::new(ENTRY, serve)]);
    if std::env::args_os().nth(1).is_some_and(|argument| argument == baseline::CHILD_ARGUMENT) {
        std::process::exit(i32::from(baseline::child().is_err()));
    }
}

fn serve(start: Start) -> Never {
    start.harden().serve(|request| {
        let bytes = request.bytes();
        let mut outcome = Ok(());
        request.write_in_place(|area| {
            outcome = answer(bytes, &mut area[..REPLY_BYTES]);
            REPLY_BYTES
        });
        outcome.map_err(Rejected)
    })
}

/// What a worker of either side does.
fn answer(request: &[u8], reply: &mut [u8]) -> Result<(), String> {
    if request == [PING] {
        reply.fill(0);
        return Ok(());
    }
    redo::apply(request, reply)
}

/// What is sent.
pub enum Request {
    Ping,
    Redo(Option<Box<redo::Page>>, Vec<redo::Record>),
}

impl Request {
    fn redo(base: Option<Box<redo::Page>>, bytes: usize) -> Arc<Request> {
        let records = redo::workload(base.as_deref(), bytes);
        Arc::new(Request::Redo(base, records))
    }

    fn write(&self, write: &mut dyn FnMut(&[u8])) {
        match self {
            Request::Ping => write(&[PING]),
            Request::Redo(base, records) => redo::request(base.as_deref(), records, write),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Request::Ping => 1,
            Request::Redo(base, records) => redo::request_bytes(base.as_deref(), records),
        }
    }
}

/// Runs the suite on a runtime of its own, since its cases keep both threads busy.
pub fn run(plan: &Plan, reporter: &mut Reporter) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut results = runtime.block_on(measure(plan.rounds, plan.round, reporter))?;
    let server = Server::start(&plan.binary)?;
    for number in 0..plan.rounds {
        reporter.progress(&format!("workers: isolated modules, round {} of {}", number + 1, plan.rounds));
        let ratio = runtime.block_on(isolated::ratio(&server, number, plan.round))?;
        results.add("isolated_reducer_ratio", "ratio", ratio, None, Target::AtLeast(0.35));
        let rate = runtime.block_on(replayed::rate(&server, number))?;
        results.add("replay_calls_per_s", "calls/s", rate, None, Target::AtLeast(10_000.0));
    }
    server.stop()?;
    for (case, unit, ours, theirs, target) in results.cases {
        let peer = (!theirs.is_empty()).then(|| Peer { name: BASELINE, value: median(&theirs) });
        reporter.record(Case { suite: SUITE, case, value: median(&ours), unit, peer, target })?;
    }
    Ok(())
}

/// Values of all rounds: case, unit, ours, the baseline's where they are not part of ours, target.
type Measured = (&'static str, &'static str, Vec<f64>, Vec<f64>, Target);

#[derive(Default)]
struct Results {
    cases: Vec<Measured>,
}

impl Results {
    fn add(&mut self, case: &'static str, unit: &'static str, ours: f64, theirs: Option<f64>, target: Target) {
        match self.cases.iter_mut().find(|(name, ..)| *name == case) {
            Some((_, _, values, peers, _)) => {
                values.push(ours);
                peers.extend(theirs);
            }
            None => self.cases.push((case, unit, vec![ours], theirs.into_iter().collect(), target)),
        }
    }
}

async fn measure(rounds: u32, round: Duration, reporter: &Reporter) -> anyhow::Result<Results> {
    let sandbox = Sandbox::start(SandboxOptions::default())?;
    let level = sandbox.level(Duration::from_secs(10));
    reporter.progress(&format!("workers: {}", level.map_or_else(|| "no level".to_owned(), |level| level.to_string())));
    let with_spares = measured::pool(&sandbox, 1)?;
    let without_spares = measured::pool(&sandbox, 0)?;
    let ours = Worker::Ours(with_spares.key(WorkerKey(0)));
    let theirs = Worker::Pipes(Arc::new(baseline::Pipes::launch()?));
    let mut results = Results::default();
    let mut keys = 1;
    for number in 0..rounds {
        reporter.progress(&format!("workers: round {} of {rounds}", number + 1));
        cold_cases(&mut results, &with_spares, &without_spares, &mut keys).await?;
        rate_cases(&mut results, &sandbox, &ours, &theirs, round / 8).await?;
        let mine = measured::cancel(ours.clone(), || Ok(ours.clone()), CANCEL_TRIALS).await?;
        let launch = || Ok(Worker::Pipes(Arc::new(baseline::Pipes::launch()?)));
        let peer = measured::cancel(launch()?, launch, CANCEL_TRIALS).await?;
        results.add("neighbours_failed_by_cancel", "calls", mine, Some(peer), Target::AtMost(0.0));
    }
    drop((ours, theirs, with_spares, without_spares));
    sandbox.shut_down(Duration::from_secs(10))?;
    Ok(results)
}

async fn cold_cases(
    results: &mut Results,
    with_spares: &tine_sandbox::Pool,
    without_spares: &tine_sandbox::Pool,
    keys: &mut u128,
) -> anyhow::Result<()> {
    let one = measured::cold(with_spares, keys, 1, COLD_TRIALS).await?;
    results.add("first_reply_spare_us", "us", median(&one.first_us), None, Target::AtMost(120.0));
    let one = measured::cold(without_spares, keys, 1, COLD_TRIALS).await?;
    results.add("first_reply_no_spare_us", "us", median(&one.first_us), None, Target::AtMost(450.0));
    let many = measured::cold(with_spares, keys, 128, COLD_TRIALS).await?;
    results.add("first_reply_128_callers_all_us", "us", median(&many.all_us), None, Target::AtMost(800.0));
    let blocked = measured::cold(without_spares, keys, 128, COLD_TRIALS).await?;
    let ballast = vec![1u8; BALLAST_BYTES];
    let large = measured::cold(without_spares, keys, 128, COLD_TRIALS).await?;
    drop(std::hint::black_box(ballast));
    let longest = [&many, &blocked, &large].map(|cold| median(&cold.block_us)).into_iter().fold(0.0, f64::max);
    results.add("executor_block_max_us", "us", longest, None, Target::AtMost(50.0));
    Ok(())
}

async fn rate_cases(
    results: &mut Results,
    sandbox: &Sandbox,
    ours: &Worker,
    theirs: &Worker,
    length: Duration,
) -> anyhow::Result<()> {
    let ping = Arc::new(Request::Ping);
    let short = Request::redo(None, SHORT_BYTES);
    let medium = Request::redo(Some(Box::new([7; REPLY_BYTES])), MEDIUM_BYTES);
    // Time over time, and calls over calls.
    let (time, calls) = (false, true);
    for (case, request, clients, is_throughput, target) in [
        ("ping_1_client_vs_baseline", &ping, 1, time, Target::AtMost(1.1)),
        ("ping_16_vs_baseline", &ping, 16, calls, Target::AtLeast(1.8)),
        ("ping_32_vs_baseline", &ping, 32, calls, Target::AtLeast(1.8)),
        ("ping_128_mean_vs_baseline", &ping, 128, time, Target::AtMost(0.7)),
        ("short_16", &short, 16, time, Target::AtMost(0.75)),
        ("short_128", &short, 128, time, Target::AtMost(0.75)),
        ("medium_16", &medium, 16, time, Target::AtMost(0.75)),
        ("medium_128", &medium, 128, time, Target::AtMost(0.75)),
    ] {
        let cpu_before = cpu(sandbox)?;
        let mine = measured::throughput(ours, request, clients, length).await?;
        let cpu_us = (cpu(sandbox)? - cpu_before).as_secs_f64() * 1e6 / (mine * length.as_secs_f64());
        let peer = measured::throughput(theirs, request, clients, length).await?;
        let ratio = if is_throughput { mine / peer } else { peer / mine };
        results.add(case, "ratio", ratio, None, target);
        if case == "ping_16_vs_baseline" {
            results.add("cpu_per_call_us_16", "us", cpu_us, None, Target::AtMost(2.0));
        }
    }
    Ok(())
}

/// Processor time of this process and of the workers.
fn cpu(sandbox: &Sandbox) -> anyhow::Result<Duration> {
    let mut total = crate::server::cpu_time(std::process::id())?;
    for worker in sandbox.workers() {
        total += crate::server::cpu_time(worker.pid as u32).unwrap_or_default();
    }
    Ok(total)
}
