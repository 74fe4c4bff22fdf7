//! The protocol of the server that this one stands in for, as of its release 5.0.0: MessagePack in frames that carry
//! nothing but a length. Errors are texts, the same as there where they are right.

mod decode;
mod encode;
mod msgpack;
mod schema;

use crate::error::WorldError;
use crate::trees::TreeId;
use crate::types::{Command, Reply};

pub use decode::decode;
pub use schema::schema;

/// A decoded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The command's name without the service's prefix.
    pub name: &'static str,
    /// What to do.
    pub action: Action,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Something of the world state.
    Command(Command),
    /// That the service ends.
    Shutdown,
}

/// Encodes replies. Knows what clients are told of the disk, which the world state itself does not have.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// What each tree may take on disk, in bytes.
    pub map_bytes: [u64; TreeId::COUNT],
}

impl Encoder {
    /// The payload of the reply to the command `name`.
    pub fn reply(&self, name: &str, result: &Result<Reply, WorldError>) -> Vec<u8> {
        match result {
            Ok(reply) => encode::reply(self, name, reply),
            Err(error) => error_reply(&error.to_string()),
        }
    }
}

/// The payload of an error reply.
pub fn error_reply(message: &str) -> Vec<u8> {
    encode::error(message)
}
