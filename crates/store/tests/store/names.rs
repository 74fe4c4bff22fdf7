//! Versions with names.

use std::path::Path;
use std::sync::Arc;

use tine_base::SystemEnv;
use tine_store::{
    Durability, ForkId, ForkOptions, ImagePlace, Lsn, NAMED_VERSIONS_MAX, Store, StoreOptions, StoreView, Version,
    VersionAt,
};

use crate::support::{KEYSPACE, State, content, fork_options, options, put_one, settle, snapshot_content};

/// Everything older than the head is outside of the history's window.
fn without_history(directory: &Path) -> StoreOptions {
    StoreOptions { history_micros: 0, history_bytes: 0, image_age_micros: 0, ..options(directory) }
}

fn open(options: StoreOptions) -> Store {
    Store::open(options, Arc::new(SystemEnv)).expect("open")
}

fn reopen(store: Store, options: StoreOptions) -> Store {
    store.close().expect("close");
    drop(store);
    open(options)
}

fn fill(store: &Store, fork: ForkId, numbers: std::ops::Range<u64>) {
    for number in numbers {
        put_one(store, fork, &number.to_be_bytes(), &vec![number as u8; 400]);
    }
}

fn read(store: &Store, name: &str) -> State {
    content(&store.named_version(name).expect("it has that name"))
}

/// Names the head, and returns what it is.
fn name_head(store: &Store, fork: ForkId, name: &str) -> (Version, State) {
    let snapshot = store.snapshot(fork).expect("snapshot");
    store.name_version(&snapshot, name).expect("named");
    (snapshot.version(), content(&snapshot))
}

#[test]
fn a_name_keeps_a_version_from_log_and_history() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let options = || without_history(directory.path());
    let mut store = open(options());
    fill(&store, ForkId::MAIN, 0..300);
    let (early, state) = name_head(&store, ForkId::MAIN, "early");
    let mut deleted = 0;
    for round in 0..4_u64 {
        fill(&store, ForkId::MAIN, round * 200..round * 200 + 250);
        store.trim_history();
        deleted += store.image().expect("image").segments_deleted;
        // Once by the log, then by the images alone.
        store = reopen(store, options());
        assert!(read(&store, "early") == state, "round {round}");
        store.check_pages().expect("every page is accounted for");
    }
    assert!(deleted > 3, "the log of the named version is gone: {deleted}");
    let head = store.fork_info(ForkId::MAIN).expect("main").head;
    assert!(store.oldest_retained(ForkId::MAIN).expect("main") > early.lsn);
    // By number as well, and nothing beside it.
    let at = |lsn: u64| store.snapshot_at(ForkId::MAIN, VersionAt::Lsn(Lsn::new(lsn)));
    assert!(content(&at(early.lsn.get()).expect("named")) == state);
    assert_eq!(at(early.lsn.get() + 1).expect_err("not named").code(), "TN0240");
    assert!(store.imaged_versions().contains(&early));
    assert!(content(&store.snapshot_of_image(early).expect("imaged")) == state);
    // Forks made of it live on, whatever becomes of the name.
    let base = store.named_version("early").expect("named");
    let fork = store.fork_from(&base, fork_options("again", Durability::Durable)).expect("fork").0;
    assert_eq!((fork.head, fork.parent), (early.lsn, Some(early)));
    fill(&store, fork.id, 7000..7010);
    let of_fork = snapshot_content(&store, fork.id);
    store = reopen(store, options());
    assert!(snapshot_content(&store, fork.id) == of_fork);
    store.forget_version_name("early").expect("forgotten");
    store = reopen(store, options());
    assert!(store.named_versions().is_empty());
    assert!(snapshot_content(&store, fork.id) == of_fork);
    assert_eq!(store.fork_info(ForkId::MAIN).expect("main").head, head);
    store.image().expect("image");
    assert!(!store.imaged_versions().contains(&early));
    store = reopen(store, options());
    assert!(snapshot_content(&store, fork.id) == of_fork);
    store.check_pages().expect("every page is accounted for");
}

#[test]
fn a_named_version_outlives_its_fork() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let options = || without_history(directory.path());
    let mut store = open(options());
    fill(&store, ForkId::MAIN, 0..50);
    let side = store.fork(ForkId::MAIN, fork_options("side", Durability::Durable)).expect("fork").0.id;
    fill(&store, side, 50..80);
    let (version, state) = name_head(&store, side, "last of side");
    fill(&store, side, 80..120);
    store.drop_fork(side).expect("drop");
    for round in 0..3 {
        assert!(read(&store, "last of side") == state, "round {round}");
        let base = store.named_version("last of side").expect("named");
        let name = format!("of a fork that is gone {round}");
        let fork = store.fork_from(&base, fork_options(&name, Durability::Durable)).expect("fork").0;
        assert_eq!(fork.parent, Some(version));
        fill(&store, fork.id, 900..905);
        let of_fork = snapshot_content(&store, fork.id);
        if round == 1 {
            fill(&store, ForkId::MAIN, 0..300);
            store.image().expect("image");
        }
        store = reopen(store, options());
        assert!(snapshot_content(&store, fork.id) == of_fork, "round {round}");
        store.check_pages().expect("every page is accounted for");
    }
    // Another name for what only a name keeps.
    let snapshot = store.named_version("last of side").expect("named");
    store.name_version(&snapshot, "other").expect("named again");
    store.forget_version_name("last of side").expect("forgotten");
    store = reopen(store, options());
    assert!(read(&store, "other") == state);
    store.forget_version_name("other").expect("forgotten");
    let base = snapshot;
    let gone = store.fork_from(&base, fork_options("too late", Durability::Durable)).expect_err("not kept any more");
    assert_eq!(gone.code(), "TN0210");
    assert_eq!(store.name_version(&base, "too late").expect_err("not kept any more").code(), "TN0210");
}

#[test]
fn names_are_in_the_images_of_a_lost_disk() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let options = || without_history(directory.path());
    let store = open(options());
    fill(&store, ForkId::MAIN, 0..60);
    let (version, state) = name_head(&store, ForkId::MAIN, "kept");
    fill(&store, ForkId::MAIN, 0..90);
    store.image().expect("image");
    store.close().expect("close");
    drop(store);
    std::fs::remove_dir_all(directory.path().join("log")).expect("the disk is lost");
    let store = open(options());
    assert!(read(&store, "kept") == state);
    assert_eq!(store.named_versions().iter().map(|named| named.version).collect::<Vec<_>>(), [version]);
    store.close().expect("close");
    let view = StoreView::open(&options(), &(Arc::new(SystemEnv) as _), &mut |_| {}).expect("readable");
    assert_eq!(view.named.len(), 1);
}

#[test]
fn names_that_cannot_be() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(without_history(directory.path()));
    let old = store.snapshot(ForkId::MAIN).expect("snapshot");
    fill(&store, ForkId::MAIN, 0..20);
    let head = store.snapshot(ForkId::MAIN).expect("snapshot");
    store.name_version(&head, "a").expect("named");
    assert_eq!(store.name_version(&head, "a").expect_err("taken").code(), "TN0223");
    assert_eq!(store.name_version(&head, &"x".repeat(2000)).expect_err("too long").code(), "TN0221");
    assert_eq!(store.forget_version_name("b").expect_err("there is none").code(), "TN0226");
    let ephemeral = store.fork(ForkId::MAIN, fork_options("e", Durability::Ephemeral)).expect("fork").0.id;
    let of_it = store.snapshot(ephemeral).expect("snapshot");
    assert_eq!(store.name_version(&of_it, "c").expect_err("ephemeral").code(), "TN0225");
    store.trim_history();
    assert_eq!(store.name_version(&old, "d").expect_err("too old").code(), "TN0240");
    for number in 1..NAMED_VERSIONS_MAX {
        store.name_version(&head, &number.to_string()).expect("room");
    }
    assert_eq!(store.name_version(&head, "one too many").expect_err("too many").code(), "TN0224");
}

/// A version that only a snapshot keeps cannot be found by a restart, so no durable fork begins with it.
#[test]
fn a_durable_fork_of_what_is_not_kept_is_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let options = || without_history(directory.path());
    let store = open(options());
    fill(&store, ForkId::MAIN, 0..200);
    let old = store.snapshot(ForkId::MAIN).expect("snapshot");
    fill(&store, ForkId::MAIN, 100..400);
    settle(&store);
    assert!(store.image().expect("image").segments_deleted > 0);
    let refused = store.fork_from(&old, fork_options("old", Durability::Durable)).expect_err("a restart has it not");
    assert_eq!(refused.code(), "TN0240");
    let ephemeral = store.fork_from(&old, fork_options("now", Durability::Ephemeral)).expect("for as long as it lives");
    assert!(snapshot_content(&store, ephemeral.0.id) == content(&old));
    let state = snapshot_content(&store, ForkId::MAIN);
    let store = reopen(store, options());
    assert!(snapshot_content(&store, ForkId::MAIN) == state);
}

/// Names need no images.
#[test]
fn names_in_a_log_alone() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let options = || StoreOptions { images: ImagePlace::Nowhere, ..without_history(directory.path()) };
    let mut store = open(options());
    fill(&store, ForkId::MAIN, 0..30);
    let (_, state) = name_head(&store, ForkId::MAIN, "early");
    fill(&store, ForkId::MAIN, 0..60);
    let options_of_fork = ForkOptions { name: "of it".to_owned(), ..ForkOptions::default() };
    store.trim_history();
    let base = store.named_version("early").expect("named");
    let fork = store.fork_from(&base, options_of_fork).expect("fork").0.id;
    put_one(&store, fork, b"x", b"y");
    let of_fork = snapshot_content(&store, fork);
    for _ in 0..2 {
        store = reopen(store, options());
        assert!(read(&store, "early") == state && snapshot_content(&store, fork) == of_fork);
    }
    assert_eq!(store.snapshot(fork).map(|snapshot| tine_store::Read::len(&snapshot, KEYSPACE)).expect("fork"), 31);
}
