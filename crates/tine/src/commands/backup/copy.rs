//! Copying files with their hashes, to stable storage.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::manifest::SavedFile;
use crate::{data_directory::entries, failure::Failure, progress::Progress, settings::create_private_directory};

/// Bytes copied in one piece.
const PIECE_BYTES: usize = 1 << 20;

/// Copies files of one folder to the same places in another.
pub struct Copier {
    source: PathBuf,
    target: PathBuf,
    progress: Progress,
    files: Vec<SavedFile>,
}

impl Copier {
    /// Copies from `source` to `target`.
    pub fn new(source: &Path, target: &Path, progress: Progress) -> Copier {
        Copier { source: source.to_owned(), target: target.to_owned(), progress, files: Vec::new() }
    }

    /// Copies a file, or its first `bytes`.
    ///
    /// # Errors
    /// A file that is shorter than that, and the operating system's errors.
    pub fn file(&mut self, path: &Path, bytes: Option<u64>) -> Result<(), Failure> {
        let from = self.source.join(path);
        let copied = self.copy(&from, &self.target.join(path), bytes);
        let (bytes, blake3) = copied.map_err(|source| Failure::File { path: from, source })?;
        self.files.push(SavedFile { path: path.to_owned(), bytes, blake3 });
        Ok(())
    }

    /// Copies a file as far as it is written, or nothing if it is gone.
    ///
    /// # Errors
    /// The operating system's.
    pub fn file_if_there(&mut self, path: &Path) -> Result<(), Failure> {
        match self.file(path, None) {
            Err(Failure::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            copied => copied,
        }
    }

    /// Copies what came from elsewhere.
    ///
    /// # Errors
    /// The operating system's.
    pub fn content(&mut self, path: &Path, content: &[u8]) -> Result<(), Failure> {
        let to = self.target.join(path);
        let write = || {
            let mut target = create(&to, 0o600)?;
            target.write_all(content)?;
            target.sync_all()
        };
        write().map_err(|source| Failure::File { path: to.clone(), source })?;
        let bytes = content.len() as u64;
        self.progress.add(bytes);
        let blake3 = blake3::hash(content).to_hex().to_string();
        self.files.push(SavedFile { path: path.to_owned(), bytes, blake3 });
        Ok(())
    }

    /// Makes the folders durable and returns what was copied.
    ///
    /// # Errors
    /// The operating system's.
    pub fn finish(self) -> Result<Vec<SavedFile>, Failure> {
        let of = |file: &SavedFile| file.path.ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>();
        let folders: BTreeSet<PathBuf> = self.files.iter().flat_map(of).collect();
        // Deepest first, so that a folder is durable before its entry in the one above is.
        for folder in folders.iter().rev() {
            sync_folder(&self.target.join(folder))?;
        }
        Ok(self.files)
    }

    fn copy(&mut self, from: &Path, to: &Path, bytes: Option<u64>) -> io::Result<(u64, String)> {
        let source = File::open(from)?;
        let mode = source.metadata()?.permissions().mode() & 0o700;
        // The length now: a file that grows meanwhile must not be chased.
        let wanted = bytes.map_or_else(|| source.metadata().map(|facts| facts.len()), Ok)?;
        let mut target = create(to, mode | 0o600)?;
        let mut source = source.take(wanted);
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut copied = 0;
        loop {
            let read = source.read(&mut piece)?;
            if read == 0 {
                break;
            }
            target.write_all(&piece[..read])?;
            hasher.update(&piece[..read]);
            copied += read as u64;
            self.progress.add(read as u64);
        }
        if copied != wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        target.sync_all()?;
        Ok((copied, hasher.finalize().to_hex().to_string()))
    }
}

/// Creates a file and its folder.
fn create(path: &Path, mode: u32) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        create_private_directory(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Makes what was done in a folder durable.
///
/// # Errors
/// The operating system's.
pub fn sync_folder(folder: &Path) -> Result<(), Failure> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| Failure::File { path: folder.to_owned(), source })
}

/// Removes what this program put into a folder, to begin again.
///
/// # Errors
/// The operating system's.
pub fn empty(folder: &Path) -> Result<(), Failure> {
    for path in entries(folder)? {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|source| Failure::File { path, source })?;
    }
    Ok(())
}
