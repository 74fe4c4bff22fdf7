//! The memory of one instance: an allocator with an exact cap.
//!
//! QuickJS asks for every byte through these functions, so the cap holds for all it does; memory that natives hold on an
//! instance's behalf (rows of a scan) is charged to the same account. Each block has a header with its size, because the
//! global allocator wants it back. Invariant: `used` is the sum of the sizes of live blocks, headers included, and of the
//! charges that are still held.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::cell::Cell;
use std::ffi::c_void;

use rquickjs_sys::{JSMallocFunctions, size_t};

/// Bytes in front of each block. As large as the alignment, so that the block behind it is aligned too.
const HEADER_BYTES: usize = 16;

/// The account of one instance. Lives in a box: the runtime keeps its address.
pub(super) struct Heap {
    used_bytes: Cell<usize>,
    limit_bytes: Cell<usize>,
    refused: Cell<bool>,
}

impl Heap {
    pub(super) fn new(limit_bytes: usize) -> Heap {
        Heap { used_bytes: Cell::new(0), limit_bytes: Cell::new(limit_bytes), refused: Cell::new(false) }
    }

    /// Bytes that count against the cap now.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes.get()
    }

    /// Whether anything was refused since the instance was made. Once it was, the instance is not to be trusted: engine
    /// code that ran into it may have left an object half built.
    pub(super) fn has_refused(&self) -> bool {
        self.refused.get()
    }

    /// Counts `bytes` that live outside the engine. `false` if the cap forbids them.
    #[must_use]
    pub(super) fn charge(&self, bytes: usize) -> bool {
        let total = self.used_bytes.get().checked_add(bytes).filter(|total| *total <= self.limit_bytes.get());
        match total {
            Some(total) => self.used_bytes.set(total),
            None => self.refused.set(true),
        }
        total.is_some()
    }

    /// Gives back what was charged.
    pub(super) fn discharge(&self, bytes: usize) {
        let used = self.used_bytes.get();
        assert!(bytes <= used, "{bytes} bytes given back of {used}");
        self.used_bytes.set(used - bytes);
    }

    /// What a runtime needs to allocate here. The opaque pointer that goes with it is this heap's address.
    pub(super) const FUNCTIONS: JSMallocFunctions = JSMallocFunctions {
        js_calloc: Some(heap_calloc),
        js_malloc: Some(heap_malloc),
        js_free: Some(heap_free),
        js_realloc: Some(heap_realloc),
        js_malloc_usable_size: Some(heap_usable_size),
    };

    /// Allocates a block of `bytes`, or null.
    fn allocate(&self, bytes: usize, make: unsafe fn(Layout) -> *mut u8) -> *mut c_void {
        let Some(layout) = layout(bytes) else { return std::ptr::null_mut() };
        if !self.charge(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the layout is not empty, it holds at least the header.
        let start = unsafe { make(layout) };
        if start.is_null() {
            self.discharge(layout.size());
            return std::ptr::null_mut();
        }
        // SAFETY: the block starts with room for the header and is aligned for it.
        unsafe {
            start.cast::<usize>().write(bytes);
            start.add(HEADER_BYTES).cast()
        }
    }
}

/// The layout of a block for `bytes` and its header.
fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.checked_add(HEADER_BYTES)?, HEADER_BYTES).ok()
}

/// The start of a block and its size without the header.
///
/// # Safety
/// `block` came from [`Heap::allocate`] and is alive.
unsafe fn header(block: *const c_void) -> (*mut u8, usize) {
    // SAFETY: blocks have a header in front.
    unsafe {
        let start = block.cast::<u8>().sub(HEADER_BYTES).cast_mut();
        (start, start.cast::<usize>().read())
    }
}

/// # Safety
/// For all functions below: `opaque` is the address of a live [`Heap`], used by no other thread meanwhile, and a `block` is null
/// or alive and from the same heap. The runtime sees to both.
unsafe fn heap<'a>(opaque: *mut c_void) -> &'a Heap {
    // SAFETY: see above.
    unsafe { &*opaque.cast::<Heap>() }
}

unsafe extern "C" fn heap_malloc(opaque: *mut c_void, size: size_t) -> *mut c_void {
    // SAFETY: the runtime's contract, see `heap`.
    unsafe { heap(opaque) }.allocate(size as usize, alloc)
}

unsafe extern "C" fn heap_calloc(opaque: *mut c_void, count: size_t, size: size_t) -> *mut c_void {
    match (count as usize).checked_mul(size as usize) {
        // SAFETY: the runtime's contract, see `heap`.
        Some(bytes) => unsafe { heap(opaque) }.allocate(bytes, alloc_zeroed),
        None => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn heap_free(opaque: *mut c_void, block: *mut c_void) {
    if block.is_null() {
        return;
    }
    // SAFETY: the runtime's contract; the layout is the one that the block was allocated with.
    unsafe {
        let (start, bytes) = header(block);
        let layout = Layout::from_size_align_unchecked(bytes + HEADER_BYTES, HEADER_BYTES);
        dealloc(start, layout);
        heap(opaque).discharge(layout.size());
    }
}

unsafe extern "C" fn heap_realloc(opaque: *mut c_void, block: *mut c_void, size: size_t) -> *mut c_void {
    // SAFETY: the runtime's contract; the layout is the one that the block was allocated with, and a block is
    // only replaced when there is room for the new one.
    unsafe {
        if block.is_null() {
            return heap_malloc(opaque, size);
        }
        let heap = heap(opaque);
        let (start, bytes) = header(block);
        let old = Layout::from_size_align_unchecked(bytes + HEADER_BYTES, HEADER_BYTES);
        let Some(new) = layout(size as usize) else { return std::ptr::null_mut() };
        if new.size() > old.size() && !heap.charge(new.size() - old.size()) {
            return std::ptr::null_mut();
        }
        let moved = realloc(start, old, new.size());
        if moved.is_null() {
            heap.discharge(new.size().saturating_sub(old.size()));
            return std::ptr::null_mut();
        }
        heap.discharge(old.size().saturating_sub(new.size()));
        moved.cast::<usize>().write(size as usize);
        moved.add(HEADER_BYTES).cast()
    }
}

unsafe extern "C" fn heap_usable_size(block: *const c_void) -> size_t {
    if block.is_null() {
        return 0;
    }
    // SAFETY: the runtime's contract, see `heap`.
    unsafe { header(block).1 as size_t }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_is_exact_and_everything_is_given_back() {
        let heap = Heap::new(1000);
        let opaque = (&raw const heap).cast_mut().cast::<c_void>();
        // SAFETY: the heap outlives the blocks and stays on this thread.
        unsafe {
            let a = heap_malloc(opaque, 100);
            let b = heap_calloc(opaque, 10, 10);
            assert!(!a.is_null() && !b.is_null());
            assert_eq!(heap.used_bytes(), 200 + 2 * HEADER_BYTES);
            assert_eq!(heap_usable_size(a), 100);
            assert!((0..100).all(|index| *b.cast::<u8>().add(index) == 0));
            a.cast::<u8>().write_bytes(7, 100);
            assert!(!heap.has_refused());
            assert!(heap_realloc(opaque, a, 1000).is_null(), "beyond the cap");
            assert!(heap.has_refused());
            let a = heap_realloc(opaque, a, 300);
            assert!((0..100).all(|index| *a.cast::<u8>().add(index) == 7));
            let a = heap_realloc(opaque, a, 10);
            assert_eq!(heap.used_bytes(), 110 + 2 * HEADER_BYTES);
            assert!(heap_malloc(opaque, usize::MAX as size_t).is_null());
            assert!(heap_calloc(opaque, usize::MAX as size_t, 2).is_null());
            assert!(heap.charge(1000 - heap.used_bytes()) && !heap.charge(1));
            heap.discharge(1000 - 110 - 2 * HEADER_BYTES);
            heap_free(opaque, a);
            heap_free(opaque, b);
            heap_free(opaque, std::ptr::null_mut());
        }
        assert_eq!(heap.used_bytes(), 0);
    }
}
