//! Suite `reducers`: what a call costs.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use crate::{
    Plan, bundle, dev,
    load::{Caller, Work, connect},
    peers,
    report::{Case, Reporter, Target, median},
    server::Server,
};

const SUITE: &str = "reducers";
/// Calls before a throughput round counts: the instance is loaded, buffers have their size.
const WARM_UP: Duration = Duration::from_millis(300);
/// Single calls per round of a latency case.
const LATENCY_CALLS: usize = 1_000;
/// Single calls before a latency round counts.
const LATENCY_WARM_UP_CALLS: usize = 100;
/// Rows of different callers of one database do not meet.
const ROWS_PER_CALLER: u64 = 1 << 32;
/// Turns of the scans of a thousand rows and of decoding them, and calls in each.
const SCAN_TURNS: usize = 5;
const SCAN_CALLS: usize = 100;
/// Time in which the server makes a spare instance.
const SPARE_PAUSE: Duration = Duration::from_millis(25);
/// Forks whose instances are counted and weighed.
const INSTANCES: usize = 32;

/// Clients that are connected and do nothing while their memory is weighed.
const IDLE_CLIENTS: usize = 1_000;
/// Clients connected before, so that what all share is there already.
const IDLE_CLIENTS_BEFORE: usize = 50;
/// Time in which buffers of the handshake go back.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// Values of all rounds of each case.
#[derive(Default)]
struct Rounds {
    insert: Vec<f64>,
    insert_cpu_us: Vec<f64>,
    noop: Vec<f64>,
    confirmed_ratio: Vec<f64>,
    latency_us: Vec<f64>,
    latency_confirmed_us: Vec<f64>,
    insert_bundle: Vec<f64>,
    find_update_bundle: Vec<f64>,
    scan_bundle_ratio: Vec<f64>,
}

/// Runs the suite.
pub async fn run(plan: &Plan, reporter: &mut Reporter) -> anyhow::Result<()> {
    let bundle = bundle::build()?;
    let server = Server::start(&plan.binary)?;
    let mut rounds = Rounds::default();
    for round in 0..plan.rounds {
        reporter.progress(&format!("reducers: round {} of {}", round + 1, plan.rounds));
        // A fresh database per round, so that no round works on a larger table than another.
        let database = format!("bench-{round}");
        server.publish(&database)?;
        one_round(&server, &database, plan, &mut rounds, round % 2 == 1).await?;
        server.http().delete(&database, true)?;
        if let Some(bundle) = &bundle {
            let database = format!("bundle-{round}");
            server.publish_bundle(&database, bundle)?;
            bundle_round(&server, &database, plan, &mut rounds).await?;
            server.http().delete(&database, true)?;
        }
    }
    server.stop()?;
    let instances = weigh_instances(plan).await?;
    let first_call_us = first_calls_us(plan)?;
    reporter.progress("reducers: saving under `tine dev`");
    let reload_ms = dev::reload_ms(&plan.binary)?;
    let case =
        |case, unit, value: &[f64], peer, target| Case { suite: SUITE, case, value: median(value), unit, peer, target };
    let cases = [
        case("insert_source", "calls/s", &rounds.insert, Some(peers::INSERTS), Target::AtLeast(140_000.0)),
        case("insert_source_cpu_us", "us/call", &rounds.insert_cpu_us, Some(peers::INSERT_CPU_US), Target::AtMost(7.0)),
        case("noop_source", "calls/s", &rounds.noop, Some(peers::NOOPS), Target::AtLeast(250_000.0)),
        case(
            "insert_confirmed_ratio",
            "ratio",
            &rounds.confirmed_ratio,
            Some(peers::CONFIRMED_RATIO),
            Target::AtLeast(0.9),
        ),
        case("latency_insert_p50_us", "us", &rounds.latency_us, Some(peers::INSERT_LATENCY_US), Target::AtMost(45.0)),
        case("latency_insert_confirmed_p50_us", "us", &rounds.latency_confirmed_us, None, Target::AtMost(150.0)),
        case("fork_first_call_us", "us", &first_call_us, None, Target::AtMost(300.0)),
        case("instance_load_ms", "ms", &[instances.load_ms], None, Target::AtMost(6.0)),
        case("dev_reload_ms", "ms", &reload_ms, None, Target::AtMost(1_000.0)),
        case("idle_sdk_client_kb", "kB", &[weigh_idle_clients(plan).await?], None, Target::AtMost(60.0)),
        case("instance_memory_mb", "MB", &[instances.memory_mb], None, Target::AtMost(3.0)),
    ];
    for case in cases {
        reporter.record(case)?;
    }
    if let Some(bundle) = &bundle {
        let load_ms = load_cached_bundle(plan, bundle)?;
        for case in [
            case("insert_bundle", "calls/s", &rounds.insert_bundle, Some(peers::INSERTS), Target::AtLeast(35_000.0)),
            case("find_update_bundle", "calls/s", &rounds.find_update_bundle, None, Target::AtLeast(28_000.0)),
            case("scan1000_bundle_vs_engine", "ratio", &rounds.scan_bundle_ratio, None, Target::AtMost(1.3)),
            case("bundle_load_cached_ms", "ms", &[load_ms], None, Target::AtMost(6.0)),
        ] {
            reporter.record(case)?;
        }
    }
    Ok(())
}

/// One round of the cases of bundles.
async fn bundle_round(server: &Server, database: &str, plan: &Plan, rounds: &mut Rounds) -> anyhow::Result<()> {
    let mut caller = Caller::connect(server, database, false, 0).await?;
    let insert = caller.throughput(Work::Insert, WARM_UP, plan.round, server).await?;
    rounds.insert_bundle.push(insert.calls_per_s);
    let find_update = caller.throughput(Work::FindUpdate, WARM_UP, plan.round, server).await?;
    rounds.find_update_bundle.push(find_update.calls_per_s);
    caller.latency_p50_us(Work::FillLeaves, 1).await?;
    // Medians of single calls, taken in turns: the rest of a call is the same for both, and small next to a thousand rows.
    let (mut scan_us, mut decode_us) = (Vec::new(), Vec::new());
    for _ in 0..SCAN_TURNS {
        scan_us.push(caller.latency_p50_us(Work::ScanLeaves, SCAN_CALLS).await?);
        decode_us.push(caller.latency_p50_us(Work::DecodeLeaves, SCAN_CALLS).await?);
    }
    rounds.scan_bundle_ratio.push(median(&scan_us) / median(&decode_us));
    let expected = caller.rows_inserted();
    caller.close().await?;
    let rows = server.row_count(database)?;
    ensure!(rows == expected, "{expected} inserts were answered, but the table has {rows} rows");
    Ok(())
}

/// What a restarted server needs to make a bundle it has compiled before callable, by its own metrics: reading the compiled
/// code once, and building an instance, of which several are averaged.
fn load_cached_bundle(plan: &Plan, bundle: &[u8]) -> anyhow::Result<f64> {
    let mut server = Server::start(&plan.binary)?;
    server.publish_bundle("bench", bundle)?;
    server.restart(&plan.binary)?;
    for fork in 0..INSTANCES {
        let name = format!("f{fork}");
        server.http().create_fork("bench", &name, true)?;
        server.http().call(&format!("bench@{name}"), "insert", &json!([1, "first call", 1]))?;
    }
    let per =
        |time: &str, count: &str| -> anyhow::Result<f64> { Ok(server.metric(time)? / server.metric(count)? / 1e6) };
    let module_ms = per("tine_module_load_nanoseconds_total", "tine_modules_loaded_total")?;
    let instance_ms = per("tine_instance_load_nanoseconds_total", "tine_instances_loaded_total")?;
    server.stop()?;
    Ok(module_ms + instance_ms)
}

/// One round of every case. Every other round takes the confirmed inserts first, so that neither of the
/// two always works on the larger table.
async fn one_round(
    server: &Server,
    database: &str,
    plan: &Plan,
    rounds: &mut Rounds,
    confirmed_first: bool,
) -> anyhow::Result<()> {
    let mut unconfirmed = Caller::connect(server, database, false, 0).await?;
    let mut confirmed = Caller::connect(server, database, true, ROWS_PER_CALLER).await?;
    let (insert, confirmed_insert) = if confirmed_first {
        let confirmed_insert = confirmed.throughput(Work::Insert, WARM_UP, plan.round, server).await?;
        (unconfirmed.throughput(Work::Insert, WARM_UP, plan.round, server).await?, confirmed_insert)
    } else {
        let insert = unconfirmed.throughput(Work::Insert, WARM_UP, plan.round, server).await?;
        (insert, confirmed.throughput(Work::Insert, WARM_UP, plan.round, server).await?)
    };
    rounds.insert.push(insert.calls_per_s);
    rounds.insert_cpu_us.push(insert.cpu_us_per_call);
    rounds.confirmed_ratio.push(confirmed_insert.calls_per_s / insert.calls_per_s);

    let noop = unconfirmed.throughput(Work::Noop, WARM_UP, plan.round, server).await?;
    rounds.noop.push(noop.calls_per_s);

    unconfirmed.latency_p50_us(Work::Insert, LATENCY_WARM_UP_CALLS).await?;
    rounds.latency_us.push(unconfirmed.latency_p50_us(Work::Insert, LATENCY_CALLS).await?);
    confirmed.latency_p50_us(Work::Insert, LATENCY_WARM_UP_CALLS).await?;
    rounds.latency_confirmed_us.push(confirmed.latency_p50_us(Work::Insert, LATENCY_CALLS).await?);

    let expected = unconfirmed.rows_inserted() + confirmed.rows_inserted();
    unconfirmed.close().await?;
    confirmed.close().await?;
    let rows = server.row_count(database)?;
    ensure!(rows == expected, "{expected} inserts were answered, but the table has {rows} rows");
    Ok(())
}

/// First calls of new forks over HTTP, each when the server has had the time to make a spare instance.
fn first_calls_us(plan: &Plan) -> anyhow::Result<Vec<f64>> {
    let server = Server::start(&plan.binary)?;
    server.publish("bench")?;
    let http = server.http();
    http.call("bench", "insert", &json!([0, "warm up", 0]))?;
    let mut times_us = Vec::with_capacity(INSTANCES);
    for fork in 0..INSTANCES {
        let name = format!("f{fork}");
        http.create_fork("bench", &name, true)?;
        // The connection stays busy, so that the call is measured and not how long an idle core takes to wake.
        let ready = Instant::now() + SPARE_PAUSE;
        while Instant::now() < ready {
            http.call("bench", "noop", &json!([]))?;
        }
        let start = Instant::now();
        http.call(&format!("bench@{name}"), "insert", &json!([1, "first call", 1]))?;
        times_us.push(start.elapsed().as_secs_f64() * 1e6);
    }
    server.stop()?;
    Ok(times_us)
}

/// What one more live instance costs.
struct Instances {
    load_ms: f64,
    memory_mb: f64,
}

/// Makes the server load many instances (one per fork, by its first call) and takes the server's own
/// count and load time. Memory is the larger of two: the growth of the server's resident memory, which
/// includes what an instance costs outside its heap but misses what fits into memory freed before, and
/// the heap the engine reports. A fresh server, so that little was freed before.
async fn weigh_instances(plan: &Plan) -> anyhow::Result<Instances> {
    const LOADED: &str = "tine_instances_loaded_total";
    const LOAD_NS: &str = "tine_instance_load_nanoseconds_total";
    const HEAP_BYTES: &str = "tine_instance_memory_bytes";
    let server = Server::start(&plan.binary)?;
    server.publish("bench")?;
    let http = server.http();
    http.call("bench", "insert", &json!([0, "warm up", 0]))?;
    let (loaded_before, ns_before) = (server.metric(LOADED)?, server.metric(LOAD_NS)?);
    let resident_before = server.resident_bytes()?;
    for fork in 0..INSTANCES {
        let name = format!("f{fork}");
        http.create_fork("bench", &name, true)?;
        http.call(&format!("bench@{name}"), "insert", &json!([1, "first call", 1]))?;
    }
    let loaded = server.metric(LOADED)? - loaded_before;
    let load_ns = server.metric(LOAD_NS)? - ns_before;
    let resident = server.resident_bytes()?.saturating_sub(resident_before) as f64 / loaded;
    let bytes = resident.max(server.metric(HEAP_BYTES)?);
    ensure!(loaded >= INSTANCES as f64 / 2.0, "only {loaded} instances were loaded for {INSTANCES} forks");
    server.stop()?;
    Ok(Instances { load_ms: load_ns / loaded / 1e6, memory_mb: bytes / 1e6 })
}

/// What an idle client keeps resident in the server, in kB: connected as the npm SDK connects, with one subscription of its own and
/// one that all share.
async fn weigh_idle_clients(plan: &Plan) -> anyhow::Result<f64> {
    let server = Server::start(&plan.binary)?;
    server.publish("bench")?;
    server.http().call("bench", "insert", &json!([0, "a row", 0]))?;
    let mut clients = Vec::with_capacity(IDLE_CLIENTS_BEFORE + IDLE_CLIENTS);
    let mut resident_before = 0;
    for number in 0..IDLE_CLIENTS_BEFORE + IDLE_CLIENTS {
        if number == IDLE_CLIENTS_BEFORE {
            tokio::time::sleep(IDLE_PAUSE).await;
            resident_before = server.resident_bytes()?;
        }
        let mut client = connect(&server, "bench", true).await?;
        client.subscribe(1, &["SELECT * FROM item WHERE id < 10"]).await?;
        client.subscribe(2, &[&format!("SELECT * FROM item WHERE id = {}", number + 1_000)]).await?;
        clients.push(client);
    }
    tokio::time::sleep(IDLE_PAUSE).await;
    let grown = server.resident_bytes()?.saturating_sub(resident_before);
    drop(clients);
    server.stop()?;
    Ok(grown as f64 / IDLE_CLIENTS as f64 / 1e3)
}
