/** Everything the whole-program tests call: ordinary work, refusals, and every way to misbehave. */
import { Range, ScheduleAt, schema, SenderError, t, table } from "spacetimedb/server";

const person = table(
  {
    public: true,
    indexes: [{ accessor: "ageName", algorithm: "btree", columns: ["age", "name"] }],
  },
  { id: t.u64().primaryKey().autoInc(), name: t.string().index("btree"), age: t.u32() }
);

const entry = table(
  { public: true },
  {
    id: t.u64().primaryKey().autoInc(),
    client: t.u32().index("btree"),
    sequence: t.u32(),
    text: t.string(),
  }
);

const secret = table({}, { id: t.u32().primaryKey(), note: t.string() });

const signal = table({ public: true, event: true }, { text: t.string() });

const reminder = table(
  { public: true },
  { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt(), label: t.string() }
);

const reminded = table(
  { public: true },
  { id: t.u64().primaryKey().autoInc(), label: t.string(), sender: t.identity() }
);

const visit = table(
  { public: true },
  { connection: t.connectionId().primaryKey(), identity: t.identity() }
);

/** While a row is here, new connections are refused. */
const gate = table({}, { id: t.u8().primaryKey(), reason: t.string() });

const probe = schema({ person, entry, secret, signal, reminder, reminded, visit, gate });
export default probe;

export const init = probe.init(ctx => {
  ctx.db.secret.insert({ id: 1, note: "only the owner reads this" });
});

export const onConnect = probe.clientConnected(ctx => {
  const closed = ctx.db.gate.id.find(0);
  if (closed) throw new SenderError(closed.reason);
  if (ctx.connectionId) {
    ctx.db.visit.insert({ connection: ctx.connectionId, identity: ctx.sender });
  }
});

export const onDisconnect = probe.clientDisconnected(ctx => {
  if (ctx.connectionId) ctx.db.visit.connection.delete(ctx.connectionId);
});

export const add = probe.reducer({ name: t.string(), age: t.u32() }, (ctx, { name, age }) => {
  ctx.db.person.insert({ id: 0n, name, age });
});

export const rename = probe.reducer({ id: t.u64(), name: t.string() }, (ctx, { id, name }) => {
  const row = ctx.db.person.id.find(id);
  if (!row) throw new SenderError(`there is no person ${id}`);
  ctx.db.person.id.update({ ...row, name });
});

export const remove = probe.reducer({ id: t.u64() }, (ctx, { id }) => {
  ctx.db.person.id.delete(id);
});

export const removeBetween = probe.reducer(
  { age: t.u32(), from: t.string(), to: t.string() },
  (ctx, { age, from, to }) => {
    const names = new Range<string>(
      { tag: "included", value: from },
      { tag: "excluded", value: to }
    );
    ctx.db.person.ageName.delete([age, names]);
  }
);

export const append = probe.reducer(
  { client: t.u32(), sequence: t.u32(), text: t.string() },
  (ctx, { client, sequence, text }) => {
    ctx.db.entry.insert({ id: 0n, client, sequence, text });
  }
);

/** `count` rows of `bytes` bytes in one commit. */
export const fill = probe.reducer({ count: t.u32(), bytes: t.u32() }, (ctx, { count, bytes }) => {
  const text = "x".repeat(bytes);
  for (let sequence = 0; sequence < count; sequence++) {
    ctx.db.entry.insert({ id: 0n, client: 0, sequence, text });
  }
});

export const flash = probe.reducer({ text: t.string() }, (ctx, { text }) => {
  ctx.db.signal.insert({ text });
});

export const remind = probe.reducer({ label: t.string(), ms: t.u32() }, (ctx, { label, ms }) => {
  const at = ScheduleAt.time(ctx.timestamp.microsSinceUnixEpoch + BigInt(ms) * 1000n);
  ctx.db.reminder.insert({ id: 0n, at, label });
});

export const repeat = probe.reducer({ label: t.string(), ms: t.u32() }, (ctx, { label, ms }) => {
  ctx.db.reminder.insert({ id: 0n, at: ScheduleAt.interval(BigInt(ms) * 1000n), label });
});

export const remindNow = probe.reducer(
  { onSchedule: reminder },
  { arg: reminder.rowType },
  (ctx, { arg }) => {
    ctx.db.reminded.insert({ id: 0n, label: arg.label, sender: ctx.sender });
  }
);

export const setGate = probe.reducer({ reason: t.string() }, (ctx, { reason }) => {
  ctx.db.gate.id.delete(0);
  if (reason !== "") ctx.db.gate.insert({ id: 0, reason });
});

export const noop = probe.reducer(() => {});

export const say = probe.reducer({ text: t.string() }, (_ctx, { text }) => {
  console.log(text);
  console.warn(`warned: ${text}`);
});

/** Writes, then refuses: nothing of it may stay. */
export const refuse = probe.reducer({ why: t.string() }, (ctx, { why }) => {
  ctx.db.person.insert({ id: 0n, name: "never", age: 0 });
  throw new SenderError(why);
});

/** Writes, then fails. */
export const trap = probe.reducer(ctx => {
  ctx.db.person.insert({ id: 0n, name: "never", age: 0 });
  throw new Error("trapped on purpose");
});

export const throwText = probe.reducer(ctx => {
  ctx.db.person.insert({ id: 0n, name: "never", age: 0 });
  throw "just text";
});

export const throwNumber = probe.reducer(() => {
  throw 42;
});

export const throwNothing = probe.reducer(() => {
  throw undefined;
});

export const throwStrange = probe.reducer(() => {
  throw {
    get message(): string {
      throw new Error("even the message throws");
    },
    toString() {
      throw new Error("and so does the text");
    },
  };
});

export const spin = probe.reducer(ctx => {
  ctx.db.person.insert({ id: 0n, name: "never", age: 0 });
  for (;;);
});

/** Catches what it can and goes on: a deadline must not be catchable. */
export const spinStubbornly = probe.reducer(() => {
  for (;;) {
    try {
      for (;;);
    } catch {
      continue;
    }
  }
});

export const hoard = probe.reducer(ctx => {
  ctx.db.person.insert({ id: 0n, name: "never", age: 0 });
  const kept: unknown[] = [];
  for (;;) kept.push(new Uint8Array(1 << 20).fill(7));
});

export const hoardText = probe.reducer(() => {
  let text = "x";
  for (;;) text += text;
});

function deeper(n: number): number {
  return 1 + deeper(n + 1);
}

export const recurse = probe.reducer(ctx => {
  ctx.db.person.insert({ id: 0n, name: "never", age: 0 });
  deeper(0);
});

export const promise = probe.reducer((async (ctx: any) => {
  ctx.db.person.insert({ id: 0n, name: "never", age: 0 });
  await null;
}) as any);

/** Module state: must not leak from one fork to another, and may be lost at any time. */
let calls = 0;
export const countCalls = probe.procedure(t.u32(), () => ++calls);

export const population = probe.procedure(t.u64(), ctx =>
  ctx.withTx(tx => tx.db.person.count())
);

export const addTwice = probe.procedure({ name: t.string() }, t.u64(), (ctx, { name }) => {
  ctx.withTx(tx => tx.db.person.insert({ id: 0n, name, age: 1 }));
  ctx.withTx(tx => tx.db.person.insert({ id: 0n, name, age: 2 }));
  return ctx.withTx(tx => tx.db.person.count());
});

/** Keeps a procedure busy without a transaction. */
export const crunch = probe.procedure({ rounds: t.u32() }, t.u32(), (_ctx, { rounds }) => {
  let value = 1;
  for (let round = 0; round < rounds; round++) value = (value * 1103515245 + 12345) >>> 0;
  return value;
});
