//! SIGKILL at random moments, torn and damaged logs, and two servers on one directory (G7).

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tine_base::SystemEnv;
use tine_client::{
    ClientError, ConnectOptions, Connection,
    protocol::{ClientMessage, ReducerOutcome, ServerMessage},
};
use tine_store::{ForkId, KeyspaceId, LogRecordKind, Store};
use tine_tests::{
    rows::{self, Entry},
    server::{Owned, TestServer},
};

/// Rounds of the kill test; the long run has more.
const ROUNDS: u32 = 20;
const ROUNDS_LONG: u32 = 200;
/// Writers of each round, and calls each keeps in flight.
const CLIENTS: u32 = 4;
const DEPTH: usize = 32;

/// A client that appends its own count and remembers how far it was confirmed.
async fn append_until_cut(mut connection: Connection, client: u32, first: u32, total: Arc<AtomicU64>) -> (u32, u32) {
    let (mut sent, mut confirmed) = (first, first);
    loop {
        let batch: Vec<ClientMessage> = (sent..confirmed + DEPTH as u32)
            .map(|sequence| ClientMessage::CallReducer {
                request_id: sequence,
                reducer: "append".into(),
                args: rows::append(client, sequence, "kept"),
            })
            .collect();
        sent += batch.len() as u32;
        if !batch.is_empty() && connection.send(&batch).await.is_err() {
            return (confirmed, sent);
        }
        match connection.recv().await {
            Ok(ServerMessage::ReducerResult { request_id, outcome, .. }) => {
                assert_eq!(request_id, confirmed, "replies come in request order");
                assert!(matches!(outcome, ReducerOutcome::Ok { .. }), "{outcome:?}");
                confirmed += 1;
                total.fetch_add(1, Ordering::Relaxed);
            }
            Err(ClientError::Closed { .. } | ClientError::Transport(_)) => return (confirmed, sent),
            other => panic!("{other:?}"),
        }
    }
}

/// Every round kills the server at another moment under load; after it every confirmed row is there,
/// each client's rows are a prefix of what it sent, and the store holds what its log says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_confirmed_is_lost_to_kill_nine() {
    let rounds = if std::env::var_os("TINE_TESTS_LONG").is_some() { ROUNDS_LONG } else { ROUNDS };
    let mut server = TestServer::start();
    let database = server.publish_probe("crash");
    let mut seed = 0x5eed_u64;
    let mut next = vec![0; CLIENTS as usize];
    let mut confirmed_in_all = 0;
    for round in 0..rounds {
        let total = Arc::new(AtomicU64::new(0));
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            let options = ConnectOptions::new(server.url(), &database.name).with_confirmed(true);
            let connection = Connection::connect(options).await.expect("connected");
            clients.push((connection, client));
        }
        // All are there before the first begins: none may meet the kill on its way in.
        let start = |(connection, client): (Connection, u32)| {
            tokio::spawn(append_until_cut(connection, client, next[client as usize], total.clone()))
        };
        let clients: Vec<_> = clients.into_iter().map(start).collect();
        // A few milliseconds in, at another phase of the group commit each round.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        while total.load(Ordering::Relaxed) < 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_micros((seed >> 33) % 60_000)).await;
        server.kill();

        let mut memory = Vec::new();
        for client in clients {
            memory.push(client.await.expect("no client fails"));
        }
        replay_equals_recovery(&server.data());
        server.restart();
        let stored = entries(&server, &database).await;
        for (client, (confirmed, sent)) in memory.into_iter().enumerate() {
            let sequences = stored.get(&(client as u32)).cloned().unwrap_or_default();
            let count = sequences.len() as u32;
            assert_eq!(sequences, (0..count).collect::<Vec<u32>>(), "round {round}: client {client} has a gap");
            assert!(
                (confirmed..=sent).contains(&count),
                "round {round}: client {client} had {confirmed} confirmed of {sent}, {count} are there"
            );
            next[client] = count;
        }
        confirmed_in_all += total.load(Ordering::Relaxed);
    }
    assert!(confirmed_in_all > u64::from(rounds) * 20, "the load was too small to mean anything");
    println!("{rounds} rounds, {confirmed_in_all} confirmed commits, none lost");
}

/// Every client's sequence numbers, in order.
async fn entries(server: &TestServer, database: &Owned) -> BTreeMap<u32, Vec<u32>> {
    let options = ConnectOptions::new(server.url(), &database.name);
    let mut connection = Connection::connect(options).await.expect("connected");
    let result = connection.one_off_query("SELECT * FROM entry").await.expect("the query runs");
    let mut all: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in rows::of_table::<Entry>(&result, "entry") {
        all.entry(entry.client).or_default().push(entry.sequence);
    }
    all.values_mut().for_each(|sequences| sequences.sort_unstable());
    all
}

/// The directories of the stores of databases, below the data directory.
fn stores(data: &Path) -> Vec<PathBuf> {
    let databases = std::fs::read_dir(data.join("databases")).expect("there are databases");
    databases.map(|entry| entry.expect("it can be listed").path()).collect()
}

type Contents = BTreeMap<(ForkId, KeyspaceId, Vec<u8>), Vec<u8>>;

/// Replays the log of every database by hand and compares with what the store recovers.
fn replay_equals_recovery(data: &Path) {
    for directory in stores(data) {
        let mut replayed = Contents::new();
        for record in Store::read_log(&directory, Arc::new(SystemEnv)).expect("the log can be read") {
            match record.expect("every record but a torn last one can be read").kind {
                LogRecordKind::Commit { version, operations, .. } => {
                    for operation in operations {
                        let place = (version.fork, operation.keyspace, operation.key.to_vec());
                        match operation.value {
                            Some(value) => replayed.insert(place, value.to_vec()),
                            None => replayed.remove(&place),
                        };
                    }
                }
                LogRecordKind::ForkCreated { parent: Some(_), .. } => panic!("this test makes no forks"),
                _ => {}
            }
        }
        let recovered = contents(&directory, &replayed);
        assert!(!replayed.is_empty(), "the log of {} is empty", directory.display());
        assert_eq!(recovered.len(), replayed.len(), "{}", directory.display());
        assert!(recovered == replayed, "the recovered state differs from the replayed log");
    }
}

/// What a store holds in the keyspaces that occur in `like`.
fn contents(directory: &Path, like: &Contents) -> Contents {
    use std::{collections::BTreeSet, ops::Bound};
    use tine_store::{Direction, Read, StoreOptions};
    let store = Store::open(StoreOptions::new(directory), Arc::new(SystemEnv)).expect("the store opens");
    let mut found = Contents::new();
    let keyspaces: BTreeSet<(ForkId, KeyspaceId)> = like.keys().map(|(fork, keyspace, _)| (*fork, *keyspace)).collect();
    for (fork, keyspace) in keyspaces {
        let snapshot = store.snapshot(fork).expect("the fork is there");
        let mut cursor = snapshot.range(keyspace, Bound::Unbounded, Bound::Unbounded, Direction::Forward);
        while let Some((key, value)) = cursor.next().expect("it can be read") {
            found.insert((fork, keyspace, key.to_vec()), value.to_vec());
        }
    }
    store.close().expect("the store closes");
    found
}

/// A server with some commits, stopped in order; its newest log segment and how much of it is used.
async fn stopped_with_log() -> (TestServer, Owned, PathBuf, u64) {
    let mut server = TestServer::start();
    let database = server.publish_probe("damaged");
    let mut connection =
        Connection::connect(ConnectOptions::new(server.url(), &database.name)).await.expect("connected");
    for sequence in 0..50 {
        connection.call_reducer("append", rows::append(1, sequence, "a row of some length")).await.expect("appended");
    }
    drop(connection);
    server.stop();
    let directory = stores(&server.data()).pop().expect("one database");
    let mut segments: Vec<PathBuf> =
        std::fs::read_dir(directory.join("log")).expect("a log").map(|entry| entry.expect("listed").path()).collect();
    segments.sort();
    let segment = segments.pop().expect("a segment");
    let bytes = std::fs::read(&segment).expect("it can be read");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("it is not empty") as u64 + 1;
    (server, database, segment, used)
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_the_rest_is_there() {
    /// How a tail is torn: in a segment of which so many bytes are used.
    type Damage = fn(&Path, u64);
    let damages: [(&str, Damage); 3] = [
        ("half a frame behind the end", |segment, used| write_at(segment, used, &[0x55; 11])),
        ("garbage behind the end", |segment, used| write_at(segment, used, &[0xff; 300])),
        ("the last bytes missing", |segment, used| write_at(segment, used - 5, &[0; 5])),
    ];
    for (damage, apply) in damages {
        let (mut server, database, segment, used) = stopped_with_log().await;
        apply(&segment, used);
        server.restart();
        let stored = entries(&server, &database).await.remove(&1).unwrap_or_default();
        let fewest = if damage.contains("missing") { 49 } else { 50 };
        assert!(stored.len() >= fewest, "{damage}: only {} of 50 rows are left", stored.len());
        assert_eq!(stored, (0..stored.len() as u32).collect::<Vec<u32>>(), "{damage}: not a prefix");
        let after = database_of(&server, &database).call(&database.name, "add", &serde_json::json!(["after", 1]));
        after.unwrap_or_else(|error| panic!("{damage}: writing goes on: {error}"));
        server.kill();
        server.restart();
        let rows = database_of(&server, &database).sql(&database.name, "SELECT * FROM person").expect("it can be read");
        assert_eq!(rows[0].rows.len(), 1, "{damage}: what was written after the recovery is there");
    }
}

#[tokio::test]
async fn a_bit_flip_in_the_middle_is_refused_with_its_offset() {
    for part in [3, 2] {
        let (mut server, _, segment, used) = stopped_with_log().await;
        let at = used / part;
        let directory = stores(&server.data()).pop().expect("one database");
        let records = Store::read_log(&directory, Arc::new(SystemEnv)).expect("the log can be read");
        let offsets = records.map(|record| record.expect("an intact log").offset);
        let frame = offsets.take_while(|offset| *offset <= at).last().expect("the flip is in a frame");
        let file = OpenOptions::new().read(true).write(true).open(&segment).expect("it can be opened");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("it can be read");
        file.write_all_at(&[byte[0] ^ 0x10], at).expect("it can be written");
        let failure = server.try_restart().expect_err("a damaged log is refused");
        assert_eq!(failure.status.and_then(|status| status.code()), Some(8), "{}", failure.log);
        let named =
            failure.log.split("at byte ").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        let named = named.and_then(|digits| digits.parse().ok());
        assert_eq!(named, Some(frame), "the offset of the damaged frame is not named:\n{}", failure.log);
        let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(failure.log.contains(&name), "the file is not named:\n{}", failure.log);
        // Nothing was changed: the flip undone, everything is there again.
        file.write_all_at(&byte, at).expect("it can be written");
        server.restart();
    }
}

/// What fell due while nobody ran it runs once after the restart; intervals go on.
#[test]
fn schedules_go_on_after_a_crash() {
    let mut server = TestServer::start();
    let database = server.publish_probe("scheduled");
    let call = |client: &tine_client::http::HttpClient, reducer: &str, label: &str, ms: u32| {
        client.call("scheduled", reducer, &serde_json::json!([label, ms])).expect("scheduled");
    };
    for round in 0..20 {
        call(&database.client, "remind", &format!("overdue {round}"), 200 + round);
    }
    call(&database.client, "remind", "later", 1_500);
    call(&database.client, "repeat", "again", 50);
    server.kill();
    std::thread::sleep(Duration::from_millis(400));
    server.restart();
    let client = database_of(&server, &database);
    let count = |condition: &str| {
        let query = format!("SELECT * FROM reminded WHERE label {condition}");
        client.sql("scheduled", &query).expect("the query runs")[0].rows.len()
    };
    tine_tests::wait::until_true("what was overdue", || count("<> 'again'") >= 20);
    tine_tests::wait::until_true("the interval", || count("= 'again'") >= 3);
    tine_tests::wait::until_true("what was still to come", || count("= 'later'") == 1);
    assert_eq!(count("<> 'again'"), 21, "each one-shot ran once");
    call(&client, "remind", "new", 1);
    tine_tests::wait::until_true("a new one", || count("= 'new'") == 1);
}

#[test]
fn a_second_server_on_the_same_directory_refuses() {
    let server = TestServer::start();
    let database = server.publish_probe("one-owner");
    let log = server.folder().join("second.log");
    let failure =
        tine_tests::server::launch(&server.data(), &log, "127.0.0.1:0", &[], &[]).expect_err("it must refuse");
    assert_eq!(failure.status.and_then(|status| status.code()), Some(6), "{}", failure.log);
    assert!(failure.log.contains("use") || failure.log.contains("lock"), "{}", failure.log);
    database.client.call(&database.name, "noop", &serde_json::json!([])).expect("the first one goes on");
}

#[tokio::test]
async fn a_graceful_stop_closes_clients_and_keeps_everything() {
    let mut server = TestServer::start();
    let database = server.publish_probe("graceful");
    let options = ConnectOptions::new(server.url(), &database.name).with_confirmed(false);
    let mut connection = Connection::connect(options).await.expect("connected");
    for sequence in 0..500 {
        connection.call_reducer("append", rows::append(1, sequence, "x")).await.expect("appended");
    }
    server.stop();
    let closed = connection.call_reducer("noop", Bytes::new()).await;
    assert!(
        matches!(closed, Err(ClientError::Closed { close_code: Some(1001), .. })),
        "a stopping server says so: {closed:?}"
    );
    server.restart();
    let stored = entries(&server, &database).await.remove(&1).unwrap_or_default();
    assert_eq!(stored.len(), 500, "a graceful stop loses nothing, confirmed or not");
}

fn database_of(server: &TestServer, database: &Owned) -> tine_client::http::HttpClient {
    server.anonymous().with_token(&database.token)
}

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("it can be opened");
    file.write_all_at(bytes, at).expect("it can be written");
}
