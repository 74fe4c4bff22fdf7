//! `ctx`, lifecycle and schedules.

use std::sync::Arc;

use tine_types::{AlgebraicValue, ConnectionId, Timestamp};

use crate::harness::{Fixture, person, text};

#[test]
fn ctx_shows_the_call() {
    let mut fixture = person(
        r#"
export const go = db.reducer(ctx => {
  console.log(ctx.sender.toHexString(), ctx.connectionId?.toHexString(), ctx.timestamp.microsSinceUnixEpoch);
  console.log(ctx.identity.isEqual(ctx.databaseIdentity), ctx.identity.isEqual(ctx.sender), ctx.sender === ctx.sender);
  console.log(ctx.newUuidV4().getVersion(), ctx.newUuidV7().getCounter(), ctx.newUuidV7().getCounter());
  const { hasJWT, isInternal, jwt } = ctx.senderAuth;
  console.log(hasJWT, isInternal, jwt?.subject, jwt?.issuer, jwt?.audience, jwt?.fullPayload.extra, jwt?.identity.isEqual(ctx.sender));
});
"#,
    );
    fixture.run("go", vec![]);
    let hex = fixture.context.sender.to_hex();
    assert_eq!(
        fixture.logged(),
        [
            format!("{hex} 00000000000000000000000000001234 1700000000123456n"),
            "true false true".to_owned(),
            "V4 0 1".to_owned(),
            "false false undefined undefined undefined undefined undefined".to_owned(),
        ]
    );
    fixture.context.sender = fixture.context.database_identity;
    fixture.context.connection_id = None;
    fixture.context.timestamp = Timestamp::from_micros(-1);
    fixture.context.jwt_payload = Some(Arc::from(r#"{"sub":"s","iss":"i","aud":"a","extra":[1]}"#));
    fixture.run("go", vec![]);
    let hex = fixture.context.sender.to_hex();
    assert_eq!(
        fixture.logged(),
        [
            format!("{hex} undefined -1n"),
            "true true true".to_owned(),
            "V4 0 1".to_owned(),
            "true true s i [\"a\"] [1] true".to_owned(),
        ]
    );
}

#[test]
fn ctx_cannot_carry_anything_to_the_next_call() {
    let mut fixture = person(
        r#"
const attempt = body => { try { body(); return "done"; } catch (e) { return e.name; } };
export const go = db.reducer(ctx => {
  console.log(
    attempt(() => { ctx.note = 1; }), attempt(() => { ctx.sender = 1; }), attempt(() => { ctx.sender.note = 1; }),
    attempt(() => { ctx.timestamp.note = 1; }), attempt(() => { ctx.db.person = 1; }), attempt(() => { ctx.db.person.note = 1; }),
    attempt(() => { ctx.random.note = 1; }),
  );
});
let kept;
export const keep = db.reducer(ctx => { kept = ctx.sender; });
export const compare = db.reducer(ctx => { console.log(kept.isEqual(ctx.sender)); });
"#,
    );
    fixture.run("go", vec![]);
    assert_eq!(fixture.logged(), [["TypeError"; 7].join(" ")]);
    fixture.run("keep", vec![]);
    fixture.context.sender = fixture.context.database_identity;
    fixture.run("compare", vec![]);
    assert_eq!(fixture.logged(), ["false"]);
}

#[test]
fn lifecycle_and_scheduled_reducers_run() {
    let mut fixture = Fixture::new(
        r#"
import { schema, table, t, ScheduleAt } from "tine:server";
const alarm = table({ name: "alarms" }, { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt(), note: t.string() });
const online = table({ public: true }, { who: t.identity().primaryKey(), connection: t.connectionId() });
const db = schema({ alarm, online });
export default db;
export const init = db.init(ctx => {
  ctx.db.alarm.insert({ id: 0n, at: ScheduleAt.interval(1_000_000n), note: "tick" });
  ctx.db.alarm.insert({ id: 0n, at: ScheduleAt.time(ctx.timestamp.microsSinceUnixEpoch + 5n), note: "once" });
});
export const onConnect = db.clientConnected(ctx => { ctx.db.online.insert({ who: ctx.sender, connection: ctx.connectionId }); });
export const onDisconnect = db.clientDisconnected(ctx => { ctx.db.online.who.delete(ctx.sender); });
export const ring = db.reducer({ onSchedule: alarm }, { arg: alarm.rowType }, (ctx, { arg }) => {
  console.log(arg.note, arg.at.tag, arg.id, ctx.senderAuth.isInternal);
});
"#,
    );
    fixture.run("init", vec![]);
    fixture.run("onConnect", vec![]);
    assert_eq!(fixture.rows("online").len(), 1);
    let alarms = fixture.rows("alarms");
    assert!(alarms[0].contains("Interval") && alarms[1].contains("Time"), "{alarms:?}");
    fixture.context.connection_id = None;
    fixture.context.sender = fixture.context.database_identity;
    let at = AlgebraicValue::Sum { tag: 1, value: Box::new(Timestamp::from_micros(5).to_value()) };
    fixture.run("ring", vec![AlgebraicValue::Product(vec![AlgebraicValue::U64(2), at, text("once")])]);
    assert_eq!(fixture.logged(), ["once Time 2n true"]);
    fixture.context = crate::harness::context();
    fixture.context.connection_id = Some(ConnectionId::new(1));
    fixture.run("onDisconnect", vec![]);
    assert!(fixture.rows("online").is_empty());
}

#[test]
fn reducers_can_call_one_another() {
    let mut fixture = person(
        r#"
export const add = db.reducer({ name: t.string() }, (ctx, { name }) => { ctx.db.person.insert({ id: 0n, name, age: 1 }); });
export const twice = db.reducer({ name: t.string() }, (ctx, { name }) => { add(ctx, { name }); add(ctx, { name: name + "!" }); });
"#,
    );
    fixture.run("twice", vec![text("x")]);
    assert_eq!(fixture.rows("person").len(), 2);
}

#[test]
fn event_tables_take_rows() {
    let mut fixture = Fixture::new(
        r#"
import { schema, table, t } from "tine:server";
const db = schema({ happened: table({ event: true, public: true }, { what: t.string() }) });
export default db;
export const go = db.reducer(ctx => { ctx.db.happened.insert({ what: "it" }); console.log(ctx.db.happened.count()); });
"#,
    );
    fixture.run("go", vec![]);
    assert_eq!(fixture.logged(), ["0n"]);
}

#[test]
fn the_market_example_compiles() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/market");
    let bundle = tine_module::SourceBundle::collect(&path).unwrap_or_else(|error| panic!("{error}"));
    let module = crate::harness::compile(&bundle, &crate::harness::limits()).unwrap_or_else(|error| panic!("{error}"));
    let mut fixture = Fixture::of(module);
    fixture.run("init", vec![]);
    fixture.run("join", vec![text("Ada")]);
    let audit = fixture.procedure("audit", vec![]).unwrap_or_else(|error| panic!("{error}"));
    assert!(audit.contains("\"balanced\":true"), "{audit}");
}

#[test]
fn console_timers_measure_and_end_with_their_call() {
    let mut fixture = person(
        r#"
export const run = db.reducer(() => {
  console.time("a");
  console.time("a");
  console.timeLog("a", "half", 1);
  console.timeEnd("a");
  console.timeEnd("a");
  console.time("left");
});
export const again = db.reducer(() => {
  console.timeEnd("left");
  console.time();
  console.timeEnd();
  for (let i = 0; i <= 1024; i++) console.time(`${i}`);
});
"#,
    );
    let mut lines = |reducer: &str| {
        fixture.run(reducer, vec![]);
        let without_time = |line: String| {
            let words = line
                .split(' ')
                .map(|word| if word.parse::<f64>().is_ok_and(|_| word.contains('.')) { "T" } else { word });
            words.collect::<Vec<_>>().join(" ")
        };
        fixture.logged().into_iter().map(without_time).collect::<Vec<_>>()
    };
    let expected = ["timer 'a' already exists", "a: T ms half 1", "a: T ms", "timer 'a' does not exist"];
    assert_eq!(lines("run"), expected);
    let expected = ["timer 'left' does not exist", "default: T ms", "more than 1024 console timers run"];
    assert_eq!(lines("again"), expected);
}
