//! Directories of tests, kept when a test fails.
//!
//! Every directory lies under `target/tine-tests`. One that is dropped by a passing test is removed; when
//! any test of this process panics, everything that is in use then stays, and the panic message says
//! where it is and how to run that test again.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
};

static IN_USE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Name of the note that marks a directory as evidence.
const KEPT: &str = "KEPT";

/// A directory of a test.
#[derive(Debug)]
pub struct TestDirectory {
    path: PathBuf,
}

impl TestDirectory {
    /// A new, empty directory.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(purpose: &str) -> TestDirectory {
        install_hook();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = crate::target().join(format!("tine-tests/{purpose}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        IN_USE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(path.clone());
        TestDirectory { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        let mut in_use = IN_USE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        in_use.retain(|path| *path != self.path);
        if !self.path.join(KEPT).exists() {
            // A file that is still being written may survive; the next run clears the folder.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn install_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            let test = std::thread::current().name().unwrap_or("?").to_owned();
            let Ok(in_use) = IN_USE.try_lock() else { return };
            for path in in_use.iter() {
                let _ = std::fs::write(path.join(KEPT), format!("{test}: {info}\n"));
                eprintln!("data and logs: {}", path.display());
            }
            eprintln!("repeat with: cargo test -p tine-tests -- --exact {test}");
        }));
    });
}
