//! A fork while the store is open.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use crate::checkpoint::Checkpoints;
use crate::history::History;
use crate::ids::{ForkId, Version};
use crate::options::Durability;
use crate::read::Published;

/// What the store, the writer and readers of a fork share.
pub(crate) struct Fork {
    pub(crate) id: ForkId,
    pub(crate) parent: Option<Version>,
    pub(crate) durability: Durability,
    pub(crate) created_at_micros: i64,
    pub(crate) expires_at_micros: Option<i64>,
    pub(crate) history: Arc<History>,
    /// The head that snapshots and new forks see.
    pub(crate) published: Mutex<Published>,
    /// Whether its writer may keep writes beside the trees: until there were too many. Only the writer asks.
    pub(crate) overlays: AtomicBool,
    pub(crate) writer: Mutex<WriterSlot>,
    /// Whether the fork was dropped. Held while a commit or the drop is appended to the log, so that no
    /// commit follows the drop there.
    pub(crate) dropped: Mutex<bool>,
}

/// Whether the fork's only writer is out.
pub(crate) enum WriterSlot {
    /// It can be had. The checkpoints belong to the fork and wait here.
    Free(Option<Box<Checkpoints>>),
    Taken,
}

impl Fork {
    pub(crate) fn new(
        id: ForkId,
        parent: Option<Version>,
        durability: Durability,
        created_at_micros: i64,
        expires_at_micros: Option<i64>,
        history: Arc<History>,
        head: Published,
    ) -> Fork {
        Fork {
            id,
            parent,
            durability,
            created_at_micros,
            expires_at_micros,
            history,
            overlays: AtomicBool::new(parent.is_some_and(|parent| parent.lsn == head.lsn)),
            published: Mutex::new(head),
            writer: Mutex::new(WriterSlot::Free(None)),
            dropped: Mutex::new(false),
        }
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.durability == Durability::Durable
    }
}
