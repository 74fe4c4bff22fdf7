//! A bell with a descriptor (`eventfd`), for who must wait for it together with sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A bell that can be rung from any thread or process that holds it, and waited for with `poll` or `epoll`.
///
/// Watched edge-triggered (`EPOLLET`), each ring is one event and the bell need never be [drained](Event::drain): its counter has
/// room for every ring of a machine's life, and a hostile holder that fills it silences only its own rings.
#[derive(Debug)]
pub struct Event {
    descriptor: OwnedFd,
}

impl Event {
    /// Makes a silent bell that blocks nobody.
    ///
    /// # Errors
    /// What the kernel says: too many open files, mostly.
    pub fn new() -> io::Result<Event> {
        // SAFETY: takes plain numbers.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened it for us; nobody else owns it.
        Ok(Event { descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) } })
    }

    /// Takes over a bell that another process made. Whatever kind of descriptor it is, ringing writes eight bytes to it and nothing
    /// else happens; a write that would block must not, which is why the descriptor is switched to non-blocking here.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn adopt(descriptor: OwnedFd) -> io::Result<Event> {
        // SAFETY: takes plain numbers; the descriptor is open.
        unsafe {
            let flags = libc::fcntl(descriptor.as_raw_fd(), libc::F_GETFL);
            if flags < 0 || libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Event { descriptor })
    }

    /// Rings. Never blocks; a full counter means that rings are already waiting.
    pub fn ring(&self) {
        let one = 1u64;
        // SAFETY: the pointer and length describe `one`; the descriptor is open.
        let _ = unsafe { libc::write(self.descriptor.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    /// Takes all rings so far; false when there were none.
    pub fn drain(&self) -> bool {
        let mut rings = 0u64;
        // SAFETY: the pointer and length describe `rings`; the descriptor is open and does not block.
        let read = unsafe { libc::read(self.descriptor.as_raw_fd(), (&raw mut rings).cast(), size_of::<u64>()) };
        read == size_of::<u64>() as isize && rings > 0
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_add_up_until_drained() {
        let event = Event::new().expect("event");
        assert!(!event.drain());
        event.ring();
        event.ring();
        assert!(event.drain());
        assert!(!event.drain());
        let other = Event::adopt(event.as_fd().try_clone_to_owned().expect("duplicate")).expect("adopted");
        other.ring();
        assert!(event.drain());
    }
}
