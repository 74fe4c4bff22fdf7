//! What a failure says, and where.

use tine_module::{CallError, Diagnostic, LogLevel, SourceBundle};

use crate::harness::{Fixture, compile, compile_source, limits, person};

fn thrown(error: CallError) -> Diagnostic {
    match error {
        CallError::Thrown(diagnostic) => *diagnostic,
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_point_into_typescript() {
    let source = r#"import { schema, table, t, type ReducerCtx } from "tine:server";

interface Wanted {
  name: string;
  deep?: { value: number };
}

enum Mode { On = 1, Off }

const db = schema({ person: table({}, { name: t.string() }) });
export default db;

function inner<T extends Wanted>(wanted: T): number {
  // The type says it may be undefined.
  return wanted.deep!.value;
}

export const go = db.reducer((ctx): void => {
  const mode: Mode = Mode.Off;
  inner({ name: `${mode}` } as Wanted);
});

export const bad = db.reducer((ctx) => {
  ctx.db.person.insert({ name: 5 as unknown as string });
});
"#;
    let mut fixture = Fixture::new(source);
    let error = thrown(fixture.fail("go"));
    assert_eq!(
        error.to_string(),
        "index.ts:15:10: TypeError: cannot read property 'value' of undefined\n  15 |   return wanted.deep!.value;\n     |          ^\n    at inner (index.ts:15:10)\n    at go (index.ts:20:20)"
    );
    let error = thrown(fixture.fail("bad"));
    let location = error.location.expect("placed");
    assert_eq!(
        (location.line, error.message.as_str()),
        (24, "TypeError: table `person`, `name`: expected a string, got 5")
    );
    assert!(error.excerpt.expect("shown").contains("ctx.db.person.insert"));
}

#[test]
fn errors_point_into_the_right_file() {
    let mut bundle = SourceBundle::single(
        "index.ts",
        format!(
            "{}import {{ boom }} from './lib/boom';\nexport const go = db.reducer(() => boom());\n",
            crate::harness::PERSON
        ),
    );
    bundle.files.insert(
        "lib/boom.js".to_owned(),
        "// Plain JavaScript.\nexport function boom() {\n  throw new RangeError(\"too far\");\n}\n".to_owned(),
    );
    let mut fixture = Fixture::of(compile(&bundle, &limits()).expect("compiles"));
    let error = thrown(fixture.fail("go"));
    assert_eq!(error.message, "RangeError: too far");
    let places: Vec<String> = error.stack.iter().map(|frame| frame.location.to_string()).collect();
    assert!(places[0].starts_with("lib/boom.js:3:") && places[1].starts_with("index.ts:8:"), "{places:?}");
}

#[test]
fn syntax_and_load_errors_are_placed() {
    let error = compile_source("import { t } from 'tine:server';\nconst x: = 1;\n").expect_err("no type");
    assert_eq!((error.code(), error.location().map(|at| (at.line, at.column))), ("TN0510", Some((2, 10))), "{error}");
    let error =
        compile_source("type A = number;\n\nconst table: A[] = [];\nfunction f() { return (null as any).x; }\nf();\n")
            .expect_err("throws");
    assert_eq!((error.code(), error.location().map(|at| at.line)), ("TN0520", Some(4)), "{error}");
    let error = compile_source("export default 5;\nthrow 'text';\n").expect_err("throws");
    assert_eq!(error.to_string(), "uncaught: text");
    let error = compile_source("import { x } from './gone';\nx();\n").expect_err("no file");
    assert_eq!(error.location().map(|at| (at.line, at.column)), Some((1, 19)), "{error}");
    // Decorators parse but are not in the engine.
    let error =
        compile_source("const d: any = (x: any) => x;\n\n@d class A {}\nnew A();\n").expect_err("no decorators");
    assert_eq!(error.location().map(|at| at.line), Some(3), "{error}");
}

#[test]
fn sender_errors_are_for_the_caller() {
    let mut fixture = person(
        r#"
class Special extends SenderError {}
export const plain = db.reducer(() => { throw new SenderError("not today"); });
export const derived = db.reducer(() => { throw new Special("nor tomorrow"); });
export const early = db.clientConnected(() => { throw new SenderError("go away"); });
"#,
    );
    for (reducer, expected) in [("plain", "not today"), ("derived", "nor tomorrow"), ("early", "go away")] {
        let error = fixture.fail(reducer);
        assert!(error.is_user() && !error.replaces_instance());
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn anything_can_be_thrown() {
    let cases: [(&str, &str); 16] = [
        ("null", "uncaught: null"),
        ("undefined", "uncaught: undefined"),
        ("7", "uncaught: 7"),
        ("'text'", "uncaught: text"),
        ("10n", "uncaught: 10"),
        ("Symbol('s')", "uncaught: a value that cannot be shown"),
        ("{}", "uncaught: [object Object]"),
        ("Object.freeze({ message: 'frozen' })", "uncaught: [object Object]"),
        ("Object.create(null)", "uncaught: a value that cannot be shown"),
        ("{ toString() { throw 1; } }", "uncaught: a value that cannot be shown"),
        ("Object.freeze(new Error('cold'))", "Error: cold"),
        ("Object.defineProperty(new Error('x'), 'message', { get() { throw new Error('nested'); } })", "Error"),
        ("Object.defineProperty(new Error('x'), 'stack', { get() { throw 1; } })", "Error: x"),
        (
            "new Proxy({}, { get() { throw new Error('trap'); }, getPrototypeOf() { throw new Error('trap'); } })",
            "uncaught: a value that cannot be shown",
        ),
        ("Object.assign(new Error('m'), { name: '' })", "m"),
        ("new Proxy(new Error('behind'), {})", "uncaught: Error: behind"),
    ];
    let code: Vec<String> = cases
        .iter()
        .enumerate()
        .map(|(index, (value, _))| format!("export const r{index} = db.reducer(() => {{ throw ({value}); }});"))
        .collect();
    let mut fixture = person(&code.join("\n"));
    for (index, (value, expected)) in cases.iter().enumerate() {
        let error = thrown(fixture.fail(&format!("r{index}")));
        assert_eq!(error.message, *expected, "{value}");
    }
    assert!(!fixture.instance.needs_replacement());
}

#[test]
fn promises_are_refused_but_jobs_run() {
    let mut fixture = person(
        r#"
export const later = db.reducer(async ctx => { ctx.db.person.insert({ id: 0n, name: "a", age: 1 }); await null; console.log("resumed"); });
export const failing = db.reducer(async () => { throw new Error("inside"); });
export const chained = db.reducer(ctx => {
  Promise.resolve(1).then(value => { ctx.db.person.insert({ id: 0n, name: "job", age: value }); });
});
export const lost = db.reducer(() => { Promise.reject(new Error("nobody looks")); });
export const poisoned = db.reducer(ctx => {
  Promise.resolve().then(() => console.log("must not run in a later call"));
  throw new Error("first");
});
"#,
    );
    assert!(matches!(fixture.fail("later"), CallError::ReturnedPromise { function } if function == "later"));
    assert_eq!(fixture.logged(), ["resumed"]);
    assert!(matches!(fixture.fail("failing"), CallError::ReturnedPromise { .. }));
    fixture.logged();
    fixture.run("chained", vec![]);
    assert_eq!(fixture.rows("person"), [r#"{"age":1,"id":1,"name":"job"}"#]);
    fixture.run("lost", vec![]);
    let logged = fixture.logged();
    assert!(
        logged[0].starts_with("unhandled promise rejection: index.ts:13:") && logged[0].contains("Error: nobody looks"),
        "{logged:?}"
    );
    assert!(!fixture.instance.needs_replacement());
    fixture.fail("poisoned");
    assert!(fixture.instance.needs_replacement(), "its jobs would run in the next call");
}

#[test]
fn the_console_names_its_place() {
    let mut fixture = person(
        r#"
function helper(): void { console.warn("careful", { a: [1, "x", null], b: undefined }); }
export const go = db.reducer(() => {
  console.error("bad");
  helper();
  console.debug(1n, true, Symbol("s"), new Map([[1, { two: 2 }]]), new Set(["x"]), () => 1, [[[[[1]]]]]);
  console.assert(1 === 1, "fine");
  console.assert(false, "not fine");
  console.table([1]); console.count(); console.count();
  const loop: any = {}; loop.self = loop; console.trace(loop, new Date(0), class A {}, new (class B { x = 1 })());
});
"#,
    );
    fixture.run("go", vec![]);
    let log = std::mem::take(&mut fixture.host.log);
    let seen: Vec<(LogLevel, &str)> = log.iter().map(|entry| (entry.level, entry.message.as_str())).collect();
    assert_eq!(
        seen,
        [
            (LogLevel::Error, "bad"),
            (LogLevel::Warn, "careful { a: [1, \"x\", null], b: undefined }"),
            (
                LogLevel::Debug,
                "1n true Symbol(s) Map(1) {1 => { two: 2 }} Set(1) {\"x\"} [Function: anonymous] [[[[[Array]]]]]"
            ),
            (LogLevel::Error, "Assertion failed: not fine"),
            (LogLevel::Info, "[1]"),
            (LogLevel::Info, "default: 1"),
            (LogLevel::Info, "default: 2"),
            (LogLevel::Trace, "{ self: [Circular] } 1970-01-01T00:00:00.000Z [Function: A] B { x: 1 }"),
        ]
    );
    let place = |index: usize| (log[index].file.as_deref(), log[index].line, log[index].function.as_deref());
    assert_eq!(place(0), (Some("index.ts"), Some(10), Some("go")));
    assert_eq!(place(1), (Some("index.ts"), Some(8), Some("helper")));
}

#[test]
fn the_log_of_one_call_is_bounded() {
    let mut fixture = person(
        r#"
export const many = db.reducer(() => { for (let i = 0; i < 3000; i++) console.log(i); });
export const big = db.reducer(() => { console.log("x".repeat(1e6)); });
"#,
    );
    fixture.run("many", vec![]);
    let logged = fixture.logged();
    assert_eq!(logged.len(), 1001);
    assert!(logged[1000].contains("the rest is dropped"));
    fixture.run("big", vec![]);
    assert!(fixture.logged()[0].len() < 20_000);
}

#[test]
fn a_panic_of_the_host_reaches_the_caller() {
    let mut fixture = person(
        r#"
export const go = db.reducer(() => { try { console.log("x"); } catch { } finally { } });
"#,
    );
    struct Panicking;
    impl tine_module::CallHost for Panicking {
        fn tables(&mut self) -> Option<&mut tine_tables::TableWriter> {
            None
        }
        fn log(&mut self, _: tine_module::LogEntry) {
            panic!("the log is broken");
        }
        fn begin_transaction(&mut self) -> Result<tine_types::Timestamp, tine_module::SyscallError> {
            unreachable!("not asked for")
        }
        fn commit_transaction(&mut self) -> Result<(), tine_module::SyscallError> {
            unreachable!("not asked for")
        }
        fn abort_transaction(&mut self) -> Result<(), tine_module::SyscallError> {
            unreachable!("not asked for")
        }
    }
    let index = fixture.reducer_index("go");
    let context = fixture.context.clone();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = fixture.instance.call_reducer(index, &context, &[], &mut Panicking);
    }));
    let payload = outcome.expect_err("the panic goes on");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"the log is broken"));
    assert!(fixture.instance.needs_replacement());
}
