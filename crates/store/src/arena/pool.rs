//! Which places of the arena are free.
//!
//! Single pages come and go all the time: a stack of ids. Runs of several pages are rare: extents by start, joined with
//! their neighbours when they are freed, the smallest that fits taken first. What neither has is taken from the end of
//! what was ever used.

use std::collections::{BTreeMap, BTreeSet};

use crate::page::PageId;

/// Freed runs from this many pages on give their memory back at once: a call to the system per 64 KiB does not show.
pub(super) const GIVE_BACK_PAGES_MIN: u32 = 16;

pub(super) struct Pool {
    /// Single free pages with memory behind them.
    pub(super) warm: Vec<PageId>,
    /// Single free pages whose memory was given back.
    pub(super) cold: Vec<PageId>,
    /// Free runs: pages by start, and the same by size.
    extents: BTreeMap<u32, u32>,
    by_size: BTreeSet<(u32, u32)>,
    extent_pages: u32,
    /// The first page that was never used.
    pub(super) fresh: u32,
    /// Up to where memory is open, in bytes.
    pub(super) open_bytes: usize,
    /// Bytes handed out in the file behind the budget since its memory was given back.
    pub(super) backed_bytes: u64,
}

impl Pool {
    pub(super) fn new() -> Pool {
        Pool {
            warm: Vec::new(),
            cold: Vec::new(),
            extents: BTreeMap::new(),
            by_size: BTreeSet::new(),
            extent_pages: 0,
            fresh: PageId::NONE.get() + 1,
            open_bytes: 0,
            backed_bytes: 0,
        }
    }

    pub(super) fn free_pages(&self) -> u32 {
        (self.warm.len() + self.cold.len()) as u32 + self.extent_pages
    }

    /// A single page that was used before.
    pub(super) fn take_used(&mut self) -> Option<PageId> {
        self.warm.pop().or_else(|| self.cold.pop()).or_else(|| self.take_extent(1))
    }

    /// The smallest extent that has `pages`, less what it has more.
    pub(super) fn take_extent(&mut self, pages: u32) -> Option<PageId> {
        let (size, start) = *self.by_size.range((pages, 0)..).next()?;
        self.remove_extent(start, size);
        if size > pages {
            self.insert_extent(start + pages, size - pages);
        }
        Some(PageId::new(start))
    }

    /// Takes back a run.
    pub(super) fn put_extent(&mut self, id: PageId, pages: u32) {
        let (mut start, mut size) = (id.get(), pages);
        if let Some((&before, &before_size)) = self.extents.range(..start).next_back()
            && before + before_size == start
        {
            self.remove_extent(before, before_size);
            (start, size) = (before, before_size + size);
        }
        if let Some(&after_size) = self.extents.get(&(start + size)) {
            self.remove_extent(start + size, after_size);
            size += after_size;
        }
        self.insert_extent(start, size);
    }

    fn insert_extent(&mut self, start: u32, size: u32) {
        let before = self.extents.insert(start, size);
        assert!(before.is_none(), "a run is freed once");
        self.by_size.insert((size, start));
        self.extent_pages += size;
    }

    fn remove_extent(&mut self, start: u32, size: u32) {
        assert_eq!(self.extents.remove(&start), Some(size), "both indexes of extents agree");
        self.by_size.remove(&(size, start));
        self.extent_pages -= size;
    }

    /// Every free page, for the liveness check.
    pub(super) fn for_each_free(&self, visit: &mut dyn FnMut(PageId)) {
        self.warm.iter().chain(&self.cold).for_each(|id| visit(*id));
        for (start, size) in &self.extents {
            (*start..start + size).for_each(|id| visit(PageId::new(id)));
        }
    }
}
