//! Clients that ask for too much: they are closed, and those beside them do not notice.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use tine_client::{
    ClientError, ConnectOptions, Connection,
    protocol::{ClientMessage, ServerMessage, encode_client_message},
};
use tine_tests::{raw_socket::RawSocket, rows, server::TestServer, wait::SOON};

/// Memory a server may grow by because of one client that does not read, in bytes.
const GROWTH_MAX: u64 = 400 * 1024 * 1024;

fn encoded(messages: &[ClientMessage]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| encode_client_message(message, &mut bytes));
    bytes
}

fn noop(request_id: u32) -> ClientMessage {
    ClientMessage::CallReducer { request_id, reducer: "noop".into(), args: Bytes::new() }
}

/// A text that is too long for its index is refused, and nothing changes. The module's log says why, with the limit, and so
/// does a statement.
#[test]
fn keys_that_are_too_long_are_refused() {
    let server = TestServer::start();
    let database = server.publish_probe("keys");
    let (client, name) = (&database.client, &database.name);
    let add = |bytes: usize| client.call(name, "add", &json!(["x".repeat(bytes), 1]));
    add(1_800).expect("within the limit");
    add(3_000).expect_err("over the limit");
    let logged = client.logs(name, None).expect("the log");
    assert!(logged.iter().any(|record| record.message.contains("the limit is 1884")), "{logged:?}");
    let insert = format!("INSERT INTO person (id, name, age) VALUES (9, '{}', 1)", "x".repeat(3_000));
    let error = client.sql(name, &insert).expect_err("over the limit");
    assert_eq!(error.shown_code(), "TN0417", "{error:?}");
    assert!(error.to_string().contains("the limit is 1884"), "{error}");
    let rows = client.sql(name, "SELECT id FROM person").expect("read");
    assert_eq!(rows[0].rows.len(), 1);
}

/// More requests than may wait, behind a call that takes until its deadline: the sender is told 1013,
/// and only the sender.
#[tokio::test]
async fn twenty_thousand_queued_requests_close_their_sender() {
    let server = TestServer::start();
    let database = server.publish_probe("flood");
    let neighbour_database = server.publish_probe("flood-neighbour");
    let mut neighbour =
        Connection::connect(ConnectOptions::new(server.url(), &neighbour_database.name)).await.expect("connected");
    let mut socket = RawSocket::connect(server.address(), &database.name, "");
    let spin = ClientMessage::CallReducer { request_id: 0, reducer: "spin".into(), args: Bytes::new() };
    socket.send(&encoded(&[spin])).expect("sent");
    for batch in 0..20 {
        let calls: Vec<ClientMessage> = (0..1_000).map(|at| noop(1 + batch * 1_000 + at)).collect();
        // The server may close before everything is written.
        if socket.send(&encoded(&calls)).is_err() {
            break;
        }
    }
    let started = Instant::now();
    neighbour.call_reducer("noop", Bytes::new()).await.expect("the neighbour is served");
    assert!(started.elapsed() < Duration::from_secs(1), "the neighbour waited {:?}", started.elapsed());
    let (messages, end) = socket.read_to_end();
    assert_eq!(end.code(), Some(1013), "{end:?} after {} messages", messages.len());

    let mut again = Connection::connect(ConnectOptions::new(server.url(), &database.name)).await.expect("connected");
    again.call_reducer("noop", Bytes::new()).await.expect("the database is served again");
}

/// As many requests as may wait are all answered, in order.
#[tokio::test]
async fn ten_thousand_queued_requests_are_all_answered() {
    let server = TestServer::shared();
    let database = server.publish_probe("long-queue");
    let mut connection =
        Connection::connect(ConnectOptions::new(server.url(), &database.name)).await.expect("connected");
    let calls: Vec<ClientMessage> = (0..10_000).map(noop).collect();
    connection.send(&calls).await.expect("sent");
    for expected in 0..10_000 {
        match connection.recv().await.expect("a reply") {
            ServerMessage::ReducerResult { request_id, .. } => assert_eq!(request_id, expected),
            other => panic!("{other:?}"),
        }
    }
}

/// A lane whose waiting requests keep 256 MiB refuses more over HTTP, says when to come back, and serves again when it is through.
#[test]
fn a_full_lane_refuses_http_calls_with_429() {
    /// Nearly the longest body; so many of them do not fit.
    const ARGUMENT_BYTES: usize = 2_000_000;
    const CALLS: usize = 150;
    /// Each takes until its deadline of two seconds: time to fill the lane behind them.
    const SPINS: u32 = 8;
    let server = TestServer::start();
    let database = server.publish_probe("full-lane");
    let mut socket = RawSocket::connect(server.address(), &database.name, "confirmed=false");
    let spin = |request_id| ClientMessage::CallReducer { request_id, reducer: "spin".into(), args: Bytes::new() };
    socket.send(&encoded(&(0..SPINS).map(spin).collect::<Vec<_>>())).expect("sent");
    let body = format!("[\"{}\"]", "x".repeat(ARGUMENT_BYTES));
    let mut calls: Vec<TcpStream> = (0..CALLS).map(|_| start_call(server.address(), &database.name, &body)).collect();
    let mut refused = 0;
    for call in &mut calls {
        let head = head_of_reply(call).to_ascii_lowercase();
        if head.starts_with("http/1.1 429 ") {
            assert!(head.contains("\r\nretry-after: ") && head.contains("\r\ntine-error: tn0607\r\n"), "{head}");
            refused += 1;
        } else {
            assert!(head.starts_with("http/1.1 400 "), "the reducer takes no argument: {head}");
        }
    }
    assert!((1..CALLS).contains(&refused), "{refused} of {CALLS} were refused");
    database.client.call(&database.name, "noop", &serde_json::json!([])).expect("the lane is through");
}

fn start_call(address: &str, database: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("connected");
    let head = format!(
        "POST /v1/database/{database}/call/noop HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("sent");
    stream
}

/// The head of a reply that may come when everything before it has run.
fn head_of_reply(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(4 * SOON)).expect("a timeout can be set");
    let mut head = [0; 4096];
    let length = stream.read(&mut head).expect("a reply");
    String::from_utf8_lossy(&head[..length]).into_owned()
}

/// A subscriber that never reads is cut off at a bound; writers and other subscribers go on.
#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    const ROUNDS: u32 = 400;
    const ROWS: u32 = 100;
    const ROW_BYTES: u32 = 10_000;
    let server = TestServer::start();
    let database = server.publish_probe("never-reads");
    let mut lazy = RawSocket::connect(server.address(), &database.name, "confirmed=false");
    let queries = vec!["SELECT * FROM entry".into()];
    let subscribe = ClientMessage::Subscribe { request_id: 1, query_set_id: 1, queries };
    lazy.send(&encoded(&[subscribe])).expect("sent");

    let options = || ConnectOptions::new(server.url(), &database.name).with_confirmed(false);
    let mut writer = Connection::connect(options()).await.expect("connected");
    let mut reader = Connection::connect(options()).await.expect("connected");
    reader.subscribe(1, &["SELECT * FROM entry WHERE sequence = 0"]).await.expect("subscribed");
    let before = server.resident_bytes();
    for round in 0..ROUNDS {
        let started = Instant::now();
        writer.call_reducer("fill", rows::fill(ROWS, ROW_BYTES)).await.expect("the writer is served");
        assert!(started.elapsed() < Duration::from_secs(5), "round {round} took {:?}", started.elapsed());
        let update = reader.recv().await.expect("the other subscriber is served");
        assert!(rows::update_of(&update).is_some(), "{update:?}");
    }
    let stored = u64::from(ROUNDS) * u64::from(ROWS) * u64::from(ROW_BYTES);
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 2 * stored + GROWTH_MAX, "the server grew by {} MiB", grown >> 20);
    assert!(lazy.is_ended_within(SOON), "the client that never reads is still connected");
    writer.call_reducer("noop", Bytes::new()).await.expect("the writer is served");
}

/// A connection that never completes its handshake, or says nothing after it, blocks nobody.
#[test]
fn silent_connections_block_nobody() {
    let server = TestServer::shared();
    let database = server.publish_probe("silent");
    let half_open: Vec<std::net::TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address()).expect("connected");
            stream.write_all(b"GET /v1/database/silent/subscribe HTTP/1.1\r\nhost: x\r\n").expect("sent");
            stream
        })
        .collect();
    let quiet: Vec<RawSocket> = (0..50).map(|_| RawSocket::connect(server.address(), &database.name, "")).collect();
    let started = Instant::now();
    database.client.call(&database.name, "noop", &serde_json::json!([])).expect("the server answers");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    drop((half_open, quiet));
}

/// Bodies over the limit are refused without being read to the end.
#[test]
fn oversized_http_bodies_are_refused() {
    let server = TestServer::shared();
    let database = server.publish_probe("big-body");
    let statement = format!("SELECT * FROM person WHERE name = '{}'", "x".repeat(3 << 20));
    let refused = database.client.sql(&database.name, &statement).expect_err("too large");
    // The server may answer and close while the body is still being sent, which shows as a broken pipe.
    let cut = matches!(refused, ClientError::Transport(_) | ClientError::Closed { .. });
    assert!(cut || matches!(refused.status(), Some(413 | 400)), "{refused:?}");
    let long = format!("SELECT * FROM person WHERE name = '{}'", "x".repeat(60_000));
    let refused = database.client.sql(&database.name, &long).expect_err("a statement has at most 50,000 bytes");
    assert_eq!(refused.status(), Some(400), "{refused:?}");
    let deep = format!("SELECT * FROM person WHERE {}age = 1{}", "(".repeat(20_000), ")".repeat(20_000));
    let refused = database.client.sql(&database.name, &deep).expect_err("nested too deeply");
    assert_eq!(refused.status(), Some(400), "{refused:?}");
}
