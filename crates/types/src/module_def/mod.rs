//! Module definitions: what a module says about itself, in the `RawModuleDef` V10 format. V9 is read, too.
//!
//! Bytes: a version tag (2 for V10, 1 for V9), then for V10 an array of sections, each a tag and a payload. Sections
//! come in any order and any may lack, but none comes twice. The records below list their fields in
//! encoding order and under their JSON names; one macro makes struct, codec and JSON from that list,
//! so that the three cannot differ.
//!
//! Nothing is validated here beyond the encoding: names may clash, columns may be out of range.
//! That is for whoever makes a schema from it.

mod codec;
mod flatten;
mod names;
mod records;
mod sections;
mod v9;

#[cfg(test)]
mod tests;

pub use names::{camel_case, pascal_case, snake_case};
pub use records::{
    CasePolicy, ColumnDefault, ConstraintData, ConstraintDef, ExplicitName, HttpHandlerDef, HttpMethod, HttpRouteDef,
    IndexAlgorithm, IndexDef, LifecycleDef, LifecycleEvent, MethodOrAny, NameMapping, ProcedureDef, ReducerDef,
    RowLevelSecurityDef, ScheduleDef, ScopedName, SequenceDef, TableAccess, TableDef, TableType, TypeDef,
    UniqueConstraint, ViewDef, ViewPrimaryKey, Visibility,
};
pub use sections::{MODULE_BYTES_MAX, ModuleDefError, SUBMODULE_DEPTH_MAX};

use crate::Typespace;

/// Everything a module declares.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ModuleDef {
    /// Types that the rest refers to.
    pub typespace: Typespace,
    /// Names of types.
    pub types: Vec<TypeDef>,
    /// Tables.
    pub tables: Vec<TableDef>,
    /// Reducers; a reducer's id is its position.
    pub reducers: Vec<ReducerDef>,
    /// Procedures; a procedure's id is its position.
    pub procedures: Vec<ProcedureDef>,
    /// Views.
    pub views: Vec<ViewDef>,
    /// Which tables are schedules, and of what.
    pub schedules: Vec<ScheduleDef>,
    /// Which reducers run when the database starts and clients come and go.
    pub lifecycle: Vec<LifecycleDef>,
    /// Row-level security rules.
    pub row_level_security: Vec<RowLevelSecurityDef>,
    /// How names of the source become canonical names.
    pub case_policy: CasePolicy,
    /// Canonical names that were given rather than derived.
    pub explicit_names: Vec<ExplicitName>,
    /// HTTP handlers; a handler's id is its position.
    pub http_handlers: Vec<HttpHandlerDef>,
    /// Which handler answers which request.
    pub http_routes: Vec<HttpRouteDef>,
    /// Primary keys of views.
    pub view_primary_keys: Vec<ViewPrimaryKey>,
    /// Modules within this one.
    pub submodules: Vec<Submodule>,
}

/// A module within a module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Submodule {
    /// Prefix of its names: a table is reached as `namespace.table`.
    pub namespace: Box<str>,
    /// What it declares.
    pub module: ModuleDef,
}
