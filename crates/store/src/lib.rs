//! A store with branches: ordered byte keyspaces, forks in O(1), snapshot reads from any thread, one durable log.
//!
//! One [`Store`] holds any number of forks. A fork is a copy-on-write line of versions; making one copies a
//! root and nothing else, and nothing that happens to its parent later changes what it reads. A fork has at
//! most one [`Writer`], which runs transactions one after the other; [`Snapshot`]s read published versions
//! and never wait for it.
//!
//! Commits of all durable forks go to one log. A commit is visible to its writer at once, to snapshots after
//! [`Writer::publish`], and on stable storage when [`Store::durable`] reaches its [`DurableTicket`].
//!
//! Invariants:
//! - Pages reachable from a published version are never changed; a writer edits in place only what it alone reaches.
//! - The state after a crash is a prefix of the log that contains everything reported durable.
//! - The log holds the records of a fork in LSN order, densely, and a fork's creation before its commits.
//! - After a failed write or sync nothing more is written or reported durable until the store is opened again.
//! - No async code but in `images/remote.rs`. The crate's threads are the log writer and short-lived ones that prepare
//!   segments and write images; all stores share a small runtime for objects.
//! - A log segment is deleted only when images have what it says about every fork.

mod arena;
mod checkpoint;
mod diff;
mod draft;
mod error;
mod fork;
mod history;
mod ids;
mod images;
mod log;
mod options;
mod overlay;
mod page;
mod read;
mod recovery;
mod store;
mod tree;
mod undo;
mod versions;
mod view;
mod writer;

pub use diff::{CONFLICTS_MAX, Conflict, Diff, Difference, MergePolicy, Resolution, merge_changes};
pub use error::{
    Fault, ForkError, HistoryError, LogError, MergeError, NameError, OpenError, Poison, StoreError, WriteError,
};
pub use history::VersionAt;
pub use ids::{CheckpointId, DurableTicket, ForkId, KeyspaceId, Lsn, Version};
pub use images::{
    ImageCheck, ImageError, ImageObjects, ImageReport, ObjectError, ObjectInfo, Objects, RemoteObjects, check_images,
    check_images_with_progress, copy_images, delete_images, image_objects,
};
pub use log::{LogFile, LogReader, LogRecord, LogRecordKind, Operation};
pub use options::{
    Durability, ForkInfo, ForkOptions, ImagePlace, NamedVersion, RecoveryProgress, RecoveryReport, StoreOptions,
    StoreStats,
};
pub use page::{ChildRef, PAGE_BYTES, PAGE_HEADER_BYTES, PageId, PageKind, RunRef, Stamp};
pub use read::{Cursor, Direction, Read, Snapshot, ValueRef};
pub use store::{FORK_NAME_BYTES_MAX, NAMED_VERSIONS_MAX, Store};
pub use versions::PageCheck;
pub use view::{ImageSummary, StoreView};
pub use writer::{Change, Commit, KEY_BYTES_MAX, Savepoint, VALUE_BYTES_MAX, Writer};
