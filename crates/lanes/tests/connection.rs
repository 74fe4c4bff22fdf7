//! What a connection keeps: its quota, the order of its replies, and the newest state it has seen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use tine_lanes::{Horizon, Overtaken, Quota, Sequencer};

#[test]
fn a_quota_bounds_requests_and_bytes() {
    // Each step: bytes to take, and whether there is room; negative gives back.
    type Step = (i64, bool);
    let cases: &[(usize, usize, &[Step])] = &[
        (2, 100, &[(1, true), (1, true), (1, false), (-1, true), (1, true)]),
        (10, 100, &[(60, true), (60, false), (40, true), (1, false), (-60, true), (60, true)]),
        (1, 10, &[(11, false), (10, true)]),
    ];
    for (requests_max, bytes_max, steps) in cases {
        let quota = Quota::new(*requests_max, *bytes_max);
        for (bytes, expected) in *steps {
            match usize::try_from(*bytes) {
                Ok(bytes) => assert_eq!(quota.take(bytes), *expected, "{steps:?}"),
                Err(_) => quota.give_back(bytes.unsigned_abs() as usize),
            }
        }
    }
}

#[test]
fn replies_leave_in_the_order_of_their_requests() {
    let sequencer = Arc::new(Sequencer::default());
    let delivered = Arc::new(Mutex::new(Vec::new()));
    let places: Vec<_> = (0..1_000u32).map(|number| (number, sequencer.reserve())).collect();
    assert_eq!(sequencer.waiting(), 1_000);
    let threads: Vec<_> = (0..4usize)
        .map(|thread| {
            let (sequencer, delivered) = (sequencer.clone(), delivered.clone());
            let mut mine: Vec<_> = places.iter().skip(thread).step_by(4).copied().collect();
            mine.reverse();
            thread::spawn(move || {
                for (number, place) in mine {
                    sequencer.fill(place, number, |reply| delivered.lock().expect("sound").push(reply));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("filled"));
    assert_eq!(*delivered.lock().expect("sound"), (0..1_000).collect::<Vec<u32>>());
    assert_eq!(sequencer.waiting(), 0);
}

#[test]
fn a_committed_read_never_shows_the_past() {
    let horizon = Horizon::default();
    horizon.deliver(7, || {});
    assert_eq!(horizon.deliver_committed(6, || ()), Err(Overtaken { seen: 7 }));
    assert_eq!(horizon.deliver_committed(7, || "same"), Ok("same"));
    // A lane reply of an older version than a committed read has shown does not lower the horizon.
    assert_eq!(horizon.deliver_committed(9, || "newer"), Ok("newer"));
    horizon.deliver(8, || {});
    assert_eq!(horizon.seen(), 9);
}

#[test]
fn a_read_pipelined_behind_commits_is_read_again_when_overtaken() {
    let horizon = Horizon::default();
    let published = AtomicU64::new(1);
    let mut attempts = 0;
    let outcome = horizon.read_committed(
        || (published.load(Ordering::Relaxed), ()),
        |()| {
            attempts += 1;
            if attempts < 3 {
                // A commit of the same connection is published and answered while the read runs.
                let version = published.fetch_add(1, Ordering::Relaxed) + 1;
                horizon.deliver(version, || {});
            }
        },
        |version, ()| assert_eq!(version, 3),
    );
    assert_eq!((outcome, attempts), (Ok(()), 3));

    let always = horizon.read_committed(
        || (published.load(Ordering::Relaxed), ()),
        |()| horizon.deliver(published.fetch_add(1, Ordering::Relaxed) + 1, || {}),
        |_, ()| panic!("never delivered"),
    );
    assert!(always.is_err(), "gives up, so that the caller queues it on the lane");
}

/// A lane thread that publishes, then replies; a reader that bypasses it. What the connection sees only grows.
#[test]
fn what_a_connection_sees_only_grows() {
    const COMMITS: u64 = 20_000;
    let horizon = Arc::new(Horizon::default());
    let published = Arc::new(AtomicU64::new(0));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let writer = {
        let (horizon, published, seen) = (horizon.clone(), published.clone(), seen.clone());
        thread::spawn(move || {
            for version in 1..=COMMITS {
                published.store(version, Ordering::Release);
                horizon.deliver(version, || seen.lock().expect("sound").push(version));
            }
        })
    };
    let mut bypassed = 0;
    while published.load(Ordering::Acquire) < COMMITS {
        let latest = || (published.load(Ordering::Acquire), ());
        let read = |(): &()| thread::yield_now();
        let delivered = horizon.read_committed(latest, read, |version, ()| seen.lock().expect("sound").push(version));
        bypassed += u64::from(delivered.is_ok());
    }
    writer.join().expect("wrote");
    let seen = seen.lock().expect("sound");
    assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]), "a connection went back in time");
    assert_eq!(seen.len() as u64, COMMITS + bypassed);
}
