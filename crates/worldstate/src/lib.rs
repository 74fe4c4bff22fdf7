//! x
mod chain;
mod error;
mod options;
mod pending;
mod query;
mod trees;
mod types;
