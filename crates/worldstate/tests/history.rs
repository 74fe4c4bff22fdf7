//! What eight connections see when they work on the same forks at once, through the plain protocol, through sockets and
//! through shared memory: each fork's changes in the order of each connection, each read the state after some of them and
//! never half of one, refused changes nowhere, and each reply in its place.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tine_ipc::ConnectOptions;
use tine_ipc::typed::ErrorResponse;
use tine_msgpack::{Reader, decode_message, encode_request, read_response};
use tine_worldstate::WorldOptions;
use tine_worldstate::service::*;

mod support;

use support::{Asks, Client, Ours, element, inner, reply, request};

const CONNECTIONS: u64 = 8;
const FORKS: u64 = 3;
const STEPS: u64 = 60;
const LATEST: u64 = u32::MAX as u64;

const REPLY_MAX: Duration = Duration::from_secs(60);

const NOTE_HASHES: u8 = 1;

/// What a connection asks of a fork.
#[derive(Clone, Debug)]
enum Ask {
    /// To append these leaves.
    Append(Vec<u64>),
    /// To append one and something that is no number of the field.
    Refused(u64),
    /// The size with what is pending.
    Size,
    /// The size without it.
    BaseSize,
}

/// What it was answered: the size that was asked for, or whether a change was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Refused,
    Size(u64),
}

/// A connection of any kind, with requests in flight.
trait Connection {
    fn send(&mut self, fork: u64, ask: &Ask);
    fn receive(&mut self) -> Answer;
}

/// Above the modulus.
fn no_element() -> Value {
    json!({ "bin": "ff".repeat(32) })
}

impl Connection for Client {
    fn send(&mut self, fork: u64, ask: &Ask) {
        let append = |leaves: Vec<Value>| {
            request("AppendLeaves", &json!({ "treeId": NOTE_HASHES, "leaves": leaves, "forkId": fork }))
        };
        let size = |include_uncommitted: bool| {
            let revision = json!({ "forkId": fork, "blockNumber": LATEST, "includeUncommitted": include_uncommitted });
            request("GetTreeInfo", &json!({ "treeId": NOTE_HASHES, "revision": revision }))
        };
        Client::send(
            self,
            &match ask {
                Ask::Append(leaves) => append(leaves.iter().map(|leaf| inner(&element(*leaf))).collect()),
                Ask::Refused(leaf) => append(vec![inner(&element(*leaf)), inner(&no_element())]),
                Ask::Size => size(true),
                Ask::BaseSize => size(false),
            },
        );
    }

    fn receive(&mut self) -> Answer {
        match reply(&Client::receive(self)) {
            Err(_) => Answer::Refused,
            Ok(fields) => fields["size"].as_u64().map_or(Answer::Done, Answer::Size),
        }
    }
}

/// A connection of the schema. It asked for replies in the order of its requests.
struct Typed {
    client: tine_ipc::Client,
    done: Sender<Vec<u8>>,
    replies: Receiver<Vec<u8>>,
}

impl Typed {
    fn connect(path: &std::path::Path) -> Typed {
        let (done, replies) = channel();
        let client = tine_ipc::Client::connect(path, &ConnectOptions::new(SCHEMA_HASH)).unwrap();
        Typed { client, done, replies }
    }
}

fn typed_element(number: u64) -> FieldElement {
    let mut bytes = [0; 32];
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    FieldElement(bytes)
}

impl Connection for Typed {
    fn send(&mut self, fork: u64, ask: &Ask) {
        let append = |leaves| {
            let request = WorldStateAppendLeaves { fork, tree: NOTE_HASHES, leaves };
            encode_request("WorldStateAppendLeaves", &request)
        };
        let size = |committed| {
            let revision = Revision { fork, block: None, committed };
            let request = WorldStateGetTreeInfo { tree: NOTE_HASHES, revision };
            encode_request("WorldStateGetTreeInfo", &request)
        };
        let payload = match ask {
            Ask::Append(leaves) => append(leaves.iter().map(|leaf| typed_element(*leaf)).collect()),
            Ask::Refused(leaf) => append(vec![typed_element(*leaf), FieldElement([0xff; 32])]),
            Ask::Size => size(false),
            Ask::BaseSize => size(true),
        };
        let done = self.done.clone();
        let result = self.client.submit(&payload, move |reply| {
            // Whoever panicked takes no more.
            let _ = done.send(reply.unwrap());
        });
        result.unwrap();
    }

    fn receive(&mut self) -> Answer {
        let payload = self.replies.recv_timeout(REPLY_MAX).unwrap();
        let mut reader = Reader::new(&payload);
        match read_response(&mut reader).unwrap() {
            "WorldStateAppendLeavesResponse" => Answer::Done,
            "WorldStateGetTreeInfoResponse" => {
                let info: WorldStateGetTreeInfoResponse = decode_message(&mut reader).unwrap();
                Answer::Size(info.size)
            }
            _ => {
                let error: ErrorResponse = decode_message(&mut reader).unwrap();
                assert!(error.message.starts_with("TN1228"), "{error:?}");
                Answer::Refused
            }
        }
    }
}

/// A leaf that tells whose it is, and when it was sent.
fn value(connection: u64, number: u64) -> u64 {
    1 + connection * 10_000 + number
}

/// What a connection asked and was answered, in order, with the fork.
type Log = Vec<(u64, Ask, Answer)>;

/// A connection's requests, pipelined: changes of changing forks, with reads in between.
fn pipeline(connection: u64, client: &mut dyn Connection) -> Log {
    let (mut log, mut next) = (Log::new(), 0);
    for window in 0..STEPS / 10 {
        let mut sent = Vec::new();
        for number in window * 10..window * 10 + 10 {
            let fork = 1 + (connection + number) % FORKS;
            let mut fresh = || {
                next += 1;
                value(connection, next)
            };
            let change = match number % 5 {
                4 => Ask::Refused(fresh()),
                count => Ask::Append((0..=count % 3).map(|_| fresh()).collect()),
            };
            let read = if number % 3 == 0 { Ask::BaseSize } else { Ask::Size };
            for ask in [change, Ask::Size, read] {
                client.send(fork, &ask);
                sent.push((fork, ask));
            }
        }
        log.extend(sent.into_iter().map(|(fork, ask)| (fork, ask, client.receive())));
    }
    log
}

fn leaf(client: &mut Client, fork: u64, index: u64) -> u64 {
    let revision = json!({ "forkId": fork, "blockNumber": LATEST, "includeUncommitted": true });
    let fields = json!({ "treeId": NOTE_HASHES, "revision": revision, "leafIndex": index });
    let value = client.ask("GetLeafValue", &fields).unwrap()["value"]["bin"].as_str().unwrap().to_owned();
    u64::from_str_radix(&value[value.len() - 16..], 16).unwrap()
}

/// Checks what one connection saw of one fork, whose leaves are `order` and whose changes end at `boundaries`.
fn check(log: &Log, fork: u64, order: &[u64], boundaries: &[u64]) {
    // Index behind the newest change of the connection's own, and the largest size it saw.
    let (mut own_end, mut seen) = (0, 0);
    for (_, ask, answer) in log.iter().filter(|(at, _, _)| *at == fork) {
        match (ask, answer) {
            (Ask::Append(leaves), Answer::Done) => {
                let start =
                    order.iter().position(|found| *found == leaves[0]).expect("a change that was made is there");
                assert_eq!(order[start..start + leaves.len()], leaves[..], "the leaves of a change are together");
                assert!(start as u64 >= own_end, "{leaves:?} came before a change that was sent earlier");
                own_end = (start + leaves.len()) as u64;
            }
            (Ask::Refused(leaf), Answer::Refused) => {
                assert!(!order.contains(leaf), "a refused change left a leaf");
            }
            (Ask::Size, Answer::Size(size)) => {
                assert!(*size >= own_end, "a read of fork {fork} missed a change sent before it");
                assert!(*size >= seen, "fork {fork} shrank");
                assert!(boundaries.binary_search(size).is_ok(), "a read saw half of a change of fork {fork}: {size}");
                seen = *size;
            }
            (Ask::BaseSize, Answer::Size(0)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn changes_keep_each_connections_order() {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let mut client = Client::connect(&ours.socket);
    for fork in 1..=FORKS {
        let made = client.ask("CreateFork", &json!({ "latest": true, "blockNumber": 0 })).unwrap();
        assert_eq!(made["forkId"], fork);
    }
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            let mut client: Box<dyn Connection + Send> = match connection % 4 {
                0 => Box::new(Client::connect(&ours.socket)),
                1 => Box::new(Typed::connect(&ours.typed[0])),
                _ => Box::new(Typed::connect(&ours.typed[1])),
            };
            thread::spawn(move || pipeline(connection, &mut *client))
        })
        .collect();
    let logs: Vec<Log> = connections.into_iter().map(|connection| connection.join().unwrap()).collect();
    let mut total = 0;
    for fork in 1..=FORKS {
        let revision = json!({ "forkId": fork, "blockNumber": LATEST, "includeUncommitted": true });
        let info = client.ask("GetTreeInfo", &json!({ "treeId": NOTE_HASHES, "revision": revision })).unwrap();
        let size = info["size"].as_u64().unwrap();
        total += size;
        let order: Vec<u64> = (0..size).map(|index| leaf(&mut client, fork, index)).collect();
        let end = |leaves: &Vec<u64>| 1 + order.iter().position(|found| Some(found) == leaves.last()).unwrap() as u64;
        let changes = logs.iter().flatten().filter_map(|(at, ask, _)| match ask {
            Ask::Append(leaves) if *at == fork => Some(end(leaves)),
            _ => None,
        });
        let mut boundaries: Vec<u64> = changes.chain([0]).collect();
        boundaries.sort_unstable();
        logs.iter().for_each(|log| check(log, fork, &order, &boundaries));
    }
    let sent = logs.iter().flatten().map(|(_, ask, _)| if let Ask::Append(leaves) = ask { leaves.len() } else { 0 });
    assert_eq!(total, sent.sum::<usize>() as u64);
}

/// Reads of blocks go past the lanes, and a connection still sees the block it has just asked for.
#[test]
fn a_connection_sees_its_own_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let connections: Vec<_> = (0..4)
        .map(|_| {
            let mut client = Client::connect(&ours.socket);
            thread::spawn(move || {
                let mut last = 0;
                for _ in 0..20 {
                    client.send(&request("Commit", &json!({})));
                    client.send(&request("GetStatus", &json!({})));
                    client.send(&request("CreateFork", &json!({ "latest": true, "blockNumber": 0 })));
                    let committed = reply(&client.receive()).unwrap()["status"]["summary"].clone();
                    let committed = committed["unfinalizedBlockNumber"].as_u64().unwrap();
                    let seen = reply(&client.receive()).unwrap()["status"]["unfinalizedBlockNumber"].clone();
                    assert!(committed > last && seen.as_u64().unwrap() >= committed);
                    let fork: Value = reply(&client.receive()).unwrap()["forkId"].clone();
                    client.ask("DeleteFork", &json!({ "forkId": fork })).unwrap();
                    last = committed;
                }
            })
        })
        .collect();
    connections.into_iter().for_each(|connection| connection.join().unwrap());
    let status = Client::connect(&ours.socket).ask("GetStatus", &json!({})).unwrap();
    assert_eq!(status["status"]["unfinalizedBlockNumber"], 80);
}

/// A fork with nothing under way is deleted at once, past its lane; one that is busy when what was asked of it has run.
#[test]
fn deleting_a_fork_waits_for_what_was_asked_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let options = WorldOptions::new(directory.path().join("state"));
    let ours = Ours::start(&options, &directory.path().join("world.sock"));
    let mut client = Client::connect(&ours.socket);
    let mut other = Client::connect(&ours.socket);
    let fork = |client: &mut Client| {
        let reply = client.ask("CreateFork", &json!({ "latest": true, "blockNumber": 0 }));
        reply.unwrap()["forkId"].clone()
    };
    let size = |fork: &Value| {
        let revision = json!({ "forkId": fork, "blockNumber": u32::MAX, "includeUncommitted": true });
        request("GetTreeInfo", &json!({ "treeId": 1, "revision": revision }))
    };
    for round in 0..30u64 {
        let idle = fork(&mut client);
        client.ask("DeleteFork", &json!({ "forkId": idle })).unwrap();
        for fields in [json!({ "forkId": idle }), json!({ "forkId": 0xffff_ffffu64 })] {
            assert_eq!(client.ask("DeleteFork", &fields), Err("Fork not found".to_owned()));
        }
        let busy = fork(&mut client);
        let leaves: Vec<Value> = (1..=40).map(|leaf| inner(&element(100 * round + leaf))).collect();
        client.send(&request("AppendLeaves", &json!({ "treeId": 1, "leaves": leaves, "forkId": busy })));
        client.send(&size(&busy));
        client.send(&request("DeleteFork", &json!({ "forkId": busy })));
        client.send(&size(&busy));
        // Another connection's deletion comes before, between or after them, and only one of the two is done.
        let raced = (round % 3 == 2).then(|| other.ask("DeleteFork", &json!({ "forkId": busy })).is_ok());
        let replies: Vec<Result<Value, String>> = (0..4).map(|_| reply(&client.receive())).collect();
        if raced != Some(true) {
            assert_eq!(replies[0], Ok(json!({})));
            assert_eq!(replies[1].as_ref().unwrap()["size"], 40);
            assert_eq!(replies[2], Ok(json!({})));
        } else {
            assert_eq!(replies[2], Err("Fork not found".to_owned()));
        }
        assert_eq!(replies[3], Err("Fork not found".to_owned()));
    }
    assert_eq!(ours.world.forks(), 1, "only the canonical one is left");
}
