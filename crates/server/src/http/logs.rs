//! `GET /v1/database/:name/logs`: what a module printed, one JSON object per line.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tine_host::{HostError, LogRecord};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::Who;
use crate::error::RequestError;
use crate::limits::LOG_LINES_MAX;
use crate::parameters::Parameters;
use crate::server::{Lifecycle, Shared};

/// Bytes of records sent in one piece while following.
const FOLLOW_CHUNK_BYTES_MAX: usize = 64 * 1024;

/// The last `num_lines` records, and with `follow=true` every later one until the client leaves.
pub(crate) async fn logs(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    Extension(identified): Who,
) -> Result<Response, RequestError> {
    let parameters = Parameters::parse(query.as_deref().unwrap_or(""))?;
    let lines = parameters.number("num_lines")?.map(|lines| lines.min(LOG_LINES_MAX) as usize);
    let is_following = parameters.boolean("follow")?.unwrap_or(false);
    let fork = shared.host.resolve(&name)?;
    let caller = identified.caller.identity;
    if !identified.is_admin && caller != fork.owner() {
        let (identity, database) = (caller, fork.database_identity());
        return Err(HostError::NotAuthorized { identity, database, action: "view logs" }.into());
    }
    let fork_name = fork.fork_name();
    let body = if is_following {
        // Subscribed before reading, so that no record falls between; one may come twice instead and
        // is recognised by being the same object.
        let records = fork.log().follow();
        let past = fork.log().recent(lines, Some(&fork_name));
        let follower =
            Follower { records, past: past.into(), fork_name, lifecycle: shared.lifecycle.subscribe(), last: None };
        Body::from_stream(stream::unfold(follower, Follower::next))
    } else {
        let mut text = String::new();
        fork.log().recent(lines, Some(&fork_name)).iter().for_each(|record| append(&mut text, record));
        Body::from(text)
    };
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn append(text: &mut String, record: &LogRecord) {
    text.push_str(&record.to_json().to_string());
    text.push('\n');
}

struct Follower {
    records: broadcast::Receiver<Arc<LogRecord>>,
    /// Records from before, still to be sent.
    past: VecDeque<Arc<LogRecord>>,
    fork_name: Arc<str>,
    lifecycle: watch::Receiver<Lifecycle>,
    /// The last record of the past: the stream of new ones may begin before it.
    last: Option<Arc<LogRecord>>,
}

impl Follower {
    /// The next piece of the body; waits for a record and adds those that are there already.
    async fn next(mut self) -> Option<(Result<Bytes, std::convert::Infallible>, Follower)> {
        let mut text = String::new();
        while let Some(record) = self.past.pop_front() {
            append(&mut text, &record);
            self.last = Some(record);
            if text.len() >= FOLLOW_CHUNK_BYTES_MAX {
                break;
            }
        }
        while text.is_empty() {
            let received = tokio::select! {
                received = self.records.recv() => received,
                _ = self.lifecycle.wait_for(|state| *state != Lifecycle::Running) => return None,
            };
            self.take(received, &mut text)?;
        }
        while text.len() < FOLLOW_CHUNK_BYTES_MAX && self.past.is_empty() {
            match self.records.try_recv() {
                Ok(record) => self.take(Ok(record), &mut text)?,
                // Overtaking and closing are reported again by the next `recv`.
                Err(_) => break,
            }
        }
        Some((Ok(Bytes::from(text)), self))
    }

    /// Appends a record of this fork; `None` when the log is gone.
    fn take(&mut self, received: Result<Arc<LogRecord>, RecvError>, text: &mut String) -> Option<()> {
        match received {
            Ok(record) => {
                let is_known = self.last.as_ref().is_some_and(|last| record.timestamp_micros <= last.timestamp_micros);
                if *record.fork == *self.fork_name && !is_known {
                    append(text, &record);
                }
                Some(())
            }
            Err(RecvError::Lagged(count)) => {
                let note = serde_json::json!({ "level": "Warn", "message": format!("{count} records were lost: the reader is too slow") });
                text.push_str(&note.to_string());
                text.push('\n');
                Some(())
            }
            Err(RecvError::Closed) => None,
        }
    }
}
