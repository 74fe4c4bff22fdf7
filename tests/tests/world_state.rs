//! The world state as the program serves it: behind the command line of the program that it stands in for, driven by that
//! program's own client, and to clients of its schema.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tine_tests::command::{Ran, run, run_within, tine};
use tine_tests::keep::TestDirectory;
use tine_tests::{binary, npm, skip, wait::until_true};
use tine_worldstate::service::*;

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

/// A server in a process of its own, ended with SIGTERM.
struct Served(std::process::Child);

impl Served {
    fn end(mut self) {
        // SAFETY: kill(2) takes plain numbers, and the child was not waited for.
        unsafe { libc::kill(self.0.id() as libc::pid_t, libc::SIGTERM) };
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Over both transports at once: what one connection commits the other sees, and a restarted server still has.
#[test]
fn clients_of_the_schema_are_served() {
    let directory = TestDirectory::new("world-state-ipc");
    let paths = ["sock", "shm"].map(|transport| directory.path().join("world").with_extension(transport));
    let serve = || {
        let mut command = tine(directory.path());
        command.args(["world-state", "serve", "state", "--ipc"]).arg(&paths[0]).arg("--ipc").arg(&paths[1]);
        let child = command.stdout(std::process::Stdio::null()).spawn().expect("it starts");
        until_true("the world state", || WorldStateClient::connect(&paths[1]).is_ok());
        Served(child)
    };
    let connect = |path: &PathBuf| WorldStateClient::connect(path).expect("connected");
    let newest = |fork| Revision { fork, block: None, committed: false };
    let notes = |client: &WorldStateClient, fork| {
        let request = WorldStateGetTreeInfo { tree: 1, revision: newest(fork) };
        client.get_tree_info_within(&request, LIMIT).expect("read")
    };
    let append = |client: &WorldStateClient, fork, leaf: u8| {
        let mut element = [0; 32];
        element[31] = leaf;
        let request = WorldStateAppendLeaves { fork, tree: 1, leaves: vec![FieldElement(element)] };
        client.append_leaves_within(&request, LIMIT).expect("appended");
    };

    let server = serve();
    let [socket, memory] = [connect(&paths[0]), connect(&paths[1])];
    append(&socket, 0, 7);
    let committed = socket.commit_within(&WorldStateCommit {}, LIMIT).expect("committed");
    assert_eq!((committed.summary.tip, committed.trees[1].committed_size), (1, 1));
    let create = WorldStateCreateFork { block: Some(1), owned: None };
    let fork = memory.create_fork_within(&create, LIMIT).expect("made").fork;
    append(&memory, fork, 8);
    assert_eq!((notes(&memory, fork).size, notes(&socket, 0).size), (2, 1));
    // The fork ends with its connection, whoever else knows it.
    drop(memory);
    let delete = WorldStateDeleteFork { fork };
    until_true("the end of the fork", || {
        let request = WorldStateGetTreeInfo { tree: 1, revision: newest(fork) };
        socket.get_tree_info_within(&request, LIMIT).is_err()
    });
    assert!(socket.delete_fork_within(&delete, LIMIT).is_err());
    let root = notes(&socket, 0).root;
    server.end();

    let server = serve();
    assert_eq!(notes(&connect(&paths[0]), 0).root, root, "the block is there");
    server.end();
    for wrong in [&["world-state", "serve", "state"][..], &["world-state", "serve", "state", "--ipc", "world"]] {
        run(tine(directory.path()).args(wrong)).expect(2);
    }
}
