//! Types as JSON, as module definitions and SQL schemas show them.

use serde_json::{Value, json};

use crate::{AlgebraicType, ProductType};

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
