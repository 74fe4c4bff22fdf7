//! Transactions of one writer, beyond what the model test covers.

use std::sync::Arc;

use tine_base::SystemEnv;
use tine_store::{DurableTicket, ForkId, KEY_BYTES_MAX, KeyspaceId, LogRecordKind, Lsn, Read, Store, VALUE_BYTES_MAX};

use crate::support::{KEYSPACE, WAIT, content, open, settle, snapshot_content};

#[test]
fn limits_are_typed_errors_that_write_nothing() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    let key = vec![1; KEY_BYTES_MAX + 1];
    assert_eq!(writer.put(KEYSPACE, &key, b"").expect_err("too long").code(), "TN0230");
    assert!(!writer.delete(KEYSPACE, &key).expect("cannot be there"));
    let value = vec![1; VALUE_BYTES_MAX + 1];
    assert_eq!(writer.put(KEYSPACE, b"a", &value).expect_err("too long").code(), "TN0231");
    writer.put(KEYSPACE, &key[1..], &value[1..]).expect("the largest of both");
    assert_eq!(writer.put(KEYSPACE, b"b", &value[1..]).expect_err("two of them").code(), "TN0232");
    writer.put(KEYSPACE, b"", b"").expect("the smallest of both");
    assert_eq!(content(&writer).len(), 2);
    assert_eq!(writer.commit(&value[1..]).expect_err("too much with the call").code(), "TN0232");
    assert!(!writer.has_changes() && content(&writer).is_empty(), "rolled back");
    writer.put(KEYSPACE, &key[1..], &value[1..]).expect("put");
    let commit = writer.commit(b"").expect("a frame larger than any segment");
    store.wait_durable(commit.durable, WAIT).expect("durable");
    drop(writer);
    store.close().expect("close");
    let store = open(directory.path()).expect("open");
    let snapshot = store.snapshot(ForkId::MAIN).expect("snapshot");
    assert!(snapshot.get(KEYSPACE, &key[1..]).expect("in memory").as_deref() == Some(&value[1..]));
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    writer.put(KEYSPACE, b"after", b"1").expect("put");
    writer.commit(b"").expect("commit");
}

#[test]
fn transaction_without_changes_takes_no_lsn_but_logs_its_call() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    writer.put(KEYSPACE, b"a", b"1").expect("put");
    let first = writer.commit_at(1_000, b"one").expect("commit");
    assert_eq!((first.lsn, first.timestamp_micros, first.changed), (Lsn::new(1), 1_000, true));
    assert!(writer.put(KEYSPACE, b"a", b"1").expect("put"), "there was a value");
    assert!(!writer.has_changes(), "the same value is no change");
    assert!(!writer.delete(KEYSPACE, b"absent").expect("delete"));
    let silent = writer.commit_at(2_000, b"").expect("commit");
    assert_eq!((silent.lsn, silent.timestamp_micros, silent.changed), (first.lsn, 1_000, false));
    assert_eq!(silent.durable, first.durable, "what it read is durable with the commit before");
    let logged = writer.commit_at(2_000, b"two").expect("commit");
    assert_eq!((logged.lsn, logged.changed), (first.lsn, false));
    assert!(logged.durable > first.durable);
    let failed = store.append_call(ForkId::MAIN, b"three").expect("call");
    assert!(failed > logged.durable);
    settle(&store);
    let records = Store::read_log(directory.path(), Arc::new(SystemEnv)).expect("readable");
    let calls: Vec<_> = records
        .filter_map(|record| match record.expect("intact").kind {
            LogRecordKind::Commit { version, call, timestamp_micros, .. } => {
                assert_eq!((version.lsn, timestamp_micros), (Lsn::new(1), 1_000));
                Some(call)
            }
            LogRecordKind::Call { call, fork: ForkId::MAIN } => Some(call),
            _ => None,
        })
        .collect();
    assert_eq!(calls, [&b"one"[..], b"two", b"three"]);
}

#[test]
fn nothing_is_visible_before_it_is_published() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    writer.put(KEYSPACE, b"a", b"1").expect("put");
    writer.commit(b"").expect("commit");
    assert!(snapshot_content(&store, ForkId::MAIN).is_empty());
    writer.publish();
    let snapshot = store.snapshot(ForkId::MAIN).expect("snapshot");
    assert_eq!((snapshot.version().lsn, content(&snapshot).len()), (Lsn::new(1), 1));
    assert!(snapshot.ticket() > DurableTicket::NONE);
    writer.put(KEYSPACE, b"b", b"1").expect("put");
    writer.commit(b"").expect("commit");
    writer.put(KEYSPACE, b"c", b"1").expect("put");
    drop(writer);
    let state = snapshot_content(&store, ForkId::MAIN);
    assert_eq!(state.len(), 2, "dropping the writer publishes what is committed and rolls back the rest");
    assert_eq!(content(&snapshot).len(), 1);
}

#[test]
fn savepoints_nest() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    let other = KeyspaceId::new(30);
    writer.put(KEYSPACE, b"a", &[1; 2000]).expect("put");
    let first = writer.savepoint();
    writer.put(KEYSPACE, b"a", &[2; 3000]).expect("put");
    writer.put(other, b"a", b"1").expect("put");
    let second = writer.savepoint();
    writer.delete(KEYSPACE, b"a").expect("delete");
    writer.rollback_to(second);
    writer.rollback_to(second);
    assert_eq!(writer.get(KEYSPACE, b"a").expect("in memory").as_deref(), Some(&[2; 3000][..]));
    writer.rollback_to(first);
    assert_eq!(writer.get(KEYSPACE, b"a").expect("in memory").as_deref(), Some(&[1; 2000][..]));
    assert_eq!(writer.len(other), 0);
    writer.put(other, b"b", b"1").expect("put");
    writer.commit(b"").expect("commit");
    drop(writer);
    store.close().expect("close");
    let store = open(directory.path()).expect("open");
    let state = snapshot_content(&store, ForkId::MAIN);
    assert_eq!(state.len(), 2, "what was rolled back is not in the log");
}

#[test]
#[should_panic(expected = "a savepoint lives as long as its transaction")]
fn savepoint_of_an_earlier_transaction_is_a_bug() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    let savepoint = writer.savepoint();
    writer.put(KEYSPACE, b"a", b"1").expect("put");
    writer.commit(b"").expect("commit");
    writer.rollback_to(savepoint);
}
