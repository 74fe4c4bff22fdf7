//! Typed local calls over Unix sockets and shared memory, for one machine.
//!
//! A path says how to talk: `name.sock` carries frames through the socket, `name.shm` through two rings in memory that the socket
//! hands over. One [`Reactor`] owns all sockets and rings of a server; a [`Handler`] gets each request with a [`Responder`] and
//! answers at once or later, from any thread. A [`Client`] makes blocking calls from any number of threads, or asynchronous ones.
//! Payloads are bytes; typed clients and servers are generated from schemas on top.
//!
//! Invariants:
//! - Whatever happens to one side, the other learns it: the kernel ends the socket of a process that dies, and every wait, on a socket
//!   or on a ring, also waits for that. No call hangs.
//! - Nothing is left behind by a killed process but the file of a socket, which the next server replaces.
//! - What the other side can still change is copied once, and only the copy is looked at.
//! - A client harms itself alone: bytes, requests, replies and time are bounded per connection.
//! - The reactor never waits for a handler, a client or a lock that is held for long.

mod client;
mod error;
mod frame;
mod handshake;
mod inbound;
mod link;
#[cfg(test)]
mod models;
mod outbound;
mod path;
mod queue;
mod region;
mod ring;
mod server;
mod spawn;
mod sync;
pub mod typed;

pub use client::{
    CallFuture, CallResult, Client, ClientStream, Completion, CompletionQueue, ConnectOptions, StreamItem,
};
pub use error::{
    CallError, CloseReason, ConnectError, HandshakeError, LastLines, ListenError, PathError, ReactorError, SpawnError,
    StreamError,
};
pub use frame::FrameError;
pub use handshake::SchemaHash;
pub use path::Transport;
pub use ring::RingFault;
pub use server::reactor::{Reactor, ReactorCounters, ReactorHandle, ReactorThread};
pub use server::responder::Responder;
pub use server::stream::StreamSender;
pub use server::{
    ConnectionEvent, ConnectionId, Handler, ListenOptions, MESSAGE_BYTES_MAX, PeerPolicy, ReactorOptions, Request,
};
pub use spawn::Service;
pub use tine_base::descriptors::PeerCredentials;
