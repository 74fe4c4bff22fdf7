//! Checking that recorded calls produce what was recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use tine_store::{ForkId, Lsn, Snapshot, VersionAt};

use super::difference::same_changes;
use super::progress::{RedoStep, Reporter};
use super::replica::{Failure, Replica, Scratch, is_administration};
use super::report::{Did, FunctionReport, Outcome, Reports, example, function_name};
use super::timeline::{Event, Timeline};
use crate::client::Actor;
use crate::database::Database;
use crate::host::Host;
use crate::meta::Meta;
use crate::record::{CallKind, CallRecord};
use crate::{HostError, RedoPlace};

/// Commits of a scratch fork between two that are shared with readers, of which it has none: what that frees is the writer's.
pub(super) const COMMITS_PER_PUBLISH: u64 = 4_096;

/// Which calls to check.
#[derive(Clone, Debug, Default)]
pub struct VerifyRequest {
    /// The first commit; `None` for the oldest that can be checked.
    pub from: Option<Lsn>,
    /// The last; `None` for the newest.
    pub to: Option<Lsn>,
    /// Whether to end at the first call that did something else.
    pub stop_at_first_difference: bool,
}

/// What a check found.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    /// The first commit.
    pub from: Lsn,
    /// The last.
    pub to: Lsn,
    /// Calls that were run again.
    pub calls: u64,
    /// Commits that are no calls of reducers: transactions of procedures, publishes, bookkeeping.
    pub reapplied: u64,
    /// Calls that did something else than recorded.
    pub differences: u64,
    /// Where the check ended early.
    pub stopped_at: Option<Lsn>,
    /// By function.
    pub functions: BTreeMap<String, FunctionReport>,
    /// Where the calls ran.
    pub place: RedoPlace,
}

/// A range of the past with the version before it.
pub(super) struct Span {
    pub base: Snapshot,
    pub from: Lsn,
    pub to: Lsn,
}

impl Host {
    /// Runs the recorded calls of a range again, each on the version it ran on, and compares. Changes nothing.
    ///
    /// # Errors
    /// [`HostError::NotFound`], [`HostError::NotAuthorized`], [`HostError::NeverRecorded`], [`HostError::BadRange`],
    /// [`HostError::NotRetained`], [`HostError::BeforeFirstModule`], [`HostError::RedoWorker`], [`HostError::Stopped`].
    pub fn verify(
        &self,
        address: &str,
        actor: &Actor,
        request: &VerifyRequest,
        step: RedoStep<'_>,
    ) -> Result<VerifyReport, HostError> {
        let (database, fork) = self.locate(address)?;
        self.authorize(&database, actor, "verify the history")?;
        let span = self.span(&database, fork, request.from, request.to)?;
        let scratch = Scratch::of(&database, &span.base, "verify")?;
        let place = database.host.instances.redo_place();
        let mut line = Recorded::open(&database, scratch, &place)?;
        let mut timeline = Timeline::open(self, &database, fork, span.from, span.to)?;
        let mut reporter = Reporter::new(span.from.get(), span.to.get(), step);
        let mut report = VerifyReport {
            from: span.from,
            to: span.to,
            calls: 0,
            reapplied: 0,
            differences: 0,
            stopped_at: None,
            functions: BTreeMap::new(),
            place,
        };
        let mut reports = Reports::default();
        while let Some(event) = timeline.next()? {
            let call = event.call.as_ref().filter(|call| is_rerun(call, &event));
            if let Some(call) = call {
                line.check(&event, call, &mut reports)?;
                report.calls += 1;
            } else {
                report.reapplied += u64::from(event.lsn.is_some());
            }
            line.advance(&event)?;
            if request.stop_at_first_difference && reports.differences() > 0 {
                report.stopped_at = Some(event.lsn.unwrap_or(event.after));
                break;
            }
            if reporter.passed(event.lsn.unwrap_or(event.after).get(), call.is_some()).is_break() {
                return Err(HostError::Stopped { lsn: event.lsn.unwrap_or(event.after).get() });
            }
        }
        // The last report is not a question any more.
        let _ = reporter.report();
        report.differences = reports.differences();
        report.functions = reports.0;
        Ok(report)
    }

    /// Refuses forks whose commits are not in the log.
    pub(super) fn check_recorded(&self, database: &Database, fork: ForkId) -> Result<(), HostError> {
        match database.store.fork_info(fork) {
            Some(info) if info.durability == tine_store::Durability::Durable => Ok(()),
            _ => Err(HostError::NeverRecorded),
        }
    }

    /// The range from `from` to `to`, and the version before it. Without `from`: as far back as possible.
    pub(super) fn span(
        &self,
        database: &Database,
        fork: ForkId,
        from: Option<Lsn>,
        to: Option<Lsn>,
    ) -> Result<Span, HostError> {
        self.check_recorded(database, fork)?;
        let info = database.store.fork_info(fork).ok_or(HostError::Closed)?;
        let to = to.unwrap_or(info.head);
        let from = match from {
            Some(from) => from,
            None => {
                let oldest = database.store.oldest_retained(fork)?;
                let base = self.version_on_line(database, fork, oldest)?;
                // The first commit of a database is its first publish, before which there is nothing to run.
                let is_empty = Meta::read_schedules_run_on(&base)?.is_none();
                Lsn::new(oldest.get() + 1 + u64::from(is_empty))
            }
        };
        if from.get() == 0 || from.get() > to.get().saturating_add(1) || to > info.head {
            return Err(HostError::BadRange { from: from.get(), to: to.get(), head: info.head.get() });
        }
        let base = self.version_on_line(database, fork, Lsn::new(from.get() - 1))?;
        if Meta::read_schedules_run_on(&base)?.is_none() {
            return Err(HostError::BeforeFirstModule(from.get() - 1));
        }
        Ok(Span { base, from, to })
    }

    /// A version of a fork, or of those it comes from.
    fn version_on_line(&self, database: &Database, fork: ForkId, lsn: Lsn) -> Result<Snapshot, HostError> {
        let mut holder = fork;
        while let Some(parent) = database.store.fork_info(holder).and_then(|info| info.parent)
            && lsn <= parent.lsn
            && database.store.fork_info(parent.fork).is_some()
        {
            holder = parent.fork;
        }
        self.retained(database, holder, VersionAt::Lsn(lsn))
    }
}

/// Whether a recorded call runs again: reducers and statements do. What procedures, publishes and the schedule's bookkeeping wrote is
/// taken over as it was recorded.
pub(super) fn is_rerun(call: &CallRecord, event: &Event) -> bool {
    let is_run =
        matches!(call.kind, CallKind::Reducer | CallKind::Lifecycle | CallKind::Scheduled | CallKind::Statement);
    is_run && !is_administration(&event.operations)
}

/// The recorded past, led along commit by commit.
pub(super) struct Recorded {
    pub replica: Replica,
    commits: u64,
    /// Dropped last: the writer must be gone before its fork.
    _scratch: Scratch,
}

impl Recorded {
    pub fn open(database: &Arc<Database>, scratch: Scratch, place: &RedoPlace) -> Result<Recorded, HostError> {
        let replica = Replica::open(database, scratch.fork, *place == RedoPlace::Workers)?;
        Ok(Recorded { replica, commits: 0, _scratch: scratch })
    }

    /// Goes on to the state after an event.
    pub fn advance(&mut self, event: &Event) -> Result<(), HostError> {
        if event.lsn.is_none() {
            return Ok(());
        }
        self.replica.apply(&event.operations)?;
        self.replica.commit(&[], event.timestamp_micros)?;
        if is_administration(&event.operations) {
            self.replica.reload()?;
        }
        self.commits += 1;
        if self.commits.is_multiple_of(COMMITS_PER_PUBLISH) {
            self.replica.tables().writer_mut().publish();
        }
        Ok(())
    }

    /// Runs a call on the state before it, and leaves that state as it was. `true`: it does what was recorded.
    pub fn reproduces(
        &mut self,
        event: &Event,
        call: &CallRecord,
    ) -> Result<(bool, Result<tine_tables::ChangeSet, Failure>), HostError> {
        let recorded = self.replica.apply(&event.operations)?;
        self.replica.rollback();
        let now = self.replica.execute_adopting(event, call, &recorded)?;
        self.replica.rollback();
        let schema = &self.replica.module.schema;
        let same = match (&now, &call.failure) {
            (Ok(changes), None) => same_changes((&recorded, schema), (changes, schema))?,
            (Err(_), Some(_)) => true,
            _ => false,
        };
        Ok((same, now))
    }

    fn check(&mut self, event: &Event, call: &CallRecord, reports: &mut Reports) -> Result<(), HostError> {
        let (mut same, mut now) = self.reproduces(event, call)?;
        if !same {
            // What an earlier call left in the instance is not in the record.
            self.replica.drop_instance();
            (same, now) = self.reproduces(event, call)?;
        }
        let outcome = match (&now, &call.failure) {
            _ if same => Outcome::Same,
            _ if self.replica.module.compiled.is_bundle() && !call.is_fresh => Outcome::NotReproducible,
            (Ok(_), None) => Outcome::Different,
            (Err(_), _) => Outcome::NewlyFailing,
            (Ok(_), Some(_)) => Outcome::NewlySucceeding,
        };
        let name = function_name(call);
        if same {
            reports.count(name, outcome, || unreachable!("calls that are the same are no examples"));
            return Ok(());
        }
        let recorded = self.replica.apply(&event.operations)?;
        self.replica.rollback();
        let module = &self.replica.module;
        reports.count(name, outcome, || {
            let was = match &call.failure {
                Some(code) => Did::Failed { code, message: None },
                None => Did::Changed(&recorded),
            };
            let is = match &now {
                Ok(changes) => Did::Changed(changes),
                Err(failure) => failure.into(),
            };
            example(event, call, outcome, (was, module), (is, module))
        });
        Ok(())
    }
}
