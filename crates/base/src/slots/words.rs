//! The shared words of a region, and every step that either side takes on them.
//!
//! Two pairs of words put somebody to sleep, and both follow the same rule: the sleeper announces its sleep *and then* looks once
//! more for work; the other side leaves work *and then* looks for a sleeper. With sequentially consistent accesses at least one of
//! the two sees the other.

use std::time::Duration;

use super::sync::{AtomicU32, AtomicU64, Futex, Ordering};

/// A guest that waits for the host looks again this often. It is woken in time; the host that kills it does not wait either.
const WAIT_SLICE: Duration = Duration::from_secs(1);

/// So many looks for the other side's turn follow one another at once.
const LOOKS_AT_ONCE: u32 = 100;

/// What is between two looks for the other side's turn. The kernel likes to wake a thread on the core of whoever woke it, and there
/// the other side cannot take its turn before this one gives the core up.
fn pause(look: u32) {
    if look < LOOKS_AT_ONCE {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// Keeps what one side writes all the time out of the cache lines (and their prefetched neighbours) of what the other side reads.
#[derive(Debug)]
#[cfg_attr(test, derive(Default))]
#[repr(C, align(128))]
pub(super) struct Line<T>(pub(super) T);

/// The words of a region that belong to no slot.
#[derive(Debug)]
#[cfg_attr(test, derive(Default))]
#[repr(C)]
pub(super) struct Doors {
    /// A bit for each slot with a request that the guest has not taken. Set by the host, taken by the guest.
    submitted: Line<AtomicU64>,
    /// 1 while the guest sleeps or is about to.
    guest_asleep: Line<Futex>,
    /// A bit for each slot whose reply nobody took. Set by the guest, taken by the host.
    completed: Line<AtomicU64>,
    /// 1 while the host wants its event for the next completion.
    host_armed: Line<AtomicU32>,
    /// 0 until the guest is ready; then what it tells about itself.
    ready: Line<AtomicU32>,
    /// 1 while many short requests come. Written by the host; advice to the guest.
    hot: Line<AtomicU32>,
}

/// The words of a slot.
#[derive(Debug)]
#[cfg_attr(test, derive(Default))]
#[repr(C, align(128))]
pub(super) struct SlotWords {
    /// Whose turn it is: the generation of the slot's use above [`Turn::BITS`] bits of [`Turn`].
    pub(super) turn: Futex,
    /// 1 while a thread of the host sleeps on `turn` or is about to. Written by the host alone.
    pub(super) host_asleep: AtomicU32,
    /// 1 while the guest sleeps on `turn` or is about to. Written by the guest alone, and only in use while it waits for an answer:
    /// one that lies about it sleeps until it looks again by itself.
    pub(super) guest_asleep: AtomicU32,
    /// Whether a thread of the host waits for this request alone: then no bit in `completed` is set and no event is sent.
    attended: AtomicU32,
    /// Lengths and places, in bytes; see [`super::Exchange`].
    pub(super) request_offset: AtomicU32,
    pub(super) request_bytes: AtomicU32,
    pub(super) reply_capacity: AtomicU32,
    pub(super) answer_capacity: AtomicU32,
    /// Written by the guest with a reply, a part or a call.
    pub(super) reply_bytes: AtomicU32,
    pub(super) status: AtomicU32,
    /// Written by the host with an answer: the bytes of this piece, and those that follow it.
    pub(super) answer_bytes: AtomicU32,
    pub(super) answer_left: AtomicU32,
}

/// What was last done in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Turn {
    /// Nothing yet.
    Idle = 0,
    /// The host posted a request; the guest has not begun it.
    Request = 1,
    /// The guest works on it.
    Running = 2,
    /// The guest passes a piece of a call or reply that does not fit at once, and waits.
    Part = 3,
    /// The guest calls the host, and waits.
    Call = 4,
    /// The guest wants the next piece of an answer, and waits.
    More = 5,
    /// The host answered; the guest goes on.
    Answer = 6,
    /// The guest is done.
    Done = 7,
    /// The host gave up.
    Closed = 8,
}

impl Turn {
    const BITS: u32 = 4;

    fn of(word: u32) -> Option<Turn> {
        use Turn::{Answer, Call, Closed, Done, Idle, More, Part, Request, Running};
        [Idle, Request, Running, Part, Call, More, Answer, Done, Closed].get((word & 15) as usize).copied()
    }

    pub(super) fn word(self, generation: u32) -> u32 {
        (generation << Turn::BITS) | self as u32
    }
}

/// Generations wrap here: what fits beside a [`Turn`].
pub(super) const GENERATION_MASK: u32 = u32::MAX >> Turn::BITS;

/// How the host learns that a request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// By the region's event, shared by all such requests.
    Event,
    /// A thread waits for this one request and serves the guest's calls in between.
    Attended,
}

impl Doors {
    /// Host: lets the guest find the prepared request of slot `index`, and wakes it if it sleeps.
    pub(super) fn submit(&self, index: u32) {
        // SYNC: pairs with `take_submitted`; the guest that takes the bit sees everything written for the request.
        self.submitted.0.fetch_or(1 << index, Ordering::SeqCst);
        if self.guest_asleep.0.load() == 1 && self.guest_asleep.0.swap(0) == 1 {
            self.guest_asleep.0.wake();
        }
    }

    /// Host: the slots that were completed since the last time, as bits.
    pub(super) fn take_completed(&self) -> u64 {
        // SYNC: pairs with `complete`. Looking first keeps the line shared while nothing is there.
        if self.completed.0.load(Ordering::SeqCst) == 0 { 0 } else { self.completed.0.swap(0, Ordering::SeqCst) }
    }

    /// Host: asks for the event at the next completion. `false`: there is one already, take it instead of sleeping.
    pub(super) fn arm(&self) -> bool {
        self.host_armed.0.store(1, Ordering::SeqCst);
        self.completed.0.load(Ordering::SeqCst) == 0
    }

    /// Guest: waits for requests; the slots that have one, as bits. Looks `spins` times before it sleeps.
    pub(super) fn take_submitted(&self, spins: u32, limit: Duration) -> u64 {
        for look in 0..=spins {
            // SYNC: pairs with `post`.
            if self.submitted.0.load(Ordering::SeqCst) != 0 {
                return self.submitted.0.swap(0, Ordering::SeqCst);
            }
            pause(look);
        }
        self.guest_asleep.0.store(1);
        if self.submitted.0.load(Ordering::SeqCst) == 0 {
            self.guest_asleep.0.wait(1, limit);
        }
        self.guest_asleep.0.store(0);
        self.submitted.0.swap(0, Ordering::SeqCst)
    }

    /// Guest: marks the request of slot `index` done. Whoever does not attend it learns of it with the next [`Doors::notify`].
    pub(super) fn complete(&self, index: u32, slot: &SlotWords, generation: u32) {
        let is_attended = slot.is_attended();
        slot.pass_to_host(Turn::Done, generation);
        if !is_attended {
            // SYNC: pairs with `take_completed`; the host that takes the bit sees the reply.
            self.completed.0.fetch_or(1 << index, Ordering::SeqCst);
        }
    }

    /// Guest: whether the host wants its event now. Every guest asks before it sleeps.
    pub(super) fn must_notify(&self) -> bool {
        self.completed.0.load(Ordering::SeqCst) != 0
            && self.host_armed.0.load(Ordering::SeqCst) == 1
            && self.host_armed.0.swap(0, Ordering::SeqCst) == 1
    }

    /// Guest: tells that it is ready, and what it is.
    pub(super) fn set_ready(&self, about: u32) {
        assert_ne!(about, 0, "zero means not ready");
        self.ready.0.store(about, Ordering::SeqCst);
    }

    /// Host: what the guest told when it got ready; 0 until then.
    pub(super) fn ready(&self) -> u32 {
        self.ready.0.load(Ordering::SeqCst)
    }

    /// Host: tells whether many short requests come.
    pub(super) fn set_hot(&self, is_hot: bool) {
        self.hot.0.store(u32::from(is_hot), Ordering::Relaxed);
    }

    /// Guest: whether many short requests come.
    pub(super) fn is_hot(&self) -> bool {
        self.hot.0.load(Ordering::Relaxed) == 1
    }
}

impl SlotWords {
    /// Guest: takes up the posted request and returns its generation. `None`: there is none, the host gave it up.
    pub(super) fn begin(&self) -> Option<u32> {
        let word = self.turn.load();
        if Turn::of(word) != Some(Turn::Request) {
            return None;
        }
        let generation = word >> Turn::BITS;
        // SYNC: pairs with `withdraw`: one of the two gets the request.
        self.turn.exchange(word, Turn::Running.word(generation)).then_some(generation)
    }

    /// Host: makes a request ready to be begun.
    pub(super) fn prepare(&self, generation: u32, notify: Notify) {
        self.attended.store(u32::from(notify == Notify::Attended), Ordering::Relaxed);
        self.turn.store(Turn::Request.word(generation));
    }

    /// Host: takes back a request that the guest has not begun. `false`: it has.
    pub(super) fn withdraw(&self, generation: u32) -> bool {
        self.turn.exchange(Turn::Request.word(generation), Turn::Closed.word(generation))
    }

    /// Guest: whether a thread of the host attends the request.
    pub(super) fn is_attended(&self) -> bool {
        self.attended.load(Ordering::Relaxed) == 1
    }

    /// Guest: gives the turn to the host.
    pub(super) fn pass_to_host(&self, turn: Turn, generation: u32) {
        self.turn.store(turn.word(generation));
        // SYNC: pairs with `await_guest`, which sets the word before it looks at the turn again. Only the host clears it: a guest
        // that comes late, after the host has answered and announced its next sleep, must not take that announcement away.
        if self.host_asleep.load(Ordering::SeqCst) == 1 {
            self.turn.wake();
        }
    }

    /// Guest: waits until the host has answered what `passed` asked. `false`: the host gave up.
    pub(super) fn await_host(&self, passed: Turn, generation: u32, spins: u32) -> bool {
        let sent = passed.word(generation);
        for look in 0..spins {
            if self.turn.load() != sent {
                break;
            }
            pause(look);
        }
        if self.turn.load() == sent {
            // SYNC: pairs with `pass_to_guest`; announced before the look that decides to sleep.
            self.guest_asleep.store(1, Ordering::SeqCst);
            while self.turn.load() == sent {
                self.turn.wait(sent, WAIT_SLICE);
            }
            self.guest_asleep.store(0, Ordering::SeqCst);
        }
        self.turn.load() == Turn::Answer.word(generation)
    }

    /// Host: wakes a thread that waits for the guest, to look again.
    pub(super) fn wake_host(&self) {
        self.turn.wake();
    }

    /// Host: answers the guest, which waits for it. One that still spins is not woken: that would be a system call per answer.
    pub(super) fn pass_to_guest(&self, generation: u32) {
        self.turn.store(Turn::Answer.word(generation));
        // SYNC: pairs with `await_host`, which sets the word before it looks at the turn again.
        if self.guest_asleep.load(Ordering::SeqCst) == 1 {
            self.turn.wake();
        }
    }

    /// Host: gives the slot up, and wakes whoever waits for its turn, on either side.
    pub(super) fn close(&self, generation: u32) {
        self.turn.store(Turn::Closed.word(generation));
        self.turn.wake();
    }

    /// Host: waits until the turn is no longer one of the guest's own work: at most `limit` after `spins` looks. Returns early
    /// with the turn as it is when the time is over.
    pub(super) fn await_guest(&self, generation: u32, spins: u32, limit: Duration) -> Seen {
        for look in 0..spins {
            let seen = Seen::of(self.turn.load(), generation);
            if !seen.is_with_guest() {
                return seen;
            }
            pause(look);
        }
        self.host_asleep.store(1, Ordering::SeqCst);
        let word = self.turn.load();
        if Seen::of(word, generation).is_with_guest() {
            self.turn.wait(word, limit);
        }
        self.host_asleep.store(0, Ordering::SeqCst);
        Seen::of(self.turn.load(), generation)
    }

    /// Host: the turn now.
    pub(super) fn seen(&self, generation: u32) -> Seen {
        Seen::of(self.turn.load(), generation)
    }
}

/// A turn word as the host reads it, of a guest that may write anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A turn that is possible in this use of the slot.
    Turn(Turn),
    /// No turn, or one of another use of the slot: the guest breaks the protocol.
    Garbage,
}

impl Seen {
    fn of(word: u32, generation: u32) -> Seen {
        match Turn::of(word) {
            Some(turn) if word >> Turn::BITS == generation => Seen::Turn(turn),
            _ => Seen::Garbage,
        }
    }

    /// Whether the guest still works, or has not begun.
    pub fn is_with_guest(self) -> bool {
        matches!(self, Seen::Turn(Turn::Request | Turn::Running | Turn::Answer))
    }
}
