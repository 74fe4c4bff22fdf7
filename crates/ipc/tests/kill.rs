//! Death at random points, with real processes. Whoever survives learns it at once, loses nothing else, and goes on.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::*;
use tine_ipc::{CallError, Client, ConnectOptions, ListenOptions};

/// What this process is to be, if it was started by a test of this file.
const ROLE: &str = "TINE_IPC_TEST_ROLE";
/// Where the server listens.
const PATH: &str = "TINE_IPC_TEST_PATH";
/// In which every call in flight must have failed after the death of the other side.
const NOTICED_WITHIN: Duration = Duration::from_millis(100);

/// On a machine with more to do than cores, a survivor may get its turn late: this share of the rounds may take longer, and no round
/// may take long.
const LATE_SHARE: usize = 10;
const NEVER_LONGER_THAN: Duration = Duration::from_secs(2);

fn check_notices(mut notices: Vec<Duration>) {
    notices.sort();
    let in_time = notices[notices.len() - 1 - notices.len() / LATE_SHARE];
    assert!(in_time < NOTICED_WITHIN, "{in_time:?}");
    let last = notices[notices.len() - 1];
    assert!(last < NEVER_LONGER_THAN, "{last:?}");
}

/// Rounds per transport and side.
fn rounds() -> u32 {
    if std::env::var_os("TINE_TESTS_LONG").is_some() { 250 } else { 40 }
}

/// Not a test: what the child processes run.
#[test]
fn child() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let path = PathBuf::from(std::env::var_os(PATH).expect("a path"));
    if role == "server" {
        let _reactor = serve(&path, ListenOptions::new(SCHEMA), Arc::new(Service::default()));
        loop {
            std::thread::sleep(SOON);
        }
    }
    let client = Client::connect(&path, &ConnectOptions::new(SCHEMA)).expect("connected");
    std::thread::scope(|scope| {
        for thread in 0..3u8 {
            let client = client.clone();
            scope.spawn(move || {
                for number in 0.. {
                    let size = [10, 200_000, 64, 3][number % 4];
                    let mut request = vec![thread; size];
                    request[0] = if number % 3 == 0 { LATER } else { ECHO };
                    request[1] = 1;
                    assert!(client.call(&request, SOON).expect("a reply") == request);
                }
            });
        }
    });
}

fn start(role: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(PATH, path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("started")
}

/// A number that differs from round to round, the same in every run.
fn random(round: u32, below: u64) -> u64 {
    let mut state = u64::from(round).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state ^= state >> 31;
    state.wrapping_mul(0xbf58_476d_1ce4_e5b9) % below
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("descriptors").count()
}

#[test]
fn killed_clients_harm_nobody() {
    for name in NAMES {
        let server = Server::start(name, ListenOptions::new(SCHEMA));
        let good = server.client();
        let before = open_descriptors();
        let mut notices = Vec::new();
        for round in 0..rounds() {
            let mut child = start("client", &server.path);
            eventually("the child's connection", || server.reactor.handle().counters().connections == 2);
            std::thread::sleep(Duration::from_micros(random(round, 20_000)));
            child.kill().expect("killed");
            let killed = Instant::now();
            child.wait().expect("reaped");
            eventually("the notice", || server.reactor.handle().counters().connections == 1);
            notices.push(killed.elapsed());
            assert_eq!(good.call(&[ECHO, round as u8], SOON), Ok(vec![ECHO, round as u8]));
        }
        check_notices(notices);
        eventually("all descriptors closed", || open_descriptors() <= before);
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let regions = maps.lines().filter(|line| line.contains("memfd:tine-ipc")).count();
        // The good client's, mapped by both sides.
        assert_eq!(regions, if name.ends_with("shm") { 2 } else { 0 });
    }
}

#[test]
fn calls_fail_at_once_when_their_server_is_killed() {
    for name in NAMES {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join(name);
        let mut notices = Vec::new();
        for round in 0..rounds() {
            // The file of the server before is in the way, and is replaced.
            let mut child = start("server", &path);
            let mut client = None;
            eventually("the server", || {
                client = Client::connect(&path, &ConnectOptions::new(SCHEMA)).ok();
                client.is_some()
            });
            let client = client.expect("connected");
            let answered = AtomicU64::new(0);
            std::thread::scope(|scope| {
                let threads: Vec<_> = [ECHO, LATER, NEVER, BYTES]
                    .map(|kind| {
                        let (client, answered) = (client.clone(), &answered);
                        let request = if kind == BYTES { number_request(BYTES, 700_000) } else { vec![kind, 1] };
                        scope.spawn(move || {
                            loop {
                                match client.call(&request, SOON) {
                                    Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
                                    Err(error) => return (error, Instant::now()),
                                };
                            }
                        })
                    })
                    .into();
                std::thread::sleep(Duration::from_micros(random(round, 20_000)));
                let killed = Instant::now();
                child.kill().expect("killed");
                for thread in threads {
                    let (error, at) = thread.join().expect("no panic");
                    assert!(matches!(error, CallError::Disconnected { .. }), "round {round}: {error}");
                    notices.push(at.saturating_duration_since(killed));
                }
            });
            assert!(client.call(&[ECHO], SOON).is_err());
            child.wait().expect("reaped");
        }
        check_notices(notices);
    }
}
