//! What a run found, per function, in a form that can be kept and shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tine_tables::{ChangeSet, DatabaseSchema, TableSchema};
use tine_types::AlgebraicType;
use tine_types::bsatn::Reader;
use tine_types::json::bsatn_to_json;

use super::replica::Failure;
use super::timeline::Event;
use crate::module::ActiveModule;
use crate::record::{CallKind, CallRecord};

/// Examples kept per function and outcome: enough to see what it is about.
const EXAMPLES_MAX: usize = 3;

/// Rows shown per table and direction in an example.
const EXAMPLE_ROWS_MAX: usize = 10;

/// Functions that are told apart; the calls of further ones are counted under `...`. A module has far fewer.
const FUNCTIONS_MAX: usize = 4_096;

/// What running a call again came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The recorded rows, or a failure where one was recorded.
    Same,
    /// Other rows.
    Different,
    /// It failed, and had not.
    NewlyFailing,
    /// It succeeded, and had failed.
    NewlySucceeding,
    /// The recorded code does not do again what it did: the call depended on more than its record.
    NotReproducible,
}

/// A call with an outcome other than [`Outcome::Same`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// What it came to.
    pub outcome: Outcome,
    /// Its commit, if it had one.
    pub lsn: Option<u64>,
    /// The commit before it.
    pub after: u64,
    /// By parameter, as far as they can be decoded; otherwise their bytes in hex.
    pub arguments: Value,
    /// What was recorded: `{"rows": {table: {"inserted": [..], "deleted": [..]}}}` or `{"failure": code}`.
    pub recorded: Value,
    /// What happened now, in the same form; a failure has a `message`, too.
    pub replayed: Value,
}

/// The calls of one function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FunctionReport {
    /// Calls by outcome; those that did not occur are left out.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Some of those that were not the same.
    pub examples: Vec<Example>,
}

/// How one table differs between the recorded and the replayed version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableDifference {
    /// Its name.
    pub table: String,
    /// Rows that only the recorded version has.
    pub only_recorded: u64,
    /// Rows that only the replayed version has.
    pub only_replayed: u64,
    /// Some of the former.
    pub recorded_examples: Vec<Value>,
    /// Some of the latter.
    pub replayed_examples: Vec<Value>,
}

/// What a call did, of which a comparison is made.
pub(super) enum Did<'a> {
    Changed(&'a ChangeSet),
    Failed { code: &'a str, message: Option<&'a str> },
}

impl<'a> From<&'a Failure> for Did<'a> {
    fn from(failure: &'a Failure) -> Did<'a> {
        Did::Failed { code: failure.code, message: Some(&failure.message) }
    }
}

/// The reports of all functions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Reports(pub BTreeMap<String, FunctionReport>);

impl Reports {
    /// Counts a call. `example` is only made when it is kept.
    pub fn count(&mut self, function: &str, outcome: Outcome, example: impl FnOnce() -> Example) {
        let is_known = self.0.contains_key(function) || self.0.len() < FUNCTIONS_MAX;
        let report = self.0.entry(if is_known { function } else { "..." }.to_owned()).or_default();
        let count = report.outcomes.entry(outcome).or_default();
        *count += 1;
        if outcome != Outcome::Same && *count <= EXAMPLES_MAX as u64 {
            report.examples.push(example());
        }
    }

    /// Calls with an outcome.
    pub fn total(&self, outcome: Outcome) -> u64 {
        self.0.values().filter_map(|report| report.outcomes.get(&outcome)).sum()
    }

    /// Calls whose difference is the code's.
    pub fn differences(&self) -> u64 {
        [Outcome::Different, Outcome::NewlyFailing, Outcome::NewlySucceeding]
            .map(|outcome| self.total(outcome))
            .iter()
            .sum()
    }
}

/// The name under which a call is reported.
pub(super) fn function_name(call: &CallRecord) -> &str {
    match call.kind {
        CallKind::Statement => "(statement)",
        _ => &call.function,
    }
}

/// Shows a call that went otherwise.
pub(super) fn example(
    event: &Event,
    call: &CallRecord,
    outcome: Outcome,
    recorded: (Did<'_>, &ActiveModule),
    replayed: (Did<'_>, &ActiveModule),
) -> Example {
    Example {
        outcome,
        lsn: event.lsn.map(tine_store::Lsn::get),
        after: event.after.get(),
        arguments: arguments(call, recorded.1),
        recorded: shown(&recorded.0, &recorded.1.schema),
        replayed: shown(&replayed.0, &replayed.1.schema),
    }
}

fn shown(did: &Did<'_>, schema: &DatabaseSchema) -> Value {
    match did {
        Did::Changed(changes) => json!({ "rows": changed_rows(changes, schema, EXAMPLE_ROWS_MAX) }),
        Did::Failed { code, message: Some(message) } => json!({ "failure": code, "message": message }),
        Did::Failed { code, message: None } => json!({ "failure": code }),
    }
}

/// Changed rows by table: `{table: {"inserted": [row, ..], "deleted": [row, ..]}}`, at most `rows_max` in each list.
pub(super) fn changed_rows(changes: &ChangeSet, schema: &DatabaseSchema, rows_max: usize) -> Value {
    let tables = changes.tables.iter().filter_map(|changed| {
        let table = schema.table(changed.table)?;
        let rows =
            |rows: &[bytes::Bytes]| -> Value { rows.iter().take(rows_max).map(|row| row_json(table, row)).collect() };
        Some((table.name.to_string(), json!({ "inserted": rows(&changed.inserts), "deleted": rows(&changed.deletes) })))
    });
    Value::Object(tables.collect::<Map<String, Value>>())
}

/// A row by column.
pub(super) fn row_json(table: &TableSchema, row: &[u8]) -> Value {
    let ty = AlgebraicType::Product(table.row_type.clone());
    bsatn_to_json(&ty, &mut Reader::new(row)).unwrap_or_else(|_| Value::String(in_hex(row)))
}

/// A call's arguments by parameter.
pub(super) fn arguments(call: &CallRecord, module: &ActiveModule) -> Value {
    if call.kind == CallKind::Statement {
        return Value::String(String::from_utf8_lossy(&call.arguments).into_owned());
    }
    let reducer = module.reducers.get(&*call.function).map(|function| &function.parameters);
    let parameters = reducer.or_else(|| module.procedures.get(&*call.function).map(|function| &function.parameters));
    let decoded = parameters.and_then(|parameters| {
        bsatn_to_json(&AlgebraicType::Product(parameters.clone()), &mut Reader::new(&call.arguments)).ok()
    });
    decoded.unwrap_or_else(|| match call.arguments.is_empty() {
        true => json!({}),
        false => Value::String(in_hex(&call.arguments)),
    })
}

fn in_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
