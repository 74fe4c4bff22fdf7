//! The same random commands to this service and to the server that it stands in for: the same replies, but for the defects
//! listed in `docs/world-state.md`, which the commands keep clear of or the comparison leaves out.
//!
//! The same, too, from the schema's clients as from those of the plain protocol.
//!
//! `TINE_TESTS_LONG=1` runs many more; `TINE_WORLD_SEED=n` repeats one.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tine_worldstate::WorldOptions;

mod support;

use support::typed::{self, Opened, Translated};
use support::{Asks, Client, Ours, Theirs, element, inner};

const LATEST: u64 = u32::MAX as u64;

/// Commands of one run.
const STEPS: usize = 250;

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// Both servers, and what is known of their state.
struct Pair {
    ours: Box<dyn Asks>,
    theirs: Box<dyn Asks>,
    /// Whether both take what only the plain protocol can say.
    is_plain: bool,
    random: Random,
    /// Forks that are there, with the blocks they were made of.
    forks: BTreeMap<u64, u64>,
    tip: u64,
    finalized: u64,
    oldest: u64,
    /// The newest value that a list may have.
    newest_leaf: u64,
    trail: Vec<String>,
}

/// Whether both refuse a batch of leaves for a fault that it may have beside the other one: the real server finds faults on several
/// threads and tells the one that it found first.
fn are_faults_of_a_batch((ours, theirs): (&String, &String)) -> bool {
    let is_fault = |error: &String| {
        error.starts_with("Duplicate key not allowed in same batch")
            || error.starts_with("Unable to insert values into tree")
    };
    is_fault(ours) && is_fault(theirs)
}

impl Pair {
    /// Sends a command to both and compares the replies. Returns ours.
    fn ask(&mut self, name: &str, fields: Value) -> Result<Value, String> {
        let mut ours = self.ours.ask(name, &fields);
        let mut theirs = self.theirs.ask(name, &fields);
        for reply in [&mut ours, &mut theirs] {
            if let Ok(Value::Object(reply)) = reply
                && let Some(Value::Object(status)) = reply.get_mut("status")
            {
                // What is on their disk is not on ours; the summary of a commit is uninitialised there.
                status.remove("dbStats");
                if name == "Commit" {
                    status.remove("summary");
                }
            }
        }
        self.trail.push(format!("{name} {fields} => {}", shortened(&theirs)));
        let is_same =
            ours == theirs || ours.as_ref().err().zip(theirs.as_ref().err()).is_some_and(are_faults_of_a_batch);
        assert!(
            is_same,
            "ours: {ours:?}\ntheirs: {theirs:?}\nafter\n{}",
            self.trail[self.trail.len().saturating_sub(trail_shown())..].join("\n")
        );
        ours
    }

    /// Sends a command to both whose replies are known to differ.
    fn tell(&mut self, name: &str, fields: &Value) {
        let _ = (self.ours.ask(name, fields), self.theirs.ask(name, fields));
    }

    fn fork(&mut self) -> u64 {
        let count = self.forks.len() as u64;
        match self.random.below(count + 2) {
            0 => 0,
            // One that never was, now and then.
            1 if self.random.one_in(5) => 999,
            at => self.forks.keys().nth((at as usize).saturating_sub(2)).copied().unwrap_or(0),
        }
    }

    fn revision(&mut self) -> Value {
        let block = if self.random.one_in(3) { self.random.below(self.tip + 2) } else { LATEST };
        json!({ "forkId": self.fork(), "blockNumber": block, "includeUncommitted": !self.random.one_in(4) })
    }

    fn leaf(&mut self, tree: u64) -> Value {
        let key = element(self.random.below(400));
        match tree {
            0 => inner(&json!({ "nullifier": key })),
            2 => inner(&json!({ "slot": key, "value": element(self.random.below(3)) })),
            _ => inner(&element(self.random.below(self.newest_leaf + 3))),
        }
    }

    fn leaves(&mut self, tree: u64, most: u64) -> Vec<Value> {
        (0..self.random.below(most + 1)).map(|_| self.leaf(tree)).collect()
    }

    /// Leaves to insert. Those of lists come once, or again in the same request: there a value that comes again in a later
    /// block is not found in the older ones any more, nor anywhere when that block is unwound.
    fn new_leaves(&mut self, tree: u64, most: u64) -> Vec<Value> {
        if tree == 0 || tree == 2 {
            return self.leaves(tree, most);
        }
        self.new_elements(most).iter().map(inner).collect()
    }

    fn new_elements(&mut self, most: u64) -> Vec<Value> {
        let first = self.newest_leaf + 1;
        let mut elements = Vec::new();
        for _ in 0..self.random.below(most + 1) {
            let is_again = self.newest_leaf >= first && self.random.one_in(4);
            self.newest_leaf += u64::from(!is_again);
            // Zero is a leaf that is not found.
            elements.push(element(if self.random.one_in(10) { 0 } else { self.newest_leaf }));
        }
        elements
    }

    /// A refused insertion damages the fork there: it is given up on both sides.
    fn abandon(&mut self, fork: u64) {
        match fork {
            0 => drop(self.ask("Rollback", json!({}))),
            999 => {}
            fork => {
                self.forks.remove(&fork);
                drop(self.ask("DeleteFork", json!({ "forkId": fork })));
            }
        }
    }

    fn insert(&mut self) {
        let (fork, tree) = (self.fork(), self.random.below(5));
        let result = match self.random.below(3) {
            0 => {
                let leaves = self.new_leaves(tree, 9);
                self.ask("AppendLeaves", json!({ "treeId": tree, "leaves": leaves, "forkId": fork }))
            }
            1 => {
                let (leaves, depth) = (self.new_leaves(tree, 8), self.random.below(5));
                let fields = json!({ "treeId": tree, "leaves": leaves, "subtreeDepth": depth, "forkId": fork });
                self.ask("BatchInsert", fields)
            }
            _ => {
                let leaves = self.new_leaves(tree, 6);
                self.ask("SequentialInsert", json!({ "treeId": tree, "leaves": leaves, "forkId": fork }))
            }
        };
        if result.is_err() {
            self.abandon(fork);
        }
    }

    fn read(&mut self) {
        let (revision, tree) = (self.revision(), self.random.below(5));
        let index = if self.random.one_in(8) { self.random.next() >> 20 } else { self.random.below(140) };
        let mut fields = json!({ "treeId": tree, "revision": revision });
        let name = match self.random.below(9) {
            0 => "GetTreeInfo",
            1 => "GetStateReference",
            2 => "GetLeafValue",
            3 => "GetLeafPreimage",
            4 => "GetSiblingPath",
            5 => {
                let indices: Vec<u64> = (0..self.random.below(5)).map(|_| self.random.below(150)).collect();
                fields["leafIndices"] = json!(indices);
                "GetBlockNumbersForLeafIndices"
            }
            6 => {
                fields["leaves"] = json!(self.leaves(tree, 4));
                fields["startIndex"] = json!(self.random.below(130));
                "FindLeafIndices"
            }
            7 => {
                fields["key"] = element(self.random.below(500));
                // There a low leaf of a block may be one of the fork's pending changes.
                fields["revision"]["blockNumber"] = json!(LATEST);
                "FindLowLeaf"
            }
            _ => {
                fields["leaves"] = json!(self.leaves(tree, 3));
                "FindSiblingPaths"
            }
        };
        fields["leafIndex"] = json!(index);
        let _ = self.ask(name, fields);
    }

    fn checkpoint(&mut self) {
        let name = [
            "CreateCheckpoint",
            "CreateCheckpoint",
            "CommitCheckpoint",
            "RevertCheckpoint",
            "CommitAllCheckpoints",
            "RevertAllCheckpoints",
        ][self.random.below(6) as usize];
        let fork = self.fork();
        let _ = self.ask(name, json!({ "forkId": fork }));
    }

    fn create_fork(&mut self) {
        let latest = self.random.one_in(2);
        let block = self.random.below(self.tip + 2);
        if let Ok(reply) = self.ask("CreateFork", json!({ "latest": latest, "blockNumber": block })) {
            self.forks.insert(reply["forkId"].as_u64().unwrap(), if latest { self.tip } else { block });
        }
    }

    fn change_chain(&mut self) {
        match self.random.below(8) {
            0 | 1 => {
                self.ask("Commit", json!({})).unwrap();
                self.tip += 1;
            }
            2 | 3 => self.sync(),
            4 => drop(self.ask("Rollback", json!({}))),
            5 => {
                let to = self.random.below(self.tip + 2);
                if self.ask("FinalizeBlocks", json!({ "toBlockNumber": to })).is_ok() {
                    self.finalized = self.finalized.max(to);
                }
            }
            6 => self.unwind(),
            _ => self.remove_historical(),
        }
        let status = self.ask("GetStatus", json!({})).unwrap()["status"].clone();
        assert_eq!(status["unfinalizedBlockNumber"], self.tip);
        self.oldest = status["oldestHistoricalBlock"].as_u64().unwrap();
    }

    /// Never below what is final: there that unwinds in part.
    fn unwind(&mut self) {
        let to = self.finalized + self.random.below(self.tip - self.finalized + 2);
        if self.ask("UnwindBlocks", json!({ "toBlockNumber": to })).is_ok() {
            self.tip = to;
            self.forks.retain(|_, base| *base <= to);
        } else {
            // There a refused unwind drops the pending changes all the same.
            self.abandon(0);
        }
    }

    /// Never beyond what is final: there that removes in part.
    fn remove_historical(&mut self) {
        let to = self.random.below(self.finalized + 1);
        if self.ask("RemoveHistoricalBlocks", json!({ "toBlockNumber": to })).is_ok() {
            // There it deletes the forks of the removed blocks.
            let removed: Vec<u64> =
                self.forks.iter().filter(|(_, base)| (1..to).contains(*base)).map(|(fork, _)| *fork).collect();
            for fork in removed {
                self.forks.remove(&fork);
                self.tell("DeleteFork", &json!({ "forkId": fork }));
            }
        }
        self.abandon(0);
    }

    /// Tries a block on a fork to learn its roots, then syncs it, sometimes with something wrong.
    fn sync(&mut self) {
        let fork = self.ask("CreateFork", json!({ "latest": true, "blockNumber": 0 })).unwrap()["forkId"].clone();
        let latest = json!({ "forkId": fork, "blockNumber": LATEST, "includeUncommitted": true });
        let archive = |pair: &mut Pair| {
            pair.ask("GetTreeInfo", json!({ "treeId": 4, "revision": latest })).unwrap()["root"].clone()
        };
        let previous_archive = archive(self);
        let (notes, messages) = (self.new_elements(5), self.new_elements(5));
        let keys: Vec<Value> = (0..self.random.below(5)).map(|_| element(128 + self.random.below(5_000))).collect();
        let nullifiers: Vec<Value> = keys.iter().map(|key| json!({ "nullifier": key })).collect();
        let slots = (0..self.random.below(5)).map(|_| (element(self.random.below(300)), element(self.random.below(9))));
        let writes: Vec<Value> = slots.map(|(slot, value)| json!({ "slot": slot, "value": value })).collect();
        let header = element(self.random.next());
        let encoded = |values: &[Value]| values.iter().map(inner).collect::<Vec<_>>();
        let inserts = [
            ("AppendLeaves", 0, &nullifiers),
            ("AppendLeaves", 1, &notes),
            ("AppendLeaves", 3, &messages),
            ("SequentialInsert", 2, &writes),
        ];
        for (name, tree, leaves) in inserts {
            let fields = json!({ "treeId": tree, "leaves": encoded(leaves), "forkId": fork });
            if self.ask(name, fields).is_err() {
                return self.abandon(fork.as_u64().unwrap());
            }
        }
        let mut state = self.ask("GetStateReference", json!({ "revision": latest })).unwrap()["state"].clone();
        let fields = json!({ "blockStateRef": state, "blockHeaderHash": header, "forkId": fork });
        let is_good = self.ask("UpdateArchive", fields).is_ok();
        let mut archive_after = archive(self);
        let _ = self.ask("DeleteFork", json!({ "forkId": fork }));
        if !is_good {
            return;
        }
        let mut previous = previous_archive;
        match self.random.below(12) {
            0 => state["#1"][1] = json!(12345),
            1 => archive_after = element(7),
            2 => previous = element(7),
            _ => {}
        }
        let fields = json!({
            "blockNumber": self.tip + 1, "blockStateRef": state, "blockHeaderHash": header,
            "expectedArchiveRoot": archive_after, "expectedPreviousArchiveRoot": previous,
            "paddedNoteHashes": notes, "paddedL1ToL2Messages": messages,
            "paddedNullifiers": nullifiers, "publicDataWrites": writes,
        });
        if self.ask("SyncBlock", fields).is_ok() {
            self.tip += 1;
        }
    }

    /// A command that says something impossible; nothing comes of it.
    fn malformed(&mut self) {
        let (revision, tree) = (self.revision(), self.random.below(8));
        let (fork, key) = (self.fork(), element(self.random.below(400)));
        let leaves = vec![self.leaf(tree % 5)];
        let commands = [
            ("GetTreeInfo", json!({ "treeId": tree, "revision": revision })),
            ("GetSiblingPath", json!({ "treeId": tree, "revision": revision, "leafIndex": 3 })),
            ("GetLeafValue", json!({ "treeId": tree, "revision": revision, "leafIndex": 3 })),
            ("FindLowLeaf", json!({ "treeId": 0, "revision": revision, "key": key })),
            ("FindLeafIndices", json!({ "treeId": tree, "revision": revision, "leaves": leaves, "startIndex": 0 })),
            ("AppendLeaves", json!({ "treeId": tree, "leaves": leaves, "forkId": fork })),
            ("SequentialInsert", json!({ "treeId": tree, "leaves": leaves, "forkId": fork })),
            ("CreateFork", json!({ "latest": false, "blockNumber": 0 })),
            ("DeleteFork", json!({ "forkId": fork })),
            ("UnwindBlocks", json!({ "toBlockNumber": 0 })),
        ];
        let (name, mut fields) = commands[self.random.below(commands.len() as u64) as usize].clone();
        let names: Vec<String> = fields.as_object().unwrap().keys().cloned().collect();
        let field = &names[self.random.below(names.len() as u64) as usize];
        match self.random.below(4) {
            0 => drop(fields.as_object_mut().unwrap().remove(field)),
            1 => fields[field] = json!("text"),
            2 => fields[field] = Value::Null,
            // Beyond the field, too long, and no MessagePack.
            _ => {
                let bytes = |hex: &str| json!({ "bin": hex });
                let wrong = [inner(&bytes(&"ff".repeat(32))), inner(&bytes(&"00".repeat(33))), bytes("c1")];
                let name = if tree % 2 == 0 { "AppendLeaves" } else { "FindSiblingPaths" };
                let leaf = &wrong[self.random.below(3) as usize];
                let fields = json!({ "treeId": 1, "leaves": [leaf], "forkId": fork, "revision": revision });
                return drop(self.ask(name, fields));
            }
        }
        assert!(self.ask(name, fields).is_err());
    }

    fn step(&mut self) {
        if self.is_plain && self.random.one_in(12) {
            self.malformed();
        }
        match self.random.below(20) {
            0..=5 => self.insert(),
            6..=12 => self.read(),
            13 | 14 => self.checkpoint(),
            15 => self.create_fork(),
            16 => {
                let fork = self.fork();
                self.forks.remove(&fork);
                let _ = self.ask("DeleteFork", json!({ "forkId": fork }));
            }
            _ => self.change_chain(),
        }
    }
}

fn shortened(reply: &Result<Value, String>) -> String {
    let mut text = format!("{reply:?}");
    text.truncate(300);
    text
}

/// Trees of a run: in some, ones that are full soon.
fn options(directory: &Path, seed: u64) -> WorldOptions {
    let mut options = WorldOptions::new(directory);
    if seed % 3 == 2 {
        options.heights = [8, 5, 8, 4, 4];
        (options.nullifier_prefill, options.public_data_prefill) = (2, 4);
    }
    options
}

fn compare(ours: Box<dyn Asks>, theirs: Box<dyn Asks>, is_plain: bool, seed: u64) {
    let random = Random(seed);
    let (forks, trail) = (BTreeMap::new(), Vec::new());
    let mut pair =
        Pair { ours, theirs, is_plain, random, forks, tip: 0, finalized: 0, oldest: 0, newest_leaf: 0, trail };
    for _ in 0..STEPS {
        pair.step();
    }
}

fn seeds(short: u64, long: u64) -> impl Iterator<Item = u64> {
    let seeds = match std::env::var("TINE_WORLD_SEED") {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) if std::env::var_os("TINE_TESTS_LONG").is_some() => 0..long,
        Err(_) => 0..short,
    };
    seeds.inspect(|seed| eprintln!("to repeat: TINE_WORLD_SEED={seed}"))
}

#[test]
fn replies_are_those_of_the_server_it_stands_in_for() {
    let Some(program) = Theirs::program() else {
        eprintln!("skipped: npm @aztec/bb.js is not installed; `cargo xtask test` installs it");
        return;
    };
    for seed in seeds(6, 200) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let _theirs = Theirs::start(&program, &options(&at("theirs"), seed), &at("theirs.sock"));
        let theirs = Client::connect(&at("theirs.sock"));
        let ours = Ours::start(&options(&at("ours"), seed), &at("ours.sock"));
        compare(Box::new(Client::connect(&ours.socket)), Box::new(theirs), true, seed);
    }
}

/// A value that a list has more than once is found by its first index since the last block, if it came since.
#[test]
fn values_that_come_again_are_found_where_they_came_last() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let ours = Ours::start(&options(&at("ours"), 0), &at("ours.sock"));
    let mut servers: Vec<Client> = vec![Client::connect(&ours.socket)];
    let theirs = Theirs::program().map(|program| {
        let server = Theirs::start(&program, &options(&at("theirs"), 0), &at("theirs.sock"));
        servers.push(Client::connect(&at("theirs.sock")));
        server
    });
    let find = |client: &mut Client, fork: u64, block: u64, include_uncommitted: bool| {
        let revision = json!({ "forkId": fork, "blockNumber": block, "includeUncommitted": include_uncommitted });
        let leaves = [inner(&element(33))];
        let fields = json!({ "treeId": 1, "revision": revision, "leaves": leaves, "startIndex": 0 });
        client.ask("FindLeafIndices", &fields).unwrap()["indices"][0].clone()
    };
    for client in &mut servers {
        let append = |client: &mut Client, fork: u64, values: &[u64]| {
            let leaves: Vec<Value> = values.iter().map(|value| inner(&element(*value))).collect();
            client.ask("AppendLeaves", &json!({ "treeId": 1, "leaves": leaves, "forkId": fork })).unwrap();
        };
        let newest = |client: &mut Client| [true, false].map(|pending| find(client, 0, LATEST, pending));
        append(client, 0, &[33, 33, 16]);
        assert_eq!(newest(client), [json!(0), Value::Null]);
        client.ask("Commit", &json!({})).unwrap();
        append(client, 0, &[1]);
        append(client, 0, &[33]);
        append(client, 0, &[33]);
        assert_eq!(newest(client), [json!(4), json!(0)]);
        client.ask("Commit", &json!({})).unwrap();
        assert_eq!(newest(client), [json!(4), json!(4)]);
        client.ask("CreateFork", &json!({ "latest": true, "blockNumber": 0 })).unwrap();
        append(client, 1, &[33]);
        assert_eq!([true, false].map(|pending| find(client, 1, LATEST, pending)), [json!(6), json!(4)]);
        append(client, 0, &[9]);
        client.ask("Commit", &json!({})).unwrap();
        assert_eq!(newest(client), [json!(4), json!(4)]);
    }
    drop(theirs);
    // There the older block has lost it.
    assert_eq!(find(&mut servers[0], 0, 1, false), 0);
    servers[0].ask("UnwindBlocks", &json!({ "toBlockNumber": 1 })).unwrap();
    assert_eq!(find(&mut servers[0], 0, LATEST, true), 0);
}

/// Over a socket and over shared memory in turn.
#[test]
fn clients_of_the_schema_get_the_replies_of_the_plain_protocol() {
    for seed in seeds(6, 60) {
        let directory = tempfile::tempdir().unwrap();
        let options = |name: &str| options(&directory.path().join(name), seed);
        let typed = Ours::start(&options("typed"), &directory.path().join("typed.sock"));
        let plain = Ours::start(&options("plain"), &directory.path().join("plain.sock"));
        let client = typed::connect(&typed.typed[seed as usize % 2]);
        let translated = Translated { client, heights: options("typed").heights };
        compare(Box::new(translated), Box::new(Opened(Client::connect(&plain.socket))), false, seed);
    }
}

/// Commands shown with a difference.
fn trail_shown() -> usize {
    std::env::var("TINE_WORLD_TRAIL").ok().and_then(|count| count.parse().ok()).unwrap_or(25)
}
