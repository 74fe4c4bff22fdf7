//! What the demo holds against the market: its books, and its ledger.

use std::collections::HashMap;

use anyhow::Context;
use tine_client::{ConnectOptions, Connection, protocol::QueryRows};
use tine_types::Identity;

use super::{
    trader::Record,
    venue::decode_rows,
    wire::{Agent, Auction, Good, Holding, House, LedgerLine, Row},
};

/// Every coin and every crate of one version of a fork.
#[derive(Clone, Debug)]
pub struct Books {
    pub goods: Vec<Good>,
    pub fees: u64,
    /// Coins with agents, richest first.
    pub purses: Vec<u64>,
    escrow: u64,
    minted: u64,
    /// Crates of each good, in `goods` order: held and under the hammer.
    crates: Vec<u64>,
}

impl Books {
    /// Reads the books of one fork. All tables come in one query set, so from one version (G5), also
    /// while others trade.
    ///
    /// # Errors
    /// When the fork cannot be read.
    pub async fn read(url: &str, database: &str, token: &str) -> anyhow::Result<Books> {
        let mut connection = Connection::connect(ConnectOptions::new(url, database).with_token(token)).await?;
        let queries = ["house", "good", "agent", "holding", "auction"].map(|table| format!("SELECT * FROM {table}"));
        let rows = connection.subscribe(1, &queries.each_ref().map(String::as_str)).await?;
        connection.close().await?;

        let house: House = rows_of(&rows, "house")?.pop().context("the market has no house")?;
        let mut goods: Vec<Good> = rows_of(&rows, "good")?;
        goods.sort_by_key(|good| good.id);
        let agents: Vec<Agent> = rows_of(&rows, "agent")?;
        let holdings: Vec<Holding> = rows_of(&rows, "holding")?;
        let auctions: Vec<Auction> = rows_of(&rows, "auction")?;
        let crates_of = |good: &Good| {
            let held = holdings.iter().filter(|row| row.good == good.id).map(|row| u64::from(row.units));
            let offered = auctions.iter().filter(|lot| lot.good == good.id).map(|lot| u64::from(lot.units));
            held.chain(offered).sum()
        };
        let mut purses: Vec<u64> = agents.iter().map(|agent| agent.coins).collect();
        purses.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Books {
            crates: goods.iter().map(crates_of).collect(),
            goods,
            fees: house.coins,
            purses,
            escrow: auctions.iter().map(|lot| lot.best).sum(),
            minted: house.minted,
        })
    }

    /// Whether every coin and every crate is accounted for.
    pub fn balanced(&self) -> bool {
        let held: u64 = self.purses.iter().sum();
        let coins = held + self.escrow + self.fees == self.minted;
        coins && self.goods.iter().zip(&self.crates).all(|(good, crates)| good.minted == *crates)
    }

    /// Finished sales.
    pub fn sales(&self) -> u64 {
        self.goods.iter().map(|good| good.sales).sum()
    }

    /// Crates and coins that changed hands since `before`.
    pub fn volume_since(&self, before: &Books) -> (u64, u64) {
        let pairs = self.goods.iter().zip(&before.goods);
        pairs.fold((0, 0), |(units, coins), (now, then)| {
            (units + now.units - then.units, coins + now.coins - then.coins)
        })
    }

    /// The prices since `before` in percent of the opening prices; none when nothing was sold.
    pub fn price_level_since(&self, before: &Books) -> Option<f64> {
        let mut paid = 0.0;
        let mut at_opening = 0.0;
        for ((now, then), opening) in self.goods.iter().zip(&before.goods).zip(OPENING_PRICES) {
            paid += (now.coins - then.coins) as f64;
            at_opening += (now.units - then.units) as f64 * opening;
        }
        (at_opening > 0.0).then(|| paid / at_opening * 100.0)
    }

    /// The Gini coefficient of the agents' coins: 0 when all have the same, towards 1 when one has all.
    pub fn inequality(&self) -> f64 {
        let count = self.purses.len() as f64;
        let total = self.purses.iter().sum::<u64>() as f64;
        if total == 0.0 {
            return 0.0;
        }
        // Purses are sorted richest first.
        let weighted: f64 =
            self.purses.iter().rev().zip(1_u32..).map(|(coins, rank)| f64::from(rank) * *coins as f64).sum();
        2.0 * weighted / (count * total) - (count + 1.0) / count
    }
}

/// Price of a crate before the first sale, as in the module's `rules.ts`.
const OPENING_PRICES: [f64; 3] = [40.0, 120.0, 300.0];

/// The outcome of comparing a ledger with what its clients remember.
#[derive(Clone, Copy, Debug, Default)]
pub struct LedgerCheck {
    /// Accepted calls whose success had reached the client.
    pub confirmed: usize,
    /// Confirmed calls that the ledger does not know, or knows otherwise.
    pub missing: usize,
    /// Calls in the ledger whose reply was still on its way.
    pub unacknowledged: usize,
    /// Lines of the ledger that no client wrote.
    pub foreign: usize,
}

impl LedgerCheck {
    /// Whether every confirmed commit is there, and nothing that nobody sent.
    pub fn holds(&self) -> bool {
        self.missing == 0 && self.foreign == 0
    }

    /// Both checks together.
    pub fn and(self, other: LedgerCheck) -> LedgerCheck {
        LedgerCheck {
            confirmed: self.confirmed + other.confirmed,
            missing: self.missing + other.missing,
            unacknowledged: self.unacknowledged + other.unacknowledged,
            foreign: self.foreign + other.foreign,
        }
    }
}

/// Compares the ledger of one fork with the memory of everybody who traded there, or on the parent
/// before the fork was made (`inherited`).
///
/// # Errors
/// When the ledger cannot be read.
pub async fn check_ledger(
    url: &str,
    database: &str,
    owner_token: &str,
    own: &[(Identity, Record)],
    inherited: &[(Identity, Record)],
) -> anyhow::Result<LedgerCheck> {
    let mut connection = Connection::connect(ConnectOptions::new(url, database).with_token(owner_token)).await?;
    let rows = connection.one_off_query("SELECT * FROM ledger").await?;
    connection.close().await?;
    Ok(compare(rows_of(&rows, "ledger")?, own, inherited))
}

fn compare(lines: Vec<LedgerLine>, own: &[(Identity, Record)], inherited: &[(Identity, Record)]) -> LedgerCheck {
    let mut ledger: HashMap<(Identity, u64), LedgerLine> =
        lines.into_iter().map(|line| ((line.agent, line.ticket), line)).collect();
    let mut check = LedgerCheck::default();
    for line in own.iter().flat_map(|(_, record)| &record.confirmed) {
        check.confirmed += 1;
        let found = ledger.remove(&(line.agent, line.ticket));
        // A seller does not know the number of the new lot.
        let same = |found: LedgerLine| found.coins == line.coins && (line.coins == 0 || found.auction == line.auction);
        if !found.is_some_and(same) {
            check.missing += 1;
        }
    }
    let sent_by = |records: &[(Identity, Record)], (agent, ticket): (Identity, u64)| {
        records.iter().any(|(who, record)| *who == agent && record.tickets.contains(&ticket))
    };
    for key in ledger.into_keys() {
        if sent_by(own, key) {
            check.unacknowledged += 1;
        } else if !sent_by(inherited, key) {
            check.foreign += 1;
        }
    }
    check
}

fn rows_of<R: Row>(rows: &QueryRows, table: &str) -> anyhow::Result<Vec<R>> {
    let mut found = Vec::new();
    for part in rows.tables.iter().filter(|part| &*part.table == table) {
        found.extend(decode_rows(&part.rows)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(agent: Identity, ticket: u64, coins: u64) -> LedgerLine {
        LedgerLine { agent, ticket, auction: 5, coins }
    }

    #[test]
    fn the_ledger_is_compared_line_by_line() {
        let ann = Identity::from_claims("test", "ann");
        let bob = Identity::from_claims("test", "bob");
        let record = |confirmed: Vec<LedgerLine>, tickets| Record { confirmed, tickets, unanswered: 0 };
        let own = vec![(ann, record(vec![line(ann, 1, 10), line(ann, 2, 0)], 1..4))];
        let inherited = vec![(bob, record(vec![line(bob, 9, 4)], 9..10))];
        let full = vec![line(ann, 1, 10), line(ann, 2, 0), line(bob, 9, 4)];

        let check = compare(full.clone(), &own, &inherited);
        assert!(check.holds() && check.confirmed == 2 && check.unacknowledged == 0, "{check:?}");

        let late = compare([full.clone(), vec![line(ann, 3, 1)]].concat(), &own, &inherited);
        assert!(late.holds() && late.unacknowledged == 1, "{late:?}");

        let lost = compare(full[1..].to_vec(), &own, &inherited);
        assert!(!lost.holds() && lost.missing == 1, "{lost:?}");

        let changed = compare([vec![line(ann, 1, 11)], full[1..].to_vec()].concat(), &own, &inherited);
        assert!(!changed.holds() && changed.missing == 1, "{changed:?}");

        let invented = compare([full, vec![line(ann, 4, 1)]].concat(), &own, &inherited);
        assert!(!invented.holds() && invented.foreign == 1, "{invented:?}");
    }

    #[test]
    fn books_notice_a_lost_coin_and_a_lost_crate() {
        let good = Good { id: 0, minted: 7, sales: 0, units: 0, coins: 0 };
        let books = Books { goods: vec![good], fees: 5, purses: vec![60, 30], escrow: 5, minted: 100, crates: vec![7] };
        assert!(books.balanced());
        assert!(!Books { escrow: 4, ..books.clone() }.balanced());
        assert!(!Books { crates: vec![6], ..books.clone() }.balanced());
        assert!((books.inequality() - 1.0 / 6.0).abs() < 1e-9, "{}", books.inequality());
    }
}
