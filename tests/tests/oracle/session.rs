//! A host with the module, a client that calls and one that follows.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tine_base::SystemEnv;
use tine_host::{
    Actor, ClientInfo, ClientSink, CloseReason, Connection, Delivery, ForkHandle, Host, HostOptions, PublishRequest,
};
use tine_types::protocol::{ClientMessage, ReducerOutcome, RowList, ServerMessage, TableUpdateRows};
use tine_types::{ConnectionId, Identity};

use crate::schema::{Call, Schema};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Inbox {
    messages: Mutex<VecDeque<ServerMessage>>,
    came: Condvar,
}

impl ClientSink for Inbox {
    fn deliver(&self, messages: &mut Vec<Delivery>) {
        self.messages
            .lock()
            .expect("no panic under the lock")
            .extend(messages.drain(..).map(|delivery| delivery.message));
        self.came.notify_all();
    }
    fn close(&self, reason: CloseReason) {
        panic!("closed: {reason:?}");
    }
}

struct Client {
    connection: Connection,
    inbox: Arc<Inbox>,
}

impl Client {
    fn connect(fork: &ForkHandle, number: u128) -> Client {
        let inbox = Arc::new(Inbox::default());
        let info = ClientInfo {
            identity: Identity::from_le_bytes([9; 32]),
            connection_id: ConnectionId::new(number),
            token: "".into(),
            jwt_payload: None,
            confirmed: Some(false),
        };
        let connection = fork.connect(info, inbox.clone()).expect("connected");
        let client = Client { connection, inbox };
        client.next();
        client
    }

    fn send(&mut self, mut messages: Vec<ClientMessage>) {
        self.connection.submit(&mut messages).expect("submitted");
    }

    fn next(&self) -> ServerMessage {
        let messages = self.inbox.messages.lock().expect("no panic under the lock");
        let (mut messages, waited) =
            self.inbox.came.wait_timeout_while(messages, PATIENCE, |messages| messages.is_empty()).expect("as above");
        assert!(!waited.timed_out(), "no message came");
        messages.pop_front().expect("it is not empty")
    }
}

pub struct Session {
    caller: Client,
    follower: Client,
    seen: HashMap<String, BTreeSet<Vec<u8>>>,
    _host: Host,
    _directory: Directory,
}

/// A folder that goes with the session.
struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left is in the build's folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Session {
    pub fn start(program: Vec<u8>, schema: &Schema) -> Session {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let directory = tine_tests::target().join(format!("oracle-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("the folder can be made");
        let host = Host::open(HostOptions::new(directory.clone()), Arc::new(SystemEnv)).expect("opens");
        let actor = Actor { identity: Identity::from_le_bytes([7; 32]), is_admin: true };
        let request = PublishRequest { program, ..PublishRequest::default() };
        host.publish(Some("oracle"), &actor, request).unwrap_or_else(|error| panic!("{error}\n{}", schema.source()));
        let fork = host.resolve("oracle").expect("found");
        let (caller, mut follower) = (Client::connect(&fork, 1), Client::connect(&fork, 2));
        let mut seen = HashMap::new();
        for (name, query_set_id) in schema.relations().into_iter().zip(0..) {
            let queries = vec![format!("SELECT * FROM {name}").into()];
            follower.send(vec![ClientMessage::Subscribe { request_id: 0, query_set_id, queries }]);
            match follower.next() {
                ServerMessage::SubscribeApplied { .. } => seen.insert(name, BTreeSet::new()),
                other => panic!("{name}: {other:?}\n{}", schema.source()),
            };
        }
        Session { caller, follower, seen, _host: host, _directory: Directory(directory) }
    }

    /// Makes calls and returns how each was answered, after the follower has heard of all of them.
    pub fn call(&mut self, schema: &Schema, calls: &[Call]) -> Vec<Result<(), String>> {
        let messages = calls.iter().zip(0..).map(|(call, request_id)| {
            let (reducer, args) = schema.encode(call);
            ClientMessage::CallReducer { request_id, reducer: reducer.into(), args: args.into() }
        });
        self.caller.send(messages.collect());
        let answers = (0..calls.len()).map(|_| match self.caller.next() {
            ServerMessage::ReducerResult { outcome, .. } => match outcome {
                ReducerOutcome::Ok { .. } | ReducerOutcome::OkEmpty => Ok(()),
                ReducerOutcome::Err(text) => Err(String::from_utf8_lossy(&text).into_owned()),
                ReducerOutcome::InternalError(text) => Err(text),
            },
            other => panic!("{other:?}"),
        });
        let answers = answers.collect();
        // An ordered read: everything before it has been announced when it is answered.
        self.follower.send(vec![ClientMessage::OneOffQuery { request_id: 0, query: "SELECT * FROM t0".into() }]);
        loop {
            match self.follower.next() {
                ServerMessage::TransactionUpdate(update) => {
                    for table in update.query_sets.iter().flat_map(|set| &set.tables) {
                        let TableUpdateRows::Persistent { inserts, deletes } = &table.rows else { panic!("events") };
                        self.follow(&table.table, inserts, deletes);
                    }
                }
                ServerMessage::OneOffQueryResult { .. } => return answers,
                other => panic!("{other:?}"),
            }
        }
    }

    /// A deleted row was there, an inserted one was not.
    fn follow(&mut self, name: &str, inserts: &RowList, deletes: &RowList) {
        let rows = self.seen.get_mut(name).unwrap_or_else(|| panic!("an update of {name}"));
        for row in deletes.rows() {
            assert!(rows.remove(row), "{name}: a row that was not there is deleted");
        }
        for row in inserts.rows() {
            assert!(rows.insert(row.to_vec()), "{name}: a row that was there is inserted");
        }
    }

    /// What the follower has of a table or view.
    pub fn rows(&self, name: &str) -> BTreeSet<Vec<u8>> {
        self.seen[name].clone()
    }
}
