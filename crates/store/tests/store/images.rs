//! Images: opening from them, history across restarts, and what they make superfluous.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tine_base::SystemEnv;
use tine_store::{
    Direction, Durability, ForkId, ImagePlace, Lsn, ObjectError, ObjectInfo, Objects, OpenError, Read, RemoteObjects,
    Store, StoreOptions, Version, VersionAt, check_images,
};

use crate::support::{KEYSPACE, State, content, fork_options, options, put_one, settle, snapshot_content};

fn open(options: StoreOptions) -> Store {
    Store::open(options, Arc::new(SystemEnv)).expect("open")
}

/// Everything older than the head is outside of the history's window.
fn without_history(directory: &Path) -> StoreOptions {
    StoreOptions { history_micros: 0, history_bytes: 0, ..options(directory) }
}

fn fill(store: &Store, fork: ForkId, numbers: std::ops::Range<u64>) {
    let mut writer = store.writer(fork).expect("writer");
    for number in numbers {
        let value = vec![number as u8; if number % 50 == 7 { 9000 } else { 300 }];
        writer.put(KEYSPACE, &number.to_be_bytes(), &value).expect("put");
        writer.commit(b"a call").expect("commit");
    }
}

fn segments(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("log")).expect("list").count()
}

#[test]
fn a_store_opens_from_its_images_and_the_log_behind_them() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(options(directory.path()));
    fill(&store, ForkId::MAIN, 0..800);
    let side = store.fork(ForkId::MAIN, fork_options("side", Durability::Durable)).expect("fork").0.id;
    let gone = store.fork(ForkId::MAIN, fork_options("gone", Durability::Durable)).expect("fork").0.id;
    fill(&store, side, 5000..5100);
    let report = store.image().expect("image");
    assert_eq!((report.manifest, report.forks), (2, 3));
    assert!(report.pages > 60, "{report:?}");
    let again = store.image().expect("image");
    assert_eq!((again.manifest, again.pages), (3, 0), "nothing changed");
    fill(&store, ForkId::MAIN, 700..900);
    let late = store.fork(ForkId::MAIN, fork_options("late", Durability::Durable)).expect("fork").0.id;
    fill(&store, late, 6000..6010);
    store.drop_fork(gone).expect("drop");
    store.rename_fork(side, "other").expect("rename");
    let forks = store.forks();
    let states: Vec<State> = forks.iter().map(|fork| snapshot_content(&store, fork.id)).collect();
    store.close().expect("close");
    drop(store);

    let store = open(options(directory.path()));
    assert!(store.recovery_report().commits < 300, "{:?}", store.recovery_report());
    assert_eq!(store.forks(), forks);
    for (fork, state) in forks.iter().zip(&states) {
        assert!(snapshot_content(&store, fork.id) == *state, "{}", fork.name);
    }
    // Written on, imaged again and opened again.
    fill(&store, late, 0..20);
    fill(&store, side, 300..320);
    let states: Vec<State> = forks.iter().map(|fork| snapshot_content(&store, fork.id)).collect();
    let report = store.image().expect("image");
    assert!(report.pages > 0 && report.pages < 200, "only what changed: {report:?}");
    store.check_pages().expect("every page is accounted for");
    store.close().expect("close");
    drop(store);
    let store = open(options(directory.path()));
    assert_eq!(store.recovery_report().commits, 0);
    for (fork, state) in forks.iter().zip(&states) {
        assert!(snapshot_content(&store, fork.id) == *state, "{}", fork.name);
    }
    store.check_pages().expect("every page is accounted for");
}

#[test]
fn history_goes_back_behind_images_across_restarts() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut states = vec![State::new()];
    let mut store = open(options(directory.path()));
    for round in 0..6_u64 {
        for number in 0..10_u64 {
            put_one(&store, ForkId::MAIN, &(round * 3 + number).to_be_bytes(), &round.to_be_bytes());
            states.push(snapshot_content(&store, ForkId::MAIN));
        }
        if round % 2 == 0 {
            store.image().expect("image");
        }
        store.close().expect("close");
        drop(store);
        store = open(options(directory.path()));
        assert_eq!(store.oldest_retained(ForkId::MAIN).expect("main"), Lsn::new(0));
        for (lsn, state) in states.iter().enumerate() {
            let at = store.snapshot_at(ForkId::MAIN, VersionAt::Lsn(Lsn::new(lsn as u64))).expect("retained");
            assert!(content(&at) == *state, "round {round}, version {lsn}");
        }
    }
    // Forks of versions that the newest image is past come back as well.
    let base = store.snapshot_at(ForkId::MAIN, VersionAt::Lsn(Lsn::new(33))).expect("retained");
    let fork = store.fork_from(&base, fork_options("past", Durability::Durable)).expect("fork").0.id;
    put_one(&store, fork, b"of the fork", b"x");
    let state = snapshot_content(&store, fork);
    store.close().expect("close");
    drop(store);
    let store = open(options(directory.path()));
    assert!(snapshot_content(&store, fork) == state);
    assert!(snapshot_content(&store, ForkId::MAIN) == *states.last().expect("states"));
}

#[test]
fn segments_go_when_images_have_them_and_history_does_not_need_them() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(without_history(directory.path()));
    let idle = store.fork(ForkId::MAIN, fork_options("idle", Durability::Durable)).expect("fork").0.id;
    for start in (0..3000).step_by(500) {
        fill(&store, ForkId::MAIN, start..start + 500);
        settle(&store);
    }
    let before = segments(directory.path());
    assert!(before > 5, "{before} segments");
    let report = store.image().expect("image");
    assert!(report.segments_deleted > 5, "{report:?}");
    // The one being written and the one made ahead.
    assert!(segments(directory.path()) <= 2, "the idle fork holds none");
    fill(&store, ForkId::MAIN, 3000..3050);
    let (state, of_idle) = (snapshot_content(&store, ForkId::MAIN), snapshot_content(&store, idle));
    store.close().expect("close");
    drop(store);
    let store = open(without_history(directory.path()));
    assert!(snapshot_content(&store, ForkId::MAIN) == state);
    assert!(snapshot_content(&store, idle) == of_idle);
    assert_eq!(store.snapshot_at(ForkId::MAIN, VersionAt::Lsn(Lsn::new(5))).expect_err("gone").code(), "TN0240");

    // Without the images the rest of the log is worth nothing, and says so.
    store.close().expect("close");
    drop(store);
    let alone = StoreOptions { images: ImagePlace::Nowhere, ..without_history(directory.path()) };
    let error = Store::open(alone, Arc::new(SystemEnv)).expect_err("the beginning is missing");
    assert!(matches!(&error, OpenError::Corrupt { offset: 0, .. }), "{error:?}");
}

#[test]
fn history_keeps_the_segments_it_needs() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(options(directory.path()));
    fill(&store, ForkId::MAIN, 0..1000);
    let report = store.image().expect("image");
    assert_eq!(report.segments_deleted, 0, "seven days are not over");
    for lsn in [1, 17, 999] {
        let at = store.snapshot_at(ForkId::MAIN, VersionAt::Lsn(Lsn::new(lsn))).expect("retained");
        assert_eq!(at.len(KEYSPACE), lsn);
    }
}

#[test]
fn images_alone_bring_the_store_back() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(options(directory.path()));
    fill(&store, ForkId::MAIN, 0..500);
    let side = store.fork(ForkId::MAIN, fork_options("side", Durability::Durable)).expect("fork").0.id;
    store.image().expect("image");
    let state = snapshot_content(&store, ForkId::MAIN);
    store.close().expect("close");
    drop(store);
    std::fs::remove_dir_all(directory.path().join("log")).expect("the disk is lost");
    let store = open(options(directory.path()));
    assert!(snapshot_content(&store, ForkId::MAIN) == state);
    fill(&store, side, 500..600);
    let of_side = snapshot_content(&store, side);
    let other = store.fork(side, fork_options("other", Durability::Durable)).expect("fork").0.id;
    assert!(other > side, "numbers are not used again");
    store.close().expect("close");
    drop(store);
    let store = open(options(directory.path()));
    assert!(snapshot_content(&store, side) == of_side);
    assert!(snapshot_content(&store, other) == of_side);
}

#[test]
fn every_imaged_version_can_be_read_and_forked() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(options(directory.path()));
    let mut states = Vec::new();
    for round in 0..4_u64 {
        fill(&store, ForkId::MAIN, round * 100..round * 100 + 150);
        store.image().expect("image");
        states.push((store.fork_info(ForkId::MAIN).expect("main").head, snapshot_content(&store, ForkId::MAIN)));
    }
    let versions = store.imaged_versions();
    assert_eq!(versions.len(), 5, "the heads and the origin");
    for (lsn, state) in &states {
        let version = Version { fork: ForkId::MAIN, lsn: *lsn };
        let snapshot = store.snapshot_of_image(version).expect("imaged");
        assert!(content(&snapshot) == *state);
        let name = format!("restored {lsn}");
        let fork = store.fork_from(&snapshot, fork_options(&name, Durability::Durable)).expect("fork").0.id;
        fill(&store, fork, 0..10);
    }
    let missing = Version { fork: ForkId::MAIN, lsn: Lsn::new(7) };
    assert_eq!(store.snapshot_of_image(missing).expect_err("not imaged").code(), "TN0265");
    store.check_pages().expect("every page is accounted for");
}

/// Damage anywhere in the images is an error that says where, when what is damaged is read.
#[test]
fn damaged_images_are_refused_with_their_place() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(options(directory.path()));
    fill(&store, ForkId::MAIN, 0..300);
    store.image().expect("image");
    store.close().expect("close");
    drop(store);
    let damage = |path: &Path, at: usize| {
        let mut content = std::fs::read(path).expect("read");
        content[at] ^= 0x10;
        std::fs::write(path, content).expect("write");
    };
    let files = |folder: &str| {
        let entries = std::fs::read_dir(directory.path().join("images").join(folder)).expect("list");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
        paths.sort();
        paths
    };
    let pack = files("packs").pop().expect("a pack");
    let length = std::fs::metadata(&pack).expect("there").len() as usize;
    let mut found = 0;
    for at in (64..length).step_by(4104 * 3 + 411) {
        damage(&pack, at);
        let store = open(options(directory.path()));
        let snapshot = store.snapshot(ForkId::MAIN).expect("nothing is read yet");
        for number in 0..300_u64 {
            match snapshot.get(KEYSPACE, &number.to_be_bytes()) {
                Ok(value) => assert_eq!(value.expect("there")[0], number as u8),
                Err(error) => {
                    assert_eq!(error.code(), "TN0262", "{error:?}");
                    let text = format!("{error:?}");
                    let page = 64 + (at - 64) / 4104 * 4104;
                    assert!(text.contains(&format!("offset: {page},")) && text.contains(".pack"), "{at}: {text}");
                    found += 1;
                }
            }
        }
        store.close().expect("close");
        drop(store);
        damage(&pack, at);
    }
    assert!(found > 50, "damage was met {found} times");
    let place = || Arc::new(RemoteObjects::directory(&directory.path().join("images")).expect("place"));
    let check = check_images(place()).expect("all is intact again");
    assert!(check.versions == 2 && check.pages as usize == (length - 64) / 4104, "{check:?}");
    damage(&pack, 5000);
    assert_eq!(check_images(place()).expect_err("damaged").code(), "TN0262");
    let manifest = files("manifests").pop().expect("a manifest");
    damage(&manifest, 60);
    let error = Store::open(options(directory.path()), Arc::new(SystemEnv)).expect_err("damaged");
    assert_eq!(error.code(), "TN0262", "{error:?}");
}

#[test]
fn a_writer_that_was_replaced_images_nothing_more() {
    let (one, two) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
    let shared = tempfile::tempdir().expect("directory");
    let place = || -> Arc<dyn Objects> { Arc::new(RemoteObjects::directory(shared.path()).expect("place")) };
    let old = open(StoreOptions { images: ImagePlace::Objects(place()), ..options(one.path()) });
    fill(&old, ForkId::MAIN, 0..50);
    old.image().expect("image");
    let new = open(StoreOptions { images: ImagePlace::Objects(place()), ..options(two.path()) });
    assert!(snapshot_content(&new, ForkId::MAIN) == snapshot_content(&old, ForkId::MAIN), "opened on another machine");
    fill(&new, ForkId::MAIN, 50..60);
    let manifest = new.image().expect("takes over").manifest;
    for _ in 0..2 {
        fill(&old, ForkId::MAIN, 100..110);
        assert_eq!(old.image().expect_err("replaced").code(), "TN0264");
    }
    assert_eq!(new.image().expect("goes on").manifest, manifest + 1);
}

/// A place that stops working after a number of changes, as when the process is killed there.
#[derive(Debug)]
struct Stopping {
    inner: RemoteObjects,
    left: AtomicU64,
    /// Whether what fails was done nevertheless.
    lost_answers: bool,
    log: Mutex<Vec<String>>,
}

impl Stopping {
    fn change(&self, what: String, change: impl FnOnce() -> Result<(), ObjectError>) -> Result<(), ObjectError> {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Err(ObjectError::Other("stopped".into()));
        }
        self.left.store(left - 1, Ordering::SeqCst);
        self.log.lock().push(what);
        if left > 1 {
            return change();
        }
        if self.lost_answers {
            change()?;
        }
        Err(ObjectError::Timeout)
    }
}

impl Objects for Stopping {
    fn create(&self, name: &str, content: Bytes) -> Result<(), ObjectError> {
        self.change(format!("create {name}"), || self.inner.create(name, content))
    }

    fn read(&self, name: &str, range: Option<std::ops::Range<u64>>) -> Result<Bytes, ObjectError> {
        if self.left.load(Ordering::SeqCst) == 0 {
            return Err(ObjectError::Other("stopped".into()));
        }
        self.inner.read(name, range)
    }

    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
        self.inner.list(folder)
    }

    fn delete(&self, name: &str) -> Result<(), ObjectError> {
        self.change(format!("delete {name}"), || self.inner.delete(name))
    }

    fn address(&self, name: &str) -> String {
        self.inner.address(name)
    }
}

/// A process that is killed between any two changes of the images, or after one whose answer it did not get, loses
/// nothing.
#[test]
fn rounds_may_be_killed_anywhere() {
    for (stop, lost_answers) in (1..12).flat_map(|stop| [(stop, false), (stop, true)]) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let inner = || RemoteObjects::directory(&directory.path().join("images")).expect("place");
        let place = Stopping { inner: inner(), left: AtomicU64::new(stop), lost_answers, log: Mutex::default() };
        let images = ImagePlace::Objects(Arc::new(place));
        let store = open(StoreOptions { images, ..without_history(directory.path()) });
        let mut failed = false;
        for round in 0..4_u64 {
            fill(&store, ForkId::MAIN, round * 40..round * 40 + 60);
            settle(&store);
            failed |= store.image().is_err();
        }
        assert!(failed || stop > 8, "stopped after {stop}");
        let state = snapshot_content(&store, ForkId::MAIN);
        drop(store);
        let store =
            open(StoreOptions { images: ImagePlace::Objects(Arc::new(inner())), ..without_history(directory.path()) });
        assert!(snapshot_content(&store, ForkId::MAIN) == state, "stopped after {stop}");
        fill(&store, ForkId::MAIN, 1000..1010);
        store.image().expect("goes on");
        let state = snapshot_content(&store, ForkId::MAIN);
        drop(store);
        let store = open(without_history(directory.path()));
        assert!(snapshot_content(&store, ForkId::MAIN) == state, "stopped after {stop}");
        store.check_pages().expect("every page is accounted for");
    }
}

fn scan(snapshot: &impl Read, mut each: impl FnMut(&[u8], &[u8])) {
    let mut cursor = snapshot.range(KEYSPACE, Bound::Unbounded, Bound::Unbounded, Direction::Forward);
    while let Some((key, value)) = cursor.next().expect("readable") {
        each(key, value);
    }
}

/// A store ten times as large as the memory for it is scanned with the right result, while slices are held.
#[test]
fn state_may_be_larger_than_memory() {
    // As large as it is meant to be with `cargo xtask test --long`.
    let scale = if std::env::var_os("TINE_TESTS_LONG").is_some() { 16 } else { 1 };
    let (budget_bytes, records): (u64, u64) = (scale * (4 << 20), scale * 45_000);
    let directory = tempfile::tempdir().expect("temporary directory");
    let value = |number: u64| vec![number as u8; 1000 + (number % 7) as usize * (number % 900 == 5) as usize * 1000];
    let store = open(StoreOptions { segment_bytes_max: 8 << 20, ..without_history(directory.path()) });
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    for number in 0..records {
        writer.put(KEYSPACE, &number.to_be_bytes(), &value(number)).expect("put");
        if number % 100 == 99 {
            writer.commit(b"").expect("commit");
        }
    }
    drop(writer);
    let pages = store.image().expect("image").pages;
    assert!(pages * 4096 > 10 * budget_bytes, "{pages} pages");
    store.close().expect("close");
    drop(store);
    let options = StoreOptions { memory_bytes: budget_bytes, ..without_history(directory.path()) };
    let store = open(options);
    let snapshot = store.snapshot(ForkId::MAIN).expect("snapshot");
    let first = snapshot.get(KEYSPACE, &0_u64.to_be_bytes()).expect("readable").expect("there");
    for _ in 0..2 {
        let mut next = 0_u64;
        scan(&snapshot, |key, found| {
            assert!(key == next.to_be_bytes() && found == value(next), "record {next}");
            next += 1;
        });
        assert_eq!(next, records);
        assert!(first.iter().all(|byte| *byte == 0), "a slice stays what it was");
        store.trim_history();
    }
    // Written on, with pages coming from the image as they are needed.
    fill(&store, ForkId::MAIN, 0..300);
    store.image().expect("image");
    let state = snapshot_content(&store, ForkId::MAIN);
    assert_eq!(state.len() as u64, records);
    store.close().expect("close");
    drop((snapshot, store));
    let store = open(without_history(directory.path()));
    assert!(snapshot_content(&store, ForkId::MAIN) == state);
}

/// What no image needs goes, also out of packs that are mostly of no use any more.
#[test]
fn space_is_given_back() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let options = || StoreOptions { image_age_micros: 0, ..without_history(directory.path()) };
    let bytes = |folder: &str| -> u64 {
        let entries = std::fs::read_dir(directory.path().join("images").join(folder)).expect("list");
        entries.map(|entry| entry.expect("entry").metadata().expect("there").len()).sum()
    };
    let mut store = open(options());
    fill(&store, ForkId::MAIN, 0..10_000);
    store.image().expect("image");
    let once = bytes("packs");
    assert!(once > 3 << 20, "{once} bytes");
    let mut most = 0;
    for round in 0..30_u64 {
        for start in (0..10_000).step_by(2000) {
            fill(&store, ForkId::MAIN, start + round * 60..start + round * 60 + 400);
        }
        store.image().expect("image");
        most = most.max(bytes("packs"));
        if round % 10 == 9 {
            let state = snapshot_content(&store, ForkId::MAIN);
            store.check_pages().expect("every page is accounted for");
            store.close().expect("close");
            drop(store);
            store = open(options());
            assert!(snapshot_content(&store, ForkId::MAIN) == state, "round {round}");
        }
    }
    assert!(most < once * 9, "{most} bytes in place of {once}");
    for _ in 0..3 {
        fill(&store, ForkId::MAIN, 0..20_000);
        store.image().expect("image");
    }
    let place = Arc::new(RemoteObjects::directory(&directory.path().join("images")).expect("place"));
    check_images(place).expect("what is left is whole");
    assert!(std::fs::read_dir(directory.path().join("images/manifests")).expect("list").count() <= 2);
}

#[test]
fn rounds_come_by_themselves() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(StoreOptions { image_bytes: 100_000, ..without_history(directory.path()) });
    let mut number = 0;
    while store.imaged_versions().is_empty() || segments(directory.path()) > 4 {
        fill(&store, ForkId::MAIN, number..number + 50);
        settle(&store);
        number += 50;
        assert!(number < 200_000, "a round comes");
    }
    let state = snapshot_content(&store, ForkId::MAIN);
    store.close().expect("close");
    drop(store);
    let store = open(without_history(directory.path()));
    assert!(snapshot_content(&store, ForkId::MAIN) == state);
}
