use super::*;
use proptest::prelude::*;
use tine_types::{AlgebraicValue, I256, ProductType, SumType, U256};

fn encode(ty: &AlgebraicType, value: &AlgebraicValue) -> Vec<u8> {
    let mut bsatn = Vec::new();
    bsatn::encode_value(value, &mut bsatn);
    let mut reader = Reader::new(&bsatn);
    let mut key = Vec::new();
    encode_checked(ty, &mut reader, &mut key).unwrap();
    assert!(reader.is_empty());
    key
}

/// Types of every kind, nested a little.
fn any_type() -> impl Strategy<Value = AlgebraicType> {
    use AlgebraicType::*;
    let scalars = vec![Bool, I8, U8, I16, U16, I32, U32, I64, U64, I128, U128, I256, U256, F32, F64, String];
    prop::sample::select(scalars).prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(AlgebraicType::array),
            prop::collection::vec(inner.clone(), 0..3).prop_map(|types| {
                let element = |ty| tine_types::ProductTypeElement { name: None, ty };
                AlgebraicType::Product(ProductType::new(types.into_iter().map(element).collect::<Vec<_>>()))
            }),
            prop::collection::vec(inner, 1..4).prop_map(|types| {
                let variant = |ty| tine_types::SumTypeVariant { name: None, ty };
                AlgebraicType::Sum(SumType::new(types.into_iter().map(variant).collect::<Vec<_>>()))
            }),
        ]
    })
}

/// Values of a type, with a liking for extremes and for values that nearly agree.
fn value_of(ty: &AlgebraicType) -> BoxedStrategy<AlgebraicValue> {
    use AlgebraicValue as Value;
    macro_rules! integer {
        ($variant:ident, $number:ty) => {
            prop_oneof![any::<$number>(), prop::sample::select(vec![<$number>::MIN, 0, 1, <$number>::MAX])]
                .prop_map(Value::$variant)
                .boxed()
        };
    }
    match ty {
        AlgebraicType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        AlgebraicType::I8 => integer!(I8, i8),
        AlgebraicType::U8 => integer!(U8, u8),
        AlgebraicType::I16 => integer!(I16, i16),
        AlgebraicType::U16 => integer!(U16, u16),
        AlgebraicType::I32 => integer!(I32, i32),
        AlgebraicType::U32 => integer!(U32, u32),
        AlgebraicType::I64 => integer!(I64, i64),
        AlgebraicType::U64 => integer!(U64, u64),
        AlgebraicType::I128 => integer!(I128, i128),
        AlgebraicType::U128 => integer!(U128, u128),
        AlgebraicType::I256 => any::<[u8; 32]>().prop_map(|bytes| Value::I256(I256::from_le_bytes(bytes))).boxed(),
        AlgebraicType::U256 => any::<[u8; 32]>().prop_map(|bytes| Value::U256(U256::from_le_bytes(bytes))).boxed(),
        AlgebraicType::F32 => any::<u32>().prop_map(|bits| Value::F32(f32::from_bits(bits))).boxed(),
        AlgebraicType::F64 => prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            prop::sample::select(vec![
                0.0,
                -0.0,
                f64::NAN,
                -f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                f64::MIN_POSITIVE
            ]),
        ]
        .prop_map(Value::F64)
        .boxed(),
        AlgebraicType::String => {
            "[\u{0}\u{1}ab\u{7f}\u{ff}\u{10ffff}]{0,4}".prop_map(|text| Value::String(text.into())).boxed()
        }
        AlgebraicType::Array(item) if **item == AlgebraicType::U8 => {
            let byte = prop::sample::select(vec![0u8, 1, 2, 254, 255]);
            prop::collection::vec(byte, 0..4).prop_map(|bytes| Value::Bytes(bytes.into())).boxed()
        }
        AlgebraicType::Array(item) => prop::collection::vec(value_of(item), 0..3).prop_map(Value::Array).boxed(),
        AlgebraicType::Product(product) => {
            let fields: Vec<_> = product.elements.iter().map(|element| value_of(&element.ty)).collect();
            fields.prop_map(Value::Product).boxed()
        }
        AlgebraicType::Sum(sum) => {
            let payloads: Vec<_> = sum
                .variants
                .iter()
                .zip(0u8..)
                .map(|(variant, tag)| {
                    value_of(&variant.ty).prop_map(move |value| Value::Sum { tag, value: Box::new(value) }).boxed()
                })
                .collect();
            prop::strategy::Union::new(payloads).boxed()
        }
        AlgebraicType::Ref(_) => unreachable!("not generated"),
    }
}

/// One to three column types and two to five rows of values.
fn columns_and_rows() -> impl Strategy<Value = (Vec<AlgebraicType>, Vec<Vec<AlgebraicValue>>)> {
    prop::collection::vec(any_type(), 1..4).prop_flat_map(|types| {
        let row: Vec<_> = types.iter().map(value_of).collect();
        (Just(types), prop::collection::vec(row, 2..6))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn keys_order_as_the_values_do((types, rows) in columns_and_rows()) {
        let keys: Vec<Vec<u8>> = rows
            .iter()
            .map(|row| types.iter().zip(row).flat_map(|(ty, value)| encode(ty, value)).collect())
            .collect();
        for (left, left_key) in rows.iter().zip(&keys) {
            for (right, right_key) in rows.iter().zip(&keys) {
                prop_assert_eq!(left.cmp(right), left_key.cmp(right_key), "{:?} {:?}", left, right);
            }
        }
    }

    #[test]
    fn keys_delimit_themselves((types, rows) in columns_and_rows(), tail in any::<Vec<u8>>()) {
        for row in &rows {
            for (ty, value) in types.iter().zip(row) {
                let mut key = encode(ty, value);
                let length = key.len();
                if let Some(size) = fixed_encoded_size(ty) {
                    prop_assert_eq!(size, length);
                }
                for cut in 0..length {
                    prop_assert_eq!(skip_encoded(ty, &key[..cut]), None, "a prefix is no key");
                }
                key.extend_from_slice(&tail);
                prop_assert_eq!(skip_encoded(ty, &key), Some(length));
            }
        }
    }

    #[test]
    fn the_bounds_of_a_column_hold_its_values(
        (types, rows) in columns_and_rows(),
        start in 0usize..3,
        end in 0usize..3,
    ) {
        let keys: Vec<Vec<u8>> = rows.iter().map(|row| encode(&types[0], &row[0])).collect();
        let bound = |kind, key| match kind {
            0 => Bound::Included(key),
            1 => Bound::Excluded(key),
            _ => Bound::Unbounded,
        };
        let (low, high) = (&rows[0][0], &rows[1][0]);
        let range = KeyRange::within(b"p", bound(start, &keys[0][..]), bound(end, &keys[1][..]));
        for (row, key) in rows.iter().zip(&keys) {
            let value = &row[0];
            let inside = match start { 0 => value >= low, 1 => value > low, _ => true }
                && match end { 0 => value <= high, 1 => value < high, _ => true };
            let stored = [b"p", &key[..], b"tail"].concat();
            let found = range.start <= stored && range.end.as_ref().is_none_or(|end| stored < *end);
            prop_assert_eq!(found, inside);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(ty in any_type(), bytes in any::<Vec<u8>>()) {
        let mut key = Vec::new();
        let encoded = encode_checked(&ty, &mut Reader::new(&bytes), &mut key);
        let skipped = bsatn::skip_value(&ty, &mut Reader::new(&bytes));
        prop_assert_eq!(encoded.is_ok(), skipped.is_ok());
        if let Some(length) = skip_encoded(&ty, &bytes) {
            prop_assert!(length <= bytes.len());
        }
    }
}

#[test]
fn encodings_are_as_documented() {
    use AlgebraicValue as Value;
    let cases: &[(AlgebraicType, Value, &[u8])] = &[
        (AlgebraicType::U16, Value::U16(0x0102), &[1, 2]),
        (AlgebraicType::I16, Value::I16(-1), &[0x7F, 0xFF]),
        (AlgebraicType::I8, Value::I8(0), &[0x80]),
        (AlgebraicType::F32, Value::F32(1.0), &[0xBF, 0x80, 0, 0]),
        (AlgebraicType::F32, Value::F32(-1.0), &[0x40, 0x7F, 0xFF, 0xFF]),
        (AlgebraicType::String, Value::string("a\0b"), &[b'a', 0, 0xFF, b'b', 0, 0]),
        (AlgebraicType::bytes(), Value::Bytes(bytes::Bytes::from_static(&[0])), &[0, 0xFF, 0, 0]),
        (AlgebraicType::array(AlgebraicType::Bool), Value::Array(vec![Value::Bool(true)]), &[1, 1, 0]),
        (AlgebraicType::option(AlgebraicType::U8), Value::some(Value::U8(7)), &[0, 7]),
        (AlgebraicType::option(AlgebraicType::U8), Value::none(), &[1]),
    ];
    for (ty, value, expected) in cases {
        assert_eq!(encode(ty, value), *expected, "{ty:?}");
    }
}

#[test]
fn the_successor_of_a_prefix_skips_all_its_extensions() {
    let cases: &[(&[u8], Option<&[u8]>)] =
        &[(&[1, 2], Some(&[1, 3])), (&[1, 0xFF], Some(&[2])), (&[0xFF, 0xFF], None), (&[], None)];
    for (prefix, expected) in cases {
        let mut key = prefix.to_vec();
        assert_eq!(advance_past_prefix(&mut key).then_some(&key[..]), *expected);
    }
}
