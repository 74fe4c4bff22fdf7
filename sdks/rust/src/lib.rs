//! The Rust client of Tine.
//!
//! Two ways in, both plain and small:
//!
//! - [`Connection`]: one WebSocket to one database or fork, speaking the `v3` protocol. A `v3` frame
//!   holds as many messages as fit, in both directions, so a caller that keeps many requests in
//!   flight pays one system call for dozens of them: [`Connection::send`] packs a slice of messages
//!   into one frame and [`Connection::recv_batch`] decodes everything one frame brought.
//!   [`Connection::split`] gives independent halves for a task that writes and a task that reads.
//! - [`http::HttpClient`]: the blocking HTTP routes (publish, call, sql, forks, logs, ...).
//!
//! Invariants:
//!
//! - Every wait has a deadline. A request that gets no reply in time is [`ClientError::Deadline`];
//!   a connection on which not even a ping arrives for [`ConnectOptions::silence_limit`] is
//!   [`ClientError::Silent`].
//! - Nothing a server sends can make the client panic: what cannot be decoded is
//!   [`ClientError::Protocol`].
//! - Messages are handed out in the order in which they arrived. The request helpers of
//!   [`Connection`] set aside what arrives before their own reply, and [`Connection::recv`] returns
//!   it first.
//! - Frames are never compressed: the client asks for `compression=None`.
//!
//! ```no_run
//! use tine_client::{ConnectOptions, Connection};
//!
//! # async fn example() -> Result<(), tine_client::ClientError> {
//! let mut connection = Connection::connect(ConnectOptions::new("http://127.0.0.1:3000", "quickstart")).await?;
//! let rows = connection.subscribe(1, &["SELECT * FROM person"]).await?;
//! println!("{} tables", rows.tables.len());
//! # Ok(())
//! # }
//! ```

mod address;
mod connection;
mod error;
mod frame;
mod halves;
pub mod http;
pub mod schema;

pub use connection::{ConnectOptions, Connection, ReducerReply};
pub use error::{CallFailure, ClientError};
pub use frame::{FRAME_TARGET_BYTES, Frame, MESSAGE_BYTES_MAX};
pub use halves::{Receiver, Sender};
pub use tine_types::protocol;
