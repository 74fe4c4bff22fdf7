//! The rows of one view.

use std::collections::HashMap;

use bytes::Bytes;
use tine_tables::{TableChanges, TableId, TableSchema};
use tine_types::bsatn::{DecodeError, Reader, skip_value};

/// Bookkeeping of a row beside its bytes.
const ROW_OVERHEAD_BYTES: usize = 64;

/// Rows of a view: a set, in ascending order of their bytes.
#[derive(Debug, Default)]
pub(super) struct RowSet {
    rows: Vec<Bytes>,
    /// Places by the primary key's bytes, if the view has one.
    by_key: HashMap<Bytes, u32>,
    bytes: usize,
}

impl RowSet {
    /// Takes the rows that a view returned: BSATN of an array of the table's row type, which was checked. Equal rows are one.
    ///
    /// # Errors
    /// Two different rows have the same primary key.
    pub fn of_array(array: &Bytes, table: &TableSchema) -> Result<RowSet, String> {
        let rows = split(array, table).expect("the module's result was checked against its type");
        RowSet::of_rows(rows, table)
    }

    /// # Errors
    /// As above.
    pub fn of_rows(mut rows: Vec<Bytes>, table: &TableSchema) -> Result<RowSet, String> {
        rows.sort_unstable();
        rows.dedup();
        let mut by_key = HashMap::new();
        if let Some(column) = table.primary_key {
            for (row, place) in rows.iter().zip(0..) {
                let key = column_bytes(row, table, column.position()).expect("the row was checked");
                if by_key.insert(key, place).is_some() {
                    let name = &table.columns[column.position()].name;
                    return Err(format!("it returned two rows with the same primary key `{name}`"));
                }
            }
        }
        let bytes = rows.iter().map(|row| row.len() + ROW_OVERHEAD_BYTES).sum();
        Ok(RowSet { rows, by_key, bytes })
    }

    pub fn rows(&self) -> &[Bytes] {
        &self.rows
    }

    /// The row with a primary key, as a slice of one or none.
    pub fn find(&self, key: &[u8]) -> &[Bytes] {
        match self.by_key.get(key) {
            Some(&place) => std::slice::from_ref(&self.rows[place as usize]),
            None => &[],
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How these rows differ from those before; `None` if they do not.
    pub fn changes_from(&self, before: &RowSet, table: TableId) -> Option<TableChanges> {
        let (mut inserts, mut deletes) = (Vec::new(), Vec::new());
        let (mut old, mut new) = (before.rows.iter().peekable(), self.rows.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(left), Some(right)) if left == right => {
                    old.next();
                    new.next();
                }
                (Some(left), right) if right.is_none_or(|right| left < right) => deletes.extend(old.next().cloned()),
                _ => inserts.extend(new.next().cloned()),
            }
        }
        let changed = !inserts.is_empty() || !deletes.is_empty();
        changed.then_some(TableChanges { table, inserts, deletes })
    }
}

fn split(array: &Bytes, table: &TableSchema) -> Result<Vec<Bytes>, DecodeError> {
    let mut reader = Reader::new(array);
    let count = reader.u32()?;
    let mut rows = Vec::new();
    for _ in 0..count {
        let start = reader.position();
        for column in &table.columns {
            skip_value(&column.ty, &mut reader)?;
        }
        rows.push(array.slice(start..reader.position()));
    }
    Ok(rows)
}

fn column_bytes(row: &Bytes, table: &TableSchema, column: usize) -> Result<Bytes, DecodeError> {
    let mut reader = Reader::new(row);
    for column in &table.columns[..column] {
        skip_value(&column.ty, &mut reader)?;
    }
    let start = reader.position();
    skip_value(&table.columns[column].ty, &mut reader)?;
    Ok(row.slice(start..reader.position()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tine_tables::{ColumnId, ColumnSchema};
    use tine_types::AlgebraicType;

    use super::*;

    fn table(primary_key: Option<ColumnId>) -> TableSchema {
        let column = |name: &str, position| ColumnSchema {
            name: name.into(),
            accessor: name.into(),
            ty: AlgebraicType::U8,
            position: ColumnId(position),
        };
        let columns = vec![column("id", 0), column("value", 1)];
        let name: Arc<str> = "view".into();
        TableSchema::unstored(TableId(TableId::UNSTORED_MIN.0), name.clone(), name, columns, primary_key, true)
    }

    fn set(rows: &[[u8; 2]], table: &TableSchema) -> Result<RowSet, String> {
        let mut array = (rows.len() as u32).to_le_bytes().to_vec();
        rows.iter().for_each(|row| array.extend_from_slice(row));
        RowSet::of_array(&array.into(), table)
    }

    fn texts(rows: &[Bytes]) -> Vec<&[u8]> {
        rows.iter().map(|row| &**row).collect()
    }

    #[test]
    fn rows_are_a_set_and_differ_by_what_is_new_and_gone() {
        let table = table(None);
        let before = set(&[[3, 3], [1, 1], [1, 1]], &table).unwrap();
        assert_eq!(texts(before.rows()), [[1, 1], [3, 3]]);
        let after = set(&[[2, 2], [3, 3], [9, 9]], &table).unwrap();
        let changes = after.changes_from(&before, table.id).unwrap();
        assert_eq!((texts(&changes.inserts), texts(&changes.deletes)), (vec![&[2, 2][..], &[9, 9]], vec![&[1, 1][..]]));
        assert!(after.changes_from(&after, table.id).is_none());
        let nothing = RowSet::default();
        assert_eq!(nothing.changes_from(&after, table.id).unwrap().deletes.len(), 3);
    }

    #[test]
    fn a_primary_key_finds_its_row_and_is_unique() {
        let table = table(Some(ColumnId(1)));
        let rows = set(&[[1, 7], [2, 8]], &table).unwrap();
        assert_eq!(texts(rows.find(&[8])), [[2, 8]]);
        assert!(rows.find(&[9]).is_empty());
        let refused = set(&[[1, 7], [2, 7]], &table).unwrap_err();
        assert!(refused.contains("`value`"), "{refused}");
    }
}
