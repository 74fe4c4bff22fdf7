//! What eight connections see when they work on the same forks at once: each fork's changes in the order of each
//! connection, each read the state after some prefix of them, and each reply in its place.

use std::thread;

use serde_json::{Value, json};
use tine_worldstate::WorldOptions;

mod support;

use support::{Client, Ours, element, inner, reply, request};

const CONNECTIONS: u64 = 8;
const FORKS: u64 = 3;
const APPENDS: u64 = 60;
const LATEST: u64 = u32::MAX as u64;

fn value(connection: u64, number: u64) -> u64 {
    1 + connection * 10_000 + number
}

/// A connection's requests, pipelined: appends to changing forks, with a read of the size after each.
fn pipeline(connection: u64, mut client: Client) -> Vec<(u64, u64)> {
    let mut sizes = Vec::new();
    for window in 0..APPENDS / 10 {
        for number in window * 10..window * 10 + 10 {
            let fork = 1 + (connection + number) % FORKS;
            let leaf = inner(&element(value(connection, number)));
            client.send(&request("AppendLeaves", &json!({ "treeId": 1, "leaves": [leaf], "forkId": fork })));
            let revision = json!({ "forkId": fork, "blockNumber": LATEST, "includeUncommitted": true });
            client.send(&request("GetTreeInfo", &json!({ "treeId": 1, "revision": revision })));
        }
        for number in window * 10..window * 10 + 10 {
            assert_eq!(reply(&client.receive()).unwrap(), json!({}), "the reply to an append comes first");
            let info = reply(&client.receive()).unwrap();
            sizes.push((1 + (connection + number) % FORKS, info["size"].as_u64().unwrap()));
        }
    }
    sizes
}

fn leaf(client: &mut Client, fork: u64, index: u64) -> u64 {
    let revision = json!({ "forkId": fork, "blockNumber": LATEST, "includeUncommitted": true });
    let fields = json!({ "treeId": 1, "revision": revision, "leafIndex": index });
    let value = client.ask("GetLeafValue", &fields).unwrap()["value"]["bin"].as_str().unwrap().to_owned();
    u64::from_str_radix(&value[value.len() - 16..], 16).unwrap()
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
            let client = Client::connect(&ours.socket);
            thread::spawn(move || pipeline(connection, client))
        })
        .collect();
    let sizes: Vec<Vec<(u64, u64)>> = connections.into_iter().map(|connection| connection.join().unwrap()).collect();
    let mut total = 0;
    for fork in 1..=FORKS {
        let revision = json!({ "forkId": fork, "blockNumber": LATEST, "includeUncommitted": true });
        let info = client.ask("GetTreeInfo", &json!({ "treeId": 1, "revision": revision })).unwrap();
        let size = info["size"].as_u64().unwrap();
        total += size;
        let order: Vec<u64> = (0..size).map(|index| leaf(&mut client, fork, index)).collect();
        for connection in 0..CONNECTIONS {
            let own = |value: &&u64| (**value - 1) / 10_000 == connection;
            let numbers: Vec<u64> = order.iter().filter(own).map(|value| (value - 1) % 10_000).collect();
            assert!(numbers.is_sorted(), "fork {fork} has the changes of connection {connection} as {numbers:?}");
            // A read sees the connection's own changes before it, and never a smaller state than the read before.
            let seen: Vec<u64> =
                sizes[connection as usize].iter().filter(|(at, _)| *at == fork).map(|(_, size)| *size).collect();
            assert!(seen.is_sorted(), "connection {connection} saw fork {fork} shrink: {seen:?}");
            for (number, size) in numbers.iter().zip(&seen) {
                let index = order.iter().position(|found| *found == value(connection, *number)).unwrap();
                assert!(*size > index as u64, "a read of fork {fork} missed a change sent before it");
            }
        }
    }
    assert_eq!(total, CONNECTIONS * APPENDS);
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
