//! What edits leave to older versions, in bytes.
//!
//! An edit copies a node that another version holds. If a pinned version holds it, its bytes stay in memory for that
//! version alone. Nodes are stamped with the epoch they were made in; epochs rise with every pin, so a copied node with
//! an earlier stamp than the present epoch is one that the last pin holds, and a hot node copied again and again within
//! an epoch counts once.
//!
//! The numbers are kept per thread and collected by whoever edits or frees: an edit must not touch shared counters.

use std::cell::Cell;

struct Meter {
    epoch: Cell<u64>,
    displaced_bytes: Cell<u64>,
    freed_bytes: Cell<u64>,
}

thread_local! {
    static METER: Meter =
        const { Meter { epoch: Cell::new(0), displaced_bytes: Cell::new(0), freed_bytes: Cell::new(0) } };
}

/// The epoch of the edits that follow on this thread.
pub(crate) fn enter(epoch: u64) {
    METER.with(|meter| meter.epoch.set(epoch));
}

/// The stamp of a node that is made now.
pub(super) fn epoch() -> u64 {
    METER.with(|meter| meter.epoch.get())
}

/// Notes that a node of that stamp was copied, and so left to older versions.
pub(super) fn displace(born: u64, bytes: usize) {
    METER.with(|meter| {
        if born < meter.epoch.get() {
            meter.displaced_bytes.set(meter.displaced_bytes.get() + bytes as u64);
        }
    });
}

/// Notes that memory of the tree was freed.
pub(super) fn free(bytes: usize) {
    METER.with(|meter| meter.freed_bytes.set(meter.freed_bytes.get().wrapping_add(bytes as u64)));
}

/// Bytes left to older versions by this thread's edits since the last call.
pub(crate) fn take_displaced() -> u64 {
    METER.with(|meter| meter.displaced_bytes.take())
}

/// Bytes of nodes that `work` frees.
pub(crate) fn freed_by(work: impl FnOnce()) -> u64 {
    let before = METER.with(|meter| meter.freed_bytes.get());
    work();
    METER.with(|meter| meter.freed_bytes.get()).wrapping_sub(before)
}
