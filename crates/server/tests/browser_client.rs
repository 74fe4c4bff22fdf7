//! `web/client.js` against a real server, run by Node: the script says what is checked.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::TestServer;
use tine_base::SystemEnv;
use tine_server::{Server, ServerOptions};
use tokio::sync::mpsc;

/// How long the script may take.
const WAIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_browser_client_works() {
    let has_node = Command::new("node").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_node {
        assert!(std::env::var_os("CI").is_none(), "Node is missing: it is needed for this test");
        return eprintln!("SKIPPED: Node is not installed, so the browser client was not tested");
    }
    let server = TestServer::with_people().await;
    let json = ("content-type", "application/json");
    let fork = server.http("POST", "/v1/database/people/forks", &[json, server.admin()], br#"{"name": "other"}"#).await;
    assert_eq!(fork.status, 201, "{fork:?}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web/client.test.mjs");
    let mut node = Command::new("node")
        .arg("--experimental-websocket")
        .args([script.as_os_str(), format!("http://{}", server.address).as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    let output = BufReader::new(node.stdout.take().expect("piped"));
    let mut input = node.stdin.take().expect("piped");
    let (printed, mut lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| printed.send(line)));
    let TestServer { mut server, folder, address, .. } = server;
    let run = async {
        let mut last = String::new();
        while let Some(line) = lines.recv().await {
            if line == "restart" {
                server.shutdown(Duration::from_secs(10)).await.expect("an orderly end");
                let options = ServerOptions::new(address, folder.path().to_path_buf());
                server = Server::start(options, Arc::new(SystemEnv), |_| {}).await.expect("the server starts again");
                input.write_all(b"go on\n").expect("the script listens");
            }
            last = line;
        }
        last
    };
    let ended = tokio::time::timeout(WAIT, run).await;
    if ended.is_err() {
        node.kill().expect("the script can be ended");
    }
    let status = node.wait().expect("an end");
    let last = ended.expect("the script ends in time");
    assert!(status.success() && last == "passed", "the script ended with {status} after {last:?}");
}
