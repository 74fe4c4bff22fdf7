//! Appends values in their smallest form.

use crate::Value;

/// Collects the bytes of a value.
#[derive(Clone, Default, Debug)]
pub struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer that appends to `buffer`, so that its memory can be used again.
    pub fn append_to(buffer: Vec<u8>) -> Self {
        Self { buffer }
    }

    /// The bytes written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.buffer
    }

    /// Writes the absent value.
    #[inline]
    pub fn nil(&mut self) {
        self.buffer.push(0xc0);
    }

    /// Writes a boolean.
    #[inline]
    pub fn boolean(&mut self, value: bool) {
        self.buffer.push(if value { 0xc3 } else { 0xc2 });
    }

    /// Writes an unsigned integer of any width.
    #[inline]
    pub fn unsigned(&mut self, value: impl Into<u64>) {
        let value = value.into();
        match value {
            0..=0x7f => self.buffer.push(value as u8),
            0x80..=0xff => self.buffer.extend_from_slice(&[0xcc, value as u8]),
            0x100..=0xffff => self.marked(0xcd, (value as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.marked(0xce, (value as u32).to_be_bytes()),
            _ => self.marked(0xcf, value.to_be_bytes()),
        }
    }

    /// Writes a float; always 64 bits wide.
    #[inline]
    pub fn float(&mut self, value: f64) {
        self.marked(0xcb, value.to_be_bytes());
    }

    /// Writes a string.
    ///
    /// # Panics
    /// If it has 4 GiB or more, which no frame can carry.
    #[inline]
    pub fn string(&mut self, value: &str) {
        match value.len() {
            length @ 0..=0x1f => self.buffer.push(0xa0 | length as u8),
            length @ 0x20..=0xff => self.buffer.extend_from_slice(&[0xd9, length as u8]),
            length => self.long(length, 0xda),
        }
        self.buffer.extend_from_slice(value.as_bytes());
    }

    /// Writes a byte string.
    ///
    /// # Panics
    /// If it has 4 GiB or more, which no frame can carry.
    #[inline]
    pub fn bytes(&mut self, value: &[u8]) {
        match value.len() {
            length @ 0..=0xff => self.buffer.extend_from_slice(&[0xc4, length as u8]),
            length => self.long(length, 0xc5),
        }
        self.buffer.extend_from_slice(value);
    }

    /// Writes the head of an array; its elements follow.
    ///
    /// # Panics
    /// If it has 2^32 elements or more, which no frame can carry.
    #[inline]
    pub fn array(&mut self, length: usize) {
        match length {
            0..=0xf => self.buffer.push(0x90 | length as u8),
            _ => self.long(length, 0xdc),
        }
    }

    /// Writes the head of a map; its keys and values follow by turns.
    ///
    /// # Panics
    /// If it has 2^32 entries or more, which no frame can carry.
    #[inline]
    pub fn map(&mut self, length: usize) {
        match length {
            0..=0xf => self.buffer.push(0x80 | length as u8),
            _ => self.long(length, 0xde),
        }
    }

    /// Writes a field of a map: its name and its value.
    #[inline]
    pub fn field<T: Value>(&mut self, name: &str, value: &T) {
        self.string(name);
        value.write(self);
    }

    /// Writes a value or its absence.
    #[inline]
    pub fn optional<T>(&mut self, value: &Option<T>, write: impl FnOnce(&mut Self, &T)) {
        match value {
            Some(value) => write(self, value),
            None => self.nil(),
        }
    }

    /// Writes an array of values of one type.
    ///
    /// # Panics
    /// If it has 2^32 elements or more, which no frame can carry.
    #[inline]
    pub fn list<T>(&mut self, values: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.array(values.len());
        for value in values {
            write(self, value);
        }
    }

    fn marked<const N: usize>(&mut self, marker: u8, value: [u8; N]) {
        self.buffer.push(marker);
        self.buffer.extend_from_slice(&value);
    }

    /// A length of 16 or 32 bits; the marker of the latter is the next one.
    fn long(&mut self, length: usize, marker: u8) {
        match u16::try_from(length) {
            Ok(length) => self.marked(marker, length.to_be_bytes()),
            Err(_) => {
                let length = u32::try_from(length).expect("values are below 4 GiB, as frames are");
                self.marked(marker + 1, length.to_be_bytes());
            }
        }
    }
}
