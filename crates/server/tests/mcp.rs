//! Databases as tools, and the small routes that other systems ask.

mod common;

use common::{Reply, TestServer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A name and a value.
type Header<'a> = (&'a str, &'a str);
/// A request with its headers and body, and the status and code it is refused with.
type Refused<'a> = (&'a str, &'a str, &'a [Header<'a>], &'a str, u16, &'a str);

const JSON: Header<'static> = ("content-type", "application/json");
const PEOPLE: &str = "/v1/database/people/mcp";
const HOST: &str = "/v1/mcp";

async fn post(server: &TestServer, path: &str, body: &Value) -> Reply {
    server.http("POST", path, &[JSON], body.to_string().as_bytes()).await
}

async fn request(server: &TestServer, path: &str, method: &str, params: Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    let reply = post(server, path, &body).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{reply:?}");
    let reply = reply.json();
    assert_eq!((&reply["jsonrpc"], &reply["id"]), (&json!("2.0"), &json!(7)));
    reply
}

/// Calls a tool; what it answered, or the code and text of its failure.
async fn tool(server: &TestServer, path: &str, name: &str, arguments: Value) -> Result<Value, (String, String)> {
    let reply = request(server, path, "tools/call", json!({ "name": name, "arguments": arguments })).await;
    let result = &reply["result"];
    assert_eq!(result["content"][0]["type"], "text", "{reply}");
    let text = result["content"][0]["text"].as_str().expect("text").to_owned();
    if result["isError"] == false {
        return Ok(serde_json::from_str(&text).expect("a result in JSON"));
    }
    let code = result["_meta"]["tine-error"].as_str().expect("a code").to_owned();
    assert!(text.starts_with(&format!("{code}: ")), "{text}");
    Err((code, text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_greets_and_learns_the_tools() {
    let server = TestServer::with_people().await;
    for (asked, agreed) in [
        (json!("2024-11-05"), "2024-11-05"),
        (json!("2025-03-26"), "2025-03-26"),
        (json!("2025-06-18"), "2025-06-18"),
        (json!("2025-11-25"), "2025-11-25"),
        (json!("1999-01-01"), "2025-11-25"),
        (json!(5), "2025-11-25"),
    ] {
        let params = json!({ "protocolVersion": asked, "capabilities": {}, "clientInfo": { "name": "x" } });
        let result = request(&server, HOST, "initialize", params).await["result"].clone();
        assert_eq!(result["protocolVersion"], agreed, "{asked}");
        assert_eq!((&result["serverInfo"]["name"], &result["capabilities"]["tools"]), (&json!("tine"), &json!({})));
    }
    let notified = post(&server, PEOPLE, &json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
    assert_eq!((notified.status, notified.body.as_str()), (202, ""), "{notified:?}");
    assert_eq!(request(&server, PEOPLE, "ping", json!({})).await["result"], json!({}));

    let of_database: [(&str, Value); 4] =
        [("ping", json!([])), ("get_schema", json!([])), ("sql", json!(["query"])), ("call", json!(["function"]))];
    let of_host: [(&str, Value); 5] = [
        ("list_databases", json!([])),
        ("ping", json!(["database"])),
        ("get_schema", json!(["database"])),
        ("sql", json!(["database", "query"])),
        ("call", json!(["database", "function"])),
    ];
    for (path, expected) in [(PEOPLE, &of_database[..]), (HOST, &of_host[..])] {
        let listed = request(&server, path, "tools/list", json!({})).await;
        let tools = listed["result"]["tools"].as_array().expect("tools");
        assert_eq!(tools.len(), expected.len(), "{listed}");
        for (tool, (name, required)) in tools.iter().zip(expected) {
            let schema = &tool["inputSchema"];
            assert_eq!((&tool["name"], &schema["required"]), (&json!(name), required), "{path}");
            assert_eq!((&schema["type"], &schema["additionalProperties"]), (&json!("object"), &json!(false)));
            assert_eq!(tool["annotations"]["readOnlyHint"], *name != "call");
            let properties = schema["properties"].as_object().expect("properties");
            assert!(
                required.as_array().expect("names").iter().all(|one| properties.contains_key(one.as_str().unwrap()))
            );
            assert!(tool["description"].as_str().is_some_and(|text| !text.is_empty()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_proper_message_is_refused() {
    let server = TestServer::with_people().await;
    let cases = [
        ("{", 400, -32700, Value::Null),
        ("", 400, -32700, Value::Null),
        ("7", 400, -32600, Value::Null),
        ("[]", 400, -32600, Value::Null),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, 400, -32600, Value::Null),
        (r#"{"id":1,"method":"ping"}"#, 400, -32600, Value::Null),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, 400, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, 400, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#, 400, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1}"#, 400, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, 400, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":"a","method":"resources/list"}"#, 200, -32601, json!("a")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, 200, -32602, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[1]}"#, 200, -32602, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"drop"}}"#, 200, -32602, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_databases"}}"#, 200, -32602, json!(1)),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ping","arguments":[]}}"#,
            200,
            -32602,
            json!(1),
        ),
    ];
    for (body, status, code, id) in cases {
        let reply = server.http("POST", PEOPLE, &[JSON], body.as_bytes()).await;
        assert_eq!(reply.status, status, "{body}: {reply:?}");
        let reply = reply.json();
        assert_eq!((&reply["error"]["code"], &reply["id"]), (&json!(code), &id), "{body}: {reply}");
        assert!(reply.get("result").is_none() && reply["error"]["message"].is_string());
    }
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    for (version, status) in [("2025-06-18", 200), ("1999-01-01", 400)] {
        let headers = [JSON, ("mcp-protocol-version", version)];
        assert_eq!(server.http("POST", PEOPLE, &headers, ping.as_bytes()).await.status, status, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_route_refuses_is_refused_here() {
    let server = TestServer::start_with(|options| options.limits.body_bytes_max = 5000).await;
    server.publish_people().await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let large = " ".repeat(5001);
    let cases: [Refused; 7] = [
        ("POST", "/v1/database/nobody/mcp", &[JSON], &ping, 404, "TN0601"),
        ("POST", PEOPLE, &[], &ping, 400, "TN0726"),
        ("POST", HOST, &[("content-type", "text/plain")], &ping, 415, "TN0727"),
        ("POST", PEOPLE, &[JSON], &large, 413, "TN0725"),
        ("POST", HOST, &[JSON], &large, 413, "TN0725"),
        ("POST", HOST, &[JSON, ("authorization", "Bearer a.b.c")], &ping, 401, "TN0710"),
        ("GET", HOST, &[], "", 405, "TN0732"),
    ];
    for (method, path, headers, body, status, code) in cases {
        let reply = server.http(method, path, headers, body.as_bytes()).await;
        assert_eq!((reply.status, reply.header("tine-error")), (status, Some(code)), "{method} {path} {reply:?}");
    }
    let reply = server.http("POST", HOST, &[JSON], ping.as_bytes()).await;
    assert!(reply.header("spacetime-identity-token").is_some(), "a caller without a token gets one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_of_one_database() {
    let server = TestServer::with_people().await;
    let by_order = tool(&server, PEOPLE, "call", json!({ "function": "add", "arguments": [1, "Ada"] })).await;
    let by_order = by_order.expect("called");
    assert!(by_order["lsn"].is_u64() && by_order.get("returned").is_none(), "{by_order}");
    let by_name = json!({ "function": "add", "arguments": { "name": "Bob", "id": 2 } });
    tool(&server, PEOPLE, "call", by_name).await.expect("called");
    tool(&server, PEOPLE, "call", json!({ "function": "noop" })).await.expect("called without arguments");
    let number = json!({ "function": "twice", "arguments": [9_007_199_254_740_993_u64] });
    let returned = tool(&server, PEOPLE, "call", number).await.expect("called")["returned"].clone();
    assert_eq!(returned, json!(18_014_398_509_481_986_u64));
    let rows = tool(&server, PEOPLE, "sql", json!({ "query": "SELECT name FROM person" })).await.expect("rows");
    let mut names: Vec<&str> =
        rows["rows"].as_array().expect("rows").iter().filter_map(|row| row[0].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["Ada", "Bob"]);
    assert_eq!(rows["schema"]["elements"][0]["name"], json!({ "some": "name" }));
    let schema = tool(&server, PEOPLE, "get_schema", json!({})).await.expect("a schema");
    assert_eq!(schema, server.get("/v1/database/people/schema?version=10").await.json());
    let ping = tool(&server, PEOPLE, "ping", Value::Null).await.expect("there");
    assert_eq!((ping["fork"].as_str(), ping["database_identity"].is_string()), (Some("main"), true));

    let long = format!("SELECT {}", "x".repeat(50_000));
    let failures = [
        ("call", json!({ "function": "add", "arguments": [3, ""] }), "a name is needed"),
        ("call", json!({ "function": "fail" }), "TN0531"),
        ("call", json!({ "function": "add", "arguments": ["x", 1] }), ""),
        ("call", json!({ "function": "nothing" }), "No such procedure"),
        ("call", json!({ "function": "setUp" }), "TN0738"),
        ("call", json!({ "function": "noop", "arguments": 7 }), "TN0723"),
        ("call", json!({ "function": 7 }), "TN0723"),
        ("call", json!({}), "TN0723"),
        ("sql", json!({}), "TN0723"),
        ("sql", json!({ "query": "SELEC" }), ""),
        ("sql", json!({ "query": "SELECT * FROM secret" }), ""),
        ("sql", json!({ "query": "DELETE FROM person" }), ""),
        ("sql", json!({ "query": "INSERT INTO person (id, name) VALUES (9, 'Eve')" }), ""),
        ("sql", json!({ "query": long }), "TN0737"),
        // Not for another database than the one of the address.
        ("ping", json!({ "database": "other" }), "TN0723"),
    ];
    for (name, arguments, expected) in failures {
        let outcome = tool(&server, PEOPLE, name, arguments.clone()).await;
        let (code, text) = outcome.expect_err("a failure");
        assert!(code.starts_with("TN") && text.contains(expected), "{name} {arguments}: {text}");
    }
    let count = json!({ "query": "SELECT COUNT(*) AS n FROM person" });
    assert_eq!(tool(&server, PEOPLE, "sql", count).await.expect("rows")["rows"], json!([[2]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_of_the_host_take_a_database() {
    let server = TestServer::with_people().await;
    let body = br#"{"name": "what-if"}"#;
    let made = server.http("POST", "/v1/database/people/forks", &[JSON, server.admin()], body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let add = json!({ "database": "people@what-if", "function": "add", "arguments": [1, "Ada"] });
    tool(&server, HOST, "call", add).await.expect("called");
    for (database, rows) in [("people", json!([])), ("people@what-if", json!([["Ada"]]))] {
        let query = json!({ "database": database, "query": "SELECT name FROM person" });
        assert_eq!(tool(&server, HOST, "sql", query).await.expect("rows")["rows"], rows, "{database}");
    }
    let ping = tool(&server, HOST, "ping", json!({ "database": "people@what-if" })).await.expect("there");
    assert_eq!(ping["fork"], "what-if");
    assert_eq!(tool(&server, "/v1/database/people@what-if/mcp", "ping", json!({})).await, Ok(ping));
    for (arguments, expected) in [(json!({}), "TN0723"), (json!({ "database": "nobody" }), "TN0601")] {
        let (code, text) = tool(&server, HOST, "get_schema", arguments).await.expect_err("a failure");
        assert_eq!(code, expected, "{text}");
    }
    // A stranger owns nothing; the administrator sees all.
    let nothing = tool(&server, HOST, "list_databases", json!({})).await;
    assert_eq!(nothing, Ok(json!({ "databases": [] })));
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "list_databases" } });
    let reply = server.http("POST", HOST, &[JSON, server.admin()], list.to_string().as_bytes()).await.json();
    let text = reply["result"]["content"][0]["text"].as_str().expect("text");
    let listed: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(
        (&listed["databases"][0]["name"], &listed["databases"][0]["forks"][1]["name"]),
        (&json!("people"), &json!("what-if"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_finds_the_metrics() {
    let server = TestServer::start().await;
    let expected = |host: &str| json!([{ "targets": [host], "labels": { "__metrics_path__": "/v1/metrics" } }]);
    let address = server.address.to_string();
    for (head, host) in [
        ("GET /v1/prometheus/sd_config HTTP/1.1\r\nhost: tine.example:3000\r\nconnection: close", "tine.example:3000"),
        ("GET /v1/prometheus/sd_config HTTP/1.0", address.as_str()),
    ] {
        let mut stream = TcpStream::connect(server.address).await.expect("connected");
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("read");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a reply");
        assert!(head.contains(" 200 ") && head.contains("content-type: application/json"), "{head}");
        assert_eq!(serde_json::from_str::<Value>(body).expect("JSON"), expected(host));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_energy() {
    let server = TestServer::start().await;
    let identity = server.http("POST", "/v1/identity", &[], b"").await.json()["identity"].clone();
    let path = format!("/v1/energy/{}", identity.as_str().expect("an identity"));
    let reply = server.get(&path).await;
    assert_eq!((reply.status, reply.json()), (200, json!({ "balance": "0" })));
    assert_eq!(server.http("PUT", &format!("{path}?balance=5"), &[], b"").await.header("tine-error"), Some("TN0732"));
    assert_eq!(server.get("/v1/energy/nonsense").await.header("tine-error"), Some("TN0723"));
}
