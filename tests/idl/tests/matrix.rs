//! Every client with every server over both transports, and the fixtures in every language.

mod programs;

use std::{fs, path::Path};

use programs::{Program, build_all};

/// The fixtures that every language reads.
fn corpus() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/idl/fixtures/echo.txt");
    path.to_str().expect("the path is text").to_owned()
}

/// One test, so that every program is built once and no two of them fight for the cores.
#[test]
fn languages_understand_one_another() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let programs = build_all(folder.path());
    let corpus = corpus();
    let lines = fs::read_to_string(&corpus).expect("the fixtures are there");
    let fixtures = lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    for program in &programs {
        let said = program.run(&["fixtures", &corpus]);
        assert_eq!(said.trim(), format!("fixtures {fixtures}"), "{}", program.language);
    }
    let mut pairs = 0;
    for server in programs.iter().filter(|program| program.serves) {
        for suffix in ["sock", "shm"] {
            let path = folder.path().join(format!("{}.{suffix}", server.language));
            let path = path.to_str().expect("the path is text");
            let running = server.serve(path);
            for client in &programs {
                check_pair(client, server, path, &corpus);
                pairs += 1;
            }
            if server.language == "rust" {
                programs.iter().for_each(|program| check_example(program, path));
            }
            running.stop();
        }
    }
    assert_eq!(pairs, programs::PAIRS, "a pair was left out");
    for suffix in ["sock", "shm"] {
        let path = folder.path().join(format!("lost.{suffix}"));
        programs.iter().for_each(|program| program.run_lost(path.to_str().expect("the path is text")));
    }
}

fn check_pair(client: &Program, server: &Program, path: &str, corpus: &str) {
    let said = client.run(&["client", path, corpus]);
    let pair = format!("{} to {} at {path}", client.language, server.language);
    let count = said.trim().strip_prefix("client ").and_then(|count| count.parse::<usize>().ok());
    assert!(count.is_some_and(|count| count > 40), "{pair}: {said}");
}

/// The examples of all pages do the same.
fn check_example(program: &Program, path: &str) {
    let Some(said) = program.run_example(path) else { return };
    assert_eq!(said, "2 bytes\n2 bytes\n1\n2\n3\nnot today\n", "the example in {}", program.language);
}
