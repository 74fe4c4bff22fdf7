//! Walking a tree in key order, in either direction.
//!
//! A cursor holds the path to its position and the place where it ends. Both ends are found by descending
//! once, so that a step compares no keys. Positions are kept normal: a position behind the last record of a
//! leaf is the one before the first record of the next leaf, except behind the last leaf. That makes equal
//! positions equal pairs of leaf and index.

use std::ops::Bound;

use super::records::Records;
use super::{Branch, Node, Tree};

/// Records of a range, with references that live as long as the tree is borrowed.
pub(crate) struct TreeCursor<'a> {
    /// `None` when nothing is left.
    place: Option<Place<'a>>,
    /// Address of a leaf, which is only compared, and index.
    end: (usize, usize),
    reverse: bool,
}

struct Place<'a> {
    /// Branches from the root to the leaf, with the index of the child taken.
    path: Vec<(&'a Branch, usize)>,
    leaf: &'a Records,
    index: usize,
}

impl Tree {
    /// A cursor over the keys between the bounds. Bounds that exclude each other give an empty one.
    pub(crate) fn range(&self, start: Bound<&[u8]>, end: Bound<&[u8]>, reverse: bool) -> TreeCursor<'_> {
        let nothing = TreeCursor { place: None, end: (0, 0), reverse };
        let Some(root) = self.root.as_deref() else { return nothing };
        let inverted = match (start, end) {
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => {
                start >= end
            }
            _ => false,
        };
        if inverted {
            return nothing;
        }
        let first = Place::find(root, start, true);
        let last = Place::find(root, end, false);
        let (place, end) = if reverse { (last, first.key()) } else { (first, last.key()) };
        TreeCursor { place: Some(place), end, reverse }
    }
}

impl<'a> TreeCursor<'a> {
    pub(crate) fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let place = self.place.as_mut()?;
        if place.key() == self.end {
            self.place = None;
            return None;
        }
        if self.reverse {
            if place.index == 0 {
                place.previous_leaf();
            }
            place.index -= 1;
            return Some((place.leaf.key(place.index), place.leaf.value(place.index)));
        }
        let record = (place.leaf.key(place.index), place.leaf.value(place.index));
        place.index += 1;
        place.normalise();
        Some(record)
    }
}

impl<'a> Place<'a> {
    /// The position before the first record that is inside of a lower bound, or behind the last one that is
    /// inside of an upper bound.
    fn find(root: &'a Node, bound: Bound<&[u8]>, lower: bool) -> Place<'a> {
        let mut path = Vec::with_capacity(4);
        let mut node = root;
        let leaf = loop {
            match node {
                Node::Leaf(records) => break records,
                Node::Branch(branch) => {
                    let child = match bound {
                        Bound::Included(key) | Bound::Excluded(key) => branch.child_for(key),
                        Bound::Unbounded if lower => 0,
                        Bound::Unbounded => branch.children.len() - 1,
                    };
                    path.push((branch, child));
                    node = &branch.children[child];
                }
            }
        };
        let after = |found: Result<usize, usize>| found.map_or_else(|index| index, |index| index + 1);
        let before = |found: Result<usize, usize>| found.unwrap_or_else(|index| index);
        let index = match (bound, lower) {
            (Bound::Included(key), true) | (Bound::Excluded(key), false) => before(leaf.find(key)),
            (Bound::Excluded(key), true) | (Bound::Included(key), false) => after(leaf.find(key)),
            (Bound::Unbounded, true) => 0,
            (Bound::Unbounded, false) => leaf.len(),
        };
        let mut place = Place { path, leaf, index };
        place.normalise();
        place
    }

    fn key(&self) -> (usize, usize) {
        (std::ptr::from_ref(self.leaf).addr(), self.index)
    }

    fn normalise(&mut self) {
        if self.index == self.leaf.len()
            && let Some(level) = self.path.iter().rposition(|(branch, child)| child + 1 < branch.children.len())
        {
            self.path[level].1 += 1;
            self.enter(level, |_| 0);
            self.index = 0;
        }
    }

    /// Goes behind the last record of the leaf before this one, which must exist.
    fn previous_leaf(&mut self) {
        let level = self.path.iter().rposition(|(_, child)| *child > 0);
        let level = level.expect("a cursor meets its end before the first leaf's start");
        self.path[level].1 -= 1;
        self.enter(level, |branch| branch.children.len() - 1);
        self.index = self.leaf.len();
    }

    /// Rebuilds the path below `level`.
    fn enter(&mut self, level: usize, choose: impl Fn(&Branch) -> usize) {
        self.path.truncate(level + 1);
        let (branch, child) = self.path[level];
        let mut node: &'a Node = &branch.children[child];
        self.leaf = loop {
            match node {
                Node::Leaf(records) => break records,
                Node::Branch(branch) => {
                    let child = choose(branch);
                    self.path.push((branch, child));
                    node = &branch.children[child];
                }
            }
        };
    }
}
