//! A module definition in version 9 of its format, which describing tools still ask for.
//!
//! Version 9 knows one namespace of canonical names and no submodules, HTTP handlers or event tables:
//! what it has no place for is left out. Procedures, views and column defaults are its "miscellaneous
//! exports". A schedule belongs to its table, a lifecycle to its reducer.

use serde_json::{Value, json};
use tine_types::json::{product_type_to_json, type_to_json};
use tine_types::module_def::{
    ConstraintData, ConstraintDef, IndexAlgorithm, IndexDef, LifecycleEvent, ModuleDef, ReducerDef, ScheduleDef,
    SequenceDef, TableAccess, TableDef, TableType, TypeDef,
};
use tine_types::{AlgebraicType, ProductType, ProductTypeElement};

/// `def` as version 9, without the version around it.
pub(crate) fn to_json_v9(def: &ModuleDef) -> Value {
    json!({
        "typespace": { "types": typespace(def) },
        "tables": def.tables.iter().map(|table| table_json(def, table)).collect::<Vec<_>>(),
        "reducers": def.reducers.iter().map(|reducer| reducer_json(def, reducer)).collect::<Vec<_>>(),
        "types": def.types.iter().map(type_name_json).collect::<Vec<_>>(),
        "misc_exports": exports(def),
        "row_level_security": def.row_level_security.iter().map(|rule| json!({ "sql": rule.sql })).collect::<Vec<_>>(),
    })
}

/// The types, with the canonical names of columns in the row types of tables.
fn typespace(def: &ModuleDef) -> Vec<Value> {
    let is_row = |index: usize| def.tables.iter().any(|table| table.product_type_ref.0 as usize == index);
    let types = def.typespace.0.iter().enumerate();
    types
        .map(|(index, ty)| match ty {
            AlgebraicType::Product(row) if is_row(index) => {
                type_to_json(&AlgebraicType::Product(with_canonical_columns(def, row)))
            }
            ty => type_to_json(ty),
        })
        .collect()
}

fn with_canonical_columns(def: &ModuleDef, row: &ProductType) -> ProductType {
    let rename = |element: &ProductTypeElement| ProductTypeElement {
        name: element.name.as_deref().map(|name| def.canonical_column_name(name).into()),
        ty: element.ty.clone(),
    };
    ProductType { elements: row.elements.iter().map(rename).collect() }
}

fn table_json(def: &ModuleDef, table: &TableDef) -> Value {
    let schedule = def.schedules.iter().find(|schedule| schedule.table_name == table.source_name);
    let table_type = match table.table_type {
        TableType::System => json!({ "System": [] }),
        TableType::User => json!({ "User": [] }),
    };
    let table_access = match table.table_access {
        TableAccess::Public => json!({ "Public": [] }),
        TableAccess::Private => json!({ "Private": [] }),
    };
    let constraints = table.constraints.iter().map(|constraint| constraint_json(def, table, constraint));
    json!({
        "name": def.canonical_table_name(&table.source_name),
        "product_type_ref": table.product_type_ref.0,
        "primary_key": table.primary_key,
        "indexes": table.indexes.iter().map(|index| index_json(def, table, index)).collect::<Vec<_>>(),
        "constraints": constraints.collect::<Vec<_>>(),
        "sequences": table.sequences.iter().map(|sequence| sequence_json(def, table, sequence)).collect::<Vec<_>>(),
        "schedule": option(schedule.map(|schedule| schedule_json(def, schedule))),
        "table_type": table_type,
        "table_access": table_access,
    })
}

fn index_json(def: &ModuleDef, table: &TableDef, index: &IndexDef) -> Value {
    let algorithm = match &index.algorithm {
        IndexAlgorithm::BTree(columns) => json!({ "BTree": columns }),
        IndexAlgorithm::Hash(columns) => json!({ "Hash": columns }),
        IndexAlgorithm::Direct(column) => json!({ "Direct": column }),
    };
    json!({
        "name": option(Some(def.canonical_index_name(table, index).into())),
        "accessor_name": option(index.accessor_name.as_deref().map(Value::from)),
        "algorithm": algorithm,
    })
}

fn constraint_json(def: &ModuleDef, table: &TableDef, constraint: &ConstraintDef) -> Value {
    let ConstraintData::Unique(unique) = &constraint.data;
    json!({
        "name": option(Some(def.canonical_constraint_name(table, constraint).into())),
        "data": { "Unique": { "columns": unique.columns } },
    })
}

fn sequence_json(def: &ModuleDef, table: &TableDef, sequence: &SequenceDef) -> Value {
    let number = |value: Option<i128>| option(value.map(|value| json!(value)));
    json!({
        "name": option(Some(def.canonical_sequence_name(table, sequence.column).into())),
        "column": sequence.column,
        "start": number(sequence.start),
        "min_value": number(sequence.min_value),
        "max_value": number(sequence.max_value),
        "increment": sequence.increment,
    })
}

fn schedule_json(def: &ModuleDef, schedule: &ScheduleDef) -> Value {
    json!({
        "name": option(Some(def.canonical_schedule_name(&schedule.table_name).into())),
        "reducer_name": def.canonical_function_name(&schedule.function_name),
        "scheduled_at_column": schedule.schedule_at_col,
    })
}

fn reducer_json(def: &ModuleDef, reducer: &ReducerDef) -> Value {
    let hook = def.lifecycle.iter().find(|hook| hook.function_name == reducer.source_name);
    let lifecycle = hook.map(|hook| match hook.lifecycle_spec {
        LifecycleEvent::Init => json!({ "Init": [] }),
        LifecycleEvent::OnConnect => json!({ "OnConnect": [] }),
        LifecycleEvent::OnDisconnect => json!({ "OnDisconnect": [] }),
    });
    json!({
        "name": def.canonical_function_name(&reducer.source_name),
        "params": product_type_to_json(&reducer.params),
        "lifecycle": option(lifecycle),
    })
}

fn type_name_json(ty: &TypeDef) -> Value {
    json!({
        "name": { "scope": ty.source_name.scope, "name": ty.source_name.source_name },
        "ty": ty.ty.0,
        "custom_ordering": ty.custom_ordering,
    })
}

fn exports(def: &ModuleDef) -> Vec<Value> {
    let mut exports = Vec::new();
    for table in &def.tables {
        let name = def.canonical_table_name(&table.source_name);
        exports.extend(table.default_values.iter().map(|default| {
            let hex: String = default.value.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "ColumnDefaultValue": { "table": name, "col_id": default.col_id, "value": hex } })
        }));
    }
    exports.extend(def.procedures.iter().map(|procedure| {
        json!({ "Procedure": {
            "name": def.canonical_function_name(&procedure.source_name),
            "params": product_type_to_json(&procedure.params),
            "return_type": type_to_json(&procedure.return_type),
        } })
    }));
    exports.extend(def.views.iter().map(|view| {
        json!({ "View": {
            "name": def.canonical_function_name(&view.source_name),
            "index": view.index,
            "is_public": view.is_public,
            "is_anonymous": view.is_anonymous,
            "params": product_type_to_json(&view.params),
            "return_type": type_to_json(&view.return_type),
        } })
    }));
    exports
}

fn option(value: Option<Value>) -> Value {
    value.map_or_else(|| json!({ "none": [] }), |value| json!({ "some": value }))
}
