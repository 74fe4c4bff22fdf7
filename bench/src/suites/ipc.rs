//! Suite `ipc`: calls over Unix sockets and shared memory, against the least that can be done on the same primitives and against
//! `iceoryx2`, one right after the other in every round.
//!
//! Client and server are threads of this process, for all sides alike (but not where rows of a database are read): the kernel's part (a switch between threads of one process)
//! is a little cheaper than between processes, the rest is the same.

mod bare;
mod cases;
mod database;
mod generated;
mod iceoryx;

use std::time::Duration;

use cases::Pair;

use crate::{
    Plan,
    peers::Peer,
    report::{Case, Reporter, Target, median},
};

const SUITE: &str = "ipc";
const BARE_ECHO: &str = "bare epoll echo";
const BARE_SLOT: &str = "bare shared slot";
const ICEORYX: &str = "iceoryx2 0.10, polling";
const SOCKET: &str = "tine-ipc over a socket";
const RAW_CLIENT: &str = "a client of bytes";
const SERIAL: &str = "one serial client";

/// Results of one kind, round by round.
#[derive(Default)]
struct Rounds(Vec<Pair>);

impl Rounds {
    fn record(
        &self,
        reporter: &mut Reporter,
        case: &'static str,
        unit: &'static str,
        peer: &'static str,
        target: Target,
    ) -> anyhow::Result<()> {
        let of = |pick: fn(&Pair) -> f64| median(&self.0.iter().map(pick).collect::<Vec<_>>());
        let (ours, theirs) = (of(|pair| pair.value), of(|pair| pair.peer));
        reporter.progress(&format!("ipc/{case}: {ours:.2} {unit}, {peer}: {theirs:.2} {unit}"));
        Ok(reporter.record(Case {
            suite: SUITE,
            case,
            value: of(|pair| pair.ratio()),
            unit: "ratio",
            peer: None::<Peer>,
            target,
        })?)
    }
}

/// Runs the suite. The rounds of all cases are interleaved.
pub fn run(plan: &Plan, reporter: &mut Reporter) -> anyhow::Result<()> {
    let [mut one, mut pipelined, mut slot, mut iceoryx, mut one_core, mut seven, mut typed] =
        std::array::from_fn(|_| Rounds::default());
    let (mut streamed, mut got) = (Vec::new(), Vec::new());
    let database = database::Database::start(&plan.binary)?;
    let length = (plan.round / 5).max(Duration::from_millis(50));
    for round in 0..plan.rounds {
        reporter.progress(&format!("ipc: round {} of {}", round + 1, plan.rounds));
        one.0.push(cases::uds_1_client(length)?);
        pipelined.0.push(cases::uds_pipelined(length)?);
        slot.0.push(cases::shm_p50(length)?);
        iceoryx.0.push(cases::shm_p50_against_iceoryx(length)?);
        one_core.0.push(cases::one_core(length)?);
        seven.0.push(cases::seven_clients(length)?);
        typed.0.push(generated::overhead(length)?);
        streamed.push(cases::stream_gb_per_s(length)?);
        got.push(database.get_p50_us(length)?);
    }
    one.record(reporter, "uds_1_client_vs_bare", "calls/s", BARE_ECHO, Target::AtLeast(0.85))?;
    pipelined.record(reporter, "uds_pipelined_vs_bare", "calls/s", BARE_ECHO, Target::AtLeast(0.9))?;
    slot.record(reporter, "shm_p50_vs_bare_slot", "us", BARE_SLOT, Target::AtMost(1.6))?;
    iceoryx.record(reporter, "shm_p50_vs_iceoryx2", "us", ICEORYX, Target::AtMost(0.7))?;
    one_core.record(reporter, "shm_rate_vs_uds_one_core", "calls/s", SOCKET, Target::AtLeast(1.5))?;
    seven.record(reporter, "seven_clients_20us_handler_2_cores", "calls/s", SERIAL, Target::AtLeast(1.8))?;
    typed.record(reporter, "generated_client_overhead", "us", RAW_CLIENT, Target::AtMost(1.15))?;
    reporter.record(Case {
        suite: SUITE,
        case: "db_get_shm_p50_us",
        value: median(&got),
        unit: "us",
        peer: None,
        target: Target::AtMost(3.0),
    })?;
    Ok(reporter.record(Case {
        suite: SUITE,
        case: "stream_16mib_gb_per_s",
        value: median(&streamed),
        unit: "GB/s",
        peer: None,
        target: Target::AtLeast(1.0),
    })?)
}
