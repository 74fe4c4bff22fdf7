//! Reading a log without opening the store: for tests, tools and replicas.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tine_base::Env;

use super::record::{LogRecord, LogRecordKind, take_record};
use super::scan::{Frame, Scanner, corrupt};
use crate::error::LogError;

/// The records of a log in order; see [`Store::read_log`](crate::Store::read_log).
///
/// Ends before the first frame that is not there completely, after which it may be asked again: a live
/// writer may have written more. After an error it ends.
pub struct LogReader {
    scanner: Scanner,
    frame: Option<OpenFrame>,
    failed: bool,
}

/// A file of a log, and how much of it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// The segment.
    pub path: PathBuf,
    /// Bytes from its start that belong to what was read: all of it, except for the last one.
    pub bytes: u64,
}

struct OpenFrame {
    frame: Frame,
    rest: Bytes,
    next_sequence: u64,
    records_left: u32,
}

impl LogReader {
    pub(crate) fn open(log_directory: &Path, env: Arc<dyn Env>) -> Result<LogReader, LogError> {
        let scanner = Scanner::new(env, log_directory.to_path_buf(), true)?;
        Ok(LogReader { scanner, frame: None, failed: false })
    }

    /// The files of the part that was read, in order. Copied up to the bytes named, they are a log that ends
    /// where this reader is, whatever a live writer appends meanwhile.
    ///
    /// # Errors
    /// A segment that cannot be looked at.
    pub fn files(&self) -> Result<Vec<LogFile>, LogError> {
        self.scanner.files()
    }

    fn read(&mut self) -> Result<Option<LogRecord>, LogError> {
        if self.frame.as_ref().is_none_or(|open| open.records_left == 0) {
            self.frame = self.scanner.next_frame()?.map(|frame| OpenFrame {
                rest: frame.payload.clone(),
                next_sequence: frame.header.first_sequence,
                records_left: frame.header.records,
                frame,
            });
        }
        let Some(open) = &mut self.frame else { return Ok(None) };
        let mut rest: &[u8] = &open.rest;
        let decoded =
            take_record(&mut rest).and_then(|bytes| LogRecordKind::decode(&open.rest, bytes)).map_err(|_| {
                let offset = usize::try_from(open.frame.offset).expect("a segment fits into memory");
                corrupt(&open.frame.path, offset, "a record cannot be decoded")
            })?;
        let record = LogRecord {
            sequence: open.next_sequence,
            segment: open.frame.segment,
            offset: open.frame.offset,
            kind: decoded,
        };
        open.rest = open.rest.slice_ref(rest);
        open.next_sequence += 1;
        open.records_left -= 1;
        Ok(Some(record))
    }
}

impl Iterator for LogReader {
    type Item = Result<LogRecord, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let record = self.read();
        self.failed = record.is_err();
        record.transpose()
    }
}
