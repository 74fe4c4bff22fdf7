//! `tine fork ...`

mod tree;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tine_client::ClientError;
use tine_client::http::{Fork, ForkOptions, ForkOrigin, ForkPoint};
use tine_types::Timestamp;

use super::{Context, split_fork};
use crate::{
    args::ForkCommand,
    consent::Consent,
    failure::Failure,
    output::{Table, duration_text},
    terminal::{Palette, Style},
};

/// The fork that a bare database name means.
const MAIN: &str = "main";

/// Runs a verb of `tine fork`.
///
/// # Errors
/// The client's.
pub fn run(context: &Context, command: &ForkCommand) -> Result<(), Failure> {
    match command {
        ForkCommand::Create { database, name, ephemeral, at, ttl, resume_schedules, disconnect_clients } => {
            let options = ForkOptions {
                ephemeral: *ephemeral,
                at: at.clone(),
                ttl: *ttl,
                resume_schedules: *resume_schedules,
                disconnect_clients: *disconnect_clients,
            };
            create(context, database, name, &options)
        }
        ForkCommand::Tree { database } => tree(context, database),
        ForkCommand::Reset { fork, from, at } => reset(context, fork, from.as_deref(), at.as_ref()),
        ForkCommand::Resume { fork } => {
            let (database, name) = named(fork)?;
            let resumed = context.http.resume_fork(database, name)?;
            if context.output.is_json() {
                return context.output.json(&as_json(&resumed));
            }
            context.output.line(&format!("the schedules of {database}@{name} run"))
        }
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
    let origin = |parent: &ForkOrigin| json!({ "fork": parent.fork, "lsn": parent.lsn });
    let mut value = json!({
        "name": fork.name, "id": fork.id, "identity": fork.identity, "parent": fork.parent.as_ref().map(origin),
        "head": fork.head, "oldest": fork.oldest, "durability": fork.durability, "created_at": fork.created_at,
        "expires_at": fork.expires_at, "schedules_run": fork.schedules_run,
    });
    if !fork.lineage.is_empty() {
        value["lineage"] = fork.lineage.iter().map(origin).collect();
    }
    value
}

/// Where a fork began, as `parent@lsn`.
pub fn origin_text(fork: &Fork) -> String {
    fork.parent.as_ref().map_or_else(|| "-".to_owned(), version_text)
}

/// A version as `fork@lsn`; a fork that was deleted has only its number.
fn version_text(version: &ForkOrigin) -> String {
    match &version.fork {
        Value::String(name) => format!("{name}@{}", version.lsn),
        other => format!("#{other}@{}", version.lsn),
    }
}

fn create(context: &Context, database: &str, name: &str, options: &ForkOptions) -> Result<(), Failure> {
    let start = Instant::now();
    let fork = context.http.create_fork_with(database, name, options).map_err(|error| explain(error, database))?;
    let took_us = start.elapsed().as_micros() as u64;
    if context.output.is_json() {
        let mut value = as_json(&fork);
        value["took_us"] = json!(took_us);
        return context.output.json(&value);
    }
    let address = format!("{}@{}", split_fork(database).0, fork.name);
    let origin = origin_text(&fork);
    context.output.line(&format!(
        "created {address} ({}) from {origin} in {}{}",
        fork.durability,
        duration_text(took_us),
        fork.expires_at.map(|micros| format!(", until {}", time_text(micros))).unwrap_or_default()
    ))
}

/// Advice that fits versions.
fn explain(error: ClientError, database: &str) -> Failure {
    match error.status() {
        Some(410) => {
            let (name, fork) = split_fork(database);
            let next = format!("`tine fork show {name}@{}` tells the oldest version there is", fork.unwrap_or(MAIN));
            Failure::Client { source: error, next: Some(next) }
        }
        _ => error.into(),
    }
}

fn reset(context: &Context, fork: &str, from: Option<&str>, at: Option<&ForkPoint>) -> Result<(), Failure> {
    let (database, name) = split_fork(fork);
    let name = name.unwrap_or(MAIN);
    let question = format!("Give up the present version of `{database}@{name}` and close its connections?");
    context.confirm(Consent::Clear, &question)?;
    let reset = context.http.reset_fork(database, name, from, at).map_err(|error| explain(error, fork))?;
    if context.output.is_json() {
        return context.output.json(&as_json(&reset));
    }
    context.output.line(&format!("{database}@{name} is now {} (fork {})", origin_text(&reset), reset.id))
}

fn tree(context: &Context, database: &str) -> Result<(), Failure> {
    let database = split_fork(database).0;
    let forks = context.http.forks(database)?;
    if context.output.is_json() {
        return context.output.json_list("forks", forks.iter().map(as_json).collect());
    }
    let palette = Palette::of(&std::io::stdout());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_micros = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    context.output.line(&palette.paint(Style::Bold, database))?;
    context.output.lines(tree::draw(&forks, palette, now_micros))
}

fn list(context: &Context, database: &str) -> Result<(), Failure> {
    let forks = context.http.forks(split_fork(database).0)?;
    if context.output.is_json() {
        return context.output.json_list("forks", forks.iter().map(as_json).collect());
    }
    let mut table = Table::new(["fork", "id", "head", "from", "durability", "created", "expires"]);
    for fork in &forks {
        table.row([
            fork.name.clone(),
            fork.id.to_string(),
            fork.head.to_string(),
            origin_text(fork),
            fork.durability.clone(),
            created_text(fork),
            fork.expires_at.map_or_else(|| "-".to_owned(), time_text),
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
        format!("  from        {}", lineage_text(fork)),
        format!("  head        {}", fork.head),
        format!("  oldest      {}", fork.oldest),
        format!("  durability  {}", fork.durability),
        format!("  created     {}", created_text(fork)),
        format!("  expires     {}", fork.expires_at.map_or_else(|| "never".to_owned(), time_text)),
        format!("  schedules   {}", if fork.schedules_run { "run" } else { "paused" }),
        format!("  url         {}/v1/database/{database}@{}", context.url, fork.name),
    ])
}

fn created_text(fork: &Fork) -> String {
    match &fork.created_at {
        Value::String(text) => text.clone(),
        value => match value.as_i64() {
            Some(micros) => time_text(micros),
            None => "-".to_owned(),
        },
    }
}

fn time_text(micros: i64) -> String {
    Timestamp::from_micros(micros).to_rfc3339()
}

/// The versions that a fork goes back to, the nearest first.
fn lineage_text(fork: &Fork) -> String {
    if fork.lineage.is_empty() {
        return origin_text(fork);
    }
    fork.lineage.iter().map(version_text).collect::<Vec<_>>().join(" < ")
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
