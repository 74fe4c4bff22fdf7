//! The other side of a ring writes what it likes, where it likes, at any time. It may lose its own connection, and nothing else.

mod common;

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use common::raw::{self, open_rings};
use common::*;
use proptest::prelude::*;
use tine_base::descriptors::send_with_descriptors;
use tine_base::event::Event;
use tine_base::memory::SharedMemory;
use tine_ipc::{Client, ConnectOptions, ListenOptions};

/// Where the words of the two rings are, and what is behind them (see `region.rs`).
const CONTROL: usize = 4096;
const CONTROL_BYTES: usize = 4 * 128;
const DATA: usize = 8192;

fn options() -> ListenOptions {
    ListenOptions { ring_bytes: 4096, stall_limit: Duration::from_millis(300), ..ListenOptions::new(SCHEMA) }
}

fn tail(ring: usize) -> usize {
    CONTROL + ring * CONTROL_BYTES
}

fn head(ring: usize) -> usize {
    tail(ring) + 128
}

#[test]
fn a_client_by_hand_gets_its_reply() {
    let server = Server::start("a.shm", options());
    let rings = open_rings(&server.path);
    let frame = raw::frame(raw::REQUEST, 7, &[ECHO, 42]);
    rings.write(DATA, &frame);
    rings.write(tail(0), &(frame.len() as u32).to_le_bytes());
    rings.server_bell.ring();
    let reply = raw::frame(raw::REPLY, 7, &[ECHO, 42]);
    let mut got = vec![0; reply.len()];
    eventually("the reply", || {
        // SAFETY: inside the region.
        unsafe { std::ptr::copy(rings.memory.address().as_ptr().add(DATA + 4096), got.as_mut_ptr(), got.len()) };
        got == reply
    });
}

#[test]
fn cursors_out_of_range_end_the_connection() {
    let server = Server::start("a.shm", options());
    let good = server.client();
    for lie in [4097u32, 1 << 16, 1 << 31, u32::MAX] {
        let mut rings = open_rings(&server.path);
        rings.write(tail(0), &lie.to_le_bytes());
        rings.server_bell.ring();
        let (kind, _, payload) = raw::read_frame(&mut rings.socket).expect("last words");
        assert_eq!((kind, raw::code(&payload).as_str()), (raw::CLOSING, "TN0943"), "{lie}");
        assert!(raw::read_frame(&mut rings.socket).is_none());
        // A reader that claims to have read what was never written is found when there is something to write.
        let mut rings = open_rings(&server.path);
        let frame = raw::frame(raw::REQUEST, 1, &number_request(BYTES, 100_000));
        rings.write(DATA, &frame);
        rings.write(head(1), &lie.to_le_bytes());
        rings.write(tail(0), &(frame.len() as u32).to_le_bytes());
        rings.server_bell.ring();
        let (kind, _, payload) = raw::read_frame(&mut rings.socket).expect("last words");
        assert_eq!((kind, raw::code(&payload).as_str()), (raw::CLOSING, "TN0943"), "{lie}");
        assert_eq!(good.call(&[ECHO], SOON), Ok(vec![ECHO]));
    }
}

#[test]
fn lengths_that_lie_end_in_patience_or_in_nonsense() {
    let server = Server::start("a.shm", options());
    let good = server.client();
    for (header, code) in [
        // More than is there: the rest is waited for, but not for ever.
        (raw::header(raw::REQUEST, 1, 1_000), "TN0945"),
        (raw::header(raw::REQUEST, 1, 60 << 20), "TN0945"),
        (raw::header(raw::REQUEST, 1, u32::MAX), "TN0945"),
        (raw::header(99, 1, 3), "TN0941"),
        (raw::header(raw::REPLY, 1, 0), "TN0942"),
    ] {
        let mut rings = open_rings(&server.path);
        rings.write(DATA, &header);
        rings.write(tail(0), &16u32.to_le_bytes());
        rings.server_bell.ring();
        let (kind, _, payload) = loop {
            let frame = raw::read_frame(&mut rings.socket).expect("last words");
            if frame.0 == raw::CLOSING {
                break frame;
            }
        };
        assert_eq!((kind, raw::code(&payload).as_str()), (raw::CLOSING, code));
        assert_eq!(good.call(&[ECHO], SOON), Ok(vec![ECHO]));
    }
    let mut talks = open_rings(&server.path);
    talks.socket.write_all(b"beside the ring").expect("written");
    let (_, _, payload) = raw::read_frame(&mut talks.socket).expect("last words");
    assert_eq!(raw::code(&payload), "TN0942");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 60 } else { 300 }))]

    #[test]
    fn random_bytes_in_every_word_harm_their_writer_alone(
        writes in prop::collection::vec((0usize..(DATA + 2 * 4096 - 64), prop::collection::vec(any::<u8>(), 1..64)), 1..20),
        words in prop::collection::vec((0usize..8, any::<u32>()), 0..20),
        rings_between in any::<bool>(),
    ) {
        use std::sync::OnceLock;
        static SERVER: OnceLock<(Server, Client)> = OnceLock::new();
        let (server, good) = SERVER.get_or_init(|| {
            let server = Server::start("a.shm", options());
            let good = server.client();
            (server, good)
        });
        let rings = open_rings(&server.path);
        for (offset, bytes) in &writes {
            rings.write(*offset, bytes);
            if rings_between {
                rings.server_bell.ring();
            }
        }
        for (word, value) in &words {
            rings.write(CONTROL + word * 128, &value.to_le_bytes());
            rings.server_bell.ring();
        }
        rings.server_bell.ring();
        prop_assert_eq!(good.call(&[ECHO, 9], SOON), Ok(vec![ECHO, 9]));
    }
}

/// A server that welcomes one client with a region it made itself, and then does what `attack` says.
fn hostile_server(attack: impl FnOnce(&SharedMemory, &Event) + Send + 'static) -> (tempfile::TempDir, Client) {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("bad.shm");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a client");
        raw::read_frame(&mut socket).expect("a hello");
        let memory = SharedMemory::create("bad", DATA + 2 * 4096).expect("memory");
        let mut facts = b"TINERING".to_vec();
        for number in [1u32, 4096, 4096, 3, 4, 0] {
            facts.extend_from_slice(&number.to_le_bytes());
        }
        // SAFETY: inside the region.
        unsafe { std::ptr::copy_nonoverlapping(facts.as_ptr(), memory.address().as_ptr(), facts.len()) };
        let bells = [Event::new().expect("bell"), Event::new().expect("bell"), Event::new().expect("bell")];
        let mut payload = b"TINE-IPC".to_vec();
        payload.extend_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0]);
        payload.extend_from_slice(&SCHEMA.0);
        payload.extend_from_slice(&1_000u32.to_le_bytes());
        payload.extend_from_slice(&10u32.to_le_bytes());
        payload.extend_from_slice(&10_000u64.to_le_bytes());
        payload.extend_from_slice(&[3, 0, 0, 0, 4, 0, 0, 0]);
        let frame = raw::frame(raw::WELCOME, 0, &payload);
        let descriptors = [memory.as_fd(), bells[0].as_fd(), bells[1].as_fd(), bells[2].as_fd()];
        assert_eq!(send_with_descriptors(socket.as_fd(), &frame, &descriptors).expect("sent"), frame.len());
        attack(&memory, &bells[1]);
        // Stays, and says no more.
        std::thread::sleep(Duration::from_secs(3));
    });
    let client = Client::connect(&path, &ConnectOptions::new(SCHEMA)).expect("connected");
    (directory, client)
}

#[test]
fn a_client_survives_a_hostile_server() {
    let write = |memory: &SharedMemory, offset: usize, bytes: &[u8]| {
        // SAFETY: inside the region.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.address().as_ptr().add(offset), bytes.len()) };
    };
    for lie in [4097u32, 1 << 31, u32::MAX] {
        let (_directory, client) = hostile_server(move |memory, bell| {
            write(memory, tail(1), &lie.to_le_bytes());
            bell.ring();
        });
        assert_eq!(client.call(&[ECHO], SOON).expect_err("a lie").code(), "TN0924", "{lie}");
    }
    for (frame, code) in [
        (raw::frame(raw::REQUEST, 1, &[]), "TN0924"),
        (vec![0xff; 32], "TN0924"),
        (raw::frame(18, 1, &[1]), "TN0921"),
        (raw::header(raw::REPLY, 1, 1 << 30).to_vec(), "TN0922"),
        (raw::header(raw::REPLY, 1, 1 << 20).to_vec(), "TN0921"),
    ] {
        let (_directory, client) = hostile_server(move |memory, bell| {
            write(memory, DATA + 4096, &frame);
            write(memory, tail(1), &(frame.len() as u32).to_le_bytes());
            bell.ring();
        });
        let error = client.call(&[ECHO], Duration::from_millis(200)).expect_err("nonsense");
        assert_eq!(error.code(), code, "{error}");
    }
    // One that takes the announcements of sleep down and never rings costs the client its time limit, no more.
    let (_directory, client) = hostile_server(move |memory, _| {
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            write(memory, CONTROL + CONTROL_BYTES + 256, &[0; 4]);
            write(memory, CONTROL + 384, &[0; 4]);
        }
    });
    let started = Instant::now();
    assert_eq!(client.call(&vec![ECHO; 900], Duration::from_millis(200)).expect_err("no reply").code(), "TN0921");
    assert!(started.elapsed() < SOON / 2);
}
