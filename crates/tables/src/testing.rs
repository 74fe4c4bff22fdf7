//! What the tests of this crate share: module definitions in a few words, and a real store.

use std::sync::Arc;

use tempfile::TempDir;
use tine_base::SystemEnv;
use tine_store::{ForkId, Store, StoreOptions};
use tine_types::module_def::{
    ConstraintData, ConstraintDef, IndexAlgorithm, IndexDef, ModuleDef, SequenceDef, TableAccess, TableDef, TableType,
    UniqueConstraint,
};
use tine_types::{AlgebraicType, TypeRef};

use crate::{DatabaseSchema, SchemaError, TableSnapshot, TableWriter};

/// A table with the given columns, to be refined.
pub(crate) fn table(def: &mut ModuleDef, name: &str, columns: &[(&str, AlgebraicType)]) -> usize {
    let row_type = AlgebraicType::product(columns.iter().cloned());
    def.typespace.0.push(row_type);
    def.tables.push(TableDef {
        source_name: name.into(),
        product_type_ref: TypeRef((def.typespace.0.len() - 1) as u32),
        primary_key: Vec::new(),
        indexes: Vec::new(),
        constraints: Vec::new(),
        sequences: Vec::new(),
        table_type: TableType::User,
        table_access: TableAccess::Public,
        default_values: Vec::new(),
        is_event: false,
    });
    def.tables.len() - 1
}

pub(crate) fn btree(columns: &[u16]) -> IndexDef {
    IndexDef { source_name: None, accessor_name: None, algorithm: IndexAlgorithm::BTree(columns.to_vec()) }
}

pub(crate) fn hash(columns: &[u16]) -> IndexDef {
    IndexDef { source_name: None, accessor_name: None, algorithm: IndexAlgorithm::Hash(columns.to_vec()) }
}

pub(crate) fn unique(columns: &[u16]) -> ConstraintDef {
    ConstraintDef { source_name: None, data: ConstraintData::Unique(UniqueConstraint { columns: columns.to_vec() }) }
}

pub(crate) fn auto_increment(column: u16) -> SequenceDef {
    SequenceDef { source_name: None, column, start: None, min_value: None, max_value: None, increment: 1 }
}

/// Makes a column the primary key, the way the module SDK declares it.
pub(crate) fn primary_key(table: &mut TableDef, column: u16) {
    table.primary_key = vec![column];
    table.indexes.push(btree(&[column]));
    table.constraints.push(unique(&[column]));
}

/// Adds a unique column.
pub(crate) fn unique_column(table: &mut TableDef, column: u16) {
    table.indexes.push(btree(&[column]));
    table.constraints.push(unique(&[column]));
}

/// A store in a directory of its own, gone when dropped, and a schema in it.
pub(crate) struct Database {
    pub store: Store,
    pub schema: Arc<DatabaseSchema>,
    _directory: TempDir,
}

impl Database {
    pub fn new(def: &ModuleDef) -> Database {
        let directory = TempDir::new().unwrap();
        let store = Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv)).unwrap();
        let schema = build(def, None, &store).unwrap();
        Database { store, schema: Arc::new(schema), _directory: directory }
    }

    pub fn writer(&self) -> TableWriter {
        TableWriter::new(self.store.writer(ForkId::MAIN).unwrap(), Arc::clone(&self.schema))
    }

    pub fn snapshot(&self) -> TableSnapshot {
        TableSnapshot::new(self.store.snapshot(ForkId::MAIN).unwrap(), Arc::clone(&self.schema))
    }
}

pub(crate) fn build(
    def: &ModuleDef,
    previous: Option<&DatabaseSchema>,
    store: &Store,
) -> Result<DatabaseSchema, SchemaError> {
    let mut allocate = |count| match store.allocate_keyspaces(count) {
        Ok(first) => Ok(first.get()),
        Err(error) => Err(SchemaError::Allocate(Box::new(error))),
    };
    DatabaseSchema::from_module_def(def, previous, &mut allocate)
}

/// A schema without a store; ids count up from 16.
pub(crate) fn build_alone(def: &ModuleDef, previous: Option<&DatabaseSchema>) -> Result<DatabaseSchema, SchemaError> {
    let highest = previous.into_iter().flat_map(DatabaseSchema::keyspaces).map(|keyspace| keyspace.get()).max();
    let mut next = highest.map_or(16, |highest| highest + 100);
    DatabaseSchema::from_module_def(def, previous, &mut |count| {
        next += count;
        Ok(next - count)
    })
}
