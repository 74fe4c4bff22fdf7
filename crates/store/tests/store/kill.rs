//! SIGKILL of a process that commits, forks and images, at any instant.
//!
//! The process is this test's own binary, run for [`the_process_that_is_killed`] alone. What it writes to its output is
//! what it was told is durable.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tine_base::SystemEnv;
use tine_store::{Durability, ForkId, Lsn, Store, StoreOptions};

use crate::crash::{check_fork, commit_next};
use crate::support::{WAIT, assert_equals_log, fork_options, options};

const DIRECTORY: &str = "TINE_KILL_DIRECTORY";
const ROUNDS: u64 = 50;
/// Commits of one round at most, should nobody kill the process.
const COMMITS_MAX: u64 = 20_000;

fn open(directory: &Path) -> Store {
    // Opens from images although the log, which the test compares with, is kept.
    let options = StoreOptions { image_bytes: 400_000, ..options(directory) };
    Store::open(options, Arc::new(SystemEnv)).expect("a kill is no damage")
}

#[test]
fn the_process_that_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let store = open(&directory);
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    let first = writer.version().lsn.get() + 1;
    let mut side = None;
    for number in first..first + COMMITS_MAX {
        let commit = commit_next(&mut writer, number);
        if number.is_multiple_of(3) {
            store.wait_durable(commit.durable, WAIT).expect("durable");
            println!("\nconfirmed {}", commit.lsn.get());
        }
        if number.is_multiple_of(50) {
            writer.publish();
            let options = fork_options(&format!("side{number}"), Durability::Durable);
            let (fork, ticket) = store.fork(ForkId::MAIN, options).expect("fork");
            store.wait_durable(ticket, WAIT).expect("durable");
            if let Some(before) = side.replace(fork.id) {
                store.drop_fork(before).expect("drop");
            }
        }
        if number.is_multiple_of(170) {
            store.image().expect("image");
        }
    }
}

/// Runs the process and kills it about `after` its first confirmed commit. Returns the last one.
fn run_and_kill(directory: &Path, after: Duration) -> u64 {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "kill::the_process_that_is_killed", "--nocapture"]).env(DIRECTORY, directory);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut confirmed = 0;
    let mut killer = None;
    // Up to the end of the pipe: what the process wrote before it was killed counts.
    while let Some(line) = lines.next().and_then(Result::ok) {
        let Some(number) = line.strip_prefix("confirmed ").and_then(|number| number.parse().ok()) else { continue };
        confirmed = number;
        if killer.is_none() {
            let id = libc::pid_t::try_from(child.id()).expect("process ids are small");
            killer = Some(std::thread::spawn(move || {
                std::thread::sleep(after);
                // SAFETY: kill(2) takes plain numbers; the child has not been awaited, so the id is its.
                assert_eq!(unsafe { libc::kill(id, libc::SIGKILL) }, 0);
            }));
        }
    }
    killer.expect("the process confirmed something").join().expect("killed");
    let status = child.wait().expect("it ended");
    assert!(!status.success(), "it was killed at work");
    confirmed
}

#[test]
fn nothing_confirmed_is_lost_to_fifty_kills() {
    let directory = tempfile::tempdir().expect("temporary directory");
    for round in 0..ROUNDS {
        let after = Duration::from_micros(round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 60_000);
        let confirmed = run_and_kill(directory.path(), after);
        let store = open(directory.path());
        check_fork(&store, ForkId::MAIN, Lsn::new(confirmed), Lsn::new(confirmed + COMMITS_MAX));
        store.check_pages().expect("sound");
        if round % 10 == 9 {
            assert_equals_log(&store, directory.path(), Arc::new(SystemEnv));
        }
        store.close().expect("close");
    }
}
