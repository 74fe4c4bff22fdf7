//! Models of rings, bells and the queue under shuttle, which runs them under hundreds of interleavings each. A wake-up that is lost
//! leaves a thread waiting for what nobody will do, and shuttle reports the deadlock.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use shuttle::sync::{Condvar, Mutex};
use shuttle::{check_pct, check_random, thread};

use crate::queue::Queue;
use crate::ring::{Consumer, Control, Place, Producer};

/// Random schedules per model.
const SCHEDULES: usize = 400;
/// Schedules in which priorities change a few times only, which finds what needs one rare preemption.
const PRIORITY_SCHEDULES: usize = 200;

fn check(model: impl Fn() + Send + Sync + Clone + 'static) {
    check_random(model.clone(), SCHEDULES);
    check_pct(model, PRIORITY_SCHEDULES, 3);
}

/// What an eventfd is: rings are counted until somebody waits.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().expect("no panic") = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().expect("no panic");
        while !*rung {
            rung = self.changed.wait(rung).expect("no panic");
        }
        *rung = false;
    }
}

/// Bytes of a ring that are shared by pointer only.
struct Storage {
    control: Control,
    data: std::cell::UnsafeCell<[u8; CAPACITY]>,
}

// SAFETY: shuttle runs one thread at a time, and the ring decides who touches which bytes.
unsafe impl Sync for Storage {}
// SAFETY: as above.
unsafe impl Send for Storage {}

/// Small, so that every message wraps and waits.
const CAPACITY: usize = 8;
/// Cursors wrap within each model.
const START: u32 = u32::MAX - 5;

fn ring() -> (Producer, Consumer) {
    let storage = Arc::new(Storage { control: Control::default(), data: std::cell::UnsafeCell::new([0; CAPACITY]) });
    storage.control.start_at(START);
    let place = Place {
        control: NonNull::from(&storage.control),
        data: NonNull::new(storage.data.get().cast()).expect("not null"),
        capacity_bytes: CAPACITY as u32,
        start: START,
    };
    // SAFETY: the storage is kept alive by both ends, and each is made once.
    unsafe { (Producer::new(place, storage.clone()), Consumer::new(place, storage)) }
}

/// Writes everything, sleeping whenever the ring is full.
fn write(producer: &mut Producer, mut bytes: &[u8], room: &Bell, other: &Bell) {
    while !bytes.is_empty() {
        let count = producer.write(bytes).expect("no fault");
        bytes = &bytes[count..];
        if count == 0 || bytes.is_empty() {
            if producer.show() {
                other.ring();
            }
            if count == 0 && producer.arm().expect("no fault") {
                room.wait();
            }
        }
    }
}

/// Reads `count` bytes, sleeping whenever the ring is empty.
fn read(consumer: &mut Consumer, count: usize, arrived: &Bell, other: &Bell) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let mut target = [MaybeUninit::uninit(); 5];
        let (got, ring) = consumer.read(&mut target).expect("no fault");
        // SAFETY: the ring has initialised that many.
        bytes.extend(target[..got].iter().map(|byte| unsafe { byte.assume_init() }));
        if ring {
            other.ring();
        }
        if got == 0 {
            if consumer.release() {
                other.ring();
            }
            if consumer.arm().expect("no fault") {
                arrived.wait();
            }
        }
    }
    bytes
}

fn message(bytes: usize) -> Vec<u8> {
    (0..bytes as u8).collect()
}

#[test]
fn a_stream_through_a_small_ring_never_stops() {
    check(|| {
        let (mut producer, mut consumer) = ring();
        let (arrived, room) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let bells = (arrived.clone(), room.clone());
        let writer = thread::spawn(move || {
            for _ in 0..2 {
                write(&mut producer, &message(11), &bells.1, &bells.0);
            }
        });
        let got = read(&mut consumer, 22, &arrived, &room);
        assert_eq!(got, [message(11), message(11)].concat());
        writer.join().expect("no panic");
    });
}

#[test]
fn an_echo_with_one_bell_for_both_directions_never_stops() {
    const BYTES: usize = 14;
    check(|| {
        let (mut requests, mut served) = ring();
        let (mut replies, mut answers) = ring();
        let server_bell = Arc::new(Bell::default());
        let (bytes_bell, space_bell) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let bell = server_bell.clone();
        let bells = (bytes_bell.clone(), space_bell.clone());
        // As the reactor does it: what does not fit waits, and while it waits nothing more is read.
        let server = thread::spawn(move || {
            let mut waiting = Vec::new();
            let mut done = 0;
            while done < BYTES {
                let written = replies.write(&waiting).expect("no fault");
                waiting.drain(..written);
                done += written;
                if replies.show() {
                    bells.0.ring();
                }
                let mut read = 0;
                if waiting.is_empty() {
                    let mut target = [MaybeUninit::uninit(); 6];
                    let (got, ring) = served.read(&mut target).expect("no fault");
                    // SAFETY: the ring has initialised that many.
                    waiting.extend(target[..got].iter().map(|byte| unsafe { byte.assume_init() }));
                    read = got;
                    if ring {
                        bells.1.ring();
                    }
                }
                if written == 0 && read == 0 {
                    let mut quiet = true;
                    if waiting.is_empty() {
                        if served.release() {
                            bells.1.ring();
                        }
                        quiet &= served.arm().expect("no fault");
                    } else {
                        quiet &= replies.arm().expect("no fault");
                    }
                    if quiet && done < BYTES {
                        bell.wait();
                    }
                }
            }
        });
        let bell = server_bell.clone();
        let writer = thread::spawn(move || write(&mut requests, &message(BYTES), &space_bell, &bell));
        assert_eq!(read(&mut answers, BYTES, &bytes_bell, &server_bell), message(BYTES));
        writer.join().expect("no panic");
        server.join().expect("no panic");
    });
}

#[test]
fn no_item_of_the_queue_waits_for_ever() {
    check(|| {
        let queue = Arc::new(Queue::new());
        let bell = Arc::new(Bell::default());
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (queue, bell) = (queue.clone(), bell.clone());
                thread::spawn(move || {
                    for item in 0..2 {
                        if queue.push((writer, item)) {
                            bell.ring();
                        }
                    }
                })
            })
            .collect();
        let mut got = Vec::new();
        let mut next = [0; 3];
        while got.len() < 6 {
            let mut items = Vec::new();
            queue.take(&mut items);
            for (writer, item) in items.drain(..) {
                assert_eq!(next[writer], item, "items of one writer stay in order");
                next[writer] += 1;
                got.push((writer, item));
            }
            if got.len() < 6 && queue.arm() {
                bell.wait();
            }
        }
        writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
        assert!(queue.close().is_empty());
        assert!(!queue.push((0, 9)), "a closed queue takes nothing and wakes nobody");
    });
}

#[test]
fn cursors_that_lie_are_faults() {
    // Under shuttle, because the words are its atomics here.
    check_random(
        || {
            for lie in [START.wrapping_sub(1), START.wrapping_add(CAPACITY as u32 + 1), START ^ 0x8000_0000] {
                let (producer, mut consumer) = ring();
                producer.lie_about_tail(lie);
                let fault = consumer.available().expect_err("a fault");
                assert_eq!((fault.found, fault.from), (lie, START));
                let (mut producer, consumer) = ring();
                consumer.lie_about_head(lie);
                producer.write(&[1; CAPACITY]).and_then(|_| producer.free(CAPACITY as u32)).expect_err("a fault");
            }
        },
        1,
    );
}
