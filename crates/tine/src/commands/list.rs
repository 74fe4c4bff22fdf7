//! `tine list`

use serde_json::json;

use super::{Context, fork};
use crate::{failure::Failure, output::Table};

/// Prints the caller's databases, each with its forks.
///
/// # Errors
/// The client's.
pub fn run(context: &Context) -> Result<(), Failure> {
    let databases = context.http.databases()?;
    if context.output.is_json() {
        let list: Vec<_> = databases
            .iter()
            .map(|database| {
                let forks: Vec<_> = database.forks.iter().map(fork::as_json).collect();
                json!({ "name": database.name, "identity": database.identity, "owner": database.owner, "forks": forks })
            })
            .collect();
        return context.output.json_list("databases", list);
    }
    if databases.is_empty() {
        return context.output.line("no databases; `tine publish NAME PATH` makes one");
    }
    let mut table = Table::new(["database", "fork", "head", "from", "durability", "identity"]);
    for database in &databases {
        let name = database.name.as_deref().unwrap_or("(unnamed)");
        if database.forks.is_empty() {
            table.row([name, "", "", "", "", &database.identity]);
        }
        for (position, fork) in database.forks.iter().enumerate() {
            let shown = if position == 0 { name } else { "" };
            let identity = if position == 0 { database.identity.clone() } else { fork.identity.clone() };
            table.row([
                shown.to_owned(),
                fork.name.clone(),
                fork.head.to_string(),
                fork::origin_text(fork),
                fork.durability.clone(),
                short(&identity),
            ]);
        }
    }
    context.output.table(&table)
}

/// Enough of an identity to tell two apart; `--json` has all of it.
pub fn short(identity: &str) -> String {
    match identity.get(..16) {
        Some(start) if identity.len() > 16 => format!("{start}…"),
        _ => identity.to_owned(),
    }
}
