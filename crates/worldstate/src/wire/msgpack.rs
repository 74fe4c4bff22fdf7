//! MessagePack: a borrowed tree of values, and a writer.

use std::fmt;

/// Arrays and maps may be nested this deep. The protocol needs seven levels.
const DEPTH_MAX: usize = 32;

/// A decoded value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(&'a [u8]),
    Binary(&'a [u8]),
    Extension(&'a [u8]),
    Array(Vec<Value<'a>>),
    Map(Vec<(Value<'a>, Value<'a>)>),
}

/// The bytes are no MessagePack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unparsable;

/// Decodes the value at the front of `bytes`; what follows it is ignored.
pub(super) fn parse(bytes: &[u8]) -> Result<Value<'_>, Unparsable> {
    Parser { rest: bytes }.value(0)
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Unparsable> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Unparsable)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A big-endian number of `width` bytes.
    fn number(&mut self, width: usize) -> Result<u64, Unparsable> {
        Ok(self.take(width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn length(&mut self, width: usize) -> Result<usize, Unparsable> {
        usize::try_from(self.number(width)?).map_err(|_| Unparsable)
    }

    fn signed(&mut self, width: usize) -> Result<Value<'a>, Unparsable> {
        let shift = 64 - 8 * width;
        let number = (self.number(width)? << shift) as i64 >> shift;
        Ok(u64::try_from(number).map_or(Value::Negative(number), Value::Unsigned))
    }

    fn text(&mut self, length: usize) -> Result<Value<'a>, Unparsable> {
        self.take(length).map(Value::Text)
    }

    fn array(&mut self, length: usize, depth: usize) -> Result<Value<'a>, Unparsable> {
        // Each element takes a byte at least, so no length makes this reserve more than was sent.
        if depth >= DEPTH_MAX || length > self.rest.len() {
            return Err(Unparsable);
        }
        (0..length).map(|_| self.value(depth + 1)).collect::<Result<_, _>>().map(Value::Array)
    }

    fn map(&mut self, length: usize, depth: usize) -> Result<Value<'a>, Unparsable> {
        if depth >= DEPTH_MAX || length > self.rest.len() / 2 {
            return Err(Unparsable);
        }
        let pairs = (0..length).map(|_| Ok((self.value(depth + 1)?, self.value(depth + 1)?)));
        pairs.collect::<Result<_, _>>().map(Value::Map)
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, Unparsable> {
        let kind = self.number(1)? as u8;
        Ok(match kind {
            0x00..=0x7f => Value::Unsigned(u64::from(kind)),
            0x80..=0x8f => self.map(usize::from(kind & 15), depth)?,
            0x90..=0x9f => self.array(usize::from(kind & 15), depth)?,
            0xa0..=0xbf => self.text(usize::from(kind & 31))?,
            0xc0 => Value::Nil,
            0xc1 => return Err(Unparsable),
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xc4..=0xc6 => {
                let length = self.length(1 << (kind - 0xc4))?;
                Value::Binary(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(1 << (kind - 0xc7))?;
                self.take(1)?;
                Value::Extension(self.take(length)?)
            }
            0xca => Value::Float(f64::from(f32::from_bits(self.number(4)? as u32))),
            0xcb => Value::Float(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => Value::Unsigned(self.number(1 << (kind - 0xcc))?),
            0xd0..=0xd3 => self.signed(1 << (kind - 0xd0))?,
            0xd4..=0xd8 => {
                self.take(1)?;
                Value::Extension(self.take(1 << (kind - 0xd4))?)
            }
            0xd9..=0xdb => {
                let length = self.length(1 << (kind - 0xd9))?;
                self.text(length)?
            }
            0xdc..=0xdd => {
                let length = self.length(2 << (kind - 0xdc))?;
                self.array(length, depth)?
            }
            0xde..=0xdf => {
                let length = self.length(2 << (kind - 0xde))?;
                self.map(length, depth)?
            }
            0xe0..=0xff => Value::Negative(i64::from(kind as i8)),
        })
    }
}

/// As messages quote values.
impl fmt::Display for Value<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Nil => formatter.write_str("null"),
            Value::Bool(value) => write!(formatter, "{value}"),
            Value::Unsigned(value) => write!(formatter, "{value}"),
            Value::Negative(value) => write!(formatter, "{value}"),
            Value::Float(value) => write!(formatter, "{value}"),
            Value::Text(bytes) | Value::Binary(bytes) => write!(formatter, "{:?}", String::from_utf8_lossy(bytes)),
            Value::Extension(_) => formatter.write_str("EXT"),
            Value::Array(values) => {
                formatter.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    write!(formatter, "{}{value}", if index == 0 { "" } else { "," })?;
                }
                formatter.write_str("]")
            }
            Value::Map(pairs) => {
                formatter.write_str("{")?;
                for (index, (key, value)) in pairs.iter().enumerate() {
                    write!(formatter, "{}{key}:{value}", if index == 0 { "" } else { "," })?;
                }
                formatter.write_str("}")
            }
        }
    }
}

/// Writes values in their smallest form.
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    fn sized(&mut self, small: Option<(u8, usize)>, wide: [Option<u8>; 3], length: usize) {
        if let Some((kind, most)) = small
            && length <= most
        {
            return self.0.push(kind | length as u8);
        }
        if let (Some(kind), Ok(length)) = (wide[0], u8::try_from(length)) {
            self.0.extend([kind, length]);
        } else if let (Some(kind), Ok(length)) = (wide[1], u16::try_from(length)) {
            self.0.push(kind);
            self.0.extend_from_slice(&length.to_be_bytes());
        } else {
            self.0.push(wide[2].expect("every kind has the widest form"));
            self.0.extend_from_slice(&u32::try_from(length).expect("replies are below 4 GiB").to_be_bytes());
        }
    }

    pub(super) fn map(&mut self, length: usize) {
        self.sized(Some((0x80, 15)), [None, Some(0xde), Some(0xdf)], length);
    }

    pub(super) fn array(&mut self, length: usize) {
        self.sized(Some((0x90, 15)), [None, Some(0xdc), Some(0xdd)], length);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.sized(Some((0xa0, 31)), [Some(0xd9), Some(0xda), Some(0xdb)], text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(super) fn binary(&mut self, bytes: &[u8]) {
        self.sized(None, [Some(0xc4), Some(0xc5), Some(0xc6)], bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn nil(&mut self) {
        self.0.push(0xc0);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.0.push(0xc2 | u8::from(value));
    }

    pub(super) fn unsigned(&mut self, value: u64) {
        match value {
            0..=0x7f => self.0.push(value as u8),
            0x80..=0xff => self.0.extend([0xcc, value as u8]),
            0x100..=0xffff => {
                self.0.push(0xcd);
                self.0.extend_from_slice(&(value as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.0.push(0xce);
                self.0.extend_from_slice(&(value as u32).to_be_bytes());
            }
            _ => {
                self.0.push(0xcf);
                self.0.extend_from_slice(&value.to_be_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_width() {
        let cases: [(&[u8], Value<'_>); 16] = [
            (&[0x7f], Value::Unsigned(127)),
            (&[0xcc, 0x80], Value::Unsigned(128)),
            (&[0xcd, 1, 0], Value::Unsigned(256)),
            (&[0xce, 0, 1, 0, 0], Value::Unsigned(65_536)),
            (&[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Value::Unsigned(u64::MAX)),
            (&[0xff], Value::Negative(-1)),
            (&[0xd0, 0x80], Value::Negative(-128)),
            (&[0xd1, 0, 5], Value::Unsigned(5)),
            (&[0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], Value::Negative(-2)),
            (&[0xa1, b'x'], Value::Text(b"x")),
            (&[0xda, 0, 1, b'x'], Value::Text(b"x")),
            (&[0xc5, 0, 1, 7], Value::Binary(&[7])),
            (&[0xd4, 1, 2], Value::Extension(&[2])),
            (&[0x91, 0xc0], Value::Array(vec![Value::Nil])),
            (&[0xde, 0, 1, 0xc2, 0xc3], Value::Map(vec![(Value::Bool(false), Value::Bool(true))])),
            (&[0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0], Value::Float(1.0)),
        ];
        for (bytes, value) in cases {
            assert_eq!(parse(bytes), Ok(value), "{bytes:x?}");
        }
    }

    #[test]
    fn hostile_bytes_are_refused_without_a_large_reservation() {
        let deep = vec![0x91; 100];
        let cases: [&[u8]; 8] = [
            &[],
            &[0xc1],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
            &[0xdf, 0xff, 0xff, 0xff, 0xff, 0, 0],
            &[0xc6, 0xff, 0xff, 0xff, 0xff],
            &[0xdb, 0, 0, 0, 9, b'x'],
            &[0x92, 0xc0],
            &deep,
        ];
        for bytes in cases {
            assert_eq!(parse(bytes), Err(Unparsable), "{bytes:x?}");
        }
    }

    #[test]
    fn written_values_are_read_back() {
        for value in [0, 127, 128, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            let mut writer = Writer(Vec::new());
            writer.unsigned(value);
            assert_eq!(parse(&writer.0), Ok(Value::Unsigned(value)));
        }
        for length in [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536] {
            let bytes = vec![b'x'; length];
            let text = String::from_utf8(bytes.clone()).unwrap();
            let mut writer = Writer(Vec::new());
            writer.array(2);
            writer.text(&text);
            writer.binary(&bytes);
            assert_eq!(parse(&writer.0), Ok(Value::Array(vec![Value::Text(&bytes), Value::Binary(&bytes)])));
            let mut writer = Writer(Vec::new());
            writer.array(length);
            writer.0.extend(std::iter::repeat_n(0xc0, length));
            assert_eq!(parse(&writer.0), Ok(Value::Array(vec![Value::Nil; length])));
        }
    }
}
