use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::bsatn::{Reader, VALUE_NODES_MAX, encode_value};
use crate::strategies::{any_type, typed_value};
use crate::{
    AlgebraicType as Type, AlgebraicValue as Value, ConnectionId, I256, Identity, ProductType, ScheduleAt,
    TimeDuration, Timestamp, U256, Uuid,
};

fn sql_json(ty: &Type, value: &Value) -> Json {
    let mut bytes = Vec::new();
    encode_value(value, &mut bytes);
    bsatn_to_sql_json(ty, &mut Reader::new(&bytes)).unwrap()
}

fn number(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

#[test]
fn known_forms() {
    let identity = Identity::from_claims("localhost", "somebody");
    let identity_text = format!("0x{}", identity.to_hex());
    let shape = Type::sum([("Circle", Type::F32), ("Empty", Type::unit())]);
    let point = Type::product([("x", Type::I32), ("y", Type::I32)]);
    let origin = Value::Product(vec![Value::I32(0), Value::I32(-1)]);
    let max = "18446744073709551615";
    let max_128 = "340282366920938463463374607431768211455";
    let cases = vec![
        (Type::U64, Value::U64(u64::MAX), number(max), number(max)),
        (Type::U128, Value::U128(u128::MAX), number(max_128), number(max_128)),
        (Type::U256, Value::U256(U256::from(10u64)), json!(format!("0x{:064x}", 10)), json!(format!("0x{:064x}", 10))),
        (Type::I256, Value::I256(I256::from(-10)), json!(format!("-0x{:064x}", 10)), json!(format!("-0x{:064x}", 10))),
        (Type::F32, Value::F32(1.1), number("1.1"), number("1.1")),
        (Type::F64, Value::F64(1e300), number("1e300"), number("1e300")),
        (Type::F64, Value::F64(f64::NEG_INFINITY), json!("-Infinity"), json!("-Infinity")),
        (Type::Bool, Value::Bool(true), json!(true), json!(true)),
        (Type::String, Value::string("a\"b"), json!("a\"b"), json!("a\"b")),
        (Type::bytes(), Value::Bytes(vec![0xab, 1].into()), json!("ab01"), json!("ab01")),
        (Type::array(point), Value::Array(vec![origin]), json!([{"x": 0, "y": -1}]), json!([[0, -1]])),
        (Type::option(Type::U8), Value::some(Value::U8(0)), json!({"some": 0}), json!([0, 0])),
        (Type::option(Type::U8), Value::none(), json!({"none": []}), json!([1, []])),
        (shape.clone(), Value::variant(1), json!({"Empty": []}), json!([1, []])),
        (
            shape,
            Value::Sum { tag: 0, value: Box::new(Value::F32(2.0)) },
            json!({"Circle": number("2.0")}),
            json!([0, number("2.0")]),
        ),
        (Type::identity(), identity.to_value(), json!({"__identity__": identity_text}), json!([identity_text])),
        (Type::connection_id(), ConnectionId::new(5).to_value(), json!({"__connection_id__": 5}), json!([5])),
        (
            Type::timestamp(),
            Timestamp::from_micros(7).to_value(),
            json!({"__timestamp_micros_since_unix_epoch__": 7}),
            json!([7]),
        ),
        (
            Type::schedule_at(),
            ScheduleAt::Interval(TimeDuration::from_micros(3)).to_value(),
            json!({"Interval": {"__time_duration_micros__": 3}}),
            json!([0, [3]]),
        ),
        (Type::unit(), Value::unit(), json!([]), json!([])),
    ];
    for (ty, value, named, sql) in cases {
        assert_eq!(value_to_json(&ty, &value), named);
        assert_eq!(sql_json(&ty, &value), sql);
        assert_eq!(json_to_value(&ty, &named).unwrap(), value);
        assert_eq!(json_to_value(&ty, &sql).unwrap(), value);
    }
}

#[test]
fn other_accepted_forms() {
    let identity = Identity::from_claims("localhost", "somebody");
    let uuid = Uuid::new(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    let pair = Type::product([("a", Type::U8), ("b", Type::U8)]);
    let ab = Value::Product(vec![Value::U8(1), Value::U8(2)]);
    let color = Type::plain_enum(["Red", "Green"]);
    let cases = vec![
        (pair.clone(), json!({"b": 2, "a": 1}), ab.clone()),
        (pair, json!([1, 2]), ab),
        (color.clone(), json!("Green"), Value::variant(1)),
        (color.clone(), json!({"1": []}), Value::variant(1)),
        (color.clone(), json!(["Green", []]), Value::variant(1)),
        (color, json!({"Green": {}}), Value::variant(1)),
        (Type::option(Type::U8), Json::Null, Value::none()),
        (Type::option(Type::U8), json!([0, 9]), Value::some(Value::U8(9))),
        (Type::U64, json!("0xff"), Value::U64(255)),
        (Type::U64, json!("18446744073709551615"), Value::U64(u64::MAX)),
        (Type::I64, json!("-5"), Value::I64(-5)),
        (Type::U256, json!(3), Value::U256(U256::from(3u64))),
        (Type::I256, number("-3"), Value::I256(I256::from(-3))),
        (Type::bytes(), json!([1, 255]), Value::Bytes(vec![1, 255].into())),
        (Type::bytes(), json!("0xABcd"), Value::Bytes(vec![0xab, 0xcd].into())),
        (Type::F64, json!(5), Value::F64(5.0)),
        (Type::F32, Json::Null, Value::F32(f32::NAN)),
        (Type::identity(), json!(identity.to_hex()), identity.to_value()),
        (Type::identity(), json!({"__identity__": identity.to_hex()}), identity.to_value()),
        (Type::identity(), json!([identity.to_u256().to_string()]), identity.to_value()),
        (Type::connection_id(), json!(ConnectionId::new(77).to_hex()), ConnectionId::new(77).to_value()),
        (Type::uuid(), json!(uuid.to_string()), uuid.to_value()),
        (Type::timestamp(), json!("1970-01-01T00:00:01Z"), Timestamp::from_micros(1_000_000).to_value()),
        (Type::timestamp(), json!(12), Timestamp::from_micros(12).to_value()),
        (Type::time_duration(), json!(-4), TimeDuration::from_micros(-4).to_value()),
    ];
    for (ty, json, value) in cases {
        assert_eq!(json_to_value(&ty, &json), Ok(value), "{json}");
    }
}

#[test]
fn argument_lists() {
    let params = ProductType::named([("name", Type::String), ("age", Type::U8)]);
    let mut from_array = Vec::new();
    product_from_json(&params, &json!(["Ann", 7]), &mut from_array).unwrap();
    let mut from_object = Vec::new();
    product_from_json(&params, &json!({"age": 7, "name": "Ann"}), &mut from_object).unwrap();
    assert_eq!(from_array, [3, 0, 0, 0, b'A', b'n', b'n', 7]);
    assert_eq!(from_object, from_array);
    let mut reader = Reader::new(&from_array);
    assert_eq!(product_to_json(&params, &mut reader), Ok(json!({"name": "Ann", "age": 7})));
    let mut reader = Reader::new(&from_array);
    assert_eq!(product_to_sql_json(&params, &mut reader), Ok(json!(["Ann", 7])));
}

#[test]
fn rows_have_names_outside_of_arrays() {
    let point = || Type::product([("x", Type::U8), ("y", Type::U8)]);
    let Type::Product(row) = Type::product([
        ("at", point()),
        ("next", Type::option(point())),
        ("path", Type::array(point())),
        ("marks", Type::array(Type::option(Type::U8))),
        ("bytes", Type::bytes()),
    ]) else {
        unreachable!("it is a product")
    };
    let bytes = [1, 2, 0, 3, 4, 1, 0, 0, 0, 5, 6, 2, 0, 0, 0, 0, 7, 1, 1, 0, 0, 0, 0xab];
    let json = row_to_json(&row, &mut Reader::new(&bytes)).unwrap();
    let expected = json!({
        "at": { "x": 1, "y": 2 },
        "next": [0, { "x": 3, "y": 4 }],
        "path": [[5, 6]],
        "marks": [[0, 7], [1, []]],
        "bytes": "ab",
    });
    assert_eq!(json, expected);
    let mut again = Vec::new();
    product_from_json(&row, &json, &mut again).unwrap();
    assert_eq!(again, bytes);
}

#[test]
fn wrong_input_says_where_and_why() {
    let row = Type::product([("id", Type::U8), ("tags", Type::array(Type::option(Type::I16)))]);
    let cases = vec![
        (json!({"id": 1}), "TN0132", "field `tags` is missing"),
        (json!({"id": 1, "tags": [], "x": 0}), "TN0133", "there is no field `x`"),
        (json!([1]), "TN0134", "expected 2 values, found 1"),
        (json!(true), "TN0130", "expected an object or array, found a boolean"),
        (json!([256, []]), "TN0131", "at `[0]`: `256` is no U8"),
        (json!([number("1.5"), []]), "TN0131", "at `[0]`: `1.5` is no U8"),
        (json!(["1", []]), "TN0130", "at `[0]`: expected a number, found a string"),
        (json!({"id": 1, "tags": [{"some": 1}, {"some": 40000}]}), "TN0131", "at `.tags[1].some`: `40000` is no I16"),
        (json!({"id": 1, "tags": [{"all": 1}]}), "TN0135", "at `.tags[0]`: there is no variant `all`"),
        (
            json!({"id": 1, "tags": [{"some": 1, "none": []}]}),
            "TN0130",
            "at `.tags[0]`: expected an object of one variant, found an object",
        ),
        (
            json!({"id": 1, "tags": ["some"]}),
            "TN0130",
            "at `.tags[0]`: expected a variant with its value, found a string",
        ),
        (json!({"id": 1, "tags": [[2, []]]}), "TN0135", "at `.tags[0]`: there is no variant `2`"),
    ];
    for (json, code, text) in cases {
        let error = json_to_value(&row, &json).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (code, text));
    }
    for (ty, json) in [
        (Type::bytes(), json!("abc")),
        (Type::bytes(), json!("éé")),
        (Type::U64, json!(-1)),
        (Type::U128, json!("0x1ffffffffffffffffffffffffffffffff")),
        (Type::F64, json!("1.0")),
        (Type::identity(), json!("c200")),
        (Type::identity(), json!({"__identity__": 1, "x": 2})),
        (Type::timestamp(), json!("yesterday")),
        (Type::Bool, json!(1)),
    ] {
        assert!(json_to_value(&ty, &json).is_err(), "{json}");
    }
    let long = json_to_value(&Type::U64, &json!("9".repeat(1000))).unwrap_err();
    assert!(long.to_string().len() < 100);
}

#[test]
fn types_as_json() {
    let ty = Type::product([("id", Type::U64), ("tags", Type::array(Type::reference(3)))]);
    let expected = json!({"Product": {"elements": [
        {"name": {"some": "id"}, "algebraic_type": {"U64": []}},
        {"name": {"some": "tags"}, "algebraic_type": {"Array": {"Ref": 3}}},
    ]}});
    assert_eq!(type_to_json(&ty), expected);
    let sum = Type::Sum(crate::SumType::new([crate::SumTypeVariant { name: None, ty: Type::unit() }]));
    let expected = json!({"Sum": {"variants": [
        {"name": {"none": []}, "algebraic_type": {"Product": {"elements": []}}},
    ]}});
    assert_eq!(type_to_json(&sum), expected);
}

#[test]
fn output_is_bounded() {
    let count = u32::try_from(VALUE_NODES_MAX).unwrap();
    let bytes = [&count.to_le_bytes()[..], &vec![1; VALUE_NODES_MAX]].concat();
    let flags = Type::array(Type::Bool);
    assert_eq!(bsatn_to_json(&flags, &mut Reader::new(&bytes)).unwrap_err().code(), "TN0114");
    let units = Type::array(Type::unit());
    let too_many = vec![json!([]); crate::bsatn::ZERO_SIZED_ELEMENTS_MAX as usize + 1];
    assert_eq!(json_to_value(&units, &json!(too_many)).unwrap_err().code(), "TN0103");
}

/// JSON of any shape, with the keys and texts that mean something somewhere.
fn any_json() -> impl Strategy<Value = Json> {
    let text = prop_oneof!["[a-z0-9x]{0,6}", Just("some".to_owned()), Just("__identity__".to_owned())];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        (0..4).prop_map(Json::from),
        text.clone().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let entries = proptest::collection::vec((text.clone(), inner.clone()), 0..4);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Json::from),
            entries.prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    })
}

/// NaN has many encodings and one text.
fn has_nan(value: &Value) -> bool {
    match value {
        Value::F32(value) => value.is_nan(),
        Value::F64(value) => value.is_nan(),
        Value::Array(values) | Value::Product(values) => values.iter().any(has_nan),
        Value::Sum { value, .. } => has_nan(value),
        _ => false,
    }
}

proptest! {
    #[test]
    fn both_forms_round_trip_through_text((ty, value) in typed_value()) {
        prop_assume!(!has_nan(&value));
        for json in [value_to_json(&ty, &value), sql_json(&ty, &value)] {
            let text = json.to_string();
            let parsed: Json = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(json_to_value(&ty, &parsed), Ok(value.clone()), "{}", text);
        }
    }

    #[test]
    fn arbitrary_json_never_panics(ty in any_type(), json in any_json()) {
        if let Ok(value) = json_to_value(&ty, &json) {
            let again = json_to_value(&ty, &value_to_json(&ty, &value));
            prop_assert!(has_nan(&value) || again == Ok(value));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(ty in any_type(), bytes: Vec<u8>) {
        let _ = bsatn_to_json(&ty, &mut Reader::new(&bytes));
        let _ = bsatn_to_sql_json(&ty, &mut Reader::new(&bytes));
    }
}
