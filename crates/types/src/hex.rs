//! Hexadecimal text.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Text that is not the hexadecimal number it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HexError {
    /// Wrong number of digits.
    #[error("expected {expected} hexadecimal digits, found {found} bytes of text")]
    Length {
        /// Digits wanted.
        expected: usize,
        /// Bytes of text found.
        found: usize,
    },
    /// A byte that is no hexadecimal digit.
    #[error("byte {position} of the text is not a hexadecimal digit")]
    Digit {
        /// Offset of the byte in the text, after any `0x`.
        position: usize,
    },
}

impl HexError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Length { .. } => "TN0120",
            Self::Digit { .. } => "TN0121",
        }
    }
}

/// Appends `bytes` as lower-case digits.
pub(crate) fn push_hex(out: &mut String, bytes: impl IntoIterator<Item = u8>) {
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// `text` without a leading `0x` or `0X`.
pub(crate) fn strip_prefix(text: &str) -> &str {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text)
}

/// Value of a digit.
pub(crate) fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|value| value as u8)
}

/// Parses exactly `N` bytes, most significant first, with or without `0x`.
pub(crate) fn parse_array<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let text = strip_prefix(text).as_bytes();
    if text.len() != 2 * N {
        return Err(HexError::Length { expected: 2 * N, found: text.len() });
    }
    let mut bytes = [0; N];
    for (position, &byte) in text.iter().enumerate() {
        let value = digit(byte).ok_or(HexError::Digit { position })?;
        bytes[position / 2] = bytes[position / 2] << 4 | value;
    }
    Ok(bytes)
}

/// Parses a byte string, with or without `0x`.
pub(crate) fn parse_vec(text: &str) -> Result<Vec<u8>, HexError> {
    let text = strip_prefix(text).as_bytes();
    if !text.len().is_multiple_of(2) {
        return Err(HexError::Length { expected: text.len() + 1, found: text.len() });
    }
    let mut bytes = Vec::with_capacity(text.len() / 2);
    for (index, pair) in text.chunks_exact(2).enumerate() {
        let high = digit(pair[0]).ok_or(HexError::Digit { position: 2 * index })?;
        let low = digit(pair[1]).ok_or(HexError::Digit { position: 2 * index + 1 })?;
        bytes.push(high << 4 | low);
    }
    Ok(bytes)
}
