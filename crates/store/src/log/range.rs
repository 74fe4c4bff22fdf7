//! Reading a part of the log from a known frame on, in chunks, while it is being written.
//!
//! Only for records that are known to be durable: a frame that is not there where it must be is damage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tine_base::{Env, EnvFile, OpenMode};

use super::format::{
    FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FRAMES_START, SEGMENT_HEADER_BYTES, SegmentHeader, frame_bytes, read_frame,
};
use super::places::Place;
use super::queue::{QUEUE_BYTES_MAX, RECORD_BYTES_MAX};
use super::record::{RecordRef, take_record};
use super::scan::{corrupt, segment_path};
use crate::error::LogError;

/// Bytes read at once: some thousand small commits.
const CHUNK_BYTES: usize = 256 << 10;

/// See the module.
pub(crate) struct RangeReader {
    env: Arc<dyn Env>,
    directory: PathBuf,
    segment: OpenSegment,
    /// Bytes of the segment from `start` on.
    buffer: Vec<u8>,
    start: u64,
    offset: u64,
    sequence: u64,
}

struct OpenSegment {
    number: u64,
    salt: u64,
    path: PathBuf,
    file: Box<dyn EnvFile>,
}

/// The longest frame there can be: what the queue holds when a record of the maximum size comes in.
const FRAME_BYTES_MAX: usize = QUEUE_BYTES_MAX + RECORD_BYTES_MAX + FRAME_ALIGNMENT;

/// Whether [`RangeReader::visit`] goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Continue,
    Stop,
}

impl RangeReader {
    pub(crate) fn open(env: Arc<dyn Env>, directory: &Path, place: Place) -> Result<RangeReader, LogError> {
        let segment = OpenSegment::open(&*env, directory, place.segment)?;
        Ok(RangeReader {
            env,
            directory: directory.to_path_buf(),
            segment,
            buffer: Vec::new(),
            start: place.offset,
            offset: place.offset,
            sequence: place.sequence,
        })
    }

    /// Shows records with their sequence numbers to `visit` until it stops or the record `last` was shown.
    pub(crate) fn visit(
        &mut self,
        last: u64,
        visit: &mut dyn FnMut(u64, RecordRef<'_>) -> Result<Step, &'static str>,
    ) -> Result<(), LogError> {
        while self.sequence <= last {
            let (header, payload) = loop {
                self.fill(FRAME_HEADER_BYTES)?;
                if let Some(length) = frame_bytes(&self.buffer, self.at()).filter(|length| *length <= FRAME_BYTES_MAX) {
                    self.fill(length)?;
                }
                match read_frame(&self.buffer, self.at(), self.segment.salt) {
                    Some(frame) if frame.0.first_sequence == self.sequence => break frame,
                    _ => self.next_segment()?,
                }
            };
            let damaged = |detail| corrupt(&self.segment.path, self.offset as usize, detail);
            let mut rest = &self.buffer[payload.clone()];
            for number in 0..u64::from(header.records) {
                let record = take_record(&mut rest).and_then(RecordRef::decode);
                let record = record.map_err(|_| damaged("a record cannot be decoded"))?;
                if visit(header.first_sequence + number, record).map_err(damaged)? == Step::Stop {
                    return Ok(());
                }
            }
            self.sequence += u64::from(header.records);
            self.offset = self.start + payload.end as u64;
        }
        Ok(())
    }

    fn at(&self) -> usize {
        (self.offset - self.start) as usize
    }

    /// Has `length` bytes from the present offset on in the buffer, as far as the file goes.
    fn fill(&mut self, length: usize) -> Result<(), LogError> {
        if self.at() + length <= self.buffer.len() {
            return Ok(());
        }
        self.start = self.offset;
        self.buffer.resize(length.max(CHUNK_BYTES), 0);
        let mut filled = 0;
        while filled < self.buffer.len() {
            let read = self.segment.file.read_at(&mut self.buffer[filled..], self.start + filled as u64);
            match read.map_err(|source| LogError::Io { path: self.segment.path.clone(), source })? {
                0 => break,
                bytes => filled += bytes,
            }
        }
        self.buffer.truncate(filled);
        Ok(())
    }

    fn next_segment(&mut self) -> Result<(), LogError> {
        let number = self.segment.number + 1;
        if !self.env.exists(&segment_path(&self.directory, number)) {
            return Err(corrupt(&self.segment.path, self.offset as usize, "a durable frame is missing"));
        }
        self.segment = OpenSegment::open(&*self.env, &self.directory, number)?;
        self.start = FRAMES_START as u64;
        self.offset = self.start;
        self.buffer.clear();
        Ok(())
    }
}

impl OpenSegment {
    fn open(env: &dyn Env, directory: &Path, number: u64) -> Result<OpenSegment, LogError> {
        let path = segment_path(directory, number);
        let read = || {
            let file = env.open(&path, OpenMode::Read)?;
            let mut header = [0; SEGMENT_HEADER_BYTES];
            let mut filled = 0;
            while filled < header.len() {
                match file.read_at(&mut header[filled..], filled as u64)? {
                    0 => break,
                    bytes => filled += bytes,
                }
            }
            Ok((file, header))
        };
        let (file, header) = read().map_err(|source| LogError::Io { path: path.clone(), source })?;
        match SegmentHeader::decode(&header) {
            Ok(header) if header.number == number => Ok(OpenSegment { number, salt: header.salt, path, file }),
            _ => Err(corrupt(&path, 0, "the segment header is damaged")),
        }
    }
}
