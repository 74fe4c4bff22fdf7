//! Tine's network side: WebSocket, HTTP and the pages of the browser client, over the host.
//!
//! The crate knows no databases: it identifies callers, turns frames and requests into calls of
//! [`tine_host`], and writes back what comes. Its invariants:
//!
//! 1. One task per connection, and no queue without a bound (`limits.rs` lists them all).
//! 2. A client harms only itself: whatever it sends, withholds or refuses to read ends, at worst, in
//!    its own connection being closed within the timeouts of [`Limits`].
//! 3. Nothing here waits on a thread that lanes or other connections need: what blocks runs on a
//!    bounded number of threads of its own.
//! 4. A token that does not verify is refused; only its absence makes an anonymous identity.
//!
//! Reading order: `server.rs` (start, accept, stop), `http/mod.rs` (routes), `ws/connection.rs` (the
//! loop of a WebSocket), `auth/mod.rs`.

mod auth;
mod error;
mod http;
mod ipc;
mod limits;
mod metrics;
mod pages;
mod parameters;
mod server;
mod stall;
mod ws;

pub use auth::{IssuerError, KeyError};
pub use error::ServerError;
pub use ipc::{IpcError, check_path};
pub use limits::Limits;
pub use pages::{Page, read_directory};
pub use server::{Server, ServerOptions};
