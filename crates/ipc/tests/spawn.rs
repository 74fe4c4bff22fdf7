//! Services as child processes, and what is said of them when they die.

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use tine_ipc::{Client, ConnectOptions, ListenOptions, SpawnError};

/// Not a test: the service that the others start.
#[test]
fn child() {
    let Some(path) = std::env::var_os("TINE_IPC_TEST_PATH") else { return };
    eprintln!("about to listen");
    let _reactor = serve(&PathBuf::from(path), ListenOptions::new(SCHEMA), Arc::new(Service::default()));
    std::thread::sleep(Duration::from_millis(300));
    for number in 0..100_000 {
        eprintln!("line {number}");
    }
    panic!("the end of the world");
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

#[test]
fn a_death_quotes_the_last_words() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("a.sock");
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env("TINE_IPC_TEST_PATH", &path);
    command.stdout(std::process::Stdio::null());
    let mut service = tine_ipc::Service::spawn(&mut command, &path, SOON).expect("ready");
    let client = Client::connect(&path, &ConnectOptions::new(SCHEMA)).expect("connected");
    client.call(&[ECHO], SOON).expect("a reply");
    assert!(service.death(Duration::ZERO).is_none());
    client.call(&[NEVER], SOON).expect_err("it dies meanwhile");
    let death = service.death(SOON).expect("dead");
    let text = death.to_string();
    assert_eq!(death.code(), "TN0952");
    assert!(
        text.contains("the end of the world") && text.contains("line 99999") && !text.contains("line 1\n"),
        "{text}"
    );
}

#[test]
fn a_service_that_never_is() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("a.sock");
    let spawn = |command: &mut Command, limit| tine_ipc::Service::spawn(command, &path, limit);
    let error = spawn(&mut shell("echo no such luck >&2; exit 3"), SOON).expect_err("it ends");
    assert!(matches!(&error, SpawnError::Died { status, .. } if status.contains('3')), "{error}");
    assert!(error.to_string().contains("no such luck"), "{error}");
    let error =
        spawn(&mut shell("echo thinking >&2; exec sleep 60"), Duration::from_millis(200)).expect_err("too slow");
    assert!(error.code() == "TN0951" && error.to_string().contains("thinking"), "{error}");
    let error = spawn(&mut Command::new("/no/such/program"), SOON).expect_err("absent");
    assert_eq!(error.code(), "TN0950");
}
