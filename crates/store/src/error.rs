//! What can go wrong, one enum per operation. Codes are stable; `TN02xx` is this crate's range.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::diff::Conflict;
use crate::draft::EditError;
use crate::ids::{CheckpointId, ForkId, Lsn};
use crate::images::ImageError;
use crate::page::{PageId, Stamp};

/// Why a store could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A file could not be read, written or synced.
    #[error("cannot open the store at {path}")]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Another process, or this one, has the store open.
    #[error("the store at {path} is in use by another process")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The log is damaged before its end: records after the damage are intact, so it is not a torn tail.
    #[error("the log is corrupt: {file} at byte {offset}: {detail}")]
    Corrupt {
        /// The segment file.
        file: PathBuf,
        /// Byte offset of the first damaged frame or header.
        offset: u64,
        /// What does not hold there.
        detail: String,
    },
    /// The log was written by an incompatible release.
    #[error("{file} has log format {found}, this release reads format {expected}")]
    UnsupportedFormat {
        /// The segment file.
        file: PathBuf,
        /// Its format version.
        found: u32,
        /// The format version of this release.
        expected: u32,
    },
    /// The images cannot be read.
    #[error("cannot open the images")]
    Images(#[from] ImageError),
    /// The log could be read but not written.
    #[error("cannot write the log")]
    Store(#[from] StoreError),
    /// The state is larger than the store may become.
    #[error("the state does not fit into the store")]
    Write(#[from] WriteError),
}

impl OpenError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            OpenError::Io { .. } => "TN0201",
            OpenError::Locked { .. } => "TN0202",
            OpenError::Corrupt { .. } => "TN0203",
            OpenError::UnsupportedFormat { .. } => "TN0204",
            OpenError::Images(error) => error.code(),
            OpenError::Store(error) => error.code(),
            OpenError::Write(error) => error.code(),
        }
    }
}

/// Why a log could not be read. See the variants of [`OpenError`] of the same names.
#[derive(Debug, Error)]
pub enum LogError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Damage with intact records after it.
    #[error("the log is corrupt: {file} at byte {offset}: {detail}")]
    Corrupt {
        /// The segment file.
        file: PathBuf,
        /// Byte offset of the first damaged frame or header.
        offset: u64,
        /// What does not hold there.
        detail: String,
    },
    /// Written by an incompatible release.
    #[error("{file} has log format {found}, this release reads format {expected}")]
    UnsupportedFormat {
        /// The segment file.
        file: PathBuf,
        /// Its format version.
        found: u32,
        /// The format version of this release.
        expected: u32,
    },
}

impl LogError {
    /// Stable code, the same as that of the [`OpenError`] it becomes.
    pub fn code(&self) -> &'static str {
        match self {
            LogError::Io { .. } => "TN0201",
            LogError::Corrupt { .. } => "TN0203",
            LogError::UnsupportedFormat { .. } => "TN0204",
        }
    }
}

impl From<LogError> for OpenError {
    fn from(error: LogError) -> OpenError {
        match error {
            LogError::Io { path, source } => OpenError::Io { path, source },
            LogError::Corrupt { file, offset, detail } => OpenError::Corrupt { file, offset, detail },
            LogError::UnsupportedFormat { file, found, expected } => {
                OpenError::UnsupportedFormat { file, found, expected }
            }
        }
    }
}

/// What an open store answers when it cannot do something.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The fork does not exist or was dropped.
    #[error("there is no fork {0}")]
    NoSuchFork(ForkId),
    /// The fork's only writer is taken.
    #[error("fork {0} has a writer already")]
    WriterBusy(ForkId),
    /// The log could not be written or synced earlier: the store is read-only until it is opened again.
    #[error("the store is read-only because {0}")]
    Poisoned(Poison),
    /// [`Store::close`](crate::Store::close) was called.
    #[error("the store is closed")]
    Closed,
    /// The wait ended before the record was durable.
    #[error("the record was not durable in time")]
    Timeout,
    /// All 2^32 keyspace numbers are used up.
    #[error("no keyspace numbers are left")]
    KeyspacesExhausted,
    /// The record is larger than the log takes.
    #[error("a record of {bytes} bytes is over the limit of {limit}")]
    RecordTooLarge {
        /// Size asked for.
        bytes: usize,
        /// The most a record may have.
        limit: usize,
    },
}

impl StoreError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            StoreError::NoSuchFork(_) => "TN0210",
            StoreError::WriterBusy(_) => "TN0211",
            StoreError::Poisoned(Poison { disk_full: false, .. }) => "TN0212",
            StoreError::Closed => "TN0213",
            StoreError::Timeout => "TN0214",
            StoreError::KeyspacesExhausted => "TN0215",
            StoreError::RecordTooLarge { .. } => "TN0216",
            StoreError::Poisoned(Poison { disk_full: true, .. }) => "TN0217",
        }
    }
}

/// The first failure of the log; it makes the store read-only.
#[derive(Clone, Debug)]
pub struct Poison {
    /// What failed, in words.
    pub cause: Arc<str>,
    /// Whether the disk had no room left, rather than being broken.
    pub disk_full: bool,
}

impl fmt::Display for Poison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.cause)
    }
}

/// Why a fork could not be created or renamed.
#[derive(Clone, Debug, Error)]
pub enum ForkError {
    /// Another fork has that name.
    #[error("the name {0:?} is taken by another fork")]
    NameTaken(String),
    /// The name is longer than the log's format takes.
    #[error("a fork name of {bytes} bytes is over the limit of {limit}")]
    NameTooLong {
        /// Size asked for.
        bytes: usize,
        /// The most a name may have.
        limit: usize,
    },
    /// A fork can only replace another one that is as durable.
    #[error("fork {fork} cannot take the place of fork {replaced}: one of them is durable, or they are the same")]
    CannotReplace {
        /// The one that was to go.
        replaced: ForkId,
        /// The one that was to stay.
        fork: ForkId,
    },
    /// The version that a durable fork was to be made from is older than what is kept, so a restart could not find it.
    #[error("the version is not retained any more: the oldest of fork {fork} that is has LSN {oldest}")]
    NotRetained {
        /// The fork of the version.
        fork: ForkId,
        /// Its oldest LSN that is kept.
        oldest: Lsn,
    },
    /// The fork does not exist, or the store cannot write.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ForkError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            ForkError::NameTaken(_) => "TN0220",
            ForkError::NameTooLong { .. } => "TN0221",
            ForkError::CannotReplace { .. } => "TN0222",
            ForkError::NotRetained { .. } => "TN0240",
            ForkError::Store(error) => error.code(),
        }
    }
}

/// Why a version's name could not be given or taken back.
#[derive(Clone, Debug, Error)]
pub enum NameError {
    /// Another version has that name.
    #[error("the name {0:?} is taken by another version")]
    Taken(String),
    /// The name is longer than the log's format takes.
    #[error("a name of {bytes} bytes is over the limit of {limit}")]
    NameTooLong {
        /// Size asked for.
        bytes: usize,
        /// The most a name may have.
        limit: usize,
    },
    /// There is no room for another name.
    #[error("{limit} versions have names, no more can")]
    TooMany {
        /// The most there may be.
        limit: usize,
    },
    /// Versions of ephemeral forks are gone at the next opening, and so would be the name.
    #[error("fork {0} is ephemeral, so its versions cannot be kept")]
    NotDurable(ForkId),
    /// The version is older than what is kept.
    #[error("the version is not retained any more: the oldest of fork {fork} that is has LSN {oldest}")]
    NotRetained {
        /// The fork of the version.
        fork: ForkId,
        /// Its oldest LSN that is kept.
        oldest: Lsn,
    },
    /// No version has that name.
    #[error("no version has the name {0:?}")]
    NoSuchName(String),
    /// The fork does not exist, or the store cannot write.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl NameError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            NameError::Taken(_) => "TN0223",
            NameError::NameTooLong { .. } => "TN0221",
            NameError::TooMany { .. } => "TN0224",
            NameError::NotDurable(_) => "TN0225",
            NameError::NotRetained { .. } => "TN0240",
            NameError::NoSuchName(_) => "TN0226",
            NameError::Store(error) => error.code(),
        }
    }
}

/// Why an older version cannot be had.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// The version is older than what is kept.
    #[error("the version is not retained: the oldest of fork {fork} that is has LSN {oldest}")]
    NotRetained {
        /// The fork that was asked.
        fork: ForkId,
        /// The oldest LSN that can be asked for.
        oldest: Lsn,
    },
    /// The fork has not come so far.
    #[error("there is no such version yet: the newest of fork {fork} has LSN {head}")]
    NoSuchVersion {
        /// The fork that was asked.
        fork: ForkId,
        /// Its newest LSN.
        head: Lsn,
    },
    /// The log between the nearest version at hand and the one asked for cannot be read.
    #[error("the version cannot be reached")]
    Log(#[from] LogError),
    /// The commits between the nearest version at hand and the one asked for cannot be applied.
    #[error("the version cannot be made")]
    Write(#[from] WriteError),
    /// The fork does not exist, or the log has failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HistoryError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            HistoryError::NotRetained { .. } => "TN0240",
            HistoryError::NoSuchVersion { .. } => "TN0241",
            HistoryError::Log(error) => error.code(),
            HistoryError::Write(error) => error.code(),
            HistoryError::Store(error) => error.code(),
        }
    }
}

/// Why a write was refused. The transaction is as it was before the refused operation, except that a
/// refused commit rolls it back.
#[derive(Clone, Debug, Error)]
pub enum WriteError {
    /// The key is too long.
    #[error("a key of {bytes} bytes is over the limit of {limit}")]
    KeyTooLong {
        /// Size asked for.
        bytes: usize,
        /// The most a key may have.
        limit: usize,
    },
    /// The value is too long.
    #[error("a value of {bytes} bytes is over the limit of {limit}")]
    ValueTooLong {
        /// Size asked for.
        bytes: usize,
        /// The most a value may have.
        limit: usize,
    },
    /// The transaction's writes do not fit into one log record.
    #[error("a transaction of {bytes} bytes is over the limit of {limit}")]
    TransactionTooLarge {
        /// Size asked for.
        bytes: usize,
        /// The most a transaction may write.
        limit: usize,
    },
    /// The fork was dropped while the writer was open.
    #[error("fork {0} was dropped")]
    ForkDropped(ForkId),
    /// The checkpoint was committed or reverted before, or belongs to another fork.
    #[error("checkpoint {0} is not open")]
    NoSuchCheckpoint(CheckpointId),
    /// Too many checkpoints are nested.
    #[error("{limit} checkpoints are open, no more can be nested")]
    CheckpointsTooDeep {
        /// The most that may be open on one fork.
        limit: usize,
    },
    /// The changes since the outermost open checkpoint take too much memory to keep revertible.
    #[error("the open checkpoint holds {bytes} bytes of changes, over the limit of {limit}")]
    CheckpointTooLarge {
        /// Size that would have been reached.
        bytes: usize,
        /// The most that is kept.
        limit: usize,
    },
    /// A checkpoint can only begin or end between transactions.
    #[error("the transaction has uncommitted changes")]
    UncommittedChanges,
    /// All pages that the store may have are in use; see [`StoreOptions`](crate::StoreOptions).
    #[error("the store has no room: all of its pages are in use")]
    NoRoom,
    /// A page on the way to the key cannot be read.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The store cannot write.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<EditError> for WriteError {
    fn from(error: EditError) -> WriteError {
        match error {
            EditError::Fault(fault) => WriteError::Fault(fault),
            EditError::Full => WriteError::NoRoom,
        }
    }
}

impl WriteError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            WriteError::KeyTooLong { .. } => "TN0230",
            WriteError::ValueTooLong { .. } => "TN0231",
            WriteError::TransactionTooLarge { .. } => "TN0232",
            WriteError::ForkDropped(_) => "TN0233",
            WriteError::NoSuchCheckpoint(_) => "TN0234",
            WriteError::CheckpointsTooDeep { .. } => "TN0235",
            WriteError::CheckpointTooLarge { .. } => "TN0236",
            WriteError::UncommittedChanges => "TN0237",
            WriteError::NoRoom => "TN0238",
            WriteError::Fault(fault) => fault.code(),
            WriteError::Store(error) => error.code(),
        }
    }
}

/// Why a merge was not applied; nothing of it was.
#[derive(Clone, Debug, Error)]
pub enum MergeError {
    /// Both sides changed the same keys to different values, and nobody decided what holds.
    #[error("both sides changed {} keys to different values", .0.len())]
    Conflicts(Vec<Conflict>),
    /// A state cannot be read.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A change was refused.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl MergeError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            MergeError::Conflicts(_) => "TN0239",
            MergeError::Fault(fault) => fault.code(),
            MergeError::Write(error) => error.code(),
        }
    }
}

/// Why a read failed although the version exists.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Fault {
    /// A page is not what the reference to it promises: memory or an image is damaged, or the store has a fault.
    #[error("page {page} is damaged: it was to have birth {birth}")]
    CorruptPage {
        /// Its place in the arena.
        page: u32,
        /// The birth that it was to have.
        birth: u64,
    },
    /// The image that has the page cannot be read.
    #[error("a page cannot be brought from its image")]
    Image(#[source] Arc<ImageError>),
}

impl Fault {
    pub(crate) fn image(error: ImageError) -> Fault {
        Fault::Image(Arc::new(error))
    }

    pub(crate) fn corrupt_page(page: PageId, birth: Stamp) -> Fault {
        Fault::CorruptPage { page: page.get(), birth: birth.get() }
    }

    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Fault::CorruptPage { .. } => "TN0250",
            Fault::Image(error) => error.code(),
        }
    }
}
