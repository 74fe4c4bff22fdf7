//! The meeting point of writers and the log thread.
//!
//! Writers encode their record straight into the frame that is being collected, under a short lock, and go on;
//! the log thread takes the frame as a whole when it is done with the one before. So the records that come in
//! during one sync share the next one, and nobody is woken unless somebody sleeps.
//!
//! Who waits for a record while the log thread is idle writes the frame itself: that saves two changes of thread,
//! which cost as much as the write. Not so in a store with listeners, which are called on the log thread only, so that
//! nobody calls them with locks held that they might take.
//!
//! Invariants:
//! - Sequence numbers are given in the order in which records lie in frames.
//! - `durable` only grows, and only after the sync of the frame that holds the record.
//! - Whoever takes a frame holds `writer` until it is written, so frames are written in the order of their numbers.
//! - Once `failure` is set nothing is appended any more and `durable` never changes again, except that closing
//!   (which is also a failure for writers) still writes what had been accepted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use tine_base::Env;

use super::format::FRAME_HEADER_BYTES;
use super::places::LogPlaces;
use super::record::{RecordRef, append_record};
use super::writer::LogWriter;
use crate::error::{Poison, StoreError};
use crate::ids::DurableTicket;

/// Bytes of records that may wait for the log thread before writers are made to wait: some tenths of a
/// second of a slow disk, so that a stall is felt by writers instead of filling the memory.
pub(crate) const QUEUE_BYTES_MAX: usize = 16 << 20;

/// How long a writer waits for room. A disk that takes longer for one frame is as good as broken.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(30);

/// The largest record: one value of the maximum size and as much again beside it. Keeps frames far below the
/// 4 GiB that their length field can say.
pub(crate) const RECORD_BYTES_MAX: usize = 128 << 20;

/// A buffer that grew beyond this for one large frame is not kept for the next.
const BUFFER_KEPT_BYTES_MAX: usize = 2 * QUEUE_BYTES_MAX;

/// A frame with at least this many records means that writers are busy: then the next frame is given
/// [`GATHER_TIME`] to fill.
const BUSY_RECORDS: u32 = 16;

/// How long a frame is left to fill when writers are busy. Each frame costs some 20 us of processor time
/// whatever its size; at 100,000 records a second this spreads it over dozens of them, and it is less than
/// the sync takes.
const GATHER_TIME: Duration = Duration::from_micros(100);

type DurableListener = Arc<dyn Fn(DurableTicket) + Send + Sync>;
type WrittenListener = Box<dyn Fn(u64) + Send + Sync>;
type FailureListener = Arc<dyn Fn(&Poison) + Send + Sync>;

/// State shared by writers, waiters and the log thread.
pub(crate) struct LogQueue {
    env: Arc<dyn Env>,
    pending: Mutex<Pending>,
    /// Signalled to one writer when there is room while some wait for it; each that got in tells the next.
    room: Condvar,
    writer: Mutex<LogWriter>,
    durable: AtomicU64,
    /// Set with `Pending::failure`, to be read without the lock.
    failed: AtomicBool,
    /// Threads waiting for a ticket, each woken on its own.
    waiters: Mutex<Waiters>,
    durable_listeners: RwLock<Vec<DurableListener>>,
    failure_listeners: RwLock<Vec<FailureListener>>,
    /// Told of the bytes logged after each frame; must be short.
    written_listener: OnceLock<WrittenListener>,
    pub(crate) counters: Counters,
    /// Where durable records are.
    pub(crate) places: LogPlaces,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) frames: AtomicU64,
    pub(crate) bytes_logged: AtomicU64,
    pub(crate) queue_waits: AtomicU64,
    pub(crate) log_busy_ns: AtomicU64,
    pub(crate) segment: AtomicU64,
}

struct Pending {
    /// The frame being collected, with room for its header.
    frame: Vec<u8>,
    records: u32,
    next_sequence: u64,
    /// The log thread, if it sleeps. Whoever gives it something to do takes it out and wakes it.
    sleeper: Option<Thread>,
    writers_waiting: u32,
    failure: Option<StoreError>,
    closing: bool,
}

#[derive(Default)]
struct Waiters {
    by_ticket: BTreeMap<(u64, u64), Thread>,
    next_id: u64,
}

/// A frame to be written.
pub(crate) struct Batch {
    pub(crate) frame: Vec<u8>,
    pub(crate) records: u32,
    pub(crate) first_sequence: u64,
}

impl LogQueue {
    /// A queue that continues a log whose next record is `next_sequence`; all before are durable.
    pub(crate) fn new(env: Arc<dyn Env>, next_sequence: u64, places: LogPlaces, writer: LogWriter) -> LogQueue {
        let counters = Counters::default();
        counters.segment.store(writer.segment(), Ordering::Relaxed);
        LogQueue {
            env,
            pending: Mutex::new(Pending {
                frame: vec![0; FRAME_HEADER_BYTES],
                records: 0,
                next_sequence,
                sleeper: None,
                writers_waiting: 0,
                failure: None,
                closing: false,
            }),
            room: Condvar::new(),
            writer: Mutex::new(writer),
            durable: AtomicU64::new(next_sequence - 1),
            failed: AtomicBool::new(false),
            waiters: Mutex::default(),
            durable_listeners: RwLock::default(),
            failure_listeners: RwLock::default(),
            written_listener: OnceLock::new(),
            counters,
            places,
        }
    }

    /// Hands a record to the log thread. Waits for room while the queue is full, for
    /// a bounded time.
    pub(crate) fn append(&self, record: &RecordRef<'_>) -> Result<DurableTicket, StoreError> {
        let bytes = record.size_bound();
        if bytes > RECORD_BYTES_MAX {
            return Err(StoreError::RecordTooLarge { bytes, limit: RECORD_BYTES_MAX });
        }
        let mut pending = self.pending.lock();
        while pending.failure.is_none() && pending.records > 0 && pending.frame.len() + bytes > QUEUE_BYTES_MAX {
            self.counters.queue_waits.fetch_add(1, Ordering::Relaxed);
            pending.writers_waiting += 1;
            let timed_out = self.room.wait_for(&mut pending, ROOM_WAIT_MAX).timed_out();
            pending.writers_waiting -= 1;
            if timed_out {
                // It may have been told of room in the same instant, and nobody else was.
                self.room.notify_one();
                return Err(StoreError::Timeout);
            }
        }
        if let Some(failure) = &pending.failure {
            return Err(failure.clone());
        }
        append_record(&mut pending.frame, record);
        pending.records += 1;
        let sequence = pending.next_sequence;
        pending.next_sequence += 1;
        let sleeper = pending.sleeper.take();
        let room_left = pending.writers_waiting > 0 && pending.frame.len() < QUEUE_BYTES_MAX;
        drop(pending);
        if let Some(log_thread) = sleeper {
            log_thread.unpark();
        }
        if room_left {
            self.room.notify_one();
        }
        Ok(DurableTicket::new(sequence))
    }

    /// The failure that keeps writers out, if any. Cheap while there is none.
    pub(crate) fn health(&self) -> Result<(), StoreError> {
        // SYNC: pairs with the store in `fail` and `close`; the lock is what orders the cause.
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.pending.lock().failure.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn durable(&self) -> DurableTicket {
        // SYNC: pairs with the store in `confirm`.
        DurableTicket::new(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn appended(&self) -> DurableTicket {
        DurableTicket::new(self.pending.lock().next_sequence - 1)
    }

    pub(crate) fn queue_bytes(&self) -> u64 {
        (self.pending.lock().frame.len() - FRAME_HEADER_BYTES) as u64
    }

    pub(crate) fn wait_durable(&self, ticket: DurableTicket, timeout: Duration) -> Result<(), StoreError> {
        if self.durable() >= ticket {
            return Ok(());
        }
        if self.durable_listeners.read().is_empty()
            && let Some(mut writer) = self.writer.try_lock()
        {
            self.write_batch(&mut writer);
        }
        if self.durable() >= ticket {
            return Ok(());
        }
        let deadline = Instant::now().checked_add(timeout);
        let key = {
            let mut waiters = self.waiters.lock();
            let id = waiters.next_id;
            waiters.next_id += 1;
            waiters.by_ticket.insert((ticket.get(), id), std::thread::current());
            (ticket.get(), id)
        };
        let result = loop {
            // Looked at after registering: whoever confirms or fails after this look finds the waiter.
            if self.durable() >= ticket {
                break Ok(());
            }
            if let Err(failure) = self.health() {
                // A closing log still writes what it accepted.
                if !matches!(failure, StoreError::Closed) || ticket > self.appended() {
                    break Err(failure);
                }
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break Err(StoreError::Timeout);
            }
            self.env.park(left);
        };
        self.waiters.lock().by_ticket.remove(&key);
        result
    }

    /// Has `listener` called with the bytes logged since the opening after each frame, by whoever wrote it. Set once.
    pub(crate) fn on_written(&self, listener: WrittenListener) {
        assert!(self.written_listener.set(listener).is_ok(), "there is one such listener");
    }

    pub(crate) fn on_durable(&self, listener: DurableListener) {
        self.durable_listeners.write().push(listener);
    }

    /// Calls `listener` once when the log fails, at once if it has.
    pub(crate) fn on_failure(&self, listener: FailureListener) {
        let pending = self.pending.lock();
        match &pending.failure {
            Some(StoreError::Poisoned(poison)) => {
                let poison = poison.clone();
                drop(pending);
                listener(&poison);
            }
            _ => self.failure_listeners.write().push(listener),
        }
    }

    /// Refuses further records and lets the log thread end when it has written those it accepted.
    pub(crate) fn close(&self) {
        let mut pending = self.pending.lock();
        pending.closing = true;
        if pending.failure.is_none() {
            pending.failure = Some(StoreError::Closed);
            self.failed.store(true, Ordering::Release);
        }
        let sleeper = pending.sleeper.take();
        drop(pending);
        if let Some(log_thread) = sleeper {
            log_thread.unpark();
        }
        self.room.notify_all();
    }

    /// Writes frames until the queue is closed and empty, or the log fails: the log thread.
    pub(crate) fn run(&self) {
        while self.wait_for_records() {
            let mut writer = self.writer.lock();
            if self.write_batch(&mut writer) >= BUSY_RECORDS {
                // With the writer held, so that nobody writes the next frame before it had time to fill.
                self.env.sleep(GATHER_TIME);
            }
        }
        self.writer.lock().finish();
    }

    /// Sleeps until there is something to write; `false` when there never will be.
    fn wait_for_records(&self) -> bool {
        loop {
            {
                let mut pending = self.pending.lock();
                pending.sleeper = None;
                if pending.records > 0 {
                    return true;
                }
                if pending.closing || matches!(pending.failure, Some(StoreError::Poisoned(_))) {
                    return false;
                }
                pending.sleeper = Some(std::thread::current());
            }
            self.env.park(None);
        }
    }

    /// Writes what was collected, if anything, and reports it; returns the number of records.
    fn write_batch(&self, writer: &mut LogWriter) -> u32 {
        let Some(mut batch) = self.take(writer.take_buffer()) else { return 0 };
        /// Makes a panic while writing a failure that everybody hears of.
        struct Guard<'a>(&'a LogQueue);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.fail(Poison { cause: "writing the log panicked".into(), disk_full: false });
                }
            }
        }
        let _guard = Guard(self);
        let started_ns = self.env.monotonic_ns();
        let written = writer.write(&mut batch);
        let counters = &self.counters;
        match written {
            Ok(place) => {
                counters.segment.store(place.segment, Ordering::Relaxed);
                self.places.note(batch.first_sequence, place.segment, place.offset, batch.frame.len() as u64);
            }
            Err(error) => {
                self.fail(poison(&error));
                return 0;
            }
        }
        counters.frames.fetch_add(1, Ordering::Relaxed);
        counters.bytes_logged.fetch_add(batch.frame.len() as u64, Ordering::Relaxed);
        counters.log_busy_ns.fetch_add(self.env.monotonic_ns() - started_ns, Ordering::Relaxed);
        self.confirm(batch.first_sequence + u64::from(batch.records) - 1);
        if let Some(listener) = self.written_listener.get() {
            listener(counters.bytes_logged.load(Ordering::Relaxed));
        }
        writer.keep_buffer(batch.frame);
        batch.records
    }

    /// Takes what was collected; `None` if nothing was. `empty` is a buffer to collect the next frame in.
    fn take(&self, mut empty: Vec<u8>) -> Option<Batch> {
        let mut pending = self.pending.lock();
        if pending.records == 0 {
            return None;
        }
        if empty.capacity() > BUFFER_KEPT_BYTES_MAX {
            empty = Vec::new();
        }
        empty.clear();
        empty.resize(FRAME_HEADER_BYTES, 0);
        let frame = std::mem::replace(&mut pending.frame, empty);
        let records = std::mem::take(&mut pending.records);
        let first_sequence = pending.next_sequence - u64::from(records);
        if pending.writers_waiting > 0 {
            self.room.notify_one();
        }
        Some(Batch { frame, records, first_sequence })
    }

    /// Reports everything up to `sequence` as durable.
    pub(crate) fn confirm(&self, sequence: u64) {
        // SYNC: pairs with the load in `durable`. Before the waiters are looked at, see `wait_durable`.
        self.durable.store(sequence, Ordering::Release);
        let woken = {
            let mut waiters = self.waiters.lock();
            let rest = waiters.by_ticket.split_off(&(sequence + 1, 0));
            std::mem::replace(&mut waiters.by_ticket, rest)
        };
        for thread in woken.into_values() {
            thread.unpark();
        }
        let listeners = self.durable_listeners.read().clone();
        for listener in listeners {
            listener(DurableTicket::new(sequence));
        }
    }

    /// Makes the store read-only: nothing that is not durable yet will ever be.
    pub(crate) fn fail(&self, poison: Poison) {
        let (sleeper, listeners) = {
            let mut pending = self.pending.lock();
            pending.failure = Some(StoreError::Poisoned(poison.clone()));
            pending.frame = vec![0; FRAME_HEADER_BYTES];
            pending.records = 0;
            // SYNC: pairs with the load in `health`.
            self.failed.store(true, Ordering::Release);
            // Taken under the lock, so that a listener that comes now is called by one of the two, not both.
            (pending.sleeper.take(), std::mem::take(&mut *self.failure_listeners.write()))
        };
        self.room.notify_all();
        if let Some(log_thread) = sleeper {
            log_thread.unpark();
        }
        let woken = std::mem::take(&mut self.waiters.lock().by_ticket);
        for thread in woken.into_values() {
            thread.unpark();
        }
        for listener in listeners {
            listener(&poison);
        }
    }
}

fn poison(error: &std::io::Error) -> Poison {
    use std::io::ErrorKind;
    let disk_full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    Poison { cause: format!("the log could not be written: {error}").into(), disk_full }
}
