//! Tests run against real tables in a real store on a temporary directory.

mod deltas;
mod errors;
mod literals;
mod live;
mod modify;
mod parsing;
mod results;
mod rules;

use std::sync::Arc;

use tempfile::TempDir;
use tine_base::SystemEnv;
use tine_store::{ForkId, Store, StoreOptions};
use tine_tables::{ChangeSet, DatabaseSchema, SchemaError, TableId, TableWriter};
use tine_types::bsatn::encode_value;
use tine_types::module_def::{
    ConstraintData, ConstraintDef, IndexAlgorithm, IndexDef, ModuleDef, TableAccess, TableDef, TableType,
    UniqueConstraint,
};
use tine_types::{AlgebraicType, AlgebraicValue, Identity, ProductType, TypeRef, Typespace};

use crate::Caller;

/// A table to make: names as in a module's source.
pub(super) struct Draft {
    pub name: &'static str,
    pub columns: Vec<(&'static str, AlgebraicType)>,
    pub primary_key: Option<u16>,
    /// Columns of each B-tree index besides the primary key's.
    pub indexes: Vec<Vec<u16>>,
    pub public: bool,
    pub is_event: bool,
}

impl Draft {
    pub fn new(name: &'static str, columns: Vec<(&'static str, AlgebraicType)>) -> Draft {
        Draft { name, columns, primary_key: None, indexes: Vec::new(), public: true, is_event: false }
    }

    pub fn primary_key(self, column: u16) -> Draft {
        Draft { primary_key: Some(column), ..self }
    }

    pub fn index(mut self, columns: &[u16]) -> Draft {
        self.indexes.push(columns.to_vec());
        self
    }

    fn define(&self, position: usize) -> TableDef {
        let key_index = self.primary_key.map(|column| vec![column]);
        let indexes = key_index.iter().chain(&self.indexes).map(|columns| IndexDef {
            source_name: None,
            accessor_name: None,
            algorithm: IndexAlgorithm::BTree(columns.clone()),
        });
        let constraints = self.primary_key.map(|column| ConstraintDef {
            source_name: None,
            data: ConstraintData::Unique(UniqueConstraint { columns: vec![column] }),
        });
        TableDef {
            source_name: self.name.into(),
            product_type_ref: TypeRef(position as u32),
            primary_key: self.primary_key.into_iter().collect(),
            indexes: indexes.collect(),
            constraints: constraints.into_iter().collect(),
            sequences: Vec::new(),
            table_type: TableType::User,
            table_access: if self.public { TableAccess::Public } else { TableAccess::Private },
            default_values: Vec::new(),
            is_event: self.is_event,
        }
    }
}

/// Tables open for writing, with everything they need kept alive.
pub(super) struct World {
    pub tables: TableWriter,
    pub schema: Arc<DatabaseSchema>,
    _store: Store,
    _directory: TempDir,
}

impl World {
    pub fn new(drafts: &[Draft]) -> World {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv)).expect("a new store");
        let types =
            drafts.iter().map(|draft| AlgebraicType::Product(ProductType::named(draft.columns.iter().cloned())));
        let def = ModuleDef {
            typespace: Typespace(types.collect()),
            tables: drafts.iter().enumerate().map(|(position, draft)| draft.define(position)).collect(),
            ..ModuleDef::default()
        };
        let mut allocate = |count: u32| -> Result<u32, SchemaError> {
            Ok(store.allocate_keyspaces(count).expect("a healthy store").get())
        };
        let schema = DatabaseSchema::from_module_def(&def, None, &mut allocate).expect("a valid definition");
        let schema = Arc::new(schema);
        let writer = store.writer(ForkId::MAIN).expect("nobody else writes");
        World { tables: TableWriter::new(writer, schema.clone()), schema, _store: store, _directory: directory }
    }

    pub fn table(&self, name: &str) -> TableId {
        self.schema.table_named(name).expect("the test's own table").id
    }

    pub fn insert(&mut self, table: &str, row: Vec<AlgebraicValue>) {
        let id = self.table(table);
        self.tables.insert(id, &encode(row), &mut Vec::new()).expect("a valid row");
    }

    pub fn delete(&mut self, table: &str, row: Vec<AlgebraicValue>) {
        let id = self.table(table);
        assert!(self.tables.delete_row(id, &encode(row)).expect("a valid row"), "the row was there");
    }

    pub fn commit(&mut self) -> ChangeSet {
        self.tables.commit(&[], 0).expect("a healthy store").1
    }
}

pub(super) fn encode(row: Vec<AlgebraicValue>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_value(&AlgebraicValue::Product(row), &mut bytes);
    bytes
}

pub(super) fn identity(seed: u8) -> Identity {
    Identity::from_le_bytes([seed; 32])
}

pub(super) const OWNER: fn() -> Caller = || Caller { identity: identity(1), is_owner: true };
pub(super) const STRANGER: fn() -> Caller = || Caller { identity: identity(2), is_owner: false };

/// A small game: players in teams, their messages, and tables with a twist each.
pub(super) fn game() -> World {
    use AlgebraicType as T;
    let players = vec![
        ("id", T::U64),
        ("nickName", T::String),
        ("team", T::U32),
        ("score", T::I32),
        ("alive", T::Bool),
        ("x", T::F64),
        ("owner", T::identity()),
        ("badge", T::bytes()),
        ("mood", T::plain_enum(["Happy", "Sad"])),
        ("joined", T::timestamp()),
        ("huge", T::U256),
        ("path", T::array(T::U32)),
    ];
    let mut world = World::new(&[
        Draft::new("player", players).primary_key(0).index(&[2, 3]).index(&[1]).index(&[5]).index(&[6]),
        Draft::new("team", vec![("id", T::U32), ("title", T::String), ("open", T::Bool)]).primary_key(0),
        Draft::new("chatMessage", vec![("id", T::U64), ("team", T::U32), ("text", T::String)])
            .primary_key(0)
            .index(&[1]),
        Draft { public: false, ..Draft::new("secret", vec![("id", T::U64)]).primary_key(0) },
        Draft { is_event: true, ..Draft::new("damage", vec![("player", T::U64), ("amount", T::U32)]) },
        Draft::new("untidy", vec![("a", T::U32), ("b", T::U32)]),
    ]);
    for id in 0..6u64 {
        world.insert("player", player(id));
    }
    for id in 0..3u32 {
        world.insert("team", team(id, id != 1));
    }
    for id in 0..4u64 {
        world.insert("chatMessage", message(id, id as u32 % 2));
    }
    world.insert("secret", vec![AlgebraicValue::U64(7)]);
    for (a, b) in [(0, 1), (1, 1), (2, 9)] {
        world.insert("untidy", vec![AlgebraicValue::U32(a), AlgebraicValue::U32(b)]);
    }
    world.commit();
    world
}

/// Player `id`: nick `p<id>`, team `id % 3`, score `10 * id - 20`, alive when even, x `[-1, -0.0, 0, 0.5, 2, NaN]`.
pub(super) fn player(id: u64) -> Vec<AlgebraicValue> {
    use AlgebraicValue as V;
    let owner = Identity::from_le_bytes([id as u8; 32]);
    vec![
        V::U64(id),
        V::string(&format!("p{id}")),
        V::U32(id as u32 % 3),
        V::I32(10 * id as i32 - 20),
        V::Bool(id.is_multiple_of(2)),
        V::F64([-1.0, -0.0, 0.0, 0.5, 2.0, f64::NAN][id as usize % 6]),
        owner.to_value(),
        V::Bytes(vec![id as u8, 0xff].into()),
        V::Sum { tag: id as u8 % 2, value: Box::new(V::unit()) },
        tine_types::Timestamp::from_micros(id as i64 * 1_000_000).to_value(),
        V::U256(tine_types::U256::from(u128::from(id))),
        V::Array(vec![V::U32(1); id as usize]),
    ]
}

pub(super) fn team(id: u32, open: bool) -> Vec<AlgebraicValue> {
    vec![AlgebraicValue::U32(id), AlgebraicValue::string("it's"), AlgebraicValue::Bool(open)]
}

pub(super) fn message(id: u64, team: u32) -> Vec<AlgebraicValue> {
    vec![AlgebraicValue::U64(id), AlgebraicValue::U32(team), AlgebraicValue::string("hello")]
}
