//! Sockets and rings as sources and sinks of bytes, and the system calls around them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use tine_base::event::Event;

use crate::inbound::Source;
use crate::outbound::Sink;
use crate::ring::{Consumer, Producer, RingFault};

/// Turns the -1 of a system call into its error.
pub(crate) fn checked(status: libc::c_int) -> io::Result<libc::c_int> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
}

/// A stream socket, read and written without blocking and without SIGPIPE.
pub(crate) struct Socket<'a>(pub BorrowedFd<'a>);

impl Socket<'_> {
    /// Receives with these flags.
    pub fn receive(&self, target: &mut [MaybeUninit<u8>], flags: libc::c_int) -> io::Result<usize> {
        // SAFETY: pointer and length describe `target`, which the kernel may fill.
        let read = unsafe { libc::recv(self.0.as_raw_fd(), target.as_mut_ptr().cast(), target.len(), flags) };
        match usize::try_from(read) {
            Ok(read) => Ok(read),
            Err(_) => Err(interrupted_is_not_now(io::Error::last_os_error())),
        }
    }
}

/// Nothing here waits inside a system call that a signal could cut short and that must not be repeated.
fn interrupted_is_not_now(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Interrupted { io::ErrorKind::WouldBlock.into() } else { error }
}

// SAFETY: the kernel fills as many bytes as it returns.
unsafe impl Source for Socket<'_> {
    fn read(&mut self, target: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        self.receive(target, libc::MSG_DONTWAIT)
    }
}

impl Sink for Socket<'_> {
    fn write(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let written = if let [only] = slices {
            // SAFETY: pointer and length describe the slice.
            unsafe { libc::send(self.0.as_raw_fd(), only.as_ptr().cast(), only.len(), flags) }
        } else {
            // SAFETY: an all-zero msghdr is valid and empty; an `IoSlice` is laid out as an iovec, and the message refers to the slices
            // for the length of the call.
            unsafe {
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_iov = slices.as_ptr().cast_mut().cast();
                message.msg_iovlen = slices.len() as _;
                libc::sendmsg(self.0.as_raw_fd(), &message, flags)
            }
        };
        usize::try_from(written).map_err(|_| interrupted_is_not_now(io::Error::last_os_error()))
    }
}

/// The reading end of a ring with the bell of the side that writes it.
pub(crate) struct RingSource<'a> {
    pub consumer: &'a mut Consumer,
    pub bell: &'a Event,
}

// SAFETY: the ring copies as many bytes as it returns.
unsafe impl Source for RingSource<'_> {
    fn read(&mut self, target: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        let (read, ring) = self.consumer.read(target).map_err(io::Error::other)?;
        if ring {
            self.bell.ring();
        }
        if read == 0 && !target.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(read) }
    }
}

/// The writing end of a ring with the bell of the side that reads it.
pub(crate) struct RingSink<'a> {
    pub producer: &'a mut Producer,
    pub bell: &'a Event,
}

impl Sink for RingSink<'_> {
    fn write(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0;
        'all: for slice in slices {
            let mut rest = &slice[..];
            while !rest.is_empty() {
                let count = self.producer.write(rest).map_err(io::Error::other)?;
                if count == 0 {
                    break 'all;
                }
                written += count;
                rest = &rest[count..];
                // Each piece of something large is shown at once, so that the other side takes it while the next one is copied.
                if !rest.is_empty() && self.producer.show() {
                    self.bell.ring();
                }
            }
        }
        if self.producer.show() {
            self.bell.ring();
        }
        if written == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(written) }
    }
}

/// The fault of a ring inside an error of reading or writing, if it is one.
pub(crate) fn ring_fault(error: &io::Error) -> Option<RingFault> {
    error.get_ref()?.downcast_ref::<RingFault>().copied()
}

/// Waiting for many descriptors.
#[derive(Debug)]
pub(crate) struct Poller(OwnedFd);

impl Poller {
    pub fn new() -> io::Result<Poller> {
        // SAFETY: takes plain numbers; the kernel has just opened the descriptor for us.
        unsafe { Ok(Poller(OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?))) }
    }

    fn control(&self, operation: libc::c_int, descriptor: RawFd, events: u32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: the event lives on this stack; both descriptors are open.
        checked(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, descriptor, &mut event) }).map(drop)
    }

    pub fn add(&self, descriptor: &impl AsRawFd, events: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor.as_raw_fd(), events, token)
    }

    pub fn change(&self, descriptor: &impl AsRawFd, events: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, descriptor.as_raw_fd(), events, token)
    }

    /// Waits for events for at most `limit`, rounded up to milliseconds.
    pub fn wait<'a>(
        &self,
        events: &'a mut [libc::epoll_event],
        limit: Duration,
    ) -> io::Result<&'a [libc::epoll_event]> {
        let count = events.len() as libc::c_int;
        // SAFETY: pointer and count describe `events`, which the kernel may fill.
        let ready = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), count, milliseconds(limit)) };
        match checked(ready) {
            Ok(ready) => Ok(&events[..ready as usize]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(&[]),
            Err(error) => Err(error),
        }
    }
}

impl AsRawFd for Poller {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Never zero for a limit that is not, and never "for ever".
fn milliseconds(limit: Duration) -> libc::c_int {
    libc::c_int::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
}

/// Waits until one of the descriptors is ready as asked, for at most `limit`; each is asked for by its own events.
pub(crate) fn poll(descriptors: &mut [libc::pollfd], limit: Duration) -> io::Result<bool> {
    let count = descriptors.len() as libc::nfds_t;
    // SAFETY: pointer and count describe the slice, which the kernel may change.
    match checked(unsafe { libc::poll(descriptors.as_mut_ptr(), count, milliseconds(limit)) }) {
        Ok(ready) => Ok(ready > 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// One descriptor to wait for.
pub(crate) fn interest(descriptor: &impl AsRawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd: descriptor.as_raw_fd(), events, revents: 0 }
}
