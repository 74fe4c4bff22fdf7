//! Why a tree could not be read or changed.

use thiserror::Error;
use tine_store::{Fault, WriteError};

use crate::Digest;

/// Why a tree could not be read or changed. A refused change may have written part of itself: the caller rolls its
/// transaction back.
#[derive(Clone, Debug, Error)]
pub enum TreeError {
    /// The leaves do not fit.
    #[error("{new_size} leaves are over the {max_size} that the tree has room for")]
    Full {
        /// Leaves there would have been.
        new_size: u64,
        /// Leaves there may be.
        max_size: u64,
    },
    /// A key of a set is there already.
    #[error("the key {} is already present", Hex(key))]
    AlreadyPresent {
        /// The key.
        key: Digest,
    },
    /// A key is twice in one batch.
    #[error("the key {} is twice in the batch", Hex(key))]
    DuplicateKey {
        /// The key.
        key: Digest,
    },
    /// A word is none that the tree's hash takes.
    #[error("{} is not a word of the tree's hash", Hex(word))]
    BadWord {
        /// The word.
        word: Digest,
    },
    /// The initial keys of an indexed tree are not strictly increasing.
    #[error("the initial keys are not unique and sorted")]
    InitialKeysUnsorted,
    /// An indexed tree needs at least one leaf: every key has one that is not greater.
    #[error("the indexed tree has no leaf below the key {}: it was not initialised", Hex(key))]
    NoLowLeaf {
        /// The key that was looked for.
        key: Digest,
    },
    /// A record of the tree cannot be read.
    #[error("a record of the tree is damaged: {0}")]
    Damaged(&'static str),
    /// The state cannot be reached.
    #[error("the state cannot be read")]
    Read(#[source] Fault),
    /// The store refused a write.
    #[error("the store refused a write")]
    Write(#[from] WriteError),
}

impl From<Fault> for TreeError {
    fn from(fault: Fault) -> TreeError {
        TreeError::Read(fault)
    }
}

impl TreeError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            TreeError::Full { .. } => "TN1201",
            TreeError::AlreadyPresent { .. } => "TN1202",
            TreeError::DuplicateKey { .. } => "TN1203",
            TreeError::BadWord { .. } => "TN1204",
            TreeError::InitialKeysUnsorted => "TN1205",
            TreeError::NoLowLeaf { .. } => "TN1206",
            TreeError::Damaged(_) => "TN1207",
            TreeError::Read(fault) => fault.code(),
            TreeError::Write(error) => error.code(),
        }
    }
}

/// Shows 32 bytes as a number with `0x`.
pub(crate) struct Hex<'a>(pub(crate) &'a Digest);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}
