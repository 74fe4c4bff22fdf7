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
import { isEmpty, guarded, LiveTable, mergeUpdates, queryRows, transactionUpdate } from "./rows.js";
import { Reader, Schema, SPECIAL, TineError, Writer } from "./schema.js";

export { Schema, snakeCase, TineError } from "./schema.js";

const PROTOCOLS = ["v3.bsatn.spacetimedb", "v2.bsatn.spacetimedb"];
/** Bytes of requests packed into one frame; a larger request travels alone. */
const FRAME_BYTES_MAX = 256 * 1024;
const BACKOFF_MS_MIN = 100;
const BACKOFF_MS_MAX = 10_000;
/** A handshake that takes longer has failed. */
const CONNECT_MS_MAX = 15_000;

/** Opens a connection; resolves when the server has accepted it. See `client.d.ts` for the options. */
export async function connect(options) {
  const connection = new Connection(options);
  await connection.open();
  return connection;
}

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

/** The module's error is a string, unless the module says otherwise. */
function errorText(bytes) {
  try {
    return new Reader(bytes).string();
  } catch {
    return new TextDecoder().decode(bytes);
  }
}
