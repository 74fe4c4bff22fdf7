//! `tine describe`

use serde_json::json;
use tine_client::schema::{Column, Function, Schema, Table as TableSchema, describe_type};

use super::Context;
use crate::{args::DescribeArgs, failure::Failure, output::Table};

/// Prints the tables and functions of a database, or one of them.
///
/// # Errors
/// The client's, and a name that is not there.
pub fn run(context: &Context, args: &DescribeArgs) -> Result<(), Failure> {
    let definition = context.http.schema_json(&args.database)?;
    if context.output.is_json() && args.name.is_none() {
        return context.output.json(&definition);
    }
    let schema = Schema::from_json(&definition).map_err(|error| {
        Failure::from(tine_client::ClientError::BadReply { route: "GET schema".to_owned(), reason: error.to_string() })
    })?;
    match &args.name {
        None => overview(context, &schema),
        Some(name) => one(context, &schema, &args.database, name),
    }
}

/// One line per table and function. Not a table: column lists are long, and cut ones say little.
fn overview(context: &Context, schema: &Schema) -> Result<(), Failure> {
    let tables = schema.tables.iter().map(|table| {
        format!("  {} ({}): {}", table.name, access(table), columns_text(&table.columns, &table.primary_key))
    });
    let functions = functions_with_kind(schema).map(|(function, kind)| format!("  {}  [{kind}]", signature(function)));
    let lines = ["tables (* is the primary key)".to_owned()].into_iter().chain(tables);
    context.output.lines(lines.chain(["functions".to_owned()]).chain(functions))
}

fn signature(function: &Function) -> String {
    let returns = function.returns.as_ref().map(|ty| format!(" -> {}", describe_type(ty))).unwrap_or_default();
    format!("{}({}){returns}", function.name, columns_text(&function.parameters, &[]))
}

fn one(context: &Context, schema: &Schema, database: &str, name: &str) -> Result<(), Failure> {
    if let Some(table) = schema.table(name) {
        return one_table(context, table);
    }
    let Some((function, _)) = schema.function(name) else {
        let message = format!("`{database}` has no table, reducer or procedure `{name}`");
        return Err(Failure::NotFound { message, next: Some(format!("`tine describe {database}` shows what it has")) });
    };
    let kind = functions_with_kind(schema)
        .find(|(other, _)| other.name == function.name)
        .map(|(_, kind)| kind)
        .unwrap_or_default();
    let returns = function.returns.as_ref().map(describe_type);
    if context.output.is_json() {
        return context.output.json(&json!({
            "name": function.name, "kind": kind, "callable": function.callable, "parameters": columns_json(&function.parameters), "returns": returns,
        }));
    }
    context.output.line(&format!("{kind} {}", signature(function)))
}

fn one_table(context: &Context, table: &TableSchema) -> Result<(), Failure> {
    let key: Vec<&str> =
        table.primary_key.iter().filter_map(|&position| table.columns.get(position)).map(|c| c.name.as_str()).collect();
    if context.output.is_json() {
        return context.output.json(&json!({
            "name": table.name, "kind": "table", "public": table.public, "event": table.is_event, "schedules": table.schedules,
            "primary_key": key, "columns": columns_json(&table.columns),
        }));
    }
    context.output.line(&format!("table {} ({})", table.name, access(table)))?;
    let mut columns = Table::new(["column", "type", "key"]);
    for column in &table.columns {
        let mark = if key.contains(&column.name.as_str()) { "primary" } else { "" };
        columns.row([column.name.clone(), describe_type(&column.ty), mark.to_owned()]);
    }
    context.output.table(&columns)
}

fn functions_with_kind(schema: &Schema) -> impl Iterator<Item = (&Function, String)> {
    let reducers = schema.reducers.iter().map(|function| {
        let kind = match (function.lifecycle, function.callable) {
            (Some(hook), _) => format!("{hook} hook"),
            (None, true) => "reducer".to_owned(),
            (None, false) => "internal reducer".to_owned(),
        };
        (function, kind)
    });
    let procedures = schema
        .procedures
        .iter()
        .map(|function| (function, if function.callable { "procedure" } else { "internal procedure" }.to_owned()));
    reducers.chain(procedures)
}

fn access(table: &TableSchema) -> String {
    let mut words = vec![if table.public { "public".to_owned() } else { "private".to_owned() }];
    if table.is_event {
        words.push("event".to_owned());
    }
    if let Some(function) = &table.schedules {
        words.push(format!("schedules {function}"));
    }
    words.join(", ")
}

fn columns_text(columns: &[Column], primary_key: &[usize]) -> String {
    let column = |(position, column): (usize, &Column)| {
        let mark = if primary_key.contains(&position) { "*" } else { "" };
        format!("{}{mark}: {}", column.name, describe_type(&column.ty))
    };
    columns.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
}

fn columns_json(columns: &[Column]) -> Vec<serde_json::Value> {
    columns.iter().map(|column| json!({ "name": column.name, "type": describe_type(&column.ty) })).collect()
}
