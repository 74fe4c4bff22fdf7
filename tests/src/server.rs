//! A server process under test.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    time::{Duration, Instant},
};

use tine_client::http::{CONTENT_TYPE_SOURCE, HttpClient, PublishOptions, Published};
use tine_module::SourceBundle;

use crate::{binary, keep::TestDirectory, root};

/// How long a server may take until it accepts connections.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a graceful stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A server process with a data directory of its own.
#[derive(Debug)]
pub struct TestServer {
    child: Child,
    url: String,
    directory: TestDirectory,
    options: Vec<String>,
    environment: Vec<(String, String)>,
}

/// How a server process ended that did not come up.
#[derive(Debug)]
pub struct Failure {
    /// Exit status; none when it was killed because it neither came up nor ended.
    pub status: Option<ExitStatus>,
    /// What it wrote to standard error.
    pub log: String,
}

impl TestServer {
    /// Starts a server on an empty data directory.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start() -> TestServer {
        TestServer::start_with(&[])
    }

    /// The same with more options of `tine serve`.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start_with(options: &[&str]) -> TestServer {
        TestServer::start_in(options, Vec::new())
    }

    /// The same with more variables in its environment.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start_in(options: &[&str], environment: Vec<(String, String)>) -> TestServer {
        let directory = TestDirectory::new("server");
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let (data, log) = (data_of(directory.path()), log_of(directory.path()));
        match launch(&data, &log, "127.0.0.1:0", &options, &environment) {
            Ok((child, url)) => TestServer { child, url, directory, options, environment },
            Err(failure) => panic!("the server did not come up: {:?}\n{}", failure.status, failure.log),
        }
    }

    /// One server for all tests of a test binary that neither kill it nor count what is on it. It is on
    /// a thread of its own, because the kernel ends it with the thread that started it.
    pub fn shared() -> &'static TestServer {
        static SHARED: OnceLock<TestServer> = OnceLock::new();
        SHARED.get_or_init(|| {
            let (ready, server) = mpsc::channel();
            let starter = move || {
                let server = std::panic::catch_unwind(TestServer::start);
                if ready.send(server).is_ok() {
                    loop {
                        std::thread::park();
                    }
                }
            };
            std::thread::Builder::new().name("shared-server".into()).spawn(starter).expect("a thread can be started");
            server.recv().expect("the starting thread answers").expect("the shared server starts")
        })
    }

    /// Address, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap_or(&self.url)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        data_of(self.directory.path())
    }

    /// The test's own folder, which also holds the server's log.
    pub fn folder(&self) -> &Path {
        self.directory.path()
    }

    /// What the server wrote to standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_of(self.directory.path())).unwrap_or_default()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory of the process, in bytes.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.child.id());
        let text = std::fs::read_to_string(path).expect("the server is running");
        let pages: u64 = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("statm has pages");
        pages * 4096
    }

    /// The local admin token.
    ///
    /// # Panics
    /// When there is none.
    pub fn admin_token(&self) -> String {
        let path = self.data().join("keys/admin-token");
        let token = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        token.trim().to_owned()
    }

    /// A client without any token.
    ///
    /// # Panics
    /// Never: the address is well formed.
    pub fn anonymous(&self) -> HttpClient {
        HttpClient::new(&self.url).expect("the server's address is well formed")
    }

    /// A client with a new identity, and that identity's token.
    ///
    /// # Panics
    /// When the server does not make one.
    pub fn newcomer(&self) -> (HttpClient, String) {
        let made = self.anonymous().create_identity().expect("the server makes identities");
        (self.anonymous().with_token(&made.token), made.token)
    }

    /// Publishes the probe module as a new database with a new owner.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn publish_probe(&self, name: &str) -> Owned {
        self.publish(name, &module("tests/modules/probe.ts"))
    }

    /// Publishes a module as a new database with a new owner.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn publish(&self, name: &str, bundle: &SourceBundle) -> Owned {
        let (client, token) = self.newcomer();
        let client = client.with_admin_token(self.admin_token());
        let published = client.publish(Some(name), CONTENT_TYPE_SOURCE, bundle.encode(), PublishOptions::default());
        let published = published.unwrap_or_else(|error| panic!("publishing {name}: {error}"));
        // The owner must not lean on the admin token.
        let client = self.anonymous().with_token(&token);
        Owned { client, token, name: name.to_owned(), published }
    }

    /// Ends the process with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// When it had ended by itself.
    #[track_caller]
    pub fn kill(&mut self) {
        let ended = self.child.try_wait().expect("the child can be asked");
        assert!(ended.is_none(), "the server ended by itself: {ended:?}\n{}", self.log());
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child can be awaited");
    }

    /// Changes the options that the next start has.
    pub fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
    }

    /// Starts the server again on the same data, on a new port.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn restart(&mut self) {
        if let Err(failure) = self.try_restart() {
            panic!("the server did not come up again: {:?}\n{}", failure.status, failure.log);
        }
    }

    /// Like [`TestServer::restart`], for a server that may refuse.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn try_restart(&mut self) -> Result<(), Failure> {
        let folder = self.directory.path();
        let (data, log) = (data_of(folder), log_of(folder));
        let (child, url) = launch(&data, &log, "127.0.0.1:0", &self.options, &self.environment)?;
        self.child = child;
        self.url = url;
        Ok(())
    }

    /// Ends the server in order.
    ///
    /// # Panics
    /// When it does not end in time with status 0.
    #[track_caller]
    pub fn stop(&mut self) {
        // SAFETY: kill(2) takes plain numbers; the child has not been awaited, so the id is its.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                assert!(status.success(), "the server ended with {status}\n{}", self.log());
                return;
            }
            assert!(Instant::now() < deadline, "the server does not stop\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A database and its owner.
#[derive(Debug)]
pub struct Owned {
    /// Acts as the owner.
    pub client: HttpClient,
    /// The owner's token.
    pub token: String,
    /// The database's name.
    pub name: String,
    /// What publishing said.
    pub published: Published,
}

/// Reads a module of the repository: its entry file by path from the root, with everything it imports.
///
/// # Panics
/// When it cannot be read.
pub fn module(path: &str) -> SourceBundle {
    let entry = root().join(path);
    SourceBundle::collect(&entry).unwrap_or_else(|error| panic!("{}: {error}", entry.display()))
}

/// A module of one file.
pub fn single_file(source: &str) -> SourceBundle {
    let files = BTreeMap::from([("index.ts".to_owned(), source.to_owned())]);
    SourceBundle { entry: "index.ts".to_owned(), files }
}

/// Starts `tine serve` and waits for its address.
///
/// # Errors
/// When it ends before, or is not ready in time.
pub fn launch(
    data: &Path,
    log: &Path,
    listen: &str,
    options: &[String],
    environment: &[(String, String)],
) -> Result<(Child, String), Failure> {
    let log_file = open_log(log);
    let begin = log_file.metadata().map_or(0, |facts| facts.len());
    let mut command = Command::new(binary());
    command.arg("serve").arg("--data-dir").arg(data).args(options);
    if !options.iter().any(|option| option == "--listen") {
        command.args(["--listen", listen]);
    }
    // The same tests hold wherever modules run.
    if let Ok(mode) = std::env::var("TINE_TEST_ISOLATION") {
        command.args(["--isolation", &mode]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
    clean_environment(&mut command, log.parent().unwrap_or(data));
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    // SAFETY: prctl is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", binary().display()));
    let stdout = child.stdout.take().expect("standard output is piped");
    match read_address(stdout) {
        Some(url) => Ok((child, url)),
        None => {
            let status = wait_shortly(&mut child);
            let text = std::fs::read(log).unwrap_or_default();
            let from = usize::try_from(begin).unwrap_or(0).min(text.len());
            Err(Failure { status, log: String::from_utf8_lossy(&text[from..]).into_owned() })
        }
    }
}

/// Keeps the settings of whoever runs the tests out of them.
pub fn clean_environment(command: &mut Command, home: &Path) {
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("TINE_") || name_text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command.env("HOME", home).env("XDG_CONFIG_HOME", home.join("config")).env("XDG_DATA_HOME", home.join("share"));
    command.env("TINE_CREDENTIALS", home.join("credentials.json"));
}

/// Waits for the line that names the address; later output is read and dropped, so that the server
/// never blocks on a full pipe.
fn read_address(stdout: ChildStdout) -> Option<String> {
    let (found, address) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(start) = line.find("http://") {
                let url = line[start..].split(|c: char| c.is_whitespace() || c == '"').next().unwrap_or_default();
                // Only the first address is awaited.
                let _ = found.send(url.trim_end_matches(['/', '.', ',']).to_owned());
            }
        }
    });
    address.recv_timeout(READY_TIMEOUT).ok()
}

fn wait_shortly(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

fn open_log(path: &Path) -> File {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn data_of(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("server.log")
}
