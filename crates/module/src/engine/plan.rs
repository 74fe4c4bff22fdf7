//! How values of a type are read from and written to JavaScript, worked out once per instance.

use tine_types::{AlgebraicType, ProductType, SpecialType};

use super::raw::{Atom, Cx, JsResult, Root};

/// A type with everything looked up that the codec needs.
pub(super) enum Plan {
    Bool,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    I128,
    U128,
    I256,
    U256,
    F32,
    F64,
    String,
    /// An array of bytes: `Uint8Array`.
    Bytes,
    Identity,
    ConnectionId,
    Uuid,
    Timestamp,
    TimeDuration,
    /// An empty product.
    Unit,
    /// `undefined` or the value.
    Option(Box<Plan>),
    /// `{ ok }` or `{ err }`.
    Result(Box<(Plan, Plan)>),
    Array(Box<ArrayPlan>),
    Product(ProductPlan),
    Sum(SumPlan),
}

pub(super) struct ArrayPlan {
    pub(super) element: Plan,
    /// Fewest bytes that an element takes.
    pub(super) element_size_min: usize,
}

/// An object with these properties, in this order.
pub(super) struct ProductPlan {
    pub(super) fields: Box<[FieldPlan]>,
}

pub(super) struct FieldPlan {
    pub(super) name: Box<str>,
    pub(super) atom: Atom,
    pub(super) plan: Plan,
}

/// `{ tag, value }`.
pub(super) struct SumPlan {
    pub(super) variants: Box<[VariantPlan]>,
}

pub(super) struct VariantPlan {
    pub(super) name: Box<str>,
    pub(super) atom: Atom,
    /// The tag as a JavaScript string.
    pub(super) tag: Root,
    pub(super) plan: Plan,
}

impl Plan {
    /// Plans a type without references.
    ///
    /// # Panics
    /// If the type has references.
    pub(super) fn new(cx: Cx<'_>, ty: &AlgebraicType) -> JsResult<Plan> {
        if let Some(some) = ty.as_option() {
            return Ok(Plan::Option(Box::new(Plan::new(cx, some)?)));
        }
        if let Some((ok, err)) = ty.as_result() {
            return Ok(Plan::Result(Box::new((Plan::new(cx, ok)?, Plan::new(cx, err)?))));
        }
        Ok(match ty {
            AlgebraicType::Ref(reference) => unreachable!("{reference:?} was not inlined"),
            AlgebraicType::Bool => Plan::Bool,
            AlgebraicType::I8 => Plan::I8,
            AlgebraicType::U8 => Plan::U8,
            AlgebraicType::I16 => Plan::I16,
            AlgebraicType::U16 => Plan::U16,
            AlgebraicType::I32 => Plan::I32,
            AlgebraicType::U32 => Plan::U32,
            AlgebraicType::I64 => Plan::I64,
            AlgebraicType::U64 => Plan::U64,
            AlgebraicType::I128 => Plan::I128,
            AlgebraicType::U128 => Plan::U128,
            AlgebraicType::I256 => Plan::I256,
            AlgebraicType::U256 => Plan::U256,
            AlgebraicType::F32 => Plan::F32,
            AlgebraicType::F64 => Plan::F64,
            AlgebraicType::String => Plan::String,
            AlgebraicType::Array(element) if **element == AlgebraicType::U8 => Plan::Bytes,
            AlgebraicType::Array(element) => {
                let element = Plan::new(cx, element)?;
                Plan::Array(Box::new(ArrayPlan { element_size_min: element.size_min(), element }))
            }
            AlgebraicType::Product(product) => match product.special() {
                Some(SpecialType::Identity) => Plan::Identity,
                Some(SpecialType::ConnectionId) => Plan::ConnectionId,
                Some(SpecialType::Uuid) => Plan::Uuid,
                Some(SpecialType::Timestamp) => Plan::Timestamp,
                Some(SpecialType::TimeDuration) => Plan::TimeDuration,
                None if product.elements.is_empty() => Plan::Unit,
                None => Plan::Product(ProductPlan::new(cx, product)?),
            },
            AlgebraicType::Sum(sum) => {
                let variants = sum.variants.iter().enumerate().map(|(index, variant)| {
                    let name = name_or_index(variant.name(), index);
                    let tag = cx.root(cx.string(&name)?);
                    Ok(VariantPlan { atom: cx.atom(&name)?, tag, plan: Plan::new(cx, &variant.ty)?, name })
                });
                Plan::Sum(SumPlan { variants: variants.collect::<JsResult<_>>()? })
            }
        })
    }

    /// Fewest bytes that a value takes.
    pub(super) fn size_min(&self) -> usize {
        match self {
            Plan::Unit => 0,
            Plan::Bool | Plan::I8 | Plan::U8 | Plan::Option(_) => 1,
            Plan::I16 | Plan::U16 => 2,
            Plan::I32 | Plan::U32 | Plan::F32 | Plan::String | Plan::Bytes | Plan::Array(_) => 4,
            Plan::I64 | Plan::U64 | Plan::F64 | Plan::Timestamp | Plan::TimeDuration => 8,
            Plan::I128 | Plan::U128 | Plan::ConnectionId | Plan::Uuid => 16,
            Plan::I256 | Plan::U256 | Plan::Identity => 32,
            Plan::Result(plans) => 1 + plans.0.size_min().min(plans.1.size_min()),
            Plan::Product(product) => product.fields.iter().map(|field| field.plan.size_min()).sum(),
            Plan::Sum(sum) => 1 + sum.variants.iter().map(|variant| variant.plan.size_min()).min().unwrap_or(0),
        }
    }

    /// What a value looks like in JavaScript, for messages.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Plan::Bool => "a boolean",
            Plan::I8 => "an integer from -128 to 127",
            Plan::U8 => "an integer from 0 to 255",
            Plan::I16 => "an integer from -32768 to 32767",
            Plan::U16 => "an integer from 0 to 65535",
            Plan::I32 => "an integer from -2147483648 to 2147483647",
            Plan::U32 => "an integer from 0 to 4294967295",
            Plan::I64 => "a bigint of 64 bits, signed (such as 1n)",
            Plan::U64 => "a bigint of 64 bits, not negative (such as 1n)",
            Plan::I128 => "a bigint of 128 bits, signed (such as 1n)",
            Plan::U128 => "a bigint of 128 bits, not negative (such as 1n)",
            Plan::I256 => "a bigint of 256 bits, signed (such as 1n)",
            Plan::U256 => "a bigint of 256 bits, not negative (such as 1n)",
            Plan::F32 | Plan::F64 => "a number",
            Plan::String => "a string",
            Plan::Bytes => "a Uint8Array",
            Plan::Identity => "an Identity",
            Plan::ConnectionId => "a ConnectionId",
            Plan::Uuid => "a Uuid",
            Plan::Timestamp => "a Timestamp",
            Plan::TimeDuration => "a TimeDuration",
            Plan::Unit => "{}",
            Plan::Option(plan) => plan.describe(),
            Plan::Result(_) => "an object with `ok` or `err`",
            Plan::Array(_) => "an array",
            Plan::Product(_) => "an object",
            Plan::Sum(_) => "an object with a `tag`",
        }
    }
}

impl ProductPlan {
    /// Plans a product whose element types have no references.
    pub(super) fn new(cx: Cx<'_>, product: &ProductType) -> JsResult<ProductPlan> {
        let fields = product.elements.iter().enumerate().map(|(index, element)| {
            let name = name_or_index(element.name(), index);
            Ok(FieldPlan { atom: cx.atom(&name)?, plan: Plan::new(cx, &element.ty)?, name })
        });
        Ok(ProductPlan { fields: fields.collect::<JsResult<_>>()? })
    }
}

/// Members without a name are called by their position.
fn name_or_index(name: Option<&str>, index: usize) -> Box<str> {
    name.map_or_else(|| index.to_string().into(), Into::into)
}
