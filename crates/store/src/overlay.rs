//! The first few writes of a fork, on top of the trees it shares.
//!
//! The first change to a page copies it and the pages above: some 12 KiB for a record of 100 bytes. Most forks are
//! short-lived and write little, here and there. So the records that a fresh fork writes lie in a small sorted list
//! beside the trees, which readers consult first; when it is full it is written to the trees and the fork never has one
//! again.
//!
//! Invariants:
//! - Entries are sorted by keyspace and key, at most one each; what an entry says holds, whatever the tree says.
//! - `in_tree` says whether the tree has a record of that key. An entry that says the key is absent is of one it has.
//! - Bounded by [`ENTRIES_MAX`] and [`HEAP_BYTES_MAX`], so cloning one for a new version costs little.

use std::cmp::Ordering;
use std::ops::{Bound, Range};

use crate::ids::KeyspaceId;

/// Entries at which the list is written to the trees. Reading through a hundred costs about a tenth of a look-up.
pub(crate) const ENTRIES_MAX: usize = 128;

/// Bytes of keys and values at which it is.
pub(crate) const HEAP_BYTES_MAX: usize = 16 * 1024;

/// Bytes of the largest record that goes into the list: larger ones would fill it at once.
pub(crate) const RECORD_BYTES_MAX: usize = 512;

/// A small sorted list of records and absences.
#[derive(Clone, Default)]
pub(crate) struct Overlay {
    entries: Vec<Entry>,
    heap: Vec<u8>,
    dead_bytes: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    keyspace: KeyspaceId,
    /// Where the key starts in the heap; the value follows it.
    start: u32,
    key_length: u16,
    /// [`ABSENT`] if there is no record.
    value_length: u16,
    in_tree: bool,
}

const ABSENT: u16 = u16::MAX;

/// What the list says about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overlaid<'a> {
    Record(&'a [u8]),
    Absent,
}

impl<'a> Overlaid<'a> {
    pub(crate) fn value(self) -> Option<&'a [u8]> {
        match self {
            Overlaid::Record(value) => Some(value),
            Overlaid::Absent => None,
        }
    }
}

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn key(&self, index: usize) -> &[u8] {
        let entry = &self.entries[index];
        &self.heap[entry.start as usize..][..usize::from(entry.key_length)]
    }

    fn value(&self, index: usize) -> Overlaid<'_> {
        let entry = &self.entries[index];
        if entry.value_length == ABSENT {
            return Overlaid::Absent;
        }
        let start = entry.start as usize + usize::from(entry.key_length);
        Overlaid::Record(&self.heap[start..start + usize::from(entry.value_length)])
    }

    fn find(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.entries[middle].keyspace.cmp(&keyspace).then_with(|| self.key(middle).cmp(key)) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    pub(crate) fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<Overlaid<'_>> {
        self.find(keyspace, key).ok().map(|index| self.value(index))
    }

    /// Sets what holds for a key; `in_tree` says whether the tree has it, and is only asked for a key that has no entry.
    /// `false` if there is no room; then nothing changed.
    pub(crate) fn set(&mut self, keyspace: KeyspaceId, key: &[u8], value: Option<&[u8]>, in_tree: bool) -> bool {
        let found = self.find(keyspace, key);
        let value_bytes = value.map_or(0, <[u8]>::len);
        if key.len() + value_bytes > RECORD_BYTES_MAX {
            return false;
        }
        if let Ok(index) = found {
            return self.replace(index, value);
        }
        if self.entries.len() == ENTRIES_MAX || !self.make_room(key.len() + value_bytes) {
            return false;
        }
        if value.is_none() && !in_tree {
            return true;
        }
        let index = found.unwrap_or_else(|index| index);
        let entry = self.append(keyspace, key, value, in_tree);
        self.entries.insert(index, entry);
        true
    }

    fn replace(&mut self, index: usize, value: Option<&[u8]>) -> bool {
        let Entry { keyspace, start, key_length, value_length, in_tree } = self.entries[index];
        let key_length = usize::from(key_length);
        let old_bytes = if value_length == ABSENT { 0 } else { usize::from(value_length) };
        match value {
            None if in_tree => {
                self.entries[index].value_length = ABSENT;
                self.dead_bytes += old_bytes;
            }
            None => {
                self.entries.remove(index);
                self.dead_bytes += key_length + old_bytes;
            }
            Some(value) if value_length != ABSENT && value.len() == old_bytes => {
                self.heap[start as usize + key_length..][..old_bytes].copy_from_slice(value);
            }
            Some(value) => {
                // Making room moves the heap's bytes, so the key is taken out first.
                let key = self.key(index).to_vec();
                if !self.make_room(key.len() + value.len()) {
                    return false;
                }
                self.dead_bytes += key_length + old_bytes;
                self.entries[index] = self.append(keyspace, &key, Some(value), in_tree);
            }
        }
        true
    }

    fn append(&mut self, keyspace: KeyspaceId, key: &[u8], value: Option<&[u8]>, in_tree: bool) -> Entry {
        let start = u32::try_from(self.heap.len()).expect("bounded by HEAP_BYTES_MAX");
        self.heap.extend_from_slice(key);
        self.heap.extend_from_slice(value.unwrap_or(&[]));
        let length = |bytes: usize| u16::try_from(bytes).expect("bounded by RECORD_BYTES_MAX");
        let value_length = value.map_or(ABSENT, |value| length(value.len()));
        Entry { keyspace, start, key_length: length(key.len()), value_length, in_tree }
    }

    fn make_room(&mut self, bytes: usize) -> bool {
        if self.heap.len() + bytes <= HEAP_BYTES_MAX {
            return true;
        }
        if self.heap.len() - self.dead_bytes + bytes > HEAP_BYTES_MAX {
            return false;
        }
        let old = std::mem::take(&mut self.heap);
        for entry in &mut self.entries {
            let value_bytes = if entry.value_length == ABSENT { 0 } else { usize::from(entry.value_length) };
            let range = entry.start as usize..entry.start as usize + usize::from(entry.key_length) + value_bytes;
            entry.start = u32::try_from(self.heap.len()).expect("bounded by HEAP_BYTES_MAX");
            self.heap.extend_from_slice(&old[range]);
        }
        self.dead_bytes = 0;
        true
    }

    /// The last entry, to be written to the trees and then removed with [`Overlay::pop`].
    pub(crate) fn last(&self) -> Option<(KeyspaceId, &[u8], Overlaid<'_>)> {
        let index = self.entries.len().checked_sub(1)?;
        Some((self.entries[index].keyspace, self.key(index), self.value(index)))
    }

    pub(crate) fn pop(&mut self) {
        self.entries.pop();
    }

    /// How many more records a keyspace has than its tree.
    pub(crate) fn added(&self, keyspace: KeyspaceId) -> i64 {
        let entries = &self.entries[self.range(keyspace, Bound::Unbounded, Bound::Unbounded)];
        entries.iter().map(|entry| i64::from(entry.value_length != ABSENT) - i64::from(entry.in_tree)).sum()
    }

    /// The entries of a keyspace between two bounds, which do not exclude each other.
    fn range(&self, keyspace: KeyspaceId, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Range<usize> {
        let index = |bound: Bound<&[u8]>, lower: bool| match bound {
            Bound::Included(key) => self.find(keyspace, key).map_or_else(|at| at, |at| at + usize::from(!lower)),
            Bound::Excluded(key) => self.find(keyspace, key).map_or_else(|at| at, |at| at + usize::from(lower)),
            Bound::Unbounded if lower => self.entries.partition_point(|entry| entry.keyspace < keyspace),
            Bound::Unbounded => self.entries.partition_point(|entry| entry.keyspace <= keyspace),
        };
        let start = index(start, true);
        start..index(end, false).max(start)
    }

    /// Keyspaces with entries, and keys of one.
    pub(crate) fn keyspaces(&self) -> impl Iterator<Item = KeyspaceId> {
        self.entries.iter().map(|entry| entry.keyspace)
    }

    pub(crate) fn cursor(
        &self,
        keyspace: KeyspaceId,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
    ) -> OverlayCursor<'_> {
        OverlayCursor { overlay: self, left: self.range(keyspace, start, end), reverse }
    }
}

/// Goes through the entries of a range.
pub(crate) struct OverlayCursor<'a> {
    overlay: &'a Overlay,
    left: Range<usize>,
    reverse: bool,
}

impl<'a> OverlayCursor<'a> {
    fn index(&self) -> Option<usize> {
        if self.left.is_empty() {
            return None;
        }
        Some(if self.reverse { self.left.end - 1 } else { self.left.start })
    }

    /// The next entry, which stays the next.
    pub(crate) fn peek(&self) -> Option<(&'a [u8], Overlaid<'a>)> {
        self.index().map(|index| (self.overlay.key(index), self.overlay.value(index)))
    }

    pub(crate) fn advance(&mut self) {
        if self.reverse {
            self.left.end -= 1;
        } else {
            self.left.start += 1;
        }
    }
}

#[cfg(test)]
mod tests;
