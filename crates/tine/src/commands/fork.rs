//! `tine fork ...`

use std::time::Instant;

use serde_json::{Value, json};
use tine_client::http::Fork;

use super::{Context, split_fork};
use crate::{
    args::ForkCommand,
    consent::Consent,
    failure::Failure,
    output::{Table, duration_text},
};

/// The fork that a bare database name means.
const MAIN: &str = "main";

/// Runs a verb of `tine fork`.
///
/// # Errors
/// The client's.
pub fn run(context: &Context, command: &ForkCommand) -> Result<(), Failure> {
    match command {
        ForkCommand::Create { database, name, ephemeral } => create(context, database, name, *ephemeral),
        ForkCommand::List { database } => list(context, database),
        ForkCommand::Show { fork } => {
            let (database, name) = split_fork(fork);
            let shown = context.http.fork(database, name.unwrap_or(MAIN))?;
            show(context, database, &shown)
        }
        ForkCommand::Rename { fork, name } => {
            let (database, old) = named(fork)?;
            let renamed = context.http.rename_fork(database, old, name)?;
            if context.output.is_json() {
                return context.output.json(&as_json(&renamed));
            }
            context.output.line(&format!("{database}@{old} is now {database}@{}", renamed.name))
        }
        ForkCommand::Delete { fork } => {
            let (database, name) = named(fork)?;
            delete(context, database, name)
        }
    }
}

/// Deletes a fork.
///
/// # Errors
/// The client's.
pub fn delete(context: &Context, database: &str, fork: &str) -> Result<(), Failure> {
    context.confirm(Consent::Delete, &format!("Delete fork `{database}@{fork}`?"))?;
    context.http.delete_fork(database, fork)?;
    if context.output.is_json() {
        return context.output.json(&json!({ "deleted": format!("{database}@{fork}") }));
    }
    context.output.line(&format!("deleted {database}@{fork}"))
}

/// A fork for `--json`.
pub fn as_json(fork: &Fork) -> Value {
    let parent = fork.parent.as_ref().map(|parent| json!({ "fork": parent.fork, "lsn": parent.lsn }));
    json!({
        "name": fork.name, "id": fork.id, "identity": fork.identity, "parent": parent,
        "head": fork.head, "durability": fork.durability, "created_at": fork.created_at,
    })
}

/// Where a fork began, as `parent@lsn`.
pub fn origin_text(fork: &Fork) -> String {
    match &fork.parent {
        Some(parent) => match &parent.fork {
            Value::String(name) => format!("{name}@{}", parent.lsn),
            other => format!("#{other}@{}", parent.lsn),
        },
        None => "-".to_owned(),
    }
}

fn create(context: &Context, database: &str, name: &str, ephemeral: bool) -> Result<(), Failure> {
    let start = Instant::now();
    let fork = context.http.create_fork(database, name, ephemeral)?;
    let took_us = start.elapsed().as_micros() as u64;
    if context.output.is_json() {
        let mut value = as_json(&fork);
        value["took_us"] = json!(took_us);
        return context.output.json(&value);
    }
    let address = format!("{}@{}", split_fork(database).0, fork.name);
    context.output.line(&format!(
        "created {address} ({}) from {} in {}",
        fork.durability,
        origin_text(&fork),
        duration_text(took_us)
    ))
}

fn list(context: &Context, database: &str) -> Result<(), Failure> {
    let forks = context.http.forks(split_fork(database).0)?;
    if context.output.is_json() {
        return context.output.json_list("forks", forks.iter().map(as_json).collect());
    }
    let mut table = Table::new(["fork", "id", "head", "from", "durability", "created"]);
    for fork in &forks {
        table.row([
            fork.name.clone(),
            fork.id.to_string(),
            fork.head.to_string(),
            origin_text(fork),
            fork.durability.clone(),
            created_text(fork),
        ]);
    }
    context.output.table(&table)
}

fn show(context: &Context, database: &str, fork: &Fork) -> Result<(), Failure> {
    if context.output.is_json() {
        return context.output.json(&as_json(fork));
    }
    context.output.lines([
        format!("{database}@{}", fork.name),
        format!("  id          {}", fork.id),
        format!("  identity    {}", fork.identity),
        format!("  from        {}", origin_text(fork)),
        format!("  head        {}", fork.head),
        format!("  durability  {}", fork.durability),
        format!("  created     {}", created_text(fork)),
        format!("  url         {}/v1/database/{database}@{}", context.url, fork.name),
    ])
}

fn created_text(fork: &Fork) -> String {
    match &fork.created_at {
        Value::String(text) => text.clone(),
        value => match value.as_i64() {
            Some(micros) => tine_types::Timestamp::from_micros(micros).to_rfc3339(),
            None => "-".to_owned(),
        },
    }
}

/// Both parts of `name@fork`.
fn named(address: &str) -> Result<(&str, &str), Failure> {
    match split_fork(address) {
        (database, Some(fork)) if !database.is_empty() && !fork.is_empty() => Ok((database, fork)),
        _ => Err(Failure::Usage {
            message: format!("`{address}` does not name a fork"),
            next: Some("write it as name@fork".to_owned()),
        }),
    }
}
