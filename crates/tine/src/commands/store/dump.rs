//! `tine store dump`

use std::{ops::Bound, path::PathBuf, sync::Arc};

use clap::Args;
use serde_json::{Value, json};
use tine_base::SystemEnv;
use tine_store::{Direction, KeyspaceId, LogRecord, LogRecordKind, OpenError, Operation, Read, Store};

use super::{hexadecimal, is_store, not_a_store, view};
use crate::{failure::Failure, output::Output};

/// The fork that every store begins with.
const MAIN: &str = "main";

#[derive(Debug, Args)]
pub struct DumpArgs {
    /// The folder of a store: DATA/control, or one in DATA/databases
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print the rows of this keyspace instead of the log
    #[arg(long, value_name = "NUMBER")]
    keyspace: Option<u32>,
    /// Of this fork
    #[arg(long, value_name = "NAME", default_value = MAIN, requires = "keyspace")]
    fork: String,
    /// Begin with this record
    #[arg(long, value_name = "NUMBER", default_value_t = 0, conflicts_with = "keyspace")]
    from: u64,
    /// End after so many records or rows
    #[arg(long, value_name = "COUNT", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
}

/// Prints records or rows.
///
/// # Errors
/// A store that cannot be read, or has no such fork.
pub fn run(args: &DumpArgs, output: &Output) -> Result<(), Failure> {
    if !is_store(&args.directory) {
        return Err(not_a_store(&args.directory));
    }
    match args.keyspace {
        Some(keyspace) => rows(args, KeyspaceId::new(keyspace), output),
        None => records(args, output),
    }
}

fn rows(args: &DumpArgs, keyspace: KeyspaceId, output: &Output) -> Result<(), Failure> {
    let view = view(&args.directory)?;
    let fork = view.forks().find(|fork| fork.name == args.fork).ok_or_else(|| Failure::NotFound {
        message: format!("the store has no fork `{}`", args.fork),
        next: Some("`tine store stat DIR` lists them".to_owned()),
    })?;
    let snapshot = view.snapshot(fork.id).expect("every fork has a head");
    let mut cursor = snapshot.range(keyspace, Bound::Unbounded, Bound::Unbounded, Direction::Forward);
    for _ in 0..args.limit {
        let next = cursor.next().map_err(|fault| OpenError::Write(fault.into()))?;
        let Some((key, value)) = next else { break };
        if output.is_json() {
            output.json(&json!({ "key": hexadecimal(key), "value": hexadecimal(value) }))?;
        } else {
            output.line(&format!("{} = {}", key.escape_ascii(), value.escape_ascii()))?;
        }
    }
    Ok(())
}

fn records(args: &DumpArgs, output: &Output) -> Result<(), Failure> {
    let mut left = args.limit;
    for record in Store::read_log(&args.directory, Arc::new(SystemEnv))? {
        let record = record?;
        if record.sequence < args.from {
            continue;
        }
        if left == 0 {
            break;
        }
        left -= 1;
        if output.is_json() { output.json(&as_json(&record))? } else { output.lines(as_text(&record))? }
    }
    Ok(())
}

fn as_text(record: &LogRecord) -> Vec<String> {
    let LogRecord { sequence, segment, offset, kind } = record;
    let mut operations: &[Operation] = &[];
    let what = match kind {
        LogRecordKind::Commit { version, timestamp_micros, operations: all, call } => {
            operations = all;
            format!("commit {version} at {timestamp_micros}, {} bytes of call", call.len())
        }
        LogRecordKind::ForkCreated { fork, name, parent, .. } => {
            let parent = parent.map_or_else(|| "nothing".to_owned(), |parent| parent.to_string());
            format!("fork {fork} `{}` made from {parent}", name.escape_debug())
        }
        LogRecordKind::ForkReplaced { fork, replaced } => format!("fork {fork} replaced {replaced}"),
        LogRecordKind::ForkDropped { fork } => format!("fork {fork} dropped"),
        LogRecordKind::ForkRenamed { fork, name } => format!("fork {fork} named `{}`", name.escape_debug()),
        LogRecordKind::KeyspacesAllocated { first, count } => format!("{count} keyspaces from {first} on"),
        LogRecordKind::ForkIdsReserved { end } => format!("fork numbers below {end} reserved"),
        LogRecordKind::Call { fork, call } => format!("call on {fork} without a commit, {} bytes", call.len()),
        LogRecordKind::VersionNamed { version, name } => format!("version {version} named `{}`", name.escape_debug()),
        LogRecordKind::VersionNameForgotten { name } => format!("name `{}` of a version given up", name.escape_debug()),
    };
    let operation = |operation: &Operation| {
        let key = operation.key.escape_ascii();
        match &operation.value {
            Some(value) => format!("    {} put {key} = {}", operation.keyspace, value.escape_ascii()),
            None => format!("    {} delete {key}", operation.keyspace),
        }
    };
    std::iter::once(format!("{sequence} {segment}:{offset} {what}")).chain(operations.iter().map(operation)).collect()
}

fn as_json(record: &LogRecord) -> Value {
    let version = |version: &tine_store::Version| json!({ "fork": version.fork.get(), "lsn": version.lsn.get() });
    let operation = |operation: &Operation| {
        json!({
            "keyspace": operation.keyspace.get(),
            "key": hexadecimal(&operation.key),
            "value": operation.value.as_ref().map(|value| hexadecimal(value)),
        })
    };
    let what = match &record.kind {
        LogRecordKind::Commit { version: at, timestamp_micros, operations, call } => json!({ "commit": {
            "version": version(at),
            "timestamp_micros": timestamp_micros,
            "operations": operations.iter().map(operation).collect::<Vec<_>>(),
            "call": hexadecimal(call),
        } }),
        LogRecordKind::ForkCreated { fork, name, parent, created_at_micros, expires_at_micros } => {
            json!({ "fork_created": {
                "fork": fork.get(),
                "name": name,
                "parent": parent.as_ref().map(version),
                "created_at_micros": created_at_micros,
                "expires_at_micros": expires_at_micros,
            } })
        }
        LogRecordKind::ForkReplaced { fork, replaced } => {
            json!({ "fork_replaced": { "fork": fork.get(), "replaced": replaced.get() } })
        }
        LogRecordKind::ForkDropped { fork } => json!({ "fork_dropped": { "fork": fork.get() } }),
        LogRecordKind::ForkRenamed { fork, name } => {
            json!({ "fork_renamed": { "fork": fork.get(), "name": name } })
        }
        LogRecordKind::KeyspacesAllocated { first, count } => {
            json!({ "keyspaces_allocated": { "first": first.get(), "count": count } })
        }
        LogRecordKind::ForkIdsReserved { end } => json!({ "fork_ids_reserved": { "end": end.get() } }),
        LogRecordKind::Call { fork, call } => {
            json!({ "call": { "fork": fork.get(), "call": hexadecimal(call) } })
        }
        LogRecordKind::VersionNamed { version: at, name } => {
            json!({ "version_named": { "version": version(at), "name": name } })
        }
        LogRecordKind::VersionNameForgotten { name } => json!({ "version_name_forgotten": { "name": name } }),
    };
    json!({ "record": record.sequence, "segment": record.segment, "offset": record.offset, "what": what })
}
