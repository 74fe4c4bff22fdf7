//! What can go wrong, told apart by whose fault it is.

use std::fmt;
use std::time::Duration;

/// How a worker came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Death {
    /// It exited by itself, with this status.
    Exited(i32),
    /// A signal ended it that this server did not send: a crash, or somebody with the right to.
    Signalled(i32),
    /// It made a system call that workers must not make.
    Forbidden,
    /// The server ended it.
    Killed(KillCause),
}

/// Why the server ended a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KillCause {
    /// A request was over its deadline.
    Deadline = 1,
    /// It wrote what no worker writes into the shared memory.
    Protocol = 2,
    /// It wrote too much to its log.
    LogFlood = 3,
    /// It was not ready in time.
    LaunchDeadline = 4,
    /// Nobody used it for a while.
    Idle = 5,
    /// Its place was needed.
    Evicted = 6,
    /// Whoever attended a request gave it up.
    Aborted = 7,
    /// Its owner asked for it.
    Requested = 8,
    /// The server ends.
    ShutDown = 9,
}

impl KillCause {
    /// All causes.
    pub const ALL: [KillCause; 9] = [
        KillCause::Deadline,
        KillCause::Protocol,
        KillCause::LogFlood,
        KillCause::LaunchDeadline,
        KillCause::Idle,
        KillCause::Evicted,
        KillCause::Aborted,
        KillCause::Requested,
        KillCause::ShutDown,
    ];

    /// The cause as a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            KillCause::Deadline => "deadline",
            KillCause::Protocol => "protocol",
            KillCause::LogFlood => "log_flood",
            KillCause::LaunchDeadline => "launch_deadline",
            KillCause::Idle => "idle",
            KillCause::Evicted => "evicted",
            KillCause::Aborted => "aborted",
            KillCause::Requested => "requested",
            KillCause::ShutDown => "shut_down",
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Death::Exited(status) => write!(out, "it exited with status {status}"),
            Death::Signalled(signal) => write!(out, "signal {signal} ended it"),
            Death::Forbidden => out.write_str("it made a forbidden system call"),
            Death::Killed(cause) => write!(out, "it was killed ({})", cause.name()),
        }
    }
}

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The worker looked at the request and refused it. It is well; asking the same again is of no use.
    #[error("the worker refused the request: {0}")]
    Rejected(String),
    /// The worker died while it worked on this request, so this request may be why.
    #[error("the worker died at this request: {0}")]
    Died(Death),
    /// The request was over its deadline; its worker was killed if it was working on it.
    #[error("the request was not done by its deadline")]
    TimedOut,
    /// The request was over its deadline before a worker could take it.
    #[error("no worker was free for the request by its deadline")]
    QueueTimedOut,
    /// The request was given up because the pool shuts down, its worker was taken away or whoever attended it gave it up. It is not to
    /// blame, and may have run.
    #[error("the request was cancelled: {}", .0.name())]
    Cancelled(KillCause),
    /// A neighbour's request ended the worker, more often than this request may be tried again. It is not to blame, and did not run.
    #[error("the worker died before it began the request: {0}")]
    Bystander(Death),
    /// No worker could be started.
    #[error("no worker could be started: {error}")]
    Launch {
        /// What went wrong.
        error: LaunchError,
        /// When another try will be made at the soonest.
        retry_after: Duration,
    },
    /// More callers wait for this key than may.
    #[error("too many requests wait for this worker")]
    Overloaded,
    /// The request and the room for its reply are more than a region holds.
    #[error("{needed} bytes of request and reply do not fit in {max}")]
    TooLarge {
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        max: u64,
    },
    /// The reply did not fit in the room that the request left for it.
    #[error("the reply is larger than {max} bytes")]
    ReplyTooLarge {
        /// Bytes there were.
        max: u64,
    },
}

impl CallError {
    /// The error's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            CallError::Rejected(_) => "TN1101",
            CallError::Died(_) => "TN1102",
            CallError::TimedOut => "TN1103",
            CallError::QueueTimedOut => "TN1104",
            CallError::Cancelled(_) => "TN1105",
            CallError::Bystander(_) => "TN1106",
            CallError::Launch { .. } => "TN1107",
            CallError::Overloaded => "TN1108",
            CallError::TooLarge { .. } => "TN1109",
            CallError::ReplyTooLarge { .. } => "TN1110",
        }
    }
}

/// Why a worker could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The program has no entry of the pool's name.
    #[error("the program has no entry named {0:?}")]
    NoEntry(String),
    /// The system refused something.
    #[error("the system refused: {0}")]
    System(String),
    /// It was not ready in time.
    #[error("it was not ready in time")]
    Deadline,
    /// It ended before it was ready.
    #[error("it ended before it was ready: {0}")]
    Died(Death),
    /// Workers of this key died again and again without answering once.
    #[error("workers for this key died {0} times without an answer")]
    CrashLoop(u32),
    /// This machine cannot lock workers in as far as the options demand.
    #[error("workers cannot be locked in here as demanded: {0}")]
    NotHardened(String),
}

/// Why a sandbox could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system refused something.
    #[error("the sandbox cannot start")]
    System(#[from] std::io::Error),
    /// Sizes of a pool that make no region, or a name that is too long.
    #[error("the options of the pool make no sense: {0}")]
    Options(&'static str),
}

impl StartError {
    /// The error's stable code.
    pub fn code(&self) -> &'static str {
        match self {
            StartError::System(_) => "TN1120",
            StartError::Options(_) => "TN1121",
        }
    }
}

/// Workers that were still there when the time for an orderly end was over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{children} worker processes are not reaped yet")]
pub struct StillRunning {
    /// How many.
    pub children: usize,
}

impl StillRunning {
    /// The error's stable code.
    pub fn code(&self) -> &'static str {
        "TN1122"
    }
}
