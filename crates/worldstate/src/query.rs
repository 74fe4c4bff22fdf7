//! Reading one state.

use tine_merkle::Insertion;
use tine_store::Read;

use crate::chain::BlockSizes;
use crate::error::WorldError;
use crate::trees::{AnyTree, TreeId, Trees};
use crate::types::{BlockNumber, LeafValue, Leaves, Query, Reading, Reply};

/// What besides the state itself an answer depends on.
pub(crate) struct Context<'a> {
    /// The block that was asked for; `None` for a newest state.
    pub(crate) block: Option<BlockNumber>,
    /// Sizes of the trees after each block up to the one that the state is or is based on.
    pub(crate) sizes: &'a dyn BlockSizes,
}

/// What a query wants of a block, for the refusal when the block is not there; `None` if the answer is nothing then.
pub(crate) fn reading(query: &Query) -> Option<Reading> {
    Some(match query {
        Query::TreeInfo(_) | Query::StateReference => Reading::MetaData,
        Query::LeafValue(..) | Query::UnknownTree => return None,
        Query::LeafPreimage(_, index) => Reading::Leaf(*index),
        Query::SiblingPath(_, index) => Reading::SiblingPath(*index),
        Query::BlockNumbers(..) => Reading::BlockNumbers,
        Query::FindLeaves(_, _, start) => Reading::FindLeaf(*start),
        Query::LowLeaf(..) => Reading::LowLeaf,
        Query::FindPaths(..) => Reading::FindPath,
    })
}

/// Refuses what no state has an answer to.
pub(crate) fn check(query: &Query) -> Result<(), WorldError> {
    match query {
        Query::UnknownTree => Err(WorldError::UnknownTree { command: None }),
        Query::LowLeaf(tree, _) if !tree.is_indexed() => Err(WorldError::NotIndexed),
        _ => Ok(()),
    }
}

/// Answers `query`, which was checked, from one state.
pub(crate) fn answer(
    trees: &Trees,
    reader: &impl Read,
    query: &Query,
    context: &Context<'_>,
) -> Result<Reply, WorldError> {
    match query {
        Query::TreeInfo(tree) => Ok(Reply::TreeInfo(*tree, trees.state(reader, *tree)?, trees.get(*tree).height())),
        Query::StateReference => Ok(Reply::State(trees.state_reference(reader)?)),
        Query::LeafValue(tree, index) => leaf_value(trees, reader, *tree, *index, context.block).map(Reply::LeafValue),
        Query::LeafPreimage(tree, index) => {
            let indexed = trees.indexed(*tree);
            if index >> indexed.height() != 0 {
                return Err(WorldError::LeafOutOfRange { index: *index, depth: indexed.height() });
            }
            if *index >= trees.state(reader, *tree)?.size {
                return Err(WorldError::NoSuchLeaf { block: context.block });
            }
            let leaf = indexed.leaf(reader, *index).map_err(WorldError::Tree)?;
            Ok(Reply::LeafPreimage(*tree, leaf.unwrap_or_default()))
        }
        Query::SiblingPath(tree, index) => {
            trees.get(*tree).path(reader, *index).map(Reply::Path).map_err(WorldError::Tree)
        }
        Query::BlockNumbers(tree, indices) => {
            let size = trees.state(reader, *tree)?.size;
            let block = |index: &u64| if *index < size { context.sizes.block_of(*tree, *index) } else { None };
            Ok(Reply::BlockNumbers(indices.iter().map(block).collect()))
        }
        Query::FindLeaves(tree, leaves, start) => {
            let indices = indices_of(trees, reader, *tree, leaves)?.into_iter();
            Ok(Reply::Indices(indices.map(|index| index.filter(|index| index >= start)).collect()))
        }
        Query::LowLeaf(tree, key) => {
            let low = trees.indexed(*tree).low_leaf(reader, key).map_err(WorldError::Tree)?;
            Ok(Reply::LowLeaf(low.is_present, low.index))
        }
        Query::FindPaths(tree, leaves) => {
            let mut paths = Vec::new();
            for index in indices_of(trees, reader, *tree, leaves)? {
                let path = |index| trees.get(*tree).path(reader, index).map(|path| (index, path));
                paths.push(index.map(path).transpose().map_err(WorldError::Tree)?);
            }
            Ok(Reply::Paths(paths))
        }
        Query::UnknownTree => unreachable!("it was refused before"),
    }
}

/// The leaf at an index. Beyond the size an append-only tree has empty ones as far as it can grow, but only in a newest
/// state.
fn leaf_value(
    trees: &Trees,
    reader: &impl Read,
    tree: TreeId,
    index: u64,
    block: Option<BlockNumber>,
) -> Result<Option<LeafValue>, WorldError> {
    Ok(match trees.get(tree) {
        AnyTree::Append(append_only) => match append_only.leaf(reader, index).map_err(WorldError::Tree)? {
            None if block.is_none() && index >> append_only.height() == 0 => Some(LeafValue::Word(tine_merkle::EMPTY)),
            leaf => leaf.map(LeafValue::Word),
        },
        AnyTree::Indexed(indexed) => {
            if index >= indexed.state(reader).map_err(WorldError::Tree)?.size {
                return Ok(None);
            }
            let leaf = indexed.leaf(reader, index).map_err(WorldError::Tree)?.unwrap_or_default();
            Some(LeafValue::Entry(tree, Insertion { key: leaf.key, value: leaf.value }))
        }
    })
}

/// The first index of each leaf. Entries of indexed trees are found by their keys.
fn indices_of(
    trees: &Trees,
    reader: &impl Read,
    tree: TreeId,
    leaves: &Leaves,
) -> Result<Vec<Option<u64>>, WorldError> {
    let indices: Result<Vec<_>, _> = match leaves {
        Leaves::Words(words) => words.iter().map(|word| trees.append_only(tree).index_of(reader, word)).collect(),
        Leaves::Entries(entries) => {
            entries.iter().map(|entry| trees.indexed(tree).index_of(reader, &entry.key)).collect()
        }
    };
    indices.map_err(WorldError::Tree)
}
