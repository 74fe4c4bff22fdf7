//! A machine in memory that can be switched off.
//!
//! It keeps what was written apart from what was synced. [`CrashEnv::crash`] makes the machine that comes up
//! again after the power failed at that instant: of each sector written since the last sync of its file either
//! the old or the new content is there, and of each file created, renamed or removed since the last sync of
//! its directory either the old or the new entry. A sync that fails forgets what it should have written, as
//! kernels do: it can still be read, and no later sync writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tine_base::{DIRECT_BLOCK_BYTES, Env, EnvFile, OpenMode, SystemEnv};

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub struct CrashEnv(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    directories: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, FileRef>,
    durable_names: BTreeMap<PathBuf, FileRef>,
    syncs_fail: bool,
}

#[derive(Clone)]
struct FileRef {
    content: Arc<Mutex<Content>>,
    locked: Arc<AtomicBool>,
}

/// A file's bytes: as they are read, and as they are on the disk.
#[derive(Clone, Default)]
pub struct Content {
    pub now: Vec<u8>,
    synced: Vec<u8>,
    /// Sectors that the next sync writes.
    pub dirty: BTreeSet<usize>,
}

impl Content {
    pub fn write(&mut self, bytes: &[u8], start: usize) {
        self.extend(start + bytes.len());
        self.now[start..start + bytes.len()].copy_from_slice(bytes);
        self.touch(start, start + bytes.len());
    }

    pub fn extend(&mut self, length: usize) {
        let before = self.now.len();
        if before < length {
            self.now.resize(length, 0);
            self.touch(before, length);
        }
    }

    pub fn truncate(&mut self, length: usize) {
        self.now.truncate(length);
        self.synced.truncate(length);
        self.dirty.retain(|sector| sector * SECTOR_BYTES < length);
    }

    pub fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let start = usize::try_from(offset).expect("small").min(self.now.len());
        let count = buffer.len().min(self.now.len() - start);
        buffer[..count].copy_from_slice(&self.now[start..start + count]);
        count
    }

    fn touch(&mut self, start: usize, end: usize) {
        self.dirty.extend(start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
    }

    pub fn sync(&mut self) {
        self.synced.resize(self.now.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(self.now.len());
            self.synced[start..end].copy_from_slice(&self.now[start..end]);
        }
    }

    /// What is there after a power failure.
    pub fn survivor(&self, coin: &mut Coin) -> Content {
        let mut after = self.clone();
        after.dirty.retain(|_| coin.flip());
        let grown = after.now.len() > after.synced.len() && coin.flip();
        let length = if grown { after.now.len() } else { after.synced.len() };
        after.sync();
        after.synced.truncate(length);
        Content { now: after.synced.clone(), synced: after.synced, dirty: BTreeSet::new() }
    }
}

/// A small generator, so that a crash can be repeated from its seed.
pub struct Coin {
    state: u64,
    /// How often of 256 times it says that something survived.
    survivors: u64,
}

impl Coin {
    pub fn new(seed: u64, survivors: u64) -> Coin {
        Coin { state: seed, survivors }
    }

    pub fn flip(&mut self) -> bool {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state >> 56 < self.survivors
    }
}

impl CrashEnv {
    /// Whether syncs of files fail from now on.
    pub fn fail_syncs(&self, fail: bool) {
        self.0.lock().syncs_fail = fail;
    }

    /// The machine after a power failure now; this one goes on untouched.
    pub fn crash(&self, seed: u64) -> CrashEnv {
        let mut coin = Coin::new(seed, 128);
        let disk = self.0.lock();
        // All contents at one instant: writers are held up until the copy is complete.
        let paths: BTreeSet<&PathBuf> = disk.names.keys().chain(disk.durable_names.keys()).collect();
        let mut after = Disk { directories: disk.directories.clone(), ..Disk::default() };
        for path in paths {
            let entry = if coin.flip() { disk.names.get(path) } else { disk.durable_names.get(path) };
            if let Some(file) = entry {
                let content = file.content.lock().survivor(&mut coin);
                after.names.insert(path.clone(), FileRef::new(content));
            }
        }
        after.durable_names = after.names.clone();
        CrashEnv(Arc::new(Mutex::new(after)))
    }
}

impl FileRef {
    fn new(content: Content) -> FileRef {
        FileRef { content: Arc::new(Mutex::new(content)), locked: Arc::default() }
    }
}

struct CrashFile {
    disk: Arc<Mutex<Disk>>,
    file: FileRef,
    holds_lock: AtomicBool,
}

impl CrashFile {
    /// Changes the content while no crash is being taken.
    fn edit<T>(&self, edit: impl FnOnce(&mut Content) -> T) -> T {
        let _disk = self.disk.lock();
        edit(&mut self.file.content.lock())
    }
}

impl Env for CrashEnv {
    fn now_micros(&self) -> i64 {
        SystemEnv.now_micros()
    }

    fn monotonic_ns(&self) -> u64 {
        SystemEnv.monotonic_ns()
    }

    fn random_bytes(&self, buffer: &mut [u8]) {
        SystemEnv.random_bytes(buffer);
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn EnvFile>> {
        let mut disk = self.0.lock();
        let existing = disk.names.get(path).cloned();
        let file = match (existing, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => file,
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                let file = FileRef::new(Content::default());
                disk.names.insert(path.to_path_buf(), file.clone());
                file
            }
        };
        Ok(Box::new(CrashFile { disk: Arc::clone(&self.0), file, holds_lock: AtomicBool::new(false) }))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn EnvFile>> {
        let file = self.0.lock().names.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        let file = CrashFile { disk: Arc::clone(&self.0), file, holds_lock: AtomicBool::new(false) };
        Ok(Box::new(DirectCrashFile(file)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.lock().directories.insert(path.to_path_buf());
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.lock().names.keys().filter(|name| name.parent() == Some(path)).cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        let file = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.lock().names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.lock().names.retain(|name, _| !name.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        let inside = |name: &PathBuf| name.parent() == Some(path);
        let synced: Vec<_> =
            disk.names.iter().filter(|(name, _)| inside(name)).map(|(n, f)| (n.clone(), f.clone())).collect();
        disk.durable_names.retain(|name, _| !inside(name));
        disk.durable_names.extend(synced);
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        let disk = self.0.lock();
        disk.directories.contains(path) || disk.names.contains_key(path)
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        SystemEnv.spawn(name, body)
    }

    fn sleep(&self, duration: Duration) {
        SystemEnv.sleep(duration);
    }
}

impl EnvFile for CrashFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.edit(|content| content.read(buffer, offset)))
    }

    /// In two halves, so that a crash can come in between.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("small");
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for (part, start) in [(first, offset), (second, offset + first.len())] {
            self.edit(|content| content.write(part, start));
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.edit(|content| content.now.len() as u64))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).expect("small");
        self.edit(|content| {
            content.extend(length);
            content.truncate(length);
        });
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.edit(|content| content.extend(usize::try_from(length).expect("small")));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        // As slow as a fast disk, so that records gather and crashes find frames in flight.
        SystemEnv.sleep(Duration::from_micros(50));
        let failing = self.disk.lock().syncs_fail;
        self.edit(|content| if failing { content.dirty.clear() } else { content.sync() });
        if failing { Err(io::Error::other("the disk refuses")) } else { Ok(()) }
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        let got = !self.file.locked.swap(true, Ordering::SeqCst);
        self.holds_lock.fetch_or(got, Ordering::SeqCst);
        Ok(got)
    }
}

/// Every write is followed by a sync.
struct DirectCrashFile(CrashFile);

impl EnvFile for DirectCrashFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert!(bytes.len().is_multiple_of(DIRECT_BLOCK_BYTES) && offset.is_multiple_of(DIRECT_BLOCK_BYTES as u64));
        self.0.write_all_at(bytes, offset)?;
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.0.allocate(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        self.0.try_lock_exclusive()
    }
}

impl Drop for CrashFile {
    fn drop(&mut self) {
        if self.holds_lock.load(Ordering::SeqCst) {
            self.file.locked.store(false, Ordering::SeqCst);
        }
    }
}
