//! `tine delete`

use serde_json::json;
use tine_client::ClientError;

use super::{Context, split_fork};
use crate::{args::DeleteArgs, consent::Consent, failure::Failure};

/// Deletes a database, or the one fork that was named.
///
/// # Errors
/// The client's; with forks left the server refuses without `--forks`.
pub fn run(context: &Context, args: &DeleteArgs) -> Result<(), Failure> {
    let (database, fork) = split_fork(&args.database);
    if let Some(fork) = fork {
        return super::fork::delete(context, database, fork);
    }
    let forks = if args.forks { " and all of its forks" } else { "" };
    context.confirm(Consent::Delete, &format!("Delete database `{database}`{forks}, with all data?"))?;
    context.http.delete(database, args.forks).map_err(|error| explain(error, database))?;
    if context.output.is_json() {
        return context.output.json(&json!({ "deleted": database, "forks": args.forks }));
    }
    context.output.line(&format!("deleted {database}"))
}

fn explain(error: ClientError, database: &str) -> Failure {
    match error.status() {
        Some(409) => Failure::Client {
            source: error,
            next: Some(format!("`tine fork list {database}` shows them; `--forks` deletes them too")),
        },
        _ => error.into(),
    }
}
