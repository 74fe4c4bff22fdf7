use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::strategies::{any_type, typed_value, value_of};
use crate::{
    AlgebraicType as Type, AlgebraicValue as Value, ConnectionId, I256, Identity, ScheduleAt, TYPE_DEPTH_MAX,
    TYPE_NODES_MAX, TimeDuration, Timestamp, U256, Uuid,
};

fn encoded(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    encode_value(value, &mut out);
    out
}

fn encoded_type(ty: &Type) -> Vec<u8> {
    let mut out = Vec::new();
    encode_type(ty, &mut out);
    out
}

#[test]
fn known_encodings() {
    let pair = Type::product([("a", Type::U8), ("b", Type::U16)]);
    let mut identity_bytes = [0; 32];
    identity_bytes[0] = 7;
    let cases: Vec<(Type, Value, Vec<u8>)> = vec![
        (Type::Bool, Value::Bool(true), vec![1]),
        (Type::I8, Value::I8(-2), vec![0xfe]),
        (Type::U16, Value::U16(0x0102), vec![2, 1]),
        (Type::I32, Value::I32(-1), vec![0xff; 4]),
        (Type::U64, Value::U64(1), vec![1, 0, 0, 0, 0, 0, 0, 0]),
        (Type::I128, Value::I128(-1), vec![0xff; 16]),
        (Type::I256, Value::I256(I256::from(-1)), vec![0xff; 32]),
        (Type::U256, Value::U256(U256::from(7u64)), identity_bytes.to_vec()),
        (Type::F32, Value::F32(1.0), vec![0, 0, 0x80, 0x3f]),
        (Type::F64, Value::F64(-2.0), vec![0, 0, 0, 0, 0, 0, 0, 0xc0]),
        (Type::String, Value::string("né"), vec![3, 0, 0, 0, b'n', 0xc3, 0xa9]),
        (Type::bytes(), Value::Bytes(vec![1, 2].into()), vec![2, 0, 0, 0, 1, 2]),
        (Type::array(Type::U16), Value::Array(vec![Value::U16(1), Value::U16(2)]), vec![2, 0, 0, 0, 1, 0, 2, 0]),
        (pair, Value::Product(vec![Value::U8(1), Value::U16(2)]), vec![1, 2, 0]),
        (Type::unit(), Value::unit(), vec![]),
        (Type::option(Type::U8), Value::some(Value::U8(5)), vec![0, 5]),
        (Type::option(Type::U8), Value::none(), vec![1]),
        (Type::plain_enum(["A", "B"]), Value::variant(1), vec![1]),
        (Type::array(Type::unit()), Value::Array(vec![Value::unit(); 3]), vec![3, 0, 0, 0]),
        (Type::identity(), Identity::from_le_bytes(identity_bytes).to_value(), identity_bytes.to_vec()),
        (Type::connection_id(), ConnectionId::new(1).to_value(), [&[1], &[0; 15][..]].concat()),
        (Type::uuid(), Uuid::new(1).to_value(), [&[1], &[0; 15][..]].concat()),
        (Type::timestamp(), Timestamp::from_micros(-1).to_value(), vec![0xff; 8]),
        (
            Type::schedule_at(),
            ScheduleAt::Interval(TimeDuration::from_micros(1)).to_value(),
            vec![0, 1, 0, 0, 0, 0, 0, 0, 0],
        ),
        (Type::schedule_at(), ScheduleAt::Time(Timestamp::from_micros(1)).to_value(), vec![1, 1, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (ty, value, bytes) in cases {
        assert_eq!(encoded(&value), bytes, "{value:?}");
        assert_eq!(decode_value(&ty, &mut Reader::new(&bytes)), Ok(value), "{ty:?}");
        assert_eq!(validate(&ty, &bytes), Ok(()), "{ty:?}");
        if let Some(size) = ty.static_bsatn_size() {
            assert_eq!(size, bytes.len(), "{ty:?}");
        }
    }
}

#[test]
fn typed_reads_and_writes_agree() {
    let mut out = Vec::new();
    let identity = Identity::from_claims("a", "b");
    out.put_identity(&identity);
    out.put_connection_id(ConnectionId::new(9));
    out.put_timestamp(Timestamp::from_micros(10));
    out.put_time_duration(TimeDuration::from_micros(-11));
    out.put_bool(true);
    out.put_str("text");
    out.put_bytes(b"bytes");
    out.put_i256(I256::from(-3));
    let mut reader = Reader::new(&out);
    assert_eq!(reader.identity(), Ok(identity));
    assert_eq!(reader.connection_id(), Ok(ConnectionId::new(9)));
    assert_eq!(reader.timestamp(), Ok(Timestamp::from_micros(10)));
    assert_eq!(reader.time_duration(), Ok(TimeDuration::from_micros(-11)));
    assert_eq!(reader.bool(), Ok(true));
    let start = reader.position();
    assert_eq!(reader.str(), Ok("text"));
    assert_eq!(reader.since(start), [4, 0, 0, 0, b't', b'e', b'x', b't']);
    assert_eq!(reader.bytes(), Ok(&b"bytes"[..]));
    assert_eq!(reader.i256(), Ok(I256::from(-3)));
    assert_eq!(reader.finish(), Ok(()));
    for at in [ScheduleAt::Interval(TimeDuration::from_micros(5)), ScheduleAt::Time(Timestamp::from_micros(6))] {
        let mut out = Vec::new();
        out.put_schedule_at(at);
        assert_eq!(out, encoded(&at.to_value()));
    }
}

#[test]
fn hostile_bytes_are_typed_errors() {
    let huge_count = [0xff, 0xff, 0xff, 0xff];
    let nested_units = Type::array(Type::product([("u", Type::unit()), ("v", Type::unit())]));
    let deep = (0..TYPE_DEPTH_MAX).fold(Type::U8, |ty, _| Type::product([("x", ty)]));
    let too_deep = Type::product([("x", deep)]);
    let cases: Vec<(Type, &[u8], &str)> = vec![
        (Type::U32, &[1, 2, 3], "TN0101"),
        (Type::String, &huge_count, "TN0101"),
        (Type::bytes(), &[5, 0, 0, 0, 1], "TN0101"),
        (Type::array(Type::U64), &huge_count, "TN0102"),
        (Type::array(Type::U64), &[2, 0, 0, 0, 1, 2, 3], "TN0101"),
        (Type::array(Type::String), &huge_count, "TN0102"),
        (nested_units, &huge_count, "TN0103"),
        (Type::Bool, &[2], "TN0104"),
        (Type::array(Type::Bool), &[2, 0, 0, 0, 1, 255], "TN0104"),
        (Type::option(Type::U8), &[2], "TN0105"),
        (Type::sum([]), &[0], "TN0105"),
        (Type::String, &[2, 0, 0, 0, 0xff, 0xff], "TN0106"),
        (too_deep, &[1], "TN0108"),
        (Type::reference(3), &[1], "TN0115"),
    ];
    for (ty, bytes, code) in cases {
        let skipped = skip_value(&ty, &mut Reader::new(bytes)).unwrap_err();
        assert_eq!(skipped.code(), code, "{ty:?}");
        let decoded = decode_value(&ty, &mut Reader::new(bytes)).unwrap_err();
        // A whole array of numbers is skipped at once, so only the position may differ.
        assert_eq!(decoded.code(), code, "{ty:?}");
    }
    assert_eq!(validate(&Type::U8, &[1, 2]).unwrap_err().code(), "TN0107");
}

#[test]
fn a_tree_has_a_bounded_number_of_nodes() {
    let ty = Type::array(Type::Bool);
    let count = u32::try_from(VALUE_NODES_MAX).unwrap();
    let bytes = [&count.to_le_bytes()[..], &vec![1; VALUE_NODES_MAX]].concat();
    assert_eq!(validate(&ty, &bytes), Ok(()));
    let error = decode_value(&ty, &mut Reader::new(&bytes)).unwrap_err();
    assert_eq!(error.code(), "TN0114");
}

#[test]
fn empty_elements_are_counted_over_the_whole_value() {
    let half = ZERO_SIZED_ELEMENTS_MAX / 2;
    let units = Type::array(Type::unit());
    for (arrays, is_accepted) in [(2u32, true), (3, false)] {
        let bytes = [arrays.to_le_bytes().to_vec(), half.to_le_bytes().repeat(arrays as usize)].concat();
        let ty = Type::array(units.clone());
        assert_eq!(validate(&ty, &bytes).is_ok(), is_accepted);
        assert_eq!(decode_value(&ty, &mut Reader::new(&bytes)).is_ok(), is_accepted);
        // Values of their own have a bound of their own.
        let mut reader = Reader::new(&bytes[4..]);
        (0..arrays).for_each(|_| skip_value(&units, &mut reader).unwrap());
    }
}

#[test]
fn positions_point_at_the_culprit() {
    let ty = Type::product([("a", Type::U16), ("b", Type::Bool)]);
    let error = validate(&ty, &[0, 0, 9]).unwrap_err();
    assert_eq!(error, DecodeError::InvalidBool { position: 2, value: 9 });
    let error = validate(&ty, &[0]).unwrap_err();
    assert_eq!(error, DecodeError::UnexpectedEnd { position: 0, needed: 1 });
    let mut reader = Reader::new(&[1, 0, 0, 0, 0xff]);
    assert_eq!(reader.str(), Err(DecodeError::InvalidUtf8 { position: 4 }));
}

#[test]
fn known_types() {
    let ty = Type::product([("id", Type::U64), ("tag", Type::option(Type::reference(2)))]);
    let expected = [
        &[2, 2, 0, 0, 0][..],
        &[0, 2, 0, 0, 0, b'i', b'd', 13],
        &[0, 3, 0, 0, 0, b't', b'a', b'g', 1, 2, 0, 0, 0],
        &[0, 4, 0, 0, 0, b's', b'o', b'm', b'e', 0, 2, 0, 0, 0],
        &[0, 4, 0, 0, 0, b'n', b'o', b'n', b'e', 2, 0, 0, 0, 0],
    ]
    .concat();
    assert_eq!(encoded_type(&ty), expected);
    assert_eq!(decode_type(&mut Reader::new(&expected)), Ok(ty));
}

#[test]
fn hostile_types() {
    let deep = [3].repeat(TYPE_DEPTH_MAX + 1);
    let wide = [&[2][..], &(TYPE_NODES_MAX as u32).to_le_bytes(), &[1, 7].repeat(TYPE_NODES_MAX)].concat();
    for (bytes, code) in [
        (&[20][..], "TN0105"),
        (&[], "TN0101"),
        (&deep, "TN0108"),
        (&[1, 0xff, 0xff, 0xff, 0xff], "TN0102"),
        (&[2, 1, 0, 0, 0, 2, 5], "TN0105"),
        (&wide, "TN0109"),
    ] {
        assert_eq!(decode_type(&mut Reader::new(bytes)).unwrap_err().code(), code);
    }
}

proptest! {
    #[test]
    fn values_round_trip((ty, value) in typed_value()) {
        let bytes = encoded(&value);
        let mut reader = Reader::new(&bytes);
        let decoded = decode_value(&ty, &mut reader);
        prop_assert_eq!(decoded, Ok(value));
        prop_assert_eq!(reader.finish(), Ok(()));
        prop_assert_eq!(validate(&ty, &bytes), Ok(()));
        if let Some(size) = ty.static_bsatn_size() {
            prop_assert_eq!(size, bytes.len());
        }
        prop_assert_eq!(ty.is_zero_sized(), ty.static_bsatn_size() == Some(0));
    }

    #[test]
    fn a_cut_value_is_no_value((ty, value) in typed_value(), at: proptest::sample::Index) {
        let bytes = encoded(&value);
        prop_assume!(!bytes.is_empty());
        prop_assert!(validate(&ty, &bytes[..at.index(bytes.len())]).is_err());
    }

    #[test]
    fn skipping_accepts_what_decoding_accepts(ty in any_type(), bytes in vec(0u8..5, 0..60)) {
        let (mut skipping, mut decoding) = (Reader::new(&bytes), Reader::new(&bytes));
        let skipped = skip_value(&ty, &mut skipping);
        let decoded = decode_value(&ty, &mut decoding);
        prop_assert_eq!(skipped.is_ok(), decoded.is_ok());
        if let Ok(value) = decoded {
            prop_assert_eq!(skipping.position(), decoding.position());
            prop_assert_eq!(&encoded(&value), skipping.since(0));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(ty in any_type(), bytes: Vec<u8>) {
        let _ = decode_value(&ty, &mut Reader::new(&bytes));
        let _ = validate(&ty, &bytes);
        let _ = decode_type(&mut Reader::new(&bytes));
    }

    #[test]
    fn types_round_trip(ty in any_type()) {
        let bytes = encoded_type(&ty);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(decode_type(&mut reader), Ok(ty));
        prop_assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn values_order_as_their_bytes_differ((a, b) in any_type().prop_flat_map(|ty| (value_of(&ty), value_of(&ty)))) {
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a == b, encoded(&a) == encoded(&b));
        prop_assert_eq!(a.cmp(&a.clone()), std::cmp::Ordering::Equal);
    }
}
