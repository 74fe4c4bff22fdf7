//! 256-bit integers: storage, comparison and text. Tine does no arithmetic on them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::hex;

/// Unsigned 256-bit integer in four 64-bit limbs, least significant first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct U256([u64; 4]);

/// Signed 256-bit integer in two's complement, in four 64-bit limbs, least significant first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct I256([u64; 4]);

/// Text that is no 256-bit integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WideParseError {
    /// Empty, or something other than digits.
    #[error("not an integer")]
    Syntax,
    /// An integer outside the range of the type.
    #[error("integer out of range")]
    Range,
}

impl WideParseError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Syntax => "TN0122",
            Self::Range => "TN0123",
        }
    }
}

/// The largest power of ten in a limb, and its exponent.
const DECIMAL_CHUNK: u64 = 10_000_000_000_000_000_000;
const DECIMAL_CHUNK_DIGITS: usize = 19;

const fn limbs_from_le_bytes(bytes: [u8; 32]) -> [u64; 4] {
    let mut limbs = [0; 4];
    let mut index = 0;
    while index < 32 {
        limbs[index / 8] |= (bytes[index] as u64) << (8 * (index % 8));
        index += 1;
    }
    limbs
}

const fn limbs_to_le_bytes(limbs: [u64; 4]) -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut index = 0;
    while index < 32 {
        bytes[index] = (limbs[index / 8] >> (8 * (index % 8))) as u8;
        index += 1;
    }
    bytes
}

/// Multiplies by `factor` and adds `addend`; `None` on overflow.
fn multiply_add(limbs: [u64; 4], factor: u64, addend: u64) -> Option<[u64; 4]> {
    let mut carry = u128::from(addend);
    let mut out = [0; 4];
    for (limb, out) in limbs.into_iter().zip(&mut out) {
        let wide = u128::from(limb) * u128::from(factor) + carry;
        *out = wide as u64;
        carry = wide >> 64;
    }
    (carry == 0).then_some(out)
}

/// Divides by `divisor`; returns quotient and remainder.
fn divide(limbs: [u64; 4], divisor: u64) -> ([u64; 4], u64) {
    let mut remainder = 0u128;
    let mut out = [0; 4];
    for index in (0..4).rev() {
        let wide = remainder << 64 | u128::from(limbs[index]);
        out[index] = (wide / u128::from(divisor)) as u64;
        remainder = wide % u128::from(divisor);
    }
    (out, remainder as u64)
}

fn negate(limbs: [u64; 4]) -> [u64; 4] {
    let mut carry = true;
    limbs.map(|limb| {
        let (sum, overflow) = (!limb).overflowing_add(u64::from(carry));
        carry = overflow;
        sum
    })
}

impl U256 {
    /// Zero.
    pub const ZERO: Self = Self([0; 4]);
    /// The largest value.
    pub const MAX: Self = Self([u64::MAX; 4]);

    /// From limbs, least significant first.
    pub const fn from_limbs(limbs: [u64; 4]) -> Self {
        Self(limbs)
    }

    /// The limbs, least significant first.
    pub const fn limbs(self) -> [u64; 4] {
        self.0
    }

    /// From the wire form.
    pub const fn from_le_bytes(bytes: [u8; 32]) -> Self {
        Self(limbs_from_le_bytes(bytes))
    }

    /// The wire form.
    pub const fn to_le_bytes(self) -> [u8; 32] {
        limbs_to_le_bytes(self.0)
    }

    /// Big-endian bytes.
    pub const fn to_be_bytes(self) -> [u8; 32] {
        let Self([a, b, c, d]) = self;
        limbs_to_le_bytes([d.swap_bytes(), c.swap_bytes(), b.swap_bytes(), a.swap_bytes()])
    }

    /// The value, if it fits 128 bits.
    pub const fn to_u128(self) -> Option<u128> {
        let Self([a, b, c, d]) = self;
        if c == 0 && d == 0 { Some((b as u128) << 64 | a as u128) } else { None }
    }

    /// `0x` and 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        let mut text = String::with_capacity(66);
        text.push_str("0x");
        hex::push_hex(&mut text, self.to_be_bytes());
        text
    }

    /// Parses 1 to 64 hexadecimal digits, with or without `0x`.
    ///
    /// # Errors
    /// Other text, and more than 64 digits.
    pub fn from_hex(text: &str) -> Result<Self, WideParseError> {
        let digits = hex::strip_prefix(text).as_bytes();
        if digits.is_empty() {
            return Err(WideParseError::Syntax);
        }
        if digits.len() > 64 {
            return Err(WideParseError::Range);
        }
        let mut limbs = [0; 4];
        for (position, &byte) in digits.iter().rev().enumerate() {
            let value = hex::digit(byte).ok_or(WideParseError::Syntax)?;
            limbs[position / 16] |= u64::from(value) << (4 * (position % 16));
        }
        Ok(Self(limbs))
    }
}

impl I256 {
    /// Zero.
    pub const ZERO: Self = Self([0; 4]);
    /// The smallest value.
    pub const MIN: Self = Self([0, 0, 0, 1 << 63]);
    /// The largest value.
    pub const MAX: Self = Self([u64::MAX, u64::MAX, u64::MAX, u64::MAX >> 1]);

    /// From two's-complement limbs, least significant first.
    pub const fn from_limbs(limbs: [u64; 4]) -> Self {
        Self(limbs)
    }

    /// The two's-complement limbs, least significant first.
    pub const fn limbs(self) -> [u64; 4] {
        self.0
    }

    /// From the wire form.
    pub const fn from_le_bytes(bytes: [u8; 32]) -> Self {
        Self(limbs_from_le_bytes(bytes))
    }

    /// The wire form.
    pub const fn to_le_bytes(self) -> [u8; 32] {
        limbs_to_le_bytes(self.0)
    }

    /// Whether the value is below zero.
    pub const fn is_negative(self) -> bool {
        self.0[3] >> 63 == 1
    }

    /// The distance from zero.
    pub fn unsigned_abs(self) -> U256 {
        U256(if self.is_negative() { negate(self.0) } else { self.0 })
    }

    /// The value with the given sign and distance from zero, if there is one.
    fn from_sign_and_magnitude(negative: bool, magnitude: U256) -> Result<Self, WideParseError> {
        if !negative {
            let value = Self(magnitude.0);
            return if value.is_negative() { Err(WideParseError::Range) } else { Ok(value) };
        }
        let value = Self(negate(magnitude.0));
        let in_range = magnitude == U256::ZERO || value.is_negative();
        if in_range { Ok(value) } else { Err(WideParseError::Range) }
    }

    /// `0x` and 64 hexadecimal digits of the distance from zero, after `-` if below zero.
    pub fn to_hex(self) -> String {
        let magnitude = self.unsigned_abs().to_hex();
        if self.is_negative() { format!("-{magnitude}") } else { magnitude }
    }

    /// Parses what [`I256::to_hex`] writes; the digits may be fewer and `0x` may lack.
    ///
    /// # Errors
    /// Other text, and values out of range.
    pub fn from_hex(text: &str) -> Result<Self, WideParseError> {
        let (negative, digits) = split_sign(text);
        Self::from_sign_and_magnitude(negative, U256::from_hex(digits)?)
    }
}

fn split_sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    }
}

impl FromStr for U256 {
    type Err = WideParseError;

    /// Parses decimal digits.
    fn from_str(text: &str) -> Result<Self, WideParseError> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(WideParseError::Syntax);
        }
        text.bytes()
            .try_fold([0; 4], |limbs, byte| multiply_add(limbs, 10, u64::from(byte - b'0')))
            .map(Self)
            .ok_or(WideParseError::Range)
    }
}

impl FromStr for I256 {
    type Err = WideParseError;

    /// Parses decimal digits, after `-` if below zero.
    fn from_str(text: &str) -> Result<Self, WideParseError> {
        let (negative, digits) = split_sign(text);
        Self::from_sign_and_magnitude(negative, digits.parse()?)
    }
}

impl Ord for U256 {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

impl PartialOrd for U256 {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for I256 {
    fn cmp(&self, other: &Self) -> Ordering {
        // Flipping the sign bit maps two's complement onto the unsigned order.
        let flipped = |Self([a, b, c, d]): Self| U256([a, b, c, d ^ 1 << 63]);
        flipped(*self).cmp(&flipped(*other))
    }
}

impl PartialOrd for I256 {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<u128> for U256 {
    fn from(value: u128) -> Self {
        Self([value as u64, (value >> 64) as u64, 0, 0])
    }
}

impl From<u64> for U256 {
    fn from(value: u64) -> Self {
        Self([value, 0, 0, 0])
    }
}

impl From<i128> for I256 {
    fn from(value: i128) -> Self {
        let sign = if value < 0 { u64::MAX } else { 0 };
        Self([value as u64, (value >> 64) as u64, sign, sign])
    }
}

impl fmt::Display for U256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad_integral(true, "", &decimal(self.0))
    }
}

impl fmt::Display for I256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad_integral(!self.is_negative(), "", &decimal(self.unsigned_abs().0))
    }
}

fn decimal(mut limbs: [u64; 4]) -> String {
    let mut chunks = Vec::with_capacity(5);
    while limbs != [0; 4] {
        let (quotient, remainder) = divide(limbs, DECIMAL_CHUNK);
        chunks.push(remainder);
        limbs = quotient;
    }
    let mut text = chunks.pop().unwrap_or(0).to_string();
    for chunk in chunks.into_iter().rev() {
        text.push_str(&format!("{chunk:0width$}", width = DECIMAL_CHUNK_DIGITS));
    }
    text
}

impl fmt::Debug for U256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for I256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const U256_MAX: &str = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    const I256_MIN: &str = "-57896044618658097711785492504343953926634992332820282019728792003956564819968";

    #[test]
    fn limits_as_text() {
        assert_eq!(U256::MAX.to_string(), U256_MAX);
        assert_eq!(I256::MIN.to_string(), I256_MIN);
        assert_eq!(U256_MAX.parse(), Ok(U256::MAX));
        assert_eq!(I256_MIN.parse(), Ok(I256::MIN));
        assert_eq!(I256::from(-1).to_string(), "-1");
        assert_eq!(I256::from_hex("-0x1"), Ok(I256::from(-1)));
        assert_eq!(U256::ZERO.to_string(), "0");
        assert_eq!("-0".parse(), Ok(I256::ZERO));
    }

    #[test]
    fn bad_text() {
        let over = format!("{U256_MAX}0");
        for (text, error) in [
            ("", WideParseError::Syntax),
            ("-", WideParseError::Syntax),
            ("--1", WideParseError::Syntax),
            ("1_0", WideParseError::Syntax),
            (&over, WideParseError::Range),
            (U256_MAX, WideParseError::Range),
        ] {
            assert_eq!(text.parse::<I256>(), Err(error), "{text}");
        }
        assert_eq!("-1".parse::<U256>(), Err(WideParseError::Syntax));
        assert_eq!(U256::from_hex(&"f".repeat(65)), Err(WideParseError::Range));
        assert_eq!(U256::from_hex("0x"), Err(WideParseError::Syntax));
    }

    proptest! {
        #[test]
        fn text_and_bytes_round_trip(limbs: [u64; 4]) {
            let unsigned = U256::from_limbs(limbs);
            prop_assert_eq!(unsigned.to_string().parse(), Ok(unsigned));
            prop_assert_eq!(U256::from_hex(&unsigned.to_hex()), Ok(unsigned));
            prop_assert_eq!(U256::from_le_bytes(unsigned.to_le_bytes()), unsigned);
            let mut reversed = unsigned.to_be_bytes();
            reversed.reverse();
            prop_assert_eq!(reversed, unsigned.to_le_bytes());
            let signed = I256::from_limbs(limbs);
            prop_assert_eq!(signed.to_string().parse(), Ok(signed));
            prop_assert_eq!(I256::from_hex(&signed.to_hex()), Ok(signed));
        }

        #[test]
        fn agrees_with_128_bits(a: i128, b: i128) {
            prop_assert_eq!(I256::from(a).cmp(&I256::from(b)), a.cmp(&b));
            prop_assert_eq!(I256::from(a).to_string(), a.to_string());
            let (a, b) = (a as u128, b as u128);
            prop_assert_eq!(U256::from(a).cmp(&U256::from(b)), a.cmp(&b));
            prop_assert_eq!(U256::from(a).to_u128(), Some(a));
            prop_assert_eq!(U256::from(a).to_string(), a.to_string());
        }
    }
}
