//! Clients that misbehave harm themselves alone: those of the reference that stopped or ended the server this one stands in
//! for, each beside a client that goes on working, and is not slowed beyond three times.
//!
//! Times of a busy machine say little, so what counts is the median of many round trips, over that of the same client
//! shortly before, and the best of several attempts: one that is slowed is slowed in all of them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tine_ipc::{ConnectOptions, SchemaHash};
use tine_msgpack::encode_request;
use tine_worldstate::WorldOptions;
use tine_worldstate::service::{Revision, SCHEMA_HASH, WorldStateGetSiblingPath};

mod support;

use support::{Asks, Client, Ours, element, inner, request};

const LATEST: u64 = u32::MAX as u64;

/// A round trip beside the worst of clients, at most: far above what it takes on a busy machine, far below what any of
/// them lasts.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(5);

/// How much longer the median round trip may take beside a client that misbehaves.
const SLOWED_MAX: u32 = 3;

/// Requests that a client leaves without their replies. Few: what counts is that it leaves, and not the work it makes.
const OUTSTANDING: usize = 6;

/// Round trips of one median, and how often it is tried.
const ROUND_TRIPS: usize = 200;
const ATTEMPTS: usize = 10;

fn path_request() -> (&'static str, Value) {
    let revision = json!({ "forkId": 0, "blockNumber": LATEST, "includeUncommitted": false });
    ("GetSiblingPath", json!({ "treeId": 0, "revision": revision, "leafIndex": 3 }))
}

fn frame() -> Vec<u8> {
    let (name, fields) = path_request();
    let payload = request(name, &fields);
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(&payload);
    frame
}

/// Asks many times; each answer must come soon. Returns the median time.
fn work(client: &mut Client) -> Duration {
    let (name, fields) = path_request();
    let mut times: Vec<Duration> = (0..ROUND_TRIPS)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(client.ask(name, &fields).unwrap()["path"].as_array().unwrap().len(), 42);
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(times[ROUND_TRIPS - 1] < ROUND_TRIP_MAX, "a good client waited {:?}", times[ROUND_TRIPS - 1]);
    times[ROUND_TRIPS / 2]
}

/// Told when the good client has seen enough.
struct Until(AtomicBool);

impl Until {
    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves, and works alone and beside clients that do their worst until they are told to end: `misbehave` returns what
/// they still hold then. They say with the flag that they have begun.
fn beside<T>(misbehave: impl Fn(&Ours, &AtomicBool, &Until) -> T + Sync) {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let mut good = Client::connect(&ours.socket);
    let mut seen = Vec::new();
    loop {
        let alone = work(&mut good);
        let (begun, over) = (AtomicBool::new(false), Until(AtomicBool::new(false)));
        let beside = std::thread::scope(|scope| {
            let (ours, misbehave, begun, over) = (&ours, &misbehave, &begun, &over);
            let rude = scope.spawn(move || drop(misbehave(ours, begun, over)));
            let deadline = Instant::now() + ROUND_TRIP_MAX;
            while !begun.load(Ordering::Relaxed) && !rude.is_finished() && Instant::now() < deadline {
                std::thread::yield_now();
            }
            let beside = work(&mut good);
            over.0.store(true, Ordering::Relaxed);
            rude.join().unwrap();
            beside
        });
        work(&mut Client::connect(&ours.socket));
        seen.push((alone, beside));
        if beside <= SLOWED_MAX * alone {
            return;
        }
        assert!(seen.len() < ATTEMPTS, "medians alone and beside it: {seen:?}");
    }
}

fn wait_for(over: &Until) {
    while !over.is_over() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn half_a_frame() {
    beside(|ours, begun, over| {
        let mut client = UnixStream::connect(&ours.socket).unwrap();
        client.write_all(&100u32.to_le_bytes()).unwrap();
        client.write_all(&[0x91, 0x92]).unwrap();
        begun.store(true, Ordering::Relaxed);
        wait_for(over);
        client
    });
}

#[test]
fn a_client_that_does_not_read() {
    beside(|ours, begun, over| {
        let client = UnixStream::connect(&ours.socket).unwrap();
        client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let frame = frame();
        // Until the server takes no more of them, which it must not do for ever.
        let sent = (0..200_000).take_while(|_| (&client).write_all(&frame).is_ok()).count();
        assert!((100..200_000).contains(&sent), "{sent} requests were taken");
        begun.store(true, Ordering::Relaxed);
        wait_for(over);
        client
    });
}

#[test]
fn clients_that_leave_with_replies_outstanding() {
    beside(|ours, begun, over| {
        let frames = frame().repeat(OUTSTANDING);
        while !over.is_over() {
            let mut client = Client::connect(&ours.socket);
            client.0.write_all(&frames).unwrap();
            // The first one shows that the server is at them.
            client.receive();
            begun.store(true, Ordering::Relaxed);
        }
    });
}

/// The same in shared memory, where what was outstanding became the answers of whoever came next.
#[test]
fn clients_that_leave_shared_memory_with_replies_outstanding() {
    beside(|ours, begun, over| {
        let revision = Revision { fork: 0, block: None, committed: true };
        let payload = |index| {
            let path = WorldStateGetSiblingPath { tree: 0, revision: revision.clone(), index };
            encode_request("WorldStateGetSiblingPath", &path)
        };
        while !over.is_over() {
            let client = tine_ipc::Client::connect(&ours.typed[1], &ConnectOptions::new(SCHEMA_HASH)).unwrap();
            for index in 0..OUTSTANDING as u64 {
                client.submit(&payload(index), |_| ()).unwrap();
            }
            begun.store(true, Ordering::Relaxed);
        }
    });
}

#[test]
fn a_length_of_four_gigabytes() {
    beside(|ours, begun, over| {
        while !over.is_over() {
            let mut client = UnixStream::connect(&ours.socket).unwrap();
            client.set_read_timeout(Some(ROUND_TRIP_MAX)).unwrap();
            client.write_all(&[0xff; 64]).unwrap();
            begun.store(true, Ordering::Relaxed);
            let mut rest = Vec::new();
            // It is told, or just closed; it is not waited for.
            let _ = client.read_to_end(&mut rest);
        }
    });
}

#[test]
fn handshakes_of_another_schema() {
    beside(|ours, begun, over| {
        while !over.is_over() {
            for path in &ours.typed {
                let refused = tine_ipc::Client::connect(path, &ConnectOptions::new(SchemaHash([7; 32])));
                assert!(refused.is_err(), "a client of another schema is refused");
            }
            begun.store(true, Ordering::Relaxed);
        }
    });
}

/// The slowest request there is, on one fork, delays nobody on another: a client of the server this one stands in for
/// waited behind it.
#[test]
fn a_long_insertion() {
    beside(|ours, begun, over| {
        let mut busy = Client::connect(&ours.socket);
        let leaves: Vec<Value> = (0..512).map(|key| inner(&json!({ "nullifier": element(1_000 + 7 * key) }))).collect();
        while !over.is_over() {
            let fork = busy.ask("CreateFork", &json!({ "latest": true, "blockNumber": 0 })).unwrap()["forkId"].clone();
            let insert = request("SequentialInsert", &json!({ "treeId": 0, "leaves": leaves, "forkId": fork }));
            busy.send(&insert);
            busy.send(&insert);
            begun.store(true, Ordering::Relaxed);
            assert!(support::reply(&busy.receive()).is_ok());
            // The same nullifiers again are refused.
            assert!(support::reply(&busy.receive()).is_err());
            busy.ask("DeleteFork", &json!({ "forkId": fork })).unwrap();
        }
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

/// There are no slots to run out of: sixty-four connections of each kind are served at once.
#[test]
fn many_connections() {
    const CONNECTIONS: u64 = 64;
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let mut plain: Vec<Client> = (0..CONNECTIONS).map(|_| Client::connect(&ours.socket)).collect();
    let typed: Vec<_> =
        (0..CONNECTIONS).map(|number| support::typed::connect(&ours.typed[number as usize % 2])).collect();
    let (name, fields) = path_request();
    plain.iter_mut().for_each(|client| client.send(&request(name, &fields)));
    let revision = Revision { fork: 0, block: None, committed: true };
    let expected = WorldStateGetSiblingPath { tree: 0, revision, index: 3 };
    for (client, plain) in typed.iter().zip(&mut plain) {
        let path = client.get_sibling_path_within(&expected, ROUND_TRIP_MAX).unwrap().path;
        let path: Vec<Value> = path.iter().map(|element| json!({ "bin": support::hex(&element.0) })).collect();
        assert_eq!(support::reply(&plain.receive()).unwrap()["path"], json!(path));
    }
}
