//! The nested checkpoints of a fork.
//!
//! While any is open, the undo entries of each commit are kept in one history; a checkpoint is a place in it.
//! Reverting one writes the oldest value since that place back to each key that differs. So a checkpoint pins
//! no version, and its cost is that of the changes made inside of it.

use crate::ids::CheckpointId;
use crate::undo::{UndoLog, UndoMark};

/// Checkpoints that may be open at once on a fork: far more than a call stack is deep, few enough to search.
pub(crate) const CHECKPOINTS_MAX: usize = 1024;

/// Bytes of history a fork keeps for its open checkpoints. A revert is one log record, so this leaves room for
/// a call beside it within the limit of a record.
pub(crate) const CHECKPOINT_BYTES_MAX: usize = 96 << 20;

/// Open checkpoints of a fork, the outermost first.
#[derive(Default)]
pub(crate) struct Checkpoints {
    pub(crate) history: UndoLog,
    open: Vec<(CheckpointId, UndoMark)>,
    last_id: u64,
}

impl Checkpoints {
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// `None` if too many are open.
    pub(crate) fn begin(&mut self) -> Option<CheckpointId> {
        if self.open.len() >= CHECKPOINTS_MAX {
            return None;
        }
        self.last_id += 1;
        let id = CheckpointId::new(self.last_id);
        self.open.push((id, self.history.mark()));
        Some(id)
    }

    pub(crate) fn mark_of(&self, id: CheckpointId) -> Option<UndoMark> {
        self.open.iter().find(|(open, _)| *open == id).map(|(_, mark)| *mark)
    }

    /// Closes `id`, which is open, and all inside of it.
    pub(crate) fn close(&mut self, id: CheckpointId) {
        self.open.retain(|(open, _)| *open < id);
        if self.open.is_empty() {
            self.history = UndoLog::default();
        }
    }
}
