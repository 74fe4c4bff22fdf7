//! Modules, clients, clocks and disks that misbehave, under load where that matters.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use tine_base::{FaultEnv, SystemEnv};
use tine_client::{
    ClientError, ConnectOptions, Connection,
    http::{CONTENT_TYPE_SOURCE, HttpClient, PublishOptions},
    protocol::ServerMessage,
};
use tine_module::SourceBundle;
use tine_server::{Server, ServerOptions};
use tine_tests::{
    keep::TestDirectory,
    raw_socket::RawSocket,
    rows::{self, Entry, Person},
    server::{Owned, TestServer, module, single_file},
    wait::until_true,
};
use tine_types::bsatn::BsatnWrite;

/// The definition behind `tests/modules/out_of_place.js`.
const SHAPE: &str = r#"
import { schema, table, t } from "tine:server";
const db = schema({ thing: table({ public: true }, { id: t.u32().primaryKey().autoInc(), size: t.u32() }) });
export default db;
export const run = db.reducer({ which: t.u8() }, () => {});
export const misplaced = db.procedure(t.string(), () => "");
"#;

/// Numbers of the bundle's reducers.
const REDUCERS: [&str; 9] =
    ["hoard", "leave", "advanceKept", "again", "againForEver", "begin", "commit", "getter", "fine"];

fn out_of_place() -> SourceBundle {
    let compiled = tine_module::compile(&single_file(SHAPE), &tine_module::Limits::default());
    let definition = compiled.expect("the shape compiles").def().encode();
    let path = tine_tests::root().join("tests/modules/out_of_place.js");
    let text = std::fs::read_to_string(&path).expect("the bundle can be read");
    SourceBundle::single("bundle.js", format!("const DEFINITION = {definition:?};\n{text}"))
}

fn run(database: &Owned, name: &str) -> Result<(), ClientError> {
    let number = REDUCERS.iter().position(|own| *own == name).expect("a reducer of the bundle");
    database.client.call(&database.name, "run", &json!([number])).map(drop)
}

fn things(database: &Owned) -> u64 {
    let found = database.client.sql(&database.name, "SELECT COUNT(*) AS n FROM thing").expect("counted");
    found[0].rows[0][0].as_u64().expect("a number")
}

/// Every reducer that does something out of place fails with a code, leaves no row, and the next call works.
#[test]
fn system_calls_out_of_place_fail_and_harm_nobody() {
    let server = TestServer::shared();
    let database = server.publish("out-of-place", &out_of_place());
    run(&database, "fine").expect("an ordinary call works");
    let mut expected = 1;
    for name in ["hoard", "begin", "commit", "getter", "againForEver", "advanceKept"] {
        match run(&database, name) {
            Err(ClientError::Refused { status: 530, server_code: Some(code), message }) => {
                assert!(code.starts_with("TN05"), "{name}: {code} {message}");
            }
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(things(&database), expected, "{name} left rows");
        run(&database, "fine").unwrap_or_else(|error| panic!("after {name}: {error}"));
        expected += 1;
    }
    // One call is one transaction, however often the hook calls itself.
    run(&database, "again").expect("calls itself ten times");
    assert_eq!(things(&database), expected + 11);
    // A procedure learns each time what is wrong; what it leaves open is rolled back.
    for _ in 0..3 {
        let called = database.client.call(&database.name, "misplaced", &json!([])).expect("the procedure runs");
        let codes = called.value.and_then(|text| serde_json::from_str::<Value>(text.as_str()?).ok());
        // 2: no transaction; 18: no transaction of a procedure; 17: one is open already. The last is a read
        // from an iterator of a transaction that was aborted: it holds what was there when it was opened.
        assert_eq!(codes, Some(json!([2, 2, 2, 18, 18, 17, 0])));
        assert_eq!(things(&database), expected + 11);
    }
    run(&database, "fine").expect("the lane is free");
}

/// Iterators that a call leaves open end with it: neither handles nor memory run out.
#[test]
fn iterators_left_open_end_with_their_call() {
    let server = TestServer::start();
    let database = server.publish("left-open", &out_of_place());
    for _ in 0..50 {
        run(&database, "leave").expect("iterators are left open");
    }
    let before = server.resident_bytes();
    for _ in 0..300 {
        run(&database, "leave").expect("iterators are left open");
        assert!(run(&database, "advanceKept").is_err(), "an iterator of an earlier call is no more");
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "300,000 iterators cost {} KiB", grown >> 10);
}

fn metric(server: &TestServer, name: &str) -> u64 {
    let text = server.anonymous().metrics().expect("metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no metric {name}")).parse().expect("a number")
}

fn open_files(server: &TestServer) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("the server runs").count()
}

/// Ten thousand connections, ended in every way a client can end: none leaves anything behind.
#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    const CONNECTIONS: usize = 10_000;
    const THREADS: usize = 8;
    let server = TestServer::start();
    let database = server.publish_probe("come-and-go");
    let address = server.address();
    let (files, memory) = (open_files(&server), server.resident_bytes());
    let arrived = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (arrived, name) = (&arrived, &database.name);
            scope.spawn(move || {
                for number in 0..CONNECTIONS / THREADS {
                    match (thread + number) % 4 {
                        0 => drop(std::net::TcpStream::connect(address).expect("connected")),
                        1 => {
                            use std::io::Write as _;
                            let mut stream = std::net::TcpStream::connect(address).expect("connected");
                            // The server may have gone first.
                            let _ = stream.write_all(b"GET /v1/database/come-and-go/subscribe HTTP/1.1\r\nhost: x\r\n");
                        }
                        2 => {
                            drop(RawSocket::connect(address, name, ""));
                            arrived.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => {
                            let mut socket = RawSocket::connect(address, name, "");
                            socket.read_messages().expect("the greeting");
                            socket.send_frame(true, 8, &1000_u16.to_be_bytes()).expect("closed");
                            arrived.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    assert_eq!(arrived.into_inner(), CONNECTIONS as u64 / 2);
    until_true("all clients are gone", || metric(&server, "tine_websocket_clients") == 0);
    until_true("all connections are gone", || metric(&server, "tine_connections") <= 2);
    let visits = || database.client.sql(&database.name, "SELECT COUNT(*) AS n FROM visit").expect("counted");
    // The request that counts is a visitor itself.
    until_true("every disconnect hook ran", || visits()[0].rows[0][0].as_u64().is_some_and(|count| count <= 1));
    until_true("all files are closed", || open_files(&server) <= files + 8);
    let grown = server.resident_bytes().saturating_sub(memory);
    assert!(grown < 128 << 20, "the server grew by {} MiB", grown >> 20);
    database.client.call(&database.name, "add", &json!(["still here", 1])).expect("the server serves");
}

const THROWING: &str = r#"
import { schema, table, t } from "tine:server";
const db = schema({ thing: table({ public: true }, { id: t.u32().primaryKey() }) });
export default db;
export const init = db.init(ctx => {
  ctx.db.thing.insert({ id: 1 });
  throw new Error("init failed on purpose");
});
"#;

fn publish(client: &HttpClient, name: &str, bundle: &SourceBundle, options: PublishOptions) -> Result<(), ClientError> {
    client.publish(Some(name), CONTENT_TYPE_SOURCE, bundle.encode(), options).map(drop)
}

/// A first publish whose `init` throws leaves no database, no directory and no name behind; a clear with
/// such a module leaves the data as it was.
#[test]
fn an_init_that_throws_undoes_the_publish() {
    let server = TestServer::start();
    let (client, _) = server.newcomer();
    let client = client.with_admin_token(server.admin_token());
    let throwing = single_file(THROWING);
    let directories = || std::fs::read_dir(server.data().join("databases")).map_or(0, |entries| entries.count());
    for _ in 0..3 {
        match publish(&client, "thrower", &throwing, PublishOptions::default()) {
            Err(ClientError::Refused { status: 400, server_code: Some(_), message }) => {
                assert!(message.contains("init failed on purpose"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(directories(), 0, "a directory was left");
        assert_eq!(client.database_json("thrower").err().and_then(|error| error.status()), Some(404));
    }
    let good = module("tests/modules/probe.ts");
    publish(&client, "thrower", &good, PublishOptions::default()).expect("the name is free");
    client.call("thrower", "add", &json!(["kept", 1])).expect("added");
    let clear = PublishOptions { clear: true, ..PublishOptions::default() };
    let refused = publish(&client, "thrower", &throwing, clear);
    assert_eq!(refused.err().and_then(|error| error.status()), Some(400));
    let rows = client.sql("thrower", "SELECT name FROM person").expect("the old data is there");
    assert_eq!(rows[0].rows.len(), 1);
    client.call("thrower", "add", &json!(["more", 1])).expect("the old module runs");
}

/// A client that appends until it is told to stop or is cut off; returns how many were confirmed.
async fn append_while(
    options: ConnectOptions,
    client: u32,
    first: u32,
    go_on: Arc<AtomicBool>,
) -> (u32, Option<ClientError>) {
    let mut connection = match Connection::connect(options).await {
        Ok(connection) => connection,
        Err(error) => return (first, Some(error)),
    };
    let mut confirmed = first;
    while go_on.load(Ordering::Relaxed) {
        match connection.call_reducer("append", rows::append(client, confirmed, "kept")).await {
            Ok(_) => confirmed += 1,
            Err(error) => return (confirmed, Some(error)),
        }
    }
    (confirmed, None)
}

fn probe_variant(number: u32) -> SourceBundle {
    let mut bundle = module("tests/modules/probe.ts");
    let entry = bundle.entry.clone();
    let text = bundle.files.get_mut(&entry).expect("the entry file");
    text.push_str(&format!("\nexport const variant{number} = probe.procedure(t.u32(), () => {number});\n"));
    bundle
}

async fn stored(url: &str, database: &Owned, client: u32) -> Vec<u32> {
    let options = ConnectOptions::new(url, &database.name).with_token(&database.token);
    let mut connection = Connection::connect(options).await.expect("connected");
    let query = format!("SELECT * FROM entry WHERE client = {client}");
    let found = connection.one_off_query(&query).await.expect("read");
    let mut sequences: Vec<u32> = rows::of_table::<Entry>(&found, "entry").iter().map(|row| row.sequence).collect();
    sequences.sort_unstable();
    sequences
}

/// Ten new versions while four clients write: no connection breaks, no call fails, nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_under_load_breaks_no_call() {
    let server = TestServer::start();
    let database = server.publish_probe("busy");
    let go_on = Arc::new(AtomicBool::new(true));
    let start = |client| {
        let options = ConnectOptions::new(server.url(), &database.name).with_confirmed(true);
        tokio::spawn(append_while(options, client, 0, go_on.clone()))
    };
    let clients: Vec<_> = (0..4).map(start).collect();
    for number in 0..10 {
        tokio::task::block_in_place(|| {
            publish(&database.client, &database.name, &probe_variant(number), PublishOptions::default())
                .unwrap_or_else(|error| panic!("version {number}: {error}"));
            let answer = database.client.call(&database.name, &format!("variant{number}"), &json!([]));
            assert_eq!(answer.expect("the new version runs").value, Some(json!(number)));
        });
    }
    go_on.store(false, Ordering::Relaxed);
    for (number, client) in clients.into_iter().enumerate() {
        let (confirmed, error) = client.await.expect("the client does not panic");
        assert!(error.is_none(), "client {number}: {error:?}");
        assert!(confirmed > 10, "client {number} did only {confirmed} calls");
        assert_eq!(stored(server.url(), &database, number as u32).await, (0..confirmed).collect::<Vec<_>>());
    }
}

/// Deleting a database while clients write: they are told, nobody hangs, others go on, the name is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_under_load_ends_its_clients_only() {
    let server = TestServer::start();
    let kept = server.publish_probe("kept");
    let go_on = Arc::new(AtomicBool::new(true));
    let start = |database: &Owned, client| {
        let options = ConnectOptions::new(server.url(), &database.name).with_confirmed(true);
        tokio::spawn(append_while(options, client, 0, go_on.clone()))
    };
    let unharmed = start(&kept, 0);
    for round in 0..5 {
        let doomed = server.publish_probe("doomed");
        let clients: Vec<_> = (0..4).map(|client| start(&doomed, client)).collect();
        tokio::time::sleep(Duration::from_millis(30 + 17 * round)).await;
        tokio::task::block_in_place(|| doomed.client.delete("doomed", false)).expect("deleted");
        for client in clients {
            let ended = tokio::time::timeout(Duration::from_secs(10), client).await.expect("nobody hangs");
            let (_, error) = ended.expect("the client does not panic");
            let told = matches!(
                error,
                Some(
                    ClientError::Closed { .. }
                        | ClientError::Transport(_)
                        | ClientError::Call { .. }
                        | ClientError::Refused { .. }
                )
            );
            assert!(told, "{error:?}");
        }
        assert_eq!(
            std::fs::read_dir(server.data().join("databases")).expect("listed").count(),
            1,
            "a directory was left"
        );
    }
    go_on.store(false, Ordering::Relaxed);
    let (confirmed, error) = unharmed.await.expect("the client does not panic");
    assert!(error.is_none() && confirmed > 10, "{confirmed} {error:?}");
}

/// Fifty restarts in a row, most by SIGKILL and some in order, while clients write: nothing confirmed is
/// lost, and nothing is there twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_restarts_in_a_row_lose_nothing() {
    const CLIENTS: u32 = 2;
    let mut server = TestServer::start();
    let database = server.publish_probe("storm");
    let mut next = vec![0_u32; CLIENTS as usize];
    for round in 0..50_u64 {
        let go_on = Arc::new(AtomicBool::new(true));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let options = ConnectOptions::new(server.url(), &database.name).with_confirmed(true);
                tokio::spawn(append_while(options, client, next[client as usize], go_on.clone()))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis((round * 7) % 40)).await;
        match round % 5 {
            4 => server.stop(),
            _ => server.kill(),
        }
        for (client, ended) in clients.into_iter().enumerate() {
            let ended = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("nobody hangs");
            next[client] = ended.expect("the client does not panic").0;
        }
        server.restart();
        for client in 0..CLIENTS {
            let found = stored(server.url(), &database, client).await;
            // What was sent last may have been committed without its reply getting through.
            let confirmed = next[client as usize];
            assert!(
                [confirmed, confirmed + 1].contains(&(found.len() as u32)),
                "round {round}: {} of {confirmed}",
                found.len()
            );
            next[client as usize] = found.len() as u32;
            assert_eq!(found, (0..next[client as usize]).collect::<Vec<_>>(), "round {round}");
        }
    }
    assert!(next.iter().sum::<u32>() > 50, "the clients got nothing done: {next:?}");
}

/// A server in this process, on an environment with faults.
struct Patient {
    directory: TestDirectory,
    env: FaultEnv,
    server: Server,
}

impl Patient {
    async fn start(purpose: &str) -> Patient {
        let (directory, env) = (TestDirectory::new(purpose), FaultEnv::new(Arc::new(SystemEnv)));
        let server = serve(&directory, &env).await;
        Patient { directory, env, server }
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// A client of the administrator.
    fn client(&self) -> HttpClient {
        let path = self.directory.path().join("data/keys/admin-token");
        let admin = std::fs::read_to_string(path).expect("an admin token");
        HttpClient::new(&self.url()).expect("a good address").with_token(admin.trim())
    }

    async fn publish(&self, name: &str, bundle: SourceBundle) -> Result<(), ClientError> {
        let (client, name) = (self.client(), name.to_owned());
        let work = move || publish(&client, &name, &bundle, PublishOptions::default());
        tokio::task::spawn_blocking(work).await.expect("publishing does not panic")
    }

    async fn connect(&self, database: &str) -> Connection {
        Connection::connect(ConnectOptions::new(self.url(), database)).await.expect("connected")
    }

    async fn restart(mut self) -> Patient {
        // Closing may report the fault again; the directory must be free after it either way.
        let _ = self.server.shutdown(Duration::from_secs(10)).await;
        self.env.clear();
        self.server = serve(&self.directory, &self.env).await;
        self
    }
}

/// Arguments of `remind`.
fn remind(label: &str, ms: u32) -> Bytes {
    let mut args = Vec::new();
    args.put_str(label);
    args.put_u32(ms);
    args.into()
}

async fn serve(directory: &TestDirectory, env: &FaultEnv) -> Server {
    let listen: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let options = ServerOptions::new(listen, directory.path().join("data"));
    Server::start(options, Arc::new(env.clone()), |_| {}).await.expect("the server starts")
}

/// The disk is full at some moment of a publish, for many moments: the publish fails with a code or
/// succeeds, the server lives, and after a restart with room everything is as if it had been tried once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_during_a_publish_leaves_nothing_half_done() {
    let mut patient = Patient::start("full-publish").await;
    patient.publish("before", module("tests/modules/probe.ts")).await.expect("published");
    let mut struck = 0;
    for bytes in [0, 1, 100, 4_000, 20_000, 300_000, 1 << 20, (1 << 20) + 5_000, 2 << 20, 4 << 20] {
        patient.env.disk_full_after(bytes);
        let published = patient.publish("during", module("tests/modules/probe.ts")).await;
        if let Err(error) = &published {
            struck += 1;
            let (status, code) = (error.status(), error.shown_code().to_owned());
            assert!(status.is_some_and(|status| status >= 500) && code.starts_with("TN0"), "{bytes}: {error:?}");
        }
        let ping = patient.client();
        tokio::task::spawn_blocking(move || ping.sql("before", "SELECT * FROM person"))
            .await
            .expect("reading does not panic")
            .unwrap_or_else(|error| panic!("{bytes}: reading another database: {error}"));
        patient = patient.restart().await;
        patient.publish("during", module("tests/modules/probe.ts")).await.expect("there is room again");
        let mut connection = patient.connect("during").await;
        connection.call_reducer("noop", Default::default()).await.expect("the database works");
        drop(connection);
        let client = patient.client();
        tokio::task::spawn_blocking(move || client.delete("during", false)).await.expect("no panic").expect("deleted");
    }
    assert!(struck >= 5, "the disk was full only {struck} times");
}

/// The wall clock jumps an hour ahead and two back: commit times only ever grow, calls go on, tokens stay
/// good, and what is due after a jump ahead runs soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_never_takes_commit_times_back() {
    const HOUR_MICROS: i64 = 3_600_000_000;
    let patient = Patient::start("clock").await;
    patient.publish("clock", module("tests/modules/probe.ts")).await.expect("published");
    let mut connection = patient.connect("clock").await;
    let token = connection.token().to_owned();
    let mut newest = i64::MIN;
    for offset in [0, HOUR_MICROS, -HOUR_MICROS, 0, 24 * HOUR_MICROS, -24 * HOUR_MICROS, 1, -1] {
        patient.env.clock_offset_micros(offset);
        for _ in 0..3 {
            let reply = connection.call_reducer("add", rows::add("somebody", 1)).await.expect("added");
            assert!(reply.timestamp.micros() > newest, "time went back at offset {offset}");
            newest = reply.timestamp.micros();
        }
        let options = ConnectOptions::new(patient.url(), "clock").with_token(&token);
        Connection::connect(options).await.unwrap_or_else(|error| panic!("the token at offset {offset}: {error}"));
    }
    let found = connection.one_off_query("SELECT * FROM person").await.expect("read");
    assert_eq!(rows::of_table::<Person>(&found, "person").len(), 24);

    // Due in half an hour by a clock that then jumps a day beyond everything seen so far.
    patient.env.clock_offset_micros(25 * HOUR_MICROS);
    connection.subscribe(1, &["SELECT * FROM reminded"]).await.expect("subscribed");
    connection.call_reducer("remind", remind("late", 1_800_000)).await.expect("armed");
    patient.env.clock_offset_micros(50 * HOUR_MICROS);
    let reminded = tokio::time::timeout(Duration::from_secs(15), async {
        loop {
            if let ServerMessage::TransactionUpdate(_) = connection.recv().await.expect("connected") {
                return;
            }
        }
    });
    reminded.await.expect("what became due by the jump runs");
}
