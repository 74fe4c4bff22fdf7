//! Replies to bytes.

use tine_merkle::{BatchInsertion, Digest, IndexedLeaf, Insertion, SequentialInsertion, TreeState, Witness};

use super::Encoder;
use super::msgpack::Writer;
use crate::trees::TreeId;
use crate::types::{FullStatus, LeafValue, Reply, StateReference, Summary, TreeStatus};

/// What a record takes on disk, about: for the sizes that clients are told.
const RECORD_BYTES: [u64; 3] = [512, 112, 40];
const BLOCK_BYTES: u64 = 61;

/// The order in which a status lists the trees, with the names of their fields.
const STATUS_ORDER: [(TreeId, &str); TreeId::COUNT] = [
    (TreeId::NoteHash, "noteHashTree"),
    (TreeId::Message, "messageTree"),
    (TreeId::Archive, "archiveTree"),
    (TreeId::PublicData, "publicDataTree"),
    (TreeId::Nullifier, "nullifierTree"),
];

pub(super) fn error(message: &str) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(40 + message.len()));
    out.array(2);
    out.text("WsdbErrorResponse");
    out.map(1);
    out.text("message");
    out.text(message);
    out.0
}

pub(super) fn reply(encoder: &Encoder, name: &str, reply: &Reply) -> Vec<u8> {
    let capacity = match reply {
        Reply::Path(path) => 64 + 34 * path.len(),
        _ => 256,
    };
    let mut out = Writer(Vec::with_capacity(capacity));
    out.array(2);
    out.text(&format!("Wsdb{name}Response"));
    match reply {
        Reply::Done => out.map(0),
        Reply::TreeInfo(tree, state, depth) => {
            out.map(4);
            out.field("treeId").unsigned(*tree as u64);
            out.field("root").binary(&state.root);
            out.field("size").unsigned(state.size);
            out.field("depth").unsigned(u64::from(*depth));
        }
        Reply::State(state) => {
            out.map(1);
            out.field("state").state(state);
        }
        Reply::LeafValue(value) => {
            out.map(1);
            out.field("value").inner(value.as_ref(), |out, value| match value {
                LeafValue::Word(word) => out.binary(word),
                LeafValue::Entry(tree, entry) => out.entry(*tree, entry),
            });
        }
        Reply::LeafPreimage(tree, leaf) => {
            out.map(1);
            out.field("preimage").inner(Some(leaf), |out, leaf| out.indexed_leaf(*tree, leaf));
        }
        Reply::Path(path) => {
            out.map(1);
            out.field("path").digests(path);
        }
        Reply::BlockNumbers(blocks) => {
            out.map(1);
            out.field("blockNumbers").optional_numbers(blocks.iter().map(|block| block.map(u64::from)));
        }
        Reply::Indices(indices) => {
            out.map(1);
            out.field("indices").optional_numbers(indices.iter().copied());
        }
        Reply::LowLeaf(is_present, index) => {
            out.map(2);
            out.field("alreadyPresent").bool(*is_present);
            out.field("index").unsigned(*index);
        }
        Reply::Paths(paths) => {
            out.map(1);
            out.field("paths").array(paths.len());
            for found in paths {
                let Some((index, path)) = found else {
                    out.nil();
                    continue;
                };
                out.map(2);
                out.field("index").unsigned(*index);
                out.field("path").digests(path);
            }
        }
        Reply::Batch(tree, insertion) => {
            out.map(1);
            out.field("result").inner(Some(&**insertion), |out, insertion| out.batch(*tree, insertion));
        }
        Reply::Sequential(tree, insertion) => {
            out.map(1);
            out.field("result").inner(Some(&**insertion), |out, insertion| out.sequential(*tree, insertion));
        }
        Reply::Fork(fork) => {
            out.map(1);
            out.field("forkId").unsigned(fork.0);
        }
        Reply::Status(summary) => {
            out.map(1);
            out.field("status").summary(summary);
        }
        Reply::FullStatus(status) => {
            out.map(1);
            out.field("status").full_status(encoder, status);
        }
    }
    out.0
}

impl Writer {
    fn field(&mut self, name: &str) -> &mut Writer {
        self.text(name);
        self
    }

    fn digests(&mut self, digests: &[Digest]) {
        self.array(digests.len());
        digests.iter().for_each(|digest| self.binary(digest));
    }

    fn optional_numbers(&mut self, numbers: impl ExactSizeIterator<Item = Option<u64>>) {
        self.array(numbers.len());
        for number in numbers {
            match number {
                Some(number) => self.unsigned(number),
                None => self.nil(),
            }
        }
    }

    /// MessagePack inside of a binary value, or nil.
    fn inner<T>(&mut self, value: Option<T>, encode: impl FnOnce(&mut Writer, T)) {
        let Some(value) = value else { return self.nil() };
        let mut inner = Writer(Vec::new());
        encode(&mut inner, value);
        self.binary(&inner.0);
    }

    fn state(&mut self, state: &StateReference) {
        self.map(state.len());
        for (tree, TreeState { size, root }) in state.iter().enumerate() {
            self.unsigned(tree as u64);
            self.array(2);
            self.binary(root);
            self.unsigned(*size);
        }
    }

    fn entry(&mut self, tree: TreeId, entry: &Insertion) {
        match tree {
            TreeId::Nullifier => {
                self.map(1);
                self.field("nullifier").binary(&entry.key);
            }
            _ => {
                self.map(2);
                self.field("slot").binary(&entry.key);
                self.field("value").binary(&entry.value);
            }
        }
    }

    fn indexed_leaf(&mut self, tree: TreeId, leaf: &IndexedLeaf) {
        self.map(3);
        self.field("leaf").entry(tree, &Insertion { key: leaf.key, value: leaf.value });
        self.field("nextIndex").unsigned(leaf.next_index);
        self.field("nextKey").binary(&leaf.next_key);
    }

    fn witness(&mut self, tree: TreeId, witness: &Witness) {
        self.map(3);
        self.field("leaf").indexed_leaf(tree, &witness.leaf);
        self.field("index").unsigned(witness.index);
        self.field("path").digests(&witness.path);
    }

    /// An entry that changed nothing has an empty leaf at index 0 with a path of zeros.
    fn optional_witness(&mut self, tree: TreeId, witness: Option<&Witness>, depth: usize) {
        match witness {
            Some(witness) => self.witness(tree, witness),
            None => self.witness(tree, &Witness { path: vec![[0; 32]; depth], ..Witness::default() }),
        }
    }

    fn batch(&mut self, tree: TreeId, insertion: &BatchInsertion) {
        let depth = insertion.depth as usize;
        self.map(3);
        self.field("low_leaf_witness_data").array(insertion.low_leaves.len());
        for witness in &insertion.low_leaves {
            self.optional_witness(tree, witness.as_ref(), depth);
        }
        self.field("sorted_leaves").array(insertion.sorted.len());
        for (entry, position) in &insertion.sorted {
            self.array(2);
            self.entry(tree, entry);
            self.unsigned(*position as u64);
        }
        self.field("subtree_path").digests(&insertion.path);
    }

    fn sequential(&mut self, tree: TreeId, insertion: &SequentialInsertion) {
        self.map(2);
        self.field("low_leaf_witness_data").array(insertion.low_leaves.len());
        for witness in &insertion.low_leaves {
            self.witness(tree, witness);
        }
        self.field("insertion_witness_data").array(insertion.slots.len());
        for (slot, low) in insertion.slots.iter().zip(&insertion.low_leaves) {
            self.optional_witness(tree, slot.as_ref(), low.path.len());
        }
    }

    fn summary(&mut self, summary: &Summary) {
        self.map(4);
        self.field("unfinalizedBlockNumber").unsigned(u64::from(summary.tip));
        self.field("finalizedBlockNumber").unsigned(u64::from(summary.finalized));
        self.field("oldestHistoricalBlock").unsigned(u64::from(summary.oldest));
        self.field("treesAreSynched").bool(true);
    }

    fn full_status(&mut self, encoder: &Encoder, status: &FullStatus) {
        self.map(3);
        self.field("summary").summary(&status.summary);
        self.field("dbStats").map(STATUS_ORDER.len());
        for (tree, name) in STATUS_ORDER {
            let blocks = u64::from(status.summary.tip) + 1;
            self.field(&format!("{name}Stats"));
            self.tree_stats(tree, encoder.map_bytes[tree as usize], blocks, &status.trees[tree as usize]);
        }
        self.field("meta").map(STATUS_ORDER.len());
        for (tree, name) in STATUS_ORDER {
            self.field(&format!("{name}Meta")).tree_meta(tree, &status.summary, &status.trees[tree as usize]);
        }
    }

    fn tree_stats(&mut self, tree: TreeId, map_bytes: u64, blocks: u64, status: &TreeStatus) {
        let [nodes, keys, leaves] = status.records;
        let (preimages, indices) = if tree.is_indexed() { (keys, leaves) } else { (0, keys) };
        let kinds = [
            ("blocks", blocks, blocks * BLOCK_BYTES),
            ("nodes", nodes, nodes * RECORD_BYTES[0]),
            ("leaf preimages", preimages, preimages * RECORD_BYTES[1]),
            ("leaf indices", indices, indices * RECORD_BYTES[2]),
            ("block indices", 0, 0),
        ];
        self.map(2 + kinds.len());
        self.field("mapSize").unsigned(map_bytes);
        self.field("physicalFileSize").unsigned(kinds.iter().map(|(_, _, bytes)| bytes).sum());
        let fields =
            ["blocksDBStats", "nodesDBStats", "leafPreimagesDBStats", "leafIndicesDBStats", "blockIndicesDBStats"];
        for (field, (kind, items, bytes)) in fields.into_iter().zip(kinds) {
            self.field(field).map(3);
            self.field("name").text(&format!("{tree}{kind}"));
            self.field("numDataItems").unsigned(items);
            self.field("totalUsedSize").unsigned(bytes);
        }
    }

    fn tree_meta(&mut self, tree: TreeId, summary: &Summary, status: &TreeStatus) {
        self.map(10);
        self.field("name").text(&tree.to_string());
        self.field("depth").unsigned(u64::from(status.depth));
        self.field("size").unsigned(status.state.size);
        self.field("committedSize").unsigned(status.committed_size);
        self.field("root").binary(&status.state.root);
        self.field("initialSize").unsigned(status.initial.size);
        self.field("initialRoot").binary(&status.initial.root);
        self.field("oldestHistoricBlock").unsigned(u64::from(summary.oldest));
        self.field("unfinalizedBlockHeight").unsigned(u64::from(summary.tip));
        self.field("finalizedBlockHeight").unsigned(u64::from(summary.finalized));
    }
}
