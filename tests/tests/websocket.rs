//! What comes over a WebSocket that should not: every case is closed with the code it deserves, and
//! the connection beside it does not notice.

use std::io::Read as _;

use bytes::Bytes;
use tine_client::protocol::{ClientMessage, ReducerOutcome, ServerMessage, encode_client_message};
use tine_tests::{
    raw_socket::{End, RawSocket, decode_messages, frame, head, opcode},
    rows,
    server::{Owned, TestServer},
};

/// Largest message a server takes, in bytes (client-protocol limits).
const MESSAGE_BYTES_MAX: u64 = 32 * 1024 * 1024;

fn encoded(messages: &[ClientMessage]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| encode_client_message(message, &mut bytes));
    bytes
}

fn call(request_id: u32, reducer: &str, args: Bytes) -> ClientMessage {
    ClientMessage::CallReducer { request_id, reducer: reducer.into(), args }
}

fn connect(server: &TestServer, database: &Owned) -> RawSocket {
    let mut socket = RawSocket::connect(server.address(), &database.name, "");
    let first = socket.read_messages().expect("the greeting");
    assert!(matches!(first[..], [ServerMessage::InitialConnection { .. }]), "{first:?}");
    socket
}

/// The request ids of reducer results, with whether each succeeded.
fn results(messages: &[ServerMessage]) -> Vec<(u32, bool)> {
    let result = |message: &ServerMessage| match message {
        ServerMessage::ReducerResult { request_id, outcome, .. } => {
            Some((*request_id, matches!(outcome, ReducerOutcome::Ok { .. } | ReducerOutcome::OkEmpty)))
        }
        _ => None,
    };
    messages.iter().filter_map(result).collect()
}

fn read_results(socket: &mut RawSocket, count: usize) -> Vec<(u32, bool)> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(results(&socket.read_messages().expect("the connection is open")));
    }
    all
}

#[test]
fn bad_frames_are_closed_and_harm_nobody_else() {
    let server = TestServer::shared();
    let database = server.publish_probe("bad-frames");
    let mut neighbour = connect(server, &database);

    let noop = encoded(&[call(1, "noop", Bytes::new())]);
    let truncated = &noop[..noop.len() - 3];
    let mut flagged = noop.clone();
    // A call's flags follow the tag and the request id; only 0 is allowed.
    flagged[5] = 1;
    let huge_length = [&[3, 1, 0, 0, 0, 0][..], &[0xff; 4], b"noop"].concat();
    let bad_text = [&[3, 1, 0, 0, 0, 0, 4, 0, 0, 0][..], &[0xff, 0xfe, 0xfd, 0xfc], &[0; 4]].concat();
    let many_queries = [&[0, 1, 0, 0, 0, 1, 0, 0, 0][..], &[0xff, 0xff, 0xff, 0x7f]].concat();

    // Name, what is sent, and the close codes that are right.
    let cases: [(&str, Vec<u8>, &[u16]); 15] = [
        ("unknown tag", frame(true, opcode::BINARY, &[200, 1, 2, 3]), &[1011]),
        ("empty payload", frame(true, opcode::BINARY, &[]), &[1011]),
        ("truncated message", frame(true, opcode::BINARY, truncated), &[1011]),
        ("call flags", frame(true, opcode::BINARY, &flagged), &[1011]),
        ("length beyond the frame", frame(true, opcode::BINARY, &huge_length), &[1011]),
        ("text that is not UTF-8", frame(true, opcode::BINARY, &bad_text), &[1011]),
        ("two thousand million queries", frame(true, opcode::BINARY, &many_queries), &[1011]),
        ("text frame", frame(true, opcode::TEXT, b"hello"), &[1011, 1003]),
        ("unmasked frame", [head(true, opcode::BINARY, 3, false), vec![1, 2, 3]].concat(), &[1002, 1011]),
        ("reserved opcode", frame(true, 0x5, b"x"), &[1002, 1011]),
        ("reserved bit", [&[0xc2, 0x81, 1, 2, 3, 4, 5][..]].concat(), &[1002, 1011]),
        ("continuation of nothing", frame(true, opcode::CONTINUATION, b"x"), &[1002, 1011]),
        ("fragmented ping", frame(false, opcode::PING, b"x"), &[1002, 1011]),
        ("ping that is too long", frame(true, opcode::PING, &[0; 126]), &[1002, 1011]),
        (
            "message over the limit",
            [head(true, opcode::BINARY, MESSAGE_BYTES_MAX + 1, true), vec![0; 64]].concat(),
            &[1009, 1011, 1002],
        ),
    ];
    for (name, bytes, codes) in cases {
        let mut socket = connect(server, &database);
        socket.send_bytes(&bytes).expect("the frame can be sent");
        let (_, end) = socket.read_to_end();
        match &end {
            End::Closed { code: Some(code), .. } => assert!(codes.contains(code), "{name}: {end:?}"),
            // A broken frame leaves nothing to talk to: dropping is an answer, but not for a broken message.
            End::Dropped => assert!(codes.contains(&1002), "{name}: dropped without a close frame"),
            End::Closed { code: None, .. } => panic!("{name}: closed without a code"),
        }
        neighbour.send(&encoded(&[call(7, "noop", Bytes::new())])).expect("the neighbour is unharmed");
        assert_eq!(read_results(&mut neighbour, 1), [(7, true)], "after {name}");
    }
}

#[test]
fn messages_before_a_bad_one_run_and_are_answered() {
    let server = TestServer::shared();
    let database = server.publish_probe("before-bad");
    let mut socket = connect(server, &database);
    let mut bytes = encoded(&[call(1, "add", rows::add("kept", 1)), call(2, "noop", Bytes::new())]);
    bytes.extend([250, 0, 0]);
    socket.send(&bytes).expect("the frame can be sent");
    let (messages, end) = socket.read_to_end();
    assert_eq!(results(&messages), [(1, true), (2, true)]);
    assert_eq!(end.code(), Some(1011), "{end:?}");
    let rows = database.client.sql(&database.name, "SELECT name FROM person").expect("the query runs");
    assert_eq!(rows[0].rows.len(), 1);
}

#[test]
fn a_message_in_many_fragments_with_pings_between_is_one_message() {
    let server = TestServer::shared();
    let database = server.publish_probe("fragments");
    let mut socket = connect(server, &database);
    let messages: Vec<ClientMessage> = (0..40).map(|id| call(id, "add", rows::add(&format!("p{id}"), id))).collect();
    let bytes = encoded(&messages);
    let parts: Vec<&[u8]> = bytes.chunks(7).collect();
    for (at, part) in parts.iter().enumerate() {
        let kind = if at == 0 { opcode::BINARY } else { opcode::CONTINUATION };
        socket.send_frame(at + 1 == parts.len(), kind, part).expect("the fragment can be sent");
        if at % 5 == 0 {
            socket.send_frame(true, opcode::PING, b"still there?").expect("the ping can be sent");
        }
    }
    let expected: Vec<(u32, bool)> = (0..40).map(|id| (id, true)).collect();
    assert_eq!(read_results(&mut socket, 40), expected);
}

#[test]
fn byte_by_byte_works_too() {
    let server = TestServer::shared();
    let database = server.publish_probe("slow-bytes");
    let mut socket = connect(server, &database);
    for byte in frame(true, opcode::BINARY, &encoded(&[call(9, "noop", Bytes::new())])) {
        socket.send_bytes(&[byte]).expect("the byte can be sent");
    }
    assert_eq!(read_results(&mut socket, 1), [(9, true)]);
}

#[test]
fn a_fragmented_message_cannot_grow_past_the_limit() {
    let server = TestServer::shared();
    let database = server.publish_probe("endless");
    let mut socket = connect(server, &database);
    let part = vec![0; 1 << 20];
    let mut sent = 0;
    // The server may close while we still write; then writing fails, which is right too.
    while sent <= MESSAGE_BYTES_MAX + (4 << 20) {
        let kind = if sent == 0 { opcode::BINARY } else { opcode::CONTINUATION };
        if socket.send_frame(false, kind, &part).is_err() {
            break;
        }
        sent += part.len() as u64;
    }
    let mut again = connect(server, &database);
    again.send(&encoded(&[call(1, "noop", Bytes::new())])).expect("the server is well");
    assert_eq!(read_results(&mut again, 1), [(1, true)]);
    assert!(socket.is_ended_within(tine_tests::wait::SOON), "the endless message is still being taken");
}

#[test]
fn handshakes_that_are_refused() {
    let server = TestServer::shared();
    let database = server.publish_probe("handshakes");
    let v3 = Some("v3.bsatn.spacetimedb");
    let name = database.name.as_str();
    let cases = [
        ("no such database", "no-such-database", "", v3, 404),
        ("no such fork", "handshakes@none", "", v3, 404),
        ("no protocol", name, "", None, 400),
        ("unknown protocol", name, "", Some("v9.bsatn.example"), 400),
        ("all-zero connection id", name, "connection_id=00000000000000000000000000000000", v3, 400),
        ("bad token", name, "token=not.a.token", v3, 401),
        ("bad flag", name, "confirmed=perhaps", v3, 400),
    ];
    for (case, database, query, protocols, status) in cases {
        let refused = RawSocket::handshake(server.address(), database, query, protocols);
        let refusal = refused.err().unwrap_or_else(|| panic!("{case}: accepted"));
        assert_eq!(refusal.status, status, "{case}: {}", refusal.body);
    }
    let both = RawSocket::handshake(server.address(), name, "", Some("v2.bsatn.spacetimedb, v3.bsatn.spacetimedb"));
    assert!(both.is_ok(), "one known protocol is enough");
}

#[test]
fn v2_takes_one_message_a_frame() {
    let server = TestServer::shared();
    let database = server.publish_probe("protocol-two");
    let opened = RawSocket::handshake(server.address(), &database.name, "", Some("v2.bsatn.spacetimedb"));
    let mut socket = opened.expect("v2 is spoken");
    assert_eq!(socket.read_messages().expect("the greeting").len(), 1);
    for id in 0..20 {
        socket.send(&encoded(&[call(id, "noop", Bytes::new())])).expect("the message can be sent");
    }
    for id in 0..20 {
        let messages = socket.read_messages().expect("the connection is open");
        assert_eq!(results(&messages), [(id, true)], "one message a frame");
    }
}

/// A payload without its compression.
fn decompressed(payload: &[u8]) -> Vec<u8> {
    let (tag, body) = payload.split_first().expect("a payload has a tag");
    let mut plain = Vec::new();
    match tag {
        0 => plain.extend_from_slice(body),
        1 => drop(brotli::Decompressor::new(body, 4096).read_to_end(&mut plain).expect("brotli")),
        2 => drop(flate2::read::GzDecoder::new(body).read_to_end(&mut plain).expect("gzip")),
        other => panic!("tag {other}"),
    }
    plain
}

#[test]
fn payloads_are_compressed_as_asked_for_where_that_keeps_their_order() {
    const ROWS: usize = 20;
    let server = TestServer::shared();
    let database = server.publish_probe("compression");
    const ROW_BYTES: usize = 3_000;
    let mut writer = connect(server, &database);
    writer.send(&encoded(&[call(1, "fill", rows::fill(ROWS as u32, ROW_BYTES as u32))])).expect("sent");
    assert_eq!(read_results(&mut writer, 1), [(1, true)]);

    let (v2, both) = ("v2.bsatn.spacetimedb", "v3.bsatn.spacetimedb, v2.bsatn.spacetimedb");
    let (browser, node) = (("origin", "http://localhost"), ("user-agent", "node"));
    // Case, what is asked for, subprotocols, a header, and the tag of what is long.
    let cases = [
        ("nothing asked", "", v2, None, 0),
        ("none asked", "compression=None", v2, Some(browser), 0),
        ("gzip", "compression=Gzip", v2, None, 2),
        ("brotli", "compression=Brotli", both, None, 1),
        ("the SDK in a browser", "compression=Gzip", both, Some(browser), 2),
        ("the SDK in Node", "compression=Gzip", both, Some(node), 0),
        ("the SDK in another runtime", "compression=Gzip", both, None, 0),
    ];
    for (case, query, protocols, header, tag) in cases {
        let headers: Vec<_> = header.into_iter().chain([("sec-websocket-protocol", protocols)]).collect();
        let opened = RawSocket::handshake_with(server.address(), &database.name, query, &headers);
        let mut socket = opened.unwrap_or_else(|refusal| panic!("{case}: {refusal:?}"));
        let greeting = socket.read_payload().expect("the greeting");
        assert_eq!(greeting[0], 0, "{case}: what is short stays plain");
        let queries = vec!["SELECT * FROM entry".into()];
        socket
            .send(&encoded(&[ClientMessage::Subscribe { request_id: 1, query_set_id: 1, queries }]))
            .expect("the message can be sent");
        let payload = socket.read_payload().expect("the rows");
        assert_eq!(payload[0], tag, "{case}");
        assert!(tag == 0 || payload.len() < ROWS * ROW_BYTES / 2, "{case}: {} bytes", payload.len());
        let messages = decode_messages(Bytes::from(decompressed(&payload)));
        let [ServerMessage::SubscribeApplied { rows, .. }] = &messages[..] else { panic!("{case}: {messages:?}") };
        assert_eq!(rows.tables[0].rows.len(), ROWS, "{case}");
        socket.send(&encoded(&[call(2, "noop", Bytes::new())])).expect("the message can be sent");
        assert_eq!(socket.read_payload().expect("the reply")[0], 0, "{case}: what is short stays plain");
    }
}
