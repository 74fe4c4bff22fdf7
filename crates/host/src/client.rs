//! The seam between the host and whoever holds a client's connection.

use std::sync::Arc;

use bytes::Bytes;
use tine_query::Modified;
use tine_store::{DurableTicket, Lsn};
use tine_types::protocol::ServerMessage;
use tine_types::{AlgebraicType, ConnectionId, Identity, ProductType};

use crate::CallFailure;
use crate::worker::Head;

/// Who asks for an administrative action.
#[derive(Clone, Copy, Debug)]
pub struct Actor {
    /// The identity of the caller's token.
    pub identity: Identity,
    /// Whether the caller showed the server's admin token.
    pub is_admin: bool,
}

/// A client that connects.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// Identity of the client's token.
    pub identity: Identity,
    /// Never all-zero.
    pub connection_id: ConnectionId,
    /// Sent back in `InitialConnection`.
    pub token: Arc<str>,
    /// JSON text of the token's payload.
    pub jwt_payload: Option<Arc<str>>,
    /// Delivery only after durability; `None` takes the default of the fork (on for durable forks, off for ephemeral ones).
    pub confirmed: Option<bool>,
}

/// Where messages to one client go. Called from lane and procedure threads: implementations must not block.
pub trait ClientSink: Send + Sync {
    /// Takes all of `messages`, in order. Called at most once per client and lane batch.
    fn deliver(&self, messages: &mut Vec<Delivery>);
    /// Closes the connection after what was delivered before. May be called more than once; the first reason counts.
    fn close(&self, reason: CloseReason);
}

/// One message to a client.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub message: ServerMessage,
    /// The commit of the fork that the message shows, or may depend on.
    pub lsn: Option<Lsn>,
    /// The log position the message depends on: a confirmed connection holds it, and all behind it, until that is durable.
    pub durable: Option<DurableTicket>,
}

impl Delivery {
    pub(crate) fn new(message: ServerMessage, head: Option<Head>) -> Delivery {
        Delivery { message, lsn: head.map(|head| head.lsn), durable: head.map(|head| head.durable) }
    }
}

/// Why the host closes a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The database or fork is gone, was replaced, or its host failed: WebSocket code 1001.
    ModuleExited(&'static str),
    /// The module's connect hook refused the client: the socket is dropped.
    Refused(String),
    /// The store cannot confirm any more what the connection waits for: WebSocket code 1011.
    NotDurable,
}

/// How far a database's log is on stable storage, as watched by connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durability {
    /// Everything up to this ticket is on stable storage.
    pub ticket: DurableTicket,
    /// A write or sync failed: nothing beyond `ticket` will ever be confirmed.
    pub failed: bool,
}

/// Arguments of a call.
#[derive(Clone, Debug)]
pub enum CallArguments {
    /// BSATN of the product of the parameters.
    Bsatn(Bytes),
    /// A JSON array in parameter order or an object by parameter name.
    Json(serde_json::Value),
}

impl CallArguments {
    /// About the memory they keep, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        fn of(value: &serde_json::Value) -> usize {
            use serde_json::Value;
            let inside = match value {
                Value::String(text) => text.len(),
                Value::Array(items) => items.iter().map(of).sum(),
                Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + of(value)).sum(),
                Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            };
            size_of::<Value>() + inside
        }
        match self {
            CallArguments::Bsatn(bytes) => bytes.len(),
            CallArguments::Json(value) => of(value),
        }
    }
}

/// A caller that is no connected client, such as an HTTP request.
#[derive(Clone, Debug)]
pub struct Requester {
    /// Identity of the caller's token.
    pub identity: Identity,
    /// JSON text of the token's payload.
    pub jwt_payload: Option<Arc<str>>,
}

/// What a successful call returned.
#[derive(Clone, Debug)]
pub enum CallReturn {
    /// A reducer ran and committed.
    Reducer,
    /// A procedure ran.
    Procedure {
        /// Its declared return type, without references.
        ty: AlgebraicType,
        /// BSATN of the value.
        value: Bytes,
    },
}

/// The answer to a call, statement or other lane request that does not belong to a connection.
#[derive(Debug)]
pub struct Reply<T> {
    /// The outcome.
    pub result: Result<T, CallFailure>,
    /// The newest commit of the fork that the outcome may depend on.
    pub lsn: Lsn,
    /// Log position of that commit.
    pub durable: DurableTicket,
    /// Time the work took, without queueing.
    pub duration: std::time::Duration,
}

/// Runs once with the reply, on a lane or procedure thread: must not block.
pub type ReplyTo<T> = Box<dyn FnOnce(Reply<T>) + Send>;

/// What a statement returned and did.
#[derive(Clone, Debug)]
pub struct SqlRows {
    /// Names and types of the columns.
    pub columns: ProductType,
    /// One BSATN product per row.
    pub rows: Vec<Bytes>,
    /// How many rows it changed.
    pub modified: Modified,
}
