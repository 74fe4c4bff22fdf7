//! Every HTTP route of the client protocol, with who asks, its status and its body: one table, worked off from top to bottom.

use serde_json::{Value, json};
use tine_tests::http::send;
use tine_tests::server::{TestServer, single_file};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    /// Without a token.
    Nobody,
    /// The owner of the database.
    Owner,
    /// Somebody else with a token.
    Stranger,
    /// Somebody with a token that nobody signed.
    Forger,
}

use Who::{Forger, Nobody, Owner, Stranger};

/// What a body has to be.
#[derive(Debug)]
enum Body {
    Empty,
    Text(&'static str),
    Contains(&'static str),
    /// JSON with at least this. `"*"` stands for anything.
    Json(Value),
    Anything,
}

use Body::{Anything, Contains, Empty, Json, Text};

const JSON: &str = "application/json";
const TYPESCRIPT: &str = "text/typescript";
/// Anything that the database takes as it comes.
const PLAIN: &str = "text/plain";
/// No content type at all.
const NONE: &str = "";

const MODULE: &str = "import { schema, t, table, SenderError, Router, SyncResponse } from 'tine:server';
const mark = table({ public: true }, { id: t.u32().primaryKey(), word: t.string() });
const hidden = table({}, { id: t.u32().primaryKey() });
const s = schema({ mark, hidden });
export default s;
export const come = s.clientConnected(ctx => {
  if (ctx.db.hidden.count() > 0n) throw new SenderError('closed today');
});
export const put = s.reducer({ id: t.u32(), word: t.string() }, (ctx, row) => { ctx.db.mark.insert(row); });
export const close = s.reducer(ctx => { ctx.db.hidden.insert({ id: 1 }); });
export const refuse = s.reducer({ why: t.string() }, (_ctx, { why }) => { throw new SenderError(why); });
export const trap = s.reducer(() => { throw new Error('on purpose'); });
export const twice = s.procedure({ n: t.u32() }, t.object('Answer', { n: t.u64() }), (_ctx, { n }) => ({ n: BigInt(2 * n) }));
export const hello = s.httpHandler((_ctx, request) => new SyncResponse(`hello ${request.text()}`, { status: 201 }));
export const routes = s.httpRouter(new Router().post('/hello', hello));
";

/// Another type for a column that has rows: no plan does that.
const INCOMPATIBLE: &str = "import { schema, t, table } from 'tine:server';
const mark = table({ public: true }, { id: t.u32().primaryKey(), word: t.u64() });
const hidden = table({}, { id: t.u32().primaryKey() });
export default schema({ mark, hidden });
";

const FAILING: &str = "import { schema } from 'tine:server';
const s = schema({});
export default s;
export const init = s.init(() => { throw new Error('not today'); });
";

/// Method, path below `/v1`, who, content type, body; status and body of the reply.
type Case = (&'static str, String, Who, &'static str, String, u16, Body);

fn matches(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::String(any), _) if any == "*" => true,
        (Value::Object(expected), Value::Object(found)) => {
            expected.iter().all(|(name, value)| found.get(name).is_some_and(|found| matches(value, found)))
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len()
                && expected.iter().zip(found).all(|(expected, found)| matches(expected, found))
        }
        _ => expected == found,
    }
}

/// The databases `listed` (the owner's) and `foreign` (the stranger's), and who they are.
struct Setup {
    server: TestServer,
    owner: String,
    stranger: String,
    owner_identity: String,
    database: String,
}

impl Setup {
    fn start() -> Setup {
        let server = TestServer::start_with(&["--open-publish"]);
        let listed = server.publish("listed", &single_file(MODULE));
        let foreign = server.publish("foreign", &single_file(MODULE));
        let owner_identity = {
            let shown = send(&server, "GET", "/v1/database/listed", &[], b"").json();
            shown["owner_identity"]["__identity__"].as_str().expect("an identity")[2..].to_owned()
        };
        let database = listed.published.database_identity;
        Setup { owner: listed.token, stranger: foreign.token, server, owner_identity, database }
    }

    fn check(&self, (method, path, who, content_type, body, status, expected): Case) {
        let bearer = match who {
            Nobody => None,
            Owner => Some(format!("Bearer {}", self.owner)),
            Stranger => Some(format!("Bearer {}", self.stranger)),
            Forger => Some("Bearer eyJhbGciOiJFUzI1NiJ9.e30.AAAA".to_owned()),
        };
        let mut headers: Vec<(&str, &str)> = bearer.iter().map(|token| ("authorization", token.as_str())).collect();
        if !content_type.is_empty() {
            headers.push(("content-type", content_type));
        }
        let reply = send(&self.server, method, &format!("/v1{path}"), &headers, body.as_bytes());
        let case = format!("{method} {path} by {who:?} with {:.60}: {} {:.400}", body, reply.status, reply.body);
        assert_eq!(reply.status, status, "{case}");
        let text = &reply.body;
        let is_right = match &expected {
            Anything => true,
            Empty => text.is_empty(),
            Text(expected) => text == expected,
            Contains(expected) => text.contains(expected),
            Json(expected) => serde_json::from_str(text).is_ok_and(|found| matches(expected, &found)),
        };
        assert!(is_right, "{case}\nexpected {expected:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{case}");
        let is_identified = path.starts_with("/database") && !path.contains("/route") && who != Forger && status != 405;
        if is_identified {
            assert_eq!(reply.header("spacetime-identity").map(str::len), Some(64), "{case}");
            assert!(reply.header("spacetime-identity-token").is_some(), "{case}");
        }
        if (400..600).contains(&status) && !path.contains("/route") {
            assert!(reply.header("tine-error").is_some_and(|code| code.starts_with("TN")), "{case}");
        }
    }

    fn check_all(&self, cases: Vec<Case>) {
        cases.into_iter().for_each(|case| self.check(case));
    }
}

fn case(
    method: &'static str,
    path: impl Into<String>,
    who: Who,
    content: (&'static str, &str),
    status: u16,
    body: Body,
) -> Case {
    (method, path.into(), who, content.0, content.1.to_owned(), status, body)
}

#[test]
fn identities() {
    let setup = Setup::start();
    let (owner, database) = (&setup.owner_identity, &setup.database);
    let empty = (NONE, "");
    setup.check_all(vec![
        case("POST", "/identity", Nobody, empty, 200, Json(json!({ "identity": "*", "token": "*" }))),
        case("POST", "/identity/websocket-token", Owner, empty, 200, Json(json!({ "token": "*" }))),
        case("POST", "/identity/websocket-token", Nobody, empty, 401, Contains("Authorization required")),
        case("POST", "/identity/websocket-token", Forger, empty, 401, Contains("Invalid token")),
        case("GET", "/identity/public-key", Nobody, empty, 200, Contains("-----BEGIN PUBLIC KEY-----")),
        case("GET", format!("/identity/{owner}/verify"), Owner, empty, 204, Empty),
        case("GET", format!("/identity/{owner}/verify"), Stranger, empty, 400, Anything),
        case("GET", format!("/identity/{owner}/verify"), Nobody, empty, 401, Anything),
        case("GET", format!("/identity/{owner}/verify"), Forger, empty, 401, Contains("Invalid token")),
        case("GET", "/identity/xyz/verify", Owner, empty, 400, Anything),
        case(
            "GET",
            format!("/identity/{owner}/databases"),
            Nobody,
            empty,
            200,
            Json(json!({ "identities": [database] })),
        ),
        case("GET", format!("/energy/{owner}"), Nobody, empty, 200, Json(json!({ "balance": "*" }))),
        case("PUT", format!("/energy/{owner}"), Owner, empty, 405, Anything),
    ]);
    let malformed = send(&setup.server, "GET", "/v1/database/listed", &[("authorization", "Basic abc")], b"");
    assert_eq!((malformed.status, malformed.body.as_str()), (400, "Authorization is invalid: malformed token"));
}

#[test]
fn publishing_and_names() {
    let setup = Setup::start();
    let (database, empty) = (setup.database.as_str(), (NONE, ""));
    let published =
        |domain: Value, op: &str| Json(json!({ "Success": { "domain": domain, "database_identity": "*", "op": op } }));
    let not_authorized = || Contains("is not authorized to perform action on database");
    setup.check_all(vec![
        case("POST", "/database", Stranger, (TYPESCRIPT, MODULE), 200, published(Value::Null, "created")),
        case("PUT", "/database/other", Owner, (TYPESCRIPT, MODULE), 200, published(json!("other"), "created")),
        case("PUT", "/database/listed", Owner, (TYPESCRIPT, MODULE), 200, published(json!("listed"), "updated")),
        case("PUT", "/database/listed", Stranger, (TYPESCRIPT, MODULE), 403, not_authorized()),
        case("PUT", "/database/listed", Nobody, (TYPESCRIPT, MODULE), 403, not_authorized()),
        case("PUT", "/database/listed", Forger, (TYPESCRIPT, MODULE), 401, Contains("Invalid token")),
        case("PUT", "/database/listed", Owner, (TYPESCRIPT, INCOMPATIBLE), 400, Contains("Database update rejected: ")),
        case(
            "PUT",
            "/database/failing",
            Owner,
            (TYPESCRIPT, FAILING),
            400,
            Contains("Failed to create or update the database: "),
        ),
        case("PUT", "/database/Bad--Name", Owner, (TYPESCRIPT, MODULE), 400, Anything),
        case("PUT", "/database/listed?policy=Whatever", Owner, (TYPESCRIPT, MODULE), 400, Anything),
        case("PUT", "/database/listed?policy=BreakClients", Owner, (TYPESCRIPT, MODULE), 400, Contains("token")),
        case("PUT", "/database/listed?host_type=Wasm", Owner, (NONE, "\0asm"), 400, Contains("WebAssembly")),
        // Plans.
        case(
            "POST",
            "/database/listed/pre_publish?style=NoColor",
            Owner,
            (TYPESCRIPT, MODULE),
            200,
            Json(json!({ "AutoMigrate": {
                "migrate_plan": "*", "break_clients": false, "token": "*", "major_version_upgrade": false,
            } })),
        ),
        case(
            "POST",
            "/database/listed/pre_publish",
            Owner,
            (TYPESCRIPT, INCOMPATIBLE),
            200,
            Json(json!({ "ManualMigrate": { "reason": "*", "major_version_upgrade": false } })),
        ),
        case("POST", "/database/listed/pre_publish?style=Red", Owner, (TYPESCRIPT, MODULE), 400, Anything),
        case("POST", "/database/listed/pre_publish", Stranger, (TYPESCRIPT, MODULE), 403, not_authorized()),
        case(
            "POST",
            "/database/missing/pre_publish",
            Owner,
            (TYPESCRIPT, MODULE),
            404,
            Contains("`missing` not found"),
        ),
        // What it is.
        case(
            "GET",
            "/database/listed",
            Nobody,
            empty,
            200,
            Json(json!({
                "database_identity": { "__identity__": format!("0x{database}") },
                "owner_identity": { "__identity__": "*" }, "host_type": { "Js": [] }, "initial_program": "*",
            })),
        ),
        case("GET", "/database/missing", Nobody, empty, 404, Text("`missing` not found")),
        case("GET", "/database/listed/identity", Nobody, empty, 200, Contains("c200")),
        case("GET", "/database/missing/identity", Nobody, empty, 404, Text("`missing` not found")),
        case("GET", "/database/listed/names", Nobody, empty, 200, Json(json!({ "names": ["listed"] }))),
        case("GET", format!("/database/{database}/names"), Nobody, empty, 200, Json(json!({ "names": ["listed"] }))),
        // Names.
        case(
            "POST",
            "/database/listed/names",
            Owner,
            (PLAIN, "second"),
            200,
            Json(json!({ "Success": { "domain": "second", "database_identity": database } })),
        ),
        case(
            "POST",
            "/database/listed/names",
            Owner,
            (PLAIN, "foreign"),
            401,
            Json(json!({ "PermissionDenied": { "domain": "foreign" } })),
        ),
        case("POST", "/database/listed/names", Stranger, (PLAIN, "third"), 403, not_authorized()),
        case("POST", "/database/listed/names", Owner, (PLAIN, "No Name"), 400, Anything),
        case("PUT", "/database/listed/names", Owner, (JSON, r#"["listed", "third"]"#), 200, Json(json!("Success"))),
        case("GET", "/database/third/names", Nobody, empty, 200, Json(json!({ "names": ["listed", "third"] }))),
        case("GET", "/database/second/names", Nobody, empty, 404, Anything),
        case("PUT", "/database/listed/names", Owner, (JSON, r#"["listed", "foreign"]"#), 400, Contains("foreign")),
        case("PUT", "/database/listed/names", Owner, (JSON, r#"{"listed": 1}"#), 400, Anything),
        case(
            "PUT",
            "/database/listed/names",
            Stranger,
            (JSON, r#"["mine"]"#),
            401,
            Json(json!({ "NotYourDatabase": { "database": database } })),
        ),
        case("PUT", "/database/missing/names", Owner, (JSON, "[]"), 404, Anything),
        // Locks, resets, the end.
        case("POST", "/database/listed/lock", Stranger, empty, 403, not_authorized()),
        case("POST", "/database/listed/lock", Owner, empty, 200, Empty),
        case("DELETE", "/database/listed", Owner, empty, 403, Contains("locked")),
        case("PUT", "/database/listed/reset", Owner, empty, 403, Contains("locked")),
        case("PUT", "/database/listed?clear=true", Owner, (TYPESCRIPT, MODULE), 403, Contains("locked")),
        case("POST", "/database/listed/unlock", Stranger, empty, 403, not_authorized()),
        case("POST", "/database/listed/unlock", Owner, empty, 200, Empty),
        case("PUT", "/database/listed/reset", Stranger, empty, 403, not_authorized()),
        case("PUT", "/database/listed/reset", Owner, empty, 200, published(json!("listed"), "updated")),
        case("DELETE", "/database/listed", Stranger, empty, 403, not_authorized()),
        case("DELETE", "/database/listed", Owner, empty, 200, Empty),
        case("DELETE", "/database/listed", Owner, empty, 200, Empty),
        case("GET", "/database/listed", Nobody, empty, 404, Anything),
    ]);
}

#[test]
fn calls_statements_and_facts() {
    let setup = Setup::start();
    let empty = (NONE, "");
    let sql = |who, statement: &'static str, status, body| {
        case("POST", "/database/listed/sql", who, (PLAIN, statement), status, body)
    };
    let call = |function: &str, body: &'static str, status, expected| {
        case("POST", format!("/database/listed/call/{function}"), Stranger, (JSON, body), status, expected)
    };
    let changed = |inserted: u64, deleted: u64, updated: u64| {
        Json(json!([{ "rows": [], "stats": {
            "rows_inserted": inserted, "rows_deleted": deleted, "rows_updated": updated,
        } }]))
    };
    setup.check_all(vec![
        call("put", r#"[1, "one"]"#, 200, Empty),
        call("put", r#"{"word": "two", "id": 2}"#, 200, Empty),
        call("twice", "[4]", 200, Json(json!({ "n": 8 }))),
        call("refuse", r#"["because"]"#, 530, Text("because")),
        call("trap", "[]", 530, Anything),
        call("put", r#"[1, "again"]"#, 530, Anything),
        call("put", "[1]", 400, Anything),
        call("put", r#"[-1, "x"]"#, 400, Anything),
        call("come", "[]", 400, Anything),
        call("missing", "[]", 404, Contains("No such procedure")),
        case("POST", "/database/listed/call/put", Nobody, (NONE, r#"[3, "x"]"#), 400, Anything),
        case("POST", "/database/listed/call/put", Nobody, (PLAIN, r#"[3, "x"]"#), 415, Anything),
        case("POST", "/database/missing/call/put", Nobody, (JSON, "[]"), 404, Anything),
        case("GET", "/database/listed/call/put", Nobody, empty, 405, Anything),
        // Statements.
        sql(
            Nobody,
            "SELECT * FROM mark WHERE id = 1",
            200,
            Json(json!([{ "schema": { "elements": "*" }, "rows": [[1, "one"]], "total_duration_micros": "*",
                "stats": { "rows_inserted": 0, "rows_deleted": 0, "rows_updated": 0 } }])),
        ),
        sql(Nobody, "SELECT COUNT(*) AS n FROM mark", 200, Json(json!([{ "rows": [[2]] }]))),
        sql(Nobody, "SELECT word AS w FROM mark LIMIT 1", 200, Json(json!([{ "rows": [["*"]] }]))),
        sql(Owner, "INSERT INTO mark (id, word) VALUES (3, 'x'), (4, 'x')", 200, changed(2, 0, 0)),
        sql(Owner, "UPDATE mark SET word = 'y' WHERE word = 'x'", 200, changed(0, 0, 2)),
        sql(Owner, "DELETE FROM mark WHERE word = 'y'", 200, changed(0, 2, 0)),
        sql(Owner, "INSERT INTO mark (word, id) VALUES ('z', 5)", 200, changed(1, 0, 0)),
        sql(Nobody, "SELECT id FROM mark WHERE word = 'z'", 200, Json(json!([{ "rows": [[5]] }]))),
        sql(Owner, "SET row_limit TO 100", 200, Anything),
        sql(Owner, "SHOW row_limit", 200, Json(json!([{ "rows": [["*"]] }]))),
        sql(Stranger, "DELETE FROM mark", 400, Anything),
        sql(Stranger, "SELECT * FROM hidden", 400, Anything),
        sql(Owner, "SELECT * FROM hidden", 200, Json(json!([{ "rows": [] }]))),
        sql(Stranger, "SELECT * FROM st_module", 400, Anything),
        sql(Owner, "SELECT * FROM st_module", 200, Anything),
        sql(Nobody, "SELECT 1; SELECT 2", 400, Anything),
        sql(Nobody, "SELECT * FROM mark; SELECT * FROM mark", 400, Contains("Multiple SQL statements")),
        sql(Nobody, "SELECT * FROM mark ORDER BY id", 400, Anything),
        case("POST", "/database/listed/sql?confirmed=false", Owner, (PLAIN, "SELECT * FROM mark"), 200, Anything),
        case("POST", "/database/listed/sql?confirmed=1", Owner, (PLAIN, "SELECT * FROM mark"), 400, Anything),
        case("POST", "/database/listed/sql", Owner, (PLAIN, &"x".repeat(50_001)), 400, Anything),
        // Facts.
        case("GET", "/database/listed/schema?version=9", Nobody, empty, 200, Json(json!({ "tables": "*" }))),
        case("GET", "/database/listed/schema?version=10", Nobody, empty, 200, Json(json!({ "sections": "*" }))),
        case("GET", "/database/listed/schema", Nobody, empty, 400, Anything),
        case("GET", "/database/listed/schema?version=8", Nobody, empty, 400, Anything),
        case("GET", "/database/listed/logs?num_lines=5", Owner, empty, 200, Contains("\"level\"")),
        case("GET", "/database/listed/logs", Stranger, empty, 403, Contains("is not authorized")),
        case("GET", "/database/listed/subscribe", Nobody, empty, 426, Anything),
        case(
            "GET",
            "/database/listed/unstable/timestamp",
            Nobody,
            empty,
            200,
            Json(json!({ "__timestamp_micros_since_unix_epoch__": "*" })),
        ),
        case(
            "POST",
            "/database/listed/mcp",
            Owner,
            (JSON, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#),
            200,
            Json(json!({ "jsonrpc": "2.0", "id": 1, "result": "*" })),
        ),
        case(
            "POST",
            "/mcp",
            Owner,
            (JSON, r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#),
            200,
            Json(json!({ "jsonrpc": "2.0", "id": "a", "result": "*" })),
        ),
        // A module's own routes know nothing of tokens.
        case("POST", "/database/listed/route/hello", Forger, (PLAIN, "you"), 201, Text("hello you")),
        case("GET", "/database/listed/route/hello", Nobody, empty, 404, Anything),
        case("POST", "/database/listed/route", Nobody, empty, 404, Anything),
        case("POST", "/database/listed/route/", Nobody, empty, 404, Anything),
        case("POST", "/database/missing/route/hello", Nobody, empty, 404, Anything),
        // The server.
        case("GET", "/ping", Nobody, empty, 200, Empty),
        case(
            "GET",
            "/health",
            Nobody,
            empty,
            200,
            Json(json!({ "package_name": "*", "version": "*", "nodes": "*", "schedulable": true })),
        ),
        case("GET", "/metrics", Nobody, empty, 200, Contains("# TYPE")),
        case("GET", "/prometheus/sd_config", Nobody, empty, 200, Json(json!([{ "targets": ["*"] }]))),
        case("GET", "/nowhere", Nobody, empty, 404, Anything),
        // Who is refused by the module's hook is told so; what the hook did leaves no trace.
        call("close", "[]", 200, Empty),
        call("put", r#"[9, "late"]"#, 403, Text("closed today")),
        sql(Nobody, "SELECT * FROM mark", 403, Text("closed today")),
    ]);
}
