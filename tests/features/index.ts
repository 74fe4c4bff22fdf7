/** What the npm server SDK has beside tables and reducers: views, handlers, libraries, schedules, requests. Driven by `tests/features.rs`. */
import { errors, Range, Router, ScheduleAt, schema, SenderError, SyncResponse, t, table } from "spacetimedb/server";
import * as lib from "./library";

const player = table(
  { name: "players", public: true, indexes: [{ accessor: "byLevel", name: "level_of_players", algorithm: "btree", columns: ["level"] }] },
  { id: t.u32().primaryKey(), owner: t.identity().index("hash"), name: t.string().unique(), level: t.u8() }
);
const slot = table({ public: true }, { place: t.u16().index("direct").unique(), holder: t.u32() });
const friendship = table({}, { id: t.u32().primaryKey().autoInc(), from: t.u32().index(), to: t.u32().index() });
const heard = table({ public: true, event: true }, { text: t.string() });
const alarm = table({ scheduled: (): any => ring }, { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt(), text: t.string() });
const chore = table({ public: true }, { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt(), url: t.string() });
const note = table({ public: true }, { id: t.u32().primaryKey().autoInc(), text: t.string() });

const db = schema({ player, slot, friendship, heard, alarm, chore, note, lib });
export default db;

type Notes = { note: { insert(row: { id: number; text: string }): unknown } };
const write = (to: Notes, text: string) => void to.note.insert({ id: 0, text });

export const connected = db.clientConnected(ctx => {
  if (ctx.db.player.owner.filter(ctx.sender).some(({ name }) => name === "banned")) throw new SenderError("you are banned");
});

export const enter = db.reducer({ id: t.u32(), name: t.string(), level: t.u8() }, (ctx, { id, name, level }) => {
  ctx.db.player.insert({ id, owner: ctx.sender, name, level });
  ctx.db.slot.insert({ place: id, holder: id });
});
export const train = db.reducer({ id: t.u32(), level: t.u8() }, (ctx, { id, level }) => {
  ctx.db.player.id.update({ ...ctx.db.player.id.find(id)!, level });
});
export const befriend = db.reducer({ from: t.u32(), to: t.u32() }, (ctx, { from, to }) => void ctx.db.friendship.insert({ id: 0, from, to }));
export const shout = db.reducer({ name: "shout_out" }, { text: t.string() }, (ctx, { text }) => void ctx.db.heard.insert({ text }));

/** Fails unless the indexes of every kind find what they should. */
export const checkIndexes = db.reducer(ctx => {
  const check = (condition: boolean, what: string) => { if (!condition) throw new Error(what); };
  const levels = [...ctx.db.player.byLevel.filter(new Range({ tag: "excluded", value: 1 }, { tag: "included", value: 9 }))].map(({ id }) => id);
  check(levels.join() === [...ctx.db.player].filter(({ level }) => level > 1 && level <= 9).sort((a, b) => a.level - b.level).map(({ id }) => id).join(), `range ${levels}`);
  check([...ctx.db.player.owner.filter(ctx.sender)].length > 0, "hash");
  check(ctx.db.slot.place.find(1)?.holder === 1, "direct");
  check(ctx.db.heard.count() === 0n, "events are not kept");
});

const Ranked = t.row("Ranked", { id: t.u32().primaryKey(), name: t.string(), level: t.u8() });
const ranked = ({ id, name, level }: { id: number; name: string; level: number }) => ({ id, name, level });
export const strong = db.anonymousView({ name: "strong_players", public: true }, t.array(Ranked), ctx =>
  [...ctx.db.player.byLevel.filter(new Range({ tag: "included", value: 5 }))].map(ranked)
);
export const weak = db.anonymousView({ public: true }, t.array(player.rowType), ctx => ctx.from.player.where(row => row.level.lt(5).and(row.name.eq("nobody").not())));
export const me = db.view({ public: true }, t.option(Ranked), ctx => [...ctx.db.player.owner.filter(ctx.sender)].map(ranked)[0]);
export const friends = db.view({ public: true }, t.array(player.rowType), ctx =>
  ctx.from.friendship.where(row => row.from.eq([...ctx.db.player.owner.filter(ctx.sender)][0]?.id ?? 0)).rightSemijoin(ctx.from.player, (friendship, other) => friendship.to.eq(other.id))
);
export const writer = db.anonymousView({ public: true }, t.array(Ranked), ctx => {
  try { (ctx.db.note as any).insert({ id: 0, text: "from a view" }); } catch (error) { return [{ id: 1, name: (error as Error).name, level: 0 }]; }
  return [];
});

/** The row is still there while the reducer runs. */
export const setAlarm = db.reducer({ text: t.string() }, (ctx, { text }) => {
  ctx.db.alarm.insert({ id: 0n, at: ScheduleAt.time(ctx.timestamp.microsSinceUnixEpoch), text });
});
export const ring = db.reducer({ row: alarm.rowType }, (ctx, { row }) => {
  write(ctx.db, `rang ${row.text} ${ctx.db.alarm.id.find(row.id) !== null} ${ctx.sender.isEqual(ctx.databaseIdentity)} ${ctx.connectionId}`);
  if (row.text === "fail") throw new Error("it fails, and is over all the same");
});
export const countAlarms = db.procedure(t.u64(), ctx => ctx.withTx(tx => tx.db.alarm.count()));

/** The row is gone when the procedure runs. */
export const setChore = db.reducer({ url: t.string() }, (ctx, { url }) => {
  ctx.db.chore.insert({ id: 0n, at: ScheduleAt.time(ctx.timestamp.microsSinceUnixEpoch), url });
});
export const doChore = db.procedure({ onSchedule: chore }, { row: chore.rowType }, t.unit(), (ctx, { row }) => {
  let text: string;
  try { const answer = ctx.http.fetch(row.url, { method: "POST", body: "ping", headers: { "x-from": "chore" } }); text = `${answer.status} ${answer.text()} ${answer.headers.get("x-to")}`; }
  catch (error) { text = `${error instanceof errors.HttpError} ${(error as Error).message}`; }
  ctx.withTx(tx => write(tx.db, `chore ${tx.db.chore.id.find(row.id) === null} ${text}`));
  return {};
});

/** Transactions of one procedure, with what views make of them in between. */
export const climb = db.procedure({ id: t.u32() }, t.array(t.u8()), (ctx, { id }) => {
  const levels: number[] = [];
  for (const level of [6, 7]) {
    levels.push(ctx.withTx(tx => tx.db.player.id.update({ ...tx.db.player.id.find(id)!, level }).level));
  }
  try { ctx.withTx(tx => { tx.db.player.id.delete(id); throw new Error("undo"); }); } catch { levels.push(ctx.withTx(tx => tx.db.player.id.find(id)!.level)); }
  return levels;
});

export const whoAmI = db.reducer(ctx => {
  console.time("claims");
  const { jwt } = ctx.senderAuth;
  console.timeEnd("claims");
  throw new SenderError(`${ctx.senderAuth.isInternal} ${jwt?.issuer} ${jwt?.identity.isEqual(ctx.sender)}`);
});

export const useLibrary = db.reducer(ctx => {
  ctx.db.lib.entry.insert({ id: 0, text: lib.helper("direct") });
  ctx.as.lib.db.entry.insert({ id: 0, text: "as" });
});

export const hello = db.httpHandler((ctx, request) => {
  const text = request.text();
  ctx.withTx(tx => write(tx.db, text));
  return new SyncResponse(`${request.method} ${request.uri} ${text}`, { status: 201, headers: { "x-handler": "hello" } });
});
export const routes = db.httpRouter(new Router().post("/hello", hello));
