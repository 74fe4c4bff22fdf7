//! Running the command line.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{binary, server::clean_environment};

/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Exit status; -1 when a signal ended it.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output as one JSON document.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Standard output as one JSON value a line.
    ///
    /// # Panics
    /// When a line is none.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// Checks the exit status.
    ///
    /// # Panics
    /// When it is another.
    #[track_caller]
    pub fn expect(self, status: i32) -> Ran {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// A `tine` command with its home in `home`; settings of whoever runs the tests are kept out.
pub fn tine(home: &Path) -> Command {
    let mut command = Command::new(binary());
    clean_environment(&mut command, home);
    command.current_dir(home).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started, or takes too long.
#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    run_within(command, COMMAND_TIMEOUT)
}

/// Runs a command that may take as long as `limit`.
///
/// # Panics
/// When it cannot be started, or takes too long.
#[track_caller]
pub fn run_within(command: &mut Command, limit: Duration) -> Ran {
    let shown = format!("{command:?}");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let pid = child.id();
    let stdin = child.stdin.take();
    drop(stdin);
    let (done, output) = std::sync::mpsc::channel::<std::io::Result<Output>>();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let started = Instant::now();
    match output.recv_timeout(limit) {
        Ok(output) => {
            let output = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
            Ran {
                status: output.status.code().unwrap_or(-1),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }
        }
        Err(_) => {
            // SAFETY: kill(2) takes plain numbers; the child is not awaited while its output is open.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
            panic!("{shown} did not end within {:.0} s", started.elapsed().as_secs_f64());
        }
    }
}
