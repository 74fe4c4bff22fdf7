//! Errors of table operations and of building a schema. Codes TN0301 to TN0349 and TN0350 to TN0399.

use std::fmt;
use std::sync::Arc;

use tine_store::{Fault, StoreError, WriteError};
use tine_types::TypeError;
use tine_types::bsatn::DecodeError;

use crate::schema::SchemaChange;

/// Why a table operation was refused. A refused operation leaves nothing behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// No table has this id.
    #[error("there is no such table")]
    NoSuchTable,
    /// No index has this id, or it is an index of another table.
    #[error("there is no such index")]
    NoSuchIndex,
    /// The bytes are not a row of the table.
    #[error("the bytes are not a row of table `{table}`")]
    BadRow {
        /// The table's name.
        table: Arc<str>,
        /// What is wrong with them.
        #[source]
        source: DecodeError,
    },
    /// The bytes are not a key or bound of the index.
    #[error("the bytes are not a key of index `{index}`")]
    BadKey {
        /// The index's name.
        index: Arc<str>,
        /// What is wrong with them.
        #[source]
        source: DecodeError,
    },
    /// A range scan names more prefix columns than the index has, or bounds a column beyond its last.
    #[error("index `{index}` has {columns} columns, which the scan's prefix and bounds exceed")]
    BadPrefix {
        /// The index's name.
        index: Arc<str>,
        /// Columns of the index.
        columns: usize,
    },
    /// Another row has the same value in the columns of a unique constraint.
    #[error("table `{table}` already has a row with {value} (constraint `{constraint}`)")]
    UniqueViolation {
        /// The table's name.
        table: Arc<str>,
        /// The constraint's name.
        constraint: Arc<str>,
        /// The columns and their values, shortened for display.
        value: String,
    },
    /// A sequence has no further value.
    #[error("the sequence of column `{column}` of table `{table}` has no values left")]
    SequenceOverflow {
        /// The table's name.
        table: Arc<str>,
        /// The column's name.
        column: Arc<str>,
    },
    /// An update names an index that is not unique.
    #[error("index `{index}` is not unique, so it cannot pick the row to update")]
    IndexNotUnique {
        /// The index's name.
        index: Arc<str>,
    },
    /// An update found no row with the new row's key.
    #[error("table `{table}` has no row to update")]
    NoSuchRow {
        /// The table's name.
        table: Arc<str>,
    },
    /// A range scan of a hash index.
    #[error("index `{index}` is a hash index: it cannot be scanned by range")]
    NotRangeIndex {
        /// The index's name.
        index: Arc<str>,
    },
    /// A schedule's interval is longer than [`crate::SCHEDULE_INTERVAL_MICROS_MAX`].
    #[error("an interval of {interval_micros} us is too long for schedule table `{table}`")]
    ScheduleDelayTooLong {
        /// The table's name.
        table: Arc<str>,
        /// The refused interval.
        interval_micros: i64,
    },
    /// The transaction changed too much.
    #[error("the transaction changes more than {limit_bytes} bytes of rows")]
    TransactionTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// A row is longer than [`crate::ROW_BYTES_MAX`].
    #[error("a row of {size} bytes is too long for table `{table}` (the limit is {limit})")]
    RowTooLarge {
        /// The table's name.
        table: Arc<str>,
        /// Bytes of the row.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A row's key in an index, or its primary key, is longer than [`tine_store::KEY_BYTES_MAX`].
    #[error("a key of {size} bytes is too long for `{index}` (the limit is {limit})")]
    KeyTooLarge {
        /// Name of the index.
        index: Arc<str>,
        /// Bytes of the encoded key.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// What the store holds is not what this schema wrote: a damaged file or a defect of ours.
    #[error("the stored data of `{what}` does not fit the schema")]
    Damaged {
        /// The table or index.
        what: Arc<str>,
    },
    /// The store refused a write.
    #[error("the store refused the write")]
    Write(#[from] WriteError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// A page could not be read.
    #[error("the store could not read a page")]
    Fault(#[from] Fault),
}

impl TableError {
    /// The stable code, with a page under `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            TableError::NoSuchTable => "TN0301",
            TableError::NoSuchIndex => "TN0302",
            TableError::BadRow { .. } => "TN0303",
            TableError::BadKey { .. } => "TN0304",
            TableError::BadPrefix { .. } => "TN0305",
            TableError::UniqueViolation { .. } => "TN0306",
            TableError::SequenceOverflow { .. } => "TN0307",
            TableError::IndexNotUnique { .. } => "TN0308",
            TableError::NoSuchRow { .. } => "TN0309",
            TableError::NotRangeIndex { .. } => "TN0310",
            TableError::ScheduleDelayTooLong { .. } => "TN0311",
            TableError::TransactionTooLarge { .. } => "TN0312",
            TableError::RowTooLarge { .. } => "TN0313",
            TableError::KeyTooLarge { .. } => "TN0314",
            TableError::Damaged { .. } => "TN0315",
            TableError::Write(_) => "TN0316",
            TableError::Store(_) => "TN0317",
            TableError::Fault(_) => "TN0318",
        }
    }

    /// The error code a module sees for this error (module ABI, errors from syscalls); `None` when
    /// the module must not be able to catch it, because the database itself is failing.
    pub fn syscall_code(&self) -> Option<u16> {
        match self {
            TableError::BadRow { .. } | TableError::BadKey { .. } | TableError::BadPrefix { .. } => Some(3),
            TableError::NoSuchTable => Some(4),
            TableError::NoSuchIndex => Some(5),
            TableError::NotRangeIndex { .. } => Some(10),
            TableError::UniqueViolation { .. } => Some(12),
            TableError::ScheduleDelayTooLong { .. } => Some(13),
            TableError::IndexNotUnique { .. } => Some(14),
            TableError::NoSuchRow { .. } => Some(15),
            TableError::SequenceOverflow { .. } => Some(16),
            TableError::Write(WriteError::TransactionTooLarge { .. })
            | TableError::TransactionTooLarge { .. }
            | TableError::RowTooLarge { .. }
            | TableError::KeyTooLarge { .. } => Some(1),
            TableError::Damaged { .. } | TableError::Write(_) | TableError::Store(_) | TableError::Fault(_) => None,
        }
    }
}

/// Why a module definition cannot become the schema of a database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The definition contradicts itself or uses something that is not allowed.
    #[error("{place}: {problem}")]
    Invalid {
        /// The table, index, column or function at fault.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A type cannot be resolved.
    #[error("{place}: the type cannot be used")]
    Type {
        /// The table or column at fault.
        place: String,
        /// Why.
        #[source]
        source: TypeError,
    },
    /// The data of the previous schema does not fit the new one.
    #[error("the data of the database does not fit the new module: {}", ChangeList(.0))]
    Incompatible(Vec<SchemaChange>),
    /// No ids could be allocated.
    #[error("no ids could be allocated for new tables")]
    Allocate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Stored schema bytes cannot be read.
    #[error("the stored schema cannot be read: {0}")]
    Damaged(String),
    /// Stored schema bytes are of a version this program does not know.
    #[error("the stored schema has format version {0}, which this program does not know")]
    UnknownVersion(u8),
}

impl SchemaError {
    /// The stable code, with a page under `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            SchemaError::Invalid { .. } => "TN0350",
            SchemaError::Type { .. } => "TN0351",
            SchemaError::Incompatible(_) => "TN0352",
            SchemaError::Allocate(_) => "TN0353",
            SchemaError::Damaged(_) => "TN0354",
            SchemaError::UnknownVersion(_) => "TN0355",
        }
    }

    pub(crate) fn invalid(place: impl fmt::Display, problem: impl fmt::Display) -> SchemaError {
        SchemaError::Invalid { place: place.to_string(), problem: problem.to_string() }
    }
}

struct ChangeList<'a>(&'a [SchemaChange]);

impl fmt::Display for ChangeList<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, change) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(formatter, "{separator}{change}")?;
        }
        Ok(())
    }
}
