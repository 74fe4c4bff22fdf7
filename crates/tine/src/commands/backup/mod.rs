//! `tine backup` and `tine restore`
//!
//! A backup is a folder laid out as a data directory, with a list of its files in `backup.json`: their
//! sizes and BLAKE3 hashes. It may be taken while a server works. Logs only grow, so the part that was
//! complete when it was read is a log of its own: a prefix of history, with everything that was confirmed
//! before the backup began.
//!
//! Invariants:
//!
//! - The control store is copied first, and then the databases that this copy names. A database is made
//!   before the control store names it, so each is there; one that is deleted meanwhile starts the backup
//!   over.
//! - Images are copied before the log they go with: the manifest, as it was then, with the packs it names. The log read
//!   after it has everything behind it, unless newer images made segments superfluous meanwhile; then the copy begins
//!   over.
//! - Of a log exactly the bytes of complete frames are copied: a raw copy could catch a frame half written
//!   and a later one whole, which is what damage looks like.
//! - A file or folder that this program does not know is an error: leaving it out could make the copy
//!   worthless, and nobody would know until it is needed.
//! - `backup.json` is written last. Without it a folder is not a backup.
//! - Restoring checks everything before the data directory appears under its name.

mod copy;
mod manifest;
mod restore;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use clap::Args;
use serde_json::json;
use tine_host::{IMAGES_FILE, RecordedDatabase};
use tine_store::{ImageError, image_objects};

pub use self::restore::run as restore;
use self::{
    copy::Copier,
    manifest::{Manifest, SavedDatabase},
};
use crate::{
    args::GlobalArgs,
    data_directory::{
        CONTROL_FOLDER, IMAGES_FOLDER, KEYS_FOLDER, LOCK_FILE, LOG_FOLDER, LogFacts, VERSION_FILE, check_version,
        entries, image_place, name_of, read_control, read_log,
    },
    failure::Failure,
    output::{Output, duration_text},
    progress::Progress,
    settings::{Settings, create_private_directory},
};

/// How often a backup is begun again because databases were deleted under it.
const ATTEMPTS_MAX: usize = 3;
/// What a data directory may hold besides what is copied: the lock, the address of the server that runs, compiled code that
/// is made again when it is missing, and where images are, since the copy has its own beside the logs.
const LEFT_OUT: [&str; 4] = [LOCK_FILE, "address", "cache", IMAGES_FILE];
/// What is copied of a data directory, each in its own way.
const PARTS: [&str; 4] = [VERSION_FILE, KEYS_FOLDER, CONTROL_FOLDER, "databases"];
/// What modules printed, which is copied as far as it is written.
const MODULE_LOGS: [&str; 2] = ["module.log", "module.log.old"];

/// `tine backup`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine backup /backups/monday
  tine backup ./copy --data-dir ./data

A server may use the directory meanwhile: the backup has everything that was confirmed before it began.
It holds the server's keys, so it is readable by its owner only; keep it so.")]
pub struct BackupArgs {
    /// New folder for the backup
    #[arg(value_name = "FOLDER")]
    pub target: PathBuf,
}

/// `tine restore`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine restore /backups/monday --check
  tine restore /backups/monday --data-dir ./data

The data directory must be new or empty. Every file is compared with the backup's list and every log is
read to its end before the directory appears.")]
pub struct RestoreArgs {
    /// Folder with the backup
    #[arg(value_name = "FOLDER")]
    pub source: PathBuf,
    /// Only check the backup
    #[arg(long)]
    pub check: bool,
}

/// Why one attempt of a backup ended early.
enum Interrupted {
    /// A database that the control store named is gone.
    Deleted,
    Failed(Failure),
}

impl<F: Into<Failure>> From<F> for Interrupted {
    fn from(failure: F) -> Interrupted {
        Interrupted::Failed(failure.into())
    }
}

/// Copies the data directory.
///
/// # Errors
/// A directory that is none, a target that is not new, damage in a log, and the operating system's errors.
pub fn backup(args: &BackupArgs, global: &GlobalArgs, output: &Output) -> Result<(), Failure> {
    let started = Instant::now();
    let source = Settings::load(global)?.data_dir;
    check_version(&source)?;
    let target = new_folder(&args.target)?;
    if target.starts_with(source.canonicalize().unwrap_or_default()) {
        // It is empty, since it is new: nothing is lost.
        let _ = fs::remove_dir(&target);
        return Err(Failure::usage(format!("{} is inside of the data directory", args.target.display())));
    }
    let mut attempts = 0;
    let manifest = loop {
        attempts += 1;
        match copy_all(&source, &target) {
            Ok(manifest) => break manifest,
            Err(Interrupted::Deleted) if attempts < ATTEMPTS_MAX => copy::empty(&target)?,
            Err(Interrupted::Deleted) => {
                return Err(Failure::Backup {
                    message: "databases are being deleted while they are copied".to_owned(),
                    next: Some("try again when fewer databases are deleted"),
                });
            }
            Err(Interrupted::Failed(failure)) => return Err(failure),
        }
    };
    manifest.write(&target)?;
    let took_us = started.elapsed().as_micros() as u64;
    let (bytes, databases) = (manifest.bytes(), manifest.databases.len());
    if output.is_json() {
        return output.json(&json!({
            "backup": target, "data_dir": source, "databases": manifest.databases, "files": manifest.files.len(),
            "bytes": bytes, "took_us": took_us,
        }));
    }
    output.line(&format!(
        "backed up {} ({}) to {} in {}",
        counted(databases, "database"),
        mebibytes(bytes),
        args.target.display(),
        duration_text(took_us)
    ))
}

fn copy_all(source: &Path, target: &Path) -> Result<Manifest, Interrupted> {
    for path in entries(source)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !PARTS.contains(&&*name) && !LEFT_OUT.contains(&&*name) {
            return Err(unknown(&path).into());
        }
    }
    let (control, databases) = read_control(source)?;
    let progress = Progress::new("copying", size_of(source, &databases));
    let mut copier = Copier::new(source, target, progress);
    copier.file(Path::new(VERSION_FILE), None)?;
    for path in entries(&source.join(KEYS_FOLDER))? {
        copier.file(&Path::new(KEYS_FOLDER).join(path.file_name().unwrap_or_default()), None)?;
    }
    copy_log(&mut copier, source, Path::new(CONTROL_FOLDER), &control)?;
    let mut saved = Vec::with_capacity(databases.len());
    for database in &databases {
        saved.push(copy_database(&mut copier, source, database)?);
    }
    let files = copier.finish()?;
    let manifest = Manifest::new(saved, files);
    // The copy is read back from where it lies, not from memory.
    manifest.check_logs(target)?;
    Ok(manifest)
}

fn copy_database(
    copier: &mut Copier,
    source: &Path,
    database: &RecordedDatabase,
) -> Result<SavedDatabase, Interrupted> {
    let folder = source.join(&database.folder);
    let is_gone = || !folder.join(LOG_FOLDER).is_dir();
    if is_gone() {
        return Err(Interrupted::Deleted);
    }
    let copied = (|| {
        let facts = copy_store(copier, source, &database.folder)?;
        for path in entries(&folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match name.as_str() {
                LOG_FOLDER | IMAGES_FOLDER | LOCK_FILE => {}
                name if MODULE_LOGS.contains(&name) => copier.file_if_there(&database.folder.join(name))?,
                _ => return Err(unknown(&path)),
            }
        }
        Ok(facts)
    })();
    match copied {
        Ok(facts) => Ok(SavedDatabase {
            identity: database.identity.to_hex(),
            name: database.name.as_deref().map(str::to_owned),
            folder: database.folder.clone(),
            records: facts.records,
        }),
        // Whatever failed, the database is no more: that is the reason.
        Err(_) if is_gone() => Err(Interrupted::Deleted),
        Err(failure) => Err(Interrupted::Failed(failure)),
    }
}

/// Copies the images and the log of a store.
fn copy_store(copier: &mut Copier, source: &Path, store: &Path) -> Result<LogFacts, Failure> {
    let folder = source.join(store);
    let place = image_place(&folder)?.objects(&folder)?.expect("a place is never nowhere");
    for _ in 0..ATTEMPTS_MAX {
        let images = image_objects(Arc::clone(&place))?;
        let facts = match read_log(&folder, |_| {}) {
            Ok(facts) => facts,
            // A segment may go while it is read.
            Err(_) if image_objects(Arc::clone(&place))? != images => continue,
            Err(failure) => return Err(failure),
        };
        let needed = images.as_ref().map_or(1, |images| images.first_record);
        let present = facts.first_record.is_none_or(|first| first <= needed);
        if !present || !all_there(&facts) {
            continue;
        }
        for name in images.iter().flat_map(|images| &images.names) {
            let object = place.read(name, None);
            let object = object.map_err(|source| ImageError::Object { object: place.address(name), source })?;
            copier.content(&store.join(IMAGES_FOLDER).join(name), &object)?;
        }
        copy_log(copier, source, store, &facts)?;
        return Ok(facts);
    }
    Err(Failure::Backup {
        message: format!("the log of {} is cut at its beginning faster than it can be copied", folder.display()),
        next: Some("try again when less is written"),
    })
}

fn all_there(facts: &LogFacts) -> bool {
    facts.files.iter().all(|file| file.path.exists())
}

fn copy_log(copier: &mut Copier, source: &Path, store: &Path, facts: &LogFacts) -> Result<(), Failure> {
    for path in entries(&source.join(store).join(LOG_FOLDER))? {
        if path.extension().is_none_or(|extension| extension != "log") {
            return Err(unknown(&path));
        }
    }
    for file in &facts.files {
        let name = file.path.file_name().unwrap_or_default();
        copier.file(&store.join(LOG_FOLDER).join(name), Some(file.bytes))?;
    }
    Ok(())
}

fn unknown(path: &Path) -> Failure {
    Failure::Backup {
        message: format!("{} is nothing that this program knows of a data directory", path.display()),
        next: Some("move it away, or use the release of tine that the data directory is used with"),
    }
}

/// About how many bytes will be copied; only the bar of progress depends on it.
fn size_of(source: &Path, databases: &[RecordedDatabase]) -> u64 {
    let stores = databases.iter().map(|database| database.folder.as_path()).chain([Path::new(CONTROL_FOLDER)]);
    let folders = |store: &Path| {
        let images = source.join(store).join(IMAGES_FOLDER);
        [source.join(store).join(LOG_FOLDER), images.join("packs"), images.join("manifests")]
    };
    let files = stores.flat_map(folders).flat_map(|folder| entries(&folder).unwrap_or_default());
    files.filter_map(|file| fs::metadata(file).ok()).map(|facts| facts.len()).sum()
}

/// Makes the folder, or takes one that is empty.
fn new_folder(folder: &Path) -> Result<PathBuf, Failure> {
    if folder.exists() && !entries(folder)?.is_empty() {
        return Err(Failure::NotEmpty { path: folder.to_owned() });
    }
    let made = create_private_directory(folder).and_then(|()| folder.canonicalize());
    made.map_err(|source| Failure::File { path: folder.to_owned(), source })
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The names of the databases, for people.
fn names(databases: &[RecordedDatabase]) -> String {
    databases.iter().map(name_of).collect::<Vec<_>>().join(", ")
}
