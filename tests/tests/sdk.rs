//! The unmodified npm SDK in Node, against `main` and against a fork.

use std::time::Duration;

use tine_tests::{command::run_within, npm, server::TestServer, skip};

/// How long all cases may take together.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn the_npm_sdk_works_unchanged() {
    let folder = match npm::folder() {
        Ok(folder) => folder,
        Err(missing) => return skip(missing),
    };
    let server = TestServer::start();
    let owned = server.publish_probe("sdk");
    owned.client.create_fork("sdk", "exp1", false).expect("forked");
    let ran = run_within(npm::node(&folder).args(["sdk.mjs", server.url(), "sdk", "sdk@exp1"]), LIMIT);
    let passed = ran.stdout.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(ran.status == 0 && passed > 30, "{}\n{}", ran.stdout, ran.stderr);
    println!("{passed} cases of the SDK passed");
}
