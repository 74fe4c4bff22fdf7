//! Reports of verifications and replays for people.

use std::time::Duration;

use serde_json::Value;

use crate::{
    failure::Failure,
    output::{Output, Table, duration_text},
};

const OUTCOMES: [(&str, &str); 5] = [
    ("same", "same"),
    ("different", "different rows"),
    ("newly_failing", "newly failing"),
    ("newly_succeeding", "newly succeeding"),
    ("not_reproducible", "not reproducible"),
];

/// Prints what a verification found.
pub(super) fn print_verified(output: &Output, database: &str, report: &Value, took: Duration) -> Result<(), Failure> {
    print_functions(output, report)?;
    print_end(output, report)?;
    output.line(&format!(
        "verified {database} from {} to {}: {} calls, {} differ, in {}",
        report["from"],
        report["to"],
        report["calls"],
        report["differences"],
        duration_text(took.as_micros() as u64)
    ))
}

/// Prints what a replay found.
pub(super) fn print_replayed(output: &Output, database: &str, report: &Value, took: Duration) -> Result<(), Failure> {
    print_functions(output, report)?;
    let tables = report["tables"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !tables.is_empty() {
        let mut table = Table::new(["table", "only recorded", "only replayed", "for example"]);
        for difference in tables {
            let example = difference["replayed_examples"].get(0).or(difference["recorded_examples"].get(0));
            table.row([
                difference["table"].as_str().unwrap_or_default().to_owned(),
                difference["only_recorded"].to_string(),
                difference["only_replayed"].to_string(),
                example.map(Value::to_string).unwrap_or_default(),
            ]);
        }
        output.line("")?;
        output.table(&table)?;
    }
    print_end(output, report)?;
    if let Some(refused) = report["rows_refused"].as_u64().filter(|&refused| refused > 0) {
        output
            .line(&format!("{refused} rows that procedures wrote do not fit the replayed tables and were left out"))?;
    }
    let fork = report["fork"]["name"].as_str().unwrap_or_default();
    let name = database.split('@').next().unwrap_or(database);
    output.line(&format!(
        "replayed {database} from {} to {} on {name}@{fork}: {} calls, {} differ, in {}",
        report["from"],
        report["to"],
        report["calls"],
        report["differences"],
        duration_text(took.as_micros() as u64)
    ))
}

fn print_functions(output: &Output, report: &Value) -> Result<(), Failure> {
    let Some(functions) = report["functions"].as_object() else { return Ok(()) };
    let found = |outcome: &str| functions.values().any(|function| function["outcomes"].get(outcome).is_some());
    let columns: Vec<_> = OUTCOMES.into_iter().filter(|(outcome, _)| *outcome == "same" || found(outcome)).collect();
    let mut table = Table::new(std::iter::once("function").chain(columns.iter().map(|(_, title)| *title)));
    for (name, function) in functions {
        let counts = columns
            .iter()
            .map(|(outcome, _)| function["outcomes"].get(*outcome).map_or("0".to_owned(), Value::to_string));
        table.row(std::iter::once(name.clone()).chain(counts));
    }
    output.table(&table)?;
    for (name, function) in functions {
        for example in function["examples"].as_array().map(Vec::as_slice).unwrap_or_default() {
            print_example(output, name, example)?;
        }
    }
    Ok(())
}

fn print_example(output: &Output, name: &str, example: &Value) -> Result<(), Failure> {
    let outcome = example["outcome"].as_str().unwrap_or_default();
    let title = OUTCOMES.iter().find(|(own, _)| *own == outcome).map_or(outcome, |(_, title)| title);
    let place = match &example["lsn"] {
        Value::Null => format!("after commit {}", example["after"]),
        lsn => format!("commit {lsn}"),
    };
    output.lines([
        String::new(),
        format!("{title}: {name} {} ({place})", example["arguments"]),
        format!("  recorded  {}", did(&example["recorded"])),
        format!("  now       {}", did(&example["replayed"])),
    ])
}

fn did(value: &Value) -> String {
    match (value["failure"].as_str(), value["message"].as_str()) {
        (Some(code), Some(message)) => format!("failed: {message} ({code})"),
        (Some(code), None) => format!("failed ({code})"),
        _ => value["rows"].to_string(),
    }
}

fn print_end(output: &Output, report: &Value) -> Result<(), Failure> {
    output.line("")?;
    if let Some(reason) = report["note"].as_str() {
        output.line(&format!("the calls ran where the database's calls do, not in a worker process: {reason}"))?;
    }
    match report["stopped_at"].as_u64() {
        Some(lsn) => output.line(&format!("stopped at commit {lsn}, the first difference")),
        None => Ok(()),
    }
}
