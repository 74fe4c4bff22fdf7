//! Reading a shared buffer: primitives by value, payloads as slices of the buffer.

use bytes::Bytes;

use crate::bsatn::{DecodeError, Reader};

/// A reader that can hand out owned slices of what it reads.
pub(super) struct SliceReader<'a> {
    buffer: &'a Bytes,
    pub(super) reader: Reader<'a>,
}

impl<'a> SliceReader<'a> {
    pub(super) fn at(buffer: &'a Bytes, position: usize) -> Self {
        Self { buffer, reader: Reader::at(buffer, position) }
    }

    /// Reads a byte array as a slice that keeps the buffer alive.
    pub(super) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.reader.bytes()?.len();
        if length == 0 {
            return Ok(Bytes::new());
        }
        let end = self.reader.position();
        Ok(self.buffer.slice(end - length..end))
    }
}
