//! `tine init`

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::dev::database_name;
use crate::{failure::Failure, output::Output};

/// What stands for the database's name in the files.
const NAME_MARK: &str = "__NAME__";

/// `tine init`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine init my-game && cd my-game && tine dev
  tine init --template module

Files that are there already are kept; without --keep a folder that has any of them is refused.")]
pub struct InitArgs {
    /// The project's folder; it is made if it is not there
    #[arg(default_value = ".")]
    pub directory: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t = Template::App)]
    pub template: Template,
    /// Name of the database in the page and the tests [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
    /// Write only the files that are missing
    #[arg(long)]
    pub keep: bool,
}

/// What a starter project has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// A chat: a module, a live page and tests
    App,
    /// The same without the page
    Module,
}

/// The files of a template: path and text.
fn files(template: Template) -> impl Iterator<Item = (&'static str, &'static str)> {
    let page: &[(&str, &str)] = match template {
        Template::App => &[
            ("page/index.html", include_str!("template/page/index.html")),
            ("page/app.js", include_str!("template/page/app.js")),
        ],
        Template::Module => &[],
    };
    let common = [
        ("src/index.ts", include_str!("template/src/index.ts")),
        ("test/module.test.mjs", include_str!("template/test/module.test.mjs")),
        ("tsconfig.json", include_str!("template/tsconfig.json")),
        ("tine.d.ts", tine_module::SERVER_TYPES),
        (".gitignore", include_str!("template/gitignore")),
        ("README.md", include_str!("template/README.md")),
    ];
    common.into_iter().chain(page.iter().copied())
}

/// Writes a project. Nothing is ever overwritten.
///
/// # Errors
/// Files that are there already, and the operating system's errors.
pub fn run(args: &InitArgs, output: &Output) -> Result<(), Failure> {
    let directory = &args.directory;
    let file_error = |path: &Path| {
        let path = path.to_owned();
        move |source| Failure::File { path, source }
    };
    fs::create_dir_all(directory).map_err(file_error(directory))?;
    let folder = directory.canonicalize().map_err(file_error(directory))?;
    let name = args
        .database
        .clone()
        .unwrap_or_else(|| database_name(&folder.file_name().unwrap_or_default().to_string_lossy()));
    tine_host::check_name(&name).map_err(|error| Failure::usage(error.to_string()))?;
    let there: Vec<&str> = files(args.template)
        .map(|(path, _)| path)
        .filter(|path| folder.join(path).symlink_metadata().is_ok())
        .collect();
    if !there.is_empty() && !args.keep {
        return Err(Failure::Usage {
            message: format!("{} has these files already: {}", directory.display(), there.join(", ")),
            next: Some("name a new folder, or add --keep to write only what is missing".to_owned()),
        });
    }
    let mut written = Vec::new();
    for (path, text) in files(args.template).filter(|(path, _)| !there.contains(path)) {
        let target = folder.join(path);
        write_new(&target, &text.replace(NAME_MARK, &name)).map_err(file_error(&target))?;
        written.push(path);
    }
    tell(args, &name, &written, output)
}

/// Writes a file that must not be there, not even since we looked.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

fn tell(args: &InitArgs, name: &str, written: &[&str], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&json!({ "directory": args.directory, "database": name, "written": written }));
    }
    let files = written.iter().map(|path| format!("  {path}"));
    let enter =
        if args.directory == Path::new(".") { String::new() } else { format!("cd {} && ", args.directory.display()) };
    let next = format!("next: {enter}tine dev");
    output.lines([format!("wrote the project {name}:")].into_iter().chain(files).chain([next]))
}

#[cfg(test)]
mod tests {
    use tine_module::{Limits, SourceBundle};

    use super::{NAME_MARK, Template, files};

    #[test]
    fn the_module_compiles_and_no_mark_is_left() {
        let (_, module) = files(Template::Module).find(|(path, _)| *path == "src/index.ts").expect("it has one");
        let bundle = SourceBundle::single("index.ts", module.replace(NAME_MARK, "x"));
        tine_module::compile(&bundle, &Limits::default()).expect("it compiles");
        assert!(files(Template::App).count() > files(Template::Module).count());
        for (path, text) in files(Template::App) {
            assert!(!text.replace(NAME_MARK, "x").contains("__N"), "{path}");
            assert!(text.ends_with('\n'), "{path}");
        }
    }
}
