//! The examples for local programs in other languages, generated, compiled and run against a server over both transports.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use tine_tests::{
    command::{run, tine},
    keep::TestDirectory,
    root,
    server::{TestServer, module},
    target,
};

/// What all programs say, but for how their languages write truth.
const SAID: &str = "the fork begins at the database's LSN: true\ncommits of the fork: 2\nrefused: true\nLSNs go on: true\n\
                    on the fork: 70 30\nin the database: 100 none\n";

/// Builds `libtine_ipc` and the addon for Node, and returns their folder.
fn library() -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let packages = ["--package", "tine-ipc-c", "--package", "tine-ipc-node"];
    let built = cargo.current_dir(root()).args(["build", "--quiet"]).args(packages).status();
    assert!(built.expect("cargo can be started").success(), "the library does not build");
    target().join("debug")
}

fn ran(command: &mut Command) -> String {
    run(command).expect(0).stdout
}

fn example(name: &str) -> PathBuf {
    root().join("examples/local").join(name)
}

/// An example that is ready to run: a path and a database are still to be said.
struct Program {
    language: &'static str,
    command: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
}

impl Program {
    fn run(&self, path: &Path, database: &str) -> String {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).arg(path).arg(database).envs(self.environment.iter().cloned());
        ran(&mut command)
    }
}

fn cpp(folder: &Path, library: &Path) -> Program {
    let program = folder.join("fork");
    let mut compiler = Command::new("g++");
    compiler.args(["-std=c++20", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    compiler.arg("-I").arg(root().join("sdks/cpp/include")).arg("-I").arg(root().join("crates/ipc-c/include"));
    compiler.arg("-I").arg(folder).arg(example("fork.cpp")).arg("-o").arg(&program);
    compiler.arg("-L").arg(library).args(["-ltine_ipc", "-pthread"]);
    ran(&mut compiler);
    let environment = vec![("LD_LIBRARY_PATH", library.into())];
    Program { language: "C++", command: vec![program.into()], environment }
}

fn python(folder: &Path, library: &Path) -> Program {
    let program = folder.join("fork.py");
    std::fs::copy(example("fork.py"), &program).expect("it can be copied");
    let environment = vec![
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
        ("TINE_IPC_LIBRARY", library.join("libtine_ipc.so").into()),
        ("PYTHONPATH", root().join("sdks/python").into()),
    ];
    Program { language: "Python", command: vec!["python3".into(), program.into()], environment }
}

fn zig(folder: &Path, library: &Path) -> Program {
    let python = target().join("zig-venv/bin/python");
    assert!(python.exists(), "Zig is not installed; `cargo xtask test` installs it");
    let program = folder.join("fork-zig");
    let module = |name: &str, path: PathBuf| OsString::from(format!("-M{name}={}", path.display()));
    let mut compiler = Command::new(&python);
    for cache in ["ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"] {
        compiler.env(cache, target().join("zig-venv/cache"));
    }
    compiler.args(["-m", "ziglang", "build-exe", "--dep", "tine_ipc", "--dep", "tine"]);
    compiler.arg(module("root", example("fork.zig"))).args(["--dep", "tine_ipc"]);
    compiler.arg(module("tine", folder.join("generated/tine.zig")));
    compiler.arg(module("tine_ipc", root().join("sdks/zig/src/tine_ipc.zig"))).arg("-lc").arg("-L").arg(library);
    compiler.arg("-ltine_ipc").arg(format!("-femit-bin={}", program.display()));
    ran(&mut compiler);
    let environment = vec![("LD_LIBRARY_PATH", library.into())];
    Program { language: "Zig", command: vec![program.into()], environment }
}

fn typescript(folder: &Path, library: &Path) -> Program {
    let modules = target().join("npm/node_modules");
    assert!(modules.join(".bin/tsc").exists(), "the npm packages are not installed; `cargo xtask test` installs them");
    let tsc = || {
        let mut compiler = Command::new(modules.join(".bin/tsc"));
        compiler.arg("--typeRoots").arg(modules.join("@types"));
        compiler
    };
    let (source, package) = (root().join("sdks/typescript"), folder.join("node_modules/tine-ipc"));
    std::fs::create_dir_all(&package).expect("the folder can be made");
    ran(tsc().arg("-p").arg(&source).arg("--outDir").arg(package.join("dist")));
    std::fs::copy(source.join("package.json"), package.join("package.json")).expect("it can be copied");
    std::fs::write(folder.join("package.json"), r#"{"type": "module"}"#).expect("it can be written");
    std::fs::copy(example("fork.ts"), folder.join("fork.ts")).expect("it can be copied");
    let options = ["--strict", "--noUncheckedIndexedAccess", "--target", "es2022", "--module", "nodenext"];
    ran(tsc()
        .args(options)
        .args(["--types", "node"])
        .arg("--outDir")
        .arg(folder.join("out"))
        .arg(folder.join("fork.ts")));
    // Node takes a library for an addon by its name.
    let addon = folder.join("tine_ipc.node");
    std::fs::copy(library.join("libtine_ipc_node.so"), &addon).expect("it can be copied");
    let command = vec!["node".into(), folder.join("out/fork.js").into()];
    Program { language: "TypeScript", command, environment: vec![("TINE_IPC_ADDON", addon.into())] }
}

#[test]
fn programs_in_four_languages_fork_a_live_database_and_try_things_out() {
    let directory = TestDirectory::new("programs");
    let folder = directory.path();
    let schema = folder.join("tine.jsonc");
    std::fs::write(&schema, ran(tine(folder).args(["idl", "schema"]))).expect("it can be written");
    let mut generate = tine(folder);
    generate.args(["idl", "generate", "--language", "cpp,python,typescript,zig", "--out"]);
    ran(generate.arg(folder.join("generated")).arg(&schema));
    let library = library();
    let programs = [cpp, python, zig, typescript].map(|make| make(folder, &library));

    let paths = ["sock", "shm"].map(|transport| folder.join("tine").with_extension(transport));
    let options: Vec<&str> = paths.iter().flat_map(|path| ["--ipc", path.to_str().expect("text")]).collect();
    let server = TestServer::start_with(&options);
    let owned = server.publish("accounts", &module("examples/local/index.ts"));
    for path in &paths {
        for program in &programs {
            let said = program.run(path, &owned.name).replace("True", "true");
            assert_eq!(said, SAID, "{} over {}", program.language, path.display());
        }
    }
    let forks = owned.client.forks(&owned.name).expect("listed");
    assert_eq!(forks.len(), 1, "the programs' forks are gone: {forks:?}");
}
