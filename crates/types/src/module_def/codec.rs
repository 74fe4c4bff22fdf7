//! The codec of records: one trait, and macros that derive it from a list of fields.

use serde_json::{Value, json};

use crate::bsatn::{
    BsatnWrite, DecodeError, Reader, TypeBudget, encode_product_type, encode_type, read_product_type, read_type,
};
use crate::json::{
    JsonError, expect_array, expect_text, mismatch, product_type_from_json, product_type_to_json, single_entry,
    type_from_json, type_to_json,
};
use crate::{AlgebraicType, ProductType, TypeRef};

/// Items to allocate for before the first is seen to be there.
const PREALLOCATED_ITEMS_MAX: usize = 64;

/// A module definition being read.
pub(super) struct Decoder<'a> {
    pub(super) reader: Reader<'a>,
    /// Shared by all types of the definition.
    pub(super) types: TypeBudget,
}

/// A part of a module definition.
pub(super) trait Part: Sized {
    /// Fewest bytes the encoding has; at least 1.
    const SIZE_MIN: usize;

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError>;
    fn write(&self, out: &mut Vec<u8>);
    fn to_json(&self) -> Value;
    /// Reads what [`Part::to_json`] wrote.
    fn from_json(value: &Value) -> Result<Self, JsonError>;
}

macro_rules! primitive_parts {
    ($($ty:ident $size:literal $read:ident $write:ident)*) => {$(
        impl Part for $ty {
            const SIZE_MIN: usize = $size;

            fn read(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                decoder.reader.$read()
            }

            fn write(&self, out: &mut Vec<u8>) {
                out.$write(*self);
            }

            fn to_json(&self) -> Value {
                json!(self)
            }

            fn from_json(value: &Value) -> Result<Self, JsonError> {
                // Through text, which has all digits of a number too.
                let text = value.to_string();
                text.parse().map_err(|_| mismatch(stringify!($ty), value))
            }
        }
    )*};
}

primitive_parts! {
    bool 1 bool put_bool
    u16 2 u16 put_u16
    u32 4 u32 put_u32
    i128 16 i128 put_i128
}

impl Part for TypeRef {
    const SIZE_MIN: usize = 4;

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decoder.reader.u32().map(TypeRef)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_u32(self.0);
    }

    fn to_json(&self) -> Value {
        json!(self.0)
    }

    fn from_json(value: &Value) -> Result<Self, JsonError> {
        u32::from_json(value).map(TypeRef)
    }
}

impl Part for Box<str> {
    const SIZE_MIN: usize = 4;

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decoder.reader.str().map(Into::into)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_str(self);
    }

    fn to_json(&self) -> Value {
        json!(**self)
    }

    fn from_json(value: &Value) -> Result<Self, JsonError> {
        expect_text(value).map(Into::into)
    }
}

/// A byte array, shown in hexadecimal.
impl Part for Box<[u8]> {
    const SIZE_MIN: usize = 4;

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decoder.reader.bytes().map(Into::into)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_bytes(self);
    }

    fn to_json(&self) -> Value {
        let mut text = String::with_capacity(2 * self.len());
        crate::hex::push_hex(&mut text, self.iter().copied());
        json!(text)
    }

    fn from_json(value: &Value) -> Result<Self, JsonError> {
        let bytes = crate::hex::parse_vec(expect_text(value)?);
        bytes.map(Into::into).map_err(|_| mismatch("hexadecimal digits", value))
    }
}

impl Part for AlgebraicType {
    const SIZE_MIN: usize = 1;

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        read_type(&mut decoder.reader, &mut decoder.types, 0)
    }

    fn write(&self, out: &mut Vec<u8>) {
        encode_type(self, out);
    }

    fn to_json(&self) -> Value {
        type_to_json(self)
    }

    fn from_json(value: &Value) -> Result<Self, JsonError> {
        type_from_json(value)
    }
}

impl Part for ProductType {
    const SIZE_MIN: usize = 4;

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        read_product_type(&mut decoder.reader, &mut decoder.types, 0)
    }

    fn write(&self, out: &mut Vec<u8>) {
        encode_product_type(self, out);
    }

    fn to_json(&self) -> Value {
        product_type_to_json(self)
    }

    fn from_json(value: &Value) -> Result<Self, JsonError> {
        product_type_from_json(value)
    }
}

impl<T: Part> Part for Option<T> {
    const SIZE_MIN: usize = 1;

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        if decoder.reader.option()? { T::read(decoder).map(Some) } else { Ok(None) }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(part) => {
                out.put_u8(0);
                part.write(out);
            }
            None => out.put_u8(1),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Some(part) => json!({ "some": part.to_json() }),
            None => json!({ "none": [] }),
        }
    }

    fn from_json(value: &Value) -> Result<Self, JsonError> {
        match single_entry(value)? {
            ("some", value) => T::from_json(value).map(Some),
            ("none", _) => Ok(None),
            _ => Err(mismatch("an option", value)),
        }
    }
}

impl<T: Part> Part for Vec<T> {
    const SIZE_MIN: usize = 4;

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let count = decoder.reader.array_len(T::SIZE_MIN)?;
        let mut parts = Vec::with_capacity(count.min(PREALLOCATED_ITEMS_MAX));
        for _ in 0..count {
            parts.push(T::read(decoder)?);
        }
        Ok(parts)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_len(self.len());
        self.iter().for_each(|part| part.write(out));
    }

    fn to_json(&self) -> Value {
        self.iter().map(Part::to_json).collect()
    }

    fn from_json(value: &Value) -> Result<Self, JsonError> {
        expect_array(value)?.iter().map(T::from_json).collect()
    }
}

/// Declares a product: fields in encoding order, under their JSON names.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $ty,)*
        }

        impl Part for $name {
            const SIZE_MIN: usize = 0 $(+ <$ty as Part>::SIZE_MIN)*;

            fn read(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                Ok(Self { $($field: Part::read(decoder)?,)* })
            }

            fn write(&self, out: &mut Vec<u8>) {
                $(self.$field.write(out);)*
            }

            fn to_json(&self) -> Value {
                Value::Object(Map::from_iter([
                    $((stringify!($field).to_owned(), self.$field.to_json()),)*
                ]))
            }

            fn from_json(value: &Value) -> Result<Self, JsonError> {
                Ok(Self { $($field: Part::from_json(field(value, stringify!($field))?)?,)* })
            }
        }
    };
}

/// Declares a sum: variants in tag order, under their JSON names.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident $(($ty:ty))? = $tag:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum $name {
            $($(#[$variant_doc])* $variant $(($ty))?,)*
        }

        impl Part for $name {
            const SIZE_MIN: usize = 1;

            fn read(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                let variants = [$($tag,)*].len();
                Ok(match decoder.reader.tag(variants)? {
                    $($tag => Self::$variant $((<$ty as Part>::read(decoder)?))?,)*
                    _ => unreachable!("tags are dense"),
                })
            }

            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(choice!(@pattern $variant part $($ty)?) => {
                        out.put_u8($tag);
                        choice!(@write part out $($ty)?);
                    })*
                }
            }

            fn to_json(&self) -> Value {
                match self {
                    $(choice!(@pattern $variant part $($ty)?) => {
                        json!({ stringify!($variant): choice!(@json part $($ty)?) })
                    })*
                }
            }

            fn from_json(value: &Value) -> Result<Self, JsonError> {
                let (variant, payload) = single_entry(value)?;
                match variant {
                    $(stringify!($variant) => Ok(choice!(@from_json $variant payload $($ty)?)),)*
                    _ => Err(JsonErrorKind::UnknownVariant(variant.to_owned()).into()),
                }
            }
        }
    };
    (@pattern $variant:ident $part:ident $ty:ty) => { Self::$variant($part) };
    (@pattern $variant:ident $part:ident) => { Self::$variant };
    (@write $part:ident $out:ident $ty:ty) => { $part.write($out) };
    (@write $part:ident $out:ident) => {};
    (@json $part:ident $ty:ty) => { $part.to_json() };
    (@json $part:ident) => { json!([]) };
    (@from_json $variant:ident $payload:ident $ty:ty) => { Self::$variant(Part::from_json($payload)?) };
    (@from_json $variant:ident $payload:ident) => {{
        let _ = $payload;
        Self::$variant
    }};
}

pub(super) use {choice, record};
