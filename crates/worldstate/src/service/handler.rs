//! The handler of the schema's requests: each is a [`Command`], and its response the [`Reply`].

use tine_ipc::ConnectionEvent;
use tine_ipc::typed::Responder;
use tine_msgpack::Value;

use super::convert::{
    block, digest, digests, elements, entry, find, full_status, indexed_leaf, insertions, revision, state_reference,
    summary, tree, tree_of_kind, tree_state, typed_state_reference, witness,
};
use super::world_state::*;
use crate::endpoint::Sessions;
use crate::error::WorldError;
use crate::types::{ChainChange, Change, Command, LeafValue, Leaves, Query, Reply, WorldForkId};
use crate::world::World;

/// The service on a world state.
pub(crate) struct Service {
    world: World,
    sessions: Sessions,
}

/// A command's response, from the reply of its kind.
type Respond<R> = fn(Reply) -> Option<R>;

impl Service {
    pub(crate) fn new(world: &World) -> Service {
        Service { world: world.clone(), sessions: Sessions::default() }
    }

    fn ask<R: Value + 'static>(
        &self,
        command: Result<Command, WorldError>,
        responder: Responder<R>,
        respond: Respond<R>,
    ) {
        let command = match command {
            Ok(command) => command,
            Err(error) => return refuse(responder, &error),
        };
        let session = self.sessions.of(&self.world, responder.connection());
        let reply = move |result: Result<Reply, WorldError>| match result {
            Ok(reply) => responder.ok(&respond(reply).expect("a command has replies of its kind alone")),
            Err(error) => refuse(responder, &error),
        };
        self.world.call(&session, command, Box::new(reply));
    }

    fn read<R: Value + 'static>(
        &self,
        of: &Revision,
        query: Result<Query, WorldError>,
        responder: Responder<R>,
        respond: Respond<R>,
    ) {
        self.ask(query.map(|query| Command::Read(revision(of), query)), responder, respond);
    }

    fn change<R: Value + 'static>(
        &self,
        fork: ForkId,
        change: Result<Change, WorldError>,
        responder: Responder<R>,
        respond: Respond<R>,
    ) {
        self.ask(change.map(|change| Command::Change(WorldForkId(fork), change)), responder, respond);
    }

    fn change_chain<R: Value + 'static>(&self, change: ChainChange, responder: Responder<R>, respond: Respond<R>) {
        self.ask(Ok(Command::Chain(change)), responder, respond);
    }
}

fn refuse<R: Value>(responder: Responder<R>, error: &WorldError) {
    responder.err(format!("{}: {error}", error.code()));
}

/// For responses without fields.
macro_rules! done {
    ($response:ident) => {
        |reply| matches!(reply, Reply::Done).then_some($response {})
    };
}

/// For the others: `Reply::Path(path) => WorldStateGetSiblingPathResponse { ... }`.
macro_rules! respond {
    ($reply:pat => $response:expr) => {
        |reply| match reply {
            $reply => Some($response),
            _ => None,
        }
    };
}

impl WorldStateHandler for Service {
    fn get_tree_info(&self, request: WorldStateGetTreeInfo, responder: Responder<WorldStateGetTreeInfoResponse>) {
        let query = tree(request.tree, "get_tree_info").map(Query::TreeInfo);
        let respond = respond!(Reply::TreeInfo(_, state, depth) => {
            let TreeState { root, size } = tree_state(&state);
            WorldStateGetTreeInfoResponse { root, size, depth }
        });
        self.read(&request.revision, query, responder, respond);
    }

    fn get_state_reference(
        &self,
        request: WorldStateGetStateReference,
        responder: Responder<WorldStateGetStateReferenceResponse>,
    ) {
        let respond = respond!(Reply::State(state) => {
            WorldStateGetStateReferenceResponse { state: typed_state_reference(&state) }
        });
        self.read(&request.revision, Ok(Query::StateReference), responder, respond);
    }

    fn get_initial_state_reference(
        &self,
        _: WorldStateGetInitialStateReference,
        responder: Responder<WorldStateGetInitialStateReferenceResponse>,
    ) {
        let respond = respond!(Reply::State(state) => {
            WorldStateGetInitialStateReferenceResponse { state: typed_state_reference(&state) }
        });
        self.ask(Ok(Command::InitialState), responder, respond);
    }

    fn get_leaf_value(&self, request: WorldStateGetLeafValue, responder: Responder<WorldStateGetLeafValueResponse>) {
        let query = tree(request.tree, "get_leaf_value").map(|tree| Query::LeafValue(tree, request.index));
        let respond = respond!(Reply::LeafValue(value) => match value {
            None => WorldStateGetLeafValueResponse { leaf: None, entry: None },
            Some(LeafValue::Word(word)) => {
                WorldStateGetLeafValueResponse { leaf: Some(FieldElement(word)), entry: None }
            }
            Some(LeafValue::Entry(_, found)) => {
                WorldStateGetLeafValueResponse { leaf: None, entry: Some(entry(&found)) }
            }
        });
        self.read(&request.revision, query, responder, respond);
    }

    fn get_leaf_preimage(
        &self,
        request: WorldStateGetLeafPreimage,
        responder: Responder<WorldStateGetLeafPreimageResponse>,
    ) {
        let tree = tree_of_kind(request.tree, true, "get_leaf_preimage");
        let query = tree.map(|tree| Query::LeafPreimage(tree, request.index));
        let respond = respond!(Reply::LeafPreimage(_, leaf) => {
            WorldStateGetLeafPreimageResponse { leaf: indexed_leaf(&leaf) }
        });
        self.read(&request.revision, query, responder, respond);
    }

    fn get_sibling_path(
        &self,
        request: WorldStateGetSiblingPath,
        responder: Responder<WorldStateGetSiblingPathResponse>,
    ) {
        let query = tree(request.tree, "get_sibling_path").map(|tree| Query::SiblingPath(tree, request.index));
        let respond = respond!(Reply::Path(path) => WorldStateGetSiblingPathResponse { path: elements(path) });
        self.read(&request.revision, query, responder, respond);
    }

    fn get_block_numbers_for_leaf_indices(
        &self,
        request: WorldStateGetBlockNumbersForLeafIndices,
        responder: Responder<WorldStateGetBlockNumbersForLeafIndicesResponse>,
    ) {
        let tree = tree(request.tree, "get_block_numbers_for_leaf_indices");
        let query = tree.map(|tree| Query::BlockNumbers(tree, request.indices));
        let respond = respond!(Reply::BlockNumbers(blocks) => {
            WorldStateGetBlockNumbersForLeafIndicesResponse { blocks }
        });
        self.read(&request.revision, query, responder, respond);
    }

    fn find_leaf_indices(
        &self,
        request: WorldStateFindLeafIndices,
        responder: Responder<WorldStateFindLeafIndicesResponse>,
    ) {
        let tree = tree(request.tree, "find_leaf_indices");
        let query = tree.and_then(|tree| find(tree, request.leaves, Some(request.start)));
        let respond = respond!(Reply::Indices(indices) => WorldStateFindLeafIndicesResponse { indices });
        self.read(&request.revision, query, responder, respond);
    }

    fn find_sibling_paths(
        &self,
        request: WorldStateFindSiblingPaths,
        responder: Responder<WorldStateFindSiblingPathsResponse>,
    ) {
        let tree = tree(request.tree, "find_sibling_paths");
        let query = tree.and_then(|tree| find(tree, request.leaves, None));
        let respond = respond!(Reply::Paths(paths) => {
            let path = |(index, path)| LeafPath { index, path: elements(path) };
            WorldStateFindSiblingPathsResponse { paths: paths.into_iter().map(|found| found.map(path)).collect() }
        });
        self.read(&request.revision, query, responder, respond);
    }

    fn find_low_leaf(&self, request: WorldStateFindLowLeaf, responder: Responder<WorldStateFindLowLeafResponse>) {
        let tree = tree(request.tree, "find_low_leaf");
        let query = tree.and_then(|tree| Ok(Query::LowLeaf(tree, digest(request.key)?)));
        let respond = respond!(Reply::LowLeaf(already_present, index) => {
            WorldStateFindLowLeafResponse { already_present, index }
        });
        self.read(&request.revision, query, responder, respond);
    }

    fn append_leaves(&self, request: WorldStateAppendLeaves, responder: Responder<WorldStateAppendLeavesResponse>) {
        let tree = tree_of_kind(request.tree, false, "append_leaves");
        let change = tree.and_then(|tree| Ok(Change::Append(tree, Leaves::Words(digests(request.leaves)?))));
        self.change(request.fork, change, responder, done!(WorldStateAppendLeavesResponse));
    }

    fn batch_insert(&self, request: WorldStateBatchInsert, responder: Responder<WorldStateBatchInsertResponse>) {
        let change = tree_of_kind(request.tree, true, "batch_insert").and_then(|tree| {
            let entries = insertions(tree, request.entries)?;
            Ok(if request.witnesses {
                Change::InsertBatch(tree, entries, request.subtree_depth)
            } else {
                Change::Append(tree, Leaves::Entries(entries))
            })
        });
        self.change(request.fork, change, responder, batch_response);
    }

    fn sequential_insert(
        &self,
        request: WorldStateSequentialInsert,
        responder: Responder<WorldStateSequentialInsertResponse>,
    ) {
        let tree = tree_of_kind(request.tree, true, "sequential_insert");
        let change = tree.and_then(|tree| Ok(Change::InsertEach(tree, insertions(tree, request.entries)?)));
        let respond = respond!(Reply::Sequential(_, inserted) => WorldStateSequentialInsertResponse {
            low_leaves: inserted.low_leaves.into_iter().map(witness).collect(),
            slots: inserted.slots.into_iter().map(|slot| slot.map(witness)).collect(),
        });
        self.change(request.fork, change, responder, respond);
    }

    fn update_archive(&self, request: WorldStateUpdateArchive, responder: Responder<WorldStateUpdateArchiveResponse>) {
        let state = state_reference(&request.state);
        let change = state.and_then(|state| Ok(Change::UpdateArchive(Box::new(state), digest(request.header_hash)?)));
        self.change(request.fork, change, responder, done!(WorldStateUpdateArchiveResponse));
    }

    fn create_fork(&self, request: WorldStateCreateFork, responder: Responder<WorldStateCreateForkResponse>) {
        let command = Command::CreateFork { block: request.block, is_owned: request.owned != Some(false) };
        let respond = respond!(Reply::Fork(fork) => WorldStateCreateForkResponse { fork: fork.0 });
        self.ask(Ok(command), responder, respond);
    }

    fn delete_fork(&self, request: WorldStateDeleteFork, responder: Responder<WorldStateDeleteForkResponse>) {
        self.change(request.fork, Ok(Change::Delete), responder, done!(WorldStateDeleteForkResponse));
    }

    fn create_checkpoint(
        &self,
        request: WorldStateCreateCheckpoint,
        responder: Responder<WorldStateCreateCheckpointResponse>,
    ) {
        let respond = done!(WorldStateCreateCheckpointResponse);
        self.change(request.fork, Ok(Change::CreateCheckpoint), responder, respond);
    }

    fn commit_checkpoint(
        &self,
        request: WorldStateCommitCheckpoint,
        responder: Responder<WorldStateCommitCheckpointResponse>,
    ) {
        let respond = done!(WorldStateCommitCheckpointResponse);
        self.change(request.fork, Ok(Change::CommitCheckpoint), responder, respond);
    }

    fn revert_checkpoint(
        &self,
        request: WorldStateRevertCheckpoint,
        responder: Responder<WorldStateRevertCheckpointResponse>,
    ) {
        let respond = done!(WorldStateRevertCheckpointResponse);
        self.change(request.fork, Ok(Change::RevertCheckpoint), responder, respond);
    }

    fn commit_all_checkpoints(
        &self,
        request: WorldStateCommitAllCheckpoints,
        responder: Responder<WorldStateCommitAllCheckpointsResponse>,
    ) {
        let respond = done!(WorldStateCommitAllCheckpointsResponse);
        self.change(request.fork, Ok(Change::CommitAllCheckpoints), responder, respond);
    }

    fn revert_all_checkpoints(
        &self,
        request: WorldStateRevertAllCheckpoints,
        responder: Responder<WorldStateRevertAllCheckpointsResponse>,
    ) {
        let respond = done!(WorldStateRevertAllCheckpointsResponse);
        self.change(request.fork, Ok(Change::RevertAllCheckpoints), responder, respond);
    }

    fn commit(&self, _: WorldStateCommit, responder: Responder<WorldStateCommitResponse>) {
        self.change_chain(ChainChange::Commit, responder, status_response);
    }

    fn rollback(&self, _: WorldStateRollback, responder: Responder<WorldStateRollbackResponse>) {
        self.change_chain(ChainChange::Rollback, responder, done!(WorldStateRollbackResponse));
    }

    fn sync_block(&self, request: WorldStateSyncBlock, responder: Responder<WorldStateSyncBlockResponse>) {
        let command = block(request).map(|block| Command::Chain(ChainChange::Sync(Box::new(block))));
        self.ask(command, responder, status_response);
    }

    fn finalize_blocks(
        &self,
        request: WorldStateFinalizeBlocks,
        responder: Responder<WorldStateFinalizeBlocksResponse>,
    ) {
        self.change_chain(ChainChange::Finalize(request.block), responder, summary_response);
    }

    fn unwind_blocks(&self, request: WorldStateUnwindBlocks, responder: Responder<WorldStateUnwindBlocksResponse>) {
        self.change_chain(ChainChange::Unwind(request.block), responder, status_response);
    }

    fn remove_historical_blocks(
        &self,
        request: WorldStateRemoveHistoricalBlocks,
        responder: Responder<WorldStateRemoveHistoricalBlocksResponse>,
    ) {
        self.change_chain(ChainChange::RemoveHistorical(request.block), responder, status_response);
    }

    fn get_status(&self, _: WorldStateGetStatus, responder: Responder<WorldStateGetStatusResponse>) {
        self.ask(Ok(Command::Status), responder, summary_response);
    }

    fn copy_stores(&self, request: WorldStateCopyStores, responder: Responder<WorldStateCopyStoresResponse>) {
        let copy = ChainChange::Copy(request.directory.into());
        self.change_chain(copy, responder, done!(WorldStateCopyStoresResponse));
    }

    fn event(&self, event: ConnectionEvent<'_>) {
        self.sessions.event(&self.world, &event);
    }
}

/// Without witnesses the response has none.
fn batch_response(reply: Reply) -> Option<WorldStateBatchInsertResponse> {
    match reply {
        Reply::Batch(_, inserted) => Some(WorldStateBatchInsertResponse {
            low_leaves: inserted.low_leaves.into_iter().map(|low| low.map(witness)).collect(),
            sorted: inserted
                .sorted
                .iter()
                .map(|(inserted, position)| SortedEntry { entry: entry(inserted), position: *position as u32 })
                .collect(),
            subtree_path: elements(inserted.path),
        }),
        Reply::Done => {
            Some(WorldStateBatchInsertResponse { low_leaves: Vec::new(), sorted: Vec::new(), subtree_path: Vec::new() })
        }
        _ => None,
    }
}

fn status_response(reply: Reply) -> Option<WorldStateCommitResponse> {
    if let Reply::FullStatus(status) = reply { Some(full_status(&status)) } else { None }
}

fn summary_response(reply: Reply) -> Option<WorldStateFinalizeBlocksResponse> {
    let Reply::Status(status) = reply else { return None };
    Some(WorldStateFinalizeBlocksResponse { summary: summary(&status) })
}
