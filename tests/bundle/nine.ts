/** A module whose definition is in the older format, V9, written by the npm SDK's own codec. The SDK itself writes V10 only. */
import * as sys from "spacetime:sys@2.0";
import { RawModuleDef } from "../../../node_modules/spacetimedb/src/lib/autogen/types";
import BinaryWriter from "../../../node_modules/spacetimedb/src/lib/binary_writer";

class SenderError extends Error {}

const product = (fields: [string, any][]) => ({ elements: fields.map(([name, algebraicType]) => ({ name, algebraicType })) });
const string = { tag: "String" };
const definition = {
  typespace: { types: [{ tag: "Product", value: product([["id", { tag: "U32" }], ["fullName", string]]) }] },
  tables: [
    {
      name: "Person",
      productTypeRef: 0,
      primaryKey: new Uint16Array([0]),
      indexes: [{ name: "Person_id_idx_btree", accessorName: "id", algorithm: { tag: "BTree", value: [0] } }],
      constraints: [{ name: "Person_id_key", data: { tag: "Unique", value: { columns: [0] } } }],
      sequences: [{ name: "Person_id_seq", column: 0, start: undefined, minValue: undefined, maxValue: undefined, increment: 1n }],
      schedule: undefined,
      tableType: { tag: "User" },
      tableAccess: { tag: "Public" },
    },
  ],
  reducers: [
    { name: "AddPerson", params: product([["fullName", string]]), lifecycle: undefined },
    { name: "Start", params: product([]), lifecycle: { tag: "Init" } },
  ],
  types: [{ name: { scope: [], name: "Person" }, ty: 0, customOrdering: true }],
  miscExports: [{ tag: "Procedure", value: { name: "CountPeople", params: product([]), returnType: { tag: "U64" } } }],
  rowLevelSecurity: [],
};

function insert(name: Uint8Array) {
  // The identity is generated where it is zero.
  const row = new Uint8Array([0, 0, 0, 0, ...name]);
  sys.datastore_insert_bsatn(sys.table_id_from_name("Person"), row.buffer, row.length);
}

const hooks = {
  __describe_module__() {
    const writer = new BinaryWriter(1024);
    RawModuleDef.serialize(writer, RawModuleDef.V9(definition as any));
    return writer.getBuffer();
  },
  __get_error_constructor__: () => Error,
  __sender_error_class__: SenderError,
  __call_reducer__(id: number, _sender: bigint, _connection: bigint, _time: bigint, args: DataView) {
    const name = id === 0 ? new Uint8Array(args.buffer, args.byteOffset, args.byteLength) : new Uint8Array([3, 0, 0, 0, 65, 100, 97]);
    if (name.length === 4) throw new SenderError("a name is needed");
    insert(name);
  },
  __call_view__() {},
  __call_view_anon__() {},
  __call_procedure__() {
    sys.procedure_start_mut_tx();
    const count = new BigUint64Array([sys.datastore_table_row_count(sys.table_id_from_name("Person"))]);
    sys.procedure_commit_mut_tx();
    return new Uint8Array(count.buffer);
  },
};

export default { [sys.moduleHooks]: () => hooks };
