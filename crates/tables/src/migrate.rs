//! Bringing stored data in line with a changed schema.
//!
//! Only what [`DatabaseSchema::from_module_def`] accepts as compatible comes here: rows get the default
//! values of columns that were appended, new indexes are built from the rows, the entries of removed ones
//! and the state of removed sequences are deleted. All of it happens in the writer's open transaction, so
//! it is one commit of the fork and costs other forks nothing; rows are rewritten at once rather than when
//! they are read, so that reading never has to know of older schemas. A table too large for one
//! transaction is refused, and nothing has changed.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use tine_store::{Direction, KeyspaceId, Read, Writer};

use crate::error::TableError;
use crate::schema::{DatabaseSchema, IndexSchema, TableSchema};
use crate::write::{ROW_BYTES_MAX, push_index_columns, put_entry, sequence};

/// Rows or keys taken from a cursor at a time: the cursor cannot stay open while the writer writes.
const BATCH_ENTRIES: usize = 1024;

/// Bytes of rows that may get other keys in a migration: they are held in memory and written in one transaction.
const REKEYED_BYTES_MAX: usize = 64 << 20;

type Entry = (Vec<u8>, Vec<u8>);

/// What a migration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migration {
    /// Names of tables that are new.
    pub tables_added: Vec<Arc<str>>,
    /// Names of tables whose rows got new columns, with the number of rows.
    pub tables_rewritten: Vec<(Arc<str>, u64)>,
    /// Names of indexes on existing tables that were built.
    pub indexes_built: Vec<Arc<str>>,
    /// Names of indexes whose entries were deleted.
    pub indexes_dropped: Vec<Arc<str>>,
}

/// Makes the data written under `from` fit `to`, which was built with `from` as its previous schema.
///
/// # Errors
/// Rows violate a unique constraint that is new, a key is too long for a new index, or the store
/// fails. What was done is taken back.
pub fn migrate(writer: &mut Writer, from: &DatabaseSchema, to: &DatabaseSchema) -> Result<Migration, TableError> {
    let savepoint = writer.savepoint();
    let outcome = run(writer, from, to);
    if outcome.is_err() {
        writer.rollback_to(savepoint);
    }
    outcome
}

/// Deletes all rows, index entries and sequences of a schema's tables.
///
/// # Errors
/// The store fails. What was done is taken back.
pub fn erase(writer: &mut Writer, schema: &DatabaseSchema) -> Result<(), TableError> {
    let savepoint = writer.savepoint();
    for keyspace in schema.keyspaces() {
        if let Err(error) = clear_keyspace(writer, keyspace) {
            writer.rollback_to(savepoint);
            return Err(error);
        }
    }
    Ok(())
}

fn run(writer: &mut Writer, from: &DatabaseSchema, to: &DatabaseSchema) -> Result<Migration, TableError> {
    let mut migration = Migration::default();
    let kept: HashSet<KeyspaceId> = to.keyspaces().collect();
    for table in from.tables() {
        let dropped = table.secondary_indexes().filter(|index| !kept.contains(&index.id.keyspace()));
        for index in dropped {
            clear_keyspace(writer, index.id.keyspace())?;
            migration.indexes_dropped.push(index.name.clone());
        }
        let sequences = to.table(table.id).map_or(&[][..], |table| &table.sequences);
        for old in &table.sequences {
            if !sequences.iter().any(|sequence| sequence.column == old.column) {
                let key = sequence::state_key(table.id, old);
                writer.delete(from.sequences_keyspace(), &key)?;
            }
        }
    }
    let filled: HashSet<KeyspaceId> = from.keyspaces().collect();
    for table in to.tables() {
        let Some(old) = from.table(table.id) else {
            migration.tables_added.push(table.name.clone());
            continue;
        };
        let mut rekeyed = false;
        if old.columns.len() < table.columns.len() && !table.is_event {
            let rows = writer.len(table.id.keyspace());
            append_columns(writer, old, table)?;
            migration.tables_rewritten.push((table.name.clone(), rows));
            // Without a primary key the row's key is a hash of all of it, and index entries name that key.
            rekeyed = table.primary_key.is_none() && rows > 0;
        }
        for index in table.secondary_indexes() {
            let is_filled = filled.contains(&index.id.keyspace());
            if rekeyed && is_filled {
                clear_keyspace(writer, index.id.keyspace())?;
                build_index(writer, table, index)?;
            }
            if !is_filled {
                build_index(writer, table, index)?;
                migration.indexes_built.push(index.name.clone());
            }
        }
    }
    Ok(migration)
}

/// Appends the default values of the columns that `table` has more than `old` to every row.
fn append_columns(writer: &mut Writer, old: &TableSchema, table: &TableSchema) -> Result<(), TableError> {
    let mut appended = Vec::new();
    for column in &table.columns[old.columns.len()..] {
        let default = table.defaults.iter().find(|(of, _)| *of == column.position);
        let (_, value) = default.expect("columns are appended only with a default value");
        appended.extend_from_slice(value);
    }
    let keyspace = table.id.keyspace();
    let in_place = table.primary_key.is_some();
    let mut rewritten: Vec<Entry> = Vec::new();
    let mut row_bytes = 0;
    let (mut offsets, mut last) = (Vec::new(), None);
    loop {
        let batch = read_batch(writer, keyspace, last.as_deref())?;
        let Some((key, _)) = batch.last() else { break };
        last = Some(key.clone());
        for (key, mut row) in batch {
            row.extend_from_slice(&appended);
            row_bytes += row.len();
            if row.len() > ROW_BYTES_MAX {
                let (name, size) = (table.name.clone(), row.len());
                return Err(TableError::RowTooLarge { table: name, size, limit: ROW_BYTES_MAX });
            }
            if in_place {
                writer.put(keyspace, &key, &row)?;
                continue;
            }
            if row_bytes > REKEYED_BYTES_MAX {
                return Err(TableError::TransactionTooLarge { limit_bytes: REKEYED_BYTES_MAX });
            }
            table.scan_stored(&row, &mut offsets)?;
            let mut row_key = Vec::new();
            table.layout.push_row_key(&table.columns, &row, &offsets, &mut row_key);
            rewritten.push((row_key, row));
        }
    }
    if !in_place {
        // Old and new keys are mixed, so the old ones go first.
        clear_keyspace(writer, keyspace)?;
        for (row_key, row) in &rewritten {
            writer.put(keyspace, row_key, row)?;
        }
    }
    Ok(())
}

fn build_index(writer: &mut Writer, table: &TableSchema, index: &IndexSchema) -> Result<(), TableError> {
    let mut offsets = Vec::new();
    let mut entry = Vec::new();
    let mut last: Option<Vec<u8>> = None;
    loop {
        let batch = read_batch(writer, table.id.keyspace(), last.as_deref())?;
        for (row_key, row) in &batch {
            table.scan_stored(row, &mut offsets)?;
            entry.clear();
            push_index_columns(table, index, row, &offsets, &mut entry);
            put_entry(writer, table, index, &mut entry, row_key, row, &offsets)?;
        }
        match batch.into_iter().next_back() {
            Some((row_key, _)) => last = Some(row_key),
            None => return Ok(()),
        }
    }
}

fn clear_keyspace(writer: &mut Writer, keyspace: KeyspaceId) -> Result<(), TableError> {
    loop {
        let batch = read_batch(writer, keyspace, None)?;
        if batch.is_empty() {
            return Ok(());
        }
        for (key, _) in &batch {
            writer.delete(keyspace, key)?;
        }
    }
}

/// The next entries (key and value) after `last`, up to [`BATCH_ENTRIES`].
fn read_batch(writer: &Writer, keyspace: KeyspaceId, last: Option<&[u8]>) -> Result<Vec<Entry>, TableError> {
    let start = last.map_or(Bound::Unbounded, Bound::Excluded);
    let mut cursor = writer.range(keyspace, start, Bound::Unbounded, Direction::Forward);
    let mut batch = Vec::new();
    while batch.len() < BATCH_ENTRIES {
        let Some((key, value)) = cursor.next()? else { break };
        batch.push((key.to_vec(), value.to_vec()));
    }
    Ok(batch)
}

#[cfg(test)]
mod tests;
