//! How the command line fails: a stable code, words, the next step, and an exit status.

use std::{io, path::PathBuf, process::ExitCode};

use serde_json::json;
use thiserror::Error;
use tine_client::ClientError;
use tine_host::HostError;
use tine_server::ServerError;
use tine_store::{ImageError, LogError, OpenError};

use crate::consent::Consent;

/// Exit statuses. They are part of the interface: scripts test them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The call, statement or module was refused or failed.
    Failed = 1,
    /// The command line, the settings or an argument is wrong.
    Usage = 2,
    /// No connection to the server.
    Unreachable = 3,
    /// No such database, fork, table, function or file.
    NotFound = 4,
    /// Not authorised.
    NotAuthorised = 5,
    /// The name is taken, the directory is in use, there are forks.
    Conflict = 6,
    /// No answer in time.
    Deadline = 7,
    /// The disk or the data directory failed.
    Storage = 8,
    /// The server failed or broke the protocol.
    Server = 9,
}

/// Why a verb failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// The server refused, could not be reached, or answered nonsense.
    #[error("{source}")]
    Client {
        /// What the client said.
        #[source]
        source: ClientError,
        /// What to do next.
        next: Option<String>,
    },
    /// A setting or argument cannot be used.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do next.
        next: Option<String>,
    },
    /// A local file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A named thing is not there.
    #[error("{message}")]
    NotFound {
        /// What is missing.
        message: String,
        /// What to do next.
        next: Option<String>,
    },
    /// A module cannot be published as it is.
    #[error("{message}")]
    Module {
        /// The stable code of the reason.
        code: &'static str,
        /// What is wrong.
        message: String,
        /// What to do next.
        next: Option<String>,
    },
    /// A schema of a local service is none, or differs from another.
    #[error("{message}")]
    Schema {
        /// The stable code of the reason.
        code: &'static str,
        /// What is wrong.
        message: String,
        /// What to do next.
        next: Option<&'static str>,
    },
    /// A world state could not be served.
    #[error("{message}")]
    World {
        /// The stable code of the reason.
        code: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The sources of a module cannot be collected.
    #[error("{source}")]
    Collect {
        /// What the collector said.
        #[source]
        source: tine_module::CollectError,
    },
    /// The server could not start or end in order.
    #[error("{source}")]
    Serve {
        /// What the server said.
        #[source]
        source: ServerError,
    },
    /// A log of a data directory cannot be read.
    #[error("{source}")]
    Log {
        /// What the reader said.
        #[from]
        source: LogError,
    },
    /// A store of a data directory cannot be read.
    #[error("{source}")]
    Open {
        /// What the store said.
        #[from]
        source: OpenError,
    },
    /// A check of stores found damage.
    #[error("{damaged} of {stores} stores are damaged")]
    Damaged {
        /// How many are.
        damaged: usize,
        /// How many were checked.
        stores: usize,
    },
    /// Images cannot be read.
    #[error("the images of a database cannot be read: {source}")]
    Images {
        /// What the reader said.
        #[from]
        source: ImageError,
    },
    /// A backup cannot be made, or is not what it should be.
    #[error("{message}")]
    Backup {
        /// What is wrong.
        message: String,
        /// What to do next.
        next: Option<&'static str>,
    },
    /// A folder that must be new or empty is not.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The server gave up a long run.
    #[error("{message}")]
    Remote {
        /// The server's code.
        code: String,
        /// What it said.
        message: String,
        /// What to do next.
        next: Option<String>,
    },
    /// Recorded calls do something else when they run again.
    #[error("{count} calls did something else than recorded")]
    Differs {
        /// How many.
        count: u64,
    },
    /// The doctor found something.
    #[error("{failed} of {checks} checks failed")]
    Unhealthy {
        /// How many failed.
        failed: usize,
        /// How many there were.
        checks: usize,
    },
    /// The person at the terminal said no, or there was none to ask.
    #[error("nothing was done")]
    Declined(Consent),
    /// Standard output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// The system refused something that every program needs: a thread, a signal handler.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
    /// The demo failed.
    #[error("{0:#}")]
    Demo(anyhow::Error),
}

impl From<ClientError> for Failure {
    fn from(source: ClientError) -> Failure {
        let next = next_step(&source).map(str::to_owned);
        Failure::Client { source, next }
    }
}

impl Failure {
    /// A usage failure without advice.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::Usage { message: message.into(), next: None }
    }

    /// The same with advice, where there is none yet.
    pub fn with_next(mut self, advice: String) -> Failure {
        if let Failure::Remote { next: next @ None, .. } = &mut self {
            *next = Some(advice);
        }
        self
    }

    /// A failed demo.
    pub fn demo(error: anyhow::Error) -> Failure {
        Failure::Demo(error)
    }

    /// The stable code: the server's own where it gave one.
    pub fn code(&self) -> &str {
        match self {
            Failure::Client { source, .. } => source.shown_code(),
            Failure::Collect { source } => source.code(),
            Failure::Module { code, .. } | Failure::Schema { code, .. } | Failure::World { code, .. } => code,
            Failure::Serve { source } => source.code(),
            Failure::Usage { .. } => "TN0850",
            Failure::File { .. } => "TN0851",
            Failure::NotFound { .. } => "TN0852",
            Failure::Declined(_) => "TN0853",
            Failure::Output(_) => "TN0854",
            Failure::Demo(_) => "TN0855",
            Failure::System(_) => "TN0856",
            Failure::Backup { .. } => "TN0857",
            Failure::NotEmpty { .. } => "TN0858",
            Failure::Unhealthy { .. } => "TN0859",
            Failure::Log { source } => source.code(),
            Failure::Remote { code, .. } => code,
            Failure::Differs { .. } => "TN0860",
            Failure::Images { source } => source.code(),
            Failure::Open { source } => source.code(),
            Failure::Damaged { .. } => "TN0861",
        }
    }

    /// The exit status.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Client { source, .. } => client_exit(source),
            Failure::Usage { .. } | Failure::Declined(_) => Exit::Usage,
            Failure::File { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NotFound,
            Failure::File { .. } | Failure::Output(_) | Failure::System(_) => Exit::Storage,
            Failure::NotFound { .. } => Exit::NotFound,
            Failure::Log { .. }
            | Failure::Images { .. }
            | Failure::Open { .. }
            | Failure::Backup { .. }
            | Failure::World { .. } => Exit::Storage,
            Failure::NotEmpty { .. } => Exit::Conflict,
            Failure::Unhealthy { .. } | Failure::Damaged { .. } => Exit::Failed,
            Failure::Differs { .. } | Failure::Remote { .. } => Exit::Failed,
            Failure::Collect { .. } | Failure::Module { .. } | Failure::Schema { .. } | Failure::Demo(_) => {
                Exit::Failed
            }
            Failure::Serve { source } => serve_exit(source),
        }
    }

    /// The exit status for `main`.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit() as u8)
    }

    /// Whether all that failed is that nobody reads the output any more.
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Writes the failure to standard error.
    pub fn report(&self, as_json: bool) {
        let next = self.next();
        if as_json {
            let error =
                json!({ "code": self.code(), "message": self.to_string(), "next": next, "exit": self.exit() as u8 });
            eprintln!("{}", json!({ "error": error }));
            return;
        }
        eprintln!("error[{}]: {self}", self.code());
        if let Some(next) = next {
            eprintln!("  next: {next}");
        }
    }

    fn next(&self) -> Option<&str> {
        match self {
            Failure::Client { next, .. }
            | Failure::Usage { next, .. }
            | Failure::NotFound { next, .. }
            | Failure::Remote { next, .. }
            | Failure::Module { next, .. } => next.as_deref(),
            Failure::Serve { source } if serve_exit(source) == Exit::Conflict => {
                Some("end the other server, or choose another --data-dir or --listen")
            }
            Failure::Backup { next, .. } | Failure::Schema { next, .. } => *next,
            Failure::NotEmpty { .. } => Some("name a new folder, or move this one away first"),
            Failure::Unhealthy { .. } => Some("the checks marked `fail` say what to do"),
            Failure::Damaged { .. } => Some("the lines above name the files; restore a backup with `tine restore`"),
            Failure::Open { source: OpenError::Corrupt { .. } } => {
                Some("restore a backup with `tine restore`; `tine explain TN0203` has more")
            }
            Failure::Images { source: ImageError::Corrupt { .. } } => {
                Some("restore a backup with `tine restore`; `tine explain TN0262` has more")
            }
            Failure::Log { source: LogError::Corrupt { .. } } => {
                Some("restore a backup with `tine restore`; `tine explain TN0203` has more")
            }
            Failure::Declined(Consent::Clear) => Some("add --yes=clear when nobody is there to ask"),
            Failure::Declined(_) => Some("add --yes when nobody is there to ask"),
            _ => None,
        }
    }
}

fn client_exit(error: &ClientError) -> Exit {
    match error {
        ClientError::BadUrl { .. } | ClientError::MessageTooLarge { .. } => Exit::Usage,
        ClientError::Connect { .. } => Exit::Unreachable,
        ClientError::Deadline { .. } | ClientError::Silent { .. } => Exit::Deadline,
        ClientError::Refused { status, .. } => match status {
            401 | 403 => Exit::NotAuthorised,
            404 => Exit::NotFound,
            409 => Exit::Conflict,
            408 | 504 => Exit::Deadline,
            // 530: the call itself failed. Compile errors of a module come as 400 or 500.
            400..=499 | 530 => Exit::Failed,
            _ => Exit::Server,
        },
        ClientError::Call { .. } | ClientError::Query { .. } => Exit::Failed,
        ClientError::Closed { .. }
        | ClientError::Protocol(_)
        | ClientError::Transport(_)
        | ClientError::BadReply { .. }
        | ClientError::Backlog { .. } => Exit::Server,
    }
}

fn serve_exit(error: &ServerError) -> Exit {
    match error {
        ServerError::Host(HostError::DirectoryInUse(_)) => Exit::Conflict,
        ServerError::Host(HostError::ImagesElsewhere { .. }) => Exit::Usage,
        ServerError::Listen { source, .. } => match source.kind() {
            io::ErrorKind::AddrInUse => Exit::Conflict,
            io::ErrorKind::PermissionDenied => Exit::NotAuthorised,
            _ => Exit::Usage,
        },
        _ => Exit::Storage,
    }
}

fn next_step(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::BadUrl { .. } => Some("give --server http://host:port"),
        ClientError::Connect { .. } => Some("start one with `tine serve`, or name it with --server or TINE_SERVER"),
        ClientError::Refused { status: 401, .. } => {
            Some("the token is not valid at this server (another data directory?); `--new-identity` gets a new one")
        }
        ClientError::Refused { status: 403, .. } => {
            Some("use the owner's --token, or --data-dir of the local server to act as its administrator")
        }
        ClientError::Refused { status: 404, .. } => Some("`tine list` shows the databases and forks that are there"),
        ClientError::Refused { status: 530, .. } => Some("`tine logs DATABASE` shows what the module logged"),
        ClientError::Deadline { .. } | ClientError::Silent { .. } => {
            Some("see whether the server is busy: GET /v1/metrics")
        }
        _ => None,
    }
}
