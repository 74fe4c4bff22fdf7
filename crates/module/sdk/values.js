// The value classes. Their constructors and accessors are native, because a value holds its number outside the
// JavaScript heap (no big integer is made until somebody asks for one); the rest of their methods is here.

const { Identity, ConnectionId, Timestamp, TimeDuration, Uuid } = native;

function extend(Class, instance, statics) {
  native.hiddenMembers(Class.prototype, instance);
  native.hiddenMembers(Class, statics);
}

const MICROS_PER_MILLI = 1000n;

extend(Identity, {
  isEqual(other) { return native.sameWide(this, other); },
  equals(other) { return native.sameWide(this, other); },
  toHexString() { return native.wideHex(this); },
  toString() { return native.wideHex(this); },
  toJSON() { return native.wideHex(this); },
  toUint8Array() { return native.wideBytes(this); },
}, {
  fromString(text) { return new Identity(`${text}`); },
  zero() { return new Identity(0n); },
});

extend(ConnectionId, {
  isEqual(other) { return native.sameWide(this, other); },
  equals(other) { return native.sameWide(this, other); },
  isZero() { return this.__connection_id__ === 0n; },
  toHexString() { return native.wideHex(this); },
  toString() { return native.wideHex(this); },
  toJSON() { return native.wideHex(this); },
  toUint8Array() { return native.wideBytes(this); },
}, {
  fromString(text) { return new ConnectionId(native.parseHex(`${text}`)); },
  fromStringOrNull(text) { return ConnectionId.nullIfZero(ConnectionId.fromString(text)); },
  nullIfZero(id) { return id.isZero() ? null : id; },
  random() { return new ConnectionId(native.randomBits(128)); },
});

const dateOf = (time, what) => {
  const date = new HostDate(Number(time.toMillis()));
  if (isInvalid(date)) throw new RangeError(`the timestamp is outside the range of ${what}`);
  return date;
};

extend(Timestamp, {
  get microsSinceUnixEpoch() { return this.__timestamp_micros_since_unix_epoch__; },
  toMillis() { return this.__timestamp_micros_since_unix_epoch__ / MICROS_PER_MILLI; },
  toDate() { return dateOf(this, "Date"); },
  toISOString() {
    const micros = this.__timestamp_micros_since_unix_epoch__;
    const rest = ((micros % 1_000_000n) + 1_000_000n) % 1_000_000n;
    const seconds = new HostDate(Number((micros - rest) / MICROS_PER_MILLI));
    if (isInvalid(seconds)) throw new RangeError("the timestamp is outside the range of ISO dates");
    return `${seconds.toISOString().slice(0, -4)}${HostString(rest).padStart(6, "0")}Z`;
  },
  toString() { return this.toISOString(); },
  toJSON() { return this.toISOString(); },
  since(other) {
    return new TimeDuration(this.__timestamp_micros_since_unix_epoch__ - other.__timestamp_micros_since_unix_epoch__);
  },
}, {
  now() { return native.timestamp(); },
  fromDate(date) { return new Timestamp(BigInt(date.getTime()) * MICROS_PER_MILLI); },
  UNIX_EPOCH: new Timestamp(0n),
});

extend(TimeDuration, {
  get micros() { return this.__time_duration_micros__; },
  get millis() { return Number(this.__time_duration_micros__ / MICROS_PER_MILLI); },
  toString() {
    const micros = this.__time_duration_micros__;
    const size = micros < 0n ? -micros : micros;
    return `${micros < 0n ? "-" : "+"}${size / 1_000_000n}.${HostString(size % 1_000_000n).padStart(6, "0")}`;
  },
  toJSON() { return this.toString(); },
}, {
  fromMillis(millis) { return new TimeDuration(BigInt(millis) * MICROS_PER_MILLI); },
});

const UUID_BITS_MAX = (1n << 128n) - 1n;
const bigFromBytes = bytes => bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
const checkLength = (bytes, length, what) => {
  if (bytes.length !== length) throw new Error(`${what} needs exactly ${length} random bytes`);
};

extend(Uuid, {
  asBigInt() { return this.__uuid__; },
  toHexString() { return native.wideHex(this); },
  toBytes() { return native.wideBytes(this).reverse(); },
  toString() {
    const hex = native.wideHex(this);
    return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
  },
  toJSON() { return this.toString(); },
  isEqual(other) { return native.sameWide(this, other); },
  compareTo(other) {
    const [mine, theirs] = [this.__uuid__, other.__uuid__];
    return mine < theirs ? -1 : mine > theirs ? 1 : 0;
  },
  getVersion() {
    const version = this.toBytes()[6] >> 4;
    if (version === 4) return "V4";
    if (version === 7) return "V7";
    if (this.__uuid__ === 0n) return "Nil";
    if (this.__uuid__ === UUID_BITS_MAX) return "Max";
    throw new Error(`UUID version ${version} is not supported`);
  },
  getCounter() {
    const bytes = this.toBytes();
    return (bytes[7] << 23) | (bytes[9] << 15) | (bytes[10] << 7) | (bytes[11] >>> 1);
  },
}, {
  MAX_UUID_BIGINT: UUID_BITS_MAX,
  NIL: new Uuid(0n),
  MAX: new Uuid(UUID_BITS_MAX),
  parse(text) { return new Uuid(native.parseUuid(`${text}`)); },
  fromRandomBytesV4(random) {
    checkLength(random, 16, "a version 4 UUID");
    const bytes = Uint8Array.from(random);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    return new Uuid(bigFromBytes(bytes));
  },
  // Layout: 48 bits of milliseconds, version, then 31 bits of counter around the variant, then 31 random bits.
  fromCounterV7(counter, now, random) {
    checkLength(random, 4, "a version 7 UUID");
    const count = counter.value;
    if (count < 0) throw new Error("the counter of a version 7 UUID cannot be negative");
    const millis = now.toMillis();
    if (millis < 0n) throw new Error("a version 7 UUID cannot be older than the Unix epoch");
    counter.value = (count + 1) & 0x7fff_ffff;
    const bytes = new Uint8Array(16);
    for (let i = 0; i < 6; i++) bytes[i] = Number((millis >> BigInt(40 - 8 * i)) & 0xffn);
    bytes[6] = 0x70;
    bytes[7] = count >>> 23;
    bytes[8] = 0x80;
    bytes[9] = count >>> 15;
    bytes[10] = count >>> 7;
    bytes[11] = (count & 0x7f) << 1;
    bytes[12] = random[0] & 0x7f;
    bytes.set([random[1], random[2], random[3]], 13);
    return new Uuid(bigFromBytes(bytes));
  },
});

const ScheduleAt = freeze({
  interval: micros => ({ tag: "Interval", value: new TimeDuration(micros) }),
  time: micros => ({ tag: "Time", value: new Timestamp(micros) }),
});

class Range {
  #from;
  #to;
  constructor(from, to) {
    this.#from = from ?? { tag: "unbounded" };
    this.#to = to ?? { tag: "unbounded" };
  }
  get from() { return this.#from; }
  get to() { return this.#to; }
  static bounds(range) { return #from in range ? [range.#from, range.#to] : undefined; }
}
const rangeBounds = Range.bounds;
delete Range.bounds;


class SenderError extends Error {
  constructor(message) { super(message); }
  get name() { return "SenderError"; }
}

class SpacetimeHostError extends Error {
  constructor(message) { super(message); }
  get name() { return "SpacetimeHostError"; }
}

const ERROR_CODES = {
  HostCallFailure: 1, NotInTransaction: 2, BsatnDecodeError: 3, NoSuchTable: 4, NoSuchIndex: 5, NoSuchIter: 6,
  NoSuchConsoleTimer: 7, NoSuchBytes: 8, NoSpace: 9, BufferTooSmall: 11, UniqueAlreadyExists: 12,
  ScheduleAtDelayTooLong: 13, IndexNotUnique: 14, NoSuchRow: 15, AutoIncOverflow: 16, WouldBlockTransaction: 17,
  TransactionNotAnonymous: 18, TransactionIsReadOnly: 19, TransactionIsMut: 20, HttpError: 21,
};
const errors = {};
const errorByCode = [];
for (const [name, code] of HostObject.entries(ERROR_CODES)) {
  const Class = class extends SpacetimeHostError {
    get name() { return name; }
  };
  errors[name] = errorByCode[code] = defineProperty(Class, "name", { value: name });
}
freeze(errors);
