//! Arguments of natives. The SDK passes them unchecked, so all checks are here: another type is a `TypeError`, a length beyond a
//! buffer a `RangeError`. Nothing is converted, because conversions can run code of the user's.

use std::ops::Range;

use super::super::errors::{self, ErrorClass};
use super::super::raw::{Borrowed, Call, Exception, JsResult, Kind};

/// One argument of a call.
pub(super) struct Argument<'a, 'js> {
    pub(super) call: &'a Call<'js>,
    pub(super) index: usize,
    /// For messages.
    pub(super) name: &'static str,
}

/// Names an argument.
#[inline]
pub(super) fn argument<'a, 'js>(call: &'a Call<'js>, index: usize, name: &'static str) -> Argument<'a, 'js> {
    Argument { call, index, name }
}

impl<'js> Argument<'_, 'js> {
    #[inline]
    fn value(&self) -> Borrowed<'js> {
        self.call.arg(self.index)
    }

    /// An integer from 0 to 2^32 - 1.
    #[inline]
    pub(super) fn u32(&self) -> JsResult<u32> {
        match self.value().kind() {
            Kind::Int(number) if number >= 0 => Ok(number as u32),
            Kind::Float(number) if number.trunc() == number && (0.0..=f64::from(u32::MAX)).contains(&number) => {
                Ok(number as u32)
            }
            _ => Err(self.refuse("an integer from 0 to 4294967295")),
        }
    }

    /// A string.
    pub(super) fn text(&self) -> JsResult<String> {
        let value = self.value();
        if value.kind() != Kind::String {
            return Err(self.refuse("a string"));
        }
        value.to_text()
    }

    /// A big integer from 0 to 2^128 - 1.
    pub(super) fn u128(&self) -> JsResult<u128> {
        let value = self.value();
        if !matches!(value.kind(), Kind::BigInt | Kind::ShortBigInt(_)) {
            return Err(self.refuse("a bigint"));
        }
        value.to_text()?.parse().map_err(|_| self.refuse("a bigint of 128 bits, not negative"))
    }

    /// Bytes of a `Uint8Array`, copied.
    pub(super) fn uint8_array(&self) -> JsResult<Vec<u8>> {
        let value = self.value();
        let is_view = value.is_object() && value.with_array_buffer(|_| ()).is_none();
        let bytes = if is_view { value.with_bytes(<[u8]>::to_vec) } else { None };
        bytes.ok_or_else(|| self.refuse("a Uint8Array"))
    }

    /// Passes the memory of a plain `ArrayBuffer` to `use_bytes`, which must not run JavaScript.
    #[inline]
    pub(super) fn buffer<T>(&self, use_bytes: impl FnOnce(&mut [u8]) -> T) -> JsResult<T> {
        self.value().with_array_buffer(use_bytes).ok_or_else(|| self.refuse("an ArrayBuffer"))
    }

    /// Like [`Argument::buffer`], with the parts of it that lie one behind the other from its start and have these lengths.
    #[inline]
    pub(super) fn parts<const N: usize, T>(
        &self,
        lengths: [u32; N],
        use_bytes: impl FnOnce(&mut [u8], [Range<usize>; N]) -> T,
    ) -> JsResult<T> {
        let mut end = 0;
        let ranges = lengths.map(|length| {
            let start = end;
            end += length as usize;
            start..end
        });
        let used = self.buffer(|bytes| {
            let size = bytes.len();
            if end <= size { Ok(use_bytes(bytes, ranges)) } else { Err(size) }
        })?;
        used.map_err(|size| {
            let message =
                format!("a length of {end} is beyond the {size} bytes of argument {} ({})", self.index + 1, self.name);
            errors::throw(self.call.cx, ErrorClass::Range, &message)
        })
    }

    #[cold]
    fn refuse(&self, wanted: &str) -> Exception {
        let message = format!("argument {} ({}) must be {wanted}", self.index + 1, self.name);
        errors::throw(self.call.cx, ErrorClass::Type, &message)
    }
}
