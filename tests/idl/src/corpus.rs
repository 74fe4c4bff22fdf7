//! The values behind the fixtures. `crates/idl/fixtures/echo.txt` holds their bytes, as a promise: a test compares.

use tine_msgpack::{Octet, encode_request, encode_response};

use crate::{echo::*, fixtures::hex};

/// The lines of the file.
pub fn lines() -> Vec<String> {
    let mut lines = vec![
        "# Messages of the echo service, byte for byte. What the lines mean: tests/idl/src/fixtures.rs".to_owned(),
    ];
    let mut exact = |name: &str, bytes: Vec<u8>| lines.push(format!("exact {name} {}", hex(&bytes)));
    for scalars in scalars() {
        exact("EchoScalars", encode_request("EchoScalars", &scalars));
    }
    for optionals in optionals() {
        exact("EchoOptionals", encode_request("EchoOptionals", &optionals));
    }
    for lists in lists() {
        exact("EchoLists", encode_request("EchoLists", &lists));
    }
    for length in [0usize, 1, 255, 256] {
        let data: Vec<u8> = (0..length).map(|index| index as u8).collect();
        exact("EchoBytes", encode_request("EchoBytes", &EchoBytes { data: data.clone() }));
        exact("EchoSame", encode_request("EchoSame", &EchoSame { data: data.clone() }));
        exact("EchoSameResponse", encode_response("EchoSameResponse", &EchoSameResponse { data }));
    }
    exact("EchoNothing", encode_request("EchoNothing", &EchoNothing {}));
    exact("EchoNothingResponse", encode_response("EchoNothingResponse", &EchoNothingResponse {}));
    exact("EchoCount", encode_request("EchoCount", &EchoCount { from: 1 << 32, times: None }));
    exact("EchoCountResponse", encode_response("EchoCountResponse", &EchoCountResponse { value: u64::MAX }));
    let message = "no such tree: Ünïcode 木 🌲".to_owned();
    exact("EchoErrorResponse", encode_response("EchoErrorResponse", &EchoErrorResponse { message }));
    lines.extend(
        loose().into_iter().map(|(name, bytes, canonical)| format!("loose {name} {} {}", hex(&bytes), hex(&canonical))),
    );
    lines.extend(bad().into_iter().map(|(name, bytes, code)| format!("bad {name} {} {code}", hex(&bytes))));
    lines
}

/// Every boundary of the widths of integers and of the lengths of text, and odd floats.
fn scalars() -> Vec<EchoScalars> {
    let base = EchoScalars {
        flag: true,
        small: 7,
        medium: 300,
        large: 70_000,
        huge: 5_000_000_000,
        ratio: 0.1,
        text: "hello".to_owned(),
        data: vec![1, 2, 3],
        digest: [0xab; 32],
    };
    let mut all = vec![base.clone()];
    for number in [0u64, 1, 127, 128, 255, 256, 65_535, 65_536, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
        let capped = |max: u64| number.min(max);
        all.push(EchoScalars {
            flag: false,
            small: capped(0xff) as u8,
            medium: capped(0xffff) as u16,
            large: capped(0xffff_ffff) as u32,
            huge: number,
            ..base.clone()
        });
    }
    for length in [0, 1, 31, 32, 255, 256] {
        all.push(EchoScalars { text: "x".repeat(length), data: Vec::new(), ..base.clone() });
    }
    for text in ["é木🌲", "\u{feff}after a mark", "a\0b", "\u{10ffff}", "quotes \" and \\"] {
        all.push(EchoScalars { text: text.to_owned(), ..base.clone() });
    }
    for ratio in [0.0, -0.0, 1.0, -1.5, f64::MAX, f64::MIN_POSITIVE, 5e-324, f64::INFINITY, f64::NEG_INFINITY] {
        all.push(EchoScalars { ratio, ..base.clone() });
    }
    all
}

fn point(x: f64, y: f64) -> Point {
    Point { x, y }
}

fn shape(name: &str, corners: usize) -> Shape {
    Shape {
        name: name.to_owned(),
        corners: (0..corners).map(|index| point(index as f64, -(index as f64))).collect(),
        bounds: (corners > 0).then(|| [point(0.0, 0.0), point(corners as f64, 1e300)]),
        tags: vec![Some("a".to_owned()), None, Some(String::new())],
    }
}

fn optionals() -> Vec<EchoOptionals> {
    let none =
        EchoOptionals { flag: None, count: None, text: None, data: None, hash: None, shape: None, numbers: None };
    let zero = EchoOptionals {
        flag: Some(false),
        count: Some(0),
        text: Some(String::new()),
        data: Some(Vec::new()),
        hash: Some(Digest([0; 32])),
        shape: Some(shape("", 0)),
        numbers: Some(Vec::new()),
    };
    let some = EchoOptionals {
        flag: Some(true),
        count: Some(u64::MAX),
        text: Some("text".to_owned()),
        data: Some(vec![0xff; 300]),
        hash: Some(Digest([9; 32])),
        shape: Some(shape("triangle", 3)),
        numbers: Some(vec![0, 127, 128, 65_536, u32::MAX]),
    };
    vec![none, zero, some]
}

fn lists() -> Vec<EchoLists> {
    let empty = EchoLists {
        tree_id: 0,
        hashes: Vec::new(),
        pair: [Digest([1; 32]), Digest([2; 32])],
        octets: Vec::new(),
        rows: Vec::new(),
        blobs: Vec::new(),
        shapes: Vec::new(),
    };
    let full = EchoLists {
        tree_id: u32::MAX,
        hashes: vec![Digest([3; 32]); 17],
        octets: (0..=255).map(Octet).collect(),
        rows: vec![vec![], vec![1], vec![u64::MAX; 16]],
        blobs: vec![vec![], vec![1], vec![2; 256]],
        shapes: (0..4).map(|corners| shape("shape", corners)).collect(),
        ..empty.clone()
    };
    let long = EchoLists { octets: vec![Octet(200); 300], ..empty.clone() };
    vec![empty, full, long]
}

/// Messages that other encoders may write: wider forms, other orders, unknown fields, missing optional ones.
fn loose() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let count = |from: u64, times: Option<u64>| encode_request("EchoCount", &EchoCount { from, times });
    let head = b"\x91\x92\xa9EchoCount".to_vec();
    let with = |rest: &[u8]| [&head[..], rest].concat();
    let ratio = |number: &[u8], value: f64| {
        let fields = [&b"\x82\xa1x"[..], number, b"\xa1y\xcb\0\0\0\0\0\0\0\0"].concat();
        let message = |point: &[u8]| {
            let shape = [&b"\x84\xa4name\xa0\xa7corners\x91"[..], point, b"\xa6bounds\xc0\xa4tags\x90"].concat();
            [
                &b"\x91\x92\xadEchoOptionals\x87\xa4flag\xc0\xa5count\xc0\xa4text\xc0\xa4data\xc0\xa4hash\xc0\xa5shape"
                    [..],
                &shape,
                b"\xa7numbers\xc0",
            ]
            .concat()
        };
        let canonical = [&b"\x82\xa1x\xcb"[..], &value.to_be_bytes(), b"\xa1y\xcb\0\0\0\0\0\0\0\0"].concat();
        ("EchoOptionals", message(&fields), message(&canonical))
    };
    let none =
        EchoOptionals { flag: None, count: None, text: None, data: None, hash: None, shape: None, numbers: None };
    vec![
        ("EchoCount", with(b"\x82\xa4from\xcc\x05\xa5times\xcf\0\0\0\0\0\0\0\x07"), count(5, Some(7))),
        ("EchoCount", with(b"\x82\xa4from\xd0\x05\xa5times\xd3\0\0\0\x01\0\0\0\0"), count(5, Some(1 << 32))),
        ("EchoCount", with(b"\x82\xa4from\xd1\x01\0\xa5times\xd2\0\x01\0\0"), count(256, Some(65_536))),
        ("EchoCount", with(b"\x82\xa5times\x07\xa4from\x05"), count(5, Some(7))),
        ("EchoCount", with(b"\x81\xa4from\x05"), count(5, None)),
        ("EchoCount", with(b"\xde\0\x02\xd9\x04from\x05\xda\0\x05times\xc0"), count(5, None)),
        ("EchoCount", with(b"\xdf\0\0\0\x02\xdb\0\0\0\x04from\x05\xa5times\xc0"), count(5, None)),
        (
            "EchoCount",
            with(b"\x86\xa1a\x92\x81\xa1b\x90\xff\xa4from\x05\xa1c\xc7\x02\x01zz\xa1d\xd8\x01zzzzzzzzzzzzzzzz\xa1e\xdd\0\0\0\x01\xc6\0\0\0\x01z\xa1f\xcb\0\0\0\0\0\0\0\0"),
            count(5, None),
        ),
        ("EchoBytes", b"\x91\x92\xa9EchoBytes\x81\xa4data\xc6\0\0\0\x01z".to_vec(), encode_request("EchoBytes", &EchoBytes { data: vec![b'z'] })),
        ("EchoOptionals", b"\x91\x92\xadEchoOptionals\x80".to_vec(), encode_request("EchoOptionals", &none)),
        ratio(b"\x05", 5.0),
        ratio(b"\xff", -1.0),
        ratio(b"\xca\x3f\xc0\0\0", 1.5),
        ratio(b"\xcd\x01\0", 256.0),
        ratio(b"\xd1\xff\0", -256.0),
        ratio(b"\xd3\x80\0\0\0\0\0\0\0", -9_223_372_036_854_775_808.0),
    ]
}

/// Messages that no decoder accepts.
fn bad() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let head = b"\x91\x92\xa9EchoCount".to_vec();
    let with = |rest: &[u8]| [&head[..], rest].concat();
    let bytes = |rest: &[u8]| [&b"\x91\x92\xa9EchoBytes\x81\xa4data"[..], rest].concat();
    let fail = |rest: &[u8]| [&b"\x91\x92\xa8EchoFail\x81\xa7message"[..], rest].concat();
    let lists = |field: &[u8], rest: &[u8]| [&b"\x91\x92\xa9EchoLists\x81"[..], field, rest].concat();
    let optionals = |rest: &[u8]| [&b"\x91\x92\xadEchoOptionals\x81"[..], rest].concat();
    let mut heavy = lists(b"\xa6shapes", b"\xdc\x20\0");
    // Structures of nothing: a byte each here, about a hundred in memory.
    heavy.resize(heavy.len() + 0x2000, 0x80);
    let mut deep = with(b"\x82\xa4from\x01\xa1z");
    deep.resize(deep.len() + 10_000, 0x91);
    vec![
        ("EchoCount", Vec::new(), "TN1041"),
        ("EchoCount", head.clone(), "TN1041"),
        ("EchoCount", with(b"\x81\xa4from"), "TN1041"),
        ("EchoCount", with(b"\x81\xa4from\xcf\0\0\0"), "TN1041"),
        ("EchoBytes", bytes(b"\xc4\x05zz"), "TN1041"),
        ("EchoBytes", bytes(b"\xc6\xff\xff\xff\xffzz"), "TN1041"),
        ("EchoFail", fail(b"\xdb\xff\xff\xff\xffzz"), "TN1041"),
        ("EchoCount", deep, "TN1041"),
        ("EchoCount", with(b"\x81\xa4from\xa1z"), "TN1042"),
        ("EchoCount", with(b"\x81\xa4from\xc0"), "TN1042"),
        ("EchoCount", with(b"\x81\xa4from\xc1"), "TN1042"),
        ("EchoCount", with(b"\x82\xa1z\xc1\xa4from\x01"), "TN1042"),
        ("EchoCount", with(b"\x81\x01\x05"), "TN1042"),
        ("EchoCount", with(b"\x90"), "TN1042"),
        ("EchoBytes", bytes(b"\xa2zz"), "TN1042"),
        ("EchoFail", fail(b"\xc4\x02zz"), "TN1042"),
        ("EchoCount", with(b"\x81\xa4from\xff"), "TN1043"),
        ("EchoCount", with(b"\x81\xa4from\xd3\x80\0\0\0\0\0\0\0"), "TN1043"),
        ("EchoLists", lists(b"\xa6treeId", b"\xcf\0\0\0\x01\0\0\0\0"), "TN1043"),
        ("EchoFail", fail(b"\xa2\xc3\x28"), "TN1044"),
        ("EchoFail", fail(b"\xa3\xed\xa0\x80"), "TN1044"),
        ("EchoFail", fail(b"\xa2\xc0\x80"), "TN1044"),
        ("EchoFail", fail(b"\xa4\xf4\x90\x80\x80"), "TN1044"),
        ("EchoOptionals", optionals(b"\xa4hash\xc4\x02zz"), "TN1045"),
        ("EchoLists", lists(b"\xa4pair", b"\x90"), "TN1045"),
        ("EchoCount", b"\x92\x92\xa9EchoCount\x81\xa4from\x01\0".to_vec(), "TN1045"),
        ("EchoOptionals", optionals(b"\xa7numbers\xdd\xff\xff\xff\xff\x01"), "TN1046"),
        ("EchoCount", with(b"\xdf\xff\xff\xff\xff\xa4from\x01"), "TN1046"),
        ("EchoLists", heavy, "TN1047"),
        ("EchoCount", with(b"\x80"), "TN1048"),
        ("EchoCount", with(b"\x81\xa5times\x01"), "TN1048"),
        ("EchoCount", with(b"\x82\xa4from\x01\xa4from\x01"), "TN1049"),
        ("EchoOptionals", optionals(b"\xa4flag\xc0").into_iter().chain(*b"\xa4flag\xc0").collect(), "TN1051"),
        ("EchoCount", b"\x91\x92\xa9EchoBytes\x81\xa4data\xc4\0".to_vec(), "TN1050"),
        ("EchoCount", with(b"\x81\xa4from\x01\0"), "TN1051"),
    ]
}
