//! Power failures at random instants under load.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tine_base::{Env, SystemEnv};
use tine_store::{Durability, ForkId, ImagePlace, KeyspaceId, Lsn, Read, Store, StoreOptions, Writer};

use crate::crash_env::CrashEnv;
use crate::support::{KEYSPACE, StopOnDrop, WAIT, assert_equals_log, fork_options, options};

const DIRECTORY: &str = "/store";

fn open(env: &CrashEnv) -> Store {
    // The machine has no place for images.
    let options = StoreOptions { images: ImagePlace::Nowhere, ..options(Path::new(DIRECTORY)) };
    Store::open(options, Arc::new(env.clone())).expect("a crash is no damage")
}

/// Each commit of a writer sets a counter and moves an amount between two accounts.
pub fn commit_next(writer: &mut Writer, number: u64) -> tine_store::Commit {
    writer.put(KEYSPACE, b"counter", &number.to_le_bytes()).expect("put");
    let moved = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    writer.put(KEYSPACE, b"left", &moved.to_le_bytes()).expect("put");
    writer.put(KEYSPACE, b"right", &(!moved).to_le_bytes()).expect("put");
    let history = (number % 50).to_le_bytes();
    if number.is_multiple_of(3) {
        writer.delete(KeyspaceId::new(21), &history).expect("delete");
    } else {
        writer.put(KeyspaceId::new(21), &history, &vec![number as u8; (number % 300) as usize]).expect("put");
    }
    writer.commit(b"a call").expect("commit")
}

fn number_of(reader: &impl Read, key: &[u8]) -> u64 {
    let value = reader.get(KEYSPACE, key).expect("in memory").expect("written by every commit");
    u64::from_le_bytes(value.as_slice().try_into().expect("8 bytes"))
}

/// What a crash must preserve on a fork: everything up to the confirmed LSN.
pub fn check_fork(store: &Store, fork: ForkId, confirmed: Lsn, issued: Lsn) {
    let Some(info) = store.fork_info(fork) else {
        panic!("{fork} was confirmed");
    };
    assert!(info.head >= confirmed, "{fork}: {} was confirmed, {} is there", confirmed, info.head);
    assert!(info.head <= issued);
    if info.head.get() > 0 {
        let snapshot = store.snapshot(fork).expect("snapshot");
        assert_eq!(number_of(&snapshot, b"counter"), info.head.get(), "a state is one of the commits'");
        assert_eq!(number_of(&snapshot, b"left"), !number_of(&snapshot, b"right"), "a commit is all or nothing");
    }
}

#[derive(Default)]
struct Progress {
    /// Per fork: confirmed and issued LSN.
    forks: std::collections::BTreeMap<ForkId, (Lsn, Lsn)>,
}

#[test]
fn power_failures_under_load_lose_nothing_confirmed() {
    let env = CrashEnv::default();
    let store = open(&env);
    let progress = Arc::new(Mutex::new(Progress::default()));
    let stop = AtomicBool::new(false);
    let second = store.fork(ForkId::MAIN, fork_options("second", Durability::Durable)).expect("fork");
    store.wait_durable(second.1, WAIT).expect("durable");
    std::thread::scope(|scope| {
        for fork in [ForkId::MAIN, second.0.id] {
            progress.lock().forks.insert(fork, (Lsn::new(0), Lsn::new(0)));
            let (store, stop, progress) = (store.clone(), &stop, Arc::clone(&progress));
            scope.spawn(move || {
                let mut writer = store.writer(fork).expect("writer");
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    progress.lock().forks.get_mut(&fork).expect("known").1 = Lsn::new(number);
                    let commit = commit_next(&mut writer, number);
                    assert_eq!(commit.lsn.get(), number);
                    if number.is_multiple_of(7) {
                        store.wait_durable(commit.durable, WAIT).expect("durable");
                        progress.lock().forks.get_mut(&fork).expect("known").0 = commit.lsn;
                        writer.publish();
                        std::thread::sleep(Duration::from_millis(4));
                    }
                }
            });
        }
        let _stop = StopOnDrop(&stop);
        for seed in 0..25 {
            std::thread::sleep(Duration::from_millis(3));
            let confirmed: Vec<(ForkId, Lsn)> =
                progress.lock().forks.iter().map(|(fork, (confirmed, _))| (*fork, *confirmed)).collect();
            let after = env.crash(seed);
            let issued: Vec<Lsn> = progress.lock().forks.values().map(|(_, issued)| *issued).collect();
            let recovered = open(&after);
            for ((fork, confirmed), issued) in confirmed.into_iter().zip(issued) {
                check_fork(&recovered, fork, confirmed, issued);
            }
            assert_equals_log(&recovered, Path::new(DIRECTORY), Arc::new(after.clone()));
            crash_again(recovered, &after, seed);
        }
    });
    assert!(progress.lock().forks.values().all(|(confirmed, _)| confirmed.get() > 20), "the load ran");
}

/// The recovered store takes commits and survives another failure right away.
fn crash_again(store: Store, env: &CrashEnv, seed: u64) {
    let head = store.fork_info(ForkId::MAIN).expect("main").head;
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    let confirmed = commit_next(&mut writer, head.get() + 1);
    store.wait_durable(confirmed.durable, WAIT).expect("durable");
    let issued = commit_next(&mut writer, head.get() + 2);
    let after = env.crash(seed + 1);
    drop((writer, store));
    let recovered = open(&after);
    check_fork(&recovered, ForkId::MAIN, confirmed.lsn, issued.lsn);
}

/// A failure at every instant of a store's first moments leaves something that opens.
#[test]
fn power_failures_while_a_store_is_created() {
    let env = CrashEnv::default();
    std::thread::scope(|scope| {
        let env_of_store = env.clone();
        let opening = scope.spawn(move || (0..20).for_each(|_| drop(open(&env_of_store))));
        let mut seed = 1000;
        while !opening.is_finished() {
            seed += 1;
            let store = open(&env.crash(seed));
            assert!(store.fork_named("main") == Some(ForkId::MAIN));
        }
    });
}

/// A log can be read while its writer is at work: always a prefix, never an error.
#[test]
fn reading_a_live_log() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let options = StoreOptions { segment_bytes_max: 65_536, ..options(directory.path()) };
    let store = Store::open(options, Arc::new(SystemEnv)).expect("open");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (writing, stop) = (store.clone(), &stop);
        scope.spawn(move || {
            let mut writer = writing.writer(ForkId::MAIN).expect("writer");
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                commit_next(&mut writer, number);
                if number.is_multiple_of(64) {
                    writing.wait_durable(writing.stats().appended, WAIT).expect("durable");
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        let _stop = StopOnDrop(stop);
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        let mut follower = Store::read_log(directory.path(), Arc::clone(&env)).expect("readable");
        let mut next = 1;
        let deadline = std::time::Instant::now() + WAIT;
        while store.stats().segment < 8 {
            assert!(std::time::Instant::now() < deadline, "the writer writes");
            let durable = store.durable().get();
            let read = Store::read_log(directory.path(), Arc::clone(&env)).expect("readable");
            let count = read.inspect(|record| assert!(record.is_ok(), "{record:?}")).count() as u64;
            assert!(count >= durable, "what is durable is there");
            for record in follower.by_ref() {
                assert_eq!(record.expect("no damage").sequence, next);
                next += 1;
            }
            assert!(next > count.min(durable), "a reader that reached the end goes on when there is more");
        }
    });
}

/// After a failed sync the frame can be read back although it never reached the disk. What a reopened store
/// shows must be on disk before anything is built on it.
#[test]
fn what_is_recovered_after_a_failed_sync_is_made_durable() {
    for seed in 0..20 {
        let env = CrashEnv::default();
        let store = open(&env);
        let mut writer = store.writer(ForkId::MAIN).expect("writer");
        store.wait_durable(commit_next(&mut writer, 1).durable, WAIT).expect("durable");
        // Several sectors, of which what is written next shares only the last.
        writer.put(KEYSPACE, b"large", &[7; 3000]).expect("put");
        env.fail_syncs(true);
        let lost = commit_next(&mut writer, 2).durable;
        store.wait_durable(lost, WAIT).expect_err("the disk refuses");
        drop((writer, store));
        env.fail_syncs(false);
        let store = open(&env);
        assert_eq!(store.fork_info(ForkId::MAIN).expect("main").head, Lsn::new(2), "still readable");
        let mut writer = store.writer(ForkId::MAIN).expect("writer");
        let next = commit_next(&mut writer, 3);
        store.wait_durable(next.durable, WAIT).expect("durable");
        let recovered = open(&env.crash(seed));
        check_fork(&recovered, ForkId::MAIN, Lsn::new(3), Lsn::new(3));
    }
}
