//! Procedures and their transactions.

use tine_module::CallError;
use tine_types::AlgebraicValue;

use crate::harness::{Fixture, person, text};

const CODE: &str = r#"
const Total = t.object("Total", { people: t.u64(), names: t.array(t.string()) });
export const register = db.procedure({ name: t.string() }, Total, (ctx, { name }) => {
  const id = ctx.withTx(tx => tx.db.person.insert({ id: 0n, name, age: 1 }).id);
  console.log("inserted", id, "db" in ctx, ctx.sender.isEqual(ctx.sender));
  return ctx.withTx(tx => ({ people: tx.db.person.count(), names: [...tx.db.person].map(p => p.name) }));
});
export const times = db.procedure(t.unit(), ctx => {
  const inside = [];
  for (let i = 0; i < 2; i++) inside.push(ctx.withTx(tx => tx.timestamp.since(ctx.timestamp).micros > 0n));
  console.log(ctx.timestamp.microsSinceUnixEpoch, inside);
  return {};
});
export const failing = db.procedure(t.u8(), ctx => {
  ctx.withTx(tx => tx.db.person.insert({ id: 0n, name: "kept", age: 1 }));
  try {
    ctx.withTx(tx => { tx.db.person.insert({ id: 0n, name: "gone", age: 1 }); throw new Error("undo"); });
  } catch (e) { console.log(e.message); }
  return 300;
});
export const nested = db.procedure(t.string(), ctx => {
  try { return ctx.withTx(() => ctx.withTx(() => "twice")); } catch (e) { return `${e.name}: ${e.message}`; }
});
export const outside = db.procedure(t.string(), ctx => {
  let stolen;
  ctx.withTx(tx => { stolen = tx.db; });
  try { return `${stolen.person.count()}`; } catch (e) { return `${e.name}: ${e.message}`; }
});
let bodies = 0;
export const retried = db.procedure(t.u32(), ctx => ctx.withTx(tx => { tx.db.person.insert({ id: 0n, name: "r", age: ++bodies }); return bodies; }));
export const stuck = db.procedure(t.unit(), ctx => ctx.withTx(tx => { tx.db.person.insert({ id: 0n, name: "s", age: 1 }); for (;;); }));
export const promised = db.procedure(t.unit(), async ctx => ({}));
export const user = db.procedure(t.unit(), ctx => { throw new SenderError("no"); });
"#;

fn fixture() -> Fixture {
    person(CODE)
}

#[test]
fn a_procedure_runs_transactions_and_returns_a_value() {
    let mut fixture = fixture();
    let result = fixture.procedure("register", vec![text("Ada")]).expect("runs");
    assert_eq!(result, r#"{"names":["Ada"],"people":1}"#);
    assert_eq!(fixture.logged(), ["inserted 1n false true"]);
    assert_eq!(fixture.host.transactions, 2);
    fixture.procedure("times", vec![]).expect("runs");
    assert_eq!(fixture.logged(), ["1700000000123456n [true, true]"]);
}

#[test]
fn a_transaction_that_throws_is_undone() {
    let mut fixture = fixture();
    let error = fixture.procedure("failing", vec![]).expect_err("300 is no u8");
    assert!(
        error.to_string().contains("the result of `failing`: expected an integer from 0 to 255, got 300"),
        "{error}"
    );
    assert_eq!(fixture.logged(), ["undo"]);
    assert_eq!(fixture.rows("person"), [r#"{"age":1,"id":1,"name":"kept"}"#], "what was committed stays");
}

#[test]
fn misuse_is_refused() {
    let mut fixture = fixture();
    assert_eq!(
        fixture.procedure("nested", vec![]).expect("runs"),
        "\"WouldBlockTransaction: a transaction is open already\""
    );
    let outside = fixture.procedure("outside", vec![]).expect("runs");
    assert_eq!(outside, "\"NotInTransaction: tables can be used inside a reducer or withTx() only\"");
    assert!(matches!(fixture.procedure("promised", vec![]), Err(CallError::ReturnedPromise { .. })));
    assert!(matches!(fixture.procedure("user", vec![]), Err(CallError::User(text)) if text == "no"));
    assert!(!fixture.host.in_transaction);
}

#[test]
fn a_refused_commit_runs_the_body_again() {
    let mut fixture = fixture();
    fixture.host.commits_to_refuse = 1;
    assert_eq!(fixture.procedure("retried", vec![]).expect("runs"), "2");
    assert_eq!(fixture.rows("person"), [r#"{"age":2,"id":1,"name":"r"}"#]);
    assert!(fixture.logged()[0].contains("running it again"));
    fixture.host.commits_to_refuse = 2;
    let error = fixture.procedure("retried", vec![]).expect_err("refused twice");
    assert!(error.to_string().contains("HostCallFailure: refused"), "{error}");
}

#[test]
fn a_stopped_procedure_leaves_no_transaction_open() {
    let mut fixture = fixture();
    fixture.context.deadline = std::time::Duration::from_millis(30);
    assert!(matches!(fixture.procedure("stuck", vec![]), Err(CallError::Deadline { .. })));
    assert!(!fixture.host.in_transaction, "aborted");
    assert!(fixture.rows("person").is_empty());
    assert!(fixture.instance.needs_replacement());
}

#[test]
fn results_of_every_shape() {
    let mut fixture = person(
        r#"
export const none = db.procedure(t.option(t.string()), () => undefined);
export const echo = db.procedure({ n: t.u64() }, t.array(t.u64()), (_, { n }) => [n, n + 1n]);
"#,
    );
    assert_eq!(fixture.procedure("none", vec![]).expect("runs"), r#"{"none":[]}"#);
    assert_eq!(fixture.procedure("echo", vec![AlgebraicValue::U64(5)]).expect("runs"), "[5,6]");
}
