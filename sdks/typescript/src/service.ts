/** Calls with types: what generated clients and servers are made of. */
import type { Codec } from "./codec.js";
import { field, string, structure } from "./codec.js";
import { DecodeError, ServiceError } from "./errors.js";
import { MESSAGE_BYTES_MAX } from "./frame.js";
import { Reader, Writer } from "./msgpack.js";
import { connectNative, listenNative } from "./native.js";
import { connectToSocket } from "./socket-client.js";
import { listenOnSocket } from "./socket-server.js";
import type { RawClient, RawHandler, RawResponder, RawServer, RawStreamResponder } from "./transport.js";

const CALL_LIMIT_MS = 30_000;
const CONNECT_LIMIT_MS = 5_000;
const CLIENTS_MAX = 1024;
const FLUSH_MS = 2_000;
const CREDIT = 64;

interface ErrorResponse {
  message: string;
}

const ErrorResponse: Codec<ErrorResponse> = structure<ErrorResponse>({ message: field("message", string) });

/** How a connection is made. */
export interface ConnectOptions {
  /** SHA-256 of the schema; `undefined` matches every server. */
  readonly schema?: Uint8Array | undefined;
  /** Milliseconds that connecting may take. */
  readonly limitMs?: number;
  /** Bytes of the largest message that is taken. */
  readonly messageBytesMax?: number;
}

/** How a server listens. */
export interface ServeOptions {
  /** SHA-256 of the schema; `undefined` matches every client. */
  readonly schema?: Uint8Array | undefined;
  /** Clients at one time. */
  readonly clientsMax?: number;
  /** Bytes of the largest message that is taken. */
  readonly messageBytesMax?: number;
}

/** A connection to a service. */
export interface Connection {
  /** Sends a request; resolves to the response. */
  call<Q, R>(
    requestName: string,
    requestCodec: Codec<Q>,
    request: Q,
    responseName: string,
    responseCodec: Codec<R>,
    limitMs?: number,
  ): Promise<R>;
  /** Sends a request that is answered with any number of responses. Leaving the loop cancels the rest. */
  stream<Q, R>(
    requestName: string,
    requestCodec: Codec<Q>,
    request: Q,
    responseName: string,
    responseCodec: Codec<R>,
    credit?: number,
  ): AsyncGenerator<R, void, undefined>;
  /** Ends the connection; calls under way fail. */
  close(): void;
}

/** Connects to a server. `errorName` is the name of the service's error message. */
export async function connect(path: string, errorName: string, options: ConnectOptions = {}): Promise<Connection> {
  const raw = {
    schema: options.schema,
    limitMs: options.limitMs ?? CONNECT_LIMIT_MS,
    messageBytesMax: options.messageBytesMax ?? MESSAGE_BYTES_MAX,
  };
  const client = await (path.endsWith(".shm") ? connectNative(path, raw) : connectToSocket(path, raw));
  return new TypedConnection(client, errorName);
}

class TypedConnection implements Connection {
  constructor(
    private readonly client: RawClient,
    private readonly errorName: string,
  ) {}

  async call<Q, R>(
    requestName: string,
    requestCodec: Codec<Q>,
    request: Q,
    responseName: string,
    responseCodec: Codec<R>,
    limitMs = CALL_LIMIT_MS,
  ): Promise<R> {
    const payload = await this.client.call(encodeRequest(requestName, requestCodec, request), limitMs);
    return this.decode(payload, responseName, responseCodec);
  }

  async *stream<Q, R>(
    requestName: string,
    requestCodec: Codec<Q>,
    request: Q,
    responseName: string,
    responseCodec: Codec<R>,
    credit = CREDIT,
  ): AsyncGenerator<R, void, undefined> {
    const stream = this.client.stream(encodeRequest(requestName, requestCodec, request), credit);
    try {
      for (let item = await stream.next(); item !== undefined; item = await stream.next()) {
        yield this.decode(item, responseName, responseCodec);
      }
      if (stream.last.length > 0) {
        this.decode(stream.last, responseName, responseCodec);
      }
    } finally {
      stream.cancel();
    }
  }

  close(): void {
    this.client.close();
  }

  private decode<R>(payload: Uint8Array, name: string, codec: Codec<R>): R {
    const reader = new Reader(payload);
    const found = responseName(reader);
    if (found === this.errorName) {
      throw new ServiceError(finished(reader, ErrorResponse).message);
    }
    return expectNamed(reader, found, name, codec);
  }
}

/** A whole request. */
export function encodeRequest<Q>(name: string, codec: Codec<Q>, request: Q): Uint8Array {
  const writer = new Writer();
  writer.array(1);
  return encodeNamed(writer, name, codec, request);
}

/** A whole response. */
export function encodeResponse<R>(name: string, codec: Codec<R>, response: R): Uint8Array {
  return encodeNamed(new Writer(), name, codec, response);
}

function encodeNamed<T>(writer: Writer, name: string, codec: Codec<T>, value: T): Uint8Array {
  writer.array(2);
  writer.string(name);
  codec.write(writer, value);
  return writer.bytesWritten();
}

/** Reads a whole request of that name. */
export function decodeRequest<Q>(name: string, codec: Codec<Q>, payload: Uint8Array): Q {
  const reader = new Reader(payload);
  return expectNamed(reader, requestName(reader), name, codec);
}

/** Reads a whole response of that name. */
export function decodeResponse<R>(name: string, codec: Codec<R>, payload: Uint8Array): R {
  const reader = new Reader(payload);
  return expectNamed(reader, responseName(reader), name, codec);
}

function expectNamed<T>(reader: Reader, found: string, name: string, codec: Codec<T>): T {
  if (found !== name) {
    throw unknownMessage(found);
  }
  return finished(reader, codec);
}

function requestName(reader: Reader): string {
  expectLength(reader, 1);
  return responseName(reader);
}

function responseName(reader: Reader): string {
  expectLength(reader, 2);
  return reader.string();
}

function expectLength(reader: Reader, expected: number): void {
  const found = reader.array(0);
  if (found !== expected) {
    throw new DecodeError("TN1045", `expected ${expected} elements, found ${found}`);
  }
}

function finished<T>(reader: Reader, codec: Codec<T>): T {
  const value = codec.read(reader);
  reader.finish();
  return value;
}

function unknownMessage(name: string): DecodeError {
  return new DecodeError("TN1050", `unknown message \`${name.slice(0, 100)}\``);
}

/** Answers one request, once, now or later. */
export interface Responder<R> {
  /** Answers with a response. */
  ok(response: R): void;
  /** Answers with the service's error. */
  error(message: string): void;
}

/** Answers one request with any number of responses, and an end. */
export interface StreamResponder<R> {
  /** Whether the client wants no further responses. */
  readonly isCancelled: boolean;
  /** Sends a response when the client has room for it; `false` when it wants no more. */
  send(response: R): Promise<boolean>;
  /** Ends the stream. */
  finish(): void;
  /** Ends the stream with the service's error. */
  error(message: string): void;
}

/** What a server does with one kind of request. */
export type Command = (reader: Reader, responder: RawResponder, errorName: string) => void;

/**
 * The duty to answer one request. It knows nothing of the handler's responder, and so sees it go: a client
 * must not wait for an answer that nobody can give any more.
 */
class Duty {
  #isDone = false;
  readonly #fail: Failure;

  constructor(fail: Failure) {
    this.#fail = fail;
  }

  /** Whether it is done by now, for the first time. */
  done(): boolean {
    const isFirst = !this.#isDone;
    this.#isDone = true;
    dropped.unregister(this);
    return isFirst;
  }

  /** The request is answered, by this. */
  answer(): void {
    if (!this.done()) {
      throw new Error("a request is answered once");
    }
  }

  drop(): void {
    if (this.done()) {
      this.#fail("TN0926", "the service dropped the request without an answer");
    }
  }

  /** Runs the handler, and answers what it cannot answer any more. */
  run(responder: object, handle: () => void): void {
    dropped.register(responder, this, this);
    const failed = (error: unknown): void => {
      const message = error instanceof Error ? error.message : String(error);
      if (this.done()) {
        this.#fail("TN0923", message);
      } else {
        process.emitWarning(`a handler failed after its answer: ${message}`);
      }
    };
    try {
      // Methods that give nothing back may be asynchronous all the same.
      const handled: unknown = handle();
      if (handled instanceof Promise) {
        handled.then(() => this.drop(), failed);
      }
    } catch (error) {
      failed(error);
    }
  }
}

/** Responders that the collector takes before they were used. */
const dropped = new FinalizationRegistry<Duty>((duty) => duty.drop());

type Failure = (code: string, message: string) => void;

// Functions of their own: what a duty holds must not share a scope with the responder, which it would keep alive.
const errorOf = (raw: RawResponder): Failure => (code, message) => raw.error(code, message);
const failureOf = (raw: RawStreamResponder): Failure => (code, message) => raw.fail(code, message);

/** A command that is answered once. */
export function call<Q, R>(
  requestCodec: Codec<Q>,
  responseName: string,
  responseCodec: Codec<R>,
  handle: (request: Q, responder: Responder<R>) => void,
): Command {
  return (reader, raw, errorName) => {
    const request = finished(reader, requestCodec);
    const duty = new Duty(errorOf(raw));
    const answer = (payload: Uint8Array): void => {
      duty.answer();
      raw.ok(payload);
    };
    const responder: Responder<R> = {
      ok: (response) => answer(encodeResponse(responseName, responseCodec, response)),
      error: (message) => answer(encodeResponse(errorName, ErrorResponse, { message })),
    };
    duty.run(responder, () => handle(request, responder));
  };
}

/** A command that is answered with a stream. */
export function stream<Q, R>(
  requestCodec: Codec<Q>,
  responseName: string,
  responseCodec: Codec<R>,
  handle: (request: Q, responder: StreamResponder<R>) => void,
): Command {
  return (reader, raw, errorName) => {
    const request = finished(reader, requestCodec);
    const inner: RawStreamResponder | undefined = raw.stream();
    if (inner === undefined) {
      raw.error("TN0927", "this command is answered with a stream, which was not asked for");
      return;
    }
    const duty = new Duty(failureOf(inner));
    const finish = (last: Uint8Array): void => {
      if (duty.done()) {
        inner.finish(last);
      }
    };
    // One after the other, so that responses leave in their order and one of them at a time waits for room.
    let sent = Promise.resolve(true);
    const responder: StreamResponder<R> = {
      get isCancelled() {
        return inner.isCancelled;
      },
      send: (response) => {
        const item = encodeResponse(responseName, responseCodec, response);
        sent = sent.then(() => inner.send(item));
        return sent;
      },
      finish: () => finish(new Uint8Array(0)),
      error: (message) => finish(encodeResponse(errorName, ErrorResponse, { message })),
    };
    duty.run(responder, () => handle(request, responder));
  };
}

/** A listening server. */
export interface Server {
  /** Stops listening, lets requests under way be answered, and closes every connection. */
  close(): Promise<void>;
}

/** Listens. `commands` are by the names of their requests. */
export async function serve(
  path: string,
  errorName: string,
  commands: ReadonlyMap<string, Command>,
  options: ServeOptions = {},
): Promise<Server> {
  const handler: RawHandler = (payload, responder) => {
    let command: Command | undefined;
    const reader = new Reader(payload);
    const refuse = (message: string): void => responder.ok(encodeResponse(errorName, ErrorResponse, { message }));
    try {
      const name = requestName(reader);
      command = commands.get(name);
      if (command === undefined) {
        throw unknownMessage(name);
      }
      command(reader, responder, errorName);
    } catch (error) {
      if (!(error instanceof DecodeError)) {
        throw error;
      }
      refuse(`${error.code}: ${error.message}`);
    }
  };
  const raw = {
    schema: options.schema,
    clientsMax: options.clientsMax ?? CLIENTS_MAX,
    messageBytesMax: options.messageBytesMax ?? MESSAGE_BYTES_MAX,
  };
  const server: RawServer = await (path.endsWith(".shm")
    ? listenNative(path, raw, handler)
    : listenOnSocket(path, raw, handler));
  return { close: () => server.close(FLUSH_MS) };
}
