//! Algebraic values: the tree form of data, for places where speed does not matter.
//!
//! Hot paths work on BSATN bytes. The tree is for constants in queries, arguments that come as JSON,
//! printing and tests.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use crate::{I256, U256};

/// A value. It knows its shape but not its names; those are in its type.
///
/// Equality, order and hash are total: floats compare by `total_cmp`, so `NaN` equals itself and
/// `-0.0` is below `0.0`, exactly as rows with those bytes differ.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // The primitive variants say what they are.
pub enum AlgebraicValue {
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    I128(i128),
    U128(u128),
    I256(I256),
    U256(U256),
    F32(f32),
    F64(f64),
    String(Box<str>),
    /// An array of bytes; never spelt as [`AlgebraicValue::Array`].
    Bytes(Bytes),
    Array(Vec<AlgebraicValue>),
    Product(Vec<AlgebraicValue>),
    /// The variant with index `tag`.
    Sum {
        /// Index of the variant.
        tag: u8,
        /// Payload; the empty product when there is none.
        value: Box<AlgebraicValue>,
    },
}

impl AlgebraicValue {
    /// The value of the empty product.
    pub fn unit() -> Self {
        Self::Product(Vec::new())
    }

    /// A string.
    pub fn string(text: &str) -> Self {
        Self::String(text.into())
    }

    /// An option that holds `value`.
    pub fn some(value: AlgebraicValue) -> Self {
        Self::Sum { tag: 0, value: Box::new(value) }
    }

    /// An option that holds nothing.
    pub fn none() -> Self {
        Self::Sum { tag: 1, value: Box::new(Self::unit()) }
    }

    /// A variant without payload.
    pub fn variant(tag: u8) -> Self {
        Self::Sum { tag, value: Box::new(Self::unit()) }
    }

    /// The fields, if it is a product.
    pub fn as_product(&self) -> Option<&[AlgebraicValue]> {
        match self {
            Self::Product(fields) => Some(fields),
            _ => None,
        }
    }

    /// The text, if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Position of the variant in the declaration, which orders values of different shape.
    fn rank(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::I8(_) => 1,
            Self::U8(_) => 2,
            Self::I16(_) => 3,
            Self::U16(_) => 4,
            Self::I32(_) => 5,
            Self::U32(_) => 6,
            Self::I64(_) => 7,
            Self::U64(_) => 8,
            Self::I128(_) => 9,
            Self::U128(_) => 10,
            Self::I256(_) => 11,
            Self::U256(_) => 12,
            Self::F32(_) => 13,
            Self::F64(_) => 14,
            Self::String(_) => 15,
            Self::Bytes(_) => 16,
            Self::Array(_) => 17,
            Self::Product(_) => 18,
            Self::Sum { .. } => 19,
        }
    }
}

impl Ord for AlgebraicValue {
    fn cmp(&self, other: &Self) -> Ordering {
        use AlgebraicValue::*;
        match (self, other) {
            (Bool(a), Bool(b)) => a.cmp(b),
            (I8(a), I8(b)) => a.cmp(b),
            (U8(a), U8(b)) => a.cmp(b),
            (I16(a), I16(b)) => a.cmp(b),
            (U16(a), U16(b)) => a.cmp(b),
            (I32(a), I32(b)) => a.cmp(b),
            (U32(a), U32(b)) => a.cmp(b),
            (I64(a), I64(b)) => a.cmp(b),
            (U64(a), U64(b)) => a.cmp(b),
            (I128(a), I128(b)) => a.cmp(b),
            (U128(a), U128(b)) => a.cmp(b),
            (I256(a), I256(b)) => a.cmp(b),
            (U256(a), U256(b)) => a.cmp(b),
            (F32(a), F32(b)) => a.total_cmp(b),
            (F64(a), F64(b)) => a.total_cmp(b),
            (String(a), String(b)) => a.cmp(b),
            (Bytes(a), Bytes(b)) => a.cmp(b),
            (Array(a), Array(b)) | (Product(a), Product(b)) => a.cmp(b),
            (Sum { tag: a, value: x }, Sum { tag: b, value: y }) => a.cmp(b).then_with(|| x.cmp(y)),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for AlgebraicValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for AlgebraicValue {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for AlgebraicValue {}

impl Hash for AlgebraicValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        use AlgebraicValue::*;
        self.rank().hash(state);
        match self {
            Bool(value) => value.hash(state),
            I8(value) => value.hash(state),
            U8(value) => value.hash(state),
            I16(value) => value.hash(state),
            U16(value) => value.hash(state),
            I32(value) => value.hash(state),
            U32(value) => value.hash(state),
            I64(value) => value.hash(state),
            U64(value) => value.hash(state),
            I128(value) => value.hash(state),
            U128(value) => value.hash(state),
            I256(value) => value.hash(state),
            U256(value) => value.hash(state),
            F32(value) => value.to_bits().hash(state),
            F64(value) => value.to_bits().hash(state),
            String(value) => value.hash(state),
            Bytes(value) => value.hash(state),
            Array(values) | Product(values) => values.hash(state),
            Sum { tag, value } => {
                tag.hash(state);
                value.hash(state);
            }
        }
    }
}
