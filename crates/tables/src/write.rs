//! Writing tables: the open transaction of one fork.
//!
//! Every operation is all or nothing: it runs under a savepoint and an error takes back its part.
//!
//! An insert costs one scan of the row, one `put` per keyspace it touches and one copy of the row for
//! the change set. Uniqueness is found out by the `put` itself, which says whether it replaced an
//! entry, instead of by a lookup before; the rare violation is rolled back. Key and offset buffers
//! are kept from call to call.
//!
//! Rows are a set. Inserting a row that is there (possible only without a primary key, where the key
//! is a hash of the row) changes nothing. An update is a delete and an insert in the change set, but
//! touches only what differs in the store.

mod delete;
pub(crate) mod sequence;

use std::sync::Arc;

use bytes::Bytes;
use tine_store::{Commit, KEY_BYTES_MAX, Read, Savepoint, Writer};
use tine_types::bsatn::Reader;
use tine_types::json;

use crate::changes::{ChangeKind, ChangeMark, ChangeSet, PendingChanges};
use crate::error::TableError;
use crate::ids::{IndexId, TableId};
use crate::layout::{column_bytes, push_column};
use crate::read::TableRead;
use crate::schema::{DatabaseSchema, IndexSchema, TableSchema};

/// Longest row in bytes. Below the store's limit for a value, and offsets within a row fit 32 bits.
pub const ROW_BYTES_MAX: usize = 32 << 20;

/// Longest interval of a schedule in microseconds: about two years, the reference host's limit. It
/// keeps the arithmetic on due times far from overflow.
pub const SCHEDULE_INTERVAL_MICROS_MAX: i64 = (1 << 36) * 1000;

/// Characters of a value shown in a unique violation.
const SHOWN_VALUE_CHARS_MAX: usize = 200;

/// The tables of a fork, open for writing. Holds the fork's writer; one transaction is open at any
/// time and [`TableWriter::commit`] begins the next.
pub struct TableWriter {
    writer: Writer,
    schema: Arc<DatabaseSchema>,
    changes: PendingChanges,
    buffers: Buffers,
}

/// Reused between operations; what they hold between operations means nothing.
#[derive(Default)]
struct Buffers {
    row: Vec<u8>,
    offsets: Vec<u32>,
    row_key: Vec<u8>,
    entry: Vec<u8>,
    old_offsets: Vec<u32>,
    old_row_key: Vec<u8>,
    old_entry: Vec<u8>,
}

/// A point in the open transaction to go back to.
#[derive(Clone, Copy, Debug)]
pub struct TableSavepoint {
    store: Savepoint,
    changes: ChangeMark,
}

/// The outcome of an insert or update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrittenRow<'a> {
    /// The whole row as stored, generated values included.
    pub row: &'a [u8],
    /// False when exactly this row was there before, so that nothing changed.
    pub changed: bool,
}

impl TableRead for TableWriter {
    fn schema(&self) -> &Arc<DatabaseSchema> {
        &self.schema
    }

    fn store(&self) -> &dyn Read {
        &self.writer
    }
}

impl TableWriter {
    /// Writes with `writer`, which must not have uncommitted changes, by `schema`, which must be the
    /// schema of the fork's head.
    pub fn new(writer: Writer, schema: Arc<DatabaseSchema>) -> TableWriter {
        assert!(!writer.has_changes(), "changes made before would be missing from the change set");
        TableWriter { writer, schema, changes: PendingChanges::default(), buffers: Buffers::default() }
    }

    /// Gives the store's writer back. What is not committed is rolled back.
    pub fn into_writer(mut self) -> Writer {
        self.rollback();
        self.writer
    }

    /// The store's writer, for keyspaces that are not tables. What is written there belongs to the
    /// open transaction.
    pub fn writer_mut(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Inserts a row (BSATN). A column with a sequence that holds 0 takes the next value; `generated`
    /// is cleared and receives the values so taken (BSATN, in column order).
    ///
    /// # Errors
    /// The bytes are not a row, a unique constraint is violated, a sequence is exhausted, or the
    /// store fails. Nothing is changed then, sequences included.
    pub fn insert(
        &mut self,
        table: TableId,
        row: &[u8],
        generated: &mut Vec<u8>,
    ) -> Result<WrittenRow<'_>, TableError> {
        let schema = Arc::clone(&self.schema);
        let table = schema.table(table).ok_or(TableError::NoSuchTable)?;
        let savepoint = self.savepoint();
        match self.insert_row(table, row, generated) {
            Ok(changed) => Ok(WrittenRow { row: &self.buffers.row, changed }),
            Err(error) => {
                generated.clear();
                self.rollback_to(savepoint);
                Err(error)
            }
        }
    }

    /// Replaces the row that has the same key as `row` in a unique index by `row` (BSATN). Sequences
    /// work as in [`TableWriter::insert`].
    ///
    /// # Errors
    /// As for an insert; also when the index is not a unique index of the table or no row has the key.
    pub fn update(
        &mut self,
        table: TableId,
        index: IndexId,
        row: &[u8],
        generated: &mut Vec<u8>,
    ) -> Result<WrittenRow<'_>, TableError> {
        let schema = Arc::clone(&self.schema);
        let table = schema.table(table).ok_or(TableError::NoSuchTable)?;
        let (index_table, index) = schema.index(index).ok_or(TableError::NoSuchIndex)?;
        if index_table.id != table.id {
            return Err(TableError::NoSuchIndex);
        }
        let savepoint = self.savepoint();
        match self.update_row(table, index, row, generated) {
            Ok(changed) => Ok(WrittenRow { row: &self.buffers.row, changed }),
            Err(error) => {
                generated.clear();
                self.rollback_to(savepoint);
                Err(error)
            }
        }
    }

    /// The row operations of the open transaction so far.
    pub fn changes(&self) -> &PendingChanges {
        &self.changes
    }

    /// The net difference made so far. Later operations start a new one, so this is for the end of a
    /// transaction that is committed through [`TableWriter::writer_mut`].
    pub fn take_changes(&mut self) -> ChangeSet {
        self.changes.take()
    }

    /// Commits the open transaction with its call record. `timestamp_micros` is the wanted commit
    /// time; the store makes it later if the fork's last commit was not before it. Without changes
    /// no version is made and the change set is empty, but for events.
    ///
    /// # Errors
    /// The store refuses the commit; the transaction is rolled back.
    pub fn commit(&mut self, call: &[u8], timestamp_micros: i64) -> Result<(Commit, ChangeSet), TableError> {
        match self.writer.commit_at(timestamp_micros, call) {
            Ok(commit) => Ok((commit, self.changes.take())),
            Err(error) => {
                self.rollback();
                Err(error.into())
            }
        }
    }

    /// Takes back everything since the last commit.
    pub fn rollback(&mut self) {
        self.writer.rollback();
        self.changes.clear();
    }

    /// Marks the current point of the transaction.
    pub fn savepoint(&self) -> TableSavepoint {
        TableSavepoint { store: self.writer.savepoint(), changes: self.changes.mark() }
    }

    /// Takes back everything since `savepoint`, which must be of the open transaction and not lie
    /// after a point already gone back to.
    pub fn rollback_to(&mut self, savepoint: TableSavepoint) {
        self.writer.rollback_to(savepoint.store);
        self.changes.truncate_to(savepoint.changes);
    }

    /// Leaves the written row in `buffers.row`; the result says whether it is new.
    fn insert_row(&mut self, table: &TableSchema, row: &[u8], generated: &mut Vec<u8>) -> Result<bool, TableError> {
        self.accept_row(table, row, generated)?;
        if table.is_event {
            let event = Bytes::copy_from_slice(&self.buffers.row);
            self.changes.push(table.id, ChangeKind::Event, event)?;
            return Ok(true);
        }
        let before_row = self.writer.savepoint();
        let Buffers { row, offsets, row_key, entry, .. } = &mut self.buffers;
        row_key.clear();
        table.layout.push_row_key(&table.columns, row, offsets, row_key);
        check_key(table, table.primary_key_index(), row_key)?;
        let replaced = self.writer.put(table.id.keyspace(), row_key, row)?;
        if replaced {
            self.writer.rollback_to(before_row);
            return match table.primary_key_index() {
                Some(index) => Err(violation(table, index, row, offsets)),
                None => Ok(false),
            };
        }
        for index in table.secondary_indexes() {
            entry.clear();
            push_index_columns(table, index, row, offsets, entry);
            put_entry(&mut self.writer, table, index, entry, row_key, row, offsets)?;
        }
        self.changes.push(table.id, ChangeKind::Insert, Bytes::copy_from_slice(row))?;
        Ok(true)
    }

    fn update_row(
        &mut self,
        table: &TableSchema,
        index: &IndexSchema,
        row: &[u8],
        generated: &mut Vec<u8>,
    ) -> Result<bool, TableError> {
        if !index.unique {
            return Err(TableError::IndexNotUnique { index: index.name.clone() });
        }
        self.accept_row(table, row, generated)?;
        let old = self.find_replaced(table, index)?;
        let Buffers { row, offsets, row_key, entry, old_offsets, old_row_key, old_entry } = &mut self.buffers;
        if *old == **row {
            return Ok(false);
        }
        table.scan_stored(&old, old_offsets)?;
        row_key.clear();
        table.layout.push_row_key(&table.columns, row, offsets, row_key);
        check_key(table, table.primary_key_index(), row_key)?;
        let moved = row_key != old_row_key;
        if moved {
            self.writer.delete(table.id.keyspace(), old_row_key)?;
        }
        let replaced = self.writer.put(table.id.keyspace(), row_key, row)?;
        if moved && replaced {
            return Err(match table.primary_key_index() {
                Some(index) => violation(table, index, row, offsets),
                None => TableError::Damaged { what: index.name.clone() },
            });
        }
        for index in table.secondary_indexes() {
            entry.clear();
            push_index_columns(table, index, row, offsets, entry);
            old_entry.clear();
            push_index_columns(table, index, &old, old_offsets, old_entry);
            if entry == old_entry && !moved {
                continue;
            }
            delete_entry(&mut self.writer, index, old_entry, old_row_key)?;
            put_entry(&mut self.writer, table, index, entry, row_key, row, offsets)?;
        }
        self.changes.push(table.id, ChangeKind::Delete, old)?;
        self.changes.push(table.id, ChangeKind::Insert, Bytes::copy_from_slice(row))?;
        Ok(true)
    }

    /// The stored row that has the key of `buffers.row` in a unique index; its row key goes to
    /// `buffers.old_row_key`.
    fn find_replaced(&mut self, table: &TableSchema, index: &IndexSchema) -> Result<Bytes, TableError> {
        let Buffers { row, offsets, entry, old_row_key, .. } = &mut self.buffers;
        let no_such_row = || TableError::NoSuchRow { table: table.name.clone() };
        entry.clear();
        push_index_columns(table, index, row, offsets, entry);
        old_row_key.clear();
        if index.is_primary_key {
            old_row_key.extend_from_slice(entry);
        } else {
            let found = self.writer.get(index.id.keyspace(), entry)?;
            old_row_key.extend_from_slice(&found.ok_or_else(no_such_row)?);
        }
        let old = self.writer.get(table.id.keyspace(), old_row_key)?;
        Ok(Bytes::copy_from_slice(&old.ok_or_else(no_such_row)?))
    }

    /// Checks a row from outside and leaves it, with its generated values, in `buffers.row` and its
    /// column offsets in `buffers.offsets`.
    fn accept_row(&mut self, table: &TableSchema, row: &[u8], generated: &mut Vec<u8>) -> Result<(), TableError> {
        generated.clear();
        table.scan_row(row, &mut self.buffers.offsets)?;
        self.buffers.row.clear();
        self.buffers.row.extend_from_slice(row);
        for sequence in &table.sequences {
            self.fill_sequence(table, sequence, generated)?;
        }
        if let Some(schedule) = &table.schedule {
            let at = column_bytes(&self.buffers.row, &self.buffers.offsets, schedule.at_column.position());
            check_interval(table, at)?;
        }
        Ok(())
    }
}

impl TableSchema {
    /// Checks a row from outside and finds its columns.
    pub(crate) fn scan_row(&self, row: &[u8], offsets: &mut Vec<u32>) -> Result<(), TableError> {
        if row.len() > ROW_BYTES_MAX {
            return Err(TableError::RowTooLarge { table: self.name.clone(), size: row.len(), limit: ROW_BYTES_MAX });
        }
        let scanned = self.layout.scan(&self.columns, row, offsets);
        scanned.map_err(|source| TableError::BadRow { table: self.name.clone(), source })
    }

    /// Finds the columns of a row that was stored.
    pub(crate) fn scan_stored(&self, row: &[u8], offsets: &mut Vec<u32>) -> Result<(), TableError> {
        let scanned = self.layout.scan(&self.columns, row, offsets);
        scanned.map_err(|_| TableError::Damaged { what: self.name.clone() })
    }

    /// The indexes that have a keyspace of their own.
    pub(crate) fn secondary_indexes(&self) -> impl Iterator<Item = &IndexSchema> {
        self.indexes.iter().filter(|index| !index.is_primary_key)
    }
}

/// Appends the encoded columns of an index.
pub(crate) fn push_index_columns(
    table: &TableSchema,
    index: &IndexSchema,
    row: &[u8],
    offsets: &[u32],
    out: &mut Vec<u8>,
) {
    for column in &index.columns {
        push_column(&table.columns, column.position(), row, offsets, out);
    }
}

/// Adds the entry of a row to a secondary index. `entry` holds the encoded columns and may be
/// lengthened.
pub(crate) fn put_entry(
    writer: &mut Writer,
    table: &TableSchema,
    index: &IndexSchema,
    entry: &mut Vec<u8>,
    row_key: &[u8],
    row: &[u8],
    offsets: &[u32],
) -> Result<(), TableError> {
    let keyspace = index.id.keyspace();
    if index.unique {
        check_key(table, Some(index), entry)?;
        if writer.put(keyspace, entry, row_key)? {
            return Err(violation(table, index, row, offsets));
        }
        return Ok(());
    }
    entry.extend_from_slice(row_key);
    check_key(table, Some(index), entry)?;
    let replaced = writer.put(keyspace, entry, &[])?;
    if replaced {
        return Err(TableError::Damaged { what: index.name.clone() });
    }
    Ok(())
}

/// Takes the entry of a row out of a secondary index. `entry` holds the encoded columns and may be
/// lengthened.
fn delete_entry(
    writer: &mut Writer,
    index: &IndexSchema,
    entry: &mut Vec<u8>,
    row_key: &[u8],
) -> Result<(), TableError> {
    if !index.unique {
        entry.extend_from_slice(row_key);
    }
    if writer.delete(index.id.keyspace(), entry)? {
        Ok(())
    } else {
        Err(TableError::Damaged { what: index.name.clone() })
    }
}

fn check_key(table: &TableSchema, index: Option<&IndexSchema>, key: &[u8]) -> Result<(), TableError> {
    if key.len() <= KEY_BYTES_MAX {
        return Ok(());
    }
    Err(TableError::KeyTooLarge {
        index: index.map_or_else(|| table.name.clone(), |index| index.name.clone()),
        size: key.len(),
        limit: KEY_BYTES_MAX,
    })
}

fn check_interval(table: &TableSchema, schedule_at: &[u8]) -> Result<(), TableError> {
    let mut reader = Reader::new(schedule_at);
    let is_interval = reader.u8().expect("the row was scanned") == 0;
    let interval_micros = reader.i64().expect("the row was scanned");
    if is_interval && interval_micros.unsigned_abs() > SCHEDULE_INTERVAL_MICROS_MAX as u64 {
        return Err(TableError::ScheduleDelayTooLong { table: table.name.clone(), interval_micros });
    }
    Ok(())
}

#[cold]
fn violation(table: &TableSchema, index: &IndexSchema, row: &[u8], offsets: &[u32]) -> TableError {
    let shown = index.columns.iter().map(|column| {
        let column = &table.columns[column.position()];
        let mut reader = Reader::new(column_bytes(row, offsets, column.position.position()));
        let value = json::bsatn_to_json(&column.ty, &mut reader);
        let value = value.map_or_else(|error| error.to_string(), |value| value.to_string());
        let shown: String = value.chars().take(SHOWN_VALUE_CHARS_MAX).collect();
        let cut = if shown.len() < value.len() { "..." } else { "" };
        format!("{} = {shown}{cut}", column.name)
    });
    TableError::UniqueViolation {
        table: table.name.clone(),
        constraint: index.constraint.clone(),
        value: shown.collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests;
