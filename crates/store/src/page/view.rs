//! Reading a page.

use super::{
    BIRTH, Body, CHILD_REF_BYTES, COUNT, Cell, ChildRef, DEAD, HEAP_TOP, KEY_LENGTH_MASK, KIND, LEVEL, ORIGINAL,
    ORIGINAL_AGE, PAGE_BYTES, PAGE_HEADER_BYTES, PREFIX_LENGTH, PageBytes, PageId, PageKind, RUN_LENGTH, RUN_REF_BYTES,
    RunRef, SLOT_BYTES, SLOTS_MAX, Stamp, VALUE_IN_RUN, WRITTEN, Written, head,
};

/// Bytes that memory brings at once.
const CACHE_LINE_BYTES: usize = 64;

/// Lines behind the header that a search is sure to touch some of: those of some 30 slots.
const PREFETCHED_LINES: usize = 4;

/// A page to read. Its content is trusted: it was made by [`super::Edit`] or passed [`check`].
#[derive(Clone, Copy)]
pub(crate) struct View<'a>(pub(super) &'a PageBytes);

/// The value of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Inline(&'a [u8]),
    Run(RunRef),
}

impl<'a> View<'a> {
    pub(crate) fn new(bytes: &'a PageBytes) -> View<'a> {
        View(bytes)
    }

    pub(crate) fn bytes(self) -> &'a PageBytes {
        self.0
    }

    #[inline(always)]
    fn u16(self, at: usize) -> u16 {
        u16::from_le_bytes(self.0[at..at + 2].try_into().expect("two bytes"))
    }

    #[inline(always)]
    fn u32(self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    #[inline(always)]
    fn u64(self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    /// `None` for bytes that are no page.
    pub(crate) fn kind(self) -> Option<PageKind> {
        match self.0[KIND] {
            1 => Some(PageKind::Leaf),
            2 => Some(PageKind::Branch),
            3 => Some(PageKind::Run),
            _ => None,
        }
    }

    pub(crate) fn is_leaf(self) -> bool {
        self.0[KIND] == PageKind::Leaf as u8
    }

    pub(crate) fn is_branch(self) -> bool {
        self.0[KIND] == PageKind::Branch as u8
    }

    pub(crate) fn level(self) -> u8 {
        self.0[LEVEL]
    }

    pub(crate) fn count(self) -> usize {
        // The bound is what unchecked access to slots relies on.
        usize::from(self.u16(COUNT)).min(SLOTS_MAX)
    }

    pub(crate) fn birth(self) -> Stamp {
        Stamp::new(self.u64(BIRTH))
    }

    pub(super) fn heap_top(self) -> usize {
        usize::from(self.u16(HEAP_TOP))
    }

    pub(super) fn dead(self) -> usize {
        usize::from(self.u16(DEAD))
    }

    pub(super) fn prefix_length(self) -> usize {
        usize::from(self.u16(PREFIX_LENGTH))
    }

    /// Bytes of a run's value.
    pub(crate) fn run_length(self) -> u32 {
        self.u32(RUN_LENGTH)
    }

    /// The page that this is a copy of with nothing changed but values or children.
    fn original(self) -> ChildRef {
        let birth = self.birth().get().saturating_sub(u64::from(self.u32(ORIGINAL_AGE)));
        ChildRef { id: PageId::new(self.u32(ORIGINAL)), birth: Stamp::new(birth) }
    }

    pub(super) fn written(self) -> Written {
        Written(self.u32(WRITTEN))
    }

    /// Bytes that slots and live cells take.
    pub(crate) fn used_bytes(self) -> usize {
        self.count() * SLOT_BYTES + PAGE_BYTES - self.heap_top() - self.dead()
    }

    /// The bytes that say something, of a leaf or branch.
    pub(crate) fn used_ranges(self) -> [std::ops::Range<usize>; 2] {
        [0..PAGE_HEADER_BYTES + self.count() * SLOT_BYTES, self.heap_top()..PAGE_BYTES]
    }

    /// The first slot that has a key.
    pub(super) fn first_keyed(self) -> usize {
        usize::from(self.is_branch())
    }

    /// A slot as one number: head, offset and meta, the first the least significant.
    #[inline(always)]
    fn slot_word(self, index: usize) -> u64 {
        debug_assert!(index < SLOTS_MAX);
        // SAFETY: callers pass an index below `count`, which is at most SLOTS_MAX, so the slot is inside of the page.
        u64::from_le(unsafe {
            self.0.as_ptr().add(PAGE_HEADER_BYTES + index * SLOT_BYTES).cast::<u64>().read_unaligned()
        })
    }

    #[inline(always)]
    pub(super) fn head(self, index: usize) -> u32 {
        self.slot_word(index) as u32
    }

    #[inline(always)]
    pub(super) fn offset(self, index: usize) -> usize {
        usize::from((self.slot_word(index) >> 32) as u16)
    }

    #[inline(always)]
    fn meta(self, index: usize) -> u16 {
        (self.slot_word(index) >> 48) as u16
    }

    pub(super) fn key_length(self, index: usize) -> usize {
        usize::from(self.meta(index) & KEY_LENGTH_MASK)
    }

    /// Bytes of a cell before its key.
    fn lead(self) -> usize {
        if self.is_leaf() { 2 } else { CHILD_REF_BYTES }
    }

    /// Asks for the memory of the header and the first slots, which a search meets first.
    #[inline(always)]
    pub(crate) fn prefetch(self) {
        View::prefetch_at(self.0.as_ptr());
    }

    /// The same for a page of which there is only the address.
    #[inline(always)]
    pub(crate) fn prefetch_at(page: *const u8) {
        for line in 0..=PREFETCHED_LINES {
            prefetch(page.wrapping_add(line * CACHE_LINE_BYTES));
        }
    }

    /// Asks for all the memory of a page of which there is only the address: where a search begins first.
    #[inline(always)]
    pub(crate) fn prefetch_whole(page: *const u8) {
        View::prefetch_at(page);
        for line in PREFETCHED_LINES + 1..PAGE_BYTES / CACHE_LINE_BYTES {
            prefetch_far(page.wrapping_add(line * CACHE_LINE_BYTES));
        }
    }

    /// Asks for the memory of the slots that [`View::prefetch`] left out: halving would wait for each line in turn.
    #[inline(always)]
    pub(super) fn prefetch_slots(self, count: usize) {
        let end = PAGE_HEADER_BYTES + count * SLOT_BYTES;
        let mut at = (PREFETCHED_LINES + 1) * CACHE_LINE_BYTES;
        while at < end {
            prefetch(self.0[at..].as_ptr());
            at += CACHE_LINE_BYTES;
        }
    }

    /// Asks for the memory of the cell at `index`, which is taken to have so many bytes.
    #[inline(always)]
    pub(crate) fn prefetch_cell(self, index: usize, bytes: usize) {
        debug_assert!(index < self.count());
        let start = self.0.as_ptr().wrapping_add(self.offset(index));
        prefetch(start);
        for line in 1..bytes.div_ceil(CACHE_LINE_BYTES) {
            prefetch(start.wrapping_add(line * CACHE_LINE_BYTES));
        }
        prefetch(start.wrapping_add(bytes - 1));
    }

    pub(crate) fn key(self, index: usize) -> &'a [u8] {
        assert!(index < self.count(), "a slot that is there is read");
        self.key_at(index)
    }

    #[inline(always)]
    pub(super) fn key_at(self, index: usize) -> &'a [u8] {
        let start = self.offset(index) + self.lead();
        &self.0[start..start + self.key_length(index)]
    }

    /// The value of a leaf's record.
    #[inline]
    pub(crate) fn value(self, index: usize) -> Value<'a> {
        assert!(index < self.count(), "a slot that is there is read");
        let offset = self.offset(index);
        let meta = self.meta(index);
        let start = offset + 2 + usize::from(meta & KEY_LENGTH_MASK);
        if meta & VALUE_IN_RUN == 0 {
            return Value::Inline(&self.0[start..start + usize::from(self.u16(offset))]);
        }
        Value::Run(RunRef {
            id: PageId::new(self.u32(start)),
            length: self.u32(start + 4),
            birth: Stamp::new(self.u64(start + 8)),
        })
    }

    /// A record of a leaf.
    #[inline(always)]
    pub(crate) fn record(self, index: usize) -> (&'a [u8], Value<'a>) {
        assert!(index < self.count(), "a slot that is there is read");
        let (offset, meta) = (self.offset(index), self.meta(index));
        if meta & VALUE_IN_RUN != 0 {
            return (self.key_at(index), self.value(index));
        }
        let key_length = usize::from(meta & KEY_LENGTH_MASK);
        let cell = &self.0[offset..][..2 + key_length + usize::from(self.u16(offset))];
        let (key, value) = cell[2..].split_at(key_length);
        (key, Value::Inline(value))
    }

    /// Where the bytes of a leaf's value, or its run's reference, lie.
    pub(super) fn value_range(self, index: usize) -> std::ops::Range<usize> {
        let offset = self.offset(index);
        let start = offset + 2 + self.key_length(index);
        start..offset + self.cell_bytes(index)
    }

    /// A child of a branch.
    #[inline]
    pub(crate) fn child(self, index: usize) -> ChildRef {
        assert!(index < self.count(), "a slot that is there is read");
        let offset = self.offset(index);
        ChildRef { id: PageId::new(self.u32(offset)), birth: Stamp::new(self.u64(offset + 4)) }
    }

    /// Bytes of the cell at `index`.
    pub(super) fn cell_bytes(self, index: usize) -> usize {
        assert!(index < self.count(), "a slot that is there is read");
        let meta = self.meta(index);
        let key_length = usize::from(meta & KEY_LENGTH_MASK);
        if !self.is_leaf() {
            return CHILD_REF_BYTES + key_length;
        }
        let value = if meta & VALUE_IN_RUN == 0 { usize::from(self.u16(self.offset(index))) } else { RUN_REF_BYTES };
        2 + key_length + value
    }

    /// Whether the cells before `index` are the ones that came into the page last, in the order of their keys.
    pub(crate) fn grew_up_to(self, index: usize) -> bool {
        let Some(before) = index.checked_sub(2).filter(|before| *before >= self.first_keyed()) else { return false };
        let last = before + 1;
        self.offset(last) == self.heap_top() && self.offset(before) == self.heap_top() + self.cell_bytes(last)
    }

    pub(crate) fn cell(self, index: usize) -> Cell<'a> {
        let body = if self.is_leaf() {
            match self.value(index) {
                Value::Inline(value) => Body::Inline(value),
                Value::Run(run) => Body::Run(run),
            }
        } else {
            Body::Child(self.child(index))
        };
        Cell { key: self.key(index), body }
    }

    /// The slots whose cells may differ from those of another page, if both have the same slots otherwise, as a page and
    /// its changed copy mostly do. The references are those that led to the two pages.
    pub(crate) fn differing_cells(self, own: ChildRef, other: View<'_>, others: ChildRef) -> Option<SlotSet> {
        let mut differing = SlotSet::default();
        let written = match (other.original() == own, self.original() == others) {
            (true, _) => other.written(),
            (false, true) => self.written(),
            (false, false) => return self.compare_cells(other),
        };
        written.for_each(self.count(), |index| {
            if !self.has_same_body(other, index) {
                differing.insert(index);
            }
        });
        Some(differing)
    }

    /// Whether a slot leads to the same here and in a page with the same slots.
    fn has_same_body(self, other: View<'_>, index: usize) -> bool {
        if self.is_leaf() { self.value(index) == other.value(index) } else { self.child(index) == other.child(index) }
    }

    /// [`View::differing_cells`] of two pages of which neither knows what the other is.
    fn compare_cells(self, other: View<'_>) -> Option<SlotSet> {
        let slots = PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + self.count() * SLOT_BYTES;
        if self.count() != other.count() || self.0[KIND] != other.0[KIND] || self.0[slots.clone()] != other.0[slots] {
            return None;
        }
        // Whole lines first: few differ, and they come from memory in the order in which they lie there.
        let mut lines = 0_u64;
        for line in 0..PAGE_BYTES / CACHE_LINE_BYTES {
            let range = line * CACHE_LINE_BYTES..(line + 1) * CACHE_LINE_BYTES;
            lines |= u64::from(self.0[range.clone()] != other.0[range]) << line;
        }
        let mut differing = SlotSet::default();
        for index in 0..self.count() {
            let start = self.offset(index);
            let (first, last) = (start / CACHE_LINE_BYTES, (start + self.cell_bytes(index) - 1) / CACHE_LINE_BYTES);
            if lines >> first & (u64::MAX >> (63 - (last - first))) != 0 && !self.has_same_body(other, index) {
                differing.insert(index);
            }
        }
        Some(differing)
    }

    pub(crate) fn cells(self) -> impl Iterator<Item = Cell<'a>> {
        (0..self.count()).map(move |index| self.cell(index))
    }
}

/// Some slots of a page.
#[derive(Clone, Copy, Default)]
pub(crate) struct SlotSet([u64; SLOTS_MAX.div_ceil(64)]);

impl SlotSet {
    fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    /// The first slot of the set from `index` on; beyond all slots if there is none.
    pub(crate) fn next_from(&self, index: usize) -> usize {
        let mut word = index / 64;
        let mut rest = self.0.get(word).copied().unwrap_or(0) & u64::MAX << (index % 64);
        while rest == 0 {
            word += 1;
            match self.0.get(word) {
                Some(next) => rest = *next,
                None => return SLOTS_MAX,
            }
        }
        word * 64 + rest.trailing_zeros() as usize
    }
}

/// [`prefetch`] of what is needed later: it need not come all the way.
#[inline(always)]
fn prefetch_far(byte: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it reads nothing that the program could see.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(byte.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = byte;
}

/// Asks the processor to bring a byte's cache line, if it knows how.
#[inline(always)]
fn prefetch(byte: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it reads nothing that the program could see.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(byte.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = byte;
}

/// Whether bytes that came from outside are a page that can be read without harm.
///
/// # Errors
/// What does not hold.
pub(crate) fn check(bytes: &[u8; PAGE_BYTES]) -> Result<PageKind, &'static str> {
    let view = View(bytes);
    let kind = view.kind().ok_or("the page is of no known kind")?;
    if kind == PageKind::Run {
        return if view.run_length() == 0 { Err("a run is empty") } else { Ok(kind) };
    }
    let (count, heap_top) = (view.count(), view.heap_top());
    if count == 0 || heap_top > PAGE_BYTES || PAGE_HEADER_BYTES + count * SLOT_BYTES > heap_top {
        return Err("slots and heap of a page overlap");
    }
    if (kind == PageKind::Leaf) != (view.level() == 0) {
        return Err("the level of a page does not fit its kind");
    }
    if !view.written().is_sound() {
        return Err("a page names slots as overwritten that no page has");
    }
    let mut live = 0;
    for index in 0..count {
        let offset = view.offset(index);
        if offset < heap_top || offset + view.lead() > PAGE_BYTES || offset + view.cell_bytes(index) > PAGE_BYTES {
            return Err("a cell lies outside of the heap");
        }
        live += view.cell_bytes(index);
    }
    if live + view.dead() != PAGE_BYTES - heap_top {
        return Err("the cells of a page do not add up");
    }
    check_keys(view)?;
    Ok(kind)
}

fn check_keys(view: View<'_>) -> Result<(), &'static str> {
    let (first, prefix_length) = (view.first_keyed(), view.prefix_length());
    if first == 1 && view.key_length(0) != 0 {
        return Err("the first key of a branch is not empty");
    }
    for index in first..view.count() {
        let key = view.key(index);
        if key.len() < prefix_length || key[..prefix_length] != view.key(first)[..prefix_length] {
            return Err("a key does not have the page's prefix");
        }
        if view.head(index) != head(key, prefix_length) {
            return Err("a slot does not have its key's head");
        }
        if index > first && view.key(index - 1) >= key {
            return Err("the keys of a page do not rise");
        }
    }
    if view.is_branch() && (0..view.count()).any(|index| view.child(index).id == PageId::NONE) {
        return Err("a branch refers to no page");
    }
    Ok(())
}
