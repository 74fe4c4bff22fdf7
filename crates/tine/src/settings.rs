//! Where the server, its data and the tokens are: flag > `TINE_*` variable > the project's `.tine` >
//! `tine.toml` > default.
//!
//! Flags and variables are read by the argument parser; here come the files and the defaults.
//!
//! A project's `.tine` is a file, or a folder with a file `context.toml`, in the current folder or the
//! nearest one above it. `tine dev` keeps the folder, so that inside a project every verb finds the
//! project's database and server. Where it names a data directory and no server, the server is the one
//! that runs on that directory.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    args::{GlobalArgs, HERE},
    failure::Failure,
};

/// Name of the settings file.
const FILE_NAME: &str = "tine.toml";
/// Name of a project's file, or folder.
pub const CONTEXT_NAME: &str = ".tine";
/// The file in a project's folder.
pub const CONTEXT_FILE: &str = "context.toml";
/// How many folders above the current one are searched; a bound against strange file systems.
const PARENTS_MAX: usize = 64;
/// Address a server listens on.
const LISTEN_DEFAULT: &str = "127.0.0.1:3000";
/// Server the client verbs talk to.
const SERVER_DEFAULT: &str = "http://127.0.0.1:3000";
/// File in the data directory in which a running server writes its address.
const ADDRESS_FILE: &str = "address";
/// Variable that names the database of the verbs that are given none.
const DATABASE_VARIABLE: &str = "TINE_DATABASE";

/// What the files may hold. Unknown keys are refused: a misspelt one would be ignored silently.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    server: Option<String>,
    data_dir: Option<PathBuf>,
    database: Option<String>,
    listen: Option<String>,
    token: Option<String>,
    images: Option<String>,
}

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of this command line.
    Flag,
    /// A variable of the environment.
    Variable(&'static str),
    /// The project's `.tine`.
    Context(PathBuf),
    /// `tine.toml`.
    File(PathBuf),
    /// The server that runs on the data directory.
    RunningServer,
    /// Nobody said.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Flag => write!(formatter, "flag"),
            Origin::Variable(name) => write!(formatter, "{name}"),
            Origin::Context(path) | Origin::File(path) => write!(formatter, "{}", path.display()),
            Origin::RunningServer => write!(formatter, "the server on the data directory"),
            Origin::Default => write!(formatter, "default"),
        }
    }
}

/// A setting and where it comes from.
#[derive(Clone, Debug)]
pub struct Setting<T> {
    /// What holds.
    pub value: T,
    /// Who said so.
    pub origin: Origin,
}

/// A file of settings.
struct Layer {
    origin: Origin,
    keys: SettingsFile,
}

/// The settings of one run.
#[derive(Debug)]
pub struct Settings {
    /// Data directory of the local server.
    pub data_dir: PathBuf,
    /// Where that was said.
    pub data_dir_origin: Origin,
    /// File with the saved tokens.
    pub credentials: Setting<PathBuf>,
    /// Token that was given, not the saved one.
    pub token: Option<Setting<String>>,
    /// Database of the verbs that are given none.
    pub database: Option<Setting<String>>,
    server: Option<Setting<String>>,
    listen: Option<Setting<String>>,
    images: Option<Setting<String>>,
}

impl Settings {
    /// Settles everything that does not need a server.
    ///
    /// # Errors
    /// A settings file that cannot be read or understood; no home directory where one is needed.
    pub fn load(args: &GlobalArgs) -> Result<Settings, Failure> {
        let file = match &args.config {
            Some(path) => Some(path.clone()),
            None => find_above(|folder| Some(folder.join(FILE_NAME)).filter(|path| path.is_file()))?,
        };
        let layer = |path: PathBuf, origin: fn(PathBuf) -> Origin| -> Result<Layer, Failure> {
            Ok(Layer { keys: read_file(&path)?, origin: origin(path) })
        };
        let context = find_above(context_in)?.map(|path| layer(path, Origin::Context)).transpose()?;
        let file = file.map(|path| layer(path, Origin::File)).transpose()?;
        let layers: Vec<Layer> = context.into_iter().chain(file).collect();
        let from_files = |key: fn(&SettingsFile) -> Option<String>| {
            layers.iter().find_map(|layer| Some(Setting { value: key(&layer.keys)?, origin: layer.origin.clone() }))
        };
        let given = |value: &Option<String>, variable: &'static str| {
            let origin = || if is_from(variable, value.as_deref()) { Origin::Variable(variable) } else { Origin::Flag };
            value.clone().map(|value| Setting { value, origin: origin() })
        };
        let data_dir = match &args.data_dir {
            Some(directory) => {
                let is_variable = is_from("TINE_DATA_DIR", directory.to_str());
                let origin = if is_variable { Origin::Variable("TINE_DATA_DIR") } else { Origin::Flag };
                Setting { value: directory.clone(), origin }
            }
            None => data_dir_of(&layers)?,
        };
        let credentials = match &args.credentials {
            Some(path) => {
                let is_variable = is_from("TINE_CREDENTIALS", path.to_str());
                let origin = if is_variable { Origin::Variable("TINE_CREDENTIALS") } else { Origin::Flag };
                Setting { value: path.clone(), origin }
            }
            None => Setting {
                value: user_directory("XDG_CONFIG_HOME", ".config", "--credentials")?.join("tine/credentials.json"),
                origin: Origin::Default,
            },
        };
        let variable = |name: &'static str| {
            let value = env::var(name).ok().filter(|value| !value.is_empty())?;
            Some(Setting { value, origin: Origin::Variable(name) })
        };
        let mut settings = Settings {
            credentials,
            token: given(&args.token, "TINE_TOKEN").or_else(|| from_files(|keys| keys.token.clone())),
            database: variable(DATABASE_VARIABLE).or_else(|| from_files(|keys| keys.database.clone())),
            server: given(&args.server, "TINE_SERVER"),
            listen: from_files(|keys| keys.listen.clone()),
            images: from_files(|keys| keys.images.clone()),
            data_dir: data_dir.value,
            data_dir_origin: data_dir.origin,
        };
        settings.server = settings.server.take().or_else(|| settings.server_of(&layers));
        Ok(settings)
    }

    /// The server that a file names, the project's own first: that is also the one on its data directory.
    fn server_of(&self, layers: &[Layer]) -> Option<Setting<String>> {
        layers.iter().find_map(|layer| {
            let named = || Some(Setting { value: layer.keys.server.clone()?, origin: layer.origin.clone() });
            let is_project = layer.origin == self.data_dir_origin && matches!(layer.origin, Origin::Context(_));
            named().or_else(|| self.running_server().filter(|_| is_project))
        })
    }

    fn running_server(&self) -> Option<Setting<String>> {
        Some(Setting { value: self.local_server()?, origin: Origin::RunningServer })
    }

    /// The server to talk to. Without a setting it is the one that runs on the data directory.
    pub fn server(&self) -> Setting<String> {
        let default = || Setting { value: SERVER_DEFAULT.to_owned(), origin: Origin::Default };
        self.server.clone().or_else(|| self.running_server()).unwrap_or_else(default)
    }

    /// Address of the server that runs (or was killed) on the data directory.
    pub fn local_server(&self) -> Option<String> {
        let text = fs::read_to_string(self.data_dir.join(ADDRESS_FILE)).ok()?;
        let url = text.trim();
        url.starts_with("http://").then(|| url.to_owned())
    }

    /// The address to listen on; `flag` is the flag's or the variable's.
    pub fn listen(&self, flag: Option<&str>) -> Setting<String> {
        if let Some(flag) = flag {
            let is_variable = is_from("TINE_LISTEN", Some(flag));
            let origin = if is_variable { Origin::Variable("TINE_LISTEN") } else { Origin::Flag };
            return Setting { value: flag.to_owned(), origin };
        }
        let default = || Setting { value: LISTEN_DEFAULT.to_owned(), origin: Origin::Default };
        self.listen.clone().unwrap_or_else(default)
    }

    /// The bucket for images, if one is set; `flag` is the flag's or the variable's.
    pub fn images(&self, flag: Option<&str>) -> Option<Setting<String>> {
        let Some(flag) = flag else { return self.images.clone() };
        let is_variable = is_from("TINE_IMAGES", Some(flag));
        let origin = if is_variable { Origin::Variable("TINE_IMAGES") } else { Origin::Flag };
        Some(Setting { value: flag.to_owned(), origin })
    }

    /// The file in which a running server writes its address.
    pub fn address_file(&self) -> PathBuf {
        self.data_dir.join(ADDRESS_FILE)
    }

    /// Replaces `.` by the project's database and `@fork` by a fork of it; anything else stays.
    ///
    /// # Errors
    /// When the project's database is meant and nothing names one.
    pub fn complete_database(&self, address: &str) -> Result<String, Failure> {
        let fork = match address {
            HERE => "",
            _ if address.starts_with('@') => address,
            _ => return Ok(address.to_owned()),
        };
        match &self.database {
            Some(database) if fork.is_empty() => Ok(database.value.clone()),
            Some(database) => Ok(format!("{}{fork}", database.value.split('@').next().unwrap_or_default())),
            None => Err(Failure::Usage {
                message: "no database is named, here or in the settings".to_owned(),
                next: Some(format!(
                    "name one, set {DATABASE_VARIABLE}, or put `database = \"NAME\"` into a file `{CONTEXT_NAME}`"
                )),
            }),
        }
    }
}

/// Whether a value that the argument parser found is the variable's.
fn is_from(variable: &str, value: Option<&str>) -> bool {
    value.is_some_and(|value| env::var_os(variable).is_some_and(|set| set == value))
}

fn data_dir_of(layers: &[Layer]) -> Result<Setting<PathBuf>, Failure> {
    let named = layers.iter().find_map(|layer| {
        let value = layer.keys.data_dir.clone()?;
        Some(Setting { value, origin: layer.origin.clone() })
    });
    match named {
        Some(setting) => Ok(setting),
        None => Ok(Setting {
            value: user_directory("XDG_DATA_HOME", ".local/share", "--data-dir")?.join("tine"),
            origin: Origin::Default,
        }),
    }
}

/// The project's file in a folder, if it has one.
fn context_in(folder: &Path) -> Option<PathBuf> {
    let name = folder.join(CONTEXT_NAME);
    [name.clone(), name.join(CONTEXT_FILE)].into_iter().find(|path| path.is_file())
}

/// What `find` finds in the current folder or the nearest one above it.
fn find_above(find: impl Fn(&Path) -> Option<PathBuf>) -> Result<Option<PathBuf>, Failure> {
    let current = env::current_dir().map_err(|source| Failure::File { path: PathBuf::from("."), source })?;
    Ok(current.ancestors().take(PARENTS_MAX).find_map(find))
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
