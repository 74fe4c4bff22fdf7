/**
 * Shared memory, through the native addon of the crate `tine-ipc-node`.
 *
 * The addon is the file that `TINE_IPC_ADDON` names, else `native/tine_ipc.node` of this package. It is
 * loaded when the first path that ends in `.shm` is used; everything else works without it.
 */
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

import { CallError, ConnectError } from "./errors.js";
import type {
  RawClient,
  RawConnectOptions,
  RawHandler,
  RawResponder,
  RawServeOptions,
  RawServer,
  RawStream,
} from "./transport.js";

declare const handle: unique symbol;

/** Something of the addon's, freed with its JavaScript value. */
interface Handle<Name extends string> {
  readonly [handle]: Name;
}

/** Failures are given as a code and a message; success is a code of `undefined`. */
type Done<T> = (code: string | undefined, message: string | undefined, value: T | undefined) => void;

/** What a stream gave: an item, its end with the last payload, an error, or nothing yet. */
type Taken =
  | { readonly item: Uint8Array }
  | { readonly last: Uint8Array }
  | { readonly code: string; readonly message: string }
  | undefined;

/** What became of an item: sent, waiting for credit, or no longer wanted. */
const SENT = 0;
const NO_CREDIT = 1;

interface Addon {
  connect(
    path: string,
    schema: Uint8Array | undefined,
    limitMs: number,
    messageBytesMax: number,
    done: Done<Handle<"client">>,
  ): void;
  call(client: Handle<"client">, request: Uint8Array, done: Done<Uint8Array>): void;
  stream(client: Handle<"client">, request: Uint8Array, credit: number, ready: () => void): Handle<"stream">;
  streamTake(stream: Handle<"stream">): Taken;
  streamCancel(stream: Handle<"stream">): void;
  disconnect(client: Handle<"client">): void;
  listen(
    path: string,
    schema: Uint8Array | undefined,
    clientsMax: number,
    messageBytesMax: number,
    request: (responder: Handle<"responder">, payload: Uint8Array) => void,
  ): Handle<"server">;
  respond(responder: Handle<"responder">, payload: Uint8Array): void;
  respondError(responder: Handle<"responder">, code: string, message: string): void;
  wantsStream(responder: Handle<"responder">): boolean;
  respondStream(responder: Handle<"responder">, ready: () => void): Handle<"sender">;
  senderSend(sender: Handle<"sender">, item: Uint8Array): number;
  senderIsCancelled(sender: Handle<"sender">): boolean;
  senderFinish(sender: Handle<"sender">, last: Uint8Array): void;
  senderFail(sender: Handle<"sender">, code: string, message: string): void;
  shutdown(server: Handle<"server">, flushMs: number, done: Done<undefined>): void;
}

let loaded: Addon | undefined;

function addon(): Addon {
  if (loaded === undefined) {
    const path = process.env["TINE_IPC_ADDON"] ?? fileURLToPath(new URL("../native/tine_ipc.node", import.meta.url));
    try {
      loaded = createRequire(import.meta.url)(path) as Addon;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new ConnectError("TN1062", `shared memory needs the native addon, which cannot be loaded: ${reason}`);
    }
  }
  return loaded;
}

/** Connects through shared memory. */
export function connectNative(path: string, options: RawConnectOptions): Promise<RawClient> {
  return new Promise((resolve, reject) => {
    addon().connect(path, options.schema, options.limitMs, options.messageBytesMax, (code, message, client) => {
      if (client === undefined) {
        reject(new ConnectError(code ?? "TN0915", message ?? ""));
      } else {
        resolve(new NativeClient(client));
      }
    });
  });
}

class NativeClient implements RawClient {
  #client: Handle<"client"> | undefined;

  constructor(client: Handle<"client">) {
    this.#client = client;
  }

  call(request: Uint8Array, limitMs: number): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new CallError("TN0921", `no reply within ${limitMs} ms`)), limitMs);
      translated(() => addon().call(this.#open(), request, (code, message, payload) => {
        clearTimeout(timer);
        if (payload === undefined) {
          reject(new CallError(code ?? "TN0923", message ?? ""));
        } else {
          resolve(payload);
        }
      }), () => clearTimeout(timer));
    });
  }

  stream(request: Uint8Array, credit: number): RawStream {
    return translated(() => new NativeStream(this.#open(), request, credit));
  }

  close(): void {
    if (this.#client !== undefined) {
      addon().disconnect(this.#client);
      this.#client = undefined;
    }
  }

  #open(): Handle<"client"> {
    if (this.#client === undefined) {
      throw new CallError("TN0920", "the connection was closed here");
    }
    return this.#client;
  }
}

/** Gives what the addon throws the class of the package. */
function translated<T>(run: () => T, failed: () => void = () => {}): T {
  try {
    return run();
  } catch (error) {
    failed();
    if (error instanceof Error && "code" in error) {
      throw new CallError(String(error.code), error.message);
    }
    throw error;
  }
}

class NativeStream implements RawStream {
  last: Uint8Array = new Uint8Array(0);
  readonly #stream: Handle<"stream">;
  #wake: (() => void) | undefined;
  #isReady = false;
  #isEnded = false;

  constructor(client: Handle<"client">, request: Uint8Array, credit: number) {
    this.#stream = addon().stream(client, request, credit, () => {
      this.#isReady = true;
      this.#wake?.();
    });
  }

  async next(): Promise<Uint8Array | undefined> {
    for (;;) {
      if (this.#isEnded) {
        return undefined;
      }
      this.#isReady = false;
      const taken = addon().streamTake(this.#stream);
      if (taken === undefined) {
        await this.#untilReady();
      } else if ("item" in taken) {
        return taken.item;
      } else {
        this.cancel();
        if ("code" in taken) {
          throw new CallError(taken.code, taken.message);
        }
        this.last = taken.last;
      }
    }
  }

  #untilReady(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      if (this.#isReady) {
        resolve();
      }
    });
  }

  cancel(): void {
    if (!this.#isEnded) {
      this.#isEnded = true;
      addon().streamCancel(this.#stream);
      this.#wake?.();
    }
  }
}

/** Listens through shared memory. */
export async function listenNative(path: string, options: RawServeOptions, handler: RawHandler): Promise<RawServer> {
  const { schema, clientsMax, messageBytesMax } = options;
  const server = addon().listen(path, schema, clientsMax, messageBytesMax, (responder, payload) => {
    const raw = rawResponder(responder);
    try {
      handler(payload, raw);
    } catch (error) {
      raw.error("TN0923", error instanceof Error ? error.message : String(error));
    }
  });
  return {
    close: (flushMs) =>
      new Promise((resolve, reject) => {
        addon().shutdown(server, flushMs, (code, message) => {
          if (code === undefined) {
            resolve();
          } else {
            reject(new ConnectError(code, message ?? ""));
          }
        });
      }),
  };
}

function rawResponder(responder: Handle<"responder">): RawResponder {
  return {
    ok: (payload) => addon().respond(responder, payload),
    error: (code, message) => addon().respondError(responder, code, message),
    stream: () => {
      if (!addon().wantsStream(responder)) {
        return undefined;
      }
      let wake: (() => void) | undefined;
      const sender = addon().respondStream(responder, () => {
        if (addon().senderIsCancelled(sender)) {
          // Nobody waits for what is left of it.
          addon().senderFinish(sender, new Uint8Array(0));
        }
        wake?.();
      });
      const raw = {
        get isCancelled() {
          return addon().senderIsCancelled(sender);
        },
        async send(item: Uint8Array): Promise<boolean> {
          for (;;) {
            // Listens before it asks: credit that comes in between wakes.
            const ready = new Promise<void>((resolve) => {
              wake = resolve;
            });
            const became = addon().senderSend(sender, item);
            if (became !== NO_CREDIT) {
              return became === SENT;
            }
            await ready;
          }
        },
        finish: (last: Uint8Array) => addon().senderFinish(sender, last),
        fail: (code: string, message: string) => addon().senderFail(sender, code, message),
      };
      return raw;
    },
  };
}
