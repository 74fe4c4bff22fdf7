//! Every error code has a page, and every page a code.

use std::collections::BTreeMap;

use super::sources::{Tracked, is_code, is_shipped};

/// Where the pages are.
const FOLDER: &str = "docs/errors/";
/// Parts that each page has.
const PARTS: [&str; 3] = ["\n## Cause\n", "\n## Fix\n", "\n## Common mistakes\n"];

/// Compares the codes in the sources with the pages.
pub fn check(files: &[Tracked]) -> Vec<String> {
    let codes = codes(files);
    let pages: BTreeMap<&str, &Tracked> =
        files.iter().filter_map(|file| Some((page_code(&file.path)?, file))).collect();
    let mut wrong = Vec::new();
    for (code, place) in &codes {
        if !pages.contains_key(code) {
            wrong.push(format!("{place}: error code {code} has no page {FOLDER}{code}.md"));
        }
    }
    for (code, page) in pages {
        if !codes.contains_key(code) {
            wrong.push(format!("{}: no error has this code", page.path));
        }
        if !page.text.starts_with(&format!("# {code}: ")) {
            wrong.push(format!("{}: its first line is not `# {code}: ...`", page.path));
        }
        wrong.extend(
            PARTS
                .iter()
                .filter(|part| !page.text.contains(*part))
                .map(|part| format!("{}: no part `{}`", page.path, part.trim())),
        );
    }
    wrong
}

/// The codes that errors have, each with a place: `Kind::Name => "TN0123"`, or the text alone as the
/// result of a function.
fn codes(files: &[Tracked]) -> BTreeMap<&str, String> {
    let mut codes = BTreeMap::new();
    for file in files.iter().filter(|file| is_shipped(&file.path)) {
        for (number, line) in file.text.lines().enumerate() {
            let given = line.split_once("=> \"").map_or(line.trim().trim_start_matches('"'), |(_, after)| after);
            let is_whole = line.contains("=> \"") || line.trim().starts_with('"') && line.trim().ends_with('"');
            if let Some(code) = given.split('"').next().filter(|code| is_whole && is_code(code)) {
                codes.entry(code).or_insert_with(|| format!("{}:{}", file.path, number + 1));
            }
        }
    }
    codes
}

fn page_code(path: &str) -> Option<&str> {
    path.strip_prefix(FOLDER)?.strip_suffix(".md")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::sources;

    fn file(path: &str, text: &str) -> Tracked {
        Tracked { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn codes_and_pages_belong_together() {
        let page = |code: &str| {
            file(
                &format!("docs/errors/{code}.md"),
                &format!("# {code}: x\n\n## Cause\n\n## Fix\n\n## Common mistakes\n"),
            )
        };
        let source =
            file("crates/a/src/error.rs", "    A { .. } => \"TN0101\",\n    \"TN0102\"\n    assert(\"TN0999\");\n");
        assert_eq!(check(&[source, page("TN0101"), page("TN0102")]), Vec::<String>::new());
        let source = file("crates/a/src/error.rs", "    A => \"TN0101\",\n");
        let wrong =
            check(&[source, page("TN0103"), file("docs/errors/TN0104.md", "# TN0104: x\n\n## Cause\n\n## Fix\n")]);
        assert_eq!(wrong.len(), 4, "no page, two without a code, one without a part: {wrong:#?}");
    }

    #[test]
    fn every_code_of_this_repository_has_a_page() {
        let files = sources::tracked().expect("git lists the files");
        let wrong = check(&files);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
