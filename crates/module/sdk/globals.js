// What a module finds on the global object besides the language: a console, random numbers and text codecs; the clock is in
// date.js. Runs before any code of the user's, so it may trust the intrinsics; whatever it
// uses later is captured here, because user code may replace anything it can reach.

const { Date: HostDate, Error: HostError, Math: HostMath, Object: HostObject, String: HostString, Symbol: HostSymbol } = globalThis;
const { defineProperty, freeze, getOwnPropertyDescriptors, getOwnPropertyNames, getPrototypeOf } = HostObject;
const isArray = Array.isArray;
const stringify = JSON.stringify;

const { hidden } = native;

for (const name of ["queueMicrotask", "navigator", "Atomics", "SharedArrayBuffer", "gc"]) {
  delete globalThis[name];
}


// Enough of a value to recognise it in a log; deeper or longer parts are elided.
const INSPECT_DEPTH_MAX = 4;
const INSPECT_ITEMS_MAX = 100;

function inspect(value, depth, seen) {
  switch (typeof value) {
    case "string":
      return depth === 0 ? value : stringify(value);
    case "bigint":
      return `${value}n`;
    case "symbol":
      return HostString(value);
    case "function":
      return `[Function: ${value.name || "anonymous"}]`;
    case "object":
      return value === null ? "null" : inspectObject(value, depth, seen);
    default:
      return HostString(value);
  }
}

function inspectObject(value, depth, seen) {
  const short = native.describeValue(value);
  if (short !== undefined) return short;
  if (value instanceof HostError) return value.stack ? `${value}\n${value.stack}`.trimEnd() : `${value}`;
  if (seen.includes(value)) return "[Circular]";
  if (depth >= INSPECT_DEPTH_MAX) return isArray(value) ? "[Array]" : "[Object]";
  const inner = item => inspect(item, depth + 1, [...seen, value]);
  const list = (items, total) => {
    if (total > INSPECT_ITEMS_MAX) items.push(`... ${total - INSPECT_ITEMS_MAX} more`);
    return items.join(", ");
  };
  if (isArray(value) || ArrayBuffer.isView(value)) {
    const name = isArray(value) ? "" : `${value.constructor.name}(${value.length}) `;
    const items = Array.from({ length: HostMath.min(value.length, INSPECT_ITEMS_MAX) }, (_, i) => inner(value[i]));
    return `${name}[${list(items, value.length)}]`;
  }
  if (value instanceof Map) {
    const items = [...value].slice(0, INSPECT_ITEMS_MAX).map(([key, item]) => `${inner(key)} => ${inner(item)}`);
    return `Map(${value.size}) {${list(items, value.size)}}`;
  }
  if (value instanceof Set) {
    return `Set(${value.size}) {${list([...value].slice(0, INSPECT_ITEMS_MAX).map(inner), value.size)}}`;
  }
  if (value instanceof HostDate) return value.toISOString();
  const keys = HostObject.keys(value);
  const items = keys.slice(0, INSPECT_ITEMS_MAX).map(key => `${/^[\w$]+$/.test(key) ? key : stringify(key)}: ${inner(value[key])}`);
  const name = getPrototypeOf(value)?.constructor?.name;
  const prefix = name && name !== "Object" ? `${name} ` : "";
  return items.length === 0 ? `${prefix}{}` : `${prefix}{ ${list(items, keys.length)} }`;
}

const format = items => items.map(item => inspect(item, 0, [])).join(" ");
const LEVELS = { error: 0, warn: 1, info: 2, log: 2, debug: 3, trace: 4, dir: 2, dirxml: 2, table: 2 };
const consoleObject = {};
for (const [name, level] of HostObject.entries(LEVELS)) {
  consoleObject[name] = (...items) => native.log(level, format(items));
}
consoleObject.assert = (condition, ...items) => {
  if (!condition) native.log(0, items.length ? `Assertion failed: ${format(items)}` : "Assertion failed");
};
const counts = new Map();
consoleObject.count = (label = "default") => {
  counts.set(label, (counts.get(label) ?? 0) + 1);
  native.log(2, `${label}: ${counts.get(label)}`);
};
consoleObject.countReset = (label = "default") => void counts.delete(label);
consoleObject.time = (label = "default") => native.startTimer(HostString(label));
consoleObject.timeLog = (label = "default", ...items) => native.readTimer(HostString(label), format(items), false);
consoleObject.timeEnd = (label = "default") => native.readTimer(HostString(label), "", true);
// They exist so that code that uses them runs.
for (const name of ["clear", "group", "groupCollapsed", "groupEnd", "timeStamp", "profile", "profileEnd"]) {
  consoleObject[name] = () => {};
}
hidden(globalThis, "console", consoleObject);


hidden(HostMath, "random", native.random);


class TextEncoder {
  get encoding() { return "utf-8"; }
  encode(text = "") { return native.encodeUtf8(`${text}`); }
  encodeInto(text, target) {
    let read = 0;
    let written = 0;
    for (const character of `${text}`) {
      const bytes = native.encodeUtf8(character);
      if (written + bytes.length > target.length) break;
      target.set(bytes, written);
      written += bytes.length;
      read += character.length;
    }
    return { read, written };
  }
}

class TextDecoder {
  #fatal;
  #ignoreBom;
  constructor(label = "utf-8", options = {}) {
    if (!/^\s*(utf-?8|unicode-1-1-utf-8)\s*$/i.test(label)) throw new RangeError(`TextDecoder: unsupported encoding "${label}"`);
    this.#fatal = !!options.fatal;
    this.#ignoreBom = !!options.ignoreBOM;
  }
  get encoding() { return "utf-8"; }
  get fatal() { return this.#fatal; }
  get ignoreBOM() { return this.#ignoreBom; }
  decode(input, options = {}) {
    if (options.stream) throw new TypeError("TextDecoder: streaming is not supported");
    if (input === undefined) return "";
    if (input instanceof DataView) input = new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
    return native.decodeUtf8(input, this.#fatal, this.#ignoreBom);
  }
}
hidden(globalThis, "TextEncoder", TextEncoder);
hidden(globalThis, "TextDecoder", TextDecoder);
