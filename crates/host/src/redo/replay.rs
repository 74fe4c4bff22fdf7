//! Running history again on a fork, with the code it had or other code.
//!
//! The replayed fork is durable and has a name that no client can say until it is done; then it gets the one asked for. Now and then
//! the run notes in it how far it is, so that one that was stopped, or whose server died, goes on from there.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tine_store::{Durability, ForkId, ForkOptions, Lsn, Read, VersionAt};
use tine_tables::{ChangeSet, TableRead, TableSchema};
use tine_types::bsatn::encode_value;

use super::difference::{columns_of, same_changes, table_differences};
use super::progress::{RedoStep, Reporter};
use super::replica::{Failure, Replica, Scratch, is_administration};
use super::report::{Did, FunctionReport, Outcome, Reports, TableDifference, example, function_name};
use super::timeline::{Event, Timeline};
use super::verify::{COMMITS_PER_PUBLISH, Recorded, Span, is_rerun};
use crate::client::Actor;
use crate::database::{Database, REPLAY};
use crate::forks::ForkSummary;
use crate::handle::ForkHandle;
use crate::host::Host;
use crate::meta::META;
use crate::module::ActiveModule;
use crate::names::check_name;
use crate::plan::UpdatePlan;
use crate::publish::{ClientPolicy, PublishJob, planned_schema};
use crate::record::{CallKind, CallParts, CallRecord, Record};
use crate::{HostError, RedoPlace};

/// Where in the settings of the replayed version its run notes how far it is.
const SAVED: &[u8] = b"replay";

/// Time between two such notes.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// How long the new fork may take to reach stable storage.
const DURABLE_WITHIN: Duration = Duration::from_secs(30);

/// What to run again.
#[derive(Clone, Debug, Default)]
pub struct ReplayRequest {
    /// The first commit; `None` for the oldest that can be replayed.
    pub from: Option<Lsn>,
    /// The last; `None` for the newest.
    pub to: Option<Lsn>,
    /// The program to run instead of the recorded one.
    pub program: Option<Vec<u8>>,
    /// The name of the fork that is made.
    pub name: String,
    /// Whether to end at the first call that did something else.
    pub stop_at_first_difference: bool,
    /// Whether to go on with a replay of that name that was stopped; range and program are then those it was begun with.
    pub resume: bool,
}

/// What a replay found.
#[derive(Clone, Debug)]
pub struct ReplayReport {
    /// The fork that was made.
    pub fork: ForkSummary,
    /// The first commit.
    pub from: Lsn,
    /// The last.
    pub to: Lsn,
    /// Calls that were run again.
    pub calls: u64,
    /// Commits whose rows were taken over: transactions of procedures and the schedule's bookkeeping.
    pub reapplied: u64,
    /// Rows of such commits that the replayed tables did not take.
    pub rows_refused: u64,
    /// Commits that were left out: publishes, when other code runs.
    pub skipped: u64,
    /// Calls that did something else than recorded, because of the code.
    pub differences: u64,
    /// Where the replay ended early.
    pub stopped_at: Option<Lsn>,
    /// By function.
    pub functions: BTreeMap<String, FunctionReport>,
    /// How the replayed version differs from the recorded one at the same place.
    pub tables: Vec<TableDifference>,
    /// Where the calls ran.
    pub place: RedoPlace,
}

/// How far a replay is, as it is kept in the replayed version.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Saved {
    source: u64,
    from: u64,
    to: u64,
    /// Other code runs than was recorded.
    is_other: bool,
    /// Events gone through.
    events: u64,
    /// The last recorded commit among them.
    lsn: u64,
    /// The replayed fork's commit that holds this.
    at: u64,
    calls: u64,
    reapplied: u64,
    rows_refused: u64,
    skipped: u64,
    reports: Reports,
}

struct Run {
    database: Arc<Database>,
    place: RedoPlace,
    recorded: Recorded,
    replayed: Replica,
    fork: ForkId,
    saved: Saved,
    sessions: HashSet<u64>,
    record: Vec<u8>,
    saved_at: Instant,
}

impl Host {
    /// Runs a range of a fork's history again on a new fork of the version before it, and compares every call with its record.
    ///
    /// # Errors
    /// [`HostError::NotFound`], [`HostError::NotAuthorized`], [`HostError::InvalidName`], [`HostError::NameTaken`],
    /// [`HostError::NeverRecorded`], [`HostError::BadRange`], [`HostError::NotRetained`], [`HostError::NothingToResume`],
    /// [`HostError::RedoWorker`] (what was done until then can be resumed), those of a publish when the program does not fit the version, and [`HostError::Stopped`], after which the replay can be resumed.
    pub fn replay(
        &self,
        address: &str,
        actor: &Actor,
        request: &ReplayRequest,
        step: RedoStep<'_>,
    ) -> Result<ReplayReport, HostError> {
        let (database, source) = self.locate(address)?;
        self.authorize(&database, actor, "replay the history")?;
        check_name(&request.name)?;
        if database.store.fork_named(&request.name).is_some() {
            return Err(HostError::NameTaken(request.name.clone()));
        }
        let mut run = match request.resume {
            true => self.resume_replay(&database, request)?,
            false => self.begin_replay(&database, source, actor, request)?,
        };
        let source = ForkId::new(run.saved.source);
        let (from, to) = (Lsn::new(run.saved.from), Lsn::new(run.saved.to));
        let mut timeline = Timeline::open(self, &database, source, from, to)?;
        for _ in 0..run.saved.events {
            timeline.next()?.ok_or(HostError::Damaged("replay"))?;
        }
        let mut reporter = Reporter::new(from.get(), to.get(), step);
        let mut stopped_at = None;
        while let Some(event) = timeline.next()? {
            let is_call = run.pass(&event)?;
            let lsn = event.lsn.unwrap_or(event.after);
            if request.stop_at_first_difference && run.saved.reports.differences() > 0 {
                stopped_at = Some(lsn);
                break;
            }
            if reporter.passed(lsn.get(), is_call).is_break() {
                run.save()?;
                return Err(HostError::Stopped { lsn: lsn.get() });
            }
        }
        // The last report is not a question any more.
        let _ = reporter.report();
        self.finish_replay(run, &request.name, stopped_at)
    }

    fn begin_replay(
        &self,
        database: &Arc<Database>,
        source: ForkId,
        actor: &Actor,
        request: &ReplayRequest,
    ) -> Result<Run, HostError> {
        let span = self.span(database, source, request.from, request.to)?;
        let name = format!("{REPLAY}{}", request.name);
        if let Some(left) = database.store.fork_named(&name) {
            // Refused while another replay of that name runs.
            drop(database.store.writer(left)?);
            database.delete_fork(left)?;
        }
        let options = ForkOptions { name, durability: Durability::Durable, expires_at_micros: None };
        let (info, _) = database.store.fork_from(&span.base, options)?;
        if let Some(program) = &request.program
            && let Err(error) = self.publish_on(database, info.id, actor, program)
        {
            // What cannot be dropped now is when the replay is begun again.
            let _ = database.delete_fork(info.id);
            return Err(error);
        }
        let saved = Saved {
            source: source.get(),
            from: span.from.get(),
            to: span.to.get(),
            is_other: request.program.is_some(),
            events: 0,
            lsn: span.from.get() - 1,
            at: 0,
            calls: 0,
            reapplied: 0,
            rows_refused: 0,
            skipped: 0,
            reports: Reports::default(),
        };
        let mut run = Run::new(database, &span, info.id, saved)?;
        run.save()?;
        Ok(run)
    }

    /// Puts a program on a fork that no client knows of.
    fn publish_on(
        &self,
        database: &Arc<Database>,
        fork: ForkId,
        actor: &Actor,
        program: &[u8],
    ) -> Result<(), HostError> {
        let handle = ForkHandle { fork: database.fork(fork)?, database: database.clone() };
        let present = handle.module();
        let isolation = present.isolation;
        let compiled = self.compile(program, isolation)?;
        let next = ActiveModule::new(compiled.clone(), planned_schema(&compiled, &present.schema)?, isolation)?;
        let token = UpdatePlan::between(handle.fork_identity(), &present, &next).token;
        let job = PublishJob {
            compiled,
            program: program.to_vec(),
            first: None,
            // Nobody is connected, so that whatever the plan says of clients is agreed to.
            policy: ClientPolicy::BreakClients { token },
            isolation,
            publisher: crate::client::Requester { identity: actor.identity, jwt_payload: None },
        };
        let reply = handle.ask(|reply| crate::jobs::Job::Publish { job: Box::new(job), reply })?;
        let published = reply.result.map_err(HostError::from).and_then(|published| published);
        drop(handle);
        database.close_fork(fork)?;
        published
    }

    fn resume_replay(&self, database: &Arc<Database>, request: &ReplayRequest) -> Result<Run, HostError> {
        let name = format!("{REPLAY}{}", request.name);
        let nothing = || HostError::NothingToResume(request.name.clone());
        let left = database.store.fork_named(&name).ok_or_else(nothing)?;
        let head = database.store.snapshot(left)?;
        let value = head.get(META, SAVED).map_err(|fault| HostError::Table(fault.into()))?.ok_or_else(nothing)?;
        let saved: Saved = serde_json::from_slice(&value).map_err(|_| HostError::Damaged("replay"))?;
        let mut fork = left;
        if head.version().lsn.get() != saved.at {
            // What was done after the note is done again.
            let base = self.version(database, left, VersionAt::Lsn(Lsn::new(saved.at)))?;
            let again =
                ForkOptions { name: format!("{name}:again"), durability: Durability::Durable, expires_at_micros: None };
            if let Some(old) = database.store.fork_named(&again.name) {
                database.delete_fork(old)?;
            }
            fork = database.store.fork_from(&base, again)?.0.id;
            database.store.replace_fork(left, fork)?;
        }
        let source = ForkId::new(saved.source);
        let span = self.span(database, source, Some(Lsn::new(saved.lsn + 1)), Some(Lsn::new(saved.to)))?;
        Run::new(database, &span, fork, saved)
    }

    fn finish_replay(&self, mut run: Run, name: &str, stopped_at: Option<Lsn>) -> Result<ReplayReport, HostError> {
        let tables = {
            let recorded: &dyn TableRead = run.recorded.replica.read();
            table_differences(recorded, run.replayed.read())?
        };
        run.replayed.forget(SAVED)?;
        let Run { database, place, fork, saved, replayed, recorded, .. } = run;
        drop((replayed, recorded));
        let ticket = database.store.rename_fork(fork, name)?;
        database.store.wait_durable(ticket, DURABLE_WITHIN)?;
        let info = database.store.fork_info(fork).ok_or(HostError::Closed)?;
        self.fork_added(&database, &info);
        Ok(ReplayReport {
            fork: self.fork_show(&database.address(name))?,
            from: Lsn::new(saved.from),
            to: Lsn::new(saved.to),
            calls: saved.calls,
            reapplied: saved.reapplied,
            rows_refused: saved.rows_refused,
            skipped: saved.skipped,
            differences: saved.reports.differences(),
            stopped_at,
            functions: saved.reports.0,
            tables,
            place,
        })
    }
}

impl Run {
    fn new(database: &Arc<Database>, span: &Span, fork: ForkId, saved: Saved) -> Result<Run, HostError> {
        let place = database.host.instances.redo_place();
        Ok(Run {
            database: database.clone(),
            recorded: Recorded::open(database, Scratch::of(database, &span.base, "recorded")?, &place)?,
            replayed: Replica::open(database, fork, place == RedoPlace::Workers)?,
            place,
            fork,
            saved,
            sessions: HashSet::new(),
            record: Vec::new(),
            saved_at: Instant::now(),
        })
    }

    /// Goes through one event; says whether a call was run again.
    fn pass(&mut self, event: &Event) -> Result<bool, HostError> {
        let call = event.call.as_ref().filter(|call| is_rerun(call, event));
        match call {
            Some(call) => self.run_again(event, call)?,
            None if event.lsn.is_some() => self.take_over(event)?,
            None => {}
        }
        self.recorded.advance(event)?;
        self.saved.events += 1;
        self.saved.lsn = event.lsn.map_or(self.saved.lsn, Lsn::get);
        if self.saved.events.is_multiple_of(COMMITS_PER_PUBLISH) {
            self.replayed.tables().writer_mut().publish();
        }
        if self.saved_at.elapsed() >= SAVE_EVERY {
            self.save()?;
        }
        Ok(call.is_some())
    }

    fn run_again(&mut self, event: &Event, call: &CallRecord) -> Result<(), HostError> {
        self.saved.calls += 1;
        let recorded = self.recorded.replica.apply(&event.operations)?;
        self.recorded.replica.rollback();
        let now = self.replayed.execute_adopting(event, call, &recorded)?;
        let same = match (&now, &call.failure) {
            (Ok(changes), None) => {
                let was = (&recorded, &*self.recorded.replica.module.schema);
                same_changes(was, (changes, &*self.replayed.module.schema))?
            }
            (Err(_), Some(_)) => true,
            _ => false,
        };
        let outcome = match (&now, &call.failure) {
            _ if same => Outcome::Same,
            _ if !self.is_reproducible(event, call)? => Outcome::NotReproducible,
            (Ok(_), None) => Outcome::Different,
            (Err(_), _) => Outcome::NewlyFailing,
            (Ok(_), Some(_)) => Outcome::NewlySucceeding,
        };
        let (old, new) = (self.recorded.replica.module.clone(), self.replayed.module.clone());
        self.saved.reports.count(function_name(call), outcome, || {
            let was = match &call.failure {
                Some(code) => Did::Failed { code, message: None },
                None => Did::Changed(&recorded),
            };
            let is = match &now {
                Ok(changes) => Did::Changed(changes),
                Err(failure) => failure.into(),
            };
            example(event, call, outcome, (was, &old), (is, &new))
        });
        self.commit(event, call, &now)
    }

    /// Whether the recorded code does again what it did, so that a difference is the other code's.
    fn is_reproducible(&mut self, event: &Event, call: &CallRecord) -> Result<bool, HostError> {
        self.recorded.replica.drop_instance();
        if self.recorded.reproduces(event, call)?.0 {
            return Ok(true);
        }
        // The same code that does something else than before, although the record holds all it was given: that is a difference.
        let is_bundle = self.recorded.replica.module.compiled.is_bundle();
        Ok(!self.saved.is_other && (call.is_fresh || !is_bundle))
    }

    /// Ends the transaction of a call that ran again, recorded like the first time.
    fn commit(&mut self, event: &Event, call: &CallRecord, now: &Result<ChangeSet, Failure>) -> Result<(), HostError> {
        if now.is_err() {
            return Ok(());
        }
        if let Some(session) = &event.session
            && self.sessions.insert(call.session)
        {
            let record = Record::Session {
                number: call.session,
                caller: session.caller,
                connection: session.connection.unwrap_or(tine_types::ConnectionId::new(0)),
                jwt_payload: (&*session.jwt_payload).into(),
            };
            self.database.store.append_call(self.fork, &record.encode())?;
        }
        let parts = CallParts {
            kind: call.kind,
            function: &call.function,
            arguments: &call.arguments,
            session: call.session,
            timestamp_micros: call.timestamp_micros,
            seed: call.seed,
            module: self.replayed.module.short_hash(),
            failure: None,
            is_fresh: call.is_fresh,
        };
        parts.encode(&mut self.record);
        self.replayed.commit(&self.record, event.timestamp_micros)
    }

    /// Takes over what was written by something that does not run again.
    fn take_over(&mut self, event: &Event) -> Result<(), HostError> {
        let kind = event.call.as_ref().map(|call| call.kind);
        if is_administration(&event.operations) {
            // The schedules of a replay stay paused; and when other code runs, no publish replaces it.
            if self.saved.is_other || kind == Some(CallKind::SchedulesResumed) {
                self.saved.skipped += 1;
                return Ok(());
            }
            self.replayed.apply(&event.operations)?;
            self.replayed.commit(&[], event.timestamp_micros)?;
            self.saved.reapplied += 1;
            return self.replayed.reload();
        }
        let changes = self.recorded.replica.apply(&event.operations)?;
        self.recorded.replica.rollback();
        self.saved.reapplied += 1;
        let old = self.recorded.replica.module.schema.clone();
        for changed in &changes.tables {
            let Some(table) = old.table(changed.table) else { continue };
            let Some(target) = self.replayed.module.schema.table_named(&table.name).cloned() else { continue };
            for row in &changed.deletes {
                let row = converted(table, row, &target)?;
                let taken =
                    row.is_some_and(|row| matches!(self.replayed.tables().delete_row(target.id, &row), Ok(true)));
                self.saved.rows_refused += u64::from(!taken);
            }
            let mut generated = Vec::new();
            for row in &changed.inserts {
                let row = converted(table, row, &target)?;
                let taken =
                    row.is_some_and(|row| self.replayed.tables().insert(target.id, &row, &mut generated).is_ok());
                self.saved.rows_refused += u64::from(!taken);
            }
        }
        self.replayed.raise_sequences(&event.operations)?;
        self.record.clear();
        if let Some(call) = event.call.clone() {
            self.record = Record::Call(CallRecord { module: self.replayed.module.short_hash(), ..call }).encode();
        }
        self.replayed.commit(&self.record, event.timestamp_micros)
    }

    /// Notes in the replayed version how far the run is.
    fn save(&mut self) -> Result<(), HostError> {
        self.saved.at = self.replayed.head().get() + 1;
        let value = serde_json::to_vec(&self.saved).expect("plain data encodes");
        let put = self.replayed.tables().writer_mut().put(META, SAVED, &value);
        put.map_err(|error| HostError::Table(error.into()))?;
        let now = self.database.host.env.now_micros();
        self.replayed.commit(&[], now)?;
        self.replayed.tables().writer_mut().publish();
        self.saved_at = Instant::now();
        Ok(())
    }
}

/// A row with the columns of another table; those it does not have get their defaults. `None` when one has no default.
fn converted(table: &TableSchema, row: &[u8], target: &TableSchema) -> Result<Option<Vec<u8>>, HostError> {
    if table.row_type == target.row_type {
        return Ok(Some(row.to_vec()));
    }
    let values = columns_of(table, row)?;
    let mut converted = Vec::with_capacity(row.len());
    for (position, column) in target.columns.iter().enumerate() {
        let known = table.columns.iter().position(|known| known.name == column.name && known.ty == column.ty);
        let default = target.defaults.iter().find(|(id, _)| id.position() == position);
        match (known, default) {
            (Some(known), _) => encode_value(&values[known], &mut converted),
            (None, Some((_, default))) => converted.extend_from_slice(default),
            (None, None) => return Ok(None),
        }
    }
    Ok(Some(converted))
}
