//! A world-state service: five authenticated trees with forks, nested checkpoints, block history and proofs, for many
//! client processes at once. `docs/world-state.md` says how it compares with the server it stands in for.
//!
//! - A [`World`] is the service; [`World::call`] takes a [`Command`] and answers it when it is done. A [`Session`] is one
//!   connection: its requests to one fork run in the order received, and it sees its own writes.
//! - [`wire`] is the protocol of the server it stands in for, [`service`] one of ours for any language, over shared memory
//!   too. [`Endpoint`] listens for clients of either. Both only translate to commands and from replies.
//!
//! Everything is on a [`tine_store::Store`]: trees are keyspaces, blocks are versions, forks are its forks (see [`chain`]
//! and [`pending`]). Requests are ordered by [`tine_lanes`], one lane per fork. Reads of a block go past the lanes.
//!
//! Invariants:
//! - A refused request leaves no trace (only a refused block drops the pending changes, as clients expect).
//! - A reply that says that the chain has changed is given when the change is on disk.
//! - No request waits for one of another fork, and none runs on the listener's thread that is expected to take long.

mod chain;
mod copy;
mod endpoint;
mod error;
mod lane;
mod options;
mod pending;
mod query;
pub mod service;
mod trees;
mod types;
pub mod wire;
mod world;

pub use endpoint::{Endpoint, EndpointError, Serving};
pub use error::{OpenWorldError, WorldError};
pub use options::{PREFILL_MAX, WorldOptions};
pub use trees::{STATE_TREES, TreeId};
pub use types::{
    Block, BlockNumber, ChainChange, Change, Command, FullStatus, LeafValue, Leaves, Query, Reading, Reply, Revision,
    StateReference, Summary, TreeStatus, WorldForkId,
};
pub use world::{FORKS_MAX, ReplyFn, Session, World};
