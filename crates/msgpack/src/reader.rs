//! A cursor over MessagePack bytes.

use crate::{DecodeError, Value};

/// Reads values one after the other. Nothing is copied before it is asked for as an owned value.
///
/// Reading goes on only after success; after an error the position has no meaning.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    buffer: &'a [u8],
    position: usize,
    /// Bytes that array elements may still take in memory.
    memory_left: usize,
}

impl<'a> Reader<'a> {
    /// How many bytes of memory array elements may take per byte of data. An element of a structure
    /// whose fields are all absent is one byte of data but may be hundreds in memory, so a count that
    /// the data could hold is not a bound by itself. Honest data stays below 20.
    pub const MEMORY_PER_BYTE: usize = 64;

    /// What array elements may take in memory whatever the data's size, so that short data with large,
    /// mostly empty elements is accepted.
    pub const MEMORY_FREE_BYTES: usize = 64 << 10;

    /// A reader at the start of `buffer`.
    #[inline]
    pub fn new(buffer: &'a [u8]) -> Self {
        let memory_left = buffer.len().saturating_mul(Self::MEMORY_PER_BYTE).saturating_add(Self::MEMORY_FREE_BYTES);
        Self { buffer, position: 0, memory_left }
    }

    /// Offset of the next byte.
    #[inline]
    pub const fn position(&self) -> usize {
        self.position
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`].
    #[inline]
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.buffer.len() - self.position {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { position: self.position, count }),
        }
    }

    /// Reads a boolean.
    ///
    /// # Errors
    /// Another kind of value, or none.
    #[inline]
    pub fn boolean(&mut self) -> Result<bool, DecodeError> {
        match self.marker()? {
            0xc2 => Ok(false),
            0xc3 => Ok(true),
            found => Err(self.wrong("a boolean", found)),
        }
    }

    /// Reads an integer of any width that fits a `u8`.
    ///
    /// # Errors
    /// Another kind of value, none, or one out of range.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.below(u8::MAX.into()).map(|value| value as u8)
    }

    /// Reads an integer of any width that fits a `u16`.
    ///
    /// # Errors
    /// Another kind of value, none, or one out of range.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.below(u16::MAX.into()).map(|value| value as u16)
    }

    /// Reads an integer of any width that fits a `u32`.
    ///
    /// # Errors
    /// Another kind of value, none, or one out of range.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.below(u32::MAX.into()).map(|value| value as u32)
    }

    /// Reads an integer of any width that fits a `u64`.
    ///
    /// # Errors
    /// Another kind of value, none, or one out of range.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.below(u64::MAX)
    }

    #[inline]
    fn below(&mut self, max: u64) -> Result<u64, DecodeError> {
        let position = self.position;
        let value = match self.marker()? {
            marker @ 0..=0x7f => u64::from(marker),
            0xcc => u64::from(self.take_array::<1>()?[0]),
            0xcd => u64::from(u16::from_be_bytes(self.take_array()?)),
            0xce => u64::from(u32::from_be_bytes(self.take_array()?)),
            0xcf => u64::from_be_bytes(self.take_array()?),
            marker => return self.signed(position, marker, max),
        };
        if value > max {
            return Err(DecodeError::OutOfRange { position, value: value.into(), max });
        }
        Ok(value)
    }

    /// Integers of signed forms: other encoders use them for small values.
    #[cold]
    fn signed(&mut self, position: usize, marker: u8, max: u64) -> Result<u64, DecodeError> {
        let value = match marker {
            0xe0..=0xff => i64::from(marker as i8),
            0xd0 => i64::from(i8::from_be_bytes(self.take_array()?)),
            0xd1 => i64::from(i16::from_be_bytes(self.take_array()?)),
            0xd2 => i64::from(i32::from_be_bytes(self.take_array()?)),
            0xd3 => i64::from_be_bytes(self.take_array()?),
            found => return Err(DecodeError::WrongType { position, expected: "an integer", found }),
        };
        match u64::try_from(value) {
            Ok(value) if value <= max => Ok(value),
            _ => Err(DecodeError::OutOfRange { position, value: value.into(), max }),
        }
    }

    /// Reads a float. Narrow floats and integers are taken too: encoders of languages without an
    /// integer type write whole numbers so.
    ///
    /// # Errors
    /// Another kind of value, or none.
    #[inline]
    pub fn float(&mut self) -> Result<f64, DecodeError> {
        match self.marker()? {
            0xcb => Ok(f64::from_be_bytes(self.take_array()?)),
            0xca => Ok(f64::from(f32::from_be_bytes(self.take_array()?))),
            marker @ 0..=0x7f => Ok(f64::from(marker)),
            0xcc => Ok(f64::from(self.take_array::<1>()?[0])),
            0xcd => Ok(f64::from(u16::from_be_bytes(self.take_array()?))),
            0xce => Ok(f64::from(u32::from_be_bytes(self.take_array()?))),
            0xcf => Ok(u64::from_be_bytes(self.take_array()?) as f64),
            marker @ 0xe0..=0xff => Ok(f64::from(marker as i8)),
            0xd0 => Ok(f64::from(i8::from_be_bytes(self.take_array()?))),
            0xd1 => Ok(f64::from(i16::from_be_bytes(self.take_array()?))),
            0xd2 => Ok(f64::from(i32::from_be_bytes(self.take_array()?))),
            0xd3 => Ok(i64::from_be_bytes(self.take_array()?) as f64),
            found => Err(self.wrong("a number", found)),
        }
    }

    /// Reads a string without copying it.
    ///
    /// # Errors
    /// Another kind of value, none, or text that is not UTF-8.
    #[inline]
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        let text = self.key()?;
        let position = self.position - text.len();
        std::str::from_utf8(text).map_err(|_| DecodeError::InvalidUtf8 { position })
    }

    /// Reads a string.
    ///
    /// # Errors
    /// Another kind of value, none, or text that is not UTF-8.
    #[inline]
    pub fn string(&mut self) -> Result<String, DecodeError> {
        self.str().map(str::to_owned)
    }

    /// Reads a string's bytes: enough to compare a map's key with the names of fields.
    ///
    /// # Errors
    /// Another kind of value, or none.
    #[inline]
    pub fn key(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = match self.marker()? {
            marker @ 0xa0..=0xbf => usize::from(marker & 0x1f),
            0xd9 => usize::from(self.take_array::<1>()?[0]),
            0xda => usize::from(u16::from_be_bytes(self.take_array()?)),
            0xdb => u32::from_be_bytes(self.take_array()?) as usize,
            found => return Err(self.wrong("a string", found)),
        };
        self.take(length)
    }

    /// Reads a byte string without copying it.
    ///
    /// # Errors
    /// Another kind of value, or none.
    #[inline]
    pub fn byte_slice(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = match self.marker()? {
            0xc4 => usize::from(self.take_array::<1>()?[0]),
            0xc5 => usize::from(u16::from_be_bytes(self.take_array()?)),
            0xc6 => u32::from_be_bytes(self.take_array()?) as usize,
            found => return Err(self.wrong("a byte string", found)),
        };
        self.take(length)
    }

    /// Reads a byte string.
    ///
    /// # Errors
    /// Another kind of value, or none.
    #[inline]
    pub fn bytes(&mut self) -> Result<Vec<u8>, DecodeError> {
        self.byte_slice().map(<[u8]>::to_vec)
    }

    /// Reads a byte string of exactly `N` bytes.
    ///
    /// # Errors
    /// Another kind of value, none, or one of another length.
    #[inline]
    pub fn fixed_bytes<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.byte_slice()?;
        bytes.try_into().map_err(|_| DecodeError::WrongLength {
            position: self.position - bytes.len(),
            expected: N,
            found: bytes.len(),
        })
    }

    /// Reads the head of an array: its length, of which the data is long enough to hold that many.
    ///
    /// # Errors
    /// Another kind of value, none, or a length that the data cannot hold.
    #[inline]
    pub fn array(&mut self) -> Result<usize, DecodeError> {
        let count = match self.marker()? {
            marker @ 0x90..=0x9f => usize::from(marker & 0xf),
            0xdc => usize::from(u16::from_be_bytes(self.take_array()?)),
            0xdd => u32::from_be_bytes(self.take_array()?) as usize,
            found => return Err(self.wrong("an array", found)),
        };
        self.bounded(count, count)
    }

    /// Reads the head of a map: how many keys and values follow.
    ///
    /// # Errors
    /// Another kind of value, none, or a length that the data cannot hold.
    #[inline]
    pub fn map(&mut self) -> Result<usize, DecodeError> {
        let count = match self.marker()? {
            marker @ 0x80..=0x8f => usize::from(marker & 0xf),
            0xde => usize::from(u16::from_be_bytes(self.take_array()?)),
            0xdf => u32::from_be_bytes(self.take_array()?) as usize,
            found => return Err(self.wrong("a map", found)),
        };
        self.bounded(count, count.saturating_mul(2))
    }

    /// `count` if the data can still hold `values` values of at least one byte each.
    #[inline]
    fn bounded(&self, count: usize, values: usize) -> Result<usize, DecodeError> {
        if values > self.buffer.len() - self.position {
            return Err(DecodeError::TooManyElements { position: self.position, count });
        }
        Ok(count)
    }

    /// Reads a value or its absence.
    ///
    /// # Errors
    /// Those of `read`.
    #[inline]
    pub fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.buffer.get(self.position) == Some(&0xc0) {
            self.position += 1;
            return Ok(None);
        }
        read(self).map(Some)
    }

    /// Reads an array of values of one type.
    ///
    /// # Errors
    /// Those of [`Self::array`] and of `read`, and elements that would take too much memory.
    #[inline]
    pub fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.array()?;
        self.charge(count, size_of::<T>())?;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(read(self)?);
        }
        Ok(values)
    }

    /// Reads an array of exactly `N` values of one type.
    ///
    /// # Errors
    /// Those of [`Self::list`], and another length.
    #[inline]
    pub fn fixed_list<T, const N: usize>(
        &mut self,
        read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<[T; N], DecodeError> {
        let head = self.clone().array()?;
        if head != N {
            return Err(DecodeError::WrongLength { position: self.position, expected: N, found: head });
        }
        let values = self.list(read)?;
        Ok(values.try_into().unwrap_or_else(|_| unreachable!("the length was compared")))
    }

    /// Counts what elements take in memory against what the data's size allows.
    #[inline]
    fn charge(&mut self, count: usize, element_bytes: usize) -> Result<(), DecodeError> {
        let left = self.memory_left.checked_sub(count.saturating_mul(element_bytes));
        self.memory_left = left.ok_or(DecodeError::TooMuchMemory { position: self.position })?;
        Ok(())
    }

    /// Reads the value of a field into its place.
    ///
    /// # Errors
    /// Data that is no such value, and a field that is there twice.
    #[inline]
    pub fn field<T: Value>(&mut self, place: &mut Option<T>, field: &'static str) -> Result<(), DecodeError> {
        if place.is_some() {
            return Err(DecodeError::DuplicateField { position: self.position, field });
        }
        *place = Some(T::read(self)?);
        Ok(())
    }

    /// The value of a field, or what stands for it when it was not there.
    ///
    /// # Errors
    /// [`DecodeError::MissingField`].
    #[inline]
    pub fn required<T: Value>(&self, place: Option<T>, field: &'static str) -> Result<T, DecodeError> {
        place.or_else(T::absent).ok_or(DecodeError::MissingField { position: self.position, field })
    }

    /// Passes over one value of any kind, however deeply it nests.
    ///
    /// # Errors
    /// Data that ends before the value does, and the one marker that stands for nothing.
    pub fn skip(&mut self) -> Result<(), DecodeError> {
        // Each turn takes at least one byte, so the data bounds the loop whatever lengths it claims.
        let mut values_left: u64 = 1;
        while values_left > 0 {
            values_left -= 1;
            let position = self.position;
            let length = match self.marker()? {
                0..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => 0,
                marker @ 0x80..=0x8f => {
                    values_left += u64::from(marker & 0xf) * 2;
                    0
                }
                marker @ 0x90..=0x9f => {
                    values_left += u64::from(marker & 0xf);
                    0
                }
                marker @ 0xa0..=0xbf => usize::from(marker & 0x1f),
                0xc4 | 0xd9 => usize::from(self.take_array::<1>()?[0]),
                0xc5 | 0xda => usize::from(u16::from_be_bytes(self.take_array()?)),
                0xc6 | 0xdb => u32::from_be_bytes(self.take_array()?) as usize,
                // Extension values have one more byte, their type.
                0xc7 => usize::from(self.take_array::<1>()?[0]) + 1,
                0xc8 => usize::from(u16::from_be_bytes(self.take_array()?)) + 1,
                0xc9 => (u32::from_be_bytes(self.take_array()?) as usize).saturating_add(1),
                0xcc | 0xd0 => 1,
                0xcd | 0xd1 | 0xd4 => 2,
                0xd5 => 3,
                0xca | 0xce | 0xd2 => 4,
                0xd6 => 5,
                0xcb | 0xcf | 0xd3 => 8,
                0xd7 => 9,
                0xd8 => 17,
                0xdc => {
                    values_left += u64::from(u16::from_be_bytes(self.take_array()?));
                    0
                }
                0xdd => {
                    values_left += u64::from(u32::from_be_bytes(self.take_array()?));
                    0
                }
                0xde => {
                    values_left += u64::from(u16::from_be_bytes(self.take_array()?)) * 2;
                    0
                }
                0xdf => {
                    values_left += u64::from(u32::from_be_bytes(self.take_array()?)) * 2;
                    0
                }
                found @ 0xc1 => return Err(DecodeError::WrongType { position, expected: "a value", found }),
            };
            self.take(length)?;
        }
        Ok(())
    }

    #[inline]
    fn marker(&mut self) -> Result<u8, DecodeError> {
        let marker = self.buffer.get(self.position).ok_or(DecodeError::UnexpectedEnd { position: self.position })?;
        self.position += 1;
        Ok(*marker)
    }

    #[inline]
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.buffer[self.position..];
        let taken = rest.get(..count).ok_or(DecodeError::UnexpectedEnd { position: self.buffer.len() })?;
        self.position += count;
        Ok(taken)
    }

    #[inline]
    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = &self.buffer[self.position..];
        let chunk = rest.first_chunk().ok_or(DecodeError::UnexpectedEnd { position: self.buffer.len() })?;
        self.position += N;
        Ok(*chunk)
    }

    #[cold]
    fn wrong(&self, expected: &'static str, found: u8) -> DecodeError {
        DecodeError::WrongType { position: self.position - 1, expected, found }
    }
}
