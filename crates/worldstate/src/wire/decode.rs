//! Requests from bytes.

use tine_merkle::{Digest, Insertion, TreeState};

use super::msgpack::{Unparsable, Value, parse};
use super::{Action, Request};
use crate::error::WorldError;
use crate::trees::{STATE_TREES, TreeId};
use crate::types::{
    Block, BlockNumber, ChainChange, Change, Command, Leaves, Query, Revision, StateReference, WorldForkId,
    check_element,
};

/// The block number that means "latest".
const LATEST: u64 = u32::MAX as u64;

/// Decodes the payload of a request.
///
/// # Errors
/// It has another form than the protocol's, or asks for a tree that the command does not take.
pub fn decode(payload: &[u8]) -> Result<Request, WorldError> {
    let outer = parse(payload)?;
    let Value::Array(outer) = &outer else { return Err(malformed("Expected an array of size 1 for a request")) };
    let [inner] = outer.as_slice() else { return Err(malformed("Expected an array of size 1 for a request")) };
    let pair = match inner {
        Value::Array(pair) => pair.as_slice(),
        _ => &[],
    };
    let [name, fields] = pair else {
        return Err(malformed(format!("Expected an array of size 2 for NamedUnion deserialization, got {inner}")));
    };
    let Value::Text(name) = name else { return Err(bad_cast()) };
    let name = String::from_utf8_lossy(name);
    let unknown = || malformed(format!("Unknown type name in NamedUnion deserialization: {name}"));
    let known = name.strip_prefix("Wsdb").and_then(|name| COMMANDS.iter().find(|(known, _)| *known == name));
    let (name, read) = known.ok_or_else(unknown)?;
    let Value::Map(fields) = fields else { return Err(bad_cast()) };
    Ok(Request { name, action: read(&Fields(fields))? })
}

type ReadAction = fn(&Fields<'_>) -> Result<Action, WorldError>;

/// Fields are read in the order in which the server that this stands in for reads them: the first one missing is named.
const COMMANDS: [(&str, ReadAction); 30] = [
    ("GetTreeInfo", |fields| {
        let tree = fields.get("treeId")?;
        fields.query(|_| of_tree(tree, Query::TreeInfo))
    }),
    ("GetStateReference", |fields| fields.query(|_| Ok(Query::StateReference))),
    ("GetInitialStateReference", |_| Ok(Action::Command(Command::InitialState))),
    ("GetLeafValue", |fields| {
        let tree = fields.get("treeId")?;
        fields.query(|fields| {
            let index = fields.number("leafIndex")?;
            Ok(Query::LeafValue(known_tree(tree, "get_leaf_value")?, index))
        })
    }),
    ("GetLeafPreimage", |fields| {
        let tree = fields.get("treeId")?;
        fields.query(|fields| {
            let index = fields.number("leafIndex")?;
            Ok(Query::LeafPreimage(indexed_tree(tree, "get_leaf_preimage")?, index))
        })
    }),
    ("GetSiblingPath", |fields| {
        let tree = fields.get("treeId")?;
        fields.query(|fields| {
            let index = fields.number("leafIndex")?;
            of_tree(tree, |tree| Query::SiblingPath(tree, index))
        })
    }),
    ("GetBlockNumbersForLeafIndices", |fields| {
        let tree = fields.get("treeId")?;
        fields.query(|fields| {
            let indices = fields.array("leafIndices")?.iter().map(number).collect::<Result<_, _>>()?;
            of_tree(tree, |tree| Query::BlockNumbers(tree, indices))
        })
    }),
    ("FindLeafIndices", |fields| {
        let tree = fields.get("treeId")?;
        fields.query(|fields| {
            let leaves = fields.array("leaves")?;
            let start = fields.number("startIndex")?;
            let tree = known_tree(tree, "find_leaf_indices")?;
            Ok(Query::FindLeaves(tree, read_leaves(tree, leaves)?, start))
        })
    }),
    ("FindLowLeaf", |fields| {
        let tree = fields.get("treeId")?;
        fields.query(|fields| {
            let key = field_element(fields.get("key")?)?;
            of_tree(tree, |tree| Query::LowLeaf(tree, key))
        })
    }),
    ("FindSiblingPaths", |fields| {
        let tree = fields.get("treeId")?;
        fields.query(|fields| {
            let leaves = fields.array("leaves")?;
            let tree = known_tree(tree, "find_sibling_paths")?;
            Ok(Query::FindPaths(tree, read_leaves(tree, leaves)?))
        })
    }),
    ("AppendLeaves", |fields| {
        let (tree, leaves) = (fields.get("treeId")?, fields.array("leaves")?);
        let fork = fields.fork()?;
        let tree = known_tree(tree, "append_leaves")?;
        Ok(change(fork, Change::Append(tree, read_leaves(tree, leaves)?)))
    }),
    ("BatchInsert", |fields| {
        let (tree, leaves) = (fields.get("treeId")?, fields.array("leaves")?);
        let depth = fields.small_number("subtreeDepth")?;
        let fork = fields.fork()?;
        let tree = indexed_tree(tree, "batch_insert")?;
        Ok(change(fork, Change::InsertBatch(tree, read_entries(tree, leaves)?, depth)))
    }),
    ("SequentialInsert", |fields| {
        let (tree, leaves) = (fields.get("treeId")?, fields.array("leaves")?);
        let fork = fields.fork()?;
        let tree = indexed_tree(tree, "sequential_insert")?;
        Ok(change(fork, Change::InsertEach(tree, read_entries(tree, leaves)?)))
    }),
    ("UpdateArchive", |fields| {
        let state = fields.state("blockStateRef")?;
        let hash = field_element(fields.get("blockHeaderHash")?)?;
        Ok(change(fields.fork()?, Change::UpdateArchive(Box::new(state), hash)))
    }),
    ("Commit", |_| Ok(chain(ChainChange::Commit))),
    ("Rollback", |_| Ok(chain(ChainChange::Rollback))),
    ("SyncBlock", |fields| Ok(chain(ChainChange::Sync(Box::new(read_block(fields)?))))),
    ("CreateFork", |fields| {
        let is_latest = fields.bool("latest")?;
        let block = fields.small_number("blockNumber")?;
        let block = (!is_latest).then_some(block);
        Ok(Action::Command(Command::CreateFork { block, is_owned: false }))
    }),
    ("DeleteFork", |fields| Ok(change(fields.fork()?, Change::Delete))),
    ("FinalizeBlocks", |fields| Ok(chain(ChainChange::Finalize(fields.small_number("toBlockNumber")?)))),
    ("UnwindBlocks", |fields| Ok(chain(ChainChange::Unwind(fields.small_number("toBlockNumber")?)))),
    ("RemoveHistoricalBlocks", |fields| {
        Ok(chain(ChainChange::RemoveHistorical(fields.small_number("toBlockNumber")?)))
    }),
    ("GetStatus", |_| Ok(Action::Command(Command::Status))),
    ("CreateCheckpoint", |fields| Ok(change(fields.fork()?, Change::CreateCheckpoint))),
    ("CommitCheckpoint", |fields| Ok(change(fields.fork()?, Change::CommitCheckpoint))),
    ("RevertCheckpoint", |fields| Ok(change(fields.fork()?, Change::RevertCheckpoint))),
    ("CommitAllCheckpoints", |fields| Ok(change(fields.fork()?, Change::CommitAllCheckpoints))),
    ("RevertAllCheckpoints", |fields| Ok(change(fields.fork()?, Change::RevertAllCheckpoints))),
    ("CopyStores", |fields| {
        let Value::Text(path) = fields.get("dstPath")? else { return Err(bad_cast()) };
        let path = std::str::from_utf8(path).map_err(|_| bad_cast())?;
        if !matches!(fields.get("compact")?, Value::Nil | Value::Bool(_)) {
            return Err(bad_cast());
        }
        Ok(chain(ChainChange::Copy(path.into())))
    }),
    ("Shutdown", |_| Ok(Action::Shutdown)),
];

fn change(fork: WorldForkId, change: Change) -> Action {
    Action::Command(Command::Change(fork, change))
}

fn chain(change: ChainChange) -> Action {
    Action::Command(Command::Chain(change))
}

/// The fields of a request, in any order.
struct Fields<'a>(&'a [(Value<'a>, Value<'a>)]);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Result<&'a Value<'a>, WorldError> {
        let found = self.0.iter().find(|(key, _)| *key == Value::Text(name.as_bytes()));
        found.map(|(_, value)| value).ok_or_else(|| malformed(format!("Missing field {name}")))
    }

    fn number(&self, name: &str) -> Result<u64, WorldError> {
        number(self.get(name)?)
    }

    fn small_number(&self, name: &str) -> Result<u32, WorldError> {
        u32::try_from(self.number(name)?).map_err(|_| bad_cast())
    }

    fn bool(&self, name: &str) -> Result<bool, WorldError> {
        if let Value::Bool(value) = self.get(name)? { Ok(*value) } else { Err(bad_cast()) }
    }

    fn array(&self, name: &str) -> Result<&'a [Value<'a>], WorldError> {
        if let Value::Array(values) = self.get(name)? { Ok(values) } else { Err(bad_cast()) }
    }

    fn fork(&self) -> Result<WorldForkId, WorldError> {
        self.number("forkId").map(WorldForkId)
    }

    /// The trees of a state. One that does not name exactly the trees of a block header is no state at all: it gets a
    /// size that no tree has.
    fn state(&self, name: &str) -> Result<StateReference, WorldError> {
        let Value::Map(pairs) = self.get(name)? else { return Err(bad_cast()) };
        let mut state = [TreeState { size: u64::MAX, root: [0; 32] }; STATE_TREES];
        let mut has_others = false;
        for (key, value) in pairs {
            let tree = number(key)?;
            let Value::Array(pair) = value else { return Err(bad_cast()) };
            let [root, size] = pair.as_slice() else { return Err(bad_cast()) };
            let read = TreeState { root: field_element(root)?, size: number(size)? };
            match usize::try_from(tree).ok().and_then(|tree| state.get_mut(tree)) {
                Some(slot) => *slot = read,
                None => has_others = true,
            }
        }
        if has_others {
            state[0].size = u64::MAX;
        }
        Ok(state)
    }

    /// A read; its fields are those after the revision.
    fn query(&self, read: impl FnOnce(&Fields<'a>) -> Result<Query, WorldError>) -> Result<Action, WorldError> {
        let Value::Map(revision) = self.get("revision")? else { return Err(bad_cast()) };
        let revision = Fields(revision);
        let fork = revision.fork()?;
        let block = revision.small_number("blockNumber")?;
        let include_uncommitted = revision.bool("includeUncommitted")?;
        let block = (u64::from(block) != LATEST).then_some(block as BlockNumber);
        let query = read(self)?;
        Ok(Action::Command(Command::Read(Revision { fork, block, include_uncommitted }, query)))
    }
}

fn read_block(fields: &Fields<'_>) -> Result<Block, WorldError> {
    let elements = |name: &str| fields.array(name)?.iter().map(field_element).collect::<Result<Vec<_>, _>>();
    let entries = |name: &str, tree| {
        fields.array(name)?.iter().map(|value| entry(tree, value)).collect::<Result<Vec<_>, WorldError>>()
    };
    let element = |name: &str| field_element(fields.get(name)?);
    Ok(Block {
        number: fields.small_number("blockNumber")?,
        state: fields.state("blockStateRef")?,
        header_hash: element("blockHeaderHash")?,
        archive_root: element("expectedArchiveRoot")?,
        previous_archive_root: element("expectedPreviousArchiveRoot")?,
        note_hashes: elements("paddedNoteHashes")?,
        messages: elements("paddedL1ToL2Messages")?,
        nullifiers: entries("paddedNullifiers", TreeId::Nullifier)?,
        public_writes: entries("publicDataWrites", TreeId::PublicData)?,
    })
}

/// A query of any tree; that the tree is unknown is said later.
fn of_tree(value: &Value<'_>, query: impl FnOnce(TreeId) -> Query) -> Result<Query, WorldError> {
    Ok(TreeId::from_number(number(value)?).map_or(Query::UnknownTree, query))
}

fn known_tree(value: &Value<'_>, command: &'static str) -> Result<TreeId, WorldError> {
    TreeId::from_number(number(value)?).ok_or(WorldError::UnknownTree { command: Some(command) })
}

fn indexed_tree(value: &Value<'_>, command: &'static str) -> Result<TreeId, WorldError> {
    let unknown = WorldError::UnknownTree { command: Some(command) };
    TreeId::from_number(number(value)?).filter(|tree| tree.is_indexed()).ok_or(unknown)
}

/// Leaves travel as MessagePack inside of binary values.
fn read_leaves(tree: TreeId, values: &[Value<'_>]) -> Result<Leaves, WorldError> {
    if tree.is_indexed() {
        return read_entries(tree, values).map(Leaves::Entries);
    }
    let word = |value| field_element(&parse(inner(value)?)?);
    values.iter().map(word).collect::<Result<_, _>>().map(Leaves::Words)
}

fn read_entries(tree: TreeId, values: &[Value<'_>]) -> Result<Vec<Insertion>, WorldError> {
    values.iter().map(|value| entry(tree, &parse(inner(value)?)?)).collect()
}

fn inner<'a>(value: &Value<'a>) -> Result<&'a [u8], WorldError> {
    if let Value::Binary(bytes) | Value::Text(bytes) = value { Ok(bytes) } else { Err(bad_cast()) }
}

fn entry(tree: TreeId, value: &Value<'_>) -> Result<Insertion, WorldError> {
    let Value::Map(fields) = value else { return Err(bad_cast()) };
    let fields = Fields(fields);
    let element = |name| field_element(fields.get(name)?);
    match tree {
        TreeId::Nullifier => Ok(Insertion { key: element("nullifier")?, value: [0; 32] }),
        TreeId::PublicData => Ok(Insertion { key: element("slot")?, value: element("value")? }),
        _ => unreachable!("only indexed trees have entries"),
    }
}

fn number(value: &Value<'_>) -> Result<u64, WorldError> {
    if let Value::Unsigned(number) = value { Ok(*number) } else { Err(bad_cast()) }
}

/// A field element: exactly 32 bytes. The server that this stands in for takes shorter ones and adds whatever was in its
/// memory.
fn field_element(value: &Value<'_>) -> Result<Digest, WorldError> {
    let (Value::Binary(bytes) | Value::Text(bytes)) = value else { return Err(bad_cast()) };
    let element: Digest = match (*bytes).try_into() {
        Ok(element) => element,
        Err(_) if bytes.len() > 32 => return Err(bad_cast()),
        Err(_) => return Err(malformed(format!("a field element has 32 bytes, not {}", bytes.len()))),
    };
    check_element(element)
}

fn bad_cast() -> WorldError {
    malformed("std::bad_cast")
}

fn malformed(text: impl Into<String>) -> WorldError {
    WorldError::Malformed(text.into())
}

impl From<Unparsable> for WorldError {
    fn from(_: Unparsable) -> WorldError {
        malformed("parse error")
    }
}
