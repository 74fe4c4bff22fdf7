//! Generates the echo service for the program beside this file.

use std::{env, fs, path::Path};

fn main() {
    let schema = Path::new("../../crates/idl/fixtures/echo.jsonc");
    println!("cargo::rerun-if-changed={}", schema.display());
    let text = fs::read_to_string(schema).expect("the schema is there");
    let schema = tine_idl::Schema::parse(&text).expect("it is a schema");
    let code = tine_idl::generate(&schema, tine_idl::Language::Rust);
    let output = env::var_os("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&output).join("echo.rs"), code).expect("the code can be written");
}
