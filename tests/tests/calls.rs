//! Calls and what can go wrong with them: over the WebSocket and over HTTP, with modules that behave
//! as badly as they can. After each, nothing of the failed call is left and the next call works.

use bytes::Bytes;
use serde_json::json;
use tine_client::{
    CallFailure, ClientError, ConnectOptions, Connection, protocol::ClientMessage, protocol::ServerMessage,
};
use tine_tests::{
    rows::{self, Person},
    server::{Owned, TestServer, single_file},
};

async fn connect(server: &TestServer, database: &Owned) -> Connection {
    let options = ConnectOptions::new(server.url(), &database.name).with_token(&database.token);
    Connection::connect(options).await.expect("the connection is made")
}

async fn people(connection: &mut Connection) -> Vec<Person> {
    let rows = connection.one_off_query("SELECT * FROM person").await.expect("the query runs");
    let mut people = rows::of_table::<Person>(&rows, "person");
    people.sort();
    people
}

#[tokio::test]
async fn calls_change_rows_and_subscribers_see_each_change_once() {
    let server = TestServer::shared();
    let database = server.publish_probe("plain-calls");
    let mut caller = connect(server, &database).await;
    let mut watcher = connect(server, &database).await;
    let first = watcher.subscribe(1, &["SELECT * FROM person WHERE age < 100"]).await.expect("subscribed");
    assert!(rows::of_table::<Person>(&first, "person").is_empty());

    caller.call_reducer("add", rows::add("Ada", 36)).await.expect("added");
    caller.call_reducer("add", rows::add("old", 100)).await.expect("added");
    caller.call_reducer("add", rows::add("Bo", 7)).await.expect("added");
    let mut renamed = Vec::new();
    renamed.extend(1_u64.to_le_bytes());
    renamed.extend(&rows::text("Ada Lovelace")[..]);
    caller.call_reducer("rename", renamed.into()).await.expect("renamed");
    caller.call_reducer("remove", Bytes::copy_from_slice(&3_u64.to_le_bytes())).await.expect("removed");

    let person = |id, name: &str, age| Person { id, name: name.into(), age };
    let expected = [
        (vec![person(1, "Ada", 36)], vec![]),
        (vec![person(3, "Bo", 7)], vec![]),
        (vec![person(1, "Ada Lovelace", 36)], vec![person(1, "Ada", 36)]),
        (vec![], vec![person(3, "Bo", 7)]),
    ];
    for change in expected {
        let message = watcher.recv().await.expect("an update");
        let update = rows::update_of(&message).unwrap_or_else(|| panic!("not an update: {message:?}"));
        assert_eq!(rows::changes::<Person>(update, "person"), change);
    }
    assert_eq!(people(&mut caller).await, [person(1, "Ada Lovelace", 36), person(2, "old", 100)]);
}

#[tokio::test]
async fn the_caller_gets_its_own_changes_in_the_reply() {
    let server = TestServer::shared();
    let database = server.publish_probe("own-changes");
    let mut caller = connect(server, &database).await;
    caller.subscribe(1, &["SELECT * FROM person"]).await.expect("subscribed");
    let reply = caller.call_reducer("add", rows::add("Ada", 36)).await.expect("added");
    let (inserted, deleted) = rows::changes::<Person>(&reply.update, "person");
    assert_eq!((inserted.len(), deleted.len()), (1, 0));
    caller.unsubscribe(1).await.expect("unsubscribed");
    let reply = caller.call_reducer("add", rows::add("Bo", 7)).await.expect("added");
    assert!(reply.update.query_sets.is_empty(), "nothing is subscribed any more");
}

#[tokio::test]
async fn multi_column_ranges_and_event_tables() {
    let server = TestServer::shared();
    let database = server.publish_probe("ranges");
    let mut connection = connect(server, &database).await;
    for (name, age) in [("anna", 5), ("bert", 5), ("carl", 5), ("bert", 6)] {
        connection.call_reducer("add", rows::add(name, age)).await.expect("added");
    }
    let mut range = 5_u32.to_le_bytes().to_vec();
    range.extend(&rows::text("b")[..]);
    range.extend(&rows::text("c")[..]);
    connection.call_reducer("remove_between", range.into()).await.expect("removed");
    let left: Vec<(String, u32)> = people(&mut connection).await.into_iter().map(|row| (row.name, row.age)).collect();
    assert_eq!(left, [("anna".into(), 5), ("carl".into(), 5), ("bert".into(), 6)]);

    connection.subscribe(9, &["SELECT * FROM signal"]).await.expect("subscribed");
    let reply = connection.call_reducer("flash", rows::text("now")).await.expect("flashed");
    let shown = format!("{:?}", reply.update);
    assert!(shown.contains("Event"), "{shown}");
    let kept = connection.one_off_query("SELECT * FROM signal").await.expect("the query runs");
    assert!(kept.tables.iter().all(|table| table.rows.rows().next().is_none()), "events are not stored");
}

#[tokio::test]
async fn failing_calls_leave_no_trace_and_harm_nobody() {
    let server = TestServer::shared();
    let database = server.publish_probe("failing-calls");
    let mut connection = connect(server, &database).await;
    let mut neighbour = connect(server, &database).await;
    let cases: [(&str, Bytes, CallFailure, &str); 13] = [
        ("refuse", rows::text("because"), CallFailure::Sender, "because"),
        ("refuse", rows::text(""), CallFailure::Sender, ""),
        ("trap", Bytes::new(), CallFailure::Internal, ""),
        ("throw_text", Bytes::new(), CallFailure::Internal, ""),
        ("throw_number", Bytes::new(), CallFailure::Internal, ""),
        ("throw_nothing", Bytes::new(), CallFailure::Internal, ""),
        ("throw_strange", Bytes::new(), CallFailure::Internal, ""),
        ("recurse", Bytes::new(), CallFailure::Internal, ""),
        ("promise", Bytes::new(), CallFailure::Internal, ""),
        ("hoard", Bytes::new(), CallFailure::Internal, ""),
        ("hoard_text", Bytes::new(), CallFailure::Internal, ""),
        ("spin", Bytes::new(), CallFailure::Internal, ""),
        ("spin_stubbornly", Bytes::new(), CallFailure::Internal, ""),
    ];
    for (reducer, args, expected, text) in cases {
        match connection.call_reducer(reducer, args).await {
            Err(ClientError::Call { failure, message, .. }) => {
                assert_eq!(failure, expected, "{reducer}: {message}");
                assert!(message.contains(text), "{reducer}: {message}");
                assert!(expected == CallFailure::Sender || !message.is_empty(), "{reducer} fails without a word");
            }
            other => panic!("{reducer}: {other:?}"),
        }
        neighbour.call_reducer("noop", Bytes::new()).await.unwrap_or_else(|error| panic!("after {reducer}: {error}"));
    }
    assert_eq!(people(&mut connection).await, [], "a failed call left something");
    connection.call_reducer("add", rows::add("Ada", 1)).await.expect("the module works on");
    assert_eq!(people(&mut connection).await.len(), 1);
}

#[tokio::test]
async fn unknown_functions_and_wrong_arguments_are_answered_each() {
    let server = TestServer::shared();
    let database = server.publish_probe("wrong-arguments");
    let mut connection = connect(server, &database).await;
    let mut long = rows::add("Ada", 1).to_vec();
    long.extend([0; 3]);
    let cases: [(&str, Bytes); 8] = [
        ("no_such_reducer", Bytes::new()),
        ("", Bytes::new()),
        ("add", Bytes::new()),
        ("add", Bytes::from_static(&[1, 2])),
        ("add", Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])),
        ("add", Bytes::from_static(&[2, 0, 0, 0, 0xff, 0xfe, 1, 0, 0, 0])),
        ("on_connect", Bytes::new()),
        ("init", Bytes::new()),
    ];
    for (reducer, args) in cases {
        let failed = connection.call_reducer(reducer, args).await;
        assert!(
            matches!(failed, Err(ClientError::Call { failure: CallFailure::Internal, .. })),
            "`{reducer}`: {failed:?}"
        );
    }
    let failed = connection.call_procedure("no_such_procedure", Bytes::new()).await;
    assert!(matches!(failed, Err(ClientError::Call { .. })), "{failed:?}");
    assert_eq!(people(&mut connection).await, []);
}

#[tokio::test]
async fn replies_come_in_request_order_whatever_happens_to_each() {
    let server = TestServer::shared();
    let database = server.publish_probe("reply-order");
    let mut connection = connect(server, &database).await;
    let kinds = ["add", "refuse", "no_such_reducer", "noop", "trap", "add"];
    let call = |id: u32| {
        let reducer = kinds[id as usize % kinds.len()];
        let args = match reducer {
            "add" => rows::add("x", id),
            "refuse" => rows::text("no"),
            _ => Bytes::new(),
        };
        ClientMessage::CallReducer { request_id: id, reducer: reducer.into(), args }
    };
    let calls: Vec<ClientMessage> = (0..600).map(call).collect();
    connection.send(&calls).await.expect("sent");
    for expected in 0..600 {
        match connection.recv().await.expect("a reply") {
            ServerMessage::ReducerResult { request_id, .. } => assert_eq!(request_id, expected),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(people(&mut connection).await.len(), 200);
}

#[tokio::test]
async fn a_busy_procedure_holds_back_nothing_else_of_its_connection() {
    let server = TestServer::shared();
    let database = server.publish_probe("busy-procedure");
    let mut connection = connect(server, &database).await;
    let crunch = ClientMessage::CallProcedure {
        request_id: 1000,
        procedure: "crunch".into(),
        args: Bytes::copy_from_slice(&40_000_000_u32.to_le_bytes()),
    };
    let mut messages = vec![crunch];
    messages.extend((0..50).map(|id| ClientMessage::CallReducer {
        request_id: id,
        reducer: "noop".into(),
        args: Bytes::new(),
    }));
    connection.send(&messages).await.expect("sent");
    let mut order = Vec::new();
    while order.len() < 51 {
        match connection.recv().await.expect("a reply") {
            ServerMessage::ReducerResult { request_id, .. } | ServerMessage::ProcedureResult { request_id, .. } => {
                order.push(request_id);
            }
            other => panic!("{other:?}"),
        }
    }
    let reducers: Vec<u32> = order.iter().copied().filter(|id| *id != 1000).collect();
    assert_eq!(reducers, (0..50).collect::<Vec<u32>>());
    assert_eq!(order.last(), Some(&1000), "the procedure was answered before quick calls that came after it");
}

#[tokio::test]
async fn procedures_run_several_transactions() {
    let server = TestServer::shared();
    let database = server.publish_probe("procedures");
    let mut connection = connect(server, &database).await;
    let count = connection.call_procedure("add_twice", rows::text("twin")).await.expect("the procedure runs");
    assert_eq!(count[..], 2_u64.to_le_bytes());
    assert_eq!(people(&mut connection).await.len(), 2);
    let value = database.client.call(&database.name, "population", &json!([])).expect("over HTTP too").value;
    assert_eq!(value, Some(json!(2)));
}

#[tokio::test]
async fn connect_hooks_run_and_may_refuse() {
    let server = TestServer::shared();
    let database = server.publish_probe("connect-hooks");
    let visits = || database.client.sql(&database.name, "SELECT * FROM visit").expect("the query runs")[0].rows.len();
    let mut first = connect(server, &database).await;
    let second = connect(server, &database).await;
    // The HTTP request that counts is itself a visit without a connection in the table, or with one.
    let both = visits();
    assert!((2..=3).contains(&both), "{both} visits");
    second.close().await.expect("closed");
    tine_tests::wait::until_true("the disconnect hook", || visits() == both - 1);

    first.call_reducer("set_gate", rows::text("closed for today")).await.expect("closed the gate");
    let refused = Connection::connect(ConnectOptions::new(server.url(), &database.name)).await;
    assert!(matches!(refused, Err(ClientError::Closed { .. })), "{refused:?}");
    first.call_reducer("set_gate", rows::text("")).await.expect("opened the gate");
    connect(server, &database).await;
}

#[tokio::test]
async fn schedules_run_once_and_repeatedly() {
    let server = TestServer::shared();
    let database = server.publish_probe("schedules");
    let mut connection = connect(server, &database).await;
    let timed = |label: &str, ms: u32| [&rows::text(label)[..], &ms.to_le_bytes()].concat();
    connection.call_reducer("remind", timed("once", 60).into()).await.expect("scheduled");
    connection.call_reducer("repeat", timed("again", 40).into()).await.expect("scheduled");
    let count = |label: &str| {
        let query = format!("SELECT * FROM reminded WHERE label = '{label}'");
        database.client.sql(&database.name, &query).expect("the query runs")[0].rows.len()
    };
    tine_tests::wait::until_true("three repetitions", || count("again") >= 3);
    tine_tests::wait::until_true("the reminder", || count("once") == 1);
    let left = database.client.sql(&database.name, "SELECT * FROM reminder").expect("the query runs");
    assert_eq!(left[0].rows.len(), 1, "the one-shot row is gone, the interval stays");
    assert_eq!(count("once"), 1, "it ran once");
}

#[test]
fn modules_that_cannot_be_published() {
    let server = TestServer::shared();
    let (client, _) = server.newcomer();
    let client = client.with_admin_token(server.admin_token());
    let with_schema = |rest: &str| {
        format!("import {{ schema, t, table }} from 'tine:server';\nconst s = schema({{}});\nexport default s;\n{rest}")
    };
    let cases = [
        ("syntax error", "export default ;;; (".to_owned(), "index.ts"),
        ("no schema", "export const x = 1;".to_owned(), ""),
        ("throws while loading", with_schema("throw new Error('not today');"), "not today"),
        ("loops while loading", with_schema("for (;;);"), ""),
        ("allocates while loading", with_schema("const k = []; for (;;) k.push(new Uint8Array(1 << 20));"), ""),
        ("recurses while loading", with_schema("function f() { return 1 + f(); } f();"), ""),
        ("waits for ever", with_schema("await new Promise(() => {});"), ""),
        ("imports what is not there", with_schema("import './nowhere';"), "nowhere"),
        ("imports a package", with_schema("import 'left-pad';"), "left-pad"),
        (
            "refuses in init",
            with_schema(
                "import { SenderError } from 'tine:server';\n\
                 export const init = s.init(() => { throw new SenderError('init refuses'); });",
            ),
            "init refuses",
        ),
        ("fails in init", with_schema("export const init = s.init(() => { throw new Error('x'); });"), "init"),
    ];
    for (at, (case, source, words)) in cases.into_iter().enumerate() {
        let name = format!("unpublishable-{at}");
        let bundle = single_file(&source).encode();
        let refused = client.publish(Some(&name), tine_client::http::CONTENT_TYPE_SOURCE, bundle, Default::default());
        match refused {
            Err(ClientError::Refused { status, message, .. }) => {
                assert!((400..=599).contains(&status) && message.contains(words), "{case}: {status} {message}");
            }
            other => panic!("{case}: {other:?}"),
        }
        let gone = server.anonymous().sql(&name, "SELECT * FROM x");
        assert_eq!(gone.expect_err("nothing was made").status(), Some(404), "{case} left a database");
    }
}

#[test]
fn errors_point_at_the_users_source_line() {
    let server = TestServer::shared();
    let source = "import { schema } from 'tine:server';\n\
                  const s = schema({});\n\
                  export default s;\n\
                  type Padding = {\n  of: string;\n  several: number;\n};\n\
                  export const burst = s.reducer(ctx => {\n  deeper();\n});\n\
                  function deeper(): never {\n  throw new Error('on line twelve');\n}\n";
    let database = server.publish("source-lines", &single_file(source));
    let failed = database.client.call(&database.name, "burst", &json!([]));
    assert_eq!(failed.expect_err("it throws").status(), Some(530));
    let logs = database.client.logs(&database.name, None).expect("the owner reads the log");
    let place = |record: &tine_client::http::LogRecord| (record.filename.clone(), record.line_number);
    let found = logs.iter().find(|record| record.message.contains("on line twelve"));
    let found = found.unwrap_or_else(|| panic!("the error is not in the log: {logs:?}"));
    assert_eq!(place(found), (Some("index.ts".to_owned()), Some(12)));
}
