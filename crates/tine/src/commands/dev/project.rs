//! What a project is: where its module, its page and its data are, and what its database is called.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use serde_json::json;
use tine_module::SourceBundle;

use crate::{
    failure::Failure,
    settings::{CONTEXT_FILE, CONTEXT_NAME, create_private_directory},
};

/// Folders whose files are served when none is named, in order.
const PAGE_FOLDERS: [&str; 2] = ["page", "client"];
/// Longest name made from a folder's: one less than names may have, so that none reads like an identity.
const NAME_CHARACTERS_MAX: usize = 63;
/// Name of a database whose folder's name has no letter or digit in it.
const NAME_DEFAULT: &str = "dev";

/// A project on disk; every path is absolute.
#[derive(Debug)]
pub struct Project {
    /// What is published: the module's file, or the folder it is found in.
    pub entry: PathBuf,
    /// The folder that everything belongs to.
    pub folder: PathBuf,
    /// Name of its database.
    pub database: String,
    /// Folder of the page.
    pub pages: Option<PathBuf>,
}

impl Project {
    /// Finds the project at a folder or module file.
    ///
    /// # Errors
    /// Nothing there; a folder of pages that is named and not there.
    pub fn find(path: &Path, database: Option<&str>, pages: Option<&Path>) -> Result<Project, Failure> {
        let entry = path.canonicalize().map_err(|_| Failure::NotFound {
            message: format!("there is no file or folder `{}`", path.display()),
            next: Some("`tine init` writes a project to start from".to_owned()),
        })?;
        let folder = if entry.is_dir() { entry.clone() } else { folder_of_file(&entry) };
        let database = database.map_or_else(|| name_of(&entry, &folder), str::to_owned);
        let pages = match pages {
            Some(named) => {
                Some(named.canonicalize().map_err(|source| Failure::File { path: named.to_owned(), source })?)
            }
            None => PAGE_FOLDERS.iter().map(|name| folder.join(name)).find(|candidate| candidate.is_dir()),
        };
        Ok(Project { entry, folder, database, pages })
    }

    /// The files of a bundle that was collected from the project, where they can be told: a module may
    /// import from outside of its folder.
    pub fn files_of(&self, bundle: &SourceBundle) -> Vec<PathBuf> {
        let name = Path::new(&bundle.entry).file_name().map(Path::new).unwrap_or(Path::new(""));
        let candidates = [self.entry.clone(), self.entry.join(name), self.entry.join("src").join(name)];
        let Some(entry) = candidates.into_iter().find(|candidate| candidate.is_file()) else { return Vec::new() };
        let depth = Path::new(&bundle.entry).components().count();
        let Some(root) = entry.ancestors().nth(depth) else { return Vec::new() };
        bundle.files.keys().map(|file| root.join(file)).collect()
    }

    /// The project's own folder for data and context, made if it is not there.
    ///
    /// # Errors
    /// A file of that name, and the operating system's errors.
    pub fn private_folder(&self) -> Result<PathBuf, Failure> {
        let folder = self.folder.join(CONTEXT_NAME);
        if folder.is_file() {
            return Err(Failure::Usage {
                message: format!("{} is a file, so the project's data cannot be kept there", folder.display()),
                next: Some("give --data-dir or --throwaway".to_owned()),
            });
        }
        let made = create_private_directory(&folder).and_then(|()| write_new(&folder.join(".gitignore"), "*\n"));
        made.map_err(|source| Failure::File { path: folder.clone(), source })?;
        Ok(folder)
    }

    /// Tells other verbs, when they are used inside the project, where the data and so the server is.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write_context(&self, data_dir: &Path) -> Result<(), Failure> {
        let path = self.private_folder()?.join(CONTEXT_FILE);
        // JSON's strings are strings of TOML, too.
        let (data_dir, database) = (json!(data_dir.display().to_string()), json!(self.database));
        let text = format!(
            "# Written by `tine dev`: where the project's database is.\ndata_dir = {data_dir}\ndatabase = {database}\n"
        );
        fs::write(&path, text).map_err(|source| Failure::File { path, source })
    }

    /// A path as it reads from where the command was run.
    pub fn shown(path: &Path) -> String {
        let current = env::current_dir().ok();
        let inside = current.as_deref().and_then(|current| path.strip_prefix(current).ok());
        match inside {
            Some(inside) if inside.as_os_str().is_empty() => ".".to_owned(),
            Some(inside) => inside.display().to_string(),
            None => path.display().to_string(),
        }
    }
}

/// The folder a module file belongs to: `src` is a part of one.
fn folder_of_file(file: &Path) -> PathBuf {
    let parent = file.parent().unwrap_or(Path::new("/"));
    match parent.file_name() {
        Some(name) if name == "src" => parent.parent().unwrap_or(parent).to_owned(),
        _ => parent.to_owned(),
    }
}

fn name_of(entry: &Path, folder: &Path) -> String {
    let stem = entry.file_stem().filter(|stem| entry.is_file() && *stem != "index");
    let text = stem.or_else(|| folder.file_name()).unwrap_or_default().to_string_lossy();
    database_name(&text)
}

/// The valid name nearest to a text: groups of lower-case letters and digits joined by single hyphens.
pub fn database_name(text: &str) -> String {
    let mut name = String::new();
    for character in text.chars() {
        if name.len() == NAME_CHARACTERS_MAX {
            break;
        }
        match character.to_ascii_lowercase() {
            plain if plain.is_ascii_lowercase() || plain.is_ascii_digit() => name.push(plain),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    let name = name.trim_end_matches('-');
    if name.is_empty() { NAME_DEFAULT.to_owned() } else { name.to_owned() }
}

/// Writes a file unless it is there.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if path.exists() { Ok(()) } else { fs::write(path, text) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tine_module::SourceBundle;

    use super::{Project, database_name};

    #[test]
    fn names_are_made_valid() {
        for (text, name) in [
            ("my game", "my-game"),
            ("My_Game 2!", "my-game-2"),
            ("--x--", "x"),
            ("Größe", "gr-e"),
            ("日本", "dev"),
            (&"a".repeat(200), &"a".repeat(63)),
            (&format!("{}-b", "a".repeat(62)), &"a".repeat(62)),
        ] {
            assert_eq!(database_name(text), name, "{text}");
            assert!(tine_host::check_name(&database_name(text)).is_ok(), "{text}");
        }
    }

    #[test]
    fn projects_are_found_by_folder_and_by_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("it is there").join("My Game");
        fs::create_dir_all(root.join("src")).expect("made");
        fs::create_dir_all(root.join("client")).expect("made");
        fs::write(root.join("src/index.ts"), "import './a';").expect("written");
        fs::write(root.join("src/a.ts"), "export {};").expect("written");
        fs::write(root.join("tool.ts"), "export {};").expect("written");
        for (path, name) in
            [(root.clone(), "my-game"), (root.join("src/index.ts"), "my-game"), (root.join("tool.ts"), "tool")]
        {
            let project = Project::find(&path, None, None).expect("found");
            assert_eq!((project.database.as_str(), &project.folder), (name, &root), "{}", path.display());
            assert_eq!(project.pages, Some(root.join("client")));
            let bundle = SourceBundle::collect(&project.entry).expect("it collects");
            let files = project.files_of(&bundle);
            assert!(files.len() == bundle.files.len() && files.iter().all(|file| file.is_file()), "{files:?}");
        }
        assert_eq!(Project::find(&root.join("none"), None, None).expect_err("nothing is there").exit() as u8, 4);
        assert_eq!(Project::find(&root, Some("x"), None).expect("found").database, "x");
    }
}
