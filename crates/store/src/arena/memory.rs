//! Address space that is reserved at once and backed by memory as it is used.
//!
//! A page must never move, since readers hold slices of it, and nobody knows how large a store becomes. So a store
//! reserves more addresses than it will ever need, without access, and opens them from the start as it grows. Neither
//! costs memory before the first touch.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use crate::page::PAGE_BYTES;

/// Bytes opened at a time, at least: a store that is never filled stays at one step.
const STEP_BYTES_MIN: usize = 1 << 20;

/// Bytes of a huge page. Where the system has others, what is aligned to this is only somewhat more than needed.
const HUGE_BYTES: usize = 2 << 20;

/// From this size on a mapping asks for huge pages. Below, one of them would be more than many small stores hold; and
/// what there is by then is copied to huge pages at once, which takes a millisecond or two.
const HUGE_FROM_BYTES: usize = 8 << 20;

/// A range of addresses, zeroed where it was never written.
pub(super) struct Memory {
    base: NonNull<u8>,
    reserved_bytes: usize,
    /// Where it is from: a mapping, or in tests the heap, whose owner tools know.
    kind: Kind,
}

enum Kind {
    Mapped,
    #[cfg(test)]
    Heap(std::alloc::Layout),
}

// SAFETY: the range belongs to this value alone; who may touch which part of it when is the arena's contract.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Reserves addresses. If there are not as many in one piece, half as many are tried, and so on.
    pub(super) fn reserve(bytes: usize, bytes_min: usize) -> io::Result<Memory> {
        let mut reserved_bytes = bytes.max(bytes_min).next_multiple_of(PAGE_BYTES);
        loop {
            // Aligned, so that huge pages fit from the start on.
            let slack = if reserved_bytes > HUGE_FROM_BYTES { HUGE_BYTES } else { 0 };
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: a new anonymous mapping at an address the kernel chooses touches nothing that exists.
            let mapping =
                unsafe { libc::mmap(std::ptr::null_mut(), reserved_bytes + slack, libc::PROT_NONE, flags, -1, 0) };
            if mapping != libc::MAP_FAILED {
                let mapping = NonNull::new(mapping.cast::<u8>()).expect("the kernel maps nothing at address 0 unasked");
                let before = mapping.align_offset(HUGE_BYTES).min(slack);
                // SAFETY: inside of the mapping, which has `slack` bytes more than are used.
                let base = unsafe { mapping.add(before) };
                for (start, bytes) in [(0, before), (before + reserved_bytes, slack - before)] {
                    if bytes > 0 {
                        // SAFETY: an end of the new mapping, to which nobody refers.
                        unsafe { libc::munmap(mapping.add(start).as_ptr().cast(), bytes) };
                    }
                }
                return Ok(Memory { base, reserved_bytes, kind: Kind::Mapped });
            }
            let error = io::Error::last_os_error();
            if reserved_bytes / 2 < bytes_min {
                return Err(error);
            }
            reserved_bytes = (reserved_bytes / 2).next_multiple_of(PAGE_BYTES);
        }
    }

    /// Plain zeroed memory of the allocator, all of it open.
    #[cfg(test)]
    pub(super) fn heap(bytes: usize) -> Memory {
        let layout = std::alloc::Layout::from_size_align(bytes, PAGE_BYTES).expect("a sensible size");
        // SAFETY: the layout has a size above zero.
        let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).expect("memory for a test");
        Memory { base, reserved_bytes: bytes, kind: Kind::Heap(layout) }
    }

    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(super) fn reserved_bytes(&self) -> usize {
        self.reserved_bytes
    }

    /// Opens the range up to at least `end_bytes` and returns up to where it is open. `open_bytes` is what the last
    /// call returned, 0 at first.
    pub(super) fn open(&self, open_bytes: usize, end_bytes: usize) -> io::Result<usize> {
        #[cfg(test)]
        if matches!(self.kind, Kind::Heap(_)) {
            return Ok(self.reserved_bytes);
        }
        let step = (open_bytes / 4).max(STEP_BYTES_MIN);
        let mut target = end_bytes.max(open_bytes + step).next_multiple_of(PAGE_BYTES);
        if target > HUGE_FROM_BYTES {
            target = target.next_multiple_of(HUGE_BYTES);
        }
        let target = target.min(self.reserved_bytes);
        // SAFETY: the range lies inside of the mapping, which this value owns.
        let (start, length) = (unsafe { self.base().add(open_bytes) }, target - open_bytes);
        // SAFETY: it was not accessible, so no reference points there, and opening it changes no content.
        if unsafe { libc::mprotect(start.cast(), length, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if target > HUGE_FROM_BYTES {
            // SAFETY: advice changes no content. It may be refused, which costs speed only.
            unsafe { libc::madvise(start.cast(), length, libc::MADV_HUGEPAGE) };
            if open_bytes > 0 && open_bytes <= HUGE_FROM_BYTES {
                // SAFETY: as above.
                unsafe {
                    libc::madvise(self.base().cast(), target, libc::MADV_HUGEPAGE);
                    libc::madvise(self.base().cast(), target - target % HUGE_BYTES, libc::MADV_COLLAPSE);
                }
            }
        }
        Ok(target)
    }

    /// Gives memory back to the system; the range reads as zeros afterwards.
    ///
    /// # Safety
    /// The range is open and nobody refers to it.
    pub(super) unsafe fn give_back(&self, start_bytes: usize, bytes: usize) {
        assert!(start_bytes + bytes <= self.reserved_bytes, "the range is the arena's");
        #[cfg(test)]
        if matches!(self.kind, Kind::Heap(_)) {
            // SAFETY: inside of the allocation, and the caller vouches that nobody refers to it.
            unsafe { self.base().add(start_bytes).write_bytes(0, bytes) };
            return;
        }
        // SAFETY: as above; the range lies inside of the mapping. A refusal would leave the content as it is, which
        // nobody relies on being zero but the reader of an absent page, so it must not pass.
        let status = unsafe { libc::madvise(self.base().add(start_bytes).cast(), bytes, libc::MADV_DONTNEED) };
        assert_eq!(status, 0, "anonymous memory can be given back: {}", io::Error::last_os_error());
    }
}

impl Memory {
    /// Has a part of the range show a part of a file, to read.
    ///
    /// # Safety
    /// Nobody refers to the part, nor writes to it as long as the memory lives. The file does not become shorter.
    pub(super) unsafe fn map_file(
        &self,
        start_bytes: usize,
        bytes: usize,
        file: &std::fs::File,
        offset: u64,
    ) -> io::Result<()> {
        assert!(start_bytes + bytes <= self.reserved_bytes, "the range is the arena's");
        assert!(matches!(self.kind, Kind::Mapped), "only mappings are mapped over");
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: inside of the reservation.
        let start = unsafe { self.base().add(start_bytes) };
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: it replaces a part of this value's mapping that nobody refers to (the caller's promise).
        let mapped = unsafe { libc::mmap(start.cast(), bytes, libc::PROT_READ, flags, file.as_raw_fd(), offset) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match self.kind {
            // SAFETY: the mapping is this value's, and whoever could refer to it holds the arena.
            Kind::Mapped => unsafe {
                libc::munmap(self.base().cast(), self.reserved_bytes);
            },
            #[cfg(test)]
            // SAFETY: allocated with this layout.
            Kind::Heap(layout) => unsafe { std::alloc::dealloc(self.base(), layout) },
        }
    }
}
