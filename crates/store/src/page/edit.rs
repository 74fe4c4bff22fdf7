//! Changing a page.

use super::{
    BIRTH, BODY_BYTES, Body, COUNT, Cell, ChildRef, DEAD, HEAP_TOP, KEY_LENGTH_MASK, KIND, LEVEL, ORIGINAL,
    ORIGINAL_AGE, PAGE_BYTES, PAGE_HEADER_BYTES, PREFIX_LENGTH, PageBytes, PageId, PageKind, RUN_LENGTH, SLOT_BYTES,
    Stamp, VALUE_IN_RUN, View, WRITTEN, Written, common_length, head,
};

/// A page to change: one that nobody else sees yet.
pub(crate) struct Edit<'a>(&'a mut PageBytes);

impl<'a> Edit<'a> {
    pub(crate) fn new(bytes: &'a mut PageBytes) -> Edit<'a> {
        Edit(bytes)
    }

    /// Makes the bytes an empty leaf (level 0) or branch.
    pub(crate) fn format(bytes: &'a mut PageBytes, level: u8, birth: Stamp) -> Edit<'a> {
        bytes[..PAGE_HEADER_BYTES].fill(0);
        bytes[KIND] = if level == 0 { PageKind::Leaf } else { PageKind::Branch } as u8;
        bytes[LEVEL] = level;
        let mut edit = Edit(bytes);
        edit.set_u16(HEAP_TOP, PAGE_BYTES);
        edit.set_birth(birth);
        edit
    }

    /// Makes the bytes the header of a run, whose value follows it.
    pub(crate) fn format_run(bytes: &'a mut PageBytes, length: u32, birth: Stamp) {
        bytes[..PAGE_HEADER_BYTES].fill(0);
        bytes[KIND] = PageKind::Run as u8;
        bytes[RUN_LENGTH..RUN_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        Edit(bytes).set_birth(birth);
    }

    pub(crate) fn view(&self) -> View<'_> {
        View(self.0)
    }

    /// Makes the page empty.
    pub(crate) fn clear(&mut self) {
        let (level, birth) = (self.view().level(), self.view().birth());
        Edit::format(self.0, level, birth);
    }

    /// Makes the page equal to another.
    pub(crate) fn copy_from(&mut self, other: &PageBytes) {
        *self.0 = *other;
    }

    pub(crate) fn set_birth(&mut self, birth: Stamp) {
        self.0[BIRTH..BIRTH + 8].copy_from_slice(&birth.get().to_le_bytes());
    }

    /// Makes the page, whose bytes are those of `original`, a copy born at `birth`.
    pub(crate) fn become_copy(&mut self, original: PageId, birth: Stamp) {
        let age = u32::try_from(birth.get() - self.view().birth().get());
        // Of a page that is too old for the field the copy knows nothing, and is compared as a whole.
        let (original, age) = age.map_or((PageId::NONE, 0), |age| (original, age));
        self.set_u32(ORIGINAL, original.get());
        self.set_u32(ORIGINAL_AGE, age);
        self.set_u32(WRITTEN, 0);
        self.set_birth(birth);
    }

    /// The page is no longer a copy with other values.
    fn forget_original(&mut self) {
        self.0[ORIGINAL..PAGE_HEADER_BYTES].fill(0);
    }

    /// Leaves nothing in a leaf or branch but what it says: no original, and zeros between the slots and the heap.
    pub(crate) fn purge(&mut self) {
        let view = self.view();
        if !view.is_leaf() && !view.is_branch() {
            return;
        }
        self.forget_original();
        let view = self.view();
        let unused = PAGE_HEADER_BYTES + view.count() * SLOT_BYTES..view.heap_top();
        self.0[unused].fill(0);
    }

    /// Notes that a slot leads to something else than in the original.
    fn note_written(&mut self, index: usize) {
        let Written(written) = self.view().written().with(index);
        self.set_u32(WRITTEN, written);
    }

    fn set_u16(&mut self, at: usize, value: usize) {
        let value = u16::try_from(value).expect("offsets in a page are small");
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn set_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Inserts a cell at `index`. `false` if there is no room for it; then nothing changed.
    pub(crate) fn insert(&mut self, index: usize, cell: Cell<'_>) -> bool {
        let need = cell.bytes() + SLOT_BYTES;
        let view = self.view();
        let (count, free) = (view.count(), BODY_BYTES - view.used_bytes());
        if need > free {
            return false;
        }
        if need > view.heap_top() - PAGE_HEADER_BYTES - count * SLOT_BYTES {
            self.compact();
        }
        self.forget_original();
        self.cut_prefix(cell.key, index);
        self.place(index, cell);
        true
    }

    /// Writes the cell and its slot; there is room, and the prefix is one of the key's.
    fn place(&mut self, index: usize, cell: Cell<'_>) {
        let view = self.view();
        let (count, bytes) = (view.count(), cell.bytes());
        let offset = view.heap_top() - bytes;
        let head = head(cell.key, view.prefix_length());
        let slot = PAGE_HEADER_BYTES + index * SLOT_BYTES;
        let end = PAGE_HEADER_BYTES + count * SLOT_BYTES;
        assert!(index <= count && end + SLOT_BYTES <= offset, "a cell is placed where there is room");
        self.0.copy_within(slot..end, slot + SLOT_BYTES);
        let mut meta = cell.key.len();
        assert!(meta <= usize::from(KEY_LENGTH_MASK), "keys are bounded by KEY_BYTES_MAX");
        if matches!(cell.body, Body::Run(_)) {
            meta |= usize::from(VALUE_IN_RUN);
        }
        self.set_u32(slot, head);
        self.set_u16(slot + 4, offset);
        self.set_u16(slot + 6, meta);
        self.set_u16(COUNT, count + 1);
        self.set_u16(HEAP_TOP, offset);
        self.write_cell(offset, cell);
    }

    fn write_cell(&mut self, offset: usize, cell: Cell<'_>) {
        let mut at = offset;
        let mut put = |bytes: &[u8]| {
            self.0[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        match cell.body {
            Body::Inline(value) => {
                put(&(u16::try_from(value.len()).expect("inline values are small")).to_le_bytes());
                put(cell.key);
                put(value);
            }
            Body::Run(run) => {
                put(&[0, 0]);
                put(cell.key);
                put(&run.id.get().to_le_bytes());
                put(&run.length.to_le_bytes());
                put(&run.birth.get().to_le_bytes());
            }
            Body::Child(child) => {
                put(&child.id.get().to_le_bytes());
                put(&child.birth.get().to_le_bytes());
                put(cell.key);
            }
        }
    }

    /// Shortens the shared prefix to what `key`, which is about to come in at `index`, shares too.
    fn cut_prefix(&mut self, key: &[u8], index: usize) {
        let view = self.view();
        let (first, count) = (view.first_keyed(), view.count());
        if index < first {
            return;
        }
        if count <= first {
            self.set_u16(PREFIX_LENGTH, key.len());
            return;
        }
        let prefix_length = view.prefix_length();
        if prefix_length == 0 {
            return;
        }
        let shared = common_length(&view.key(first)[..prefix_length], key);
        if shared < prefix_length {
            self.set_prefix_length(shared);
        }
    }

    fn set_prefix_length(&mut self, length: usize) {
        self.set_u16(PREFIX_LENGTH, length);
        for index in self.view().first_keyed()..self.view().count() {
            let head = head(self.view().key(index), length);
            self.set_u32(PAGE_HEADER_BYTES + index * SLOT_BYTES, head);
        }
    }

    /// Fills an empty page with cells in key order. They fit.
    pub(crate) fn fill<'c>(&mut self, cells: impl ExactSizeIterator<Item = Cell<'c>>) {
        assert_eq!(self.view().count(), 0, "only an empty page is filled");
        for (index, cell) in cells.enumerate() {
            self.place(index, cell);
        }
        let view = self.view();
        let (first, count) = (view.first_keyed(), view.count());
        if count > first {
            // Keys in between share what the outer ones do.
            let shared = common_length(view.key(first), view.key(count - 1));
            self.set_prefix_length(shared);
        }
    }

    /// Squeezes the dead bytes out of the heap, and finds the longest prefix.
    fn compact(&mut self) {
        let copy: PageBytes = *self.0;
        let view = View(&copy);
        Edit::format(self.0, view.level(), view.birth()).fill((0..view.count()).map(|index| view.cell(index)));
    }

    /// Removes the slot at `index`. In a branch the next one takes over the keys of slot 0.
    pub(crate) fn remove(&mut self, index: usize) {
        let view = self.view();
        let (count, mut dead) = (view.count(), view.dead() + view.cell_bytes(index));
        let slot = PAGE_HEADER_BYTES + index * SLOT_BYTES;
        assert!(index < count, "only what is there is removed");
        self.forget_original();
        let view = self.view();
        if view.is_branch() && index == 0 && count > 1 {
            dead += view.key_length(1);
            self.set_u32(slot + SLOT_BYTES, 0);
            self.set_u16(slot + SLOT_BYTES + 6, 0);
        }
        self.0.copy_within(slot + SLOT_BYTES..PAGE_HEADER_BYTES + count * SLOT_BYTES, slot);
        self.set_u16(COUNT, count - 1);
        self.set_u16(DEAD, dead);
    }

    /// Overwrites a leaf's value by one that takes as many bytes in the page. `false` if it does not.
    pub(crate) fn overwrite(&mut self, index: usize, body: Body<'_>) -> bool {
        let view = self.view();
        let range = view.value_range(index);
        let in_run = matches!(view.value(index), super::Value::Run(_));
        match body {
            Body::Inline(value) if !in_run && value.len() == range.len() => self.0[range].copy_from_slice(value),
            Body::Run(run) if in_run => {
                let bytes = &mut self.0[range];
                bytes[..4].copy_from_slice(&run.id.get().to_le_bytes());
                bytes[4..8].copy_from_slice(&run.length.to_le_bytes());
                bytes[8..].copy_from_slice(&run.birth.get().to_le_bytes());
            }
            _ => return false,
        }
        self.note_written(index);
        true
    }

    /// Points a slot of a branch to another page.
    pub(crate) fn set_child(&mut self, index: usize, child: ChildRef) {
        let offset = self.view().offset(index);
        self.0[offset..offset + 4].copy_from_slice(&child.id.get().to_le_bytes());
        self.0[offset + 4..offset + 12].copy_from_slice(&child.birth.get().to_le_bytes());
        self.note_written(index);
    }
}
