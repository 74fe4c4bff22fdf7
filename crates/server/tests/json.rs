//! The subprotocol `v1.json.spacetimedb`.

mod common;

use std::time::Duration;

use common::TestServer;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

struct Tool(common::Client);

impl Tool {
    async fn connect(server: &TestServer, query: &str) -> (Tool, Value) {
        let mut tool = Tool(server.connect_to("people", query, "v1.json.spacetimedb").await);
        let hello = tool.next().await;
        (tool, hello["IdentityToken"].clone())
    }

    async fn say(&mut self, message: Value) {
        self.0.socket.send(Message::text(message.to_string())).await.expect("sent");
    }

    async fn next(&mut self) -> Value {
        let next = tokio::time::timeout(Duration::from_secs(20), self.0.socket.next()).await.expect("in time");
        match next.expect("open").expect("a message") {
            Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("{other:?}"),
        }
    }
}

fn rows(update: &Value, kind: &str) -> Vec<Value> {
    let tables = update["tables"].as_array().expect("tables");
    let rows = tables.iter().flat_map(|table| table["updates"][0][kind].as_array().expect("rows"));
    rows.map(|row| serde_json::from_str(row.as_str().expect("a string")).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_subscribe_call_and_query_in_json() {
    let server = TestServer::with_people().await;
    let (mut tool, hello) = Tool::connect(&server, "").await;
    let identity = hello["identity"]["__identity__"].as_str().expect("an identity").to_owned();
    assert!(identity.starts_with("0xc200") && hello["token"].is_string());
    tool.say(json!({ "SubscribeMulti": {
        "query_strings": ["SELECT * FROM person"], "request_id": 1, "query_id": { "id": 7 },
    } }))
    .await;
    let applied = tool.next().await["SubscribeMultiApplied"].clone();
    assert_eq!((&applied["request_id"], &applied["query_id"]), (&json!(1), &json!({ "id": 7 })));
    assert_eq!(rows(&applied["update"], "inserts"), Vec::<Value>::new());

    tool.say(json!({ "CallReducer": {
        "reducer": "add", "args": "[1, \"Ada\"]", "request_id": 2, "flags": 0,
    } }))
    .await;
    let update = tool.next().await["TransactionUpdate"].clone();
    assert_eq!(rows(&update["status"]["Committed"], "inserts"), [json!([1, "Ada", [1, []]])], "{update}");
    assert_eq!(update["reducer_call"]["reducer_name"], "add");
    assert_eq!(update["caller_identity"]["__identity__"], json!(identity));

    // Order is kept, whatever is wrong with a request, and whatever number it has.
    let calls = [
        (3, "add", "[2, \"\"]"),
        (4, "missing", "[]"),
        (4, "add", "[true]"),
        (4, "add", "no JSON"),
        (5, "noop", "[]"),
        (5, "noop", "[]"),
    ];
    for (request_id, reducer, args) in calls {
        tool.say(json!({ "CallReducer": { "reducer": reducer, "args": args, "request_id": request_id, "flags": 0 } }))
            .await;
    }
    let mut statuses = Vec::new();
    for _ in calls {
        let update = tool.next().await["TransactionUpdate"].clone();
        statuses.push((
            update["reducer_call"]["request_id"].as_u64(),
            update["status"]["Failed"].as_str().map(str::to_owned),
        ));
    }
    assert_eq!(statuses[0], (Some(3), Some("a name is needed".to_owned())));
    for (at, words) in [(1, "missing"), (2, "invalid arguments for `add`"), (3, "no JSON")] {
        let (request_id, failed) = &statuses[at];
        let is_told = failed.as_ref().is_some_and(|text| text.contains(words));
        assert!(*request_id == Some(4) && is_told, "{statuses:?}");
    }
    assert_eq!(statuses[4..], [(Some(5), None), (Some(5), None)]);

    let row = json!({ "id": 1, "name": "Ada", "best_friend": [1, []] });
    tool.say(json!({ "OneOffQuery": { "message_id": [10, 11], "query_string": "SELECT * FROM person" } })).await;
    let response = tool.next().await["OneOffQueryResponse"].clone();
    assert_eq!((&response["message_id"], &response["error"]), (&json!("0a0b"), &json!({ "none": [] })));
    let text = response["tables"][0]["rows"][0].as_str().expect("a row").to_owned();
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), row);
    tool.say(json!({ "OneOffQuery": { "message_id": "0c", "query_string": "nonsense" } })).await;
    assert!(tool.next().await["OneOffQueryResponse"]["error"]["some"].is_string());
    tool.say(json!({ "CallProcedure": { "procedure": "twice", "args": [21], "request_id": 9, "flags": 0 } })).await;
    assert_eq!(tool.next().await["ProcedureResult"]["status"], json!({ "Returned": "42" }));
    tool.say(json!({ "CallProcedure": { "procedure": "twice", "args": "[]", "request_id": 9, "flags": 0 } })).await;
    assert!(tool.next().await["ProcedureResult"]["status"]["InternalError"].is_string());
    // A second set of the same number is refused, and the first lives on.
    let single = json!({ "query": "SELECT * FROM person", "request_id": 9, "query_id": [7] });
    tool.say(json!({ "SubscribeSingle": single })).await;
    assert_eq!(tool.next().await["SubscriptionError"]["query_id"], json!({ "some": 7 }));
    tool.say(json!({ "UnsubscribeMulti": { "request_id": 10, "query_id": { "id": 7 } } })).await;
    let gone = tool.next().await["UnsubscribeMultiApplied"].clone();
    assert_eq!(rows(&gone["update"], "deletes"), [row]);
    tool.say(json!({ "Unsubscribe": { "request_id": 11, "query_id": { "id": 7 } } })).await;
    assert_eq!(tool.next().await["SubscriptionError"]["request_id"], json!({ "some": 11 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_updates_and_the_older_subscriptions() {
    let server = TestServer::with_people().await;
    let (mut watcher, _) = Tool::connect(&server, "light=true").await;
    let (mut actor, _) = Tool::connect(&server, "").await;
    for queries in [json!(["SELECT * FROM mark"]), json!(["SELECT * FROM person", "SELECT * FROM mark"])] {
        watcher.say(json!({ "Subscribe": { "query_strings": queries, "request_id": 1 } })).await;
        assert!(watcher.next().await["InitialSubscription"]["database_update"]["tables"].is_array());
    }
    actor
        .say(json!({ "SubscribeSingle": {
        "query": "SELECT * FROM person WHERE id = 1", "request_id": 1, "query_id": { "id": 1 },
    } }))
        .await;
    assert_eq!(actor.next().await["SubscribeApplied"]["rows"]["table_name"], "person");
    // Rows larger than a fragment.
    actor
        .say(json!({ "CallReducer": {
        "reducer": "wide", "args": { "from": 1, "count": 30, "bytes": 5000 }, "request_id": 2, "flags": 0,
    } }))
        .await;
    assert_eq!(rows(&actor.next().await["TransactionUpdate"]["status"]["Committed"], "inserts").len(), 1);
    let update = watcher.next().await["TransactionUpdateLight"]["update"].clone();
    assert_eq!(rows(&update, "inserts").len(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_ends_the_connection() {
    let server = TestServer::with_people().await;
    let hostile = [
        Message::text("nonsense"),
        Message::text("{}"),
        Message::text(r#"{"Unknown": {}}"#),
        Message::text(r#"{"CallReducer": {"reducer": "add", "request_id": 1, "flags": 0}}"#),
        Message::text(r#"{"OneOffQuery": {"message_id": "0", "query_string": "SELECT * FROM person"}}"#),
        Message::text(r#"{"Subscribe": {"query_strings": "x", "request_id": 1}}"#),
        Message::text("[".repeat(100_000)),
        Message::binary(vec![0, 1, 2]),
    ];
    for message in hostile {
        let (mut tool, _) = Tool::connect(&server, "").await;
        tool.0.socket.send(message.clone()).await.expect("sent");
        let next = tokio::time::timeout(Duration::from_secs(20), tool.0.socket.next()).await.expect("in time");
        match next {
            Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 1011, "{message:?}"),
            other => panic!("{message:?}: {other:?}"),
        }
    }
}
