//! The verbs, one file each.

pub mod backup;
pub mod call;
pub mod completions;
pub mod config;
pub mod delete;
pub mod describe;
pub mod dev;
pub mod doctor;
pub mod explain;
pub mod fork;
pub mod generate;
pub mod identity;
pub mod idl;
pub mod init;
pub mod list;
pub mod logging;
pub mod logs;
pub mod publish;
pub mod redo;
pub mod serve;
pub mod sql;
pub mod store;
pub mod subscribe;
pub mod systemd;
pub mod version;
pub mod world_state;

use tine_client::http::HttpClient;

use crate::{
    args::GlobalArgs,
    consent::{self, Consent},
    credentials,
    failure::Failure,
    output::Output,
    settings::Settings,
};

/// What the verbs that talk to a server share.
pub struct Context<'a> {
    /// Where results go.
    pub output: &'a Output,
    /// The server, with the caller's tokens.
    pub http: HttpClient,
    /// The server's address.
    pub url: String,
    /// The caller's identity token.
    pub token: String,
    /// Where everything is.
    pub settings: Settings,
    consents: Vec<Consent>,
}

impl<'a> Context<'a> {
    /// Settles the server and who the caller is. The first use of a server makes an identity there.
    ///
    /// # Errors
    /// Wrong settings, and the server's errors when an identity has to be made.
    pub fn new(args: &GlobalArgs, output: &'a Output) -> Result<Context<'a>, Failure> {
        let settings = Settings::load(args)?;
        let http = HttpClient::new(&settings.server().value)?;
        let token = credentials::token(&settings, &http, args.new_identity)?;
        let admin = credentials::admin_token(&settings, &http);
        let http = http.with_token(token.as_str());
        let http = match admin {
            Some(admin) => http.with_admin_token(admin),
            None => http,
        };
        Ok(Context { output, url: http.url(), http, token, settings, consents: args.yes.clone() })
    }

    /// Goes on if the caller agreed to `needed` beforehand, or does so now.
    ///
    /// # Errors
    /// [`Failure::Declined`].
    pub fn confirm(&self, needed: Consent, question: &str) -> Result<(), Failure> {
        consent::confirm(&self.consents, needed, question)
    }
}

/// Splits `name@fork`.
pub fn split_fork(address: &str) -> (&str, Option<&str>) {
    match address.split_once('@') {
        Some((database, fork)) => (database, Some(fork)),
        None => (address, None),
    }
}
