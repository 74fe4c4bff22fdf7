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
    pub(super) fn new() -> Table {
        Table { forks: HashTable::new(), names: HashTable::new(), hasher: RandomState::new() }
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
        self.forks.insert_unique(number_hash(id), entry, |entry| number_hash(entry.fork.id));
        self.index_name(id);
    }

    fn index_name(&mut self, id: ForkId) {
        let Table { forks, names, hasher } = self;
        let hash_of = |id: ForkId| {
            let entry = forks.find(number_hash(id), |entry| entry.fork.id == id).expect("names are of forks");
            let name = entry.name.as_str();
            (hasher.hash_one(name), name.is_empty())
        };
        let (hash, unnamed) = hash_of(id);
        if !unnamed {
            names.insert_unique(hash, id, |id| hash_of(*id).0);
        }
    }

    /// Takes a fork's name out of the index, before its entry goes or gets another.
    fn forget_name(&mut self, id: ForkId) {
        let hash = self.hasher.hash_one(self.name_of(id));
        if let Ok(place) = self.names.find_entry(hash, |other| *other == id) {
            place.remove();
        }
    }

    /// Gives a fork a free name.
    pub(super) fn rename(&mut self, id: ForkId, name: &str) {
        self.forget_name(id);
        let entry = self.forks.find_mut(number_hash(id), |entry| entry.fork.id == id);
        entry.expect("forks are dropped under the admin lock").name = Name::new(name);
        self.index_name(id);
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
