/**
 * The npm SDK's codec on a pipe. A line in is `{ type, bsatn, json }`: a type as SATS-JSON, a value in hexadecimal BSATN, and the value
 * as SATS-JSON text. A line out is `{ again, fromJson, json }`: the bytes decoded and encoded again, the bytes of the value read from
 * the JSON, and the decoded value as JSON text. Only BSATN is the SDK's own; its values are turned into JSON and back here.
 */
import { createInterface } from "node:readline";
import { AlgebraicType, BinaryReader, BinaryWriter, ConnectionId, Identity, TimeDuration, Timestamp, Uuid } from "spacetimedb";

/** The SDK's form of a type in SATS-JSON. */
function typeOf(json) {
  const [[tag, payload]] = Object.entries(json);
  const member = ({ name, algebraic_type }) => ({ name: name.some, algebraicType: typeOf(algebraic_type) });
  if (tag === "Product") return AlgebraicType.Product({ elements: payload.elements.map(member) });
  if (tag === "Sum") return AlgebraicType.Sum({ variants: payload.variants.map(member) });
  if (tag === "Array") return AlgebraicType.Array(typeOf(payload));
  return AlgebraicType[tag];
}

const SPECIAL = {
  __identity__: { inner: value => value.__identity__, outer: value => new Identity(value) },
  __connection_id__: { inner: value => value.__connection_id__, outer: value => new ConnectionId(value) },
  __timestamp_micros_since_unix_epoch__: { inner: value => value.microsSinceUnixEpoch, outer: value => new Timestamp(value) },
  __time_duration_micros__: { inner: value => value.micros, outer: value => new TimeDuration(value) },
  __uuid__: { inner: value => value.__uuid__, outer: value => new Uuid(value) },
};

const special = type => (type.value.elements.length === 1 ? SPECIAL[type.value.elements[0].name] : undefined);
const names = type => type.value.variants.map(variant => variant.name).join();
const hex = bytes => Buffer.from(bytes).toString("hex");

function toJson(type, value) {
  switch (type.tag) {
    case "Product": {
      const kind = special(type);
      const fields = type.value.elements.map(({ name, algebraicType }) => {
        return `${JSON.stringify(name)}:${toJson(algebraicType, kind ? kind.inner(value) : value[name])}`;
      });
      return fields.length === 0 ? "[]" : `{${fields.join()}}`;
    }
    case "Sum": {
      const variant = name => type.value.variants.find(variant => variant.name === name).algebraicType;
      const one = (name, payload) => `{${JSON.stringify(name)}:${toJson(variant(name), payload)}}`;
      if (names(type) === "some,none") return value === undefined ? one("none", {}) : one("some", value);
      if (names(type) === "ok,err") return "ok" in value ? one("ok", value.ok) : one("err", value.err);
      return one(value.tag, value.value);
    }
    case "Array":
      if (type.value.tag === "U8") return JSON.stringify(hex(value));
      return `[${value.map(item => toJson(type.value, item)).join()}]`;
    case "U256":
    case "I256": {
      const magnitude = (value < 0n ? -value : value).toString(16).padStart(64, "0");
      return JSON.stringify(`${value < 0n ? "-" : ""}0x${magnitude}`);
    }
    case "F32":
    case "F64":
      if (!Number.isFinite(value)) return JSON.stringify(String(value));
      return Object.is(value, -0) ? "-0.0" : JSON.stringify(value);
    case "String":
    case "Bool":
      return JSON.stringify(value);
    default:
      return String(value);
  }
}

/** JSON whose long whole numbers are strings, so that no digit is lost. */
const parse = text =>
  JSON.parse(text.replace(/"(?:[^"\\]|\\.)*"|(?<![\d.])-?\d{16,}(?![\d.eE])/g, part => (part[0] === '"' ? part : `"${part}"`)));

function fromJson(type, json) {
  switch (type.tag) {
    case "Product": {
      const kind = special(type);
      const entries = type.value.elements.map(({ name, algebraicType }) => [name, fromJson(algebraicType, json[name])]);
      return kind ? kind.outer(entries[0][1]) : Object.fromEntries(entries);
    }
    case "Sum": {
      const [[name, payload]] = Object.entries(json);
      const value = fromJson(type.value.variants.find(variant => variant.name === name).algebraicType, payload);
      if (names(type) === "some,none") return name === "some" ? value : undefined;
      return names(type) === "ok,err" ? { [name]: value } : { tag: name, value };
    }
    case "Array":
      if (type.value.tag === "U8") return new Uint8Array(Buffer.from(json, "hex"));
      return json.map(item => fromJson(type.value, item));
    case "U256":
    case "I256":
      return json.startsWith("-") ? -BigInt(json.slice(1)) : BigInt(json);
    case "I64":
    case "U64":
    case "I128":
    case "U128":
      return BigInt(json);
    case "F32":
    case "F64":
      return Number(json);
    default:
      return json;
  }
}

function bytesOf(type, value) {
  const writer = new BinaryWriter(64);
  AlgebraicType.makeSerializer(type)(writer, value);
  return hex(writer.getBuffer());
}

for await (const line of createInterface({ input: process.stdin })) {
  const { type: typeJson, bsatn, json } = JSON.parse(line);
  try {
    const type = typeOf(typeJson);
    const value = AlgebraicType.makeDeserializer(type)(new BinaryReader(new Uint8Array(Buffer.from(bsatn, "hex"))));
    const answer = { again: bytesOf(type, value), fromJson: bytesOf(type, fromJson(type, parse(json))), json: toJson(type, value) };
    console.log(JSON.stringify(answer));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error.stack) }));
  }
}
