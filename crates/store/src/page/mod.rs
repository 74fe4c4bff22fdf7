//! The page: the unit that is copied, shared, imaged and addressed.
//!
//! A page is 4,096 bytes and means the same at any address: it refers to others by [`PageId`], never by pointer, and
//! all numbers are little-endian. Three kinds share one header:
//!
//! | bytes | field |
//! |---|---|
//! | 0 | kind: 1 leaf, 2 branch, 3 run; anything else is no page |
//! | 1 | level: 0 for a leaf, one more than its children for a branch |
//! | 2..4 | `count` of slots |
//! | 4..6 | `heap_top`: where the heap begins; it ends with the page |
//! | 6..8 | `prefix_length`: key bytes that all slots share |
//! | 8..16 | birth, a [`Stamp`] |
//! | 16..18 | `dead`: bytes of the heap that no slot uses |
//! | 18..20 | zero |
//! | 20..24 | of a run: bytes of its value; else: id of the page this is a copy of, or zero |
//! | 24..28 | how much older that page is: the difference of the births |
//! | 28..32 | `written`: which slots were overwritten in the copy, see [`Written`] |
//!
//! A copy in which only values or children were overwritten remembers its original and which they are, so that a diff of
//! the two looks at them alone. Any other change makes it forget the original, and so does going into an image, where
//! ids mean something else.
//!
//! Leaves and branches have `count` slots of 8 bytes from byte 32 on, in key order, and a heap of cells that grows down
//! towards them:
//!
//! | bytes of a slot | field |
//! |---|---|
//! | 0..4 | head: the four key bytes behind the shared prefix, as a number (first byte most significant), zeros after the key's end |
//! | 4..6 | offset of the cell |
//! | 6..8 | bits 0 to 12: key length; bit 15: the value is in a run |
//!
//! - The cell of a leaf: value length (2 bytes, zero if the value is in a run), key, value or [`RunRef`].
//! - The cell of a branch: [`ChildRef`], key. Slot 0 has an empty key and stands for everything below slot 1; the child
//!   of slot `i` has the keys from key `i` (included) to key `i + 1` (excluded).
//!
//! The prefix is not stored apart: it is the beginning of every key, so keys can be lent as they are. A search compares
//! heads, which lie together, and settles whether the sought key has the prefix on the cell it touches anyway.
//!
//! A run holds one large value: a header and the value, in as many consecutive pages as they need, so that the value
//! can be lent as one slice.
//!
//! Every reference to a page or run holds its birth. Births are never used twice for one id at one time, so a reader
//! that finds another birth than the one it was promised has found a fault, not somebody else's page.

mod edit;
mod search;
mod view;

pub(crate) use edit::Edit;
pub(crate) use view::{SlotSet, Value, View, check};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// Where slots, and the value of a run, begin.
pub const PAGE_HEADER_BYTES: usize = 32;

/// Bytes that slots and cells of a page may take.
pub(crate) const BODY_BYTES: usize = PAGE_BYTES - PAGE_HEADER_BYTES;

pub(crate) const SLOT_BYTES: usize = 8;

/// Slots that fit into a page.
const SLOTS_MAX: usize = BODY_BYTES / SLOT_BYTES;

/// Key and value of a record lie in the leaf if they have no more bytes together, else the value is in a run. Two
/// records always fit into a page, and a page that overflows by one can be cut into two that do not.
pub(crate) const RECORD_INLINE_BYTES_MAX: usize = 1900;

/// Bytes of a [`RunRef`] in a cell.
pub(crate) const RUN_REF_BYTES: usize = 16;

/// Bytes of a [`ChildRef`] in a cell.
pub(crate) const CHILD_REF_BYTES: usize = 12;

const KEY_LENGTH_MASK: u16 = (1 << 13) - 1;
const VALUE_IN_RUN: u16 = 1 << 15;

const KIND: usize = 0;
const LEVEL: usize = 1;
const COUNT: usize = 2;
const HEAP_TOP: usize = 4;
const PREFIX_LENGTH: usize = 6;
pub(crate) const BIRTH: usize = 8;
const DEAD: usize = 16;
const RUN_LENGTH: usize = 20;
const ORIGINAL: usize = 20;
const ORIGINAL_AGE: usize = 24;
const WRITTEN: usize = 28;

/// Which slots of a copy were overwritten. Up to two are named: 15 bits each have their index and one. More are told by
/// group: bit 31 is set, and each of the others stands for [`Written::GROUP_SLOTS`] slots.
#[derive(Clone, Copy)]
struct Written(u32);

impl Written {
    const BY_GROUP: u32 = 1 << 31;
    const GROUP_SLOTS: usize = SLOTS_MAX.div_ceil(31);
    const NAME_BITS: u32 = 15;
    const NAME: u32 = (1 << Written::NAME_BITS) - 1;

    fn group(index: usize) -> u32 {
        1 << (index / Written::GROUP_SLOTS)
    }

    /// Whether it names only slots that a page may have. One from outside may not.
    fn is_sound(self) -> bool {
        self.0 & Written::BY_GROUP != 0 || self.names().into_iter().all(|name| name as usize <= SLOTS_MAX)
    }

    /// The slots that are named, by index and one; 0 is none.
    fn names(self) -> [u32; 2] {
        [self.0 & Written::NAME, self.0 >> Written::NAME_BITS & Written::NAME]
    }

    fn with(self, index: usize) -> Written {
        if self.0 & Written::BY_GROUP != 0 {
            return Written(self.0 | Written::group(index));
        }
        let name = index as u32 + 1;
        match self.names() {
            [first, second] if first == name || second == name => self,
            [0, _] => Written(name),
            [first, 0] => Written(first | name << Written::NAME_BITS),
            names => {
                let groups = names.map(|name| Written::group(name as usize - 1));
                Written(Written::BY_GROUP | groups[0] | groups[1] | Written::group(index))
            }
        }
    }

    /// Calls `visit` with every slot that may have been overwritten, of a page with `count`.
    fn for_each(self, count: usize, mut visit: impl FnMut(usize)) {
        if self.0 & Written::BY_GROUP == 0 {
            let named = self.names().into_iter().filter(|name| (1..=count as u32).contains(name));
            return named.for_each(|name| visit(name as usize - 1));
        }
        (0..count).filter(|index| self.0 & Written::group(*index) != 0).for_each(visit);
    }
}

/// The bytes of a page.
pub(crate) type PageBytes = [u8; PAGE_BYTES];

/// A place for a page in the arena. 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(u32);

impl PageId {
    /// No page: the root of an empty tree.
    pub const NONE: PageId = PageId(0);

    /// Wraps the number.
    pub const fn new(number: u32) -> PageId {
        PageId(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A moment in a store's life: when a page was made, or a version. One counter gives them out, so those of different
/// forks can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(u64);

impl Stamp {
    /// Wraps the number.
    pub const fn new(number: u64) -> Stamp {
        Stamp(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageKind {
    /// Records.
    Leaf = 1,
    /// References to leaves or to branches of the level below.
    Branch = 2,
    /// The first page of a large value.
    Run = 3,
}

/// A reference to a leaf or branch: 4 bytes id, 8 bytes birth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildRef {
    /// Where.
    pub id: PageId,
    /// When it was made.
    pub birth: Stamp,
}

/// A reference to a large value: 4 bytes id of its first page, 4 bytes length of the value, 8 bytes birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunRef {
    /// The first of its pages.
    pub id: PageId,
    /// Bytes of the value.
    pub length: u32,
    /// When it was made.
    pub birth: Stamp,
}

impl RunRef {
    /// Pages of the run.
    pub fn pages(self) -> u32 {
        run_pages(self.length as usize)
    }
}

/// Pages that a large value takes.
pub(crate) fn run_pages(length: usize) -> u32 {
    u32::try_from((PAGE_HEADER_BYTES + length).div_ceil(PAGE_BYTES)).expect("values are far below 16 TiB")
}

/// What goes into a slot with its key.
#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    Inline(&'a [u8]),
    Run(RunRef),
    Child(ChildRef),
}

/// A key with what it leads to.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) body: Body<'a>,
}

impl Cell<'_> {
    /// Bytes in the heap.
    pub(crate) fn bytes(&self) -> usize {
        self.key.len()
            + match self.body {
                Body::Inline(value) => 2 + value.len(),
                Body::Run(_) => 2 + RUN_REF_BYTES,
                Body::Child(_) => CHILD_REF_BYTES,
            }
    }
}

/// The four bytes of `key` behind the prefix.
fn head(key: &[u8], prefix_length: usize) -> u32 {
    let rest = key.get(prefix_length..).unwrap_or(&[]);
    match rest.first_chunk() {
        Some(bytes) => u32::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 4];
            bytes[..rest.len()].copy_from_slice(rest);
            u32::from_be_bytes(bytes)
        }
    }
}

/// Bytes that two keys start with alike.
pub(crate) fn common_length(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

#[cfg(test)]
mod tests;
