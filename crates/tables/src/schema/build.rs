//! From a module definition to a schema.
//!
//! Three steps: every table of the module and its submodules is turned into a draft without ids and
//! checked as far as the definition itself goes; the drafts are compared with the previous schema;
//! ids are taken over from it or allocated, all in one request, so that a refused definition uses
//! none up.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tine_store::KeyspaceId;
use tine_types::module_def::{
    ConstraintData, ConstraintDef, IndexAlgorithm as AlgorithmDef, IndexDef, SUBMODULE_DEPTH_MAX, SequenceDef,
    TableAccess, TableDef, TableType,
};
use tine_types::{AlgebraicType, ModuleDef, ProductType, TypeRef};

use super::assemble::integer_limits;
use super::{
    ColumnSchema, DatabaseSchema, IndexAlgorithm, IndexSchema, SequenceSchema, TableSchedule, TableSchema, compat,
};
use crate::error::SchemaError;
use crate::ids::{ColumnId, IndexId, TableId};
use crate::layout::TableLayout;

/// Names starting so belong to tables of the system.
const RESERVED_PREFIX: &str = "st_";

/// Id of a draft that has none yet. Never allocated: user ids start higher.
const NO_ID: u32 = 0;

impl DatabaseSchema {
    /// The schema of a module. With a `previous` schema, tables and indexes that are the same keep
    /// their ids, and the change must be one that stored rows survive (see [`super::SchemaChange`]);
    /// [`crate::migrate`] then brings the stored indexes in line.
    ///
    /// `allocate` is asked at most once, for a number of consecutive ids, and returns the first.
    ///
    /// # Errors
    /// The definition is invalid, the change is incompatible (all reasons are listed), or `allocate`
    /// fails.
    pub fn from_module_def(
        def: &ModuleDef,
        previous: Option<&DatabaseSchema>,
        allocate: &mut dyn FnMut(u32) -> Result<u32, SchemaError>,
    ) -> Result<DatabaseSchema, SchemaError> {
        let mut tables = Vec::new();
        draft_module(def, "", 0, &mut tables)?;
        if let Some(previous) = previous {
            compat::check(previous, &tables)?;
            for table in &mut tables {
                take_over_ids(table, previous);
            }
        }
        let mut missing = u32::from(previous.is_none());
        for table in &tables {
            missing += u32::from(table.id.0 == NO_ID);
            missing += table.indexes.iter().filter(|index| index.id.0 == NO_ID).count() as u32;
        }
        let first = if missing > 0 { allocate(missing)? } else { NO_ID };
        let mut ids = first..first + missing;
        let mut next = || ids.next().expect("as many were counted");
        let sequences_keyspace = previous.map_or_else(|| KeyspaceId::new(next()), DatabaseSchema::sequences_keyspace);
        for table in &mut tables {
            if table.id.0 == NO_ID {
                table.id = TableId(next());
            }
            for index in table.indexes.iter_mut().filter(|index| index.id.0 == NO_ID) {
                index.id = IndexId(next());
            }
        }
        DatabaseSchema::assemble(sequences_keyspace, tables)
    }
}

/// An index keeps its id, and so its entries, when what is stored for it stays the same.
fn take_over_ids(table: &mut TableSchema, previous: &DatabaseSchema) {
    let Some(old) = previous.tables().iter().find(|old| old.name == table.name) else { return };
    table.id = old.id;
    let mut free: Vec<&IndexSchema> = old.indexes.iter().collect();
    for index in &mut table.indexes {
        let same = |old: &&IndexSchema| {
            old.columns == index.columns && old.unique == index.unique && old.is_primary_key == index.is_primary_key
        };
        let named = free.iter().position(|old| same(old) && old.name == index.name);
        if let Some(position) = named.or_else(|| free.iter().position(same)) {
            index.id = free.remove(position).id;
        }
    }
}

fn draft_module(def: &ModuleDef, prefix: &str, depth: usize, tables: &mut Vec<TableSchema>) -> Result<(), SchemaError> {
    if depth > SUBMODULE_DEPTH_MAX {
        let problem = format!("submodules nest deeper than {SUBMODULE_DEPTH_MAX}");
        return Err(SchemaError::invalid(prefix, problem));
    }
    check_functions(def, prefix, depth)?;
    let first = tables.len();
    for table in &def.tables {
        tables.push(draft_table(def, prefix, table)?);
    }
    add_schedules(def, prefix, &mut tables[first..])?;
    for submodule in &def.submodules {
        let prefix = format!("{prefix}{}.", submodule.namespace);
        draft_module(&submodule.module, &prefix, depth + 1, tables)?;
    }
    Ok(())
}

/// Checks what concerns functions: reducers, procedures and views share one namespace, and at most
/// one reducer, of the root module, plays each lifecycle role.
fn check_functions(def: &ModuleDef, prefix: &str, depth: usize) -> Result<(), SchemaError> {
    let mut kinds: HashMap<&str, &str> = HashMap::new();
    let reducers = def.reducers.iter().map(|reducer| (&*reducer.source_name, "reducer"));
    let procedures = def.procedures.iter().map(|procedure| (&*procedure.source_name, "procedure"));
    let views = def.views.iter().map(|view| (&*view.source_name, "view"));
    for (name, kind) in reducers.chain(procedures).chain(views) {
        if let Some(other) = kinds.insert(name, kind) {
            let problem = format!("the name is used for a {other} and a {kind}");
            return Err(SchemaError::invalid(format!("function `{prefix}{name}`"), problem));
        }
    }
    for (position, lifecycle) in def.lifecycle.iter().enumerate() {
        let place = format!("lifecycle reducer `{prefix}{}`", lifecycle.function_name);
        if depth > 0 {
            return Err(SchemaError::invalid(place, "a submodule cannot have lifecycle reducers"));
        }
        if kinds.get(&*lifecycle.function_name) != Some(&"reducer") {
            return Err(SchemaError::invalid(place, "there is no such reducer"));
        }
        if def.lifecycle[..position].iter().any(|other| other.lifecycle_spec == lifecycle.lifecycle_spec) {
            return Err(SchemaError::invalid(place, "another reducer already has this role"));
        }
    }
    Ok(())
}

fn draft_table(def: &ModuleDef, prefix: &str, table: &TableDef) -> Result<TableSchema, SchemaError> {
    let canonical = def.canonical_table_name(&table.source_name);
    let place = format!("table `{prefix}{canonical}`");
    check_name(&canonical, &place)?;
    if canonical.starts_with(RESERVED_PREFIX) {
        let problem = format!("names starting with `{RESERVED_PREFIX}` are reserved");
        return Err(SchemaError::invalid(place, problem));
    }
    if table.table_type == TableType::System {
        return Err(SchemaError::invalid(place, "a module cannot define system tables"));
    }
    let (row_type, columns) = draft_columns(def, table.product_type_ref, &place)?;
    let primary_key = match &*table.primary_key {
        [] => None,
        [position] => Some(ColumnId(*position)),
        _ => return Err(SchemaError::invalid(place, "the primary key must be one column")),
    };
    let draft = TableDraft { def, prefix, table, place: &place, columns: &columns };
    draft.check_columns(&table.primary_key, "the primary key")?;
    let indexes = draft.indexes(primary_key)?;
    let sequences = draft.sequences()?;
    let defaults = table.default_values.iter();
    let defaults = defaults.map(|default| (ColumnId(default.col_id), Bytes::copy_from_slice(&default.value)));
    let mut defaults: Vec<_> = defaults.collect();
    defaults.sort_by_key(|(column, _)| *column);
    Ok(TableSchema {
        id: TableId(NO_ID),
        name: format!("{prefix}{canonical}").into(),
        accessor: format!("{prefix}{}", table.source_name).into(),
        static_row_size: row_type.static_bsatn_size(),
        row_type,
        columns,
        primary_key,
        indexes,
        sequences,
        defaults,
        public: table.table_access == TableAccess::Public,
        is_event: table.is_event,
        schedule: None,
        layout: TableLayout::default(),
    })
}

fn draft_columns(
    def: &ModuleDef,
    row_type: TypeRef,
    place: &str,
) -> Result<(ProductType, Vec<ColumnSchema>), SchemaError> {
    let inlined = def.typespace.inline(&AlgebraicType::Ref(row_type));
    let inlined = inlined.map_err(|source| SchemaError::Type { place: place.to_owned(), source })?;
    let AlgebraicType::Product(mut product) = inlined else {
        return Err(SchemaError::invalid(place, "the row type is not a product"));
    };
    let mut columns = Vec::with_capacity(product.elements.len());
    for (position, element) in product.elements.iter_mut().enumerate() {
        let Some(accessor) = element.name.clone() else {
            return Err(SchemaError::invalid(place, format!("column {position} has no name")));
        };
        let Ok(position) = u16::try_from(position) else {
            return Err(SchemaError::invalid(place, "there are more than 65,536 columns"));
        };
        let name = def.canonical_column_name(&accessor);
        check_name(&name, &format!("column `{accessor}` of {place}"))?;
        element.name = Some((&*name).into());
        columns.push(ColumnSchema {
            name: (&*name).into(),
            accessor: (&*accessor).into(),
            ty: element.ty.clone(),
            position: ColumnId(position),
        });
    }
    Ok((product, columns))
}

/// A table whose columns are known.
struct TableDraft<'a> {
    def: &'a ModuleDef,
    prefix: &'a str,
    table: &'a TableDef,
    place: &'a str,
    columns: &'a [ColumnSchema],
}

impl TableDraft<'_> {
    fn check_columns(&self, positions: &[u16], user: &str) -> Result<Vec<ColumnId>, SchemaError> {
        let count = self.columns.len();
        match positions.iter().find(|position| usize::from(**position) >= count) {
            None => Ok(positions.iter().copied().map(ColumnId).collect()),
            Some(position) => {
                let problem = format!("{user} names column {position}, but there are only {count}");
                Err(SchemaError::invalid(self.place, problem))
            }
        }
    }

    fn indexes(&self, primary_key: Option<ColumnId>) -> Result<Vec<IndexSchema>, SchemaError> {
        let mut indexes: Vec<IndexSchema> = Vec::new();
        for index in &self.table.indexes {
            let index = self.index(index, primary_key)?;
            // One column declared unique and indexed in two ways can yield the same index twice.
            if !indexes.contains(&index) {
                indexes.push(index);
            }
        }
        for constraint in &self.table.constraints {
            self.make_unique(&mut indexes, constraint)?;
        }
        Ok(indexes)
    }

    fn index(&self, index: &IndexDef, primary_key: Option<ColumnId>) -> Result<IndexSchema, SchemaError> {
        let columns = self.check_columns(index.algorithm.columns(), "an index")?;
        let canonical = self.def.canonical_index_name(self.table, index);
        let source = self.def.index_source_name(self.table, index);
        check_name(&canonical, &format!("index `{source}` of {}", self.place))?;
        let name: Arc<str> = format!("{}{canonical}", self.prefix).into();
        Ok(IndexSchema {
            id: IndexId(NO_ID),
            is_primary_key: primary_key.is_some_and(|column| columns == [column]),
            constraint: name.clone(),
            name,
            accessor: format!("{}{source}", self.prefix).into(),
            columns,
            unique: false,
            algorithm: match &index.algorithm {
                AlgorithmDef::BTree(_) => IndexAlgorithm::BTree,
                AlgorithmDef::Hash(_) => IndexAlgorithm::Hash,
                AlgorithmDef::Direct(_) => IndexAlgorithm::Direct,
            },
        })
    }

    /// Marks the indexes on the constraint's columns, in whatever order, as unique.
    fn make_unique(&self, indexes: &mut [IndexSchema], constraint: &ConstraintDef) -> Result<(), SchemaError> {
        let ConstraintData::Unique(unique) = &constraint.data;
        let mut wanted = self.check_columns(&unique.columns, "a unique constraint")?;
        wanted.sort_unstable();
        let name = self.def.canonical_constraint_name(self.table, constraint);
        let name: Arc<str> = format!("{}{name}", self.prefix).into();
        let mut found = false;
        for index in indexes {
            let mut indexed = index.columns.clone();
            indexed.sort_unstable();
            if indexed == wanted {
                index.unique = true;
                index.constraint = name.clone();
                found = true;
            }
        }
        if found {
            return Ok(());
        }
        let problem = format!("the unique constraint `{name}` needs an index on the same columns");
        Err(SchemaError::invalid(self.place, problem))
    }

    fn sequences(&self) -> Result<Vec<SequenceSchema>, SchemaError> {
        let mut sequences = Vec::with_capacity(self.table.sequences.len());
        for sequence in &self.table.sequences {
            self.check_columns(&[sequence.column], "a sequence")?;
            sequences.push(draft_sequence(sequence, &self.columns[usize::from(sequence.column)].ty));
        }
        sequences.sort_by_key(|sequence| sequence.column);
        Ok(sequences)
    }
}

/// Fills in what is left open: a rising sequence counts from 1, a falling one down from -1, both as
/// far as the column's type goes.
fn draft_sequence(sequence: &SequenceDef, ty: &AlgebraicType) -> SequenceSchema {
    let (type_min, type_max) = integer_limits(ty).unwrap_or((i128::MIN, i128::MAX));
    let rising = sequence.increment > 0;
    let first = sequence.start.unwrap_or(if rising { 1 } else { -1 });
    let min = sequence.min_value.unwrap_or(if rising { first.min(1) } else { type_min });
    let max = sequence.max_value.unwrap_or(if rising { type_max } else { first.max(-1) });
    let start = sequence.start.unwrap_or(if rising { min } else { max });
    SequenceSchema { column: ColumnId(sequence.column), start, min, max, increment: sequence.increment }
}

/// Attaches the module's schedules to its tables.
fn add_schedules(def: &ModuleDef, prefix: &str, tables: &mut [TableSchema]) -> Result<(), SchemaError> {
    for schedule in &def.schedules {
        let place = format!("the schedule of table `{prefix}{}`", schedule.table_name);
        let invalid = |problem: String| SchemaError::invalid(&place, problem);
        let position = def.tables.iter().zip(tables.iter()).position(|(table, draft)| {
            *table.source_name == *schedule.table_name || draft.name.strip_prefix(prefix) == Some(&*schedule.table_name)
        });
        let Some(position) = position else {
            return Err(invalid("there is no such table".to_owned()));
        };
        let function = &*schedule.function_name;
        let reducer = def.reducers.iter().find(|reducer| *reducer.source_name == *function);
        let procedure = def.procedures.iter().find(|procedure| *procedure.source_name == *function);
        let parameters = match (reducer, procedure) {
            (Some(reducer), _) => &reducer.params,
            (None, Some(procedure)) => &procedure.params,
            (None, None) => {
                return Err(invalid(format!("there is no reducer or procedure `{function}`")));
            }
        };
        let parameters = def.typespace.inline_product(parameters);
        let parameters =
            parameters.map_err(|source| SchemaError::Type { place: format!("function `{function}`"), source })?;
        let row_type = AlgebraicType::Ref(def.tables[position].product_type_ref);
        let row_type = def.typespace.inline(&row_type);
        let row_type = row_type.map_err(|source| SchemaError::Type { place: place.clone(), source })?;
        if !matches!(&*parameters.elements, [parameter] if parameter.ty == row_type) {
            let problem = format!("`{function}` must take exactly one parameter, a row of the table");
            return Err(invalid(problem));
        }
        let table = &mut tables[position];
        if table.schedule.is_some() {
            return Err(invalid("the table already has another schedule".to_owned()));
        }
        table.schedule = Some(TableSchedule {
            at_column: ColumnId(schedule.schedule_at_col),
            function: format!("{prefix}{function}").into(),
        });
    }
    Ok(())
}

/// A name is a letter or underscore, then letters, digits and underscores.
fn check_name(name: &str, place: &str) -> Result<(), SchemaError> {
    let mut characters = name.chars();
    let starts_well = characters.next().is_some_and(|first| first.is_alphabetic() || first == '_');
    if starts_well && characters.all(|other| other.is_alphanumeric() || other == '_') {
        return Ok(());
    }
    let problem = format!("`{name}` is not a name: use letters, digits and underscores");
    Err(SchemaError::invalid(place, problem))
}
