//! Poseidon2 of two nodes: ours, alone and in groups, beside a library's permutation of the same state.

use std::hint::black_box;
use std::time::Instant;

use anyhow::ensure;
use ark_bn254::Fr;
use ark_ff::{BigInteger, PrimeField};
use taceo_poseidon2::bn254::t4::permutation_in_place;
use tine_merkle::{Poseidon2, TreeHash};

/// Hashes of one measurement.
const HASHES: usize = 1_024;

/// Measurements, of which the quickest counts: whatever else runs only adds.
const ROUNDS: usize = 9;

const SEPARATOR: u64 = 7;

/// Nanoseconds of one hash.
pub struct Hashes {
    /// Each of the one before.
    pub single: f64,
    /// Independent ones together.
    pub batch: f64,
    /// The library's, each of the one before.
    pub peer: f64,
}

/// Measures all three, in turns.
pub fn measure() -> anyhow::Result<Hashes> {
    let hash = Poseidon2::new(SEPARATOR);
    let mut digest = [0; 32];
    let mut element = Fr::from(0u64);
    let mut best = Hashes { single: f64::MAX, batch: f64::MAX, peer: f64::MAX };
    for _ in 0..ROUNDS {
        let single = time(|| (0..HASHES).for_each(|_| digest = hash.inner(&digest, &[0; 32])));
        let peer = time(|| (0..HASHES).for_each(|_| element = inner(element)));
        ensure!(element.into_bigint().to_bytes_be() == digest, "the library has another hash");
        let pairs = vec![[digest; 2]; HASHES];
        let mut parents = vec![[0; 32]; HASHES];
        let batch = time(|| hash.inner_each(&pairs, &mut parents));
        black_box(&parents);
        best = Hashes { single: best.single.min(single), batch: best.batch.min(batch), peer: best.peer.min(peer) };
    }
    Ok(best)
}

fn time(hash: impl FnOnce()) -> f64 {
    let began = Instant::now();
    hash();
    began.elapsed().as_nanos() as f64 / HASHES as f64
}

/// The parent of a node and an empty one, with the library's permutation.
fn inner(left: Fr) -> Fr {
    let length = Fr::from(3u128 << 64);
    let mut state = [Fr::from(SEPARATOR), left, Fr::from(0u64), length];
    permutation_in_place(&mut state);
    state[0]
}
