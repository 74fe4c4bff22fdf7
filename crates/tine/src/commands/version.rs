//! `tine version`

use serde_json::json;

use crate::{failure::Failure, output::Output};

/// Client protocols a server of this version speaks, newest first.
const PROTOCOLS: [&str; 2] = ["v3.bsatn.spacetimedb", "v2.bsatn.spacetimedb"];

/// Prints the version.
///
/// # Errors
/// When the output cannot be written.
pub fn run(output: &Output) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let platform = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    if output.is_json() {
        return output.json(&json!({ "version": version, "platform": platform, "protocols": PROTOCOLS }));
    }
    output.line(&format!("tine {version} ({platform}), protocols {}", PROTOCOLS.join(", ")))
}
