//! What modules print: kept in memory for readers, appended to a file for people, streamed to followers.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tine_base::{Env, EnvFile, OpenMode};
use tokio::sync::broadcast;

/// Records kept in memory per database: what `logs` can show without reading files.
const RECORDS_IN_MEMORY_MAX: usize = 4_096;

/// One message is cut here, so that a module cannot fill memory by printing.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The file is renamed to `.old` at this size; at most two files exist.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A follower that is this many records behind loses the oldest.
const FOLLOWER_RECORDS_MAX: usize = 1_024;

/// Severity of a record; `Panic` is a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
    Panic,
}

impl LogLevel {
    /// The name used in the log's JSON.
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "Error",
            LogLevel::Warn => "Warn",
            LogLevel::Info => "Info",
            LogLevel::Debug => "Debug",
            LogLevel::Trace => "Trace",
            LogLevel::Panic => "Panic",
        }
    }
}

/// One line of a database's log.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// Severity.
    pub level: LogLevel,
    /// Microseconds since the Unix epoch.
    pub timestamp_micros: i64,
    /// Name of the fork.
    pub fork: Arc<str>,
    /// Function that ran, empty outside of calls.
    pub function: Box<str>,
    /// Source file and line, where known.
    pub location: Option<(Box<str>, u32)>,
    /// The text.
    pub message: Box<str>,
    /// Stack of a failed call, in the module's own source lines.
    pub trace: Option<Box<str>>,
}

impl LogRecord {
    /// The record as the JSON object of the `logs` route.
    pub fn to_json(&self) -> serde_json::Value {
        let mut record = serde_json::json!({
            "level": self.level.name(),
            "ts": self.timestamp_micros,
            "target": &*self.fork,
            "filename": self.location.as_ref().map(|(file, _)| &**file),
            "line_number": self.location.as_ref().map(|(_, line)| line),
            "function": &*self.function,
            "message": &*self.message,
        });
        if let Some(trace) = &self.trace {
            record["trace"] = serde_json::Value::from(&**trace);
        }
        record
    }
}

struct State {
    recent: VecDeque<Arc<LogRecord>>,
    file: Option<(Box<dyn EnvFile>, u64)>,
    unwritten: Vec<u8>,
}

/// The log of one database, shared by its forks.
pub struct ModuleLog {
    state: Mutex<State>,
    followers: broadcast::Sender<Arc<LogRecord>>,
    env: Arc<dyn Env>,
    path: PathBuf,
}

impl ModuleLog {
    /// Opens the log at `directory/module.log`. A file that cannot be opened costs only the file: the log works in memory.
    pub(crate) fn open(env: Arc<dyn Env>, directory: &Path) -> Self {
        let path = directory.join("module.log");
        let file = Self::open_file(&*env, &path);
        let state = State { recent: VecDeque::new(), file, unwritten: Vec::new() };
        ModuleLog { state: Mutex::new(state), followers: broadcast::channel(FOLLOWER_RECORDS_MAX).0, env, path }
    }

    fn open_file(env: &dyn Env, path: &Path) -> Option<(Box<dyn EnvFile>, u64)> {
        let file = env.open(path, OpenMode::Create).ok()?;
        let length = file.len().ok()?;
        Some((file, length))
    }

    pub(crate) fn push(&self, mut record: LogRecord) {
        if record.message.len() > MESSAGE_BYTES_MAX {
            let cut = record.message.floor_char_boundary(MESSAGE_BYTES_MAX);
            record.message = format!("{} [cut: {} bytes in all]", &record.message[..cut], record.message.len()).into();
        }
        let record = Arc::new(record);
        let mut state = self.state.lock();
        if state.recent.len() == RECORDS_IN_MEMORY_MAX {
            state.recent.pop_front();
        }
        state.recent.push_back(record.clone());
        if state.file.is_some() {
            state.unwritten.extend_from_slice(record.to_json().to_string().as_bytes());
            state.unwritten.push(b'\n');
        }
        drop(state);
        // Without followers there is nobody to tell.
        let _ = self.followers.send(record);
    }

    /// Appends what was pushed since the last call to the file. A failing file is given up: logging never fails a call.
    pub(crate) fn flush(&self) {
        let mut state = self.state.lock();
        if state.unwritten.is_empty() {
            return;
        }
        let unwritten = std::mem::take(&mut state.unwritten);
        let Some((file, length)) = &mut state.file else { return };
        if file.write_all_at(&unwritten, *length).is_err() {
            state.file = None;
            return;
        }
        *length += unwritten.len() as u64;
        if *length >= FILE_BYTES_MAX {
            state.file = match self.env.rename(&self.path, &self.path.with_extension("log.old")) {
                Ok(()) => Self::open_file(&*self.env, &self.path),
                Err(_) => None,
            };
        }
    }

    /// The newest `count` records, oldest first; `None` for all in memory. With `fork`, only that fork's.
    pub fn recent(&self, count: Option<usize>, fork: Option<&str>) -> Vec<Arc<LogRecord>> {
        let state = self.state.lock();
        let of_fork = |record: &&Arc<LogRecord>| fork.is_none_or(|fork| &*record.fork == fork);
        let mut records: Vec<_> =
            state.recent.iter().rev().filter(of_fork).take(count.unwrap_or(usize::MAX)).cloned().collect();
        records.reverse();
        records
    }

    /// A stream of the records pushed from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<LogRecord>> {
        self.followers.subscribe()
    }
}
