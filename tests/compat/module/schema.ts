/** Tables of the club: members, rooms, messages, and one table per kind of column, index and rule. */
import { schema, t, table } from "spacetimedb/server";
import * as archive from "./archive";

export const Rank = t.enum("Rank", ["Guest", "Regular", "Keeper"]);
export const Mood = t.enum("Mood", { Plain: t.unit(), Loud: t.u32(), Quoted: t.object("Quote", { of: t.u64(), by: t.string() }) });
export const Point = t.object("Point", { x: t.f64(), y: t.f32() });

export const member = table(
  { public: true },
  {
    identity: t.identity().primaryKey(),
    name: t.string().unique(),
    rank: Rank,
    online: t.bool(),
    timesSeen: t.u32(),
  }
);

export const room = table(
  { public: true },
  { id: t.u32().primaryKey().autoInc(), title: t.string().unique(), open: t.bool().index("btree") }
);

export const message = table(
  {
    public: true,
    indexes: [{ accessor: "roomAuthor", algorithm: "btree", columns: ["room", "author"] }],
  },
  {
    id: t.u64().primaryKey().autoInc(),
    room: t.u32().index("btree"),
    author: t.identity().index("btree"),
    text: t.string(),
    mood: Mood,
    tags: t.array(t.string()),
    replyTo: t.option(t.u64()),
  }
);

export const membership = table(
  { public: true },
  { id: t.u32().primaryKey().autoInc(), room: t.u32().index("btree"), member: t.identity().index("btree") }
);

/** Guarded by a rule about the row. */
export const note = table(
  { public: true },
  { id: t.u32().primaryKey().autoInc(), owner: t.identity().index("btree"), text: t.string() }
);

/** Guarded by a rule that joins. */
export const roomSecret = table({ public: true }, { room: t.u32().primaryKey(), word: t.string() });

export const ping = table({ public: true, event: true }, { from: t.identity(), text: t.string() });

/** Under another name, with a hash and a direct index and a default. */
export const locker = table(
  { name: "club_locker", public: true },
  {
    number: t.u8().primaryKey(),
    shelf: t.u16().index("hash"),
    position: t.u8().index("direct"),
    label: t.string().default("empty"),
  }
);

export const audit = table({}, { id: t.u32().primaryKey().autoInc(), what: t.string() });
export const ban = table({}, { identity: t.identity().primaryKey() });
export const claim = table({ public: true }, { subject: t.string().primaryKey(), issuer: t.string(), internal: t.bool() });

/** Each row is read out at its time. */
export const reminder = table(
  { public: true },
  { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt(), text: t.string(), byProcedure: t.bool() }
);
export const errand = table({}, { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt(), text: t.string() });

export const sample = table(
  { public: true },
  {
    key: t.u32().primaryKey(),
    yes: t.bool(),
    i8: t.i8(),
    u8: t.u8(),
    i16: t.i16(),
    u16: t.u16(),
    i32: t.i32(),
    i64: t.i64(),
    u64: t.u64(),
    i128: t.i128(),
    u128: t.u128(),
    i256: t.i256(),
    u256: t.u256(),
    f32: t.f32(),
    f64: t.f64(),
    text: t.string(),
    bytes: t.byteArray(),
    list: t.array(t.i32()),
    nested: t.array(t.array(t.string())),
    maybe: t.option(t.u32()),
    nothing: t.option(t.string()),
    outcome: t.result(t.string(), t.string()),
    point: Point,
    rank: Rank,
    mood: Mood,
    owner: t.identity(),
    connection: t.connectionId(),
    at: t.timestamp(),
    lasting: t.timeDuration(),
    uuid: t.uuid(),
    when: t.scheduleAt(),
  }
);

export const club = schema({
  member,
  room,
  message,
  membership,
  note,
  roomSecret,
  ping,
  locker,
  audit,
  ban,
  claim,
  reminder,
  errand,
  sample,
  archive,
});
