//! Rows on their way out: row lists with a bound, and the changed rows of a commit.

use bytes::Bytes;
use tine_tables::TableChanges;
use tine_types::protocol::{RowList, RowListBuilder};

use crate::error::QueryError;

/// Most bytes of rows in one result or one update. A result is built in memory and sent as one
/// message whose lengths have 32 bits; a quarter of a gibibyte leaves room for several in one.
pub const RESULT_BYTES_MAX: usize = 1 << 28;

/// Collects result rows up to [`RESULT_BYTES_MAX`].
pub(crate) struct RowSink<'a> {
    out: &'a mut RowListBuilder,
    bytes: usize,
}

impl<'a> RowSink<'a> {
    pub fn new(out: &'a mut RowListBuilder) -> RowSink<'a> {
        RowSink { out, bytes: 0 }
    }

    pub fn push(&mut self, row: &[u8]) -> Result<(), QueryError> {
        self.bytes += row.len();
        if self.bytes > RESULT_BYTES_MAX {
            return Err(QueryError::LimitExceeded { what: "bytes of rows", max: RESULT_BYTES_MAX as u64 });
        }
        self.out.push(row);
        Ok(())
    }
}

/// Changed rows of one table: all of them, or those that concern one plan.
#[derive(Clone, Copy)]
pub(crate) enum ChangedRows<'a> {
    All(&'a [Bytes]),
    Picked(&'a [&'a Bytes]),
}

impl<'a> ChangedRows<'a> {
    pub const NONE: ChangedRows<'static> = ChangedRows::All(&[]);

    pub fn len(self) -> usize {
        match self {
            ChangedRows::All(rows) => rows.len(),
            ChangedRows::Picked(rows) => rows.len(),
        }
    }

    pub fn iter(self) -> impl Iterator<Item = &'a Bytes> + Clone {
        (0..self.len()).map(move |position| match self {
            ChangedRows::All(rows) => &rows[position],
            ChangedRows::Picked(rows) => rows[position],
        })
    }
}

/// The inserted and deleted rows of one table that a plan has to look at.
#[derive(Clone, Copy)]
pub(crate) struct Changes<'a> {
    pub inserts: ChangedRows<'a>,
    pub deletes: ChangedRows<'a>,
}

impl<'a> Changes<'a> {
    pub const NONE: Changes<'static> = Changes { inserts: ChangedRows::NONE, deletes: ChangedRows::NONE };

    /// All changes of a table, none when it did not change.
    pub fn of(changes: Option<&'a TableChanges>) -> Changes<'a> {
        match changes {
            Some(changes) => {
                Changes { inserts: ChangedRows::All(&changes.inserts), deletes: ChangedRows::All(&changes.deletes) }
            }
            None => Changes::NONE,
        }
    }
}

/// The rows that `keep` lets through, as a row list.
///
/// A single row, the usual change, is shared and not copied.
pub(crate) fn filtered_list<'a>(
    rows: ChangedRows<'a>,
    static_size: Option<usize>,
    keep: impl Fn(&'a [u8]) -> bool,
) -> Result<RowList, QueryError> {
    let mut kept = rows.iter().filter(|row| keep(row));
    let Some(first) = kept.next() else { return Ok(RowList::empty()) };
    let Some(second) = kept.next() else { return Ok(RowList::single(first.clone())) };
    let mut builder = RowListBuilder::new();
    let mut sink = RowSink::new(&mut builder);
    for row in [first, second].into_iter().chain(kept) {
        sink.push(row)?;
    }
    Ok(builder.finish(static_size))
}
