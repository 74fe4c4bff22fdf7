//! `tine config`

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    args::GlobalArgs,
    failure::Failure,
    output::{Output, Table},
    settings::{Origin, Settings},
};

/// `tine config`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do with the settings.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// Verbs of `tine config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show every setting and where it comes from
    #[command(after_help = "Examples:\n  tine config show\n  TINE_SERVER=http://10.0.0.5:3000 tine config show --json")]
    Show,
}

/// Prints the settings. A token is never shown, only whether there is one.
///
/// # Errors
/// Settings files that cannot be read.
pub fn run(args: &ConfigArgs, global: &GlobalArgs, output: &Output) -> Result<(), Failure> {
    let ConfigCommand::Show = args.command;
    let settings = Settings::load(global)?;
    let rows = rows(&settings);
    if output.is_json() {
        let row = |(name, value, origin): &(&str, Option<String>, Option<Origin>)| json!({ "name": name, "value": value, "origin": origin.as_ref().map(ToString::to_string) });
        return output.json_list("settings", rows.iter().map(row).collect());
    }
    let mut table = Table::new(["setting", "value", "from"]);
    for (name, value, origin) in rows {
        let origin = origin.map(|origin| origin.to_string()).unwrap_or_default();
        table.row([name.to_owned(), value.unwrap_or_else(|| "-".to_owned()), origin]);
    }
    output.table(&table)
}

/// Name, value and origin of every setting.
fn rows(settings: &Settings) -> Vec<(&'static str, Option<String>, Option<Origin>)> {
    let listen_variable = std::env::var("TINE_LISTEN").ok();
    let (server, listen) = (settings.server(), settings.listen(listen_variable.as_deref()));
    let images = settings.images(std::env::var("TINE_IMAGES").ok().as_deref());
    let data_dir = settings.data_dir.display().to_string();
    let credentials = &settings.credentials;
    let token = settings.token.as_ref();
    let database = settings.database.as_ref();
    vec![
        ("server", Some(server.value), Some(server.origin)),
        ("database", database.map(|set| set.value.clone()), database.map(|set| set.origin.clone())),
        ("data_dir", Some(data_dir), Some(settings.data_dir_origin.clone())),
        ("listen", Some(listen.value), Some(listen.origin)),
        ("images", images.as_ref().map(|set| set.value.clone()), images.map(|set| set.origin)),
        ("credentials", Some(credentials.value.display().to_string()), Some(credentials.origin.clone())),
        ("token", token.map(|_| "(given)".to_owned()), token.map(|set| set.origin.clone())),
    ]
}
