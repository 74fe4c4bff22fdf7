//! The WebSocket of a real server: what connects, in which order replies come, and how each kind of
//! misbehaviour ends.

mod common;

use std::time::{Duration, Instant};

use common::{Client, End, TestServer, add, call, subscribe};
use futures_util::SinkExt;
use tine_types::protocol::{ReducerOutcome, ServerMessage};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

fn reducer_results(messages: &[ServerMessage]) -> Vec<(u32, bool)> {
    let result = |message: &ServerMessage| match message {
        ServerMessage::ReducerResult { request_id, outcome, .. } => {
            Some((*request_id, matches!(outcome, ReducerOutcome::Ok { .. } | ReducerOutcome::OkEmpty)))
        }
        _ => None,
    };
    messages.iter().filter_map(result).collect()
}

async fn ping_pong(client: &mut Client, request_id: u32) {
    client.send(&[call(request_id, "noop", Vec::new())]).await;
    assert!(matches!(client.recv().await, ServerMessage::ReducerResult { request_id: id, .. } if id == request_id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_come_in_order_and_the_callers_rows_in_its_reply() {
    let server = TestServer::with_people().await;
    for query in ["", "confirmed=false", "confirmed=true&compression=Gzip"] {
        let mut writer = server.connect(query).await;
        let mut reader = server.connect(query).await;
        // Before the greeting, as the SDK does it.
        writer.send(&[subscribe(1, 1, "SELECT * FROM person")]).await;
        reader.send(&[subscribe(1, 5, "SELECT * FROM person")]).await;
        for client in [&mut writer, &mut reader] {
            client.greet().await;
            assert!(matches!(client.recv().await, ServerMessage::SubscribeApplied { request_id: 1, .. }));
        }
        let base = 1000 * query.len() as u32;
        let calls: Vec<_> = (0..100).map(|n| add(10 + n, base + n, if n % 10 == 3 { "" } else { "Ada" })).collect();
        writer.send(&calls).await;
        for n in 0..100 {
            match writer.recv().await {
                ServerMessage::ReducerResult { request_id, outcome, .. } => {
                    assert_eq!(request_id, 10 + n);
                    match outcome {
                        ReducerOutcome::Ok { update, .. } => assert_eq!(update.query_sets[0].query_set_id, 1),
                        ReducerOutcome::Err(_) => assert_eq!(n % 10, 3),
                        other => panic!("{other:?}"),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        for _ in 0..90 {
            match reader.recv().await {
                ServerMessage::TransactionUpdate(update) => assert_eq!(update.query_sets[0].query_set_id, 5),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v2_has_one_message_in_a_frame_and_v3_many() {
    let server = TestServer::with_people().await;
    for (protocol, is_v3) in [("v3.bsatn.spacetimedb", true), ("v2.bsatn.spacetimedb", false)] {
        let mut client = server.connect_to("people", "", protocol).await;
        client.greet().await;
        if is_v3 {
            let calls: Vec<_> = (0..50).map(|id| call(id, "noop", Vec::new())).collect();
            client.send(&calls).await;
            let payload = client.payload().await.expect("replies");
            assert!(payload.len() > 100, "{} bytes", payload.len());
        } else {
            for id in 0..50 {
                client.send(&[call(id, "noop", Vec::new())]).await;
            }
            for id in 0..50 {
                let payload = client.payload().await.expect("a reply");
                let mut position = 0;
                let body = payload.slice(1..);
                let message = tine_types::protocol::decode_server_message(&body, &mut position).expect("a message");
                assert!(matches!(message, ServerMessage::ReducerResult { request_id, .. } if request_id == id));
                assert_eq!(position, body.len());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_result_comes_whole() {
    let server = TestServer::with_people().await;
    let mut client = server.connect("confirmed=false").await;
    client.greet().await;
    let arguments = [0u32, 300, 10_000].iter().flat_map(|number| number.to_le_bytes()).collect();
    client
        .send(&[call(1, "wide", arguments), subscribe(2, 1, "SELECT * FROM person"), call(3, "noop", Vec::new())])
        .await;
    assert!(matches!(client.recv().await, ServerMessage::ReducerResult { request_id: 1, .. }));
    match client.recv().await {
        ServerMessage::SubscribeApplied { rows, .. } => assert_eq!(rows.tables[0].rows.len(), 300),
        other => panic!("{other:?}"),
    }
    assert!(matches!(client.recv().await, ServerMessage::ReducerResult { request_id: 3, .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn violations_close_after_earlier_replies() {
    let server = TestServer::with_people().await;
    let mut bytes = Vec::new();
    tine_types::protocol::encode_client_message(&call(4, "noop", Vec::new()), &mut bytes);
    let then = |tail: &[u8]| Message::Binary([&bytes, tail].concat().into());
    let cases = [
        (Message::text("hello"), 1011, vec![]),
        (Message::Binary(Vec::new().into()), 1011, vec![]),
        (then(&[9]), 1011, vec![(4, true)]),
        (then(&[3, 1, 0]), 1011, vec![(4, true)]),
        (then(&[3, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), 1011, vec![(4, true)]),
        (Message::Binary(vec![200; 3].into()), 1011, vec![]),
    ];
    for (message, code, results) in cases {
        // The greeting comes even when the first frame is wrong.
        let mut client = server.connect("").await;
        client.send_raw(message.clone()).await;
        let (messages, end) = client.drain().await;
        assert!(matches!(messages[0], ServerMessage::InitialConnection { .. }), "{message:?}");
        assert_eq!(reducer_results(&messages), results, "{message:?}");
        assert!(matches!(end, End::Closed(found, _) if found == code), "{message:?}: {end:?}");
    }
    assert_eq!(server.metric("tine_websocket_malformed_total").await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unmasked_and_oversized_frames_are_refused() {
    let server = TestServer::start_with(|options| options.limits.client_message_bytes_max = 10_000).await;
    server.publish_people().await;
    let cases: [(&[u8], u16); 3] = [
        (&[0x82, 0x01, 0x00], 1002),
        (&[0x82, 0xfe, 0x27, 0x11, 1, 2, 3, 4], 1009),
        (&[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4], 1009),
    ];
    for (bytes, code) in cases {
        let mut client = server.connect("").await;
        client.greet().await;
        client.socket.get_mut().write_all(bytes).await.expect("sent");
        let (_, end) = client.drain().await;
        assert!(matches!(end, End::Closed(found, _) if found == code), "{bytes:?}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_requests_in_one_frame_close_with_1013() {
    let server = TestServer::with_people().await;
    let mut client = server.connect("").await;
    client.greet().await;
    let calls: Vec<_> = (0..20_000).map(|id| call(id, "noop", Vec::new())).collect();
    client.send(&calls).await;
    let (_, end) = client.drain().await;
    assert_eq!(end, End::Closed(1013, "too many requests".to_owned()));
    let mut other = server.connect("").await;
    other.greet().await;
    ping_pong(&mut other, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_sent_and_silence_is_ended() {
    let server = TestServer::start_with(|options| {
        options.limits.ping_interval = Duration::from_millis(100);
        options.limits.idle_timeout = Duration::from_millis(400);
    })
    .await;
    server.publish_people().await;
    // This one reads, so tungstenite answers its pings: it stays.
    let mut alive = server.connect("").await;
    alive.greet().await;
    // This one is silent.
    let mut silent = server.connect("").await;
    silent.greet().await;
    let started = Instant::now();
    let waiting = async {
        let (mut pings, silence) = (0, Duration::from_millis(1200));
        while started.elapsed() < silence {
            let next = futures_util::StreamExt::next(&mut alive.socket);
            if let Ok(message) = tokio::time::timeout(silence.saturating_sub(started.elapsed()), next).await {
                assert!(matches!(message, Some(Ok(Message::Ping(_)))), "{message:?}");
                pings += 1;
            }
        }
        pings
    };
    assert!(waiting.await >= 4);
    assert_eq!(silent.drain().await.1, End::Dropped);
    assert_eq!(server.metric("tine_websocket_idle_total").await, 1);
    ping_pong(&mut alive, 1).await;
}

/// A subscriber that never reads, and a writer that makes 4 MB of rows at a time until the metric moves.
async fn write_past_a_client_that_never_reads(server: &TestServer, metric: &str) {
    server.publish_people().await;
    let mut lazy = server.connect("confirmed=false").await;
    lazy.send(&[subscribe(1, 1, "SELECT * FROM person")]).await;
    lazy.greet().await;
    let mut writer = server.connect("confirmed=false").await;
    writer.greet().await;
    let deadline = Instant::now() + Duration::from_secs(15);
    for round in 0u32.. {
        // The kernel's buffers take some megabytes before the server notices anything.
        if round < 10 {
            let arguments = [4000 * round, 4000, 1000].iter().flat_map(|number| number.to_le_bytes()).collect();
            writer.send(&[call(round, "wide", arguments)]).await;
            assert!(matches!(writer.recv().await, ServerMessage::ReducerResult { .. }));
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if server.metric(metric).await > 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{metric} did not move");
    }
    ping_pong(&mut writer, 1).await;
    drop(lazy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_too_much_queued_is_dropped() {
    let server = TestServer::start_with(|options| options.limits.outgoing_bytes_max = 1 << 20).await;
    write_past_a_client_that_never_reads(&server, "tine_websocket_too_slow_total").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_is_dropped() {
    let server = TestServer::start_with(|options| options.limits.write_timeout = Duration::from_millis(300)).await;
    write_past_a_client_that_never_reads(&server, "tine_websocket_stalled_total").await;
}

/// A lane that was quick and then loops holds the thread it runs on; others are served all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_suddenly_loops_harms_only_itself() {
    let server = TestServer::start_with(|options| options.host.reducer_deadline = Duration::from_millis(600)).await;
    server.publish_people().await;
    let fork = ("content-type", "application/json");
    let made = server.http("POST", "/v1/database/people/forks", &[fork, server.admin()], br#"{"name":"other"}"#).await;
    assert_eq!(made.status, 201, "{made:?}");
    let mut neighbour = server.connect_to("people@other", "confirmed=false", "v3.bsatn.spacetimedb").await;
    neighbour.greet().await;
    let mut slowest = Duration::ZERO;
    for _ in 0..4 {
        let mut client = server.connect("confirmed=false").await;
        client.greet().await;
        // Quick enough for the lane to run on the thread that hands it work.
        for request_id in 0..300 {
            ping_pong(&mut client, request_id).await;
        }
        ping_pong(&mut neighbour, 1).await;
        client.send(&[call(1000, "spin", Vec::new())]).await;
        // Not tokio's sleep: it would wait for the same runtime.
        std::thread::sleep(Duration::from_millis(20));
        let started = Instant::now();
        ping_pong(&mut neighbour, 2).await;
        slowest = slowest.max(started.elapsed());
        assert!(matches!(client.recv().await, ServerMessage::ReducerResult { request_id: 1000, .. }));
    }
    assert!(slowest < Duration::from_millis(300), "the neighbour waited {slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_closing_handshake_is_answered() {
    let server = TestServer::with_people().await;
    let mut client = server.connect("").await;
    client.greet().await;
    client.socket.close(None).await.expect("sent");
    assert_eq!(client.drain().await.1, End::Closed(1005, String::new()));
    // Without a closing handshake the task ends too.
    let mut rude = server.connect("").await;
    rude.greet().await;
    drop(rude);
    let deadline = Instant::now() + Duration::from_secs(5);
    while server.metric("tine_websocket_clients").await != 0 {
        assert!(Instant::now() < deadline, "a task is left over");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_closes_with_1001_after_what_was_delivered() {
    let server = TestServer::with_people().await;
    let mut client = server.connect("").await;
    client.greet().await;
    client.send(&[add(1, 1, "Ada")]).await;
    assert_eq!(reducer_results(&[client.recv().await]), [(1, true)]);
    let reading = tokio::spawn(async move {
        let drained = client.drain().await;
        let _ = client.socket.flush().await;
        drained
    });
    let started = Instant::now();
    let TestServer { server, folder, .. } = server;
    server.shutdown(Duration::from_secs(10)).await.expect("an orderly end");
    assert!(started.elapsed() < Duration::from_secs(5));
    let (_, end) = reading.await.expect("read");
    assert!(matches!(end, End::Closed(1001, _)), "{end:?}");
    // The directory is free again and the row is there.
    let options =
        tine_server::ServerOptions::new("127.0.0.1:0".parse().expect("an address"), folder.path().to_path_buf());
    let again = tine_server::Server::start(options, std::sync::Arc::new(tine_base::SystemEnv), |_| {}).await;
    let server = again.expect("the directory was released");
    let again = TestServer { address: server.address(), server, folder, admin_token: String::new() };
    let reply = again.http("POST", "/v1/database/people/sql", &[], b"SELECT name FROM person").await;
    assert_eq!(reply.json()[0]["rows"], serde_json::json!([["Ada"]]));
}
