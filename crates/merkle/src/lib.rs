//! Authenticated trees on a store: append-only and indexed Merkle trees with proofs, for any version of a fork.
//!
//! A tree is a few keyspaces of a [`tine_store`] store, so it forks, reverts and becomes durable with everything else
//! in it: changes are puts of a [`Writer`](tine_store::Writer) in the caller's transaction, and reads
//! take any [`Read`](tine_store::Read), a snapshot or a writer. The hash is the caller's choice ([`TreeHash`]).
//!
//! - [`AppendTree`]: a list of 32-byte leaves. Proves that a leaf is at an index.
//! - [`IndexedTree`]: a sorted set or map of 32-byte keys, whose leaves are linked in key order. Proves that a key is
//!   there, with its value, and that a key is not there.
//! - [`Proof`] and [`KeyProof`]: what a verifier needs besides the root; they need no store.
//!
//! Invariants:
//! - Nodes that are not stored are those of an empty subtree; the height is fixed, so every tree has a root at any size.
//! - A record holds four levels of nodes ([`nodes`]), so a path is read with a quarter of its length in look-ups.
//! - A change hashes each node once per value that the result or a witness depends on, level by level ([`update`]),
//!   so that a [`HashPool`] gets whole levels to hash at once.

mod append;
mod error;
mod hash;
mod indexed;
mod nodes;
mod pool;
mod poseidon2;
mod proof;
mod tree;
mod update;

pub use append::{AppendTree, TakenLeaves};
pub use error::TreeError;
pub use hash::{Blake3, Poseidon2, Sha256, TreeHash};
pub use indexed::{
    BatchInsertion, IndexedKind, IndexedLeaf, IndexedTree, Insertion, LowLeaf, SequentialInsertion, Witness,
};
pub use pool::{HashPool, SpawnThread};
pub use poseidon2::hash as poseidon2_hash;
pub use proof::{KeyProof, Proof, ProofError, root_of};
pub use tree::{Keyspaces, TreeState, TreeWrite};

/// A node of a tree or a word of a leaf: 32 bytes, big-endian where they are a number.
pub type Digest = [u8; 32];

/// The digest of an empty leaf.
pub const EMPTY: Digest = [0; 32];

/// The greatest height of a tree: indices of leaves are numbers of 64 bits.
pub const HEIGHT_MAX: u32 = 63;
