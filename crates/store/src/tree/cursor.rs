//! Walking a tree in key order, in either direction.
//!
//! A cursor holds the path to its leaf and the part of the leaf that is in its range. That part is found once per leaf,
//! so that a step compares no keys.

use std::ops::Bound;

use super::{TreeRoot, resolve};
use crate::arena::Arena;
use crate::error::Fault;
use crate::page::View;

/// Records whose cells are asked for in advance: as many as are handed out while memory answers.
const AHEAD: usize = 6;

/// Records of a range, with references that live as long as the version is borrowed.
pub(crate) struct TreeCursor<'a> {
    arena: &'a Arena,
    /// Branches from the root down, with the slot taken.
    path: Vec<(View<'a>, usize)>,
    /// `None` before a fault was told or at the end.
    leaf: Option<View<'a>>,
    /// Slots of the leaf that were not given out yet.
    start: usize,
    end: usize,
    /// The far end of the range.
    far: Bound<Vec<u8>>,
    reverse: bool,
    /// No later leaf has records of the range.
    last: bool,
    fault: Option<Fault>,
}

impl<'a> TreeCursor<'a> {
    /// A cursor over the keys between the bounds, which do not exclude each other.
    pub(crate) fn new(
        arena: &'a Arena,
        tree: TreeRoot,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        reverse: bool,
    ) -> TreeCursor<'a> {
        let (near, far) = if reverse { (end, start) } else { (start, end) };
        let far = far.map(<[u8]>::to_vec);
        let mut cursor =
            TreeCursor { arena, path: Vec::new(), leaf: None, start: 0, end: 0, far, reverse, last: true, fault: None };
        if !tree.is_empty() {
            cursor.last = false;
            if let Err(fault) = cursor.seek(tree, near) {
                cursor.fault = Some(fault);
            }
        }
        cursor
    }

    /// The next key and value. After a fault the cursor is at its end.
    #[allow(clippy::type_complexity)] // As the public cursor has it.
    pub(crate) fn next(&mut self) -> Result<Option<(&'a [u8], &'a [u8])>, Fault> {
        while self.start == self.end {
            if let Some(fault) = self.fault.take() {
                self.last = true;
                return Err(fault);
            }
            if self.last {
                return Ok(None);
            }
            if let Err(fault) = self.step_leaf() {
                self.last = true;
                return Err(fault);
            }
        }
        let index = if self.reverse {
            self.end -= 1;
            self.end
        } else {
            self.start += 1;
            self.start - 1
        };
        let leaf = self.leaf.expect("slots are of a leaf");
        leaf.prefetch_cell(if self.reverse { index.wrapping_sub(AHEAD) } else { index + AHEAD });
        Ok(Some((leaf.key(index), resolve(self.arena, leaf.value(index))?)))
    }

    fn seek(&mut self, tree: TreeRoot, near: Bound<&[u8]>) -> Result<(), Fault> {
        let mut view = self.arena.page(tree.page)?;
        while !view.is_leaf() {
            let index = match near {
                Bound::Included(key) | Bound::Excluded(key) => view.child_for(key),
                Bound::Unbounded if self.reverse => view.count() - 1,
                Bound::Unbounded => 0,
            };
            self.path.push((view, index));
            view = self.arena.page(view.child(index))?;
        }
        self.enter(view);
        match (near, self.reverse) {
            (Bound::Unbounded, _) => {}
            (Bound::Included(key), false) => self.start = view.find(key).unwrap_or_else(|index| index),
            (Bound::Excluded(key), false) => self.start = after(view.find(key)),
            (Bound::Included(key), true) => self.end = after(view.find(key)),
            (Bound::Excluded(key), true) => self.end = view.find(key).unwrap_or_else(|index| index),
        }
        assert!(self.start <= self.end, "bounds that exclude each other were refused");
        Ok(())
    }

    /// Takes a leaf with what is in the range, as far as the far end of the range says.
    fn enter(&mut self, leaf: View<'a>) {
        self.leaf = Some(leaf);
        self.prefetch_neighbour();
        (self.start, self.end) = (0, leaf.count());
        let farthest = if self.reverse { 0 } else { leaf.count() - 1 };
        let (Bound::Included(far) | Bound::Excluded(far)) = &self.far else { return };
        let beyond = if self.reverse { leaf.key(farthest) <= &far[..] } else { leaf.key(farthest) >= &far[..] };
        if !beyond {
            return;
        }
        self.last = true;
        let found = leaf.find(far);
        match (&self.far, self.reverse) {
            (Bound::Included(_), false) => self.end = after(found),
            (_, false) => self.end = found.unwrap_or_else(|index| index),
            (Bound::Included(_), true) => self.start = found.unwrap_or_else(|index| index),
            (_, true) => self.start = after(found),
        }
    }

    /// Asks for the memory where the next leaf begins.
    fn prefetch_neighbour(&self) {
        let Some((branch, index)) = self.path.last() else { return };
        let next = if self.reverse { index.wrapping_sub(1) } else { index + 1 };
        if next < branch.count() {
            self.arena.prefetch(branch.child(next));
        }
    }

    /// Goes to the neighbouring leaf.
    fn step_leaf(&mut self) -> Result<(), Fault> {
        let reverse = self.reverse;
        let next = |view: &View<'_>, index: usize| {
            if reverse { index.checked_sub(1) } else { Some(index + 1).filter(|next| *next < view.count()) }
        };
        while let Some((view, index)) = self.path.pop() {
            let Some(index) = next(&view, index) else { continue };
            self.path.push((view, index));
            let mut view = self.arena.page(view.child(index))?;
            while !view.is_leaf() {
                let index = if reverse { view.count() - 1 } else { 0 };
                self.path.push((view, index));
                view = self.arena.page(view.child(index))?;
            }
            self.enter(view);
            return Ok(());
        }
        self.last = true;
        Ok(())
    }
}

fn after(found: Result<usize, usize>) -> usize {
    found.map_or_else(|index| index, |index| index + 1)
}
