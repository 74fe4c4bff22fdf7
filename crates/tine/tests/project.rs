//! The verbs around a project and its data: settings, identities, backups, the doctor, error pages.

mod common;

use std::{fs, os::unix::fs::PermissionsExt};

use common::{Desk, contents, text};
use serde_json::{Value, json};

const MODULE: &str = r#"
import { schema, t, table } from "tine:server";
const row = table({ public: true }, { id: t.u64().primaryKey().autoInc(), text: t.string() });
const spec = schema({ row });
export default spec;
export const add = spec.reducer({ text: t.string() }, (ctx, { text }) => { ctx.db.row.insert({ id: 0n, text }); });
"#;

/// A desk with a server on the folder `data`, and the database `notes`.
fn with_server() -> (Desk, common::Running, String) {
    let desk = Desk::new();
    desk.write("notes.ts", MODULE);
    desk.write("tine.toml", "data_dir = \"data\"\ndatabase = \"notes\"\n");
    let server = desk.start("", &["serve", "--listen", "127.0.0.1:0"]);
    let url = server.next("listening")["url"].as_str().expect("an address").to_owned();
    desk.ok("", &["publish", ".", "notes.ts"]);
    (desk, server, url)
}

fn count(desk: &Desk) -> u64 {
    desk.json("", &["sql", "SELECT COUNT(*) AS n FROM row"])["rows"][0][0].as_u64().expect("a number")
}

#[test]
fn the_projects_database_need_not_be_named() {
    let (desk, server, _) = with_server();
    desk.ok("", &["call", ".", "add", "one"]);
    desk.ok("", &["fork", "create", ".", "exp1"]);
    desk.ok("", &["call", "@exp1", "add", "two"]);
    assert_eq!(count(&desk), 1);
    assert_eq!(desk.json("", &["sql", "@exp1", "SELECT id FROM row"])["rows"], json!([[1], [2]]));
    assert!(desk.ok("", &["describe"]).contains("row (public)"));
    assert!(desk.ok("", &["fork", "list"]).contains("exp1"));
    desk.ok("", &["logs"]);

    // The project's own file wins over `tine.toml`, from any folder below it.
    desk.write("deep/er/x", "");
    desk.write(".tine", "database = \"notes@exp1\"\n");
    assert_eq!(desk.json("deep/er", &["sql", "SELECT id FROM row"])["rows"], json!([[1], [2]]));
    let by_variable = desk.command("", &["sql", "SELECT id FROM row", "--json"]).env("TINE_DATABASE", "notes").output();
    let shown = text(&by_variable.expect("it runs").stdout);
    assert!(shown.contains("[[1]]"), "{shown}");
    fs::remove_file(desk.path(".tine")).expect("removed");
    desk.write("tine.toml", "data_dir = \"data\"\n");
    let (status, error) = desk.fails("", &["call", ".", "add", "x"]);
    assert_eq!(status, 2);
    assert!(error["next"].as_str().is_some_and(|next| next.contains("TINE_DATABASE")), "{error}");
    assert_eq!(server.stop(), 0);
}

#[test]
fn settings_say_where_they_come_from() {
    let desk = Desk::new();
    desk.write(
        "tine.toml",
        "server = \"http://127.0.0.1:4001\"\nlisten = \"127.0.0.1:4002\"\nimages = \"s3://bucket/games\"\n",
    );
    desk.write(".tine/context.toml", "database = \"game\"\ndata_dir = \"data\"\n");
    let output =
        desk.command("", &["config", "show", "--json", "--token", "secret"]).env("TINE_CREDENTIALS", "c.json").output();
    let shown: Value = serde_json::from_slice(&output.expect("it runs").stdout).expect("JSON");
    let setting = |name: &str| {
        let found = shown["settings"].as_array().expect("a list").iter().find(|setting| setting["name"] == name);
        let found = found.unwrap_or_else(|| panic!("no {name} in {shown}"));
        (
            found["value"].as_str().unwrap_or_default().to_owned(),
            found["origin"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let ends = |(value, origin): (String, String), value_end: &str, origin_end: &str| {
        assert!(value.ends_with(value_end) && origin.ends_with(origin_end), "{value} from {origin}");
    };
    ends(setting("server"), "http://127.0.0.1:4001", "tine.toml");
    ends(setting("listen"), "127.0.0.1:4002", "tine.toml");
    ends(setting("images"), "s3://bucket/games", "tine.toml");
    ends(setting("database"), "game", ".tine/context.toml");
    ends(setting("data_dir"), ".tine/data", ".tine/context.toml");
    ends(setting("credentials"), "c.json", "TINE_CREDENTIALS");
    ends(setting("token"), "(given)", "flag");
    let lines = desk.ok("", &["config", "show", "-o", "ndjson"]);
    assert_eq!(lines.lines().count(), 7, "one setting a line: {lines}");
}

#[test]
fn lists_come_in_three_forms() {
    let (desk, server, _) = with_server();
    for text in ["a", "b"] {
        desk.ok("", &["call", ".", "add", text]);
    }
    let lines = desk.ok("", &["sql", "SELECT * FROM row", "-o", "ndjson"]);
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows, [json!({"id": 1, "text": "a"}), json!({"id": 2, "text": "b"})]);
    assert_eq!(desk.ok("", &["list", "-o", "ndjson"]).lines().count(), 1);
    let one: Value = serde_json::from_str(&desk.ok("", &["list", "-o", "json"])).expect("one document");
    assert!(one["databases"].is_array(), "{one}");
    assert!(desk.ok("", &["list", "-o", "table"]).contains("notes"));
    assert_eq!(desk.run("", &["list", "-o", "xml"]).status.code(), Some(2));
    assert_eq!(server.stop(), 0);
}

#[test]
fn identities_are_shown_made_and_taken_along() {
    let (desk, server, url) = with_server();
    let first = desk.json("", &["identity", "show", "--with-token"]);
    let token = first["token"].as_str().expect("a token").to_owned();
    assert!(desk.json("", &["identity", "show"])["token"].is_null(), "it is shown on demand only");
    let second = desk.json("", &["identity", "new"]);
    assert_ne!(first["identity"], second["identity"]);
    assert_eq!(desk.json("", &["identity", "login", &token])["identity"], first["identity"]);
    assert_eq!(desk.json("", &["identity", "show"])["identity"], first["identity"]);
    // Another home has no identity at this server until it is used.
    let elsewhere = ["identity", "show", "--credentials", "other.json", "--server", &url];
    assert_eq!(desk.fails("", &elsewhere).0, 4);
    assert_eq!(desk.fails("", &["identity", "login", "nonsense"]).0, 2);
    let forged = format!("{}x", &token[..token.len() - 5]);
    assert_eq!(desk.fails("", &["identity", "login", &forged]).0, 5, "the server is asked");
    assert_eq!(desk.json("", &["identity", "show"])["identity"], first["identity"], "a failed login changes nothing");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_backup_of_a_working_server_restores_what_was_confirmed() {
    let (desk, server, _) = with_server();
    for number in 0..20 {
        desk.ok("", &["call", ".", "add", &format!("row {number}")]);
    }
    desk.ok("", &["fork", "create", ".", "exp1"]);
    // Somebody goes on writing while the copy is made.
    let (done, stop) = (std::sync::atomic::AtomicBool::new(false), std::sync::atomic::Ordering::Relaxed);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !done.load(stop) {
                desk.ok("", &["call", ".", "add", "later"]);
                written += 1;
            }
            written
        });
        let made = desk.json("", &["backup", "copy"]);
        assert_eq!(made["databases"][0]["name"], json!("notes"), "{made}");
        done.store(true, stop);
        writer.join().expect("it wrote")
    });
    assert_eq!(count(&desk), 20 + written);
    let mode = desk.path("copy").metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "the keys are in it");
    assert_eq!(server.stop(), 0);

    desk.ok("", &["restore", "copy", "--check"]);
    assert_eq!(desk.fails("", &["restore", "copy"]).0, 6, "data is there");
    assert_eq!(desk.fails("", &["backup", "copy"]).0, 6, "a backup is there");
    fs::rename(desk.path("data"), desk.path("lost")).expect("moved");
    assert!(desk.ok("", &["restore", "copy"]).starts_with("restored 1 database (notes"));
    let before = contents(&desk.path("copy"));
    let server = desk.start("", &["serve", "--listen", "127.0.0.1:0"]);
    server.next("listening");
    let restored = count(&desk);
    assert!((20..=20 + written).contains(&restored), "{restored} of {written}");
    desk.ok("", &["call", ".", "add", "after"]);
    assert_eq!(desk.json("", &["sql", "@exp1", "SELECT COUNT(*) AS n FROM row"])["rows"], json!([[20]]));
    assert_eq!(server.stop(), 0);
    assert_eq!(contents(&desk.path("copy")), before, "the backup is not touched");
    // The logs that were written on are logs.
    desk.ok("", &["doctor", "--skip-logs"]);
    let server = desk.start("", &["serve", "--listen", "127.0.0.1:0"]);
    server.next("listening");
    assert_eq!(count(&desk), restored + 1);
    assert_eq!(server.stop(), 0);
}

#[test]
fn damage_is_found_before_it_is_restored() {
    let (desk, server, _) = with_server();
    desk.ok("", &["call", ".", "add", "one"]);
    assert_eq!(server.stop(), 0);
    desk.ok("", &["backup", "good"]);
    let files = contents(&desk.path("good"));
    let names: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
    assert!(names.iter().any(|name| name.ends_with("keys/id_ecdsa")), "{names:?}");
    for (path, content) in &files {
        let mut changed = content.clone();
        match changed.last_mut() {
            Some(byte) => *byte ^= 1,
            None => changed.push(0),
        }
        fs::write(path, &changed).expect("written");
        for args in [&["restore", "good", "--check"][..], &["restore", "good", "--data-dir", "new"]] {
            let (status, error) = desk.fails("", args);
            assert!(matches!(status, 4 | 8), "{}: {status} {error}", path.display());
        }
        assert!(!desk.path("new").exists(), "{}", path.display());
        fs::write(path, content).expect("written");
    }
    fs::write(
        desk.path("good/backup.json"),
        fs::read_to_string(desk.path("good/backup.json")).expect("there").replace("VERSION", "../VERSION"),
    )
    .expect("written");
    let (_, error) = desk.fails("", &["restore", "good", "--data-dir", "new"]);
    assert!(error["message"].as_str().is_some_and(|message| message.contains("outside")), "{error}");
    fs::remove_file(desk.path("good/backup.json")).expect("removed");
    assert_eq!(desk.fails("", &["restore", "good", "--data-dir", "new"]).0, 4, "without its list it is no backup");

    desk.write("data/unknown/file", "x");
    let (status, error) = desk.fails("", &["backup", "other"]);
    assert_eq!((status, error["code"].as_str()), (8, Some("TN0857")), "{error}");
    assert_eq!(desk.fails("", &["backup", "data/inside"]).0, 2);
}

#[test]
fn the_doctor_finds_what_is_wrong() {
    let (desk, server, _) = with_server();
    desk.ok("", &["call", ".", "add", "one"]);
    let status = |checks: &Value, what: &str| -> String {
        let found = checks["checks"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|check| check["check"].as_str().is_some_and(|name| name.starts_with(what)));
        found.unwrap_or_else(|| panic!("no `{what}` in {checks}"))["status"].as_str().expect("text").to_owned()
    };
    let checks = desk.json("", &["doctor"]);
    for what in ["server", "data directory", "keys", "lock", "control", "database notes"] {
        assert_eq!(status(&checks, what), "ok", "{what}: {checks}");
    }
    assert_eq!(server.stop(), 0);
    let stopped = desk.command("", &["doctor", "--json"]).env("TINE_LISTEN", "127.0.0.1:0").output().expect("it runs");
    let checks: Value = serde_json::from_slice(&stopped.stdout).expect("JSON");
    assert_eq!(
        (stopped.status.code(), status(&checks, "server"), status(&checks, "address")),
        (Some(0), "warn".into(), "ok".into())
    );

    let doctor = || {
        let output =
            desk.command("", &["doctor", "--json"]).env("TINE_LISTEN", "127.0.0.1:0").output().expect("it runs");
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).expect("JSON"))
    };
    let token = desk.path("data/keys/admin-token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).expect("set");
    let (code, checks) = doctor();
    assert_eq!((code, status(&checks, "keys")), (Some(1), "fail".to_owned()));
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("set");

    // Damage in the middle of a log: many records follow.
    let log = contents(&desk.path("data/databases"))
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "log"));
    let log = log.filter(|(path, _)| path.parent().is_some_and(|folder| folder.ends_with("log"))).expect("a log");
    let mut damaged = log.1.clone();
    damaged[100] ^= 0xff;
    fs::write(&log.0, &damaged).expect("written");
    let before = contents(&desk.path("data"));
    let (code, checks) = doctor();
    assert_eq!((code, status(&checks, "database notes")), (Some(1), "fail".to_owned()), "{checks}");
    assert!(checks.to_string().contains("TN0203"), "{checks}");
    assert_eq!(contents(&desk.path("data")), before, "nothing is changed");
    fs::write(&log.0, &log.1).expect("written");
    desk.write("data/VERSION", "tine data directory 99\n");
    let (code, checks) = doctor();
    assert_eq!((code, status(&checks, "data directory")), (Some(1), "fail".to_owned()));
    let (status, error) = desk.fails("", &["backup", "copy"]);
    assert_eq!(status, 2, "{error}");
}

/// Stores are looked into under a live server, and damage is named.
#[test]
fn stores_are_checked_shown_and_printed() {
    let (desk, server, _) = with_server();
    for number in 0..5 {
        desk.ok("", &["call", ".", "add", &format!("row {number}")]);
    }
    let store = |checks: &Value| -> Vec<String> {
        let stores = checks["stores"].as_array().expect("a list").iter();
        stores.map(|store| format!("{} {}", store["store"].as_str().expect("text"), store["status"])).collect()
    };
    let checked = store(&desk.json("", &["store", "check"]));
    assert!(checked.len() == 2 && checked.iter().all(|store| store.ends_with("\"ok\"")), "{checked:?}");
    let stat = desk.json("", &["store", "stat"]);
    let database = stat["stores"].as_array().expect("a list").last().expect("a database");
    let folder = format!("data/{}", database["store"].as_str().expect("text"));
    let main = database["forks"].as_array().expect("a list").iter().find(|fork| fork["name"] == "main");
    let main = main.unwrap_or_else(|| panic!("{database}")).clone();
    let (head, rows) = (main["head"].as_u64().expect("a number"), main["rows"].as_u64().expect("a number"));
    assert!(head >= 5 && rows >= 5, "{main}");
    assert!(desk.ok("", &["store", "stat", &folder]).contains("main"));

    let lines = |args: &[&str]| -> Vec<Value> {
        let out = desk.ok("", &[&["store", "dump", &folder], args, &["--json"]].concat());
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let records = lines(&[]);
    let commits = records.iter().filter(|record| record["what"]["commit"]["version"]["fork"] == 1).count();
    assert_eq!(commits as u64, head, "every commit of the only fork is in the log");
    assert_eq!(lines(&["--from", "3", "--limit", "2"]), records[2..4]);
    let mut printed = 0;
    for keyspace in main["keyspaces"].as_array().expect("a list") {
        let found = lines(&["--keyspace", &keyspace["id"].to_string()]);
        assert_eq!(Some(found.len() as u64), keyspace["rows"].as_u64());
        assert!(found.iter().all(|row| row["key"].is_string() && row["value"].is_string()));
        printed += found.len() as u64;
    }
    assert_eq!(printed, rows);
    assert_eq!(desk.fails("", &["store", "dump", &folder, "--keyspace", "16", "--fork", "nobody"]).0, 4);
    assert_eq!(desk.fails("", &["store", "dump", "data"]).0, 4);
    assert_eq!(desk.fails("", &["store", "check", "home"]).0, 4);
    assert_eq!(server.stop(), 0);

    let log = desk.path(&folder).join("log/0000000001.log");
    let mut damaged = fs::read(&log).expect("read");
    damaged[4096 + 100] ^= 0xff;
    fs::write(&log, &damaged).expect("written");
    let before = contents(&desk.path("data"));
    let output = desk.run("", &["store", "check", "--json"]);
    let checks: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(1), "{checks}");
    let broken = checks["stores"].as_array().expect("a list").last().expect("a database");
    assert_eq!(
        (&broken["status"], &broken["code"], &broken["offset"]),
        (&json!("damaged"), &json!("TN0203"), &json!(4096))
    );
    assert!(broken["file"].as_str().is_some_and(|file| file.ends_with("log/0000000001.log")), "{broken}");
    let (status, error) = desk.fails("", &["store", "stat"]);
    assert_eq!((status, &error["code"]), (8, &json!("TN0203")));
    assert_eq!(contents(&desk.path("data")), before, "nothing is changed");
}

#[test]
fn codes_are_explained_and_shells_completed() {
    let desk = Desk::new();
    assert!(desk.ok("", &["explain", "tn601"]).starts_with("# TN0601: "));
    assert_eq!(desk.json("", &["explain", "TN0352"])["code"], json!("TN0352"));
    assert!(desk.json("", &["explain"])["codes"].as_array().is_some_and(|codes| codes.len() > 150));
    assert_eq!(desk.fails("", &["explain", "TN9999"]).0, 4);
    let (_, error) = desk.fails("", &["sql", "x", "SELECT 1", "--server", "http://127.0.0.1:9"]);
    let page = desk.ok("", &["explain", error["code"].as_str().expect("a code")]);
    assert!(page.contains("## Fix"), "{page}");
    for (shell, part) in [("bash", "_tine()"), ("zsh", "#compdef tine"), ("fish", "complete -c tine")] {
        assert!(desk.ok("", &["completions", shell]).contains(part), "{shell}");
    }
}
