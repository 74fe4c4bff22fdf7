//! Versions and the pages they keep.
//!
//! A version that somebody holds (a fork's head, a snapshot, a pin of the history, the base of a writer) is a node of a
//! forest: under it hang the versions that were made from it. There are no reference counts on pages. Instead each node
//! has a *dead list*: the pages its predecessor reaches and it does not. Since a page's birth is above the stamps of
//! all versions older than it, births say who else may reach a page:
//!
//! - A node that nobody holds and that has one successor is dropped: of the successor's dead list, the pages born after
//!   the node's predecessor were reached by the node alone, and are freed. The others join the node's own dead list,
//!   which becomes the successor's.
//! - A node that nobody holds and that has no successor is dropped: its pages born after its predecessor are freed;
//!   they are found by walking its trees, past children that are older.
//! - A node that nobody holds and that has several successors stays until one of the others applies.
//!
//! So dropping works in any order, parents first included, and costs what it frees. Publishing makes a node and lets go
//! of the one before, so memory is given back as soon as no held version reaches it, however long other versions are
//! held.
//!
//! Invariants ([`Pages::check`] tests them):
//! - The stamps of a version's pages are at most its own, and those born in it are above its predecessor's.
//! - A dead list has the pages that the predecessor reaches and the node does not, no more and no less.
//! - Pages that any node or draft reaches = allocated pages - free pages - pages that drafts have in stock.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::arena::{Arena, MakeFile};
use crate::draft::{Draft, EditError};
use crate::ids::KeyspaceId;
use crate::overlay::Overlay;
use crate::page::{PAGE_BYTES, PageId, Stamp};
use crate::tree::{TreeRoot, meter, walk};

mod check;

pub use check::PageCheck;

/// The trees of a version by keyspace, sorted. There are a few per table, so the list is small enough to be copied when
/// a version is published.
pub(crate) type Trees = Arc<[(KeyspaceId, TreeRoot)]>;

/// The pages of a store and the versions that reach them.
pub(crate) struct Pages {
    pub(crate) arena: Arena,
    last_stamp: AtomicU64,
    forest: Mutex<Forest>,
    /// Pages that could not be freed because the pages that lead to them cannot be read.
    lost_pages: AtomicU64,
}

/// A page or run that a version reaches and the one after it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dead {
    pub(crate) id: PageId,
    pub(crate) pages: u32,
    pub(crate) birth: Stamp,
}

/// An immutable state: held as long as it is reachable from here.
pub(crate) struct Frozen {
    pages: Arc<Pages>,
    node: NodeId,
    stamp: Stamp,
    trees: Trees,
    /// What holds before the trees do.
    overlay: Option<Arc<Overlay>>,
}

type NodeId = u32;
const NO_NODE: NodeId = NodeId::MAX;

struct Node {
    stamp: Stamp,
    held: bool,
    /// The version this one was made from, or an older one if that was dropped.
    previous: NodeId,
    /// One of the versions made from this one; they are chained through `left` and `right`.
    first: NodeId,
    left: NodeId,
    right: NodeId,
    dead: Vec<Dead>,
    /// `None` of a node that is not used.
    trees: Option<Trees>,
}

#[derive(Default)]
struct Forest {
    nodes: Vec<Node>,
    unused: Vec<NodeId>,
    /// What states out of images hang under, the one with the highest stamp last.
    imported: Vec<NodeId>,
}

/// What dropping nodes set free.
#[derive(Default)]
struct Freed {
    /// A whole dead list, most of the time the only one.
    dead: Vec<Dead>,
    pages: Vec<(PageId, u32)>,
    /// Trees of which everything born after the stamp is free.
    walks: Vec<(Trees, Stamp)>,
}

impl Pages {
    pub(crate) fn new(arena: Arena) -> Arc<Pages> {
        Arc::new(Pages {
            arena,
            last_stamp: AtomicU64::new(0),
            forest: Mutex::default(),
            lost_pages: AtomicU64::new(0),
        })
    }

    /// Reserves addresses for that many bytes, of which about `memory_bytes` are in memory and the others in a file.
    pub(crate) fn reserve(bytes: u64, memory_bytes: u64, make: MakeFile) -> io::Result<Arc<Pages>> {
        Ok(Pages::new(Arena::reserve_within(bytes, memory_bytes, make)?))
    }

    /// A stamp above all others.
    pub(crate) fn next_stamp(&self) -> Stamp {
        // Only the number matters: what is published under it is handed on by locks.
        Stamp::new(self.last_stamp.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Makes stamps rise from above `stamp` on, which pages from elsewhere have.
    pub(crate) fn raise_stamp(&self, stamp: Stamp) {
        self.last_stamp.fetch_max(stamp.get(), Ordering::Relaxed);
    }

    /// The empty state, without a predecessor.
    pub(crate) fn empty(self: &Arc<Pages>) -> Arc<Frozen> {
        self.add(NO_NODE, Stamp::default(), Arc::default(), None, Vec::new())
    }

    /// A state out of an image, whose pages were born at or before `stamp`. They belong to a version that is held as
    /// long as the pages are: what becomes of the state, they stay, and absent ones take no memory.
    pub(crate) fn import(self: &Arc<Pages>, stamp: Stamp, trees: Trees) -> Arc<Frozen> {
        self.raise_stamp(stamp);
        let base = {
            let mut forest = self.forest.lock();
            let known = forest.imported.last().copied().filter(|id| forest.nodes[*id as usize].stamp >= stamp);
            known.unwrap_or_else(|| {
                let id = forest.insert(NO_NODE, stamp, Arc::default(), Vec::new());
                forest.imported.push(id);
                id
            })
        };
        self.add(base, self.next_stamp(), trees, None, Vec::new())
    }

    /// The state that was made from `base`; `dead` is what it no longer reaches.
    pub(crate) fn freeze(
        self: &Arc<Pages>,
        base: &Frozen,
        stamp: Stamp,
        trees: Trees,
        overlay: Option<Arc<Overlay>>,
        dead: Vec<Dead>,
    ) -> Arc<Frozen> {
        assert!(stamp > base.stamp, "a version is younger than its base");
        self.add(base.node, stamp, trees, overlay, dead)
    }

    fn add(
        self: &Arc<Pages>,
        previous: NodeId,
        stamp: Stamp,
        trees: Trees,
        overlay: Option<Arc<Overlay>>,
        dead: Vec<Dead>,
    ) -> Arc<Frozen> {
        let node = self.forest.lock().insert(previous, stamp, Arc::clone(&trees), dead);
        Arc::new(Frozen { pages: Arc::clone(self), node, stamp, trees, overlay })
    }

    fn release(&self, node: NodeId) {
        let mut freed = Freed::default();
        self.forest.lock().release(node, &mut freed);
        self.free(freed);
    }

    fn free(&self, mut freed: Freed) {
        for (trees, after) in &freed.walks {
            let lost = walk::collect(&self.arena, trees, *after, &mut freed.pages);
            self.lost_pages.fetch_add(lost, Ordering::Relaxed);
        }
        self.free_pages(freed.dead.iter().map(|dead| (dead.id, dead.pages)));
        self.free_pages(freed.pages.iter().copied());
    }

    /// Frees everything in `trees` that was born after a stamp; nobody else reaches it.
    pub(crate) fn free_born_after(&self, trees: &Trees, stamp: Stamp) {
        self.free(Freed { walks: vec![(Arc::clone(trees), stamp)], ..Freed::default() });
    }

    fn free_pages(&self, pages: impl ExactSizeIterator<Item = (PageId, u32)> + Clone) {
        if pages.len() > 0 {
            meter::free(pages.clone().map(|(_, count)| count as usize * PAGE_BYTES).sum());
            self.arena.free(pages);
        }
    }

    /// Number of versions that are kept.
    pub(crate) fn versions(&self) -> u64 {
        let forest = self.forest.lock();
        (forest.nodes.len() - forest.unused.len()) as u64
    }
}

impl Frozen {
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    pub(crate) fn pages(&self) -> &Arc<Pages> {
        &self.pages
    }

    pub(crate) fn trees(&self) -> &Trees {
        &self.trees
    }

    pub(crate) fn overlay(&self) -> Option<&Arc<Overlay>> {
        self.overlay.as_ref()
    }

    /// The same state with everything in the trees.
    pub(crate) fn folded(self: &Arc<Frozen>) -> Result<Arc<Frozen>, EditError> {
        if self.overlay.is_none() {
            return Ok(Arc::clone(self));
        }
        let mut draft = Draft::new(Arc::clone(self), false);
        draft.fold()?;
        Ok(draft.freeze())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.pages.release(self.node);
    }
}

impl Forest {
    fn insert(&mut self, previous: NodeId, stamp: Stamp, trees: Trees, dead: Vec<Dead>) -> NodeId {
        let (first, left, right, trees) = (NO_NODE, NO_NODE, NO_NODE, Some(trees));
        let node = Node { stamp, held: true, previous, first, left, right, dead, trees };
        let id = match self.unused.pop() {
            Some(id) => {
                self.nodes[id as usize] = node;
                id
            }
            None => {
                self.nodes.push(node);
                NodeId::try_from(self.nodes.len() - 1).expect("versions are far fewer than 2^32")
            }
        };
        self.link(id, previous);
        id
    }

    fn link(&mut self, id: NodeId, previous: NodeId) {
        self.nodes[id as usize].previous = previous;
        self.nodes[id as usize].left = NO_NODE;
        self.nodes[id as usize].right = NO_NODE;
        if previous == NO_NODE {
            return;
        }
        let first = std::mem::replace(&mut self.nodes[previous as usize].first, id);
        if first != NO_NODE {
            self.nodes[id as usize].right = first;
            self.nodes[first as usize].left = id;
        }
    }

    fn unlink(&mut self, id: NodeId) {
        let Node { previous, left, right, .. } = self.nodes[id as usize];
        if right != NO_NODE {
            self.nodes[right as usize].left = left;
        }
        if left != NO_NODE {
            self.nodes[left as usize].right = right;
        } else if previous != NO_NODE {
            self.nodes[previous as usize].first = right;
        }
    }

    /// Nobody holds the node any more.
    fn release(&mut self, node: NodeId, freed: &mut Freed) {
        assert!(self.nodes[node as usize].held, "a version is released once");
        self.nodes[node as usize].held = false;
        let mut id = node;
        while id != NO_NODE && !self.nodes[id as usize].held {
            let Node { previous, first, stamp: _, .. } = self.nodes[id as usize];
            let after = self.stamp(previous);
            if first == NO_NODE {
                self.unlink(id);
                let trees = self.forget(id);
                if trees.iter().any(|(_, tree)| !tree.is_empty() && tree.page.birth > after) {
                    freed.walks.push((trees, after));
                }
                id = previous;
            } else {
                if self.nodes[first as usize].right == NO_NODE {
                    self.merge(id, first, after, freed);
                }
                break;
            }
        }
    }

    /// Drops `id` and makes its only successor the successor of its predecessor, whose stamp is `after`.
    fn merge(&mut self, id: NodeId, successor: NodeId, after: Stamp, freed: &mut Freed) {
        let mut kept = std::mem::take(&mut self.nodes[id as usize].dead);
        let mut dead = std::mem::take(&mut self.nodes[successor as usize].dead);
        dead.retain(|dead| {
            let is_free = dead.birth > after;
            if !is_free {
                kept.push(*dead);
            }
            is_free
        });
        if freed.dead.is_empty() {
            freed.dead = dead;
        } else {
            freed.pages.extend(dead.iter().map(|dead| (dead.id, dead.pages)));
        }
        self.nodes[successor as usize].dead = kept;
        let previous = self.nodes[id as usize].previous;
        self.unlink(successor);
        self.unlink(id);
        self.link(successor, previous);
        self.forget(id);
    }

    fn stamp(&self, id: NodeId) -> Stamp {
        if id == NO_NODE { Stamp::default() } else { self.nodes[id as usize].stamp }
    }

    /// Makes a node unused, which is linked to no other; returns its trees.
    fn forget(&mut self, id: NodeId) -> Trees {
        self.unused.push(id);
        let node = &mut self.nodes[id as usize];
        node.dead = Vec::new();
        node.trees.take().expect("a node is used until it is forgotten")
    }

    fn live(&self) -> impl Iterator<Item = &Node> {
        let mut used = vec![true; self.nodes.len()];
        self.unused.iter().for_each(|id| used[*id as usize] = false);
        self.nodes.iter().zip(used).filter_map(|(node, used)| used.then_some(node))
    }
}
