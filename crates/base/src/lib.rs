//! The lowest floor: what Tine asks of the machine it runs on.
//!
//! Everything above reaches the clock, randomness, files and threads through [`Env`], so that a test can
//! hand the production code an environment that fails on purpose. [`SystemEnv`] is the real machine,
//! [`FaultEnv`] wraps any other environment with faults that a test switches while the code runs.
//! [`cpu::budget`] says how many cores this process may really use.
//!
//! For processes that work together there is memory without a name ([`memory`]), the passing of descriptors ([`descriptors`]), bells
//! ([`futex`], [`event`]) and a spin that learns when it pays ([`spin`]).
//!
//! Invariants:
//! - No code of a higher floor opens a file, reads a clock or starts a thread behind the back of [`Env`]
//!   where a test must be able to interfere.
//! - Nothing here depends on an async runtime.

pub mod cpu;
pub mod descriptors;
mod env;
pub mod event;
mod fault;
pub mod futex;
pub mod memory;
pub mod slots;
pub mod spin;
mod system;

pub use env::{DIRECT_BLOCK_BYTES, Env, EnvFile, OpenMode};
pub use fault::{FaultCounts, FaultEnv};
pub use system::SystemEnv;
