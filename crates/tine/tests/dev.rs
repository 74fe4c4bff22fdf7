//! `tine dev` and `tine init`, as a developer uses them.

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use common::{Desk, text};
use serde_json::{Value, json};
use tine_client::{ConnectOptions, Connection};

/// A module with one table; `%BODY%` is the body of its reducer and `%COLUMN%` a column.
const MODULE: &str = r#"
import { schema, t, table } from "tine:server";
import { greeting } from "./words";
const person = table({ public: true }, { id: t.u32().primaryKey().autoInc(), %COLUMN%: t.string() });
const spec = schema({ person });
export default spec;
export const init = spec.init(() => console.log("born"));
export const add = spec.reducer({ name: t.string() }, (ctx, { name }) => {
  %BODY%
});
"#;
const INSERT: &str = "ctx.db.person.insert({ id: 0, name: greeting(name) });";
const WORDS: &str = "export const greeting = (name: string): string => `hello ${name}`;\n";

/// A desk with the project `game`.
fn desk() -> Desk {
    let desk = Desk::new();
    write_module(&desk, INSERT, "name");
    desk.write("game/src/words.ts", WORDS);
    desk
}

fn write_module(desk: &Desk, body: &str, column: &str) {
    desk.write("game/src/index.ts", &MODULE.replace("%BODY%", body).replace("%COLUMN%", column));
}

fn rows(desk: &Desk, query: &str) -> Value {
    desk.json("game", &["sql", query])["rows"].clone()
}

#[test]
fn saves_are_published_and_clients_stay() {
    let desk = desk();
    let dev = desk.start("game", &["dev", "--listen", "127.0.0.1:0"]);
    let listening = dev.next("listening");
    assert_eq!((listening["database"].as_str(), &listening["token"]), (Some("game"), &Value::Null));
    let published = dev.next("published");
    assert_eq!((published["new"].as_bool(), published["files"].as_u64()), (Some(true), Some(2)));
    assert_eq!(dev.next("log")["message"], json!("born"));

    // Inside the project nothing has to be named.
    desk.ok("game", &["call", ".", "add", "Ada"]);
    assert_eq!(rows(&desk, "SELECT name FROM person"), json!([["hello Ada"]]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = listening["url"].as_str().expect("an address");
    let mut client = runtime.block_on(async {
        let mut client = Connection::connect(ConnectOptions::new(url, "game")).await.expect("connected");
        client.subscribe(1, &["SELECT * FROM person"]).await.expect("subscribed");
        client
    });

    let saved = Instant::now();
    desk.write("game/src/words.ts", &WORDS.replace("hello", "welcome"));
    assert_eq!(dev.next("published")["new"], json!(false));
    assert!(saved.elapsed() < Duration::from_secs(5), "{:?}", saved.elapsed());
    desk.ok("game", &["call", ".", "add", "Eve"]);
    assert_eq!(rows(&desk, "SELECT name FROM person WHERE id = 2"), json!([["welcome Eve"]]));
    let message = runtime.block_on(client.recv()).expect("the connection is still there");
    assert!(format!("{message:?}").contains("TransactionUpdate"), "{message:?}");

    // A file that is saved without a change is no news.
    desk.write("game/src/words.ts", &WORDS.replace("hello", "welcome"));
    assert!(dev.is_quiet("published", Duration::from_millis(400)));

    // Data and identity are there again after a restart.
    assert_eq!(dev.stop(), 0);
    let dev = desk.start("game", &["dev", "--listen", "127.0.0.1:0"]);
    assert_eq!(dev.next("published")["new"], json!(false));
    assert_eq!(rows(&desk, "SELECT COUNT(*) AS n FROM person"), json!([[2]]));
    assert_eq!(dev.stop(), 0);
}

#[test]
fn mistakes_are_shown_at_their_line_and_change_nothing() {
    let desk = desk();
    let dev = desk.start("game", &["dev", "--throwaway"]);
    let listening = dev.next("listening");
    let (url, token) = (listening["url"].as_str().expect("an address"), listening["token"].as_str().expect("a token"));
    dev.next("published");
    let call = |name: &str| {
        let http = tine_client::http::HttpClient::new(url).expect("an address").with_token(token);
        http.call("game", "add", &json!([name]))
    };

    write_module(&desk, "if (", "name");
    let error = dev.next("error");
    assert_eq!(error["code"], json!("TN0508"));
    let message = error["message"].as_str().expect("text");
    assert!(message.contains("index.ts:10:1") && message.contains('^'), "{message}");
    call("Ada").expect("the module before goes on");

    write_module(&desk, "const row = ctx.db.person.id.find(99);\n  console.log(row!.name);", "name");
    dev.next("published");
    call("Eve").expect_err("it throws");
    let failed = dev.until(|event| event["event"] == "log" && event["level"] == "Panic");
    let trace = failed["trace"].as_str().expect("a trace");
    assert_eq!((failed["function"].as_str(), failed["line_number"].as_u64()), (Some("add"), Some(10)));
    assert!(trace.contains("console.log(row!.name)") && trace.contains('^'), "{trace}");

    // A missing file is waited for.
    write_module(&desk, INSERT, "name");
    dev.next("published");
    fs::remove_file(desk.path("game/src/words.ts")).expect("removed");
    assert!(dev.next("error")["message"].as_str().is_some_and(|message| message.contains("./words")));
    desk.write("game/src/words.ts", WORDS);
    dev.next("published");
    assert_eq!(dev.stop(), 0);
    assert!(!desk.path("game/.tine").exists(), "a throwaway server leaves nothing");
    let data = listening["data_dir"].as_str().expect("a folder");
    assert!(!std::path::Path::new(data).exists(), "{data}");
}

#[test]
fn rows_that_do_not_fit_are_kept_until_somebody_agrees() {
    let desk = desk();
    let dev = desk.start("game", &["dev", "--listen", "127.0.0.1:0"]);
    dev.next("published");
    desk.ok("game", &["call", ".", "add", "Ada"]);
    write_module(&desk, "", "nick");
    let refused = dev.next("incompatible");
    for text in [&refused["message"], &refused["plan"]] {
        assert!(text.as_str().is_some_and(|text| text.contains("nick")), "{refused}");
    }
    assert!(refused["next"].as_str().is_some_and(|next| next.contains("--yes=clear")), "{refused}");
    assert_eq!(rows(&desk, "SELECT name FROM person"), json!([["hello Ada"]]));
    assert_eq!(dev.stop(), 0);

    let dev = desk.start("game", &["dev", "--listen", "127.0.0.1:0", "--yes=delete"]);
    dev.next("incompatible");
    assert!(dev.is_quiet("published", Duration::from_millis(300)), "that is agreement to something else");
    assert_eq!(dev.stop(), 0);
    let dev = desk.start("game", &["dev", "--listen", "127.0.0.1:0", "--yes=clear"]);
    dev.next("incompatible");
    dev.next("published");
    assert_eq!(rows(&desk, "SELECT nick FROM person"), json!([]));
    assert_eq!(dev.stop(), 0);
}

#[test]
fn clients_that_cannot_follow_are_disconnected() {
    let desk = desk();
    let dev = desk.start("game", &["dev", "--throwaway"]);
    let listening = dev.next("listening");
    dev.next("published");
    let url = listening["url"].as_str().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut client = runtime.block_on(async {
        let mut client = Connection::connect(ConnectOptions::new(url, "game")).await.expect("connected");
        client.subscribe(1, &["SELECT * FROM person"]).await.expect("subscribed");
        client
    });
    let with_column =
        MODULE.replace("%BODY%", "").replace("%COLUMN%: t.string()", "name: t.string(), age: t.u8().default(7)");
    desk.write("game/src/index.ts", &with_column);
    dev.next("published");
    runtime.block_on(client.recv()).expect_err("it is told to come again");
    runtime.block_on(Connection::connect(ConnectOptions::new(url, "game"))).expect("and may");
    assert_eq!(dev.stop(), 0);
}

#[test]
fn pages_are_served_and_read_again() {
    let desk = desk();
    desk.write("game/page/index.html", "<p>one</p>");
    let dev = desk.start("game", &["dev", "--throwaway"]);
    let page = dev.next("listening")["page"].as_str().expect("a page").to_owned();
    let read = || ureq::get(&page).call().expect("served").body_mut().read_to_string().expect("text");
    assert_eq!(read(), "<p>one</p>");
    dev.next("published");
    desk.write("game/page/index.html", "<p>two!</p>");
    assert_eq!(dev.next("pages")["files"], json!(1));
    assert_eq!(read(), "<p>two!</p>");
    assert!(dev.is_quiet("published", Duration::from_millis(200)), "the module is the same");
    assert_eq!(dev.stop(), 0);

    desk.write("elsewhere/index.html", "<p>three</p>");
    let dev = desk.start("", &["dev", "game/src/index.ts", "--throwaway", "--static", "elsewhere"]);
    let page = dev.next("listening")["page"].as_str().expect("a page").to_owned();
    let body = ureq::get(&page).call().expect("served").body_mut().read_to_string().expect("text");
    assert_eq!(body, "<p>three</p>");
    assert_eq!(dev.stop(), 0);
}

#[test]
fn addresses_are_chosen_or_obeyed() {
    let desk = desk();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (status, error) = desk.fails("game", &["dev", "--listen", &address]);
    assert_eq!((status, error["code"].as_str()), (6, Some("TN0704")), "what was asked for is not changed");
    let (status, _) = desk.fails("game", &["dev", "nothing"]);
    assert_eq!(status, 4);
    desk.write("game/src/tool/index.ts", "export {};\n");
    desk.write("game/src/tool/.tine", "database = \"other\"\n");
    let (status, error) = desk.fails("game/src/tool", &["dev", "--listen", "127.0.0.1:0"]);
    assert_eq!(status, 2, "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("is a file")), "{error}");
    let kept = fs::read_to_string(desk.path("game/src/tool/.tine")).expect("there");
    assert_eq!(kept, "database = \"other\"\n", "the file is untouched");
}

#[test]
fn text_is_for_people() {
    let desk = desk();
    let mut child = desk.command("game", &["dev", "--throwaway"]);
    let mut child = child.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut stdout = child.stdout.take().expect("piped");
    let (mut seen, mut piece) = (String::new(), [0; 4096]);
    while !seen.contains("published game") {
        let read = stdout.read(&mut piece).expect("it writes");
        assert_ne!(read, 0, "it ended: {seen}");
        seen.push_str(&text(&piece[..read]));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    for part in ["tine dev: game from .", "  server  http://127.0.0.1:", "temporary", "published game with new data"] {
        assert!(seen.contains(part), "`{part}` is not in\n{seen}");
    }
    assert!(!seen.contains('\u{1b}'), "no colours in a pipe: {seen:?}");
}

#[test]
fn a_new_project_runs_and_its_tests_pass() {
    let desk = Desk::new();
    desk.ok("", &["init", "my game"]);
    let files = common::contents(&desk.path("my game"));
    assert!(files.iter().any(|(path, _)| path.ends_with("page/index.html")));
    let (status, error) = desk.fails("", &["init", "my game"]);
    assert_eq!(status, 2, "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("src/index.ts")), "{error}");
    fs::remove_file(desk.path("my game/README.md")).expect("removed");
    desk.write("my game/src/own.ts", "export {};\n");
    let again = desk.json("", &["init", "my game", "--keep"]);
    assert_eq!(again["written"], json!(["README.md"]));
    fs::remove_file(desk.path("my game/src/own.ts")).expect("removed");
    assert_eq!(common::contents(&desk.path("my game")), files, "nothing was overwritten");

    let mut node = Command::new("node");
    node.arg("--test").current_dir(desk.path("my game")).env("TINE", env!("CARGO_BIN_EXE_tine"));
    let tests = node.env("HOME", desk.path("home")).output().expect("node runs");
    assert!(tests.status.success(), "{}\n{}", text(&tests.stdout), text(&tests.stderr));

    let dev = desk.start("my game", &["dev", "--throwaway"]);
    assert_eq!(dev.next("listening")["database"], json!("my-game"));
    dev.next("published");
    assert_eq!(dev.stop(), 0);
    desk.ok("", &["init", "plain", "--template", "module", "--database", "other"]);
    assert!(!desk.path("plain/page").exists());
    assert!(fs::read_to_string(desk.path("plain/README.md")).expect("there").starts_with("# other\n"));
}

#[test]
fn a_failing_test_of_a_new_project_fails() {
    let desk = Desk::new();
    desk.ok("", &["init", "game"]);
    let path = desk.path("game/src/index.ts");
    let module = fs::read_to_string(&path).expect("there");
    let broken = module.replace("name: wanted", "name: \"nobody\"");
    assert_ne!(module, broken);
    fs::File::create(&path).and_then(|mut file| file.write_all(broken.as_bytes())).expect("written");
    let mut node = Command::new("node");
    node.arg("--test").current_dir(desk.path("game")).env("TINE", env!("CARGO_BIN_EXE_tine"));
    let tests = node.env("HOME", desk.path("home")).output().expect("node runs");
    assert!(!tests.status.success() && text(&tests.stdout).contains("a name can be changed"));
}
