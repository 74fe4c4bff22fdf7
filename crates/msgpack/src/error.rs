//! What can be wrong with bytes.

/// Why bytes are not the encoding of a value of the wanted type.
///
/// Positions are offsets in bytes from the start of the reader's buffer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("unexpected end of data at byte {position}")]
    UnexpectedEnd {
        /// Where the missing part would start.
        position: usize,
    },
    /// A value of another kind than the wanted one.
    #[error("expected {expected} at byte {position}, found marker 0x{found:02x}")]
    WrongType {
        /// Where the value starts.
        position: usize,
        /// The wanted kind.
        expected: &'static str,
        /// The marker found.
        found: u8,
    },
    /// An integer that the field's type cannot hold.
    #[error("{value} at byte {position} is out of range: at most {max} fits")]
    OutOfRange {
        /// Where the value starts.
        position: usize,
        /// The value.
        value: i128,
        /// The largest value that fits.
        max: u64,
    },
    /// A string that is not UTF-8.
    #[error("string at byte {position} is not valid UTF-8")]
    InvalidUtf8 {
        /// Where its text starts.
        position: usize,
    },
    /// An array or byte string of another length than the type's.
    #[error("expected {expected} elements at byte {position}, found {found}")]
    WrongLength {
        /// Where the elements start.
        position: usize,
        /// The type's length.
        expected: usize,
        /// The announced length.
        found: usize,
    },
    /// An array or map that announces more elements than the rest of the data can hold.
    #[error("{count} elements at byte {position} are more than the data can hold")]
    TooManyElements {
        /// Where the elements would start.
        position: usize,
        /// The announced count.
        count: usize,
    },
    /// A value that would take far more memory than it has bytes.
    #[error("the value at byte {position} would take too much memory for its size on the wire")]
    TooMuchMemory {
        /// Where the elements would start.
        position: usize,
    },
    /// A required field that is not there.
    #[error("field `{field}` is missing in the map that ends at byte {position}")]
    MissingField {
        /// Where the map ends.
        position: usize,
        /// The field, as written in the schema.
        field: &'static str,
    },
    /// A field that is there twice.
    #[error("field `{field}` appears twice, at byte {position}")]
    DuplicateField {
        /// Where the second value starts.
        position: usize,
        /// The field, as written in the schema.
        field: &'static str,
    },
    /// A message of another name than the service has.
    #[error("unknown message `{name}`")]
    UnknownMessage {
        /// The name, cut to a bounded length.
        name: String,
    },
    /// Bytes are left after the value.
    #[error("{count} bytes left after the value, which ends at byte {position}")]
    TrailingBytes {
        /// Where the value ends.
        position: usize,
        /// How many bytes follow.
        count: usize,
    },
}

impl DecodeError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnexpectedEnd { .. } => "TN1041",
            Self::WrongType { .. } => "TN1042",
            Self::OutOfRange { .. } => "TN1043",
            Self::InvalidUtf8 { .. } => "TN1044",
            Self::WrongLength { .. } => "TN1045",
            Self::TooManyElements { .. } => "TN1046",
            Self::TooMuchMemory { .. } => "TN1047",
            Self::MissingField { .. } => "TN1048",
            Self::DuplicateField { .. } => "TN1049",
            Self::UnknownMessage { .. } => "TN1050",
            Self::TrailingBytes { .. } => "TN1051",
        }
    }
}
