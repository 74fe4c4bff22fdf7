//! Schemas of local services: one file describes a service, and this crate makes code of it.
//!
//! A schema names a service's commands and the fields of their requests and responses. From it come, for
//! Rust, TypeScript, C++, Zig and Python, the types with their encoding, a client, and (for all but
//! Python) a server's dispatcher. Messages travel over `tine-ipc`; this crate knows nothing of that and
//! holds no state: it is functions from text to text.
//!
//! # The format
//!
//! JSON with `//` and `/* */` comments. Comments next to a member become documentation.
//!
//! ```text
//! {
//!   "service": "Echo",                                // prefix of generated types
//!   "aliases": { "Hash": "bin32", "TreeId": "u32" },  // of bin32: a type of its own; else a synonym
//!   "types": { "Point": { "x": "f64", "y": "f64" } }, // shared structures
//!   "error": { "message": "string" },
//!   "commands": {
//!     "Move":  { "request": { "points": "Point[]", "by": "Point?" }, "response": { "moved": "u32" } },
//!     "Watch": { "request": {}, "response": { "at": "Point" }, "stream": true },
//!     "Again": { "request": {}, "response": "MoveResponse" }
//!   }
//! }
//! ```
//!
//! Types are `bool u8 u16 u32 u64 f64 string bytes bin32`, aliases and shared structures, with any of
//! the suffixes `?` (may be absent), `[]` (list), `[N]` (exactly N), of which the last is the outermost.
//! `"stream": true` answers with any number of responses and an end.
//!
//! # On the wire
//!
//! MessagePack. A request is `[[name, {field: value}]]` with the name `<service><Command>`, a response
//! `[name, {field: value}]` with the name `<service><Command>Response` or `<service>ErrorResponse`.
//! Everything is written in its smallest form, so a value has the same bytes in every language. Readers
//! take fields in any order, ignore unknown ones, and refuse missing and repeated ones.
//!
//! # Invariants
//!
//! 1. A schema that was accepted generates code that compiles, in every language.
//! 2. The hash of a schema is that of what its messages look like, not of its text.
//! 3. Input is bounded before it is worked on; no schema makes this crate panic or run away.

mod canonical;
mod diff;
mod error;
mod generate;
mod json;
mod names;
mod parse;
mod schema;

pub use diff::{Change, diff};
pub use error::{Position, Problem, SchemaError};
pub use generate::{Language, generate};
pub use parse::{DEFINITIONS_MAX, FIELDS_MAX, FIXED_LENGTH_MAX, NAME_LENGTH_MAX, SCHEMA_BYTES_MAX, SUFFIXES_MAX};
pub use schema::{Alias, Command, Field, Primitive, Response, Schema, Structure, Type};
