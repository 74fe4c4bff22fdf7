//! Views across a publish. Another module makes other rows of the same tables, so nothing that was materialised stays; but subscribers
//! stay, and are told what is different for them now.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tine_tables::{ChangeSet, TableId, TableSchema};
use tine_types::Identity;

use super::Views;
use super::rows::RowSet;
use crate::clients::compile_queries;
use crate::worker::ForkWorker;

/// What subscribers saw of the views before a publish.
#[derive(Default)]
pub(crate) struct SeenViews(HashMap<(Arc<str>, Option<Identity>), RowSet>);

impl ForkWorker {
    /// Takes the views away before a publish; the second is what to give back if it fails.
    pub fn put_views_away(&mut self) -> (SeenViews, Views) {
        let views = std::mem::take(&mut self.views);
        let mut seen = SeenViews::default();
        for view in views.by_id.values() {
            // Rows that cannot be had were none for their subscribers either.
            let rows = view.form.rows_now(self.tables(), &view.table).unwrap_or_default();
            seen.0.insert((view.table.name.clone(), view.key.sender), rows);
        }
        (seen, views)
    }

    /// Compiles every subscription again for the module that was just published. Those that no longer compile end with an error,
    /// and so do those of tables whose rows look different: their subscribers could not make out rows that change their shape from
    /// one message to the next. Subscribers of views are told how their rows differ; where these look different, the plan has
    /// disconnected them.
    pub fn recompile(&mut self, changed: &HashSet<TableId>, seen: &SeenViews) {
        let mut compiled = Vec::new();
        for (subscriber, queries, caller) in self.clients.query_sets() {
            let made = self.materialise_named(queries.iter().map(|query| &**query), &caller);
            let plans = made.and_then(|extra| {
                let catalog = tine_query::Catalog { extra: &extra, ..self.module.catalog() };
                compile_queries(&queries, catalog, &caller).map_err(|error| error.to_string())
            });
            compiled.push((subscriber, plans));
        }
        let mut changes = ChangeSet::default();
        for (id, view) in &self.views.by_id {
            let Some(before) = seen.0.get(&(view.table.name.clone(), view.key.sender)) else { continue };
            if let Ok(now) = view.form.rows_now(self.tables(), &view.table) {
                changes.tables.extend(now.changes_from(before, *id));
            }
        }
        for (subscriber, plans) in compiled {
            self.clients.replace_plans(subscriber, plans, changed);
        }
        self.announce_changes(&changes);
    }

    /// Materialises the views that texts name and returns their tables.
    pub fn materialise_named<'t>(
        &mut self,
        texts: impl IntoIterator<Item = &'t str>,
        caller: &tine_query::Caller,
    ) -> Result<Vec<Arc<TableSchema>>, String> {
        self.views_named(texts, caller).into_iter().map(|key| self.materialise(key)).collect()
    }
}
