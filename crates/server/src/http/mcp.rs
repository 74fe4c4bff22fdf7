//! Databases as tools of a language model: the Model Context Protocol over plain HTTP.
//!
//! One POST carries one JSON-RPC 2.0 message, and its reply is one JSON document. The server keeps no
//! session and never speaks first, so there is no event stream (GET is 405) and no session id, and
//! `tools/call` needs no `initialize` before it. Batches are refused in every version, although
//! 2025-03-26 has them: a request that runs many calls would escape the bounds of one request.
//!
//! Three levels of failure, so that each is seen by whom it concerns. What every route refuses (a bad
//! token, an unknown database in the address, a large body) is an HTTP error like anywhere else. What
//! is no proper message is a JSON-RPC error; it comes with status 400 when not even a request was
//! recognised. What a tool could not do, its arguments included, is a result with `isError`, because
//! that is what the model gets to read: the text starts with the stable code, which `_meta` repeats.
//!
//! Tools run with the caller's rights and through the functions of the routes `call`, `sql` and
//! `schema`; a result is confirmed before it is told. `Origin` is not checked: callers are known by a
//! token in a header, never by a cookie, so another site's page gains nothing from a browser.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tine_host::{CallArguments, ForkHandle};

use super::{Identified, Who, call, database, micros, read_body};
use crate::error::RequestError;
use crate::server::Shared;

/// Versions of the protocol that are spoken, newest first. What is used of it is the same in all.
const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// Header in which later requests repeat the version agreed on.
const VERSION_HEADER: &str = "mcp-protocol-version";

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;

/// `POST /v1/database/:name/mcp`: the tools of one database or fork.
pub(crate) async fn database(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Extension(identified): Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    call::require_json(&headers)?;
    let scope = Scope::Database(shared.host.resolve(&name)?);
    answer(&shared, &scope, &identified, &headers, body).await
}

/// `POST /v1/mcp`: the tools of all databases; which one is an argument.
pub(crate) async fn host(
    State(shared): State<Arc<Shared>>,
    Extension(identified): Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    call::require_json(&headers)?;
    answer(&shared, &Scope::Host, &identified, &headers, body).await
}

/// What an endpoint is about.
enum Scope {
    Host,
    Database(ForkHandle),
}

/// A JSON-RPC error.
struct Refusal {
    code: i32,
    message: String,
}

impl Refusal {
    fn new(code: i32, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }
}

async fn answer(
    shared: &Arc<Shared>,
    scope: &Scope,
    identified: &Identified,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, RequestError> {
    let body = read_body(headers, body, shared.limits.body_bytes_max).await?;
    let message = match check_version(headers).and_then(|()| Message::parse(&body)) {
        Ok(message) => message,
        Err(refusal) => return Ok(super::json(StatusCode::BAD_REQUEST, &error_json(Value::Null, &refusal))),
    };
    let Some(id) = message.id else {
        // A notification. The ones there are tell how the client is; none changes what comes next.
        return Ok(StatusCode::ACCEPTED.into_response());
    };
    let result = match message.method.as_str() {
        "initialize" => Ok(initialize_json(&message.params)),
        "ping" => Ok(json!({})),
        "tools/list" => Ok(tools_json(scope)),
        "tools/call" => call_tool(shared, scope, identified, message.params).await,
        method => Err(Refusal::new(METHOD_NOT_FOUND, format!("there is no method `{method}`"))),
    };
    let reply = match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(refusal) => error_json(id, &refusal),
    };
    Ok(super::json(StatusCode::OK, &reply))
}

/// A client that says which version it speaks must have been offered that one.
fn check_version(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(VERSION_HEADER) {
        Some(version) if !VERSIONS.iter().any(|known| version == known) => {
            Err(Refusal::new(INVALID_REQUEST, format!("unknown protocol version: expected one of {VERSIONS:?}")))
        }
        _ => Ok(()),
    }
}

/// A request, or a notification if it has no id.
#[derive(Debug)]
struct Message {
    id: Option<Value>,
    method: String,
    /// Empty when there are none.
    params: Value,
}

impl Message {
    fn parse(body: &[u8]) -> Result<Message, Refusal> {
        let invalid = |message: &str| Refusal::new(INVALID_REQUEST, message);
        let mut fields = match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => fields,
            Ok(Value::Array(_)) => return Err(invalid("batches are not taken: send one request at a time")),
            Ok(_) => return Err(invalid("expected an object")),
            Err(error) => return Err(Refusal::new(PARSE_ERROR, error.to_string())),
        };
        if fields.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return Err(invalid("expected `jsonrpc` to be \"2.0\""));
        }
        let id = fields.remove("id");
        if !matches!(id, None | Some(Value::String(_) | Value::Number(_))) {
            return Err(invalid("expected `id` to be a string or a number"));
        }
        let Some(Value::String(method)) = fields.remove("method") else {
            return Err(invalid("expected `method` to be a string"));
        };
        let params = fields.remove("params").unwrap_or_else(|| json!({}));
        Ok(Message { id, method, params })
    }
}

fn error_json(id: Value, refusal: &Refusal) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": refusal.code, "message": refusal.message } })
}

/// The client's version if it is known, else the newest, which the client may then refuse.
fn initialize_json(params: &Value) -> Value {
    let asked = params["protocolVersion"].as_str();
    let version = VERSIONS.iter().find(|known| asked == Some(known)).unwrap_or(&VERSIONS[0]);
    json!({
        "protocolVersion": version,
        "capabilities": { "tools": {} },
        "serverInfo": { "name": "tine", "version": env!("CARGO_PKG_VERSION") },
        "instructions": "Read the schema first: it has the names of tables and columns for `sql`, and of functions \
                         and their parameters for `call`.",
    })
}

/// Something a model may ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    ListDatabases,
    Ping,
    GetSchema,
    Sql,
    Call,
}

impl Tool {
    const ALL: [Tool; 5] = [Tool::ListDatabases, Tool::Ping, Tool::GetSchema, Tool::Sql, Tool::Call];

    fn name(self) -> &'static str {
        match self {
            Tool::ListDatabases => "list_databases",
            Tool::Ping => "ping",
            Tool::GetSchema => "get_schema",
            Tool::Sql => "sql",
            Tool::Call => "call",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Tool::ListDatabases => "Lists the caller's databases with their forks; the administrator sees all.",
            Tool::Ping => "Checks that the database is there and tells which one it is.",
            Tool::GetSchema => "Returns the database's tables, types, reducers and procedures.",
            Tool::Sql => "Runs one SELECT statement on the database's tables. It changes nothing.",
            Tool::Call => "Calls a reducer, which may change the database, or a procedure, which returns a value.",
        }
    }

    fn is_in(self, scope: &Scope) -> bool {
        self != Tool::ListDatabases || matches!(scope, Scope::Host)
    }

    /// The arguments as the properties of a JSON schema, and the names of those that must be there.
    fn inputs(self, scope: &Scope) -> (Map<String, Value>, Vec<&'static str>) {
        let mut properties = Map::new();
        let mut required = Vec::new();
        if self != Tool::ListDatabases && matches!(scope, Scope::Host) {
            let text = "Name or identity of the database; `name@fork` for one of its forks.";
            properties.insert("database".to_owned(), json!({ "type": "string", "description": text }));
            required.push("database");
        }
        match self {
            Tool::Sql => {
                let text = "The statement, such as SELECT * FROM person WHERE id = 1.";
                properties.insert("query".to_owned(), json!({ "type": "string", "description": text }));
                required.push("query");
            }
            Tool::Call => {
                let text = "Name of the reducer or procedure.";
                properties.insert("function".to_owned(), json!({ "type": "string", "description": text }));
                let text = "An array in order of the parameters or an object by their names; none if left out.";
                let arguments = json!({ "type": ["array", "object"], "description": text });
                properties.insert("arguments".to_owned(), arguments);
                required.push("function");
            }
            Tool::ListDatabases | Tool::Ping | Tool::GetSchema => {}
        }
        (properties, required)
    }

    fn to_json(self, scope: &Scope) -> Value {
        let (properties, required) = self.inputs(scope);
        json!({
            "name": self.name(),
            "description": self.description(),
            "inputSchema": {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": false,
            },
            "annotations": { "readOnlyHint": self != Tool::Call },
        })
    }
}

fn tools_json(scope: &Scope) -> Value {
    let tools: Vec<Value> = Tool::ALL.iter().filter(|tool| tool.is_in(scope)).map(|tool| tool.to_json(scope)).collect();
    json!({ "tools": tools })
}

async fn call_tool(
    shared: &Arc<Shared>,
    scope: &Scope,
    identified: &Identified,
    mut params: Value,
) -> Result<Value, Refusal> {
    let invalid = |message: String| Refusal::new(INVALID_PARAMS, message);
    let name = params["name"].as_str();
    let name = name.ok_or_else(|| invalid("expected `name` to be the name of a tool".to_owned()))?;
    let found = Tool::ALL.into_iter().find(|tool| tool.name() == name && tool.is_in(scope));
    let tool = found.ok_or_else(|| invalid(format!("there is no tool `{name}`")))?;
    let arguments = match params["arguments"].take() {
        Value::Null => Map::new(),
        Value::Object(arguments) => arguments,
        _ => return Err(invalid("expected `arguments` to be an object".to_owned())),
    };
    Ok(match run(shared, scope, identified, tool, arguments).await {
        Ok(value) => json!({ "content": [text_json(value.to_string())], "isError": false }),
        Err(error) => {
            if error.is_ours() {
                shared.metrics.requests_failed.increment();
                tracing::warn!(tool = tool.name(), code = error.code(), %error, "tool failed");
            }
            let text = format!("{}: {error}", error.code());
            json!({ "content": [text_json(text)], "isError": true, "_meta": { "tine-error": error.code() } })
        }
    })
}

fn text_json(text: String) -> Value {
    json!({ "type": "text", "text": text })
}

async fn run(
    shared: &Arc<Shared>,
    scope: &Scope,
    identified: &Identified,
    tool: Tool,
    mut arguments: Map<String, Value>,
) -> Result<Value, RequestError> {
    let (known, _) = tool.inputs(scope);
    if arguments.keys().any(|name| !known.contains_key(name)) {
        // Not ignored: `database` on the endpoint of another one would act on the wrong data.
        return Err(RequestError::BadParameter { name: "arguments", expected: "only those of the tool's schema" });
    }
    let resolved;
    let fork = match scope {
        Scope::Database(fork) => fork,
        Scope::Host if tool == Tool::ListDatabases => {
            return Ok(json!({ "databases": database::visible_json(shared, identified) }));
        }
        Scope::Host => {
            resolved = shared.host.resolve(text(&arguments, "database")?)?;
            &resolved
        }
    };
    match tool {
        Tool::ListDatabases => unreachable!("only the host's endpoint has this tool"),
        Tool::Ping => Ok(json!({
            "database_identity": fork.database_identity().to_hex(),
            "fork": &*fork.fork_name(),
            "fork_identity": fork.fork_identity().to_hex(),
        })),
        Tool::GetSchema => Ok(fork.module().def().to_json()),
        Tool::Sql => {
            let reply = call::run_statement(shared, fork, identified, text(&arguments, "query")?, true).await?;
            Ok(call::statement_json(reply.value, micros(reply.duration)))
        }
        Tool::Call => {
            let given = match arguments.remove("arguments") {
                None | Some(Value::Null) => Value::Array(Vec::new()),
                Some(given @ (Value::Array(_) | Value::Object(_))) => given,
                _ => return Err(RequestError::BadParameter { name: "arguments", expected: "an array or an object" }),
            };
            let (function, given) = (text(&arguments, "function")?, CallArguments::Json(given));
            let reply = call::run_function(shared, fork, identified, function, given, true).await?;
            let mut result = json!({ "lsn": reply.lsn.get(), "duration_micros": micros(reply.duration) });
            if let Some(value) = reply.value {
                result["returned"] = value;
            }
            Ok(result)
        }
    }
}

/// An argument that must be there, as text.
fn text<'a>(arguments: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, RequestError> {
    arguments.get(name).and_then(Value::as_str).ok_or(RequestError::BadParameter { name, expected: "text" })
}
