//! Whole-program tests: everything here drives the release binary over its sockets, as a user would.
//!
//! - [`server`]: a `tine serve` process on a port of its own, with kill and restart.
//! - [`raw_socket`]: a WebSocket client that can be as rude as a test needs.
//! - [`in_process`]-style tests (failing disks) start `tine_server::Server` in the test itself.
//! - [`bucket`]: a server of the S3 protocol.
//! - [`browser`]: headless Chromium over the DevTools protocol.
//!
//! Rules for tests: port 0, a directory of one's own, no sleeping for luck (wait for a condition with
//! a deadline), and a failure keeps its data and logs and prints how to repeat it ([`keep`]).

pub mod browser;
pub mod bucket;
pub mod command;
pub mod compatibility;
pub mod history;
pub mod http;
pub mod keep;
pub mod npm;
pub mod raw_socket;
pub mod rows;
pub mod server;
pub mod wait;

use std::{path::PathBuf, sync::OnceLock};

/// The repository's root.
pub fn root() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the crate lies in the repository").to_owned()
}

/// Where build products are.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// The `tine` binary under test: `TINE_BINARY`, else the release build, which is made first if a
/// source is newer (cargo decides).
///
/// # Panics
/// When it cannot be built.
pub fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("TINE_BINARY") {
            return PathBuf::from(path);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = std::process::Command::new(cargo)
            .args(["build", "--release", "--package", "tine", "--quiet"])
            .current_dir(root())
            .status()
            .expect("cargo can be started");
        assert!(built.success(), "building the binary under test failed: {built}");
        target().join("release/tine")
    })
}

/// Says loudly that a test did not run and why, and leaves a note that the test runner counts.
/// In CI nothing may be skipped.
///
/// # Panics
/// In CI.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("CI").is_none(), "{test} must not be skipped in CI: {reason}");
    // Straight to the terminal: the test runner captures what is printed.
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED {test}: {reason}");
    let notes = target().join("tine-tests/skipped");
    let noted = std::fs::create_dir_all(&notes).and_then(|()| std::fs::write(notes.join(&test), reason));
    if let Err(error) = noted {
        eprintln!("cannot note the skipped test: {error}");
    }
}
