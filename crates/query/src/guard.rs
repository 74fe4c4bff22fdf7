//! Row-level security: which rows of a table others than the owner see.
//!
//! A rule is a query of the subscription dialect that returns rows of one table. A table with rules shows a caller the rows that at
//! least one of them returns, with `:sender` being the caller; a table without rules shows all. A rule that joins shows a row for
//! which the other table has a match that the caller sees, by that table's own rules, so rules form chains; circles are refused when
//! the rules are read. In a rule, private tables can be named.
//!
//! Rules that test columns only become part of a query's own condition, with all its uses of indexes. The others are asked of every
//! row that the query would return; for a subscription, of the rows that a commit may have shown or hidden: the changed ones, and
//! those that lead, key by key, to a changed row of a table that a rule joins. The state before a commit is the state after it minus
//! the inserted rows plus the deleted ones, as in [`crate::join`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tine_tables::{ChangeSet, DatabaseSchema, TableId, TableRead, TableSchema};
use tine_types::Identity;

use crate::access::{ColumnLookup, Visit, Walk};
use crate::ast::{Projection, Select, Statement};
use crate::bind::{Bound, bind};
use crate::column::ColumnAccess;
use crate::error::{Detail, Position, QueryError};
use crate::join::Budget;
use crate::parser::parse_statement;
use crate::predicate::{ColumnSlot, Predicate};
use crate::rows::RowSink;
use crate::{Caller, Catalog};

/// Longest chain of tables whose rules lead to one another; each link costs a lookup per row.
pub const RULE_CHAIN_MAX: usize = 8;

/// The row-level security rules of a database.
#[derive(Debug, Default)]
pub struct RowRules {
    by_table: BTreeMap<TableId, Vec<Select>>,
}

impl RowRules {
    /// Everybody sees all rows of public tables.
    pub const NONE: &'static RowRules = &RowRules { by_table: BTreeMap::new() };

    /// Reads and checks the rules of a module: each with what stands before the names of its tables, which is empty for the module
    /// itself and `namespace.` for a submodule.
    ///
    /// # Errors
    /// A rule that is no query of whole rows of one table, joins on columns without an index, or leads back to its own table.
    pub fn compile<'r>(
        rules: impl IntoIterator<Item = (&'r str, &'r str)>,
        schema: &DatabaseSchema,
    ) -> Result<RowRules, QueryError> {
        let mut compiled = RowRules::default();
        for (prefix, sql) in rules {
            let Statement::Select(mut select) = parse_statement(sql)? else {
                let detail = Detail::new(format!("the rule `{sql}` is no SELECT"), Position::default());
                return Err(QueryError::Unsupported(detail));
            };
            let joined = select.joins.iter_mut().map(|join| &mut join.table);
            std::iter::once(&mut select.from).chain(joined).for_each(|table| table.qualify(prefix));
            let (bound, returned) = bind_rule(&select, Catalog::from(schema), &Identity::from_le_bytes([0; 32]))?;
            compiled.by_table.entry(bound.tables[returned].id).or_default().push(select);
        }
        for table in compiled.by_table.keys() {
            let table = schema.table(*table).expect("the rule was bound to it");
            compiled.check_chain(table, schema, 1)?;
        }
        Ok(compiled)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_table.is_empty()
    }

    /// Recursion ends at [`RULE_CHAIN_MAX`], so circles are found as chains that are too long.
    fn check_chain(&self, table: &TableSchema, schema: &DatabaseSchema, length: usize) -> Result<(), QueryError> {
        for select in self.by_table.get(&table.id).into_iter().flatten() {
            if length > RULE_CHAIN_MAX {
                return Err(QueryError::TooComplex(Detail::with_hint(
                    format!(
                        "the row-level security rules of `{}` lead back to it, or over too many tables",
                        table.name
                    ),
                    select.from.name.position,
                    format!("rules may join at most {RULE_CHAIN_MAX} tables one after the other"),
                )));
            }
            for joined in std::iter::once(&select.from).chain(select.joins.iter().map(|join| &join.table)) {
                let joined = schema.table_named(&joined.name.text).expect("the rule was bound to it");
                if joined.id != table.id {
                    self.check_chain(joined, schema, length + 1)?;
                }
            }
        }
        Ok(())
    }

    /// What the caller sees of a table; none for all of it.
    pub(crate) fn guard(
        &self,
        table: &TableSchema,
        catalog: Catalog<'_>,
        caller: &Caller,
    ) -> Result<Option<Arc<Guard>>, QueryError> {
        if caller.is_owner {
            return Ok(None);
        }
        let Some(rules) = self.by_table.get(&table.id) else { return Ok(None) };
        let mut any_of = Vec::with_capacity(rules.len());
        for select in rules {
            let (bound, returned) = bind_rule(select, catalog, &caller.identity)?;
            any_of.push(Alternative::new(bound, returned, self, catalog, caller)?);
        }
        Ok(Some(Arc::new(Guard { any_of })))
    }
}

/// Binds a rule as the owner, to whom all tables are visible; also says which table's rows it returns.
fn bind_rule(select: &Select, catalog: Catalog<'_>, sender: &Identity) -> Result<(Bound, usize), QueryError> {
    let unsupported =
        |what: &str, position| QueryError::Unsupported(Detail::new(format!("{what} in a rule"), position));
    if let Some((_, position)) = select.limit {
        return Err(unsupported("LIMIT", position));
    }
    if let Some(join) = select.joins.get(1) {
        return Err(unsupported("more than two tables", join.table.name.position));
    }
    let as_owner = Caller { identity: *sender, is_owner: true };
    let (bound, scope) = bind(select, Catalog { extra: &[], rules: RowRules::NONE, ..catalog }, &as_owner)?;
    let returned = match &select.projection {
        Projection::Star(_) if bound.tables.len() == 1 => 0,
        Projection::TableStar(name) => scope.slot(name)?,
        _ => return Err(unsupported("anything but the whole rows of one table", select.from.name.position)),
    };
    for edge in &bound.edges {
        for column in [&edge.old, &edge.new] {
            let table = &bound.tables[column.slot];
            let same = bound.tables[0].id == bound.tables[1].id;
            if same || table.is_event || ColumnLookup::find(table, column.column).is_none() {
                let name = &table.columns[column.column.position()].name;
                return Err(QueryError::UnindexedJoin(Detail::with_hint(
                    format!("`{}`.`{name}` in a rule", table.name),
                    edge.position,
                    "a rule joins two different tables of rows on columns that an index starts with",
                )));
            }
        }
    }
    Ok((bound, returned))
}

/// What one caller sees of one table.
#[derive(Debug)]
pub(crate) struct Guard {
    any_of: Vec<Alternative>,
}

#[derive(Debug)]
struct Alternative {
    /// About the row itself, in slot 0.
    filter: Predicate,
    matching: Option<Match>,
}

/// Another table has a row that goes with this one.
#[derive(Debug)]
pub(crate) struct Match {
    own: Keyed,
    other: Keyed,
    /// About both rows, or the other alone.
    filter: Predicate,
    /// What the caller sees of the other table.
    guard: Option<Arc<Guard>>,
}

/// One side of a match.
#[derive(Debug)]
struct Keyed {
    table: Arc<TableSchema>,
    slot: usize,
    key: ColumnAccess,
    find: Option<ColumnLookup>,
}

impl Keyed {
    fn new(table: &Arc<TableSchema>, column: &ColumnSlot) -> Keyed {
        let find = ColumnLookup::find(table, column.column);
        Keyed { table: table.clone(), slot: column.slot, key: column.access.clone(), find }
    }

    /// Calls `visit` with each stored row of the key.
    fn visit(&self, reader: &dyn TableRead, key: &[u8], visit: &mut Visit<'_>) -> Result<Walk, QueryError> {
        match self.find {
            Some(find) => find.visit(reader, key, visit),
            None => {
                let mut rows = reader.scan(self.table.id);
                while let Some(row) = rows.next()? {
                    if self.key.get(row) == key && visit(row)? == Walk::Stop {
                        return Ok(Walk::Stop);
                    }
                }
                Ok(Walk::On)
            }
        }
    }
}

/// A commit, arranged to see the state before it: hash tables are made once per commit and plan, so that large commits cost their size.
pub(crate) struct Undone<'a> {
    changes: &'a ChangeSet,
    inserted: HashMap<TableId, HashSet<&'a [u8]>>,
    /// By the address of the side of a match, and by its key. Sides do not move: plans are shared and immutable.
    deleted: RefCell<HashMap<usize, RowsByKey<'a>>>,
}

/// Rows by the value of one column.
type RowsByKey<'a> = HashMap<&'a [u8], Vec<&'a Bytes>>;

impl<'a> Undone<'a> {
    fn new(changes: &'a ChangeSet) -> Undone<'a> {
        let inserted = changes.tables.iter().map(|changes| {
            let rows = changes.inserts.iter().map(|row| &**row);
            (changes.table, rows.collect())
        });
        Undone { changes, inserted: inserted.collect(), deleted: RefCell::default() }
    }

    /// Whether the commit inserted the row.
    fn is_new(&self, table: TableId, row: &[u8]) -> bool {
        self.inserted.get(&table).is_some_and(|rows| rows.contains(row))
    }

    /// The rows of the key that the commit deleted.
    fn deleted(&self, keyed: &Keyed, key: &[u8]) -> Vec<&'a Bytes> {
        let Some(changes) = self.changes.table(keyed.table.id) else { return Vec::new() };
        let mut deleted = self.deleted.borrow_mut();
        let by_key = deleted.entry(std::ptr::from_ref(keyed).addr()).or_insert_with(|| {
            let mut by_key = RowsByKey::new();
            changes.deletes.iter().for_each(|row| by_key.entry(keyed.key.get(row)).or_default().push(row));
            by_key
        });
        by_key.get(key).cloned().unwrap_or_default()
    }
}

/// A state to ask: that of `reader`, or the one that `undone` led from.
#[derive(Clone, Copy)]
pub(crate) struct State<'a> {
    pub reader: &'a dyn TableRead,
    pub undone: Option<&'a Undone<'a>>,
    pub budget: &'a Budget,
}

impl State<'_> {
    fn visit(self, keyed: &Keyed, key: &[u8], visit: &mut Visit<'_>) -> Result<Walk, QueryError> {
        let walked = keyed.visit(self.reader, key, &mut |row| {
            self.budget.spend(1)?;
            let is_new = self.undone.is_some_and(|undone| undone.is_new(keyed.table.id, row));
            if is_new { Ok(Walk::On) } else { visit(row) }
        })?;
        if walked == Walk::Stop {
            return Ok(walked);
        }
        for row in self.undone.map(|undone| undone.deleted(keyed, key)).unwrap_or_default() {
            self.budget.spend(1)?;
            if visit(row)? == Walk::Stop {
                return Ok(Walk::Stop);
            }
        }
        Ok(Walk::On)
    }
}

impl Match {
    /// The join of `bound` seen from the table in slot `own`.
    pub fn new(bound: &Bound, own: usize, filter: Predicate, guard: Option<Arc<Guard>>) -> Match {
        let edge = &bound.edges[0];
        let (here, there) = if edge.old.slot == own { (&edge.old, &edge.new) } else { (&edge.new, &edge.old) };
        Match {
            own: Keyed::new(&bound.tables[here.slot], here),
            other: Keyed::new(&bound.tables[there.slot], there),
            filter,
            guard,
        }
    }

    pub fn is_met(&self, state: State<'_>, row: &[u8]) -> Result<bool, QueryError> {
        let walked = state.visit(&self.other, self.own.key.get(row), &mut |other| {
            let rows = if self.own.slot == 0 { [row, other] } else { [other, row] };
            let seen = self.filter.matches(&rows)
                && match &self.guard {
                    Some(guard) => guard.shows(state, other)?,
                    None => true,
                };
            Ok(if seen { Walk::Stop } else { Walk::On })
        })?;
        Ok(walked == Walk::Stop)
    }

    /// Calls `visit` with the stored rows of this side whose match may differ since `changes`.
    pub fn touched(&self, state: State<'_>, changes: &ChangeSet, visit: &mut Visit<'_>) -> Result<(), QueryError> {
        let mut keys: BTreeSet<Vec<u8>> = BTreeSet::new();
        if let Some(changes) = changes.table(self.other.table.id) {
            let changed = changes.inserts.iter().chain(&changes.deletes);
            keys.extend(changed.map(|row| self.other.key.get(row).to_vec()));
        }
        if let Some(guard) = &self.guard {
            guard.touched(state, changes, &mut |other| {
                keys.insert(self.other.key.get(other).to_vec());
                Ok(Walk::On)
            })?;
        }
        for key in &keys {
            self.own.visit(state.reader, key, &mut |row| {
                state.budget.spend(1)?;
                visit(row)
            })?;
        }
        Ok(())
    }

    fn tables(&self, out: &mut Vec<Arc<TableSchema>>) {
        out.push(self.other.table.clone());
        if let Some(guard) = &self.guard {
            guard.tables(out);
        }
    }

    pub fn write_key(&self, out: &mut String) {
        out.push_str(&format!(" match {}#{}.", self.other.table.name, self.other.table.id.0));
        out.push_str(&format!("{:?}={:?} ", self.other.key, self.own.key));
        self.filter.write_key(out);
        if let Some(guard) = &self.guard {
            guard.write_key(out);
        }
    }
}

impl Alternative {
    fn new(
        bound: Bound,
        returned: usize,
        rules: &RowRules,
        catalog: Catalog<'_>,
        caller: &Caller,
    ) -> Result<Alternative, QueryError> {
        if bound.edges.is_empty() {
            return Ok(Alternative { filter: bound.filter, matching: None });
        }
        let other = 1 - returned;
        let (own, joint) = bound.filter.split_off_slot(returned);
        let guard = rules.guard(&bound.tables[other], catalog, caller)?;
        let matching = Match::new(&bound, returned, joint, guard);
        Ok(Alternative { filter: own.moved_to(0), matching: Some(matching) })
    }
}

impl Guard {
    /// The guard as a condition on the row in `slot`, when it needs no other table.
    pub fn as_predicate(&self, slot: usize) -> Option<Predicate> {
        let plain = self.any_of.iter().map(|rule| match rule.matching {
            None => Some(rule.filter.clone().moved_to(slot)),
            Some(_) => None,
        });
        plain.collect::<Option<Vec<_>>>().map(Predicate::or)
    }

    /// Whether the caller sees `row` in `state`.
    pub fn shows(&self, state: State<'_>, row: &[u8]) -> Result<bool, QueryError> {
        for rule in &self.any_of {
            let shown = rule.filter.matches(&[row])
                && match &rule.matching {
                    Some(matching) => matching.is_met(state, row)?,
                    None => true,
                };
            if shown {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn touched(&self, state: State<'_>, changes: &ChangeSet, visit: &mut Visit<'_>) -> Result<(), QueryError> {
        for matching in self.any_of.iter().filter_map(|rule| rule.matching.as_ref()) {
            matching.touched(state, changes, visit)?;
        }
        Ok(())
    }

    fn tables(&self, out: &mut Vec<Arc<TableSchema>>) {
        self.any_of.iter().filter_map(|rule| rule.matching.as_ref()).for_each(|matching| matching.tables(out));
    }

    pub fn write_key(&self, out: &mut String) {
        out.push_str(" guard(");
        for rule in &self.any_of {
            rule.filter.write_key(out);
            if let Some(matching) = &rule.matching {
                matching.write_key(out);
            }
            out.push(';');
        }
        out.push(')');
    }
}

/// A query whose rows are guarded by rules that join.
#[derive(Debug)]
pub(crate) struct GuardedPlan {
    /// The table whose rows are returned, with the part of the condition that is about it alone; then the other tables read.
    pub sides: Vec<crate::plan::Side>,
    pub guard: Option<Arc<Guard>>,
    /// The query's own join.
    pub matching: Option<Match>,
    /// As [`crate::JOIN_STEPS_MAX`].
    pub steps_max: u64,
}

impl GuardedPlan {
    /// The tables that decide about rows, beside the one whose rows they are.
    pub fn tables_asked(guard: Option<&Arc<Guard>>, matching: Option<&Match>) -> Vec<Arc<TableSchema>> {
        let mut tables = Vec::new();
        if let Some(guard) = guard {
            guard.tables(&mut tables);
        }
        if let Some(matching) = matching {
            matching.tables(&mut tables);
        }
        tables.sort_by_key(|table| table.id);
        tables.dedup_by_key(|table| table.id);
        tables
    }

    fn shows(&self, state: State<'_>, row: &[u8]) -> Result<bool, QueryError> {
        let guarded = match &self.guard {
            Some(guard) => guard.shows(state, row)?,
            None => true,
        };
        match &self.matching {
            Some(matching) if guarded => matching.is_met(state, row),
            _ => Ok(guarded),
        }
    }

    /// Appends the rows of the result, each once.
    pub fn evaluate(&self, reader: &dyn TableRead, out: &mut RowSink<'_>) -> Result<(), QueryError> {
        let budget = Budget::new(self.steps_max);
        let state = State { reader, undone: None, budget: &budget };
        self.sides[0].visit(reader, &mut |row| {
            budget.spend(1)?;
            if self.shows(state, row)? {
                out.push(row)?;
            }
            Ok(Walk::On)
        })
    }

    /// Appends the rows that a commit added to the result and took from it.
    pub fn delta(
        &self,
        reader: &dyn TableRead,
        changes: &ChangeSet,
        inserts: &mut RowSink<'_>,
        deletes: &mut RowSink<'_>,
    ) -> Result<(), QueryError> {
        let budget = Budget::new(self.steps_max);
        let after = State { reader, undone: None, budget: &budget };
        let undone = Undone::new(changes);
        let before = State { undone: Some(&undone), ..after };
        let root = &self.sides[0];
        let own = changes.table(root.table.id);
        for row in own.iter().flat_map(|own| &own.inserts).filter(|row| root.accepts(row)) {
            if self.shows(after, row)? {
                inserts.push(row)?;
            }
        }
        for row in own.iter().flat_map(|own| &own.deletes).filter(|row| root.accepts(row)) {
            if self.shows(before, row)? {
                deletes.push(row)?;
            }
        }
        let mut stayed: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut note = |row: &[u8]| {
            if !undone.is_new(root.table.id, row) && root.accepts(row) {
                stayed.insert(row.to_vec());
            }
            Ok(Walk::On)
        };
        if let Some(guard) = &self.guard {
            guard.touched(after, changes, &mut note)?;
        }
        if let Some(matching) = &self.matching {
            matching.touched(after, changes, &mut note)?;
        }
        for row in &stayed {
            match (self.shows(before, row)?, self.shows(after, row)?) {
                (false, true) => inserts.push(row)?,
                (true, false) => deletes.push(row)?,
                _ => {}
            }
        }
        Ok(())
    }
}
