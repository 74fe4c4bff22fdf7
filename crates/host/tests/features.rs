//! Views, HTTP handlers and outbound requests on a host, from source modules.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tine_base::SystemEnv;
use tine_host::{
    Actor, CallArguments, CallFailure, CallReturn, ClientInfo, ClientSink, CloseReason, Connection, Delivery,
    ForkHandle, ForkRequest, Host, HostOptions, HttpAnswer, HttpCall, PublishRequest, Requester,
};
use tine_module::SourceBundle;
use tine_types::bsatn::Reader;
use tine_types::http::HttpVersion;
use tine_types::protocol::{ClientMessage, QueryRows, RowList, ServerMessage, TableUpdateRows};
use tine_types::{ConnectionId, Identity, json as sats};

const PATIENCE: Duration = Duration::from_secs(20);
const OWNER: Identity = Identity::from_le_bytes([7; 32]);
const OTHER: Identity = Identity::from_le_bytes([8; 32]);

const HEAD: &str = r#"
import { Range, Router, ScheduleAt, SenderError, SyncResponse, schema, t, table } from "tine:server";
const person = table({ public: true }, { id: t.u32().primaryKey(), name: t.string(), age: t.u32().index() });
const owned = table({}, { id: t.u32().primaryKey().autoInc(), owner: t.identity().index(), text: t.string() });
const setting = table({}, { key: t.string().primaryKey(), value: t.u32() });
const db = schema({ person, owned, setting });
export default db;
export const put = db.reducer({ id: t.u32(), name: t.string(), age: t.u32() }, (ctx, row) => {
  if (ctx.db.person.id.find(row.id)) ctx.db.person.id.update(row); else ctx.db.person.insert(row);
});
export const drop = db.reducer({ id: t.u32() }, (ctx, { id }) => { ctx.db.person.id.delete(id); });
export const own = db.reducer({ text: t.string() }, (ctx, { text }) => { ctx.db.owned.insert({ id: 0, owner: ctx.sender, text }); });
export const set = db.reducer({ value: t.u32() }, (ctx, { value }) => {
  ctx.db.setting.key.delete("age");
  ctx.db.setting.insert({ key: "age", value });
});
"#;

const VIEWS: &str = r#"
const Name = t.row("Name", { id: t.u32().primaryKey(), name: t.string() });
const limit = ctx => ctx.db.setting.key.find("age")?.value ?? 18;
export const grownUp = db.anonymousView({ public: true }, t.array(Name), ctx =>
  [...ctx.db.person.age.filter(new Range({ tag: "included", value: limit(ctx) }))].map(({ id, name }) => ({ id, name })));
export const olderThan = db.anonymousView({ public: true }, t.array(person.rowType), ctx => ctx.from.person.where(row => row.age.gte(limit(ctx))));
export const mine = db.view({ public: true }, t.array(owned.rowType), ctx => [...ctx.db.owned.owner.filter(ctx.sender)]);
export const first = db.anonymousView({ public: true }, t.option(person.rowType), ctx => ctx.db.person.id.find(1) ?? undefined);
export const secret = db.anonymousView({ public: false }, t.array(owned.rowType), ctx => [...ctx.db.owned]);
export const touchy = db.anonymousView({ public: true }, t.array(Name), ctx => {
  for (const row of ctx.db.person) if (row.name === "bad") throw new SenderError("a bad name");
  return [];
});
export const endless = db.anonymousView({ public: true }, t.array(Name), ctx => { if (ctx.db.person.id.find(99)) for (;;); return []; });
export const twice = db.anonymousView({ public: true }, t.array(Name), () => [{ id: 1, name: "a" }, { id: 1, name: "b" }]);
export const stranger = db.anonymousView({ public: true }, t.array(Name), ctx => ctx.from.person);
export const both = db.procedure(t.u32(), ctx => {
  ctx.withTx(tx => tx.db.person.insert({ id: 50, name: "p", age: 50 }));
  return ctx.withTx(tx => { tx.db.person.insert({ id: 51, name: "q", age: 51 }); return tx.db.person.id.find(50)!.age; });
});
"#;

struct Setup {
    host: Host,
    fork: ForkHandle,
    _directory: tempfile::TempDir,
}

fn program(code: &str) -> Vec<u8> {
    SourceBundle::single("index.ts", format!("{HEAD}{code}")).encode()
}

fn actor() -> Actor {
    Actor { identity: OWNER, is_admin: true }
}

fn setup_with(code: &str, change: impl FnOnce(&mut HostOptions)) -> Setup {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = HostOptions::new(directory.path().to_owned());
    options.reducer_deadline = Duration::from_millis(300);
    change(&mut options);
    let host = Host::open(options, Arc::new(SystemEnv)).expect("opens");
    publish(&host, code);
    let fork = host.resolve("db").expect("found");
    Setup { host, fork, _directory: directory }
}

fn publish(host: &Host, code: &str) {
    let request = PublishRequest { program: program(code), ..PublishRequest::default() };
    host.publish(Some("db"), &actor(), request).unwrap_or_else(|error| panic!("{error}"));
}

fn setup(code: &str) -> Setup {
    setup_with(code, |_| {})
}

fn fork_named(setup: &Setup, name: &str, resume_schedules: bool) -> ForkHandle {
    let request = ForkRequest {
        name: name.to_owned(),
        ephemeral: true,
        at: None,
        lifetime_ms: None,
        resume_schedules,
        disconnect_clients: false,
    };
    setup.host.fork_create("db", &actor(), &request).expect("forked");
    setup.host.resolve(&format!("db@{name}")).expect("found")
}

fn requester(identity: Identity) -> Requester {
    Requester { identity, jwt_payload: Some(format!(r#"{{"sub":"{}"}}"#, identity.to_hex()).into()) }
}

fn call_as(fork: &ForkHandle, identity: Identity, function: &str, arguments: Value) -> Result<CallReturn, CallFailure> {
    let (answered, answer) = mpsc::channel();
    let reply = Box::new(move |reply: tine_host::Reply<CallReturn>| drop(answered.send(reply.result)));
    let _guard = fork.call(requester(identity), function, CallArguments::Json(arguments), reply);
    answer.recv_timeout(PATIENCE).expect("answered")
}

fn run(fork: &ForkHandle, function: &str, arguments: Value) {
    call_as(fork, OWNER, function, arguments).unwrap_or_else(|error| panic!("{function}: {error}"));
}

/// What a procedure returns, as JSON.
fn value(fork: &ForkHandle, function: &str) -> Value {
    match call_as(fork, OWNER, function, json!([])).unwrap_or_else(|error| panic!("{function}: {error}")) {
        CallReturn::Procedure { ty, value } => sats::bsatn_to_json(&ty, &mut Reader::new(&value)).expect("valid"),
        CallReturn::Reducer => panic!("{function} is a reducer"),
    }
}

fn sql_as(fork: &ForkHandle, identity: Identity, text: &str) -> Result<Vec<Bytes>, CallFailure> {
    let (answered, answer) = mpsc::channel();
    fork.sql(requester(identity), text, Box::new(move |reply| drop(answered.send(reply.result))));
    answer.recv_timeout(PATIENCE).expect("answered").map(|rows| rows.rows)
}

/// A client that keeps everything it gets.
#[derive(Default)]
struct Inbox {
    messages: Mutex<Vec<ServerMessage>>,
}

impl ClientSink for Inbox {
    fn deliver(&self, messages: &mut Vec<Delivery>) {
        self.messages.lock().extend(messages.drain(..).map(|delivery| delivery.message));
    }
    fn close(&self, _: CloseReason) {}
}

struct Client {
    connection: Connection,
    inbox: Arc<Inbox>,
}

impl Client {
    fn connect(fork: &ForkHandle, identity: Identity, number: u128) -> Client {
        let inbox = Arc::new(Inbox::default());
        let info = ClientInfo {
            identity,
            connection_id: ConnectionId::new(number),
            token: "".into(),
            jwt_payload: None,
            confirmed: Some(false),
        };
        let connection = fork.connect(info, inbox.clone()).expect("connected");
        let client = Client { connection, inbox };
        client.next();
        client
    }

    /// The next message, oldest first.
    fn next(&self) -> ServerMessage {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut messages = self.inbox.messages.lock();
            if !messages.is_empty() {
                return messages.remove(0);
            }
            drop(messages);
            assert!(Instant::now() < deadline, "no message came");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn send(&mut self, message: ClientMessage) {
        self.connection.submit(&mut vec![message]).expect("submitted");
    }

    fn subscribe(&mut self, query_set_id: u32, query: &str) -> Result<Vec<String>, String> {
        self.send(ClientMessage::Subscribe { request_id: 0, query_set_id, queries: vec![query.into()] });
        match self.next() {
            ServerMessage::SubscribeApplied { rows, .. } => Ok(names(&rows)),
            ServerMessage::SubscriptionError { error, .. } => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn one_off(&mut self, query: &str) -> Result<Vec<String>, String> {
        self.send(ClientMessage::OneOffQuery { request_id: 0, query: query.into() });
        match self.next() {
            ServerMessage::OneOffQueryResult { result, .. } => result.map(|rows| names(&rows)),
            other => panic!("{other:?}"),
        }
    }

    /// The next update as `+` and `-` with names, by query set.
    fn update(&self) -> Vec<(u32, Vec<String>)> {
        let ServerMessage::TransactionUpdate(update) = self.next() else { panic!("no update") };
        let sets = update.query_sets.into_iter().map(|set| {
            let mut changes = Vec::new();
            for table in &set.tables {
                let TableUpdateRows::Persistent { inserts, deletes } = &table.rows else { panic!("events") };
                changes.extend(texts(deletes).into_iter().map(|name| format!("-{name}")));
                changes.extend(texts(inserts).into_iter().map(|name| format!("+{name}")));
            }
            (set.query_set_id, changes)
        });
        sets.collect()
    }

    fn is_quiet(&self) -> bool {
        self.inbox.messages.lock().is_empty()
    }
}

/// The string that each row has: its name or text.
fn texts(rows: &RowList) -> Vec<String> {
    let mut found: Vec<String> = rows
        .rows()
        .map(|row| {
            let start = match row.len() {
                // Rows of `owned` have an identity before the text.
                length if length > 36 => 36,
                _ => 4,
            };
            Reader::new(&row[start..]).str().expect("a string").to_owned()
        })
        .collect();
    found.sort();
    found
}

fn names(rows: &QueryRows) -> Vec<String> {
    rows.tables.iter().flat_map(|table| texts(&table.rows)).collect()
}

fn change(set: u32, changes: &[&str]) -> Vec<(u32, Vec<String>)> {
    vec![(set, changes.iter().map(|text| (*text).to_owned()).collect())]
}

#[test]
fn views_are_pushed_when_what_they_read_has_changed() {
    let setup = setup(VIEWS);
    let fork = &setup.fork;
    run(fork, "put", json!([1, "Ada", 36]));
    run(fork, "put", json!([2, "Ben", 7]));
    let mut client = Client::connect(fork, OTHER, 1);
    assert_eq!(client.subscribe(1, "SELECT * FROM grown_up"), Ok(vec!["Ada".to_owned()]));
    assert_eq!(client.subscribe(2, "SELECT * FROM \"olderThan\" WHERE age < 50"), Ok(vec!["Ada".to_owned()]));
    run(fork, "put", json!([3, "Cid", 18]));
    let expected = [change(1, &["+Cid"]), change(2, &["+Cid"])].concat();
    assert_eq!(client.update(), expected);
    run(fork, "put", json!([4, "Dot", 1]));
    run(fork, "put", json!([2, "Bob", 60]));
    assert_eq!(client.update(), change(1, &["+Bob"]), "sixty is too old for the second, one too young for both");
    run(fork, "put", json!([1, "Eve", 36]));
    assert_eq!(client.update(), [change(1, &["-Ada", "+Eve"]), change(2, &["-Ada", "+Eve"])].concat());
    // Another row that the functions read: one has other rows then, the other returns another query.
    run(fork, "set", json!([30]));
    assert_eq!(client.update(), [change(1, &["-Cid"]), change(2, &["-Cid"])].concat());
    run(fork, "drop", json!([1]));
    assert_eq!(client.update(), [change(1, &["-Eve"]), change(2, &["-Eve"])].concat());
    assert_eq!(value(fork, "both"), json!(50));
    assert_eq!(client.update(), change(1, &["+p"]));
    assert_eq!(client.update(), change(1, &["+q"]));
    client.send(ClientMessage::Unsubscribe { request_id: 5, query_set_id: 1, send_dropped_rows: true });
    let ServerMessage::UnsubscribeApplied { rows: Some(rows), .. } = client.next() else { panic!("no rows") };
    assert_eq!(names(&rows), ["Bob", "p", "q"]);
    let before = setup.host.metrics().views_run.get();
    run(fork, "put", json!([9, "Zoe", 90]));
    assert_eq!(setup.host.metrics().views_run.get(), before, "nobody subscribes to it, and a query need not run");
    assert!(client.is_quiet());
}

#[test]
fn views_are_read_by_sql_and_joined() {
    let setup = setup(VIEWS);
    let fork = &setup.fork;
    for (id, name, age) in [(1, "Ada", 36), (2, "Ben", 7), (3, "Cid", 18)] {
        run(fork, "put", json!([id, name, age]));
    }
    let mut client = Client::connect(fork, OTHER, 1);
    assert_eq!(client.one_off("SELECT * FROM grown_up WHERE id > 1"), Ok(vec!["Cid".to_owned()]));
    assert_eq!(client.one_off("SELECT * FROM first"), Ok(vec!["Ada".to_owned()]));
    let count = sql_as(fork, OTHER, "SELECT COUNT(*) AS n FROM \"olderThan\"").expect("counted");
    assert_eq!(count[0][..1], [2]);
    let joined = "SELECT person.* FROM grown_up JOIN person ON grown_up.id = person.id";
    assert_eq!(client.subscribe(1, joined), Ok(vec!["Ada".to_owned(), "Cid".to_owned()]));
    run(fork, "put", json!([2, "Ben", 20]));
    assert_eq!(client.update(), change(1, &["+Ben"]));
    run(fork, "put", json!([1, "Ada", 3]));
    assert_eq!(client.update(), change(1, &["-Ada"]));
    assert!(client.one_off("SELECT * FROM secret").unwrap_err().contains("secret"), "it is the owner's");
    assert!(sql_as(fork, OWNER, "SELECT * FROM secret").is_ok());
    assert!(sql_as(fork, OWNER, "DELETE FROM grown_up").is_err());
}

#[test]
fn each_sender_sees_its_own_and_only_its_changes_run() {
    let setup = setup(VIEWS);
    let fork = &setup.fork;
    call_as(fork, OTHER, "own", json!(["before"])).expect("runs");
    let (mut one, mut two) = (Client::connect(fork, OWNER, 1), Client::connect(fork, OTHER, 2));
    assert_eq!(one.subscribe(1, "SELECT * FROM mine"), Ok(Vec::new()));
    assert_eq!(two.subscribe(1, "SELECT * FROM mine"), Ok(vec!["before".to_owned()]));
    let before = setup.host.metrics().views_run.get();
    call_as(fork, OTHER, "own", json!(["after"])).expect("runs");
    assert_eq!(two.update(), change(1, &["+after"]));
    assert_eq!(setup.host.metrics().views_run.get(), before + 1, "the other one has read other rows");
    assert!(one.is_quiet());
    drop(two);
    call_as(fork, OWNER, "own", json!(["mine"])).expect("runs");
    assert_eq!(one.update(), change(1, &["+mine"]));
    // A fork has none of this, and makes its own.
    let other = fork_named(&setup, "exp", false);
    let mut there = Client::connect(&other, OTHER, 3);
    assert_eq!(there.subscribe(1, "SELECT * FROM mine"), Ok(vec!["after".to_owned(), "before".to_owned()]));
    call_as(&other, OTHER, "own", json!(["there"])).expect("runs");
    assert_eq!(there.update(), change(1, &["+there"]));
    assert!(one.is_quiet());
}

#[test]
fn a_view_that_fails_harms_its_subscribers_only() {
    let setup = setup(VIEWS);
    let fork = &setup.fork;
    let mut client = Client::connect(fork, OTHER, 1);
    let problem = client.subscribe(1, "SELECT * FROM twice").unwrap_err();
    assert!(problem.contains("primary key `id`"), "{problem}");
    let problem = client.subscribe(1, "SELECT * FROM stranger").unwrap_err();
    assert!(problem.contains("another type"), "{problem}");
    client.subscribe(1, "SELECT * FROM touchy").expect("applied");
    client.subscribe(2, "SELECT * FROM person").expect("applied");
    run(fork, "put", json!([1, "bad", 1]));
    let ServerMessage::SubscriptionError { request_id: None, query_set_id: 1, error } = client.next() else { panic!() };
    assert_eq!(error, "the view `touchy` failed: a bad name");
    assert_eq!(client.update(), change(2, &["+bad"]), "the reducer went through");
    assert!(client.subscribe(1, "SELECT * FROM touchy").is_err());
    run(fork, "put", json!([1, "good", 1]));
    client.update();
    client.subscribe(1, "SELECT * FROM touchy").expect("it works again");

    client.subscribe(3, "SELECT * FROM endless").expect("applied");
    run(fork, "put", json!([99, "stop", 1]));
    let ServerMessage::SubscriptionError { request_id: None, query_set_id: 3, .. } = client.next() else { panic!() };
    client.update();
    let started = Instant::now();
    let refused = client.subscribe(3, "SELECT * FROM endless").unwrap_err();
    assert!(refused.contains("disabled until the next publish"), "{refused}");
    assert!(started.elapsed() < Duration::from_millis(250), "it was not even tried");
    run(fork, "drop", json!([99]));
    client.update();
    publish(&setup.host, VIEWS);
    client.subscribe(3, "SELECT * FROM endless").expect("enabled again");
}

#[test]
fn a_publish_tells_subscribers_how_views_differ_now() {
    let setup = setup(VIEWS);
    let fork = &setup.fork;
    run(fork, "put", json!([1, "Ada", 36]));
    run(fork, "put", json!([2, "Ben", 7]));
    let mut client = Client::connect(fork, OTHER, 1);
    client.subscribe(1, "SELECT * FROM grown_up").expect("applied");
    client.subscribe(2, "SELECT * FROM \"olderThan\"").expect("applied");
    publish(&setup.host, &VIEWS.replace("?? 18", "?? 5"));
    assert_eq!(client.update(), [change(1, &["+Ben"]), change(2, &["+Ben"])].concat());
    run(fork, "put", json!([3, "Cid", 6]));
    assert_eq!(client.update(), [change(1, &["+Cid"]), change(2, &["+Cid"])].concat());
}

#[test]
fn a_plan_names_views_and_a_view_with_other_rows_needs_consent() {
    let setup = setup(VIEWS);
    let renamed = VIEWS.replace("Name = t.row(\"Name\", { id:", "Name = t.row(\"Name\", { key:");
    let request = PublishRequest { program: program(&renamed), ..PublishRequest::default() };
    let refused = setup.host.publish(Some("db"), &actor(), request).expect_err("clients could not read it").to_string();
    assert!(refused.contains("view `grown_up`"), "{refused}");
    let more = format!("{VIEWS}{}", HTTP.replace("export const routes", "export const more = db.anonymousView({ public: true }, t.array(person.rowType), () => []);\nexport const routes"));
    let plan = setup.host.plan("db", &actor(), &program(&more)).expect("planned").render(false);
    for line in
        ["+ add view `more`", "+ add the route POST `/hello`", "+ add procedure `ask`", "Clients stay connected."]
    {
        assert!(plan.contains(line), "{line}\n{plan}");
    }
}

const HTTP: &str = r#"
export const hello = db.httpHandler((ctx, request) => {
  const body = request.text();
  ctx.withTx(tx => tx.db.owned.insert({ id: 0, owner: ctx.identity, text: body }));
  return new SyncResponse(`${request.method} ${request.uri} ${body}`, { status: 202, headers: { "x-answer": "yes" } });
});
export const broken = db.httpHandler(() => { throw new Error("broken"); });
export const routes = db.httpRouter(new Router().post("/hello", hello).any("/broken", broken).get("", hello));
export const ask = db.procedure({ url: t.string() }, t.string(), (ctx, { url }) => {
  try {
    const answer = ctx.http.fetch(url, { method: "POST", headers: { "x-one": "1" }, body: "ping" });
    return `${answer.status} ${answer.headers.get("x-two")} ${answer.text()}`;
  } catch (error) { return `${error.name}: ${error.message}`; }
});
export const whoAmI = db.reducer(ctx => { throw new SenderError(`${ctx.connectionId !== null} ${ctx.senderAuth.jwt?.subject === ctx.sender.toHexString()}`); });
"#;

fn http(fork: &ForkHandle, method: &str, path: &str, body: &'static str) -> Result<HttpAnswer, CallFailure> {
    let (answered, answer) = mpsc::channel();
    let call = HttpCall {
        method: method.to_owned(),
        path: path.to_owned(),
        uri: format!("{path}?q=1"),
        version: HttpVersion::HTTP_11,
        headers: vec![("host".to_owned(), Bytes::from_static(b"here"))],
        body: Bytes::from_static(body.as_bytes()),
    };
    let _guard = fork.http(call, Box::new(move |reply| drop(answered.send(reply.result))));
    answer.recv_timeout(PATIENCE).expect("answered")
}

#[test]
fn handlers_answer_what_is_routed_to_them() {
    let setup = setup(HTTP);
    let answer = http(&setup.fork, "POST", "/hello", "body").expect("answered");
    assert_eq!((answer.status, &*answer.body), (202, &b"POST /hello?q=1 body"[..]));
    assert_eq!(answer.headers, [("x-answer".to_owned(), Bytes::from_static(b"yes"))]);
    assert_eq!(sql_as(&setup.fork, OWNER, "SELECT * FROM owned").expect("read").len(), 1);
    assert!(http(&setup.fork, "GET", "", "").is_ok());
    for (method, path) in [("GET", "/hello"), ("POST", "/hell"), ("POST", "/hello/"), ("BREW", "/hello")] {
        assert!(matches!(http(&setup.fork, method, path, ""), Err(CallFailure::NoSuchFunction)), "{method} {path}");
    }
    let Err(CallFailure::Failed { message, .. }) = http(&setup.fork, "BREW", "/broken", "") else {
        panic!("no failure")
    };
    assert!(!message.contains("broken"), "details are in the log: {message}");
}

#[test]
fn calls_over_http_have_a_connection_and_a_token() {
    let setup = setup(HTTP);
    let Err(CallFailure::User(text)) = call_as(&setup.fork, OTHER, "whoAmI", json!([])) else { panic!("no answer") };
    assert_eq!(text, "true true");
}

/// Answers one request with what it was sent, and says what that was.
fn echo_server() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (heard, hears) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut bytes = [0; 4096];
            let mut request = String::new();
            while !request.ends_with("ping") {
                match stream.read(&mut bytes) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => request.push_str(&String::from_utf8_lossy(&bytes[..count])),
                }
            }
            let body = "pong";
            let answer = format!(
                "HTTP/1.1 418 teapot\r\nx-two: 2\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
            if heard.send(request).is_err() {
                return;
            }
        }
    });
    (port, hears)
}

#[test]
fn procedures_reach_what_the_operator_allows_and_forks_reach_nothing() {
    let (port, heard) = echo_server();
    let setup = setup_with(HTTP, |options| {
        options.http_allow = vec![format!("http://127.0.0.1:{port}").parse().expect("a rule")]
    });
    let ask = |fork: &ForkHandle, url: &str| match call_as(fork, OWNER, "ask", json!([url])) {
        Ok(CallReturn::Procedure { value, .. }) => Reader::new(&value).str().expect("text").to_owned(),
        other => panic!("{other:?}"),
    };
    let url = format!("http://127.0.0.1:{port}/path?x=1");
    assert_eq!(ask(&setup.fork, &url), "418 2 pong");
    let request = heard.recv_timeout(PATIENCE).expect("heard");
    assert!(request.starts_with("POST /path?x=1 HTTP/1.1\r\n") && request.ends_with("ping"), "{request}");
    assert!(request.to_ascii_lowercase().contains("x-one: 1"), "{request}");
    for (url, words) in [
        ("http://127.0.0.2/", "not allowed"),
        ("file:///etc/passwd", "invalid"),
        ("nonsense", "not allowed"),
        (&format!("http://user@127.0.0.1:{port}/"), "with a user"),
    ] {
        let answer = ask(&setup.fork, url);
        assert!(answer.starts_with("HttpError: ") && answer.contains(words), "{url}: {answer}");
    }
    let quiet = fork_named(&setup, "quiet", false);
    assert!(ask(&quiet, &url).contains("schedules are paused"));
    let lively = fork_named(&setup, "lively", true);
    assert_eq!(ask(&lively, &url), "418 2 pong");
}
