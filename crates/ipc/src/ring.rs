//! A ring of bytes between one producer and one consumer in different processes, and the proof that neither sleeps for ever.
//!
//! A ring is a stream of bytes, like a socket: a frame may be larger than the ring and passes through it in pieces. Cursors count
//! bytes from the beginning and wrap at 2^32; the capacity is a power of two, so that a cursor's low bits are the position.
//!
//! **Waking.** A side that finds nothing to do *arms*: it raises its `waits` flag and then looks once more. The other side moves its
//! cursor and then looks at the flag; if it is up, it takes it down and rings the bell. Between its two steps each side has a
//! sequentially consistent fence, so one of the two sees the other: no wake-up is lost (`models.rs` tries the interleavings). A flag
//! is taken down by an exchange, so a sleep costs one ring, and a stream of messages to a side that is awake costs none.
//!
//! **Speed.** What a message costs between cores is lines of memory that change sides one after another. The cursor is therefore a
//! plain store, whose line is fetched together with those of the bytes, and a consumer that finds nothing asks for the lines where the
//! next bytes will be, so that they arrive together with the cursor.
//!
//! **Trust.** The other side may write any word at any time. So:
//! - a side's own cursor lives in its own memory; the shared word is write-only for it;
//! - the other cursor is read once, compared with what is possible, and only then used: [`RingFault`] otherwise;
//! - bytes are copied out, never referred to in place;
//! - flags decide about wake-ups alone: a lie there costs the liar its own progress, or us a spare system call.

use std::any::Any;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use thiserror::Error;

use crate::sync::{AtomicU32, Ordering, full_fence};

/// A reader gives space back after this part of the ring at the latest, a writer shows what it wrote after it: both sides then work
/// at the same time on a message larger than the ring.
const PIECES: u32 = 8;

/// The other side broke a rule of the ring: a cursor outside of what is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a cursor of the ring is out of range: {found} where {from} to {to} are possible")]
pub struct RingFault {
    /// What the shared word said.
    pub found: u32,
    /// First possible cursor, wrapping.
    pub from: u32,
    /// Last possible cursor, wrapping.
    pub to: u32,
}

/// Keeps words that different sides write apart: two lines, because processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Line<T>(T);

/// The shared words of a ring. All-zero memory is an empty ring that starts at cursor 0.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Control {
    /// Bytes written so far; the producer's.
    tail: Line<AtomicU32>,
    /// Bytes read so far; the consumer's.
    head: Line<AtomicU32>,
    /// The consumer waits for bytes.
    consumer_waits: Line<AtomicU32>,
    /// The producer waits for space.
    producer_waits: Line<AtomicU32>,
}

impl Control {
    /// Lets both cursors start at `cursor`; before anybody uses the ring.
    pub fn start_at(&self, cursor: u32) {
        self.tail.0.store(cursor, Ordering::SeqCst);
        self.head.0.store(cursor, Ordering::SeqCst);
    }
}

/// Where a ring is: its words, and its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub control: NonNull<Control>,
    pub data: NonNull<u8>,
    /// A power of two, 2^31 at most, so that a full ring and an empty one differ.
    pub capacity_bytes: u32,
    /// Cursor that both sides start at.
    pub start: u32,
}

/// What keeps a ring's memory alive.
pub(crate) type Memory = Arc<dyn Any + Send + Sync>;

impl Place {
    fn check(&self) {
        assert!(
            self.capacity_bytes.is_power_of_two() && self.capacity_bytes <= 1 << 31,
            "the capacity is a power of two"
        );
    }
}

/// Takes the flag down; true if it was up: ring the bell.
fn take_flag(flag: &AtomicU32) -> bool {
    // SYNC: pairs with the store in `arm`; the exchange makes one ring out of one sleep.
    flag.load(Ordering::SeqCst) != 0 && flag.swap(0, Ordering::SeqCst) != 0
}

/// The writing side.
#[derive(Debug)]
pub(crate) struct Producer {
    place: Place,
    /// Bytes written, of which those up to `shown` are visible to the consumer.
    tail: u32,
    shown: u32,
    /// The consumer's cursor as last seen.
    head: u32,
    _memory: Memory,
}

/// The reading side.
#[derive(Debug)]
pub(crate) struct Consumer {
    place: Place,
    /// Bytes read, of which the producer knows those up to `released`.
    head: u32,
    released: u32,
    /// The producer's cursor as last seen.
    tail: u32,
    _memory: Memory,
}

// SAFETY: a side owns its private cursors, and the shared words behind its pointers are atomics; the bytes it touches are its own by
// the rules of the ring, or garbage that it copies if the other side breaks them. Neither side is shared between threads.
unsafe impl Send for Producer {}
// SAFETY: as above.
unsafe impl Send for Consumer {}

impl Producer {
    /// # Safety
    /// `place` must refer to memory that lives as long as `memory` does: a `Control`, and `capacity_bytes` bytes. There must be at
    /// most one producer of a ring in this process.
    pub unsafe fn new(place: Place, memory: Memory) -> Producer {
        place.check();
        Producer { place, tail: place.start, shown: place.start, head: place.start, _memory: memory }
    }

    fn control(&self) -> &Control {
        // SAFETY: `new` demands a live `Control`; it consists of atomics, which other processes may write.
        unsafe { self.place.control.as_ref() }
    }

    /// What only a hostile producer does.
    #[cfg(test)]
    pub fn lie_about_tail(&self, tail: u32) {
        self.control().tail.0.store(tail, Ordering::SeqCst);
    }

    fn known_free(&self) -> u32 {
        self.place.capacity_bytes - self.tail.wrapping_sub(self.head)
    }

    /// Bytes that can be written now. Looks at the consumer's cursor only when fewer than `wanted` are known to be free.
    ///
    /// # Errors
    /// [`RingFault`].
    pub fn free(&mut self, wanted: u32) -> Result<u32, RingFault> {
        if self.known_free() < wanted.min(self.place.capacity_bytes) {
            // SYNC: pairs with the store of `head` in `Consumer::release`: the consumer has copied what it gives back.
            let head = self.control().head.0.load(Ordering::SeqCst);
            if head.wrapping_sub(self.head) > self.shown.wrapping_sub(self.head) {
                return Err(RingFault { found: head, from: self.head, to: self.shown });
            }
            self.head = head;
        }
        Ok(self.known_free())
    }

    /// Writes as much as there is room for and returns how much that was. The consumer sees it after [`show`](Self::show).
    ///
    /// # Errors
    /// [`RingFault`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, RingFault> {
        let wanted = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let count = self.free(wanted)?.min(wanted).min((self.place.capacity_bytes / PIECES).max(1)) as usize;
        let position = (self.tail & (self.place.capacity_bytes - 1)) as usize;
        let first = count.min(self.place.capacity_bytes as usize - position);
        // SAFETY: both parts are inside the ring's bytes, and the source parts inside `bytes`. The consumer does not read there until
        // `show`; if it does nevertheless, it is its own copy that is garbage.
        unsafe {
            let data = self.place.data.as_ptr();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data.add(position), first);
            if first < count {
                std::ptr::copy_nonoverlapping(bytes.as_ptr().add(first), data, count - first);
            }
        }
        self.tail = self.tail.wrapping_add(count as u32);
        Ok(count)
    }

    /// Writes two parts if there is room for both of them now, and if they are small for the ring; else nothing. The consumer sees
    /// them after [`show`](Self::show).
    ///
    /// # Errors
    /// [`RingFault`].
    pub fn write_whole(&mut self, first: &[u8], second: &[u8]) -> Result<bool, RingFault> {
        let bytes = first.len() + second.len();
        if bytes > (self.place.capacity_bytes / PIECES) as usize || self.free(bytes as u32)? < bytes as u32 {
            return Ok(false);
        }
        let written = self.write(first)? + self.write(second)?;
        assert_eq!(written, bytes, "there was room");
        Ok(true)
    }

    /// Makes what was written visible. True: the consumer sleeps, ring its bell.
    #[must_use]
    pub fn show(&mut self) -> bool {
        if self.shown == self.tail {
            return false;
        }
        self.shown = self.tail;
        // SYNC: pairs with the load in `Consumer::available`; the fence with that in `Consumer::arm`, see the module's text.
        self.control().tail.0.store(self.tail, Ordering::Release);
        full_fence();
        take_flag(&self.control().consumer_waits.0)
    }

    /// Announces a sleep until there is room. False: there is some already, do not sleep.
    ///
    /// # Errors
    /// [`RingFault`].
    pub fn arm(&mut self) -> Result<bool, RingFault> {
        assert_eq!(self.shown, self.tail, "nothing is kept from the consumer while the producer sleeps");
        // SYNC: the fence pairs with that in `Consumer::release`.
        self.control().producer_waits.0.store(1, Ordering::SeqCst);
        full_fence();
        if self.free(u32::MAX)? == 0 {
            return Ok(true);
        }
        self.disarm();
        Ok(false)
    }

    /// Takes the announcement back.
    pub fn disarm(&self) {
        self.control().producer_waits.0.store(0, Ordering::SeqCst);
    }
}

impl Consumer {
    /// # Safety
    /// As [`Producer::new`], for the consumer.
    pub unsafe fn new(place: Place, memory: Memory) -> Consumer {
        place.check();
        Consumer { place, head: place.start, released: place.start, tail: place.start, _memory: memory }
    }

    fn control(&self) -> &Control {
        // SAFETY: `new` demands a live `Control`; it consists of atomics, which other processes may write.
        unsafe { self.place.control.as_ref() }
    }

    /// What only a hostile consumer does.
    #[cfg(test)]
    pub fn lie_about_head(&self, head: u32) {
        self.control().head.0.store(head, Ordering::SeqCst);
    }

    /// Bytes that can be read now.
    ///
    /// # Errors
    /// [`RingFault`].
    pub fn available(&mut self) -> Result<u32, RingFault> {
        if self.tail == self.head {
            // SYNC: pairs with the store of `tail` in `Producer::show`: bytes before it are written.
            let tail = self.control().tail.0.load(Ordering::SeqCst);
            if tail.wrapping_sub(self.head) > self.place.capacity_bytes - self.head.wrapping_sub(self.released) {
                let to = self.released.wrapping_add(self.place.capacity_bytes);
                return Err(RingFault { found: tail, from: self.head, to });
            }
            self.tail = tail;
            if tail == self.head {
                self.prefetch();
            }
        }
        Ok(self.tail.wrapping_sub(self.head))
    }

    /// Asks for the lines where the next bytes will be.
    fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        for line in 0..2 {
            let position = self.head.wrapping_add(line * 64) & (self.place.capacity_bytes - 1);
            // SAFETY: the position is inside the ring's bytes, and a prefetch changes nothing.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(self.place.data.as_ptr().add(position as usize).cast());
            }
        }
    }

    /// Copies up to `target.len()` bytes out of the ring; returns how many, and whether to ring the producer's bell. Space is given
    /// back in pieces: what is left of one keeps nobody waiting, since a ring that is full has more.
    ///
    /// # Errors
    /// [`RingFault`].
    pub fn read(&mut self, target: &mut [MaybeUninit<u8>]) -> Result<(usize, bool), RingFault> {
        let count = (self.available()?.min(self.piece()) as usize).min(target.len());
        self.copy(self.head, &mut target[..count]);
        Ok((count, self.advance(count as u32)))
    }

    fn piece(&self) -> u32 {
        (self.place.capacity_bytes / PIECES).max(1)
    }

    /// Copies the bytes from `cursor` on; the caller knows that they are there.
    fn copy(&self, cursor: u32, target: &mut [MaybeUninit<u8>]) {
        let position = (cursor & (self.place.capacity_bytes - 1)) as usize;
        let first = target.len().min(self.place.capacity_bytes as usize - position);
        assert!(target.len() - first <= position, "no more than the ring has");
        // SAFETY: both parts are inside the ring's bytes and inside `target`. The producer may be writing there if it breaks the rules;
        // then the copy is garbage, which is validated like anything else.
        unsafe {
            let data = self.place.data.as_ptr();
            let copy = target.as_mut_ptr().cast::<u8>();
            std::ptr::copy_nonoverlapping(data.add(position), copy, first);
            if first < target.len() {
                std::ptr::copy_nonoverlapping(data, copy.add(first), target.len() - first);
            }
        }
    }

    /// Counts bytes as read. True: ring the producer's bell.
    fn advance(&mut self, count: u32) -> bool {
        self.head = self.head.wrapping_add(count);
        self.head.wrapping_sub(self.released) >= self.piece() && self.release()
    }

    /// Copies the first bytes without counting them as read; false if so many are not there.
    ///
    /// # Errors
    /// [`RingFault`].
    pub fn peek(&mut self, target: &mut [MaybeUninit<u8>]) -> Result<bool, RingFault> {
        let is_there = self.available()? as usize >= target.len();
        if is_there {
            self.copy(self.head, target);
        }
        Ok(is_there)
    }

    /// Copies the bytes behind the first `skipped` ones and counts both as read. None, and nothing is read, if they are not all there
    /// yet or too many for one copy. Otherwise: whether to ring the producer's bell.
    ///
    /// # Errors
    /// [`RingFault`].
    pub fn read_behind(&mut self, skipped: usize, target: &mut [MaybeUninit<u8>]) -> Result<Option<bool>, RingFault> {
        let count = skipped + target.len();
        if count > self.piece() as usize || count > self.available()? as usize {
            return Ok(None);
        }
        self.copy(self.head.wrapping_add(skipped as u32), target);
        Ok(Some(self.advance(count as u32)))
    }

    /// Gives back the space of everything read. True: the producer sleeps, ring its bell.
    #[must_use]
    pub fn release(&mut self) -> bool {
        if self.released == self.head {
            return false;
        }
        self.released = self.head;
        // SYNC: pairs with the load in `Producer::free`: the bytes were copied before. The fence pairs with that in `Producer::arm`.
        self.control().head.0.store(self.head, Ordering::Release);
        full_fence();
        take_flag(&self.control().producer_waits.0)
    }

    /// Announces a sleep until there are bytes. False: there are some already, do not sleep.
    ///
    /// # Errors
    /// [`RingFault`].
    pub fn arm(&mut self) -> Result<bool, RingFault> {
        assert_eq!(self.released, self.head, "no space is kept from the producer while the consumer sleeps");
        // SYNC: the fence pairs with that in `Producer::show`.
        self.control().consumer_waits.0.store(1, Ordering::SeqCst);
        full_fence();
        if self.available()? == 0 {
            return Ok(true);
        }
        self.disarm();
        Ok(false)
    }

    /// Takes the announcement back.
    pub fn disarm(&self) {
        self.control().consumer_waits.0.store(0, Ordering::SeqCst);
    }
}
