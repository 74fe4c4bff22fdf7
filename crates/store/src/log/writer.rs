//! The log thread: frames go to disk, one write and one sync each.
//!
//! Segments are files of zeros made ahead of time by a short-lived thread, so that a sync in the common case
//! neither allocates blocks nor changes metadata. A segment gets its final name only when it is completely
//! zeroed and synced, so a file with that name always has a valid header.
//!
//! Whatever fails here fails the store (`LogQueue::fail`): after a failed sync the kernel may have dropped the
//! written pages, so trying again could report as durable what is not.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tine_base::{Env, EnvFile, OpenMode};

use super::format::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, seal_frame};
use super::queue::{Batch, LogQueue};
use super::scan::{Chain, Tail, segment_path};
use crate::error::{OpenError, Poison};

/// A frame with at least this many records means that writers are busy: then the next frame is given
/// [`GATHER_TIME`] to fill.
const BUSY_RECORDS: u32 = 16;

/// How long a frame is left to fill when writers are busy. Each frame costs some 20 us of processor time
/// whatever its size; at 100,000 records a second this spreads it over dozens of them, and it is less than
/// the sync takes.
const GATHER_TIME: Duration = Duration::from_micros(100);

/// Ends the name of a segment that is being made; what a crash leaves of one is removed at the next opening.
const TEMPORARY_SUFFIX: &str = ".log.tmp";

/// How large segments are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentSizes {
    pub(crate) min_bytes: u64,
    pub(crate) max_bytes: u64,
}

impl SegmentSizes {
    fn of(self, number: u64) -> u64 {
        let doublings = u32::try_from(number - 1).unwrap_or(u32::MAX);
        let doubled = self.min_bytes.saturating_mul(2_u64.saturating_pow(doublings));
        doubled.min(self.max_bytes).max(SEGMENT_HEADER_BYTES as u64 * 2)
    }
}

/// What the log thread owns.
pub(crate) struct LogWriter {
    env: Arc<dyn Env>,
    directory: PathBuf,
    sizes: SegmentSizes,
    store_id: [u8; 16],
    current: Segment,
    /// Where the next frame goes in the current segment.
    position: u64,
    previous_crc: u32,
    epoch: u64,
    preparing: Option<Preparing>,
}

struct Segment {
    header: SegmentHeader,
    file: Box<dyn EnvFile>,
    length: u64,
}

/// The next segment on its way.
struct Preparing {
    result: Arc<Mutex<Option<io::Result<Segment>>>>,
    thread: JoinHandle<()>,
}

impl LogWriter {
    /// Makes the first segment of a new log, or continues a log behind its intact part: the torn rest is
    /// zeroed, segments behind it are removed, and what was recovered is made durable.
    ///
    /// Returns the chain that the queue must continue.
    pub(crate) fn open(
        env: Arc<dyn Env>,
        directory: PathBuf,
        sizes: SegmentSizes,
        tail: Option<Tail>,
    ) -> Result<(LogWriter, Chain), OpenError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Io { path, source }
        };
        remove_temporary_files(&*env, &directory).map_err(failed(&directory))?;
        let (current, position, chain) = match tail {
            None => {
                let mut store_id = [0; 16];
                env.random_bytes(&mut store_id);
                let segment = Segment::create(&*env, &directory, 1, sizes.of(1), store_id);
                let segment = segment.map_err(failed(&segment_path(&directory, 1)))?;
                (segment, SEGMENT_HEADER_BYTES as u64, Chain { next_sequence: 1, previous_crc: 0, epoch: 0 })
            }
            Some(tail) => {
                let segment = Segment::resume(&*env, &directory, &tail, sizes).map_err(failed(&tail.path))?;
                (segment, tail.offset, tail.chain)
            }
        };
        let writer = LogWriter {
            store_id: current.header.store_id,
            env,
            directory,
            sizes,
            current,
            position,
            previous_crc: chain.previous_crc,
            epoch: chain.epoch + 1,
            preparing: None,
        };
        Ok((writer, chain))
    }

    /// Writes frames until the queue is closed and empty, or the log fails.
    pub(crate) fn run(mut self, queue: &LogQueue) {
        queue.counters.segment.store(self.current.header.number, Ordering::Relaxed);
        let mut buffer = Vec::new();
        while let Some(mut batch) = queue.take(buffer) {
            let started_ns = self.env.monotonic_ns();
            if let Err(error) = self.write(&mut batch, queue) {
                queue.fail(poison(&error));
                break;
            }
            let counters = &queue.counters;
            counters.frames.fetch_add(1, Ordering::Relaxed);
            counters.bytes_logged.fetch_add(batch.frame.len() as u64, Ordering::Relaxed);
            counters.log_busy_ns.fetch_add(self.env.monotonic_ns() - started_ns, Ordering::Relaxed);
            queue.confirm(batch.first_sequence + u64::from(batch.records) - 1);
            if batch.records >= BUSY_RECORDS {
                self.env.sleep(GATHER_TIME);
            }
            buffer = batch.frame;
        }
        if let Some(preparing) = self.preparing.take() {
            // What the thread could not do will be done, or found impossible, when the segment is needed.
            let _ = preparing.finish();
        }
    }

    fn write(&mut self, batch: &mut Batch, queue: &LogQueue) -> io::Result<()> {
        // Sealing pads the frame; the padded length is what must fit.
        let length = batch.frame.len().next_multiple_of(super::format::FRAME_ALIGNMENT) as u64;
        assert!(length > FRAME_HEADER_BYTES as u64, "a frame has records");
        if self.position + length > self.current.length {
            self.roll(length)?;
            queue.counters.segment.store(self.current.header.number, Ordering::Relaxed);
        }
        let salt = self.current.header.salt;
        self.previous_crc =
            seal_frame(&mut batch.frame, salt, batch.records, batch.first_sequence, self.epoch, self.previous_crc);
        self.current.file.write_all_at(&batch.frame, self.position)?;
        self.current.file.sync_data()?;
        let segment = self.current.header.number;
        queue.places.note(batch.first_sequence, segment, self.position, length);
        self.position += length;
        if self.preparing.is_none() && self.position > self.current.length / 2 {
            self.preparing = self.prepare();
        }
        Ok(())
    }

    /// Goes on to the next segment, with room for a frame of `length` bytes.
    fn roll(&mut self, length: u64) -> io::Result<()> {
        let number = self.current.header.number + 1;
        let prepared = self.preparing.take().map(Preparing::finish);
        self.current = match prepared {
            Some(Ok(segment)) => segment,
            // Tried again here: there may be room by now, and if not this is the error to report.
            _ => Segment::create(&*self.env, &self.directory, number, self.sizes.of(number), self.store_id)?,
        };
        self.position = SEGMENT_HEADER_BYTES as u64;
        if self.position + length > self.current.length {
            self.current.file.allocate(self.position + length)?;
            self.current.length = self.position + length;
        }
        Ok(())
    }

    fn prepare(&self) -> Option<Preparing> {
        let number = self.current.header.number + 1;
        let (env, directory) = (Arc::clone(&self.env), self.directory.clone());
        let (length, store_id) = (self.sizes.of(number), self.store_id);
        let result = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&result);
        let body = move || *slot.lock() = Some(Segment::create(&*env, &directory, number, length, store_id));
        // Without a thread the segment is made when it is needed.
        let thread = self.env.spawn("tine-log-ahead", Box::new(body)).ok()?;
        Some(Preparing { result, thread })
    }
}

impl Preparing {
    fn finish(self) -> io::Result<Segment> {
        let panicked = || io::Error::other("preparing a log segment panicked");
        self.thread.join().map_err(|_| panicked())?;
        self.result.lock().take().ok_or_else(panicked)?
    }
}

impl Segment {
    fn create(env: &dyn Env, directory: &Path, number: u64, length: u64, store_id: [u8; 16]) -> io::Result<Segment> {
        let temporary = directory.join(format!("{number:010}{TEMPORARY_SUFFIX}"));
        let mut salt = [0; 8];
        env.random_bytes(&mut salt);
        let header = SegmentHeader { number, salt: u64::from_le_bytes(salt), store_id };
        let filled = || {
            let file = env.open(&temporary, OpenMode::Create)?;
            file.set_len(0)?;
            file.write_all_at(&header.encode(), 0)?;
            file.allocate(length)?;
            file.sync_data()?;
            env.rename(&temporary, &segment_path(directory, number))?;
            env.sync_dir(directory)?;
            Ok(Segment { header, file, length })
        };
        filled().inspect_err(|_| {
            // Gives the space back if the disk was full; a leftover does no harm.
            let _ = env.remove_file(&temporary);
        })
    }

    fn resume(env: &dyn Env, directory: &Path, tail: &Tail, sizes: SegmentSizes) -> io::Result<Segment> {
        // Backwards, so that a crash in between leaves no gap.
        for number in (tail.header.number + 1..=tail.segments).rev() {
            env.remove_file(&segment_path(directory, number))?;
        }
        let file = env.open(&tail.path, OpenMode::ReadWrite)?;
        let torn = usize::try_from(tail.dirty_end - tail.offset).expect("a segment fits into memory");
        file.write_all_at(&vec![0; torn], tail.offset)?;
        // The sync of the last frame may have failed or never happened although its bytes can be read back:
        // writing them again makes the sync below cover them.
        if let Some((offset, frame)) = &tail.last_frame {
            file.write_all_at(frame, *offset)?;
        }
        let length = sizes.of(tail.header.number).max(file.len()?);
        file.allocate(length)?;
        file.sync_data()?;
        env.sync_dir(directory)?;
        Ok(Segment { header: tail.header, file, length })
    }
}

fn remove_temporary_files(env: &dyn Env, directory: &Path) -> io::Result<()> {
    for path in env.read_dir(directory)? {
        if path.to_string_lossy().ends_with(TEMPORARY_SUFFIX) {
            env.remove_file(&path)?;
        }
    }
    Ok(())
}

fn poison(error: &io::Error) -> Poison {
    let disk_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    Poison { cause: format!("the log could not be written: {error}").into(), disk_full }
}
