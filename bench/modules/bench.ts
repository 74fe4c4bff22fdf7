/**
 * The module that the suites drive: one table, one reducer that writes a small row, one that does
 * nothing. What is left to measure is the path of a call.
 */
import { schema, t, table } from "tine:server";

const item = table({ public: true }, { id: t.u64().primaryKey(), name: t.string(), value: t.u32() });

const bench = schema({ item });
export default bench;

export const noop = bench.reducer(() => {});

export const insert = bench.reducer({ id: t.u64(), name: t.string(), value: t.u32() }, (ctx, row) => {
  ctx.db.item.insert(row);
});
