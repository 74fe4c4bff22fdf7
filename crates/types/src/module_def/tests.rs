use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{AlgebraicType, ProductType, TypeRef};

fn mapping(source_name: &str, canonical_name: &str) -> NameMapping {
    NameMapping { source_name: source_name.into(), canonical_name: canonical_name.into() }
}

fn index(source_name: Option<&str>, algorithm: IndexAlgorithm) -> IndexDef {
    IndexDef { source_name: source_name.map(Into::into), accessor_name: Some("by".into()), algorithm }
}

fn player_table() -> TableDef {
    TableDef {
        source_name: "playerStats".into(),
        product_type_ref: TypeRef(0),
        primary_key: vec![0],
        indexes: vec![
            index(Some("playerStats_playerId_idx_btree"), IndexAlgorithm::BTree(vec![0])),
            index(None, IndexAlgorithm::Hash(vec![1, 0])),
            index(Some("direct"), IndexAlgorithm::Direct(2)),
        ],
        constraints: vec![
            ConstraintDef { source_name: None, data: ConstraintData::Unique(UniqueConstraint { columns: vec![0] }) },
            ConstraintDef {
                source_name: Some("given".into()),
                data: ConstraintData::Unique(UniqueConstraint { columns: vec![1] }),
            },
        ],
        sequences: vec![SequenceDef {
            source_name: None,
            column: 0,
            start: Some(-5),
            min_value: None,
            max_value: Some(i128::MAX),
            increment: 1,
        }],
        table_type: TableType::User,
        table_access: TableAccess::Private,
        default_values: vec![ColumnDefault { col_id: 2, value: vec![0xab].into() }],
        is_event: true,
    }
}

/// A module that uses every record and every variant.
fn sample() -> ModuleDef {
    let row = AlgebraicType::product([
        ("playerId", AlgebraicType::U64),
        ("lastSeen", AlgebraicType::timestamp()),
        ("level2", AlgebraicType::U8),
    ]);
    let params = ProductType::named([("row", AlgebraicType::reference(0))]);
    let submodule = ModuleDef { case_policy: CasePolicy::None, ..ModuleDef::default() };
    let route = |method, path: &str| HttpRouteDef { handler_function: "serve".into(), method, path: path.into() };
    ModuleDef {
        typespace: Typespace(vec![row]),
        types: vec![TypeDef {
            source_name: ScopedName { scope: vec!["game".into()], source_name: "PlayerStats".into() },
            ty: TypeRef(0),
            custom_ordering: true,
        }],
        tables: vec![player_table()],
        reducers: vec![ReducerDef {
            source_name: "addPlayer".into(),
            params: params.clone(),
            visibility: Visibility::ClientCallable,
            ok_return_type: AlgebraicType::unit(),
            err_return_type: AlgebraicType::String,
        }],
        procedures: vec![ProcedureDef {
            source_name: "fetchAll".into(),
            params: params.clone(),
            return_type: AlgebraicType::array(AlgebraicType::reference(0)),
            visibility: Visibility::Private,
        }],
        views: vec![ViewDef {
            source_name: "topPlayers".into(),
            index: 0,
            is_public: true,
            is_anonymous: false,
            params: ProductType::unit(),
            return_type: AlgebraicType::option(AlgebraicType::reference(0)),
        }],
        schedules: vec![ScheduleDef {
            source_name: None,
            table_name: "playerStats".into(),
            schedule_at_col: 1,
            function_name: "addPlayer".into(),
        }],
        lifecycle: [LifecycleEvent::Init, LifecycleEvent::OnConnect, LifecycleEvent::OnDisconnect]
            .map(|lifecycle_spec| LifecycleDef { lifecycle_spec, function_name: "hook".into() })
            .into(),
        row_level_security: vec![RowLevelSecurityDef { sql: "SELECT * FROM t".into() }],
        case_policy: CasePolicy::SnakeCase,
        explicit_names: vec![
            ExplicitName::Table(mapping("accounts", "Accounts")),
            ExplicitName::Function(mapping("addPlayer", "add")),
            ExplicitName::Index(mapping("direct", "by_level")),
        ],
        http_handlers: vec![HttpHandlerDef { source_name: "serve".into() }],
        http_routes: vec![
            route(MethodOrAny::Any, "/"),
            route(MethodOrAny::Method(HttpMethod::Patch), "/a"),
            route(MethodOrAny::Method(HttpMethod::Extension("BREW".into())), "/b"),
        ],
        view_primary_keys: vec![ViewPrimaryKey {
            view_source_name: "topPlayers".into(),
            columns: vec!["playerId".into()],
        }],
        submodules: vec![Submodule { namespace: "inner".into(), module: submodule }],
    }
}

#[test]
fn a_module_survives_its_encoding() {
    for module in [sample(), ModuleDef::default()] {
        assert_eq!(ModuleDef::decode(&module.encode()), Ok(module));
    }
}

#[test]
fn known_bytes() {
    let bytes = [
        &[2, 2, 0, 0, 0][..],
        // Reducers, out of the usual order: one, "r", no parameters, callable, unit, String.
        &[3, 1, 0, 0, 0, 1, 0, 0, 0, b'r', 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 4],
        // Lifecycle: "r" runs when a client connects.
        &[7, 1, 0, 0, 0, 1, 1, 0, 0, 0, b'r'],
    ]
    .concat();
    let module = ModuleDef::decode(&bytes).unwrap();
    let reducer = ReducerDef {
        source_name: "r".into(),
        params: ProductType::unit(),
        visibility: Visibility::ClientCallable,
        ok_return_type: AlgebraicType::unit(),
        err_return_type: AlgebraicType::String,
    };
    assert_eq!(module.reducers, [reducer]);
    let hook = LifecycleDef { lifecycle_spec: LifecycleEvent::OnConnect, function_name: "r".into() };
    assert_eq!(module.lifecycle, [hook]);
    assert_eq!(module.case_policy, CasePolicy::SnakeCase);
    let sections: Vec<u8> = [0, 1, 2, 3, 4, 5, 13, 6, 7, 11, 12, 8].iter().flat_map(|&tag| [tag, 0, 0, 0, 0]).collect();
    let all = [&[2, 15, 0, 0, 0][..], &sections, &[10, 0, 0, 0, 0, 9, 1, 14, 0, 0, 0, 0]].concat();
    assert_eq!(ModuleDef::default().encode(), all);
}

/// What the TypeScript module SDK 2.10.1 describes a module of two tables, two reducers and a
/// procedure as.
#[test]
fn a_definition_made_by_the_module_sdk() {
    let bytes = include_bytes!("data/player_module.bin");
    let module = ModuleDef::decode(bytes).unwrap();
    assert_eq!(module.encode(), bytes);
    let tables: Vec<_> = module.tables.iter().map(|table| (&*table.source_name, table.is_event)).collect();
    assert_eq!(tables, [("playerStats", false), ("evLog", true)]);
    let player = &module.tables[0];
    let row = module.typespace.inline(&AlgebraicType::Ref(player.product_type_ref)).unwrap();
    let row = row.as_product().unwrap();
    assert_eq!(row.elements.len(), 7);
    assert!(row.elements[3].ty.is_timestamp());
    assert_eq!(row.elements[4].ty.as_option(), Some(&AlgebraicType::String));
    assert!(row.elements[5].ty.is_identity());
    assert_eq!(row.elements[6].ty.as_sum().unwrap().position("Named"), Some(1));
    let indexes: Vec<_> = player.indexes.iter().map(|index| module.index_source_name(player, index)).collect();
    let expected =
        ["playerStats_playerId_idx_btree", "playerStats_name_idx_btree", "playerStats_level2_name_idx_btree"];
    assert_eq!(indexes, expected);
    assert_eq!(player.sequences[0].column, 0);
    let reducers: Vec<_> = module.reducers.iter().map(|reducer| &*reducer.source_name).collect();
    assert_eq!(reducers, ["addPlayer", "init"]);
    assert_eq!(module.lifecycle[0].lifecycle_spec, LifecycleEvent::Init);
    assert_eq!(module.procedures[0].return_type, AlgebraicType::String);
}

#[test]
fn hostile_definitions() {
    let nested = (0..=SUBMODULE_DEPTH_MAX).fold(ModuleDef::default(), |module, _| ModuleDef {
        submodules: vec![Submodule { namespace: "x".into(), module }],
        ..ModuleDef::default()
    });
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "TN0144"),
        (vec![1, 0, 0, 0, 0], "TN0144"),
        (vec![0, 0, 0, 0, 0], "TN0141"),
        (vec![2, 1, 0, 0, 0, 15], "TN0144"),
        (vec![2, 2, 0, 0, 0, 9, 0, 9, 0], "TN0142"),
        (vec![2, 0, 0, 0, 0, 0], "TN0144"),
        (vec![2, 1, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff], "TN0144"),
        (nested.encode(), "TN0143"),
        (vec![2; MODULE_BYTES_MAX + 1], "TN0140"),
    ];
    for (bytes, code) in cases {
        assert_eq!(ModuleDef::decode(&bytes).unwrap_err().code(), code, "{:?}", &bytes[..bytes.len().min(10)]);
    }
}

#[test]
fn json_of_a_definition() {
    let json = sample().to_json();
    let sections = json["sections"].as_array().unwrap();
    assert_eq!(sections.len(), 15);
    let section = |name: &str| sections.iter().find_map(|section| section.get(name)).unwrap();
    assert_eq!(
        *section("Types"),
        json!([{
            "source_name": {"scope": ["game"], "source_name": "PlayerStats"}, "ty": 0, "custom_ordering": true
        }])
    );
    let table = &section("Tables")[0];
    assert_eq!(table["product_type_ref"], json!(0));
    assert_eq!(table["primary_key"], json!([0]));
    assert_eq!(
        table["indexes"][0],
        json!({
            "source_name": {"some": "playerStats_playerId_idx_btree"},
            "accessor_name": {"some": "by"},
            "algorithm": {"BTree": [0]}
        })
    );
    assert_eq!(table["indexes"][2]["algorithm"], json!({"Direct": 2}));
    assert_eq!(table["constraints"][0], json!({"source_name": {"none": []}, "data": {"Unique": {"columns": [0]}}}));
    assert_eq!(table["sequences"][0]["start"], json!({"some": -5}));
    assert_eq!(table["sequences"][0]["max_value"].to_string(), format!("{{\"some\":{}}}", i128::MAX));
    assert_eq!(table["table_type"], json!({"User": []}));
    assert_eq!(table["table_access"], json!({"Private": []}));
    assert_eq!(table["default_values"], json!([{"col_id": 2, "value": "ab"}]));
    assert_eq!(table["is_event"], json!(true));
    assert_eq!(section("Reducers")[0]["visibility"], json!({"ClientCallable": []}));
    assert_eq!(section("LifeCycleReducers")[1], json!({"lifecycle_spec": {"OnConnect": []}, "function_name": "hook"}));
    assert_eq!(*section("CaseConversionPolicy"), json!({"SnakeCase": []}));
    assert_eq!(
        section("ExplicitNames")["entries"][1],
        json!({"Function": {"source_name": "addPlayer", "canonical_name": "add"}})
    );
    assert_eq!(section("HttpRoutes")[2]["method"], json!({"Method": {"Extension": "BREW"}}));
    assert_eq!(section("Submodules")[0]["module"]["sections"].as_array().unwrap().len(), 15);
    assert_eq!(section("Typespace")["types"][0]["Product"]["elements"][0]["name"], json!({"some": "playerId"}));
}

#[test]
fn case_conversion() {
    for (name, snake, pascal, camel) in [
        ("playerStats", "player_stats", "PlayerStats", "playerStats"),
        ("PlayerStats", "player_stats", "PlayerStats", "playerStats"),
        ("already_snake_case", "already_snake_case", "AlreadySnakeCase", "alreadySnakeCase"),
        ("HTTPServer", "http_server", "HttpServer", "httpServer"),
        ("HTTP2ReducerTick", "http_2_reducer_tick", "Http2ReducerTick", "http2ReducerTick"),
        ("__my__XMLParser99", "my_xml_parser_99", "MyXmlParser99", "myXmlParser99"),
        ("u32", "u_32", "U32", "u32"),
        ("kebab-case name", "kebab_case_name", "KebabCaseName", "kebabCaseName"),
        ("ÄpfelBaum", "äpfel_baum", "ÄpfelBaum", "äpfelBaum"),
        ("x", "x", "X", "x"),
        ("", "", "", ""),
        ("__", "", "", ""),
    ] {
        assert_eq!(snake_case(name), snake, "{name}");
        assert_eq!(pascal_case(name), pascal, "{name}");
        assert_eq!(camel_case(name), camel, "{name}");
    }
}

#[test]
fn canonical_names() {
    let module = sample();
    let table = &module.tables[0];
    assert_eq!(module.canonical_table_name("playerStats"), "player_stats");
    assert_eq!(module.canonical_table_name("accounts"), "Accounts");
    assert_eq!(module.canonical_function_name("addPlayer"), "add");
    assert_eq!(module.canonical_function_name("accounts"), "accounts");
    assert_eq!(module.canonical_column_name("level2"), "level_2");
    assert_eq!(module.canonical_type_name("player_stats"), "PlayerStats");
    assert_eq!(module.canonical_variant_name("NotFound"), "notFound");
    assert_eq!(module.canonical_schedule_name("playerStats"), "player_stats_sched");
    assert_eq!(module.canonical_sequence_name(table, 0), "player_stats_player_id_seq");
    let indexes: Vec<_> = table
        .indexes
        .iter()
        .map(|index| (module.index_source_name(table, index), module.canonical_index_name(table, index)))
        .collect();
    let expected = [
        ("playerStats_playerId_idx_btree", "player_stats_player_id_idx_btree"),
        ("playerStats_lastSeen_playerId_idx_hash", "player_stats_last_seen_player_id_idx_hash"),
        ("direct", "by_level"),
    ];
    assert_eq!(indexes, expected.map(|(source, canonical)| (source.to_owned(), canonical.to_owned())));
    let constraints: Vec<_> =
        table.constraints.iter().map(|constraint| module.canonical_constraint_name(table, constraint)).collect();
    assert_eq!(constraints, ["player_stats_player_id_key", "given"]);
    assert_eq!(module.column_names(table, &[2, 99]), ["level2", "99"]);
    let none = ModuleDef { case_policy: CasePolicy::None, ..module };
    assert_eq!(none.canonical_table_name("playerStats"), "playerStats");
}

proptest! {
    #[test]
    fn damaged_definitions_never_panic(position: proptest::sample::Index, byte: u8, cut: proptest::sample::Index) {
        let mut bytes = sample().encode();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        if let Ok(module) = ModuleDef::decode(&bytes) {
            prop_assert_eq!(ModuleDef::decode(&module.encode()), Ok(module.clone()));
            let _ = module.to_json();
            for table in &module.tables {
                for index in &table.indexes {
                    let _ = module.canonical_index_name(table, index);
                }
            }
        }
        bytes.truncate(cut.index(bytes.len()));
        let _ = ModuleDef::decode(&bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = ModuleDef::decode(&[&[2], &bytes[..]].concat());
    }

    #[test]
    fn canonical_names_are_fixed_points(name in "[a-zA-Z0-9_ -]{0,20}") {
        let canonical = snake_case(&name);
        prop_assert_eq!(snake_case(&canonical), canonical.clone());
        prop_assert!(!canonical.starts_with('_') && !canonical.ends_with('_') && !canonical.contains("__"));
    }
}

#[test]
fn json_is_read_back() {
    let module = sample();
    assert_eq!(ModuleDef::from_json(&module.to_json()), Ok(module.clone()));
    let text = module.to_json().to_string();
    let parsed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(ModuleDef::from_json(&parsed), Ok(module));
    for wrong in [
        json!([]),
        json!({ "sections": [{ "Nothing": [] }] }),
        json!({ "sections": [{ "Tables": [{}] }] }),
        json!({ "sections": [{ "Typespace": { "types": [{ "Ref": -1 }] } }] }),
        json!({ "sections": [{ "CaseConversionPolicy": { "Loud": [] } }] }),
    ] {
        assert!(ModuleDef::from_json(&wrong).is_err(), "{wrong}");
    }
}
