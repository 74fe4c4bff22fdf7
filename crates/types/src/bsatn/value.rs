//! Values: validating, decoding, encoding.
//!
//! The types given here must be inlined. Their depth bounds the recursion, which is checked all the
//! same, since a type can be built by hand.

use bytes::Bytes;

use crate::bsatn::{BsatnWrite, DecodeError, Reader};
use crate::{AlgebraicType, AlgebraicValue, ProductType, SumType, TYPE_DEPTH_MAX};

/// How many array elements a value may have in all that take no bytes. Nothing in the data bounds an
/// array of such elements, and nobody needs one.
pub const ZERO_SIZED_ELEMENTS_MAX: u32 = 1 << 16;

/// How many nodes [`decode_value`] builds at most. A node takes 48 bytes of memory but may take one
/// byte of data, so the data's size alone is no bound to rely on. Byte arrays and strings
/// are one node however long.
pub const VALUE_NODES_MAX: usize = 1 << 22;

/// Elements to allocate for before the first is seen to be there.
const PREALLOCATED_ELEMENTS_MAX: usize = 1024;

/// Appends the encoding of `value`.
///
/// # Panics
/// If a string or array has 2^32 elements or more.
pub fn encode_value(value: &AlgebraicValue, out: &mut Vec<u8>) {
    use AlgebraicValue::*;
    match value {
        Bool(value) => out.put_bool(*value),
        I8(value) => out.put_i8(*value),
        U8(value) => out.put_u8(*value),
        I16(value) => out.put_i16(*value),
        U16(value) => out.put_u16(*value),
        I32(value) => out.put_i32(*value),
        U32(value) => out.put_u32(*value),
        I64(value) => out.put_i64(*value),
        U64(value) => out.put_u64(*value),
        I128(value) => out.put_i128(*value),
        U128(value) => out.put_u128(*value),
        I256(value) => out.put_i256(*value),
        U256(value) => out.put_u256(*value),
        F32(value) => out.put_f32(*value),
        F64(value) => out.put_f64(*value),
        String(text) => out.put_str(text),
        Bytes(bytes) => out.put_bytes(bytes),
        Array(elements) => {
            out.put_len(elements.len());
            elements.iter().for_each(|element| encode_value(element, out));
        }
        Product(fields) => fields.iter().for_each(|field| encode_value(field, out)),
        Sum { tag, value } => {
            out.put_u8(*tag);
            encode_value(value, out);
        }
    }
}

/// Moves the reader past one value of type `ty`, checking all of it: lengths, booleans, tags, text.
/// Allocates nothing.
///
/// # Errors
/// Bytes that are no value of the type.
#[inline]
pub fn skip_value(ty: &AlgebraicType, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    begin_walk(reader);
    skip(ty, reader, 0)
}

/// [`skip_value`] for a bare product, such as a row or an argument list.
///
/// # Errors
/// Bytes that are no value of the type.
#[inline]
pub fn skip_product(product: &ProductType, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    begin_walk(reader);
    for element in &product.elements {
        skip(&element.ty, reader, 1)?;
    }
    Ok(())
}

/// Checks that `bytes` are exactly one value of type `ty`.
///
/// # Errors
/// Bytes that are no value of the type, and bytes after it.
pub fn validate(ty: &AlgebraicType, bytes: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    skip_value(ty, &mut reader)?;
    reader.finish()
}

/// [`validate`] for a bare product, such as a row or an argument list.
///
/// # Errors
/// Bytes that are no value of the type, and bytes after it.
pub fn validate_product(product: &ProductType, bytes: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    skip_product(product, &mut reader)?;
    reader.finish()
}

fn skip(ty: &AlgebraicType, reader: &mut Reader<'_>, depth: usize) -> Result<(), DecodeError> {
    use AlgebraicType::*;
    match ty {
        I8 | U8 => reader.take(1).map(drop),
        I16 | U16 => reader.take(2).map(drop),
        I32 | U32 | F32 => reader.take(4).map(drop),
        I64 | U64 | F64 => reader.take(8).map(drop),
        I128 | U128 => reader.take(16).map(drop),
        I256 | U256 => reader.take(32).map(drop),
        Bool => reader.bool().map(drop),
        String => reader.str().map(drop),
        Product(product) => {
            check_depth(reader, depth)?;
            for element in &product.elements {
                skip(&element.ty, reader, depth + 1)?;
            }
            Ok(())
        }
        Sum(sum) => {
            check_depth(reader, depth)?;
            skip(read_variant(sum, reader)?.1, reader, depth + 1)
        }
        Array(element) => skip_array(element, reader, depth),
        Ref(reference) => Err(DecodeError::UnresolvedRef { reference: reference.0 }),
    }
}

fn skip_array(element: &AlgebraicType, reader: &mut Reader<'_>, depth: usize) -> Result<(), DecodeError> {
    check_depth(reader, depth)?;
    if *element == AlgebraicType::U8 {
        return reader.bytes().map(drop);
    }
    let count = read_element_count(element, reader)?;
    match element.primitive_size() {
        // Any bit pattern is a number, so a whole array of them is skipped at once.
        Some(size) if *element != AlgebraicType::Bool => reader.take(count.saturating_mul(size)).map(drop),
        _ if element.is_zero_sized() => Ok(()),
        _ => (0..count).try_for_each(|_| skip(element, reader, depth + 1)),
    }
}

/// Starts a walk along a type: the bound on empty elements is per value.
#[inline]
pub(crate) fn begin_walk(reader: &mut Reader<'_>) {
    reader.empty_elements_left = ZERO_SIZED_ELEMENTS_MAX;
}

#[inline]
pub(crate) fn check_depth(reader: &Reader<'_>, depth: usize) -> Result<(), DecodeError> {
    if depth < TYPE_DEPTH_MAX {
        return Ok(());
    }
    Err(DecodeError::TooDeep { position: reader.position() })
}

/// Reads a sum's tag and returns it with its payload type.
#[inline]
pub(crate) fn read_variant<'t>(
    sum: &'t SumType,
    reader: &mut Reader<'_>,
) -> Result<(u8, &'t AlgebraicType), DecodeError> {
    let tag = reader.tag(sum.variants.len())?;
    Ok((tag, &sum.variants[usize::from(tag)].ty))
}

/// Reads an array's count and checks it against the data that is left, assuming no more than one
/// byte per element: elements that are larger run out of data soon enough.
pub(crate) fn read_element_count(element: &AlgebraicType, reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    if !element.is_zero_sized() {
        return reader.array_len(1);
    }
    let position = reader.position();
    let count = reader.u32()?;
    match reader.empty_elements_left.checked_sub(count) {
        Some(left) => {
            reader.empty_elements_left = left;
            Ok(count as usize)
        }
        None => Err(DecodeError::TooManyEmptyElements { position, count }),
    }
}

/// Reads one value of type `ty` as a tree.
///
/// # Errors
/// Bytes that are no value of the type, and values of more than [`VALUE_NODES_MAX`] nodes.
pub fn decode_value(ty: &AlgebraicType, reader: &mut Reader<'_>) -> Result<AlgebraicValue, DecodeError> {
    begin_walk(reader);
    let mut nodes_left = VALUE_NODES_MAX;
    decode(ty, reader, 0, &mut nodes_left)
}

/// Takes one node from the budget of a tree under construction.
#[inline]
pub(crate) fn spend_node(reader: &Reader<'_>, nodes_left: &mut usize) -> Result<(), DecodeError> {
    match nodes_left.checked_sub(1) {
        Some(left) => {
            *nodes_left = left;
            Ok(())
        }
        None => Err(DecodeError::TooManyValues { position: reader.position() }),
    }
}

fn decode(
    ty: &AlgebraicType,
    reader: &mut Reader<'_>,
    depth: usize,
    nodes_left: &mut usize,
) -> Result<AlgebraicValue, DecodeError> {
    use AlgebraicType as Type;
    use AlgebraicValue as Value;
    spend_node(reader, nodes_left)?;
    Ok(match ty {
        Type::Bool => Value::Bool(reader.bool()?),
        Type::I8 => Value::I8(reader.i8()?),
        Type::U8 => Value::U8(reader.u8()?),
        Type::I16 => Value::I16(reader.i16()?),
        Type::U16 => Value::U16(reader.u16()?),
        Type::I32 => Value::I32(reader.i32()?),
        Type::U32 => Value::U32(reader.u32()?),
        Type::I64 => Value::I64(reader.i64()?),
        Type::U64 => Value::U64(reader.u64()?),
        Type::I128 => Value::I128(reader.i128()?),
        Type::U128 => Value::U128(reader.u128()?),
        Type::I256 => Value::I256(reader.i256()?),
        Type::U256 => Value::U256(reader.u256()?),
        Type::F32 => Value::F32(reader.f32()?),
        Type::F64 => Value::F64(reader.f64()?),
        Type::String => Value::String(reader.str()?.into()),
        Type::Array(_) | Type::Product(_) | Type::Sum(_) => {
            check_depth(reader, depth)?;
            return decode_compound(ty, reader, depth, nodes_left);
        }
        Type::Ref(reference) => {
            return Err(DecodeError::UnresolvedRef { reference: reference.0 });
        }
    })
}

fn decode_compound(
    ty: &AlgebraicType,
    reader: &mut Reader<'_>,
    depth: usize,
    nodes_left: &mut usize,
) -> Result<AlgebraicValue, DecodeError> {
    match ty {
        AlgebraicType::Array(element) if **element == AlgebraicType::U8 => {
            Ok(AlgebraicValue::Bytes(Bytes::copy_from_slice(reader.bytes()?)))
        }
        AlgebraicType::Array(element) => {
            let count = read_element_count(element, reader)?;
            let mut elements = Vec::with_capacity(count.min(PREALLOCATED_ELEMENTS_MAX));
            for _ in 0..count {
                elements.push(decode(element, reader, depth + 1, nodes_left)?);
            }
            Ok(AlgebraicValue::Array(elements))
        }
        AlgebraicType::Product(product) => {
            let count = product.elements.len();
            let mut fields = Vec::with_capacity(count.min(PREALLOCATED_ELEMENTS_MAX));
            for element in &product.elements {
                fields.push(decode(&element.ty, reader, depth + 1, nodes_left)?);
            }
            Ok(AlgebraicValue::Product(fields))
        }
        AlgebraicType::Sum(sum) => {
            let (tag, payload) = read_variant(sum, reader)?;
            let value = Box::new(decode(payload, reader, depth + 1, nodes_left)?);
            Ok(AlgebraicValue::Sum { tag, value })
        }
        _ => unreachable!("only compound types come here"),
    }
}
