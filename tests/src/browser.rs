//! Headless Chromium over the DevTools protocol.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// How long the browser may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between looks at the page.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Where Debian's package puts the browser.
pub fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("TINE_CHROMIUM").map_or_else(|| PathBuf::from("/usr/bin/chromium"), PathBuf::from);
    path.exists().then_some(path)
}

/// A browser with one page.
pub struct Browser {
    child: Child,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    next_id: u64,
    /// Errors and warnings of the page, as they came.
    pub complaints: Vec<String>,
}

impl Browser {
    /// Starts a browser with a profile of its own in `folder`.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(program: &Path, folder: &Path) -> anyhow::Result<Browser> {
        let mut child = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--disable-default-apps", "--disable-extensions"])
            .args(["--remote-debugging-port=0", "--window-size=1280,900", "about:blank"])
            .arg(format!("--user-data-dir={}", folder.join("chromium").display()))
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().expect("standard error is piped");
        let (found, endpoint) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(start) = line.find("ws://") {
                    // Only the first address is awaited; what follows is read so that the pipe never fills.
                    let _ = found.send(line[start..].trim().to_owned());
                }
            }
        });
        let endpoint = endpoint.recv_timeout(START_TIMEOUT).inspect_err(|_| drop(child.kill()))?;
        let (socket, _) = connect_async(&endpoint).await?;
        let mut browser = Browser { child, socket, session: None, next_id: 0, complaints: Vec::new() };
        let target = browser.command("Target.createTarget", json!({ "url": "about:blank" })).await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.command("Target.attachToTarget", attach).await?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.command(domain, json!({})).await?;
        }
        Ok(browser)
    }

    /// Opens an address.
    ///
    /// # Errors
    /// When the browser cannot.
    pub async fn open(&mut self, url: &str) -> anyhow::Result<()> {
        let opened = self.command("Page.navigate", json!({ "url": url })).await?;
        anyhow::ensure!(opened.get("errorText").is_none(), "{url}: {}", opened["errorText"]);
        Ok(())
    }

    /// Evaluates an expression in the page and returns its value.
    ///
    /// # Errors
    /// When it throws.
    pub async fn evaluate(&mut self, expression: &str) -> anyhow::Result<Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.command("Runtime.evaluate", parameters).await?;
        anyhow::ensure!(result.get("exceptionDetails").is_none(), "{expression}: {}", result["exceptionDetails"]);
        Ok(result["result"]["value"].clone())
    }

    /// Looks until an expression is true.
    ///
    /// # Errors
    /// When it does not become true within `patience`.
    pub async fn until(&mut self, what: &str, expression: &str, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.evaluate(expression).await? == Value::Bool(true) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        let body = self.evaluate("document.body?.innerText ?? ''").await?;
        anyhow::bail!("waited in vain for {what}\ncomplaints: {:?}\npage: {body}", self.complaints)
    }

    /// Takes a picture of the page as PNG.
    ///
    /// # Errors
    /// When the browser cannot.
    pub async fn screenshot(&mut self, path: &Path) -> anyhow::Result<()> {
        use base64::Engine;
        let picture = self.command("Page.captureScreenshot", json!({ "format": "png" })).await?;
        let data = picture["data"].as_str().unwrap_or_default();
        std::fs::write(path, base64::engine::general_purpose::STANDARD.decode(data)?)?;
        Ok(())
    }

    /// Sends any command of the protocol and returns its result.
    ///
    /// # Errors
    /// When the browser refuses it.
    pub async fn command(&mut self, method: &str, parameters: Value) -> anyhow::Result<Value> {
        self.next_id += 1;
        let id = self.next_id;
        let mut request = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(request.to_string())).await?;
        let reply = tokio::time::timeout(COMMAND_TIMEOUT, self.reply_to(id)).await;
        let reply = reply.map_err(|_| anyhow::anyhow!("{method} takes too long"))??;
        anyhow::ensure!(reply.get("error").is_none(), "{method}: {}", reply["error"]);
        Ok(reply["result"].clone())
    }

    async fn reply_to(&mut self, id: u64) -> anyhow::Result<Value> {
        loop {
            let message = self.socket.next().await.ok_or_else(|| anyhow::anyhow!("the browser is gone"))??;
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text)?;
            if message["id"] == json!(id) {
                return Ok(message);
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(parameters["exceptionDetails"].to_string());
            }
            Some("Runtime.consoleAPICalled") if parameters["type"] == "error" => {
                self.complaints.push(parameters["args"].to_string());
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.complaints.push(parameters["entry"]["text"].to_string());
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
