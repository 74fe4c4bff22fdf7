//! The scalar field of BN254, in Montgomery form over four 64-bit limbs.
//!
//! Inside a permutation numbers are only kept below 2p, which the product of two such numbers reaches without a
//! final subtraction: for a, b < 2p the reduction gives less than 4p²/2^256 + p < 1.76p. [`leave`] makes them canonical.

/// A number below 2p, times 2^256 modulo p.
pub(crate) type Limbs = [u64; 4];

/// The modulus, least significant limb first.
pub(crate) const MODULUS: Limbs =
    [0x43e1_f593_f000_0001, 0x2833_e848_79b9_7091, 0xb850_45b6_8181_585d, 0x3064_4e72_e131_a029];

pub(crate) const TWICE_MODULUS: Limbs = shift_left(MODULUS);

/// -1/p modulo 2^64.
pub(crate) const NEGATED_INVERSE: u64 = negated_inverse();

/// 2^512 modulo p: multiplying by it brings a number into Montgomery form.
const R_SQUARED: Limbs = power_of_two(512);

pub(crate) const ZERO: Limbs = [0; 4];

const fn shift_left(a: Limbs) -> Limbs {
    [a[0] << 1, a[1] << 1 | a[0] >> 63, a[2] << 1 | a[1] >> 63, a[3] << 1 | a[2] >> 63]
}

/// Newton's iteration doubles the number of right bits; one bit is right at first.
pub(crate) const fn negated_inverse() -> u64 {
    let mut inverse = 1u64;
    let mut step = 0;
    while step < 6 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(MODULUS[0].wrapping_mul(inverse)));
        step += 1;
    }
    inverse.wrapping_neg()
}

/// 2^exponent modulo p.
pub(crate) const fn power_of_two(exponent: u32) -> Limbs {
    let mut value: Limbs = [1, 0, 0, 0];
    let mut step = 0;
    while step < exponent {
        value = reduce_once(shift_left(value), MODULUS);
        step += 1;
    }
    value
}

#[inline(always)]
const fn add_limb(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let wide = a as u128 + b as u128 + carry as u128;
    (wide as u64, wide >> 64 != 0)
}

#[inline(always)]
const fn subtract_limb(a: u64, b: u64, borrow: bool) -> (u64, bool) {
    let wide = (a as u128).wrapping_sub(b as u128).wrapping_sub(borrow as u128);
    (wide as u64, wide >> 64 != 0)
}

/// `a - b` and whether it went below zero.
#[inline(always)]
const fn subtract(a: Limbs, b: Limbs) -> (Limbs, bool) {
    let (r0, borrow) = a[0].overflowing_sub(b[0]);
    let (r1, borrow) = subtract_limb(a[1], b[1], borrow);
    let (r2, borrow) = subtract_limb(a[2], b[2], borrow);
    let (r3, borrow) = subtract_limb(a[3], b[3], borrow);
    ([r0, r1, r2, r3], borrow)
}

/// `a - bound` if that is not negative, else `a`.
#[inline(always)]
pub(crate) const fn reduce_once(a: Limbs, bound: Limbs) -> Limbs {
    let (reduced, borrow) = subtract(a, bound);
    // A mask and not a choice: of a hash's hundreds, about half go either way, which no branch predictor guesses.
    let kept = (borrow as u64).wrapping_neg();
    [
        reduced[0] ^ (kept & (a[0] ^ reduced[0])),
        reduced[1] ^ (kept & (a[1] ^ reduced[1])),
        reduced[2] ^ (kept & (a[2] ^ reduced[2])),
        reduced[3] ^ (kept & (a[3] ^ reduced[3])),
    ]
}

/// The sum of two numbers below 2p, below 2p.
#[inline(always)]
pub(crate) const fn add(a: Limbs, b: Limbs) -> Limbs {
    let (r0, carry) = a[0].overflowing_add(b[0]);
    let (r1, carry) = add_limb(a[1], b[1], carry);
    let (r2, carry) = add_limb(a[2], b[2], carry);
    let r3 = a[3].wrapping_add(b[3]).wrapping_add(carry as u64);
    reduce_once([r0, r1, r2, r3], TWICE_MODULUS)
}

#[inline(always)]
pub(crate) const fn double(a: Limbs) -> Limbs {
    reduce_once(shift_left(a), TWICE_MODULUS)
}

/// `accumulator + a * b + carry` as low and high half.
#[inline(always)]
const fn multiply_add(accumulator: u64, a: u64, b: u64, carry: u64) -> (u64, u64) {
    let wide = a as u128 * b as u128 + accumulator as u128 + carry as u128;
    (wide as u64, (wide >> 64) as u64)
}

/// The Montgomery product of two numbers below 2p, below 2p.
#[inline(always)]
pub(crate) const fn multiply(a: Limbs, b: Limbs) -> Limbs {
    let mut t = ZERO;
    let mut i = 0;
    while i < 4 {
        let (low, mut product_carry) = multiply_add(t[0], a[0], b[i], 0);
        let factor = low.wrapping_mul(NEGATED_INVERSE);
        let (_, mut reduction_carry) = multiply_add(low, factor, MODULUS[0], 0);
        let mut j = 1;
        while j < 4 {
            let (low, carry) = multiply_add(t[j], a[j], b[i], product_carry);
            product_carry = carry;
            let (low, carry) = multiply_add(low, factor, MODULUS[j], reduction_carry);
            reduction_carry = carry;
            t[j - 1] = low;
            j += 1;
        }
        // The partial sum is below a + p < 2^256, so this does not overflow.
        t[3] = product_carry.wrapping_add(reduction_carry);
        i += 1;
    }
    t
}

/// Brings a canonical number into Montgomery form.
#[inline(always)]
pub(crate) const fn enter(canonical: Limbs) -> Limbs {
    multiply(canonical, R_SQUARED)
}

/// The canonical limbs of a number in Montgomery form.
#[inline(always)]
pub(crate) const fn leave(a: Limbs) -> Limbs {
    reduce_once(multiply(a, [1, 0, 0, 0]), MODULUS)
}

/// Limbs of 32 big-endian bytes, whatever number they are.
#[inline(always)]
pub(crate) fn limbs(bytes: &[u8; 32]) -> Limbs {
    let limb = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    [limb(24), limb(16), limb(8), limb(0)]
}

/// Big-endian bytes of limbs.
#[inline(always)]
pub(crate) fn bytes(limbs: Limbs) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (position, limb) in limbs.iter().rev().enumerate() {
        bytes[position * 8..][..8].copy_from_slice(&limb.to_be_bytes());
    }
    bytes
}

/// Whether the bytes are a number below the modulus.
pub(crate) fn is_canonical(word: &[u8; 32]) -> bool {
    subtract(limbs(word), MODULUS).1
}
