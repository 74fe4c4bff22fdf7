//! `tine serve`

use std::{
    fs,
    io::{self, IsTerminal as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tine_base::SystemEnv;
use tine_host::RecoveryProgress;
use tine_sandbox::{Sandbox, SandboxOptions};
use tine_server::{Server, ServerOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::logging::{self, LogLevel};
use super::systemd;
use crate::{
    args::{GlobalArgs, ServeArgs},
    data_directory::bucket_settings,
    failure::Failure,
    output::{Output, duration_text},
    settings::{Settings, create_private_directory},
};

/// How long an orderly end may take: open transactions finish, the log is synced.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long worker processes may take to be gone; they are killed, so only the kernel is waited for.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(5);
/// Recovery shows its progress this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Threads of the runtime beyond the cores. A lane whose module suddenly loops holds one until its
/// deadline; as many such lanes as threads would stall everybody, and an idle thread costs nothing.
const SPARE_WORKERS: usize = 4;
/// Where the files of `--static` are served.
const STATIC_PATH: &str = "/app/";
/// Exit status of a server that a second signal ended at once: 128 + SIGINT.
pub(super) const KILLED_STATUS: i32 = 130;

/// Runs a server until it is told to end.
///
/// # Errors
/// A wrong address, a data directory that is in use or damaged, an address that is taken.
pub fn run(args: &ServeArgs, global: &GlobalArgs, output: &Output) -> Result<(), Failure> {
    logging::start(&args.log, LogLevel::Info)?;
    let sandbox = start_sandbox();
    raise_file_limit();
    let settings = Settings::load(global)?;
    let listen = resolve_listen(&settings.listen(args.listen.as_deref()).value)?;
    create_private_directory(&settings.data_dir)
        .map_err(|source| Failure::File { path: settings.data_dir.clone(), source })?;
    let mut options = ServerOptions::new(listen, settings.data_dir.clone()).open_publish(args.open_publish);
    options.host.call_log = !args.no_call_log;
    options.trusted_issuers = args.trusted_issuers.clone();
    options.sandbox = sandbox.clone();
    options.host.sandbox = sandbox.clone();
    options.host.isolation = args.isolation;
    options.ipc = args.ipc.clone();
    options.host.http_allow = args.allow_http.clone();
    options.host.images.url = settings.images(args.images.as_deref()).map(|setting| setting.value);
    options.host.images.settings = bucket_settings();
    if let Some(folder) = &args.static_dir {
        let pages = tine_server::read_directory(folder, STATIC_PATH);
        options.pages = pages.map_err(|source| Failure::File { path: folder.clone(), source })?;
    }
    let cores = args.cores.unwrap_or(tine_base::cpu::budget().cores).get();
    options.host = options.host.with_cores(cores);
    options.host.pin_lane_threads = args.pin_cores;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(cores + SPARE_WORKERS).enable_all().build()?;
    let ended = runtime.block_on(serve(options, &settings, output));
    if let Some(sandbox) = sandbox
        && let Err(error) = sandbox.shut_down(WORKERS_TIMEOUT)
    {
        tracing::warn!(code = error.code(), "{error}");
    }
    ended
}

/// Starts what starts worker processes, before this process grows. A server without it serves everything that needs none.
fn start_sandbox() -> Option<Arc<Sandbox>> {
    match Sandbox::start(SandboxOptions::default()) {
        Ok(sandbox) => Some(Arc::new(sandbox)),
        Err(error) => {
            tracing::warn!(code = error.code(), "no worker processes: {error}");
            None
        }
    }
}

async fn serve(options: ServerOptions, settings: &Settings, output: &Output) -> Result<(), Failure> {
    // Handlers come first, so that a signal during a long recovery is not the default action, which
    // would skip the orderly release of the directory.
    let mut signals = Signals::new()?;
    let started = Instant::now();
    let starting = Server::start(options, Arc::new(SystemEnv), show_recovery());
    let server = tokio::select! {
        server = starting => server.map_err(|source| Failure::Serve { source })?,
        () = signals.next() => return Ok(()),
    };
    let url = format!("http://{}", reachable(server.address()));
    let address_file = settings.address_file();
    let written = fs::write(&address_file, format!("{url}\n"));
    written.map_err(|source| Failure::File { path: address_file.clone(), source })?;
    announce(output, &url, &settings.data_dir, started.elapsed())?;
    systemd::notify(systemd::READY);

    signals.end_or_hangup().await?;
    systemd::notify(systemd::STOPPING);
    tracing::info!("ending: finishing open transactions; a second signal ends at once");
    let ended = tokio::select! {
        ended = server.shutdown(SHUTDOWN_TIMEOUT) => ended,
        () = signals.next() => std::process::exit(KILLED_STATUS),
    };
    // The next server overwrites the file anyway; a missing one only spares the client a try.
    let _ = fs::remove_file(&address_file);
    ended.map_err(|source| Failure::Serve { source })
}

fn announce(output: &Output, url: &str, data_dir: &Path, took: Duration) -> Result<(), Failure> {
    let data_dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    if output.is_json() {
        return output.json(&json!({
            "event": "listening", "url": url, "data_dir": data_dir, "pid": std::process::id(), "took_ms": took.as_millis() as u64,
        }));
    }
    output.lines([
        format!("tine listens on {url}"),
        format!("data in {}, ready after {}", data_dir.display(), duration_text(took.as_micros() as u64)),
    ])
}

/// SIGINT and SIGTERM.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Like [`Self::next`]. SIGHUP counts too when standard error is a terminal, which is going away
    /// then; otherwise it is only noted: settings are read at the start, and there is no file to reopen.
    async fn end_or_hangup(&mut self) -> io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                () = self.next() => return Ok(()),
                _ = hangup.recv() => {}
            }
            if io::stderr().is_terminal() {
                return Ok(());
            }
            tracing::info!("SIGHUP is ignored: settings are read at the start, and the log goes to standard error");
        }
    }
}

/// Shows how far the recovery of a log is, on standard error, when it takes long enough to wonder.
pub(super) fn show_recovery() -> impl FnMut(RecoveryProgress) + Send + 'static {
    let mut shown = Instant::now();
    move |progress: RecoveryProgress| {
        if shown.elapsed() >= PROGRESS_INTERVAL {
            shown = Instant::now();
            eprintln!("{}", recovery_text(&progress));
        }
    }
}

fn recovery_text(progress: &RecoveryProgress) -> String {
    let percent = progress.bytes_done.saturating_mul(100) / progress.bytes_total.max(1);
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (done, total) = (mebibytes(progress.bytes_done), mebibytes(progress.bytes_total));
    format!("recovering: {percent}% ({done:.1} of {total:.1} MiB read)")
}

/// The address as a client on this machine reaches it: a server on all interfaces is on loopback too.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

pub(super) fn resolve_listen(text: &str) -> Result<SocketAddr, Failure> {
    let wrong = || Failure::Usage {
        message: format!("`{text}` is not an address to listen on"),
        next: Some("write it as ADDRESS:PORT, for example 127.0.0.1:3000".to_owned()),
    };
    text.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)
}

/// Every connection and log segment is an open file; the usual soft limit of 1,024 is far below what
/// the server's own bounds allow. Failing to raise it is no reason not to start.
pub(super) fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the struct they are given, which lives on this stack.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use tine_host::RecoveryProgress;

    use super::{reachable, recovery_text, resolve_listen};

    #[test]
    fn recovery_is_told_in_parts_of_the_whole() {
        let text = |bytes_done, bytes_total| recovery_text(&RecoveryProgress { bytes_done, bytes_total });
        assert_eq!(text(3 << 20, 12 << 20), "recovering: 25% (3.0 of 12.0 MiB read)");
        assert_eq!(text(0, 0), "recovering: 0% (0.0 of 0.0 MiB read)");
    }

    #[test]
    fn listen_addresses() {
        for (text, shown) in
            [("127.0.0.1:0", "127.0.0.1:0"), ("0.0.0.0:3000", "127.0.0.1:3000"), ("[::]:3000", "[::1]:3000")]
        {
            assert_eq!(reachable(resolve_listen(text).expect(text)).to_string(), shown);
        }
        for text in ["", "3000", "127.0.0.1", "127.0.0.1:99999"] {
            assert_eq!(resolve_listen(text).expect_err(text).exit() as u8, 2);
        }
    }
}
