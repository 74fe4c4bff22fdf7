//! The serving side: options, what a service implements, and what it is told.

pub(crate) mod connection;
pub(crate) mod exchange;
pub(crate) mod reactor;
pub(crate) mod responder;
pub(crate) mod stream;

use std::borrow::Cow;
use std::time::Duration;

use tine_base::descriptors::PeerCredentials;

use crate::error::{CloseReason, HandshakeError, ListenError};
use crate::handshake::SchemaHash;
use crate::path::Transport;
use crate::region::{RING_BYTES_MAX, RING_BYTES_MIN};
use responder::Responder;

/// Largest payload unless configured: what fits memory many times over.
pub const MESSAGE_BYTES_MAX: u32 = 64 << 20;

/// A service.
pub trait Handler: Send + Sync + 'static {
    /// Handles one request. Runs on the reactor's thread, so it must not block: answer right here if that takes microseconds, or hand
    /// the responder to whoever does the work.
    ///
    /// A panic is caught; the request then fails with TN0926.
    fn call(&self, request: Request<'_>, responder: Responder);

    /// Something happened to a connection; on the reactor's thread, so it must not block.
    fn event(&self, event: ConnectionEvent<'_>) {
        let _ = event;
    }

    /// The payload that tells a plain client of an error; `None`: the connection is closed instead.
    fn plain_error(&self, code: &str, message: &str) -> Option<Vec<u8>> {
        let _ = (code, message);
        None
    }
}

/// A connection of a reactor: never the name of two, in the life of a reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl ConnectionId {
    /// As a number, for logs and maps.
    pub fn as_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }
}

/// What a client asks.
#[derive(Debug)]
pub struct Request<'a> {
    /// The bytes of the request. Large ones are owned and may be taken without a copy.
    pub payload: Cow<'a, [u8]>,
    /// Where it came from.
    pub connection: ConnectionId,
    /// Who asks.
    pub peer: PeerCredentials,
}

/// What happens to connections.
#[derive(Debug)]
pub enum ConnectionEvent<'a> {
    /// A client is there, and its handshake is done.
    Opened {
        /// Its connection.
        connection: ConnectionId,
        /// Who it is.
        peer: PeerCredentials,
    },
    /// A client that was `Opened` is no more. Its requests that are still being worked on go nowhere.
    Closed {
        /// Its connection.
        connection: ConnectionId,
        /// Why.
        reason: &'a CloseReason,
    },
    /// A client did not get in.
    Refused {
        /// Who it was.
        peer: PeerCredentials,
        /// Why.
        error: &'a HandshakeError,
    },
}

/// Who may connect, by the user that the kernel says the client's process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerPolicy {
    /// The user this process runs as.
    SameUser,
    /// These users.
    Users(Vec<u32>),
    /// Whoever the socket's file lets in.
    Anyone,
}

impl PeerPolicy {
    pub(crate) fn admits(&self, uid: u32) -> bool {
        match self {
            // SAFETY: takes nothing and cannot fail.
            PeerPolicy::SameUser => uid == unsafe { libc::geteuid() },
            PeerPolicy::Users(users) => users.contains(&uid),
            PeerPolicy::Anyone => true,
        }
    }
}

/// How one path is served.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// No handshake, bare frames, replies in order: for clients that were made for such servers. Sockets only.
    pub plain: bool,
    /// What clients must have been made from.
    pub schema: SchemaHash,
    /// Who may connect.
    pub policy: PeerPolicy,
    /// Largest request. The largest reply is the client's to choose.
    pub message_bytes_max: u32,
    /// Requests of one client in flight; more are refused with TN0925 (plain clients: not read until there is room).
    pub requests_max: u32,
    /// Bytes of these requests together.
    pub request_bytes_max: u64,
    /// Bytes of replies that wait for one client to take them; beyond this it is too slow, and closed.
    pub reply_bytes_max: usize,
    /// Bytes of each of the two rings of a client, a power of two.
    pub ring_bytes: u32,
    /// How long a client may move no byte with a frame half sent or replies waiting, before it is closed.
    pub stall_limit: Duration,
    /// How long a client may take for its handshake.
    pub handshake_limit: Duration,
    /// Where counters start that wrap; for tests of wrapping.
    #[doc(hidden)]
    pub counters_start: u64,
}

impl ListenOptions {
    /// For clients that were generated from this schema.
    pub fn new(schema: SchemaHash) -> Self {
        ListenOptions {
            plain: false,
            schema,
            policy: PeerPolicy::SameUser,
            message_bytes_max: MESSAGE_BYTES_MAX,
            requests_max: 1024,
            request_bytes_max: 2 * u64::from(MESSAGE_BYTES_MAX),
            reply_bytes_max: 4 * MESSAGE_BYTES_MAX as usize,
            ring_bytes: 256 * 1024,
            stall_limit: Duration::from_secs(30),
            handshake_limit: Duration::from_secs(5),
            counters_start: 0,
        }
    }

    /// For clients without handshake.
    pub fn plain() -> Self {
        ListenOptions { plain: true, ..ListenOptions::new(SchemaHash::ANY) }
    }

    pub(crate) fn check(&self, transport: Transport) -> Result<(), ListenError> {
        let wrong = [
            (self.plain && transport == Transport::SharedMemory, "a plain listener serves sockets only"),
            (
                !self.ring_bytes.is_power_of_two() || !(RING_BYTES_MIN..=RING_BYTES_MAX).contains(&self.ring_bytes),
                "the size of a ring is a power of two from 4 KiB to 256 MiB",
            ),
            (self.requests_max == 0, "at least one request must be allowed in flight"),
            (
                self.request_bytes_max < u64::from(self.message_bytes_max),
                "one request of the largest size must be allowed in flight",
            ),
        ];
        match wrong.into_iter().find(|(wrong, _)| *wrong) {
            Some((_, text)) => Err(ListenError::Options(text)),
            None => Ok(()),
        }
    }
}

/// What all listeners of a reactor share.
#[derive(Clone, Debug)]
pub struct ReactorOptions {
    /// Connections at the same time; more are refused with TN0914. At most 2^20.
    pub clients_max: u32,
    /// Cores this process may use, which decides whether spinning can pay; `None`: find out.
    pub cores: Option<usize>,
}

impl Default for ReactorOptions {
    fn default() -> Self {
        ReactorOptions { clients_max: 1024, cores: None }
    }
}
