//! The shared region of one client: a page that says what it is, then two rings.
//!
//! ```text
//! 0        page of facts: u64 magic, u32 version, u32 request ring bytes, u32 reply ring bytes, u32 slot, u32 generation, u32 start
//! 4096     control words of the request ring (client to server), then of the reply ring
//! 8192     bytes of the request ring, then of the reply ring
//! ```
//!
//! The server makes a region for each connection, never uses one again, and never reads the page of facts itself. The client copies
//! it once, and compares it with what the handshake said.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use tine_base::memory::SharedMemory;

use crate::ring::{Consumer, Control, Place, Producer};

const MAGIC: u64 = u64::from_le_bytes(*b"TINERING");
const VERSION: u32 = 1;
const CONTROL_OFFSET: usize = 4096;
const DATA_OFFSET: usize = 8192;

/// Smallest ring: less is all overhead.
pub(crate) const RING_BYTES_MIN: u32 = 4096;
/// Largest ring: beyond this only memory is lost.
pub(crate) const RING_BYTES_MAX: u32 = 1 << 28;

/// What both sides must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Facts {
    magic: u64,
    version: u32,
    pub request_ring_bytes: u32,
    pub reply_ring_bytes: u32,
    pub slot: u32,
    pub generation: u32,
    /// Cursor that the rings start at.
    pub start: u32,
}

impl Facts {
    pub fn new(ring_bytes: u32, slot: u32, generation: u32, start: u32) -> Facts {
        Facts {
            magic: MAGIC,
            version: VERSION,
            request_ring_bytes: ring_bytes,
            reply_ring_bytes: ring_bytes,
            slot,
            generation,
            start,
        }
    }

    fn are_sound(&self) -> bool {
        let sound = |bytes: u32| bytes.is_power_of_two() && (RING_BYTES_MIN..=RING_BYTES_MAX).contains(&bytes);
        self.magic == MAGIC && self.version == VERSION && sound(self.request_ring_bytes) && sound(self.reply_ring_bytes)
    }

    fn region_bytes(&self) -> usize {
        DATA_OFFSET + self.request_ring_bytes as usize + self.reply_ring_bytes as usize
    }
}

/// One side's ends of both rings.
#[derive(Debug)]
pub(crate) struct Rings {
    pub outgoing: Producer,
    pub incoming: Consumer,
}

/// A region as its maker has it.
pub(crate) struct Region {
    pub memory: Arc<SharedMemory>,
    pub rings: Rings,
}

impl Region {
    /// The server's side: makes a region.
    pub fn create(facts: Facts) -> io::Result<Region> {
        assert!(facts.are_sound(), "the server checks its options");
        const { assert!(2 * size_of::<Control>() <= DATA_OFFSET - CONTROL_OFFSET || cfg!(test)) };
        let memory = Arc::new(SharedMemory::create("tine-ipc", facts.region_bytes())?);
        let (requests, replies) = places(&memory, &facts);
        // SAFETY: the region starts page-aligned, is larger than the facts, and nobody else has seen it yet; the words are zero, which
        // is a valid `Control`. Each ring gets one producer and one consumer here, and the rings keep the memory alive.
        let rings = unsafe {
            memory.address().cast::<Facts>().write(facts);
            requests.control.as_ref().start_at(facts.start);
            replies.control.as_ref().start_at(facts.start);
            Rings {
                outgoing: Producer::new(replies, memory.clone()),
                incoming: Consumer::new(requests, memory.clone()),
            }
        };
        Ok(Region { memory, rings })
    }

    /// The client's side: maps a region the server has passed, and checks that it is the one of this slot and generation.
    pub fn open(descriptor: OwnedFd, slot: u32, generation: u32) -> io::Result<Rings> {
        let bad = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        let memory = Arc::new(SharedMemory::open(descriptor, DATA_OFFSET + 2 * RING_BYTES_MAX as usize)?);
        if memory.bytes() < DATA_OFFSET {
            return Err(bad("a shared region without room for rings"));
        }
        // SAFETY: the region starts page-aligned and is larger than the facts, which are plain numbers: any bytes are valid ones.
        let facts = unsafe { memory.address().cast::<Facts>().read_volatile() };
        if !facts.are_sound() || facts.region_bytes() > memory.bytes() {
            return Err(bad("a shared region that is not laid out as one of this version"));
        }
        if (facts.slot, facts.generation) != (slot, generation) {
            return Err(bad("the shared region of another connection"));
        }
        let (requests, replies) = places(&memory, &facts);
        // SAFETY: the places are inside the region as was just checked on our own copy of the facts; one producer and one consumer
        // are made here, and the rings keep the memory alive.
        let rings = unsafe {
            Rings { outgoing: Producer::new(requests, memory.clone()), incoming: Consumer::new(replies, memory) }
        };
        Ok(rings)
    }
}

/// Where the request ring and the reply ring are.
fn places(memory: &SharedMemory, facts: &Facts) -> (Place, Place) {
    let at = |offset: usize| -> NonNull<u8> {
        assert!(offset < memory.bytes(), "everything is inside the region");
        // SAFETY: the offset is inside the mapping.
        unsafe { memory.address().add(offset) }
    };
    let place = |control_offset: usize, data_offset: usize, capacity_bytes: u32| Place {
        control: at(control_offset).cast::<Control>(),
        data: at(data_offset),
        capacity_bytes,
        start: facts.start,
    };
    let reply_data = DATA_OFFSET + facts.request_ring_bytes as usize;
    (
        place(CONTROL_OFFSET, DATA_OFFSET, facts.request_ring_bytes),
        place(CONTROL_OFFSET + size_of::<Control>(), reply_data, facts.reply_ring_bytes),
    )
}
