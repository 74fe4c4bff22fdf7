// Requests that a handler loses: their clients are told, whatever became of the responder. `lost PATH`, with `--expose-gc`.
import { setTimeout as pause } from "node:timers/promises";

import { CallError } from "tine-ipc";

import * as echo from "./generated/echo.js";

/** Nothing here takes this long. */
const LIMIT_MS = 30_000;

/** More than may be in flight on a connection. */
const MANY = 1_200;

declare const gc: () => void;

const handler: echo.EchoHandler = {
  // A promise that settles without an answer.
  nothing: async () => {},
  same: async () => {
    throw new Error("in a promise");
  },
  fail: () => {
    throw new Error("at once");
  },
  // A responder that nobody has any more.
  bytes: () => {},
  scalars: (request, responder) => responder.ok(request),
  optionals: async (request, responder) => {
    await pause(1);
    responder.ok(request);
    throw new Error("after the answer");
  },
  lists: (request, responder) => responder.ok(request),
  count: async (request, responder) => {
    if (request.times === undefined) {
      // The client cancels, which this does not notice.
      await responder.send({ value: 0n });
      await pause(LIMIT_MS, undefined, { ref: false });
      return;
    }
    // Several wait for room at once.
    await Promise.all([0n, 1n, 2n].map((value) => responder.send({ value })));
  },
};

function expect(condition: boolean, message: string): void {
  if (!condition) {
    throw new Error(message);
  }
}

async function refused(what: string, code: string, message: string, call: Promise<unknown>): Promise<void> {
  try {
    await call;
  } catch (error) {
    const isExpected = error instanceof CallError && error.code === code && error.message.includes(message);
    expect(isExpected, `${what}: ${String(error)}`);
    return;
  }
  throw new Error(`${what} did not fail`);
}

async function collected(call: Promise<unknown>): Promise<void> {
  let isOver = false;
  const over = (): void => {
    isOver = true;
  };
  call.then(over, over);
  const deadline = Date.now() + LIMIT_MS;
  while (!isOver && Date.now() < deadline) {
    gc();
    await pause(1);
  }
}

const path = process.argv[2]!;
const server = await echo.serveEcho(path, handler);
const client = await echo.EchoClient.connect(path);
let warnings = 0;
process.on("warning", () => {
  warnings += 1;
});
await refused("a settled promise", "TN0926", "", client.nothing({}));
await refused("a rejected promise", "TN0923", "in a promise", client.same({ data: Buffer.alloc(1) }));
await refused("a handler that throws", "TN0923", "at once", client.fail({ message: "" }));
const lost = client.bytes({ data: Buffer.alloc(1) });
await Promise.all([collected(lost), refused("a lost responder", "TN0926", "", lost)]);
expect((await client.optionals({})).count === undefined, "an answer of a promise");
await pause(1);
expect(warnings === 1, `${warnings} warnings`);

const values: bigint[] = [];
const counted = async (): Promise<void> => {
  for await (const item of client.count({ from: 0n, times: 1n }, 1)) {
    values.push(item.value);
  }
};
await refused("a stream that nobody ends", "TN0926", "", counted());
expect(values.join() === "0,1,2", `items ${values.join()}`);
// Cancelled streams are over, although their handlers do not know.
for (let number = 0; number < MANY; number++) {
  for await (const _item of client.count({ from: 0n })) {
    break;
  }
}
await refused("a call after many streams", "TN0926", "", client.nothing({}));
client.close();
await server.close();
console.log("ok");
process.exit(0);
