/**
 * Tine's browser client: live tables of one database or fork over one WebSocket, without a build step.
 *
 *     import { connect } from "/tine/client.js";
 *     const db = await connect({ database: "quickstart" });
 *     await db.subscribe("SELECT * FROM person");
 *     db.table("person").onInsert(person => console.log(person.name));
 *     await db.call("add", { name: "Ada" });
 *
 * Invariants:
 * - Rows change only in `#apply`, one server message at a time, so a callback sees every table as of
 *   one commit. Callbacks run after the whole message is in.
 * - A row that several queries select is kept once and counted; it is gone when the last query that
 *   selected it says so.
 * - Every request is settled: by its reply, or by the end of the connection.
 *
 * Values: integers of 64 bits and more are BigInt, identities, connection ids and UUIDs are strings,
 * timestamps and durations are BigInt microseconds, byte arrays are Uint8Array, options are the value
 * or null, other sums are `{ tag, value }`, products are objects by column name as in SQL.
 */

const PROTOCOLS = ["v3.bsatn.spacetimedb", "v2.bsatn.spacetimedb"];
/** Bytes of requests packed into one frame; a larger request travels alone. */
const FRAME_BYTES_MAX = 256 * 1024;
const BACKOFF_MS_MIN = 100;
const BACKOFF_MS_MAX = 10_000;
/** A handshake that takes longer has failed. */
const CONNECT_MS_MAX = 15_000;
/** Types nested deeper than this are refused, as the server does. */
const TYPE_DEPTH_MAX = 64;

/** What a request or connection failed with. `kind` is "sender" when the module refused on purpose. */
export class TineError extends Error {
  constructor(kind, message) {
    super(message);
    this.name = "TineError";
    this.kind = kind;
  }
}

/** Opens a connection; resolves when the server has accepted it. See `client.d.ts` for the options. */
export async function connect(options) {
  const connection = new Connection(options);
  await connection.open();
  return connection;
}

// BSATN: the reader and writer of bytes.

const textDecoder = new TextDecoder("utf-8", { fatal: true });
const textEncoder = new TextEncoder();
/** Not really Latin-1, but it maps all 256 bytes to different characters, which is what a key needs. */
const keyDecoder = new TextDecoder("latin1");

export class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.position = 0;
  }

  get remaining() {
    return this.bytes.length - this.position;
  }

  advance(length) {
    const start = this.position;
    if (length > this.remaining) throw new TineError("protocol", "a message ends too early");
    this.position += length;
    return start;
  }

  take(length) {
    const start = this.advance(length);
    return this.bytes.subarray(start, start + length);
  }

  u8() {
    return this.view.getUint8(this.advance(1));
  }

  u16() {
    return this.view.getUint16(this.advance(2), true);
  }

  u32() {
    return this.view.getUint32(this.advance(4), true);
  }

  i64() {
    return this.view.getBigInt64(this.advance(8), true);
  }

  /** A whole number of `length` bytes, little-endian. */
  big(length, isSigned) {
    let value = 0n;
    const start = this.advance(length);
    for (let offset = length - 8; offset >= 0; offset -= 8) {
      value = (value << 64n) | this.view.getBigUint64(start + offset, true);
    }
    return isSigned ? BigInt.asIntN(length * 8, value) : value;
  }

  string() {
    return textDecoder.decode(this.take(this.u32()));
  }

  array(readElement) {
    const length = this.u32();
    const elements = [];
    for (let index = 0; index < length; index++) elements.push(readElement());
    return elements;
  }
}

export class Writer {
  #bytes = new Uint8Array(256);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  #room(length) {
    const start = this.#length;
    this.#length += length;
    if (this.#length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#length, this.#bytes.length * 2));
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    return start;
  }

  u8(value) {
    const at = this.#room(1);
    this.#view.setUint8(at, value);
  }

  u32(value) {
    const at = this.#room(4);
    this.#view.setUint32(at, value, true);
  }

  float(value, length) {
    const at = this.#room(length);
    if (length === 4) this.#view.setFloat32(at, value, true);
    else this.#view.setFloat64(at, value, true);
  }

  /** A whole number of `length` bytes; refuses one that does not fit. */
  integer(value, length, isSigned) {
    const big = BigInt(value);
    const bits = length * 8;
    const wrapped = isSigned ? BigInt.asIntN(bits, big) : BigInt.asUintN(bits, big);
    if (wrapped !== big) throw new RangeError(`${big} does not fit ${isSigned ? "i" : "u"}${bits}`);
    const at = this.#room(length);
    for (let index = 0, rest = BigInt.asUintN(bits, big); index < length; index++, rest >>= 8n) {
      this.#bytes[at + index] = Number(rest & 0xffn);
    }
  }

  raw(bytes) {
    const at = this.#room(bytes.length);
    this.#bytes.set(bytes, at);
  }

  bytes(bytes) {
    this.u32(bytes.length);
    this.raw(bytes);
  }

  string(text) {
    this.bytes(textEncoder.encode(text));
  }

  finish() {
    return this.#bytes.slice(0, this.#length);
  }
}

// Types: from the schema's JSON to a pair of functions, made once.

const integerType = (length, isSigned) => ({
  read: reader => (length < 8 ? Number(small(reader, length, isSigned)) : reader.big(length, isSigned)),
  write: (writer, value) => writer.integer(value, length, isSigned),
});

function small(reader, length, isSigned) {
  const at = reader.advance(length);
  const { view } = reader;
  if (length === 1) return isSigned ? view.getInt8(at) : view.getUint8(at);
  if (length === 2) return isSigned ? view.getInt16(at, true) : view.getUint16(at, true);
  return isSigned ? view.getInt32(at, true) : view.getUint32(at, true);
}

const hexType = (length, separate = text => text) => ({
  read: reader => separate(reader.big(length, false).toString(16).padStart(length * 2, "0")),
  write: (writer, value) =>
    writer.integer(
      typeof value === "string" ? BigInt(`0x${value.replace(/^0x/, "").replaceAll("-", "")}`) : value,
      length,
      false
    ),
});

const uuidText = hex => hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");

const SCALARS = {
  Bool: {
    read: reader => reader.u8() !== 0,
    write: (writer, value) => writer.u8(value ? 1 : 0),
  },
  String: {
    read: reader => reader.string(),
    write: (writer, value) => writer.string(String(value)),
  },
  F32: {
    read: reader => reader.view.getFloat32(reader.advance(4), true),
    write: (writer, value) => writer.float(Number(value), 4),
  },
  F64: {
    read: reader => reader.view.getFloat64(reader.advance(8), true),
    write: (writer, value) => writer.float(Number(value), 8),
  },
};
for (const bits of [8, 16, 32, 64, 128, 256]) {
  SCALARS[`I${bits}`] = integerType(bits / 8, true);
  SCALARS[`U${bits}`] = integerType(bits / 8, false);
}

const BYTES = {
  read: reader => reader.take(reader.u32()).slice(),
  write: (writer, value) => writer.bytes(Uint8Array.from(value)),
};

/** Products of one field with these names stand for something else. */
const SPECIAL = {
  __identity__: hexType(32),
  __connection_id__: hexType(16),
  __uuid__: hexType(16, uuidText),
  __timestamp_micros_since_unix_epoch__: {
    read: reader => reader.i64(),
    write: (writer, value) =>
      writer.integer(value instanceof Date ? BigInt(value.getTime()) * 1000n : value, 8, true),
  },
  __time_duration_micros__: {
    read: reader => reader.i64(),
    write: (writer, value) => writer.integer(value, 8, true),
  },
};

const optionalName = name => name?.some ?? (typeof name === "string" ? name : null);

/** Makes the codec of a type; `names` converts field names. */
function codecOf(type, typespace, names, depth = 0) {
  if (depth > TYPE_DEPTH_MAX) throw new TineError("schema", "a type is nested too deeply");
  const [kind, payload] = Object.entries(type)[0];
  const inner = type => codecOf(type, typespace, names, depth + 1);
  switch (kind) {
    case "Ref":
      return inner(typespace[payload]);
    case "Array":
      return "U8" in payload ? BYTES : arrayCodec(inner(payload));
    case "Product":
      return productCodec(payload.elements, inner, names);
    case "Sum":
      return sumCodec(payload.variants, inner);
    default:
      if (!SCALARS[kind]) throw new TineError("schema", `the type ${kind} is not known`);
      return SCALARS[kind];
  }
}

function arrayCodec(element) {
  return {
    read: reader => reader.array(() => element.read(reader)),
    write: (writer, value) => {
      writer.u32(value.length);
      for (const item of value) element.write(writer, item);
    },
  };
}

function productCodec(elements, inner, names) {
  const only = elements.length === 1 ? optionalName(elements[0].name) : null;
  if (only in SPECIAL) return SPECIAL[only];
  const fields = elements.map(({ name, algebraic_type }, index) => {
    const source = optionalName(name) ?? String(index);
    return { source, name: names(source), ...inner(algebraic_type) };
  });
  return {
    fields,
    read: reader => {
      const row = {};
      for (const { name, read } of fields) row[name] = read(reader);
      return row;
    },
    write: (writer, value) => {
      if (!Array.isArray(value)) refuseUnknown(fields, value);
      fields.forEach(({ name, source, write }, index) => {
        const part = Array.isArray(value) ? value[index] : (value[name] ?? value[source]);
        write(writer, part);
      });
    },
  };
}

/** A misspelt name would otherwise be sent as nothing. */
function refuseUnknown(fields, value) {
  for (const key of Object.keys(value)) {
    if (!fields.some(({ name, source }) => key === name || key === source)) {
      throw new TypeError(`there is no field or parameter "${key}"`);
    }
  }
}

function sumCodec(variants, inner) {
  const cases = variants.map(({ name, algebraic_type }, tag) => ({
    name: optionalName(name) ?? String(tag),
    isUnit: algebraic_type.Product?.elements.length === 0,
    ...inner(algebraic_type),
  }));
  const read = reader => {
    const found = cases[reader.u8()];
    if (!found) throw new TineError("protocol", "a value has an unknown variant");
    return found;
  };
  if (cases.length === 2 && cases[0].name === "some" && cases[1].name === "none") {
    return {
      read: reader => {
        const found = read(reader);
        return found.isUnit && found.name === "none" ? null : found.read(reader);
      },
      write: (writer, value) => {
        const isNone = value === null || value === undefined;
        writer.u8(isNone ? 1 : 0);
        if (!isNone) cases[0].write(writer, value);
      },
    };
  }
  return {
    read: reader => {
      const found = read(reader);
      if (!found.isUnit) return { tag: found.name, value: found.read(reader) };
      return { tag: found.name };
    },
    write: (writer, value) => {
      const tag = typeof value === "string" ? value : value.tag;
      const index = cases.findIndex(({ name }) => name === tag);
      if (index < 0) throw new TypeError(`there is no variant "${tag}"`);
      writer.u8(index);
      if (!cases[index].isUnit) cases[index].write(writer, value.value);
    },
  };
}

// The schema of a database.

/** The server's rule: words end at separators, where the case rises, and between letters and digits. */
export function snakeCase(name) {
  const letters = [...name];
  const is = (pattern, letter) => letter !== undefined && pattern.test(letter);
  const [lower, upper, digit, letterPattern] = [/\p{Lowercase}/u, /\p{Uppercase}/u, /[0-9]/, /\p{Lowercase}|\p{Uppercase}/u];
  const words = [""];
  letters.forEach((letter, index) => {
    const [previous, next] = [letters[index - 1], letters[index + 1]];
    if (/[_\- ]/.test(letter)) return words.push("");
    const isBoundary =
      (is(lower, previous) && is(upper, letter)) ||
      (is(upper, previous) && is(upper, letter) && is(lower, next)) ||
      (is(letterPattern, previous) && is(digit, letter)) ||
      (is(digit, previous) && is(letterPattern, letter));
    if (isBoundary) words.push("");
    words[words.length - 1] += letter;
  });
  return words.filter(word => word).map(word => word.toLowerCase()).join("_");
}

/** Tables and functions of a database, from `GET schema?version=10`. */
export class Schema {
  tables = new Map();
  reducers = new Map();
  procedures = new Map();

  constructor(definition) {
    const section = name => definition.sections.find(section => name in section)?.[name];
    const typespace = section("Typespace")?.types ?? [];
    const keepsCase = "None" in (section("CaseConversionPolicy") ?? {});
    const convert = keepsCase ? name => name : snakeCase;
    const explicit = section("ExplicitNames")?.entries ?? [];
    const canonical = (kind, source) =>
      explicit.find(entry => entry[kind]?.source_name === source)?.[kind].canonical_name ?? convert(source);
    for (const table of section("Tables") ?? []) {
      const row = codecOf({ Ref: table.product_type_ref }, typespace, convert);
      const name = canonical("Table", table.source_name);
      this.tables.set(name, { name, source: table.source_name, row, key: table.primary_key });
    }
    const add = (functions, { source_name, params, return_type }) => {
      const name = canonical("Function", source_name);
      const parameters = codecOf({ Product: params }, typespace, convert);
      const returns = return_type && codecOf(return_type, typespace, convert);
      functions.set(name, { name, source: source_name, parameters, returns });
    };
    for (const reducer of section("Reducers") ?? []) add(this.reducers, reducer);
    for (const procedure of section("Procedures") ?? []) add(this.procedures, procedure);
  }

  find(kind, name) {
    const found = this[kind].get(name);
    return found ?? [...this[kind].values()].find(({ source }) => source === name);
  }
}

// Live rows.

/** The rows of one table that the subscriptions of a connection select. */
class LiveTable {
  #definition;
  #rows = new Map();
  #byKey = new Map();
  #listeners = { insert: new Set(), update: new Set(), delete: new Set() };

  constructor(definition) {
    this.#definition = definition;
  }

  get name() {
    return this.#definition.name;
  }

  get size() {
    return this.#rows.size;
  }

  *[Symbol.iterator]() {
    for (const { row } of this.#rows.values()) yield row;
  }

  /** The row with this primary key (an array of values when it has several columns). */
  get(key) {
    const { row, key: columns } = this.#definition;
    if (columns.length === 0) throw new TypeError(`${this.name} has no primary key`);
    const values = columns.length === 1 ? [key] : key;
    const writer = new Writer();
    columns.forEach((column, index) => row.fields[column].write(writer, values[index]));
    return this.#byKey.get(keyDecoder.decode(writer.finish()))?.row;
  }

  onInsert(callback) {
    return this.#listen("insert", callback);
  }

  onUpdate(callback) {
    return this.#listen("update", callback);
  }

  onDelete(callback) {
    return this.#listen("delete", callback);
  }

  #listen(event, callback) {
    this.#listeners[event].add(callback);
    return () => this.#listeners[event].delete(callback);
  }

  /** Reads rows laid end to end. */
  decode(bytes) {
    const { row, key } = this.#definition;
    const reader = new Reader(bytes);
    const entries = [];
    while (reader.remaining > 0) {
      const start = reader.position;
      const value = row.read(reader);
      if (reader.position === start) break;
      const id = keyDecoder.decode(bytes.subarray(start, reader.position));
      entries.push({ id, row: value, key: this.#keyOf(value, key) ?? id });
    }
    return entries;
  }

  #keyOf(value, columns) {
    if (columns.length === 0) return null;
    const { fields } = this.#definition.row;
    const writer = new Writer();
    for (const column of columns) fields[column].write(writer, value[fields[column].name]);
    return keyDecoder.decode(writer.finish());
  }

  /** Counts rows in and out and returns what really came and went. */
  change(inserts, deletes) {
    const came = new Map();
    const went = new Map();
    for (const entry of inserts) {
      const known = this.#rows.get(entry.id);
      if (known) {
        known.count += 1;
        continue;
      }
      this.#rows.set(entry.id, { row: entry.row, key: entry.key, count: 1 });
      came.set(entry.id, entry);
    }
    for (const entry of deletes) {
      const known = this.#rows.get(entry.id);
      if (!known || --known.count > 0) continue;
      this.#rows.delete(entry.id);
      if (!came.delete(entry.id)) went.set(entry.id, { id: entry.id, row: known.row, key: known.key });
    }
    return this.#pair(came, went);
  }

  /** A row that went and one that came with the same primary key are one update. */
  #pair(came, went) {
    const change = { inserts: [], updates: [], deletes: [] };
    const old = new Map();
    for (const { key, row } of went.values()) {
      old.set(key, row);
      this.#byKey.delete(key);
    }
    for (const { id, key, row } of came.values()) {
      this.#byKey.set(key, this.#rows.get(id));
      if (old.has(key)) {
        change.updates.push({ old: old.get(key), new: row });
        old.delete(key);
      } else {
        change.inserts.push(row);
      }
    }
    change.deletes.push(...old.values());
    return change;
  }

  /** Makes the rows those of `fresh`, a table of a new connection, and returns the difference. */
  become(fresh) {
    const came = new Map();
    const went = new Map();
    for (const [id, { row, key }] of fresh.#rows) if (!this.#rows.has(id)) came.set(id, { id, row, key });
    for (const [id, { row, key }] of this.#rows) if (!fresh.#rows.has(id)) went.set(id, { id, row, key });
    const kept = this.#rows;
    // Rows that stayed keep their object, so that it can still be recognised.
    for (const [id, entry] of fresh.#rows) entry.row = kept.get(id)?.row ?? entry.row;
    this.#rows = fresh.#rows;
    this.#byKey = fresh.#byKey;
    this.#definition = fresh.#definition;
    return this.#pair(came, went);
  }

  tell({ inserts, updates, deletes }) {
    const tell = (event, call) => this.#listeners[event].forEach(callback => guarded(() => call(callback)));
    for (const row of deletes) tell("delete", callback => callback(row));
    for (const update of updates) tell("update", callback => callback(update.old, update.new));
    for (const row of inserts) tell("insert", callback => callback(row));
  }
}

/** A callback that throws must not stop the others, nor the connection. */
function guarded(run) {
  try {
    run();
  } catch (error) {
    reportError(error);
  }
}

const isEmpty = ({ inserts, updates, deletes }) => inserts.length + updates.length + deletes.length === 0;

// The connection.

const CLIENT = { subscribe: 0, unsubscribe: 1, oneOffQuery: 2, callReducer: 3, callProcedure: 4 };

class Connection {
  identity = null;
  connectionId = null;
  token;
  schema = null;
  #options;
  #base;
  #socket = null;
  #isV3 = true;
  #tables = new Map();
  /** Tables of a new connection until all its subscriptions are applied, then they become `#tables`. */
  #fresh = null;
  #listeners = new Set();
  /** Requests without a reply, by id. */
  #requests = new Map();
  #subscriptions = new Map();
  #nextId = 0;
  #outgoing = [];
  #isFlushing = false;
  #state = "connecting";
  #attempts = 0;

  constructor(options) {
    this.#options = options;
    this.token = options.token ?? null;
    this.#base = new URL(options.url ?? globalThis.location?.origin);
    if (options.onChange) this.onChange(options.onChange);
  }

  /** "connecting", "open", "reconnecting" or "closed". */
  get state() {
    return this.#state;
  }

  /** The live rows of a table, by its name in SQL or in the source. */
  table(name) {
    const definition = this.schema.find("tables", name);
    if (!definition) throw new TineError("schema", `there is no table "${name}"`);
    return this.#live(this.#tables, definition.name);
  }

  /** The rows of a table, as something to iterate. */
  rows(name) {
    return this.table(name);
  }

  /** Calls `callback({ tables })` once for each message that changed rows. Returns how to stop. */
  onChange(callback) {
    this.#listeners.add(callback);
    return () => this.#listeners.delete(callback);
  }

  /** Subscribes to one or more queries; resolves when their rows are here. */
  async subscribe(queries) {
    const id = this.#nextId++;
    const subscription = { id, queries: [queries].flat() };
    await this.#request(() => this.#sendSubscribe(subscription), id);
    this.#subscriptions.set(id, subscription);
    return { queries: subscription.queries, unsubscribe: () => this.#unsubscribe(id) };
  }

  /** Calls a reducer or procedure with an object of arguments by name, or an array. */
  async call(name, args = []) {
    const reducer = this.schema.find("reducers", name);
    const called = reducer ?? this.schema.find("procedures", name);
    if (!called) throw new TineError("schema", `there is no reducer or procedure "${name}"`);
    const { fields } = called.parameters;
    if (Array.isArray(args) && args.length !== fields.length) {
      throw new TypeError(`${name} takes ${fields.length} arguments, not ${args.length}`);
    }
    const encoded = new Writer();
    called.parameters.write(encoded, args);
    const id = this.#nextId++;
    const bytes = await this.#request(() => {
      const writer = this.#begin(reducer ? CLIENT.callReducer : CLIENT.callProcedure, id);
      writer.u8(0);
      writer.string(called.name);
      writer.bytes(encoded.finish());
      this.#send(writer);
    }, id);
    return reducer || !called.returns ? undefined : called.returns.read(new Reader(bytes));
  }

  /** Ends the connection for good. */
  close() {
    this.#end(new TineError("closed", "the connection was closed"), false);
  }

  /** Connects for the first time. */
  async open() {
    try {
      await this.#connect();
      this.#setState("open");
    } catch (error) {
      this.#state = "closed";
      this.#socket?.close();
      throw error;
    }
  }

  async #connect() {
    const path = `/v1/database/${encodeURIComponent(this.#options.database)}`;
    const headers = this.token ? { authorization: `Bearer ${this.token}` } : {};
    const reply = await fetch(new URL(`${path}/schema?version=10`, this.#base), { headers });
    if (!reply.ok) throw new TineError("refused", await reply.text());
    this.schema = new Schema(await reply.json());
    const address = new URL(`${path}/subscribe?compression=None`, this.#base);
    address.protocol = this.#base.protocol === "https:" ? "wss:" : "ws:";
    if (this.token) address.searchParams.set("token", await this.#shortToken(headers));
    if (this.#options.confirmed !== undefined) address.searchParams.set("confirmed", this.#options.confirmed);
    await this.#openSocket(address);
  }

  /** Addresses end up in logs, so the token in one is valid for a minute only. */
  async #shortToken(headers) {
    const reply = await fetch(new URL("/v1/identity/websocket-token", this.#base), { method: "POST", headers });
    if (!reply.ok) throw new TineError("refused", `Failed to verify token: ${await reply.text()}`);
    return (await reply.json()).token;
  }

  #openSocket(address) {
    if (this.#state === "closed") throw new TineError("closed", "the connection was closed");
    const socket = new WebSocket(address, PROTOCOLS);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new TineError("refused", "the server did not answer in time"));
        socket.close();
      }, CONNECT_MS_MAX);
      let isAccepted = false;
      const accepted = () => {
        isAccepted = true;
        clearTimeout(timer);
        resolve();
      };
      socket.onopen = () => (this.#isV3 = socket.protocol !== PROTOCOLS[1]);
      socket.onmessage = ({ data }) => this.#receive(socket, data, accepted);
      socket.onclose = ({ code, reason }) => {
        clearTimeout(timer);
        const error = new TineError("lost", reason || `the connection ended with code ${code}`);
        reject(error);
        if (isAccepted && socket === this.#socket) this.#lost(error);
      };
    });
  }

  #receive(socket, data, accepted) {
    if (socket !== this.#socket || this.#state === "closed") return;
    try {
      const bytes = new Uint8Array(data);
      if (bytes[0] !== 0) throw new TineError("protocol", "the server compressed a message");
      const reader = new Reader(bytes.subarray(1));
      while (reader.remaining > 0) this.#handle(reader, accepted);
    } catch (error) {
      this.#end(error instanceof TineError ? error : new TineError("protocol", String(error)));
    }
  }

  /** Reads and carries out one message. */
  #handle(reader, accepted) {
    const tag = reader.u8();
    switch (tag) {
      case 0:
        this.identity = SPECIAL.__identity__.read(reader);
        this.connectionId = SPECIAL.__connection_id__.read(reader);
        this.token = reader.string();
        return accepted();
      case 1: {
        const id = reader.u32();
        reader.u32();
        return this.#apply([queryRows(reader, "inserts")], () => this.#settle(id));
      }
      case 2: {
        const id = reader.u32();
        reader.u32();
        const rows = reader.u8() === 0 ? [queryRows(reader, "deletes")] : [];
        return this.#apply(rows, () => this.#settle(id));
      }
      case 3:
        return this.#subscriptionError(reader);
      case 4:
        return this.#apply(transactionUpdate(reader));
      case 5:
        throw new TineError("protocol", "a query result that was not asked for");
      case 6:
        return this.#reducerResult(reader);
      case 7:
        return this.#procedureResult(reader);
      default:
        throw new TineError("protocol", `unknown message ${tag}`);
    }
  }

  #subscriptionError(reader) {
    const requestId = reader.u8() === 0 ? reader.u32() : null;
    const querySet = reader.u32();
    const error = new TineError("query", reader.string());
    this.#subscriptions.delete(querySet);
    if (requestId === null) throw error;
    this.#settle(requestId, error);
  }

  #reducerResult(reader) {
    const id = reader.u32();
    reader.i64();
    const outcome = reader.u8();
    if (outcome === 0) {
      reader.take(reader.u32());
      return this.#apply(transactionUpdate(reader), () => this.#settle(id));
    }
    if (outcome === 1) return this.#settle(id);
    if (outcome === 2) return this.#settle(id, new TineError("sender", errorText(reader.take(reader.u32()))));
    this.#settle(id, new TineError("internal", reader.string()));
  }

  #procedureResult(reader) {
    const isReturned = reader.u8() === 0;
    const payload = isReturned ? reader.take(reader.u32()).slice() : reader.string();
    reader.i64();
    reader.i64();
    const id = reader.u32();
    if (isReturned) this.#settle(id, null, payload);
    else this.#settle(id, new TineError("internal", payload));
  }

  /**
   * Carries out the row changes of one message, then `settle`s its request, then tells. `updates` is a
   * list of maps from table name to `{ inserts, deletes, events }`, each a list of encoded row lists.
   */
  #apply(updates, settle = () => {}) {
    const changes = new Map();
    const target = this.#fresh ?? this.#tables;
    for (const [name, lists] of mergeUpdates(updates)) {
      const live = this.#live(target, name);
      const rows = list => list.flatMap(bytes => live.decode(bytes));
      const change = live.change(rows(lists.inserts), rows(lists.deletes));
      change.inserts.push(...rows(lists.events).map(({ row }) => row));
      if (!isEmpty(change)) changes.set(name, change);
    }
    settle();
    if (!this.#fresh) this.#tell(changes);
  }

  #tell(changes) {
    if (changes.size === 0) return;
    for (const [name, change] of changes) this.#live(this.#tables, name).tell(change);
    for (const listener of this.#listeners) guarded(() => listener({ tables: changes }));
  }

  #live(tables, name) {
    let live = tables.get(name);
    if (!live) {
      const definition = this.schema.find("tables", name);
      if (!definition) throw new TineError("protocol", `rows of an unknown table "${name}"`);
      live = new LiveTable(definition);
      tables.set(name, live);
    }
    return live;
  }

  /** Sends a request and waits for its reply. */
  #request(send, id) {
    if (this.#socket?.readyState !== WebSocket.OPEN) {
      return Promise.reject(new TineError("lost", "there is no connection now"));
    }
    return new Promise((resolve, reject) => {
      this.#requests.set(id, { resolve, reject });
      send();
    });
  }

  #settle(id, error, value) {
    const request = this.#requests.get(id);
    this.#requests.delete(id);
    if (error) request?.reject(error);
    else request?.resolve(value);
  }

  async #unsubscribe(querySet) {
    if (!this.#subscriptions.delete(querySet)) return;
    const id = this.#nextId++;
    await this.#request(() => {
      const writer = this.#begin(CLIENT.unsubscribe, id);
      writer.u32(querySet);
      writer.u8(1);
      this.#send(writer);
    }, id);
  }

  #sendSubscribe({ id, queries }) {
    const writer = this.#begin(CLIENT.subscribe, id);
    writer.u32(id);
    writer.u32(queries.length);
    for (const query of queries) writer.string(query);
    this.#send(writer);
  }

  #begin(tag, id) {
    const writer = new Writer();
    writer.u8(tag);
    writer.u32(id);
    return writer;
  }

  /** Requests of one turn of the event loop travel together. */
  #send(writer) {
    this.#outgoing.push(writer.finish());
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    queueMicrotask(() => this.#flush());
  }

  #flush() {
    this.#isFlushing = false;
    const waiting = this.#outgoing;
    this.#outgoing = [];
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    for (let first = 0, last; first < waiting.length; first = last) {
      last = first + 1;
      let length = waiting[first].length;
      while (this.#isV3 && last < waiting.length && length + waiting[last].length <= FRAME_BYTES_MAX) {
        length += waiting[last++].length;
      }
      const frame = new Uint8Array(length);
      let at = 0;
      for (const message of waiting.slice(first, last)) {
        frame.set(message, at);
        at += message.length;
      }
      this.#socket.send(frame);
    }
  }

  /** The socket ended by itself. */
  #lost(error) {
    if (this.#state === "closed") return;
    if (!this.#options.reconnect) return this.#end(error);
    this.#failRequests(error);
    this.#fresh = null;
    this.#setState("reconnecting");
    const backoff = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** this.#attempts++);
    // Many clients lose their server at the same moment: they must not all come back at the same.
    setTimeout(() => this.#reconnect(), backoff * (0.5 + Math.random() / 2));
  }

  async #reconnect() {
    if (this.#state === "closed") return;
    try {
      await this.#connect();
      this.#fresh = new Map();
      const renew = subscription =>
        this.#request(() => this.#sendSubscribe(subscription), subscription.id);
      await Promise.all([...this.#subscriptions.values()].map(renew));
    } catch (error) {
      const socket = this.#socket;
      this.#socket = null;
      socket?.close();
      return this.#lost(error);
    }
    this.#attempts = 0;
    this.#replaceTables();
    this.#setState("open");
  }

  /** Shows the rows of the new connection and tells how they differ from those of the old one. */
  #replaceTables() {
    const fresh = this.#fresh;
    this.#fresh = null;
    const changes = new Map();
    for (const name of new Set([...this.#tables.keys(), ...fresh.keys()])) {
      if (!this.schema.find("tables", name)) {
        this.#tables.delete(name);
        continue;
      }
      const change = this.#live(this.#tables, name).become(this.#live(fresh, name));
      if (!isEmpty(change)) changes.set(name, change);
    }
    this.#tell(changes);
  }

  #failRequests(error) {
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    this.#outgoing = [];
    requests.forEach(({ reject }) => reject(error));
  }

  #end(error, isNews = true) {
    if (this.#state === "closed") return;
    this.#socket?.close();
    this.#failRequests(error);
    this.#setState("closed");
    if (isNews) guarded(() => this.#options.onClose?.(error));
  }

  #setState(state) {
    if (this.#state === "closed" || this.#state === state) return;
    this.#state = state;
    guarded(() => this.#options.onState?.(state));
  }
}

// Parts of messages that hold rows.

/** Skips the hint (rows are told apart by decoding them) and returns the bytes of the rows. */
function rowList(reader) {
  if (reader.u8() === 0) reader.u16();
  else reader.take(reader.u32() * 8);
  return reader.take(reader.u32());
}

const noRows = () => ({ inserts: [], deletes: [], events: [] });

function queryRows(reader, kind) {
  const update = new Map();
  for (let count = reader.u32(); count > 0; count--) {
    const name = reader.string();
    if (!update.has(name)) update.set(name, noRows());
    update.get(name)[kind].push(rowList(reader));
  }
  return update;
}

function transactionUpdate(reader) {
  return reader.array(() => {
    reader.u32();
    const update = new Map();
    for (let count = reader.u32(); count > 0; count--) {
      const name = reader.string();
      if (!update.has(name)) update.set(name, noRows());
      const lists = update.get(name);
      for (let parts = reader.u32(); parts > 0; parts--) {
        if (reader.u8() === 0) {
          lists.inserts.push(rowList(reader));
          lists.deletes.push(rowList(reader));
        } else {
          lists.events.push(rowList(reader));
        }
      }
    }
    return update;
  });
}

function mergeUpdates(updates) {
  const merged = new Map();
  for (const [name, lists] of updates.flatMap(update => [...update])) {
    const known = merged.get(name) ?? noRows();
    for (const kind of Object.keys(lists)) known[kind].push(...lists[kind]);
    merged.set(name, known);
  }
  return merged;
}

/** The module's error is a string, unless the module says otherwise. */
function errorText(bytes) {
  try {
    return new Reader(bytes).string();
  } catch {
    return textDecoder.decode(bytes);
  }
}
