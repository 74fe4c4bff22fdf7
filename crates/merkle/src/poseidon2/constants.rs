//! The constants of Poseidon2 over BN254 with four words, computed at compile time as their authors define them: by
//! the Grain generator, an 80-bit shift register seeded with the parameters.

use super::field::{self, Limbs, MODULUS};

/// Words of the state.
pub(super) const WIDTH: usize = 4;
/// Full rounds before and after the partial ones.
pub(super) const FULL_ROUNDS_HALF: usize = 4;
/// Rounds in which only the first word goes through the fifth power.
pub(super) const PARTIAL_ROUNDS: usize = 56;

const CONSTANTS: usize = 2 * FULL_ROUNDS_HALF * WIDTH + PARTIAL_ROUNDS;

/// Round constants in Montgomery form.
pub(super) struct RoundConstants {
    pub(super) first: [[Limbs; WIDTH]; FULL_ROUNDS_HALF],
    pub(super) partial: [Limbs; PARTIAL_ROUNDS],
    pub(super) last: [[Limbs; WIDTH]; FULL_ROUNDS_HALF],
}

pub(super) static ROUND: RoundConstants = round_constants();

/// The diagonal of the inner matrix less one, in Montgomery form.
pub(super) static DIAGONAL: [Limbs; WIDTH] = DIAGONAL_VALUES;

const DIAGONAL_VALUES: [Limbs; WIDTH] = [
    field::enter([0xb568_21fd_19d3_b6e7, 0x0d03_f989_29ca_1d7f, 0x04b1_e03b_4bd9_490c, 0x10dc_6e9c_006e_a38b]),
    field::enter([0xa86b_38cf_b45a_740b, 0x99df_9756_d4dd_9b84, 0x0149_b3d0_a30b_3bb5, 0x0c28_145b_6a44_df3e]),
    field::enter([0x7006_7d00_141c_ac15, 0xb21f_75bb_60e3_5961, 0xb2c7_645a_5039_2798, 0x0054_4b83_3879_1518]),
    field::enter([0x13bc_5344_33ee_428b, 0x52e1_05a3_b8fa_8526, 0x2e2e_82eb_1227_89e3, 0x222c_0117_5718_386f]),
];

struct Grain(u128);

impl Grain {
    /// Field of prime order, fifth power, 254 bits, four words, eight full rounds, the partial ones, thirty ones.
    const fn new() -> Grain {
        let mut register = 1u128;
        let parameters: [(u128, u32); 5] =
            [(0, 4), (254, 12), (WIDTH as u128, 12), (2 * FULL_ROUNDS_HALF as u128, 10), (PARTIAL_ROUNDS as u128, 10)];
        let mut index = 0;
        while index < parameters.len() {
            register = register << parameters[index].1 | parameters[index].0;
            index += 1;
        }
        let mut grain = Grain(register << 30 | ((1 << 30) - 1));
        let mut skipped = 0;
        while skipped < 160 {
            grain.step();
            skipped += 1;
        }
        grain
    }

    /// The oldest bit of the register is bit 79.
    const fn step(&mut self) -> u64 {
        let register = self.0;
        let bit =
            (register >> 17 ^ register >> 28 ^ register >> 41 ^ register >> 56 ^ register >> 66 ^ register >> 79) & 1;
        self.0 = (register << 1 | bit) & ((1 << 80) - 1);
        bit as u64
    }

    /// Of each pair of bits the first says whether the second counts.
    const fn bit(&mut self) -> u64 {
        while self.step() == 0 {
            self.step();
        }
        self.step()
    }

    /// The next number of 254 bits that is below the modulus.
    const fn number(&mut self) -> Limbs {
        loop {
            let mut value: Limbs = field::ZERO;
            let mut position = 254;
            while position > 0 {
                position -= 1;
                value[position / 64] |= self.bit() << (position % 64);
            }
            if is_below_modulus(value) {
                return value;
            }
        }
    }
}

const fn is_below_modulus(value: Limbs) -> bool {
    let mut limb = 4;
    while limb > 0 {
        limb -= 1;
        if value[limb] != MODULUS[limb] {
            return value[limb] < MODULUS[limb];
        }
    }
    false
}

#[allow(long_running_const_eval)] // A hundred thousand steps of the generator.
const fn round_constants() -> RoundConstants {
    let mut all = [field::ZERO; CONSTANTS];
    let mut grain = Grain::new();
    let mut index = 0;
    while index < CONSTANTS {
        all[index] = field::enter(grain.number());
        index += 1;
    }
    let mut constants = RoundConstants {
        first: [[field::ZERO; WIDTH]; FULL_ROUNDS_HALF],
        partial: [field::ZERO; PARTIAL_ROUNDS],
        last: [[field::ZERO; WIDTH]; FULL_ROUNDS_HALF],
    };
    let last_start = FULL_ROUNDS_HALF * WIDTH + PARTIAL_ROUNDS;
    let mut index = 0;
    while index < FULL_ROUNDS_HALF * WIDTH {
        constants.first[index / WIDTH][index % WIDTH] = all[index];
        constants.last[index / WIDTH][index % WIDTH] = all[last_start + index];
        index += 1;
    }
    let mut index = 0;
    while index < PARTIAL_ROUNDS {
        constants.partial[index] = all[FULL_ROUNDS_HALF * WIDTH + index];
        index += 1;
    }
    constants
}
