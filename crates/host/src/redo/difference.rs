//! Comparing what two calls changed, and what two versions hold, also across schemas: by table name, and by the columns that both
//! sides have with the same type. Tables that only one side has are not compared; neither are events, which are not kept.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use tine_tables::{ChangeSet, DatabaseSchema, TableRead, TableSchema};
use tine_types::bsatn::{Reader, decode_value, encode_value};
use tine_types::{AlgebraicType, AlgebraicValue};

use super::report::{TableDifference, row_json};
use crate::HostError;

/// Rows shown per table and side.
const EXAMPLES_MAX: usize = 5;

/// Rows of one side that are held in memory to compare tables whose columns changed.
const PROJECTED_ROWS_MAX: usize = 1_000_000;

/// Whether two calls changed the same rows.
pub(super) fn same_changes(
    recorded: (&ChangeSet, &DatabaseSchema),
    replayed: (&ChangeSet, &DatabaseSchema),
) -> Result<bool, HostError> {
    Ok(net(recorded.0, recorded.1, replayed.1)? == net(replayed.0, replayed.1, recorded.1)?)
}

type Net<'a> = BTreeMap<&'a str, BTreeMap<Cow<'a, [u8]>, i64>>;

/// How many times more each row is there, by the columns that `other` has, too.
fn net<'a>(changes: &'a ChangeSet, schema: &'a DatabaseSchema, other: &DatabaseSchema) -> Result<Net<'a>, HostError> {
    let mut tables = Net::new();
    for changed in &changes.tables {
        let Some(table) = schema.table(changed.table).filter(|table| !table.is_event) else { continue };
        let Some(projection) = other.table_named(&table.name).map(|other| Projection::between(table, other)) else {
            continue;
        };
        let rows = tables.entry(&*table.name).or_default();
        for (list, step) in [(&changed.inserts, 1), (&changed.deletes, -1)] {
            for row in list {
                *rows.entry(projection.apply(table, row)?).or_insert(0) += step;
            }
        }
        rows.retain(|_, count| *count != 0);
    }
    tables.retain(|_, rows| !rows.is_empty());
    Ok(tables)
}

/// The columns of a table that another one has, too.
struct Projection {
    /// `None`: all of them, in the same order, so that the bytes are the same.
    columns: Option<Vec<usize>>,
}

impl Projection {
    fn between(table: &TableSchema, other: &TableSchema) -> Projection {
        if table.row_type == other.row_type {
            return Projection { columns: None };
        }
        let is_shared = |name: &str, ty: &AlgebraicType| {
            other.columns.iter().any(|column| *column.name == *name && column.ty == *ty)
        };
        let mut columns: Vec<usize> =
            (0..table.columns.len()).filter(|&at| is_shared(&table.columns[at].name, &table.columns[at].ty)).collect();
        // Both sides in one order, whatever theirs is.
        columns.sort_by(|&left, &right| table.columns[left].name.cmp(&table.columns[right].name));
        Projection { columns: Some(columns) }
    }

    fn apply<'a>(&self, table: &TableSchema, row: &'a [u8]) -> Result<Cow<'a, [u8]>, HostError> {
        let Some(columns) = &self.columns else { return Ok(Cow::Borrowed(row)) };
        let values = columns_of(table, row)?;
        let mut projected = Vec::with_capacity(row.len());
        columns.iter().for_each(|&column| encode_value(&values[column], &mut projected));
        Ok(Cow::Owned(projected))
    }
}

/// The columns of a row.
pub(super) fn columns_of(table: &TableSchema, row: &[u8]) -> Result<Vec<AlgebraicValue>, HostError> {
    let ty = AlgebraicType::Product(table.row_type.clone());
    match decode_value(&ty, &mut Reader::new(row)) {
        Ok(AlgebraicValue::Product(values)) => Ok(values),
        _ => Err(HostError::Damaged("row")),
    }
}

/// The tables in which two versions differ.
pub(super) fn table_differences(
    recorded: &dyn TableRead,
    replayed: &dyn TableRead,
) -> Result<Vec<TableDifference>, HostError> {
    let mut differences = Vec::new();
    for table in recorded.schema().tables().iter().filter(|table| !table.is_event) {
        let Some(other) = replayed.schema().table_named(&table.name) else { continue };
        let found = match table.row_type == other.row_type {
            true => by_lookup(table, recorded, other, replayed)?,
            false => by_projection(table, recorded, other, replayed)?,
        };
        if found.only_recorded + found.only_replayed > 0 {
            differences.push(found);
        }
    }
    Ok(differences)
}

fn by_lookup(
    table: &TableSchema,
    recorded: &dyn TableRead,
    other: &TableSchema,
    replayed: &dyn TableRead,
) -> Result<TableDifference, HostError> {
    let missing = |from: &dyn TableRead, from_table: &TableSchema, to: &dyn TableRead, to_table: &TableSchema| {
        let (mut count, mut examples) = (0, Vec::new());
        let mut rows = from.scan(from_table.id);
        while let Some(row) = rows.next()? {
            if !to.contains_row(to_table.id, row)? {
                count += 1;
                if examples.len() < EXAMPLES_MAX {
                    examples.push(row_json(from_table, row));
                }
            }
        }
        Ok::<(u64, Vec<Value>), HostError>((count, examples))
    };
    let (only_recorded, recorded_examples) = missing(recorded, table, replayed, other)?;
    let (only_replayed, replayed_examples) = missing(replayed, other, recorded, table)?;
    let table = table.name.to_string();
    Ok(TableDifference { table, only_recorded, only_replayed, recorded_examples, replayed_examples })
}

fn by_projection(
    table: &TableSchema,
    recorded: &dyn TableRead,
    other: &TableSchema,
    replayed: &dyn TableRead,
) -> Result<TableDifference, HostError> {
    let mut counts: HashMap<Vec<u8>, i64> = HashMap::new();
    let projection = Projection::between(table, other);
    let mut rows = recorded.scan(table.id);
    while let Some(row) = rows.next()? {
        *counts.entry(projection.apply(table, row)?.into_owned()).or_insert(0) += 1;
        if counts.len() > PROJECTED_ROWS_MAX {
            return Err(HostError::TooLargeToCompare { table: table.name.to_string(), rows_max: PROJECTED_ROWS_MAX });
        }
    }
    let (mut only_replayed, mut replayed_examples) = (0, Vec::new());
    let projection = Projection::between(other, table);
    let mut rows = replayed.scan(other.id);
    while let Some(row) = rows.next()? {
        match counts.get_mut(&*projection.apply(other, row)?) {
            Some(count) if *count > 0 => *count -= 1,
            _ => {
                only_replayed += 1;
                if replayed_examples.len() < EXAMPLES_MAX {
                    replayed_examples.push(row_json(other, row));
                }
            }
        }
    }
    let only_recorded = counts.values().map(|&count| count as u64).sum();
    // Which rows they were is lost with the columns that only one side has.
    let table = table.name.to_string();
    Ok(TableDifference { table, only_recorded, only_replayed, recorded_examples: Vec::new(), replayed_examples })
}
