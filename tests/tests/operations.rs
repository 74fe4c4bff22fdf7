//! What the one who runs a server sees of it: its log, its signals, its service manager, and locks.

use std::{
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tine_client::ClientError;
use tine_tests::{
    binary,
    keep::TestDirectory,
    server::{TestServer, clean_environment},
    wait::until,
};

fn signal(server: &TestServer, number: i32) {
    let process = libc::pid_t::try_from(server.pid()).expect("process ids are small");
    // SAFETY: kill(2) takes plain numbers; the child has not been awaited, so the id is its.
    assert_eq!(unsafe { libc::kill(process, number) }, 0);
}

fn request(server: &TestServer, path: &str, id: &str) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let reply = agent.get(format!("{}{path}", server.url())).header("x-request-id", id).call().expect("answered");
    let found = reply.headers().get("x-request-id").and_then(|value| value.to_str().ok());
    assert_eq!(found, Some(id));
}

/// Every line of a JSON log is an object, and what is logged for a request names its id.
#[test]
fn a_json_log_names_the_request_of_each_event() {
    let mut server = TestServer::start_with(&["--log-format", "json", "--log-level", "debug"]);
    request(&server, "/v1/database/nobody", "the-request-1");
    let has_id = |event: &Value| {
        let spans = event["spans"].as_array().cloned().unwrap_or_default();
        spans.iter().any(|span| span["name"] == "request" && span["id"] == "the-request-1")
    };
    let events = || -> Vec<Value> {
        let log = server.log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole).to_owned();
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    };
    let answered = until("the answer in the log", || {
        events().into_iter().find(|event| event["message"] == "answered" && has_id(event))
    });
    assert_eq!(answered["status"], 404);
    assert_eq!(answered["level"], "DEBUG");
    assert!(answered["timestamp"].is_string() && answered["target"].is_string());
    server.stop();
}

#[test]
fn the_level_decides_what_is_logged() {
    let mut quiet = TestServer::start_with(&["--log-level", "error"]);
    quiet.publish_probe("quiet");
    quiet.stop();
    assert_eq!(quiet.log(), "");
    let mut usual = TestServer::start();
    usual.stop();
    assert!(usual.log().contains("listening"), "{}", usual.log());
    assert!(!usual.log().contains("DEBUG"), "{}", usual.log());
}

#[test]
fn a_hangup_ends_no_server_without_a_terminal() {
    let mut server = TestServer::start();
    let database = server.publish_probe("hangup");
    signal(&server, libc::SIGHUP);
    until("the note in the log", || server.log().contains("SIGHUP").then_some(()));
    database.client.call(&database.name, "noop", &json!([])).expect("the server serves");
    server.stop();
}

/// `READY=1` when requests are taken, `STOPPING=1` when the server is told to end; RUST_LOG is a filter.
#[test]
fn the_service_manager_is_told() {
    let directory = TestDirectory::new("notify");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(15))).expect("set");
    let mut command = Command::new(binary());
    clean_environment(&mut command, directory.path());
    command.arg("serve").arg("--data-dir").arg(directory.path().join("data")).args(["--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path).env("RUST_LOG", "error");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("started");
    let hear = || {
        let mut buffer = [0; 128];
        let length = socket.recv(&mut buffer).expect("a message in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(hear(), "READY=1");
    // SAFETY: kill(2) takes plain numbers; the child has not been awaited, so the id is its.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    assert_eq!(hear(), "STOPPING=1");
    assert!(child.wait().expect("ended").success());
}

/// A locked database refuses to be deleted and reset, also after a restart, until its owner unlocks it.
#[test]
fn a_lock_outlives_a_crash() {
    let mut server = TestServer::start();
    let database = server.publish_probe("locked");
    let (_, stranger) = server.newcomer();
    let post = |server: &TestServer, action: &str, token: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let url = format!("{}/v1/database/locked/{action}", server.url());
        let reply = agent.post(url).header("authorization", format!("Bearer {token}")).send_empty().expect("answered");
        reply.status().as_u16()
    };
    assert_eq!(post(&server, "lock", &stranger), 403);
    assert_eq!(post(&server, "lock", &database.token), 200);
    for round in 0..2 {
        let client = server.anonymous().with_token(&database.token);
        client.call("locked", "add", &json!(["kept", 1])).expect("calls go on");
        for refused in [client.delete("locked", false).err(), client.reset("locked").err()] {
            match refused {
                Some(ClientError::Refused { status: 403, server_code: Some(code), .. }) => assert_eq!(code, "TN0635"),
                other => panic!("round {round}: {other:?}"),
            }
        }
        server.kill();
        server.restart();
    }
    assert_eq!(post(&server, "unlock", &stranger), 403);
    assert_eq!(post(&server, "unlock", &database.token), 200);
    let client = server.anonymous().with_token(&database.token);
    assert_eq!(client.sql("locked", "SELECT * FROM person").expect("read")[0].rows.len(), 2);
    client.reset("locked").expect("reset");
    client.delete("locked", false).expect("deleted");
}

/// Lane threads stay on one core each when asked to, and on any otherwise.
#[test]
fn lane_threads_are_pinned_only_when_asked() {
    let cores_of_lanes = |server: &TestServer| -> Vec<String> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("the server runs");
        let statuses = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("status")).ok());
        let lanes = statuses.filter(|status| status.starts_with("Name:\ttine-lane-"));
        let field = |status: String| {
            status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t").map(str::to_owned))
        };
        lanes.filter_map(field).collect()
    };
    let pinned = TestServer::start_with(&["--pin-cores", "--cores", "2"]);
    let cores = cores_of_lanes(&pinned);
    assert!(!cores.is_empty() && cores.iter().all(|cores| cores.parse::<usize>().is_ok()), "{cores:?}");
    let free = TestServer::start();
    let own = std::fs::read_to_string("/proc/self/status").expect("our own status");
    let cores = cores_of_lanes(&free);
    assert!(!cores.is_empty() && cores.iter().all(|cores| own.contains(&format!("\t{cores}\n"))), "{cores:?}");
}
