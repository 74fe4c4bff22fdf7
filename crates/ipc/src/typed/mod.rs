//! Typed calls over [`Client`](crate::Client) and [`Handler`](crate::Handler): what generated code rests on.
//!
//! Generated code knows the names and types of a service; everything else about calling and answering is
//! here, once. Messages are MessagePack (`tine_msgpack`): a request `[[name, fields]]`, a response
//! `[name, fields]`, where the name tells a response from the service's error.
//!
//! Two kinds of failure reach a client, and both are [`ServiceError`]s: what the service itself says, as
//! an ordinary response, and what the transport says, when there is no response.

mod client;
mod server;

use tine_msgpack::{DecodeError, Reader, Value, Writer, decode_message, encode_response};

use crate::CallError;

pub use client::{Connection, ItemStream};
pub use server::{Incoming, Responder, StreamResponder};

/// The error message of every service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorResponse {
    /// What went wrong, for people.
    pub message: String,
}

impl ErrorResponse {
    /// The message that tells a client without a handshake what the transport would have told others.
    pub fn encode_plain(name: &str, code: &str, message: &str) -> Vec<u8> {
        encode_response(name, &ErrorResponse { message: format!("{code}: {message}") })
    }
}

impl Value for ErrorResponse {
    fn write(&self, writer: &mut Writer) {
        writer.map(1);
        writer.field("message", &self.message);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut message = None;
        for _ in 0..reader.map()? {
            match reader.key()? {
                b"message" => reader.field(&mut message, "message")?,
                _ => reader.skip()?,
            }
        }
        Ok(Self { message: reader.required(message, "message")? })
    }
}

/// Why a call has no response.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The service refused, or could not do it.
    #[error("{message}")]
    Service {
        /// What it said.
        message: String,
    },
    /// The transport failed, or answered in the service's place.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The response is not what the schema says.
    #[error("the response cannot be read: {0}")]
    Decode(#[from] DecodeError),
}

impl ServiceError {
    /// Stable code of the error. What a service says has one of its own only in its text.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Service { .. } => "TN1063",
            Self::Call(error) => error.code(),
            Self::Decode(error) => error.code(),
        }
    }
}

/// Reads a response of that name, or the service's error.
fn decode_response<T: Value>(payload: &[u8], name: &str, error_name: &str) -> Result<T, ServiceError> {
    let mut reader = Reader::new(payload);
    let found = tine_msgpack::read_response(&mut reader)?;
    if found == name {
        return Ok(decode_message(&mut reader)?);
    }
    if found == error_name {
        let error: ErrorResponse = decode_message(&mut reader)?;
        return Err(ServiceError::Service { message: error.message });
    }
    Err(DecodeError::unknown_message(found).into())
}
