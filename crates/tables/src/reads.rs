//! What a computation has read, and whether a change touches it.
//!
//! A [`ReadSet`] is written while a view runs; [`Readers`] holds the read sets of many views and tells which of them a
//! transaction's rows concern. A point lookup is found through the key of the changed row, so ten thousand views that each
//! look up their own row cost one lookup per changed row; ranges are compared one by one.
//!
//! A read set may say more than was read, never less: beyond [`READS_PER_TABLE_MAX`] entries a whole table is noted.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Bound;

use crate::error::TableError;
use crate::ids::{IndexId, TableId};
use crate::key::KeyRange;
use crate::read::{encode_point, encode_range};
use crate::schema::{DatabaseSchema, TableSchema};
use crate::write::push_index_columns;

/// Most lookups that are noted one by one for each table. A view with more is refreshed by any change of the table: comparing
/// would cost as much as running it.
pub const READS_PER_TABLE_MAX: usize = 1024;

/// Everything that a computation has read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSet {
    tables: Vec<TableReads>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct TableReads {
    table: TableId,
    /// Everything of the table; then nothing else is noted.
    whole: bool,
    points: Vec<(IndexId, Vec<u8>)>,
    ranges: Vec<(IndexId, KeyRange)>,
}

impl ReadSet {
    /// Notes a scan of a table, or its row count.
    pub fn note_table(&mut self, table: TableId) {
        let reads = self.table(table);
        reads.whole = true;
        reads.points.clear();
        reads.ranges.clear();
    }

    /// Notes a lookup in an index, with a key as [`crate::TableRead::index_point`] takes it.
    ///
    /// # Errors
    /// As there.
    pub fn note_point(&mut self, schema: &DatabaseSchema, index: IndexId, key: &[u8]) -> Result<(), TableError> {
        let (table, index) = schema.index(index).ok_or(TableError::NoSuchIndex)?;
        let key = (index.id, encode_point(table, index, key)?);
        self.table(table.id).note(|reads| &mut reads.points, key);
        Ok(())
    }

    /// Notes a range scan of an index, with arguments as [`crate::TableRead::index_range`] takes them.
    ///
    /// # Errors
    /// As there.
    pub fn note_range(
        &mut self,
        schema: &DatabaseSchema,
        index: IndexId,
        prefix: &[u8],
        prefix_columns: usize,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<(), TableError> {
        let (table, index) = schema.index(index).ok_or(TableError::NoSuchIndex)?;
        let range = (index.id, encode_range(table, index, prefix, prefix_columns, start, end)?);
        self.table(table.id).note(|reads| &mut reads.ranges, range);
        Ok(())
    }

    /// The tables that were read.
    pub fn tables(&self) -> impl Iterator<Item = TableId> + '_ {
        self.tables.iter().map(|reads| reads.table)
    }

    fn table(&mut self, table: TableId) -> &mut TableReads {
        let place = self.tables.iter().position(|reads| reads.table == table);
        let place = place.unwrap_or_else(|| {
            self.tables.push(TableReads { table, whole: false, points: Vec::new(), ranges: Vec::new() });
            self.tables.len() - 1
        });
        &mut self.tables[place]
    }
}

impl TableReads {
    fn note<T: PartialEq>(&mut self, list: impl Fn(&mut TableReads) -> &mut Vec<T>, read: T) {
        if self.whole || list(self).last() == Some(&read) {
            return;
        }
        list(self).push(read);
        if self.points.len() + self.ranges.len() > READS_PER_TABLE_MAX {
            self.whole = true;
            self.points.clear();
            self.ranges.clear();
        }
    }
}

/// The read sets of many readers.
#[derive(Debug)]
pub struct Readers<R> {
    tables: HashMap<TableId, TableReaders<R>>,
}

#[derive(Debug)]
struct TableReaders<R> {
    whole: Vec<R>,
    points: HashMap<IndexId, HashMap<Vec<u8>, Vec<R>>>,
    ranges: Vec<(IndexId, KeyRange, R)>,
}

impl<R> Default for Readers<R> {
    fn default() -> Self {
        Readers { tables: HashMap::new() }
    }
}

impl<R> Default for TableReaders<R> {
    fn default() -> Self {
        TableReaders { whole: Vec::new(), points: HashMap::new(), ranges: Vec::new() }
    }
}

impl<R: Copy + Eq + Hash + Ord> Readers<R> {
    /// Enters a reader with what it read.
    pub fn add(&mut self, reader: R, reads: &ReadSet) {
        for reads in &reads.tables {
            let readers = self.tables.entry(reads.table).or_default();
            if reads.whole {
                readers.whole.push(reader);
            }
            for (index, key) in &reads.points {
                let of_key = readers.points.entry(*index).or_default().entry(key.clone()).or_default();
                if !of_key.contains(&reader) {
                    of_key.push(reader);
                }
            }
            readers.ranges.extend(reads.ranges.iter().map(|(index, range)| (*index, range.clone(), reader)));
        }
    }

    /// Takes a reader out again; `reads` is what it was entered with.
    pub fn remove(&mut self, reader: R, reads: &ReadSet) {
        for reads in &reads.tables {
            let Some(readers) = self.tables.get_mut(&reads.table) else { continue };
            readers.whole.retain(|other| *other != reader);
            readers.ranges.retain(|(_, _, other)| *other != reader);
            for (index, key) in &reads.points {
                let Some(of_index) = readers.points.get_mut(index) else { continue };
                if let Some(of_key) = of_index.get_mut(key) {
                    of_key.retain(|other| *other != reader);
                    if of_key.is_empty() {
                        of_index.remove(key);
                    }
                }
                if of_index.is_empty() {
                    readers.points.remove(index);
                }
            }
            if readers.whole.is_empty() && readers.points.is_empty() && readers.ranges.is_empty() {
                self.tables.remove(&reads.table);
            }
        }
    }

    /// The readers that have read one of these rows, or would have, in ascending order.
    ///
    /// # Errors
    /// A row is not one of its table.
    pub fn touched<'a>(
        &self,
        schema: &DatabaseSchema,
        rows: impl Iterator<Item = (TableId, &'a [u8])>,
    ) -> Result<Vec<R>, TableError> {
        let mut found = Vec::new();
        let mut offsets = Vec::new();
        let mut key = Vec::new();
        let mut seen: Vec<TableId> = Vec::new();
        for (id, row) in rows {
            let Some(readers) = self.tables.get(&id) else { continue };
            if !seen.contains(&id) {
                seen.push(id);
                found.extend_from_slice(&readers.whole);
            }
            if readers.points.is_empty() && readers.ranges.is_empty() {
                continue;
            }
            let Some(table) = schema.table(id) else { continue };
            table.scan_stored(row, &mut offsets)?;
            for (index, of_index) in &readers.points {
                if encode_key(table, *index, row, &offsets, &mut key) {
                    found.extend(of_index.get(&key).into_iter().flatten());
                }
            }
            for (index, range, reader) in &readers.ranges {
                let is_within = |key: &Vec<u8>| *key >= range.start && range.end.as_ref().is_none_or(|end| key < end);
                if encode_key(table, *index, row, &offsets, &mut key) && is_within(&key) {
                    found.push(*reader);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// Encodes a row's columns in an index. False if the table has no such index.
fn encode_key(table: &TableSchema, index: IndexId, row: &[u8], offsets: &[u32], key: &mut Vec<u8>) -> bool {
    let Some(index) = table.indexes.iter().find(|other| other.id == index) else { return false };
    key.clear();
    push_index_columns(table, index, row, offsets, key);
    true
}

#[cfg(test)]
mod tests;
