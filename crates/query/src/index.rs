//! The plans of all subscribers of a fork, and which of them a commit concerns.
//!
//! - Plans with equal keys are one plan: it is evaluated once per commit and its update shared.
//! - A plan with an equality filter is found through the values of the changed rows, so ten thousand
//!   plans `WHERE id = k` cost one hash lookup per changed row, and the plan that is hit looks only
//!   at the rows that hit it.
//! - A subscriber is called once per commit with all its updates; subscribers in ascending order.
//!
//! Invariants: every plan in `plans` has at least one subscriber; `watchers` lists each side of each
//! plan exactly once per value (or once in `always`); `subscribers` holds exactly the handles added
//! and not removed.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tine_tables::{ChangeSet, TableChanges, TableId, TableRead};
use tine_types::protocol::TableUpdate;

use crate::column::ColumnAccess;
use crate::error::QueryError;
use crate::plan::{PlanKey, SubscriptionPlan};
use crate::rows::{ChangedRows, Changes};

/// All live subscriptions of one fork. `S` is the host's handle of a subscriber.
#[derive(Debug)]
pub struct SubscriptionIndex<S> {
    /// By slot; freed slots are reused.
    plans: Vec<Option<PlanEntry<S>>>,
    free: Vec<u32>,
    slots: HashMap<PlanKey, u32>,
    watchers: HashMap<TableId, TableWatchers>,
    subscribers: HashMap<S, Vec<u32>>,
    evaluated: AtomicU64,
    unchanged: AtomicU64,
    pruned: AtomicU64,
}

/// Work done by [`SubscriptionIndex::affected`] since the index was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexCounters {
    /// Plans evaluated, counted once per commit whatever the number of subscribers.
    pub evaluated: u64,
    /// Of those, plans whose result did not change.
    pub unchanged: u64,
    /// Sides of plans in a changed table that were skipped because no changed row had their value.
    pub pruned: u64,
}

#[derive(Debug)]
struct PlanEntry<S> {
    plan: Arc<SubscriptionPlan>,
    /// Sorted.
    subscribers: Vec<S>,
}

/// Who cares for changes of one table.
#[derive(Debug, Default)]
struct TableWatchers {
    always: Vec<Watcher>,
    by_column: Vec<ColumnWatchers>,
}

/// Who cares for rows with given values in one column.
#[derive(Debug)]
struct ColumnWatchers {
    position: usize,
    access: ColumnAccess,
    by_value: HashMap<Vec<u8>, Vec<Watcher>>,
    /// Distinct watchers in `by_value`; one with several values counts once.
    watcher_count: u64,
}

/// One side of one plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Watcher {
    slot: u32,
    side: u8,
    /// Whether the plan has no other side.
    alone: bool,
}

/// A plan to evaluate for a commit, with the changes it has to look at per side.
struct Job<'a> {
    slot: u32,
    sides: [SideChanges<'a>; 2],
}

#[derive(Default)]
enum SideChanges<'a> {
    #[default]
    None,
    All(&'a TableChanges),
    Picked {
        inserts: Vec<&'a Bytes>,
        deletes: Vec<&'a Bytes>,
    },
}

impl SideChanges<'_> {
    fn as_changes(&self) -> Changes<'_> {
        match self {
            SideChanges::None => Changes::NONE,
            SideChanges::All(changes) => Changes::of(Some(changes)),
            SideChanges::Picked { inserts, deletes } => {
                Changes { inserts: ChangedRows::Picked(inserts), deletes: ChangedRows::Picked(deletes) }
            }
        }
    }
}

impl<S: Copy + Eq + Hash + Ord> Default for SubscriptionIndex<S> {
    fn default() -> Self {
        SubscriptionIndex::new()
    }
}

impl<S: Copy + Eq + Hash + Ord> SubscriptionIndex<S> {
    /// An index without subscribers.
    pub fn new() -> Self {
        SubscriptionIndex {
            plans: Vec::new(),
            free: Vec::new(),
            slots: HashMap::new(),
            watchers: HashMap::new(),
            subscribers: HashMap::new(),
            evaluated: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
            pruned: AtomicU64::new(0),
        }
    }

    /// Adds a subscriber with its queries; equal queries count once. Returns false, and changes
    /// nothing, when the subscriber is there already.
    pub fn add(&mut self, subscriber: S, plans: Vec<Arc<SubscriptionPlan>>) -> bool {
        if self.subscribers.contains_key(&subscriber) {
            return false;
        }
        let mut own: Vec<u32> = Vec::with_capacity(plans.len());
        for plan in plans {
            let slot = match self.slots.get(plan.key()) {
                Some(slot) => *slot,
                None => self.insert_plan(plan),
            };
            let entry = self.plans[slot as usize].as_mut().expect("slots name live plans");
            if let Err(position) = entry.subscribers.binary_search(&subscriber) {
                entry.subscribers.insert(position, subscriber);
                own.push(slot);
            }
        }
        self.subscribers.insert(subscriber, own);
        true
    }

    /// Removes a subscriber and returns its plans; none when it is not there.
    pub fn remove(&mut self, subscriber: S) -> Vec<Arc<SubscriptionPlan>> {
        let Some(slots) = self.subscribers.remove(&subscriber) else { return Vec::new() };
        let mut plans = Vec::with_capacity(slots.len());
        for slot in slots {
            let entry = self.plans[slot as usize].as_mut().expect("slots name live plans");
            let position = entry.subscribers.binary_search(&subscriber).expect("listed with its plans");
            entry.subscribers.remove(position);
            plans.push(entry.plan.clone());
            if entry.subscribers.is_empty() {
                self.remove_plan(slot);
            }
        }
        plans
    }

    /// Whether the subscriber is there.
    pub fn contains(&self, subscriber: S) -> bool {
        self.subscribers.contains_key(&subscriber)
    }

    /// The plans of a subscriber, in the order added; none when it is not there.
    pub fn plans_of(&self, subscriber: S) -> impl Iterator<Item = &Arc<SubscriptionPlan>> {
        self.subscribers.get(&subscriber).into_iter().flatten().map(|slot| &self.entry(*slot).plan)
    }

    /// Subscribers.
    pub fn subscriber_count(&self) -> usize {
        self.subscribers.len()
    }

    /// Distinct plans.
    pub fn plan_count(&self) -> usize {
        self.slots.len()
    }

    /// Tables that some plan reads.
    pub fn watched_tables(&self) -> usize {
        self.watchers.len()
    }

    /// Whether some plan reads the table.
    pub fn watches(&self, table: TableId) -> bool {
        self.watchers.contains_key(&table)
    }

    /// The subscribers with a plan that reads the table, in ascending order.
    pub fn subscribers_of(&self, table: TableId) -> Vec<S> {
        let entries = self.plans.iter().flatten().filter(|entry| entry.plan.tables_read().any(|read| read == table));
        let mut subscribers: Vec<S> = entries.flat_map(|entry| entry.subscribers.iter().copied()).collect();
        subscribers.sort_unstable();
        subscribers.dedup();
        subscribers
    }

    /// Work done so far.
    pub fn counters(&self) -> IndexCounters {
        IndexCounters {
            evaluated: self.evaluated.load(Ordering::Relaxed),
            unchanged: self.unchanged.load(Ordering::Relaxed),
            pruned: self.pruned.load(Ordering::Relaxed),
        }
    }

    /// Works out the updates of one commit: `changes` is its net difference, `after` the state it left.
    ///
    /// First `failed` is called for each subscriber one of whose plans could not be evaluated; it gets
    /// no update of this commit and is expected to be removed. Then `deliver` is called once for each
    /// subscriber whose results changed, in ascending order.
    pub fn affected(
        &self,
        changes: &ChangeSet,
        after: &dyn TableRead,
        deliver: &mut dyn FnMut(S, Vec<Arc<TableUpdate>>),
        failed: &mut dyn FnMut(S, QueryError),
    ) {
        let jobs = self.jobs(changes);
        let mut updates: Vec<(u32, Arc<TableUpdate>)> = Vec::with_capacity(jobs.len());
        let mut failures: Vec<(u32, QueryError)> = Vec::new();
        for job in &jobs {
            let [returned, lookup] = &job.sides;
            let plan = &self.entry(job.slot).plan;
            match plan.delta_of(after, changes, returned.as_changes(), lookup.as_changes()) {
                Ok(Some(update)) => updates.push((job.slot, update)),
                Ok(None) => {}
                Err(error) => failures.push((job.slot, error)),
            }
        }
        self.evaluated.fetch_add(jobs.len() as u64, Ordering::Relaxed);
        self.unchanged.fetch_add((jobs.len() - updates.len() - failures.len()) as u64, Ordering::Relaxed);
        if let ([(slot, update)], []) = (updates.as_slice(), failures.as_slice()) {
            for subscriber in &self.entry(*slot).subscribers {
                deliver(*subscriber, vec![update.clone()]);
            }
            return;
        }
        let failing = self.fail(failures, failed);
        self.deliver_grouped(&updates, &failing, deliver);
    }

    fn fail(&self, failures: Vec<(u32, QueryError)>, failed: &mut dyn FnMut(S, QueryError)) -> BTreeMap<S, QueryError> {
        let mut failing = BTreeMap::new();
        for (slot, error) in failures {
            for subscriber in &self.entry(slot).subscribers {
                failing.entry(*subscriber).or_insert_with(|| error.clone());
            }
        }
        for (subscriber, error) in &failing {
            failed(*subscriber, error.clone());
        }
        failing
    }

    fn deliver_grouped(
        &self,
        updates: &[(u32, Arc<TableUpdate>)],
        failing: &BTreeMap<S, QueryError>,
        deliver: &mut dyn FnMut(S, Vec<Arc<TableUpdate>>),
    ) {
        let count = updates.iter().map(|(slot, _)| self.entry(*slot).subscribers.len()).sum();
        let mut pairs: Vec<(S, &Arc<TableUpdate>)> = Vec::with_capacity(count);
        for (slot, update) in updates {
            pairs.extend(self.entry(*slot).subscribers.iter().map(|subscriber| (*subscriber, update)));
        }
        // Stable, so a subscriber's updates keep the order of evaluation; made of sorted runs, so cheap.
        pairs.sort_by_key(|(subscriber, _)| *subscriber);
        for group in pairs.chunk_by(|left, right| left.0 == right.0) {
            let subscriber = group[0].0;
            if !failing.contains_key(&subscriber) {
                deliver(subscriber, group.iter().map(|(_, update)| Arc::clone(update)).collect());
            }
        }
    }

    /// The plans that the changes concern, each once.
    fn jobs<'a>(&self, changes: &'a ChangeSet) -> Vec<Job<'a>> {
        let mut jobs: Vec<Job<'a>> = Vec::new();
        let mut places: HashMap<u32, usize> = HashMap::new();
        for table in &changes.tables {
            let Some(watchers) = self.watchers.get(&table.table) else { continue };
            for watcher in &watchers.always {
                if watcher.alone {
                    // Met once per commit, so it needs no entry in `places`: the hot path.
                    let sides = [SideChanges::All(table), SideChanges::None];
                    jobs.push(Job { slot: watcher.slot, sides });
                    continue;
                }
                let job = self.job(*watcher, &mut jobs, &mut places);
                job.sides[usize::from(watcher.side)] = SideChanges::All(table);
            }
            for column in &watchers.by_column {
                self.pick(column, table, &mut jobs, &mut places);
            }
        }
        jobs
    }

    /// Hands the changed rows to the plans that watch for their values.
    fn pick<'a>(
        &self,
        column: &ColumnWatchers,
        table: &'a TableChanges,
        jobs: &mut Vec<Job<'a>>,
        places: &mut HashMap<u32, usize>,
    ) {
        let mut picked = 0;
        let inserts = table.inserts.iter().map(|row| (row, true));
        let deletes = table.deletes.iter().map(|row| (row, false));
        for (row, inserted) in inserts.chain(deletes) {
            let Some(watchers) = column.by_value.get(column.access.get(row)) else { continue };
            for watcher in watchers {
                let side = &mut self.job(*watcher, jobs, places).sides[usize::from(watcher.side)];
                if let SideChanges::None = side {
                    picked += 1;
                    *side = SideChanges::Picked { inserts: Vec::new(), deletes: Vec::new() };
                }
                let SideChanges::Picked { inserts, deletes } = side else {
                    unreachable!("a side is watched either always or by value");
                };
                if inserted { inserts.push(row) } else { deletes.push(row) }
            }
        }
        self.pruned.fetch_add(column.watcher_count - picked, Ordering::Relaxed);
    }

    fn job<'j, 'a>(
        &self,
        watcher: Watcher,
        jobs: &'j mut Vec<Job<'a>>,
        places: &mut HashMap<u32, usize>,
    ) -> &'j mut Job<'a> {
        let next = jobs.len();
        let place = *places.entry(watcher.slot).or_insert(next);
        if place == next {
            jobs.push(Job { slot: watcher.slot, sides: Default::default() });
        }
        &mut jobs[place]
    }

    fn entry(&self, slot: u32) -> &PlanEntry<S> {
        self.plans[slot as usize].as_ref().expect("slots name live plans")
    }

    fn insert_plan(&mut self, plan: Arc<SubscriptionPlan>) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.plans.push(None);
            u32::try_from(self.plans.len() - 1).expect("fewer plans than bytes of memory per plan allow")
        });
        for (watcher, side) in watchers_of(&plan, slot) {
            let table = self.watchers.entry(side.table.id).or_default();
            let Some(prune) = &side.prune else {
                table.always.push(watcher);
                continue;
            };
            let place = table.by_column.iter().position(|column| column.position == prune.position);
            let place = place.unwrap_or_else(|| {
                let (position, access) = (prune.position, prune.access.clone());
                table.by_column.push(ColumnWatchers { position, access, by_value: HashMap::new(), watcher_count: 0 });
                table.by_column.len() - 1
            });
            table.by_column[place].watcher_count += 1;
            for value in &prune.values {
                table.by_column[place].by_value.entry(value.clone()).or_default().push(watcher);
            }
        }
        self.slots.insert(plan.key().clone(), slot);
        self.plans[slot as usize] = Some(PlanEntry { plan, subscribers: Vec::new() });
        slot
    }

    fn remove_plan(&mut self, slot: u32) {
        let entry = self.plans[slot as usize].take().expect("slots name live plans");
        self.slots.remove(entry.plan.key());
        self.free.push(slot);
        for (watcher, side) in watchers_of(&entry.plan, slot) {
            let Some(table) = self.watchers.get_mut(&side.table.id) else { continue };
            match &side.prune {
                None => table.always.retain(|other| *other != watcher),
                Some(prune) => {
                    table.by_column.retain_mut(|column| {
                        if column.position == prune.position {
                            column.forget(watcher, &prune.values);
                        }
                        !column.by_value.is_empty()
                    });
                }
            }
            if table.always.is_empty() && table.by_column.is_empty() {
                self.watchers.remove(&side.table.id);
            }
        }
    }
}

impl ColumnWatchers {
    fn forget(&mut self, watcher: Watcher, values: &[Vec<u8>]) {
        self.watcher_count -= 1;
        for value in values {
            let Some(watchers) = self.by_value.get_mut(value) else { continue };
            watchers.retain(|other| *other != watcher);
            if watchers.is_empty() {
                self.by_value.remove(value);
            }
        }
    }
}

fn watchers_of(plan: &SubscriptionPlan, slot: u32) -> impl Iterator<Item = (Watcher, &crate::plan::Side)> {
    let (alone, guarded) = (plan.sides().count() == 1, plan.is_guarded());
    plan.sides().zip(0..).map(move |(side, number)| {
        // A guarded plan looks at the whole commit: all that matters is that it is called, once.
        let side_number = if guarded { 0 } else { number };
        (Watcher { slot, side: side_number, alone }, side)
    })
}
