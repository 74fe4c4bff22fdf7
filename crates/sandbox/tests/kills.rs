//! Workers, zygotes and servers that are killed at any moment. A program of its own, since it counts what its process holds.

mod common;

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{KEY, PATIENCE, ask, sandbox, until};
use tine_sandbox::{CallError, Death, Pool, PoolOptions, Sandbox, SandboxOptions, WorkerKey};

/// Processes whose parent is this one, dead or alive.
fn children() -> Vec<i32> {
    let mut pids = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").expect("tasks").flatten() {
        // A thread may end meanwhile.
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        pids.extend(text.split_ascii_whitespace().map(|pid| pid.parse::<i32>().expect("a number")));
    }
    pids
}

fn signal(pid: i32) -> bool {
    // SAFETY: takes plain numbers; the processes are this test's own.
    unsafe { libc::kill(pid, libc::SIGKILL) == 0 }
}

/// Whether a process runs. One that waits to be reaped by whoever inherited it does not.
fn is_alive(pid: i32) -> bool {
    // SAFETY: takes plain numbers; signal 0 only asks.
    unsafe { libc::kill(pid, 0) == 0 && !is_zombie(pid) }
}

/// Descriptors and mappings of this process that belong to workers.
fn held() -> (usize, usize) {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    let of_workers = descriptors.filter(|entry| {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        ["pidfd", "memfd:tine-worker", "eventfd", "pipe:"].iter().any(|kind| target.contains(kind))
    });
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    (of_workers.count(), maps.lines().filter(|line| line.contains("memfd:tine-worker")).count())
}

/// What became of the calls of [`traffic`].
#[derive(Default)]
struct Outcomes {
    replies: AtomicU64,
    failures: AtomicU64,
}

/// Calls from some threads while `goes_on`.
fn traffic(pool: &Pool, outcomes: &Outcomes, goes_on: &(impl Fn() -> bool + Sync)) {
    std::thread::scope(|scope| {
        for thread in 0..3u128 {
            scope.spawn(move || {
                while goes_on() {
                    match ask(pool, WorkerKey(thread % 2), b"ehello") {
                        Ok(reply) => {
                            assert_eq!(reply, b"hello");
                            outcomes.replies.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(
                            CallError::Died(Death::Signalled(9)) | CallError::Bystander(_) | CallError::Launch { .. },
                        ) => {
                            outcomes.failures.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
}

#[test]
fn killed_workers_and_zygotes_are_replaced_and_leave_nothing() {
    let before = held();
    let sandbox = Sandbox::start(SandboxOptions::default()).expect("started");
    let pool = sandbox.pool(PoolOptions { spares: 2, ..PoolOptions::new("test") }).expect("a pool");
    ask(&pool, KEY, b"e").expect("up");
    let length = Duration::from_secs(if std::env::var_os("TINE_TESTS_LONG").is_some() { 60 } else { 3 });
    let (started, stop, outcomes) = (Instant::now(), AtomicBool::new(false), Outcomes::default());
    let metrics = sandbox.metrics();
    let replies = || outcomes.replies.load(Ordering::Relaxed);
    let has_seen_enough = || metrics.workers_died() > 10 && metrics.zygotes_started() > 3 && replies() > 100;
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| traffic(&pool, &outcomes, &|| !stop.load(Ordering::Relaxed)));
        let mut random = 12345u64;
        let mut replies_before = 0;
        while started.elapsed() < length || !has_seen_enough() && started.elapsed() < length + PATIENCE {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_micros((random >> 33) % 8_000));
            // Most strike after a reply: a key whose workers all die without one rests for seconds, with nobody to kill.
            if random >> 54 & 7 != 0 && replies() == replies_before {
                continue;
            }
            replies_before = replies();
            let workers = sandbox.workers();
            let worker = workers.get((random >> 40) as usize % workers.len().max(1)).map(|worker| worker.pid);
            if let Some(pid) = worker.filter(|_| random >> 50 & 3 != 0).or(sandbox.zygote_pid()) {
                signal(pid);
            }
        }
        stop.store(true, Ordering::Relaxed);
        traffic.join().expect("no panic")
    });
    assert!(replies() > 100, "{} replies, {} failures", replies(), outcomes.failures.load(Ordering::Relaxed));
    until("it works again", || ask(&pool, KEY, b"e").is_ok());
    let (died, zygotes) = (metrics.workers_died(), metrics.zygotes_started());
    assert!(has_seen_enough(), "{died} workers died, {zygotes} zygotes");
    sandbox.shut_down(PATIENCE).expect("all reaped");
    assert_eq!((metrics.in_flight(), metrics.in_flight_bytes(), metrics.workers()), (0, 0, 0));
    drop((pool, sandbox));
    until("nothing is held", || held() <= before);
    // Tests of this program that run beside this one have children, too; a dead one of ours would stay.
    until("no zombie", || !children().into_iter().any(is_zombie));
}

fn is_zombie(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// Not a test of its own: the server that the next test kills.
#[test]
#[ignore = "started by another test"]
fn a_server_to_be_killed() {
    let sandbox = sandbox();
    let pool = sandbox.pool(PoolOptions { spares: 2, ..PoolOptions::new("test") }).expect("a pool");
    ask(&pool, KEY, b"e").expect("up");
    let pids: Vec<_> = children().iter().map(ToString::to_string).collect();
    println!("\nchildren: {}", pids.join(" "));
    let started = Instant::now();
    traffic(&pool, &Outcomes::default(), &|| started.elapsed() < PATIENCE);
}

#[test]
fn nothing_outlives_a_killed_server() {
    for round in 0..8 {
        let mut server = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--ignored", "--exact", "--nocapture", "a_server_to_be_killed"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("started");
        let output = BufReader::new(server.stdout.take().expect("piped"));
        let line = output.lines().map_while(Result::ok).find(|line| line.starts_with("children: ")).expect("a line");
        let pids: Vec<i32> = line.split(' ').skip(1).map(|pid| pid.parse().expect("a number")).collect();
        assert!(pids.len() >= 2, "a zygote and workers: {line}");
        std::thread::sleep(Duration::from_millis(round * 3));
        server.kill().expect("killed");
        server.wait().expect("reaped");
        until("all of them ended", || !pids.iter().any(|&pid| is_alive(pid)));
    }
}
