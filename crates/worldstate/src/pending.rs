//! The changes of one fork since its base: an ephemeral fork of the store, made at the first change.
//!
//! Each request is a transaction of its own, so a refused one leaves no trace. Checkpoints are the store's.
//!
//! Appending to a list is answered before its nodes are hashed: the answer says nothing of them, and nothing can refuse the
//! leaves any more. They are hashed when somebody asks for the fork's state, all lists' leaves since the last time together, so
//! that the nodes near the root are hashed once. If the store fails then, the fork has lost what it confirmed, and says so until
//! its changes are dropped.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tine_merkle::{Digest, TakenLeaves, TreeError, TreeState, TreeWrite};
use tine_store::{
    CheckpointId, Cursor, Direction, Durability, Fault, ForkId, ForkOptions, KeyspaceId, Read, Snapshot, Store,
    ValueRef, WriteError, Writer,
};

use crate::error::WorldError;
use crate::query::{Context, answer};
use crate::trees::{AnyTree, TreeId, Trees};
use crate::types::{BlockNumber, Change, Leaves, Query, Reply};

/// Leaves of lists that wait for somebody to ask for their nodes, at most: a few milliseconds of hashing.
const UNHASHED_LEAVES_MAX: usize = 512;

/// A writer that remembers which keys were written, so that they can be carried over to another fork.
pub(crate) struct Tracked {
    pub(crate) writer: Writer,
    /// `None`: nobody will ask.
    touched: Option<HashSet<(KeyspaceId, Box<[u8]>)>>,
}

impl TreeWrite for Tracked {
    fn put(&mut self, keyspace: KeyspaceId, key: &[u8], value: &[u8]) -> Result<bool, WriteError> {
        if let Some(touched) = &mut self.touched {
            touched.insert((keyspace, key.into()));
        }
        self.writer.put(keyspace, key, value)
    }
}

impl Read for Tracked {
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<ValueRef<'_>>, Fault> {
        self.writer.get(keyspace, key)
    }

    fn range<'a>(
        &'a self,
        keyspace: KeyspaceId,
        start: std::ops::Bound<&[u8]>,
        end: std::ops::Bound<&[u8]>,
        direction: Direction,
    ) -> Cursor<'a> {
        self.writer.range(keyspace, start, end, direction)
    }

    fn len(&self, keyspace: KeyspaceId) -> u64 {
        self.writer.len(keyspace)
    }
}

/// A fork's changes while there are any.
struct Open {
    store_fork: ForkId,
    tracked: Tracked,
    /// Leaves of the base's trees.
    base_sizes: [u64; TreeId::COUNT],
    checkpoints: Vec<CheckpointId>,
    /// Leaves of lists that are not hashed. Every open checkpoint is older than any of them.
    unhashed: Vec<(TreeId, TakenLeaves)>,
    /// Why a change that was answered is not among them.
    lost: Option<WorldError>,
}

/// One fork: a block and the changes since.
pub(crate) struct Pending {
    pub(crate) base_block: BlockNumber,
    pub(crate) base: Snapshot,
    /// Whether the changes are to become a block one day.
    is_canonical: bool,
    /// Whether whoever asks for the state next hashes first.
    must_hash: Arc<AtomicBool>,
    open: Option<Box<Open>>,
}

impl Pending {
    pub(crate) fn new(base_block: BlockNumber, base: Snapshot, is_canonical: bool) -> Pending {
        Pending { base_block, base, is_canonical, must_hash: Arc::default(), open: None }
    }

    /// Whether asking for the state takes milliseconds of hashing; for whoever decides where to ask. Appending sets it, but who
    /// sends leaves on their way sets it before.
    pub(crate) fn must_hash(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.must_hash)
    }

    /// # Errors
    /// A change that was answered is lost.
    fn check_kept(&self) -> Result<(), WorldError> {
        self.open.as_ref().and_then(|open| open.lost.clone()).map_or(Ok(()), Err)
    }

    /// Hashes what is left to be hashed, so that the trees can be read.
    ///
    /// # Errors
    /// A change that was answered is lost.
    fn settle(&mut self, trees: &Trees) -> Result<(), WorldError> {
        if let Some(open) = &mut self.open {
            open.hash(trees);
        }
        self.must_hash.store(false, Ordering::Release);
        self.check_kept()
    }

    /// The newest state, for reading beside this fork's next change.
    pub(crate) fn snapshot(&mut self, store: &Store, trees: &Trees) -> Result<Snapshot, WorldError> {
        self.settle(trees)?;
        match &mut self.open {
            None => Ok(self.base.clone()),
            Some(open) => {
                open.tracked.writer.publish();
                Ok(store.snapshot(open.store_fork)?)
            }
        }
    }

    /// Answers a query from the newest state.
    pub(crate) fn answer(&mut self, trees: &Trees, query: &Query, context: &Context<'_>) -> Result<Reply, WorldError> {
        self.settle(trees)?;
        match &self.open {
            None => answer(trees, &self.base, query, context),
            Some(open) => answer(trees, &open.tracked.writer, query, context),
        }
    }

    /// The newest state of a tree.
    pub(crate) fn tree_state(&mut self, trees: &Trees, tree: TreeId) -> Result<TreeState, WorldError> {
        self.settle(trees)?;
        match &self.open {
            None => trees.state(&self.base, tree),
            Some(open) => trees.state(&open.tracked.writer, tree),
        }
    }

    /// Drops the changes and the checkpoints.
    pub(crate) fn discard(&mut self, store: &Store) {
        if let Some(open) = self.open.take() {
            let Open { store_fork, tracked, .. } = *open;
            drop(tracked);
            // A store that cannot write any more keeps the fork until it is closed, which loses it too.
            let _ = store.drop_fork(store_fork);
        }
    }

    /// Goes on from another block, without changes.
    pub(crate) fn rebase(&mut self, store: &Store, block: BlockNumber, base: Snapshot) {
        self.discard(store);
        self.base_block = block;
        self.base = base;
    }

    /// Writes the changes to the canonical fork of the store, which is at this fork's base.
    ///
    /// # Panics
    /// If this is not the canonical fork.
    pub(crate) fn carry_over(&mut self, trees: &Trees, canonical: &mut Writer) -> Result<(), WorldError> {
        self.settle(trees)?;
        let Some(open) = &self.open else { return Ok(()) };
        let touched = open.tracked.touched.as_ref().expect("the canonical fork remembers its keys");
        let mut touched: Vec<&(KeyspaceId, Box<[u8]>)> = touched.iter().collect();
        touched.sort_unstable();
        for (keyspace, key) in touched {
            match open.tracked.writer.get(*keyspace, key)? {
                Some(value) => canonical.put(*keyspace, key, &value)?,
                None => canonical.delete(*keyspace, key)?,
            };
        }
        Ok(())
    }

    fn open(&mut self, store: &Store, trees: &Trees, name: impl FnOnce() -> String) -> Result<&mut Open, WorldError> {
        if self.open.is_none() {
            let base_sizes = trees.sizes(&self.base)?;
            let options = ForkOptions { name: name(), durability: Durability::Ephemeral, expires_at_micros: None };
            let (info, _) = store.fork_from(&self.base, options)?;
            let writer = store.writer(info.id)?;
            let touched = self.is_canonical.then(HashSet::new);
            let tracked = Tracked { writer, touched };
            self.open = Some(Box::new(Open {
                store_fork: info.id,
                tracked,
                base_sizes,
                checkpoints: Vec::new(),
                unhashed: Vec::new(),
                lost: None,
            }));
        }
        Ok(self.open.as_mut().expect("it was just made"))
    }

    /// Applies one change. `name` is for the store's fork if this is the first.
    ///
    /// # Panics
    /// On [`Change::Delete`], which is not one of the state.
    pub(crate) fn change(
        &mut self,
        store: &Store,
        trees: &Trees,
        change: Change,
        name: impl FnOnce() -> String,
    ) -> Result<Reply, WorldError> {
        if let Some(refusal) = self.refuse_without_checkpoint(&change) {
            return Err(refusal);
        }
        if matches!(change, Change::CreateCheckpoint | Change::UpdateArchive(..)) {
            self.settle(trees)?;
        }
        self.check_kept()?;
        let open = self.open(store, trees, name)?;
        match change {
            Change::CreateCheckpoint => open.checkpoints.push(open.tracked.writer.begin_checkpoint()?),
            Change::CommitCheckpoint => {
                let id = open.checkpoints.pop().expect("one is open");
                open.tracked.writer.commit_checkpoint(id)?;
            }
            Change::RevertCheckpoint => {
                let id = *open.checkpoints.last().expect("one is open");
                open.tracked.writer.revert_checkpoint(id, &[])?;
                open.unhashed.clear();
                open.checkpoints.pop();
            }
            Change::CommitAllCheckpoints => {
                open.tracked.writer.commit_checkpoint(open.checkpoints[0])?;
                open.checkpoints.clear();
            }
            Change::RevertAllCheckpoints => {
                open.tracked.writer.revert_checkpoint(open.checkpoints[0], &[])?;
                open.unhashed.clear();
                open.checkpoints.clear();
            }
            change => return open.transaction(trees, change),
        }
        Ok(Reply::Done)
    }

    /// Appends leaves to a list. `reply` is called as soon as nothing can refuse them, which is before they are hashed.
    pub(crate) fn append_words(
        &mut self,
        store: &Store,
        trees: &Trees,
        (tree, words): (TreeId, &[Digest]),
        name: impl FnOnce() -> String,
        reply: impl FnOnce(Result<Reply, WorldError>),
    ) {
        self.must_hash.store(true, Ordering::Release);
        let open = match self.check_kept().and_then(|()| self.open(store, trees, name)) {
            Ok(open) => open,
            Err(error) => return reply(Err(error)),
        };
        let taken = open.take(trees, (tree, words));
        reply(taken.map(|()| Reply::Done));
        if open.unhashed.iter().map(|(_, taken)| taken.count()).sum::<usize>() >= UNHASHED_LEAVES_MAX {
            open.hash(trees);
        }
    }

    fn refuse_without_checkpoint(&self, change: &Change) -> Option<WorldError> {
        let text = match change {
            Change::CommitCheckpoint => "Cannot commit without a checkpoint",
            Change::RevertCheckpoint => "Cannot revert without a checkpoint",
            Change::CommitAllCheckpoints => "Invalid depth for commit_to_depth",
            Change::RevertAllCheckpoints => "Invalid depth for revert_to_depth",
            _ => return None,
        };
        let is_open = self.open.as_ref().is_some_and(|open| !open.checkpoints.is_empty());
        (!is_open).then_some(WorldError::NoCheckpoint(text))
    }
}

impl Open {
    /// Takes leaves of a list, to be hashed later.
    fn take(&mut self, trees: &Trees, (tree, words): (TreeId, &[Digest])) -> Result<(), WorldError> {
        let base_size = self.base_sizes[tree as usize];
        let at = match self.unhashed.iter().position(|(unhashed, _)| *unhashed == tree) {
            Some(at) => at,
            None => {
                let begun = trees.append_only(tree).begin(&self.tracked).map_err(WorldError::Tree)?;
                self.unhashed.push((tree, begun));
                self.unhashed.len() - 1
            }
        };
        let taken = take_words(&mut self.tracked, trees, &mut self.unhashed[at], words, base_size);
        let committed = taken.and_then(|()| {
            let committed = self.tracked.writer.commit(&[]).map_err(WorldError::from);
            // The leaves are taken, and cannot be found by value.
            committed.inspect_err(|error| self.lost = Some(error.clone()))
        });
        match committed {
            Ok(_) => Ok(()),
            Err(error) => {
                self.tracked.writer.rollback();
                Err(error)
            }
        }
    }

    /// Hashes the leaves that were taken.
    fn hash(&mut self, trees: &Trees) {
        if self.unhashed.is_empty() {
            return;
        }
        let tracked = &mut self.tracked;
        let mut unhashed = self.unhashed.drain(..);
        let hashed = unhashed.try_for_each(|(tree, taken)| {
            trees.append_only(tree).hash_taken(tracked, &taken).map(|_| ()).map_err(WorldError::Tree)
        });
        drop(unhashed);
        if let Err(error) = hashed.and_then(|()| Ok(tracked.writer.commit(&[]).map(|_| ())?)) {
            tracked.writer.rollback();
            self.lost = Some(error);
        }
    }

    fn transaction(&mut self, trees: &Trees, change: Change) -> Result<Reply, WorldError> {
        let result = apply(&mut self.tracked, trees, &self.base_sizes, change);
        match result {
            Ok(reply) => {
                self.tracked.writer.commit(&[])?;
                Ok(reply)
            }
            Err(error) => {
                self.tracked.writer.rollback();
                Err(error)
            }
        }
    }
}

fn apply(
    writer: &mut Tracked,
    trees: &Trees,
    base_sizes: &[u64; TreeId::COUNT],
    change: Change,
) -> Result<Reply, WorldError> {
    match change {
        Change::Append(tree, leaves) => {
            append(writer, trees, tree, &leaves, base_sizes[tree as usize])?;
            Ok(Reply::Done)
        }
        Change::InsertBatch(tree, entries, subtree_depth) => {
            let inserted = trees.indexed(tree).insert_batch(writer, &entries, true);
            let mut inserted = inserted.map_err(|error| WorldError::of_tree(tree, error))?;
            let skipped = (subtree_depth as usize).min(inserted.path.len());
            inserted.path.drain(..skipped);
            Ok(Reply::Batch(tree, Box::new(inserted)))
        }
        Change::InsertEach(tree, entries) => {
            let inserted = trees.indexed(tree).insert_each(writer, &entries, true);
            let inserted = inserted.map_err(|error| WorldError::of_tree(tree, error))?;
            Ok(Reply::Sequential(tree, Box::new(inserted)))
        }
        Change::UpdateArchive(state, header_hash) => {
            if trees.state_reference(writer)? != *state {
                return Err(WorldError::ArchiveStateMismatch);
            }
            let header = Leaves::Words(vec![header_hash]);
            append(writer, trees, TreeId::Archive, &header, base_sizes[TreeId::Archive as usize])?;
            Ok(Reply::Done)
        }
        Change::CreateCheckpoint
        | Change::CommitCheckpoint
        | Change::RevertCheckpoint
        | Change::CommitAllCheckpoints
        | Change::RevertAllCheckpoints
        | Change::Delete => unreachable!("no change of the trees"),
    }
}

/// Appends leaves; to an indexed tree as a batch. `base_size` is that of the last block.
pub(crate) fn append(
    writer: &mut impl TreeWrite,
    trees: &Trees,
    tree: TreeId,
    leaves: &Leaves,
    base_size: u64,
) -> Result<(), WorldError> {
    let result = match (trees.get(tree), leaves) {
        (AnyTree::Append(append_only), Leaves::Words(words)) => {
            let mut list = (tree, append_only.begin(writer).map_err(WorldError::Tree)?);
            take_words(writer, trees, &mut list, words, base_size)?;
            append_only.hash_taken(writer, &list.1).map(|_| ())
        }
        (AnyTree::Indexed(indexed), Leaves::Entries(entries)) => {
            indexed.insert_batch(writer, entries, false).map(|_| ())
        }
        _ => unreachable!("leaves are decoded for their tree"),
    };
    result.map_err(|error| WorldError::of_tree(tree, error))
}

/// The part of appending to a list that may be refused. A value is found by its first index since the last block, if it
/// was appended since.
fn take_words(
    writer: &mut impl TreeWrite,
    trees: &Trees,
    (tree, taken): &mut (TreeId, TakenLeaves),
    words: &[Digest],
    base_size: u64,
) -> Result<(), WorldError> {
    trees.append_only(*tree).take(writer, taken, words, base_size).map_err(|error| match error {
        TreeError::Full { max_size, new_size } => {
            let size = new_size - words.len() as u64;
            WorldError::Full { tree: *tree, new_size: refused_size(size, words.len() as u64, max_size), max_size }
        }
        error => WorldError::of_tree(*tree, error),
    })
}

/// The size that a refused append is refused for: clients know it as that after the first whole subtree that does not
/// fit, not after all leaves.
fn refused_size(size: u64, leaves: u64, max_size: u64) -> u64 {
    let (mut size, mut left) = (size, leaves);
    while left > 0 {
        let aligned = if size == 0 { u64::MAX } else { 1 << size.trailing_zeros() };
        let subtree = aligned.min(1 << left.ilog2());
        size = size.saturating_add(subtree);
        left -= subtree;
        if size > max_size {
            break;
        }
    }
    size
}
