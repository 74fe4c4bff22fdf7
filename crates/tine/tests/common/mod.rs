//! Running the shipped binary with nobody's settings but a test's own.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with a home of its own, in which commands are run.
pub struct Desk {
    folder: TempDir,
}

impl Desk {
    pub fn new() -> Desk {
        Desk { folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, with its folders.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    /// A command in a folder of this desk.
    pub fn command(&self, folder: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tine"));
        command.args(args).current_dir(self.path(folder)).env_clear().env("HOME", self.path("home"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, folder: &str, args: &[&str]) -> Output {
        self.command(folder, args).output().expect("it runs")
    }

    #[track_caller]
    pub fn ok(&self, folder: &str, args: &[&str]) -> String {
        let output = self.run(folder, args);
        assert!(output.status.success(), "tine {args:?} failed:\n{}", text(&output.stderr));
        text(&output.stdout)
    }

    #[track_caller]
    pub fn json(&self, folder: &str, args: &[&str]) -> Value {
        let out = self.ok(folder, &[args, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    /// The exit status and the error object of a verb that fails.
    #[track_caller]
    pub fn fails(&self, folder: &str, args: &[&str]) -> (i32, Value) {
        let output = self.run(folder, &[args, &["--json"]].concat());
        let shown = text(&output.stderr);
        let last = shown.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{args:?}: {error}: {shown}"));
        (output.status.code().expect("it ended by itself"), error["error"].clone())
    }

    /// Starts a command that prints one JSON object per event.
    pub fn start(&self, folder: &str, args: &[&str]) -> Running {
        let log = fs::File::create(self.path("stderr.log")).expect("a log");
        let mut command = self.command(folder, &[args, &["--json"]].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
        let stdout = child.stdout.take().expect("piped");
        let (send, events) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if send.send(event).is_err() {
                    return;
                }
            }
        });
        Running { child, events }
    }
}

/// A command that goes on until it is ended. Dropping it kills it.
pub struct Running {
    child: Child,
    events: mpsc::Receiver<Value>,
}

impl Running {
    /// The next event of a kind; others before it are passed over.
    #[track_caller]
    pub fn next(&self, kind: &str) -> Value {
        self.until(|event| event["event"] == kind)
    }

    #[track_caller]
    pub fn until(&self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut passed = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) if is_wanted(&event) => return event,
                Ok(event) => passed.push(event),
                Err(error) => panic!("{error}, after {passed:#?}"),
            }
        }
    }

    /// Whether nothing of a kind comes for a while.
    pub fn is_quiet(&self, kind: &str, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while let Ok(event) = self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if event["event"] == kind {
                return false;
            }
        }
        true
    }

    /// Ends it in order and returns its exit status.
    pub fn stop(mut self) -> i32 {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().expect("it is ours") {
                Some(status) => return status.code().expect("it ended by itself"),
                None => assert!(Instant::now() < deadline, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Files below a folder, with their content.
pub fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(contents(&entry));
        } else {
            found.push((entry.clone(), fs::read(&entry).expect("it can be read")));
        }
    }
    found.sort();
    found
}
