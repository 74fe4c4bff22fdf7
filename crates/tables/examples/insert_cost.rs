//! Measures what a small insert costs over the puts it makes: `cargo run --release -p tine-tables
//! --example insert_cost`. Prints nanoseconds of wall time per transaction, several runs.

use std::sync::Arc;
use std::time::Instant;

use tine_base::SystemEnv;
use tine_store::{Durability, ForkId, ForkOptions, Store, StoreOptions};
use tine_tables::{DatabaseSchema, SchemaError, TableWriter};
use tine_types::bsatn::BsatnWrite;
use tine_types::module_def::{
    ConstraintData, ConstraintDef, IndexAlgorithm, IndexDef, ModuleDef, SequenceDef, TableAccess, TableDef, TableType,
    UniqueConstraint,
};
use tine_types::{AlgebraicType, TypeRef};

/// Transactions per measurement.
const TRANSACTIONS: u64 = 200_000;

/// Transactions between two publications, about what a busy lane batches.
const BATCH: u64 = 64;

fn definition() -> ModuleDef {
    let mut def = ModuleDef::default();
    let columns = [("id", AlgebraicType::U64), ("owner", AlgebraicType::identity()), ("text", AlgebraicType::String)];
    def.typespace.0.push(AlgebraicType::product(columns));
    def.tables.push(TableDef {
        source_name: "message".into(),
        product_type_ref: TypeRef(0),
        primary_key: vec![0],
        indexes: vec![IndexDef { source_name: None, accessor_name: None, algorithm: IndexAlgorithm::BTree(vec![0]) }],
        constraints: vec![ConstraintDef {
            source_name: None,
            data: ConstraintData::Unique(UniqueConstraint { columns: vec![0] }),
        }],
        sequences: vec![SequenceDef {
            source_name: None,
            column: 0,
            start: None,
            min_value: None,
            max_value: None,
            increment: 1,
        }],
        table_type: TableType::User,
        table_access: TableAccess::Public,
        default_values: Vec::new(),
        is_event: false,
    });
    def
}

fn row(id: u64) -> Vec<u8> {
    let mut row = Vec::new();
    row.put_u64(id);
    row.extend_from_slice(&[7; 32]);
    row.put_str("a short message");
    row
}

fn measure(name: &str, mut transaction: impl FnMut(u64)) {
    let start = Instant::now();
    for number in 0..TRANSACTIONS {
        transaction(number);
    }
    println!("{name:30} {:6} ns", start.elapsed().as_nanos() as u64 / TRANSACTIONS);
}

fn main() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let store = Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv)).expect("a new store");
    let mut allocate = |count| match store.allocate_keyspaces(count) {
        Ok(first) => Ok(first.get()),
        Err(error) => Err(SchemaError::Allocate(Box::new(error))),
    };
    let schema = DatabaseSchema::from_module_def(&definition(), None, &mut allocate).expect("a valid definition");
    let schema = Arc::new(schema);
    let table = schema.tables()[0].id;
    let (rows, sequences) = (table.keyspace(), schema.sequences_keyspace());
    for run in 0..3 {
        let fork = |name: &str| {
            let options = ForkOptions {
                name: format!("{name}-{run}"),
                durability: Durability::Ephemeral,
                ..ForkOptions::default()
            };
            let (fork, _) = store.fork(ForkId::MAIN, options).expect("the name is new");
            store.writer(fork.id).expect("the fork is new")
        };
        let mut writer = fork("raw-1");
        let value = row(1);
        measure("one put, commit", |number| {
            writer.put(rows, &(number + 1).to_be_bytes(), &value).expect("small");
            writer.commit_at(0, b"").expect("small");
            if number % BATCH == 0 {
                writer.publish();
            }
        });
        let mut tables = TableWriter::new(fork("own-key"), Arc::clone(&schema));
        let mut generated = Vec::new();
        let mut buffer = row(0);
        measure("insert with own key, commit", |number| {
            buffer[..8].copy_from_slice(&(number + 1).to_le_bytes());
            tables.insert(table, &buffer, &mut generated).expect("a new key");
            tables.commit(b"", 0).expect("small");
            if number % BATCH == 0 {
                tables.writer_mut().publish();
            }
        });
        let mut writer = fork("raw-2");
        measure("two puts, commit", |number| {
            writer.put(rows, &(number + 1).to_be_bytes(), &value).expect("small");
            writer.put(sequences, b"sequen", &i128::from(number).to_le_bytes()).expect("small");
            writer.commit_at(0, b"").expect("small");
            if number % BATCH == 0 {
                writer.publish();
            }
        });
        let mut tables = TableWriter::new(fork("sequence"), Arc::clone(&schema));
        let zero = row(0);
        measure("insert with sequence, commit", |number| {
            tables.insert(table, &zero, &mut generated).expect("a new key");
            tables.commit(b"", 0).expect("small");
            if number % BATCH == 0 {
                tables.writer_mut().publish();
            }
        });
    }
}
