//! The fixtures are what Rust writes, and Rust reads them as they say.

use std::{env, fs, path::Path};

use tine_idl_tests::{corpus, fixtures};

#[test]
fn the_bytes_are_a_promise() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/idl/fixtures/echo.txt");
    let lines = corpus::lines().join("\n") + "\n";
    if env::var_os("TINE_WRITE_FIXTURES").is_some() {
        fs::write(&path, &lines).expect("the file can be written");
    }
    let found = fs::read_to_string(&path).expect("the fixtures are there");
    for (number, (found, wanted)) in found.lines().zip(lines.lines()).enumerate() {
        assert!(found == wanted, "line {} has changed, which old clients would notice", number + 1);
    }
    assert_eq!(found.len(), lines.len());
    assert!(fixtures::check(&found) > 100);
}
