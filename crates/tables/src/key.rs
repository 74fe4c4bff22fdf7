//! Order-preserving encoding of column values: the keys of rows and indexes.
//!
//! For two values `a` and `b` of one type, comparing the encodings as byte strings gives the order of
//! the values, and the encodings are equal only for equal values. No encoding is a proper prefix of
//! another of the same type, so encodings of several columns can be concatenated: order then goes
//! column by column, all keys that share their first columns share a byte prefix, and the end of a
//! column can be found again ([`skip_encoded`]).
//!
//! - bool: one byte, 0 or 1.
//! - unsigned integers: big endian. Signed: big endian with the sign bit flipped.
//! - floats: IEEE total order (negative numbers with all bits inverted, others with the sign bit set),
//!   so `-0.0 < 0.0` and every NaN has a place.
//! - strings and byte arrays: the bytes, `00` written as `00 FF`, ended by `00 00`.
//! - other arrays: each item after a byte `01`, ended by `00`.
//! - products: their fields in order. Sums: the tag, then the payload.
//!
//! The input is BSATN and the encoder reads it directly: no value is built in between.

use std::ops::Bound;

use tine_types::bsatn::{self, DecodeError, Reader};
use tine_types::{AlgebraicType, ProductTypeElement};

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xFF;
const TEXT_END: u8 = 0x00;
const ITEM_FOLLOWS: u8 = 0x01;
const ITEMS_END: u8 = 0x00;

/// Appends the key encoding of one BSATN value per type, in order, and checks the values on the way.
/// `reader` is left after the last value.
///
/// Types must be inlined (no `Ref`), as all types of a [`crate::TableSchema`] are. On error `out` may
/// hold part of an encoding.
pub fn encode_columns<'t>(
    types: impl IntoIterator<Item = &'t AlgebraicType>,
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    for ty in types {
        encode_checked(ty, reader, out)?;
    }
    Ok(())
}

/// Appends the key encoding of one BSATN value after checking it in full (UTF-8, bools, tags).
pub fn encode_checked(ty: &AlgebraicType, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let before = reader.remaining();
    let mut probe = reader.clone();
    bsatn::skip_value(ty, &mut probe)?;
    let value = reader.take(before - probe.remaining())?;
    encode_valid(ty, &mut Reader::new(value), out)
}

/// Appends the key encoding of a BSATN value that was validated before (a stored row's column).
/// Still bounds-checked, but does not look at UTF-8 or bool bytes again.
pub(crate) fn encode_valid(ty: &AlgebraicType, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    match ty {
        AlgebraicType::Bool | AlgebraicType::U8 => out.push(reader.u8()?),
        AlgebraicType::I8 => out.push(reader.u8()? ^ 0x80),
        AlgebraicType::U16 => out.extend_from_slice(&reader.u16()?.to_be_bytes()),
        AlgebraicType::I16 => out.extend_from_slice(&(reader.u16()? ^ 1 << 15).to_be_bytes()),
        AlgebraicType::U32 => out.extend_from_slice(&reader.u32()?.to_be_bytes()),
        AlgebraicType::I32 => out.extend_from_slice(&(reader.u32()? ^ 1 << 31).to_be_bytes()),
        AlgebraicType::U64 => out.extend_from_slice(&reader.u64()?.to_be_bytes()),
        AlgebraicType::I64 => out.extend_from_slice(&(reader.u64()? ^ 1 << 63).to_be_bytes()),
        AlgebraicType::U128 => out.extend_from_slice(&reader.u128()?.to_be_bytes()),
        AlgebraicType::I128 => out.extend_from_slice(&(reader.u128()? ^ 1 << 127).to_be_bytes()),
        AlgebraicType::U256 => push_reversed(reader.take(32)?, 0, out),
        AlgebraicType::I256 => push_reversed(reader.take(32)?, 0x80, out),
        AlgebraicType::F32 => {
            let bits = reader.u32()?;
            let mask = if bits >> 31 == 1 { u32::MAX } else { 1 << 31 };
            out.extend_from_slice(&(bits ^ mask).to_be_bytes());
        }
        AlgebraicType::F64 => {
            let bits = reader.u64()?;
            let mask = if bits >> 63 == 1 { u64::MAX } else { 1 << 63 };
            out.extend_from_slice(&(bits ^ mask).to_be_bytes());
        }
        AlgebraicType::String => push_text(reader.bytes()?, out),
        AlgebraicType::Array(item) if **item == AlgebraicType::U8 => push_text(reader.bytes()?, out),
        AlgebraicType::Array(item) => {
            let count = reader.u32()?;
            for _ in 0..count {
                out.push(ITEM_FOLLOWS);
                encode_valid(item, reader, out)?;
            }
            out.push(ITEMS_END);
        }
        AlgebraicType::Product(product) => {
            for ProductTypeElement { ty, .. } in &product.elements {
                encode_valid(ty, reader, out)?;
            }
        }
        AlgebraicType::Sum(sum) => {
            let tag = reader.u8()?;
            out.push(tag);
            encode_valid(&sum.variants[usize::from(tag)].ty, reader, out)?;
        }
        AlgebraicType::Ref(_) => unreachable!("column types are inlined when a schema is built"),
    }
    Ok(())
}

fn push_reversed(little_endian: &[u8], sign_flip: u8, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend(little_endian.iter().rev());
    out[start] ^= sign_flip;
}

fn push_text(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    let mut rest = text;
    while let Some(zero) = rest.iter().position(|&byte| byte == ESCAPE) {
        out.extend_from_slice(&rest[..zero]);
        out.extend_from_slice(&[ESCAPE, ESCAPED_ZERO]);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&[ESCAPE, TEXT_END]);
}

/// Bytes of an encoded value when they are the same for all values of the type.
pub fn fixed_encoded_size(ty: &AlgebraicType) -> Option<usize> {
    match ty {
        AlgebraicType::Bool | AlgebraicType::U8 | AlgebraicType::I8 => Some(1),
        AlgebraicType::U16 | AlgebraicType::I16 => Some(2),
        AlgebraicType::U32 | AlgebraicType::I32 | AlgebraicType::F32 => Some(4),
        AlgebraicType::U64 | AlgebraicType::I64 | AlgebraicType::F64 => Some(8),
        AlgebraicType::U128 | AlgebraicType::I128 => Some(16),
        AlgebraicType::U256 | AlgebraicType::I256 => Some(32),
        AlgebraicType::Product(product) => product.elements.iter().map(|element| fixed_encoded_size(&element.ty)).sum(),
        AlgebraicType::Sum(sum) => {
            let mut sizes = sum.variants.iter().map(|variant| fixed_encoded_size(&variant.ty));
            let first = sizes.next()??;
            sizes.all(|size| size == Some(first)).then_some(1 + first)
        }
        AlgebraicType::String | AlgebraicType::Array(_) | AlgebraicType::Ref(_) => None,
    }
}

/// Length of the encoded value of type `ty` at the start of `encoded`; `None` when `encoded` is not
/// such an encoding (it was not made by this module for this type).
pub fn skip_encoded(ty: &AlgebraicType, encoded: &[u8]) -> Option<usize> {
    if let Some(size) = fixed_encoded_size(ty) {
        return (size <= encoded.len()).then_some(size);
    }
    match ty {
        AlgebraicType::String => skip_text(encoded),
        AlgebraicType::Array(item) if **item == AlgebraicType::U8 => skip_text(encoded),
        AlgebraicType::Array(item) => {
            let mut position = 0;
            loop {
                match *encoded.get(position)? {
                    ITEM_FOLLOWS => position += 1 + skip_encoded(item, &encoded[position + 1..])?,
                    ITEMS_END => return Some(position + 1),
                    _ => return None,
                }
            }
        }
        AlgebraicType::Product(product) => {
            let mut position = 0;
            for element in &product.elements {
                position += skip_encoded(&element.ty, &encoded[position..])?;
            }
            Some(position)
        }
        AlgebraicType::Sum(sum) => {
            let variant = sum.variants.get(usize::from(*encoded.first()?))?;
            Some(1 + skip_encoded(&variant.ty, &encoded[1..])?)
        }
        _ => None,
    }
}

fn skip_text(encoded: &[u8]) -> Option<usize> {
    let mut position = 0;
    loop {
        position += encoded[position..].iter().position(|&byte| byte == ESCAPE)? + 2;
        if *encoded.get(position - 1)? == TEXT_END {
            return Some(position);
        }
    }
}

/// Turns `key` into the smallest byte string greater than every string that starts with `key`.
/// Returns false, leaving `key` empty, when there is none (all bytes are `FF`).
pub fn advance_past_prefix(key: &mut Vec<u8>) -> bool {
    while let Some(last) = key.last_mut() {
        if *last < 0xFF {
            *last += 1;
            return true;
        }
        key.pop();
    }
    false
}

/// The half-open range of encoded keys `[start, end)`; no end means up to the end of the keyspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KeyRange {
    pub start: Vec<u8>,
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// All keys that start with `prefix`.
    pub fn of_prefix(prefix: Vec<u8>) -> KeyRange {
        let mut end = prefix.clone();
        let bounded = advance_past_prefix(&mut end);
        KeyRange { start: prefix, end: bounded.then_some(end) }
    }

    /// The keys that start with `prefix` and whose next column lies within the encoded bounds.
    pub fn within(prefix: &[u8], start: Bound<&[u8]>, end: Bound<&[u8]>) -> KeyRange {
        let joined = |column: &[u8]| [prefix, column].concat();
        let past = |mut key: Vec<u8>| advance_past_prefix(&mut key).then_some(key);
        let start = match start {
            Bound::Unbounded => Some(prefix.to_vec()),
            Bound::Included(column) => Some(joined(column)),
            Bound::Excluded(column) => past(joined(column)),
        };
        let end = match end {
            Bound::Unbounded => past(prefix.to_vec()),
            Bound::Included(column) => past(joined(column)),
            Bound::Excluded(column) => Some(joined(column)),
        };
        match start {
            Some(start) => KeyRange { start, end },
            None => KeyRange { start: Vec::new(), end: Some(Vec::new()) },
        }
    }

    /// The range as the store takes it.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = self.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        (Bound::Included(&self.start), end)
    }

    /// Whether no key can lie in the range.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

#[cfg(test)]
mod tests;
