//! Disks that fail while the store is open.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tine_base::{FaultEnv, SystemEnv};
use tine_store::{Commit, Durability, DurableTicket, ForkError, ForkId, Read, Store, StoreError, WriteError};

use crate::support::{KEYSPACE, WAIT, assert_equals_log, fork_options, open, options, put_one, snapshot_content};

fn faulty(directory: &Path) -> (Store, FaultEnv) {
    let env = FaultEnv::new(Arc::new(SystemEnv));
    let store = Store::open(options(directory), Arc::new(env.clone())).expect("open");
    (store, env)
}

fn commit_number(store: &Store, number: u64) -> Result<Commit, WriteError> {
    let mut writer = store.writer(ForkId::MAIN)?;
    writer.put(KEYSPACE, &number.to_be_bytes(), &[7; 100])?;
    writer.commit(b"")
}

/// Everything that writes answers with the poison's code; everything that reads goes on.
fn assert_read_only(store: &Store, code: &str, expected: &crate::support::State) {
    assert_eq!(store.health().expect_err("poisoned").code(), code);
    let fork = store.fork(ForkId::MAIN, fork_options("x", Durability::Durable)).expect_err("read-only");
    assert!(matches!(fork, ForkError::Store(StoreError::Poisoned(_))));
    let ephemeral = store.fork(ForkId::MAIN, fork_options("x", Durability::Ephemeral)).expect_err("read-only");
    assert_eq!(ephemeral.code(), code);
    assert_eq!(store.rename_fork(ForkId::MAIN, "other").expect_err("read-only").code(), code);
    assert_eq!(store.drop_fork(ForkId::MAIN).expect_err("read-only").code(), code);
    assert_eq!(store.writer(ForkId::MAIN).map(|_| ()).expect_err("read-only").code(), code);
    assert_eq!(store.allocate_keyspaces(1).expect_err("read-only").code(), code);
    assert_eq!(store.append_call(ForkId::MAIN, b"call").expect_err("read-only").code(), code);
    assert!(snapshot_content(store, ForkId::MAIN) == *expected);
}

#[test]
fn failed_sync_makes_the_store_read_only_and_confirms_nothing() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (store, env) = faulty(directory.path());
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    store.on_poisoned(Box::new(move |poison| {
        assert!(!poison.disk_full);
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    let confirmed = commit_number(&store, 1).expect("commit");
    store.wait_durable(confirmed.durable, WAIT).expect("durable");
    let confirmed_state = snapshot_content(&store, ForkId::MAIN);

    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    env.fail_sync_after(0);
    writer.put(KEYSPACE, b"lost", b"value").expect("memory takes it");
    let lost = writer.commit(b"").expect("handed to the log");
    let error = store.wait_durable(lost.durable, WAIT).expect_err("never durable");
    assert_eq!(error.code(), "TN0212");
    assert_eq!(store.durable(), confirmed.durable);

    // A refused commit leaves no trace in the writer's state.
    writer.put(KEYSPACE, b"refused", b"value").expect("memory takes it");
    assert_eq!(writer.commit(b"").expect_err("read-only").code(), "TN0212");
    assert!(!writer.has_changes());
    assert!(writer.get(KEYSPACE, b"refused").expect("in memory").is_none());
    assert_eq!(writer.version().lsn, lost.lsn);
    drop(writer);

    let mut with_lost = confirmed_state.clone();
    with_lost.insert((KEYSPACE.get(), b"lost".to_vec()), b"value".to_vec());
    assert_read_only(&store, "TN0212", &with_lost);
    // A working disk does not make it writable again: what the kernel dropped is unknown.
    env.clear();
    assert_read_only(&store, "TN0212", &with_lost);
    assert_eq!(store.durable(), confirmed.durable);
    assert_eq!(store.close().expect_err("not everything is durable").code(), "TN0212");
    assert_eq!(calls.load(Ordering::SeqCst), 1);

    let store = open(directory.path()).expect("open");
    let state = snapshot_content(&store, ForkId::MAIN);
    assert!(state == confirmed_state || state == with_lost, "a prefix that holds all that was confirmed");
    assert_equals_log(&store, directory.path(), Arc::new(SystemEnv));
}

#[test]
fn late_listener_hears_of_an_old_failure() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (store, env) = faulty(directory.path());
    env.fail_sync_after(0);
    let ticket = commit_number(&store, 1).expect("commit").durable;
    store.wait_durable(ticket, WAIT).expect_err("never durable");
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    store.on_poisoned(Box::new(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn full_disk_loses_nothing_confirmed() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (store, env) = faulty(directory.path());
    env.disk_full(true);
    let mut confirmed = 0;
    let code = loop {
        let result = commit_number(&store, confirmed + 1).map_err(|error| error.code());
        let waited = result.and_then(|commit| store.wait_durable(commit.durable, WAIT).map_err(|error| error.code()));
        match waited {
            Ok(()) => confirmed += 1,
            Err(code) => break code,
        }
        assert!(confirmed < 100_000, "segments need room");
    };
    assert_eq!(code, "TN0217");
    assert!(confirmed > 5, "the segment made ahead was used: {confirmed}");
    assert_eq!(store.health().expect_err("poisoned").code(), "TN0217");
    assert!(store.snapshot(ForkId::MAIN).expect("reads go on").len(KEYSPACE) >= confirmed);
    store.close().expect_err("not everything is durable");

    // Still full: the state can be read, and what was there before it filled up can be used.
    let env = FaultEnv::new(Arc::new(SystemEnv));
    let store = Store::open(options(directory.path()), Arc::new(env.clone())).expect("room again");
    let snapshot = store.snapshot(ForkId::MAIN).expect("snapshot");
    for number in 1..=confirmed {
        assert!(snapshot.get(KEYSPACE, &number.to_be_bytes()).expect("in memory").is_some(), "{number}");
    }
    put_one(&store, ForkId::MAIN, b"more", b"room");
    assert_equals_log(&store, directory.path(), Arc::new(SystemEnv));
}

/// Writes that stop anywhere in a frame leave a store that opens with everything confirmed.
#[test]
fn short_writes_lose_nothing_confirmed() {
    for (bytes, direct) in (0..9000).step_by(709).flat_map(|bytes| [(bytes, true), (bytes, false)]) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let env = FaultEnv::new(Arc::new(SystemEnv));
        env.refuse_direct(!direct);
        let store = Store::open(options(directory.path()), Arc::new(env.clone())).expect("open");
        env.short_write_after(bytes);
        let mut confirmed = 0;
        while let Ok(commit) = commit_number(&store, confirmed + 1) {
            if store.wait_durable(commit.durable, WAIT).is_err() {
                break;
            }
            confirmed += 1;
        }
        assert_eq!(store.health().expect_err("poisoned").code(), "TN0212");
        assert_eq!(confirmed, bytes / 4096, "each frame has a block");
        drop(store);
        let store = open(directory.path()).expect("a torn frame is no damage");
        // All that matters of a frame may be there when its padding is not.
        let found = store.snapshot(ForkId::MAIN).expect("snapshot").len(KEYSPACE);
        assert!((confirmed..=confirmed + 1).contains(&found), "{found} of {confirmed}");
        assert_equals_log(&store, directory.path(), Arc::new(SystemEnv));
    }
}

#[test]
fn writers_wait_for_a_slow_disk_and_the_queue_stays_bounded() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (store, env) = faulty(directory.path());
    env.sync_delay(Duration::from_millis(30));
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    let mut ticket = DurableTicket::NONE;
    for number in 0..60_u64 {
        writer.put(KEYSPACE, &[1], &vec![number as u8; 1 << 20]).expect("put");
        ticket = writer.commit(b"").expect("commit").durable;
        let stats = store.stats();
        assert!(stats.queue_bytes <= stats.queue_bytes_max, "{stats:?}");
    }
    assert!(store.stats().queue_waits > 0, "60 MiB do not fit into the queue");
    env.clear();
    store.wait_durable(ticket, WAIT).expect("durable");
    assert!(store.stats().frames < 60, "records share frames");
}

#[test]
fn waiters_blocked_on_a_failing_log_are_released() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (store, env) = faulty(directory.path());
    env.sync_delay(Duration::from_millis(50));
    env.fail_sync_after(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..8_u64 {
            let store = &store;
            scope.spawn(move || {
                let fork = store.append_call(ForkId::MAIN, &number.to_be_bytes());
                if let Ok(ticket) = fork {
                    assert_eq!(store.wait_durable(ticket, WAIT).expect_err("poisoned").code(), "TN0212");
                }
            });
        }
    });
    assert!(started.elapsed() < WAIT / 2);
}

#[test]
fn clock_that_goes_back_does_not_turn_commit_times_back() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (store, env) = faulty(directory.path());
    let first = commit_number(&store, 1).expect("commit").timestamp_micros;
    env.clock_offset_micros(-3_600_000_000);
    let second = commit_number(&store, 2).expect("commit").timestamp_micros;
    assert_eq!(second, first + 1);
    drop(store);
    let (store, env) = faulty(directory.path());
    env.clock_offset_micros(-3_600_000_000);
    assert_eq!(commit_number(&store, 3).expect("commit").timestamp_micros, first + 2);
    let (fork, _) = store.fork(ForkId::MAIN, fork_options("x", Durability::Durable)).expect("fork");
    let mut writer = store.writer(fork.id).expect("writer");
    writer.put(KEYSPACE, b"k", b"v").expect("put");
    assert_eq!(writer.commit(b"").expect("commit").timestamp_micros, first + 3);
}
