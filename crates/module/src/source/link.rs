//! A bundle as JavaScript whose every import is known to lead somewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::bundle::SourceBundle;
use super::positions::Positions;
use super::resolve::{self, Target};
use super::strip::{self, Import};
use crate::diagnostic::Diagnostic;

/// One file, ready to run.
pub(crate) struct LinkedFile {
    /// Its JavaScript.
    pub code: String,
    /// From the JavaScript to the source.
    pub positions: Positions,
    /// What its import specifiers mean: the path of a file, or [`resolve::SDK_MODULE`].
    pub imports: BTreeMap<String, String>,
}

/// The files that the entry needs, by path. Invariant: every import of every file is a key or the SDK.
pub(crate) struct LinkedProgram {
    pub entry: String,
    pub files: BTreeMap<String, LinkedFile>,
    /// What the files import of the SDK, in its order.
    pub sdk_names: Vec<&'static str>,
}

/// Strips the entry and everything it imports and resolves all imports.
///
/// `sdk_exports` are the names that the SDK exports: a wrong one is reported where it is imported, which the engine could not.
///
/// # Errors
/// The first mistake, at its place. The bundle's invariants must hold.
pub(crate) fn link(bundle: &SourceBundle, sdk_exports: &[&'static str]) -> Result<LinkedProgram, Diagnostic> {
    let mut files = BTreeMap::new();
    let mut wanted = vec![bundle.entry.clone()];
    let mut sdk_names = BTreeSet::new();
    while let Some(path) = wanted.pop() {
        if files.contains_key(&path) {
            continue;
        }
        let source = &bundle.files[&path];
        let stripped = strip::strip(&path, source)?;
        let mut imports = BTreeMap::new();
        for import in &stripped.imports {
            let target = resolve_import(bundle, &path, source, import, sdk_exports)?;
            if target != resolve::SDK_MODULE {
                wanted.push(target.clone());
            } else if import.names.is_empty() {
                sdk_names.extend(sdk_exports.iter().map(|name| (*name).to_owned()));
            } else {
                sdk_names.extend(import.names.iter().map(|(name, _)| name.clone()));
            }
            imports.insert(import.specifier.clone(), target);
        }
        files.insert(path, LinkedFile { code: stripped.code, positions: stripped.positions, imports });
    }
    let sdk_names = sdk_exports.iter().copied().filter(|name| sdk_names.contains(*name)).collect();
    Ok(LinkedProgram { entry: bundle.entry.clone(), files, sdk_names })
}

/// The module name that one import means.
fn resolve_import(
    bundle: &SourceBundle,
    importer: &str,
    source: &str,
    import: &Import,
    sdk_exports: &[&str],
) -> Result<String, Diagnostic> {
    let exists = |path: &str| bundle.files.contains_key(path);
    match resolve::resolve(importer, &import.specifier, &exists) {
        Ok(Target::File(path)) => Ok(path),
        Ok(Target::Sdk) => match import.names.iter().find(|(name, _)| !sdk_exports.contains(&name.as_str())) {
            None => Ok(resolve::SDK_MODULE.to_owned()),
            Some((name, offset)) => {
                let message = format!("\"{}\" does not export `{name}`", import.specifier);
                Err(Diagnostic::at_offset(message, importer, source, *offset))
            }
        },
        Err(error) => Err(Diagnostic::at_offset(error.message(&import.specifier), importer, source, import.offset)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(files: &[(&str, &str)]) -> SourceBundle {
        SourceBundle {
            entry: files[0].0.to_owned(),
            files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect(),
        }
    }

    #[test]
    fn only_what_is_imported_is_linked() {
        let bundle = bundle(&[
            ("index.ts", "import { t } from 'spacetimedb/server';\nimport './a';\nexport const x = t;\n"),
            ("a.ts", "import '.';\n"),
            ("broken.ts", "("),
        ]);
        let program = link(&bundle, &["t"]).expect("links");
        assert_eq!(program.files.keys().collect::<Vec<_>>(), ["a.ts", "index.ts"]);
        assert_eq!(program.files["index.ts"].imports["spacetimedb/server"], "tine:server");
        assert_eq!(program.files["a.ts"].imports["."], "index.ts");
    }

    #[test]
    fn only_what_is_imported_of_the_sdk_is_listed() {
        let names = |files: &[(&str, &str)]| link(&bundle(files), &["a", "b", "c"]).expect("links").sdk_names;
        let named = "import { c as x } from 'tine:server';\nimport './other';\nexport const y = x;\n";
        assert_eq!(names(&[("index.ts", named), ("other.ts", "export { a } from 'spacetimedb';\n")]), ["a", "c"]);
        assert_eq!(names(&[("index.ts", named), ("other.ts", "export * from 'tine:server';\n")]), ["a", "b", "c"]);
        let all = "import * as server from 'tine:server';\nexport const y = server;\n";
        assert_eq!(names(&[("index.ts", all)]), ["a", "b", "c"]);
        assert!(names(&[("index.ts", "import type { a } from 'tine:server';\nexport const y = 1;\n")]).is_empty());
    }

    #[test]
    fn wrong_imports_are_placed() {
        for (source, place, words) in [
            ("import { x } from 'lodash';\nx();", "index.ts:1:19", "packages are not supported"),
            ("import { t,\n  tt } from 'tine:server';\nt(tt);", "index.ts:2:3", "does not export `tt`"),
            ("import server from 'tine:server';\nserver();", "index.ts:1:8", "does not export `default`"),
            ("\nexport { q } from './gone';", "index.ts:2:19", "cannot find \"./gone\""),
            ("import '../up';", "index.ts:1:8", "leaves the module's root"),
        ] {
            let Err(error) = link(&bundle(&[("index.ts", source)]), &["t"]) else { panic!("{source} must be refused") };
            let location = error.location.as_ref().expect("placed").to_string();
            assert_eq!(location, place, "{error}");
            assert!(error.message.contains(words), "{error}");
        }
    }
}
