//! Starting a service as a child process, and saying what it said when it dies.
//!
//! A service that dies looks to its clients like a connection that ended. What helps is its exit status and the last lines it wrote to
//! standard error; both are kept here, and bounded, whatever the child writes.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{LastLines, SpawnError};
use crate::path;

/// Lines that are kept: enough for a panic with a backtrace of the interesting part.
const LINES_MAX: usize = 40;
/// Bytes of a line that are kept.
const LINE_BYTES_MAX: usize = 2 * 1024;
/// Between two looks whether the child listens, or has ended.
const LOOK_PERIOD: Duration = Duration::from_millis(2);
/// How long the last lines of a dead child may take to arrive. A grandchild that lives on holds the pipe open for longer.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
struct Words {
    state: Mutex<WordsState>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct WordsState {
    lines: VecDeque<String>,
    ended: bool,
}

/// A child process that serves. Dropping it kills it.
#[derive(Debug)]
pub struct Service {
    child: Child,
    program: String,
    words: Arc<Words>,
}

impl Service {
    /// Starts `command` and waits until something listens at `ready_at`, for at most `limit`. The child's standard error is read from
    /// now on; its standard input is empty.
    ///
    /// # Errors
    /// [`SpawnError`]. The child is gone then.
    pub fn spawn(command: &mut Command, ready_at: &Path, limit: Duration) -> Result<Service, SpawnError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let started = Instant::now();
        let spawned = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|source| SpawnError::Start { program: program.clone(), source })?;
        let words = Arc::new(Words::default());
        let stderr = child.stderr.take().expect("it is piped");
        let mut service = Service { child, program: program.clone(), words: words.clone() };
        let listener = std::thread::Builder::new().name("tine-ipc stderr".into()).spawn(move || listen(stderr, &words));
        if let Err(source) = listener {
            return Err(SpawnError::Start { program, source });
        }
        loop {
            if let Some(death) = service.death(Duration::ZERO) {
                return Err(death);
            }
            let left = limit.saturating_sub(started.elapsed());
            if path::connect(ready_at, left.max(LOOK_PERIOD)).is_ok() {
                return Ok(service);
            }
            if left.is_zero() {
                service.kill();
                let stderr = service.last_lines();
                return Err(SpawnError::NotReady { program, limit_ms: limit.as_millis(), stderr });
            }
            std::thread::sleep(LOOK_PERIOD.min(left));
        }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the child ended, with its last words, if it ends within `limit`. To be asked when a call finds the connection gone.
    pub fn death(&mut self, limit: Duration) -> Option<SpawnError> {
        let started = Instant::now();
        loop {
            let status = match self.child.try_wait() {
                Ok(Some(status)) => status.to_string(),
                Ok(None) if started.elapsed() < limit => {
                    std::thread::sleep(LOOK_PERIOD);
                    continue;
                }
                Ok(None) => return None,
                Err(error) => format!("its state is unknown: {error}"),
            };
            return Some(SpawnError::Died { program: self.program.clone(), status, stderr: self.last_lines() });
        }
    }

    /// Asks the child to end (SIGTERM), and kills it if it has not within `limit`.
    pub fn stop(mut self, limit: Duration) {
        // SAFETY: takes plain numbers; the child is not reaped before `try_wait` says so, so its number is still its own.
        if matches!(self.child.try_wait(), Ok(None)) {
            unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        }
        let _ = self.death(limit);
    }

    fn kill(&mut self) {
        // A child that has ended already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn last_lines(&self) -> LastLines {
        let mut state = self.words.state.lock();
        if !state.ended {
            self.words.ended.wait_for(&mut state, LAST_WORDS_LIMIT);
        }
        LastLines(state.lines.iter().cloned().collect())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads lines until the pipe ends. A line beyond the limit goes on as the next one.
fn listen(stderr: ChildStderr, words: &Words) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let mut state = words.state.lock();
        if state.lines.len() == LINES_MAX {
            state.lines.pop_front();
        }
        state.lines.push_back(text);
    }
    words.state.lock().ended = true;
    words.ended.notify_all();
}
