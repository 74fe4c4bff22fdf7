//! The command line, verb by verb, with `--json` and its exit statuses.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tine_tests::{
    command::{Ran, run, tine},
    keep::TestDirectory,
    root,
    server::TestServer,
};

/// A person at a terminal: a server, a home of one's own, and a module.
struct Desk {
    server: TestServer,
    home: TestDirectory,
}

impl Desk {
    fn new() -> Desk {
        Desk { server: TestServer::start(), home: TestDirectory::new("home") }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tine(self.home.path());
        command.args(arguments).env("TINE_DATA_DIR", self.server.data()).env("TINE_SERVER", self.server.url());
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Runs with `--json` and expects status 0.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["--json"]].concat()).expect(0).json()
    }

    #[track_caller]
    fn publish(&self, database: &str) -> Value {
        let probe = root().join("tests/modules/probe.ts");
        self.json(&["publish", database, probe.to_str().expect("a path of text")])
    }
}

#[test]
fn publish_call_sql_and_describe() {
    let desk = Desk::new();
    let published = desk.publish("shop");
    assert_eq!(published["operation"], "created", "{published}");
    assert_eq!(published["identity"].as_str().map(str::len), Some(64), "{published}");
    assert_eq!(desk.publish("shop")["operation"], "updated");

    desk.run(&["call", "shop", "add", "Ada", "36"]).expect(0);
    desk.run(&["call", "shop", "add", "--args", r#"{"name": "Bo", "age": 7}"#]).expect(0);
    let population = desk.json(&["call", "shop", "population"]);
    assert_eq!(population["value"], 2, "{population}");

    let selected = desk.json(&["sql", "shop", "SELECT name, age FROM person WHERE age > 10"]);
    let text = selected.to_string();
    assert!(text.contains("Ada") && !text.contains("Bo"), "{text}");
    let table = desk.run(&["sql", "shop", "SELECT name, age FROM person"]).expect(0).stdout;
    assert!(table.contains("name") && table.contains("Ada") && table.contains("36"), "{table}");

    let described = desk.json(&["describe", "shop"]).to_string();
    for name in ["person", "addTwice", "population"] {
        assert!(described.contains(name), "{name} is not described: {described}");
    }
    desk.run(&["describe", "shop", "person"]).expect(0);
    let listed = desk.json(&["list"]);
    assert_eq!(listed["databases"][0]["name"], "shop", "{listed}");
    let version = desk.json(&["version"]);
    assert!(version["version"].is_string(), "{version}");
}

#[test]
fn forks_from_beginning_to_end() {
    let desk = Desk::new();
    desk.publish("shop");
    desk.run(&["call", "shop", "add", "Ada", "36"]).expect(0);
    let made = desk.json(&["fork", "create", "shop", "exp1"]);
    assert_eq!((&made["name"], &made["durability"]), (&json!("exp1"), &json!("durable")), "{made}");
    let fleeting = desk.json(&["fork", "create", "shop@exp1", "exp2", "--ephemeral"]);
    assert_eq!(fleeting["durability"], "ephemeral", "{fleeting}");
    desk.run(&["call", "shop@exp1", "add", "Bo", "7"]).expect(0);
    let count = |database: &str| {
        let result = desk.json(&["sql", database, "SELECT name FROM person"]);
        result["rows"].as_array().or_else(|| result[0]["rows"].as_array()).map(Vec::len)
    };
    assert_eq!((count("shop"), count("shop@exp1"), count("shop@exp2")), (Some(1), Some(2), Some(1)));
    let listed = desk.json(&["fork", "list", "shop"]);
    let names: Vec<&str> =
        listed["forks"].as_array().expect("forks").iter().filter_map(|fork| fork["name"].as_str()).collect();
    assert_eq!(names, ["main", "exp1", "exp2"]);
    assert_eq!(desk.json(&["fork", "show", "shop@exp1"])["name"], "exp1");
    assert_eq!(desk.json(&["fork", "rename", "shop@exp1", "winner"])["name"], "winner");
    desk.run(&["fork", "delete", "shop@winner"]).expect(2);
    desk.run(&["fork", "delete", "shop@winner", "--yes"]).expect(0);
    desk.run(&["delete", "shop", "--yes"]).expect(6);
    desk.run(&["delete", "shop@exp2", "--yes"]).expect(0);
    desk.run(&["delete", "shop", "--yes"]).expect(0);
    assert_eq!(desk.json(&["list"])["databases"], json!([]));
}

#[test]
fn subscribe_shows_every_change() {
    let desk = Desk::new();
    desk.publish("shop");
    desk.run(&["call", "shop", "add", "Ada", "36"]).expect(0);
    let arguments = ["subscribe", "shop", "SELECT * FROM person", "--changes", "2", "--timeout-s", "30", "--json"];
    let mut child = desk.command(&arguments).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut next = || -> Value { serde_json::from_str(&lines.next().expect("a line")).expect("JSON") };
    let initial = next();
    assert_eq!((&initial["op"], &initial["row"]["name"]), (&json!("initial"), &json!("Ada")), "{initial}");
    assert_eq!(next()["op"], "applied");
    desk.run(&["call", "shop", "add", "Bo", "7"]).expect(0);
    let inserted = next();
    assert_eq!((&inserted["op"], &inserted["row"]["name"]), (&json!("insert"), &json!("Bo")), "{inserted}");
    desk.run(&["call", "shop", "rename", "2", "Bob"]).expect(0);
    let updated = next();
    assert_eq!((&updated["op"], &updated["row"]["name"]), (&json!("update"), &json!("Bob")), "{updated}");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn logs_are_shown_and_followed() {
    let desk = Desk::new();
    desk.publish("shop");
    desk.run(&["call", "shop", "say", "first words"]).expect(0);
    let shown = desk.run(&["logs", "shop"]).expect(0).stdout;
    assert!(shown.contains("first words"), "{shown}");
    let records = desk.run(&["logs", "shop", "--json"]).expect(0).json_lines();
    assert!(records.iter().any(|record| record["message"] == "first words"), "{records:?}");
    let mut child =
        desk.command(&["logs", "shop", "--follow", "-n", "1"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    lines.next().expect("the last line so far");
    desk.run(&["call", "shop", "say", "later words"]).expect(0);
    assert!(lines.any(|line| line.contains("later words")), "the new line is not shown");
    child.kill().expect("it can be ended");
    child.wait().expect("it ends");
}

#[test]
fn exit_statuses_and_words_of_failures() {
    let desk = Desk::new();
    desk.publish("shop");
    let nowhere = "http://127.0.0.1:1";
    let cases: [(&[&str], i32); 14] = [
        (&["call", "shop", "refuse", "because"], 1),
        (&["call", "shop", "trap"], 1),
        (&["call", "shop", "add", "Ada", "not a number"], 1),
        (&["sql", "shop", "SELECT nonsense"], 1),
        (&["nonsense"], 2),
        (&["call", "shop"], 2),
        (&["call", "shop", "add", "--args", "{"], 2),
        (&["list", "--server", nowhere], 3),
        (&["call", "no-such-database", "add"], 4),
        (&["call", "shop", "no_such_function"], 4),
        (&["publish", "other", "no/such/file.ts"], 4),
        (&["fork", "show", "shop@none"], 4),
        (&["fork", "create", "shop", "main"], 6),
        (&["sql", "shop", "SELECT * FROM person", "--token", "not.a.token"], 5),
    ];
    for (arguments, status) in cases {
        let ran = desk.run(arguments);
        assert_eq!(ran.status, status, "{arguments:?}: {ran:?}");
        assert!(ran.stdout.is_empty(), "{arguments:?} printed on standard output: {}", ran.stdout);
        assert!(!ran.stderr.is_empty(), "{arguments:?} failed without a word");
        // Those of the grammar are clap's.
        if arguments.len() > 2 {
            assert!(ran.stderr.contains("TN"), "{arguments:?}: no code: {}", ran.stderr);
        }
        if status != 2 {
            let json = desk.run(&[arguments, &["--json"]].concat());
            let error: Value =
                serde_json::from_str(json.stderr.trim()).unwrap_or_else(|error| panic!("{error}: {json:?}"));
            let code = error["error"]["code"].as_str().unwrap_or_default();
            assert!(code.starts_with("TN") && error["error"]["exit"] == status, "{arguments:?}: {error}");
        }
    }
    assert!(desk.run(&["call", "shop", "refuse", "because"]).stderr.contains("because"));
}

#[test]
fn a_stranger_may_not() {
    let desk = Desk::new();
    desk.publish("shop");
    let elsewhere = TestDirectory::new("stranger");
    let stranger = |arguments: &[&str]| {
        let mut command = tine(elsewhere.path());
        command.args(arguments).args(["--server", desk.server.url()]);
        run(&mut command).status
    };
    let probe = root().join("tests/modules/probe.ts");
    let probe = probe.to_str().expect("a path of text");
    assert_eq!(stranger(&["publish", "shop", probe]), 5);
    assert_eq!(stranger(&["publish", "new-one", probe]), 5);
    assert_eq!(stranger(&["delete", "shop", "--yes"]), 5);
    assert_eq!(stranger(&["fork", "create", "shop", "mine"]), 5);
    assert_eq!(stranger(&["logs", "shop"]), 5);
    assert_eq!(stranger(&["call", "shop", "add", "Bo", "7"]), 0, "calling is for everybody");
}

#[test]
fn errors_in_a_module_name_the_line() {
    let desk = Desk::new();
    let broken = desk.home.path().join("broken.ts");
    std::fs::write(&broken, "import { schema } from 'tine:server';\n\nexport default schema({}) +;\n")
        .expect("written");
    let ran = desk.run(&["publish", "broken", broken.to_str().expect("a path of text")]).expect(1);
    assert!(ran.stderr.contains("broken.ts:3"), "{}", ran.stderr);
}

#[test]
fn help_is_there_for_every_verb() {
    let home = TestDirectory::new("help");
    let verbs =
        ["serve", "demo", "publish", "call", "sql", "subscribe", "logs", "describe", "list", "delete", "version"];
    for verb in verbs {
        let help = run(tine(home.path()).args([verb, "--help"])).expect(0).stdout;
        assert!(help.contains(&format!("tine {verb}")), "{verb}: {help}");
        assert!(verb == "demo" || help.contains("Examples:"), "{verb} has no example");
    }
}
