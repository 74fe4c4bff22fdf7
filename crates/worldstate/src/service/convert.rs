//! Between the types of the schema and those of the service.

use tine_merkle::{Digest, IndexedLeaf, Insertion, TreeState, Witness};

use super::world_state as typed;
use super::world_state::FieldElement;
use crate::error::WorldError;
use crate::trees::{STATE_TREES, TreeId};
use crate::types::{
    Block, FullStatus, Leaves, Query, Revision, StateReference, Summary, TreeStatus, WorldForkId, check_element,
};

/// Any of the trees.
pub(super) fn tree(number: u8, command: &'static str) -> Result<TreeId, WorldError> {
    TreeId::from_number(u64::from(number)).ok_or(WorldError::UnknownTree { command: Some(command) })
}

/// One of the indexed trees, if `is_indexed`, or one of the others.
pub(super) fn tree_of_kind(number: u8, is_indexed: bool, command: &'static str) -> Result<TreeId, WorldError> {
    let tree = tree(number, command)?;
    if tree.is_indexed() == is_indexed { Ok(tree) } else { Err(WorldError::UnknownTree { command: Some(command) }) }
}

/// Where leaves are, which those of an indexed tree are by their keys.
pub(super) fn find(tree: TreeId, leaves: Vec<FieldElement>, start: Option<u64>) -> Result<Query, WorldError> {
    let words = digests(leaves)?;
    let leaves = if tree.is_indexed() { Leaves::Entries(keys(words)) } else { Leaves::Words(words) };
    Ok(match start {
        Some(start) => Query::FindLeaves(tree, leaves, start),
        None => Query::FindPaths(tree, leaves),
    })
}

fn keys(words: Vec<Digest>) -> Vec<Insertion> {
    words.into_iter().map(|key| Insertion { key, ..Insertion::default() }).collect()
}

pub(super) fn revision(revision: &typed::Revision) -> Revision {
    let typed::Revision { fork, block, committed } = *revision;
    Revision { fork: WorldForkId(fork), block, include_uncommitted: !committed }
}

pub(super) fn digest(element: FieldElement) -> Result<Digest, WorldError> {
    check_element(element.0)
}

pub(super) fn digests(elements: Vec<FieldElement>) -> Result<Vec<Digest>, WorldError> {
    elements.into_iter().map(digest).collect()
}

/// Entries to insert; those of a set have no values.
pub(super) fn insertions(tree: TreeId, entries: Vec<typed::Entry>) -> Result<Vec<Insertion>, WorldError> {
    let insertion = |entry: typed::Entry| {
        let insertion = Insertion { key: digest(entry.key)?, value: digest(entry.value)? };
        if tree == TreeId::Nullifier && insertion.value != tine_merkle::EMPTY {
            return Err(WorldError::Malformed("a nullifier has no value".to_owned()));
        }
        Ok(insertion)
    };
    entries.into_iter().map(insertion).collect()
}

pub(super) fn state_reference(state: &typed::StateReference) -> Result<StateReference, WorldError> {
    let typed::StateReference { nullifiers, note_hashes, public_data, messages } = state;
    let mut trees = [TreeState { size: 0, root: tine_merkle::EMPTY }; STATE_TREES];
    for (tree, state) in trees.iter_mut().zip([nullifiers, note_hashes, public_data, messages]) {
        *tree = TreeState { size: state.size, root: digest(state.root)? };
    }
    Ok(trees)
}

pub(super) fn block(sync: typed::WorldStateSyncBlock) -> Result<Block, WorldError> {
    Ok(Block {
        number: sync.block,
        state: state_reference(&sync.state)?,
        header_hash: digest(sync.header_hash)?,
        archive_root: digest(sync.archive_root)?,
        previous_archive_root: digest(sync.previous_archive_root)?,
        note_hashes: digests(sync.note_hashes)?,
        messages: digests(sync.messages)?,
        nullifiers: keys(digests(sync.nullifiers)?),
        public_writes: insertions(TreeId::PublicData, sync.public_writes)?,
    })
}

/// Takes no memory: the elements are the digests.
pub(super) fn elements(digests: Vec<Digest>) -> Vec<FieldElement> {
    digests.into_iter().map(FieldElement).collect()
}

pub(super) fn entry(entry: &Insertion) -> typed::Entry {
    typed::Entry { key: FieldElement(entry.key), value: FieldElement(entry.value) }
}

pub(super) fn indexed_leaf(leaf: &IndexedLeaf) -> typed::IndexedLeaf {
    typed::IndexedLeaf {
        entry: entry(&Insertion { key: leaf.key, value: leaf.value }),
        next_index: leaf.next_index,
        next_key: FieldElement(leaf.next_key),
    }
}

pub(super) fn witness(witness: Witness) -> typed::Witness {
    typed::Witness { leaf: indexed_leaf(&witness.leaf), index: witness.index, path: elements(witness.path) }
}

pub(super) fn tree_state(state: &TreeState) -> typed::TreeState {
    typed::TreeState { root: FieldElement(state.root), size: state.size }
}

pub(super) fn typed_state_reference(state: &StateReference) -> typed::StateReference {
    let [nullifiers, note_hashes, public_data, messages] = state.map(|state| tree_state(&state));
    typed::StateReference { nullifiers, note_hashes, public_data, messages }
}

pub(super) fn summary(summary: &Summary) -> typed::Summary {
    typed::Summary { tip: summary.tip, finalized: summary.finalized, oldest: summary.oldest }
}

pub(super) fn full_status(status: &FullStatus) -> typed::WorldStateCommitResponse {
    let tree = |status: TreeStatus| {
        let [node_records, key_records, leaf_records] = status.records;
        typed::TreeStatus {
            depth: status.depth,
            state: tree_state(&status.state),
            committed_size: status.committed_size,
            initial: tree_state(&status.initial),
            node_records,
            key_records,
            leaf_records,
        }
    };
    typed::WorldStateCommitResponse { summary: summary(&status.summary), trees: status.trees.map(tree) }
}
