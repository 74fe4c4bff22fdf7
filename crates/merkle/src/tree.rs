//! What both kinds of trees have: a height, empty subtrees, nodes, size and root.

use std::sync::Arc;

use tine_store::{KeyspaceId, Read, WriteError, Writer};

use crate::nodes::{GROUP_LEVELS, GroupRef, Nodes};
use crate::update::{Change, Event};
use crate::{Digest, EMPTY, HEIGHT_MAX, HashPool, TreeError, TreeHash};

/// Where a tree keeps its records. No two trees of a store may share one.
#[derive(Clone, Copy, Debug)]
pub struct Keyspaces {
    /// Nodes, size and root.
    pub nodes: KeyspaceId,
    /// Leaves by what they are found by: the value, or the key of an indexed tree.
    pub keys: KeyspaceId,
    /// Keys of an indexed tree by index.
    pub leaves: KeyspaceId,
}

/// Where changes of a tree are written: a [`Writer`], or something that sees what passes to one.
pub trait TreeWrite: Read {
    /// Sets the value of `key`. Says whether the key had a value before.
    ///
    /// # Errors
    /// The store refuses the write.
    fn put(&mut self, keyspace: KeyspaceId, key: &[u8], value: &[u8]) -> Result<bool, WriteError>;
}

impl TreeWrite for Writer {
    fn put(&mut self, keyspace: KeyspaceId, key: &[u8], value: &[u8]) -> Result<bool, WriteError> {
        Writer::put(self, keyspace, key, value)
    }
}

/// The size and root of a version of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeState {
    /// Leaves, empty ones among them.
    pub size: u64,
    /// The root.
    pub root: Digest,
}

/// Groups start with their level, which is far below this.
const STATE_KEY: &[u8] = &[0xff];

pub(crate) struct Tree {
    pub(crate) hash: Arc<dyn TreeHash>,
    pub(crate) pool: Arc<HashPool>,
    pub(crate) keyspaces: Keyspaces,
    pub(crate) height: u32,
    /// Empty subtrees by height, from a leaf to the root.
    empty: Vec<Digest>,
}

impl Tree {
    /// # Panics
    /// If the height is zero or above [`HEIGHT_MAX`].
    pub(crate) fn new(height: u32, keyspaces: Keyspaces, hash: Arc<dyn TreeHash>, pool: Arc<HashPool>) -> Tree {
        assert!((1..=HEIGHT_MAX).contains(&height), "a tree has a height from 1 to {HEIGHT_MAX}");
        let mut empty = vec![EMPTY];
        for level in 0..height as usize {
            empty.push(hash.inner(&empty[level], &empty[level]));
        }
        Tree { hash, pool, keyspaces, height, empty }
    }

    pub(crate) fn size_max(&self) -> u64 {
        1 << self.height
    }

    pub(crate) fn state(&self, reader: &impl Read) -> Result<TreeState, TreeError> {
        let Some(record) = reader.get(self.keyspaces.nodes, STATE_KEY)? else {
            return Ok(TreeState { size: 0, root: self.empty[self.height as usize] });
        };
        match record.as_slice().split_first_chunk() {
            Some((size, root)) if root.len() == 32 => {
                Ok(TreeState { size: u64::from_be_bytes(*size), root: root.try_into().expect("32 bytes") })
            }
            _ => Err(TreeError::Damaged("the tree's state has another length")),
        }
    }

    pub(crate) fn check_room(&self, new_size: u64) -> Result<(), TreeError> {
        let max_size = self.size_max();
        if new_size > max_size { Err(TreeError::Full { new_size, max_size }) } else { Ok(()) }
    }

    pub(crate) fn node_of_leaf(&self, reader: &impl Read, index: u64) -> Result<Digest, TreeError> {
        let group = GroupRef::read(reader, self.keyspaces.nodes, 0, index)?;
        Ok(group.and_then(|group| group.node(0, index).copied()).unwrap_or(EMPTY))
    }

    /// Passes the siblings of a leaf's path to `take`, from the lowest up. Bits of `index` beyond the height are ignored.
    pub(crate) fn visit_path(
        &self,
        reader: &impl Read,
        size: u64,
        index: u64,
        take: &mut dyn FnMut(&Digest),
    ) -> Result<(), TreeError> {
        let index = index & (self.size_max() - 1);
        let mut level = 0;
        while level < self.height {
            let end = (level + GROUP_LEVELS).min(self.height);
            // Nothing at or right of this node is there: all siblings in the group that could be are left of it.
            let is_stored = |level: u32| size > 0 && (index >> level) ^ 1 <= (size - 1) >> level;
            let group = if (level..end).any(is_stored) {
                GroupRef::read(reader, self.keyspaces.nodes, level, index >> level)?
            } else {
                None
            };
            for level in level..end {
                let node = group.as_ref().and_then(|group| group.node(level, (index >> level) ^ 1));
                take(node.unwrap_or(&self.empty[level as usize]));
            }
            level = end;
        }
        Ok(())
    }

    pub(crate) fn path(&self, reader: &impl Read, size: u64, index: u64) -> Result<Vec<Digest>, TreeError> {
        let mut path = Vec::with_capacity(self.height as usize);
        self.visit_path(reader, size, index, &mut |node| path.push(*node))?;
        Ok(path)
    }

    /// Applies events and sets the size. Returns the new state and the witnessed paths.
    pub(crate) fn change(
        &self,
        writer: &mut impl TreeWrite,
        before: TreeState,
        size: u64,
        events: &[Event],
    ) -> Result<(TreeState, Vec<Vec<Digest>>), TreeError> {
        let (mut root, mut paths) = (before.root, Vec::new());
        if !events.is_empty() {
            let mut nodes = Nodes::new(self.keyspaces.nodes, &self.empty);
            let change = Change { hash: &self.hash, pool: &self.pool, height: self.height };
            (root, paths) = change.apply(writer, &mut nodes, events)?;
            nodes.write(writer)?;
        }
        let mut record = [0; 40];
        record[..8].copy_from_slice(&size.to_be_bytes());
        record[8..].copy_from_slice(&root);
        writer.put(self.keyspaces.nodes, STATE_KEY, &record)?;
        Ok((TreeState { size, root }, paths))
    }
}
