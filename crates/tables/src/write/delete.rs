//! Deleting rows: one, those of an index point or range, or all of a table.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use tine_store::{Direction, Read};
use tine_types::AlgebraicType;
use tine_types::bsatn::{self, Reader};

use super::{Buffers, TableWriter, delete_entry, push_index_columns};
use crate::changes::ChangeKind;
use crate::error::TableError;
use crate::ids::{IndexId, TableId};
use crate::key::KeyRange;
use crate::read::{IndexPlace, encode_point, encode_range};
use crate::schema::{IndexSchema, TableSchema};

/// Row keys collected before their rows are deleted: a range can be as large as the table, and the
/// cursor cannot stay open while rows go.
const DELETE_BATCH_ROWS: usize = 1024;

impl TableWriter {
    /// Deletes the rows whose index columns equal `key` (BSATN values of all index columns) and
    /// returns how many there were.
    ///
    /// # Errors
    /// No such index, the bytes are not a key, or the store fails.
    pub fn delete_by_index_point(&mut self, index: IndexId, key: &[u8]) -> Result<u32, TableError> {
        let schema = Arc::clone(&self.schema);
        let (table, index) = schema.index(index).ok_or(TableError::NoSuchIndex)?;
        let encoded = encode_point(table, index, key)?;
        if !index.unique {
            return self.delete_range(table, Some(index), &KeyRange::of_prefix(encoded)).map(saturate);
        }
        self.atomically(|writer| {
            if index.is_primary_key {
                writer.buffers.old_row_key = encoded;
            } else {
                let Some(row_key) = writer.writer.get(index.id.keyspace(), &encoded)? else {
                    return Ok(0);
                };
                writer.buffers.old_row_key.clear();
                writer.buffers.old_row_key.extend_from_slice(&row_key);
            }
            writer.delete_stored(table).map(u32::from)
        })
    }

    /// Deletes the rows of an index range, given as for [`crate::TableRead::index_range`], and
    /// returns how many there were.
    ///
    /// # Errors
    /// No such index or a hash index, bytes that are no key, or the store fails.
    pub fn delete_by_index_range(
        &mut self,
        index: IndexId,
        prefix: &[u8],
        prefix_columns: usize,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<u32, TableError> {
        let schema = Arc::clone(&self.schema);
        let (table, index) = schema.index(index).ok_or(TableError::NoSuchIndex)?;
        let range = encode_range(table, index, prefix, prefix_columns, start, end)?;
        self.delete_range(table, Some(index), &range).map(saturate)
    }

    /// Deletes exactly this row (BSATN) and returns whether it was there.
    ///
    /// # Errors
    /// No such table, the bytes are not a row, or the store fails.
    pub fn delete_row(&mut self, table: TableId, row: &[u8]) -> Result<bool, TableError> {
        let schema = Arc::clone(&self.schema);
        let table = schema.table(table).ok_or(TableError::NoSuchTable)?;
        self.atomically(|writer| writer.delete_equal(table, row))
    }

    /// Deletes every row of a BSATN array of rows and returns how many were there.
    ///
    /// # Errors
    /// No such table, the bytes are not an array of rows, or the store fails.
    pub fn delete_rows(&mut self, table: TableId, rows: &[u8]) -> Result<u32, TableError> {
        let schema = Arc::clone(&self.schema);
        let table = schema.table(table).ok_or(TableError::NoSuchTable)?;
        let bad_row = |source| TableError::BadRow { table: table.name.clone(), source };
        let row_type = AlgebraicType::Product(table.row_type.clone());
        bsatn::validate(&AlgebraicType::array(row_type), rows).map_err(bad_row)?;
        self.atomically(|writer| {
            let mut reader = Reader::new(rows);
            let count = reader.u32().map_err(bad_row)?;
            let mut deleted = 0;
            for _ in 0..count {
                let start = reader.position();
                bsatn::skip_product(&table.row_type, &mut reader).map_err(bad_row)?;
                deleted += u32::from(writer.delete_equal(table, reader.since(start))?);
            }
            Ok(deleted)
        })
    }

    /// Deletes all rows of a table and returns how many there were.
    ///
    /// # Errors
    /// No such table, or the store fails.
    pub fn clear(&mut self, table: TableId) -> Result<u64, TableError> {
        let schema = Arc::clone(&self.schema);
        let table = schema.table(table).ok_or(TableError::NoSuchTable)?;
        self.delete_range(table, None, &KeyRange { start: Vec::new(), end: None })
    }

    /// Runs an operation; an error takes back what it did.
    fn atomically<T>(&mut self, operation: impl FnOnce(&mut Self) -> Result<T, TableError>) -> Result<T, TableError> {
        let savepoint = self.savepoint();
        let outcome = operation(self);
        if outcome.is_err() {
            self.rollback_to(savepoint);
        }
        outcome
    }

    /// Deletes the rows of a key range of an index, or of the row keyspace.
    fn delete_range(
        &mut self,
        table: &TableSchema,
        index: Option<&IndexSchema>,
        range: &KeyRange,
    ) -> Result<u64, TableError> {
        if range.is_empty() {
            return Ok(0);
        }
        self.atomically(|writer| {
            let mut row_keys = RowKeys::default();
            let mut deleted = 0;
            loop {
                writer.collect_row_keys(table, index, range, &mut row_keys)?;
                for row_key in row_keys.iter() {
                    writer.buffers.old_row_key.clear();
                    writer.buffers.old_row_key.extend_from_slice(row_key);
                    if !writer.delete_stored(table)? {
                        return Err(TableError::Damaged { what: table.name.clone() });
                    }
                    deleted += 1;
                }
                if row_keys.ends.len() < DELETE_BATCH_ROWS {
                    return Ok(deleted);
                }
            }
        })
    }

    fn collect_row_keys(
        &self,
        table: &TableSchema,
        index: Option<&IndexSchema>,
        range: &KeyRange,
        row_keys: &mut RowKeys,
    ) -> Result<(), TableError> {
        let place = index.filter(|index| !index.is_primary_key).map(|index| IndexPlace { table, index });
        let keyspace = place.map_or(table.id.keyspace(), |place| place.index.id.keyspace());
        let (start, end) = range.bounds();
        let mut cursor = self.writer.range(keyspace, start, end, Direction::Forward);
        row_keys.clear();
        while row_keys.ends.len() < DELETE_BATCH_ROWS {
            let Some((key, value)) = cursor.next()? else { break };
            row_keys.push(match place {
                Some(place) => place.row_key(key, value)?,
                None => key,
            });
        }
        Ok(())
    }

    fn delete_equal(&mut self, table: &TableSchema, row: &[u8]) -> Result<bool, TableError> {
        let Buffers { offsets, old_row_key, .. } = &mut self.buffers;
        table.scan_row(row, offsets)?;
        old_row_key.clear();
        table.layout.push_row_key(&table.columns, row, offsets, old_row_key);
        match self.writer.get(table.id.keyspace(), old_row_key)? {
            Some(stored) if *stored == *row => {}
            _ => return Ok(false),
        }
        self.delete_stored(table)
    }

    /// Deletes the row with the key in `buffers.old_row_key` and its index entries; false when there
    /// is none.
    fn delete_stored(&mut self, table: &TableSchema) -> Result<bool, TableError> {
        let Buffers { old_offsets, old_row_key, old_entry, .. } = &mut self.buffers;
        let row = match self.writer.get(table.id.keyspace(), old_row_key)? {
            Some(row) => Bytes::copy_from_slice(&row),
            None => return Ok(false),
        };
        self.writer.delete(table.id.keyspace(), old_row_key)?;
        let mut scanned = false;
        for index in table.secondary_indexes() {
            if !std::mem::replace(&mut scanned, true) {
                table.scan_stored(&row, old_offsets)?;
            }
            old_entry.clear();
            push_index_columns(table, index, &row, old_offsets, old_entry);
            delete_entry(&mut self.writer, index, old_entry, old_row_key)?;
        }
        self.changes.push(table.id, ChangeKind::Delete, row)?;
        Ok(true)
    }
}

/// Row keys, one after the other in one buffer.
#[derive(Default)]
struct RowKeys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl RowKeys {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, row_key: &[u8]) {
        self.bytes.extend_from_slice(row_key);
        self.ends.push(self.bytes.len());
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

/// Row counts of the module ABI are 32 bits wide.
fn saturate(rows: u64) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}
