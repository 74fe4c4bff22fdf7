/** The server's own client with the types that `tine generate` gives it, in a page. Its address says where: `?url=&database=`. */
import { connect, type Rows, type Sample } from "./bindings/tine";
import { show } from "./cases";

const where = new URLSearchParams(location.search);

const sample: Sample = {
  key: 2,
  yes: true,
  i8: -128,
  u8: 255,
  i16: -32768,
  u16: 65535,
  i32: -2147483648,
  i64: -(2n ** 63n),
  u64: 2n ** 64n - 1n,
  i128: -(2n ** 127n),
  u128: 2n ** 128n - 1n,
  i256: -(2n ** 255n),
  u256: 2n ** 256n - 1n,
  f32: 1.5,
  f64: -1e300,
  text: "snow \u2603",
  bytes: new Uint8Array([0, 255]),
  list: [1, -1],
  nested: [["a"], []],
  maybe: 5,
  nothing: null,
  outcome: { tag: "err", value: "not fine" },
  point: { x: 0.25, y: -0.5 },
  rank: { tag: "Regular" },
  mood: { tag: "Quoted", value: { of: 3n, by: "eve" } },
  owner: "c2".padEnd(64, "0"),
  connection: "4d".padStart(32, "0"),
  at: 1_700_000_000_000_001n,
  lasting: -5n,
  uuid: "01234567-89ab-cdef-0123-456789abcdef",
  when: { tag: "Interval", value: 1_000n },
};

async function run() {
  const db = await connect({ url: where.get("url")!, database: where.get("database")! });
  await db.subscribe(["SELECT * FROM room", "SELECT * FROM sample", "SELECT * FROM keepers", "SELECT * FROM closed_rooms"]);
  await db.subscribe(["SELECT * FROM archive.entry", "SELECT * FROM archive.shouted"]);
  const inserted = new Promise<Rows["room"]>(resolve => db.table("room").onInsert(resolve));
  await db.call("open_room", { title: "from the wrapper" });
  const room: Rows["room"] = await inserted;
  await db.call("join", { name: "wrapped", rank: { tag: "Keeper" } });
  const keeper: Rows["keepers"] | undefined = db.table("keepers").get("wrapped");
  await db.call("close_rooms", {});
  const closed = [...db.rows("closed_rooms")].map(row => row.title);
  await db.call("archive.keep", { text: "WRAPPED" });
  const kept = [[...db.rows("archive.entry")], [...db.rows("archive.shouted")]].map(rows => rows.map(row => row.text));
  const tally = await db.call("tally", { room: 1 });
  await db.call("store", { row: sample });
  const back: Rows["sample"] | undefined = db.table("sample").get(2);
  const refused = await db.call("refuse", { why: "politely" }).then(() => "", error => `${error.kind}: ${error.message}`);
  db.close();
  const [sent, read] = [sample, back ?? {}].map(row => JSON.stringify(Object.values(row), show));
  return [room.title, keeper?.name, closed, kept, tally.title, tally.messages, refused, read === sent ? "the same" : [read, sent]];
}

run().then(
  result => (document.body.innerText = JSON.stringify(result, show)),
  error => (document.body.innerText = String((error as Error)?.stack ?? error))
);
