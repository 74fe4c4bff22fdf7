//! Types as data: the encoding that module definitions use.
//!
//! A type is a sum whose tag is its position in [`AlgebraicType`]. Elements and variants are
//! `{ name: Option<String>, type }`. A bare product (parameters) goes without the tag.

use crate::bsatn::{BsatnWrite, DecodeError, Reader};
use crate::{
    AlgebraicType, ProductType, ProductTypeElement, SumType, SumTypeVariant, TYPE_DEPTH_MAX, TYPE_NODES_MAX, TypeRef,
};

/// Smallest encoding of an element: no name, and a type without payload.
const ELEMENT_SIZE_MIN: usize = 2;
/// Elements to allocate for before the first is seen to be there.
const PREALLOCATED_ELEMENTS_MAX: usize = 256;
/// Number of type constructors.
const TYPE_TAGS: usize = 20;

/// Appends the encoding of `ty`.
pub fn encode_type(ty: &AlgebraicType, out: &mut Vec<u8>) {
    out.put_u8(type_tag(ty));
    match ty {
        AlgebraicType::Ref(reference) => out.put_u32(reference.0),
        AlgebraicType::Sum(sum) => {
            out.put_len(sum.variants.len());
            for variant in &sum.variants {
                encode_name(variant.name(), out);
                encode_type(&variant.ty, out);
            }
        }
        AlgebraicType::Product(product) => encode_product_type(product, out),
        AlgebraicType::Array(element) => encode_type(element, out),
        _ => {}
    }
}

/// Appends the encoding of a bare product.
pub fn encode_product_type(product: &ProductType, out: &mut Vec<u8>) {
    out.put_len(product.elements.len());
    for element in &product.elements {
        encode_name(element.name(), out);
        encode_type(&element.ty, out);
    }
}

fn encode_name(name: Option<&str>, out: &mut Vec<u8>) {
    match name {
        Some(name) => {
            out.put_u8(0);
            out.put_str(name);
        }
        None => out.put_u8(1),
    }
}

/// Reads a type.
///
/// # Errors
/// Bytes that are no type, and types past the bounds on depth and nodes.
pub fn decode_type(reader: &mut Reader<'_>) -> Result<AlgebraicType, DecodeError> {
    read_type(reader, &mut TypeBudget::default(), 0)
}

/// Reads a bare product.
///
/// # Errors
/// As for [`decode_type`].
pub fn decode_product_type(reader: &mut Reader<'_>) -> Result<ProductType, DecodeError> {
    read_product_type(reader, &mut TypeBudget::default(), 0)
}

/// Type nodes that may still be read; shared by all types of one module definition.
pub(crate) struct TypeBudget(usize);

impl Default for TypeBudget {
    fn default() -> Self {
        Self(TYPE_NODES_MAX)
    }
}

pub(crate) fn read_type(
    reader: &mut Reader<'_>,
    budget: &mut TypeBudget,
    depth: usize,
) -> Result<AlgebraicType, DecodeError> {
    let position = reader.position();
    if depth >= TYPE_DEPTH_MAX {
        return Err(DecodeError::TooDeep { position });
    }
    budget.0 = budget.0.checked_sub(1).ok_or(DecodeError::TooManyTypeNodes { position })?;
    Ok(match reader.tag(TYPE_TAGS)? {
        0 => AlgebraicType::Ref(TypeRef(reader.u32()?)),
        1 => AlgebraicType::Sum(read_sum_type(reader, budget, depth)?),
        2 => AlgebraicType::Product(read_product_type(reader, budget, depth)?),
        3 => AlgebraicType::array(read_type(reader, budget, depth + 1)?),
        4 => AlgebraicType::String,
        5 => AlgebraicType::Bool,
        6 => AlgebraicType::I8,
        7 => AlgebraicType::U8,
        8 => AlgebraicType::I16,
        9 => AlgebraicType::U16,
        10 => AlgebraicType::I32,
        11 => AlgebraicType::U32,
        12 => AlgebraicType::I64,
        13 => AlgebraicType::U64,
        14 => AlgebraicType::I128,
        15 => AlgebraicType::U128,
        16 => AlgebraicType::I256,
        17 => AlgebraicType::U256,
        18 => AlgebraicType::F32,
        _ => AlgebraicType::F64,
    })
}

fn read_sum_type(reader: &mut Reader<'_>, budget: &mut TypeBudget, depth: usize) -> Result<SumType, DecodeError> {
    let count = reader.array_len(ELEMENT_SIZE_MIN)?;
    let mut variants = Vec::with_capacity(count.min(PREALLOCATED_ELEMENTS_MAX));
    for _ in 0..count {
        let name = read_name(reader)?;
        variants.push(SumTypeVariant { name, ty: read_type(reader, budget, depth + 1)? });
    }
    Ok(SumType::new(variants))
}

pub(crate) fn read_product_type(
    reader: &mut Reader<'_>,
    budget: &mut TypeBudget,
    depth: usize,
) -> Result<ProductType, DecodeError> {
    let count = reader.array_len(ELEMENT_SIZE_MIN)?;
    let mut elements = Vec::with_capacity(count.min(PREALLOCATED_ELEMENTS_MAX));
    for _ in 0..count {
        let name = read_name(reader)?;
        elements.push(ProductTypeElement { name, ty: read_type(reader, budget, depth + 1)? });
    }
    Ok(ProductType::new(elements))
}

fn read_name(reader: &mut Reader<'_>) -> Result<Option<Box<str>>, DecodeError> {
    if reader.option()? { reader.str().map(|name| Some(name.into())) } else { Ok(None) }
}

fn type_tag(ty: &AlgebraicType) -> u8 {
    match ty {
        AlgebraicType::Ref(_) => 0,
        AlgebraicType::Sum(_) => 1,
        AlgebraicType::Product(_) => 2,
        AlgebraicType::Array(_) => 3,
        AlgebraicType::String => 4,
        AlgebraicType::Bool => 5,
        AlgebraicType::I8 => 6,
        AlgebraicType::U8 => 7,
        AlgebraicType::I16 => 8,
        AlgebraicType::U16 => 9,
        AlgebraicType::I32 => 10,
        AlgebraicType::U32 => 11,
        AlgebraicType::I64 => 12,
        AlgebraicType::U64 => 13,
        AlgebraicType::I128 => 14,
        AlgebraicType::U128 => 15,
        AlgebraicType::I256 => 16,
        AlgebraicType::U256 => 17,
        AlgebraicType::F32 => 18,
        AlgebraicType::F64 => 19,
    }
}
