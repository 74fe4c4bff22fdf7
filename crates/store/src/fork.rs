//! A fork while the store is open.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

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

    pub(crate) fn fork(&self) -> ForkId {
        self.fork
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
///
/// Most forks are made, read and dropped, so what only others need is apart, and made when it is first asked for.
pub(crate) struct Fork {
    pub(crate) id: ForkId,
    pub(crate) durability: Durability,
    pub(crate) created_at_micros: i64,
    /// What it was made from, and at which commit of it.
    origin: Option<(Arc<Lineage>, Lsn)>,
    /// The head that snapshots and new forks see.
    pub(crate) published: Mutex<Published>,
    /// Whether its writer may keep writes beside the trees: until there were too many. Only the writer asks.
    pub(crate) overlays: AtomicBool,
    /// Whether the fork was dropped. Held while a commit or the drop is appended to the log, so that no
    /// commit follows the drop there.
    pub(crate) dropped: Mutex<bool>,
    more: OnceLock<Box<More>>,
}

/// What a fork has that was written to or forked, or that expires.
#[derive(Default)]
pub(crate) struct More {
    lineage: OnceLock<Arc<Lineage>>,
    history: OnceLock<Arc<History>>,
    expires_at_micros: Option<i64>,
    pub(crate) writer: Mutex<WriterSlot>,
    /// The last commit handed to the log. Changed under `dropped`.
    pub(crate) last_commit: AtomicU64,
}

/// Whether the fork's only writer is out.
pub(crate) enum WriterSlot {
    /// It can be had. The checkpoints belong to the fork and wait here.
    Free(Option<Box<Checkpoints>>),
    Taken,
}

impl Default for WriterSlot {
    fn default() -> WriterSlot {
        WriterSlot::Free(None)
    }
}

impl Fork {
    pub(crate) fn new(
        id: ForkId,
        origin: Option<(Arc<Lineage>, Lsn)>,
        durability: Durability,
        created_at_micros: i64,
        expires_at_micros: Option<i64>,
        head: Published,
    ) -> Fork {
        // One on top of another would be read through twice: the deeper one goes to the trees at once.
        let overlays = origin.as_ref().is_some_and(|(_, origin)| *origin == head.lsn) && head.state.overlay().is_none();
        let more = OnceLock::new();
        if expires_at_micros.is_some() {
            more.get_or_init(|| Box::new(More { expires_at_micros, ..More::default() }));
        }
        Fork {
            id,
            durability,
            created_at_micros,
            origin,
            published: Mutex::new(head),
            overlays: AtomicBool::new(overlays),
            dropped: Mutex::new(false),
            more,
        }
    }

    /// A fork whose history and lineage are known already.
    pub(crate) fn recovered(
        id: ForkId,
        lineage: Arc<Lineage>,
        created_at_micros: i64,
        expires_at_micros: Option<i64>,
        head: Published,
        history: Arc<History>,
    ) -> Fork {
        let fork =
            Fork::new(id, lineage.origin.clone(), Durability::Durable, created_at_micros, expires_at_micros, head);
        fork.more().lineage.get_or_init(|| lineage);
        fork.more().history.get_or_init(|| history);
        fork
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.durability == Durability::Durable
    }

    /// The version it was made from, which may belong to a fork that is gone.
    pub(crate) fn parent(&self) -> Option<Version> {
        self.origin.as_ref().map(|(origin, lsn)| Version { fork: origin.fork, lsn: *lsn })
    }

    pub(crate) fn expires_at_micros(&self) -> Option<i64> {
        self.more.get().and_then(|more| more.expires_at_micros)
    }

    pub(crate) fn more(&self) -> &More {
        self.more.get_or_init(Box::default)
    }

    pub(crate) fn lineage(&self) -> &Arc<Lineage> {
        self.more().lineage.get_or_init(|| Lineage::new(self.id, self.origin.clone()))
    }

    /// The fork's pins. They begin with its head as long as it had no writer: a writer asks for them first.
    pub(crate) fn history(&self) -> &Arc<History> {
        self.more().history.get_or_init(|| History::begin(self.published.lock().clone()))
    }

    /// The pins of a fork that was written to or asked for them.
    pub(crate) fn known_history(&self) -> Option<&Arc<History>> {
        self.more.get().and_then(|more| more.history.get())
    }
}
