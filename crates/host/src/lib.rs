//! The host of databases: what a server needs behind its network code, and what an embedding program can use without one.
//!
//! A [`Host`] owns a data directory. Each database has a store and one lane per fork ([`tine_lanes`]); the lane's worker runs module
//! code, commits, and computes what subscribers are told. Nothing here knows of sockets: clients are [`ClientSink`]s.
//!
//! Threads: lanes run on the thread that received a request while that is short, else on a fixed pool; procedures on a pool of their
//! own; schedules are started by one thread that never waits for them.

mod admin;
mod cancel;
mod client;
mod clients;
mod code_cache;
mod control;
mod database;
mod error;
mod fork;
mod forks;
mod handle;
mod host;
mod housekeeping;
mod http;
mod images;
mod immediate;
mod instances;
mod isolation;
mod jobs;
mod local;
mod logs;
mod meta;
mod metrics;
mod module;
mod names;
mod options;
mod plan;
mod procedures;
mod publish;
mod reads;
mod record;
mod redo;
mod scheduler;
mod statements;
mod system;
mod views;
mod worker;

pub use admin::{PublishRequest, Published};
pub use cancel::CallGuard;
pub use client::{
    Actor, CallArguments, CallReturn, ClientInfo, ClientSink, CloseReason, Delivery, Durability, Reply, ReplyTo,
    Requester, SqlRows,
};
pub use control::{RecordedDatabase, recorded_databases};
pub use error::{CallFailure, HostError};
pub use forks::{ForkMade, ForkParent, ForkRequest, ForkSummary, ResetRequest};
pub use handle::{Connection, ForkHandle};
pub use host::{DIRECTORY_VERSION, DatabaseInfo, Host};
pub use http::{BadHttpRule, HttpAnswer, HttpCall, HttpRule};
pub use images::{IMAGES_FILE, ImageOptions, remembered_url};
pub use isolation::{BadIsolationMode, IsolationMode, RedoPlace};
pub use local::{LOCAL_BYTES_MAX, LOCAL_ROWS_MAX, LocalBound, LocalRead, LocalReply, LocalWrite, RowForm, wait_for};
pub use logs::{LogLevel, LogRecord, ModuleLog};
pub use metrics::{Counter, Gauge, Metrics};
pub use module::ActiveModule;
pub use names::{MAIN, check_name, split_address};
pub use options::HostOptions;
pub use plan::{PlanStep, PublishPlan, UpdatePlan};
pub use publish::ClientPolicy;
pub use record::{CallKind, CallRecord, Record};
pub use redo::{
    DryRun, Example, FunctionReport, HistoryEntry, HistoryRequest, Outcome, RedoProgress, RedoStep, ReplayReport,
    ReplayRequest, RowChanges, TableCounts, TableDifference, VerifyReport, VerifyRequest,
};
pub use tine_lanes::{CounterValues as LaneCounters, Sabotage};
pub use tine_store::{CheckpointId, DurableTicket, Lsn, RecoveryProgress, VersionAt};
