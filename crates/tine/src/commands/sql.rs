//! `tine sql`

use serde_json::{Value, json};
use tine_client::{http::SqlResult, schema::type_from_json};
use tine_types::AlgebraicType;

use super::Context;
use crate::{
    args::SqlArgs,
    failure::Failure,
    output::{Table, duration_text},
    values::value_text,
};

/// Runs a statement and prints its rows.
///
/// # Errors
/// The client's.
pub fn run(context: &Context, args: &SqlArgs) -> Result<(), Failure> {
    let results = match &args.at {
        Some(at) => context.http.sql_as_of(&args.database, &args.statement, at)?,
        None => context.http.sql(&args.database, &args.statement)?,
    };
    for result in results {
        if context.output.is_ndjson() {
            for row in &result.rows {
                context.output.json(&row_json(&result, row))?;
            }
        } else if context.output.is_json() {
            context.output.json(&as_json(&result))?;
        } else {
            print(context, &result)?;
        }
    }
    Ok(())
}

fn as_json(result: &SqlResult) -> Value {
    let changed = json!({ "inserted": result.changed.inserted, "deleted": result.changed.deleted, "updated": result.changed.updated });
    json!({ "columns": result.columns, "rows": result.rows, "changed": changed, "duration_us": result.duration_us })
}

/// A row as an object by column name.
fn row_json(result: &SqlResult, row: &[Value]) -> Value {
    let names = result.columns.iter().enumerate().map(column_name);
    Value::Object(names.zip(row.iter().cloned()).collect())
}

/// A name for a column that may have none.
fn column_name((position, name): (usize, &Option<String>)) -> String {
    name.clone().unwrap_or_else(|| format!("column {}", position + 1))
}

fn print(context: &Context, result: &SqlResult) -> Result<(), Failure> {
    let took = duration_text(result.duration_us);
    if result.columns.is_empty() {
        let changed = result.changed;
        return context.output.line(&format!(
            "{} inserted, {} updated, {} deleted in {took}",
            changed.inserted, changed.updated, changed.deleted
        ));
    }
    let mut table = Table::new(result.columns.iter().enumerate().map(column_name));
    // A type that cannot be read is not shown in words; its values are shown as they came.
    let types: Vec<Option<AlgebraicType>> = result.column_types.iter().map(|ty| type_from_json(ty).ok()).collect();
    for row in &result.rows {
        table.row(row.iter().zip(&types).map(|(value, ty)| match ty {
            Some(ty) => value_text(ty, value),
            None => value.to_string(),
        }));
    }
    context.output.table(&table)?;
    let count = result.rows.len();
    context.output.line(&format!("({count} row{} in {took})", if count == 1 { "" } else { "s" }))
}
