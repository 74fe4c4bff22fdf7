//! Every type there and back, and the classes of values.

use tine_module::CallError;
use tine_types::{AlgebraicType, AlgebraicValue, ConnectionId, I256, Identity, TimeDuration, Timestamp, U256, Uuid};

use crate::harness::{Fixture, encode, person};

/// One column of every type.
const ALL: &str = r#"
import { schema, table, t } from "tine:server";
const Shape = t.enum("Shape", { Dot: t.unit(), Circle: t.f32(), Named: t.object("Named", { name: t.string() }) });
const Tree = t.object("Leaf", { label: t.string(), weights: t.array(t.i16()) });
const columns = {
  a: t.bool(), b: t.i8(), c: t.u8(), d: t.i16(), e: t.u16(), f: t.i32(), g: t.u32(), h: t.i64(), i: t.u64(), j: t.i128(), k: t.u128(),
  l: t.i256(), m: t.u256(), n: t.f32(), o: t.f64(), p: t.string(), q: t.byteArray(), r: t.identity(), s: t.connectionId(), u: t.timestamp(),
  v: t.timeDuration(), w: t.uuid(), x: t.scheduleAt(), y: t.option(t.string()), z: t.array(t.option(t.u64())), aa: Shape, ab: Tree,
  ac: t.result(t.u8(), t.string()), ad: t.unit(), ae: t.array(t.u8()), af: t.array(Shape), ag: t.number(),
};
const db = schema({ all: table({}, columns) });
export default db;
export const store = db.reducer({ row: t.row("AllCopy", columns) }, (ctx, { row }) => { ctx.db.all.insert(row); });
export const copy = db.reducer(ctx => {
  const rows = [...ctx.db.all];
  ctx.db.all.clear();
  for (const row of rows) ctx.db.all.insert(row);
});
export const show = db.reducer(ctx => { for (const row of ctx.db.all) console.log(row); });
"#;

fn option(value: Option<AlgebraicValue>) -> AlgebraicValue {
    match value {
        Some(value) => AlgebraicValue::Sum { tag: 0, value: Box::new(value) },
        None => sum(1, unit()),
    }
}

fn sum(tag: u8, value: AlgebraicValue) -> AlgebraicValue {
    AlgebraicValue::Sum { tag, value: Box::new(value) }
}

fn unit() -> AlgebraicValue {
    AlgebraicValue::Product(Vec::new())
}

fn text(value: &str) -> AlgebraicValue {
    AlgebraicValue::String(value.into())
}

/// A row of [`ALL`]; `extreme` picks the ends of ranges.
fn row(extreme: bool) -> AlgebraicValue {
    let wide = if extreme { I256::MIN } else { I256::from(-5) };
    AlgebraicValue::Product(vec![
        AlgebraicValue::Bool(extreme),
        AlgebraicValue::I8(if extreme { i8::MIN } else { 1 }),
        AlgebraicValue::U8(if extreme { u8::MAX } else { 2 }),
        AlgebraicValue::I16(if extreme { i16::MIN } else { -3 }),
        AlgebraicValue::U16(if extreme { u16::MAX } else { 4 }),
        AlgebraicValue::I32(if extreme { i32::MIN } else { 5 }),
        AlgebraicValue::U32(if extreme { u32::MAX } else { 6 }),
        AlgebraicValue::I64(if extreme { i64::MIN } else { -7 }),
        AlgebraicValue::U64(if extreme { u64::MAX } else { 1 << 40 }),
        AlgebraicValue::I128(if extreme { i128::MIN } else { -1 << 70 }),
        AlgebraicValue::U128(if extreme { u128::MAX } else { 10 }),
        AlgebraicValue::I256(wide),
        AlgebraicValue::U256(if extreme { U256::MAX } else { U256::from(11u64) }),
        AlgebraicValue::F32(if extreme { f32::MAX } else { -0.5 }),
        AlgebraicValue::F64(if extreme { f64::NEG_INFINITY } else { 0.1 }),
        text(if extreme { "\u{0}é\u{1F980}" } else { "" }),
        AlgebraicValue::Bytes(if extreme { vec![0, 255].into() } else { Vec::new().into() }),
        Identity::from_claims("a", "b").to_value(),
        ConnectionId::new(if extreme { u128::MAX } else { 0 }).to_value(),
        Timestamp::from_micros(if extreme { i64::MAX } else { -1 }).to_value(),
        TimeDuration::from_micros(if extreme { i64::MIN } else { 1_500_000 }).to_value(),
        Uuid::new(if extreme { u128::MAX } else { 77 }).to_value(),
        if extreme {
            sum(0, TimeDuration::from_micros(5).to_value())
        } else {
            sum(1, Timestamp::from_micros(6).to_value())
        },
        option(extreme.then(|| text("some"))),
        AlgebraicValue::Array(vec![option(None), option(Some(AlgebraicValue::U64(9)))]),
        if extreme { sum(2, AlgebraicValue::Product(vec![text("n")])) } else { sum(0, unit()) },
        AlgebraicValue::Product(vec![
            text("leaf"),
            AlgebraicValue::Array(vec![AlgebraicValue::I16(-1), AlgebraicValue::I16(1)]),
        ]),
        if extreme { sum(1, text("bad")) } else { sum(0, AlgebraicValue::U8(3)) },
        unit(),
        AlgebraicValue::Bytes(vec![1, 2, 3].into()),
        AlgebraicValue::Array(vec![sum(1, AlgebraicValue::F32(1.5)), sum(0, unit())]),
        AlgebraicValue::F64(2.0),
    ])
}

#[test]
fn every_type_survives_javascript() {
    let mut fixture = Fixture::new(ALL);
    for extreme in [false, true] {
        fixture.run("store", vec![row(extreme)]);
    }
    let stored = fixture.rows("all");
    assert_eq!(stored.len(), 2);
    fixture.run("copy", vec![]);
    assert_eq!(fixture.rows("all"), stored);
    // What was stored is what was sent: compare with the arguments themselves, as bytes.
    let table = fixture.schema.table_named("all").expect("exists").clone();
    let ty = AlgebraicType::Product(table.row_type.clone());
    let mut sent: Vec<String> =
        [false, true].map(|extreme| tine_types::json::value_to_json(&ty, &row(extreme)).to_string()).to_vec();
    let mut stored = stored;
    sent.sort();
    stored.sort();
    assert_eq!(stored, sent);
}

#[test]
fn hostile_arguments_are_refused_and_harm_nothing() {
    let mut fixture = Fixture::new(ALL);
    let good = encode(vec![row(true)]);
    fixture.call_raw("store", &good).expect("good arguments");
    for length in 0..good.len() {
        let outcome = fixture.call_raw("store", &good[..length]);
        assert!(matches!(outcome, Err(CallError::BadArguments { .. })), "cut at {length}: {outcome:?}");
    }
    let mut padded = good.clone();
    padded.push(0);
    assert!(matches!(fixture.call_raw("store", &padded), Err(CallError::BadArguments { .. })));
    for position in 0..good.len() {
        let mut changed = good.clone();
        changed[position] ^= 0xff;
        match fixture.call_raw("store", &changed) {
            Ok(()) | Err(CallError::BadArguments { .. }) => {}
            other => panic!("byte {position}: {other:?}"),
        }
    }
    assert!(!fixture.instance.needs_replacement());
}

#[test]
fn the_console_shows_values() {
    let mut fixture = Fixture::new(ALL);
    fixture.run("store", vec![row(false)]);
    fixture.run("show", vec![]);
    let line = fixture.logged().remove(0);
    for part in [
        "a: false, b: 1,",
        "h: -7n, i: 1099511627776n, j: -1180591620717411303424n",
        "q: Uint8Array(0) []",
        "s: ConnectionId(00000000000000000000000000000000)",
        "v: TimeDuration(1500000us)",
        "w: Uuid(00000000-0000-0000-0000-00000000004d)",
        "x: { tag: \"Time\", value: Timestamp(1970-01-01T00:00:00.000006",
        "z: [undefined, 9n]",
        "aa: { tag: \"Dot\" }",
        "ac: { ok: 3 }, ad: {}, ae: Uint8Array(3) [1, 2, 3]",
    ] {
        assert!(line.contains(part), "{part} not in {line}");
    }
}

#[test]
fn value_classes_behave_like_the_sdks() {
    let mut fixture = person(
        r#"
import { Identity, ConnectionId, Timestamp, TimeDuration, Uuid } from "spacetimedb";
const eq = (actual, expected) => { if (actual !== expected) throw new Error(`got ${String(actual)}, expected ${String(expected)}`); };
const throws = body => { try { body(); } catch (e) { return e.constructor.name; } return "nothing"; };
export const go = db.reducer(ctx => {
  const big = 2n ** 255n + 7n;
  const id = new Identity(big);
  eq(id.__identity__, big);
  eq(id.toHexString(), "8" + "0".repeat(62) + "7");
  eq(`${id}`, id.toHexString());
  eq(Identity.fromString(id.toHexString()).isEqual(id), true);
  eq(Identity.fromString("0x" + id.toHexString()).equals(id), true);
  eq(new Identity(7n).isEqual(id), false);
  eq(Identity.zero().__identity__, 0n);
  eq(id instanceof Identity, true);
  eq(id.toUint8Array()[0], 7);
  eq(JSON.stringify({ id: Identity.zero() }), `{"id":"${"0".repeat(64)}"}`);
  eq(throws(() => new Identity(-1n)), "RangeError");
  eq(throws(() => new Identity(2n ** 256n)), "RangeError");
  eq(throws(() => new Identity(true)), "TypeError");
  eq(throws(() => Identity(1n)), "TypeError");
  eq(throws(() => Object.getOwnPropertyDescriptor(Identity.prototype, "__identity__").get.call({})), "TypeError");

  const c = ConnectionId.fromString("ff");
  eq(c.__connection_id__, 255n);
  eq(c.isZero(), false);
  eq(ConnectionId.fromStringOrNull("00"), null);
  eq(ConnectionId.nullIfZero(c), c);
  eq(c.toHexString().length, 32);
  eq(ConnectionId.random() instanceof ConnectionId, true);

  const time = new Timestamp(1_686_000_000_123_456n);
  eq(time.microsSinceUnixEpoch, 1_686_000_000_123_456n);
  eq(time.toMillis(), 1_686_000_000_123n);
  eq(time.toDate().getTime(), 1_686_000_000_123);
  eq(time.toISOString(), "2023-06-05T21:20:00.123456Z");
  eq(new Timestamp(-1n).toISOString(), "1969-12-31T23:59:59.999999Z");
  eq(Timestamp.fromDate(new Date(5)).microsSinceUnixEpoch, 5000n);
  eq(Timestamp.UNIX_EPOCH.microsSinceUnixEpoch, 0n);
  eq(Timestamp.now().microsSinceUnixEpoch, ctx.timestamp.microsSinceUnixEpoch);
  eq(time.since(new Timestamp(1_686_000_000_000_000n)).micros, 123_456n);
  eq(throws(() => new Timestamp(2n ** 63n)), "RangeError");
  eq(throws(() => new Timestamp(2n ** 63n - 1n).toDate()), "RangeError");

  const span = TimeDuration.fromMillis(-1500);
  eq(span.micros, -1_500_000n);
  eq(span.millis, -1500);
  eq(span.toString(), "-1.500000");

  const uuid = Uuid.parse("01888d6e-5c00-7000-8000-000200000000");
  eq(uuid.toString(), "01888d6e-5c00-7000-8000-000200000000");
  eq(uuid.getVersion(), "V7");
  eq(uuid.getCounter(), 1);
  const counter = { value: 1 };
  eq(Uuid.fromCounterV7(counter, Timestamp.fromDate(new Date(1_686_000_000_000)), new Uint8Array(4)).toString(), uuid.toString());
  eq(counter.value, 2);
  eq(Uuid.fromRandomBytesV4(new Uint8Array(16)).toString(), "00000000-0000-4000-8000-000000000000");
  eq(Uuid.NIL.getVersion(), "Nil");
  eq(Uuid.MAX.asBigInt(), Uuid.MAX_UUID_BIGINT);
  eq(Uuid.NIL.compareTo(Uuid.MAX), -1);
  eq(uuid.toBytes()[0], 1);
  eq(throws(() => Uuid.parse("x")), "TypeError");
  eq(throws(() => new Uuid(-1n)), "RangeError");

  eq(ScheduleAt.interval(5n).value.micros, 5n);
  eq(ScheduleAt.time(6n).tag, "Time");
  eq(new Range().from.tag, "unbounded");
});
"#,
    );
    fixture.run("go", vec![]);
}

#[test]
fn plain_objects_stand_for_values() {
    let mut fixture = Fixture::new(
        r#"
import { schema, table, t } from "tine:server";
const db = schema({ v: table({}, { id: t.identity(), c: t.connectionId(), at: t.timestamp(), d: t.timeDuration(), u: t.uuid() }) });
export default db;
const attempt = body => { try { body(); console.log("stored"); } catch (e) { console.log(e.message); } };
export const go = db.reducer(ctx => {
  const row = {
    id: { __identity__: 2n ** 200n }, c: { __connection_id__: 5n }, at: { __timestamp_micros_since_unix_epoch__: -5n },
    d: { __time_duration_micros__: 6n }, u: { __uuid__: 7n },
  };
  attempt(() => ctx.db.v.insert(row));
  attempt(() => ctx.db.v.insert({ ...row, id: "00" }));
  attempt(() => ctx.db.v.insert({ ...row, at: { __timestamp_micros_since_unix_epoch__: 2n ** 63n } }));
  attempt(() => ctx.db.v.insert({ ...row, at: ctx.sender }));
  const [back] = ctx.db.v;
  console.log(back.id.__identity__ === 2n ** 200n, back.at.microsSinceUnixEpoch, back.u.asBigInt());
});
"#,
    );
    fixture.run("go", vec![]);
    assert_eq!(
        fixture.logged(),
        [
            "stored",
            "table `v`, `id`: expected an Identity, got the string \"00\"",
            "table `v`, `at`: expected a bigint of 64 bits, signed (such as 1n), got the bigint 9223372036854775808n",
            "table `v`, `at`: expected a Timestamp, got an object",
            "true -5n 7n",
        ]
    );
}

#[test]
fn sums_are_checked() {
    let mut fixture = Fixture::new(
        r#"
import { schema, table, t } from "tine:server";
const Shape = t.enum("Shape", { Dot: t.unit(), Circle: t.f32(), get Pair() { return t.array(Shape); } });
const Flat = t.enum("Flat", ["On", "Off"]);
const db = schema({ s: table({}, { n: t.u8().primaryKey(), flat: Flat, result: t.result(t.u8(), t.string()) }) });
export default db;
const attempt = body => { try { body(); console.log("stored"); } catch (e) { console.log(e.message); } };
export const go = db.reducer(ctx => {
  const { s } = ctx.db;
  attempt(() => s.insert({ n: 1, flat: Flat.On, result: { ok: 1 } }));
  attempt(() => s.insert({ n: 2, flat: { tag: "Off" }, result: { err: "e" } }));
  attempt(() => s.insert({ n: 3, flat: { tag: "on" }, result: { ok: 1 } }));
  attempt(() => s.insert({ n: 3, flat: "On", result: { ok: 1 } }));
  attempt(() => s.insert({ n: 3, flat: Flat.On, result: {} }));
  attempt(() => s.insert({ n: 3, flat: Flat.On, result: { ok: 256 } }));
});
"#,
    );
    fixture.run("go", vec![]);
    assert_eq!(
        fixture.logged(),
        [
            "stored",
            "stored",
            "table `s`, `flat.tag`: expected one of the tags On, Off, got the string \"on\"",
            "table `s`, `flat`: expected an object with a `tag`, got the string \"On\"",
            "table `s`, `result`: expected an object with `ok` or `err`, got an object",
            "table `s`, `result.ok`: expected an integer from 0 to 255, got 256",
        ]
    );
}

#[test]
fn lone_surrogates_become_replacement_characters() {
    let mut fixture = person(
        r#"
export const go = db.reducer(ctx => {
  const row = ctx.db.person.insert({ id: 0n, name: "a\ud800b\udc00", age: 1 });
  console.log(ctx.db.person.id.find(1n).name === "a\ufffdb\ufffd");
});
"#,
    );
    fixture.run("go", vec![]);
    assert_eq!(fixture.logged(), ["true"]);
}
