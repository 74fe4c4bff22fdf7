//! Every form of every value, both ways, and data that lies.

use proptest::prelude::*;
use tine_msgpack::{
    DecodeError, Octet, Reader, Value, Writer, decode_message, encode_request, encode_response, read_request,
    read_response,
};

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.into_bytes()
}

#[test]
fn integers_take_the_smallest_form() {
    let cases: [(u64, &[u8]); 10] = [
        (0, &[0]),
        (127, &[0x7f]),
        (128, &[0xcc, 0x80]),
        (255, &[0xcc, 0xff]),
        (256, &[0xcd, 1, 0]),
        (65_535, &[0xcd, 0xff, 0xff]),
        (65_536, &[0xce, 0, 1, 0, 0]),
        (u64::from(u32::MAX), &[0xce, 0xff, 0xff, 0xff, 0xff]),
        (1 << 32, &[0xcf, 0, 0, 0, 1, 0, 0, 0, 0]),
        (u64::MAX, &[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ];
    for (value, bytes) in cases {
        assert_eq!(written(|writer| writer.unsigned(value)), bytes, "{value}");
        assert_eq!(Reader::new(bytes).u64(), Ok(value));
        assert_eq!(Reader::new(bytes).u32().is_ok(), value <= u64::from(u32::MAX), "{value}");
        assert_eq!(Reader::new(bytes).u16().is_ok(), value <= u64::from(u16::MAX), "{value}");
        assert_eq!(Reader::new(bytes).u8().is_ok(), value <= u64::from(u8::MAX), "{value}");
    }
}

#[test]
fn lengths_take_the_smallest_form() {
    /// A length, and the heads of a string, a byte string, an array and a map of that length.
    type Heads = (usize, &'static [u8], &'static [u8], &'static [u8], &'static [u8]);
    let cases: [Heads; 7] = [
        (0, &[0xa0], &[0xc4, 0], &[0x90], &[0x80]),
        (15, &[0xaf], &[0xc4, 15], &[0x9f], &[0x8f]),
        (16, &[0xb0], &[0xc4, 16], &[0xdc, 0, 16], &[0xde, 0, 16]),
        (32, &[0xd9, 32], &[0xc4, 32], &[0xdc, 0, 32], &[0xde, 0, 32]),
        (256, &[0xda, 1, 0], &[0xc5, 1, 0], &[0xdc, 1, 0], &[0xde, 1, 0]),
        (65_535, &[0xda, 255, 255], &[0xc5, 255, 255], &[0xdc, 255, 255], &[0xde, 255, 255]),
        (65_536, &[0xdb, 0, 1, 0, 0], &[0xc6, 0, 1, 0, 0], &[0xdd, 0, 1, 0, 0], &[0xdf, 0, 1, 0, 0]),
    ];
    for (length, string, bytes, array, map) in cases {
        let text = "x".repeat(length);
        let encoded = written(|writer| writer.string(&text));
        assert_eq!((&encoded[..string.len()], encoded.len()), (string, string.len() + length));
        assert_eq!(Reader::new(&encoded).string().as_deref(), Ok(text.as_str()));
        let encoded = written(|writer| writer.bytes(text.as_bytes()));
        assert_eq!((&encoded[..bytes.len()], encoded.len()), (bytes, bytes.len() + length));
        assert_eq!(Reader::new(&encoded).bytes().as_deref(), Ok(text.as_bytes()));
        assert_eq!(written(|writer| writer.array(length)), array);
        assert_eq!(written(|writer| writer.map(length)), map);
    }
}

#[test]
fn other_forms_of_numbers_are_taken() {
    let integers: [(&[u8], u64); 6] = [
        (&[0xcc, 5], 5),
        (&[0xcf, 0, 0, 0, 0, 0, 0, 0, 5], 5),
        (&[0xd0, 5], 5),
        (&[0xd1, 1, 0], 256),
        (&[0xd2, 0, 1, 0, 0], 65_536),
        (&[0xd3, 0, 0, 0, 1, 0, 0, 0, 0], 1 << 32),
    ];
    for (bytes, value) in integers {
        assert_eq!(Reader::new(bytes).u64(), Ok(value), "{bytes:x?}");
        assert_eq!(Reader::new(bytes).float(), Ok(value as f64), "{bytes:x?}");
    }
    for bytes in [&[0xff][..], &[0xd0, 0x80], &[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0]] {
        assert!(matches!(Reader::new(bytes).u64(), Err(DecodeError::OutOfRange { .. })), "{bytes:x?}");
    }
    assert_eq!(Reader::new(&[0xff]).float(), Ok(-1.0));
    assert_eq!(Reader::new(&[0xca, 0x3f, 0xc0, 0, 0]).float(), Ok(1.5));
}

#[test]
fn wrong_kinds_and_lengths_are_typed_errors() {
    assert_eq!(
        Reader::new(&[0xa1, b'x']).u64(),
        Err(DecodeError::WrongType { position: 0, expected: "an integer", found: 0xa1 })
    );
    assert_eq!(
        Reader::new(&[0xc4, 1, 0]).fixed_bytes::<2>(),
        Err(DecodeError::WrongLength { position: 2, expected: 2, found: 1 })
    );
    assert!(matches!(
        Reader::new(&[0x92, 1, 2]).fixed_list::<_, 3>(|reader| reader.u8()),
        Err(DecodeError::WrongLength { expected: 3, found: 2, .. })
    ));
    assert_eq!(Reader::new(&[0xa2, 0xc3, 0x28]).str(), Err(DecodeError::InvalidUtf8 { position: 1 }));
    assert_eq!(Reader::new(&[0xd9, 5, b'x']).str(), Err(DecodeError::UnexpectedEnd { position: 3 }));
    assert_eq!(Reader::new(&[1]).finish(), Err(DecodeError::TrailingBytes { position: 0, count: 1 }));
}

#[test]
fn lying_counts_allocate_nothing() {
    let huge_array = [0xdd, 0xff, 0xff, 0xff, 0xff, 1];
    assert_eq!(
        Reader::new(&huge_array).list(|reader| reader.u8()),
        Err(DecodeError::TooManyElements { position: 5, count: 0xffff_ffff })
    );
    assert!(matches!(Reader::new(&[0xdf, 0xff, 0xff, 0xff, 0xff, 1]).map(), Err(DecodeError::TooManyElements { .. })));
    // Absent values: one byte each on the wire, a kilobyte each in memory.
    let mut absent = vec![0xdd, 0, 1, 0, 0];
    absent.resize(absent.len() + 65_536, 0xc0);
    let read = Reader::new(&absent).list(|reader| reader.optional(|reader| reader.fixed_bytes::<1024>()));
    assert!(matches!(read, Err(DecodeError::TooMuchMemory { .. })));
    let small = Reader::new(&absent).list(|reader| reader.optional(|reader| reader.u64()));
    assert_eq!(small.map(|values| values.len()), Ok(65_536));
}

#[test]
fn any_value_can_be_skipped() {
    let values: [&[u8]; 14] = [
        &[0xc0],
        &[0xc3],
        &[0xff],
        &[0xcb, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xa2, b'h', b'i'],
        &[0xdb, 0, 0, 0, 1, b'x'],
        &[0xc6, 0, 0, 0, 1, 0],
        &[0x92, 0x91, 1, 2],
        &[0x81, 0xa1, b'k', 0x90],
        &[0xde, 0, 1, 1, 2],
        &[0xd4, 7, 0],
        &[0xd8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xc7, 2, 7, 0, 0],
        &[0xdd, 0, 0, 0, 2, 0xd3, 0, 0, 0, 0, 0, 0, 0, 0, 0xd2, 0, 0, 0, 0],
    ];
    for value in values {
        let mut reader = Reader::new(value);
        assert_eq!(reader.skip(), Ok(()), "{value:x?}");
        assert_eq!(reader.finish(), Ok(()), "{value:x?}");
        assert!(Reader::new(&value[..value.len() - 1]).skip().is_err(), "{value:x?}");
    }
    // Nested deeper than any stack.
    let deep = vec![0x91; 10_000_000];
    assert_eq!(Reader::new(&deep).skip(), Err(DecodeError::UnexpectedEnd { position: deep.len() }));
    assert!(Reader::new(&[0xc1]).skip().is_err());
}

#[test]
fn fields_come_once_and_required_ones_must() {
    let mut reader = Reader::new(&[1, 2]);
    let mut place = None::<u8>;
    assert_eq!(reader.field(&mut place, "a"), Ok(()));
    assert!(matches!(reader.field(&mut place, "a"), Err(DecodeError::DuplicateField { field: "a", .. })));
    assert_eq!(reader.required(place, "a"), Ok(1));
    assert_eq!(reader.required(None::<Option<u8>>, "b"), Ok(None));
    assert!(matches!(reader.required(None::<u8>, "b"), Err(DecodeError::MissingField { field: "b", .. })));
}

#[test]
fn envelopes() {
    let request = encode_request("EchoBytes", &7u8);
    assert_eq!(request, b"\x91\x92\xa9EchoBytes\x07");
    let mut reader = Reader::new(&request);
    assert_eq!(read_request(&mut reader), Ok("EchoBytes"));
    assert_eq!(decode_message(&mut reader), Ok(7u8));
    let response = encode_response("EchoBytesResponse", &7u8);
    assert_eq!(read_response(&mut Reader::new(&response)), Ok("EchoBytesResponse"));
    assert!(read_request(&mut Reader::new(&response)).is_err());
    let mut longer = Reader::new(&[7, 7]);
    assert!(matches!(decode_message::<u8>(&mut longer), Err(DecodeError::TrailingBytes { count: 1, .. })));
    assert_eq!(DecodeError::unknown_message(&"ü".repeat(1000)).to_string().chars().count(), 100 + 18);
}

#[test]
fn types_choose_the_encoding() {
    fn check<T: Value + PartialEq + std::fmt::Debug>(value: T, bytes: &[u8]) {
        assert_eq!(written(|writer| value.write(writer)), bytes, "{value:?}");
        assert_eq!(T::read(&mut Reader::new(bytes)), Ok(value));
    }
    check(vec![1u8, 2], &[0xc4, 2, 1, 2]);
    check([1u8, 2], &[0xc4, 2, 1, 2]);
    check(vec![Octet(1), Octet(200)], &[0x92, 1, 0xcc, 200]);
    check([Octet(1)], &[0x91, 1]);
    check(vec![vec![1u8], vec![]], &[0x92, 0xc4, 1, 1, 0xc4, 0]);
    check([Some(1u16), None], &[0x92, 1, 0xc0]);
    check(Some(vec![true]), &[0x91, 0xc3]);
    check(None::<String>, &[0xc0]);
    check(vec![[0u8; 2]; 2], &[0x92, 0xc4, 2, 0, 0, 0xc4, 2, 0, 0]);
    check(1.5f64, &[0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
}

proptest! {
    #[test]
    fn what_is_written_is_read(number: u64, float: f64, text: String, bytes: Vec<u8>, list: Vec<Option<u32>>) {
        let encoded = written(|writer| {
            writer.unsigned(number);
            writer.float(float);
            writer.string(&text);
            writer.bytes(&bytes);
            writer.list(&list, |writer, item| writer.optional(item, |writer, item| writer.unsigned(*item)));
        });
        let mut reader = Reader::new(&encoded);
        prop_assert_eq!(reader.u64(), Ok(number));
        prop_assert_eq!(reader.float().map(f64::to_bits), Ok(float.to_bits()));
        prop_assert_eq!(reader.string(), Ok(text));
        prop_assert_eq!(reader.bytes(), Ok(bytes));
        prop_assert_eq!(reader.list(|reader| reader.optional(|reader| reader.u32())), Ok(list));
        prop_assert_eq!(reader.finish(), Ok(()));
        // Skipping agrees with reading.
        let mut skipping = Reader::new(&encoded);
        for _ in 0..5 {
            prop_assert_eq!(skipping.skip(), Ok(()));
        }
        prop_assert_eq!(skipping.finish(), Ok(()));
    }

    #[test]
    fn no_data_makes_the_reader_panic(data: Vec<u8>) {
        let _ = Reader::new(&data).skip();
        let _ = Reader::new(&data).u8();
        let _ = Reader::new(&data).float();
        let _ = Reader::new(&data).string();
        let _ = Reader::new(&data).fixed_bytes::<32>();
        let _ = Reader::new(&data).list(|reader| reader.list(|reader| reader.optional(|reader| reader.string())));
        let _ = read_request(&mut Reader::new(&data));
    }
}
