//! Suite `store`: the forkable store as a library, beside maps and embedded databases that do the same work.
//!
//! Everything runs in this process, single-threaded, on a million records of 16-byte random keys (or a table id and a
//! number) and 64-byte values. Times are CPU times of the thread. Each round runs all sides of a case one after the
//! other, so that a ratio compares what ran on the same machine at the same speed.

mod data;
mod forks;
mod log;
mod peers;
mod reads;
mod writes;

use crate::{
    Plan,
    peers::Peer,
    report::{Case, Reporter, Target, median},
};

const SUITE: &str = "store";

/// What a case measured, by round.
#[derive(Default)]
struct Series {
    ours: Vec<f64>,
    peers: Vec<(&'static str, Vec<f64>)>,
}

impl Series {
    fn add(&mut self, ours: f64, peers: &[(&'static str, f64)]) {
        self.ours.push(ours);
        for (name, value) in peers {
            match self.peers.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push(*value),
                None => self.peers.push((name, vec![*value])),
            }
        }
    }

    /// The median of the ratios of the rounds, with the medians beside it.
    fn against(&self, case: &'static str, peer: &'static str, target: f64) -> (Case, String) {
        let (_, values) = self.peers.iter().find(|(name, _)| *name == peer).expect("the peer was measured");
        let ratios: Vec<f64> = self.ours.iter().zip(values).map(|(ours, peer)| ours / peer).collect();
        let beside = format!("{case}: {:.0} against {:.0} ({peer})", median(&self.ours), median(values));
        let target = Target::AtMost(target);
        (Case { suite: SUITE, case, value: median(&ratios), unit: "ratio", peer: None, target }, beside)
    }

    /// [`Series::against`] for rates.
    fn at_least(&self, case: &'static str, peer: &'static str, target: f64) -> (Case, String) {
        let (case, beside) = self.against(case, peer, target);
        (Case { target: Target::AtLeast(target), ..case }, beside)
    }

    fn alone(&self, case: &'static str, unit: &'static str, target: Target) -> (Case, String) {
        let peer: Option<Peer> = None;
        (Case { suite: SUITE, case, value: median(&self.ours), unit, peer, target }, String::new())
    }
}

/// Runs the suite.
pub fn run(plan: &Plan, reporter: &mut Reporter) -> anyhow::Result<()> {
    reporter.progress("store: filling a million records everywhere");
    let directory = tempfile::tempdir_in(plan.binary.scratch())?;
    let mut world = data::World::fill(directory.path())?;
    let (mut get, mut get_prefixed, mut scan) = (Series::default(), Series::default(), Series::default());
    let (mut commit1, mut commit100) = (Series::default(), Series::default());
    let (mut drop100, mut diff100, mut memory100) = (Series::default(), Series::default(), Series::default());
    let (mut fork, mut depth, mut idle, mut many) =
        (Series::default(), Series::default(), Series::default(), Series::default());
    let (mut replay, mut durable, mut group) = (Series::default(), Series::default(), Series::default());
    let mut fork_named = Series::default();
    for round in 0..plan.rounds {
        reporter.progress(&format!("store: round {} of {}", round + 1, plan.rounds));
        reads::get(&world, &mut get)?;
        reads::get_prefixed(&world, &mut get_prefixed)?;
        reads::scan(&world, &mut scan)?;
        writes::commit1(&mut world, &mut commit1)?;
        writes::commit100(&mut world, &mut commit100)?;
        forks::changed100(&world, &mut memory100, &mut drop100)?;
        forks::diff100(&mut world, &mut diff100)?;
        forks::fork(&world, &mut fork, &mut fork_named)?;
        forks::depth(&world, &mut depth)?;
        forks::many(&world, &mut idle, &mut many)?;
        writes::replay(&plan.binary.scratch(), &mut replay)?;
        log::durable(&plan.binary.scratch(), &mut durable, &mut group)?;
    }
    for (case, beside) in [
        get.against("get_vs_btreemap", "BTreeMap", 1.25),
        get.against("get_vs_lmdb", "LMDB", 0.5),
        get_prefixed.against("get_prefixed_vs_btreemap", "BTreeMap", 1.3),
        scan.against("scan100_vs_btreemap", "BTreeMap", 0.75),
        commit1.against("commit1_vs_imbl", "imbl", 0.3),
        commit1.against("commit1_vs_lmdb", "LMDB", 0.25),
        commit1.against("commit1_vs_redb", "redb", 0.06),
        commit1.against("commit1_vs_fjall", "fjall", 1.0),
        commit100.against("commit100_vs_imbl", "imbl", 0.45),
        fork.alone("fork_ns", "ns", Target::AtMost(100.0)),
        fork_named.alone("fork_named_ns", "ns", Target::AtMost(250.0)),
        depth.against("get_depth100_vs_depth0", "depth 0", 1.05),
        memory100.against("fork100_memory_vs_imbl", "imbl", 0.12),
        idle.alone("fork_idle_bytes", "B", Target::AtMost(200.0)),
        drop100.against("drop_vs_imbl", "imbl", 0.02),
        diff100.against("diff100_vs_imbl", "imbl", 0.6),
        many.against("forks_100k_get_ratio", "1 fork", 1.1),
        durable.against("durable_vs_raw", "raw write", 1.3),
        group.at_least("group64_vs_group1", "1 in flight", 8.0),
        replay.alone("replay_keys_per_s", "1/s", Target::AtLeast(1e6)),
    ] {
        if !beside.is_empty() {
            reporter.progress(&beside);
        }
        reporter.record(case)?;
    }
    Ok(())
}
