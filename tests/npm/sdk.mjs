/**
 * The unmodified npm SDK against a Tine server: one case after the other, one line of output each.
 * usage: node sdk.mjs URL DATABASE FORK
 * DATABASE runs tests/modules/probe.ts; FORK is `DATABASE@name`, made from it.
 */
import assert from "node:assert/strict";
import { builder } from "./bindings.mjs";

const [url, database, fork] = process.argv.slice(2);
const CASE_TIMEOUT_MS = 15_000;

/** Connects; resolves to the connection, or rejects with the SDK's error. */
function connect(name, { token, configure = b => b } = {}) {
  return new Promise((resolve, reject) => {
    configure(
      builder()
        .withUri(url)
        .withDatabaseName(name)
        .withToken(token)
        .onConnect((connection, identity, newToken) => {
          connection.known = { identity: identity.toHexString(), token: newToken };
          resolve(connection);
        })
        .onConnectError((_context, error) => reject(error))
        .onDisconnect((_context, error) => connectionEnded.get(name)?.(error))
    ).build();
  });
}

const connectionEnded = new Map();

function subscribe(connection, queries) {
  return new Promise((resolve, reject) => {
    const handle = connection
      .subscriptionBuilder()
      .onApplied(() => resolve(handle))
      .onError((_context, error) => reject(error ?? new Error("refused")))
      .subscribe(queries);
  });
}

function nextRow(tableView, event) {
  return new Promise(resolve => {
    const listener = (context, ...rows) => {
      tableView[`removeOn${event}`](listener);
      resolve({ tag: context.event.tag, rows });
    };
    tableView[`on${event}`](listener);
  });
}

async function rejects(promise, name, words) {
  const error = await promise.then(
    () => assert.fail("it should have failed"),
    error => error
  );
  assert.equal(error.constructor.name, name, `${error}`);
  assert.match(error.message, words);
}

const people = connection =>
  [...connection.db.person.iter()].map(({ name, age }) => `${name} ${age}`).sort();

/** Every case, run once against `main` and once against a fork. */
const cases = {
  async "connects without a token and is somebody new"(name) {
    const one = await connect(name);
    const two = await connect(name);
    assert.match(one.known.identity, /^c200[0-9a-f]{60}$/);
    assert.notEqual(one.known.identity, two.known.identity);
    assert.ok(one.known.token.split(".").length === 3);
    one.disconnect();
    two.disconnect();
  },

  async "connects with a token and is the same again"(name) {
    const one = await connect(name);
    one.disconnect();
    const two = await connect(name, { token: one.known.token });
    assert.equal(two.known.identity, one.known.identity);
    two.disconnect();
  },

  async "is refused with a bad token and at a bad name"(name) {
    await assert.rejects(connect(name, { token: "not.a.token" }));
    await assert.rejects(connect("no-such-database"));
    await assert.rejects(connect(`${database}@no-such-fork`));
  },

  async "calls a reducer and sees its own row with the reducer's event"(name) {
    const connection = await connect(name);
    await subscribe(connection, ["SELECT * FROM person"]);
    const inserted = nextRow(connection.db.person, "Insert");
    await connection.reducers.add({ name: "own", age: 1 });
    const { tag, rows } = await inserted;
    assert.equal(tag, "Reducer");
    assert.equal(rows[0].name, "own");
    assert.equal(typeof rows[0].id, "bigint");
    assert.ok(people(connection).includes("own 1"));
    connection.disconnect();
  },

  async "sees rows of others, updates paired by primary key, and deletes"(name) {
    const watcher = await connect(name);
    const actor = await connect(name);
    await subscribe(watcher, ["SELECT * FROM person WHERE name <> 'hidden'"]);
    const inserted = nextRow(watcher.db.person, "Insert");
    await actor.reducers.add({ name: "other", age: 2 });
    const { tag, rows } = await inserted;
    assert.equal(tag, "Transaction");
    const { id } = rows[0];
    const updated = nextRow(watcher.db.person, "Update");
    await actor.reducers.rename({ id, name: "renamed" });
    const [before, after] = (await updated).rows;
    assert.deepEqual([before.name, after.name, after.id], ["other", "renamed", id]);
    const deleted = nextRow(watcher.db.person, "Delete");
    await actor.reducers.rename({ id, name: "hidden" });
    assert.equal((await deleted).rows[0].name, "renamed", "a row that leaves the query is deleted");
    await actor.reducers.remove({ id });
    watcher.disconnect();
    actor.disconnect();
  },

  async "gets a sender error with the module's words"(name) {
    const connection = await connect(name);
    await rejects(connection.reducers.refuse({ why: "because I say so" }), "SenderError", /^because I say so$/);
    await connection.reducers.noop({});
    connection.disconnect();
  },

  async "gets an internal error for a trap, and goes on"(name) {
    const connection = await connect(name);
    await rejects(connection.reducers.trap({}), "InternalError", /./);
    await connection.reducers.noop({});
    connection.disconnect();
  },

  async "runs procedures"(name) {
    const connection = await connect(name);
    const before = await connection.procedures.population({});
    assert.equal(await connection.procedures.addTwice({ name: "twin" }), before + 2n);
    connection.disconnect();
  },

  async "unsubscribes and hears no more"(name) {
    const connection = await connect(name);
    const actor = await connect(name);
    const handle = await subscribe(connection, ["SELECT * FROM person"]);
    assert.ok(connection.db.person.count() > 0);
    await new Promise(resolve => handle.unsubscribeThen(resolve));
    assert.ok(handle.isEnded());
    assert.equal(Number(connection.db.person.count()), 0, "the dropped rows leave the cache");
    await actor.reducers.add({ name: "unheard", age: 3 });
    await connection.reducers.noop({});
    assert.equal(Number(connection.db.person.count()), 0);
    connection.disconnect();
    actor.disconnect();
  },

  async "is told why a subscription is refused, and goes on"(name) {
    const connection = await connect(name);
    await assert.rejects(subscribe(connection, ["SELECT * FROM no_such_table"]), /no_such_table/);
    await assert.rejects(subscribe(connection, ["SELECT * FROM secret"]));
    await assert.rejects(subscribe(connection, ["this is no query"]));
    await subscribe(connection, ["SELECT * FROM person"]);
    connection.disconnect();
  },

  async "keeps overlapping subscriptions apart"(name) {
    const connection = await connect(name);
    await connection.reducers.add({ name: "overlap", age: 50 });
    const all = await subscribe(connection, ["SELECT * FROM person"]);
    const total = Number(connection.db.person.count());
    const old = await subscribe(connection, ["SELECT * FROM person WHERE age >= 50"]);
    assert.equal(Number(connection.db.person.count()), total);
    await new Promise(resolve => all.unsubscribeThen(resolve));
    const left = Number(connection.db.person.count());
    assert.ok(left >= 1 && left < total, `${left} of ${total}`);
    await new Promise(resolve => old.unsubscribeThen(resolve));
    assert.equal(Number(connection.db.person.count()), 0);
    connection.disconnect();
  },

  async "uses typed queries"(name) {
    const connection = await connect(name);
    await connection.reducers.add({ name: "it's typed", age: 77 });
    await new Promise((resolve, reject) =>
      connection
        .subscriptionBuilder()
        .onApplied(resolve)
        .onError((_context, error) => reject(error))
        .subscribe(tables => tables.person.where(row => row.name.eq("it's typed")))
    );
    assert.ok(people(connection).every(person => person === "it's typed 77"));
    assert.ok(people(connection).length > 0);
    connection.disconnect();
  },

  async "sends hundreds of calls at once and all are answered"(name) {
    const connection = await connect(name);
    const calls = Array.from({ length: 500 }, (_, age) =>
      age % 50 === 0
        ? connection.reducers.refuse({ why: `${age}` }).catch(error => error.message)
        : connection.reducers.noop({}).then(() => "done")
    );
    const answers = await Promise.all(calls);
    answers.forEach((answer, age) => assert.equal(answer, age % 50 === 0 ? `${age}` : "done"));
    connection.disconnect();
  },

  async "works unconfirmed too"(name) {
    const connection = await connect(name, { configure: b => b.withConfirmedReads(false) });
    await connection.reducers.add({ name: "quick", age: 4 });
    connection.disconnect();
  },

  async "works with every compression the SDK can ask for"(name) {
    for (const compression of ["none", "gzip"]) {
      const connection = await connect(name, { configure: b => b.withCompression(compression) });
      await subscribe(connection, ["SELECT * FROM person"]);
      const inserted = nextRow(connection.db.person, "Insert");
      await connection.reducers.add({ name: "squeezed ".repeat(180), age: 5 });
      assert.equal((await inserted).rows[0].name.length, 1620);
      connection.disconnect();
    }
  },

  async "reconnects as the same identity and finds its rows"(name) {
    const first = await connect(name);
    await first.reducers.add({ name: "before", age: 6 });
    const ended = new Promise(resolve => connectionEnded.set(name, resolve));
    first.disconnect();
    await ended;
    connectionEnded.delete(name);
    const second = await connect(name, { token: first.known.token });
    assert.equal(second.known.identity, first.known.identity);
    await subscribe(second, ["SELECT * FROM person WHERE name = 'before'"]);
    assert.ok(people(second).includes("before 6"));
    second.disconnect();
  },
};

/** Across both: a fork's rows stay on the fork. */
async function forkIsApart() {
  const onMain = await connect(database);
  const onFork = await connect(fork, { token: onMain.known.token });
  assert.equal(onFork.known.identity, onMain.known.identity, "tokens are valid on all forks");
  await onMain.reducers.add({ name: "only on main", age: 8 });
  await onFork.reducers.add({ name: "only on the fork", age: 9 });
  const query = ["SELECT * FROM person WHERE name = 'only on main' OR name = 'only on the fork'"];
  await subscribe(onMain, query);
  await subscribe(onFork, query);
  assert.deepEqual(people(onMain), ["only on main 8"]);
  assert.deepEqual(people(onFork), ["only on the fork 9"]);
  onMain.disconnect();
  onFork.disconnect();
}

async function runCase(title, body) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("it takes too long")), CASE_TIMEOUT_MS);
  });
  try {
    await Promise.race([body(), late]);
    console.log(`ok ${title}`);
    return true;
  } catch (error) {
    console.log(`not ok ${title}\n${error.stack}`);
    return false;
  } finally {
    clearTimeout(timer);
  }
}

let failed = 0;
for (const [title, body] of Object.entries(cases)) {
  for (const name of [database, fork]) {
    failed += !(await runCase(`${name}: ${title}`, () => body(name)));
  }
}
failed += !(await runCase("a fork's rows stay on the fork", forkIsApart));
console.log(`${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
