//! Schedules: rows of schedule tables that start a reducer or procedure at their time.
//!
//! One thread sleeps until the next entry is due and puts it on its fork's lane; it never waits for a run, so a slow one delays no
//! other. Entries are hints: whether the row still exists is checked on the lane, so a deleted row needs no cancelling. Semantics as in
//! the peer: a one-shot row goes after its reducer ran and before its procedure starts; interval rows stay and missed ticks are skipped.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::Weak;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tine_base::Env;
use tine_tables::{ChangeSet, TableId, TableRead, TableSchema, TableWriter};
use tine_types::bsatn::{self, BsatnWrite, Reader};
use tine_types::{AlgebraicType, AlgebraicValue};

use crate::client::Requester;
use crate::fork::Fork;
use crate::jobs::Job;
use crate::procedures::ProcedureReply;
use crate::record::{CallKind, CallParts};
use crate::worker::{ForkWorker, Invocation};
use crate::{CallFailure, HostError};

/// The longest sleep: a wall clock that jumps is noticed this soon.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// One run of one row.
#[derive(Clone)]
pub(crate) struct ScheduledEntry {
    pub fork: Weak<Fork>,
    pub table: TableId,
    pub row: Bytes,
    pub intended_micros: i64,
    pub interval_micros: Option<i64>,
    /// The fork's activation that armed it: entries of an earlier module are stale.
    pub activation: u64,
}

struct Timed {
    due_micros: i64,
    number: u64,
    entry: ScheduledEntry,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        (self.due_micros, self.number) == (other.due_micros, other.number)
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due_micros, self.number).cmp(&(other.due_micros, other.number))
    }
}

/// The queue is bounded by the rows of schedule tables: each has at most one entry per activation.
#[derive(Default)]
struct State {
    queue: BinaryHeap<Reverse<Timed>>,
    armed: u64,
    stopping: bool,
}

/// See the module documentation.
pub(crate) struct Scheduler {
    state: Arc<(Mutex<State>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Scheduler {
    pub fn start(env: &Arc<dyn Env>) -> Result<Self, HostError> {
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let (shared, clock) = (state.clone(), env.clone());
        let thread = env
            .spawn("tine-scheduler", Box::new(move || serve(&shared, &*clock)))
            .map_err(|source| HostError::Io { action: "starting the scheduler thread".to_owned(), source })?;
        Ok(Scheduler { state, thread: Mutex::new(Some(thread)) })
    }

    pub fn arm(&self, entry: ScheduledEntry) {
        let (state, changed) = &*self.state;
        let mut state = state.lock();
        state.armed += 1;
        let timed = Timed { due_micros: entry.intended_micros, number: state.armed, entry };
        let is_next = state.queue.peek().is_none_or(|Reverse(next)| timed < *next);
        state.queue.push(Reverse(timed));
        if is_next {
            changed.notify_one();
        }
    }

    pub fn stop(&self) {
        let (state, changed) = &*self.state;
        state.lock().stopping = true;
        changed.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            // A panic was already reported by the thread's own hook.
            let _ = thread.join();
        }
    }
}

fn serve(shared: &(Mutex<State>, Condvar), env: &dyn Env) {
    let (state, changed) = shared;
    let mut state = state.lock();
    while !state.stopping {
        let now = env.now_micros();
        let Some(Reverse(next)) = state.queue.peek() else {
            changed.wait_for(&mut state, SLEEP_MAX);
            continue;
        };
        if next.due_micros > now {
            let wait = Duration::from_micros(next.due_micros.abs_diff(now)).min(SLEEP_MAX);
            changed.wait_for(&mut state, wait);
            continue;
        }
        let Some(Reverse(timed)) = state.queue.pop() else { continue };
        parking_lot::MutexGuard::unlocked(&mut state, || {
            if let Some(fork) = timed.entry.fork.upgrade() {
                fork.run_scheduled(timed.entry);
            }
        });
    }
}

impl Fork {
    fn run_scheduled(&self, entry: ScheduledEntry) {
        let late = self.host.env.now_micros().saturating_sub(entry.intended_micros);
        let refused = self.lane().submit(Job::Scheduled { entry });
        match refused {
            Ok(()) => self.host.metrics.scheduled_late_ns.add(late.unsigned_abs().saturating_mul(1_000)),
            // A full lane is asked again a little later; a closed one has no schedules any more.
            Err(tine_lanes::SubmitError::Full(Job::Scheduled { mut entry })) => {
                entry.intended_micros = self.host.env.now_micros() + 10_000;
                self.host.scheduler.arm(entry);
            }
            Err(_) => {}
        }
    }

    /// Arms the entries that a commit's inserted rows ask for.
    pub(crate) fn arm_schedules(self: &Arc<Self>, changes: &ChangeSet, tables: &TableWriter) {
        for change in &changes.tables {
            let Some(table) = tables.schema().table(change.table) else { continue };
            if table.schedule.is_some() && self.schedules_run() {
                for row in &change.inserts {
                    self.arm_row(table, row.clone());
                }
            }
        }
    }

    /// Arms every row of every schedule table: on start, and after a publish. The ticks an interval missed meanwhile are skipped.
    pub(crate) fn arm_all_schedules(self: &Arc<Self>, tables: &impl TableRead) -> Result<(), HostError> {
        let schema = tables.schema().clone();
        for table in schema.tables().iter().filter(|table| table.schedule.is_some()) {
            let mut rows = tables.scan(table.id);
            while let Some(row) = rows.next()? {
                self.arm_row(table, Bytes::copy_from_slice(row));
            }
        }
        Ok(())
    }

    fn arm_row(self: &Arc<Self>, table: &TableSchema, row: Bytes) {
        let Some(when) = schedule_at(table, &row) else { return };
        let now = self.host.env.now_micros();
        let (intended_micros, interval_micros) = match when {
            When::At(time) => (time, None),
            When::Every(interval) => (now.saturating_add(interval), Some(interval)),
        };
        self.host.scheduler.arm(ScheduledEntry {
            fork: Arc::downgrade(self),
            table: table.id,
            row,
            intended_micros,
            interval_micros,
            activation: self.activation(),
        });
    }
}

enum When {
    At(i64),
    Every(i64),
}

fn schedule_at(table: &TableSchema, row: &[u8]) -> Option<When> {
    let column = table.schedule.as_ref()?.at_column.get();
    let ty = AlgebraicType::Product(table.row_type.clone());
    let AlgebraicValue::Product(columns) = bsatn::decode_value(&ty, &mut Reader::new(row)).ok()? else { return None };
    let AlgebraicValue::Sum { tag, value } = columns.into_iter().nth(usize::from(column))? else { return None };
    let AlgebraicValue::Product(micros) = *value else { return None };
    let Some(AlgebraicValue::I64(micros)) = micros.first() else { return None };
    // An interval of nothing would run for ever at once; the peer's smallest step is a millisecond.
    Some(if tag == 0 { When::Every((*micros).max(1_000)) } else { When::At(*micros) })
}

impl ForkWorker {
    /// Runs one due entry, if its row is still there.
    pub fn run_scheduled(&mut self, entry: ScheduledEntry) {
        let module = self.module.clone();
        let Some(table) = module.schema.table(entry.table) else { return };
        let Some(schedule) = &table.schedule else { return };
        let present = self.tables().contains_row(entry.table, &entry.row).unwrap_or(false);
        if entry.activation != self.fork.activation() || !self.fork.schedules_run() || !present {
            return;
        }
        self.fork.host.metrics.scheduled_runs.add(1);
        let requester = Requester { identity: self.fork.database_identity, jwt_payload: None };
        if let Some(function) = module.procedures.get(&*schedule.function) {
            if entry.interval_micros.is_none() && self.remove_row(&entry).is_err() {
                return;
            }
            let cancellation = Arc::default();
            let row = entry.row.clone();
            self.start_procedure(function.clone(), requester, None, row, cancellation, ProcedureReply::Nobody);
        } else if let Some(function) = module.reducers.get(&*schedule.function) {
            let executed = self.execute(
                function,
                &Invocation {
                    kind: CallKind::Scheduled,
                    sender: requester.identity,
                    connection: None,
                    jwt_payload: None,
                    session: 0,
                    arguments: &entry.row,
                    not_before_micros: entry.intended_micros,
                },
            );
            if let Ok(committed) = executed.result {
                self.announce(committed.commit.as_ref(), None);
            }
            if entry.interval_micros.is_none() {
                // A row that could not be removed runs again after the next start; the store's failure was reported.
                let _ = self.remove_row(&entry);
            }
        }
        self.arm_next(entry);
    }

    fn arm_next(&self, mut entry: ScheduledEntry) {
        let Some(interval) = entry.interval_micros else { return };
        let now = self.fork.host.env.now_micros();
        let missed = now.saturating_sub(entry.intended_micros).max(0) / interval;
        entry.intended_micros = entry.intended_micros.saturating_add(interval.saturating_mul(missed + 1));
        self.fork.host.scheduler.arm(entry);
    }

    /// Deletes a one-shot row in a transaction of its own; the reducer may have deleted it already.
    fn remove_row(&mut self, entry: &ScheduledEntry) -> Result<(), CallFailure> {
        let deleted = self.tables_mut().delete_row(entry.table, &entry.row);
        if let Err(error) = deleted {
            self.tables_mut().rollback();
            return Err(crate::worker::table_failure(&error));
        }
        let timestamp_micros = self.next_timestamp(i64::MIN);
        let mut arguments = Vec::new();
        arguments.put_u32(entry.table.get());
        let committed = self.commit_call(&CallParts {
            kind: CallKind::ScheduleDone,
            function: "",
            arguments: &arguments,
            session: 0,
            timestamp_micros,
            seed: 0,
            module: self.module.short_hash(),
            failure: None,
            is_fresh: true,
        })?;
        self.announce(committed.as_ref(), None);
        Ok(())
    }
}
