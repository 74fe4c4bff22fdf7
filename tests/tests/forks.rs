//! Forks over the wire: made, listed, renamed, deleted, each a database of its own (G8, G10).

use bytes::Bytes;
use serde_json::json;
use tine_client::{ClientError, ConnectOptions, Connection, http::HttpClient};
use tine_tests::{
    rows::{self, Person},
    server::{TestServer, single_file},
    wait,
};

async fn connect(server: &TestServer, database: &str) -> Connection {
    Connection::connect(ConnectOptions::new(server.url(), database)).await.expect("connected")
}

async fn names(connection: &mut Connection) -> Vec<String> {
    let rows = connection.one_off_query("SELECT * FROM person").await.expect("the query runs");
    let mut people = rows::of_table::<Person>(&rows, "person");
    people.sort();
    people.into_iter().map(|person| person.name).collect()
}

fn fork_names(client: &HttpClient, database: &str) -> Vec<String> {
    client.forks(database).expect("the forks are listed").into_iter().map(|fork| fork.name).collect()
}

#[tokio::test]
async fn a_fork_is_a_database_of_its_own() {
    let server = TestServer::shared();
    let owned = server.publish_probe("forked");
    let mut main = connect(server, "forked").await;
    main.call_reducer("add", rows::add("both", 1)).await.expect("added");
    let fork = owned.client.create_fork("forked", "exp1", false).expect("forked");
    assert_eq!((fork.name.as_str(), fork.durability.as_str()), ("exp1", "durable"));
    let parent = fork.parent.expect("it has a parent");
    assert_eq!(parent.fork, json!("main"));
    assert_eq!(fork.head, parent.lsn, "a fork begins where its parent was");

    // It takes a write at once (G8), and its subscribers and those of main hear only their own.
    let mut exp1 = connect(server, "forked@exp1").await;
    let seen = exp1.subscribe(1, &["SELECT * FROM person"]).await.expect("subscribed");
    assert_eq!(rows::of_table::<Person>(&seen, "person").len(), 1);
    let mut main_watcher = connect(server, "forked@main").await;
    main_watcher.subscribe(1, &["SELECT * FROM person"]).await.expect("subscribed");
    let reply = exp1.call_reducer("add", rows::add("only the fork", 2)).await.expect("added");
    assert_eq!(rows::changes::<Person>(&reply.update, "person").0[0].id, 2, "sequences go on from the fork's base");
    main.call_reducer("add", rows::add("only main", 3)).await.expect("added");
    let update = main_watcher.recv().await.expect("an update");
    let (inserted, _) = rows::changes::<Person>(rows::update_of(&update).expect("an update"), "person");
    assert_eq!(inserted.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["only main"]);
    assert_eq!(names(&mut exp1).await, ["both", "only the fork"]);
    assert_eq!(names(&mut main).await, ["both", "only main"]);

    let by_identity = owned.client.fork("forked", "exp1").expect("shown").identity;
    assert_eq!(names(&mut connect(server, &by_identity).await).await, ["both", "only the fork"]);
}

#[tokio::test]
async fn forks_of_forks_outlive_their_parents() {
    let server = TestServer::shared();
    let owned = server.publish_probe("lineage");
    let client = &owned.client;
    client.call("lineage", "add", &json!(["root", 1])).expect("added");
    client.create_fork("lineage", "child", false).expect("forked");
    client.call("lineage@child", "add", &json!(["child", 2])).expect("added");
    client.create_fork("lineage@child", "grandchild", false).expect("forked");
    client.call("lineage@child", "add", &json!(["later", 3])).expect("added");

    let mut watcher = connect(server, "lineage@child").await;
    client.delete_fork("lineage", "child").expect("deleted");
    let closed = watcher.recv().await;
    assert!(matches!(closed, Err(ClientError::Closed { close_code: Some(1001), .. })), "{closed:?}");
    assert_eq!(fork_names(client, "lineage"), ["main", "grandchild"]);
    let gone = client.sql("lineage@child", "SELECT * FROM person").expect_err("it is gone");
    assert_eq!(gone.status(), Some(404));

    let mut grandchild = connect(server, "lineage@grandchild").await;
    assert_eq!(names(&mut grandchild).await, ["root", "child"]);
    grandchild.call_reducer("add", rows::add("grandchild", 4)).await.expect("added");
    assert_eq!(names(&mut grandchild).await, ["root", "child", "grandchild"]);
    client.create_fork("lineage", "child", false).expect("the name is free again");
}

#[test]
fn names_permissions_and_conflicts() {
    let server = TestServer::shared();
    let owned = server.publish_probe("rules");
    let client = &owned.client;
    let (stranger, _) = server.newcomer();
    client.create_fork("rules", "taken", false).expect("forked");
    client.create_fork("rules", "other", true).expect("forked");
    assert_eq!(client.fork("rules", "other").expect("shown").durability, "ephemeral");

    let status = |result: Result<tine_client::http::Fork, ClientError>| result.expect_err("refused").status();
    assert_eq!(status(client.create_fork("rules", "taken", false)), Some(409));
    assert_eq!(status(client.create_fork("rules", "main", false)), Some(409));
    for bad in ["", "Upper", "two words", "a--b", "-a", "a-", "a@b", "a/b", &"x".repeat(300)] {
        assert_eq!(status(client.create_fork("rules", bad, false)), Some(400), "`{bad}`");
    }
    assert_eq!(status(client.create_fork("rules@none", "x", false)), Some(404));
    assert_eq!(status(client.create_fork("no-such-database", "x", false)), Some(404));
    assert_eq!(status(stranger.create_fork("rules", "x", false)), Some(403));
    assert_eq!(stranger.delete_fork("rules", "taken").expect_err("refused").status(), Some(403));
    assert_eq!(status(stranger.rename_fork("rules", "taken", "mine")), Some(403));
    assert_eq!(stranger.delete("rules", true).expect_err("refused").status(), Some(403));

    assert_eq!(status(client.rename_fork("rules", "taken", "other")), Some(409));
    assert_eq!(client.rename_fork("rules", "taken", "winner").expect("renamed").name, "winner");
    assert_eq!(fork_names(client, "rules"), ["main", "winner", "other"]);
    assert!(client.delete_fork("rules", "main").is_err(), "main cannot be deleted alone");
    assert_eq!(client.delete("rules", false).expect_err("it has forks").status(), Some(409));
    client.delete_fork("rules", "other").expect("deleted");
    client.delete("rules", true).expect("deleted with its forks");
    assert_eq!(client.forks("rules").expect_err("it is gone").status(), Some(404));
    client.delete("rules", false).expect("deleting what is not there is done");
}

#[tokio::test]
async fn a_rename_keeps_connections() {
    let server = TestServer::shared();
    let owned = server.publish_probe("renames");
    owned.client.create_fork("renames", "before", false).expect("forked");
    let mut connection = connect(server, "renames@before").await;
    owned.client.rename_fork("renames", "before", "after").expect("renamed");
    connection.call_reducer("add", rows::add("still here", 1)).await.expect("the connection stays");
    assert_eq!(names(&mut connect(server, "renames@after").await).await, ["still here"]);
    let gone = Connection::connect(ConnectOptions::new(server.url(), "renames@before")).await;
    assert_eq!(gone.expect_err("the old name is gone").status(), Some(404));
}

/// Schedules are copied with the state and paused (G10): nothing of theirs runs on the fork.
#[tokio::test]
async fn schedules_are_paused_on_forks() {
    let server = TestServer::shared();
    let owned = server.publish_probe("paused");
    let client = &owned.client;
    client.call("paused", "repeat", &json!(["beat", 30])).expect("scheduled");
    let count = |database: &str| {
        let rows = client.sql(database, "SELECT * FROM reminded").expect("the query runs");
        rows[0].rows.len()
    };
    wait::until_true("the schedule runs on main", || count("paused") >= 2);
    client.create_fork("paused", "quiet", false).expect("forked");
    let (on_main, on_fork) = (count("paused"), count("paused@quiet"));
    client.call("paused@quiet", "remind", &json!(["never", 1])).expect("scheduled on the fork");
    wait::until_true("main goes on", || count("paused") >= on_main + 5);
    assert_eq!(count("paused@quiet"), on_fork, "a schedule ran on the fork");
    let rows = client.sql("paused@quiet", "SELECT * FROM reminder").expect("the query runs");
    assert_eq!(rows[0].rows.len(), 2, "the schedules are there");
}

/// Module state is a cache: what one fork puts there no other fork sees.
#[tokio::test]
async fn module_globals_do_not_leak_between_forks() {
    let server = TestServer::shared();
    let owned = server.publish_probe("globals");
    let mut main = connect(server, "globals").await;
    for _ in 0..20 {
        main.call_procedure("count_calls", Bytes::new()).await.expect("called");
    }
    owned.client.create_fork("globals", "fresh", true).expect("forked");
    let mut fork = connect(server, "globals@fresh").await;
    let first = fork.call_procedure("count_calls", Bytes::new()).await.expect("called");
    assert_eq!(first[..], 1_u32.to_le_bytes());
}

/// Publishing to a fork changes that fork only.
#[test]
fn a_fork_can_run_other_code() {
    let server = TestServer::shared();
    let source = |number: u32| {
        single_file(&format!(
            "import {{ schema, t }} from 'tine:server';\nconst s = schema({{}});\nexport default s;\n\
             export const version = s.procedure(t.u32(), () => {number});\n"
        ))
    };
    let owned = server.publish("recoded", &source(1));
    owned.client.create_fork("recoded", "next", false).expect("forked");
    let content_type = tine_client::http::CONTENT_TYPE_SOURCE;
    let update = owned.client.publish(Some("recoded@next"), content_type, source(2).encode(), Default::default());
    update.expect("the fork is updated");
    let version = |database: &str| owned.client.call(database, "version", &json!([])).expect("called").value;
    assert_eq!((version("recoded"), version("recoded@next")), (Some(json!(1)), Some(json!(2))));
}

#[test]
fn durable_forks_survive_a_crash_and_ephemeral_ones_do_not() {
    let mut server = TestServer::start();
    let owned = server.publish_probe("restarted");
    let client = &owned.client;
    client.call("restarted", "add", &json!(["root", 1])).expect("added");
    for (fork, ephemeral) in [("kept", false), ("lost", true), ("dropped", false)] {
        client.create_fork("restarted", fork, ephemeral).expect("forked");
        client.call(&format!("restarted@{fork}"), "add", &json!([fork, 2])).expect("added");
    }
    client.create_fork("restarted@kept", "deeper", false).expect("forked");
    client.create_fork("restarted@lost", "also-lost", false).expect("forked");
    client.rename_fork("restarted", "kept", "renamed").expect("renamed");
    client.delete_fork("restarted", "dropped").expect("deleted");
    server.kill();
    server.restart();
    let client = server.anonymous().with_token(&owned.token);
    assert_eq!(fork_names(&client, "restarted"), ["main", "renamed", "deeper"]);
    let rows = |database: &str| client.sql(database, "SELECT name FROM person").expect("the query runs")[0].rows.len();
    assert_eq!((rows("restarted"), rows("restarted@renamed"), rows("restarted@deeper")), (1, 2, 2));
    client.call("restarted@deeper", "add", &json!(["more", 3])).expect("added");
}

/// Confirmed delivery makes no sense on a fork that is never on disk: asking for it is refused.
#[tokio::test]
async fn confirmed_delivery_on_an_ephemeral_fork_is_refused() {
    let server = TestServer::shared();
    let owned = server.publish_probe("fleeting");
    owned.client.create_fork("fleeting", "mist", true).expect("forked");
    let asked = ConnectOptions::new(server.url(), "fleeting@mist").with_confirmed(true);
    let refused = Connection::connect(asked).await.expect_err("refused");
    assert_eq!(refused.status(), Some(400), "{refused:?}");
    let unasked = ConnectOptions::new(server.url(), "fleeting@mist");
    let mut connection = Connection::connect(unasked).await.expect("without asking it works");
    connection.call_reducer("add", rows::add("x", 1)).await.expect("added");
}
