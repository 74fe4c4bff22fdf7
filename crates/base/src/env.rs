//! The seam between Tine and the machine.
//!
//! The traits are object safe (`Arc<dyn Env>` is passed around) and blocking: the callers are dedicated
//! threads. Methods that can be built from others have a default body, so that an environment which
//! injects faults into the primitives injects them into the composites too.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

/// Offsets and lengths of writes to a file of [`Env::open_direct`] are multiples of this many bytes: the largest
/// block that disks in use ask for.
pub const DIRECT_BLOCK_BYTES: usize = 4096;

/// How [`Env::open`] treats the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Read an existing file.
    Read,
    /// Read and write an existing file.
    ReadWrite,
    /// Read and write; the file is created empty if it does not exist.
    Create,
    /// Read and write; fails with [`io::ErrorKind::AlreadyExists`] if the file exists.
    CreateNew,
}

/// Clock, randomness, files and threads.
///
/// Errors are those of the operating system, unchanged, so that callers can tell a full disk
/// ([`io::ErrorKind::StorageFull`]) from a broken one.
pub trait Env: Send + Sync + 'static {
    /// Wall clock in microseconds since the Unix epoch. May jump in both directions.
    fn now_micros(&self) -> i64;

    /// [`Env::now_micros`], up to some milliseconds ago: cheaper, for times that nothing is decided by.
    fn now_micros_coarse(&self) -> i64 {
        self.now_micros()
    }

    /// A clock in nanoseconds that never goes back; its origin means nothing.
    fn monotonic_ns(&self) -> u64;

    /// Fills `buffer` from the operating system's cryptographic generator.
    ///
    /// # Panics
    /// If the generator is not available: nothing safe can be done without it.
    fn random_bytes(&self, buffer: &mut [u8]);

    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn EnvFile>>;

    /// Opens an existing file for writing past the page cache: [`EnvFile::write_all_at`] returns when the bytes are on
    /// stable storage. Offsets and lengths must be multiples of [`DIRECT_BLOCK_BYTES`]; only writing is supported.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] or [`io::ErrorKind::InvalidInput`] where that does not work. Some file systems
    /// refuse only the first write, so callers try one before they rely on it.
    fn open_direct(&self, _path: &Path) -> io::Result<Box<dyn EnvFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A file without a name in a directory, which is gone when it is closed: for memory mappings, so one of the
    /// operating system's.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] in an environment without such files.
    fn open_unnamed(&self, _directory: &Path) -> io::Result<std::fs::File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Creates a directory and its missing parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Full paths of the entries of a directory, sorted.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// Renames a file over whatever is at `to`. Durable only after [`Env::sync_dir`] of the parent.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes a file or directory away from everybody but its owner. Does nothing in an environment without owners.
    fn make_private(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Whether something exists at `path`.
    fn exists(&self, path: &Path) -> bool;

    /// Starts a named thread.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;

    /// Waits for a thread of [`Env::spawn`] to end; an error is the panic that ended it.
    ///
    /// # Errors
    /// As [`JoinHandle::join`].
    fn join(&self, thread: JoinHandle<()>) -> std::thread::Result<()> {
        thread.join()
    }

    /// Blocks the calling thread until another unparks it ([`std::thread::Thread::unpark`]), the time is over, or for no
    /// reason at all: callers look again at what they wait for.
    fn park(&self, timeout: Option<Duration>) {
        match timeout {
            None => std::thread::park(),
            Some(timeout) => std::thread::park_timeout(timeout),
        }
    }

    /// Blocks the calling thread.
    fn sleep(&self, duration: Duration);

    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let length = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut content = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut content[filled..], filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        content.truncate(filled);
        Ok(content)
    }

    /// Replaces the content of a file so that a crash leaves either the old content or the new, durably.
    ///
    /// Writes `path` with `.tmp` appended first; two concurrent calls for one path are not supported.
    fn write_atomic(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = self.open(&temporary, OpenMode::Create)?;
        file.set_len(0)?;
        file.write_all_at(content, 0)?;
        file.sync_data()?;
        drop(file);
        self.rename(&temporary, path)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => self.sync_dir(Path::new(".")),
        }
    }
}

/// An open file. Positions are explicit, so one handle may be used by several threads.
pub trait EnvFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at and past the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `content` at `offset`, growing the file if needed. On error any part may have been written.
    fn write_all_at(&self, content: &[u8], offset: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends (with a hole) the file.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Extends the file to at least `length` bytes with zeros that are really written, so that a later
    /// write in that range neither needs space nor changes metadata. Does not sync.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Makes the content, and the metadata needed to read it back, durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Takes an advisory lock that lasts until the handle is dropped. `false`: someone else holds it.
    fn try_lock_exclusive(&self) -> io::Result<bool>;
}
