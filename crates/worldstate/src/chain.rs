//! The blocks: which there are, where their states are in the store, and how a new one is made.
//!
//! The canonical fork of the store has one commit per block, and one for each change of what is final and what is kept.
//! Block `n`'s record, written with the block itself, says which version it is. Unwinding cannot take commits back, so
//! it makes the next *generation*: a durable fork of the block's version, whose first commit says that it is the one
//! that counts. Until that commit is on disk, the generation before counts; so a crash leaves one or the other. Older
//! generations stay as long as a kept block is a version of theirs.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use tine_merkle::TreeState;
use tine_store::{
    Direction, Durability, DurableTicket, ForkId, ForkOptions, KeyspaceId, Lsn, Read, Snapshot, Store, Version,
    VersionAt, Writer,
};

use crate::error::{OpenWorldError, WorldError};
use crate::options::WorldOptions;
use crate::pending::{Pending, append};
use crate::trees::{TreeId, Trees};
use crate::types::{Block, BlockNumber, FullStatus, Leaves, Summary, TreeStatus};

/// Everything that is not of one tree.
const CHAIN: KeyspaceId = KeyspaceId::new(0);
const GENERATION_KEY: &[u8] = b"generation";
const OPTIONS_KEY: &[u8] = b"options";
const MARKS_KEY: &[u8] = b"marks";
/// Keys of block records start with this; it is greater than the first letters of the others.
const BLOCK_PREFIX: u8 = b'~';

/// States of blocks at hand, besides the first and the last: each keeps the pages that later blocks changed. Others
/// take the store a few milliseconds to reach.
const SNAPSHOTS_MAX: usize = 64;

const GENERATION_NAME: &str = "canonical-";

/// A block's place in the store.
#[derive(Clone, Copy)]
struct Entry {
    version: Version,
    /// Leaves of each tree after the block.
    sizes: [u64; TreeId::COUNT],
}

/// Which block appended a leaf.
pub(crate) trait BlockSizes {
    fn block_of(&self, tree: TreeId, index: u64) -> Option<BlockNumber>;
}

/// The committed chain, as readers see it.
pub(crate) struct Chain {
    /// By number; those before `oldest` only for their sizes.
    blocks: Vec<Entry>,
    /// The state at genesis is always kept.
    genesis: Snapshot,
    tip: Snapshot,
    /// States at hand, with when they were last asked for.
    snapshots: HashMap<BlockNumber, (Snapshot, AtomicU64)>,
    clock: AtomicU64,
    finalized: BlockNumber,
    oldest: BlockNumber,
}

/// The chain up to a block.
pub(crate) struct UpTo<'a>(pub(crate) &'a Chain, pub(crate) BlockNumber);

impl BlockSizes for UpTo<'_> {
    fn block_of(&self, tree: TreeId, index: u64) -> Option<BlockNumber> {
        let count = self.0.blocks.len().min(self.1 as usize + 1);
        let block = self.0.blocks[..count].partition_point(|entry| entry.sizes[tree as usize] <= index);
        (block < count).then_some(block as BlockNumber)
    }
}

/// Where a kept block's state is.
pub(crate) enum BlockState {
    AtHand(Snapshot),
    /// To be reached with [`reach`].
    Stored(Version),
}

impl Chain {
    pub(crate) fn summary(&self) -> Summary {
        Summary { tip: self.tip_number(), finalized: self.finalized, oldest: self.oldest }
    }

    pub(crate) fn tip_number(&self) -> BlockNumber {
        (self.blocks.len() - 1) as BlockNumber
    }

    pub(crate) fn tip(&self) -> &Snapshot {
        &self.tip
    }

    pub(crate) fn genesis(&self) -> &Snapshot {
        &self.genesis
    }

    /// The state of a block; `None` if there is no such block or it was removed.
    pub(crate) fn state(&self, block: BlockNumber) -> Option<BlockState> {
        if block == 0 {
            return Some(BlockState::AtHand(self.genesis.clone()));
        }
        if block == self.tip_number() {
            return Some(BlockState::AtHand(self.tip.clone()));
        }
        if block < self.oldest {
            return None;
        }
        let entry = self.blocks.get(block as usize)?;
        Some(match self.snapshots.get(&block) {
            Some((snapshot, used)) => {
                used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
                BlockState::AtHand(snapshot.clone())
            }
            None => BlockState::Stored(entry.version),
        })
    }

    /// Whether a block is still there with this state.
    pub(crate) fn has_version(&self, block: BlockNumber, version: Version) -> bool {
        self.blocks.get(block as usize).is_some_and(|entry| entry.version == version)
    }

    /// Keeps a block's state at hand, if the block is still what it was.
    pub(crate) fn keep(&mut self, block: BlockNumber, snapshot: Snapshot) {
        if !self.has_version(block, snapshot.version()) || block < self.oldest {
            return;
        }
        if self.snapshots.len() >= SNAPSHOTS_MAX {
            let oldest = self.snapshots.iter().min_by_key(|(_, (_, used))| used.load(Ordering::Relaxed));
            if let Some(block) = oldest.map(|(block, _)| *block) {
                self.snapshots.remove(&block);
            }
        }
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed));
        self.snapshots.insert(block, (snapshot, used));
    }

    fn push(&mut self, entry: Entry, tip: Snapshot) {
        let previous = std::mem::replace(&mut self.tip, tip);
        let number = self.tip_number();
        self.blocks.push(entry);
        if number > 0 {
            self.keep(number, previous);
        }
        if self.oldest == 0 {
            self.oldest = 1;
        }
    }

    /// Forks of the store that a kept block is a version of.
    fn store_forks(&self) -> BTreeSet<ForkId> {
        let kept = self.blocks.iter().skip(self.oldest as usize).chain(self.blocks.first());
        kept.map(|entry| entry.version.fork).collect()
    }
}

/// Brings a block's state to hand. May read the log.
pub(crate) fn reach(store: &Store, version: Version) -> Result<Snapshot, WorldError> {
    Ok(store.snapshot_at(version.fork, VersionAt::Lsn(version.lsn))?)
}

/// The only writer of the chain.
pub(crate) struct ChainWriter {
    writer: Writer,
    generation: u64,
}

/// What was written, and when it is durable.
pub(crate) struct Written {
    pub(crate) ticket: DurableTicket,
}

impl ChainWriter {
    /// Finds the chain in a store, or writes genesis to an empty one.
    pub(crate) fn open(
        store: &Store,
        trees: &Trees,
        options: &WorldOptions,
    ) -> Result<(ChainWriter, Chain), OpenWorldError> {
        let (generation, fork) = find_generation(store, options)?;
        let mut writer = store.writer(fork).map_err(WorldError::from)?;
        if writer.get(CHAIN, OPTIONS_KEY).map_err(WorldError::from)?.is_none() {
            trees.write_genesis(&mut writer, options)?;
            let wrap = |result: Result<bool, _>| result.map_err(WorldError::from).map(|_| ());
            wrap(writer.put(CHAIN, OPTIONS_KEY, &options.fingerprint()))?;
            wrap(writer.put(CHAIN, GENERATION_KEY, &generation.to_be_bytes()))?;
            wrap(writer.put(CHAIN, MARKS_KEY, &encode_marks(0, 0)))?;
            let mut chain_writer = ChainWriter { writer, generation };
            let (entry, ticket, snapshot) = chain_writer.finish_block(store, trees, 0)?;
            store.wait_durable(ticket, OPEN_WAIT_MAX).map_err(WorldError::from)?;
            return Ok((chain_writer, new_chain(entry, snapshot)));
        }
        let stored = writer.get(CHAIN, OPTIONS_KEY).map_err(WorldError::from)?.map(|options| options.to_vec());
        if stored != Some(options.fingerprint()) {
            let directory = options.directory.clone();
            return Err(OpenWorldError::OtherOptions { directory, what: "heights or initial sizes of its trees" });
        }
        let chain = read_chain(store, &writer, options)?;
        Ok((ChainWriter { writer, generation }, chain))
    }

    /// Makes a block of the canonical fork's pending changes.
    pub(crate) fn commit(
        &mut self,
        store: &Store,
        trees: &Trees,
        chain: &parking_lot::RwLock<Chain>,
        pending: &mut Pending,
    ) -> Result<Written, WorldError> {
        let number = chain.read().tip_number() + 1;
        let made = pending.carry_over(trees, &mut self.writer).and_then(|()| self.finish_block(store, trees, number));
        self.add_block(store, chain, pending, number, made)
    }

    /// Adds a block, or leaves no trace of it but that pending changes are gone.
    pub(crate) fn sync(
        &mut self,
        store: &Store,
        trees: &Trees,
        chain: &parking_lot::RwLock<Chain>,
        pending: &mut Pending,
        block: &Block,
    ) -> Result<Written, WorldError> {
        pending.discard(store);
        let tip = chain.read().tip_number();
        let applied = self.apply_block(trees, tip, block);
        let made = applied.and_then(|()| self.finish_block(store, trees, block.number));
        self.add_block(store, chain, pending, block.number, made)
    }

    fn apply_block(&mut self, trees: &Trees, tip: BlockNumber, block: &Block) -> Result<(), WorldError> {
        let writer = &mut self.writer;
        let archive = trees.state(writer, TreeId::Archive)?;
        if archive.root != block.previous_archive_root {
            let expected = block.previous_archive_root;
            return Err(WorldError::PreviousArchiveMismatch { local: archive.root, expected });
        }
        if block.number.checked_sub(1) != Some(tip) {
            return Err(WorldError::WrongBlockNumber { block: block.number, tip });
        }
        let refused = |error| WorldError::BlockRefused(Box::new(error));
        for (tree, leaves) in [
            (TreeId::Nullifier, Leaves::Entries(block.nullifiers.clone())),
            (TreeId::NoteHash, Leaves::Words(block.note_hashes.clone())),
            (TreeId::Message, Leaves::Words(block.messages.clone())),
            (TreeId::Archive, Leaves::Words(vec![block.header_hash])),
        ] {
            let base_size = trees.state(writer, tree)?.size;
            append(writer, trees, tree, &leaves, base_size).map_err(refused)?;
        }
        let inserted = trees.indexed(TreeId::PublicData).insert_each(writer, &block.public_writes, false);
        inserted.map_err(|error| refused(WorldError::of_tree(TreeId::PublicData, error)))?;
        if trees.state_reference(writer)? != block.state {
            return Err(WorldError::StateMismatch);
        }
        let archive = trees.state(writer, TreeId::Archive)?;
        if archive.root != block.archive_root {
            return Err(WorldError::ArchiveMismatch { local: archive.root, expected: block.archive_root });
        }
        Ok(())
    }

    fn add_block(
        &mut self,
        store: &Store,
        chain: &parking_lot::RwLock<Chain>,
        pending: &mut Pending,
        number: BlockNumber,
        made: Result<(Entry, DurableTicket, Snapshot), WorldError>,
    ) -> Result<Written, WorldError> {
        let (entry, ticket, snapshot) = made.inspect_err(|_| self.writer.rollback())?;
        chain.write().push(entry, snapshot.clone());
        pending.rebase(store, number, snapshot);
        Ok(Written { ticket })
    }

    /// Ends the transaction that holds a block's leaves with the block's record.
    fn finish_block(
        &mut self,
        store: &Store,
        trees: &Trees,
        number: BlockNumber,
    ) -> Result<(Entry, DurableTicket, Snapshot), WorldError> {
        let fork = self.writer.fork_id();
        let lsn = Lsn::new(self.writer.version().lsn.get() + 1);
        let sizes = trees.sizes(&self.writer)?;
        let entry = Entry { version: Version { fork, lsn }, sizes };
        self.writer.put(CHAIN, &block_key(number), &encode_entry(&entry))?;
        let commit = self.writer.commit(&[])?;
        assert!(commit.changed && commit.lsn == lsn, "a block's record is new, so it is the next version");
        self.writer.publish();
        Ok((entry, commit.durable, store.snapshot(fork)?))
    }

    /// Marks blocks up to `to` as final; those that are already stay so.
    pub(crate) fn finalize(
        &mut self,
        chain: &parking_lot::RwLock<Chain>,
        to: BlockNumber,
    ) -> Result<Written, WorldError> {
        let summary = chain.read().summary();
        if to == 0 {
            return Err(WorldError::FinalizeGenesis);
        }
        if to > summary.tip {
            return Err(WorldError::FinalizeUnknown { block: to });
        }
        let finalized = to.max(summary.finalized);
        let written = self.write_marks(finalized, summary.oldest)?;
        chain.write().finalized = finalized;
        Ok(written)
    }

    /// Gives up the states of the blocks before `to`. Forks of them stay.
    pub(crate) fn remove_historical(
        &mut self,
        store: &Store,
        chain: &parking_lot::RwLock<Chain>,
        to: BlockNumber,
        bases: &BTreeSet<ForkId>,
    ) -> Result<Written, WorldError> {
        let Summary { finalized, oldest, .. } = chain.read().summary();
        if to <= oldest || oldest == 0 {
            return Err(WorldError::NothingToRemove { block: to, oldest });
        }
        if to > finalized {
            return Err(WorldError::RemoveUnfinalized { block: oldest.max(finalized), finalized });
        }
        let written = self.write_marks(finalized, to)?;
        {
            let mut chain = chain.write();
            chain.oldest = to;
            chain.snapshots.retain(|block, _| *block >= to);
        }
        self.drop_generations(store, &chain.read(), bases);
        Ok(written)
    }

    /// Removes the blocks after `to`.
    pub(crate) fn unwind(
        &mut self,
        store: &Store,
        chain: &parking_lot::RwLock<Chain>,
        pending: &mut Pending,
        to: BlockNumber,
        bases: &BTreeSet<ForkId>,
    ) -> Result<Written, WorldError> {
        let Summary { tip, finalized, oldest } = chain.read().summary();
        if to >= tip {
            return Err(WorldError::UnwindToFuture { block: to, tip });
        }
        if to < finalized {
            return Err(WorldError::UnwindFinalized { finalized });
        }
        let state = chain
            .read()
            .state(to)
            .ok_or(WorldError::NoSuchBlock { what: crate::types::Reading::MetaData, block: to })?;
        let base = match state {
            BlockState::AtHand(snapshot) => snapshot,
            BlockState::Stored(version) => reach(store, version)?,
        };
        let generation = self.generation + 1;
        let name = format!("{GENERATION_NAME}{generation}");
        let options = ForkOptions { name, durability: Durability::Durable, expires_at_micros: None };
        let (info, _) = store.fork_from(&base, options)?;
        let mut next = ChainWriter { writer: store.writer(info.id)?, generation };
        next.writer.put(CHAIN, GENERATION_KEY, &generation.to_be_bytes())?;
        let written = next.write_marks(finalized, oldest)?;
        *self = next;
        {
            let mut chain = chain.write();
            chain.blocks.truncate(to as usize + 1);
            chain.snapshots.retain(|block, _| *block < to);
            chain.tip = base.clone();
        }
        pending.rebase(store, to, base);
        self.drop_generations(store, &chain.read(), bases);
        Ok(written)
    }

    fn write_marks(&mut self, finalized: BlockNumber, oldest: BlockNumber) -> Result<Written, WorldError> {
        self.writer.put(CHAIN, MARKS_KEY, &encode_marks(finalized, oldest))?;
        let commit = self.writer.commit(&[])?;
        self.writer.publish();
        Ok(Written { ticket: commit.durable })
    }

    /// Drops the generations that no kept block and no fork in `bases` is a version of.
    fn drop_generations(&self, store: &Store, chain: &Chain, bases: &BTreeSet<ForkId>) {
        let needed = chain.store_forks();
        for fork in store.forks() {
            let is_unused = !needed.contains(&fork.id) && !bases.contains(&fork.id) && fork.id != self.writer.fork_id();
            if fork.name.starts_with(GENERATION_NAME) && is_unused {
                // What cannot be dropped now is dropped when the store is opened the next time.
                let _ = store.drop_fork(fork.id);
            }
        }
    }

    /// What each tree holds, with the pending changes.
    pub(crate) fn full_status(
        trees: &Trees,
        chain: &parking_lot::RwLock<Chain>,
        pending: &mut Pending,
    ) -> Result<FullStatus, WorldError> {
        let chain = chain.read();
        let mut status = |tree: TreeId| -> Result<TreeStatus, WorldError> {
            Ok(TreeStatus {
                depth: trees.get(tree).height(),
                state: pending.tree_state(trees, tree)?,
                committed_size: trees.state(chain.tip(), tree)?.size,
                initial: trees.state(chain.genesis(), tree)?,
                records: tree.all_keyspaces().map(|keyspace| chain.tip().len(keyspace)),
            })
        };
        let empty = TreeState { size: 0, root: [0; 32] };
        let mut statuses =
            [TreeStatus { depth: 0, state: empty, committed_size: 0, initial: empty, records: [0; 3] }; TreeId::COUNT];
        for (slot, tree) in statuses.iter_mut().zip(TreeId::ALL) {
            *slot = status(tree)?;
        }
        Ok(FullStatus { summary: chain.summary(), trees: statuses })
    }
}

/// How long opening waits for genesis to be on disk.
const OPEN_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(60);

fn new_chain(genesis: Entry, snapshot: Snapshot) -> Chain {
    Chain {
        blocks: vec![genesis],
        genesis: snapshot.clone(),
        tip: snapshot,
        snapshots: HashMap::new(),
        clock: AtomicU64::new(0),
        finalized: 0,
        oldest: 0,
    }
}

/// The newest generation whose first commit is there. Drops those that were begun and not finished.
fn find_generation(store: &Store, options: &WorldOptions) -> Result<(u64, ForkId), OpenWorldError> {
    let mut newest = (0, ForkId::MAIN);
    for fork in store.forks() {
        let Some(number) = fork.name.strip_prefix(GENERATION_NAME) else { continue };
        let damaged = |detail: String| OpenWorldError::Damaged { directory: options.directory.clone(), detail };
        let number: u64 = number.parse().map_err(|_| damaged(format!("a fork is called {:?}", fork.name)))?;
        let snapshot = store.snapshot(fork.id).map_err(WorldError::from)?;
        let stored = snapshot.get(CHAIN, GENERATION_KEY).map_err(WorldError::from)?;
        if stored.is_none_or(|stored| *stored != number.to_be_bytes()) {
            store.drop_fork(fork.id).map_err(WorldError::from)?;
        } else if number > newest.0 {
            newest = (number, fork.id);
        }
    }
    Ok(newest)
}

fn read_chain(store: &Store, writer: &Writer, options: &WorldOptions) -> Result<Chain, OpenWorldError> {
    let damaged =
        |detail: &str| OpenWorldError::Damaged { directory: options.directory.clone(), detail: detail.to_owned() };
    let marks = writer.get(CHAIN, MARKS_KEY).map_err(WorldError::from)?;
    let (finalized, oldest) =
        marks.and_then(|marks| decode_marks(&marks)).ok_or_else(|| damaged("there are no marks"))?;
    let mut blocks = Vec::new();
    let start = std::ops::Bound::Included([BLOCK_PREFIX]);
    let mut cursor =
        writer.range(CHAIN, start.as_ref().map(|key| key.as_slice()), std::ops::Bound::Unbounded, Direction::Forward);
    while let Some((key, record)) = cursor.next().map_err(WorldError::from)? {
        let entry = decode_entry(record).ok_or_else(|| damaged("a block's record has another form"))?;
        if key != block_key(blocks.len() as BlockNumber) {
            return Err(damaged("a block's record is missing"));
        }
        blocks.push(entry);
    }
    let (Some(first), Some(last)) = (blocks.first().copied(), blocks.last().copied()) else {
        return Err(damaged("there is no block"));
    };
    let mut chain = new_chain(first, reach(store, first.version)?);
    chain.tip = reach(store, last.version)?;
    chain.oldest = if blocks.len() > 1 { oldest.max(1) } else { oldest };
    chain.blocks = blocks;
    chain.finalized = finalized;
    Ok(chain)
}

fn block_key(number: BlockNumber) -> [u8; 5] {
    let mut key = [BLOCK_PREFIX; 5];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut record = Vec::with_capacity(56);
    record.extend_from_slice(&entry.version.fork.get().to_be_bytes());
    record.extend_from_slice(&entry.version.lsn.get().to_be_bytes());
    entry.sizes.iter().for_each(|size| record.extend_from_slice(&size.to_be_bytes()));
    record
}

fn decode_entry(record: &[u8]) -> Option<Entry> {
    let (numbers, rest) = record.as_chunks::<8>();
    let numbers: Vec<u64> = numbers.iter().map(|number| u64::from_be_bytes(*number)).collect();
    let [fork, lsn, sizes @ ..] = numbers.as_slice() else { return None };
    let version = Version { fork: ForkId::new(*fork), lsn: Lsn::new(*lsn) };
    rest.is_empty().then_some(())?;
    Some(Entry { version, sizes: sizes.try_into().ok()? })
}

fn encode_marks(finalized: BlockNumber, oldest: BlockNumber) -> [u8; 8] {
    let mut record = [0; 8];
    record[..4].copy_from_slice(&finalized.to_be_bytes());
    record[4..].copy_from_slice(&oldest.to_be_bytes());
    record
}

fn decode_marks(record: &[u8]) -> Option<(BlockNumber, BlockNumber)> {
    let (finalized, oldest) = record.split_first_chunk()?;
    Some((BlockNumber::from_be_bytes(*finalized), BlockNumber::from_be_bytes(oldest.try_into().ok()?)))
}
