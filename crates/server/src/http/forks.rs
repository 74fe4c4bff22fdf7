//! Making, listing, renaming and deleting forks.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tine_host::{ForkRequest, ForkSummary};

use super::{Who, micros, read_body, set_number};
use crate::error::RequestError;
use crate::server::Shared;

/// A fork as clients see it.
pub(super) fn fork_json(fork: &ForkSummary) -> Value {
    let parent = fork.parent.as_ref().map(|parent| {
        let name = parent.name.as_deref().map_or_else(|| Value::from(parent.id), Value::from);
        json!({ "fork": name, "lsn": parent.lsn.get() })
    });
    json!({
        "name": fork.name,
        "id": fork.id,
        "identity": fork.identity.to_hex(),
        "parent": parent,
        "head": fork.head.get(),
        "durability": if fork.ephemeral { "ephemeral" } else { "durable" },
        "created_at": fork.created_micros,
        "schedules_run": fork.schedules_run,
    })
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
    let request = ForkRequest { name: text_field(&fields, "name")?, ephemeral: flag_field(&fields, "ephemeral")? };
    let actor = identified.actor();
    let (fork, took) = shared.blocking(move |host| Ok(host.fork_create(&parent, &actor, &request)?)).await?;
    let mut response = super::json(StatusCode::CREATED, &fork_json(&fork));
    set_number(&mut response, "spacetime-execution-duration-micros", micros(took));
    Ok(response)
}

/// `GET /v1/database/:name/forks/:fork`.
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path((name, fork)): Path<(String, String)>,
) -> Result<Response, RequestError> {
    let fork = shared.host.fork_show(&fork_address(&name, &fork))?;
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

fn flag_field(fields: &Value, name: &str) -> Result<bool, RequestError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(RequestError::BadBody(format!("the field `{name}` must be true or false"))),
    }
}
