//! Rows that a bundle reads piece by piece: `row_iter_bsatn_advance` and its kin.
//!
//! A scan copies its rows when it begins, so the bundle may change the table while it reads; the copies count against the
//! instance's memory. Ids count up and are never used again, because a finalizer may close an iterator long after its call.

use std::cell::{Cell, RefCell};

use super::super::access;
use super::super::errors;
use super::super::heap::Heap;
use super::super::raw::{Call, Cx, JsResult, Value};
use super::super::rows::throw_collect;
use super::super::scan::{CollectError, Rows, collect_into};
use super::super::state::State;
use super::arguments::argument;
use crate::call::SyscallError;

/// Past this id the instance is to be replaced, long before ids run out: a call of any length fits into the other half.
const ID_REPLACE: u32 = u32::MAX / 2;

/// A spare buffer larger than this is given back, so that one large scan does not weigh on the instance for ever.
const SPARE_BYTES_MAX: usize = 64 << 10;

/// The iterators of an instance that are not finished.
#[derive(Default)]
pub(super) struct Iterators {
    open: RefCell<Vec<OpenIterator>>,
    last_id: Cell<u32>,
    /// An empty buffer for the next scan; most are of one row.
    spare: Cell<Vec<u8>>,
}

/// Rows that were copied and not yet handed out.
struct OpenIterator {
    id: u32,
    copied: CopiedRows,
    /// Bytes handed out.
    position: usize,
    /// Rows handed out.
    row: usize,
}

/// Copied rows with their boundaries.
pub(super) struct CopiedRows {
    rows: Rows,
    lengths: Lengths,
}

/// Lengths of rows. Most scans have rows of one length, or one row.
enum Lengths {
    Same { length: usize, count: usize },
    Each(Vec<u32>),
}

impl Lengths {
    /// Adds a row. Returns the bytes that it takes here.
    fn push(&mut self, length: usize) -> usize {
        match self {
            Lengths::Same { length: same, count } if *count == 0 || *same == length => {
                (*same, *count) = (length, *count + 1);
                0
            }
            Lengths::Same { length: same, count } => {
                let mut each = vec![*same as u32; *count];
                each.push(length as u32);
                let bytes = each.len() * size_of::<u32>();
                *self = Lengths::Each(each);
                bytes
            }
            Lengths::Each(each) => {
                each.push(length as u32);
                size_of::<u32>()
            }
        }
    }

    /// The length of a row; `None` past the last.
    fn get(&self, row: usize) -> Option<usize> {
        match self {
            Lengths::Same { length, count } => (row < *count).then_some(*length),
            Lengths::Each(each) => each.get(row).map(|length| *length as usize),
        }
    }
}

/// How far an iterator got.
enum Advanced {
    NoSuchIterator,
    /// This many bytes were written; whether that was all.
    Wrote {
        bytes: usize,
        is_end: bool,
    },
    /// Not even the next row fits; it has this many bytes.
    TooSmall(usize),
}

impl Iterators {
    /// Copies all rows of a cursor.
    #[inline]
    pub(super) fn copy(&self, state: &State, cursor: &mut access::Rows<'_>) -> Result<CopiedRows, CollectError> {
        let mut lengths = Lengths::Same { length: 0, count: 0 };
        let rows = collect_into(state, cursor, self.spare.take(), |length| lengths.push(length))?;
        Ok(CopiedRows { rows, lengths })
    }

    /// Begins an iterator over copied rows and returns its id.
    pub(super) fn begin(&self, cx: Cx<'_>, copied: Result<CopiedRows, CollectError>) -> JsResult<u32> {
        let copied = copied.map_err(|error| throw_collect(cx, &error))?;
        let id = self.last_id.get().checked_add(1).expect("an instance is replaced long before its ids run out");
        self.last_id.set(id);
        self.open.borrow_mut().push(OpenIterator { id, copied, position: 0, row: 0 });
        Ok(id)
    }

    /// Whether so many ids are used that the instance must be replaced.
    pub(super) fn is_worn(&self) -> bool {
        self.last_id.get() >= ID_REPLACE
    }

    /// Ends all iterators.
    #[inline]
    pub(super) fn clear(&self, heap: &Heap) {
        for iterator in self.open.borrow_mut().drain(..) {
            self.finish(heap, iterator);
        }
    }

    /// Ends one iterator. `false` if there is none with this id.
    fn close(&self, heap: &Heap, id: u32) -> bool {
        let mut open = self.open.borrow_mut();
        let Some(place) = open.iter().rposition(|iterator| iterator.id == id) else { return false };
        let iterator = open.swap_remove(place);
        self.finish(heap, iterator);
        true
    }

    fn finish(&self, heap: &Heap, iterator: OpenIterator) {
        let Rows { mut bytes, charged_bytes } = iterator.copied.rows;
        heap.discharge(charged_bytes);
        if bytes.capacity() <= SPARE_BYTES_MAX {
            bytes.clear();
            self.spare.set(bytes);
        }
    }

    /// Copies as many whole rows as fit into `out`.
    fn advance(&self, heap: &Heap, id: u32, out: &mut [u8]) -> Advanced {
        let mut open = self.open.borrow_mut();
        // The iterator in use is mostly the one begun last.
        let Some(place) = open.iter().rposition(|iterator| iterator.id == id) else { return Advanced::NoSuchIterator };
        let iterator = &mut open[place];
        // The result is a signed number of 32 bits.
        let room = out.len().min(i32::MAX as usize);
        let mut bytes = 0;
        while let Some(length) = iterator.copied.lengths.get(iterator.row) {
            if length > room - bytes {
                if bytes == 0 {
                    return Advanced::TooSmall(length);
                }
                break;
            }
            bytes += length;
            iterator.row += 1;
        }
        let end = iterator.position + bytes;
        out[..bytes].copy_from_slice(&iterator.copied.rows.bytes[iterator.position..end]);
        iterator.position = end;
        let is_end = iterator.copied.lengths.get(iterator.row).is_none();
        if is_end {
            let iterator = open.swap_remove(place);
            self.finish(heap, iterator);
        }
        Advanced::Wrote { bytes, is_end }
    }
}

/// `row_iter_bsatn_advance(iter, buf)`: the bytes written, negative if they were the last.
pub(super) fn row_iter_advance<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    let state = cx.state();
    super::session::refuse_after_fault(cx)?;
    let id = argument(call, 0, "iterator").u32()?;
    let iterators = &super::boot::state(cx).iterators;
    match argument(call, 1, "buffer").buffer(|out| iterators.advance(&state.heap, id, out))? {
        Advanced::Wrote { bytes, is_end } => Ok(cx.int(if is_end { -(bytes as i32) } else { bytes as i32 })),
        Advanced::NoSuchIterator => Err(no_such_iterator(cx)),
        Advanced::TooSmall(needed) => {
            let thrown = cx.object()?;
            thrown.define_named("__buffer_too_small__", cx.number(needed as f64))?;
            Err(cx.throw(thrown))
        }
    }
}

/// `row_iter_bsatn_close(iter)`
pub(super) fn row_iter_close<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    super::session::refuse_after_fault(cx)?;
    let id = argument(call, 0, "iterator").u32()?;
    if super::boot::state(cx).iterators.close(&cx.state().heap, id) {
        return Ok(cx.undefined());
    }
    Err(no_such_iterator(cx))
}

#[cold]
fn no_such_iterator(cx: Cx<'_>) -> super::super::raw::Exception {
    errors::throw_host(
        cx,
        &SyscallError::new(SyscallError::NO_SUCH_ITER, "there is no such iterator: it ended, or its call did"),
    )
}
