//! BSATN, the binary encoding of algebraic values and types.
//!
//! Little-endian, no padding, no names, no self-description: bytes only mean something together
//! with a type.
//!
//! - `Bool`: one byte, 0 or 1. Integers and floats: fixed width, little-endian.
//! - `String`: `u32` length in bytes, then UTF-8. Byte arrays likewise.
//! - Arrays: `u32` count, then the elements. Products: the fields in order.
//! - Sums: one byte tag, then the payload.
//!
//! Three ways to go through bytes, from fast to convenient: [`skip_value`] validates in place and
//! allocates nothing, [`Reader`] takes primitives by hand, [`decode_value`] builds a tree.

mod error;
mod reader;
mod types;
mod value;
mod writer;

#[cfg(test)]
mod tests;

pub use error::DecodeError;
pub use reader::Reader;
pub(crate) use types::{TypeBudget, read_product_type, read_type};
pub use types::{decode_product_type, decode_type, encode_product_type, encode_type};
/// Pieces that other walks along a type share, so that all accept the same bytes.
pub(crate) mod walk {
    pub(crate) use super::value::{begin_walk, check_depth, read_element_count, read_variant, spend_node};
}

pub use value::{
    VALUE_NODES_MAX, ZERO_SIZED_ELEMENTS_MAX, decode_value, encode_value, skip_product, skip_value, validate,
    validate_product,
};
pub use writer::BsatnWrite;
