/**
 * The browser client against a real server. Run by the server crate's test `browser_client` as
 *
 *     node --experimental-websocket web/client.test.mjs ORIGIN
 *
 * with the module of that test published as `people` and a fork `people@other`; asks for a restart of
 * the server by printing "restart" and goes on when a line comes on standard input.
 */
import assert from "node:assert/strict";
import { createInterface } from "node:readline";

const origin = process.argv[2];
const { connect, snakeCase, TineError } = await import(`./client.js`);
globalThis.reportError ??= error => {
  throw error;
};

const within = async (what, condition) => {
  for (const end = Date.now() + 10_000; !condition(); ) {
    assert(Date.now() < end, `${what} did not happen`);
    await new Promise(resolve => setTimeout(resolve, 5));
  }
};
const fails = async (kind, promise) => {
  const error = await promise.then(() => null, error => error);
  assert(error instanceof TineError, `${error}`);
  assert.equal(error.kind, kind, error.message);
  return error;
};
const names = db => [...db.rows("person")].map(({ name }) => name).sort();

for (const [source, canonical] of [
  ["bestFriend", "best_friend"],
  ["HTTPServer", "http_server"],
  ["u32Value", "u_32_value"],
  ["already_snake", "already_snake"],
  ["kebab-case name", "kebab_case_name"],
  ["ÄrgerGroß", "ärger_groß"],
]) {
  assert.equal(snakeCase(source), canonical);
}

// Rows arrive, change and go, and callbacks see whole messages.
const changes = [];
const db = await connect({ database: "people", url: origin, onChange: change => changes.push(change) });
const other = await connect({ database: "people", url: origin });
assert.match(db.identity, /^c200[0-9a-f]{60}$/);
assert.notEqual(db.identity, other.identity);
const subscription = await db.subscribe("SELECT * FROM person");
assert.equal(db.table("person").size, 0);
const told = [];
db.table("person").onInsert(row => told.push(["insert", row.name]));
db.table("person").onUpdate((old, row) => told.push(["update", old.best_friend, row.best_friend]));
const stop = db.table("person").onDelete(row => told.push(["delete", row.name]));

await db.call("add", { id: 1, name: "Ada" });
assert.deepEqual(names(db), ["Ada"]);
assert.deepEqual(db.table("person").get(1), { id: 1, name: "Ada", best_friend: null });
await Promise.all([other.call("add", [2, "Bob"]), other.call("befriend", { id: 1, friend: 2 })]);
await within("the update", () => db.table("person").get(1).best_friend === 2);
await other.call("remove", [2]);
await within("the deletion", () => db.table("person").size === 1);
assert.deepEqual(told, [["insert", "Ada"], ["insert", "Bob"], ["update", null, 2], ["delete", "Bob"]]);
assert.deepEqual(changes[2].tables.get("person").updates[0].new.best_friend, 2);

// A row that two queries select goes when the last of them does.
const second = await db.subscribe(["SELECT * FROM person WHERE id = 1", "SELECT * FROM mark"]);
assert.equal(changes.length, 4);
await subscription.unsubscribe();
assert.deepEqual(names(db), ["Ada"]);
await other.call("befriend", [1, null]);
await within("the update by the second query", () => db.table("person").get(1).best_friend === null);
await second.unsubscribe();
assert.equal(db.table("person").size, 0);
stop();

// Values of all kinds come back as they went.
await db.subscribe("SELECT * FROM mark");
const mark = { big: -(2n ** 100n), ratio: 0.1, tags: ["ä", ""], raw: new Uint8Array([0, 255, 7]), good: true };
const before = BigInt(Date.now()) * 1000n;
await db.call("addMark", mark);
const [row] = db.rows("mark");
assert.deepEqual({ ...row, at: 0 }, { id: 1n, who: db.identity, at: 0, ...mark });
assert(row.at >= before - 1_000_000n && row.at < before + 10_000_000n);
assert.equal(await db.call("twice", { number: 2n ** 60n }), 2n ** 61n);

// What fails says how, and harms nothing.
assert.equal((await fails("sender", db.call("add", [9, ""]))).message, "a name is needed");
await fails("internal", db.call("fail"));
await fails("schema", db.call("nothing"));
await fails("query", db.subscribe("SELECT * FROM secret"));
await fails("query", db.subscribe("SELEC"));
await assert.rejects(db.call("add", { id: 1, nmae: "x" }), TypeError);
await assert.rejects(db.call("add", { id: -1, name: "x" }), RangeError);
await assert.rejects(db.call("add", [1]), TypeError);
assert.throws(() => db.table("nothing"), TineError);
await fails("refused", connect({ database: "nobody", url: origin }));
await fails("refused", connect({ database: "people", url: origin, token: "a.b.c" }));

// A thousand calls in one turn, answered in order.
const order = [];
await Promise.all(Array.from({ length: 1000 }, (_, n) => other.call("noop").then(() => order.push(n))));
assert.deepEqual(order, Array.from({ length: 1000 }, (_, n) => n));

// A fork is a database of its own.
const fork = await connect({ database: "people@other", url: origin });
await fork.subscribe("SELECT * FROM person");
await fork.call("add", [50, "Eve"]);
assert.deepEqual(names(fork), ["Eve"]);
fork.close();
await fails("lost", fork.call("noop"));
assert.equal(fork.state, "closed");

// The same identity again, with its token.
const again = await connect({ database: "people", url: origin, token: db.token });
assert.equal(again.identity, db.identity);
again.close();

// The connection is lost and found.
let closed = null;
const fragile = await connect({ database: "people", url: origin, onClose: reason => (closed = reason) });
const states = [];
const tough = await connect({
  database: "people",
  url: origin,
  reconnect: true,
  onState: state => states.push(state),
  onClose: () => assert.fail("it comes back"),
});
await tough.subscribe("SELECT * FROM person");
const kept = tough.table("person").get(1);
const differences = [];
tough.onChange(({ tables }) => differences.push(tables.get("person")));
const { identity } = tough;
const input = createInterface({ input: process.stdin });
console.log("restart");
await new Promise(resolve => input.once("line", resolve));
input.close();
await within("the end of the fragile one", () => closed !== null);
assert.equal(closed.kind, "lost");
await within("the return of the tough one", () => tough.state === "open");
assert.deepEqual(states, ["open", "reconnecting", "open"]);
assert.equal(tough.identity, identity);
assert.equal(tough.table("person").get(1), kept, "a row that stayed is the same object");
const late = await connect({ database: "people", url: origin });
await late.call("add", [77, "Kim"]);
await within("the row after the return", () => tough.table("person").get(77)?.name === "Kim");
assert.deepEqual(differences.map(({ inserts }) => inserts.length), [1]);
for (const connection of [db, other, tough, late, fragile]) connection.close();
console.log("passed");
