//! Which file an import means.
//!
//! Paths inside a bundle are relative, separated by `/`, without `.` or `..` parts. An import is either
//! relative to the importing file or one of the names of the built-in SDK; nothing is looked up outside the bundle.

/// The names under which modules import the built-in SDK.
///
/// `spacetimedb` is among them because that package is where modules written for its SDK find the value
/// classes (`Identity`, `Timestamp`, ...).
pub(crate) const SDK_SPECIFIERS: [&str; 3] = ["tine:server", "spacetimedb/server", "spacetimedb"];

/// The SDK's module name inside the engine; also the file name of its stack frames.
pub(crate) const SDK_MODULE: &str = "tine:server";

/// Endings tried when an import names no file as it stands, in order.
const ENDINGS: [&str; 8] = [".ts", ".mts", ".js", ".mjs", "/index.ts", "/index.mts", "/index.js", "/index.mjs"];

/// What an import refers to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The built-in SDK.
    Sdk,
    /// A file, by its path.
    File(String),
}

/// Why an import refers to nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ResolveError {
    /// A package name, an absolute path or a URL.
    Bare,
    /// More `..` than directories.
    OutsideRoot,
    /// No such file.
    NotFound,
}

impl ResolveError {
    /// The sentence shown to the author of the import.
    pub(crate) fn message(&self, specifier: &str) -> String {
        match self {
            ResolveError::Bare => format!(
                "cannot import \"{specifier}\": a module may import \"tine:server\" (or \"spacetimedb/server\") and relative paths such as \"./rules\"; packages are not supported"
            ),
            ResolveError::OutsideRoot => {
                format!("cannot import \"{specifier}\": it leaves the module's root directory")
            }
            ResolveError::NotFound => format!("cannot find \"{specifier}\""),
        }
    }
}

/// Resolves `specifier` as imported by the file `importer`; `exists` says whether the bundle has a path.
pub(crate) fn resolve(importer: &str, specifier: &str, exists: &dyn Fn(&str) -> bool) -> Result<Target, ResolveError> {
    if SDK_SPECIFIERS.contains(&specifier) {
        return Ok(Target::Sdk);
    }
    if !is_relative(specifier) {
        return Err(ResolveError::Bare);
    }
    let path = join(importer, specifier).ok_or(ResolveError::OutsideRoot)?;
    candidates(&path).into_iter().find(|candidate| exists(candidate)).map(Target::File).ok_or(ResolveError::NotFound)
}

/// Whether an import names a file by a path relative to the importer.
pub(crate) fn is_relative(specifier: &str) -> bool {
    specifier == "." || specifier == ".." || specifier.starts_with("./") || specifier.starts_with("../")
}

/// Whether a path is in the form that bundles use. A colon is kept out so that no file can be named like a built-in module.
pub(crate) fn is_normal(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0', ':'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The files that a normalised path without certain ending may mean, best first.
pub(crate) fn candidates(path: &str) -> Vec<String> {
    let mut found = Vec::with_capacity(ENDINGS.len() + 2);
    if !path.is_empty() {
        found.push(path.to_owned());
    }
    // TypeScript's own convention: the import names the file that a build would emit.
    for (written, source) in [(".js", ".ts"), (".mjs", ".mts")] {
        if let Some(stem) = path.strip_suffix(written) {
            found.push(format!("{stem}{source}"));
        }
    }
    for ending in ENDINGS {
        // The root itself has an index file but no ending.
        match (path.is_empty(), ending.strip_prefix('/')) {
            (true, Some(index)) => found.push(index.to_owned()),
            (true, None) => {}
            (false, _) => found.push(format!("{path}{ending}")),
        }
    }
    found
}

/// `specifier` relative to the directory of `importer`; `None` if it leaves the root.
fn join(importer: &str, specifier: &str) -> Option<String> {
    let mut parts: Vec<&str> = importer.split('/').collect();
    parts.pop();
    for part in specifier.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_resolve() {
        let files =
            ["index.ts", "rules.ts", "plain.js", "lib/index.ts", "lib/deep/a.ts", "both.ts", "both.js", "dir.ts/x.ts"];
        let exists = |path: &str| files.contains(&path);
        let file = |path: &str| Ok(Target::File(path.to_owned()));
        for (importer, specifier, expected) in [
            ("index.ts", "./rules", file("rules.ts")),
            ("index.ts", "./rules.ts", file("rules.ts")),
            ("index.ts", "./rules.js", file("rules.ts")),
            ("index.ts", "./plain", file("plain.js")),
            ("index.ts", "./plain.js", file("plain.js")),
            ("index.ts", "./both.js", file("both.js")),
            ("index.ts", "./both", file("both.ts")),
            ("index.ts", "./lib", file("lib/index.ts")),
            ("index.ts", "./lib/", file("lib/index.ts")),
            ("lib/deep/a.ts", "..", file("lib/index.ts")),
            ("lib/deep/a.ts", "../../index", file("index.ts")),
            ("lib/index.ts", ".", file("lib/index.ts")),
            ("plain.js", ".", file("index.ts")),
            ("index.ts", "./dir.ts/x", file("dir.ts/x.ts")),
            ("index.ts", "./missing", Err(ResolveError::NotFound)),
            ("index.ts", "../up", Err(ResolveError::OutsideRoot)),
            ("index.ts", "lodash", Err(ResolveError::Bare)),
            ("index.ts", "/etc/passwd", Err(ResolveError::Bare)),
            ("index.ts", "https://example.com/x.js", Err(ResolveError::Bare)),
            ("index.ts", "spacetimedb/sdk", Err(ResolveError::Bare)),
            ("lib/index.ts", "tine:server", Ok(Target::Sdk)),
            ("lib/index.ts", "spacetimedb/server", Ok(Target::Sdk)),
        ] {
            assert_eq!(resolve(importer, specifier, &exists), expected, "{specifier} from {importer}");
        }
    }

    #[test]
    fn only_plain_relative_paths_are_normal() {
        for (path, expected) in [
            ("a.ts", true),
            ("a/b.ts", true),
            ("", false),
            ("/a", false),
            ("a//b", false),
            ("./a", false),
            ("a/../b", false),
            ("a\\b", false),
            ("tine:server", false),
        ] {
            assert_eq!(is_normal(path), expected, "{path:?}");
        }
    }
}
