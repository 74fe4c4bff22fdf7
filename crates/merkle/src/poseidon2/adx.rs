//! The field's arithmetic with the processor's two carry chains (ADX) and multiplication without flags (BMI2).
//!
//! Compilers do not keep two carry chains apart, and without that a product takes twice the time. Which is most of what a
//! path from a leaf to the root takes, whose hashes depend on one another. The bounds are those of the portable form.

use std::arch::asm;

use super::Arithmetic;
use super::field::{Limbs, MODULUS, NEGATED_INVERSE, TWICE_MODULUS};

/// The modulus and its inverse, where an instruction can address them.
static REDUCTION: [u64; 5] = [MODULUS[0], MODULUS[1], MODULUS[2], MODULUS[3], NEGATED_INVERSE];
static TWICE: Limbs = TWICE_MODULUS;

/// Shows that the processor has the instructions.
#[derive(Clone, Copy)]
pub(super) struct Adx(());

impl Adx {
    pub(super) fn detect() -> Option<Adx> {
        let is_there = std::is_x86_feature_detected!("adx") && std::is_x86_feature_detected!("bmi2");
        is_there.then_some(Adx(()))
    }
}

/// Adds `m` times the modulus, which makes the lowest limb of `t` zero, and drops that limb. `high` is the fifth limb.
macro_rules! reduce {
    () => {
        "mov rdx, {t0}
         imul rdx, qword ptr [rip + {reduction} + 32]
         xor {low:e}, {low:e}
         mulx {next}, {low}, qword ptr [rip + {reduction}]
         adcx {low}, {t0}
         mov {t0}, {next}
         adcx {t0}, {t1}
         mulx {t1}, {low}, qword ptr [rip + {reduction} + 8]
         adox {t0}, {low}
         adcx {t1}, {t2}
         mulx {t2}, {low}, qword ptr [rip + {reduction} + 16]
         adox {t1}, {low}
         adcx {t2}, {t3}
         mulx {t3}, {low}, qword ptr [rip + {reduction} + 24]
         adox {t2}, {low}
         mov {low:e}, 0
         adcx {t3}, {low}
         adox {t3}, {high}"
    };
}

/// Adds `a` times the limb of `b` at an offset to `t`.
macro_rules! multiply_limb {
    ($offset:literal) => {
        concat!(
            "mov rdx, qword ptr [{b} + ",
            $offset,
            "]
             xor {low:e}, {low:e}
             mulx {high}, {low}, {a0}
             adox {t0}, {low}
             adcx {t1}, {high}
             mulx {high}, {low}, {a1}
             adox {t1}, {low}
             adcx {t2}, {high}
             mulx {high}, {low}, {a2}
             adox {t2}, {low}
             adcx {t3}, {high}
             mulx {high}, {low}, {a3}
             adox {t3}, {low}
             mov {low:e}, 0
             adcx {high}, {low}
             adox {high}, {low}"
        )
    };
}

impl Arithmetic for Adx {
    #[inline(always)]
    fn multiply(self, a: Limbs, b: &Limbs) -> Limbs {
        let [t0, t1, t2, t3]: Limbs;
        // SAFETY: `self` exists only where the instructions do. What is read is `b` and two statics; only the named
        // registers are written.
        unsafe {
            asm!(
                "mov rdx, qword ptr [{b}]
                 mulx {t1}, {t0}, {a0}
                 mulx {t2}, {low}, {a1}
                 add {t1}, {low}
                 mulx {t3}, {low}, {a2}
                 adc {t2}, {low}
                 mulx {high}, {low}, {a3}
                 adc {t3}, {low}
                 adc {high}, 0",
                reduce!(),
                multiply_limb!("8"),
                reduce!(),
                multiply_limb!("16"),
                reduce!(),
                multiply_limb!("24"),
                reduce!(),
                a0 = in(reg) a[0],
                a1 = in(reg) a[1],
                a2 = in(reg) a[2],
                a3 = in(reg) a[3],
                b = in(reg) b,
                t0 = out(reg) t0,
                t1 = out(reg) t1,
                t2 = out(reg) t2,
                t3 = out(reg) t3,
                low = out(reg) _,
                high = out(reg) _,
                next = out(reg) _,
                out("rdx") _,
                reduction = sym REDUCTION,
                options(pure, readonly, nostack),
            );
        }
        [t0, t1, t2, t3]
    }

    #[inline(always)]
    fn add(self, a: Limbs, b: &Limbs) -> Limbs {
        let [mut a0, mut a1, mut a2, mut a3] = a;
        // SAFETY: the instructions are those of every processor of this kind. What is read is `b` and a static; only the
        // named registers are written.
        unsafe {
            asm!(
                "add {a0}, qword ptr [{b}]
                 adc {a1}, qword ptr [{b} + 8]
                 adc {a2}, qword ptr [{b} + 16]
                 adc {a3}, qword ptr [{b} + 24]
                 mov {r0}, {a0}
                 mov {r1}, {a1}
                 mov {r2}, {a2}
                 mov {r3}, {a3}
                 sub {r0}, qword ptr [rip + {twice}]
                 sbb {r1}, qword ptr [rip + {twice} + 8]
                 sbb {r2}, qword ptr [rip + {twice} + 16]
                 sbb {r3}, qword ptr [rip + {twice} + 24]
                 cmovnc {a0}, {r0}
                 cmovnc {a1}, {r1}
                 cmovnc {a2}, {r2}
                 cmovnc {a3}, {r3}",
                a0 = inout(reg) a0,
                a1 = inout(reg) a1,
                a2 = inout(reg) a2,
                a3 = inout(reg) a3,
                b = in(reg) b,
                r0 = out(reg) _,
                r1 = out(reg) _,
                r2 = out(reg) _,
                r3 = out(reg) _,
                twice = sym TWICE,
                options(pure, readonly, nostack),
            );
        }
        [a0, a1, a2, a3]
    }
}
