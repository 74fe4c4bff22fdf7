/** A module that the club uses. */
import { schema, t, table } from "spacetimedb/server";

const entry = table({ public: true }, { id: t.u32().primaryKey().autoInc(), text: t.string() });
const archive = schema({ entry });
export default archive;

export const keep = archive.reducer({ text: t.string() }, (ctx, { text }) => {
  ctx.db.entry.insert({ id: 0, text });
});
export const shouted = archive.anonymousView({ public: true }, t.array(entry.rowType), ctx =>
  [...ctx.db.entry].filter(({ text }) => text === text.toUpperCase())
);
