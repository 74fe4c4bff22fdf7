//! The forks of a store by number and by name.
//!
//! There may be a hundred thousand of them, most of which do nothing, so an entry is small: short names lie in it, and
//! the index of names has numbers only. Numbers are given out one after the other, so entries lie by number in chunks:
//! making a fork writes beside the one made before, and no growth moves what is there.
//!
//! Invariants:
//! - Every entry whose name is not empty is in the index of names, and nothing else is.
//! - A chunk has at least one entry, and `length` is the number of all.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::error::ForkError;
use crate::fork::Fork;
use crate::ids::ForkId;
use crate::options::ForkInfo;

/// Entries of a chunk: few enough that one fork which outlives its neighbours keeps little.
const CHUNK_ENTRIES: usize = 64;

/// Bytes of the longest name that needs no memory of its own.
const SHORT_NAME_BYTES: usize = 22;

pub(super) struct Table {
    /// The number of the next fork.
    next_fork: ForkId,
    /// Numbers below this are reserved in the log, durably.
    reserved_end: ForkId,
    chunks: HashTable<Box<Chunk>>,
    /// The last chunk that lost its last entry: a fork that is made and dropped needs no memory for one each time.
    spare: Option<Box<Chunk>>,
    length: usize,
    names: HashTable<ForkId>,
    /// Seeded, since names may come from outside.
    hasher: RandomState,
}

/// Entries of consecutive fork numbers.
struct Chunk {
    /// The first of the numbers, divided by [`CHUNK_ENTRIES`].
    number: u64,
    used: usize,
    entries: [Option<Entry>; CHUNK_ENTRIES],
}

pub(super) struct Entry {
    pub(super) fork: Arc<Fork>,
    pub(super) name: Name,
}

/// A fork's name; empty if it has none.
pub(super) enum Name {
    Short(u8, [u8; SHORT_NAME_BYTES]),
    Long(Box<str>),
}

impl Name {
    pub(super) fn new(name: &str) -> Name {
        let mut bytes = [0; SHORT_NAME_BYTES];
        match bytes.get_mut(..name.len()) {
            Some(start) => {
                start.copy_from_slice(name.as_bytes());
                Name::Short(name.len() as u8, bytes)
            }
            None => Name::Long(name.into()),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Name::Short(length, bytes) => {
                str::from_utf8(&bytes[..usize::from(*length)]).expect("it was made from a string")
            }
            Name::Long(name) => name,
        }
    }
}

/// The number of a fork's chunk, and its place there.
fn place(id: ForkId) -> (u64, usize) {
    (id.get() / CHUNK_ENTRIES as u64, id.get() as usize % CHUNK_ENTRIES)
}

/// Chunks come one after the other, and so do their places; the bits that tell neighbours apart are mixed.
fn chunk_hash(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    number ^ (mixed & 0xfe << 56)
}

fn find(chunks: &HashTable<Box<Chunk>>, id: ForkId) -> Option<&Entry> {
    let (number, index) = place(id);
    chunks.find(chunk_hash(number), |chunk| chunk.number == number)?.entries[index].as_ref()
}

impl Table {
    /// A table without forks and reserved numbers, whose first fork will have the given number.
    pub(super) fn new(next_fork: ForkId) -> Table {
        let (chunks, names, hasher) = (HashTable::new(), HashTable::new(), RandomState::new());
        Table { next_fork, reserved_end: next_fork, chunks, spare: None, length: 0, names, hasher }
    }

    pub(super) fn next_fork(&self) -> ForkId {
        self.next_fork
    }

    pub(super) fn reserved_end(&self) -> ForkId {
        self.reserved_end
    }

    pub(super) fn reserve(&mut self, end: ForkId) {
        self.reserved_end = end;
    }

    /// Whether the first fork's number was not used yet. Now it is.
    pub(super) fn take_main(&mut self) -> bool {
        let is_new = self.next_fork == ForkId::MAIN;
        self.next_fork = self.next_fork.max(ForkId::new(ForkId::MAIN.get() + 1));
        is_new
    }

    /// A number for a fork, unless all that are reserved are used.
    pub(super) fn take_id(&mut self) -> Option<ForkId> {
        let id = Some(self.next_fork).filter(|id| *id < self.reserved_end)?;
        self.next_fork = ForkId::new(id.get() + 1);
        Some(id)
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flat_map(|chunk| chunk.entries.iter().flatten())
    }

    pub(super) fn get(&self, id: ForkId) -> Option<&Entry> {
        find(&self.chunks, id)
    }

    fn get_mut(&mut self, id: ForkId) -> Option<&mut Entry> {
        let (number, index) = place(id);
        self.chunks.find_mut(chunk_hash(number), |chunk| chunk.number == number)?.entries[index].as_mut()
    }

    /// The fork with that name, if it is one.
    pub(super) fn named(&self, name: &str) -> Option<&Entry> {
        if name.is_empty() {
            return None;
        }
        let found = self.names.find(self.hasher.hash_one(name), |id| self.name_of(*id) == name)?;
        self.get(*found)
    }

    fn name_of(&self, id: ForkId) -> &str {
        self.get(id).expect("names are of forks").name.as_str()
    }

    pub(super) fn check_free(&self, name: &str) -> Result<(), ForkError> {
        if self.named(name).is_some() { Err(ForkError::NameTaken(name.to_owned())) } else { Ok(()) }
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        let id = entry.fork.id;
        let is_named = !entry.name.as_str().is_empty();
        let (number, index) = place(id);
        let spare = &mut self.spare;
        let make = || {
            let unused = spare.take();
            let mut chunk =
                unused.unwrap_or_else(|| Box::new(Chunk { number, used: 0, entries: [const { None }; CHUNK_ENTRIES] }));
            chunk.number = number;
            chunk
        };
        let hash = chunk_hash(number);
        let chunk = self.chunks.entry(hash, |chunk| chunk.number == number, |chunk| chunk_hash(chunk.number));
        let mut chunk = chunk.or_insert_with(make);
        let chunk = chunk.get_mut();
        assert!(chunk.entries[index].is_none(), "a fork's number is its own");
        chunk.entries[index] = Some(entry);
        chunk.used += 1;
        self.length += 1;
        if is_named {
            self.index_name(id);
        }
    }

    /// Puts a fork's name, which is not empty, into the index.
    fn index_name(&mut self, id: ForkId) {
        let Table { chunks, names, hasher, .. } = self;
        let hash_of = |id: ForkId| hasher.hash_one(find(chunks, id).expect("names are of forks").name.as_str());
        names.insert_unique(hash_of(id), id, |id| hash_of(*id));
    }

    /// Takes a fork's name, if it has one, out of the index, before its entry goes or gets another.
    fn forget_name(&mut self, id: ForkId) {
        let name = self.name_of(id);
        if name.is_empty() {
            return;
        }
        let hash = self.hasher.hash_one(name);
        if let Ok(place) = self.names.find_entry(hash, |other| *other == id) {
            place.remove();
        }
    }

    /// Gives a fork a free name.
    pub(super) fn rename(&mut self, id: ForkId, name: &str) {
        self.forget_name(id);
        let entry = self.get_mut(id);
        entry.expect("forks are dropped under the admin lock").name = Name::new(name);
        if !name.is_empty() {
            self.index_name(id);
        }
    }

    pub(super) fn remove(&mut self, id: ForkId) -> Option<Entry> {
        self.get(id)?;
        self.forget_name(id);
        let (number, index) = place(id);
        let mut chunk = self.chunks.find_entry(chunk_hash(number), |chunk| chunk.number == number).ok()?;
        let entry = chunk.get_mut().entries[index].take();
        chunk.get_mut().used -= 1;
        self.length -= 1;
        if chunk.get().used == 0 {
            self.spare = Some(chunk.remove().0);
        }
        entry
    }
}

impl Entry {
    pub(super) fn info(&self) -> ForkInfo {
        ForkInfo {
            id: self.fork.id,
            name: self.name.as_str().to_owned(),
            parent: self.fork.parent(),
            head: self.fork.published.lock().lsn,
            durability: self.fork.durability,
            created_at_micros: self.fork.created_at_micros,
            expires_at_micros: self.fork.expires_at_micros(),
        }
    }
}
