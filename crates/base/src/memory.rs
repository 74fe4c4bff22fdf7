//! Memory that two processes share without a name in any file system.
//!
//! A region is a sealed memfd: its maker fixes the size for ever, so that the other side can neither shrink it (which would turn an
//! access of ours into SIGBUS) nor grow it. It is reached only through a descriptor that is inherited or passed over a Unix socket
//! ([`crate::descriptors`]), and it is gone when the last descriptor and mapping are gone: a killed process leaves nothing behind.
//!
//! Invariants:
//! - A region is mapped whole, once, and stays mapped at the same address until it is dropped.
//! - The other process may write any byte at any time. So the region is only ever handed out as a raw pointer: who reads it copies
//!   first and validates the copy, and shared words are touched through atomics only.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

/// Seals every region carries: the size is fixed, and so is the set of seals.
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Sealing against execution, known to Linux 6.3 and later; older kernels refuse it and do without.
const MFD_NOEXEC_SEAL: libc::c_uint = 0x0008;

/// A sealed, shared, zero-initialised region, mapped for reading and writing.
#[derive(Debug)]
pub struct SharedMemory {
    descriptor: OwnedFd,
    address: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the value only owns a descriptor and an address; neither belongs to a thread.
unsafe impl Send for SharedMemory {}
// SAFETY: as above; a shared reference gives out a raw pointer and a descriptor, nothing else.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Makes a region of `bytes` bytes, rounded up to whole pages, all zero. Pages cost memory from their first use on. `label`
    /// appears in `/proc/PID/maps`, and nowhere else.
    ///
    /// # Errors
    /// What the kernel says; a `label` with a zero byte and a size of zero are `InvalidInput`.
    pub fn create(label: &str, bytes: usize) -> io::Result<SharedMemory> {
        let label = CString::new(label)?;
        let bytes = bytes
            .checked_next_multiple_of(page_bytes())
            .filter(|&bytes| bytes > 0 && i64::try_from(bytes).is_ok())
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "a region has at least one byte and fits the address space")
            })?;
        let descriptor = memory_descriptor(&label)?;
        // SAFETY: both calls take plain numbers; the descriptor is open.
        unsafe {
            if libc::ftruncate(descriptor.as_raw_fd(), bytes as libc::off_t) != 0
                || libc::fcntl(descriptor.as_raw_fd(), libc::F_ADD_SEALS, SEALS) != 0
            {
                return Err(io::Error::last_os_error());
            }
        }
        SharedMemory::map(descriptor, bytes)
    }

    /// Maps a region that another process made.
    ///
    /// # Errors
    /// `InvalidData` when the descriptor is not a memfd whose size is sealed, or when it has no byte or more than `bytes_max`;
    /// else what the kernel says.
    pub fn open(descriptor: OwnedFd, bytes_max: usize) -> io::Result<SharedMemory> {
        // SAFETY: takes plain numbers; the descriptor is open.
        let seals = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_GET_SEALS) };
        let sized = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
        if seals < 0 || seals & sized != sized {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a memory file of sealed size"));
        }
        let mut status = std::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the pointer is valid for a whole `stat`; it is read only when the kernel has filled it.
        let bytes = unsafe {
            if libc::fstat(descriptor.as_raw_fd(), status.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            usize::try_from(status.assume_init().st_size).unwrap_or(0)
        };
        if bytes == 0 || bytes > bytes_max {
            let text = format!("a shared region of {bytes} bytes where 1 to {bytes_max} are allowed");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        SharedMemory::map(descriptor, bytes)
    }

    fn map(descriptor: OwnedFd, bytes: usize) -> io::Result<SharedMemory> {
        // SAFETY: asks for a fresh mapping at an address of the kernel's choice; no memory of ours is replaced. The size is that of
        // the file and sealed, so that no access within it can fault.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                descriptor.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address =
            NonNull::new(address.cast::<u8>()).ok_or_else(|| io::Error::other("the kernel mapped page zero"))?;
        Ok(SharedMemory { descriptor, address, bytes })
    }

    /// Where the region starts, page-aligned; valid for [`bytes`](Self::bytes) bytes while `self` lives. The other process may write
    /// through its own mapping at any time: never make a reference to plain memory of it.
    pub fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// Size of the region.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this size, and whoever holds a pointer into it keeps `self` alive.
        let status = unsafe { libc::munmap(self.address.as_ptr().cast(), self.bytes) };
        assert_eq!(status, 0, "a mapping of ours can be unmapped");
    }
}

fn memory_descriptor(label: &CString) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    for flags in [flags | MFD_NOEXEC_SEAL, flags] {
        // SAFETY: the label is a string that ends with zero and outlives the call.
        let descriptor = unsafe { libc::memfd_create(label.as_ptr(), flags) };
        if descriptor >= 0 {
            // SAFETY: the kernel has just opened it for us; nobody else owns it.
            return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    Err(io::Error::last_os_error())
}

/// Size of a page of this machine, in bytes.
pub fn page_bytes() -> usize {
    // SAFETY: takes a plain number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_mappings_show_the_same_bytes() {
        let made = SharedMemory::create("test", 5000).expect("made");
        assert_eq!(made.bytes() % page_bytes(), 0);
        let opened =
            SharedMemory::open(made.as_fd().try_clone_to_owned().expect("duplicate"), 1 << 20).expect("opened");
        // SAFETY: both addresses are valid for the whole region, and only this thread uses them.
        unsafe {
            made.address().add(4999).write(7);
            assert_eq!(opened.address().add(4999).read(), 7);
            assert_eq!(opened.address().read(), 0);
        }
    }

    #[test]
    fn a_region_cannot_change_its_size() {
        let made = SharedMemory::create("test", 4096).expect("made");
        for bytes in [0, 1, 1 << 20] {
            // SAFETY: takes plain numbers.
            assert_ne!(unsafe { libc::ftruncate(made.as_fd().as_raw_fd(), bytes) }, 0, "{bytes}");
        }
    }

    #[test]
    fn only_sealed_memory_of_fair_size_is_mapped() {
        let file = tempfile::tempfile().expect("file");
        file.set_len(4096).expect("length");
        let unsealed = memory_descriptor(&c"test".to_owned()).expect("memfd");
        // SAFETY: takes plain numbers.
        assert_eq!(unsafe { libc::ftruncate(unsealed.as_raw_fd(), 4096) }, 0);
        let big = SharedMemory::create("test", 1 << 16).expect("made").as_fd().try_clone_to_owned().expect("duplicate");
        for descriptor in [file.into(), unsealed, big] {
            let error = SharedMemory::open(descriptor, 1 << 15).expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        assert_eq!(SharedMemory::create("test", 0).expect_err("refused").kind(), io::ErrorKind::InvalidInput);
        assert_eq!(SharedMemory::create("a\0b", 1).expect_err("refused").kind(), io::ErrorKind::InvalidInput);
    }
}
