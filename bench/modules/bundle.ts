/**
 * The bench module for the npm server SDK, to be bundled as that SDK's tool chain does it. The same table and the same work as
 * bench.ts, so that what differs is the SDK.
 */
import { schema, t, table } from "spacetimedb/server";

const item = table({ public: true }, { id: t.u64().primaryKey(), name: t.string(), value: t.u32() });

const bench = schema({ item });
export default bench;

export const insert = bench.reducer({ id: t.u64(), name: t.string(), value: t.u32() }, (ctx, row) => {
  ctx.db.item.insert(row);
});

export const findUpdate = bench.reducer({ id: t.u64() }, (ctx, { id }) => {
  const row = ctx.db.item.id.find(id);
  if (row) ctx.db.item.id.update({ ...row, value: row.value + 1 });
});
