//! A client of the schema that takes commands and gives replies in the form of the plain protocol, so that the two can be
//! compared.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tine_ipc::typed::ServiceError;
use tine_worldstate::TreeId;
use tine_worldstate::service::*;

use super::{Asks, bytes, hex, parse};

/// No request of a test takes so long.
const LIMIT: Duration = Duration::from_secs(60);

/// Trees in the order of a block header, with their fields in a status and in a state reference.
const STATUS_NAMES: [(&str, &str); TreeId::COUNT] = [
    ("nullifierTreeMeta", "NullifierTree"),
    ("noteHashTreeMeta", "NoteHashTree"),
    ("publicDataTreeMeta", "PublicDataTree"),
    ("messageTreeMeta", "L1ToL2MessageTree"),
    ("archiveTreeMeta", "ArchiveTree"),
];

/// Connects, as soon as somebody listens.
pub fn connect(path: &Path) -> WorldStateClient {
    let deadline = Instant::now() + LIMIT;
    loop {
        match WorldStateClient::connect(path) {
            Ok(client) => return client,
            Err(error) if Instant::now() > deadline => panic!("{}: {error}", path.display()),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// A client of the plain protocol whose replies have no MessagePack inside of bytes.
pub struct Opened<A>(pub A);

impl<A: Asks> Asks for Opened<A> {
    fn ask(&mut self, name: &str, fields: &Value) -> Result<Value, String> {
        let mut reply = self.0.ask(name, fields)?;
        for field in ["result", "value", "preimage"] {
            if let Some(value) = reply.get_mut(field).filter(|value| !value.is_null()) {
                *value = leaf(value);
            }
        }
        Ok(reply)
    }
}

/// The client, and the levels of each tree.
pub struct Translated {
    pub client: WorldStateClient,
    pub heights: [u32; TreeId::COUNT],
}

fn word(value: &Value) -> FieldElement {
    FieldElement(bytes(value["bin"].as_str().unwrap()).try_into().unwrap())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn list<T>(value: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().unwrap().iter().map(read).collect()
}

/// The leaf inside of bytes.
fn leaf(value: &Value) -> Value {
    parse(&mut bytes(value["bin"].as_str().unwrap()).as_slice())
}

fn entry(leaf: &Value) -> Entry {
    match leaf.get("nullifier") {
        Some(nullifier) => Entry { key: word(nullifier), value: FieldElement([0; 32]) },
        None => Entry { key: word(&leaf["slot"]), value: word(&leaf["value"]) },
    }
}

fn entries(leaves: &Value) -> Vec<Entry> {
    list(leaves, |value| entry(&leaf(value)))
}

fn words(leaves: &Value) -> Vec<FieldElement> {
    list(leaves, |value| word(&leaf(value)))
}

/// What the leaves of a tree are found by.
fn keys(tree: u8, leaves: &Value) -> Vec<FieldElement> {
    if is_indexed(tree) { entries(leaves).iter().map(|entry| entry.key).collect() } else { words(leaves) }
}

fn is_indexed(tree: u8) -> bool {
    tree == 0 || tree == 2
}

fn revision(fields: &Value) -> Revision {
    let revision = &fields["revision"];
    let block = number(&revision["blockNumber"]) as u32;
    Revision {
        fork: number(&revision["forkId"]),
        block: (block != u32::MAX).then_some(block),
        committed: !revision["includeUncommitted"].as_bool().unwrap(),
    }
}

fn state(value: &Value) -> StateReference {
    let tree = |key: &str| TreeState { root: word(&value[key][0]), size: number(&value[key][1]) };
    StateReference { nullifiers: tree("#0"), note_hashes: tree("#1"), public_data: tree("#2"), messages: tree("#3") }
}

fn shown(element: &FieldElement) -> Value {
    json!({ "bin": hex(&element.0) })
}

fn shown_path(path: &[FieldElement]) -> Value {
    path.iter().map(shown).collect()
}

fn shown_state(state: &StateReference) -> Value {
    let tree = |state: &TreeState| json!([shown(&state.root), state.size]);
    json!({ "state": {
        "#0": tree(&state.nullifiers), "#1": tree(&state.note_hashes),
        "#2": tree(&state.public_data), "#3": tree(&state.messages),
    } })
}

fn shown_entry(tree: u8, entry: &Entry) -> Value {
    match tree {
        0 => json!({ "nullifier": shown(&entry.key) }),
        _ => json!({ "slot": shown(&entry.key), "value": shown(&entry.value) }),
    }
}

fn shown_leaf(tree: u8, leaf: &IndexedLeaf) -> Value {
    json!({ "leaf": shown_entry(tree, &leaf.entry), "nextIndex": leaf.next_index, "nextKey": shown(&leaf.next_key) })
}

fn shown_summary(summary: &Summary) -> Value {
    json!({
        "unfinalizedBlockNumber": summary.tip, "finalizedBlockNumber": summary.finalized,
        "oldestHistoricalBlock": summary.oldest, "treesAreSynched": true,
    })
}

fn shown_status(status: &WorldStateCommitResponse) -> Value {
    let summary = &status.summary;
    let meta = |(tree, (field, name)): (&TreeStatus, (&str, &str))| {
        let tree = json!({
            "name": name, "depth": tree.depth, "size": tree.state.size, "committedSize": tree.committed_size,
            "root": shown(&tree.state.root), "initialSize": tree.initial.size,
            "initialRoot": shown(&tree.initial.root), "oldestHistoricBlock": summary.oldest,
            "unfinalizedBlockHeight": summary.tip, "finalizedBlockHeight": summary.finalized,
        });
        (field.to_owned(), tree)
    };
    let meta: serde_json::Map<String, Value> = status.trees.iter().zip(STATUS_NAMES).map(meta).collect();
    json!({ "status": { "summary": shown_summary(summary), "meta": meta } })
}

impl Translated {
    /// A witness; without one what the plain protocol has instead.
    fn shown_witness(&self, tree: u8, witness: Option<&Witness>) -> Value {
        let zero = FieldElement([0; 32]);
        let none = || Witness {
            leaf: IndexedLeaf { entry: Entry { key: zero, value: zero }, next_index: 0, next_key: zero },
            index: 0,
            path: vec![zero; self.heights[usize::from(tree)] as usize],
        };
        let witness = witness.cloned().unwrap_or_else(none);
        json!({
            "leaf": shown_leaf(tree, &witness.leaf), "index": witness.index, "path": shown_path(&witness.path),
        })
    }

    fn read(&self, name: &str, fields: &Value) -> Result<Value, ServiceError> {
        let (client, revision) = (&self.client, revision(fields));
        if name == "GetStateReference" {
            let request = WorldStateGetStateReference { revision };
            return client.get_state_reference_within(&request, LIMIT).map(|reply| shown_state(&reply.state));
        }
        let tree = number(&fields["treeId"]) as u8;
        let index = || number(&fields["leafIndex"]);
        Ok(match name {
            "GetTreeInfo" => {
                let reply = client.get_tree_info_within(&WorldStateGetTreeInfo { tree, revision }, LIMIT)?;
                json!({ "treeId": tree, "root": shown(&reply.root), "size": reply.size, "depth": reply.depth })
            }
            "GetLeafValue" => {
                let request = WorldStateGetLeafValue { tree, revision, index: index() };
                let reply = client.get_leaf_value_within(&request, LIMIT)?;
                assert_eq!(reply.entry.is_some(), is_indexed(tree) && reply != EMPTY_LEAF_VALUE);
                let value = reply.leaf.map(|leaf| shown(&leaf));
                let value = value.or(reply.entry.map(|entry| shown_entry(tree, &entry)));
                json!({ "value": value })
            }
            "GetLeafPreimage" => {
                let request = WorldStateGetLeafPreimage { tree, revision, index: index() };
                let reply = client.get_leaf_preimage_within(&request, LIMIT)?;
                json!({ "preimage": shown_leaf(tree, &reply.leaf) })
            }
            "GetSiblingPath" => {
                let request = WorldStateGetSiblingPath { tree, revision, index: index() };
                json!({ "path": shown_path(&client.get_sibling_path_within(&request, LIMIT)?.path) })
            }
            "GetBlockNumbersForLeafIndices" => {
                let indices = list(&fields["leafIndices"], number);
                let request = WorldStateGetBlockNumbersForLeafIndices { tree, revision, indices };
                json!({ "blockNumbers": client.get_block_numbers_for_leaf_indices_within(&request, LIMIT)?.blocks })
            }
            "FindLeafIndices" => {
                let (leaves, start) = (keys(tree, &fields["leaves"]), number(&fields["startIndex"]));
                let request = WorldStateFindLeafIndices { tree, revision, leaves, start };
                json!({ "indices": client.find_leaf_indices_within(&request, LIMIT)?.indices })
            }
            "FindSiblingPaths" => {
                let request = WorldStateFindSiblingPaths { tree, revision, leaves: keys(tree, &fields["leaves"]) };
                let found = client.find_sibling_paths_within(&request, LIMIT)?.paths;
                let path = |found: &Option<LeafPath>| match found {
                    Some(found) => json!({ "index": found.index, "path": shown_path(&found.path) }),
                    None => Value::Null,
                };
                json!({ "paths": found.iter().map(path).collect::<Vec<_>>() })
            }
            "FindLowLeaf" => {
                let request = WorldStateFindLowLeaf { tree, revision, key: word(&fields["key"]) };
                let reply = client.find_low_leaf_within(&request, LIMIT)?;
                json!({ "alreadyPresent": reply.already_present, "index": reply.index })
            }
            other => panic!("{other} is no read"),
        })
    }

    fn insert(&self, name: &str, fields: &Value) -> Result<Value, ServiceError> {
        let (client, leaves) = (&self.client, &fields["leaves"]);
        let (fork, tree) = (number(&fields["forkId"]), number(&fields["treeId"]) as u8);
        // There leaves of a list may be sent where only entries can be; here that is another type.
        let entries = || if is_indexed(tree) { entries(leaves) } else { Vec::new() };
        Ok(match name {
            "AppendLeaves" if !is_indexed(tree) => {
                let request = WorldStateAppendLeaves { fork, tree, leaves: words(leaves) };
                client.append_leaves_within(&request, LIMIT).map(|_| json!({}))?
            }
            "AppendLeaves" => {
                let (entries, subtree_depth) = (entries(), 0);
                let request = WorldStateBatchInsert { fork, tree, entries, subtree_depth, witnesses: false };
                let reply = client.batch_insert_within(&request, LIMIT)?;
                assert!(reply.low_leaves.is_empty() && reply.sorted.is_empty() && reply.subtree_path.is_empty());
                json!({})
            }
            "BatchInsert" => {
                let subtree_depth = number(&fields["subtreeDepth"]) as u32;
                let entries = entries();
                let request = WorldStateBatchInsert { fork, tree, entries, subtree_depth, witnesses: true };
                let reply = client.batch_insert_within(&request, LIMIT)?;
                let low = |low: &Option<Witness>| self.shown_witness(tree, low.as_ref());
                let sorted = |sorted: &SortedEntry| json!([shown_entry(tree, &sorted.entry), sorted.position]);
                json!({ "result": {
                    "low_leaf_witness_data": reply.low_leaves.iter().map(low).collect::<Vec<_>>(),
                    "sorted_leaves": reply.sorted.iter().map(sorted).collect::<Vec<_>>(),
                    "subtree_path": shown_path(&reply.subtree_path),
                } })
            }
            _ => {
                let request = WorldStateSequentialInsert { fork, tree, entries: entries() };
                let reply = client.sequential_insert_within(&request, LIMIT)?;
                let low = |low: &Witness| self.shown_witness(tree, Some(low));
                let slot = |slot: &Option<Witness>| self.shown_witness(tree, slot.as_ref());
                json!({ "result": {
                    "low_leaf_witness_data": reply.low_leaves.iter().map(low).collect::<Vec<_>>(),
                    "insertion_witness_data": reply.slots.iter().map(slot).collect::<Vec<_>>(),
                } })
            }
        })
    }

    fn change(&self, name: &str, fields: &Value) -> Result<Value, ServiceError> {
        let (client, fork) = (&self.client, number(&fields["forkId"]));
        let done = json!({});
        match name {
            "UpdateArchive" => {
                let (state, header_hash) = (state(&fields["blockStateRef"]), word(&fields["blockHeaderHash"]));
                let request = WorldStateUpdateArchive { fork, state, header_hash };
                client.update_archive_within(&request, LIMIT).map(|_| done)
            }
            "DeleteFork" => client.delete_fork_within(&WorldStateDeleteFork { fork }, LIMIT).map(|_| done),
            "CreateCheckpoint" => {
                client.create_checkpoint_within(&WorldStateCreateCheckpoint { fork }, LIMIT).map(|_| done)
            }
            "CommitCheckpoint" => {
                client.commit_checkpoint_within(&WorldStateCommitCheckpoint { fork }, LIMIT).map(|_| done)
            }
            "RevertCheckpoint" => {
                client.revert_checkpoint_within(&WorldStateRevertCheckpoint { fork }, LIMIT).map(|_| done)
            }
            "CommitAllCheckpoints" => {
                client.commit_all_checkpoints_within(&WorldStateCommitAllCheckpoints { fork }, LIMIT).map(|_| done)
            }
            "RevertAllCheckpoints" => {
                client.revert_all_checkpoints_within(&WorldStateRevertAllCheckpoints { fork }, LIMIT).map(|_| done)
            }
            other => panic!("{other} is no change of a fork"),
        }
    }

    fn change_chain(&self, name: &str, fields: &Value) -> Result<Value, ServiceError> {
        let client = &self.client;
        let block = || number(&fields["toBlockNumber"]) as u32;
        Ok(match name {
            "Commit" => shown_status(&client.commit_within(&WorldStateCommit {}, LIMIT)?),
            "Rollback" => client.rollback_within(&WorldStateRollback {}, LIMIT).map(|_| json!({}))?,
            "SyncBlock" => shown_status(&client.sync_block_within(&sync(fields), LIMIT)?),
            "FinalizeBlocks" => {
                let reply = client.finalize_blocks_within(&WorldStateFinalizeBlocks { block: block() }, LIMIT)?;
                json!({ "status": shown_summary(&reply.summary) })
            }
            "UnwindBlocks" => {
                shown_status(&client.unwind_blocks_within(&WorldStateUnwindBlocks { block: block() }, LIMIT)?)
            }
            "RemoveHistoricalBlocks" => {
                let request = WorldStateRemoveHistoricalBlocks { block: block() };
                shown_status(&client.remove_historical_blocks_within(&request, LIMIT)?)
            }
            "GetStatus" => {
                let reply = client.get_status_within(&WorldStateGetStatus {}, LIMIT)?;
                json!({ "status": shown_summary(&reply.summary) })
            }
            "CreateFork" => {
                let block = number(&fields["blockNumber"]) as u32;
                let block = (!fields["latest"].as_bool().unwrap()).then_some(block);
                let request = WorldStateCreateFork { block, owned: None };
                json!({ "forkId": client.create_fork_within(&request, LIMIT)?.fork })
            }
            other => panic!("{other} is no command of the chain"),
        })
    }
}

const EMPTY_LEAF_VALUE: WorldStateGetLeafValueResponse = WorldStateGetLeafValueResponse { leaf: None, entry: None };

fn sync(fields: &Value) -> WorldStateSyncBlock {
    WorldStateSyncBlock {
        block: number(&fields["blockNumber"]) as u32,
        state: state(&fields["blockStateRef"]),
        header_hash: word(&fields["blockHeaderHash"]),
        previous_archive_root: word(&fields["expectedPreviousArchiveRoot"]),
        archive_root: word(&fields["expectedArchiveRoot"]),
        note_hashes: list(&fields["paddedNoteHashes"], word),
        messages: list(&fields["paddedL1ToL2Messages"], word),
        nullifiers: list(&fields["paddedNullifiers"], |leaf| word(&leaf["nullifier"])),
        public_writes: list(&fields["publicDataWrites"], entry),
    }
}

impl Asks for Translated {
    fn ask(&mut self, name: &str, fields: &Value) -> Result<Value, String> {
        let reply = match name {
            "AppendLeaves" | "BatchInsert" | "SequentialInsert" => self.insert(name, fields),
            "UpdateArchive" | "DeleteFork" => self.change(name, fields),
            name if name.contains("Checkpoint") => self.change(name, fields),
            "GetStatus" | "CreateFork" | "Commit" | "Rollback" => self.change_chain(name, fields),
            name if name.ends_with("Blocks") || name == "SyncBlock" => self.change_chain(name, fields),
            _ => self.read(name, fields),
        };
        reply.map_err(|error| match error {
            ServiceError::Service { message } => {
                let (code, text) = message.split_once(": ").unwrap();
                assert!(code.len() == 6 && code.starts_with("TN"), "{message}");
                text.to_owned()
            }
            other => panic!("{name}: {other}"),
        })
    }
}
