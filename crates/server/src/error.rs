//! Errors as HTTP answers: status, text body and the header `tine-error` with the stable code.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tine_host::{CallFailure, HostError};
use tine_sandbox::CallError as WorkerError;
use tine_store::{ForkError, HistoryError, StoreError};

use crate::auth::{AuthError, IssuerError, KeyError, TokenError};
use crate::ipc::IpcError;

/// Header that carries the stable code of an error.
const ERROR_HEADER: &str = "tine-error";
/// When somebody whose request found no room may try again, in seconds: a full queue is worked off in less.
const RETRY_AFTER_S: &str = "1";

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory's host could not be opened.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The key files are not usable.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A trusted issuer is not one.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// The address could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The system did not give the server a thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// A thread that opened or closed the data directory panicked; the log has the message.
    #[error("opening or closing the data directory ended in a panic")]
    Panicked,
    /// Programs on the same machine cannot be served.
    #[error(transparent)]
    Ipc(#[from] IpcError),
}

impl ServerError {
    /// The stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            ServerError::Host(error) => error.code(),
            ServerError::Keys(error) => error.code(),
            ServerError::Issuer(error) => error.code(),
            ServerError::Listen { .. } => "TN0704",
            ServerError::Panicked => "TN0705",
            ServerError::Thread(_) => "TN0706",
            ServerError::Ipc(error) => error.code(),
        }
    }
}

/// Why a request is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("no valid protocol selected")]
    NoProtocol,
    #[error("this address is a WebSocket: the request must be an upgrade, version 13")]
    UpgradeRequired,
    #[error("the query of the address cannot be decoded")]
    BadQuery,
    #[error("invalid {name}: expected {expected}")]
    BadParameter { name: &'static str, expected: &'static str },
    #[error("the body cannot be read: {0}")]
    BadBody(String),
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    #[error("the header `content-type` is missing: expected {0}")]
    ContentTypeMissing(&'static str),
    #[error("the content type is not supported: expected {0}")]
    ContentTypeUnknown(&'static str),
    #[error("the request took longer than {0} s")]
    TimedOut(u64),
    #[error("the server is shutting down")]
    ShuttingDown,
    #[error("the change was made but cannot be confirmed: {0}")]
    NotDurable(&'static str),
    #[error("no such page")]
    NoSuchRoute,
    #[error("this address does not take the method {0}")]
    MethodNotAllowed(String),
    #[error("the token is not one of the identity `{0}`")]
    OtherIdentity(String),
    #[error("{}", refused_publish(.0))]
    Publish(HostError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Call(#[from] CallFailure),
    #[error("{0}")]
    Statement(CallFailure),
    #[error("WebAssembly modules are not supported: publish TypeScript or JavaScript")]
    WasmUnsupported,
    #[error("`{0}` is a lifecycle hook: the server calls it, clients cannot")]
    LifecycleHook(String),
    #[error("the module has no handler for this path and method")]
    NoHandler,
    #[error("{0}")]
    Handler(CallFailure),
    #[error("the handler's answer has {0} that cannot be sent")]
    BadAnswer(&'static str),
    #[error("the statement is longer than {0} bytes")]
    StatementTooLong(usize),
    #[error("the server cannot take writes: {0}")]
    NotReady(HostError),
    #[error("the request was dropped: the database was closed while it ran")]
    Dropped,
}

/// The two sentences tools recognise.
fn refused_publish(error: &HostError) -> String {
    match error {
        HostError::Schema(_) | HostError::Migrate(_) | HostError::BreaksClients(_) | HostError::PlanOutdated => {
            format!("Database update rejected: {error}")
        }
        HostError::Compile(_) | HostError::Load(_) | HostError::InitFailed(_) | HostError::BadProgram(_) => {
            format!("Failed to create or update the database: {error}")
        }
        _ => error.to_string(),
    }
}

impl RequestError {
    /// The stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            RequestError::Auth(error) => error.code(),
            RequestError::NoProtocol => "TN0720",
            RequestError::UpgradeRequired => "TN0721",
            RequestError::BadQuery => "TN0722",
            RequestError::BadParameter { .. } => "TN0723",
            RequestError::BadBody(_) => "TN0724",
            RequestError::BodyTooLarge(_) => "TN0725",
            RequestError::ContentTypeMissing(_) => "TN0726",
            RequestError::ContentTypeUnknown(_) => "TN0727",
            RequestError::TimedOut(_) => "TN0728",
            RequestError::ShuttingDown => "TN0729",
            RequestError::NotDurable(_) => "TN0730",
            RequestError::NoSuchRoute => "TN0731",
            RequestError::MethodNotAllowed(_) => "TN0732",
            RequestError::OtherIdentity(_) => "TN0733",
            RequestError::Dropped => "TN0734",
            RequestError::WasmUnsupported => "TN0736",
            RequestError::StatementTooLong(_) => "TN0737",
            RequestError::LifecycleHook(_) => "TN0738",
            RequestError::NoHandler => "TN0740",
            RequestError::Handler(error) => error.code(),
            RequestError::BadAnswer(_) => "TN0739",
            RequestError::NotReady(error) => error.code(),
            RequestError::Publish(error) | RequestError::Host(error) => error.code(),
            RequestError::Call(error) | RequestError::Statement(error) => error.code(),
        }
    }

    /// Whether the server failed, and neither the caller nor the module.
    pub fn is_ours(&self) -> bool {
        let status = self.status();
        let is_modules = matches!(self, RequestError::Handler(_) | RequestError::BadAnswer(_));
        status.is_server_error() && status != module_error_status() && !is_modules
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            RequestError::Auth(AuthError::MalformedHeader) => StatusCode::BAD_REQUEST,
            RequestError::Auth(AuthError::Token(TokenError::KeysUnavailable(_))) => StatusCode::SERVICE_UNAVAILABLE,
            RequestError::Auth(_) => StatusCode::UNAUTHORIZED,
            RequestError::NoProtocol
            | RequestError::BadQuery
            | RequestError::BadParameter { .. }
            | RequestError::BadBody(_)
            | RequestError::ContentTypeMissing(_)
            | RequestError::OtherIdentity(_)
            | RequestError::WasmUnsupported
            | RequestError::StatementTooLong(_)
            | RequestError::LifecycleHook(_) => StatusCode::BAD_REQUEST,
            RequestError::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            RequestError::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            RequestError::ContentTypeUnknown(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            RequestError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            RequestError::ShuttingDown | RequestError::NotDurable(_) => StatusCode::SERVICE_UNAVAILABLE,
            RequestError::NotReady(_) | RequestError::Dropped => StatusCode::SERVICE_UNAVAILABLE,
            RequestError::BadAnswer(_) => StatusCode::INTERNAL_SERVER_ERROR,
            RequestError::NoSuchRoute | RequestError::NoHandler => StatusCode::NOT_FOUND,
            RequestError::Handler(failure) => match (failure.code(), call_status(failure)) {
                ("TN0638", _) => StatusCode::INTERNAL_SERVER_ERROR,
                (_, status) if status == module_error_status() => StatusCode::INTERNAL_SERVER_ERROR,
                (_, status) => status,
            },
            RequestError::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            RequestError::Publish(error) | RequestError::Host(error) => host_status(error),
            RequestError::Call(failure) => call_status(failure),
            RequestError::Statement(failure) => match call_status(failure) {
                StatusCode::SERVICE_UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::FORBIDDEN => StatusCode::FORBIDDEN,
                StatusCode::TOO_MANY_REQUESTS => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::BAD_REQUEST,
            },
        }
    }
}

/// What a module's own errors are answered with, so that they can be told from the server's.
pub(crate) fn module_error_status() -> StatusCode {
    StatusCode::from_u16(530).expect("530 is a valid status")
}

fn call_status(failure: &CallFailure) -> StatusCode {
    match failure {
        CallFailure::NoSuchFunction => StatusCode::NOT_FOUND,
        CallFailure::BadArguments(_) => StatusCode::BAD_REQUEST,
        CallFailure::Refused(_) => StatusCode::FORBIDDEN,
        CallFailure::User(_) => module_error_status(),
        CallFailure::Failed { code, .. } => match code.get(..4) {
            // What the module did, in its code or on its tables.
            Some("TN03" | "TN05") => module_error_status(),
            // So is what its views and handlers return.
            _ if matches!(*code, "TN0637" | "TN0638") => module_error_status(),
            // What the caller wrote.
            Some("TN01" | "TN04") => StatusCode::BAD_REQUEST,
            _ if *code == HostError::Overloaded("").code() => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        },
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let status = self.status();
        let code = HeaderValue::from_static(self.code());
        let text = self.to_string();
        if self.is_ours() {
            tracing::warn!(%status, code = self.code(), error = %text, "request failed");
        }
        let mut response = (status, text).into_response();
        response.headers_mut().insert(ERROR_HEADER, code);
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}

fn host_status(error: &HostError) -> StatusCode {
    if let Some(error) = error.of_worker() {
        // A worker that died of its module was given one that it dies of; everything else is this server's matter.
        return match error {
            WorkerError::Died(_) | WorkerError::TimedOut => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
    }
    match error {
        HostError::NotFound(_) => StatusCode::NOT_FOUND,
        HostError::NotRetained { .. } => StatusCode::GONE,
        HostError::NameTaken(_) | HostError::ForksPresent(_) | HostError::NothingToResume(_) => StatusCode::CONFLICT,
        HostError::NotAuthorized { .. } | HostError::AdminRequired | HostError::Locked(_) => StatusCode::FORBIDDEN,
        HostError::InvalidName(_)
        | HostError::TooManyNames(_)
        | HostError::Compile(_)
        | HostError::Load(_)
        | HostError::Schema(_)
        | HostError::InitFailed(_)
        | HostError::BadProgram(_)
        | HostError::MainFork(_)
        | HostError::Migrate(_)
        | HostError::BreaksClients(_)
        | HostError::PlanOutdated
        | HostError::BeforeFirstModule(_)
        | HostError::NoSuchVersion { .. }
        | HostError::InFuture(_)
        | HostError::ClientsUnknown
        | HostError::BadLifetime(_)
        | HostError::NoVersion
        | HostError::NeverDurable
        | HostError::NeverConfirmed
        | HostError::NeverRecorded
        | HostError::BadRange { .. }
        | HostError::TooLargeToCompare { .. }
        | HostError::Query(_)
        | HostError::View(_) => StatusCode::BAD_REQUEST,
        HostError::Closed | HostError::NoWorkers | HostError::RedoWorker(_) | HostError::Stopped { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        HostError::Overloaded(_) => StatusCode::TOO_MANY_REQUESTS,
        HostError::Store(error)
        | HostError::Fork(ForkError::Store(error))
        | HostError::History(HistoryError::Store(error)) => store_status(error),
        HostError::Call(failure) => call_status(failure),
        HostError::Fork(ForkError::NameTaken(_)) => StatusCode::CONFLICT,
        // Whatever else the store refuses was asked for wrongly.
        HostError::Fork(_) => StatusCode::BAD_REQUEST,
        HostError::DirectoryInUse(_)
        | HostError::WrongVersion { .. }
        | HostError::ImagesElsewhere { .. }
        | HostError::Damaged(_)
        | HostError::History(_)
        | HostError::Log(_)
        | HostError::Open(_)
        | HostError::Table(_)
        | HostError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn store_status(error: &StoreError) -> StatusCode {
    match error {
        StoreError::NoSuchFork(_) => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{StatusCode, header};
    use axum::response::IntoResponse;
    use tine_host::{CallFailure, HostError};

    use super::RequestError;

    #[test]
    fn a_full_queue_asks_to_come_back() {
        let full = || HostError::Overloaded("the fork's lane");
        let failure = || CallFailure::Failed { code: full().code(), message: full().to_string() };
        for error in [RequestError::Host(full()), RequestError::Call(failure()), RequestError::Statement(failure())] {
            let response = error.into_response();
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert!(response.headers().contains_key(header::RETRY_AFTER));
            assert_eq!(response.headers()["tine-error"], "TN0607");
        }
    }
}
