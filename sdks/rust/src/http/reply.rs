//! Replies of the HTTP routes, as types.

use serde::Deserialize;
use serde_json::Value;

use crate::error::ClientError;

/// Header in which Tine puts the stable code of an error.
pub const ERROR_CODE_HEADER: &str = "tine-error";

/// A new anonymous identity.
#[derive(Clone, Debug, Deserialize)]
pub struct IdentityToken {
    /// 64 hexadecimal digits.
    pub identity: String,
    /// The token that proves it.
    pub token: String,
}

/// What publishing did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Identity of the database, 64 hexadecimal digits.
    pub database_identity: String,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// Whether the database is new; otherwise it was updated.
    pub created: bool,
}

/// What publishing a program would do.
#[derive(Clone, Debug)]
pub enum PublishPlan {
    /// The data is kept.
    Update {
        /// The plan in words.
        text: String,
        /// Whether connected clients are disconnected.
        breaks_clients: bool,
        /// What agrees to that; see [`super::PublishOptions::break_clients`].
        token: String,
        /// The changes as the server lists them: objects with `text` and `break_clients`.
        steps: Value,
    },
    /// The data does not fit.
    Incompatible {
        /// Why, in words.
        text: String,
        /// The reasons as the server lists them: objects with `text` and `advice`.
        changes: Value,
    },
}

/// What a call over HTTP brought back.
#[derive(Clone, Debug)]
pub struct Called {
    /// A procedure's return value; none for a reducer.
    pub value: Option<Value>,
    /// How long the server worked on it, in microseconds, where it says so.
    pub duration_us: Option<u64>,
}

/// Rows of one statement.
#[derive(Clone, Debug)]
pub struct SqlResult {
    /// Column names in order; `None` where an expression has no name.
    pub columns: Vec<Option<String>>,
    /// The columns' types, as SATS-JSON.
    pub column_types: Vec<Value>,
    /// Rows of values in column order, as SATS-JSON.
    pub rows: Vec<Vec<Value>>,
    /// How long the statement took, in microseconds.
    pub duration_us: u64,
    /// Rows the statement inserted, deleted and updated.
    pub changed: ChangedRows,
}

/// Row counts of a statement that writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ChangedRows {
    /// Rows inserted.
    #[serde(default, rename = "rows_inserted")]
    pub inserted: u64,
    /// Rows deleted.
    #[serde(default, rename = "rows_deleted")]
    pub deleted: u64,
    /// Rows updated.
    #[serde(default, rename = "rows_updated")]
    pub updated: u64,
}

/// One line of a module's log.
#[derive(Clone, Debug, Deserialize)]
pub struct LogRecord {
    /// `Error`, `Warn`, `Info`, `Debug`, `Trace` or `Panic`.
    pub level: String,
    /// Microseconds since the Unix epoch; 0 for a note of the server itself, such as one about lost records.
    #[serde(default)]
    pub ts: i64,
    /// The text.
    pub message: String,
    /// Function that logged it.
    #[serde(default)]
    pub function: Option<String>,
    /// Source file.
    #[serde(default)]
    pub filename: Option<String>,
    /// Line in the source file.
    #[serde(default)]
    pub line_number: Option<u32>,
    /// Stack of a failed call, innermost first, a frame a line.
    #[serde(default)]
    pub trace: Option<String>,
}

/// A fork of a database.
#[derive(Clone, Debug, Deserialize)]
pub struct Fork {
    /// Its name, unique in the database.
    pub name: String,
    /// Its immutable id.
    pub id: u64,
    /// Its routable identity, 64 hexadecimal digits.
    pub identity: String,
    /// The version it was made from; none for `main`.
    #[serde(default)]
    pub parent: Option<ForkOrigin>,
    /// LSN of its newest commit.
    pub head: u64,
    /// `durable` or `ephemeral`.
    pub durability: String,
    /// When it was made, as the server writes it.
    #[serde(default)]
    pub created_at: Value,
    /// When it is deleted, in microseconds since the Unix epoch.
    #[serde(default)]
    pub expires_at: Option<i64>,
    /// The oldest LSN that forks can be made from.
    #[serde(default)]
    pub oldest: u64,
    /// Whether its schedules run.
    #[serde(default)]
    pub schedules_run: bool,
    /// Its parent, its parent's parent and so on; only where one fork was asked for.
    #[serde(default)]
    pub lineage: Vec<ForkOrigin>,
}

/// Where a fork began.
#[derive(Clone, Debug, Deserialize)]
pub struct ForkOrigin {
    /// Name of the parent fork, or its id where the parent is gone.
    pub fork: Value,
    /// LSN of the parent at that moment.
    pub lsn: u64,
}

/// A database and its forks.
#[derive(Clone, Debug, Deserialize)]
pub struct Database {
    /// Its name, where it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// Its identity, 64 hexadecimal digits.
    pub identity: String,
    /// Its owner's identity.
    pub owner: String,
    /// Its forks, `main` first.
    #[serde(default)]
    pub forks: Vec<Fork>,
}

/// An HTTP reply whose status was not looked at yet.
pub(crate) struct Reply {
    /// Method and path of the request.
    pub route: String,
    pub status: u16,
    pub error_code: Option<String>,
    pub duration_us: Option<u64>,
    pub body: String,
}

impl Reply {
    /// The reply, if its status is a success.
    pub fn success(self) -> Result<Reply, ClientError> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        let (server_code, message) = refusal_text(self.status, self.error_code, &self.body);
        Err(ClientError::Refused { status: self.status, server_code, message })
    }

    /// The body as JSON of a known shape.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_str(&self.body).map_err(|error| self.misunderstood(error.to_string()))
    }

    /// An error that names the route.
    pub fn misunderstood(&self, reason: impl Into<String>) -> ClientError {
        ClientError::BadReply { route: self.route.clone(), reason: reason.into() }
    }

    /// What `PUT /v1/database/:name` answers.
    pub fn published(&self) -> Result<Published, ClientError> {
        let value: Value = self.json()?;
        let success = value.get("Success").ok_or_else(|| self.misunderstood("no `Success` in it"))?;
        let identity = success.get("database_identity").and_then(hex_identity);
        Ok(Published {
            database_identity: identity.ok_or_else(|| self.misunderstood("no `database_identity` in it"))?,
            name: success.get("domain").and_then(option_string),
            created: success.get("op").and_then(Value::as_str) == Some("created"),
        })
    }

    /// What `POST /v1/database/:name/pre_publish` answers.
    pub fn plan(&self) -> Result<PublishPlan, ClientError> {
        let value: Value = self.json()?;
        let text = |plan: &Value, field: &str| plan.get(field).and_then(Value::as_str).map(str::to_owned);
        let list = |plan: &Value, field: &str| plan.get(field).cloned().unwrap_or_default();
        if let Some(plan) = value.get("ManualMigrate") {
            let reason = text(plan, "reason").ok_or_else(|| self.misunderstood("no `reason` in it"))?;
            return Ok(PublishPlan::Incompatible { text: reason, changes: list(plan, "changes") });
        }
        let plan = value.get("AutoMigrate").ok_or_else(|| self.misunderstood("no plan in it"))?;
        Ok(PublishPlan::Update {
            text: text(plan, "migrate_plan").ok_or_else(|| self.misunderstood("no `migrate_plan` in it"))?,
            breaks_clients: plan.get("break_clients").and_then(Value::as_bool).unwrap_or(false),
            token: text(plan, "token").ok_or_else(|| self.misunderstood("no `token` in it"))?,
            steps: list(plan, "steps"),
        })
    }

    /// What `POST .../sql` answers.
    pub fn sql(&self) -> Result<Vec<SqlResult>, ClientError> {
        #[derive(Deserialize)]
        struct Statement {
            schema: Value,
            rows: Vec<Vec<Value>>,
            #[serde(default)]
            total_duration_micros: u64,
            #[serde(default)]
            stats: ChangedRows,
        }
        let statements: Vec<Statement> = self.json()?;
        let results = statements.into_iter().map(|statement| {
            let elements = statement.schema.get("elements").and_then(Value::as_array);
            let elements = elements.ok_or_else(|| self.misunderstood("no `schema.elements` in it"))?;
            Ok(SqlResult {
                columns: elements.iter().map(|e| e.get("name").and_then(option_string)).collect(),
                column_types: elements.iter().map(|e| e.get("algebraic_type").cloned().unwrap_or_default()).collect(),
                rows: statement.rows,
                duration_us: statement.total_duration_micros,
                changed: statement.stats,
            })
        });
        results.collect()
    }
}

/// A string that may stand bare, or as SATS-JSON `{"some": ..}`.
pub(crate) fn option_string(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) => fields.get("some").and_then(option_string),
        _ => None,
    }
}

/// An identity that may stand bare, or as SATS-JSON `{"__identity__": "0x.."}`.
fn hex_identity(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim_start_matches("0x").to_owned()),
        Value::Object(fields) => fields.get("__identity__").and_then(hex_identity),
        _ => None,
    }
}

/// The code and the words of an error reply. The code may stand in the header, in a JSON body
/// (`{"code", "message"}`, also inside `"error"`), or in front of a text body (`TN0701: ...`).
pub(crate) fn refusal_text(status: u16, header_code: Option<String>, body: &str) -> (Option<String>, String) {
    let parsed: Option<Value> = serde_json::from_str(body).ok().filter(Value::is_object);
    let object = parsed.as_ref().map(|value| value.get("error").filter(|e| e.is_object()).unwrap_or(value));
    let field = |name: &str| object.and_then(|o| o.get(name)).and_then(Value::as_str).map(str::to_owned);
    let mut code = header_code.or_else(|| field("code"));
    let mut message = field("message").or_else(|| field("error")).unwrap_or_else(|| body.trim().to_owned());
    if let Some((prefix, rest)) = message.split_once(": ")
        && is_code(prefix)
    {
        code.get_or_insert_with(|| prefix.to_owned());
        message = rest.to_owned();
    }
    if message.is_empty() {
        message = format!("the server answered with status {status}");
    }
    (code, message)
}

fn is_code(text: &str) -> bool {
    text.len() == 6 && text.starts_with("TN") && text.bytes().skip(2).all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{Reply, refusal_text};

    fn reply(body: &str) -> Reply {
        Reply { route: "PUT /x".to_owned(), status: 200, error_code: None, duration_us: None, body: body.to_owned() }
    }

    #[test]
    fn refusals() {
        let table = [
            (None, "`x` not found\n", None, "`x` not found"),
            (Some("TN0601"), "gone", Some("TN0601"), "gone"),
            (None, "TN0702: too many", Some("TN0702"), "too many"),
            (Some("TN0601"), "TN0601: gone", Some("TN0601"), "gone"),
            (None, r#"{"code":"TN0501","message":"syntax"}"#, Some("TN0501"), "syntax"),
            (None, r#"{"error":{"code":"TN0501","message":"syntax"}}"#, Some("TN0501"), "syntax"),
            (None, r#"{"error":"syntax"}"#, None, "syntax"),
            (None, "", None, "the server answered with status 500"),
            (None, "note: not a code", None, "note: not a code"),
        ];
        for (header, body, code, message) in table {
            let (got_code, got_message) = refusal_text(500, header.map(str::to_owned), body);
            assert_eq!((got_code.as_deref(), got_message.as_str()), (code, message), "{body}");
        }
    }

    #[test]
    fn publish_replies() {
        let table = [
            (r#"{"Success":{"domain":"a","database_identity":"c200","op":"created"}}"#, Some("a"), true),
            (
                r#"{"Success":{"domain":{"some":"a"},"database_identity":{"__identity__":"0xc200"},"op":"updated"}}"#,
                Some("a"),
                false,
            ),
            (r#"{"Success":{"domain":null,"database_identity":"c200","op":"created"}}"#, None, true),
        ];
        for (body, name, created) in table {
            let published = reply(body).published().expect(body);
            assert_eq!(published.database_identity, "c200");
            assert_eq!((published.name.as_deref(), published.created), (name, created));
        }
        for body in ["", "{}", r#"{"Success":{}}"#, "[]"] {
            assert_eq!(reply(body).published().expect_err(body).code(), "TN0810");
        }
    }

    #[test]
    fn sql_replies() {
        let body = r#"[{"schema":{"elements":[{"name":{"some":"id"},"algebraic_type":{"U32":[]}},{"name":{"none":[]},"algebraic_type":{"String":[]}}]},
            "rows":[[18446744073709551615,"a"]],"total_duration_micros":12,"stats":{"rows_inserted":0,"rows_deleted":2,"rows_updated":0}}]"#;
        let results = reply(body).sql().expect("parses");
        assert_eq!(results.len(), 1);
        assert_eq!(results[0].columns, [Some("id".to_owned()), None]);
        assert_eq!(results[0].rows[0][0].to_string(), "18446744073709551615");
        assert_eq!((results[0].duration_us, results[0].changed.deleted), (12, 2));
        for body in ["", "{}", "[1]", r#"[{"schema":{},"rows":[]}]"#] {
            assert_eq!(reply(body).sql().expect_err(body).code(), "TN0810");
        }
    }
}
