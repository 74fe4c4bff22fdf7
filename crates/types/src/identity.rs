//! Who and what: identities of users and databases, ids of connections, UUIDs.

use std::fmt;

use crate::hex::{self, HexError};
use crate::{AlgebraicValue, U256};

/// 256-bit identity of a user or a database.
///
/// Kept as its 32 wire bytes, which are little-endian; compared as a number; shown as 64 lower-case
/// hexadecimal digits, most significant first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity([u8; 32]);

impl Identity {
    /// The all-zero identity, which nobody has.
    pub const ZERO: Self = Self([0; 32]);

    /// Takes little-endian bytes, as on the wire.
    pub const fn from_le_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Little-endian bytes, as on the wire.
    pub const fn to_le_bytes(self) -> [u8; 32] {
        self.0
    }

    /// The wire bytes, borrowed.
    pub const fn as_le_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes big-endian bytes, the order of the text form.
    pub const fn from_be_bytes(bytes: [u8; 32]) -> Self {
        Self(reversed(bytes))
    }

    /// Big-endian bytes, the order of the text form.
    pub const fn to_be_bytes(self) -> [u8; 32] {
        reversed(self.0)
    }

    /// The identity that a token's issuer and subject stand for.
    ///
    /// The hash of `issuer|subject` is cut to 26 bytes; in front come the marker `c200` and four
    /// bytes of a checksum over marker and hash, so that a mistyped identity can be told.
    pub fn from_claims(issuer: &str, subject: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(issuer.as_bytes());
        hasher.update(b"|");
        hasher.update(subject.as_bytes());
        let claims_hash = hasher.finalize();
        let mut hash = [0; CLAIMS_HASH_LEN];
        hash.copy_from_slice(&claims_hash.as_bytes()[..CLAIMS_HASH_LEN]);
        Self::from_claims_hash(&hash)
    }

    fn from_claims_hash(hash: &[u8; CLAIMS_HASH_LEN]) -> Self {
        let checksum = blake3::Hasher::new().update(&MARKER).update(hash).finalize();
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&MARKER);
        bytes[2..6].copy_from_slice(&checksum.as_bytes()[..4]);
        bytes[6..].copy_from_slice(hash);
        Self::from_be_bytes(bytes)
    }

    /// Whether marker and checksum are those of [`Identity::from_claims`].
    pub fn has_valid_checksum(&self) -> bool {
        let mut hash = [0; CLAIMS_HASH_LEN];
        hash.copy_from_slice(&self.to_be_bytes()[6..]);
        Self::from_claims_hash(&hash) == *self
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        let mut text = String::with_capacity(64);
        hex::push_hex(&mut text, self.to_be_bytes());
        text
    }

    /// Parses 64 hexadecimal digits, with or without `0x`.
    ///
    /// # Errors
    /// Any other text.
    pub fn from_hex(text: &str) -> Result<Self, HexError> {
        hex::parse_array(text).map(Self::from_be_bytes)
    }

    /// The identity as a number.
    pub const fn to_u256(self) -> U256 {
        U256::from_le_bytes(self.0)
    }

    /// The identity with the given number.
    pub const fn from_u256(value: U256) -> Self {
        Self(value.to_le_bytes())
    }

    /// The value of type [`AlgebraicType::identity`](crate::AlgebraicType::identity).
    pub fn to_value(self) -> AlgebraicValue {
        AlgebraicValue::Product(vec![AlgebraicValue::U256(self.to_u256())])
    }
}

/// First two bytes of every identity made from claims.
const MARKER: [u8; 2] = [0xc2, 0x00];
/// Bytes of the claims' hash that an identity keeps.
const CLAIMS_HASH_LEN: usize = 26;

const fn reversed(bytes: [u8; 32]) -> [u8; 32] {
    let mut out = [0; 32];
    let mut index = 0;
    while index < 32 {
        out[index] = bytes[31 - index];
        index += 1;
    }
    out
}

impl Ord for Identity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.to_u256().cmp(&other.to_u256())
    }
}

impl PartialOrd for Identity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_hex())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.to_hex())
    }
}

impl std::str::FromStr for Identity {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        Self::from_hex(text)
    }
}

/// 128-bit id of a connection; zero stands for "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u128);

impl ConnectionId {
    /// The reserved id that stands for no connection.
    pub const ZERO: Self = Self(0);

    /// The id with the given number.
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// Whether this is the reserved id.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// `None` for the reserved id.
    pub const fn non_zero(self) -> Option<Self> {
        if self.is_zero() { None } else { Some(self) }
    }

    /// Little-endian bytes, as on the wire.
    pub const fn to_le_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// Takes little-endian bytes, as on the wire.
    pub const fn from_le_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }

    /// 32 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        format!("{:032x}", self.0)
    }

    /// Parses 32 hexadecimal digits, with or without `0x`.
    ///
    /// # Errors
    /// Any other text.
    pub fn from_hex(text: &str) -> Result<Self, HexError> {
        hex::parse_array(text).map(|bytes| Self(u128::from_be_bytes(bytes)))
    }

    /// The value of type [`AlgebraicType::connection_id`](crate::AlgebraicType::connection_id).
    pub fn to_value(self) -> AlgebraicValue {
        AlgebraicValue::Product(vec![AlgebraicValue::U128(self.0)])
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_hex())
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionId({})", self.to_hex())
    }
}

/// Universally unique id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(u128);

impl Uuid {
    /// The all-zero UUID.
    pub const NIL: Self = Self(0);

    /// The UUID with the given number.
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// A random (version 4) UUID from 16 random bytes.
    pub const fn from_random_bytes(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(u128::from_be_bytes(bytes))
    }

    /// Parses 32 hexadecimal digits, hyphens between them or not, `0x` in front or not.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str) -> Result<Self, HexError> {
        if text.len() == HYPHENATED_LEN {
            let groups: String = text.split('-').collect();
            return hex::parse_array(&groups).map(|bytes| Self(u128::from_be_bytes(bytes)));
        }
        hex::parse_array(text).map(|bytes| Self(u128::from_be_bytes(bytes)))
    }

    /// The value of type [`AlgebraicType::uuid`](crate::AlgebraicType::uuid).
    pub fn to_value(self) -> AlgebraicValue {
        AlgebraicValue::Product(vec![AlgebraicValue::U128(self.0)])
    }
}

/// Length of the form with four hyphens.
const HYPHENATED_LEN: usize = 36;

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let groups = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        f.pad(&groups.join("-"))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uuid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_make_a_marked_checksummed_identity() {
        let identity = Identity::from_claims("localhost", "0c9a2f9e-4c4c-4a6a-9d4a-1f2e3d4c5b6a");
        let text = identity.to_hex();
        assert!(text.starts_with("c200") && text.len() == 64);
        assert!(identity.has_valid_checksum());
        let claims_hash = blake3::hash(b"localhost|0c9a2f9e-4c4c-4a6a-9d4a-1f2e3d4c5b6a");
        assert_eq!(identity.to_be_bytes()[6..], claims_hash.as_bytes()[..26]);
        let checked = [&[0xc2, 0x00], &claims_hash.as_bytes()[..26]].concat();
        let checksum = blake3::hash(&checked);
        assert_eq!(identity.to_be_bytes()[2..6], checksum.as_bytes()[..4]);
        assert_ne!(identity, Identity::from_claims("localhost", "other"));
        let mut damaged = identity.to_le_bytes();
        damaged[3] ^= 1;
        assert!(!Identity::from_le_bytes(damaged).has_valid_checksum());
    }

    #[test]
    fn hex_is_big_endian() {
        let mut bytes = [0; 32];
        bytes[0] = 1;
        bytes[31] = 0xc2;
        let identity = Identity::from_le_bytes(bytes);
        let text = format!("c2{}01", "0".repeat(60));
        assert_eq!(identity.to_string(), text);
        assert_eq!(Identity::from_hex(&text), Ok(identity));
        assert_eq!(Identity::from_hex(&format!("0x{}", text.to_uppercase())), Ok(identity));
        assert_eq!(Identity::from_u256(identity.to_u256()), identity);
        assert!(Identity::ZERO < identity);
        let connection = ConnectionId::new(0xab);
        assert_eq!(connection.to_hex(), format!("{}ab", "0".repeat(30)));
        assert_eq!(ConnectionId::from_hex(&connection.to_hex()), Ok(connection));
    }

    #[test]
    fn bad_hex_is_an_error() {
        for text in ["", "c2", "0x", &"g".repeat(64), &"é".repeat(32), &"0".repeat(65)] {
            assert!(Identity::from_hex(text).is_err(), "{text}");
            assert!(ConnectionId::from_hex(text).is_err(), "{text}");
            assert!(Uuid::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn uuid_text() {
        let uuid = Uuid::new(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(uuid.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(Uuid::parse(&uuid.to_string()), Ok(uuid));
        assert_eq!(Uuid::parse("0x0123456789abcdef0123456789abcdef"), Ok(uuid));
        let random = Uuid::from_random_bytes([0xff; 16]).to_string();
        assert_eq!(random, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
