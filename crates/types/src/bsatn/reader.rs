//! A cursor over BSATN bytes.

use crate::bsatn::{DecodeError, ZERO_SIZED_ELEMENTS_MAX};
use crate::{ConnectionId, I256, Identity, TimeDuration, Timestamp, U256};

/// Reads primitives one after the other. Nothing is copied; strings and byte arrays are borrowed.
///
/// After an error the position is that of the part that could not be read.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    buffer: &'a [u8],
    position: usize,
    /// Array elements without bytes that the value being walked may still have. It lives here so
    /// that all walks along a type share it; each starts with a full one.
    pub(super) empty_elements_left: u32,
}

macro_rules! primitives {
    ($($name:ident)*) => {$(
        #[doc = concat!("Reads a little-endian `", stringify!($name), "`.\n\n# Errors\nToo few bytes.")]
        #[inline]
        pub fn $name(&mut self) -> Result<$name, DecodeError> {
            self.take_array().map($name::from_le_bytes)
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A reader at the start of `buffer`.
    #[inline]
    pub const fn new(buffer: &'a [u8]) -> Self {
        Self { buffer, position: 0, empty_elements_left: ZERO_SIZED_ELEMENTS_MAX }
    }

    /// A reader at `position` of `buffer`, or at its end if that comes first.
    #[inline]
    pub fn at(buffer: &'a [u8], position: usize) -> Self {
        Self { position: position.min(buffer.len()), ..Self::new(buffer) }
    }

    /// Offset of the next byte.
    #[inline]
    pub const fn position(&self) -> usize {
        self.position
    }

    /// Number of bytes left.
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.buffer.len() - self.position
    }

    /// Whether no byte is left.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// The bytes left.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        &self.buffer[self.position..]
    }

    /// The bytes from `start` to the current position, as after skipping a value.
    ///
    /// # Panics
    /// If `start` is past the position.
    #[inline]
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.buffer[start..self.position]
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// Too few bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        match self.rest().split_at_checked(count) {
            Some((taken, _)) => {
                self.position += count;
                Ok(taken)
            }
            None => Err(self.unexpected_end(count)),
        }
    }

    #[inline]
    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.rest().first_chunk() {
            Some(chunk) => {
                self.position += N;
                Ok(*chunk)
            }
            None => Err(self.unexpected_end(N)),
        }
    }

    #[cold]
    fn unexpected_end(&self, count: usize) -> DecodeError {
        DecodeError::UnexpectedEnd { position: self.position, needed: count - self.remaining() }
    }

    primitives! { u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 }

    /// Reads a 256-bit unsigned integer.
    ///
    /// # Errors
    /// Too few bytes.
    #[inline]
    pub fn u256(&mut self) -> Result<U256, DecodeError> {
        self.take_array().map(U256::from_le_bytes)
    }

    /// Reads a 256-bit signed integer.
    ///
    /// # Errors
    /// Too few bytes.
    #[inline]
    pub fn i256(&mut self) -> Result<I256, DecodeError> {
        self.take_array().map(I256::from_le_bytes)
    }

    /// Reads a boolean.
    ///
    /// # Errors
    /// No byte, or one other than 0 and 1.
    #[inline]
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => {
                self.position -= 1;
                Err(DecodeError::InvalidBool { position: self.position, value })
            }
        }
    }

    /// Reads a tag below `variants`.
    ///
    /// # Errors
    /// No byte, or a tag out of range.
    #[inline]
    pub fn tag(&mut self, variants: usize) -> Result<u8, DecodeError> {
        let tag = self.u8()?;
        if usize::from(tag) < variants {
            return Ok(tag);
        }
        self.position -= 1;
        Err(DecodeError::InvalidTag { position: self.position, tag })
    }

    /// Reads the tag of an option: `true` when a value follows.
    ///
    /// # Errors
    /// No byte, or a tag out of range.
    #[inline]
    pub fn option(&mut self) -> Result<bool, DecodeError> {
        self.tag(2).map(|tag| tag == 0)
    }

    /// Reads a byte array.
    ///
    /// # Errors
    /// Too few bytes.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// Reads a string.
    ///
    /// # Errors
    /// Too few bytes, or bytes that are not UTF-8.
    #[inline]
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| {
            self.position -= bytes.len();
            DecodeError::InvalidUtf8 { position: self.position }
        })
    }

    /// Reads the count of an array whose elements take at least `min_element_size` bytes each. The
    /// count is safe to allocate for in units of the elements' encoded size.
    ///
    /// # Errors
    /// Too few bytes, for the count or for that many elements.
    ///
    /// # Panics
    /// If `min_element_size` is 0: such an array has no natural bound.
    #[inline]
    pub fn array_len(&mut self, min_element_size: usize) -> Result<usize, DecodeError> {
        assert!(min_element_size > 0, "elements of no size have no bound");
        let count = self.u32()?;
        if count as usize > self.remaining() / min_element_size {
            return Err(DecodeError::ArrayTooLong { position: self.position, count });
        }
        Ok(count as usize)
    }

    /// Reads an identity.
    ///
    /// # Errors
    /// Too few bytes.
    #[inline]
    pub fn identity(&mut self) -> Result<Identity, DecodeError> {
        self.take_array().map(Identity::from_le_bytes)
    }

    /// Reads a connection id.
    ///
    /// # Errors
    /// Too few bytes.
    #[inline]
    pub fn connection_id(&mut self) -> Result<ConnectionId, DecodeError> {
        self.u128().map(ConnectionId::new)
    }

    /// Reads a timestamp.
    ///
    /// # Errors
    /// Too few bytes.
    #[inline]
    pub fn timestamp(&mut self) -> Result<Timestamp, DecodeError> {
        self.i64().map(Timestamp::from_micros)
    }

    /// Reads a span of time.
    ///
    /// # Errors
    /// Too few bytes.
    #[inline]
    pub fn time_duration(&mut self) -> Result<TimeDuration, DecodeError> {
        self.i64().map(TimeDuration::from_micros)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// Bytes are left.
    #[inline]
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { position: self.position, count }),
        }
    }
}
