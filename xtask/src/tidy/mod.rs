//! `cargo xtask tidy`: the rules of the repository that a compiler does not check.

mod documents;
mod floors;
mod sources;

use crate::process::{self, cargo};

/// Runs every check and reports everything that is wrong, not only the first.
pub fn run() -> anyhow::Result<()> {
    let files = sources::tracked()?;
    let mut wrong = Vec::new();
    wrong.extend(sources::check(&files));
    wrong.extend(sources::error_codes(&files));
    wrong.extend(documents::check(&files));
    wrong.extend(floors::check()?);
    if let Err(error) = process::run(&mut cargo(&["fmt", "--all", "--check"])) {
        wrong.push(format!("formatting: {error}"));
    }
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    if let Err(error) = process::run(&mut cargo(&clippy)) {
        wrong.push(format!("lints: {error}"));
    }
    for message in &wrong {
        eprintln!("tidy: {message}");
    }
    anyhow::ensure!(wrong.is_empty(), "{} things are not tidy", wrong.len());
    println!("tidy: {} files are in order", files.len());
    Ok(())
}
