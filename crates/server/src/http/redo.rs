//! History, and running it again.
//!
//! `GET .../history` takes `from`, `to` (LSNs), `limit` and `uncommitted`. `POST .../verify` takes `from`, `to` and
//! `stop_at_first_difference`; `POST .../replay` these and `name` (of the fork it makes) and `resume`, with the program to run as its
//! body, like a publish; an empty body runs the recorded code. Both answer with one JSON object per line: `{"progress": ..}` now and
//! then, and at the end `{"report": ..}` or `{"error": {"code", "message"}}`. A caller that goes away stops the run.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tine_host::{
    CallKind, FunctionReport, HistoryEntry, HistoryRequest, Host, HostError, Lsn, RedoPlace, RedoProgress, RedoStep,
    ReplayReport, ReplayRequest, VerifyReport, VerifyRequest,
};
use tokio::sync::mpsc;

use super::Who;
use super::database::read_program;
use super::forks::fork_json;
use crate::error::RequestError;
use crate::parameters::Parameters;
use crate::server::Shared;

/// Entries of a history when the caller does not say how many.
const HISTORY_LIMIT: u32 = 100;

/// Lines that wait for a slow caller; progress beyond it is left out.
const LINES_WAITING_MAX: usize = 16;

/// `GET /v1/database/:name/history`.
pub(crate) async fn history(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    Extension(identified): Who,
) -> Result<Response, RequestError> {
    let parameters = Parameters::parse(query.as_deref().unwrap_or(""))?;
    let request = HistoryRequest {
        from: parameters.lsn("from")?,
        to: parameters.lsn("to")?,
        limit: parameters.number("limit")?.unwrap_or(HISTORY_LIMIT) as usize,
        uncommitted: parameters.boolean("uncommitted")?.unwrap_or(false),
    };
    let actor = identified.actor();
    let entries = shared.blocking(move |host| Ok(host.history(&name, &actor, &request)?)).await?;
    let entries: Vec<Value> = entries.iter().map(entry_json).collect();
    Ok(super::json(StatusCode::OK, &json!({ "entries": entries })))
}

/// `POST /v1/database/:name/verify`.
pub(crate) async fn verify(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    Extension(identified): Who,
) -> Result<Response, RequestError> {
    let parameters = Parameters::parse(query.as_deref().unwrap_or(""))?;
    let request = VerifyRequest {
        from: parameters.lsn("from")?,
        to: parameters.lsn("to")?,
        stop_at_first_difference: parameters.boolean("stop_at_first_difference")?.unwrap_or(false),
    };
    let actor = identified.actor();
    run(&shared, move |host, step| Ok(verify_json(&host.verify(&name, &actor, &request, step)?))).await
}

/// `POST /v1/database/:name/replay`.
pub(crate) async fn replay(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    Extension(identified): Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    let parameters = Parameters::parse(query.as_deref().unwrap_or(""))?;
    let expected = "the name of the fork to make";
    let fork = parameters.get("name").ok_or(RequestError::BadParameter { name: "name", expected })?.to_owned();
    let program = read_program(&shared, &parameters, &headers, body).await?;
    let request = ReplayRequest {
        from: parameters.lsn("from")?,
        to: parameters.lsn("to")?,
        program: Some(program).filter(|program| !program.is_empty()),
        name: fork,
        stop_at_first_difference: parameters.boolean("stop_at_first_difference")?.unwrap_or(false),
        resume: parameters.boolean("resume")?.unwrap_or(false),
    };
    let actor = identified.actor();
    run(&shared, move |host, step| Ok(replay_json(&host.replay(&name, &actor, &request, step)?))).await
}

/// Runs `work` on a thread of its own and sends what it tells of its progress, then its report. What fails before the first progress
/// is answered as an error, so that callers need not read lines to learn of a wrong request.
async fn run(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Host, RedoStep<'_>) -> Result<Value, HostError> + Send + 'static,
) -> Result<Response, RequestError> {
    let (sender, mut receiver) = mpsc::channel::<Result<Value, HostError>>(LINES_WAITING_MAX);
    let runner = shared.clone();
    tokio::spawn(async move {
        let failed = sender.clone();
        let ran = runner.blocking(move |host| {
            let mut step = |progress: RedoProgress| match sender.try_send(Ok(progress_json(&progress))) {
                Err(mpsc::error::TrySendError::Closed(_)) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            };
            let done = work(host, &mut step).map(|report| json!({ "report": report }));
            // Nobody may read it any more.
            let _ = sender.blocking_send(done);
            Ok(())
        });
        if ran.await.is_err() {
            let _ = failed.send(Err(HostError::Closed)).await;
        }
    });
    let first = receiver.recv().await.ok_or(RequestError::Dropped)??;
    let lines = stream::unfold((Some(first), receiver), |(next, mut receiver)| async move {
        let line = match next {
            Some(line) => line,
            None => match receiver.recv().await? {
                Ok(line) => line,
                Err(error) => json!({ "error": { "code": error.code(), "message": error.to_string() } }),
            },
        };
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(format!("{line}\n"))), (None, receiver)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn progress_json(progress: &RedoProgress) -> Value {
    json!({ "progress": {
        "events": progress.events, "calls": progress.calls, "lsn": progress.lsn, "from": progress.from, "to": progress.to,
    } })
}

fn kind_name(kind: CallKind) -> &'static str {
    match kind {
        CallKind::Reducer => "reducer",
        CallKind::Lifecycle => "lifecycle",
        CallKind::Scheduled => "scheduled",
        CallKind::Procedure => "procedure",
        CallKind::Publish => "publish",
        CallKind::ScheduleDone => "schedule_done",
        CallKind::SchedulesResumed => "schedules_resumed",
        CallKind::Statement => "statement",
        CallKind::Handler => "handler",
        CallKind::Rows => "rows",
        CallKind::Reverted => "reverted",
    }
}

fn entry_json(entry: &HistoryEntry) -> Value {
    let tables = entry.tables.iter();
    let tables = tables.map(|(name, rows)| (name.clone(), json!({ "written": rows.written, "deleted": rows.deleted })));
    json!({
        "lsn": entry.lsn.map(Lsn::get),
        "after": entry.after.get(),
        "timestamp": entry.timestamp_micros,
        "kind": entry.kind.map(kind_name),
        "function": entry.function,
        "arguments": entry.arguments,
        "caller": entry.caller.map(|caller| caller.to_hex()),
        "connection": entry.connection.map(|connection| connection.to_hex()),
        "failure": entry.failure,
        "tables": Value::Object(tables.collect()),
        "administration": entry.is_administration,
    })
}

fn functions_json(functions: &std::collections::BTreeMap<String, FunctionReport>) -> Value {
    serde_json::to_value(functions).expect("plain data encodes")
}

fn verify_json(report: &VerifyReport) -> Value {
    json!({
        "from": report.from.get(),
        "to": report.to.get(),
        "calls": report.calls,
        "reapplied": report.reapplied,
        "differences": report.differences,
        "stopped_at": report.stopped_at.map(Lsn::get),
        "functions": functions_json(&report.functions),
        "ran_in": ran_in(&report.place),
        "note": note(&report.place),
    })
}

/// Where recorded calls ran again.
fn ran_in(place: &RedoPlace) -> &'static str {
    match place {
        RedoPlace::Workers => "workers",
        RedoPlace::WithCalls { .. } => "server",
    }
}

/// Why they did not run in workers.
fn note(place: &RedoPlace) -> Option<&str> {
    match place {
        RedoPlace::Workers => None,
        RedoPlace::WithCalls { reason } => Some(reason),
    }
}

fn replay_json(report: &ReplayReport) -> Value {
    json!({
        "fork": fork_json(&report.fork),
        "from": report.from.get(),
        "to": report.to.get(),
        "calls": report.calls,
        "reapplied": report.reapplied,
        "rows_refused": report.rows_refused,
        "skipped": report.skipped,
        "differences": report.differences,
        "stopped_at": report.stopped_at.map(Lsn::get),
        "functions": functions_json(&report.functions),
        "tables": serde_json::to_value(&report.tables).expect("plain data encodes"),
        "ran_in": ran_in(&report.place),
        "note": note(&report.place),
    })
}
