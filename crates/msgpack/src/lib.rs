//! The MessagePack of Tine's local services: what generated code is made of.
//!
//! Not a general codec. It writes exactly one form of every value (the smallest), so that the bytes of
//! a message are a function of its value in every language, and it reads into types that are known
//! beforehand. There is no dynamic value, no reflection and no `serde`: generated code calls one method
//! per field.
//!
//! # Invariants
//!
//! 1. [`Writer`] picks the smallest form that fits: integers, strings, byte strings, arrays and maps.
//! 2. [`Reader`] never panics and never trusts a length: a count is compared with the bytes that are
//!    left, and what elements will take in memory is charged against [`Reader::MEMORY_PER_BYTE`],
//!    before anything is allocated.
//! 3. Nothing recurses along data. Types cannot contain themselves, so decoding is as deep as the
//!    schema; values that are skipped are walked with a counter.
//! 4. A map names each field once. A field said twice could be read differently by two readers.

mod error;
mod message;
mod reader;
mod value;
mod writer;

pub use error::DecodeError;
pub use message::{decode_message, encode_request, encode_response, read_request, read_response};
pub use reader::Reader;
pub use value::{Octet, Value};
pub use writer::Writer;
