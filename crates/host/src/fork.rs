//! One fork at run time: its lane, its module, and what its worker shares with other threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use tine_lanes::{Lane, Refusal};
use tine_module::{Instance, LogEntry};
use tine_store::{ForkId, Lsn, Store};
use tine_tables::{ChangeSet, TableRead, TableSnapshot, TableWriter};
use tine_types::Identity;
use tokio::sync::watch;

use crate::HostError;
use crate::cancel::{Cancellation, Cancellations};
use crate::client::Durability;
use crate::host::HostShared;
use crate::instances::Usage;
use crate::jobs::Job;
use crate::logs::{LogLevel, LogRecord, ModuleLog};
use crate::module::ActiveModule;
use crate::worker::ForkWorker;

/// See the module documentation.
pub(crate) struct Fork {
    pub host: Arc<HostShared>,
    pub database_identity: Identity,
    pub identity: Identity,
    pub owner: Identity,
    pub id: ForkId,
    pub store: Store,
    pub log: Arc<ModuleLog>,
    pub durability: Arc<watch::Sender<Durability>>,
    name: RwLock<Arc<str>>,
    module: RwLock<Arc<ActiveModule>>,
    /// Number of the fork on which the schedules of this one's version run.
    schedules_run_on: AtomicU64,
    /// Counts publishes: schedule entries of an earlier one are stale.
    activation: AtomicU64,
    /// What this fork's instances take.
    pub usage: Usage,
    /// Procedures that run or wait here.
    procedures: Mutex<Cancellations>,
    /// Idle instances for procedures, bound to this fork; at most one per procedure thread.
    procedure_instances: Mutex<Vec<Instance>>,
    lane: OnceLock<Lane<ForkWorker>>,
    /// Whether the worker has given up the store's writer.
    closed: (Mutex<bool>, Condvar),
    /// Told when the lane has closed, so that the database forgets the fork.
    on_closed: Box<dyn Fn(ForkId, Refusal) + Send + Sync>,
}

/// What a fork is started with.
pub(crate) struct ForkParts {
    pub host: Arc<HostShared>,
    pub database_identity: Identity,
    pub identity: Identity,
    pub owner: Identity,
    pub id: ForkId,
    pub name: Arc<str>,
    pub store: Store,
    pub log: Arc<ModuleLog>,
    pub durability: Arc<watch::Sender<Durability>>,
    pub module: Arc<ActiveModule>,
    pub schedules_run_on: ForkId,
    pub head: Lsn,
    pub on_closed: Box<dyn Fn(ForkId, Refusal) + Send + Sync>,
}

impl Fork {
    /// Starts the lane of a fork whose version already has a module, or is about to get its first one.
    pub fn start(parts: ForkParts) -> Result<Arc<Fork>, HostError> {
        let writer = parts.store.writer(parts.id)?;
        let fork = Arc::new(Fork {
            host: parts.host,
            database_identity: parts.database_identity,
            identity: parts.identity,
            owner: parts.owner,
            id: parts.id,
            store: parts.store,
            log: parts.log,
            durability: parts.durability,
            name: RwLock::new(parts.name),
            module: RwLock::new(parts.module.clone()),
            schedules_run_on: AtomicU64::new(parts.schedules_run_on.get()),
            activation: AtomicU64::new(0),
            usage: Usage::default(),
            procedures: Mutex::default(),
            procedure_instances: Mutex::new(Vec::new()),
            lane: OnceLock::new(),
            closed: (Mutex::new(false), Condvar::new()),
            on_closed: parts.on_closed,
        });
        let tables = TableWriter::new(writer, parts.module.schema.clone());
        let published = TableSnapshot::new(fork.store.snapshot(fork.id)?, parts.module.schema.clone());
        let worker = ForkWorker::new(fork.clone(), parts.module, tables, parts.head);
        let lane = Lane::new(worker, &fork.host.lanes);
        assert!(fork.lane.set(lane).is_ok(), "a fork starts once");
        // Last: an overdue entry fires at once, and needs the lane.
        if fork.schedules_run() {
            fork.arm_all_schedules(&published)?;
        }
        Ok(fork)
    }

    pub fn lane(&self) -> &Lane<ForkWorker> {
        self.lane.get().expect("a fork is shared only after its lane was set")
    }

    pub fn name(&self) -> Arc<str> {
        self.name.read().clone()
    }

    pub fn rename(&self, name: &str) {
        *self.name.write() = name.into();
    }

    pub fn module(&self) -> Arc<ActiveModule> {
        self.module.read().clone()
    }

    pub fn schedules_run_on(&self) -> ForkId {
        ForkId::new(self.schedules_run_on.load(Ordering::Acquire))
    }

    pub fn run_schedules_on(&self, id: ForkId) {
        self.schedules_run_on.store(id.get(), Ordering::Release);
    }

    pub fn schedules_run(&self) -> bool {
        self.schedules_run_on() == self.id
    }

    pub fn activation(&self) -> u64 {
        self.activation.load(Ordering::Acquire)
    }

    /// Makes a published module the one that runs here.
    pub fn activate(self: &Arc<Self>, module: Arc<ActiveModule>, tables: &impl TableRead) -> Result<(), HostError> {
        self.host.instances.prepare(&module);
        *self.module.write() = module;
        self.drop_procedure_instances();
        self.activation.fetch_add(1, Ordering::AcqRel);
        if self.schedules_run() { self.arm_all_schedules(tables) } else { Ok(()) }
    }

    pub fn after_commit(self: &Arc<Self>, changes: &ChangeSet, tables: &TableWriter) {
        if self.schedules_run() {
            self.arm_schedules(changes, tables);
        }
    }

    pub fn take_procedure_instance(&self, module: &Arc<ActiveModule>) -> Option<Instance> {
        if !Arc::ptr_eq(module, &*self.module.read()) {
            return None;
        }
        let mut instances = self.procedure_instances.lock();
        let instance = instances.pop();
        self.weigh_procedures(&instances);
        instance
    }

    pub fn keep_procedure_instance(&self, module: &Arc<ActiveModule>, instance: Instance) {
        // Held over the push: a publish clears the instances after it replaced the module.
        let current = self.module.read();
        let mut instances = self.procedure_instances.lock();
        if Arc::ptr_eq(module, &*current) && instances.len() < self.host.options.procedure_threads {
            instances.push(instance);
        }
        self.weigh_procedures(&instances);
    }

    fn weigh_procedures(&self, instances: &[Instance]) {
        self.usage.set_procedures(instances.iter().map(Instance::memory_bytes).sum());
    }

    fn drop_procedure_instances(&self) {
        let dropped = std::mem::take(&mut *self.procedure_instances.lock());
        self.usage.set_procedures(0);
        drop(dropped);
    }

    /// Gives up all instances that do not run, as soon as the lane comes to it.
    pub fn give_up_instances(&self) {
        self.drop_procedure_instances();
        // A closed lane has none.
        let _ = self.lane().submit_unbounded(Job::DropInstance);
    }

    /// Counts a procedure among those that end with the fork.
    pub fn add_procedure(&self, cancellation: &Arc<Cancellation>) {
        self.procedures.lock().add(cancellation);
    }

    pub fn log_entry(&self, function: &str, entry: LogEntry) {
        self.log.push(LogRecord {
            level: match entry.level {
                tine_module::LogLevel::Error => LogLevel::Error,
                tine_module::LogLevel::Warn => LogLevel::Warn,
                tine_module::LogLevel::Info => LogLevel::Info,
                tine_module::LogLevel::Debug => LogLevel::Debug,
                tine_module::LogLevel::Trace => LogLevel::Trace,
            },
            timestamp_micros: self.host.env.now_micros(),
            fork: self.name(),
            function: function.into(),
            location: entry.file.map(|file| (file.into(), entry.line.unwrap_or(0))),
            message: entry.message.into(),
            trace: None,
        });
    }

    /// Closes the lane and waits until the request that runs has ended.
    pub fn close(&self, within: Duration) -> Result<(), HostError> {
        self.lane().close();
        let (closed, changed) = &self.closed;
        let mut closed = closed.lock();
        let until = Instant::now() + within;
        while !*closed {
            if changed.wait_until(&mut closed, until).timed_out() {
                return Err(HostError::Overloaded("closing waits for a request that does not end"));
            }
        }
        Ok(())
    }

    /// Called by the worker when its lane has closed.
    pub fn closed(&self, refusal: Refusal) {
        self.activation.fetch_add(1, Ordering::AcqRel);
        self.procedures.lock().cancel();
        self.drop_procedure_instances();
        self.usage.set_lane(0, 0);
        if refusal == Refusal::Faulted {
            tracing::error!(fork = %self.name(), "a request panicked: the fork's host is dropped and built anew on the next request");
        }
        *self.closed.0.lock() = true;
        self.closed.1.notify_all();
        (self.on_closed)(self.id, refusal);
    }
}
