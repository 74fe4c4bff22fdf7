/**
 * Frames and the handshake: the byte stream of `tine-ipc`.
 *
 * A frame is u32 length of the payload, u8 kind, three zero bytes, u64 request id, payload; numbers are
 * little-endian. The first frame of each side is a handshake.
 */
import { ConnectError } from "./errors.js";

/** What a frame means. */
export const Kind = {
  request: 1,
  cancel: 2,
  credit: 3,
  streamRequest: 4,
  reply: 16,
  error: 17,
  item: 18,
  end: 19,
  closing: 20,
  hello: 32,
  welcome: 33,
  refused: 34,
} as const;

const KINDS = new Set<number>(Object.values(Kind));

/** Bytes before the payload. */
export const HEADER_BYTES = 16;

/** Payload of a handshake frame at most: no more is read from somebody unknown. */
export const HANDSHAKE_BYTES_MAX = 4096;

/** Payload of any other frame, unless options say otherwise. */
export const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

const MAGIC = Buffer.from("TINE-IPC", "latin1");
const VERSION = 1;
const FLAG_COMPLETION_ORDER = 1;
const FLAG_SHARED_MEMORY = 2;
const ANY_SCHEMA = Buffer.alloc(32);

/** One frame. */
export interface Frame {
  readonly kind: number;
  readonly id: bigint;
  readonly payload: Buffer;
}

/** A header, and its payload as it is: they are written with one system call. */
export function frameHeader(kind: number, id: bigint, payloadBytes: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(payloadBytes, 0);
  header.writeUInt8(kind, 4);
  header.writeBigUInt64LE(id, 8);
  return header;
}

/** Bytes that are no frame: nobody knows where the next one begins. */
export class FrameError extends Error {
  override readonly name = "FrameError";
}

/** Cuts a stream of bytes into frames. */
export class FrameReader {
  #chunks: Buffer[] = [];
  #length = 0;

  /** A reader that refuses payloads of more than so many bytes. */
  constructor(public payloadBytesMax: number) {}

  /** Takes the next bytes. */
  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
  }

  /** The next whole frame, if it is there. */
  next(): Frame | undefined {
    if (this.#length < HEADER_BYTES) {
      return undefined;
    }
    const header = this.#gather(HEADER_BYTES);
    const payloadBytes = header.readUInt32LE(0);
    const kind = header.readUInt8(4);
    if (!KINDS.has(kind)) {
      throw new FrameError(`${kind} is no kind of frame`);
    }
    if (header.readUIntLE(5, 3) !== 0) {
      throw new FrameError("reserved bytes of a frame's header are not zero");
    }
    if (payloadBytes > this.payloadBytesMax) {
      throw new FrameError(`a payload of ${payloadBytes} bytes, but at most ${this.payloadBytesMax} are taken`);
    }
    const total = HEADER_BYTES + payloadBytes;
    if (this.#length < total) {
      return undefined;
    }
    const frame = this.#gather(total);
    this.#chunks[0] = frame.subarray(total);
    this.#length -= total;
    return { kind, id: frame.readBigUInt64LE(8), payload: frame.subarray(HEADER_BYTES, total) };
  }

  /** The first chunk, with at least so many bytes, which are there. */
  #gather(bytes: number): Buffer {
    const first = this.#chunks[0]!;
    if (first.length >= bytes) {
      return first;
    }
    // Joining all of them at once keeps the work linear when a large payload comes in small pieces: it
    // happens for the header and for the whole frame, not for each piece.
    const joined = Buffer.concat(this.#chunks, this.#length);
    this.#chunks = [joined];
    return joined;
  }
}

/** What a client says first. */
export interface Hello {
  readonly completionOrder: boolean;
  readonly schema: Uint8Array | undefined;
  readonly payloadBytesMax: number;
}

/** What a server answers. */
export interface Welcome {
  readonly completionOrder: boolean;
  readonly schema: Uint8Array | undefined;
  readonly payloadBytesMax: number;
  readonly requestsMax: number;
  readonly requestBytesMax: bigint;
}

/** Payload of a Hello frame. */
export function encodeHello(hello: Hello): Buffer {
  const bytes = Buffer.alloc(52);
  MAGIC.copy(bytes);
  bytes.writeUInt16LE(VERSION, 8);
  bytes.writeUInt16LE(VERSION, 10);
  bytes.writeUInt32LE(hello.completionOrder ? FLAG_COMPLETION_ORDER : 0, 12);
  bytes.set(hello.schema ?? ANY_SCHEMA, 16);
  bytes.writeUInt32LE(hello.payloadBytesMax, 48);
  return bytes;
}

/** Reads a Hello, and checks that the two can work together. */
export function acceptHello(payload: Buffer, schema: Uint8Array | undefined): Hello {
  checkStart(payload, 52);
  const [from, to] = [payload.readUInt16LE(8), payload.readUInt16LE(10)];
  if (from > VERSION || to < VERSION) {
    throw new ConnectError("TN0911", `the client speaks protocol versions ${from} to ${to}, the server ${VERSION}`);
  }
  const flags = payload.readUInt32LE(12);
  const theirs = payload.subarray(16, 48);
  checkSchema(theirs, schema);
  if ((flags & FLAG_SHARED_MEMORY) !== 0) {
    throw new ConnectError("TN0910", "the other side does not speak this protocol: this path is served through a socket");
  }
  return {
    completionOrder: (flags & FLAG_COMPLETION_ORDER) !== 0,
    schema: theirs,
    payloadBytesMax: payload.readUInt32LE(48),
  };
}

/** Payload of a Welcome frame. */
export function encodeWelcome(welcome: Welcome): Buffer {
  const bytes = Buffer.alloc(72);
  MAGIC.copy(bytes);
  bytes.writeUInt16LE(VERSION, 8);
  bytes.writeUInt32LE(welcome.completionOrder ? FLAG_COMPLETION_ORDER : 0, 12);
  bytes.set(welcome.schema ?? ANY_SCHEMA, 16);
  bytes.writeUInt32LE(welcome.payloadBytesMax, 48);
  bytes.writeUInt32LE(welcome.requestsMax, 52);
  bytes.writeBigUInt64LE(welcome.requestBytesMax, 56);
  return bytes;
}

/** Reads a Welcome and checks it against what was asked for. */
export function acceptWelcome(payload: Buffer, schema: Uint8Array | undefined): Welcome {
  checkStart(payload, 64);
  const version = payload.readUInt16LE(8);
  if (version !== VERSION) {
    throw new ConnectError("TN0911", `the client speaks protocol version ${VERSION}, the server ${version}`);
  }
  const flags = payload.readUInt32LE(12);
  const theirs = payload.subarray(16, 48);
  checkSchema(theirs, schema);
  if ((flags & FLAG_SHARED_MEMORY) !== 0) {
    throw new ConnectError("TN0910", "the server welcomes to another transport than was asked for");
  }
  return {
    completionOrder: (flags & FLAG_COMPLETION_ORDER) !== 0,
    schema: theirs,
    payloadBytesMax: payload.readUInt32LE(48),
    requestsMax: payload.readUInt32LE(52),
    requestBytesMax: payload.readBigUInt64LE(56),
  };
}

/** Payload of a Refused frame. */
export function encodeRefused(error: ConnectError, schema: Uint8Array | undefined): Buffer {
  const head = Buffer.alloc(48);
  MAGIC.copy(head);
  head.writeUInt16LE(VERSION, 8);
  head.writeUInt16LE(VERSION, 10);
  head.set(schema ?? ANY_SCHEMA, 16);
  return Buffer.concat([head, encodeError(error.code, error.message)]);
}

/** What a Refused frame says. */
export function decodeRefused(payload: Buffer): ConnectError {
  const { code, message } = decodeError(payload.subarray(48));
  return new ConnectError(code || "TN0915", message || "the server refused without a reason");
}

/** Payload of an error frame: u16 length of the code, code, message. */
export function encodeError(code: string, message: string): Buffer {
  const [codeBytes, messageBytes] = [Buffer.from(code), Buffer.from(message)];
  const length = Buffer.alloc(2);
  length.writeUInt16LE(codeBytes.length);
  return Buffer.concat([length, codeBytes, messageBytes]);
}

/** Code and message of an error frame. Whatever the bytes are, something readable comes out. */
export function decodeError(payload: Buffer): { code: string; message: string } {
  if (payload.length < 2) {
    return { code: "", message: "" };
  }
  const end = 2 + payload.readUInt16LE(0);
  return { code: payload.toString("utf8", 2, end), message: payload.toString("utf8", Math.min(end, payload.length)) };
}

function checkStart(payload: Buffer, bytes: number): void {
  if (payload.length < bytes || !payload.subarray(0, 8).equals(MAGIC)) {
    throw new ConnectError("TN0910", "the other side does not speak this protocol: its first frame is not a handshake");
  }
}

function checkSchema(theirs: Buffer, ours: Uint8Array | undefined): void {
  if (ours === undefined || theirs.equals(ours) || theirs.equals(ANY_SCHEMA)) {
    return;
  }
  const short = (hash: Uint8Array): string => Buffer.from(hash).toString("hex", 0, 8);
  throw new ConnectError(
    "TN0912",
    `this side was made from schema ${short(ours)}, the other from ${short(theirs)}: generate the older one again`,
  );
}
