//! A fork while the store is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;

use crate::checkpoint::Checkpoints;
use crate::history::History;
use crate::ids::{ForkId, Lsn, Version};
use crate::options::Durability;
use crate::read::Published;

/// The forks that a fork was made from, kept as long as any that was made from them.
pub(crate) struct Lineage {
    fork: ForkId,
    /// What the fork was made from, and at which commit of it.
    origin: Option<(Arc<Lineage>, Lsn)>,
}

impl Lineage {
    pub(crate) fn new(fork: ForkId, origin: Option<(Arc<Lineage>, Lsn)>) -> Arc<Lineage> {
        Arc::new(Lineage { fork, origin })
    }

    /// The fork at `lsn`, and where its history runs through each of its ancestors, the nearest first.
    pub(crate) fn line(&self, lsn: Lsn) -> Vec<Version> {
        let mut line = Vec::new();
        let (mut at, mut lsn) = (self, lsn);
        loop {
            // A version before the fork's beginning is its ancestor's.
            if at.origin.as_ref().is_none_or(|(_, origin)| lsn > *origin) {
                line.push(Version { fork: at.fork, lsn });
            }
            let Some((origin, origin_lsn)) = &at.origin else { return line };
            lsn = lsn.min(*origin_lsn);
            at = origin;
        }
    }
}

impl Lineage {
    /// The fork and its ancestors, with what each was made from, the nearest first.
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = (ForkId, Option<Version>)> + '_ {
        std::iter::successors(Some(self), |at| at.origin.as_ref().map(|(origin, _)| &**origin))
            .map(|at| (at.fork, at.origin.as_ref().map(|(origin, lsn)| Version { fork: origin.fork, lsn: *lsn })))
    }
}

impl Drop for Lineage {
    /// Frees a long line of ancestors without recursion.
    fn drop(&mut self) {
        let mut origin = self.origin.take();
        while let Some((lineage, _)) = origin {
            origin = Arc::into_inner(lineage).and_then(|mut lineage| lineage.origin.take());
        }
    }
}

/// What the store, the writer and readers of a fork share.
pub(crate) struct Fork {
    pub(crate) id: ForkId,
    pub(crate) parent: Option<Version>,
    pub(crate) lineage: Arc<Lineage>,
    pub(crate) durability: Durability,
    pub(crate) created_at_micros: i64,
    pub(crate) expires_at_micros: Option<i64>,
    pub(crate) history: Arc<History>,
    /// The head that snapshots and new forks see.
    pub(crate) published: Mutex<Published>,
    /// Whether its writer may keep writes beside the trees: until there were too many. Only the writer asks.
    pub(crate) overlays: AtomicBool,
    pub(crate) writer: Mutex<WriterSlot>,
    /// The last commit handed to the log. Changed under `dropped`.
    pub(crate) last_commit: AtomicU64,
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
    #[allow(clippy::too_many_arguments)] // Each is a field; a struct for them would be this one again.
    pub(crate) fn new(
        id: ForkId,
        parent: Option<Version>,
        lineage: Arc<Lineage>,
        durability: Durability,
        created_at_micros: i64,
        expires_at_micros: Option<i64>,
        history: Arc<History>,
        head: Published,
    ) -> Fork {
        // One on top of another would be read through twice: the deeper one goes to the trees at once.
        let overlays = parent.is_some_and(|parent| parent.lsn == head.lsn) && head.state.overlay().is_none();
        Fork {
            id,
            parent,
            lineage,
            durability,
            created_at_micros,
            expires_at_micros,
            history,
            overlays: AtomicBool::new(overlays),
            published: Mutex::new(head),
            writer: Mutex::new(WriterSlot::Free(None)),
            last_commit: AtomicU64::new(0),
            dropped: Mutex::new(false),
        }
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.durability == Durability::Durable
    }
}
