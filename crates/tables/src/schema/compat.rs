//! Which changes of a schema the stored rows survive.
//!
//! Compatible: new tables; columns with a default value after the last; indexes, unique constraints and
//! sequences added or removed; a table made public or private; schedules and defaults changed; new
//! variants after the last of a sum. [`crate::migrate`] appends the defaults to the rows and brings the
//! indexes in line. Everything else loses data or leaves open what rows become, and is refused with a list.

use std::fmt;
use std::sync::Arc;

use super::{DatabaseSchema, TableSchema};
use crate::error::SchemaError;
use tine_types::AlgebraicType;

/// One change of a schema that stored rows do not survive.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[allow(missing_docs)] // The message of each variant says what its fields are.
pub enum SchemaChange {
    /// A table is gone.
    TableRemoved { table: Arc<str> },
    /// A table has a column more that is not behind all others, or that has no default value.
    ColumnAdded { table: Arc<str>, column: Arc<str>, last: bool },
    /// A column is gone.
    ColumnRemoved { table: Arc<str>, column: Arc<str> },
    /// A column in the same place has another name.
    ColumnRenamed { table: Arc<str>, from: Arc<str>, to: Arc<str> },
    /// A column is in another place of the row.
    ColumnMoved { table: Arc<str>, column: Arc<str> },
    /// A column has another type.
    ColumnTypeChanged { table: Arc<str>, column: Arc<str>, from: &'static str, to: &'static str },
    /// The primary key was added, removed or moved to another column.
    PrimaryKeyChanged { table: Arc<str>, from: Option<Arc<str>>, to: Option<Arc<str>> },
    /// An ordinary table became an event table or the other way round.
    EventChanged { table: Arc<str>, is_event: bool },
}

impl SchemaChange {
    /// What the author of the module can do instead.
    pub fn advice(&self) -> &'static str {
        match self {
            SchemaChange::TableRemoved { .. } => "keep the table: its rows would be lost",
            SchemaChange::ColumnAdded { last: true, .. } => "give it a value for the rows there are: `.default(value)`",
            SchemaChange::ColumnAdded { last: false, .. } => "put it after the last column, with a `.default(value)`",
            SchemaChange::ColumnRemoved { .. } => "keep the column: its values would be lost",
            SchemaChange::ColumnRenamed { .. } => "keep the name, or add a column at the end and copy the values",
            SchemaChange::ColumnMoved { .. } => "keep the order of the columns",
            SchemaChange::ColumnTypeChanged { .. } => {
                "keep the type, or add a column at the end and convert the values"
            }
            SchemaChange::PrimaryKeyChanged { .. } => "keep the key, or add a table and copy the rows",
            SchemaChange::EventChanged { .. } => "add another table",
        }
    }
}

impl fmt::Display for SchemaChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaChange::TableRemoved { table } => write!(formatter, "table `{table}` was removed"),
            SchemaChange::ColumnAdded { table, column, last: true } => {
                write!(formatter, "column `{column}` was added to table `{table}` without a default value")
            }
            SchemaChange::ColumnAdded { table, column, last: false } => {
                write!(formatter, "column `{column}` was added to table `{table}` before other columns")
            }
            SchemaChange::ColumnRemoved { table, column } => {
                write!(formatter, "column `{column}` was removed from table `{table}`")
            }
            SchemaChange::ColumnRenamed { table, from, to } => {
                write!(formatter, "column `{from}` of table `{table}` was renamed to `{to}`")
            }
            SchemaChange::ColumnMoved { table, column } => {
                write!(formatter, "column `{column}` of table `{table}` was moved")
            }
            SchemaChange::ColumnTypeChanged { table, column, from, to } if from == to => {
                write!(formatter, "column `{column}` of table `{table}` has another {to} type")
            }
            SchemaChange::ColumnTypeChanged { table, column, from, to } => {
                write!(formatter, "column `{column}` of table `{table}` changed from {from} to {to}")
            }
            SchemaChange::PrimaryKeyChanged { table, from, to } => {
                let name = |column: &Option<Arc<str>>| match column {
                    Some(column) => format!("`{column}`"),
                    None => "none".to_owned(),
                };
                let (from, to) = (name(from), name(to));
                write!(formatter, "the primary key of table `{table}` changed from {from} to {to}")
            }
            SchemaChange::EventChanged { table, is_event: true } => {
                write!(formatter, "table `{table}` became an event table")
            }
            SchemaChange::EventChanged { table, is_event: false } => {
                write!(formatter, "table `{table}` is no longer an event table")
            }
        }
    }
}

/// Refuses `next` unless the rows stored under `previous` fit it.
pub(super) fn check(previous: &DatabaseSchema, next: &[TableSchema]) -> Result<(), SchemaError> {
    let mut changes = Vec::new();
    for old in previous.tables() {
        match next.iter().find(|new| new.name == old.name) {
            Some(new) => compare_tables(old, new, &mut changes),
            None => changes.push(SchemaChange::TableRemoved { table: old.name.clone() }),
        }
    }
    if changes.is_empty() { Ok(()) } else { Err(SchemaError::Incompatible(changes)) }
}

fn compare_tables(old: &TableSchema, new: &TableSchema, changes: &mut Vec<SchemaChange>) {
    let table = &old.name;
    compare_columns(old, new, changes);
    let key = |schema: &TableSchema| schema.primary_key.map(|column| schema.columns[column.position()].name.clone());
    if old.primary_key != new.primary_key {
        let (from, to) = (key(old), key(new));
        changes.push(SchemaChange::PrimaryKeyChanged { table: table.clone(), from, to });
    }
    if old.is_event != new.is_event {
        changes.push(SchemaChange::EventChanged { table: table.clone(), is_event: new.is_event });
    }
}

fn compare_columns(old: &TableSchema, new: &TableSchema, changes: &mut Vec<SchemaChange>) {
    let table = &old.name;
    let named = |schema: &TableSchema, name: &str| schema.columns.iter().position(|column| *column.name == *name);
    for (position, column) in old.columns.iter().enumerate() {
        let Some(new_position) = named(new, &column.name) else {
            let successor = new.columns.get(position);
            changes.push(match successor.filter(|other| named(old, &other.name).is_none()) {
                Some(other) if other.ty == column.ty => SchemaChange::ColumnRenamed {
                    table: table.clone(),
                    from: column.name.clone(),
                    to: other.name.clone(),
                },
                _ => SchemaChange::ColumnRemoved { table: table.clone(), column: column.name.clone() },
            });
            continue;
        };
        let new_type = &new.columns[new_position].ty;
        if !values_remain_valid(&column.ty, new_type) {
            changes.push(SchemaChange::ColumnTypeChanged {
                table: table.clone(),
                column: column.name.clone(),
                from: column.ty.kind(),
                to: new_type.kind(),
            });
        }
        if new_position != position {
            changes.push(SchemaChange::ColumnMoved { table: table.clone(), column: column.name.clone() });
        }
    }
    let renamed = |to: &str, changes: &[SchemaChange]| {
        changes.iter().any(|change| {
            matches!(change, SchemaChange::ColumnRenamed { table: of, to: name, .. }
                if of == table && **name == *to)
        })
    };
    for (position, column) in new.columns.iter().enumerate() {
        if named(old, &column.name).is_some() || renamed(&column.name, changes) {
            continue;
        }
        let last = position >= old.columns.len();
        if !last || !new.defaults.iter().any(|(of, _)| *of == column.position) {
            let (table, column) = (table.clone(), column.name.clone());
            changes.push(SchemaChange::ColumnAdded { table, column, last });
        }
    }
}

/// Whether every value of the old type is the same value of the new one, with the same bytes.
fn values_remain_valid(old: &AlgebraicType, new: &AlgebraicType) -> bool {
    match (old, new) {
        (AlgebraicType::Sum(old), AlgebraicType::Sum(new)) => {
            old.variants.len() <= new.variants.len()
                && old
                    .variants
                    .iter()
                    .zip(&new.variants)
                    .all(|(old, new)| old.name == new.name && values_remain_valid(&old.ty, &new.ty))
        }
        (AlgebraicType::Product(old), AlgebraicType::Product(new)) => {
            old.elements.len() == new.elements.len()
                && old
                    .elements
                    .iter()
                    .zip(&new.elements)
                    .all(|(old, new)| old.name == new.name && values_remain_valid(&old.ty, &new.ty))
        }
        (AlgebraicType::Array(old), AlgebraicType::Array(new)) => values_remain_valid(old, new),
        _ => old == new,
    }
}
