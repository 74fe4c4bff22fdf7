//! Which index finds the rows of one table.
//!
//! An access path yields a superset of the rows that satisfy the predicate it was made from; whoever
//! walks it evaluates the predicate on each row. So a path may widen a bound where the order of the
//! index and that of the query differ (`-0.0` and `0.0` are two keys but one value), never narrow it.

use std::cmp::Ordering;
use std::ops::Bound;

use tine_tables::{ColumnId, IndexAlgorithm, IndexId, IndexSchema, TableId, TableRead, TableSchema};

use crate::ast::Operator;
use crate::column::ScalarKind;
use crate::error::QueryError;
use crate::predicate::{Predicate, ValueTest};

/// Whether a walk over rows goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    On,
    Stop,
}

/// What is called with each row of a walk.
pub(crate) type Visit<'v> = dyn FnMut(&[u8]) -> Result<Walk, QueryError> + 'v;

/// Where to look for the rows of a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AccessPath {
    /// Nowhere: the predicate cannot hold.
    Nothing,
    /// All rows.
    Scan(TableId),
    /// The rows under each of these full keys, which are distinct.
    Points { index: IndexId, keys: Vec<Vec<u8>>, unique: bool },
    /// The rows whose first columns equal `prefix` and whose next lies within the bounds.
    Range { index: IndexId, prefix: Vec<u8>, prefix_columns: usize, start: Bound<Vec<u8>>, end: Bound<Vec<u8>> },
}

impl AccessPath {
    /// Finds the best path for the rows of `table` (in `slot`) that satisfy `predicate`.
    pub fn choose(table: &TableSchema, slot: usize, predicate: &Predicate) -> AccessPath {
        if matches!(predicate, Predicate::Constant(false)) || table.is_event {
            return AccessPath::Nothing;
        }
        let tests: Vec<&ValueTest> = predicate
            .conjuncts()
            .iter()
            .filter_map(|part| match part {
                Predicate::Value(test) if test.column.slot == slot => Some(test),
                _ => None,
            })
            .collect();
        let paths = table.indexes.iter().map(|index| through_index(index, &tests));
        let alternatives = table.indexes.iter().map(|index| through_alternatives(index, slot, predicate));
        let best = paths.chain(alternatives).flatten().max_by_key(AccessPath::rank);
        best.unwrap_or(AccessPath::Scan(table.id))
    }

    /// Greater is better: how few rows the path is expected to yield.
    pub fn rank(&self) -> u32 {
        match self {
            AccessPath::Nothing => 1_000,
            AccessPath::Points { unique: true, keys, .. } if keys.len() == 1 => 900,
            AccessPath::Points { unique: true, .. } => 800,
            AccessPath::Points { keys, .. } if keys.len() == 1 => 700,
            AccessPath::Points { .. } => 600,
            AccessPath::Range { prefix_columns, start, end, .. } => {
                let bounds = [start, end].into_iter().filter(|bound| !matches!(bound, Bound::Unbounded)).count();
                100 + 10 * (*prefix_columns as u32).min(40) + bounds as u32
            }
            AccessPath::Scan(_) => 0,
        }
    }

    /// Calls `visit` with each row on the path until it breaks or fails.
    pub fn visit(&self, reader: &dyn TableRead, visit: &mut Visit<'_>) -> Result<Walk, QueryError> {
        let mut cursor = match self {
            AccessPath::Nothing => return Ok(Walk::On),
            AccessPath::Scan(table) => reader.scan(*table),
            AccessPath::Range { index, prefix, prefix_columns, start, end } => {
                reader.index_range(*index, prefix, *prefix_columns, as_slice(start), as_slice(end))?
            }
            AccessPath::Points { index, keys, .. } => {
                for key in keys {
                    if visit_point(reader, *index, key, visit)? == Walk::Stop {
                        return Ok(Walk::Stop);
                    }
                }
                return Ok(Walk::On);
            }
        };
        while let Some(row) = cursor.next()? {
            if visit(row)? == Walk::Stop {
                return Ok(Walk::Stop);
            }
        }
        Ok(Walk::On)
    }
}

fn visit_point(reader: &dyn TableRead, index: IndexId, key: &[u8], visit: &mut Visit<'_>) -> Result<Walk, QueryError> {
    let mut cursor = reader.index_point(index, key)?;
    while let Some(row) = cursor.next()? {
        if visit(row)? == Walk::Stop {
            return Ok(Walk::Stop);
        }
    }
    Ok(Walk::On)
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// The index that finds the rows with a given value in one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnLookup {
    /// The index is on that column alone.
    Point(IndexId),
    /// The index starts with that column.
    Prefix(IndexId),
}

impl ColumnLookup {
    /// An index of `table` for lookups by `column`, a unique one if there is one.
    pub fn find(table: &TableSchema, column: ColumnId) -> Option<ColumnLookup> {
        let alone = table.indexes.iter().filter(|index| index.columns == [column]).max_by_key(|index| index.unique);
        if let Some(index) = alone {
            return Some(ColumnLookup::Point(index.id));
        }
        let starts = |index: &&IndexSchema| index.columns.first() == Some(&column) && is_ordered(index);
        table.indexes.iter().find(starts).map(|index| ColumnLookup::Prefix(index.id))
    }

    /// Calls `visit` with each row whose column equals `key` (BSATN) until it breaks or fails.
    pub fn visit(self, reader: &dyn TableRead, key: &[u8], visit: &mut Visit<'_>) -> Result<Walk, QueryError> {
        match self {
            ColumnLookup::Point(index) => visit_point(reader, index, key, visit),
            ColumnLookup::Prefix(index) => {
                let mut cursor = reader.index_range(index, key, 1, Bound::Unbounded, Bound::Unbounded)?;
                while let Some(row) = cursor.next()? {
                    if visit(row)? == Walk::Stop {
                        return Ok(Walk::Stop);
                    }
                }
                Ok(Walk::On)
            }
        }
    }
}

/// A hash index answers lookups of full keys only.
fn is_ordered(index: &IndexSchema) -> bool {
    !matches!(index.algorithm, IndexAlgorithm::Hash)
}

/// The path through `index` for tests all of which must hold.
fn through_index(index: &IndexSchema, tests: &[&ValueTest]) -> Option<AccessPath> {
    let mut prefix = Vec::new();
    let mut prefix_columns = 0;
    for column in &index.columns {
        let equal = tests
            .iter()
            .find(|test| test.column.column == *column && test.operator == Operator::Equal && !test.kind.is_float());
        let Some(test) = equal else { break };
        prefix.extend_from_slice(&test.value);
        prefix_columns += 1;
    }
    if prefix_columns == index.columns.len() {
        return Some(AccessPath::Points { index: index.id, keys: vec![prefix], unique: index.unique });
    }
    if !is_ordered(index) {
        return None;
    }
    let next = index.columns[prefix_columns];
    let mut range = Interval { start: Bound::Unbounded, end: Bound::Unbounded };
    for test in tests.iter().filter(|test| test.column.column == next) {
        range.narrow(test);
    }
    if range.is_unbounded() && prefix_columns == 0 {
        return None;
    }
    if let Some(kind) = tests.iter().find(|test| test.column.column == next).map(|test| test.kind)
        && range.is_empty(kind)
    {
        return Some(AccessPath::Nothing);
    }
    Some(AccessPath::Range { index: index.id, prefix, prefix_columns, start: range.start, end: range.end })
}

/// The path through a one-column index for `c = 1 OR c = 2 OR …`.
fn through_alternatives(index: &IndexSchema, slot: usize, predicate: &Predicate) -> Option<AccessPath> {
    let [column] = *index.columns.as_slice() else { return None };
    predicate.conjuncts().iter().find_map(|part| {
        let keys = equal_values(part, slot, column)?;
        Some(AccessPath::Points { index: index.id, keys, unique: index.unique })
    })
}

/// The distinct values that `predicate` lets the column have, when it is `c = 1` or
/// `c = 1 OR c = 2 …` for a column that is not a float.
pub(crate) fn equal_values(predicate: &Predicate, slot: usize, column: ColumnId) -> Option<Vec<Vec<u8>>> {
    let value = |part: &Predicate| match part {
        Predicate::Value(test)
            if test.column.slot == slot
                && test.column.column == column
                && test.operator == Operator::Equal
                && !test.kind.is_float() =>
        {
            Some(test.value.to_vec())
        }
        _ => None,
    };
    let mut values = match predicate {
        Predicate::Or(parts) => parts.iter().map(value).collect::<Option<Vec<_>>>()?,
        one => vec![value(one)?],
    };
    values.sort_unstable();
    values.dedup();
    Some(values)
}

/// Bounds of one column, as BSATN.
struct Interval {
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
}

impl Interval {
    fn is_unbounded(&self) -> bool {
        matches!((&self.start, &self.end), (Bound::Unbounded, Bound::Unbounded))
    }

    fn is_empty(&self, kind: ScalarKind) -> bool {
        let (Some(start), Some(end)) = (value(&self.start), value(&self.end)) else { return false };
        match kind.compare(start, end) {
            Some(Ordering::Less) => false,
            Some(Ordering::Equal) => !matches!((&self.start, &self.end), (Bound::Included(_), Bound::Included(_))),
            Some(Ordering::Greater) | None => true,
        }
    }

    fn narrow(&mut self, test: &ValueTest) {
        let zero = test.kind.is_float() && is_float_zero(&test.value);
        let below = |value: &[u8]| if zero { signed_zero(value.len(), true) } else { value.to_vec() };
        let above = |value: &[u8]| if zero { signed_zero(value.len(), false) } else { value.to_vec() };
        let value = &test.value;
        match test.operator {
            Operator::Equal => {
                self.raise(test.kind, Bound::Included(below(value)));
                self.lower(test.kind, Bound::Included(above(value)));
            }
            Operator::Less => self.lower(test.kind, Bound::Excluded(below(value))),
            Operator::LessEqual => self.lower(test.kind, Bound::Included(above(value))),
            Operator::Greater => self.raise(test.kind, Bound::Excluded(above(value))),
            Operator::GreaterEqual => self.raise(test.kind, Bound::Included(below(value))),
            Operator::NotEqual => {}
        }
    }

    /// Takes the new start when it lets fewer values through.
    fn raise(&mut self, kind: ScalarKind, start: Bound<Vec<u8>>) {
        if tighter(kind, &self.start, &start, Ordering::Less) {
            self.start = start;
        }
    }

    /// Takes the new end when it lets fewer values through.
    fn lower(&mut self, kind: ScalarKind, end: Bound<Vec<u8>>) {
        if tighter(kind, &self.end, &end, Ordering::Greater) {
            self.end = end;
        }
    }
}

/// Whether `new` is tighter than `old`, where a bound is looser when its value compares as `looser`.
fn tighter(kind: ScalarKind, old: &Bound<Vec<u8>>, new: &Bound<Vec<u8>>, looser: Ordering) -> bool {
    let (Some(old_value), Some(new_value)) = (value(old), value(new)) else { return value(old).is_none() };
    match kind.compare(old_value, new_value) {
        Some(Ordering::Equal) => matches!((old, new), (Bound::Included(_), Bound::Excluded(_))),
        Some(order) => order == looser,
        None => false,
    }
}

fn value(bound: &Bound<Vec<u8>>) -> Option<&[u8]> {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    }
}

fn is_float_zero(value: &[u8]) -> bool {
    let (top, rest) = value.split_last().expect("floats have bytes");
    top & 0x7f == 0 && rest.iter().all(|&byte| byte == 0)
}

fn signed_zero(size: usize, negative: bool) -> Vec<u8> {
    let mut value = vec![0; size];
    value[size - 1] = if negative { 0x80 } else { 0 };
    value
}
