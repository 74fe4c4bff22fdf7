// A bundle written by hand against the module ABI, so that it can do what no SDK does: system calls in
// the wrong place, iterators that are never closed, hooks that call themselves. `DEFINITION` stands before
// this text when it is published: the module definition of the tables and functions of `tests/tests/faults.rs`.
import * as sys20 from "spacetime:sys@2.0";
import { moduleHooks } from "spacetime:sys@2.0";
import * as sys21 from "spacetime:sys@2.1";

const sys = { ...sys20, ...sys21 };
class SenderError extends Error {}
class HostError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const u32 = number => [number & 255, (number >> 8) & 255, (number >> 16) & 255, number >>> 24];
const thing = () => sys.table_id_from_name("thing");
const put = id => sys.datastore_insert_bsatn(thing(), Uint8Array.from([...u32(id), ...u32(0)]).buffer, 8);

/** The error number that the host answers with; 0 when it does not object. */
const code = action => {
  try {
    action();
    return 0;
  } catch (error) {
    return error.code ?? 999;
  }
};

let kept;
let depth = 0;

/** Reducers; the argument says which. */
const reducers = {
  // Opens iterators until the host objects, and closes none.
  hoard() {
    for (let count = 0; ; count++) sys.datastore_table_scan_bsatn(thing());
  },
  leave() {
    for (let count = 0; count < 1000; count++) kept = sys.datastore_table_scan_bsatn(thing());
  },
  advanceKept() {
    sys.row_iter_bsatn_advance(kept, new ArrayBuffer(64));
  },
  again(id) {
    if (depth++ < 10) hooks.__call_reducer__(id, ...arguments[1]);
    else depth = 0;
    put(0);
  },
  againForEver(id) {
    hooks.__call_reducer__(id, ...arguments[1]);
  },
  begin() {
    put(0);
    sys.procedure_start_mut_tx();
  },
  commit() {
    put(0);
    sys.procedure_commit_mut_tx();
  },
  getter() {
    put(0);
    sys.datastore_insert_bsatn(thing(), { get byteLength() { return sys.datastore_clear(thing()); } }, 8);
  },
  fine() {
    put(0);
  },
};
const names = Object.keys(reducers);

/** A procedure that does everything in the wrong order; returns what the host said, as one number. */
const misplaced = () => {
  const codes = [
    code(() => sys.datastore_table_scan_bsatn(thing())),
    code(() => sys.datastore_table_row_count(thing())),
    code(() => put(0)),
    code(() => sys.procedure_commit_mut_tx()),
    code(() => sys.procedure_abort_mut_tx()),
  ];
  sys.procedure_start_mut_tx();
  codes.push(code(() => sys.procedure_start_mut_tx()));
  const open = sys.datastore_table_scan_bsatn(thing());
  put(0);
  sys.procedure_abort_mut_tx();
  codes.push(code(() => sys.row_iter_bsatn_advance(open, new ArrayBuffer(64))));
  // Left open on purpose, with a row in it.
  sys.procedure_start_mut_tx();
  put(0);
  return JSON.stringify(codes);
};

const hooks = {
  __describe_module__: () => new Uint8Array(DEFINITION),
  __get_error_constructor__: number => HostError.bind(null, number),
  get __sender_error_class__() {
    return SenderError;
  },
  __call_reducer__(id, ...rest) {
    const [sender, connection, time, args] = rest;
    reducers[names[args.getUint8(0)]](id, rest);
  },
  __call_view__() {},
  __call_view_anon__() {},
  __call_procedure__() {
    const text = new TextEncoder().encode(misplaced());
    return Uint8Array.from([...u32(text.length), ...text]);
  },
};

export default { [moduleHooks]: () => hooks };
