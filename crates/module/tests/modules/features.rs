//! Views, HTTP and modules within modules, in source.

use std::collections::BTreeMap;

use tine_module::{CallError, SourceBundle, ViewRows};
use tine_tables::ReadSet;
use tine_types::http::{HttpRequest, HttpVersion};
use tine_types::module_def::HttpMethod;
use tine_types::{AlgebraicType, AlgebraicValue};

use crate::harness::{Fixture, compile, limits, person, text};

const VIEWS: &str = r#"
const Named = t.row("Named", { id: t.u64().primaryKey(), name: t.string() });
export const grown = db.anonymousView({ name: "grown_up", public: true }, t.array(Named),
  ctx => ctx.db.person.age.filter(new Range({ tag: "included", value: 18 })).map(({ id, name }) => ({ id, name })).toArray());
export const first = db.anonymousView({ public: true }, t.option(Named), ctx => ctx.db.person.id.find(1n) ?? undefined);
export const mine = db.view({ public: true }, t.array(Named), ctx => [{ id: ctx.db.person.count(), name: ctx.sender.toHexString() }]);
export const query = db.anonymousView({ public: true }, t.array(db.schemaType.tables.person.rowType),
  ctx => ctx.from.person.where(row => row.age.gte(18).and(row.name.ne("O'Hara")).or(not(row.id.eq(7n)))));
export const writing = db.anonymousView({ public: true }, t.array(Named), ctx => {
  for (const write of [() => ctx.db.person.insert({ id: 0n, name: "x", age: 1 }), () => ctx.db.person.id.delete(1n), () => ctx.db.person.clear()]) {
    try { write(); } catch (error) { console.log(error instanceof errors.TransactionIsReadOnly, error.message); }
  }
  return [];
});
export const wrong = db.anonymousView({ public: true }, t.array(Named), ctx => 7);
export const blind = db.anonymousView({ public: true }, t.array(Named), ctx => { console.log(Object.keys(ctx).join()); return []; });
export const add = db.reducer({ name: t.string(), age: t.u32() }, (ctx, { name, age }) => { ctx.db.person.insert({ id: 0n, name, age }); });
"#;

fn named() -> AlgebraicType {
    AlgebraicType::product([("id", AlgebraicType::U64), ("name", AlgebraicType::String)])
}

fn views() -> Fixture {
    let start = "import { not } from \"tine:server\";\n";
    let mut fixture = person(&format!("{start}{VIEWS}"));
    for (name, age) in [("Ada", 36), ("Ben", 7), ("Cid", 18)] {
        fixture.run("add", vec![text(name), AlgebraicValue::U32(age)]);
    }
    fixture
}

#[test]
fn views_return_rows_or_a_query() {
    let mut fixture = views();
    assert_eq!(fixture.view_rows("grown", &named()), r#"[{"id":3,"name":"Cid"},{"id":1,"name":"Ada"}]"#);
    assert_eq!(fixture.view_rows("first", &named()), r#"[{"id":1,"name":"Ada"}]"#);
    let sender = fixture.context.sender.to_hex();
    assert_eq!(fixture.view_rows("mine", &named()), format!(r#"[{{"id":3,"name":"{sender}"}}]"#));
    let query = r#"SELECT * FROM "person" WHERE (("person"."age" >= 18) AND ("person"."name" <> 'O''Hara')) OR (NOT ("person"."id" = 7))"#;
    assert_eq!(fixture.view_rows("query", &named()), query);
    assert!(matches!(fixture.view("wrong"), Err(CallError::Thrown(_))));
    fixture.view("blind").expect("runs");
    assert_eq!(fixture.logged(), ["db,from"]);
    assert!(!fixture.instance.needs_replacement());
}

#[test]
fn views_tell_what_they_read() {
    let mut fixture = views();
    let schema = fixture.schema.clone();
    let table = schema.table_named("person").expect("exists");
    let index = |column: &str| {
        let column = table.column_named(column).expect("exists").position;
        table.indexes.iter().find(|index| index.columns == [column]).expect("exists").id
    };
    let mut whole = ReadSet::default();
    whole.note_table(table.id);
    assert_eq!(fixture.view("mine").expect("runs").reads, whole);
    let mut one = ReadSet::default();
    one.note_point(&schema, index("id"), &1u64.to_le_bytes()).expect("a key");
    assert_eq!(fixture.view("first").expect("runs").reads, one);
    let mut range = ReadSet::default();
    let (start, end) = (std::ops::Bound::Included(&18u32.to_le_bytes()[..]), std::ops::Bound::Unbounded);
    range.note_range(&schema, index("age"), &[], 0, start, end).expect("a range");
    assert_eq!(fixture.view("grown").expect("runs").reads, range);
    assert_eq!(fixture.view("query").expect("runs").reads, ReadSet::default());
}

#[test]
fn views_cannot_write() {
    let mut fixture = views();
    assert_eq!(fixture.view("writing").expect("runs").rows, ViewRows::Rows(vec![0; 4].into()));
    assert_eq!(fixture.logged(), ["true a view only reads: it cannot change tables"; 3]);
    assert_eq!(fixture.rows("person").len(), 3);
    fixture.run("add", vec![text("Dot"), AlgebraicValue::U32(1)]);
}

const HTTP: &str = r#"
import { Headers, Request, Router, SyncResponse } from "tine:server";
export const hello = db.httpHandler((ctx, request) => {
  const { name } = request.json();
  const id = ctx.withTx(tx => tx.db.person.insert({ id: 0n, name, age: 1 }).id);
  return new SyncResponse(`${request.method} ${request.uri} ${request.headers.get("X-One")} ${request.version.tag} ${id}`, { status: 201, headers: { "X-Two": ["a", "b"] } });
});
export const wrong = db.httpHandler({ name: "other" }, () => "text");
export const routes = db.httpRouter(new Router().post("/hello", hello).nest("/v1", new Router().any("/x", hello).get("/", wrong)));
export const ask = db.procedure({ url: t.string() }, t.string(), (ctx, { url }) => {
  const response = ctx.http.fetch(url, { method: "put", headers: { a: "1" }, body: "ping" });
  return `${response.status} ${response.ok} ${response.headers.get("a")} ${response.version.tag} ${response.text()}`;
});
export const refused = db.procedure(t.string(), ctx => {
  const found = [];
  try { ctx.http.fetch("http://elsewhere/"); } catch (error) { found.push(error instanceof errors.HttpError, error.message); }
  try { ctx.withTx(() => ctx.http.fetch("https://echo/")); } catch (error) { found.push(error instanceof errors.WouldBlockTransaction); }
  return found.join();
});
export const shapes = db.procedure(t.string(), () => {
  const headers = new Headers([["B", " 2 "], ["a", "1"], ["b", "3"]]);
  headers.append("set-cookie", "x=1"), headers.append("Set-Cookie", "y=2");
  const request = new Request("/path", { body: new Uint8Array([104, 105]) });
  return [...headers, request.text(), request.method, headers.has("c")].join("|");
});
"#;

#[test]
fn handlers_answer_requests_and_run_transactions() {
    let mut fixture = person(HTTP);
    let routes: Vec<_> =
        fixture.module.def().http_routes.iter().map(|route| (&*route.path, &*route.handler_function)).collect();
    assert_eq!(routes, [("/hello", "hello"), ("/v1/x", "hello"), ("/v1", "wrong")]);
    let request = HttpRequest {
        method: HttpMethod::Post,
        headers: vec![("x-one".into(), b"1".as_slice().into())],
        timeout: None,
        uri: "/hello?x=1".into(),
        version: HttpVersion::HTTP_11,
    };
    let (response, body) = fixture.handle("hello", &request, br#"{"name":"Ada"}"#).expect("runs");
    assert_eq!(body, "POST /hello?x=1 1 Http11 1");
    assert_eq!((response.code, response.headers), (201, vec![("x-two".into(), b"a, b".as_slice().into())]));
    assert_eq!(fixture.rows("person"), [r#"{"age":1,"id":1,"name":"Ada"}"#]);
    let failed = fixture.handle("wrong", &request, b"").expect_err("no response");
    assert!(failed.to_string().contains("must return a SyncResponse"), "{failed}");
    assert!(fixture.handle("hello", &request, b"no JSON").is_err());
}

#[test]
fn procedures_send_requests() {
    let mut fixture = person(HTTP);
    let answer = fixture.procedure("ask", vec![text("https://echo/x")]).expect("runs");
    assert_eq!(answer, "\"207 true 1 Http2 ping\"");
    let sent = &fixture.host.sent[0];
    assert_eq!((&sent.method, &*sent.uri), (&HttpMethod::Put, "https://echo/x"));
    let refused = fixture.procedure("refused", vec![]).expect("runs");
    assert_eq!(refused, "\"true,http://elsewhere/ is not allowed,true\"");
    let shapes = fixture.procedure("shapes", vec![]).expect("runs");
    assert_eq!(shapes, "\"a,1|b,2, 3|set-cookie,x=1|set-cookie,y=2|hi|GET|false\"");
}

const LIBRARY: &str = r#"
import { schema, table, t } from "spacetimedb/server";
import * as inner from "./inner";
const entry = table({ public: true }, { id: t.u32().primaryKey().autoInc(), text: t.string() });
const job = table({ scheduled: () => work }, { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt() });
const db = schema({ entry, job, inner });
export default db;
export const helper = text => text.toUpperCase();
export const write = db.reducer({ text: t.string() }, (ctx, { text }) => {
  ctx.db.entry.insert({ id: 0, text });
  ctx.as.inner.db.deep.insert({ value: 1 });
});
export const work = db.reducer({ row: job.rowType }, () => {});
export const count = db.procedure(t.u64(), ctx => ctx.withTx(tx => tx.db.entry.count()));
export const all = db.anonymousView({ public: true }, t.array(entry.rowType), ctx => ctx.from.entry.where(row => row.id.gt(0)));
"#;

const INNER: &str = r#"
import { schema, table, t } from "tine:server";
const deep = table({}, { value: t.u8().default(3) });
const db = schema({ deep });
export default db;
export const dive = db.reducer(ctx => { ctx.db.deep.insert({ value: 2 }); });
"#;

const ROOT: &str = r#"
import { schema, table, t } from "tine:server";
import * as lib from "./lib";
const item = table({}, { id: t.u32().primaryKey() });
const db = schema({ item, lib });
export default db;
export const both = db.reducer(ctx => {
  ctx.db.item.insert({ id: 1 });
  ctx.db.lib.entry.insert({ id: 0, text: lib.helper("root") });
  lib.write(ctx.as.lib, { text: "as" });
});
"#;

#[test]
fn modules_are_used_within_modules() {
    let files = [("index.ts", ROOT), ("lib.ts", LIBRARY), ("inner.ts", INNER)];
    let files: BTreeMap<String, String> = files.map(|(path, code)| (path.to_owned(), code.to_owned())).into();
    let bundle = SourceBundle { entry: "index.ts".to_owned(), files };
    let mut fixture = Fixture::of(compile(&bundle, &limits()).unwrap_or_else(|error| panic!("{error}")));
    let def = fixture.module.def().clone();
    let prefixes: Vec<String> = def.flatten().into_iter().map(|(prefix, _)| prefix).collect();
    assert_eq!(prefixes, ["", "lib.", "lib.inner."]);
    assert_eq!(def.submodules[0].module.submodules[0].module.tables[0].default_values.len(), 1);
    fixture.run("both", vec![]);
    assert_eq!(fixture.rows("lib.entry").len(), 2);
    // Numbers go on from the root (both) to the library (work, write) and what it uses (dive).
    fixture.call_at(2, vec![text("called")]).expect("write");
    fixture.call_at(3, vec![]).expect("dive");
    assert_eq!(fixture.rows("lib.entry").len(), 3);
    assert_eq!(fixture.rows("lib.inner.deep").len(), 2);
    assert!(matches!(fixture.call_at(4, vec![]), Err(CallError::NoSuchFunction)));
    let schedule = fixture.schema.table_named("lib.job").and_then(|table| table.schedule.clone()).expect("a schedule");
    assert_eq!(&*schedule.function, "lib.work");
    let rows = fixture.view_rows("lib.all", &named());
    assert_eq!(rows, r#"SELECT * FROM "lib"."entry" WHERE "lib"."entry"."id" > 0"#);
}
