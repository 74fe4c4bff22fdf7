//! Older versions: which can be had, what they hold, and what they cost.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tine_base::{FaultEnv, SystemEnv};
use tine_store::{Durability, ForkId, HistoryError, Lsn, Snapshot, Store, StoreOptions, Version, VersionAt, Writer};

use crate::support::{
    KEYSPACE, State, assert_equals_log, content, fork_options, options, put_one, settle, snapshot_content,
};

const SECOND: i64 = 1_000_000;

/// Keys that commits write to, so that most writes replace something.
const KEYS: u64 = 300;

/// Commits on a fork and what it held after each.
struct Recorded {
    /// By LSN.
    states: Vec<(i64, State)>,
}

impl Recorded {
    fn new() -> Recorded {
        Recorded { states: vec![(0, State::new())] }
    }

    fn commit(&mut self, writer: &mut Writer, timestamp_micros: i64) {
        let number = self.states.len() as u64;
        let (_, mut state) = self.states.last().expect("never empty").clone();
        for offset in 0..2 {
            let key = ((number * 7_919 + offset * 13) % KEYS).to_be_bytes();
            if number % 5 == 4 && offset == 1 {
                writer.delete(KEYSPACE, &key).expect("delete");
                state.remove(&(KEYSPACE.get(), key.to_vec()));
            } else {
                let value = number.to_be_bytes().repeat(4);
                writer.put(KEYSPACE, &key, &value).expect("put");
                state.insert((KEYSPACE.get(), key.to_vec()), value);
            }
        }
        let commit = writer.commit_at(timestamp_micros, b"recorded").expect("commit");
        assert_eq!(commit.lsn.get(), number);
        self.states.push((commit.timestamp_micros, state));
    }
}

fn at(store: &Store, fork: ForkId, lsn: u64) -> Result<Snapshot, HistoryError> {
    store.snapshot_at(fork, VersionAt::Lsn(Lsn::new(lsn)))
}

/// 500 commits a simulated second, so that pins come by time; published in batches.
fn fill(store: &Store, commits: u64, start_micros: i64) -> Recorded {
    let mut recorded = Recorded::new();
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    for number in 0..commits {
        recorded.commit(&mut writer, start_micros + number as i64 * SECOND / 500);
        if number % 17 == 0 {
            writer.publish();
        }
    }
    recorded
}

fn check_all(store: &Store, recorded: &Recorded, step: usize) {
    for lsn in (0..recorded.states.len()).step_by(step) {
        let (timestamp_micros, state) = &recorded.states[lsn];
        let by_lsn = at(store, ForkId::MAIN, lsn as u64).unwrap_or_else(|error| panic!("{lsn}: {error}"));
        assert_eq!(by_lsn.version(), Version { fork: ForkId::MAIN, lsn: Lsn::new(lsn as u64) });
        assert_eq!(by_lsn.timestamp_micros(), *timestamp_micros);
        assert!(content(&by_lsn) == *state, "the state at {lsn}");
        // Until just before the next commit.
        let until = recorded.states.get(lsn + 1).map_or(*timestamp_micros + 5, |(next, _)| next - 1);
        for time in [*timestamp_micros, until] {
            let by_time = store.snapshot_at(ForkId::MAIN, VersionAt::Time(time)).expect("retained");
            assert_eq!(by_time.version(), by_lsn.version(), "at {time}");
        }
    }
}

fn now_micros() -> i64 {
    tine_base::Env::now_micros(&SystemEnv)
}

#[test]
fn every_version_can_be_had_again_also_after_a_restart() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let open = || Store::open(options(directory.path()), Arc::new(SystemEnv)).expect("open");
    let store = open();
    let recorded = fill(&store, 4_000, now_micros() - 20 * SECOND);
    let pins = store.stats().pins;
    assert!((7..=10).contains(&pins), "{pins} pins for eight seconds");
    check_all(&store, &recorded, 61);
    drop(store);
    let store = open();
    // Batches are not in the log, so pins may lie elsewhere.
    let pins = store.stats().pins;
    assert!((7..=10).contains(&pins), "{pins} pins for eight seconds");
    check_all(&store, &recorded, 73);
    assert_eq!(store.oldest_retained(ForkId::MAIN).expect("main"), Lsn::new(0));
    let error = at(&store, ForkId::MAIN, 4_001).expect_err("in the future");
    assert!(matches!(error, HistoryError::NoSuchVersion { head, .. } if head == Lsn::new(4_000)), "{error}");
    assert_eq!(error.code(), "TN0241");
}

/// A version asked for just after its commit may not have reached the disk.
#[test]
fn versions_on_their_way_to_the_disk_are_waited_for() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let env = Arc::new(FaultEnv::new(Arc::new(SystemEnv)));
    let store = Store::open(options(directory.path()), env.clone()).expect("open");
    env.sync_delay(Duration::from_millis(50));
    let recorded = fill(&store, 50, now_micros());
    for lsn in [49, 30, 2] {
        assert!(content(&at(&store, ForkId::MAIN, lsn).expect("retained")) == recorded.states[lsn as usize].1);
    }
}

#[test]
fn forks_of_the_past_are_forks() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let open = || Store::open(options(directory.path()), Arc::new(SystemEnv)).expect("open");
    let store = open();
    let recorded = fill(&store, 1_000, now_micros() - 20 * SECOND);
    let base = at(&store, ForkId::MAIN, 321).expect("retained");
    let (fork, ticket) = store.fork_from(&base, fork_options("past", Durability::Durable)).expect("fork");
    assert!(ticket.get() > 0);
    assert_eq!(fork.parent, Some(Version { fork: ForkId::MAIN, lsn: Lsn::new(321) }));
    assert_eq!(put_one(&store, fork.id, b"own", b"1"), Lsn::new(322));
    assert_eq!(put_one(&store, fork.id, b"own", b"2"), Lsn::new(323));

    // The past of the fork is that of its parent, up to where it began.
    let older = at(&store, fork.id, 200).expect("retained");
    assert_eq!(older.version(), Version { fork: ForkId::MAIN, lsn: Lsn::new(200) });
    assert!(content(&older) == recorded.states[200].1);
    let own = at(&store, fork.id, 322).expect("retained");
    assert_eq!(own.version(), Version { fork: fork.id, lsn: Lsn::new(322) });
    let (grandchild, _) = store.fork_from(&own, fork_options("further", Durability::Durable)).expect("fork");
    let (mist, _) = store.fork_from(&older, fork_options("mist", Durability::Ephemeral)).expect("fork");
    for number in 0..3 {
        put_one(&store, mist.id, b"mist", &[number]);
    }
    assert!(content(&at(&store, mist.id, 200).expect("the origin")) == recorded.states[200].1);
    let unlogged = at(&store, mist.id, 201).expect_err("an ephemeral fork is not logged");
    assert!(matches!(unlogged, HistoryError::NotRetained { oldest, .. } if oldest == Lsn::new(203)), "{unlogged}");

    assert_equals_log(&store, directory.path(), Arc::new(SystemEnv));
    let before = snapshot_content(&store, grandchild.id);
    drop((base, older, own));
    drop(store);
    let store = open();
    assert!(snapshot_content(&store, grandchild.id) == before);
    assert!(content(&at(&store, grandchild.id, 150).expect("retained")) == recorded.states[150].1);

    // Without the parent its past is gone; what forks hold of it stays (G8).
    store.drop_fork(ForkId::MAIN).expect("drop");
    let gone = at(&store, fork.id, 200).expect_err("the parent is gone");
    assert!(matches!(gone, HistoryError::NotRetained { oldest, .. } if oldest == Lsn::new(321)), "{gone}");
    assert_eq!(gone.code(), "TN0240");
    assert!(content(&at(&store, fork.id, 321).expect("the origin")) == recorded.states[321].1);
    assert!(snapshot_content(&store, grandchild.id) == before);
}

#[test]
fn versions_age_out_of_the_window_with_their_memory() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let env = Arc::new(FaultEnv::new(Arc::new(SystemEnv)));
    let options = StoreOptions { history_micros: 60 * SECOND, ..options(directory.path()) };
    let store = Store::open(options.clone(), env.clone()).expect("open");
    // Eight seconds of commits that end now. What follows is as of now, however long the test takes.
    let begin = now_micros();
    let later = |micros: i64| env.clock_offset_micros(micros - (now_micros() - begin));
    let recorded = fill(&store, 4_000, begin - 8 * SECOND);
    let (fork, _) = store.fork(ForkId::MAIN, fork_options("idle", Durability::Durable)).expect("fork");
    let full = store.stats();
    assert!(full.pin_bytes > 0, "{full:?}");
    later(0);
    store.trim_history();
    assert_eq!(store.stats().pins, full.pins, "all is in the window");

    later(56 * SECOND);
    store.trim_history();
    let some = store.stats();
    assert!(some.pins < full.pins && some.pins > 0, "{some:?}");
    assert!(some.pin_bytes < full.pin_bytes, "{some:?}");
    let oldest = store.oldest_retained(ForkId::MAIN).expect("main").get();
    assert!((1_000..2_500).contains(&oldest), "{oldest}");
    assert!(content(&at(&store, ForkId::MAIN, oldest).expect("retained")) == recorded.states[oldest as usize].1);
    assert!(content(&at(&store, fork.id, oldest + 9).expect("retained")) == recorded.states[oldest as usize + 9].1);
    let error = at(&store, ForkId::MAIN, oldest - 1).expect_err("too old");
    assert!(matches!(error, HistoryError::NotRetained { oldest: named, .. } if named.get() == oldest), "{error}");
    let (too_old, _) = recorded.states[900];
    store.snapshot_at(ForkId::MAIN, VersionAt::Time(too_old)).expect_err("too old");

    later(300 * SECOND);
    store.trim_history();
    assert_eq!((store.stats().pins, store.stats().pin_bytes), (0, 0), "an idle fork keeps its head alone");
    assert_eq!(store.oldest_retained(ForkId::MAIN).expect("main"), Lsn::new(4_000));
    assert!(snapshot_content(&store, ForkId::MAIN) == recorded.states[4_000].1);
    settle(&store);
    drop(store);
    let store = Store::open(options, env).expect("open");
    assert_eq!(store.oldest_retained(ForkId::MAIN).expect("main"), Lsn::new(4_000), "also after a restart");
}

#[test]
fn the_window_has_a_size_in_bytes_of_log() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let options = StoreOptions { history_bytes: 1 << 20, ..StoreOptions::new(directory.path()) };
    let store = Store::open(options, Arc::new(SystemEnv)).expect("open");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    // 4 MiB of log, a pin per 64 KiB.
    for number in 0..64_u64 {
        writer.put(KEYSPACE, b"key", &vec![number as u8; 64 << 10]).expect("put");
        writer.commit_at(now_micros() + number as i64 * SECOND, b"").expect("commit");
        writer.publish();
        // So that the records do not share a frame.
        settle(&store);
    }
    store.trim_history();
    let oldest = store.oldest_retained(ForkId::MAIN).expect("main").get();
    // The border is that of a frame in the index of places.
    assert!((40..=52).contains(&oldest), "{oldest}");
    let snapshot = at(&store, ForkId::MAIN, oldest + 1).expect("retained");
    assert_eq!(content(&snapshot).into_values().next().expect("one key")[0] as u64, oldest);
}

#[test]
fn pins_stay_within_their_budget() {
    for (pins_max, pin_bytes_max) in [(5, u64::MAX), (4096, 200_000)] {
        let directory = tempfile::tempdir().expect("temporary directory");
        let options = StoreOptions { pins_max, pin_bytes_max, ..options(directory.path()) };
        let store = Store::open(options.clone(), Arc::new(SystemEnv)).expect("open");
        let recorded = fill(&store, 20_000, now_micros() - 40 * SECOND);
        let check = |store: &Store| {
            let stats = store.stats();
            assert!(stats.pins <= pins_max && stats.pins >= 2, "{stats:?}");
            assert!(stats.pin_bytes <= pin_bytes_max && stats.pin_bytes > 0, "{stats:?}");
            check_all(store, &recorded, 1_999);
        };
        check(&store);
        drop(store);
        check(&Store::open(options, Arc::new(SystemEnv)).expect("open"));
    }
}

#[test]
fn dropping_a_fork_gives_its_pins_back() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(options(directory.path()), Arc::new(SystemEnv)).expect("open");
    fill(&store, 2_000, now_micros() - 20 * SECOND);
    assert!(store.stats().pins > 0);
    let writer = store.writer(ForkId::MAIN).expect("writer");
    store.drop_fork(ForkId::MAIN).expect("drop");
    drop(writer);
    assert_eq!((store.stats().pins, store.stats().pin_bytes), (0, 0));
}

/// Moving a name is one record: a log cut anywhere has the old fork or the new one behind the name.
#[test]
fn replacing_a_fork_moves_its_name_at_once() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let open = |path: &Path| Store::open(options(path), Arc::new(SystemEnv)).expect("open");
    let store = open(directory.path());
    put_one(&store, ForkId::MAIN, b"old", b"1");
    let expiring = tine_store::ForkOptions { expires_at_micros: Some(77), ..fork_options("new", Durability::Durable) };
    let (new, _) = store.fork_empty(expiring).expect("fork");
    assert_eq!((new.parent, new.head, new.expires_at_micros), (None, Lsn::new(0), Some(77)));
    put_one(&store, new.id, b"new", b"1");
    let (child, _) = store.fork(ForkId::MAIN, fork_options("child", Durability::Durable)).expect("fork");
    let (mist, _) = store.fork(ForkId::MAIN, fork_options("mist", Durability::Ephemeral)).expect("fork");
    assert_eq!(store.replace_fork(ForkId::MAIN, mist.id).expect_err("not as durable").code(), "TN0222");
    store.replace_fork(new.id, new.id).expect_err("itself");

    let ticket = store.replace_fork(ForkId::MAIN, new.id).expect("replace");
    let check = |store: &Store| {
        assert_eq!(store.fork_named("main"), Some(new.id));
        assert_eq!((store.fork_named("new"), store.fork_info(ForkId::MAIN)), (None, None));
        assert_eq!(store.fork_info(new.id).expect("there").expires_at_micros, Some(77));
        assert!(snapshot_content(store, new.id).contains_key(&(KEYSPACE.get(), b"new".to_vec())));
        assert!(snapshot_content(store, child.id).contains_key(&(KEYSPACE.get(), b"old".to_vec())));
    };
    check(&store);
    store.wait_durable(ticket, crate::support::WAIT).expect("durable");
    assert_equals_log(&store, directory.path(), Arc::new(SystemEnv));
    drop(store);
    check(&open(directory.path()));
}
