//! JSON to BSATN.

use serde_json::{Map, Value};

use crate::bsatn::{self, BsatnWrite, DecodeError, Reader, ZERO_SIZED_ELEMENTS_MAX};
use crate::json::{JsonError, JsonErrorKind};
use crate::{
    AlgebraicType, AlgebraicValue, ConnectionId, Identity, ProductType, SpecialType, SumType, TYPE_DEPTH_MAX,
    Timestamp, U256, Uuid, hex,
};

/// Longest text quoted in an error.
const QUOTED_CHARS_MAX: usize = 40;

/// Reads `json` as a value of type `ty`.
///
/// # Errors
/// JSON that is no value of the type; see the [module](crate::json) for what is taken.
pub fn json_to_value(ty: &AlgebraicType, json: &Value) -> Result<AlgebraicValue, JsonError> {
    let mut bytes = Vec::new();
    json_to_bsatn(ty, json, &mut bytes)?;
    Ok(bsatn::decode_value(ty, &mut Reader::new(&bytes))?)
}

/// Appends the BSATN of `json` read as a value of type `ty`. After an error `out` may hold a part.
///
/// # Errors
/// JSON that is no value of the type; see the [module](crate::json) for what is taken.
pub fn json_to_bsatn(ty: &AlgebraicType, json: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
    value(ty, json, out, 0)
}

/// [`json_to_bsatn`] for a bare product, such as an argument list: an array, or an object keyed by
/// field name.
///
/// # Errors
/// As for [`json_to_bsatn`].
pub fn product_from_json(ty: &ProductType, json: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
    product(ty, json, out, 0)
}

fn value(ty: &AlgebraicType, json: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), JsonError> {
    use AlgebraicType::*;
    match ty {
        Bool => {
            out.put_bool(json.as_bool().ok_or_else(|| mismatch("a boolean", json))?);
        }
        I8 => out.put_i8(small_integer(json, "I8")?),
        U8 => out.put_u8(small_integer(json, "U8")?),
        I16 => out.put_i16(small_integer(json, "I16")?),
        U16 => out.put_u16(small_integer(json, "U16")?),
        I32 => out.put_i32(small_integer(json, "I32")?),
        U32 => out.put_u32(small_integer(json, "U32")?),
        I64 => out.put_i64(large_integer(json, "I64", |text| text.parse().ok())?),
        U64 => {
            out.put_u64(large_integer(json, "U64", |text| unsigned_text(text).and_then(|value| value.try_into().ok()))?)
        }
        I128 => out.put_i128(large_integer(json, "I128", |text| text.parse().ok())?),
        U128 => out.put_u128(large_integer(json, "U128", unsigned_text)?),
        I256 => out
            .put_i256(large_integer(json, "I256", |text| text.parse().or_else(|_| crate::I256::from_hex(text)).ok())?),
        U256 => out.put_u256(large_integer(json, "U256", u256_text)?),
        F32 => {
            let value: f32 = float(json, "F32")?;
            out.put_f32(value);
        }
        F64 => {
            let value: f64 = float(json, "F64")?;
            out.put_f64(value);
        }
        String => out.put_str(json.as_str().ok_or_else(|| mismatch("a string", json))?),
        Array(element) => return array(element, json, out, depth),
        Product(ty) => return product(ty, json, out, depth),
        Sum(ty) => return sum(ty, json, out, depth),
        Ref(reference) => {
            return Err(DecodeError::UnresolvedRef { reference: reference.0 }.into());
        }
    }
    Ok(())
}

fn check_depth(out: &[u8], depth: usize) -> Result<(), JsonError> {
    if depth < TYPE_DEPTH_MAX {
        return Ok(());
    }
    Err(DecodeError::TooDeep { position: out.len() }.into())
}

fn array(element: &AlgebraicType, json: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), JsonError> {
    check_depth(out, depth)?;
    if let (AlgebraicType::U8, Value::String(text)) = (element, json) {
        let bytes = hex::parse_vec(text).map_err(|_| bad_text("byte array", text))?;
        out.put_bytes(&bytes);
        return Ok(());
    }
    let elements = json.as_array().ok_or_else(|| mismatch("an array", json))?;
    if element.is_zero_sized() && elements.len() > ZERO_SIZED_ELEMENTS_MAX as usize {
        let count = u32::try_from(elements.len()).unwrap_or(u32::MAX);
        return Err(DecodeError::TooManyEmptyElements { position: out.len(), count }.into());
    }
    out.put_len(elements.len());
    for (index, json) in elements.iter().enumerate() {
        value(element, json, out, depth + 1).map_err(|error| error.at_index(index))?;
    }
    Ok(())
}

fn product(ty: &ProductType, json: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), JsonError> {
    check_depth(out, depth)?;
    if let Some(special) = ty.special() {
        return special_product(ty, special, json, out);
    }
    match json {
        Value::Array(fields) => {
            if fields.len() != ty.elements.len() {
                let (expected, found) = (ty.elements.len(), fields.len());
                return Err(JsonErrorKind::WrongLength { expected, found }.into());
            }
            for (index, (element, json)) in ty.elements.iter().zip(fields).enumerate() {
                value(&element.ty, json, out, depth + 1).map_err(|error| error.at_index(index))?;
            }
            Ok(())
        }
        Value::Object(fields) => object(ty, fields, out, depth),
        _ => Err(mismatch("an object or array", json)),
    }
}

fn object(ty: &ProductType, fields: &Map<String, Value>, out: &mut Vec<u8>, depth: usize) -> Result<(), JsonError> {
    for (index, element) in ty.elements.iter().enumerate() {
        let position;
        let name = match element.name() {
            Some(name) => name,
            None => {
                position = index.to_string();
                &position
            }
        };
        let json = fields.get(name).ok_or_else(|| JsonErrorKind::MissingField(name.to_owned()))?;
        value(&element.ty, json, out, depth + 1).map_err(|error| error.in_field(name))?;
    }
    if fields.len() == ty.elements.len() {
        return Ok(());
    }
    let is_known = |name: &str| {
        ty.elements.iter().enumerate().any(|(index, element)| match element.name() {
            Some(known) => known == name,
            None => index.to_string() == name,
        })
    };
    match fields.keys().find(|name| !is_known(name)) {
        Some(name) => Err(JsonErrorKind::UnknownField(quoted(name)).into()),
        None => Ok(()),
    }
}

/// Identities and the like: as a product of one field, or just that field, and that as text too.
fn special_product(ty: &ProductType, special: SpecialType, json: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let field = &ty.elements[0];
    let name = field.name().unwrap_or_default();
    let inner = match json {
        Value::Object(fields) => match fields.get(name) {
            Some(inner) if fields.len() == 1 => inner,
            Some(_) => {
                let other = fields.keys().find(|key| *key != name);
                let other = other.map_or_else(String::new, |key| quoted(key));
                return Err(JsonErrorKind::UnknownField(other).into());
            }
            None => return Err(JsonErrorKind::MissingField(name.to_owned()).into()),
        },
        Value::Array(fields) => match &fields[..] {
            [inner] => inner,
            _ => {
                let found = fields.len();
                return Err(JsonErrorKind::WrongLength { expected: 1, found }.into());
            }
        },
        bare => bare,
    };
    if let Value::String(text) = inner {
        let written = match special {
            SpecialType::Identity => Identity::from_hex(text).map(|identity| out.put_identity(&identity)).is_ok(),
            SpecialType::ConnectionId => ConnectionId::from_hex(text).map(|id| out.put_connection_id(id)).is_ok(),
            SpecialType::Uuid => Uuid::parse(text).map(|uuid| out.put_u128(uuid.get())).is_ok(),
            SpecialType::Timestamp => Timestamp::from_rfc3339(text).map(|time| out.put_timestamp(time)).is_ok(),
            SpecialType::TimeDuration => false,
        };
        if written {
            return Ok(());
        }
    }
    value(&field.ty, inner, out, TYPE_DEPTH_MAX)
}

fn sum(ty: &SumType, json: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), JsonError> {
    check_depth(out, depth)?;
    let unit = Value::Array(Vec::new());
    let (variant, payload) = match json {
        Value::Object(entries) if entries.len() == 1 => {
            let (name, payload) = entries.iter().next().expect("it has one entry");
            (variant_named(ty, name)?, payload)
        }
        Value::Array(pair) => match &pair[..] {
            [Value::String(name), payload] => (variant_named(ty, name)?, payload),
            [Value::Number(tag), payload] => (variant_tagged(ty, tag.as_str())?, payload),
            _ => return Err(mismatch("a variant and its value", json)),
        },
        Value::String(name) => {
            let variant = variant_named(ty, name)?;
            if !ty.variants[variant].ty.is_unit() {
                return Err(mismatch("a variant with its value", json));
            }
            (variant, &unit)
        }
        Value::Null if ty.is_option() => (1, &unit),
        _ => return Err(mismatch("an object of one variant", json)),
    };
    let Ok(tag) = u8::try_from(variant) else {
        return Err(JsonErrorKind::UnknownVariant(variant.to_string()).into());
    };
    out.put_u8(tag);
    let variant = &ty.variants[variant];
    value(&variant.ty, payload, out, depth + 1).map_err(|error| error.in_field(variant.name().unwrap_or("value")))
}

/// The variant with that name, or whose tag the text is.
fn variant_named(ty: &SumType, name: &str) -> Result<usize, JsonError> {
    match ty.position(name) {
        Some(variant) => Ok(variant),
        None => variant_tagged(ty, name),
    }
}

fn variant_tagged(ty: &SumType, tag: &str) -> Result<usize, JsonError> {
    let variant = tag.parse().ok().filter(|&variant: &usize| variant < ty.variants.len());
    variant.ok_or_else(|| JsonErrorKind::UnknownVariant(quoted(tag)).into())
}

/// Integers below 64 bits, which every JSON implementation can write as numbers.
fn small_integer<T: std::str::FromStr>(json: &Value, expected: &'static str) -> Result<T, JsonError> {
    let Value::Number(number) = json else {
        return Err(mismatch("a number", json));
    };
    number.as_str().parse().map_err(|_| bad_text(expected, number.as_str()))
}

/// Integers of 64 bits and more, as numbers or as strings.
fn large_integer<T>(
    json: &Value,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, JsonError> {
    let text = match json {
        Value::Number(number) => number.as_str(),
        Value::String(text) => text,
        _ => return Err(mismatch("an integer", json)),
    };
    parse(text).ok_or_else(|| bad_text(expected, text))
}

fn unsigned_text(text: &str) -> Option<u128> {
    u256_text(text)?.to_u128()
}

fn u256_text(text: &str) -> Option<U256> {
    if text.starts_with("0x") || text.starts_with("0X") {
        return U256::from_hex(text).ok();
    }
    text.parse().ok()
}

fn float<T: std::str::FromStr + Into<f64> + Copy>(json: &Value, expected: &'static str) -> Result<T, JsonError> {
    let text = match json {
        Value::Number(number) => number.as_str(),
        Value::String(text) if matches!(&**text, "NaN" | "Infinity" | "-Infinity") => text,
        Value::Null => "NaN",
        _ => return Err(mismatch("a number", json)),
    };
    text.parse().map_err(|_| bad_text(expected, text))
}

pub(crate) fn mismatch(expected: &'static str, json: &Value) -> JsonError {
    let found = match json {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    JsonErrorKind::Mismatch { expected, found }.into()
}

fn bad_text(expected: &'static str, text: &str) -> JsonError {
    JsonErrorKind::BadText { expected, text: quoted(text) }.into()
}

fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
