//! Reading a module's files from disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::bundle::{BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX, BundleError, CollectError, SourceBundle};
use super::{resolve, strip};
use crate::diagnostic::Diagnostic;

/// Where the entry may be when a directory is named, in order.
const ENTRY_CANDIDATES: [&str; 6] = ["index.ts", "index.mts", "index.js", "index.mjs", "src/index.ts", "src/index.js"];

/// See [`SourceBundle::collect`].
pub(super) fn collect(entry: &Path) -> Result<SourceBundle, CollectError> {
    let entry = entry_file(entry)?;
    let mut texts: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut wanted = vec![entry.clone()];
    let mut bytes = 0;
    while let Some(path) = wanted.pop() {
        if texts.contains_key(&path) {
            continue;
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|source| CollectError::Read { path: path.display().to_string(), source })?;
        bytes += text.len();
        if bytes > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge { bytes }.into());
        }
        wanted.extend(imports_of(&path, &text)?);
        texts.insert(path, text);
        if texts.len() > BUNDLE_FILES_MAX {
            return Err(BundleError::TooManyFiles { files: texts.len() }.into());
        }
    }
    Ok(into_bundle(&entry, texts))
}

/// The absolute path of the entry file that `entry` names.
fn entry_file(entry: &Path) -> Result<PathBuf, CollectError> {
    let read = |source| CollectError::Read { path: entry.display().to_string(), source };
    let entry = entry.canonicalize().map_err(read)?;
    if !entry.is_dir() {
        return Ok(entry);
    }
    let found = ENTRY_CANDIDATES.iter().map(|candidate| entry.join(candidate)).find(|candidate| candidate.is_file());
    found.ok_or_else(|| CollectError::NoIndex { path: entry.display().to_string() })
}

/// The files that one file imports, as absolute paths.
fn imports_of(path: &Path, text: &str) -> Result<Vec<PathBuf>, CollectError> {
    let name = path.display().to_string();
    let stripped = strip::strip(&name, text).map_err(CollectError::Source)?;
    let mut found = Vec::new();
    for import in stripped.imports {
        if !resolve::is_relative(&import.specifier) {
            // Names of the SDK have no file; wrong ones are reported when the bundle is compiled.
            continue;
        }
        let target = normalize(&path.parent().unwrap_or(Path::new("/")).join(&import.specifier));
        let candidates = resolve::candidates(&target.to_string_lossy()).into_iter().map(PathBuf::from);
        match candidates.into_iter().find(|candidate| candidate.is_file()) {
            Some(file) => found.push(file),
            None => {
                let message = resolve::ResolveError::NotFound.message(&import.specifier);
                return Err(CollectError::Source(Diagnostic::at_offset(message, &name, text, import.offset)));
            }
        }
    }
    Ok(found)
}

/// Removes `.` and `..` from an absolute path without looking at the disk, as imports are resolved inside a bundle.
fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// Makes paths relative to the deepest directory that holds every file.
fn into_bundle(entry: &Path, texts: BTreeMap<PathBuf, String>) -> SourceBundle {
    let parents: BTreeSet<&Path> = texts.keys().filter_map(|path| path.parent()).collect();
    let mut root = entry.parent().unwrap_or(Path::new("/"));
    while let Some(parent) = root.parent()
        && !parents.iter().all(|directory| directory.starts_with(root))
    {
        root = parent;
    }
    let relative = |path: &Path| {
        let inside = path.strip_prefix(root).unwrap_or(path);
        let parts: Vec<_> = inside.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        parts.join("/")
    };
    SourceBundle {
        entry: relative(entry),
        files: texts.iter().map(|(path, text)| (relative(path), text.clone())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("temporary directory");
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("create");
            std::fs::write(path, text).expect("write");
        }
        directory
    }

    #[test]
    fn imports_are_followed() {
        let directory = tree(&[
            ("module/index.ts", "import { a } from './lib/a.js';\nimport type { T } from './types';\nexport { a };\n"),
            ("module/lib/a.ts", "import { b } from '../../shared';\nexport const a = b;\n"),
            ("shared/index.ts", "export const b = 1;\n"),
            ("module/unused.ts", "syntax error ("),
        ]);
        let bundle = SourceBundle::collect(&directory.path().join("module")).expect("collects");
        assert_eq!(bundle.entry, "module/index.ts");
        assert_eq!(
            bundle.files.keys().map(String::as_str).collect::<Vec<_>>(),
            ["module/index.ts", "module/lib/a.ts", "shared/index.ts"]
        );
        bundle.check().expect("a valid bundle");
    }

    #[test]
    fn paths_are_relative_to_the_entry_when_everything_is_below() {
        let directory = tree(&[("src/index.ts", "import './x/y';\n"), ("src/x/y.js", "")]);
        let bundle = SourceBundle::collect(directory.path()).expect("collects");
        assert_eq!(bundle.entry, "index.ts");
        assert_eq!(bundle.files.keys().map(String::as_str).collect::<Vec<_>>(), ["index.ts", "x/y.js"]);
    }

    #[test]
    fn failures_name_the_place() {
        let directory =
            tree(&[("index.ts", "\nimport { a } from './gone';\nconsole.log(a);\n"), ("empty/readme.md", "")]);
        let error = SourceBundle::collect(directory.path()).expect_err("a missing import");
        assert_eq!(error.code(), "TN0508");
        assert!(error.to_string().contains("index.ts:2:19: cannot find \"./gone\""), "{error}");
        assert_eq!(SourceBundle::collect(&directory.path().join("empty")).expect_err("no index").code(), "TN0507");
        assert_eq!(SourceBundle::collect(&directory.path().join("none.ts")).expect_err("no file").code(), "TN0506");
    }
}
