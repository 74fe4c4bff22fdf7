//! What can be wrong with JSON input.

use std::fmt;

use crate::bsatn::DecodeError;

/// JSON that is no value of the wanted type: where, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JsonError {
    /// Path from the outermost value, such as `.owner[2]`; empty for the outermost value itself.
    pub path: String,
    /// What is wrong there.
    pub kind: JsonErrorKind,
}

/// Why JSON is no value of the wanted type.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JsonErrorKind {
    /// Another kind of JSON value was needed.
    #[error("expected {expected}, found {found}")]
    Mismatch {
        /// What the type wants.
        expected: &'static str,
        /// What there is.
        found: &'static str,
    },
    /// A number, or text that stands for a value, that the type does not have.
    #[error("`{text}` is no {expected}")]
    BadText {
        /// What the type wants.
        expected: &'static str,
        /// The text, cut if long.
        text: String,
    },
    /// An object without one of the fields.
    #[error("field `{0}` is missing")]
    MissingField(String),
    /// An object with a field the type does not have.
    #[error("there is no field `{0}`")]
    UnknownField(String),
    /// An array with the wrong number of fields.
    #[error("expected {expected} values, found {found}")]
    WrongLength {
        /// Number of fields of the type.
        expected: usize,
        /// Number of values there are.
        found: usize,
    },
    /// A variant the type does not have.
    #[error("there is no variant `{0}`")]
    UnknownVariant(String),
    /// Too deep, too many elements, or a type that was not inlined.
    #[error(transparent)]
    Value(#[from] DecodeError),
}

impl JsonErrorKind {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Mismatch { .. } => "TN0130",
            Self::BadText { .. } => "TN0131",
            Self::MissingField(_) => "TN0132",
            Self::UnknownField(_) => "TN0133",
            Self::WrongLength { .. } => "TN0134",
            Self::UnknownVariant(_) => "TN0135",
            Self::Value(error) => error.code(),
        }
    }
}

impl JsonError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// The same error seen from the value that contains this one as field `name`.
    pub(super) fn in_field(mut self, name: &str) -> Self {
        self.path.insert_str(0, name);
        self.path.insert(0, '.');
        self
    }

    /// The same error seen from the array that contains this value at `index`.
    pub(super) fn at_index(mut self, index: usize) -> Self {
        self.path.insert_str(0, &format!("[{index}]"));
        self
    }
}

impl From<JsonErrorKind> for JsonError {
    fn from(kind: JsonErrorKind) -> Self {
        Self { path: String::new(), kind }
    }
}

impl From<DecodeError> for JsonError {
    fn from(error: DecodeError) -> Self {
        JsonErrorKind::Value(error).into()
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return self.kind.fmt(f);
        }
        write!(f, "at `{}`: {}", self.path, self.kind)
    }
}

impl std::error::Error for JsonError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.kind)
    }
}
