//! Typespaces and the inlining of references.
//!
//! Inlining turns a graph into a tree, and a small graph can make a huge tree (each of thirty
//! products holding the next one twice is a tree of a thousand million nodes), so the walk carries a
//! node budget besides the depth bound that also catches recursion.

use crate::{AlgebraicType, ProductType, ProductTypeElement, SumType, SumTypeVariant, TypeRef};

/// How deep a type may nest. JSON parsers commonly stop at 128 levels and a value nests in JSON as
/// deep as its type, so this leaves room for an envelope around it.
pub const TYPE_DEPTH_MAX: usize = 64;

/// How many nodes one inlined type, or all types of one module definition, may have. Real modules
/// have a few thousand; the bound keeps a hostile definition below some megabytes.
pub const TYPE_NODES_MAX: usize = 1 << 16;

/// The types of a module that others refer to by index.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Typespace(pub Vec<AlgebraicType>);

/// Why a type cannot be inlined.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TypeError {
    /// A reference points past the typespace.
    #[error("type reference {reference} is out of range: the typespace has {types} types")]
    RefOutOfRange {
        /// The offending index.
        reference: u32,
        /// Number of types there are.
        types: usize,
    },
    /// A type contains itself, which no finite value layout can express.
    #[error("type {reference} contains itself; recursive types are not supported")]
    Recursive {
        /// The index at which the cycle was closed.
        reference: u32,
    },
    /// Deeper than [`TYPE_DEPTH_MAX`].
    #[error("type nests deeper than {TYPE_DEPTH_MAX} levels")]
    TooDeep,
    /// More than [`TYPE_NODES_MAX`] nodes.
    #[error("type has more than {TYPE_NODES_MAX} nodes")]
    TooManyNodes,
}

impl TypeError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::RefOutOfRange { .. } => "TN0110",
            Self::Recursive { .. } => "TN0111",
            Self::TooDeep => "TN0112",
            Self::TooManyNodes => "TN0113",
        }
    }
}

impl Typespace {
    /// The type at `reference`.
    pub fn get(&self, reference: TypeRef) -> Option<&AlgebraicType> {
        self.0.get(usize::try_from(reference.0).ok()?)
    }

    /// Returns `ty` with every reference replaced by what it refers to.
    ///
    /// # Errors
    /// References out of range, types that contain themselves, types past the bounds.
    pub fn inline(&self, ty: &AlgebraicType) -> Result<AlgebraicType, TypeError> {
        Inliner { typespace: self, open: Vec::new(), nodes_left: TYPE_NODES_MAX }.inline(ty, 0)
    }

    /// [`Typespace::inline`] for a bare product.
    ///
    /// # Errors
    /// As for [`Typespace::inline`].
    pub fn inline_product(&self, product: &ProductType) -> Result<ProductType, TypeError> {
        Inliner { typespace: self, open: Vec::new(), nodes_left: TYPE_NODES_MAX }.inline_product(product, 0)
    }
}

struct Inliner<'a> {
    typespace: &'a Typespace,
    /// References being expanded; one seen twice is a cycle.
    open: Vec<TypeRef>,
    nodes_left: usize,
}

impl Inliner<'_> {
    fn inline(&mut self, ty: &AlgebraicType, depth: usize) -> Result<AlgebraicType, TypeError> {
        if depth >= TYPE_DEPTH_MAX {
            return Err(TypeError::TooDeep);
        }
        self.nodes_left = self.nodes_left.checked_sub(1).ok_or(TypeError::TooManyNodes)?;
        Ok(match ty {
            AlgebraicType::Ref(reference) => return self.expand(*reference, depth),
            AlgebraicType::Product(product) => AlgebraicType::Product(self.inline_product(product, depth)?),
            AlgebraicType::Sum(sum) => {
                let variants = sum
                    .variants
                    .iter()
                    .map(|variant| {
                        let ty = self.inline(&variant.ty, depth + 1)?;
                        Ok(SumTypeVariant { name: variant.name.clone(), ty })
                    })
                    .collect::<Result<_, TypeError>>()?;
                AlgebraicType::Sum(SumType { variants })
            }
            AlgebraicType::Array(element) => AlgebraicType::array(self.inline(element, depth + 1)?),
            primitive => primitive.clone(),
        })
    }

    fn inline_product(&mut self, product: &ProductType, depth: usize) -> Result<ProductType, TypeError> {
        let elements = product
            .elements
            .iter()
            .map(|element| {
                let ty = self.inline(&element.ty, depth + 1)?;
                Ok(ProductTypeElement { name: element.name.clone(), ty })
            })
            .collect::<Result<_, TypeError>>()?;
        Ok(ProductType { elements })
    }

    fn expand(&mut self, reference: TypeRef, depth: usize) -> Result<AlgebraicType, TypeError> {
        if self.open.contains(&reference) {
            return Err(TypeError::Recursive { reference: reference.0 });
        }
        let typespace = self.typespace;
        let target = typespace
            .get(reference)
            .ok_or(TypeError::RefOutOfRange { reference: reference.0, types: typespace.0.len() })?;
        self.open.push(reference);
        // A chain of references is as deep as it is long although it adds no level to the result.
        let inlined = self.inline(target, depth + 1);
        self.open.pop();
        inlined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(index: u32) -> AlgebraicType {
        AlgebraicType::reference(index)
    }

    #[test]
    fn references_are_replaced() {
        let typespace = Typespace(vec![
            AlgebraicType::product([("x", AlgebraicType::U32), ("next", reference(1))]),
            AlgebraicType::option(reference(2)),
            AlgebraicType::array(AlgebraicType::String),
        ]);
        let inlined = typespace.inline(&reference(0)).unwrap();
        let expected = AlgebraicType::product([
            ("x", AlgebraicType::U32),
            ("next", AlgebraicType::option(AlgebraicType::array(AlgebraicType::String))),
        ]);
        assert_eq!(inlined, expected);
    }

    #[test]
    fn hostile_typespaces_are_refused() {
        let doubling: Vec<_> = (0..20u32)
            .map(|index| AlgebraicType::product([("a", reference(index + 1)), ("b", reference(index + 1))]))
            .chain([AlgebraicType::U8])
            .collect();
        let deep = (0..TYPE_DEPTH_MAX).fold(AlgebraicType::U8, |ty, _| AlgebraicType::array(ty));
        let cases = [
            (vec![], reference(0), "TN0110"),
            (vec![reference(0)], reference(0), "TN0111"),
            (vec![AlgebraicType::option(reference(1)), AlgebraicType::array(reference(0))], reference(1), "TN0111"),
            (vec![], deep, "TN0112"),
            (doubling, reference(0), "TN0113"),
        ];
        for (types, ty, code) in cases {
            assert_eq!(Typespace(types).inline(&ty).unwrap_err().code(), code);
        }
    }

    #[test]
    fn the_same_type_twice_side_by_side_is_no_cycle() {
        let typespace =
            Typespace(vec![AlgebraicType::product([("a", reference(1)), ("b", reference(1))]), AlgebraicType::U8]);
        assert_eq!(typespace.inline(&reference(0)).unwrap().static_bsatn_size(), Some(2));
    }
}
