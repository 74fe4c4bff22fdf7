//! The HTTP routes and what all of them share: identification, time and size limits, CORS, and the
//! span of a request.
//!
//! Everything below `/v1/database` but modules' own routes, and `/v1/mcp`, identifies its caller first (a request without a token gets a new
//! anonymous identity) and says in the reply who that is. Errors keep these headers.

mod call;
mod database;
mod forks;
mod identity;
mod logs;
mod mcp;
mod redo;
mod request_id;
mod route;
mod schema_v9;
mod system;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use axum::{Extension, Router};
use bytes::Bytes;
use tine_host::{Actor, Durability, Requester};
use tine_store::DurableTicket;
use tokio::sync::watch;
use tracing::Instrument as _;

use crate::auth::{AuthError, Caller};
use crate::error::{RequestError, module_error_status};
use crate::parameters::Parameters;
use crate::server::Shared;
use crate::ws;

/// Header with the text of `keys/admin-token`, beside the caller's own token.
const ADMIN_TOKEN_HEADER: &str = "tine-admin-token";
/// Header with the newest commit a reply depends on.
const LSN_HEADER: &str = "tine-lsn";
/// How long a browser may remember what CORS allows, in seconds.
const CORS_MAX_AGE: &str = "86400";

/// All routes.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let databases = Router::new()
        .route("/v1/database", get(database::list).post(database::publish_unnamed))
        .route(
            "/v1/database/{name}",
            get(database::show).put(database::publish).post(database::publish).delete(database::delete),
        )
        .route("/v1/database/{name}/lock", post(database::lock))
        .route("/v1/database/{name}/unlock", post(database::unlock))
        .route("/v1/database/{name}/names", get(database::names).post(database::add_name).put(database::set_names))
        .route("/v1/database/{name}/identity", get(database::identity))
        .route("/v1/database/{name}/schema", get(database::schema))
        .route("/v1/database/{name}/subscribe", any(ws::subscribe))
        .route("/v1/database/{name}/call/{function}", post(call::call))
        .route("/v1/database/{name}/sql", post(call::sql))
        .route("/v1/database/{name}/mcp", post(mcp::database))
        .route("/v1/mcp", post(mcp::host))
        .route("/v1/database/{name}/logs", get(logs::logs))
        .route("/v1/database/{name}/history", get(redo::history))
        .route("/v1/database/{name}/verify", post(redo::verify))
        .route("/v1/database/{name}/replay", post(redo::replay))
        .route("/v1/database/{name}/forks", get(forks::list).post(forks::create))
        .route("/v1/database/{name}/forks/{fork}", get(forks::show).patch(forks::rename).delete(forks::delete))
        .route("/v1/database/{name}/forks/{fork}/reset", post(forks::reset))
        .route("/v1/database/{name}/forks/{fork}/resume", post(forks::resume))
        .route("/v1/database/{name}/pre_publish", post(database::pre_publish))
        .route("/v1/database/{name}/reset", put(database::reset))
        .route("/v1/database/{name}/unstable/timestamp", get(system::timestamp))
        .route_layer(middleware::from_fn_with_state(shared.clone(), identify));
    let others = Router::new()
        .route("/v1/database/{name}/route", any(route::root))
        .route("/v1/database/{name}/route/", any(route::root))
        .route("/v1/database/{name}/route/{*path}", any(route::below))
        .route("/v1/identity", post(identity::create))
        .route("/v1/identity/websocket-token", post(identity::websocket_token))
        .route("/v1/identity/public-key", get(identity::public_key))
        .route("/v1/identity/{identity}/verify", get(identity::verify))
        .route("/v1/identity/{identity}/databases", get(identity::databases))
        .route("/v1/energy/{identity}", get(identity::energy))
        .route("/v1/prometheus/sd_config", get(system::scrape_targets))
        .route("/v1/ping", get(system::ping))
        .route("/v1/health", get(system::health))
        .route(system::METRICS_PATH, get(system::metrics))
        .route("/livez", get(system::live))
        .route("/readyz", get(system::ready));
    databases
        .merge(others)
        .fallback(page)
        .method_not_allowed_fallback(async |method: Method| RequestError::MethodNotAllowed(method.to_string()))
        .layer(middleware::from_fn_with_state(shared.clone(), observe))
        .with_state(shared)
}

/// The caller of a request, found before its handler runs.
#[derive(Clone)]
pub(crate) struct Identified {
    pub caller: Caller,
    /// The request came with a token of its own; otherwise the identity was made for it.
    pub has_token: bool,
    pub is_admin: bool,
}

impl Identified {
    async fn find(shared: &Shared, headers: &HeaderMap, query: Option<&str>) -> Result<Identified, RequestError> {
        let parameters = Parameters::parse(query.unwrap_or(""))?;
        let (caller, has_token) = match shared.auth.caller_required(headers, parameters.get("token")).await {
            Ok(caller) => (caller, true),
            Err(AuthError::Required) => (shared.auth.mint_anonymous(), false),
            Err(error) => return Err(error.into()),
        };
        let shows_admin_token = match headers.get(ADMIN_TOKEN_HEADER) {
            None => false,
            Some(token) => {
                shared.auth.check_admin_token(token.to_str().unwrap_or("").trim()).map_err(AuthError::from)?
            }
        };
        let is_admin = shows_admin_token || shared.auth.is_admin(caller.identity);
        Ok(Identified { caller, has_token, is_admin })
    }

    /// The caller as the host's administration sees it.
    pub fn actor(&self) -> Actor {
        Actor { identity: self.caller.identity, is_admin: self.is_admin }
    }

    /// The caller as a module sees it.
    pub fn requester(&self) -> Requester {
        Requester { identity: self.caller.identity, jwt_payload: Some(self.caller.jwt_payload.clone()) }
    }

    /// The caller when the request had a token.
    pub fn required(&self) -> Result<&Caller, RequestError> {
        if self.has_token { Ok(&self.caller) } else { Err(AuthError::Required.into()) }
    }
}

/// Identifies the caller for all database routes.
async fn identify(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let identified = match Identified::find(&shared, request.headers(), request.uri().query()).await {
        Ok(identified) => identified,
        Err(error) => return error.into_response(),
    };
    request.extensions_mut().insert(identified.clone());
    let mut response = next.run(request).await;
    let caller = &identified.caller;
    let headers = response.headers_mut();
    if let (Ok(identity), Ok(token)) =
        (HeaderValue::from_str(&caller.identity.to_hex()), HeaderValue::from_str(&caller.token))
    {
        headers.insert("spacetime-identity", identity);
        headers.insert("spacetime-identity-token", token);
    }
    response
}

/// Counts, times and traces a request, and answers for CORS.
async fn observe(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    shared.metrics.requests.increment();
    let id = request_id::find_or_make(request.headers(), &*shared.env);
    let id_text = id.to_str().unwrap_or("");
    // At the level of what is logged by default, so that every event tells which request it belongs to.
    let span = tracing::info_span!("request", id = id_text, method = %request.method(), path = request.uri().path());
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let limit = shared.limits.request_timeout;
    let mut response = if is_preflight {
        StatusCode::OK.into_response()
    } else {
        let answered = tokio::time::timeout(limit, next.run(request)).instrument(span.clone()).await;
        answered.unwrap_or_else(|_| {
            shared.metrics.requests_timed_out.increment();
            RequestError::TimedOut(limit.as_secs()).into_response()
        })
    };
    let status = response.status();
    if status.is_server_error() && status != module_error_status() {
        shared.metrics.requests_failed.increment();
    }
    span.in_scope(|| tracing::debug!(status = status.as_u16(), "answered"));
    response.headers_mut().insert(request_id::HEADER, id);
    allow_other_origins(response.headers_mut(), is_preflight);
    response
}

fn allow_other_origins(headers: &mut HeaderMap, is_preflight: bool) {
    // A module's handler may have said otherwise.
    headers.entry(header::ACCESS_CONTROL_ALLOW_ORIGIN).or_insert(HeaderValue::from_static("*"));
    if is_preflight {
        let allowed = "authorization, accept, content-type, tine-admin-token, x-request-id, mcp-protocol-version";
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("*"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(CORS_MAX_AGE));
    } else {
        let exposed = "spacetime-identity, spacetime-identity-token, spacetime-execution-duration-micros, \
                       tine-error, tine-lsn, x-request-id";
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    }
}

/// Anything no route took: a static page, or nothing.
async fn page(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let found = shared.pages.respond(request.method(), request.uri().path());
    found.unwrap_or_else(|| RequestError::NoSuchRoute.into_response())
}

/// Reads a body of at most `bytes_max` bytes.
async fn read_body(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Bytes, RequestError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > bytes_max as u64) {
        return Err(RequestError::BodyTooLarge(bytes_max));
    }
    axum::body::to_bytes(body, bytes_max).await.map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        match source.as_deref().unwrap_or("") {
            "length limit exceeded" => RequestError::BodyTooLarge(bytes_max),
            _ => RequestError::BadBody(error.to_string()),
        }
    })
}

/// The content type without its parameters, in lower case.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or("").trim().to_ascii_lowercase())
}

/// A JSON reply.
fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, content_type)], value.to_string()).into_response()
}

/// Sets a header whose value is a number.
fn set_number(response: &mut Response, name: &'static str, value: u64) {
    response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(value));
}

/// Waits until `ticket` is on stable storage.
async fn wait_durable(mut durable: watch::Receiver<Durability>, ticket: DurableTicket) -> Result<(), RequestError> {
    let reached = durable.wait_for(|state| state.ticket >= ticket || state.failed).await;
    match reached {
        Ok(state) if state.ticket >= ticket => Ok(()),
        Ok(_) => Err(RequestError::NotDurable("the log cannot be written")),
        Err(_) => Err(RequestError::NotDurable("the database was closed")),
    }
}

/// Microseconds, saturating.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The caller, as handlers take it.
type Who = Extension<Identified>;
