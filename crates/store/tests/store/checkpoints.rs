//! The nested checkpoints of a fork, beyond what the model test covers.

use tine_store::{Durability, ForkId, Read, Writer};

use crate::support::{KEYSPACE, content, fork_options, open};

fn put(writer: &mut Writer, key: &[u8], value: &[u8]) {
    writer.put(KEYSPACE, key, value).expect("put");
    writer.commit(b"").expect("commit");
}

#[test]
fn belong_to_the_fork_and_not_to_the_writer() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    put(&mut writer, b"a", b"1");
    let id = writer.begin_checkpoint().expect("begin");
    put(&mut writer, b"a", b"2");
    drop(writer);
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    put(&mut writer, b"b", b"2");
    let (commit, changes) = writer.revert_checkpoint(id, b"undo").expect("revert");
    assert_eq!((commit.lsn.get(), commit.changed), (4, true), "a revert is a commit");
    let changes: Vec<_> =
        changes.iter().map(|change| (&change.key[..], change.old.as_deref(), change.new.as_deref())).collect();
    assert_eq!(changes, [(&b"a"[..], Some(&b"2"[..]), Some(&b"1"[..])), (&b"b"[..], Some(&b"2"[..]), None)]);
    assert_eq!(writer.revert_checkpoint(id, b"").expect_err("ended").code(), "TN0234");
    assert_eq!(writer.commit_checkpoint(id).expect_err("ended").code(), "TN0234");
}

#[test]
fn outer_one_ends_the_inner_ones() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    put(&mut writer, b"a", b"0");
    let before = content(&writer);
    let outer = writer.begin_checkpoint().expect("begin");
    put(&mut writer, b"a", b"1");
    let inner = writer.begin_checkpoint().expect("begin");
    put(&mut writer, b"a", b"2");
    writer.revert_checkpoint(inner, b"").expect("revert");
    assert_eq!(writer.get(KEYSPACE, b"a").expect("in memory").as_deref(), Some(&b"1"[..]));
    let kept = writer.begin_checkpoint().expect("begin");
    put(&mut writer, b"a", b"3");
    writer.commit_checkpoint(kept).expect("commit");
    let abandoned = writer.begin_checkpoint().expect("begin");
    put(&mut writer, b"a", b"4");
    writer.revert_checkpoint(outer, b"").expect("revert");
    assert!(content(&writer) == before);
    assert_eq!(writer.commit_checkpoint(abandoned).expect_err("ended with the outer one").code(), "TN0234");
    let (commit, changes) = {
        let id = writer.begin_checkpoint().expect("begin");
        writer.revert_checkpoint(id, b"").expect("revert")
    };
    assert!(!commit.changed && changes.is_empty(), "nothing to bring back takes no LSN");
}

#[test]
fn misuse_and_bounds_are_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    let id = writer.begin_checkpoint().expect("begin");
    writer.put(KEYSPACE, b"a", b"1").expect("put");
    assert_eq!(writer.begin_checkpoint().expect_err("uncommitted").code(), "TN0237");
    assert_eq!(writer.commit_checkpoint(id).expect_err("uncommitted").code(), "TN0237");
    assert_eq!(writer.revert_checkpoint(id, b"").expect_err("uncommitted").code(), "TN0237");
    writer.rollback();
    let error = loop {
        if let Err(error) = writer.begin_checkpoint() {
            break error;
        }
    };
    assert_eq!(error.code(), "TN0235");
    writer.commit_checkpoint(id).expect("still fine");
}

/// What a checkpoint would have to remember is bounded; without one the same writes are fine.
#[test]
fn changes_inside_of_a_checkpoint_are_bounded() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let (fork, _) = store.fork(ForkId::MAIN, fork_options("e", Durability::Ephemeral)).expect("fork");
    let mut writer = store.writer(fork.id).expect("writer");
    let values = [vec![1_u8; 40 << 20], vec![2_u8; 40 << 20]];
    put(&mut writer, b"a", &values[0]);
    let id = writer.begin_checkpoint().expect("begin");
    put(&mut writer, b"a", &values[1]);
    put(&mut writer, b"a", &values[0]);
    writer.put(KEYSPACE, b"a", &values[1]).expect("put");
    assert_eq!(writer.commit(b"").expect_err("120 MiB of old values").code(), "TN0236");
    assert!(writer.get(KEYSPACE, b"a").expect("in memory").as_deref() == Some(&values[0]), "rolled back");
    let (commit, _) = writer.revert_checkpoint(id, b"").expect("what was accepted can be reverted");
    assert!(!commit.changed, "the value is the one from before");
    put(&mut writer, b"a", &values[1]);
    put(&mut writer, b"a", &values[0]);
    put(&mut writer, b"a", &values[1]);
}

#[test]
fn none_survives_a_restart_and_forks_start_without() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    let id = writer.begin_checkpoint().expect("begin");
    put(&mut writer, b"a", b"1");
    drop(writer);
    let (fork, _) = store.fork(ForkId::MAIN, fork_options("x", Durability::Durable)).expect("fork");
    let mut of_fork = store.writer(fork.id).expect("writer");
    assert_eq!(of_fork.revert_checkpoint(id, b"").expect_err("the parent's").code(), "TN0234");
    drop(of_fork);
    store.close().expect("close");
    let store = open(directory.path()).expect("open");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    assert_eq!(writer.revert_checkpoint(id, b"").expect_err("gone").code(), "TN0234");
    assert_eq!(content(&writer).len(), 1);
}
