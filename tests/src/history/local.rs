//! Local programs in a run: pipelined calls and reads over a socket or shared memory.

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{MaybeDone, maybe_done};
use tine_ipc::typed::ServiceError;
use tine_local::{TineCallReducer, TineClient, TineOpenFork, TineQuery, TineScan};
use tine_types::bsatn::Reader;
use tokio::time::Instant;

use super::random::Random;
use super::run::{Place, blocking};
use super::{Connection, Event, Request, Row};

/// Rounds in which a connection sends something.
const ROUNDS: u64 = 4;
/// Most requests of a round.
const ROUND_REQUESTS: u64 = 6;
/// How long connecting and opening may take.
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// Rows and LSN of a reply.
pub type Answer = Result<(Vec<Row>, u64), ServiceError>;
type Call = MaybeDone<Pin<Box<dyn Future<Output = Answer> + Send>>>;

/// A connection with requests under way. It asks for replies in the order of its requests, so that one taken first came first.
pub struct Caller {
    /// The client.
    pub client: Arc<TineClient>,
    /// The fork it works on.
    pub fork: u32,
    pending: VecDeque<(usize, Call)>,
}

impl Caller {
    /// Connects, and opens a fork.
    ///
    /// # Panics
    /// When either is refused.
    pub async fn open(path: PathBuf, address: String) -> Caller {
        let (client, fork) = blocking(move || {
            let client = TineClient::connect(&path).expect("connected");
            let fork = client.open_fork_within(&TineOpenFork { address }, OPEN_LIMIT).expect("opened").fork;
            (client, fork)
        })
        .await;
        Caller { client: Arc::new(client), fork, pending: VecDeque::new() }
    }

    /// Sends a request; its answer is taken later.
    pub async fn send(&mut self, number: usize, call: impl Future<Output = Answer> + Send + 'static) {
        let boxed: Pin<Box<dyn Future<Output = Answer> + Send>> = Box::pin(call);
        let mut call = maybe_done(boxed);
        // The first poll sends it. Whether it is done already is seen when it is taken.
        let _ = futures_util::poll!(&mut call);
        self.pending.push_back((number, call));
    }

    /// The next answer in the order of sending; none when nothing is under way, or the deadline has passed.
    pub async fn take(&mut self, deadline: Instant) -> Option<(usize, Answer)> {
        let (number, call) = self.pending.front_mut()?;
        let number = *number;
        tokio::time::timeout_at(deadline, &mut *call).await.ok()?;
        let answer = Pin::new(call).take_output().expect("it has ended, and nobody took it");
        self.pending.pop_front();
        Some((number, answer))
    }

    /// Calls a reducer with an id.
    pub fn call(&self, reducer: &str, id: u64) -> impl Future<Output = Answer> + Send + 'static {
        let (client, fork) = (self.client.clone(), self.fork);
        let request =
            TineCallReducer { fork, reducer: reducer.to_owned(), input: id.to_le_bytes().to_vec(), json: false };
        async move { Ok((Vec::new(), client.call_reducer(&request).await?.lsn)) }
    }

    /// Reads the journal by scanning it.
    pub fn scan(&self, committed: bool) -> impl Future<Output = Answer> + Send + 'static {
        let (client, fork) = (self.client.clone(), self.fork);
        let request = TineScan {
            fork,
            table: "journal".to_owned(),
            index: None,
            prefix: Vec::new(),
            lower: None,
            lower_excluded: false,
            upper: None,
            upper_excluded: false,
            limit: 100_000,
            json: false,
            committed,
        };
        async move {
            let answer = client.scan(&request).await?;
            Ok((decode(&answer.rows), answer.lsn))
        }
    }

    /// Reads the journal by SQL.
    pub fn query(&self) -> impl Future<Output = Answer> + Send + 'static {
        let (client, fork) = (self.client.clone(), self.fork);
        let request = TineQuery { fork, sql: "SELECT * FROM journal".to_owned(), at: None, json: false };
        async move {
            let answer = client.query(&request).await?;
            Ok((decode(&answer.rows), answer.lsn))
        }
    }
}

/// Rows of the journal.
///
/// # Panics
/// When they are none.
pub fn decode(rows: &[Vec<u8>]) -> Vec<Row> {
    let row = |bytes: &Vec<u8>| {
        let mut reader = Reader::new(bytes);
        Row { id: reader.u64().expect("an id"), before: reader.u64().expect("a count") }
    };
    rows.iter().map(row).collect()
}

/// The reducer of a write that fails: some fail in order, some break the instance.
pub fn failing_reducer(id: u64) -> &'static str {
    if id % 8 < 2 { "trap" } else { "refuse" }
}

/// One connection's part of a run.
pub async fn connection(place: Place, path: PathBuf, address: String, mut random: Random, first_id: u64) -> Connection {
    let mut caller = Caller::open(path, address).await;
    let mut log = Connection { dropped: random.below(4) == 0, ..Connection::default() };
    let deadline = Instant::now() + place.patience;
    let mut next_id = first_id;
    for round in 0..ROUNDS {
        for _ in 0..=random.below(ROUND_REQUESTS) {
            next_id += 2;
            let (number, id) = (log.sent.len(), next_id);
            match random.below(16) {
                0..8 => {
                    log.sent.push(Request::Write(id));
                    caller.send(number, caller.call("write", id)).await;
                }
                8 => {
                    log.sent.push(Request::Failing(id));
                    caller.send(number, caller.call(failing_reducer(id), id)).await;
                }
                9 | 10 => {
                    log.sent.push(Request::Query);
                    caller.send(number, caller.query()).await;
                }
                11 | 12 => {
                    log.sent.push(Request::Query);
                    caller.send(number, caller.scan(false)).await;
                }
                _ => {
                    log.sent.push(Request::CommittedRead);
                    caller.send(number, caller.scan(true)).await;
                }
            }
        }
        if log.dropped && round + 1 == ROUNDS {
            return log;
        }
        if random.below(2) == 0 {
            receive(&mut caller, &mut log, deadline).await;
        }
    }
    // Nothing is under way any more at the second read: it is answered past the lane.
    receive(&mut caller, &mut log, deadline).await;
    log.sent.push(Request::CommittedRead);
    caller.send(log.sent.len() - 1, caller.scan(true)).await;
    receive(&mut caller, &mut log, deadline).await;
    log
}

/// Takes all replies; the checker finds what is missing.
async fn receive(caller: &mut Caller, log: &mut Connection, deadline: Instant) {
    while let Some((request, answer)) = caller.take(deadline).await {
        let (ok, rows) = match answer {
            Ok((rows, lsn)) => {
                log.lsns.push((request, lsn));
                (true, rows)
            }
            Err(ServiceError::Service { .. }) => (false, Vec::new()),
            // No reply at all.
            Err(_) => continue,
        };
        log.received.push(Event::Replied { request, ok, rows });
    }
}
