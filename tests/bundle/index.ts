/**
 * A module for the npm server SDK, to be bundled as that SDK's tool chain does it. It has what the client tests call
 * (tests/npm/bindings.mjs), and one reducer per feature, named `check...`, that throws when something is not as it should be.
 */
import { ConnectionId, TimeDuration, Timestamp } from "spacetimedb";
import { errors, Range, ScheduleAt, schema, SenderError, t, table } from "spacetimedb/server";
import { describe, equal, throws } from "./assert";

const person = table(
  { public: true, indexes: [{ accessor: "ageName", algorithm: "btree", columns: ["age", "name"] }] },
  { id: t.u64().primaryKey().autoInc(), name: t.string().index("btree"), age: t.u32() }
);

const secret = table({}, { id: t.u32().primaryKey(), note: t.string() });

const signal = table({ public: true, event: true }, { text: t.string() });

/** Under another name than its accessor, with a hash index, two generated columns and a default. */
const ticket = table(
  { name: "queue_ticket", public: true },
  {
    small: t.u8().autoInc(),
    number: t.u32().primaryKey().autoInc(),
    code: t.string().unique(),
    lane: t.u16().index("hash"),
    note: t.string().default("none"),
  }
);

const mood = t.enum("Mood", { calm: t.unit(), loud: t.u32(), named: t.string() });
const point = t.object("Point", { x: t.f64(), y: t.f32() });

const everything = table(
  {},
  {
    key: t.u32().primaryKey(),
    yes: t.bool(),
    i8: t.i8(),
    i16: t.i16(),
    u16: t.u16(),
    i32: t.i32(),
    i64: t.i64(),
    u64: t.u64(),
    i128: t.i128(),
    u128: t.u128(),
    i256: t.i256(),
    u256: t.u256(),
    point,
    text: t.string(),
    bytes: t.byteArray(),
    list: t.array(t.string()),
    maybe: t.option(t.u32()),
    nothing: t.option(t.string()),
    mood,
    owner: t.identity(),
    connection: t.connectionId(),
    at: t.timestamp(),
    lasting: t.timeDuration(),
    uuid: t.uuid(),
    when: t.scheduleAt(),
  }
);

const reminder = table(
  { public: true },
  { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt(), label: t.string() }
);

const chore = table({}, { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt(), label: t.string() });

const reminded = table({ public: true }, { id: t.u64().primaryKey().autoInc(), label: t.string(), sender: t.identity() });

const visit = table({ public: true }, { connection: t.connectionId().primaryKey(), identity: t.identity() });

const bundle = schema({ person, secret, signal, ticket, everything, reminder, chore, reminded, visit });
export default bundle;

export const init = bundle.init(ctx => {
  ctx.db.secret.insert({ id: 1, note: "only the owner reads this" });
});

export const onConnect = bundle.clientConnected(ctx => {
  if (ctx.connectionId) ctx.db.visit.insert({ connection: ctx.connectionId, identity: ctx.sender });
});

export const onDisconnect = bundle.clientDisconnected(ctx => {
  if (ctx.connectionId) ctx.db.visit.connection.delete(ctx.connectionId);
});

export const add = bundle.reducer({ name: t.string(), age: t.u32() }, (ctx, { name, age }) => {
  ctx.db.person.insert({ id: 0n, name, age });
});

export const rename = bundle.reducer({ id: t.u64(), name: t.string() }, (ctx, { id, name }) => {
  const row = ctx.db.person.id.find(id);
  if (!row) throw new SenderError(`there is no person ${id}`);
  ctx.db.person.id.update({ ...row, name });
});

export const remove = bundle.reducer({ id: t.u64() }, (ctx, { id }) => {
  ctx.db.person.id.delete(id);
});

export const noop = bundle.reducer(() => {});

export const refuse = bundle.reducer({ why: t.string() }, (ctx, { why }) => {
  ctx.db.person.insert({ id: 0n, name: "never", age: 0 });
  throw new SenderError(why);
});

export const trap = bundle.reducer(ctx => {
  ctx.db.person.insert({ id: 0n, name: "never", age: 0 });
  throw new Error("trapped on purpose");
});

export const spin = bundle.reducer(ctx => {
  ctx.db.person.insert({ id: 0n, name: "never", age: 0 });
  for (;;);
});

export const flash = bundle.reducer({ text: t.string() }, (ctx, { text }) => {
  ctx.db.signal.insert({ text });
});

export const say = bundle.reducer({ text: t.string() }, (_ctx, { text }) => {
  console.log(text, { nested: [1, 2n] });
  console.time("timer");
  console.timeEnd("timer");
});

export const checkTypes = bundle.reducer(ctx => {
  const row = {
    key: 1,
    yes: true,
    i8: -128,
    i16: -32768,
    u16: 65535,
    i32: -2147483648,
    i64: -(2n ** 63n),
    u64: 2n ** 64n - 1n,
    i128: -(2n ** 127n),
    u128: 2n ** 128n - 1n,
    i256: -(2n ** 255n),
    u256: 2n ** 256n - 1n,
    point: { x: Math.PI, y: 0.5 },
    text: "æ 漢 🦀 \u0000",
    bytes: new Uint8Array([0, 255, 7]),
    list: ["", "one", "two"],
    maybe: 4294967295,
    nothing: undefined,
    mood: { tag: "loud" as const, value: 11 },
    owner: ctx.sender,
    connection: new ConnectionId(2n ** 100n),
    at: new Timestamp(-5n),
    lasting: new TimeDuration(7n),
    uuid: ctx.newUuidV7(),
    when: ScheduleAt.interval(1000n),
  };
  ctx.db.everything.insert(row);
  const found = ctx.db.everything.key.find(1)!;
  for (const [name, value] of Object.entries(row)) {
    equal(describe(found[name as keyof typeof found]), describe(value), name);
  }
  ctx.db.everything.key.update({ ...found, mood: { tag: "named", value: "x" }, text: "y".repeat(200_000) });
  const [only] = [...ctx.db.everything.iter()];
  equal(only.text.length, 200_000, "a row longer than any buffer");
  equal(ctx.db.everything.key.delete(1), true, "deleted");
  equal(ctx.db.everything.count(), 0n, "none left");
});

export const checkGenerated = bundle.reducer(ctx => {
  ctx.db.ticket.clear();
  const one = ctx.db.ticket.insert({ small: 0, number: 0, code: "a", lane: 1, note: "" });
  const two = ctx.db.ticket.insert({ small: 0, number: 0, code: "b", lane: 1, note: "" });
  equal(two.number, one.number + 1, "the sequence counts");
  equal(two.small, one.small + 1, "both sequences count");
  equal(ctx.db.ticket.insert({ small: 9, number: 900, code: "c", lane: 2, note: "" }).number, 900, "given values stay");
  equal(ctx.db.ticket.code.find("b")!.number, two.number, "found by what was generated");
});

export const checkIndexes = bundle.reducer(ctx => {
  const { ticket, person } = ctx.db;
  ticket.clear();
  for (let n = 1; n <= 6; n++) ticket.insert({ small: n, number: n, code: `t${n}`, lane: n % 2, note: "" });
  equal([...ticket.lane.filter(1)].length, 3, "hash index");
  equal(ticket.lane.delete(1), 3, "deleted by hash index");
  equal(ticket.code.find("t1"), null, "gone");
  equal(ticket.code.delete("t2"), true, "by unique column");
  equal(ticket.delete({ small: 4, number: 4, code: "t4", lane: 0, note: "" }), true, "a whole row");
  equal(ticket.delete({ small: 4, number: 4, code: "t4", lane: 0, note: "" }), false, "not twice");

  for (const row of [...person.name.filter("range")]) person.id.delete(row.id);
  const aged = (age: number) => ({ id: 0n, name: "range", age });
  for (let age = 900; age < 910; age++) person.insert(aged(age));
  const ages = (rows: Iterable<{ age: number }>) => [...rows].map(row => row.age - 900).join("");
  const from = (value: number, tag: "included" | "excluded" = "included") => ({ tag, value }) as const;
  const open = { tag: "unbounded" } as const;
  equal(ages(person.ageName.filter(new Range(from(905), from(908)))), "5678", "closed");
  equal(ages(person.ageName.filter(new Range(from(905, "excluded"), from(908, "excluded")))), "67", "open");
  equal(ages(person.ageName.filter(new Range(from(908), open))), "89", "from");
  equal(ages(person.ageName.filter([903])), "3", "a prefix");
  equal(ages(person.ageName.filter([903, "range"])), "3", "a whole key");
  equal(ages(person.ageName.filter([903, new Range({ tag: "included", value: "r" }, { tag: "excluded", value: "s" })])), "3", "prefix and range");
  equal(person.ageName.delete(new Range(from(900), from(904))), 5, "deleted by range");
  equal(person.name.delete("range"), 5, "deleted by value");
});

export const checkErrors = bundle.reducer(ctx => {
  const { ticket } = ctx.db;
  ticket.clear();
  ticket.insert({ small: 1, number: 1, code: "same", lane: 1, note: "" });
  throws(() => ticket.insert({ small: 1, number: 2, code: "same", lane: 1, note: "" }), errors.UniqueAlreadyExists);
  throws(() => ticket.number.update({ small: 1, number: 77, code: "x", lane: 1, note: "" }), errors.NoSuchRow);
  throws(() => ctx.db.reminder.insert({ id: 0n, at: ScheduleAt.interval(2n ** 62n), label: "" }), errors.ScheduleAtDelayTooLong);
  equal(ticket.count(), 1n, "refused rows leave nothing");
});

export const checkIteration = bundle.reducer(ctx => {
  const { person } = ctx.db;
  for (let n = 0; n < 5000; n++) person.insert({ id: 0n, name: `loop ${n}`, age: 77 });
  let seen = 0;
  for (const row of person.ageName.filter([77])) {
    person.id.delete(row.id);
    if (++seen <= 10) person.insert({ id: 0n, name: `later ${seen}`, age: 77 });
  }
  equal(seen, 5000, "a scan sees what was there when it began");
  for (const row of person.ageName.filter([77])) {
    if (row.name === "later 3") break;
  }
  const left = person.iter().filter(row => row.age === 77);
  const abandoned = person.iter();
  abandoned.next();
  equal([...left.map(row => row.name)].length, 10, "iterator helpers");
  equal(person.ageName.delete([77]), 10, "tidied");
});

export const checkContext = bundle.reducer(ctx => {
  equal(ctx.sender.toHexString().length, 64, "sender");
  equal(ctx.databaseIdentity.isEqual(ctx.databaseIdentity), true, "identity");
  equal(ctx.databaseIdentity.isEqual(ctx.sender), false, "the database is not the caller");
  equal(Date.now(), Number(ctx.timestamp.microsSinceUnixEpoch / 1000n), "the clock stands still");
  equal(ctx.random() < 1, true, "random");
  throws(() => Math.random(), TypeError);
  for (const name of ["performance", "queueMicrotask", "setTimeout", "fetch", "crypto", "process", "URL"]) {
    equal(typeof (globalThis as any)[name], "undefined", name);
  }
  equal(ctx.newUuidV7().getVersion(), "V7", "uuid");
});

/** Whose token it is, as the module learns it. */
export const checkToken = bundle.reducer({ hex: t.string() }, (ctx, { hex }) => {
  const jwt = ctx.senderAuth.jwt;
  if (ctx.connectionId === null) return;
  equal(jwt?.identity.toHexString(), hex, "the token is the caller's");
});

/** Work that goes on after the function has returned belongs to the same call. */
export const later = bundle.reducer({ name: t.string() }, (ctx, { name }) => {
  Promise.resolve().then(() => ctx.db.person.insert({ id: 0n, name, age: 1 }));
});

export const remind = bundle.reducer({ label: t.string() }, (ctx, { label }) => {
  const at = ScheduleAt.time(ctx.timestamp.microsSinceUnixEpoch);
  ctx.db.reminder.insert({ id: 0n, at, label });
  ctx.db.chore.insert({ id: 0n, at, label: `${label} by a procedure` });
});

export const remindNow = bundle.reducer({ onSchedule: reminder }, { arg: reminder.rowType }, (ctx, { arg }) => {
  ctx.db.reminded.insert({ id: 0n, label: arg.label, sender: ctx.sender });
});

export const doChore = bundle.procedure({ onSchedule: chore }, { arg: chore.rowType }, t.unit(), (ctx, { arg }) => {
  ctx.withTx(tx => tx.db.reminded.insert({ id: 0n, label: arg.label, sender: ctx.sender }));
  return {};
});

export const population = bundle.procedure(t.u64(), ctx => ctx.withTx(tx => tx.db.person.count()));

export const addTwice = bundle.procedure({ name: t.string() }, t.u64(), (ctx, { name }) => {
  ctx.withTx(tx => tx.db.person.insert({ id: 0n, name, age: 1 }));
  ctx.withTx(tx => tx.db.person.insert({ id: 0n, name, age: 2 }));
  return ctx.withTx(tx => tx.db.person.count());
});

/** What is refused outside and inside of transactions; returns how many things were. */
export const checkTransactions = bundle.procedure(t.u32(), ctx => {
  let refused = 0;
  const refuses = (body: () => unknown, kind: new (message: string) => unknown) => {
    throws(body, kind);
    refused++;
  };
  let kept: any;
  ctx.withTx(tx => void (kept = tx.db));
  refuses(() => kept.person.count(), errors.NotInTransaction);
  refuses(() => kept.person.insert({ id: 0n, name: "never", age: 0 }), errors.NotInTransaction);
  refuses(() => ctx.withTx(() => ctx.withTx(() => 1)), errors.WouldBlockTransaction);
  refuses(() => ctx.http.fetch("http://127.0.0.1:1/"), errors.HttpError);
  refuses(() => ctx.withTx(() => ctx.http.fetch("http://127.0.0.1:1/")), errors.WouldBlockTransaction);
  refuses(
    () =>
      ctx.withTx(tx => {
        tx.db.person.insert({ id: 0n, name: "rolled back", age: 0 });
        throw new RangeError("on purpose");
      }),
    RangeError
  );
  equal(ctx.withTx(tx => [...tx.db.person.name.filter("rolled back")].length), 0, "aborted");
  return refused;
});
