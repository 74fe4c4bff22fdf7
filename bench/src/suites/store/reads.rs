//! Look-ups and scans.

use std::hint::black_box;
use std::ops::Bound;

use tine_store::{Direction, Read};

use super::Series;
use super::data::{PREFIXED, RANDOM, RECORDS, World, key, mixed, per_call, prefixed_key};

const GETS: u64 = 150_000;
const SCANS: u64 = 10_000;
const SCAN_RECORDS: usize = 100;

/// Look-ups of random keys.
pub fn get(world: &World, series: &mut Series) -> anyhow::Result<()> {
    let start = world.start();
    let at = |index: u64| key(mixed(start + index) % RECORDS);
    let snapshot = world.snapshot();
    let ours = per_call(GETS, |index| {
        assert!(snapshot.get(RANDOM, &at(index)).is_ok_and(|value| value.is_some()));
    });
    let map = per_call(GETS, |index| assert!(black_box(world.map.get(&at(index))).is_some()));
    let mut lmdb = 0.0;
    world.lmdb.read(|contains| lmdb = per_call(GETS, |index| assert!(contains(&at(index)))))?;
    series.add(ours, &[("BTreeMap", map), ("LMDB", lmdb)]);
    Ok(())
}

/// Look-ups of keys that all start alike.
pub fn get_prefixed(world: &World, series: &mut Series) -> anyhow::Result<()> {
    let start = world.start();
    let at = |index: u64| prefixed_key(mixed(start + index) % RECORDS);
    let snapshot = world.snapshot();
    let ours = per_call(GETS, |index| {
        assert!(snapshot.get(PREFIXED, &at(index)).is_ok_and(|value| value.is_some()));
    });
    let map = per_call(GETS, |index| assert!(black_box(world.prefixed_map.get(&at(index))).is_some()));
    series.add(ours, &[("BTreeMap", map)]);
    Ok(())
}

/// A hundred records from a random place on, keys and values touched.
pub fn scan(world: &World, series: &mut Series) -> anyhow::Result<()> {
    let start = world.start();
    let at = |index: u64| key(mixed(start + index) % RECORDS);
    let snapshot = world.snapshot();
    let mut sum = 0_u64;
    let ours = per_call(SCANS, |index| {
        let mut cursor = snapshot.range(RANDOM, Bound::Included(&at(index)), Bound::Unbounded, Direction::Forward);
        for _ in 0..SCAN_RECORDS {
            let Ok(Some((key, value))) = cursor.next() else { break };
            sum += u64::from(key[15]) + u64::from(value[63]);
        }
    });
    let map = per_call(SCANS, |index| {
        for (key, value) in world.map.range(at(index)..).take(SCAN_RECORDS) {
            sum += u64::from(key[15]) + u64::from(value[63]);
        }
    });
    black_box(sum);
    series.add(ours, &[("BTreeMap", map)]);
    Ok(())
}
