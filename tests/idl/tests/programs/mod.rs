//! The echo programs: how each is built and run.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tine_idl::{Language, Schema, generate};

/// Pairs of a client and a server over one transport.
pub const PAIRS: usize = 4 * 5 * 2;

/// How long a program may run; each does a few thousand calls.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// How long a compiler may run on a busy machine.
const BUILD_LIMIT: Duration = Duration::from_secs(300);

/// An echo program.
pub struct Program {
    pub language: &'static str,
    /// Whether there is a server in it.
    pub serves: bool,
    command: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    /// The example of the language's page, where there is one.
    example: Option<Vec<OsString>>,
    /// A program that loses requests, where the language's runtime has to notice that itself.
    lost: Option<Vec<OsString>>,
}

/// A server that runs.
pub struct Running {
    child: Child,
    language: &'static str,
}

impl Program {
    fn start(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).args(arguments).envs(self.environment.iter().cloned());
        command
    }

    /// Runs it to its end; what it said.
    ///
    /// # Panics
    /// When it fails, or takes too long.
    pub fn run(&self, arguments: &[&str]) -> String {
        run_within(&mut self.start(arguments), RUN_LIMIT)
    }

    /// Runs the example of the language's page; what it said, on either output. None for Rust, whose example is a test of its own.
    ///
    /// # Panics
    /// When it fails, or takes too long.
    pub fn run_example(&self, path: &str) -> Option<String> {
        let example = self.example.as_ref()?;
        let mut command = Command::new(&example[0]);
        command.args(&example[1..]).arg(path).envs(self.environment.iter().cloned());
        let output = command.output().expect("the example starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{}: {said}", self.language);
        Some(said)
    }

    /// Runs the program that loses requests over such a path, where there is one.
    ///
    /// # Panics
    /// When it fails, or takes too long.
    pub fn run_lost(&self, path: &str) {
        if let Some(lost) = &self.lost {
            let mut command = Command::new(&lost[0]);
            command.args(&lost[1..]).arg(path).envs(self.environment.iter().cloned());
            assert_eq!(run_within(&mut command, RUN_LIMIT), "ok\n", "lost requests in {}", self.language);
        }
    }

    /// Starts a server and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn serve(&self, path: &str) -> Running {
        let mut command = self.start(&["serve", path]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        // A server that dies ends its output; one that hangs is ended by the limit of the whole test run.
        BufReader::new(child.stdout.as_mut().expect("it is piped")).read_line(&mut line).expect("it can be read");
        assert_eq!(line, "ready\n", "the server in {} did not start", self.language);
        Running { child, language: self.language }
    }
}

impl Running {
    /// Ends the server by ending its input.
    ///
    /// # Panics
    /// When it does not end, or says that it failed.
    pub fn stop(mut self) {
        drop(self.child.stdin.take());
        let status = wait(&mut self.child, RUN_LIMIT);
        assert_eq!(status, Some(0), "the server in {} ended badly", self.language);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `stop` there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Generates, compiles and returns all programs.
pub fn build_all(folder: &Path) -> Vec<Program> {
    let library = library();
    vec![
        rust(),
        typescript(&folder.join("typescript"), &library),
        cpp(&folder.join("cpp"), &library),
        zig(&folder.join("zig"), &library),
        python(&folder.join("python"), &library),
    ]
}

/// Builds `libtine_ipc` and the addon for Node, and returns their folder.
fn library() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["build", "--package", "tine-ipc-c", "--package", "tine-ipc-node"]);
    run_within(cargo.env("CARGO_TARGET_DIR", target()), BUILD_LIMIT);
    let folder = target().join("debug");
    assert!(folder.join("libtine_ipc.so").exists(), "cargo built no library");
    folder
}

fn rust() -> Program {
    let command = vec![env!("CARGO_BIN_EXE_tine-idl-tests").into()];
    Program { language: "rust", serves: true, command, environment: Vec::new(), example: None, lost: None }
}

/// Compiles the package and the program with the type checker at its strictest.
fn typescript(folder: &Path, library: &Path) -> Program {
    let package = folder.join("node_modules/tine-ipc");
    fs::create_dir_all(&package).expect("the folder can be made");
    let modules = target().join("npm/node_modules");
    let compiler = modules.join(".bin/tsc");
    assert!(compiler.exists(), "the npm packages are not installed; `cargo xtask test` installs them");
    let types = modules.join("@types");
    let tsc = |arguments: &[&Path]| {
        let mut command = Command::new(&compiler);
        run_within(command.args(arguments).arg("--typeRoots").arg(&types), BUILD_LIMIT);
    };
    let source = root().join("sdks/typescript");
    tsc(&[Path::new("-p"), &source, Path::new("--outDir"), &package.join("dist")]);
    fs::copy(source.join("package.json"), package.join("package.json")).expect("it can be copied");
    fs::write(folder.join("package.json"), r#"{"type": "module"}"#).expect("it can be written");
    write_generated(Language::TypeScript, &folder.join("generated"));
    for program in ["echo.ts", "lost.ts"] {
        fs::copy(programs().join("typescript").join(program), folder.join(program)).expect("it can be copied");
    }
    write_example("typescript", "typescript", &folder.join("example.ts"));
    fs::write(folder.join("tsconfig.json"), TSCONFIG).expect("it can be written");
    tsc(&[Path::new("-p"), folder]);
    let command = vec!["node".into(), folder.join("out/echo.js").into()];
    // Node takes a library for an addon by its name.
    let addon = folder.join("tine_ipc.node");
    fs::copy(library.join("libtine_ipc_node.so"), &addon).expect("it can be copied");
    let environment = vec![("TINE_IPC_ADDON", addon.into())];
    let example = Some(vec!["node".into(), folder.join("out/example.js").into()]);
    let lost = Some(vec!["node".into(), "--expose-gc".into(), folder.join("out/lost.js").into()]);
    Program { language: "typescript", serves: true, command, environment, example, lost }
}

/// Compiles with every warning an error: the headers are part of other people's programs.
fn cpp(folder: &Path, library: &Path) -> Program {
    write_generated(Language::Cpp, &folder.join("generated"));
    let source = folder.join("example.cpp");
    write_example("cpp", "cpp", &source);
    let compile = |source: &Path, program: &Path| {
        let mut compiler = Command::new("g++");
        compiler.args(["-std=c++20", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
        compiler.arg("-I").arg(root().join("sdks/cpp/include")).arg("-I").arg(root().join("crates/ipc-c/include"));
        compiler.arg("-I").arg(folder).arg(source).arg("-o").arg(program);
        compiler.arg("-L").arg(library).arg("-ltine_ipc").arg("-pthread");
        run_within(&mut compiler, BUILD_LIMIT);
    };
    let (program, example) = (folder.join("echo"), folder.join("example"));
    compile(&programs().join("cpp/echo.cpp"), &program);
    compile(&source, &example);
    let environment = vec![("LD_LIBRARY_PATH", library.into())];
    let example = Some(vec![example.into()]);
    Program { language: "cpp", serves: true, command: vec![program.into()], environment, example, lost: None }
}

fn zig(folder: &Path, library: &Path) -> Program {
    write_generated(Language::Zig, &folder.join("generated"));
    let python = target().join("zig-venv/bin/python");
    assert!(python.exists(), "Zig is not installed; `cargo xtask test` installs it");
    let zig = |arguments: &[OsString]| {
        let mut command = Command::new(&python);
        // Its caches stay between runs, beside the compiler.
        command.env("ZIG_GLOBAL_CACHE_DIR", target().join("zig-venv/cache"));
        command.env("ZIG_LOCAL_CACHE_DIR", target().join("zig-venv/cache"));
        run_within(command.args(["-m", "ziglang"]).args(arguments), BUILD_LIMIT)
    };
    let (generated, runtime) = (folder.join("generated/echo.zig"), root().join("sdks/zig/src"));
    let source = programs().join("zig/echo.zig");
    zig(&["fmt".into(), "--check".into(), generated.clone().into(), runtime.clone().into(), source.clone().into()]);
    let module = |name: &str, path: &Path| OsString::from(format!("-M{name}={}", path.display()));
    let compile = |source: &Path, program: &Path| {
        zig(&[
            "build-exe".into(),
            "--dep".into(),
            "tine_ipc".into(),
            "--dep".into(),
            "echo".into(),
            module("root", source),
            "--dep".into(),
            "tine_ipc".into(),
            module("echo", &generated),
            module("tine_ipc", &runtime.join("tine_ipc.zig")),
            "-lc".into(),
            "-L".into(),
            library.into(),
            "-ltine_ipc".into(),
            OsString::from(format!("-femit-bin={}", program.display())),
        ]);
    };
    let (program, example) = (folder.join("echo"), folder.join("example"));
    let example_source = folder.join("example.zig");
    write_example("zig", "zig", &example_source);
    compile(&source, &program);
    compile(&example_source, &example);
    let environment = vec![("LD_LIBRARY_PATH", library.into())];
    let example = Some(vec![example.into()]);
    Program { language: "zig", serves: true, command: vec![program.into()], environment, example, lost: None }
}

fn python(folder: &Path, library: &Path) -> Program {
    write_generated(Language::Python, &folder.join("generated"));
    let program = folder.join("echo.py");
    fs::copy(programs().join("python/echo.py"), &program).expect("it can be copied");
    let environment = vec![
        ("TINE_IPC_LIBRARY", library.join("libtine_ipc.so").into()),
        ("PYTHONPATH", root().join("sdks/python").into()),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
    ];
    let command = vec!["python3".into(), program.into()];
    let example = folder.join("example.py");
    write_example("python", "python", &example);
    let example = Some(vec!["python3".into(), example.into()]);
    Program { language: "python", serves: false, command, environment, example, lost: None }
}

const TSCONFIG: &str = r#"{
  "compilerOptions": {
    "target": "es2022", "module": "nodenext", "strict": true, "noUncheckedIndexedAccess": true,
    "exactOptionalPropertyTypes": true, "noUnusedLocals": true, "noUnusedParameters": true,
    "types": ["node"], "rootDir": ".", "outDir": "out"
  },
  "files": ["echo.ts", "example.ts", "lost.ts"]
}"#;

/// Writes the first example of a language's page.
fn write_example(sdk: &str, marker: &str, file: &Path) {
    let page = fs::read_to_string(root().join("sdks").join(sdk).join("README.md")).expect("there is a page");
    let (_, rest) = page.split_once(&format!("```{marker}\n")).expect("the page has an example");
    let (example, _) = rest.split_once("```").expect("the example has an end");
    fs::write(file, example).expect("it can be written");
}

/// Writes the code of the echo service.
fn write_generated(language: Language, folder: &Path) {
    let text = fs::read_to_string(root().join("crates/idl/fixtures/echo.jsonc")).expect("the schema is there");
    let schema = Schema::parse(&text).expect("it is a schema");
    fs::create_dir_all(folder).expect("the folder can be made");
    let file = folder.join(language.file_name(&schema));
    fs::write(file, generate(&schema, language)).expect("the code can be written");
}

fn run_within(command: &mut Command, limit: Duration) -> String {
    let shown = format!("{command:?}");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{shown}: {error}"));
    // Both pipes are read while the program runs, so that it never waits for us.
    let stdout = reader(child.stdout.take().expect("it is piped"));
    let stderr = reader(child.stderr.take().expect("it is piped"));
    let status = wait(&mut child, limit);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let (said, complained) = (stdout.join().expect("it was read"), stderr.join().expect("it was read"));
    assert_eq!(status, Some(0), "{shown}\n{said}\n{complained}");
    said
}

fn reader(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was said before a failure is still of use.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The exit status, or none when the limit has passed.
fn wait(child: &mut Child, limit: Duration) -> Option<i32> {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status.code().unwrap_or(-1));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Where build products are: the folder of `debug` and `release`.
fn target() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_tine-idl-tests"));
    program.ancestors().nth(2).expect("programs lie two levels below").to_owned()
}
