//! Views: rows that a module makes of its tables, read and subscribed to like a table.
//!
//! A view is *materialised* while somebody subscribes to it, once for everybody or once for each sender, and for the time of one
//! query when nobody does. A materialised view is a table that is not stored: it has an id of its own, so plans over it are
//! shared, and when a commit changes its rows its change is one more entry of the commit's change set. All of it is state
//! of the worker and not of the version: a fork begins without, and makes its own.
//!
//! A view that returned rows is kept with what it has read; before a commit those whose reads were touched run again, in the
//! transaction that touched them. A view that returned a query is not kept at all: its change follows from the commit's changes at a
//! cost that depends on these alone.
//!
//! # Invariants
//!
//! 1. Between two requests every materialised view's rows are those that it would return now.
//! 2. A view that fails takes nobody down but its own subscribers: the transaction goes on without it. One that had to be stopped
//!    is disabled until the next publish.
//! 3. A module without views pays for none of this but a look at an empty map.

mod publish;
mod read;
mod refresh;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tine_query::{SubscriptionIndex, SubscriptionPlan};
use tine_tables::{ReadSet, Readers, TableId, TableSchema};
use tine_types::Identity;

use crate::module::DefinedView;
pub(crate) use read::ViewTables;
use rows::RowSet;

/// Views that may be materialised on a fork: far above what applications need with a few views for each of a thousand clients, and
/// low enough that what is kept of each stays within some megabytes.
pub(crate) const VIEWS_MAX: usize = 65_536;

/// Bytes of rows of all materialised views of a fork. Views that return queries do not count: their rows are not kept.
pub(crate) const VIEW_BYTES_MAX: usize = 256 << 20;

/// Ids below are those of system tables.
const FIRST_ID: u32 = TableId::UNSTORED_MIN.0 + 4096;

/// A view, for everybody or for one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ViewKey {
    /// Position among the module's views.
    pub view: u32,
    /// `None` for anonymous views.
    pub sender: Option<Identity>,
}

/// What a view consists of now.
#[derive(Debug)]
enum Form {
    Rows(RowSet),
    Query { text: Box<str>, plan: Arc<SubscriptionPlan> },
}

/// A view that is kept up to date.
#[derive(Debug)]
struct Materialised {
    key: ViewKey,
    table: Arc<TableSchema>,
    form: Form,
    reads: ReadSet,
}

/// The materialised views of a fork.
#[derive(Debug, Default)]
pub(crate) struct Views {
    by_id: BTreeMap<TableId, Materialised>,
    by_key: HashMap<ViewKey, TableId>,
    readers: Readers<TableId>,
    /// The plans of those that return queries.
    queries: SubscriptionIndex<TableId>,
    /// Views that had to be stopped, with why.
    disabled: HashMap<u32, Box<str>>,
    row_bytes: usize,
    /// Tables made so far.
    made: u32,
    /// A view was materialised, perhaps for a query only.
    is_new: bool,
}

impl Views {
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The table of a view, if it is materialised.
    pub fn table(&self, key: &ViewKey) -> Option<&Arc<TableSchema>> {
        let id = self.by_key.get(key)?;
        Some(&self.by_id[id].table)
    }

    /// An unstored table for a view. Ids are not used again as long as the worker lives; after two thousand million of them they would
    /// begin anew, when the first are long forgotten.
    fn new_table(&mut self, view: &DefinedView) -> Arc<TableSchema> {
        let id = TableId(FIRST_ID + self.made % (u32::MAX - FIRST_ID));
        self.made = self.made.wrapping_add(1);
        Arc::new(TableSchema::unstored(
            id,
            view.name.clone(),
            view.accessor.clone(),
            view.columns.clone(),
            view.primary_key,
            view.public,
        ))
    }

    fn insert(&mut self, view: Materialised) {
        let id = view.table.id;
        self.readers.add(id, &view.reads);
        self.by_key.insert(view.key, id);
        self.row_bytes += view.form.row_bytes();
        self.is_new = true;
        if let Form::Query { plan, .. } = &view.form {
            self.queries.add(id, vec![plan.clone()]);
        }
        let replaced = self.by_id.insert(id, view);
        assert!(replaced.is_none(), "a view is taken out before it is put in again");
    }

    fn remove(&mut self, id: TableId) -> Option<Materialised> {
        let view = self.by_id.remove(&id)?;
        self.readers.remove(id, &view.reads);
        self.by_key.remove(&view.key);
        self.queries.remove(id);
        self.row_bytes -= view.form.row_bytes();
        Some(view)
    }

    /// Whether views were materialised since this was asked last.
    pub fn take_made(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    /// Forgets the views that nobody subscribes to.
    pub fn sweep(&mut self, is_watched: impl Fn(TableId) -> bool) {
        let unwatched: Vec<TableId> = self.by_id.keys().copied().filter(|id| !is_watched(*id)).collect();
        for id in unwatched {
            self.remove(id);
        }
    }
}

impl Form {
    fn row_bytes(&self) -> usize {
        match self {
            Form::Rows(rows) => rows.bytes(),
            Form::Query { .. } => 0,
        }
    }
}
