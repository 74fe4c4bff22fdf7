//! Settings of the host and their defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tine_base::cpu;
use tine_lanes::{LaneOptions, Sabotage};
use tine_module::Limits;
use tine_query::SelectLimits;
use tine_sandbox::Sandbox;

use crate::{HttpRule, ImageOptions, IsolationMode};

/// Requests of one connection that may be received and not yet handled; the peer's number.
pub(crate) const CLIENT_REQUESTS_MAX: usize = 16_384;

/// Bytes of such requests: two messages of the largest size.
pub(crate) const CLIENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Requests waiting in one lane, over all connections: sixty-four connections at their own bound.
const LANE_JOBS_MAX: usize = 64 * CLIENT_REQUESTS_MAX;

/// Bytes of such requests: four connections at their own bound.
const LANE_BYTES_MAX: usize = 4 * CLIENT_BYTES_MAX;

/// Work up to this long runs on the thread that received it: less than what two thread hand-offs cost when the cores are busy.
const INLINE_MAX: Duration = Duration::from_micros(300);

/// Memory of all instances together: some five hundred of a usual size.
const INSTANCES_MEMORY_MAX: usize = 1 << 30;

/// Settings of a [`crate::Host`].
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The data directory.
    pub directory: PathBuf,
    /// Whether anybody with a token may create databases, or only the admin.
    pub open_publish: bool,
    /// Whether calls that failed, and sessions, are logged.
    pub call_log: bool,
    /// How long a reducer may run.
    pub reducer_deadline: Duration,
    /// How long a procedure may run, its waiting for transactions included.
    pub procedure_deadline: Duration,
    /// Bounds of a module instance.
    pub instance_limits: Limits,
    /// Bounds of a query.
    pub query_limits: SelectLimits,
    /// Threads that run lanes whose work is not short.
    pub lane_threads: usize,
    /// Whether each lane thread stays on a core of its own.
    pub pin_lane_threads: bool,
    /// Threads that run procedures.
    pub procedure_threads: usize,
    /// Memory that the instances of all forks may take together, in bytes; beyond it idle forks lose theirs.
    pub instances_memory_max: usize,
    /// Where procedures may send HTTP requests; nowhere by default. On a fork whose schedules are paused nothing is sent (G10).
    pub http_allow: Vec<HttpRule>,
    /// Starts the worker processes of isolated modules, whose program has [`tine_module::isolation::ENTRY`] among its entries. Without it
    /// such modules are refused.
    pub sandbox: Option<Arc<Sandbox>>,
    /// Where modules run that do not say it themselves.
    pub isolation: IsolationMode,
    /// Where images of the databases are.
    pub images: ImageOptions,
    /// Breaks the order of requests on purpose: tests prove with it that they would notice.
    #[doc(hidden)]
    pub sabotage: Sabotage,
}

impl HostOptions {
    /// The defaults for a data directory: threads from the CPU budget, a reducer deadline of 2 s, a procedure deadline of 60 s.
    pub fn new(directory: PathBuf) -> Self {
        HostOptions {
            directory,
            open_publish: false,
            call_log: true,
            reducer_deadline: Duration::from_secs(2),
            procedure_deadline: Duration::from_secs(60),
            instance_limits: Limits::default(),
            query_limits: SelectLimits::default(),
            lane_threads: 1,
            pin_lane_threads: false,
            procedure_threads: 2,
            instances_memory_max: INSTANCES_MEMORY_MAX,
            http_allow: Vec::new(),
            sandbox: None,
            isolation: IsolationMode::default(),
            images: ImageOptions::default(),
            sabotage: Sabotage::None,
        }
        .with_cores(cpu::budget().cores.get())
    }

    /// Sizes the pools of threads for `cores` cores instead of the ones found.
    pub fn with_cores(mut self, cores: usize) -> Self {
        self.lane_threads = cores.max(1);
        // A procedure mostly waits; two at least, so that one that loops does not stop all others.
        self.procedure_threads = (2 * cores).max(2);
        self
    }

    pub(crate) fn lane_options(&self) -> LaneOptions {
        LaneOptions {
            queue_jobs_max: LANE_JOBS_MAX,
            queue_bytes_max: LANE_BYTES_MAX,
            inline_max: INLINE_MAX,
            sabotage: self.sabotage,
            ..LaneOptions::default()
        }
    }
}
