//! Reading a version.

use std::fmt;
use std::ops::{Bound, Deref};
use std::sync::Arc;

use crate::error::Fault;
use crate::ids::{DurableTicket, KeyspaceId, Lsn, Version};
use crate::log::{BadRecord, OperationRef, operations};
use crate::root::Root;
use crate::tree::TreeCursor;

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
pub struct Cursor<'a>(Option<TreeCursor<'a>>);

impl<'a> Cursor<'a> {
    /// The next key and value; `None` at the end of the range, also when asked again.
    ///
    /// Not an [`Iterator`], since a step can fail and code should see that at each one.
    ///
    /// # Errors
    /// [`Fault`] if the state cannot be reached.
    #[allow(clippy::should_implement_trait, clippy::type_complexity)]
    pub fn next(&mut self) -> Result<Option<(&'a [u8], &'a [u8])>, Fault> {
        Ok(self.0.as_mut().and_then(TreeCursor::next))
    }
}

impl Root {
    pub(crate) fn cursor<'a>(
        &'a self,
        keyspace: KeyspaceId,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
    ) -> Cursor<'a> {
        Cursor(self.tree(keyspace).map(|tree| tree.range(start, end, direction == Direction::Reverse)))
    }
}

/// A version as it was published: what snapshots share and forks start from.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) root: Arc<Root>,
    pub(crate) lsn: Lsn,
    /// Of the last commit; 0 before the first.
    pub(crate) timestamp_micros: i64,
    /// The log record that everything in this version is at or before.
    pub(crate) ticket: DurableTicket,
}

impl Published {
    /// The state before the first commit.
    pub(crate) fn empty(ticket: DurableTicket) -> Published {
        Published { root: Arc::new(Root::default()), lsn: Lsn::new(0), timestamp_micros: 0, ticket }
    }

    /// Moves on to the next version with the logged operations of its commit. `scratch` is for replaced values.
    pub(crate) fn apply(
        &mut self,
        lsn: Lsn,
        timestamp_micros: i64,
        ticket: DurableTicket,
        encoded: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        let root = Arc::make_mut(&mut self.root);
        for operation in operations(encoded) {
            let OperationRef { keyspace, key, value } = operation.map_err(|BadRecord| "a record cannot be decoded")?;
            let tree = root.tree_mut(keyspace);
            scratch.clear();
            match value {
                Some(value) => tree.put(key, value, scratch),
                None => tree.delete(key, scratch),
            };
        }
        self.lsn = lsn;
        self.timestamp_micros = timestamp_micros;
        self.ticket = ticket;
        Ok(())
    }
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
        self.published.root.read(keyspace, key)
    }

    fn range<'a>(
        &'a self,
        keyspace: KeyspaceId,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        direction: Direction,
    ) -> Cursor<'a> {
        self.published.root.cursor(keyspace, start, end, direction)
    }

    fn len(&self, keyspace: KeyspaceId) -> u64 {
        self.published.root.length(keyspace)
    }
}

impl Root {
    pub(crate) fn read(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<ValueRef<'_>>, Fault> {
        Ok(self.get(keyspace, key).map(ValueRef))
    }

    pub(crate) fn length(&self, keyspace: KeyspaceId) -> u64 {
        self.tree(keyspace).map_or(0, crate::tree::Tree::len)
    }
}
