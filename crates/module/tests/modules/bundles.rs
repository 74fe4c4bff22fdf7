//! The module ABI from the module's side: bundles written by hand, without an SDK, so that they can do what no SDK does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tine_module::{
    CallError, CodeCache, CodeStorage, CompileError, CompiledModule, LoadError, LogLevel, SourceBundle,
    compile_with_cache,
};
use tine_tables::{TableRead, key};
use tine_types::bsatn::Reader;
use tine_types::{AlgebraicType, AlgebraicValue, ConnectionId, Identity};

use crate::harness::{Fixture, compile, compile_source, limits};

/// The tables and functions behind every bundle here. Their definition is taken from the same module as source.
const SHAPE: &str = r#"
import { schema, table, t } from "tine:server";
const db = schema({
  thing: table({ public: true, indexes: [{ accessor: "byHash", algorithm: "hash", columns: ["size"] }] },
    { id: t.u32().primaryKey().autoInc(), name: t.string().unique(), size: t.u32().index("btree") }),
  named: table({ name: "under_another_name" }, { id: t.u8().primaryKey() }),
});
export default db;
export const run = db.reducer(() => {});
export const again = db.reducer({ text: t.string() }, () => {});
export const compute = db.procedure(t.u32(), () => 1);
"#;

/// What stands in for the SDK: enough to hand out hooks, and helpers for the cases.
const PRELUDE: &str = r#"
import * as sys20 from "spacetime:sys@2.0";
import { moduleHooks } from "spacetime:sys@2.0";
import * as sys21 from "spacetime:sys@2.1";
const sys = { ...sys20, ...sys21 };
class SenderError extends Error {}
class HostError extends Error { constructor(code, message) { super(message); this.code = code; } get name() { return `Host${this.code}`; } }
const check = (condition, what) => { if (!condition) throw new Error(`check failed: ${what}`); };
const bytes = (...parts) => Uint8Array.from(parts.flat()).buffer;
const u32 = n => [n & 255, n >> 8 & 255, n >> 16 & 255, n >>> 24];
const str = s => [...u32(s.length), ...new TextEncoder().encode(s)];
const row = (id, name, size) => bytes(u32(id), str(name), u32(size));
const thing = () => sys.table_id_from_name("thing");
const index = name => sys.index_id_from_name(`thing_${name}`);
const put = (id, name, size) => { const buf = row(id, name, size); sys.datastore_insert_bsatn(thing(), buf, buf.byteLength); return buf; };
const read = iterator => { const buf = new ArrayBuffer(4096); let total = 0, n; while ((n = sys.row_iter_bsatn_advance(iterator, buf)) > 0) total += n; return total - n; };
"#;

const EPILOGUE: &str = r#"
export default { [moduleHooks](namespace) {
  check(namespace.default === this, "the receiver of moduleHooks");
  const hooks = {
    __describe_module__() { return new Uint8Array([0, ...DEFINITION]).subarray(1); },
    __get_error_constructor__(code) { return HostError.bind(null, code); },
    get __sender_error_class__() { return SenderError; },
    __call_reducer__(id, ...rest) { check(this === hooks, "the receiver of hooks"); return id === 0 ? again(...rest) : run(...rest); },
    __call_view__() {},
    __call_view_anon__() {},
    __call_procedure__(id, ...rest) { return compute(...rest); },
  };
  return hooks;
} };
"#;

/// The text of a bundle: what `code` does not define does nothing.
fn text(code: &str) -> String {
    static DEFINITION: OnceLock<Vec<u8>> = OnceLock::new();
    let definition =
        DEFINITION.get_or_init(|| compile_source(SHAPE).unwrap_or_else(|error| panic!("{error}")).def().encode());
    let mut text = format!("{PRELUDE}const DEFINITION = {definition:?};\n{code}\n");
    for name in ["run", "again", "compute"] {
        if !code.contains(&format!("function {name}(")) {
            text.push_str(&format!("function {name}() {{}}\n"));
        }
    }
    text + EPILOGUE
}

fn build(code: &str) -> Result<Arc<CompiledModule>, CompileError> {
    compile(&SourceBundle::single("bundle.js", text(code)), &limits())
}

fn fixture(code: &str) -> Fixture {
    Fixture::of(build(code).unwrap_or_else(|error| panic!("{error}\n{code}")))
}

/// A bundle whose reducer `run` has this body.
fn running(body: &str) -> Fixture {
    fixture(&format!("let kept;\nfunction run(sender, connection, time, args) {{ {body} }}"))
}

/// Bodies that must succeed; their checks throw.
const WORKS: [(&str, &str); 17] = [
    (
        "names",
        "check(thing() === sys.table_id_from_name('thing'), 'id'); sys.table_id_from_name('named'); check(sys.table_id_from_name('under_another_name') === sys.table_id_from_name('named'), 'both names');",
    ),
    (
        "exports",
        "for (const name of Object.keys(sys)) if (name !== 'moduleHooks') check(typeof sys[name] === 'function', name); check(Object.keys(sys).length === 25, 'count'); check(typeof sys.moduleHooks === 'symbol', 'symbol');",
    ),
    (
        "count",
        "put(1, 'a', 1); check(sys.datastore_table_row_count(thing()) === 1n, 'own row'); check(sys.datastore_clear(thing()) === 1n, 'cleared'); check(sys.datastore_table_row_count(thing()) === 0n, 'none');",
    ),
    (
        "generated values are written back",
        "const buf = put(0, 'a', 1); const id = new DataView(buf).getUint32(0, true); check(id > 0, 'generated'); const given = put(77, 'b', 1); check(new DataView(given).getUint32(0, true) === 77, 'given');",
    ),
    (
        "the result of a write is how much was generated",
        "const b = row(0, 'a', 1), c = row(5, 'b', 1); check(sys.datastore_insert_bsatn(thing(), b, b.byteLength) === 4, 'four'); check(sys.datastore_insert_bsatn(thing(), c, c.byteLength) === 0, 'none');",
    ),
    (
        "a buffer may be longer than its row",
        "const buf = new ArrayBuffer(1000); new Uint8Array(buf).set(new Uint8Array(row(3, 'a', 1))); check(sys.datastore_insert_bsatn(thing(), buf, row(3, 'a', 1).byteLength) === 0, 'inserted');",
    ),
    (
        "update and delete",
        "put(1, 'a', 1); const b = row(1, 'b', 2); sys.datastore_update_bsatn(thing(), index('id_idx_btree'), b, b.byteLength); const all = bytes(u32(2), [...new Uint8Array(b)], [...new Uint8Array(row(9, 'z', 9))]); check(sys.datastore_delete_all_by_eq_bsatn(thing(), all, all.byteLength) === 1, 'one of two');",
    ),
    (
        "points",
        "put(1, 'a', 5); put(2, 'b', 5); const key = bytes(u32(5)); check(read(sys.datastore_index_scan_point_bsatn(index('size_idx_btree'), key, 4)) === 26, 'both'); check(sys.datastore_delete_by_index_scan_point_bsatn(index('size_idx_hash'), key, 4) === 2, 'deleted by hash');",
    ),
    (
        "ranges",
        "for (let n = 1; n < 10; n++) put(n, `${n}`, n); const i = index('size_idx_btree'); const scan = (start, end) => read(sys.datastore_index_scan_range_bsatn(i, bytes(start, end), 0, 0, start.length, end.length)) / 13; check(scan([0, ...u32(3)], [1, ...u32(6)]) === 3, 'half open'); check(scan([2], [0, ...u32(4)]) === 4, 'to'); check(scan([1, ...u32(4)], [2]) === 5, 'from'); check(scan([0, ...u32(4)], []) === 1, 'no end'); check(sys.datastore_delete_by_index_scan_range_bsatn(i, bytes([0], u32(8), [2]), 0, 0, 5, 1) === 2, 'deleted');",
    ),
    (
        "an empty scan ends with 0",
        "check(sys.row_iter_bsatn_advance(sys.datastore_table_scan_bsatn(thing()), new ArrayBuffer(9)) === 0, 'empty');",
    ),
    (
        "a scan is cut at whole rows",
        "put(1, 'a', 1); put(2, 'b', 1); put(3, 'ccc', 1); const i = sys.datastore_table_scan_bsatn(thing()); const b = new ArrayBuffer(30); check(sys.row_iter_bsatn_advance(i, b) === 26, 'two rows'); check(sys.row_iter_bsatn_advance(i, b) === -15, 'the last');",
    ),
    (
        "a buffer that is too small is told",
        "put(1, 'a', 1); const i = sys.datastore_table_scan_bsatn(thing()); let thrown; try { sys.row_iter_bsatn_advance(i, new ArrayBuffer(3)); } catch (e) { thrown = e; } check(thrown.__buffer_too_small__ === 13 && !(thrown instanceof Error), 'thrown'); check(sys.row_iter_bsatn_advance(i, new ArrayBuffer(13)) === -13, 'nothing was lost');",
    ),
    (
        "a scan sees what was there",
        "put(1, 'a', 1); const i = sys.datastore_table_scan_bsatn(thing()); put(2, 'b', 1); sys.datastore_clear(thing()); check(read(i) === 13, 'one row');",
    ),
    (
        "numbers of the caller",
        "check(sender.toString(16).length > 50 && typeof sender === 'bigint', 'sender'); check(connection === 0x1234n, 'connection'); check(time === 1700000000123456n, 'time'); check(args instanceof DataView && args.byteLength === 0, 'args'); check(sys.identity() !== sender, 'identity');",
    ),
    (
        "the clock and randomness",
        "check(Date.now() === 1700000000123, 'now'); check(new Date().toISOString() === '2023-11-14T22:13:20.123Z', 'date'); let e; try { Math.random; } catch (x) { e = x; } check(e instanceof TypeError && /ctx.random/.test(e.message), 'random'); check(new Function('return 6 * 7')() === 42, 'code from text');",
    ),
    (
        "globals",
        "for (const name of ['performance', 'queueMicrotask', 'navigator', 'setTimeout', 'fetch', 'crypto', 'URL', 'console', 'SharedArrayBuffer']) check(!(name in globalThis), name);",
    ),
    (
        "text codecs",
        "const e = new TextEncoder(), d = new TextDecoder('utf-8'); check(e.encoding === 'utf-8' && d.encoding === 'utf-8' && !d.fatal && e.encode().length === 0, 'defaults'); const b = e.encode('æ漢🦀'); check(b instanceof Uint8Array && d.decode(b) === 'æ漢🦀' && d.decode(b.buffer) === 'æ漢🦀', 'both ways'); check(d.decode(b.subarray(2)) === '漢🦀' && d.decode(new DataView(b.buffer, 5, 4)) === '🦀', 'views'); check(d.decode(Uint8Array.of(255)) === '\\ufffd' && d.decode() === '', 'replaced'); let t; try { new TextDecoder('utf-8', { fatal: true }).decode(Uint8Array.of(255)); } catch (x) { t = x; } check(t instanceof TypeError, 'fatal'); try { new TextDecoder('latin1'); t = 0; } catch (x) { t = x; } check(t instanceof RangeError, 'label');",
    ),
];

#[test]
fn everything_does_what_the_abi_says() {
    for (name, body) in WORKS {
        running(body).call("run", Vec::new()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// Bodies that must throw, and how the error begins.
const THROWS: [(&str, &str); 40] = [
    ("sys.table_id_from_name(5)", "TypeError: argument 1 (name) must be a string"),
    ("sys.table_id_from_name({ toString() { return 'thing'; } })", "TypeError"),
    ("sys.table_id_from_name('nothing')", "Host4"),
    ("sys.index_id_from_name('nothing')", "Host5"),
    ("sys.datastore_table_row_count('1')", "TypeError: argument 1 (table) must be an integer"),
    ("sys.datastore_table_row_count(1n)", "TypeError"),
    ("sys.datastore_table_row_count(1.5)", "TypeError"),
    ("sys.datastore_table_row_count(-1)", "TypeError"),
    ("sys.datastore_table_row_count(2 ** 32)", "TypeError"),
    ("sys.datastore_table_row_count(NaN)", "TypeError"),
    ("sys.datastore_table_row_count()", "TypeError"),
    ("sys.datastore_table_row_count(2 ** 32 - 1)", "Host4"),
    ("sys.datastore_table_scan_bsatn(1)", "Host4"),
    ("sys.datastore_clear(1)", "Host4"),
    (
        "sys.datastore_insert_bsatn(thing(), new Uint8Array(9), 9)",
        "TypeError: argument 2 (buffer) must be an ArrayBuffer",
    ),
    ("sys.datastore_insert_bsatn(thing(), {}, 9)", "TypeError"),
    ("sys.datastore_insert_bsatn(thing(), new ArrayBuffer(8), 9)", "RangeError: a length of 9 is beyond the 8 bytes"),
    ("const b = new ArrayBuffer(8); b.transfer(); sys.datastore_insert_bsatn(thing(), b, 0)", "TypeError"),
    ("sys.datastore_insert_bsatn(thing(), new ArrayBuffer(8), 8)", "Host3"),
    ("sys.datastore_insert_bsatn(thing(), new ArrayBuffer(0), 0)", "Host3"),
    ("sys.datastore_insert_bsatn(1, row(1, 'a', 1), 13)", "Host4"),
    ("put(1, 'a', 1); put(2, 'a', 1)", "Host12"),
    ("sys.datastore_update_bsatn(thing(), index('size_idx_btree'), row(1, 'a', 1), 13)", "Host14"),
    ("sys.datastore_update_bsatn(thing(), index('id_idx_btree'), row(1, 'a', 1), 13)", "Host15"),
    ("sys.datastore_update_bsatn(thing(), 1, row(1, 'a', 1), 13)", "Host5"),
    ("sys.datastore_delete_all_by_eq_bsatn(thing(), bytes(u32(9)), 4)", "Host3"),
    ("sys.datastore_index_scan_point_bsatn(index('size_idx_btree'), bytes(u32(9)), 3)", "Host3"),
    ("sys.datastore_index_scan_point_bsatn(1, bytes(u32(9)), 4)", "Host5"),
    ("sys.datastore_index_scan_range_bsatn(index('size_idx_btree'), bytes([3]), 0, 0, 1, 0)", "Host3"),
    ("sys.datastore_index_scan_range_bsatn(index('size_idx_btree'), bytes([2]), 0, 0, 0, 1)", "Host3"),
    ("sys.datastore_index_scan_range_bsatn(index('size_idx_btree'), bytes([2]), 0, 7, 1, 0)", "Host3"),
    (
        "sys.datastore_index_scan_range_bsatn(index('size_idx_btree'), bytes([2]), 2 ** 32 - 1, 0, 2 ** 32 - 1, 2)",
        "RangeError",
    ),
    ("sys.datastore_index_scan_range_bsatn(index('size_idx_hash'), bytes([2]), 0, 0, 1, 0)", "Host10"),
    ("sys.row_iter_bsatn_advance(77, new ArrayBuffer(9))", "Host6"),
    ("sys.row_iter_bsatn_advance(sys.datastore_table_scan_bsatn(thing()), new Uint8Array(9))", "TypeError"),
    (
        "const i = sys.datastore_table_scan_bsatn(thing()); sys.row_iter_bsatn_close(i); sys.row_iter_bsatn_close(i)",
        "Host6",
    ),
    ("sys.console_timer_end(3)", "Host7"),
    ("sys.console_log(2, 5)", "TypeError"),
    ("sys.get_jwt_payload(5)", "TypeError"),
    ("sys.get_jwt_payload(2n ** 128n)", "TypeError"),
];

#[test]
fn every_misuse_has_its_error() {
    for (body, expected) in THROWS {
        let mut fixture = running(body);
        let CallError::Thrown(thrown) = fixture.fail("run") else { panic!("{body}") };
        assert!(thrown.message.starts_with(expected), "{body}: {thrown}");
        assert!(!fixture.instance.needs_replacement(), "{body}");
        assert!(fixture.rows("thing").is_empty(), "{body}");
    }
}

#[test]
fn errors_of_the_host_can_be_caught() {
    let bodies: Vec<String> = THROWS.iter().map(|(body, _)| format!("try {{ {body} }} catch {{}}")).collect();
    let mut fixture = running(&format!(
        "{}; sys.datastore_clear(thing()); put(1, 'after', 1);",
        bodies.join("\n").replace("const b ", "var b ").replace("const i ", "var i ")
    ));
    fixture.call("run", Vec::new()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(fixture.rows("thing").len(), 1);
}

#[test]
fn reducers_end_no_transactions_and_procedures_only_their_own() {
    for (body, code) in [
        ("sys.procedure_start_mut_tx()", "Host17"),
        ("sys.procedure_commit_mut_tx()", "Host18"),
        ("sys.procedure_abort_mut_tx()", "Host18"),
        ("sys.procedure_http_request(new Uint8Array(0), '')", "Host17"),
    ] {
        let mut fixture = running(body);
        fixture.host.is_reducer = true;
        let CallError::Thrown(thrown) = fixture.fail("run") else { panic!("{body}") };
        assert!(thrown.message.starts_with(code), "{body}: {thrown}");
    }
    let mut fixture = fixture(
        "function compute() { const code = f => { try { f(); return 0; } catch (e) { return e.code; } };
           const codes = [code(() => sys.datastore_table_row_count(1)), code(() => put(1, 'a', 1)), code(() => sys.procedure_commit_mut_tx())];
           const time = sys.procedure_start_mut_tx();
           codes.push(typeof time === 'bigint', code(() => sys.procedure_start_mut_tx()));
           put(1, 'kept', 1); sys.procedure_commit_mut_tx();
           codes.push(code(() => sys.procedure_http_request(new Uint8Array(0), 'body')));
           sys.procedure_start_mut_tx(); put(2, 'left open', 1);
           check(codes.join() === '2,2,18,true,17,3', codes);
           return bytes(u32(7)) && new Uint8Array(bytes(u32(7))); }",
    );
    assert_eq!(fixture.procedure("compute", Vec::new()).unwrap_or_else(|error| panic!("{error}")), "7");
    assert_eq!(fixture.rows("thing").len(), 1, "what was left open is aborted");
    assert!(!fixture.host.in_transaction);
}

#[test]
fn results_of_hooks_are_checked() {
    for (code, words) in [
        ("function run() { return 5; }", "returned a value"),
        ("function run() { return Promise.resolve(); }", "returned a value"),
    ] {
        let CallError::Thrown(thrown) = fixture(code).fail("run") else { panic!("{code}") };
        assert!(thrown.message.contains(words), "{thrown}");
    }
    for (code, words) in [
        ("function compute() { return 5; }", "not a Uint8Array"),
        ("function compute() { return new Uint8Array(3); }", "not of its type"),
        ("function compute() { return new Uint8Array(5); }", "not of its type"),
    ] {
        let Err(CallError::Thrown(thrown)) = fixture(code).procedure("compute", Vec::new()) else { panic!("{code}") };
        assert!(thrown.message.contains(words), "{thrown}");
    }
}

#[test]
fn iterators_and_timers_end_with_their_call() {
    let mut fixture = fixture(
        "let left;
         function run() { put(1, 'a', 1); left = [sys.datastore_table_scan_bsatn(thing()), sys.console_timer_start('t')]; }
         function again() {
           const code = f => { try { f(); return 0; } catch (e) { return e.code; } };
           check(code(() => sys.row_iter_bsatn_advance(left[0], new ArrayBuffer(99))) === 6, 'iterator');
           check(code(() => sys.row_iter_bsatn_close(left[0])) === 6, 'close');
           check(code(() => sys.console_timer_end(left[1])) === 7, 'timer');
           check(sys.datastore_table_scan_bsatn(thing()) > left[0], 'ids are not used again');
         }",
    );
    fixture.run("run", Vec::new());
    let before = fixture.instance.memory_bytes();
    for _ in 0..100 {
        fixture.run("again", vec![AlgebraicValue::String("x".into())]);
    }
    assert!(fixture.instance.memory_bytes() < before + 100_000, "{}", fixture.instance.memory_bytes());
}

#[test]
fn jobs_run_inside_their_call_and_their_failures_are_logged() {
    let mut fixture = fixture(
        "const registry = new FinalizationRegistry(() => { throw new Error('in a finalizer'); });
         function run() { Promise.resolve().then(() => put(1, 'later', 1)); }
         function again() { Promise.resolve().then(() => put(2, 'lost', 1)); registry.register({}, 1); throw new SenderError('no'); }",
    );
    fixture.run("run", Vec::new());
    assert_eq!(fixture.rows("thing").len(), 1);
    let error = fixture.call("again", vec![AlgebraicValue::String("x".into())]).expect_err("refused");
    assert!(matches!(&error, CallError::User(text) if text == "no"), "{error:?}");
    assert_eq!(fixture.rows("thing").len(), 1, "what jobs of a failed call do is rolled back");
    assert!(!fixture.instance.needs_replacement(), "nothing is left over");
    let logged = fixture.logged();
    assert!(logged.iter().any(|line| line.contains("in a finalizer")), "{logged:?}");
}

#[test]
fn arguments_of_any_length_arrive_exactly() {
    let mut fixture = fixture(
        "function again(sender, connection, time, args) {
           const length = args.getUint32(0, true);
           check(args.byteOffset === 0 && args.byteLength === length + 4, `${args.byteLength} bytes`);
           for (let i = 0; i < length; i++) if (args.getUint8(i + 4) !== 120) throw new Error('content');
           if (length === 5) args.buffer.transfer();
         }",
    );
    for length in [0, 1, 5, 5, 6, 4091, 4092, 4093, 5, 100_000, 1] {
        let text = AlgebraicValue::String("x".repeat(length).into());
        fixture.call("again", vec![text]).unwrap_or_else(|error| panic!("{length}: {error}"));
    }
    let error = fixture.call_raw("again", &[1, 0, 0, 0, b'x', 0]).expect_err("a byte too many");
    assert!(matches!(error, CallError::BadArguments { .. }), "{error:?}");
}

#[test]
fn callers_keep_their_numbers_however_many_there_are() {
    let mut fixture = fixture(
        "function run(sender, connection) { sys.console_log(2, `${sender.toString(16).padStart(64, '0')} ${connection.toString(16)}`); }",
    );
    for round in 0..2 {
        for number in 0..1500_u32 {
            fixture.context.sender = Identity::from_claims("test", &(number / 2).to_string());
            fixture.context.connection_id = (number % 2 == 1).then(|| ConnectionId::new(u128::from(number) << 90));
            fixture.run("run", Vec::new());
            let connection = fixture.context.connection_id.map_or(0, |id| id.get());
            let expected = format!("{} {connection:x}", fixture.context.sender.to_hex());
            assert_eq!(fixture.logged(), [expected], "round {round}, {number}");
        }
    }
}

#[test]
fn only_the_callers_own_token_is_shown() {
    let body = "const text = new TextDecoder().decode(sys.get_jwt_payload(connection)); check(sys.get_jwt_payload(5n).length === 0, 'of another'); sys.console_log(1, text); sys.console_log(101, 'x');";
    let mut fixture = running(body);
    fixture.run("run", Vec::new());
    fixture.context.jwt_payload = Some("{\"sub\":\"me\"}".into());
    fixture.run("run", Vec::new());
    let levels: Vec<LogLevel> = fixture.host.log.iter().map(|entry| entry.level).collect();
    assert_eq!(levels, [LogLevel::Warn, LogLevel::Error, LogLevel::Warn, LogLevel::Error]);
    assert_eq!(fixture.logged(), ["", "x", "{\"sub\":\"me\"}", "x"]);
}

#[test]
fn tables_are_out_of_reach_while_the_bundle_loads() {
    for call in ["thing()", "sys.datastore_table_row_count(1)", "sys.identity()", "sys.procedure_start_mut_tx()"] {
        let code = format!(
            "try {{ {call}; throw 'no error'; }} catch (e) {{ if (e?.constructor !== Error) throw `${{e}}`; }} sys.console_log(2, 'loading');"
        );
        build(&code).unwrap_or_else(|error| panic!("{call}: {error}"));
    }
}

#[test]
fn a_fault_of_the_host_cannot_be_caught() {
    let mut fixture = running(
        "const key = bytes(str('a')); const scan = () => sys.datastore_index_scan_point_bsatn(index('name_idx_btree'), key, key.byteLength);
         try { try { scan(); } finally { put(2, 'b', 1); } } catch (e) { sys.console_log(2, 'caught'); }",
    );
    let schema = Arc::clone(&fixture.schema);
    let (table, index) = schema.index_named("thing_name_idx_btree").expect("exists");
    let (mut entry, name) = (Vec::new(), [1, 0, 0, 0, b'a']);
    key::encode_columns([&table.columns[1].ty], &mut Reader::new(&name), &mut entry).expect("encodes");
    // An index entry without its row: what a damaged store looks like.
    fixture.host.tables.writer_mut().put(index.id.keyspace(), &entry, b"nowhere").expect("written");
    let error = fixture.fail("run");
    assert!(matches!(error, CallError::Fatal(_)), "{error:?}");
    assert!(fixture.instance.needs_replacement());
    assert!(fixture.logged().is_empty(), "no code of the bundle runs any more");
    assert_eq!(fixture.host.tables.row_count(table.id), 0);
}

#[test]
fn limits_hold() {
    let mut fixture = running("try { for (;;) { try { for (;;); } catch {} } } finally { put(1, 'a', 1); }");
    fixture.context.deadline = Duration::from_millis(50);
    let error = fixture.fail("run");
    assert!(matches!(error, CallError::Deadline { .. }), "{error:?}");
    assert!(fixture.instance.needs_replacement() && fixture.rows("thing").is_empty());

    let error = running("const all = []; for (;;) { try { for (;;) all.push(new Uint8Array(1 << 20)); } catch {} }")
        .fail("run");
    assert!(matches!(error, CallError::OutOfMemory { .. }), "{error:?}");
    let error = running("for (let i = 0; i < 9000; i++) put(0, `${i} ${'x'.repeat(1000)}`, 1); for (;;) sys.datastore_table_scan_bsatn(thing());").fail("run");
    assert!(matches!(error, CallError::OutOfMemory { .. }), "iterators count: {error:?}");
    let error = running("(function deep() { deep(); })();").fail("run");
    assert!(matches!(error, CallError::StackOverflow { .. }), "{error:?}");
}

#[test]
fn the_abi_is_checked_by_version_and_name() {
    for (import, words) in [
        ("import { register_hooks } from 'spacetime:sys@1.0';", "needs version 1.0 of the module ABI"),
        ("import * as next from 'spacetime:sys@2.2';", "needs version 2.2 of the module ABI"),
        ("import * as next from 'spacetime:sys@3.0';", "needs version 3.0 of the module ABI"),
        ("import { datastore_clear } from 'spacetime:sys@2.0';", "does not export `datastore_clear`"),
        ("import lodash from 'lodash';", "cannot find \"lodash\""),
    ] {
        let error = build(import).expect_err("refused");
        assert!(error.to_string().contains(words) && error.code() == "TN0510", "{import}: {error}");
        assert!(error.location().is_some_and(|place| place.file == "bundle.js"), "{error}");
    }
}

#[test]
fn a_bundle_without_hooks_is_refused() {
    let sys = "import { moduleHooks } from 'spacetime:sys@2.0';\n";
    for (rest, words) in [
        ("", "the default export of the bundle must be its schema"),
        ("export default 5;", "must be its schema"),
        ("export default null;", "must be its schema"),
        ("export default { [moduleHooks]: 5 };", "must be its schema"),
        ("export default { [moduleHooks]() { return {}; } };", "__describe_module__"),
        ("export default { [moduleHooks]() { throw new RangeError('mine'); } };", "RangeError: mine"),
        ("await new Promise(() => {}); export default 5;", "never happens"),
        ("await Promise.reject(new Error('rejected')); export default 5;", "rejected"),
    ] {
        let bundle = SourceBundle::single("bundle.js", format!("{sys}{rest}"));
        let error = compile(&bundle, &limits()).expect_err("refused");
        let CompileError::Load(LoadError::Thrown(thrown)) = &error else { panic!("{rest}: {error:?}") };
        assert!(thrown.message.contains(words), "{rest}: {thrown}");
    }
    let mut changed = text("").replace("[0, ...DEFINITION]", "[0, ...DEFINITION, 0]");
    let error = compile(&SourceBundle::single("bundle.js", changed), &limits()).expect_err("refused");
    assert!(matches!(error, CompileError::Definition(_)), "{error:?}");
    changed = text("").replace("return new Uint8Array([0, ...DEFINITION]).subarray(1);", "return 'text';");
    let error = compile(&SourceBundle::single("bundle.js", changed), &limits()).expect_err("refused");
    assert!(error.to_string().contains("did not return a Uint8Array"), "{error}");
}

/// A storage in memory that counts what is written.
#[derive(Clone, Default)]
struct Memory {
    entries: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    writes: Arc<Mutex<usize>>,
}

impl CodeStorage for Memory {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.entries.lock().expect("no panic").get(name).cloned()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        *self.writes.lock().expect("no panic") += 1;
        self.entries.lock().expect("no panic").insert(name.to_owned(), bytes.to_owned());
    }
}

#[test]
fn compiled_code_is_kept_and_used() {
    let memory = Memory::default();
    let cache = CodeCache::new([7; 32], Box::new(memory.clone()));
    let bundle = SourceBundle::single("bundle.js", text("function run() { put(1, 'a', 1); }"));
    let writes = || *memory.writes.lock().expect("no panic");
    let first = compile_with_cache(&bundle, &limits(), Some(&cache)).expect("compiles");
    assert_eq!(writes(), 1);
    let second = compile_with_cache(&bundle, &limits(), Some(&cache)).expect("is kept");
    assert_eq!(writes(), 1, "the second time nothing is compiled");
    assert_eq!((first.hash(), first.def(), first.code_bytes()), (second.hash(), second.def(), second.code_bytes()));
    let mut fixture = Fixture::of(second);
    fixture.run("run", Vec::new());
    assert_eq!(fixture.rows("thing").len(), 1);
    for bytes in memory.entries.lock().expect("no panic").values_mut() {
        bytes.truncate(1000);
    }
    compile_with_cache(&bundle, &limits(), Some(&cache)).expect("compiles");
    assert_eq!(writes(), 2, "what does not open is written anew");
    let other = SourceBundle::single("bundle.js", text("function run() { put(2, 'a', 1); }"));
    compile_with_cache(&other, &limits(), Some(&cache)).expect("compiles");
    assert_eq!(writes(), 3);
    compile_with_cache(&SourceBundle::single("index.ts", SHAPE), &limits(), Some(&cache)).expect("compiles");
    assert_eq!(writes(), 3, "source modules are compiled by each process");
}

#[test]
fn javascript_that_only_mentions_the_abi_is_source() {
    let source = format!("// not spacetime:sys@2.0\n{SHAPE}");
    let module = compile(&SourceBundle::single("index.js", source), &limits()).expect("compiles");
    assert_eq!(module.def().tables.len(), 2);
    assert!(module.def().typespace.0.iter().all(|ty| !matches!(ty, AlgebraicType::Ref(_))));
}
