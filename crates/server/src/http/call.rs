//! Calling functions and running statements.
//!
//! A reply is confirmed unless the request says `?confirmed=false`: it waits until the commit it may
//! depend on is on stable storage. Waiting delays this reply only; the lane has long gone on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use tine_host::{CallArguments, CallFailure, CallReturn, ForkHandle, HostError, Reply, SqlRows, VersionAt};
use tine_store::Lsn;
use tine_types::bsatn::Reader;
use tine_types::json::{bsatn_to_json, product_to_sql_json, product_type_to_json};
use tokio::sync::oneshot;

use super::{Identified, LSN_HEADER, Who, content_type, micros, read_body, set_number, wait_durable};
use crate::error::RequestError;
use crate::parameters::Parameters;
use crate::server::Shared;

/// Longest statement, in bytes.
const STATEMENT_BYTES_MAX: usize = 50_000;

/// `POST /v1/database/:name/call/:function`.
pub(crate) async fn call(
    State(shared): State<Arc<Shared>>,
    Path((name, function)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    Extension(identified): Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    require_json(&headers)?;
    let parameters = Parameters::parse(query.as_deref().unwrap_or(""))?;
    let is_confirmed = parameters.boolean("confirmed")?.unwrap_or(true);
    let fork = shared.host.resolve(&name)?;
    let body = read_body(&headers, body, shared.limits.body_bytes_max).await?;
    let arguments = parse_arguments(&body)?;
    if parameters.boolean("dry_run")?.unwrap_or(false) {
        return dry_run(&shared, name, function, &identified, arguments).await;
    }
    let reply = run_function(&shared, &fork, &identified, &function, arguments, is_confirmed).await?;
    let mut response = match &reply.value {
        None => StatusCode::OK.into_response(),
        Some(value) => super::json(StatusCode::OK, value),
    };
    // Nothing is metered.
    set_number(&mut response, "spacetime-energy-used", 0);
    set_number(&mut response, "spacetime-execution-duration-micros", micros(reply.duration));
    set_number(&mut response, LSN_HEADER, reply.lsn.get());
    Ok(response)
}

/// Shows the rows that a call of a reducer would change: `{"lsn": version it ran on, "rows": {table: {"inserted", "deleted"}}}`.
async fn dry_run(
    shared: &Arc<Shared>,
    name: String,
    function: String,
    identified: &Identified,
    arguments: CallArguments,
) -> Result<Response, RequestError> {
    let actor = identified.actor();
    let ran = shared.blocking(move |host| Ok(host.dry_run(&name, &actor, &function, arguments)?)).await?;
    Ok(super::json(StatusCode::OK, &json!({ "lsn": ran.lsn.get(), "rows": ran.outcome? })))
}

/// Refuses a body that does not say it is JSON.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), RequestError> {
    match content_type(headers).as_deref() {
        Some("application/json") => Ok(()),
        Some(_) => Err(RequestError::ContentTypeUnknown("application/json")),
        None => Err(RequestError::ContentTypeMissing("application/json")),
    }
}

/// What a request that succeeded is answered with.
pub(super) struct Done<T> {
    pub value: T,
    /// Time it ran, without its wait for the lane.
    pub duration: Duration,
    /// The newest commit it may depend on.
    pub lsn: Lsn,
}

/// Calls a function and waits for its outcome; the value is what a procedure returned, in JSON.
pub(super) async fn run_function(
    shared: &Shared,
    fork: &ForkHandle,
    identified: &Identified,
    function: &str,
    arguments: CallArguments,
    is_confirmed: bool,
) -> Result<Done<Option<Value>>, RequestError> {
    let (reply_to, reply) = oneshot::channel();
    // The receiver is gone when the request was given up: then nobody wants the reply.
    let reply_to = Box::new(move |reply| drop(reply_to.send(reply)));
    // Dropped with this future when the caller goes away: then a procedure ends, too.
    let _waits = shared.stalls.watch(|| fork.call(identified.requester(), function, arguments, reply_to));
    let reply: Reply<CallReturn> = reply.await.map_err(|_| RequestError::Dropped)?;
    confirm(fork, &reply, is_confirmed).await?;
    if matches!(reply.result, Err(CallFailure::NoSuchFunction)) && is_lifecycle_hook(fork, function) {
        return Err(RequestError::LifecycleHook(function.to_owned()));
    }
    let value = match reply.result? {
        CallReturn::Reducer => None,
        CallReturn::Procedure { ty, value } => {
            Some(bsatn_to_json(&ty, &mut Reader::new(&value)).expect("the host checked the value against its type"))
        }
    };
    Ok(Done { value, duration: reply.duration, lsn: reply.lsn })
}

/// Whether the function is there, but only for the server to call.
fn is_lifecycle_hook(fork: &ForkHandle, function: &str) -> bool {
    let module = fork.module();
    let def = module.def();
    def.lifecycle
        .iter()
        .any(|hook| *hook.function_name == *function || def.canonical_function_name(&hook.function_name) == function)
}

/// An array in order of the parameters or an object by their names; nothing at all is an empty array.
fn parse_arguments(body: &[u8]) -> Result<CallArguments, RequestError> {
    if body.is_empty() {
        return Ok(CallArguments::Json(Value::Array(Vec::new())));
    }
    match serde_json::from_slice(body) {
        Ok(value @ (Value::Array(_) | Value::Object(_))) => Ok(CallArguments::Json(value)),
        Ok(_) => Err(RequestError::BadBody("expected an array or an object of arguments".to_owned())),
        Err(error) => Err(RequestError::BadBody(error.to_string())),
    }
}

/// Only an outcome that may stand on a commit is worth waiting for.
async fn confirm<T>(fork: &ForkHandle, reply: &Reply<T>, is_confirmed: bool) -> Result<(), RequestError> {
    match is_confirmed && reply.result.is_ok() {
        true => wait_durable(fork.durability(), reply.durable).await,
        false => Ok(()),
    }
}

/// `POST /v1/database/:name/sql`.
pub(crate) async fn sql(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    Extension(identified): Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    let parameters = Parameters::parse(query.as_deref().unwrap_or(""))?;
    let is_confirmed = parameters.boolean("confirmed")?.unwrap_or(true);
    let fork = shared.host.resolve(&name)?;
    let body = read_body(&headers, body, shared.limits.body_bytes_max).await?;
    let text = std::str::from_utf8(&body).map_err(|_| RequestError::BadBody("not UTF-8".to_owned()))?;
    let reply = match parameters.version("at")? {
        Some(at) => select_as_of(&shared, name, &identified, text, at).await?,
        None => run_statement(&shared, &fork, &identified, text, is_confirmed).await?,
    };
    let statement = statement_json(reply.value, micros(reply.duration));
    let mut response = super::json(StatusCode::OK, &Value::Array(vec![statement]));
    set_number(&mut response, LSN_HEADER, reply.lsn.get());
    Ok(response)
}

/// Answers a SELECT from an older version.
async fn select_as_of(
    shared: &Arc<Shared>,
    name: String,
    identified: &Identified,
    text: &str,
    at: VersionAt,
) -> Result<Done<SqlRows>, RequestError> {
    if text.len() > STATEMENT_BYTES_MAX {
        return Err(RequestError::StatementTooLong(STATEMENT_BYTES_MAX));
    }
    let (requester, text) = (identified.requester(), text.to_owned());
    let started = Instant::now();
    let selected = shared.blocking(move |host| Ok(host.select_as_of(&name, &requester, &text, at)?)).await;
    let (value, lsn) = selected.map_err(|error| match error {
        RequestError::Host(HostError::Call(failure)) => RequestError::Statement(failure),
        error => error,
    })?;
    Ok(Done { value, duration: started.elapsed(), lsn })
}

/// Runs one statement and waits for its rows.
pub(super) async fn run_statement(
    shared: &Shared,
    fork: &ForkHandle,
    identified: &Identified,
    text: &str,
    is_confirmed: bool,
) -> Result<Done<SqlRows>, RequestError> {
    if text.len() > STATEMENT_BYTES_MAX {
        return Err(RequestError::StatementTooLong(STATEMENT_BYTES_MAX));
    }
    let (reply_to, reply) = oneshot::channel();
    let reply_to = Box::new(move |reply| drop(reply_to.send(reply)));
    shared.stalls.watch(|| fork.sql(identified.requester(), text, reply_to));
    let reply: Reply<SqlRows> = reply.await.map_err(|_| RequestError::Dropped)?;
    confirm(fork, &reply, is_confirmed).await?;
    let value = reply.result.map_err(RequestError::Statement)?;
    Ok(Done { value, duration: reply.duration, lsn: reply.lsn })
}

/// The outcome of one statement.
pub(super) fn statement_json(rows: SqlRows, duration_us: u64) -> Value {
    let (schema, modified) = (product_type_to_json(&rows.columns), rows.modified);
    let row_json =
        |row: &Bytes| product_to_sql_json(&rows.columns, &mut Reader::new(row)).expect("rows fit their columns");
    let rows: Vec<Value> = rows.rows.iter().map(row_json).collect();
    json!({
        "schema": schema,
        "rows": rows,
        "total_duration_micros": duration_us,
        "stats": {
            "rows_inserted": modified.inserted,
            "rows_deleted": modified.deleted,
            "rows_updated": modified.updated,
        },
    })
}
