//! Copying a world state while it is served.
//!
//! A log only grows, so what is complete of it at some moment is the log of a store that had just been closed. Images
//! are copied before the log that goes with them, since a log read later has everything behind them, unless newer
//! images made its beginning superfluous meanwhile: then the copy starts over.
//!
//! Invariant: the copy appears under its name at once and whole. Until then it grows beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tine_base::Env;
use tine_store::{LogFile, Objects, RemoteObjects, Store, image_objects};

use crate::error::WorldError;

/// Where a store keeps its parts below its directory.
const LOG: &str = "log";
const IMAGES: &str = "images";

/// How often a copy starts over because the log was cut at its beginning.
const ATTEMPTS_MAX: usize = 5;

/// Copies that were begun by this process, for their temporary names.
static COPIES: AtomicU64 = AtomicU64::new(0);

/// Copies the store in `source`, which may be at work, to `destination`: everything that was durable before, and maybe
/// some of what came later. Parents of the destination are made.
///
/// # Errors
/// The destination is there and not an empty directory, or the copy cannot be written.
pub(crate) fn copy_store(source: &Path, destination: &Path, env: &Arc<dyn Env>) -> Result<(), WorldError> {
    if fs::symlink_metadata(destination).is_ok() && !is_empty_directory(destination) {
        return Err(WorldError::CopyExists);
    }
    let name = destination.file_name().ok_or(WorldError::CopyExists)?;
    let parent = match destination.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(|error| failed(parent, &error))?;
    let mut partial_name = name.to_owned();
    partial_name.push(format!(".partial-{}-{}", std::process::id(), COPIES.fetch_add(1, Ordering::Relaxed)));
    let partial = parent.join(partial_name);
    let copied = copy_attempts(source, &partial, env).and_then(|()| appear(&partial, destination, parent));
    if copied.is_err() {
        // What remains is no copy by its name; the reason for it is what the caller must know.
        let _ = fs::remove_dir_all(&partial);
    }
    copied
}

fn is_empty_directory(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Gives the finished copy its name. Whoever was first has the name.
fn appear(partial: &Path, destination: &Path, parent: &Path) -> Result<(), WorldError> {
    fs::rename(partial, destination).map_err(|error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            WorldError::CopyExists
        }
        _ => failed(destination, &error),
    })?;
    sync_directory(parent)
}

fn copy_attempts(source: &Path, partial: &Path, env: &Arc<dyn Env>) -> Result<(), WorldError> {
    let place: Arc<dyn Objects> =
        Arc::new(RemoteObjects::directory(&source.join(IMAGES)).map_err(|error| because(&error))?);
    for _ in 0..ATTEMPTS_MAX {
        let images = image_objects(Arc::clone(&place)).map_err(|error| because(&error))?;
        let (names, needed) = images.as_ref().map_or((&[][..], 1), |images| (&images.names[..], images.first_record));
        let mut paths: Vec<(PathBuf, Option<u64>)> =
            names.iter().map(|name| (Path::new(IMAGES).join(name), None)).collect();
        let log = match read_log(source, env) {
            Ok(log) => log,
            // A segment may go while it is read.
            Err(_) if image_objects(Arc::clone(&place)).is_ok_and(|newer| newer != images) => continue,
            Err(failure) => return Err(failure),
        };
        if log.first_record.is_some_and(|first| first > needed) {
            continue;
        }
        paths.extend(
            log.files.iter().map(|file| {
                (Path::new(LOG).join(file.path.file_name().expect("a segment has a name")), Some(file.bytes))
            }),
        );
        match copy_files(source, partial, &paths) {
            Ok(()) => return Ok(()),
            // Deleted since; newer images have what was in it.
            Err((_, error)) if error.kind() == io::ErrorKind::NotFound => {
                fs::remove_dir_all(partial).map_err(|error| failed(partial, &error))?;
            }
            Err((path, error)) => return Err(failed(&path, &error)),
        }
    }
    Err(WorldError::CopyFailed("the log is cut at its beginning faster than it can be copied".to_owned()))
}

struct LogPart {
    files: Vec<LogFile>,
    first_record: Option<u64>,
}

/// Reads the log to its end, which also checks it.
fn read_log(source: &Path, env: &Arc<dyn Env>) -> Result<LogPart, WorldError> {
    let mut reader = Store::read_log(source, Arc::clone(env)).map_err(|error| because(&error))?;
    let mut first_record = None;
    for record in reader.by_ref() {
        let record = record.map_err(|error| because(&error))?;
        first_record = first_record.or(Some(record.sequence));
    }
    Ok(LogPart { files: reader.files().map_err(|error| because(&error))?, first_record })
}

/// Copies files, or their first bytes, to stable storage.
fn copy_files(source: &Path, target: &Path, files: &[(PathBuf, Option<u64>)]) -> Result<(), (PathBuf, io::Error)> {
    let mut directories = vec![target.to_owned()];
    let in_place = |path: &Path| {
        let path = path.to_owned();
        |error| (path, error)
    };
    fs::create_dir_all(target.join(LOG)).map_err(in_place(target))?;
    for (path, bytes) in files {
        let (from, to) = (source.join(path), target.join(path));
        let directory = to.parent().expect("a copied file is in a directory");
        if !directories.iter().any(|known| known == directory) {
            fs::create_dir_all(directory).map_err(in_place(directory))?;
            directories.extend(directory.ancestors().take_while(|above| *above != target).map(Path::to_owned));
        }
        copy_file(&from, &to, *bytes).map_err(in_place(&from))?;
    }
    for directory in directories.iter().rev() {
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(in_place(directory))?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, bytes: Option<u64>) -> io::Result<()> {
    let source = File::open(from)?;
    let wanted = bytes.map_or_else(|| source.metadata().map(|facts| facts.len()), Ok)?;
    let mut target = OpenOptions::new().write(true).create_new(true).open(to)?;
    if io::copy(&mut source.take(wanted), &mut target)? != wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    target.sync_all()
}

fn sync_directory(path: &Path) -> Result<(), WorldError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> WorldError {
    WorldError::CopyFailed(format!("{}: {error}", path.display()))
}

fn because(error: &impl std::error::Error) -> WorldError {
    WorldError::CopyFailed(error.to_string())
}
