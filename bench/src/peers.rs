//! Recorded values of what Tine is measured against.
//!
//! SpacetimeDB is not in a registry, so its values stand as they were measured: version 2.8, standalone,
//! a module in native WebAssembly (Rust), two cores, the client beside the server. `None` in a case
//! means that there is no recorded value, not that there is no peer.

/// A peer's value.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Who, and under which terms.
    pub name: &'static str,
    /// The value, in the case's unit.
    pub value: f64,
}

/// The peer as it is shipped.
const SPACETIMEDB: &str = "SpacetimeDB 2.8, wasm";
/// The peer with the pause between its sends removed: it hides what its work costs.
const SPACETIMEDB_NO_DELAY: &str = "SpacetimeDB 2.8, wasm, send delay removed";

/// Pipelined inserts per second.
pub const INSERTS: Peer = Peer { name: SPACETIMEDB, value: 145_000.0 };
/// Server CPU per insert, in microseconds.
pub const INSERT_CPU_US: Peer = Peer { name: SPACETIMEDB, value: 12.0 };
/// Pipelined calls of an empty reducer per second.
pub const NOOPS: Peer = Peer { name: SPACETIMEDB, value: 250_000.0 };
/// Confirmed over unconfirmed inserts: 144,000 / 145,000.
pub const CONFIRMED_RATIO: Peer = Peer { name: SPACETIMEDB, value: 144_000.0 / 145_000.0 };
/// One insert in flight, in microseconds. As shipped it is 1,200.
pub const INSERT_LATENCY_US: Peer = Peer { name: SPACETIMEDB_NO_DELAY, value: 65.0 };
/// Inserts per second with eight listeners of every change.
pub const LISTENERS_8: Peer = Peer { name: SPACETIMEDB, value: 37_000.0 };
