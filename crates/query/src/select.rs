//! HTTP queries: column lists with aliases, `COUNT(*)`, joins of many tables, `LIMIT`.
//!
//! Inner joins commute, so execution starts at the table whose condition is most selective and
//! follows the join conditions from there, each time through an index if there is one, else through
//! a hash table made once. Every part of the condition is evaluated as soon as its tables are there.
//! Unlike a subscription's, the result is a bag: a row appears once per combination that matches.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tine_tables::TableRead;
use tine_types::{AlgebraicType, ProductType, ProductTypeElement};

use crate::access::{AccessPath, ColumnLookup, Walk};
use crate::ast::{ColumnItem, Name, Projection, Select, Statement};
use crate::bind::{Bound, Scope, bind};
use crate::column::ColumnAccess;
use crate::error::QueryError;
use crate::guard::{Guard, State};
use crate::join::Budget;
use crate::parser::{TABLES_MAX, parse_statement};
use crate::predicate::{ColumnSlot, Predicate};
use crate::rows::RESULT_BYTES_MAX;
use crate::{Caller, Catalog};

/// What one HTTP query may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectLimits {
    /// Most rows returned.
    pub rows_max: u64,
    /// Most rows looked at.
    pub scanned_max: u64,
    /// Most bytes of rows returned, and of rows kept for a join without an index.
    pub bytes_max: usize,
}

impl Default for SelectLimits {
    /// Generous: a million rows returned, a hundred million looked at, [`RESULT_BYTES_MAX`].
    fn default() -> Self {
        SelectLimits { rows_max: 1_000_000, scanned_max: 100_000_000, bytes_max: RESULT_BYTES_MAX }
    }
}

/// The result of an HTTP query.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectResult {
    /// Names and types of the columns.
    pub columns: ProductType,
    /// The rows, each the BSATN of a product of type `columns`.
    pub rows: Vec<Bytes>,
    /// Rows looked at.
    pub scanned: u64,
}

/// Runs a `SELECT` of the HTTP dialect.
///
/// # Errors
/// Everything that is wrong with the text, [`QueryError::NotSupportedYet`] for other statements,
/// [`QueryError::LimitExceeded`] and trouble in the tables.
pub fn select<'a>(
    sql: &str,
    catalog: impl Into<Catalog<'a>>,
    caller: &Caller,
    reader: &dyn TableRead,
    limits: SelectLimits,
) -> Result<SelectResult, QueryError> {
    match parse_statement(sql)? {
        Statement::Select(select) => run_select(&select, catalog.into(), caller, reader, limits),
        Statement::SelectAllTables => {
            Err(QueryError::NotSupportedYet { what: "SELECT * FROM * outside subscriptions" })
        }
        Statement::Insert(_) => Err(QueryError::NotSupportedYet { what: "INSERT in a read" }),
        Statement::Update(_) => Err(QueryError::NotSupportedYet { what: "UPDATE in a read" }),
        Statement::Delete(_) => Err(QueryError::NotSupportedYet { what: "DELETE in a read" }),
        Statement::Set { .. } => Err(QueryError::NotSupportedYet { what: "SET in a read" }),
        Statement::Show { .. } => Err(QueryError::NotSupportedYet { what: "SHOW in a read" }),
    }
}

fn run_select(
    select: &Select,
    catalog: Catalog<'_>,
    caller: &Caller,
    reader: &dyn TableRead,
    limits: SelectLimits,
) -> Result<SelectResult, QueryError> {
    let (bound, scope) = bind(select, catalog, caller)?;
    let (columns, output) = project(&select.projection, &bound, &scope)?;
    let limit = select.limit.map_or(u64::MAX, |(limit, _)| limit);
    let budget = Budget::new(limits.scanned_max);
    let mut run =
        Run { reader, output, limits, limit, budget: &budget, scanned: 0, bytes: 0, rows: Vec::new(), count: 0 };
    let whole = bound.tables.len() == 1 && bound.filter.is_true() && bound.guards[0].is_none();
    let whole_count = matches!(run.output, Output::Count) && whole;
    if whole_count {
        run.count = reader.row_count(bound.tables[0].id);
    } else if limit > 0 {
        let levels = arrange(&bound, &mut run)?;
        run.level(&levels, &[&[]; TABLES_MAX])?;
    }
    if matches!(run.output, Output::Count) && limit > 0 {
        run.rows.push(Bytes::copy_from_slice(&run.count.to_le_bytes()));
    }
    Ok(SelectResult { columns, rows: run.rows, scanned: run.scanned })
}

/// How a result row is made of one row per table.
enum Output {
    /// Whole rows of these slots, one after the other.
    Rows(Vec<usize>),
    Columns(Vec<ColumnSlot>),
    Count,
}

fn project(projection: &Projection, bound: &Bound, scope: &Scope<'_>) -> Result<(ProductType, Output), QueryError> {
    let of_slots = |slots: Vec<usize>| {
        let elements = slots.iter().flat_map(|slot| bound.tables[*slot].row_type.elements.iter().cloned());
        (ProductType { elements: elements.collect() }, Output::Rows(slots))
    };
    match projection {
        Projection::Star(_) => Ok(of_slots((0..bound.tables.len()).collect())),
        Projection::TableStar(name) => Ok(of_slots(vec![scope.slot(name)?])),
        Projection::Count { alias, .. } => {
            let name = alias.as_ref().map_or("count", |alias| &alias.text);
            Ok((ProductType { elements: [element(name, AlgebraicType::U64)].into() }, Output::Count))
        }
        Projection::Columns(items) => {
            let mut elements = Vec::with_capacity(items.len());
            let mut columns = Vec::with_capacity(items.len());
            for ColumnItem { column, alias } in items {
                let (slot, schema) = scope.column(column)?;
                let name = alias.as_ref().map_or(&*schema.name, |Name { text, .. }| text);
                elements.push(element(name, schema.ty.clone()));
                let access = ColumnAccess::new(&bound.tables[slot], schema.position);
                columns.push(ColumnSlot { slot, column: schema.position, access });
            }
            Ok((ProductType { elements: elements.into() }, Output::Columns(columns)))
        }
    }
}

fn element(name: &str, ty: AlgebraicType) -> ProductTypeElement {
    ProductTypeElement { name: Some(name.into()), ty }
}

/// One table in the order of execution.
struct Level {
    slot: usize,
    source: Source,
    /// The parts of the condition that this table completes.
    filter: Predicate,
    /// What the caller sees of the table, when other tables decide about it.
    guard: Option<Arc<Guard>>,
}

/// Rows of one table by the value of one column.
type HashedRows = HashMap<Vec<u8>, Vec<Box<[u8]>>>;

/// Where the rows of a level come from.
enum Source {
    /// The first table.
    Path(AccessPath),
    /// An index, by the value of an earlier table's column.
    Lookup { find: ColumnLookup, from: ColumnSlot },
    /// A hash table, by the value of an earlier table's column.
    Hash { rows: HashedRows, from: ColumnSlot },
}

/// Puts the tables in order and decides how each is read.
fn arrange(bound: &Bound, run: &mut Run<'_>) -> Result<Vec<Level>, QueryError> {
    let paths: Vec<AccessPath> =
        bound.tables.iter().enumerate().map(|(slot, table)| AccessPath::choose(table, slot, &bound.filter)).collect();
    let first = (0..bound.tables.len())
        .max_by_key(|slot| {
            let rows = run.reader.row_count(bound.tables[*slot].id);
            (paths[*slot].rank(), std::cmp::Reverse(rows), std::cmp::Reverse(*slot))
        })
        .expect("a statement has a table");
    let mut placed: u32 = 1 << first;
    let mut pending: Vec<&Predicate> = bound.filter.conjuncts().iter().collect();
    let filter = take_decidable(&mut pending, placed);
    let guard = bound.guards[first].clone();
    let mut levels = vec![Level { slot: first, source: Source::Path(paths[first].clone()), filter, guard }];
    while levels.len() < bound.tables.len() {
        // The join conditions form a tree, so some edge always leads out of the placed part.
        let (from, to) = bound
            .edges
            .iter()
            .flat_map(|edge| [(&edge.old, &edge.new), (&edge.new, &edge.old)])
            .filter(|(from, to)| placed & 1 << from.slot != 0 && placed & 1 << to.slot == 0)
            .max_by_key(|(_, to)| match ColumnLookup::find(&bound.tables[to.slot], to.column) {
                Some(ColumnLookup::Point(_)) => 2,
                Some(ColumnLookup::Prefix(_)) => 1,
                None => 0,
            })
            .expect("join conditions link each table with an earlier one");
        placed |= 1 << to.slot;
        let filter = take_decidable(&mut pending, placed);
        let table = &bound.tables[to.slot];
        let source = match ColumnLookup::find(table, to.column) {
            Some(find) => Source::Lookup { find, from: from.clone() },
            None => Source::Hash { rows: run.hash(&paths[to.slot], to)?, from: from.clone() },
        };
        levels.push(Level { slot: to.slot, source, filter, guard: bound.guards[to.slot].clone() });
    }
    Ok(levels)
}

fn take_decidable(pending: &mut Vec<&Predicate>, placed: u32) -> Predicate {
    let (now, later) = pending.drain(..).partition(|part| part.slots() & !placed == 0);
    *pending = later;
    let now: Vec<&Predicate> = now;
    Predicate::and(now.into_iter().cloned())
}

/// The state of an execution.
struct Run<'a> {
    reader: &'a dyn TableRead,
    output: Output,
    limits: SelectLimits,
    limit: u64,
    /// For the rows that rules look at.
    budget: &'a Budget,
    scanned: u64,
    bytes: usize,
    rows: Vec<Bytes>,
    count: u64,
}

impl Run<'_> {
    /// Runs the levels ahead for the rows chosen so far. Recursion is bounded by [`TABLES_MAX`].
    fn level(&mut self, levels: &[Level], rows: &[&[u8]; TABLES_MAX]) -> Result<Walk, QueryError> {
        let Some((level, rest)) = levels.split_first() else { return self.emit(rows) };
        let reader = self.reader;
        let mut visit = |row: &[u8]| {
            self.scan_one()?;
            let mut with_row: [&[u8]; TABLES_MAX] = *rows;
            with_row[level.slot] = row;
            let state = State { reader, undone: None, budget: self.budget };
            let shown = level.filter.matches(&with_row)
                && match &level.guard {
                    Some(guard) => guard.shows(state, row)?,
                    None => true,
                };
            if shown { self.level(rest, &with_row) } else { Ok(Walk::On) }
        };
        match &level.source {
            Source::Path(path) => path.visit(reader, &mut visit),
            Source::Lookup { find, from } => find.visit(reader, from.get(rows), &mut visit),
            Source::Hash { rows: hashed, from } => {
                for row in hashed.get(from.get(rows)).into_iter().flatten() {
                    if visit(row)? == Walk::Stop {
                        return Ok(Walk::Stop);
                    }
                }
                Ok(Walk::On)
            }
        }
    }

    fn hash(&mut self, path: &AccessPath, key: &ColumnSlot) -> Result<HashedRows, QueryError> {
        let mut hashed: HashedRows = HashMap::new();
        let mut bytes = 0;
        path.visit(self.reader, &mut |row| {
            self.scan_one()?;
            bytes += row.len();
            if bytes > self.limits.bytes_max {
                return Err(QueryError::LimitExceeded { what: "bytes of rows", max: self.limits.bytes_max as u64 });
            }
            hashed.entry(key.access.get(row).to_vec()).or_default().push(row.into());
            Ok(Walk::On)
        })?;
        Ok(hashed)
    }

    fn scan_one(&mut self) -> Result<(), QueryError> {
        self.scanned += 1;
        match self.scanned > self.limits.scanned_max {
            true => Err(QueryError::LimitExceeded { what: "rows looked at", max: self.limits.scanned_max }),
            false => Ok(()),
        }
    }

    fn emit(&mut self, rows: &[&[u8]; TABLES_MAX]) -> Result<Walk, QueryError> {
        let mut row = Vec::new();
        match &self.output {
            Output::Count => {
                self.count += 1;
                return Ok(Walk::On);
            }
            Output::Rows(slots) => slots.iter().for_each(|slot| row.extend_from_slice(rows[*slot])),
            Output::Columns(columns) => columns.iter().for_each(|column| row.extend_from_slice(column.get(rows))),
        }
        self.bytes += row.len();
        if self.bytes > self.limits.bytes_max {
            return Err(QueryError::LimitExceeded { what: "bytes of rows", max: self.limits.bytes_max as u64 });
        }
        if self.rows.len() as u64 >= self.limits.rows_max {
            return Err(QueryError::LimitExceeded { what: "rows", max: self.limits.rows_max });
        }
        self.rows.push(row.into());
        let full = self.rows.len() as u64 >= self.limit;
        Ok(if full { Walk::Stop } else { Walk::On })
    }
}
