//! What a query can fail with.
//!
//! Every error about the text of a query carries the place in the text and, where one exists, a
//! hint that says what would have worked. A private table and a table that does not exist give the
//! same error, so a stranger cannot probe for names.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use tine_tables::TableError;

/// A place in the text of a query. Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Byte offset from the start of the text.
    pub offset: usize,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The message, place and hint of an error about the text of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// What is wrong, without the place.
    pub message: String,
    /// Where it is wrong.
    pub position: Position,
    /// What would have worked, when we know.
    pub hint: Option<String>,
}

impl Detail {
    pub(crate) fn new(message: impl Into<String>, position: Position) -> Self {
        Detail { message: message.into(), position, hint: None }
    }

    pub(crate) fn with_hint(message: impl Into<String>, position: Position, hint: impl Into<String>) -> Self {
        Detail { message: message.into(), position, hint: Some(hint.into()) }
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.position)?;
        match &self.hint {
            Some(hint) => write!(f, "; hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Why a query was refused or could not be finished.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The text is longer than [`crate::TEXT_BYTES_MAX`].
    #[error("the query has {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// There is no statement in the text.
    #[error("the query is empty")]
    Empty,
    /// The text is not a statement of the dialect.
    #[error("syntax error: {0}")]
    Syntax(Detail),
    /// The statement nests too deep, has too many terms or joins too many tables.
    #[error("query too complex: {0}")]
    TooComplex(Detail),
    /// Valid SQL that the dialect does not have.
    #[error("not supported: {0}")]
    Unsupported(Detail),
    /// More than one statement in the text.
    #[error("Multiple SQL statements are not supported: {0}")]
    MultipleStatements(Detail),
    /// No table of that name that the caller may see.
    #[error("unknown table: {0}")]
    UnknownTable(Detail),
    /// The table has no such column.
    #[error("unknown column: {0}")]
    UnknownColumn(Detail),
    /// A name that could mean two things.
    #[error("ambiguous name: {0}")]
    AmbiguousName(Detail),
    /// The two sides of a comparison do not go together.
    #[error("type error: {0}")]
    TypeMismatch(Detail),
    /// A literal that is not a value of the type the other side has.
    #[error("bad literal: {0}")]
    BadLiteral(Detail),
    /// A subscription whose join columns are not both indexed.
    #[error("unindexed join: {0}")]
    UnindexedJoin(Detail),
    /// A statement that parses but cannot be run yet.
    #[error("{what} is not supported yet")]
    NotSupportedYet {
        /// The kind of statement.
        what: &'static str,
    },
    /// The query went over one of its limits while running.
    #[error("the query needs more than {max} {what}; add a WHERE clause, an index or a LIMIT")]
    LimitExceeded {
        /// What is limited, in the plural.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// Reading the tables failed.
    #[error("reading the tables failed")]
    Tables(#[source] Arc<TableError>),
    /// A statement that changes rows, by somebody else than the owner.
    #[error("only the owner of the database changes rows with SQL; others call reducers")]
    NotOwner,
    /// The tables refused a change, for example because a value must be unique.
    #[error("{0}")]
    Refused(#[source] Arc<TableError>),
}

impl QueryError {
    /// The stable code of this error, documented under `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            QueryError::TooLong { .. } => "TN0401",
            QueryError::Empty => "TN0402",
            QueryError::Syntax(_) => "TN0403",
            QueryError::TooComplex(_) => "TN0404",
            QueryError::Unsupported(_) => "TN0405",
            QueryError::MultipleStatements(_) => "TN0406",
            QueryError::UnknownTable(_) => "TN0407",
            QueryError::UnknownColumn(_) => "TN0408",
            QueryError::AmbiguousName(_) => "TN0409",
            QueryError::TypeMismatch(_) => "TN0410",
            QueryError::BadLiteral(_) => "TN0411",
            QueryError::UnindexedJoin(_) => "TN0412",
            QueryError::NotSupportedYet { .. } => "TN0413",
            QueryError::LimitExceeded { .. } => "TN0414",
            QueryError::Tables(_) => "TN0415",
            QueryError::NotOwner => "TN0416",
            QueryError::Refused(_) => "TN0417",
        }
    }

    /// The place in the text, for errors about the text.
    pub fn detail(&self) -> Option<&Detail> {
        match self {
            QueryError::Syntax(detail)
            | QueryError::TooComplex(detail)
            | QueryError::Unsupported(detail)
            | QueryError::MultipleStatements(detail)
            | QueryError::UnknownTable(detail)
            | QueryError::UnknownColumn(detail)
            | QueryError::AmbiguousName(detail)
            | QueryError::TypeMismatch(detail)
            | QueryError::BadLiteral(detail)
            | QueryError::UnindexedJoin(detail) => Some(detail),
            QueryError::TooLong { .. }
            | QueryError::Empty
            | QueryError::NotSupportedYet { .. }
            | QueryError::LimitExceeded { .. }
            | QueryError::Tables(_)
            | QueryError::NotOwner
            | QueryError::Refused(_) => None,
        }
    }
}

impl QueryError {
    pub(crate) fn refused(error: TableError) -> Self {
        QueryError::Refused(Arc::new(error))
    }
}

impl From<TableError> for QueryError {
    fn from(error: TableError) -> Self {
        QueryError::Tables(Arc::new(error))
    }
}
