//! Which Rust type is written how.

use crate::{DecodeError, Reader, Writer};

/// A type with one encoding: what fields of messages are.
///
/// `bool`, `u8` to `u64`, `f64` and `String` are what they seem; `Vec<u8>` and `[u8; N]` are byte
/// strings; `Option<T>` is a value or nil; `Vec<T>` and `[T; N]` of anything else are arrays, of
/// [`Octet`] for arrays of small integers; structures are generated, and maps.
pub trait Value: Sized {
    /// Appends the value.
    fn write(&self, writer: &mut Writer);

    /// Reads a value.
    ///
    /// # Errors
    /// Data that is no such value.
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The value of a field that is not there, if the field may be missing.
    fn absent() -> Option<Self> {
        None
    }

    /// Appends several values as one. This and the next two exist for `u8`, of which several are a byte
    /// string.
    fn write_list(values: &[Self], writer: &mut Writer) {
        writer.list(values, |writer, value| value.write(writer));
    }

    /// Reads several values.
    ///
    /// # Errors
    /// Data that is no list of such values.
    fn read_list(reader: &mut Reader<'_>) -> Result<Vec<Self>, DecodeError> {
        reader.list(Self::read)
    }

    /// Reads exactly so many values.
    ///
    /// # Errors
    /// Data that is no list of so many such values.
    fn read_fixed_list<const N: usize>(reader: &mut Reader<'_>) -> Result<[Self; N], DecodeError> {
        reader.fixed_list(Self::read)
    }
}

/// A `u8` as element of an array, since several plain ones are a byte string.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Octet(pub u8);

impl Value for Octet {
    #[inline]
    fn write(&self, writer: &mut Writer) {
        writer.unsigned(self.0);
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u8().map(Octet)
    }
}

impl Value for u8 {
    #[inline]
    fn write(&self, writer: &mut Writer) {
        writer.unsigned(*self);
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u8()
    }

    #[inline]
    fn write_list(values: &[Self], writer: &mut Writer) {
        writer.bytes(values);
    }

    #[inline]
    fn read_list(reader: &mut Reader<'_>) -> Result<Vec<Self>, DecodeError> {
        reader.bytes()
    }

    #[inline]
    fn read_fixed_list<const N: usize>(reader: &mut Reader<'_>) -> Result<[Self; N], DecodeError> {
        reader.fixed_bytes()
    }
}

macro_rules! numbers {
    ($($ty:ident: $write:ident, $read:ident;)*) => {$(
        impl Value for $ty {
            #[inline]
            fn write(&self, writer: &mut Writer) {
                writer.$write(*self);
            }

            #[inline]
            fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.$read()
            }
        }
    )*};
}

numbers! {
    bool: boolean, boolean;
    u16: unsigned, u16;
    u32: unsigned, u32;
    u64: unsigned, u64;
    f64: float, float;
}

impl Value for String {
    #[inline]
    fn write(&self, writer: &mut Writer) {
        writer.string(self);
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.string()
    }
}

impl<T: Value> Value for Option<T> {
    #[inline]
    fn write(&self, writer: &mut Writer) {
        writer.optional(self, |writer, value| value.write(writer));
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.optional(T::read)
    }

    #[inline]
    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Value> Value for Vec<T> {
    #[inline]
    fn write(&self, writer: &mut Writer) {
        T::write_list(self, writer);
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        T::read_list(reader)
    }
}

impl<T: Value, const N: usize> Value for [T; N] {
    #[inline]
    fn write(&self, writer: &mut Writer) {
        T::write_list(self, writer);
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        T::read_fixed_list(reader)
    }
}
