//! The first frame of each side.
//!
//! ```text
//! Hello    u64 magic, u16 oldest version, u16 newest version, u32 flags, 32 bytes schema hash, u32 largest payload the client takes
//! Welcome  u64 magic, u16 version, u16 zero, u32 flags, 32 bytes schema hash, u32 largest payload the server takes, u32 requests in
//!          flight, u64 bytes in flight, u32 slot, u32 generation
//! Refused  u64 magic, u16 oldest version, u16 newest version, u32 number (user, or clients), 32 bytes schema hash, then code and
//!          message as in an error frame
//! ```
//!
//! Numbers are little-endian. Flags of Hello: 1, replies in completion order; 2, shared memory. Those of Welcome are the ones in
//! force. A schema hash of zeros is "any": a side that has none matches every other. With shared memory four descriptors travel with
//! the first byte of the Welcome frame: the region, the server's bell, the client's bell for bytes, the client's bell for space.
//! Later versions only append to these layouts; who knows less ignores the rest.

use crate::error::HandshakeError;
use crate::frame::{decode_error, encode_error};

const MAGIC: u64 = u64::from_le_bytes(*b"TINE-IPC");
/// Oldest version spoken here.
pub(crate) const VERSION_FROM: u16 = 1;
/// Newest version spoken here.
pub(crate) const VERSION_TO: u16 = 1;
/// Payload of a handshake frame at most: no more is read from somebody unknown.
pub(crate) const HANDSHAKE_BYTES_MAX: u32 = 4096;
/// Descriptors that travel with a Welcome for shared memory.
pub(crate) const DESCRIPTORS: usize = 4;

const FLAG_COMPLETION_ORDER: u32 = 1;
const FLAG_SHARED_MEMORY: u32 = 2;

/// SHA-256 of a schema, or zeros for "any".
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SchemaHash(pub [u8; 32]);

impl SchemaHash {
    /// Matches every other.
    pub const ANY: SchemaHash = SchemaHash([0; 32]);

    fn matches(self, other: SchemaHash) -> bool {
        self == other || self == SchemaHash::ANY || other == SchemaHash::ANY
    }
}

impl std::fmt::Display for SchemaHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Enough to tell schemas apart in a message.
        self.0[..8].iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl std::fmt::Debug for SchemaHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, formatter)
    }
}

/// What a client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub completion_order: bool,
    pub shared_memory: bool,
    pub schema: SchemaHash,
    pub payload_bytes_max: u32,
}

/// What the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub completion_order: bool,
    pub shared_memory: bool,
    pub schema: SchemaHash,
    pub payload_bytes_max: u32,
    pub requests_max: u32,
    pub request_bytes_max: u64,
    pub slot: u32,
    pub generation: u32,
}

/// Takes fields off the front of a payload.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], HandshakeError> {
        let (field, rest) =
            self.0.split_first_chunk::<N>().ok_or_else(|| not_this("a handshake frame is too short"))?;
        self.0 = rest;
        Ok(*field)
    }

    fn u16(&mut self) -> Result<u16, HandshakeError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, HandshakeError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, HandshakeError> {
        self.take().map(u64::from_le_bytes)
    }

    fn magic(&mut self) -> Result<(), HandshakeError> {
        if self.u64()? == MAGIC { Ok(()) } else { Err(not_this("its first frame is not a handshake")) }
    }
}

fn not_this(text: &str) -> HandshakeError {
    HandshakeError::NotThisProtocol(text.to_owned())
}

fn flags(completion_order: bool, shared_memory: bool) -> u32 {
    (u32::from(completion_order) * FLAG_COMPLETION_ORDER) | (u32::from(shared_memory) * FLAG_SHARED_MEMORY)
}

impl Hello {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&VERSION_FROM.to_le_bytes());
        bytes.extend_from_slice(&VERSION_TO.to_le_bytes());
        bytes.extend_from_slice(&flags(self.completion_order, self.shared_memory).to_le_bytes());
        bytes.extend_from_slice(&self.schema.0);
        bytes.extend_from_slice(&self.payload_bytes_max.to_le_bytes());
        bytes
    }

    /// The server's side: reads a Hello, and checks that the two can work together.
    pub fn accept(payload: &[u8], schema: SchemaHash, shared_memory: bool) -> Result<Hello, HandshakeError> {
        let mut fields = Fields(payload);
        fields.magic()?;
        let (client_from, client_to) = (fields.u16()?, fields.u16()?);
        if client_from > VERSION_TO || client_to < VERSION_FROM {
            return Err(HandshakeError::Version {
                client_from,
                client_to,
                server_from: VERSION_FROM,
                server_to: VERSION_TO,
            });
        }
        let flags = fields.u32()?;
        let hello = Hello {
            completion_order: flags & FLAG_COMPLETION_ORDER != 0,
            shared_memory: flags & FLAG_SHARED_MEMORY != 0,
            schema: SchemaHash(fields.take()?),
            payload_bytes_max: fields.u32()?,
        };
        if !schema.matches(hello.schema) {
            return Err(HandshakeError::Schema { client: hello.schema, server: schema });
        }
        if hello.shared_memory != shared_memory {
            let serves = if shared_memory { "shared memory" } else { "a socket" };
            return Err(HandshakeError::NotThisProtocol(format!("this path is served through {serves}")));
        }
        Ok(hello)
    }
}

impl Welcome {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(80);
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&VERSION_TO.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&flags(self.completion_order, self.shared_memory).to_le_bytes());
        bytes.extend_from_slice(&self.schema.0);
        bytes.extend_from_slice(&self.payload_bytes_max.to_le_bytes());
        bytes.extend_from_slice(&self.requests_max.to_le_bytes());
        bytes.extend_from_slice(&self.request_bytes_max.to_le_bytes());
        bytes.extend_from_slice(&self.slot.to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes
    }

    /// The client's side: reads a Welcome and checks it against what was asked for.
    pub fn accept(payload: &[u8], hello: &Hello) -> Result<Welcome, HandshakeError> {
        let mut fields = Fields(payload);
        fields.magic()?;
        let version = fields.u16()?;
        if !(VERSION_FROM..=VERSION_TO).contains(&version) {
            return Err(HandshakeError::Version {
                client_from: VERSION_FROM,
                client_to: VERSION_TO,
                server_from: version,
                server_to: version,
            });
        }
        fields.u16()?;
        let flags = fields.u32()?;
        let welcome = Welcome {
            completion_order: flags & FLAG_COMPLETION_ORDER != 0,
            shared_memory: flags & FLAG_SHARED_MEMORY != 0,
            schema: SchemaHash(fields.take()?),
            payload_bytes_max: fields.u32()?,
            requests_max: fields.u32()?,
            request_bytes_max: fields.u64()?,
            slot: fields.u32()?,
            generation: fields.u32()?,
        };
        if !hello.schema.matches(welcome.schema) {
            return Err(HandshakeError::Schema { client: hello.schema, server: welcome.schema });
        }
        if hello.shared_memory != welcome.shared_memory {
            return Err(not_this("the server welcomes to another transport than was asked for"));
        }
        Ok(welcome)
    }
}

/// Payload of a Refused frame.
pub(crate) fn encode_refusal(error: &HandshakeError, schema: SchemaHash) -> Vec<u8> {
    let number = match *error {
        HandshakeError::User { uid } => uid,
        HandshakeError::Full { clients_max } => clients_max,
        _ => 0,
    };
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    bytes.extend_from_slice(&VERSION_FROM.to_le_bytes());
    bytes.extend_from_slice(&VERSION_TO.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&schema.0);
    bytes.extend_from_slice(&encode_error(error.code(), &error.to_string()));
    bytes
}

/// What a Refused frame says, as seen by the client.
pub(crate) fn decode_refusal(payload: &[u8], hello: &Hello) -> HandshakeError {
    let read = || -> Result<HandshakeError, HandshakeError> {
        let mut fields = Fields(payload);
        fields.magic()?;
        let (server_from, server_to, number) = (fields.u16()?, fields.u16()?, fields.u32()?);
        let server = SchemaHash(fields.take()?);
        let (code, message) = decode_error(fields.0);
        Ok(match code.as_str() {
            "TN0910" => HandshakeError::NotThisProtocol(message),
            "TN0911" => {
                HandshakeError::Version { client_from: VERSION_FROM, client_to: VERSION_TO, server_from, server_to }
            }
            "TN0912" => HandshakeError::Schema { client: hello.schema, server },
            "TN0913" => HandshakeError::User { uid: number },
            "TN0914" => HandshakeError::Full { clients_max: number },
            _ => HandshakeError::Other { code, message },
        })
    };
    read().unwrap_or_else(|error| error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SCHEMA: SchemaHash = SchemaHash([7; 32]);
    const OTHER: SchemaHash = SchemaHash([8; 32]);

    fn hello(schema: SchemaHash) -> Hello {
        Hello { completion_order: true, shared_memory: false, schema, payload_bytes_max: 99 }
    }

    #[test]
    fn both_sides_say_the_same() {
        for (client, server, fits) in [
            (SCHEMA, SCHEMA, true),
            (SCHEMA, OTHER, false),
            (SchemaHash::ANY, OTHER, true),
            (SCHEMA, SchemaHash::ANY, true),
        ] {
            let hello = hello(client);
            match Hello::accept(&hello.encode(), server, false) {
                Ok(got) => assert!(fits && got == hello),
                Err(error) => {
                    assert!(!fits);
                    assert_eq!(decode_refusal(&encode_refusal(&error, server), &hello), error);
                }
            }
        }
        for error in [
            HandshakeError::User { uid: 12 },
            HandshakeError::Full { clients_max: 3 },
            HandshakeError::NotThisProtocol("x".into()),
        ] {
            let seen = decode_refusal(&encode_refusal(&error, SCHEMA), &hello(SCHEMA));
            assert_eq!(seen.code(), error.code());
        }
        assert_eq!(Hello::accept(&hello(SCHEMA).encode(), SCHEMA, true).expect_err("not a socket").code(), "TN0910");
        let mut newer = hello(SCHEMA).encode();
        newer[8..12].copy_from_slice(&[9, 0, 10, 0]);
        let error = Hello::accept(&newer, SCHEMA, false).expect_err("too new");
        assert_eq!(error.code(), "TN0911");
        assert_eq!(decode_refusal(&encode_refusal(&error, SCHEMA), &hello(SCHEMA)).code(), "TN0911");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_handshake_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..120), magic in any::<bool>()) {
            let mut bytes = bytes;
            if magic && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
            }
            let _ = Hello::accept(&bytes, SCHEMA, false);
            let _ = Welcome::accept(&bytes, &hello(SCHEMA));
            decode_refusal(&bytes, &hello(SCHEMA));
        }
    }
}
