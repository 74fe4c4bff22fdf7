/** What the club does at a time, by reducer and by procedure, and a request to outside. */
import { errors, ScheduleAt, t } from "spacetimedb/server";
import { club, errand, reminder } from "./schema";

export const remind = club.reducer({ text: t.string(), everyMicros: t.option(t.u64()) }, (ctx, { text, everyMicros }) => {
  const at =
    everyMicros === undefined ? ScheduleAt.time(ctx.timestamp.microsSinceUnixEpoch) : ScheduleAt.interval(everyMicros);
  ctx.db.reminder.insert({ id: 0n, at, text, byProcedure: false });
});
export const readOut = club.reducer({ onSchedule: reminder }, { row: reminder.rowType }, (ctx, { row }) => {
  const own = ctx.sender.isEqual(ctx.databaseIdentity);
  ctx.db.audit.insert({ id: 0, what: `read out ${row.text} ${own} ${ctx.db.reminder.id.find(row.id) !== null}` });
});
export const forget = club.reducer(ctx => void ctx.db.reminder.clear());

export const send = club.reducer({ text: t.string() }, (ctx, { text }) => {
  ctx.db.errand.insert({ id: 0n, at: ScheduleAt.time(ctx.timestamp.microsSinceUnixEpoch), text });
});
export const run = club.procedure({ onSchedule: errand }, { row: errand.rowType }, t.unit(), (ctx, { row }) => {
  ctx.withTx(tx => tx.db.audit.insert({ id: 0, what: `ran ${row.text} ${tx.db.errand.id.find(row.id) === null}` }));
  return {};
});

export const askOutside = club.procedure({ url: t.string() }, t.string(), (ctx, { url }) => {
  try {
    return ctx.http.fetch(url).text();
  } catch (error) {
    return error instanceof errors.HttpError ? "refused" : String(error);
  }
});
