//! How long a save takes to become callable under `tine dev`.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tine_client::http::HttpClient;

use crate::server::{Binary, MODULE};

/// Saves that are measured.
const SAVES: usize = 9;
/// How long the first publish, and each save, may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two tries to call the new reducer: what a result may be too large by.
const TRY_INTERVAL: Duration = Duration::from_millis(1);
/// Database of the project.
const DATABASE: &str = "bench";

/// Times from the return of the write that saves a new reducer to the first call of it that succeeds, in
/// milliseconds.
pub fn reload_ms(binary: &Binary) -> anyhow::Result<Vec<f64>> {
    let project = tempfile::Builder::new().prefix("tine-bench-dev-").tempdir_in(binary.scratch())?;
    let entry = project.path().join("index.ts");
    std::fs::write(&entry, MODULE)?;
    let dev = Dev::start(binary, project.path())?;
    let mut times = Vec::with_capacity(SAVES);
    for save in 0..SAVES {
        let reducer = format!("saved_{save}");
        let exported = format!("\nexport const {reducer} = bench.reducer(() => {{}});\n");
        std::fs::write(&entry, format!("{MODULE}{exported}"))?;
        let saved = Instant::now();
        while let Err(error) = dev.http.call(DATABASE, &reducer, &json!([])) {
            ensure!(error.status() == Some(404), "calling what was saved: {error}");
            ensure!(saved.elapsed() < PATIENCE, "a save was not published");
            std::thread::sleep(TRY_INTERVAL);
        }
        times.push(saved.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// A project that is being developed. Dropping it ends the server.
struct Dev {
    child: Child,
    http: HttpClient,
}

impl Dev {
    fn start(binary: &Binary, project: &std::path::Path) -> anyhow::Result<Dev> {
        let mut command = Command::new(binary.path());
        command.args(["dev", "--throwaway", "--json", "--database", DATABASE]).arg(project);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the server")?;
        let stdout = child.stdout.take().context("the output is not piped")?;
        let (send, events) = mpsc::channel();
        std::thread::Builder::new().name("dev-output".into()).spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Read to the end, also when nobody waits for events any more: a full pipe would hold the server up.
                let _ = send.send(serde_json::from_str::<Value>(&line).unwrap_or_default());
            }
        })?;
        let mut dev = Dev { child, http: HttpClient::new("http://127.0.0.1:9")? };
        loop {
            let event = events.recv_timeout(PATIENCE).context("the project was not published")?;
            match event["event"].as_str() {
                Some("listening") => {
                    let (url, token) = (event["url"].as_str(), event["token"].as_str());
                    let (url, token) = url.zip(token).context("no address or no token")?;
                    dev.http = HttpClient::new(url)?.with_token(token);
                }
                Some("published") => return Ok(dev),
                _ => ensure!(event["event"] != "error", "the project was refused: {event}"),
            }
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
