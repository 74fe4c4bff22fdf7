//! The vocabulary of Tine's data: algebraic types and values, their two encodings (BSATN and
//! SATS-JSON), identities and times, module definitions and the messages of the client protocol.
//!
//! This crate is floor 0. It knows no storage, no network and no engine, holds no state and does no
//! I/O. Everything in it is either a plain value or a pure function from bytes to values and back.
//!
//! # Invariants
//!
//! 1. Decoding never panics and never trusts a length: an array length is compared with the bytes
//!    that are left before anything is allocated, and elements that take no bytes are counted
//!    against [`bsatn::ZERO_SIZED_ELEMENTS_MAX`].
//! 2. Recursion is bounded. A type is at most [`TYPE_DEPTH_MAX`] deep, so everything that walks a
//!    value along its type is too.
//! 3. [`bsatn::skip_value`] and [`bsatn::decode_value`] accept the same bytes, except that the
//!    latter builds a tree and so refuses more than [`bsatn::VALUE_NODES_MAX`] nodes.
//! 4. Numbers on the wire are little-endian; text forms of 128- and 256-bit ids are big-endian hex.

mod algebraic_type;
mod algebraic_value;
pub mod bsatn;
mod hex;
pub mod http;
mod identity;
pub mod json;
pub mod module_def;
pub mod protocol;
mod special;
#[cfg(test)]
mod strategies;
mod time;
mod typespace;
mod wide;

pub use algebraic_type::{AlgebraicType, ProductType, ProductTypeElement, SumType, SumTypeVariant, TypeRef};
pub use algebraic_value::AlgebraicValue;
pub use hex::HexError;
pub use identity::{ConnectionId, Identity, Uuid};
pub use module_def::ModuleDef;
pub use special::SpecialType;
pub use time::{ScheduleAt, TimeDuration, TimeParseError, Timestamp};
pub use typespace::{TYPE_DEPTH_MAX, TYPE_NODES_MAX, TypeError, Typespace};
pub use wide::{I256, U256, WideParseError};
