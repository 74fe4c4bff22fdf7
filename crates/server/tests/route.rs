//! A module's own HTTP handlers, below `/v1/database/:name/route`.

mod common;

use common::TestServer;

const MODULE: &str = r#"
import { Router, schema, SyncResponse, table, t } from "tine:server";

const hit = table({ public: true }, { id: t.u32().primaryKey().autoInc(), path: t.string() });
const db = schema({ hit });
export default db;

export const echo = db.httpHandler((ctx, request) => {
  ctx.withTx(tx => tx.db.hit.insert({ id: 0, path: request.url }));
  return new SyncResponse(`${request.method} ${request.url} ${request.headers.get("x-name")} ${request.text()}`, {
    status: 201,
    headers: { "content-type": "text/x-echo", "x-answer": "yes", connection: "close" },
  });
});
export const broken = db.httpHandler(() => { throw new Error("secret reason"); });
export const routes = db.httpRouter(new Router().post("/echo", echo).get("", echo).any("/deep/broken", broken));
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_answer_for_themselves() {
    let server = TestServer::start().await;
    let published = server
        .http("PUT", "/v1/database/site", &[("content-type", "text/typescript"), server.admin()], MODULE.as_bytes())
        .await;
    assert_eq!(published.status, 200, "{published:?}");
    let base = "/v1/database/site/route";
    // A token that is none of ours is the handler's business.
    let headers = [("x-name", "Ada"), ("authorization", "Bearer nonsense")];
    let reply = server.http("POST", &format!("{base}/echo?q=1"), &headers, b"body").await;
    assert_eq!((reply.status, reply.header("content-type")), (201, Some("text/x-echo")), "{reply:?}");
    assert!(reply.body.starts_with("POST ") && reply.body.ends_with(" Ada body"), "{reply:?}");
    assert!(reply.body.contains("/echo?q=1"), "{reply:?}");
    assert_eq!(reply.header("x-answer"), Some("yes"));
    assert_eq!(reply.header("spacetime-identity-token"), None, "nobody is identified");
    assert!(reply.header("tine-lsn").is_some());
    assert_eq!(server.get(base).await.status, 201);
    for (method, path) in [("GET", "/echo"), ("POST", "/nothing"), ("GET", "/")] {
        let reply = server.http(method, &format!("{base}{path}"), &[], b"").await;
        assert_eq!((reply.status, reply.header("tine-error")), (404, Some("TN0740")), "{method} {path}");
    }
    let failed = server.http("PATCH", &format!("{base}/deep/broken"), &[], b"").await;
    assert_eq!(failed.status, 500, "{failed:?}");
    assert!(!failed.body.contains("secret"), "{failed:?}");
    assert_eq!(server.get("/v1/database/nobody/route/echo").await.status, 404);
    let rows = server.http("POST", "/v1/database/site/sql", &[], b"SELECT COUNT(*) AS n FROM hit").await;
    assert_eq!(rows.json()[0]["rows"], serde_json::json!([[2]]));
}
