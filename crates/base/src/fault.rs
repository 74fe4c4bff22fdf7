//! An environment that fails on request.
//!
//! [`FaultEnv`] wraps another environment and passes everything through until a test switches a fault on.
//! Clones share their switches, so a test keeps one clone and hands the other to the code under test;
//! the switches act at once on files that are already open.
//!
//! The faults imitate what disks do: a sync that fails reports nothing about what reached the disk, a
//! short write leaves a part behind, a full disk refuses growth but not overwriting.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::{DIRECT_BLOCK_BYTES, Env, EnvFile, OpenMode};

/// Wraps an environment with faults that are switched at run time.
#[derive(Clone)]
pub struct FaultEnv {
    inner: Arc<dyn Env>,
    switches: Arc<Mutex<Switches>>,
}

#[derive(Default)]
struct Switches {
    /// `Some(n)`: n more syncs succeed, then every one fails.
    syncs_left: Option<u64>,
    /// `Some(n)`: files may grow by n more bytes in total, then the disk is full.
    growth_left: Option<u64>,
    /// `Some(n)`: n more bytes are written, then every write stops there and fails.
    write_left: Option<u64>,
    /// Files cannot be opened for direct writes.
    direct_refused: bool,
    sync_delay: Duration,
    clock_offset_micros: i64,
    counts: FaultCounts,
}

/// How often each fault struck since the environment was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Syncs that were asked for, failed ones included.
    pub syncs: u64,
    /// Syncs that were made to fail.
    pub failed_syncs: u64,
    /// Writes or allocations refused or cut because the disk was full.
    pub disk_full: u64,
    /// Writes that were cut short.
    pub short_writes: u64,
}

impl FaultEnv {
    /// Wraps `inner`; all faults are off.
    pub fn new(inner: Arc<dyn Env>) -> FaultEnv {
        FaultEnv { inner, switches: Arc::default() }
    }

    /// Lets `count` more syncs of files and directories succeed, then fails every one with an I/O error.
    pub fn fail_sync_after(&self, count: u64) {
        self.switches.lock().syncs_left = Some(count);
    }

    /// `true`: no file can grow any more. Writes within a file's present length still work.
    pub fn disk_full(&self, full: bool) {
        self.switches.lock().growth_left = full.then_some(0);
    }

    /// Leaves room for files to grow by `bytes` in total, then the disk is full.
    pub fn disk_full_after(&self, bytes: u64) {
        self.switches.lock().growth_left = Some(bytes);
    }

    /// Writes `bytes` more bytes, then cuts the write that crosses the limit there, fails it with an I/O
    /// error and fails every later write without writing anything.
    pub fn short_write_after(&self, bytes: u64) {
        self.switches.lock().write_left = Some(bytes);
    }

    /// Refuses to open files for direct writes, as some file systems do.
    pub fn refuse_direct(&self, refused: bool) {
        self.switches.lock().direct_refused = refused;
    }

    /// Makes every sync take at least `delay`, as a slow disk does.
    pub fn sync_delay(&self, delay: Duration) {
        self.switches.lock().sync_delay = delay;
    }

    /// Moves the wall clock by `offset` microseconds against the wrapped environment's.
    pub fn clock_offset_micros(&self, offset: i64) {
        self.switches.lock().clock_offset_micros = offset;
    }

    /// Switches every fault off.
    pub fn clear(&self) {
        let mut switches = self.switches.lock();
        *switches = Switches { counts: switches.counts, ..Switches::default() };
    }

    /// How often each fault struck so far.
    pub fn counts(&self) -> FaultCounts {
        self.switches.lock().counts
    }

    fn sync_gate(&self) -> io::Result<()> {
        let (delay, failed) = {
            let mut switches = self.switches.lock();
            switches.counts.syncs += 1;
            let failed = match &mut switches.syncs_left {
                None => false,
                Some(0) => true,
                Some(left) => {
                    *left -= 1;
                    false
                }
            };
            switches.counts.failed_syncs += u64::from(failed);
            (switches.sync_delay, failed)
        };
        if !delay.is_zero() {
            self.inner.sleep(delay);
        }
        if failed { Err(injected("sync failed")) } else { Ok(()) }
    }
}

impl Switches {
    /// How many of `wanted` bytes of growth there is room for.
    fn grow(&mut self, wanted: u64) -> u64 {
        match &mut self.growth_left {
            None => wanted,
            Some(left) => {
                let granted = wanted.min(*left);
                *left -= granted;
                self.counts.disk_full += u64::from(granted < wanted);
                granted
            }
        }
    }
}

fn injected(what: &str) -> io::Error {
    io::Error::other(format!("injected fault: {what}"))
}

fn storage_full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

impl Env for FaultEnv {
    fn now_micros(&self) -> i64 {
        self.inner.now_micros().saturating_add(self.switches.lock().clock_offset_micros)
    }

    fn monotonic_ns(&self) -> u64 {
        self.inner.monotonic_ns()
    }

    fn random_bytes(&self, buffer: &mut [u8]) {
        self.inner.random_bytes(buffer);
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn EnvFile>> {
        Ok(Box::new(FaultFile { inner: self.inner.open(path, mode)?, env: self.clone(), direct: false }))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn EnvFile>> {
        if self.switches.lock().direct_refused {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Box::new(FaultFile { inner: self.inner.open_direct(path)?, env: self.clone(), direct: true }))
    }

    fn open_unnamed(&self, directory: &Path) -> io::Result<std::fs::File> {
        self.inner.open_unnamed(directory)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.read_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync_gate()?;
        self.inner.sync_dir(path)
    }

    fn make_private(&self, path: &Path) -> io::Result<()> {
        self.inner.make_private(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        self.inner.spawn(name, body)
    }

    fn join(&self, thread: JoinHandle<()>) -> std::thread::Result<()> {
        self.inner.join(thread)
    }

    fn park(&self, timeout: Option<Duration>) {
        self.inner.park(timeout);
    }

    fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration);
    }
}

struct FaultFile {
    inner: Box<dyn EnvFile>,
    env: FaultEnv,
    /// A write is also a sync, and is cut at whole blocks.
    direct: bool,
}

impl EnvFile for FaultFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_all_at(&self, content: &[u8], offset: u64) -> io::Result<()> {
        let wanted = content.len() as u64;
        let end = offset + wanted;
        let (allowed, error) = {
            let mut switches = self.env.switches.lock();
            let length = self.inner.len()?;
            let growth = end.saturating_sub(length.max(offset));
            let missing = growth - switches.grow(growth);
            let room = wanted - missing;
            match switches.write_left {
                Some(left) if left < room => {
                    switches.write_left = Some(0);
                    switches.counts.short_writes += 1;
                    (left, Some(injected("short write")))
                }
                left => {
                    switches.write_left = left.map(|left| left - room);
                    (room, (missing > 0).then(storage_full))
                }
            }
        };
        let mut allowed = usize::try_from(allowed).expect("no more than the content's length");
        if self.direct {
            allowed -= allowed % DIRECT_BLOCK_BYTES;
        }
        self.inner.write_all_at(&content[..allowed], offset)?;
        match error {
            Some(error) => Err(error),
            None if self.direct => self.env.sync_gate(),
            None => Ok(()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.inner.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let (reachable, full) = {
            let mut switches = self.env.switches.lock();
            let present = self.inner.len()?;
            let growth = length.saturating_sub(present);
            let granted = switches.grow(growth);
            (present + granted, granted < growth)
        };
        self.inner.allocate(reachable)?;
        if full { Err(storage_full()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.env.sync_gate()?;
        self.inner.sync_data()
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        self.inner.try_lock_exclusive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEnv;

    fn file(env: &FaultEnv) -> (tempfile::TempDir, Box<dyn EnvFile>) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = env.open(&directory.path().join("file"), OpenMode::CreateNew).expect("create");
        (directory, file)
    }

    #[test]
    fn syncs_fail_after_the_count_and_work_again_when_cleared() {
        let env = FaultEnv::new(Arc::new(SystemEnv));
        let (directory, file) = file(&env);
        env.fail_sync_after(2);
        file.sync_data().expect("first");
        env.sync_dir(directory.path()).expect("second");
        file.sync_data().expect_err("third");
        env.sync_dir(directory.path()).expect_err("fourth");
        env.clear();
        file.sync_data().expect("cleared");
        assert_eq!(env.counts(), FaultCounts { syncs: 5, failed_syncs: 2, ..FaultCounts::default() });
    }

    #[test]
    fn full_disk_refuses_growth_only() {
        let env = FaultEnv::new(Arc::new(SystemEnv));
        let (_directory, file) = file(&env);
        file.allocate(100).expect("room");
        env.disk_full_after(10);
        let error = file.write_all_at(&[1; 30], 90).expect_err("grows by 20");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.len().expect("length"), 110, "the part there was room for");
        file.write_all_at(&[2; 110], 0).expect("overwriting needs no room");
        assert_eq!(file.allocate(200).expect_err("full").kind(), io::ErrorKind::StorageFull);
        env.disk_full(false);
        file.allocate(200).expect("room again");
        assert_eq!(env.counts().disk_full, 2);
    }

    #[test]
    fn short_write_leaves_a_part_and_fails_from_then_on() {
        let env = FaultEnv::new(Arc::new(SystemEnv));
        let (_directory, file) = file(&env);
        env.short_write_after(5);
        file.write_all_at(b"abc", 0).expect("within the limit");
        file.write_all_at(b"defg", 3).expect_err("crosses the limit");
        assert_eq!(file.len().expect("length"), 5);
        file.write_all_at(b"x", 0).expect_err("later writes fail");
        let mut content = [0; 5];
        assert_eq!(file.read_at(&mut content, 0).expect("read"), 5);
        assert_eq!(&content, b"abcde");
    }

    #[test]
    fn clock_moves_by_the_offset() {
        let env = FaultEnv::new(Arc::new(SystemEnv));
        env.clock_offset_micros(-3_600_000_000);
        let shifted = env.now_micros();
        let behind = SystemEnv.now_micros() - shifted;
        assert!((3_600_000_000..3_601_000_000).contains(&behind), "{behind}");
    }

    #[test]
    fn composite_operations_meet_the_faults() {
        let env = FaultEnv::new(Arc::new(SystemEnv));
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("file");
        env.write_atomic(&path, b"old").expect("write");
        env.fail_sync_after(0);
        env.write_atomic(&path, b"new").expect_err("sync fails");
        assert_eq!(env.read(&path).expect("read"), b"old");
    }
}
