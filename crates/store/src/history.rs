//! Which older versions of forks stay at hand.
//!
//! A fork's origin is pinned, and one version every [`PIN_COMMITS`] commits or [`PIN_MICROS`], whichever comes first.
//! Any other version is reached by applying logged operations from the nearest pin before it. A pin keeps the
//! pages that later commits replaced, so pins have bounds, and a version that is asked for is kept within two limits:
//! - *The window*: versions that were replaced by a later one longer ago than the history's time or bytes of log are
//!   not retained. The oldest pin of a fork is the newest one that something in the window is reached from.
//! - *The budget*: when there are too many pins, or they keep too many bytes, the pin that is missed least goes: the
//!   one that closes the smallest gap for its age. Versions behind it stay reachable, through more of the log.
//!
//! Ephemeral forks are not logged, so only their origins and heads can be reached.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::ids::{ForkId, Lsn};
use crate::options::StoreOptions;
use crate::page::Stamp;
use crate::read::Published;
use crate::tree::meter;

/// Commits between two pins: as many small ones are applied in a few milliseconds.
pub(crate) const PIN_COMMITS: u64 = 4096;

/// Time between two pins of a fork that is written to slowly, in microseconds.
pub(crate) const PIN_MICROS: i64 = 1_000_000;

/// The pins of one fork.
pub(crate) struct History(Mutex<Pins>);

struct Pins {
    /// The oldest retained version; never thinned out, since the log alone cannot replace it.
    first: Published,
    /// The others, by LSN.
    later: VecDeque<Published>,
    /// Bytes of pages that commits replaced after a pin and that were not freed yet, as far as is known.
    held_bytes: u64,
    /// The fork was dropped: nothing is pinned any more.
    closed: bool,
}

/// What a writer needs to know to pin in time.
#[derive(Clone, Copy)]
pub(crate) struct LastPin {
    pub(crate) lsn: Lsn,
    pub(crate) timestamp_micros: i64,
    pub(crate) stamp: Stamp,
}

impl LastPin {
    fn of(version: &Published) -> LastPin {
        let Published { lsn, timestamp_micros, .. } = *version;
        LastPin { lsn, timestamp_micros, stamp: version.state.stamp() }
    }

    /// Whether the version with these numbers is far enough from the last pin to become one.
    pub(crate) fn is_behind(&self, lsn: Lsn, timestamp_micros: i64) -> bool {
        lsn.get() >= self.lsn.get() + PIN_COMMITS
            || timestamp_micros.saturating_sub(self.timestamp_micros) >= PIN_MICROS
    }
}

/// What a version is asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionAt {
    /// Its number.
    Lsn(Lsn),
    /// The last version at or before a time, in microseconds since the Unix epoch.
    Time(i64),
}

impl VersionAt {
    /// Whether a version is not behind the one asked for.
    pub(crate) fn includes(self, lsn: Lsn, timestamp_micros: i64) -> bool {
        match self {
            VersionAt::Lsn(wanted) => lsn <= wanted,
            VersionAt::Time(wanted) => timestamp_micros <= wanted,
        }
    }
}

impl History {
    /// The history of a fork that begins with `origin`.
    pub(crate) fn begin(origin: Published) -> Arc<History> {
        let pins = Pins { first: origin, later: VecDeque::new(), held_bytes: 0, closed: false };
        Arc::new(History(Mutex::new(pins)))
    }

    pub(crate) fn last(&self) -> LastPin {
        let pins = self.0.lock();
        let last = pins.later.back().unwrap_or(&pins.first);
        LastPin::of(last)
    }

    /// The oldest retained version.
    pub(crate) fn first(&self) -> Published {
        self.0.lock().first.clone()
    }

    pub(crate) fn oldest(&self) -> Lsn {
        self.0.lock().first.lsn
    }

    /// The newest pin that is not behind the version asked for.
    pub(crate) fn nearest(&self, at: VersionAt) -> Option<Published> {
        let pins = self.0.lock();
        let count = pins.later.partition_point(|pin| at.includes(pin.lsn, pin.timestamp_micros));
        match count.checked_sub(1) {
            Some(index) => Some(pins.later[index].clone()),
            None => Some(pins.first.clone()).filter(|first| at.includes(first.lsn, first.timestamp_micros)),
        }
    }
}

/// The pins of a store, within their bounds.
pub(crate) struct Retention {
    window_micros: i64,
    pub(crate) window_bytes: u64,
    pins_max: u64,
    bytes_max: u64,
    /// Forks that have more than their first pin: at most as many as there may be pins.
    pinned: Mutex<BTreeMap<ForkId, Weak<History>>>,
    pins: AtomicU64,
    held_bytes: AtomicU64,
}

impl Retention {
    pub(crate) fn new(options: &StoreOptions) -> Retention {
        Retention {
            window_micros: options.history_micros,
            window_bytes: options.history_bytes,
            pins_max: options.pins_max,
            bytes_max: options.pin_bytes_max,
            pinned: Mutex::default(),
            pins: AtomicU64::new(0),
            held_bytes: AtomicU64::new(0),
        }
    }

    /// Pins beyond the first of each fork.
    pub(crate) fn pins(&self) -> u64 {
        self.pins.load(Ordering::Relaxed)
    }

    /// Bytes that pins keep in memory.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Pins a version of a fork. `held_bytes` is what its commits left to the pin before.
    pub(crate) fn pin(&self, fork: ForkId, history: &Arc<History>, version: Published, held_bytes: u64) -> LastPin {
        let last = {
            let mut pins = history.0.lock();
            let last = pins.later.back().unwrap_or(&pins.first);
            assert!(last.lsn < version.lsn, "pins of a fork rise");
            let last = LastPin::of(&version);
            if pins.closed {
                return last;
            }
            pins.held_bytes += held_bytes;
            pins.later.push_back(version);
            self.held_bytes.fetch_add(held_bytes, Ordering::Relaxed);
            self.pins.fetch_add(1, Ordering::Relaxed);
            last
        };
        let mut pinned = self.pinned.lock();
        pinned.entry(fork).or_insert_with(|| Arc::downgrade(history));
        while self.pins() > self.pins_max || self.held_bytes() > self.bytes_max {
            if !self.thin(&mut pinned) {
                break;
            }
        }
        last
    }

    /// Gives up one pin of the fork that keeps most; says whether there was one.
    fn thin(&self, pinned: &mut BTreeMap<ForkId, Weak<History>>) -> bool {
        let too_many = self.pins() > self.pins_max;
        let weight = |history: &Weak<History>| {
            let history = history.upgrade()?;
            let pins = history.0.lock();
            Some(if too_many { pins.later.len() as u64 } else { pins.held_bytes })
        };
        let heaviest = pinned.iter().filter_map(|(fork, history)| Some((weight(history)?, *fork))).max();
        let Some((_, fork)) = heaviest else { return false };
        let Some(history) = pinned[&fork].upgrade() else { return false };
        let victim = {
            let mut pins = history.0.lock();
            let index = least_missed(&pins);
            index.and_then(|index| pins.later.remove(index))
        };
        if let Some(victim) = victim {
            self.give_up(&history, [victim]);
        }
        if history.0.lock().later.is_empty() {
            pinned.remove(&fork);
        }
        true
    }

    /// Frees pins that were taken out of `later`.
    fn give_up(&self, history: &History, victims: impl IntoIterator<Item = Published>) {
        let mut count = 0;
        let freed = meter::freed_by(|| {
            victims.into_iter().for_each(|victim| {
                count += 1;
                drop(victim);
            })
        });
        self.pins.fetch_sub(count, Ordering::Relaxed);
        let mut pins = history.0.lock();
        // Without pins nothing is held; freed pages that were not counted when they were replaced make up for
        // those that a snapshot still holds.
        let given = if pins.later.is_empty() { pins.held_bytes } else { freed.min(pins.held_bytes) };
        pins.held_bytes -= given;
        self.held_bytes.fetch_sub(given, Ordering::Relaxed);
    }

    /// Gives up what fell out of the window. `head` is the fork's newest version; log records before the sequence
    /// number `log_start` are outside of the window.
    pub(crate) fn trim(&self, fork: ForkId, history: &History, head: &Published, now_micros: i64, log_start: u64) {
        let cutoff_micros = now_micros.saturating_sub(self.window_micros);
        // A version is outside when the one that replaced it is.
        let outside = |next: &Published| next.timestamp_micros < cutoff_micros || next.ticket.get() < log_start;
        let mut aged = Vec::new();
        let first;
        {
            let mut pins = history.0.lock();
            while pins.later.front().is_some_and(outside) {
                aged.extend(pins.later.pop_front());
            }
            let whole_fork = pins.later.is_empty() && outside(head);
            let oldest = if whole_fork { Some(head.clone()) } else { aged.last().cloned() };
            let Some(oldest) = oldest.filter(|oldest| oldest.lsn > pins.first.lsn) else { return };
            first = std::mem::replace(&mut pins.first, oldest);
        }
        let freed = meter::freed_by(|| drop(first));
        self.held_bytes.fetch_sub(
            {
                let mut pins = history.0.lock();
                let given = freed.min(pins.held_bytes);
                pins.held_bytes -= given;
                given
            },
            Ordering::Relaxed,
        );
        self.give_up(history, aged);
        if history.0.lock().later.is_empty() {
            self.pinned.lock().remove(&fork);
        }
    }

    /// Gives up all pins of a dropped fork but its first, which goes with the fork.
    pub(crate) fn close(&self, fork: ForkId, history: &History) {
        let later = {
            let mut pins = history.0.lock();
            pins.closed = true;
            std::mem::take(&mut pins.later)
        };
        self.pinned.lock().remove(&fork);
        self.give_up(history, later);
    }
}

/// The pin that closes the smallest gap for its age: so the recent past stays dense, and gaps grow with age.
fn least_missed(pins: &Pins) -> Option<usize> {
    let newest = pins.later.back()?.lsn.get();
    let cost = |index: usize| {
        let before = index.checked_sub(1).map_or(pins.first.lsn, |index| pins.later[index].lsn).get();
        let own = pins.later[index].lsn.get();
        let after = pins.later.get(index + 1).map_or(own, |next| next.lsn.get());
        // Ages are at least one, so that the newest pin can go when it is the only one.
        (u128::from(after - before) << 64) / u128::from(newest - own + 1)
    };
    (0..pins.later.len()).min_by_key(|index| cost(*index))
}
