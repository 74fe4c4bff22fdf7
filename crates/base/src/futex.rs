//! Waiting on a word of memory, also of memory that processes share, and a doorbell made of two such words.
//!
//! Invariants:
//! - Waits work across processes: the word is identified by the page behind it, not by its address.
//! - Every wait returns within its time limit, whatever the other side does with the words.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Something woke the waiter, possibly for nothing, or the word had changed before: look again.
    Look,
    /// The time limit passed.
    TimedOut,
}

/// Sleeps while `word` holds `expected`, until [`wake`] or for `limit`.
pub fn wait(word: &AtomicU32, expected: u32, limit: Duration) -> Wait {
    let limit = libc::timespec {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    // SAFETY: the word is a live, aligned 32-bit atomic and the limit lives on this stack; the kernel only reads both.
    let status = unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &limit, std::ptr::null::<u32>(), 0)
    };
    if status == 0 {
        return Wait::Look;
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR) => Wait::Look,
        Some(libc::ETIMEDOUT) => Wait::TimedOut,
        other => unreachable!("a futex wait on a live word cannot fail with {other:?}"),
    }
}

/// Wakes up to `count` waiters of `word`; returns how many there were.
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    // SAFETY: the word is a live, aligned 32-bit atomic; the kernel takes its address only.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
    usize::try_from(woken).unwrap_or(0)
}

/// A bell that any number of threads of any number of processes ring and wait for. All-zero memory is a valid, silent bell, so that
/// it can be laid over shared memory as it is.
///
/// Use: read [`rings`](Doorbell::rings), look whether there is something to do, and only then [`wait`](Doorbell::wait) with the
/// number read. A ring after the number was read ends the wait, so no ring is lost. A waiter that is killed leaves its mark in
/// `waiting`, which costs later rings a system call and nothing else.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Doorbell {
    rings: AtomicU32,
    waiting: AtomicU32,
}

impl Doorbell {
    /// A silent bell.
    pub const fn new() -> Self {
        Doorbell { rings: AtomicU32::new(0), waiting: AtomicU32::new(0) }
    }

    /// Number of rings so far; wraps.
    pub fn rings(&self) -> u32 {
        // SYNC: sees what a `ring` was meant to tell (its first SeqCst step).
        self.rings.load(Ordering::SeqCst)
    }

    /// Wakes everybody who waits. Costs no system call when nobody does.
    pub fn ring(&self) {
        // SYNC: with `wait`: either this side sees `waiting`, or the waiter's futex finds `rings` changed. Both are SeqCst because
        // each side writes one word and then reads the other.
        self.rings.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) != 0 {
            wake(&self.rings, u32::MAX);
        }
    }

    /// Waits for a ring later than the one `seen` was read at, for at most `limit`.
    pub fn wait(&self, seen: u32, limit: Duration) -> Wait {
        // SYNC: see `ring`.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let outcome =
            if self.rings.load(Ordering::SeqCst) == seen { wait(&self.rings, seen, limit) } else { Wait::Look };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    /// Waits until `ready` says yes, which it is asked before each sleep; false when `limit` passes first.
    pub fn wait_until(&self, limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
        let started = Instant::now();
        loop {
            let seen = self.rings();
            if ready() {
                return true;
            }
            let Some(left) = limit.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) else { return false };
            self.wait(seen, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::SharedMemory;

    #[test]
    fn a_wait_ends_in_time() {
        let bell = Doorbell::new();
        assert_eq!(bell.wait(bell.rings(), Duration::from_millis(5)), Wait::TimedOut);
        let seen = bell.rings();
        bell.ring();
        assert_eq!(bell.wait(seen, Duration::from_secs(60)), Wait::Look);
        assert!(!bell.wait_until(Duration::from_millis(5), || false));
    }

    #[test]
    fn no_ring_is_lost_between_threads() {
        const ROUNDS: u32 = 20_000;
        let (there, back) = (Doorbell::new(), Doorbell::new());
        let (sent, answered) = (AtomicU32::new(0), AtomicU32::new(0));
        let limit = Duration::from_secs(20);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    assert!(there.wait_until(limit, || sent.load(Ordering::Acquire) == round), "round {round}");
                    answered.store(round, Ordering::Release);
                    back.ring();
                }
            });
            for round in 1..=ROUNDS {
                sent.store(round, Ordering::Release);
                there.ring();
                assert!(back.wait_until(limit, || answered.load(Ordering::Acquire) == round), "round {round}");
            }
        });
    }

    #[test]
    fn a_bell_in_shared_memory_is_heard_in_another_process() {
        let memory = SharedMemory::create("test", size_of::<Doorbell>()).expect("memory");
        // SAFETY: the region is zero, page-aligned and large enough, and lives until the end of the test; the bell is atomics only.
        let bell = unsafe { memory.address().cast::<Doorbell>().as_ref() };
        let seen = bell.rings();
        // SAFETY: the child does nothing but two system calls and ends without running anything of the parent's.
        let child = unsafe { libc::fork() };
        if child == 0 {
            bell.ring();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) };
        }
        assert!(child > 0);
        assert!(bell.wait_until(Duration::from_secs(20), || bell.rings() != seen));
        let mut status = 0;
        // SAFETY: the child is ours and the pointer valid.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    }
}
