//! A B+tree of pages: one keyspace of one version.
//!
//! A [`TreeRoot`] is all there is to a tree besides its pages, so copying a tree is copying 24 bytes. A change looks its
//! way up first, refuses what it must refuse, then makes the pages on the way the draft's own and edits the leaf.
//!
//! Invariants ([`walk::check`] tests them):
//! - All leaves are at the same depth; no page is empty; a branch at the root has at least two children.
//! - Child `i` of a branch holds the keys from key `i` (included; for slot 0 anything) to key `i + 1` (excluded).
//! - `length` is the number of records in the leaves.
//!
//! A page that a deletion leaves under a quarter full is joined with a neighbour if both fit into one page with room
//! to spare; there is no other bound on how full a page is.

mod cursor;
mod diff;
mod edit;
pub(crate) mod meter;
pub(crate) mod walk;

use std::sync::Arc;

pub(crate) use cursor::TreeCursor;
pub(crate) use diff::{TreeDiff, TreeDifference};
pub(crate) use edit::{delete, put};

use crate::arena::Arena;
use crate::error::Fault;
use crate::page::{ChildRef, PageId, Value};

/// A tree: its root page and how many records it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TreeRoot {
    /// [`PageId::NONE`] for the empty tree.
    pub(crate) page: ChildRef,
    pub(crate) length: u64,
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

impl TreeRoot {
    pub(crate) fn is_empty(self) -> bool {
        self.page.id == PageId::NONE
    }

    pub(crate) fn get<'a>(self, arena: &'a Arena, key: &[u8]) -> Result<Option<&'a [u8]>, Fault> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut view = arena.page(self.page)?;
        while !view.is_leaf() {
            view = arena.page(view.child(view.child_for(key)))?;
        }
        match view.find(key) {
            Ok(index) => resolve(arena, view.value(index)).map(Some),
            Err(_) => Ok(None),
        }
    }
}

fn resolve<'a>(arena: &'a Arena, value: Value<'a>) -> Result<&'a [u8], Fault> {
    match value {
        Value::Inline(bytes) => Ok(bytes),
        Value::Run(run) => arena.run(run),
    }
}

#[cfg(test)]
mod tests;
