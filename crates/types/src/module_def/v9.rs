//! The older format, V9, as far as it is read: one record, whose names are canonical already.
//!
//! What V10 has in sections of their own, V9 has elsewhere: a schedule with its table, a lifecycle with its reducer, and column
//! defaults, procedures and views among the "miscellaneous exports".

use serde_json::{Map, Value, json};

use super::codec::{Decoder, Part, choice, record};
use super::{
    CasePolicy, ColumnDefault, ConstraintData, ConstraintDef, IndexAlgorithm, IndexDef, LifecycleDef, LifecycleEvent,
    ModuleDef, ProcedureDef, ReducerDef, RowLevelSecurityDef, ScheduleDef, ScopedName, SequenceDef, TableAccess,
    TableDef, TableType, TypeDef, ViewDef, Visibility,
};
use crate::bsatn::{BsatnWrite, DecodeError};
use crate::json::{JsonError, JsonErrorKind, field, single_entry};
use crate::{AlgebraicType, ProductType, TypeRef, Typespace};

record! {
    /// A whole definition.
    Definition {
        /// Types that the rest refers to.
        typespace: Vec<AlgebraicType>,
        /// Tables.
        tables: Vec<Table>,
        /// Reducers.
        reducers: Vec<Reducer>,
        /// Names of types.
        types: Vec<TypeName>,
        /// Column defaults, procedures and views.
        misc_exports: Vec<Export>,
        /// Row-level security rules.
        row_level_security: Vec<RowLevelSecurityDef>,
    }
}

record! {
    /// A table.
    Table {
        /// Its name.
        name: Box<str>,
        /// The product type of its rows.
        product_type_ref: TypeRef,
        /// Columns of the primary key: none or one.
        primary_key: Vec<u16>,
        /// Indexes.
        indexes: Vec<Index>,
        /// Constraints.
        constraints: Vec<Constraint>,
        /// Columns that count up by themselves.
        sequences: Vec<Sequence>,
        /// What its rows schedule.
        schedule: Option<Schedule>,
        /// Who declared it.
        table_type: TableType,
        /// Who may read it.
        table_access: TableAccess,
    }
}

record! {
    /// An index.
    Index {
        /// Its name.
        name: Option<Box<str>>,
        /// What client code calls it.
        accessor_name: Option<Box<str>>,
        /// Its kind and columns.
        algorithm: IndexAlgorithm,
    }
}

record! {
    /// A constraint.
    Constraint {
        /// Its name.
        name: Option<Box<str>>,
        /// What it demands.
        data: ConstraintData,
    }
}

record! {
    /// A column that counts up by itself.
    Sequence {
        /// Its name.
        name: Option<Box<str>>,
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

record! {
    /// What the rows of a table schedule.
    Schedule {
        /// Its name.
        name: Option<Box<str>>,
        /// The function.
        reducer_name: Box<str>,
        /// The column that says when.
        scheduled_at_column: u16,
    }
}

record! {
    /// A reducer.
    Reducer {
        /// Its name.
        name: Box<str>,
        /// Its parameters.
        params: ProductType,
        /// When the host calls it by itself.
        lifecycle: Option<LifecycleEvent>,
    }
}

record! {
    /// The name of a type.
    TypeName {
        /// Scopes and name.
        name: ScopedName,
        /// Its place in the typespace.
        ty: TypeRef,
        /// Whether its fields were reordered by hand.
        custom_ordering: bool,
    }
}

choice! {
    /// What has no list of its own.
    Export {
        /// A value for a column that a migration adds.
        ColumnDefaultValue(Default) = 0,
        /// A procedure.
        Procedure(Procedure) = 1,
        /// A view.
        View(ViewDef) = 2,
    }
}

record! {
    /// A value for a column that a migration adds.
    Default {
        /// The table.
        table: Box<str>,
        /// The column.
        col_id: u16,
        /// The value, in BSATN.
        value: Box<[u8]>,
    }
}

record! {
    /// A procedure.
    Procedure {
        /// Its name.
        name: Box<str>,
        /// Its parameters.
        params: ProductType,
        /// What it returns.
        return_type: AlgebraicType,
    }
}

impl Definition {
    /// The same definition in the newer form.
    pub fn into_module(self) -> ModuleDef {
        let mut module = ModuleDef {
            typespace: Typespace(self.typespace),
            case_policy: CasePolicy::None,
            row_level_security: self.row_level_security,
            ..ModuleDef::default()
        };
        module.types.extend(self.types.into_iter().map(|ty| TypeDef {
            source_name: ty.name,
            ty: ty.ty,
            custom_ordering: ty.custom_ordering,
        }));
        for table in self.tables {
            if let Some(schedule) = &table.schedule {
                module.schedules.push(ScheduleDef {
                    source_name: schedule.name.clone(),
                    table_name: table.name.clone(),
                    schedule_at_col: schedule.scheduled_at_column,
                    function_name: schedule.reducer_name.clone(),
                });
            }
            module.tables.push(table.into_def());
        }
        for reducer in self.reducers {
            if let Some(event) = reducer.lifecycle {
                module.lifecycle.push(LifecycleDef { lifecycle_spec: event, function_name: reducer.name.clone() });
            }
            module.reducers.push(ReducerDef {
                source_name: reducer.name,
                params: reducer.params,
                visibility: Visibility::ClientCallable,
                ok_return_type: AlgebraicType::unit(),
                err_return_type: AlgebraicType::String,
            });
        }
        for export in self.misc_exports {
            match export {
                Export::ColumnDefaultValue(default) => {
                    // One for a table that is not there is as empty as the table.
                    if let Some(table) = module.tables.iter_mut().find(|table| table.source_name == default.table) {
                        table.default_values.push(ColumnDefault { col_id: default.col_id, value: default.value });
                    }
                }
                Export::Procedure(procedure) => module.procedures.push(ProcedureDef {
                    source_name: procedure.name,
                    params: procedure.params,
                    return_type: procedure.return_type,
                    visibility: Visibility::ClientCallable,
                }),
                Export::View(view) => module.views.push(view),
            }
        }
        module
    }
}

impl Table {
    fn into_def(self) -> TableDef {
        let indexes = self.indexes.into_iter().map(|index| IndexDef {
            source_name: index.name,
            accessor_name: index.accessor_name,
            algorithm: index.algorithm,
        });
        let constraints = self
            .constraints
            .into_iter()
            .map(|constraint| ConstraintDef { source_name: constraint.name, data: constraint.data });
        let sequences = self.sequences.into_iter().map(|sequence| SequenceDef {
            source_name: sequence.name,
            column: sequence.column,
            start: sequence.start,
            min_value: sequence.min_value,
            max_value: sequence.max_value,
            increment: sequence.increment,
        });
        TableDef {
            source_name: self.name,
            product_type_ref: self.product_type_ref,
            primary_key: self.primary_key,
            indexes: indexes.collect(),
            constraints: constraints.collect(),
            sequences: sequences.collect(),
            table_type: self.table_type,
            table_access: self.table_access,
            default_values: Vec::new(),
            is_event: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module_def::UniqueConstraint;

    fn sample() -> Definition {
        let view = ViewDef {
            source_name: "top".into(),
            index: 0,
            is_public: true,
            is_anonymous: true,
            params: ProductType::unit(),
            return_type: AlgebraicType::array(AlgebraicType::reference(0)),
        };
        Definition {
            typespace: vec![AlgebraicType::product([("id", AlgebraicType::U64), ("at", AlgebraicType::schedule_at())])],
            tables: vec![Table {
                name: "timer_row".into(),
                product_type_ref: TypeRef(0),
                primary_key: vec![0],
                indexes: vec![Index {
                    name: Some("timer_row_id_idx_btree".into()),
                    accessor_name: None,
                    algorithm: IndexAlgorithm::BTree(vec![0]),
                }],
                constraints: vec![Constraint {
                    name: None,
                    data: ConstraintData::Unique(UniqueConstraint { columns: vec![0] }),
                }],
                sequences: vec![Sequence {
                    name: None,
                    column: 0,
                    start: None,
                    min_value: None,
                    max_value: None,
                    increment: 1,
                }],
                schedule: Some(Schedule { name: None, reducer_name: "tick".into(), scheduled_at_column: 1 }),
                table_type: TableType::User,
                table_access: TableAccess::Public,
            }],
            reducers: vec![
                Reducer { name: "tick".into(), params: ProductType::unit(), lifecycle: None },
                Reducer { name: "start".into(), params: ProductType::unit(), lifecycle: Some(LifecycleEvent::Init) },
            ],
            types: vec![TypeName {
                name: ScopedName { scope: Vec::new(), source_name: "TimerRow".into() },
                ty: TypeRef(0),
                custom_ordering: true,
            }],
            misc_exports: vec![
                Export::ColumnDefaultValue(Default { table: "timer_row".into(), col_id: 0, value: vec![7].into() }),
                Export::Procedure(Procedure {
                    name: "count".into(),
                    params: ProductType::unit(),
                    return_type: AlgebraicType::U64,
                }),
                Export::View(view),
            ],
            row_level_security: vec![RowLevelSecurityDef { sql: "SELECT * FROM timer_row".into() }],
        }
    }

    #[test]
    fn a_definition_of_the_older_format_is_read_as_one_of_the_newer() {
        let mut bytes = vec![1];
        sample().write(&mut bytes);
        let module = ModuleDef::decode(&bytes).expect("a definition");
        assert_eq!(module, sample().into_module());
        assert_eq!(ModuleDef::decode(&module.encode()).expect("the newer form"), module);
        assert_eq!(module.canonical_table_name("timer_row"), "timer_row");
        assert_eq!((&*module.schedules[0].table_name, &*module.schedules[0].function_name), ("timer_row", "tick"));
        assert_eq!(module.lifecycle[0].lifecycle_spec, LifecycleEvent::Init);
        assert_eq!(module.tables[0].default_values[0].col_id, 0);
        assert_eq!((module.procedures.len(), module.views.len(), module.row_level_security.len()), (1, 1, 1));
        for length in 0..bytes.len() {
            assert!(ModuleDef::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn names_of_the_older_format_are_kept() {
        let mut definition = sample();
        definition.tables[0].name = "TimerRow2".into();
        assert_eq!(definition.into_module().canonical_table_name("TimerRow2"), "TimerRow2");
    }
}
