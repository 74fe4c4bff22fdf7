//! Clients that misbehave harm themselves alone: those of the reference that stopped or ended the server this one stands in
//! for, each beside a client that goes on working.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tine_worldstate::WorldOptions;

mod support;

use support::{Client, Ours, element, inner, request};

const LATEST: u64 = u32::MAX as u64;

/// A round trip beside the worst of clients, at most: far above what it takes on a busy machine, far below what any of
/// them lasts.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(5);

fn path_request() -> (&'static str, Value) {
    let revision = json!({ "forkId": 0, "blockNumber": LATEST, "includeUncommitted": false });
    ("GetSiblingPath", json!({ "treeId": 0, "revision": revision, "leafIndex": 3 }))
}

/// Asks a hundred times; each answer must come soon.
fn work(client: &mut Client) {
    let (name, fields) = path_request();
    for _ in 0..100 {
        let began = Instant::now();
        assert_eq!(client.ask(name, &fields).unwrap()["path"].as_array().unwrap().len(), 42);
        assert!(began.elapsed() < ROUND_TRIP_MAX, "a good client waited {:?}", began.elapsed());
    }
}

/// Serves, lets `misbehave` do its worst, and works beside it and after it.
fn beside(misbehave: impl FnOnce(&Path) -> Vec<UnixStream>) {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let mut good = Client::connect(&ours.socket);
    work(&mut good);
    let rude = misbehave(&ours.socket);
    work(&mut good);
    drop(rude);
    work(&mut good);
    work(&mut Client::connect(&ours.socket));
}

#[test]
fn half_a_frame() {
    beside(|socket| {
        let mut client = UnixStream::connect(socket).unwrap();
        client.write_all(&100u32.to_le_bytes()).unwrap();
        client.write_all(&[0x91, 0x92]).unwrap();
        vec![client]
    });
}

#[test]
fn a_client_that_does_not_read() {
    beside(|socket| {
        let client = UnixStream::connect(socket).unwrap();
        client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let (name, fields) = path_request();
        let payload = request(name, &fields);
        let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(&payload);
        // Until the server takes no more of them, which it must not do for ever.
        let sent = (0..200_000).take_while(|_| (&client).write_all(&frame).is_ok()).count();
        assert!(sent > 100, "{sent} requests were taken");
        vec![client]
    });
}

#[test]
fn a_client_that_leaves_with_replies_outstanding() {
    beside(|socket| {
        for _ in 0..20 {
            let mut client = Client::connect(socket);
            let (name, fields) = path_request();
            for _ in 0..50 {
                client.send(&request(name, &fields));
            }
        }
        Vec::new()
    });
}

#[test]
fn a_length_of_four_gigabytes() {
    beside(|socket| {
        let mut client = UnixStream::connect(socket).unwrap();
        client.set_read_timeout(Some(ROUND_TRIP_MAX)).unwrap();
        client.write_all(&[0xff; 64]).unwrap();
        let mut rest = Vec::new();
        // It is told, or just closed; it is not waited for.
        let _ = client.read_to_end(&mut rest);
        vec![client]
    });
}

#[test]
fn bytes_that_are_no_requests() {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let mut client = Client::connect(&ours.socket);
    for payload in [&b""[..], b"\xc1", b"\x91\xa1x", b"\x81\xa1a\x01", &[0xdd, 0xff, 0xff, 0xff, 0xff]] {
        client.send(payload);
        assert!(support::reply(&client.receive()).is_err(), "{payload:x?}");
    }
    work(&mut client);
}

/// The slowest request there is, on one fork, delays nobody on another.
#[test]
fn a_long_insertion() {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let mut busy = Client::connect(&ours.socket);
    let fork = busy.ask("CreateFork", &json!({ "latest": true, "blockNumber": 0 })).unwrap()["forkId"].clone();
    let leaves: Vec<Value> = (0..512).map(|key| inner(&json!({ "nullifier": element(1_000 + 7 * key) }))).collect();
    for _ in 0..3 {
        busy.send(&request("SequentialInsert", &json!({ "treeId": 0, "leaves": leaves, "forkId": fork })));
    }
    work(&mut Client::connect(&ours.socket));
    assert!(support::reply(&busy.receive()).is_ok());
    // The same nullifiers again are refused.
    assert!(support::reply(&busy.receive()).is_err());
}
