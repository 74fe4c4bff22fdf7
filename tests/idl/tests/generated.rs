//! Generated code is formatted as its language's formatter would do it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use tine_idl::{Language, Schema, generate};

#[test]
fn rust_is_formatted() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let echo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/idl/fixtures/echo.jsonc");
    let echo = fs::read_to_string(echo).expect("the schema is there");
    let empty = r#"{"service": "Empty", "error": {"message": "string"}, "commands": {}}"#;
    let stream = r#"{"service": "S", "error": {"message": "string"},
        "commands": {"Go": {"request": {}, "response": {"type_of_it": "u8"}, "stream": true}}}"#;
    for text in [echo.as_str(), empty, stream] {
        let schema = Schema::parse(text).expect("it is a schema");
        let file = folder.path().join(Language::Rust.file_name(&schema));
        fs::write(&file, generate(&schema, Language::Rust)).expect("it can be written");
        // In a folder without settings, so with the usual ones.
        let mut command = Command::new("rustfmt");
        let done = command.args(["--check", "--edition", "2024"]).arg(&file).stderr(Stdio::inherit()).output();
        let done = done.expect("rustfmt comes with cargo");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    }
}
