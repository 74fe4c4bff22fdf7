//! The service in types of its own, over sockets and shared memory: what `world_state.jsonc` says, and what is generated
//! from it for Rust. Other languages generate their own from [`SCHEMA`]; `tine idl schema world-state` prints it.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{path::Path, time::Duration};
//! use tine_worldstate::service::{Revision, WorldStateClient, WorldStateCreateFork, WorldStateGetTreeInfo};
//!
//! let limit = Duration::from_secs(5);
//! let client = WorldStateClient::connect(Path::new("/run/world.shm"))?;
//! let fork = client.create_fork_within(&WorldStateCreateFork { block: None, owned: None }, limit)?.fork;
//! let revision = Revision { fork, block: None, committed: false };
//! let notes = client.get_tree_info_within(&WorldStateGetTreeInfo { tree: 1, revision }, limit)?;
//! println!("{} note hashes", notes.size);
//! # Ok(())
//! # }
//! ```

mod convert;
mod handler;
#[rustfmt::skip]
mod world_state;

pub use world_state::*;

pub(crate) use handler::Service;

/// The schema, as text.
pub const SCHEMA: &str = include_str!("../../world_state.jsonc");

#[cfg(test)]
mod tests {
    use super::SCHEMA;

    #[test]
    fn the_code_is_that_of_the_schema() {
        let schema = tine_idl::Schema::parse(SCHEMA).expect("the schema is one");
        let made = tine_idl::generate(&schema, tine_idl::Language::Rust);
        let command = "tine idl generate -l rust --out src/service world_state.jsonc";
        assert!(made == include_str!("world_state.rs"), "generate it again: {command}");
    }
}
