/**
 * The bench module for the npm server SDK, to be bundled as that SDK's tool chain does it. The same table and the same work as
 * bench.ts, so that what differs is the SDK.
 */
import { BinaryReader, BinaryWriter, t as types } from "spacetimedb";
import { schema, t, table } from "spacetimedb/server";

const item = table({ public: true }, { id: t.u64().primaryKey(), name: t.string(), value: t.u32() });

const leaf = table({ public: true }, { id: t.u64().primaryKey(), branch: t.u32().index(), name: t.string(), value: t.u32() });

const bench = schema({ item, leaf });
export default bench;

export const insert = bench.reducer({ id: t.u64(), name: t.string(), value: t.u32() }, (ctx, row) => {
  ctx.db.item.insert(row);
});

export const findUpdate = bench.reducer({ id: t.u64() }, (ctx, { id }) => {
  const row = ctx.db.item.id.find(id);
  if (row) ctx.db.item.id.update({ ...row, value: row.value + 1 });
});

const LEAVES = 1_000;
const leafOf = (id: number) => ({ id: BigInt(id), branch: id % 2, name: `leaf ${id}`, value: id });

/** Twice as many rows as are scanned. */
export const fillLeaves = bench.reducer(ctx => {
  for (let id = 0; id < 2 * LEAVES; id++) ctx.db.leaf.insert(leafOf(id));
});

/** Reads a thousand rows by an index. */
export const scanLeaves = bench.reducer(ctx => {
  let sum = 0;
  for (const row of ctx.db.leaf.branch.filter(1)) sum += row.value;
  if (sum !== LEAVES * LEAVES) throw new Error(`the sum is ${sum}`);
});

let encoded: DataView | undefined;

/** The row's type once more: the package's readers only take what the same part of the package made. */
const leafType = types.object("Leaf", { id: types.u64(), branch: types.u32(), name: types.string(), value: types.u32() });

/** What the same rows cost when nobody but the SDK and the engine takes part: they are decoded from memory. */
export const decodeLeaves = bench.reducer(() => {
  if (encoded === undefined) {
    const writer = new BinaryWriter(1 << 16);
    for (let id = 1; id < 2 * LEAVES; id += 2) leafType.serialize(writer, leafOf(id));
    const bytes = writer.getBuffer();
    encoded = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
  const reader = new BinaryReader(encoded);
  let sum = 0;
  for (let row = 0; row < LEAVES; row++) sum += leafType.deserialize(reader).value;
  if (sum !== LEAVES * LEAVES) throw new Error(`the sum is ${sum}`);
});
