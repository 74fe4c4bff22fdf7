/**
 * The server's side of a Unix socket.
 *
 * Whatever one client does harms only that client: what it may have under way is bounded, nothing more
 * is read from it while it does not read its replies, and half a handshake is given up after a while.
 */
import { lstatSync, unlinkSync } from "node:fs";
import { connect as connectSocket, createServer, type Server as NetServer, type Socket } from "node:net";

import { ConnectError } from "./errors.js";
import {
  FrameReader,
  HANDSHAKE_BYTES_MAX,
  Kind,
  acceptHello,
  encodeError,
  encodeRefused,
  encodeWelcome,
  frameHeader,
  type Frame,
} from "./frame.js";
import type { RawHandler, RawResponder, RawServeOptions, RawServer, RawStreamResponder } from "./transport.js";

/** Requests of one client under way. */
const REQUESTS_MAX = 1024;

/** Bytes of replies that may wait for a client before no more of its requests are read. */
const UNSENT_BYTES_PAUSE = 8 * 1024 * 1024;

/** How long a new connection may take to shake hands. */
const HANDSHAKE_MS = 5_000;

/** Listens. A socket that a dead server left behind is replaced; a living one is not. */
export async function listenOnSocket(path: string, options: RawServeOptions, handler: RawHandler): Promise<RawServer> {
  await removeLeftBehind(path);
  const connections = new Set<Connection>();
  const server = createServer({ allowHalfOpen: false }, (socket) => {
    if (connections.size >= options.clientsMax) {
      const error = new ConnectError("TN0914", `the server has ${options.clientsMax} clients, which is as many as it takes`);
      const refusal = encodeRefused(error, options.schema);
      socket.on("error", () => {});
      socket.end(Buffer.concat([frameHeader(Kind.refused, 0n, refusal.length), refusal]));
      return;
    }
    const connection = new Connection(socket, options, handler, () => connections.delete(connection));
    connections.add(connection);
  });
  await listen(server, path);
  return {
    async close(flushMs) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      const deadline = Date.now() + flushMs;
      while ([...connections].some((connection) => connection.isBusy) && Date.now() < deadline) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      for (const connection of connections) {
        connection.close("TN0920", "the server is shutting down");
      }
      await closed;
    },
  };
}

/** Only the owner may connect: the file has its mode before anybody can see it. */
function listen(server: NetServer, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) => reject(new ConnectError("TN0905", `${path}: ${error.message}`)));
    server.once("listening", () => resolve());
    const before = process.umask(0o177);
    try {
      // Binding happens inside this call.
      server.listen(path);
    } finally {
      process.umask(before);
    }
  });
}

async function removeLeftBehind(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) {
    return;
  }
  if (!found.isSocket()) {
    throw new ConnectError("TN0903", `${path}: there is something that is not a socket`);
  }
  const isAlive = await new Promise<boolean>((resolve) => {
    const probe = connectSocket(path);
    probe.once("connect", () => resolve(true));
    probe.once("error", () => resolve(false));
    probe.once("close", () => probe.removeAllListeners());
    probe.once("connect", () => probe.destroy());
  });
  if (isAlive) {
    throw new ConnectError("TN0902", `${path}: a server is listening there already`);
  }
  unlinkSync(path);
}

/** A request, in the place where its reply will leave. */
interface Place {
  frames: Buffer[] | undefined;
}

class Connection {
  readonly #socket: Socket;
  readonly #options: RawServeOptions;
  readonly #handler: RawHandler;
  readonly #closed: () => void;
  readonly #reader = new FrameReader(HANDSHAKE_BYTES_MAX);
  readonly #handshake: NodeJS.Timeout;
  /** Replies in the order of their requests, unless the client asked for theirs as they come. */
  readonly #order: Place[] = [];
  readonly #streams = new Map<bigint, StreamResponder>();
  #payloadBytesMax = 0;
  #isWelcome = false;
  #isOrdered = true;
  #isClosed = false;
  #requests = 0;

  constructor(socket: Socket, options: RawServeOptions, handler: RawHandler, closed: () => void) {
    this.#socket = socket;
    this.#options = options;
    this.#handler = handler;
    this.#closed = closed;
    this.#handshake = setTimeout(() => this.#destroy(), HANDSHAKE_MS);
    socket.on("error", () => this.#destroy());
    socket.on("close", () => this.#destroy());
    socket.on("drain", () => this.#resume());
    socket.on("data", (chunk: Buffer) => {
      this.#reader.push(chunk);
      this.#readFrames();
    });
  }

  get isBusy(): boolean {
    return this.#requests > 0 || this.#socket.writableLength > 0;
  }

  /** Says why, and ends the connection. */
  close(code: string, message: string): void {
    this.#write(Kind.closing, 0n, encodeError(code, message));
    this.#socket.end();
    this.#destroy(false);
  }

  #destroy(now = true): void {
    clearTimeout(this.#handshake);
    if (now) {
      this.#socket.destroy();
    }
    if (!this.#isClosed) {
      this.#isClosed = true;
      for (const stream of this.#streams.values()) {
        stream.cancelled();
      }
      this.#streams.clear();
      this.#closed();
    }
  }

  #readFrames(): void {
    try {
      while (!this.#isClosed && !this.#mustWait()) {
        const frame = this.#reader.next();
        if (frame === undefined) {
          return;
        }
        if (this.#isWelcome) {
          this.#take(frame);
        } else {
          this.#welcome(frame);
        }
      }
    } catch (error) {
      this.close("TN0924", `the client broke the protocol: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  /** Stops reading from a client with too much under way. */
  #mustWait(): boolean {
    const mustWait = this.#requests >= REQUESTS_MAX || this.#socket.writableLength > UNSENT_BYTES_PAUSE;
    if (mustWait) {
      this.#socket.pause();
    }
    return mustWait;
  }

  #resume(): void {
    if (this.#isClosed || !this.#socket.isPaused()) {
      return;
    }
    this.#readFrames();
    if (!this.#mustWait()) {
      this.#socket.resume();
    }
  }

  #welcome(frame: Frame): void {
    const { schema, messageBytesMax } = this.#options;
    try {
      if (frame.kind !== Kind.hello) {
        throw new ConnectError("TN0910", "the first frame is not a handshake");
      }
      const hello = acceptHello(frame.payload, schema);
      this.#isOrdered = !hello.completionOrder;
      this.#payloadBytesMax = hello.payloadBytesMax;
    } catch (error) {
      const refused = error instanceof ConnectError ? error : new ConnectError("TN0910", String(error));
      this.#write(Kind.refused, 0n, encodeRefused(refused, schema));
      this.#socket.end();
      this.#destroy(false);
      return;
    }
    clearTimeout(this.#handshake);
    this.#isWelcome = true;
    this.#reader.payloadBytesMax = messageBytesMax;
    const welcome = encodeWelcome({
      completionOrder: !this.#isOrdered,
      schema,
      payloadBytesMax: messageBytesMax,
      requestsMax: REQUESTS_MAX,
      requestBytesMax: BigInt(REQUESTS_MAX) * BigInt(messageBytesMax),
    });
    this.#write(Kind.welcome, 0n, welcome);
  }

  #take(frame: Frame): void {
    switch (frame.kind) {
      case Kind.request:
        this.#handle(frame.id, frame.payload, undefined);
        return;
      case Kind.streamRequest:
        if (frame.payload.length < 4) {
          throw new Error("a stream request without credit");
        }
        this.#handle(frame.id, frame.payload.subarray(4), frame.payload.readUInt32LE(0));
        return;
      case Kind.credit:
        if (frame.payload.length !== 4) {
          throw new Error("credit is four bytes");
        }
        this.#streams.get(frame.id)?.addCredit(frame.payload.readUInt32LE(0));
        return;
      case Kind.cancel:
        this.#streams.get(frame.id)?.cancelled();
        return;
      default:
        throw new Error(`a client does not send frames of kind ${frame.kind}`);
    }
  }

  #handle(id: bigint, request: Buffer, credit: number | undefined): void {
    const place: Place = { frames: undefined };
    if (this.#isOrdered && credit === undefined) {
      this.#order.push(place);
    }
    this.#requests += 1;
    let isAnswered = false;
    const answer = (kind: number, payload: Uint8Array): void => {
      if (isAnswered) {
        throw new Error("a request is answered once");
      }
      isAnswered = true;
      this.#requests -= 1;
      this.#answer(kind, id, payload, credit === undefined ? place : undefined);
    };
    const responder: RawResponder = {
      ok: (payload) => answer(Kind.reply, payload),
      error: (code, message) => answer(Kind.error, encodeError(code, message)),
      stream: () => {
        if (credit === undefined) {
          return undefined;
        }
        const stream = new StreamResponder(credit, (kind, payload) => {
          if (kind === Kind.item) {
            this.#write(kind, id, payload);
          } else {
            this.#streams.delete(id);
            answer(kind, payload);
          }
        });
        this.#streams.set(id, stream);
        return stream;
      },
    };
    try {
      this.#handler(request, responder);
    } catch (error) {
      if (!isAnswered) {
        responder.error("TN0923", error instanceof Error ? error.message : String(error));
      }
    }
  }

  #answer(kind: number, id: bigint, payload: Uint8Array, place: Place | undefined): void {
    if (this.#isClosed) {
      return;
    }
    const isTooLarge = payload.length > this.#payloadBytesMax;
    const text = `a reply of ${payload.length} bytes, but the client takes at most ${this.#payloadBytesMax}`;
    const [shownKind, shown] = isTooLarge ? [Kind.error, encodeError("TN0922", text)] : [kind, payload];
    if (place === undefined || !this.#isOrdered) {
      this.#write(shownKind, id, shown);
    } else {
      place.frames = [frameHeader(shownKind, id, shown.length), Buffer.from(shown)];
      while (this.#order[0]?.frames !== undefined) {
        this.#writeAll(this.#order.shift()!.frames!);
      }
    }
    this.#resume();
  }

  #write(kind: number, id: bigint, payload: Uint8Array): void {
    this.#writeAll([frameHeader(kind, id, payload.length), payload]);
  }

  #writeAll(parts: Uint8Array[]): void {
    if (this.#isClosed || this.#socket.destroyed) {
      return;
    }
    this.#socket.cork();
    parts.forEach((part) => this.#socket.write(part));
    this.#socket.uncork();
  }
}

class StreamResponder implements RawStreamResponder {
  isCancelled = false;
  #credit: number;
  readonly #write: (kind: number, payload: Uint8Array) => void;
  #isEnded = false;
  #wake: (() => void) | undefined;

  constructor(credit: number, write: (kind: number, payload: Uint8Array) => void) {
    this.#credit = credit;
    this.#write = write;
  }

  async send(item: Uint8Array): Promise<boolean> {
    while (this.#credit === 0 && !this.isCancelled) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.isCancelled || this.#isEnded) {
      return false;
    }
    this.#credit -= 1;
    this.#write(Kind.item, item);
    return true;
  }

  finish(last: Uint8Array): void {
    this.#end(Kind.end, last);
  }

  fail(code: string, message: string): void {
    this.#end(Kind.error, encodeError(code, message));
  }

  #end(kind: number, payload: Uint8Array): void {
    if (!this.#isEnded) {
      this.#isEnded = true;
      this.#write(kind, payload);
    }
  }

  addCredit(items: number): void {
    this.#credit += items;
    this.#wake?.();
  }

  /** Ends the stream: nobody waits for what is left of it. */
  cancelled(): void {
    this.isCancelled = true;
    this.finish(new Uint8Array(0));
    this.#wake?.();
  }
}
