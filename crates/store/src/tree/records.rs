//! Sorted records packed into one block of bytes: the content of a node.
//!
//! Keys and small values lie in one heap, so that copying a node is two block copies however many records
//! it has. A record is `key ++ value`; its slot says where. Replaced and removed records leave dead bytes
//! behind, which the next copy, or an edit that finds more dead than live bytes, squeezes out.
//!
//! All keys of a node share a prefix (those of a keyspace often a long one). A slot holds the four bytes that
//! follow it, so that a search touches the slots, which lie together, and few keys. The prefix length is found
//! anew when a node is copied, and cut when a key comes that does not share it.
//!
//! Large values are kept outside of the heap and shared between copies of the node.

use std::cmp::Ordering;
use std::sync::Arc;

use super::meter;

/// Values above this many bytes are stored outside of the node: copying a node for a small change must not
/// copy them, and a quarter of [`super::NODE_BYTES`] still lets several records share a node.
pub(super) const INLINE_VALUE_BYTES_MAX: usize = 1024;

/// Spare heap bytes a copied node gets, enough for the edit it is copied for in the common case.
const HEAP_SPARE_BYTES: usize = 256;

/// Spare slots a copied node gets.
const SPARE_SLOTS: usize = 4;

/// Dead bytes below this are not worth an extra copy.
const DEAD_BYTES_MIN: usize = 1024;

/// A slot's `place` when the value is in `large`.
const KIND_LARGE: u16 = 1;
const KIND_INLINE: u16 = 0;

#[derive(Clone, Copy)]
struct Slot {
    /// The four key bytes behind the shared prefix, as a big-endian number padded with zeros.
    head: u32,
    offset: u32,
    key_length: u16,
    kind: u16,
    /// Length of an inline value, index into `large` otherwise.
    value: u32,
}

pub(super) struct Records {
    slots: Vec<Slot>,
    heap: Vec<u8>,
    dead_bytes: usize,
    /// Bytes that all keys start with; there may be more.
    prefix_length: usize,
    large: Vec<Arc<[u8]>>,
    /// The [`meter`] epoch in which the node was made.
    born: u64,
}

impl Default for Records {
    fn default() -> Records {
        Records {
            slots: Vec::new(),
            heap: Vec::new(),
            dead_bytes: 0,
            prefix_length: 0,
            large: Vec::new(),
            born: meter::epoch(),
        }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        let large = self.large.iter().filter(|value| Arc::strong_count(value) == 1).map(|value| value.len());
        meter::free(self.memory_bytes() + large.sum::<usize>());
    }
}

impl Clone for Records {
    fn clone(&self) -> Records {
        meter::displace(self.born, self.memory_bytes());
        if self.dead_bytes > 0 || self.prefix_length != self.shared_prefix(0, self.slots.len()) {
            return self.copy_range(0, self.slots.len());
        }
        let mut slots = Vec::with_capacity(self.slots.len() + SPARE_SLOTS);
        slots.extend_from_slice(&self.slots);
        let mut heap = Vec::with_capacity(self.heap.len() + HEAP_SPARE_BYTES);
        heap.extend_from_slice(&self.heap);
        Records {
            slots,
            heap,
            dead_bytes: 0,
            prefix_length: self.prefix_length,
            large: self.large.clone(),
            born: meter::epoch(),
        }
    }
}

impl Records {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn key(&self, index: usize) -> &[u8] {
        let slot = &self.slots[index];
        let start = slot.offset as usize;
        &self.heap[start..start + usize::from(slot.key_length)]
    }

    pub(super) fn value(&self, index: usize) -> &[u8] {
        let slot = &self.slots[index];
        if slot.kind == KIND_LARGE {
            return &self.large[slot.value as usize];
        }
        let start = slot.offset as usize + usize::from(slot.key_length);
        &self.heap[start..start + slot.value as usize]
    }

    fn memory_bytes(&self) -> usize {
        self.heap.len() + self.slots.len() * size_of::<Slot>()
    }

    /// Bytes that a fresh copy would hold, slots included.
    pub(super) fn live_bytes(&self) -> usize {
        self.heap.len() - self.dead_bytes + self.slots.len() * size_of::<Slot>()
    }

    /// `Ok` with the index of `key`, or `Err` with the index where it would be inserted.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let Some(first) = self.slots.first() else { return Err(0) };
        let start = first.offset as usize;
        let prefix = &self.heap[start..start + self.prefix_length];
        let shared = &key[..key.len().min(self.prefix_length)];
        match shared.cmp(prefix) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.slots.len()),
            Ordering::Equal => {}
        }
        let head = head(key, self.prefix_length);
        let (mut low, mut high) = (0, self.slots.len());
        while low < high {
            let middle = low.midpoint(high);
            let order = self.slots[middle].head.cmp(&head).then_with(|| self.key(middle).cmp(key));
            match order {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    pub(super) fn insert(&mut self, index: usize, key: &[u8], value: &[u8]) {
        let value = if value.len() > INLINE_VALUE_BYTES_MAX { Err(Arc::from(value)) } else { Ok(value) };
        self.cut_prefix(key);
        let slot = self.append(key, value);
        self.slots.insert(index, slot);
    }

    /// `value` is `Ok` for bytes that go into the heap, `Err` for a large value.
    fn append(&mut self, key: &[u8], value: Result<&[u8], Arc<[u8]>>) -> Slot {
        let offset = u32::try_from(self.heap.len()).expect("a node's heap is far below 4 GiB");
        let key_length = u16::try_from(key.len()).expect("keys are bounded by KEY_BYTES_MAX");
        let head = head(key, self.prefix_length);
        self.heap.extend_from_slice(key);
        match value {
            Ok(bytes) => {
                self.heap.extend_from_slice(bytes);
                Slot { head, offset, key_length, kind: KIND_INLINE, value: bytes.len() as u32 }
            }
            Err(shared) => {
                self.large.push(shared);
                Slot { head, offset, key_length, kind: KIND_LARGE, value: self.large.len() as u32 - 1 }
            }
        }
    }

    /// Cuts the shared prefix to what `key`, which is about to come in, shares too.
    fn cut_prefix(&mut self, key: &[u8]) {
        if self.slots.is_empty() {
            self.prefix_length = 0;
            return;
        }
        let shared = common_length(&self.key(0)[..self.prefix_length], key);
        if shared < self.prefix_length {
            self.prefix_length = shared;
            for index in 0..self.slots.len() {
                self.slots[index].head = head(self.key(index), shared);
            }
        }
    }

    /// Bytes that all keys of a range start with.
    fn shared_prefix(&self, start: usize, end: usize) -> usize {
        // Keys in between share what the outer ones do.
        if start == end { 0 } else { common_length(self.key(start), self.key(end - 1)) }
    }

    /// Takes the value at `index` as something that can outlive the node; inline bytes go to `inline`.
    pub(super) fn copy_value(&self, index: usize, inline: &mut Vec<u8>) -> Option<Arc<[u8]>> {
        let slot = &self.slots[index];
        if slot.kind == KIND_LARGE {
            return Some(Arc::clone(&self.large[slot.value as usize]));
        }
        inline.extend_from_slice(self.value(index));
        None
    }

    pub(super) fn replace_value(&mut self, index: usize, value: &[u8]) {
        let slot = self.slots[index];
        if slot.kind == KIND_INLINE && slot.value as usize == value.len() {
            let start = slot.offset as usize + usize::from(slot.key_length);
            self.heap[start..start + value.len()].copy_from_slice(value);
            return;
        }
        let key = self.key(index).to_vec();
        self.remove(index);
        self.insert(index, &key, value);
    }

    pub(super) fn remove(&mut self, index: usize) {
        let slot = self.slots.remove(index);
        self.dead_bytes += usize::from(slot.key_length);
        if slot.kind == KIND_LARGE {
            let moved = self.large.len() as u32 - 1;
            let removed = self.large.swap_remove(slot.value as usize);
            // It may be as young as the epoch; then this counts too much.
            meter::displace(0, removed.len());
            if moved != slot.value {
                let owner = self.slots.iter_mut().find(|other| other.kind == KIND_LARGE && other.value == moved);
                owner.expect("every large value has a slot").value = slot.value;
            }
        } else {
            self.dead_bytes += slot.value as usize;
        }
        if self.dead_bytes > DEAD_BYTES_MIN && self.dead_bytes > self.heap.len() / 2 {
            *self = self.copy_range(0, self.slots.len());
        }
    }

    /// Cuts off the records from `at` on.
    pub(super) fn split_off(&mut self, at: usize) -> Records {
        let right = self.copy_range(at, self.slots.len());
        *self = self.copy_range(0, at);
        right
    }

    /// Appends copies of all records of `right`, whose keys are greater.
    pub(super) fn append_all(&mut self, right: &Records) {
        if right.len() > 0 {
            self.cut_prefix(right.key(right.len() - 1));
        }
        for index in 0..right.len() {
            let slot = self.append(right.key(index), right.stored(index));
            self.slots.push(slot);
        }
    }

    fn stored(&self, index: usize) -> Result<&[u8], Arc<[u8]>> {
        let slot = &self.slots[index];
        if slot.kind == KIND_LARGE { Err(Arc::clone(&self.large[slot.value as usize])) } else { Ok(self.value(index)) }
    }

    fn copy_range(&self, start: usize, end: usize) -> Records {
        let mut copy = Records {
            slots: Vec::with_capacity(end - start + SPARE_SLOTS),
            heap: Vec::with_capacity(self.heap_bytes(start, end) + HEAP_SPARE_BYTES),
            dead_bytes: 0,
            prefix_length: self.shared_prefix(start, end),
            large: Vec::new(),
            born: meter::epoch(),
        };
        for index in start..end {
            let slot = copy.append(self.key(index), self.stored(index));
            copy.slots.push(slot);
        }
        copy
    }

    fn heap_bytes(&self, start: usize, end: usize) -> usize {
        let inline = |slot: &Slot| if slot.kind == KIND_INLINE { slot.value as usize } else { 0 };
        self.slots[start..end].iter().map(|slot| usize::from(slot.key_length) + inline(slot)).sum()
    }

    /// The index at which the bytes before and after are closest to equal; between 1 and `len() - 1`.
    pub(super) fn middle(&self) -> usize {
        let half = self.live_bytes() / 2;
        let mut bytes = 0;
        for index in 0..self.slots.len() {
            bytes += self.heap_bytes(index, index + 1) + size_of::<Slot>();
            if bytes >= half {
                return (index + 1).clamp(1, self.slots.len() - 1);
            }
        }
        self.slots.len() - 1
    }

    /// Checks what every edit must preserve.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.heap_bytes(0, self.len()) + self.dead_bytes, self.heap.len());
        for index in 1..self.len() {
            assert!(self.key(index - 1) < self.key(index), "keys are sorted");
        }
        for (index, slot) in self.slots.iter().enumerate() {
            assert_eq!(slot.head, head(self.key(index), self.prefix_length));
            assert_eq!(self.key(index)[..self.prefix_length], self.key(0)[..self.prefix_length]);
        }
        let mut used: Vec<u32> =
            self.slots.iter().filter(|slot| slot.kind == KIND_LARGE).map(|slot| slot.value).collect();
        used.sort_unstable();
        assert!(used.iter().copied().eq(0..self.large.len() as u32), "each large value has one slot");
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
pub(super) fn common_length(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}
