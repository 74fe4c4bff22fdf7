//! The blocking HTTP routes.
//!
//! An [`HttpClient`] keeps its connections open between requests and may be shared by threads. In an
//! async program call it from `spawn_blocking`.

mod redo;
pub(crate) mod reply;

use std::{
    io::{BufRead, BufReader},
    marker::PhantomData,
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::{HeaderMap, Method, Request, Response};

pub use self::redo::{HistoryOptions, RedoLine, RedoOptions, RedoProgress};
use self::reply::Reply;
pub use self::reply::{
    Called, ChangedRows, Database, ERROR_CODE_HEADER, Fork, ForkOrigin, IdentityToken, LogRecord, PublishPlan,
    Published, SqlResult,
};
use crate::{
    address::{ServerAddress, encode_segment},
    error::ClientError,
};

/// Header that carries the local admin token of a server's data directory.
pub const ADMIN_TOKEN_HEADER: &str = "tine-admin-token";
/// Content type of a source bundle (`tine_module::SourceBundle`, encoded).
pub const CONTENT_TYPE_SOURCE: &str = "application/x-tine-source";
/// Content type of a single TypeScript file.
pub const CONTENT_TYPE_TYPESCRIPT: &str = "text/typescript";
/// Content type of a single JavaScript file or a built bundle.
pub const CONTENT_TYPE_JAVASCRIPT: &str = "application/javascript";

/// Bound on connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bound on a whole request: publishing a large module and long procedures included.
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);
/// Largest reply body taken, in bytes.
const REPLY_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Longest line of a reply that comes line by line, in bytes.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A client for the HTTP routes of one server.
#[derive(Clone, Debug)]
pub struct HttpClient {
    address: ServerAddress,
    agent: ureq::Agent,
    token: Option<String>,
    admin_token: Option<String>,
    request_timeout: Duration,
}

/// How to publish.
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    /// Start over without the data that is there.
    pub clear: bool,
    /// The token of a plan ([`HttpClient::pre_publish`]) that breaks connected clients, which are then disconnected.
    pub break_clients: Option<String>,
    /// Where the module is to run, `in-process` or `process`; `None`: as before, or where the server says.
    pub isolation: Option<String>,
}

/// An older version of a fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForkPoint {
    /// By its number.
    Lsn(u64),
    /// The last one at or before a time, written as in RFC 3339.
    Time(String),
}

impl ForkPoint {
    fn to_json(&self) -> Value {
        match self {
            ForkPoint::Lsn(lsn) => json!(lsn),
            ForkPoint::Time(time) => json!(time),
        }
    }
}

/// How to make a fork.
#[derive(Clone, Debug, Default)]
pub struct ForkOptions {
    /// Never on disk, and gone when the server ends.
    pub ephemeral: bool,
    /// The version it starts from; the newest without.
    pub at: Option<ForkPoint>,
    /// How long it lives; for ever without.
    pub ttl: Option<Duration>,
    /// Whether its schedules run.
    pub resume_schedules: bool,
    /// Whether the module hears on the fork that the parent's clients have gone.
    pub disconnect_clients: bool,
}

impl HttpClient {
    /// A client for the server at `http://host:port`; nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::BadUrl`].
    pub fn new(url: &str) -> Result<HttpClient, ClientError> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent(concat!("tine-client/", env!("CARGO_PKG_VERSION")))
            .max_redirects(0)
            .proxy(None)
            .build();
        Ok(HttpClient {
            address: ServerAddress::parse(url)?,
            agent: ureq::Agent::new_with_config(config),
            token: None,
            admin_token: None,
            request_timeout: REQUEST_TIMEOUT_DEFAULT,
        })
    }

    /// The same, acting as the identity of `token`.
    pub fn with_token(mut self, token: impl Into<String>) -> HttpClient {
        self.token = Some(token.into());
        self
    }

    /// The same, with the local admin token of the server's data directory.
    pub fn with_admin_token(mut self, token: impl Into<String>) -> HttpClient {
        self.admin_token = Some(token.into());
        self
    }

    /// The same, with another bound on each request.
    pub fn with_request_timeout(mut self, limit: Duration) -> HttpClient {
        self.request_timeout = limit;
        self
    }

    /// The server's address, `http://host:port`.
    pub fn url(&self) -> String {
        self.address.http("")
    }

    /// Makes a new anonymous identity.
    ///
    /// # Errors
    /// The transport's.
    pub fn create_identity(&self) -> Result<IdentityToken, ClientError> {
        self.send(Method::POST, "/v1/identity", None)?.success()?.json()
    }

    /// Asks whether this client's token is valid and `identity`'s.
    ///
    /// # Errors
    /// 401 when the token is not valid, 400 when it is another identity's.
    pub fn verify_identity(&self, identity: &str) -> Result<(), ClientError> {
        self.send(Method::GET, &format!("/v1/identity/{}/verify", encode_segment(identity)), None)?.success()?;
        Ok(())
    }

    /// Creates or updates a database from a program of the given content type. Without a name a
    /// database is always created.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the compiler's words when the program is wrong, 403 when the
    /// database is somebody else's.
    pub fn publish(
        &self,
        name: Option<&str>,
        content_type: &str,
        program: Vec<u8>,
        options: PublishOptions,
    ) -> Result<Published, ClientError> {
        let (method, mut path) = match name {
            Some(name) => (Method::PUT, database_path(name, "")),
            None => (Method::POST, "/v1/database".to_owned()),
        };
        let mut parameters = Vec::new();
        parameters.extend(options.clear.then(|| "clear=true".to_owned()));
        if let Some(token) = &options.break_clients {
            parameters.push(format!("policy=BreakClients&token={}", encode_segment(token)));
        }
        parameters.extend(options.isolation.map(|mode| format!("isolation={}", encode_segment(&mode))));
        if !parameters.is_empty() {
            path.push_str(&format!("?{}", parameters.join("&")));
        }
        self.send(method, &path, Some((content_type, program)))?.success()?.published()
    }

    /// What publishing a program to a database or fork would do. Changes nothing.
    ///
    /// # Errors
    /// 404 when there is no such database; 400 or 500 when the program is not a module.
    pub fn pre_publish(
        &self,
        database: &str,
        content_type: &str,
        program: Vec<u8>,
        colored: bool,
    ) -> Result<PublishPlan, ClientError> {
        let style = if colored { "AnsiColor" } else { "NoColor" };
        let path = database_path(database, &format!("/pre_publish?style={style}"));
        self.send(Method::POST, &path, Some((content_type, program)))?.success()?.plan()
    }

    /// Starts a database or fork over, without data, with the module it has.
    ///
    /// # Errors
    /// 404 when there is no such database, 403 when it is somebody else's.
    pub fn reset(&self, database: &str) -> Result<Published, ClientError> {
        let body = Some((CONTENT_TYPE_SOURCE, Vec::new()));
        self.send(Method::PUT, &database_path(database, "/reset"), body)?.success()?.published()
    }

    /// Calls a reducer or procedure. `arguments` is an array, or an object by parameter name.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: 530 when the call itself failed, 404 when there is no such function,
    /// 400 when the arguments do not fit.
    pub fn call(&self, database: &str, function: &str, arguments: &Value) -> Result<Called, ClientError> {
        let path = database_path(database, &format!("/call/{}", encode_segment(function)));
        let body = arguments.to_string().into_bytes();
        let reply = self.send(Method::POST, &path, Some(("application/json", body)))?.success()?;
        let value = if reply.body.is_empty() { None } else { Some(reply.json()?) };
        Ok(Called { value, duration_us: reply.duration_us })
    }

    /// Runs one SQL statement.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with status 400 when the statement is wrong or not supported.
    pub fn sql(&self, database: &str, statement: &str) -> Result<Vec<SqlResult>, ClientError> {
        let body = statement.as_bytes().to_vec();
        self.send(Method::POST, &database_path(database, "/sql"), Some(("text/plain", body)))?.success()?.sql()
    }

    /// The module definition, as SATS-JSON of version 10. [`crate::schema::Schema`] reads it.
    ///
    /// # Errors
    /// 404 when there is no such database.
    pub fn schema_json(&self, database: &str) -> Result<Value, ClientError> {
        self.send(Method::GET, &database_path(database, "/schema?version=10"), None)?.success()?.json()
    }

    /// The module definition, read.
    ///
    /// # Errors
    /// 404 when there is no such database.
    pub fn schema(&self, database: &str) -> Result<crate::schema::Schema, ClientError> {
        let value = self.schema_json(database)?;
        crate::schema::Schema::from_json(&value)
            .map_err(|error| ClientError::BadReply { route: "GET schema".to_owned(), reason: error.to_string() })
    }

    /// Facts about a database, as SATS-JSON.
    ///
    /// # Errors
    /// 404 when there is no such database.
    pub fn database_json(&self, database: &str) -> Result<Value, ClientError> {
        self.send(Method::GET, &database_path(database, ""), None)?.success()?.json()
    }

    /// The databases this caller may see, with their forks.
    ///
    /// # Errors
    /// The transport's.
    pub fn databases(&self) -> Result<Vec<Database>, ClientError> {
        #[derive(Deserialize)]
        struct List {
            databases: Vec<Database>,
        }
        Ok(self.send(Method::GET, "/v1/database", None)?.success()?.json::<List>()?.databases)
    }

    /// Deletes a database; one that has forks only with `with_forks`. A database that does not exist
    /// counts as deleted.
    ///
    /// # Errors
    /// 409 when it has forks, 403 when it is somebody else's.
    pub fn delete(&self, database: &str, with_forks: bool) -> Result<(), ClientError> {
        let tail = if with_forks { "?forks=true" } else { "" };
        self.send(Method::DELETE, &database_path(database, tail), None)?.success()?;
        Ok(())
    }

    /// The last `lines` log records, oldest first; the server chooses how many without a number.
    ///
    /// # Errors
    /// 403 when the database is somebody else's.
    pub fn logs(&self, database: &str, lines: Option<u32>) -> Result<Vec<LogRecord>, ClientError> {
        let reply = self.send(Method::GET, &logs_path(database, lines, false), None)?.success()?;
        let records = reply.body.lines().filter(|line| !line.trim().is_empty());
        records.map(|line| serde_json::from_str(line).map_err(|error| reply.misunderstood(error.to_string()))).collect()
    }

    /// The last `lines` log records and then every new one, as long as the connection lasts. The only
    /// wait without a deadline: a quiet module logs nothing.
    ///
    /// # Errors
    /// As [`HttpClient::logs`].
    pub fn follow_logs(&self, database: &str, lines: Option<u32>) -> Result<LogLines, ClientError> {
        self.lines(&Method::GET, &logs_path(database, lines, true), None)
    }

    /// A reply of one JSON value per line, read as it comes.
    fn lines<T>(
        &self,
        method: &Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<JsonLines<T>, ClientError> {
        let response = self.exchange(method, path, body, None)?;
        let route = format!("{method} {path}");
        if !response.status().is_success() {
            let refused = self.read(method, path, response)?.success();
            return Err(refused
                .err()
                .unwrap_or(ClientError::BadReply { route, reason: "an unexpected status".to_owned() }));
        }
        Ok(JsonLines { reader: response_reader(response), route, kind: PhantomData })
    }

    /// Makes a fork of a database (or of `name@fork`) at its head.
    ///
    /// # Errors
    /// 404 without such a parent, 409 when the name is taken, 403 when it is somebody else's.
    pub fn create_fork(&self, parent: &str, name: &str, ephemeral: bool) -> Result<Fork, ClientError> {
        self.create_fork_with(parent, name, &ForkOptions { ephemeral, ..ForkOptions::default() })
    }

    /// Makes a fork as `options` say.
    ///
    /// # Errors
    /// As for [`HttpClient::create_fork`]; 410 when the version is not retained any more, 400 when it is not there yet.
    pub fn create_fork_with(&self, parent: &str, name: &str, options: &ForkOptions) -> Result<Fork, ClientError> {
        let body = json!({
            "name": name,
            "ephemeral": options.ephemeral,
            "at": options.at.as_ref().map(ForkPoint::to_json),
            "ttl_ms": options.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            "resume_schedules": options.resume_schedules,
            "disconnect_clients": options.disconnect_clients,
        });
        let body = Some(("application/json", body.to_string().into_bytes()));
        self.send(Method::POST, &database_path(parent, "/forks"), body)?.success()?.json()
    }

    /// Moves a fork's name to a new fork: of the version `at` of itself or of the fork `from`, whose newest it is without.
    ///
    /// # Errors
    /// As for [`HttpClient::create_fork_with`].
    pub fn reset_fork(
        &self,
        database: &str,
        fork: &str,
        from: Option<&str>,
        at: Option<&ForkPoint>,
    ) -> Result<Fork, ClientError> {
        let body = json!({ "from": from, "at": at.map(ForkPoint::to_json) }).to_string().into_bytes();
        let path = format!("{}/reset", fork_path(database, fork));
        self.send(Method::POST, &path, Some(("application/json", body)))?.success()?.json()
    }

    /// Lets the schedules of a fork run.
    ///
    /// # Errors
    /// 404 when there is no such fork, 403 when it is somebody else's.
    pub fn resume_fork(&self, database: &str, fork: &str) -> Result<Fork, ClientError> {
        self.send(Method::POST, &format!("{}/resume", fork_path(database, fork)), None)?.success()?.json()
    }

    /// The forks of a database, `main` first.
    ///
    /// # Errors
    /// 404 when there is no such database.
    pub fn forks(&self, database: &str) -> Result<Vec<Fork>, ClientError> {
        #[derive(Deserialize)]
        struct List {
            forks: Vec<Fork>,
        }
        Ok(self.send(Method::GET, &database_path(database, "/forks"), None)?.success()?.json::<List>()?.forks)
    }

    /// One fork of a database.
    ///
    /// # Errors
    /// 404 when there is no such database or fork.
    pub fn fork(&self, database: &str, fork: &str) -> Result<Fork, ClientError> {
        self.send(Method::GET, &fork_path(database, fork), None)?.success()?.json()
    }

    /// Gives a fork another name.
    ///
    /// # Errors
    /// 404, 409 when the new name is taken, 403.
    pub fn rename_fork(&self, database: &str, fork: &str, name: &str) -> Result<Fork, ClientError> {
        let body = json!({ "name": name }).to_string().into_bytes();
        self.send(Method::PATCH, &fork_path(database, fork), Some(("application/json", body)))?.success()?.json()
    }

    /// Deletes a fork.
    ///
    /// # Errors
    /// 404, 403, and a refusal for `main`.
    pub fn delete_fork(&self, database: &str, fork: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, &fork_path(database, fork), None)?.success()?;
        Ok(())
    }

    /// The server's metrics in Prometheus text.
    ///
    /// # Errors
    /// The transport's.
    pub fn metrics(&self) -> Result<String, ClientError> {
        Ok(self.send(Method::GET, "/v1/metrics", None)?.success()?.body)
    }

    /// Whether the server is ready to serve.
    ///
    /// # Errors
    /// 503 while it is not.
    pub fn ready(&self) -> Result<(), ClientError> {
        self.send(Method::GET, "/readyz", None)?.success()?;
        Ok(())
    }

    fn send(&self, method: Method, path: &str, body: Option<(&str, Vec<u8>)>) -> Result<Reply, ClientError> {
        let response = self.exchange(&method, path, body, Some(self.request_timeout))?;
        self.read(&method, path, response)
    }

    fn exchange(
        &self,
        method: &Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
        limit: Option<Duration>,
    ) -> Result<Response<ureq::Body>, ClientError> {
        let mut request = Request::builder().method(method).uri(self.address.http(path));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(token) = &self.admin_token {
            request = request.header(ADMIN_TOKEN_HEADER, token);
        }
        let sent = match body {
            Some((content_type, body)) => {
                let request = request.header("content-type", content_type).body(body);
                self.run(request, limit)
            }
            None if *method == Method::POST => self.run(request.body(Vec::new()), limit),
            None => self.run(request.body(()), limit),
        };
        sent.map_err(|error| self.transport_error(error))
    }

    fn run<B: ureq::AsSendBody + 'static>(
        &self,
        request: Result<Request<B>, ureq::http::Error>,
        limit: Option<Duration>,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let request = self.agent.configure_request(request?).timeout_global(limit).build();
        self.agent.run(request)
    }

    fn read(&self, method: &Method, path: &str, mut response: Response<ureq::Body>) -> Result<Reply, ClientError> {
        let body = response.body_mut().with_config().limit(REPLY_BYTES_MAX).read_to_string();
        let header = |name: &str| header_text(response.headers(), name);
        Ok(Reply {
            route: format!("{method} {path}"),
            status: response.status().as_u16(),
            error_code: header(ERROR_CODE_HEADER),
            duration_us: header("spacetime-execution-duration-micros").and_then(|text| text.parse().ok()),
            body: body.map_err(|error| self.transport_error(error))?,
        })
    }

    fn transport_error(&self, error: ureq::Error) -> ClientError {
        use std::io::ErrorKind;
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
            | ureq::Error::ConnectionFailed
            | ureq::Error::HostNotFound => ClientError::Connect { url: self.url(), source: Box::new(error) },
            ureq::Error::Io(io) if matches!(io.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
                ClientError::Connect { url: self.url(), source: Box::new(io) }
            }
            ureq::Error::Timeout(_) => {
                ClientError::Deadline { waiting_for: "the server's reply", after: self.request_timeout }
            }
            ureq::Error::Http(_) | ureq::Error::BadUri(_) => ClientError::BadUrl {
                url: self.url(),
                reason: "it, the path or the token has characters that HTTP forbids",
            },
            other => ClientError::Transport(Box::new(other)),
        }
    }
}

/// Log records as they come. Ends when the server closes the stream.
pub type LogLines = JsonLines<LogRecord>;

/// JSON values as they come, one per line. Ends when the server closes the stream.
pub struct JsonLines<T> {
    reader: BufReader<ureq::BodyReader<'static>>,
    route: String,
    kind: PhantomData<fn() -> T>,
}

impl<T: serde::de::DeserializeOwned> Iterator for JsonLines<T> {
    type Item = Result<T, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        use std::io::Read;
        loop {
            let mut line = Vec::new();
            let read = self.reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            match read {
                Ok(0) => return None,
                Err(error) => return Some(Err(ClientError::Transport(Box::new(error)))),
                Ok(_) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(_) => {
                    let record = serde_json::from_slice(&line);
                    return Some(record.map_err(|error: serde_json::Error| ClientError::BadReply {
                        route: self.route.clone(),
                        reason: error.to_string(),
                    }));
                }
            }
        }
    }
}

fn response_reader(response: Response<ureq::Body>) -> BufReader<ureq::BodyReader<'static>> {
    BufReader::new(response.into_body().into_with_config().limit(u64::MAX).reader())
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn database_path(database: &str, tail: &str) -> String {
    format!("/v1/database/{}{tail}", encode_segment(database))
}

fn fork_path(database: &str, fork: &str) -> String {
    database_path(database, &format!("/forks/{}", encode_segment(fork)))
}

fn logs_path(database: &str, lines: Option<u32>, follow: bool) -> String {
    let lines = lines.map(|lines| format!("&num_lines={lines}")).unwrap_or_default();
    database_path(database, &format!("/logs?follow={follow}{lines}"))
}
