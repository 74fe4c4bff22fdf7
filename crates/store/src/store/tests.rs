use std::sync::Weak;

use tine_base::SystemEnv;

use super::*;
use crate::options::{Durability, ForkOptions};
use crate::versions::Frozen;

fn root_of(store: &Store, fork: ForkId) -> Weak<Frozen> {
    Arc::downgrade(&store.0.find(fork).expect("the fork exists").published.lock().state)
}

fn put(store: &Store, fork: ForkId, value: &[u8]) {
    let mut writer = store.writer(fork).expect("writer");
    writer.put(KeyspaceId::new(16), b"key", value).expect("put");
    writer.commit(b"").expect("commit");
}

/// Dropping a fork frees what only it held, as soon as no writer or snapshot holds it.
#[test]
fn dropped_forks_free_their_memory() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv)).expect("open");
    put(&store, ForkId::MAIN, b"shared");
    let make = |name: &str| {
        let options =
            ForkOptions { name: name.to_owned(), durability: Durability::Ephemeral, ..ForkOptions::default() };
        store.fork(ForkId::MAIN, options).expect("fork").0.id
    };
    let (first, second) = (make("first"), make("second"));
    assert!(Weak::ptr_eq(&root_of(&store, first), &root_of(&store, second)), "a fork copies nothing");
    for fork in [first, second] {
        put(&store, fork, b"own");
    }
    let (first_root, second_root) = (root_of(&store, first), root_of(&store, second));
    let snapshot = store.snapshot(first).expect("snapshot");
    let writer = store.writer(second).expect("writer");
    store.drop_fork(first).expect("drop");
    store.drop_fork(second).expect("drop");
    assert!(first_root.strong_count() > 0 && second_root.strong_count() > 0);
    drop((snapshot, writer));
    assert_eq!((first_root.strong_count(), second_root.strong_count()), (0, 0));
}

/// A version that was replaced is freed by the publication that replaces it, unless it is pinned.
#[test]
fn replaced_versions_free_their_memory() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv)).expect("open");
    put(&store, ForkId::MAIN, b"pinned as the first in a long time");
    let pinned = root_of(&store, ForkId::MAIN);
    put(&store, ForkId::MAIN, b"old");
    let old = root_of(&store, ForkId::MAIN);
    put(&store, ForkId::MAIN, b"new");
    assert_eq!((pinned.strong_count(), old.strong_count()), (1, 0));
}

/// Fork numbers of ephemeral forks stay used beyond the block that is reserved at the opening.
#[test]
fn fork_numbers_are_reserved_ahead() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let open = || Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv)).expect("open");
    let fork = |store: &Store| {
        let options = ForkOptions { name: "e".to_owned(), durability: Durability::Ephemeral, ..ForkOptions::default() };
        let id = store.fork(ForkId::MAIN, options).expect("fork").0.id;
        store.drop_fork(id).expect("drop");
        id
    };
    let store = open();
    let appended = store.stats().appended;
    let mut last = ForkId::MAIN;
    for _ in 0..=FORK_ID_BLOCK {
        last = fork(&store);
    }
    assert!(store.stats().appended > appended, "a second block was reserved");
    store.close().expect("close");
    assert!(fork(&open()) > last);
}
