//! What a store is opened with and what it tells about itself.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ids::{DurableTicket, ForkId, Lsn, Version};
use crate::images::{ImageError, Objects, RemoteObjects};
use crate::store::{IMAGES_DIRECTORY, Named};

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Where it lives; created if missing. The log is in `log/` below it.
    pub directory: PathBuf,
    /// Size of the first log segment in bytes. Each further one is twice as large, up to the maximum.
    pub segment_bytes_min: u64,
    /// Size in bytes at which segments stop growing.
    pub segment_bytes_max: u64,
    /// How long a version that was replaced can still be asked for, in microseconds.
    pub history_micros: i64,
    /// How many bytes of log back it can be asked for.
    pub history_bytes: u64,
    /// Most older versions kept at hand, besides one for each fork; the others are reached through the log.
    pub pins_max: u64,
    /// Most bytes that those versions may keep in memory.
    pub pin_bytes_max: u64,
    /// Where images are written, and looked for.
    pub images: ImagePlace,
    /// Bytes of log after which the state is imaged again, if it did not grow so large that a longer log is in
    /// proportion; see [`Store::image`](crate::Store::image).
    pub image_bytes: u64,
    /// About how much memory pages may take, in bytes. What is written beyond it lies in a file without a name in the
    /// store's directory, and what is read from images goes through that file if they have more: the system takes the
    /// memory of such pages when it is short of some, and brings them back.
    pub memory_bytes: u64,
    /// How long what images no longer need stays there, in microseconds, for those who are reading it.
    pub image_age_micros: i64,
    /// Addresses reserved for pages, in bytes: as large as the state can become. Costs nothing until it is used. The
    /// store takes half, and so on, if the system does not have as much.
    pub reservation_bytes: u64,
}

impl StoreOptions {
    /// Segments from 1 MiB (a small database stays small on disk) to 64 MiB (few files, cheap to scan). A history
    /// of seven days or 10 GiB of log. At most 4,096 older versions at hand: an hour of one a second, or, thinned
    /// out, one in three minutes of the whole window. They may take 256 MiB. Pages may
    /// take half of the memory. Images after 32 MiB of log, which are applied
    /// again in half a second. Room for four times the memory that the machine has.
    pub fn new(directory: impl Into<PathBuf>) -> StoreOptions {
        StoreOptions {
            directory: directory.into(),
            segment_bytes_min: 1 << 20,
            segment_bytes_max: 64 << 20,
            history_micros: 7 * 24 * 3_600 * 1_000_000,
            history_bytes: 10 << 30,
            pins_max: 4096,
            pin_bytes_max: 256 << 20,
            images: ImagePlace::Directory,
            image_bytes: 32 << 20,
            memory_bytes: crate::arena::memory_bytes() / 2,
            image_age_micros: 3_600 * 1_000_000,
            reservation_bytes: 4 * crate::arena::memory_bytes(),
        }
    }
}

/// Where images are.
#[derive(Clone, Default)]
pub enum ImagePlace {
    /// In the directory `images` beside the log.
    #[default]
    Directory,
    /// In a bucket: its URL, and settings as [`RemoteObjects::url`](crate::RemoteObjects::url) takes them.
    Url(String, HashMap<String, String>),
    /// In a place of the caller's.
    Objects(Arc<dyn Objects>),
    /// There are none: opening replays the whole log, and no segment is ever deleted.
    Nowhere,
}

impl ImagePlace {
    /// The objects of the place that a store in `directory` has; `None` if it has none.
    ///
    /// # Errors
    /// The place cannot be one.
    pub fn objects(&self, directory: &Path) -> Result<Option<Arc<dyn Objects>>, ImageError> {
        Ok(Some(match self {
            ImagePlace::Directory => Arc::new(RemoteObjects::directory(&directory.join(IMAGES_DIRECTORY))?),
            ImagePlace::Url(url, settings) => Arc::new(RemoteObjects::url(url, settings.clone())?),
            ImagePlace::Objects(objects) => Arc::clone(objects),
            ImagePlace::Nowhere => return Ok(None),
        }))
    }
}

impl fmt::Debug for ImagePlace {
    /// Without the settings of a bucket, which are secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImagePlace::Directory => formatter.write_str("Directory"),
            ImagePlace::Url(url, _) => formatter.debug_tuple("Url").field(url).finish_non_exhaustive(),
            ImagePlace::Objects(objects) => formatter.debug_tuple("Objects").field(objects).finish(),
            ImagePlace::Nowhere => formatter.write_str("Nowhere"),
        }
    }
}

/// Whether a fork outlives the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Its creation and commits are logged.
    #[default]
    Durable,
    /// Never logged, gone when the store closes. So are all forks made from it.
    Ephemeral,
}

/// How to make a fork.
#[derive(Clone, Debug, Default)]
pub struct ForkOptions {
    /// Unique in the store, or empty: then the fork has none, and is found by its number only. The store only bounds its length; what a good name is, the caller decides.
    pub name: String,
    /// Ignored, as if ephemeral, when the parent is ephemeral.
    pub durability: Durability,
    /// When it is to be dropped, in microseconds since the Unix epoch. Kept for whoever drops it: the store does not.
    pub expires_at_micros: Option<i64>,
}

/// A fork as [`Store::forks`](crate::Store::forks) lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkInfo {
    /// Its immutable number.
    pub id: ForkId,
    /// Its present name.
    pub name: String,
    /// The version it was made from, which may belong to a fork that is gone; `None` for the first fork.
    pub parent: Option<Version>,
    /// The last published commit.
    pub head: Lsn,
    /// Whether it outlives the process.
    pub durability: Durability,
    /// When it was made, in microseconds since the Unix epoch.
    pub created_at_micros: i64,
    /// When it is to be dropped, in microseconds since the Unix epoch.
    pub expires_at_micros: Option<i64>,
}

/// A version with a name; see [`Store::name_version`](crate::Store::name_version).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedVersion {
    /// Its name.
    pub name: String,
    /// Which version; its fork may be gone.
    pub version: Version,
    /// Time of its last commit in microseconds since the Unix epoch; 0 if there is none.
    pub timestamp_micros: i64,
}

impl NamedVersion {
    pub(crate) fn of(name: &str, named: &Named) -> NamedVersion {
        let (version, timestamp_micros) = (named.version, named.state.timestamp_micros);
        NamedVersion { name: name.to_owned(), version, timestamp_micros }
    }
}

/// How far recovery is; see [`Store::open_with_progress`](crate::Store::open_with_progress).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryProgress {
    /// Bytes of log worked through. The log is read twice: once to check it, once to apply it.
    pub bytes_done: u64,
    /// Bytes there are to work through.
    pub bytes_total: u64,
}

/// What recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Records applied, of all kinds.
    pub records: u64,
    /// Commits among them.
    pub commits: u64,
    /// Log segments read.
    pub segments: u64,
    /// Bytes of a torn tail that were cut off.
    pub truncated_bytes: u64,
    /// Duration in milliseconds.
    pub elapsed_ms: u64,
}

/// Counters of an open store. Totals count from the opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Forks alive.
    pub forks: u64,
    /// Last record handed to the log.
    pub appended: DurableTicket,
    /// Last record on stable storage.
    pub durable: DurableTicket,
    /// Frames written, each with one sync.
    pub frames: u64,
    /// Bytes of frames written.
    pub bytes_logged: u64,
    /// Bytes of records waiting for the log thread now.
    pub queue_bytes: u64,
    /// The bound of `queue_bytes` at which writers wait.
    pub queue_bytes_max: u64,
    /// Times a writer had to wait for room in the queue.
    pub queue_waits: u64,
    /// Time spent in writing and syncing, in nanoseconds.
    pub log_busy_ns: u64,
    /// Number of the segment being written.
    pub segment: u64,
    /// Older versions at hand, besides one for each fork.
    pub pins: u64,
    /// Bytes that these keep in memory, as far as is known.
    pub pin_bytes: u64,
    /// Versions that something holds: heads, pins, snapshots, and those that forks began with.
    pub versions: u64,
    /// Pages of 4,096 bytes in use.
    pub pages: u64,
    /// Pages that were in use and are free.
    pub pages_free: u64,
    /// Pages there can be.
    pub pages_max: u64,
}
