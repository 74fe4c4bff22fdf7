//! Publishing, describing and deleting databases.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use tine_host::{ClientPolicy, DatabaseInfo, HostError, PublishPlan, PublishRequest, Published};
use tine_module::SourceBundle;
use tine_types::Identity;
use tine_types::module_def::ModuleDef;

use super::{Identified, Who, content_type, forks, read_body};
use crate::error::RequestError;
use crate::parameters::Parameters;
use crate::server::Shared;

/// `POST /v1/database`: always a new database, without a name.
pub(crate) async fn publish_unnamed(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    who: Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    publish_to(shared, None, query, who, headers, body).await
}

/// `PUT /v1/database/:name`: a new database, or a new module for one that is there.
pub(crate) async fn publish(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    who: Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    publish_to(shared, Some(name), query, who, headers, body).await
}

async fn publish_to(
    shared: Arc<Shared>,
    name: Option<String>,
    query: Option<String>,
    Extension(identified): Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    let parameters = Parameters::parse(query.as_deref().unwrap_or(""))?;
    let clear = parameters.boolean("clear")?.unwrap_or(false);
    let policy = client_policy(&parameters)?;
    let program = read_program(&shared, &parameters, &headers, body).await?;
    let actor = identified.actor();
    let isolation = match parameters.get("isolation").map(str::parse) {
        None => None,
        Some(Ok(mode)) => Some(mode),
        Some(Err(_)) => {
            return Err(RequestError::BadParameter { name: "isolation", expected: "in-process or process" });
        }
    };
    let request = PublishRequest { program, clear, policy, isolation };
    let published = shared
        .blocking(move |host| host.publish(name.as_deref(), &actor, request).map_err(RequestError::Publish))
        .await?;
    Ok(super::json(StatusCode::OK, &published_json(&published)))
}

pub(super) async fn read_program(
    shared: &Shared,
    parameters: &Parameters,
    headers: &HeaderMap,
    body: Body,
) -> Result<Vec<u8>, RequestError> {
    let kind = ProgramKind::find(content_type(headers).as_deref(), parameters.get("host_type"))?;
    kind.program(read_body(headers, body, shared.limits.publish_bytes_max).await?)
}

/// What may happen to clients: `policy` as in the peer's tools, with the token of the plan for the one that breaks them.
fn client_policy(parameters: &Parameters) -> Result<ClientPolicy, RequestError> {
    match (parameters.get("policy"), parameters.get("token")) {
        (None | Some("Compatible"), _) => Ok(ClientPolicy::Compatible),
        (Some("BreakClients"), Some(token)) => Ok(ClientPolicy::BreakClients { token: token.to_owned() }),
        (Some("BreakClients"), None) => {
            Err(RequestError::BadParameter { name: "token", expected: "the token of the plan, from pre_publish" })
        }
        (Some(_), _) => Err(RequestError::BadParameter { name: "policy", expected: "Compatible or BreakClients" }),
    }
}

/// `POST /v1/database/:name/pre_publish`: what publishing the module would do. Beside the peer's fields the plan has its steps.
pub(crate) async fn pre_publish(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    Extension(identified): Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    let parameters = Parameters::parse(query.as_deref().unwrap_or(""))?;
    let colored = match parameters.get("style") {
        None | Some("NoColor") => false,
        Some("AnsiColor") => true,
        Some(_) => return Err(RequestError::BadParameter { name: "style", expected: "NoColor or AnsiColor" }),
    };
    let program = read_program(&shared, &parameters, &headers, body).await?;
    let actor = identified.actor();
    let plan = shared.blocking(move |host| host.plan(&name, &actor, &program).map_err(RequestError::Publish)).await?;
    let text = plan.render(colored);
    let value = match &plan {
        PublishPlan::Update(plan) => json!({ "AutoMigrate": {
            "migrate_plan": text,
            "break_clients": plan.breaks_clients(),
            "token": plan.token,
            "major_version_upgrade": false,
            "steps": plan.steps.iter().map(|step| json!({
                "text": step.to_string(),
                "break_clients": step.breaks_clients(),
            })).collect::<Vec<_>>(),
        } }),
        PublishPlan::Incompatible(changes) => json!({ "ManualMigrate": {
            "reason": text,
            "major_version_upgrade": false,
            "changes": changes.iter().map(|change| json!({
                "text": change.to_string(),
                "advice": change.advice(),
            })).collect::<Vec<_>>(),
        } }),
    };
    Ok(super::json(StatusCode::OK, &value))
}

/// `PUT /v1/database/:name/reset`: starts over without data, with the module of the body or, if that is empty, the present one.
pub(crate) async fn reset(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    Extension(identified): Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    let parameters = Parameters::parse(query.as_deref().unwrap_or(""))?;
    let program = read_program(&shared, &parameters, &headers, body).await?;
    let program = if program.is_empty() { None } else { Some(program) };
    let actor = identified.actor();
    let published =
        shared.blocking(move |host| host.reset(&name, &actor, program).map_err(RequestError::Publish)).await?;
    Ok(super::json(StatusCode::OK, &published_json(&published)))
}

fn published_json(published: &Published) -> Value {
    json!({ "Success": {
        "domain": published.name.as_deref(),
        "database_identity": published.database_identity.to_hex(),
        "op": if published.created { "created" } else { "updated" },
    } })
}

/// What the body of a publish is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProgramKind {
    /// The bytes of a source bundle.
    Bundle,
    /// One file of this name.
    File(&'static str),
}

impl ProgramKind {
    /// The content type decides, then the `host_type` parameter; without either it is a bundle.
    fn find(content_type: Option<&str>, host_type: Option<&str>) -> Result<ProgramKind, RequestError> {
        match content_type {
            Some("application/x-tine-source") => return Ok(ProgramKind::Bundle),
            Some("text/typescript" | "application/typescript" | "text/x-typescript") => {
                return Ok(ProgramKind::File("index.ts"));
            }
            Some("application/javascript" | "text/javascript") => return Ok(ProgramKind::File("index.js")),
            Some("application/wasm") => return Err(RequestError::WasmUnsupported),
            _ => {}
        }
        match host_type {
            None => Ok(ProgramKind::Bundle),
            Some("Ts") => Ok(ProgramKind::File("index.ts")),
            Some("Js") => Ok(ProgramKind::File("index.js")),
            Some("Wasm") => Err(RequestError::WasmUnsupported),
            Some(_) => Err(RequestError::BadParameter { name: "host_type", expected: "Js or Ts" }),
        }
    }

    /// The program's bytes as the host takes them.
    fn program(self, body: Bytes) -> Result<Vec<u8>, RequestError> {
        match self {
            ProgramKind::Bundle if body.starts_with(b"\0asm") => Err(RequestError::WasmUnsupported),
            ProgramKind::Bundle => Ok(body.to_vec()),
            ProgramKind::File(name) => {
                let text = String::from_utf8(body.to_vec());
                let text = text.map_err(|_| RequestError::BadBody("the source is not UTF-8".to_owned()))?;
                Ok(SourceBundle::single(name, text).encode())
            }
        }
    }
}

/// `GET /v1/database`: the caller's databases; all of them for the administrator.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(identified): Who,
) -> Result<Response, RequestError> {
    Ok(super::json(StatusCode::OK, &json!({ "databases": visible_json(&shared, &identified) })))
}

/// The databases a caller may list, with their forks.
pub(super) fn visible_json(shared: &Shared, identified: &Identified) -> Vec<Value> {
    let mut databases = Vec::new();
    for database in shared.host.databases() {
        if !identified.is_admin && database.owner != identified.caller.identity {
            continue;
        }
        // One that was deleted meanwhile is left out.
        if let Ok(forks) = shared.host.fork_list(&database.identity.to_hex()) {
            databases.push(database_json(&database, forks.iter().map(forks::fork_json).collect()));
        }
    }
    databases
}

fn database_json(database: &DatabaseInfo, forks: Vec<Value>) -> Value {
    json!({
        "name": database.name.as_deref(),
        "identity": database.identity.to_hex(),
        "owner": database.owner.to_hex(),
        "locked": database.locked,
        "forks": forks,
    })
}

/// `GET /v1/database/:name`.
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Response, RequestError> {
    let fork = shared.host.resolve(&name)?;
    let value = json!({
        "database_identity": identity_json(fork.database_identity()),
        "owner_identity": identity_json(fork.owner()),
        "host_type": { "Js": [] },
        "initial_program": hash_text(fork.module().hash()),
    });
    Ok(super::json(StatusCode::OK, &value))
}

fn identity_json(identity: Identity) -> Value {
    json!({ "__identity__": format!("0x{}", identity.to_hex()) })
}

fn hash_text(hash: &[u8; 32]) -> String {
    hash.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// `DELETE /v1/database/:name`. One that is not there counts as deleted.
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    Extension(identified): Who,
) -> Result<Response, RequestError> {
    let with_forks = Parameters::parse(query.as_deref().unwrap_or(""))?.boolean("forks")?.unwrap_or(false);
    let actor = identified.actor();
    let deleted = shared.blocking(move |host| Ok(host.delete(&name, &actor, with_forks))).await?;
    match deleted {
        Ok(()) | Err(HostError::NotFound(_)) => Ok(StatusCode::OK.into_response()),
        Err(error) => Err(error.into()),
    }
}

/// `POST /v1/database/:name/lock`: a locked database refuses to be deleted and to start over.
pub(crate) async fn lock(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Extension(identified): Who,
) -> Result<StatusCode, RequestError> {
    set_locked(&shared, name, &identified, true).await
}

/// `POST /v1/database/:name/unlock`.
pub(crate) async fn unlock(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Extension(identified): Who,
) -> Result<StatusCode, RequestError> {
    set_locked(&shared, name, &identified, false).await
}

async fn set_locked(
    shared: &Arc<Shared>,
    name: String,
    identified: &Identified,
    locked: bool,
) -> Result<StatusCode, RequestError> {
    let actor = identified.actor();
    shared.blocking(move |host| Ok(host.set_locked(&name, &actor, locked)?)).await?;
    Ok(StatusCode::OK)
}

/// `GET /v1/database/:name/names`.
pub(crate) async fn names(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Response, RequestError> {
    let database = shared.host.database(&name)?;
    let names: Vec<&str> = database.names.iter().map(AsRef::as_ref).collect();
    Ok(super::json(StatusCode::OK, &json!({ "names": names })))
}

/// `POST /v1/database/:name/names`: one more name, as plain text.
pub(crate) async fn add_name(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Extension(identified): Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    let body = read_body(&headers, body, shared.limits.body_bytes_max).await?;
    let wrong = || RequestError::BadBody("the name is not UTF-8".to_owned());
    let added = std::str::from_utf8(&body).map_err(|_| wrong())?.trim().to_owned();
    let identity = shared.host.database(&name)?.identity.to_hex();
    let (actor, domain) = (identified.actor(), added.clone());
    let done = shared.blocking(move |host| Ok(host.add_name(&name, &actor, &added))).await?;
    match done {
        Ok(()) => {
            let success = json!({ "Success": { "domain": domain, "database_identity": identity } });
            Ok(super::json(StatusCode::OK, &success))
        }
        Err(error @ HostError::NameTaken(_)) => {
            Ok(refused_name(error, StatusCode::UNAUTHORIZED, &json!({ "PermissionDenied": { "domain": domain } })))
        }
        Err(error) => Err(error.into()),
    }
}

/// A refusal in the form that the peer's tools read, with the error's own code.
fn refused_name(error: HostError, status: StatusCode, body: &Value) -> Response {
    let mut response = RequestError::from(error).into_response();
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body.to_string());
    response
}

/// `PUT /v1/database/:name/names`: these names and no others, as a JSON array.
pub(crate) async fn set_names(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Extension(identified): Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    let body = read_body(&headers, body, shared.limits.body_bytes_max).await?;
    let parsed: Option<Value> = serde_json::from_slice(&body).ok();
    let texts = |list: Value| match list {
        Value::Array(list) => list.into_iter().map(|name| name.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    let wrong = || RequestError::BadBody("expected a JSON array of names".to_owned());
    let names: Vec<String> = parsed.and_then(texts).ok_or_else(wrong)?;
    let (actor, database) = (identified.actor(), shared.host.database(&name)?.identity.to_hex());
    let done = shared.blocking(move |host| Ok(host.set_names(&name, &actor, &names))).await?;
    match done {
        Ok(()) => Ok(super::json(StatusCode::OK, &json!("Success"))),
        Err(error @ HostError::NotAuthorized { .. }) => {
            let body = json!({ "NotYourDatabase": { "database": database } });
            Ok(refused_name(error, StatusCode::UNAUTHORIZED, &body))
        }
        Err(error @ HostError::NameTaken(_)) => {
            let text = json!(error.to_string());
            Ok(refused_name(error, StatusCode::BAD_REQUEST, &text))
        }
        Err(error) => Err(error.into()),
    }
}

/// `GET /v1/database/:name/identity`: the identity of the fork that was named, or of the database.
pub(crate) async fn identity(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<String, RequestError> {
    let fork = shared.host.resolve(&name)?;
    let is_main = &*fork.fork_name() == tine_host::MAIN;
    Ok(if is_main { fork.database_identity() } else { fork.fork_identity() }.to_hex())
}

/// `GET /v1/database/:name/schema?version=9|10`.
pub(crate) async fn schema(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, RequestError> {
    let parameters = Parameters::parse(query.as_deref().unwrap_or(""))?;
    let to_json = match parameters.get("version") {
        Some("9") => super::schema_v9::to_json_v9,
        Some("10") => ModuleDef::to_json,
        _ => return Err(RequestError::BadParameter { name: "version", expected: "9 or 10" }),
    };
    let fork = shared.host.resolve(&name)?;
    Ok(super::json(StatusCode::OK, &to_json(fork.module().def())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_program() {
        let file = ProgramKind::File;
        let cases = [
            (None, None, Ok(ProgramKind::Bundle)),
            (Some("application/x-tine-source"), Some("Js"), Ok(ProgramKind::Bundle)),
            (Some("text/typescript"), None, Ok(file("index.ts"))),
            (Some("application/javascript"), None, Ok(file("index.js"))),
            (Some("application/octet-stream"), Some("Ts"), Ok(file("index.ts"))),
            (None, Some("Js"), Ok(file("index.js"))),
            (None, Some("Wasm"), Err("TN0736")),
            (Some("application/wasm"), None, Err("TN0736")),
            (None, Some("js"), Err("TN0723")),
        ];
        for (content_type, host_type, expected) in cases {
            let found = ProgramKind::find(content_type, host_type).map_err(|error| error.code());
            assert_eq!(found, expected, "{content_type:?} {host_type:?}");
        }
    }
}
