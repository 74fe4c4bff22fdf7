//! The HTTP routes of a real server.

mod common;

use std::time::{Duration, Instant};

use common::{MODULE, TestServer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A name and a value.
type Header<'a> = (&'a str, &'a str);

const JSON: Header<'static> = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identities_and_tokens() {
    let server = TestServer::start().await;
    let made = server.http("POST", "/v1/identity", &[], b"").await.json();
    let identity = made["identity"].as_str().expect("an identity").to_owned();
    assert!(identity.starts_with("c200") && identity.len() == 64);
    let bearer = format!("Bearer {}", made["token"].as_str().expect("a token"));
    let with_token = [("authorization", bearer.as_str())];
    let short = server.http("POST", "/v1/identity/websocket-token", &with_token, b"").await;
    assert_eq!(short.status, 200);
    let short = short.json()["token"].as_str().expect("a token").to_owned();
    let other =
        server.http("POST", "/v1/identity", &[], b"").await.json()["identity"].as_str().expect("one").to_owned();
    let verify = format!("/v1/identity/{identity}/verify");
    let by_parameter = format!("{verify}?token={short}");
    let cases: [(&str, &str, &[Header], u16, &str); 8] = [
        ("GET", &verify, &with_token, 204, ""),
        ("GET", &by_parameter, &[], 204, ""),
        ("GET", &format!("/v1/identity/{other}/verify"), &with_token, 400, "TN0733"),
        ("GET", &verify, &[], 401, "TN0716"),
        ("GET", &verify, &[("authorization", "Bearer a.b.c")], 401, "TN0710"),
        ("GET", &verify, &[("authorization", "Basic x")], 400, "TN0715"),
        ("GET", "/v1/identity/nonsense/verify", &with_token, 400, "TN0723"),
        ("POST", "/v1/identity/websocket-token", &[], 401, "TN0716"),
    ];
    for (method, path, headers, status, code) in cases {
        let reply = server.http(method, path, headers, b"").await;
        assert_eq!((reply.status, reply.header("tine-error").unwrap_or("")), (status, code), "{method} {path}");
    }
    let key = server.get("/v1/identity/public-key").await;
    assert_eq!(key.header("content-type"), Some("application/pem-certificate-chain"));
    assert!(key.body.starts_with("-----BEGIN PUBLIC KEY-----"));
    let owned = server.get(&format!("/v1/identity/{identity}/databases")).await;
    assert_eq!(owned.json(), json!({ "identities": [] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_needs_the_admin_and_updating_the_owner() {
    let server = TestServer::start().await;
    let made = server.http("POST", "/v1/identity", &[], b"").await.json();
    let bearer = format!("Bearer {}", made["token"].as_str().expect("a token"));
    let stranger = ("authorization", bearer.as_str());
    let admin_bearer = format!("Bearer {}", server.admin_token);
    let typescript = ("content-type", "text/typescript");
    let path = "/v1/database/people";
    let body = MODULE.as_bytes();
    let refused = server.http("PUT", path, &[typescript, stranger], body).await;
    assert_eq!((refused.status, refused.header("tine-error")), (403, Some("TN0605")), "{refused:?}");
    let broken = server.http("PUT", path, &[typescript, server.admin()], b"export default (").await;
    assert_eq!(broken.status, 400, "{broken:?}");
    assert!(broken.body.starts_with("Failed to create or update the database: "), "{broken:?}");
    let created = server.http("PUT", path, &[typescript, stranger, server.admin()], body).await;
    assert_eq!(created.json()["Success"]["op"], "created");
    assert_eq!(created.json()["Success"]["domain"], "people");
    // Owned by the bearer, who needs no admin token any more; the administrator may do anything.
    let updated = server.http("PUT", path, &[typescript, stranger], body).await;
    assert_eq!(updated.json()["Success"]["op"], "updated", "{updated:?}");
    let updated = server.http("PUT", path, &[typescript, ("authorization", &admin_bearer)], body).await;
    assert_eq!(updated.status, 200, "{updated:?}");
    let anonymous = server.http("PUT", path, &[typescript], body).await;
    assert_eq!((anonymous.status, anonymous.header("tine-error")), (403, Some("TN0604")));
    let wrong = server.http("PUT", path, &[typescript, ("tine-admin-token", "x")], body).await;
    assert_eq!(wrong.status, 401);
    for (query, code) in [
        ("policy=x", "TN0723"),
        ("policy=BreakClients", "TN0723"),
        ("host_type=Wasm", "TN0736"),
        ("host_type=x", "TN0723"),
    ] {
        let reply = server.http("PUT", &format!("{path}?{query}"), &[stranger], body).await;
        assert_eq!((reply.status, reply.header("tine-error")), (400, Some(code)), "{query}");
    }
    let listed = server.http("GET", "/v1/database", &[stranger], b"").await.json();
    assert_eq!(listed["databases"][0]["name"], "people");
    assert_eq!(listed["databases"][0]["forks"][0]["name"], "main");
    assert_eq!(server.get("/v1/database").await.json(), json!({ "databases": [] }));
    let shown = server.get(path).await.json();
    let owner = format!("0x{}", made["identity"].as_str().expect("an identity"));
    assert_eq!(shown["owner_identity"], json!({ "__identity__": owner }));
    assert_eq!(server.get("/v1/database/people/names").await.json(), json!({ "names": ["people"] }));
    let identity = server.get("/v1/database/people/identity").await.body;
    assert_eq!(server.get(&format!("/v1/database/{identity}/names")).await.status, 200);
    assert_eq!(server.http("DELETE", path, &[], b"").await.status, 403);
    assert_eq!(server.http("DELETE", path, &[stranger], b"").await.status, 200);
    assert_eq!(server.http("DELETE", path, &[stranger], b"").await.status, 200);
    assert_eq!(server.get(path).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_may_publish_when_it_is_open() {
    let server = TestServer::start_with(|options| options.host.open_publish = true).await;
    let reply = server.http("POST", "/v1/database?host_type=Ts", &[], MODULE.as_bytes()).await;
    assert_eq!(reply.json()["Success"]["domain"], Value::Null, "{reply:?}");
    let identity = reply.json()["Success"]["database_identity"].as_str().expect("an identity").to_owned();
    assert_eq!(server.get(&format!("/v1/database/{identity}/schema?version=10")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_and_their_failures() {
    let server = TestServer::with_people().await;
    let cases: [(&str, &[Header], &str, u16, &str); 16] = [
        ("add", &[JSON], r#"[1, "Ada"]"#, 200, ""),
        ("add", &[JSON], r#"{"name": "Bob", "id": 2}"#, 200, ""),
        ("noop", &[("content-type", "application/json; charset=utf-8")], "[]", 200, ""),
        ("noop", &[JSON], "", 200, ""),
        ("twice", &[JSON], "[9007199254740993]", 200, "18014398509481986"),
        ("add", &[JSON], r#"[3, ""]"#, 530, "a name is needed"),
        ("fail", &[JSON], "[]", 530, ""),
        ("add", &[JSON], r#"["x", 1]"#, 400, ""),
        ("add", &[JSON], "[1", 400, ""),
        ("add", &[JSON], "7", 400, ""),
        ("nothing", &[JSON], "[]", 404, "No such procedure"),
        ("setUp", &[JSON], "[]", 400, "lifecycle"),
        ("set_up", &[JSON], "[]", 400, "lifecycle"),
        ("noop", &[], "[]", 400, ""),
        ("noop", &[("content-type", "text/plain")], "[]", 415, ""),
        ("noop?confirmed=perhaps", &[JSON], "[]", 400, ""),
    ];
    for (function, headers, body, status, text) in cases {
        let reply =
            server.http("POST", &format!("/v1/database/people/call/{function}"), headers, body.as_bytes()).await;
        assert_eq!(reply.status, status, "{function} {body}: {reply:?}");
        assert!(reply.body.contains(text), "{function} {body}: {reply:?}");
        assert_eq!(reply.header("tine-error").is_some(), status != 200, "{function} {body}");
        assert!(reply.header("spacetime-identity-token").is_some());
        if status == 200 {
            assert!(reply.header("tine-lsn").is_some(), "{function}");
        }
    }
    let unknown = server.http("POST", "/v1/database/nobody/call/x", &[JSON], b"[]").await;
    assert_eq!((unknown.status, unknown.body.as_str()), (404, "`nobody` not found"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements() {
    let server = TestServer::with_people().await;
    server.http("POST", "/v1/database/people/call/add", &[JSON], br#"[1, "Ada"]"#).await;
    let path = "/v1/database/people/sql";
    let reply = server.http("POST", path, &[], b"SELECT * FROM person").await;
    let result = &reply.json()[0];
    assert_eq!(result["rows"], json!([[1, "Ada", [1, []]]]), "{reply:?}");
    assert_eq!(result["schema"]["elements"][2]["name"], json!({ "some": "best_friend" }));
    assert!(result["total_duration_micros"].is_u64() && result["stats"]["rows_inserted"] == 0);
    let count = server.http("POST", &format!("{path}?confirmed=false"), &[], b"SELECT COUNT(*) AS n FROM person").await;
    assert_eq!(count.json()[0]["rows"], json!([[1]]));
    for statement in
        ["SELEC", "SELECT * FROM nothing", "SELECT * FROM person; SELECT 1", "SELECT * FROM secret", "\u{1f980}"]
    {
        let reply = server.http("POST", path, &[], statement.as_bytes()).await;
        assert_eq!(reply.status, 400, "{statement}: {reply:?}");
        assert!(reply.header("tine-error").is_some());
    }
    let not_text = server.http("POST", path, &[], &[0xff, 0xfe]).await;
    assert_eq!((not_text.status, not_text.header("tine-error")), (400, Some("TN0724")));
    let schema = server.get("/v1/database/people/schema?version=10").await.json();
    assert!(schema["sections"].is_array());
    assert_eq!(server.get("/v1/database/people/schema").await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forks_are_databases() {
    let server = TestServer::with_people().await;
    let forks = "/v1/database/people/forks";
    let body = br#"{"name": "what-if", "ephemeral": true}"#;
    assert_eq!(server.http("POST", forks, &[JSON], body).await.status, 403);
    let made = server.http("POST", forks, &[JSON, server.admin()], body).await;
    assert_eq!((made.status, made.json()["durability"].as_str()), (201, Some("ephemeral")), "{made:?}");
    assert_eq!(made.json()["parent"]["fork"], "main");
    assert_eq!(server.http("POST", forks, &[JSON, server.admin()], body).await.status, 409);
    for (body, code) in [("{", "TN0724"), ("[]", "TN0724"), ("{}", "TN0724"), (r#"{"name":"A B"}"#, "TN0603")] {
        let reply = server.http("POST", forks, &[JSON, server.admin()], body.as_bytes()).await;
        assert_eq!((reply.status, reply.header("tine-error")), (400, Some(code)), "{body}");
    }
    let add = server.http("POST", "/v1/database/people@what-if/call/add", &[JSON], br#"[1, "Ada"]"#).await;
    assert_eq!(add.status, 200, "{add:?}");
    let rows = async |address: &str| {
        let reply = server.http("POST", &format!("/v1/database/{address}/sql"), &[], b"SELECT name FROM person").await;
        reply.json()[0]["rows"].clone()
    };
    assert_eq!(rows("people%40what-if").await, json!([["Ada"]]));
    assert_eq!(rows("people").await, json!([]));
    let identity = server.get("/v1/database/people@what-if/identity").await.body;
    assert_eq!(rows(&identity).await, json!([["Ada"]]));
    let fork = format!("{forks}/what-if");
    let renamed = server.http("PATCH", &fork, &[JSON, server.admin()], br#"{"name": "done"}"#).await;
    assert_eq!(renamed.json()["name"], "done", "{renamed:?}");
    assert_eq!(server.get(&fork).await.status, 404);
    assert_eq!(server.http("DELETE", "/v1/database/people", &[server.admin()], b"").await.status, 409);
    let names: Vec<Value> = server.get(forks).await.json()["forks"]
        .as_array()
        .expect("forks")
        .iter()
        .map(|fork| fork["name"].clone())
        .collect();
    assert_eq!(names, ["main", "done"]);
    assert_eq!(server.http("DELETE", &format!("{forks}/main"), &[server.admin()], b"").await.status, 400);
    assert_eq!(server.http("DELETE", &format!("{forks}/done"), &[server.admin()], b"").await.status, 204);
    assert_eq!(server.http("DELETE", "/v1/database/people", &[server.admin()], b"").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_the_owners_and_can_be_followed() {
    let server = TestServer::with_people().await;
    let say = async |text: &str| {
        let body = json!([text]).to_string();
        server.http("POST", "/v1/database/people/call/say", &[JSON], body.as_bytes()).await
    };
    for text in ["one", "two", "three"] {
        assert_eq!(say(text).await.status, 200);
    }
    let path = "/v1/database/people/logs";
    assert_eq!(server.get(path).await.status, 403);
    let last = server.http("GET", &format!("{path}?num_lines=2"), &[server.admin()], b"").await;
    assert_eq!(last.header("content-type"), Some("application/x-ndjson"));
    let records: Vec<Value> = last.body.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    assert_eq!(records.len(), 2);
    assert_eq!((&records[1]["message"], &records[1]["level"]), (&json!("three"), &json!("Info")));
    assert_eq!(server.http("GET", &format!("{path}?num_lines=x"), &[server.admin()], b"").await.status, 400);

    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    let head = format!(
        "GET {path}?num_lines=1&follow=true HTTP/1.1\r\nhost: x\r\ntine-admin-token: {}\r\n\r\n",
        server.admin_token
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut text = String::new();
    for expected in ["three", "four"] {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !text.contains(expected) {
            assert!(Instant::now() < deadline, "{text}");
            let mut bytes = [0; 4096];
            let count = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut bytes))
                .await
                .expect("in time")
                .expect("read");
            text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        if expected == "three" {
            say("four").await;
        }
    }
    assert!(!text.contains("two"));
    assert_eq!(text.matches("\"three\"").count(), 1);
    // A follower does not hold up the end of the server.
    let started = Instant::now();
    server.server.shutdown(Duration::from_secs(10)).await.expect("an orderly end");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_about_itself() {
    let server = TestServer::with_people().await;
    for (path, text) in [("/v1/ping", ""), ("/livez", "ok"), ("/readyz", "ok"), ("/v1/health", "\"schedulable\":true")]
    {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.body.contains(text), "{path}: {reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{path}");
    }
    let client = server.get("/tine/client.js").await;
    assert_eq!(client.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert!(client.body.contains("export async function connect"));
    for page in ["client.d.ts", "rows.js", "schema.js"] {
        assert_eq!(server.get(&format!("/tine/{page}")).await.status, 200);
    }
    assert_eq!(server.get("/nothing").await.header("tine-error"), Some("TN0731"));
    assert_eq!(server.http("PUT", "/v1/ping", &[], b"").await.status, 405);
    let preflight = [("origin", "http://x"), ("access-control-request-method", "POST")];
    let reply = server.http("OPTIONS", "/v1/database/people/sql", &preflight, b"").await;
    assert_eq!((reply.status, reply.header("access-control-allow-methods")), (200, Some("*")), "{reply:?}");
    assert!(reply.header("access-control-allow-headers").is_some_and(|names| names.contains("authorization")));
    let metrics = server.get("/v1/metrics").await;
    for name in ["tine_databases 1", "tine_connections ", "tine_limit{name=\"outgoing_messages\"} 16384"] {
        assert!(metrics.body.contains(name), "{name} in {}", metrics.body);
    }
    let upgrade = server.get("/v1/database/people/subscribe").await;
    assert_eq!((upgrade.status, upgrade.header("upgrade")), (426, Some("websocket")), "{upgrade:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_of_requests() {
    let server = TestServer::start_with(|options| {
        options.limits.body_bytes_max = 60_000;
        options.limits.publish_bytes_max = 5000;
        options.limits.head_timeout = Duration::from_millis(300);
        options.limits.connections_max = 3;
    })
    .await;
    server.publish_people().await;
    let call = "/v1/database/people/call/noop";
    let reply = server.http("POST", call, &[JSON], &[b' '; 60_001]).await;
    assert_eq!((reply.status, reply.header("tine-error")), (413, Some("TN0725")), "{reply:?}");
    let chunked = [JSON, ("transfer-encoding", "chunked")];
    let body = format!("{:x}\r\n{}\r\n0\r\n\r\n", 70_000, " ".repeat(70_000));
    let mut stream = TcpStream::connect(server.address).await.expect("connected");
    let head: String = chunked.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("POST {call} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("read");
    assert!(reply.starts_with("HTTP/1.1 413"), "{reply}");
    let large = server.http("PUT", "/v1/database/large", &[server.admin()], &[b'x'; 5001]).await;
    assert_eq!(large.status, 413);
    let statement = server.http("POST", "/v1/database/people/sql", &[], &[b'x'; 50_001]).await;
    assert_eq!((statement.status, statement.header("tine-error")), (400, Some("TN0737")), "{statement:?}");

    // A head that does not end is given up, and makes room for others.
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.address).await.expect("connected");
        stream.write_all(b"GET /livez HTTP/1.1\r\nx: ").await.expect("sent");
        slow.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut refused = TcpStream::connect(server.address).await.expect("connected");
    let mut nothing = Vec::new();
    let _ = refused.read_to_end(&mut nothing).await;
    assert!(nothing.is_empty(), "a fourth connection is not served");
    for stream in &mut slow {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "a silent head is given up");
    }
    assert_eq!(server.get("/livez").await.status, 200);
    assert_eq!(server.metric("tine_connections_refused_total").await, 1);
}
