/** A journal that tells in which order its writes ran: each row carries the number of rows before it. */
import { schema, SenderError, t, table } from "tine:server";

const journal = table({ public: true }, { id: t.u64().primaryKey(), before: t.u64() });

const history = schema({ journal });
export default history;

function note(tx: any, id: bigint) {
  tx.db.journal.insert({ id, before: tx.db.journal.count() });
}

export const write = history.reducer({ id: t.u64() }, (ctx, { id }) => note(ctx, id));

/** Writes, then refuses: the row must never be seen. */
export const refuse = history.reducer({ id: t.u64() }, (ctx, { id }) => {
  note(ctx, id);
  throw new SenderError("refused on purpose");
});

function deeper(n: number): number {
  return 1 + deeper(n + 1);
}

/** Writes, then breaks the instance: the next call runs in a new one. */
export const trap = history.reducer({ id: t.u64() }, (ctx, { id }) => {
  note(ctx, id);
  deeper(0);
});

/** Two transactions with time between them, in which others may run. */
export const writeTwice = history.procedure({ id: t.u64() }, t.u64(), (ctx, { id }) => {
  ctx.withTx(tx => note(tx, id));
  let value = 1;
  for (let round = 0; round < 2000; round++) value = (value * 1103515245 + 12345) >>> 0;
  ctx.withTx(tx => note(tx, id + 1n));
  return BigInt(value);
});
