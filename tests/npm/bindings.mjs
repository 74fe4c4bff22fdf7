/**
 * Bindings of the probe module (tests/modules/probe.ts) for the unmodified npm SDK, written by hand
 * in the shape that its code generator gives them.
 */
import {
  DbConnectionBuilder,
  DbConnectionImpl,
  procedures,
  procedureSchema,
  reducers,
  reducerSchema,
  schema,
  t,
  table,
} from "spacetimedb";

const person = table(
  {
    name: "person",
    indexes: [{ accessor: "id", name: "person_id_idx_btree", algorithm: "btree", columns: ["id"] }],
    constraints: [{ name: "person_id_key", constraint: "unique", columns: ["id"] }],
  },
  t.row({ id: t.u64().primaryKey(), name: t.string(), age: t.u32() })
);

const tables = schema({ person });

const calls = reducers(
  reducerSchema("add", { name: t.string(), age: t.u32() }),
  reducerSchema("rename", { id: t.u64(), name: t.string() }),
  reducerSchema("remove", { id: t.u64() }),
  reducerSchema("refuse", { why: t.string() }),
  reducerSchema("trap", {}),
  reducerSchema("noop", {})
);

const runs = procedures(
  procedureSchema("population", {}, t.u64()),
  procedureSchema("add_twice", { name: t.string() }, t.u64())
);

const remoteModule = {
  versionInfo: { cliVersion: "2.10.1" },
  tables: tables.schemaType.tables,
  reducers: calls.reducersType.reducers,
  ...runs,
};

class Connection extends DbConnectionImpl {}

/** A builder for a connection to a database that runs the probe module. */
export function builder() {
  return new DbConnectionBuilder(remoteModule, config => new Connection(config));
}
