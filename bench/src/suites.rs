//! The suites. Each starts servers of its own, so that none measures what another left behind.

pub mod forks;
pub mod ipc;
pub mod lanes;
pub mod reducers;
pub mod store;
pub mod subscriptions;
pub mod workers;
pub mod world_state;
