//! How far worker processes are locked in, as far as this machine allows.

use std::fmt;

/// What hardening workers have. Reported by the zygote after it tried every forbidden call in processes hardened like workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Version of landlock that denies all files (and ports, from version 4 on); 0 without landlock.
    pub landlock_abi: u32,
    /// Own user, network, mount, IPC and host name namespaces, without capabilities.
    pub namespaces: bool,
    /// System calls other than a short list kill the worker.
    pub seccomp: bool,
    /// Forbidden calls that were tried, as bits of [`Probe`].
    pub tried: u32,
    /// Forbidden calls that were refused, or that the worker did not survive.
    pub refused: u32,
}

impl Level {
    /// Whether system calls are filtered and every forbidden call that was tried was refused.
    pub fn is_full(self) -> bool {
        self.seccomp && self.tried != 0 && self.refused == self.tried
    }

    pub(crate) const BYTES: usize = 20;

    pub(crate) fn encode(self) -> [u8; Level::BYTES] {
        let mut bytes = [0; Level::BYTES];
        let words = [self.landlock_abi, u32::from(self.namespaces), u32::from(self.seccomp), self.tried, self.refused];
        for (target, word) in bytes.chunks_exact_mut(4).zip(words) {
            target.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Level> {
        let bytes: &[u8; Level::BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Some(Level {
            landlock_abi: word(0),
            namespaces: word(4) == 1,
            seccomp: word(8) == 1,
            tried: word(12),
            refused: word(16),
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.seccomp { "seccomp" } else { "no seccomp" })?;
        match self.landlock_abi {
            0 => out.write_str(", no landlock")?,
            version => write!(out, ", landlock {version}")?,
        }
        out.write_str(if self.namespaces { ", namespaces" } else { ", no namespaces" })?;
        let survived: Vec<_> =
            Probe::ALL.iter().filter(|probe| self.tried & !self.refused & probe.bit() != 0).map(|p| p.name()).collect();
        if survived.is_empty() {
            write!(out, ", {} forbidden calls refused", self.refused.count_ones())
        } else {
            write!(out, ", NOT refused: {}", survived.join(", "))
        }
    }
}

/// A call that a worker must not be able to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Probe {
    /// Opening a file.
    Open = 0,
    /// Making a socket.
    Socket = 1,
    /// Starting a process.
    Fork = 2,
    /// Becoming another program.
    Execute = 3,
    /// Signalling the server.
    Kill = 4,
    /// Looking into the server.
    Trace = 5,
    /// Mapping memory that can be executed.
    ExecutableMemory = 6,
}

impl Probe {
    /// All of them.
    pub const ALL: [Probe; 7] =
        [Probe::Open, Probe::Socket, Probe::Fork, Probe::Execute, Probe::Kill, Probe::Trace, Probe::ExecutableMemory];

    /// The probe's bit in [`Level::tried`].
    pub fn bit(self) -> u32 {
        1 << self as u32
    }

    /// What is tried.
    pub fn name(self) -> &'static str {
        match self {
            Probe::Open => "open a file",
            Probe::Socket => "make a socket",
            Probe::Fork => "fork",
            Probe::Execute => "execute a program",
            Probe::Kill => "send a signal",
            Probe::Trace => "trace a process",
            Probe::ExecutableMemory => "map executable memory",
        }
    }

    /// Tries it, in a process that may die of it. Returns whether it was possible.
    pub(crate) fn attempt(self) -> bool {
        // SAFETY: every call gets valid arguments: strings that end with zero, null where that is allowed, plain numbers. A fork that
        // succeeds ends its child at once.
        unsafe {
            match self {
                Probe::Open => libc::open(c"/proc/self/status".as_ptr(), libc::O_RDONLY) >= 0,
                Probe::Socket => libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) >= 0,
                Probe::Fork => match libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) {
                    0 => libc::_exit(0),
                    child => child > 0,
                },
                Probe::Execute => {
                    let arguments = [c"/bin/true".as_ptr(), std::ptr::null()];
                    libc::execve(arguments[0], arguments.as_ptr(), arguments[1..].as_ptr()) == 0
                }
                Probe::Kill => libc::kill(libc::getppid(), 0) == 0,
                Probe::Trace => libc::syscall(libc::SYS_ptrace, libc::PTRACE_SEIZE, libc::getppid(), 0, 0) == 0,
                Probe::ExecutableMemory => {
                    let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
                    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                    libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) != libc::MAP_FAILED
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_survive_the_wire_and_say_what_is_missing() {
        let full = Level { landlock_abi: 7, namespaces: true, seccomp: true, tried: 0x7f, refused: 0x7f };
        assert_eq!(Level::decode(&full.encode()), Some(full));
        assert!(full.is_full());
        assert_eq!(full.to_string(), "seccomp, landlock 7, namespaces, 7 forbidden calls refused");
        let weak = Level { landlock_abi: 0, namespaces: false, seccomp: true, tried: 0x7f, refused: 0x7e };
        assert!(!weak.is_full());
        assert_eq!(weak.to_string(), "seccomp, no landlock, no namespaces, NOT refused: open a file");
        assert_eq!(Level::decode(&[0; 19]), None);
        assert!(!Level::default().is_full());
    }
}
