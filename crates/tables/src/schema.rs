//! The schema of a database: its tables, their columns, indexes and sequences, with ids.
//!
//! A schema is immutable and shared behind an `Arc`. It is built from a module definition
//! ([`DatabaseSchema::from_module_def`]), which is also where all checking happens, or read back from
//! the bytes kept in the store. Everything the row path needs per table is worked out here once
//! (see `layout`): which columns have a fixed place, how the row key is made, which index is the row
//! keyspace itself.
//!
//! Invariants: ids are unique within the schema; the tables are in id order, and each table's indexes
//! too; all types are inlined; column ids are below the table's column count; names are unique among
//! tables and among indexes, aliases included.

mod assemble;
mod build;
mod codec;
mod compat;
mod plan;
mod unstored;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tine_store::KeyspaceId;
use tine_types::{AlgebraicType, ProductType};

use crate::ids::{ColumnId, IndexId, TableId};
use crate::layout::TableLayout;

pub use compat::SchemaChange;
pub use plan::SchemaStep;

/// Most tables in a database, submodules included.
pub const TABLES_MAX: usize = 4096;
/// Most columns in a table; well inside the 16-bit column id.
pub const COLUMNS_MAX: usize = 1024;
/// Most indexes on a table: each costs a write per row.
pub const INDEXES_MAX: usize = 64;

/// The tables of a database.
#[derive(Debug)]
pub struct DatabaseSchema {
    tables: Vec<Arc<TableSchema>>,
    sequences_keyspace: KeyspaceId,
    tables_by_name: HashMap<Arc<str>, u32>,
    indexes_by_name: HashMap<Arc<str>, IndexPosition>,
    /// Sorted by id.
    indexes_by_id: Vec<(IndexId, IndexPosition)>,
}

/// Where an index is: positions in the tables and in the table's indexes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct IndexPosition {
    table: u32,
    index: u32,
}

/// One table.
#[derive(Debug)]
pub struct TableSchema {
    /// Id, also the number of the keyspace of the rows.
    pub id: TableId,
    /// Canonical name (`alias.name` for the table of a submodule).
    pub name: Arc<str>,
    /// The name in the module's source; an alias.
    pub accessor: Arc<str>,
    /// The row type, inlined, with canonical column names.
    pub row_type: ProductType,
    /// The columns in row order.
    pub columns: Vec<ColumnSchema>,
    /// The primary key. Rows are stored under its encoding; without one under a hash of the row.
    pub primary_key: Option<ColumnId>,
    /// The indexes in id order.
    pub indexes: Vec<IndexSchema>,
    /// The sequences in column order, at most one per column.
    pub sequences: Vec<SequenceSchema>,
    /// Default values (BSATN) of columns, in column order.
    pub defaults: Vec<(ColumnId, Bytes)>,
    /// Whether clients other than the owner may read the table.
    pub public: bool,
    /// Whether rows are events: delivered with the transaction, never stored.
    pub is_event: bool,
    /// The function run for each row at its time.
    pub schedule: Option<TableSchedule>,
    /// Bytes of a BSATN row when all rows have the same size.
    pub static_row_size: Option<usize>,
    pub(crate) layout: TableLayout,
}

/// One column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnSchema {
    /// Canonical name.
    pub name: Arc<str>,
    /// The name in the module's source; an alias.
    pub accessor: Arc<str>,
    /// The type, inlined.
    pub ty: AlgebraicType,
    /// Position in the row.
    pub position: ColumnId,
}

/// One index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexSchema {
    /// Id, also the number of the keyspace of the entries.
    pub id: IndexId,
    /// Canonical name.
    pub name: Arc<str>,
    /// The name in the module's source; an alias.
    pub accessor: Arc<str>,
    /// The indexed columns, in index order; at least one, none twice.
    pub columns: Vec<ColumnId>,
    /// Whether a unique constraint holds on these columns.
    pub unique: bool,
    /// Name of that constraint, for error messages; the index's name when not unique.
    pub constraint: Arc<str>,
    /// The declared kind. All kinds are stored in order; a hash index refuses range scans.
    pub algorithm: IndexAlgorithm,
    /// Whether the index is on exactly the primary key, so that the row keyspace is the index.
    pub is_primary_key: bool,
}

/// The declared kind of an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexAlgorithm {
    /// Ordered.
    BTree,
    /// Point lookups only.
    Hash,
    /// Ordered, one small integer column.
    Direct,
}

/// The generator of a column's values: an inserted 0 takes the next value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SequenceSchema {
    /// The column, of an integer type of at most 128 bits.
    pub column: ColumnId,
    /// The first value.
    pub start: i128,
    /// Smallest value; below it the sequence is exhausted.
    pub min: i128,
    /// Largest value; beyond it the sequence is exhausted.
    pub max: i128,
    /// Step, not 0.
    pub increment: i128,
}

/// The schedule of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableSchedule {
    /// The column of type `ScheduleAt`.
    pub at_column: ColumnId,
    /// Source name of the reducer or procedure that is run.
    pub function: Arc<str>,
}

impl DatabaseSchema {
    /// All tables in id order.
    pub fn tables(&self) -> &[Arc<TableSchema>] {
        &self.tables
    }

    /// The table with the given id.
    pub fn table(&self, id: TableId) -> Option<&Arc<TableSchema>> {
        let position = self.tables.binary_search_by_key(&id, |table| table.id).ok()?;
        Some(&self.tables[position])
    }

    /// The table with the given canonical or source name.
    pub fn table_named(&self, name: &str) -> Option<&Arc<TableSchema>> {
        self.tables_by_name.get(name).map(|position| &self.tables[*position as usize])
    }

    /// The index with the given id and its table.
    pub fn index(&self, id: IndexId) -> Option<(&Arc<TableSchema>, &IndexSchema)> {
        let found = self.indexes_by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.index_at(self.indexes_by_id[found].1))
    }

    /// The index with the given canonical or source name and its table.
    pub fn index_named(&self, name: &str) -> Option<(&Arc<TableSchema>, &IndexSchema)> {
        self.indexes_by_name.get(name).map(|position| self.index_at(*position))
    }

    /// The keyspace of the state of all sequences.
    pub fn sequences_keyspace(&self) -> KeyspaceId {
        self.sequences_keyspace
    }

    /// Every keyspace the schema's tables use.
    pub fn keyspaces(&self) -> impl Iterator<Item = KeyspaceId> + '_ {
        let tables = self.tables.iter().flat_map(|table| {
            let indexes = table.indexes.iter().filter(|index| !index.is_primary_key);
            std::iter::once(table.id.keyspace()).chain(indexes.map(|index| index.id.keyspace()))
        });
        std::iter::once(self.sequences_keyspace).chain(tables)
    }

    fn index_at(&self, position: IndexPosition) -> (&Arc<TableSchema>, &IndexSchema) {
        let table = &self.tables[position.table as usize];
        (table, &table.indexes[position.index as usize])
    }
}

impl TableSchema {
    /// The column with the given canonical or source name.
    pub fn column_named(&self, name: &str) -> Option<&ColumnSchema> {
        let canonical = self.columns.iter().find(|column| *column.name == *name);
        canonical.or_else(|| self.columns.iter().find(|column| *column.accessor == *name))
    }

    /// The index that is the row keyspace itself, if the table has a primary key.
    pub fn primary_key_index(&self) -> Option<&IndexSchema> {
        self.indexes.iter().find(|index| index.is_primary_key)
    }

    /// The types of an index's columns, in index order.
    pub fn index_types<'a>(&'a self, index: &'a IndexSchema) -> impl Iterator<Item = &'a AlgebraicType> + Clone {
        index.columns.iter().map(|column| &self.columns[column.position()].ty)
    }
}

#[cfg(test)]
mod tests;
