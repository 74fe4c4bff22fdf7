//! The iterators that scans return.

use super::decode::{DecodeFailure, decode_product};
use super::errors::{self, ErrorClass};
use super::raw::{Call, Cx, Exception, JsResult, Value};
use super::scan::{CollectError, Rows};

/// Adds the natives of this file to the object that the SDK gets.
pub(super) fn install<'js>(cx: Cx<'js>, native: &Value<'js>) -> JsResult<()> {
    native.define_named("rowsNext", cx.iterator_next(rows_next)?)?;
    native.define_named("rowsReturn", cx.function("return", 1, 0, rows_return)?)
}

/// An iterator over rows of a table (its position in the tables' list).
pub(super) fn iterator<'js>(cx: Cx<'js>, table: usize, rows: Result<Rows, CollectError>) -> JsResult<Value<'js>> {
    let rows = rows.map_err(|error| throw_collect(cx, &error))?;
    let id = cx.state().scans.begin(table, rows);
    cx.word_object(cx.state().boot().classes.rows, id)
}

/// Throws what rows that cannot be copied mean.
#[cold]
pub(super) fn throw_collect(cx: Cx<'_>, error: &CollectError) -> Exception {
    match error {
        CollectError::Table(error) => errors::throw_table(cx, error),
        CollectError::OutOfMemory => stop(cx, "out of memory"),
        CollectError::Stopped => stop(cx, "interrupted"),
    }
}

/// Ends the call as the engine does itself when a limit is reached.
fn stop(cx: Cx<'_>, message: &str) -> Exception {
    let class = cx.borrow(cx.state().boot().error);
    match cx.string(message).and_then(|text| class.construct(&text)) {
        Ok(error) => cx.throw_uncatchable(error),
        Err(exception) => exception,
    }
}

fn scan_id(call: &Call<'_>) -> JsResult<u64> {
    let id = call.this().word(call.cx.state().boot().classes.rows);
    id.ok_or_else(|| errors::throw(call.cx, ErrorClass::Type, "not an iterator of rows"))
}

fn rows_next<'js>(call: &Call<'js>) -> JsResult<Option<Value<'js>>> {
    let cx = call.cx;
    let state = cx.state();
    let id = scan_id(call)?;
    let next = state.scans.next(&state.heap, id, |table, reader| {
        decode_product(cx, &state.tables.get().expect("scans are of tables").tables[table].row, reader)
    });
    match next {
        None => Ok(None),
        Some(Ok(row)) => Ok(Some(row)),
        Some(Err(DecodeFailure::Exception)) => Err(Exception),
        Some(Err(DecodeFailure::Malformed(error))) => {
            Err(errors::throw_fault(cx, format!("a stored row cannot be decoded: {error}")))
        }
    }
}

/// `return(value)`: called when a loop is left early.
fn rows_return<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    cx.state().scans.end(&cx.state().heap, scan_id(call)?);
    let result = cx.object()?;
    result.define_named("value", call.arg(0).clone())?;
    result.define_named("done", cx.bool(true))?;
    Ok(result)
}
