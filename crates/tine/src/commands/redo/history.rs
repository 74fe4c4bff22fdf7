//! `tine history`

use serde_json::Value;
use tine_client::http::HistoryOptions;
use tine_types::Timestamp;

use super::HistoryArgs;
use crate::{
    commands::{Context, list::short},
    failure::Failure,
    output::Table,
};

/// Characters of arguments that are shown.
const ARGUMENT_CHARACTERS_MAX: usize = 48;

/// Lists the commits of a fork with their calls.
///
/// # Errors
/// The client's.
pub fn history(context: &Context, args: &HistoryArgs) -> Result<(), Failure> {
    let options = HistoryOptions { from: args.from, to: args.to, limit: args.limit, uncommitted: args.all };
    let entries = context.http.history(&args.database, &options)?;
    if context.output.is_json() {
        return context.output.json_list("entries", entries);
    }
    if entries.is_empty() {
        return context.output.line("nothing happened in that range");
    }
    let mut table = Table::new(["lsn", "time", "what", "caller", "rows", "outcome"]);
    for entry in &entries {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        table.row([
            entry["lsn"].as_u64().map_or_else(|| "-".to_owned(), |lsn| lsn.to_string()),
            entry["timestamp"].as_i64().map(|micros| Timestamp::from_micros(micros).to_rfc3339()).unwrap_or_default(),
            what(entry),
            short(&text("caller")),
            rows(&entry["tables"]),
            outcome(entry),
        ]);
    }
    context.output.table(&table)
}

fn what(entry: &Value) -> String {
    let kind = entry["kind"].as_str().unwrap_or("commit").replace('_', " ");
    match entry["function"].as_str() {
        Some(function) if !function.is_empty() => {
            let call = format!("{function}({})", arguments(&entry["arguments"]));
            if kind == "reducer" { call } else { format!("{kind} {call}") }
        }
        _ if kind == "statement" => arguments(&entry["arguments"]),
        _ => kind,
    }
}

fn arguments(arguments: &Value) -> String {
    let text = match arguments {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(", ")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(ARGUMENT_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn rows(tables: &Value) -> String {
    let Some(tables) = tables.as_object() else { return String::new() };
    let counts = tables.iter().map(|(table, counts)| {
        let (written, deleted) = (&counts["written"], counts["deleted"].as_u64().unwrap_or(0));
        if deleted == 0 { format!("{table} +{written}") } else { format!("{table} +{written} -{deleted}") }
    });
    counts.collect::<Vec<_>>().join(", ")
}

fn outcome(entry: &Value) -> String {
    match (entry["failure"].as_str(), entry["lsn"].is_null()) {
        (Some(code), _) => format!("failed ({code})"),
        (None, true) => "no change".to_owned(),
        (None, false) => "committed".to_owned(),
    }
}
