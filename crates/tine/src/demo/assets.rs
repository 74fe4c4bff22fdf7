//! The example module and its page, built into the binary.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Name of the entry file of the module.
pub const MODULE_ENTRY: &str = "index.ts";

/// The sources of the market module by relative path.
const MODULE_FILES: [(&str, &str); 3] = [
    (MODULE_ENTRY, include_str!("../../../../examples/market/index.ts")),
    ("rules.ts", include_str!("../../../../examples/market/rules.ts")),
    ("schema.ts", include_str!("../../../../examples/market/schema.ts")),
];

/// The files of the live page.
const PAGE_FILES: [(&str, &str); 3] = [
    ("index.html", include_str!("../../../../examples/market/page/index.html")),
    ("app.js", include_str!("../../../../examples/market/page/app.js")),
    ("market.css", include_str!("../../../../examples/market/page/market.css")),
];

/// The module's sources, ready to be bundled.
pub fn module_files() -> BTreeMap<String, String> {
    MODULE_FILES.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// Writes the page into `directory/page` and returns that folder.
///
/// # Errors
/// Whatever creating the folder or writing a file says.
pub fn write_page(directory: &Path) -> io::Result<PathBuf> {
    let page = directory.join("page");
    std::fs::create_dir_all(&page)?;
    for (name, text) in PAGE_FILES {
        std::fs::write(page.join(name), text)?;
    }
    Ok(page)
}
