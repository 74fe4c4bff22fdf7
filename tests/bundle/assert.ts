/** Assertions for a module, where there is no test framework. */

export function equal(found: unknown, expected: unknown, what: string): void {
  if (!Object.is(found, expected)) throw new Error(`${what}: found ${String(found)}, expected ${String(expected)}`);
}

export function throws(body: () => unknown, kind: new (...args: any[]) => unknown): void {
  let thrown: unknown;
  try {
    body();
  } catch (error) {
    thrown = error;
  }
  if (!(thrown instanceof kind)) throw new Error(`expected ${kind.name}, found ${String(thrown)}`);
}

/** A value as text that is equal for equal values. */
export function describe(value: unknown): string {
  return JSON.stringify(value, (_key, part) => {
    if (typeof part === "bigint") return `${part}n`;
    if (part instanceof Uint8Array) return `bytes ${[...part]}`;
    return part === undefined ? "undefined" : part;
  });
}
