/** What a transport does, with bytes. Types come on top of it, in `service.ts`. */

/** One connection of a client. */
export interface RawClient {
  /** Sends a request; the reply, or an error after so many milliseconds. */
  call(request: Uint8Array, limitMs: number): Promise<Uint8Array>;
  /** Sends a request that is answered by items, of which at most `credit` are under way. */
  stream(request: Uint8Array, credit: number): RawStream;
  /** Ends the connection; calls under way fail. */
  close(): void;
}

/** What answers a request with items. */
export interface RawStream {
  /** The next item; `undefined` is the end, at which `last` is known. */
  next(): Promise<Uint8Array | undefined>;
  /** Payload of the end frame. */
  readonly last: Uint8Array;
  /** Asks for no further items. */
  cancel(): void;
}

/** Answers one request, once. */
export interface RawResponder {
  ok(payload: Uint8Array): void;
  error(code: string, message: string): void;
  /** Goes on with items, if the client asked for them. */
  stream(): RawStreamResponder | undefined;
}

/** Answers one request with items. */
export interface RawStreamResponder {
  /** Whether the client wants no further items. */
  readonly isCancelled: boolean;
  /** Sends an item when the client has room for it; `false` when it wants no more. */
  send(item: Uint8Array): Promise<boolean>;
  finish(last: Uint8Array): void;
  fail(code: string, message: string): void;
}

/** What a server does with a request. It must answer, now or later. */
export type RawHandler = (request: Uint8Array, responder: RawResponder) => void;

/** A listening server. */
export interface RawServer {
  /** Stops listening, lets requests under way be answered for so long, and closes every connection. */
  close(flushMs: number): Promise<void>;
}

/** How a connection is made. */
export interface RawConnectOptions {
  readonly schema: Uint8Array | undefined;
  readonly limitMs: number;
  readonly messageBytesMax: number;
}

/** How a server listens. */
export interface RawServeOptions {
  readonly schema: Uint8Array | undefined;
  readonly clientsMax: number;
  readonly messageBytesMax: number;
}
