//! CPU time and allocations of the store's smallest operations, beside nothing: for profilers and quick looks.
//!
//! `cargo run --release -p tine-store --example cost [CASE]...`; without a case all of them. The suite `store` of the
//! benchmarks compares them with others.

use std::hint::black_box;
use std::ops::Bound;
use std::sync::Arc;

use tine_base::SystemEnv;
use tine_store::{Direction, Durability, ForkId, ForkOptions, KeyspaceId, Read, Snapshot, Store, StoreOptions};

const RECORDS: u64 = 1_000_000;
const KEYSPACE: KeyspaceId = KeyspaceId::new(16);

fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mixed(number).to_be_bytes());
    key[8..].copy_from_slice(&mixed(!number).to_be_bytes());
    key
}

fn at(number: u64) -> [u8; 16] {
    key(mixed(number) % RECORDS)
}

fn cpu_ns() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call only writes the struct it is given.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "the thread has a clock");
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

const ROUNDS: u64 = 9;

/// Prints the median of several rounds.
fn measure(what: &str, count: u64, mut operation: impl FnMut(u64)) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            let started = cpu_ns();
            (round * count..(round + 1) * count).for_each(&mut operation);
            (cpu_ns() - started) / count as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{what}: {:.0} ns, at best {:.0}", rounds[rounds.len() / 2], rounds[0]);
}

fn options(name: String) -> ForkOptions {
    ForkOptions { name, durability: Durability::Ephemeral, ..ForkOptions::default() }
}

fn main() {
    let cases: Vec<String> = std::env::args().skip(1).collect();
    let asked = |case: &str| cases.is_empty() || cases.iter().any(|given| given == case);
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv)).expect("open");
    let fork = store.fork_empty(options("records".into())).expect("fork").0.id;
    let mut writer = store.writer(fork).expect("writer");
    for number in 0..RECORDS {
        writer.put(KEYSPACE, &key(number), &[number as u8; 64]).expect("put");
    }
    writer.commit(b"").expect("commit");
    writer.publish();
    if asked("get") {
        let snapshot = store.snapshot(fork).expect("snapshot");
        measure("get", 200_000, |number| assert!(snapshot.get(KEYSPACE, &at(number)).expect("get").is_some()));
    }
    if asked("scan") {
        scan(&store.snapshot(fork).expect("snapshot"));
    }
    if asked("commit1") {
        measure("commit1", 50_000, |number| {
            writer.put(KEYSPACE, &at(number), &(number + 1).to_le_bytes().repeat(8)).expect("put");
            writer.commit_at(0, b"").expect("commit");
            writer.publish();
        });
    }
    if asked("commit100") {
        measure("commit100", 500, |number| {
            for record in number * 100..number * 100 + 100 {
                writer.put(KEYSPACE, &at(record), &(number + 1).to_le_bytes().repeat(8)).expect("put");
            }
            writer.commit_at(0, b"").expect("commit");
            writer.publish();
        });
    }
    drop(writer);
    if asked("many") {
        many(&store, fork);
    }
    if asked("diff") {
        diff(&store, fork);
    }
    if asked("fork") {
        forks(&store, fork);
    }
    if asked("drop") {
        changed(&store, fork);
    }
}

fn scan(snapshot: &Snapshot) {
    let mut sum = 0;
    measure("scan of 100", 20_000, |number| {
        let start = at(number);
        let mut cursor = snapshot.range(KEYSPACE, Bound::Included(&start), Bound::Unbounded, Direction::Forward);
        for _ in 0..100 {
            let Some((key, value)) = cursor.next().expect("next") else { break };
            sum += u64::from(key[15]) + u64::from(value[63]);
        }
    });
    black_box(sum);
}

/// Look-ups in new snapshots, alone and beside many forks, which are twice gone through: the first time, caches have the
/// forks instead of pages.
fn many(store: &Store, fork: ForkId) {
    let get = |number| {
        let snapshot = store.snapshot(fork).expect("snapshot");
        assert!(snapshot.get(KEYSPACE, &at(number)).expect("get").is_some());
    };
    let mut forks = Vec::new();
    for what in ["alone", "beside 100,000 forks"] {
        for number in 0..forks.capacity() {
            forks.push(store.fork(fork, options(format!("idle{number}"))).expect("fork").0.id);
        }
        for pass in ["first", "second"] {
            let started = cpu_ns();
            (0..150_000).for_each(get);
            println!("snapshot and get {what}, {pass} time: {:.0} ns", (cpu_ns() - started) / 150_000.0);
        }
        forks.reserve_exact(100_000);
    }
    for fork in forks {
        store.drop_fork(fork).expect("drop");
    }
}

fn diff(store: &Store, fork: ForkId) {
    let mut versions = vec![store.snapshot(fork).expect("snapshot")];
    for version in 0..ROUNDS * 20 {
        let mut writer = store.writer(fork).expect("writer");
        for number in 0..100 {
            writer.put(KEYSPACE, &at(7_000_000 + version * 100 + number), &[version as u8 ^ 0x55; 64]).expect("put");
        }
        writer.commit(b"").expect("commit");
        drop(writer);
        versions.push(store.snapshot(fork).expect("snapshot"));
    }
    measure("diff of 100", 20, |version| {
        let mut diff = versions[version as usize].diff(&versions[version as usize + 1], KEYSPACE);
        while let Ok(Some(difference)) = diff.next() {
            black_box(difference);
        }
    });
}

fn forks(store: &Store, fork: ForkId) {
    // SAFETY: the call only reads the allocator's counters.
    let heap = || unsafe { libc::mallinfo2() };
    let mut names = (0..ROUNDS * 20_000).map(|number| format!("fork{number}")).collect::<Vec<_>>().into_iter();
    let before = heap();
    let mut forks = Vec::with_capacity(names.len());
    measure("fork", 20_000, |_| {
        forks.push(store.fork(fork, options(names.next().expect("a name"))).expect("fork").0.id);
    });
    let after = heap();
    let bytes = (after.uordblks + after.hblkhd) as f64 - (before.uordblks + before.hblkhd) as f64;
    println!("bytes per fork: {:.0} without their names as the caller gave them", bytes / forks.len() as f64);
    measure("fork without a name", 20_000, |_| {
        forks.push(store.fork(fork, options(String::new())).expect("fork").0.id);
    });
    let mut left = forks.into_iter();
    measure("drop of a fork", 20_000, |_| {
        store.drop_fork(left.next().expect("a fork")).expect("drop");
    });
}

fn changed(store: &Store, fork: ForkId) {
    let forks: Vec<ForkId> = (0..ROUNDS * 100)
        .map(|fork_number| {
            let id = store.fork(fork, options(format!("changed{fork_number}"))).expect("fork").0.id;
            let mut writer = store.writer(id).expect("writer");
            for number in 0..100 {
                writer.put(KEYSPACE, &at(fork_number * 100 + number), &[!(fork_number as u8); 64]).expect("put");
            }
            writer.commit(b"").expect("commit");
            id
        })
        .collect();
    measure("drop of a changed fork", 100, |number| {
        store.drop_fork(forks[number as usize]).expect("drop");
    });
}
