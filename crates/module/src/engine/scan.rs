//! The rows that iterators have yet to return.
//!
//! A scan copies its rows when it begins, so that the module may change the table while it iterates; the copies count
//! against the instance's memory. Scans belong to one call (or transaction) and are dropped with it.

use std::cell::{Cell, RefCell};

use tine_tables::TableError;
use tine_types::bsatn::{DecodeError, Reader};

use super::access;
use super::heap::Heap;
use super::state::State;

/// Rows are charged to the instance in pieces of this many bytes: rarely enough to cost nothing.
const CHARGE_BYTES: usize = 64 << 10;

/// How many rows are copied between looks at the clock.
const ROWS_PER_CHECK: usize = 1024;

/// Bytes charged for the scan itself.
const SCAN_BYTES: usize = 128;

/// The scans of an instance that are not finished.
#[derive(Default)]
pub(super) struct Scans {
    open: RefCell<Vec<Scan>>,
    last_id: Cell<u64>,
}

struct Scan {
    id: u64,
    table: usize,
    rows: Rows,
    position: usize,
}

/// Copied rows, one behind the other. Invariant: `charged_bytes` of them were charged.
pub(super) struct Rows {
    pub(super) bytes: Vec<u8>,
    pub(super) charged_bytes: usize,
}

/// Why rows cannot be copied.
pub(super) enum CollectError {
    /// The instance's memory is used up.
    OutOfMemory,
    /// The call's time is used up.
    Stopped,
    /// The table cannot be read.
    Table(TableError),
}

/// Copies all rows of a cursor.
pub(super) fn collect(state: &State, cursor: &mut access::Rows<'_>) -> Result<Rows, CollectError> {
    collect_into(state, cursor, Vec::new(), |_| 0)
}

/// Copies all rows of a cursor into `bytes`, which must be empty. `each` is told every row's length and returns how many more
/// bytes the caller keeps for the row.
#[inline]
pub(super) fn collect_into(
    state: &State,
    cursor: &mut access::Rows<'_>,
    bytes: Vec<u8>,
    each: impl FnMut(usize) -> usize,
) -> Result<Rows, CollectError> {
    let mut rows = Rows { bytes, charged_bytes: 0 };
    let copied = copy_rows(state, cursor, &mut rows, each);
    if copied.is_err() {
        state.heap.discharge(rows.charged_bytes);
    }
    copied.map(|()| rows)
}

fn copy_rows(
    state: &State,
    cursor: &mut access::Rows<'_>,
    rows: &mut Rows,
    mut each: impl FnMut(usize) -> usize,
) -> Result<(), CollectError> {
    if !state.heap.charge(SCAN_BYTES) {
        return Err(CollectError::OutOfMemory);
    }
    rows.charged_bytes = SCAN_BYTES;
    let (mut count, mut kept_bytes) = (0, 0);
    while let Some(row) = cursor.next().map_err(CollectError::Table)? {
        kept_bytes += each(row.len());
        let needed = rows.bytes.len() + row.len() + kept_bytes + SCAN_BYTES;
        if needed > rows.charged_bytes {
            let more = (needed - rows.charged_bytes).next_multiple_of(CHARGE_BYTES.min(needed.next_power_of_two()));
            if !state.heap.charge(more) {
                return Err(CollectError::OutOfMemory);
            }
            rows.charged_bytes += more;
        }
        rows.bytes.extend_from_slice(row);
        count += 1;
        if count % ROWS_PER_CHECK == 0 && state.guard.should_stop() {
            return Err(CollectError::Stopped);
        }
    }
    Ok(())
}

impl Scans {
    /// Begins a scan over copied rows of a table (its position in the tables' list). Returns its id.
    pub(super) fn begin(&self, table: usize, rows: Rows) -> u64 {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        self.open.borrow_mut().push(Scan { id, table, rows, position: 0 });
        id
    }

    /// Reads the next row of a scan with `read`, which gets the table's position; `None` at the end, which ends the scan.
    /// `read` must not run code of the user's.
    pub(super) fn next<T, E: From<DecodeError>>(
        &self,
        heap: &Heap,
        id: u64,
        read: impl FnOnce(usize, &mut Reader<'_>) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let mut open = self.open.borrow_mut();
        // The scan in use is mostly the one begun last.
        let place = open.iter().rposition(|scan| scan.id == id)?;
        let scan = &mut open[place];
        if scan.position == scan.rows.bytes.len() {
            let scan = open.swap_remove(place);
            heap.discharge(scan.rows.charged_bytes);
            return None;
        }
        let mut reader = Reader::at(&scan.rows.bytes, scan.position);
        let row = read(scan.table, &mut reader);
        scan.position = reader.position();
        Some(row)
    }

    /// Ends a scan; does nothing if it has ended.
    pub(super) fn end(&self, heap: &Heap, id: u64) {
        let mut open = self.open.borrow_mut();
        if let Some(place) = open.iter().rposition(|scan| scan.id == id) {
            heap.discharge(open.swap_remove(place).rows.charged_bytes);
        }
    }

    /// Ends all scans.
    pub(super) fn clear(&self, heap: &Heap) {
        for scan in self.open.borrow_mut().drain(..) {
            heap.discharge(scan.rows.charged_bytes);
        }
    }
}
