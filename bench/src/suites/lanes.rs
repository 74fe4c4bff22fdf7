//! Suite `lanes`: what ordering costs, and what it is worth.
//!
//! All cases but the last run `tine-lanes` in this process, because they compare it with doing without: a direct call, or the common
//! design of one queue with one awaited reply per request on the same runtime. The last one drives a server.

mod inside;
mod rude;
mod socket;

use crate::{
    Plan,
    report::{Case, Reporter, Target, median},
};

const SUITE: &str = "lanes";

/// Runs the suite. The rounds of all cases are interleaved.
pub async fn run(plan: &Plan, reporter: &mut Reporter) -> anyhow::Result<()> {
    let mut idle_overhead_ns = Vec::new();
    let mut pipelined = Vec::new();
    let mut one_in_flight = Vec::new();
    let mut parallel_reads = Vec::new();
    let mut mixed_reads = Vec::new();
    let mut idle_lane_bytes = Vec::new();
    let mut idle_lanes_slowdown = Vec::new();
    let mut good_client = Vec::new();
    for round in 0..plan.rounds {
        reporter.progress(&format!("lanes: round {} of {}", round + 1, plan.rounds));
        // The cases keep cores busy and block: not on the driver's one-threaded runtime.
        let length = plan.round / 4;
        let inside = move || -> anyhow::Result<_> {
            Ok((
                inside::idle_overhead_ns(),
                inside::pipelined_over_baseline(length)?,
                socket::lane_over_no_lane()?,
                inside::parallel_over_single_reads(length)?,
                inside::mixed_over_pure_reads(length)?,
                inside::idle_lanes()?,
            ))
        };
        let (overhead, noop, uds, parallel, mixed, idle) = std::thread::scope(|scope| {
            let inside = scope.spawn(inside);
            inside.join().expect("the cases do not panic")
        })?;
        idle_overhead_ns.push(overhead);
        pipelined.push(noop);
        one_in_flight.push(uds);
        parallel_reads.push(parallel);
        mixed_reads.push(mixed);
        idle_lane_bytes.push(idle.bytes_per_lane);
        idle_lanes_slowdown.push(idle.slowdown);
        good_client.push(rude::good_client_ratio(plan).await?);
    }
    let case =
        |case, unit, value: &[f64], target| Case { suite: SUITE, case, value: median(value), unit, peer: None, target };
    for case in [
        case("idle_overhead_ns", "ns", &idle_overhead_ns, Target::AtMost(150.0)),
        case("pipelined_noop_vs_baseline", "ratio", &pipelined, Target::AtLeast(3.0)),
        case("uds_one_in_flight_vs_no_lane", "ratio", &one_in_flight, Target::AtMost(1.1)),
        case("parallel_reads_2_cores", "ratio", &parallel_reads, Target::AtLeast(1.8)),
        case("mixed_read_ratio", "ratio", &mixed_reads, Target::AtLeast(0.8)),
        case("idle_lane_bytes", "B", &idle_lane_bytes, Target::AtMost(200.0)),
        case("idle_lanes_slowdown", "ratio", &idle_lanes_slowdown, Target::AtMost(1.1)),
        case("good_client_p99_ratio", "ratio", &good_client, Target::AtMost(3.0)),
    ] {
        reporter.record(case)?;
    }
    Ok(())
}
