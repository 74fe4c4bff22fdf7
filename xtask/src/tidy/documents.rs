//! Links between the documents.

use std::path::{Component, Path, PathBuf};

use super::sources::Tracked;
use crate::root;

/// Relative links that lead nowhere, and links to headings that are not there.
pub fn check(files: &[Tracked]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, link) in links(&file.text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = link.split_once('#').map_or((link, None), |(path, heading)| (path, Some(heading)));
            let target = if path.is_empty() { PathBuf::from(&file.path) } else { resolve(&file.path, path) };
            if !root().join(&target).exists() {
                wrong.push(format!("{}:{line}: the link to {link} leads nowhere", file.path));
                continue;
            }
            let text = files.iter().find(|other| Path::new(&other.path) == target).map(|other| other.text.as_str());
            if let (Some(heading), Some(text)) = (heading, text)
                && target.extension().is_some_and(|extension| extension == "md")
                && !headings(text).any(|found| found == heading)
            {
                wrong.push(format!("{}:{line}: there is no heading {link}", file.path));
            }
        }
    }
    wrong
}

/// Targets of `[text](target)` outside code, with their line numbers.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        // Code spans are the odd parts between backticks.
        for part in line.split('`').step_by(2) {
            for (at, _) in part.match_indices("](") {
                let rest = &part[at + 2..];
                if let Some(end) = rest.find(')') {
                    found.push((number + 1, rest[..end].split(' ').next().unwrap_or_default()));
                }
            }
        }
    }
    found
}

/// A relative link from a file, as a path from the root.
fn resolve(from: &str, link: &str) -> PathBuf {
    let mut path = Path::new(from).parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

/// The anchors that headings get: lower case, spaces as hyphens, without punctuation.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| {
        let title = line.strip_prefix('#')?.trim_start_matches('#').trim();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_code() {
        let text = "see [a](b.md) and `[x](y)`\n```\n[no](no.md)\n```\n[c](../d.md#part \"title\")\n";
        assert_eq!(links(text), [(1, "b.md"), (5, "../d.md#part")]);
    }

    #[test]
    fn links_resolve_from_their_file() {
        assert_eq!(resolve("docs/a.md", "../README.md"), Path::new("README.md"));
        assert_eq!(resolve("docs/errors/x.md", "y.md"), Path::new("docs/errors/y.md"));
    }

    #[test]
    fn headings_become_anchors() {
        let found: Vec<String> = headings("# What it is\ntext\n## 3a. Rules & so on\n").collect();
        assert_eq!(found, ["what-it-is", "3a-rules--so-on"]);
    }
}
