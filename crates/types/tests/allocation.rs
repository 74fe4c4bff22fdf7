//! Hostile input must not make decoders allocate out of proportion to it.
//!
//! A counting allocator measures the peak of live memory during each decode. The bound is a constant
//! plus a multiple of the input: a decoded value takes 48 bytes where its encoding may take one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use tine_types::bsatn::{self, Reader};
use tine_types::protocol::{decode_client_message, decode_server_message};
use tine_types::{AlgebraicType, ModuleDef, json};

struct Counting;

thread_local! {
    static LIVE_BYTES: Cell<isize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    let live = LIVE_BYTES.get() + change;
    LIVE_BYTES.set(live);
    PEAK_BYTES.set(PEAK_BYTES.get().max(live));
}

// SAFETY: every call goes to the system allocator unchanged; the counters are plain thread-local
// cells without destructors, which allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise about `layout` is the one that is needed.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `pointer` came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most memory live at once during `work`, beyond what was before.
fn peak_bytes<T>(work: impl FnOnce() -> T) -> usize {
    let before = LIVE_BYTES.get();
    PEAK_BYTES.set(before);
    drop(work());
    usize::try_from(PEAK_BYTES.get() - before).expect("the peak is not below the start")
}

/// Memory a decode may take whatever the input: the capacities it dares to reserve at each level.
const SLACK_BYTES: usize = 4 << 20;
/// Memory it may take per byte of input: a tree node, twice while a vector grows.
const BYTES_PER_INPUT_BYTE: usize = 128;

#[track_caller]
fn check<T>(input_bytes: usize, work: impl FnOnce() -> T) {
    let peak = peak_bytes(work);
    let bound = SLACK_BYTES + BYTES_PER_INPUT_BYTE * input_bytes;
    assert!(peak <= bound, "{peak} bytes for an input of {input_bytes}; at most {bound} expected");
}

/// Counts of 2^32 - 1 at every place where a count can be, after every prefix of small bytes.
fn hostile_inputs() -> Vec<Vec<u8>> {
    let mut inputs: Vec<_> = (0..40).map(|zeros| [vec![0; zeros], vec![0xff; 8]].concat()).collect();
    for tag in 0..16 {
        for zeros in 0..24 {
            inputs.push([vec![tag], vec![0; zeros], vec![0xff; 4], vec![1; 64]].concat());
            // Counts that the data could hold if every element took one byte.
            let plausible = 60_000u32.to_le_bytes();
            inputs.push([vec![tag], vec![0; zeros], plausible.repeat(16_000)].concat());
        }
    }
    inputs
}

#[test]
fn hostile_counts_reserve_nothing() {
    let row = AlgebraicType::product([
        ("a", AlgebraicType::array(AlgebraicType::array(AlgebraicType::array(AlgebraicType::U256)))),
        ("b", AlgebraicType::array(AlgebraicType::String)),
        ("c", AlgebraicType::array(AlgebraicType::array(AlgebraicType::unit()))),
    ]);
    for input in hostile_inputs() {
        let bytes = Bytes::from(input.clone());
        check(input.len(), || decode_client_message(&bytes, &mut 0));
        check(input.len(), || decode_server_message(&bytes, &mut 0));
        check(input.len(), || ModuleDef::decode(&[&[2, 1, 0, 0, 0], &input[..]].concat()));
        check(input.len(), || bsatn::decode_type(&mut Reader::new(&input)));
        check(input.len(), || bsatn::decode_value(&row, &mut Reader::new(&input)));
        check(input.len(), || json::bsatn_to_json(&row, &mut Reader::new(&input)));
    }
}

#[test]
fn validation_allocates_nothing() {
    let row = AlgebraicType::product([
        ("name", AlgebraicType::String),
        ("flags", AlgebraicType::array(AlgebraicType::option(AlgebraicType::Bool))),
    ]);
    let bytes = [1, 0, 0, 0, b'x', 3, 0, 0, 0, 1, 0, 1, 1];
    let mut accepted = false;
    let peak = peak_bytes(|| accepted = bsatn::validate(&row, &bytes).is_ok());
    assert!(accepted);
    assert_eq!(peak, 0);
}
