//! A checker of ordering guarantees over random concurrent runs on real sockets.
//!
//! Every write inserts one row with an id of its own and the number of rows that were there before: its *position*. Writes run one
//! at a time (G2) exactly when the positions of a fork are 0, 1, 2 and so on. A version is then the number of rows in it, and
//! everything a connection sends and receives can be placed against the positions. The checks take time linear in what was recorded.

pub mod check;
pub mod checkpoints;
pub mod local;
pub mod random;
pub mod run;

use std::fmt;

/// What a connection sent, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Inserts a row.
    Write(u64),
    /// Inserts a row and fails.
    Failing(u64),
    /// Inserts this row and the one after it, in two transactions of a procedure.
    WriteTwice(u64),
    /// Reads everything, in order.
    Query,
    /// Reads everything in the newest version, past what waits.
    CommittedRead,
    /// Subscribes to everything.
    Subscribe,
    /// Ends its subscription.
    Unsubscribe,
}

/// One row of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which write inserted it.
    pub id: u64,
    /// Rows there were before it.
    pub before: u64,
}

/// What a connection received, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The reply to the request of this number; rows of the subscription that came with it.
    Replied {
        /// Position of the request among those sent.
        request: usize,
        /// Whether it succeeded.
        ok: bool,
        /// Rows that the reply shows: of a query, a subscription's first ones, or a commit's.
        rows: Vec<Row>,
    },
    /// A commit of somebody else.
    Update(Vec<Row>),
}

/// One connection's part of a run.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// What it sent.
    pub sent: Vec<Request>,
    /// What it received.
    pub received: Vec<Event>,
    /// The LSNs that its replies carried, by request, where they carry one.
    pub lsns: Vec<(usize, u64)>,
    /// It was cut off on purpose, with replies pending.
    pub dropped: bool,
}

/// A call over HTTP: its write, whether it succeeded, and the commit it was told.
#[derive(Clone, Copy, Debug)]
pub struct HttpWrite {
    /// The row's id.
    pub id: u64,
    /// The `tine-lsn` of the reply.
    pub lsn: u64,
}

/// Everything recorded about one fork.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Its connections.
    pub connections: Vec<Connection>,
    /// Its HTTP callers' writes, each caller's in order.
    pub http: Vec<Vec<HttpWrite>>,
    /// All rows at the end.
    pub rows: Vec<Row>,
}

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The guarantee that does not hold, as in `DESIGN`: "G1" and so on.
    pub guarantee: &'static str,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.guarantee, self.text)
    }
}
