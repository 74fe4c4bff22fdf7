//! Indexed trees: sets and maps whose leaves are linked in the order of their keys.
//!
//! Every leaf carries the index and key of the leaf with the next greater key, so a leaf with key `a` and next key `b`
//! shows that no key between them is there. Inserting a key rewrites its *low leaf*, the one with the greatest key that is
//! not greater, and appends a new leaf with the low leaf's former link.
//!
//! An entry whose key and value are zero is padding: inserting one by one skips it, a batch gives it an empty slot.

use std::cmp::Reverse;
use std::ops::Bound;
use std::sync::Arc;

use tine_store::{Direction, Read};

use crate::hash::number;
use crate::tree::Tree;
use crate::update::Event;
use crate::{Digest, EMPTY, HashPool, KeyProof, Keyspaces, TreeError, TreeHash, TreeState, TreeWrite};

/// What a leaf of an indexed tree holds, and whether it can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexedKind {
    /// Keys only. Inserting one twice is refused.
    Set,
    /// Keys with values. Inserting a key that is there replaces its value.
    Map,
}

/// A leaf of an indexed tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexedLeaf {
    /// The key.
    pub key: Digest,
    /// The value; zero in a set.
    pub value: Digest,
    /// Index of the leaf with the next greater key; 0 if there is none.
    pub next_index: u64,
    /// That leaf's key; zero if there is none.
    pub next_key: Digest,
}

/// A key to insert, with its value; zero in a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Insertion {
    /// The key.
    pub key: Digest,
    /// The value.
    pub value: Digest,
}

impl Insertion {
    fn is_padding(&self) -> bool {
        self.key == EMPTY && self.value == EMPTY
    }
}

/// A leaf as it was before a change, with its path then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// The leaf; the default one for a slot that held none.
    pub leaf: IndexedLeaf,
    /// Its index.
    pub index: u64,
    /// Siblings from the lowest level up.
    pub path: Vec<Digest>,
}

/// Where a key is or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowLeaf {
    /// Index of the leaf with the greatest key that is not greater.
    pub index: u64,
    /// That leaf.
    pub leaf: IndexedLeaf,
    /// Whether it has the very key.
    pub is_present: bool,
}

/// What inserting one by one changed, if witnesses were asked for; see [`IndexedTree::insert_each`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequentialInsertion {
    /// For each entry that is no padding: its low leaf before.
    pub low_leaves: Vec<Witness>,
    /// For each of them: the empty slot of the new leaf, after the low leaf was rewritten; `None` if the entry replaced
    /// a value.
    pub slots: Vec<Option<Witness>>,
}

/// What inserting a batch changed, if witnesses were asked for; see [`IndexedTree::insert_batch`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchInsertion {
    /// For each entry in the order of `sorted`: its low leaf before; `None` for padding.
    pub low_leaves: Vec<Option<Witness>>,
    /// The entries, greatest key first, with their positions in the batch.
    pub sorted: Vec<(Insertion, usize)>,
    /// Levels of the tree.
    pub depth: u32,
    /// The path of the first new slot, after all low leaves were rewritten and before the new leaves.
    pub path: Vec<Digest>,
}

/// A sorted set or map of keys in a Merkle tree.
pub struct IndexedTree {
    tree: Tree,
    kind: IndexedKind,
}

/// A leaf that changes, in the order of the changes.
struct LeafEvent {
    index: u64,
    /// `None` makes the slot empty.
    leaf: Option<IndexedLeaf>,
    is_witnessed: bool,
}

impl IndexedTree {
    /// A tree in `keyspaces`. Before the first insertion it needs [`IndexedTree::initialize`], once.
    ///
    /// # Panics
    /// If the height is zero or above [`HEIGHT_MAX`](crate::HEIGHT_MAX).
    pub fn new(
        kind: IndexedKind,
        height: u32,
        keyspaces: Keyspaces,
        hash: Arc<dyn TreeHash>,
        pool: Arc<HashPool>,
    ) -> IndexedTree {
        IndexedTree { tree: Tree::new(height, keyspaces, hash, pool), kind }
    }

    /// Levels below the root.
    pub fn height(&self) -> u32 {
        self.tree.height
    }

    /// Set or map.
    pub fn kind(&self) -> IndexedKind {
        self.kind
    }

    /// Size and root.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn state(&self, reader: &impl Read) -> Result<TreeState, TreeError> {
        self.tree.state(reader)
    }

    /// Gives an empty tree its first leaves, which are linked. The first one should have key zero: keys below the
    /// smallest have no low leaf.
    ///
    /// # Errors
    /// The keys are not strictly increasing or do not fit, or the store refuses a write.
    ///
    /// # Panics
    /// If the tree is not empty.
    pub fn initialize(&self, writer: &mut impl TreeWrite, entries: &[Insertion]) -> Result<TreeState, TreeError> {
        let before = self.tree.state(writer)?;
        assert_eq!(before.size, 0, "only an empty tree is initialised");
        let size = entries.len() as u64;
        self.tree.check_room(size)?;
        self.check_words(entries)?;
        if !entries.is_sorted_by(|a, b| a.key < b.key) {
            return Err(TreeError::InitialKeysUnsorted);
        }
        let mut events = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let next = entries.get(index + 1);
            let leaf = IndexedLeaf {
                key: entry.key,
                value: entry.value,
                next_index: next.map_or(0, |_| index as u64 + 1),
                next_key: next.map_or(EMPTY, |next| next.key),
            };
            self.write_leaf(writer, index as u64, &leaf)?;
            events.push(LeafEvent { index: index as u64, leaf: Some(leaf), is_witnessed: false });
        }
        Ok(self.change(writer, before, size, events)?.0)
    }

    /// Finds the leaf of a key, or the one below it.
    ///
    /// # Errors
    /// The tree was not initialised, or the state cannot be read.
    pub fn low_leaf(&self, reader: &impl Read, key: &Digest) -> Result<LowLeaf, TreeError> {
        let bounds = (Bound::Unbounded, Bound::Included(key.as_slice()));
        let mut cursor = reader.range(self.tree.keyspaces.keys, bounds.0, bounds.1, Direction::Reverse);
        let Some((found, record)) = cursor.next()? else { return Err(TreeError::NoLowLeaf { key: *key }) };
        let found = found.try_into().map_err(|_| TreeError::Damaged("a key has another length"))?;
        let (index, leaf) = self.decode(found, record)?;
        Ok(LowLeaf { index, leaf, is_present: leaf.key == *key })
    }

    /// The index of a key; `None` if it is not there.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn index_of(&self, reader: &impl Read, key: &Digest) -> Result<Option<u64>, TreeError> {
        let Some(record) = reader.get(self.tree.keyspaces.keys, key)? else { return Ok(None) };
        Ok(Some(self.decode(*key, record.as_slice())?.0))
    }

    /// The leaf at an index; `None` for an empty slot and beyond the size.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn leaf(&self, reader: &impl Read, index: u64) -> Result<Option<IndexedLeaf>, TreeError> {
        let Some(key) = reader.get(self.tree.keyspaces.leaves, &index.to_be_bytes())? else { return Ok(None) };
        let key: Digest = key.as_slice().try_into().map_err(|_| TreeError::Damaged("a key has another length"))?;
        let record = reader.get(self.tree.keyspaces.keys, &key)?;
        let record = record.ok_or(TreeError::Damaged("a leaf's key is missing"))?;
        Ok(Some(self.decode(key, record.as_slice())?.1))
    }

    /// The siblings of a leaf's path from the lowest up, one for each level. Any index has one, also beyond the size;
    /// bits beyond the height are ignored.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn path(&self, reader: &impl Read, index: u64) -> Result<Vec<Digest>, TreeError> {
        self.tree.path(reader, self.tree.state(reader)?.size, index)
    }

    /// [`IndexedTree::path`] without a list: each sibling is passed to `take`.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn visit_path(&self, reader: &impl Read, index: u64, take: &mut dyn FnMut(&Digest)) -> Result<(), TreeError> {
        self.tree.visit_path(reader, self.tree.state(reader)?.size, index, take)
    }

    /// Proves that a key is there, with its value, or that it is not.
    ///
    /// # Errors
    /// As for [`IndexedTree::low_leaf`].
    pub fn prove(&self, reader: &impl Read, key: &Digest) -> Result<KeyProof, TreeError> {
        let LowLeaf { index, leaf, .. } = self.low_leaf(reader, key)?;
        Ok(KeyProof { index, leaf, path: self.path(reader, index)? })
    }

    /// Inserts entries one after the other; in a map an entry whose key is there replaces the value. Padding is skipped.
    /// With `witnessed`, says what each of them changed, which costs several times the hashing.
    ///
    /// # Errors
    /// They do not fit, a set has one of the keys already, a word is none of the hash, or the store refuses a write. Part
    /// of the change may be written then: roll the transaction back.
    pub fn insert_each(
        &self,
        writer: &mut impl TreeWrite,
        entries: &[Insertion],
        witnessed: bool,
    ) -> Result<SequentialInsertion, TreeError> {
        self.check_words(entries)?;
        let before = self.tree.state(writer)?;
        let mut size = before.size;
        let mut events = Vec::with_capacity(2 * entries.len());
        let mut found = Vec::with_capacity(entries.len());
        for entry in entries.iter().filter(|entry| !entry.is_padding()) {
            let low = self.low_leaf(writer, &entry.key)?;
            found.push(low);
            if low.is_present {
                let leaf = self.updated(&low, entry)?;
                self.write_leaf(writer, low.index, &leaf)?;
                events.push(LeafEvent { index: low.index, leaf: Some(leaf), is_witnessed: witnessed });
                continue;
            }
            self.tree.check_room(size + 1)?;
            let (relinked, leaf) = link(&low.leaf, entry, size);
            self.write_leaf(writer, low.index, &relinked)?;
            self.write_leaf(writer, size, &leaf)?;
            events.push(LeafEvent { index: low.index, leaf: Some(relinked), is_witnessed: witnessed });
            events.push(LeafEvent { index: size, leaf: Some(leaf), is_witnessed: witnessed });
            size += 1;
        }
        let (_, paths) = self.change(writer, before, size, events)?;
        let mut insertion = SequentialInsertion::default();
        if witnessed {
            let mut paths = paths.into_iter();
            let mut next_path = || paths.next().expect("each event is witnessed");
            let mut slot = before.size;
            for low in found {
                insertion.low_leaves.push(Witness { leaf: low.leaf, index: low.index, path: next_path() });
                insertion.slots.push((!low.is_present).then(|| {
                    slot += 1;
                    Witness { leaf: IndexedLeaf::default(), index: slot - 1, path: next_path() }
                }));
            }
        }
        Ok(insertion)
    }

    /// Inserts entries together: the greatest key first, each into the slot that its position in the batch gives it. The
    /// size grows by the whole batch, padding and replaced values included; their slots stay empty.
    ///
    /// # Errors
    /// As for [`IndexedTree::insert_each`]; also if a key is twice in the batch.
    pub fn insert_batch(
        &self,
        writer: &mut impl TreeWrite,
        entries: &[Insertion],
        witnessed: bool,
    ) -> Result<BatchInsertion, TreeError> {
        self.check_words(entries)?;
        let before = self.tree.state(writer)?;
        let start = before.size;
        let size = start.saturating_add(entries.len() as u64);
        self.tree.check_room(size)?;
        let mut sorted: Vec<(Insertion, usize)> = entries.iter().copied().zip(0..).collect();
        sorted.sort_by_key(|(entry, _)| Reverse(entry.key));
        let is_twice = |pair: &[(Insertion, usize)]| {
            pair[0].0.key == pair[1].0.key && !pair.iter().all(|(entry, _)| entry.is_padding())
        };
        if let Some(pair) = sorted.windows(2).find(|pair| is_twice(pair)) {
            return Err(TreeError::DuplicateKey { key: pair[0].0.key });
        }
        let mut events = Vec::with_capacity(2 * entries.len());
        let mut found = Vec::with_capacity(entries.len());
        let mut new_leaves = vec![None; entries.len()];
        for (entry, position) in &sorted {
            if entry.is_padding() {
                found.push(None);
                continue;
            }
            let low = self.low_leaf(writer, &entry.key)?;
            found.push(Some(low));
            let rewritten = if low.is_present {
                self.updated(&low, entry)?
            } else {
                let slot = start + *position as u64;
                let (relinked, leaf) = link(&low.leaf, entry, slot);
                self.write_leaf(writer, slot, &leaf)?;
                new_leaves[*position] = Some(leaf);
                relinked
            };
            self.write_leaf(writer, low.index, &rewritten)?;
            events.push(LeafEvent { index: low.index, leaf: Some(rewritten), is_witnessed: witnessed });
        }
        // The first new slot's event is witnessed for the path that the batch starts from.
        events.extend(new_leaves.into_iter().zip(start..).map(|(leaf, index)| LeafEvent {
            index,
            leaf,
            is_witnessed: witnessed && index == start,
        }));
        let (_, paths) = self.change(writer, before, size, events)?;
        let mut insertion = BatchInsertion { sorted, depth: self.tree.height, ..BatchInsertion::default() };
        if witnessed {
            let mut paths = paths.into_iter();
            for low in found {
                insertion.low_leaves.push(low.map(|low| {
                    let path = paths.next().expect("each low leaf's event is witnessed");
                    Witness { leaf: low.leaf, index: low.index, path }
                }));
            }
            // Without entries nothing changed.
            insertion.path = match paths.next() {
                Some(path) => path,
                None => self.tree.path(writer, start, start)?,
            };
        }
        Ok(insertion)
    }

    fn check_words(&self, entries: &[Insertion]) -> Result<(), TreeError> {
        let mut words = entries.iter().flat_map(|entry| [entry.key, entry.value]);
        match words.find(|word| !self.tree.hash.accepts(word)) {
            Some(word) => Err(TreeError::BadWord { word }),
            None => Ok(()),
        }
    }

    /// The low leaf with the value of an entry that has its key.
    fn updated(&self, low: &LowLeaf, entry: &Insertion) -> Result<IndexedLeaf, TreeError> {
        match self.kind {
            IndexedKind::Set => Err(TreeError::AlreadyPresent { key: entry.key }),
            IndexedKind::Map => Ok(IndexedLeaf { value: entry.value, ..low.leaf }),
        }
    }

    /// Hashes the leaves of `events` and applies them in order.
    fn change(
        &self,
        writer: &mut impl TreeWrite,
        before: TreeState,
        size: u64,
        mut events: Vec<LeafEvent>,
    ) -> Result<(TreeState, Vec<Vec<Digest>>), TreeError> {
        if !events.iter().any(|event| event.is_witnessed) {
            // Nobody asks for the states in between: the last one of each leaf counts.
            events.reverse();
            events.sort_by_key(|event| event.index);
            events.dedup_by_key(|event| event.index);
        }
        let nodes = self.hash_leaves(&events);
        let events: Vec<Event> = events
            .iter()
            .zip(nodes)
            .map(|(event, node)| Event { index: event.index, node, is_witnessed: event.is_witnessed })
            .collect();
        self.tree.change(writer, before, size, &events)
    }

    fn hash_leaves(&self, events: &[LeafEvent]) -> Vec<Digest> {
        let mut nodes = vec![EMPTY; events.len()];
        let leaves = events.iter().filter_map(|event| event.leaf);
        let hashed = match self.kind {
            IndexedKind::Set => {
                let words: Vec<_> = leaves.map(|leaf| [leaf.key, leaf.next_key, number(leaf.next_index)]).collect();
                let mut hashed = vec![EMPTY; words.len()];
                self.tree.hash.leaf_each_3(&words, &mut hashed);
                hashed
            }
            IndexedKind::Map => {
                let words: Vec<_> =
                    leaves.map(|leaf| [leaf.key, leaf.value, leaf.next_key, number(leaf.next_index)]).collect();
                let mut hashed = vec![EMPTY; words.len()];
                self.tree.hash.leaf_each_4(&words, &mut hashed);
                hashed
            }
        };
        let slots = nodes.iter_mut().zip(events).filter(|(_, event)| event.leaf.is_some());
        for ((node, _), hashed) in slots.zip(hashed) {
            *node = hashed;
        }
        nodes
    }

    /// The record of a leaf: its index, next index and next key, and in a map its value, under its key.
    fn write_leaf(&self, writer: &mut impl TreeWrite, index: u64, leaf: &IndexedLeaf) -> Result<(), TreeError> {
        let mut record = Vec::with_capacity(80);
        record.extend_from_slice(&index.to_be_bytes());
        record.extend_from_slice(&leaf.next_index.to_be_bytes());
        record.extend_from_slice(&leaf.next_key);
        if self.kind == IndexedKind::Map {
            record.extend_from_slice(&leaf.value);
        }
        if !writer.put(self.tree.keyspaces.keys, &leaf.key, &record)? {
            writer.put(self.tree.keyspaces.leaves, &index.to_be_bytes(), &leaf.key)?;
        }
        Ok(())
    }

    fn decode(&self, key: Digest, record: &[u8]) -> Result<(u64, IndexedLeaf), TreeError> {
        let damaged = || TreeError::Damaged("a leaf has another length");
        let (index, rest) = record.split_first_chunk().ok_or_else(damaged)?;
        let (next_index, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (next_key, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let value = match self.kind {
            IndexedKind::Set if rest.is_empty() => EMPTY,
            IndexedKind::Map => rest.try_into().map_err(|_| damaged())?,
            IndexedKind::Set => return Err(damaged()),
        };
        let next_index = u64::from_be_bytes(*next_index);
        Ok((u64::from_be_bytes(*index), IndexedLeaf { key, value, next_index, next_key: *next_key }))
    }
}

/// The low leaf linked to a new leaf at `slot`, and the new leaf with the low leaf's former link.
fn link(low: &IndexedLeaf, entry: &Insertion, slot: u64) -> (IndexedLeaf, IndexedLeaf) {
    let relinked = IndexedLeaf { next_index: slot, next_key: entry.key, ..*low };
    let leaf = IndexedLeaf { key: entry.key, value: entry.value, next_index: low.next_index, next_key: low.next_key };
    (relinked, leaf)
}
