//! Where compiled bundles are kept between runs: `DATA/cache/code/`, readable by the owner alone.
//!
//! One file holds the key that entries are sealed with, made on the first start; every other file is an entry. All of it may be
//! deleted at any time: what is missing is compiled again. Files are bounded in number, because every publish of a developer's loop
//! leaves one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tine_base::Env;
use tine_module::{CodeCache, CodeStorage};

/// Most entries that are kept: 256 of about 200 KiB. When there are more, half of them go; which, their names decide, which are
/// hashes. (An order by use would need a write for every read.)
const ENTRIES_MAX: usize = 256;

const KEY_FILE: &str = "key";
const KEY_BYTES: usize = 32;

/// Opens the cache of a data directory; `None` if it cannot be used, which costs time and nothing else.
pub(crate) fn open(env: &Arc<dyn Env>, data: &Path) -> Option<CodeCache> {
    let directory = data.join("cache/code");
    match key(&**env, &directory) {
        Ok(key) => {
            let storage = Directory { env: env.clone(), directory, writing: Mutex::new(()) };
            Some(CodeCache::new(key, Box::new(storage)))
        }
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "compiled bundles will not be kept");
            None
        }
    }
}

/// The key in a directory, made if it is not there. Nobody else can enter the directory from before the key is in it.
fn key(env: &dyn Env, directory: &Path) -> std::io::Result<[u8; KEY_BYTES]> {
    env.create_dir_all(directory)?;
    env.make_private(directory)?;
    let path = directory.join(KEY_FILE);
    if env.exists(&path)
        && let Ok(key) = <[u8; KEY_BYTES]>::try_from(env.read(&path)?)
    {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    env.random_bytes(&mut key);
    env.write_atomic(&path, &key)?;
    env.make_private(&path)?;
    Ok(key)
}

struct Directory {
    env: Arc<dyn Env>,
    directory: PathBuf,
    /// Held while a file is written: two writers of one name would meet in one temporary file.
    writing: Mutex<()>,
}

impl CodeStorage for Directory {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.directory.join(name);
        // A missing file is the usual case and not worth a word.
        self.env.exists(&path).then(|| self.env.read(&path).ok()).flatten()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let _one_at_a_time = self.writing.lock();
        let path = self.directory.join(name);
        let written = self
            .make_room()
            .and_then(|()| self.env.write_atomic(&path, bytes))
            .and_then(|()| self.env.make_private(&path));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "a compiled bundle could not be kept");
        }
    }
}

impl Directory {
    fn make_room(&self) -> std::io::Result<()> {
        let mut entries = self.env.read_dir(&self.directory)?;
        entries.retain(|path| path.file_name().is_some_and(|name| name != KEY_FILE));
        if entries.len() >= ENTRIES_MAX {
            entries.iter().step_by(2).try_for_each(|path| self.env.remove_file(path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tine_base::SystemEnv;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("exists").permissions().mode() & 0o777
    }

    fn storage(directory: PathBuf) -> Directory {
        Directory { env: Arc::new(SystemEnv), directory, writing: Mutex::new(()) }
    }

    #[test]
    fn the_key_is_made_once_and_private() {
        let data = tempfile::tempdir().expect("temporary directory");
        let directory = data.path().join("cache/code");
        let first = key(&SystemEnv, &directory).expect("made");
        assert_eq!(key(&SystemEnv, &directory).expect("read"), first);
        assert_ne!(first, [0; KEY_BYTES]);
        assert_eq!((mode(&directory), mode(&directory.join(KEY_FILE))), (0o700, 0o600));
        std::fs::write(directory.join(KEY_FILE), b"cut").expect("written");
        assert_ne!(key(&SystemEnv, &directory).expect("made anew"), first);
    }

    #[test]
    fn entries_come_back_and_are_private_and_bounded() {
        let data = tempfile::tempdir().expect("temporary directory");
        let storage = storage(data.path().to_owned());
        assert_eq!(storage.read("00"), None);
        for number in 0..ENTRIES_MAX + 10 {
            storage.write(&format!("{number:04}"), b"entry");
        }
        let newest = format!("{:04}", ENTRIES_MAX + 9);
        assert_eq!(storage.read(&newest).as_deref(), Some(&b"entry"[..]));
        assert_eq!(mode(&data.path().join(newest)), 0o600);
        let kept = std::fs::read_dir(data.path()).expect("readable").count();
        assert_eq!(kept, ENTRIES_MAX / 2 + 10);
    }

    #[test]
    fn without_a_directory_there_is_no_cache() {
        let data = tempfile::tempdir().expect("temporary directory");
        std::fs::write(data.path().join("cache"), b"a file").expect("written");
        let env: Arc<dyn Env> = Arc::new(SystemEnv);
        assert!(open(&env, data.path()).is_none());
    }
}
