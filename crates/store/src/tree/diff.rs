//! What differs between two trees.
//!
//! Both trees are walked side by side, as rows of subtrees and records in key order. Where both have the same subtree
//! next (the same page, of the same birth), it is skipped unseen; otherwise the higher one is opened, or of two equally
//! high ones the one whose keys begin first. That is right for any two trees, and fast for relatives: what they share
//! is shared as pages, and trees of different shape fall into step again at the next page that both have.
//!
//! A page that was copied and then changed mostly has the same slots as its original, and knows where it was written.
//! Of such a pair only these slots are looked at; of two pages that are not, but have the same slots, those whose bytes
//! differ.

use std::cmp::Ordering;

use super::{TreeRoot, resolve};
use crate::arena::Arena;
use crate::error::Fault;
use crate::page::{ChildRef, SlotSet, Value, View};

/// A key that two trees disagree about, with its value in each.
pub(crate) type TreeDifference<'a> = (&'a [u8], Option<&'a [u8]>, Option<&'a [u8]>);

/// The differences of two trees in key order.
pub(crate) struct TreeDiff<'a> {
    arena: &'a Arena,
    old: Row<'a>,
    new: Row<'a>,
}

/// What is left of a tree.
struct Row<'a> {
    arena: &'a Arena,
    /// Opened pages from the root down.
    open: Vec<Open<'a>>,
    next: Option<Item<'a>>,
}

struct Open<'a> {
    view: View<'a>,
    low: Low<'a>,
    /// The slot that is next.
    index: usize,
    /// If the page is one of a pair, the slots that differ: the others are passed over.
    differing: Option<SlotSet>,
}

/// The key from which on a page has records; `None` is below all keys.
type Low<'a> = Option<&'a [u8]>;

#[derive(Clone, Copy)]
enum Item<'a> {
    Subtree { child: ChildRef, level: u8, low: Low<'a> },
    Record { key: &'a [u8], value: Value<'a> },
}

impl<'a> TreeDiff<'a> {
    pub(crate) fn new(arena: &'a Arena, old: TreeRoot, new: TreeRoot) -> Result<TreeDiff<'a>, Fault> {
        Ok(TreeDiff { arena, old: Row::new(arena, old)?, new: Row::new(arena, new)? })
    }

    pub(crate) fn next(&mut self) -> Result<Option<TreeDifference<'a>>, Fault> {
        let arena = self.arena;
        loop {
            let (old, new) = match (self.old.next, self.new.next) {
                (None, None) => return Ok(None),
                (Some(item), None) => match self.old.take_record(arena, item)? {
                    Some((key, value)) => return Ok(Some((key, Some(resolve(arena, value)?), None))),
                    None => continue,
                },
                (None, Some(item)) => match self.new.take_record(arena, item)? {
                    Some((key, value)) => return Ok(Some((key, None, Some(resolve(arena, value)?)))),
                    None => continue,
                },
                (Some(old), Some(new)) => (old, new),
            };
            if let Some(difference) = self.compare(old, new)? {
                return Ok(Some(difference));
            }
        }
    }

    /// Moves at least one side on; returns a difference if one was found.
    fn compare(&mut self, old: Item<'a>, new: Item<'a>) -> Result<Option<TreeDifference<'a>>, Fault> {
        use Item::{Record, Subtree};
        let arena = self.arena;
        match (old, new) {
            (Subtree { child, level, low }, Subtree { child: new_child, level: new_level, low: new_low }) => {
                if child == new_child {
                    self.old.advance();
                    self.new.advance();
                    return Ok(None);
                }
                // The higher one; of two equally high ones the one that begins first.
                let order = new_level.cmp(&level).then_with(|| low.cmp(&new_low));
                if order == Ordering::Equal {
                    let (view, new_view) = (arena.page(child)?, arena.page(new_child)?);
                    let differing = view.differing_cells(child, new_view, new_child);
                    self.old.open(view, low, differing);
                    self.new.open(new_view, new_low, differing);
                } else if order == Ordering::Less {
                    self.old.enter(arena, child, low)?;
                } else {
                    self.new.enter(arena, new_child, new_low)?;
                }
                Ok(None)
            }
            (Record { key, value }, Subtree { child, low, .. }) => {
                if low.is_some_and(|low| key < low) {
                    self.old.advance();
                    return Ok(Some((key, Some(resolve(arena, value)?), None)));
                }
                self.new.enter(arena, child, low)?;
                Ok(None)
            }
            (Subtree { child, low, .. }, Record { key, value }) => {
                if low.is_some_and(|low| key < low) {
                    self.new.advance();
                    return Ok(Some((key, None, Some(resolve(arena, value)?))));
                }
                self.old.enter(arena, child, low)?;
                Ok(None)
            }
            (Record { key, value }, Record { key: new_key, value: new_value }) => {
                let order = key.cmp(new_key);
                if order != Ordering::Greater {
                    self.old.advance();
                }
                if order != Ordering::Less {
                    self.new.advance();
                }
                match order {
                    Ordering::Less => Ok(Some((key, Some(resolve(arena, value)?), None))),
                    Ordering::Greater => Ok(Some((new_key, None, Some(resolve(arena, new_value)?)))),
                    Ordering::Equal if value == new_value => Ok(None),
                    Ordering::Equal => {
                        let (old, new) = (resolve(arena, value)?, resolve(arena, new_value)?);
                        Ok((old != new).then_some((key, Some(old), Some(new))))
                    }
                }
            }
        }
    }
}

impl<'a> Row<'a> {
    fn new(arena: &'a Arena, tree: TreeRoot) -> Result<Row<'a>, Fault> {
        let mut next = None;
        if !tree.is_empty() {
            let level = arena.page(tree.page)?.level();
            next = Some(Item::Subtree { child: tree.page, level, low: None });
        }
        Ok(Row { arena, open: Vec::new(), next })
    }

    /// The record that is next, or `None` after opening the subtree that is.
    fn take_record(&mut self, arena: &'a Arena, item: Item<'a>) -> Result<Option<(&'a [u8], Value<'a>)>, Fault> {
        match item {
            Item::Record { key, value } => {
                self.advance();
                Ok(Some((key, value)))
            }
            Item::Subtree { child, low, .. } => {
                self.enter(arena, child, low)?;
                Ok(None)
            }
        }
    }

    /// Opens the subtree that is next.
    fn enter(&mut self, arena: &'a Arena, child: ChildRef, low: Low<'a>) -> Result<(), Fault> {
        self.open(arena.page(child)?, low, None);
        Ok(())
    }

    fn open(&mut self, view: View<'a>, low: Low<'a>, differing: Option<SlotSet>) {
        self.open.push(Open { view, low, index: 0, differing });
        self.advance();
    }

    /// Goes on behind what is next.
    fn advance(&mut self) {
        self.next = None;
        while let Some(Open { view, low, index, differing }) = self.open.last_mut() {
            let at = match differing {
                Some(differing) => differing.next_from(*index),
                None => *index,
            };
            if at < view.count() {
                *index = at + 1;
                self.next = Some(if view.is_leaf() {
                    Item::Record { key: view.key(at), value: view.value(at) }
                } else {
                    if let Some(differing) = differing {
                        // The page after this one is needed soon, and would be waited for.
                        let ahead = differing.next_from(*index);
                        if ahead < view.count() {
                            self.arena.prefetch(view.child(ahead));
                        }
                    }
                    let low = if at == 0 { *low } else { Some(view.key(at)) };
                    Item::Subtree { child: view.child(at), level: view.level() - 1, low }
                });
                return;
            }
            self.open.pop();
        }
    }
}
