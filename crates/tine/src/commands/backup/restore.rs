//! Making a data directory of a backup.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use serde_json::json;

use super::{
    RestoreArgs,
    copy::{Copier, sync_folder},
    counted,
    manifest::{Manifest, SavedFile},
    mebibytes, names, new_folder,
};
use crate::{
    args::GlobalArgs,
    data_directory::{check_version, entries, read_control},
    failure::Failure,
    output::{Output, duration_text},
    progress::Progress,
    settings::Settings,
};

/// Restores a backup, or only checks it.
///
/// # Errors
/// A backup that is incomplete or damaged, and a data directory that is not new or empty.
pub fn run(args: &RestoreArgs, global: &GlobalArgs, output: &Output) -> Result<(), Failure> {
    let started = Instant::now();
    let manifest = Manifest::read(&args.source)?;
    let (what, place) = if args.check {
        check(&args.source, &manifest)?;
        ("checked", args.source.clone())
    } else {
        let data_dir = Settings::load(global)?.data_dir;
        restore(&args.source, &manifest, &data_dir)?;
        ("restored", data_dir)
    };
    let took_us = started.elapsed().as_micros() as u64;
    if output.is_json() {
        return output.json(&json!({
            what: place, "created_at": manifest.created_at(), "databases": manifest.databases,
            "bytes": manifest.bytes(), "took_us": took_us,
        }));
    }
    let (_, databases) = read_control(&place)?;
    output.line(&format!(
        "{what} {} ({}, {}) of {} in {}",
        counted(databases.len(), "database"),
        if databases.is_empty() { "none".to_owned() } else { names(&databases) },
        mebibytes(manifest.bytes()),
        manifest.created_at(),
        duration_text(took_us)
    ))
}

/// Compares a backup with its list, in place.
fn check(source: &Path, manifest: &Manifest) -> Result<(), Failure> {
    let mut progress = Progress::new("checking", manifest.bytes());
    for file in &manifest.files {
        let path = source.join(&file.path);
        let read = || {
            let mut hasher = blake3::Hasher::new();
            let bytes = std::io::copy(&mut fs::File::open(&path)?, &mut hasher)?;
            Ok::<_, std::io::Error>((bytes, hasher.finalize().to_hex().to_string()))
        };
        let (bytes, blake3) = read().map_err(|source| Failure::File { path: path.clone(), source })?;
        progress.add(bytes);
        compare(file, bytes, &blake3)?;
    }
    check_version(source)?;
    manifest.check_logs(source)
}

fn restore(source: &Path, manifest: &Manifest, data_dir: &Path) -> Result<(), Failure> {
    if data_dir.exists() && !entries(data_dir)?.is_empty() {
        return Err(Failure::NotEmpty { path: data_dir.to_owned() });
    }
    // Beside the directory, so that it can appear as a whole.
    let temporary = new_folder(&beside(data_dir))?;
    let made = copy(source, manifest, &temporary).and_then(|()| {
        fs::rename(&temporary, data_dir).map_err(|source| Failure::File { path: data_dir.to_owned(), source })
    });
    if let Err(failure) = made {
        // What was copied is a copy; a failure to remove it does not matter beside the first one.
        let _ = fs::remove_dir_all(&temporary);
        return Err(failure);
    }
    sync_folder(temporary.parent().unwrap_or(Path::new("/")))
}

fn copy(source: &Path, manifest: &Manifest, target: &Path) -> Result<(), Failure> {
    let mut copier = Copier::new(source, target, Progress::new("restoring", manifest.bytes()));
    for file in &manifest.files {
        copier.file(&file.path, None)?;
    }
    for (file, copied) in manifest.files.iter().zip(copier.finish()?) {
        compare(file, copied.bytes, &copied.blake3)?;
    }
    check_version(target)?;
    manifest.check_logs(target)
}

fn compare(file: &SavedFile, bytes: u64, blake3: &str) -> Result<(), Failure> {
    if (file.bytes, file.blake3.as_str()) == (bytes, blake3) {
        return Ok(());
    }
    Err(Failure::Backup {
        message: format!("{} is not what was backed up", file.path.display()),
        next: Some("the backup is damaged: use another one"),
    })
}

/// A name that nobody uses, in the same folder.
fn beside(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.file_name().unwrap_or_default().to_owned();
    name.push(format!(".restoring-{}", std::process::id()));
    data_dir.with_file_name(name)
}
