//! What can be wrong with a message.

use crate::bsatn::DecodeError;
use crate::protocol::SUBSCRIBE_QUERIES_MAX;

/// Why bytes are no message. Positions are offsets in the received buffer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The bytes are not what the message's layout says.
    #[error("malformed message: {0}")]
    Malformed(#[from] DecodeError),
    /// A tag that names no message.
    #[error("unknown message tag {tag} at byte {position}")]
    UnknownMessage {
        /// Where the message starts.
        position: usize,
        /// Its tag.
        tag: u8,
    },
    /// Call flags other than zero.
    #[error("invalid call flags {flags} at byte {position}")]
    InvalidFlags {
        /// Where they are.
        position: usize,
        /// Their value.
        flags: u8,
    },
    /// A subscription of more than [`SUBSCRIBE_QUERIES_MAX`] queries.
    #[error("{count} queries in one subscription; at most {SUBSCRIBE_QUERIES_MAX} are allowed")]
    TooManyQueries {
        /// How many there are.
        count: usize,
    },
    /// A row list whose hint does not divide its data into rows.
    #[error("row list at byte {position} does not match its size hint")]
    InvalidRowList {
        /// Where the list starts.
        position: usize,
    },
}

impl ProtocolError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "TN0150",
            Self::UnknownMessage { .. } => "TN0151",
            Self::InvalidFlags { .. } => "TN0152",
            Self::TooManyQueries { .. } => "TN0153",
            Self::InvalidRowList { .. } => "TN0154",
        }
    }
}
