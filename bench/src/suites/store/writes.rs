//! Commits, and reading a log back.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use tine_base::SystemEnv;
use tine_store::{ForkId, ImagePlace, Store, StoreOptions};

use super::Series;
use super::data::{RANDOM, RECORDS, World, cpu_ns, key, mixed, per_call};

const COMMITS1: u64 = 20_000;
/// redb takes about twenty times as long.
const COMMITS1_REDB: u64 = 1_000;
const COMMITS100: u64 = 300;
const REPLAYED: u64 = 1_000_000;
/// Keys per commit of the replayed log.
const REPLAYED_COMMIT: u64 = 10;

/// Commits of one record each, visible to readers before the next begins.
pub fn commit1(world: &mut World, series: &mut Series) -> anyhow::Result<()> {
    let start = world.start();
    let at = |index: u64| key(mixed(start + index) % RECORDS);
    let mut writer = world.store.writer(world.fork)?;
    let ours = per_call(COMMITS1, |index| {
        writer.put(RANDOM, &at(index), &[index as u8; 64]).expect("room");
        writer.commit_at(0, b"").expect("nothing is logged");
        writer.publish();
    });
    drop(writer);
    let mut published = world.imbl.clone();
    let imbl = per_call(COMMITS1, |index| {
        world.imbl.insert(at(index), [index as u8; 64]);
        published = world.imbl.clone();
    });
    black_box(published);
    let mut failure = None;
    let mut lmdb_commit = |index: u64| {
        failure = world.lmdb.commit(&[(at(index), [index as u8; 64])]).err().or(failure.take());
    };
    let lmdb = per_call(COMMITS1, &mut lmdb_commit);
    let mut redb_commit = |index: u64| {
        failure = world.redb.commit(&[(at(index), [index as u8; 64])]).err().or(failure.take());
    };
    let redb = per_call(COMMITS1_REDB, &mut redb_commit);
    let mut fjall_commit = |index: u64| {
        failure = world.fjall.commit((at(index), [index as u8; 64])).err().or(failure.take());
    };
    let fjall = per_call(COMMITS1, &mut fjall_commit);
    if let Some(failure) = failure {
        return Err(failure);
    }
    anyhow::ensure!(world.redb.contains(&at(0))?, "redb has what was committed");
    series.add(ours, &[("imbl", imbl), ("LMDB", lmdb), ("redb", redb), ("fjall", fjall)]);
    Ok(())
}

/// Commits of a hundred random records each.
pub fn commit100(world: &mut World, series: &mut Series) -> anyhow::Result<()> {
    let start = world.start();
    let at = |index: u64, number: u64| key(mixed(start + index * 100 + number) % RECORDS);
    let mut writer = world.store.writer(world.fork)?;
    let ours = per_call(COMMITS100, |index| {
        for number in 0..100 {
            writer.put(RANDOM, &at(index, number), &[index as u8; 64]).expect("room");
        }
        writer.commit_at(0, b"").expect("nothing is logged");
        writer.publish();
    });
    drop(writer);
    let mut published = world.imbl.clone();
    let imbl = per_call(COMMITS100, |index| {
        for number in 0..100 {
            world.imbl.insert(at(index, number), [index as u8; 64]);
        }
        published = world.imbl.clone();
    });
    black_box(published);
    series.add(ours, &[("imbl", imbl)]);
    Ok(())
}

/// Opening a store whose log has a million random keys, ten per commit.
pub fn replay(scratch: &Path, series: &mut Series) -> anyhow::Result<()> {
    let directory = tempfile::tempdir_in(scratch)?;
    // With images there would be little to replay.
    let options = || StoreOptions { images: ImagePlace::Nowhere, ..StoreOptions::new(directory.path()) };
    let open = || Store::open(options(), Arc::new(SystemEnv));
    let store = open()?;
    let mut writer = store.writer(ForkId::MAIN)?;
    for number in 0..REPLAYED {
        writer.put(RANDOM, &key(number), &[number as u8; 64])?;
        if number % REPLAYED_COMMIT == 0 {
            writer.commit(b"")?;
        }
    }
    writer.commit(b"")?;
    drop(writer);
    store.close()?;
    drop(store);
    let started = cpu_ns();
    let store = open()?;
    let seconds = (cpu_ns() - started) / 1e9;
    anyhow::ensure!(store.recovery_report().commits == REPLAYED / REPLAYED_COMMIT + 1, "everything was replayed");
    series.add(REPLAYED as f64 / seconds, &[]);
    Ok(())
}
