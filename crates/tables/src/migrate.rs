//! Bringing stored data in line with a changed schema.
//!
//! Only what [`DatabaseSchema::from_module_def`] accepts as compatible comes here, so rows and row
//! keys stay as they are: new indexes are built from the rows, the entries of removed ones and the
//! state of removed sequences are deleted. All of it happens in the writer's open transaction.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use tine_store::{Direction, KeyspaceId, Read, Writer};

use crate::error::TableError;
use crate::schema::{DatabaseSchema, IndexSchema, TableSchema};
use crate::write::{push_index_columns, put_entry, sequence};

/// Rows or keys taken from a cursor at a time: the cursor cannot stay open while the writer writes.
const BATCH_ENTRIES: usize = 1024;

type Entry = (Vec<u8>, Vec<u8>);

/// What a migration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migration {
    /// Names of tables that are new.
    pub tables_added: Vec<Arc<str>>,
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
        if from.table(table.id).is_none() {
            migration.tables_added.push(table.name.clone());
            continue;
        }
        for index in table.secondary_indexes() {
            if !filled.contains(&index.id.keyspace()) {
                build_index(writer, table, index)?;
                migration.indexes_built.push(index.name.clone());
            }
        }
    }
    Ok(migration)
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
