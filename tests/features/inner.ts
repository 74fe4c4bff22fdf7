/** A module that a library uses. Its names are not converted. */
import { CaseConversionPolicy, schema, t, table } from "spacetimedb/server";

const deep = table({ public: true }, { value: t.u8() });
const evenDeeper = table({ public: true }, { newValue: t.u8() });
const db = schema({ deep, evenDeeper }, { CASE_CONVERSION_POLICY: CaseConversionPolicy.None });
export default db;

export const dive = db.reducer({ value: t.u8() }, (ctx, { value }) => void ctx.db.deep.insert({ value }));
export const goDeeper = db.reducer({ newValue: t.u8() }, (ctx, { newValue }) => void ctx.db.evenDeeper.insert({ newValue }));
