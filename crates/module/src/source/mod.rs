//! From a bundle of source files to plain JavaScript with known positions.
//!
//! * [`bundle`]: what is published and stored, the *program bytes*;
//! * [`resolve`]: which file an import means;
//! * [`nesting`]: refuses text that no stack could parse;
//! * [`strip`]: TypeScript to JavaScript, and what the result imports;
//! * [`positions`]: from a place in the JavaScript back to one in the source;
//! * [`map`]: source maps that bundles carry.

pub(crate) mod bundle;
mod collect;
pub(crate) mod link;
pub(crate) mod map;
mod nesting;
pub(crate) mod positions;
pub(crate) mod resolve;
pub(crate) mod strip;
