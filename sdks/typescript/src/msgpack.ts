/**
 * The MessagePack of services: every value in its smallest form, and a reader that trusts no length.
 *
 * Nothing here recurses along data, and what elements of lists will take in memory is charged against a
 * multiple of the data's size before it is allocated.
 */
import { DecodeError, EncodeError } from "./errors.js";

/** Memory that elements may take per byte of data, and beside it. */
const MEMORY_PER_BYTE = 64;
const MEMORY_FREE_BYTES = 64 << 10;

/** First size of a writer's buffer: most messages are smaller. */
const RESERVED_BYTES = 256;

const textDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Appends values in their smallest form. */
export class Writer {
  #buffer = Buffer.allocUnsafe(RESERVED_BYTES);
  #length = 0;

  /** The bytes written. */
  bytesWritten(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  /** Writes the absent value. */
  nil(): void {
    this.#byte(0xc0);
  }

  /** Writes a boolean. */
  boolean(value: boolean): void {
    this.#byte(value ? 0xc3 : 0xc2);
  }

  /** Writes an integer from 0 to `max`, which is at most 2^32 - 1. */
  unsigned(value: number, max: number): void {
    if (!Number.isInteger(value) || value < 0 || value > max) {
      throw new EncodeError(`${value} is no integer from 0 to ${max}`);
    }
    if (value < 0x80) {
      this.#byte(value);
    } else if (value <= 0xff) {
      this.#marked(0xcc, value, 1);
    } else if (value <= 0xffff) {
      this.#marked(0xcd, value, 2);
    } else {
      this.#marked(0xce, value, 4);
    }
  }

  /** Writes an integer of 64 bits. */
  unsigned64(value: bigint): void {
    if (typeof value !== "bigint" || value < 0n || value > 0xffff_ffff_ffff_ffffn) {
      throw new EncodeError(`${value} is no bigint from 0n to 2n ** 64n - 1n`);
    }
    if (value <= 0xffff_ffffn) {
      this.unsigned(Number(value), 0xffff_ffff);
      return;
    }
    this.#reserve(9);
    this.#buffer[this.#length] = 0xcf;
    this.#buffer.writeBigUInt64BE(value, this.#length + 1);
    this.#length += 9;
  }

  /** Writes a float; always 64 bits wide. */
  float(value: number): void {
    if (typeof value !== "number") {
      throw new EncodeError(`${String(value)} is no number`);
    }
    this.#reserve(9);
    this.#buffer[this.#length] = 0xcb;
    this.#buffer.writeDoubleBE(value, this.#length + 1);
    this.#length += 9;
  }

  /** Writes a string. */
  string(value: string): void {
    const length = Buffer.byteLength(value, "utf8");
    if (length < 0x20) {
      this.#byte(0xa0 | length);
    } else if (length <= 0xff) {
      this.#marked(0xd9, length, 1);
    } else {
      this.#long(0xda, length);
    }
    this.#reserve(length);
    this.#buffer.write(value, this.#length, "utf8");
    this.#length += length;
  }

  /** Writes a byte string. */
  binary(value: Uint8Array): void {
    const length = value.length;
    if (length <= 0xff) {
      this.#marked(0xc4, length, 1);
    } else {
      this.#long(0xc5, length);
    }
    this.#reserve(length);
    this.#buffer.set(value, this.#length);
    this.#length += length;
  }

  /** Writes the head of an array; its elements follow. */
  array(length: number): void {
    if (length < 0x10) {
      this.#byte(0x90 | length);
    } else {
      this.#long(0xdc, length);
    }
  }

  /** Writes the head of a map; its keys and values follow by turns. */
  map(length: number): void {
    if (length < 0x10) {
      this.#byte(0x80 | length);
    } else {
      this.#long(0xde, length);
    }
  }

  #byte(value: number): void {
    this.#reserve(1);
    this.#buffer[this.#length++] = value;
  }

  #marked(marker: number, value: number, bytes: number): void {
    this.#reserve(1 + bytes);
    this.#buffer[this.#length] = marker;
    this.#buffer.writeUIntBE(value, this.#length + 1, bytes);
    this.#length += 1 + bytes;
  }

  /** A length of 16 or 32 bits; the marker of the latter is the next one. */
  #long(marker: number, length: number): void {
    if (length <= 0xffff) {
      this.#marked(marker, length, 2);
    } else {
      this.#marked(marker + 1, length, 4);
    }
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes;
    if (needed > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2));
      this.#buffer.copy(larger, 0, 0, this.#length);
      this.#buffer = larger;
    }
  }
}

/** Reads values one after the other. */
export class Reader {
  readonly #buffer: Buffer;
  #position = 0;
  #memoryLeft: number;

  /** A reader at the start of `data`. */
  constructor(data: Uint8Array) {
    this.#buffer = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    this.#memoryLeft = data.byteLength * MEMORY_PER_BYTE + MEMORY_FREE_BYTES;
  }

  /** Checks that nothing is left. */
  finish(): void {
    const count = this.#buffer.length - this.#position;
    if (count > 0) {
      throw new DecodeError("TN1051", `${count} bytes left after the value, which ends at byte ${this.#position}`);
    }
  }

  /** Whether the next value is the absent one, which is then taken. */
  takeNil(): boolean {
    const isNil = this.#buffer[this.#position] === 0xc0;
    if (isNil) {
      this.#position += 1;
    }
    return isNil;
  }

  /** Reads a boolean. */
  boolean(): boolean {
    const marker = this.#marker();
    if (marker !== 0xc2 && marker !== 0xc3) {
      throw this.#wrong("a boolean", marker);
    }
    return marker === 0xc3;
  }

  /** Reads an integer of any width from 0 to `max`, which is at most 2^32 - 1. */
  unsigned(max: number): number {
    const position = this.#position;
    const value = this.#integer();
    if (value < 0 || value > max) {
      throw new DecodeError("TN1043", `${value} at byte ${position} is out of range: at most ${max} fits`);
    }
    return Number(value);
  }

  /** Reads an integer of any width from 0 to 2^64 - 1. */
  unsigned64(): bigint {
    const position = this.#position;
    const value = BigInt(this.#integer());
    if (value < 0n) {
      throw new DecodeError("TN1043", `${value} at byte ${position} is out of range: it is negative`);
    }
    return value;
  }

  #integer(): number | bigint {
    const marker = this.#marker();
    if (marker < 0x80) {
      return marker;
    }
    if (marker >= 0xe0) {
      return marker - 0x100;
    }
    switch (marker) {
      case 0xcc:
        return this.#unsignedOf(1);
      case 0xcd:
        return this.#unsignedOf(2);
      case 0xce:
        return this.#unsignedOf(4);
      case 0xcf:
        return this.#buffer.readBigUInt64BE(this.#take(8));
      case 0xd0:
        return this.#buffer.readInt8(this.#take(1));
      case 0xd1:
        return this.#buffer.readInt16BE(this.#take(2));
      case 0xd2:
        return this.#buffer.readInt32BE(this.#take(4));
      case 0xd3:
        return this.#buffer.readBigInt64BE(this.#take(8));
      default:
        throw this.#wrong("an integer", marker);
    }
  }

  /** Reads a float, or a whole number in its place. */
  float(): number {
    const marker = this.#buffer[this.#position];
    if (marker === 0xcb) {
      this.#position += 1;
      return this.#buffer.readDoubleBE(this.#take(8));
    }
    if (marker === 0xca) {
      this.#position += 1;
      return this.#buffer.readFloatBE(this.#take(4));
    }
    return Number(this.#integer());
  }

  /** Reads a string. */
  string(): string {
    const length = this.#stringLength();
    const start = this.#take(length);
    try {
      return textDecoder.decode(this.#buffer.subarray(start, start + length));
    } catch {
      throw new DecodeError("TN1044", `string at byte ${start} is not valid UTF-8`);
    }
  }

  #stringLength(): number {
    const marker = this.#marker();
    if (marker >= 0xa0 && marker < 0xc0) {
      return marker & 0x1f;
    }
    if (marker < 0xd9 || marker > 0xdb) {
      throw this.#wrong("a string", marker);
    }
    return this.#unsignedOf(1 << (marker - 0xd9));
  }

  /** Reads a byte string into memory of its own. */
  binary(): Uint8Array {
    const marker = this.#marker();
    if (marker < 0xc4 || marker > 0xc6) {
      throw this.#wrong("a byte string", marker);
    }
    const length = this.#unsignedOf(1 << (marker - 0xc4));
    const start = this.#take(length);
    return Uint8Array.prototype.slice.call(this.#buffer, start, start + length);
  }

  /** Reads the head of an array whose elements take about so many bytes each in memory. */
  array(elementBytes: number): number {
    const count = this.#count(0x90, 0xdc, "an array");
    this.#bound(count, count);
    this.#memoryLeft -= count * elementBytes;
    if (this.#memoryLeft < 0) {
      throw new DecodeError("TN1047", `the value at byte ${this.#position} would take too much memory for its size on the wire`);
    }
    return count;
  }

  /** Reads the head of a map: how many keys and values follow. */
  map(): number {
    const count = this.#count(0x80, 0xde, "a map");
    this.#bound(count, count * 2);
    return count;
  }

  #count(fix: number, marker16: number, expected: string): number {
    const marker = this.#marker();
    if ((marker & 0xf0) === fix) {
      return marker & 0xf;
    }
    if (marker !== marker16 && marker !== marker16 + 1) {
      throw this.#wrong(expected, marker);
    }
    return this.#unsignedOf(marker === marker16 ? 2 : 4);
  }

  #bound(count: number, values: number): void {
    if (values > this.#buffer.length - this.#position) {
      throw new DecodeError("TN1046", `${count} elements at byte ${this.#position} are more than the data can hold`);
    }
  }

  /** Passes over one value of any kind, however deeply it nests. */
  skip(): void {
    // Each turn takes at least one byte, so the data bounds the loop whatever lengths it claims.
    for (let valuesLeft = 1; valuesLeft > 0; ) {
      valuesLeft += this.#skipHead() - 1;
    }
  }

  /** Passes over a value but not what is inside it; how many values that are. */
  #skipHead(): number {
    const marker = this.#marker();
    if (marker < 0x80 || marker >= 0xe0 || marker === 0xc0 || marker === 0xc2 || marker === 0xc3) {
      return 0;
    }
    if (marker < 0x90) {
      return (marker & 0xf) * 2;
    }
    if (marker < 0xa0) {
      return marker & 0xf;
    }
    if (marker < 0xc0) {
      this.#take(marker & 0x1f);
      return 0;
    }
    if (marker === 0xc1) {
      throw this.#wrong("a value", marker);
    }
    if (marker >= 0xdc) {
      const count = this.#unsignedOf(marker & 1 ? 4 : 2);
      return marker >= 0xde ? count * 2 : count;
    }
    if (marker >= 0xd9) {
      this.#take(this.#unsignedOf(1 << (marker - 0xd9)));
    } else if (marker >= 0xd4) {
      this.#take((1 << (marker - 0xd4)) + 1);
    } else if (marker >= 0xd0) {
      this.#take(1 << (marker - 0xd0));
    } else if (marker >= 0xcc) {
      this.#take(1 << (marker - 0xcc));
    } else if (marker >= 0xca) {
      this.#take(marker === 0xca ? 4 : 8);
    } else if (marker >= 0xc7) {
      this.#take(this.#unsignedOf(1 << (marker - 0xc7)) + 1);
    } else {
      this.#take(this.#unsignedOf(1 << (marker - 0xc4)));
    }
    return 0;
  }

  #unsignedOf(bytes: number): number {
    const start = this.#take(bytes);
    return this.#buffer.readUIntBE(start, bytes);
  }

  #marker(): number {
    const marker = this.#buffer[this.#position];
    if (marker === undefined) {
      throw new DecodeError("TN1041", `unexpected end of data at byte ${this.#position}`);
    }
    this.#position += 1;
    return marker;
  }

  /** Takes bytes; where they start. */
  #take(count: number): number {
    const start = this.#position;
    if (count > this.#buffer.length - start) {
      throw new DecodeError("TN1041", `unexpected end of data at byte ${this.#buffer.length}`);
    }
    this.#position = start + count;
    return start;
  }

  #wrong(expected: string, marker: number): DecodeError {
    const found = marker.toString(16).padStart(2, "0");
    return new DecodeError("TN1042", `expected ${expected} at byte ${this.#position - 1}, found marker 0x${found}`);
  }
}
