//! Routes about the server itself.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use tine_host::LaneCounters;
use tine_sandbox::Sandbox;

use crate::error::RequestError;
use crate::limits::{
    BATCH_BYTES_MAX, FRAGMENT_BYTES_MAX, READ_BATCH_REQUESTS_MAX, REQUEST_HEAD_BYTES_MAX, TOKEN_CACHE_ENTRIES_MAX,
};
use crate::metrics::write_metric;
use crate::server::Shared;

/// `GET /v1/ping`.
pub(crate) async fn ping() -> StatusCode {
    StatusCode::OK
}

/// `GET /v1/health`.
pub(crate) async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let is_ready = !shared.is_stopping() && shared.host.ready().is_ok();
    let value = json!({
        "package_name": "tine",
        "version": env!("CARGO_PKG_VERSION"),
        "nodes": [],
        "schedulable": is_ready,
    });
    super::json(StatusCode::OK, &value)
}

/// `GET /livez`: the process answers.
pub(crate) async fn live() -> &'static str {
    "ok"
}

/// `GET /readyz`: requests are taken, and every store takes writes. A second line says how far worker processes are locked in.
pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> Result<String, RequestError> {
    if shared.is_stopping() {
        return Err(RequestError::ShuttingDown);
    }
    match shared.host.ready() {
        Ok(()) => Ok(shared.sandbox.as_deref().map_or_else(|| "ok".to_owned(), ready_with_workers)),
        Err(error) => Err(RequestError::NotReady(error)),
    }
}

fn ready_with_workers(sandbox: &Sandbox) -> String {
    match sandbox.level(Duration::ZERO) {
        Some(level) => format!("ok\nworkers: {level}\n"),
        None => "ok\nworkers: starting\n".to_owned(),
    }
}

/// `GET /v1/database/:name/unstable/timestamp`.
pub(crate) async fn timestamp(State(shared): State<Arc<Shared>>) -> Response {
    let value = json!({ "__timestamp_micros_since_unix_epoch__": shared.env.now_micros() });
    super::json(StatusCode::OK, &value)
}

/// `GET /v1/prometheus/sd_config`: where Prometheus finds this server's metrics, in the form of its HTTP
/// service discovery.
///
/// The target is the host that was asked, since that is an address which reaches the server from where
/// Prometheus is; one without a port means the scheme's own to Prometheus, too. A request that names no
/// host is told the address the server listens on.
pub(crate) async fn scrape_targets(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    let named = uri.authority().map(|authority| authority.as_str());
    let named = named.or_else(|| headers.get(header::HOST)?.to_str().ok());
    let target = match named {
        Some(host) if !host.is_empty() => host.to_owned(),
        _ => shared.address.to_string(),
    };
    let value = json!([{ "targets": [target], "labels": { "__metrics_path__": METRICS_PATH } }]);
    super::json(StatusCode::OK, &value)
}

/// Address of [`metrics`].
pub(super) const METRICS_PATH: &str = "/v1/metrics";

/// `GET /v1/metrics`.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = String::new();
    shared.host.metrics().write_prometheus(&mut text);
    shared.metrics.write(&mut text);
    write_metric(&mut text, "tine_lane_requests", "gauge", "Requests waiting on all lanes.", shared.host.lane_depth());
    write_lanes(&mut text, &shared.host.lane_counters());
    let busy = shared.limits.blocking_requests_max - shared.blocking_places_free();
    write_metric(&mut text, "tine_blocking_requests", "gauge", "Requests that occupy a thread.", busy);
    let cached = shared.auth.cached_tokens();
    write_metric(&mut text, "tine_cached_tokens", "gauge", "Verified tokens remembered.", cached);
    let keys = shared.auth.issuer_keys();
    write_metric(&mut text, "tine_issuer_keys", "gauge", "Keys of trusted issuers remembered.", keys);
    write_limits(&mut text, &shared);
    if let Some(sandbox) = shared.sandbox.clone() {
        let workers = move || {
            let mut text = String::new();
            super::workers::write(&mut text, &sandbox);
            text
        };
        // Files of the kernel are read: not on a thread that serves others. Without that thread the rest is of use all the same.
        text.push_str(&tokio::task::spawn_blocking(workers).await.unwrap_or_default());
    }
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, text).into_response()
}

fn write_lanes(text: &mut String, lanes: &LaneCounters) {
    let mut total = |name: &str, help: &str, value: u64| write_metric(text, name, "counter", help, value);
    total("tine_lane_jobs_total", "Requests that ran on lanes.", lanes.jobs);
    total("tine_lane_run_nanoseconds_total", "Time spent on them.", lanes.run_ns);
    total("tine_lane_wait_nanoseconds_total", "Time they waited in queues.", lanes.wait_ns);
    total("tine_lane_batches_inline_total", "Batches that ran on the thread that received them.", lanes.batches_inline);
    total("tine_lane_batches_dispatched_total", "Batches that ran on lane threads.", lanes.batches_dispatched);
    total("tine_lane_reads_together_total", "Reads that were spread over several threads.", lanes.reads_together);
    total("tine_lane_refused_total", "Requests refused because a lane's queue was full.", lanes.refused);
    total("tine_lane_expired_total", "Requests refused because they had waited too long.", lanes.expired);
    write_metric(text, "tine_lane_waiting", "gauge", "Requests waiting in the queues of lanes.", lanes.waiting);
}

/// Every bound beside what it bounds, so that a dashboard needs no second source.
fn write_limits(text: &mut String, shared: &Shared) {
    let limits = &shared.limits;
    let bounds = [
        ("connections", limits.connections_max as u64),
        ("client_message_bytes", limits.client_message_bytes_max as u64),
        ("outgoing_messages", limits.outgoing_messages_max as u64),
        ("outgoing_bytes", limits.outgoing_bytes_max as u64),
        ("body_bytes", limits.body_bytes_max as u64),
        ("publish_bytes", limits.publish_bytes_max as u64),
        ("blocking_requests", limits.blocking_requests_max as u64),
        ("batch_bytes", BATCH_BYTES_MAX as u64),
        ("fragment_bytes", FRAGMENT_BYTES_MAX as u64),
        ("read_batch_requests", READ_BATCH_REQUESTS_MAX as u64),
        ("request_head_bytes", REQUEST_HEAD_BYTES_MAX as u64),
        ("cached_tokens", TOKEN_CACHE_ENTRIES_MAX as u64),
        ("request_milliseconds", super::micros(limits.request_timeout) / 1_000),
        ("idle_milliseconds", super::micros(limits.idle_timeout) / 1_000),
        ("write_milliseconds", super::micros(limits.write_timeout) / 1_000),
    ];
    text.push_str("# HELP tine_limit Bounds in force.\n# TYPE tine_limit gauge\n");
    for (name, value) in bounds {
        text.push_str(&format!("tine_limit{{name=\"{name}\"}} {value}\n"));
    }
}
