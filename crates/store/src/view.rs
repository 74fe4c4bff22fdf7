//! Looking at a store's files without opening it: nothing is locked or changed, and another process may be at work.
//!
//! The log is scanned first, as [`LogReader`] does, up to its last frame that is there completely. What is before that
//! never changes, so recovery then runs on the files cut off there, whatever is appended meanwhile. Only segments that
//! become superfluous can vanish, under the reader or before it comes to the log; then everything is read again from the
//! newer images that made them so.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tine_base::{Env, EnvFile, OpenMode};

use crate::error::OpenError;
use crate::history::Retention;
use crate::ids::{ForkId, KeyspaceId, Version};
use crate::images::{Catalog, Manifest};
use crate::log::{LogFile, LogReader};
use crate::options::{Durability, ForkInfo, NamedVersion, RecoveryProgress, RecoveryReport, StoreOptions};
use crate::read::{Published, Read, Snapshot};
use crate::recovery::{ImageBase, recover};
use crate::store::{LOG_DIRECTORY, open_images, open_pager, reserve_pages};

/// How often everything is read anew because there are newer images. These are far apart, so a second time is rare.
const ATTEMPTS_MAX: usize = 16;

/// The state of a store as its files have it.
pub struct StoreView {
    /// The segments, with the bytes of each up to the last complete frame.
    pub log: Vec<LogFile>,
    /// The first record of the log, 0 without any.
    pub first_record: u64,
    /// The last one, 0 without any.
    pub last_record: u64,
    /// The images, if there are any.
    pub images: Option<ImageSummary>,
    /// What was replayed.
    pub recovery: RecoveryReport,
    /// The named versions, by name.
    pub named: Vec<NamedVersion>,
    forks: Vec<(ForkInfo, Snapshot)>,
}

/// What the newest manifest of a place has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageSummary {
    /// Its number.
    pub manifest: u64,
    /// When it was made, in microseconds since the Unix epoch.
    pub created_at_micros: i64,
    /// Versions.
    pub versions: u64,
    /// Packs.
    pub packs: u64,
    /// Pages in them, of 4,096 bytes.
    pub pages: u64,
}

impl StoreView {
    /// Reads the store in `options.directory`. Of the other options only the place of the images matters.
    ///
    /// # Errors
    /// The files cannot be read, or are damaged.
    pub fn open(
        options: &StoreOptions,
        env: &Arc<dyn Env>,
        progress: &mut dyn FnMut(RecoveryProgress),
    ) -> Result<StoreView, OpenError> {
        let place = open_images(options)?;
        let newest = || Ok::<_, OpenError>(place.as_ref().map(Catalog::newest).transpose()?.flatten());
        let mut attempts = 1;
        loop {
            // Before the log: it has everything behind these images, unless newer ones come meanwhile.
            let images = newest()?;
            let number = images.as_ref().map(|images| images.number);
            match StoreView::read(options, env, place.as_ref(), images, progress) {
                // A segment vanishes after the images that made it superfluous came, be these the ones read or newer.
                Err(error) if attempts < ATTEMPTS_MAX => {
                    let is_gone = |source: &io::Error| source.kind() == io::ErrorKind::NotFound;
                    let vanished = matches!(&error, OpenError::Io { source, .. } if is_gone(source));
                    if !vanished && newest()?.map(|images| images.number) == number {
                        return Err(error);
                    }
                    attempts += 1;
                }
                result => return result,
            }
        }
    }

    fn read(
        options: &StoreOptions,
        env: &Arc<dyn Env>,
        place: Option<&Catalog>,
        newest: Option<Manifest>,
        progress: &mut dyn FnMut(RecoveryProgress),
    ) -> Result<StoreView, OpenError> {
        let log_directory = options.directory.join(LOG_DIRECTORY);
        let mut reader = LogReader::open(&log_directory, Arc::clone(env))?;
        let (mut first_record, mut last_record) = (0, 0);
        for record in reader.by_ref() {
            last_record = record?.sequence;
            first_record = if first_record == 0 { last_record } else { first_record };
        }
        let log = reader.files()?;
        let cut: Arc<dyn Env> = Arc::new(CutEnv { inner: Arc::clone(env), files: log.clone() });
        let pages = reserve_pages(options, &cut)?;
        let pager = place.map(|place| open_pager(place, newest.as_ref(), options, &pages));
        if let Some(pager) = &pager {
            pager.add(newest.as_ref().map_or(&[], |newest| &newest.packs));
            pages.arena.set_pager(Box::new(Arc::clone(pager)));
        }
        let base = newest.as_ref().zip(pager.as_ref()).map(|(manifest, pager)| ImageBase { manifest, pager });
        // Only heads are looked at.
        let retention = Retention::new(&StoreOptions { history_micros: 0, history_bytes: 0, ..options.clone() });
        let recovered = recover(&cut, log_directory, &retention, &pages, base.as_ref(), progress)?;
        let forks = recovered.forks.into_iter().map(|(id, fork)| {
            let head: Published = fork.head;
            let info = ForkInfo {
                id,
                name: fork.name,
                parent: fork.lineage.ancestors().next().and_then(|(_, parent)| parent),
                head: head.lsn,
                durability: Durability::Durable,
                created_at_micros: fork.created_at_micros,
                expires_at_micros: fork.expires_at_micros,
            };
            (info, Snapshot::new(Version { fork: id, lsn: head.lsn }, head))
        });
        let images = newest.as_ref().map(ImageSummary::of);
        let named = recovered.names.iter().map(|(name, named)| NamedVersion::of(name, named)).collect();
        let (recovery, forks) = (recovered.report, forks.collect());
        Ok(StoreView { log, first_record, last_record, images, recovery, named, forks })
    }

    /// The durable forks, by number. A fork's head is the last commit that the log has.
    pub fn forks(&self) -> impl Iterator<Item = &ForkInfo> {
        self.forks.iter().map(|(info, _)| info)
    }

    /// The head of a fork.
    pub fn snapshot(&self, fork: ForkId) -> Option<&Snapshot> {
        self.forks.iter().find(|(info, _)| info.id == fork).map(|(_, snapshot)| snapshot)
    }

    /// The keyspaces of a fork that are not empty, with the number of their records.
    pub fn keyspaces(&self, fork: ForkId) -> Vec<(KeyspaceId, u64)> {
        let Some(snapshot) = self.snapshot(fork) else { return Vec::new() };
        // Recovery applies everything to the trees.
        let trees = snapshot.published().state.trees().iter();
        trees.map(|(keyspace, _)| (*keyspace, snapshot.len(*keyspace))).filter(|(_, records)| *records > 0).collect()
    }
}

impl std::fmt::Debug for StoreView {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StoreView").field("forks", &self.forks().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl ImageSummary {
    fn of(manifest: &Manifest) -> ImageSummary {
        ImageSummary {
            manifest: manifest.number,
            created_at_micros: manifest.created_at_micros,
            versions: manifest.images.len() as u64,
            packs: manifest.packs.len() as u64,
            pages: manifest.packs.iter().map(|pack| u64::from(pack.pages)).sum(),
        }
    }
}

/// The files of a log, cut off where it was read to. Nothing can be changed through it.
struct CutEnv {
    inner: Arc<dyn Env>,
    files: Vec<LogFile>,
}

struct CutFile {
    inner: Box<dyn EnvFile>,
    bytes: u64,
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Env for CutEnv {
    fn now_micros(&self) -> i64 {
        self.inner.now_micros()
    }

    fn monotonic_ns(&self) -> u64 {
        self.inner.monotonic_ns()
    }

    fn random_bytes(&self, buffer: &mut [u8]) {
        self.inner.random_bytes(buffer);
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn EnvFile>> {
        let file = self.files.iter().find(|file| file.path == path).ok_or(io::ErrorKind::NotFound)?;
        match mode {
            OpenMode::Read => Ok(Box::new(CutFile { inner: self.inner.open(path, mode)?, bytes: file.bytes })),
            _ => refused(),
        }
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let inside = self.files.iter().map(|file| &file.path).filter(|file| file.parent() == Some(path));
        Ok(inside.cloned().collect())
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refused()
    }

    fn remove_file(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn remove_dir_all(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.iter().any(|file| file.path.starts_with(path))
    }

    fn spawn(&self, _name: &str, _body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        refused()
    }

    fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration);
    }
}

impl EnvFile for CutFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        self.inner.read_at(&mut buffer[..count], offset)
    }

    fn write_all_at(&self, _content: &[u8], _offset: u64) -> io::Result<()> {
        refused()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inner.len()?.min(self.bytes))
    }

    fn set_len(&self, _length: u64) -> io::Result<()> {
        refused()
    }

    fn allocate(&self, _length: u64) -> io::Result<()> {
        refused()
    }

    fn sync_data(&self) -> io::Result<()> {
        refused()
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        refused()
    }
}
