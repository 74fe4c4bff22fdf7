//! Reading the frames of a log in order, and telling its end from damage.
//!
//! The scan stops at the first place without an intact frame that continues the chain (next sequence number,
//! crc of the previous frame, epoch not lower). Then:
//! - If the next segment starts with the frame that continues the chain, the segment simply ended.
//! - Else, if any intact frame follows anywhere, something in between was damaged: that is refused. Only one
//!   frame is ever in flight, and the rest of a segment is zero, so a crash cannot leave that picture.
//! - Else it is the end of the log; bytes that are not zero behind it are a torn frame that was never confirmed.
//!
//! A log need not begin with its first segment: images make old ones superfluous, and reading may begin further on.
//! Then the first frame read says where the chain is. A segment is deleted only when a later one has frames, so the
//! first one there is has some.
//!
//! A damaged *last* frame cannot be told from a torn one and is cut off as such.
//!
//! In live mode a writer may be at work. What was read of a segment may then be older at the front than at
//! the back, so before calling something damaged the segment is read again: an intact successor proves that
//! the frame before it had been written completely by then.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tine_base::{Env, OpenMode};

use super::format::{
    FORMAT_VERSION, FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FRAMES_START, FrameHeader, SegmentHeader, SegmentHeaderError,
    read_frame, read_frame_header,
};
use super::reader::LogFile;
use crate::error::LogError;

const FOREIGN_SEGMENT: &str = "the segment belongs to another place or store";

/// The file of a segment.
pub(crate) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:010}.log"))
}

/// Reads frames; see the module.
pub(crate) struct Scanner {
    env: Arc<dyn Env>,
    directory: PathBuf,
    live: bool,
    /// The segment to begin with.
    start: u64,
    /// The first and the last segment there were when the directory was last listed, and all in between; `None`
    /// without any.
    segments: Option<(u64, u64)>,
    current: Option<Segment>,
    offset: usize,
    last_frame: Option<(usize, usize)>,
    /// `None` before the first frame of a log whose beginning is not read.
    chain: Option<Chain>,
    /// Bytes read of the segments before the current one.
    bytes_before: u64,
}

#[derive(Clone)]
struct Segment {
    header: SegmentHeader,
    path: PathBuf,
    bytes: Bytes,
}

/// What the next frame must continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) next_sequence: u64,
    pub(crate) previous_crc: u32,
    pub(crate) epoch: u64,
}

/// One intact frame.
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) payload: Bytes,
    pub(crate) segment: u64,
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
}

/// Where an intact log ends.
pub(crate) struct Tail {
    pub(crate) header: SegmentHeader,
    pub(crate) path: PathBuf,
    /// Behind the last frame.
    pub(crate) offset: u64,
    /// The last frame, header included, if there is any.
    pub(crate) last_frame: Option<(u64, Bytes)>,
    /// Behind the last byte of the segment that is not zero; `offset` if there is none.
    pub(crate) dirty_end: u64,
    /// Bytes of unfinished frames, here and in later segments.
    pub(crate) torn_bytes: u64,
    /// Number of the last segment there is.
    pub(crate) segments: u64,
    pub(crate) chain: Chain,
}

enum Stop {
    Continue,
    End,
}

impl Scanner {
    /// Prepares to read the log in `directory` from the first segment there is. `live`: a writer may be appending.
    pub(crate) fn new(env: Arc<dyn Env>, directory: PathBuf, live: bool) -> Result<Scanner, LogError> {
        let segments = list(&*env, &directory)?;
        let start = segments.map_or(1, |(first, _)| first);
        Ok(Scanner {
            env,
            directory,
            live,
            start,
            segments,
            current: None,
            offset: FRAMES_START,
            last_frame: None,
            chain: (start == 1).then(Chain::default),
            bytes_before: 0,
        })
    }

    /// [`Scanner::new`] for reading from the segment `start` on. It is there, unless there is none at all.
    pub(crate) fn starting_at(env: Arc<dyn Env>, directory: PathBuf, start: u64) -> Result<Scanner, LogError> {
        let scanner = Scanner::new(env, directory, false)?;
        if let Some((first, last)) = scanner.segments
            && !(first..=last).contains(&start)
        {
            return Err(corrupt(&segment_path(&scanner.directory, start), 0, "the segment is missing"));
        }
        Ok(Scanner { start, chain: (start == 1).then(Chain::default), ..scanner })
    }

    /// Bytes of log scanned so far.
    pub(crate) fn position(&self) -> u64 {
        self.bytes_before + if self.current.is_some() { self.offset as u64 } else { 0 }
    }

    /// The segments up to the present place.
    pub(crate) fn files(&self) -> Result<Vec<LogFile>, LogError> {
        let Some(current) = &self.current else { return Ok(Vec::new()) };
        let whole = |number| {
            let path = segment_path(&self.directory, number);
            let length = self.env.open(&path, tine_base::OpenMode::Read).and_then(|file| file.len());
            length.map(|bytes| LogFile { path: path.clone(), bytes }).map_err(|source| LogError::Io { path, source })
        };
        let last = LogFile { path: current.path.clone(), bytes: self.offset as u64 };
        (self.start..current.header.number).map(whole).chain([Ok(last)]).collect()
    }

    /// Total size of the segment files to read.
    pub(crate) fn total_bytes(&self) -> Result<u64, LogError> {
        let length = |number| {
            let path = segment_path(&self.directory, number);
            let file = self.env.open(&path, OpenMode::Read);
            file.and_then(|file| file.len()).map_err(|source| LogError::Io { path, source })
        };
        self.from(self.start).map(length).sum()
    }

    /// The segments from a number on.
    fn from(&self, number: u64) -> std::ops::RangeInclusive<u64> {
        number..=self.segments.map_or(0, |(_, last)| last)
    }

    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, LogError> {
        if self.current.is_none() {
            if self.segments.is_none() {
                return Ok(None);
            }
            self.current = Some(self.load(self.start)?);
        }
        loop {
            if let Some(frame) = self.frame_here() {
                return Ok(Some(frame));
            }
            if let Stop::End = self.stop()? {
                return Ok(None);
            }
        }
    }

    /// Where the log ends; `None` if there is no segment at all. Only after [`Scanner::next_frame`] said `None`.
    pub(crate) fn tail(&self) -> Result<Option<Tail>, LogError> {
        let Some(current) = &self.current else { return Ok(None) };
        let missing = || corrupt(&current.path, FRAMES_START, "the first segment has no intact frame");
        let chain = self.chain.ok_or_else(missing)?;
        let dirty_end = end_of_content(&current.bytes, self.offset);
        let mut torn_bytes = (dirty_end - self.offset) as u64;
        for number in self.from(current.header.number + 1) {
            let later = self.load(number)?;
            torn_bytes += (end_of_content(&later.bytes, FRAMES_START) - FRAMES_START) as u64;
        }
        Ok(Some(Tail {
            header: current.header,
            path: current.path.clone(),
            offset: self.offset as u64,
            last_frame: self.last_frame.map(|(start, end)| (start as u64, current.bytes.slice(start..end))),
            dirty_end: dirty_end as u64,
            torn_bytes,
            segments: *self.from(0).end(),
            chain,
        }))
    }

    fn frame_here(&mut self) -> Option<Frame> {
        let segment = self.current.as_ref()?;
        let (header, payload) = read_frame(&segment.bytes, self.offset, segment.header.salt)?;
        if !self.continued_by(&header) {
            return None;
        }
        let frame = Frame {
            header,
            payload: segment.bytes.slice(payload.clone()),
            segment: segment.header.number,
            path: segment.path.clone(),
            offset: self.offset as u64,
        };
        self.chain = Some(Chain {
            next_sequence: header.first_sequence + u64::from(header.records),
            previous_crc: header.crc,
            epoch: header.epoch,
        });
        self.last_frame = Some((self.offset, payload.end));
        self.offset = payload.end;
        Some(frame)
    }

    /// Finds out why there is no frame at the present place.
    fn stop(&mut self) -> Result<Stop, LogError> {
        let current = self.current.clone().expect("a scan stops inside of a segment");
        let number = current.header.number;
        if self.live {
            self.segments = list(&*self.env, &self.directory)?;
        }
        let next = self.from(number + 1).next().map(|number| self.load(number)).transpose()?;
        if let Some(next) = &next
            && self.chain.is_some()
        {
            let first = read_frame(&next.bytes, FRAMES_START, next.header.salt);
            if first.is_some_and(|(header, _)| self.continued_by(&header)) {
                self.bytes_before += current.bytes.len() as u64;
                self.current = Some(next.clone());
                self.offset = FRAMES_START;
                self.last_frame = None;
                return Ok(Stop::Continue);
            }
        }
        let successor = self.has_successor(&current, next.as_ref())?;
        if self.live {
            let again = self.load(number)?;
            let found = read_frame(&again.bytes, self.offset, again.header.salt);
            self.current = Some(again);
            if found.is_some_and(|(header, _)| self.continued_by(&header)) {
                return Ok(Stop::Continue);
            }
        }
        if !successor {
            return Ok(Stop::End);
        }
        Err(match next {
            Some(next) if end_of_content(&current.bytes, self.offset) == self.offset => {
                corrupt(&next.path, FRAMES_START, "the first frame does not continue the segment before")
            }
            _ => corrupt(&current.path, self.offset, "a damaged frame is followed by intact ones"),
        })
    }

    fn has_successor(&self, current: &Segment, next: Option<&Segment>) -> Result<bool, LogError> {
        if has_frame(current, self.offset) {
            return Ok(true);
        }
        let Some(next) = next else { return Ok(false) };
        if has_frame(next, FRAMES_START) {
            return Ok(true);
        }
        for number in self.from(next.header.number + 1) {
            if has_frame(&self.load(number)?, FRAMES_START) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn continued_by(&self, frame: &FrameHeader) -> bool {
        self.chain.is_none_or(|chain| chain.continued_by(frame))
    }

    fn load(&self, number: u64) -> Result<Segment, LogError> {
        let path = segment_path(&self.directory, number);
        let bytes = self.env.read(&path).map_err(|source| LogError::Io { path: path.clone(), source })?;
        let header = decode_header(&path, &bytes)?;
        let store_id = self.current.as_ref().map(|current| current.header.store_id);
        if header.number != number || store_id.is_some_and(|id| id != header.store_id) {
            return Err(corrupt(&path, 0, FOREIGN_SEGMENT));
        }
        Ok(Segment { header, path, bytes: Bytes::from(bytes) })
    }
}

impl Default for Chain {
    /// Where every log begins.
    fn default() -> Chain {
        Chain { next_sequence: 1, previous_crc: 0, epoch: 0 }
    }
}

impl Chain {
    fn continued_by(&self, frame: &FrameHeader) -> bool {
        frame.first_sequence == self.next_sequence
            && frame.previous_crc == self.previous_crc
            && frame.epoch >= self.epoch
    }
}

pub(crate) fn corrupt(file: &Path, offset: usize, detail: &str) -> LogError {
    LogError::Corrupt { file: file.to_path_buf(), offset: offset as u64, detail: detail.to_owned() }
}

/// The first and the last segment in a directory, between which none is missing; `None` without any.
fn list(env: &dyn Env, directory: &Path) -> Result<Option<(u64, u64)>, LogError> {
    let paths = env.read_dir(directory);
    let paths = paths.map_err(|source| LogError::Io { path: directory.to_path_buf(), source })?;
    let mut segments: Option<(u64, u64)> = None;
    // Names sort as their numbers do.
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        let number = number.filter(|number| *path == segment_path(directory, *number) && *number > 0);
        let number = number.ok_or_else(|| corrupt(path, 0, "the name is not that of a segment"))?;
        let first = segments.map_or(number, |(first, _)| first);
        if let Some((_, last)) = segments
            && number != last + 1
        {
            return Err(corrupt(&segment_path(directory, last + 1), 0, "the segment is missing"));
        }
        segments = Some((first, number));
    }
    Ok(segments)
}

/// Where each segment begins: its number, the first record in it and its size in bytes. Segments without frames, and
/// those from the first such one on, are left out. Reads a few kilobytes of each.
pub(crate) fn segment_starts(env: &dyn Env, directory: &Path) -> Result<Vec<(u64, u64, u64)>, LogError> {
    let mut starts: Vec<(u64, u64, u64)> = Vec::new();
    let Some((first, last)) = list(env, directory)? else { return Ok(starts) };
    let mut store_id = None;
    for number in first..=last {
        let path = segment_path(directory, number);
        let read = || {
            let file = env.open(&path, OpenMode::Read)?;
            let mut head = vec![0; FRAMES_START + FRAME_HEADER_BYTES];
            let mut filled = 0;
            while filled < head.len() {
                match file.read_at(&mut head[filled..], filled as u64)? {
                    0 => break,
                    bytes => filled += bytes,
                }
            }
            Ok((head, file.len()?))
        };
        let (head, bytes) = read().map_err(|source| LogError::Io { path: path.clone(), source })?;
        let header = decode_header(&path, &head)?;
        if header.number != number || *store_id.get_or_insert(header.store_id) != header.store_id {
            return Err(corrupt(&path, 0, FOREIGN_SEGMENT));
        }
        let Some(frame) = read_frame_header(&head, FRAMES_START, header.salt) else { break };
        if starts.last().is_some_and(|(_, before, _)| *before >= frame.first_sequence) {
            return Err(corrupt(&path, FRAMES_START, "the first frame does not continue the segment before"));
        }
        starts.push((number, frame.first_sequence, bytes));
    }
    Ok(starts)
}

fn decode_header(path: &Path, bytes: &[u8]) -> Result<SegmentHeader, LogError> {
    SegmentHeader::decode(bytes).map_err(|error| match error {
        SegmentHeaderError::Damaged => corrupt(path, 0, "the segment header is damaged"),
        SegmentHeaderError::Format(found) => {
            LogError::UnsupportedFormat { file: path.to_path_buf(), found, expected: FORMAT_VERSION }
        }
    })
}

/// Whether an intact frame starts anywhere at or behind `from`.
fn has_frame(segment: &Segment, from: usize) -> bool {
    (from..segment.bytes.len())
        .step_by(FRAME_ALIGNMENT)
        .any(|offset| read_frame(&segment.bytes, offset, segment.header.salt).is_some())
}

/// Behind the last byte at or behind `from` that is not zero.
fn end_of_content(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().rposition(|byte| *byte != 0).map_or(from, |last| from + last + 1)
}
