//! The five trees, what each is, and how one is read and changed.

use std::fmt;
use std::sync::Arc;

use tine_merkle::{
    AppendTree, Digest, HashPool, IndexedKind, IndexedTree, Insertion, Keyspaces, Poseidon2, TreeError, TreeHash,
    TreeState, TreeWrite, poseidon2_hash,
};
use tine_store::{KeyspaceId, Read};

use crate::error::{OpenWorldError, WorldError};
use crate::options::WorldOptions;
use crate::types::StateReference;

/// One of the five trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TreeId {
    /// An indexed set.
    Nullifier = 0,
    /// Append-only.
    NoteHash = 1,
    /// An indexed map.
    PublicData = 2,
    /// Append-only; messages from the chain below.
    Message = 3,
    /// Append-only; one leaf per block.
    Archive = 4,
}

/// Trees that a block header commits to: all but the archive, which the header goes into.
pub const STATE_TREES: usize = 4;

impl TreeId {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// All of them, by number.
    pub const ALL: [TreeId; TreeId::COUNT] =
        [TreeId::Nullifier, TreeId::NoteHash, TreeId::PublicData, TreeId::Message, TreeId::Archive];

    /// The tree with that number.
    pub fn from_number(number: u64) -> Option<TreeId> {
        TreeId::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Whether it is an indexed one.
    pub fn is_indexed(self) -> bool {
        matches!(self, TreeId::Nullifier | TreeId::PublicData)
    }

    /// The first input of its inner nodes' hash.
    fn separator(self) -> u64 {
        match self {
            TreeId::Nullifier => 1_157_584_160,
            TreeId::PublicData => 3_756_303_423,
            TreeId::NoteHash | TreeId::Message | TreeId::Archive => 2_982_624_097,
        }
    }

    /// Keyspaces below the first that a store hands out belong to whoever embeds it. 0 holds what is not of one tree.
    fn keyspaces(self) -> Keyspaces {
        let first = 1 + 3 * self as u32;
        Keyspaces {
            nodes: KeyspaceId::new(first),
            keys: KeyspaceId::new(first + 1),
            leaves: KeyspaceId::new(first + 2),
        }
    }

    /// All keyspaces of the tree, in the order in which [`TreeStatus`](crate::TreeStatus) counts their records.
    pub(crate) fn all_keyspaces(self) -> [KeyspaceId; 3] {
        let keyspaces = self.keyspaces();
        [keyspaces.nodes, keyspaces.keys, keyspaces.leaves]
    }
}

impl fmt::Display for TreeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            TreeId::Nullifier => "NullifierTree",
            TreeId::NoteHash => "NoteHashTree",
            TreeId::PublicData => "PublicDataTree",
            TreeId::Message => "L1ToL2MessageTree",
            TreeId::Archive => "ArchiveTree",
        })
    }
}

pub(crate) enum AnyTree {
    Append(AppendTree),
    Indexed(IndexedTree),
}

/// The five trees.
pub(crate) struct Trees([AnyTree; TreeId::COUNT]);

impl Trees {
    pub(crate) fn new(heights: [u32; TreeId::COUNT], pool: &Arc<HashPool>) -> Trees {
        Trees(TreeId::ALL.map(|tree| {
            let height = heights[tree as usize];
            let hash: Arc<dyn TreeHash> = Arc::new(Poseidon2::new(tree.separator()));
            let kind = match tree {
                TreeId::Nullifier => IndexedKind::Set,
                TreeId::PublicData => IndexedKind::Map,
                _ => return AnyTree::Append(AppendTree::new(height, tree.keyspaces(), hash, Arc::clone(pool))),
            };
            AnyTree::Indexed(IndexedTree::new(kind, height, tree.keyspaces(), hash, Arc::clone(pool)))
        }))
    }

    pub(crate) fn get(&self, tree: TreeId) -> &AnyTree {
        &self.0[tree as usize]
    }

    /// # Panics
    /// If the tree is an indexed one.
    pub(crate) fn append_only(&self, tree: TreeId) -> &AppendTree {
        match self.get(tree) {
            AnyTree::Append(tree) => tree,
            AnyTree::Indexed(_) => panic!("{tree} is an indexed tree"),
        }
    }

    /// # Panics
    /// If the tree is an append-only one.
    pub(crate) fn indexed(&self, tree: TreeId) -> &IndexedTree {
        match self.get(tree) {
            AnyTree::Indexed(tree) => tree,
            AnyTree::Append(_) => panic!("{tree} is an append-only tree"),
        }
    }

    pub(crate) fn state(&self, reader: &impl Read, tree: TreeId) -> Result<TreeState, WorldError> {
        self.get(tree).state(reader).map_err(WorldError::Tree)
    }

    /// Leaves of each tree.
    pub(crate) fn sizes(&self, reader: &impl Read) -> Result<[u64; TreeId::COUNT], WorldError> {
        let mut sizes = [0; TreeId::COUNT];
        for (size, tree) in sizes.iter_mut().zip(TreeId::ALL) {
            *size = self.state(reader, tree)?.size;
        }
        Ok(sizes)
    }

    pub(crate) fn state_reference(&self, reader: &impl Read) -> Result<StateReference, WorldError> {
        let mut states = [TreeState { size: 0, root: [0; 32] }; STATE_TREES];
        for (state, tree) in states.iter_mut().zip(TreeId::ALL) {
            *state = self.state(reader, tree)?;
        }
        Ok(states)
    }

    /// Writes the trees as they are before the first block.
    pub(crate) fn write_genesis(
        &self,
        writer: &mut impl TreeWrite,
        options: &WorldOptions,
    ) -> Result<(), OpenWorldError> {
        let nullifiers = options.prefilled_nullifiers.iter().map(|key| Insertion { key: *key, value: [0; 32] });
        let public_data =
            options.prefilled_public_data.iter().map(|(key, value)| Insertion { key: *key, value: *value });
        for (tree, values) in
            [(TreeId::Nullifier, nullifiers.collect::<Vec<_>>()), (TreeId::PublicData, public_data.collect())]
        {
            let entries = initial_entries(options.prefill(tree), &values)?;
            let initialized = self.indexed(tree).initialize(writer, &entries);
            initialized.map_err(|error| WorldError::of_tree(tree, error))?;
        }
        let header = genesis_header_hash(&self.state_reference(writer)?, options);
        let appended = self.append_only(TreeId::Archive).append(writer, &[header]);
        appended.map_err(|error| WorldError::of_tree(TreeId::Archive, error))?;
        Ok(())
    }
}

impl AnyTree {
    pub(crate) fn height(&self) -> u32 {
        match self {
            AnyTree::Append(tree) => tree.height(),
            AnyTree::Indexed(tree) => tree.height(),
        }
    }

    pub(crate) fn state(&self, reader: &impl Read) -> Result<TreeState, TreeError> {
        match self {
            AnyTree::Append(tree) => tree.state(reader),
            AnyTree::Indexed(tree) => tree.state(reader),
        }
    }

    pub(crate) fn path(&self, reader: &impl Read, index: u64) -> Result<Vec<Digest>, TreeError> {
        match self {
            AnyTree::Append(tree) => tree.path(reader, index),
            AnyTree::Indexed(tree) => tree.path(reader, index),
        }
    }
}

/// `size` entries: the smallest keys, and then the given ones.
fn initial_entries(size: u64, values: &[Insertion]) -> Result<Vec<Insertion>, OpenWorldError> {
    let bad = |text: &str| OpenWorldError::BadOptions(text.to_owned());
    let defaults = size
        .checked_sub(values.len() as u64)
        .ok_or_else(|| bad("Number of prefilled values can't be more than initial size"))?;
    let mut entries: Vec<Insertion> = (0..defaults).map(|key| Insertion { key: number(key), value: [0; 32] }).collect();
    if !values.is_sorted_by(|a, b| a.key < b.key) {
        return Err(bad("Prefilled values must be unique and sorted"));
    }
    if let (Some(last), Some(first)) = (entries.last(), values.first())
        && first.key <= last.key
    {
        return Err(bad("Prefilled values must not be the same as the default values"));
    }
    entries.extend(values);
    Ok(entries)
}

/// The hash of the header of block 0: all zero but for the trees, the timestamp and the separator.
fn genesis_header_hash(state: &StateReference, options: &WorldOptions) -> Digest {
    let mut words = vec![number(options.initial_header_generator_point), number(0), number(0)];
    for tree in [TreeId::Message, TreeId::NoteHash, TreeId::Nullifier, TreeId::PublicData] {
        let TreeState { size, root } = state[tree as usize];
        words.extend([root, number(size)]);
    }
    let mut rest = [[0; 32]; 12];
    rest[5] = number(options.genesis_timestamp);
    words.extend(rest);
    poseidon2_hash(&words)
}

fn number(value: u64) -> Digest {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&value.to_be_bytes());
    word
}
