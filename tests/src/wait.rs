//! Waiting for something to become true.

use std::time::{Duration, Instant};

/// How long a test waits for what should happen soon: generous, as the machine may be busy.
pub const SOON: Duration = Duration::from_secs(15);
/// Pause between looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `found` finds something.
///
/// # Panics
/// When nothing is found within [`SOON`].
#[track_caller]
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {} s for {what}", SOON.as_secs());
        std::thread::sleep(PAUSE);
    }
}

/// Like [`until`], for conditions.
///
/// # Panics
/// When it does not become true within [`SOON`].
#[track_caller]
pub fn until_true(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || condition().then_some(()));
}
