/**
 * What bytes mean: the BSATN reader and writer, codecs made from a database's types, and the schema.
 *
 * A codec is `{ read(reader), write(writer, value) }`; it is made once per type. Everything read comes
 * from the server but is checked all the same: a length beyond the message is an error, not a loop.
 */

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

const textDecoder = new TextDecoder("utf-8", { fatal: true });
const textEncoder = new TextEncoder();

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
export const SPECIAL = {
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

/** The type of the rows that a view returns: an array or option of them, or a product of one field that names it. */
function viewRow(type, typespace) {
  const returned = type.Ref === undefined ? type : typespace[type.Ref];
  if (returned.Array) return returned.Array;
  if (returned.Sum) return returned.Sum.variants[0].algebraic_type;
  return returned.Product.elements[0].algebraic_type;
}

/** Tables, views and functions of a database and of the modules within it, from `GET schema?version=10`. */
export class Schema {
  /** Views are tables, too: their rows come like those of tables. */
  tables = new Map();
  reducers = new Map();
  procedures = new Map();

  constructor(definition) {
    this.#add(definition.sections, "");
  }

  #add(sections, prefix) {
    const section = name => sections.find(section => name in section)?.[name];
    const typespace = section("Typespace")?.types ?? [];
    const keepsCase = "None" in (section("CaseConversionPolicy") ?? {});
    const convert = keepsCase ? name => name : snakeCase;
    const explicit = section("ExplicitNames")?.entries ?? [];
    const canonical = (kind, source) =>
      explicit.find(entry => entry[kind]?.source_name === source)?.[kind].canonical_name ?? convert(source);
    const add = (items, kind, source_name, rest) => {
      const name = prefix + canonical(kind, source_name);
      items.set(name, { name, source: prefix + source_name, ...rest });
    };
    for (const table of section("Tables") ?? []) {
      const row = codecOf({ Ref: table.product_type_ref }, typespace, convert);
      add(this.tables, "Table", table.source_name, { row, key: table.primary_key });
    }
    const keys = section("ViewPrimaryKeys") ?? [];
    for (const { source_name, return_type } of section("Views") ?? []) {
      const row = codecOf(viewRow(return_type, typespace), typespace, convert);
      const columns = keys.find(key => key.view_source_name === source_name)?.columns ?? [];
      const key = columns.map(column => row.fields.findIndex(field => [field.source, field.name].includes(column)));
      add(this.tables, "Function", source_name, { row, key });
    }
    const addFunctions = (items, section) => {
      for (const { source_name, params, return_type } of section ?? []) {
        const parameters = codecOf({ Product: params }, typespace, convert);
        const returns = return_type && codecOf(return_type, typespace, convert);
        add(items, "Function", source_name, { parameters, returns });
      }
    };
    addFunctions(this.reducers, section("Reducers"));
    addFunctions(this.procedures, section("Procedures"));
    for (const { namespace, module } of section("Submodules") ?? []) {
      this.#add(module.sections, `${prefix}${namespace}.`);
    }
  }

  find(kind, name) {
    const found = this[kind].get(name);
    return found ?? [...this[kind].values()].find(({ source }) => source === name);
  }
}
