//! Table handles: every method, and what they refuse.

use tine_types::AlgebraicValue;

use crate::harness::{Fixture, person, text};

#[test]
fn insert_returns_the_row_with_its_generated_values() {
    let mut fixture = person(
        r#"
export const add = db.reducer({ name: t.string(), age: t.u32() }, (ctx, { name, age }) => {
  const given = { id: 0n, name, age };
  const row = ctx.db.person.insert(given);
  console.log(given.id, row.id, row.name, row.age, row === given, Object.keys(row).join());
});
"#,
    );
    fixture.run("add", vec![text("Ada"), AlgebraicValue::U32(36)]);
    fixture.run("add", vec![text("Grace"), AlgebraicValue::U32(85)]);
    assert_eq!(fixture.logged(), ["0n 1n Ada 36 false id,name,age", "0n 2n Grace 85 false id,name,age"]);
    assert_eq!(fixture.rows("person"), [r#"{"age":36,"id":1,"name":"Ada"}"#, r#"{"age":85,"id":2,"name":"Grace"}"#]);
}

#[test]
fn all_methods_of_tables_and_indexes() {
    let mut fixture = person(
        r#"
export const go = db.reducer(ctx => {
  const { person } = ctx.db;
  const log = (what, value) => console.log(what, value);
  const names = rows => [...rows].map(row => row.name).join();
  for (const [name, age] of [["a", 1], ["b", 2], ["c", 2], ["d", 3], ["e", 5]]) person.insert({ id: 0n, name, age });
  log("count", person.count());
  log("iter", names(person.iter()));
  log("symbol", names(person));
  log("helpers", person.iter().filter(p => p.age === 2).map(p => p.name).toArray());
  log("find", person.id.find(3n));
  log("missing", person.id.find(99n));
  log("filter", names(person.age.filter(2)));
  log("range", names(person.age.filter(new Range({ tag: "included", value: 2 }, { tag: "excluded", value: 5 }))));
  log("from", names(person.age.filter(new Range({ tag: "excluded", value: 2 }))));
  log("to", names(person.age.filter(new Range(null, { tag: "included", value: 2 }))));
  const c = person.id.find(3n);
  const updated = person.id.update({ ...c, age: 30 });
  log("update", [updated.name, updated.age, person.id.find(3n).age]);
  log("delete one", [person.id.delete(1n), person.id.delete(1n)]);
  log("delete many", [person.age.delete(2), person.age.delete(new Range({ tag: "included", value: 30 })), person.age.delete(7)]);
  log("delete row", [person.delete({ id: 4n, name: "d", age: 3 }), person.delete({ id: 5n, name: "x", age: 5 })]);
  const { insert } = person;
  log("detached", insert({ id: 0n, name: "f", age: 6 }).id);
  log("clear", [person.clear(), person.count()]);
});
"#,
    );
    fixture.run("go", vec![]);
    assert_eq!(
        fixture.logged(),
        [
            "count 5n",
            "iter a,b,c,d,e",
            "symbol a,b,c,d,e",
            "helpers [\"b\", \"c\"]",
            "find { id: 3n, name: \"c\", age: 2 }",
            "missing null",
            "filter b,c",
            "range b,c,d",
            "from d,e",
            "to a,b,c",
            "update [\"c\", 30, 30]",
            "delete one [true, false]",
            "delete many [1, 1, 0]",
            "delete row [true, false]",
            "detached 6n",
            "clear [2n, 0n]",
        ]
    );
    assert!(fixture.rows("person").is_empty());
}

const PLACES: &str = r#"
import { schema, table, t, Range } from "spacetimedb/server";
const db = schema({
  place: table(
    {
      name: "places",
      indexes: [
        { accessor: "byXyz", algorithm: "btree", columns: ["x", "y", "z"] },
        { accessor: "byTag", algorithm: "hash", columns: ["tag", "x"] },
        { accessor: "slot", algorithm: "direct", column: "slot" },
      ],
      constraints: [{ constraint: "unique", columns: ["x", "y", "z"] }],
    },
    { x: t.i32(), y: t.string(), z: t.u8(), tag: t.string(), slot: t.u16().unique(), code: t.string().index("hash") }
  ),
});
export default db;
export const fill = db.reducer(ctx => {
  let slot = 0;
  for (const x of [-1, 0, 1]) for (const y of ["a", "b"]) for (const z of [1, 2]) {
    ctx.db.place.insert({ x, y, z, tag: y, slot: slot++, code: `${x}${y}` });
  }
});
const at = rows => [...rows].map(({ x, y, z }) => `${x}${y}${z}`).sort().join();
"#;

#[test]
fn indexes_of_several_columns() {
    let mut fixture = Fixture::new(&format!(
        "{PLACES}{}",
        r#"
export const go = db.reducer(ctx => {
  const { byXyz, byTag, slot, code } = ctx.db.place;
  console.log(byXyz.find([0, "b", 2]).slot, byXyz.find([0, "b", 3]));
  console.log(at(byTag.filter(["a", 1])));
  console.log(slot.find(3).x, at(code.filter("0a")));
  console.log(byXyz.delete([0, "b", 2]), byXyz.delete([0, "b", 2]));
});
"#
    ));
    fixture.run("fill", vec![]);
    fixture.run("go", vec![]);
    assert_eq!(fixture.logged(), ["7 null", "1a1,1a2", "-1 0a1,0a2", "true false"]);
}

#[test]
fn prefixes_and_ranges_of_several_columns() {
    let mut fixture = Fixture::new(
        r#"
import { schema, table, t, Range } from "spacetimedb/server";
const db = schema({
  place: table({ indexes: [{ accessor: "byXyz", algorithm: "btree", columns: ["x", "y", "z"] }] }, { x: t.i32(), y: t.string(), z: t.u8() }),
});
export default db;
const at = rows => [...rows].map(({ x, y, z }) => `${x}${y}${z}`).join();
export const go = db.reducer(ctx => {
  const { place } = ctx.db;
  for (const x of [-1, 0, 1]) for (const y of ["a", "b"]) for (const z of [1, 2]) place.insert({ x, y, z });
  console.log(at(place.byXyz.filter(0)));
  console.log(at(place.byXyz.filter([0])));
  console.log(at(place.byXyz.filter([0, "b"])));
  console.log(at(place.byXyz.filter([0, "b", 2])));
  console.log(at(place.byXyz.filter(new Range({ tag: "included", value: 1 }))));
  console.log(at(place.byXyz.filter([0, new Range({ tag: "excluded", value: "a" })])));
  console.log(at(place.byXyz.filter([0, "a", new Range(undefined, { tag: "excluded", value: 2 })])));
  console.log(place.byXyz.delete([1, "b"]), place.count());
  console.log(place.byXyz.delete(new Range()), place.count());
});
"#,
    );
    fixture.run("go", vec![]);
    assert_eq!(
        fixture.logged(),
        ["0a1,0a2,0b1,0b2", "0a1,0a2,0b1,0b2", "0b1,0b2", "0b2", "1a1,1a2,1b1,1b2", "0b1,0b2", "0a1", "2 10n", "10 0n"]
    );
}

#[test]
fn errors_of_the_host_have_their_classes() {
    let mut fixture = person(
        r#"
const attempt = body => { try { body(); return "nothing"; } catch (e) { return `${e.name}: ${e.message}`; } };
export const go = db.reducer(ctx => {
  ctx.db.person.insert({ id: 7n, name: "a", age: 1 });
  console.log(attempt(() => ctx.db.person.insert({ id: 7n, name: "b", age: 1 })));
  console.log(attempt(() => ctx.db.person.id.update({ id: 8n, name: "b", age: 1 })));
  try {
    ctx.db.person.insert({ id: 7n, name: "b", age: 1 });
  } catch (e) {
    console.log(e instanceof errors.UniqueAlreadyExists, e instanceof errors.NoSuchRow, e instanceof Error);
  }
  console.log(ctx.db.person.count());
});
"#,
    );
    fixture.run("go", vec![]);
    let logged = fixture.logged();
    assert!(
        logged[0].starts_with("UniqueAlreadyExists: table `person` already has a row with id = 7"),
        "{}",
        logged[0]
    );
    assert!(logged[1].starts_with("NoSuchRow: "), "{}", logged[1]);
    assert_eq!(logged[2..], ["true false true", "1n"]);
}

#[test]
fn wrong_values_name_the_column() {
    let mut fixture = person(
        r#"
const attempt = body => { try { body(); console.log("nothing"); } catch (e) { console.log(`${e.name}: ${e.message}`); } };
export const go = db.reducer(ctx => {
  const { person } = ctx.db;
  for (const row of [
    { id: 0n, name: "a" }, { id: 0n, name: "a", age: -1 }, { id: 0n, name: "a", age: 1.5 }, { id: 0n, name: "a", age: 2 ** 32 },
    { id: 0n, name: "a", age: "7" }, { id: 0n, name: "a", age: NaN }, { id: 0n, name: 7, age: 1 }, { id: 0, name: "a", age: 1 },
    { id: -1n, name: "a", age: 1 }, { id: 2n ** 64n, name: "a", age: 1 }, { id: 0n, name: null, age: 1 },
  ]) attempt(() => person.insert(row));
  attempt(() => person.insert(undefined));
  attempt(() => person.id.find(1));
  attempt(() => person.age.filter("x"));
  attempt(() => person.age.filter(new Range({ tag: "sideways", value: 1 })));
  attempt(() => person.insert({ id: 0n, name: "a", get age() { throw new SenderError("from a getter"); } }));
  console.log(person.count());
});
"#,
    );
    fixture.run("go", vec![]);
    let u32 = "TypeError: table `person`, `age`: expected an integer from 0 to 4294967295, got";
    let u64 = "TypeError: table `person`, `id`: expected a bigint of 64 bits, not negative (such as 1n), got";
    let expected = [
        format!("{u32} undefined"),
        format!("{u32} -1"),
        format!("{u32} 1.5"),
        format!("{u32} 4294967296"),
        format!("{u32} the string \"7\""),
        format!("{u32} NaN"),
        "TypeError: table `person`, `name`: expected a string, got 7".to_owned(),
        format!("{u64} 0"),
        format!("{u64} the bigint -1n"),
        format!("{u64} the bigint 18446744073709551616n"),
        "TypeError: table `person`, `name`: expected a string, got null".to_owned(),
        "TypeError: table `person`: insert() needs an object".to_owned(),
        "TypeError: index `id` of table `person`, `id`: expected a bigint of 64 bits, not negative (such as 1n), got 1".to_owned(),
        "TypeError: index `age` of table `person`, `age`: expected an integer from 0 to 4294967295, got the string \"x\"".to_owned(),
        "TypeError: the tag of a bound is included, excluded or unbounded".to_owned(),
        "SenderError: from a getter".to_owned(),
        "0n".to_owned(),
    ];
    for (logged, expected) in fixture.logged().iter().zip(&expected) {
        assert_eq!(logged, expected);
    }
}

#[test]
fn scans_are_snapshots_and_can_be_left() {
    let mut fixture = person(
        r#"
export const go = db.reducer(ctx => {
  const { person } = ctx.db;
  for (let i = 0; i < 1000; i++) person.insert({ id: 0n, name: `p${i}`, age: i });
  let seen = 0;
  for (const row of person.iter()) {
    seen++;
    person.id.delete(row.id);
    person.insert({ id: 0n, name: "again", age: 1 });
  }
  console.log(seen, person.count());
  const iterator = person.iter();
  for (const row of iterator) if (row.age === 1) break;
  console.log(iterator.next().done, iterator.next().value);
  const half = person.iter();
  half.next();
  globalThis.half = half;
  console.log(Object.prototype.toString.call(person.iter().next().value), person.iter().take(3).toArray().length);
});
export const later = db.reducer(ctx => console.log(globalThis.half.next().done));
"#,
    );
    fixture.run("go", vec![]);
    assert_eq!(fixture.logged(), ["1000 1000n", "true undefined", "[object Object] 3"]);
    let before = fixture.instance.memory_bytes();
    fixture.run("later", vec![]);
    assert_eq!(fixture.logged(), ["true"], "an iterator ends with its call");
    assert!(fixture.instance.memory_bytes() <= before + 4096);
}

#[test]
fn a_getter_may_use_the_tables_while_a_row_is_read() {
    let mut fixture = person(
        r#"
export const go = db.reducer(ctx => {
  ctx.db.person.insert({
    id: 0n,
    get name() { return ctx.db.person.insert({ id: 0n, name: "inner", age: 1 }).name + "-outer"; },
    age: 2,
  });
});
"#,
    );
    fixture.run("go", vec![]);
    assert_eq!(fixture.rows("person").len(), 2);
    assert!(fixture.rows("person")[1].contains("inner-outer"));
}

#[test]
fn a_failed_reducer_leaves_nothing() {
    let mut fixture = person(
        r#"
export const add = db.reducer(ctx => { ctx.db.person.insert({ id: 0n, name: "a", age: 1 }); throw new SenderError("no"); });
export const ok = db.reducer(ctx => { ctx.db.person.insert({ id: 0n, name: "b", age: 1 }); });
"#,
    );
    fixture.fail("add");
    assert!(fixture.rows("person").is_empty());
    fixture.run("ok", vec![]);
    assert_eq!(fixture.rows("person"), [r#"{"age":1,"id":1,"name":"b"}"#], "the sequence was rolled back too");
}
