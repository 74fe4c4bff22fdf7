//! A state that is being changed.
//!
//! A draft begins as its base. The first change to a page copies it, and the pages above it, to pages born at the
//! draft's stamp; those it edits in place from then on. Pages that it no longer reaches go to its dead list, or are
//! freed at once if they are its own. Freezing makes the state a version and the draft one without changes on top of it.

use std::sync::Arc;

use crate::arena::{Arena, ArenaFull};
use crate::error::Fault;
use crate::ids::KeyspaceId;
use crate::overlay::{Overlaid, Overlay};
use crate::page::{Body, ChildRef, Edit, PAGE_BYTES, PageId, RECORD_INLINE_BYTES_MAX, RunRef, Stamp, View, run_pages};
use crate::tree::{self, Displaced, TreeRoot};
use crate::versions::{Dead, Frozen, Pages, Trees};

/// Pages taken from the arena at a time, at most, beyond those that are needed now.
const STOCK_PAGES: u64 = 16;

/// A state that is being changed; see the module.
pub(crate) struct Draft {
    base: Arc<Frozen>,
    trees: Vec<(KeyspaceId, TreeRoot)>,
    /// What holds before the trees do.
    overlay: Option<Arc<Overlay>>,
    /// Whether writes may go to the overlay: until it was full once.
    overlays: bool,
    /// Whether anything was written since the base.
    written: bool,
    work: Workspace,
}

/// Where a draft's pages come from and go to.
pub(crate) struct Workspace {
    pages: Arc<Pages>,
    /// Of the pages made now; the default until there is a change.
    stamp: Stamp,
    dead: Vec<Dead>,
    /// Pages, runs' included, that were made since and are still in use.
    made: u64,
    /// Pages that were handed out for the next changes.
    stock: Vec<PageId>,
    /// Whether pages that are kept for undoing may be used.
    undoing: bool,
    /// The way of the present change; kept for its memory.
    pub(crate) path: Vec<(ChildRef, usize)>,
    /// Stamp of the last pin, and bytes that changes left to it.
    pin: Stamp,
    displaced_bytes: u64,
}

/// Why a change was refused. Nothing changed.
#[derive(Clone, Debug)]
pub(crate) enum EditError {
    Fault(Fault),
    /// The arena has no more room.
    Full,
}

impl From<Fault> for EditError {
    fn from(fault: Fault) -> EditError {
        EditError::Fault(fault)
    }
}

impl From<ArenaFull> for EditError {
    fn from(ArenaFull: ArenaFull) -> EditError {
        EditError::Full
    }
}

impl Draft {
    /// A draft on `base`; `overlays` lets it keep its first few writes beside the trees.
    pub(crate) fn new(base: Arc<Frozen>, overlays: bool) -> Draft {
        let work = Workspace {
            pages: Arc::clone(base.pages()),
            stamp: Stamp::default(),
            dead: Vec::new(),
            made: 0,
            stock: Vec::new(),
            undoing: false,
            path: Vec::new(),
            pin: Stamp::default(),
            displaced_bytes: 0,
        };
        let overlay = base.overlay().cloned();
        Draft { trees: base.trees().to_vec(), base, overlay, overlays, written: false, work }
    }

    pub(crate) fn arena(&self) -> &Arena {
        &self.work.pages.arena
    }

    /// Trees by keyspace.
    pub(crate) fn trees(&self) -> &[(KeyspaceId, TreeRoot)] {
        &self.trees
    }

    pub(crate) fn overlay(&self) -> Option<&Overlay> {
        self.overlay.as_deref()
    }

    /// Whether writes may go to the overlay.
    pub(crate) fn overlays(&self) -> bool {
        self.overlays
    }

    /// From now on, bytes left to versions of that stamp and before are counted.
    pub(crate) fn set_pin(&mut self, pin: Stamp) {
        self.work.pin = pin;
    }

    /// Bytes that changes left to the pin since the last call.
    pub(crate) fn take_displaced_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.work.displaced_bytes)
    }

    /// Sets or, with `None`, removes the value of `key`. The bytes of a small value that was there are appended to `old`.
    pub(crate) fn write(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        value: Option<&[u8]>,
        old: &mut Vec<u8>,
    ) -> Result<Displaced, EditError> {
        if self.overlays
            && let Some(displaced) = self.write_over(keyspace, key, value, old)?
        {
            return Ok(displaced);
        }
        if self.overlay.is_some() {
            self.fold()?;
        }
        self.overlays = false;
        self.written = true;
        self.write_tree(keyspace, key, value, old)
    }

    /// Writes to the overlay; `None` if there is no room.
    fn write_over(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        value: Option<&[u8]>,
        old: &mut Vec<u8>,
    ) -> Result<Option<Displaced>, EditError> {
        let overlaid = self.overlay.as_ref().and_then(|overlay| overlay.get(keyspace, key));
        let in_tree = match overlaid {
            Some(_) => None,
            None => self.tree_get(keyspace, key)?,
        };
        let before = overlaid.map_or(in_tree, Overlaid::value);
        if before == value {
            return Ok(Some(if value.is_some() { Displaced::Same } else { Displaced::Nothing }));
        }
        let displaced = match before {
            None => Displaced::Nothing,
            Some(bytes) if bytes.len() <= RECORD_INLINE_BYTES_MAX => {
                old.extend_from_slice(bytes);
                Displaced::Inline
            }
            Some(bytes) => Displaced::Large(Arc::from(bytes)),
        };
        let (in_tree, start) = (
            in_tree.is_some(),
            old.len() - before.filter(|_| matches!(displaced, Displaced::Inline)).map_or(0, <[u8]>::len),
        );
        let overlay = Arc::make_mut(self.overlay.get_or_insert_default());
        if !overlay.set(keyspace, key, value, in_tree) {
            old.truncate(start);
            return Ok(None);
        }
        self.written = true;
        Ok(Some(displaced))
    }

    fn tree_get(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<&[u8]>, Fault> {
        match self.trees.binary_search_by_key(&keyspace, |(id, _)| *id) {
            Ok(index) => self.trees[index].1.get(self.arena(), key),
            Err(_) => Ok(None),
        }
    }

    /// Writes the overlay to the trees. If that fails halfway, the rest stays overlaid, and the state is the same.
    pub(crate) fn fold(&mut self) -> Result<(), EditError> {
        let Some(mut overlay) = self.overlay.take() else { return Ok(()) };
        self.written = true;
        let mut result = Ok(());
        let mut replaced = Vec::new();
        while let Some((keyspace, key, value)) = overlay.last() {
            replaced.clear();
            if let Err(error) = self.write_tree(keyspace, key, value.value(), &mut replaced) {
                result = Err(error);
                break;
            }
            Arc::make_mut(&mut overlay).pop();
        }
        self.overlay = Some(overlay).filter(|overlay| !overlay.is_empty());
        result
    }

    fn write_tree(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        value: Option<&[u8]>,
        old: &mut Vec<u8>,
    ) -> Result<Displaced, EditError> {
        self.work.begin();
        match value {
            Some(value) => {
                let tree = match self.trees.binary_search_by_key(&keyspace, |(id, _)| *id) {
                    Ok(index) => &mut self.trees[index].1,
                    Err(index) => {
                        self.trees.insert(index, (keyspace, TreeRoot::default()));
                        &mut self.trees[index].1
                    }
                };
                tree::put(&mut self.work, tree, key, value, old)
            }
            None => match self.trees.binary_search_by_key(&keyspace, |(id, _)| *id) {
                Ok(index) => tree::delete(&mut self.work, &mut self.trees[index].1, key, old),
                Err(_) => Ok(Displaced::Nothing),
            },
        }
    }

    /// [`Draft::write`] of a value that was there before, by whoever cannot do without: it may use the pages that are
    /// kept for this.
    ///
    /// # Panics
    /// If a page of the draft is damaged: it is in memory only, so there is nothing to go back to.
    pub(crate) fn write_back(&mut self, keyspace: KeyspaceId, key: &[u8], value: Option<&[u8]>, old: &mut Vec<u8>) {
        self.work.undoing = true;
        let result = self.write(keyspace, key, value, old);
        self.work.undoing = false;
        result.expect("a draft's own pages can be changed");
    }

    /// Makes the state a version; the same one as before if nothing changed since.
    pub(crate) fn freeze(&mut self) -> Arc<Frozen> {
        let work = &mut self.work;
        work.pages.arena.settle(std::mem::take(&mut work.made), &mut work.stock);
        if std::mem::take(&mut self.written) {
            let (stamp, dead) = (std::mem::take(&mut work.stamp), std::mem::take(&mut work.dead));
            let edited = stamp != Stamp::default();
            let stamp = if edited { stamp } else { work.pages.next_stamp() };
            let trees = if edited { Trees::from(&*self.trees) } else { Arc::clone(self.base.trees()) };
            self.base = work.pages.freeze(&self.base, stamp, trees, self.overlay.clone(), dead);
        }
        Arc::clone(&self.base)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let work = &mut self.work;
        work.pages.arena.settle(std::mem::take(&mut work.made), &mut work.stock);
        if work.stamp != Stamp::default() {
            work.pages.free_born_after(&Trees::from(&*self.trees), self.base.stamp());
        }
    }
}

impl Workspace {
    fn begin(&mut self) {
        if self.stamp == Stamp::default() {
            self.stamp = self.pages.next_stamp();
        }
    }

    pub(crate) fn arena(&self) -> &Arena {
        &self.pages.arena
    }

    /// Whether a page is the draft's own.
    pub(crate) fn owns(&self, child: ChildRef) -> bool {
        child.birth == self.stamp
    }

    /// Makes sure that `count` pages can be made.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<(), EditError> {
        if self.stock.len() < count {
            // A small commit takes what it needs, a large one the lock of the pool less often.
            let wanted = count + self.made.min(STOCK_PAGES) as usize - self.stock.len();
            self.pages.arena.allocate(wanted, self.undoing, &mut self.stock)?;
        }
        Ok(())
    }

    fn take(&mut self) -> ChildRef {
        let id = self.stock.pop().expect("pages are reserved before they are made");
        self.made += 1;
        ChildRef { id, birth: self.stamp }
    }

    /// An empty page.
    pub(crate) fn make(&mut self, level: u8) -> ChildRef {
        let child = self.take();
        // SAFETY: the page was handed out to this draft, and nothing refers to it yet.
        Edit::format(unsafe { self.pages.arena.edit(child.id) }, level, child.birth);
        child
    }

    /// A copy of a page that is not the draft's own.
    pub(crate) fn copy(&mut self, from: ChildRef) -> ChildRef {
        assert!(!self.owns(from), "own pages are edited in place");
        let child = self.take();
        // SAFETY: the page was handed out to this draft, and nothing refers to it yet; `from` is reached by the base.
        unsafe { self.pages.arena.copy(from.id, child.id, child.birth) };
        self.retire(from.id, 1, from.birth);
        child
    }

    /// One of the draft's own pages, to change.
    pub(crate) fn edit(&mut self, child: ChildRef) -> Edit<'_> {
        assert!(self.owns(child), "only own pages are changed");
        // SAFETY: the page is this draft's, and the result borrows all of it.
        Edit::new(unsafe { self.pages.arena.edit(child.id) })
    }

    /// One of the draft's own pages.
    pub(crate) fn view(&self, child: ChildRef) -> View<'_> {
        self.pages.arena.page(child).expect("a draft's own pages are as it left them")
    }

    /// What to store for a value: the bytes themselves, or a run that has them.
    pub(crate) fn body<'v>(&mut self, key: &[u8], value: &'v [u8]) -> Result<Body<'v>, EditError> {
        if key.len() + value.len() <= RECORD_INLINE_BYTES_MAX {
            return Ok(Body::Inline(value));
        }
        let pages = run_pages(value.len());
        let id = self.pages.arena.allocate_run(pages, self.undoing)?;
        self.made += u64::from(pages);
        let length = u32::try_from(value.len()).expect("values are bounded by VALUE_BYTES_MAX");
        let run = RunRef { id, length, birth: self.stamp };
        // SAFETY: the run was handed out to this draft, and nothing refers to it yet.
        unsafe { self.pages.arena.write_run(run, value) };
        Ok(Body::Run(run))
    }

    /// The draft no longer reaches a page or run.
    pub(crate) fn retire(&mut self, id: PageId, pages: u32, birth: Stamp) {
        if birth == self.stamp {
            self.made -= u64::from(pages);
            self.pages.arena.free_drafted(id, pages);
            return;
        }
        self.dead.push(Dead { id, pages, birth });
        if birth <= self.pin {
            self.displaced_bytes += u64::from(pages) * PAGE_BYTES as u64;
        }
    }
}
