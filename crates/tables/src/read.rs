//! Reading tables: scans, point lookups and ranges, the same for a snapshot and for an open
//! transaction.
//!
//! All reads go over encoded keys. A lookup on the primary key reads the row keyspace directly; any
//! other index holds row keys, and the cursor fetches each row as it goes. A cursor borrows what it
//! reads, so a transaction cannot change under it.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use tine_store::{Cursor, Direction, KeyspaceId, Read, Snapshot, ValueRef, Version};
use tine_types::bsatn::{DecodeError, Reader};

use crate::error::TableError;
use crate::ids::{IndexId, TableId};
use crate::key::{self, KeyRange};
use crate::schema::{DatabaseSchema, IndexAlgorithm, IndexSchema, TableSchema};

/// One state of a database's tables.
///
/// Keys and bounds are BSATN column values. Implemented by [`TableSnapshot`] (one version) and
/// [`crate::TableWriter`] (the open transaction, its own writes included).
pub trait TableRead {
    /// The schema of this state.
    fn schema(&self) -> &Arc<DatabaseSchema>;

    /// The store behind the tables.
    fn store(&self) -> &dyn Read;

    /// Rows of a table, in constant time; 0 for an unknown table and for an event table.
    fn row_count(&self, table: TableId) -> u64 {
        match self.schema().table(table) {
            Some(table) => self.store().len(table.id.keyspace()),
            None => 0,
        }
    }

    /// All rows of a table in row key order (primary key order when it has one); none for an unknown
    /// table.
    fn scan(&self, table: TableId) -> RowCursor<'_> {
        match self.schema().table(table) {
            Some(table) => RowCursor::over_rows(self.store(), table, Bound::Unbounded, Bound::Unbounded),
            None => RowCursor::empty(),
        }
    }

    /// The rows whose index columns equal `key`: the BSATN values of all index columns, concatenated.
    fn index_point(&self, index: IndexId, key: &[u8]) -> Result<RowCursor<'_>, TableError> {
        let (table, index) = self.schema().index(index).ok_or(TableError::NoSuchIndex)?;
        let encoded = encode_point(table, index, key)?;
        let store = self.store();
        if index.is_primary_key {
            return RowCursor::over_one(store, table.id.keyspace(), &encoded);
        }
        if index.unique {
            return match store.get(index.id.keyspace(), &encoded)? {
                Some(row_key) => match store.get(table.id.keyspace(), &row_key)? {
                    Some(row) => Ok(RowCursor { source: Source::One { row, returned: false } }),
                    None => Err(IndexPlace { table, index }.damaged()),
                },
                None => Ok(RowCursor::empty()),
            };
        }
        Ok(RowCursor::over_range(store, table, index, &KeyRange::of_prefix(encoded)))
    }

    /// The rows whose first `prefix_columns` index columns equal `prefix` (BSATN values) and whose
    /// next index column lies within `start` and `end` (BSATN values), in index order.
    fn index_range(
        &self,
        index: IndexId,
        prefix: &[u8],
        prefix_columns: usize,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<RowCursor<'_>, TableError> {
        let (table, index) = self.schema().index(index).ok_or(TableError::NoSuchIndex)?;
        let range = encode_range(table, index, prefix, prefix_columns, start, end)?;
        Ok(RowCursor::over_range(self.store(), table, index, &range))
    }

    /// Whether exactly this row is in the table.
    fn contains_row(&self, table: TableId, row: &[u8]) -> Result<bool, TableError> {
        let table = self.schema().table(table).ok_or(TableError::NoSuchTable)?;
        let mut offsets = Vec::with_capacity(table.columns.len() + 1);
        table.scan_row(row, &mut offsets)?;
        let mut row_key = Vec::new();
        table.layout.push_row_key(&table.columns, row, &offsets, &mut row_key);
        let stored = self.store().get(table.id.keyspace(), &row_key)?;
        Ok(stored.is_some_and(|stored| *stored == *row))
    }
}

/// The tables of one version. Cheap to clone and to share between threads.
#[derive(Clone)]
pub struct TableSnapshot {
    snapshot: Snapshot,
    schema: Arc<DatabaseSchema>,
}

impl TableSnapshot {
    /// Reads `snapshot` with `schema`, which must be the schema of that version.
    pub fn new(snapshot: Snapshot, schema: Arc<DatabaseSchema>) -> TableSnapshot {
        TableSnapshot { snapshot, schema }
    }

    /// The version read.
    pub fn version(&self) -> Version {
        self.snapshot.version()
    }

    /// The snapshot itself, for keyspaces that are not tables.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl TableRead for TableSnapshot {
    fn schema(&self) -> &Arc<DatabaseSchema> {
        &self.schema
    }

    fn store(&self) -> &dyn Read {
        &self.snapshot
    }
}

/// Rows one after the other, as BSATN.
pub struct RowCursor<'a> {
    source: Source<'a>,
}

enum Source<'a> {
    Empty,
    One { row: ValueRef<'a>, returned: bool },
    Rows(Cursor<'a>),
    Lent(std::slice::Iter<'a, Bytes>),
    Owned { rows: std::vec::IntoIter<Bytes>, row: Bytes },
    Index { entries: Cursor<'a>, store: &'a dyn Read, place: IndexPlace<'a>, row: Option<ValueRef<'a>> },
}

/// An index and its table.
#[derive(Clone, Copy)]
pub(crate) struct IndexPlace<'a> {
    pub table: &'a TableSchema,
    pub index: &'a IndexSchema,
}

impl<'a> RowCursor<'a> {
    /// A cursor without rows.
    pub fn empty() -> RowCursor<'a> {
        RowCursor { source: Source::Empty }
    }

    /// Rows that are in no keyspace, in the order given.
    pub fn of_rows(rows: &'a [Bytes]) -> RowCursor<'a> {
        RowCursor { source: Source::Lent(rows.iter()) }
    }

    /// Rows made for this cursor, in the order given.
    pub fn of_made_rows(rows: Vec<Bytes>) -> RowCursor<'static> {
        RowCursor { source: Source::Owned { rows: rows.into_iter(), row: Bytes::new() } }
    }

    /// The next row, valid until the next call; `None` after the last.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<&[u8]>, TableError> {
        match &mut self.source {
            Source::Empty => Ok(None),
            Source::One { row, returned } => {
                let first = !std::mem::replace(returned, true);
                Ok(first.then_some(&**row))
            }
            Source::Lent(rows) => Ok(rows.next().map(|row| &**row)),
            Source::Owned { rows, row } => {
                let Some(next) = rows.next() else { return Ok(None) };
                *row = next;
                Ok(Some(row))
            }
            Source::Rows(cursor) => Ok(cursor.next()?.map(|(_, row)| row)),
            Source::Index { entries, store, place, row } => {
                let Some((key, value)) = entries.next()? else { return Ok(None) };
                let row_key = place.row_key(key, value)?;
                let stored = store.get(place.table.id.keyspace(), row_key)?;
                *row = Some(stored.ok_or_else(|| place.damaged())?);
                Ok(row.as_deref())
            }
        }
    }

    fn over_one(store: &'a dyn Read, rows: KeyspaceId, row_key: &[u8]) -> Result<RowCursor<'a>, TableError> {
        let source = match store.get(rows, row_key)? {
            Some(row) => Source::One { row, returned: false },
            None => Source::Empty,
        };
        Ok(RowCursor { source })
    }

    fn over_rows(store: &'a dyn Read, table: &TableSchema, start: Bound<&[u8]>, end: Bound<&[u8]>) -> RowCursor<'a> {
        let cursor = store.range(table.id.keyspace(), start, end, Direction::Forward);
        RowCursor { source: Source::Rows(cursor) }
    }

    fn over_range(
        store: &'a dyn Read,
        table: &'a TableSchema,
        index: &'a IndexSchema,
        range: &KeyRange,
    ) -> RowCursor<'a> {
        if range.is_empty() {
            return RowCursor::empty();
        }
        let (start, end) = range.bounds();
        if index.is_primary_key {
            return RowCursor::over_rows(store, table, start, end);
        }
        let entries = store.range(index.id.keyspace(), start, end, Direction::Forward);
        let place = IndexPlace { table, index };
        RowCursor { source: Source::Index { entries, store, place, row: None } }
    }
}

impl<'a> IndexPlace<'a> {
    /// The row key in an index entry: the value of a unique index, the end of the key of another.
    pub fn row_key<'e>(&self, key: &'e [u8], value: &'e [u8]) -> Result<&'e [u8], TableError> {
        if self.index.unique {
            return Ok(value);
        }
        let columns_size = match self.table.layout.fixed_row_key_size() {
            Some(row_key_size) => key.len().checked_sub(row_key_size),
            None => self
                .table
                .index_types(self.index)
                .try_fold(0, |position, ty| Some(position + key::skip_encoded(ty, key.get(position..)?)?)),
        };
        columns_size.map(|size| &key[size..]).ok_or_else(|| self.damaged())
    }

    pub fn damaged(&self) -> TableError {
        TableError::Damaged { what: self.index.name.clone() }
    }
}

/// Encodes the values of all columns of an index.
pub(crate) fn encode_point(table: &TableSchema, index: &IndexSchema, key: &[u8]) -> Result<Vec<u8>, TableError> {
    encode_all(table, index, 0..index.columns.len(), key)
}

/// Encodes a prefix and the bounds of the column after it.
pub(crate) fn encode_range(
    table: &TableSchema,
    index: &IndexSchema,
    prefix: &[u8],
    prefix_columns: usize,
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
) -> Result<KeyRange, TableError> {
    if index.algorithm == IndexAlgorithm::Hash {
        return Err(TableError::NotRangeIndex { index: index.name.clone() });
    }
    let columns = index.columns.len();
    let unbounded = matches!((start, end), (Bound::Unbounded, Bound::Unbounded));
    if prefix_columns > columns || (prefix_columns == columns && !unbounded) {
        return Err(TableError::BadPrefix { index: index.name.clone(), columns });
    }
    let prefix = encode_all(table, index, 0..prefix_columns, prefix)?;
    let bound = |bound: Bound<&[u8]>| -> Result<Bound<Vec<u8>>, TableError> {
        let encode = |value| encode_all(table, index, prefix_columns..prefix_columns + 1, value);
        Ok(match bound {
            Bound::Unbounded => Bound::Unbounded,
            Bound::Included(value) => Bound::Included(encode(value)?),
            Bound::Excluded(value) => Bound::Excluded(encode(value)?),
        })
    };
    let (start, end) = (bound(start)?, bound(end)?);
    let start = start.as_ref().map(Vec::as_slice);
    let end = end.as_ref().map(Vec::as_slice);
    Ok(KeyRange::within(&prefix, start, end))
}

fn encode_all(
    table: &TableSchema,
    index: &IndexSchema,
    columns: std::ops::Range<usize>,
    values: &[u8],
) -> Result<Vec<u8>, TableError> {
    let bad_key = |source: DecodeError| TableError::BadKey { index: index.name.clone(), source };
    let types = index.columns[columns].iter().map(|column| &table.columns[column.position()].ty);
    let mut reader = Reader::new(values);
    let mut encoded = Vec::with_capacity(values.len() + 8);
    key::encode_columns(types, &mut reader, &mut encoded).map_err(bad_key)?;
    reader.finish().map_err(bad_key)?;
    Ok(encoded)
}
