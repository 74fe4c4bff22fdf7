//! The service that a Tine server offers to programs on the same machine (`tine serve --ipc PATH`): its schema, and what is generated
//! from it for Rust. Other languages generate their own from [`SCHEMA`]; `tine idl schema` prints it.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{path::Path, time::Duration};
//! use tine_local::{TineClient, TineGet, TineOpenFork};
//!
//! let limit = Duration::from_secs(5);
//! let client = TineClient::connect(Path::new("/run/tine.shm"))?;
//! let fork = client.open_fork_within(&TineOpenFork { address: "quickstart".into() }, limit)?.fork;
//! let key = br#"[1]"#.to_vec();
//! let get = TineGet { fork, table: "person".into(), index: None, key, json: true, committed: false };
//! for row in client.get_within(&get, limit)?.rows {
//!     println!("{}", String::from_utf8(row)?);
//! }
//! # Ok(())
//! # }
//! ```

#[rustfmt::skip]
mod tine;

pub use tine::*;

/// The schema, as text.
pub const SCHEMA: &str = include_str!("../tine.jsonc");

#[cfg(test)]
mod tests {
    use super::SCHEMA;

    #[test]
    fn the_code_is_that_of_the_schema() {
        let schema = tine_idl::Schema::parse(SCHEMA).expect("the schema is one");
        let made = tine_idl::generate(&schema, tine_idl::Language::Rust);
        assert!(made == include_str!("tine.rs"), "generate it again: tine idl generate -l rust --out src tine.jsonc");
    }
}
