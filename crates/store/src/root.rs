//! The root of a version: its keyspaces.

use crate::ids::KeyspaceId;
use crate::tree::Tree;

/// The trees of a version by keyspace. There are a few per table, so a sorted list is small enough to be
/// copied when a version is published.
#[derive(Clone, Default)]
pub(crate) struct Root {
    trees: Vec<(KeyspaceId, Tree)>,
}

impl Root {
    pub(crate) fn tree(&self, keyspace: KeyspaceId) -> Option<&Tree> {
        self.find(keyspace).ok().map(|index| &self.trees[index].1)
    }

    /// The tree of a keyspace to edit; an empty one is made if there is none.
    pub(crate) fn tree_mut(&mut self, keyspace: KeyspaceId) -> &mut Tree {
        let index = self.find(keyspace).unwrap_or_else(|index| {
            self.trees.insert(index, (keyspace, Tree::default()));
            index
        });
        &mut self.trees[index].1
    }

    pub(crate) fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<&[u8]> {
        self.tree(keyspace)?.get(key)
    }

    fn find(&self, keyspace: KeyspaceId) -> Result<usize, usize> {
        self.trees.binary_search_by_key(&keyspace, |(id, _)| *id)
    }
}
