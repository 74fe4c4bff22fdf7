//! The npm packages that tests use: the SDK, as client and inside modules, and the bundler that its tool chain uses.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    time::Duration,
};

use crate::{command::run_within, root, target};

/// How long bundling a module may take.
const BUNDLING: Duration = Duration::from_secs(60);

/// Scripts of `tests/npm`. Node resolves packages from where a script lies.
const SCRIPTS: [&str; 6] = ["bindings.mjs", "bundle.mjs", "bundle_app.mjs", "codecs.mjs", "sdk.mjs", "world_state.mjs"];

/// The folder with the installed packages and the scripts of `tests/npm`; what is missing, in words.
///
/// # Panics
/// When another version of the SDK is installed.
pub fn folder() -> Result<PathBuf, &'static str> {
    // Where `cargo xtask test` has installed the packages of `tests/npm/package-lock.json`.
    let folder = target().join("npm");
    for package in ["spacetimedb", "rolldown", "react", "typescript"] {
        if !folder.join("node_modules").join(package).join("package.json").exists() {
            return Err("the npm packages are not installed; `cargo xtask test` installs them");
        }
    }
    if Command::new("node").arg("--version").output().is_err() {
        return Err("there is no `node`");
    }
    static COPIED: Once = Once::new();
    COPIED.call_once(|| {
        for script in SCRIPTS {
            copy(&root().join("tests/npm").join(script), &folder.join(script));
        }
    });
    let package = std::fs::read_to_string(folder.join("node_modules/spacetimedb/package.json")).expect("it is there");
    assert!(package.contains(r#""version": "2.10.1""#), "another version of the SDK is installed");
    Ok(folder)
}

/// `node` in the folder of the packages.
pub fn node(folder: &Path) -> Command {
    let mut command = Command::new("node");
    command.current_dir(folder).env_remove("NODE_OPTIONS");
    command
}

/// Bundles a module that is given as files (name and text; the first is the entry) and returns where the bundle is. `name` keeps
/// bundles of different tests apart.
///
/// # Panics
/// When it cannot be bundled.
pub fn bundle(folder: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let project = folder.join("bundles").join(name);
    std::fs::create_dir_all(project.join("src")).expect("the folder can be made");
    for (file, text) in files {
        std::fs::write(project.join("src").join(file), text).expect("the file can be written");
    }
    let (entry, output) = (project.join("src").join(files[0].0), project.join("dist/bundle.js"));
    let ran = run_within(node(folder).arg("bundle.mjs").arg(&entry).arg(&output), BUNDLING);
    assert_eq!(ran.status, 0, "bundling {name}: {}\n{}", ran.stdout, ran.stderr);
    output
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}
