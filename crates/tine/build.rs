//! Gathers the pages of `docs/errors` into the binary, for `tine explain`.

use std::{env, fmt::Write as _, fs, path::Path};

fn main() {
    let folder = Path::new("../../docs/errors");
    println!("cargo:rerun-if-changed={}", folder.display());
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a folder can be read to its end").path()).collect();
    paths.sort();
    let mut source = String::from("[\n");
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let path = path.canonicalize().expect("the file was just listed");
        let code = path.file_stem().expect("it has an extension").to_string_lossy().into_owned();
        println!("cargo:rerun-if-changed={}", path.display());
        writeln!(source, "({code:?}, include_str!({:?})),", path.display().to_string()).expect("memory");
    }
    source.push(']');
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("error_pages.rs"), source).expect("OUT_DIR can be written");
}
