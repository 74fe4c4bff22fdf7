//! Typed ids of tables, indexes and columns.
//!
//! Table and index ids come from the store's keyspace counter and double as the ids of the keyspaces
//! that hold the rows and index entries, so an id is never reused within a store and means the same
//! table on every fork.

use tine_store::KeyspaceId;

/// A table, unique within its store. The table's rows live in the keyspace of the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableId(pub u32);

/// An index, unique within its store. Its entries live in the keyspace of the same number, except
/// that the index on the primary key is the row keyspace itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IndexId(pub u32);

/// A column's position in its table's row type, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ColumnId(pub u16);

impl TableId {
    /// The first id of tables that no keyspace holds: system tables and materialised views. Keyspaces are numbered from 0 and never
    /// get here: a store refuses far fewer.
    pub const UNSTORED_MIN: TableId = TableId(1 << 31);

    /// Whether a keyspace holds the table's rows.
    pub const fn is_stored(self) -> bool {
        self.0 < Self::UNSTORED_MIN.0
    }

    /// Wraps the number.
    pub const fn new(number: u32) -> TableId {
        TableId(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The keyspace of the table's rows.
    pub fn keyspace(self) -> KeyspaceId {
        KeyspaceId::new(self.0)
    }
}

impl IndexId {
    /// Wraps the number.
    pub const fn new(number: u32) -> IndexId {
        IndexId(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The keyspace of the index's entries (unused by an index on the primary key).
    pub fn keyspace(self) -> KeyspaceId {
        KeyspaceId::new(self.0)
    }
}

impl ColumnId {
    /// Wraps the position.
    pub const fn new(position: u16) -> ColumnId {
        ColumnId(position)
    }

    /// The position.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The position as an array index.
    pub fn position(self) -> usize {
        usize::from(self.0)
    }
}
