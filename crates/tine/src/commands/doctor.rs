//! `tine doctor`: looks for what is wrong with an installation and its data, and changes nothing.

use std::{
    ffi::CString,
    fs, io,
    net::TcpListener,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
    time::{Duration, SystemTime},
};

use clap::Args;
use serde_json::json;
use tine_base::{Env, OpenMode, SystemEnv};
use tine_client::http::HttpClient;

use crate::{
    args::GlobalArgs,
    data_directory::{
        CONTROL_FOLDER, KEYS_FOLDER, LOCK_FILE, LogFacts, VERSION_FILE, check_version, entries, name_of, read_control,
        read_log,
    },
    failure::Failure,
    output::Output,
    settings::Settings,
    terminal::{Palette, Style},
};

/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Below this many open files the server's own bound on connections cannot be reached.
const OPEN_FILES_MIN: u64 = 4_096;
/// Below this much free space a warning is due: a log segment has up to 64 MiB, and its successor is
/// prepared ahead.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// Below this much the next segment may not fit.
const FREE_BYTES_LEAST: u64 = 128 << 20;

/// `tine doctor`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine doctor
  tine doctor --data-dir ./data --json

Status 1 tells that a check failed. Logs are read to their end, also while a server writes them; nothing
is changed.")]
pub struct DoctorArgs {
    /// Do not read the logs, which takes as long as reading all their bytes
    #[arg(long)]
    pub skip_logs: bool,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Warn,
    Fail,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Fine => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug)]
struct Check {
    what: String,
    verdict: Verdict,
    /// What was found and, unless it is fine, what to do.
    found: String,
}

impl Check {
    fn new(what: impl Into<String>, verdict: Verdict, found: impl Into<String>) -> Check {
        Check { what: what.into(), verdict, found: found.into() }
    }
}

/// Runs all checks and prints them.
///
/// # Errors
/// [`Failure::Unhealthy`] when one failed, and settings that cannot be read.
pub fn run(args: &DoctorArgs, global: &GlobalArgs, output: &Output) -> Result<(), Failure> {
    let settings = Settings::load(global)?;
    let directory = settings.data_dir.clone();
    let mut checks = vec![program(), open_files(), processors()];
    let server = server(&settings);
    let runs = server.verdict == Verdict::Fine;
    checks.push(server);
    if !runs {
        checks.push(port(&settings));
    }
    checks.push(credentials(&settings));
    checks.push(data_directory(&directory));
    if directory.join(VERSION_FILE).exists() {
        checks.push(free_space(&directory));
        checks.push(ownership(&directory));
        checks.push(keys(&directory));
        checks.push(lock(&directory, runs && settings.local_server().is_some()));
        if !args.skip_logs {
            checks.extend(logs(&directory));
        }
    }
    print(&checks, output)?;
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    if failed > 0 { Err(Failure::Unhealthy { failed, checks: checks.len() }) } else { Ok(()) }
}

fn print(checks: &[Check], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        let check =
            |check: &Check| json!({ "check": check.what, "status": check.verdict.name(), "found": check.found });
        return output.json_list("checks", checks.iter().map(check).collect());
    }
    let palette = Palette::of(&io::stdout());
    let width = checks.iter().map(|check| check.what.chars().count()).max().unwrap_or(0);
    output.lines(checks.iter().map(|check| {
        let style = match check.verdict {
            Verdict::Fine => Style::Green,
            Verdict::Warn => Style::Yellow,
            Verdict::Fail => Style::Red,
        };
        format!(
            "{}  {:<width$}  {}",
            palette.paint(style, &format!("{:<4}", check.verdict.name())),
            check.what,
            check.found
        )
    }))
}

fn program() -> Check {
    let platform = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let found = format!("tine {} ({platform})", env!("CARGO_PKG_VERSION"));
    Check::new(
        "program",
        if cfg!(debug_assertions) { Verdict::Warn } else { Verdict::Fine },
        match cfg!(debug_assertions) {
            true => format!("{found}, a debug build: many times slower than a release build"),
            false => found,
        },
    )
}

fn open_files() -> Check {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call only writes the struct it is given, which lives on this stack.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
    match limit.rlim_max {
        _ if !read => Check::new("open files", Verdict::Warn, "the limit cannot be read"),
        most if most < OPEN_FILES_MIN => Check::new(
            "open files",
            Verdict::Warn,
            format!("at most {most}, so at most about as many connections; raise the hard limit (`ulimit -Hn`)"),
        ),
        most => Check::new("open files", Verdict::Fine, format!("at most {most}")),
    }
}

fn processors() -> Check {
    let budget = tine_base::cpu::budget();
    Check::new("processors", Verdict::Fine, format!("{} to use", budget.cores))
}

fn server(settings: &Settings) -> Check {
    let server = settings.server();
    let what = format!("server {}", server.value);
    let ready = HttpClient::new(&server.value)
        .map(|http| http.with_request_timeout(ANSWER_TIMEOUT))
        .and_then(|http| http.ready());
    match ready {
        Ok(()) => Check::new(what, Verdict::Fine, format!("ready (address from {})", server.origin)),
        Err(tine_client::ClientError::Connect { .. }) => Check::new(
            what,
            Verdict::Warn,
            format!("nothing answers (address from {}); `tine serve` starts one", server.origin),
        ),
        Err(error) => {
            Check::new(what, Verdict::Fail, format!("[{}] {error}; see the server's log", error.shown_code()))
        }
    }
}

fn port(settings: &Settings) -> Check {
    let variable = std::env::var("TINE_LISTEN").ok();
    let listen = settings.listen(variable.as_deref());
    let what = format!("address {}", listen.value);
    match TcpListener::bind(&listen.value) {
        Ok(_) => Check::new(what, Verdict::Fine, "free to listen on"),
        Err(error) => Check::new(what, Verdict::Fail, format!("{error}; choose another with --listen")),
    }
}

fn credentials(settings: &Settings) -> Check {
    let path = &settings.credentials.value;
    let what = "saved identities";
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::new(what, Verdict::Fine, "none yet"),
        Err(error) => Check::new(what, Verdict::Fail, format!("{}: {error}", path.display())),
        Ok(facts) if facts.permissions().mode() & 0o077 != 0 => {
            Check::new(what, Verdict::Fail, format!("others can read {0}; `chmod 600 {0}`", path.display()))
        }
        Ok(_) => Check::new(what, Verdict::Fine, path.display().to_string()),
    }
}

fn data_directory(directory: &Path) -> Check {
    let what = "data directory";
    match check_version(directory) {
        Ok(()) => Check::new(what, Verdict::Fine, directory.display().to_string()),
        Err(Failure::NotFound { .. })
            if !directory.exists() || entries(directory).is_ok_and(|found| found.is_empty()) =>
        {
            Check::new(
                what,
                Verdict::Warn,
                format!("{} is not there yet; the first start makes it", directory.display()),
            )
        }
        Err(failure) => Check::new(what, Verdict::Fail, failure.to_string()),
    }
}

fn free_space(directory: &Path) -> Check {
    let what = "free space";
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else {
        return Check::new(what, Verdict::Warn, "the path has a zero byte in it");
    };
    // SAFETY: an all-zero statvfs is a valid value of plain numbers; the call writes it and reads the path,
    // which ends in a zero byte and lives until after the call.
    let (facts, result) = unsafe {
        let mut facts: libc::statvfs = std::mem::zeroed();
        let result = libc::statvfs(path.as_ptr(), &mut facts);
        (facts, result)
    };
    if result != 0 {
        return Check::new(what, Verdict::Warn, format!("cannot be told: {}", io::Error::last_os_error()));
    }
    #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between platforms")]
    let free = facts.f_bavail as u64 * facts.f_frsize as u64;
    let text = format!("{:.1} GiB", free as f64 / f64::from(1 << 30));
    match free {
        0..FREE_BYTES_LEAST => {
            Check::new(what, Verdict::Fail, format!("{text}: the next log segment may not fit; make room"))
        }
        FREE_BYTES_LEAST..FREE_BYTES_MIN => Check::new(what, Verdict::Warn, format!("{text}; make room soon")),
        _ => Check::new(what, Verdict::Fine, text),
    }
}

/// Files that another user made cannot be written by the one who starts the server.
fn ownership(directory: &Path) -> Check {
    let what = "permissions";
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        let is_folder = path.is_dir();
        let Ok(text) = CString::new(path.as_os_str().as_bytes()) else { continue };
        let wanted = libc::R_OK | libc::W_OK | if is_folder { libc::X_OK } else { 0 };
        // SAFETY: the path ends in a zero byte and lives until after the call, which only reads it.
        if unsafe { libc::access(text.as_ptr(), wanted) } != 0 {
            let found =
                format!("you may not read and write {}; give it to the user who runs the server", path.display());
            return Check::new(what, Verdict::Fail, found);
        }
        if is_folder {
            waiting.extend(entries(&path).unwrap_or_default());
        }
    }
    Check::new(what, Verdict::Fine, "every file can be read and written")
}

fn keys(directory: &Path) -> Check {
    let open: Vec<String> = ["id_ecdsa", "admin-token"]
        .into_iter()
        .map(|name| directory.join(KEYS_FOLDER).join(name))
        .filter(|path| fs::metadata(path).is_ok_and(|facts| facts.permissions().mode() & 0o077 != 0))
        .map(|path| path.display().to_string())
        .collect();
    if open.is_empty() {
        return Check::new("keys", Verdict::Fine, "for their owner only");
    }
    Check::new("keys", Verdict::Fail, format!("others can read {0}; `chmod 600 {0}`", open.join(" ")))
}

/// Whether the lock and the server agree. The lock is tried only when no server answers, and given back
/// at once.
fn lock(directory: &Path, runs: bool) -> Check {
    let what = "lock";
    if runs {
        return Check::new(what, Verdict::Fine, "held by the server that runs");
    }
    let path = directory.join(LOCK_FILE);
    let tried = SystemEnv.open(&path, OpenMode::Read).and_then(|file| file.try_lock_exclusive());
    match tried {
        Ok(true) => Check::new(what, Verdict::Fine, "free: no server uses the directory"),
        Ok(false) => Check::new(what, Verdict::Warn, "held by a server that does not answer at the address above"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::new(what, Verdict::Fine, "not there: never used")
        }
        Err(error) => Check::new(what, Verdict::Fail, format!("{}: {error}", path.display())),
    }
}

/// Reads the control store and every database to the end.
fn logs(directory: &Path) -> Vec<Check> {
    let (control, databases) = match read_control(directory) {
        Ok(read) => read,
        Err(failure) => return vec![damaged(CONTROL_FOLDER.to_owned(), &failure)],
    };
    let mut checks = vec![log(CONTROL_FOLDER.to_owned(), &control)];
    for database in &databases {
        let what = format!("database {}", name_of(database));
        checks.push(match read_log(&directory.join(&database.folder), |_| {}) {
            Ok(facts) => log(what, &facts),
            Err(failure) => damaged(what, &failure),
        });
    }
    checks
}

fn damaged(what: String, failure: &Failure) -> Check {
    Check::new(what, Verdict::Fail, format!("[{}] {failure}; `tine explain {0}`", failure.code()))
}

fn log(what: String, facts: &LogFacts) -> Check {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as i64;
    let size = format!("{} records, {:.1} MiB", facts.records, facts.bytes() as f64 / f64::from(1 << 20));
    match facts.last_commit_micros {
        Some(last) if last > now => {
            let ahead = Duration::from_micros(last.abs_diff(now));
            let found =
                format!("{size}; its newest commit is {} s ahead of this clock: set the clock", ahead.as_secs());
            Check::new(what, Verdict::Warn, found)
        }
        _ => Check::new(what, Verdict::Fine, format!("intact: {size}")),
    }
}
