//! The server under test: the release binary, as a child process.

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tine_client::http::{CONTENT_TYPE_JAVASCRIPT, CONTENT_TYPE_TYPESCRIPT, HttpClient, PublishOptions};

/// The module that is published.
pub const MODULE: &str = include_str!("../modules/bench.ts");
/// How long the server may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to end in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Lines of its log shown when it fails.
const LOG_LINES_SHOWN: usize = 15;

/// Where the server binary is and where its data goes.
#[derive(Clone, Debug)]
pub struct Binary {
    path: PathBuf,
    scratch: Option<PathBuf>,
}

impl Binary {
    /// The given binary, or the workspace's release binary, freshly built so that it is never stale.
    pub fn find(given: Option<PathBuf>, scratch: Option<PathBuf>) -> anyhow::Result<Binary> {
        if let Some(path) = given {
            ensure!(path.is_file(), "there is no server binary {}", path.display());
            return Ok(Binary { path, scratch });
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        eprintln!("  building the server");
        let output = Command::new(cargo)
            .args([
                "build",
                "--release",
                "--quiet",
                "-p",
                "tine",
                "--message-format",
                "json-render-diagnostics",
                "--manifest-path",
            ])
            .arg(manifest)
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo")?;
        ensure!(output.status.success(), "the server does not build");
        // Cargo names the file it built; guessing the target directory would miss its settings.
        let messages = String::from_utf8_lossy(&output.stdout);
        let mut built =
            messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter_map(|message| {
                let is_tine = message["target"]["name"] == "tine" && message["target"]["kind"][0] == "bin";
                message["executable"].as_str().filter(|_| is_tine).map(PathBuf::from)
            });
        let path = built.next_back().context("cargo did not name the server binary")?;
        Ok(Binary { path, scratch })
    }

    /// The program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Folder in which data directories are made.
    pub fn scratch(&self) -> PathBuf {
        self.scratch.clone().unwrap_or_else(std::env::temp_dir)
    }
}

/// A running server. Dropping it kills it and removes its data.
pub struct Server {
    child: Child,
    url: String,
    http: HttpClient,
    token: String,
    directory: TempDir,
}

impl Server {
    /// Starts a server on a free port with an empty data directory.
    pub fn start(binary: &Binary) -> anyhow::Result<Server> {
        Server::start_with(binary, &[])
    }

    /// The same with more options of `tine serve`; a restart goes without them.
    pub fn start_with(binary: &Binary, options: &[&OsStr]) -> anyhow::Result<Server> {
        let directory = tempfile::Builder::new().prefix("tine-bench-").tempdir_in(binary.scratch())?;
        let (child, url) = launch(binary, directory.path(), options)?;
        let http = HttpClient::new(&url)?;
        let token = http.create_identity()?.token;
        Ok(Server { child, url, http: http.with_token(token.as_str()), token, directory })
    }

    /// Ends the server in order and starts it on the same data.
    pub fn restart(&mut self, binary: &Binary) -> anyhow::Result<()> {
        self.end()?;
        self.start_again(binary)
    }

    /// Starts the server, which has ended, on the same data.
    pub fn start_again(&mut self, binary: &Binary) -> anyhow::Result<()> {
        (self.child, self.url) = launch(binary, self.directory.path(), &[])?;
        self.http = HttpClient::new(&self.url)?.with_token(self.token.as_str());
        Ok(())
    }

    /// Publishes a bundle as a new database.
    pub fn publish_bundle(&self, name: &str, bundle: &[u8]) -> anyhow::Result<()> {
        let published =
            self.http.publish(Some(name), CONTENT_TYPE_JAVASCRIPT, bundle.to_vec(), PublishOptions::default());
        published.with_context(|| format!("cannot publish `{name}`\n{}", self.log_tail()))?;
        Ok(())
    }

    /// Publishes the bench module as a new database.
    pub fn publish(&self, name: &str) -> anyhow::Result<()> {
        self.publish_with(name, MODULE, PublishOptions::default())
    }

    /// Publishes a module as a new database.
    pub fn publish_source(&self, name: &str, source: &str) -> anyhow::Result<()> {
        self.publish_with(name, source, PublishOptions::default())
    }

    /// Publishes the bench module as a new database that runs where `isolation` says.
    pub fn publish_isolated(&self, name: &str, isolation: &str) -> anyhow::Result<()> {
        let options = PublishOptions { isolation: Some(isolation.to_owned()), ..PublishOptions::default() };
        self.publish_with(name, MODULE, options)
    }

    fn publish_with(&self, name: &str, source: &str, options: PublishOptions) -> anyhow::Result<()> {
        let program = source.as_bytes().to_vec();
        let published = self.http.publish(Some(name), CONTENT_TYPE_TYPESCRIPT, program, options);
        let published = published.with_context(|| format!("cannot publish `{name}`\n{}", self.log_tail()))?;
        ensure!(published.created, "`{name}` was there already");
        Ok(())
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The owner's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The HTTP routes, as the owner.
    pub fn http(&self) -> &HttpClient {
        &self.http
    }

    /// CPU time, user and system, that the process has used so far, threads that ended included.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        cpu_time(self.child.id())
    }

    /// Resident memory of the process, in bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes * 1024)
    }

    /// Rows of the bench module's table.
    pub fn row_count(&self, database: &str) -> anyhow::Result<u64> {
        let results = self.http.sql(database, "SELECT COUNT(*) AS n FROM item")?;
        let count = results.first().and_then(|result| result.rows.first()?.first()?.as_u64());
        count.context("the count is not a number")
    }

    /// A sample of a metric without labels.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let metrics = self.http.metrics()?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.with_context(|| format!("the server has no metric `{name}`"))?.trim().parse().context("not a number")
    }

    /// Ends the server in order.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.end()
    }

    /// Ends the server in order; its data stays as long as this value.
    pub fn end(&mut self) -> anyhow::Result<()> {
        // SAFETY: kill(2) takes plain numbers; the child has not been waited for, so the id is its.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the server ended with {status}\n{}", self.log_tail()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        bail!("the server did not end in {} s\n{}", STOP_TIMEOUT.as_secs(), self.log_tail())
    }

    fn log_tail(&self) -> String {
        tail(&self.directory.path().join("server.log"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server on a free port with its data in `directory`.
fn launch(binary: &Binary, directory: &Path, options: &[&OsStr]) -> anyhow::Result<(Child, String)> {
    let log = directory.join("server.log");
    let mut command = Command::new(&binary.path);
    command
        .args(["serve", "--json", "--open-publish", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory.join("data"))
        .args(options)
        .env("TINE_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&log)?);
    // SAFETY: prctl is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let mut child = command.spawn().with_context(|| format!("cannot start {}", binary.path.display()))?;
    match address_of(&mut child) {
        Ok(url) => Ok((child, url)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{error:#}\n{}", tail(&log));
        }
    }
}

/// CPU time of a process through its CPU clock: exact to the nanosecond where `/proc/PID/stat` counts
/// ticks of 10 ms, and complete where `/proc/PID/task` forgets threads that ended.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls write only to the variables they are given, which live on this stack.
    let read = unsafe {
        libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) == 0 && libc::clock_gettime(clock, &mut time) == 0
    };
    ensure!(read, "cannot read the CPU clock of process {pid}: {}", std::io::Error::last_os_error());
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// The address in the server's first line. The rest of its output is read and dropped.
fn address_of(child: &mut Child) -> anyhow::Result<String> {
    let stdout = child.stdout.take().context("the server's output is not piped")?;
    let (found, address) = mpsc::channel();
    std::thread::Builder::new().name("server-output".into()).spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(url) = line["url"].as_str() {
                // Only the first address is awaited.
                let _ = found.send(url.to_owned());
            }
        }
    })?;
    address.recv_timeout(START_TIMEOUT).context("the server did not start to listen")
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("its log ends:\n{}", lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    #[test]
    fn the_cpu_clock_counts_work() {
        let before = super::cpu_time(std::process::id()).expect("readable");
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let used = super::cpu_time(std::process::id()).expect("readable") - before;
        assert!(used >= Duration::from_millis(5), "{used:?}");
        // Above the largest process id there can be, and small enough for the clock's encoding of it.
        assert!(super::cpu_time((1 << 28) - 1).is_err());
    }
}
