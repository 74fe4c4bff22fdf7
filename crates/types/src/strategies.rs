//! Random types and values of them, for property tests.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::{AlgebraicType, AlgebraicValue, I256, ProductType, ProductTypeElement, SumType, SumTypeVariant, U256};

const PRIMITIVES: [AlgebraicType; 16] = [
    AlgebraicType::String,
    AlgebraicType::Bool,
    AlgebraicType::I8,
    AlgebraicType::U8,
    AlgebraicType::I16,
    AlgebraicType::U16,
    AlgebraicType::I32,
    AlgebraicType::U32,
    AlgebraicType::I64,
    AlgebraicType::U64,
    AlgebraicType::I128,
    AlgebraicType::U128,
    AlgebraicType::I256,
    AlgebraicType::U256,
    AlgebraicType::F32,
    AlgebraicType::F64,
];

/// Types without references, special ones among them. Names within one product or sum differ.
pub(crate) fn any_type() -> impl Strategy<Value = AlgebraicType> {
    let leaf = prop_oneof![
        6 => proptest::sample::select(&PRIMITIVES[..]),
        1 => Just(AlgebraicType::unit()),
        1 => Just(AlgebraicType::identity()),
        1 => Just(AlgebraicType::connection_id()),
        1 => Just(AlgebraicType::timestamp()),
        1 => Just(AlgebraicType::time_duration()),
        1 => Just(AlgebraicType::uuid()),
        1 => Just(AlgebraicType::schedule_at()),
        1 => Just(AlgebraicType::bytes()),
        1 => Just(AlgebraicType::plain_enum(["Red", "Green", "Blue"])),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(AlgebraicType::array),
            inner.clone().prop_map(AlgebraicType::option),
            (inner.clone(), inner.clone()).prop_map(|(ok, err)| AlgebraicType::result(ok, err)),
            members(inner.clone(), 0).prop_map(|members| {
                let element = |(name, ty)| ProductTypeElement { name, ty };
                AlgebraicType::Product(ProductType::new(members.into_iter().map(element).collect::<Vec<_>>()))
            }),
            members(inner, 1).prop_map(|members| {
                let variant = |(name, ty)| SumTypeVariant { name, ty };
                AlgebraicType::Sum(SumType::new(members.into_iter().map(variant).collect::<Vec<_>>()))
            }),
        ]
    })
}

type Member = (Option<Box<str>>, AlgebraicType);

fn members(ty: impl Strategy<Value = AlgebraicType>, count_min: usize) -> impl Strategy<Value = Vec<Member>> {
    vec((proptest::option::weighted(0.8, "[a-z_]{0,5}"), ty), count_min..5).prop_map(|members| {
        let number = |(index, (name, ty)): (usize, (Option<String>, AlgebraicType))| {
            (name.map(|name| format!("{name}{index}x").into()), ty)
        };
        members.into_iter().enumerate().map(number).collect()
    })
}

/// Values of `ty`.
pub(crate) fn value_of(ty: &AlgebraicType) -> BoxedStrategy<AlgebraicValue> {
    use AlgebraicType as Type;
    use AlgebraicValue as Value;
    match ty {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::I8 => any::<i8>().prop_map(Value::I8).boxed(),
        Type::U8 => any::<u8>().prop_map(Value::U8).boxed(),
        Type::I16 => any::<i16>().prop_map(Value::I16).boxed(),
        Type::U16 => any::<u16>().prop_map(Value::U16).boxed(),
        Type::I32 => any::<i32>().prop_map(Value::I32).boxed(),
        Type::U32 => any::<u32>().prop_map(Value::U32).boxed(),
        Type::I64 => any::<i64>().prop_map(Value::I64).boxed(),
        Type::U64 => any::<u64>().prop_map(Value::U64).boxed(),
        Type::I128 => any::<i128>().prop_map(Value::I128).boxed(),
        Type::U128 => any::<u128>().prop_map(Value::U128).boxed(),
        Type::I256 => any::<[u64; 4]>().prop_map(|limbs| Value::I256(I256::from_limbs(limbs))).boxed(),
        Type::U256 => any::<[u64; 4]>().prop_map(|limbs| Value::U256(U256::from_limbs(limbs))).boxed(),
        Type::F32 => any::<u32>().prop_map(|bits| Value::F32(f32::from_bits(bits))).boxed(),
        Type::F64 => any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))).boxed(),
        Type::String => any::<String>().prop_map(|text| Value::String(text.into())).boxed(),
        Type::Array(element) if **element == Type::U8 => {
            vec(any::<u8>(), 0..20).prop_map(|bytes| Value::Bytes(bytes.into())).boxed()
        }
        Type::Array(element) => vec(value_of(element), 0..4).prop_map(Value::Array).boxed(),
        Type::Product(product) => {
            let fields: Vec<_> = product.elements.iter().map(|element| value_of(&element.ty)).collect();
            fields.prop_map(Value::Product).boxed()
        }
        Type::Sum(sum) => {
            let variants = sum.variants.iter().enumerate().map(|(tag, variant)| {
                let tag = u8::try_from(tag).unwrap();
                value_of(&variant.ty).prop_map(move |value| Value::Sum { tag, value: Box::new(value) }).boxed()
            });
            proptest::strategy::Union::new(variants).boxed()
        }
        Type::Ref(_) => unreachable!("random types have no references"),
    }
}

/// A type and a value of it.
pub(crate) fn typed_value() -> impl Strategy<Value = (AlgebraicType, AlgebraicValue)> {
    any_type().prop_flat_map(|ty| {
        let value = value_of(&ty);
        (Just(ty), value)
    })
}
