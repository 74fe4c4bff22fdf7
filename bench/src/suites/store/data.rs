//! The records, and what all cases share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tine_base::SystemEnv;
use tine_store::{Durability, ForkId, ForkOptions, KeyspaceId, Snapshot, Store, StoreOptions};

use super::peers::{Fjall, Lmdb, Redb};

/// Records of each side.
pub const RECORDS: u64 = 1_000_000;

/// The keyspace of the random keys.
pub const RANDOM: KeyspaceId = KeyspaceId::new(16);

/// The keyspace of the keys with a table id.
pub const PREFIXED: KeyspaceId = KeyspaceId::new(17);

/// A random key.
pub type Key = [u8; 16];

/// A key with a prefix that all share: table id and number.
pub type PrefixedKey = [u8; 12];

/// A value.
pub type Value = [u8; 64];

/// All sides.
pub struct World {
    /// Ours. The fork is ephemeral, so that writes cost what they cost in memory: no peer here writes to a disk.
    pub store: Store,
    /// The fork with the records.
    pub fork: ForkId,
    /// A map of the random keys.
    pub map: BTreeMap<Key, Value>,
    /// A map of the keys with a prefix.
    pub prefixed_map: BTreeMap<PrefixedKey, Value>,
    /// The persistent map of the random keys.
    pub imbl: imbl::OrdMap<Key, Value>,
    /// LMDB with NOSYNC and WRITEMAP.
    pub lmdb: Lmdb,
    /// redb without durability.
    pub redb: Redb,
    /// fjall without a sync.
    pub fjall: Fjall,
    numbers: std::cell::Cell<u64>,
}

/// A number that looks random, always the same for the same `number`, and no other number's.
pub fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// The random key of a number.
pub fn key(number: u64) -> Key {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mixed(number).to_be_bytes());
    key[8..].copy_from_slice(&mixed(!number).to_be_bytes());
    key
}

/// The prefixed key of a number.
pub fn prefixed_key(number: u64) -> PrefixedKey {
    let mut key = *b"tab\x07\0\0\0\0\0\0\0\0";
    key[4..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Options of an ephemeral fork.
pub fn ephemeral(name: impl Into<String>) -> ForkOptions {
    ForkOptions { name: name.into(), durability: Durability::Ephemeral, ..ForkOptions::default() }
}

/// CPU time of this thread in nanoseconds.
pub fn cpu_ns() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call only writes the struct it is given.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "the thread has a clock");
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// CPU time per call of `operation` in nanoseconds.
pub fn per_call(count: u64, mut operation: impl FnMut(u64)) -> f64 {
    let started = cpu_ns();
    (0..count).for_each(&mut operation);
    (cpu_ns() - started) / count as f64
}

/// Memory in use in bytes: what the allocator handed out, and the pages of our store. Resident memory would say as much
/// on a fresh process only: what earlier rounds freed stays resident and is used again.
pub fn used_bytes(store: &Store) -> f64 {
    // SAFETY: the call only reads the allocator's counters.
    let heap = unsafe { libc::mallinfo2() };
    (heap.uordblks + heap.hblkhd) as f64 + store.stats().pages as f64 * 4096.0
}

impl World {
    /// Gives every side its records.
    pub fn fill(directory: &Path) -> anyhow::Result<World> {
        let store = Store::open(StoreOptions::new(directory.join("tine")), Arc::new(SystemEnv))?;
        let fork = store.fork_empty(ephemeral("records"))?.0.id;
        let mut writer = store.writer(fork)?;
        for number in 0..RECORDS {
            writer.put(RANDOM, &key(number), &[number as u8; 64])?;
            writer.put(PREFIXED, &prefixed_key(number), &[number as u8; 64])?;
            if number % 100_000 == 0 {
                writer.commit(b"")?;
            }
        }
        writer.commit(b"")?;
        drop(writer);
        let records = || (0..RECORDS).map(|number| (key(number), [number as u8; 64]));
        let (mut map, mut imbl) = (BTreeMap::new(), imbl::OrdMap::new());
        for (key, value) in records() {
            map.insert(key, value);
            imbl.insert(key, value);
        }
        let mut prefixed_map = BTreeMap::new();
        for number in 0..RECORDS {
            prefixed_map.insert(prefixed_key(number), [number as u8; 64]);
        }
        let lmdb = Lmdb::fill(&directory.join("lmdb"), records())?;
        let redb = Redb::fill(&directory.join("redb"), records())?;
        let fjall = Fjall::fill(&directory.join("fjall"), records())?;
        Ok(World { store, fork, map, prefixed_map, imbl, lmdb, redb, fjall, numbers: 0.into() })
    }

    /// The head of our fork.
    pub fn snapshot(&self) -> Snapshot {
        self.store.snapshot(self.fork).expect("the fork exists")
    }

    /// A number that no call of this had before: where a series of accesses starts.
    pub fn start(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 10_000_000);
        self.numbers.get()
    }
}
