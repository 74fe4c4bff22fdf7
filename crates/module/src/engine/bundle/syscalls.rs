//! The natives that work on tables. Rows and keys are read where the bundle wrote them, without a copy.

use std::ops::{Bound, Range};

use tine_tables::{IndexId, TableError, TableId};

use super::super::access::OpenTables;
use super::super::errors;
use super::super::raw::{Call, Cx, Exception, JsResult, Value};
use super::super::tables::{TablesFailure, note, note_table, try_tables, try_write};
use super::arguments::argument;
use super::boot::state;
use super::session::refuse_after_fault;
use crate::call::SyscallError;
use crate::isolation::IndexRange;

const BOUND_INCLUDED: u8 = 0;
const BOUND_EXCLUDED: u8 = 1;
const BOUND_UNBOUNDED: u8 = 2;

/// Throws what failed, now that no bytes are in use.
fn thrown<T>(cx: Cx<'_>, outcome: Result<T, TablesFailure>) -> JsResult<T> {
    outcome.map_err(|failure| failure.throw(cx))
}

fn with_tables<T>(cx: Cx<'_>, operate: impl FnOnce(&mut OpenTables<'_>) -> Result<T, TablesFailure>) -> JsResult<T> {
    thrown(cx, try_tables(cx, operate))
}

fn number(cx: Cx<'_>, value: u32) -> Value<'_> {
    i32::try_from(value).map_or_else(|_| cx.number(value.into()), |value| cx.int(value))
}

fn table(call: &Call<'_>) -> JsResult<TableId> {
    refuse_after_fault(call.cx)?;
    Ok(TableId::new(argument(call, 0, "table").u32()?))
}

fn index(call: &Call<'_>) -> JsResult<IndexId> {
    refuse_after_fault(call.cx)?;
    Ok(IndexId::new(argument(call, 0, "index").u32()?))
}

/// `table_id_from_name(name)`
pub(super) fn table_id<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let name = argument(call, 0, "name").text()?;
    let id = with_tables(call.cx, |tables| match tables.schema().table_named(&name) {
        Some(table) => Ok(table.id),
        None => Err(TableError::NoSuchTable.into()),
    })?;
    Ok(number(call.cx, id.get()))
}

/// `index_id_from_name(name)`
pub(super) fn index_id<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let name = argument(call, 0, "name").text()?;
    let id = with_tables(call.cx, |tables| match tables.schema().index_named(&name) {
        Some((_, index)) => Ok(index.id),
        None => Err(TableError::NoSuchIndex.into()),
    })?;
    Ok(number(call.cx, id.get()))
}

fn check_table(tables: &OpenTables<'_>, table: TableId) -> Result<(), TableError> {
    tables.schema().table(table).map(drop).ok_or(TableError::NoSuchTable)
}

/// `datastore_table_row_count(table)`
pub(super) fn table_row_count<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let table = table(call)?;
    let count = with_tables(call.cx, |tables| {
        check_table(tables, table)?;
        note_table(call.cx, tables, table)?;
        tables.row_count(table)
    })?;
    call.cx.big_u64(count)
}

/// `datastore_clear(table)`
pub(super) fn table_clear<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let table = table(call)?;
    let cleared = try_write(call.cx, |tables| {
        check_table(tables, table)?;
        tables.clear(table)
    });
    let count = thrown(call.cx, cleared)?;
    call.cx.big_u64(count)
}

/// `datastore_table_scan_bsatn(table)`
pub(super) fn table_scan<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, table) = (call.cx, table(call)?);
    let iterators = &state(cx).iterators;
    let copied = with_tables(cx, |tables| {
        check_table(tables, table)?;
        note_table(cx, tables, table)?;
        Ok(iterators.copy(cx.state(), &mut tables.scan(table)?))
    })?;
    Ok(number(cx, iterators.begin(cx, copied)?))
}

/// `datastore_index_scan_point_bsatn(index, buf, len)`
pub(super) fn index_scan_point<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, index) = (call.cx, index(call)?);
    let length = argument(call, 2, "length").u32()?;
    let iterators = &state(cx).iterators;
    let copied = argument(call, 1, "buffer").parts([length], |bytes, [key]| {
        try_tables(cx, |tables| {
            note(cx, tables, |reads, schema| reads.note_point(schema, index, &bytes[key.clone()]))?;
            Ok(iterators.copy(cx.state(), &mut tables.index_point(index, &bytes[key])?))
        })
    })?;
    Ok(number(cx, iterators.begin(cx, thrown(cx, copied)?)?))
}

/// `datastore_delete_by_index_scan_point_bsatn(index, buf, len)`
pub(super) fn delete_by_index_point<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, index) = (call.cx, index(call)?);
    let length = argument(call, 2, "length").u32()?;
    let deleted = argument(call, 1, "buffer")
        .parts([length], |bytes, [key]| try_write(cx, |tables| tables.delete_by_index_point(index, &bytes[key])))?;
    Ok(number(cx, thrown(cx, deleted)?))
}

/// Passes the range in the arguments `(index, buf, prefixLen, prefixElems, startLen, endLen)` to `scan`, which must not run
/// JavaScript.
fn with_range<T>(call: &Call<'_>, scan: impl FnOnce(IndexRange<'_>) -> Result<T, TablesFailure>) -> JsResult<T> {
    let prefix_columns = argument(call, 3, "prefix elements").u32()? as usize;
    let lengths = [
        argument(call, 2, "prefix length").u32()?,
        argument(call, 4, "start length").u32()?,
        argument(call, 5, "end length").u32()?,
    ];
    let scanned = argument(call, 1, "buffer").parts(lengths, |bytes, [prefix, start, end]| {
        let bound = |range: &Range<usize>| bound(&bytes[range.clone()]);
        let start = bound(&start)?;
        // A missing end is the start once more: a single value.
        let end = if end.is_empty() { start } else { bound(&end)? };
        Some(scan(IndexRange { prefix: &bytes[prefix], prefix_columns, start, end }))
    })?;
    thrown(call.cx, scanned.ok_or_else(|| bad_bound(call.cx))?)
}

/// Reads a bound: a tag, then the value unless it is unbounded.
fn bound(bytes: &[u8]) -> Option<Bound<&[u8]>> {
    match bytes.split_first()? {
        (&BOUND_INCLUDED, value) => Some(Bound::Included(value)),
        (&BOUND_EXCLUDED, value) => Some(Bound::Excluded(value)),
        (&BOUND_UNBOUNDED, []) => Some(Bound::Unbounded),
        _ => None,
    }
}

#[cold]
fn bad_bound(cx: Cx<'_>) -> Exception {
    let problem = "a bound is a tag (0 included, 1 excluded, 2 unbounded) and, unless unbounded, a value";
    errors::throw_host(cx, &SyscallError::new(SyscallError::BSATN_DECODE_ERROR, problem))
}

/// `datastore_index_scan_range_bsatn(index, buf, prefixLen, prefixElems, startLen, endLen)`
pub(super) fn index_scan_range<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, index) = (call.cx, index(call)?);
    let iterators = &state(cx).iterators;
    let copied = with_range(call, |range| {
        try_tables(cx, |tables| {
            let IndexRange { prefix, prefix_columns, start, end } = range;
            note(cx, tables, |reads, schema| reads.note_range(schema, index, prefix, prefix_columns, start, end))?;
            let mut cursor = tables.index_range(index, range)?;
            Ok(iterators.copy(cx.state(), &mut cursor))
        })
    })?;
    Ok(number(cx, iterators.begin(cx, copied)?))
}

/// `datastore_delete_by_index_scan_range_bsatn(index, buf, prefixLen, prefixElems, startLen, endLen)`
pub(super) fn delete_by_index_range<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, index) = (call.cx, index(call)?);
    let deleted = with_range(call, |range| try_write(cx, |tables| tables.delete_by_index_range(index, range)))?;
    Ok(number(cx, deleted))
}

/// Writes the row in a buffer; what was generated for its zeros goes to the buffer's start. Returns its length.
fn write<'js>(
    call: &Call<'js>,
    buffer: usize,
    length: u32,
    write: impl FnOnce(&mut OpenTables<'_>, &[u8], &mut Vec<u8>) -> Result<(), TablesFailure>,
) -> JsResult<Value<'js>> {
    let cx = call.cx;
    let kept = &cx.state().call.generated;
    let mut generated = kept.take();
    let written = argument(call, buffer, "buffer").parts([length], |bytes, [row]| {
        try_write(cx, |tables| write(tables, &bytes[row], &mut generated))?;
        // Generated values replace zeros of the same size, so they fit where the row was.
        bytes[..generated.len()].copy_from_slice(&generated);
        Ok(generated.len())
    });
    kept.set(generated);
    Ok(cx.int(thrown(cx, written?)? as i32))
}

/// `datastore_insert_bsatn(table, buf, len)`
pub(super) fn insert<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let table = table(call)?;
    let length = argument(call, 2, "length").u32()?;
    write(call, 1, length, |tables, row, generated| tables.insert(table, row, generated))
}

/// `datastore_update_bsatn(table, index, buf, len)`
pub(super) fn update<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let table = table(call)?;
    let index = IndexId::new(argument(call, 1, "index").u32()?);
    let length = argument(call, 3, "length").u32()?;
    write(call, 2, length, |tables, row, generated| tables.update(table, index, row, generated))
}

/// `datastore_delete_all_by_eq_bsatn(table, buf, len)`
pub(super) fn delete_all_by_eq<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, table) = (call.cx, table(call)?);
    let length = argument(call, 2, "length").u32()?;
    let deleted = argument(call, 1, "buffer")
        .parts([length], |bytes, [rows]| try_write(cx, |tables| tables.delete_rows(table, &bytes[rows])))?;
    Ok(number(cx, thrown(cx, deleted)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read() {
        for (bytes, expected) in [
            (&[0, 7, 8][..], Some(Bound::Included(&[7, 8][..]))),
            (&[1, 7], Some(Bound::Excluded(&[7]))),
            (&[2], Some(Bound::Unbounded)),
            (&[2, 0], None),
            (&[3], None),
            (&[], None),
        ] {
            assert_eq!(bound(bytes), expected, "{bytes:?}");
        }
    }
}
