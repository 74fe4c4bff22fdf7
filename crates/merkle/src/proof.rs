//! Proofs, and how to check them without a store.

use thiserror::Error;

use crate::hash::number;
use crate::{Digest, IndexedKind, IndexedLeaf, TreeHash};

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The path does not lead from the leaf to the root.
    #[error("the path does not lead to the root")]
    WrongRoot,
    /// The path has not as many siblings as the tree has levels, or the index is beyond the tree.
    #[error("the proof is not of a tree of this height")]
    WrongHeight,
    /// A word is none that the hash takes.
    #[error("a word of the proof is not one of the hash")]
    BadWord,
    /// The leaf shown neither is the key's nor encloses it.
    #[error("the leaf says nothing about the key")]
    WrongLeaf,
}

impl ProofError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        "TN1208"
    }
}

/// The root that a leaf's node and its path give.
pub fn root_of(hash: &dyn TreeHash, leaf: &Digest, index: u64, path: &[Digest]) -> Digest {
    path.iter().enumerate().fold(*leaf, |node, (level, sibling)| {
        let is_left = index.checked_shr(level as u32).unwrap_or(0) & 1 == 0;
        if is_left { hash.inner(&node, sibling) } else { hash.inner(sibling, &node) }
    })
}

/// Shows that a leaf is at an index of a tree with a known root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Which leaf.
    pub index: u64,
    /// Its node.
    pub leaf: Digest,
    /// Siblings from the lowest level up.
    pub path: Vec<Digest>,
}

impl Proof {
    /// Checks the proof against a root of a tree of `height`.
    ///
    /// # Errors
    /// It does not hold.
    pub fn verify(&self, hash: &dyn TreeHash, height: u32, root: &Digest) -> Result<(), ProofError> {
        check(hash, &self.leaf, self.index, &self.path, height, root)
    }
}

/// Shows that a key is in an indexed tree with a known root, with its value, or that it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyProof {
    /// Index of the leaf with the greatest key that is not greater.
    pub index: u64,
    /// That leaf.
    pub leaf: IndexedLeaf,
    /// Its siblings from the lowest level up.
    pub path: Vec<Digest>,
}

impl KeyProof {
    /// Checks the proof. Returns whether `key` is there; the value is that of `leaf` then.
    ///
    /// # Errors
    /// It does not hold, or says nothing about `key`.
    pub fn verify(
        &self,
        hash: &dyn TreeHash,
        kind: IndexedKind,
        height: u32,
        root: &Digest,
        key: &Digest,
    ) -> Result<bool, ProofError> {
        let words = [self.leaf.key, self.leaf.value, self.leaf.next_key];
        if !words.iter().all(|word| hash.accepts(word)) {
            return Err(ProofError::BadWord);
        }
        let node = kind.node(hash, &self.leaf);
        check(hash, &node, self.index, &self.path, height, root)?;
        let is_last = self.leaf.next_index == 0;
        match self.leaf.key.cmp(key) {
            std::cmp::Ordering::Equal => Ok(true),
            std::cmp::Ordering::Less if is_last || *key < self.leaf.next_key => Ok(false),
            _ => Err(ProofError::WrongLeaf),
        }
    }
}

fn check(
    hash: &dyn TreeHash,
    leaf: &Digest,
    index: u64,
    path: &[Digest],
    height: u32,
    root: &Digest,
) -> Result<(), ProofError> {
    if path.len() != height as usize || index.checked_shr(height).unwrap_or(0) != 0 {
        return Err(ProofError::WrongHeight);
    }
    if !path.iter().all(|word| hash.accepts(word)) || !hash.accepts(leaf) {
        return Err(ProofError::BadWord);
    }
    if root_of(hash, leaf, index, path) == *root { Ok(()) } else { Err(ProofError::WrongRoot) }
}

impl IndexedKind {
    /// The node of a leaf.
    pub fn node(self, hash: &dyn TreeHash, leaf: &IndexedLeaf) -> Digest {
        match self {
            IndexedKind::Set => hash.leaf(&[leaf.key, leaf.next_key, number(leaf.next_index)]),
            IndexedKind::Map => hash.leaf(&[leaf.key, leaf.value, leaf.next_key, number(leaf.next_index)]),
        }
    }
}
