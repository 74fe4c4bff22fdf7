//! The real machine.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::env::{DIRECT_BLOCK_BYTES, Env, EnvFile, OpenMode};

/// Zeros written per system call by [`EnvFile::allocate`]: large enough that the calls do not matter,
/// small enough to stay in the cache.
const ZERO_CHUNK_BYTES: usize = 256 * 1024;

/// The operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnv;

/// Bytes per write to a direct file, which are copied to an aligned buffer first: a frame of the log under load, and
/// little memory.
const DIRECT_CHUNK_BYTES: usize = 1 << 20;

struct SystemFile {
    file: File,
    /// Whether [`EnvFile::try_lock_exclusive`] got the lock.
    locked: AtomicBool,
}

/// A file opened with `O_DIRECT | O_DSYNC`, and the buffer that the kernel takes its bytes from.
struct DirectFile {
    file: File,
    buffer: Mutex<Vec<DirectBlock>>,
}

/// A block where direct writes want it in memory.
#[derive(Clone)]
#[repr(C, align(4096))]
struct DirectBlock([u8; DIRECT_BLOCK_BYTES]);

impl Env for SystemEnv {
    fn now_micros(&self) -> i64 {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()),
            Err(before) => i64::try_from(before.duration().as_micros()).map(|micros| -micros),
        };
        micros.expect("the wall clock is within 290,000 years of 1970")
    }

    fn now_micros_coarse(&self) -> i64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call only writes the struct it is given.
        let status = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut time) };
        assert_eq!(status, 0, "the system has a clock");
        time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
    }

    fn monotonic_ns(&self) -> u64 {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        let elapsed = ORIGIN.get_or_init(Instant::now).elapsed();
        u64::try_from(elapsed.as_nanos()).expect("the process is younger than 580 years")
    }

    fn random_bytes(&self, buffer: &mut [u8]) {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            // SAFETY: the pointer and length describe `rest`, which is writable and outlives the call.
            let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
            match usize::try_from(count) {
                Ok(count) => filled += count,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    assert!(error.kind() == io::ErrorKind::Interrupted, "no system randomness: {error}");
                }
            }
        }
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn EnvFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        match mode {
            OpenMode::Read | OpenMode::ReadWrite => &mut options,
            OpenMode::Create => options.create(true),
            OpenMode::CreateNew => options.create_new(true),
        };
        Ok(Box::new(SystemFile { file: options.open(path)?, locked: AtomicBool::new(false) }))
    }

    #[cfg(target_os = "linux")]
    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn EnvFile>> {
        let mut options = OpenOptions::new();
        let file = options.write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC).open(path)?;
        Ok(Box::new(DirectFile { file, buffer: Mutex::default() }))
    }

    fn open_unnamed(&self, directory: &Path) -> io::Result<File> {
        let mut suffix = [0; 8];
        self.random_bytes(&mut suffix);
        let path = directory.join(format!(".unnamed-{:016x}", u64::from_le_bytes(suffix)));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths =
            std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
        paths.sort();
        Ok(paths)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn make_private(&self, path: &Path) -> io::Result<()> {
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        std::fs::set_permissions(path, Permissions::from_mode(mode))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(name.to_owned()).spawn(body)
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

impl EnvFile for SystemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_all_at(&self, content: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(content, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        static ZEROS: [u8; ZERO_CHUNK_BYTES] = [0; ZERO_CHUNK_BYTES];
        let mut position = self.len()?;
        while position < length {
            let chunk = usize::try_from(length - position).map_or(ZERO_CHUNK_BYTES, |rest| rest.min(ZERO_CHUNK_BYTES));
            self.file.write_all_at(&ZEROS[..chunk], position)?;
            position += chunk as u64;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => {
                self.locked.store(true, Ordering::Relaxed);
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for SystemFile {
    /// Closing alone gives a lock back only when no copy of the descriptor is left. A process that some other thread is
    /// starting has one of every descriptor until it has become the other program.
    fn drop(&mut self) {
        if *self.locked.get_mut() {
            // An error would mean that there is no lock, and closing comes next.
            let _ = self.file.unlock();
        }
    }
}

impl EnvFile for DirectFile {
    fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_all_at(&self, content: &[u8], offset: u64) -> io::Result<()> {
        if !content.len().is_multiple_of(DIRECT_BLOCK_BYTES) || !offset.is_multiple_of(DIRECT_BLOCK_BYTES as u64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut blocks = self.buffer.lock();
        let mut position = offset;
        for chunk in content.chunks(DIRECT_CHUNK_BYTES) {
            let needed = chunk.len() / DIRECT_BLOCK_BYTES;
            if blocks.len() < needed {
                blocks.resize(needed, DirectBlock([0; DIRECT_BLOCK_BYTES]));
            }
            for (block, bytes) in blocks.iter_mut().zip(chunk.chunks_exact(DIRECT_BLOCK_BYTES)) {
                block.0.copy_from_slice(bytes);
            }
            // SAFETY: `DirectBlock` is `repr(C)` around an array as large as its alignment, so the blocks are
            // `needed * DIRECT_BLOCK_BYTES` initialised bytes without gaps, which the lock keeps from changing.
            let aligned = unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast::<u8>(), chunk.len()) };
            self.file.write_all_at(aligned, position)?;
            position += chunk.len() as u64;
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        // Every write was synced when it returned.
        Ok(())
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocated_range_reads_as_zeros_and_keeps_what_was_there() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = SystemEnv.open(&directory.path().join("file"), OpenMode::CreateNew).expect("create");
        file.write_all_at(b"head", 0).expect("write");
        let length = ZERO_CHUNK_BYTES as u64 * 2 + 17;
        file.allocate(length).expect("allocate");
        assert_eq!(file.len().expect("length"), length);
        file.allocate(10).expect("allocating less than there is changes nothing");
        assert_eq!(file.len().expect("length"), length);
        let content = SystemEnv.read(&directory.path().join("file")).expect("read");
        assert_eq!(&content[..4], b"head");
        assert!(content[4..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn unnamed_files_leave_nothing_behind() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = SystemEnv.open_unnamed(directory.path()).expect("open");
        file.write_all_at(b"content", 4).expect("write");
        assert_eq!(file.metadata().expect("metadata").len(), 11);
        assert!(SystemEnv.read_dir(directory.path()).expect("list").is_empty());
    }

    /// Where the file system takes direct writes, others see them; where not, the error is one of the two named.
    #[test]
    fn direct_writes_are_seen_and_must_be_whole_blocks() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("file");
        let file = SystemEnv.open(&path, OpenMode::CreateNew).expect("create");
        file.allocate(4 << 20).expect("allocate");
        file.sync_data().expect("sync");
        let content: Vec<u8> = (0..DIRECT_CHUNK_BYTES + 2 * DIRECT_BLOCK_BYTES).map(|at| (at / 97) as u8).collect();
        let written = SystemEnv.open_direct(&path).and_then(|direct| {
            let refused = direct.write_all_at(&content[..100], 0).expect_err("not a whole block");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
            direct.write_all_at(&content, DIRECT_BLOCK_BYTES as u64)
        });
        match written {
            Ok(()) => {
                let found = SystemEnv.read(&path).expect("read");
                assert!(found[DIRECT_BLOCK_BYTES..][..content.len()] == content);
                assert_eq!(found.len(), 4 << 20);
            }
            Err(error) => {
                assert!(matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput), "{error}");
            }
        }
    }

    #[test]
    fn lock_is_exclusive_until_the_handle_is_dropped() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("LOCK");
        let first = SystemEnv.open(&path, OpenMode::Create).expect("open");
        let second = SystemEnv.open(&path, OpenMode::Create).expect("open");
        assert!(first.try_lock_exclusive().expect("lock"));
        assert!(!second.try_lock_exclusive().expect("lock"));
        drop(first);
        assert!(second.try_lock_exclusive().expect("lock"));
    }

    /// A process on its way from fork to exec holds copies of all descriptors; it must not hold the locks as well.
    #[test]
    fn a_process_being_started_holds_no_lock() {
        use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
        use std::os::fd::AsRawFd;
        use std::os::unix::process::CommandExt;

        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("LOCK");
        let file = SystemEnv.open(&path, OpenMode::Create).expect("open");
        assert!(file.try_lock_exclusive().expect("lock"));
        let (mut forked, tell_forked): (PipeReader, PipeWriter) = pipe().expect("pipe");
        let (wait_to_go_on, mut go_on) = pipe().expect("pipe");
        let mut command = std::process::Command::new("true");
        let (tell, wait) = (tell_forked.as_raw_fd(), wait_to_go_on.as_raw_fd());
        let pause = move || {
            let mut byte = [0_u8; 1];
            // SAFETY: both descriptors are open in the child, which has copies of all, and the buffers have one byte.
            // write(2) and read(2) may be called between fork and exec.
            unsafe {
                libc::write(tell, byte.as_ptr().cast(), 1);
                libc::read(wait, byte.as_mut_ptr().cast(), 1);
            }
            Ok(())
        };
        // SAFETY: the closure calls nothing but the two functions above.
        unsafe { command.pre_exec(pause) };
        let starting = std::thread::spawn(move || command.status());
        forked.read_exact(&mut [0]).expect("the child is there");
        drop(file);
        let again = SystemEnv.open(&path, OpenMode::Create).expect("open");
        let locked = again.try_lock_exclusive().expect("lock");
        go_on.write_all(&[0]).expect("the child waits");
        assert!(starting.join().expect("no panic").expect("it runs").success());
        assert!(locked, "the lock was given back");
        drop((tell_forked, wait_to_go_on));
    }

    #[test]
    fn open_modes() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("file");
        let kind = |mode| SystemEnv.open(&path, mode).map(|_| ()).map_err(|error| error.kind());
        assert_eq!(kind(OpenMode::Read), Err(io::ErrorKind::NotFound));
        assert_eq!(kind(OpenMode::ReadWrite), Err(io::ErrorKind::NotFound));
        assert_eq!(kind(OpenMode::Create), Ok(()));
        assert_eq!(kind(OpenMode::CreateNew), Err(io::ErrorKind::AlreadyExists));
        assert_eq!(kind(OpenMode::ReadWrite), Ok(()));
        assert!(SystemEnv.open(&path, OpenMode::Read).expect("open").write_all_at(b"x", 0).is_err());
    }

    #[test]
    fn write_atomic_replaces_the_content() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("file");
        SystemEnv.write_atomic(&path, b"a long first content").expect("write");
        SystemEnv.write_atomic(&path, b"second").expect("write");
        assert_eq!(SystemEnv.read(&path).expect("read"), b"second");
        assert_eq!(SystemEnv.read_dir(directory.path()).expect("list"), [path]);
    }

    #[test]
    fn randomness_and_clocks_move() {
        let (mut first, mut second) = ([0_u8; 32], [0_u8; 32]);
        SystemEnv.random_bytes(&mut first);
        SystemEnv.random_bytes(&mut second);
        assert_ne!(first, second);
        let before = SystemEnv.monotonic_ns();
        SystemEnv.sleep(Duration::from_millis(2));
        assert!(SystemEnv.monotonic_ns() >= before + 2_000_000);
        assert!(SystemEnv.now_micros() > 1_600_000_000_000_000);
        assert!(SystemEnv.now_micros_coarse() > 1_600_000_000_000_000);
    }
}
