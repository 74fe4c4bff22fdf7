//! `tine dev`: a server in this process that publishes a project again whenever one of its files is saved.
//!
//! Everything that happens (a save, a line of the module's log, a signal, a line typed at the terminal)
//! is an [`Event`] in one channel, and one loop on the main thread takes them in order. The server runs on
//! the threads of its own runtime, so a slow terminal never holds up a request.
//!
//! Invariants:
//!
//! - A save that does not compile, or whose tables the stored rows do not fit, changes nothing: the module
//!   that ran goes on, its clients stay connected, and the reason is shown at its line.
//! - Rows are deleted only with consent: `--yes=clear`, or the word `clear` typed at the terminal.
//! - Clients stay connected over a publish unless they could not follow it; then they are disconnected
//!   without asking, since whoever changes the module changes its clients next.
//! - Nothing is published that is equal to what was published or refused last.

mod project;
mod report;
mod server;
mod watch;

use std::{
    io::{self, BufRead, IsTerminal},
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use clap::Args;
use tine_client::{
    ClientError,
    http::{CONTENT_TYPE_SOURCE, HttpClient, PublishOptions, PublishPlan, Published},
};
use tine_host::LogRecord;
use tine_module::SourceBundle;
use tokio::sync::broadcast;

pub use self::project::database_name;
use self::{
    project::Project,
    report::Reporter,
    server::{DevServer, PAGES_PATH},
    watch::Watcher,
};
use super::logging::{self, LogArgs, LogLevel};
use super::serve::{KILLED_STATUS, Signals, raise_file_limit};
use crate::{
    args::GlobalArgs,
    consent::{self, Consent},
    failure::Failure,
    output::Output,
    settings::Settings,
};

/// Events that may wait for the loop. Beyond it whoever reports waits: the watcher looks later, and the
/// log drops its oldest records and says so.
const EVENTS_MAX: usize = 1_024;
/// Log records shown of those that came before the log was followed, as from `init`.
const EARLY_RECORDS_MAX: usize = 100;
/// Code of a module that the stored rows do not fit.
const INCOMPATIBLE: &str = "TN0352";
/// Code of a module that connected clients could not follow.
const BREAKS_CLIENTS: &str = "TN0617";
/// What is typed to agree to deleting the rows.
const CLEAR_WORD: &str = "clear";

/// `tine dev`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tine dev
  tine dev ./server --static ./web
  tine dev counter.ts --throwaway
  tine dev --yes=clear     (delete the rows whenever they do not fit the new module)

Data is kept in `.tine/data` beside the project. In its folder, other verbs find the server and the
database by themselves: `tine call . add Ada`. With --json every line is {\"event\": \"listening|published|
unchanged|error|incompatible|pages|log|stopping\", ...}. Ctrl-C ends it; the data stays.")]
pub struct DevArgs {
    /// A module file, or a folder with src/index.ts or index.ts in it
    #[arg(default_value = ".", value_name = "DIR|FILE")]
    pub path: PathBuf,
    /// Name of the database [default: the folder's or file's name]
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
    /// Keep the data in a temporary folder, on any free port, and delete it at the end
    #[arg(long)]
    pub throwaway: bool,
    /// Folder of files to serve below `/app/`, read again when they change [default: `page` or `client`, if it is there]
    #[arg(long = "static", value_name = "DIR")]
    pub static_dir: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:3000, or any free port when that is taken]
    #[arg(long, value_name = "ADDR:PORT", env = "TINE_LISTEN", hide_env_values = true)]
    pub listen: Option<String>,
}

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A source file was saved, made or removed.
    SourcesChanged,
    /// A file of the page was.
    PagesChanged,
    /// The module, or a failed call, logged something.
    Logged(Arc<LogRecord>),
    /// The log was too fast to be shown; so many records are missing.
    LogOverran(u64),
    /// Somebody typed a line.
    Typed(String),
    /// Time to end.
    Stop,
}

/// Runs a project until it is told to end.
///
/// # Errors
/// A project without a module, a server that does not start, and output that nobody takes. What is wrong
/// with the module is shown instead, and waited for.
pub fn run(args: &DevArgs, global: &GlobalArgs, output: &Output) -> Result<(), Failure> {
    logging::start(&LogArgs::default(), LogLevel::Warn)?;
    raise_file_limit();
    let settings = Settings::load(global)?;
    let project = Project::find(&args.path, args.database.as_deref(), args.static_dir.as_deref())?;
    let (events, happened) = mpsc::sync_channel(EVENTS_MAX);
    let reporter = Reporter::new(output);
    let server = DevServer::start(args, global, &project, settings)?;
    listen_to_signals(&server, &events)?;
    if io::stdin().is_terminal() {
        listen_to_keyboard(events.clone())?;
    }
    let watcher = Watcher::start(&project, events.clone())?;
    let client = server.client()?;
    let may_clear = consent::covers(&global.yes, Consent::Clear);
    let mut dev = Dev { project, reporter, server, client, watcher, events, may_clear, last: None, refused: None };
    let ended = dev.reporter.listening(&dev.server, &dev.project).and_then(|()| dev.run(&happened));
    let stopped = dev.server.stop();
    ended.and(stopped)
}

/// What was published, or tried, last.
struct Attempt {
    program: Vec<u8>,
    following: bool,
}

struct Dev<'a> {
    project: Project,
    reporter: Reporter<'a>,
    server: DevServer,
    client: HttpClient,
    watcher: Watcher,
    events: mpsc::SyncSender<Event>,
    may_clear: bool,
    last: Option<Attempt>,
    /// A program that the stored rows do not fit, waiting for a decision.
    refused: Option<Vec<u8>>,
}

impl Dev<'_> {
    fn run(&mut self, happened: &mpsc::Receiver<Event>) -> Result<(), Failure> {
        self.publish_sources()?;
        // The loop holds a sender itself, so the channel cannot end before it.
        while let Ok(event) = happened.recv() {
            match event {
                Event::SourcesChanged => self.publish_sources()?,
                Event::PagesChanged => self.reload_pages()?,
                Event::Logged(record) => self.reporter.logged(&record)?,
                Event::LogOverran(count) => self.reporter.log_overran(count)?,
                Event::Typed(line) => self.typed(&line)?,
                Event::Stop => return self.reporter.stopping(),
            }
        }
        Ok(())
    }

    fn publish_sources(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        let bundle = match SourceBundle::collect(&self.project.entry) {
            Ok(bundle) => bundle,
            // What was published before is not what the files say any more: a return to it is news.
            Err(source) => {
                self.last = self.last.take().map(|last| Attempt { program: Vec::new(), ..last });
                return self.reporter.failed(&Failure::Collect { source });
            }
        };
        self.watcher.also_watch(self.project.files_of(&bundle));
        let program = bundle.encode();
        if self.last.as_ref().is_some_and(|last| last.program == program) {
            return Ok(());
        }
        self.refused = None;
        self.publish(program, bundle.files.len(), started)
    }

    fn publish(&mut self, program: Vec<u8>, files: usize, started: Instant) -> Result<(), Failure> {
        let name = self.project.database.clone();
        let published = match self.send(&program, PublishOptions::default()) {
            Err(error) if error.shown_code() == BREAKS_CLIENTS => self.send_breaking(&program, error),
            published => published,
        };
        let following = self.last.take().is_some_and(|last| last.following);
        self.last = Some(Attempt { program: program.clone(), following });
        match published {
            Ok(published) => {
                self.reporter.published(&name, published.created, files, started.elapsed())?;
                self.follow_log(published.created)
            }
            Err(error) if error.shown_code() == INCOMPATIBLE => self.decide(program, files, error),
            Err(error) => self.reporter.failed(&Failure::Client { source: error, next: None }),
        }
    }

    fn send(&self, program: &[u8], options: PublishOptions) -> Result<Published, ClientError> {
        self.client.publish(Some(&self.project.database), CONTENT_TYPE_SOURCE, program.to_vec(), options)
    }

    /// What would happen to data and clients; nothing if the server cannot tell.
    fn plan(&self, program: &[u8]) -> Option<PublishPlan> {
        self.client.pre_publish(&self.project.database, CONTENT_TYPE_SOURCE, program.to_vec(), false).ok()
    }

    /// Publishes although clients have to be disconnected, if that is all there is against it.
    fn send_breaking(&self, program: &[u8], refusal: ClientError) -> Result<Published, ClientError> {
        match self.plan(program) {
            Some(PublishPlan::Update { token, .. }) => {
                self.send(program, PublishOptions { break_clients: Some(token), ..PublishOptions::default() })
            }
            _ => Err(refusal),
        }
    }

    /// The stored rows do not fit: clears them if that was agreed to, and else asks.
    fn decide(&mut self, program: Vec<u8>, files: usize, error: ClientError) -> Result<(), Failure> {
        let plan = match self.plan(&program) {
            Some(PublishPlan::Incompatible { text, .. }) => Some(text),
            _ => None,
        };
        if self.may_clear {
            self.reporter.clearing(&error, plan.as_deref())?;
            return self.publish_cleared(program, files);
        }
        self.refused = Some(program);
        self.reporter.incompatible(&error, plan.as_deref(), io::stdin().is_terminal())
    }

    fn publish_cleared(&mut self, program: Vec<u8>, files: usize) -> Result<(), Failure> {
        let started = Instant::now();
        let published = match self.send(&program, PublishOptions { clear: true, ..PublishOptions::default() }) {
            Err(error) if error.shown_code() == BREAKS_CLIENTS => self.send_breaking(&program, error),
            published => published,
        };
        match published {
            Ok(_) => self.reporter.published(&self.project.database, true, files, started.elapsed()),
            Err(error) => self.reporter.failed(&Failure::Client { source: error, next: None }),
        }
    }

    fn typed(&mut self, line: &str) -> Result<(), Failure> {
        if line.trim() != CLEAR_WORD {
            return Ok(());
        }
        match self.refused.take() {
            Some(program) => {
                let files = SourceBundle::decode(&program).map_or(0, |bundle| bundle.files.len());
                self.publish_cleared(program, files)
            }
            None => Ok(()),
        }
    }

    fn reload_pages(&mut self) -> Result<(), Failure> {
        let Some(folder) = &self.project.pages else { return Ok(()) };
        match tine_server::read_directory(folder, PAGES_PATH) {
            Ok(pages) => {
                let count = pages.len();
                self.server.set_pages(pages);
                self.reporter.pages(count)
            }
            Err(source) => self.reporter.failed(&Failure::File { path: folder.clone(), source }),
        }
    }

    /// Shows the log of a database from its first publish on.
    fn follow_log(&mut self, is_new: bool) -> Result<(), Failure> {
        let Some(last) = &mut self.last else { return Ok(()) };
        if last.following && !is_new {
            return Ok(());
        }
        // Somebody may have deleted the database since; its next publish comes here again.
        let Ok(fork) = self.server.host().resolve(&self.project.database) else { return Ok(()) };
        last.following = true;
        let mut records = fork.log().follow();
        let early = fork.log().recent(Some(EARLY_RECORDS_MAX), None);
        let mut shown_until = self.server.started_micros();
        for record in early.iter().filter(|record| record.timestamp_micros >= self.server.started_micros()) {
            shown_until = record.timestamp_micros;
            self.reporter.logged(record)?;
        }
        let events = self.events.clone();
        self.server.spawn(async move {
            loop {
                let event = match records.recv().await {
                    Ok(record) if record.timestamp_micros <= shown_until => continue,
                    Ok(record) => Event::Logged(record),
                    Err(broadcast::error::RecvError::Lagged(count)) => Event::LogOverran(count),
                    Err(broadcast::error::RecvError::Closed) => return,
                };
                // Waiting for the terminal must not hold a thread of the server.
                let mut waiting = Some(event);
                while let Some(event) = waiting.take() {
                    match events.try_send(event) {
                        Ok(()) => {}
                        Err(mpsc::TrySendError::Full(event)) => {
                            waiting = Some(event);
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        Err(mpsc::TrySendError::Disconnected(_)) => return,
                    }
                }
            }
        });
        Ok(())
    }
}

/// The first signal ends the loop, the second the process.
fn listen_to_signals(server: &DevServer, events: &mpsc::SyncSender<Event>) -> Result<(), Failure> {
    let events = events.clone();
    let mut signals = server.enter(Signals::new)?;
    server.spawn(async move {
        signals.next().await;
        // A full channel means a loop that is busy: then a thread may wait.
        let _ = tokio::task::spawn_blocking(move || events.send(Event::Stop)).await;
        signals.next().await;
        std::process::exit(KILLED_STATUS);
    });
    Ok(())
}

fn listen_to_keyboard(events: mpsc::SyncSender<Event>) -> Result<(), Failure> {
    let listen = move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if events.send(Event::Typed(line)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("keyboard".to_owned()).spawn(listen)?;
    Ok(())
}
