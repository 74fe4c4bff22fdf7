//! Spinning for a moment before sleeping, for as long as that pays.
//!
//! A wake-up through the kernel costs several microseconds; an answer that comes sooner is had sooner by looking again and again.
//! But a spinning thread takes a core, and where the other side needs that core, spinning is what keeps the answer from coming. So
//! the length of a spin is learnt: each success allows a longer one, each failure halves it, and after it has shrunk to nothing only
//! every [`PROBE_EVERY`]-th wait tries again. On a single core nobody ever spins.

use std::time::{Duration, Instant};

/// Longest spin: a few times the cost of a wake-up, after which sleeping is no worse.
pub const SPIN_MAX: Duration = Duration::from_micros(16);
/// A shorter spin could hardly see the fastest answer.
const SPIN_MIN: Duration = Duration::from_micros(1);
/// Waits without a spin before one is tried again: keeps the cost of trying in vain at some 2 %.
const PROBE_EVERY: u32 = 32;
/// Looks between two looks at the clock, which costs as much as a few of them.
const LOOKS_PER_CLOCK: u32 = 16;

/// What one waiter has learnt about spinning. Belongs to one thread at a time.
#[derive(Clone, Debug)]
pub struct AdaptiveSpin {
    /// What the next spin may last; zero: none.
    length: Duration,
    /// Zero: never spin.
    length_max: Duration,
    skipped: u32,
}

impl AdaptiveSpin {
    /// For a waiter on a machine where this process may use `cores` cores ([`crate::cpu::budget`]).
    pub fn new(cores: usize) -> Self {
        let length_max = if cores > 1 { SPIN_MAX } else { Duration::ZERO };
        AdaptiveSpin { length: length_max, length_max, skipped: 0 }
    }

    /// Never spins.
    pub fn never() -> Self {
        AdaptiveSpin::new(1)
    }

    /// Asks `ready` until it says yes or the spin is over; false: sleep. `ready` is asked at least once.
    pub fn wait(&mut self, mut ready: impl FnMut() -> bool) -> bool {
        if ready() {
            return true;
        }
        if self.length.is_zero() {
            self.skipped = self.skipped.wrapping_add(1);
            if self.length_max.is_zero() || !self.skipped.is_multiple_of(PROBE_EVERY) {
                return false;
            }
            self.length = self.length_max;
            let found = self.spin(&mut ready);
            if !found {
                self.length = Duration::ZERO;
            }
            return found;
        }
        let found = self.spin(&mut ready);
        self.length = match found {
            true => (self.length * 2).min(self.length_max),
            false if self.length / 2 < SPIN_MIN => Duration::ZERO,
            false => self.length / 2,
        };
        found
    }

    fn spin(&self, ready: &mut impl FnMut() -> bool) -> bool {
        let started = Instant::now();
        loop {
            for _ in 0..LOOKS_PER_CLOCK {
                std::hint::spin_loop();
                if ready() {
                    return true;
                }
            }
            if started.elapsed() >= self.length {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often `ready` was asked during one wait that never ends well.
    fn looks_of_a_failure(spin: &mut AdaptiveSpin) -> u32 {
        let mut looks = 0;
        assert!(!spin.wait(|| {
            looks += 1;
            false
        }));
        looks
    }

    #[test]
    fn one_core_never_spins() {
        let mut spin = AdaptiveSpin::new(1);
        for _ in 0..1_000 {
            assert_eq!(looks_of_a_failure(&mut spin), 1);
        }
    }

    #[test]
    fn failures_end_spinning_and_a_success_brings_it_back() {
        let mut spin = AdaptiveSpin::new(4);
        assert!(looks_of_a_failure(&mut spin) > 1);
        for _ in 0..8 {
            looks_of_a_failure(&mut spin);
        }
        let spinning = (0..PROBE_EVERY * 4).filter(|_| looks_of_a_failure(&mut spin) > 1).count();
        assert_eq!(spinning, 4, "only probes are left");
        let mut waits = 0;
        loop {
            let mut looks = 0;
            waits += 1;
            if spin.wait(|| {
                looks += 1;
                looks > 5
            }) {
                break;
            }
            assert!(waits <= PROBE_EVERY, "a probe comes");
        }
        assert!(looks_of_a_failure(&mut spin) > 1);
    }
}
