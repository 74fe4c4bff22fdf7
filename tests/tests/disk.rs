//! Disks that fail: a server in this process, over a real socket, on an environment with faults.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tine_base::{FaultEnv, SystemEnv};
use tine_client::{
    ClientError, ConnectOptions, Connection,
    http::{CONTENT_TYPE_SOURCE, HttpClient},
};
use tine_server::{Server, ServerOptions};
use tine_tests::{
    keep::TestDirectory,
    rows::{self, Entry},
    server::module,
};

/// How long the server may take to end.
const STOP: Duration = Duration::from_secs(10);
const DATABASE: &str = "disk";

async fn start(directory: &TestDirectory, env: &FaultEnv) -> Server {
    let listen: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let options = ServerOptions::new(listen, directory.path().join("data"));
    Server::start(options, Arc::new(env.clone()), |_| {}).await.expect("the server starts")
}

fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}

/// Publishes the probe; returns the owner's token.
async fn publish(server: &Server, directory: &TestDirectory) -> String {
    let url = url(server);
    let admin = std::fs::read_to_string(directory.path().join("data/keys/admin-token")).expect("an admin token");
    let publish = move || {
        let client = HttpClient::new(&url).expect("a good address");
        let owner = client.create_identity().expect("an identity");
        let client = client.with_token(&owner.token).with_admin_token(admin.trim());
        let bundle = module("tests/modules/probe.ts").encode();
        client.publish(Some(DATABASE), CONTENT_TYPE_SOURCE, bundle, Default::default()).expect("published");
        owner.token
    };
    tokio::task::spawn_blocking(publish).await.expect("publishing does not panic")
}

async fn connect(server: &Server, token: &str, confirmed: bool) -> Connection {
    let options = ConnectOptions::new(url(server), DATABASE).with_token(token).with_confirmed(confirmed);
    Connection::connect(options).await.expect("connected")
}

async fn sequences(connection: &mut Connection) -> Vec<u32> {
    let rows = connection.one_off_query("SELECT * FROM entry").await.expect("reading goes on");
    let mut sequences: Vec<u32> = rows::of_table::<Entry>(&rows, "entry").iter().map(|row| row.sequence).collect();
    sequences.sort_unstable();
    sequences
}

/// Appends until a call is refused or the connection says that it is over; returns how many were
/// confirmed, and what ended it.
async fn append_until_refused(connection: &mut Connection, from: u32) -> (u32, String) {
    for sequence in from.. {
        let appended = connection.call_reducer("append", rows::append(1, sequence, &"x".repeat(2_000))).await;
        match appended {
            Ok(_) => {}
            Err(ClientError::Call { message, .. }) => return (sequence, message),
            Err(ClientError::Closed { reason, .. }) => return (sequence, reason),
            Err(other) => panic!("neither confirmed nor refused: {other:?}"),
        }
        assert!(sequence < from + 100_000, "the fault never struck");
    }
    unreachable!("the loop ends inside")
}

/// A server on a disk that is going to fail.
struct Patient {
    directory: TestDirectory,
    env: FaultEnv,
    server: Server,
    token: String,
    /// Was there before the fault: the probe's connect hook writes, so nobody new can come in after it.
    reader: Connection,
    writer: Connection,
}

impl Patient {
    async fn new(purpose: &str) -> Patient {
        let directory = TestDirectory::new(purpose);
        let env = FaultEnv::new(Arc::new(SystemEnv));
        let server = start(&directory, &env).await;
        let token = publish(&server, &directory).await;
        let reader = connect(&server, &token, false).await;
        let mut writer = connect(&server, &token, true).await;
        for sequence in 0..20 {
            writer.call_reducer("append", rows::append(1, sequence, "x")).await.expect("appended");
        }
        Patient { directory, env, server, token, reader, writer }
    }

    /// Writes until the fault strikes.
    async fn fail(&mut self) -> u32 {
        let (confirmed, words) = append_until_refused(&mut self.writer, 20).await;
        let counts = self.env.counts();
        assert!(counts.failed_syncs + counts.disk_full + counts.short_writes > 0, "no fault struck: {words}");
        assert!(!words.is_empty(), "the refusal has no words");
        confirmed
    }
}

/// What holds after the disk failed, however it failed: writes are refused with a typed error, reads go
/// on, and after a restart on a good disk everything confirmed is there.
async fn check_after_fault(patient: Patient, confirmed: u32) {
    let Patient { directory, env, server, token, mut reader, writer } = patient;
    drop(writer);
    let seen = sequences(&mut reader).await;
    assert!(seen.len() >= confirmed as usize, "reading lost rows: {} of {confirmed}", seen.len());
    let refused = reader.call_reducer("append", rows::append(2, 0, "more")).await;
    assert!(matches!(refused, Err(ClientError::Call { .. } | ClientError::Closed { .. })), "{refused:?}");

    let call = {
        let client = HttpClient::new(&url(&server)).expect("a good address").with_token(&token);
        let call = move || client.call(DATABASE, "add", &serde_json::json!(["x", 1]));
        tokio::task::spawn_blocking(call).await.expect("calling does not panic")
    };
    match call {
        Err(ClientError::Refused { status, server_code, message }) => {
            assert!(status >= 500, "{status} {message}");
            assert!(server_code.is_some_and(|code| code.starts_with("TN")), "no code: {message}");
        }
        other => panic!("a write on a failed disk: {other:?}"),
    }
    drop(reader);
    // Closing may report the fault again; the directory must be free after it either way.
    let _ = server.shutdown(STOP).await;

    env.clear();
    let server = start(&directory, &env).await;
    let mut connection = connect(&server, &token, true).await;
    let stored = sequences(&mut connection).await;
    assert!(stored.len() >= confirmed as usize, "{} of {confirmed} confirmed rows are there", stored.len());
    assert_eq!(stored, (0..stored.len() as u32).collect::<Vec<u32>>(), "the state is not a prefix");
    let next = stored.len() as u32;
    connection.call_reducer("append", rows::append(1, next, "after")).await.expect("writing works again");
    drop(connection);
    server.shutdown(STOP).await.expect("a good disk lets it end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_fsync_makes_the_database_read_only_and_loses_nothing_confirmed() {
    let mut patient = Patient::new("fsync").await;
    patient.env.fail_sync_after(5);
    let confirmed = patient.fail().await;
    check_after_fault(patient, confirmed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_the_database_read_only_and_loses_nothing_confirmed() {
    let mut patient = Patient::new("full-disk").await;
    patient.env.disk_full(true);
    let confirmed = patient.fail().await;
    check_after_fault(patient, confirmed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_cut_short_loses_nothing_confirmed() {
    let mut patient = Patient::new("short-write").await;
    patient.env.short_write_after(50_000);
    let confirmed = patient.fail().await;
    check_after_fault(patient, confirmed).await;
}

/// Confirmed delivery waits for the disk; unconfirmed does not, and never overtakes itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_delays_confirmed_replies_only() {
    let directory = TestDirectory::new("slow-disk");
    let env = FaultEnv::new(Arc::new(SystemEnv));
    let server = start(&directory, &env).await;
    let token = publish(&server, &directory).await;
    let mut confirmed = connect(&server, &token, true).await;
    let mut unconfirmed = connect(&server, &token, false).await;
    let delay = Duration::from_millis(400);
    env.sync_delay(delay);
    let started = std::time::Instant::now();
    unconfirmed.call_reducer("append", rows::append(1, 0, "x")).await.expect("appended");
    assert!(started.elapsed() < delay / 2, "an unconfirmed reply waited {:?}", started.elapsed());
    let started = std::time::Instant::now();
    confirmed.call_reducer("append", rows::append(1, 1, "x")).await.expect("appended");
    assert!(started.elapsed() >= delay / 2, "a confirmed reply came after {:?}", started.elapsed());
    confirmed.call_reducer("noop", Bytes::new()).await.expect("called");
    env.clear();
    drop((confirmed, unconfirmed));
    server.shutdown(STOP).await.expect("it ends in order");
}
