//! Calls into a module: what goes in, what the module may ask of its host, and how a call can fail.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tine_tables::{ReadSet, TableWriter};
use tine_types::bsatn::DecodeError;
use tine_types::{ConnectionId, Identity, Timestamp};

use crate::diagnostic::{Diagnostic, SourceLocation};
use crate::isolation::RemoteTables;

/// A reducer of a module: its position in the definition's list of reducers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReducerIndex(pub u32);

/// A procedure of a module: its position in the definition's list of procedures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcedureIndex(pub u32);

/// A view of a module: its position in the definition's list of views; those of submodules follow, in the order of
/// [`tine_types::ModuleDef::flatten`]. (Reducers and procedures count likewise.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewIndex(pub u32);

/// An HTTP handler of a module: its position in the definition's list of handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandlerIndex(pub u32);

/// What a view returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewRows {
    /// Rows: BSATN of an array of the row type, valid.
    Rows(Bytes),
    /// A query in the subscription dialect, whose rows are those of the view.
    Query(String),
}

/// A view that ran.
#[derive(Clone, Debug)]
pub struct ViewOutcome {
    /// Its rows.
    pub rows: ViewRows,
    /// What it read on the way. As long as nothing of this changes it returns the same.
    pub reads: ReadSet,
}

/// An HTTP response of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerOutcome {
    /// BSATN of an `HttpResponse`, valid.
    pub response: Bytes,
    /// The body.
    pub body: Bytes,
}

/// Everything about a call that the code can see, besides its arguments and the tables. Equal contexts, arguments and
/// tables give equal results.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// Who calls.
    pub sender: Identity,
    /// Over which connection; `None` for scheduled calls and those without one.
    pub connection_id: Option<ConnectionId>,
    /// The time of the call, for `ctx.timestamp` and `Date`.
    pub timestamp: Timestamp,
    /// Where all random numbers of the call come from.
    pub seed: u64,
    /// The identity of the database.
    pub database_identity: Identity,
    /// How long the call may run.
    pub deadline: Duration,
    /// The claims of the caller's token as JSON text.
    pub jwt_payload: Option<Arc<str>>,
}

/// What a running call asks of its host.
pub trait CallHost {
    /// The tables of the open transaction; `None` if none is open, as in a procedure outside `withTx`.
    fn tables(&mut self) -> Option<&mut TableWriter>;

    /// The tables of the open transaction when they are in another process.
    #[doc(hidden)]
    fn remote_tables(&mut self) -> Option<&mut dyn RemoteTables> {
        None
    }

    /// The module wrote to its console.
    fn log(&mut self, entry: LogEntry);

    /// Opens a transaction for a procedure. Returns its time.
    ///
    /// # Errors
    /// A transaction is open already, or the call may not open one.
    fn begin_transaction(&mut self) -> Result<Timestamp, SyscallError>;

    /// Commits the transaction of a procedure.
    ///
    /// # Errors
    /// None is open, or the commit is refused; the transaction is then gone.
    fn commit_transaction(&mut self) -> Result<(), SyscallError>;

    /// Gives the transaction of a procedure up.
    ///
    /// # Errors
    /// None is open.
    fn abort_transaction(&mut self) -> Result<(), SyscallError>;

    /// Queues a call of a reducer (its name, arguments as BSATN), by the database itself, to run when the running call has
    /// ended, whatever becomes of it.
    ///
    /// # Errors
    /// The host does not do this, or has no such function.
    fn schedule_immediate(&mut self, function: &str, arguments: Vec<u8>) -> Result<(), SyscallError> {
        let _ = (function, arguments);
        Err(SyscallError::new(SyscallError::HOST_CALL_FAILURE, "this host does not schedule calls at once"))
    }

    /// Sends a request of a procedure over HTTP and waits for the reply. `request` is a BSATN `HttpRequest`; the reply is a
    /// BSATN `HttpResponse` and its body.
    ///
    /// # Errors
    /// A transaction is open, the host does not allow outbound requests, or the request failed.
    fn http_request(&mut self, request: &[u8], body: &[u8]) -> Result<(Vec<u8>, Vec<u8>), SyscallError> {
        let _ = (request, body);
        if self.tables().is_some() {
            let problem = "an HTTP request would hold the transaction open: make it outside withTx()";
            return Err(SyscallError::new(SyscallError::WOULD_BLOCK_TRANSACTION, problem));
        }
        Err(SyscallError::new(SyscallError::HTTP_ERROR, "this host sends no HTTP requests"))
    }
}

/// Why the host refuses what a module asked. The module sees it as an exception.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct SyscallError {
    /// The code of the module ABI; it decides the class of the exception.
    pub code: u16,
    /// The exception's message.
    pub message: String,
}

impl SyscallError {
    /// A failure without a code of its own.
    pub const HOST_CALL_FAILURE: u16 = 1;
    /// No transaction is open.
    pub const NOT_IN_TRANSACTION: u16 = 2;
    /// Bytes are not what they should be.
    pub const BSATN_DECODE_ERROR: u16 = 3;
    /// No iterator has this id.
    pub const NO_SUCH_ITER: u16 = 6;
    /// No console timer has this id.
    pub const NO_SUCH_CONSOLE_TIMER: u16 = 7;
    /// A transaction is open already.
    pub const WOULD_BLOCK_TRANSACTION: u16 = 17;
    /// The open transaction is not one of a procedure.
    pub const TRANSACTION_NOT_ANONYMOUS: u16 = 18;
    /// A view wants to change something.
    pub const TRANSACTION_IS_READ_ONLY: u16 = 19;
    /// An outbound HTTP request failed; the message says why.
    pub const HTTP_ERROR: u16 = 21;

    /// An error with a code of the module ABI.
    pub fn new(code: u16, message: impl Into<String>) -> SyscallError {
        SyscallError { code, message: message.into() }
    }
}

/// How important a log line is. The numbers are those of the module ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LogLevel {
    /// `console.error`.
    Error = 0,
    /// `console.warn`.
    Warn = 1,
    /// `console.info` and `console.log`.
    Info = 2,
    /// `console.debug`.
    Debug = 3,
    /// `console.trace`.
    Trace = 4,
}

impl LogLevel {
    /// The level with a number of the module ABI; unknown ones are debug.
    pub fn from_abi(level: u32) -> LogLevel {
        match level {
            0 | 101 => LogLevel::Error,
            1 => LogLevel::Warn,
            2 => LogLevel::Info,
            4 => LogLevel::Trace,
            _ => LogLevel::Debug,
        }
    }
}

/// A line that a module wrote to its console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// How important it is.
    pub level: LogLevel,
    /// The text.
    pub message: String,
    /// The source file that wrote it, by its path in the bundle.
    pub file: Option<String>,
    /// The line there, from 1.
    pub line: Option<u32>,
    /// The function that wrote it.
    pub function: Option<String>,
}

/// How a call failed. The host rolls its transaction back whatever it is.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The module threw a `SenderError`: this text is for the caller, as it is.
    #[error("{0}")]
    User(String),
    /// The module threw something else.
    #[error("{0}")]
    Thrown(Box<Diagnostic>),
    /// The call ran longer than it may.
    #[error("the call ran out of time{}", At(location))]
    Deadline {
        /// Where it was stopped.
        location: Option<SourceLocation>,
    },
    /// The instance would need more memory than it may have.
    #[error("the call ran out of memory{}", At(location))]
    OutOfMemory {
        /// Where, if it was an exception that told.
        location: Option<SourceLocation>,
    },
    /// Calls were nested too deeply.
    #[error("the call nested too deeply{}", At(location))]
    StackOverflow {
        /// The innermost function.
        location: Option<SourceLocation>,
    },
    /// The function is `async`, or returned a promise in another way. Nothing would wait for it.
    #[error("`{function}` returned a promise: functions of a module cannot be async")]
    ReturnedPromise {
        /// Its name.
        function: String,
    },
    /// The arguments do not fit the parameters.
    #[error("the arguments of `{function}` do not fit its parameters")]
    BadArguments {
        /// The function.
        function: String,
        /// What is wrong with the bytes.
        #[source]
        source: DecodeError,
    },
    /// The definition has no such reducer or procedure.
    #[error("there is no function with this index")]
    NoSuchFunction,
    /// Somebody used the instance's [`crate::InterruptHandle`].
    #[error("the call was interrupted{}", At(location))]
    Interrupted {
        /// Where it was stopped.
        location: Option<SourceLocation>,
    },
    /// The host failed under the call, as when the store cannot write.
    #[error("the call was stopped: {0}")]
    Fatal(String),
    /// The process that ran the call did not see it through.
    #[error("the process that ran the call failed: {0}")]
    Worker(#[source] tine_sandbox::CallError),
}

struct At<'a>(&'a Option<SourceLocation>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(location) => write!(f, " at {location}"),
            None => Ok(()),
        }
    }
}

impl CallError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            CallError::User(_) => "TN0530",
            CallError::Thrown(_) => "TN0531",
            CallError::Deadline { .. } => "TN0532",
            CallError::OutOfMemory { .. } => "TN0533",
            CallError::StackOverflow { .. } => "TN0534",
            CallError::ReturnedPromise { .. } => "TN0535",
            CallError::BadArguments { .. } => "TN0536",
            CallError::NoSuchFunction => "TN0537",
            CallError::Interrupted { .. } => "TN0538",
            CallError::Fatal(_) => "TN0539",
            CallError::Worker(error) => error.code(),
        }
    }

    /// Whether the text is meant for the caller. Other errors go to the log, and the caller learns only that the call failed.
    pub fn is_user(&self) -> bool {
        matches!(self, CallError::User(_))
    }

    /// Whether the instance was stopped somewhere in the middle and must not be called again.
    pub fn replaces_instance(&self) -> bool {
        match self {
            CallError::Deadline { .. }
            | CallError::OutOfMemory { .. }
            | CallError::Interrupted { .. }
            | CallError::Fatal(_)
            | CallError::Worker(_) => true,
            CallError::User(_)
            | CallError::Thrown(_)
            | CallError::StackOverflow { .. }
            | CallError::ReturnedPromise { .. }
            | CallError::BadArguments { .. }
            | CallError::NoSuchFunction => false,
        }
    }
}
