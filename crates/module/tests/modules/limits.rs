//! Time, memory and stack are bounded, whatever the code does.

use std::time::{Duration, Instant};

use tine_module::{CallError, CompileError, Limits, LoadError, SourceBundle};

use crate::harness::{Fixture, PERSON, compile, instantiate, limits, person};

fn short(mut fixture: Fixture) -> Fixture {
    fixture.context.deadline = Duration::from_millis(40);
    fixture
}

#[test]
fn nothing_outlives_its_deadline() {
    let bodies = [
        "for (;;);",
        "for (;;) { try { for (;;); } catch {} finally { for (;;); } }",
        "function f() { try { f(); } finally { f(); } } f();",
        "Promise.resolve().then(function again() { return Promise.resolve().then(again); });",
        "(async () => { for (;;) await null; })();",
        "const spin = async () => { try { for (;;); } catch { for (;;); } }; spin().catch(spin);",
        "[...(function* () { try { for (;;) yield 1; } finally { for (;;); } })()];",
        "throw { toString() { for (;;); } };",
        "throw new Proxy({}, { getPrototypeOf() { for (;;); } });",
        "throw Object.defineProperty(new Error('x'), 'message', { get() { for (;;); } });",
        "ctx.db.person.insert({ id: 0n, get name() { for (;;); }, age: 1 });",
        "/(a+)+$/.test('a'.repeat(60) + 'b');",
        "for (;;) ctx.db.person.insert({ id: 0n, name: 'x', age: 1 });",
        "[3, 2, 1].sort(() => { for (;;); });",
        "for (;;) console.log('x');",
    ];
    let code: Vec<String> = bodies
        .iter()
        .enumerate()
        .map(|(index, body)| format!("export const r{index} = db.reducer(ctx => {{ {body} }});"))
        .collect();
    let first = person(&code.join("\n"));
    let module = first.module.clone();
    for (index, body) in bodies.iter().enumerate() {
        let mut fixture = short(Fixture::of(module.clone()));
        let started = Instant::now();
        let error = fixture.fail(&format!("r{index}"));
        assert!(matches!(error, CallError::Deadline { .. }), "{body}: {error:?}");
        assert!(error.replaces_instance() && fixture.instance.needs_replacement(), "{body}");
        assert!(started.elapsed() < Duration::from_millis(1500), "{body}: {:?}", started.elapsed());
        assert!(fixture.rows("person").is_empty());
    }
}

#[test]
fn a_deadline_names_the_loop() {
    // The engine knows the function it interrupts, not the line it is at.
    let mut fixture =
        short(person("\n\nfunction spin(): never { for (;;); }\nexport const go = db.reducer(() => spin());\n"));
    let CallError::Deadline { location: Some(location) } = fixture.fail("go") else { panic!("no location") };
    assert_eq!((location.file.as_str(), location.line), ("index.ts", 9));
}

#[test]
fn memory_is_capped() {
    let bodies = [
        "const list = []; for (;;) list.push({ a: [1, 2, 3] });",
        "let s = 'x'; for (;;) { s += s; s.at(7); }",
        "new Uint8Array(1e9);",
        "const list = []; try { for (;;) list.push(new Array(1000).fill(7)); } catch { list.length = 0; }",
        "const keep = []; for (;;) keep.push(ctx.db.person.iter());",
        "const keep = []; for (;;) keep.push(new Identity(5n));",
        "[].concat(...new Array(5e4).fill(new Array(1e4).fill(1)));",
        "'x'.repeat(2 ** 28);",
    ];
    let code: Vec<String> = bodies
        .iter()
        .enumerate()
        .map(|(index, body)| format!("export const r{index} = db.reducer(ctx => {{ {body} }});"))
        .collect();
    let source = format!("import {{ Identity }} from 'tine:server';\n{PERSON}{}", code.join("\n"));
    let module =
        compile(&SourceBundle::single("index.ts", source), &limits()).unwrap_or_else(|error| panic!("{error}"));
    for (index, body) in bodies.iter().enumerate() {
        let mut fixture = Fixture::of(module.clone());
        // Some get there in small steps.
        fixture.context.deadline = Duration::from_secs(60);
        let error = fixture.fail(&format!("r{index}"));
        assert!(matches!(error, CallError::OutOfMemory { .. }), "{body}: {error:?}");
        assert!(fixture.instance.needs_replacement(), "{body}");
        assert!(fixture.instance.memory_bytes() <= limits().memory_bytes);
    }
}

#[test]
fn recursion_is_capped() {
    let mut fixture = person(
        r#"
export const deep = db.reducer(() => { const f = n => f(n + 1) + 1; f(0); });
export const caught = db.reducer(() => { let depth = 0; const f = () => { depth++; f(); }; try { f(); } catch (e) { console.log(e.name, depth > 100); } });
export const nested = db.reducer(ctx => { const f = () => ctx.db.person.insert({ id: 0n, get name() { f(); return "x"; }, age: 1 }); f(); });
export const json = db.reducer(() => { let a = []; for (let i = 0; i < 1e5; i++) a = [a]; JSON.stringify(a); });
export const fine = db.reducer(() => {});
"#,
    );
    for name in ["deep", "nested", "json"] {
        let error = fixture.fail(name);
        assert!(matches!(error, CallError::StackOverflow { .. }), "{name}: {error:?}");
        fixture.run("fine", vec![]);
    }
    fixture.run("caught", vec![]);
    assert_eq!(fixture.logged(), ["RangeError true"]);
}

#[test]
fn loading_is_bounded_too() {
    let limits = Limits { load_deadline: Duration::from_millis(100), memory_bytes: 4 << 20, ..limits() };
    let compile = |code: &str| compile(&SourceBundle::single("index.js", code), &limits).expect_err(code);
    for (code, expected) in [
        ("for (;;);", "TN0521"),
        ("try { for (;;); } catch { for (;;); }", "TN0521"),
        ("const a = []; for (;;) a.push({});", "TN0522"),
        ("(function f() { f(); })();", "TN0523"),
        ("await new Promise(() => {});", "TN0520"),
        ("Promise.resolve().then(function f() { Promise.resolve().then(f); });", "TN0521"),
        ("export default { get x() { for (;;); } };", "TN0520"),
    ] {
        let error = compile(code);
        assert_eq!(error.code(), expected, "{code}: {error}");
    }
    assert!(
        matches!(compile("\n\nfor (;;);"), CompileError::Load(LoadError::Deadline { location: Some(at) }) if at.file == "index.js")
    );
}

#[test]
fn a_cap_too_small_for_the_engine_is_an_error() {
    for memory_bytes in [0, 10_000, 100_000, 300_000] {
        let limits = Limits { memory_bytes, ..limits() };
        let error = compile(&SourceBundle::single("index.ts", PERSON), &limits).expect_err("too small");
        assert_eq!(error.code(), "TN0522", "{memory_bytes}: {error}");
    }
}

#[test]
fn another_thread_can_interrupt() {
    let mut fixture = person("export const go = db.reducer(() => { for (;;); });\n");
    let handle = fixture.instance.interrupt_handle();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        handle.interrupt();
    });
    assert!(matches!(fixture.fail("go"), CallError::Interrupted { .. }));
    assert!(fixture.instance.needs_replacement());
    stopper.join().expect("ends");
}

#[test]
fn instances_move_between_threads() {
    let mut fixture = person(
        r#"
let calls = 0;
export const go = db.reducer(ctx => { calls++; ctx.db.person.insert({ id: 0n, name: `n${calls}`, age: calls }); });
export const deep = db.reducer(() => { const f = n => (n === 0 ? 0 : f(n - 1) + 1); f(200); });
"#,
    );
    for _ in 0..20 {
        fixture = std::thread::scope(|scope| {
            let runner = std::thread::Builder::new().stack_size(1 << 20);
            runner
                .spawn_scoped(scope, move || {
                    fixture.run("go", vec![]);
                    fixture.run("deep", vec![]);
                    fixture
                })
                .expect("spawns")
                .join()
                .expect("ends")
        });
    }
    assert_eq!(fixture.rows("person").len(), 20);
    std::thread::spawn(move || drop(fixture)).join().expect("may be dropped anywhere");
}

#[test]
fn ten_thousand_failures_leak_nothing() {
    let mut fixture = person(
        r#"
export const thrown = db.reducer(ctx => { ctx.db.person.insert({ id: 0n, name: "x".repeat(100), age: 1 }); null.x; });
export const sender = db.reducer(ctx => { for (const p of ctx.db.person) throw new SenderError("x"); throw new SenderError("y"); });
export const deep = db.reducer(() => { const f = () => f(); f(); });
export const wrong = db.reducer(ctx => { ctx.db.person.insert({ id: 0n, name: "x", age: "y" }); });
export const left = db.reducer(ctx => { ctx.db.person.iter().next(); ctx.db.person.iter(); throw ctx.sender; });
"#,
    );
    let round = |fixture: &mut Fixture, count: usize| {
        for _ in 0..count {
            for name in ["thrown", "sender", "wrong", "left"] {
                fixture.fail(name);
            }
        }
        for _ in 0..count / 20 {
            fixture.fail("deep");
        }
        assert!(matches!(fixture.call_raw("thrown", &[1, 2, 3]), Err(CallError::BadArguments { .. })));
    };
    round(&mut fixture, 200);
    let before = fixture.instance.memory_bytes();
    round(&mut fixture, 2500);
    let after = fixture.instance.memory_bytes();
    assert!(after <= before + 64 * 1024, "{before} bytes became {after}");
    assert!(!fixture.instance.needs_replacement());
}

#[test]
fn instances_are_small_and_given_back() {
    let fixture = person("export const go = db.reducer(() => {});\n");
    let bytes = fixture.instance.memory_bytes();
    assert!(bytes < 3 << 20, "{bytes}");
    let schema = fixture.schema.clone();
    for _ in 0..50 {
        let instance = instantiate(&fixture.module, &schema, &limits()).expect("loads");
        assert!(instance.memory_bytes().abs_diff(bytes) < 256 * 1024);
    }
}
