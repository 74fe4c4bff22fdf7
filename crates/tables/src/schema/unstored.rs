//! Tables that no keyspace holds: their rows are made when somebody reads them, or kept by whoever made them.

use std::sync::Arc;

use tine_types::{ProductType, ProductTypeElement};

use super::{COLUMNS_MAX, ColumnSchema, IndexAlgorithm, IndexSchema, TableSchema};
use crate::ids::{ColumnId, IndexId, TableId};
use crate::layout::TableLayout;

impl TableSchema {
    /// A table without a keyspace. Whoever reads it supplies the rows ([`crate::RowCursor::of_rows`]).
    ///
    /// Its only index is a hash index on `primary_key`, with the table's number as its id: whoever supplies the rows answers
    /// [`crate::TableRead::index_point`] for it, too.
    ///
    /// # Panics
    /// When `id` is that of a stored table, the columns are not numbered in order or more than a table may have, or `primary_key` is
    /// none of them.
    pub fn unstored(
        id: TableId,
        name: Arc<str>,
        accessor: Arc<str>,
        columns: Vec<ColumnSchema>,
        primary_key: Option<ColumnId>,
        public: bool,
    ) -> TableSchema {
        assert!(!id.is_stored(), "the ids of stored tables are those of their keyspaces");
        assert!(columns.len() <= COLUMNS_MAX, "whoever made the row type has checked it");
        assert!(columns.iter().zip(0..).all(|(column, position)| column.position == ColumnId(position)));
        let index = primary_key.map(|column| {
            let name: Arc<str> = format!("{name}_{}_idx_hash", columns[column.position()].name).into();
            IndexSchema {
                id: IndexId(id.0),
                accessor: name.clone(),
                constraint: name.clone(),
                name,
                columns: vec![column],
                unique: true,
                algorithm: IndexAlgorithm::Hash,
                is_primary_key: true,
            }
        });
        let elements = columns
            .iter()
            .map(|column| ProductTypeElement { name: Some((&*column.name).into()), ty: column.ty.clone() });
        let row_type = ProductType { elements: elements.collect() };
        TableSchema {
            id,
            name,
            accessor,
            static_row_size: row_type.static_bsatn_size(),
            layout: TableLayout::new(&columns, primary_key),
            row_type,
            columns,
            primary_key,
            indexes: index.into_iter().collect(),
            sequences: Vec::new(),
            defaults: Vec::new(),
            public,
            is_event: false,
            schedule: None,
        }
    }
}
