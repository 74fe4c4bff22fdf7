//! What a world state is opened with.

use std::path::PathBuf;

use tine_merkle::{Digest, HEIGHT_MAX};

use crate::error::OpenWorldError;
use crate::trees::TreeId;

/// How to open a world state.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// Where it lives; created if missing.
    pub directory: PathBuf,
    /// Levels below the root, by tree.
    pub heights: [u32; TreeId::COUNT],
    /// Leaves of a new nullifier tree, at least 2.
    pub nullifier_prefill: u64,
    /// Leaves of a new public data tree, at least 2.
    pub public_data_prefill: u64,
    /// Slots and values that a new public data tree ends with, in the order of the slots.
    pub prefilled_public_data: Vec<(Digest, Digest)>,
    /// Nullifiers that a new nullifier tree ends with, in order.
    pub prefilled_nullifiers: Vec<Digest>,
    /// First input of the hash of the first block's header.
    pub initial_header_generator_point: u64,
    /// Time in the first block's header, in seconds since the Unix epoch.
    pub genesis_timestamp: u64,
    /// What each tree may take on disk, as clients are told, in bytes. Nothing enforces it: trees share one log.
    pub map_bytes: [u64; TreeId::COUNT],
    /// Threads that requests run on when not on that of the listener.
    pub threads: usize,
}

/// The most leaves of a new indexed tree: they are made in one transaction.
pub const PREFILL_MAX: u64 = 1 << 20;

impl WorldOptions {
    /// The heights and sizes of the protocol, two threads.
    pub fn new(directory: impl Into<PathBuf>) -> WorldOptions {
        WorldOptions {
            directory: directory.into(),
            heights: [42, 42, 40, 36, 30],
            nullifier_prefill: 128,
            public_data_prefill: 128,
            prefilled_public_data: Vec::new(),
            prefilled_nullifiers: Vec::new(),
            initial_header_generator_point: 0,
            genesis_timestamp: 0,
            map_bytes: [1 << 30; TreeId::COUNT],
            threads: 2,
        }
    }

    pub(crate) fn prefill(&self, tree: TreeId) -> u64 {
        match tree {
            TreeId::Nullifier => self.nullifier_prefill,
            TreeId::PublicData => self.public_data_prefill,
            _ => 0,
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenWorldError> {
        let bad = |text: String| Err(OpenWorldError::BadOptions(text));
        for tree in TreeId::ALL {
            let height = self.heights[tree as usize];
            if !(1..=HEIGHT_MAX).contains(&height) {
                return bad(format!("the height of {tree} is {height}, not from 1 to {HEIGHT_MAX}"));
            }
            let prefill = self.prefill(tree);
            if tree.is_indexed() && !(2..=PREFILL_MAX).contains(&prefill) {
                return bad(format!("the initial size of {tree} is {prefill}, not from 2 to {PREFILL_MAX}"));
            }
            if prefill > 1 << height {
                return bad(format!("the initial size of {tree} is more than a tree of height {height} holds"));
            }
        }
        if self.threads == 0 {
            return bad("there must be a thread".to_owned());
        }
        Ok(())
    }

    /// What an existing world state must have been made with.
    pub(crate) fn fingerprint(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |number: u64| bytes.extend_from_slice(&number.to_be_bytes());
        self.heights.iter().for_each(|height| put(u64::from(*height)));
        put(self.nullifier_prefill);
        put(self.public_data_prefill);
        bytes
    }
}
