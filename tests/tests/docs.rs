//! Every command in the documentation is run.
//!
//! In `README.md` and `docs/*.md`, each line of a ```` ```console ```` block that begins with `$ ` is a
//! command; the lines after it, up to the next command, are what it prints, compared where they are
//! there (`...` alone on a line stands for anything). All blocks of one file share a folder and a
//! server, whose address the commands find by themselves. A fence with more words is an instruction:
//! ```` ```console skip ```` is not run (for commands that start a server or run for minutes).

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tine_tests::{binary, command::run, keep::TestDirectory, root, server::TestServer, server::clean_environment};

/// A command and what it should print.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    expected: Vec<String>,
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            inside = !inside && fence.trim() == "console";
            open = false;
        } else if inside && let Some(command) = line.trim_start().strip_prefix("$ ") {
            steps.push(Step { line: number + 1, command: command.to_owned(), expected: Vec::new() });
            open = true;
        } else if open && let Some(step) = steps.last_mut() {
            step.expected.push(line.trim_end().to_owned());
        }
    }
    for step in &mut steps {
        while step.expected.last().is_some_and(String::is_empty) {
            step.expected.pop();
        }
    }
    steps
}

/// Whether the lines match, `...` standing for any number of lines.
fn matches(expected: &[String], printed: &[&str]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "..." => (0..=printed.len()).any(|from| matches(rest, &printed[from..])),
        Some((first, rest)) => printed.split_first().is_some_and(|(line, more)| first == line && matches(rest, more)),
    }
}

fn documents() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md")];
    if let Ok(entries) = std::fs::read_dir(root().join("docs")) {
        found.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md") && path.exists());
    found.sort();
    found
}

fn run_document(path: &Path, steps: &[Step]) {
    let server = TestServer::start();
    let folder = TestDirectory::new("docs");
    // Commands are written for the root of the repository, on a copy of what they use.
    for name in ["examples", "docs"] {
        let linked = std::os::unix::fs::symlink(root().join(name), folder.path().join(name));
        linked.expect("a link can be made");
    }
    let programs = folder.path().join("bin");
    std::fs::create_dir(&programs).expect("a folder can be made");
    std::os::unix::fs::symlink(binary(), programs.join("tine")).expect("a link can be made");
    let search = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    for step in steps {
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &step.command]).current_dir(folder.path());
        clean_environment(&mut shell, folder.path());
        shell.env("PATH", &search).env("TINE_SERVER", server.url()).env("TINE_DATA_DIR", server.data());
        let ran = run(&mut shell);
        let place = format!("{}:{}", path.display(), step.line);
        assert_eq!(ran.status, 0, "{place}: `{}` failed: {ran:?}", step.command);
        let printed: Vec<&str> = ran.stdout.lines().map(str::trim_end).collect();
        let right = step.expected.is_empty() || matches(&step.expected, &printed);
        assert!(right, "{place}: `{}` printed\n{}", step.command, ran.stdout);
    }
}

#[test]
fn every_command_in_the_documentation_works() {
    for path in documents() {
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let steps = steps(&text);
        if !steps.is_empty() {
            println!("{}: {} commands", path.display(), steps.len());
            run_document(&path, &steps);
        }
    }
}

#[test]
fn steps_are_found_and_compared() {
    let text = "words\n```console\n$ tine a\none\ntwo\n\n$ tine b\n```\n$ not this\n```sh\n$ nor this\n```\n\
                ```console skip\n$ nor that\n```\n```console\n$ tine c\n...\nlast\n```\n";
    let found = steps(text);
    let shown: Vec<(usize, &str, usize)> =
        found.iter().map(|step| (step.line, step.command.as_str(), step.expected.len())).collect();
    assert_eq!(shown, [(3, "tine a", 2), (7, "tine b", 0), (17, "tine c", 2)]);
    assert!(matches(&found[2].expected, &["any", "thing", "last"]));
    assert!(!matches(&found[2].expected, &["any", "last", "thing"]));
    assert!(matches(&found[0].expected, &["one", "two"]) && !matches(&found[0].expected, &["one"]));
}
