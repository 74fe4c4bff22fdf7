//! Clients that misbehave on a socket, beside one that does not; and plain clients.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::raw::{self, read_frame};
use common::*;
use tine_ipc::{Client, ConnectOptions, ListenOptions};

fn options() -> ListenOptions {
    ListenOptions {
        requests_max: 16,
        message_bytes_max: 1 << 20,
        reply_bytes_max: 4 << 20,
        stall_limit: Duration::from_millis(600),
        ..ListenOptions::new(SCHEMA)
    }
}

fn check_good_client(server: &Server) {
    let client = server.client();
    for number in 0..100u8 {
        assert_eq!(client.call(&[ECHO, number], SOON), Ok(vec![ECHO, number]));
    }
}

#[test]
fn half_frames_are_waited_for_and_then_not() {
    let server = Server::start("a.sock", options());
    let mut slow = raw::open(&server.path);
    for byte in raw::frame(raw::REQUEST, 9, &[ECHO, 1, 2]) {
        slow.write_all(&[byte]).expect("written");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(read_frame(&mut slow), Some((raw::REPLY, 9, vec![ECHO, 1, 2])));
    let request = raw::frame(raw::REQUEST, 1, &vec![ECHO; 100_000]);
    for cut in [1, 15, 20, 50_000] {
        let mut half = raw::open(&server.path);
        half.write_all(&request[..cut]).expect("written");
        check_good_client(&server);
        let (kind, _, payload) = read_frame(&mut half).expect("last words");
        assert_eq!((kind, raw::code(&payload).as_str()), (raw::CLOSING, "TN0945"));
        assert!(read_frame(&mut half).is_none());
    }
}

#[test]
fn who_never_reads_is_closed_and_who_pauses_is_not() {
    let server = Server::start("a.sock", options());
    let mut deaf = raw::open(&server.path);
    deaf.set_write_timeout(Some(Duration::from_millis(100))).expect("option");
    let request = raw::frame(raw::REQUEST, 1, &number_request(BYTES, 1 << 20));
    while deaf.write_all(&request).is_ok() {}
    check_good_client(&server);
    eventually("the deaf client's end", || {
        let events = server.service.events.lock();
        events.iter().any(|event| event == "closed TN0945" || event == "closed TN0944")
    });
    check_good_client(&server);
    // One that takes its replies late, but takes them.
    let mut late = raw::open(&server.path);
    for id in 0..12 {
        late.write_all(&raw::frame(raw::REQUEST, id, &number_request(BYTES, 300_000))).expect("written");
    }
    std::thread::sleep(Duration::from_millis(200));
    for id in 0..12 {
        let (kind, got, payload) = read_frame(&mut late).expect("a reply");
        assert_eq!((kind, got, payload.len()), (raw::REPLY, id, 300_000));
    }
}

#[test]
fn a_flood_is_refused_in_order() {
    let server = Server::start("a.sock", options());
    let mut flood = raw::open(&server.path);
    let mut bytes = Vec::new();
    for id in 0..100u64 {
        bytes.extend_from_slice(&raw::frame(raw::REQUEST, id, &[LATER, 150]));
    }
    flood.write_all(&bytes).expect("written");
    check_good_client(&server);
    let mut refused = 0;
    for id in 0..100 {
        let (kind, got, payload) = read_frame(&mut flood).expect("an answer");
        assert_eq!(got, id);
        if kind == raw::ERROR {
            assert_eq!(raw::code(&payload), "TN0925");
            refused += 1;
        }
    }
    assert_eq!(refused, 100 - 16);
    flood.write_all(&raw::frame(raw::REQUEST, 5, &[ECHO])).expect("written");
    assert_eq!(read_frame(&mut flood), Some((raw::REPLY, 5, vec![ECHO])));
}

#[test]
fn too_large_is_skipped_and_nonsense_ends_the_connection() {
    let server = Server::start("a.sock", options());
    let mut large = raw::open(&server.path);
    large.write_all(&raw::frame(raw::REQUEST, 1, &vec![0; (1 << 20) + 1])).expect("written");
    large.write_all(&raw::frame(raw::REQUEST, 2, &[ECHO])).expect("written");
    let (kind, id, payload) = read_frame(&mut large).expect("an answer");
    assert_eq!((kind, id, raw::code(&payload).as_str()), (raw::ERROR, 1, "TN0922"));
    assert_eq!(read_frame(&mut large), Some((raw::REPLY, 2, vec![ECHO])));
    for (bytes, code) in [
        (vec![0xff; 64], "TN0941"),
        (raw::frame(raw::REPLY, 1, &[]), "TN0942"),
        (raw::frame(3, 1, &[1]), "TN0942"),
        (raw::frame(4, 1, &[1]), "TN0942"),
        (raw::hello(0, SCHEMA.0), "TN0942"),
    ] {
        let mut nonsense = raw::open(&server.path);
        nonsense.write_all(&bytes).expect("written");
        let (kind, _, payload) = read_frame(&mut nonsense).expect("last words");
        assert_eq!((kind, raw::code(&payload).as_str()), (raw::CLOSING, code));
    }
    check_good_client(&server);
}

#[test]
fn leaving_in_the_middle_is_no_signal() {
    let server = Server::start("a.sock", options());
    for _ in 0..50 {
        let mut rude = raw::open(&server.path);
        for id in 0..8 {
            rude.write_all(&raw::frame(raw::REQUEST, id, &[LATER, 1])).expect("written");
        }
        drop(rude);
    }
    check_good_client(&server);
    eventually("all are gone", || server.reactor.handle().counters().connections == 0);
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

fn read_plain(socket: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    socket.read_exact(&mut length).expect("a length");
    let mut payload = vec![0; u32::from_le_bytes(length) as usize];
    socket.read_exact(&mut payload).expect("a payload");
    payload
}

#[test]
fn plain_clients_get_bare_frames_in_order() {
    let server = Server::start("a.sock", ListenOptions { plain: true, ..options() });
    let mut socket = raw::connect(&server.path);
    // More than may be in flight: they wait instead of being refused.
    let mut bytes = Vec::new();
    for number in 0..60u8 {
        bytes.extend_from_slice(&plain(&[LATER, (60 - number) % 7, number]));
    }
    bytes.extend_from_slice(&plain(&[FAIL]));
    bytes.extend_from_slice(&plain(&number_request(COUNT, 2)));
    socket.write_all(&bytes).expect("written");
    // A half-closed socket still gets its answers.
    socket.shutdown(std::net::Shutdown::Write).expect("shut");
    for number in 0..60u8 {
        assert_eq!(read_plain(&mut socket), [LATER, (60 - number) % 7, number]);
    }
    assert_eq!(read_plain(&mut socket), b"error APP1 as you wish");
    assert!(read_plain(&mut socket).starts_with(b"error TN0927"));
    assert_eq!(socket.read(&mut [0; 1]).expect("the end"), 0);
    let client = Client::connect(&server.path, &ConnectOptions::plain()).expect("connected");
    for size in [1, 70_000, 900_000] {
        let request = vec![ECHO; size];
        assert!(client.call(&request, SOON).expect("a reply") == request);
    }
    assert_eq!(client.stream(&[COUNT], 1, SOON).expect_err("no streams").code(), "TN0927");
}

#[test]
fn shutdown_flushes_replies() {
    for name in NAMES {
        let server = Server::start(name, options());
        let completion = ConnectOptions { completion_order: true, ..ConnectOptions::new(SCHEMA) };
        let client = Client::connect(&server.path, &completion).expect("connected");
        let (done, results) = std::sync::mpsc::channel();
        for _ in 0..3 {
            let done = done.clone();
            client.submit(&[LATER, 100], move |result| done.send(result).expect("heard")).expect("submitted");
        }
        client
            .submit(&number_request(BYTES, 1 << 20), move |result| done.send(result).expect("heard"))
            .expect("submitted");
        eventually("the requests' arrival", || client.call(&[ECHO], SOON).is_ok());
        server.reactor.handle().shutdown(SOON);
        for _ in 0..4 {
            results.recv_timeout(SOON).expect("an outcome").expect("a reply");
        }
        eventually("the end", || client.call(&[ECHO], SOON).is_err());
        let error = client.call(&[ECHO], SOON).expect_err("closed");
        assert!(error.to_string().contains("TN0947"), "{error}");
        assert!(!server.path.exists());
        let Server { reactor, .. } = server;
        reactor.join().expect("stopped");
    }
}
