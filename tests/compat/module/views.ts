/** Views of both kinds, for everybody and for the caller. */
import { t } from "spacetimedb/server";
import { club, note, room } from "./schema";

const Named = t.row("Named", { name: t.string().primaryKey(), timesSeen: t.u32() });

export const keepers = club.anonymousView({ public: true }, t.array(Named), ctx =>
  [...ctx.db.member].filter(({ rank }) => rank.tag === "Keeper").map(({ name, timesSeen }) => ({ name, timesSeen }))
);
export const closedRooms = club.anonymousView({ public: true }, t.array(room.rowType), ctx =>
  ctx.from.room.where(row => row.open.eq(true).not())
);
export const myNotes = club.view({ public: true }, t.array(note.rowType), ctx => [...ctx.db.note.owner.filter(ctx.sender)]);
export const myself = club.view({ public: true }, t.option(Named), ctx => {
  const known = ctx.db.member.identity.find(ctx.sender);
  return known ? { name: known.name, timesSeen: known.timesSeen } : undefined;
});
