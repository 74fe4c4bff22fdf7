//! The host: all databases of a data directory.
//!
//! Layout: `VERSION`, `LOCK`, `keys/` (the server's), `cache/` ([`crate::code_cache`]), `control/` (a store: see [`crate::control`]), `databases/<identity>/` (a store
//! and the module's log). A database exists when its row is in the control store: a directory without a row is the rest of a creation
//! or deletion that was cut short, and is removed on start.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tine_base::{Env, EnvFile, OpenMode, cpu};
use tine_lanes::{FixedPool, Lanes};
use tine_store::{ForkId, ForkInfo, RecoveryProgress};
use tine_types::{ConnectionId, Identity};

use crate::client::Actor;
use crate::clients::ClientKey;
use crate::code_cache;
use crate::control::{Control, DatabaseRow, NAMES_MAX};
use crate::database::Database;
use crate::handle::ForkHandle;
use crate::housekeeping::Housekeeping;
use crate::http;
use crate::images::ImageHome;
use crate::instances::Instances;
use crate::isolation::InstanceMaker;
use crate::metrics::Metrics;
use crate::module::ModuleCache;
use crate::names::{MAIN, fork_identity, split_address};
use crate::options::HostOptions;
use crate::procedures::ProcedurePool;
use crate::scheduler::Scheduler;
use crate::{HostError, check_name};

/// Content of the `VERSION` file of a data directory. Before 1.0 another version is refused.
pub const DIRECTORY_VERSION: &str = "tine data directory 1\n";

/// What forks need of the host; holds no database, so that nothing refers to itself.
pub(crate) struct HostShared {
    pub env: Arc<dyn Env>,
    pub options: HostOptions,
    pub metrics: Arc<Metrics>,
    pub lane_threads: Arc<FixedPool>,
    /// What the lanes of all forks share.
    pub lanes: Arc<Lanes>,
    pub procedures: ProcedurePool,
    pub instances: Instances,
    pub scheduler: Scheduler,
    /// Sends what procedures ask for.
    pub http: http::Client,
    pub modules: ModuleCache,
    pub images: ImageHome,
    next_client: AtomicU64,
}

impl HostShared {
    pub fn random_connection_id(&self) -> ConnectionId {
        let mut bytes = [0; 16];
        self.env.random_bytes(&mut bytes);
        // All-zero is reserved; one bit less of randomness rules it out.
        ConnectionId::new(u128::from_le_bytes(bytes) | 1)
    }

    pub fn next_client(&self) -> ClientKey {
        ClientKey(self.next_client.fetch_add(1, Ordering::Relaxed))
    }
}

/// Databases by identity, name and fork identity; changed together.
#[derive(Default)]
struct Directory {
    databases: HashMap<Identity, Arc<Database>>,
    names: HashMap<Arc<str>, Identity>,
    fork_identities: HashMap<Identity, (Identity, ForkId)>,
}

impl Directory {
    fn add(&mut self, database: Arc<Database>) {
        for name in database.names.read().iter() {
            self.names.insert(name.clone(), database.identity);
        }
        for fork in database.store.forks() {
            self.fork_identities.insert(fork_identity(database.identity, fork.id), (database.identity, fork.id));
        }
        self.databases.insert(database.identity, database);
    }

    fn remove(&mut self, identity: Identity) {
        self.databases.remove(&identity);
        self.names.retain(|_, database| *database != identity);
        self.fork_identities.retain(|_, (database, _)| *database != identity);
    }
}

struct Inner {
    shared: Arc<HostShared>,
    control: Mutex<Control>,
    directory: RwLock<Directory>,
    /// Held while databases are created or deleted, and while names of forks change: one at a time.
    changing: Mutex<()>,
    housekeeping: Housekeeping,
    /// Held by flock until the host has shut down.
    lock: Mutex<Option<Box<dyn EnvFile>>>,
}

/// A host that may be gone, for threads that must not keep it.
pub(crate) struct WeakHost(Weak<Inner>);

impl WeakHost {
    pub fn upgrade(&self) -> Option<Host> {
        self.0.upgrade().map(Host)
    }
}

/// All databases of a data directory; cheap to clone. Methods that change databases or forks block until the change is durable:
/// call them where blocking is allowed.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

/// What [`Host::databases`] tells of a database.
#[derive(Clone, Debug)]
pub struct DatabaseInfo {
    /// Identity of the database; also of its `main`.
    pub identity: Identity,
    /// The name it is shown by, if it has one.
    pub name: Option<Arc<str>>,
    /// All its names, that one first.
    pub names: Vec<Arc<str>>,
    /// Who owns it.
    pub owner: Identity,
    /// Microseconds since the Unix epoch.
    pub created_micros: i64,
    /// Names of its forks, `main` first.
    pub forks: Vec<String>,
    /// Whether it refuses to be deleted and to start over.
    pub locked: bool,
}

impl Host {
    /// Opens a data directory, making it if it is not there, and recovers all databases.
    ///
    /// # Errors
    /// [`HostError::DirectoryInUse`] when another server has it open; [`HostError::Open`] when a log is damaged.
    pub fn open(options: HostOptions, env: Arc<dyn Env>) -> Result<Host, HostError> {
        Host::open_with_progress(options, env, &mut |_| {})
    }

    /// [`Host::open`], telling how far the recovery of each database's log is.
    ///
    /// # Errors
    /// As there.
    pub fn open_with_progress(
        options: HostOptions,
        env: Arc<dyn Env>,
        progress: &mut dyn FnMut(RecoveryProgress),
    ) -> Result<Host, HostError> {
        let directory = options.directory.clone();
        let io = |action: &'static str| {
            let path = directory.display().to_string();
            move |source| HostError::Io { action: format!("{action} {path}"), source }
        };
        env.create_dir_all(&directory.join("databases")).map_err(io("creating the data directory"))?;
        let lock = env.open(&directory.join("LOCK"), OpenMode::Create).map_err(io("opening the lock file in"))?;
        if !lock.try_lock_exclusive().map_err(io("locking"))? {
            return Err(HostError::DirectoryInUse(directory.display().to_string()));
        }
        check_version(&*env, &directory)?;
        let images = ImageHome::open(&*env, &directory, &options.images)?;
        let metrics = Arc::new(Metrics::default());
        let next_core = AtomicUsize::new(0);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let core = next_core.fetch_add(1, Ordering::Relaxed);
            let is_pinned = options.pin_lane_threads;
            let pinned = move || {
                if is_pinned && !cpu::pin_current_thread(core) {
                    tracing::warn!(core, "a lane thread cannot be pinned to its core and runs on any");
                }
                run();
            };
            env.spawn(name, Box::new(pinned))
        };
        let lane_threads =
            FixedPool::start("tine-lane", options.lane_threads, &spawn).map_err(io("starting lane threads for"))?;
        let lane_threads = Arc::new(lane_threads);
        let lanes = Lanes::new(lane_threads.clone(), options.lane_options());
        let procedures = ProcedurePool::start(&env, options.procedure_threads, metrics.clone())?;
        let scheduler = Scheduler::start(&env)?;
        let memory_max = options.instances_memory_max;
        let maker = InstanceMaker::new(options.instance_limits.clone(), options.isolation, options.sandbox.clone())?;
        let maker = Arc::new(maker);
        let instances = Instances::start(&env, maker.clone(), memory_max, metrics.clone())?;
        let modules = ModuleCache::new(maker, code_cache::open(&env, &directory), metrics.clone());
        let http = http::Client::new(options.http_allow.clone());
        let shared = Arc::new(HostShared {
            env: env.clone(),
            options,
            metrics,
            lane_threads,
            lanes,
            procedures,
            instances,
            scheduler,
            http,
            modules,
            images,
            next_client: AtomicU64::new(1),
        });
        let (control, rows) = Control::open(directory.join("control"), env.clone())?;
        let host = Host(Arc::new(Inner {
            shared,
            control: Mutex::new(control),
            directory: RwLock::new(Directory::default()),
            changing: Mutex::new(()),
            housekeeping: Housekeeping::default(),
            lock: Mutex::new(Some(lock)),
        }));
        host.remove_leftovers(&rows)?;
        for row in rows {
            let path = host.database_directory(row.identity);
            let database = Database::open(host.shared().clone(), &path, row, progress)?;
            host.enter(database)?;
        }
        host.count();
        host.0.housekeeping.start(&env, WeakHost(Arc::downgrade(&host.0)))?;
        Ok(host)
    }

    /// Takes a database in that was just opened. Main runs from the start, and so do forks whose schedules run; the others start on
    /// their first use.
    fn enter(&self, database: Arc<Database>) -> Result<(), HostError> {
        database.drop_staged()?;
        let main = database.main()?;
        database.fork(main)?;
        for fork in database.forks() {
            if fork.id != main
                && database.schedules_run(fork.id)?
                && let Err(error) = database.fork(fork.id)
            {
                let address = database.address(&fork.name);
                tracing::error!(fork = %address, %error, "the fork does not start, so its schedules do not run");
            }
            if let Some(micros) = fork.expires_at_micros {
                self.0.housekeeping.expire_at(micros, database.identity, fork.id);
            }
        }
        self.0.directory.write().add(database);
        Ok(())
    }

    fn remove_leftovers(&self, rows: &[DatabaseRow]) -> Result<(), HostError> {
        let env = &self.shared().env;
        let databases = self.shared().options.directory.join("databases");
        let known: Vec<PathBuf> = rows.iter().map(|row| self.database_directory(row.identity)).collect();
        let io = |source| HostError::Io { action: format!("cleaning {}", databases.display()), source };
        for path in env.read_dir(&databases).map_err(io)? {
            if !known.contains(&path) {
                tracing::info!(path = %path.display(), "removing the rest of a database that was not created or deleted to the end");
                env.remove_dir_all(&path).map_err(io)?;
                let identity = path.file_name().and_then(|name| Identity::from_hex(&name.to_string_lossy()).ok());
                if let Some(identity) = identity {
                    self.shared().images.remove(identity);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn shared(&self) -> &Arc<HostShared> {
        &self.0.shared
    }

    pub(crate) fn database_directory(&self, identity: Identity) -> PathBuf {
        self.shared().options.directory.join("databases").join(identity.to_hex())
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.shared().metrics
    }

    /// What the lanes of all forks did, together.
    pub fn lane_counters(&self) -> tine_lanes::CounterValues {
        self.shared().lanes.counters().values()
    }

    /// Requests waiting on all lanes.
    pub fn lane_depth(&self) -> usize {
        self.0.directory.read().databases.values().map(|database| database.depth()).sum()
    }

    /// Whether every store still takes writes.
    ///
    /// # Errors
    /// The error of the first store that does not.
    pub fn ready(&self) -> Result<(), HostError> {
        self.0.control.lock().health()?;
        let databases: Vec<_> = self.0.directory.read().databases.values().cloned().collect();
        databases.iter().try_for_each(|database| Ok(database.store.health()?))
    }

    /// All databases, by name.
    pub fn databases(&self) -> Vec<DatabaseInfo> {
        let directory = self.0.directory.read();
        let mut databases: Vec<_> = directory.databases.values().map(|database| describe(database)).collect();
        databases.sort_by(|a, b| (&a.name, a.identity).cmp(&(&b.name, b.identity)));
        databases
    }

    /// The database and fork id behind an address: a name or identity, with `@fork` or without.
    pub(crate) fn locate(&self, address: &str) -> Result<(Arc<Database>, ForkId), HostError> {
        let not_found = || HostError::NotFound(address.to_owned());
        let (database_part, fork_part) = split_address(address);
        let directory = self.0.directory.read();
        let identity = Identity::from_hex(database_part).ok();
        if let (Some(identity), MAIN) = (identity, fork_part)
            && let Some((database, fork)) = directory.fork_identities.get(&identity)
        {
            let database = directory.databases.get(database).ok_or_else(not_found)?;
            return Ok((database.clone(), *fork));
        }
        let identity = identity.or_else(|| directory.names.get(database_part).copied()).ok_or_else(not_found)?;
        let database = directory.databases.get(&identity).cloned().ok_or_else(not_found)?;
        let fork = database.store.fork_named(fork_part).ok_or_else(not_found)?;
        Ok((database, fork))
    }

    /// The fork at an address, started if it does not run: `name`, `name@fork`, an identity of a database or fork.
    ///
    /// # Errors
    /// [`HostError::NotFound`]; the errors of starting a fork.
    pub fn resolve(&self, address: &str) -> Result<ForkHandle, HostError> {
        let (database, fork) = self.locate(address)?;
        Ok(ForkHandle { fork: database.fork(fork)?, database })
    }

    /// What is known of the database at an address.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn database(&self, address: &str) -> Result<DatabaseInfo, HostError> {
        Ok(describe(&self.locate(address)?.0))
    }

    pub(crate) fn authorize(&self, database: &Database, actor: &Actor, action: &'static str) -> Result<(), HostError> {
        if actor.is_admin || actor.identity == database.owner {
            return Ok(());
        }
        Err(HostError::NotAuthorized { identity: actor.identity, database: database.identity, action })
    }

    pub(crate) fn create_row(&self, name: Option<&str>, owner: Identity) -> DatabaseRow {
        let mut random = [0; 16];
        self.shared().env.random_bytes(&mut random);
        DatabaseRow {
            identity: Identity::from_claims("tine:database", &format!("{:032x}", u128::from_le_bytes(random))),
            owner,
            names: name.map(Into::into).into_iter().collect(),
            created_micros: self.shared().env.now_micros(),
            locked: false,
        }
    }

    /// Runs `create` for a name that is free, one creation at a time, and enters its database.
    pub(crate) fn create_with(
        &self,
        row: DatabaseRow,
        create: impl FnOnce(&Arc<Database>) -> Result<(), HostError>,
    ) -> Result<Arc<Database>, HostError> {
        let _one_at_a_time = self.changing();
        for name in &row.names {
            check_name(name)?;
            if self.0.directory.read().names.contains_key(name) {
                return Err(HostError::NameTaken(name.to_string()));
            }
        }
        let path = self.database_directory(row.identity);
        let database = Database::open(self.shared().clone(), &path, row.clone(), &mut |_| {})?;
        let entered = create(&database).and_then(|()| self.0.control.lock().put(&row));
        if let Err(error) = entered {
            // Without its row the directory is a leftover: removed now if possible, else on the next start.
            let _ = database.close();
            let _ = self.shared().env.remove_dir_all(&path);
            self.shared().images.remove(row.identity);
            return Err(error);
        }
        self.0.directory.write().add(database.clone());
        self.count();
        Ok(database)
    }

    /// Deletes the database, or only the fork when the address names one other than main.
    ///
    /// # Errors
    /// [`HostError::NotAuthorized`]; [`HostError::ForksPresent`] unless `with_forks`.
    pub fn delete(&self, address: &str, actor: &Actor, with_forks: bool) -> Result<(), HostError> {
        let (database, fork) = self.locate(address)?;
        if !database.is_main(fork) {
            return self.fork_delete(address, actor);
        }
        self.authorize(&database, actor, "delete database")?;
        let _one_at_a_time = self.changing();
        database.check_unlocked()?;
        let others: Vec<String> = fork_names(&database).into_iter().filter(|name| name != MAIN).collect();
        if !others.is_empty() && !with_forks {
            return Err(HostError::ForksPresent(others));
        }
        self.0.control.lock().remove(database.identity)?;
        self.0.directory.write().remove(database.identity);
        self.count();
        database.close()?;
        let path = self.database_directory(database.identity);
        let io = |source| HostError::Io { action: format!("removing {}", path.display()), source };
        self.shared().env.remove_dir_all(&path).map_err(io)?;
        self.shared().images.remove(database.identity);
        Ok(())
    }

    /// Locks or unlocks a database: while it is locked it cannot be deleted and its main cannot start over.
    /// Its other forks can, and all of them can be published to.
    ///
    /// # Errors
    /// [`HostError::NotFound`], [`HostError::NotAuthorized`]; the control store's.
    pub fn set_locked(&self, address: &str, actor: &Actor, locked: bool) -> Result<(), HostError> {
        let (database, _) = self.locate(address)?;
        self.authorize(&database, actor, if locked { "lock database" } else { "unlock database" })?;
        let _one_at_a_time = self.changing();
        // Deleted while this waited: its row must not come back.
        if self.database_of(database.identity).is_none() {
            return Err(HostError::NotFound(address.to_owned()));
        }
        self.0.control.lock().put(&DatabaseRow { locked, ..database.row() })?;
        database.locked.store(locked, Ordering::Release);
        Ok(())
    }

    /// Calls a database by these names and no others; the first is the one it is shown by. Open connections stay.
    ///
    /// # Errors
    /// [`HostError::NotFound`], [`HostError::NotAuthorized`]; [`HostError::InvalidName`], [`HostError::NameTaken`], after which
    /// no name has changed; [`HostError::TooManyNames`].
    pub fn set_names(&self, address: &str, actor: &Actor, names: &[String]) -> Result<(), HostError> {
        self.change_names(address, actor, |_| names.to_vec())
    }

    /// Calls a database by one more name.
    ///
    /// # Errors
    /// As for [`Host::set_names`].
    pub fn add_name(&self, address: &str, actor: &Actor, name: &str) -> Result<(), HostError> {
        self.change_names(address, actor, |present| {
            let mut names: Vec<String> = present.iter().map(ToString::to_string).collect();
            names.push(name.to_owned());
            names
        })
    }

    fn change_names(
        &self,
        address: &str,
        actor: &Actor,
        change: impl FnOnce(&[Arc<str>]) -> Vec<String>,
    ) -> Result<(), HostError> {
        let (database, _) = self.locate(address)?;
        self.authorize(&database, actor, "change the names of database")?;
        let _one_at_a_time = self.changing();
        if self.database_of(database.identity).is_none() {
            return Err(HostError::NotFound(address.to_owned()));
        }
        let mut names: Vec<Arc<str>> = Vec::new();
        let wanted = change(&database.names.read());
        for name in wanted {
            check_name(&name)?;
            let owner = self.0.directory.read().names.get(name.as_str()).copied();
            if owner.is_some_and(|owner| owner != database.identity) {
                return Err(HostError::NameTaken(name));
            }
            if !names.iter().any(|own| **own == *name) {
                names.push(name.into());
            }
        }
        if names.len() > NAMES_MAX {
            return Err(HostError::TooManyNames(NAMES_MAX));
        }
        self.0.control.lock().put(&DatabaseRow { names: names.clone(), ..database.row() })?;
        let mut directory = self.0.directory.write();
        directory.names.retain(|_, owner| *owner != database.identity);
        directory.names.extend(names.iter().map(|name| (name.clone(), database.identity)));
        *database.names.write() = names;
        Ok(())
    }

    /// The right to create or delete databases, or to change names of forks.
    pub(crate) fn changing(&self) -> MutexGuard<'_, ()> {
        self.0.changing.lock()
    }

    pub(crate) fn all_databases(&self) -> Vec<Arc<Database>> {
        self.0.directory.read().databases.values().cloned().collect()
    }

    pub(crate) fn database_of(&self, identity: Identity) -> Option<Arc<Database>> {
        self.0.directory.read().databases.get(&identity).cloned()
    }

    pub(crate) fn fork_added(&self, database: &Database, fork: &ForkInfo) {
        let identity = fork_identity(database.identity, fork.id);
        self.0.directory.write().fork_identities.insert(identity, (database.identity, fork.id));
        if let Some(micros) = fork.expires_at_micros {
            self.0.housekeeping.expire_at(micros, database.identity, fork.id);
        }
        self.count();
    }

    pub(crate) fn fork_removed(&self, database: &Database, fork: ForkId) {
        self.0.directory.write().fork_identities.remove(&fork_identity(database.identity, fork));
        self.count();
    }

    fn count(&self) {
        let directory = self.0.directory.read();
        let as_gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics().databases.set(as_gauge(directory.databases.len()));
        self.metrics().forks.set(as_gauge(directory.fork_identities.len()));
    }

    /// Ends all work at request boundaries and closes all stores. Requests still queued are answered with an error.
    ///
    /// # Errors
    /// The first store that could not be closed; the others are closed all the same.
    pub fn shutdown(&self) -> Result<(), HostError> {
        self.0.housekeeping.stop();
        self.shared().scheduler.stop();
        let databases = self.all_databases();
        let mut result = Ok(());
        for database in databases {
            result = result.and(database.close());
        }
        self.shared().procedures.stop();
        self.shared().lane_threads.stop();
        let result = result.and(self.0.control.lock().close());
        // Last, and not with the last clone of the host: whoever waited may open the directory at once.
        self.0.lock.lock().take();
        result
    }
}

fn describe(database: &Database) -> DatabaseInfo {
    DatabaseInfo {
        identity: database.identity,
        name: database.name(),
        names: database.names.read().clone(),
        owner: database.owner,
        created_micros: database.created_micros,
        forks: fork_names(database),
        locked: database.locked.load(Ordering::Acquire),
    }
}

fn fork_names(database: &Database) -> Vec<String> {
    database.forks().into_iter().map(|fork| fork.name).collect()
}

fn check_version(env: &dyn Env, directory: &Path) -> Result<(), HostError> {
    let path = directory.join("VERSION");
    let io = |source| HostError::Io { action: format!("reading or writing {}", path.display()), source };
    if !env.exists(&path) {
        return env.write_atomic(&path, DIRECTORY_VERSION.as_bytes()).map_err(io);
    }
    let found = String::from_utf8_lossy(&env.read(&path).map_err(io)?).into_owned();
    if found != DIRECTORY_VERSION {
        return Err(HostError::WrongVersion {
            directory: directory.display().to_string(),
            found: found.trim().to_owned(),
            expected: DIRECTORY_VERSION.trim(),
        });
    }
    Ok(())
}
