//! The bench module as a bundle. The SDK and the bundler come from npm and are never part of Tine: they are used where
//! `cargo xtask test` has installed them for the tests.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

/// The module, bundled when the bench runs.
const MODULE: &str = include_str!("../modules/bundle.ts");
/// What bundles it, in the folder of the packages.
const SCRIPT: &str = include_str!("../../tests/npm/bundle.mjs");

/// The bundled module; `None`, after saying so loudly, where the packages are not installed.
pub fn build() -> anyhow::Result<Option<Vec<u8>>> {
    let folder = packages();
    let missing = ["spacetimedb", "rolldown"].iter().find(|name| !folder.join("node_modules").join(name).exists());
    if let Some(name) = missing {
        eprintln!(
            "SKIPPED the cases of bundles: npm package `{name}` is not in {}; `cargo xtask test` installs it",
            folder.display()
        );
        return Ok(None);
    }
    let project = folder.join("bundles/bench");
    let (entry, output) = (project.join("src/index.ts"), project.join("dist/bundle.js"));
    std::fs::create_dir_all(project.join("src"))?;
    std::fs::write(&entry, MODULE)?;
    // Node resolves packages from where a script lies.
    std::fs::write(folder.join("bundle.mjs"), SCRIPT)?;
    let ran = Command::new("node").current_dir(&folder).arg("bundle.mjs").args([&entry, &output]).output();
    let ran = ran.context("cannot run node")?;
    ensure!(ran.status.success(), "the bench module cannot be bundled: {}", String::from_utf8_lossy(&ran.stderr));
    Ok(Some(std::fs::read(output)?))
}

/// Where the npm packages of the tests are installed.
fn packages() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root.join(target).join("npm")
}
