//! What it takes to undo writes: the value each key had before.

use std::sync::Arc;

use crate::draft::{Draft, EditError};
use crate::ids::KeyspaceId;
use crate::tree::Displaced;

/// Writes in the order they were made, each with what it replaced.
#[derive(Default)]
pub(crate) struct UndoLog {
    entries: Vec<Entry>,
    /// Keys and small values of the entries.
    bytes: Vec<u8>,
    /// Bytes of the large values of the entries.
    large_bytes: usize,
}

struct Entry {
    keyspace: KeyspaceId,
    /// Where the key starts in `bytes`; a small old value follows it.
    start: usize,
    key_length: usize,
    old: Old,
}

enum Old {
    Absent,
    Inline { length: usize },
    Large(Arc<[u8]>),
}

/// A length of an [`UndoLog`] to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UndoMark {
    entries: usize,
    bytes: usize,
}

/// One undone write: the key's value before it.
pub(crate) struct UndoneWrite<'a> {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: &'a [u8],
    pub(crate) old: Option<&'a [u8]>,
}

impl UndoLog {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Memory that the log takes, never less than the operations that would undo it take in a log record.
    pub(crate) fn size_bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>() + self.bytes.len() + self.large_bytes
    }

    pub(crate) fn mark(&self) -> UndoMark {
        UndoMark { entries: self.entries.len(), bytes: self.bytes.len() }
    }

    /// Writes to `draft` and remembers how to undo it. `value` `None` deletes. Says what was there.
    pub(crate) fn write(
        &mut self,
        draft: &mut Draft,
        keyspace: KeyspaceId,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Written, EditError> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let displaced = match draft.write(keyspace, key, value, &mut self.bytes) {
            Ok(displaced) => displaced,
            Err(error) => {
                self.bytes.truncate(start);
                return Err(error);
            }
        };
        let old = match displaced {
            Displaced::Nothing if value.is_some() => Old::Absent,
            Displaced::Nothing | Displaced::Same => {
                self.bytes.truncate(start);
                return Ok(Written { existed: value.is_some(), changed: false });
            }
            Displaced::Inline => Old::Inline { length: self.bytes.len() - start - key.len() },
            Displaced::Large(value) => {
                self.large_bytes += value.len();
                Old::Large(value)
            }
        };
        let existed = !matches!(old, Old::Absent);
        self.entries.push(Entry { keyspace, start, key_length: key.len(), old });
        Ok(Written { existed, changed: true })
    }

    /// Undoes the writes since `mark`, the last first.
    pub(crate) fn undo(&mut self, draft: &mut Draft, mark: UndoMark) {
        let mut replaced = Vec::new();
        while self.entries.len() > mark.entries {
            let entry = self.entries.pop().expect("there are more than the mark says");
            let write = entry.view(&self.bytes);
            replaced.clear();
            draft.write_back(write.keyspace, write.key, write.old, &mut replaced);
            self.forget(&entry);
        }
        self.bytes.truncate(mark.bytes);
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
        self.large_bytes = 0;
    }

    /// Moves all entries of `other` behind those of this log.
    pub(crate) fn append(&mut self, other: &mut UndoLog) {
        let shift = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.entries.extend(other.entries.drain(..).map(|entry| Entry { start: entry.start + shift, ..entry }));
        self.large_bytes += other.large_bytes;
        other.clear();
    }

    /// Cuts off the entries since `mark`.
    pub(crate) fn split_off(&mut self, mark: UndoMark) -> UndoLog {
        let entries = self.entries.split_off(mark.entries);
        let bytes = self.bytes.split_off(mark.bytes);
        entries.iter().for_each(|entry| self.forget(entry));
        let mut tail = UndoLog { entries, bytes, large_bytes: 0 };
        for entry in &mut tail.entries {
            entry.start -= mark.bytes;
            if let Old::Large(value) = &entry.old {
                tail.large_bytes += value.len();
            }
        }
        tail
    }

    /// The writes in the order they were made.
    pub(crate) fn writes(&self) -> impl Iterator<Item = UndoneWrite<'_>> {
        self.entries.iter().map(|entry| entry.view(&self.bytes))
    }

    fn forget(&mut self, entry: &Entry) {
        if let Old::Large(value) = &entry.old {
            self.large_bytes -= value.len();
        }
    }
}

/// What a write did.
#[derive(Clone, Copy)]
pub(crate) struct Written {
    pub(crate) existed: bool,
    pub(crate) changed: bool,
}

impl Entry {
    fn view<'a>(&'a self, bytes: &'a [u8]) -> UndoneWrite<'a> {
        let (key, rest) = bytes[self.start..].split_at(self.key_length);
        let old = match &self.old {
            Old::Absent => None,
            Old::Inline { length } => Some(&rest[..*length]),
            Old::Large(value) => Some(&**value),
        };
        UndoneWrite { keyspace: self.keyspace, key, old }
    }
}
