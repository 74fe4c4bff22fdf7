//! The supervisor's event loop: descriptors to tokens.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::harden::check;

/// Events taken at once; more come with the next turn.
const EVENTS_MAX: usize = 64;

/// What became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Bell,
    ZygoteSocket,
    ZygoteEnd,
    /// The process of the worker with this number ended.
    End(u64),
    Log(u64),
    Replies(u64),
}

impl Token {
    fn number(self) -> u64 {
        match self {
            Token::Bell => 0,
            Token::ZygoteSocket => 1,
            Token::ZygoteEnd => 2,
            Token::End(id) => 3 | (id << 3),
            Token::Log(id) => 4 | (id << 3),
            Token::Replies(id) => 5 | (id << 3),
        }
    }

    fn of(number: u64) -> Token {
        let id = number >> 3;
        match number & 7 {
            0 => Token::Bell,
            1 => Token::ZygoteSocket,
            2 => Token::ZygoteEnd,
            3 => Token::End(id),
            4 => Token::Log(id),
            _ => Token::Replies(id),
        }
    }

    /// Bells are rung, never read: each ring is one event.
    fn flags(self) -> libc::c_int {
        match self {
            Token::Bell | Token::Replies(_) => libc::EPOLLIN | libc::EPOLLET,
            _ => libc::EPOLLIN,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: takes a plain number; the descriptor returned is ours alone.
        unsafe {
            let descriptor = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            check(descriptor)?;
            Ok(Epoll(OwnedFd::from_raw_fd(descriptor)))
        }
    }

    pub(crate) fn add(&self, descriptor: &impl AsFd, token: Token) -> io::Result<()> {
        let mut event = libc::epoll_event { events: token.flags() as u32, u64: token.number() };
        let descriptor = descriptor.as_fd().as_raw_fd();
        // SAFETY: both descriptors are open and the event lives on this stack.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor, &mut event) })
    }

    /// Forgets a descriptor; one that is not known is no error.
    pub(crate) fn remove(&self, descriptor: &impl AsFd) {
        let descriptor = descriptor.as_fd().as_raw_fd();
        // SAFETY: both descriptors are open; removing takes no event.
        let _ = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, descriptor, std::ptr::null_mut()) };
    }

    /// Waits at most `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> io::Result<Vec<Token>> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the array has room for so many events.
        let count =
            unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), EVENTS_MAX as libc::c_int, limit_ms) };
        match check(count) {
            Ok(()) => Ok(events[..count as usize].iter().map(|event| Token::of(event.u64)).collect()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
