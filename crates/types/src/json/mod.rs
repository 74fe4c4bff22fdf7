//! SATS-JSON: algebraic values as JSON.
//!
//! Written form: a product whose fields have names is an object, any other an array; a sum is an
//! object of one key, `{"variant": value}`, with `[]` for no payload; a byte array is a string of
//! hexadecimal digits; integers up to 128 bits are JSON numbers with all their digits, wider ones
//! strings starting `0x`. A float that is no number is the string `NaN`, `Infinity` or `-Infinity`,
//! since JSON has no other way to say it.
//!
//! SQL results use an untyped form, in which products are arrays and sums are `[tag, value]`. Rows of the protocol `v1.json` are
//! between the two.
//!
//! All forms are read, and besides: a bare string for a variant without payload, `null` for an
//! option's none, decimal or `0x` strings for integers of 64 bits and more, text forms of
//! identities, connection ids, UUIDs and timestamps in place of their products.
//!
//! Reading and writing go through BSATN, so JSON and trees cannot disagree about it. Recursion
//! follows the type, so the nesting of hostile JSON is bounded by
//! [`TYPE_DEPTH_MAX`](crate::TYPE_DEPTH_MAX).

mod access;
mod error;
mod read;
mod types;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use access::{expect_array, expect_text, field, single_entry};
pub use error::{JsonError, JsonErrorKind};
pub(crate) use read::mismatch;
pub use read::{json_to_bsatn, json_to_value, product_from_json};
pub use types::{product_type_from_json, product_type_to_json, type_from_json, type_to_json};
pub use write::{bsatn_to_json, bsatn_to_sql_json, product_to_json, product_to_sql_json, row_to_json, value_to_json};
