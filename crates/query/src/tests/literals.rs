use tine_types::bsatn::{encode_value, validate};
use tine_types::{AlgebraicType as T, Timestamp, Uuid};

use super::identity;
use crate::ast::{Literal, LiteralValue};
use crate::error::Position;
use crate::literal::encode_literal;

fn encode(value: LiteralValue, ty: &T) -> Result<Vec<u8>, &'static str> {
    let literal = Literal { value, position: Position::default() };
    let encoded = encode_literal(&literal, ty, &identity(9)).map_err(|error| error.code())?;
    validate(ty, &encoded).expect("an encoded literal is a value of its type");
    Ok(encoded.into())
}

#[test]
fn integers_fit_their_type_exactly() {
    let cases: &[(T, &str, Option<&[u8]>)] = &[
        (T::U8, "255", Some(&[255])),
        (T::U8, "256", None),
        (T::U8, "-0", Some(&[0])),
        (T::U8, "-1", None),
        (T::I8, "127", Some(&[127])),
        (T::I8, "128", None),
        (T::I8, "-128", Some(&[0x80])),
        (T::I8, "-129", None),
        (T::I8, "-200", None),
        (T::I16, "-2", Some(&[0xfe, 0xff])),
        (T::U32, "1e3", Some(&[0xe8, 3, 0, 0])),
        (T::U32, "12.50e1", Some(&[125, 0, 0, 0])),
        (T::U32, "1000e-3", Some(&[1, 0, 0, 0])),
        (
            T::U32,
            "00000000000000000000000000000000000000000000000000000000000000000000000000000000001.0",
            Some(&[1, 0, 0, 0]),
        ),
        (T::U32, "1e-1", None),
        (T::U32, "0e999999999", Some(&[0, 0, 0, 0])),
        (T::U32, "1e999999999", None),
        (T::U32, "1e99999999999999", None),
        (T::U64, "18446744073709551615", Some(&[255; 8])),
        (
            T::I128,
            "-170141183460469231731687303715884105728",
            Some(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]),
        ),
        (T::U256, "115792089237316195423570985008687907853269984665640564039457584007913129639935", Some(&[255; 32])),
        (T::U256, "115792089237316195423570985008687907853269984665640564039457584007913129639936", None),
        (T::I256, "-1", Some(&[255; 32])),
    ];
    for (ty, text, expected) in cases {
        let expected = expected.map(<[u8]>::to_vec).ok_or("TN0411");
        assert_eq!(encode(LiteralValue::Number((*text).into()), ty), expected, "{text} as {ty:?}");
    }
}

#[test]
fn other_types_take_their_own_forms() {
    let text = |text: &str| LiteralValue::Text(text.into());
    let hex = |digits: &str| LiteralValue::Hex(digits.into());
    let number = |digits: &str| LiteralValue::Number(digits.into());
    let micros = |micros: i64| Ok(micros.to_le_bytes().to_vec());
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    let mut parsed = Vec::new();
    encode_value(&Uuid::parse(uuid).expect("a uuid").to_value(), &mut parsed);
    let leap_day = Timestamp::from_rfc3339("2024-02-29T12:00:00+02:00").expect("a time").micros();
    let cases = [
        (T::U16, hex("1ff"), Ok(vec![0xff, 1])),
        (T::U16, hex("1ffff"), Err("TN0411")),
        (T::U16, text("1"), Err("TN0410")),
        (T::F32, number("1.5"), Ok(1.5f32.to_le_bytes().to_vec())),
        (T::F32, number("1e39"), Err("TN0411")),
        (T::F64, number("-3"), Ok((-3f64).to_le_bytes().to_vec())),
        (T::F64, hex("3"), Err("TN0410")),
        (T::Bool, LiteralValue::Bool(true), Ok(vec![1])),
        (T::String, text("é"), Ok(vec![2, 0, 0, 0, 0xc3, 0xa9])),
        (T::bytes(), hex("0AfF"), Ok(vec![2, 0, 0, 0, 0x0a, 0xff])),
        (T::bytes(), hex("0AF"), Err("TN0411")),
        (T::bytes(), text("0A"), Err("TN0410")),
        (T::identity(), LiteralValue::Sender, Ok(vec![9; 32])),
        (T::U256, LiteralValue::Sender, Err("TN0410")),
        (T::identity(), text(&identity(3).to_hex()), Ok(vec![3; 32])),
        (T::identity(), hex(&"é".repeat(32)), Err("TN0411")),
        (T::identity(), number("5"), Err("TN0410")),
        (T::connection_id(), hex(&format!("{:032x}", 258)), Ok([vec![2, 1], vec![0; 14]].concat())),
        (T::uuid(), text(uuid), Ok(parsed.clone())),
        (T::uuid(), hex(&uuid.replace('-', "")), Ok(parsed)),
        (T::timestamp(), text("2024-02-29T12:00:00+02:00"), micros(leap_day)),
        (T::timestamp(), text("2023-02-29T12:00:00Z"), Err("TN0411")),
        (T::timestamp(), number("-5"), micros(-5)),
        (T::time_duration(), number("5"), micros(5)),
        (T::time_duration(), text("5s"), Err("TN0410")),
        (T::schedule_at(), number("5"), Err("TN0410")),
        (T::option(T::U8), number("5"), Err("TN0410")),
        (T::plain_enum(["A", "B"]), text("B"), Ok(vec![1])),
        (T::plain_enum(["A", "B"]), text("C"), Err("TN0411")),
        (T::plain_enum(["A", "B"]), number("1"), Err("TN0410")),
    ];
    for (ty, value, expected) in cases {
        assert_eq!(encode(value.clone(), &ty), expected, "{value:?} as {ty:?}");
    }
}
