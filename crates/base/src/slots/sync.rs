//! What the slot protocol is built from: atomics and a futex, or shuttle's in the models, which then choose every interleaving.

#[cfg(not(test))]
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(test)]
pub(super) use shuttle::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(not(test))]
pub(super) use real::Futex;

#[cfg(test)]
pub(super) use modelled::Futex;

#[cfg(not(test))]
mod real {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    /// A word that two processes can wait on. All accesses are sequentially consistent: the protocol's sleepers rely on it, and a
    /// word that may put somebody to sleep is not the place to save a fence.
    #[derive(Debug)]
    #[repr(transparent)]
    pub struct Futex(AtomicU32);

    impl Futex {
        /// The value now.
        pub fn load(&self) -> u32 {
            self.0.load(Ordering::SeqCst)
        }

        /// Sets the value; wakes nobody.
        pub fn store(&self, value: u32) {
            self.0.store(value, Ordering::SeqCst);
        }

        /// Sets the value and returns the one before; wakes nobody.
        pub fn swap(&self, value: u32) -> u32 {
            self.0.swap(value, Ordering::SeqCst)
        }

        /// Sets the value if it is `expected`; whether it was. Wakes nobody.
        pub fn exchange(&self, expected: u32, value: u32) -> bool {
            self.0.compare_exchange(expected, value, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        }

        /// Sleeps while the value is `expected`, at most `limit`. May return early.
        pub fn wait(&self, expected: u32, limit: Duration) {
            crate::futex::wait(&self.0, expected, limit);
        }

        /// Wakes all that wait.
        pub fn wake(&self) {
            crate::futex::wake(&self.0, u32::MAX);
        }
    }
}

#[cfg(test)]
mod modelled {
    use std::time::Duration;

    use shuttle::sync::{Condvar, Mutex};

    /// A futex whose waits never time out, so that a lost wake-up is a deadlock that shuttle reports.
    #[derive(Debug, Default)]
    pub struct Futex {
        value: Mutex<u32>,
        changed: Condvar,
    }

    impl Futex {
        pub fn load(&self) -> u32 {
            *self.value.lock().expect("sound")
        }

        pub fn store(&self, value: u32) {
            *self.value.lock().expect("sound") = value;
        }

        pub fn swap(&self, value: u32) -> u32 {
            std::mem::replace(&mut *self.value.lock().expect("sound"), value)
        }

        pub fn exchange(&self, expected: u32, value: u32) -> bool {
            let mut held = self.value.lock().expect("sound");
            let is_expected = *held == expected;
            if is_expected {
                *held = value;
            }
            is_expected
        }

        pub fn wait(&self, expected: u32, _limit: Duration) {
            let value = self.value.lock().expect("sound");
            if *value == expected {
                // One wait, as the kernel's: whoever wakes it may have left the value as it was.
                drop(self.changed.wait(value).expect("sound"));
            }
        }

        pub fn wake(&self) {
            let _value = self.value.lock().expect("sound");
            self.changed.notify_all();
        }
    }
}
