//! A copy that is made while the world state is served opens again and holds every confirmed block.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tine_base::SystemEnv;
use tine_store::{Store, StoreOptions};
use tine_worldstate::WorldOptions;

mod support;

use support::{Asks, Client, Ours, element, inner, reply, request};

/// States of the canonical chain up to a block.
fn states(client: &mut Client, tip: u64) -> Vec<Value> {
    let revision = |block: u64| json!({ "forkId": 0, "blockNumber": block, "includeUncommitted": false });
    let mut state =
        |block| client.ask("GetStateReference", &json!({ "revision": revision(block) })).unwrap()["state"].clone();
    (0..=tip).map(&mut state).collect()
}

fn add_block(client: &mut Client, leaf: u64) {
    let leaves: Vec<Value> = (0..3).map(|at| inner(&element(10 * leaf + at))).collect();
    client.ask("AppendLeaves", &json!({ "treeId": 1, "leaves": leaves, "forkId": 0 })).unwrap();
    let slot = inner(&json!({ "slot": element(1000 + leaf), "value": element(leaf) }));
    client.ask("SequentialInsert", &json!({ "treeId": 2, "leaves": [slot], "forkId": 0 })).unwrap();
    client.ask("Commit", &json!({})).unwrap();
}

fn copy(client: &mut Client, path: &Path, compact: &Value) -> Result<Value, String> {
    client.ask("CopyStores", &json!({ "dstPath": path, "compact": compact }))
}

/// Opens the copy, compares its blocks, and adds one.
fn assert_holds(directory: &Path, socket: &Path, expected: &[Value]) {
    let ours = Ours::start(&WorldOptions::new(directory), socket);
    let mut client = Client::connect(&ours.socket);
    let status = client.ask("GetStatus", &json!({})).unwrap();
    assert_eq!(status["status"]["unfinalizedBlockNumber"].as_u64().unwrap() as usize + 1, expected.len());
    assert_eq!(states(&mut client, expected.len() as u64 - 1), expected);
    add_block(&mut client, 77);
    let grown = states(&mut client, expected.len() as u64);
    assert_ne!(grown[expected.len()], expected[expected.len() - 1]);
}

#[test]
fn copies_open_again() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let options = WorldOptions::new(place("state"));
    let ours = Ours::start(&options, &place("world.sock"));
    let mut client = Client::connect(&ours.socket);
    for leaf in 1..=6 {
        add_block(&mut client, leaf);
    }
    // A second generation of the chain is part of a copy too.
    client.ask("UnwindBlocks", &json!({ "toBlockNumber": 4 })).unwrap();
    add_block(&mut client, 9);
    let expected = states(&mut client, 5);
    // What is pending is not.
    let pending = inner(&element(555));
    client.ask("AppendLeaves", &json!({ "treeId": 1, "leaves": [pending], "forkId": 0 })).unwrap();

    for (name, compact) in [("nil", Value::Null), ("plain", json!(false)), ("below/compact", json!(true))] {
        assert_eq!(copy(&mut client, &place(name), &compact), Ok(json!({})));
        assert_eq!(
            copy(&mut client, &place(name), &compact),
            Err("mdb_env_copy2: 17 - File exists\n".to_owned()),
            "{name} a second time"
        );
        assert_holds(&place(name), &place("copy.sock"), &expected);
        std::fs::remove_file(place("copy.sock")).ok();
    }
    std::fs::write(place("file"), "").unwrap();
    assert!(copy(&mut client, &place("file"), &json!(true)).is_err(), "a file is not replaced");
    assert!(copy(&mut client, &place("file/below"), &json!(true)).is_err());
    std::fs::create_dir(place("empty")).unwrap();
    assert_eq!(copy(&mut client, &place("empty"), &json!(true)), Ok(json!({})));
    // The chain goes on where it was.
    client.ask("Commit", &json!({})).unwrap();
    assert_eq!(states(&mut client, 5), expected);
    let leftover = std::fs::read_dir(directory.path()).unwrap();
    let is_partial = |name: &std::ffi::OsStr| name.to_string_lossy().contains(".partial-");
    assert!(!leftover.into_iter().any(|entry| is_partial(&entry.unwrap().file_name())), "nothing half done remains");
}

#[test]
fn copies_have_what_was_confirmed_before_them() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let options = WorldOptions::new(place("state"));
    {
        let ours = Ours::start(&options, &place("first.sock"));
        let mut client = Client::connect(&ours.socket);
        for leaf in 1..=3 {
            add_block(&mut client, leaf);
        }
    }
    // From here on a copy consists of images and a log.
    let store = Store::open(StoreOptions::new(&options.directory), Arc::new(SystemEnv)).unwrap();
    store.image().unwrap();
    store.close().unwrap();
    drop(store);

    let ours = Ours::start(&options, &place("world.sock"));
    let mut client = Client::connect(&ours.socket);
    // Another client goes on adding blocks meanwhile, and the copy is asked for before the first reply is there.
    let leaf = inner(&element(4242));
    client.send(&request("AppendLeaves", &json!({ "treeId": 1, "leaves": [leaf], "forkId": 0 })));
    client.send(&request("Commit", &json!({})));
    client.send(&request("CopyStores", &json!({ "dstPath": place("copy"), "compact": null })));
    let mut other = Client::connect(&ours.socket);
    for leaf in 11..31 {
        add_block(&mut other, leaf);
    }
    for _ in 0..3 {
        reply(&client.receive()).unwrap();
    }
    let expected = states(&mut client, 24);
    let copied = Ours::start(&WorldOptions::new(place("copy")), &place("copy.sock"));
    assert!(std::fs::read_dir(place("copy/images")).unwrap().next().is_some(), "images are copied");
    let mut client = Client::connect(&copied.socket);
    let status = client.ask("GetStatus", &json!({})).unwrap();
    let tip = status["status"]["unfinalizedBlockNumber"].as_u64().unwrap();
    assert!(tip >= 4, "the commit before the copy is in it, {tip}");
    assert_eq!(states(&mut client, tip), expected[..=tip as usize]);
}
