//! `cargo xtask test`: everything, with one closing line that counts.

use std::{fs, time::Instant};

use anyhow::Context;

use crate::{
    process::{self, cargo, command, exists},
    root, target, tidy,
};

/// What ran.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Count {
    /// Adds a closing line of cargo's test runner: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn add_line(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let number = |word: &str| {
            let part = result.split([';', '.']).find(|part| part.trim_end().ends_with(word))?;
            part.split_whitespace().next()?.parse::<usize>().ok()
        };
        self.passed += number(" passed").unwrap_or(0);
        self.failed += number(" failed").unwrap_or(0);
        self.skipped += number(" ignored").unwrap_or(0);
    }

    /// Counts one check that is not a test of cargo's.
    fn add(&mut self, passed: bool) {
        self.passed += usize::from(passed);
        self.failed += usize::from(!passed);
    }
}

/// Runs every test; an error when one fails.
pub fn run(long: bool) -> anyhow::Result<()> {
    let started = Instant::now();
    let evidence = target().join("tine-tests");
    if evidence.exists() {
        fs::remove_dir_all(&evidence).with_context(|| format!("cannot clear {}", evidence.display()))?;
    }
    let mut count = Count::default();
    let tidy = tidy::run();
    if let Err(error) = &tidy {
        eprintln!("tidy: {error:#}");
    }
    count.add(tidy.is_ok());

    install_packages()?;
    install_from_pypi("moto", BUCKET_SERVER)?;
    install_from_pypi("zig-venv", ZIG)?;
    // The binary under test first: tests must not wait for a build, and it is what users run.
    process::run(&mut cargo(&["build", "--release", "--package", "tine"]))?;
    let units = ["test", "--workspace", "--exclude", "tine-tests", "--no-fail-fast"];
    let mut units = cargo(&units);
    if long {
        units.env("TINE_TESTS_LONG", "1");
    }
    let units_passed = process::run_seeing(&mut units, |line| count.add_line(line))?;
    let memory_checked = !long || check_memory(&mut count)?;
    let mut whole = cargo(&["test", "--package", "tine-tests", "--no-fail-fast"]);
    whole.env("TINE_BINARY", target().join("release/tine"));
    if long {
        whole.env("TINE_TESTS_LONG", "1");
    }
    let whole_passed = process::run_seeing(&mut whole, |line| count.add_line(line))?;
    // What modules can do, once more with every module in a process of its own.
    let mut isolated = cargo(&["test", "--package", "tine-tests", "--no-fail-fast"]);
    isolated.args(["--test", "calls", "--test", "limits", "--test", "features"]);
    isolated.env("TINE_BINARY", target().join("release/tine")).env("TINE_TEST_ISOLATION", "process");
    let isolated_passed = process::run_seeing(&mut isolated, |line| count.add_line(line))?;

    // A test that skips itself passes as far as cargo knows; it left a note.
    let skipped = fs::read_dir(evidence.join("skipped")).map_or(0, |notes| notes.count());
    count.passed = count.passed.saturating_sub(skipped);
    count.skipped += skipped;
    let checked = units_passed && memory_checked && whole_passed && isolated_passed;
    let all = checked && tidy.is_ok() && count.failed == 0;
    println!();
    println!("every test took {} s", started.elapsed().as_secs());
    if !all && count.failed == 0 {
        // A runner that failed without a count, such as a test that does not compile.
        count.failed = 1;
    }
    println!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
    anyhow::ensure!(all, "not everything passed");
    Ok(())
}

/// Runs the tests of the store's pages under valgrind, which sees what a slice of a freed page would read: there the
/// arena lies in plain memory of the allocator. Returns whether they passed.
fn check_memory(count: &mut Count) -> anyhow::Result<bool> {
    if !exists("valgrind") {
        eprintln!("skipped: valgrind is not installed");
        count.skipped += 1;
        return Ok(true);
    }
    let runner = r#"target."cfg(all())".runner=["valgrind", "--quiet", "--error-exitcode=99"]"#;
    let modules = ["page::tests", "tree::tests", "arena::tests", "overlay::tests"];
    let mut checked = cargo(&["test", "--package", "tine-store", "--lib", "--config", runner, "--"]);
    checked.args(modules);
    process::run_seeing(&mut checked, |line| count.add_line(line))
}

/// Installs the npm packages of the whole-program tests into `target/npm`, in the versions of the lock
/// file. Not with `npm ci`: that refuses a lock file without the packages of platforms that a registry
/// does not carry, which nobody here needs.
fn install_packages() -> anyhow::Result<()> {
    let folder = target().join("npm");
    let source = root().join("tests/npm");
    if !exists("npm") {
        println!("test: there is no npm; the tests of the npm SDK will be skipped");
        return Ok(());
    }
    // npm may complete the lock file it works on, so what was installed is remembered beside it.
    let installed = folder.join("installed-from.json");
    let wanted = fs::read(source.join(LOCK_FILE)).with_context(|| format!("cannot read {LOCK_FILE}"))?;
    if fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    fs::create_dir_all(&folder)?;
    for name in ["package.json", LOCK_FILE] {
        fs::copy(source.join(name), folder.join(name)).with_context(|| format!("cannot copy {name}"))?;
    }
    let mut install = command("npm", &["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]);
    process::run(install.current_dir(&folder))?;
    fs::write(&installed, wanted).context("cannot note what was installed")
}

/// Installs a package of PyPI, in the version that was tested, into an environment of its own below `target`.
fn install_from_pypi(name: &str, package: &str) -> anyhow::Result<()> {
    let folder = target().join(name);
    let installed = folder.join("installed");
    // The programs of an environment know where it is, so one that was moved is made anew.
    let wanted = format!("{package} in {}", folder.display());
    if fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    if !exists("python3") {
        println!("test: there is no python3; the tests that use {package} will be skipped or fail");
        return Ok(());
    }
    fs::create_dir_all(target())?;
    process::run(&mut command("python3", &["-m", "venv", "--clear", &folder.to_string_lossy()]))?;
    let pip = folder.join("bin/pip");
    process::run(&mut command(&pip.to_string_lossy(), &["install", "--quiet", package]))?;
    fs::write(&installed, wanted).context("cannot note what was installed")
}

/// The server of the S3 protocol against which images in buckets are tested.
const BUCKET_SERVER: &str = "moto[server]==5.2.5";

/// The compiler of the Zig client and server; the language still changes from release to release.
const ZIG: &str = "ziglang==0.17.1";

/// The lock file of the npm packages.
const LOCK_FILE: &str = "package-lock.json";

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn closing_lines_are_added_up() {
        let mut count = Count::default();
        count
            .add_line("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.51s");
        count
            .add_line("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9s");
        count.add_line("running 12 tests");
        assert_eq!((count.passed, count.failed, count.skipped), (14, 3, 1));
    }
}
