//! The records of a module definition. Field order is encoding order.

use serde_json::{Map, Value, json};

use super::codec::{Decoder, Part, choice, record};
use crate::bsatn::{BsatnWrite, DecodeError};
use crate::json::{JsonError, JsonErrorKind, field, single_entry};
use crate::{AlgebraicType, ProductType, TypeRef};

record! {
    /// The name of a type and where it is.
    TypeDef {
        /// Its name in the source.
        source_name: ScopedName,
        /// Its place in the typespace.
        ty: TypeRef,
        /// Whether its fields were reordered by hand.
        custom_ordering: bool,
    }
}

record! {
    /// A name within nested scopes.
    ScopedName {
        /// Scopes, outermost first.
        scope: Vec<Box<str>>,
        /// The name itself.
        source_name: Box<str>,
    }
}

record! {
    /// A table.
    TableDef {
        /// Its name in the source.
        source_name: Box<str>,
        /// The product type of its rows.
        product_type_ref: TypeRef,
        /// Columns of the primary key: none or one.
        primary_key: Vec<u16>,
        /// Indexes.
        indexes: Vec<IndexDef>,
        /// Constraints.
        constraints: Vec<ConstraintDef>,
        /// Columns that count up by themselves.
        sequences: Vec<SequenceDef>,
        /// Who declared it.
        table_type: TableType,
        /// Who may read it.
        table_access: TableAccess,
        /// Values for columns that a migration adds.
        default_values: Vec<ColumnDefault>,
        /// Whether rows are only announced, never kept.
        is_event: bool,
    }
}

record! {
    /// An index.
    IndexDef {
        /// Its name in the source, if it was given one.
        source_name: Option<Box<str>>,
        /// What client code calls it.
        accessor_name: Option<Box<str>>,
        /// Its kind and columns.
        algorithm: IndexAlgorithm,
    }
}

choice! {
    /// Kind and columns of an index.
    IndexAlgorithm {
        /// Ordered by these columns.
        BTree(Vec<u16>) = 0,
        /// Point lookups only, by these columns.
        Hash(Vec<u16>) = 1,
        /// Addressed directly by one small integer column.
        Direct(u16) = 2,
    }
}

impl IndexAlgorithm {
    /// The indexed columns.
    pub fn columns(&self) -> &[u16] {
        match self {
            Self::BTree(columns) | Self::Hash(columns) => columns,
            Self::Direct(column) => std::slice::from_ref(column),
        }
    }

    /// How the kind is spelt in index names.
    pub fn name(&self) -> &'static str {
        match self {
            Self::BTree(_) => "btree",
            Self::Hash(_) => "hash",
            Self::Direct(_) => "direct",
        }
    }

    /// Whether scans over ranges are allowed.
    pub fn is_ordered(&self) -> bool {
        !matches!(self, Self::Hash(_))
    }
}

record! {
    /// A constraint.
    ConstraintDef {
        /// Its name in the source, if it was given one.
        source_name: Option<Box<str>>,
        /// What it demands.
        data: ConstraintData,
    }
}

choice! {
    /// What a constraint demands.
    ConstraintData {
        /// No two rows agree in all the columns.
        Unique(UniqueConstraint) = 0,
    }
}

record! {
    /// Columns in which no two rows agree.
    UniqueConstraint {
        /// The columns.
        columns: Vec<u16>,
    }
}

record! {
    /// A column that counts up by itself.
    SequenceDef {
        /// Its name in the source, if it was given one.
        source_name: Option<Box<str>>,
        /// The column.
        column: u16,
        /// First value.
        start: Option<i128>,
        /// Smallest value.
        min_value: Option<i128>,
        /// Largest value.
        max_value: Option<i128>,
        /// Step.
        increment: i128,
    }
}

choice! {
    /// Who declared a table.
    TableType {
        /// The system.
        System = 0,
        /// The module.
        User = 1,
    }
}

choice! {
    /// Who may read a table.
    TableAccess {
        /// Everybody.
        Public = 0,
        /// The database's owner and its module.
        Private = 1,
    }
}

record! {
    /// The value a column gets in rows that did not have it.
    ColumnDefault {
        /// The column.
        col_id: u16,
        /// The value, in BSATN.
        value: Box<[u8]>,
    }
}

record! {
    /// A reducer.
    ReducerDef {
        /// Its name in the source.
        source_name: Box<str>,
        /// Its parameters.
        params: ProductType,
        /// Who may call it.
        visibility: Visibility,
        /// What it returns.
        ok_return_type: AlgebraicType,
        /// What it fails with.
        err_return_type: AlgebraicType,
    }
}

choice! {
    /// Who may call a function.
    Visibility {
        /// Only the host.
        Private = 0,
        /// Clients too.
        ClientCallable = 1,
    }
}

record! {
    /// A procedure.
    ProcedureDef {
        /// Its name in the source.
        source_name: Box<str>,
        /// Its parameters.
        params: ProductType,
        /// What it returns.
        return_type: AlgebraicType,
        /// Who may call it.
        visibility: Visibility,
    }
}

record! {
    /// A view.
    ViewDef {
        /// Its name in the source.
        source_name: Box<str>,
        /// Its number among the views of its kind.
        index: u32,
        /// Whether clients may read it.
        is_public: bool,
        /// Whether its rows are the same for everybody.
        is_anonymous: bool,
        /// Its parameters.
        params: ProductType,
        /// An array or an option of the row type.
        return_type: AlgebraicType,
    }
}

record! {
    /// A table whose rows say when to call a function.
    ScheduleDef {
        /// Its name in the source, if it was given one.
        source_name: Option<Box<str>>,
        /// The table.
        table_name: Box<str>,
        /// The column that says when.
        schedule_at_col: u16,
        /// The function.
        function_name: Box<str>,
    }
}

record! {
    /// A reducer that the host calls by itself.
    LifecycleDef {
        /// When.
        lifecycle_spec: LifecycleEvent,
        /// The reducer.
        function_name: Box<str>,
    }
}

choice! {
    /// When the host calls a reducer by itself.
    LifecycleEvent {
        /// When the database is first published.
        Init = 0,
        /// When a client connects.
        OnConnect = 1,
        /// When a client is gone.
        OnDisconnect = 2,
    }
}

record! {
    /// A row-level security rule.
    RowLevelSecurityDef {
        /// The query whose rows may be seen.
        sql: Box<str>,
    }
}

choice! {
    /// How names of the source become canonical names.
    CasePolicy {
        /// They stay as they are.
        None = 0,
        /// Tables, columns and functions become `snake_case`.
        SnakeCase = 1,
    }
}

#[allow(clippy::derivable_impls)] // The macro that declares the enum knows no default.
impl Default for CasePolicy {
    fn default() -> Self {
        Self::SnakeCase
    }
}

choice! {
    /// A canonical name that was given.
    ExplicitName {
        /// Of a table.
        Table(NameMapping) = 0,
        /// Of a reducer, procedure or view.
        Function(NameMapping) = 1,
        /// Of an index.
        Index(NameMapping) = 2,
    }
}

record! {
    /// A name in the source and the canonical name it stands for.
    NameMapping {
        /// Name in the source.
        source_name: Box<str>,
        /// Canonical name.
        canonical_name: Box<str>,
    }
}

record! {
    /// A function that answers HTTP requests.
    HttpHandlerDef {
        /// Its name in the source.
        source_name: Box<str>,
    }
}

record! {
    /// Which requests go to a handler.
    HttpRouteDef {
        /// The handler.
        handler_function: Box<str>,
        /// Requests with this method.
        method: MethodOrAny,
        /// Requests for this path.
        path: Box<str>,
    }
}

choice! {
    /// The methods of a route.
    MethodOrAny {
        /// All.
        Any = 0,
        /// One.
        Method(HttpMethod) = 1,
    }
}

choice! {
    /// A method of HTTP.
    #[allow(missing_docs)] // They are the methods of HTTP.
    HttpMethod {
        Get = 0,
        Head = 1,
        Post = 2,
        Put = 3,
        Delete = 4,
        Connect = 5,
        Options = 6,
        Trace = 7,
        Patch = 8,
        Extension(Box<str>) = 9,
    }
}

record! {
    /// The primary key of a view.
    ViewPrimaryKey {
        /// The view.
        view_source_name: Box<str>,
        /// Its key columns: none or one.
        columns: Vec<Box<str>>,
    }
}
