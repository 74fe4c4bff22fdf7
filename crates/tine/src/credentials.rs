//! The saved tokens, one per server, and the local admin token.
//!
//! The file is made by the first use, readable by its owner only, and replaced as a whole, so that a
//! crash leaves the old one.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tine_client::http::HttpClient;

use crate::{
    failure::Failure,
    settings::{Settings, create_private_directory},
};

/// Where a server keeps its local admin token, below the data directory.
const ADMIN_TOKEN_FILE: &str = "keys/admin-token";

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    /// By server address.
    servers: BTreeMap<String, SavedIdentity>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SavedIdentity {
    identity: String,
    token: String,
}

/// The token to use at a server: the given one, else the saved one, else a new one, which is saved.
///
/// # Errors
/// The server's when a new identity is needed, and the file's.
pub fn token(settings: &Settings, client: &HttpClient, renew: bool) -> Result<String, Failure> {
    if let Some(token) = &settings.token {
        return Ok(token.clone());
    }
    let path = &settings.credentials;
    let mut saved = read(path)?;
    let server = canonical(&client.url());
    if let Some(known) = saved.servers.get(&server).filter(|_| !renew) {
        return Ok(known.token.clone());
    }
    let made = client.create_identity()?;
    let entry = SavedIdentity { identity: made.identity, token: made.token.clone() };
    saved.servers.insert(server, entry);
    write(path, &saved)?;
    Ok(made.token)
}

/// The admin token of the data directory, if the server that is talked to is the one that runs on it.
/// It is never sent anywhere else.
pub fn admin_token(settings: &Settings, client: &HttpClient) -> Option<String> {
    let local = settings.local_server()?;
    if canonical(&local) != canonical(&client.url()) {
        return None;
    }
    let text = fs::read_to_string(settings.data_dir.join(ADMIN_TOKEN_FILE)).ok()?;
    let token = text.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

/// One spelling per server.
fn canonical(url: &str) -> String {
    url.trim_end_matches('/').replacen("://localhost:", "://127.0.0.1:", 1)
}

fn read(path: &Path) -> Result<Saved, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
        Err(source) => return Err(Failure::File { path: path.to_owned(), source }),
    };
    serde_json::from_str(&text).map_err(|error| Failure::Usage {
        message: format!("{}: {error}", path.display()),
        next: Some("repair or remove the file; removing it forgets your identities".to_owned()),
    })
}

fn write(path: &Path, saved: &Saved) -> Result<(), Failure> {
    replace(path, saved).map_err(|source| Failure::File { path: path.to_owned(), source })
}

fn replace(path: &Path, saved: &Saved) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        create_private_directory(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary: PathBuf = path.with_file_name(name);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(serde_json::to_string_pretty(saved)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{Saved, SavedIdentity, canonical, read, write};

    #[test]
    fn tokens_are_saved_for_their_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/credentials.json");
        assert!(read(&path).expect("a missing file is an empty one").servers.is_empty());
        let mut saved = Saved::default();
        saved.servers.insert("http://x:1".into(), SavedIdentity { identity: "c200".into(), token: "t".into() });
        write(&path, &saved).expect("written");
        assert_eq!(read(&path).expect("read").servers["http://x:1"].token, "t");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = std::fs::read_dir(path.parent().expect("it has one")).expect("read").count();
        assert_eq!(files, 1, "the temporary file is gone");
    }

    #[test]
    fn a_broken_file_is_reported_and_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("credentials.json");
        std::fs::write(&path, "{").expect("written");
        assert_eq!(read(&path).expect_err("broken").code(), "TN0850");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "{");
    }

    #[test]
    fn one_spelling_per_server() {
        assert_eq!(canonical("http://localhost:3000/"), canonical("http://127.0.0.1:3000"));
        assert_ne!(canonical("http://localhost:3000"), canonical("http://localhost:3001"));
    }
}
