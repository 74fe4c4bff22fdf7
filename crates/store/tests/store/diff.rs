//! Differences of versions and merges, against maps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tine_store::{
    Change, Conflict, Difference, Durability, ForkId, KeyspaceId, Lsn, MergeError, Read, Resolution, Snapshot, Store,
    Version, VersionAt, merge_changes,
};

use crate::support::{KEYSPACE, State, content, fork_options, open, put_one};

/// A keyspace, a key, and the byte and length of a value, or none to delete.
type Write = (u32, u16, Option<(u8, usize)>);

/// Writes of one commit, and which fork they go to.
type Commit = (usize, Vec<Write>);

/// Old and new value by keyspace and key.
type Differences = BTreeMap<(u32, Vec<u8>), (Option<Vec<u8>>, Option<Vec<u8>>)>;

fn commit() -> impl Strategy<Value = Commit> {
    let length = prop_oneof![6 => 0_usize..100, 1 => 600_usize..5000];
    let value = prop::option::weighted(0.8, (any::<u8>(), length));
    // Few commits are large, so that some forks stay overlaid and others are folded.
    let size = prop_oneof![5 => 1_usize..5, 1 => 100_usize..300];
    let write = (16_u32..18, 0_u16..400, value);
    (0_usize..5, size.prop_flat_map(move |size| prop::collection::vec(write.clone(), size)))
}

fn write(store: &Store, fork: ForkId, writes: &[Write]) {
    let mut writer = store.writer(fork).expect("writer");
    for (keyspace, key, value) in writes {
        let (keyspace, key) = (KeyspaceId::new(*keyspace), key.to_be_bytes());
        match value {
            Some((byte, length)) => writer.put(keyspace, &key, &vec![*byte; *length]).expect("put"),
            None => writer.delete(keyspace, &key).expect("delete"),
        };
    }
    writer.commit(b"").expect("commit");
}

/// Differences as they should be.
fn expected(old: &State, new: &State) -> Differences {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
    let values = |key: &(u32, Vec<u8>)| (old.get(key).cloned(), new.get(key).cloned());
    keys.into_iter().map(|key| (key.clone(), values(&key))).filter(|(_, (old, new))| old != new).collect()
}

fn diff(old: &Snapshot, new: &Snapshot) -> Differences {
    let mut found = BTreeMap::new();
    for keyspace in old.changed_keyspaces(new) {
        let mut diff = old.diff(new, keyspace);
        let mut last: Option<Vec<u8>> = None;
        while let Some(Difference { key, old, new }) = diff.next().expect("in memory") {
            assert!(last.as_deref().is_none_or(|last| last < key), "differences come in key order");
            last = Some(key.to_vec());
            found.insert((keyspace.get(), key.to_vec()), (old.map(<[u8]>::to_vec), new.map(<[u8]>::to_vec)));
        }
        assert!(diff.next().expect("in memory").is_none());
    }
    found
}

/// A merge of maps: the changes, or the keys in conflict.
fn merged(base: &State, ours: &State, theirs: &State) -> Result<State, BTreeSet<(u32, Vec<u8>)>> {
    let (mut result, mut conflicts) = (ours.clone(), BTreeSet::new());
    for (key, (old, new)) in expected(base, theirs) {
        let present = ours.get(&key).cloned();
        if present == new {
            continue;
        }
        if present != old {
            conflicts.insert(key);
            continue;
        }
        match new {
            Some(value) => result.insert(key, value),
            None => result.remove(&key),
        };
    }
    if conflicts.is_empty() { Ok(result) } else { Err(conflicts) }
}

fn check_merge(store: &Store, base: &Snapshot, ours: ForkId, theirs: &Snapshot) {
    let mut writer = store.writer(ours).expect("writer");
    let states = (content(base), content(&writer), content(theirs));
    let result = writer.merge(base, theirs, &mut |_: &Conflict| Resolution::Undecided);
    match (result, merged(&states.0, &states.1, &states.2)) {
        (Ok(_), Ok(expected)) => assert!(content(&writer) == expected),
        (Err(MergeError::Conflicts(found)), Err(expected)) => {
            let found: BTreeSet<_> =
                found.into_iter().map(|conflict| (conflict.keyspace.get(), conflict.key.to_vec())).collect();
            assert_eq!(found, expected);
            assert!(content(&writer) == states.1, "nothing was applied");
        }
        (result, expected) => panic!("{:?} and {:?}", result.map(|changes| changes.len()), expected.map(|_| ())),
    }
    writer.rollback();
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::with_cases(16) })]

    #[test]
    fn differences_and_merges_are_those_of_maps(
        first in prop::collection::vec(commit(), 1..6),
        second in prop::collection::vec(commit(), 1..12),
    ) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = open(directory.path()).expect("open");
        for (_, writes) in &first {
            write(&store, ForkId::MAIN, writes);
        }
        let mut forks = vec![ForkId::MAIN];
        for number in 0..4 {
            let options = fork_options(&format!("fork{number}"), Durability::Ephemeral);
            let made = if number == 3 { store.fork_empty(options) } else { store.fork(forks[number / 2], options) };
            forks.push(made.expect("fork").0.id);
        }
        let mut versions: Vec<Snapshot> = forks.iter().map(|fork| store.snapshot(*fork).expect("snapshot")).collect();
        for (fork, writes) in &second {
            write(&store, forks[*fork], writes);
            versions.push(store.snapshot(forks[*fork]).expect("snapshot"));
        }
        let states: Vec<State> = versions.iter().map(content).collect();
        for (old, old_state) in versions.iter().zip(&states) {
            for (new, new_state) in versions.iter().zip(&states) {
                prop_assert!(diff(old, new) == expected(old_state, new_state));
            }
        }
        let last = versions.len() - 1;
        for (base, theirs) in [(0, last), (1, last), (last / 2, last), (last, 0)] {
            for ours in [forks[0], forks[1], forks[4]] {
                check_merge(&store, &versions[base], ours, &versions[theirs]);
            }
        }
        prop_assert!(store.check_pages().is_ok());
    }
}

#[test]
fn a_fork_is_merged_into_its_parent_from_their_common_base() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    put_one(&store, ForkId::MAIN, b"shared", b"1");
    put_one(&store, ForkId::MAIN, b"removed", b"1");
    let fork = store.fork(ForkId::MAIN, fork_options("f", Durability::Durable)).expect("fork").0.id;
    let grandchild = store.fork(fork, fork_options("g", Durability::Durable)).expect("fork").0.id;
    put_one(&store, ForkId::MAIN, b"ours", b"1");
    put_one(&store, fork, b"theirs", b"1");
    put_one(&store, grandchild, b"theirs", b"2");
    let mut writer = store.writer(fork).expect("writer");
    writer.delete(KEYSPACE, b"removed").expect("delete");
    writer.commit(b"").expect("commit");
    drop(writer);

    let head = |fork| store.snapshot(fork).expect("snapshot").version();
    let at = |fork, lsn| Version { fork, lsn: Lsn::new(lsn) };
    let common = |left, right| store.common_base(left, right).expect("forks exist");
    let base = common(head(ForkId::MAIN), head(fork)).expect("a common past");
    assert_eq!(base, at(ForkId::MAIN, 2));
    assert_eq!(common(head(grandchild), head(fork)), Some(at(ForkId::MAIN, 2)));
    assert_eq!(common(at(ForkId::MAIN, 1), head(grandchild)), Some(at(ForkId::MAIN, 1)));
    let apart = store.fork_empty(fork_options("e", Durability::Ephemeral)).expect("fork").0.id;
    assert_eq!(common(head(apart), head(fork)), None);

    // The fork itself has its base, also when the parent has moved on or is gone.
    let base = store.snapshot_at(fork, VersionAt::Lsn(base.lsn)).expect("retained");
    let theirs = store.snapshot(fork).expect("snapshot");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    let changes = writer.merge(&base, &theirs, &mut |_: &Conflict| panic!("no conflicts")).expect("merge");
    assert_eq!(changes.len(), 2);
    assert!(writer.commit(b"merge").expect("commit").changed);
    assert_eq!(writer.get(KEYSPACE, b"theirs").expect("in memory").as_deref(), Some(&b"1"[..]));
    assert_eq!(writer.get(KEYSPACE, b"ours").expect("in memory").as_deref(), Some(&b"1"[..]));
    assert_eq!(writer.get(KEYSPACE, b"removed").expect("in memory"), None);

    // The same again changes nothing: what is there already is left out.
    let again = merge_changes(&writer, &base, &theirs, &[KEYSPACE], &mut |_: &Conflict| Resolution::Undecided);
    assert_eq!(again.expect("no conflicts"), Vec::<Change>::new());
    drop(writer);

    let theirs = store.snapshot(grandchild).expect("snapshot");
    let mut decisions = Vec::new();
    for resolution in [Resolution::Ours, Resolution::Theirs, Resolution::Value(b"3"[..].to_owned().into())] {
        let ours = store.snapshot(ForkId::MAIN).expect("snapshot");
        let mut policy = |conflict: &Conflict| {
            assert_eq!((conflict.base.as_deref(), conflict.ours.as_deref()), (None, Some(&b"1"[..])));
            resolution.clone()
        };
        let changes = merge_changes(&ours, &base, &theirs, &[KEYSPACE], &mut policy).expect("decided");
        decisions.push(changes.first().and_then(|change| change.new.clone()));
    }
    assert_eq!(decisions, [None, Some(b"2"[..].to_owned().into()), Some(b"3"[..].to_owned().into())]);
}
