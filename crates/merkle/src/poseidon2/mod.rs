//! Poseidon2 over the scalar field of BN254, four words wide, as a sponge of rate three.
//!
//! Written here because the hash is what a tree's writes cost: a tree hashes thousands of independent pairs at a time,
//! which a processor with 52-bit multiply-add (AVX-512 IFMA) does eight at once (`wide`), and the libraries do one by
//! one. A single hash has a form for processors with two carry chains (`adx`). Everything else uses the portable form.

#[cfg(target_arch = "x86_64")]
mod adx;
mod constants;
mod field;
#[cfg(target_arch = "x86_64")]
mod wide;

use constants::{DIAGONAL, ROUND, WIDTH};
use field::Limbs;

use crate::Digest;

pub(crate) use field::is_canonical;

/// Words taken in before each permutation.
const RATE: usize = 3;

type State = [Limbs; WIDTH];

/// Sums and products of numbers below 2p, below 2p; products are of numbers in Montgomery form.
trait Arithmetic: Copy {
    fn multiply(self, a: Limbs, b: &Limbs) -> Limbs;

    fn add(self, a: Limbs, b: &Limbs) -> Limbs;

    #[inline(always)]
    fn double(self, a: Limbs) -> Limbs {
        self.add(a, &a)
    }

    #[inline(always)]
    fn power_5(self, a: Limbs) -> Limbs {
        let square = self.multiply(a, &a);
        self.multiply(self.multiply(square, &square), &a)
    }
}

/// For any processor.
#[derive(Clone, Copy)]
struct Portable;

impl Arithmetic for Portable {
    #[inline(always)]
    fn multiply(self, a: Limbs, b: &Limbs) -> Limbs {
        field::multiply(a, *b)
    }

    #[inline(always)]
    fn add(self, a: Limbs, b: &Limbs) -> Limbs {
        field::add(a, *b)
    }
}

/// Hashes any number of words, each the big-endian bytes of a number below the modulus.
///
/// # Panics
/// If a word is not below the modulus.
pub fn hash(words: &[Digest]) -> Digest {
    assert!(words.iter().all(is_canonical), "words are numbers below the modulus");
    #[cfg(target_arch = "x86_64")]
    if let Some(arithmetic) = adx::Adx::detect() {
        return sponge(arithmetic, words);
    }
    sponge(Portable, words)
}

fn sponge(arithmetic: impl Arithmetic, words: &[Digest]) -> Digest {
    let mut state = [field::ZERO, field::ZERO, field::ZERO, length_word(words.len())];
    for group in words.chunks(RATE) {
        for (slot, word) in state.iter_mut().zip(group) {
            *slot = arithmetic.add(*slot, &field::enter(field::limbs(word)));
        }
        permute(arithmetic, &mut state);
    }
    field::bytes(field::leave(state[0]))
}

/// Hashes many inputs of `N` words; `outputs` is as long as `inputs`.
pub(crate) fn hash_each<const N: usize>(inputs: &[[Digest; N]], outputs: &mut [Digest]) {
    assert_eq!(inputs.len(), outputs.len(), "each input has its output");
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if wide::is_available() {
        // With few left, the one-by-one form takes less time than a group of eight that is mostly padding.
        while inputs.len() - done >= wide::LANES_MIN {
            let count = (inputs.len() - done).min(wide::LANES);
            wide::hash_group(&inputs[done..done + count], &mut outputs[done..done + count]);
            done += count;
        }
    }
    for (input, output) in inputs[done..].iter().zip(&mut outputs[done..]) {
        *output = hash(input);
    }
}

/// The capacity word: how many words are hashed, times 2^64.
fn length_word(words: usize) -> Limbs {
    field::enter([0, words as u64, 0, 0])
}

fn permute(arithmetic: impl Arithmetic, state: &mut State) {
    let (add, multiply) = (|a: Limbs, b: &Limbs| arithmetic.add(a, b), |a: Limbs, b: &Limbs| arithmetic.multiply(a, b));
    mix(arithmetic, state);
    for constants in &ROUND.first {
        full_round(arithmetic, state, constants);
    }
    let mut words = *state;
    for constant in &ROUND.partial {
        let first = arithmetic.power_5(add(words[0], constant));
        let sum = add(add(add(words[1], &words[2]), &words[3]), &first);
        words = [
            add(multiply(first, &DIAGONAL[0]), &sum),
            add(multiply(words[1], &DIAGONAL[1]), &sum),
            add(multiply(words[2], &DIAGONAL[2]), &sum),
            add(multiply(words[3], &DIAGONAL[3]), &sum),
        ];
    }
    *state = words;
    for constants in &ROUND.last {
        full_round(arithmetic, state, constants);
    }
}

fn full_round(arithmetic: impl Arithmetic, state: &mut State, constants: &[Limbs; WIDTH]) {
    for (word, constant) in state.iter_mut().zip(constants) {
        *word = arithmetic.power_5(arithmetic.add(*word, constant));
    }
    mix(arithmetic, state);
}

/// The outer matrix, as the eight additions and four doublings its authors give.
fn mix(arithmetic: impl Arithmetic, state: &mut State) {
    let (add, double) = (|a: Limbs, b: &Limbs| arithmetic.add(a, b), |a: Limbs| arithmetic.double(a));
    let [a, b, c, d] = *state;
    let ab = add(a, &b);
    let cd = add(c, &d);
    let b2_cd = add(double(b), &cd);
    let d2_ab = add(double(d), &ab);
    let fourth = add(double(double(cd)), &d2_ab);
    let second = add(double(double(ab)), &b2_cd);
    *state = [add(d2_ab, &second), second, add(b2_cd, &fourth), fourth];
}

#[cfg(test)]
mod tests;
