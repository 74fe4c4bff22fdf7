//! The echo service in Rust, and the fixtures that every language decodes and encodes.

pub mod corpus;
pub mod echo;
pub mod fixtures;
pub mod service;
