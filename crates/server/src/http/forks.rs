//! Making, listing, renaming, resetting and deleting forks.
//!
//! Fields of `POST .../forks`: `name`; optionally `ephemeral`, `at` (an LSN as a number, or a time as RFC 3339 text), `ttl_ms`,
//! `resume_schedules`, `disconnect_clients`. Of `POST .../forks/:fork/reset`: `from` (the name of another fork) and `at`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tine_host::{ForkParent, ForkRequest, ForkSummary, Lsn, ResetRequest, VersionAt};
use tine_types::Timestamp;

use super::{Who, micros, read_body, set_number};
use crate::error::RequestError;
use crate::server::Shared;

/// A fork as clients see it.
pub(super) fn fork_json(fork: &ForkSummary) -> Value {
    json!({
        "name": fork.name,
        "id": fork.id,
        "identity": fork.identity.to_hex(),
        "parent": fork.parent.as_ref().map(parent_json),
        "head": fork.head.get(),
        "oldest": fork.oldest.get(),
        "durability": if fork.ephemeral { "ephemeral" } else { "durable" },
        "created_at": fork.created_micros,
        "expires_at": fork.expires_micros,
        "schedules_run": fork.schedules_run,
    })
}

/// A parent by its name, or by its number when it was deleted.
fn parent_json(parent: &ForkParent) -> Value {
    let name = parent.name.as_deref().map_or_else(|| Value::from(parent.id), Value::from);
    json!({ "fork": name, "lsn": parent.lsn.get() })
}

/// `GET /v1/database/:name/forks`.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Response, RequestError> {
    let forks: Vec<Value> = shared.host.fork_list(&name)?.iter().map(fork_json).collect();
    Ok(super::json(StatusCode::OK, &json!({ "forks": forks })))
}

/// `POST /v1/database/:name/forks`: a fork of the fork that is named, `main` by default.
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Path(parent): Path<String>,
    Extension(identified): Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    let fields = read_fields(&shared, &headers, body).await?;
    let request = ForkRequest {
        name: text_field(&fields, "name")?,
        ephemeral: flag_field(&fields, "ephemeral")?,
        at: version_field(&fields)?,
        lifetime_ms: number_field(&fields, "ttl_ms")?,
        resume_schedules: flag_field(&fields, "resume_schedules")?,
        disconnect_clients: flag_field(&fields, "disconnect_clients")?,
    };
    let actor = identified.actor();
    let (fork, took) = shared.blocking(move |host| Ok(host.fork_create(&parent, &actor, &request)?)).await?;
    let mut response = super::json(StatusCode::CREATED, &fork_json(&fork));
    set_number(&mut response, "spacetime-execution-duration-micros", micros(took));
    Ok(response)
}

/// `GET /v1/database/:name/forks/:fork`, with the forks it comes from.
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path((name, fork)): Path<(String, String)>,
) -> Result<Response, RequestError> {
    let address = fork_address(&name, &fork);
    let mut value = fork_json(&shared.host.fork_show(&address)?);
    value["lineage"] = shared.host.fork_lineage(&address)?.iter().map(parent_json).collect();
    Ok(super::json(StatusCode::OK, &value))
}

/// `POST /v1/database/:name/forks/:fork/reset`.
pub(crate) async fn reset(
    State(shared): State<Arc<Shared>>,
    Path((name, fork)): Path<(String, String)>,
    Extension(identified): Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    let fields = read_fields(&shared, &headers, body).await?;
    let from = match fields.get("from") {
        None | Some(Value::Null) => None,
        Some(_) => Some(text_field(&fields, "from")?),
    };
    let request = ResetRequest { from, at: version_field(&fields)? };
    let actor = identified.actor();
    let address = fork_address(&name, &fork);
    let fork = shared.blocking(move |host| Ok(host.fork_reset(&address, &actor, &request)?)).await?;
    Ok(super::json(StatusCode::OK, &fork_json(&fork)))
}

/// `POST /v1/database/:name/forks/:fork/resume`.
pub(crate) async fn resume(
    State(shared): State<Arc<Shared>>,
    Path((name, fork)): Path<(String, String)>,
    Extension(identified): Who,
) -> Result<Response, RequestError> {
    let actor = identified.actor();
    let address = fork_address(&name, &fork);
    let fork = shared.blocking(move |host| Ok(host.fork_resume(&address, &actor)?)).await?;
    Ok(super::json(StatusCode::OK, &fork_json(&fork)))
}

/// `PATCH /v1/database/:name/forks/:fork`.
pub(crate) async fn rename(
    State(shared): State<Arc<Shared>>,
    Path((name, fork)): Path<(String, String)>,
    Extension(identified): Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    let new_name = text_field(&read_fields(&shared, &headers, body).await?, "name")?;
    let actor = identified.actor();
    let address = fork_address(&name, &fork);
    let fork = shared.blocking(move |host| Ok(host.fork_rename(&address, &actor, &new_name)?)).await?;
    Ok(super::json(StatusCode::OK, &fork_json(&fork)))
}

/// `DELETE /v1/database/:name/forks/:fork`.
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path((name, fork)): Path<(String, String)>,
    Extension(identified): Who,
) -> Result<Response, RequestError> {
    let actor = identified.actor();
    let address = fork_address(&name, &fork);
    shared.blocking(move |host| Ok(host.fork_delete(&address, &actor)?)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The forks of a database form one space of names: `a@b/forks/c` is `a@c`.
fn fork_address(name: &str, fork: &str) -> String {
    let (database, _) = tine_host::split_address(name);
    format!("{database}@{fork}")
}

async fn read_fields(shared: &Shared, headers: &HeaderMap, body: Body) -> Result<Value, RequestError> {
    let body = read_body(headers, body, shared.limits.body_bytes_max).await?;
    match serde_json::from_slice(&body) {
        Ok(fields @ Value::Object(_)) => Ok(fields),
        Ok(_) => Err(RequestError::BadBody("expected a JSON object".to_owned())),
        Err(error) => Err(RequestError::BadBody(error.to_string())),
    }
}

fn text_field(fields: &Value, name: &str) -> Result<String, RequestError> {
    let text = fields.get(name).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| RequestError::BadBody(format!("the field `{name}` must be a text")))
}

fn number_field(fields: &Value, name: &str) -> Result<Option<i64>, RequestError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let wrong = || RequestError::BadBody(format!("the field `{name}` must be a whole number"));
            value.as_i64().map(Some).ok_or_else(wrong)
        }
    }
}

/// The field `at`: an LSN or a time.
fn version_field(fields: &Value) -> Result<Option<VersionAt>, RequestError> {
    let time = |text: &str| Timestamp::from_rfc3339(text).ok().map(|time| VersionAt::Time(time.micros()));
    let version = match fields.get("at") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => time(text),
        Some(value) => value.as_u64().map(|lsn| VersionAt::Lsn(Lsn::new(lsn))),
    };
    let expected = "the field `at` must be an LSN (a number) or a time such as \"2026-11-21T10:00:00Z\"";
    version.map(Some).ok_or_else(|| RequestError::BadBody(expected.to_owned()))
}

fn flag_field(fields: &Value, name: &str) -> Result<bool, RequestError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(RequestError::BadBody(format!("the field `{name}` must be true or false"))),
    }
}
