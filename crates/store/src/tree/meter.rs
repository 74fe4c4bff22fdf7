//! How much memory of the tree an action on this thread frees.
//!
//! The number is kept per thread: freeing must not touch shared counters.

use std::cell::Cell;

thread_local! {
    static FREED_BYTES: Cell<u64> = const { Cell::new(0) };
}

/// Notes that memory of the tree was freed.
pub(crate) fn free(bytes: usize) {
    FREED_BYTES.with(|freed| freed.set(freed.get().wrapping_add(bytes as u64)));
}

/// Bytes of pages that `work` frees.
pub(crate) fn freed_by(work: impl FnOnce()) -> u64 {
    let before = FREED_BYTES.with(Cell::get);
    work();
    FREED_BYTES.with(Cell::get).wrapping_sub(before)
}
