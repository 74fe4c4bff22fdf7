//! Readers, writers of several forks and forking at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tine_base::SystemEnv;
use tine_store::{Durability, ForkId, Read, Store};

use crate::support::{KEYSPACE, StopOnDrop, WAIT, assert_equals_log, fork_options, open, settle};

const ACCOUNTS: u16 = 500;
const TOTAL: u64 = 1_000_000;

/// Moves an amount between two accounts in one transaction.
fn transfer(store: &Store, fork: ForkId, rounds: u64) {
    let mut writer = store.writer(fork).expect("writer");
    let mut random = fork.get();
    for round in 0..rounds {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (from, to) = ((random >> 40) as u16 % ACCOUNTS, (random >> 50) as u16 % ACCOUNTS);
        for (account, amount) in [(from, 5_u64.wrapping_neg()), (to, 5)] {
            let key = account.to_be_bytes();
            let balance = u64::from_le_bytes(
                writer
                    .get(KEYSPACE, &key)
                    .expect("in memory")
                    .expect("account")
                    .as_slice()
                    .try_into()
                    .expect("8 bytes"),
            );
            writer.put(KEYSPACE, &key, &balance.wrapping_add(amount).to_le_bytes()).expect("put");
        }
        writer.commit(b"transfer").expect("commit");
        if round % 3 == 0 {
            writer.publish();
        }
    }
}

fn total(reader: &impl Read) -> u64 {
    let mut cursor =
        reader.range(KEYSPACE, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded, tine_store::Direction::Forward);
    let mut total = 0_u64;
    while let Some((_, value)) = cursor.next().expect("in memory") {
        total = total.wrapping_add(u64::from_le_bytes(value.try_into().expect("8 bytes")));
    }
    total
}

#[test]
fn snapshots_and_forks_see_whole_transactions() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    for account in 0..ACCOUNTS {
        writer.put(KEYSPACE, &account.to_be_bytes(), &(TOTAL / u64::from(ACCOUNTS)).to_le_bytes()).expect("put");
    }
    writer.commit(b"open accounts").expect("commit");
    drop(writer);
    let (second, _) = store.fork(ForkId::MAIN, fork_options("second", Durability::Durable)).expect("fork");
    let stop = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for fork in [ForkId::MAIN, second.id] {
            let (store, stop, reads) = (&store, &stop, &reads);
            scope.spawn(move || {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let snapshot = store.snapshot(fork).expect("snapshot");
                    assert!(snapshot.version().lsn.get() >= last, "never back in time");
                    last = snapshot.version().lsn.get();
                    assert_eq!(total(&snapshot), TOTAL);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (store_of_forks, stop_forks) = (&store, &stop);
        scope.spawn(move || {
            let mut number = 0;
            while !stop_forks.load(Ordering::Relaxed) {
                number += 1;
                let durability = if number % 2 == 0 { Durability::Durable } else { Durability::Ephemeral };
                let name = format!("f{number}");
                let (fork, _) = store_of_forks.fork(ForkId::MAIN, fork_options(&name, durability)).expect("fork");
                transfer(store_of_forks, fork.id, 3);
                assert_eq!(total(&store_of_forks.snapshot(fork.id).expect("snapshot")), TOTAL);
                if number % 20 != 0 {
                    store_of_forks.drop_fork(fork.id).expect("drop");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let second_writer = scope.spawn(|| transfer(&store, second.id, 1_500));
        transfer(&store, ForkId::MAIN, 1_500);
        second_writer.join().expect("writer");
    });
    assert!(reads.load(Ordering::Relaxed) > 10);
    assert_equals_log(&store, directory.path(), Arc::new(SystemEnv));
}

#[test]
fn durable_tickets_are_reported_in_order_and_waiters_share_syncs() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    settle(&store);
    let frames_before = store.stats().frames;
    let reported = Arc::new(AtomicU64::new(store.durable().get()));
    let last = Arc::clone(&reported);
    store.on_durable(Box::new(move |ticket| {
        assert!(last.swap(ticket.get(), Ordering::SeqCst) <= ticket.get(), "only forward");
    }));
    let (threads, calls) = (16, 40);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..calls {
                    let ticket = store.append_call(ForkId::MAIN, b"call").expect("append");
                    store.wait_durable(ticket, WAIT).expect("durable");
                    assert!(store.durable() >= ticket);
                }
            });
        }
    });
    // The last waiter is woken before the listeners are called.
    let started = Instant::now();
    while reported.load(Ordering::SeqCst) < store.stats().appended.get() {
        assert!(started.elapsed() < WAIT);
        std::thread::yield_now();
    }
    let frames = store.stats().frames - frames_before;
    assert!(frames < threads * calls / 2, "{frames} syncs for {} confirmed calls", threads * calls);
}
