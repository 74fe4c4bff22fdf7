//! Walking a tree in key order, in either direction.
//!
//! A cursor holds the path to its leaf and the part of the leaf that is in its range. That part is found once per leaf,
//! so that a step compares no keys. Cells of a page lie in the order in which they came into it, so most steps would wait
//! for memory: the cells of the next few records are asked for in advance, those in the next leaf as well.

use std::ops::Bound;

use super::{TreeRoot, resolve};
use crate::arena::Arena;
use crate::error::Fault;
use crate::page::{ChildRef, Value, View};

/// Records whose cells are asked for in advance: as many as are handed out while memory answers.
const AHEAD: usize = 12;

/// Bytes that the cells of the first records are taken to have.
const CELL_BYTES_FIRST: usize = 64;

/// Bytes of a cell that are asked for in advance, at most.
const CELL_BYTES_AHEAD_MAX: usize = 256;

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
    ahead: Ahead<'a>,
}

/// What a cursor asks for in advance.
struct Ahead<'a> {
    /// The cursor's leaf or the one after it; `None` if that is not known or not in memory.
    leaf: Option<View<'a>>,
    /// Slots of the leaf whose cells were not asked for yet.
    start: usize,
    end: usize,
    /// Bytes of the last record's cell: the others are taken to be alike.
    cell_bytes: usize,
}

impl Ahead<'_> {
    /// Asks for one more cell of the leaf; `false` if it has none.
    #[inline(always)]
    fn prefetch(&mut self, reverse: bool) -> bool {
        let Some(leaf) = self.leaf.filter(|_| self.start < self.end) else { return false };
        let index = if reverse { self.end - 1 } else { self.start };
        if reverse {
            self.end -= 1;
        } else {
            self.start += 1;
        }
        leaf.prefetch_cell(index, self.cell_bytes);
        true
    }
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
        let ahead = Ahead { leaf: None, start: 0, end: 0, cell_bytes: CELL_BYTES_FIRST };
        let (path, leaf, last, fault) = (Vec::new(), None, true, None);
        let mut cursor = TreeCursor { arena, path, leaf, start: 0, end: 0, far, reverse, last, fault, ahead };
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
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(&'a [u8], &'a [u8])>, Fault> {
        if self.start == self.end && !self.fill()? {
            return Ok(None);
        }
        let index = if self.reverse {
            self.end -= 1;
            self.end
        } else {
            self.start += 1;
            self.start - 1
        };
        let (key, value) = self.leaf.expect("slots are of a leaf").record(index);
        if !self.ahead.prefetch(self.reverse) {
            self.look_ahead();
        }
        if let Value::Inline(value) = value {
            self.ahead.cell_bytes = (key.len() + value.len()).clamp(1, CELL_BYTES_AHEAD_MAX);
        }
        Ok(Some((key, resolve(self.arena, value)?)))
    }

    /// Goes to the next leaf that has records of the range; `false` if there is none.
    #[cold]
    fn fill(&mut self) -> Result<bool, Fault> {
        while self.start == self.end {
            if let Some(fault) = self.fault.take() {
                self.last = true;
                return Err(fault);
            }
            if self.last {
                return Ok(false);
            }
            if let Err(fault) = self.step_leaf() {
                self.last = true;
                return Err(fault);
            }
        }
        Ok(true)
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
        self.ask_ahead();
        Ok(())
    }

    /// Takes a leaf with what is in the range, as far as the far end of the range says.
    fn enter(&mut self, leaf: View<'a>) {
        self.leaf = Some(leaf);
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

    /// Asks for what is needed first of the leaf that was taken, and for where the next one begins.
    fn ask_ahead(&mut self) {
        if !self.is_ahead_in_leaf() {
            self.ahead = Ahead { leaf: self.leaf, start: self.start, end: self.end, ..self.ahead };
            for _ in 0..AHEAD {
                self.ahead.prefetch(self.reverse);
            }
        }
        if let Some(next) = self.neighbour() {
            self.arena.prefetch(next);
        }
    }

    /// Has the cells of the next leaf asked for, once those of this one were.
    #[cold]
    fn look_ahead(&mut self) {
        if self.is_ahead_in_leaf() {
            let leaf = self.neighbour().and_then(|next| self.arena.resident(next));
            self.ahead = Ahead { leaf, start: 0, end: leaf.map_or(0, View::count), ..self.ahead };
            self.ahead.prefetch(self.reverse);
        }
    }

    fn is_ahead_in_leaf(&self) -> bool {
        self.ahead.leaf.zip(self.leaf).is_some_and(|(ahead, leaf)| std::ptr::eq(ahead.bytes(), leaf.bytes()))
    }

    /// The leaf after this one, if both have the same parent and the range goes on.
    fn neighbour(&self) -> Option<ChildRef> {
        let (branch, index) = self.path.last().filter(|_| !self.last)?;
        let next = if self.reverse { index.wrapping_sub(1) } else { index + 1 };
        (next < branch.count()).then(|| branch.child(next))
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
            self.ask_ahead();
            return Ok(());
        }
        self.last = true;
        Ok(())
    }
}

fn after(found: Result<usize, usize>) -> usize {
    found.map_or_else(|index| index, |index| index + 1)
}
