//! The end of a region that works, in the process that is not trusted. It trusts the host.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::host::{at, doors, slot_words};
use super::words::Turn;
use super::{Doors, REGION_BYTES_MAX, Shape, SlotWords};
use crate::memory::SharedMemory;

/// The end of a region that works.
#[derive(Debug)]
pub struct GuestEnd {
    memory: SharedMemory,
    shape: Shape,
}

/// The host gave the request up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host gave this request up")]
pub struct HostGone;

impl GuestEnd {
    /// Maps the region that a host made with this shape.
    ///
    /// # Errors
    /// What the kernel says; a region of another size is `InvalidData`.
    pub fn open(descriptor: OwnedFd, shape: Shape) -> io::Result<GuestEnd> {
        let memory = SharedMemory::open(descriptor, REGION_BYTES_MAX)?;
        if memory.bytes() != shape.region_bytes() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the region has another shape"));
        }
        Ok(GuestEnd { memory, shape })
    }

    /// Tells the host that requests will be taken, with a number about this guest that is not zero.
    pub fn set_ready(&self, about: u32) {
        self.doors().set_ready(about);
    }

    /// Waits for requests: `spins` looks, then at most `limit` asleep. The slots that have one, as bits; possibly none.
    pub fn take_submitted(&self, spins: u32, limit: Duration) -> u64 {
        self.doors().take_submitted(spins, limit)
    }

    /// Whether the host wants its event now. Ask before each wait.
    pub fn must_notify(&self) -> bool {
        self.doors().must_notify()
    }

    /// Whether the host says that many short requests come.
    pub fn is_hot(&self) -> bool {
        self.doors().is_hot()
    }

    /// Takes up the request in a slot; `None`: the host gave it up.
    pub fn begin(&self, slot: u32) -> Option<GuestSlot<'_>> {
        let words = slot_words(&self.memory, self.shape, slot);
        let generation = words.begin()?;
        Some(GuestSlot { end: self, words, slot, generation })
    }

    fn doors(&self) -> &Doors {
        doors(&self.memory)
    }
}

/// A request that the guest works on.
#[derive(Debug)]
pub struct GuestSlot<'end> {
    end: &'end GuestEnd,
    words: &'end SlotWords,
    slot: u32,
    generation: u32,
}

impl<'end> GuestSlot<'end> {
    /// The request, in place.
    pub fn request(&self) -> &'end [u8] {
        let offset = self.words.request_offset.load(Ordering::Relaxed);
        let count = self.words.request_bytes.load(Ordering::Relaxed) as usize;
        // SAFETY: inside the region (`at`), which lives as long as the end. The host, whom this side trusts, writes to a request only
        // before it posts it, and this side never does.
        unsafe { std::slice::from_raw_parts(at(&self.end.memory, offset, count).as_ptr(), count) }
    }

    /// The bytes for the reply, in place.
    pub fn reply_area(&mut self) -> &mut [u8] {
        let offset = self.reply_offset();
        let count = self.reply_capacity();
        // SAFETY: inside the region (`at`); only this request's owner, borrowed uniquely here, refers to these bytes. The host reads
        // them by copying, after the turn was passed to it.
        unsafe { std::slice::from_raw_parts_mut(at(&self.end.memory, offset, count).as_ptr(), count) }
    }

    /// Bytes of the reply area.
    pub fn reply_capacity(&self) -> usize {
        self.words.reply_capacity.load(Ordering::Relaxed) as usize
    }

    fn reply_offset(&self) -> u32 {
        let request_bytes = self.words.request_bytes.load(Ordering::Relaxed);
        self.words.request_offset.load(Ordering::Relaxed) + request_bytes.next_multiple_of(super::PART_ALIGNMENT)
    }

    /// Whether a thread of the host attends this request, which calls need.
    pub fn is_attended(&self) -> bool {
        self.words.is_attended()
    }

    /// Completes the request with the first `reply_bytes` bytes of the reply area.
    pub fn complete(self, reply_bytes: u32, status: u32) {
        self.words.reply_bytes.store(reply_bytes, Ordering::Relaxed);
        self.words.status.store(status, Ordering::Relaxed);
        self.end.doors().complete(self.slot, self.words, self.generation);
    }

    /// Passes the first `bytes` bytes of the reply area to the host as a [`Turn::Part`], [`Turn::Call`] or [`Turn::More`], and waits
    /// for its answer after `spins` looks. `status` is for the host to interpret.
    /// Returns the piece of the answer that came, and how many bytes are left behind it.
    ///
    /// # Errors
    /// [`HostGone`] when the host gave up.
    ///
    /// # Panics
    /// When nobody attends the request, or `turn` is none of the three.
    pub fn pass(&mut self, turn: Turn, bytes: u32, status: u32, spins: u32) -> Result<(&[u8], u32), HostGone> {
        assert!(self.is_attended(), "a call needs somebody who serves it");
        assert!(matches!(turn, Turn::Part | Turn::Call | Turn::More), "{turn:?} does not ask for an answer");
        self.words.reply_bytes.store(bytes, Ordering::Relaxed);
        self.words.status.store(status, Ordering::Relaxed);
        self.words.pass_to_host(turn, self.generation);
        if !self.words.await_host(turn, self.generation, spins) {
            return Err(HostGone);
        }
        let offset = self.reply_offset() + (self.reply_capacity() as u32).next_multiple_of(super::PART_ALIGNMENT);
        let count = self.words.answer_bytes.load(Ordering::Relaxed) as usize;
        let left = self.words.answer_left.load(Ordering::Relaxed);
        // SAFETY: inside the region (`at`); the host writes answers only while the turn is its own, and the borrow ends before this
        // side passes it again.
        let answer = unsafe { std::slice::from_raw_parts(at(&self.end.memory, offset, count).as_ptr(), count) };
        Ok((answer, left))
    }
}
