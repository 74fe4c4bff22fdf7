//! What the tests share.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tine_base::{Env, SystemEnv};
use tine_store::{
    Direction, Durability, ForkId, ForkOptions, KeyspaceId, LogRecordKind, Lsn, OpenError, Read, Store, StoreOptions,
    Version,
};

/// The content of a version.
pub type State = BTreeMap<(u32, Vec<u8>), Vec<u8>>;

pub const KEYSPACE: KeyspaceId = KeyspaceId::new(20);
pub const WAIT: Duration = Duration::from_secs(20);

/// Small segments, so that tests cross their borders and copies are cheap.
pub fn options(directory: &Path) -> StoreOptions {
    StoreOptions {
        segment_bytes_min: 32_768,
        segment_bytes_max: 131_072,
        reservation_bytes: 1 << 30,
        ..StoreOptions::new(directory)
    }
}

pub fn open(directory: &Path) -> Result<Store, OpenError> {
    Store::open(options(directory), Arc::new(SystemEnv))
}

pub fn fork_options(name: &str, durability: Durability) -> ForkOptions {
    ForkOptions { name: name.to_owned(), durability, ..ForkOptions::default() }
}

/// Commits one record on a fork, published, and returns the fork's LSN.
pub fn put_one(store: &Store, fork: ForkId, key: &[u8], value: &[u8]) -> Lsn {
    let mut writer = store.writer(fork).expect("writer");
    writer.put(KEYSPACE, key, value).expect("put");
    writer.commit(b"put_one").expect("commit").lsn
}

/// Waits until everything is on disk.
pub fn settle(store: &Store) {
    store.wait_durable(store.stats().appended, WAIT).expect("the log works");
}

/// Reads everything in keyspaces 0 to 40, in both directions, and checks that the ways of reading agree.
pub fn content(reader: &impl Read) -> State {
    let mut state = State::new();
    for number in 0..40 {
        let keyspace = KeyspaceId::new(number);
        let collect = |direction| {
            let mut cursor = reader.range(keyspace, Bound::Unbounded, Bound::Unbounded, direction);
            let mut records = Vec::new();
            while let Some((key, value)) = cursor.next().expect("in memory") {
                records.push((key.to_vec(), value.to_vec()));
            }
            records
        };
        let forward = collect(Direction::Forward);
        let mut reverse = collect(Direction::Reverse);
        reverse.reverse();
        assert!(forward == reverse);
        assert_eq!(forward.len() as u64, reader.len(keyspace));
        for (key, value) in forward {
            assert_eq!(reader.get(keyspace, &key).expect("in memory").as_deref(), Some(&*value));
            state.insert((number, key), value);
        }
    }
    state
}

pub fn snapshot_content(store: &Store, fork: ForkId) -> State {
    content(&store.snapshot(fork).expect("the fork exists"))
}

/// The forks that the log's prefix describes, rebuilt with nothing but maps.
#[derive(Default)]
pub struct Replayed {
    pub forks: BTreeMap<ForkId, ReplayedFork>,
    /// Versions that forks start from, with their state once it was reached.
    origins: BTreeMap<Version, State>,
}

#[derive(Clone, Default)]
pub struct ReplayedFork {
    pub name: String,
    pub head: Lsn,
    pub state: State,
}

/// Replays the log in a store's directory.
pub fn replay(directory: &Path, env: Arc<dyn Env>) -> Replayed {
    let records = Store::read_log(directory, env).expect("readable").collect::<Result<Vec<_>, _>>().expect("intact");
    let mut replayed = Replayed::default();
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record.sequence, index as u64 + 1, "sequence numbers are dense");
        if let LogRecordKind::ForkCreated { parent: Some(parent), .. } = &record.kind {
            replayed.origins.insert(*parent, State::new());
        }
    }
    for record in records {
        apply(&mut replayed, record.kind);
    }
    replayed
}

fn apply(replayed: &mut Replayed, kind: LogRecordKind) {
    match kind {
        LogRecordKind::Commit { version, operations, .. } => {
            let fork = replayed.forks.get_mut(&version.fork).expect("the fork was created before");
            assert_eq!(version.lsn.get(), fork.head.get() + 1, "LSNs are dense");
            fork.head = version.lsn;
            for operation in operations {
                let key = (operation.keyspace.get(), operation.key.to_vec());
                match operation.value {
                    Some(value) => fork.state.insert(key, value.to_vec()),
                    None => fork.state.remove(&key),
                };
            }
            if let Some(origin) = replayed.origins.get_mut(&version) {
                origin.clone_from(&fork.state);
            }
        }
        LogRecordKind::ForkCreated { fork, name, parent, .. } => {
            let (state, head) = match parent {
                Some(parent) => (replayed.origins[&parent].clone(), parent.lsn),
                None => (State::new(), Lsn::new(0)),
            };
            if let Some(origin) = replayed.origins.get_mut(&Version { fork, lsn: head }) {
                origin.clone_from(&state);
            }
            replayed.forks.insert(fork, ReplayedFork { name, head, state });
        }
        LogRecordKind::ForkDropped { fork } => {
            replayed.forks.remove(&fork);
        }
        LogRecordKind::ForkRenamed { fork, name } => {
            replayed.forks.get_mut(&fork).expect("the fork was created before").name = name;
        }
        LogRecordKind::ForkReplaced { fork, replaced } => {
            let dropped = replayed.forks.remove(&replaced).expect("the replaced fork was created before");
            replayed.forks.get_mut(&fork).expect("the fork was created before").name = dropped.name;
        }
        LogRecordKind::KeyspacesAllocated { .. }
        | LogRecordKind::ForkIdsReserved { .. }
        | LogRecordKind::VersionNamed { .. }
        | LogRecordKind::VersionNameForgotten { .. }
        | LogRecordKind::Call { .. } => {}
    }
}

/// Asserts that the durable forks of a store are what its log says.
pub fn assert_equals_log(store: &Store, directory: &Path, env: Arc<dyn Env>) {
    settle(store);
    let replayed = replay(directory, env);
    let durable: Vec<_> = store.forks().into_iter().filter(|fork| fork.durability == Durability::Durable).collect();
    assert_eq!(durable.len(), replayed.forks.len());
    for fork in durable {
        let expected = &replayed.forks[&fork.id];
        assert_eq!((expected.head, &expected.name), (fork.head, &fork.name));
        assert!(snapshot_content(store, fork.id) == expected.state, "{}", fork.id);
    }
}

/// Tells threads to stop when a test ends, also by a failed assertion, so that it fails instead of hanging.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
