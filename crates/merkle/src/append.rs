//! Append-only trees.

use std::sync::Arc;

use tine_store::Read;

use crate::tree::Tree;
use crate::update::Event;
use crate::{Digest, EMPTY, HashPool, Keyspaces, Proof, TreeError, TreeHash, TreeState, TreeWrite};

/// A list of leaves that only grows. A leaf is a node as it is, so the caller hashes data before; the empty one is not
/// found by its value.
pub struct AppendTree(pub(crate) Tree);

/// Leaves whose nodes are still to be hashed; see [`AppendTree::begin`].
#[derive(Clone, Debug)]
#[must_use = "the tree is to be hashed"]
pub struct TakenLeaves {
    before: TreeState,
    leaves: Vec<Digest>,
}

impl TakenLeaves {
    /// Leaves of the tree once these are hashed.
    pub fn size(&self) -> u64 {
        self.before.size + self.count() as u64
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.leaves.len()
    }
}

impl AppendTree {
    /// A tree in `keyspaces`, which may be empty.
    ///
    /// # Panics
    /// If the height is zero or above [`HEIGHT_MAX`](crate::HEIGHT_MAX).
    pub fn new(height: u32, keyspaces: Keyspaces, hash: Arc<dyn TreeHash>, pool: Arc<HashPool>) -> AppendTree {
        AppendTree(Tree::new(height, keyspaces, hash, pool))
    }

    /// Levels below the root.
    pub fn height(&self) -> u32 {
        self.0.height
    }

    /// Size and root.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn state(&self, reader: &impl Read) -> Result<TreeState, TreeError> {
        self.0.state(reader)
    }

    /// Appends leaves. Ends no transaction.
    ///
    /// # Errors
    /// They do not fit, one is no word of the hash (nothing was written then), or the store refuses a write.
    pub fn append(&self, writer: &mut impl TreeWrite, leaves: &[Digest]) -> Result<TreeState, TreeError> {
        let mut taken = self.begin(writer)?;
        self.take(writer, &mut taken, leaves, 0)?;
        self.hash_taken(writer, &taken)
    }

    /// Begins to append in two parts: [`AppendTree::take`], as often as there are leaves, and one [`AppendTree::hash_taken`]
    /// for all of them. In between the tree is not to be read or changed otherwise.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn begin(&self, reader: &impl Read) -> Result<TakenLeaves, TreeError> {
        Ok(TakenLeaves { before: self.0.state(reader)?, leaves: Vec::new() })
    }

    /// Takes leaves to append: all that can refuse them, and none of the hashing.
    ///
    /// A leaf that is there already is found by its new index if the one it was found by is before `found_from`.
    ///
    /// # Errors
    /// As for [`AppendTree::append`]. `taken` is as it was then.
    pub fn take(
        &self,
        writer: &mut impl TreeWrite,
        taken: &mut TakenLeaves,
        leaves: &[Digest],
        found_from: u64,
    ) -> Result<(), TreeError> {
        self.0.check_room(taken.size().saturating_add(leaves.len() as u64))?;
        if let Some(word) = leaves.iter().find(|leaf| !self.0.hash.accepts(leaf)) {
            return Err(TreeError::BadWord { word: *word });
        }
        for (leaf, index) in leaves.iter().zip(taken.size()..) {
            if *leaf != EMPTY && self.index_of(writer, leaf)?.is_none_or(|known| known < found_from) {
                writer.put(self.0.keyspaces.keys, leaf, &index.to_be_bytes())?;
            }
        }
        taken.leaves.extend_from_slice(leaves);
        Ok(())
    }

    /// Hashes what was taken.
    ///
    /// # Errors
    /// The store refuses a read or a write.
    pub fn hash_taken(&self, writer: &mut impl TreeWrite, taken: &TakenLeaves) -> Result<TreeState, TreeError> {
        let TakenLeaves { before, leaves } = taken;
        if leaves.is_empty() {
            return Ok(*before);
        }
        let event = |(node, index): (&Digest, u64)| Event { index, node: *node, is_witnessed: false };
        let events: Vec<Event> = leaves.iter().zip(before.size..).map(event).collect();
        Ok(self.0.change(writer, *before, taken.size(), &events)?.0)
    }

    /// The leaf at an index; `None` at or beyond the size.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn leaf(&self, reader: &impl Read, index: u64) -> Result<Option<Digest>, TreeError> {
        if index >= self.0.state(reader)?.size {
            return Ok(None);
        }
        self.0.node_of_leaf(reader, index).map(Some)
    }

    /// The first index of a leaf (but see [`AppendTree::take`]); `None` for one that is not there, and for the empty one.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn index_of(&self, reader: &impl Read, leaf: &Digest) -> Result<Option<u64>, TreeError> {
        let Some(record) = reader.get(self.0.keyspaces.keys, leaf)? else { return Ok(None) };
        let index = record.as_slice().try_into().map_err(|_| TreeError::Damaged("an index has another length"))?;
        Ok(Some(u64::from_be_bytes(index)))
    }

    /// The siblings of a leaf's path from the lowest up, one for each level. Any index has one, also beyond the size;
    /// bits beyond the height are ignored.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn path(&self, reader: &impl Read, index: u64) -> Result<Vec<Digest>, TreeError> {
        self.0.path(reader, self.0.state(reader)?.size, index)
    }

    /// [`AppendTree::path`] without a list: each sibling is passed to `take`.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn visit_path(&self, reader: &impl Read, index: u64, take: &mut dyn FnMut(&Digest)) -> Result<(), TreeError> {
        self.0.visit_path(reader, self.0.state(reader)?.size, index, take)
    }

    /// Proves which leaf is at an index; `None` at or beyond the size.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn prove(&self, reader: &impl Read, index: u64) -> Result<Option<Proof>, TreeError> {
        let Some(leaf) = self.leaf(reader, index)? else { return Ok(None) };
        Ok(Some(Proof { index, leaf, path: self.path(reader, index)? }))
    }
}
