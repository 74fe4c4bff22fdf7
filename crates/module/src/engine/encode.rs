//! JavaScript values to BSATN.
//!
//! Strict: a value that is not of the column's type is an error that names the column, never a silent conversion. Reading a
//! property may run the user's getters, so nothing here holds on to shared state.

use tine_types::bsatn::BsatnWrite;
use tine_types::{I256, U256};

use super::errors::{self, ErrorClass};
use super::plan::{Plan, ProductPlan, SumPlan};
use super::raw::{Atom, ClassId, Exception, JsResult, Kind, Value};

/// Most characters of a value that an error message shows.
const SHOWN_CHARS_MAX: usize = 40;

/// Why a value cannot be encoded.
#[must_use]
pub(super) enum EncodeError {
    /// JavaScript that ran on the way threw.
    Exception,
    /// The value, or part of it, is of another type.
    Mismatch(Box<Mismatch>),
}

/// Which part of a value is wrong.
pub(super) struct Mismatch {
    /// Names from the inside out.
    path: Vec<String>,
    problem: String,
}

impl From<Exception> for EncodeError {
    fn from(_: Exception) -> EncodeError {
        EncodeError::Exception
    }
}

impl EncodeError {
    #[cold]
    fn expected(plan: &Plan, value: &Value<'_>) -> EncodeError {
        let problem = format!("expected {}, got {}", plan.describe(), show(value));
        EncodeError::Mismatch(Box::new(Mismatch { path: Vec::new(), problem }))
    }

    #[cold]
    pub(super) fn within(mut self, name: &str) -> EncodeError {
        if let EncodeError::Mismatch(mismatch) = &mut self {
            mismatch.path.push(name.to_owned());
        }
        self
    }

    /// Throws it, as a `TypeError` if it is about the value. `what` is what was encoded, such as a table.
    #[cold]
    pub(super) fn throw(self, cx: super::raw::Cx<'_>, what: &str) -> Exception {
        match self {
            EncodeError::Exception => Exception,
            EncodeError::Mismatch(mismatch) => {
                let message = self_message(&mismatch, what);
                errors::throw(cx, ErrorClass::Type, &message)
            }
        }
    }
}

fn self_message(mismatch: &Mismatch, what: &str) -> String {
    let mut path = String::new();
    for name in mismatch.path.iter().rev() {
        let separator = if path.is_empty() || name.starts_with('[') { "" } else { "." };
        path.push_str(separator);
        path.push_str(name);
    }
    match path.is_empty() {
        true => format!("{what}: {}", mismatch.problem),
        false => format!("{what}, `{path}`: {}", mismatch.problem),
    }
}

/// A value in an error message. Runs no code of the user's.
fn show(value: &Value<'_>) -> String {
    let text = |value: &Value<'_>| {
        value.to_text().unwrap_or_else(|_| {
            value.cx().take_exception();
            "?".to_owned()
        })
    };
    match value.kind() {
        Kind::Undefined => "undefined".to_owned(),
        Kind::Null => "null".to_owned(),
        Kind::Symbol => "a symbol".to_owned(),
        Kind::Object if value.is_array() => "an array".to_owned(),
        Kind::Object if value.is_function() => "a function".to_owned(),
        Kind::Object => "an object".to_owned(),
        Kind::String => {
            let text = text(value);
            let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            let dots = if shown.len() < text.len() { "..." } else { "" };
            format!("the string \"{shown}{dots}\"")
        }
        Kind::ShortBigInt(_) | Kind::BigInt => {
            let text = text(value);
            let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            if shown.len() < text.len() { format!("the bigint {shown}...") } else { format!("the bigint {shown}n") }
        }
        _ => text(value),
    }
}

/// Appends the encoding of `value`.
pub(super) fn encode(plan: &Plan, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match plan {
        Plan::Bool => match value.kind() {
            Kind::Bool(value) => out.put_bool(value),
            _ => return Err(EncodeError::expected(plan, value)),
        },
        Plan::I8 => out.put_i8(integer(plan, value)?),
        Plan::U8 => out.put_u8(integer(plan, value)?),
        Plan::I16 => out.put_i16(integer(plan, value)?),
        Plan::U16 => out.put_u16(integer(plan, value)?),
        Plan::I32 => out.put_i32(integer(plan, value)?),
        Plan::U32 => out.put_u32(integer(plan, value)?),
        Plan::I64 => out.put_i64(big_i64(plan, value)?),
        Plan::U64 => out.put_u64(big_u64(plan, value)?),
        Plan::I128 | Plan::U128 | Plan::I256 | Plan::U256 => wide_integer(plan, value, out)?,
        Plan::F32 => out.put_f32(number(plan, value)? as f32),
        Plan::F64 => out.put_f64(number(plan, value)?),
        Plan::String => match value.kind() {
            Kind::String => value.with_text(|text| out.put_str(text))?,
            _ => return Err(EncodeError::expected(plan, value)),
        },
        Plan::Bytes => bytes(plan, value, out)?,
        Plan::Identity | Plan::ConnectionId | Plan::Uuid | Plan::Timestamp | Plan::TimeDuration => {
            special(plan, value, out)?;
        }
        Plan::Unit => {}
        Plan::Option(some) => {
            out.put_u8(u8::from(value.is_nullish()));
            if !value.is_nullish() {
                encode(some, value, out)?;
            }
        }
        Plan::Result(plans) => result(plan, plans, value, out)?,
        Plan::Array(array) => {
            if !value.is_array() {
                return Err(EncodeError::expected(plan, value));
            }
            let length = u32::try_from(value.length()?).map_err(|_| EncodeError::expected(plan, value))?;
            out.put_u32(length);
            for index in 0..length {
                let element = value.get_index(index)?;
                encode(&array.element, &element, out).map_err(|error| error.within(&format!("[{index}]")))?;
            }
        }
        Plan::Product(product) => {
            if !value.is_object() {
                return Err(EncodeError::expected(plan, value));
            }
            encode_product(product, value, out)?;
        }
        Plan::Sum(sum) => encode_sum(plan, sum, value, out)?,
    }
    Ok(())
}

/// Appends the fields of an object.
pub(super) fn encode_product(plan: &ProductPlan, object: &Value<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    for field in &plan.fields {
        let value = object.get(field.atom)?;
        encode(&field.plan, &value, out).map_err(|error| error.within(&field.name))?;
    }
    Ok(())
}

fn encode_sum(plan: &Plan, sum: &SumPlan, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if !value.is_object() {
        return Err(EncodeError::expected(plan, value));
    }
    let atoms = &value.cx().state().boot().atoms;
    let tag = value.get(atoms.tag)?;
    if tag.kind() != Kind::String {
        return Err(EncodeError::expected(plan, value));
    }
    let name = tag.property_name()?;
    let Some(position) = sum.variants.iter().position(|variant| name.is(variant.atom)) else {
        let tags: Vec<&str> = sum.variants.iter().map(|variant| &*variant.name).collect();
        let problem = format!("expected one of the tags {}, got {}", tags.join(", "), show(&tag));
        return Err(EncodeError::Mismatch(Box::new(Mismatch { path: vec!["tag".to_owned()], problem })));
    };
    let variant = &sum.variants[position];
    out.put_u8(position as u8);
    match variant.plan {
        Plan::Unit => Ok(()),
        _ => encode(&variant.plan, &value.get(atoms.value)?, out).map_err(|error| error.within(&variant.name)),
    }
}

fn result(plan: &Plan, plans: &(Plan, Plan), value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if !value.is_object() {
        return Err(EncodeError::expected(plan, value));
    }
    let atoms = &value.cx().state().boot().atoms;
    for (tag, name, plan, atom) in [(0, "ok", &plans.0, atoms.ok), (1, "err", &plans.1, atoms.err)] {
        let payload = value.get(atom)?;
        if !payload.is_undefined() {
            out.put_u8(tag);
            return encode(plan, &payload, out).map_err(|error| error.within(name));
        }
    }
    Err(EncodeError::expected(plan, value))
}

fn bytes(plan: &Plan, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if value.with_bytes(|bytes| out.put_bytes(bytes)).is_some() {
        return Ok(());
    }
    if !value.is_array() {
        return Err(EncodeError::expected(plan, value));
    }
    let length = u32::try_from(value.length()?).map_err(|_| EncodeError::expected(plan, value))?;
    out.put_u32(length);
    for index in 0..length {
        let byte = integer(&Plan::U8, &value.get_index(index)?).map_err(|error| error.within(&format!("[{index}]")))?;
        out.put_u8(byte);
    }
    Ok(())
}

/// An integer of at most 32 bits.
#[inline]
fn integer<T: TryFrom<i64>>(plan: &Plan, value: &Value<'_>) -> Result<T, EncodeError> {
    let wide = match value.kind() {
        Kind::Int(value) => Some(i64::from(value)),
        // Every integer of 32 bits is exact in a float; anything beyond fails the conversion to `T`.
        Kind::Float(value) if value.trunc() == value && value.abs() < 1e15 => Some(value as i64),
        _ => None,
    };
    wide.and_then(|wide| T::try_from(wide).ok()).ok_or_else(|| EncodeError::expected(plan, value))
}

#[inline]
fn number(plan: &Plan, value: &Value<'_>) -> Result<f64, EncodeError> {
    match value.kind() {
        Kind::Int(value) => Ok(f64::from(value)),
        Kind::Float(value) => Ok(value),
        _ => Err(EncodeError::expected(plan, value)),
    }
}

#[inline]
fn big_i64(plan: &Plan, value: &Value<'_>) -> Result<i64, EncodeError> {
    match value.kind() {
        Kind::ShortBigInt(value) => Ok(i64::from(value)),
        Kind::BigInt => {
            let bits = value.big_int_bits()? as i64;
            // The conversion wraps; what does not come back the same was out of range.
            let is_exact = value.cx().big_i64(bits)?.strictly_equals(value);
            if is_exact { Ok(bits) } else { Err(EncodeError::expected(plan, value)) }
        }
        _ => Err(EncodeError::expected(plan, value)),
    }
}

#[inline]
fn big_u64(plan: &Plan, value: &Value<'_>) -> Result<u64, EncodeError> {
    match value.kind() {
        Kind::ShortBigInt(value) if value >= 0 => Ok(value as u64),
        Kind::BigInt => {
            let bits = value.big_int_bits()?;
            let is_exact = value.cx().big_u64(bits)?.strictly_equals(value);
            if is_exact { Ok(bits) } else { Err(EncodeError::expected(plan, value)) }
        }
        _ => Err(EncodeError::expected(plan, value)),
    }
}

fn wide_integer(plan: &Plan, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let out_of_range = || EncodeError::expected(plan, value);
    match plan {
        Plan::U128 => out.put_u128(u256_of(value)?.and_then(U256::to_u128).ok_or_else(out_of_range)?),
        Plan::U256 => out.extend_from_slice(&u256_of(value)?.ok_or_else(out_of_range)?.to_le_bytes()),
        _ => {
            let wide = i256_of(value)?.ok_or_else(out_of_range)?.to_le_bytes();
            if matches!(plan, Plan::I256) {
                out.extend_from_slice(&wide);
                return Ok(());
            }
            let (low, high) = wide.split_at(16);
            let extension = if low[15] & 0x80 == 0 { 0 } else { 0xff };
            if high.iter().any(|byte| *byte != extension) {
                return Err(out_of_range());
            }
            out.extend_from_slice(low);
        }
    }
    Ok(())
}

/// A big integer as text, hexadecimal; `None` if the value is not one.
fn hex_of(value: &Value<'_>) -> JsResult<Option<String>> {
    match value.kind() {
        Kind::ShortBigInt(value) if value < 0 => Ok(Some(format!("-{:x}", value.unsigned_abs()))),
        Kind::ShortBigInt(value) => Ok(Some(format!("{value:x}"))),
        Kind::BigInt => {
            let cx = value.cx();
            cx.borrow(cx.state().boot().big_int_to_string).call(value, &[&cx.int(16)])?.to_text().map(Some)
        }
        _ => Ok(None),
    }
}

/// The value of a big integer, if it has at most 256 bits and is not negative.
pub(super) fn u256_of(value: &Value<'_>) -> JsResult<Option<U256>> {
    Ok(hex_of(value)?.and_then(|hex| U256::from_hex(&hex).ok()))
}

fn i256_of(value: &Value<'_>) -> JsResult<Option<I256>> {
    Ok(hex_of(value)?.and_then(|hex| I256::from_hex(&hex).ok()))
}

/// An identity, id or time: an object of our class, or any with the magic property.
fn special(plan: &Plan, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let boot = value.cx().state().boot();
    let classes = &boot.classes;
    let (class, member): (ClassId, Atom) = match plan {
        Plan::Identity => (classes.identity, boot.atoms.identity),
        Plan::ConnectionId => (classes.connection_id, boot.atoms.connection_id),
        Plan::Uuid => (classes.uuid, boot.atoms.uuid),
        Plan::Timestamp => (classes.timestamp, boot.atoms.timestamp),
        _ => (classes.time_duration, boot.atoms.time_duration),
    };
    match plan {
        Plan::Identity => {
            if let Some(block) = value.block::<32>(class) {
                out.extend_from_slice(&block);
                return Ok(());
            }
        }
        Plan::ConnectionId | Plan::Uuid => {
            if let Some(block) = value.block::<16>(class) {
                out.extend_from_slice(&block);
                return Ok(());
            }
        }
        _ => {
            if let Some(word) = value.word(class) {
                out.put_u64(word);
                return Ok(());
            }
        }
    }
    if !value.is_object() {
        return Err(EncodeError::expected(plan, value));
    }
    let inner = value.get(member)?;
    if !matches!(inner.kind(), Kind::ShortBigInt(_) | Kind::BigInt) {
        return Err(EncodeError::expected(plan, value));
    }
    let inner_plan = match plan {
        Plan::Identity => Plan::U256,
        Plan::ConnectionId | Plan::Uuid => Plan::U128,
        _ => Plan::I64,
    };
    encode(&inner_plan, &inner, out)
}
