//! Modules written for the npm server SDK and bundled as its tool chain does it: they run unchanged, survive what other modules
//! survive, and load from compiled code after a restart.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use serde_json::json;
use tine_client::{
    CallFailure, ClientError, ConnectOptions, Connection,
    http::{CONTENT_TYPE_JAVASCRIPT, HttpClient, JsonLines, PublishOptions, RedoLine, RedoOptions},
};
use tine_module::SourceBundle;
use tine_tests::{
    command::{run, run_within, tine},
    npm, rows,
    server::TestServer,
    skip, wait,
};

/// How long all cases of the SDK's client may take together.
const SDK_LIMIT: Duration = Duration::from_secs(120);

/// The bundle of `tests/bundle`, made once; `None` skips the test.
fn bundle() -> Option<&'static (PathBuf, PathBuf)> {
    static BUNDLE: OnceLock<Result<(PathBuf, PathBuf), &str>> = OnceLock::new();
    let made = BUNDLE.get_or_init(|| {
        let folder = npm::folder()?;
        let files =
            [("index.ts", include_str!("../bundle/index.ts")), ("assert.ts", include_str!("../bundle/assert.ts"))];
        let bundle = npm::bundle(&folder, "everything", &files);
        Ok((folder, bundle))
    });
    match made {
        Ok(made) => Some(made),
        Err(missing) => {
            skip(missing);
            None
        }
    }
}

/// Publishes a bundle as a new database with a new owner.
fn publish(server: &TestServer, name: &str, bundle: &Path) -> Result<(HttpClient, String), ClientError> {
    let (client, token) = server.newcomer();
    let publisher = server.anonymous().with_token(&token).with_admin_token(server.admin_token());
    let program = std::fs::read(bundle).expect("the bundle is there");
    publisher.publish(Some(name), CONTENT_TYPE_JAVASCRIPT, program, PublishOptions::default())?;
    Ok((client, token))
}

/// Every reducer and procedure of the module that checks a feature.
const CHECKS: [&str; 7] = [
    "check_types",
    "check_generated",
    "check_indexes",
    "check_errors",
    "check_iteration",
    "check_context",
    "check_transactions",
];

#[test]
fn every_feature_works_on_main_and_on_a_fork() {
    let Some((_, bundle)) = bundle() else { return };
    let server = TestServer::shared();
    let (client, _) = publish(server, "features", bundle).expect("published");
    client.create_fork("features", "exp1", false).expect("forked");
    for database in ["features", "features@exp1"] {
        for check in CHECKS {
            client.call(database, check, &json!([])).unwrap_or_else(|error| {
                let logs = client.logs(database, Some(5)).expect("logs");
                panic!("{database} {check}: {error}\n{logs:?}")
            });
        }
        // Once more, now that the instance has worked: nothing may depend on a fresh one.
        client.call(database, "check_indexes", &json!([])).expect("again");
    }
}

#[test]
fn a_definition_in_the_older_format_is_accepted() {
    let folder = match npm::folder() {
        Ok(folder) => folder,
        Err(missing) => return skip(missing),
    };
    let bundle = npm::bundle(&folder, "nine", &[("index.ts", include_str!("../bundle/nine.ts"))]);
    let server = TestServer::shared();
    let (client, _) = publish(server, "nine", &bundle).expect("published");
    client.call("nine", "AddPerson", &json!({ "fullName": "Bo" })).expect("added");
    let refused = client.call("nine", "AddPerson", &json!([""])).expect_err("refused");
    assert_eq!((refused.status(), refused.to_string().as_str()), (Some(530), "a name is needed"));
    // Its names are what they are: nothing is converted.
    let people = client.sql("nine", "SELECT \"fullName\" FROM \"Person\" WHERE id = 2").expect("the query runs");
    assert_eq!(people[0].rows, [[json!("Bo")]]);
    assert_eq!(client.call("nine", "CountPeople", &json!([])).expect("counted").value, Some(json!(2)));
    assert_eq!(client.call("nine", "add_person", &json!(["Cy"])).expect_err("no such name").status(), Some(404));
}

#[test]
fn the_npm_client_works_with_a_bundle_on_main_and_on_a_fork() {
    let Some((folder, bundle)) = bundle() else { return };
    let server = TestServer::start();
    let (client, _) = publish(&server, "sdk", bundle).expect("published");
    client.create_fork("sdk", "exp1", false).expect("forked");
    let ran = run_within(npm::node(folder).args(["sdk.mjs", server.url(), "sdk", "sdk@exp1"]), SDK_LIMIT);
    let passed = ran.stdout.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(ran.status == 0 && passed > 30, "{}\n{}", ran.stdout, ran.stderr);
}

#[tokio::test]
async fn the_module_learns_who_calls() {
    let Some((_, bundle)) = bundle() else { return };
    let server = TestServer::shared();
    let (_, token) = publish(server, "callers", bundle).expect("published");
    let options = ConnectOptions::new(server.url(), "callers").with_token(&token);
    let mut owner = Connection::connect(options.clone()).await.expect("connected");
    let hex = owner.identity().to_hex();
    owner.call_reducer("check_token", rows::text(&hex)).await.expect("its own token");
    let other = ConnectOptions::new(server.url(), "callers");
    let mut other = Connection::connect(other).await.expect("connected");
    let refused = other.call_reducer("check_token", rows::text(&hex)).await;
    assert!(matches!(refused, Err(ClientError::Call { failure: CallFailure::Internal, .. })), "{refused:?}");
    let visits = other.one_off_query("SELECT * FROM visit").await.expect("the query runs");
    assert_eq!(visits.tables[0].rows.len(), 2, "one for each connection");
}

#[test]
fn failures_leave_nothing_and_say_where() {
    let Some((_, bundle)) = bundle() else { return };
    let server = TestServer::shared();
    let (client, _) = publish(server, "failures", bundle).expect("published");
    let message = |function: &str, arguments| match client.call("failures", function, &arguments) {
        Err(ClientError::Refused { status: 530, message, .. }) => message,
        other => panic!("{function}: {other:?}"),
    };
    assert_eq!(message("refuse", json!(["because"])), "because");
    assert!(!message("trap", json!([])).contains("on purpose"), "internal errors are not for callers");
    assert!(message("spin", json!([])).contains("time"));
    client.call("failures", "noop", &json!([])).expect("the next call works");
    client.call("failures", "later", &json!(["afterwards"])).expect("a promise's work is part of its call");
    let count = client.call("failures", "population", &json!([])).expect("counted");
    assert_eq!(count.value.expect("a result"), json!(1), "only what `later` wrote");

    let logs = client.logs("failures", None).expect("logs");
    let trapped = logs.iter().find(|line| line.message.contains("trapped on purpose")).expect("logged");
    assert_eq!(trapped.filename.as_deref(), Some("src/index.ts"), "{trapped:?}");
    let line = trapped.line_number.expect("a line") as usize;
    let source = include_str!("../bundle/index.ts").lines().nth(line - 1).expect("the line exists");
    assert!(source.contains("trapped on purpose"), "{line}: {source}");
}

#[test]
fn schedules_run_reducers_and_procedures() {
    let Some((_, bundle)) = bundle() else { return };
    let server = TestServer::shared();
    let (client, _) = publish(server, "schedules", bundle).expect("published");
    client.call("schedules", "remind", &json!(["soon"])).expect("scheduled");
    wait::until_true("both to run", || {
        let rows = client.sql("schedules", "SELECT COUNT(*) AS n FROM reminded").expect("counted");
        rows[0].rows[0][0] == json!(2)
    });
    let left = client.sql("schedules", "SELECT COUNT(*) AS n FROM reminder").expect("counted");
    assert_eq!(left[0].rows[0][0], json!(0), "entries that ran are gone");
}

#[test]
fn the_command_line_publishes_a_bundle_by_its_file() {
    let Some((_, bundle)) = bundle() else { return };
    let server = TestServer::shared();
    let data = server.data();
    let command = |arguments: &[&str]| {
        let mut command = tine(server.folder());
        command.args(arguments).args(["--server", server.url()]).arg("--data-dir").arg(&data);
        run(&mut command)
    };
    command(&["publish", "by-file", &bundle.display().to_string()]).expect(0);
    command(&["call", "by-file", "say", "\"from the command line\""]).expect(0);
    let logs = command(&["logs", "by-file"]).expect(0);
    assert!(logs.stdout.contains("from the command line { nested: [ 1, 2n ] }"), "{}", logs.stdout);
}

#[test]
fn a_restart_uses_compiled_code_and_mends_what_was_changed() {
    let Some((_, bundle)) = bundle() else { return };
    let mut server = TestServer::start();
    let (client, token) = publish(&server, "kept", bundle).expect("published");
    client.call("kept", "noop", &json!([])).expect("called");
    let directory = server.data().join("cache/code");
    let entries = || -> Vec<PathBuf> {
        let files = std::fs::read_dir(&directory).expect("the cache is there").map(|entry| entry.expect("read").path());
        files.filter(|path| path.file_name().is_some_and(|name| name != "key")).collect()
    };
    let [entry] = &entries()[..] else { panic!("one bundle, one entry: {:?}", entries()) };
    let intact = std::fs::read(entry).expect("readable");
    let changed = |place: usize| {
        let mut bytes = intact.clone();
        bytes[place] ^= 1;
        bytes
    };
    // Whole; torn; changed where the engine would read bytecode; gone.
    let states =
        [Some(intact.clone()), Some(intact[..intact.len() / 2].to_vec()), Some(changed(intact.len() - 100)), None];
    for state in states {
        server.stop();
        match &state {
            Some(bytes) => std::fs::write(entry, bytes).expect("written"),
            None => std::fs::remove_file(entry).expect("removed"),
        }
        server.restart();
        let client = server.anonymous().with_token(&token);
        client.call("kept", "check_generated", &json!([])).expect("it runs as before");
        assert_eq!(entries(), std::slice::from_ref(entry));
        assert_eq!(std::fs::read(entry).expect("readable"), intact, "mended");
    }
}

/// A module of a few lines behind the imports that all of them need.
fn small(folder: &Path, name: &str, code: &str) -> PathBuf {
    let source = format!(
        "import {{ errors, schema, SenderError, t, table }} from \"spacetimedb/server\";\n\
         const item = table({{ public: true }}, {{ id: t.u32().primaryKey() }});\n\
         const db = schema({{ item }});\nexport default db;\n{code}\n"
    );
    npm::bundle(folder, name, &[("index.ts", &source)])
}

#[test]
fn what_cannot_run_is_refused_when_it_is_published() {
    let Some((folder, _)) = bundle() else { return };
    let server = TestServer::shared();
    let view = "export const all = db.view({ name: \"item\", public: true }, t.array(item.rowType), ctx => [...ctx.db.item.iter()]);";
    let cases = [
        ("a-view", view, "TN0511", "the name of a table"),
        ("throwing", "throw new Error(\"at the top\");", "TN0520", "at the top"),
        ("not-exported", "export const helper = 5;", "TN0520", ""),
        ("waiting", "await new Promise(() => {});", "TN0520", "never happens"),
        ("random", "export const seed = Math.random();", "TN0520", "ctx.random"),
        ("early", "ITEM.count();\nvar ITEM: any;", "TN0520", ""),
        ("bad-init", "export const init = db.init(() => { throw new Error(\"not today\"); });", "TN0608", ""),
        (
            "refusing-init",
            "export const init = db.init(() => { throw new SenderError(\"not today\"); });",
            "TN0608",
            "not today",
        ),
    ];
    for (name, code, expected, words) in cases {
        let refused = publish(server, name, &small(folder, name, code));
        let Err(ClientError::Refused { server_code, message, .. }) = &refused else { panic!("{name}: {refused:?}") };
        assert_eq!(server_code.as_deref(), Some(expected), "{name}: {message}");
        assert!(message.contains(words), "{name}: {message}");
        let missing = server.anonymous().database_json(name).expect_err("nothing was made");
        assert_eq!(missing.status(), Some(404), "{name}: {missing}");
    }
    // The name is free.
    publish(server, "bad-init", &small(folder, "good-init", "export const init = db.init(() => {});"))
        .expect("published");
}

#[test]
fn a_call_queued_by_the_module_runs_after_it_whatever_becomes_of_it() {
    let Some((folder, _)) = bundle() else { return };
    let server = TestServer::shared();
    let code = "import { volatile_nonatomic_schedule_immediate as queueCall } from \"spacetime:sys@2.0\";\n\
        export const put = db.reducer({ id: t.u32() }, (ctx, { id }) => { ctx.db.item.insert({ id }); });\n\
        export const queue = db.reducer(() => {\n\
          queueCall(\"put\", Uint8Array.of(7, 0, 0, 0));\n\
          try { queueCall(\"nothing\", new Uint8Array()); } catch (error) {\n\
            if (error instanceof errors.HostCallFailure) throw new SenderError(\"queued all the same\");\n\
          }\n\
        });";
    let (client, _) = publish(server, "queued", &small(folder, "queued", code)).expect("published");
    let refused = client.call("queued", "queue", &json!([])).expect_err("it throws");
    assert_eq!(refused.to_string(), "queued all the same");
    wait::until_true("the queued call", || {
        let rows = client.sql("queued", "SELECT id FROM item").expect("read");
        rows[0].rows == [[json!(7)]]
    });
}

#[test]
fn a_new_bundle_replaces_the_old_and_a_bad_one_does_not() {
    let Some((folder, _)) = bundle() else { return };
    let server = TestServer::shared();
    let first = small(
        folder,
        "first",
        "export const put = db.reducer({ id: t.u32() }, (ctx, { id }) => { ctx.db.item.insert({ id }); });",
    );
    let (_, token) = publish(server, "replaced", &first).expect("published");
    let client = server.anonymous().with_token(&token);
    client.call("replaced", "put", &json!([1])).expect("put");
    let again = |code: &str, name: &str| {
        let program = std::fs::read(small(folder, name, code)).expect("read");
        client.publish(Some("replaced"), CONTENT_TYPE_JAVASCRIPT, program, PublishOptions::default())
    };
    again("throw new Error(\"broken\");", "broken").expect_err("refused");
    client.call("replaced", "put", &json!([2])).expect("the old one still runs");
    again("export const drop = db.reducer(ctx => { ctx.db.item.clear(); });", "second").expect("published");
    client.call("replaced", "put", &json!([3])).expect_err("it is gone");
    let count = client.sql("replaced", "SELECT COUNT(*) AS n FROM item").expect("counted");
    assert_eq!(count[0].rows[0][0], json!(2), "data stays");
    client.call("replaced", "drop", &json!([])).expect("the new one runs");
}

/// What running a range again came to, by function and outcome.
fn outcomes(lines: JsonLines<RedoLine>) -> (BTreeMap<String, BTreeMap<String, u64>>, serde_json::Value) {
    let report = lines.filter_map(|line| match line.expect("a line") {
        RedoLine::Report(report) => Some(report),
        RedoLine::Progress(_) => None,
        RedoLine::Error { code, message } => panic!("{code}: {message}"),
    });
    let report = report.last().expect("a report");
    let functions = report["functions"].as_object().expect("functions").iter();
    let counted = functions.map(|(name, function)| {
        let outcomes = serde_json::from_value(function["outcomes"].clone()).expect("numbers by outcome");
        (name.clone(), outcomes)
    });
    (counted.collect(), report)
}

#[test]
fn what_an_instance_rolled_before_is_not_reproducible_and_never_different() {
    let Some((folder, _)) = bundle() else { return };
    let server = TestServer::start();
    let module = |note: &str| {
        format!(
            "import {{ schema, t, table }} from \"spacetimedb/server\";\n\
             const roll = table({{ public: true }}, {{ id: t.u64().primaryKey().autoInc(), value: t.u32() }});\n\
             const note = table({{ public: true }}, {{ id: t.u64().primaryKey().autoInc(), text: t.string(), at: t.f64() }});\n\
             const db = schema({{ roll, note }});\nexport default db;\n\
             export const dice = db.reducer(ctx => {{\n\
               ctx.db.roll.insert({{ id: 0n, value: ctx.random.integerInRange(0, 1_000_000_000) }});\n\
             }});\n\
             export const write = db.reducer({{ text: t.string() }}, (ctx, {{ text }}) => {{\n\
               ctx.db.note.insert({{ id: 0n, text: {note}, at: Date.now() }});\n\
             }});\n"
        )
    };
    let bundled = |name: &str, note: &str| npm::bundle(folder, name, &[("index.ts", &module(note))]);
    let (client, _) = publish(&server, "dice", &bundled("dice", "text")).expect("published");
    const ROLLS: u64 = 8;
    for number in 0..ROLLS {
        client.call("dice", "dice", &json!([])).expect("rolled");
        client.call("dice", "write", &json!([format!("note {number}")])).expect("written");
    }
    let of = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
        pairs.iter().map(|(outcome, count)| ((*outcome).to_owned(), *count)).collect()
    };
    // The first roll was the first of its instance, so that a fresh one does it again; later ones depended on those before.
    let rolls = of(&[("same", 1), ("not_reproducible", ROLLS - 1)]);
    let (verified, report) = outcomes(client.verify("dice", &RedoOptions::default()).expect("verified"));
    assert_eq!((&verified["dice"], &verified["write"]), (&rolls, &of(&[("same", ROLLS)])), "{report}");
    assert_eq!((&report["differences"], &report["ran_in"]), (&json!(0), &json!("workers")), "{report}");

    let replay = |name: &str, program: Option<Vec<u8>>| {
        outcomes(client.replay("dice", name, &RedoOptions::default(), program, false).expect("replayed"))
    };
    let (same_code, report) = replay("again", None);
    assert_eq!((&same_code["dice"], &same_code["write"]), (&rolls, &of(&[("same", ROLLS)])), "{report}");

    let text = std::fs::read_to_string(bundled("dice-loud", "text + \"!\"")).expect("the bundle is there");
    let other = SourceBundle::single("bundle.js", text).encode();
    let (other_code, report) = replay("loud", Some(other));
    assert_eq!((&other_code["dice"], &other_code["write"]), (&rolls, &of(&[("different", ROLLS)])), "{report}");
    let loud = client.sql("dice@loud", "SELECT text FROM note WHERE id = 1").expect("read");
    assert_eq!(loud[0].rows, [[json!("note 0!")]]);
}
