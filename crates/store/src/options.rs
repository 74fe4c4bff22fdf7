//! What a store is opened with and what it tells about itself.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::ids::{DurableTicket, ForkId, Lsn, Version};
use crate::images::Objects;

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
    /// About how much memory pages may take that are read from images, in bytes. If the images have more, what is read
    /// goes through a file without a name in the store's directory, and memory beyond this is given back.
    pub image_memory_bytes: u64,
    /// How long what images no longer need stays there, in microseconds, for those who are reading it.
    pub image_age_micros: i64,
    /// Addresses reserved for pages, in bytes: as large as the state can become. Costs nothing until it is used. The
    /// store takes half, and so on, if the system does not have as much.
    pub reservation_bytes: u64,
}

impl StoreOptions {
    /// Segments from 1 MiB (a small database stays small on disk) to 64 MiB (few files, cheap to scan). A history
    /// of seven days or 10 GiB of log. At most 4,096 older versions at hand: an hour of one a second, or, thinned
    /// out, one in three minutes of the whole window. They may take 256 MiB. Pages of images may
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
            image_memory_bytes: crate::arena::memory_bytes() / 2,
            image_age_micros: 3_600 * 1_000_000,
            reservation_bytes: 4 * crate::arena::memory_bytes(),
        }
    }
}

/// Where images are.
#[derive(Clone, Debug, Default)]
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
