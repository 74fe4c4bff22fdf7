//! Plans of queries that return whole rows of one table: what subscriptions and one-off queries run.
//!
//! A plan is made once and shared by everyone who asks the same ([`PlanKey`]). It can be evaluated
//! against any state of its schema and, for a committed transaction, turned into the difference
//! between the results before and after at a cost that depends on the change, not on the tables.

use std::fmt::Write;
use std::sync::Arc;

use tine_tables::{ChangeSet, TableId, TableRead, TableSchema};
use tine_types::protocol::{QueryRows, RowList, RowListBuilder, TableRows, TableUpdate, TableUpdateRows};

use crate::access::{AccessPath, ColumnLookup, Visit, Walk, equal_values};
use crate::ast::{Projection, Select, Statement};
use crate::bind::{Bound, bind};
use crate::column::ColumnAccess;
use crate::error::{Detail, QueryError};
use crate::guard::{GuardedPlan, Match};
use crate::join::{JOIN_STEPS_MAX, JoinPlan};
use crate::parser::parse_statement;
use crate::predicate::Predicate;
use crate::rows::{Changes, RowSink, filtered_list};
use crate::{Caller, Catalog};

/// Equal for plans that return the same rows in every state: the query with names, spelling and
/// `:sender` resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlanKey(Arc<str>);

impl PlanKey {
    /// The key as text, for logs.
    pub fn as_text(&self) -> &str {
        &self.0
    }
}

/// A compiled query that returns whole rows of one table.
#[derive(Debug)]
pub struct SubscriptionPlan {
    key: PlanKey,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Table(Box<Side>),
    Join(Box<JoinPlan>),
    Guarded(Box<GuardedPlan>),
}

/// What a plan needs of one of its tables.
#[derive(Debug)]
pub(crate) struct Side {
    pub table: Arc<TableSchema>,
    /// Position of the table in the slices that predicates are evaluated on.
    pub slot: usize,
    /// The part of the condition that mentions this table only.
    pub filter: Predicate,
    pub access: AccessPath,
    /// A column and the values a row must have there for the plan to care.
    pub prune: Option<Prune>,
}

/// Rows with another value in this column are no concern of the plan.
#[derive(Debug)]
pub(crate) struct Prune {
    pub position: usize,
    pub access: ColumnAccess,
    pub values: Vec<Vec<u8>>,
}

impl Side {
    pub fn new(table: Arc<TableSchema>, slot: usize, filter: Predicate) -> Side {
        let access = AccessPath::choose(&table, slot, &filter);
        let prune = Prune::find(&table, slot, &filter);
        Side { table, slot, filter, access, prune }
    }

    /// Whether `row` satisfies this table's part of the condition.
    pub fn accepts(&self, row: &[u8]) -> bool {
        match self.slot {
            _ if self.filter.is_true() => true,
            0 => self.filter.matches(&[row]),
            _ => self.filter.matches(&[&[], row]),
        }
    }

    /// Calls `visit` with each stored row that satisfies this table's part of the condition.
    pub fn visit(&self, reader: &dyn TableRead, visit: &mut Visit<'_>) -> Result<(), QueryError> {
        self.access.visit(reader, &mut |row| match self.accepts(row) {
            true => visit(row),
            false => Ok(Walk::On),
        })?;
        Ok(())
    }
}

impl Prune {
    /// Takes the first equality, but prefers one on a unique column.
    fn find(table: &TableSchema, slot: usize, filter: &Predicate) -> Option<Prune> {
        let mut found: Option<Prune> = None;
        for part in filter.conjuncts() {
            let first = match part {
                Predicate::Or(parts) => &parts[0],
                one => one,
            };
            let Predicate::Value(test) = first else { continue };
            let column = test.column.column;
            let Some(values) = equal_values(part, slot, column) else { continue };
            let unique = table.indexes.iter().any(|index| index.unique && index.columns == [column]);
            if found.is_none() || unique {
                found = Some(Prune { position: column.position(), access: test.column.access.clone(), values });
            }
            if unique {
                break;
            }
        }
        found
    }
}

/// What decides whether a join without an index is accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Subscription,
    OneOff,
}

/// Compiles a query of the subscription dialect.
///
/// # Errors
/// Everything that is wrong with the text, and [`QueryError::UnindexedJoin`] when a join column has
/// no index: each commit would have to scan a table.
pub fn compile_subscription<'a>(
    sql: &str,
    catalog: impl Into<Catalog<'a>>,
    caller: &Caller,
) -> Result<Arc<SubscriptionPlan>, QueryError> {
    match parse_statement(sql)? {
        Statement::Select(select) => compile(&select, catalog.into(), caller, Use::Subscription).map(Arc::new),
        Statement::SelectAllTables => Err(QueryError::NotSupportedYet { what: "SELECT * FROM * as a single query" }),
        other => Err(not_a_query(&other)),
    }
}

/// As [`compile_subscription`], but `SELECT * FROM *` gives one plan per table the caller may see.
pub fn compile_subscription_set<'a>(
    sql: &str,
    catalog: impl Into<Catalog<'a>>,
    caller: &Caller,
) -> Result<Vec<Arc<SubscriptionPlan>>, QueryError> {
    let catalog = catalog.into();
    match parse_statement(sql)? {
        Statement::Select(select) => Ok(vec![Arc::new(compile(&select, catalog, caller, Use::Subscription)?)]),
        Statement::SelectAllTables => whole_tables(catalog, caller, Use::Subscription),
        other => Err(not_a_query(&other)),
    }
}

/// Runs a query of the subscription dialect once. Joins need no index here.
pub fn one_off<'a>(
    sql: &str,
    catalog: impl Into<Catalog<'a>>,
    caller: &Caller,
    reader: &dyn TableRead,
) -> Result<QueryRows, QueryError> {
    let catalog = catalog.into();
    let plans = match parse_statement(sql)? {
        Statement::Select(select) => vec![Arc::new(compile(&select, catalog, caller, Use::OneOff)?)],
        Statement::SelectAllTables => whole_tables(catalog, caller, Use::OneOff)?,
        other => return Err(not_a_query(&other)),
    };
    let tables = plans.iter().map(|plan| plan.evaluate_rows(reader)).collect::<Result<_, _>>()?;
    Ok(QueryRows { tables })
}

/// `SELECT * FROM *`
fn whole_tables(catalog: Catalog<'_>, caller: &Caller, usage: Use) -> Result<Vec<Arc<SubscriptionPlan>>, QueryError> {
    let tables = catalog.visible_stored(caller);
    tables.map(|table| compile(&Select::whole_table(&table.name), catalog, caller, usage).map(Arc::new)).collect()
}

fn not_a_query(statement: &Statement) -> QueryError {
    let (what, position) = match statement {
        Statement::Insert(insert) => ("INSERT", insert.table.position),
        Statement::Update(update) => ("UPDATE", update.table.position),
        Statement::Delete(delete) => ("DELETE", delete.table.position),
        Statement::Set { name, .. } => ("SET", name.position),
        Statement::Show { name } => ("SHOW", name.position),
        Statement::Select(_) | Statement::SelectAllTables => unreachable!("the callers take these"),
    };
    QueryError::Unsupported(Detail::with_hint(
        format!("{what} as a subscription or one-off query"),
        position,
        "use SELECT here, HTTP sql for settings, and reducers to change rows",
    ))
}

fn compile(select: &Select, catalog: Catalog<'_>, caller: &Caller, usage: Use) -> Result<SubscriptionPlan, QueryError> {
    if let Some((_, position)) = select.limit {
        return Err(QueryError::Unsupported(Detail::with_hint(
            "LIMIT in this dialect",
            position,
            "HTTP sql has LIMIT",
        )));
    }
    if let Some(join) = select.joins.get(1) {
        return Err(QueryError::Unsupported(Detail::with_hint(
            "more than two tables in this dialect",
            join.table.name.position,
            "HTTP sql joins any number of tables",
        )));
    }
    let (bound, scope) = bind(select, catalog, caller)?;
    let returned = match &select.projection {
        Projection::Star(_) if bound.tables.len() == 1 => 0,
        Projection::Star(position) => {
            let names = (&bound.tables[0].name, &bound.tables[1].name);
            return Err(QueryError::Unsupported(Detail::with_hint(
                "`*` over two tables in this dialect",
                *position,
                format!("rows of one table are returned: write {}.* or {}.*", names.0, names.1),
            )));
        }
        Projection::TableStar(name) => scope.slot(name)?,
        Projection::Columns(items) => {
            return Err(QueryError::Unsupported(Detail::with_hint(
                "a column list in this dialect",
                items[0].column.position(),
                "write *: whole rows are returned; HTTP sql has column lists",
            )));
        }
        Projection::Count { position, .. } => {
            return Err(QueryError::Unsupported(Detail::with_hint(
                "COUNT(*) in this dialect",
                *position,
                "HTTP sql has COUNT(*)",
            )));
        }
    };
    SubscriptionPlan::new(bound, returned, usage)
}

impl SubscriptionPlan {
    fn new(bound: Bound, returned: usize, usage: Use) -> Result<SubscriptionPlan, QueryError> {
        let key = key_of(&bound, returned);
        check_join(&bound, returned, usage)?;
        if bound.guards.iter().any(Option::is_some) {
            return Ok(SubscriptionPlan { key, shape: guarded(bound, returned) });
        }
        let Bound { mut tables, mut edges, filter, .. } = bound;
        let Some(edge) = edges.pop() else {
            let shape = Shape::Table(Box::new(Side::new(tables.remove(0), 0, filter)));
            return Ok(SubscriptionPlan { key, shape });
        };
        let lookup = 1 - returned;
        let [mut returned_parts, mut lookup_parts, mut cross_parts] = [Vec::new(), Vec::new(), Vec::new()];
        for part in filter.conjuncts() {
            let parts = match part.slots() {
                slots if slots & 1 << lookup == 0 => &mut returned_parts,
                slots if slots & 1 << returned == 0 => &mut lookup_parts,
                _ => &mut cross_parts,
            };
            parts.push(part.clone());
        }
        let (returned_key, lookup_key) =
            if returned == edge.old.slot { (edge.old, edge.new) } else { (edge.new, edge.old) };
        let returned_lookup = ColumnLookup::find(&tables[returned], returned_key.column);
        let lookup_lookup = ColumnLookup::find(&tables[lookup], lookup_key.column);
        let plan = JoinPlan {
            returned: Side::new(tables[returned].clone(), returned, Predicate::and(returned_parts)),
            lookup: Side::new(tables[lookup].clone(), lookup, Predicate::and(lookup_parts)),
            returned_key: returned_key.access,
            lookup_key: lookup_key.access,
            find_returned: returned_lookup,
            find_lookup: lookup_lookup,
            cross: Predicate::and(cross_parts),
            steps_max: JOIN_STEPS_MAX,
        };
        Ok(SubscriptionPlan { key, shape: Shape::Join(Box::new(plan)) })
    }

    /// The plan with another bound on the rows a join looks at.
    #[cfg(test)]
    pub(crate) fn with_join_steps_max(mut self: Arc<Self>, steps_max: u64) -> Arc<Self> {
        let plan = Arc::get_mut(&mut self).expect("a plan just compiled is not shared");
        let Shape::Join(join) = &mut plan.shape else { panic!("only joins have the bound") };
        join.steps_max = steps_max;
        self
    }

    /// What this plan is shared by.
    pub fn key(&self) -> &PlanKey {
        &self.key
    }

    /// The table whose rows are returned.
    pub fn table(&self) -> &Arc<TableSchema> {
        &self.returned().table
    }

    /// The canonical name of the table whose rows are returned.
    pub fn table_name(&self) -> &Arc<str> {
        &self.table().name
    }

    /// Every table whose changes can change the result; one, or two for a join.
    pub fn tables_read(&self) -> impl Iterator<Item = TableId> + '_ {
        self.sides().map(|side| side.table.id)
    }

    pub(crate) fn sides(&self) -> impl Iterator<Item = &Side> {
        let (first, second, others): (_, _, &[Side]) = match &self.shape {
            Shape::Table(side) => (&**side, None, &[]),
            Shape::Join(join) => (&join.returned, Some(&join.lookup), &[]),
            Shape::Guarded(plan) => (&plan.sides[0], None, &plan.sides[1..]),
        };
        std::iter::once(first).chain(second).chain(others)
    }

    /// Whether the plan looks at whole commits, not at the changes picked for each of its sides.
    pub(crate) fn is_guarded(&self) -> bool {
        matches!(self.shape, Shape::Guarded(_))
    }

    fn returned(&self) -> &Side {
        match &self.shape {
            Shape::Table(side) => side,
            Shape::Join(join) => &join.returned,
            Shape::Guarded(plan) => &plan.sides[0],
        }
    }

    /// Appends the rows of the result to `out`; each row once, in no promised order.
    ///
    /// # Errors
    /// [`QueryError::LimitExceeded`] beyond [`crate::RESULT_BYTES_MAX`], and trouble in the tables.
    pub fn evaluate(&self, reader: &dyn TableRead, out: &mut RowListBuilder) -> Result<(), QueryError> {
        let mut sink = RowSink::new(out);
        match &self.shape {
            Shape::Table(side) => side.visit(reader, &mut |row| {
                sink.push(row)?;
                Ok(Walk::On)
            }),
            Shape::Join(join) => join.evaluate(reader, &mut sink),
            Shape::Guarded(plan) => plan.evaluate(reader, &mut sink),
        }
    }

    /// The result as the protocol sends it.
    ///
    /// # Errors
    /// As [`SubscriptionPlan::evaluate`].
    pub fn evaluate_rows(&self, reader: &dyn TableRead) -> Result<TableRows, QueryError> {
        let mut builder = RowListBuilder::new();
        self.evaluate(reader, &mut builder)?;
        Ok(TableRows { table: self.table_name().clone(), rows: builder.finish(self.table().static_row_size) })
    }

    /// How the result changed with a transaction: `changes` is its net difference and `after` the
    /// state it left. None when the result did not change.
    ///
    /// # Errors
    /// As [`SubscriptionPlan::evaluate`].
    pub fn delta(&self, after: &dyn TableRead, changes: &ChangeSet) -> Result<Option<Arc<TableUpdate>>, QueryError> {
        let mut of_sides = self.sides().map(|side| Changes::of(changes.table(side.table.id)));
        let returned = of_sides.next().unwrap_or(Changes::NONE);
        let lookup = of_sides.next().unwrap_or(Changes::NONE);
        self.delta_of(after, changes, returned, lookup)
    }

    /// As [`SubscriptionPlan::delta`], given the changes to look at. They must hold every changed row
    /// of the plan's tables that its pruning column does not rule out.
    pub(crate) fn delta_of(
        &self,
        after: &dyn TableRead,
        changes: &ChangeSet,
        returned: Changes<'_>,
        lookup: Changes<'_>,
    ) -> Result<Option<Arc<TableUpdate>>, QueryError> {
        let size = self.table().static_row_size;
        let (inserts, deletes) = match &self.shape {
            Shape::Table(side) => (
                filtered_list(returned.inserts, size, |row| side.accepts(row))?,
                filtered_list(returned.deletes, size, |row| side.accepts(row))?,
            ),
            Shape::Join(join) => {
                let (mut inserts, mut deletes) = (RowListBuilder::new(), RowListBuilder::new());
                join.delta(after, returned, lookup, &mut RowSink::new(&mut inserts), &mut RowSink::new(&mut deletes))?;
                (inserts.finish(size), deletes.finish(size))
            }
            Shape::Guarded(plan) => {
                let (mut inserts, mut deletes) = (RowListBuilder::new(), RowListBuilder::new());
                plan.delta(after, changes, &mut RowSink::new(&mut inserts), &mut RowSink::new(&mut deletes))?;
                (inserts.finish(size), deletes.finish(size))
            }
        };
        Ok(self.update(inserts, deletes))
    }

    fn update(&self, inserts: RowList, deletes: RowList) -> Option<Arc<TableUpdate>> {
        if inserts.is_empty() && deletes.is_empty() {
            return None;
        }
        let rows = match self.table().is_event {
            true => TableUpdateRows::Event { events: inserts },
            false => TableUpdateRows::Persistent { inserts, deletes },
        };
        Some(Arc::new(TableUpdate::new(self.table_name().clone(), rows)))
    }
}

/// The canonical text of a query: tables by id, columns by position, constants by encoding.
fn key_of(bound: &Bound, returned: usize) -> PlanKey {
    let mut text = format!("{returned}");
    for table in &bound.tables {
        write!(text, " {}#{}", table.name, table.id.0).expect("writing to a string does not fail");
    }
    for edge in &bound.edges {
        let (old, new) = (&edge.old, &edge.new);
        write!(text, " {}.{}={}.{}", old.slot, old.column.position(), new.slot, new.column.position())
            .expect("writing to a string does not fail");
    }
    text.push(' ');
    bound.filter.write_key(&mut text);
    for guard in bound.guards.iter().flatten() {
        guard.write_key(&mut text);
    }
    PlanKey(text.into())
}

/// Refuses joins that no plan can follow: into events, and for subscriptions on columns without an index.
fn check_join(bound: &Bound, returned: usize, usage: Use) -> Result<(), QueryError> {
    let Some(edge) = bound.edges.first() else { return Ok(()) };
    let lookup = &bound.tables[1 - returned];
    if lookup.is_event {
        return Err(QueryError::Unsupported(Detail::with_hint(
            format!("looking up rows of the event table `{}`", lookup.name),
            edge.position,
            "events are never stored; return the event table's rows instead",
        )));
    }
    let mut sides = [&edge.old, &edge.new];
    sides.sort_by_key(|side| side.slot != returned);
    for key in sides {
        let table = &bound.tables[key.slot];
        let needed = usage == Use::Subscription && !table.is_event;
        if needed && ColumnLookup::find(table, key.column).is_none() {
            let column = &table.columns[key.column.position()].name;
            return Err(QueryError::UnindexedJoin(Detail::with_hint(
                format!("`{}`.`{column}` has no index", table.name),
                edge.position,
                "a subscription joins on indexed columns only; add an index that starts with the column",
            )));
        }
    }
    Ok(())
}

/// The plan of a query over tables with rules that join.
fn guarded(bound: Bound, returned: usize) -> Shape {
    let (own, joint) = bound.filter.split_off_slot(returned);
    let matching =
        (!bound.edges.is_empty()).then(|| Match::new(&bound, returned, joint, bound.guards[1 - returned].clone()));
    let guard = bound.guards[returned].clone();
    let mut sides = vec![Side { prune: None, ..Side::new(bound.tables[returned].clone(), returned, own) }];
    let asked = GuardedPlan::tables_asked(guard.as_ref(), matching.as_ref());
    let asked = asked.into_iter().filter(|table| table.id != bound.tables[returned].id);
    sides.extend(asked.map(|table| Side { prune: None, ..Side::new(table, 0, Predicate::Constant(true)) }));
    Shape::Guarded(Box::new(GuardedPlan { sides, guard, matching, steps_max: JOIN_STEPS_MAX }))
}
