//! What a statement can name: stored tables, tables made for the caller, and the rules that hide rows.

use std::sync::Arc;

use tine_tables::{DatabaseSchema, TableSchema};

use crate::Caller;
use crate::guard::RowRules;

/// The tables that one caller's statement is bound to.
#[derive(Clone, Copy)]
pub struct Catalog<'a> {
    /// The stored tables.
    pub schema: &'a DatabaseSchema,
    /// Tables that are not stored ([`TableSchema::unstored`]): system tables, and the views made for this caller. They are found
    /// before stored ones. Whoever evaluates the statement reads them from the same [`tine_tables::TableRead`].
    pub extra: &'a [Arc<TableSchema>],
    /// Which rows of the stored tables others than the owner see.
    pub rules: &'a RowRules,
}

impl<'a> From<&'a DatabaseSchema> for Catalog<'a> {
    fn from(schema: &'a DatabaseSchema) -> Self {
        Catalog { schema, extra: &[], rules: RowRules::NONE }
    }
}

impl<'a> From<&'a Arc<DatabaseSchema>> for Catalog<'a> {
    fn from(schema: &'a Arc<DatabaseSchema>) -> Self {
        Catalog::from(&**schema)
    }
}

impl Catalog<'_> {
    /// The table of that name, if the caller may know of it.
    pub(crate) fn visible(&self, name: &str, caller: &Caller) -> Option<&Arc<TableSchema>> {
        let extra = self.extra.iter().find(|table| *table.name == *name || *table.accessor == *name);
        extra.or_else(|| self.schema.table_named(name)).filter(|table| table.public || caller.is_owner)
    }

    /// The stored tables that the caller may know of, in id order.
    pub(crate) fn visible_stored<'c>(&'c self, caller: &'c Caller) -> impl Iterator<Item = &'c Arc<TableSchema>> {
        self.schema.tables().iter().filter(|table| table.public || caller.is_owner)
    }
}
