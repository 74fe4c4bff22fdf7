//! How a trader decides: what it thinks things are worth, and what it does about it.

use std::time::Duration;

use bytes::Bytes;
use tine_types::Identity;

use super::{
    venue::Floor,
    wire::{self, Auction, Holding, LedgerLine, Policy},
};

/// What a crate of each good is worth to an average trader: tea, silk, amber.
const WORTH: [f64; GOODS] = [40.0, 120.0, 300.0];
const GOODS: usize = 3;
/// How far a trader's taste strays from the average.
const TASTE: std::ops::Range<f64> = 0.55..1.75;
/// Share of its coins a trader puts into one lot at most.
const STAKE: f64 = 0.25;
/// A trader's taste changes after about this many decisions.
const MOOD_DECISIONS: f64 = 400.0;
/// Lots looked at for a bid: few, so that traders differ, and the hottest of them is taken.
const LOTS_CONSIDERED: usize = 4;
/// Auctions beyond which a trader rather bids than sells.
const FLOOR_BUSY: usize = 40;
/// A bid this close to the closing time would come too late, in microseconds.
const TOO_LATE_MICROS: i64 = 2_000;

/// One call a trader makes.
#[derive(Clone, Debug)]
pub enum Move {
    Sell { ticket: u64, good: u8, units: u32, reserve: u64, open_ms: u32 },
    Bid { ticket: u64, auction: u64, coins: u64 },
    Settle,
}

impl Move {
    /// The reducer to call and its arguments.
    pub fn call(&self) -> (&'static str, Bytes) {
        match *self {
            Move::Sell { ticket, good, units, reserve, open_ms } => {
                ("sell", wire::sell(ticket, good, units, reserve, open_ms))
            }
            Move::Bid { ticket, auction, coins } => ("bid", wire::bid(ticket, auction, coins)),
            Move::Settle => ("settle", Bytes::new()),
        }
    }

    /// The lot this call is about, if it exists already.
    pub fn auction(&self) -> Option<u64> {
        match *self {
            Move::Bid { auction, .. } => Some(auction),
            Move::Sell { .. } | Move::Settle => None,
        }
    }

    /// The line the ledger must hold once this call is confirmed. The number of a new lot is not
    /// known to the seller: it is 0 here.
    pub fn ledger_line(&self, agent: Identity) -> Option<LedgerLine> {
        match *self {
            Move::Sell { ticket, .. } => Some(LedgerLine { agent, ticket, auction: 0, coins: 0 }),
            Move::Bid { ticket, auction, coins } => Some(LedgerLine { agent, ticket, auction, coins }),
            Move::Settle => None,
        }
    }
}

/// A trader's knowledge and taste.
pub struct Mind {
    identity: Identity,
    random: Random,
    taste: [f64; GOODS],
    ticket: u64,
    open_ms: std::ops::Range<f64>,
    /// Coins in the account, as far as confirmed news tell.
    pub coins: u64,
    holdings: Vec<Holding>,
}

impl Mind {
    /// A mind of its own: equal seeds think alike.
    pub fn new(identity: Identity, seed: u64, first_ticket: u64, open_ms: (u32, u32)) -> Mind {
        let mut random = Random(seed);
        let taste = std::array::from_fn(|_| random.within(TASTE));
        let open_ms = f64::from(open_ms.0)..f64::from(open_ms.1);
        Mind { identity, random, taste, ticket: first_ticket, open_ms, coins: 0, holdings: Vec::new() }
    }

    /// The ticket that no call has used yet.
    pub fn next_ticket(&self) -> u64 {
        self.ticket
    }

    /// Learns that these crates are in the account.
    pub fn hold(&mut self, row: &Holding) {
        self.release(row);
        self.holdings.push(row.clone());
    }

    /// Learns that this row is gone.
    pub fn release(&mut self, row: &Holding) {
        self.holdings.retain(|held| held.id != row.id);
    }

    /// A pause between half and one and a half times as long.
    pub fn vary(&mut self, pause: Duration) -> Duration {
        pause.mul_f64(self.random.within(0.5..1.5))
    }

    /// The next call, or nothing when there is nothing to gain.
    pub fn choose(
        &mut self,
        floor: &Floor,
        wall_micros: i64,
        settles: bool,
        busy: impl Fn(u64) -> bool,
    ) -> Option<Move> {
        if self.random.unit() < 1.0 / MOOD_DECISIONS {
            let good = self.random.below(GOODS);
            self.taste[good] = self.random.within(TASTE);
        }
        let policy = floor.policy.as_ref()?;
        let overdue = |lot: &Auction| lot.closes_micros <= wall_micros;
        if settles && self.random.unit() < 0.2 && floor.auctions.values().any(overdue) {
            return Some(Move::Settle);
        }
        let eager = floor.auctions.len() < FLOOR_BUSY && self.random.unit() < 0.15;
        if eager && let Some(sale) = self.offer(policy) {
            return Some(sale);
        }
        self.bid(floor, policy, wall_micros, busy)
    }

    /// What a crate is worth to this trader now.
    fn worth(&self, good: u8) -> f64 {
        let index = usize::from(good).min(GOODS - 1);
        WORTH[index] * self.taste[index]
    }

    fn offer(&mut self, policy: &Policy) -> Option<Move> {
        // Sell what is worth least to us for what we hold most of: a rough rule is enough.
        let most = self.holdings.iter().max_by_key(|row| (u64::from(row.units), row.good))?;
        let (good, held) = (most.good, most.units);
        let units = 1 + self.random.below(5.min(held as usize)) as u32;
        let keep = 1.0 - f64::from(policy.fee) / 10_000.0;
        let reserve = (self.worth(good) * f64::from(units) * 0.7 / keep.max(0.1)) as u64;
        let open_ms = self.random.within(self.open_ms.clone()) as u32;
        Some(Move::Sell { ticket: self.take_ticket(), good, units, reserve, open_ms })
    }

    fn bid(&mut self, floor: &Floor, policy: &Policy, wall_micros: i64, busy: impl Fn(u64) -> bool) -> Option<Move> {
        let first = *floor.auctions.keys().next()?;
        let last = *floor.auctions.keys().next_back()?;
        let start = first + self.random.below((last - first + 1) as usize) as u64;
        let hottest = floor
            .auctions
            .range(start..)
            .chain(floor.auctions.range(..start))
            .map(|(_, lot)| lot)
            .filter(|lot| lot.closes_micros > wall_micros + TOO_LATE_MICROS)
            .filter(|lot| lot.seller != self.identity && lot.bidder != Some(self.identity))
            .filter(|lot| !busy(lot.id) && lowest_bid(lot, policy) <= self.limit(lot))
            .take(LOTS_CONSIDERED)
            .max_by_key(|lot| lot.bids)?;
        let (auction, lowest, limit) = (hottest.id, lowest_bid(hottest, policy), self.limit(hottest));
        // Under second-price rules a bidder does best to name its whole limit at once.
        let keenness = if policy.second { 1.0 } else { self.random.unit() * 0.06 };
        let coins = lowest + ((limit - lowest) as f64 * keenness) as u64;
        Some(Move::Bid { ticket: self.take_ticket(), auction, coins })
    }

    /// The most this trader would pay for a lot.
    fn limit(&self, lot: &Auction) -> u64 {
        let worth = self.worth(lot.good) * f64::from(lot.units);
        worth.min(self.coins as f64 * STAKE) as u64
    }

    fn take_ticket(&mut self) -> u64 {
        self.ticket += 1;
        self.ticket - 1
    }
}

/// The lowest bid the market takes for a lot; the same rule as in the module's `rules.ts`.
fn lowest_bid(lot: &Auction, policy: &Policy) -> u64 {
    if lot.best == 0 {
        return lot.reserve.max(1);
    }
    lot.best + (lot.best * u64::from(policy.step) / 100).max(1)
}

/// A small generator (SplitMix64): the demo needs variety, not secrecy.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn within(&mut self, range: std::ops::Range<f64>) -> f64 {
        range.start + self.unit() * (range.end - range.start)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(second: bool) -> Policy {
        Policy { name: String::new(), fee: 250, floor: 0, step: 3, second }
    }

    fn lot(id: u64, best: u64) -> Auction {
        Auction {
            id,
            seller: Identity::from_claims("test", "seller"),
            good: 1,
            units: 2,
            reserve: 10,
            best,
            second: 0,
            bidder: None,
            bids: 0,
            closes_micros: i64::MAX,
        }
    }

    fn rich_mind(seed: u64) -> Mind {
        let mut mind = Mind::new(Identity::from_claims("test", "bidder"), seed, 1, (100, 200));
        mind.coins = 1_000_000;
        mind
    }

    #[test]
    fn bids_are_within_the_rules_and_the_limit() {
        for seed in 0..200 {
            for second in [false, true] {
                let mut mind = rich_mind(seed);
                let mut floor = Floor { policy: Some(policy(second)), ..Floor::default() };
                floor.auctions.insert(7, lot(7, 50));
                let Some(Move::Bid { auction, coins, .. }) = mind.bid(&floor, &policy(second), 0, |_| false) else {
                    panic!("a rich trader bids for a cheap lot");
                };
                assert_eq!(auction, 7);
                assert!((51..=mind.limit(&floor.auctions[&7])).contains(&coins), "{coins}");
            }
        }
    }

    #[test]
    fn nobody_bids_for_own_led_busy_or_closing_lots() {
        let mut mind = rich_mind(1);
        let own = Auction { seller: mind.identity, ..lot(1, 0) };
        let led = Auction { bidder: Some(mind.identity), ..lot(2, 20) };
        let busy = lot(3, 0);
        let closing = Auction { closes_micros: 500, ..lot(4, 0) };
        let floor = Floor {
            auctions: [own, led, busy, closing].into_iter().map(|lot| (lot.id, lot)).collect(),
            policy: Some(policy(false)),
            ..Floor::default()
        };
        assert!(mind.bid(&floor, &policy(false), 0, |auction| auction == 3).is_none());
    }

    #[test]
    fn tickets_are_never_used_twice() {
        let mut mind = rich_mind(3);
        mind.hold(&Holding { id: 1, good: 0, units: 9 });
        let mut floor = Floor { policy: Some(policy(false)), ..Floor::default() };
        floor.auctions.insert(1, lot(1, 0));
        let mut last = 0;
        for _ in 0..500 {
            let line = mind.choose(&floor, 0, false, |_| false).and_then(|made| made.ledger_line(mind.identity));
            let Some(line) = line else { continue };
            assert!(line.ticket > last);
            last = line.ticket;
        }
        assert_eq!(mind.next_ticket(), last + 1);
    }
}
