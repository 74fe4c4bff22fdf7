//! The writer of a fork: transactions one after the other.
//!
//! Writes go into the fork's draft at once and into an undo log; the operations for the commit's log record are
//! encoded beside. Rolling back replays the undo log backwards, committing hands the operations to the log queue.
//! Nothing is visible to snapshots before [`Writer::publish`], which shares the pages with readers; the first
//! edit of each page after that copies it.
//!
//! Invariants:
//! - The draft is the state of `head` plus the transaction's writes; the undo log leads back to `head`.
//! - The transaction has operations exactly if it has undo entries.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::checkpoint::{CHECKPOINT_BYTES_MAX, CHECKPOINTS_MAX, Checkpoints};
use crate::draft::Draft;
use crate::error::{Fault, StoreError, WriteError};
use crate::fork::{Fork, WriterSlot};
use crate::history::LastPin;
use crate::ids::{CheckpointId, DurableTicket, ForkId, KeyspaceId, Lsn, Version};
use crate::log::{RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES, RecordRef, put_operation};
use crate::page::{RECORD_INLINE_BYTES_MAX, RUN_REF_BYTES};
use crate::read::{Cursor, Direction, Published, Read, StateRef, ValueRef};
use crate::store::Shared;
use crate::undo::{UndoLog, UndoMark};

/// The longest key in bytes: keys lie inside of pages, which must hold two records with their values or references.
pub const KEY_BYTES_MAX: usize = RECORD_INLINE_BYTES_MAX - RUN_REF_BYTES;

/// The largest value in bytes: half of what a log record takes.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// Most bytes the log needs for one write besides its key and value.
const OPERATION_OVERHEAD_BYTES: usize = 16;

/// Buffers of a transaction that grew beyond this are not kept for the next.
const BUFFER_KEPT_BYTES_MAX: usize = 1 << 20;

/// The exclusive right to change a fork; see [`Store::writer`](crate::Store::writer).
///
/// There is always one transaction open: it begins with the first write and ends with [`Writer::commit`] or
/// [`Writer::rollback`]. Reads see its writes. Dropping the writer rolls back what is uncommitted, publishes
/// what is committed and frees the fork for the next writer.
pub struct Writer {
    store: Arc<Shared>,
    fork: Arc<Fork>,
    /// The last commit, with the state that was published last.
    head: Published,
    /// The state of the last commit with the transaction's writes.
    draft: Draft,
    published: Lsn,
    last_pin: LastPin,
    checkpoints: Option<Box<Checkpoints>>,
    undo: UndoLog,
    operations: Vec<u8>,
    /// Counts transactions, so that a savepoint of an older one is noticed.
    transaction: u64,
}

/// A place in the open transaction; see [`Writer::savepoint`].
#[derive(Clone, Copy, Debug)]
pub struct Savepoint {
    transaction: u64,
    undo: UndoMark,
    operations: usize,
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The fork's LSN now: a new one if `changed`, else the one it had.
    pub lsn: Lsn,
    /// Time of the commit with that LSN, in microseconds since the Unix epoch.
    pub timestamp_micros: i64,
    /// When this is durable, so is the commit and everything it could have read.
    pub durable: DurableTicket,
    /// Whether there were writes.
    pub changed: bool,
}

/// What reverting a checkpoint did to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: Bytes,
    /// Its value before.
    pub old: Option<Bytes>,
    /// Its value now.
    pub new: Option<Bytes>,
}

impl Writer {
    pub(crate) fn open(store: Arc<Shared>, fork: Arc<Fork>) -> Result<Writer, StoreError> {
        let slot = std::mem::replace(&mut *fork.more().writer.lock(), WriterSlot::Taken);
        let WriterSlot::Free(checkpoints) = slot else { return Err(StoreError::WriterBusy(fork.id)) };
        let last_pin = fork.history().last();
        let head = fork.published.lock().clone();
        let mut draft = Draft::new(Arc::clone(&head.state), fork.overlays.load(Ordering::Relaxed));
        draft.set_pin(last_pin.stamp);
        Ok(Writer {
            store,
            published: head.lsn,
            last_pin,
            draft,
            head,
            fork,
            checkpoints,
            undo: UndoLog::default(),
            operations: Vec::new(),
            transaction: 0,
        })
    }

    /// The fork this writes to.
    pub fn fork_id(&self) -> ForkId {
        self.fork.id
    }

    /// The last commit, published or not.
    pub fn version(&self) -> Version {
        Version { fork: self.fork.id, lsn: self.head.lsn }
    }

    /// Sets the value of `key`. Says whether the key had a value before. Putting the value it has changes nothing.
    ///
    /// Many records are loaded best in ascending order of their keys: then pages are filled to the end, one after the
    /// other.
    ///
    /// # Errors
    /// A limit is exceeded; nothing was written.
    pub fn put(&mut self, keyspace: KeyspaceId, key: &[u8], value: &[u8]) -> Result<bool, WriteError> {
        if key.len() > KEY_BYTES_MAX {
            return Err(WriteError::KeyTooLong { bytes: key.len(), limit: KEY_BYTES_MAX });
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(WriteError::ValueTooLong { bytes: value.len(), limit: VALUE_BYTES_MAX });
        }
        self.write(keyspace, key, Some(value))
    }

    /// Removes `key`. Says whether it was there.
    ///
    /// # Errors
    /// The transaction is too large; nothing was removed.
    pub fn delete(&mut self, keyspace: KeyspaceId, key: &[u8]) -> Result<bool, WriteError> {
        if key.len() > KEY_BYTES_MAX {
            return Ok(false);
        }
        self.write(keyspace, key, None)
    }

    fn write(&mut self, keyspace: KeyspaceId, key: &[u8], value: Option<&[u8]>) -> Result<bool, WriteError> {
        let size = key.len() + value.map_or(0, <[u8]>::len) + OPERATION_OVERHEAD_BYTES;
        let bytes = self.operations.len() + size + RECORD_OVERHEAD_BYTES;
        if bytes > RECORD_BYTES_MAX {
            return Err(WriteError::TransactionTooLarge { bytes, limit: RECORD_BYTES_MAX });
        }
        let written = self.undo.write(&mut self.draft, keyspace, key, value)?;
        if written.changed {
            put_operation(&mut self.operations, keyspace, key, value);
        }
        Ok(written.existed)
    }

    /// Whether the transaction has writes that changed something. A key written and written back counts.
    pub fn has_changes(&self) -> bool {
        !self.undo.is_empty()
    }

    /// A place in the transaction to go back to.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint { transaction: self.transaction, undo: self.undo.mark(), operations: self.operations.len() }
    }

    /// Undoes the writes since the savepoint, which stays usable; later ones of the same transaction do not.
    ///
    /// # Panics
    /// If the savepoint is of an earlier transaction or behind one that was rolled back to.
    pub fn rollback_to(&mut self, savepoint: Savepoint) {
        assert_eq!(savepoint.transaction, self.transaction, "a savepoint lives as long as its transaction");
        assert!(savepoint.operations <= self.operations.len(), "a savepoint ends with the writes before it");
        if savepoint.operations < self.operations.len() {
            self.undo.undo(&mut self.draft, savepoint.undo);
            self.operations.truncate(savepoint.operations);
        }
    }

    /// Undoes all writes of the transaction and ends it.
    pub fn rollback(&mut self) {
        if self.has_changes() {
            self.undo.undo(&mut self.draft, UndoLog::default().mark());
        }
        self.end_transaction();
    }

    /// [`Writer::commit_at`] the present time.
    ///
    /// # Errors
    /// As there.
    pub fn commit(&mut self, call: &[u8]) -> Result<Commit, WriteError> {
        let now = self.store.env.now_micros();
        self.commit_at(now, call)
    }

    /// Ends the transaction and gives it the next LSN. `call` is kept in the log beside the writes.
    ///
    /// The commit's time is `timestamp_hint_micros` or, if that is not later, one microsecond after the commit
    /// before. Without changes no LSN is used; then `call` is logged on its own unless it is empty.
    ///
    /// # Errors
    /// The commit was refused; the transaction is rolled back.
    pub fn commit_at(&mut self, timestamp_hint_micros: i64, call: &[u8]) -> Result<Commit, WriteError> {
        let result = self.try_commit(timestamp_hint_micros, call);
        match &result {
            Ok(commit) => {
                if commit.changed
                    && let Some(checkpoints) = self.checkpoints.as_mut().filter(|all| !all.is_empty())
                {
                    checkpoints.history.append(&mut self.undo);
                }
                self.end_transaction();
            }
            Err(_) => self.rollback(),
        }
        result
    }

    fn try_commit(&mut self, timestamp_hint_micros: i64, call: &[u8]) -> Result<Commit, WriteError> {
        let bytes = self.operations.len() + call.len() + RECORD_OVERHEAD_BYTES;
        if bytes > RECORD_BYTES_MAX {
            return Err(WriteError::TransactionTooLarge { bytes, limit: RECORD_BYTES_MAX });
        }
        if let Some(checkpoints) = self.checkpoints.as_ref().filter(|all| !all.is_empty()) {
            let bytes = checkpoints.history.size_bytes() + self.undo.size_bytes();
            if bytes > CHECKPOINT_BYTES_MAX {
                return Err(WriteError::CheckpointTooLarge { bytes, limit: CHECKPOINT_BYTES_MAX });
            }
        }
        self.append_commit(timestamp_hint_micros, call)
    }

    fn append_commit(&mut self, timestamp_hint_micros: i64, call: &[u8]) -> Result<Commit, WriteError> {
        self.store.queue.health()?;
        let dropped = self.fork.dropped.lock();
        if *dropped {
            return Err(WriteError::ForkDropped(self.fork.id));
        }
        let changed = self.has_changes();
        if changed {
            let lsn = Lsn::new(self.head.lsn.get() + 1);
            let timestamp_micros = timestamp_hint_micros.max(self.head.timestamp_micros + 1);
            if self.fork.is_durable() {
                let version = Version { fork: self.fork.id, lsn };
                let record = RecordRef::Commit { version, timestamp_micros, operations: &self.operations, call };
                self.head.ticket = self.store.queue.append(&record)?;
                // The lock held here orders it.
                self.fork.more().last_commit.store(self.head.ticket.get(), Ordering::Relaxed);
            }
            self.head.lsn = lsn;
            self.head.timestamp_micros = timestamp_micros;
        } else if !call.is_empty() && self.fork.is_durable() {
            self.head.ticket = self.store.queue.append(&RecordRef::Call { fork: self.fork.id, call })?;
        }
        Ok(Commit {
            lsn: self.head.lsn,
            timestamp_micros: self.head.timestamp_micros,
            durable: if self.fork.is_durable() { self.head.ticket } else { DurableTicket::NONE },
            changed,
        })
    }

    fn end_transaction(&mut self) {
        self.transaction += 1;
        if self.undo.size_bytes() > BUFFER_KEPT_BYTES_MAX {
            self.undo = UndoLog::default();
        }
        self.undo.clear();
        self.operations.clear();
        self.operations.shrink_to(BUFFER_KEPT_BYTES_MAX);
    }

    /// Makes the commits visible to snapshots and new forks. Costs little, but the next write to each tree
    /// node copies it, so it pays to do this once per batch of commits.
    ///
    /// # Panics
    /// If the transaction has uncommitted changes.
    pub fn publish(&mut self) {
        assert!(!self.has_changes(), "only committed states are published");
        if self.published != self.head.lsn {
            self.published = self.head.lsn;
            let replaced = std::mem::replace(&mut self.head.state, self.draft.freeze());
            if !self.draft.overlays() {
                self.fork.overlays.store(false, Ordering::Relaxed);
            }
            let previous = std::mem::replace(&mut *self.fork.published.lock(), self.head.clone());
            // Freeing what only the previous version held happens here, outside of the lock.
            drop((previous, replaced));
            if self.fork.is_durable() && self.last_pin.is_behind(self.head.lsn, self.head.timestamp_micros) {
                let displaced_bytes = self.draft.take_displaced_bytes();
                let (id, history) = (self.fork.id, self.fork.history());
                self.last_pin = self.store.retention.pin(id, history, self.head.clone(), displaced_bytes);
                self.draft.set_pin(self.last_pin.stamp);
            }
        }
    }

    /// Begins a checkpoint inside of those that are open. It belongs to the fork, not to this writer.
    ///
    /// # Errors
    /// The transaction has uncommitted changes, or too many checkpoints are open.
    pub fn begin_checkpoint(&mut self) -> Result<CheckpointId, WriteError> {
        self.between_transactions()?;
        let checkpoints = self.checkpoints.get_or_insert_default();
        checkpoints.begin().ok_or(WriteError::CheckpointsTooDeep { limit: CHECKPOINTS_MAX })
    }

    /// Ends a checkpoint, and those inside of it, keeping what was committed.
    ///
    /// # Errors
    /// It is not open, or the transaction has uncommitted changes.
    pub fn commit_checkpoint(&mut self, id: CheckpointId) -> Result<(), WriteError> {
        self.between_transactions()?;
        self.open_checkpoint(id)?;
        self.close_checkpoint(id);
        Ok(())
    }

    /// Ends a checkpoint, and those inside of it, and brings back the state at its beginning with one more
    /// commit, which takes an LSN unless nothing differs. Returns what that commit changed, in key order.
    ///
    /// # Errors
    /// It is not open, or the commit was refused; then it stays open.
    pub fn revert_checkpoint(&mut self, id: CheckpointId, call: &[u8]) -> Result<(Commit, Vec<Change>), WriteError> {
        self.between_transactions()?;
        let mark = self.open_checkpoint(id)?;
        let checkpoints = self.checkpoints.as_mut().expect("one is open");
        let mut undone = checkpoints.history.split_off(mark);
        let changes = self.write_back(&undone);
        let result = changes.and_then(|changes| {
            let now = self.store.env.now_micros();
            Ok((self.append_commit(now, call)?, changes))
        });
        match result {
            Ok(done) => {
                // The history up to the mark leads back from this state as well as it did before.
                self.end_transaction();
                self.close_checkpoint(id);
                Ok(done)
            }
            Err(error) => {
                self.rollback();
                self.checkpoints.as_mut().expect("one is open").history.append(&mut undone);
                Err(error)
            }
        }
    }

    /// Writes the oldest value of each key in `undone` that is not its value now.
    fn write_back(&mut self, undone: &UndoLog) -> Result<Vec<Change>, WriteError> {
        let mut oldest = BTreeMap::new();
        for write in undone.writes() {
            oldest.entry((write.keyspace, write.key)).or_insert(write.old);
        }
        let mut changes = Vec::new();
        for ((keyspace, key), value) in oldest {
            let old = StateRef::of_draft(&self.draft).get(keyspace, key)?;
            if old.map(ValueRef::as_slice) != value {
                let old = old.as_deref().map(Bytes::copy_from_slice);
                self.write(keyspace, key, value)?;
                let (key, new) = (Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice));
                changes.push(Change { keyspace, key, old, new });
            }
        }
        Ok(changes)
    }

    fn between_transactions(&self) -> Result<(), WriteError> {
        if self.has_changes() { Err(WriteError::UncommittedChanges) } else { Ok(()) }
    }

    fn open_checkpoint(&self, id: CheckpointId) -> Result<UndoMark, WriteError> {
        let mark = self.checkpoints.as_ref().and_then(|checkpoints| checkpoints.mark_of(id));
        mark.ok_or(WriteError::NoSuchCheckpoint(id))
    }

    fn close_checkpoint(&mut self, id: CheckpointId) {
        self.checkpoints.as_mut().expect("one is open").close(id);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.rollback();
        self.publish();
        *self.fork.more().writer.lock() = WriterSlot::Free(self.checkpoints.take());
    }
}

impl Read for Writer {
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<ValueRef<'_>>, Fault> {
        StateRef::of_draft(&self.draft).get(keyspace, key)
    }

    fn range<'a>(
        &'a self,
        keyspace: KeyspaceId,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
    ) -> Cursor<'a> {
        StateRef::of_draft(&self.draft).range(keyspace, start, end, direction)
    }

    fn len(&self, keyspace: KeyspaceId) -> u64 {
        StateRef::of_draft(&self.draft).len(keyspace)
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Writer({})", self.version())
    }
}
