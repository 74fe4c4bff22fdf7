//! Everybody who trades at one venue for a while.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use tine_types::Identity;
use tokio::{task::JoinHandle, time::timeout};

use super::{
    trader::{Credentials, Record, Tempo, Trader},
    venue::Venue,
};

/// Tickets of one session: more than a session can use, so that ranges never meet.
const TICKETS_PER_SESSION: u64 = 1 << 40;
/// How long a session may take to end: its calls are in flight for milliseconds.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// The people of the demo and the numbers they have used.
pub struct Cast {
    people: Vec<Credentials>,
    sessions: u64,
}

impl Cast {
    /// A cast of known people.
    pub fn new(people: Vec<Credentials>) -> Cast {
        Cast { people, sessions: 0 }
    }

    /// Opens a session at a fork: the feed and one connection per person.
    pub fn open(&mut self, url: &str, database: &str, people: usize, tempo: Tempo) -> Session {
        self.sessions += 1;
        let first_ticket = self.sessions * TICKETS_PER_SESSION;
        let venue = Arc::new(Venue::new(url, database));
        let feed = tokio::spawn({
            let venue = venue.clone();
            async move { venue.follow().await }
        });
        let start = |(number, person): (usize, &Credentials)| {
            let seed = first_ticket.wrapping_add(number as u64).wrapping_mul(0x2545_f491_4f6c_dd1d);
            let trader = Trader::new(person.clone(), venue.clone(), tempo, seed, first_ticket);
            (person.identity, tokio::spawn(trader.run()))
        };
        let traders = self.people.iter().enumerate().take(people).map(start).collect();
        Session { venue, feed, traders }
    }
}

/// Traders at work.
pub struct Session {
    /// Where they trade.
    pub venue: Arc<Venue>,
    feed: JoinHandle<anyhow::Result<()>>,
    traders: Vec<(Identity, JoinHandle<anyhow::Result<Record>>)>,
}

impl Session {
    /// Fails as soon as any trader has.
    ///
    /// # Errors
    /// The first trader's error; call it only while the session should be running.
    pub async fn check(&mut self) -> anyhow::Result<()> {
        let venue = self.venue.database.clone();
        if self.feed.is_finished() {
            (&mut self.feed).await?.with_context(|| format!("the feed of {venue}"))?;
            anyhow::bail!("the feed of {venue} ended");
        }
        let Some(at) = self.traders.iter().position(|(_, trader)| trader.is_finished()) else {
            return Ok(());
        };
        let (_, trader) = self.traders.swap_remove(at);
        trader.await?.with_context(|| format!("a trader at {venue}"))?;
        anyhow::bail!("a trader left {venue} before the end");
    }

    /// Ends the session: what is in flight is finished, then everybody tells what they did. After the
    /// server died it only collects.
    ///
    /// # Errors
    /// The first trader's error.
    pub async fn close(self) -> anyhow::Result<Vec<(Identity, Record)>> {
        self.venue.stop();
        let venue = &self.venue.database;
        let mut records = Vec::with_capacity(self.traders.len());
        for (identity, trader) in self.traders {
            let record = timeout(CLOSE_TIMEOUT, trader).await;
            let record = record.with_context(|| format!("a trader at {venue} did not come to an end"))?;
            records.push((identity, record?.with_context(|| format!("a trader at {venue}"))?));
        }
        timeout(CLOSE_TIMEOUT, self.feed).await.with_context(|| format!("the feed of {venue} did not end"))???;
        Ok(records)
    }
}
