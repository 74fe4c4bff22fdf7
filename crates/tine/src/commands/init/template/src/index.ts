// The database of __NAME__: its tables, and the functions that change them.
// `tine dev` publishes this file whenever you save it.
import { schema, SenderError, t, table } from "tine:server";

const message = table(
  { public: true },
  { id: t.u64().primaryKey().autoInc(), sender: t.identity(), text: t.string(), sent: t.timestamp() },
);
const person = table({ public: true }, { identity: t.identity().primaryKey(), name: t.string() });

const spec = schema({ message, person });
export default spec;

const NAME_CHARACTERS_MAX = 32;
const TEXT_CHARACTERS_MAX = 1000;

/** Gives the caller a name, or another one. */
export const set_name = spec.reducer({ name: t.string() }, (ctx, { name }) => {
  const wanted = name.trim();
  if (wanted === "") throw new SenderError("a name is needed");
  if (wanted.length > NAME_CHARACTERS_MAX) throw new SenderError(`a name has at most ${NAME_CHARACTERS_MAX} characters`);
  const row = { identity: ctx.sender, name: wanted };
  if (ctx.db.person.identity.find(ctx.sender)) ctx.db.person.identity.update(row);
  else ctx.db.person.insert(row);
});

/** Says something to everybody who is looking. */
export const say = spec.reducer({ text: t.string() }, (ctx, { text }) => {
  if (text.trim() === "") throw new SenderError("there is nothing to say");
  if (text.length > TEXT_CHARACTERS_MAX) throw new SenderError(`a message has at most ${TEXT_CHARACTERS_MAX} characters`);
  ctx.db.message.insert({ id: 0n, sender: ctx.sender, text, sent: ctx.timestamp });
  console.log(`${text.length} characters were said`);
});
