//! What changes between two schemas of which the second was built on the first.

use std::fmt;
use std::sync::Arc;

use tine_types::bsatn::Reader;
use tine_types::json;

use super::{DatabaseSchema, IndexSchema, TableSchema};
use crate::ids::ColumnId;

/// One compatible change of a schema.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[allow(missing_docs)] // The message of each variant says what its fields are.
pub enum SchemaStep {
    /// A table is new.
    AddTable { table: Arc<str>, public: bool },
    /// A column was appended; rows get `default`, shown as JSON.
    AddColumn { table: Arc<str>, column: Arc<str>, kind: &'static str, default: String, public: bool },
    /// A column's type has more variants.
    WidenColumn { table: Arc<str>, column: Arc<str>, public: bool },
    /// An index is new, or is another one than before.
    AddIndex { table: Arc<str>, index: Arc<str>, columns: Vec<Arc<str>>, unique: bool },
    /// An index is gone, or is another one than before.
    DropIndex { table: Arc<str>, index: Arc<str> },
    /// A sequence is new.
    AddSequence { table: Arc<str>, column: Arc<str> },
    /// A sequence is gone.
    DropSequence { table: Arc<str>, column: Arc<str> },
    /// A table became public or private.
    ChangeAccess { table: Arc<str>, public: bool },
    /// Another function, or none, runs for the rows of a table.
    ChangeSchedule { table: Arc<str>, function: Option<Arc<str>> },
}

impl SchemaStep {
    /// The table.
    pub fn table(&self) -> &Arc<str> {
        match self {
            SchemaStep::AddTable { table, .. }
            | SchemaStep::AddColumn { table, .. }
            | SchemaStep::WidenColumn { table, .. }
            | SchemaStep::AddIndex { table, .. }
            | SchemaStep::DropIndex { table, .. }
            | SchemaStep::AddSequence { table, .. }
            | SchemaStep::DropSequence { table, .. }
            | SchemaStep::ChangeAccess { table, .. }
            | SchemaStep::ChangeSchedule { table, .. } => table,
        }
    }

    /// Whether rows have other bytes than clients made for the previous module expect.
    pub fn changes_rows(&self) -> bool {
        matches!(self, SchemaStep::AddColumn { .. } | SchemaStep::WidenColumn { .. })
    }

    /// Whether clients made for the previous module cannot go on: rows they read look different or are gone.
    pub fn breaks_clients(&self) -> bool {
        match self {
            SchemaStep::AddColumn { public, .. } | SchemaStep::WidenColumn { public, .. } => *public,
            SchemaStep::ChangeAccess { public, .. } => !public,
            _ => false,
        }
    }
}

impl fmt::Display for SchemaStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = |public: bool| if public { "public" } else { "private" };
        match self {
            SchemaStep::AddTable { table, public } => {
                write!(formatter, "add {} table `{table}`", access(*public))
            }
            SchemaStep::AddColumn { table, column, kind, default, .. } => {
                write!(formatter, "add column `{column}` ({kind}, {default} in the rows there are) to table `{table}`")
            }
            SchemaStep::WidenColumn { table, column, .. } => {
                write!(formatter, "allow more variants in column `{column}` of table `{table}`")
            }
            SchemaStep::AddIndex { table, index, columns, unique } => {
                let unique = if *unique { "unique index" } else { "index" };
                write!(formatter, "add {unique} `{index}` on ({}) to table `{table}`", columns.join(", "))
            }
            SchemaStep::DropIndex { table, index } => {
                write!(formatter, "remove index `{index}` from table `{table}`")
            }
            SchemaStep::AddSequence { table, column } => {
                write!(formatter, "add a sequence to column `{column}` of table `{table}`")
            }
            SchemaStep::DropSequence { table, column } => {
                write!(formatter, "remove the sequence from column `{column}` of table `{table}`")
            }
            SchemaStep::ChangeAccess { table, public } => {
                write!(formatter, "make table `{table}` {}", access(*public))
            }
            SchemaStep::ChangeSchedule { table, function: Some(function) } => {
                write!(formatter, "run `{function}` for the rows of table `{table}`")
            }
            SchemaStep::ChangeSchedule { table, function: None } => {
                write!(formatter, "run nothing for the rows of table `{table}` any more")
            }
        }
    }
}

impl DatabaseSchema {
    /// What changes from `previous`, on which this schema was built, in table order.
    pub fn steps_from(&self, previous: &DatabaseSchema) -> Vec<SchemaStep> {
        let mut steps = Vec::new();
        for table in self.tables() {
            match previous.table(table.id) {
                Some(old) => compare(old, table, &mut steps),
                None => steps.push(SchemaStep::AddTable { table: table.name.clone(), public: table.public }),
            }
        }
        steps
    }
}

fn compare(old: &TableSchema, new: &TableSchema, steps: &mut Vec<SchemaStep>) {
    let table = &new.name;
    // Who could not read the table before does not miss anything.
    let public = old.public;
    if old.public != new.public {
        steps.push(SchemaStep::ChangeAccess { table: table.clone(), public: new.public });
    }
    for (position, column) in new.columns.iter().enumerate() {
        let column_name = column.name.clone();
        match old.columns.get(position) {
            None => steps.push(SchemaStep::AddColumn {
                table: table.clone(),
                column: column_name,
                kind: column.ty.kind(),
                default: default_text(new, column.position),
                public,
            }),
            Some(before) if before.ty != column.ty => {
                steps.push(SchemaStep::WidenColumn { table: table.clone(), column: column_name, public });
            }
            Some(_) => {}
        }
    }
    let missing = |index: &IndexSchema, table: &TableSchema| !table.indexes.iter().any(|other| other.id == index.id);
    for index in old.indexes.iter().filter(|index| missing(index, new)) {
        steps.push(SchemaStep::DropIndex { table: table.clone(), index: index.name.clone() });
    }
    for index in new.indexes.iter().filter(|index| missing(index, old)) {
        let columns = index.columns.iter().map(|column| new.columns[column.position()].name.clone()).collect();
        let (index, unique) = (index.name.clone(), index.unique);
        steps.push(SchemaStep::AddIndex { table: table.clone(), index, columns, unique });
    }
    let has_sequence = |table: &TableSchema, column| table.sequences.iter().any(|sequence| sequence.column == column);
    let name = |column: ColumnId| new.columns[column.position()].name.clone();
    for sequence in old.sequences.iter().filter(|sequence| !has_sequence(new, sequence.column)) {
        steps.push(SchemaStep::DropSequence { table: table.clone(), column: name(sequence.column) });
    }
    for sequence in new.sequences.iter().filter(|sequence| !has_sequence(old, sequence.column)) {
        steps.push(SchemaStep::AddSequence { table: table.clone(), column: name(sequence.column) });
    }
    if old.schedule != new.schedule {
        let function = new.schedule.as_ref().map(|schedule| schedule.function.clone());
        steps.push(SchemaStep::ChangeSchedule { table: table.clone(), function });
    }
}

fn default_text(table: &TableSchema, column: ColumnId) -> String {
    let Some((_, value)) = table.defaults.iter().find(|(of, _)| *of == column) else { return "nothing".to_owned() };
    let ty = &table.columns[column.position()].ty;
    json::bsatn_to_json(ty, &mut Reader::new(value)).map_or_else(|_| "a value".to_owned(), |value| value.to_string())
}
