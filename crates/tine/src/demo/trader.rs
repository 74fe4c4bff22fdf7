//! A simulated client: one identity, one socket, its own idea of what things are worth.
//!
//! A trader keeps several calls in flight and remembers, for every `sell` and `bid`, whether its
//! success was confirmed. That memory is what the market is held against after the crash.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tine_client::{
    ClientError, ConnectOptions, Connection,
    protocol::{ClientMessage, QueryRows, ReducerOutcome, ServerMessage, TableUpdateRows, TransactionUpdate},
};
use tine_types::Identity;
use tokio::time::timeout;

use super::{
    strategy::{Mind, Move},
    venue::{Venue, decode_rows},
    wire::{self, Agent, Holding, LedgerLine},
};

/// How long a trader with nothing to do looks away.
const IDLE: Duration = Duration::from_millis(2);
/// The trader's own account is one query set of its connection.
const ACCOUNT_QUERY_SET: u32 = 1;

/// How hard a trader works.
#[derive(Clone, Copy)]
pub struct Tempo {
    /// Calls in flight.
    pub depth: usize,
    /// Pause between calls; zero for none.
    pub pause: Duration,
    /// How long the lots offered at this tempo are open, in milliseconds: shortest and longest.
    pub open_ms: (u32, u32),
}

/// Who a trader is, on every fork alike.
#[derive(Clone)]
pub struct Credentials {
    pub identity: Identity,
    pub token: String,
    pub name: String,
}

/// What a trader did at a venue.
#[derive(Default)]
pub struct Record {
    /// Every accepted `sell` and `bid` whose success reached this client.
    pub confirmed: Vec<LedgerLine>,
    /// Tickets of this session are in this range; nothing else may be in the ledger.
    pub tickets: std::ops::Range<u64>,
    /// Calls without an answer when the server went away.
    pub unanswered: usize,
}

struct InFlight {
    request_id: u32,
    sent: Instant,
    made: Move,
}

/// A trader at a venue.
pub struct Trader {
    credentials: Credentials,
    venue: Arc<Venue>,
    tempo: Tempo,
    mind: Mind,
    in_flight: VecDeque<InFlight>,
    next_request_id: u32,
    next_move: Instant,
    record: Record,
}

impl Trader {
    /// A trader that has not connected yet. Tickets count up from `first_ticket`.
    pub fn new(credentials: Credentials, venue: Arc<Venue>, tempo: Tempo, seed: u64, first_ticket: u64) -> Trader {
        let mind = Mind::new(credentials.identity, seed, first_ticket, tempo.open_ms);
        Trader {
            credentials,
            venue,
            tempo,
            mind,
            in_flight: VecDeque::with_capacity(tempo.depth),
            next_request_id: 0,
            next_move: Instant::now(),
            record: Record { tickets: first_ticket..first_ticket, ..Record::default() },
        }
    }

    /// Trades until the venue stops or the server goes away, and tells what happened.
    ///
    /// # Errors
    /// When the connection cannot be made or the server says something unreadable.
    pub async fn run(mut self) -> anyhow::Result<Record> {
        let options = ConnectOptions::new(&self.venue.url, &self.venue.database)
            .with_token(&self.credentials.token)
            .with_confirmed(true);
        let mut connection = Connection::connect(options).await?;
        let join = wire::join(&self.credentials.name);
        connection.call_reducer("join", join).await?;
        let id = self.credentials.identity.to_hex();
        let account =
            [format!("SELECT * FROM agent WHERE id = 0x{id}"), format!("SELECT * FROM holding WHERE owner = 0x{id}")];
        let rows = connection.subscribe(ACCOUNT_QUERY_SET, &[&account[0], &account[1]]).await?;
        self.learn_account(&rows)?;
        // Numbers from here on are the trader's; the helpers above used the first ones.
        self.next_request_id = connection.next_request_id();
        match self.trade(connection).await {
            Ok(()) => {}
            Err(error) if is_gone(&error) => self.record.unanswered = self.in_flight.len(),
            Err(error) => return Err(error),
        }
        self.record.tickets.end = self.mind.next_ticket();
        Ok(self.record)
    }

    async fn trade(&mut self, mut connection: Connection) -> anyhow::Result<()> {
        let mut outbox = Vec::with_capacity(self.tempo.depth);
        let mut inbox = Vec::new();
        loop {
            let stopping = self.venue.is_stopping();
            if stopping && self.in_flight.is_empty() {
                connection.close().await?;
                return Ok(());
            }
            if !stopping {
                self.make_moves(&mut outbox);
            }
            if !outbox.is_empty() {
                connection.send(&outbox).await?;
                outbox.clear();
            }
            // A quiet socket is looked at again soon: the floor may have changed meanwhile.
            if let Ok(received) = timeout(IDLE, connection.recv_batch(&mut inbox)).await {
                received?;
            }
            for message in inbox.drain(..) {
                self.hear(message)?;
            }
        }
    }

    fn make_moves(&mut self, outbox: &mut Vec<ClientMessage>) {
        let now = Instant::now();
        if self.in_flight.len() >= self.tempo.depth || now < self.next_move {
            return;
        }
        let wall = wall_micros();
        let floor = self.venue.floor.read().expect("no writer panics");
        while self.in_flight.len() < self.tempo.depth {
            let busy = |auction| self.in_flight.iter().any(|call| call.made.auction() == Some(auction));
            let Some(made) = self.mind.choose(&floor, wall, self.venue.settles_itself, busy) else { break };
            let request_id = self.next_request_id;
            self.next_request_id = self.next_request_id.wrapping_add(1);
            let (reducer, args) = made.call();
            outbox.push(ClientMessage::CallReducer { request_id, reducer: reducer.into(), args });
            self.in_flight.push_back(InFlight { request_id, sent: now, made });
            if !self.tempo.pause.is_zero() {
                self.next_move = now + self.mind.vary(self.tempo.pause);
                break;
            }
        }
    }

    fn hear(&mut self, message: ServerMessage) -> anyhow::Result<()> {
        match message {
            ServerMessage::ReducerResult { request_id, outcome, .. } => self.hear_result(request_id, outcome),
            ServerMessage::TransactionUpdate(update) => self.learn_changes(&update),
            _ => Ok(()),
        }
    }

    fn hear_result(&mut self, request_id: u32, outcome: ReducerOutcome) -> anyhow::Result<()> {
        let call = self.in_flight.pop_front();
        // Replies come in request order (G3).
        let Some(call) = call.filter(|call| call.request_id == request_id) else {
            anyhow::bail!("the reply to request {request_id} came out of order");
        };
        let accepted = match outcome {
            ReducerOutcome::Ok { update, .. } => {
                self.learn_changes(&update)?;
                true
            }
            ReducerOutcome::OkEmpty => true,
            ReducerOutcome::Err(_) => false,
            ReducerOutcome::InternalError(error) => anyhow::bail!("{}: {error}", call.made.call().0),
        };
        self.venue.tally.answered(accepted, call.sent.elapsed());
        if accepted && let Some(line) = call.made.ledger_line(self.credentials.identity) {
            self.record.confirmed.push(line);
        }
        Ok(())
    }

    fn learn_account(&mut self, rows: &QueryRows) -> anyhow::Result<()> {
        for table in &rows.tables {
            match &*table.table {
                "agent" => decode_rows::<Agent>(&table.rows)?.iter().for_each(|row| self.mind.coins = row.coins),
                "holding" => decode_rows::<Holding>(&table.rows)?.iter().for_each(|row| self.mind.hold(row)),
                _ => {}
            }
        }
        Ok(())
    }

    fn learn_changes(&mut self, update: &TransactionUpdate) -> anyhow::Result<()> {
        for table in update.query_sets.iter().flat_map(|set| &set.tables) {
            let TableUpdateRows::Persistent { inserts, deletes } = &table.rows else { continue };
            match &*table.table {
                "agent" => decode_rows::<Agent>(inserts)?.iter().for_each(|row| self.mind.coins = row.coins),
                "holding" => {
                    decode_rows::<Holding>(deletes)?.iter().for_each(|row| self.mind.release(row));
                    decode_rows::<Holding>(inserts)?.iter().for_each(|row| self.mind.hold(row));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether an error says that the server is no longer there, as opposed to a wrong reply.
fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::Closed { .. } | ClientError::Transport(_)))
}

fn wall_micros() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}
