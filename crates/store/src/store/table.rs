//! The forks of a store by number and by name.
//!
//! There may be a hundred thousand of them, most of which do nothing, so an entry is small: short names lie in it, and
//! the index of names has numbers only.
//!
//! Invariant: every entry whose name is not empty is in the index of names, and nothing else is.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::error::ForkError;
use crate::fork::Fork;
use crate::ids::ForkId;
use crate::options::ForkInfo;

/// Bytes of the longest name that needs no memory of its own.
const SHORT_NAME_BYTES: usize = 22;

pub(super) struct Table {
    /// The number of the next fork.
    next_fork: ForkId,
    /// Numbers below this are reserved in the log, durably.
    reserved_end: ForkId,
    forks: HashTable<Entry>,
    names: HashTable<ForkId>,
    /// Seeded, since names may come from outside.
    hasher: RandomState,
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

/// Numbers come one after the other, and so do their places; the bits that tell neighbours apart are mixed.
fn number_hash(id: ForkId) -> u64 {
    let mixed = id.get().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    id.get() ^ (mixed & 0xfe << 56)
}

impl Table {
    /// A table without forks and reserved numbers, whose first fork will have the given number.
    pub(super) fn new(next_fork: ForkId) -> Table {
        let (forks, names, hasher) = (HashTable::new(), HashTable::new(), RandomState::new());
        Table { next_fork, reserved_end: next_fork, forks, names, hasher }
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
        self.forks.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.forks.iter()
    }

    pub(super) fn get(&self, id: ForkId) -> Option<&Entry> {
        self.forks.find(number_hash(id), |entry| entry.fork.id == id)
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
        let entry = self.forks.insert_unique(number_hash(id), entry, |entry| number_hash(entry.fork.id));
        if !entry.get().name.as_str().is_empty() {
            self.index_name(id);
        }
    }

    /// Puts a fork's name, which is not empty, into the index.
    fn index_name(&mut self, id: ForkId) {
        let Table { forks, names, hasher, .. } = self;
        let hash_of = |id: ForkId| {
            let entry = forks.find(number_hash(id), |entry| entry.fork.id == id).expect("names are of forks");
            hasher.hash_one(entry.name.as_str())
        };
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
        let entry = self.forks.find_mut(number_hash(id), |entry| entry.fork.id == id);
        entry.expect("forks are dropped under the admin lock").name = Name::new(name);
        if !name.is_empty() {
            self.index_name(id);
        }
    }

    pub(super) fn remove(&mut self, id: ForkId) -> Option<Entry> {
        self.get(id)?;
        self.forget_name(id);
        let place = self.forks.find_entry(number_hash(id), |entry| entry.fork.id == id).ok()?;
        Some(place.remove().0)
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
