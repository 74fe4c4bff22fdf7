//! Suite `subscriptions`: how changes reach those who watch.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use tine_client::protocol::{ServerMessage, TableUpdateRows};
use tokio::{sync::Notify, task::LocalSet, time::timeout};

use crate::{
    Plan,
    load::{Caller, Work, connect},
    peers,
    report::{Case, Reporter, Target, median},
    server::Server,
};

const SUITE: &str = "subscriptions";
/// The one query that everybody has.
const QUERY: &str = "SELECT * FROM item";
/// Subscribers of the fan-out case.
const SUBSCRIBERS: usize = 1_000;
/// Commits per round of the fan-out case; the first ones are not counted.
const COMMITS: usize = 12;
const COMMITS_UNCOUNTED: usize = 4;
/// Listeners of the other case.
const LISTENERS: usize = 8;
/// Calls before that case counts, and the share of the round's calls that listeners may lag behind.
const WARM_UP: Duration = Duration::from_millis(300);
/// No update may take this long.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(20);

/// Rows that have arrived, and a bell for whoever waits for them.
#[derive(Default)]
struct Arrivals {
    rows: Cell<usize>,
    awaited: Cell<usize>,
    reached: Notify,
    failed: Cell<Option<String>>,
}

impl Arrivals {
    fn add(&self, rows: usize) {
        self.rows.set(self.rows.get() + rows);
        if self.rows.get() >= self.awaited.get() {
            self.reached.notify_one();
        }
    }

    fn fail(&self, reason: String) {
        self.failed.set(Some(reason));
        self.reached.notify_one();
    }

    /// Starts counting anew.
    fn expect(&self, rows: usize) {
        self.rows.set(0);
        self.awaited.set(rows);
    }

    /// Waits until the expected number of rows has arrived.
    async fn wait(&self) -> anyhow::Result<()> {
        while self.rows.get() < self.awaited.get() {
            timeout(UPDATE_TIMEOUT, self.reached.notified()).await.with_context(|| {
                format!("{} of {} rows arrived in {UPDATE_TIMEOUT:?}", self.rows.get(), self.awaited.get())
            })?;
            if let Some(reason) = self.failed.take() {
                bail!("a subscriber failed: {reason}");
            }
        }
        ensure!(
            self.rows.get() == self.awaited.get(),
            "{} rows arrived, {} were expected",
            self.rows.get(),
            self.awaited.get()
        );
        Ok(())
    }
}

/// Runs the suite.
pub async fn run(plan: &Plan, reporter: &mut Reporter) -> anyhow::Result<()> {
    let (mut fanout_ms, mut listeners) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        reporter.progress(&format!("subscriptions: round {} of {}", round + 1, plan.rounds));
        let server = Server::start(&plan.binary)?;
        server.publish("fanout")?;
        fanout_ms.push(LocalSet::new().run_until(fanout(&server, "fanout")).await?);
        server.publish("listeners")?;
        listeners.push(LocalSet::new().run_until(listen(&server, "listeners", plan.round)).await?);
        server.stop()?;
    }
    let case =
        |case, unit, value: &[f64], peer, target| Case { suite: SUITE, case, value: median(value), unit, peer, target };
    reporter.record(case("fanout_1000_ms", "ms", &fanout_ms, None, Target::AtMost(30.0)))?;
    reporter.record(case(
        "listeners_8_calls",
        "calls/s",
        &listeners,
        Some(peers::LISTENERS_8),
        Target::AtLeast(45_000.0),
    ))?;
    Ok(())
}

/// Median time from sending a call until the last of [`SUBSCRIBERS`] has the change, in milliseconds.
async fn fanout(server: &Server, database: &str) -> anyhow::Result<f64> {
    let arrivals = subscribe(server, database, SUBSCRIBERS).await?;
    let mut caller = Caller::connect(server, database, false, 0).await?;
    let mut times_ms = Vec::new();
    for commit in 0..COMMITS {
        arrivals.expect(SUBSCRIBERS);
        let start = Instant::now();
        caller.send_insert().await?;
        arrivals.wait().await?;
        if commit >= COMMITS_UNCOUNTED {
            times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
        caller.take_reply().await?;
    }
    Ok(median(&times_ms))
}

/// Calls per second while [`LISTENERS`] connections get every change, until the last change arrived.
async fn listen(server: &Server, database: &str, length: Duration) -> anyhow::Result<f64> {
    let arrivals = subscribe(server, database, LISTENERS).await?;
    let mut caller = Caller::connect(server, database, false, 0).await?;
    // The warm-up's rows are counted too: nothing may be lost there either.
    let batch = 4 * crate::load::IN_FLIGHT;
    let (start, mut rate) = (Instant::now(), 0.0);
    while rate == 0.0 || start.elapsed() < WARM_UP {
        rate = counted_calls(&arrivals, &mut caller, batch).await?;
    }
    let calls = ((rate * length.as_secs_f64()) as usize).max(batch);
    let rate = counted_calls(&arrivals, &mut caller, calls).await?;
    caller.close().await?;
    Ok(rate)
}

async fn counted_calls(arrivals: &Arrivals, caller: &mut Caller, calls: usize) -> anyhow::Result<f64> {
    arrivals.expect(calls * LISTENERS);
    let start = Instant::now();
    caller.pipelined(Work::Insert, calls).await?;
    arrivals.wait().await?;
    Ok(calls as f64 / start.elapsed().as_secs_f64())
}

/// Opens `count` connections with one subscription each, and a task per connection that counts rows.
async fn subscribe(server: &Server, database: &str, count: usize) -> anyhow::Result<Rc<Arrivals>> {
    let arrivals = Rc::new(Arrivals::default());
    for _ in 0..count {
        let mut connection = connect(server, database, false).await?;
        connection.subscribe(1, &[QUERY]).await?;
        let arrivals = arrivals.clone();
        tokio::task::spawn_local(async move {
            let mut messages = Vec::new();
            loop {
                if let Err(error) = connection.recv_batch(&mut messages).await {
                    return arrivals.fail(error.to_string());
                }
                arrivals.add(messages.drain(..).map(|message| inserted_rows(&message)).sum());
            }
        });
    }
    Ok(arrivals)
}

fn inserted_rows(message: &ServerMessage) -> usize {
    let ServerMessage::TransactionUpdate(update) = message else {
        return 0;
    };
    let tables = update.query_sets.iter().flat_map(|query_set| &query_set.tables);
    tables
        .map(|table| match &table.rows {
            TableUpdateRows::Persistent { inserts, .. } => inserts.len(),
            TableUpdateRows::Event { events } => events.len(),
        })
        .sum()
}
