// Tests of the module against a real server, which lives as long as they do: `node --test`
// Each test works on a fork of its own, so that none sees what another wrote.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const PROJECT = join(dirname(fileURLToPath(import.meta.url)), "..");
const TINE = process.env.TINE ?? "tine";

let server, listening;

before(async () => {
  const options = ["dev", PROJECT, "--throwaway", "--json", "--database", "__NAME__"];
  server = spawn(TINE, options, { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: server.stdout })) {
    const event = JSON.parse(line);
    if (event.event === "listening") listening = event;
    if (event.event === "error") throw new Error(event.message);
    if (event.event === "published") return server.stdout.resume();
  }
  throw new Error("the server ended before the module was published");
});

after(() => server.kill());

/** A request to the server as the database's owner; resolves to status and body. */
async function request(method, path, body) {
  const response = await fetch(`${listening.url}/v1/database/${path}`, {
    method,
    headers: { authorization: `Bearer ${listening.token}`, "content-type": "application/json" },
    body: body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body),
  });
  return { status: response.status, text: await response.text() };
}

let forks = 0;

/** A fork with the module and its tables as they are, and shorthands for what one does with it. */
async function fork() {
  const name = `test-${++forks}`;
  const made = await request("POST", "__NAME__/forks", { name, ephemeral: true });
  assert.equal(made.status, 201, made.text);
  const address = encodeURIComponent(`__NAME__@${name}`);
  return {
    call: (reducer, ...args) => request("POST", `${address}/call/${reducer}`, args),
    rows: async query => JSON.parse((await request("POST", `${address}/sql`, query)).text)[0].rows,
  };
}

test("what is said is stored in order", async () => {
  const db = await fork();
  for (const text of ["one", "two"]) assert.equal((await db.call("say", text)).status, 200);
  assert.deepEqual(await db.rows("SELECT id, text FROM message"), [[1, "one"], [2, "two"]]);
});

test("a name can be changed", async () => {
  const db = await fork();
  await db.call("set_name", "Ada");
  await db.call("set_name", " Grace ");
  assert.deepEqual(await db.rows("SELECT name FROM person"), [["Grace"]]);
});

test("nonsense is refused and leaves no trace", async () => {
  const db = await fork();
  for (const [reducer, argument] of [["say", " "], ["say", "x".repeat(1001)], ["set_name", ""]]) {
    const refused = await db.call(reducer, argument);
    assert.equal(refused.status, 530, `${reducer}: ${refused.text}`);
  }
  assert.deepEqual(await db.rows("SELECT id FROM message"), []);
});
