//! Literals to values: the type comes from the column on the other side of the comparison.

use tine_types::{AlgebraicType, Identity, SpecialType, SumType, Timestamp};

use crate::ast::{Literal, LiteralValue};
use crate::error::{Detail, QueryError};

/// Most digits of a decimal integer that can matter: 2^256 has 78.
const INTEGER_DIGITS_MAX: usize = 78;

/// Encodes `literal` as a BSATN value of type `ty`. `sender` stands for `:sender`.
///
/// # Errors
/// [`QueryError::TypeMismatch`] when literals of this form are never values of the type,
/// [`QueryError::BadLiteral`] when this one is not.
pub(crate) fn encode_literal(
    literal: &Literal,
    ty: &AlgebraicType,
    sender: &Identity,
) -> Result<Box<[u8]>, QueryError> {
    let mismatch = |hint: &str| {
        let message = format!("{} cannot be compared with {}", describe(&literal.value), type_name(ty));
        QueryError::TypeMismatch(Detail::with_hint(message, literal.position, hint))
    };
    let bad = |problem: String| {
        let message = format!("{} is not a value of type {}", written(&literal.value), type_name(ty));
        QueryError::BadLiteral(Detail::with_hint(message, literal.position, problem))
    };
    if let LiteralValue::Sender = literal.value {
        return match ty.is_identity() {
            true => Ok(sender.as_le_bytes().as_slice().into()),
            false => Err(mismatch(":sender is an identity")),
        };
    }
    match ty {
        AlgebraicType::Bool => match literal.value {
            LiteralValue::Bool(value) => Ok([u8::from(value)].into()),
            _ => Err(mismatch("write TRUE or FALSE")),
        },
        AlgebraicType::F32 | AlgebraicType::F64 => match &literal.value {
            LiteralValue::Number(text) => float(text, ty).map_err(bad),
            _ => Err(mismatch("write a number: 1.5")),
        },
        AlgebraicType::String => match &literal.value {
            LiteralValue::Text(text) => Ok(length_prefixed(text.as_bytes())),
            _ => Err(mismatch("write a string in single quotes: 'text'")),
        },
        AlgebraicType::Array(item) if **item == AlgebraicType::U8 => match &literal.value {
            LiteralValue::Hex(digits) => bytes_of_hex(digits).map(|bytes| length_prefixed(&bytes)).map_err(bad),
            _ => Err(mismatch("write bytes as 0x0a1b or X'0a1b'")),
        },
        _ if ty.special().is_some() => match encode_special(&literal.value, ty) {
            Ok(encoded) => encoded.map_err(bad),
            Err(hint) => Err(mismatch(hint)),
        },
        AlgebraicType::Sum(sum) => match &literal.value {
            LiteralValue::Text(name) => variant_tag(sum, name).map_err(bad),
            _ => Err(mismatch("write the variant in single quotes: 'Active'")),
        },
        _ => {
            let Some((size, signed)) = integer_shape(ty) else {
                return Err(mismatch("columns of this type cannot be compared with literals"));
            };
            match &literal.value {
                LiteralValue::Number(text) => decimal(text).and_then(|number| number.encode(size, signed)).map_err(bad),
                LiteralValue::Hex(digits) => hexadecimal(digits).and_then(|n| n.encode(size, signed)).map_err(bad),
                _ => Err(mismatch("write an integer")),
            }
        }
    }
}

/// Encodes a literal for one of the special types. The outer error is a hint for literals of the
/// wrong form, the inner one the problem with a literal of the right form.
fn encode_special(value: &LiteralValue, ty: &AlgebraicType) -> Result<Result<Box<[u8]>, String>, &'static str> {
    use LiteralValue::{Hex, Number, Text};
    let micros = |text: &str| decimal(text).and_then(|number| number.encode(8, true));
    match (ty.special(), value) {
        (Some(SpecialType::Identity), Hex(digits) | Text(digits)) => Ok(fixed_hex(digits, 32)),
        (Some(SpecialType::Identity), _) => Err("write an identity as 0x and 64 hexadecimal digits"),
        (Some(SpecialType::ConnectionId), Hex(digits) | Text(digits)) => Ok(fixed_hex(digits, 16)),
        (Some(SpecialType::ConnectionId), _) => Err("write a connection id as 0x and 32 hexadecimal digits"),
        (Some(SpecialType::Uuid), Hex(digits) | Text(digits)) => Ok(fixed_hex(&digits.replace('-', ""), 16)),
        (Some(SpecialType::Uuid), _) => Err("write a uuid as '01234567-89ab-cdef-0123-456789abcdef'"),
        (Some(SpecialType::Timestamp), Number(text)) => Ok(micros(text)),
        (Some(SpecialType::Timestamp), Text(text)) => Ok(Timestamp::from_rfc3339(text)
            .map(|timestamp| timestamp.micros().to_le_bytes().into())
            .map_err(|_| "write it as '2026-01-31T12:00:00.000000Z'".to_owned())),
        (Some(SpecialType::Timestamp), _) => Err("write '2026-01-31T12:00:00Z' or microseconds since 1970"),
        (Some(SpecialType::TimeDuration), Number(text)) => Ok(micros(text)),
        (Some(SpecialType::TimeDuration), _) => Err("write a duration as a number of microseconds"),
        _ => Err("columns of this type cannot be compared with literals"),
    }
}

fn variant_tag(sum: &SumType, name: &str) -> Result<Box<[u8]>, String> {
    match sum.position(name).and_then(|tag| u8::try_from(tag).ok()) {
        Some(tag) => Ok([tag].into()),
        None => {
            let names: Vec<_> = sum.variants.iter().filter_map(|variant| variant.name()).collect();
            Err(format!("the variants are {}", names.join(", ")))
        }
    }
}

/// The name of a type in error messages.
pub(crate) fn type_name(ty: &AlgebraicType) -> String {
    let name = match ty {
        _ if ty.is_identity() => "an Identity",
        _ if ty.is_connection_id() => "a ConnectionId",
        _ if ty.is_timestamp() => "a Timestamp",
        _ if ty.is_time_duration() => "a TimeDuration",
        _ if ty.is_uuid() => "a Uuid",
        AlgebraicType::Sum(_) => "a sum",
        AlgebraicType::Product(_) => "a product",
        AlgebraicType::Array(item) if **item == AlgebraicType::U8 => "bytes",
        AlgebraicType::Array(_) => "an array",
        _ => return format!("{ty:?}"),
    };
    name.to_owned()
}

fn describe(value: &LiteralValue) -> &'static str {
    match value {
        LiteralValue::Number(_) => "a number",
        LiteralValue::Text(_) => "a string",
        LiteralValue::Hex(_) => "a hexadecimal literal",
        LiteralValue::Bool(_) => "a bool",
        LiteralValue::Sender => ":sender",
    }
}

fn written(value: &LiteralValue) -> String {
    match value {
        LiteralValue::Number(text) => text.to_string(),
        LiteralValue::Text(text) => format!("'{text}'"),
        LiteralValue::Hex(digits) => format!("0x{digits}"),
        LiteralValue::Bool(value) => value.to_string(),
        LiteralValue::Sender => ":sender".to_owned(),
    }
}

fn integer_shape(ty: &AlgebraicType) -> Option<(usize, bool)> {
    Some(match ty {
        AlgebraicType::U8 => (1, false),
        AlgebraicType::U16 => (2, false),
        AlgebraicType::U32 => (4, false),
        AlgebraicType::U64 => (8, false),
        AlgebraicType::U128 => (16, false),
        AlgebraicType::U256 => (32, false),
        AlgebraicType::I8 => (1, true),
        AlgebraicType::I16 => (2, true),
        AlgebraicType::I32 => (4, true),
        AlgebraicType::I64 => (8, true),
        AlgebraicType::I128 => (16, true),
        AlgebraicType::I256 => (32, true),
        _ => return None,
    })
}

/// An integer with sign and magnitude below 2^256, wide enough for every integer type.
struct Integer {
    negative: bool,
    /// Little endian.
    magnitude: [u8; 32],
}

impl Integer {
    /// The two's complement or unsigned encoding in `size` bytes.
    fn encode(&self, size: usize, signed: bool) -> Result<Box<[u8]>, String> {
        let out_of_range = || "the number is out of range for the column".to_owned();
        if self.magnitude[size..].iter().any(|&byte| byte != 0) {
            return Err(out_of_range());
        }
        let mut bytes: Box<[u8]> = self.magnitude[..size].into();
        let zero = bytes.iter().all(|&byte| byte == 0);
        if self.negative && !zero {
            let mut carry = true;
            for byte in &mut bytes {
                let (value, overflow) = (!*byte).overflowing_add(u8::from(carry));
                *byte = value;
                carry = overflow;
            }
        }
        let top_bit = bytes[size - 1] & 0x80 != 0;
        let fits = match (signed, self.negative && !zero) {
            (false, negative) => !negative,
            (true, negative) => top_bit == negative,
        };
        if fits { Ok(bytes) } else { Err(out_of_range()) }
    }

    /// `self * factor + digit`; none when the magnitude reaches 2^256.
    fn push_digit(&mut self, factor: u32, digit: u32) -> Option<()> {
        let mut carry = digit;
        for byte in &mut self.magnitude {
            let value = u32::from(*byte) * factor + carry;
            *byte = value as u8;
            carry = value >> 8;
        }
        (carry == 0).then_some(())
    }
}

fn too_large() -> String {
    "the number has more than 256 bits".to_owned()
}

/// Reads a decimal number that has an integer value: `12`, `-3`, `1e6`, `2.50e1`.
fn decimal(text: &str) -> Result<Integer, String> {
    let not_integer = || "the column holds integers".to_owned();
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| too_large())?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all: String = [whole, fraction].concat();
    let digits = all.trim_start_matches('0');
    let shift = i64::from(exponent) - fraction.len() as i64;
    let mut integer = Integer { negative, magnitude: [0; 32] };
    if digits.is_empty() {
        return Ok(integer);
    }
    let length = digits.len() as i64 + shift;
    if length > INTEGER_DIGITS_MAX as i64 {
        return Err(too_large());
    }
    let kept = digits.len().min(usize::try_from(length).unwrap_or(0));
    if digits[kept..].bytes().any(|digit| digit != b'0') {
        return Err(not_integer());
    }
    for digit in digits[..kept].bytes().chain(std::iter::repeat_n(b'0', shift.max(0) as usize)) {
        integer.push_digit(10, u32::from(digit - b'0')).ok_or_else(too_large)?;
    }
    Ok(integer)
}

fn hexadecimal(digits: &str) -> Result<Integer, String> {
    let mut integer = Integer { negative: false, magnitude: [0; 32] };
    for digit in digits.chars() {
        let digit = digit.to_digit(16).ok_or("not a hexadecimal digit")?;
        integer.push_digit(16, digit).ok_or_else(too_large)?;
    }
    Ok(integer)
}

fn float(text: &str, ty: &AlgebraicType) -> Result<Box<[u8]>, String> {
    let out_of_range = || "the number is out of range for the column".to_owned();
    let not_number = |_| "not a number".to_owned();
    if *ty == AlgebraicType::F32 {
        let value: f32 = text.parse().map_err(not_number)?;
        return if value.is_finite() { Ok(value.to_le_bytes().into()) } else { Err(out_of_range()) };
    }
    let value: f64 = text.parse().map_err(not_number)?;
    if value.is_finite() { Ok(value.to_le_bytes().into()) } else { Err(out_of_range()) }
}

/// Big-endian hexadecimal digits of exactly `size` bytes, as little-endian bytes.
fn fixed_hex(digits: &str, size: usize) -> Result<Box<[u8]>, String> {
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    if digits.len() != size * 2 {
        return Err(format!("it has {} hexadecimal digits", size * 2));
    }
    let mut bytes = bytes_of_hex(digits)?;
    bytes.reverse();
    Ok(bytes.into())
}

fn bytes_of_hex(digits: &str) -> Result<Vec<u8>, String> {
    if !digits.len().is_multiple_of(2) {
        return Err("bytes have two hexadecimal digits each".to_owned());
    }
    let nibble = |digit: u8| (digit as char).to_digit(16).ok_or_else(|| "not a hexadecimal digit".to_owned());
    digits.as_bytes().chunks_exact(2).map(|pair| Ok((nibble(pair[0])? << 4 | nibble(pair[1])?) as u8)).collect()
}

fn length_prefixed(bytes: &[u8]) -> Box<[u8]> {
    // Literals are bounded by the text, far below 4 GiB.
    let length = bytes.len() as u32;
    [&length.to_le_bytes(), bytes].concat().into()
}
