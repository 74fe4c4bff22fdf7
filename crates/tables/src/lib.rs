//! Typed tables over a forkable store: rows, primary keys, unique and other indexes, sequences, and
//! the net change of every transaction.
//!
//! # How tables map to keyspaces
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | a table's rows | row key | the row, BSATN |
//! | a unique index | encoded columns | row key |
//! | any other index | encoded columns, row key | nothing |
//! | all sequences | table id, column | the last value taken |
//!
//! The row key is the order-preserving encoding of the primary key ([`key`]), else the first 128 bits
//! of the BLAKE3 hash of the row. So the index on the primary key is the row keyspace itself, a table
//! without one is a set of rows, and a row has the same key on every fork.
//!
//! # Invariants
//!
//! 1. Every stored row is a valid BSATN value of its table's row type.
//! 2. For every row each secondary index has exactly one entry, and no others.
//! 3. State before a transaction + its [`ChangeSet`] = state after it, and no row is in both the
//!    inserts and the deletes of a table.
//! 4. A refused operation changes nothing, sequences included.
//! 5. Rows of event tables are in the change set and nowhere else.
//!
//! Reads go through [`TableRead`], implemented by [`TableSnapshot`] and [`TableWriter`].

mod changes;
mod error;
mod ids;
pub mod key;
mod layout;
mod migrate;
#[cfg(test)]
mod model_test;
mod read;
mod reads;
mod schema;
#[cfg(test)]
mod testing;
mod write;

pub use changes::{ChangeSet, PendingChanges, TRANSACTION_BYTES_MAX, TableChanges};
pub use error::{SchemaError, TableError};
pub use ids::{ColumnId, IndexId, TableId};
pub use migrate::{Migration, erase, migrate};
pub use read::{RowCursor, TableRead, TableSnapshot};
pub use reads::{READS_PER_TABLE_MAX, ReadSet, Readers};
pub use schema::{
    COLUMNS_MAX, ColumnSchema, DatabaseSchema, INDEXES_MAX, IndexAlgorithm, IndexSchema, SchemaChange, SchemaStep,
    SequenceSchema, TABLES_MAX, TableSchedule, TableSchema,
};
pub use write::{ROW_BYTES_MAX, SCHEDULE_INTERVAL_MICROS_MAX, TableSavepoint, TableWriter, WrittenRow};
