//! Forks: creation, names, lives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tine_base::SystemEnv;
use tine_store::{Durability, DurableTicket, ForkId, KeyspaceId, Lsn, OpenError, Store, StoreError, Version};

use crate::support::{
    KEYSPACE, WAIT, assert_equals_log, content, fork_options, open, put_one, settle, snapshot_content,
};

#[test]
fn new_store_has_an_empty_main_fork() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(&directory.path().join("made/on/demand")).expect("open");
    let forks = store.forks();
    assert_eq!(forks.len(), 1);
    assert_eq!((forks[0].id, forks[0].name.as_str(), forks[0].head), (ForkId::MAIN, "main", Lsn::new(0)));
    assert_eq!((forks[0].parent, forks[0].durability), (None, Durability::Durable));
    assert!(forks[0].created_at_micros > 1_600_000_000_000_000);
    assert_eq!(store.fork_named("main"), Some(ForkId::MAIN));
    let snapshot = store.snapshot(ForkId::MAIN).expect("snapshot");
    assert_eq!((snapshot.timestamp_micros(), content(&snapshot).len()), (0, 0));
}

#[test]
fn second_open_is_refused_until_the_first_closes() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let error = open(directory.path()).expect_err("in use");
    assert!(matches!(&error, OpenError::Locked { path } if path.ends_with("LOCK")), "{error:?}");
    assert_eq!(error.code(), "TN0202");
    put_one(&store, ForkId::MAIN, b"key", b"value");
    let clone = store.clone();
    drop(store);
    open(directory.path()).expect_err("a handle is left");
    clone.close().expect("close");
    clone.close().expect("closing again does nothing");
    let store = open(directory.path()).expect("closed");
    assert_eq!(snapshot_content(&store, ForkId::MAIN).len(), 1);
    // The closed handle reads on, and writes nothing.
    assert_eq!(snapshot_content(&clone, ForkId::MAIN).len(), 1);
    assert_eq!(clone.writer(ForkId::MAIN).map(|_| ()).expect_err("closed").code(), "TN0213");
}

#[test]
fn forks_are_isolated_and_outlive_their_parents() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    put_one(&store, ForkId::MAIN, b"shared", b"1");
    put_one(&store, ForkId::MAIN, b"main", b"1");
    let (child, _) = store.fork(ForkId::MAIN, fork_options("child", Durability::Durable)).expect("fork");
    assert_eq!(child.parent, Some(Version { fork: ForkId::MAIN, lsn: Lsn::new(2) }));
    assert_eq!(put_one(&store, child.id, b"child", b"1"), Lsn::new(3), "continues at n+1");
    assert_eq!(put_one(&store, ForkId::MAIN, b"main", b"2"), Lsn::new(3));
    let (grandchild, _) = store.fork(child.id, fork_options("grandchild", Durability::Durable)).expect("fork");
    put_one(&store, grandchild.id, b"shared", b"9");
    store.drop_fork(child.id).expect("drop");
    store.drop_fork(ForkId::MAIN).expect("the store has no opinion on main");
    let expect = |store: &Store| {
        let state = snapshot_content(store, grandchild.id);
        let value = |key: &[u8]| state.get(&(KEYSPACE.get(), key.to_vec())).map(Vec::as_slice);
        assert_eq!(
            (value(b"shared"), value(b"main"), value(b"child")),
            (Some(&b"9"[..]), Some(&b"1"[..]), Some(&b"1"[..]))
        );
        assert_eq!(store.forks().len(), 1);
    };
    expect(&store);
    store.close().expect("close");
    let store = open(directory.path()).expect("open");
    expect(&store);
    assert_eq!(put_one(&store, grandchild.id, b"more", b"1"), Lsn::new(5));
    assert_equals_log(&store, directory.path(), Arc::new(SystemEnv));
}

/// A fork starts from what is published, also when recovery finds later commits of the parent before it.
#[test]
fn fork_of_a_fork_point_behind_unpublished_commits_recovers() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    put_one(&store, ForkId::MAIN, b"a", b"1");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    for value in 2..10_u8 {
        writer.put(KEYSPACE, b"a", &[value]).expect("put");
        writer.commit(b"").expect("commit");
    }
    let (early, _) = store.fork(ForkId::MAIN, fork_options("early", Durability::Durable)).expect("fork");
    let (early_child, _) = store.fork(early.id, fork_options("early child", Durability::Durable)).expect("fork");
    assert_eq!((early.head, early_child.head), (Lsn::new(1), Lsn::new(1)));
    writer.publish();
    let (late, _) = store.fork(ForkId::MAIN, fork_options("late", Durability::Durable)).expect("fork");
    assert_eq!(late.head, Lsn::new(9));
    drop(writer);
    let states: Vec<_> = [early.id, early_child.id, late.id].map(|fork| snapshot_content(&store, fork)).into();
    assert_ne!(states[0], states[2]);
    store.close().expect("close");
    let store = open(directory.path()).expect("open");
    for (fork, state) in [early.id, early_child.id, late.id].into_iter().zip(states) {
        assert!(snapshot_content(&store, fork) == state);
    }
    assert_equals_log(&store, directory.path(), Arc::new(SystemEnv));
}

#[test]
fn names_are_unique_and_move() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let (fork, _) = store.fork(ForkId::MAIN, fork_options("one", Durability::Durable)).expect("fork");
    let taken = store.fork(ForkId::MAIN, fork_options("one", Durability::Ephemeral)).expect_err("taken");
    assert_eq!(taken.code(), "TN0220");
    assert_eq!(store.rename_fork(fork.id, "main").expect_err("taken").code(), "TN0220");
    store.rename_fork(fork.id, "one").expect("its own name");
    store.rename_fork(ForkId::MAIN, "old main").expect("rename");
    store.rename_fork(fork.id, "main").expect("free now");
    let long = "x".repeat(tine_store::FORK_NAME_BYTES_MAX + 1);
    assert_eq!(store.rename_fork(fork.id, &long).expect_err("too long").code(), "TN0221");
    assert_eq!(store.fork(fork.id, fork_options(&long, Durability::Durable)).expect_err("too long").code(), "TN0221");
    store.close().expect("close");
    let store = open(directory.path()).expect("open");
    assert_eq!((store.fork_named("main"), store.fork_named("old main")), (Some(fork.id), Some(ForkId::MAIN)));
    assert_eq!(store.fork_named("one"), None);
}

#[test]
fn ephemeral_forks_leave_nothing_but_their_numbers() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    put_one(&store, ForkId::MAIN, b"a", b"1");
    settle(&store);
    let appended = store.stats().appended;
    let (fork, ticket) = store.fork(ForkId::MAIN, fork_options("e", Durability::Ephemeral)).expect("fork");
    assert_eq!(ticket, DurableTicket::NONE);
    let (child, _) = store.fork(fork.id, fork_options("ee", Durability::Durable)).expect("fork");
    assert_eq!(child.durability, Durability::Ephemeral, "descendants of an ephemeral fork are ephemeral");
    let mut writer = store.writer(child.id).expect("writer");
    writer.put(KEYSPACE, b"a", b"2").expect("put");
    let commit = writer.commit(b"call").expect("commit");
    assert_eq!((commit.lsn, commit.durable), (Lsn::new(2), DurableTicket::NONE));
    drop(writer);
    assert_eq!(store.append_call(child.id, b"call").expect("not logged"), DurableTicket::NONE);
    store.rename_fork(child.id, "renamed").expect("rename");
    store.drop_fork(fork.id).expect("drop");
    assert_eq!(snapshot_content(&store, child.id)[&(KEYSPACE.get(), b"a".to_vec())], b"2");
    assert_eq!(store.stats().appended, appended, "nothing was logged");
    store.close().expect("close");
    let store = open(directory.path()).expect("open");
    assert_eq!(store.forks().len(), 1);
    let (after, _) = store.fork(ForkId::MAIN, fork_options("e", Durability::Durable)).expect("fork");
    assert!(after.id > child.id, "fork numbers are never used again");
    store.drop_fork(child.id).expect("dropping what is gone is fine");
    let never = ForkId::new(after.id.get() + 1);
    assert_eq!(store.drop_fork(never).expect_err("never existed").code(), "TN0210");
}

#[test]
fn writer_is_exclusive_and_meets_the_end_of_its_fork() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let (fork, _) = store.fork(ForkId::MAIN, fork_options("one", Durability::Durable)).expect("fork");
    let mut writer = store.writer(fork.id).expect("writer");
    assert!(matches!(store.writer(fork.id), Err(StoreError::WriterBusy(id)) if id == fork.id));
    store.writer(ForkId::MAIN).expect("other forks have their own");
    writer.put(KEYSPACE, b"a", b"1").expect("put");
    writer.commit(b"").expect("commit");
    writer.put(KEYSPACE, b"b", b"1").expect("put");
    store.drop_fork(fork.id).expect("drop");
    assert_eq!(writer.commit(b"").expect_err("dropped").code(), "TN0233");
    assert_eq!(writer.commit(b"call").expect_err("dropped").code(), "TN0233");
    assert_eq!(content(&writer).len(), 1, "rolled back");
    drop(writer);
    assert_eq!(store.writer(fork.id).map(|_| ()).expect_err("dropped").code(), "TN0210");
    assert_eq!(store.append_call(fork.id, b"").expect_err("dropped").code(), "TN0210");
    store.close().expect("close");
    assert_eq!(open(directory.path()).expect("open").forks().len(), 1);
}

#[test]
fn keyspaces_are_allocated_once() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    assert_eq!(store.allocate_keyspaces(3).expect("allocate"), KeyspaceId::new(16));
    assert_eq!(store.allocate_keyspaces(1).expect("allocate"), KeyspaceId::new(19));
    store.close().expect("close");
    let store = open(directory.path()).expect("open");
    assert_eq!(store.allocate_keyspaces(u32::MAX - 20).expect("allocate"), KeyspaceId::new(20));
    assert_eq!(store.allocate_keyspaces(1).expect("the last"), KeyspaceId::new(u32::MAX));
    assert_eq!(store.allocate_keyspaces(1).expect_err("none left").code(), "TN0215");
    store.close().expect("close");
    let store = open(directory.path()).expect("open");
    assert_eq!(store.allocate_keyspaces(1).expect_err("none left").code(), "TN0215");
}

#[test]
fn waiting_for_what_never_comes_times_out() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    settle(&store);
    let beyond = DurableTicket::new(store.stats().appended.get() + 1);
    let started = Instant::now();
    let error = store.wait_durable(beyond, Duration::from_millis(30)).expect_err("nothing comes");
    assert_eq!(error.code(), "TN0214");
    assert!(started.elapsed() >= Duration::from_millis(30));
    store.wait_durable(DurableTicket::NONE, Duration::ZERO).expect("nothing to wait for");
    store.close().expect("close");
    assert_eq!(store.wait_durable(beyond, WAIT).expect_err("closed").code(), "TN0213");
}

#[test]
fn progress_and_report_of_recovery() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    assert_eq!(store.recovery_report().records, 0);
    for number in 0..100_u8 {
        put_one(&store, ForkId::MAIN, &[number], &[number; 200]);
        if number % 10 == 0 {
            // One frame for everything would be one segment.
            settle(&store);
        }
    }
    store.append_call(ForkId::MAIN, b"failed").expect("call");
    store.close().expect("close");
    let mut last = None;
    let store =
        Store::open_with_progress(crate::support::options(directory.path()), Arc::new(SystemEnv), &mut |progress| {
            last = Some(progress)
        })
        .expect("open");
    let last = last.expect("told at least once");
    assert_eq!(last.bytes_done, last.bytes_total);
    assert!(last.bytes_total > 20_000);
    let report = store.recovery_report();
    // The main fork, the reservation of fork numbers, 100 commits and a call.
    assert_eq!((report.records, report.commits, report.truncated_bytes), (103, 100, 0));
    assert!(report.segments > 1);
}
