//! The server's key pair and the local administrator's token, both files of the data directory.
//!
//! * `keys/id_ecdsa` and `keys/id_ecdsa.pub` are a P-256 pair in PEM, made on the first start. Whoever
//!   loses them orphans every identity that was minted here, so an unreadable file stops the start
//!   instead of being replaced.
//! * `keys/admin-token` holds a token of the administrator's identity. Reading that file is the proof
//!   of being an administrator, which is why the folder is 0700 and the files are 0600.
//!
//! The files are written with `std::fs` rather than through `Env`, because they must never exist with
//! wider permissions, not even for the moment between creating and changing the mode.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use p256::SecretKey;
use p256::ecdsa::{SigningKey, VerifyingKey};
use p256::pkcs8::{DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
use tine_base::Env;
use tine_types::Identity;

use super::token::{self, Claims, ISSUER};

/// Subject of the administrator's identity. Anonymous subjects are random UUIDs, so nobody is given
/// this one; the administrator stays the same when the token file is deleted and written again.
const ADMIN_SUBJECT: &str = "admin";
/// A PEM of a P-256 key is about 240 bytes; anything much larger is not one.
const PEM_BYTES_MAX: u64 = 16 * 1024;

/// Why the key files could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("key file {}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is there but holds no P-256 key in PEM.
    #[error("{} holds no P-256 key in PEM: {detail}", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The two files do not belong together.
    #[error("{} is not the public key of {}", public.display(), private.display())]
    Mismatch {
        /// The private key's file.
        private: PathBuf,
        /// The public key's file.
        public: PathBuf,
    },
}

impl KeyError {
    /// The stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            KeyError::File { .. } => "TN0701",
            KeyError::NotAKey { .. } => "TN0702",
            KeyError::Mismatch { .. } => "TN0703",
        }
    }
}

/// The pair that signs and verifies this server's tokens.
pub struct Keys {
    /// Signs tokens.
    pub signing: SigningKey,
    /// Verifies them.
    pub verifying: VerifyingKey,
    /// The public key as served by `/v1/identity/public-key`.
    pub public_pem: String,
    /// Identity of whoever can read `keys/admin-token`.
    pub admin_identity: Identity,
}

impl Keys {
    /// Reads the pair under `data_directory/keys`, making it if neither file exists, and sees to it
    /// that `keys/admin-token` holds a valid token of the administrator.
    pub fn open(data_directory: &Path, env: &dyn Env) -> Result<Keys, KeyError> {
        let directory = data_directory.join("keys");
        make_private_directory(&directory)?;
        let private_path = directory.join("id_ecdsa");
        let public_path = directory.join("id_ecdsa.pub");
        let secret = match read_text(&private_path)? {
            Some(text) => parse_private(&text, &private_path)?,
            None => generate(&private_path, env)?,
        };
        let public_pem =
            secret.public_key().to_public_key_pem(LineEnding::LF).map_err(|error| not_a_key(&public_path, error))?;
        match read_text(&public_path)? {
            Some(text) => check_public(&text, &secret, &public_path, &private_path)?,
            None => write_private(&public_path, public_pem.as_bytes())?,
        }
        let signing = SigningKey::from(&secret);
        let verifying = *signing.verifying_key();
        let keys =
            Keys { signing, verifying, public_pem, admin_identity: Identity::from_claims(ISSUER, ADMIN_SUBJECT) };
        keys.write_admin_token(&directory.join("admin-token"), env)?;
        Ok(keys)
    }

    /// Keeps a token that still verifies, so that scripts which copied it go on working.
    fn write_admin_token(&self, path: &Path, env: &dyn Env) -> Result<(), KeyError> {
        if let Some(text) = read_text(path)? {
            let verified = token::verify_own(text.trim(), &self.verifying, env.now_micros());
            if verified.is_ok_and(|claims| claims.identity == self.admin_identity) {
                return set_mode(path, 0o600);
            }
        }
        let claims = Claims::new(ISSUER, ADMIN_SUBJECT, env.now_micros(), None);
        let text = token::sign(&claims, &self.signing);
        write_private(path, text.as_bytes())
    }
}

fn parse_private(text: &str, path: &Path) -> Result<SecretKey, KeyError> {
    use p256::pkcs8::DecodePrivateKey as _;
    let parsed = match text.contains("BEGIN EC PRIVATE KEY") {
        true => SecretKey::from_sec1_pem(text).map_err(|error| not_a_key(path, error))?,
        false => SecretKey::from_pkcs8_pem(text).map_err(|error| not_a_key(path, error))?,
    };
    set_mode(path, 0o600)?;
    Ok(parsed)
}

fn check_public(text: &str, secret: &SecretKey, public: &Path, private: &Path) -> Result<(), KeyError> {
    let parsed = p256::PublicKey::from_public_key_pem(text).map_err(|error| not_a_key(public, error))?;
    if parsed == secret.public_key() {
        return Ok(());
    }
    Err(KeyError::Mismatch { private: private.to_path_buf(), public: public.to_path_buf() })
}

fn generate(path: &Path, env: &dyn Env) -> Result<SecretKey, KeyError> {
    // A random string of 32 bytes is outside the group with probability 2^-32.
    let secret = loop {
        let mut bytes = [0u8; 32];
        env.random_bytes(&mut bytes);
        if let Ok(secret) = SecretKey::from_slice(&bytes) {
            break secret;
        }
    };
    let pem = secret.to_pkcs8_pem(LineEnding::LF).map_err(|error| not_a_key(path, error))?;
    write_private(path, pem.as_bytes())?;
    Ok(secret)
}

fn not_a_key(path: &Path, error: impl std::fmt::Display) -> KeyError {
    KeyError::NotAKey { path: path.to_path_buf(), detail: error.to_string() }
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> KeyError + '_ {
    move |source| KeyError::File { path: path.to_path_buf(), source }
}

fn make_private_directory(path: &Path) -> Result<(), KeyError> {
    if !path.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(file_error(path))?;
    }
    set_mode(path, 0o700)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), KeyError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(file_error(path))
}

fn read_text(path: &Path) -> Result<Option<String>, KeyError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_error(path)(error)),
    };
    let mut text = String::new();
    file.take(PEM_BYTES_MAX).read_to_string(&mut text).map_err(file_error(path))?;
    Ok(Some(text))
}

/// Writes a temporary file with mode 0600, syncs it and moves it into place.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let temporary = path.with_extension("tmp");
    let _ = fs::remove_file(&temporary);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(file_error(&temporary))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(file_error(&temporary))?;
    fs::rename(&temporary, path).map_err(file_error(path))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::File::open(directory).and_then(|handle| handle.sync_all()).map_err(file_error(directory))
}
