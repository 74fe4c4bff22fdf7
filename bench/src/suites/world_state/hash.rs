//! Poseidon2 of two nodes: ours, alone and in groups, beside the libraries.

use std::hint::black_box;
use std::time::Instant;

use tine_merkle::{Poseidon2, TreeHash};

/// Hashes of one measurement.
const HASHES: usize = 4_096;

/// Nanoseconds of one hash: one by one, and in a batch.
pub fn measure() -> anyhow::Result<[(&'static str, f64); 2]> {
    let hash = Poseidon2::new(7);
    let mut digest = [0; 32];
    let began = Instant::now();
    for _ in 0..HASHES {
        digest = hash.inner(&digest, &[0; 32]);
    }
    let single = began.elapsed().as_nanos() as f64 / HASHES as f64;
    let pairs = vec![[digest; 2]; HASHES];
    let mut parents = vec![[0; 32]; HASHES];
    let began = Instant::now();
    hash.inner_each(&pairs, &mut parents);
    let batch = began.elapsed().as_nanos() as f64 / HASHES as f64;
    black_box(&parents);
    Ok([("poseidon2_ns", single), ("poseidon2_batch_ns", batch)])
}
