//! Prints what single operations of the store cost: `cargo run --release -p tine-store --example measure`.
//!
//! 100,000 records of random 16-byte keys and 64-byte values on one fork; the log is on the file system of the
//! temporary directory. Each line has wall-clock and processor time of the calling thread per operation; the
//! log thread's is extra where it is not named.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tine_base::SystemEnv;
use tine_store::{Durability, ForkId, ForkOptions, KeyspaceId, Lsn, Read, Store, StoreOptions, VersionAt, Writer};

const RECORDS: u64 = 100_000;
const KEYSPACE: KeyspaceId = KeyspaceId::new(16);

fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    key[..8].copy_from_slice(&(mixed ^ mixed >> 29).to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

fn measure(name: &str, count: u64, mut operation: impl FnMut(u64)) {
    let (started, cpu) = (Instant::now(), thread_cpu_ns());
    (0..count).for_each(&mut operation);
    let cpu_ns = (thread_cpu_ns() - cpu) as f64 / count as f64;
    let wall_ns = started.elapsed().as_nanos() as f64 / count as f64;
    println!("{name:<40} {wall_ns:>10.0} ns wall {cpu_ns:>10.0} ns cpu");
}

fn thread_cpu_ns() -> u64 {
    run_time_ns(std::path::Path::new("/proc/thread-self"))
}

fn process_cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    Duration::from_nanos(tasks.map(|task| run_time_ns(&task.path())).sum())
}

fn run_time_ns(task: &std::path::Path) -> u64 {
    let text = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn scattered(number: u64) -> u64 {
    number.wrapping_mul(7_919) % RECORDS
}

fn put_and_commit(writer: &mut Writer, number: u64) {
    writer.put(KEYSPACE, &key(scattered(number)), &[number as u8; 64]).expect("put");
    writer.commit_at(number as i64, &[0; 40]).expect("commit");
}

fn main() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv)).expect("open");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    for number in 0..RECORDS {
        writer.put(KEYSPACE, &key(number), &[0; 64]).expect("put");
    }
    writer.commit(b"fill").expect("commit");
    writer.publish();
    store.wait_durable(store.stats().appended, Duration::from_secs(60)).expect("durable");

    let snapshot = store.snapshot(ForkId::MAIN).expect("snapshot");
    measure("get", 1_000_000, |number| {
        black_box(snapshot.get(KEYSPACE, &key(scattered(number))).expect("in memory"));
    });
    measure("scan of 100", 20_000, |number| {
        let key = key(scattered(number));
        let start = std::ops::Bound::Included(&key[..]);
        let mut cursor = snapshot.range(KEYSPACE, start, std::ops::Bound::Unbounded, tine_store::Direction::Forward);
        for _ in 0..100 {
            black_box(cursor.next().expect("in memory"));
        }
    });
    drop(snapshot);
    measure("snapshot", 1_000_000, |_| drop(black_box(store.snapshot(ForkId::MAIN).expect("snapshot"))));

    let (before, busy) = (process_cpu(), Instant::now());
    let frames = store.stats().frames;
    measure("commit of 1 key, published per 64", 400_000, |number| {
        put_and_commit(&mut writer, number);
        if number % 64 == 0 {
            writer.publish();
        }
    });
    store.wait_durable(store.stats().appended, Duration::from_secs(60)).expect("durable");
    let (cpu, wall) = (process_cpu().saturating_sub(before), busy.elapsed());
    let frames = store.stats().frames - frames;
    println!(
        "  with the log thread: {:.2} us cpu each, {frames} syncs, {wall:.2?} in total",
        cpu.as_secs_f64() * 1e6 / 4e5
    );

    measure("commit of 1 key, each published", 200_000, |number| {
        put_and_commit(&mut writer, number);
        writer.publish();
    });
    paced(&store, &mut writer);
    measure("commit of 1 key, each waited for", 500, |number| {
        put_and_commit(&mut writer, number);
        store.wait_durable(store.stats().appended, Duration::from_secs(60)).expect("durable");
    });
    measure("put and rollback", 200_000, |number| {
        writer.put(KEYSPACE, &key(scattered(number)), &[number as u8 ^ 1; 64]).expect("put");
        writer.rollback();
    });
    measure("checkpoint, 1-key commit, revert", 100_000, |number| {
        let checkpoint = writer.begin_checkpoint().expect("begin");
        put_and_commit(&mut writer, number + 7);
        writer.revert_checkpoint(checkpoint, b"").expect("revert");
    });
    drop(writer);
    for durability in [Durability::Ephemeral, Durability::Durable] {
        let mut forks = Vec::new();
        measure(&format!("fork, {durability:?}"), 50_000, |number| {
            let options = ForkOptions { name: format!("{durability:?}{number}"), durability, ..ForkOptions::default() };
            forks.push(store.fork(ForkId::MAIN, options).expect("fork").0.id);
        });
        measure(&format!("drop of that fork, {durability:?}"), 50_000, |number| {
            store.drop_fork(forks[number as usize]).expect("drop");
        });
    }
    measure_history(&store);
    store.close().expect("close");
    let started = Instant::now();
    let store = Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv)).expect("open");
    println!("recovery {:.2?}: {:?}", started.elapsed(), store.recovery_report());
}

/// What older versions cost, on the history that the measurements above left.
fn measure_history(store: &Store) {
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    for number in 0..20_000 {
        put_and_commit(&mut writer, number + 3);
        if number % 64 == 0 {
            writer.publish();
        }
    }
    writer.publish();
    store.wait_durable(store.stats().appended, Duration::from_secs(60)).expect("durable");
    let head = writer.version().lsn.get();
    let at = |lsn: u64| store.snapshot_at(ForkId::MAIN, VersionAt::Lsn(Lsn::new(lsn))).expect("retained");
    let cost = |lsn: u64| {
        let started = Instant::now();
        black_box(at(lsn));
        started.elapsed()
    };
    let costs: Vec<(Duration, u64)> = (head - 12_000..head).step_by(101).map(|lsn| (cost(lsn), lsn)).collect();
    let mean_us = costs.iter().map(|(cost, _)| cost.as_secs_f64() * 1e6).sum::<f64>() / costs.len() as f64;
    println!("version of the last 12,000: {mean_us:.0} us mean, {:.2?} at most", costs.iter().max().expect("some").0);
    println!("version of long ago: {:.2?}; {:?}", cost(head / 2 + 1), store.stats());
    // The pin itself is found by walking back until nothing is applied.
    let pinned = (head - 9_000..head).min_by_key(|lsn| (0..3).map(|_| cost(*lsn)).min()).expect("some");
    measure("snapshot of a pinned version", 100_000, |_| drop(black_box(at(pinned))));
    measure("fork of a pinned version", 50_000, |number| {
        let options = ForkOptions { name: format!("pinned{number}"), ..ForkOptions::default() };
        black_box(store.fork_from(&at(pinned), options).expect("fork"));
    });
}

/// 100,000 commits a second, as a server under load makes them.
fn paced(store: &Store, writer: &mut Writer) {
    let (cpu, started) = (process_cpu(), Instant::now());
    let frames = store.stats().frames;
    let mut commits = 0;
    while started.elapsed() < Duration::from_secs(2) {
        for _ in 0..64 {
            put_and_commit(writer, commits);
            commits += 1;
        }
        writer.publish();
        let due = Duration::from_micros(commits * 10);
        std::thread::sleep(due.saturating_sub(started.elapsed()));
    }
    let (cpu, frames) = (process_cpu().saturating_sub(cpu), store.stats().frames - frames);
    let each_us = cpu.as_secs_f64() * 1e6 / commits as f64;
    println!("100k commits/s in batches of 64: {each_us:.2} us cpu each with the log thread, {frames} syncs");
}
