//! What can go wrong, one enum per operation. Codes have a page each under `docs/errors`.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::frame::FrameError;
use crate::ring::RingFault;

pub(crate) const CODE_TOO_LARGE: &str = "TN0922";
pub(crate) const CODE_OVERLOADED: &str = "TN0925";
pub(crate) const CODE_DROPPED: &str = "TN0926";
pub(crate) const CODE_NOT_STREAMED: &str = "TN0927";

/// A path does not say how to talk.
#[derive(Debug, Error)]
#[error("{} does not end in .sock or .shm, which says how to talk, or is longer than a socket's path may be", .0.display())]
pub struct PathError(pub PathBuf);

/// A listener cannot be opened.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The path is of no kind.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A server is listening there.
    #[error("{}: a server is listening there already", .0.display())]
    InUse(PathBuf),
    /// Something else is in the way.
    #[error("{}: there is something that is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The options contradict themselves.
    #[error("{0}")]
    Options(&'static str),
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ListenError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            ListenError::Path(_) => "TN0901",
            ListenError::InUse(_) => "TN0902",
            ListenError::NotASocket(_) => "TN0903",
            ListenError::Options(_) => "TN0904",
            ListenError::Io { .. } => "TN0905",
        }
    }
}

/// The reactor itself cannot work.
#[derive(Debug, Error)]
pub enum ReactorError {
    /// The system refused a descriptor, a thread or a wait.
    #[error("the reactor cannot work: {0}")]
    Io(#[from] io::Error),
}

impl ReactorError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        "TN0906"
    }
}

/// A client and a server cannot work together, or may not. Both sides learn it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The other side speaks something else.
    #[error("the other side does not speak this protocol: {0}")]
    NotThisProtocol(String),
    /// No version in common.
    #[error(
        "the client speaks protocol versions {client_from} to {client_to}, the server {server_from} to {server_to}"
    )]
    Version {
        /// Oldest of the client.
        client_from: u16,
        /// Newest of the client.
        client_to: u16,
        /// Oldest of the server.
        server_from: u16,
        /// Newest of the server.
        server_to: u16,
    },
    /// They were generated from different schemas.
    #[error("the client was made from schema {client}, the server from {server}: generate the older one again")]
    Schema {
        /// The client's.
        client: crate::SchemaHash,
        /// The server's.
        server: crate::SchemaHash,
    },
    /// The user may not.
    #[error("user {uid} may not connect")]
    User {
        /// Who tried.
        uid: u32,
    },
    /// All slots are taken.
    #[error("the server has {clients_max} clients, which is as many as it takes")]
    Full {
        /// The bound.
        clients_max: u32,
    },
    /// Something the client is too old to know.
    #[error("the server refused: {message} ({code})")]
    Other {
        /// Its code.
        code: String,
        /// Its message.
        message: String,
    },
}

impl HandshakeError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            HandshakeError::NotThisProtocol(_) => "TN0910",
            HandshakeError::Version { .. } => "TN0911",
            HandshakeError::Schema { .. } => "TN0912",
            HandshakeError::User { .. } => "TN0913",
            HandshakeError::Full { .. } => "TN0914",
            HandshakeError::Other { .. } => "TN0915",
        }
    }
}

/// A client cannot connect.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The path is of no kind.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Nobody listens there.
    #[error("{}: nobody listens there: {source}", .path.display())]
    NobodyListens {
        /// Where.
        path: PathBuf,
        /// Absent, or left behind by a server that is gone.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("{}: no answer to the handshake in time", .0.display())]
    TimedOut(PathBuf),
    /// The server said no, or something unintelligible.
    #[error("{}: {source}", .path.display())]
    Handshake {
        /// Where.
        path: PathBuf,
        /// Why.
        source: HandshakeError,
    },
    /// The options contradict themselves.
    #[error("{0}")]
    Options(&'static str),
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ConnectError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            ConnectError::Path(_) => "TN0901",
            ConnectError::NobodyListens { .. } => "TN0907",
            ConnectError::TimedOut(_) => "TN0908",
            ConnectError::Handshake { source, .. } => source.code(),
            ConnectError::Options(_) => "TN0904",
            ConnectError::Io { .. } => "TN0905",
        }
    }
}

/// A call has no answer, or a bad one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// The connection is gone; whether the call ran is not known.
    #[error("the connection is gone: {reason}")]
    Disconnected {
        /// What ended it.
        reason: String,
    },
    /// No answer in time; whether the call ran, or still will, is not known.
    #[error("no answer in time")]
    TimedOut,
    /// The request, or its answer, is above the limit.
    #[error("{0}")]
    TooLarge(String),
    /// The service answered with an error.
    #[error("{message} ({code})")]
    Remote {
        /// The service's code.
        code: String,
        /// The service's message.
        message: String,
    },
    /// The server sent what makes no sense; the connection is gone.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// More calls, or bytes of calls, are in flight than the server takes from one client. The call did not run.
    #[error("{0}")]
    Overloaded(String),
    /// The service lost the call without an answer.
    #[error("{0}")]
    Dropped(String),
    /// This connection, or this command, has no streams.
    #[error("{0}")]
    NotStreamed(String),
}

impl CallError {
    /// Stable code. The code of a service's own error is in [`CallError::Remote`].
    pub fn code(&self) -> &'static str {
        match self {
            CallError::Disconnected { .. } => "TN0920",
            CallError::TimedOut => "TN0921",
            CallError::TooLarge(_) => CODE_TOO_LARGE,
            CallError::Remote { .. } => "TN0923",
            CallError::Protocol(_) => "TN0924",
            CallError::Overloaded(_) => CODE_OVERLOADED,
            CallError::Dropped(_) => CODE_DROPPED,
            CallError::NotStreamed(_) => CODE_NOT_STREAMED,
        }
    }

    /// What an error frame says.
    pub(crate) fn from_frame(payload: &[u8]) -> CallError {
        let (code, message) = crate::frame::decode_error(payload);
        match code.as_str() {
            CODE_TOO_LARGE => CallError::TooLarge(message),
            CODE_OVERLOADED => CallError::Overloaded(message),
            CODE_DROPPED => CallError::Dropped(message),
            CODE_NOT_STREAMED => CallError::NotStreamed(message),
            _ => CallError::Remote { code, message },
        }
    }
}

/// An item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// The client has no room for another item now.
    #[error("the client has room for no further item now")]
    NoCredit,
    /// The client does not want more, or is gone.
    #[error("the client does not want more, or is gone")]
    Cancelled,
    /// The item is above the limit of messages.
    #[error("an item is larger than messages may be")]
    TooLarge,
}

impl StreamError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            StreamError::NoCredit => "TN0930",
            StreamError::Cancelled => "TN0931",
            StreamError::TooLarge => "TN0932",
        }
    }
}

/// Why a server closed a connection.
#[derive(Debug, Error)]
pub enum CloseReason {
    /// The client closed it, or died.
    #[error("the client is gone")]
    ClientGone,
    /// The client sent bytes that are no frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The client sent a frame that makes no sense where it came.
    #[error("{0}")]
    Unexpected(String),
    /// The client broke its ring.
    #[error(transparent)]
    Ring(#[from] RingFault),
    /// The client does not take its replies.
    #[error("{bytes} bytes wait for the client to take them, which is more than is kept")]
    TooSlow {
        /// How much waits.
        bytes: usize,
    },
    /// The client stopped in the middle: a frame half sent, or replies not taken.
    #[error("the client moved no byte for too long in the middle of a frame, or with replies waiting")]
    Stalled,
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// A client without handshake cannot be told of an error otherwise.
    #[error("an error that cannot be told to a plain client: {0}")]
    Untold(String),
    /// The server shuts down.
    #[error("the server shuts down")]
    Shutdown,
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl CloseReason {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            CloseReason::ClientGone => "TN0940",
            CloseReason::Frame(_) => "TN0941",
            CloseReason::Unexpected(_) => "TN0942",
            CloseReason::Ring(_) => "TN0943",
            CloseReason::TooSlow { .. } => "TN0944",
            CloseReason::Stalled => "TN0945",
            CloseReason::Handshake(source) => source.code(),
            CloseReason::Untold(_) => "TN0946",
            CloseReason::Shutdown => "TN0947",
            CloseReason::Io(_) => "TN0905",
        }
    }
}

/// A service does not start, or is no more.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The program cannot be started.
    #[error("{program} cannot be started: {source}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It was not ready in time, and was killed.
    #[error("{program} was not ready within {limit_ms} ms{stderr}")]
    NotReady {
        /// Which.
        program: String,
        /// What it was given.
        limit_ms: u128,
        /// What it said last.
        stderr: LastLines,
    },
    /// It ended.
    #[error("{program} ended: {status}{stderr}")]
    Died {
        /// Which.
        program: String,
        /// How.
        status: String,
        /// What it said last.
        stderr: LastLines,
    },
}

impl SpawnError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            SpawnError::Start { .. } => "TN0950",
            SpawnError::NotReady { .. } => "TN0951",
            SpawnError::Died { .. } => "TN0952",
        }
    }
}

/// The last lines of a program's standard error; shown as an indented quotation, or not at all if there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastLines(pub Vec<String>);

impl std::fmt::Display for LastLines {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.0.is_empty() {
            write!(formatter, "; its last words:")?;
        }
        self.0.iter().try_for_each(|line| write!(formatter, "\n    {line}"))
    }
}
