//! HTTP `sql` beyond SELECT: statements that change rows, settings, system tables.

mod common;

use common::{MODULE, Reply, TestServer, subscribe};
use serde_json::json;
use tine_types::protocol::{ServerMessage, TableUpdateRows};

/// A server with `people`, owned by the identity of the header returned.
async fn owned() -> (TestServer, String, String) {
    let server = TestServer::start().await;
    let made = server.http("POST", "/v1/identity", &[], b"").await.json();
    let bearer = format!("Bearer {}", made["token"].as_str().expect("a token"));
    let headers = [("content-type", "text/typescript"), ("authorization", bearer.as_str()), server.admin()];
    let published = server.http("PUT", "/v1/database/people", &headers, MODULE.as_bytes()).await;
    assert_eq!(published.status, 200, "{published:?}");
    (server, bearer, made["identity"].as_str().expect("an identity").to_owned())
}

async fn sql(server: &TestServer, bearer: Option<&str>, text: &str) -> Reply {
    let headers: Vec<(&str, &str)> = bearer.map(|bearer| ("authorization", bearer)).into_iter().collect();
    server.http("POST", "/v1/database/people/sql", &headers, text.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_changes_rows_and_subscribers_hear_of_it() {
    let (server, bearer, _) = owned().await;
    let owner = Some(bearer.as_str());
    let mut client = server.connect("").await;
    client.greet().await;
    client.send(&[subscribe(1, 1, "SELECT * FROM person")]).await;
    assert!(matches!(client.recv().await, ServerMessage::SubscribeApplied { .. }));
    let steps = [
        (
            "INSERT INTO mark (who, at, big, ratio, raw, good) VALUES (:sender, 0, 1, 1.5, 0x00, TRUE)",
            400,
            [0, 0, 0],
            None,
        ),
        ("DELETE FROM person", 200, [0, 0, 0], None),
        ("INSERT INTO secret VALUES (1), (2)", 200, [2, 0, 0], None),
        ("DELETE FROM secret WHERE id = 1", 200, [0, 1, 0], None),
        ("UPDATE secret SET id = 3", 200, [0, 0, 1], None),
        ("INSERT INTO secret VALUES (4), (3)", 400, [0, 0, 0], None),
        ("SELECT * FROM secret", 200, [0, 0, 0], Some(json!([[3]]))),
    ];
    for (text, status, [inserted, deleted, updated], rows) in steps {
        let reply = sql(&server, owner, text).await;
        assert_eq!(reply.status, status, "{text}: {reply:?}");
        if status == 200 {
            let expected = json!({ "rows_inserted": inserted, "rows_deleted": deleted, "rows_updated": updated });
            assert_eq!(reply.json()[0]["stats"], expected, "{text}");
            assert_eq!(reply.json()[0]["rows"], rows.unwrap_or(json!([])), "{text}");
        }
    }
    server
        .http("POST", "/v1/database/people/call/add", &[("content-type", "application/json")], br#"[1, "Ada"]"#)
        .await;
    assert!(matches!(client.recv().await, ServerMessage::TransactionUpdate(_)));
    assert_eq!(sql(&server, owner, "UPDATE person SET name = 'Eve' WHERE id = 1").await.status, 200);
    let ServerMessage::TransactionUpdate(update) = client.recv().await else { panic!("an update") };
    let TableUpdateRows::Persistent { inserts, deletes } = &update.query_sets[0].tables[0].rows else { panic!("rows") };
    assert_eq!((inserts.len(), deletes.len()), (1, 1));
    for text in ["DELETE FROM person", "INSERT INTO secret VALUES (9)", "SET row_limit TO 1"] {
        let refused = sql(&server, None, text).await;
        assert_eq!((refused.status, refused.header("tine-error")), (400, Some("TN0416")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_row_limit_is_for_others() {
    let (server, bearer, _) = owned().await;
    let owner = Some(bearer.as_str());
    assert_eq!(sql(&server, owner, "SHOW row_limit").await.json()[0]["rows"], json!([]));
    for id in 0..3 {
        let body = format!(r#"[{id}, "x"]"#);
        let json = [("content-type", "application/json")];
        server.http("POST", "/v1/database/people/call/add", &json, body.as_bytes()).await;
    }
    assert_eq!(sql(&server, owner, "SET row_limit TO 2").await.status, 200);
    assert_eq!(sql(&server, None, "SHOW row_limit").await.json()[0]["rows"], json!([[2]]));
    assert_eq!(sql(&server, owner, "SELECT * FROM st_var").await.json()[0]["rows"], json!([["row_limit", [0, 2]]]));
    assert_eq!(sql(&server, None, "SELECT * FROM person").await.status, 400);
    assert_eq!(sql(&server, None, "SELECT * FROM person WHERE id = 2").await.status, 200);
    assert_eq!(sql(&server, owner, "SELECT * FROM person").await.status, 200);
    let mut client = server.connect("").await;
    client.greet().await;
    client.send(&[subscribe(1, 1, "SELECT * FROM person")]).await;
    let ServerMessage::SubscriptionError { error, .. } = client.recv().await else { panic!("refused") };
    assert!(error.contains("more than 2 rows"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn system_tables_tell_others_only_what_they_may_know() {
    let (server, bearer, owner_identity) = owned().await;
    let owner = Some(bearer.as_str());
    let names = async |bearer| {
        let reply = sql(&server, bearer, "SELECT table_name FROM st_table").await.json()[0]["rows"].clone();
        let mut names: Vec<String> = serde_json::from_value::<Vec<(String,)>>(reply)
            .expect("rows of one name")
            .into_iter()
            .map(|(name,)| name)
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(None).await, ["mark", "person"]);
    assert_eq!(names(owner).await, ["mark", "person", "secret"]);
    let joined = "SELECT c.col_name FROM st_table t JOIN st_column c ON t.table_id = c.table_id \
                  WHERE t.table_name = 'person'";
    assert_eq!(sql(&server, None, joined).await.json()[0]["rows"], json!([["id"], ["name"], ["best_friend"]]));
    for private in ["st_module", "st_connection_credentials", "st_row_level_security"] {
        let text = format!("SELECT * FROM {private}");
        assert_eq!(sql(&server, None, &text).await.header("tine-error"), Some("TN0407"), "{private}");
        assert_eq!(sql(&server, owner, &text).await.status, 200, "{private}");
    }
    let module = sql(&server, owner, "SELECT owner_identity, program_bytes FROM st_module").await.json();
    let row = &module[0]["rows"][0];
    assert_eq!(row[0], json!([format!("0x{owner_identity}")]), "{module}");
    assert!(row[1].as_str().is_some_and(|hex| hex.len() > 2 * MODULE.len()), "{module}");

    let mut client = server.connect("").await;
    let (identity, _) = client.greet().await;
    let counted = "SELECT COUNT(*) AS n FROM st_client";
    assert_eq!(sql(&server, owner, counted).await.json()[0]["rows"], json!([[1]]));
    assert_eq!(sql(&server, None, counted).await.json()[0]["rows"], json!([[0]]), "other clients are hidden");
    use tine_types::protocol::ClientMessage;
    for (request_id, query) in (2..).zip(["SELECT * FROM st_client", "SELECT * FROM st_event_table"]) {
        client.send(&[ClientMessage::OneOffQuery { request_id, query: query.into() }]).await;
        let ServerMessage::OneOffQueryResult { result, .. } = client.recv().await else { panic!("a result") };
        let rows = result.unwrap_or_else(|error| panic!("{query}: {error}")).tables.remove(0).rows;
        assert_eq!(rows.len(), if query.contains("client") { 1 } else { 0 }, "{identity} sees itself");
    }
    client.send(&[subscribe(9, 9, "SELECT * FROM st_client")]).await;
    assert!(matches!(client.recv().await, ServerMessage::SubscriptionError { request_id: Some(9), .. }));
    for text in ["DELETE FROM st_table", "INSERT INTO st_var VALUES ('row_limit', 1)"] {
        assert_eq!(sql(&server, owner, text).await.header("tine-error"), Some("TN0407"), "{text}");
    }
}
