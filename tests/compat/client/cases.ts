/**
 * What the club's members do, one case per feature. A case returns what it saw, without what differs from run to run (identities,
 * times), so that a database and its forks can be compared.
 */
import { DbConnection, tables, type SubscriptionHandle } from "./bindings/index";
import { type Mood, type Sample } from "./bindings/types";
import { ConnectionId, Identity, ScheduleAt, SenderError, InternalError, TimeDuration, Timestamp, Uuid } from "spacetimedb";

/** How long something may take to come; much less where nothing else runs. */
export const PATIENCE_MS = 30_000;

export type Case = (place: Place) => Promise<unknown>;

/** A database or fork to run on. */
export class Place {
  readonly open: DbConnection[] = [];

  constructor(
    readonly url: string,
    readonly database: string,
    readonly ownerToken: string
  ) {}

  /** Connects; rejects with the SDK's error. */
  connect(token?: string, set: (builder: ReturnType<typeof DbConnection.builder>) => unknown = () => {}) {
    return new Promise<Member>((resolve, reject) => {
      const builder = DbConnection.builder()
        .withUri(this.url)
        .withDatabaseName(this.database)
        .withToken(token)
        .onConnect((connection, identity, ownToken) => resolve({ connection, identity, token: ownToken }))
        .onConnectError((_context, error) => reject(error))
        .onDisconnect((_context, error) => reject(error ?? new Error("disconnected")));
      set(builder);
      this.open.push(builder.build());
    });
  }

  close() {
    for (const connection of this.open.splice(0)) connection.disconnect();
  }

  http(method: string, path: string, body?: string, token?: string, type = "application/json") {
    const headers: Record<string, string> = body === undefined ? {} : { "content-type": type };
    if (token) headers.authorization = `Bearer ${token}`;
    const name = encodeURIComponent(this.database);
    return fetch(`${this.url}/v1/database/${name}${path}`, { method, headers, body });
  }

  async sql(statement: string, token?: string) {
    const reply = await this.http("POST", "/sql", statement, token, "text/plain");
    return reply.ok ? ((await reply.json()) as any[])[0] : { status: reply.status };
  }
}

/** The sockets that were opened, with the tags of what came over them. */
export const sockets: { tags: Set<number> }[] = [];

/** Has the SDK use sockets that keep the tags of messages. */
export function watchSockets(Socket: typeof WebSocket) {
  class Watched extends Socket {
    constructor(url: string | URL, protocols?: string | string[]) {
      super(url, protocols);
      const tags = new Set<number>();
      sockets.push({ tags });
      this.addEventListener("message", event => tags.add(new Uint8Array(event.data)[0]));
    }
  }
  Object.assign(globalThis, { WebSocket: Watched });
}

/** Text that compresses badly, so that reading it takes its time. */
const noise = (length: number) => Array.from({ length }, () => String.fromCharCode(33 + Math.random() * 90)).join("");

export interface Member {
  connection: DbConnection;
  identity: Identity;
  token: string;
}

export function subscribe(member: Member, ...queries: any[]) {
  return new Promise<SubscriptionHandle>((resolve, reject) => {
    const handle = member.connection
      .subscriptionBuilder()
      .onApplied(() => resolve(handle))
      .onError(context => reject(context.event ?? new Error("refused")))
      .subscribe(queries);
  });
}

/** Waits for something that commits of others bring. */
export async function until(what: string, holds: () => boolean) {
  const deadline = Date.now() + PATIENCE_MS;
  while (Date.now() < deadline) {
    if (holds()) return;
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  throw new Error(`waited in vain for ${what}`);
}

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => "no failure",
    error => {
      const kind = error instanceof SenderError ? "sender" : error instanceof InternalError ? "internal" : "other";
      return kind === "sender" ? `${kind}: ${error.message}` : kind;
    }
  );

const plain = { tag: "Plain" } as Mood;
const words = (text: string) => ({ room: 1, text, mood: plain, tags: [], replyTo: undefined });

export const cases: Record<string, Case> = {
  async "anonymous and token connections"(place) {
    const first = await place.connect();
    first.connection.disconnect();
    const again = await place.connect(first.token);
    const other = await place.connect();
    return [again.identity.isEqual(first.identity), other.identity.isEqual(first.identity)];
  },

  async "reducers, and rows with the reducer's event"(place) {
    const ada = await place.connect();
    await subscribe(ada, tables.member);
    const seen = new Promise<unknown[]>(resolve =>
      ada.connection.db.member.onInsert((context, row) => resolve([context.event.tag, row.name, row.rank, row.timesSeen]))
    );
    await ada.connection.reducers.join({ name: `ada of ${place.database.length > 0}`, rank: { tag: "Keeper" } });
    const found = ada.connection.db.member.identity.find(ada.identity);
    return [await seen, found?.rank, ada.connection.db.member.name.find("nobody")];
  },

  async "rows of others: inserts, updates and deletes"(place) {
    const [watcher, actor] = [await place.connect(), await place.connect()];
    await subscribe(watcher, tables.message.where(row => row.text.ne("unseen")));
    const events: unknown[] = [];
    const { message } = watcher.connection.db;
    message.onInsert((context, row) => events.push(["insert", context.event.tag, row.text, row.mood, row.tags]));
    message.onUpdate((_context, old, row) => events.push(["update", old.text, row.text]));
    message.onDelete((_context, row) => events.push(["delete", row.text]));
    const before = message.count();
    await actor.connection.reducers.post({ ...words("hello"), mood: { tag: "Loud", value: 7 }, tags: ["a", "b"] });
    await until("the row", () => message.count() > before);
    const { id } = [...message.iter()].find(row => row.text === "hello")!;
    await actor.connection.reducers.edit({ id, text: "changed" });
    await until("the update", () => events.length === 2);
    await actor.connection.reducers.edit({ id, text: "unseen" });
    await until("the delete", () => events.length === 3);
    await actor.connection.reducers.eraseMine({ room: 1 });
    return events;
  },

  async "sender errors, traps and constraints"(place) {
    const { connection } = await place.connect();
    const failures = [
      await failure(connection.reducers.refuse({ why: "on principle" })),
      await failure(connection.reducers.trap({})),
      await failure(connection.reducers.openRoom({ title: "hall" })),
      await failure(connection.reducers.join({ name: " ", rank: { tag: "Guest" } })),
    ];
    return [failures, (await place.sql("SELECT COUNT(*) AS n FROM audit WHERE what = 'on principle'", place.ownerToken)).rows];
  },

  async "requests in one burst are answered in order"(place) {
    const { connection } = await place.connect();
    const order: string[] = [];
    const calls = Array.from({ length: 60 }, (_, number) => {
      const call = number % 3 === 1 ? connection.reducers.refuse({ why: "no" }) : connection.reducers.nothing({});
      return call.catch(() => {}).then(() => order.push(String(number)));
    });
    await Promise.all(calls);
    return order.every((number, place) => number === String(place));
  },

  async "every column type there and back"(place) {
    const member = await place.connect();
    await subscribe(member, tables.sample);
    const row: Sample = {
      key: 1,
      yes: true,
      i8: -128,
      u8: 255,
      i16: -32768,
      u16: 65535,
      i32: -2147483648,
      i64: -(2n ** 63n),
      u64: 2n ** 64n - 1n,
      i128: -(2n ** 127n),
      u128: 2n ** 128n - 1n,
      i256: -(2n ** 255n),
      u256: 2n ** 256n - 1n,
      f32: 1.5,
      f64: -1e300,
      text: "snow \u2603 and \u{1f980}",
      bytes: new Uint8Array([0, 1, 254, 255]),
      list: [1, -1],
      nested: [["a"], [], ["b", "c"]],
      maybe: 5,
      nothing: undefined,
      // The SDK says the type is that of the value alone, and wants this.
      outcome: { ok: "fine" } as unknown as string,
      point: { x: 0.25, y: -0.5 },
      rank: { tag: "Regular" },
      mood: { tag: "Quoted", value: { of: 3n, by: "eve" } },
      owner: new Identity("c2".padEnd(64, "0")),
      connection: new ConnectionId(77n),
      at: new Timestamp(1_700_000_000_000_001n),
      lasting: new TimeDuration(-5n),
      uuid: Uuid.parse("01234567-89ab-cdef-0123-456789abcdef"),
      when: ScheduleAt.interval(1_000n),
    };
    await member.connection.reducers.store({ row });
    await until("the row", () => member.connection.db.sample.count() > 0n);
    const back = member.connection.db.sample.key.find(1)!;
    return JSON.stringify(back, show) === JSON.stringify(row, show) ? JSON.stringify(back, show) : [back, row];
  },

  async "queries: conditions, NOT, semijoins, several at once"(place) {
    const member = await place.connect();
    const { reducers, db } = member.connection;
    await reducers.openRoom({ title: "attic" });
    await reducers.post(words("one"));
    await reducers.post({ ...words("two"), room: 2, replyTo: 1n });
    await subscribe(
      member,
      tables.room.where(row => row.open.eq(true).and(row.title.eq("hall").not())),
      tables.message.rightSemijoin(tables.room, (message, room) => message.room.eq(room.id)).where(row => row.title.eq("hall"))
    );
    const rooms = [...db.room.iter()].map(row => row.title).sort();
    await reducers.closeRooms({});
    await until("the room to close", () => db.room.count() === 1n);
    return [rooms, [...db.room.iter()].map(row => row.title)];
  },

  async "subscriptions: refusals, overlap, unsubscribing"(place) {
    const member = await place.connect();
    const { db, reducers } = member.connection;
    const refused = [];
    for (const query of ["SELECT * FROM nobody", "SELECT * FROM audit", "nonsense"]) {
      refused.push(await subscribe(member, query).then(() => "applied", () => "refused"));
    }
    const all = await subscribe(member, "SELECT * FROM room");
    const some = await subscribe(member, "SELECT * FROM room WHERE id = 1");
    const counts = [db.room.count()];
    await new Promise<void>(resolve => all.unsubscribeThen(() => resolve()));
    counts.push(db.room.count());
    await new Promise<void>(resolve => some.unsubscribeThen(() => resolve()));
    await reducers.openRoom({ title: "unheard" });
    counts.push(db.room.count());
    return [refused, counts];
  },

  async "event tables"(place) {
    const [watcher, actor] = [await place.connect(), await place.connect()];
    await subscribe(watcher, "SELECT * FROM ping");
    const heard: string[] = [];
    watcher.connection.db.ping.onInsert((_context, row) => heard.push(row.text));
    await actor.connection.reducers.shout({ text: "over here" });
    await until("the event", () => heard.length > 0);
    return [heard, watcher.connection.db.ping.count(), (await place.sql("SELECT COUNT(*) AS n FROM ping")).rows];
  },

  async "other names, hash and direct indexes, defaults"(place) {
    const member = await place.connect();
    await subscribe(member, "SELECT * FROM club_locker WHERE shelf = 4");
    for (const [number, shelf] of [[1, 4], [2, 4], [3, 5]]) await member.connection.reducers.rent({ number, shelf, position: number });
    await until("the rows", () => member.connection.db.locker.count() === 2n);
    const labels = [...member.connection.db.locker.shelf.filter(4)].map(row => row.label).sort();
    const inserted = await place.sql("INSERT INTO club_locker (number, shelf, position) VALUES (9, 9, 9)", place.ownerToken);
    return [labels, inserted.stats, (await place.sql("SELECT label FROM club_locker WHERE position = 9")).rows];
  },

  async "row-level security"(place) {
    const [ada, eve] = [await place.connect(), await place.connect()];
    await ada.connection.reducers.writeNote({ text: "ada's" });
    await eve.connection.reducers.writeNote({ text: "eve's" });
    for (const member of [ada, eve]) await subscribe(member, "SELECT * FROM note", "SELECT * FROM room_secret");
    const notes = (member: Member) => [...member.connection.db.note.iter()].map(row => row.text).sort();
    const secrets = (member: Member) => [...member.connection.db.roomSecret.iter()].map(row => row.word);
    const outside = [secrets(ada), secrets(eve)];
    await ada.connection.reducers.enter({ room: 1 });
    await until("the secret", () => secrets(ada).length === 1);
    const inside = [secrets(ada), secrets(eve)];
    await ada.connection.reducers.leave({ room: 1 });
    await until("the secret to go", () => secrets(ada).length === 0);
    const counted = (await place.sql("SELECT COUNT(*) AS n FROM note", ada.token)).rows;
    return [notes(ada), notes(eve), outside, inside, counted];
  },

  async "lifecycle hooks, and one that refuses"(place) {
    const member = await place.connect();
    await member.connection.reducers.join({ name: "seen often", rank: { tag: "Guest" } });
    const watcher = await place.connect();
    await subscribe(watcher, "SELECT * FROM member WHERE name = 'seen often'");
    const online = () => [...watcher.connection.db.member.iter()].map(row => [row.online, row.timesSeen])[0];
    const states = [online()];
    member.connection.disconnect();
    await until("the member to leave", () => online()[0] === false);
    states.push(online());
    const again = await place.connect(member.token);
    await until("the member to come back", () => online()[0] === true);
    states.push(online());
    await again.connection.reducers.banMe({});
    again.connection.disconnect();
    const refused = await place.connect(member.token).then(() => "connected", () => "refused");
    const call = await place.http("POST", "/call/nothing", "[]", member.token);
    return [states, refused, call.status, await call.text()];
  },

  async "tokens and their claims"(place) {
    const member = await place.connect();
    await subscribe(member, "SELECT * FROM claim");
    await member.connection.reducers.claimToken({});
    await until("the claim", () => member.connection.db.claim.count() > 0n);
    const [claim] = [...member.connection.db.claim.iter()].slice(-1);
    return [claim.issuer, claim.subject.length, claim.internal];
  },

  async "procedures and their transactions"(place) {
    const member = await place.connect();
    await subscribe(member, "SELECT * FROM message WHERE room = 3");
    const before = await member.connection.procedures.tally({ room: 3 });
    await member.connection.procedures.postTwice({ room: 3, text: "the" });
    await until("both rows", () => member.connection.db.message.count() === 2n);
    const after = await member.connection.procedures.tally({ room: 1 });
    const failed = await failure(member.connection.procedures.failHalfway({ text: "half" }));
    const kept = (await place.sql("SELECT COUNT(*) AS n FROM audit WHERE what = 'half'", place.ownerToken)).rows;
    return [before.title ?? null, after.title, failed, kept];
  },

  async "HTTP calls with JSON both ways"(place) {
    const results = [];
    for (const [name, body] of [
      ["open_room", '["by array"]'],
      ["openRoom", '{"title": "by object"}'],
      ["tally", "[1]"],
      ["refuse", '["politely"]'],
      ["trap", "[]"],
      ["open_room", "[1]"],
      ["on_connect", "[]"],
      ["missing", "[]"],
    ]) {
      const reply = await place.http("POST", `/call/${name}`, body);
      results.push([name, reply.status, name === "tally" || name === "refuse" ? await reply.text() : ""]);
    }
    return [results, (await place.http("POST", "/call/nothing", "[]", undefined, "text/plain")).status];
  },

  async "SQL over HTTP"(place) {
    const statements = [
      "SELECT title AS name FROM room WHERE id = 1 LIMIT 1",
      "SELECT COUNT(*) AS n FROM room WHERE id < 2",
      "INSERT INTO audit VALUES (0, 'by hand'), (0, 'by hand')",
      "UPDATE audit SET what = 'done' WHERE what = 'by hand'",
      "DELETE FROM audit WHERE what = 'done'",
      "SELECT * FROM st_module",
      "SELECT id FROM room ORDER BY id",
      "SELECT 1; SELECT 2",
    ];
    const owner = [];
    for (const statement of statements.filter(text => !text.includes("st_"))) {
      const { rows, stats, status } = await place.sql(statement, place.ownerToken);
      owner.push(status ?? [rows, stats]);
    }
    const others = [];
    for (const statement of ["DELETE FROM audit", "SELECT * FROM audit", "SELECT * FROM st_module"]) {
      others.push((await place.sql(statement)).status);
    }
    return [owner, others];
  },

  async "changes by SQL reach subscribers"(place) {
    const member = await place.connect();
    await subscribe(member, "SELECT * FROM room WHERE title = 'painted'");
    await place.sql("INSERT INTO room VALUES (0, 'painted', TRUE)", place.ownerToken);
    await until("the row", () => member.connection.db.room.count() === 1n);
    await place.sql("UPDATE room SET title = 'bare' WHERE title = 'painted'", place.ownerToken);
    await until("the row to go", () => member.connection.db.room.count() === 0n);
    return "seen";
  },

  async "schemas 9 and 10, names, identity"(place) {
    const schemas = [];
    for (const version of [9, 10, 8]) schemas.push((await place.http("GET", `/schema?version=${version}`)).status);
    const identity = await (await place.http("GET", "/identity")).text();
    return [schemas, identity.length, (await place.http("GET", "/names")).status];
  },

  async "module logs are the owner's"(place) {
    const member = await place.connect();
    await member.connection.reducers.say({ text: "for the log" });
    const stranger = await place.http("GET", "/logs?num_lines=5");
    const owner = await place.http("GET", "/logs?num_lines=20", undefined, place.ownerToken);
    const lines = (await owner.text()).trim().split("\n").map(line => JSON.parse(line));
    const said = lines.some(line => line.message.includes("for the log") && line.level === "Info");
    return [stranger.status, said, lines.some(line => /^saying: .* ms$/.test(line.message))];
  },

  /**
   * Updates of one row, long and short in turn and sent without waiting: whoever takes them out of order sees it. The long ones are
   * longer than what the server packs together, so that they travel alone.
   */
  async "compression as asked for, in order"(place) {
    const results = [];
    const long = noise(600_000);
    for (const compression of ["none", "gzip", undefined] as const) {
      const actor = await place.connect();
      const room = 100 + results.length;
      const opened = sockets.length;
      const watcher = await place.connect(undefined, builder => compression && builder.withCompression(compression));
      await subscribe(watcher, tables.message.where(row => row.room.eq(room)));
      await actor.connection.reducers.post({ ...words("0"), room });
      const { message } = watcher.connection.db;
      await until("the row", () => message.count() === 1n);
      const [{ id }] = [...message.iter()];
      const seen: number[] = [];
      message.onUpdate((_context, _old, row) => seen.push(parseInt(row.text)));
      const numbers = Array.from({ length: 24 }, (_, number) => number + 1);
      await Promise.all(
        numbers.map(number => {
          const text = number % 3 === 1 ? `${number} ${long}` : `${number}`;
          return actor.connection.reducers.edit({ id, text });
        })
      );
      await until("the updates", () => seen.length >= numbers.length);
      results.push([
        compression ?? "as the SDK asks by default",
        [...sockets[opened].tags].sort(),
        seen.every((number, place) => number === numbers[place]),
        parseInt([...message.iter()][0].text),
      ]);
      await actor.connection.reducers.eraseMine({ room });
    }
    return results;
  },

  async "unconfirmed reads"(place) {
    const member = await place.connect(undefined, builder => builder.withConfirmedReads(false));
    await member.connection.reducers.nothing({});
    return "done";
  },
};

/** What values look like in a result. */
export function show(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return `${value}n`;
  if (value instanceof Uint8Array) return [...value];
  // The SDK gives a variant without payload an empty one.
  if (value && typeof value === "object" && "tag" in value && "value" in value && isEmpty(value.value)) return { tag: value.tag };
  return value;
}

const isEmpty = (value: unknown) => !!value && typeof value === "object" && Object.keys(value).length === 0;
