//! The server inside `tine dev`: where its data is, who publishes, and its end.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tine_base::{Env, SystemEnv};
use tine_client::http::HttpClient;
use tine_host::Host;
use tine_server::{Page, Server, ServerError, ServerOptions};
use tokio::runtime::Runtime;

use super::{DevArgs, project::Project};
use crate::{
    args::GlobalArgs,
    commands::serve::{reachable, resolve_listen, show_recovery},
    credentials,
    data_directory::bucket_settings,
    failure::Failure,
    settings::{Origin, Settings, create_private_directory},
};

/// Where the project's page is.
pub const PAGES_PATH: &str = "/app/";
/// How long the end may take: a developer waits for it.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Name of the data folder below the project's own.
const DATA_NAME: &str = "data";
/// The address that throwaway servers listen on.
const ANY_PORT: &str = "127.0.0.1:0";

/// A server in this process.
pub struct DevServer {
    runtime: Option<Runtime>,
    server: Option<Server>,
    settings: Settings,
    url: String,
    /// The caller's token; of a throwaway server it is told to whoever reads the output.
    token: String,
    temporary: Option<TempDir>,
    started_micros: i64,
    took: Duration,
}

impl DevServer {
    /// Starts it.
    ///
    /// # Errors
    /// Those of `tine serve`, and of a project folder that cannot be written.
    pub fn start(
        args: &DevArgs,
        global: &GlobalArgs,
        project: &Project,
        mut settings: Settings,
    ) -> Result<DevServer, Failure> {
        let started = Instant::now();
        let temporary = args.throwaway.then(|| tempfile::Builder::new().prefix("tine-dev-").tempdir()).transpose()?;
        settings.data_dir = match &temporary {
            Some(folder) => folder.path().join(DATA_NAME),
            None => data_dir(project, &settings)?,
        };
        create_private_directory(&settings.data_dir)
            .map_err(|source| Failure::File { path: settings.data_dir.clone(), source })?;
        let pages = match &project.pages {
            Some(folder) => tine_server::read_directory(folder, PAGES_PATH)
                .map_err(|source| Failure::File { path: folder.clone(), source })?,
            None => Vec::new(),
        };
        let cores = tine_base::cpu::budget().cores.get();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cores).enable_all().build()?;
        let server = start_server(&runtime, args, &settings, pages)?;
        let url = format!("http://{}", reachable(server.address()));
        let address_file = settings.address_file();
        fs::write(&address_file, format!("{url}\n"))
            .map_err(|source| Failure::File { path: address_file.clone(), source })?;
        let http = HttpClient::new(&url)?;
        let token = match (&temporary, &settings.token) {
            (Some(_), None) => http.create_identity()?.token,
            _ => credentials::token(&settings, &http, global.new_identity)?,
        };
        if temporary.is_none() {
            project.write_context(&settings.data_dir)?;
        }
        let (runtime, server) = (Some(runtime), Some(server));
        let (started_micros, took) = (SystemEnv.now_micros(), started.elapsed());
        Ok(DevServer { runtime, server, settings, url, token, temporary, started_micros, took })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.settings.data_dir
    }

    /// The publisher's token, if the server and everything on it is thrown away at the end.
    pub fn throwaway_token(&self) -> Option<&str> {
        self.temporary.as_ref().map(|_| self.token.as_str())
    }

    /// When it came up, in microseconds since the Unix epoch.
    pub fn started_micros(&self) -> i64 {
        self.started_micros
    }

    /// How long the start took.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// A client that may do everything.
    ///
    /// # Errors
    /// Never: the address is well formed.
    pub fn client(&self) -> Result<HttpClient, Failure> {
        let http = HttpClient::new(&self.url)?.with_token(self.token.as_str());
        Ok(match credentials::admin_token(&self.settings, &http) {
            Some(admin) => http.with_admin_token(admin),
            None => http,
        })
    }

    /// The databases.
    pub fn host(&self) -> &Host {
        self.running().host()
    }

    /// Serves other pages from now on.
    pub fn set_pages(&self, pages: Vec<Page>) {
        self.running().set_pages(pages);
    }

    /// Runs a task beside the server, until both end.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime().spawn(task);
    }

    /// Runs something that needs to know the runtime.
    ///
    /// # Errors
    /// Its own.
    pub fn enter<T>(&self, work: impl FnOnce() -> io::Result<T>) -> Result<T, Failure> {
        let _entered = self.runtime().enter();
        Ok(work()?)
    }

    /// Ends it in order. Temporary data goes with it.
    ///
    /// # Errors
    /// When the last commits could not be made durable.
    pub fn stop(&mut self) -> Result<(), Failure> {
        let (Some(server), Some(runtime)) = (self.server.take(), self.runtime.take()) else { return Ok(()) };
        let ended = runtime.block_on(server.shutdown(STOP_TIMEOUT));
        runtime.shutdown_timeout(STOP_TIMEOUT);
        // The next start overwrites it; a missing one only spares clients a try.
        let _ = fs::remove_file(self.settings.address_file());
        ended.map_err(|source| Failure::Serve { source })
    }

    fn running(&self) -> &Server {
        self.server.as_ref().expect("it runs until `stop`, after which nothing is asked of it")
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until `stop`, after which nothing is asked of it")
    }
}

/// A data directory that was asked for, else the project's own. What another project's context says
/// does not count, nor does the default of servers that belong to no project.
fn data_dir(project: &Project, settings: &Settings) -> Result<PathBuf, Failure> {
    match settings.data_dir_origin {
        Origin::Flag | Origin::Variable(_) | Origin::File(_) => Ok(settings.data_dir.clone()),
        _ => Ok(project.private_folder()?.join(DATA_NAME)),
    }
}

/// Starts on the address that was asked for; without one, on any port when the usual one is taken.
fn start_server(runtime: &Runtime, args: &DevArgs, settings: &Settings, pages: Vec<Page>) -> Result<Server, Failure> {
    let mut listen = settings.listen(args.listen.as_deref());
    let is_free_to_choose = listen.origin == Origin::Default;
    if args.throwaway && is_free_to_choose {
        listen.value = ANY_PORT.to_owned();
    }
    let start = |address: &str| {
        let mut options = ServerOptions::new(resolve_listen(address)?, settings.data_dir.clone());
        options.pages = pages.clone();
        options.host.images.settings = bucket_settings();
        let started = runtime.block_on(Server::start(options, Arc::new(SystemEnv), show_recovery()));
        started.map_err(|source| Failure::Serve { source })
    };
    match start(&listen.value) {
        Err(Failure::Serve { source: ServerError::Listen { source, .. } })
            if is_free_to_choose && source.kind() == io::ErrorKind::AddrInUse =>
        {
            start(ANY_PORT)
        }
        started => started,
    }
}
