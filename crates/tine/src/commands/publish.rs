//! `tine publish`

use std::{
    io::{self, Write},
    time::Instant,
};

use serde_json::json;
use tine_client::{
    ClientError,
    http::{CONTENT_TYPE_SOURCE, PublishOptions, PublishPlan, Published},
};
use tine_module::SourceBundle;

use super::Context;
use crate::{
    args::PublishArgs,
    consent::Consent,
    failure::Failure,
    output::{duration_text, printable},
    terminal::Palette,
};

/// Code of the refusal of a module that the data does not fit.
const INCOMPATIBLE: &str = "TN0352";
/// Code of the refusal of a module that connected clients could not cope with.
const BREAKS_CLIENTS: &str = "TN0617";

/// Collects the module's files and publishes them, or tells what that would change.
///
/// # Errors
/// Files that cannot be collected, a module that the server refuses, one that loses or breaks something that the caller does not agree
/// to, and the client's errors.
pub fn run(context: &Context, args: &PublishArgs) -> Result<(), Failure> {
    let start = Instant::now();
    if !args.path.exists() {
        let message = format!("there is no file or folder `{}`", args.path.display());
        let next = Some("name a .ts or .js file, or a folder with index.ts or src/index.ts in it".to_owned());
        return Err(Failure::NotFound { message, next });
    }
    let bundle = SourceBundle::collect(&args.path).map_err(|source| Failure::Collect { source })?;
    let (files, bytes) = (bundle.files.len(), bundle.files.values().map(String::len).sum::<usize>());
    if args.dry_run {
        return dry_run(context, &args.database, &bundle);
    }
    if args.clear {
        let question = format!("Publish to `{}` and give up all of its data?", args.database);
        context.confirm(Consent::Clear, &question)?;
    }
    let published = publish(context, args, &bundle)?;
    let took_us = start.elapsed().as_micros() as u64;
    let operation = if published.created { "created" } else { "updated" };
    let url = format!("{}/v1/database/{}", context.url, args.database);
    if context.output.is_json() {
        return context.output.json(&json!({
            "operation": operation, "database": args.database, "identity": published.database_identity,
            "url": url, "files": files, "bytes": bytes, "took_us": took_us,
        }));
    }
    context.output.lines([
        format!(
            "{operation} {} from {files} file{} ({bytes} bytes) in {}",
            args.database,
            plural(files),
            duration_text(took_us)
        ),
        format!("  identity  {}", published.database_identity),
        format!("  url       {url}"),
    ])
}

fn publish(context: &Context, args: &PublishArgs, bundle: &SourceBundle) -> Result<Published, Failure> {
    let send = |break_clients: Option<String>| {
        let options =
            PublishOptions { clear: args.clear, break_clients, isolation: args.isolation.map(|mode| mode.to_string()) };
        context.http.publish(Some(&args.database), CONTENT_TYPE_SOURCE, bundle.encode(), options)
    };
    let error = match send(None) {
        Ok(published) => return Ok(published),
        Err(error) => error,
    };
    let code = error.shown_code().to_owned();
    if code != INCOMPATIBLE && code != BREAKS_CLIENTS {
        return Err(explain(error, &args.database));
    }
    let plan = plan(context, &args.database, bundle, Palette::of(&io::stderr()).is_colored())?;
    match plan {
        PublishPlan::Update { text, token, .. } => {
            show_on_stderr(context, &text);
            context.confirm(Consent::BreakClients, "Disconnect the clients of the present module?")?;
            send(Some(token)).map_err(|error| explain(error, &args.database))
        }
        PublishPlan::Incompatible { text, .. } => {
            show_on_stderr(context, &text);
            Err(Failure::Client { source: error, next: Some(give_up_data(&args.database)) })
        }
    }
}

/// The reasons of a refusal are for a person; with `--json` they are in the error's message.
fn show_on_stderr(context: &Context, plan: &str) {
    if !context.output.is_json() {
        // Without standard error nobody is there to read it.
        let _ = io::stderr().write_all(printable_plan(plan).as_bytes());
    }
}

/// A plan with nothing that moves the cursor: names in it come from the module. Its own colours stay.
fn printable_plan(plan: &str) -> String {
    plan.split_inclusive('\n')
        .map(|line| match line.strip_prefix("  \u{1b}[").and_then(|rest| rest.split_once('m')) {
            Some((color, rest)) if rest.ends_with("\u{1b}[0m\n") => {
                let text = printable(rest.trim_end_matches("\u{1b}[0m\n"));
                format!("  \u{1b}[{color}m{text}\u{1b}[0m\n")
            }
            _ => printable(line),
        })
        .collect()
}

fn plan(context: &Context, database: &str, bundle: &SourceBundle, colored: bool) -> Result<PublishPlan, Failure> {
    let plan = context.http.pre_publish(database, CONTENT_TYPE_SOURCE, bundle.encode(), colored);
    plan.map_err(|error| explain(error, database))
}

fn give_up_data(database: &str) -> String {
    format!("correct the module, or give up the data with `tine publish {database} --clear`")
}

fn dry_run(context: &Context, database: &str, bundle: &SourceBundle) -> Result<(), Failure> {
    let colored = !context.output.is_json() && Palette::of(&io::stdout()).is_colored();
    let program = bundle.encode();
    let plan = match context.http.pre_publish(database, CONTENT_TYPE_SOURCE, program, colored) {
        Err(error) if error.status() == Some(404) && !database.contains('@') => {
            return new_database(context, database, bundle);
        }
        plan => plan.map_err(|error| explain(error, database))?,
    };
    match plan {
        PublishPlan::Update { text, breaks_clients, token, steps } => {
            if context.output.is_json() {
                return context.output.json(&json!({
                    "operation": "update", "database": database, "compatible": true, "break_clients": breaks_clients,
                    "token": token, "steps": steps,
                }));
            }
            context.output.lines(printable_plan(&text).lines())
        }
        PublishPlan::Incompatible { text, changes } => {
            if context.output.is_json() {
                context.output.json(&json!({
                    "operation": "update", "database": database, "compatible": false, "changes": changes,
                }))?;
            } else {
                context.output.lines(printable_plan(&text).lines())?;
            }
            let message = format!("the data of `{database}` does not fit the module");
            Err(Failure::Module { code: INCOMPATIBLE, message, next: Some(give_up_data(database)) })
        }
    }
}

/// There is no server side to ask about a database that is not there, so the module is only compiled.
fn new_database(context: &Context, database: &str, bundle: &SourceBundle) -> Result<(), Failure> {
    let compiled = tine_module::compile(bundle, &tine_module::Limits::default()).map_err(|source| Failure::Module {
        code: source.code(),
        message: source.to_string(),
        next: None,
    })?;
    if context.output.is_json() {
        return context.output.json(&json!({ "operation": "create", "database": database, "compatible": true }));
    }
    let (tables, reducers) = (compiled.def().tables.len(), compiled.def().reducers.len());
    context.output.line(&format!("{database} would be created, with {tables} tables and {reducers} reducers"))
}

/// Advice that fits publishing.
fn explain(error: ClientError, database: &str) -> Failure {
    let next = match error.status() {
        Some(401 | 403) => Some(format!(
            "`{database}` may belong to another identity; a new database needs the local server's --data-dir, or `tine serve --open-publish`"
        )),
        Some(400 | 500 | 530) => Some("correct the module and publish again; nothing was changed".to_owned()),
        Some(404) => Some(format!(
            "a fork must exist before it is published to: `tine fork create {}`",
            database.replacen('@', " ", 1)
        )),
        _ => return error.into(),
    };
    Failure::Client { source: error, next }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
