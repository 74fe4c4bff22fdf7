//! The commit log: one per store, shared by its forks.
//!
//! Files `0000000001.log`, `0000000002.log` and so on hold frames of records (`format`, `record`). Writers put
//! records into a queue (`queue`); one thread takes what has come in, writes it as one frame, syncs once, and
//! reports (`writer`). Reading back and telling a torn tail from damage is `scan`'s.
//!
//! Frames fill whole blocks, so no block that was confirmed is ever written again, and writes can go past the page
//! cache.

mod format;
mod places;
mod queue;
mod range;
mod reader;
mod record;
mod scan;
mod writer;

pub use reader::{LogFile, LogReader};
pub use record::{LogRecord, LogRecordKind, Operation};

pub(crate) use format::FRAME_HEADER_BYTES;
pub(crate) use format::FRAMES_START;
pub(crate) use places::LogPlaces;
pub(crate) use queue::{LogQueue, QUEUE_BYTES_MAX, RECORD_BYTES_MAX};
pub(crate) use range::{RangeReader, Step};
pub(crate) use record::{
    BadRecord, Input, OperationRef, RECORD_OVERHEAD_BYTES, RecordRef, operations, put_bytes, put_number, put_operation,
    take_record,
};
pub(crate) use scan::{Frame, Scanner, Tail, corrupt, segment_path, segment_starts};
pub(crate) use writer::{LogBegin, LogWriter, SegmentSizes};
