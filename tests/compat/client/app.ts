/** Runs the cases in Node. usage: node app.mjs URL DATABASE OWNER_TOKEN; prints one line of JSON per case: [name, result] or [name, null, error]. */
import { WebSocket } from "undici";
import { cases, Place, show, watchSockets, type Case } from "./cases";
import { more } from "./more";

declare const process: { argv: string[]; exit(status: number): never };

const CASE_TIMEOUT_MS = 60_000;

watchSockets(WebSocket as unknown as typeof globalThis.WebSocket);

async function run(body: Case, place: Place): Promise<unknown> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("it takes too long")), CASE_TIMEOUT_MS);
  });
  try {
    return await Promise.race([body(place), late]);
  } finally {
    clearTimeout(timer);
    place.close();
  }
}

const [url, database, token] = process.argv.slice(2);
for (const [name, body] of Object.entries({ ...cases, ...more })) {
  try {
    console.log(JSON.stringify([name, await run(body, new Place(url, database, token))], show));
  } catch (error) {
    console.log(JSON.stringify([name, null, String((error as Error)?.stack ?? error)]));
  }
}
process.exit(0);
