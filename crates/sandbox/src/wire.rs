//! Messages between the server and its zygote: one datagram each, over a Unix socket of kind `SOCK_SEQPACKET`. Both sides are the
//! same binary, so there is no version.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tine_base::slots::Shape;

use crate::level::Level;

/// Names of entries are at most this long; a message has a fixed size.
pub(crate) const NAME_BYTES_MAX: usize = 32;
/// The longest message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 128;
/// Descriptors of a launch: region, event, standard error.
pub(crate) const LAUNCH_DESCRIPTORS: usize = 3;

/// Server to zygote: start a worker. Comes with [`LAUNCH_DESCRIPTORS`] descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) launch: u64,
    pub(crate) server_pid: i32,
    pub(crate) shape: Shape,
    pub(crate) memory_bytes: u64,
    pub(crate) spins: u32,
    pub(crate) entry: String,
}

/// Zygote to server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// Ready to launch workers that are hardened like this.
    Hello(Level),
    /// Done; comes with the worker's pidfd.
    Launched { launch: u64, pid: i32 },
    /// Not done, with the number of the system error.
    Failed { launch: u64, error: i32 },
}

impl Launch {
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.entry.len() <= NAME_BYTES_MAX, "checked when the pool was made");
        let mut bytes = Vec::with_capacity(MESSAGE_BYTES_MAX);
        bytes.extend_from_slice(&self.launch.to_le_bytes());
        bytes.extend_from_slice(&self.memory_bytes.to_le_bytes());
        let shape = [self.shape.slots(), self.shape.slot_bytes(), self.shape.arena_bytes()];
        for word in [self.server_pid as u32, self.spins].into_iter().chain(shape) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(self.entry.as_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Launch> {
        let (fixed, entry) = bytes.split_at_checked(36)?;
        let long = |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().expect("eight bytes"));
        let word = |at: usize| u32::from_le_bytes(fixed[at..at + 4].try_into().expect("four bytes"));
        Some(Launch {
            launch: long(0),
            memory_bytes: long(8),
            server_pid: word(16) as i32,
            spins: word(20),
            shape: Shape::new(word(24), word(28), word(32)).ok()?,
            entry: std::str::from_utf8(entry).ok().filter(|name| name.len() <= NAME_BYTES_MAX)?.to_owned(),
        })
    }
}

impl Report {
    pub(crate) fn encode(self) -> Vec<u8> {
        let tagged = |tag: u8, launch: u64, number: i32| {
            let mut bytes = vec![tag];
            bytes.extend_from_slice(&launch.to_le_bytes());
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes
        };
        match self {
            Report::Hello(level) => [&[0], &level.encode()[..]].concat(),
            Report::Launched { launch, pid } => tagged(1, launch, pid),
            Report::Failed { launch, error } => tagged(2, launch, error),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Report> {
        let (&tag, rest) = bytes.split_first()?;
        if tag == 0 {
            return Level::decode(rest).map(Report::Hello);
        }
        let rest: &[u8; 12] = rest.try_into().ok()?;
        let launch = u64::from_le_bytes(rest[..8].try_into().expect("eight bytes"));
        let number = i32::from_le_bytes(rest[8..].try_into().expect("four bytes"));
        match tag {
            1 => Some(Report::Launched { launch, pid: number }),
            2 => Some(Report::Failed { launch, error: number }),
            _ => None,
        }
    }
}

/// A connected pair of sockets that keep datagrams apart and tell when the other side is gone.
pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [-1; 2];
    // SAFETY: the array has room for two descriptors, which are ours alone once the call succeeded.
    unsafe {
        let flags = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        crate::harden::check(libc::socketpair(libc::AF_UNIX, flags, 0, pair.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])))
    }
}

/// Switches a descriptor to non-blocking.
pub(crate) fn unblock(descriptor: &OwnedFd) -> io::Result<()> {
    // SAFETY: takes plain numbers; the descriptor is open.
    unsafe {
        let flags = libc::fcntl(descriptor.as_raw_fd(), libc::F_GETFL);
        crate::harden::check(flags)?;
        crate::harden::check(libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let launch = Launch {
            launch: 7,
            server_pid: 42,
            shape: Shape::new(32, 16_384, 1 << 20).expect("good"),
            memory_bytes: 1 << 28,
            spins: 9,
            entry: "echo".to_owned(),
        };
        let bytes = launch.encode();
        assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        assert_eq!(Launch::decode(&bytes), Some(launch));
        assert_eq!(Launch::decode(&bytes[..20]), None);
        for report in [
            Report::Hello(Level { seccomp: true, ..Level::default() }),
            Report::Launched { launch: 1, pid: 2 },
            Report::Failed { launch: u64::MAX, error: 11 },
        ] {
            let bytes = report.encode();
            assert_eq!(Report::decode(&bytes), Some(report));
            assert_eq!(Report::decode(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(Report::decode(&[]), None);
        assert_eq!(Report::decode(&[9; 13]), None);
    }
}
