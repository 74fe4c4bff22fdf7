//! The unmodified npm SDK in Node, against `main` and against a fork.

use std::{path::Path, process::Command, time::Duration};

use tine_tests::{command::run_within, root, server::TestServer, skip, target};

/// How long all cases may take together.
const LIMIT: Duration = Duration::from_secs(120);

/// Where `cargo xtask test` has installed the packages of `tests/npm/package-lock.json`.
fn installed() -> Option<std::path::PathBuf> {
    let folder = target().join("npm");
    folder.join("node_modules/spacetimedb/package.json").exists().then_some(folder)
}

#[test]
fn the_npm_sdk_works_unchanged() {
    let Some(folder) = installed() else {
        return skip("the npm packages are not installed; `cargo xtask test` installs them");
    };
    if Command::new("node").arg("--version").output().is_err() {
        return skip("there is no `node`");
    }
    // Node resolves packages from where a script lies.
    for script in ["bindings.mjs", "sdk.mjs"] {
        let from = root().join("tests/npm").join(script);
        std::fs::copy(&from, folder.join(script)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
    let package = std::fs::read_to_string(folder.join("node_modules/spacetimedb/package.json")).expect("it is there");
    assert!(package.contains(r#""version": "2.10.1""#), "another version of the SDK is installed");

    let server = TestServer::start();
    let owned = server.publish_probe("sdk");
    owned.client.create_fork("sdk", "exp1", false).expect("forked");
    let ran = run_within(node(&folder).args(["sdk.mjs", server.url(), "sdk", "sdk@exp1"]), LIMIT);
    let passed = ran.stdout.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(ran.status == 0 && passed > 30, "{}\n{}", ran.stdout, ran.stderr);
    println!("{passed} cases of the SDK passed");
}

fn node(folder: &Path) -> Command {
    let mut command = Command::new("node");
    command.current_dir(folder).env_remove("NODE_OPTIONS");
    command
}
