//! A module that uses what the SDK has beside tables and reducers, on the real server: views of both kinds and forms, schedules,
//! requests, modules within modules, names and indexes of every kind. It is published as its source, which the SDK in the program
//! runs, and as a bundle with the npm SDK; both do the same.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread;

use bytes::Bytes;
use serde_json::{Value, json};
use tine_client::http::{CONTENT_TYPE_JAVASCRIPT, CONTENT_TYPE_SOURCE, HttpClient, PublishOptions};
use tine_client::protocol::{QueryRows, RowList, ServerMessage, TableUpdateRows};
use tine_client::{ConnectOptions, Connection};
use tine_module::SourceBundle;
use tine_tests::server::TestServer;
use tine_tests::{npm, skip, wait};
use tine_types::bsatn::{BsatnWrite, Reader};

/// The files of the module; the first is the entry.
const FILES: [(&str, &str); 3] = [
    ("index.ts", include_str!("../features/index.ts")),
    ("library.ts", include_str!("../features/library.ts")),
    ("inner.ts", include_str!("../features/inner.ts")),
];

/// The module in both forms: content type and program. Without npm packages only as source.
fn programs() -> Vec<(&'static str, Vec<u8>)> {
    static BUNDLE: OnceLock<Result<PathBuf, &str>> = OnceLock::new();
    let files = FILES.map(|(path, code)| (path.to_owned(), code.to_owned())).into();
    let source = SourceBundle { entry: FILES[0].0.to_owned(), files };
    let mut programs = vec![(CONTENT_TYPE_SOURCE, source.encode())];
    match BUNDLE.get_or_init(|| Ok(npm::bundle(&npm::folder()?, "features", &FILES))) {
        Ok(path) => programs.push((CONTENT_TYPE_JAVASCRIPT, std::fs::read(path).expect("the bundle is there"))),
        Err(missing) => skip(missing),
    }
    programs
}

struct Setup {
    server: TestServer,
    client: HttpClient,
    token: String,
}

/// A server for each form of the module.
fn setups(options: &[&str]) -> Vec<Setup> {
    let start = |(content_type, program): (&str, Vec<u8>)| {
        let server = TestServer::start_with(options);
        let (client, token) = server.newcomer();
        let publisher = server.anonymous().with_token(&token).with_admin_token(server.admin_token());
        publisher
            .publish(Some("features"), content_type, program, PublishOptions::default())
            .unwrap_or_else(|error| panic!("{content_type}: {error}"));
        Setup { server, client, token }
    };
    programs().into_iter().map(start).collect()
}

impl Setup {
    fn call(&self, function: &str, arguments: Value) -> Value {
        let called = self.client.call("features", function, &arguments);
        called.unwrap_or_else(|error| panic!("{function}: {error}")).value.unwrap_or_default()
    }

    /// The rows of a SELECT as JSON, sorted.
    fn sql(&self, database: &str, statement: &str) -> Vec<String> {
        let results = self.client.sql(database, statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        let mut rows: Vec<String> = results[0].rows.iter().map(|row| Value::from(row.clone()).to_string()).collect();
        rows.sort();
        rows
    }

    fn notes(&self) -> Vec<String> {
        self.sql("features", "SELECT text FROM note")
    }

    async fn connect(&self, database: &str) -> Connection {
        let options = ConnectOptions::new(self.server.url(), database).with_token(&self.token).with_confirmed(false);
        Connection::connect(options).await.expect("connected")
    }
}

/// The string behind the leading bytes of each row.
fn names(rows: &RowList, skipped: usize) -> Vec<String> {
    let mut names: Vec<String> =
        rows.rows().map(|row| Reader::new(&row[skipped..]).str().expect("a string").to_owned()).collect();
    names.sort();
    names
}

fn of(rows: &QueryRows, skipped: usize) -> Vec<String> {
    rows.tables.iter().flat_map(|table| names(&table.rows, skipped)).collect()
}

/// The next update as `+name` and `-name`.
async fn update(connection: &mut Connection, skipped: usize) -> Vec<String> {
    loop {
        let ServerMessage::TransactionUpdate(update) = connection.recv().await.expect("a message") else { continue };
        let mut changes = Vec::new();
        for table in update.query_sets.iter().flat_map(|set| &set.tables) {
            match &table.rows {
                TableUpdateRows::Persistent { inserts, deletes } => {
                    changes.extend(names(deletes, skipped).iter().map(|name| format!("-{name}")));
                    changes.extend(names(inserts, skipped).iter().map(|name| format!("+{name}")));
                }
                TableUpdateRows::Event { events } => {
                    changes.extend(names(events, skipped).iter().map(|name| format!("!{name}")));
                }
            }
        }
        return changes;
    }
}

/// A row of `players` begins with a number and an identity.
const PLAYER: usize = 4 + 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_are_followed() {
    for setup in tokio::task::block_in_place(|| setups(&[])) {
        check_views_are_followed(setup).await;
    }
}

async fn check_views_are_followed(setup: Setup) {
    let call = |function: &str, arguments: Value| tokio::task::block_in_place(|| setup.call(function, arguments));
    call("enter", json!([1, "Ada", 3]));
    call("enter", json!([2, "Ben", 7]));
    let mut strong = setup.connect("features").await;
    assert_eq!(of(&strong.subscribe(1, &["SELECT * FROM strong_players"]).await.expect("applied"), 4), ["Ben"]);
    let mut weak = setup.connect("features").await;
    assert_eq!(of(&weak.subscribe(1, &["SELECT * FROM \"weak\""]).await.expect("applied"), PLAYER), ["Ada"]);
    let mut friends = setup.connect("features").await;
    assert_eq!(of(&friends.subscribe(1, &["SELECT * FROM friends"]).await.expect("applied"), PLAYER), [""; 0]);

    call("enter", json!([3, "Cid", 5]));
    assert_eq!(update(&mut strong, 4).await, ["+Cid"]);
    call("train", json!([1, 8]));
    assert_eq!(update(&mut strong, 4).await, ["+Ada"]);
    assert_eq!(update(&mut weak, PLAYER).await, ["-Ada"]);
    call("befriend", json!([1, 2]));
    assert_eq!(update(&mut friends, PLAYER).await, ["+Ben"]);
    call("train", json!([2, 9]));
    assert_eq!(update(&mut friends, PLAYER).await, ["-Ben", "+Ben"]);
    assert_eq!(update(&mut strong, 4).await, ["-Ben", "+Ben"]);
    assert_eq!(call("climb", json!([3])), json!("060707"), "bytes are hexadecimal in JSON");
    assert_eq!(update(&mut strong, 4).await, ["-Cid", "+Cid"]);
    assert_eq!(update(&mut strong, 4).await, ["-Cid", "+Cid"]);

    let sql = |database: &str, text: &str| tokio::task::block_in_place(|| setup.sql(database, text));
    assert_eq!(sql("features", "SELECT name FROM me"), [r#"["Ada"]"#]);
    assert_eq!(sql("features", "SELECT name FROM writer"), [r#"["TransactionIsReadOnly"]"#]);
    assert_eq!(sql("features", "SELECT name FROM strong_players WHERE level > 7"), [r#"["Ada"]"#, r#"["Ben"]"#]);
    let joined = "SELECT p.name FROM strong_players AS s JOIN players AS p ON s.id = p.id WHERE s.level < 9";
    assert_eq!(sql("features", joined), [r#"["Ada"]"#, r#"["Cid"]"#]);
    tokio::task::block_in_place(|| setup.client.create_fork("features", "exp", true)).expect("forked");
    let mut there = setup.connect("features@exp").await;
    assert_eq!(
        of(&there.subscribe(1, &["SELECT * FROM strong_players"]).await.expect("applied"), 4),
        ["Ada", "Ben", "Cid"]
    );
    tokio::task::block_in_place(|| setup.client.call("features@exp", "train", &json!([1, 1]))).expect("trained");
    assert_eq!(update(&mut there, 4).await, ["-Ada"]);
    assert_eq!(sql("features", "SELECT name FROM strong_players WHERE id = 1"), [r#"["Ada"]"#]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_indexes_events_and_hooks_are_those_declared() {
    for setup in tokio::task::block_in_place(|| setups(&[])) {
        check_names_indexes_events_and_hooks_are_those_declared(setup).await;
    }
}

async fn check_names_indexes_events_and_hooks_are_those_declared(setup: Setup) {
    let call = |function: &str, arguments: Value| tokio::task::block_in_place(|| setup.call(function, arguments));
    for (id, name, level) in [(1, "Ada", 1), (2, "Ben", 9), (3, "Cid", 5), (4, "Dot", 12)] {
        call("enter", json!([id, name, level]));
    }
    call("checkIndexes", json!([]));
    call("check_indexes", json!([]));
    let mut listener = setup.connect("features").await;
    assert_eq!(of(&listener.subscribe(1, &["SELECT * FROM heard"]).await.expect("applied"), 0), [""; 0]);
    call("shout_out", json!(["hello"]));
    assert_eq!(update(&mut listener, 0).await, ["!hello"]);
    call("shout", json!(["again"]));
    assert_eq!(update(&mut listener, 0).await, ["!again"]);
    let refused =
        tokio::task::block_in_place(|| setup.client.call("features", "whoAmI", &json!([])).expect_err("it throws"));
    assert_eq!(refused.to_string(), "false localhost true");
    let logged = tokio::task::block_in_place(|| setup.client.logs("features", None)).expect("a log");
    assert!(logged.iter().any(|record| record.message.starts_with("claims: ")), "the timer's line");
    let indexes = tokio::task::block_in_place(|| setup.sql("features", "SELECT index_name FROM st_index"));
    assert!(indexes.iter().any(|name| name.contains("level_of_players")), "{indexes:?}");

    call("enter", json!([5, "banned", 1]));
    let options = ConnectOptions::new(setup.server.url(), "features").with_token(&setup.token);
    assert!(Connection::connect(options).await.is_err(), "its hook refuses the client");
    let refused =
        tokio::task::block_in_place(|| setup.client.call("features", "shout", &json!(["x"])).expect_err("refused"));
    assert_eq!((refused.status(), refused.to_string()), (Some(403), "you are banned".to_owned()));
}

#[test]
fn schedules_keep_and_delete_their_rows_as_they_should() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut request, mut bytes) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"ping") {
                match stream.read(&mut bytes) {
                    Ok(count) if count > 0 => request.extend_from_slice(&bytes[..count]),
                    _ => break,
                }
            }
            let is_chore = String::from_utf8_lossy(&request).to_ascii_lowercase().contains("x-from: chore");
            let head = "HTTP/1.1 200 OK\r\nx-to: features\r\nconnection: close\r\ncontent-length: 4\r\n\r\n";
            // The other side may be gone.
            let _ = stream.write_all(format!("{head}{}", if is_chore { "pong" } else { "what" }).as_bytes());
        }
    });
    for setup in setups(&["--allow-http", &format!("http://{address}")]) {
        check_schedules(&setup, &format!("http://{address}/x"));
    }
}

fn check_schedules(setup: &Setup, allowed: &str) {
    setup.call("setAlarm", json!(["once"]));
    wait::until_true("the alarm", || setup.notes() == [r#"["rang once true true null"]"#]);
    wait::until_true("its row to go", || setup.call("countAlarms", json!([])) == json!(0));
    setup.call("setAlarm", json!(["fail"]));
    wait::until_true("a failed one to go", || setup.call("countAlarms", json!([])) == json!(0));
    assert_eq!(setup.notes().len(), 1, "what it wrote is undone");
    setup.call("setChore", json!([allowed]));
    wait::until_true("the chore", || setup.notes().contains(&r#"["chore true 200 pong features"]"#.to_owned()));
    setup.call("setChore", json!(["http://127.0.0.1:1/"]));
    wait::until_true("the refused one", || {
        setup
            .notes()
            .iter()
            .any(|note| note.starts_with(r#"["chore true true requests to http://127.0.0.1 are not allowed"#))
    });

    // A fork is quiet: it neither rings nor sends.
    setup.client.create_fork("features", "quiet", true).expect("forked");
    setup.client.call("features@quiet", "setAlarm", &json!(["there"])).expect("set");
    assert_eq!(setup.client.call("features@quiet", "countAlarms", &json!([])).expect("counted").value, Some(json!(1)));
    setup.client.resume_fork("features", "quiet").expect("resumed");
    wait::until_true("the fork's alarm", || {
        setup.sql("features@quiet", "SELECT text FROM note").contains(&r#"["rang there true true null"]"#.to_owned())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modules_are_used_within_modules() {
    for setup in tokio::task::block_in_place(|| setups(&[])) {
        check_modules_are_used_within_modules(setup).await;
    }
}

async fn check_modules_are_used_within_modules(setup: Setup) {
    let call = |function: &str, arguments: Value| tokio::task::block_in_place(|| setup.call(function, arguments));
    let mut loud = setup.connect("features").await;
    loud.subscribe(1, &["SELECT * FROM \"lib\".\"loud\""]).await.expect("applied");
    call("useLibrary", json!([]));
    assert_eq!(update(&mut loud, 4).await, ["+DIRECT"]);
    call("lib.writeEntry", json!(["CALLED"]));
    assert_eq!(update(&mut loud, 4).await, ["+CALLED"]);
    call("lib.write_entry", json!(["by its other name"]));
    call("lib.inner.dive", json!([7]));
    let sql = |text: &str| tokio::task::block_in_place(|| setup.sql("features", text));
    assert_eq!(sql("SELECT value FROM lib.inner.deep"), ["[7]"]);
    // That module keeps its names as they are written.
    call("lib.inner.goDeeper", json!([8]));
    assert_eq!(sql("SELECT \"newValue\" FROM lib.inner.\"evenDeeper\""), ["[8]"]);
    for wrong in ["SELECT * FROM lib.inner.even_deeper", "SELECT new_value FROM lib.inner.evenDeeper"] {
        let refused = tokio::task::block_in_place(|| setup.client.sql("features", wrong));
        assert_eq!(refused.expect_err(wrong).status(), Some(400));
    }
    tokio::task::block_in_place(|| {
        wait::until_true("the library's schedule", || {
            setup.sql("features", "SELECT id FROM lib.entry WHERE text = 'ticked'").len() == 2
        });
    });
    assert_eq!(sql("SELECT COUNT(*) AS n FROM lib.quiet"), ["[5]"]);
    assert_eq!(call("lib.countEntries", json!([])), json!(6));
    let mut arguments = Vec::new();
    arguments.put_str("over the socket");
    let mut caller = setup.connect("features").await;
    caller.call_reducer("lib.write_entry", Bytes::from(arguments)).await.expect("called");
    assert_eq!(sql("SELECT text FROM lib.entry WHERE text = 'over the socket'").len(), 1);
}
