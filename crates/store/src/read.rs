//! Reading a version.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Bound, Deref};
use std::sync::Arc;

use crate::arena::Arena;
use crate::draft::Draft;
use crate::error::{Fault, WriteError};
use crate::ids::{DurableTicket, KeyspaceId, Lsn, Version};
use crate::log::{BadRecord, OperationRef, operations};
use crate::overlay::{Overlaid, Overlay, OverlayCursor};
use crate::tree::{TreeCursor, TreeRoot};
use crate::versions::{Frozen, Pages};

/// In which order a [`Cursor`] goes through its range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key to the greatest.
    #[default]
    Forward,
    /// From the greatest key to the smallest.
    Reverse,
}

/// What [`Snapshot`] and [`Writer`](crate::Writer) read alike. A keyspace that nothing was put into is empty.
pub trait Read {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`Fault`] if the state cannot be reached.
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<ValueRef<'_>>, Fault>;

    /// The records between two bounds, in byte order of their keys or against it. Bounds that exclude each
    /// other give an empty cursor.
    fn range<'a>(
        &'a self,
        keyspace: KeyspaceId,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
    ) -> Cursor<'a>;

    /// Number of records of a keyspace, in O(1).
    fn len(&self, keyspace: KeyspaceId) -> u64;
}

/// The bytes of a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueRef<'a>(&'a [u8]);

impl<'a> ValueRef<'a> {
    /// The bytes, for as long as the version is borrowed.
    pub fn as_slice(self) -> &'a [u8] {
        self.0
    }
}

impl Deref for ValueRef<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl AsRef<[u8]> for ValueRef<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl fmt::Debug for ValueRef<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Goes through the records of a range; see [`Read::range`].
pub struct Cursor<'a> {
    tree: Option<TreeCursor<'a>>,
    /// Of the records that are overlaid, and the record of the tree that is next besides.
    overlaid: Option<(OverlayCursor<'a>, Option<Record<'a>>)>,
    reverse: bool,
}

type Record<'a> = (&'a [u8], &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next key and value; `None` at the end of the range, also when asked again.
    ///
    /// Not an [`Iterator`], since a step can fail and code should see that at each one.
    ///
    /// # Errors
    /// [`Fault`] if the state cannot be reached.
    #[allow(clippy::should_implement_trait, clippy::type_complexity)]
    pub fn next(&mut self) -> Result<Option<(&'a [u8], &'a [u8])>, Fault> {
        if self.overlaid.is_some() { self.next_merged() } else { self.next_in_tree() }
    }

    fn next_in_tree(&mut self) -> Result<Option<Record<'a>>, Fault> {
        match &mut self.tree {
            Some(cursor) => cursor.next(),
            None => Ok(None),
        }
    }

    fn next_merged(&mut self) -> Result<Option<Record<'a>>, Fault> {
        loop {
            let pending = self.overlaid.as_ref().and_then(|(_, pending)| *pending);
            let record = match pending {
                Some(record) => Some(record),
                None => self.next_in_tree()?,
            };
            let reverse = self.reverse;
            let (overlay, pending) = self.overlaid.as_mut().expect("only called with one");
            *pending = record;
            let Some((key, overlaid)) = overlay.peek() else { return Ok(pending.take()) };
            let order =
                record.map_or(Ordering::Less, |(in_tree, _)| if reverse { in_tree.cmp(key) } else { key.cmp(in_tree) });
            if order == Ordering::Greater {
                return Ok(pending.take());
            }
            overlay.advance();
            if order == Ordering::Equal {
                *pending = None;
            }
            if let Overlaid::Record(value) = overlaid {
                return Ok(Some((key, value)));
            }
        }
    }
}

/// A state that can be read: of a version, or of a draft.
#[derive(Clone, Copy)]
pub(crate) struct StateRef<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) trees: &'a [(KeyspaceId, TreeRoot)],
    pub(crate) overlay: Option<&'a Overlay>,
}

impl<'a> StateRef<'a> {
    pub(crate) fn of_draft(draft: &'a Draft) -> StateRef<'a> {
        StateRef { arena: draft.arena(), trees: draft.trees(), overlay: draft.overlay() }
    }

    pub(crate) fn of_version(version: &'a Frozen) -> StateRef<'a> {
        let overlay = version.overlay().map(|overlay| &**overlay);
        StateRef { arena: &version.pages().arena, trees: version.trees(), overlay }
    }

    pub(crate) fn tree(self, keyspace: KeyspaceId) -> Option<TreeRoot> {
        let index = self.trees.binary_search_by_key(&keyspace, |(id, _)| *id).ok()?;
        Some(self.trees[index].1)
    }

    pub(crate) fn get(self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<ValueRef<'a>>, Fault> {
        if let Some(overlaid) = self.overlay.and_then(|overlay| overlay.get(keyspace, key)) {
            return Ok(overlaid.value().map(ValueRef));
        }
        match self.tree(keyspace) {
            Some(tree) => Ok(tree.get(self.arena, key)?.map(ValueRef)),
            None => Ok(None),
        }
    }

    pub(crate) fn range(
        self,
        keyspace: KeyspaceId,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
    ) -> Cursor<'a> {
        let reverse = direction == Direction::Reverse;
        if exclude_each_other(start, end) {
            return Cursor { tree: None, overlaid: None, reverse };
        }
        let tree = self.tree(keyspace).map(|tree| TreeCursor::new(self.arena, tree, start, end, reverse));
        let overlaid = self.overlay.map(|overlay| (overlay.cursor(keyspace, start, end, reverse), None));
        Cursor { tree, overlaid, reverse }
    }

    pub(crate) fn len(self, keyspace: KeyspaceId) -> u64 {
        let length = self.tree(keyspace).map_or(0, |tree| tree.length);
        let added = self.overlay.map_or(0, |overlay| overlay.added(keyspace));
        length.checked_add_signed(added).expect("an overlay takes away only what the tree has")
    }
}

fn exclude_each_other(start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    match (start, end) {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start >= end,
        _ => false,
    }
}

/// A version as it was published: what snapshots share and forks start from.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) state: Arc<Frozen>,
    pub(crate) lsn: Lsn,
    /// Of the last commit; 0 before the first.
    pub(crate) timestamp_micros: i64,
    /// The log record that everything in this version is at or before.
    pub(crate) ticket: DurableTicket,
}

impl Published {
    /// The state before the first commit.
    pub(crate) fn empty(pages: &Arc<Pages>, ticket: DurableTicket) -> Published {
        Published { state: pages.empty(), lsn: Lsn::new(0), timestamp_micros: 0, ticket }
    }
}

/// Why logged operations could not be applied.
pub(crate) enum ApplyError {
    /// They cannot be decoded.
    BadRecord,
    Write(WriteError),
}

/// Applies the logged operations of a commit. `scratch` is for replaced values.
pub(crate) fn apply(draft: &mut Draft, encoded: &[u8], scratch: &mut Vec<u8>) -> Result<(), ApplyError> {
    for operation in operations(encoded) {
        let OperationRef { keyspace, key, value } = operation.map_err(|BadRecord| ApplyError::BadRecord)?;
        scratch.clear();
        draft.write(keyspace, key, value, scratch).map_err(|error| ApplyError::Write(error.into()))?;
    }
    Ok(())
}

/// One immutable version, readable from any thread without waiting for anyone. Cloning is cheap.
///
/// It stays readable whatever becomes of its fork and of the store, and keeps its memory until dropped.
#[derive(Clone)]
pub struct Snapshot {
    version: Version,
    published: Published,
}

impl Snapshot {
    pub(crate) fn new(version: Version, published: Published) -> Snapshot {
        Snapshot { version, published }
    }

    pub(crate) fn published(&self) -> &Published {
        &self.published
    }

    /// Which version this is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Time of the version's last commit in microseconds since the Unix epoch; 0 if there is none.
    pub fn timestamp_micros(&self) -> i64 {
        self.published.timestamp_micros
    }

    /// When this is durable, so is everything that can be read here (on a durable fork).
    pub fn ticket(&self) -> DurableTicket {
        self.published.ticket
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Snapshot({})", self.version)
    }
}

impl Read for Snapshot {
    fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<ValueRef<'_>>, Fault> {
        StateRef::of_version(&self.published.state).get(keyspace, key)
    }

    fn range<'a>(
        &'a self,
        keyspace: KeyspaceId,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
    ) -> Cursor<'a> {
        StateRef::of_version(&self.published.state).range(keyspace, start, end, direction)
    }

    fn len(&self, keyspace: KeyspaceId) -> u64 {
        StateRef::of_version(&self.published.state).len(keyspace)
    }
}
