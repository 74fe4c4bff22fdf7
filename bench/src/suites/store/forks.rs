//! What forks cost: to make, to keep, to read, to drop and to compare.

use std::hint::black_box;

use tine_store::{ForkId, Read};

use super::Series;
use super::data::{RANDOM, RECORDS, World, ephemeral, key, mixed, per_call, used_bytes};

const GETS: u64 = 100_000;
/// Forks that are changed at once.
const CHANGED_FORKS: u64 = 200;
/// Scattered records that each of them changes.
const CHANGES: u64 = 100;
const FORKS: u64 = 20_000;
const IDLE_FORKS: u64 = 100_000;
const DEPTH: u64 = 100;
const DIFFS: u64 = 50;

/// Memory of a fork with a hundred changed records, and dropping it.
pub fn changed100(world: &World, memory: &mut Series, dropping: &mut Series) -> anyhow::Result<()> {
    let start = world.start();
    let at = |fork: u64, number: u64| key(mixed(start + fork * CHANGES + number) % RECORDS);
    let before = used_bytes(&world.store);
    let mut forks: Vec<ForkId> = Vec::new();
    for fork in 0..CHANGED_FORKS {
        let id = world.store.fork(world.fork, ephemeral(format!("changed{fork}")))?.0.id;
        let mut writer = world.store.writer(id)?;
        for number in 0..CHANGES {
            writer.put(RANDOM, &at(fork, number), &[!(fork as u8); 64])?;
        }
        writer.commit(b"")?;
        forks.push(id);
    }
    let ours_bytes = (used_bytes(&world.store) - before) / CHANGED_FORKS as f64;
    let before = used_bytes(&world.store);
    let mut maps: Vec<Option<imbl::OrdMap<_, _>>> = Vec::new();
    for fork in 0..CHANGED_FORKS {
        let mut map = world.imbl.clone();
        for number in 0..CHANGES {
            map.insert(at(fork, number), [!(fork as u8); 64]);
        }
        maps.push(Some(map));
    }
    let imbl_bytes = (used_bytes(&world.store) - before) / CHANGED_FORKS as f64;
    memory.add(ours_bytes, &[("imbl", imbl_bytes)]);
    let mut failures = 0;
    let ours =
        per_call(CHANGED_FORKS, |fork| failures += u64::from(world.store.drop_fork(forks[fork as usize]).is_err()));
    let imbl = per_call(CHANGED_FORKS, |fork| drop(maps[fork as usize].take()));
    anyhow::ensure!(failures == 0, "a fork could not be dropped");
    dropping.add(ours, &[("imbl", imbl)]);
    Ok(())
}

/// Comparing versions, each with the next, between which a hundred scattered records changed: each pair once, since
/// comparing the same pair again finds everything in the cache.
pub fn diff100(world: &mut World, series: &mut Series) -> anyhow::Result<()> {
    let start = world.start();
    let mut versions = vec![(world.snapshot(), world.imbl.clone())];
    for version in 0..DIFFS {
        let at = |number: u64| key(mixed(start + version * CHANGES + number) % RECORDS);
        let mut writer = world.store.writer(world.fork)?;
        for number in 0..CHANGES {
            let changed = [(start >> 20) as u8 ^ version as u8 ^ 0x55; 64];
            writer.put(RANDOM, &at(number), &changed)?;
            world.imbl.insert(at(number), changed);
        }
        writer.commit(b"")?;
        drop(writer);
        versions.push((world.snapshot(), world.imbl.clone()));
    }
    let (mut differences, mut map_differences) = (0, 0);
    let ours = per_call(DIFFS, |version| {
        let (old, new) = (&versions[version as usize].0, &versions[version as usize + 1].0);
        let mut diff = old.diff(new, RANDOM);
        while let Ok(Some(difference)) = diff.next() {
            black_box(difference);
            differences += 1;
        }
    });
    let imbl = per_call(DIFFS, |version| {
        let (old, new) = (&versions[version as usize].1, &versions[version as usize + 1].1);
        map_differences += old.diff(new).count() as u64;
    });
    black_box(map_differences);
    anyhow::ensure!(differences > DIFFS * CHANGES * 9 / 10, "only {differences} differences");
    series.add(ours, &[("imbl", imbl)]);
    Ok(())
}

/// Making a fork: without a name, and with one.
pub fn fork(world: &World, unnamed: &mut Series, named: &mut Series) -> anyhow::Result<()> {
    for (series, has_name) in [(unnamed, false), (named, true)] {
        let name = |fork| if has_name { format!("fork{fork}") } else { String::new() };
        let mut names: Vec<String> = (0..FORKS).map(name).collect();
        let mut forks = Vec::with_capacity(names.len());
        let ours = per_call(FORKS, |fork| {
            let options = ephemeral(std::mem::take(&mut names[fork as usize]));
            forks.push(world.store.fork(world.fork, options).expect("the store is open").0.id);
        });
        for fork in forks {
            world.store.drop_fork(fork)?;
        }
        series.add(ours, &[]);
    }
    Ok(())
}

/// Look-ups in a fork of a fork of a fork, each with a change of its own.
pub fn depth(world: &World, series: &mut Series) -> anyhow::Result<()> {
    let start = world.start();
    let mut parent = world.fork;
    let mut forks = Vec::new();
    for level in 0..DEPTH {
        let id = world.store.fork(parent, ephemeral(format!("level{level}")))?.0.id;
        let mut writer = world.store.writer(id)?;
        writer.put(RANDOM, &key(mixed(start + level) % RECORDS), &[1; 64])?;
        writer.commit(b"")?;
        forks.push(id);
        parent = id;
    }
    let get = |fork: ForkId, start: u64| -> anyhow::Result<f64> {
        let snapshot = world.store.snapshot(fork)?;
        Ok(per_call(GETS, |index| {
            let key = key(mixed(start + index) % RECORDS);
            assert!(snapshot.get(RANDOM, &key).is_ok_and(|value| value.is_some()));
        }))
    };
    let (shallow, deep) = (get(world.fork, start)?, get(parent, start)?);
    for fork in forks {
        world.store.drop_fork(fork)?;
    }
    series.add(deep, &[("depth 0", shallow)]);
    Ok(())
}

/// Memory of idle forks, and look-ups beside a hundred thousand of them.
pub fn many(world: &World, idle: &mut Series, gets: &mut Series) -> anyhow::Result<()> {
    let start = world.start();
    let get = || -> f64 {
        per_call(GETS, |index| {
            let key = key(mixed(start + index) % RECORDS);
            let snapshot = world.store.snapshot(world.fork).expect("the fork exists");
            assert!(snapshot.get(RANDOM, &key).is_ok_and(|value| value.is_some()));
        })
    };
    // What ran before, here making the forks, leaves caches to what it used: the first look-ups are not measured.
    get();
    let one = get();
    let before = used_bytes(&world.store);
    let mut forks = Vec::with_capacity(IDLE_FORKS as usize);
    for fork in 0..IDLE_FORKS {
        forks.push(world.store.fork(world.fork, ephemeral(format!("idle{fork}")))?.0.id);
    }
    let bytes = (used_bytes(&world.store) - before) / IDLE_FORKS as f64;
    get();
    let many = get();
    for fork in forks {
        world.store.drop_fork(fork)?;
    }
    idle.add(bytes, &[]);
    gets.add(many, &[("1 fork", one)]);
    Ok(())
}
