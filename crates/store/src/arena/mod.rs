//! The arena: where the pages of a store lie.
//!
//! Pages have fixed places in one reserved range of addresses, so an id is an offset and a slice of a page stays valid
//! as long as the page does. Beside them lies one word of state per page, in a range of its own that is backed by
//! memory only where it was written: a store without images pays nothing for it.
//!
//! Contract, which the `unsafe` code of the crate refers to:
//! - *Frozen* pages are read by anyone who holds a version that reaches them, and changed by nobody. They are freed when
//!   no version reaches them ([`crate::versions`]).
//! - A page that was allocated and not yet published is its *owner's*, who alone reads and changes it.
//! - The memory of a page goes away and comes back (eviction) only with identical content, and only by means that keep
//!   slices valid or while nobody reads: of those behind the memory budget, which a file holds, at any time
//!   ([`memory`]); see also [`Arena::evict`].
//!
//! Every access names the birth it expects. A page with another one is either absent, and then the [`Pager`] brings it,
//! or damaged, and then the access is a [`Fault`].

mod memory;
mod pool;

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::Fault;
use crate::page::{
    BIRTH, ChildRef, Edit, PAGE_BYTES, PAGE_HEADER_BYTES, PageBytes, PageId, PageKind, RunRef, Stamp, View,
};
pub(crate) use memory::MakeFile;
use memory::Memory;
use pool::{GIVE_BACK_PAGES_MIN, Pool};

/// Pages that only undoing may use, so that a transaction that finds the arena full can be rolled back: more than the
/// splits of a tree of any depth, and a share of the whole because a transaction is bounded by the log's record.
const EMERGENCY_SHARE: u32 = 64;

/// The least reservation in pages: one step of growth.
const PAGES_MIN: usize = 256;

/// Pages that the file behind the budget gets room for at a time: one call to the system per megabyte.
const BACKED_PAGES: u32 = 256;

/// Free single pages that keep their memory: what is freed now is mostly used again soon.
const WARM_PAGES_MIN: usize = 1024;

/// What a machine is taken to have that does not say.
const MEMORY_BYTES_UNKNOWN: u64 = 16 << 30;

/// Overwrites freed pages so that whoever still reads one notices. In builds with assertions only.
const POISON: u8 = 0xDD;

/// Brings absent pages; the images' side of the arena.
pub(crate) trait Pager: Send + Sync {
    /// Makes the page, or all pages of the run, at `id` readable: fills it with [`Arena::load`], or maps it. Called by
    /// any number of readers at once, also for one page. When it returns, the birth is checked again.
    ///
    /// # Errors
    /// The image cannot be read, or what it holds is not the page.
    fn fault_in(&self, arena: &Arena, id: PageId, birth: Stamp) -> Result<(), Fault>;
}

/// The state word of a page. A page that was never part of an image has the word 0: resident and nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageState(u64);

impl PageState {
    /// The page is not in memory; the image has it.
    pub(crate) const ABSENT: u64 = 1;
    /// The page is in an image as it is in memory: it is clean, and may be evicted.
    pub(crate) const IMAGED: u64 = 2;
    /// Where the image's location begins; what its 60 bits mean, the images say.
    pub(crate) const LOCATION_SHIFT: u32 = 4;

    /// Of a page that is in an image at `location`.
    pub(crate) fn imaged(location: u64, absent: bool) -> PageState {
        assert!(location < 1 << (64 - PageState::LOCATION_SHIFT), "locations have 60 bits");
        let absent = if absent { PageState::ABSENT } else { 0 };
        PageState(location << PageState::LOCATION_SHIFT | PageState::IMAGED | absent)
    }

    pub(crate) fn is_absent(self) -> bool {
        self.0 & PageState::ABSENT != 0
    }

    /// Where in an image the page is, if it is in one.
    pub(crate) fn location(self) -> Option<u64> {
        (self.0 & PageState::IMAGED != 0).then_some(self.0 >> PageState::LOCATION_SHIFT)
    }
}

/// The pages of a store.
pub(crate) struct Arena {
    memory: Memory,
    states: OnceLock<Memory>,
    /// How many of the state words are open, in bytes.
    states_open: Mutex<usize>,
    /// Whether any state word was ever set.
    has_states: AtomicBool,
    pool: Mutex<Pool>,
    /// Pages that were handed out and belong to no version yet. A count and no more: nothing is decided by it.
    drafted: AtomicU64,
    /// Pages whose memory is open, with page 0: a damaged reference must not lead beyond.
    open_pages: AtomicU32,
    /// Pages there may be, with page 0, which is none.
    limit: u32,
    /// About as much memory as pages may take.
    memory_bytes: u64,
    pager: OnceLock<Box<dyn Pager>>,
    /// Places that images have: first page and number of pages.
    images: Mutex<Vec<(u32, u32)>>,
}

/// There is no place for another page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ArenaFull;

/// Counts of pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ArenaStats {
    /// Handed out and not taken back.
    pub(crate) allocated: u64,
    /// Of these, those that belong to no version yet.
    pub(crate) drafted: u64,
    /// Taken back.
    pub(crate) free: u64,
    /// That can be handed out in all.
    pub(crate) limit: u64,
}

impl Arena {
    /// Reserves addresses for pages of that many bytes, or fewer if the system has no more.
    pub(crate) fn reserve(bytes: u64) -> io::Result<Arena> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX >> 1).min(u32::MAX as usize * PAGE_BYTES);
        Ok(Arena::over(Memory::reserve(bytes, PAGES_MIN * PAGE_BYTES)?))
    }

    /// An arena in plain memory.
    #[cfg(test)]
    pub(crate) fn heap(pages: usize) -> Arena {
        Arena::over(Memory::heap(pages * PAGE_BYTES))
    }

    fn over(memory: Memory) -> Arena {
        let limit = u32::try_from(memory.reserved_bytes() / PAGE_BYTES).expect("reservations are bounded by ids");
        Arena {
            memory,
            states: OnceLock::new(),
            states_open: Mutex::new(0),
            has_states: AtomicBool::new(false),
            pool: Mutex::new(Pool::new()),
            drafted: AtomicU64::new(0),
            open_pages: AtomicU32::new(0),
            limit,
            memory_bytes: u64::MAX,
            pager: OnceLock::new(),
            images: Mutex::default(),
        }
    }

    /// [`Arena::reserve`], where only about `memory_bytes` of the pages are memory of the process. The others lie in a file.
    pub(crate) fn reserve_within(bytes: u64, memory_bytes: u64, make: MakeFile) -> io::Result<Arena> {
        let mut arena = Arena::reserve(bytes)?;
        arena.memory.back_with(usize::try_from(memory_bytes).unwrap_or(usize::MAX / 2), make);
        arena.memory_bytes = memory_bytes;
        Ok(arena)
    }

    /// The file of the pages that have no memory of the process, if there can be one. Each has the offset of its place.
    pub(crate) fn backing_file(&self) -> Option<std::sync::Arc<std::fs::File>> {
        self.memory.backing().map(|(_, file)| file)
    }

    /// Whoever brings absent pages; set once.
    pub(crate) fn set_pager(&self, pager: Box<dyn Pager>) {
        assert!(self.pager.set(pager).is_ok(), "an arena has one pager");
    }

    fn address(&self, id: PageId) -> *mut u8 {
        assert!(id.get() < self.limit, "ids are the arena's");
        // SAFETY: inside of the reservation.
        unsafe { self.memory.base().add(id.get() as usize * PAGE_BYTES) }
    }

    fn view(&self, id: PageId) -> View<'_> {
        // SAFETY: the page is inside of the reservation and open, since its id was handed out (contract: callers hold
        // a version, or own the page, that refers to it; it is not changed while the view is used).
        View::new(unsafe { &*self.address(id).cast::<PageBytes>() })
    }

    /// The birth in a page's header, if there is such a page. What lies there need not be a page, and another thread may
    /// be loading it.
    fn birth_of(&self, id: PageId) -> Option<Stamp> {
        // SYNC: pairs with the store in `take_fresh`.
        if id.get() >= self.open_pages.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: inside of the reservation and open; all access that may coincide with this one is atomic.
        // SYNC: pairs with the store in `load`, which comes after the rest of the page.
        let birth = unsafe { (*self.address(id).add(BIRTH).cast::<AtomicU64>()).load(Ordering::Acquire) };
        Some(Stamp::new(u64::from_le(birth)))
    }

    /// The page that a slot refers to. The caller holds a version that reaches it, or owns it.
    ///
    /// # Errors
    /// It is damaged, or absent and cannot be brought.
    #[inline]
    pub(crate) fn page(&self, child: ChildRef) -> Result<View<'_>, Fault> {
        if self.birth_of(child.id) == Some(child.birth) {
            let view = self.view(child.id);
            view.prefetch();
            if view.is_leaf() || view.is_branch() {
                return Ok(view);
            }
        }
        self.missing(child.id, child.birth)?;
        let view = self.view(child.id);
        if view.is_leaf() || view.is_branch() { Ok(view) } else { Err(Fault::corrupt_page(child.id, child.birth)) }
    }

    /// The page that a slot refers to, if it is in memory. As for [`Arena::page`] otherwise.
    pub(crate) fn resident(&self, child: ChildRef) -> Option<View<'_>> {
        let view = (self.birth_of(child.id) == Some(child.birth)).then(|| self.view(child.id))?;
        (view.is_leaf() || view.is_branch()).then_some(view)
    }

    /// Asks for the memory where a page begins.
    pub(crate) fn prefetch(&self, child: ChildRef) {
        if child.id.get() < self.open_pages.load(Ordering::Relaxed) {
            // Only an address is made of the page: it may be absent.
            View::prefetch_at(self.address(child.id));
        }
    }

    /// Asks for all the memory of a page.
    pub(crate) fn prefetch_whole(&self, child: ChildRef) {
        if child.id.get() < self.open_pages.load(Ordering::Relaxed) {
            View::prefetch_whole(self.address(child.id));
        }
    }

    /// The value in a run. The caller holds a version that reaches it, or owns it.
    ///
    /// # Errors
    /// As for [`Arena::page`].
    pub(crate) fn run(&self, run: RunRef) -> Result<&[u8], Fault> {
        let end = u64::from(run.id.get()) + u64::from(run.pages());
        if end > u64::from(self.open_pages.load(Ordering::Acquire)) {
            return Err(Fault::corrupt_page(run.id, run.birth));
        }
        if self.birth_of(run.id) != Some(run.birth) {
            self.missing(run.id, run.birth)?;
        }
        let view = self.view(run.id);
        if view.kind() != Some(PageKind::Run) || view.run_length() != run.length {
            return Err(Fault::corrupt_page(run.id, run.birth));
        }
        // SAFETY: as for `view`; the run's pages lie one after the other, and its length is what its reference says.
        Ok(unsafe { std::slice::from_raw_parts(self.address(run.id).add(PAGE_HEADER_BYTES), run.length as usize) })
    }

    /// A page that does not have the birth it should have.
    #[cold]
    fn missing(&self, id: PageId, birth: Stamp) -> Result<(), Fault> {
        let corrupt = Fault::corrupt_page(id, birth);
        let pager = self.pager.get().filter(|_| self.birth_of(id).is_some()).ok_or_else(|| corrupt.clone())?;
        pager.fault_in(self, id, birth)?;
        if self.birth_of(id) == Some(birth) { Ok(()) } else { Err(corrupt) }
    }

    /// All bytes of a page or run, to be written somewhere. The caller holds a version that reaches it.
    pub(crate) fn bytes(&self, id: PageId, pages: u32) -> &[u8] {
        let end = u64::from(id.get()) + u64::from(pages);
        assert!(end <= u64::from(self.open_pages.load(Ordering::Acquire)), "ids are the arena's");
        // SAFETY: as for `view`.
        unsafe { std::slice::from_raw_parts(self.address(id), pages as usize * PAGE_BYTES) }
    }

    /// A page to change.
    ///
    /// # Safety
    /// The caller owns the page (contract), and no other reference to it exists while the result is used.
    #[allow(clippy::mut_from_ref)] // Which page is whose, the contract says; the borrow checker cannot.
    pub(crate) unsafe fn edit(&self, id: PageId) -> &mut PageBytes {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.address(id).cast::<PageBytes>() }
    }

    /// Copies a leaf or branch to a page that the caller owns, as born at `birth`. What lies between slots and heap is not
    /// part of it.
    ///
    /// # Safety
    /// As for [`Arena::edit`], of `to`; and the caller may read `from`, which is another page.
    pub(crate) unsafe fn copy(&self, from: PageId, to: PageId, birth: Stamp) {
        assert_ne!(from, to, "a page is copied to another");
        let source = self.view(from);
        // SAFETY: the caller's promise.
        let target = unsafe { self.edit(to) };
        for range in source.used_ranges() {
            target[range.clone()].copy_from_slice(&source.bytes()[range]);
        }
        Edit::new(target).become_copy(from, birth);
    }

    /// Writes a value to a run that the caller owns.
    ///
    /// # Safety
    /// As for [`Arena::edit`], of all pages of the run.
    pub(crate) unsafe fn write_run(&self, run: RunRef, value: &[u8]) {
        assert_eq!(value.len(), run.length as usize, "a run has its value's length");
        // SAFETY: the caller's promise.
        Edit::format_run(unsafe { self.edit(run.id) }, run.length, run.birth);
        // SAFETY: the run has room for header and value.
        unsafe {
            let start = self.address(run.id).add(PAGE_HEADER_BYTES);
            std::ptr::copy_nonoverlapping(value.as_ptr(), start, value.len());
        }
    }

    /// Fills absent pages with their content, the birth last, so that a reader never meets a page half filled.
    ///
    /// # Safety
    /// The pages are absent, `bytes` are whole pages that passed [`crate::page::check`], and nobody else loads them now.
    pub(crate) unsafe fn load(&self, id: PageId, bytes: &[u8]) {
        assert!(bytes.len().is_multiple_of(PAGE_BYTES) && !bytes.is_empty(), "whole pages are loaded");
        let to = self.address(id);
        // SAFETY: absent pages are read by nobody but for their birth, which is written last.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, 8);
            std::ptr::copy_nonoverlapping(bytes[16..].as_ptr(), to.add(16), bytes.len() - 16);
            let birth = u64::from_le_bytes(bytes[BIRTH..16].try_into().expect("eight bytes"));
            // SYNC: pairs with the load in `birth_of`.
            (*to.add(BIRTH).cast::<AtomicU64>()).store(birth.to_le(), Ordering::Release);
        }
    }

    /// Takes the memory of clean pages away. They read as absent from now on, or as they were if a file holds them.
    ///
    /// # Safety
    /// The pages are in an image, their state says so, and nobody reads them or holds a slice of them.
    pub(crate) unsafe fn evict(&self, id: PageId, pages: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.memory.give_back(id.get() as usize * PAGE_BYTES, pages as usize * PAGE_BYTES) };
    }

    /// The state word of a page.
    pub(crate) fn state(&self, id: PageId) -> PageState {
        if !self.has_states.load(Ordering::Acquire) || (id.get() as usize + 1) * 8 > *self.states_open.lock() {
            return PageState::default();
        }
        PageState(self.state_word(id).load(Ordering::Acquire))
    }

    /// Sets the state word of a page.
    pub(crate) fn set_state(&self, id: PageId, state: PageState) -> io::Result<()> {
        let states = match self.states.get() {
            Some(states) => states,
            None => {
                let reserved = Memory::reserve(self.limit as usize * 8, self.limit as usize * 8)?;
                self.states.get_or_init(|| reserved)
            }
        };
        let end = (id.get() as usize + 1) * 8;
        {
            let mut open = self.states_open.lock();
            if end > *open {
                *open = states.open(*open, end)?;
            }
        }
        self.has_states.store(true, Ordering::Release);
        self.state_word(id).store(state.0, Ordering::Release);
        Ok(())
    }

    fn state_word(&self, id: PageId) -> &AtomicU64 {
        let states = self.states.get().expect("states are reserved before they are used");
        // SAFETY: inside of the reservation (one word for each id) and open; all access is atomic.
        unsafe { &*states.base().add(id.get() as usize * 8).cast::<AtomicU64>() }
    }

    /// Hands out single pages, which are the caller's; appends them to `into`. With `emergency` also those that are
    /// kept for undoing.
    pub(crate) fn allocate(&self, count: usize, emergency: bool, into: &mut Vec<PageId>) -> Result<(), ArenaFull> {
        let mut pool = self.pool.lock();
        self.check_room(&pool, count as u32, emergency)?;
        let before = into.len();
        let result = (0..count).try_for_each(|_| {
            let used = pool.take_used();
            into.push(used.map_or_else(|| self.take_fresh(&mut pool, 1, true), Ok)?);
            Ok(())
        });
        self.drafted.fetch_add((into.len() - before) as u64, Ordering::Relaxed);
        result
    }

    /// Hands out consecutive pages, which are the caller's.
    pub(crate) fn allocate_run(&self, pages: u32, emergency: bool) -> Result<PageId, ArenaFull> {
        let mut pool = self.pool.lock();
        self.check_room(&pool, pages, emergency)?;
        let used = if pages == 1 { pool.take_used() } else { pool.take_extent(pages) };
        let id = match used {
            Some(id) => id,
            None => self.take_fresh(&mut pool, pages, true)?,
        };
        self.drafted.fetch_add(u64::from(pages), Ordering::Relaxed);
        Ok(id)
    }

    /// Hands out consecutive places to an image, for as long as the arena lives. They were never used: what a freed page
    /// left would be taken for the page of the image if their births are the same.
    pub(crate) fn allocate_images(&self, pages: u32) -> Result<PageId, ArenaFull> {
        let mut pool = self.pool.lock();
        self.check_room(&pool, pages, false)?;
        let id = self.take_fresh(&mut pool, pages, false)?;
        self.drafted.fetch_add(u64::from(pages), Ordering::Relaxed);
        self.images.lock().push((id.get(), pages));
        Ok(id)
    }

    /// Has the places of an image, into which nothing was loaded, show a file from `offset` on. Pages come by being
    /// written to the file, and their memory can be dropped at any time: the file brings it back, under whoever reads.
    pub(crate) fn map_images(&self, id: PageId, pages: u32, file: &std::fs::File, offset: u64) -> io::Result<()> {
        assert!(self.is_of_image(id), "only places of images are mapped");
        let (start, bytes) = (id.get() as usize * PAGE_BYTES, pages as usize * PAGE_BYTES);
        // SAFETY: nothing was loaded, so nobody refers to more than a birth, which reads as 0 before and after. Places
        // of images are never written to by the arena's owners, and the pager only makes its file longer.
        unsafe { self.memory.map_file(start, bytes, file, offset) }
    }

    /// Drops the memory of places that show a file.
    pub(crate) fn drop_mapped(&self, id: PageId, pages: u32) {
        // SAFETY: the file has the same content, and the next access brings it back.
        unsafe { self.memory.give_back(id.get() as usize * PAGE_BYTES, pages as usize * PAGE_BYTES) };
    }

    /// Whether a place is an image's.
    pub(crate) fn is_of_image(&self, id: PageId) -> bool {
        self.images.lock().iter().any(|(first, pages)| (*first..first + pages).contains(&id.get()))
    }

    /// Makes pages count as not imaged whose location is not among those that `keep` says.
    pub(crate) fn forget_locations(&self, keep: &dyn Fn(u64) -> bool) {
        let end = (*self.states_open.lock() / 8) as u32;
        for number in 1..end {
            let word = self.state_word(PageId::new(number));
            let state = PageState(word.load(Ordering::Acquire));
            // An absent page is nowhere else, and is one of a kept image or of none that anyone reaches.
            if state.location().is_some_and(|location| !keep(location)) && !state.is_absent() {
                word.store(0, Ordering::Release);
            }
        }
    }

    fn check_room(&self, pool: &Pool, pages: u32, emergency: bool) -> Result<(), ArenaFull> {
        let kept = if emergency { 0 } else { self.limit / EMERGENCY_SHARE };
        let left = self.limit - pool.fresh + pool.free_pages();
        if u64::from(left) < u64::from(pages) + u64::from(kept) { Err(ArenaFull) } else { Ok(()) }
    }

    /// Pages that were never used; `written` if the caller is going to write to them.
    fn take_fresh(&self, pool: &mut Pool, pages: u32, written: bool) -> Result<PageId, ArenaFull> {
        let mut end = pool.fresh.checked_add(pages).filter(|end| *end <= self.limit).ok_or(ArenaFull)?;
        let backed = written && self.memory.is_backed(end as usize * PAGE_BYTES);
        if backed {
            end = end.max(pool.fresh.saturating_add(BACKED_PAGES).min(self.limit));
        }
        let end_bytes = end as usize * PAGE_BYTES;
        if end_bytes > pool.open_bytes {
            pool.open_bytes = self.memory.open(pool.open_bytes, end_bytes).map_err(|_| ArenaFull)?;
            let open_pages = u32::try_from(pool.open_bytes / PAGE_BYTES).expect("reservations are bounded by ids");
            // SYNC: pairs with the loads in `birth_of` and `run`.
            self.open_pages.store(open_pages, Ordering::Release);
        }
        let first = pool.fresh;
        if backed {
            let start_bytes = first as usize * PAGE_BYTES;
            self.memory.make_room(start_bytes, end_bytes - start_bytes).map_err(|_| ArenaFull)?;
            // Writers are faster than whoever trims: what they fill is given back as it grows.
            pool.backed_bytes += (end_bytes - start_bytes) as u64;
            if pool.backed_bytes > self.memory_bytes / 2 {
                pool.backed_bytes = 0;
                self.memory.give_back_backed(pool.open_bytes);
            }
            pool.warm.extend((first + pages..end).rev().map(PageId::new));
        }
        pool.fresh = end;
        Ok(PageId::new(first))
    }

    /// Takes back pages and runs of versions, which no version reaches any more.
    pub(crate) fn free(&self, pages: impl IntoIterator<Item = (PageId, u32)>) {
        self.free_in(&mut self.pool.lock(), pages);
    }

    /// Takes back a page or run that its owner has not published.
    pub(crate) fn free_drafted(&self, id: PageId, count: u32) {
        self.drafted.fetch_sub(u64::from(count), Ordering::Relaxed);
        self.free_in(&mut self.pool.lock(), [(id, count)]);
    }

    fn free_in(&self, pool: &mut Pool, pages: impl IntoIterator<Item = (PageId, u32)>) {
        for (id, count) in pages {
            self.forget(id, count);
            if count == 1 {
                pool.warm.push(id);
            } else {
                if count >= GIVE_BACK_PAGES_MIN {
                    // SAFETY: nobody refers to the pages any more (the caller's promise, and the contract).
                    unsafe { self.evict(id, count) };
                }
                pool.put_extent(id, count);
            }
        }
    }

    fn forget(&self, id: PageId, count: u32) {
        if self.has_states.load(Ordering::Acquire) {
            for number in id.get()..id.get() + count {
                let id = PageId::new(number);
                if self.state(id) != PageState::default() {
                    self.state_word(id).store(0, Ordering::Release);
                }
            }
        }
        if cfg!(debug_assertions) {
            for number in id.get()..id.get() + count {
                // SAFETY: nobody refers to the page any more.
                unsafe { self.edit(PageId::new(number)) }.fill(POISON);
            }
        }
    }

    /// Ends what an owner began: `published` pages are a version's from now on, and the single pages in `unused` come
    /// back.
    pub(crate) fn settle(&self, published: u64, unused: &mut Vec<PageId>) {
        self.drafted.fetch_sub(published + unused.len() as u64, Ordering::Relaxed);
        if !unused.is_empty() {
            self.pool.lock().warm.append(unused);
        }
    }

    /// Gives the memory of the pages in the file back, if these may have more than all may take. Whoever goes through all
    /// pages calls this on the way.
    pub(crate) fn trim_backed(&self) {
        let open_bytes = self.pool.lock().open_bytes;
        if open_bytes as u64 / 2 > self.memory_bytes {
            self.memory.give_back_backed(open_bytes);
        }
    }

    /// Gives the memory of most free pages back to the system, and that of pages in the file.
    pub(crate) fn trim(&self) {
        self.trim_backed();
        let mut pool = self.pool.lock();
        let allocated = (pool.fresh - 1 - pool.free_pages()) as usize;
        let keep = WARM_PAGES_MIN.max(allocated / 4);
        if pool.warm.len() <= keep * 2 {
            return;
        }
        // Low ids stay, so that what is used lies together; the others go in as few calls as they are ranges.
        pool.warm.sort_unstable_by(|left, right| right.cmp(left));
        let surplus = pool.warm.len() - keep;
        let given: Vec<PageId> = pool.warm.drain(..surplus).collect();
        for range in given.chunk_by(|high, low| high.get() == low.get() + 1) {
            let first = range[range.len() - 1];
            // SAFETY: free pages are referred to by nobody.
            unsafe { self.evict(first, range.len() as u32) };
        }
        pool.cold.extend(given);
    }

    pub(crate) fn stats(&self) -> ArenaStats {
        let pool = self.pool.lock();
        let free = u64::from(pool.free_pages());
        ArenaStats {
            allocated: u64::from(pool.fresh - 1) - free,
            drafted: self.drafted.load(Ordering::Relaxed),
            free,
            limit: u64::from(self.limit - 1),
        }
    }

    /// Every id that was ever handed out and is not now, and the first that never was.
    pub(crate) fn free_ids(&self) -> (Vec<PageId>, PageId) {
        let pool = self.pool.lock();
        let mut ids = Vec::new();
        pool.for_each_free(&mut |id| ids.push(id));
        (ids, PageId::new(pool.fresh))
    }
}

/// Memory of the machine in bytes.
pub(crate) fn memory_bytes() -> u64 {
    // SAFETY: a query without pointers.
    let (pages, bytes) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    let known = u64::try_from(pages).ok().zip(u64::try_from(bytes).ok());
    known.map_or(MEMORY_BYTES_UNKNOWN, |(pages, bytes)| pages * bytes)
}

#[cfg(test)]
mod tests;
