//! Joins that return the rows of one table: a row is in the result when at least one row of the
//! other (the *lookup* table) has the same key and the condition holds. How many match is no matter.
//!
//! The difference made by a transaction is found from three groups of returned rows, with the state
//! *before* reconstructed as the state after, minus inserted rows, plus deleted rows:
//!
//! - inserted rows: new in the result if they have a match after;
//! - deleted rows: gone from the result if they had a match before;
//! - rows that stayed, under a key that changed in the lookup table: they come or go when having a
//!   match before differs from having one after. When no condition spans both tables the match
//!   depends on the key alone, so it is decided once per key, and the rows under a key are read only
//!   if it differs: one more member of a room costs nothing per message in the room.

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, HashMap, HashSet};

use tine_tables::TableRead;

use crate::access::{AccessPath, ColumnLookup, Walk};
use crate::column::ColumnAccess;
use crate::error::QueryError;
use crate::plan::Side;
use crate::predicate::Predicate;
use crate::rows::{Changes, RESULT_BYTES_MAX, RowSink};

/// Most rows a join may look at in one evaluation or one commit's difference. A condition over both
/// tables can make it look at every pair; this ends that after about a second, since the fork's
/// other requests wait.
pub const JOIN_STEPS_MAX: u64 = 1 << 24;

/// What is left of the steps allowed.
pub(crate) struct Budget {
    left: Cell<u64>,
    max: u64,
}

impl Budget {
    pub fn new(max: u64) -> Budget {
        Budget { left: Cell::new(max), max }
    }

    pub fn spend(&self, steps: u64) -> Result<(), QueryError> {
        match self.left.get().checked_sub(steps) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(QueryError::LimitExceeded { what: "rows looked at by a join", max: self.max }),
        }
    }
}

/// A join of two tables whose result is rows of one of them.
#[derive(Debug)]
pub(crate) struct JoinPlan {
    pub returned: Side,
    pub lookup: Side,
    pub returned_key: ColumnAccess,
    pub lookup_key: ColumnAccess,
    /// Finds returned rows by key. None only for one-off queries and event tables.
    pub find_returned: Option<ColumnLookup>,
    /// Finds lookup rows by key. None only for one-off queries.
    pub find_lookup: Option<ColumnLookup>,
    /// The part of the condition that mentions both tables.
    pub cross: Predicate,
    /// [`JOIN_STEPS_MAX`], but for tests of the bound.
    pub steps_max: u64,
}

/// What happened in the lookup table under one key; only rows that pass the lookup side's filter.
#[derive(Default)]
struct KeyChange<'a> {
    /// Sorted.
    inserted: Vec<&'a [u8]>,
    deleted: Vec<&'a [u8]>,
}

/// Lookup rows by key.
type Groups = BTreeMap<Vec<u8>, Vec<Box<[u8]>>>;

/// Whether a key has a match, worked out when first asked. Used when no condition spans both tables.
#[derive(Default)]
struct KeyMatch {
    before: OnceCell<bool>,
    after: OnceCell<bool>,
}

impl JoinPlan {
    /// Appends the rows of the result, each once.
    pub fn evaluate(&self, reader: &dyn TableRead, out: &mut RowSink<'_>) -> Result<(), QueryError> {
        let nothing = |side: &Side| side.access == AccessPath::Nothing;
        if nothing(&self.returned) || nothing(&self.lookup) {
            return Ok(());
        }
        let budget = Budget::new(self.steps_max);
        let returned_cost = expected_rows(&self.returned, reader);
        let lookup_cost = expected_rows(&self.lookup, reader);
        match (self.find_returned, self.find_lookup) {
            (Some(find), None) => self.evaluate_from_lookup(reader, find, &budget, out),
            (Some(find), Some(_)) if lookup_cost < returned_cost => {
                self.evaluate_from_lookup(reader, find, &budget, out)
            }
            (_, Some(find)) => self.evaluate_from_returned(reader, find, &budget, out),
            (None, None) => self.evaluate_unindexed(reader, &budget, out),
        }
    }

    fn evaluate_from_returned(
        &self,
        reader: &dyn TableRead,
        find: ColumnLookup,
        budget: &Budget,
        out: &mut RowSink<'_>,
    ) -> Result<(), QueryError> {
        self.returned.visit(reader, &mut |row| {
            let key = self.returned_key.get(row);
            budget.spend(1)?;
            if self.find_match(reader, find, budget, row, key, &[])? {
                out.push(row)?;
            }
            Ok(Walk::On)
        })
    }

    fn evaluate_from_lookup(
        &self,
        reader: &dyn TableRead,
        find: ColumnLookup,
        budget: &Budget,
        out: &mut RowSink<'_>,
    ) -> Result<(), QueryError> {
        let groups = self.lookup_groups(reader, budget)?;
        for (key, group) in &groups {
            find.visit(reader, key, &mut |row| {
                budget.spend(1)?;
                if self.returned.accepts(row) && self.group_matches(row, group, budget)? {
                    out.push(row)?;
                }
                Ok(Walk::On)
            })?;
        }
        Ok(())
    }

    fn evaluate_unindexed(
        &self,
        reader: &dyn TableRead,
        budget: &Budget,
        out: &mut RowSink<'_>,
    ) -> Result<(), QueryError> {
        let groups = self.lookup_groups(reader, budget)?;
        self.returned.visit(reader, &mut |row| {
            budget.spend(1)?;
            if let Some(group) = groups.get(self.returned_key.get(row))
                && self.group_matches(row, group, budget)?
            {
                out.push(row)?;
            }
            Ok(Walk::On)
        })
    }

    /// The accepted lookup rows by key; the rows themselves only when the condition needs them.
    fn lookup_groups(&self, reader: &dyn TableRead, budget: &Budget) -> Result<Groups, QueryError> {
        let mut groups = Groups::new();
        let mut bytes = 0;
        self.lookup.visit(reader, &mut |row| {
            budget.spend(1)?;
            let key = self.lookup_key.get(row);
            if !groups.contains_key(key) {
                groups.insert(key.to_vec(), Vec::new());
            }
            if !self.cross.is_true() {
                bytes += row.len();
                if bytes > RESULT_BYTES_MAX {
                    return Err(QueryError::LimitExceeded { what: "bytes of rows", max: RESULT_BYTES_MAX as u64 });
                }
                groups.get_mut(key).expect("inserted above").push(row.into());
            }
            Ok(Walk::On)
        })?;
        Ok(groups)
    }

    fn group_matches(&self, row: &[u8], group: &[Box<[u8]>], budget: &Budget) -> Result<bool, QueryError> {
        budget.spend(group.len() as u64)?;
        Ok(self.cross.is_true() || group.iter().any(|lookup| self.crosses(row, lookup)))
    }

    /// Appends what came into the result and what left it.
    pub fn delta(
        &self,
        after: &dyn TableRead,
        returned: Changes<'_>,
        lookup: Changes<'_>,
        inserts: &mut RowSink<'_>,
        deletes: &mut RowSink<'_>,
    ) -> Result<(), QueryError> {
        let find = self.find_lookup.expect("joins that are subscribed to are indexed");
        let touched = self.touched_keys(lookup);
        let mut matches = HashMap::new();
        if self.cross.is_true() {
            let changed = returned.inserts.iter().chain(returned.deletes.iter());
            let keys = changed.filter(|row| self.returned.accepts(row)).map(|row| self.returned_key.get(row));
            matches.extend(keys.chain(touched.keys().copied()).map(|key| (key, KeyMatch::default())));
        }
        let inserted = match touched.is_empty() {
            true => HashSet::new(),
            false => returned.inserts.iter().map(|row| &**row).collect(),
        };
        let budget = Budget::new(self.steps_max);
        Delta { plan: self, after, find, budget, touched, matches, inserted }.run(returned, inserts, deletes)
    }

    fn touched_keys<'a>(&self, lookup: Changes<'a>) -> BTreeMap<&'a [u8], KeyChange<'a>> {
        let mut touched: BTreeMap<&[u8], KeyChange<'_>> = BTreeMap::new();
        for row in lookup.inserts.iter().filter(|row| self.lookup.accepts(row)) {
            touched.entry(self.lookup_key.get(row)).or_default().inserted.push(row);
        }
        for row in lookup.deletes.iter().filter(|row| self.lookup.accepts(row)) {
            touched.entry(self.lookup_key.get(row)).or_default().deleted.push(row);
        }
        for change in touched.values_mut() {
            change.inserted.sort_unstable();
        }
        touched
    }

    /// Whether `row` matches a stored lookup row under `key` other than those in `except` (sorted).
    fn find_match(
        &self,
        reader: &dyn TableRead,
        find: ColumnLookup,
        budget: &Budget,
        row: &[u8],
        key: &[u8],
        except: &[&[u8]],
    ) -> Result<bool, QueryError> {
        let found = find.visit(reader, key, &mut |lookup| {
            budget.spend(1)?;
            let hit =
                self.lookup.accepts(lookup) && self.crosses(row, lookup) && except.binary_search(&lookup).is_err();
            Ok(if hit { Walk::Stop } else { Walk::On })
        })?;
        Ok(found == Walk::Stop)
    }

    fn crosses(&self, returned: &[u8], lookup: &[u8]) -> bool {
        match self.returned.slot {
            _ if self.cross.is_true() => true,
            0 => self.cross.matches(&[returned, lookup]),
            _ => self.cross.matches(&[lookup, returned]),
        }
    }
}

/// One transaction's difference in the making.
struct Delta<'a> {
    plan: &'a JoinPlan,
    after: &'a dyn TableRead,
    find: ColumnLookup,
    budget: Budget,
    /// Keys under which the lookup table changed.
    touched: BTreeMap<&'a [u8], KeyChange<'a>>,
    /// Answers for every key in question when the key alone decides, else empty.
    matches: HashMap<&'a [u8], KeyMatch>,
    /// Returned rows that were not there before; filled only when keys were touched.
    inserted: HashSet<&'a [u8]>,
}

impl<'a> Delta<'a> {
    fn run(
        self,
        returned: Changes<'_>,
        inserts: &mut RowSink<'_>,
        deletes: &mut RowSink<'_>,
    ) -> Result<(), QueryError> {
        let plan = self.plan;
        for row in returned.inserts.iter().filter(|row| plan.returned.accepts(row)) {
            if self.matches(row, plan.returned_key.get(row), Moment::After)? {
                inserts.push(row)?;
            }
        }
        for row in returned.deletes.iter().filter(|row| plan.returned.accepts(row)) {
            if self.matches(row, plan.returned_key.get(row), Moment::Before)? {
                deletes.push(row)?;
            }
        }
        let Some(find_returned) = plan.find_returned.filter(|_| !plan.returned.table.is_event) else { return Ok(()) };
        for key in self.touched.keys().copied() {
            if plan.cross.is_true() {
                let before = self.matches(&[], key, Moment::Before)?;
                let after = self.matches(&[], key, Moment::After)?;
                if before == after {
                    continue;
                }
            }
            find_returned.visit(self.after, key, &mut |row| {
                self.budget.spend(1)?;
                if !plan.returned.accepts(row) || self.inserted.contains(row) {
                    return Ok(Walk::On);
                }
                match (self.matches(row, key, Moment::Before)?, self.matches(row, key, Moment::After)?) {
                    (false, true) => inserts.push(row)?,
                    (true, false) => deletes.push(row)?,
                    _ => {}
                }
                Ok(Walk::On)
            })?;
        }
        Ok(())
    }

    /// Whether a returned row with this key matched at the given moment.
    fn matches(&self, row: &[u8], key: &[u8], moment: Moment) -> Result<bool, QueryError> {
        let cell = self.matches.get(key).map(|known| match moment {
            Moment::Before => &known.before,
            Moment::After => &known.after,
        });
        if let Some(answer) = cell.and_then(OnceCell::get) {
            return Ok(*answer);
        }
        let answer = self.search(row, key, moment)?;
        if let Some(cell) = cell {
            cell.get_or_init(|| answer);
        }
        Ok(answer)
    }

    fn search(&self, row: &[u8], key: &[u8], moment: Moment) -> Result<bool, QueryError> {
        let crosses = |lookup: &&[u8]| self.plan.crosses(row, lookup);
        let change = self.touched.get(key);
        let changed = change.map_or(0, |change| change.inserted.len() + change.deleted.len());
        self.budget.spend(changed as u64)?;
        let (shortcut, except) = match (change, moment) {
            (None, _) => (false, [].as_slice()),
            (Some(change), Moment::After) => (change.inserted.iter().any(&crosses), [].as_slice()),
            (Some(change), Moment::Before) => (change.deleted.iter().any(crosses), &*change.inserted),
        };
        Ok(shortcut || self.plan.find_match(self.after, self.find, &self.budget, row, key, except)?)
    }
}

/// The state a question is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

/// A rough count of the rows on the access path of a side, to decide which side drives.
fn expected_rows(side: &Side, reader: &dyn TableRead) -> u64 {
    let rows = reader.row_count(side.table.id);
    match &side.access {
        AccessPath::Nothing => 0,
        AccessPath::Points { keys, unique: true, .. } => keys.len() as u64,
        AccessPath::Points { keys, .. } => rows.min(keys.len() as u64 * 16),
        AccessPath::Range { .. } => rows / 4,
        AccessPath::Scan(_) => rows,
    }
}
