//! The fixtures: one line per message, and what every language makes of it.
//!
//! - `exact NAME HEX`: decodes, and encodes to the same bytes.
//! - `loose NAME HEX CANONICAL`: decodes, and encodes to the canonical bytes.
//! - `bad NAME HEX CODE`: is refused with that code.

use tine_msgpack::{DecodeError, Reader, Value, decode_message, encode_request, encode_response};

use crate::echo::*;

/// One line.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// `exact`, `loose` or `bad`.
    pub kind: String,
    /// Name of the message that is expected.
    pub name: String,
    /// The message.
    pub bytes: Vec<u8>,
    /// The canonical bytes in hexadecimal digits, or the code.
    pub expected: String,
}

/// Reads the lines of a file; `#` starts a remark.
///
/// # Panics
/// When a line is none.
pub fn parse(text: &str) -> Vec<Fixture> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            let mut word = || words.next().unwrap_or_default();
            let (kind, name, bytes) = (word(), word(), unhex(&word()));
            Fixture { kind, name, bytes, expected: word() }
        })
        .collect()
}

/// Decodes a message of that name and encodes it again.
///
/// # Errors
/// What the decoder says.
///
/// # Panics
/// When the service has no message of that name.
pub fn recode(name: &str, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    match name {
        "EchoScalars" => request::<EchoScalars>(name, bytes),
        "EchoScalarsResponse" => response::<EchoScalarsResponse>(name, bytes),
        "EchoOptionals" => request::<EchoOptionals>(name, bytes),
        "EchoOptionalsResponse" => response::<EchoOptionalsResponse>(name, bytes),
        "EchoLists" => request::<EchoLists>(name, bytes),
        "EchoListsResponse" => response::<EchoListsResponse>(name, bytes),
        "EchoBytes" => request::<EchoBytes>(name, bytes),
        "EchoBytesResponse" => response::<EchoBytesResponse>(name, bytes),
        "EchoSame" => request::<EchoSame>(name, bytes),
        "EchoSameResponse" => response::<EchoSameResponse>(name, bytes),
        "EchoNothing" => request::<EchoNothing>(name, bytes),
        "EchoNothingResponse" => response::<EchoNothingResponse>(name, bytes),
        "EchoFail" => request::<EchoFail>(name, bytes),
        "EchoFailResponse" => response::<EchoFailResponse>(name, bytes),
        "EchoCount" => request::<EchoCount>(name, bytes),
        "EchoCountResponse" => response::<EchoCountResponse>(name, bytes),
        "EchoErrorResponse" => response::<EchoErrorResponse>(name, bytes),
        _ => panic!("no message {name}"),
    }
}

fn request<T: Value>(name: &str, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut reader = Reader::new(bytes);
    expect(tine_msgpack::read_request(&mut reader)?, name)?;
    Ok(encode_request(name, &decode_message::<T>(&mut reader)?))
}

fn response<T: Value>(name: &str, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut reader = Reader::new(bytes);
    expect(tine_msgpack::read_response(&mut reader)?, name)?;
    Ok(encode_response(name, &decode_message::<T>(&mut reader)?))
}

fn expect(found: &str, name: &str) -> Result<(), DecodeError> {
    if found == name { Ok(()) } else { Err(DecodeError::unknown_message(found)) }
}

/// Checks every line; how many there are.
///
/// # Panics
/// When a line does not hold.
pub fn check(text: &str) -> usize {
    let fixtures = parse(text);
    for fixture in &fixtures {
        let found = match recode(&fixture.name, &fixture.bytes) {
            Ok(bytes) => hex(&bytes),
            Err(error) => error.code().to_owned(),
        };
        let bytes = hex(&fixture.bytes);
        let wanted = if fixture.kind == "exact" { &bytes } else { &fixture.expected };
        assert_eq!(&found, wanted, "{} {} {bytes}", fixture.kind, fixture.name);
    }
    fixtures.len()
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("hexadecimal digits"))
        .collect()
}
