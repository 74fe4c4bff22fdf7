/** What the club answers over HTTP. */
import { Router, SyncResponse } from "spacetimedb/server";
import { club } from "./schema";

export const guestbook = club.httpHandler((ctx, request) => {
  const text = request.text();
  ctx.withTx(tx => tx.db.audit.insert({ id: 0, what: `guest: ${text}` }));
  return new SyncResponse(`${request.method} ${text}`, { status: 201, headers: { "x-club": "yes" } });
});
export const roomCount = club.httpHandler(ctx => new SyncResponse(String(ctx.withTx(tx => tx.db.room.count()) > 0n)));
export const routes = club.httpRouter(new Router().post("/guests", guestbook).get("/rooms", roomCount).any("/rooms/any", roomCount));
