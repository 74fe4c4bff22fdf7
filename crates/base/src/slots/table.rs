//! Which slots and which blocks of the arena are in use: the host's private book, never read from shared memory.

use super::Shape;

/// What the arena is given out in: a page, so that neighbours do not share one and little is wasted.
const BLOCK_BYTES: u32 = super::PAGE_BYTES;

/// The places of one use of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which slot.
    pub slot: u32,
    /// Where its bytes begin, from the start of the region.
    pub offset: u32,
    /// How many there are.
    pub bytes: u32,
}

/// The host's book of free places.
#[derive(Debug)]
pub struct SlotTable {
    shape: Shape,
    /// A bit for each free slot.
    free_slots: u64,
    /// Whether each block of the arena is in use.
    blocks: Vec<bool>,
}

impl SlotTable {
    /// Everything is free.
    pub fn new(shape: Shape) -> SlotTable {
        let free_slots = u64::MAX >> (u64::BITS - shape.slots());
        SlotTable { shape, free_slots, blocks: vec![false; (shape.arena_bytes() / BLOCK_BYTES) as usize] }
    }

    /// Takes a slot with room for `bytes` bytes: its own, or where they do not fit, adjoining blocks of the arena. `None`: nothing is
    /// free now.
    pub fn take(&mut self, bytes: u32) -> Option<Place> {
        if self.free_slots == 0 {
            return None;
        }
        let slot = self.free_slots.trailing_zeros();
        let (offset, bytes) = if bytes <= self.shape.slot_bytes() {
            (self.shape.slot_offset(slot), self.shape.slot_bytes())
        } else {
            let count = bytes.div_ceil(BLOCK_BYTES);
            let first = self.take_blocks(count as usize)?;
            (self.shape.arena_offset() + first as u32 * BLOCK_BYTES, count * BLOCK_BYTES)
        };
        self.free_slots &= !(1 << slot);
        Some(Place { slot, offset, bytes })
    }

    /// First fit: the low blocks stay warm, and the high ones cost no memory until they are needed.
    fn take_blocks(&mut self, count: usize) -> Option<usize> {
        let mut run = 0;
        for position in 0..self.blocks.len() {
            run = if self.blocks[position] { 0 } else { run + 1 };
            if run == count {
                let first = position + 1 - count;
                self.blocks[first..=position].fill(true);
                return Some(first);
            }
        }
        None
    }

    /// Gives a place back.
    ///
    /// # Panics
    /// When it is not in use.
    pub fn give_back(&mut self, place: Place) {
        assert_eq!(self.free_slots & (1 << place.slot), 0, "the slot is in use");
        self.free_slots |= 1 << place.slot;
        if place.offset >= self.shape.arena_offset() {
            let first = ((place.offset - self.shape.arena_offset()) / BLOCK_BYTES) as usize;
            let blocks = &mut self.blocks[first..first + (place.bytes / BLOCK_BYTES) as usize];
            assert!(blocks.iter().all(|&used| used), "the blocks are in use");
            blocks.fill(false);
        }
    }

    /// Slots in use.
    pub fn in_use(&self) -> u32 {
        self.shape.slots() - self.free_slots.count_ones()
    }

    /// Bytes of the arena in use.
    pub fn arena_bytes_in_use(&self) -> u32 {
        self.blocks.iter().filter(|&&used| used).count() as u32 * BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape::new(4, 4096, 8 * 4096).expect("a good shape")
    }

    #[test]
    fn places_never_overlap_and_all_come_back() {
        let mut table = SlotTable::new(shape());
        let mut held: Vec<Place> = Vec::new();
        let mut random = 1u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let roll = (random >> 33) as u32;
            if roll.is_multiple_of(2) && !held.is_empty() {
                table.give_back(held.swap_remove(roll as usize % held.len()));
            } else if let Some(place) = table.take(roll % 20_000) {
                assert!(place.bytes >= roll % 20_000);
                let end = place.offset + place.bytes;
                assert!(end as usize <= shape().region_bytes());
                for other in &held {
                    assert_ne!(other.slot, place.slot);
                    assert!(other.offset + other.bytes <= place.offset || end <= other.offset, "{other:?} {place:?}");
                }
                held.push(place);
            }
            assert_eq!(table.in_use() as usize, held.len());
        }
        held.drain(..).for_each(|place| table.give_back(place));
        assert_eq!((table.in_use(), table.arena_bytes_in_use()), (0, 0));
        assert_eq!(table.take(8 * 4096).map(|place| place.bytes), Some(8 * 4096));
        assert_eq!(table.take(2 * 4096), None, "the arena is full");
        assert!(table.take(4096).is_some(), "and a slot's own bytes are not");
    }

    #[test]
    #[should_panic(expected = "in use")]
    fn a_place_is_given_back_once() {
        let mut table = SlotTable::new(shape());
        let place = table.take(1).expect("free");
        table.give_back(place);
        table.give_back(place);
    }
}
