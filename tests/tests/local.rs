//! Programs on the same machine: rows, calls, checkpoints, forks and streams over a socket and over shared memory.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tine_ipc::typed::ServiceError;
use tine_local::*;
use tine_tests::{server::TestServer, wait::until};

const LIMIT: Duration = Duration::from_secs(10);

/// A server with both transports, and a connection over one of them.
struct Setup {
    server: TestServer,
    database: String,
    path: PathBuf,
    client: TineClient,
}

impl Setup {
    fn new(transport: &str) -> Setup {
        let folder = std::env::temp_dir().join(format!("tine-local-{}-{transport}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("{}.{transport}", NAMES.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
        let server = TestServer::start_with(&["--ipc", path.to_str().expect("text")]);
        let database = server.publish_probe("local").name;
        let client = TineClient::connect(&path).expect("connected");
        Setup { server, database, path, client }
    }

    fn open(&self, address: &str) -> TineOpenForkResponse {
        self.client.open_fork_within(&TineOpenFork { address: address.to_owned() }, LIMIT).expect("opened")
    }

    fn call(&self, fork: u32, reducer: &str, arguments: Value) -> Result<u64, ServiceError> {
        let input = arguments.to_string().into_bytes();
        let call = TineCallReducer { fork, reducer: reducer.to_owned(), input, json: true };
        self.client.call_reducer_within(&call, LIMIT).map(|response| response.lsn)
    }

    fn get(&self, fork: u32, id: u64, committed: bool) -> Option<Value> {
        let key = json!([id]).to_string().into_bytes();
        let get = TineGet { fork, table: "person".to_owned(), index: None, key, json: true, committed };
        let rows = self.client.get_within(&get, LIMIT).expect("read").rows;
        rows.first().map(|row| serde_json::from_slice(row).expect("JSON"))
    }

    fn insert(&self, fork: u32, people: &[Value]) -> Result<TineInsertResponse, ServiceError> {
        let rows = people.iter().map(|person| person.to_string().into_bytes()).collect();
        self.client.insert_within(&TineInsert { fork, table: "person".to_owned(), rows, json: true }, LIMIT)
    }

    fn count(&self, fork: u32) -> u64 {
        let sql = "SELECT COUNT(*) AS n FROM person".to_owned();
        let answer = self.client.query_within(&TineQuery { fork, sql, at: None, json: true }, LIMIT).expect("counted");
        let row: Value = serde_json::from_slice(&answer.rows[0]).expect("JSON");
        row["n"].as_u64().expect("a number")
    }
}

static NAMES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

impl Drop for Setup {
    fn drop(&mut self) {
        self.server.stop();
        // What is left of the folder is other tests'.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn person(name: &str, age: u32) -> Value {
    json!({ "id": 0, "name": name, "age": age })
}

fn message(error: ServiceError) -> String {
    match error {
        ServiceError::Service { message } => message,
        other => panic!("{other:?}"),
    }
}

fn rows_checkpoints_and_forks(transport: &str) {
    let setup = Setup::new(transport);
    let opened = setup.open(&setup.database);
    assert_eq!((opened.name.as_str(), opened.ephemeral), ("main", false));
    let table = opened.tables.iter().find(|table| table.name == "person").expect("described");
    assert!(table.primary_key.is_some() && table.row_type.contains("name"), "{table:?}");
    let main = opened.fork;

    let inserted = setup.insert(main, &[person("Ada", 36), person("Bob", 20)]).expect("inserted");
    assert_eq!(inserted.lsn, opened.lsn + 1, "one commit");
    let ids: Vec<Value> = inserted.rows.iter().map(|row| serde_json::from_slice(row).expect("JSON")).collect();
    assert_eq!((&ids[0]["id"], &ids[1]["id"]), (&json!(1), &json!(2)), "sequences gave them");
    let lsn = setup.call(main, "rename", json!([1, "Eve"])).expect("renamed");
    assert!(lsn > inserted.lsn, "a call's reply carries its commit");
    assert_eq!(setup.get(main, 1, false).expect("there")["name"], "Eve");
    assert_eq!(setup.get(main, 1, true).expect("there")["name"], "Eve", "a committed read is not older (G4)");
    assert_eq!(setup.get(main, 9, false), None);

    let scan = |lower: Option<&str>, limit: u32| {
        let scan = TineScan {
            fork: main,
            table: "person".to_owned(),
            index: Some("name".to_owned()).filter(|_| lower.is_some()).map(|_| "person_name_idx_btree".to_owned()),
            prefix: Vec::new(),
            lower: lower.map(|text| json!(text).to_string().into_bytes()),
            lower_excluded: false,
            upper: None,
            upper_excluded: false,
            limit,
            json: true,
            committed: true,
        };
        setup.client.scan_within(&scan, LIMIT).expect("scanned")
    };
    assert_eq!((scan(None, 10).rows.len(), scan(None, 10).more), (2, false));
    assert_eq!((scan(None, 1).rows.len(), scan(None, 1).more), (1, true));
    assert_eq!(scan(Some("C"), 10).rows.len(), 1, "from C on: Eve");

    let begin = || setup.client.begin_checkpoint_within(&TineBeginCheckpoint { fork: main }, LIMIT).expect("begun");
    let (outer, inner) = (begin().checkpoint, {
        setup.insert(main, &[person("Cid", 1)]).expect("inserted");
        begin().checkpoint
    });
    setup.call(main, "add", json!(["Dan", 2])).expect("added");
    assert_eq!(setup.count(main), 4);
    let before = setup.open(&setup.database).lsn;
    let revert =
        |checkpoint| setup.client.revert_checkpoint_within(&TineRevertCheckpoint { fork: main, checkpoint }, LIMIT);
    assert_eq!(revert(inner).expect("reverted").lsn, before + 1, "LSNs never decrease");
    assert_eq!(setup.count(main), 3);
    revert(outer).expect("reverted");
    assert_eq!(setup.count(main), 2);
    assert!(message(revert(outer).expect_err("over")).starts_with("TN02"), "a checkpoint ends once");

    let fork = TineFork { fork: main, name: None, at: None, durable: false };
    let fork = setup.client.fork_within(&fork, LIMIT).expect("forked");
    setup.call(fork.fork, "remove", json!([1])).expect("removed");
    assert_eq!((setup.count(fork.fork), setup.count(main)), (1, 2), "forks do not see one another");
    let owner = setup.server.anonymous().with_admin_token(setup.server.admin_token());
    let names = || owner.forks(&setup.database).expect("listed").into_iter().map(|fork| fork.name).collect::<Vec<_>>();
    assert!(names().contains(&fork.name));
    let other = TineClient::connect(&setup.path).expect("connected");
    let main_too = other.open_fork_within(&TineOpenFork { address: setup.database.clone() }, LIMIT).expect("opened");
    let made = TineFork { fork: main_too.fork, name: Some("mine".to_owned()), at: Some(2), durable: false };
    other.fork_within(&made, LIMIT).expect("forked");
    assert!(names().contains(&"mine".to_owned()));
    drop(other);
    until("the fork of a connection that ended", || (!names().contains(&"mine".to_owned())).then_some(()));
    setup.client.drop_fork_within(&TineDropFork { fork: fork.fork }, LIMIT).expect("dropped");
    assert_eq!(names(), ["main"]);
    let lsn = setup.client.sync_within(&TineSync { fork: main }, LIMIT).expect("durable").lsn;
    assert!(lsn >= before);
}

#[test]
fn rows_checkpoints_and_forks_over_a_socket() {
    rows_checkpoints_and_forks("sock");
}

#[test]
fn rows_checkpoints_and_forks_over_shared_memory() {
    rows_checkpoints_and_forks("shm");
}

/// Each commit arrives once, in order, whoever made it; a revert arrives as the inverse change.
#[test]
fn a_stream_brings_the_rows_and_every_change() {
    let setup = Setup::new("shm");
    let main = setup.open(&setup.database).fork;
    let before = setup.insert(main, &[person("Ada", 36)]).expect("inserted").lsn;
    let queries = vec!["SELECT * FROM person".to_owned()];
    let subscribe = TineSubscribe { fork: main, queries, json: true };
    let mut stream = setup.client.subscribe(&subscribe, 8).expect("subscribed");
    let mut next = || stream.next_within(LIMIT).expect("an item").expect("not the end");
    let first = next();
    assert!(first.initial && first.tables[0].inserts.len() == 1, "{first:?}");
    // The stream's own connection is a commit of this module's.
    assert_eq!(first.lsn, before + 1, "the version of the first rows");
    let checkpoint = setup.client.begin_checkpoint_within(&TineBeginCheckpoint { fork: main }, LIMIT).expect("begun");
    let (mut commits, mut shown) = (Vec::new(), first.lsn);
    for age in 0..20 {
        commits.push(setup.call(main, "add", json!(["Bob", age])).expect("added"));
    }
    for age in 0..20 {
        let item = next();
        // A reply tells the newest commit of its call, which with this module is that of a hook behind it.
        let told = commits[age as usize];
        assert!(shown < item.lsn && item.lsn <= told, "{} between {shown} and {told}", item.lsn);
        shown = told;
        let row: Value = serde_json::from_slice(&item.tables[0].inserts[0]).expect("JSON");
        assert_eq!((item.initial, row["age"].as_u64()), (false, Some(age)));
    }
    let revert = TineRevertCheckpoint { fork: main, checkpoint: checkpoint.checkpoint };
    let reverted = setup.client.revert_checkpoint_within(&revert, LIMIT).expect("reverted").lsn;
    let item = next();
    assert!(shown < item.lsn && item.lsn <= reverted, "{} between {shown} and {reverted}", item.lsn);
    assert_eq!((item.tables[0].inserts.len(), item.tables[0].deletes.len()), (0, 20), "{item:?}");
    drop(stream);
    let wrong = TineSubscribe { fork: main, queries: vec!["SELECT * FROM nobody".to_owned()], json: true };
    let mut stream = setup.client.subscribe(&wrong, 8).expect("asked");
    assert!(message(stream.next_within(LIMIT).expect_err("no such table")).contains("nobody"));
}

/// What is refused leaves no trace, and says why with a code.
#[test]
fn refusals_have_codes_and_leave_nothing() {
    let setup = Setup::new("sock");
    let main = setup.open(&setup.database).fork;
    let refused = setup.insert(main, &[person("Ada", 1), json!({ "name": "no id" })]).expect_err("a bad row");
    assert!(message(refused).starts_with("TN0621"), "the second row");
    assert_eq!(setup.count(main), 0, "all or none (G6)");
    let text = message(setup.call(main, "refuse", json!(["because"])).expect_err("refused"));
    assert!(text.starts_with("TN0623") && text.contains("because"), "{text}");
    let missing = setup.client.open_fork_within(&TineOpenFork { address: "nobody".to_owned() }, LIMIT);
    assert!(message(missing.expect_err("missing")).starts_with("TN0601"));
    let closed = TineCloseFork { fork: main };
    setup.client.close_fork_within(&closed, LIMIT).expect("closed");
    setup.client.close_fork_within(&closed, LIMIT).expect("closing is idempotent");
    assert!(message(setup.call(main, "noop", json!([])).expect_err("closed")).starts_with("TN0601"));
    let stranger = TineAuthenticate { token: "nonsense".to_owned() };
    assert!(message(setup.client.authenticate_within(&stranger, LIMIT).expect_err("no token")).starts_with("TN07"));
    let (client, _) = setup.server.newcomer();
    let token = client.create_identity().expect("an identity").token;
    setup.client.authenticate_within(&TineAuthenticate { token }, LIMIT).expect("somebody else now");
    let main = setup.open(&setup.database).fork;
    setup.call(main, "add", json!(["Ada", 1])).expect("anybody may call");
    let refused = setup.insert(main, &[person("Bob", 1)]).expect_err("not the owner");
    assert!(message(refused).starts_with("TN0604"));
}

/// A full lane refuses at once, with a code; who came before is answered all the same, and who comes after is served.
#[test]
fn a_full_lane_refuses_and_goes_on() {
    /// A lane holds 256 MiB of requests, a connection may have 128 MiB under way.
    const CONNECTIONS: usize = 3;
    const REQUESTS: usize = 4;
    let setup = Setup::new("shm");
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let client = TineClient::connect(&setup.path).expect("connected");
            let open = TineOpenFork { address: setup.database.clone() };
            let fork = client.open_fork_within(&open, LIMIT).expect("opened").fork;
            (client, fork)
        })
        .collect();
    // Each runs until it is stopped, so that everything behind them waits for several seconds.
    let spin = |fork| TineCallReducer { fork, reducer: "spin".to_owned(), input: b"[]".to_vec(), json: true };
    let spins: Vec<_> = (0..4).map(|_| spin(clients[0].1)).collect();
    let spins = spins.iter().map(|spin| clients[0].0.call_reducer(spin)).map(futures_util::future::maybe_done);
    let rows = vec![vec![0xff; 31 << 20]];
    let insert = |fork| TineInsert { fork, table: "person".to_owned(), rows: rows.clone(), json: false };
    let inserts: Vec<_> = clients.iter().map(|(_, fork)| insert(*fork)).collect();
    let inserts = clients.iter().zip(&inserts).flat_map(|((client, _), insert)| {
        (0..REQUESTS).map(move |_| futures_util::future::maybe_done(client.insert(insert)))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (refusals, others) = runtime.block_on(async {
        let mut spins: Vec<_> = spins.map(Box::pin).collect();
        for spin in &mut spins {
            // The first poll sends it.
            assert!(futures_util::poll!(spin).is_pending(), "it runs");
        }
        let answers = futures_util::future::join_all(inserts.map(|insert| async move {
            let mut insert = Box::pin(insert);
            insert.as_mut().await;
            message(insert.as_mut().take_output().expect("it has ended").expect_err("no row"))
        }));
        let answers = tokio::time::timeout(6 * LIMIT, answers).await.expect("every request is answered");
        answers.into_iter().partition::<Vec<_>, _>(|text| text.starts_with("TN0607"))
    });
    assert!(!refusals.is_empty() && others.len() >= 2 * REQUESTS, "{refusals:?} {others:?}");
    assert_eq!(setup.count(setup.open(&setup.database).fork), 0);
}
