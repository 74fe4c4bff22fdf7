//! System tables: what a database says about itself in SQL.
//!
//! They are made when a statement names them, from the module, the schema and the connections; nothing of them is stored, and they
//! are read-only and for one-off queries and HTTP `sql` only. Names, columns and their meaning are the peer's. What is not: others
//! than the owner see of them what they see of the database. They learn nothing of private tables, of other clients, of the program
//! or of the rules.

use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tine_query::Caller;
use tine_store::Read;
use tine_tables::{
    ColumnId, ColumnSchema, DatabaseSchema, IndexAlgorithm, IndexId, IndexSchema, RowCursor, TableError, TableId,
    TableRead, TableSchema,
};
use tine_types::bsatn::{BsatnWrite, encode_type};
use tine_types::{AlgebraicType, Identity, ProductType, SumType};

use crate::client::ClientInfo;
use crate::meta::Meta;
use crate::module::ActiveModule;

/// What every name of a system table begins with; modules cannot use it.
const PREFIX: &str = "st_";

/// Whether the text may name a system table: a cheap test that is rarely wrong, and never when one is named.
pub(crate) fn may_be_named(text: &str) -> bool {
    text.contains(PREFIX)
}

/// Whether the text is a statement that names a system table.
pub(crate) fn names_one(text: &str) -> bool {
    may_be_named(text)
        && tine_query::names_of(text).iter().any(|name| schemas().iter().any(|table| *table.name == **name))
}

/// Whether the text may name a table of connections, which only the worker knows.
pub(crate) fn needs_clients(text: &str) -> bool {
    text.contains("st_client") || text.contains("st_connection_credentials")
}

/// A system table. The position in [`SystemTable::ALL`] is its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SystemTable {
    Table,
    Column,
    Index,
    Constraint,
    Sequence,
    Module,
    Client,
    Var,
    Scheduled,
    RowLevelSecurity,
    ConnectionCredentials,
    View,
    ViewParam,
    ViewColumn,
    EventTable,
    TableAccessor,
    ColumnAccessor,
    IndexAccessor,
}

impl SystemTable {
    const ALL: [SystemTable; 18] = [
        SystemTable::Table,
        SystemTable::Column,
        SystemTable::Index,
        SystemTable::Constraint,
        SystemTable::Sequence,
        SystemTable::Module,
        SystemTable::Client,
        SystemTable::Var,
        SystemTable::Scheduled,
        SystemTable::RowLevelSecurity,
        SystemTable::ConnectionCredentials,
        SystemTable::View,
        SystemTable::ViewParam,
        SystemTable::ViewColumn,
        SystemTable::EventTable,
        SystemTable::TableAccessor,
        SystemTable::ColumnAccessor,
        SystemTable::IndexAccessor,
    ];

    fn id(self) -> TableId {
        TableId(TableId::UNSTORED_MIN.0 + self as u32)
    }

    fn of(id: TableId) -> Option<SystemTable> {
        SystemTable::ALL.get(id.0.checked_sub(TableId::UNSTORED_MIN.0)? as usize).copied()
    }

    fn name(self) -> &'static str {
        match self {
            SystemTable::Table => "st_table",
            SystemTable::Column => "st_column",
            SystemTable::Index => "st_index",
            SystemTable::Constraint => "st_constraint",
            SystemTable::Sequence => "st_sequence",
            SystemTable::Module => "st_module",
            SystemTable::Client => "st_client",
            SystemTable::Var => "st_var",
            SystemTable::Scheduled => "st_scheduled",
            SystemTable::RowLevelSecurity => "st_row_level_security",
            SystemTable::ConnectionCredentials => "st_connection_credentials",
            SystemTable::View => "st_view",
            SystemTable::ViewParam => "st_view_param",
            SystemTable::ViewColumn => "st_view_column",
            SystemTable::EventTable => "st_event_table",
            SystemTable::TableAccessor => "st_table_accessor",
            SystemTable::ColumnAccessor => "st_column_accessor",
            SystemTable::IndexAccessor => "st_index_accessor",
        }
    }

    /// Whether others than the owner can name it.
    fn is_public(self) -> bool {
        !matches!(self, SystemTable::Module | SystemTable::RowLevelSecurity | SystemTable::ConnectionCredentials)
    }

    fn columns(self) -> Vec<(&'static str, AlgebraicType)> {
        use AlgebraicType as T;
        let list = || T::array(T::U16);
        let of_columns = || T::Product(ProductType::named([("columns", list())]));
        match self {
            SystemTable::Table => vec![
                ("table_id", T::U32),
                ("table_name", T::String),
                ("table_type", T::String),
                ("table_access", T::String),
                ("table_primary_key", T::option(list())),
            ],
            SystemTable::Column => {
                vec![("table_id", T::U32), ("col_pos", T::U16), ("col_name", T::String), ("col_type", T::bytes())]
            }
            SystemTable::Index => {
                let direct = T::Product(ProductType::named([("column", T::U16)]));
                let algorithm = SumType::named([("BTree", of_columns()), ("Hash", of_columns()), ("Direct", direct)]);
                vec![
                    ("index_id", T::U32),
                    ("table_id", T::U32),
                    ("index_name", T::String),
                    ("index_algorithm", T::Sum(algorithm)),
                ]
            }
            SystemTable::Constraint => vec![
                ("constraint_id", T::U32),
                ("constraint_name", T::String),
                ("table_id", T::U32),
                ("constraint_data", T::Sum(SumType::named([("Unique", of_columns())]))),
            ],
            SystemTable::Sequence => vec![
                ("sequence_id", T::U32),
                ("sequence_name", T::String),
                ("table_id", T::U32),
                ("col_pos", T::U16),
                ("increment", T::I128),
                ("start", T::I128),
                ("min_value", T::I128),
                ("max_value", T::I128),
            ],
            SystemTable::Module => vec![
                ("database_identity", T::identity()),
                ("owner_identity", T::identity()),
                ("program_kind", T::U8),
                ("program_hash", T::U256),
                ("program_bytes", T::bytes()),
                ("module_version", T::String),
            ],
            SystemTable::Client => vec![("identity", T::identity()), ("connection_id", T::connection_id())],
            SystemTable::Var => vec![("name", T::String), ("value", T::Sum(SumType::named([("U64", T::U64)])))],
            SystemTable::Scheduled => vec![
                ("schedule_id", T::U32),
                ("table_id", T::U32),
                ("reducer_name", T::String),
                ("schedule_name", T::String),
                ("at_column", T::U16),
            ],
            SystemTable::RowLevelSecurity => vec![("table_id", T::U32), ("sql", T::String)],
            SystemTable::ConnectionCredentials => {
                vec![("connection_id", T::connection_id()), ("jwt_payload", T::String)]
            }
            SystemTable::View => {
                vec![("view_id", T::U32), ("view_name", T::String), ("is_public", T::Bool), ("is_anonymous", T::Bool)]
            }
            SystemTable::ViewParam => {
                vec![("view_id", T::U32), ("param_pos", T::U16), ("param_name", T::String), ("param_type", T::bytes())]
            }
            SystemTable::ViewColumn => {
                vec![("view_id", T::U32), ("col_pos", T::U16), ("col_name", T::String), ("col_type", T::bytes())]
            }
            SystemTable::EventTable => vec![("table_id", T::U32)],
            SystemTable::TableAccessor => vec![("table_name", T::String), ("accessor_name", T::String)],
            SystemTable::ColumnAccessor => {
                vec![("table_name", T::String), ("col_name", T::String), ("accessor_name", T::String)]
            }
            SystemTable::IndexAccessor => vec![("index_name", T::String), ("accessor_name", T::String)],
        }
    }

    fn schema(self) -> TableSchema {
        let columns = self.columns().into_iter().zip(0..).map(|((name, ty), position)| ColumnSchema {
            name: name.into(),
            accessor: name.into(),
            ty,
            position: ColumnId(position),
        });
        TableSchema::unstored(
            self.id(),
            self.name().into(),
            self.name().into(),
            columns.collect(),
            None,
            self.is_public(),
        )
    }
}

/// The system tables, to be named in a statement.
pub(crate) fn schemas() -> &'static [Arc<TableSchema>] {
    static SCHEMAS: OnceLock<Vec<Arc<TableSchema>>> = OnceLock::new();
    SCHEMAS.get_or_init(|| SystemTable::ALL.into_iter().map(|table| Arc::new(table.schema())).collect())
}

/// A version with its system tables as one caller sees them.
pub(crate) struct SystemTables<'a> {
    pub tables: &'a dyn TableRead,
    pub module: &'a ActiveModule,
    pub database: Identity,
    pub owner: Identity,
    pub caller: &'a Caller,
    /// Who is connected; none when the statement does not ask ([`needs_clients`]).
    pub clients: &'a [Arc<ClientInfo>],
}

impl SystemTables<'_> {
    fn sees(&self, table: &TableSchema) -> bool {
        table.public || self.caller.is_owner
    }

    fn rows(&self, table: SystemTable) -> Vec<Bytes> {
        let mut rows = Rows::default();
        match table {
            SystemTable::Module => {
                let meta = Meta::read(self.tables.store());
                let program = meta.ok().flatten().map(|meta| meta.program).unwrap_or_default();
                rows.add(|row| {
                    row.extend_from_slice(self.database.as_le_bytes());
                    row.extend_from_slice(self.owner.as_le_bytes());
                    // The peer's number for modules in JavaScript.
                    row.put_u8(1);
                    row.extend(self.module.hash().iter().rev());
                    row.put_bytes(&program);
                    row.put_str("");
                });
            }
            SystemTable::Client => self.own_clients().for_each(|client| {
                rows.add(|row| {
                    row.extend_from_slice(client.identity.as_le_bytes());
                    row.put_u128(client.connection_id.get());
                });
            }),
            SystemTable::ConnectionCredentials => self.own_clients().for_each(|client| {
                rows.add(|row| {
                    row.put_u128(client.connection_id.get());
                    row.put_str(client.jwt_payload.as_deref().unwrap_or_default());
                });
            }),
            SystemTable::Var => {
                if let Ok(Some(limit)) = Meta::read_row_limit(self.tables.store()) {
                    rows.add(|row| {
                        row.put_str("row_limit");
                        row.put_u8(0);
                        row.put_u64(limit);
                    });
                }
            }
            SystemTable::RowLevelSecurity => {
                for (prefix, sql) in self.module.rule_texts() {
                    let named = tine_query::names_of(sql).into_iter().next();
                    let table = named.and_then(|name| self.module.schema.table_named(&format!("{prefix}{name}")));
                    rows.add(|row| {
                        row.put_u32(table.map_or(0, |table| table.id.0));
                        row.put_str(sql);
                    });
                }
            }
            SystemTable::View | SystemTable::ViewParam | SystemTable::ViewColumn => self.view_rows(table, &mut rows),
            of_tables => {
                for table in self.module.schema.tables().iter().filter(|table| self.sees(table)) {
                    table_rows(of_tables, table, &mut rows);
                }
            }
        }
        rows.0
    }

    fn own_clients(&self) -> impl Iterator<Item = &Arc<ClientInfo>> {
        self.clients.iter().filter(|client| self.caller.is_owner || client.identity == self.caller.identity)
    }

    fn view_rows(&self, table: SystemTable, rows: &mut Rows) {
        for (view, number) in self.module.views.iter().zip(0u32..) {
            if !view.public && !self.caller.is_owner {
                continue;
            }
            match table {
                SystemTable::ViewColumn => view.columns.iter().for_each(|column| {
                    rows.add(|row| {
                        row.put_u32(number);
                        row.put_u16(column.position.0);
                        row.put_str(&column.name);
                        row.put_bytes(&type_bytes(&column.ty));
                    });
                }),
                // The SDK has no way to give a view parameters.
                SystemTable::ViewParam => {}
                _ => rows.add(|row| {
                    row.put_u32(number);
                    row.put_str(&view.name);
                    row.put_bool(view.public);
                    row.put_bool(view.is_anonymous);
                }),
            }
        }
    }
}

/// The rows of one of the tables that describe the stored ones.
fn table_rows(of_tables: SystemTable, table: &TableSchema, rows: &mut Rows) {
    match of_tables {
        SystemTable::Table => rows.add(|row| {
            row.put_u32(table.id.0);
            row.put_str(&table.name);
            row.put_str("user");
            row.put_str(if table.public { "public" } else { "private" });
            match table.primary_key {
                Some(column) => {
                    row.put_u8(0);
                    put_columns(&[column], row);
                }
                None => row.put_u8(1),
            }
        }),
        SystemTable::Column => table.columns.iter().for_each(|column| {
            rows.add(|row| {
                row.put_u32(table.id.0);
                row.put_u16(column.position.0);
                row.put_str(&column.name);
                row.put_bytes(&type_bytes(&column.ty));
            });
        }),
        SystemTable::Index => table.indexes.iter().for_each(|index| {
            rows.add(|row| {
                row.put_u32(index_number(table, index));
                row.put_u32(table.id.0);
                row.put_str(&index.name);
                put_algorithm(index, row);
            });
        }),
        SystemTable::Constraint => table.indexes.iter().filter(|index| index.unique).for_each(|index| {
            rows.add(|row| {
                row.put_u32(index_number(table, index));
                row.put_str(&index.constraint);
                row.put_u32(table.id.0);
                row.put_u8(0);
                put_columns(&index.columns, row);
            });
        }),
        SystemTable::Sequence => table.sequences.iter().for_each(|sequence| {
            let column = &table.columns[sequence.column.position()].name;
            rows.add(|row| {
                row.put_u32(table.id.0);
                row.put_str(&format!("{}_{column}_seq", table.name));
                row.put_u32(table.id.0);
                row.put_u16(sequence.column.0);
                [sequence.increment, sequence.start, sequence.min, sequence.max]
                    .iter()
                    .for_each(|number| row.put_i128(*number));
            });
        }),
        SystemTable::Scheduled => table.schedule.iter().for_each(|schedule| {
            rows.add(|row| {
                row.put_u32(table.id.0);
                row.put_u32(table.id.0);
                row.put_str(&schedule.function);
                row.put_str(&format!("{}_sched", table.name));
                row.put_u16(schedule.at_column.0);
            });
        }),
        SystemTable::EventTable if table.is_event => rows.add(|row| row.put_u32(table.id.0)),
        SystemTable::TableAccessor => rows.add(|row| {
            row.put_str(&table.name);
            row.put_str(&table.accessor);
        }),
        SystemTable::ColumnAccessor => table.columns.iter().for_each(|column| {
            rows.add(|row| {
                row.put_str(&table.name);
                row.put_str(&column.name);
                row.put_str(&column.accessor);
            });
        }),
        SystemTable::IndexAccessor => table.indexes.iter().for_each(|index| {
            rows.add(|row| {
                row.put_str(&index.name);
                row.put_str(&index.accessor);
            });
        }),
        _ => {}
    }
}

/// An index on the primary key has no keyspace of its own, but a number.
fn index_number(table: &TableSchema, index: &IndexSchema) -> u32 {
    if index.is_primary_key { table.id.0 } else { index.id.0 }
}

fn put_algorithm(index: &IndexSchema, row: &mut Vec<u8>) {
    match index.algorithm {
        IndexAlgorithm::BTree => row.put_u8(0),
        IndexAlgorithm::Hash => row.put_u8(1),
        IndexAlgorithm::Direct => {
            row.put_u8(2);
            return row.put_u16(index.columns[0].0);
        }
    }
    put_columns(&index.columns, row);
}

fn put_columns(columns: &[ColumnId], row: &mut Vec<u8>) {
    row.put_len(columns.len());
    columns.iter().for_each(|column| row.put_u16(column.0));
}

fn type_bytes(ty: &AlgebraicType) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_type(ty, &mut bytes);
    bytes
}

/// Encoded rows of one table. Rows are a set, whatever they were made from.
#[derive(Default)]
struct Rows(Vec<Bytes>);

impl Rows {
    fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut row = Vec::new();
        write(&mut row);
        if !self.0.iter().any(|other| **other == *row) {
            self.0.push(row.into());
        }
    }
}

impl TableRead for SystemTables<'_> {
    fn schema(&self) -> &Arc<DatabaseSchema> {
        self.tables.schema()
    }

    fn store(&self) -> &dyn Read {
        self.tables.store()
    }

    fn row_count(&self, table: TableId) -> u64 {
        match SystemTable::of(table) {
            Some(table) => self.rows(table).len() as u64,
            None => self.tables.row_count(table),
        }
    }

    fn scan(&self, table: TableId) -> RowCursor<'_> {
        match SystemTable::of(table) {
            Some(table) => RowCursor::of_made_rows(self.rows(table)),
            None => self.tables.scan(table),
        }
    }

    fn index_point(&self, index: IndexId, key: &[u8]) -> Result<RowCursor<'_>, TableError> {
        self.tables.index_point(index, key)
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
