use tine_types::module_def::{
    ColumnDefault, ExplicitName, LifecycleDef, LifecycleEvent, ModuleDef, NameMapping, ReducerDef, ScheduleDef,
    Submodule, TableAccess, TableType, Visibility,
};
use tine_types::{AlgebraicType, ProductType};

use super::*;
use crate::error::SchemaError;
use crate::testing::{auto_increment, btree, build_alone, hash, primary_key, table, unique, unique_column};

fn people() -> ModuleDef {
    let mut def = ModuleDef::default();
    let columns = [
        ("id", AlgebraicType::U64),
        ("fullName", AlgebraicType::String),
        ("team", AlgebraicType::U32),
        ("mood", AlgebraicType::plain_enum(["Good", "Bad"])),
    ];
    let people = table(&mut def, "peopleList", &columns);
    let people = &mut def.tables[people];
    primary_key(people, 0);
    people.sequences.push(auto_increment(0));
    people.indexes.push(btree(&[2, 1]));
    def
}

fn reducer(name: &str, parameters: &[(&str, AlgebraicType)]) -> ReducerDef {
    ReducerDef {
        source_name: name.into(),
        params: ProductType::named(parameters.iter().cloned()),
        visibility: Visibility::ClientCallable,
        ok_return_type: AlgebraicType::unit(),
        err_return_type: AlgebraicType::String,
    }
}

/// `people` with a schedule table whose rows are passed to `ring`.
fn with_alarm() -> ModuleDef {
    let mut def = people();
    let columns = [("id", AlgebraicType::U64), ("at", AlgebraicType::schedule_at())];
    let alarm = table(&mut def, "alarm", &columns);
    primary_key(&mut def.tables[alarm], 0);
    let row = AlgebraicType::Ref(def.tables[alarm].product_type_ref);
    def.reducers.push(reducer("ring", &[("row", row)]));
    def.schedules.push(ScheduleDef {
        source_name: None,
        table_name: "alarm".into(),
        schedule_at_col: 1,
        function_name: "ring".into(),
    });
    def
}

#[test]
fn a_definition_becomes_a_schema() {
    let schema = build_alone(&people(), None).unwrap();
    let people = schema.table_named("people_list").unwrap();
    assert_eq!(schema.table_named("peopleList").unwrap().id, people.id);
    assert_eq!(schema.table(people.id).unwrap().name, people.name);
    let names: Vec<_> = people.columns.iter().map(|column| &*column.name).collect();
    assert_eq!(names, ["id", "full_name", "team", "mood"]);
    assert_eq!(people.row_type.elements[1].name(), Some("full_name"));
    assert_eq!(people.column_named("fullName").unwrap().position, ColumnId(1));
    assert_eq!(people.primary_key, Some(ColumnId(0)));
    assert_eq!(people.static_row_size, None);
    let sequence = SequenceSchema { column: ColumnId(0), start: 1, min: 1, max: u64::MAX.into(), increment: 1 };
    assert_eq!(people.sequences, [sequence]);

    let (_, by_id) = schema.index_named("people_list_id_idx_btree").unwrap();
    assert!(by_id.unique && by_id.is_primary_key);
    assert_eq!(&*by_id.constraint, "people_list_id_key");
    let (owner, by_team) = schema.index_named("peopleList_team_fullName_idx_btree").unwrap();
    assert_eq!(owner.id, people.id);
    assert_eq!(&*by_team.name, "people_list_team_full_name_idx_btree");
    assert_eq!(by_team.columns, [ColumnId(2), ColumnId(1)]);
    assert!(!by_team.unique && !by_team.is_primary_key);
    assert_eq!(schema.index(by_team.id).unwrap().1, by_team);
    assert!(schema.index_named("nonsense").is_none());
}

#[test]
fn submodules_and_explicit_names_are_reached_by_name() {
    let mut def = people();
    let mapping = NameMapping { source_name: "peopleList".into(), canonical_name: "folk".into() };
    def.explicit_names.push(ExplicitName::Table(mapping));
    def.submodules.push(Submodule { namespace: "auth".into(), module: people() });
    let schema = build_alone(&def, None).unwrap();
    for name in ["folk", "peopleList", "auth.people_list", "auth.peopleList"] {
        assert!(schema.table_named(name).is_some(), "{name}");
    }
    for name in ["folk_id_idx_btree", "auth.peopleList_id_idx_btree", "auth.people_list_id_idx_btree"] {
        assert!(schema.index_named(name).is_some(), "{name}");
    }
    assert_eq!(schema.tables().len(), 2);
}

#[test]
fn a_schedule_is_attached_to_its_table() {
    let schema = build_alone(&with_alarm(), None).unwrap();
    let schedule = schema.table_named("alarm").unwrap().schedule.clone().unwrap();
    assert_eq!(schedule, TableSchedule { at_column: ColumnId(1), function: "ring".into() });
}

#[test]
fn a_constraint_makes_indexes_on_its_columns_unique_in_any_order() {
    let mut def = people();
    def.tables[0].constraints.push(unique(&[1, 2]));
    def.tables[0].indexes.push(hash(&[2]));
    let schema = build_alone(&def, None).unwrap();
    assert!(schema.index_named("people_list_team_full_name_idx_btree").unwrap().1.unique);
    let by_team = schema.index_named("people_list_team_idx_hash").unwrap().1;
    assert!(!by_team.unique);
    assert_eq!(by_team.algorithm, IndexAlgorithm::Hash);
}

#[test]
fn invalid_definitions_are_refused() {
    type Break = fn(&mut ModuleDef);
    let cases: &[(Break, &str)] = &[
        (|def| def.tables[0].source_name = "st_table".into(), "reserved"),
        (|def| def.tables[0].source_name = "".into(), "not a name"),
        (|def| def.tables[0].source_name = "9lives".into(), "not a name"),
        (|def| def.tables.push(def.tables[0].clone()), "used twice"),
        (|def| def.tables[0].table_type = TableType::System, "system"),
        (|def| def.tables[0].primary_key = vec![0, 1], "one column"),
        (|def| def.tables[0].primary_key = vec![9], "names column 9"),
        (|def| def.tables[0].primary_key = vec![2], "unique constraint and an index"),
        (|def| def.tables[0].constraints.clear(), "must be unique"),
        (|def| def.tables[0].indexes.push(btree(&[4])), "names column 4"),
        (|def| def.tables[0].indexes.push(btree(&[])), "at least one column"),
        (|def| def.tables[0].indexes.push(btree(&[1, 1])), "named twice"),
        (|def| def.tables[0].constraints.push(unique(&[1])), "needs an index"),
        (|def| def.tables[0].constraints.push(unique(&[7])), "names column 7"),
        (|def| def.tables[0].sequences.push(auto_increment(0)), "two sequences"),
        (|def| def.tables[0].sequences.push(auto_increment(1)), "not an integer"),
        (|def| def.tables[0].sequences.push(auto_increment(8)), "names column 8"),
        (|def| def.tables[0].sequences[0].increment = 0, "increment is 0"),
        (|def| def.tables[0].sequences[0].max_value = Some(1 << 70), "exceed"),
        (|def| def.tables[0].sequences[0].max_value = Some(0), "not within"),
        (
            |def| def.tables[0].default_values.push(ColumnDefault { col_id: 2, value: Box::new([1]) }),
            "not one of its type",
        ),
        (|def| def.tables[0].product_type_ref.0 = 99, "type cannot be used"),
        (|def| def.typespace.0[0] = AlgebraicType::U8, "not a product"),
        (
            |def| {
                def.typespace.0[0] =
                    AlgebraicType::product([("a_b", AlgebraicType::U64), ("aB", AlgebraicType::String)]);
                def.tables[0].indexes.truncate(1);
            },
            "two columns are named",
        ),
        (|def| def.reducers.push(def.reducers[0].clone()), "used for a reducer"),
        (|def| def.schedules[0].table_name = "nothing".into(), "no such table"),
        (|def| def.schedules[0].function_name = "nothing".into(), "no reducer"),
        (|def| def.schedules[0].schedule_at_col = 0, "not of type ScheduleAt"),
        (|def| def.schedules[0].schedule_at_col = 5, "names column 5"),
        (|def| def.schedules.push(def.schedules[0].clone()), "another schedule"),
        (|def| def.reducers[0].params = ProductType::unit(), "exactly one parameter"),
        (
            |def| {
                def.lifecycle =
                    vec![LifecycleDef { lifecycle_spec: LifecycleEvent::Init, function_name: "nothing".into() }];
            },
            "no such reducer",
        ),
        (
            |def| {
                let ring = LifecycleDef { lifecycle_spec: LifecycleEvent::Init, function_name: "ring".into() };
                def.lifecycle = vec![ring.clone(), ring];
            },
            "already has this role",
        ),
        (
            |def| {
                let mut module = def.clone();
                let ring = LifecycleDef { lifecycle_spec: LifecycleEvent::Init, function_name: "ring".into() };
                module.lifecycle = vec![ring];
                def.submodules.push(Submodule { namespace: "inner".into(), module });
            },
            "submodule",
        ),
    ];
    for (position, (damage, expected)) in cases.iter().enumerate() {
        let mut def = with_alarm();
        build_alone(&def, None).unwrap();
        damage(&mut def);
        let mut allocated = 0;
        let refused = DatabaseSchema::from_module_def(&def, None, &mut |count| {
            allocated += count;
            Ok(16)
        });
        let message = refused.expect_err(expected).to_string();
        assert!(message.contains(expected), "case {position}: {message:?} lacks {expected:?}");
    }
}

#[test]
fn ids_of_what_stays_are_kept() {
    let before = build_alone(&people(), None).unwrap();
    let mut def = with_alarm();
    def.tables[0].indexes.remove(1);
    unique_column(&mut def.tables[0], 1);
    def.tables[0].table_access = TableAccess::Private;
    let mut requests = Vec::new();
    let after = DatabaseSchema::from_module_def(&def, Some(&before), &mut |count| {
        requests.push(count);
        Ok(1000)
    })
    .unwrap();
    assert_eq!(requests, [3], "one table with one index and one index on the old table");
    let (old, new) = (&before.tables()[0], after.table_named("people_list").unwrap());
    assert_eq!(old.id, new.id);
    assert_eq!(old.primary_key_index().unwrap().id, new.primary_key_index().unwrap().id);
    assert_eq!(before.sequences_keyspace(), after.sequences_keyspace());
    assert!(before.index(after.index_named("people_list_full_name_idx_btree").unwrap().1.id).is_none());
    assert!(!new.public);

    let mut allocate = |_| panic!("nothing is new");
    let same = DatabaseSchema::from_module_def(&def, Some(&after), &mut allocate).unwrap();
    assert_eq!(same.encode(), after.encode());
}

#[test]
fn an_index_that_becomes_unique_is_a_new_index() {
    let before = build_alone(&people(), None).unwrap();
    let mut def = people();
    def.tables[0].constraints.push(unique(&[2, 1]));
    let after = build_alone(&def, Some(&before)).unwrap();
    let name = "people_list_team_full_name_idx_btree";
    assert_ne!(before.index_named(name).unwrap().1.id, after.index_named(name).unwrap().1.id);
}

type Columns = Vec<(&'static str, AlgebraicType)>;

/// One table `t` with the given columns, the first of which is the primary key.
fn one_table(columns: &Columns) -> ModuleDef {
    let mut def = ModuleDef::default();
    let position = table(&mut def, "t", columns);
    primary_key(&mut def.tables[position], 0);
    def
}

fn one_table_columns() -> Columns {
    vec![
        ("id", AlgebraicType::U64),
        ("name", AlgebraicType::String),
        ("mood", AlgebraicType::array(AlgebraicType::plain_enum(["Good", "Bad"]))),
    ]
}

#[test]
fn incompatible_changes_are_listed() {
    type Change = fn(&mut Columns);
    let cases: &[(Change, &[&str])] = &[
        (
            |columns| columns.push(("age", AlgebraicType::U8)),
            &["column `age` was added to table `t` without a default value"],
        ),
        (
            |columns| columns.insert(1, ("age", AlgebraicType::U8)),
            &[
                "column `name` of table `t` was moved",
                "column `mood` of table `t` was moved",
                "column `age` was added to table `t` before other columns",
            ],
        ),
        (|columns| drop(columns.pop()), &["column `mood` was removed from table `t`"]),
        (|columns| columns[1].0 = "title", &["column `name` of table `t` was renamed to `title`"]),
        (|columns| columns[1].1 = AlgebraicType::U32, &["column `name` of table `t` changed from String to U32"]),
        (
            |columns| columns[2].1 = AlgebraicType::array(AlgebraicType::plain_enum(["Bad", "Good"])),
            &["column `mood` of table `t` has another Array type"],
        ),
        (
            |columns| columns.swap(1, 2),
            &["column `name` of table `t` was moved", "column `mood` of table `t` was moved"],
        ),
        (
            |columns| {
                columns[1] = ("title", AlgebraicType::U8);
                columns.push(("age", AlgebraicType::U8));
            },
            &[
                "column `name` was removed from table `t`",
                "column `title` was added to table `t` before other columns",
                "column `age` was added to table `t` without a default value",
            ],
        ),
    ];
    let before = build_alone(&one_table(&one_table_columns()), None).unwrap();
    for (change, expected) in cases {
        let mut columns = one_table_columns();
        change(&mut columns);
        assert_eq!(changes_between(&before, &one_table(&columns)), *expected);
    }
}

fn changes_between(before: &DatabaseSchema, def: &ModuleDef) -> Vec<String> {
    match build_alone(def, Some(before)) {
        Err(SchemaError::Incompatible(changes)) => changes.iter().map(ToString::to_string).collect(),
        Err(other) => panic!("{other}"),
        Ok(_) => Vec::new(),
    }
}

#[test]
fn tables_keys_and_events_are_compared_too() {
    let before = build_alone(&one_table(&one_table_columns()), None).unwrap();
    assert_eq!(changes_between(&before, &ModuleDef::default()), ["table `t` was removed"]);

    let mut def = one_table(&one_table_columns());
    def.tables[0].primary_key.clear();
    let expected = "the primary key of table `t` changed from `id` to none";
    assert_eq!(changes_between(&before, &def), [expected]);

    let mut def = one_table(&one_table_columns());
    def.tables[0].is_event = true;
    assert_eq!(changes_between(&before, &def), ["table `t` became an event table"]);
}

#[test]
fn an_enum_may_grow_at_its_end() {
    let before = build_alone(&one_table(&one_table_columns()), None).unwrap();
    let mut columns = one_table_columns();
    let grown = [("Good", AlgebraicType::unit()), ("Bad", AlgebraicType::unit()), ("Odd", AlgebraicType::String)];
    columns[2].1 = AlgebraicType::array(AlgebraicType::sum(grown));
    assert!(changes_between(&before, &one_table(&columns)).is_empty());
}

/// Every compatible change is a step of the plan, and says whether clients notice.
#[test]
fn plans_list_what_changes_and_whether_clients_notice() {
    type Change = fn(&mut ModuleDef);
    let with_default = |def: &mut ModuleDef| {
        let AlgebraicType::Product(row) = &mut def.typespace.0[0] else { panic!("rows are products") };
        let mut elements = row.elements.to_vec();
        elements.push(tine_types::ProductTypeElement { name: Some("age".into()), ty: AlgebraicType::U8 });
        row.elements = elements.into();
        def.tables[0].default_values.push(ColumnDefault { col_id: 3, value: Box::new([7]) });
    };
    let cases: &[(Change, &[&str], bool)] = &[
        (|_| {}, &[], false),
        (with_default, &["add column `age` (U8, 7 in the rows there are) to table `t`"], true),
        (
            |def| {
                table(def, "extra", &[("a", AlgebraicType::U8)]);
            },
            &["add public table `extra`"],
            false,
        ),
        (
            |def| def.tables[0].indexes.push(btree(&[1, 0])),
            &["add index `t_name_id_idx_btree` on (name, id) to table `t`"],
            false,
        ),
        (|def| def.tables[0].sequences.push(auto_increment(0)), &["add a sequence to column `id` of table `t`"], false),
        (|def| def.tables[0].table_access = TableAccess::Private, &["make table `t` private"], true),
    ];
    for (change, expected, breaks) in cases {
        let before = build_alone(&one_table(&one_table_columns()), None).unwrap();
        let mut def = one_table(&one_table_columns());
        change(&mut def);
        let after = build_alone(&def, Some(&before)).unwrap();
        let steps = after.steps_from(&before);
        assert_eq!(steps.iter().map(ToString::to_string).collect::<Vec<_>>(), *expected);
        assert_eq!(steps.iter().any(SchemaStep::breaks_clients), *breaks, "{expected:?}");
        assert!(before.steps_from(&before).is_empty());
    }
}

#[test]
fn stored_schemas_read_back_the_same() {
    let mut def = with_alarm();
    def.tables[0].default_values.push(ColumnDefault { col_id: 2, value: Box::new([1, 0, 0, 0]) });
    def.submodules.push(Submodule { namespace: "auth".into(), module: people() });
    let schema = build_alone(&def, None).unwrap();
    let bytes = schema.encode();
    let read = DatabaseSchema::decode(&bytes).unwrap();
    assert_eq!(format!("{:?}", read.tables()), format!("{:?}", schema.tables()));
    assert_eq!(read.encode(), bytes);
    assert!(read.index_named("auth.peopleList_id_idx_btree").is_some());

    for cut in 0..bytes.len() {
        assert!(DatabaseSchema::decode(&bytes[..cut]).is_err(), "{cut}");
    }
    let mut newer = bytes.clone();
    newer[0] = 9;
    assert_eq!(DatabaseSchema::decode(&newer).unwrap_err().code(), "TN0355");
    for position in 1..bytes.len() {
        for value in [0, 0x7F, 0xFF] {
            let mut damaged = bytes.clone();
            damaged[position] = value;
            // Any outcome but a panic will do: some bytes are letters of names.
            let _ = DatabaseSchema::decode(&damaged);
        }
    }
}
