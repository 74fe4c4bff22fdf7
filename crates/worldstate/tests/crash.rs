//! After `kill -9` at any moment the last confirmed block is there, whole, and nothing else is but blocks that were asked for.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tine_worldstate::WorldOptions;

mod support;

use support::{Asks, Client, Ours, element, inner, reply, request};

const LATEST: u64 = u32::MAX as u64;

/// Set for the process that serves: the directory it serves from.
const DIRECTORY: &str = "TINE_WORLD_CRASH_DIRECTORY";

/// Not a test by itself: the process that is killed.
#[test]
fn serves_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let _ours = Ours::start(&WorldOptions::new(directory.join("state")), &directory.join("world.sock"));
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

struct Server(Child);

impl Server {
    fn start(directory: &Path) -> Server {
        let _ = std::fs::remove_file(directory.join("world.sock"));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serves_until_it_is_killed"])
            .env(DIRECTORY, directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Server(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn state(client: &mut Client, block: u64) -> Value {
    let revision = json!({ "forkId": 0, "blockNumber": block, "includeUncommitted": false });
    client.ask("GetStateReference", &json!({ "revision": revision })).unwrap()
}

fn tip(client: &mut Client) -> u64 {
    client.ask("GetStatus", &json!({})).unwrap()["status"]["unfinalizedBlockNumber"].as_u64().unwrap()
}

#[test]
fn confirmed_blocks_survive() {
    let directory = tempfile::tempdir().unwrap();
    // States of confirmed blocks, by number.
    let mut confirmed: Vec<Value> = Vec::new();
    let mut next_leaf = 1;
    for round in 0..8u64 {
        let server = Server::start(directory.path());
        let mut client = Client::connect(&directory.path().join("world.sock"));
        let found = tip(&mut client);
        if confirmed.is_empty() {
            confirmed.push(state(&mut client, 0));
        }
        assert!(
            found + 1 >= confirmed.len() as u64,
            "{} blocks were confirmed, {found} are there",
            confirmed.len() - 1
        );
        for (block, expected) in confirmed.iter().enumerate() {
            assert_eq!(state(&mut client, block as u64), *expected, "block {block} after round {round}");
        }
        assert_eq!(state(&mut client, LATEST), state(&mut client, found), "nothing is pending");
        let fork = client.ask("CreateFork", &json!({ "latest": true, "blockNumber": 0 })).unwrap();
        assert_eq!(fork["forkId"], 1, "forks are gone, and numbered from the beginning");
        // Blocks that were on disk but not confirmed count from now on; at most the one in flight is.
        confirmed.extend((confirmed.len() as u64..=found).map(|block| state(&mut client, block)));
        if round % 3 == 2 && found > 2 {
            client.ask("UnwindBlocks", &json!({ "toBlockNumber": found - 2 })).unwrap();
            confirmed.truncate(found as usize - 1);
        }
        for _ in 0..4 {
            let leaves: Vec<Value> = (0..5).map(|at| inner(&element(next_leaf + at))).collect();
            next_leaf += 5;
            client.ask("AppendLeaves", &json!({ "treeId": 1, "leaves": leaves, "forkId": 0 })).unwrap();
            let slot = inner(&json!({ "slot": element(200 + next_leaf), "value": element(round) }));
            client.ask("SequentialInsert", &json!({ "treeId": 2, "leaves": [slot], "forkId": 0 })).unwrap();
            client.ask("Commit", &json!({})).unwrap();
            confirmed.push(state(&mut client, confirmed.len() as u64));
        }
        // One more block is asked for, and the server dies around its commit.
        let leaf = inner(&element(next_leaf));
        next_leaf += 1;
        client.send(&request("AppendLeaves", &json!({ "treeId": 1, "leaves": [leaf], "forkId": 0 })));
        client.send(&request("Commit", &json!({})));
        reply(&client.receive()).unwrap();
        std::thread::sleep(Duration::from_micros(300 * round));
        drop(server);
    }
}
