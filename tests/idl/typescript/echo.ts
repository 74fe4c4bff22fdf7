// The echo service in TypeScript: `serve PATH`, `client PATH FIXTURES` and `fixtures FIXTURES`.
import { readFileSync } from "node:fs";

import * as echo from "./generated/echo.js";
import {
  DecodeError,
  ServiceError,
  Writer,
  decodeRequest,
  decodeResponse,
  encodeRequest,
  encodeResponse,
  type Codec,
} from "tine-ipc";

const MESSAGES: ReadonlyMap<string, Codec<any>> = new Map<string, Codec<any>>([
  ["EchoScalars", echo.EchoScalars],
  ["EchoScalarsResponse", echo.EchoScalarsResponse],
  ["EchoOptionals", echo.EchoOptionals],
  ["EchoOptionalsResponse", echo.EchoOptionalsResponse],
  ["EchoLists", echo.EchoLists],
  ["EchoListsResponse", echo.EchoListsResponse],
  ["EchoBytes", echo.EchoBytes],
  ["EchoBytesResponse", echo.EchoBytesResponse],
  ["EchoSame", echo.EchoSame],
  ["EchoSameResponse", echo.EchoSameResponse],
  ["EchoNothing", echo.EchoNothing],
  ["EchoNothingResponse", echo.EchoNothingResponse],
  ["EchoFail", echo.EchoFail],
  ["EchoFailResponse", echo.EchoFailResponse],
  ["EchoCount", echo.EchoCount],
  ["EchoCountResponse", echo.EchoCountResponse],
  ["EchoErrorResponse", echo.EchoErrorResponse],
]);

function expect(condition: boolean, message: string): void {
  if (!condition) {
    throw new Error(message);
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** Decodes a whole message and encodes it again. */
function recode(name: string, message: Uint8Array): Uint8Array {
  const codec = MESSAGES.get(name)!;
  return name.endsWith("Response")
    ? encodeResponse(name, codec, decodeResponse(name, codec, message))
    : encodeRequest(name, codec, decodeRequest(name, codec, message));
}

function fixtures(file: string): [kind: string, name: string, bytes: Buffer, expected: string][] {
  const lines = readFileSync(file, "utf8").split("\n");
  return lines
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const [kind, name, bytes, expected] = line.split(" ");
      return [kind!, name!, Buffer.from(bytes!, "hex"), expected ?? ""];
    });
}

function checkFixtures(file: string): void {
  let count = 0;
  for (const [kind, name, bytes, expected] of fixtures(file)) {
    let found: string;
    try {
      found = hex(recode(name, bytes));
    } catch (error) {
      expect(error instanceof DecodeError, `${kind} ${name} ${hex(bytes)}: ${String(error)}`);
      found = (error as DecodeError).code;
    }
    const wanted = kind === "exact" ? hex(bytes) : expected;
    expect(found === wanted, `${kind} ${name} ${hex(bytes)}: found ${found}`);
    count += 1;
  }
  console.log(`fixtures ${count}`);
}

const handler: echo.EchoHandler = {
  scalars: (request, responder) => responder.ok(request),
  optionals: (request, responder) => responder.ok(request),
  lists: (request, responder) => responder.ok(request),
  bytes: (request, responder) => responder.ok(request),
  // Later, so that replies overtake one another.
  same: (request, responder) => setImmediate(() => responder.ok(request)),
  nothing: (_request, responder) => responder.ok({}),
  fail: (request, responder) => responder.error(request.message),
  count: (request, responder) => {
    void (async () => {
      for (let sent = 0n; request.times === undefined || sent < request.times; sent++) {
        if (!(await responder.send({ value: request.from + sent }))) {
          return;
        }
      }
      responder.finish();
    })();
  },
};

async function serve(path: string): Promise<void> {
  const server = await echo.serveEcho(path, handler);
  console.log("ready");
  process.stdin.resume();
  process.stdin.on("end", () => void server.close().then(() => process.exit(0)));
}

async function client(path: string, file: string): Promise<void> {
  const client = await echo.EchoClient.connect(path);
  const calls: Record<string, (request: any) => Promise<any>> = {
    EchoScalars: (request) => client.scalars(request),
    EchoOptionals: (request) => client.optionals(request),
    EchoLists: (request) => client.lists(request),
    EchoBytes: (request) => client.bytes(request),
    EchoSame: (request) => client.same(request),
    EchoNothing: (request) => client.nothing(request),
  };
  let count = 0;
  for (const [kind, name, bytes] of fixtures(file)) {
    if (kind !== "exact" || calls[name] === undefined) {
      continue;
    }
    const response = await calls[name](decodeRequest(name, MESSAGES.get(name)!, bytes));
    const writer = new Writer();
    MESSAGES.get(name)!.write(writer, response);
    expect(hex(bytes).endsWith(hex(writer.bytesWritten())), `${name} ${hex(bytes)}: another value came back`);
    count += 1;
  }
  const large = Buffer.alloc(3 << 20, 7);
  expect(Buffer.from((await client.bytes({ data: large })).data).equals(large), "large bytes came back different");
  const many = await Promise.all(
    Array.from({ length: 200 }, (_, index) => client.same({ data: Uint8Array.of(index) })),
  );
  expect(many.every((response, index) => response.data[0] === index % 256), "replies of many calls were mixed up");
  await refused(client);
  await streams(client);
  client.close();
  console.log(`client ${count}`);
}

async function refused(client: echo.EchoClient): Promise<void> {
  try {
    await client.fail({ message: "no, because ü" });
  } catch (error) {
    expect(error instanceof ServiceError && error.message === "no, because ü", String(error));
    return;
  }
  throw new Error("`fail` did not fail");
}

async function streams(client: echo.EchoClient): Promise<void> {
  let next = 5n;
  for await (const item of client.count({ from: 5n, times: 1000n }, 16)) {
    expect(item.value === next, `item ${item.value} instead of ${next}`);
    next += 1n;
  }
  expect(next === 1005n, `the stream ended at ${next}`);
  let taken = 0;
  for await (const item of client.count({ from: 0n }, 4)) {
    expect(item.value === BigInt(taken), `item ${item.value} instead of ${taken}`);
    taken += 1;
    if (taken === 10) {
      break;
    }
  }
  await client.nothing({});
}

const [verb, first, second] = process.argv.slice(2);
if (verb === "serve") {
  await serve(first!);
} else if (verb === "client") {
  await client(first!, second!);
} else if (verb === "fixtures") {
  checkFixtures(first!);
} else {
  throw new Error(`unknown verb ${verb}`);
}
