//! The service: its forks, and where each request runs.
//!
//! - A read of a block, or of a fork's base, is answered at once on the caller's thread if the block's state is at hand.
//! - Everything else goes to the lane of its fork. A lane that is idle runs short requests on the caller's thread;
//!   changes of trees never run there, since they hash for milliseconds.
//! - A session that has changes of the chain under way sees them: what it asks about the chain goes behind them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tine_base::Env;
use tine_lanes::{Executor, FixedPool, Lane, LaneOptions, Lanes, SubmitError};
use tine_merkle::HashPool;
use tine_store::{DurableTicket, ForkId, Snapshot, Store, StoreOptions};

use crate::chain::{BlockState, Chain, ChainWriter, UpTo, reach};
use crate::copy::copy_store;
use crate::error::{OpenWorldError, WorldError};
use crate::lane::{ForkWorker, Job, Work};
use crate::options::WorldOptions;
use crate::pending::Pending;
use crate::query::{Context, answer, check, reading};
use crate::trees::Trees;
use crate::types::{BlockNumber, ChainChange, Change, Command, Query, Reply, Revision, StateReference, WorldForkId};

/// Takes the answer to a request; called once, from any thread, and must not block.
pub type ReplyFn = Box<dyn FnOnce(Result<Reply, WorldError>) + Send>;

/// Forks that may be open at once: idle ones cost under a kilobyte.
pub const FORKS_MAX: usize = 1 << 20;

/// Requests that may wait for one fork: a client that is this far ahead of its answers gets a refusal.
const QUEUE_JOBS_MAX: usize = 1 << 16;
const QUEUE_BYTES_MAX: usize = 256 << 20;

/// How long a request may wait for its turn. Clients give up long before.
const WAIT_MAX: Duration = Duration::from_secs(300);

const CLOSE_WAIT_MAX: Duration = Duration::from_secs(60);

/// One connection.
#[derive(Debug, Default)]
pub struct Session {
    /// Changes of the chain that were sent and have not run.
    chain_changes: AtomicUsize,
    owned: Mutex<Owned>,
}

/// The forks that end with a session. Those that ended before are still among them, but fewer than those that did not.
#[derive(Debug, Default)]
struct Owned {
    forks: Vec<WorldForkId>,
    /// From how many on those that ended are looked for.
    sweep_at: usize,
    is_ended: bool,
}

/// Forks below which nobody looks for those that ended.
const OWNED_SWEEP_MIN: usize = 64;

/// Forks of a session that are deleted at once when it ends; more take turns with the requests of others.
const DELETED_AT_ONCE: usize = 256;

impl Session {
    fn has_chain_changes(&self) -> bool {
        self.chain_changes.load(Ordering::Acquire) > 0
    }

    pub(crate) fn chain_change_ran(&self) {
        let before = self.chain_changes.fetch_sub(1, Ordering::Release);
        assert!(before > 0, "a change runs once");
    }

    /// Notes a fork that ends with the session. False: the session has ended, and the fork is the caller's to end.
    fn own(&self, fork: WorldForkId, is_open: impl Fn(WorldForkId) -> bool) -> bool {
        let mut owned = self.owned.lock();
        if owned.is_ended {
            return false;
        }
        owned.forks.push(fork);
        if owned.forks.len() >= owned.sweep_at.max(OWNED_SWEEP_MIN) {
            owned.forks.retain(|fork| is_open(*fork));
            owned.sweep_at = 2 * owned.forks.len();
        }
        true
    }

    /// The forks that end now.
    fn end(&self) -> Vec<WorldForkId> {
        let mut owned = self.owned.lock();
        owned.is_ended = true;
        std::mem::take(&mut owned.forks)
    }
}

/// A fork as requests find it.
#[derive(Clone)]
struct ForkHandle {
    lane: Lane<ForkWorker>,
    /// See [`Pending::must_hash`].
    must_hash: Arc<AtomicBool>,
    /// What it was made of, for reads without its changes. The canonical fork's is the last block.
    base: Option<(BlockNumber, Snapshot)>,
}

struct Waiter {
    ticket: DurableTicket,
    reply: ReplyFn,
    result: Result<Reply, WorldError>,
}

/// What requests share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    /// Where the store is.
    directory: PathBuf,
    env: Arc<dyn Env>,
    pub(crate) trees: Trees,
    pub(crate) chain: RwLock<Chain>,
    initial_state: StateReference,
    forks: RwLock<HashMap<WorldForkId, ForkHandle>>,
    next_fork: AtomicU64,
    next_store_name: AtomicU64,
    lanes: Arc<Lanes>,
    executor: Arc<FixedPool>,
    /// Replies that wait for the disk, in the order of their tickets.
    waiters: Mutex<VecDeque<Waiter>>,
}

/// The service; see the [crate]. Clones are handles to the same one.
#[derive(Clone)]
pub struct World(Arc<Shared>);

impl World {
    /// Opens the world state in a directory, creating it if there is none.
    ///
    /// # Errors
    /// The options contradict themselves or the state there, the store cannot be opened, or a thread not be started.
    pub fn open(options: &WorldOptions, env: Arc<dyn Env>) -> Result<World, OpenWorldError> {
        options.check()?;
        let mut store_options = StoreOptions::new(&options.directory);
        // Blocks say what is kept, not their age.
        store_options.history_micros = i64::MAX;
        store_options.history_bytes = u64::MAX;
        let store = Store::open(store_options, Arc::clone(&env))
            .map_err(|source| OpenWorldError::Store { directory: options.directory.clone(), source })?;
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| env.spawn(name, body);
        // The thread that asks hashes too.
        let helpers = tine_base::cpu::budget().cores.get() - 1;
        let pool = Arc::new(HashPool::start(helpers, &spawn).map_err(OpenWorldError::Thread)?);
        let executor = FixedPool::start("tine-world", options.threads, &spawn).map_err(OpenWorldError::Thread)?;
        let executor = Arc::new(executor);
        let lane_options =
            LaneOptions { queue_jobs_max: QUEUE_JOBS_MAX, queue_bytes_max: QUEUE_BYTES_MAX, ..LaneOptions::default() };
        let lanes = Lanes::new(executor.clone(), lane_options);
        let trees = Trees::new(options.heights, &pool);
        let (writer, chain) = ChainWriter::open(&store, &trees, options)?;
        let initial_state = trees.state_reference(chain.genesis())?;
        let pending = Pending::new(chain.tip_number(), chain.tip().clone(), true);
        let shared = Arc::new_cyclic(|weak: &Weak<Shared>| {
            let must_hash = pending.must_hash();
            let worker = ForkWorker::new(weak.clone(), WorldForkId::CANONICAL, pending, Some(writer));
            let canonical = ForkHandle { lane: Lane::new(worker, &lanes), must_hash, base: None };
            Shared {
                store,
                directory: options.directory.clone(),
                env,
                trees,
                chain: RwLock::new(chain),
                initial_state,
                forks: RwLock::new(HashMap::from([(WorldForkId::CANONICAL, canonical)])),
                next_fork: AtomicU64::new(1),
                next_store_name: AtomicU64::new(0),
                lanes,
                executor,
                waiters: Mutex::default(),
            }
        });
        shared.listen_for_durability();
        Ok(World(shared))
    }

    /// A new connection.
    pub fn session(&self) -> Arc<Session> {
        Arc::default()
    }

    /// Answers `command`, on this thread if that is quick and otherwise later. Requests of one session to one fork run in
    /// the order in which they are passed; the caller passes those of one session one after the other.
    pub fn call(&self, session: &Arc<Session>, command: Command, reply: ReplyFn) {
        let shared = &self.0;
        match command {
            Command::Read(revision, query) => shared.read(session, revision, query, reply),
            Command::InitialState => reply(Ok(Reply::State(shared.initial_state))),
            Command::Change(fork, Change::Delete) if fork == WorldForkId::CANONICAL => {
                reply(Err(WorldError::CanonicalFork));
            }
            Command::Change(fork, change) => {
                let Some(handle) = shared.handle(fork) else { return reply(Err(WorldError::ForkNotFound)) };
                if change == Change::Delete && handle.lane.depth() == 0 {
                    // Nothing that was asked of the fork before is left, so its lane need not be waited for.
                    return reply(shared.remove_fork(fork).map(|()| Reply::Done));
                }
                if matches!(change, Change::Append(..)) {
                    handle.must_hash.store(true, Ordering::Release);
                }
                let is_short = is_short(&change) && !handle.must_hash.load(Ordering::Acquire);
                let job = Job::new(session, Work::Change(change), reply);
                submit(&handle.lane, job, is_short);
            }
            Command::Chain(change) => {
                let is_short = matches!(change, ChainChange::Rollback | ChainChange::Finalize(_));
                session.chain_changes.fetch_add(1, Ordering::Relaxed);
                let lane = shared.canonical_lane();
                submit(&lane, Job::new(session, Work::Chain(change), reply), is_short);
            }
            Command::CreateFork { block, is_owned } => {
                let owner = Arc::clone(session);
                shared.after_own_changes(session, reply, move |shared| {
                    shared.create_fork(block, is_owned.then_some(&owner))
                });
            }
            Command::Status => {
                shared.after_own_changes(session, reply, |shared| Ok(Reply::Status(shared.chain.read().summary())));
            }
        }
    }

    /// Ends a connection: the forks that it owns are deleted when what it asked of them has run.
    pub fn end_session(&self, session: &Arc<Session>) {
        self.0.delete_owned(session, session.end());
    }

    /// Forks open now, the canonical one among them.
    pub fn forks(&self) -> usize {
        self.0.forks.read().len()
    }

    /// Refuses new requests, lets those that run end, and writes what was committed.
    ///
    /// # Errors
    /// The log failed: not everything that was committed is on disk.
    pub fn close(&self) -> Result<(), WorldError> {
        let handles: Vec<ForkHandle> = self.0.forks.write().drain().map(|(_, handle)| handle).collect();
        for handle in &handles {
            handle.lane.close();
        }
        let deadline = Instant::now() + CLOSE_WAIT_MAX;
        while handles.iter().any(|handle| !handle.lane.is_closed()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(self.0.store.close()?)
    }
}

fn is_short(change: &Change) -> bool {
    match change {
        Change::CreateCheckpoint
        | Change::CommitCheckpoint
        | Change::RevertCheckpoint
        | Change::CommitAllCheckpoints
        | Change::RevertAllCheckpoints
        | Change::Delete => true,
        Change::Append(..) | Change::InsertBatch(..) | Change::InsertEach(..) | Change::UpdateArchive(..) => false,
    }
}

impl Job {
    fn new(session: &Arc<Session>, work: Work, reply: ReplyFn) -> Job {
        let bytes = size_of::<Job>() + work.bytes();
        Job { work, session: Arc::clone(session), deadline: Instant::now() + WAIT_MAX, bytes, reply }
    }
}

impl Work {
    /// Memory besides its own size, in bytes.
    fn bytes(&self) -> usize {
        use crate::types::Leaves;
        let leaves = |leaves: &Leaves| match leaves {
            Leaves::Words(words) => 32 * words.len(),
            Leaves::Entries(entries) => 64 * entries.len(),
        };
        match self {
            Work::Read(Query::FindLeaves(_, found, _) | Query::FindPaths(_, found)) => leaves(found),
            Work::Read(Query::BlockNumbers(_, indices)) => 8 * indices.len(),
            Work::Change(Change::Append(_, appended)) => leaves(appended),
            Work::Change(Change::InsertBatch(_, entries, _) | Change::InsertEach(_, entries)) => 64 * entries.len(),
            Work::Chain(ChainChange::Sync(block)) => {
                32 * (block.note_hashes.len() + block.messages.len())
                    + 64 * (block.nullifiers.len() + block.public_writes.len())
            }
            _ => 0,
        }
    }
}

/// Queues a job; a short one runs on this thread if the lane is idle.
fn submit(lane: &Lane<ForkWorker>, job: Job, is_short: bool) {
    let refused = if is_short {
        let mut jobs = vec![job];
        match lane.submit_batch(&mut jobs) {
            Ok(()) => return,
            Err(SubmitError::Full(())) => jobs.pop().map(|job| (job, WorldError::Overloaded)),
            Err(SubmitError::Closed(())) => jobs.pop().map(|job| (job, WorldError::ForkNotFound)),
        }
    } else {
        match lane.submit(job) {
            Ok(()) => return,
            Err(SubmitError::Full(job)) => Some((job, WorldError::Overloaded)),
            Err(SubmitError::Closed(job)) => Some((job, WorldError::ForkNotFound)),
        }
    };
    let (job, error) = refused.expect("a job that is not taken comes back");
    if matches!(job.work, Work::Chain(_)) {
        job.session.chain_change_ran();
    }
    (job.reply)(Err(error));
}

impl Shared {
    fn handle(&self, fork: WorldForkId) -> Option<ForkHandle> {
        self.forks.read().get(&fork).cloned()
    }

    fn canonical_lane(&self) -> Lane<ForkWorker> {
        let handle = self.handle(WorldForkId::CANONICAL);
        handle.expect("the canonical fork is there while requests are taken").lane
    }

    fn read(self: &Arc<Shared>, session: &Arc<Session>, revision: Revision, query: Query, reply: ReplyFn) {
        let Some(handle) = self.handle(revision.fork) else { return reply(Err(WorldError::ForkNotFound)) };
        if let Err(refusal) = check(&query) {
            return reply(Err(refusal));
        }
        match revision.block {
            Some(block) => {
                let is_stored = matches!(self.chain.read().state(block), Some(BlockState::Stored(_)));
                if is_stored && !session.has_chain_changes() {
                    let shared = Arc::clone(self);
                    return self.executor.execute(Box::new(move || reply(shared.read_block(block, &query))));
                }
                self.after_own_changes(session, reply, move |shared| shared.read_block(block, &query));
            }
            None if revision.include_uncommitted => {
                let is_short = !handle.must_hash.load(Ordering::Acquire);
                submit(&handle.lane, Job::new(session, Work::Read(query), reply), is_short);
            }
            None => match handle.base {
                Some((block, base)) => reply(self.answer_from(&base, &query, None, block)),
                None => self.after_own_changes(session, reply, move |shared| {
                    let (block, tip) = {
                        let chain = shared.chain.read();
                        (chain.tip_number(), chain.tip().clone())
                    };
                    shared.answer_from(&tip, &query, None, block)
                }),
            },
        }
    }

    /// Does `act` now, or after the changes of the chain that the session has under way.
    fn after_own_changes(
        self: &Arc<Shared>,
        session: &Arc<Session>,
        reply: ReplyFn,
        act: impl FnOnce(&Arc<Shared>) -> Result<Reply, WorldError> + Send + 'static,
    ) {
        if !session.has_chain_changes() {
            return reply(act(self));
        }
        submit(&self.canonical_lane(), Job::new(session, Work::AfterChain(Box::new(act)), reply), false);
    }

    fn read_block(&self, block: BlockNumber, query: &Query) -> Result<Reply, WorldError> {
        let state = self.chain.read().state(block);
        let snapshot = match state {
            Some(BlockState::AtHand(snapshot)) => snapshot,
            Some(BlockState::Stored(version)) => {
                let snapshot = reach(&self.store, version)?;
                self.chain.write().keep(block, snapshot.clone());
                snapshot
            }
            None => {
                return match reading(query) {
                    Some(what) => Err(WorldError::NoSuchBlock { what, block }),
                    None => Ok(Reply::LeafValue(None)),
                };
            }
        };
        self.answer_from(&snapshot, query, Some(block), block)
    }

    /// Answers from a state that is that of `up_to`, or based on it.
    fn answer_from(
        &self,
        snapshot: &Snapshot,
        query: &Query,
        block: Option<BlockNumber>,
        up_to: BlockNumber,
    ) -> Result<Reply, WorldError> {
        let chain = self.chain.read();
        answer(&self.trees, snapshot, query, &Context { block, sizes: &UpTo(&chain, up_to) })
    }

    fn create_fork(
        self: &Arc<Shared>,
        block: Option<BlockNumber>,
        owner: Option<&Arc<Session>>,
    ) -> Result<Reply, WorldError> {
        let (number, state) = {
            let chain = self.chain.read();
            let tip = chain.tip_number();
            let number = block.unwrap_or(tip);
            if number > tip {
                return Err(WorldError::FutureBlock { block: number, tip });
            }
            let oldest = chain.summary().oldest;
            (number, chain.state(number).ok_or(WorldError::ExpiredBlock { block: number, oldest })?)
        };
        let base = match state {
            BlockState::AtHand(snapshot) => snapshot,
            BlockState::Stored(version) => reach(&self.store, version)?,
        };
        let mut forks = self.forks.write();
        if forks.len() >= FORKS_MAX {
            return Err(WorldError::TooManyForks { limit: FORKS_MAX });
        }
        // Under the lock, so that an unwind either finds the fork or was seen here.
        let chain = self.chain.read();
        if !chain.has_version(number, base.version()) {
            return Err(WorldError::FutureBlock { block: number, tip: chain.tip_number() });
        }
        drop(chain);
        let id = WorldForkId(self.next_fork.fetch_add(1, Ordering::Relaxed));
        let pending = Pending::new(number, base.clone(), false);
        let must_hash = pending.must_hash();
        let worker = ForkWorker::new(Arc::downgrade(self), id, pending, None);
        forks.insert(id, ForkHandle { lane: Lane::new(worker, &self.lanes), must_hash, base: Some((number, base)) });
        drop(forks);
        if owner.is_some_and(|owner| !owner.own(id, |fork| self.forks.read().contains_key(&fork))) {
            // It waited for a change of the chain, and the connection has ended meanwhile.
            self.remove_fork(id)?;
            return Err(WorldError::ForkNotFound);
        }
        Ok(Reply::Fork(id))
    }

    /// Deletes the forks of a session that has ended, each when what was asked of it has run.
    fn delete_owned(self: &Arc<Shared>, session: &Arc<Session>, mut forks: Vec<WorldForkId>) {
        for fork in forks.split_off(forks.len().saturating_sub(DELETED_AT_ONCE)) {
            if let Some(handle) = self.handle(fork) {
                submit(&handle.lane, Job::new(session, Work::Change(Change::Delete), Box::new(|_| ())), true);
            }
        }
        if !forks.is_empty() {
            let (shared, session) = (Arc::clone(self), Arc::clone(session));
            self.executor.execute(Box::new(move || shared.delete_owned(&session, forks)));
        }
    }

    pub(crate) fn next_store_name(&self) -> String {
        format!("pending-{}", self.next_store_name.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn remove_fork(&self, id: WorldForkId) -> Result<(), WorldError> {
        let handle = self.forks.write().remove(&id).ok_or(WorldError::ForkNotFound)?;
        handle.lane.close();
        Ok(())
    }

    /// Removes the forks of blocks that are no more.
    pub(crate) fn remove_forks_after(&self, block: BlockNumber) {
        let removed: Vec<ForkHandle> = {
            let mut forks = self.forks.write();
            let is_after = |handle: &ForkHandle| handle.base.as_ref().is_some_and(|(base, _)| *base > block);
            forks.extract_if(|_, handle| is_after(handle)).map(|(_, handle)| handle).collect()
        };
        for handle in removed {
            handle.lane.close();
        }
    }

    /// Forks of the store that a fork's first change will be made from.
    pub(crate) fn fork_bases(&self) -> BTreeSet<ForkId> {
        let forks = self.forks.read();
        forks.values().filter_map(|handle| Some(handle.base.as_ref()?.1.version().fork)).collect()
    }

    /// Copies the world state, when `ticket` is on disk, to a directory that holds nothing. The chain goes on meanwhile.
    pub(crate) fn copy_to(self: &Arc<Shared>, ticket: Option<DurableTicket>, destination: PathBuf, reply: ReplyFn) {
        let shared = Arc::clone(self);
        let copy = move |durable: Result<Reply, WorldError>| {
            let executor = Arc::clone(&shared.executor);
            executor.execute(Box::new(move || {
                let copied = durable.and_then(|_| copy_store(&shared.directory, &destination, &shared.env));
                reply(copied.map(|()| Reply::Done));
            }));
        };
        match ticket {
            Some(ticket) => self.reply_when_durable(ticket, Box::new(copy), Ok(Reply::Done)),
            None => copy(Ok(Reply::Done)),
        }
    }

    /// Passes `result` on when `ticket` is on disk, or the store's failure if it never will be.
    pub(crate) fn reply_when_durable(&self, ticket: DurableTicket, reply: ReplyFn, result: Result<Reply, WorldError>) {
        {
            let mut waiters = self.waiters.lock();
            if self.store.durable() < ticket && self.store.health().is_ok() {
                waiters.push_back(Waiter { ticket, reply, result });
                return;
            }
        }
        if self.store.durable() >= ticket {
            return reply(result);
        }
        reply(Err(self.store.health().err().map_or(WorldError::ShuttingDown, WorldError::Store)));
    }

    fn listen_for_durability(self: &Arc<Shared>) {
        let weak = Arc::downgrade(self);
        self.store.on_durable(Box::new(move |durable| {
            let Some(shared) = weak.upgrade() else { return };
            let mut ready = Vec::new();
            {
                let mut waiters = shared.waiters.lock();
                while waiters.front().is_some_and(|waiter| waiter.ticket <= durable) {
                    ready.extend(waiters.pop_front());
                }
            }
            for Waiter { reply, result, .. } in ready {
                reply(result);
            }
        }));
        let weak = Arc::downgrade(self);
        self.store.on_poisoned(Box::new(move |_| {
            let Some(shared) = weak.upgrade() else { return };
            let waiters = std::mem::take(&mut *shared.waiters.lock());
            let error = shared.store.health().err().map_or(WorldError::ShuttingDown, WorldError::Store);
            for Waiter { reply, .. } in waiters {
                reply(Err(error.clone()));
            }
        }));
    }
}
