//! Row changes on their way to clients.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::bsatn::BsatnWrite;
use crate::protocol::RowList;

/// What one commit changed for one client.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TransactionUpdate {
    /// The affected query sets.
    pub query_sets: Vec<QuerySetUpdate>,
}

/// What one commit changed in one query set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuerySetUpdate {
    /// The set.
    pub query_set_id: u32,
    /// The affected tables. Shared: all clients with the query get the same update.
    pub tables: Vec<Arc<TableUpdate>>,
}

/// What one commit changed in the result of one query. Not to be changed once it was encoded, which
/// sharing it in an `Arc` sees to.
#[derive(Debug)]
pub struct TableUpdate {
    /// The table's canonical name.
    pub table: Arc<str>,
    /// The rows.
    pub rows: TableUpdateRows,
    /// The encoding, made when first needed.
    encoded: OnceLock<Bytes>,
}

/// Rows that a commit changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TableUpdateRows {
    /// Rows of a table that keeps them.
    Persistent {
        /// Rows that are there now.
        inserts: RowList,
        /// Rows that are gone.
        deletes: RowList,
    },
    /// Rows of an event table.
    Event {
        /// Rows that were announced.
        events: RowList,
    },
}

const PERSISTENT: u8 = 0;
const EVENT: u8 = 1;

impl TableUpdateRows {
    fn encoded_len(&self) -> usize {
        1 + match self {
            Self::Persistent { inserts, deletes } => inserts.encoded_len() + deletes.encoded_len(),
            Self::Event { events } => events.encoded_len(),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Persistent { inserts, deletes } => {
                out.put_u8(PERSISTENT);
                inserts.encode(out);
                deletes.encode(out);
            }
            Self::Event { events } => {
                out.put_u8(EVENT);
                events.encode(out);
            }
        }
    }
}

impl TableUpdate {
    /// An update of `table`.
    pub fn new(table: Arc<str>, rows: TableUpdateRows) -> Self {
        Self { table, rows, encoded: OnceLock::new() }
    }

    /// Size of the encoding in bytes.
    pub fn encoded_len(&self) -> usize {
        4 + self.table.len() + 4 + self.rows.encoded_len()
    }

    /// The encoding: made by the first call, the same for all.
    pub fn encoded(&self) -> &Bytes {
        self.encoded.get_or_init(|| {
            let mut out = Vec::with_capacity(self.encoded_len());
            self.encode_fresh(&mut out);
            assert_eq!(out.len(), self.encoded_len(), "the size was announced");
            out.into()
        })
    }

    fn encode_fresh(&self, out: &mut Vec<u8>) {
        out.put_str(&self.table);
        out.put_len(1);
        self.rows.encode(out);
    }
}

impl Clone for TableUpdate {
    fn clone(&self) -> Self {
        let Self { table, rows, encoded } = self;
        Self { table: table.clone(), rows: rows.clone(), encoded: encoded.clone() }
    }
}

impl PartialEq for TableUpdate {
    fn eq(&self, other: &Self) -> bool {
        self.table == other.table && self.rows == other.rows
    }
}

impl Eq for TableUpdate {}

impl TransactionUpdate {
    /// Whether no query set was affected.
    pub fn is_empty(&self) -> bool {
        self.query_sets.is_empty()
    }

    /// Size of the encoding in bytes.
    pub fn encoded_len(&self) -> usize {
        let sets = self.query_sets.iter();
        let tables = |set: &QuerySetUpdate| -> usize { set.tables.iter().map(|table| table.encoded_len()).sum() };
        4 + sets.map(|set| 8 + tables(set)).sum::<usize>()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_len(self.query_sets.len());
        for set in &self.query_sets {
            out.put_u32(set.query_set_id);
            out.put_len(set.tables.len());
            for table in &set.tables {
                // An update that only one client holds is written once and needs no copy kept.
                if Arc::strong_count(table) == 1 && table.encoded.get().is_none() {
                    table.encode_fresh(out);
                } else {
                    out.extend_from_slice(table.encoded());
                }
            }
        }
    }
}
