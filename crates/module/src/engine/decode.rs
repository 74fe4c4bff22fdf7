//! BSATN to JavaScript values.
//!
//! Runs no code of the user's: objects are plain or of our classes, properties are defined, not set.

use tine_types::bsatn::{DecodeError, Reader, ZERO_SIZED_ELEMENTS_MAX};

use super::plan::{ArrayPlan, Plan, ProductPlan};
use super::raw::{Cx, Exception, JsResult, Value};

/// Why bytes cannot be decoded.
#[derive(Debug)]
#[must_use]
pub(super) enum DecodeFailure {
    /// The engine threw; it is out of memory.
    Exception,
    /// The bytes are not of the type.
    Malformed(DecodeError),
}

impl From<Exception> for DecodeFailure {
    fn from(_: Exception) -> DecodeFailure {
        DecodeFailure::Exception
    }
}

impl From<DecodeError> for DecodeFailure {
    fn from(error: DecodeError) -> DecodeFailure {
        DecodeFailure::Malformed(error)
    }
}

/// Decodes one value.
pub(super) fn decode<'js>(cx: Cx<'js>, plan: &Plan, reader: &mut Reader<'_>) -> Result<Value<'js>, DecodeFailure> {
    Ok(match plan {
        Plan::Bool => cx.bool(reader.bool()?),
        Plan::I8 => cx.int(reader.i8()?.into()),
        Plan::U8 => cx.int(reader.u8()?.into()),
        Plan::I16 => cx.int(reader.i16()?.into()),
        Plan::U16 => cx.int(reader.u16()?.into()),
        Plan::I32 => cx.int(reader.i32()?),
        Plan::U32 => {
            let value = reader.u32()?;
            i32::try_from(value).map_or_else(|_| cx.number(value.into()), |value| cx.int(value))
        }
        Plan::I64 => cx.big_i64(reader.i64()?)?,
        Plan::U64 => cx.big_u64(reader.u64()?)?,
        Plan::I128 => {
            let value = reader.i128()?;
            i64::try_from(value).map_or_else(|_| big_from_text(cx, &value.to_string()), |value| cx.big_i64(value))?
        }
        Plan::U128 => big_u128(cx, reader.u128()?)?,
        Plan::I256 => big_from_text(cx, &reader.i256()?.to_string())?,
        Plan::U256 => {
            let value = reader.u256()?;
            value.to_u128().map_or_else(|| big_from_text(cx, &value.to_hex()), |value| big_u128(cx, value))?
        }
        Plan::F32 => cx.number(reader.f32()?.into()),
        Plan::F64 => cx.number(reader.f64()?),
        Plan::String => cx.string(reader.str()?)?,
        Plan::Bytes => cx.uint8_array(reader.bytes()?)?,
        Plan::Identity => cx.block_object(cx.state().boot().classes.identity, block::<32>(reader)?)?,
        Plan::ConnectionId => cx.block_object(cx.state().boot().classes.connection_id, block::<16>(reader)?)?,
        Plan::Uuid => cx.block_object(cx.state().boot().classes.uuid, block::<16>(reader)?)?,
        Plan::Timestamp => cx.word_object(cx.state().boot().classes.timestamp, reader.u64()?)?,
        Plan::TimeDuration => cx.word_object(cx.state().boot().classes.time_duration, reader.u64()?)?,
        Plan::Unit => cx.object()?,
        Plan::Option(some) => match reader.tag(2)? {
            0 => decode(cx, some, reader)?,
            _ => cx.undefined(),
        },
        Plan::Result(plans) => {
            let atoms = &cx.state().boot().atoms;
            let (atom, plan) = if reader.tag(2)? == 0 { (atoms.ok, &plans.0) } else { (atoms.err, &plans.1) };
            let object = cx.object()?;
            object.define(atom, decode(cx, plan, reader)?)?;
            object
        }
        Plan::Array(array) => decode_array(cx, array, reader)?,
        Plan::Product(product) => decode_product(cx, product, reader)?,
        Plan::Sum(sum) => {
            let variant = &sum.variants[usize::from(reader.tag(sum.variants.len())?)];
            let atoms = &cx.state().boot().atoms;
            let object = cx.object()?;
            object.define(atoms.tag, cx.local(variant.tag))?;
            if !matches!(variant.plan, Plan::Unit) {
                object.define(atoms.value, decode(cx, &variant.plan, reader)?)?;
            }
            object
        }
    })
}

/// Decodes the fields of an object.
pub(super) fn decode_product<'js>(
    cx: Cx<'js>,
    plan: &ProductPlan,
    reader: &mut Reader<'_>,
) -> Result<Value<'js>, DecodeFailure> {
    let object = cx.object()?;
    for field in &plan.fields {
        object.define(field.atom, decode(cx, &field.plan, reader)?)?;
    }
    Ok(object)
}

fn decode_array<'js>(cx: Cx<'js>, plan: &ArrayPlan, reader: &mut Reader<'_>) -> Result<Value<'js>, DecodeFailure> {
    let count = if plan.element_size_min > 0 {
        reader.array_len(plan.element_size_min)?
    } else {
        let position = reader.position();
        let count = reader.u32()?;
        if count as usize > ZERO_SIZED_ELEMENTS_MAX as usize {
            return Err(DecodeError::TooManyEmptyElements { position, count }.into());
        }
        count as usize
    };
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(decode(cx, &plan.element, reader)?);
    }
    Ok(cx.array(values)?)
}

fn block<const N: usize>(reader: &mut Reader<'_>) -> Result<[u8; N], DecodeError> {
    let bytes = reader.take(N)?;
    Ok(bytes.try_into().expect("as many bytes as asked for"))
}

/// A big integer of 128 bits.
pub(super) fn big_u128(cx: Cx<'_>, value: u128) -> JsResult<Value<'_>> {
    u64::try_from(value).map_or_else(|_| big_from_text(cx, &value.to_string()), |value| cx.big_u64(value))
}

/// A big integer from its text, decimal or with `0x`.
pub(super) fn big_from_text<'js>(cx: Cx<'js>, text: &str) -> JsResult<Value<'js>> {
    cx.borrow(cx.state().boot().big_int).call(&cx.undefined(), &[&cx.string(text)?])
}
