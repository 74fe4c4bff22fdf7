//! What may not be in a source file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::Context;

use crate::{
    process::{command, output},
    root,
};

/// Longest source file, in lines; a longer one has several subjects.
const LINES_MAX: usize = 1_000;

/// A file under version control.
pub struct Tracked {
    /// Path from the root.
    pub path: String,
    /// Its text; empty for what is not text.
    pub text: String,
}

/// Every file under version control that still exists.
pub fn tracked() -> anyhow::Result<Vec<Tracked>> {
    let listed = output(&mut command("git", &["ls-files", "-z"]))?;
    let mut files = Vec::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        let full = root().join(path);
        if !full.is_file() {
            continue;
        }
        let bytes = fs::read(&full).with_context(|| format!("cannot read {path}"))?;
        files.push(Tracked { path: path.to_owned(), text: String::from_utf8(bytes).unwrap_or_default() });
    }
    Ok(files)
}

/// Banned words, long files, and paths of the machine a file was written on.
pub fn check(files: &[Tracked]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files {
        let is_rust = file.path.ends_with(".rs");
        let is_source = is_rust || [".ts", ".js", ".mjs", ".css", ".html"].iter().any(|end| file.path.ends_with(end));
        if is_source && file.text.lines().count() > LINES_MAX {
            wrong.push(format!("{}: more than {LINES_MAX} lines", file.path));
        }
        for (number, line) in file.text.lines().enumerate() {
            let place = format!("{}:{}", file.path, number + 1);
            wrong.extend(machine_path(line).map(|path| format!("{place}: a path of a machine: {path}")));
            wrong.extend(registry(line).map(|host| format!("{place}: the host of a registry: {host}")));
            if file.path.starts_with(STORE_SOURCES) && file.path != OBJECTS_SOURCE {
                wrong.extend(asynchronous(line).map(|word| format!("{place}: `{word}` outside of {OBJECTS_SOURCE}")));
            }
            if is_rust {
                wrong.extend(banned(line).map(|word| format!("{place}: `{word}` is banned")));
            }
            if is_source && line.ends_with([' ', '\t']) {
                wrong.push(format!("{place}: space at the end of the line"));
            }
        }
    }
    wrong
}

/// Calls that must not be committed. The words are put together here, so that this file passes.
fn banned(line: &str) -> Option<String> {
    let words = [["to", "do!("], ["unimplem", "ented!("], ["db", "g!("], ["TO", "DO"], ["FIX", "ME"], ["XX", "X"]];
    let code = line.trim_start();
    words.map(|parts| parts.concat()).into_iter().find(|word| match word.strip_suffix('(') {
        // A call: not part of a longer name.
        Some(_) => code.match_indices(word.as_str()).any(|(at, _)| !code[..at].ends_with(is_name)),
        None => code.split(|c: char| !is_name(c)).any(|found| found == word),
    })
}

/// The store is synchronous, but for the one file that meets the crate for objects.
const STORE_SOURCES: &str = "crates/store/src/";
const OBJECTS_SOURCE: &str = "crates/store/src/images/remote.rs";

/// A word of asynchronous code. Comments may name it.
fn asynchronous(line: &str) -> Option<&'static str> {
    let code = line.split("//").next().unwrap_or_default();
    let words = ["async", "await", "tokio", "object_store", "futures_util"];
    words.into_iter().find(|word| code.split(|c: char| !is_name(c)).any(|found| found == *word))
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Absolute paths below folders that exist on one machine only.
fn machine_path(line: &str) -> Option<&str> {
    let starts = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["/tmp/", "plan"]].map(|parts| parts.concat());
    starts.iter().find_map(|start| {
        let at = line.find(start.as_str())?;
        // `.../home/` inside a longer path or an address is something else.
        let before = line[..at].chars().next_back();
        let begins = before.is_none_or(|c| c.is_whitespace() || "\"'`(=:,".contains(c));
        let rest = &line[at..];
        begins.then(|| &rest[..rest.find(|c: char| c.is_whitespace() || "\"'`)".contains(c)).unwrap_or(rest.len())])
    })
}

/// Registries are set up by whoever builds, not named in files.
fn registry(line: &str) -> Option<String> {
    let hosts = [["registry.", "npmjs"], ["index.", "crates.io"], ["static.", "crates.io"], ["deb.", "debian.org"]];
    hosts.map(|parts| parts.concat()).into_iter().find(|host| line.contains(host.as_str()))
}

/// Every error code stands for one thing, whichever enum passes it on, and has a page that explains it.
pub fn error_codes(files: &[Tracked]) -> Vec<String> {
    let mut meanings: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
    for file in files.iter().filter(|file| is_shipped(&file.path)) {
        for (number, line) in file.text.lines().enumerate() {
            if let Some((code, meaning)) = given_code(line) {
                let place = || format!("`{meaning}` in {}:{}", file.path, number + 1);
                meanings.entry(code).or_default().entry(meaning).or_insert_with(place);
            }
        }
    }
    let mut wrong = Vec::new();
    for (code, names) in meanings.iter().filter(|(_, names)| names.len() > 1) {
        let names: Vec<&str> = names.values().map(String::as_str).collect();
        wrong.push(format!("error code {code} has several meanings: {}", names.join(", ")));
    }
    let page_of = |file: &Tracked| Some(file.path.strip_prefix(ERROR_PAGES)?.strip_suffix(".md")?.to_owned());
    let pages: BTreeSet<String> = files.iter().filter_map(page_of).filter(|name| is_code(name)).collect();
    let without = meanings.keys().filter(|code| !pages.contains(**code));
    wrong.extend(without.map(|code| format!("error code {code} has no page: {ERROR_PAGES}{code}.md")));
    let unknown = pages.iter().filter(|code| !meanings.contains_key(code.as_str()));
    wrong.extend(unknown.map(|code| format!("{ERROR_PAGES}{code}.md explains a code that no error has")));
    wrong
}

/// Where the pages of error codes are.
const ERROR_PAGES: &str = "docs/errors/";

/// The code and the name of the variant in a line such as `Kind::Name { .. } => "TN0123",`. An error
/// that is one thing has its code alone on a line.
fn given_code(line: &str) -> Option<(&str, &str)> {
    let alone = line.trim().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    if let Some(code) = alone.filter(|text| is_code(text)) {
        return Some((code, "the whole type"));
    }
    let (pattern, after) = line.split_once("=> \"")?;
    let code = after.split('"').next().filter(|code| is_code(code))?;
    let name = pattern.trim().split(['{', '(', '|', ' ']).find(|part| !part.is_empty())?;
    Some((code, name.rsplit("::").next()?))
}

/// Whether a file is a source that ends up in the binary.
pub fn is_shipped(path: &str) -> bool {
    let shipped = path.starts_with("crates/") || path.starts_with("sdks/");
    shipped && path.ends_with(".rs") && !path.contains("/tests") && !path.ends_with("_test.rs")
}

/// Whether a text is an error code.
pub fn is_code(text: &str) -> bool {
    text.len() == 6 && text.starts_with("TN") && text[2..].bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Tracked {
        Tracked { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn banned_calls_are_found_and_names_like_them_are_not() {
        let call = ["to", "do!(\"later\")"].concat();
        assert!(banned(&call).is_some() && banned(&format!("    let x = {call};")).is_some());
        assert!(banned(&["autot", "odo!(1)"].concat()).is_none());
        assert!(banned("let todo = list;").is_none());
        assert!(banned(&["// FIX", "ME later"].concat()).is_some());
    }

    #[test]
    fn paths_of_machines_are_found() {
        let home = ["let x = \"/ho", "me/ann/data\";"].concat();
        assert!(machine_path(&home).is_some_and(|path| path.ends_with("/ann/data")));
        assert!(machine_path(&["http://example.org/ho", "me/"].concat()).is_none());
        assert!(machine_path("~/.local/share/tine").is_none());
    }

    #[test]
    fn codes_have_one_meaning_and_a_page() {
        let page = |code: &str| file(&format!("docs/errors/{code}.md"), "");
        let one = || file("crates/a/src/error.rs", "        E::A => \"TN0101\",\n        E::B { .. } => \"TN0102\",\n");
        let passed_on = || file("crates/b/src/error.rs", "        Other::A(_) => \"TN0101\",\n");
        let test = || file("crates/b/src/tests.rs", "        X => \"TN0102\",\n");
        assert!(error_codes(&[one(), passed_on(), test(), page("TN0101"), page("TN0102")]).is_empty());
        let other = file("crates/b/src/error.rs", "        Other::C => \"TN0101\",\n");
        let wrong = error_codes(&[one(), other, page("TN0101"), page("TN0999")]);
        assert!(wrong[0].contains("TN0101 has several meanings"), "{wrong:?}");
        assert!(wrong[1].contains("TN0102 has no page") && wrong[2].contains("TN0999"), "{wrong:?}");
        assert_eq!(wrong.len(), 3);
    }
}
