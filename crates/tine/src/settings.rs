//! Where the server, its data and the tokens are: flag > `TINE_*` variable > `tine.toml` > default.
//!
//! Flags and variables are read by the argument parser; here come the file and the defaults.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{args::GlobalArgs, failure::Failure};

/// Name of the settings file.
const FILE_NAME: &str = "tine.toml";
/// How many folders above the current one are searched for it; a bound against strange file systems.
const PARENTS_MAX: usize = 64;
/// Address a server listens on.
const LISTEN_DEFAULT: &str = "127.0.0.1:3000";
/// Server the client verbs talk to.
const SERVER_DEFAULT: &str = "http://127.0.0.1:3000";
/// File in the data directory in which a running server writes its address.
const ADDRESS_FILE: &str = "address";

/// What `tine.toml` may hold. Unknown keys are refused: a misspelt one would be ignored silently.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    server: Option<String>,
    data_dir: Option<PathBuf>,
    listen: Option<String>,
    token: Option<String>,
}

/// The settings of one run.
#[derive(Debug)]
pub struct Settings {
    /// Data directory of the local server.
    pub data_dir: PathBuf,
    /// File with the saved tokens.
    pub credentials: PathBuf,
    /// Token that was given, not the saved one.
    pub token: Option<String>,
    server: Option<String>,
    listen: Option<String>,
}

impl Settings {
    /// Settles everything that does not need a server.
    ///
    /// # Errors
    /// A settings file that cannot be read or understood; no home directory where one is needed.
    pub fn load(args: &GlobalArgs) -> Result<Settings, Failure> {
        let file = match &args.config {
            Some(path) => read_file(path)?,
            None => find_file()?.as_deref().map(read_file).transpose()?.unwrap_or_default(),
        };
        let data_dir = match args.data_dir.clone().or(file.data_dir) {
            Some(directory) => directory,
            None => user_directory("XDG_DATA_HOME", ".local/share", "--data-dir")?.join("tine"),
        };
        let credentials = match args.credentials.clone() {
            Some(path) => path,
            None => user_directory("XDG_CONFIG_HOME", ".config", "--credentials")?.join("tine/credentials.json"),
        };
        Ok(Settings {
            data_dir,
            credentials,
            token: args.token.clone().or(file.token),
            server: args.server.clone().or(file.server),
            listen: file.listen,
        })
    }

    /// The server to talk to. Without a setting it is the one that runs on the data directory.
    pub fn server(&self) -> String {
        self.server.clone().or_else(|| self.local_server()).unwrap_or_else(|| SERVER_DEFAULT.to_owned())
    }

    /// Address of the server that runs (or was killed) on the data directory.
    pub fn local_server(&self) -> Option<String> {
        let text = fs::read_to_string(self.data_dir.join(ADDRESS_FILE)).ok()?;
        let url = text.trim();
        url.starts_with("http://").then(|| url.to_owned())
    }

    /// The address to listen on; `flag` is the flag's or the variable's.
    pub fn listen(&self, flag: Option<&str>) -> String {
        flag.map(str::to_owned).or_else(|| self.listen.clone()).unwrap_or_else(|| LISTEN_DEFAULT.to_owned())
    }

    /// The file in which a running server writes its address.
    pub fn address_file(&self) -> PathBuf {
        self.data_dir.join(ADDRESS_FILE)
    }
}

/// The nearest settings file, looking upwards from the current directory.
fn find_file() -> Result<Option<PathBuf>, Failure> {
    let current = env::current_dir().map_err(|source| Failure::File { path: PathBuf::from("."), source })?;
    let candidates = current.ancestors().take(PARENTS_MAX).map(|folder| folder.join(FILE_NAME));
    Ok(candidates.into_iter().find(|path| path.is_file()))
}

/// Reads a settings file; relative paths in it start from its own folder.
fn read_file(path: &Path) -> Result<SettingsFile, Failure> {
    let text = fs::read_to_string(path).map_err(|source| Failure::File { path: path.to_owned(), source })?;
    let mut file: SettingsFile = toml::from_str(&text)
        .map_err(|error| Failure::usage(format!("{}: {}", path.display(), error.to_string().trim_end())))?;
    if let (Some(directory), Some(folder)) = (&file.data_dir, path.parent()) {
        file.data_dir = Some(folder.join(directory));
    }
    Ok(file)
}

/// A folder of the user: `$variable`, else `$HOME/below`.
fn user_directory(variable: &str, below: &str, flag: &str) -> Result<PathBuf, Failure> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(directory) = set(variable).filter(|path| path.is_absolute()) {
        return Ok(directory);
    }
    match set("HOME") {
        Some(home) => Ok(home.join(below)),
        None => Err(Failure::Usage {
            message: "HOME is not set, so there is no default place for files".to_owned(),
            next: Some(format!("give {flag}")),
        }),
    }
}

/// Creates a folder that only its owner may enter, with its parents.
///
/// # Errors
/// The operating system's.
pub fn create_private_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::read_file;

    #[test]
    fn settings_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tine.toml");
        fs::write(&path, "server = \"http://x:1\"\ndata_dir = \"data\"\n").expect("written");
        let file = read_file(&path).expect("reads");
        assert_eq!(file.server.as_deref(), Some("http://x:1"));
        assert_eq!(file.data_dir, Some(folder.path().join("data")));
        assert_eq!((file.listen, file.token), (None, None));

        for (text, code) in [("sever = \"x\"", "TN0850"), ("server = 1", "TN0850"), ("=", "TN0850")] {
            fs::write(&path, text).expect("written");
            let failure = read_file(&path).expect_err(text);
            assert_eq!(failure.code(), code, "{text}");
            assert!(failure.to_string().contains("tine.toml"), "{failure}");
        }
        assert_eq!(read_file(&folder.path().join("none.toml")).expect_err("missing").exit() as u8, 4);
    }
}
