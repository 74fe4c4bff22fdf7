//! The list of a backup's files.

use std::{
    fs::{self, File},
    io::Write,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use tine_store::{Objects, RemoteObjects, check_images};
use tine_types::Timestamp;

use super::copy::sync_folder;
use crate::{
    data_directory::{CONTROL_FOLDER, IMAGES_FOLDER, read_log},
    failure::Failure,
};

/// The file of the list.
const FILE: &str = "backup.json";
/// Version of the list's format and of the layout beside it.
const FORMAT: u32 = 1;

/// What a backup consists of.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// Release that made it.
    tine: String,
    /// When it was complete.
    created_at: String,
    /// The databases in it.
    pub databases: Vec<SavedDatabase>,
    /// All files but the list itself.
    pub files: Vec<SavedFile>,
}

/// A database of a backup.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedDatabase {
    /// 64 hexadecimal digits.
    pub identity: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its folder, from the backup's.
    pub folder: PathBuf,
    /// Records of its log.
    pub records: u64,
}

/// A file of a backup.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedFile {
    /// From the backup's folder.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Hash of its content, in hexadecimal.
    pub blake3: String,
}

impl Manifest {
    /// The list of a backup that is complete now.
    pub fn new(databases: Vec<SavedDatabase>, files: Vec<SavedFile>) -> Manifest {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let created_at = Timestamp::from_micros(now.as_micros() as i64).to_rfc3339();
        Manifest { format: FORMAT, tine: env!("CARGO_PKG_VERSION").to_owned(), created_at, databases, files }
    }

    /// When the backup was complete.
    pub fn created_at(&self) -> &str {
        &self.created_at
    }

    /// Size of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Writes the list, which makes the folder a backup.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write(&self, folder: &Path) -> Result<(), Failure> {
        let (path, temporary) = (folder.join(FILE), folder.join(".backup.json.tmp"));
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|source| Failure::File { path: path.clone(), source })?;
        sync_folder(folder)
    }

    /// Reads the list of a backup. Paths that lead out of its folder are refused.
    ///
    /// # Errors
    /// A folder that is no backup, or one of another format.
    pub fn read(folder: &Path) -> Result<Manifest, Failure> {
        let text = fs::read_to_string(folder.join(FILE)).map_err(|_| Failure::NotFound {
            message: format!("{} is not a complete backup: it has no file {FILE}", folder.display()),
            next: Some("name the folder that `tine backup` made".to_owned()),
        })?;
        let damaged = |message: String| Failure::Backup { message, next: Some("use another backup") };
        let manifest: Manifest =
            serde_json::from_str(&text).map_err(|error| damaged(format!("{FILE} cannot be read: {error}")))?;
        if manifest.format != FORMAT {
            return Err(damaged(format!("the backup has format {}, this program reads {FORMAT}", manifest.format)));
        }
        let paths = manifest.files.iter().map(|file| &file.path).chain(manifest.databases.iter().map(|d| &d.folder));
        for path in paths {
            if path.components().any(|component| !matches!(component, Component::Normal(_))) {
                return Err(damaged(format!("{FILE} names a path outside of the backup: {}", path.display())));
            }
        }
        Ok(manifest)
    }

    /// Reads all images, and every log to its end, and compares what they tell with the list.
    ///
    /// # Errors
    /// Damage, and logs with other records than the list says.
    pub fn check_logs(&self, folder: &Path) -> Result<(), Failure> {
        read_log(&folder.join(CONTROL_FOLDER), |_| {})?;
        for database in &self.databases {
            let folder = folder.join(&database.folder);
            let images: Arc<dyn Objects> = Arc::new(RemoteObjects::directory(&folder.join(IMAGES_FOLDER))?);
            check_images(images)?;
            let facts = read_log(&folder, |_| {})?;
            if facts.records != database.records {
                let name = database.name.as_deref().unwrap_or(&database.identity);
                return Err(Failure::Backup {
                    message: format!(
                        "the log of `{name}` has {} records in place of {}",
                        facts.records, database.records
                    ),
                    next: Some("check the disk, and make a new backup or use another one"),
                });
            }
        }
        Ok(())
    }
}
