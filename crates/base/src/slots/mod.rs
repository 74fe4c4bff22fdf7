//! Slots: requests to a process that is not trusted, over shared memory, each in a place of its own.
//!
//! A *host* asks, a *guest* works. Their region has a number of slots, a bit per slot in each direction ("here is a request", "here
//! is a reply"), and bytes for each slot, with an arena for what is larger. A pipe or a ring would tie requests together by their
//! order: whoever gives one up would leave its bytes in the way of the others. Here giving up is an entry in the host's own book,
//! and the slot is used again when the guest has answered it.
//!
//! During a request the guest may call back: the turn word of the slot goes to and fro between guest and host, as often as needed,
//! without touching any other slot.
//!
//! ```text
//! region   doors | words of each slot | bytes of each slot | arena
//! a place  request | reply and calls of the guest | answers of the host
//! turns    Idle -> Request -> Running -> Done
//!                               |  ^
//!               Part, Call, More v  | Answer
//! ```
//!
//! Invariants:
//! - The host trusts no word of the region. It keeps its own book ([`SlotTable`], generations, lengths), reads a shared word once, and
//!   copies bytes before anybody looks at them. A guest can spoil its own answers and nothing else.
//! - No sequence of steps loses a wake-up; `models.rs` looks for one in every interleaving that shuttle can think of.
//! - The guest trusts the host.

mod guest;
mod host;
#[cfg(test)]
mod models;
mod sync;
mod table;
mod words;

use std::mem::size_of;

use words::{Doors, SlotWords};
pub use words::{Notify, Seen, Turn};
pub use {
    guest::{GuestEnd, GuestSlot, HostGone},
    host::{HostEnd, Incoming},
    table::{Place, SlotTable},
};

/// A word of bits names the slots.
pub const SLOTS_MAX: u32 = 64;
/// Regions stay below this: offsets are 32 bits wide, and nobody should send so much at once.
pub const REGION_BYTES_MAX: usize = 1 << 30;
/// Parts of a place begin on cache lines.
const PART_ALIGNMENT: u32 = 64;
/// Slots and the arena are made of whole pages.
const PAGE_BYTES: u32 = 4096;

/// The sizes of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    slots: u32,
    slot_bytes: u32,
    arena_bytes: u32,
}

/// Sizes that make no region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a region has 1 to {SLOTS_MAX} slots of whole pages, an arena of whole slots, and less than a gibibyte")]
pub struct BadShape;

impl Shape {
    /// `slots` slots of `slot_bytes` bytes, and `arena_bytes` bytes for what does not fit in one.
    ///
    /// # Errors
    /// [`BadShape`] for sizes out of bounds.
    pub fn new(slots: u32, slot_bytes: u32, arena_bytes: u32) -> Result<Shape, BadShape> {
        let is_whole =
            slot_bytes > 0 && slot_bytes.is_multiple_of(PAGE_BYTES) && arena_bytes.is_multiple_of(slot_bytes);
        let total = u64::from(slots) * u64::from(slot_bytes) + u64::from(arena_bytes) + (1 << 20);
        if slots == 0 || slots > SLOTS_MAX || !is_whole || total > REGION_BYTES_MAX as u64 {
            return Err(BadShape);
        }
        Ok(Shape { slots, slot_bytes, arena_bytes })
    }

    /// Number of slots.
    pub fn slots(self) -> u32 {
        self.slots
    }

    /// Bytes of each slot.
    pub fn slot_bytes(self) -> u32 {
        self.slot_bytes
    }

    /// Bytes of the arena.
    pub fn arena_bytes(self) -> u32 {
        self.arena_bytes
    }

    /// The most bytes that one request, its reply and its answers can have together.
    pub fn exchange_bytes_max(self) -> u32 {
        self.slot_bytes.max(self.arena_bytes)
    }

    /// Bytes of the whole region.
    pub fn region_bytes(self) -> usize {
        (self.arena_offset() + self.arena_bytes) as usize
    }

    fn words_bytes(self) -> u32 {
        let bytes = size_of::<Doors>() + self.slots as usize * size_of::<SlotWords>();
        (bytes as u32).next_multiple_of(PAGE_BYTES)
    }

    fn slot_offset(self, slot: u32) -> u32 {
        self.words_bytes() + slot * self.slot_bytes
    }

    fn arena_offset(self) -> u32 {
        self.slot_offset(self.slots)
    }
}

/// The lengths of one request, in bytes: what the host sends, what the guest may reply with (or pass in one piece), and what the host
/// may answer to a call of the guest in one piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Bytes of the request.
    pub request_bytes: u32,
    /// Bytes for the reply and for calls of the guest.
    pub reply_capacity: u32,
    /// Bytes for answers to such calls.
    pub answer_capacity: u32,
}

impl Exchange {
    /// Bytes of the place that the exchange needs; `None` when no region is so large.
    pub fn bytes(self) -> Option<u32> {
        let request = self.request_bytes.checked_next_multiple_of(PART_ALIGNMENT)?;
        let reply = self.reply_capacity.checked_next_multiple_of(PART_ALIGNMENT)?;
        request.checked_add(reply)?.checked_add(self.answer_capacity)
    }

    fn reply_offset(self) -> u32 {
        self.request_bytes.next_multiple_of(PART_ALIGNMENT)
    }

    fn answer_offset(self) -> u32 {
        self.reply_offset() + self.reply_capacity.next_multiple_of(PART_ALIGNMENT)
    }
}
