//! What ends a process ends one call.

use std::time::{Duration, Instant};

use tine_module::isolation::Isolation;
use tine_module::{CallError, Instance};
use tine_sandbox::{KillCause, Sandbox, SandboxOptions};

use crate::harness::{Fixture, limits, person};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const CODE: &str = r#"
export const add = db.reducer(ctx => { ctx.db.person.insert({ id: 0n, name: "added", age: 1 }); });
export const half = db.reducer(ctx => {
    ctx.db.person.insert({ id: 0n, name: "half", age: 1 });
    console.log("half done");
    for (;;);
});
// Natives that look at no clock.
export const turn = db.reducer(ctx => {
    ctx.db.person.insert({ id: 0n, name: "lost", age: 1 });
    Array.prototype.reverse.call({ length: 2 ** 53 - 1 });
});
"#;

/// A fixture whose worker is the only one of its sandbox with a key.
struct Alone {
    fixture: Fixture,
    sandbox: Sandbox,
    isolation: Isolation,
}

impl Alone {
    fn new() -> Alone {
        let mut fixture = person(CODE);
        let sandbox = Sandbox::start(SandboxOptions::default()).expect("a sandbox starts");
        let isolation = Isolation::start(&sandbox, &limits()).expect("a pool starts");
        fixture.instance = instance(&fixture, &isolation);
        Alone { fixture, sandbox, isolation }
    }

    /// What a host does with an instance that was stopped in the middle.
    fn replace(&mut self) {
        assert!(self.fixture.instance.needs_replacement());
        self.fixture.instance = instance(&self.fixture, &self.isolation);
    }

    /// The process that serves the instance.
    fn pid(&self) -> i32 {
        let workers = self.sandbox.workers();
        let mut serving = workers.iter().filter(|worker| worker.key.is_some()).map(|worker| worker.pid);
        let pid = serving.next().expect("a worker serves");
        assert_eq!(serving.next(), None, "one instance has one worker");
        pid
    }
}

fn instance(fixture: &Fixture, isolation: &Isolation) -> Instance {
    let made = fixture.module.instantiate_isolated(&fixture.schema, &limits(), isolation);
    made.unwrap_or_else(|error| panic!("{error}"))
}

fn kill(pid: i32) {
    // SAFETY: takes plain numbers; the process is a child of this one that was not reaped a moment ago.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

#[test]
fn a_native_that_never_ends_costs_its_call() {
    let mut alone = Alone::new();
    alone.fixture.context.deadline = Duration::from_millis(100);
    let started = Instant::now();
    let error = alone.fixture.fail("turn");
    assert!(matches!(error, CallError::Deadline { .. }), "{error:?}");
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    assert_eq!(alone.sandbox.metrics().killed(KillCause::Deadline), 1, "the engine cannot end it");
    alone.fixture.context.deadline = PATIENCE;
    alone.replace();
    alone.fixture.run("add", vec![]);
    assert_eq!(alone.fixture.rows("person").len(), 1);
}

#[test]
fn a_process_that_is_killed_costs_its_call() {
    let mut alone = Alone::new();
    let pid = alone.pid();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        kill(pid);
    });
    let error = alone.fixture.fail("half");
    killer.join().expect("kills");
    assert_eq!(error.code(), "TN1102", "{error}");
    // What the call did before is gone, what it said is not.
    assert_eq!(alone.fixture.logged(), ["half done"]);
    assert!(alone.fixture.rows("person").is_empty());
    alone.replace();
    alone.fixture.run("add", vec![]);
    assert_eq!(alone.fixture.rows("person").len(), 1);
}

#[test]
fn a_process_that_is_killed_between_calls_costs_none() {
    let mut alone = Alone::new();
    alone.fixture.run("add", vec![]);
    let pid = alone.pid();
    kill(pid);
    let started = Instant::now();
    while alone.sandbox.workers().iter().any(|worker| worker.pid == pid) {
        assert!(started.elapsed() < PATIENCE, "the worker is not reaped");
        std::thread::sleep(Duration::from_millis(5));
    }
    alone.fixture.run("add", vec![]);
    assert_eq!(alone.fixture.rows("person").len(), 2);
    assert!(!alone.fixture.instance.needs_replacement());
}

#[test]
fn an_instance_takes_its_process_along() {
    let alone = Alone::new();
    let pid = alone.pid();
    let Alone { fixture, sandbox, .. } = alone;
    drop(fixture);
    let started = Instant::now();
    while sandbox.workers().iter().any(|worker| worker.pid == pid) {
        assert!(started.elapsed() < PATIENCE, "the worker outlives its instance");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn large_arguments_and_rows_travel_in_pieces() {
    let mut fixture = person(
        r#"
export const put = db.reducer({ name: t.string() }, (ctx, { name }) => { ctx.db.person.insert({ id: 0n, name, age: 1 }); });
export const copy = db.reducer(ctx => {
    const rows = [...ctx.db.person.iter()];
    for (const row of rows) ctx.db.person.insert({ ...row, id: 0n });
});
"#,
    );
    fixture.run("put", vec![crate::harness::text(&"x".repeat(300_000))]);
    fixture.run("copy", vec![]);
    fixture.run("copy", vec![]);
    let rows = fixture.rows("person");
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.len() > 300_000));
}
