/**
 * Forks a live database, tries something out there, and drops the fork: `node fork.js PATH DATABASE`.
 *
 * PATH is one of those that `tine serve --ipc` serves, DATABASE has the module beside this file.
 */
import { ServiceError } from "tine-ipc";

import { TineClient, type ForkNumber, type Lsn } from "./generated/tine.js";

const encode = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));

async function balance(client: TineClient, fork: ForkNumber, account: number): Promise<string> {
  const { rows } = await client.get({ fork, table: "account", key: encode([account]), json: true, committed: false });
  return rows.length === 0 ? "none" : String(JSON.parse(Buffer.from(rows[0]!).toString()).balance);
}

async function transfer(client: TineClient, fork: ForkNumber, ...parameters: number[]): Promise<Lsn> {
  const { lsn } = await client.callReducer({ fork, reducer: "transfer", input: encode(parameters), json: true });
  return lsn;
}

const [path, database] = process.argv.slice(2);
if (path === undefined || database === undefined) {
  throw new Error("usage: fork PATH DATABASE");
}
const client = await TineClient.connect(path);
const main = await client.openFork({ address: database });
const fork = await client.fork({ fork: main.fork, durable: false });
console.log(`the fork begins at the database's LSN: ${fork.lsn >= main.lsn}`);

// What the fork does is a commit of the fork alone.
const bob = encode({ id: 2, owner: "Bob", balance: 0 });
await client.insert({ fork: fork.fork, table: "account", rows: [bob], json: true });
const paid = await transfer(client, fork.fork, 1, 2, 30);
console.log(`commits of the fork: ${paid - fork.lsn}`);

// A checkpoint takes back what turns out badly; the way back is a commit too.
const { checkpoint } = await client.beginCheckpoint({ fork: fork.fork });
await transfer(client, fork.fork, 1, 2, 70);
try {
  await transfer(client, fork.fork, 1, 2, 1);
} catch (error) {
  console.log(`refused: ${error instanceof ServiceError && error.message.includes("not enough money")}`);
}
const back = (await client.revertCheckpoint({ fork: fork.fork, checkpoint })).lsn;
console.log(`LSNs go on: ${back > paid}`);

console.log(`on the fork: ${await balance(client, fork.fork, 1)} ${await balance(client, fork.fork, 2)}`);
console.log(`in the database: ${await balance(client, main.fork, 1)} ${await balance(client, main.fork, 2)}`);
await client.dropFork({ fork: fork.fork });
client.close();
