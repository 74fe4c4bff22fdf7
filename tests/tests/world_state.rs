//! The world state behind the command line of the program that it stands in for, driven by that program's own client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tine_tests::command::{Ran, run, run_within, tine};
use tine_tests::keep::TestDirectory;
use tine_tests::{binary, npm, skip};

/// How long the client may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The folder of the npm packages and the program that is stood in for.
fn installed() -> Result<(PathBuf, PathBuf), &'static str> {
    let folder = npm::folder()?;
    let program = folder.join("node_modules/@aztec/bb.js/build/amd64-linux/aztec-wsdb");
    if !program.exists() || !cfg!(target_arch = "x86_64") {
        return Err("npm @aztec/bb.js has no server for this machine here");
    }
    Ok((folder, program))
}

/// What the client prints when it uses `program`: commands with their replies.
fn drive(folder: &Path, program: &Path, directory: &Path) -> Vec<Value> {
    std::fs::create_dir_all(directory.join("data")).expect("a folder");
    let mut client = npm::node(folder);
    client.arg("world_state.mjs").arg(program).arg(directory.join("data")).arg(directory.join("copy"));
    let ran: Ran = run_within(client.env("TMPDIR", directory), LIMIT);
    assert_eq!(ran.status, 0, "{}: {}\n{}", program.display(), ran.stdout, ran.stderr);
    ran.json_lines().into_iter().map(comparable).collect()
}

/// Without what is documented to differ: what is on disk, and the summary of a commit, which is uninitialised there.
fn comparable(mut line: Value) -> Value {
    let is_commit = line["command"] == "Commit";
    if let Some(status) = line.pointer_mut("/reply/status").and_then(Value::as_object_mut) {
        status.remove("dbstats");
        if is_commit {
            status.remove("summary");
        }
    }
    line
}

#[test]
fn the_programs_own_client_gets_the_same_replies() {
    let (folder, theirs) = match installed() {
        Ok(installed) => installed,
        Err(missing) => return skip(missing),
    };
    let directory = TestDirectory::new("world-state");
    // The client starts the program by a path, without arguments of its own before the program's.
    let ours = directory.path().join("aztec-wsdb");
    std::os::unix::fs::symlink(binary(), &ours).expect("a link");
    let expected = drive(&folder, &theirs, &directory.path().join("theirs"));
    let replies = drive(&folder, &ours, &directory.path().join("ours"));
    for (reply, expected) in replies.iter().zip(&expected) {
        assert_eq!(reply, expected, "ours, theirs");
    }
    assert_eq!(replies.len(), expected.len());
    let refused = replies.iter().filter(|line| line.get("error").is_some()).count();
    assert!(replies.len() > 70 && (3..10).contains(&refused), "{} replies, {refused} refusals", replies.len());
    assert!(directory.path().join("ours/copy/log").is_dir(), "the copy is where it was asked for");
}

#[test]
fn the_schema_is_the_programs() {
    let theirs = match installed() {
        Ok((_, theirs)) => theirs,
        Err(missing) => return skip(missing),
    };
    let directory = TestDirectory::new("world-state-schema");
    let expected = run(std::process::Command::new(theirs).args(["msgpack", "schema"])).expect(0).json();
    let printed = run(tine(directory.path()).args(["aztec-wsdb", "msgpack", "schema"])).expect(0).json();
    assert_eq!(printed, expected);
    let commands = expected.pointer("/commands/1").and_then(Value::as_array).expect("a union of commands");
    assert_eq!(commands.len(), 30);
}
