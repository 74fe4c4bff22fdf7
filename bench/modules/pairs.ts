/** A table whose rows are two numbers, and a reducer that fills it: what a large database of small rows costs. */
import { schema, t, table } from "tine:server";

const pair = table({ public: true }, { id: t.u64().primaryKey(), value: t.u64() });

const pairs = schema({ pair });
export default pairs;

export const fill = pairs.reducer({ first: t.u64(), count: t.u32() }, (ctx, { first, count }) => {
  for (let number = 0n; number < BigInt(count); number++) {
    ctx.db.pair.insert({ id: first + number, value: number });
  }
});
