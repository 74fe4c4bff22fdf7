//! Many callers at once, callers that go away, and workers that write anything anywhere.

mod common;

use std::future::Future;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::{KEY, PATIENCE, WORDS_BYTES, ask, options, pool, sandbox, until};
use futures_util::future::join_all;
use tine_sandbox::{CallError, Completions, Driver, KillCause, LaunchError, PoolOptions, WorkerKey};

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        std::thread::park_timeout(PATIENCE);
    }
}

#[test]
fn first_callers_share_one_launch() {
    for spares in [0, 1] {
        let sandbox = sandbox();
        let pool = sandbox.pool(PoolOptions { spares, ..PoolOptions::new("test") }).expect("a pool");
        until("the spare is ready", || pool.spares() == spares);
        let before = sandbox.metrics().launches();
        let callers = (0..128).map(|_| {
            let key = pool.key(KEY);
            async move { key.call(options(), |writer| writer.write(b"ehello")).await }
        });
        let replies = block_on(join_all(callers));
        let workers: std::collections::HashSet<_> =
            replies.into_iter().map(|reply| reply.expect("a reply").worker).collect();
        assert_eq!(workers.len(), 1, "all are served by one worker");
        assert_eq!(sandbox.metrics().spares_used(), spares as u64);
        if spares == 0 {
            assert_eq!(sandbox.metrics().launches() - before, 1);
            assert_eq!(sandbox.metrics().waiters_coalesced(), 127);
        }
    }
}

/// Polls a call until it was posted, or further.
fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn giving_up_one_request_disturbs_no_other() {
    let sandbox = sandbox();
    let pool = pool(&sandbox);
    ask(&pool, KEY, b"e").expect("up");
    let trials = if std::env::var_os("TINE_TESTS_LONG").is_some() { 10_000 } else { 1_000 };
    for trial in 0..trials {
        let key = pool.key(KEY);
        let mut calls: Vec<_> = (0..33u8)
            .map(|number| {
                key.call(options(), move |writer| {
                    writer.write(b"e");
                    writer.write(&[number; 100]);
                })
            })
            .collect();
        let chosen = trial % 33;
        let mut victim = calls.remove(chosen);
        for call in calls.iter_mut().take(trial % 40) {
            assert!(poll_once(call).is_pending(), "posted or queued");
        }
        let _ = poll_once(&mut victim);
        if trial % 3 == 0 {
            std::thread::yield_now();
        }
        drop(victim);
        let left = (0..33u8).filter(|&number| usize::from(number) != chosen);
        for (number, reply) in left.zip(block_on(join_all(calls))) {
            assert_eq!(reply.expect("no neighbour fails").bytes, [number; 100], "trial {trial}");
        }
    }
    until("no slot leaks", || pool.slots_in_use(KEY) == 0);
    until("all is counted", || sandbox.metrics().in_flight() == 0 && sandbox.metrics().abandoned_slots() == 0);
    assert_eq!(sandbox.metrics().workers_died(), 0);
}

#[test]
fn a_worker_that_writes_anything_anywhere_hurts_its_own_key_only() {
    let sandbox = sandbox();
    let hostile = sandbox.pool(PoolOptions::new("hostile")).expect("a pool");
    let good = pool(&sandbox);
    let values = [0, 1, 0x17, 0x8000_0000, u32::MAX];
    let offsets: Vec<u32> = if std::env::var_os("TINE_TESTS_LONG").is_some() {
        (0..WORDS_BYTES as u32).step_by(4).collect()
    } else {
        // The doors, a line of 128 bytes each, and the words of two slots; the words of the others mean the same.
        let doors = (0..5).flat_map(|line| [line * 128, line * 128 + 4]);
        doors.chain((640..688).step_by(4)).chain((768..816).step_by(4)).collect()
    };
    let (mut replies, mut key) = (0, 0);
    let mut garble = |offset: u32, value: u32, then: u8| {
        key += 1;
        let request = [&offset.to_le_bytes()[..], &value.to_le_bytes(), &[then]].concat();
        let options = options().timeout(Duration::from_millis(20));
        let keyed = hostile.key(WorkerKey(key));
        for is_attended in [true, false] {
            let outcome = match is_attended {
                true => keyed.call_blocking(options, |writer| writer.write(&request)),
                false => block_on(keyed.call(options, |writer| writer.write(&request))),
            };
            match outcome {
                Ok(reply) => {
                    assert!(reply.bytes.len() <= 1_024);
                    replies += 1;
                }
                Err(CallError::Launch { error, .. }) if !matches!(error, LaunchError::CrashLoop(_)) => {
                    panic!("{error}")
                }
                Err(error) => assert!(error.code().starts_with("TN11"), "{error}"),
            }
        }
        hostile.end(WorkerKey(key));
    };
    for &offset in &offsets {
        for value in values {
            garble(offset, value, 0);
        }
        garble(offset, u32::MAX, 2);
        assert_eq!(ask(&good, KEY, b"ewell").expect("another key"), b"well");
    }
    for seed in 0..100 {
        garble(u32::MAX, seed, (seed % 3) as u8);
    }
    assert!(replies > 100, "most words are of no interest to anybody");
    let killed = [KillCause::Protocol, KillCause::Deadline].map(|cause| sandbox.metrics().killed(cause));
    assert!(killed[0] > 10 && killed[1] > 10, "{killed:?} of {key}");
    assert_eq!(ask(&good, KEY, b"estill").expect("another key"), b"still");
    sandbox.shut_down(PATIENCE).expect("all reaped");
    assert_eq!(sandbox.metrics().in_flight(), 0);
}

#[test]
fn a_driver_that_looks_again_misses_no_reply_and_a_hot_worker_cools_down() {
    let driver: Driver = Arc::new(|completions: Completions| {
        std::thread::spawn(move || {
            while !completions.is_over() {
                while completions.drain_once() {
                    std::thread::yield_now();
                }
                await_ring(&completions);
            }
        });
    });
    let sandbox = sandbox();
    let pool = sandbox.pool(PoolOptions { driver: Some(driver), ..PoolOptions::new("test") }).expect("a pool");
    let keyed = pool.key(KEY);
    let policy = || {
        let pid = sandbox.workers().iter().find(|worker| worker.key == Some(KEY)).expect("a worker").pid;
        // SAFETY: takes a plain number.
        unsafe { libc::sched_getscheduler(pid) }
    };
    until("the worker is hot", || {
        let calls = (0..100).map(|_| keyed.call(options(), |writer| writer.write(b"eagain")));
        for reply in block_on(join_all(calls)) {
            assert_eq!(reply.expect("a reply").bytes, b"again");
        }
        policy() == libc::SCHED_BATCH
    });
    until("it is not any more", || policy() == libc::SCHED_OTHER);
}

/// Waits until the worker rings or has ended.
fn await_ring(completions: &Completions) {
    let descriptor = completions.as_fd().as_raw_fd();
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    let mut rings = 0u64;
    // SAFETY: the structure and the number live on this stack; the descriptor is open and does not block.
    unsafe {
        libc::poll(&mut poll, 1, -1);
        libc::read(descriptor, (&raw mut rings).cast(), size_of::<u64>());
    }
}
