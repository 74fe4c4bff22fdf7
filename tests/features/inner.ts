/** A module that a library uses. */
import { schema, t, table } from "spacetimedb/server";

const deep = table({ public: true }, { value: t.u8() });
const db = schema({ deep });
export default db;

export const dive = db.reducer({ value: t.u8() }, (ctx, { value }) => void ctx.db.deep.insert({ value }));
