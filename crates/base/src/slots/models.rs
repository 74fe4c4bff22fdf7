//! Models of the slot protocol under shuttle. Its futex never times out, so a lost wake-up is a deadlock, which shuttle reports.

use std::sync::Arc;
use std::time::Duration;

use shuttle::sync::{Condvar, Mutex};
use shuttle::{check_pct, check_random, thread};

use super::sync::Ordering;
use super::words::{Doors, Notify, Seen, SlotWords, Turn};

/// Random schedules per model.
const SCHEDULES: usize = 600;
/// Schedules in which priorities change a few times only.
const PRIORITY_SCHEDULES: usize = 300;
const SLICE: Duration = Duration::from_secs(1);

fn check(model: impl Fn() + Send + Sync + Clone + 'static) {
    check_random(model.clone(), SCHEDULES);
    check_pct(model, PRIORITY_SCHEDULES, 3);
}

/// A region of three slots, the event of its host, and the slots whose replies its driver took for other threads.
#[derive(Default)]
struct Region {
    doors: Doors,
    slots: [SlotWords; 3],
    rung: Mutex<bool>,
    ringing: Condvar,
    taken: Mutex<u64>,
    taking: Condvar,
}

impl Region {
    fn post(&self, index: u32, generation: u32, notify: Notify) {
        self.slots[index as usize].prepare(generation, notify);
        self.doors.submit(index);
    }

    fn ring(&self) {
        *self.rung.lock().expect("sound") = true;
        self.ringing.notify_all();
    }

    fn await_ring(&self) {
        let mut rung = self.rung.lock().expect("sound");
        while !*rung {
            rung = self.ringing.wait(rung).expect("sound");
        }
        *rung = false;
    }

    /// The loop of a guest: `calls` nested calls per attended request, until it has done `requests`.
    fn guest(&self, requests: usize, calls: usize) {
        let mut done = 0;
        while done < requests {
            if self.doors.must_notify() {
                self.ring();
            }
            let bits = self.doors.take_submitted(0, SLICE);
            for index in (0..3u32).filter(|index| bits & (1 << index) != 0) {
                let slot = &self.slots[index as usize];
                let generation = slot.begin().expect("posted");
                if slot.is_attended() {
                    for _ in 0..calls {
                        slot.pass_to_host(Turn::Call, generation);
                        assert!(slot.await_host(Turn::Call, generation, 0));
                    }
                }
                self.doors.complete(index, slot, generation);
                done += 1;
            }
        }
        if self.doors.must_notify() {
            self.ring();
        }
    }

    /// Attends one request to its end; returns the calls it served.
    fn attend(&self, index: usize, generation: u32) -> usize {
        let slot = &self.slots[index];
        self.post(index as u32, generation, Notify::Attended);
        let mut calls = 0;
        loop {
            match slot.await_guest(generation, 0, SLICE) {
                Seen::Turn(Turn::Call) => {
                    calls += 1;
                    slot.pass_to_guest(generation);
                }
                Seen::Turn(Turn::Done) => return calls,
                seen => assert!(seen.is_with_guest(), "{seen:?}"),
            }
        }
    }

    /// Posts and takes requests of slots that share the event, each slot `rounds` times.
    fn drain(&self, slots: u32, rounds: u32) {
        let mut generations = self.post_first(slots);
        while is_any_left(&generations[..slots as usize], rounds) {
            let bits = self.await_completed();
            self.post_next(bits, slots, rounds, &mut generations);
        }
        assert_eq!(self.doors.take_completed(), 0, "nothing is completed twice");
    }

    /// Takes `replies` replies for callers on another thread. Several at once are not followed by a wish for the event: the callers
    /// have their turn, and then it looks again.
    fn drive(&self, replies: u32) {
        let mut left = replies;
        while left > 0 {
            let bits = self.await_completed();
            left -= bits.count_ones();
            *self.taken.lock().expect("sound") |= bits;
            self.taking.notify_all();
            if bits.count_ones() > 1 {
                thread::yield_now();
            }
        }
    }

    /// The callers: they post to each slot `rounds` times, once its last reply was taken.
    fn call(&self, slots: u32, rounds: u32) {
        let mut generations = self.post_first(slots);
        while is_any_left(&generations[..slots as usize], rounds) {
            let mut taken = self.taken.lock().expect("sound");
            while *taken == 0 {
                taken = self.taking.wait(taken).expect("sound");
            }
            let bits = std::mem::take(&mut *taken);
            drop(taken);
            self.post_next(bits, slots, rounds, &mut generations);
        }
    }

    /// Waits for replies, on the event if there are none; their slots.
    fn await_completed(&self) -> u64 {
        loop {
            let bits = self.doors.take_completed();
            if bits != 0 {
                return bits;
            }
            if self.doors.arm() {
                self.await_ring();
            }
        }
    }

    /// Posts to each slot for the first time; the generations of the posts.
    fn post_first(&self, slots: u32) -> [u32; 3] {
        for index in 0..slots {
            self.post(index, 1, Notify::Event);
        }
        [1; 3]
    }

    /// Posts to the slots that are done for the next time, if their rounds are not over.
    fn post_next(&self, bits: u64, slots: u32, rounds: u32, generations: &mut [u32; 3]) {
        for index in (0..slots).filter(|index| bits & (1 << index) != 0) {
            let (slot, generation) = (&self.slots[index as usize], &mut generations[index as usize]);
            assert_eq!(slot.seen(*generation), Seen::Turn(Turn::Done), "a bit means done, once");
            *generation += 1;
            if *generation <= rounds {
                self.post(index, *generation, Notify::Event);
            }
        }
    }
}

fn is_any_left(generations: &[u32], rounds: u32) -> bool {
    generations.iter().any(|&generation| generation <= rounds)
}

#[test]
fn completions_reach_a_host_that_sleeps_on_its_event() {
    check(|| {
        let region = Arc::new(Region::default());
        let host = region.clone();
        let host = thread::spawn(move || host.drain(2, 3));
        region.guest(6, 0);
        host.join().expect("all were taken");
    });
}

#[test]
fn completions_reach_a_driver_that_looks_again_while_its_callers_post() {
    check(|| {
        let region = Arc::new(Region::default());
        let (driver, callers) = (region.clone(), region.clone());
        let driver = thread::spawn(move || driver.drive(6));
        let callers = thread::spawn(move || callers.call(3, 2));
        region.guest(6, 0);
        driver.join().expect("all were taken");
        callers.join().expect("all were answered");
    });
}

#[test]
fn an_attended_request_calls_and_is_answered() {
    check(|| {
        let region = Arc::new(Region::default());
        let host = region.clone();
        let host = thread::spawn(move || host.attend(0, 1) + host.attend(0, 2));
        region.guest(2, 2);
        assert_eq!(host.join().expect("done"), 4);
    });
}

#[test]
fn a_guest_that_looks_late_leaves_the_next_sleep_announced() {
    shuttle::check_random(
        || {
            let slot = SlotWords::default();
            slot.host_asleep.store(1, Ordering::SeqCst);
            slot.pass_to_host(Turn::Call, 1);
            assert!(slot.host_asleep.load(Ordering::SeqCst) == 1, "the guest's next turn has to wake it, too");
        },
        1,
    );
}

#[test]
fn attended_and_shared_slots_do_not_disturb_one_another() {
    check(|| {
        let region = Arc::new(Region::default());
        let (shared, attended) = (region.clone(), region.clone());
        let shared = thread::spawn(move || shared.drain(2, 2));
        let attended = thread::spawn(move || attended.attend(2, 1));
        region.guest(5, 1);
        shared.join().expect("all were taken");
        assert_eq!(attended.join().expect("done"), 1);
    });
}

#[test]
fn a_withdrawn_request_is_never_begun_and_its_slot_serves_the_next() {
    check(|| {
        let region = Arc::new(Region::default());
        let host = region.clone();
        let host = thread::spawn(move || {
            let slot = &host.slots[0];
            host.post(0, 1, Notify::Event);
            let is_withdrawn = slot.withdraw(1);
            if !is_withdrawn {
                while slot.seen(1) != Seen::Turn(Turn::Done) {
                    thread::yield_now();
                }
            }
            host.post(0, 2, Notify::Attended);
            while slot.await_guest(2, 0, SLICE) != Seen::Turn(Turn::Done) {}
            is_withdrawn
        });
        let mut begun = Vec::new();
        while begun.last() != Some(&2) {
            if region.doors.take_submitted(0, SLICE) & 1 != 0
                && let Some(generation) = region.slots[0].begin()
            {
                begun.push(generation);
                region.doors.complete(0, &region.slots[0], generation);
            }
        }
        let is_withdrawn = host.join().expect("done");
        assert_eq!(begun, if is_withdrawn { vec![2] } else { vec![1, 2] });
    });
}

#[test]
fn closing_wakes_the_thread_that_attends() {
    check(|| {
        let region = Arc::new(Region::default());
        let host = region.clone();
        let host = thread::spawn(move || {
            let slot = &host.slots[0];
            host.post(0, 1, Notify::Attended);
            loop {
                let seen = slot.await_guest(1, 0, SLICE);
                if !seen.is_with_guest() {
                    return seen;
                }
            }
        });
        // The guest has died; whoever reaps it closes its slots.
        while region.doors.take_submitted(0, SLICE) == 0 {}
        region.slots[0].close(1);
        assert_eq!(host.join().expect("woken"), Seen::Turn(Turn::Closed));
    });
}

#[test]
fn turns_of_another_use_or_of_nobody_are_garbage() {
    shuttle::check_random(
        || {
            let slot = SlotWords::default();
            slot.turn.store(Turn::Done.word(6));
            for (generation, expected) in [(6, Seen::Turn(Turn::Done)), (7, Seen::Garbage), (5, Seen::Garbage)] {
                assert_eq!(slot.seen(generation), expected);
            }
            for word in [9, 15, u32::MAX, (6 << 4) | 9] {
                slot.turn.store(word);
                assert_eq!(slot.seen(6), Seen::Garbage, "{word}");
                assert_eq!(slot.begin(), None, "{word}");
            }
        },
        1,
    );
}
