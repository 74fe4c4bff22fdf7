//! The trusted end of a region.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::words::GENERATION_MASK;
use super::{Doors, Exchange, Notify, Place, Seen, Shape, SlotWords};
use crate::memory::SharedMemory;

/// The end of a region that asks.
///
/// Methods take places and generations from the caller's own book. All of them are safe to call from several threads; that no two of
/// them use the same slot at once is the book's business, and breaking it garbles that slot's bytes only.
#[derive(Debug)]
pub struct HostEnd {
    memory: SharedMemory,
    shape: Shape,
}

/// What a guest passed: lengths and a status it claims, the lengths checked against the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Bytes there are to copy.
    pub bytes: u32,
    /// A number of the guest's choice.
    pub status: u32,
}

impl HostEnd {
    /// Makes a region; `label` shows in the memory maps of both processes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create(label: &str, shape: Shape) -> io::Result<HostEnd> {
        Ok(HostEnd { memory: SharedMemory::create(label, shape.region_bytes())?, shape })
    }

    /// The sizes of the region.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Allocates and maps all pages but the arena's now, so that no request pays for it. A kernel that cannot do so does it at first
    /// use. The guest maps what it touches, which is little at first: its start is what somebody may wait for.
    pub fn prefault(&self) {
        let bytes = self.shape.arena_offset() as usize;
        // SAFETY: the range is inside the mapping; populating changes no byte.
        unsafe { libc::madvise(self.memory.address().as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE) };
    }

    fn doors(&self) -> &Doors {
        doors(&self.memory)
    }

    fn slot(&self, slot: u32) -> &SlotWords {
        slot_words(&self.memory, self.shape, slot)
    }

    /// Copies `bytes` into a place, at `position` from its start.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn write(&self, place: Place, position: u32, bytes: &[u8]) {
        let end = position as usize + bytes.len();
        assert!(end <= place.bytes as usize, "{end} bytes in a place of {}", place.bytes);
        let target = self.at(place.offset + position, bytes.len());
        // SAFETY: `at` checked that the target is inside the region, which `self` keeps mapped; `bytes` is private memory, so they do
        // not overlap. A guest that writes there at the same time garbles its own request.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len()) };
    }

    /// Prepares the request whose bytes were written to the start of `place`: from now on it can be [withdrawn](HostEnd::withdraw).
    pub fn prepare(&self, place: Place, generation: u32, exchange: Exchange, notify: Notify) {
        assert!(exchange.bytes().is_some_and(|bytes| bytes <= place.bytes), "the place was taken for the exchange");
        let slot = self.slot(place.slot);
        slot.request_offset.store(place.offset, Ordering::Relaxed);
        slot.request_bytes.store(exchange.request_bytes, Ordering::Relaxed);
        slot.reply_capacity.store(exchange.reply_capacity, Ordering::Relaxed);
        slot.answer_capacity.store(exchange.answer_capacity, Ordering::Relaxed);
        slot.prepare(generation & GENERATION_MASK, notify);
    }

    /// Lets the guest find the prepared request of a slot. One that was withdrawn meanwhile is skipped by the guest, also when the
    /// slot was prepared anew.
    pub fn submit(&self, slot: u32) {
        self.doors().submit(slot);
    }

    /// The slots whose requests were completed since the last time, as bits. The guest may claim any.
    pub fn take_completed(&self) -> u64 {
        self.doors().take_completed()
    }

    /// Asks for the region's event at the next completion. `false`: there is one already; take it instead of waiting.
    pub fn arm(&self) -> bool {
        self.doors().arm()
    }

    /// What the guest told when it got ready; 0 until then.
    pub fn ready(&self) -> u32 {
        self.doors().ready()
    }

    /// Tells the guest whether many short requests come, which it may make use of as it likes.
    pub fn set_hot(&self, is_hot: bool) {
        self.doors().set_hot(is_hot);
    }

    /// The turn of a slot.
    pub fn seen(&self, slot: u32, generation: u32) -> Seen {
        self.slot(slot).seen(generation & GENERATION_MASK)
    }

    /// Waits for the guest to reply or to call: `spins` looks, then at most `limit` asleep. Returns early with the turn as it is.
    pub fn await_guest(&self, slot: u32, generation: u32, spins: u32, limit: Duration) -> Seen {
        self.slot(slot).await_guest(generation & GENERATION_MASK, spins, limit)
    }

    /// What the guest passed in a slot whose turn is the host's. `None`: it claims more bytes than it was given room for.
    pub fn incoming(&self, slot: u32, exchange: Exchange) -> Option<Incoming> {
        let words = self.slot(slot);
        let bytes = words.reply_bytes.load(Ordering::Relaxed);
        let status = words.status.load(Ordering::Relaxed);
        (bytes <= exchange.reply_capacity).then_some(Incoming { bytes, status })
    }

    /// Appends a copy of what the guest passed to `into`.
    pub fn copy_incoming(&self, place: Place, exchange: Exchange, incoming: Incoming, into: &mut Vec<u8>) {
        assert!(incoming.bytes <= exchange.reply_capacity, "checked when it came in");
        let count = incoming.bytes as usize;
        let source = self.at(place.offset + exchange.reply_offset(), count);
        into.reserve(count);
        // SAFETY: the source is inside the region (`at`), the target is the spare capacity just reserved. The guest may write while
        // this copies: any bytes are as good as any others from it, and they are looked at in the copy only.
        unsafe {
            std::ptr::copy_nonoverlapping(source.as_ptr(), into.as_mut_ptr().add(into.len()), count);
            into.set_len(into.len() + count);
        }
    }

    /// Answers the call of a guest with the first bytes of `answer`, as many as fit, and gives it the turn. Returns how many went.
    pub fn answer(&self, place: Place, generation: u32, exchange: Exchange, answer: &[u8]) -> usize {
        let count = answer.len().min(exchange.answer_capacity as usize);
        self.write(place, exchange.answer_offset(), &answer[..count]);
        let slot = self.slot(place.slot);
        slot.answer_bytes.store(count as u32, Ordering::Relaxed);
        slot.answer_left.store(u32::try_from(answer.len() - count).unwrap_or(u32::MAX), Ordering::Relaxed);
        slot.pass_to_guest(generation & GENERATION_MASK);
        count
    }

    /// Takes back a request that the guest has not begun: its slot is free at once. `false`: the guest has begun it.
    pub fn withdraw(&self, slot: u32, generation: u32) -> bool {
        let words = self.slot(slot);
        let is_withdrawn = words.withdraw(generation & GENERATION_MASK);
        if is_withdrawn {
            words.wake_host();
        }
        is_withdrawn
    }

    /// Gives a slot up, because the guest is gone or about to be killed: wakes the thread that waits for it.
    pub fn close(&self, slot: u32, generation: u32) {
        self.slot(slot).close(generation & GENERATION_MASK);
    }

    fn at(&self, offset: u32, bytes: usize) -> NonNull<u8> {
        at(&self.memory, offset, bytes)
    }
}

impl AsFd for HostEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

pub(super) fn doors(memory: &SharedMemory) -> &Doors {
    let address = at(memory, 0, size_of::<Doors>()).cast::<Doors>();
    // SAFETY: inside the region, which starts on a page, and alive as long as the borrow; the type is atomics only, for which every
    // byte pattern is a value and concurrent writes are allowed.
    unsafe { address.as_ref() }
}

pub(super) fn slot_words(memory: &SharedMemory, shape: Shape, slot: u32) -> &SlotWords {
    assert!(slot < shape.slots, "slot {slot} of {}", shape.slots);
    let offset = size_of::<Doors>() + slot as usize * size_of::<SlotWords>();
    let address = at(memory, offset as u32, size_of::<SlotWords>()).cast::<SlotWords>();
    // SAFETY: as in `doors`; both types are multiples of their alignment long, so the address is aligned.
    unsafe { address.as_ref() }
}

pub(super) fn at(memory: &SharedMemory, offset: u32, bytes: usize) -> NonNull<u8> {
    assert!(offset as usize + bytes <= memory.bytes(), "{bytes} bytes at {offset} of {}", memory.bytes());
    // SAFETY: stays inside the mapping, as just checked.
    unsafe { memory.address().add(offset as usize) }
}
