//! The messages of the client protocol (v2; v3 lays them end to end), both directions, both ways.
//!
//! The server decodes client messages and encodes its own; clients, tools and tests do the reverse.
//! Decoding slices the received buffer and copies no payload. Encoding a table's changes happens
//! once: a [`TableUpdate`] is shared between the clients that get it and keeps its encoding.
//!
//! Compression tags and WebSocket framing are the transport's business.

mod client;
mod error;
mod rows;
mod server;
mod server_decode;
mod slices;
mod update;

#[cfg(test)]
mod tests;

pub use client::{ClientMessage, SUBSCRIBE_QUERIES_MAX, decode_client_message, encode_client_message};
pub use error::ProtocolError;
pub use rows::{RowList, RowListBuilder, RowSizeHint};
pub use server::{ProcedureStatus, QueryRows, ReducerOutcome, ServerMessage, TableRows, encode_server_message};
pub use server_decode::decode_server_message;
pub use update::{QuerySetUpdate, TableUpdate, TableUpdateRows, TransactionUpdate};
