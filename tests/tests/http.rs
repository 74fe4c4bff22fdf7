//! The HTTP routes, byte for byte where clients depend on it.

use serde_json::{Value, json};
use tine_tests::{http::send, server::TestServer, wait};

#[test]
fn identities_and_tokens() {
    let server = TestServer::shared();
    let made = send(server, "POST", "/v1/identity", &[], b"").json();
    let identity = made["identity"].as_str().expect("an identity").to_owned();
    let token = made["token"].as_str().expect("a token").to_owned();
    assert!(identity.len() == 64 && identity.starts_with("c200"), "{identity}");
    let bearer = format!("Bearer {token}");
    let auth = [("authorization", bearer.as_str())];

    let short = send(server, "POST", "/v1/identity/websocket-token", &auth, b"");
    assert_eq!(short.status, 200);
    let short = short.json()["token"].as_str().expect("a token").to_owned();
    let short_bearer = format!("Bearer {short}");
    let verify = format!("/v1/identity/{identity}/verify");
    assert_eq!(send(server, "GET", &verify, &[("authorization", &short_bearer)], b"").status, 204);
    assert_eq!(send(server, "GET", &verify, &auth, b"").status, 204);
    let other = send(server, "POST", "/v1/identity", &[], b"").json();
    let other = other["identity"].as_str().expect("an identity");
    assert_eq!(send(server, "GET", &format!("/v1/identity/{other}/verify"), &auth, b"").status, 400);

    assert_eq!(send(server, "POST", "/v1/identity/websocket-token", &[], b"").status, 401);
    let key = send(server, "GET", "/v1/identity/public-key", &[], b"");
    assert!(key.body.starts_with("-----BEGIN PUBLIC KEY-----"), "{}", key.body);

    let mut forged = token.clone();
    let last = forged.pop().expect("not empty");
    forged.insert(forged.len() - 8, if last == 'A' { 'B' } else { 'A' });
    for bad in ["Bearer x.y.z".to_owned(), format!("Bearer {forged}"), format!("Bearer {token}x")] {
        let refused = send(server, "GET", &verify, &[("authorization", &bad)], b"");
        assert_eq!(refused.status, 401, "{bad}: {}", refused.body);
    }
    let malformed = send(server, "GET", &verify, &[("authorization", "Basic abc")], b"");
    assert!(matches!(malformed.status, 400 | 401), "{}", malformed.status);
}

#[test]
fn call_and_its_statuses() {
    let server = TestServer::shared();
    let owned = server.publish_probe("http-call");
    let json_type = [("content-type", "application/json")];
    let call = |function: &str, headers: &[(&str, &str)], body: &str| {
        send(server, "POST", &format!("/v1/database/http-call/call/{function}"), headers, body.as_bytes())
    };
    let done = call("add", &json_type, r#"["Ada", 36]"#);
    assert_eq!((done.status, done.body.as_str()), (200, ""));
    assert!(done.header("spacetime-execution-duration-micros").is_some());
    assert!(done.header("spacetime-identity").is_some_and(|identity| identity.len() == 64));
    assert!(done.header("spacetime-identity-token").is_some());
    assert_eq!(call("add", &json_type, r#"{"age": 7, "name": "Bo"}"#).status, 200, "an object by name works too");
    let procedure = call("population", &json_type, "[]");
    assert_eq!((procedure.status, procedure.json()), (200, json!(2)));

    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16);
    let cases: [Case<'_>; 14] = [
        ("refuse", &json_type, r#"["because"]"#, 530),
        ("trap", &json_type, "[]", 530),
        ("no_such_function", &json_type, "[]", 404),
        ("add", &json_type, "[]", 400),
        ("add", &json_type, r#"["Ada"]"#, 400),
        ("add", &json_type, r#"["Ada", -1]"#, 400),
        ("add", &json_type, r#"["Ada", 4294967296]"#, 400),
        ("add", &json_type, r#"["Ada", 1, 2]"#, 400),
        ("add", &json_type, r#"{"name": "Ada", "years": 1}"#, 400),
        ("add", &json_type, "not json", 400),
        ("add", &json_type, "", 400),
        ("init", &json_type, "[]", 400),
        ("add", &[], r#"["Ada", 1]"#, 400),
        ("add", &[("content-type", "text/plain")], r#"["Ada", 1]"#, 415),
    ];
    for (function, headers, body, status) in cases {
        let reply = call(function, headers, body);
        assert_eq!(reply.status, status, "{function} {body}: {}", reply.body);
        assert!(!reply.body.is_empty(), "{function} {body} is refused without a word");
        let code = reply.header("tine-error").unwrap_or_default();
        assert!(code.starts_with("TN") && code.len() == 6, "{function} {body}: no code");
    }
    assert_eq!(call("refuse", &json_type, r#"["because"]"#).body, "because", "the module's words as they are");
    let people = owned.client.sql("http-call", "SELECT * FROM person").expect("the query runs");
    assert_eq!(people[0].rows.len(), 2, "a refused call left something");
}

#[test]
fn sql_selects() {
    let server = TestServer::shared();
    let owned = server.publish_probe("http-sql");
    for (name, age) in [("Ada", 36), ("Bo", 7), ("Cleo", 36)] {
        owned.client.call("http-sql", "add", &json!([name, age])).expect("added");
    }
    let sql = |statement: &str| send(server, "POST", "/v1/database/http-sql/sql", &[], statement.as_bytes());
    let rows = |statement: &str| sql(statement).json()[0]["rows"].clone();
    assert_eq!(rows("SELECT * FROM person WHERE id = 1"), json!([[1, "Ada", 36]]));
    assert_eq!(rows("SELECT name AS who FROM person WHERE age < 30"), json!([["Bo"]]));
    assert_eq!(rows("SELECT COUNT(*) AS n FROM person"), json!([[3]]));
    assert_eq!(
        rows("SELECT * FROM person WHERE age = 36 AND (name = 'Ada' OR name <> 'Cleo')"),
        json!([[1, "Ada", 36]])
    );
    assert_eq!(rows("SELECT name FROM person WHERE age >= 7 LIMIT 2").as_array().map(Vec::len), Some(2));
    let reply = sql("SELECT id, name FROM person WHERE id = 2").json();
    assert_eq!(reply[0]["schema"]["elements"].as_array().map(Vec::len), Some(2), "{reply}");

    for bad in [
        "",
        "SELECT",
        "SELECT * FROM nowhere",
        "SELECT nothing FROM person",
        "SELECT * FROM person WHERE age = 'old'",
        "SELECT * FROM person ORDER BY age",
        "SELECT SUM(age) FROM person",
        "SELECT * FROM person; SELECT * FROM person",
        "SELECT * FROM person WHERE age + 1 = 2",
        "DROP TABLE person",
        "SELECT * FROM secret",
        "\u{0}",
        "SELECT 'open",
    ] {
        let reply = sql(bad);
        assert_eq!(reply.status, 400, "`{bad}`: {}", reply.body);
        assert!(!reply.body.is_empty(), "`{bad}` is refused without a word");
    }
    let secret = owned.client.sql("http-sql", "SELECT note FROM secret").expect("the owner reads private tables");
    assert_eq!(secret[0].rows.len(), 1);
}

#[test]
fn schema_logs_and_facts() {
    let server = TestServer::shared();
    let owned = server.publish_probe("http-facts");
    let bearer = format!("Bearer {}", owned.token);
    let auth = [("authorization", bearer.as_str())];

    let schema = send(server, "GET", "/v1/database/http-facts/schema?version=10", &[], b"").json();
    assert!(schema["sections"].is_array(), "{schema}");
    assert_eq!(send(server, "GET", "/v1/database/http-facts/schema", &[], b"").status, 400);
    assert_eq!(send(server, "GET", "/v1/database/http-facts/schema?version=3", &[], b"").status, 400);

    owned.client.call("http-facts", "say", &json!(["hello, log"])).expect("called");
    let logs = send(server, "GET", "/v1/database/http-facts/logs?num_lines=10", &auth, b"");
    assert_eq!(logs.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = logs.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let said: Vec<(&str, &str)> = lines
        .iter()
        .filter_map(|line| Some((line["level"].as_str()?, line["message"].as_str()?)))
        .filter(|(_, message)| message.contains("hello, log"))
        .collect();
    assert_eq!(said, [("Info", "hello, log"), ("Warn", "warned: hello, log")]);
    assert_eq!(send(server, "GET", "/v1/database/http-facts/logs", &[], b"").status, 403, "logs are the owner's");

    let facts = send(server, "GET", "/v1/database/http-facts", &[], b"").json();
    assert!(facts["database_identity"]["__identity__"].is_string(), "{facts}");
    let identity = send(server, "GET", "/v1/database/http-facts/identity", &[], b"");
    assert_eq!(identity.body.trim(), owned.published.database_identity);
    let by_identity = format!("/v1/database/{}/names", owned.published.database_identity);
    assert_eq!(send(server, "GET", &by_identity, &[], b"").json(), json!({ "names": ["http-facts"] }));

    for path in ["", "/schema?version=10", "/identity", "/forks", "/names"] {
        let missing = send(server, "GET", &format!("/v1/database/no-such-one{path}"), &[], b"");
        assert_eq!(missing.status, 404, "{path}: {}", missing.body);
    }
    let plain = send(server, "GET", "/v1/database/http-facts/subscribe", &[], b"");
    assert!(matches!(plain.status, 426 | 400), "{}", plain.status);
}

#[test]
fn publishing_and_who_may() {
    let server = TestServer::shared();
    let owned = server.publish_probe("http-publish");
    let source = b"import { schema } from 'tine:server'; export default schema({});";
    let typescript = |token: &str, admin: Option<&str>, name: &str| {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str()), ("content-type", "text/typescript")];
        headers.extend(admin.map(|admin| ("tine-admin-token", admin)));
        send(server, "PUT", &format!("/v1/database/{name}"), &headers, source)
    };
    let (_, stranger) = server.newcomer();
    let admin = server.admin_token();
    let refused = typescript(&stranger, None, "http-new");
    assert!(matches!(refused.status, 401 | 403), "a new database needs the admin token: {}", refused.status);
    let wrong = typescript(&stranger, Some("not-the-admin-token"), "http-new");
    assert!(matches!(wrong.status, 401 | 403), "{}", wrong.status);
    let created = typescript(&stranger, Some(&admin), "http-new");
    assert_eq!(created.status, 200, "{}", created.body);
    let success = created.json()["Success"].clone();
    assert_eq!(success["op"], "created", "{success}");
    assert_eq!(success["database_identity"].as_str().map(str::len), Some(64), "{success}");
    let updated = typescript(&stranger, None, "http-new");
    assert_eq!(updated.json()["Success"]["op"], "updated", "the owner needs no admin token to update");
    let foreign = typescript(&stranger, None, &owned.name);
    assert!(matches!(foreign.status, 401 | 403), "{} {}", foreign.status, foreign.body);
    for name in ["Upper", "two%20words", "-x", "x--y"] {
        let bad = typescript(&stranger, Some(&admin), name);
        assert_eq!(bad.status, 400, "`{name}`: {}", bad.body);
    }
    let listed = send(server, "GET", "/v1/database", &[("authorization", &format!("Bearer {stranger}"))], b"").json();
    let names: Vec<&str> =
        listed["databases"].as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["http-new"], "only one's own are listed");
}

#[test]
fn probes_metrics_pages_and_cross_origin_rules() {
    let server = TestServer::shared();
    server.publish_probe("http-misc");
    assert_eq!(send(server, "GET", "/livez", &[], b"").status, 200);
    // Workers are tried out while the server starts.
    wait::until_true("what workers may do is known", || {
        let ready = send(server, "GET", "/readyz", &[], b"");
        assert_eq!(ready.status, 200);
        let level = ready.body.lines().find_map(|line| line.strip_prefix("workers: ")).expect("a line about workers");
        level.starts_with("seccomp, ") && level.ends_with("7 forbidden calls refused")
    });
    assert_eq!(send(server, "GET", "/v1/ping", &[], b"").status, 200);
    let metrics = send(server, "GET", "/v1/metrics", &[], b"");
    assert!(metrics.body.contains("# TYPE tine_"), "{}", &metrics.body[..metrics.body.len().min(400)]);
    let client = send(server, "GET", "/tine/client.js", &[], b"");
    assert!(client.header("content-type").is_some_and(|kind| kind.starts_with("text/javascript")));
    assert!(client.body.contains("export"), "the browser client is a module");
    assert_eq!(send(server, "GET", "/no/such/page", &[], b"").status, 404);
    assert_eq!(send(server, "GET", "/tine/../keys/admin-token", &[], b"").status, 404);
    assert_eq!(send(server, "BREW", "/v1/ping", &[], b"").status, 405);

    let preflight = [("origin", "http://elsewhere.example"), ("access-control-request-method", "POST")];
    let allowed = send(server, "OPTIONS", "/v1/database/http-misc/call/noop", &preflight, b"");
    assert!((200..300).contains(&allowed.status), "{}", allowed.status);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("*"));
}
