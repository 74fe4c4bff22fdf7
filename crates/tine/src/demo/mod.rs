//! `tine demo`: the whole of Tine in twenty seconds.
//!
//! The demo starts a server process (this binary again) on loopback with a temporary data directory,
//! publishes the market module of `examples/market`, and lets simulated clients trade over real
//! WebSockets. While they do, `main` is forked three times, each fork gets other rules, and the
//! outcomes are compared. Then the server is killed with SIGKILL under full confirmed load and
//! restarted, and what every client remembers as confirmed is held against the ledger.
//!
//! Nothing here is simulated but the traders' wishes: every number is measured on the way.

mod assets;
mod check;
mod fork_maker;
mod report;
mod server_process;
mod session;
mod strategy;
mod trader;
mod venue;
mod wire;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::json;
use tine_client::http::{CONTENT_TYPE_SOURCE, HttpClient, PublishOptions};
use tine_module::SourceBundle;
use tine_types::Identity;

use self::{
    check::{Books, LedgerCheck, check_ledger},
    fork_maker::{ForkMaker, ForkTime},
    report::{Crash, Outcome, Report, Screen, table},
    server_process::ServerProcess,
    session::{Cast, Session},
    trader::{Credentials, Record, Tempo},
    venue::Pace,
    wire::Policy,
};

/// Name of the demo's database.
const DATABASE: &str = "market";
/// Calls each trader keeps in flight under load.
const DEPTH: usize = 8;
/// Traders of each fork: fewer than of `main`, all of them together are the load.
const FORK_TRADERS_SHARE: usize = 2;
/// Pause between the calls of a trader once the show is over.
const GENTLE_PAUSE: Duration = Duration::from_millis(700);
/// How long lots are open under load, and once the show is over, in milliseconds.
const FULL_OPEN_MS: (u32, u32) = (60, 240);
const GENTLE_OPEN_MS: (u32, u32) = (3_000, 10_000);
/// How long the load runs again before the server is killed.
const LOAD_BEFORE_KILL: Duration = Duration::from_millis(1_500);
/// How long, and how many, trade after the restart to see that everything works on.
const RESUME: Duration = Duration::from_secs(1);
const RESUMING_TRADERS: usize = 8;
/// Where `tine serve --static` puts the page.
const PAGE_PATH: &str = "/app/";

/// Options of `tine demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// End when the show is over, with status 0 if every check passed, instead of staying up.
    #[arg(long)]
    pub once: bool,
    /// Number of simulated clients.
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(2..=200))]
    pub agents: u16,
    /// Length of each of the two trading acts.
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Port of the server; 0 takes any free one.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
}

/// Runs the demo. With `json` progress goes to standard error and the report, as one JSON object, to
/// standard output.
///
/// # Errors
/// When something does not work, when a check fails, and when Ctrl-C ends the show too early.
pub fn run(args: DemoArgs, json: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let screen = Screen::new(json);
    let directory = tempfile::Builder::new().prefix("tine-demo-").tempdir().context("no temporary directory")?;
    let ended = runtime.block_on(async {
        let (mut stage, server) = tokio::select! {
            shown = show(&args, json, &screen, directory.path()) => shown?,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        };
        if !args.once {
            stage.stay_up(usize::from(args.agents)).await?;
        }
        server.stop()
    });
    // Traders of an interrupted show are still running; they have nothing to save.
    runtime.shutdown_timeout(Duration::from_millis(100));
    if ended.is_err() {
        let kept = directory.keep();
        screen.raw(&format!("Data and logs are kept in {}", kept.display()));
    }
    ended
}

/// The fork's name and its rules.
fn experiments() -> [(&'static str, Policy); 3] {
    let rules = |name: &str, fee, floor, step, second| Policy { name: name.to_owned(), fee, floor, step, second };
    [
        ("free-trade", rules("no fee", 0, 0, 3, false)),
        ("high-floor", rules("reserve at last price +5 %", 250, 105, 3, false)),
        ("second-price", rules("second price, fee 10 %", 1_000, 0, 3, true)),
    ]
}

/// The show itself. What it leaves standing is returned.
async fn show<'a>(
    args: &DemoArgs,
    json: bool,
    screen: &'a Screen,
    directory: &Path,
) -> anyhow::Result<(Stage<'a>, ServerProcess)> {
    screen.act("Starting a server and publishing a TypeScript module");
    let page = assets::write_page(directory)?;
    let mut server = ServerProcess::start(directory, &page, args.port)?;
    let url = server.url().to_owned();
    screen.say(&format!(
        "server process {} is ready at {url} after {} ms",
        server.pid(),
        server.ready_after.as_millis()
    ));
    let (owner, owner_token) = publish(screen, &url, directory)?;
    let cast = Cast::new(hire(&url, args.agents)?);
    let mut stage = Stage { owner, owner_token, url: url.clone(), cast, screen };
    screen.say(&format!("live page: {url}{PAGE_PATH}"));

    screen.act(&format!("{} agents trade on main, every reply confirmed on disk", args.agents));
    let full = Tempo { depth: DEPTH, pause: Duration::ZERO, open_ms: FULL_OPEN_MS };
    let agents = usize::from(args.agents);
    let act = Duration::from_secs(args.seconds);
    let mut sessions = vec![stage.cast.open(&url, DATABASE, agents, full)];
    stage.watch(&mut sessions, act).await?;

    screen.act("Forking main three times while it trades, other rules on each fork");
    let fork_times = stage.fork_all()?;
    for (name, _) in experiments() {
        let fork = format!("{DATABASE}@{name}");
        sessions.push(stage.cast.open(&url, &fork, agents.div_ceil(FORK_TRADERS_SHARE), full));
    }
    let outcomes = stage.compare(&mut sessions, &fork_times, act).await?;
    screen.raw("");
    screen.raw(&table(&outcomes, screen));

    let crash = stage.crash(&mut server, sessions).await?;
    let report = Report { outcomes, crash };
    if json {
        println!("{}", report.json());
    }
    anyhow::ensure!(report.passed(), "a check failed");
    screen.act("Every check passed.");
    Ok((stage, server))
}

/// Publishes the market as a new owner: returns a client that acts as the owner, and its token.
fn publish(screen: &Screen, url: &str, directory: &Path) -> anyhow::Result<(HttpClient, String)> {
    let admin_token = std::fs::read_to_string(directory.join("data/keys/admin-token")).context("the admin token")?;
    let anonymous = HttpClient::new(url)?;
    let owner = anonymous.create_identity()?;
    let client = anonymous.with_token(&owner.token).with_admin_token(admin_token.trim());
    let bundle = SourceBundle { entry: assets::MODULE_ENTRY.to_owned(), files: assets::module_files() };
    let started = Instant::now();
    client.publish(Some(DATABASE), CONTENT_TYPE_SOURCE, bundle.encode(), PublishOptions::default())?;
    screen.say(&format!("published `{DATABASE}` from source in {} ms", started.elapsed().as_millis()));
    Ok((client, owner.token))
}

/// Makes an identity for every agent.
fn hire(url: &str, agents: u16) -> anyhow::Result<Vec<Credentials>> {
    const NAMES: [&str; 12] = ["Ada", "Bo", "Cleo", "Dag", "Edda", "Finn", "Gul", "Hana", "Ivo", "Juno", "Kaz", "Lena"];
    let client = HttpClient::new(url)?;
    let hire = |number: usize| {
        let made = client.create_identity()?;
        let name = match number / NAMES.len() {
            0 => NAMES[number].to_owned(),
            round => format!("{} {}", NAMES[number % NAMES.len()], round + 1),
        };
        Ok(Credentials { identity: Identity::from_hex(&made.identity)?, token: made.token, name })
    };
    (0..usize::from(agents)).map(hire).collect()
}

/// What every act needs.
struct Stage<'a> {
    owner: HttpClient,
    owner_token: String,
    url: String,
    cast: Cast,
    screen: &'a Screen,
}

impl Stage<'_> {
    async fn books(&self, database: &str) -> anyhow::Result<Books> {
        Books::read(&self.url, database, &self.owner_token).await
    }

    /// Lets the sessions trade, with a line of progress every second.
    async fn watch(&self, sessions: &mut [Session], duration: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            let paces: Vec<Pace> = sessions.iter().map(|session| Pace::start(&session.venue.tally)).collect();
            let rest = end.saturating_duration_since(Instant::now());
            tokio::time::sleep(rest.min(Duration::from_secs(1))).await;
            let mut line = Vec::with_capacity(sessions.len());
            for (session, pace) in sessions.iter_mut().zip(paces) {
                session.check().await?;
                let fork = session.venue.database.strip_prefix("market@").unwrap_or("main");
                let open = session.venue.floor.read().expect("no writer panics").auctions.len();
                line.push(format!("{fork} {:.0} calls/s, {open} lots", pace.calls_per_second(&session.venue.tally)));
            }
            self.screen.say(&line.join(" · "));
        }
        Ok(())
    }

    /// Makes the three forks and gives each its rules.
    fn fork_all(&self) -> anyhow::Result<Vec<ForkTime>> {
        let maker = ForkMaker::new(&self.url, &self.owner_token);
        let mut times = Vec::new();
        for (name, policy) in experiments() {
            let time = maker.make(name)?;
            let rules = json!({
                "name": policy.name, "fee": policy.fee, "floor": policy.floor,
                "step": policy.step, "second": policy.second,
            });
            let database = format!("{DATABASE}@{name}");
            let write = Instant::now();
            self.owner.call(&database, "adopt", &rules)?;
            self.screen.say(&format!(
                "{database} made in {}, {:.2} ms with the HTTP round trip; its first write took {:.2} ms",
                time.server_text(),
                time.round_trip.as_secs_f64() * 1e3,
                write.elapsed().as_secs_f64() * 1e3,
            ));
            times.push(time);
        }
        Ok(times)
    }

    /// Lets all forks trade side by side and reads their books before and after.
    async fn compare(
        &self,
        sessions: &mut [Session],
        fork_times: &[ForkTime],
        duration: Duration,
    ) -> anyhow::Result<Vec<Outcome>> {
        let mut before = Vec::new();
        for session in &*sessions {
            session.venue.tally.take_latencies_us();
            before.push((self.books(&session.venue.database).await?, Pace::start(&session.venue.tally)));
        }
        self.watch(sessions, duration).await?;
        let mut outcomes = Vec::new();
        let times = std::iter::once(None).chain(fork_times.iter().map(|time| Some(*time)));
        for ((session, (before, pace)), fork_time) in sessions.iter().zip(before).zip(times) {
            let venue = &session.venue;
            let calls_per_second = pace.calls_per_second(&venue.tally);
            let after = self.books(&venue.database).await?;
            let rules = venue.floor.read().expect("no writer panics").policy.as_ref().map(|policy| policy.name.clone());
            outcomes.push(Outcome {
                fork: venue.database.strip_prefix("market@").unwrap_or("main").to_owned(),
                rules: rules.unwrap_or_default(),
                fork_time,
                before,
                after,
                calls_per_second,
                latency_us: venue.tally.take_latencies_us(),
            });
        }
        Ok(outcomes)
    }

    /// Kills the server under load, restarts it and compares.
    async fn crash(&mut self, server: &mut ServerProcess, mut sessions: Vec<Session>) -> anyhow::Result<Crash> {
        self.screen.act("kill -9 of the server under confirmed load");
        let paces: Vec<Pace> = sessions.iter().map(|session| Pace::start(&session.venue.tally)).collect();
        self.watch(&mut sessions, LOAD_BEFORE_KILL).await?;
        let rates = sessions.iter().zip(&paces).map(|(session, pace)| pace.calls_per_second(&session.venue.tally));
        let calls_per_second = rates.sum();
        let pid = server.pid();
        server.kill()?;
        let databases: Vec<String> = sessions.iter().map(|session| session.venue.database.clone()).collect();
        let mut records = Vec::new();
        for session in sessions {
            records.push(session.close().await?);
        }
        let unanswered: usize = records.iter().flatten().map(|(_, record)| record.unanswered).sum();
        self.screen.say(&format!("process {pid} is gone; {unanswered} calls were on the way"));
        server.restart()?;
        self.screen.say(&format!("process {} is ready after {} ms", server.pid(), server.ready_after.as_millis()));

        let mut ledger = LedgerCheck::default();
        let mut balanced = true;
        for (at, (database, own)) in databases.iter().zip(&records).enumerate() {
            let inherited: &[(Identity, Record)] = if at == 0 { &[] } else { &records[0] };
            let check = check_ledger(&self.url, database, &self.owner_token, own, inherited).await?;
            let books = self.books(database).await?.balanced();
            self.screen.say(&format!(
                "{} {database}: {} confirmed calls, {} missing, {} invented; {} more had committed; books {}",
                self.screen.mark(check.holds() && books),
                check.confirmed,
                check.missing,
                check.foreign,
                check.unacknowledged,
                if books { "balance" } else { "do NOT balance" },
            ));
            ledger = ledger.and(check);
            balanced &= books;
        }
        let resumed = self.resume().await?;
        Ok(Crash { calls_per_second, ready_after: server.ready_after, ledger, balanced, resumed })
    }

    /// Trades on `main` again: schedules must strike the hammer as before.
    async fn resume(&mut self) -> anyhow::Result<bool> {
        let before = self.books(DATABASE).await?.sales();
        let full = Tempo { depth: DEPTH, pause: Duration::ZERO, open_ms: FULL_OPEN_MS };
        let url = self.url.clone();
        let mut sessions = [self.cast.open(&url, DATABASE, RESUMING_TRADERS, full)];
        self.watch(&mut sessions, RESUME).await?;
        for session in sessions {
            session.close().await?;
        }
        let sales = self.books(DATABASE).await?.sales() - before;
        self.screen.say(&format!("{} trading goes on: {sales} sales since the restart", self.screen.mark(sales > 0)));
        Ok(sales > 0)
    }

    /// Keeps the market lively, gently, until Ctrl-C.
    async fn stay_up(&mut self, agents: usize) -> anyhow::Result<()> {
        let gentle = Tempo { depth: 1, pause: GENTLE_PAUSE, open_ms: GENTLE_OPEN_MS };
        let forks = experiments().map(|(name, _)| format!("{DATABASE}@{name}"));
        let databases = std::iter::once(DATABASE.to_owned()).chain(forks);
        let url = self.url.clone();
        let mut sessions: Vec<Session> =
            databases.map(|database| self.cast.open(&url, &database, agents, gentle)).collect();
        self.screen.act(&format!("The market stays open: {url}{PAGE_PATH}"));
        self.screen.raw("         Ctrl-C ends it.");
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => break,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            for session in &mut sessions {
                session.check().await?;
            }
        }
        for session in sessions {
            session.close().await?;
        }
        Ok(())
    }
}
