//! Looking at stores that are open elsewhere, or damaged.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tine_base::{Env, SystemEnv};
use tine_store::{Durability, ForkId, OpenError, Store, StoreOptions, StoreView};

use crate::support::{KEYSPACE, StopOnDrop, content, fork_options, open, options, put_one, settle, snapshot_content};

fn view(directory: &Path) -> Result<StoreView, OpenError> {
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    StoreView::open(&options(directory), &env, &mut |_| {})
}

#[test]
fn a_view_shows_what_is_durable_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    for number in 0..200_u8 {
        put_one(&store, ForkId::MAIN, &[number], &vec![number; 700]);
    }
    let side = store.fork(ForkId::MAIN, fork_options("side", Durability::Durable)).expect("fork").0.id;
    store.fork(ForkId::MAIN, fork_options("passing", Durability::Ephemeral)).expect("fork");
    settle(&store);
    store.image().expect("image");
    put_one(&store, side, b"behind the images", b"value");
    settle(&store);
    // Those behind the one that is written to are being made ahead.
    let written = directory.path().join("log").join(format!("{:010}.log", store.stats().segment));
    let entries = || {
        let paths = SystemEnv.read_dir(&directory.path().join("log")).expect("list");
        let paths = paths.into_iter().filter(|path| *path <= written);
        paths.map(|path| (std::fs::read(&path).expect("read"), path)).collect::<Vec<_>>()
    };
    let before = entries();
    let view = view(directory.path()).expect("an open store can be looked at");
    assert!(entries() == before);
    let expected: Vec<_> = store.forks().into_iter().filter(|fork| fork.durability == Durability::Durable).collect();
    assert_eq!(view.forks().cloned().collect::<Vec<_>>(), expected);
    for fork in [ForkId::MAIN, side] {
        assert!(content(view.snapshot(fork).expect("there")) == snapshot_content(&store, fork));
    }
    assert_eq!(view.keyspaces(side), [(KEYSPACE, 201)]);
    assert_eq!(view.last_record, store.durable().get());
    assert_eq!(
        view.images.map(|images| (images.manifest, images.versions)),
        Some((2, 3)),
        "two heads and main's beginning"
    );
    assert!((1..=before.len()).contains(&view.log.len()));
}

/// While commits, forks and images go on, every view is one of the states there were.
#[test]
fn views_of_a_busy_store_are_of_one_moment() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let options = StoreOptions {
        history_micros: 0,
        history_bytes: 0,
        image_bytes: 200_000,
        segment_bytes_max: 32_768,
        ..options(directory.path())
    };
    let store = Store::open(options, Arc::new(SystemEnv)).expect("open");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let mut writer = store.writer(ForkId::MAIN).expect("writer");
                writer.put(KEYSPACE, b"left", &number.to_le_bytes()).expect("put");
                writer.put(KEYSPACE, b"right", &number.to_le_bytes()).expect("put");
                writer.put(KEYSPACE, &(number % 50).to_le_bytes(), &[number as u8; 500]).expect("put");
                writer.commit(b"").expect("commit");
                drop(writer);
                if number.is_multiple_of(20) {
                    let options = fork_options(&format!("fork{number}"), Durability::Durable);
                    let fork = store.fork(ForkId::MAIN, options).expect("fork").0.id;
                    put_one(&store, fork, b"fork", b"value");
                    store.drop_fork(fork).expect("drop");
                }
                settle(&store);
            }
        });
        let _stop = StopOnDrop(&stop);
        let mut last = 0;
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut views = 0;
        // Until there were images, too, whose files come and go.
        while views < 30 || store.imaged_versions().len() <= 1 {
            views += 1;
            assert!(std::time::Instant::now() < patience, "no images are made");
            let durable = store.durable().get();
            let view = view(directory.path()).expect("a busy store can be looked at");
            assert!(view.last_record >= durable.max(last));
            last = view.last_record;
            let main = content(view.snapshot(ForkId::MAIN).expect("main"));
            let side = |key: &[u8]| main.get(&(KEYSPACE.get(), key.to_vec()));
            assert_eq!(side(b"left"), side(b"right"));
        }
    });
}

#[test]
fn damage_is_refused_with_its_place() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    for number in 0..5 {
        put_one(&store, ForkId::MAIN, &[number], b"value");
        settle(&store);
    }
    store.close().expect("close");
    let path = directory.path().join("log/0000000001.log");
    let mut content = std::fs::read(&path).expect("read");
    content[2 * 4096 + 60] ^= 1;
    std::fs::write(&path, content).expect("write");
    match view(directory.path()).expect_err("damaged") {
        OpenError::Corrupt { file, offset, .. } => assert_eq!((file, offset), (path, 2 * 4096)),
        other => panic!("{other:?}"),
    }
}
