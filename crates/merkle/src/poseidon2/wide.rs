//! Eight hashes at once: each 512-bit register holds one 52-bit limb of eight numbers.
//!
//! Numbers are five limbs in Montgomery form with R = 2^260, which is 84 times the modulus p. So a product is below
//! ab/R + p, and sums of a few dozen p need no reduction before they are multiplied again. A word that is multiplied
//! must have limbs below 2^52 (except the top one, which takes what is left): [`carry`] sees to that. Words of the state
//! stay below 3p in the partial rounds, because their sum is brought below 2p once per round, and below 22p in the full
//! ones; between permutations they are brought below 2p, because mixing makes them sixteen times larger.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_loadu_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_slli_epi64, _mm512_srai_epi64, _mm512_srli_epi64,
    _mm512_storeu_si512, _mm512_sub_epi64,
};

use super::constants::{DIAGONAL, FULL_ROUNDS_HALF, PARTIAL_ROUNDS, ROUND, WIDTH};
use super::field::{self, Limbs, MODULUS};
use super::{RATE, is_canonical};
use crate::Digest;

/// Hashes done together.
pub(super) const LANES: usize = 8;

/// From how many hashes on a group of eight is quicker than one by one.
pub(super) const LANES_MIN: usize = 2;

const LIMBS: usize = 5;
const LIMB_BITS: u32 = 52;
const LIMB_MASK: u64 = (1 << LIMB_BITS) - 1;

/// -1/p modulo 2^52.
const NEGATED_INVERSE: u64 = field::negated_inverse() & LIMB_MASK;

/// The top limb of p and one more, inverted: `top * QUOTIENT >> 94` is the number of times p fits, or one less.
const QUOTIENT: u64 = ((1u128 << 94) / ((MODULUS[3] >> 16) as u128 + 1)) as u64;

type Narrow = [u64; LIMBS];
/// Eight numbers.
type Wide = [__m512i; LIMBS];

/// Splits four limbs of 64 bits into five of 52.
const fn split(limbs: Limbs) -> Narrow {
    [
        limbs[0] & LIMB_MASK,
        (limbs[0] >> 52 | limbs[1] << 12) & LIMB_MASK,
        (limbs[1] >> 40 | limbs[2] << 24) & LIMB_MASK,
        (limbs[2] >> 28 | limbs[3] << 36) & LIMB_MASK,
        limbs[3] >> 16,
    ]
}

const fn join(limbs: Narrow) -> Limbs {
    [
        limbs[0] | limbs[1] << 52,
        limbs[1] >> 12 | limbs[2] << 40,
        limbs[2] >> 24 | limbs[3] << 28,
        limbs[3] >> 36 | limbs[4] << 16,
    ]
}

/// From Montgomery form with 2^256 to the one with 2^260.
const fn widen(limbs: Limbs) -> Narrow {
    let mut value = field::reduce_once(limbs, MODULUS);
    let mut step = 0;
    while step < 4 {
        value = field::reduce_once(field::double(value), MODULUS);
        step += 1;
    }
    split(value)
}

const MODULUS_WIDE: Narrow = split(MODULUS);
const R_SQUARED: Narrow = split(field::power_of_two(520));

struct Constants {
    first: [[Narrow; WIDTH]; FULL_ROUNDS_HALF],
    partial: [Narrow; PARTIAL_ROUNDS],
    last: [[Narrow; WIDTH]; FULL_ROUNDS_HALF],
    diagonal: [Narrow; WIDTH],
}

static CONSTANTS: std::sync::LazyLock<Constants> = std::sync::LazyLock::new(|| Constants {
    first: ROUND.first.map(|row| row.map(widen)),
    partial: ROUND.partial.map(widen),
    last: ROUND.last.map(|row| row.map(widen)),
    diagonal: DIAGONAL.map(widen),
});

/// Whether this processor has the instructions.
pub(super) fn is_available() -> bool {
    std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512ifma")
}

/// Hashes up to eight inputs of `N` words.
///
/// # Panics
/// If there are more, or a word is not below the modulus, or the processor lacks the instructions.
pub(super) fn hash_group<const N: usize>(inputs: &[[Digest; N]], outputs: &mut [Digest]) {
    assert!(inputs.len() <= LANES && inputs.len() == outputs.len(), "at most eight inputs, each with its output");
    assert!(inputs.iter().flatten().all(is_canonical), "words are numbers below the modulus");
    assert!(is_available(), "the caller asked whether the instructions are there");
    // SAFETY: the instructions that the function is compiled with are there, as just checked.
    unsafe { hash_lanes(inputs, outputs) }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn hash_lanes<const N: usize>(inputs: &[[Digest; N]], outputs: &mut [Digest]) {
    let length = broadcast(&widen(super::length_word(N)));
    let zero = [_mm512_setzero_si512(); LIMBS];
    let mut state = [zero, zero, zero, length];
    let mut position = 0;
    while position < N {
        let count = RATE.min(N - position);
        for (offset, slot) in state.iter_mut().enumerate().take(count) {
            let word = load_words(inputs, position + offset);
            let entered = multiply(&word, &broadcast(&R_SQUARED));
            *slot = carry(plus(slot, &entered));
        }
        permute(&mut state);
        position += count;
    }
    let one = broadcast(&[1, 0, 0, 0, 0]);
    store_words(&multiply(&state[0], &one), outputs);
}

/// Word `position` of each input, limb by limb.
#[target_feature(enable = "avx512f")]
fn load_words<const N: usize>(inputs: &[[Digest; N]], position: usize) -> Wide {
    let mut lanes = [[0u64; LANES]; LIMBS];
    for (lane, input) in inputs.iter().enumerate() {
        for (limb, value) in split(field::limbs(&input[position])).into_iter().enumerate() {
            lanes[limb][lane] = value;
        }
    }
    // SAFETY: each row is eight numbers of 64 bits, 64 bytes; the load needs no alignment.
    lanes.map(|row| unsafe { _mm512_loadu_si512(row.as_ptr().cast()) })
}

#[target_feature(enable = "avx512f")]
fn store_words(words: &Wide, outputs: &mut [Digest]) {
    let mut lanes = [[0u64; LANES]; LIMBS];
    for (row, limb) in lanes.iter_mut().zip(words) {
        // SAFETY: the row is eight numbers of 64 bits, 64 bytes; the store needs no alignment.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), *limb) };
    }
    for (lane, output) in outputs.iter_mut().enumerate() {
        // A product with one is at most p.
        let limbs = join(std::array::from_fn(|limb| lanes[limb][lane]));
        *output = field::bytes(field::reduce_once(limbs, MODULUS));
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(limbs: &Narrow) -> Wide {
    limbs.map(|limb| _mm512_set1_epi64(limb as i64))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn plus(a: &Wide, b: &Wide) -> Wide {
    std::array::from_fn(|limb| _mm512_add_epi64(a[limb], b[limb]))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn times_two(a: &Wide) -> Wide {
    a.map(|limb| _mm512_slli_epi64::<1>(limb))
}

/// Moves what is above 52 bits of each limb into the next. Limbs may be negative as long as the number is not.
#[inline]
#[target_feature(enable = "avx512f")]
fn carry(mut a: Wide) -> Wide {
    let mask = _mm512_set1_epi64(LIMB_MASK as i64);
    for limb in 0..LIMBS - 1 {
        a[limb + 1] = _mm512_add_epi64(a[limb + 1], _mm512_srai_epi64::<LIMB_BITS>(a[limb]));
        a[limb] = _mm512_and_si512(a[limb], mask);
    }
    a
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply(a: &Wide, b: &Wide) -> Wide {
    multiply_add(a, b, &[_mm512_setzero_si512(); LIMBS])
}

/// The Montgomery product of `a` and `b`, plus `c`, with carried limbs. Column sums have at most twenty terms below
/// 2^52, so they fit 64 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply_add(a: &Wide, b: &Wide, c: &Wide) -> Wide {
    let zero = _mm512_setzero_si512();
    let mut low = [zero; 2 * LIMBS];
    let mut high = [zero; 2 * LIMBS];
    low[LIMBS..].copy_from_slice(c);
    for i in 0..LIMBS {
        for j in 0..LIMBS {
            low[i + j] = _mm512_madd52lo_epu64(low[i + j], a[i], b[j]);
            high[i + j + 1] = _mm512_madd52hi_epu64(high[i + j + 1], a[i], b[j]);
        }
    }
    let mut t: [__m512i; 2 * LIMBS] = std::array::from_fn(|column| _mm512_add_epi64(low[column], high[column]));
    let inverse = _mm512_set1_epi64(NEGATED_INVERSE as i64);
    let modulus = broadcast(&MODULUS_WIDE);
    for i in 0..LIMBS {
        let factor = _mm512_madd52lo_epu64(zero, t[i], inverse);
        for j in 0..LIMBS {
            t[i + j] = _mm512_madd52lo_epu64(t[i + j], factor, modulus[j]);
            t[i + j + 1] = _mm512_madd52hi_epu64(t[i + j + 1], factor, modulus[j]);
        }
        t[i + 1] = _mm512_add_epi64(t[i + 1], _mm512_srli_epi64::<LIMB_BITS>(t[i]));
    }
    carry(std::array::from_fn(|limb| t[LIMBS + limb]))
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn power_5(a: &Wide) -> Wide {
    let square = multiply(a, a);
    multiply(&multiply(&square, &square), a)
}

/// Subtracts p as often as the top limb says it fits: from below 84p to below 2p. `a` has carried limbs.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn reduce(a: &Wide) -> Wide {
    let zero = _mm512_setzero_si512();
    let quotient = _mm512_set1_epi64(QUOTIENT as i64);
    let times = _mm512_srli_epi64::<42>(_mm512_madd52hi_epu64(zero, a[LIMBS - 1], quotient));
    let modulus = broadcast(&MODULUS_WIDE);
    let mut reduced = *a;
    for limb in 0..LIMBS {
        reduced[limb] = _mm512_sub_epi64(reduced[limb], _mm512_madd52lo_epu64(zero, times, modulus[limb]));
        if limb + 1 < LIMBS {
            let high = _mm512_madd52hi_epu64(zero, times, modulus[limb]);
            reduced[limb + 1] = _mm512_sub_epi64(reduced[limb + 1], high);
        }
    }
    carry(reduced)
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn permute(state: &mut [Wide; WIDTH]) {
    let constants = &*CONSTANTS;
    for word in state.iter_mut() {
        *word = reduce(word);
    }
    mix(state);
    for row in &constants.first {
        full_round(state, row);
    }
    let diagonal: [Wide; WIDTH] = [
        broadcast(&constants.diagonal[0]),
        broadcast(&constants.diagonal[1]),
        broadcast(&constants.diagonal[2]),
        broadcast(&constants.diagonal[3]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for constant in &constants.partial {
        let first = power_5(&carry(plus(&a, &broadcast(constant))));
        let sum = reduce(&carry(plus(&plus(&b, &c), &plus(&d, &first))));
        a = multiply_add(&diagonal[0], &first, &sum);
        b = multiply_add(&diagonal[1], &b, &sum);
        c = multiply_add(&diagonal[2], &c, &sum);
        d = multiply_add(&diagonal[3], &d, &sum);
    }
    *state = [a, b, c, d];
    for row in &constants.last {
        full_round(state, row);
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn full_round(state: &mut [Wide; WIDTH], constants: &[Narrow; WIDTH]) {
    for (word, constant) in state.iter_mut().zip(constants) {
        *word = power_5(&carry(plus(word, &broadcast(constant))));
    }
    mix(state);
}

/// The outer matrix; see the portable form. Its rows add up to at most sixteen.
#[target_feature(enable = "avx512f,avx512ifma")]
fn mix(state: &mut [Wide; WIDTH]) {
    let [a, b, c, d] = state;
    let ab = plus(a, b);
    let cd = plus(c, d);
    let b2_cd = plus(&times_two(b), &cd);
    let d2_ab = plus(&times_two(d), &ab);
    let fourth = plus(&times_two(&times_two(&cd)), &d2_ab);
    let second = plus(&times_two(&times_two(&ab)), &b2_cd);
    *state = [carry(plus(&d2_ab, &second)), carry(second), carry(plus(&b2_cd, &fourth)), carry(fourth)];
}
