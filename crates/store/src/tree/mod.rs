//! A copy-on-write B+tree of reference-counted nodes: one keyspace of one version.
//!
//! Cloning a [`Tree`] is O(1) and makes every node shared. An edit goes down from the root and copies the
//! nodes it meets that are shared; nodes that only this tree holds are edited in place. So a writer pays
//! for copies once per node and publication, not once per edit.
//!
//! Invariants (checked by `Tree::check` in tests):
//! - All leaves are at the same depth; no node is empty; a branch at the root has at least two children.
//! - Child `i` of a branch holds the keys from separator `i - 1` (included) to separator `i` (excluded).
//! - `length` is the number of records in the leaves.

mod cursor;
pub(crate) mod meter;
mod records;

use std::sync::Arc;

pub(crate) use cursor::TreeCursor;
use records::Records;

/// Size in bytes at which a leaf is split: copying one costs about as much as finding the way to it.
const NODE_BYTES: usize = 4096;

/// Children at which a branch is split. Copying a branch touches the reference count of every child, which
/// are cold memory, so branches are kept narrower than leaves.
const CHILDREN_MAX: usize = 64;

/// Bytes of separators at which a branch is split although it has few children: separators are as long as
/// keys in the worst case.
const SEPARATOR_BYTES_MAX: usize = 16 * 1024;

/// Children that a branch split for its separators' size must have, so that both halves have two.
const CHILDREN_TO_SPLIT_MIN: usize = 4;

#[derive(Clone)]
enum Node {
    Leaf(Records),
    Branch(Branch),
}

#[derive(Clone)]
struct Branch {
    /// One less than there are children.
    separators: Records,
    children: Vec<Arc<Node>>,
}

/// The upper part of a node that became too large.
struct Split {
    separator: Vec<u8>,
    right: Arc<Node>,
}

/// What an edit found at its key.
#[derive(Debug)]
pub(crate) enum Displaced {
    /// No record.
    Nothing,
    /// A record with the value that was to be put; nothing changed.
    Same,
    /// A small value; its bytes were appended to the caller's buffer.
    Inline,
    /// A large value.
    Large(Arc<[u8]>),
}

/// An ordered map of byte keys to byte values.
#[derive(Clone, Default)]
pub(crate) struct Tree {
    root: Option<Arc<Node>>,
    length: u64,
}

impl Tree {
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let mut node = self.root.as_deref()?;
        loop {
            match node {
                Node::Leaf(records) => return records.find(key).ok().map(|index| records.value(index)),
                Node::Branch(branch) => node = &branch.children[branch.child_for(key)],
            }
        }
    }

    /// Sets the value of `key`. The bytes of a small value that was there are appended to `old`.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], old: &mut Vec<u8>) -> Displaced {
        let root = self.root.get_or_insert_with(|| Arc::new(Node::Leaf(Records::default())));
        let (displaced, split) = insert(root, key, value, old);
        if let Some(Split { separator, right }) = split {
            let mut separators = Records::default();
            separators.insert(0, &separator, &[]);
            let left = Arc::clone(root);
            *root = Arc::new(Node::Branch(Branch { separators, children: vec![left, right] }));
        }
        self.length += u64::from(matches!(displaced, Displaced::Nothing));
        displaced
    }

    /// Removes `key`. The bytes of a small value that was there are appended to `old`.
    pub(crate) fn delete(&mut self, key: &[u8], old: &mut Vec<u8>) -> Displaced {
        let Some(root) = &mut self.root else { return Displaced::Nothing };
        let displaced = remove(root, key, old);
        if matches!(displaced, Displaced::Nothing) {
            return displaced;
        }
        self.length -= 1;
        while let Node::Branch(branch) = &**root
            && branch.children.len() == 1
        {
            *root = Arc::clone(&branch.children[0]);
        }
        if root.is_empty() {
            self.root = None;
        }
        assert!((self.length == 0) == self.root.is_none(), "the length of a tree agrees with its nodes");
        displaced
    }

    /// Checks the invariants of the module.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let Some(root) = &self.root else {
            assert_eq!(self.length, 0);
            return;
        };
        if let Node::Branch(branch) = &**root {
            assert!(branch.children.len() >= 2);
        }
        let mut leaf_depths = std::collections::BTreeSet::new();
        let count = root.check(0, None, None, &mut leaf_depths);
        assert_eq!(count, self.length);
        assert_eq!(leaf_depths.len(), 1, "all leaves at one depth");
    }
}

/// Goes down to the leaf of `key`, making the nodes on the way this tree's own.
fn insert(node: &mut Arc<Node>, key: &[u8], value: &[u8], old: &mut Vec<u8>) -> (Displaced, Option<Split>) {
    match Arc::make_mut(node) {
        Node::Leaf(records) => {
            let (index, displaced) = match records.find(key) {
                Ok(index) if records.value(index) == value => return (Displaced::Same, None),
                Ok(index) => {
                    let displaced = take_value(records, index, old);
                    records.replace_value(index, value);
                    (index, displaced)
                }
                Err(index) => {
                    records.insert(index, key, value);
                    (index, Displaced::Nothing)
                }
            };
            // Keys that only grow fill their leaves: nothing more will come into the left part.
            let at_end = index + 1 == records.len();
            (displaced, split_leaf(records, at_end))
        }
        Node::Branch(branch) => {
            let index = branch.child_for(key);
            let (displaced, split) = insert(&mut branch.children[index], key, value, old);
            let split = split.and_then(|split| {
                branch.insert_child(index + 1, split);
                branch.split(index + 2 == branch.children.len())
            });
            (displaced, split)
        }
    }
}

fn take_value(records: &Records, index: usize, old: &mut Vec<u8>) -> Displaced {
    match records.copy_value(index, old) {
        Some(large) => Displaced::Large(large),
        None => Displaced::Inline,
    }
}

fn split_leaf(records: &mut Records, at_end: bool) -> Option<Split> {
    if records.len() < 2 || records.live_bytes() <= NODE_BYTES {
        return None;
    }
    let right = records.split_off(if at_end { records.len() - 1 } else { records.middle() });
    let separator = shortest_separator(records.key(records.len() - 1), right.key(0));
    Some(Split { separator, right: Arc::new(Node::Leaf(right)) })
}

/// The shortest key above `left` and not above `right`.
fn shortest_separator(left: &[u8], right: &[u8]) -> Vec<u8> {
    let common = records::common_length(left, right);
    assert!(common < right.len(), "keys are sorted");
    right[..=common].to_vec()
}

fn remove(node: &mut Arc<Node>, key: &[u8], old: &mut Vec<u8>) -> Displaced {
    match Arc::make_mut(node) {
        Node::Leaf(records) => match records.find(key) {
            Err(_) => Displaced::Nothing,
            Ok(index) => {
                let displaced = take_value(records, index, old);
                records.remove(index);
                displaced
            }
        },
        Node::Branch(branch) => {
            let index = branch.child_for(key);
            let displaced = remove(&mut branch.children[index], key, old);
            if branch.children[index].is_small() {
                branch.rebalance(index);
            }
            displaced
        }
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(records) => records.len() == 0,
            Node::Branch(branch) => branch.children.is_empty(),
        }
    }

    /// Whether it should be merged with a neighbour.
    fn is_small(&self) -> bool {
        match self {
            Node::Leaf(records) => records.live_bytes() < NODE_BYTES / 4,
            Node::Branch(branch) => {
                let children = branch.children.len();
                let separator_bytes = branch.separators.live_bytes();
                children < 2 || (children < CHILDREN_MAX / 4 && separator_bytes < SEPARATOR_BYTES_MAX / 4)
            }
        }
    }

    /// Appends a copy of the content of `right`, the next node of the same level.
    fn append(&mut self, separator: &[u8], right: &Node) {
        match (self, right) {
            (Node::Leaf(left), Node::Leaf(right)) => left.append_all(right),
            (Node::Branch(left), Node::Branch(right)) => {
                left.separators.insert(left.separators.len(), separator, &[]);
                left.separators.append_all(&right.separators);
                left.children.extend(right.children.iter().cloned());
            }
            _ => unreachable!("nodes of one level are of one kind"),
        }
    }

    fn split(&mut self) -> Option<Split> {
        match self {
            Node::Leaf(records) => split_leaf(records, false),
            Node::Branch(branch) => branch.split(false),
        }
    }

    #[cfg(test)]
    fn check(
        &self,
        depth: usize,
        low: Option<&[u8]>,
        high: Option<&[u8]>,
        leaf_depths: &mut std::collections::BTreeSet<usize>,
    ) -> u64 {
        assert!(!self.is_empty());
        let in_range = |key: &[u8]| low.is_none_or(|low| low <= key) && high.is_none_or(|high| key < high);
        match self {
            Node::Leaf(records) => {
                records.check();
                leaf_depths.insert(depth);
                assert!((0..records.len()).all(|index| in_range(records.key(index))));
                records.len() as u64
            }
            Node::Branch(branch) => {
                branch.separators.check();
                assert_eq!(branch.separators.len() + 1, branch.children.len());
                assert!(branch.children.len() <= CHILDREN_MAX);
                assert!((0..branch.separators.len()).all(|index| in_range(branch.separators.key(index))));
                let bound = |index: usize| branch.separators.key(index);
                (0..branch.children.len())
                    .map(|index| {
                        let low = if index == 0 { low } else { Some(bound(index - 1)) };
                        let high = if index == branch.separators.len() { high } else { Some(bound(index)) };
                        branch.children[index].check(depth + 1, low, high, leaf_depths)
                    })
                    .sum()
            }
        }
    }
}

impl Branch {
    fn child_for(&self, key: &[u8]) -> usize {
        match self.separators.find(key) {
            Ok(index) => index + 1,
            Err(index) => index,
        }
    }

    fn insert_child(&mut self, index: usize, split: Split) {
        self.separators.insert(index - 1, &split.separator, &[]);
        self.children.insert(index, split.right);
    }

    fn split(&mut self, at_end: bool) -> Option<Split> {
        let count = self.children.len();
        let heavy = count >= CHILDREN_TO_SPLIT_MIN && self.separators.live_bytes() > SEPARATOR_BYTES_MAX;
        if count <= CHILDREN_MAX && !heavy {
            return None;
        }
        let at = if at_end { count - 2 } else { count / 2 };
        let right_separators = self.separators.split_off(at);
        let right_children = self.children.split_off(at);
        let separator = self.separators.key(at - 1).to_vec();
        self.separators.remove(at - 1);
        let right = Branch { separators: right_separators, children: right_children };
        Some(Split { separator, right: Arc::new(Node::Branch(right)) })
    }

    /// Removes the child at `index` if it is empty, else joins it with a neighbour and splits the two evenly
    /// if they do not fit into one node.
    fn rebalance(&mut self, index: usize) {
        if self.children[index].is_empty() {
            self.children.remove(index);
            if self.separators.len() > 0 {
                self.separators.remove(index.saturating_sub(1));
            }
            return;
        }
        if self.children.len() == 1 {
            return;
        }
        let left_index = index.saturating_sub(1);
        let right = self.children.remove(left_index + 1);
        let left = Arc::make_mut(&mut self.children[left_index]);
        left.append(self.separators.key(left_index), &right);
        let split = left.split();
        self.separators.remove(left_index);
        if let Some(split) = split {
            self.insert_child(left_index + 1, split);
        }
    }
}

#[cfg(test)]
mod tests;
