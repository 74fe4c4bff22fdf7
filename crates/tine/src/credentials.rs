//! The saved tokens, one per server, and the local admin token.
//!
//! A server on this machine is known by its data directory, whose keys sign its tokens: projects that take
//! turns on one port keep their identities, and a server keeps its when its port changes. Any other
//! server is known by its address.
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

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tine_client::http::HttpClient;
use tine_types::Identity;

use crate::{
    failure::Failure,
    settings::{Settings, create_private_directory},
};

/// Where a server keeps its local admin token, below the data directory.
const ADMIN_TOKEN_FILE: &str = "keys/admin-token";

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    /// By data directory or address.
    servers: BTreeMap<String, SavedIdentity>,
}

/// Who the caller is at a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedIdentity {
    /// 64 hexadecimal digits.
    pub identity: String,
    /// The token that proves it.
    pub token: String,
}

/// The token to use at a server: the given one, else the saved one, else a new one, which is saved.
///
/// # Errors
/// The server's when a new identity is needed, and the file's.
pub fn token(settings: &Settings, client: &HttpClient, renew: bool) -> Result<String, Failure> {
    if let Some(token) = &settings.token {
        return Ok(token.value.clone());
    }
    if !renew && let Some(known) = saved(settings, client)? {
        return Ok(known.token);
    }
    let made = client.create_identity()?;
    save(settings, client, SavedIdentity { identity: made.identity, token: made.token.clone() })?;
    Ok(made.token)
}

/// The saved identity for a server.
///
/// # Errors
/// The file's.
pub fn saved(settings: &Settings, client: &HttpClient) -> Result<Option<SavedIdentity>, Failure> {
    Ok(read(&settings.credentials.value)?.servers.remove(&server_key(settings, client)))
}

/// Saves the identity for a server in place of the one before.
///
/// # Errors
/// The file's.
pub fn save(settings: &Settings, client: &HttpClient, identity: SavedIdentity) -> Result<(), Failure> {
    let path = &settings.credentials.value;
    let mut all = read(path)?;
    all.servers.insert(server_key(settings, client), identity);
    write(path, &all)
}

/// The identity that a token says it proves; only a server can tell whether it does.
pub fn token_identity(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()?;
    let claim = |name: &str| claims.get(name).and_then(Value::as_str);
    Some(Identity::from_claims(claim("iss")?, claim("sub")?).to_hex())
}

/// What a server is known by.
fn server_key(settings: &Settings, client: &HttpClient) -> String {
    let directory = settings.data_dir.canonicalize().ok().filter(|_| is_local(settings, client));
    directory.map_or_else(|| canonical(&client.url()), |directory| directory.display().to_string())
}

/// Whether the server is the one that runs on the data directory.
fn is_local(settings: &Settings, client: &HttpClient) -> bool {
    settings.local_server().is_some_and(|local| canonical(&local) == canonical(&client.url()))
}

/// The admin token of the data directory, if the server that is talked to is the one that runs on it.
/// It is never sent anywhere else.
pub fn admin_token(settings: &Settings, client: &HttpClient) -> Option<String> {
    if !is_local(settings, client) {
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

    use super::{BASE64, Saved, SavedIdentity, canonical, read, token_identity, write};
    use base64::Engine;

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
    fn tokens_name_identities() {
        let token = format!("x.{}.y", BASE64.encode(r#"{"iss":"localhost","sub":"ada"}"#));
        let expected = tine_types::Identity::from_claims("localhost", "ada").to_hex();
        assert_eq!(token_identity(&token), Some(expected));
        for text in ["", "a", "a.b", "a.e30.c", "a.!!.c"] {
            assert_eq!(token_identity(text), None, "{text}");
        }
    }

    #[test]
    fn one_spelling_per_server() {
        assert_eq!(canonical("http://localhost:3000/"), canonical("http://127.0.0.1:3000"));
        assert_ne!(canonical("http://localhost:3000"), canonical("http://localhost:3001"));
    }
}
