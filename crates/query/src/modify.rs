//! Statements that change rows: `INSERT`, `UPDATE`, `DELETE`. The database's owner alone runs them.
//!
//! A statement is all or nothing, as part of the transaction that the caller opened and ends. Rows to change are all found before the
//! first one is changed, and an update takes out all old rows before it puts in the new ones: so values can trade places, and no
//! change is met again by the search.

use std::sync::Arc;

use bytes::Bytes;
use tine_tables::{ColumnSchema, TableSchema, TableWriter};
use tine_types::bsatn::{Reader, skip_value};
use tine_types::{AlgebraicType, Identity};

use crate::access::{AccessPath, Walk};
use crate::ast::{Delete, Insert, Name, Statement, Update};
use crate::bind::bind_rows;
use crate::error::{Detail, QueryError};
use crate::literal::encode_literal;
use crate::parser::parse_statement;
use crate::predicate::Predicate;
use crate::select::SelectLimits;
use crate::{Caller, Catalog};

/// How many rows a statement changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modified {
    /// Rows inserted that were not there.
    pub inserted: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Rows updated, also those that hold what they held.
    pub updated: u64,
}

/// Whether the text is a statement that changes rows or a setting. Text that is no statement at all is not.
pub fn writes(sql: &str) -> bool {
    use Statement::{Delete, Insert, Set, Update};
    matches!(parse_statement(sql), Ok(Insert(_) | Update(_) | Delete(_) | Set { .. }))
}

/// A statement about the only setting there is: how many rows a query of others than the owner may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// `SET row_limit TO n`
    SetRowLimit(u64),
    /// `SHOW row_limit`
    ShowRowLimit,
}

impl Setting {
    /// The statement that `sql` is; none for text that is another, or no statement at all.
    ///
    /// # Errors
    /// Another setting, or a value that is no number of rows.
    pub fn parse(sql: &str) -> Result<Option<Setting>, QueryError> {
        let (name, value) = match parse_statement(sql) {
            Ok(Statement::Set { name, value }) => (name, Some(value)),
            Ok(Statement::Show { name }) => (name, None),
            _ => return Ok(None),
        };
        if &*name.text != "row_limit" {
            let message = format!("the setting `{}`", name.text);
            return Err(QueryError::Unsupported(Detail::with_hint(message, name.position, "there is row_limit")));
        }
        let Some(value) = value else { return Ok(Some(Setting::ShowRowLimit)) };
        let bytes = encode_literal(&value, &AlgebraicType::U64, &Identity::from_le_bytes([0; 32]))?;
        let bytes = (*bytes).try_into().expect("a u64 has eight bytes");
        Ok(Some(Setting::SetRowLimit(u64::from_le_bytes(bytes))))
    }
}

/// The tables that a statement names, in the order written; none when the text is no statement.
pub fn names_of(sql: &str) -> Vec<Box<str>> {
    match parse_statement(sql) {
        Ok(Statement::Select(select)) => {
            let joined = select.joins.into_iter().map(|join| join.table.name.text);
            std::iter::once(select.from.name.text).chain(joined).collect()
        }
        Ok(Statement::Insert(Insert { table, .. }))
        | Ok(Statement::Update(Update { table, .. }))
        | Ok(Statement::Delete(Delete { table, .. })) => vec![table.text],
        _ => Vec::new(),
    }
}

/// Runs one statement that changes rows, in the open transaction of `tables`.
///
/// # Errors
/// The caller is not the owner, anything that is wrong with the text, a refusal of the tables, or more than `limits` allow. Then the
/// transaction may hold a part of the changes: roll it back.
pub fn modify(
    sql: &str,
    caller: &Caller,
    tables: &mut TableWriter,
    limits: SelectLimits,
) -> Result<Modified, QueryError> {
    let statement = parse_statement(sql)?;
    if !caller.is_owner {
        return Err(QueryError::NotOwner);
    }
    let schema = Arc::clone(tine_tables::TableRead::schema(tables));
    let catalog = Catalog::from(&schema);
    match statement {
        Statement::Insert(insert) => run_insert(&insert, catalog, caller, tables),
        Statement::Update(update) => run_update(&update, catalog, caller, tables, limits),
        Statement::Delete(delete) => run_delete(&delete, catalog, caller, tables, limits),
        _ => Err(QueryError::NotSupportedYet { what: "a statement that changes no rows" }),
    }
}

fn run_insert(
    insert: &Insert,
    catalog: Catalog<'_>,
    caller: &Caller,
    tables: &mut TableWriter,
) -> Result<Modified, QueryError> {
    let (table, _) = bind_rows(&insert.table, None, catalog, caller)?;
    let order = column_order(&table, insert)?;
    let mut generated = Vec::new();
    let mut modified = Modified::default();
    for literals in &insert.rows {
        if literals.len() != order.given {
            let position = literals.first().map_or(insert.table.position, |literal| literal.position);
            let message = format!("{} values for {} columns", literals.len(), order.given);
            return Err(QueryError::TypeMismatch(Detail::new(message, position)));
        }
        let mut row = Vec::new();
        for (column, source) in table.columns.iter().zip(&order.sources) {
            match source {
                Source::Given(place) => row.extend(encode_literal(&literals[*place], &column.ty, &caller.identity)?),
                Source::Fixed(value) => row.extend_from_slice(value),
            }
        }
        let written = tables.insert(table.id, &row, &mut generated).map_err(QueryError::refused)?;
        modified.inserted += u64::from(written.changed);
    }
    Ok(modified)
}

/// Where the value of a column comes from.
enum Source {
    /// This literal of the row.
    Given(usize),
    /// The column is not listed: its default, or the zero that a sequence replaces.
    Fixed(Vec<u8>),
}

struct Order {
    /// By column of the table.
    sources: Vec<Source>,
    /// Literals per row.
    given: usize,
}

fn column_order(table: &TableSchema, insert: &Insert) -> Result<Order, QueryError> {
    if insert.columns.is_empty() {
        let sources = (0..table.columns.len()).map(Source::Given).collect();
        return Ok(Order { sources, given: table.columns.len() });
    }
    let listed: Vec<&ColumnSchema> = insert.columns.iter().map(|name| column(table, name)).collect::<Result<_, _>>()?;
    for (place, name) in insert.columns.iter().enumerate() {
        if listed[..place].iter().any(|other| other.position == listed[place].position) {
            let message = format!("the column `{}` is listed twice", name.text);
            return Err(QueryError::AmbiguousName(Detail::new(message, name.position)));
        }
    }
    let source = |column: &ColumnSchema| {
        if let Some(place) = listed.iter().position(|other| other.position == column.position) {
            return Ok(Source::Given(place));
        }
        if let Some((_, value)) = table.defaults.iter().find(|(other, _)| *other == column.position) {
            return Ok(Source::Fixed(value.to_vec()));
        }
        let size = column.ty.static_bsatn_size();
        match table.sequences.iter().any(|sequence| sequence.column == column.position) {
            true => Ok(Source::Fixed(vec![0; size.expect("sequences fill integers")])),
            false => Err(QueryError::TypeMismatch(Detail::with_hint(
                format!("no value for the column `{}`", column.name),
                insert.table.position,
                "only columns with a default value or a sequence may be left out",
            ))),
        }
    };
    Ok(Order { sources: table.columns.iter().map(source).collect::<Result<_, _>>()?, given: listed.len() })
}

fn column<'t>(table: &'t TableSchema, name: &Name) -> Result<&'t ColumnSchema, QueryError> {
    table.column_named(&name.text).ok_or_else(|| {
        let names: Vec<&str> = table.columns.iter().map(|column| &*column.name).collect();
        let hint = format!("`{}` has {}", table.name, names.join(", "));
        QueryError::UnknownColumn(Detail::with_hint(format!("`{}`", name.text), name.position, hint))
    })
}

fn run_delete(
    delete: &Delete,
    catalog: Catalog<'_>,
    caller: &Caller,
    tables: &mut TableWriter,
    limits: SelectLimits,
) -> Result<Modified, QueryError> {
    let (table, filter) = bind_rows(&delete.table, delete.filter.as_ref(), catalog, caller)?;
    if filter.is_true() {
        return Ok(Modified { deleted: tables.clear(table.id).map_err(QueryError::refused)?, ..Modified::default() });
    }
    let rows = find_rows(&table, &filter, tables, limits)?;
    take_out(&table, &rows, tables)?;
    Ok(Modified { deleted: rows.len() as u64, ..Modified::default() })
}

fn run_update(
    update: &Update,
    catalog: Catalog<'_>,
    caller: &Caller,
    tables: &mut TableWriter,
    limits: SelectLimits,
) -> Result<Modified, QueryError> {
    let (table, filter) = bind_rows(&update.table, update.filter.as_ref(), catalog, caller)?;
    let mut values: Vec<Option<Box<[u8]>>> = vec![None; table.columns.len()];
    for (name, literal) in &update.assignments {
        let column = column(&table, name)?;
        let value = &mut values[column.position.position()];
        if value.is_some() {
            let message = format!("the column `{}` is set twice", name.text);
            return Err(QueryError::AmbiguousName(Detail::new(message, name.position)));
        }
        *value = Some(encode_literal(literal, &column.ty, &caller.identity)?);
    }
    let old = find_rows(&table, &filter, tables, limits)?;
    let new: Vec<Vec<u8>> = old.iter().map(|row| with_values(&table, row, &values)).collect();
    take_out(&table, &old, tables)?;
    let mut generated = Vec::new();
    for row in &new {
        tables.insert(table.id, row, &mut generated).map_err(QueryError::refused)?;
    }
    Ok(Modified { updated: old.len() as u64, ..Modified::default() })
}

/// The row with the given columns replaced.
fn with_values(table: &TableSchema, row: &[u8], values: &[Option<Box<[u8]>>]) -> Vec<u8> {
    let mut reader = Reader::new(row);
    let mut new = Vec::with_capacity(row.len());
    for (column, value) in table.columns.iter().zip(values) {
        let start = reader.position();
        skip_value(&column.ty, &mut reader).expect("a stored row has the shape of its table");
        new.extend_from_slice(value.as_deref().unwrap_or_else(|| &row[start..reader.position()]));
    }
    new
}

fn find_rows(
    table: &TableSchema,
    filter: &Predicate,
    tables: &TableWriter,
    limits: SelectLimits,
) -> Result<Vec<Bytes>, QueryError> {
    let (mut rows, mut scanned) = (Vec::new(), 0);
    AccessPath::choose(table, 0, filter).visit(tables, &mut |row| {
        scanned += 1;
        if scanned > limits.scanned_max {
            return Err(QueryError::LimitExceeded { what: "rows looked at", max: limits.scanned_max });
        }
        if filter.matches(&[row]) {
            rows.push(Bytes::copy_from_slice(row));
        }
        Ok(Walk::On)
    })?;
    Ok(rows)
}

fn take_out(table: &TableSchema, rows: &[Bytes], tables: &mut TableWriter) -> Result<(), QueryError> {
    for row in rows {
        let was_there = tables.delete_row(table.id, row).map_err(QueryError::refused)?;
        assert!(was_there, "the row was found in this transaction");
    }
    Ok(())
}
