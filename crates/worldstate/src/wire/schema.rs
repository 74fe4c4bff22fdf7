//! The protocol's description of itself, in the form that the generator of its clients reads: one line of JSON.
//!
//! A structure is spelled out where it is used first and named afterwards, so what is written depends on the order.

use std::collections::HashSet;
use std::fmt::Write as _;

/// Field types: a scalar, `name[]`, `name?`, or the name of a structure below.
type Fields = &'static [(&'static str, &'static str)];

const READ: (&str, &str) = ("revision", "WorldStateRevision");
const TREE: (&str, &str) = ("treeId", "tree");
const FORK: (&str, &str) = ("forkId", "u64");
const LEAVES: (&str, &str) = ("leaves", "bytes[]");
const TO_BLOCK: (&str, &str) = ("toBlockNumber", "u32");
const FULL: (&str, &str) = ("status", "WorldStateStatusFull");
const SUMMARY: (&str, &str) = ("status", "WorldStateStatusSummary");
const STATE: (&str, &str) = ("state", "state");

/// Name, request and response of each command.
const COMMANDS: [(&str, Fields, Fields); 30] = [
    ("GetTreeInfo", &[TREE, READ], &[TREE, ("root", "fr"), ("size", "u64"), ("depth", "u32")]),
    ("GetStateReference", &[READ], &[STATE]),
    ("GetInitialStateReference", &[], &[STATE]),
    ("GetLeafValue", &[TREE, READ, ("leafIndex", "u64")], &[("value", "bytes?")]),
    ("GetLeafPreimage", &[TREE, READ, ("leafIndex", "u64")], &[("preimage", "bytes?")]),
    ("GetSiblingPath", &[TREE, READ, ("leafIndex", "u64")], &[("path", "fr[]")]),
    ("GetBlockNumbersForLeafIndices", &[TREE, READ, ("leafIndices", "u64[]")], &[("blockNumbers", "u32?[]")]),
    ("FindLeafIndices", &[TREE, READ, LEAVES, ("startIndex", "u64")], &[("indices", "u64?[]")]),
    ("FindLowLeaf", &[TREE, READ, ("key", "fr")], &[("alreadyPresent", "bool"), ("index", "u64")]),
    ("FindSiblingPaths", &[TREE, READ, LEAVES], &[("paths", "SiblingPathAndIndex?[]")]),
    ("AppendLeaves", &[TREE, LEAVES, FORK], &[]),
    ("BatchInsert", &[TREE, LEAVES, ("subtreeDepth", "u32"), FORK], &[("result", "bytes")]),
    ("SequentialInsert", &[TREE, LEAVES, FORK], &[("result", "bytes")]),
    ("UpdateArchive", &[("blockStateRef", "state"), ("blockHeaderHash", "fr"), FORK], &[]),
    ("Commit", &[], &[FULL]),
    ("Rollback", &[], &[]),
    (
        "SyncBlock",
        &[
            ("blockNumber", "u32"),
            ("blockStateRef", "state"),
            ("blockHeaderHash", "fr"),
            ("expectedArchiveRoot", "fr"),
            ("expectedPreviousArchiveRoot", "fr"),
            ("paddedNoteHashes", "fr[]"),
            ("paddedL1ToL2Messages", "fr[]"),
            ("paddedNullifiers", "NullifierLeafValue[]"),
            ("publicDataWrites", "PublicDataLeafValue[]"),
        ],
        &[FULL],
    ),
    ("CreateFork", &[("latest", "bool"), ("blockNumber", "u32")], &[FORK]),
    ("DeleteFork", &[FORK], &[]),
    ("FinalizeBlocks", &[TO_BLOCK], &[SUMMARY]),
    ("UnwindBlocks", &[TO_BLOCK], &[FULL]),
    ("RemoveHistoricalBlocks", &[TO_BLOCK], &[FULL]),
    ("GetStatus", &[], &[SUMMARY]),
    ("CreateCheckpoint", &[FORK], &[]),
    ("CommitCheckpoint", &[FORK], &[]),
    ("RevertCheckpoint", &[FORK], &[]),
    ("CommitAllCheckpoints", &[FORK], &[]),
    ("RevertAllCheckpoints", &[FORK], &[]),
    ("CopyStores", &[("dstPath", "string"), ("compact", "bool?")], &[]),
    ("Shutdown", &[], &[]),
];

const STRUCTURES: [(&str, Fields); 10] = [
    ("WorldStateRevision", &[FORK, ("blockNumber", "u32"), ("includeUncommitted", "bool")]),
    ("NullifierLeafValue", &[("nullifier", "fr")]),
    ("PublicDataLeafValue", &[("slot", "fr"), ("value", "fr")]),
    ("SiblingPathAndIndex", &[("index", "u64"), ("path", "fr[]")]),
    (
        "WorldStateStatusFull",
        &[("summary", "WorldStateStatusSummary"), ("dbStats", "WorldStateDBStats"), ("meta", "WorldStateMeta")],
    ),
    (
        "WorldStateStatusSummary",
        &[
            ("unfinalizedBlockNumber", "u64"),
            ("finalizedBlockNumber", "u64"),
            ("oldestHistoricalBlock", "u64"),
            ("treesAreSynched", "bool"),
        ],
    ),
    (
        "WorldStateDBStats",
        &[
            ("noteHashTreeStats", "TreeDBStats"),
            ("messageTreeStats", "TreeDBStats"),
            ("archiveTreeStats", "TreeDBStats"),
            ("publicDataTreeStats", "TreeDBStats"),
            ("nullifierTreeStats", "TreeDBStats"),
        ],
    ),
    (
        "WorldStateMeta",
        &[
            ("noteHashTreeMeta", "TreeMeta"),
            ("messageTreeMeta", "TreeMeta"),
            ("archiveTreeMeta", "TreeMeta"),
            ("publicDataTreeMeta", "TreeMeta"),
            ("nullifierTreeMeta", "TreeMeta"),
        ],
    ),
    (
        "TreeDBStats",
        &[
            ("mapSize", "u64"),
            ("physicalFileSize", "u64"),
            ("blocksDBStats", "DBStats"),
            ("nodesDBStats", "DBStats"),
            ("leafPreimagesDBStats", "DBStats"),
            ("leafIndicesDBStats", "DBStats"),
            ("blockIndicesDBStats", "DBStats"),
        ],
    ),
    (
        "TreeMeta",
        &[
            ("name", "string"),
            ("depth", "u32"),
            ("size", "u64"),
            ("committedSize", "u64"),
            ("root", "fr"),
            ("initialSize", "u64"),
            ("initialRoot", "fr"),
            ("oldestHistoricBlock", "u32"),
            ("unfinalizedBlockHeight", "u32"),
            ("finalizedBlockHeight", "u32"),
        ],
    ),
];

const DB_STATS: Fields = &[("name", "string"), ("numDataItems", "u64"), ("totalUsedSize", "u64")];

/// The schema as one line of JSON.
pub fn schema() -> String {
    let mut writer = SchemaWriter { json: String::new(), spelled: HashSet::new() };
    writer.json.push_str(r#"{"__typename":"WsdbApi","commands":["named_union",["#);
    for (index, (name, request, _)) in COMMANDS.iter().enumerate() {
        writer.member(index, &format!("Wsdb{name}"), request);
    }
    writer.json.push_str(r#"]],"responses":["named_union",["#);
    writer.member(0, "WsdbErrorResponse", &[("message", "string")]);
    for (name, _, response) in &COMMANDS {
        writer.member(1, &format!("Wsdb{name}Response"), response);
    }
    writer.json.push_str("]]}");
    writer.json
}

struct SchemaWriter {
    json: String,
    /// Structures that were spelled out.
    spelled: HashSet<&'static str>,
}

impl SchemaWriter {
    fn member(&mut self, index: usize, name: &str, fields: &[(&'static str, &'static str)]) {
        let separator = if index == 0 { "" } else { "," };
        write!(self.json, r#"{separator}["{name}","#).expect("a string takes everything");
        self.structure(name, fields);
        self.json.push(']');
    }

    fn structure(&mut self, name: &str, fields: &[(&'static str, &'static str)]) {
        write!(self.json, r#"{{"__typename":"{name}""#).expect("a string takes everything");
        for (field, kind) in fields {
            write!(self.json, r#","{field}":"#).expect("a string takes everything");
            self.kind(kind);
        }
        self.json.push('}');
    }

    fn kind(&mut self, kind: &'static str) {
        if let Some((wrapper, element)) = kind
            .strip_suffix("[]")
            .map(|element| ("vector", element))
            .or_else(|| kind.strip_suffix('?').map(|element| ("optional", element)))
        {
            write!(self.json, r#"["{wrapper}",["#).expect("a string takes everything");
            self.kind(element);
            return self.json.push_str("]]");
        }
        let text = match kind {
            "bool" | "string" => kind,
            "u32" => "unsigned int",
            "u64" => "unsigned long",
            "tree" => "MerkleTreeId",
            "state" => "unordered_map",
            "fr" => return self.json.push_str(r#"["alias",["fr","bin32"]]"#),
            "bytes" => return self.json.push_str(r#"["vector",["unsigned char"]]"#),
            name if self.spelled.insert(name) => {
                let others = STRUCTURES.iter().find(|(known, _)| *known == name).map(|(_, fields)| *fields);
                return self.structure(name, others.unwrap_or(DB_STATS));
            }
            name => name,
        };
        write!(self.json, r#""{text}""#).expect("a string takes everything");
    }
}
