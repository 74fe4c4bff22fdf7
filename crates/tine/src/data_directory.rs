//! A data directory as tools see it: which files it has, and what its logs tell, without opening it.
//!
//! Nothing here takes a lock or changes a file, so all of it may be used while a server has the
//! directory open. A log is then read up to its last frame that is there completely.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tine_base::SystemEnv;
use tine_host::{DIRECTORY_VERSION, RecordedDatabase, recorded_databases, remembered_url};
use tine_store::{ImagePlace, LogFile, LogReader, LogRecord, LogRecordKind, Store};

use crate::failure::Failure;

/// States the directory's format.
pub const VERSION_FILE: &str = "VERSION";
/// Held by the server that uses the directory.
pub const LOCK_FILE: &str = "LOCK";
/// Keys and the admin token.
pub const KEYS_FOLDER: &str = "keys";
/// The store that knows the databases.
pub const CONTROL_FOLDER: &str = "control";
/// Where the stores of databases are.
pub const DATABASES_FOLDER: &str = "databases";
/// The logs below a store's folder.
pub const LOG_FOLDER: &str = "log";
/// Where a store keeps its images, if there are any yet.
pub const IMAGES_FOLDER: &str = "images";

/// Begins the names of the variables in which the tools of object stores look for credentials and endpoints.
const BUCKET_VARIABLES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// Credentials and endpoints of buckets, from the environment.
pub fn bucket_settings() -> HashMap<String, String> {
    let is_for_buckets = |name: &str| BUCKET_VARIABLES.iter().any(|prefix| name.starts_with(prefix));
    std::env::vars()
        .filter(|(name, _)| is_for_buckets(name))
        .map(|(name, value)| (name.to_lowercase(), value))
        .collect()
}

/// Where the images of a store are: in the bucket that its data directory remembers, if it is one of a database.
///
/// # Errors
/// What the directory remembers cannot be read.
pub fn image_place(store: &Path) -> Result<ImagePlace, Failure> {
    let store = store.canonicalize().unwrap_or_else(|_| store.to_owned());
    let directory = store.parent().filter(|parent| parent.ends_with(DATABASES_FOLDER)).and_then(Path::parent);
    let url = directory.map(|directory| remembered_url(&SystemEnv, directory)).transpose();
    let url = url.map_err(|source| Failure::Serve { source: source.into() })?.flatten();
    Ok(match (url, store.file_name()) {
        (Some(url), Some(name)) => ImagePlace::Url(format!("{url}/{}", name.to_string_lossy()), bucket_settings()),
        _ => ImagePlace::Directory,
    })
}

/// What a log tells.
#[derive(Debug)]
pub struct LogFacts {
    /// Its files, with the bytes of each that belong to what was read.
    pub files: Vec<LogFile>,
    /// Number of the first record there is.
    pub first_record: Option<u64>,
    /// Records.
    pub records: u64,
    /// Time of the newest commit, in microseconds since the Unix epoch.
    pub last_commit_micros: Option<i64>,
}

impl LogFacts {
    /// Bytes of what was read.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Checks that a folder is a data directory of this program's format.
///
/// # Errors
/// When it is not there, is none, or has another format.
pub fn check_version(directory: &Path) -> Result<(), Failure> {
    let path = directory.join(VERSION_FILE);
    let found = fs::read_to_string(&path).map_err(|_| Failure::NotFound {
        message: format!("{} is not a data directory: it has no file {VERSION_FILE}", directory.display()),
        next: Some("name one with --data-dir; `tine config show` tells which is used".to_owned()),
    })?;
    if found == DIRECTORY_VERSION {
        return Ok(());
    }
    Err(Failure::Usage {
        message: format!(
            "{} has format `{}`, this program reads `{}`",
            directory.display(),
            found.trim(),
            DIRECTORY_VERSION.trim()
        ),
        next: Some("use the release of tine that made it".to_owned()),
    })
}

/// Reads a store's log to its end; `each` sees every record.
///
/// # Errors
/// A log that cannot be read or is damaged.
pub fn read_log(store: &Path, mut each: impl FnMut(&LogRecord)) -> Result<LogFacts, Failure> {
    let mut reader: LogReader = Store::read_log(store, Arc::new(SystemEnv))?;
    let (mut records, mut first_record, mut last_commit_micros) = (0, None, None);
    for record in reader.by_ref() {
        let record = record?;
        records += 1;
        first_record = first_record.or(Some(record.sequence));
        if let LogRecordKind::Commit { timestamp_micros, .. } = &record.kind {
            last_commit_micros = last_commit_micros.max(Some(*timestamp_micros));
        }
        each(&record);
    }
    Ok(LogFacts { files: reader.files()?, first_record, records, last_commit_micros })
}

/// Reads the control store's log and the databases it tells of.
///
/// # Errors
/// As [`read_log`], and rows that cannot be decoded.
pub fn read_control(directory: &Path) -> Result<(LogFacts, Vec<RecordedDatabase>), Failure> {
    let mut records = Vec::new();
    let facts = read_log(&directory.join(CONTROL_FOLDER), |record| records.push(record.clone()))?;
    let databases =
        recorded_databases(records.into_iter()).map_err(|source| Failure::Serve { source: source.into() })?;
    Ok((facts, databases))
}

/// What a person calls a database.
pub fn name_of(database: &RecordedDatabase) -> String {
    database.name.as_deref().map_or_else(|| database.identity.to_hex(), str::to_owned)
}

/// The entries of a folder, in order.
///
/// # Errors
/// The operating system's.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    read().map_err(|source| Failure::File { path: folder.to_owned(), source })
}
