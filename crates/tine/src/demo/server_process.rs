//! The server under the demo: a second process of this same binary, so that it can be killed.
//!
//! Invariants:
//!
//! - The child never outlives the demo: it is killed when the handle is dropped, and the kernel
//!   kills it when the demo's main thread dies (so the handle must be made on that thread).
//! - A restart uses the same data directory and the same port, so addresses stay valid.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// How long the server may take until it accepts connections; recovery of a demo's log takes well
/// under a second.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a graceful stop may take before the process is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of the server's log shown when it fails.
const LOG_LINES_SHOWN: usize = 12;

/// A running `tine serve`.
pub struct ServerProcess {
    child: Child,
    directory: PathBuf,
    page: PathBuf,
    url: String,
    /// Time from starting the process until it accepted connections.
    pub ready_after: Duration,
}

impl ServerProcess {
    /// Starts a server on loopback and waits until it accepts connections. `port` 0 takes any.
    ///
    /// # Errors
    /// When the process cannot be started or does not become ready; the text ends with its log.
    pub fn start(directory: &Path, page: &Path, port: u16) -> anyhow::Result<ServerProcess> {
        let started = Instant::now();
        let mut child = spawn(directory, page, port)?;
        let stdout = child.stdout.take().context("the server's output is not piped")?;
        match wait_for_address(stdout) {
            Ok(url) => Ok(ServerProcess {
                child,
                directory: directory.to_owned(),
                page: page.to_owned(),
                url,
                ready_after: started.elapsed(),
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("{error}{}", log_tail(directory));
            }
        }
    }

    /// Address of the server, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process with SIGKILL, as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    /// When the process has ended by itself before.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server ended by itself ({status}){}", log_tail(&self.directory));
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts the server again on the data that [`ServerProcess::kill`] left.
    ///
    /// # Errors
    /// As [`ServerProcess::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let port = self.url.rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.with_context(|| format!("no port in {}", self.url))?;
        *self = ServerProcess::start(&self.directory, &self.page, port)?;
        Ok(())
    }

    /// Asks the server to end and waits for it.
    ///
    /// # Errors
    /// When it does not end in time or reports a failure.
    pub fn stop(mut self) -> anyhow::Result<()> {
        // SAFETY: kill(2) takes plain numbers; the child has not been waited for, so the id is its.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the server ended with {status}{}", log_tail(&self.directory)),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        bail!("the server did not stop in {} s", STOP_TIMEOUT.as_secs());
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &Path, page: &Path, port: u16) -> anyhow::Result<Child> {
    let binary = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(directory.join("data"))
        .arg("--listen")
        .arg(format!("127.0.0.1:{port}"))
        .arg("--static")
        .arg(page)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(open_log(directory)?)
        // Ctrl-C in the terminal is for the demo, which then stops the server itself.
        .process_group(0);
    // SAFETY: prctl is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    command.spawn().context("cannot start the server process")
}

/// Reads the server's output until it names its address; the rest is read and dropped, so that the
/// server never blocks on a full pipe.
fn wait_for_address(stdout: ChildStdout) -> anyhow::Result<String> {
    let (found, address) = mpsc::channel();
    std::thread::Builder::new().name("demo-server-output".into()).spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(url) = line.split_whitespace().find(|word| word.starts_with("http://")) {
                // Only the first address is awaited.
                let _ = found.send(url.trim_end_matches(['/', '.', ',']).to_owned());
            }
        }
    })?;
    address.recv_timeout(READY_TIMEOUT).map_err(|reason| match reason {
        mpsc::RecvTimeoutError::Timeout => {
            anyhow::anyhow!("the server was not ready after {} s", READY_TIMEOUT.as_secs())
        }
        mpsc::RecvTimeoutError::Disconnected => anyhow::anyhow!("the server ended before it was ready"),
    })
}

fn log_path(directory: &Path) -> PathBuf {
    directory.join("server.log")
}

fn open_log(directory: &Path) -> anyhow::Result<File> {
    let path = log_path(directory);
    let log = OpenOptions::new().create(true).append(true).open(&path);
    log.with_context(|| format!("cannot open {}", path.display()))
}

fn log_tail(directory: &Path) -> String {
    let text = std::fs::read_to_string(log_path(directory)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    if shown.is_empty() { String::new() } else { format!("; its last words:\n{}", shown.join("\n")) }
}
