//! Algebraic types: what a column, a parameter or a return value may be.
//!
//! A type is a tree. The only way out of the tree is [`AlgebraicType::Ref`], an index into a
//! [`Typespace`](crate::Typespace); everything that walks values wants *inlined* types, in which no
//! `Ref` is left, and reports [`DecodeError::UnresolvedRef`](crate::bsatn::DecodeError) otherwise.

/// Index of a type in a [`Typespace`](crate::Typespace).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TypeRef(pub u32);

impl TypeRef {
    /// Makes a reference to entry `index`.
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The index.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The type of a value. Variant order is the wire order of the type's own encoding.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)] // The primitive variants say what they are.
pub enum AlgebraicType {
    /// A type of the typespace, by index.
    Ref(TypeRef),
    /// One of several variants, told apart by a one-byte tag.
    Sum(SumType),
    /// Fields in order.
    Product(ProductType),
    /// Any number of elements of one type.
    Array(Box<AlgebraicType>),
    String,
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
}

/// The fields of a product.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ProductType {
    /// Fields in encoding order.
    pub elements: Box<[ProductTypeElement]>,
}

/// One field of a product.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProductTypeElement {
    /// Field name; tuples have none.
    pub name: Option<Box<str>>,
    /// Field type.
    pub ty: AlgebraicType,
}

/// The variants of a sum. At most 256 are reachable, since the tag is one byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SumType {
    /// Variants in tag order.
    pub variants: Box<[SumTypeVariant]>,
}

/// One variant of a sum.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SumTypeVariant {
    /// Variant name.
    pub name: Option<Box<str>>,
    /// Payload type; the empty product when there is no payload.
    pub ty: AlgebraicType,
}

impl ProductTypeElement {
    /// A field called `name`.
    pub fn named(name: &str, ty: AlgebraicType) -> Self {
        Self { name: Some(name.into()), ty }
    }

    /// The name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl SumTypeVariant {
    /// A variant called `name`.
    pub fn named(name: &str, ty: AlgebraicType) -> Self {
        Self { name: Some(name.into()), ty }
    }

    /// The name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl ProductType {
    /// A product of the given elements.
    pub fn new(elements: impl Into<Box<[ProductTypeElement]>>) -> Self {
        Self { elements: elements.into() }
    }

    /// A product of named fields.
    pub fn named<'a>(fields: impl IntoIterator<Item = (&'a str, AlgebraicType)>) -> Self {
        Self { elements: fields.into_iter().map(|(name, ty)| ProductTypeElement::named(name, ty)).collect() }
    }

    /// The product without fields.
    pub fn unit() -> Self {
        Self::default()
    }

    /// Position of the field called `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.elements.iter().position(|element| element.name() == Some(name))
    }

    /// Encoded size in bytes, if every value of the type has the same.
    pub fn static_bsatn_size(&self) -> Option<usize> {
        self.elements.iter().try_fold(0usize, |size, element| size.checked_add(element.ty.static_bsatn_size()?))
    }

    /// Whether values take no bytes at all: every field is a product of nothing.
    pub fn is_zero_sized(&self) -> bool {
        self.elements.iter().all(|element| element.ty.is_zero_sized())
    }

    /// Whether every field has a name, and so an object form in JSON.
    pub fn is_named(&self) -> bool {
        self.elements.iter().all(|element| element.name.is_some())
    }
}

impl SumType {
    /// A sum of the given variants.
    pub fn new(variants: impl Into<Box<[SumTypeVariant]>>) -> Self {
        Self { variants: variants.into() }
    }

    /// A sum of named variants.
    pub fn named<'a>(variants: impl IntoIterator<Item = (&'a str, AlgebraicType)>) -> Self {
        Self { variants: variants.into_iter().map(|(name, ty)| SumTypeVariant::named(name, ty)).collect() }
    }

    /// Position (tag) of the variant called `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.variants.iter().position(|variant| variant.name() == Some(name))
    }

    /// Encoded size in bytes, if every variant has the same.
    pub fn static_bsatn_size(&self) -> Option<usize> {
        let (first, rest) = self.variants.split_first()?;
        let payload = first.ty.static_bsatn_size()?;
        rest.iter()
            .all(|variant| variant.ty.static_bsatn_size() == Some(payload))
            .then(|| payload.checked_add(1))
            .flatten()
    }

    /// Whether no variant has a payload.
    pub fn is_plain_enum(&self) -> bool {
        self.variants.iter().all(|variant| variant.ty.is_unit())
    }
}

impl AlgebraicType {
    /// A product of named fields.
    pub fn product<'a>(fields: impl IntoIterator<Item = (&'a str, AlgebraicType)>) -> Self {
        Self::Product(ProductType::named(fields))
    }

    /// A sum of named variants.
    pub fn sum<'a>(variants: impl IntoIterator<Item = (&'a str, AlgebraicType)>) -> Self {
        Self::Sum(SumType::named(variants))
    }

    /// A sum whose variants carry nothing.
    pub fn plain_enum<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self::sum(names.into_iter().map(|name| (name, Self::unit())))
    }

    /// An array of `element`.
    pub fn array(element: AlgebraicType) -> Self {
        Self::Array(Box::new(element))
    }

    /// A byte array.
    pub fn bytes() -> Self {
        Self::array(Self::U8)
    }

    /// The product without fields.
    pub fn unit() -> Self {
        Self::Product(ProductType::unit())
    }

    /// A reference to entry `index` of the typespace.
    pub fn reference(index: u32) -> Self {
        Self::Ref(TypeRef(index))
    }

    /// Whether this is the product without fields.
    pub fn is_unit(&self) -> bool {
        matches!(self, Self::Product(product) if product.elements.is_empty())
    }

    /// Whether this is an array of bytes.
    pub fn is_bytes(&self) -> bool {
        matches!(self, Self::Array(element) if **element == Self::U8)
    }

    /// The product, if it is one.
    pub fn as_product(&self) -> Option<&ProductType> {
        match self {
            Self::Product(product) => Some(product),
            _ => None,
        }
    }

    /// The sum, if it is one.
    pub fn as_sum(&self) -> Option<&SumType> {
        match self {
            Self::Sum(sum) => Some(sum),
            _ => None,
        }
    }

    /// Whether this is one of the fixed-width integers.
    pub fn is_integer(&self) -> bool {
        use AlgebraicType::*;
        matches!(self, I8 | U8 | I16 | U16 | I32 | U32 | I64 | U64 | I128 | U128 | I256 | U256)
    }

    /// Whether this is `F32` or `F64`.
    pub fn is_float(&self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    /// Encoded size of a number or boolean in bytes; `None` for anything else.
    pub const fn primitive_size(&self) -> Option<usize> {
        use AlgebraicType::*;
        Some(match self {
            Bool | I8 | U8 => 1,
            I16 | U16 => 2,
            I32 | U32 | F32 => 4,
            I64 | U64 | F64 => 8,
            I128 | U128 => 16,
            I256 | U256 => 32,
            Ref(_) | Sum(_) | Product(_) | Array(_) | String => return None,
        })
    }

    /// Encoded size in bytes, if every value of the type has the same. `None` for a `Ref`.
    pub fn static_bsatn_size(&self) -> Option<usize> {
        match self {
            Self::Product(product) => product.static_bsatn_size(),
            Self::Sum(sum) => sum.static_bsatn_size(),
            _ => self.primitive_size(),
        }
    }

    /// Whether values take no bytes at all.
    pub fn is_zero_sized(&self) -> bool {
        match self {
            Self::Product(product) => product.is_zero_sized(),
            _ => false,
        }
    }

    /// Name of the kind of type, for messages.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Ref(_) => "Ref",
            Self::Sum(_) => "Sum",
            Self::Product(_) => "Product",
            Self::Array(_) => "Array",
            Self::String => "String",
            Self::Bool => "Bool",
            Self::I8 => "I8",
            Self::U8 => "U8",
            Self::I16 => "I16",
            Self::U16 => "U16",
            Self::I32 => "I32",
            Self::U32 => "U32",
            Self::I64 => "I64",
            Self::U64 => "U64",
            Self::I128 => "I128",
            Self::U128 => "U128",
            Self::I256 => "I256",
            Self::U256 => "U256",
            Self::F32 => "F32",
            Self::F64 => "F64",
        }
    }
}
