//! What a server keeps per connection: how much may wait, in which order replies leave, and how new a state was shown.

use std::collections::VecDeque;

use crate::sync::{AtomicUsize, Mutex, Ordering};

/// A committed read that was overtaken this often is a job for the lane, where nothing can overtake it. Each failure means that
/// another reply of the same connection left in between, so a handful of attempts is already a very busy connection.
const COMMITTED_ATTEMPTS_MAX: usize = 4;

/// Bounds what one connection has submitted and not yet got an answer to. Additions come from one thread at a time (the connection's
/// own); giving back is open to all.
#[derive(Debug)]
pub struct Quota {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    requests_max: usize,
    bytes_max: usize,
}

impl Quota {
    /// A quota of `requests_max` requests of `bytes_max` bytes together.
    pub fn new(requests_max: usize, bytes_max: usize) -> Self {
        Quota { requests: AtomicUsize::new(0), bytes: AtomicUsize::new(0), requests_max, bytes_max }
    }

    /// Counts one request and returns true, unless a bound would be crossed.
    pub fn take(&self, bytes: usize) -> bool {
        // Only one thread adds, so the check cannot be overtaken by another addition.
        if self.requests.load(Ordering::Relaxed) >= self.requests_max
            || self.bytes.load(Ordering::Relaxed).saturating_add(bytes) > self.bytes_max
        {
            return false;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Gives back what one answered request had taken.
    ///
    /// # Panics
    /// When more is given back than was taken.
    pub fn give_back(&self, bytes: usize) {
        let requests_before = self.requests.fetch_sub(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        assert!(requests_before > 0 && bytes_before >= bytes, "more was given back than was taken");
    }

    /// Requests taken and not given back.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A reply's place in the order of its connection's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u64);

/// Puts replies that are ready in any order back into the order of their requests.
///
/// Needed where requests of one connection go to several lanes, or past them; the replies of one lane come in order by themselves.
/// What it holds is bounded by the connection's [`Quota`].
#[derive(Debug)]
pub struct Sequencer<T> {
    state: Mutex<Sequence<T>>,
}

#[derive(Debug)]
struct Sequence<T> {
    /// Place of the front slot.
    first: u64,
    slots: VecDeque<Option<T>>,
}

impl<T> Default for Sequencer<T> {
    fn default() -> Self {
        Sequencer { state: Mutex::new(Sequence { first: 0, slots: VecDeque::new() }) }
    }
}

impl<T> Sequencer<T> {
    /// Takes the next place; to be called in the order of the requests, and to be filled exactly once.
    pub fn reserve(&self) -> Place {
        let mut state = self.state.lock();
        state.slots.push_back(None);
        Place(state.first + state.slots.len() as u64 - 1)
    }

    /// Fills a place and passes every reply whose turn has come to `deliver`, in order. `deliver` must not block: it runs under the
    /// lock that keeps the order.
    ///
    /// # Panics
    /// When the place was filled before.
    pub fn fill(&self, place: Place, reply: T, mut deliver: impl FnMut(T)) {
        let mut state = self.state.lock();
        let position = place.0.checked_sub(state.first).expect("a place is filled once");
        let slot = state.slots.get_mut(position as usize).expect("a place was reserved before");
        assert!(slot.replace(reply).is_none(), "a place is filled once");
        while let Some(Some(_)) = state.slots.front() {
            let reply = state.slots.pop_front().flatten().expect("the front is filled");
            state.first += 1;
            deliver(reply);
        }
    }

    /// Places reserved and not yet delivered.
    pub fn waiting(&self) -> usize {
        self.state.lock().slots.len()
    }
}

/// Another reply of the connection showed a newer state in the meantime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overtaken {
    /// The newest version the connection has seen.
    pub seen: u64,
}

/// The newest version that one connection has seen of one fork, so that no later answer shows an older one (G4).
///
/// Replies of the lane only raise it. A committed read, which bypasses the lane, is delivered only if it is not older; the check and
/// the delivery are one step, so that no reply of the lane can slip in between.
#[derive(Debug, Default)]
pub struct Horizon {
    seen: Mutex<u64>,
}

impl Horizon {
    /// Delivers a reply of the lane, which shows `version`.
    pub fn deliver<R>(&self, version: u64, deliver: impl FnOnce() -> R) -> R {
        let mut seen = self.seen.lock();
        *seen = version.max(*seen);
        deliver()
    }

    /// Delivers a committed read of `version`, unless the connection has seen a newer one.
    ///
    /// # Errors
    /// [`Overtaken`]: read again.
    pub fn deliver_committed<R>(&self, version: u64, deliver: impl FnOnce() -> R) -> Result<R, Overtaken> {
        let mut seen = self.seen.lock();
        if version < *seen {
            return Err(Overtaken { seen: *seen });
        }
        *seen = version;
        Ok(deliver())
    }

    /// Reads the latest committed state, again if it was overtaken, and delivers the answer. `latest` returns a state with its
    /// version, and a reply of the lane must not be delivered before `latest` returns what it shows.
    ///
    /// # Errors
    /// [`Overtaken`] after a few attempts: submit the read to the lane as an ordered read.
    pub fn read_committed<View, Answer>(
        &self,
        mut latest: impl FnMut() -> (u64, View),
        mut read: impl FnMut(&View) -> Answer,
        deliver: impl FnOnce(u64, Answer),
    ) -> Result<(), Overtaken> {
        let mut deliver = Some(deliver);
        let mut overtaken = Overtaken { seen: 0 };
        for _ in 0..COMMITTED_ATTEMPTS_MAX {
            let (version, view) = latest();
            let answer = read(&view);
            let delivered = self.deliver_committed(version, || {
                let deliver = deliver.take().expect("delivered at most once");
                deliver(version, answer);
            });
            match delivered {
                Ok(()) => return Ok(()),
                Err(error) => overtaken = error,
            }
        }
        Err(overtaken)
    }

    /// The newest version seen.
    pub fn seen(&self) -> u64 {
        *self.seen.lock()
    }
}
