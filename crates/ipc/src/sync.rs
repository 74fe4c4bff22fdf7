//! The synchronisation that rings and queues are built from: the real one, or shuttle's in the unit tests of this crate, which then
//! choose every interleaving. Shuttle's atomics are no plain words, so tests over real shared memory are in `tests/`.

#[cfg(not(test))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(test))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

#[cfg(test)]
pub(crate) use modelled::Mutex;
#[cfg(test)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

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
