//! What a worker writes to its standard output and error: read by the server, cut to lines of bounded length, bounded in all.

use std::io::{ErrorKind, PipeReader, Read};

use crate::error::KillCause;
use crate::metrics::add;
use crate::pool::LogLine;
use crate::process::Process;

/// Bytes a worker may write in its life. More is no log; the worker is killed.
pub(crate) const LOG_BYTES_MAX: u64 = 1 << 20;
/// Bytes read from one worker before the supervisor turns to others.
const READ_BYTES_PER_TURN: usize = 16 << 10;

/// The log of one worker.
#[derive(Debug)]
pub(crate) struct Log {
    pipe: PipeReader,
    line: Vec<u8>,
    is_cut: bool,
    read_bytes: u64,
}

impl Log {
    /// Takes a pipe that does not block.
    pub(crate) fn new(pipe: PipeReader) -> Log {
        Log { pipe, line: Vec::new(), is_cut: false, read_bytes: 0 }
    }

    pub(crate) fn pipe(&self) -> &PipeReader {
        &self.pipe
    }

    /// Reads what is there, up to a bound, and hands on whole lines. `false`: nothing more will come.
    pub(crate) fn pump(&mut self, process: &Process) -> bool {
        let mut buffer = [0; READ_BYTES_PER_TURN];
        match self.pipe.read(&mut buffer) {
            Ok(0) => {
                self.end_line(process);
                false
            }
            Ok(count) => {
                self.read_bytes += count as u64;
                if self.read_bytes > LOG_BYTES_MAX {
                    add(&process.pool.sandbox.metrics.log_bytes_dropped, count as u64);
                    process.kill(KillCause::LogFlood);
                    return true;
                }
                self.take(process, &buffer[..count]);
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn take(&mut self, process: &Process, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, is_whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = LogLine::BYTES_MAX - self.line.len();
            let kept = text.len().min(room);
            self.line.extend_from_slice(&text[..kept]);
            if kept < text.len() {
                self.is_cut = true;
                add(&process.pool.sandbox.metrics.log_bytes_dropped, (text.len() - kept) as u64);
            }
            if is_whole {
                self.end_line(process);
            }
        }
    }

    fn end_line(&mut self, process: &Process) {
        if self.line.is_empty() && !self.is_cut {
            return;
        }
        add(&process.pool.sandbox.metrics.log_lines, 1);
        if let Some(sink) = &process.pool.options.log {
            let text = String::from_utf8_lossy(&self.line);
            let key = process.key.get().map(|key| key.id);
            sink(LogLine { worker: process.id, key, text: &text, is_cut: self.is_cut });
        }
        self.line.clear();
        self.is_cut = false;
    }
}
