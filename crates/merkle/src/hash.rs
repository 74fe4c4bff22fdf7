//! The hash of a tree.

use sha2::Digest as _;

use crate::{Digest, poseidon2};

/// Hashes nodes and leaves of a tree.
///
/// Leaves and inner nodes must never hash alike, or a proof of one could pass for a proof of the other. Leaves of an
/// [`AppendTree`](crate::AppendTree) are nodes already; whoever makes them of data hashes it with [`TreeHash::leaf`].
pub trait TreeHash: Send + Sync + 'static {
    /// The parent of two nodes.
    fn inner(&self, left: &Digest, right: &Digest) -> Digest;

    /// The node of a leaf of several words.
    fn leaf(&self, words: &[Digest]) -> Digest;

    /// Whether `word` can be hashed at all.
    fn accepts(&self, _word: &Digest) -> bool {
        true
    }

    /// The parents of many pairs of nodes; `parents` is as long as `pairs`.
    fn inner_each(&self, pairs: &[[Digest; 2]], parents: &mut [Digest]) {
        for ([left, right], parent) in pairs.iter().zip(parents) {
            *parent = self.inner(left, right);
        }
    }

    /// The nodes of many leaves of three words; `nodes` is as long as `leaves`.
    fn leaf_each_3(&self, leaves: &[[Digest; 3]], nodes: &mut [Digest]) {
        for (words, node) in leaves.iter().zip(nodes) {
            *node = self.leaf(words);
        }
    }

    /// The nodes of many leaves of four words; `nodes` is as long as `leaves`.
    fn leaf_each_4(&self, leaves: &[[Digest; 4]], nodes: &mut [Digest]) {
        for (words, node) in leaves.iter().zip(nodes) {
            *node = self.leaf(words);
        }
    }
}

/// Poseidon2 over BN254: cheap to prove in circuits, a thousand times slower than the others elsewhere.
///
/// Inner nodes are hashed with a separator in front, leaves are the hash of their words.
#[derive(Clone, Copy, Debug)]
pub struct Poseidon2 {
    separator: Digest,
}

impl Poseidon2 {
    /// A tree whose inner nodes have `separator` in front.
    pub fn new(separator: u64) -> Poseidon2 {
        Poseidon2 { separator: number(separator) }
    }
}

impl TreeHash for Poseidon2 {
    fn inner(&self, left: &Digest, right: &Digest) -> Digest {
        poseidon2::hash(&[self.separator, *left, *right])
    }

    fn leaf(&self, words: &[Digest]) -> Digest {
        poseidon2::hash(words)
    }

    fn accepts(&self, word: &Digest) -> bool {
        poseidon2::is_canonical(word)
    }

    fn inner_each(&self, pairs: &[[Digest; 2]], parents: &mut [Digest]) {
        let inputs: Vec<[Digest; 3]> = pairs.iter().map(|[left, right]| [self.separator, *left, *right]).collect();
        poseidon2::hash_each(&inputs, parents);
    }

    fn leaf_each_3(&self, leaves: &[[Digest; 3]], nodes: &mut [Digest]) {
        poseidon2::hash_each(leaves, nodes);
    }

    fn leaf_each_4(&self, leaves: &[[Digest; 4]], nodes: &mut [Digest]) {
        poseidon2::hash_each(leaves, nodes);
    }
}

/// What is hashed first: tells leaves from inner nodes.
const LEAF_PREFIX: u8 = 0;
const INNER_PREFIX: u8 = 1;

/// SHA-256 with a byte in front that tells leaves from inner nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sha256;

impl TreeHash for Sha256 {
    fn inner(&self, left: &Digest, right: &Digest) -> Digest {
        sha2::Sha256::new().chain_update([INNER_PREFIX]).chain_update(left).chain_update(right).finalize().into()
    }

    fn leaf(&self, words: &[Digest]) -> Digest {
        sha2::Sha256::new().chain_update([LEAF_PREFIX]).chain_update(words.as_flattened()).finalize().into()
    }
}

/// BLAKE3 with a byte in front that tells leaves from inner nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blake3;

impl TreeHash for Blake3 {
    fn inner(&self, left: &Digest, right: &Digest) -> Digest {
        let mut input = [INNER_PREFIX; 65];
        input[1..33].copy_from_slice(left);
        input[33..].copy_from_slice(right);
        *blake3::hash(&input).as_bytes()
    }

    fn leaf(&self, words: &[Digest]) -> Digest {
        *blake3::Hasher::new().update(&[LEAF_PREFIX]).update(words.as_flattened()).finalize().as_bytes()
    }
}

/// A small number as a word.
pub(crate) fn number(value: u64) -> Digest {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&value.to_be_bytes());
    word
}
