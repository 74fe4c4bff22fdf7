/** Accounts, for the programs beside this file: `tine publish accounts examples/local`. */
import { schema, SenderError, t, table } from "tine:server";

const account = table({ public: true }, { id: t.u64().primaryKey(), owner: t.string(), balance: t.i64() });

const accounts = schema({ account });
export default accounts;

export const init = accounts.init(ctx => {
  ctx.db.account.insert({ id: 1n, owner: "Ada", balance: 100n });
});

/** Moves money that is there. */
export const transfer = accounts.reducer({ from: t.u64(), to: t.u64(), amount: t.i64() }, (ctx, { from, to, amount }) => {
  const payer = ctx.db.account.id.find(from);
  const payee = ctx.db.account.id.find(to);
  if (!payer || !payee) throw new SenderError("no such account");
  if (amount <= 0n || payer.balance < amount) throw new SenderError("not enough money");
  ctx.db.account.id.update({ ...payer, balance: payer.balance - amount });
  ctx.db.account.id.update({ ...payee, balance: payee.balance + amount });
});
