/** A module that others use. */
import { ScheduleAt, schema, t, table } from "spacetimedb/server";
import * as inner from "./inner";

const entry = table({ public: true }, { id: t.u32().primaryKey().autoInc(), text: t.string() });
const timer = table({}, { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt() });
const db = schema({ entry, timer, inner });
export default db;

export const helper = (text: string) => text.toUpperCase();

export const writeEntry = db.reducer({ text: t.string() }, (ctx, { text }) => {
  ctx.db.entry.insert({ id: 0, text });
  ctx.db.timer.insert({ id: 0n, at: ScheduleAt.time(ctx.timestamp.microsSinceUnixEpoch) });
});
export const tick = db.reducer({ onSchedule: timer }, { row: timer.rowType }, ctx => void ctx.db.entry.insert({ id: 0, text: "ticked" }));
export const countEntries = db.procedure(t.u64(), ctx => ctx.withTx(tx => tx.db.entry.count()));
export const loud = db.anonymousView({ public: true }, t.array(entry.rowType), ctx => [...ctx.db.entry].filter(({ text }) => text === text.toUpperCase()));
export const quiet = db.anonymousView({ public: true }, t.array(entry.rowType), ctx => ctx.from.entry.where(row => row.text.ne("DIRECT")));
