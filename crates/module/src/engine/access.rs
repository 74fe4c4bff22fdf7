//! The tables of the open transaction as natives see them: here, or on the other side of a border between processes.
//!
//! The border is one test of an enum for code that runs beside its tables, so it costs nothing there.

use std::sync::Arc;

use tine_tables::{DatabaseSchema, IndexId, RowCursor, TableError, TableId, TableRead, TableWriter};
use tine_types::bsatn::Reader;

use super::tables::TablesFailure;
use crate::isolation::{Ask, IndexRange, Refusal, RemoteTables};

/// See the module documentation.
pub(super) enum OpenTables<'a> {
    Here(&'a mut TableWriter),
    Away(&'a mut dyn RemoteTables),
}

/// Rows that are read one after the other.
#[expect(clippy::large_enum_variant)] // One per scan: a box would cost more than the room.
pub(super) enum Rows<'a> {
    Here(RowCursor<'a>),
    /// Rows with their lengths, all of them.
    Away(Reader<'a>),
}

impl Rows<'_> {
    /// The next row.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, TableError> {
        match self {
            Rows::Here(cursor) => cursor.next(),
            Rows::Away(rows) if rows.is_empty() => Ok(None),
            Rows::Away(rows) => Ok(Some(rows.bytes().expect("a server answers with whole rows"))),
        }
    }
}

impl From<Refusal> for TablesFailure {
    fn from(refusal: Refusal) -> TablesFailure {
        match refusal {
            Refusal::Refused(error) => TablesFailure::Refused(error),
            Refusal::NoTransaction => TablesFailure::NoTransaction,
            Refusal::Broken(problem) => TablesFailure::Broken(problem),
            Refusal::OutOfMemory => TablesFailure::OutOfMemory,
        }
    }
}

/// The number that an answer is.
fn number(answer: &[u8]) -> u64 {
    Reader::new(answer).u64().expect("a server answers with a number")
}

/// As the tables count deleted rows.
fn saturated(answer: &[u8]) -> u32 {
    u32::try_from(number(answer)).unwrap_or(u32::MAX)
}

fn replace(out: &mut Vec<u8>, bytes: &[u8]) {
    out.clear();
    out.extend_from_slice(bytes);
}

impl OpenTables<'_> {
    pub(super) fn schema(&self) -> &Arc<DatabaseSchema> {
        match self {
            OpenTables::Here(tables) => tables.schema(),
            OpenTables::Away(tables) => tables.schema(),
        }
    }

    #[inline]
    pub(super) fn insert(&mut self, table: TableId, row: &[u8], generated: &mut Vec<u8>) -> Result<(), TablesFailure> {
        match self {
            OpenTables::Here(tables) => tables.insert(table, row, generated).map(drop)?,
            OpenTables::Away(tables) => replace(generated, tables.ask(&Ask::Insert(table, row))?),
        }
        Ok(())
    }

    #[inline]
    pub(super) fn update(
        &mut self,
        table: TableId,
        index: IndexId,
        row: &[u8],
        generated: &mut Vec<u8>,
    ) -> Result<(), TablesFailure> {
        match self {
            OpenTables::Here(tables) => tables.update(table, index, row, generated).map(drop)?,
            OpenTables::Away(tables) => replace(generated, tables.ask(&Ask::Update(table, index, row))?),
        }
        Ok(())
    }

    #[inline]
    pub(super) fn delete_row(&mut self, table: TableId, row: &[u8]) -> Result<bool, TablesFailure> {
        match self {
            OpenTables::Here(tables) => Ok(tables.delete_row(table, row)?),
            OpenTables::Away(tables) => Ok(number(tables.ask(&Ask::DeleteRow(table, row))?) > 0),
        }
    }

    #[inline]
    pub(super) fn delete_rows(&mut self, table: TableId, rows: &[u8]) -> Result<u32, TablesFailure> {
        match self {
            OpenTables::Here(tables) => Ok(tables.delete_rows(table, rows)?),
            OpenTables::Away(tables) => Ok(saturated(tables.ask(&Ask::DeleteRows(table, rows))?)),
        }
    }

    #[inline]
    pub(super) fn delete_by_index_point(&mut self, index: IndexId, key: &[u8]) -> Result<u32, TablesFailure> {
        match self {
            OpenTables::Here(tables) => Ok(tables.delete_by_index_point(index, key)?),
            OpenTables::Away(tables) => Ok(saturated(tables.ask(&Ask::DeletePoint(index, key))?)),
        }
    }

    pub(super) fn delete_by_index_range(
        &mut self,
        index: IndexId,
        range: IndexRange<'_>,
    ) -> Result<u32, TablesFailure> {
        match self {
            OpenTables::Here(tables) => {
                let IndexRange { prefix, prefix_columns, start, end } = range;
                Ok(tables.delete_by_index_range(index, prefix, prefix_columns, start, end)?)
            }
            OpenTables::Away(tables) => Ok(saturated(tables.ask(&Ask::DeleteRange(index, range))?)),
        }
    }

    pub(super) fn clear(&mut self, table: TableId) -> Result<u64, TablesFailure> {
        match self {
            OpenTables::Here(tables) => Ok(tables.clear(table)?),
            OpenTables::Away(tables) => Ok(number(tables.ask(&Ask::Clear(table))?)),
        }
    }

    #[inline]
    pub(super) fn row_count(&mut self, table: TableId) -> Result<u64, TablesFailure> {
        match self {
            OpenTables::Here(tables) => Ok(tables.row_count(table)),
            OpenTables::Away(tables) => Ok(number(tables.ask(&Ask::Count(table))?)),
        }
    }

    #[inline]
    pub(super) fn scan(&mut self, table: TableId) -> Result<Rows<'_>, TablesFailure> {
        match self {
            OpenTables::Here(tables) => Ok(Rows::Here(tables.scan(table))),
            OpenTables::Away(tables) => Ok(Rows::Away(Reader::new(tables.ask(&Ask::Scan(table))?))),
        }
    }

    #[inline]
    pub(super) fn index_point(&mut self, index: IndexId, key: &[u8]) -> Result<Rows<'_>, TablesFailure> {
        match self {
            OpenTables::Here(tables) => Ok(Rows::Here(tables.index_point(index, key)?)),
            OpenTables::Away(tables) => Ok(Rows::Away(Reader::new(tables.ask(&Ask::Point(index, key))?))),
        }
    }

    #[inline]
    pub(super) fn index_range(&mut self, index: IndexId, range: IndexRange<'_>) -> Result<Rows<'_>, TablesFailure> {
        match self {
            OpenTables::Here(tables) => {
                let IndexRange { prefix, prefix_columns, start, end } = range;
                Ok(Rows::Here(tables.index_range(index, prefix, prefix_columns, start, end)?))
            }
            OpenTables::Away(tables) => Ok(Rows::Away(Reader::new(tables.ask(&Ask::Range(index, range))?))),
        }
    }
}
