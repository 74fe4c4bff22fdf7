//! The examples for local programs in other languages, generated, compiled and run against a server over both transports.

use std::path::{Path, PathBuf};
use std::process::Command;

use tine_tests::{
    command::{run, tine},
    keep::TestDirectory,
    root,
    server::{TestServer, module},
    target,
};

/// What both programs say, but for how their languages write truth.
const SAID: &str = "the fork begins at the database's LSN: true\ncommits of the fork: 2\nrefused: true\nLSNs go on: true\n\
                    on the fork: 70 30\nin the database: 100 none\n";

/// Builds `libtine_ipc` and returns its folder.
fn library() -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let built = cargo.current_dir(root()).args(["build", "--quiet", "--package", "tine-ipc-c"]).status();
    assert!(built.expect("cargo can be started").success(), "the library does not build");
    target().join("debug")
}

fn ran(command: &mut Command) -> String {
    run(command).expect(0).stdout
}

fn compiled(folder: &Path, library: &Path) -> PathBuf {
    let program = folder.join("fork");
    let mut compiler = Command::new("g++");
    compiler.args(["-std=c++20", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    compiler.arg("-I").arg(root().join("sdks/cpp/include")).arg("-I").arg(root().join("crates/ipc-c/include"));
    compiler.arg("-I").arg(folder).arg(root().join("examples/local/fork.cpp")).arg("-o").arg(&program);
    compiler.arg("-L").arg(library).args(["-ltine_ipc", "-pthread"]);
    ran(&mut compiler);
    program
}

#[test]
fn programs_in_cpp_and_python_fork_a_live_database_and_try_things_out() {
    let directory = TestDirectory::new("programs");
    let folder = directory.path();
    let schema = folder.join("tine.jsonc");
    std::fs::write(&schema, ran(tine(folder).args(["idl", "schema"]))).expect("it can be written");
    let generated = folder.join("generated");
    ran(tine(folder).args(["idl", "generate", "--language", "cpp,python", "--out"]).arg(&generated).arg(&schema));
    let library = library();
    let cpp = compiled(folder, &library);
    let python = folder.join("fork.py");
    std::fs::copy(root().join("examples/local/fork.py"), &python).expect("it can be copied");

    let paths = ["sock", "shm"].map(|transport| folder.join("tine").with_extension(transport));
    let options: Vec<&str> = paths.iter().flat_map(|path| ["--ipc", path.to_str().expect("text")]).collect();
    let server = TestServer::start_with(&options);
    let owned = server.publish("accounts", &module("examples/local/index.ts"));
    for path in &paths {
        let said = ran(Command::new(&cpp).arg(path).arg(&owned.name).env("LD_LIBRARY_PATH", &library));
        assert_eq!(said, SAID, "C++ over {}", path.display());
        let mut command = Command::new("python3");
        command.arg(&python).arg(path).arg(&owned.name).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("TINE_IPC_LIBRARY", library.join("libtine_ipc.so")).env("PYTHONPATH", root().join("sdks/python"));
        assert_eq!(ran(&mut command).replace("True", "true"), SAID, "Python over {}", path.display());
    }
    let forks = owned.client.forks(&owned.name).expect("listed");
    assert_eq!(forks.len(), 1, "the programs' forks are gone: {forks:?}");
}
