//! Random runs: several connections on a fork and on a fork made from it meanwhile, callers over HTTP, and cut connections.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tine_client::{
    ClientError, ConnectOptions, Connection as Socket,
    http::HttpClient,
    protocol::{ClientMessage, QueryRows, ReducerOutcome, RowList, ServerMessage, TableUpdateRows, TransactionUpdate},
};
use tine_types::bsatn::{BsatnWrite, Reader};

use super::random::Random;
use super::{Connection, Event, History, HttpWrite, Request, Row, Violation, check::check, checkpoints, local};

/// The one query set of a connection.
const QUERY_SET: u32 = 1;
const QUERY: &str = "SELECT * FROM journal";
/// Rounds in which a connection sends something.
const ROUNDS: u64 = 4;
/// Most requests of a connection in one frame.
const FRAME_REQUESTS: u64 = 6;
/// WebSocket connections per fork.
pub const CONNECTIONS: u64 = 3;
/// Writes of an HTTP caller.
const HTTP_WRITES: u64 = 3;

/// Where runs are made.
#[derive(Clone, Debug)]
pub struct Place {
    /// Address of the server.
    pub url: String,
    /// A database with the journal module, and its owner's token.
    pub database: String,
    /// The owner's token.
    pub token: String,
    /// How long replies may take: one that takes longer counts as never given.
    pub patience: Duration,
    /// WebSocket connections per fork.
    pub sockets: u64,
    /// Where the server serves local programs: one connection per fork to each; none leaves them out, and checkpoints with them.
    pub local: Vec<PathBuf>,
}

/// Makes one run and checks it. The same seed sends the same requests; how they meet is up to the machine.
///
/// # Errors
/// What is wrong with what was seen.
///
/// # Panics
/// When the server cannot be reached or refuses what it should do.
pub async fn run(place: &Place, seed: u64) -> Result<(), Violation> {
    let parent = format!("h{seed:x}");
    let child = format!("{parent}c");
    let client = HttpClient::new(&place.url).expect("a good address").with_token(&place.token);
    let database = place.database.clone();
    let (names, base_client) = ((parent.clone(), child.clone()), client.clone());
    blocking(move || base_client.create_fork(&database, &names.0, true).expect("a fork")).await;

    let parent_address = format!("{}@{parent}", place.database);
    let child_address = format!("{}@{child}", place.database);
    let parent_side = tokio::spawn(side(place.clone(), parent_address.clone(), seed, 0));
    let (maker, address, name) = (client.clone(), parent_address.clone(), child.clone());
    blocking(move || maker.create_fork(&address, &name, true).expect("a fork of a busy fork")).await;
    let base = all_rows(place, &child_address).await;
    let child_side = side(place.clone(), child_address.clone(), seed, 1 << 40);
    let (child_side, checkpoints) = tokio::join!(child_side, checkpoints::run(place, &parent_address, seed));
    let parent_side = parent_side.await.expect("the run does not panic");

    let result = checkpoints.and_then(|()| check(&parent_side, &[])).and_then(|()| {
        check(&child_side, &base)?;
        let in_parent: HashMap<u64, u64> = parent_side.rows.iter().map(|row| (row.id, row.before)).collect();
        match base.iter().find(|row| in_parent.get(&row.id) != Some(&row.before)) {
            Some(row) => Err(Violation { guarantee: "G8", text: format!("{row:?} of the fork is not its parent's") }),
            None => Ok(()),
        }
    });
    let database = place.database.clone();
    blocking(move || {
        for name in [child, parent] {
            client.delete_fork(&database, &name).expect("deleted");
        }
    })
    .await;
    result
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic")
}

/// Everything that happens to one fork. Ids of rows start at `first_id`.
async fn side(place: Place, address: String, seed: u64, first_id: u64) -> History {
    let callers = (0..place.sockets).map(|number| {
        let random = Random(seed.wrapping_mul(31).wrapping_add(first_id + number));
        tokio::spawn(connection(place.clone(), address.clone(), random, first_id + (number << 20)))
    });
    let locals = place.local.iter().zip(place.sockets + 1..).map(|(path, number)| {
        let random = Random(seed.wrapping_mul(31).wrapping_add(first_id + number));
        tokio::spawn(local::connection(place.clone(), path.clone(), address.clone(), random, first_id + (number << 20)))
    });
    let callers: Vec<_> = callers.chain(locals).collect();
    let (http_place, http_address) = (place.clone(), address.clone());
    let http = blocking(move || http_writes(&http_place, &http_address, first_id + (place.sockets << 20))).await;
    let mut history = History { http: vec![http], ..History::default() };
    for caller in callers {
        history.connections.push(caller.await.expect("the connection does not panic"));
    }
    history.rows = settled_rows(&place, &address).await;
    history
}

fn options(place: &Place, address: &str) -> ConnectOptions {
    ConnectOptions::new(&place.url, address).with_token(&place.token).with_confirmed(false)
}

async fn all_rows(place: &Place, address: &str) -> Vec<Row> {
    let mut socket = Socket::connect(options(place, address)).await.expect("connected");
    rows_of(&socket.one_off_query(QUERY).await.expect("a query"))
}

/// All rows, once those that cut connections left behind have run: their procedures may take a moment.
async fn settled_rows(place: &Place, address: &str) -> Vec<Row> {
    let mut rows = all_rows(place, address).await;
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let again = all_rows(place, address).await;
        if again.len() == rows.len() {
            return again;
        }
        rows = again;
    }
}

fn http_writes(place: &Place, address: &str, first_id: u64) -> Vec<HttpWrite> {
    let url = format!("{}/v1/database/{address}/call/write?confirmed=false", place.url);
    (0..HTTP_WRITES)
        .map(|number| {
            let id = first_id + number;
            let authorization = format!("Bearer {}", place.token);
            let request = ureq::post(&url).header("authorization", authorization);
            let reply = request.header("content-type", "application/json").send(format!("[{id}]")).expect("a reply");
            let lsn = reply.headers().get("tine-lsn").expect("replies carry the LSN");
            HttpWrite { id, lsn: lsn.to_str().expect("text").parse().expect("a number") }
        })
        .collect()
}

async fn connection(place: Place, address: String, mut random: Random, first_id: u64) -> Connection {
    let mut socket = Socket::connect(options(&place, &address)).await.expect("connected");
    let mut log = Connection { dropped: random.below(4) == 0, ..Connection::default() };
    let (mut next_id, mut is_subscribed) = (first_id, false);
    let deadline = Instant::now() + place.patience;
    for round in 0..ROUNDS {
        let mut frame = Vec::new();
        for _ in 0..=random.below(FRAME_REQUESTS) {
            let request = pick(&mut random, &mut next_id, &mut is_subscribed);
            frame.push(message(request, log.sent.len() as u32));
            log.sent.push(request);
        }
        // The server may already have closed: then the replies are missing.
        if socket.send(&frame).await.is_err() || log.dropped && round + 1 == ROUNDS {
            return log;
        }
        if random.below(2) == 0 {
            receive(&mut socket, &mut log, deadline).await;
        }
    }
    // A last read shows whether the subscription has everything.
    log.sent.push(Request::Query);
    if socket.send(&[message(Request::Query, log.sent.len() as u32 - 1)]).await.is_ok() {
        receive(&mut socket, &mut log, deadline).await;
    }
    log
}

fn pick(random: &mut Random, next_id: &mut u64, is_subscribed: &mut bool) -> Request {
    let id = *next_id;
    *next_id += 2;
    match random.below(16) {
        0..8 => Request::Write(id),
        8 => Request::Failing(id),
        9 => Request::WriteTwice(id),
        10 | 11 => {
            *is_subscribed = !*is_subscribed;
            if *is_subscribed { Request::Subscribe } else { Request::Unsubscribe }
        }
        _ => Request::Query,
    }
}

fn message(request: Request, request_id: u32) -> ClientMessage {
    let argument = |id: u64| {
        let mut bytes = Vec::with_capacity(8);
        bytes.put_u64(id);
        Bytes::from(bytes)
    };
    match request {
        Request::Write(id) => ClientMessage::CallReducer { request_id, reducer: "write".into(), args: argument(id) },
        Request::Failing(id) => {
            // Some fail in order, some break the instance.
            let reducer = if id % 8 < 2 { "trap" } else { "refuse" };
            ClientMessage::CallReducer { request_id, reducer: reducer.into(), args: argument(id) }
        }
        Request::WriteTwice(id) => {
            ClientMessage::CallProcedure { request_id, procedure: "writeTwice".into(), args: argument(id) }
        }
        Request::Query | Request::CommittedRead => ClientMessage::OneOffQuery { request_id, query: QUERY.into() },
        Request::Subscribe => {
            ClientMessage::Subscribe { request_id, query_set_id: QUERY_SET, queries: vec![QUERY.into()] }
        }
        Request::Unsubscribe => {
            ClientMessage::Unsubscribe { request_id, query_set_id: QUERY_SET, send_dropped_rows: false }
        }
    }
}

/// Takes messages until every request is answered or the deadline has passed; the checker finds what is missing.
async fn receive(socket: &mut Socket, log: &mut Connection, deadline: Instant) {
    let replies = |log: &Connection| log.received.iter().filter(|event| matches!(event, Event::Replied { .. })).count();
    while replies(log) < log.sent.len() {
        match socket.recv_until(deadline).await {
            Ok(message) => log.received.push(event(message)),
            Err(ClientError::Deadline { .. } | ClientError::Closed { .. }) => return,
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn event(message: ServerMessage) -> Event {
    let replied = |request_id: u32, ok, rows| Event::Replied { request: request_id as usize, ok, rows };
    match message {
        ServerMessage::ReducerResult { request_id, outcome, .. } => match outcome {
            ReducerOutcome::Ok { update, .. } => replied(request_id, true, inserted(&update)),
            ReducerOutcome::OkEmpty => replied(request_id, true, Vec::new()),
            ReducerOutcome::Err(_) | ReducerOutcome::InternalError(_) => replied(request_id, false, Vec::new()),
        },
        ServerMessage::ProcedureResult { request_id, status, .. } => {
            let ok = matches!(status, tine_client::protocol::ProcedureStatus::Returned(_));
            replied(request_id, ok, Vec::new())
        }
        ServerMessage::OneOffQueryResult { request_id, result } => match result {
            Ok(rows) => replied(request_id, true, rows_of(&rows)),
            Err(error) => panic!("the query is sound, but: {error}"),
        },
        ServerMessage::SubscribeApplied { request_id, rows, .. } => replied(request_id, true, rows_of(&rows)),
        ServerMessage::UnsubscribeApplied { request_id, .. } => replied(request_id, true, Vec::new()),
        ServerMessage::SubscriptionError { request_id: Some(request_id), .. } => replied(request_id, false, Vec::new()),
        ServerMessage::TransactionUpdate(update) => Event::Update(inserted(&update)),
        other => panic!("not expected: {other:?}"),
    }
}

fn decode(rows: &RowList) -> impl Iterator<Item = Row> {
    rows.rows().map(|row| {
        let mut reader = Reader::new(row);
        let (id, before) = (reader.u64().expect("an id"), reader.u64().expect("a count"));
        Row { id, before }
    })
}

fn rows_of(rows: &QueryRows) -> Vec<Row> {
    rows.tables.iter().flat_map(|table| decode(&table.rows)).collect()
}

fn inserted(update: &TransactionUpdate) -> Vec<Row> {
    let tables = update.query_sets.iter().flat_map(|set| &set.tables);
    let mut rows = Vec::new();
    for table in tables {
        if let TableUpdateRows::Persistent { inserts, .. } = &table.rows {
            rows.extend(decode(inserts));
        }
    }
    rows
}
