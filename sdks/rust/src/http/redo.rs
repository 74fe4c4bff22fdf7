//! History over HTTP, and running it again.

use serde::Deserialize;
use serde_json::Value;
use ureq::http::Method;

use super::{ForkPoint, HttpClient, JsonLines, SqlResult, database_path, encode_segment};
use crate::ClientError;

/// Which part of a history to list.
#[derive(Clone, Debug, Default)]
pub struct HistoryOptions {
    /// The first commit; the oldest that is known without.
    pub from: Option<u64>,
    /// The last; the newest without.
    pub to: Option<u64>,
    /// How many entries, the newest ones.
    pub limit: u32,
    /// Whether calls that committed nothing are listed, too.
    pub uncommitted: bool,
}

/// What to verify or replay.
#[derive(Clone, Debug, Default)]
pub struct RedoOptions {
    /// The first commit; the oldest that can be run again without.
    pub from: Option<u64>,
    /// The last; the newest without.
    pub to: Option<u64>,
    /// Whether to end at the first call that does something else than recorded.
    pub stop_at_first_difference: bool,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct RedoProgress {
    /// Calls and other commits that were gone through.
    pub events: u64,
    /// Calls that were run again.
    pub calls: u64,
    /// The last recorded LSN that was gone through.
    pub lsn: u64,
    /// The first one of the run.
    pub from: u64,
    /// The last one of the run.
    pub to: u64,
}

/// One line of a run's answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedoLine {
    /// It goes on.
    Progress(RedoProgress),
    /// It is done: the report, as the server made it.
    Report(Value),
    /// It failed after it had begun.
    Error {
        /// The stable code.
        code: String,
        /// What happened.
        message: String,
    },
}

impl HttpClient {
    /// What happened on a fork, oldest first, as the server describes it.
    ///
    /// # Errors
    /// 403 when the database is somebody else's, 404 when there is none, 400 for an ephemeral fork.
    pub fn history(&self, database: &str, options: &HistoryOptions) -> Result<Vec<Value>, ClientError> {
        let mut query = format!("?limit={}&uncommitted={}", options.limit, options.uncommitted);
        push_range(&mut query, options.from, options.to);
        let path = database_path(database, &format!("/history{query}"));
        let mut reply: Value = self.send(Method::GET, &path, None)?.success()?.json()?;
        match reply["entries"].take() {
            Value::Array(entries) => Ok(entries),
            _ => Err(ClientError::BadReply { route: "GET history".to_owned(), reason: "no entries".to_owned() }),
        }
    }

    /// Runs recorded calls again and compares. Dropping the lines stops the run.
    ///
    /// # Errors
    /// As for [`HttpClient::history`]; 410 when the range is not retained any more.
    pub fn verify(&self, database: &str, options: &RedoOptions) -> Result<JsonLines<RedoLine>, ClientError> {
        let path = database_path(database, &format!("/verify{}", redo_query(options)));
        self.lines(&Method::POST, &path, None)
    }

    /// Runs recorded calls again on a new fork `fork`, with `program` (the bytes of a source bundle) instead of the recorded code if
    /// there is one; or goes on with such a run. Dropping the lines stops it.
    ///
    /// # Errors
    /// As for [`HttpClient::verify`]; 409 when the name is taken or there is nothing to resume; 400 when the program does not fit.
    pub fn replay(
        &self,
        database: &str,
        fork: &str,
        options: &RedoOptions,
        program: Option<Vec<u8>>,
        resume: bool,
    ) -> Result<JsonLines<RedoLine>, ClientError> {
        let query = format!("{}&resume={resume}&name={}", redo_query(options), encode_segment(fork));
        let path = database_path(database, &format!("/replay{query}"));
        self.lines(&Method::POST, &path, program.map(|program| (super::CONTENT_TYPE_SOURCE, program)))
    }

    /// The rows that a call of a reducer would change: `{"lsn", "rows": {table: {"inserted", "deleted"}}}`.
    ///
    /// # Errors
    /// As for [`HttpClient::call`]; 403 when the database is somebody else's.
    pub fn dry_run(&self, database: &str, function: &str, arguments: &Value) -> Result<Value, ClientError> {
        let path = database_path(database, &format!("/call/{}?dry_run=true", encode_segment(function)));
        let body = arguments.to_string().into_bytes();
        self.send(Method::POST, &path, Some(("application/json", body)))?.success()?.json()
    }

    /// Runs a SELECT on an older version.
    ///
    /// # Errors
    /// As for [`HttpClient::sql`]; 410 when the version is not retained any more.
    pub fn sql_as_of(&self, database: &str, statement: &str, at: &ForkPoint) -> Result<Vec<SqlResult>, ClientError> {
        let at = match at {
            ForkPoint::Lsn(lsn) => lsn.to_string(),
            ForkPoint::Time(time) => encode_segment(time),
        };
        let body = statement.as_bytes().to_vec();
        let path = database_path(database, &format!("/sql?at={at}"));
        self.send(Method::POST, &path, Some(("text/plain", body)))?.success()?.sql()
    }
}

fn push_range(query: &mut String, from: Option<u64>, to: Option<u64>) {
    for (name, lsn) in [("from", from), ("to", to)] {
        if let Some(lsn) = lsn {
            query.push_str(&format!("&{name}={lsn}"));
        }
    }
}

fn redo_query(options: &RedoOptions) -> String {
    let mut query = format!("?stop_at_first_difference={}", options.stop_at_first_difference);
    push_range(&mut query, options.from, options.to);
    query
}
