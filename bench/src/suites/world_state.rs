//! Suite `world-state`: the world-state service beside the server it stands in for, both driven by the same raw client in the
//! same run, with 16,384 leaves in the trees that are read.
//!
//! Ratios are ours over theirs, each the median of rounds in which both take their turns. That server is in npm
//! `@aztec/bb.js`, which `cargo xtask test` installs; without it the suite is skipped.

mod client;
mod hash;
mod servers;

use std::time::Duration;

use anyhow::Context;

use self::client::Client;
use self::servers::{Pair, Side};
use crate::{
    Plan,
    peers::Peer,
    report::{Case, Reporter, Target, median},
};

const SUITE: &str = "world-state";
const PEER: &str = "aztec-wsdb 5.0.0, same run";

/// Leaves of the trees that are read.
const LEAVES: u64 = 16_384;

/// Leaves of one insertion and of each part of a block.
const BATCH: u64 = 64;

/// Requests in flight of the pipelined cases.
const PIPELINED: usize = 32;

/// A hash may take what it takes there.
const HASH_PEER: &str = "taceo-poseidon2 0.3, same run";

/// Connections of the case with several, as many as a pool of simulators has.
const CONNECTIONS: usize = 7;

/// Forks made to weigh one.
const FORKS: usize = 20_000;

/// One case on one side, in its unit.
type Measure = fn(&mut Side, Duration) -> anyhow::Result<f64>;

/// Name, unit, what the ratio must reach, and how one side is measured.
const CASES: [(&str, &str, Target, Measure); 8] = [
    ("sibling_path_uds_32", "requests/s", Target::AtLeast(5.0), |side, round| client::paths(side, round, 1, PIPELINED)),
    ("sibling_path_uds_7_connections", "requests/s", Target::AtLeast(5.0), |side, round| {
        client::paths(side, round, CONNECTIONS, 1)
    }),
    ("find_low_leaf_uds_32", "requests/s", Target::AtLeast(3.0), |side, round| {
        client::low_leaves(side, round, PIPELINED)
    }),
    ("sequential_insert_64", "us", Target::AtMost(0.25), |side, _| client::sequential_insert(side, BATCH)),
    ("append_64", "us", Target::AtMost(0.25), |side, _| client::append(side, BATCH)),
    ("append_64_and_root", "us", Target::AtMost(1.0), |side, _| client::append_and_root(side, BATCH)),
    ("sync_block_64", "us", Target::AtMost(0.25), |side, _| client::sync_block(side, BATCH)),
    ("fork_cycle", "us", Target::AtMost(0.02), |side, _| client::fork_cycle(side)),
];

/// Runs the suite.
pub fn run(plan: &Plan, reporter: &mut Reporter) -> anyhow::Result<()> {
    let hashes = hash::measure()?;
    let peer = Some(Peer { name: HASH_PEER, value: hashes.peer });
    for (case, value) in [("poseidon2_ns", hashes.single), ("poseidon2_batch_ns", hashes.batch)] {
        reporter.record(Case { suite: SUITE, case, value, unit: "ns", peer, target: Target::AtMost(hashes.peer) })?;
    }
    let Some(program) = servers::program() else {
        reporter.progress("world-state: npm @aztec/bb.js is not installed, so there is nothing to compare with");
        return Ok(());
    };
    let mut pair = Pair::start(plan, &program).context("cannot start the servers")?;
    reporter.progress("world-state: filling the trees");
    pair.each(|side| client::fill(side, LEAVES))?;
    let mut values = vec![(Vec::new(), Vec::new()); CASES.len()];
    let mut shared_memory = Vec::new();
    for round in 0..plan.rounds {
        reporter.progress(&format!("world-state: round {} of {}", round + 1, plan.rounds));
        for ((_, _, _, measure), (ours, theirs)) in CASES.iter().zip(&mut values) {
            ours.push(measure(&mut pair.ours, plan.round / 4)?);
            theirs.push(measure(&mut pair.theirs, plan.round / 4)?);
        }
        shared_memory.push(client::shared_memory_paths(&pair.ours, plan.round / 4, CONNECTIONS)?);
    }
    for ((case, unit, target, _), (ours, theirs)) in CASES.iter().zip(&values) {
        let (ours, theirs) = (median(ours), median(theirs));
        reporter.progress(&format!("{case}: ours {ours:.1}, theirs {theirs:.1} {unit}"));
        let peer = Some(Peer { name: PEER, value: 1.0 });
        reporter.record(Case { suite: SUITE, case, value: ours / theirs, unit: "ratio", peer, target: *target })?;
    }
    let (ours, theirs) = (median(&shared_memory), median(&values[0].1).max(median(&values[1].1)));
    let case = "sibling_path_shm_7_vs_real_best";
    reporter.progress(&format!("{case}: ours {ours:.1}, theirs {theirs:.1} requests/s"));
    let (value, target) = (ours / theirs, Target::AtLeast(8.0));
    let peer = Some(Peer { name: PEER, value: 1.0 });
    reporter.record(Case { suite: SUITE, case, value, unit: "ratio", peer, target })?;
    let value = fork_bytes(&mut pair.ours)?;
    let target = Target::AtMost(1024.0);
    Ok(reporter.record(Case { suite: SUITE, case: "fork_idle_bytes", value, unit: "B", peer: None, target })?)
}

/// What a fork takes that nothing was written to: resident memory before and after making many.
fn fork_bytes(side: &mut Side) -> anyhow::Result<f64> {
    let mut client = Client::connect(side)?;
    // The first ones grow tables and pools.
    client.make_forks(FORKS / 4)?;
    let before = side.resident_bytes()?;
    client.make_forks(FORKS)?;
    Ok((side.resident_bytes()?.saturating_sub(before)) as f64 / FORKS as f64)
}
