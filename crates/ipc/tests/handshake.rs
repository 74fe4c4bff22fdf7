//! Who gets in, who does not, and how both sides learn it.

mod common;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::raw::{self, read_frame};
use common::*;
use tine_ipc::{
    Client, ConnectError, ConnectOptions, HandshakeError, ListenError, ListenOptions, PeerPolicy, Reactor,
    ReactorOptions, SchemaHash,
};

fn refused(server: &Server, options: &ConnectOptions) -> HandshakeError {
    match Client::connect(&server.path, options) {
        Err(ConnectError::Handshake { source, .. }) => source,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn another_schema_is_named_on_both_sides() {
    for name in NAMES {
        let server = Server::start(name, ListenOptions::new(SCHEMA));
        let other = SchemaHash([4; 32]);
        let error = refused(&server, &ConnectOptions::new(other));
        assert_eq!(error, HandshakeError::Schema { client: other, server: SCHEMA });
        server.expect_event("refused TN0912");
        Client::connect(&server.path, &ConnectOptions::new(SchemaHash::ANY)).expect("any schema will do");
    }
}

#[test]
fn users_outside_the_policy_are_refused() {
    for name in NAMES {
        let policy = PeerPolicy::Users(vec![4_000_000]);
        let server = Server::start(name, ListenOptions { policy, ..ListenOptions::new(SCHEMA) });
        assert_eq!(refused(&server, &ConnectOptions::new(SCHEMA)).code(), "TN0913");
        server.expect_event("refused TN0913");
    }
}

#[test]
fn clients_are_counted() {
    for name in NAMES {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join(name);
        let mut reactor =
            Reactor::new(ReactorOptions { clients_max: 2, ..ReactorOptions::default() }).expect("reactor");
        reactor.listen(&path, ListenOptions::new(SCHEMA), Arc::new(Service::default())).expect("listening");
        let reactor = reactor.spawn("reactor").expect("spawned");
        let connect = || Client::connect(&path, &ConnectOptions::new(SCHEMA));
        let (first, second) = (connect().expect("first"), connect().expect("second"));
        assert_eq!(connect().expect_err("full").code(), "TN0914");
        drop(first);
        eventually("a free slot", || connect().is_ok());
        assert_eq!(second.call(b"\0x", SOON), Ok(b"\0x".to_vec()));
        drop(reactor);
        assert!(!path.exists());
    }
}

#[test]
fn strangers_are_told_apart() {
    // Some of what follows is no whole header, and is waited for.
    let handshake_limit = Duration::from_millis(500);
    let socket = Server::start("a.sock", ListenOptions { handshake_limit, ..ListenOptions::new(SCHEMA) });
    let shared = Server::start("a.shm", ListenOptions::new(SCHEMA));
    let cases: &[(&Server, Vec<u8>, &str)] = &[
        (&socket, raw::hello(2, SCHEMA.0), "TN0910"),
        (&shared, raw::hello(0, SCHEMA.0), "TN0910"),
        (&socket, raw::frame(raw::HELLO, 0, b"TINE-IPC"), "TN0910"),
        (&socket, raw::frame(raw::HELLO, 0, &[0; 64]), "TN0910"),
        (&socket, raw::frame(raw::REQUEST, 1, b"too early"), "TN0910"),
        (&shared, raw::frame(raw::REQUEST, 1, b"too early"), "TN0910"),
    ];
    for (server, bytes, code) in cases {
        let mut stranger = raw::connect(&server.path);
        stranger.write_all(bytes).expect("written");
        let (kind, _, _) = read_frame(&mut stranger).expect("an answer");
        assert_eq!(kind, raw::REFUSED, "{bytes:?}");
        assert!(read_frame(&mut stranger).is_none(), "closed after {bytes:?}");
        server.expect_event(&format!("refused {code}"));
    }
    // What is no frame at all, like a plain client's first, ends without an answer.
    for bytes in [&b"\x0a\0\0\0\x91\x92\xa4Ping"[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 40]] {
        let mut stranger = raw::connect(&socket.path);
        stranger.write_all(bytes).expect("written");
        assert!(read_frame(&mut stranger).is_none(), "{bytes:?}");
    }
    socket.client().call(b"\0still here", SOON).expect("a reply");
}

#[test]
fn a_silent_client_is_dropped_and_a_silent_server_left() {
    let handshake_limit = Duration::from_millis(300);
    let server = Server::start("a.sock", ListenOptions { handshake_limit, ..ListenOptions::new(SCHEMA) });
    let mut silent = raw::connect(&server.path);
    assert!(read_frame(&mut silent).is_none());
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("mute.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let options = ConnectOptions { limit: Duration::from_millis(50), ..ConnectOptions::new(SCHEMA) };
    let started = Instant::now();
    assert_eq!(Client::connect(&path, &options).expect_err("no answer").code(), "TN0908");
    assert!(started.elapsed() < SOON / 2);
}

#[test]
fn paths() {
    let server = Server::start("a.sock", ListenOptions::new(SCHEMA));
    let mut reactor = Reactor::new(ReactorOptions::default()).expect("reactor");
    let mut listen = |name: &str, options: ListenOptions| {
        reactor.listen(&server.path.with_file_name(name), options, Arc::new(Service::default()))
    };
    let new = || ListenOptions::new(SCHEMA);
    assert!(matches!(listen("a.sock", new()), Err(ListenError::InUse(_))));
    assert!(matches!(listen("b.socket", new()), Err(ListenError::Path(_))));
    assert!(matches!(listen("b.shm", ListenOptions::plain()), Err(ListenError::Options(_))));
    assert!(matches!(listen("b.shm", ListenOptions { ring_bytes: 5_000, ..new() }), Err(ListenError::Options(_))));
    listen("b.shm", new()).expect("a second path");
    let connect = |name: &str| Client::connect(&server.path.with_file_name(name), &ConnectOptions::new(SCHEMA));
    assert_eq!(connect("c.sock").expect_err("absent").code(), "TN0907");
    assert_eq!(connect("c").expect_err("no transport").code(), "TN0901");
    drop(reactor);
    assert_eq!(connect("b.shm").expect_err("gone").code(), "TN0907");
}
