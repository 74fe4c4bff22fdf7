/** The client's side of a Unix socket. */
import { connect as connectSocket, type Socket } from "node:net";

import { CallError, ConnectError } from "./errors.js";
import {
  FrameReader,
  HANDSHAKE_BYTES_MAX,
  Kind,
  acceptWelcome,
  decodeError,
  decodeRefused,
  encodeHello,
  frameHeader,
  type Frame,
  type Welcome,
} from "./frame.js";
import type { RawClient, RawConnectOptions, RawStream } from "./transport.js";

/** Bytes that may wait for a server that does not read. Beyond, calls are refused. */
const UNSENT_BYTES_MAX = 256 * 1024 * 1024;

/** Connects, and shakes hands. */
export function connectToSocket(path: string, options: RawConnectOptions): Promise<RawClient> {
  return new Promise((resolve, reject) => {
    const socket = connectSocket(path);
    const reader = new FrameReader(HANDSHAKE_BYTES_MAX);
    const hello = encodeHello({
      completionOrder: true,
      schema: options.schema,
      payloadBytesMax: options.messageBytesMax,
    });
    const fail = (error: ConnectError): void => {
      clearTimeout(timer);
      socket.removeAllListeners();
      socket.on("error", () => {});
      socket.destroy();
      reject(error);
    };
    const timer = setTimeout(
      () => fail(new ConnectError("TN0908", `${path}: no answer within ${options.limitMs} ms`)),
      options.limitMs,
    );
    socket.on("error", (error) => fail(new ConnectError("TN0907", `${path}: nobody listens there: ${error.message}`)));
    socket.on("close", () => fail(new ConnectError("TN0910", `${path}: the server closed the connection at once`)));
    socket.on("data", (chunk: Buffer) => {
      try {
        reader.push(chunk);
        const frame = reader.next();
        if (frame === undefined) {
          return;
        }
        if (frame.kind === Kind.refused) {
          throw decodeRefused(frame.payload);
        }
        if (frame.kind !== Kind.welcome) {
          throw new ConnectError("TN0910", `${path}: the first frame is not a handshake`);
        }
        const welcome = acceptWelcome(frame.payload, options.schema);
        clearTimeout(timer);
        socket.removeAllListeners();
        reader.payloadBytesMax = options.messageBytesMax;
        resolve(new SocketClient(socket, reader, welcome));
      } catch (error) {
        fail(error instanceof ConnectError ? error : new ConnectError("TN0910", `${path}: ${String(error)}`));
      }
    });
    socket.write(Buffer.concat([frameHeader(Kind.hello, 0n, hello.length), hello]));
  });
}

/** A call whose reply has not come. */
interface Waiting {
  readonly resolve: (payload: Uint8Array) => void;
  readonly reject: (error: CallError) => void;
  readonly timer: NodeJS.Timeout;
}

class SocketClient implements RawClient {
  readonly #socket: Socket;
  readonly #reader: FrameReader;
  readonly #welcome: Welcome;
  readonly #calls = new Map<bigint, Waiting>();
  readonly #streams = new Map<bigint, SocketStream>();
  #nextId = 1n;
  #closed: CallError | undefined;

  constructor(socket: Socket, reader: FrameReader, welcome: Welcome) {
    this.#socket = socket;
    this.#reader = reader;
    this.#welcome = welcome;
    socket.on("data", (chunk: Buffer) => {
      reader.push(chunk);
      this.#readFrames();
    });
    socket.on("error", (error) => this.#end("TN0920", `the connection failed: ${error.message}`));
    socket.on("close", () => this.#end("TN0920", "the server is gone"));
    this.#readFrames();
  }

  call(request: Uint8Array, limitMs: number): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const refusal = this.#refusal(request);
      if (refusal !== undefined) {
        reject(refusal);
        return;
      }
      const timer = setTimeout(() => {
        this.#calls.delete(id);
        reject(new CallError("TN0921", `no reply within ${limitMs} ms`));
      }, limitMs);
      this.#calls.set(id, { resolve, reject, timer });
      this.#send(Kind.request, id, request);
    });
  }

  stream(request: Uint8Array, credit: number): RawStream {
    const id = this.#nextId++;
    const stream = new SocketStream(
      credit,
      (items) => this.#control(Kind.credit, id, uint32(items)),
      () => {
        this.#streams.delete(id);
        this.#control(Kind.cancel, id, Buffer.alloc(0));
      },
    );
    const refusal = this.#refusal(request);
    if (refusal !== undefined) {
      stream.fail(refusal);
      return stream;
    }
    this.#streams.set(id, stream);
    this.#send(Kind.streamRequest, id, Buffer.concat([uint32(credit), request]));
    return stream;
  }

  close(): void {
    this.#end("TN0920", "the connection was closed here");
  }

  #refusal(request: Uint8Array): CallError | undefined {
    if (this.#closed !== undefined) {
      return this.#closed;
    }
    if (request.length > this.#welcome.payloadBytesMax) {
      const max = this.#welcome.payloadBytesMax;
      return new CallError("TN0922", `a request of ${request.length} bytes, but the server takes at most ${max}`);
    }
    const isFull = this.#calls.size + this.#streams.size >= this.#welcome.requestsMax;
    if (isFull || this.#socket.writableLength > UNSENT_BYTES_MAX) {
      return new CallError("TN0925", "too many requests are under way");
    }
    return undefined;
  }

  #control(kind: number, id: bigint, payload: Buffer): void {
    if (this.#closed === undefined) {
      this.#send(kind, id, payload);
    }
  }

  #send(kind: number, id: bigint, payload: Uint8Array): void {
    // Corked, both parts leave with one system call.
    this.#socket.cork();
    this.#socket.write(frameHeader(kind, id, payload.length));
    this.#socket.write(payload);
    this.#socket.uncork();
  }

  #readFrames(): void {
    try {
      for (let frame = this.#reader.next(); frame !== undefined; frame = this.#reader.next()) {
        this.#take(frame);
      }
    } catch (error) {
      this.#end("TN0924", `the server broke the protocol: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  #take(frame: Frame): void {
    const { kind, id } = frame;
    if (kind === Kind.closing) {
      const { code, message } = decodeError(frame.payload);
      this.#end(code || "TN0920", message || "the server closed the connection");
      return;
    }
    const call = this.#calls.get(id);
    if (call !== undefined) {
      this.#calls.delete(id);
      clearTimeout(call.timer);
      if (kind === Kind.reply) {
        call.resolve(frame.payload);
      } else {
        call.reject(remoteError(frame));
      }
      return;
    }
    // A stream that was cancelled, and a call that waited too long, are answered all the same.
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      return;
    }
    if (kind === Kind.item) {
      stream.take(frame.payload);
      return;
    }
    this.#streams.delete(id);
    if (kind === Kind.end) {
      stream.finish(frame.payload);
    } else if (kind === Kind.reply) {
      // The service answered as if no stream had been asked for: with its error.
      stream.finish(frame.payload);
    } else {
      stream.fail(remoteError(frame));
    }
  }

  #end(code: string, message: string): void {
    if (this.#closed !== undefined) {
      return;
    }
    this.#closed = new CallError(code, message);
    this.#socket.destroy();
    for (const call of this.#calls.values()) {
      clearTimeout(call.timer);
      call.reject(this.#closed);
    }
    for (const stream of this.#streams.values()) {
      stream.fail(this.#closed);
    }
    this.#calls.clear();
    this.#streams.clear();
  }
}

function remoteError(frame: Frame): CallError {
  const { code, message } = decodeError(frame.payload);
  return new CallError(code || "TN0923", message || "the server answered with an error without a reason");
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

class SocketStream implements RawStream {
  last: Uint8Array = Buffer.alloc(0);
  readonly #items: Uint8Array[] = [];
  readonly #credit: number;
  readonly #grant: (items: number) => void;
  readonly #cancel: () => void;
  /** Items that were taken and not yet made room for. */
  #taken = 0;
  #error: CallError | undefined;
  #isEnded = false;
  #wake: (() => void) | undefined;

  constructor(credit: number, grant: (items: number) => void, cancel: () => void) {
    this.#credit = credit;
    this.#grant = grant;
    this.#cancel = cancel;
  }

  async next(): Promise<Uint8Array | undefined> {
    for (;;) {
      const item = this.#items.shift();
      if (item !== undefined) {
        this.#taken += 1;
        // Half of the credit at a time: rarely, and before the server runs out.
        if (!this.#isEnded && this.#taken * 2 >= this.#credit) {
          this.#grant(this.#taken);
          this.#taken = 0;
        }
        return item;
      }
      if (this.#error !== undefined) {
        throw this.#error;
      }
      if (this.#isEnded) {
        return undefined;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  cancel(): void {
    if (!this.#isEnded) {
      this.#isEnded = true;
      this.#items.length = 0;
      this.#cancel();
      this.#wake?.();
    }
  }

  take(item: Uint8Array): void {
    this.#items.push(item);
    this.#wake?.();
  }

  finish(last: Uint8Array): void {
    this.last = last;
    this.#isEnded = true;
    this.#wake?.();
  }

  fail(error: CallError): void {
    this.#error = error;
    this.#isEnded = true;
    this.#wake?.();
  }
}
