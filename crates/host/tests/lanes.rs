//! How a host uses its lanes: faults, procedures beside the lane, schedules, cancellation, instances.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;
use tine_base::{Env, EnvFile, OpenMode, SystemEnv};
use tine_host::{
    Actor, CallArguments, CallReturn, ClientInfo, ClientSink, CloseReason, Connection, Delivery, ForkHandle,
    ForkRequest, Host, HostOptions, PublishRequest, Reply, Requester,
};
use tine_module::SourceBundle;
use tine_types::protocol::{ClientMessage, ServerMessage};
use tine_types::{ConnectionId, Identity};

const MODULE: &str = r#"
import { ScheduleAt, schema, t, table } from "tine:server";

const note = table({ public: true }, { id: t.u64().primaryKey().autoInc(), text: t.string() });
const bell = table({}, { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt() });
const chore = table({}, { id: t.u64().primaryKey().autoInc(), at: t.scheduleAt() });
const db = schema({ note, bell, chore });
export default db;

const busy = (rounds: number) => {
  let value = 1;
  for (let round = 0; round < rounds; round++) value = (value * 1103515245 + 12345) >>> 0;
  return value;
};

// Hooks make the host draw a connection id for calls without a connection, which is where the tests break it.
export const connected = db.clientConnected(() => {});

export const write = db.reducer({ text: t.string() }, (ctx, { text }) => { ctx.db.note.insert({ id: 0n, text }); });
export const work = db.reducer({ rounds: t.u32() }, (ctx, { rounds }) => {
  ctx.db.note.insert({ id: 0n, text: `worked ${busy(rounds)}` });
});
let calls = 0;
export const countCalls = db.reducer(ctx => { ctx.db.note.insert({ id: 0n, text: `${++calls}` }); });

/** A chore that takes long, then bells that ring at once. */
export const schedule = db.reducer(ctx => {
  const at = ScheduleAt.time(ctx.timestamp.microsSinceUnixEpoch);
  ctx.db.chore.insert({ id: 0n, at });
  for (let n = 0; n < 3; n++) ctx.db.bell.insert({ id: 0n, at });
});
export const ring = db.reducer({ onSchedule: bell }, { arg: bell.rowType }, ctx => {
  ctx.db.note.insert({ id: 0n, text: "rang" });
});
export const doChore = db.procedure({ onSchedule: chore }, { arg: chore.rowType }, t.unit(), ctx => {
  busy(60_000_000);
  ctx.withTx(tx => tx.db.note.insert({ id: 0n, text: "chore" }));
  return {};
});

/** Transactions with pauses in between. */
export const steps = db.procedure({ count: t.u32(), rounds: t.u32() }, t.u32(), (ctx, { count, rounds }) => {
  for (let step = 0; step < count; step++) {
    ctx.withTx(tx => tx.db.note.insert({ id: 0n, text: "step" }));
    busy(rounds);
  }
  return count;
});
"#;

const PATIENCE: Duration = Duration::from_secs(20);
const OWNER: Identity = Identity::from_le_bytes([7; 32]);

/// An environment whose randomness can be made to panic once: a fault of the host in the middle of a request.
#[derive(Default)]
struct Breakable {
    armed: AtomicBool,
}

impl Env for Breakable {
    fn now_micros(&self) -> i64 {
        SystemEnv.now_micros()
    }
    fn monotonic_ns(&self) -> u64 {
        SystemEnv.monotonic_ns()
    }
    fn random_bytes(&self, buffer: &mut [u8]) {
        assert!(!self.armed.swap(false, Ordering::SeqCst), "broken on purpose");
        SystemEnv.random_bytes(buffer);
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn EnvFile>> {
        SystemEnv.open(path, mode)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        SystemEnv.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        SystemEnv.read_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemEnv.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        SystemEnv.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        SystemEnv.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        SystemEnv.sync_dir(path)
    }
    fn exists(&self, path: &Path) -> bool {
        SystemEnv.exists(path)
    }
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        SystemEnv.spawn(name, body)
    }
    fn sleep(&self, duration: Duration) {
        SystemEnv.sleep(duration);
    }
}

struct Setup {
    host: Host,
    env: Arc<Breakable>,
    _directory: tempfile::TempDir,
}

fn setup(change: impl FnOnce(&mut HostOptions)) -> Setup {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = HostOptions::new(directory.path().to_owned());
    change(&mut options);
    let env = Arc::new(Breakable::default());
    let host = Host::open(options, env.clone()).expect("opens");
    let program = SourceBundle::single("index.ts", MODULE).encode();
    let request = PublishRequest { program, ..PublishRequest::default() };
    host.publish(Some("db"), &actor(), request).expect("published");
    Setup { host, env, _directory: directory }
}

fn actor() -> Actor {
    Actor { identity: OWNER, is_admin: true }
}

fn requester() -> Requester {
    Requester { identity: OWNER, jwt_payload: None }
}

type Answer = Option<Reply<CallReturn>>;

/// Calls without waiting; the receiver ends without an answer when the host drops the request.
fn start(fork: &ForkHandle, function: &str, arguments: serde_json::Value) -> mpsc::Receiver<Reply<CallReturn>> {
    let (answered, answer) = mpsc::channel();
    let guard = Arc::new(Mutex::new(None));
    let held = guard.clone();
    let reply = Box::new(move |reply| {
        // Keeps the guard until the answer came. Nobody may wait any more: then the answer is dropped.
        drop(answered.send(reply));
        drop(held);
    });
    *guard.lock() = Some(fork.call(requester(), function, CallArguments::Json(arguments), reply));
    answer
}

fn wait(answer: mpsc::Receiver<Reply<CallReturn>>) -> Answer {
    match answer.recv_timeout(PATIENCE) {
        Ok(reply) => Some(reply),
        Err(mpsc::RecvTimeoutError::Disconnected) => None,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a request was never answered"),
    }
}

fn call(fork: &ForkHandle, function: &str, arguments: serde_json::Value) -> Reply<CallReturn> {
    wait(start(fork, function, arguments)).expect("answered")
}

fn notes(fork: &ForkHandle) -> Vec<String> {
    let (answered, answer) = mpsc::channel();
    fork.sql(requester(), "SELECT * FROM note", Box::new(move |reply| drop(answered.send(reply))));
    let rows = answer.recv_timeout(PATIENCE).expect("answered").result.expect("rows").rows;
    let text = |row: &bytes::Bytes| String::from_utf8(row[12..].to_vec()).expect("text");
    rows.iter().map(text).collect()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// What a client gets.
#[derive(Default)]
struct Inbox {
    messages: Mutex<Vec<ServerMessage>>,
    closed: Mutex<Option<CloseReason>>,
}

impl ClientSink for Inbox {
    fn deliver(&self, messages: &mut Vec<Delivery>) {
        self.messages.lock().extend(messages.drain(..).map(|delivery| delivery.message));
    }
    fn close(&self, reason: CloseReason) {
        self.closed.lock().get_or_insert(reason);
    }
}

fn connect(fork: &ForkHandle, number: u128) -> (Connection, Arc<Inbox>) {
    let inbox = Arc::new(Inbox::default());
    let info = ClientInfo {
        identity: OWNER,
        connection_id: ConnectionId::new(number),
        token: "".into(),
        jwt_payload: None,
        confirmed: Some(false),
    };
    let connection = fork.connect(info, inbox.clone()).expect("connected");
    until("the greeting", || !inbox.messages.lock().is_empty());
    (connection, inbox)
}

fn fork_named(setup: &Setup, name: &str) -> ForkHandle {
    let request = ForkRequest {
        name: name.to_owned(),
        ephemeral: true,
        at: None,
        lifetime_ms: None,
        resume_schedules: false,
        disconnect_clients: false,
    };
    setup.host.fork_create("db", &actor(), &request).expect("forked");
    setup.host.resolve(&format!("db@{name}")).expect("found")
}

#[test]
fn a_fault_of_the_host_closes_its_connections_and_the_next_request_builds_a_new_one() {
    let setup = setup(|_| {});
    let fork = setup.host.resolve("db").expect("found");
    assert!(call(&fork, "write", json!(["kept"])).result.is_ok());
    let (_connection, inbox) = connect(&fork, 1);

    // Something is in the lane's way, so that the faulty request has others behind it.
    let working = start(&fork, "work", json!([3_000_000]));
    setup.env.armed.store(true, Ordering::SeqCst);
    let answers: Vec<Answer> =
        (0..5).map(|_| start(&fork, "write", json!(["lost"]))).collect::<Vec<_>>().into_iter().map(wait).collect();
    // The one in the middle of which it broke may be either the one that worked or one behind it.
    let worked = wait(working);
    assert!(answers.iter().flatten().all(|reply| reply.result.is_err()), "{answers:?}");
    assert!(worked.is_none_or(|reply| reply.result.is_ok()));
    until("the connection's end", || inbox.closed.lock().is_some());
    assert_eq!(*inbox.closed.lock(), Some(CloseReason::ModuleExited("module exited")));

    let fork = setup.host.resolve("db").expect("a new one is built");
    assert!(call(&fork, "write", json!(["after"])).result.is_ok());
    let notes = notes(&fork);
    assert!(notes.contains(&"kept".to_owned()) && notes.contains(&"after".to_owned()), "{notes:?}");
    assert!(!notes.contains(&"lost".to_owned()), "{notes:?}");
    let other = fork_named(&setup, "after");
    assert!(call(&other, "write", json!(["there"])).result.is_ok(), "the store is whole");
}

#[test]
fn procedures_that_wait_for_transactions_cannot_starve_the_one_lane_thread() {
    let setup = setup(|options| (options.lane_threads, options.procedure_threads) = (1, 4));
    let fork = setup.host.resolve("db").expect("found");
    let procedures: Vec<_> = (0..6).map(|_| start(&fork, "steps", json!([10, 20_000]))).collect();
    let calls: Vec<_> = (0..200).map(|number| start(&fork, "write", json!([format!("{number}")]))).collect();
    for answer in calls {
        assert!(wait(answer).expect("answered").result.is_ok());
    }
    for answer in procedures {
        assert!(wait(answer).expect("answered").result.is_ok());
    }
    let notes = notes(&fork);
    assert_eq!((notes.len(), notes.iter().filter(|text| *text == "step").count()), (260, 60));
}

#[test]
fn a_busy_procedure_pool_holds_back_no_other_request() {
    let setup = setup(|options| options.procedure_threads = 1);
    let fork = setup.host.resolve("db").expect("found");
    let (mut connection, inbox) = connect(&fork, 2);
    let arguments = |values: [u32; 2]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let procedure = |request_id| ClientMessage::CallProcedure {
        request_id,
        procedure: "steps".into(),
        args: arguments([1, 30_000_000]).into(),
    };
    let query = ClientMessage::OneOffQuery { request_id: 9, query: "SELECT * FROM note".into() };
    connection.submit(&mut vec![procedure(1), procedure(2), query]).expect("room");
    let is_reply = |message: &ServerMessage| matches!(message, ServerMessage::OneOffQueryResult { .. });
    until("the query's reply", || inbox.messages.lock().iter().any(is_reply));
    let procedures = |message: &&ServerMessage| matches!(message, ServerMessage::ProcedureResult { .. });
    assert!(inbox.messages.lock().iter().filter(procedures).count() < 2, "the query waited for the procedures");
    until("both procedures", || inbox.messages.lock().iter().filter(procedures).count() == 2);
}

#[test]
fn a_slow_scheduled_job_delays_no_other() {
    let setup = setup(|options| options.procedure_threads = 2);
    let fork = setup.host.resolve("db").expect("found");
    assert!(call(&fork, "schedule", json!([])).result.is_ok());
    until("the bells", || notes(&fork).iter().filter(|text| *text == "rang").count() == 3);
    assert!(!notes(&fork).contains(&"chore".to_owned()), "the bells waited for the chore");
    until("the chore", || notes(&fork).contains(&"chore".to_owned()));
}

#[test]
fn a_procedure_ends_between_transactions_when_its_client_goes() {
    let setup = setup(|_| {});
    let fork = setup.host.resolve("db").expect("found");
    let cancelled = || setup.host.metrics().procedures_cancelled.get();
    let (mut connection, _inbox) = connect(&fork, 3);
    let args = [1_000_000u32, 2_000].iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let message = ClientMessage::CallProcedure { request_id: 1, procedure: "steps".into(), args: args.into() };
    connection.submit(&mut vec![message]).expect("room");
    until("the first step", || !notes(&fork).is_empty());
    drop(connection);
    until("the cancellation", || cancelled() == 1);
    let count = notes(&fork).len();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(notes(&fork).len(), count, "it goes on");

    // A caller without a connection, in code without any transaction.
    let reply = Box::new(|_: Reply<CallReturn>| {});
    let arguments = CallArguments::Json(json!([1, 2_000_000_000u32]));
    let guard = fork.call(requester(), "steps", arguments, reply);
    until("its step", || notes(&fork).len() > count);
    drop(guard);
    until("the second cancellation", || cancelled() == 2);
    assert!(call(&fork, "steps", json!([1, 1])).result.is_ok(), "the next procedure is not disturbed");
}

#[test]
fn a_forks_first_call_takes_a_spare_that_no_fork_has_used() {
    let setup = setup(|_| {});
    let main = setup.host.resolve("db").expect("found");
    assert!(call(&main, "countCalls", json!([])).result.is_ok());
    let loaded = || setup.host.metrics().instances_loaded.get();
    for (name, forks) in [("a", 1), ("b", 2), ("c", 3)] {
        // One for each fork that called, and spares to the brim.
        until("the spares", || loaded() >= forks + 2);
        let fork = fork_named(&setup, name);
        let spares = setup.host.metrics().instances_spare.get();
        assert!(call(&fork, "countCalls", json!([])).result.is_ok());
        assert_eq!(setup.host.metrics().instances_spare.get(), spares + 1);
        assert_eq!(notes(&fork), ["1", "1"], "main's note, and the first call of a fresh instance");
    }
}

#[test]
fn the_longest_idle_forks_give_up_their_instances_to_stay_within_the_budget() {
    let setup = setup(|options| options.instances_memory_max = 3 << 20);
    let forks: Vec<ForkHandle> = (0..12).map(|number| fork_named(&setup, &format!("f{number}"))).collect();
    for fork in &forks {
        assert!(call(fork, "countCalls", json!([])).result.is_ok());
    }
    assert!(setup.host.metrics().instances_evicted.get() > 0, "twelve instances and spares are more than 3 MiB");
    for fork in &forks {
        assert!(call(fork, "write", json!(["still here"])).result.is_ok());
        assert_eq!(notes(fork), ["1", "still here"]);
    }
}

#[test]
fn ordered_reads_of_one_fork_run_together() {
    // A module without hooks, whose statements are reads.
    let setup = setup(|options| options.lane_threads = 4);
    let program = MODULE.replace("export const connected = db.clientConnected(() => {});", "");
    let request =
        PublishRequest { program: SourceBundle::single("index.ts", program).encode(), ..PublishRequest::default() };
    setup.host.publish(Some("plain"), &actor(), request).expect("published");
    let fork = setup.host.resolve("plain").expect("found");
    for number in 0..400 {
        assert!(call(&fork, "write", json!([format!("{number}")])).result.is_ok());
    }
    let (answered, answers) = mpsc::channel();
    until("reads that ran together", || {
        let working = start(&fork, "work", json!([2_000_000]));
        for number in 0..32 {
            let answered = answered.clone();
            let reply = Box::new(move |reply: Reply<tine_host::SqlRows>| {
                answered.send((number, reply.result.expect("rows").rows.len())).expect("the test listens");
            });
            fork.sql(requester(), "SELECT a.* FROM note a JOIN note b ON a.id = b.id WHERE a.text = 'none'", reply);
        }
        assert!(wait(working).expect("answered").result.is_ok());
        for expected in 0..32 {
            let (number, rows) = answers.recv_timeout(PATIENCE).expect("answered");
            assert_eq!((number, rows), (expected, 0), "answers come in the order of the requests");
        }
        setup.host.lane_counters().reads_together > 0
    });
}
