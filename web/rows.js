/**
 * Live rows: the tables of one connection, and the parts of messages that change them.
 *
 * Invariants:
 * - A row is identified by its bytes and counted once per query that selects it.
 * - Within one message rows come before they go, so a row that only moved between queries never
 *   disappears in between.
 */
import { Reader, Writer } from "./schema.js";

/** Not really Latin-1, but it maps all 256 bytes to different characters, which is what a key needs. */
const keyDecoder = new TextDecoder("latin1");

/** The rows of one table that the subscriptions of a connection select. */
export class LiveTable {
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
export function guarded(run) {
  try {
    run();
  } catch (error) {
    reportError(error);
  }
}

export const isEmpty = ({ inserts, updates, deletes }) => inserts.length + updates.length + deletes.length === 0;

/** Skips the hint (rows are told apart by decoding them) and returns the bytes of the rows. */
function rowList(reader) {
  if (reader.u8() === 0) reader.u16();
  else reader.take(reader.u32() * 8);
  return reader.take(reader.u32());
}

const noRows = () => ({ inserts: [], deletes: [], events: [] });

export function queryRows(reader, kind) {
  const update = new Map();
  for (let count = reader.u32(); count > 0; count--) {
    const name = reader.string();
    if (!update.has(name)) update.set(name, noRows());
    update.get(name)[kind].push(rowList(reader));
  }
  return update;
}

export function transactionUpdate(reader) {
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

export function mergeUpdates(updates) {
  const merged = new Map();
  for (const [name, lists] of updates.flatMap(update => [...update])) {
    const known = merged.get(name) ?? noRows();
    for (const kind of Object.keys(lists)) known[kind].push(...lists[kind]);
    merged.set(name, known);
  }
  return merged;
}
