//! The echo service in Rust, and the fixtures that every language decodes and encodes.

pub mod corpus;
pub mod echo;
pub mod fixtures;
pub mod service;

/// The example of the page of `tine-idl`, which is run as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../crates/idl/README.md")]
pub struct Readme;
