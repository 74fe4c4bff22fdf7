/** How values of a type are written and read; generated code puts codecs together from these. */
import { DecodeError, EncodeError } from "./errors.js";
import type { Reader, Writer } from "./msgpack.js";

/** How values of one type are written and read. */
export interface Codec<T> {
  /** Appends a value. */
  write(writer: Writer, value: T): void;
  /** Reads a value. */
  read(reader: Reader): T;
  /** What a value takes in memory, about, beside text and bytes. */
  readonly memoryBytes: number;
  /** Whether a field of this type may be missing. */
  readonly isOptional?: boolean;
}

/** A field of a structure: its name on the wire, and its type. */
export interface Field<T> {
  readonly name: string;
  readonly codec: Codec<T>;
}

const NUMBER_BYTES = 8;
const REFERENCE_BYTES = 32;

function unsigned(max: number): Codec<number> {
  return {
    write: (writer, value) => writer.unsigned(value, max),
    read: (reader) => reader.unsigned(max),
    memoryBytes: NUMBER_BYTES,
  };
}

/** `true` or `false`. */
export const bool: Codec<boolean> = {
  write: (writer, value) => writer.boolean(value),
  read: (reader) => reader.boolean(),
  memoryBytes: NUMBER_BYTES,
};

/** An integer from 0 to 255. */
export const u8 = unsigned(0xff);

/** An integer from 0 to 65,535. */
export const u16 = unsigned(0xffff);

/** An integer from 0 to 4,294,967,295. */
export const u32 = unsigned(0xffff_ffff);

/** An integer from 0 to 2^64 - 1. */
export const u64: Codec<bigint> = {
  write: (writer, value) => writer.unsigned64(value),
  read: (reader) => reader.unsigned64(),
  memoryBytes: REFERENCE_BYTES,
};

/** A float. */
export const f64: Codec<number> = {
  write: (writer, value) => writer.float(value),
  read: (reader) => reader.float(),
  memoryBytes: NUMBER_BYTES,
};

/** Text. */
export const string: Codec<string> = {
  write: (writer, value) => writer.string(value),
  read: (reader) => reader.string(),
  memoryBytes: REFERENCE_BYTES,
};

/** Bytes. */
export const bytes: Codec<Uint8Array> = {
  write: (writer, value) => writer.binary(value),
  read: (reader) => reader.binary(),
  memoryBytes: 2 * REFERENCE_BYTES,
};

/** Exactly so many bytes. */
export function binary(length: number): Codec<Uint8Array> {
  return {
    write(writer, value) {
      checkLength(value.length, length);
      writer.binary(value);
    },
    read(reader) {
      const value = reader.binary();
      if (value.length !== length) {
        throw wrongLength(length, value.length);
      }
      return value;
    },
    memoryBytes: 2 * REFERENCE_BYTES,
  };
}

/** Exactly so many bytes, in a class of their own. */
export function nominal<T extends { readonly bytes: Uint8Array }>(
  type: new (bytes: Uint8Array) => T,
  length: number,
): Codec<T> {
  const inner = binary(length);
  return {
    write: (writer, value) => inner.write(writer, value.bytes),
    read: (reader) => new type(inner.read(reader)),
    memoryBytes: 3 * REFERENCE_BYTES,
  };
}

/** A value, or `undefined`. */
export function optional<T>(inner: Codec<T>): Codec<T | undefined> {
  return {
    write(writer, value) {
      if (value === undefined) {
        writer.nil();
      } else {
        inner.write(writer, value);
      }
    },
    read: (reader) => (reader.takeNil() ? undefined : inner.read(reader)),
    memoryBytes: inner.memoryBytes,
    isOptional: true,
  };
}

/** Any number of values. */
export function list<T>(inner: Codec<T>): Codec<T[]> {
  return {
    write(writer, values) {
      writer.array(values.length);
      for (const value of values) {
        inner.write(writer, value);
      }
    },
    read(reader) {
      return readElements(reader, inner, reader.array(inner.memoryBytes));
    },
    memoryBytes: REFERENCE_BYTES,
  };
}

/** Exactly so many values. */
export function array<T>(inner: Codec<T>, length: number): Codec<T[]> {
  const any = list(inner);
  return {
    write(writer, values) {
      checkLength(values.length, length);
      any.write(writer, values);
    },
    read(reader) {
      const count = reader.array(inner.memoryBytes);
      if (count !== length) {
        throw wrongLength(length, count);
      }
      return readElements(reader, inner, count);
    },
    memoryBytes: REFERENCE_BYTES + inner.memoryBytes * length,
  };
}

function readElements<T>(reader: Reader, inner: Codec<T>, count: number): T[] {
  const values: T[] = [];
  for (let index = 0; index < count; index++) {
    values.push(inner.read(reader));
  }
  return values;
}

function wrongLength(expected: number, found: number): DecodeError {
  return new DecodeError("TN1045", `expected ${expected} elements, found ${found}`);
}

function checkLength(found: number, expected: number): void {
  if (found !== expected) {
    throw new EncodeError(`${found} elements where exactly ${expected} are needed`);
  }
}

/** A field of that name on the wire. */
export function field<T>(name: string, codec: Codec<T>): Field<T> {
  return { name, codec };
}

/** Named fields, written in the order in which they are given. */
export function structure<T extends object>(fields: { [K in keyof T]-?: Field<T[K]> }): Codec<T> {
  const keys = Object.keys(fields) as (keyof T)[];
  const parts = keys.map((key) => fields[key] as Field<unknown>);
  const places = new Map(parts.map((part, index) => [part.name, index]));
  const write = (writer: Writer, value: T): void => {
    writer.map(parts.length);
    parts.forEach((part, index) => {
      writer.string(part.name);
      part.codec.write(writer, value[keys[index]!]);
    });
  };
  const read = (reader: Reader): T => {
    const values: unknown[] = new Array(parts.length).fill(undefined);
    const seen: boolean[] = new Array(parts.length).fill(false);
    for (let left = reader.map(); left > 0; left--) {
      const place = places.get(reader.string());
      if (place === undefined) {
        reader.skip();
        continue;
      }
      const part = parts[place]!;
      if (seen[place]) {
        throw new DecodeError("TN1049", `field \`${part.name}\` appears twice`);
      }
      seen[place] = true;
      values[place] = part.codec.read(reader);
    }
    const value = {} as T;
    parts.forEach((part, index) => {
      if (!seen[index] && part.codec.isOptional !== true) {
        throw new DecodeError("TN1048", `field \`${part.name}\` is missing`);
      }
      value[keys[index]!] = values[index] as T[keyof T];
    });
    return value;
  };
  const memoryBytes = parts.reduce((sum, part) => sum + part.codec.memoryBytes, REFERENCE_BYTES);
  return { write, read, memoryBytes };
}
