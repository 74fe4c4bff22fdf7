//! The synchronisation that rings and queues are built from: the real one, or shuttle's in the unit tests of this crate, which then
//! choose every interleaving. Shuttle's atomics are no plain words, so tests over real shared memory are in `tests/`.

#[cfg(not(test))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(test))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A sequentially consistent fence.
///
/// On x86-64 a locked instruction is one, at half the price of the `mfence` that compilers use: it does not wait for earlier loads
/// and has no lines to fetch but the top of the stack.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn full_fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: changes nothing but the flags; without `nomem` the compiler moves no access to memory across it.
    unsafe {
        std::arch::asm!("lock or dword ptr [rsp], 0", options(nostack));
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::sync::atomic::fence(Ordering::SeqCst);
}

#[cfg(test)]
pub(crate) fn full_fence() {
    shuttle::sync::atomic::fence(Ordering::SeqCst);
}

#[cfg(test)]
pub(crate) use modelled::Mutex;
#[cfg(test)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering};

#[cfg(test)]
mod modelled {
    /// Shuttle's mutex with parking_lot's interface.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().expect("nothing panics under this lock")
        }
    }
}
