//! What the service answers when it refuses. The texts are those of the server it stands in for where that one is right:
//! clients match on them.

use std::path::PathBuf;

use thiserror::Error;
use tine_merkle::{Digest, TreeError};
use tine_store::{Fault, ForkError, HistoryError, OpenError, StoreError, WriteError};

use crate::trees::TreeId;
use crate::types::{BlockNumber, Reading};

/// Why a request was refused. Nothing was changed then.
#[derive(Clone, Debug, Error)]
pub enum WorldError {
    /// The fork does not exist, or no longer.
    #[error("Fork not found")]
    ForkNotFound,
    /// Fork 0 lives as long as the service.
    #[error("Unable to delete canonical fork")]
    CanonicalFork,
    /// The tree id is none that the command takes.
    #[error("{}", unknown_tree(.command))]
    UnknownTree {
        /// The command, as it is named in messages; `None` for those that look the tree up in a table.
        command: Option<&'static str>,
    },
    /// The command is for indexed trees.
    #[error("Invalid tree type for find_low_leaf")]
    NotIndexed,
    /// A block that was removed or is not there yet.
    #[error("{what} block {block}, failed to get block data.")]
    NoSuchBlock {
        /// What was to be read.
        what: Reading,
        /// The block.
        block: BlockNumber,
    },
    /// There is no leaf at the index.
    #[error("Failed to find indexed leaf: Failed to find leaf hash for {}", root_name(.block))]
    NoSuchLeaf {
        /// The block that was asked for; `None` for the newest state.
        block: Option<BlockNumber>,
    },
    /// The index is beyond what the tree can ever hold.
    #[error("Failed to find indexed leaf: Leaf index {index} out of range for tree of depth {depth}")]
    LeafOutOfRange {
        /// The index.
        index: u64,
        /// Levels of the tree.
        depth: u32,
    },
    /// The tree has no room for the leaves.
    #[error("Unable to append leaves to tree {tree} new size: {new_size} max size: {max_size}")]
    Full {
        /// The tree.
        tree: TreeId,
        /// Leaves there would have been.
        new_size: u64,
        /// Leaves there may be.
        max_size: u64,
    },
    /// A nullifier is there already.
    #[error(
        "Unable to insert values into tree {tree} leaf type NullifierLeafValue is not updateable and {} is already present",
        Hex(.key)
    )]
    AlreadyPresent {
        /// The tree.
        tree: TreeId,
        /// The nullifier.
        key: Digest,
    },
    /// A key is twice in one batch.
    #[error("Duplicate key not allowed in same batch, key value: {}, tree: {tree}", Hex(.key))]
    DuplicateKey {
        /// The tree.
        tree: TreeId,
        /// The key.
        key: Digest,
    },
    /// The state a block header stands for is not the fork's.
    #[error("Can't update archive tree: Block state does not match world state")]
    ArchiveStateMismatch,
    /// The block does not follow the last one.
    #[error(
        "Can't sync block: local archive root {} does not match the block's previous archive root {}; world state has \
         diverged from the canonical chain and must be resynced",
        Hex(.local),
        Hex(.expected)
    )]
    PreviousArchiveMismatch {
        /// The archive root here.
        local: Digest,
        /// The one the block was built on.
        expected: Digest,
    },
    /// The block has another number than the next one.
    #[error("Can't sync block: block number {block} does not follow the last block {tip}")]
    WrongBlockNumber {
        /// The block's number.
        block: BlockNumber,
        /// The last block.
        tip: BlockNumber,
    },
    /// The archive after the block is not the one the block says.
    #[error(
        "Can't sync block: resulting archive root {} does not match the block's archive root {}; world state has diverged \
         from the canonical chain and must be resynced",
        Hex(.local),
        Hex(.expected)
    )]
    ArchiveMismatch {
        /// The archive root here.
        local: Digest,
        /// The one the block says.
        expected: Digest,
    },
    /// The trees after the block are not those the block says.
    #[error("Can't synch block: block state does not match world state")]
    StateMismatch,
    /// The block's leaves were refused.
    #[error("Failed to sync block: {0}")]
    BlockRefused(#[source] Box<WorldError>),
    /// A fork of a block that is not there yet.
    #[error("Unable to initialize from future block: {block} unfinalizedBlockHeight: {tip}. Tree name: NullifierTree")]
    FutureBlock {
        /// The block asked for.
        block: BlockNumber,
        /// The last block.
        tip: BlockNumber,
    },
    /// A fork of a block that was removed.
    #[error(
        "Unable to fork from expired historical block: {block} unfinalizedBlockHeight: {oldest}. Tree name: NullifierTree"
    )]
    ExpiredBlock {
        /// The block asked for.
        block: BlockNumber,
        /// The oldest block that is kept.
        oldest: BlockNumber,
    },
    /// Genesis cannot be finalised.
    #[error("Unable to finalize block 0")]
    FinalizeGenesis,
    /// The block to finalise is not there.
    #[error("Unable to advance finalized block: {block}. Failed to read block data. Tree name: NullifierTree")]
    FinalizeUnknown {
        /// The block.
        block: BlockNumber,
    },
    /// There is nothing to unwind.
    #[error("Unable to unwind blocks to block number {block}, current pending block {tip}")]
    UnwindToFuture {
        /// The block asked for.
        block: BlockNumber,
        /// The last block.
        tip: BlockNumber,
    },
    /// Finalised blocks stay.
    #[error("Unable to unwind block: {finalized} finalizedBlockHeight: {finalized}. Tree name: NullifierTree")]
    UnwindFinalized {
        /// The last finalised block.
        finalized: BlockNumber,
    },
    /// There are no blocks to remove.
    #[error(
        "Unable to remove historical blocks to block number {block}, blocks not found. Current oldest block: {oldest}"
    )]
    NothingToRemove {
        /// The block asked for.
        block: BlockNumber,
        /// The oldest block.
        oldest: BlockNumber,
    },
    /// Only blocks before the last finalised one can be removed.
    #[error("Unable to remove historical block: {block} finalizedBlockHeight: {finalized}. Tree name: NullifierTree")]
    RemoveUnfinalized {
        /// The first block that would have to stay.
        block: BlockNumber,
        /// The last finalised block.
        finalized: BlockNumber,
    },
    /// No checkpoint is open.
    #[error("{0}")]
    NoCheckpoint(&'static str),
    /// The directory to copy to holds something already.
    // The line break is part of what clients are told there.
    #[error("mdb_env_copy2: 17 - File exists\n")]
    CopyExists,
    /// The copy could not be written.
    #[error("the copy failed: {0}")]
    CopyFailed(String),
    /// More forks are open than may be.
    #[error("{limit} forks are open, no more can be made")]
    TooManyForks {
        /// The most there may be.
        limit: usize,
    },
    /// Too much waits for the fork.
    #[error("too many requests wait for the fork")]
    Overloaded,
    /// The request waited for its turn longer than it may.
    #[error("the request waited too long for its turn")]
    Expired,
    /// The service is shutting down.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The request has a form that the protocol does not allow.
    #[error("{0}")]
    Malformed(String),
    /// A tree cannot be read or written.
    #[error(transparent)]
    Tree(TreeError),
    /// The store refused.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The store refused a write.
    #[error("{0}")]
    Write(#[from] WriteError),
    /// The store could not make a fork.
    #[error("{0}")]
    Fork(#[from] ForkError),
    /// An older version cannot be reached.
    #[error("{message}")]
    History {
        /// The code of the store's error.
        code: &'static str,
        /// Its message.
        message: String,
    },
}

impl WorldError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            WorldError::ForkNotFound => "TN1210",
            WorldError::CanonicalFork => "TN1211",
            WorldError::UnknownTree { .. } | WorldError::NotIndexed => "TN1212",
            WorldError::NoSuchBlock { .. } => "TN1213",
            WorldError::NoSuchLeaf { .. } | WorldError::LeafOutOfRange { .. } => "TN1214",
            WorldError::Full { .. } => "TN1201",
            WorldError::AlreadyPresent { .. } => "TN1202",
            WorldError::DuplicateKey { .. } => "TN1203",
            WorldError::ArchiveStateMismatch | WorldError::StateMismatch => "TN1215",
            WorldError::PreviousArchiveMismatch { .. } | WorldError::ArchiveMismatch { .. } => "TN1216",
            WorldError::WrongBlockNumber { .. } => "TN1217",
            WorldError::BlockRefused(cause) => cause.code(),
            WorldError::FutureBlock { .. } => "TN1218",
            WorldError::ExpiredBlock { .. } => "TN1219",
            WorldError::FinalizeGenesis | WorldError::FinalizeUnknown { .. } => "TN1220",
            WorldError::UnwindToFuture { .. } | WorldError::UnwindFinalized { .. } => "TN1221",
            WorldError::NothingToRemove { .. } | WorldError::RemoveUnfinalized { .. } => "TN1222",
            WorldError::NoCheckpoint(_) => "TN1223",
            WorldError::CopyExists | WorldError::CopyFailed(_) => "TN1224",
            WorldError::TooManyForks { .. } => "TN1225",
            WorldError::Overloaded | WorldError::Expired => "TN1226",
            WorldError::ShuttingDown => "TN1227",
            WorldError::Malformed(_) => "TN1228",
            WorldError::Tree(error) => error.code(),
            WorldError::Store(error) => error.code(),
            WorldError::Write(error) => error.code(),
            WorldError::Fork(error) => error.code(),
            WorldError::History { code, .. } => code,
        }
    }

    pub(crate) fn of_tree(tree: TreeId, error: TreeError) -> WorldError {
        match error {
            TreeError::Full { new_size, max_size } => WorldError::Full { tree, new_size, max_size },
            TreeError::AlreadyPresent { key } => WorldError::AlreadyPresent { tree, key },
            TreeError::DuplicateKey { key } => WorldError::DuplicateKey { tree, key },
            TreeError::Write(error) => WorldError::Write(error),
            error => WorldError::Tree(error),
        }
    }
}

impl From<Fault> for WorldError {
    fn from(fault: Fault) -> WorldError {
        WorldError::Tree(TreeError::Read(fault))
    }
}

impl From<HistoryError> for WorldError {
    fn from(error: HistoryError) -> WorldError {
        WorldError::History { code: error.code(), message: error.to_string() }
    }
}

fn unknown_tree(command: &Option<&'static str>) -> String {
    match command {
        Some(command) => format!("Unsupported tree type for {command}"),
        None => "unordered_map::at: key not found".to_owned(),
    }
}

fn root_name(block: &Option<BlockNumber>) -> String {
    block.map_or_else(|| "current root".to_owned(), |block| format!("root of block {block}"))
}

struct Hex<'a>(&'a Digest);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Why a world state could not be opened.
#[derive(Debug, Error)]
pub enum OpenWorldError {
    /// The options contradict themselves.
    #[error("{0}")]
    BadOptions(String),
    /// The directory holds a world state that was made with other options.
    #[error("the world state in {directory} was made with other {what}")]
    OtherOptions {
        /// The data directory.
        directory: PathBuf,
        /// Which options differ.
        what: &'static str,
    },
    /// The state on disk is not that of a world state.
    #[error("the world state in {directory} is damaged: {detail}")]
    Damaged {
        /// The data directory.
        directory: PathBuf,
        /// What does not hold.
        detail: String,
    },
    /// The store cannot be opened.
    #[error("cannot open the world state in {directory}")]
    Store {
        /// The data directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The first state could not be made, or the last one not read.
    #[error("cannot prepare the world state")]
    World(#[from] WorldError),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

impl OpenWorldError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            OpenWorldError::BadOptions(_) => "TN1230",
            OpenWorldError::OtherOptions { .. } => "TN1231",
            OpenWorldError::Damaged { .. } => "TN1232",
            OpenWorldError::Store { source, .. } => source.code(),
            OpenWorldError::World(error) => error.code(),
            OpenWorldError::Thread(_) => "TN1233",
        }
    }
}
