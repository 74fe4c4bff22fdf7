/** The club: an application for the npm server SDK that uses what the SDK has. The client is `client/app.ts`. */
import { SenderError, t } from "spacetimedb/server";
import { club, Mood, Rank, sample } from "./schema";

export default club;
export * from "./handlers";
export * from "./rules";
export * from "./schedules";
export * from "./views";

export const init = club.init(ctx => {
  ctx.db.room.insert({ id: 0, title: "hall", open: true });
  ctx.db.roomSecret.insert({ room: 1, word: "sesame" });
  ctx.db.audit.insert({ id: 0, what: "opened" });
});

export const onConnect = club.clientConnected(ctx => {
  if (ctx.db.ban.identity.find(ctx.sender)) throw new SenderError("banned");
  const known = ctx.db.member.identity.find(ctx.sender);
  if (known) ctx.db.member.identity.update({ ...known, online: true, timesSeen: known.timesSeen + 1 });
});

export const onDisconnect = club.clientDisconnected(ctx => {
  const known = ctx.db.member.identity.find(ctx.sender);
  if (known) ctx.db.member.identity.update({ ...known, online: false });
});

export const join = club.reducer({ name: t.string(), rank: Rank }, (ctx, { name, rank }) => {
  if (name.trim() === "") throw new SenderError("a name is needed");
  const known = ctx.db.member.identity.find(ctx.sender);
  if (known) ctx.db.member.identity.update({ ...known, name, rank });
  else ctx.db.member.insert({ identity: ctx.sender, name, rank, online: true, timesSeen: 1 });
});

export const openRoom = club.reducer({ title: t.string() }, (ctx, { title }) => {
  ctx.db.room.insert({ id: 0, title, open: true });
});

export const closeRooms = club.reducer(ctx => {
  for (const room of ctx.db.room.open.filter(true)) {
    if (room.title !== "hall") ctx.db.room.id.update({ ...room, open: false });
  }
});

export const enter = club.reducer({ room: t.u32() }, (ctx, { room }) => {
  if (!ctx.db.room.id.find(room)) throw new SenderError(`there is no room ${room}`);
  ctx.db.membership.insert({ id: 0, room, member: ctx.sender });
});

export const leave = club.reducer({ room: t.u32() }, (ctx, { room }) => {
  for (const entry of ctx.db.membership.room.filter(room)) {
    if (entry.member.isEqual(ctx.sender)) ctx.db.membership.id.delete(entry.id);
  }
});

export const post = club.reducer(
  { room: t.u32(), text: t.string(), mood: Mood, tags: t.array(t.string()), replyTo: t.option(t.u64()) },
  (ctx, { room, text, mood, tags, replyTo }) => {
    ctx.db.message.insert({ id: 0n, room, author: ctx.sender, text, mood, tags, replyTo });
  }
);

export const edit = club.reducer({ id: t.u64(), text: t.string() }, (ctx, { id, text }) => {
  const row = ctx.db.message.id.find(id);
  if (!row) throw new SenderError(`there is no message ${id}`);
  if (!row.author.isEqual(ctx.sender)) throw new SenderError("it is somebody else's");
  ctx.db.message.id.update({ ...row, text });
});

export const eraseMine = club.reducer({ room: t.u32() }, (ctx, { room }) => {
  for (const row of [...ctx.db.message.roomAuthor.filter([room, ctx.sender])]) ctx.db.message.id.delete(row.id);
});

export const shout = club.reducer({ text: t.string() }, (ctx, { text }) => {
  ctx.db.ping.insert({ from: ctx.sender, text });
});

export const writeNote = club.reducer({ text: t.string() }, (ctx, { text }) => {
  ctx.db.note.insert({ id: 0, owner: ctx.sender, text });
});

export const rent = club.reducer({ number: t.u8(), shelf: t.u16(), position: t.u8() }, (ctx, place) => {
  ctx.db.locker.insert({ ...place, label: `shelf ${[...ctx.db.locker.shelf.filter(place.shelf)].length}` });
});

export const store = club.reducer({ row: sample.rowType }, (ctx, { row }) => {
  ctx.db.sample.key.delete(row.key);
  ctx.db.sample.insert(row);
});

export const claimToken = club.reducer(ctx => {
  const { jwt, isInternal } = ctx.senderAuth;
  if (!jwt) throw new SenderError("no token");
  if (!ctx.db.claim.subject.find(jwt.subject)) {
    ctx.db.claim.insert({ subject: jwt.subject, issuer: jwt.issuer, internal: isInternal });
  }
});

export const banMe = club.reducer(ctx => {
  ctx.db.ban.insert({ identity: ctx.sender });
});

export const refuse = club.reducer({ why: t.string() }, (ctx, { why }) => {
  ctx.db.audit.insert({ id: 0, what: why });
  throw new SenderError(why);
});

export const trap = club.reducer(ctx => {
  ctx.db.audit.insert({ id: 0, what: "never kept" });
  throw new Error("trapped on purpose");
});

export const say = club.reducer({ text: t.string() }, (_ctx, { text }) => {
  console.time("saying");
  console.info(text);
  console.timeEnd("saying");
});

export const nothing = club.reducer(() => {});

export const tally = club.procedure(
  { room: t.u32() },
  t.object("Tally", { messages: t.u64(), title: t.option(t.string()) }),
  (ctx, { room }) =>
    ctx.withTx(tx => ({
      messages: BigInt([...tx.db.message.room.filter(room)].length),
      title: tx.db.room.id.find(room)?.title,
    }))
);

export const postTwice = club.procedure({ room: t.u32(), text: t.string() }, t.u64(), (ctx, { room, text }) => {
  const mood = { tag: "Plain" } as const;
  for (const which of ["first", "second"]) {
    ctx.withTx(tx => {
      const words = `${text} ${which}`;
      tx.db.message.insert({ id: 0n, room, author: ctx.sender, text: words, mood, tags: [], replyTo: undefined });
    });
  }
  return ctx.withTx(tx => tx.db.message.count());
});

export const failHalfway = club.procedure({ text: t.string() }, t.unit(), (ctx, { text }) => {
  ctx.withTx(tx => tx.db.audit.insert({ id: 0, what: text }));
  ctx.withTx(tx => {
    tx.db.audit.insert({ id: 0, what: "never kept" });
    throw new Error("failed halfway");
  });
  return {};
});
