//! `tine identity`

use std::io::Read;

use clap::{Args, Subcommand};
use serde_json::json;
use tine_client::http::HttpClient;

use crate::{
    args::GlobalArgs,
    credentials::{self, SavedIdentity},
    failure::Failure,
    output::Output,
    settings::{Origin, Settings},
};

/// Longest token that is read from standard input, in bytes; servers take less.
const TOKEN_BYTES_MAX: u64 = 16 * 1024;

/// `tine identity`
#[derive(Debug, Args)]
pub struct IdentityArgs {
    /// What to do with the identity.
    #[command(subcommand)]
    pub command: IdentityCommand,
}

/// Verbs of `tine identity`.
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Show who you are at a server
    #[command(after_help = "Examples:\n  tine identity show\n  tine identity show --with-token --json")]
    Show {
        /// Show the token too; who has it is you
        #[arg(long)]
        with_token: bool,
    },
    /// Get a new identity from the server and save it in place of the old one
    #[command(after_help = "Examples:\n  tine identity new\n  tine identity new --server http://127.0.0.1:3000")]
    New,
    /// Save a token that you have, after asking the server whether it is valid
    #[command(after_help = "\
Examples:
  tine identity login eyJ0eXAi...
  tine identity login - < token.txt")]
    Login {
        /// The token, or `-` to read it from standard input
        #[arg(value_name = "TOKEN")]
        text: String,
    },
}

/// Runs a verb of `tine identity`.
///
/// # Errors
/// The client's, and those of the file with the saved tokens.
pub fn run(args: &IdentityArgs, global: &GlobalArgs, output: &Output) -> Result<(), Failure> {
    let settings = Settings::load(global)?;
    let http = HttpClient::new(&settings.server().value)?;
    match &args.command {
        IdentityCommand::Show { with_token } => show(&settings, &http, *with_token, output),
        IdentityCommand::New => {
            let made = http.create_identity()?;
            keep(&settings, &http, SavedIdentity { identity: made.identity, token: made.token }, output)
        }
        IdentityCommand::Login { text } => {
            let token = if text == "-" { read_token()? } else { text.trim().to_owned() };
            let identity = credentials::token_identity(&token).ok_or_else(|| not_a_token("it names no identity"))?;
            http.clone().with_token(token.as_str()).verify_identity(&identity)?;
            keep(&settings, &http, SavedIdentity { identity, token }, output)
        }
    }
}

fn show(settings: &Settings, http: &HttpClient, with_token: bool, output: &Output) -> Result<(), Failure> {
    let saved = || Ok::<_, Failure>(credentials::saved(settings, http)?.map(|saved| (saved, None)));
    let found = match &settings.token {
        Some(given) => {
            let identity = credentials::token_identity(&given.value);
            let identity = identity.ok_or_else(|| not_a_token("the given token names no identity"))?;
            Some((SavedIdentity { identity, token: given.value.clone() }, Some(given.origin.clone())))
        }
        None => saved()?,
    };
    let Some((found, origin)) = found else {
        return Err(Failure::NotFound {
            message: format!("no identity is saved for {}", http.url()),
            next: Some("the first use of the server makes one; `tine identity new` does at once".to_owned()),
        });
    };
    let origin =
        origin.map_or_else(|| settings.credentials.value.display().to_string(), |origin: Origin| origin.to_string());
    let token = with_token.then_some(found.token.as_str());
    if output.is_json() {
        let value = json!({ "identity": found.identity, "server": http.url(), "origin": origin, "token": token });
        return output.json(&value);
    }
    let lines = [found.identity.clone(), format!("  at    {}", http.url()), format!("  from  {origin}")];
    output.lines(lines.into_iter().chain(token.map(|token| format!("  token {token}"))))
}

/// Saves an identity and says so.
fn keep(settings: &Settings, http: &HttpClient, identity: SavedIdentity, output: &Output) -> Result<(), Failure> {
    let shown = identity.identity.clone();
    credentials::save(settings, http, identity)?;
    if output.is_json() {
        return output.json(&json!({ "identity": shown, "server": http.url() }));
    }
    output.line(&format!("you are {shown} at {}", http.url()))
}

fn read_token() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|source| Failure::File { path: "standard input".into(), source })?;
    Ok(text.trim().to_owned())
}

fn not_a_token(reason: &str) -> Failure {
    Failure::Usage {
        message: format!("this is not a token: {reason}"),
        next: Some("a token has three parts joined by dots; `tine identity show --with-token` prints one".to_owned()),
    }
}
