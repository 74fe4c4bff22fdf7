//! The synchronisation the state machine is built from: parking_lot's, or shuttle's in the model tests, which then choose every
//! interleaving. Unit tests of this crate are models for that reason; tests on real threads are in `tests/`.

#[cfg(not(test))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(test))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

#[cfg(test)]
pub(crate) use modelled::{Mutex, MutexGuard};
#[cfg(test)]
pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

#[cfg(test)]
mod modelled {
    pub(crate) use shuttle::sync::MutexGuard;

    /// Shuttle's mutex with parking_lot's interface.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("nothing panics under a lock of a lane")
        }
    }
}
