/** Cases of views, HTTP handlers, schedules, submodules and requests to outside. */
import { tables } from "./bindings/index";
import { PATIENCE_MS, subscribe, until, type Case } from "./cases";

export const more: Record<string, Case> = {
  async "views of rows and of queries, followed"(place) {
    const [watcher, actor] = [await place.connect(), await place.connect()];
    await subscribe(watcher, tables.keepers, tables.closedRooms);
    const { keepers, closedRooms } = watcher.connection.db;
    const before = keepers.count();
    await actor.connection.reducers.join({ name: "keeper of keys", rank: { tag: "Keeper" } });
    await until("the keeper", () => keepers.count() === before + 1n);
    const found = [...keepers.iter()].find(row => row.name === "keeper of keys");
    const closed = closedRooms.count();
    await actor.connection.reducers.openRoom({ title: "soon closed" });
    await actor.connection.reducers.closeRooms({});
    await until("the closed room", () => [...closedRooms.iter()].some(row => row.title === "soon closed"));
    await actor.connection.reducers.join({ name: "keeper of keys", rank: { tag: "Guest" } });
    await until("the keeper to go", () => keepers.count() === before);
    const listed = await place.sql("SELECT COUNT(*) AS n FROM closed_rooms WHERE title = 'soon closed'");
    return [found, closedRooms.count() > closed, listed.rows];
  },

  async "views of the caller"(place) {
    const [ada, eve] = [await place.connect(), await place.connect()];
    for (const member of [ada, eve]) await subscribe(member, "SELECT * FROM my_notes", "SELECT * FROM myself");
    await ada.connection.reducers.writeNote({ text: "to myself" });
    await until("the note", () => ada.connection.db.myNotes.count() === 1n);
    await eve.connection.reducers.join({ name: "eve herself", rank: { tag: "Guest" } });
    await until("herself", () => eve.connection.db.myself.count() === 1n);
    const seen = [ada, eve].map(({ connection }) => [
      [...connection.db.myNotes.iter()].map(row => row.text),
      [...connection.db.myself.iter()].map(row => row.name),
    ]);
    return [seen, (await place.sql("SELECT text FROM my_notes", ada.token)).rows];
  },

  async "HTTP handlers below /route"(place) {
    const replies = [];
    for (const [method, path, body] of [
      ["POST", "/guests", "a guest"],
      ["GET", "/rooms", undefined],
      ["DELETE", "/rooms/any", undefined],
      ["GET", "/guests", undefined],
      ["GET", "/nowhere", undefined],
    ] as const) {
      const reply = await place.http(method, `/route${path}`, body, undefined, "text/plain");
      replies.push([reply.status, reply.headers.get("x-club"), reply.ok ? await reply.text() : ""]);
    }
    const kept = await place.sql("SELECT what FROM audit WHERE what = 'guest: a guest'", place.ownerToken);
    return [replies, kept.rows];
  },

  async "schedules of reducers and procedures"(place) {
    const member = await place.connect();
    const told = async (text: string) => {
      const statement = `SELECT what FROM audit WHERE what = '${text} true' OR what = '${text} true true'`;
      const deadline = Date.now() + PATIENCE_MS;
      while (Date.now() < deadline) {
        const { rows } = await place.sql(statement, place.ownerToken);
        if (rows.length > 0) return rows;
        await new Promise(resolve => setTimeout(resolve, 10));
      }
      throw new Error(`waited in vain for ${text}`);
    };
    // They are paused on a fork until its owner wants them (G10).
    const [database, fork] = place.database.split("@");
    if (fork) {
      const headers = { authorization: `Bearer ${place.ownerToken}` };
      await fetch(`${place.url}/v1/database/${database}/forks/${fork}/resume`, { method: "POST", headers });
    }
    await subscribe(member, tables.reminder);
    await member.connection.reducers.remind({ text: "once", everyMicros: undefined });
    const results = [await told("read out once")];
    await until("the row to go", () => member.connection.db.reminder.count() === 0n);
    await member.connection.reducers.remind({ text: "often", everyMicros: 20_000n });
    results.push(await told("read out often"));
    const stays = member.connection.db.reminder.count();
    await member.connection.reducers.forget({});
    await member.connection.reducers.send({ text: "errand" });
    results.push(await told("ran errand"));
    return [results, stays];
  },

  async "modules within the module"(place) {
    const member = await place.connect();
    await subscribe(member, tables.archiveEntry, "SELECT * FROM archive.shouted");
    await member.connection.reducers["archive.keep"]({ text: "kept" });
    await member.connection.reducers["archive.keep"]({ text: "LOUD" });
    const { archiveEntry, archiveShouted } = member.connection.db;
    await until("both", () => archiveEntry.count() === 2n && archiveShouted.count() === 1n);
    const statement = "SELECT text FROM archive.entry WHERE archive.entry.id = 1";
    return [[...archiveEntry.iter()].map(row => row.text), [...archiveShouted.iter()].map(row => row.text), (await place.sql(statement)).rows];
  },

  async "requests to outside are for those allowed"(place) {
    const member = await place.connect();
    return member.connection.procedures.askOutside({ url: "http://127.0.0.1:9/" });
  },
};
