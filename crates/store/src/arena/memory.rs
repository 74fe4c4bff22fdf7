//! Address space that is reserved at once and backed by memory as it is used.
//!
//! A page must never move, since readers hold slices of it, and nobody knows how large a store becomes. So a store
//! reserves more addresses than it will ever need, without access, and opens them from the start as it grows. Neither
//! costs memory before the first touch.
//!
//! What lies behind the memory budget is not memory of the process but a mapped file without a name: the kernel writes
//! such pages to disk and takes their memory whenever it needs some, under readers and writers, and brings the same bytes
//! back. Pages that are in use never wait for a disk that is full, since room in the file is made before they are.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;

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
    /// What lies behind the budget, if there is one.
    backing: Option<Backing>,
}

/// Makes a file without a name.
pub(crate) type MakeFile = Box<dyn Fn() -> io::Result<File> + Send + Sync>;

/// The part that a file holds.
struct Backing {
    /// Where it begins.
    from_bytes: usize,
    make: MakeFile,
    file: Mutex<BackingFile>,
}

/// A store that stays small never makes one.
enum BackingFile {
    NotNeeded,
    Made(Arc<File>),
    /// There cannot be one here: everything stays in memory.
    Unavailable,
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
                return Ok(Memory { base, reserved_bytes, kind: Kind::Mapped, backing: None });
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
        Memory { base, reserved_bytes: bytes, kind: Kind::Heap(layout), backing: None }
    }

    /// Has a file hold what lies behind `budget_bytes`. Before anything is opened.
    pub(super) fn back_with(&mut self, budget_bytes: usize, make: MakeFile) {
        let block = if budget_bytes >= HUGE_FROM_BYTES { HUGE_BYTES } else { PAGE_BYTES };
        let from_bytes = budget_bytes.min(self.reserved_bytes).next_multiple_of(block).max(PAGE_BYTES);
        self.backing = Some(Backing { from_bytes, make, file: Mutex::new(BackingFile::NotNeeded) });
    }

    /// Where the part begins that a file holds, and the file, which is made now if it was not needed before.
    pub(super) fn backing(&self) -> Option<(usize, Arc<File>)> {
        let backing = self.backing.as_ref()?;
        let mut file = backing.file.lock();
        if matches!(*file, BackingFile::NotNeeded) {
            *file = match (backing.make)() {
                Ok(made) => BackingFile::Made(Arc::new(made)),
                Err(_) => BackingFile::Unavailable,
            };
        }
        match &*file {
            BackingFile::Made(file) => Some((backing.from_bytes, Arc::clone(file))),
            _ => None,
        }
    }

    /// Whether a file holds what ends at `end_bytes`.
    pub(super) fn is_backed(&self, end_bytes: usize) -> bool {
        self.backing.as_ref().is_some_and(|backing| end_bytes > backing.from_bytes) && self.backing().is_some()
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
        let backed_from = if self.is_backed(target) { self.backing().map_or(target, |(from, _)| from) } else { target };
        if open_bytes < backed_from {
            self.open_anonymous(open_bytes, backed_from)?;
        }
        if backed_from < target {
            self.open_backed(open_bytes.max(backed_from), target)?;
        }
        Ok(target)
    }

    fn open_anonymous(&self, open_bytes: usize, target: usize) -> io::Result<()> {
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
        Ok(())
    }

    /// Opens a part that the file holds. It gets no room on the disk yet.
    fn open_backed(&self, start: usize, end: usize) -> io::Result<()> {
        let (_, file) = self.backing().expect("the range is backed");
        // As long as what is mapped: access behind the end of a file would kill the process.
        if file.metadata()?.len() < end as u64 {
            file.set_len(end as u64)?;
        }
        // SAFETY: inside of the reservation.
        let address = unsafe { self.base().add(start) };
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        let offset = libc::off_t::try_from(start).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: it replaces a part of this value's mapping that was not accessible, so nobody refers to it.
        let mapped = unsafe { libc::mmap(address.cast(), end - start, access, flags, file.as_raw_fd(), offset) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Makes room on the disk for a range that the file holds, so that writing to it cannot fail.
    pub(super) fn make_room(&self, start: usize, bytes: usize) -> io::Result<()> {
        let (_, file) = self.backing().expect("the range is backed");
        let (Ok(start), Ok(bytes)) = (libc::off_t::try_from(start), libc::off_t::try_from(bytes)) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        // SAFETY: a system call on an open file, without pointers.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), start, bytes) } {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Takes the memory of what the file holds, up to `open_bytes`; it comes back from the file.
    pub(super) fn give_back_backed(&self, open_bytes: usize) {
        if !self.is_backed(open_bytes) {
            return;
        }
        let from = self.backing().map_or(open_bytes, |(from, _)| from);
        // SAFETY: the range is inside of the mapping, and shared mappings of a file keep their content.
        unsafe { libc::madvise(self.base().add(from).cast(), open_bytes - from, libc::MADV_DONTNEED) };
    }

    /// Gives memory back to the system; the range reads as zeros afterwards, or as it was where a file holds it.
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
