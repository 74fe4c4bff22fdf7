//! Requests and replies, in the terms of the service: what both front doors translate to.

use std::fmt;

use tine_merkle::{BatchInsertion, Digest, IndexedLeaf, Insertion, SequentialInsertion, TreeState};

use crate::error::WorldError;
use crate::trees::{STATE_TREES, TreeId};

/// The number of a block; 0 is genesis.
pub type BlockNumber = u32;

/// A fork as clients name it. 0 is the canonical one; numbers are not used again while the service runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorldForkId(pub u64);

impl WorldForkId {
    /// The fork whose commits are the blocks.
    pub const CANONICAL: WorldForkId = WorldForkId(0);
}

/// Which state a read is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The fork.
    pub fork: WorldForkId,
    /// The state after this canonical block, whatever the fork; `None`: the fork's newest.
    pub block: Option<BlockNumber>,
    /// Of the fork's newest: with its pending changes, or the block it is based on.
    pub include_uncommitted: bool,
}

/// Size and root of the trees that a block header commits to, by tree.
pub type StateReference = [TreeState; STATE_TREES];

/// The leaves of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Of an append-only tree.
    Words(Vec<Digest>),
    /// Of an indexed tree.
    Entries(Vec<Insertion>),
}

/// A block to sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its number.
    pub number: BlockNumber,
    /// The trees after it.
    pub state: StateReference,
    /// The archive leaf it adds.
    pub header_hash: Digest,
    /// The archive after it.
    pub archive_root: Digest,
    /// The archive before it.
    pub previous_archive_root: Digest,
    /// Leaves of the note hash tree.
    pub note_hashes: Vec<Digest>,
    /// Leaves of the message tree.
    pub messages: Vec<Digest>,
    /// Leaves of the nullifier tree, inserted as a batch.
    pub nullifiers: Vec<Insertion>,
    /// Leaves of the public data tree, inserted one after the other.
    pub public_writes: Vec<Insertion>,
}

/// A request that reads one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Size, root and depth of a tree.
    TreeInfo(TreeId),
    /// The state that a block header commits to.
    StateReference,
    /// A leaf.
    LeafValue(TreeId, u64),
    /// A leaf of an indexed tree with its links.
    LeafPreimage(TreeId, u64),
    /// The siblings of a leaf.
    SiblingPath(TreeId, u64),
    /// The blocks that appended leaves.
    BlockNumbers(TreeId, Vec<u64>),
    /// Where leaves are, at or after an index.
    FindLeaves(TreeId, Leaves, u64),
    /// Where a key is or would be.
    LowLeaf(TreeId, Digest),
    /// Where leaves are, with their siblings.
    FindPaths(TreeId, Leaves),
    /// Something of a tree that there is not: refused, but after a fork that there is not.
    UnknownTree,
}

/// A request that changes a fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Appends leaves; those of an indexed tree as a batch.
    Append(TreeId, Leaves),
    /// Inserts a batch; the path of the answer leaves out this many levels.
    InsertBatch(TreeId, Vec<Insertion>, u32),
    /// Inserts one by one.
    InsertEach(TreeId, Vec<Insertion>),
    /// Appends a header hash to the archive if the fork is in the state it stands for.
    UpdateArchive(Box<StateReference>, Digest),
    /// Begins a checkpoint.
    CreateCheckpoint,
    /// Ends the innermost checkpoint and keeps its changes.
    CommitCheckpoint,
    /// Ends the innermost checkpoint and undoes its changes.
    RevertCheckpoint,
    /// Ends all checkpoints and keeps their changes.
    CommitAllCheckpoints,
    /// Ends all checkpoints and undoes their changes.
    RevertAllCheckpoints,
    /// Ends the fork.
    Delete,
}

/// A request that changes the chain of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainChange {
    /// Makes a block of the canonical fork's pending changes.
    Commit,
    /// Drops them.
    Rollback,
    /// Adds a block.
    Sync(Box<Block>),
    /// Marks blocks as final.
    Finalize(BlockNumber),
    /// Removes the blocks after this one.
    Unwind(BlockNumber),
    /// Gives up the states of the blocks before this one.
    RemoveHistorical(BlockNumber),
    /// Copies the whole world state to a directory.
    Copy(std::path::PathBuf),
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Reads a state.
    Read(Revision, Query),
    /// The state at genesis.
    InitialState,
    /// Changes a fork.
    Change(WorldForkId, Change),
    /// Changes the chain.
    Chain(ChainChange),
    /// Makes a fork of a block; `None`: the last one. `is_owned`: it ends with the connection that made it.
    CreateFork {
        /// The block.
        block: Option<BlockNumber>,
        /// Whether it dies with the session.
        is_owned: bool,
    },
    /// Which blocks there are.
    Status,
}

/// Which blocks there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The last block.
    pub tip: BlockNumber,
    /// The last final block; 0 if none is.
    pub finalized: BlockNumber,
    /// The oldest block whose state is kept, besides genesis; 0 before the first block.
    pub oldest: BlockNumber,
}

/// One tree in a [`FullStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeStatus {
    /// Levels below the root.
    pub depth: u32,
    /// The canonical fork's pending state.
    pub state: TreeState,
    /// Leaves after the last block.
    pub committed_size: u64,
    /// The state at genesis.
    pub initial: TreeState,
    /// Records of nodes, of leaves by key, and of leaves by index.
    pub records: [u64; 3],
}

/// Which blocks there are, and what each tree holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullStatus {
    /// Which blocks there are.
    pub summary: Summary,
    /// By tree.
    pub trees: [TreeStatus; TreeId::COUNT],
}

/// A leaf as clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafValue {
    /// Of an append-only tree.
    Word(Digest),
    /// Of this indexed tree.
    Entry(TreeId, Insertion),
}

/// The answer to a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done.
    Done,
    /// Of [`Query::TreeInfo`]: the tree, its state and depth.
    TreeInfo(TreeId, TreeState, u32),
    /// Of [`Query::StateReference`] and [`Command::InitialState`].
    State(StateReference),
    /// Of [`Query::LeafValue`].
    LeafValue(Option<LeafValue>),
    /// Of [`Query::LeafPreimage`].
    LeafPreimage(TreeId, IndexedLeaf),
    /// Of [`Query::SiblingPath`].
    Path(Vec<Digest>),
    /// Of [`Query::BlockNumbers`].
    BlockNumbers(Vec<Option<BlockNumber>>),
    /// Of [`Query::FindLeaves`].
    Indices(Vec<Option<u64>>),
    /// Of [`Query::LowLeaf`]: whether the key is there, and the index.
    LowLeaf(bool, u64),
    /// Of [`Query::FindPaths`].
    Paths(Vec<Option<(u64, Vec<Digest>)>>),
    /// Of [`Change::InsertBatch`]; the path without its lowest levels as asked.
    Batch(TreeId, Box<BatchInsertion>),
    /// Of [`Change::InsertEach`].
    Sequential(TreeId, Box<SequentialInsertion>),
    /// Of [`Command::CreateFork`].
    Fork(WorldForkId),
    /// Of [`Command::Status`] and [`ChainChange::Finalize`].
    Status(Summary),
    /// Of the other [`ChainChange`]s that say what is there afterwards.
    FullStatus(Box<FullStatus>),
}

/// What was to be read of a block, in the words of the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Tree information and states.
    MetaData,
    /// A leaf with its links.
    Leaf(u64),
    /// A path.
    SiblingPath(u64),
    /// Blocks of leaves.
    BlockNumbers,
    /// Indices of leaves, from an index on.
    FindLeaf(u64),
    /// A low leaf.
    LowLeaf,
    /// Paths of leaves.
    FindPath,
}

impl fmt::Display for Reading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reading::MetaData => formatter.write_str("Unable to get meta data for"),
            Reading::Leaf(index) => {
                write!(formatter, "Failed to find indexed leaf: Unable to get leaf at index {index} for")
            }
            Reading::SiblingPath(index) => write!(formatter, "Unable to get sibling path for index {index} at"),
            Reading::BlockNumbers => formatter.write_str("Unable to find block numbers for indices for"),
            Reading::FindLeaf(start) => write!(formatter, "Unable to find leaf from index {start} for"),
            Reading::LowLeaf => formatter.write_str("Unable to find low leaf for"),
            Reading::FindPath => formatter.write_str("Unable to find sibling path for"),
        }
    }
}

/// The modulus of the field, big-endian: numbers at or above it have no encoding.
const MODULUS: Digest = [
    0x30, 0x64, 0x4e, 0x72, 0xe1, 0x31, 0xa0, 0x29, 0xb8, 0x50, 0x45, 0xb6, 0x81, 0x81, 0x58, 0x5d, 0x28, 0x33, 0xe8,
    0x48, 0x79, 0xb9, 0x70, 0x91, 0x43, 0xe1, 0xf5, 0x93, 0xf0, 0x00, 0x00, 0x01,
];

/// Returns the word if it is a number of the field.
pub(crate) fn check_element(word: Digest) -> Result<Digest, WorldError> {
    if word < MODULUS {
        return Ok(word);
    }
    Err(WorldError::Malformed("msgpack field deserialization: non-canonical encoding (value >= modulus)".to_owned()))
}
