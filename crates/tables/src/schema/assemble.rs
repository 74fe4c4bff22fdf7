//! Putting checked tables together: ids in order, lookup by name and id.
//!
//! Both ways to a schema end here (a module definition and stored bytes), so the invariants of
//! [`DatabaseSchema`] are checked here once for both.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use tine_store::KeyspaceId;
use tine_types::{AlgebraicType, bsatn};

use super::{
    COLUMNS_MAX, DatabaseSchema, INDEXES_MAX, IndexPosition, IndexSchema, SequenceSchema, TABLES_MAX, TableSchema,
};
use crate::error::SchemaError;
use crate::ids::ColumnId;
use crate::layout::TableLayout;

impl DatabaseSchema {
    /// Makes a schema of tables whose ids are set.
    pub(super) fn assemble(
        sequences_keyspace: KeyspaceId,
        mut tables: Vec<TableSchema>,
    ) -> Result<DatabaseSchema, SchemaError> {
        if tables.len() > TABLES_MAX {
            let problem = format!("{} tables; at most {TABLES_MAX} are allowed", tables.len());
            return Err(SchemaError::invalid("the module", problem));
        }
        tables.sort_by_key(|table| table.id);
        let mut schema = DatabaseSchema {
            tables: Vec::with_capacity(tables.len()),
            sequences_keyspace,
            tables_by_name: HashMap::new(),
            indexes_by_name: HashMap::new(),
            indexes_by_id: Vec::new(),
        };
        for (position, mut table) in tables.into_iter().enumerate() {
            table.indexes.sort_by_key(|index| index.id);
            check_table(&table)?;
            table.layout = TableLayout::new(&table.columns, table.primary_key);
            let place = position as u32;
            for (index, position) in table.indexes.iter().zip(0..) {
                let position = IndexPosition { table: place, index: position };
                schema.indexes_by_id.push((index.id, position));
                let names = &mut schema.indexes_by_name;
                add_names(names, [&index.name, &index.accessor], position, "index")?;
            }
            add_names(&mut schema.tables_by_name, [&table.name, &table.accessor], place, "table")?;
            schema.tables.push(Arc::new(table));
        }
        schema.indexes_by_id.sort_by_key(|(id, _)| *id);
        let mut ids: Vec<u32> = schema.tables.iter().map(|table| table.id.0).collect();
        ids.extend(schema.indexes_by_id.iter().map(|(id, _)| id.0));
        ids.push(sequences_keyspace.get());
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(SchemaError::invalid("the schema", format!("id {} is used twice", pair[0])));
        }
        Ok(schema)
    }
}

/// Registers the names of one table or index. A canonical name and another's alias may not clash.
fn add_names<Position: Copy + PartialEq>(
    names: &mut HashMap<Arc<str>, Position>,
    added: [&Arc<str>; 2],
    position: Position,
    kind: &str,
) -> Result<(), SchemaError> {
    for name in added {
        match names.entry(name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(position);
            }
            Entry::Occupied(entry) if *entry.get() == position => {}
            Entry::Occupied(_) => {
                let problem = "the name is used twice";
                return Err(SchemaError::invalid(format!("{kind} `{name}`"), problem));
            }
        }
    }
    Ok(())
}

fn check_table(table: &TableSchema) -> Result<(), SchemaError> {
    let place = format!("table `{}`", table.name);
    let invalid = |problem: String| Err(SchemaError::invalid(&place, problem));
    if table.columns.len() > COLUMNS_MAX {
        let count = table.columns.len();
        return invalid(format!("{count} columns; at most {COLUMNS_MAX} are allowed"));
    }
    if table.indexes.len() > INDEXES_MAX {
        let count = table.indexes.len();
        return invalid(format!("{count} indexes; at most {INDEXES_MAX} are allowed"));
    }
    for (position, column) in table.columns.iter().enumerate() {
        if table.columns[..position].iter().any(|other| other.name == column.name) {
            return invalid(format!("two columns are named `{}`", column.name));
        }
    }
    if let Some(column) = table.primary_key {
        check_column(table, column, "the primary key")?;
        if table.primary_key_index().is_none() {
            return invalid("the primary key needs a unique constraint and an index".to_owned());
        }
    }
    for index in &table.indexes {
        check_index(table, index)?;
    }
    for (position, sequence) in table.sequences.iter().enumerate() {
        check_sequence(table, sequence)?;
        if table.sequences[..position].iter().any(|other| other.column == sequence.column) {
            let column = &table.columns[sequence.column.position()].name;
            return invalid(format!("column `{column}` has two sequences"));
        }
    }
    for (position, (column, value)) in table.defaults.iter().enumerate() {
        let name = check_column(table, *column, "a default value")?;
        if table.defaults[..position].iter().any(|(other, _)| other == column) {
            return invalid(format!("column `{name}` has two default values"));
        }
        if let Err(error) = bsatn::validate(&table.columns[column.position()].ty, value) {
            return invalid(format!("the default value of column `{name}` is not one of its type: {error}"));
        }
    }
    if let Some(schedule) = &table.schedule {
        let name = check_column(table, schedule.at_column, "the schedule")?;
        if !table.columns[schedule.at_column.position()].ty.is_schedule_at() {
            return invalid(format!("the schedule's column `{name}` is not of type ScheduleAt"));
        }
    }
    Ok(())
}

fn check_column<'a>(table: &'a TableSchema, column: ColumnId, user: &str) -> Result<&'a str, SchemaError> {
    match table.columns.get(column.position()) {
        Some(column) => Ok(&column.name),
        None => {
            let count = table.columns.len();
            let problem = format!("{user} names column {}, but there are only {count}", column.0);
            Err(SchemaError::invalid(format!("table `{}`", table.name), problem))
        }
    }
}

fn check_index(table: &TableSchema, index: &IndexSchema) -> Result<(), SchemaError> {
    let place = format!("index `{}` of table `{}`", index.name, table.name);
    if index.columns.is_empty() {
        return Err(SchemaError::invalid(place, "an index needs at least one column"));
    }
    for (position, column) in index.columns.iter().enumerate() {
        let name = check_column(table, *column, &format!("index `{}`", index.name))?;
        if index.columns[..position].contains(column) {
            return Err(SchemaError::invalid(place, format!("column `{name}` is named twice")));
        }
    }
    let on_primary_key = table.primary_key.is_some_and(|column| index.columns == [column]);
    if index.is_primary_key != on_primary_key || (on_primary_key && !index.unique) {
        return Err(SchemaError::invalid(place, "an index on the primary key must be unique"));
    }
    Ok(())
}

fn check_sequence(table: &TableSchema, sequence: &SequenceSchema) -> Result<(), SchemaError> {
    let name = check_column(table, sequence.column, "a sequence")?;
    let invalid = |problem: String| {
        Err(SchemaError::invalid(format!("the sequence of column `{name}` of table `{}`", table.name), problem))
    };
    let ty = &table.columns[sequence.column.position()].ty;
    let Some((type_min, type_max)) = integer_limits(ty) else {
        return invalid(format!("the column's type is {}, not an integer of at most 128 bits", ty.kind()));
    };
    if sequence.increment == 0 {
        return invalid("the increment is 0".to_owned());
    }
    let (min, max, start) = (sequence.min, sequence.max, sequence.start);
    if min < type_min || max > type_max {
        return invalid(format!("the limits {min} to {max} exceed those of {}", ty.kind()));
    }
    if !(min..=max).contains(&start) {
        return invalid(format!("the start {start} is not within the limits {min} to {max}"));
    }
    Ok(())
}

/// The smallest and largest value of an integer type that a sequence can count in. Of `U128` only
/// the half that fits 128 signed bits is used.
pub(super) fn integer_limits(ty: &AlgebraicType) -> Option<(i128, i128)> {
    Some(match ty {
        AlgebraicType::I8 => (i8::MIN.into(), i8::MAX.into()),
        AlgebraicType::U8 => (0, u8::MAX.into()),
        AlgebraicType::I16 => (i16::MIN.into(), i16::MAX.into()),
        AlgebraicType::U16 => (0, u16::MAX.into()),
        AlgebraicType::I32 => (i32::MIN.into(), i32::MAX.into()),
        AlgebraicType::U32 => (0, u32::MAX.into()),
        AlgebraicType::I64 => (i64::MIN.into(), i64::MAX.into()),
        AlgebraicType::U64 => (0, u64::MAX.into()),
        AlgebraicType::I128 => (i128::MIN, i128::MAX),
        AlgebraicType::U128 => (0, i128::MAX),
        _ => return None,
    })
}
