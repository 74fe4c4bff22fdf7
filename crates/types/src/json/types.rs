//! Types as JSON, as module definitions and SQL schemas show them.

use serde_json::{Value, json};

use super::JsonError;
use super::access::{expect_array, expect_text, field, single_entry};
use super::read::mismatch;
use crate::bsatn::DecodeError;
use crate::{AlgebraicType, ProductType, ProductTypeElement, SumType, SumTypeVariant, TYPE_DEPTH_MAX, TypeRef};

/// Returns `ty` as SATS-JSON: `{"Array": {"U8": []}}` and so on.
pub fn type_to_json(ty: &AlgebraicType) -> Value {
    let payload = match ty {
        AlgebraicType::Ref(reference) => json!(reference.0),
        AlgebraicType::Sum(sum) => {
            let variants = sum.variants.iter();
            let variants: Vec<_> = variants.map(|variant| element_to_json(variant.name(), &variant.ty)).collect();
            json!({ "variants": variants })
        }
        AlgebraicType::Product(product) => product_type_to_json(product),
        AlgebraicType::Array(element) => type_to_json(element),
        _ => json!([]),
    };
    json!({ ty.kind(): payload })
}

/// Returns a bare product as SATS-JSON: `{"elements": [...]}`.
pub fn product_type_to_json(product: &ProductType) -> Value {
    let elements = product.elements.iter();
    let elements: Vec<_> = elements.map(|element| element_to_json(element.name(), &element.ty)).collect();
    json!({ "elements": elements })
}

fn element_to_json(name: Option<&str>, ty: &AlgebraicType) -> Value {
    let name = match name {
        Some(name) => json!({ "some": name }),
        None => json!({ "none": [] }),
    };
    json!({ "name": name, "algebraic_type": type_to_json(ty) })
}

/// Reads a type that [`type_to_json`] wrote.
///
/// # Errors
/// JSON that is no type, or one that nests deeper than [`TYPE_DEPTH_MAX`].
pub fn type_from_json(value: &Value) -> Result<AlgebraicType, JsonError> {
    read_type(value, 0)
}

/// Reads a bare product that [`product_type_to_json`] wrote.
///
/// # Errors
/// As [`type_from_json`].
pub fn product_type_from_json(value: &Value) -> Result<ProductType, JsonError> {
    read_product(value, 0)
}

fn read_type(value: &Value, depth: usize) -> Result<AlgebraicType, JsonError> {
    if depth > TYPE_DEPTH_MAX {
        return Err(DecodeError::TooDeep { position: 0 }.into());
    }
    let (kind, payload) = single_entry(value)?;
    Ok(match kind {
        "Ref" => {
            let number = payload.as_u64().and_then(|number| u32::try_from(number).ok());
            AlgebraicType::Ref(TypeRef(number.ok_or_else(|| mismatch("the number of a type", payload))?))
        }
        "Sum" => {
            let variants = expect_array(field(payload, "variants")?)?;
            let variants = variants.iter().map(|variant| read_element(variant, depth));
            let variants: Vec<_> =
                variants.map(|read| read.map(|(name, ty)| SumTypeVariant { name, ty })).collect::<Result<_, _>>()?;
            AlgebraicType::Sum(SumType { variants: variants.into() })
        }
        "Product" => AlgebraicType::Product(read_product(payload, depth)?),
        "Array" => AlgebraicType::array(read_type(payload, depth + 1)?),
        "String" => AlgebraicType::String,
        "Bool" => AlgebraicType::Bool,
        "I8" => AlgebraicType::I8,
        "U8" => AlgebraicType::U8,
        "I16" => AlgebraicType::I16,
        "U16" => AlgebraicType::U16,
        "I32" => AlgebraicType::I32,
        "U32" => AlgebraicType::U32,
        "I64" => AlgebraicType::I64,
        "U64" => AlgebraicType::U64,
        "I128" => AlgebraicType::I128,
        "U128" => AlgebraicType::U128,
        "I256" => AlgebraicType::I256,
        "U256" => AlgebraicType::U256,
        "F32" => AlgebraicType::F32,
        "F64" => AlgebraicType::F64,
        _ => return Err(mismatch("a type", value)),
    })
}

fn read_product(value: &Value, depth: usize) -> Result<ProductType, JsonError> {
    let elements = expect_array(field(value, "elements")?)?;
    let elements = elements.iter().map(|element| read_element(element, depth));
    let elements: Vec<_> =
        elements.map(|read| read.map(|(name, ty)| ProductTypeElement { name, ty })).collect::<Result<_, _>>()?;
    Ok(ProductType { elements: elements.into() })
}

fn read_element(value: &Value, depth: usize) -> Result<(Option<Box<str>>, AlgebraicType), JsonError> {
    let name = match single_entry(field(value, "name")?)? {
        ("some", name) => Some(expect_text(name)?.into()),
        ("none", _) => None,
        _ => return Err(mismatch("an option", value)),
    };
    Ok((name, read_type(field(value, "algebraic_type")?, depth + 1)?))
}
