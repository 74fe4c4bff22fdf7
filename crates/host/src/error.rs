//! Errors of the host, each with the stable code that reaches callers.

use tine_module::{CompileError, LoadError};
use tine_query::QueryError;
use tine_store::{ForkError, HistoryError, LogError, OpenError, StoreError};
use tine_tables::{SchemaError, TableError};
use tine_types::Identity;

/// What can go wrong when a database is resolved, published, forked or deleted.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No database or fork has this name or identity.
    #[error("`{0}` not found")]
    NotFound(String),
    /// The name belongs to another database or fork.
    #[error("the name `{0}` is taken")]
    NameTaken(String),
    /// A name that breaks the rules for names.
    #[error("`{0}` is not a valid name: use groups of a-z and 0-9 joined by single hyphens, at most 64 characters")]
    InvalidName(String),
    /// The caller may not do this.
    #[error("{identity} is not authorized to perform action on database {database}: {action}")]
    NotAuthorized {
        /// Who asked.
        identity: Identity,
        /// On which database.
        database: Identity,
        /// For what, in words.
        action: &'static str,
    },
    /// Creating a database needs the admin token.
    #[error(
        "creating a database needs the admin token of this server (start it with --open-publish to allow everybody)"
    )]
    AdminRequired,
    /// The fork was closed while the request waited.
    #[error("the database or fork was closed")]
    Closed,
    /// A queue is at its bound.
    #[error("too many requests are waiting: {0}")]
    Overloaded(&'static str),
    /// The module source does not compile.
    #[error("{0}")]
    Compile(#[from] CompileError),
    /// The compiled module does not load.
    #[error("the module does not load: {0}")]
    Load(#[from] LoadError),
    /// The module's tables are invalid or cannot be reached from the present ones.
    #[error("{0}")]
    Schema(#[from] SchemaError),
    /// A module is to run in a process of its own, and there are none.
    #[error("this server starts no worker processes, so it cannot run a module with isolation `process`")]
    NoWorkers,
    /// Recorded calls were to run in a worker process, and something other than a call ended that.
    #[error("the worker process in which recorded calls run failed: {0}")]
    RedoWorker(#[source] tine_sandbox::CallError),
    /// The `init` reducer of a new database failed.
    #[error("the init reducer failed: {0}")]
    InitFailed(String),
    /// The bytes to publish are neither a source file nor a source bundle.
    #[error("the program is not a module this server understands: {0}")]
    BadProgram(String),
    /// Deleting a database that still has forks needs consent.
    #[error("the database has forks: {}; delete them first or ask for all of them with ?forks=true", .0.join(", "))]
    ForksPresent(Vec<String>),
    /// A view that a statement names cannot be made.
    #[error("{0}")]
    View(String),
    /// More names than a database may have.
    #[error("a database may have at most {0} names")]
    TooManyNames(usize),
    /// The database is locked against deleting it and starting it over.
    #[error("`{0}` is locked: it cannot be deleted or reset until its owner unlocks it")]
    Locked(String),
    /// `main` cannot be deleted, renamed or replaced alone.
    #[error("the fork `main` cannot be {0} alone")]
    MainFork(&'static str),
    /// The stored data cannot be brought to the new tables.
    #[error("the data of the database does not fit the new module: {0}")]
    Migrate(#[source] TableError),
    /// Clients could not cope with the new module, and nobody agreed to that.
    #[error("connected clients would have to be disconnected: {}; publish with policy=BreakClients and the token of the plan (pre_publish)", .0.join("; "))]
    BreaksClients(Vec<String>),
    /// The plan that was agreed to is not what would happen now.
    #[error(
        "the plan's token is not the present one: another module was published meanwhile, or this is another program"
    )]
    PlanOutdated,
    /// An older version that holds no module.
    #[error("version {0} is older than the first module of the database")]
    BeforeFirstModule(u64),
    /// A version that is older than what is kept.
    #[error("that version of `{fork}` is not retained any more: the oldest that is has LSN {oldest}")]
    NotRetained {
        /// Address of the fork.
        fork: String,
        /// The oldest LSN that can be asked for.
        oldest: u64,
    },
    /// A version that the fork has not reached.
    #[error("`{fork}` has no such version yet: its newest has LSN {head}")]
    NoSuchVersion {
        /// Address of the fork.
        fork: String,
        /// Its newest LSN.
        head: u64,
    },
    /// A point in time that has not come yet.
    #[error("the time {0} is in the future")]
    InFuture(String),
    /// Nobody knows who was connected to an older version.
    #[error("clients can only be disconnected on a fork of the present version, not of an older one")]
    ClientsUnknown,
    /// A fork's life is over before it began, or does not end.
    #[error("a fork cannot live for {0} ms: give at least one, and at most ten years")]
    BadLifetime(i64),
    /// A durable fork was to be replaced by one that is made of an ephemeral one.
    #[error("a durable fork cannot be reset to a version of an ephemeral one")]
    NeverDurable,
    /// A reset that would change nothing.
    #[error("say to which version the fork is to be reset: another fork, an LSN or a time")]
    NoVersion,
    /// An older version cannot be had.
    #[error("{0}")]
    History(#[from] HistoryError),
    /// Nothing on an ephemeral fork is ever durable.
    #[error("an ephemeral fork has no confirmed delivery: connect with confirmed=false")]
    NeverConfirmed,
    /// Another server uses the data directory.
    #[error("the data directory {0} is in use by another server")]
    DirectoryInUse(String),
    /// The data directory remembers another place for images than the one asked for.
    #[error("the images of the data directory are in {remembered}, not in {asked}")]
    ImagesElsewhere {
        /// Where they are.
        remembered: String,
        /// What was asked for.
        asked: String,
    },
    /// The data directory was written by an incompatible version.
    #[error("the data directory {directory} has format {found}, this program reads {expected}")]
    WrongVersion {
        /// Path of the directory.
        directory: String,
        /// The version the directory states.
        found: String,
        /// The version this program writes.
        expected: &'static str,
    },
    /// What a database keeps about itself does not decode.
    #[error("stored {0} cannot be decoded: the data directory is damaged or of another version")]
    Damaged(&'static str),
    /// The log cannot be read.
    #[error("{0}")]
    Log(#[from] LogError),
    /// Ephemeral forks have no history.
    #[error("an ephemeral fork is not recorded, so it has no history: make the fork durable")]
    NeverRecorded,
    /// A range of commits that is empty or not there.
    #[error("there is no range of commits from {from} to {to}: the newest commit is {head}")]
    BadRange {
        /// First LSN asked for.
        from: u64,
        /// Last LSN asked for.
        to: u64,
        /// The newest there is.
        head: u64,
    },
    /// A long run was stopped by whoever started it.
    #[error("stopped after commit {lsn}")]
    Stopped {
        /// The last commit that was gone through.
        lsn: u64,
    },
    /// No replay with that name was stopped before its end.
    #[error("there is no unfinished replay `{0}` to resume")]
    NothingToResume(String),
    /// A table whose columns changed has too many rows to compare.
    #[error("table `{table}` has other columns in the new module and more than {rows_max} rows, too many to compare")]
    TooLargeToCompare {
        /// Its name.
        table: String,
        /// The bound.
        rows_max: usize,
    },
    /// A query was refused.
    #[error("{0}")]
    Query(#[from] QueryError),
    /// A store refused.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A store could not be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// A fork operation was refused.
    #[error("{0}")]
    Fork(#[from] ForkError),
    /// A table operation failed.
    #[error("{0}")]
    Table(#[from] TableError),
    /// A request did not get through the fork's lane.
    #[error("{0}")]
    Call(#[from] CallFailure),
    /// A file operation failed.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, with the path.
        action: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl HostError {
    /// What a worker process did or could not do, when that is the error.
    pub fn of_worker(&self) -> Option<&tine_sandbox::CallError> {
        match self {
            HostError::RedoWorker(error)
            | HostError::Load(LoadError::Worker(error))
            | HostError::Compile(CompileError::Load(LoadError::Worker(error))) => Some(error),
            _ => None,
        }
    }

    /// The stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            HostError::NotFound(_) => "TN0601",
            HostError::NameTaken(_) => "TN0602",
            HostError::InvalidName(_) => "TN0603",
            HostError::NotAuthorized { .. } => "TN0604",
            HostError::AdminRequired => "TN0605",
            HostError::Closed => "TN0606",
            HostError::Overloaded(_) => "TN0607",
            HostError::InitFailed(_) => "TN0608",
            HostError::BadProgram(_) => "TN0609",
            HostError::ForksPresent(_) => "TN0610",
            HostError::MainFork(_) => "TN0611",
            HostError::Locked(_) => "TN0635",
            HostError::TooManyNames(_) => "TN0636",
            HostError::View(_) => "TN0637",
            HostError::NoWorkers => "TN0639",
            HostError::RedoWorker(error) => error.code(),
            HostError::NeverConfirmed => "TN0612",
            HostError::DirectoryInUse(_) => "TN0613",
            HostError::WrongVersion { .. } => "TN0614",
            HostError::ImagesElsewhere { .. } => "TN0625",
            HostError::Damaged(_) => "TN0615",
            HostError::Io { .. } => "TN0616",
            HostError::Migrate(error) => error.code(),
            HostError::BreaksClients(_) => "TN0617",
            HostError::PlanOutdated => "TN0618",
            HostError::BeforeFirstModule(_) => "TN0619",
            HostError::NotRetained { .. } => "TN0240",
            HostError::NoSuchVersion { .. } => "TN0241",
            HostError::InFuture(_) => "TN0630",
            HostError::ClientsUnknown => "TN0631",
            HostError::BadLifetime(_) => "TN0632",
            HostError::NeverDurable => "TN0634",
            HostError::NoVersion => "TN0633",
            HostError::History(error) => error.code(),
            HostError::Log(error) => error.code(),
            HostError::NeverRecorded => "TN0650",
            HostError::BadRange { .. } => "TN0651",
            HostError::Stopped { .. } => "TN0652",
            HostError::NothingToResume(_) => "TN0653",
            HostError::TooLargeToCompare { .. } => "TN0654",
            HostError::Compile(error) => error.code(),
            HostError::Load(error) => error.code(),
            HostError::Schema(error) => error.code(),
            HostError::Query(error) => error.code(),
            HostError::Store(error) => error.code(),
            HostError::Open(error) => error.code(),
            HostError::Fork(error) => error.code(),
            HostError::Table(error) => error.code(),
            HostError::Call(failure) => failure.code(),
        }
    }
}

/// Why a call of a reducer or procedure, or a statement, has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallFailure {
    /// No reducer or procedure has this name, or it is not for clients.
    #[error("No such procedure")]
    NoSuchFunction,
    /// The arguments do not fit the parameters.
    #[error("{0}")]
    BadArguments(String),
    /// The module's connect hook refused the caller.
    #[error("{0}")]
    Refused(String),
    /// The module threw a `SenderError`: the text is for the caller.
    #[error("{0}")]
    User(String),
    /// The call failed in another way; rolled back.
    #[error("{message}")]
    Failed {
        /// Stable code.
        code: &'static str,
        /// What the caller is told.
        message: String,
    },
}

impl CallFailure {
    /// The stable code of the failure.
    pub fn code(&self) -> &'static str {
        match self {
            CallFailure::NoSuchFunction => "TN0620",
            CallFailure::BadArguments(_) => "TN0621",
            CallFailure::Refused(_) => "TN0622",
            CallFailure::User(_) => "TN0623",
            CallFailure::Failed { code, .. } => code,
        }
    }

    /// What a failed connect hook means for the caller: its own refusal, unless the server is at fault.
    pub(crate) fn into_refusal(self) -> Self {
        match self {
            CallFailure::User(text) => CallFailure::Refused(text),
            CallFailure::Failed { code, message } if code.starts_with("TN05") => CallFailure::Refused(message),
            other => other,
        }
    }

    pub(crate) fn from_host(error: &HostError) -> Self {
        CallFailure::Failed { code: error.code(), message: error.to_string() }
    }

    pub(crate) fn closed() -> Self {
        CallFailure::from_host(&HostError::Closed)
    }
}
