//! A version with its materialised views.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tine_query::SubscriptionPlan;
use tine_store::Read;
use tine_tables::{DatabaseSchema, IndexId, RowCursor, TableError, TableId, TableRead, TableSchema};
use tine_types::protocol::RowListBuilder;

use super::rows::RowSet;
use super::{Form, Views};

/// The tables of a version and the views made of it, as one.
pub(crate) struct ViewTables<'a> {
    tables: &'a dyn TableRead,
    views: &'a Views,
    /// Rows of queries, as far as they were asked for.
    evaluated: RefCell<HashMap<TableId, Rc<RowSet>>>,
}

/// Rows of a view: kept ones, or those of a query.
enum Found<'a> {
    Kept(&'a RowSet),
    Made(Rc<RowSet>),
}

impl<'a> ViewTables<'a> {
    /// Reads `tables`, which must be the state that the views were made of.
    pub fn new(tables: &'a dyn TableRead, views: &'a Views) -> Self {
        ViewTables { tables, views, evaluated: RefCell::default() }
    }

    /// Evaluates a view that returns a query, so that reading it cannot fail.
    ///
    /// # Errors
    /// Its result is too large, or the tables cannot be read.
    pub fn prepare(&self, id: TableId) -> Result<(), String> {
        self.find(id).map(drop)
    }

    /// The rows of a view; `None` if the table is none.
    fn find(&self, id: TableId) -> Result<Option<Found<'_>>, String> {
        if id.is_stored() {
            return Ok(None);
        }
        let Some(view) = self.views.by_id.get(&id) else { return Ok(None) };
        let plan = match &view.form {
            Form::Rows(rows) => return Ok(Some(Found::Kept(rows))),
            Form::Query { plan, .. } => plan,
        };
        if let Some(rows) = self.evaluated.borrow().get(&id) {
            return Ok(Some(Found::Made(rows.clone())));
        }
        let rows = Rc::new(evaluate(plan, self.tables, &view.table)?);
        self.evaluated.borrow_mut().insert(id, rows.clone());
        Ok(Some(Found::Made(rows)))
    }

    fn failure(&self, id: TableId) -> TableError {
        let name = self.views.by_id.get(&id).map(|view| view.table.name.clone());
        TableError::Damaged { what: name.unwrap_or_else(|| "a view".into()) }
    }
}

impl Found<'_> {
    fn rows(&self) -> &RowSet {
        match self {
            Found::Kept(rows) => rows,
            Found::Made(rows) => rows,
        }
    }
}

/// The rows of a plan as those of a view's table.
pub(super) fn evaluate(plan: &SubscriptionPlan, tables: &dyn TableRead, table: &TableSchema) -> Result<RowSet, String> {
    let mut rows = RowListBuilder::new();
    plan.evaluate(tables, &mut rows).map_err(|error| error.to_string())?;
    let rows = rows.finish(table.static_row_size);
    RowSet::of_rows((0..rows.len()).map(|place| rows.row_bytes(place)).collect::<Vec<Bytes>>(), table)
}

impl TableRead for ViewTables<'_> {
    fn schema(&self) -> &Arc<DatabaseSchema> {
        self.tables.schema()
    }

    fn store(&self) -> &dyn Read {
        self.tables.store()
    }

    fn row_count(&self, table: TableId) -> u64 {
        match self.find(table) {
            Ok(Some(found)) => found.rows().rows().len() as u64,
            _ => self.tables.row_count(table),
        }
    }

    fn scan(&self, table: TableId) -> RowCursor<'_> {
        match self.find(table) {
            Ok(Some(Found::Kept(rows))) => RowCursor::of_rows(rows.rows()),
            Ok(Some(Found::Made(rows))) => RowCursor::of_made_rows(rows.rows().to_vec()),
            _ => self.tables.scan(table),
        }
    }

    fn index_point(&self, index: IndexId, key: &[u8]) -> Result<RowCursor<'_>, TableError> {
        // The one index of a view has the number of its table.
        let id = TableId(index.0);
        match self.find(id) {
            Ok(Some(Found::Kept(rows))) => Ok(RowCursor::of_rows(rows.find(key))),
            Ok(Some(Found::Made(rows))) => Ok(RowCursor::of_made_rows(rows.find(key).to_vec())),
            Ok(None) => self.tables.index_point(index, key),
            Err(_) => Err(self.failure(id)),
        }
    }

    fn index_range(
        &self,
        index: IndexId,
        prefix: &[u8],
        prefix_columns: usize,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Result<RowCursor<'_>, TableError> {
        self.tables.index_range(index, prefix, prefix_columns, start, end)
    }
}
