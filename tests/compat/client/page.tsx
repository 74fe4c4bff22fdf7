/** A page of the club with the SDK's React hooks. Its address says where: `?url=&database=`. */
import { createElement as h, useMemo, useState } from "react";
import { createRoot } from "react-dom/client";
import { SpacetimeDBProvider, useProcedure, useReducer, useSpacetimeDB, useTable } from "spacetimedb/react";
import { DbConnection, procedures, reducers, tables } from "./bindings/index";

function Rooms() {
  const { isActive } = useSpacetimeDB();
  const [rooms, isReady] = useTable(tables.room.where(row => row.title.ne("hidden")));
  const openRoom = useReducer(reducers.openRoom);
  const tally = useProcedure(procedures.tally);
  const [told, setTold] = useState("");
  const titles = rooms.map(row => row.title).sort();
  return h(
    "main",
    { "data-active": isActive, "data-ready": isReady },
    h("ul", null, titles.map(title => h("li", { key: title }, title))),
    h("button", { id: "open", onClick: () => openRoom({ title: "from the page" }) }, "open"),
    h("button", { id: "hide", onClick: () => openRoom({ title: "hidden" }) }, "hide"),
    h("button", { id: "ask", onClick: async () => setTold((await tally({ room: 1 })).title ?? "") }, "ask"),
    h("output", null, told)
  );
}

function Page() {
  const where = new URLSearchParams(location.search);
  const builder = useMemo(
    () => DbConnection.builder().withUri(where.get("url")!).withDatabaseName(where.get("database")!),
    []
  );
  return h(SpacetimeDBProvider<DbConnection>, { connectionBuilder: builder }, h(Rooms));
}

createRoot(document.getElementById("root")!).render(h(Page));
