//! Forks share the server's threads: equal load gets equal shares, and a hot fork leaves room.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tine_client::{ConnectOptions, Connection, protocol::ClientMessage};
use tine_tests::{
    rows,
    server::{Owned, TestServer},
};

/// How long a share is measured.
const LENGTH: Duration = Duration::from_millis(1_200);
/// Connections of each fork under equal load: more than threads in all.
const CONNECTIONS: u32 = 6;
/// Calls in flight of each.
const DEPTH: u32 = 4;
/// The largest share over the smallest.
const SHARE_RATIO_MAX: f64 = 2.0;
/// Measurements until one must be good: another process may take the cores for a while.
const ATTEMPTS: usize = 3;

async fn connect(server: &TestServer, address: &str) -> Connection {
    let options = ConnectOptions::new(server.url(), address).with_confirmed(false);
    Connection::connect(options).await.expect("connected")
}

/// Appends with `depth` calls in flight until `end`; returns the number of answers.
async fn append_until(mut connection: Connection, client: u32, depth: u32, end: Instant) -> u64 {
    let call = |request_id: u32| ClientMessage::CallReducer {
        request_id,
        reducer: "append".into(),
        args: rows::append(client, request_id, "x"),
    };
    connection.send(&(0..depth).map(call).collect::<Vec<_>>()).await.expect("sent");
    let (mut sent, mut answered) = (depth, 0u64);
    while Instant::now() < end {
        connection.recv().await.expect("an answer");
        answered += 1;
        connection.send(&[call(sent)]).await.expect("sent");
        sent += 1;
    }
    answered
}

fn make_forks(owned: &Owned, prefix: &str, count: usize) -> Vec<String> {
    let make = |number: usize| {
        let name = format!("{prefix}{number}");
        owned.client.create_fork(&owned.name, &name, true).expect("forked");
        format!("{}@{name}", owned.name)
    };
    (0..count).map(make).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forks_under_equal_load_get_equal_shares() {
    let server = TestServer::start();
    let owned = server.publish_probe("shares");
    let mut measured = Vec::new();
    for attempt in 0..ATTEMPTS {
        let forks = make_forks(&owned, &format!("f{attempt}-"), 4);
        let mut tasks = Vec::new();
        let end = Instant::now() + LENGTH;
        for (number, fork) in forks.iter().enumerate() {
            for client in 0..CONNECTIONS {
                let connection = connect(&server, fork).await;
                tasks.push((number, tokio::spawn(append_until(connection, client, DEPTH, end))));
            }
        }
        let mut shares = [0u64; 4];
        for (number, task) in tasks {
            shares[number] += task.await.expect("no panic");
        }
        let (most, least) = (shares.iter().max().expect("four"), shares.iter().min().expect("four"));
        if (*most as f64) < SHARE_RATIO_MAX * *least as f64 {
            return;
        }
        measured.push(shares);
    }
    panic!("answers of four forks under the same load: {measured:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_fork_leaves_room_for_a_quiet_one() {
    /// Slowest answer of the quiet fork's better nine tenths.
    const P90_MAX: Duration = Duration::from_millis(10);
    let server = TestServer::start();
    let owned = server.publish_probe("hot");
    let forks = make_forks(&owned, "f", 2);
    let mut measured = Vec::new();
    for _ in 0..ATTEMPTS {
        let end = Instant::now() + LENGTH;
        let mut hot = Vec::new();
        for client in 0..4 {
            hot.push(tokio::spawn(append_until(connect(&server, &forks[0]).await, client, 1_000, end)));
        }
        let mut quiet = connect(&server, &forks[1]).await;
        let mut times = Vec::new();
        while Instant::now() < end {
            let started = Instant::now();
            quiet.call_reducer("noop", Bytes::new()).await.expect("served");
            times.push(started.elapsed());
        }
        for task in hot {
            task.await.expect("no panic");
        }
        times.sort_unstable();
        let p90 = times[times.len() * 9 / 10];
        if p90 < P90_MAX {
            return;
        }
        measured.push(p90);
    }
    panic!("the quiet fork waited, 90th percentiles: {measured:?}");
}
