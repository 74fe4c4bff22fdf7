//! One place to trade: a fork of the market, what is known of its floor, and how its calls go.
//!
//! All traders of a venue share one subscription of the floor (the auctions, goods and rules), as
//! they would share a market-data feed; each still has its own socket for its calls and account.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tine_client::{
    ClientError, ConnectOptions, Connection,
    protocol::{QueryRows, RowList, ServerMessage, TableUpdateRows, TransactionUpdate},
};
use tine_types::bsatn::Reader;
use tokio::time::timeout;

use super::wire::{Auction, Good, Policy, Row};

/// How often a quiet feed looks whether it should end.
const FEED_POLL: Duration = Duration::from_millis(50);
/// Latencies kept for the percentiles; later ones are counted but not kept.
const LATENCIES_MAX: usize = 400_000;

/// What the traders know of the floor.
#[derive(Default)]
pub struct Floor {
    pub auctions: BTreeMap<u64, Auction>,
    pub goods: BTreeMap<u8, Good>,
    pub policy: Option<Policy>,
}

/// A fork of the market with its counters.
pub struct Venue {
    /// Server address.
    pub url: String,
    /// `market` or `market@fork`.
    pub database: String,
    /// Schedules are paused on forks: there the traders settle overdue lots themselves.
    pub settles_itself: bool,
    pub floor: RwLock<Floor>,
    pub tally: Tally,
    stopping: AtomicBool,
}

/// Calls of a venue so far.
#[derive(Default)]
pub struct Tally {
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    latencies_us: Mutex<Vec<u32>>,
}

impl Tally {
    /// Counts one answered call.
    pub fn answered(&self, accepted: bool, latency: Duration) {
        let counter = if accepted { &self.accepted } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.latencies_us.lock().expect("no trader panics while holding it");
        if kept.len() < LATENCIES_MAX {
            kept.push(latency.as_micros().min(u128::from(u32::MAX)) as u32);
        }
    }

    /// Answered calls, accepted and refused.
    pub fn calls(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed)
    }

    /// Median and 99th percentile in microseconds of the calls since the last time; 0 when none.
    pub fn take_latencies_us(&self) -> (u32, u32) {
        let mut kept = std::mem::take(&mut *self.latencies_us.lock().expect("as above"));
        kept.sort_unstable();
        let at = |percent: usize| kept.get(kept.len() * percent / 100).copied().unwrap_or(0);
        (at(50), at(99))
    }
}

impl Venue {
    /// A venue nobody trades at yet.
    pub fn new(url: &str, database: &str) -> Venue {
        Venue {
            url: url.to_owned(),
            database: database.to_owned(),
            settles_itself: database.contains('@'),
            floor: RwLock::default(),
            tally: Tally::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Asks everybody at the venue to finish what is in flight and leave.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether [`Venue::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Follows the floor until the venue stops or the server goes away.
    ///
    /// # Errors
    /// When the feed cannot be set up or says something unreadable; a closed socket is no error.
    pub async fn follow(&self) -> anyhow::Result<()> {
        let options = ConnectOptions::new(&self.url, &self.database).with_confirmed(false);
        let mut connection = Connection::connect(options).await?;
        let queries = ["SELECT * FROM policy", "SELECT * FROM good", "SELECT * FROM auction"];
        let rows = connection.subscribe(1, &queries).await?;
        self.floor.write().expect("no writer panics").apply_initial(&rows)?;
        let mut inbox = Vec::new();
        while !self.is_stopping() {
            match timeout(FEED_POLL, connection.recv_batch(&mut inbox)).await {
                Err(_quiet) => continue,
                Ok(Err(ClientError::Closed { .. } | ClientError::Transport(_))) => return Ok(()),
                Ok(Err(error)) => return Err(error.into()),
                Ok(Ok(_count)) => {}
            }
            let mut floor = self.floor.write().expect("no writer panics");
            for message in inbox.drain(..) {
                if let ServerMessage::TransactionUpdate(update) = message {
                    floor.apply(&update)?;
                }
            }
        }
        Ok(())
    }
}

impl Floor {
    fn apply_initial(&mut self, rows: &QueryRows) -> anyhow::Result<()> {
        for table in &rows.tables {
            self.insert(&table.table, &table.rows)?;
        }
        Ok(())
    }

    fn apply(&mut self, update: &TransactionUpdate) -> anyhow::Result<()> {
        for table in update.query_sets.iter().flat_map(|set| &set.tables) {
            let TableUpdateRows::Persistent { inserts, deletes } = &table.rows else { continue };
            if &*table.table == "auction" {
                for auction in decode_rows::<Auction>(deletes)? {
                    self.auctions.remove(&auction.id);
                }
            }
            self.insert(&table.table, inserts)?;
        }
        Ok(())
    }

    fn insert(&mut self, table: &str, rows: &RowList) -> anyhow::Result<()> {
        match table {
            "auction" => self.auctions.extend(decode_rows::<Auction>(rows)?.into_iter().map(|row| (row.id, row))),
            "good" => self.goods.extend(decode_rows::<Good>(rows)?.into_iter().map(|row| (row.id, row))),
            "policy" => self.policy = decode_rows::<Policy>(rows)?.pop().or(self.policy.take()),
            _ => {}
        }
        Ok(())
    }
}

/// Decodes every row of a list.
///
/// # Errors
/// When a row is not of the table's shape.
pub fn decode_rows<R: Row>(rows: &RowList) -> anyhow::Result<Vec<R>> {
    let decode = |row: &[u8]| Ok(R::decode(&mut Reader::new(row))?);
    rows.rows().map(decode).collect()
}

/// Calls answered and time passed between two looks at a venue.
pub struct Pace {
    since: Instant,
    calls: u64,
}

impl Pace {
    /// Starts counting.
    pub fn start(tally: &Tally) -> Pace {
        Pace { since: Instant::now(), calls: tally.calls() }
    }

    /// Calls a second since the start.
    pub fn calls_per_second(&self, tally: &Tally) -> f64 {
        (tally.calls() - self.calls) as f64 / self.since.elapsed().as_secs_f64().max(1e-6)
    }
}
