//! Frames go to disk, one write and one sync each.
//!
//! Segments are files of zeros made ahead of time by a short-lived thread, so that a sync in the common case
//! neither allocates blocks nor changes metadata. A segment gets its final name only when it is completely
//! zeroed and synced, so a file with that name always has a valid header.
//!
//! Where the file system takes them, writes are direct and synchronous: one system call in place of two, no copy in
//! the page cache, and a fraction of the time under load. Whether it does shows when the header of a segment is
//! written once more that way; where not, the data is written through the cache and synced.
//!
//! Whatever fails here fails the store (`LogQueue::fail`): after a failed sync the kernel may have dropped the
//! written pages, so trying again could report as durable what is not.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tine_base::{Env, EnvFile, OpenMode};

use super::format::{FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FRAMES_START, SegmentHeader, seal_frame};
use super::queue::Batch;
use super::scan::{Chain, Tail, segment_path};
use crate::error::OpenError;

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
        // Room for the header and one frame, in whole blocks.
        doubled.min(self.max_bytes).max(2 * FRAMES_START as u64).next_multiple_of(FRAME_ALIGNMENT as u64)
    }
}

/// What writes the frames, one at a time.
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
    /// The buffer of the last frame, for the next.
    buffer: Vec<u8>,
}

/// What a log begins with that is not there yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogBegin {
    pub(crate) store_id: [u8; 16],
    /// 1, or behind what images have.
    pub(crate) next_sequence: u64,
}

/// Where a frame was written.
pub(crate) struct Written {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

struct Segment {
    header: SegmentHeader,
    file: Box<dyn EnvFile>,
    /// The same file for direct writes, where those work.
    direct: Option<Box<dyn EnvFile>>,
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
        begin: LogBegin,
    ) -> Result<(LogWriter, Chain), OpenError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Io { path, source }
        };
        remove_temporary_files(&*env, &directory).map_err(failed(&directory))?;
        let (current, position, chain) = match tail {
            None => {
                // A log that continues images does not begin with the first segment, so that its first frame says what
                // it continues.
                let number = if begin.next_sequence == 1 { 1 } else { 2 };
                let segment = Segment::create(&*env, &directory, number, sizes.of(number), begin.store_id);
                let segment = segment.map_err(failed(&segment_path(&directory, number)))?;
                (segment, FRAMES_START as u64, Chain { next_sequence: begin.next_sequence, ..Chain::default() })
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
            buffer: Vec::new(),
        };
        Ok((writer, chain))
    }

    pub(crate) fn store_id(&self) -> [u8; 16] {
        self.store_id
    }

    /// Number of the segment being written.
    pub(crate) fn segment(&self) -> u64 {
        self.current.header.number
    }

    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub(crate) fn keep_buffer(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    /// Ends what is under way.
    pub(crate) fn finish(&mut self) {
        if let Some(preparing) = self.preparing.take() {
            // What the thread could not do will be done, or found impossible, when the segment is needed.
            let _ = preparing.finish(&*self.env);
        }
    }

    /// Writes a frame to stable storage.
    pub(crate) fn write(&mut self, batch: &mut Batch) -> io::Result<Written> {
        // Sealing pads the frame; the padded length is what must fit.
        let length = batch.frame.len().next_multiple_of(FRAME_ALIGNMENT) as u64;
        assert!(batch.frame.len() > FRAME_HEADER_BYTES, "a frame has records");
        if self.position + length > self.current.length {
            self.roll(length)?;
        }
        let salt = self.current.header.salt;
        self.previous_crc =
            seal_frame(&mut batch.frame, salt, batch.records, batch.first_sequence, self.epoch, self.previous_crc);
        self.current.write(&batch.frame, self.position)?;
        let written = Written { segment: self.current.header.number, offset: self.position };
        self.position += length;
        if self.preparing.is_none() && self.position > self.current.length / 2 {
            self.preparing = self.prepare();
        }
        Ok(written)
    }

    /// Goes on to the next segment, with room for a frame of `length` bytes.
    fn roll(&mut self, length: u64) -> io::Result<()> {
        let number = self.current.header.number + 1;
        let prepared = self.preparing.take().map(|preparing| preparing.finish(&*self.env));
        self.current = match prepared {
            Some(Ok(segment)) => segment,
            // Tried again here: there may be room by now, and if not this is the error to report.
            _ => Segment::create(&*self.env, &self.directory, number, self.sizes.of(number), self.store_id)?,
        };
        self.position = FRAMES_START as u64;
        if self.position + length > self.current.length {
            self.current.file.allocate(self.position + length)?;
            self.current.file.sync_data()?;
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
    fn finish(self, env: &dyn Env) -> io::Result<Segment> {
        let panicked = || io::Error::other("preparing a log segment panicked");
        env.join(self.thread).map_err(|_| panicked())?;
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
            file.write_all_at(&header.block(), 0)?;
            file.allocate(length)?;
            file.sync_data()?;
            env.rename(&temporary, &segment_path(directory, number))?;
            env.sync_dir(directory)?;
            let direct = open_direct(env, &segment_path(directory, number), &header);
            Ok(Segment { header, file, direct, length })
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
        let length = sizes.of(tail.header.number).max(file.len()?).next_multiple_of(FRAME_ALIGNMENT as u64);
        file.allocate(length)?;
        file.sync_data()?;
        env.sync_dir(directory)?;
        let direct = open_direct(env, &tail.path, &tail.header);
        Ok(Segment { header: tail.header, file, direct, length })
    }

    /// Writes and syncs.
    fn write(&self, frame: &[u8], offset: u64) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            return direct.write_all_at(frame, offset);
        }
        self.file.write_all_at(frame, offset)?;
        self.file.sync_data()
    }
}

/// The segment for direct writes, if one works: the header is written again, as it is.
fn open_direct(env: &dyn Env, path: &Path, header: &SegmentHeader) -> Option<Box<dyn EnvFile>> {
    let direct = env.open_direct(path).ok()?;
    direct.write_all_at(&header.block(), 0).ok()?;
    Some(direct)
}

fn remove_temporary_files(env: &dyn Env, directory: &Path) -> io::Result<()> {
    for path in env.read_dir(directory)? {
        if path.to_string_lossy().ends_with(TEMPORARY_SUFFIX) {
            env.remove_file(&path)?;
        }
    }
    Ok(())
}
