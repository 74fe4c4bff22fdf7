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
    /// The pair of pages that is compared next, if that is known.
    ahead: Option<Pair<'a>>,
}

/// Two pages over the same range of keys, and the slots in which they differ if they have the same otherwise.
#[derive(Clone, Copy)]
struct Pair<'a> {
    children: [ChildRef; 2],
    views: [View<'a>; 2],
    differing: Option<SlotSet>,
}

impl<'a> Pair<'a> {
    fn open(arena: &'a Arena, children: [ChildRef; 2]) -> Result<Pair<'a>, Fault> {
        let views = [arena.page(children[0])?, arena.page(children[1])?];
        let differing = views[0].differing_cells(children[0], views[1], children[1]);
        Ok(Pair { children, views, differing })
    }

    /// The children in the first slot from `index` on that differs. The pages need not be the ones that were compared.
    fn children_from(&self, index: usize) -> Option<(usize, [ChildRef; 2])> {
        let [old, new] = self.views;
        let at = self.differing?.next_from(index);
        let is_there = old.is_branch() && new.is_branch() && at < old.count().min(new.count());
        is_there.then(|| (at, [old.child(at), new.child(at)]))
    }
}

/// What is left of a tree.
struct Row<'a> {
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
        Ok(TreeDiff { arena, old: Row::new(arena, old)?, new: Row::new(arena, new)?, ahead: None })
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

    /// Asks for the memory that is needed soon, which would be waited for line by line: looks what differs in the pair
    /// after the one that was opened last, and has its first children and the pair after it fetched. What cannot be read
    /// is reported when its turn comes.
    fn look_ahead(&mut self) {
        let arena = self.arena;
        // The pages above the one that was opened: the next pair is in the nearest that has another. Where the rows are
        // out of step it is none, and is not used.
        let next = self.old.open.iter().rev().zip(self.new.open.iter().rev()).skip(1).find_map(|(old, new)| {
            let pair = Pair { children: Default::default(), views: [old.view, new.view], differing: old.differing };
            pair.children_from(old.index).map(|(at, children)| (pair, at, children))
        });
        let Some((parents, at, children)) = next else { return };
        let Ok(pair) = Pair::open(arena, children) else { return };
        let first = pair.children_from(0);
        let after = parents.children_from(at + 1);
        for (_, children) in first.into_iter().chain(after) {
            children.iter().for_each(|child| arena.prefetch(*child));
        }
        self.ahead = Some(pair);
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
                    let children = [child, new_child];
                    let pair = match self.ahead.take().filter(|ahead| ahead.children == children) {
                        Some(pair) => pair,
                        None => Pair::open(arena, children)?,
                    };
                    self.old.open(pair.views[0], low, pair.differing);
                    self.new.open(pair.views[1], new_low, pair.differing);
                    self.look_ahead();
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
        Ok(Row { open: Vec::new(), next })
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
                    let low = if at == 0 { *low } else { Some(view.key(at)) };
                    Item::Subtree { child: view.child(at), level: view.level() - 1, low }
                });
                return;
            }
            self.open.pop();
        }
    }
}
