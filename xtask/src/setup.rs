//! `cargo xtask setup`: Debian packages that the tests use.

use crate::process::{self, command, exists};

/// Package and the program that shows that it is there.
const PACKAGES: [(&str, &str); 2] = [("chromium", "/usr/bin/chromium"), ("valgrind", "/usr/bin/valgrind")];

/// Installs what is missing, as root on a Debian system; elsewhere says what to install.
pub fn run() -> anyhow::Result<()> {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(_, program)| !std::path::Path::new(program).exists()).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        println!("setup: everything is there ({})", PACKAGES.map(|(name, _)| name).join(", "));
        return Ok(());
    }
    // SAFETY: geteuid(2) cannot fail and touches no memory.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !exists("apt-get") || !is_root {
        println!(
            "setup: not installed: {}. Tests that use them are skipped; as root on Debian, `cargo xtask setup` installs them.",
            missing.join(", ")
        );
        return Ok(());
    }
    process::run(&mut command("apt-get", &["update", "--quiet"]))?;
    let mut install = command("apt-get", &["install", "--yes", "--quiet", "--no-install-recommends"]);
    process::run(install.args(&missing).env("DEBIAN_FRONTEND", "noninteractive"))
}
