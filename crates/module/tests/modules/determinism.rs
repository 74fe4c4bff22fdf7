//! Equal calls give equal results, and nothing outside the call is seen.

use crate::harness::{Fixture, person};
use tine_types::Timestamp;

const DRAW: &str = r#"
export const draw = db.reducer(ctx => {
  const list = [
    Math.random(), ctx.random(), ctx.random.uint32(), ctx.random.integerInRange(1, 6), ctx.random.bigintInRange(-(2n ** 80n), 2n ** 80n),
    [...ctx.random.fill(new Uint16Array(3))], [...ctx.random.fill(new BigInt64Array(1))], ctx.newUuidV4(), ctx.newUuidV7(), ctx.newUuidV7(),
  ];
  console.log(...list);
});
"#;

#[test]
fn randomness_comes_from_the_seed_alone() {
    let mut first = person(DRAW);
    let mut second = Fixture::of(first.module.clone());
    first.run("draw", vec![]);
    let drawn = first.logged();
    first.run("draw", vec![]);
    assert_eq!(first.logged(), drawn, "a call does not depend on calls before it");
    second.run("draw", vec![]);
    assert_eq!(second.logged(), drawn, "nor on the instance");
    second.context.seed = 43;
    second.run("draw", vec![]);
    assert_ne!(second.logged(), drawn);
}

#[test]
fn random_numbers_are_in_their_ranges() {
    let mut fixture = person(
        r#"
export const go = db.reducer(ctx => {
  const seen = new Set();
  for (let i = 0; i < 2000; i++) {
    const float = Math.random(), die = ctx.random.integerInRange(1, 6), big = ctx.random.bigintInRange(10n, 12n), word = ctx.random.uint32();
    if (!(float >= 0 && float < 1) || die < 1 || die > 6 || big < 10n || big > 12n || word < 0 || word > 4294967295) throw new Error("out of range");
    seen.add(die).add(big);
  }
  console.log(seen.size);
  for (const body of [() => ctx.random.integerInRange(2, 1), () => ctx.random.integerInRange(0.5, 2), () => ctx.random.bigintInRange(2n, 1n), () => ctx.random.fill([])]) {
    try { body(); console.log("nothing"); } catch (e) { console.log(e.name); }
  }
});
"#,
    );
    fixture.run("go", vec![]);
    assert_eq!(fixture.logged(), ["9", "RangeError", "RangeError", "RangeError", "TypeError"]);
}

#[test]
fn the_clock_stands_still_and_knows_no_zone() {
    let mut fixture = person(
        r#"
const loaded = [Date.now(), new Date().getTime(), Math.random()];
export const go = db.reducer(ctx => {
  const before = Date.now();
  for (let i = 0; i < 1e5; i++);
  console.log(Date.now() === before, before, new Date().toISOString(), loaded);
  console.log(Date().startsWith("Tue Nov 14 2023 22:13:20 GMT+0000"), new Date(2020, 5, 7, 8).toISOString());
  console.log(new Date("2020-01-02T03:04:05").toISOString(), new Date("2020-01-02").getHours(), new Date(0).getTimezoneOffset());
  console.log(new Date(0).toString(), new Date(NaN).toString(), new Date(0) instanceof Date, typeof Date.UTC(2000, 1), Date.parse("1970-01-01T00:00:01"));
  class Later extends Date { twice() { return this.getTime() * 2; } }
  console.log(new Later(4).twice(), new Later(4) instanceof Date, Object.prototype.toString.call(new Date()));
  const d = new Date(0); d.setHours(5); console.log(d.toISOString(), d.getDay(), `${d.toLocaleDateString()}`);
});
"#,
    );
    fixture.run("go", vec![]);
    let first = fixture.logged();
    assert_eq!(
        first,
        [
            "true 1700000000123 2023-11-14T22:13:20.123Z [0, 0, 0.8833108082136426]",
            "true 2020-06-07T08:00:00.000Z",
            "2020-01-02T03:04:05.000Z 0 0",
            "Thu Jan 01 1970 00:00:00 GMT+0000 (UTC) Invalid Date true number 1000",
            "8 true [object Date]",
            "1970-01-01T05:00:00.000Z 4 Thu Jan 01 1970",
        ]
    );
    fixture.context.timestamp = Timestamp::from_micros(0);
    fixture.run("go", vec![]);
    assert_ne!(fixture.logged(), first);
}

#[test]
fn nothing_of_the_outside_is_reachable() {
    let mut fixture = person(
        r#"
export const go = db.reducer(() => {
  const names = ["performance", "setTimeout", "setInterval", "queueMicrotask", "fetch", "process", "require", "navigator", "crypto", "Atomics", "SharedArrayBuffer", "print", "gc", "std", "os", "scriptArgs"];
  console.log(names.filter(name => name in globalThis).join());
  console.log(typeof console.log, typeof TextEncoder, typeof TextDecoder, typeof Iterator, typeof structuredClone);
});
"#,
    );
    fixture.run("go", vec![]);
    assert_eq!(fixture.logged(), ["", "function function function function undefined"]);
}

#[test]
fn text_codecs_work() {
    let mut fixture = person(
        r#"
export const go = db.reducer(() => {
  const bytes = new TextEncoder().encode("aé\u{1F980}\ud800");
  console.log([...bytes].join());
  console.log(new TextDecoder().decode(bytes), new TextDecoder("utf8").decode(bytes.subarray(1, 3)), new TextDecoder().decode(bytes.buffer));
  console.log(new TextDecoder().decode(new Uint8Array([0xff, 0x41])), new TextDecoder().decode(), new TextDecoder().decode(new DataView(bytes.buffer, 0, 1)));
  try { new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array([0xff])); } catch (e) { console.log(e.name); }
  try { new TextDecoder("latin1"); } catch (e) { console.log(e.name); }
  try { new TextDecoder().decode("text"); } catch (e) { console.log(e.name); }
  const target = new Uint8Array(4);
  console.log(new TextEncoder().encodeInto("aéé", target), target);
});
"#,
    );
    fixture.run("go", vec![]);
    assert_eq!(
        fixture.logged(),
        [
            "97,195,169,240,159,166,128,239,191,189",
            "aé🦀\u{fffd} é aé🦀\u{fffd}",
            "\u{fffd}A  a",
            "TypeError",
            "RangeError",
            "TypeError",
            "{ read: 2, written: 3 } Uint8Array(4) [97, 195, 169, 0]",
        ]
    );
}
