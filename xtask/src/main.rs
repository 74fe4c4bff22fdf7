//! `cargo xtask`: everything a checkout needs besides building.
//!
//! - `setup` installs what the tests use and the registries do not bring: Debian packages by name.
//! - `test` runs unit tests, whole-program tests and `tidy`, and prints how many passed.
//! - `tidy` checks the rules of the repository that a compiler does not.

mod process;
mod setup;
mod test;
mod tidy;

use std::{path::PathBuf, process::ExitCode};

const USAGE: &str = "\
usage: cargo xtask <command>

  setup          install Debian packages that the tests use (a browser)
  test [--long]  run every test; --long adds rounds to the crash tests
  tidy           check formatting, lints and the rules of the repository";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["setup"] => setup::run(),
        ["test"] => test::run(false),
        ["test", "--long"] => test::run(true),
        ["tidy"] => tidy::run(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root.
fn root() -> PathBuf {
    let xtask = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask lies in the repository").to_owned()
}

/// Where build products are.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |directory| root().join(directory))
}
