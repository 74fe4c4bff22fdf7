//! `tine publish`

use std::time::Instant;

use serde_json::json;
use tine_client::{
    ClientError,
    http::{CONTENT_TYPE_SOURCE, PublishOptions},
};
use tine_module::SourceBundle;

use super::Context;
use crate::{args::PublishArgs, failure::Failure, output::duration_text};

/// Collects the module's files and publishes them.
///
/// # Errors
/// Files that cannot be collected, a module that the server refuses, and the client's errors.
pub fn run(context: &Context, args: &PublishArgs) -> Result<(), Failure> {
    let start = Instant::now();
    if !args.path.exists() {
        let message = format!("there is no file or folder `{}`", args.path.display());
        let next = Some("name a .ts or .js file, or a folder with index.ts or src/index.ts in it".to_owned());
        return Err(Failure::NotFound { message, next });
    }
    let bundle = SourceBundle::collect(&args.path).map_err(|source| Failure::Collect { source })?;
    let (files, bytes) = (bundle.files.len(), bundle.files.values().map(String::len).sum::<usize>());
    let published = context
        .http
        .publish(Some(&args.database), CONTENT_TYPE_SOURCE, bundle.encode(), PublishOptions::default())
        .map_err(|error| explain(error, &args.database))?;
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
