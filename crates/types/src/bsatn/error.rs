//! What can be wrong with bytes.

use crate::bsatn::{VALUE_NODES_MAX, ZERO_SIZED_ELEMENTS_MAX};
use crate::{TYPE_DEPTH_MAX, TYPE_NODES_MAX};

/// Why bytes are not the encoding of a value of the wanted type.
///
/// Positions are offsets in bytes from the start of the reader's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("unexpected end of data at byte {position}: {needed} more bytes needed")]
    UnexpectedEnd {
        /// Where the value's next part would start.
        position: usize,
        /// How many bytes that part has.
        needed: usize,
    },
    /// An array announces more elements than the rest of the data can hold.
    #[error("array of {count} elements at byte {position} is longer than the data")]
    ArrayTooLong {
        /// Where the first element would start.
        position: usize,
        /// The announced count.
        count: u32,
    },
    /// A value has too many array elements that take no bytes.
    #[error("array of {count} empty elements at byte {position}; one value may have {ZERO_SIZED_ELEMENTS_MAX} in all")]
    TooManyEmptyElements {
        /// Where the elements would start.
        position: usize,
        /// The announced count.
        count: u32,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("invalid boolean {value} at byte {position}")]
    InvalidBool {
        /// Where it is.
        position: usize,
        /// The byte found.
        value: u8,
    },
    /// A sum's tag that names no variant.
    #[error("invalid tag {tag} at byte {position}")]
    InvalidTag {
        /// Where it is.
        position: usize,
        /// The tag found.
        tag: u8,
    },
    /// A string that is not UTF-8.
    #[error("string at byte {position} is not valid UTF-8")]
    InvalidUtf8 {
        /// Where its text starts.
        position: usize,
    },
    /// Bytes are left after the value.
    #[error("{count} bytes left after the value, which ends at byte {position}")]
    TrailingBytes {
        /// Where the value ends.
        position: usize,
        /// How many bytes follow.
        count: usize,
    },
    /// A type, or a value walked along its type, nests too deep.
    #[error("nesting deeper than {TYPE_DEPTH_MAX} levels at byte {position}")]
    TooDeep {
        /// Where the bound was met.
        position: usize,
    },
    /// An encoded type, or a module's types together, have too many nodes.
    #[error("more than {TYPE_NODES_MAX} type nodes, at byte {position}")]
    TooManyTypeNodes {
        /// Where the bound was met.
        position: usize,
    },
    /// A value has too many nodes to be built as a tree.
    #[error("more than {VALUE_NODES_MAX} values in one tree, at byte {position}")]
    TooManyValues {
        /// Where the bound was met.
        position: usize,
    },
    /// The type still has a reference in it: a caller's mistake, not the data's.
    #[error("type reference {reference} was not inlined")]
    UnresolvedRef {
        /// The reference.
        reference: u32,
    },
}

impl DecodeError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnexpectedEnd { .. } => "TN0101",
            Self::ArrayTooLong { .. } => "TN0102",
            Self::TooManyEmptyElements { .. } => "TN0103",
            Self::InvalidBool { .. } => "TN0104",
            Self::InvalidTag { .. } => "TN0105",
            Self::InvalidUtf8 { .. } => "TN0106",
            Self::TrailingBytes { .. } => "TN0107",
            Self::TooDeep { .. } => "TN0108",
            Self::TooManyTypeNodes { .. } => "TN0109",
            Self::TooManyValues { .. } => "TN0114",
            Self::UnresolvedRef { .. } => "TN0115",
        }
    }
}
