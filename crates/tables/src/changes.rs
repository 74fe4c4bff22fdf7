//! What a transaction changed: recorded as it runs, reduced to a net difference at its end.
//!
//! While a transaction runs its effective row operations are appended to one list
//! ([`PendingChanges`]); a savepoint is a length of that list. Because rows are a set, the operations
//! on one row alternate between insert and delete: an odd number of them nets to the first one, an
//! even number to nothing. So nothing has to be looked up when an operation is recorded, and the
//! common transaction (one insert, or only inserts) needs no matching at the end either.

use std::collections::HashMap;

use bytes::Bytes;
use tine_store::Change;

use crate::error::TableError;
use crate::ids::TableId;
use crate::schema::DatabaseSchema;

/// Most bytes of rows and bookkeeping one transaction may change. The log bounds the bytes that are written; this also
/// covers what is not: the rows a transaction deletes and the events it announces.
pub const TRANSACTION_BYTES_MAX: usize = 1 << 30;

/// Bookkeeping bytes charged for each row operation beside the row itself.
const CHANGE_OVERHEAD_BYTES: usize = 64;

/// Up to this many operations on a table are matched by comparing each pair; beyond it through a
/// hash map.
const PAIRWISE_CHANGES_MAX: usize = 8;

/// The net difference between the states before and after a transaction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChangeSet {
    /// One entry per changed table, in the order of first change. No entry is empty.
    pub tables: Vec<TableChanges>,
}

/// The net difference of one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableChanges {
    /// The changed table.
    pub table: TableId,
    /// Rows (BSATN) that are there after and were not before, in the order inserted. For an event
    /// table: every event, duplicates included; they are not stored.
    pub inserts: Vec<Bytes>,
    /// Rows (BSATN) that were there before and are not after, in the order deleted.
    pub deletes: Vec<Bytes>,
}

impl ChangeSet {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The changes of one table, if it has any.
    pub fn table(&self, table: TableId) -> Option<&TableChanges> {
        self.tables.iter().find(|changes| changes.table == table)
    }

    /// The row changes among changes of the store, as reverting a checkpoint returns them. Changes of
    /// other keyspaces (indexes, sequences, the caller's own) are left out.
    pub fn of_store_changes(schema: &DatabaseSchema, changes: &[Change]) -> ChangeSet {
        let mut set = ChangeSet::default();
        for change in changes {
            let Some(table) = schema.table(TableId(change.keyspace.get())) else { continue };
            let position = set.tables.iter().position(|changes| changes.table == table.id);
            let position = position.unwrap_or_else(|| {
                set.tables.push(TableChanges { table: table.id, inserts: Vec::new(), deletes: Vec::new() });
                set.tables.len() - 1
            });
            set.tables[position].inserts.extend(change.new.clone());
            set.tables[position].deletes.extend(change.old.clone());
        }
        set
    }

    /// The change that undoes this one: inserts and deletes swapped. Events are not undone and drop
    /// out, which is why the caller says which tables hold them.
    pub fn inverse(&self, is_event: impl Fn(TableId) -> bool) -> ChangeSet {
        let tables = self.tables.iter().filter(|changes| !is_event(changes.table));
        let swap = |changes: &TableChanges| TableChanges {
            table: changes.table,
            inserts: changes.deletes.clone(),
            deletes: changes.inserts.clone(),
        };
        ChangeSet { tables: tables.map(swap).collect() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ChangeKind {
    Insert,
    Delete,
    /// A row of an event table: never cancelled, never stored.
    Event,
}

#[derive(Debug)]
struct RowChange {
    table: TableId,
    kind: ChangeKind,
    row: Bytes,
}

impl RowChange {
    fn alone(self) -> TableChanges {
        let (inserts, deletes) = match self.kind {
            ChangeKind::Insert | ChangeKind::Event => (vec![self.row], Vec::new()),
            ChangeKind::Delete => (Vec::new(), vec![self.row]),
        };
        TableChanges { table: self.table, inserts, deletes }
    }
}

/// The row operations of the open transaction, in order.
#[derive(Debug, Default)]
pub struct PendingChanges {
    list: Vec<RowChange>,
    bytes: usize,
}

/// A point in the list of pending changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangeMark {
    length: usize,
    bytes: usize,
}

impl PendingChanges {
    /// Row operations so far, including ones that cancel each other.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether no row operation took effect so far.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The rows inserted, deleted or raised as events so far, in order, with their tables.
    pub fn rows(&self) -> impl Iterator<Item = (TableId, &[u8])> {
        self.list.iter().map(|change| (change.table, &*change.row))
    }

    pub(crate) fn push(&mut self, table: TableId, kind: ChangeKind, row: Bytes) -> Result<(), TableError> {
        let bytes = self.bytes + row.len() + CHANGE_OVERHEAD_BYTES;
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(TableError::TransactionTooLarge { limit_bytes: TRANSACTION_BYTES_MAX });
        }
        self.bytes = bytes;
        self.list.push(RowChange { table, kind, row });
        Ok(())
    }

    pub(crate) fn mark(&self) -> ChangeMark {
        ChangeMark { length: self.list.len(), bytes: self.bytes }
    }

    pub(crate) fn truncate_to(&mut self, mark: ChangeMark) {
        assert!(mark.length <= self.list.len(), "a savepoint is used once, inner ones first");
        self.list.truncate(mark.length);
        self.bytes = mark.bytes;
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.bytes = 0;
    }

    /// The net difference so far; the list is emptied.
    pub(crate) fn take(&mut self) -> ChangeSet {
        self.bytes = 0;
        if self.list.len() == 1 {
            return ChangeSet { tables: self.list.drain(..).map(RowChange::alone).collect() };
        }
        let mut groups: Vec<TableGroup> = Vec::new();
        for change in self.list.drain(..) {
            let group = match groups.iter().position(|group| group.table == change.table) {
                Some(position) => &mut groups[position],
                None => {
                    groups.push(TableGroup::new(change.table));
                    groups.last_mut().expect("just pushed")
                }
            };
            group.has_deletes |= change.kind == ChangeKind::Delete;
            group.has_inserts |= change.kind != ChangeKind::Delete;
            group.changes.push((change.kind, change.row));
        }
        let tables = groups.into_iter().filter_map(TableGroup::net).collect();
        ChangeSet { tables }
    }
}

struct TableGroup {
    table: TableId,
    changes: Vec<(ChangeKind, Bytes)>,
    has_inserts: bool,
    has_deletes: bool,
}

impl TableGroup {
    fn new(table: TableId) -> TableGroup {
        TableGroup { table, changes: Vec::new(), has_inserts: false, has_deletes: false }
    }

    fn net(self) -> Option<TableChanges> {
        let mut net = TableChanges { table: self.table, inserts: Vec::new(), deletes: Vec::new() };
        let remains = if self.has_inserts && self.has_deletes {
            remaining(&self.changes)
        } else {
            vec![true; self.changes.len()]
        };
        for ((kind, row), remains) in self.changes.into_iter().zip(remains) {
            match (remains, kind) {
                (false, _) => {}
                (true, ChangeKind::Delete) => net.deletes.push(row),
                (true, ChangeKind::Insert | ChangeKind::Event) => net.inserts.push(row),
            }
        }
        (!net.inserts.is_empty() || !net.deletes.is_empty()).then_some(net)
    }
}

/// Which operations are left when each is cancelled by the next one on the same row.
fn remaining(changes: &[(ChangeKind, Bytes)]) -> Vec<bool> {
    let mut remains = vec![true; changes.len()];
    let mut cancel = |earlier: usize, later: usize| {
        assert!(changes[earlier].0 != changes[later].0, "operations on one row alternate");
        remains[earlier] = false;
        remains[later] = false;
    };
    if changes.len() <= PAIRWISE_CHANGES_MAX {
        let mut open: Vec<usize> = Vec::with_capacity(changes.len());
        for (later, (_, row)) in changes.iter().enumerate() {
            match open.iter().position(|&earlier| changes[earlier].1 == *row) {
                Some(position) => cancel(open.swap_remove(position), later),
                None => open.push(later),
            }
        }
    } else {
        let mut open: HashMap<&[u8], usize> = HashMap::with_capacity(changes.len());
        for (later, (_, row)) in changes.iter().enumerate() {
            match open.remove(row.as_ref()) {
                Some(earlier) => cancel(earlier, later),
                None => {
                    open.insert(row, later);
                }
            }
        }
    }
    remains
}

#[cfg(test)]
mod tests {
    use super::*;
    use ChangeKind::{Delete, Insert};

    fn net_of(script: &[(u32, ChangeKind, &'static str)]) -> Vec<(u32, Vec<Bytes>, Vec<Bytes>)> {
        let mut pending = PendingChanges::default();
        for (table, kind, row) in script {
            pending.push(TableId(*table), *kind, Bytes::from_static(row.as_bytes())).unwrap();
        }
        let set = pending.take();
        assert!(pending.is_empty());
        set.tables.into_iter().map(|table| (table.table.0, table.inserts, table.deletes)).collect()
    }

    fn rows(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    #[test]
    fn operations_reduce_to_a_net_difference() {
        type Case = (
            &'static [(u32, ChangeKind, &'static str)],
            &'static [(u32, &'static [&'static str], &'static [&'static str])],
        );
        let cases: &[Case] = &[
            (&[], &[]),
            (&[(1, Insert, "a")], &[(1, &["a"], &[])]),
            (&[(1, Insert, "a"), (1, Delete, "a")], &[]),
            (&[(1, Delete, "a"), (1, Insert, "a")], &[]),
            (&[(1, Delete, "a"), (1, Insert, "b")], &[(1, &["b"], &["a"])]),
            (&[(1, Insert, "a"), (1, Delete, "a"), (1, Insert, "a")], &[(1, &["a"], &[])]),
            (&[(1, Insert, "a"), (2, Delete, "a")], &[(1, &["a"], &[]), (2, &[], &["a"])]),
            (&[(1, Insert, "b"), (1, Insert, "a"), (1, Delete, "b"), (1, Delete, "c")], &[(1, &["a"], &["c"])]),
        ];
        for (script, expected) in cases {
            let expected: Vec<_> = expected
                .iter()
                .map(|(table, inserts, deletes)| {
                    let own =
                        |texts: &[&str]| texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
                    (*table, own(inserts), own(deletes))
                })
                .collect();
            assert_eq!(net_of(script), expected, "{script:?}");
        }
    }

    #[test]
    fn many_operations_reduce_like_few() {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        let mut script: Vec<_> = names.iter().map(|name| (1, Insert, *name)).collect();
        script.extend(names[..9].iter().map(|name| (1, Delete, *name)));
        script.push((1, Insert, "a"));
        let net = net_of(&script);
        assert_eq!(net.len(), 1);
        assert_eq!(net[0].1, rows(&["j", "a"]));
        assert!(net[0].2.is_empty());
    }

    #[test]
    fn a_mark_takes_back_what_came_after() {
        let mut pending = PendingChanges::default();
        pending.push(TableId(1), Insert, Bytes::from_static(b"a")).unwrap();
        let mark = pending.mark();
        pending.push(TableId(1), Delete, Bytes::from_static(b"a")).unwrap();
        pending.truncate_to(mark);
        assert_eq!(pending.take().tables[0].inserts, rows(&["a"]));
    }

    #[test]
    fn a_transaction_has_a_size_limit() {
        let mut pending = PendingChanges::default();
        let row = Bytes::from(vec![0; TRANSACTION_BYTES_MAX / 4]);
        for _ in 0..3 {
            pending.push(TableId(1), Insert, row.clone()).unwrap();
        }
        let mark = pending.mark();
        let refused = pending.push(TableId(1), Insert, row).unwrap_err();
        assert_eq!(refused.code(), "TN0312");
        assert_eq!(pending.mark().length, mark.length);
    }

    #[test]
    fn inverse_swaps_and_leaves_events_out() {
        let mut pending = PendingChanges::default();
        pending.push(TableId(1), Insert, Bytes::from_static(b"a")).unwrap();
        pending.push(TableId(2), ChangeKind::Event, Bytes::from_static(b"e")).unwrap();
        let inverse = pending.take().inverse(|table| table == TableId(2));
        assert_eq!(inverse.tables.len(), 1);
        assert_eq!(inverse.tables[0].deletes, rows(&["a"]));
    }
}
