//! The command line against a real server, both of them the binary that is shipped.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

const MODULE: &str = r#"
import { schema, t, table, SenderError } from "tine:server";
import { greeting } from "./words";

const person = table({ public: true }, { id: t.u32().primaryKey(), name: t.string(), age: t.option(t.u8()) });
const secret = table({}, { id: t.u32().primaryKey() });
const spec = schema({ person, secret });
export default spec;

export const add = spec.reducer({ id: t.u32(), name: t.string() }, (ctx, { id, name }) => {
  if (name === "") throw new SenderError("a name is needed");
  console.log(greeting(name));
  ctx.db.person.insert({ id, name, age: undefined });
});

export const rename = spec.reducer({ id: t.u32(), name: t.string() }, (ctx, { id, name }) => {
  const row = ctx.db.person.id.find(id);
  if (!row) throw new SenderError("nobody has this id");
  ctx.db.person.id.update({ ...row, name });
});

export const crash = spec.reducer(() => {
  throw new TypeError("a mistake");
});
"#;
const WORDS: &str = "export const greeting = (name: string): string => `hello ${name}`;\n";

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server and the files of its user. Dropping it kills the server.
struct World {
    folder: TempDir,
    server: Child,
    url: String,
}

impl World {
    fn start() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let (server, url) = serve(folder.path(), &[]);
        World { folder, server, url }
    }

    /// A world with the module published as `people`.
    fn with_people() -> World {
        let world = World::start();
        world.module();
        world.ok(&["publish", "people", world.path("module").to_str().expect("text")]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn module(&self) {
        fs::create_dir_all(self.path("module/src")).expect("made");
        fs::write(self.path("module/src/index.ts"), MODULE).expect("written");
        fs::write(self.path("module/src/words.ts"), WORDS).expect("written");
    }

    fn run(&self, args: &[&str]) -> Output {
        command(self.folder.path(), args).stdin(Stdio::null()).output().expect("it runs")
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "tine {args:?} failed:\n{}", text(&output.stderr));
        text(&output.stdout)
    }

    fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let out = self.ok(&args);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    /// The exit status and the error object of a verb that fails.
    fn fails(&self, args: &[&str]) -> (i32, Value) {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let output = self.run(&args);
        let error: Value = serde_json::from_slice(&output.stderr)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {}", text(&output.stderr)));
        (output.status.code().expect("it ended by itself"), error["error"].clone())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A `tine` that sees no settings but those of this test's folder.
fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tine"));
    command.args(args).current_dir(folder).env_clear();
    command.env("HOME", folder.join("home")).env("TINE_DATA_DIR", folder.join("data"));
    command
}

/// Starts a server on a free port and returns it with its address.
fn serve(folder: &Path, args: &[&str]) -> (Child, String) {
    let all: Vec<&str> = ["serve", "--listen", "127.0.0.1:0", "--json"].iter().chain(args).copied().collect();
    let log = fs::File::create(folder.join("server.log")).expect("a log");
    let mut server = command(folder, &all).stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
        panic!("{error}: {line:?}: {}", fs::read_to_string(folder.join("server.log")).unwrap_or_default())
    });
    (server, line["url"].as_str().expect("an address").to_owned())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn wait(child: &mut Child) -> i32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait().expect("it is ours") {
            Some(status) => return status.code().expect("it ended by itself"),
            None => assert!(Instant::now() < deadline, "it does not end"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

#[test]
fn a_module_is_published_called_and_read() {
    let world = World::start();
    world.module();
    let module = world.path("module");
    let module = module.to_str().expect("text");
    let created = world.json(&["publish", "people", module]);
    assert_eq!((created["operation"].as_str(), created["files"].as_u64()), (Some("created"), Some(2)));
    assert!(created["url"].as_str().is_some_and(|url| url.starts_with(&world.url)), "{created}");
    assert!(world.ok(&["publish", "people", module]).starts_with("updated people from 2 files"));

    world.ok(&["call", "people", "add", "1", "Ada"]);
    world.ok(&["call", "people", "add", "--args", r#"{"name": "Grace", "id": 2}"#]);
    let mut child = command(world.folder.path(), &["call", "people", "add", "--args", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("piped").write_all(b"[3, \"Edsger\"]").expect("written");
    assert_eq!(wait(&mut child), 0);

    let rows = world.json(&["sql", "people", "SELECT * FROM person WHERE id >= 2"]);
    assert_eq!(rows["columns"], json!(["id", "name", "age"]));
    assert_eq!(rows["rows"].as_array().map(Vec::len), Some(2));
    let table = world.ok(&["sql", "people", "SELECT * FROM person WHERE id = 1"]);
    assert!(table.contains("Ada") && table.contains("(1 row in "), "{table}");

    let logs = world.ok(&["logs", "people", "-n", "10"]);
    assert!(logs.contains("hello Ada") && logs.contains("INFO"), "{logs}");
    let first = world.ok(&["logs", "people", "--json"]);
    let first: Value = serde_json::from_str(first.lines().next().expect("a line")).expect("JSON");
    assert!(first["message"].as_str().is_some() && first["ts"].as_i64().is_some());
}

#[test]
fn descriptions_and_lists() {
    let world = World::with_people();
    let all = world.ok(&["describe", "people"]);
    for part in [
        "person (public): id*: u32, name: string, age: option<u8>",
        "(private)",
        "rename(id: u32, name: string)  [reducer]",
    ] {
        assert!(all.contains(part), "`{part}` is not in\n{all}");
    }
    assert!(world.json(&["describe", "people"])["sections"].is_array());
    assert_eq!(world.json(&["describe", "people", "person"])["primary_key"], json!(["id"]));
    assert_eq!(world.ok(&["describe", "people", "rename"]).trim(), "reducer rename(id: u32, name: string)");
    assert_eq!(world.fails(&["describe", "people", "nothing"]).0, 4);

    world.ok(&["fork", "create", "people", "exp1"]);
    let list = world.json(&["list"]);
    let names: Vec<&str> =
        list["databases"][0]["forks"].as_array().expect("forks").iter().filter_map(|f| f["name"].as_str()).collect();
    assert_eq!(names, ["main", "exp1"]);
    let shown = world.ok(&["list"]);
    assert!(shown.contains("people") && shown.contains("exp1"), "{shown}");
    let version = world.json(&["version"]);
    assert_eq!(version["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
}

#[test]
fn forks_live_on_their_own() {
    let world = World::with_people();
    world.ok(&["call", "people", "add", "1", "Ada"]);
    let fork = world.json(&["fork", "create", "people", "exp1"]);
    assert_eq!((fork["name"].as_str(), fork["durability"].as_str()), (Some("exp1"), Some("durable")));
    world.ok(&["call", "people@exp1", "rename", "1", "Eve"]);
    let name = |database: &str| world.json(&["sql", database, "SELECT name FROM person"])["rows"][0][0].clone();
    assert_eq!((name("people"), name("people@exp1")), (json!("Ada"), json!("Eve")));

    let child = world.json(&["fork", "create", "people@exp1", "exp2", "--ephemeral"]);
    assert_eq!((child["durability"].as_str(), child["parent"]["fork"].as_str()), (Some("ephemeral"), Some("exp1")));
    world.ok(&["fork", "delete", "people@exp1", "--yes"]);
    assert_eq!(name("people@exp2"), json!("Eve"), "a child outlives its parent");
    assert_eq!(world.json(&["fork", "rename", "people@exp2", "winner"])["name"], json!("winner"));
    assert_eq!(
        world.json(&["fork", "show", "people@winner"])["head"].as_u64(),
        Some(fork["head"].as_u64().expect("a head") + 1)
    );
    assert!(world.ok(&["fork", "list", "people"]).contains("winner"));

    assert_eq!(world.fails(&["fork", "create", "people", "winner"]).0, 6, "the name is taken");
    assert_eq!(world.fails(&["fork", "show", "people@exp2"]).0, 4);
    assert_eq!(world.fails(&["fork", "rename", "people", "x"]).0, 2, "no fork is named");
    let (status, error) = world.fails(&["delete", "people", "--yes"]);
    assert_eq!(status, 6);
    assert!(error["next"].as_str().is_some_and(|next| next.contains("--forks")), "{error}");
    world.ok(&["delete", "people", "--forks", "--yes"]);
    assert_eq!(world.fails(&["sql", "people", "SELECT * FROM person"]).0, 4);
}

#[test]
fn subscriptions_show_rows_and_changes() {
    let world = World::with_people();
    world.ok(&["call", "people", "add", "1", "Ada"]);
    let mut child =
        command(world.folder.path(), &["subscribe", "people", "--json", "--changes", "2", "--timeout-s", "20"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON") };
    assert_eq!(
        next(),
        json!({"op": "initial", "table": "person", "row": {"id": 1, "name": "Ada", "age": {"none": []}}})
    );
    assert_eq!(next(), json!({"op": "applied", "rows": 1}));
    world.ok(&["call", "people", "rename", "1", "Eve"]);
    world.ok(&["call", "people", "add", "2", "Grace"]);
    let update = next();
    assert_eq!(
        (update["op"].as_str(), update["old"]["name"].as_str(), update["row"]["name"].as_str()),
        (Some("update"), Some("Ada"), Some("Eve"))
    );
    assert_eq!(next()["op"], json!("insert"));
    assert_eq!(wait(&mut child), 0);

    let shown = world.ok(&["subscribe", "people", "SELECT * FROM person WHERE id = 2", "--timeout-s", "1"]);
    assert!(shown.contains("= person  id=2 name=\"Grace\" age=-") && shown.contains("-- 1 row now"), "{shown}");
    assert_eq!(world.fails(&["subscribe", "people", "SELECT * FROM nothing"]).0, 1);

    world.ok(&["fork", "create", "people", "brief", "--ephemeral"]);
    let (status, error) = world.fails(&["subscribe", "people@brief", "--timeout-s", "1"]);
    assert_eq!((status, error["code"].as_str()), (1, Some("TN0612")));
    assert!(error["next"].as_str().is_some_and(|next| next.contains("--unconfirmed")), "{error}");
    let lines = world.ok(&["subscribe", "people@brief", "--timeout-s", "1", "--unconfirmed"]);
    assert!(lines.contains("-- 2 rows now"), "{lines}");
}

#[test]
fn failures_have_their_status_and_code() {
    let world = World::with_people();
    let module_broken = world.path("broken.ts");
    fs::write(&module_broken, "import { schema } from \"tine:server\";\nexport default schema({;\n").expect("written");
    let broken = module_broken.to_str().expect("text");
    let nowhere = ["--server", "http://127.0.0.1:9"];
    let cases: [(&[&str], i32); 11] = [
        (&["call", "people", "add", "1", ""], 1),
        (&["call", "people", "crash"], 1),
        (&["call", "people", "add", "1"], 1),
        (&["call", "people", "nothing"], 4),
        (&["call", "nobody", "add"], 4),
        (&["call", "people", "add", "--args", "1"], 2),
        (&["sql", "people", "SELEKT"], 1),
        (&["publish", "people", broken], 1),
        (&["publish", "people", "/no/such/file.ts"], 4),
        (&["publish", "Not A Name", "module"], 1),
        (&["delete", "people"], 2),
    ];
    for (args, status) in cases {
        let (got, error) = world.fails(args);
        assert_eq!(got, status, "{args:?}: {error}");
        let code = error["code"].as_str().expect("a code");
        assert!(code.len() == 6 && code.starts_with("TN"), "{args:?}: {error}");
        assert_eq!(error["exit"].as_i64(), Some(i64::from(status)));
    }
    let args: Vec<&str> = ["--new-identity", "list"].iter().chain(&nowhere).copied().collect();
    assert_eq!(world.fails(&args).0, 3);
    assert_eq!(world.run(&["call"]).status.code(), Some(2), "clap's own errors are usage errors");

    let shown = text(&world.run(&["call", "people", "add", "1", ""]).stderr);
    assert!(shown.contains("a name is needed"), "{shown}");
    let compile = text(&world.run(&["publish", "people", broken]).stderr);
    assert!(compile.contains("broken.ts:2"), "the file and line are named: {compile}");
    let crash = text(&world.run(&["call", "people", "crash"]).stderr);
    assert!(crash.starts_with("error[TN") && crash.contains("next: "), "{crash}");
}

#[test]
fn only_who_may_does() {
    let world = World::with_people();
    let stranger = ["--credentials", "other.json", "--data-dir", "elsewhere", "--server", &world.url];
    let with =
        |args: &[&'static str]| -> Vec<String> { args.iter().copied().chain(stranger).map(str::to_owned).collect() };
    for (args, status) in [
        (with(&["publish", "mine", "module"]), 5),
        (with(&["publish", "people", "module"]), 5),
        (with(&["fork", "create", "people", "x"]), 5),
        (with(&["logs", "people"]), 5),
        (with(&["sql", "people", "SELECT * FROM person"]), 0),
        (with(&["call", "people", "add", "7", "Mallory"]), 0),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = world.run(&args);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", text(&output.stderr));
    }
    let bad = world.run(&["list", "--token", "nonsense", "--server", &world.url]);
    assert_eq!(bad.status.code(), Some(5), "{}", text(&bad.stderr));
    assert!(text(&bad.stderr).contains("--new-identity"));
}

#[test]
fn the_saved_identity_is_used_again() {
    let world = World::with_people();
    let saved = || fs::read_to_string(world.path("home/.config/tine/credentials.json")).expect("saved");
    let first = saved();
    world.ok(&["list"]);
    assert_eq!(saved(), first);
    world.ok(&["list", "--new-identity"]);
    assert_ne!(saved(), first);
}

#[test]
fn the_second_server_of_a_directory_refuses() {
    let world = World::start();
    let second =
        command(world.folder.path(), &["serve", "--listen", "127.0.0.1:0", "--json"]).output().expect("it runs");
    assert_eq!(second.status.code(), Some(6), "{}", text(&second.stderr));
    let third = command(world.folder.path(), &["serve", "--data-dir", "other", "--listen", &world.url[7..]])
        .output()
        .expect("it runs");
    assert_eq!(third.status.code(), Some(6), "{}", text(&third.stderr));
    assert!(text(&third.stderr).contains("cannot listen"), "{}", text(&third.stderr));
}

#[test]
fn a_server_ends_in_order_and_keeps_everything() {
    for name in ["-TERM", "-INT"] {
        let mut world = World::with_people();
        world.ok(&["call", "people", "add", "1", "Ada"]);
        signal(&world.server, name);
        assert_eq!(wait(&mut world.server), 0, "{name}");
        assert!(!world.path("data/address").exists());
        let (server, url) = serve(world.folder.path(), &[]);
        (world.server, world.url) = (server, url);
        let rows = world.json(&["sql", "people", "SELECT name FROM person"]);
        assert_eq!(rows["rows"], json!([["Ada"]]), "{name}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut world = World::with_people();
    // A request whose body never comes holds up the orderly end.
    let mut request = TcpStream::connect(&world.url[7..]).expect("connected");
    let head = "POST /v1/database/people/sql HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\nSELECT";
    request.write_all(head.as_bytes()).expect("written");
    world.ok(&["list"]);
    signal(&world.server, "-TERM");
    std::thread::sleep(Duration::from_millis(300));
    assert!(world.server.try_wait().expect("it is ours").is_none(), "it waits for the request");
    let start = Instant::now();
    signal(&world.server, "-TERM");
    assert_eq!(wait(&mut world.server), 130);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn logs_are_followed_until_the_server_ends() {
    let mut world = World::with_people();
    let mut child = command(world.folder.path(), &["logs", "people", "--follow", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON") };
    for (id, name) in [("1", "Ada"), ("2", "Eve")] {
        world.ok(&["call", "people", "add", id, name]);
        assert_eq!(next()["message"], json!(format!("hello {name}")));
    }
    signal(&world.server, "-TERM");
    assert_eq!(wait(&mut world.server), 0);
    wait(&mut child);
}

#[test]
fn settings_come_in_their_order() {
    let world = World::with_people();
    let file = |server: &str| fs::write(world.path("tine.toml"), format!("server = \"{server}\"\n")).expect("written");
    file("http://127.0.0.1:9");
    assert_eq!(world.fails(&["list"]).0, 3, "the file wins over the default");
    let status = |command: &mut Command| command.output().expect("it runs").status.code();
    assert_eq!(
        status(command(world.folder.path(), &["list"]).env("TINE_SERVER", &world.url)),
        Some(0),
        "the variable wins over the file"
    );
    let flag = ["list", "--server", &world.url];
    assert_eq!(
        status(command(world.folder.path(), &flag).env("TINE_SERVER", "http://127.0.0.1:9")),
        Some(0),
        "the flag wins over the variable"
    );
    fs::write(world.path("tine.toml"), "sevrer = \"x\"\n").expect("written");
    let (status, error) = world.fails(&["list"]);
    assert_eq!(status, 2);
    assert!(error["message"].as_str().is_some_and(|message| message.contains("sevrer")), "{error}");
}

#[test]
fn static_files_are_served_beside_the_api() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("page")).expect("made");
    fs::write(folder.path().join("page/index.html"), "<title>hello</title>").expect("written");
    let (mut server, url) = serve(folder.path(), &["--static", "page"]);
    let page = ureq::get(format!("{url}/app/")).call().expect("served").body_mut().read_to_string().expect("text");
    assert_eq!(page, "<title>hello</title>");
    signal(&server, "-TERM");
    assert_eq!(wait(&mut server), 0);
}
