//! History: listed, verified, replayed with the same code and with other code, resumed, and asked for older versions.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use tine_base::SystemEnv;
use tine_host::{
    Actor, CallArguments, CallFailure, CallKind, ForkRequest, HistoryRequest, Host, HostError, HostOptions, Lsn,
    Outcome, PublishRequest, RedoPlace, ReplayReport, ReplayRequest, Requester, VerifyRequest, VersionAt,
};
use tine_module::SourceBundle;
use tine_sandbox::{Sandbox, SandboxOptions};
use tine_store::{Direction, KeyspaceId, Read, Store, StoreOptions};
use tine_types::Identity;

const PATIENCE: Duration = Duration::from_secs(20);
const OWNER: Identity = Identity::from_le_bytes([7; 32]);

/// A bank. What the other one does differently is in `RULES`.
const BANK: &str = r#"
import { ScheduleAt, schema, SenderError, t, table } from "tine:server";

const account = table({ public: true }, { id: t.u64().primaryKey().autoInc(), name: t.string(), balance: t.i64() });
const ledger = table({}, { id: t.u64().primaryKey().autoInc(), to: t.u64().index("btree"), amount: t.i64(), note: t.string() });
const bell = table({}, { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt() });
const db = schema({ account, ledger, bell });
export default db;

RULES

export const open = db.reducer({ name: t.string() }, (ctx, { name }) => {
  ctx.db.account.insert({ id: 0n, name, balance: 100n });
});
export const pay = db.reducer({ from: t.u64(), to: t.u64(), amount: t.i64() }, (ctx, { from, to, amount }) => {
  const source = ctx.db.account.id.find(from);
  const target = ctx.db.account.id.find(to);
  if (!source || !target || from === to) throw new SenderError("no such accounts");
  if (forbidden(amount)) throw new SenderError("unlucky");
  if (source.balance - amount < lowest) throw new SenderError("too poor");
  ctx.db.account.id.update({ ...source, balance: source.balance - amount });
  ctx.db.account.id.update({ ...target, balance: target.balance + amount - fee(amount) });
  ctx.db.ledger.insert({ id: 0n, to, amount, note: `${ctx.sender.toHexString().slice(0, 4)} ${ctx.timestamp.microsSinceUnixEpoch}` });
});
export const gamble = db.reducer(ctx => {
  ctx.db.ledger.insert({ id: 0n, to: 0n, amount: BigInt(ctx.random.integerInRange(0, 1000000)), note: `${Math.random()} ${Date.now()}` });
});
let calls = 0;
export const forgetful = db.reducer(ctx => { ctx.db.ledger.insert({ id: 0n, to: 0n, amount: BigInt(++calls), note: "" }); });
export const look = db.reducer(() => {});
export const ring = db.reducer({ onSchedule: bell }, { arg: bell.rowType }, ctx => {
  ctx.db.ledger.insert({ id: 0n, to: 0n, amount: 0n, note: "rang" });
});
export const wind = db.reducer(ctx => {
  ctx.db.bell.insert({ id: 0n, at: ScheduleAt.time(ctx.timestamp.microsSinceUnixEpoch) });
});
export const settle = db.procedure({}, t.u32(), ctx => {
  ctx.withTx(tx => tx.db.ledger.insert({ id: 0n, to: 0n, amount: -1n, note: "settled" }));
  return 1;
});
"#;

const RULES: &str =
    "const lowest = 0n; const fee = (amount: bigint) => 0n; const forbidden = (amount: bigint) => false;";
const OTHER_RULES: &str = "const lowest = -10n; const fee = (amount: bigint) => amount > 40n ? 1n : 0n; const forbidden = (amount: bigint) => amount === 13n;";

fn bank(rules: &str) -> Vec<u8> {
    SourceBundle::single("index.ts", BANK.replace("RULES", rules).as_str()).encode()
}

fn actor() -> Actor {
    Actor { identity: OWNER, is_admin: true }
}

struct Setup {
    host: Host,
    directory: tempfile::TempDir,
}

/// The test harness has a `main` of its own, so that this runs before it: the C library calls what is in this section with the
/// arguments already in place and no thread started.
#[used]
#[unsafe(link_section = ".init_array")]
static INIT: extern "C" fn() = {
    extern "C" fn init() {
        tine_sandbox::init(&[tine_module::isolation::ENTRY]);
    }
    init
};

impl Setup {
    /// A host with worker processes, as a server has them.
    fn new() -> Setup {
        static SANDBOX: OnceLock<Arc<Sandbox>> = OnceLock::new();
        let start = || Arc::new(Sandbox::start(SandboxOptions::default()).expect("a sandbox starts"));
        Setup::with_sandbox(Some(SANDBOX.get_or_init(start).clone()))
    }

    fn with_sandbox(sandbox: Option<Arc<Sandbox>>) -> Setup {
        let directory = tempfile::tempdir().expect("a directory");
        let options = HostOptions { sandbox, ..HostOptions::new(directory.path().to_owned()) };
        let host = Host::open(options, Arc::new(SystemEnv)).expect("opens");
        let request = PublishRequest { program: bank(RULES), ..PublishRequest::default() };
        host.publish(Some("db"), &actor(), request).expect("published");
        Setup { host, directory }
    }

    /// Calls a function and waits; returns the newest commit then, or the failure.
    fn call(&self, function: &str, arguments: Value) -> Result<Lsn, CallFailure> {
        let handle = self.host.resolve("db").expect("there");
        let (sender, receiver) = mpsc::sync_channel(1);
        let requester = Requester { identity: OWNER, jwt_payload: None };
        let reply = Box::new(move |reply: tine_host::Reply<_>| drop(sender.send(reply)));
        let _guard = handle.call(requester, function, CallArguments::Json(arguments), reply);
        let reply = receiver.recv_timeout(PATIENCE).expect("answered");
        reply.result.map(|_| reply.lsn)
    }

    fn replay(&self, request: ReplayRequest) -> Result<ReplayReport, HostError> {
        self.host.replay("db", &actor(), &request, &mut |_| ControlFlow::Continue(()))
    }

    fn select(&self, address: &str, sql: &str) -> Vec<Vec<u8>> {
        let requester = Requester { identity: OWNER, jwt_payload: None };
        let at = VersionAt::Lsn(self.host.resolve(address).expect("there").head());
        let (rows, _) = self.host.select_as_of(address, &requester, sql, at).expect("selected");
        rows.rows.iter().map(|row| row.to_vec()).collect()
    }
}

/// A splitmix64, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A request of one kind or another; those of `pay` are returned.
fn traffic(setup: &Setup, random: &mut Random) -> Option<(u64, u64, i64, bool)> {
    match random.below(20) {
        0 => drop(setup.call("gamble", json!([]))),
        1 => drop(setup.call("look", json!([]))),
        2 => drop(setup.call("wind", json!([]))),
        3 => drop(setup.call("settle", json!([]))),
        _ => {
            let (from, to, amount) = (1 + random.below(5), 1 + random.below(5), random.below(60) as i64);
            let done = setup.call("pay", json!([from, to, amount])).is_ok();
            return Some((from, to, amount, done));
        }
    }
    None
}

fn open_accounts(setup: &Setup) {
    for name in ["a", "b", "c", "d", "e"] {
        setup.call("open", json!([name])).expect("opened");
    }
}

/// Everything a fork holds, by keyspace and key.
fn dump(store: &Store, name: &str) -> BTreeMap<(u32, Vec<u8>), Vec<u8>> {
    let snapshot = store.snapshot(store.fork_named(name).expect("there")).expect("readable");
    let mut all = BTreeMap::new();
    for keyspace in 0..200 {
        let mut rows =
            snapshot.range(KeyspaceId::new(keyspace), Bound::Unbounded, Bound::Unbounded, Direction::Forward);
        while let Some((key, value)) = rows.next().expect("readable") {
            all.insert((keyspace, key.to_vec()), value.to_vec());
        }
    }
    all
}

#[test]
fn ten_thousand_calls_replayed_give_the_same_state_byte_for_byte() {
    let setup = Setup::new();
    open_accounts(&setup);
    let mut random = Random(1);
    for _ in 0..10_000 {
        traffic(&setup, &mut random);
    }
    std::thread::sleep(Duration::from_millis(100));
    let mut reports = 0;
    let request = ReplayRequest { name: "again".to_owned(), ..Default::default() };
    let report = setup.host.replay("db", &actor(), &request, &mut |progress| {
        reports += 1;
        assert!(progress.lsn <= progress.to);
        ControlFlow::Continue(())
    });
    let report = report.expect("replayed");
    assert_eq!(report.place, RedoPlace::Workers);
    assert!(reports > 0);
    assert_eq!((report.differences, report.rows_refused, report.stopped_at), (0, 0, None), "{report:?}");
    assert!(report.calls >= 9_000 && report.reapplied > 400, "{} {}", report.calls, report.reapplied);
    assert_eq!(report.tables, []);
    for (name, function) in &report.functions {
        assert_eq!(function.outcomes.keys().collect::<Vec<_>>(), [&Outcome::Same], "{name}: {function:?}");
    }
    let directory = setup.directory.path().join("databases");
    setup.host.shutdown().expect("closed");
    let database = std::fs::read_dir(directory).expect("listed").next().expect("one").expect("readable").path();
    let store = Store::open(StoreOptions::new(database), Arc::new(SystemEnv)).expect("opens");
    assert!(dump(&store, "main") == dump(&store, "again"), "the states differ");
}

#[test]
fn a_changed_module_is_told_apart_call_by_call() {
    let setup = Setup::new();
    open_accounts(&setup);
    let mut random = Random(2);
    let pays: Vec<_> = (0..1_000).filter_map(|_| traffic(&setup, &mut random)).collect();
    let request = ReplayRequest { name: "other".to_owned(), program: Some(bank(OTHER_RULES)), ..Default::default() };
    let report = setup.replay(request).expect("replayed");
    // Both banks, by hand.
    let (mut old, mut new) = ([100_i64; 6], [100_i64; 6]);
    let mut expected: BTreeMap<Outcome, u64> = BTreeMap::new();
    for (from, to, amount, done) in pays {
        let (from, to) = (from as usize, to as usize);
        let was_done = from != to && old[from] - amount >= 0;
        assert_eq!(was_done, done, "the model is right about the recorded bank");
        let is_done = from != to && amount != 13 && new[from] - amount >= -10;
        let before = ([old[from], old[to]], [new[from], new[to]]);
        if was_done {
            old[from] -= amount;
            old[to] += amount;
        }
        if is_done {
            new[from] -= amount;
            new[to] += amount - i64::from(amount > 40);
        }
        let same_rows = before.0 == before.1 && [old[from], old[to]] == [new[from], new[to]];
        let outcome = match (was_done, is_done) {
            // Nothing moved, so that only the ledger got a row, or nobody did anything.
            (true, true) if same_rows || amount == 0 => Outcome::Same,
            (true, true) => Outcome::Different,
            (true, false) => Outcome::NewlyFailing,
            (false, true) => Outcome::NewlySucceeding,
            (false, false) => Outcome::Same,
        };
        *expected.entry(outcome).or_default() += 1;
    }
    // The ledger's ids go apart with the first call that only one bank did: from then on every payment is different.
    let found = &report.functions["pay"].outcomes;
    for outcome in [Outcome::NewlyFailing, Outcome::NewlySucceeding] {
        assert_eq!(found.get(&outcome), expected.get(&outcome), "{outcome:?}: {found:?} {expected:?}");
    }
    assert!(found[&Outcome::Different] >= expected[&Outcome::Different], "{found:?} {expected:?}");
    assert_eq!(found.values().sum::<u64>(), expected.values().sum::<u64>());
    assert!(!found.contains_key(&Outcome::NotReproducible));
    let example = &report.functions["pay"].examples[0];
    assert!(example.arguments["amount"].is_number(), "{example:?}");
    let table = report.tables.iter().find(|table| table.table == "account").expect("balances differ");
    assert!(table.only_recorded > 0 && table.only_recorded == table.only_replayed, "{table:?}");
    let balances: Vec<Vec<u8>> = setup.select("db@other", "SELECT balance FROM account");
    let balances: Vec<i64> = balances.iter().map(|row| i64::from_le_bytes(row[..8].try_into().expect("8"))).collect();
    assert_eq!(balances, new[1..], "the new bank's state is on the fork");
}

#[test]
fn what_instances_remember_does_not_verify() {
    let setup = Setup::new();
    for _ in 0..5 {
        setup.call("forgetful", json!([])).expect("called");
        setup.call("gamble", json!([])).expect("called");
    }
    let verify = |request: VerifyRequest| {
        setup.host.verify("db", &actor(), &request, &mut |_| ControlFlow::Continue(())).expect("verified")
    };
    let report = verify(VerifyRequest::default());
    assert_eq!((report.calls, report.differences), (10, 0), "from the first call on an instance remembers the same");
    let report = verify(VerifyRequest { from: Some(Lsn::new(4)), ..Default::default() });
    assert_eq!((report.calls, report.differences), (8, 4), "{report:?}");
    assert_eq!(report.functions["forgetful"].outcomes, BTreeMap::from([(Outcome::Different, 4)]));
    assert_eq!(report.functions["gamble"].outcomes, BTreeMap::from([(Outcome::Same, 4)]));
    let from = Some(Lsn::new(3));
    let report = verify(VerifyRequest { from, stop_at_first_difference: true, ..Default::default() });
    assert_eq!((report.differences, report.stopped_at), (1, Some(Lsn::new(4))), "{report:?}");
}

#[test]
fn a_replay_that_was_stopped_goes_on_where_it_was() {
    let setup = Setup::new();
    open_accounts(&setup);
    let mut random = Random(3);
    for _ in 0..2_000 {
        traffic(&setup, &mut random);
    }
    let request = ReplayRequest { name: "later".to_owned(), ..Default::default() };
    let mut looks = 0;
    let stopped = setup.host.replay("db", &actor(), &request, &mut |_| {
        looks += 1;
        ControlFlow::Break(())
    });
    // So quick that nobody was asked: then there is nothing to resume.
    if looks > 0 && stopped.is_err() {
        assert!(matches!(stopped, Err(HostError::Stopped { .. })), "{stopped:?}");
        assert!(setup.host.resolve("db@later").is_err(), "nobody sees it yet");
        let report = setup.replay(ReplayRequest { resume: true, ..request.clone() }).expect("resumed");
        assert_eq!((report.differences, report.tables.len()), (0, 0), "{report:?}");
        assert!(report.calls > 1_500, "{}", report.calls);
    }
    assert_eq!(setup.select("db", "SELECT * FROM account"), setup.select("db@later", "SELECT * FROM account"));
    let nothing = setup.replay(ReplayRequest { name: "never".to_owned(), resume: true, ..Default::default() });
    assert!(matches!(nothing, Err(HostError::NothingToResume(_))), "{nothing:?}");
}

#[test]
fn without_workers_calls_run_beside_the_data_and_the_report_says_so() {
    let setup = Setup::with_sandbox(None);
    open_accounts(&setup);
    let request = ReplayRequest { name: "again".to_owned(), ..Default::default() };
    let report = setup.replay(request).expect("replayed");
    assert_eq!((report.calls, report.differences), (5, 0), "{report:?}");
    let RedoPlace::WithCalls { reason } = report.place else { panic!("{:?}", report.place) };
    assert!(reason.contains("no worker processes"), "{reason}");
    let report = setup.host.verify("db", &actor(), &VerifyRequest::default(), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(report.expect("verified").place, RedoPlace::WithCalls { .. }));
}

#[test]
fn history_tells_what_happened_on_the_way_to_a_fork() {
    let setup = Setup::new();
    open_accounts(&setup);
    setup.call("pay", json!([1, 2, 30])).expect("paid");
    setup.call("pay", json!([1, 2, 500])).expect_err("too poor");
    let fork = ForkRequest { name: "copy".to_owned(), ..Default::default() };
    setup.host.fork_create("db", &actor(), &fork).expect("forked");
    setup.call("pay", json!([1, 2, 1])).expect("paid");
    let list = |address: &str, uncommitted: bool| {
        let request = HistoryRequest { limit: 100, uncommitted, ..Default::default() };
        setup.host.history(address, &actor(), &request).expect("listed")
    };
    let copy = list("db@copy", true);
    let functions: Vec<&str> = copy.iter().map(|entry| entry.function.as_str()).collect();
    assert_eq!(functions, ["", "open", "open", "open", "open", "open", "pay", "pay"]);
    assert_eq!(copy[0].kind, Some(CallKind::Publish));
    assert_eq!(copy[6].arguments, json!({"from": 1, "to": 2, "amount": 30}));
    assert_eq!(copy[6].caller, Some(OWNER));
    assert_eq!((copy[6].tables["account"].written, copy[6].tables["ledger"].written), (2, 1));
    assert_eq!((copy[7].lsn, copy[7].failure.as_deref()), (None, Some("TN0623")));
    assert_eq!(list("db", false).len(), 8, "the parent goes on");
    let report = setup.host.verify("db@copy", &actor(), &VerifyRequest::default(), &mut |_| ControlFlow::Continue(()));
    assert_eq!(
        report.map(|report| (report.calls, report.differences)).ok(),
        Some((7, 0)),
        "with what its parent did before"
    );
    let ephemeral = ForkRequest { name: "gone".to_owned(), ephemeral: true, ..Default::default() };
    setup.host.fork_create("db", &actor(), &ephemeral).expect("forked");
    let refused = setup.host.history("db@gone", &actor(), &HistoryRequest::default());
    assert!(matches!(refused, Err(HostError::NeverRecorded)), "{refused:?}");
    let stranger = Actor { identity: Identity::from_le_bytes([9; 32]), is_admin: false };
    let refused = setup.host.history("db", &stranger, &HistoryRequest::default());
    assert!(matches!(refused, Err(HostError::NotAuthorized { .. })), "{refused:?}");
}

#[test]
fn dry_runs_show_rows_and_leave_none() {
    let setup = Setup::new();
    open_accounts(&setup);
    let dry = |function: &str, arguments: Value| {
        setup.host.dry_run("db", &actor(), function, CallArguments::Json(arguments)).expect("ran").outcome
    };
    let rows = dry("pay", json!([1, 2, 30])).expect("would be paid");
    assert_eq!(
        rows["account"]["inserted"],
        json!([
            {"id": 1, "name": "a", "balance": 70}, {"id": 2, "name": "b", "balance": 130}
        ])
    );
    assert_eq!(rows["ledger"]["inserted"].as_array().map(Vec::len), Some(1));
    assert!(matches!(dry("pay", json!([1, 2, 500])), Err(CallFailure::User(_))));
    assert!(matches!(dry("ring", json!([])), Err(CallFailure::NoSuchFunction)), "schedules call it");
    assert!(matches!(dry("pay", json!(["x"])), Err(CallFailure::BadArguments(_))));
    assert_eq!(setup.select("db", "SELECT * FROM ledger").len(), 0);
    assert_eq!(setup.host.fork_list("db").expect("listed").len(), 1);
}

#[test]
fn older_versions_answer_queries() {
    let setup = Setup::new();
    open_accounts(&setup);
    let before = setup.call("look", json!([])).expect("looked");
    setup.call("pay", json!([1, 2, 30])).expect("paid");
    let requester = Requester { identity: OWNER, jwt_payload: None };
    let select = |sql: &str, at| setup.host.select_as_of("db", &requester, sql, at);
    let (rows, lsn) = select("SELECT balance FROM account WHERE id = 1", VersionAt::Lsn(before)).expect("selected");
    assert_eq!((rows.rows[0].as_ref(), lsn), (100_i64.to_le_bytes().as_slice(), before));
    let refused = select("DELETE FROM account", VersionAt::Lsn(before));
    assert!(matches!(refused, Err(HostError::Call(_))), "{refused:?}");
    let refused = select("SELECT * FROM account", VersionAt::Lsn(Lsn::new(10_000)));
    assert!(matches!(refused, Err(HostError::NoSuchVersion { .. })), "{refused:?}");
}
