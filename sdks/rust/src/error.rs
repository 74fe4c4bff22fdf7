//! What can go wrong between this client and a server.

use std::time::Duration;

use thiserror::Error;

/// Who is to blame for a call that ran and failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The module refused: it threw a `SenderError`, whose text is the message.
    Sender,
    /// The call trapped, ran out of time or memory, does not exist, or was given wrong arguments.
    Internal,
}

/// An error of the client. [`ClientError::code`] is stable; the text is for people.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The server address cannot be used.
    #[error("`{url}` is not a usable server address: {reason}")]
    BadUrl {
        /// What was given.
        url: String,
        /// Why it cannot be used.
        reason: &'static str,
    },
    /// No connection could be made to the server.
    #[error("cannot connect to {url}: {source}")]
    Connect {
        /// The server's address.
        url: String,
        /// What the operating system or the HTTP layer said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something did not happen in time.
    #[error("{waiting_for} took longer than {} ms", after.as_millis())]
    Deadline {
        /// What was waited for.
        waiting_for: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// Nothing at all, not even a ping, came from the server for too long.
    #[error("the server has been silent for {} s", after.as_secs())]
    Silent {
        /// The limit that was passed.
        after: Duration,
    },
    /// The server answered with an HTTP error status.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The stable code the server gave, if it gave one.
        server_code: Option<String>,
        /// The server's own words, or the status in words where it gave none.
        message: String,
    },
    /// The connection was closed.
    #[error("the connection was closed{}", describe_close(*close_code, reason))]
    Closed {
        /// The WebSocket close code; none when the socket ended without a close frame.
        close_code: Option<u16>,
        /// The reason in the close frame, possibly empty.
        reason: String,
    },
    /// The server sent something that the protocol does not allow.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// A message is too large for the server to accept.
    #[error("a message of {bytes} bytes is over the limit of {limit} bytes")]
    MessageTooLarge {
        /// Size of the refused message, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An HTTP reply could not be understood.
    #[error("the reply to {route} was not understood: {reason}")]
    BadReply {
        /// Method and path of the request.
        route: String,
        /// What was wrong with the reply.
        reason: String,
    },
    /// A reducer or procedure ran and failed; the connection is fine.
    #[error("{function}: {message}")]
    Call {
        /// The function that was called.
        function: String,
        /// Whether the module refused or something broke.
        failure: CallFailure,
        /// The module's words, or the server's.
        message: String,
    },
    /// A subscription or query was refused; the connection is fine.
    #[error("{message}")]
    Query {
        /// The server's explanation.
        message: String,
    },
    /// Too many messages arrived while a request waited for its reply.
    #[error("{limit} messages arrived before the awaited reply; read them with `recv` first")]
    Backlog {
        /// How many messages may be set aside.
        limit: usize,
    },
}

impl ClientError {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            ClientError::BadUrl { .. } => "TN0801",
            ClientError::Connect { .. } => "TN0802",
            ClientError::Deadline { .. } => "TN0803",
            ClientError::Silent { .. } => "TN0804",
            ClientError::Refused { .. } => "TN0805",
            ClientError::Closed { .. } => "TN0806",
            ClientError::Protocol(_) => "TN0807",
            ClientError::MessageTooLarge { .. } => "TN0808",
            ClientError::Transport(_) => "TN0809",
            ClientError::BadReply { .. } => "TN0810",
            ClientError::Call { .. } => "TN0811",
            ClientError::Query { .. } => "TN0812",
            ClientError::Backlog { .. } => "TN0813",
        }
    }

    /// The code to show to a person: the server's own where it sent one, else [`ClientError::code`].
    pub fn shown_code(&self) -> &str {
        match self {
            ClientError::Refused { server_code: Some(code), .. } => code,
            other => other.code(),
        }
    }

    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            ClientError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

fn describe_close(close_code: Option<u16>, reason: &str) -> String {
    match (close_code, reason.is_empty()) {
        (None, true) => " without a reason".to_owned(),
        (None, false) => format!(": {reason}"),
        (Some(code), true) => format!(" with code {code}"),
        (Some(code), false) => format!(" with code {code}: {reason}"),
    }
}
