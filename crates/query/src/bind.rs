//! Names and types: a parsed `SELECT` against a schema and a caller.
//!
//! Tables and columns answer to their canonical and their source names. A table the caller may not
//! see answers exactly like one that does not exist.

use std::sync::Arc;

use tine_tables::{ColumnId, ColumnSchema, TableSchema};
use tine_types::AlgebraicType;

use crate::ast::{ColumnName, Expression, Join, Literal, Name, Operand, Operator, Select, TableName};
use crate::column::{ColumnAccess, ScalarKind};
use crate::error::{Detail, Position, QueryError};
use crate::guard::Guard;
use crate::literal::{encode_literal, type_name};
use crate::predicate::{ColumnSlot, ColumnsTest, Predicate, ValueTest};
use crate::{Caller, Catalog};

/// The tables, join conditions and filter of a `SELECT`.
pub(crate) struct Bound {
    /// The tables by slot.
    pub tables: Vec<Arc<TableSchema>>,
    /// One edge per joined table: `edges[i]` brings in slot `i + 1`.
    pub edges: Vec<Edge>,
    /// The `WHERE` clause, and the rules that are about single rows.
    pub filter: Predicate,
    /// By slot: the rules that ask other tables.
    pub guards: Vec<Option<Arc<Guard>>>,
}

/// `old.column = new.column`, where `new` is the table that the join brings in.
pub(crate) struct Edge {
    pub old: ColumnSlot,
    pub new: ColumnSlot,
    pub position: Position,
}

/// The names a statement can use, with the caller for `:sender`.
pub(crate) struct Scope<'a> {
    catalog: Catalog<'a>,
    caller: &'a Caller,
    tables: Vec<ScopeTable>,
}

struct ScopeTable {
    schema: Arc<TableSchema>,
    alias: Option<Box<str>>,
}

impl ScopeTable {
    fn answers_to(&self, name: &str) -> bool {
        match &self.alias {
            Some(alias) => **alias == *name,
            None => *self.schema.name == *name || *self.schema.accessor == *name,
        }
    }
}

/// Binds all of `select` but its projection and limit, which differ between the dialects.
pub(crate) fn bind<'a>(
    select: &Select,
    catalog: Catalog<'a>,
    caller: &'a Caller,
) -> Result<(Bound, Scope<'a>), QueryError> {
    let mut scope = Scope { catalog, caller, tables: Vec::new() };
    scope.add(&select.from)?;
    let mut edges = Vec::with_capacity(select.joins.len());
    for join in &select.joins {
        scope.add(&join.table)?;
        edges.push(scope.edge(join)?);
    }
    let filter = match &select.filter {
        Some(expression) => scope.predicate(expression)?,
        None => Predicate::Constant(true),
    };
    let tables: Vec<Arc<TableSchema>> = scope.tables.iter().map(|table| table.schema.clone()).collect();
    let mut parts = vec![filter];
    let mut guards = Vec::with_capacity(tables.len());
    for (slot, table) in tables.iter().enumerate() {
        let guard = catalog.rules.guard(table, catalog, caller)?;
        let plain = guard.as_ref().and_then(|guard| guard.as_predicate(slot));
        guards.push(if plain.is_some() { None } else { guard });
        parts.extend(plain);
    }
    Ok((Bound { tables, edges, filter: Predicate::and(parts), guards }, scope))
}

/// Binds what `UPDATE` and `DELETE` say about the rows of one table, for the owner.
pub(crate) fn bind_rows<'a>(
    table: &Name,
    filter: Option<&Expression>,
    catalog: Catalog<'a>,
    caller: &'a Caller,
) -> Result<(Arc<TableSchema>, Predicate), QueryError> {
    let mut scope = Scope { catalog, caller, tables: Vec::new() };
    scope.add(&TableName { name: table.clone(), alias: None })?;
    let filter = match filter {
        Some(expression) => scope.predicate(expression)?,
        None => Predicate::Constant(true),
    };
    Ok((scope.tables.remove(0).schema, filter))
}

impl Scope<'_> {
    fn add(&mut self, table: &TableName) -> Result<(), QueryError> {
        let schema = self.visible_table(&table.name)?;
        let called = table.alias.as_ref().unwrap_or(&table.name);
        let taken = match &table.alias {
            Some(alias) => self.tables.iter().any(|other| other.answers_to(&alias.text)),
            None => {
                self.tables.iter().any(|other| other.answers_to(&schema.name) || other.answers_to(&schema.accessor))
            }
        };
        if taken {
            return Err(QueryError::AmbiguousName(Detail::with_hint(
                format!("`{}` names two tables of this query", called.text),
                called.position,
                format!("give one an alias: {} AS other", table.name.text),
            )));
        }
        self.tables.push(ScopeTable { schema, alias: table.alias.as_ref().map(|alias| alias.text.clone()) });
        Ok(())
    }

    fn visible_table(&self, name: &Name) -> Result<Arc<TableSchema>, QueryError> {
        match self.catalog.visible(&name.text, self.caller) {
            Some(table) => Ok(table.clone()),
            None => Err(QueryError::UnknownTable(Detail::with_hint(
                format!("`{}`", name.text),
                name.position,
                "names are case sensitive, and private tables are visible to the owner only",
            ))),
        }
    }

    /// The slot that `name` (a table or alias of this statement) stands for.
    pub fn slot(&self, name: &Name) -> Result<usize, QueryError> {
        self.tables.iter().position(|table| table.answers_to(&name.text)).ok_or_else(|| {
            let names: Vec<&str> =
                self.tables.iter().map(|table| table.alias.as_deref().unwrap_or(&table.schema.name)).collect();
            QueryError::UnknownTable(Detail::with_hint(
                format!("`{}` is not a table of this query", name.text),
                name.position,
                format!("it reads {}", names.join(", ")),
            ))
        })
    }

    /// The slot and column that `name` stands for.
    pub fn column(&self, name: &ColumnName) -> Result<(usize, &ColumnSchema), QueryError> {
        let text = &name.column.text;
        if let Some(table) = &name.table {
            let slot = self.slot(table)?;
            let column = self.tables[slot].schema.column_named(text);
            return column.map(|column| (slot, column)).ok_or_else(|| self.unknown_column(name));
        }
        let mut found = None;
        for (slot, table) in self.tables.iter().enumerate() {
            let Some(column) = table.schema.column_named(text) else { continue };
            if found.replace((slot, column)).is_some() {
                return Err(QueryError::AmbiguousName(Detail::with_hint(
                    format!("several tables have a column `{text}`"),
                    name.column.position,
                    "write table.column",
                )));
            }
        }
        found.ok_or_else(|| self.unknown_column(name))
    }

    fn unknown_column(&self, name: &ColumnName) -> QueryError {
        let table = match &name.table {
            Some(table) => self.slot(table).ok().map(|slot| &self.tables[slot].schema),
            None => self.tables.first().map(|table| &table.schema),
        };
        let message = format!("`{}`", name.column.text);
        let Some(table) = table else {
            return QueryError::UnknownColumn(Detail::new(message, name.column.position));
        };
        let names: Vec<&str> = table.columns.iter().map(|column| &*column.name).collect();
        let hint = format!("`{}` has {}", table.name, names.join(", "));
        QueryError::UnknownColumn(Detail::with_hint(message, name.column.position, hint))
    }

    fn column_slot(&self, slot: usize, column: ColumnId) -> ColumnSlot {
        ColumnSlot { slot, column, access: ColumnAccess::new(&self.tables[slot].schema, column) }
    }

    fn edge(&self, join: &Join) -> Result<Edge, QueryError> {
        let new_slot = self.tables.len() - 1;
        let (left, right) = (self.column(&join.left)?, self.column(&join.right)?);
        let position = join.left.position();
        let (old, new) = match (left.0 == new_slot, right.0 == new_slot) {
            (true, false) => (right, left),
            (false, true) => (left, right),
            _ => {
                return Err(QueryError::Unsupported(Detail::with_hint(
                    "a join condition that does not link the joined table with an earlier one",
                    position,
                    format!("compare a column of `{}` with one of an earlier table", join.table.name.text),
                )));
            }
        };
        let kind = self.common_kind(&old.1.ty, &new.1.ty, position)?;
        if kind.is_float() {
            return Err(QueryError::Unsupported(Detail::with_hint(
                "a join on floating-point columns",
                position,
                "join on integers, strings or identities",
            )));
        }
        Ok(Edge {
            old: self.column_slot(old.0, old.1.position),
            new: self.column_slot(new.0, new.1.position),
            position,
        })
    }

    fn common_kind(
        &self,
        left: &AlgebraicType,
        right: &AlgebraicType,
        position: Position,
    ) -> Result<ScalarKind, QueryError> {
        if left != right {
            let message = format!("{} is not compared with {}", type_name(left), type_name(right));
            return Err(QueryError::TypeMismatch(Detail::new(message, position)));
        }
        ScalarKind::of(left).ok_or_else(|| {
            let message = format!("{} cannot be compared", type_name(left));
            QueryError::TypeMismatch(Detail::new(message, position))
        })
    }

    /// Recursion is bounded by the nesting the parser allows.
    fn predicate(&self, expression: &Expression) -> Result<Predicate, QueryError> {
        match expression {
            Expression::And(parts) => {
                Ok(Predicate::and(parts.iter().map(|part| self.predicate(part)).collect::<Result<Vec<_>, _>>()?))
            }
            Expression::Or(parts) => {
                Ok(Predicate::or(parts.iter().map(|part| self.predicate(part)).collect::<Result<Vec<_>, _>>()?))
            }
            Expression::Not(inner) => Ok(self.predicate(inner)?.negate()),
            Expression::Constant(value) => Ok(Predicate::Constant(*value)),
            Expression::Column(name) => self.bool_column(name),
            Expression::Compare { left, operator, right, position } => match (left, right) {
                (Operand::Column(left), Operand::Column(right)) => {
                    self.compare_columns(left, *operator, right, *position)
                }
                (Operand::Column(column), Operand::Literal(literal)) => self.compare(column, *operator, literal),
                (Operand::Literal(literal), Operand::Column(column)) => {
                    self.compare(column, operator.mirrored(), literal)
                }
                (Operand::Literal(_), Operand::Literal(_)) => Err(QueryError::TypeMismatch(Detail::with_hint(
                    "two literals are compared",
                    *position,
                    "one side is a column: it gives the literal its type",
                ))),
            },
        }
    }

    fn bool_column(&self, name: &ColumnName) -> Result<Predicate, QueryError> {
        let (slot, column) = self.column(name)?;
        if column.ty != AlgebraicType::Bool {
            let message = format!("the column `{}` is {}, not a condition", column.name, type_name(&column.ty));
            return Err(QueryError::TypeMismatch(Detail::new(message, name.position())));
        }
        Ok(Predicate::Value(ValueTest {
            column: self.column_slot(slot, column.position),
            kind: ScalarKind::Unsigned(1),
            operator: Operator::Equal,
            value: [1].into(),
        }))
    }

    fn compare(&self, name: &ColumnName, operator: Operator, literal: &Literal) -> Result<Predicate, QueryError> {
        let (slot, column) = self.column(name)?;
        let kind = self.common_kind(&column.ty, &column.ty, name.position())?;
        self.check_order(kind, operator, name.position())?;
        let value = encode_literal(literal, &column.ty, &self.caller.identity)?;
        Ok(Predicate::Value(ValueTest { column: self.column_slot(slot, column.position), kind, operator, value }))
    }

    fn compare_columns(
        &self,
        left: &ColumnName,
        operator: Operator,
        right: &ColumnName,
        position: Position,
    ) -> Result<Predicate, QueryError> {
        let (left, right) = (self.column(left)?, self.column(right)?);
        let kind = self.common_kind(&left.1.ty, &right.1.ty, position)?;
        self.check_order(kind, operator, position)?;
        Ok(Predicate::Columns(ColumnsTest {
            left: self.column_slot(left.0, left.1.position),
            right: self.column_slot(right.0, right.1.position),
            kind,
            operator,
        }))
    }

    fn check_order(&self, kind: ScalarKind, operator: Operator, position: Position) -> Result<(), QueryError> {
        let equality = matches!(operator, Operator::Equal | Operator::NotEqual);
        if kind.is_ordered() || equality {
            return Ok(());
        }
        let message = format!("`{}` between variants", operator.as_text());
        Err(QueryError::TypeMismatch(Detail::with_hint(message, position, "variants have no order: use = or <>")))
    }
}
