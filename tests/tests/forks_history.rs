//! Forks of the past, forks that expire, names that move, schedules that are resumed, clients that are left behind.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tine_client::{
    ClientError, ConnectOptions, Connection,
    http::{Fork, ForkOptions, ForkPoint, HttpClient},
};
use tine_tests::{
    command::{Ran, run, tine},
    keep::TestDirectory,
    rows,
    server::TestServer,
    wait,
};
use tine_types::Timestamp;

#[track_caller]
fn sql(client: &HttpClient, database: &str, statement: &str) -> Vec<Vec<Value>> {
    client.sql(database, statement).expect("the query runs").remove(0).rows
}

#[track_caller]
fn names(client: &HttpClient, database: &str) -> Vec<String> {
    let rows = sql(client, database, "SELECT name FROM person");
    let mut names: Vec<String> = rows.iter().map(|row| row[0].as_str().expect("a name").to_owned()).collect();
    names.sort();
    names
}

fn add(client: &HttpClient, database: &str, name: &str) -> u64 {
    client.call(database, "add", &json!([name, 1])).expect("added");
    let (name, fork) = database.split_once('@').unwrap_or((database, "main"));
    client.fork(name, fork).expect("shown").head
}

fn at(point: ForkPoint) -> ForkOptions {
    ForkOptions { at: Some(point), ..ForkOptions::default() }
}

#[track_caller]
fn refused(result: Result<Fork, ClientError>) -> (Option<u16>, String) {
    let error = result.expect_err("refused");
    (error.status(), error.shown_code().to_owned())
}

async fn connect(server: &TestServer, database: &str) -> Connection {
    Connection::connect(ConnectOptions::new(server.url(), database)).await.expect("connected")
}

async fn closed_with_1001(connection: &mut Connection) {
    loop {
        match connection.recv().await {
            Ok(_) => {}
            Err(ClientError::Closed { close_code: Some(1001), .. }) => return,
            other => panic!("{other:?}"),
        }
    }
}

fn now_text() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_micros(now.as_micros() as i64).to_rfc3339()
}

#[test]
fn forks_start_at_any_lsn_or_time() {
    let mut server = TestServer::start();
    let owned = server.publish_probe("past");
    let client = &owned.client;
    let people: Vec<String> = (0..30).map(|number| format!("p{number:02}")).collect();
    let mut points = Vec::new();
    for (number, name) in people.iter().enumerate() {
        let lsn = add(client, "past", name);
        if number % 10 == 4 {
            std::thread::sleep(Duration::from_millis(20));
            points.push((lsn, now_text(), number + 1));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let check = |client: &HttpClient, suffix: &str| {
        for (lsn, time, count) in &points {
            let by_lsn = format!("lsn-{lsn}{suffix}");
            let fork = client.create_fork_with("past", &by_lsn, &at(ForkPoint::Lsn(*lsn))).expect("forked");
            assert_eq!((fork.head, fork.parent.map(|parent| parent.lsn)), (*lsn, Some(*lsn)));
            let by_time = format!("time-{lsn}{suffix}");
            let fork = client.create_fork_with("past", &by_time, &at(ForkPoint::Time(time.clone()))).expect("forked");
            assert_eq!(fork.head, *lsn, "{time}");
            for fork in [by_lsn, by_time] {
                let database = format!("past@{fork}");
                assert_eq!(names(client, &database), people[..*count], "{fork}");
                // It is a database like any other, at once (G8).
                assert!(add(client, &database, "own") > *lsn);
            }
        }
    };
    check(client, "");
    // The past of a fork is its parent's as well.
    let (lsn, _, count) = &points[0];
    let child = format!("past@lsn-{}", points[2].0);
    let fork = client.create_fork_with(&child, "nephew", &at(ForkPoint::Lsn(*lsn))).expect("forked");
    assert_eq!(fork.parent.expect("a parent").fork, json!("main"), "that version is one of main's");
    assert_eq!(names(client, "past@nephew"), people[..*count]);

    let create = |client: &HttpClient, database: &str, options: &ForkOptions| {
        refused(client.create_fork_with(database, "never", options))
    };
    assert_eq!(create(client, "past", &at(ForkPoint::Lsn(0))), (Some(400), "TN0619".to_owned()));
    assert_eq!(create(client, "past", &at(ForkPoint::Lsn(9_999))), (Some(400), "TN0241".to_owned()));
    let future = ForkPoint::Time("2999-01-01T00:00:00Z".to_owned());
    assert_eq!(create(client, "past", &at(future)), (Some(400), "TN0630".to_owned()));
    let before = ForkPoint::Time("1999-01-01T00:00:00Z".to_owned());
    assert_eq!(create(client, "past", &at(before)), (Some(400), "TN0619".to_owned()), "the empty state has no module");
    let nonsense = ForkPoint::Time("yesterday".to_owned());
    assert_eq!(create(client, "past", &at(nonsense)), (Some(400), "TN0724".to_owned()));
    let options = ForkOptions { disconnect_clients: true, ..at(ForkPoint::Lsn(*lsn)) };
    assert_eq!(create(client, "past", &options), (Some(400), "TN0631".to_owned()));

    // An ephemeral fork is not logged: between its origin and its head nothing is kept.
    client.create_fork("past", "mist", true).expect("forked");
    for name in ["a", "b", "c"] {
        add(client, "past@mist", name);
    }
    let shown = client.fork("past", "mist").expect("shown");
    assert_eq!(create(client, "past@mist", &at(ForkPoint::Lsn(shown.head - 1))), (Some(410), "TN0240".to_owned()));
    client.create_fork_with("past@mist", "older", &at(ForkPoint::Lsn(*lsn))).expect("main's past is kept");

    server.kill();
    server.restart();
    let client = &server.anonymous().with_token(&owned.token);
    check(client, "-again");
    assert_eq!(names(client, "past@nephew"), people[..*count]);
    assert_eq!(client.fork("past", "main").expect("shown").oldest, 0);
}

#[test]
fn an_older_version_brings_its_own_module() {
    let server = TestServer::shared();
    let source = |number: u32| {
        tine_tests::server::single_file(&format!(
            "import {{ schema, t }} from 'tine:server';\nconst s = schema({{}});\nexport default s;\n\
             export const version = s.procedure(t.u32(), () => {number});\n"
        ))
    };
    let owned = server.publish("code", &source(1));
    let first = owned.client.fork("code", "main").expect("shown").head;
    let content_type = tine_client::http::CONTENT_TYPE_SOURCE;
    owned.client.publish(Some("code"), content_type, source(2).encode(), Default::default()).expect("updated");
    owned.client.create_fork_with("code", "old", &at(ForkPoint::Lsn(first))).expect("forked");
    let version = |database: &str| owned.client.call(database, "version", &json!([])).expect("called").value;
    assert_eq!((version("code"), version("code@old")), (Some(json!(2)), Some(json!(1))));
}

#[test]
fn lineage_is_shown_and_outlives_parents() {
    let server = TestServer::shared();
    let owned = server.publish_probe("family");
    let client = &owned.client;
    let mut parent = "family".to_owned();
    for name in ["child", "grandchild", "great"] {
        add(client, &parent, "x");
        client.create_fork(&parent, name, false).expect("forked");
        parent = format!("family@{name}");
    }
    let lineage = |fork: &str| -> Vec<Value> {
        let shown = client.fork("family", fork).expect("shown");
        shown.lineage.into_iter().map(|origin| origin.fork).collect()
    };
    assert_eq!(lineage("great"), [json!("grandchild"), json!("child"), json!("main")]);
    assert!(lineage("main").is_empty());
    let child = client.fork("family", "child").expect("shown").id;
    client.delete_fork("family", "child").expect("deleted");
    assert_eq!(lineage("great"), [json!("grandchild"), json!(child)], "of a deleted fork its number is known");
    client.create_fork("family@great", "child", false).expect("the name is free again");
    assert_eq!(lineage("child"), [json!("great"), json!("grandchild"), json!(child)]);
}

#[tokio::test]
async fn forks_expire_by_themselves_connected_or_not() {
    let mut server = TestServer::start();
    let owned = server.publish_probe("mortal");
    let client = &owned.client;
    let living = |ttl_ms: u64| ForkOptions { ttl: Some(Duration::from_millis(ttl_ms)), ..ForkOptions::default() };
    let started = Instant::now();
    let short = client.create_fork_with("mortal", "short", &living(700)).expect("forked");
    assert!(short.expires_at.is_some_and(|at| at > short.created_at.as_i64().expect("micros")), "{short:?}");
    client.create_fork_with("mortal", "downtime", &living(1_500)).expect("forked");
    client.create_fork_with("mortal", "long", &living(3_600_000)).expect("forked");
    client.create_fork("mortal@short", "child", false).expect("forked");
    let mut connection = connect(&server, "mortal@short").await;
    connection.call_reducer("add", rows::add("while it lasts", 1)).await.expect("added");
    closed_with_1001(&mut connection).await;
    assert!(started.elapsed() >= Duration::from_millis(700), "not before its time");
    wait::until_true("the fork is gone", || client.fork("mortal", "short").is_err());
    assert!(client.fork("mortal", "child").expect("children stay").expires_at.is_none(), "and do not inherit it");
    assert_eq!(names(client, "mortal@child"), Vec::<String>::new());

    server.kill();
    std::thread::sleep(Duration::from_millis(1_600).saturating_sub(started.elapsed()));
    server.restart();
    let client = &server.anonymous().with_token(&owned.token);
    wait::until_true("the fork that expired meanwhile is gone", || client.fork("mortal", "downtime").is_err());
    let long = client.fork("mortal", "long").expect("it lives");
    assert!(long.expires_at.is_some(), "an expiry survives a restart");
    let counted = || client.metrics().expect("metrics").contains("tine_forks_expired_total 1");
    wait::until_true("the expiry is counted", counted);
    for ttl in [0, u64::MAX] {
        let options = ForkOptions { ttl: Some(Duration::from_millis(ttl)), ..ForkOptions::default() };
        assert_eq!(refused(client.create_fork_with("mortal", "never", &options)).0, Some(400), "{ttl}");
    }
}

#[tokio::test]
async fn a_reset_moves_the_name_to_another_version() {
    let mut server = TestServer::start();
    let owned = server.publish_probe("moved");
    let client = &owned.client;
    let first = add(client, "moved", "first");
    add(client, "moved", "second");
    client.create_fork("moved", "exp", false).expect("forked");
    add(client, "moved@exp", "third");
    let before = client.fork("moved", "exp").expect("shown");
    client.create_fork("moved@exp", "child", false).expect("forked");
    let mut connection = connect(&server, "moved@exp").await;

    let reset = client.reset_fork("moved", "exp", None, Some(&ForkPoint::Lsn(first))).expect("reset");
    assert_eq!((reset.name.as_str(), reset.head), ("exp", first));
    assert!(reset.id > before.id && reset.identity != before.identity, "{reset:?}");
    closed_with_1001(&mut connection).await;
    assert_eq!(names(client, "moved@exp"), ["first"]);
    assert_eq!(names(client, "moved@child"), ["first", "second", "third"], "forks made before stay");
    let old = client.sql(&before.identity, "SELECT * FROM person").expect_err("the old one is gone");
    assert_eq!(old.status(), Some(404));
    add(client, "moved@exp", "own");

    // Main becomes what a fork is: the name moves, schedules run on, and main is still main.
    client.call("moved", "repeat", &json!(["beat", 20])).expect("scheduled");
    client.create_fork("moved", "winner", false).expect("forked");
    add(client, "moved@winner", "won");
    let mut main = connect(&server, "moved").await;
    let promoted = client.reset_fork("moved", "main", Some("winner"), None).expect("promoted");
    closed_with_1001(&mut main).await;
    assert_ne!(promoted.id, 1);
    assert_eq!(names(client, "moved"), ["first", "second", "won"]);
    let reminded = |client: &HttpClient| sql(client, "moved", "SELECT * FROM reminded").len();
    let count = reminded(client);
    wait::until_true("schedules run on the new main", || reminded(client) > count + 2);
    assert!(!client.fork("moved", "winner").expect("it stays").schedules_run);
    assert!(client.delete_fork("moved", "main").is_err() && client.rename_fork("moved", "main", "x").is_err());

    let wrong = [
        (client.reset_fork("moved", "exp", None, None), Some(400), "TN0633"),
        (client.reset_fork("moved", "exp", Some("none"), None), Some(404), "TN0601"),
        (client.reset_fork("moved", "none", None, Some(&ForkPoint::Lsn(1))), Some(404), "TN0601"),
        (client.reset_fork("moved", "exp", None, Some(&ForkPoint::Lsn(999))), Some(400), "TN0241"),
    ];
    for (result, status, code) in wrong {
        assert_eq!(refused(result), (status, code.to_owned()));
    }
    let (stranger, _) = server.newcomer();
    assert_eq!(refused(stranger.reset_fork("moved", "exp", Some("main"), None)).0, Some(403));
    client.create_fork("moved", "mist", true).expect("forked");
    assert_eq!(refused(client.reset_fork("moved", "exp", Some("mist"), None)).1, "TN0634");

    server.kill();
    server.restart();
    let client = &server.anonymous().with_token(&owned.token);
    assert_eq!(names(client, "moved"), ["first", "second", "won"]);
    assert_eq!(names(client, "moved@exp"), ["first", "own"]);
    let forks: Vec<String> = client.forks("moved").expect("listed").into_iter().map(|fork| fork.name).collect();
    assert_eq!(forks, ["child", "exp", "winner", "main"], "by age; nothing else is left");
    let count = reminded(client);
    wait::until_true("schedules run after the restart", || reminded(client) > count + 2);
    client.delete("moved", true).expect("deleted as a whole");
}

#[test]
fn schedules_run_where_they_are_resumed() {
    let mut server = TestServer::start();
    let owned = server.publish_probe("clock");
    let client = &owned.client;
    client.call("clock", "repeat", &json!(["beat", 40])).expect("scheduled");
    client.call("clock", "remind", &json!(["once", 600_000])).expect("scheduled");
    client.create_fork("clock", "paused", false).expect("forked");
    // Overdue by the time schedules run on the fork.
    client.call("clock@paused", "remind", &json!(["overdue", 1])).expect("scheduled");
    let options = ForkOptions { resume_schedules: true, ..ForkOptions::default() };
    let running = client.create_fork_with("clock@paused", "running", &options).expect("forked");
    assert!(running.schedules_run && !client.fork("clock", "paused").expect("shown").schedules_run);

    let labels = |client: &HttpClient, database: &str, label: &str| {
        sql(client, database, &format!("SELECT * FROM reminded WHERE label = '{label}'")).len()
    };
    wait::until_true("the interval runs", || labels(client, "clock@running", "beat") >= 3);
    assert_eq!(labels(client, "clock@running", "overdue"), 1, "what is overdue runs once");
    assert_eq!(labels(client, "clock@running", "once"), 0, "what is not due does not run");
    assert_eq!(labels(client, "clock@paused", "overdue"), 0, "the parent is still quiet (G10)");

    std::thread::sleep(Duration::from_millis(200));
    let quiet = labels(client, "clock@paused", "beat");
    client.resume_fork("clock", "paused").expect("resumed");
    let shown = client.resume_fork("clock", "paused").expect("resuming again does nothing");
    wait::until_true("overdue entries run", || labels(client, "clock@paused", "overdue") == 1);
    let after = labels(client, "clock@paused", "beat");
    assert!(after <= quiet + 2, "intervals skip what they missed: {quiet} then {after}");
    wait::until_true("the interval goes on", || labels(client, "clock@paused", "beat") > after + 2);
    assert!(shown.schedules_run);
    let (stranger, _) = server.newcomer();
    assert_eq!(refused(stranger.resume_fork("clock", "paused")).0, Some(403));

    // A fork whose schedules run does not wait for its first use after a restart.
    server.kill();
    server.restart();
    std::thread::sleep(Duration::from_millis(400));
    let client = &server.anonymous().with_token(&owned.token);
    client.create_fork("clock@running", "photo", false).expect("forked");
    let beats = labels(client, "clock@photo", "beat");
    assert!(beats >= 8, "{beats} beats");
    assert_eq!(labels(client, "clock@photo", "overdue"), 1, "and what has run does not run again");
}

#[tokio::test]
async fn clients_are_left_behind_and_the_module_hears_of_it_if_asked() {
    let server = TestServer::shared();
    let owned = server.publish_probe("crowd");
    let client = &owned.client;
    let mut crowd = Vec::new();
    for _ in 0..3 {
        crowd.push(connect(server, "crowd").await);
    }
    // The request that counts is a visit itself.
    let visits = |database: &str| sql(client, database, "SELECT * FROM visit").len() - 1;
    assert_eq!(visits("crowd"), 3);
    client.create_fork("crowd", "as-is", false).expect("forked");
    let options = ForkOptions { disconnect_clients: true, ..ForkOptions::default() };
    let fork = client.create_fork_with("crowd", "empty", &options).expect("forked");
    assert_eq!((visits("crowd"), visits("crowd@as-is"), visits("crowd@empty")), (3, 3, 0));
    assert_eq!(fork.head, fork.parent.expect("a parent").lsn + 3, "each is a call of its own on the fork");
    for connection in &mut crowd {
        connection.call_reducer("noop", Bytes::new()).await.expect("nobody was disconnected from the parent");
    }
}

/// A person at a terminal.
struct Desk {
    server: TestServer,
    home: TestDirectory,
}

impl Desk {
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = tine(self.home.path());
        command.args(arguments).env("TINE_DATA_DIR", self.server.data()).env("TINE_SERVER", self.server.url());
        run(&mut command)
    }
}

#[test]
fn the_command_line_forks_the_past_and_draws_it() {
    let desk = Desk { server: TestServer::start(), home: TestDirectory::new("history") };
    let probe = tine_tests::root().join("tests/modules/probe.ts");
    desk.run(&["publish", "tree", probe.to_str().expect("a path of text")]).expect(0);
    for name in ["a", "b", "c"] {
        desk.run(&["call", "tree", "add", name, "1"]).expect(0);
    }
    let head = desk.run(&["fork", "show", "tree", "--json"]).expect(0).json()["head"].as_u64().expect("an LSN");
    let older = (head - 2).to_string();
    let ran = desk.run(&["fork", "create", "tree", "exp", "--at", &older, "--ttl", "10m"]).expect(0);
    assert!(ran.stdout.contains(&format!("from main@{older}")) && ran.stdout.contains("until 20"), "{ran:?}");
    desk.run(&["fork", "create", "tree@exp", "deeper", "--ephemeral", "--resume-schedules"]).expect(0);
    desk.run(&["fork", "create", "tree", "wide", "--at", &now_text()]).expect(0);
    let picture = desk.run(&["fork", "tree", "tree"]).expect(0).stdout;
    let expected = format!(
        "tree\n● main  → {head}\n├─● exp  {older} → {older}  expires in 9 min\n│ └─○ deeper  {older} → {}  ephemeral, schedules run\n└─● wide  {head} → {head}\n",
        head - 1
    );
    assert_eq!(picture, expected);
    let forks = desk.run(&["fork", "tree", "tree", "--json"]).expect(0).json();
    assert_eq!(forks["forks"].as_array().map(Vec::len), Some(4));

    let shown = desk.run(&["fork", "show", "tree@deeper"]).expect(0).stdout;
    assert!(shown.contains(&format!("exp@{older} < main@{older}")), "{shown}");
    assert!(shown.contains("schedules   run"), "{shown}");
    let shown = desk.run(&["fork", "show", "tree@deeper", "--json"]).expect(0).json();
    assert_eq!(shown["lineage"][1]["fork"], "main");

    desk.run(&["fork", "reset", "tree@wide", "--at", &older]).expect(2);
    let ran = desk.run(&["fork", "reset", "tree@wide", "--at", &older, "--yes"]).expect(0);
    assert!(ran.stdout.contains(&format!("tree@wide is now main@{older}")), "{ran:?}");
    desk.run(&["fork", "resume", "tree@wide"]).expect(0);
    desk.run(&["fork", "reset", "tree@wide"]).expect(2);
    desk.run(&["fork", "create", "tree", "x", "--at", "soon"]).expect(2);
    desk.run(&["fork", "create", "tree", "x", "--ttl", "forever"]).expect(2);
    let ran = desk.run(&["fork", "create", "tree", "x", "--at", "99999"]).expect(1);
    assert!(ran.stderr.contains("error[TN0241]") && ran.stderr.contains(&head.to_string()), "{ran:?}");
}
