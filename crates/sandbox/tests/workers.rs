//! Real workers that do what they should not.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{KEY, PATIENCE, ask, options, pool, sandbox, until};
use parking_lot::Mutex;
use tine_sandbox::{
    Abort, CallError, CallOptions, Death, KillCause, LaunchError, LogLine, PoolOptions, Sandbox, SandboxOptions, Shape,
    WorkerKey,
};

#[test]
fn a_worker_echoes_and_is_locked_in() {
    let sandbox = sandbox();
    let level = sandbox.level(PATIENCE).expect("a level");
    assert!(level.is_full(), "{level}");
    let pool = pool(&sandbox);
    assert_eq!(ask(&pool, KEY, b"ehello").expect("a reply"), b"hello");
    assert_eq!(ask(&pool, KEY, b"r"), Err(CallError::Rejected("the input is bad".to_owned())));
    assert_eq!(ask(&pool, KEY, b""), Err(CallError::Rejected("an empty request".to_owned())));
    assert_eq!(ask(&pool, KEY, b"n").expect("a reply"), 4u64.to_le_bytes(), "rejecting harms nobody");
    sandbox.shut_down(PATIENCE).expect("all reaped");
    assert_eq!(sandbox.metrics().workers(), 0);
}

#[test]
fn forbidden_calls_cost_the_worker_its_life() {
    let sandbox = sandbox();
    let pool = pool(&sandbox);
    for which in 0..6 {
        let outcome = ask(&pool, WorkerKey(u128::from(which)), &[b's', which]);
        assert_eq!(outcome, Err(CallError::Died(Death::Forbidden)), "{which}");
    }
    assert!(!std::path::Path::new("/tmp/tine-sandbox-test").exists());
}

#[test]
fn ends_of_workers_are_told_apart() {
    let sandbox = sandbox();
    let pool = pool(&sandbox);
    let died = |request: &[u8], key: u128| match ask(&pool, WorkerKey(key), request) {
        Err(CallError::Died(death)) => death,
        other => panic!("{other:?}"),
    };
    assert_eq!(died(b"x", 1), Death::Exited(7));
    assert_eq!(died(b"p", 2), Death::Exited(71));
    assert_eq!(died(b"f", 3), Death::Killed(KillCause::LogFlood));
    // Whatever a failed allocation does, it ends there.
    assert!(!matches!(died(b"m", 4), Death::Killed(_)));
    assert_eq!(ask(&pool, WorkerKey(4), b"eagain").expect("a new worker"), b"again");
}

#[test]
fn a_hanging_request_is_killed_and_its_bystanders_are_not() {
    let sandbox = sandbox();
    let pool = pool(&sandbox);
    ask(&pool, KEY, b"e").expect("up");
    let started = Instant::now();
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| {
            let options = options().timeout(Duration::from_millis(100));
            pool.key(KEY).call_blocking(options, |writer| writer.write(b"h"))
        });
        std::thread::sleep(Duration::from_millis(20));
        let bystanders: Vec<_> = (0..8).map(|_| scope.spawn(|| ask(&pool, KEY, b"ewell"))).collect();
        assert_eq!(hanging.join().expect("no panic"), Err(CallError::TimedOut));
        for bystander in bystanders {
            assert_eq!(bystander.join().expect("no panic").expect("tried again"), b"well");
        }
    });
    assert!(started.elapsed() < PATIENCE);
    assert!(sandbox.metrics().retries() >= 1);
    assert_eq!(sandbox.metrics().killed(KillCause::Deadline), 1);
}

#[test]
fn a_request_that_waits_too_long_harms_nobody() {
    let sandbox = sandbox();
    let pool = pool(&sandbox);
    ask(&pool, KEY, b"e").expect("up");
    std::thread::scope(|scope| {
        let long = scope.spawn(|| ask(&pool, KEY, &[b'w', 250]));
        std::thread::sleep(Duration::from_millis(30));
        let short = options().timeout(Duration::from_millis(50));
        let late = pool.key(KEY).call_blocking(short, |writer| writer.write(b"e"));
        assert_eq!(late, Err(CallError::TimedOut));
        assert_eq!(long.join().expect("no panic").expect("done"), b"worked");
    });
    assert_eq!(pool.slots_in_use(KEY), 0);
    assert_eq!(ask(&pool, KEY, b"n").expect("the same worker"), 3u64.to_le_bytes());
}

#[test]
fn launches_that_fail_are_remembered_for_a_while() {
    let sandbox = sandbox();
    for (entry, expected) in [
        ("dies", LaunchError::Died(Death::Exited(9))),
        ("hangs", LaunchError::Deadline),
        ("nothing", LaunchError::NoEntry("nothing".to_owned())),
    ] {
        let pool_options =
            PoolOptions { launch_timeout: Duration::from_millis(300), spares: 0, ..PoolOptions::new(entry) };
        let pool = sandbox.pool(pool_options).expect("a pool");
        let Err(CallError::Launch { error, retry_after }) = ask(&pool, KEY, b"e") else { panic!("{entry} works") };
        assert_eq!(error, expected);
        assert!(retry_after >= Duration::from_millis(10));
        let launches = sandbox.metrics().launches();
        let started = Instant::now();
        let again = ask(&pool, KEY, b"e");
        if started.elapsed() < Duration::from_millis(9) {
            assert!(matches!(again, Err(CallError::Launch { .. })), "{again:?}");
            assert_eq!(sandbox.metrics().launches(), launches, "no second try so soon");
        }
    }
}

#[test]
fn workers_that_keep_dying_are_not_restarted_at_once() {
    let sandbox = sandbox();
    let pool = pool(&sandbox);
    let mut refused = 0;
    for _ in 0..50 {
        if matches!(ask(&pool, KEY, b"x"), Err(CallError::Launch { error: LaunchError::CrashLoop(_), .. })) {
            refused += 1;
        }
    }
    assert!(refused > 0, "a crash loop is noticed");
    assert_eq!(ask(&pool, WorkerKey(2), b"eother").expect("another key"), b"other");
    until("the key works again", || ask(&pool, KEY, b"eback").is_ok());
}

#[test]
fn lines_of_the_log_are_cut_and_named() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let log = Arc::new(move |line: LogLine<'_>| sink.lock().push((line.key, line.text.to_owned(), line.is_cut)));
    let sandbox = sandbox();
    let pool = sandbox.pool(PoolOptions { log: Some(log), ..PoolOptions::new("test") }).expect("a pool");
    ask(&pool, KEY, &[b'l', 2, 0]).expect("short lines");
    ask(&pool, KEY, &[b'l', 1, 20]).expect("a long one");
    until("three lines", || lines.lock().len() == 3);
    let lines = lines.lock();
    assert_eq!(lines[1], (Some(KEY), "line 1 ".to_owned(), false));
    assert_eq!((lines[2].1.len(), lines[2].2), (LogLine::BYTES_MAX, true));
}

#[test]
fn workers_call_back_and_replies_grow() {
    let sandbox = sandbox();
    let pool = pool(&sandbox);
    let key = pool.key(KEY);
    let options = CallOptions::new(16, 4).timeout(PATIENCE).attended(4, 1 << 20);
    let mut reply = Vec::new();
    let mut calls = Vec::new();
    let attend = |payload: &[u8], answer: &mut Vec<u8>| {
        calls.push(payload.to_vec());
        answer.extend_from_slice(payload);
        answer.extend_from_slice(b"0123456789");
        Ok(())
    };
    key.call_attended(options, |writer| writer.write(&[b'c', 3]), attend, &mut reply).expect("a reply");
    assert_eq!(calls, [[0; 3], [1; 3], [2; 3]]);
    assert_eq!(reply, b"\0\0\x000123456789\x01\x01\x010123456789\x02\x02\x020123456789");

    let doubled = |payload: &[u8], answer: &mut Vec<u8>| {
        answer.extend(payload.iter().map(|byte| byte.wrapping_mul(2)));
        Ok(())
    };
    let options = CallOptions::new(16, 4_096).timeout(PATIENCE).attended(4_096, 1 << 20);
    key.call_attended(options, |writer| writer.write(b"C"), doubled, &mut reply).expect("a reply");
    assert_eq!(reply, (0..100_000u32).map(|number| (number as u8).wrapping_mul(2)).collect::<Vec<_>>());

    let abort = |_: &[u8], _: &mut Vec<u8>| Err(Abort);
    let outcome = key.call_attended(options, |writer| writer.write(&[b'c', 1]), abort, &mut reply);
    assert_eq!(outcome, Err(CallError::Cancelled(KillCause::Aborted)));
    assert_eq!(ask(&pool, KEY, b"eon").expect("a new worker"), b"on");
    assert_eq!(pool.slots_in_use(KEY), 0);
}

#[test]
fn sizes_have_bounds() {
    let sandbox = sandbox();
    let shape = Shape::new(2, 4_096, 16_384).expect("good");
    let pool = sandbox.pool(PoolOptions { shape, ..PoolOptions::new("test") }).expect("a pool");
    let key = pool.key(KEY);
    let echo = |bytes: usize, reply: u32| {
        let request = [b"e", &vec![7u8; bytes][..]].concat();
        let options = CallOptions::new(request.len() as u32, reply).timeout(PATIENCE);
        key.call_blocking(options, |writer| writer.write(&request)).map(|reply| reply.bytes.len())
    };
    assert_eq!(echo(8_000, 8_000), Ok(8_000), "through the arena");
    assert_eq!(echo(100, 99), Err(CallError::ReplyTooLarge { max: 99 }));
    assert!(matches!(echo(10_000, 10_000), Err(CallError::TooLarge { max: 16_384, .. })));
    let outcome = key.call_blocking(CallOptions::new(3, 3), |writer| writer.write(b"four"));
    assert!(matches!(outcome, Err(CallError::TooLarge { max: 3, .. })), "{outcome:?}");
    assert_eq!(pool.slots_in_use(KEY), 0);
}

#[test]
fn the_cap_evicts_who_was_unused_longest() {
    let sandbox = Sandbox::start(SandboxOptions { workers_max: 3, ..SandboxOptions::default() }).expect("started");
    let pool = sandbox.pool(PoolOptions { spares: 0, ..PoolOptions::new("test") }).expect("a pool");
    for key in 0..6 {
        assert_eq!(ask(&pool, WorkerKey(key), b"n").expect("a worker"), 1u64.to_le_bytes());
        assert!(sandbox.workers().len() <= 3);
    }
    assert_eq!(ask(&pool, WorkerKey(5), b"n").expect("still there"), 2u64.to_le_bytes());
    assert_eq!(ask(&pool, WorkerKey(0), b"n").expect("a new one"), 1u64.to_le_bytes());
    assert_eq!(sandbox.metrics().killed(KillCause::Evicted), 4);
}

#[test]
fn idle_workers_end() {
    let sandbox = sandbox();
    let idle_max = Duration::from_millis(50);
    let pool = sandbox.pool(PoolOptions { idle_max, spares: 0, ..PoolOptions::new("test") }).expect("a pool");
    ask(&pool, KEY, b"e").expect("up");
    until("the worker ended", || sandbox.metrics().workers() == 0);
    assert_eq!(sandbox.metrics().killed(KillCause::Idle), 1);
    ask(&pool, KEY, b"e").expect("and comes again");
    let usage = sandbox.workers()[0].usage.expect("it is alive");
    assert!(usage.resident_bytes > 0);
}

#[test]
fn shutting_down_cancels() {
    let sandbox = sandbox();
    let pool = pool(&sandbox);
    ask(&pool, KEY, b"e").expect("up");
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| ask(&pool, KEY, b"h"));
        std::thread::sleep(Duration::from_millis(50));
        sandbox.shut_down(PATIENCE).expect("all reaped");
        assert_eq!(hanging.join().expect("no panic"), Err(CallError::Cancelled(KillCause::ShutDown)));
    });
    assert_eq!(ask(&pool, KEY, b"e"), Err(CallError::Cancelled(KillCause::ShutDown)));
    assert_eq!((sandbox.metrics().workers(), sandbox.metrics().in_flight()), (0, 0));
}
