//! What runs in a fork's lane.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Instant;

use tine_lanes::{Class, Refusal, Worker};
use tine_store::{DurableTicket, Snapshot};

use crate::chain::{ChainWriter, UpTo};
use crate::error::WorldError;
use crate::pending::Pending;
use crate::query::{Context, answer};
use crate::types::{BlockNumber, ChainChange, Change, Leaves, Query, Reply, WorldForkId};
use crate::world::{ReplyFn, Session, Shared};

/// A request that the world answers as a whole.
pub(crate) type Act = Box<dyn FnOnce(&Arc<Shared>) -> Result<Reply, WorldError> + Send>;

/// What a job does.
pub(crate) enum Work {
    /// Reads the fork's newest state.
    Read(Query),
    Change(Change),
    /// The following are for the canonical fork's lane only.
    Chain(ChainChange),
    /// Reads a block, or what is committed, after the session's own changes of the chain.
    AfterChain(Act),
}

/// One request in a lane.
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) session: Arc<Session>,
    pub(crate) deadline: Instant,
    /// Approximate memory it keeps, in bytes.
    pub(crate) bytes: usize,
    pub(crate) reply: ReplyFn,
}

/// A fork's state, in its lane.
pub(crate) struct ForkWorker {
    shared: Weak<Shared>,
    id: WorldForkId,
    pending: Pending,
    /// Only on the canonical fork.
    chain: Option<Box<ChainWriter>>,
    /// Of the newest change of the chain.
    chain_ticket: Option<DurableTicket>,
    /// What was asked after the deletion may be in the same batch with it.
    is_deleted: bool,
}

/// What reads that run together look at.
pub(crate) struct View {
    shared: Arc<Shared>,
    snapshot: Result<Snapshot, WorldError>,
    base_block: BlockNumber,
}

impl ForkWorker {
    pub(crate) fn new(
        shared: Weak<Shared>,
        id: WorldForkId,
        pending: Pending,
        chain: Option<ChainWriter>,
    ) -> ForkWorker {
        ForkWorker { shared, id, pending, chain: chain.map(Box::new), chain_ticket: None, is_deleted: false }
    }

    fn perform(&mut self, shared: &Arc<Shared>, work: Work) -> Outcome {
        let done = match work {
            Work::Read(query) => {
                let chain = shared.chain.read();
                let sizes = UpTo(&chain, self.pending.base_block);
                self.pending.answer(&shared.trees, &query, &Context { block: None, sizes: &sizes })
            }
            Work::Change(Change::Delete) => {
                self.is_deleted = true;
                shared.remove_fork(self.id).map(|()| Reply::Done)
            }
            Work::Change(change) => {
                self.pending.change(&shared.store, &shared.trees, change, || shared.next_store_name())
            }
            Work::Chain(change) => return self.change_chain(shared, change),
            Work::AfterChain(act) => act(shared),
        };
        Outcome::Now(done)
    }

    fn change_chain(&mut self, shared: &Arc<Shared>, change: ChainChange) -> Outcome {
        let writer = self.chain.as_mut().expect("changes of the chain go to the canonical fork's lane");
        let (store, trees, chain, pending) = (&shared.store, &shared.trees, &shared.chain, &mut self.pending);
        let is_summary = matches!(change, ChainChange::Finalize(_));
        let written = match change {
            ChainChange::Commit => writer.commit(store, trees, chain, pending),
            ChainChange::Rollback => {
                pending.discard(store);
                return Outcome::Now(Ok(Reply::Done));
            }
            ChainChange::Sync(block) => writer.sync(store, trees, chain, pending, &block),
            ChainChange::Finalize(to) => writer.finalize(chain, to),
            ChainChange::Unwind(to) => {
                let written = writer.unwind(store, chain, pending, to, &shared.fork_bases());
                if written.is_ok() {
                    shared.remove_forks_after(to);
                }
                written
            }
            ChainChange::RemoveHistorical(to) => writer.remove_historical(store, chain, to, &shared.fork_bases()),
            ChainChange::Copy(destination) => {
                return Outcome::Copy(self.chain_ticket, destination);
            }
        };
        match written {
            Err(error) => Outcome::Now(Err(error)),
            Ok(written) => {
                self.chain_ticket = Some(written.ticket);
                let status = if is_summary {
                    Ok(Reply::Status(chain.read().summary()))
                } else {
                    let status = ChainWriter::full_status(trees, chain, pending);
                    status.map(|status| Reply::FullStatus(Box::new(status)))
                };
                Outcome::WhenDurable(written.ticket, status)
            }
        }
    }
}

enum Outcome {
    Now(Result<Reply, WorldError>),
    WhenDurable(DurableTicket, Result<Reply, WorldError>),
    /// To be made on another thread, when the ticket is on disk.
    Copy(Option<DurableTicket>, PathBuf),
}

impl Worker for ForkWorker {
    type Job = Job;
    type View = View;
    type Answer = (Arc<Session>, ReplyFn, Result<Reply, WorldError>);

    fn class(job: &Job) -> Class {
        match &job.work {
            Work::Read(_) => Class::Read,
            _ => Class::Write,
        }
    }

    fn bytes(job: &Job) -> usize {
        job.bytes
    }

    fn deadline(job: &Job) -> Option<Instant> {
        Some(job.deadline)
    }

    fn run(&mut self, jobs: &mut VecDeque<Job>) {
        let shared = self.shared.upgrade();
        for job in jobs.drain(..) {
            let Some(shared) = shared.as_ref().filter(|_| !self.is_deleted) else {
                Self::refuse(job, Refusal::Closed);
                continue;
            };
            if let Work::Change(Change::Append(tree, Leaves::Words(words))) = job.work {
                let name = || shared.next_store_name();
                self.pending.append_words(&shared.store, &shared.trees, (tree, &words), name, job.reply);
                continue;
            }
            let is_chain = matches!(job.work, Work::Chain(_));
            let outcome = self.perform(shared, job.work);
            if is_chain {
                job.session.chain_change_ran();
            }
            match outcome {
                Outcome::Now(result) => (job.reply)(result),
                Outcome::WhenDurable(ticket, result) => shared.reply_when_durable(ticket, job.reply, result),
                Outcome::Copy(ticket, destination) => shared.copy_to(ticket, destination, job.reply),
            }
        }
    }

    fn view(&mut self) -> View {
        let shared = self.shared.upgrade().expect("reads run together only while the service is there");
        let snapshot = if self.is_deleted {
            Err(WorldError::ForkNotFound)
        } else {
            self.pending.snapshot(&shared.store, &shared.trees)
        };
        View { shared, snapshot, base_block: self.pending.base_block }
    }

    fn read(view: &View, job: Job) -> Self::Answer {
        let Work::Read(query) = job.work else { unreachable!("only reads are of class read") };
        let result = view.snapshot.as_ref().map_err(Clone::clone).and_then(|snapshot| {
            let chain = view.shared.chain.read();
            let sizes = UpTo(&chain, view.base_block);
            answer(&view.shared.trees, snapshot, &query, &Context { block: None, sizes: &sizes })
        });
        (job.session, job.reply, result)
    }

    fn finish(&mut self, answers: Vec<Self::Answer>) {
        for (_, reply, result) in answers {
            reply(result);
        }
    }

    fn close(&mut self, _refusal: Refusal) {
        if let Some(shared) = self.shared.upgrade() {
            self.pending.discard(&shared.store);
        }
    }

    fn refuse(job: Job, refusal: Refusal) {
        if matches!(job.work, Work::Chain(_)) {
            job.session.chain_change_ran();
        }
        (job.reply)(Err(match refusal {
            Refusal::Closed => WorldError::ForkNotFound,
            Refusal::Faulted => WorldError::ShuttingDown,
            Refusal::Expired => WorldError::Expired,
        }));
    }
}
