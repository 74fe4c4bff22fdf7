//! The deadlines of one connection, kept as plain instants.
//!
//! The connection has a single `Sleep`. It is moved only when a deadline comes nearer; one that moved
//! away (every received frame moves the idle deadline) is noticed when the sleep fires. So traffic
//! costs no timer operations.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Limits;

/// How long the last replies may take after a protocol violation or the host's wish to close.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
    /// Time to see whether the client is alive.
    Ping,
    /// The client sent nothing for too long.
    Idle,
    /// The client took nothing for too long.
    Write,
    /// The last replies took too long.
    Drain,
    /// The closing handshake took too long.
    Close,
}

pub(crate) struct Timers {
    ping_interval: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
    close_timeout: Duration,
    received_at: Instant,
    ping_at: Instant,
    /// A ping is out and nothing came since.
    ping_unanswered: bool,
    write_blocked_at: Option<Instant>,
    drain_at: Option<Instant>,
    close_at: Option<Instant>,
}

impl Timers {
    pub fn new(limits: &Limits, now: Instant) -> Timers {
        Timers {
            ping_interval: limits.ping_interval,
            idle_timeout: limits.idle_timeout,
            write_timeout: limits.write_timeout,
            close_timeout: limits.close_timeout,
            received_at: now,
            ping_at: now + limits.ping_interval,
            ping_unanswered: false,
            write_blocked_at: None,
            drain_at: None,
            close_at: None,
        }
    }

    /// Something came from the client.
    pub fn received(&mut self, now: Instant) {
        self.received_at = now;
        self.ping_unanswered = false;
    }

    /// The socket is full.
    pub fn write_blocked(&mut self, now: Instant) {
        self.write_blocked_at.get_or_insert(now);
    }

    /// The socket took everything.
    pub fn write_flowed(&mut self) {
        self.write_blocked_at = None;
    }

    /// Whether the socket was full when last asked.
    pub fn is_write_blocked(&self) -> bool {
        self.write_blocked_at.is_some()
    }

    /// The connection is writing its last messages.
    pub fn drain(&mut self, now: Instant) {
        self.drain_at = Some(now + DRAIN_TIMEOUT);
    }

    /// A close frame is out or in.
    pub fn closing(&mut self, now: Instant) {
        self.drain_at = None;
        self.close_at = Some(now + self.close_timeout);
    }

    /// The nearest deadline.
    pub fn next(&self) -> Instant {
        if let Some(close_at) = self.close_at {
            return close_at;
        }
        // While draining nothing is read, so silence proves nothing.
        let mut next = self.ping_at.min(self.drain_at.unwrap_or(self.received_at + self.idle_timeout));
        if let Some(blocked_at) = self.write_blocked_at {
            next = next.min(blocked_at + self.write_timeout);
        }
        next
    }

    /// The most serious thing that is due at `now`, if any. A due ping counts as sent.
    pub fn due(&mut self, now: Instant) -> Option<Timeout> {
        if let Some(close_at) = self.close_at {
            return (now >= close_at).then_some(Timeout::Close);
        }
        if self.write_blocked_at.is_some_and(|blocked_at| now >= blocked_at + self.write_timeout) {
            return Some(Timeout::Write);
        }
        if self.drain_at.is_some_and(|drain_at| now >= drain_at) {
            return Some(Timeout::Drain);
        }
        if self.drain_at.is_none() && now >= self.received_at + self.idle_timeout {
            return Some(Timeout::Idle);
        }
        if now < self.ping_at {
            return None;
        }
        self.ping_at = now + self.ping_interval;
        let send = !self.ping_unanswered;
        self.ping_unanswered = true;
        send.then_some(Timeout::Ping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            ping_interval: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_millis(250),
            ..Limits::default()
        }
    }

    /// Lets time pass until something happens and returns when that was, in milliseconds, and what.
    fn step(timers: &mut Timers, start: Instant) -> (u128, Timeout) {
        for _ in 0..10 {
            let now = timers.next();
            if let Some(timeout) = timers.due(now) {
                return ((now - start).as_millis(), timeout);
            }
        }
        panic!("the deadlines do not move on");
    }

    #[test]
    fn a_silent_client_is_pinged_once_and_then_dropped() {
        let start = Instant::now();
        let mut timers = Timers::new(&limits(), start);
        assert_eq!(step(&mut timers, start), (15_000, Timeout::Ping));
        assert_eq!(step(&mut timers, start), (30_000, Timeout::Idle));
    }

    #[test]
    fn a_client_that_answers_is_pinged_on_and_on() {
        let start = Instant::now();
        let mut timers = Timers::new(&limits(), start);
        for round in 1..6 {
            assert_eq!(step(&mut timers, start), (15_000 * round, Timeout::Ping));
            timers.received(timers.next() - Duration::from_millis(14_990));
        }
    }

    #[test]
    fn blocked_writes_count_from_when_they_blocked() {
        let start = Instant::now();
        let mut timers = Timers::new(&limits(), start);
        timers.write_blocked(start);
        timers.write_blocked(start + Duration::from_secs(6));
        timers.received(start + Duration::from_secs(6));
        assert_eq!(step(&mut timers, start), (10_000, Timeout::Write));
        timers.write_flowed();
        assert_eq!(step(&mut timers, start), (15_000, Timeout::Ping));
    }

    #[test]
    fn draining_is_not_idleness_and_closing_ends_both() {
        let start = Instant::now();
        let mut timers = Timers::new(&limits(), start);
        let later = start + Duration::from_secs(29);
        assert_eq!(timers.due(later), Some(Timeout::Ping));
        timers.drain(later);
        assert_eq!(step(&mut timers, start), (34_000, Timeout::Drain));
        timers.closing(later);
        assert_eq!(step(&mut timers, start), (29_250, Timeout::Close));
    }
}
