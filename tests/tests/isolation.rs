//! Modules in processes of their own, on the real server: what ends such a process ends one call, and forks inherit the setting.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tine_client::ClientError;
use tine_client::http::{CONTENT_TYPE_SOURCE, HttpClient, PublishOptions};
use tine_tests::server::{TestServer, single_file};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const MODULE: &str = r#"
import { schema, table, t } from "tine:server";
const db = schema({ note: table({ public: true }, { id: t.u64().primaryKey().autoInc(), text: t.string() }) });
export default db;
const insert = (ctx: any, text: string) => ctx.db.note.insert({ id: 0n, text });
export const add = db.reducer({ text: t.string() }, (ctx, { text }) => { insert(ctx, text); });
export const spin = db.reducer(ctx => { insert(ctx, "spun"); for (;;); });
// A native that looks at no clock: in the server's own process nothing could end it.
export const turn = db.reducer(ctx => {
  insert(ctx, "turned");
  Array.prototype.reverse.call({ length: 2 ** 53 - 1 });
});
export const hoard = db.reducer(ctx => { insert(ctx, "hoarded"); const all = []; for (;;) all.push(new Array(1000).fill(7)); });
export const count = db.procedure(t.u64(), ctx => ctx.withTx(tx => tx.db.note.count()));
"#;

/// The pids of the processes that run modules for a server.
fn workers(server: &TestServer) -> Vec<i32> {
    let pid = server.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut all: Vec<i32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    // Workers are children of whichever thread started the zygote.
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("the server runs").flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    all.retain(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "tine-worker")
    });
    all.sort_unstable();
    all.dedup();
    all
}

fn kill_workers(server: &TestServer) {
    for pid in workers(server) {
        // SAFETY: takes plain numbers. A worker that just ended is a zombie of the server or not there.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

fn publish(server: &TestServer, name: &str, isolation: &str) -> HttpClient {
    let (client, token) = server.newcomer();
    let publisher = server.anonymous().with_token(&token).with_admin_token(server.admin_token());
    let options = PublishOptions { isolation: Some(isolation.to_owned()), ..PublishOptions::default() };
    let program = single_file(MODULE).encode();
    publisher.publish(Some(name), CONTENT_TYPE_SOURCE, program, options).unwrap_or_else(|error| panic!("{error}"));
    client
}

fn count(client: &HttpClient, database: &str) -> u64 {
    let called = client.call(database, "count", &json!([])).unwrap_or_else(|error| panic!("{error}"));
    called.value.and_then(|value| value.as_u64()).expect("a number")
}

#[track_caller]
fn fails(result: Result<impl std::fmt::Debug, ClientError>, code: &str) {
    match result {
        Err(error) => assert_eq!(error.shown_code(), code, "{error}"),
        Ok(called) => panic!("{called:?}"),
    }
}

#[test]
fn what_ends_a_process_ends_one_call() {
    let server = TestServer::start();
    let client = publish(&server, "guarded", "process");
    client.call("guarded", "add", &json!(["first"])).expect("added");
    let pid = server.pid();
    for (function, code) in [("turn", "TN0532"), ("hoard", "TN0533"), ("spin", "TN0532")] {
        fails(client.call("guarded", function, &json!([])), code);
        client.call("guarded", "add", &json!([function])).expect("the next call works");
    }
    // Killed while a call runs.
    let killer = thread::scope(|scope| {
        let call = scope.spawn(|| client.call("guarded", "spin", &json!([])));
        thread::sleep(Duration::from_millis(500));
        kill_workers(&server);
        call.join().expect("the caller is answered")
    });
    fails(killer, "TN1102");
    client.call("guarded", "add", &json!(["after the kill"])).expect("the next call works");
    // Killed between calls.
    kill_workers(&server);
    client.call("guarded", "add", &json!(["nobody noticed"])).expect("the next call works");
    assert_eq!(count(&client, "guarded"), 6);
    assert_eq!(server.pid(), pid);
    server.anonymous().call("guarded", "add", &json!(["from somebody else"])).expect("the server is well");
}

#[test]
fn forks_inherit_where_a_module_runs_and_restarts_keep_it() {
    let mut server = TestServer::start_with(&["--isolation", "in-process"]);
    let beside = publish(&server, "beside", "in-process");
    beside.call("beside", "add", &json!(["here"])).expect("added");
    assert!(workers(&server).is_empty(), "no process is started before a module needs one");
    let client = publish(&server, "guarded", "process");
    client.call("guarded", "add", &json!(["first"])).expect("added");
    client.create_fork("guarded", "f", false).expect("forked");
    server.kill();
    server.restart();
    let client = server.anonymous();
    client.call("guarded@f", "add", &json!(["on the fork"])).expect("added");
    let started = Instant::now();
    while workers(&server).is_empty() {
        assert!(started.elapsed() < PATIENCE, "the fork runs beside the server");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((count(&client, "guarded@f"), count(&client, "guarded")), (2, 1));
}

/// The value of a line of metrics that begins like this, up to its value.
fn metric(text: &str, line: &str) -> f64 {
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn what_workers_do_is_counted() {
    let server = TestServer::start();
    let client = publish(&server, "guarded", "process");
    client.call("guarded", "add", &json!(["first"])).expect("added");
    fails(client.call("guarded", "turn", &json!([])), "TN0532");
    kill_workers(&server);
    client.call("guarded", "add", &json!(["second"])).expect("added");
    let read = || server.anonymous().metrics().expect("metrics");
    let started = Instant::now();
    while metric(&read(), "tine_workers_died_total") < 1.0 || metric(&read(), "tine_workers_in_flight") > 0.0 {
        assert!(started.elapsed() < PATIENCE, "{}", read());
        thread::sleep(Duration::from_millis(10));
    }
    let text = read();
    let documented = include_str!("../../docs/limits.md");
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE tine_worker")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        assert!(documented.contains(&format!("`tine_worker{name}")), "tine_worker{name} is not documented");
        assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
    }
    // The one that compiled, the two that ran calls and were ended, and the last.
    assert!(metric(&text, "tine_workers_launches_total") >= 4.0, "{text}");
    assert!(metric(&text, "tine_workers_requests_total") >= 6.0, "{text}");
    assert!(metric(&text, "tine_workers_nested_calls_total") >= 3.0, "{text}");
    assert_eq!(metric(&text, "tine_workers_timeouts_total"), 1.0);
    assert_eq!(metric(&text, "tine_workers_killed_total{cause=\"deadline\"}"), 1.0);
    assert_eq!(metric(&text, "tine_workers_killed_total{cause=\"protocol\"}"), 0.0);
    for zero in ["launches_failed_total", "abandoned_slots", "in_flight_bytes"] {
        assert_eq!(metric(&text, &format!("tine_workers_{zero}")), 0.0, "{zero}");
    }
    for histogram in ["launch_call", "fork_to_ready", "first_reply", "queue_wait", "kill_to_reaped"] {
        let name = format!("tine_workers_{histogram}_seconds");
        let count = metric(&text, &format!("{name}_count"));
        assert!(count > 0.0, "{name}");
        assert_eq!(metric(&text, &format!("{name}_bucket{{le=\"+Inf\"}}")), count, "{name}");
        assert!(metric(&text, &format!("{name}_sum")) < 1_000.0, "{name} is in seconds");
    }
    let of_workers = |name: &str| -> Vec<f64> {
        let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{entry=\"tine-module\",")));
        lines.map(|line| line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")).collect()
    };
    let resident = of_workers("tine_worker_resident_bytes");
    assert!(!resident.is_empty() && resident.iter().all(|&bytes| bytes > 100_000.0), "{text}");
    assert_eq!(of_workers("tine_worker_cpu_seconds_total").len(), resident.len());
}
