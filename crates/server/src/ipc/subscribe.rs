//! Subscriptions of local programs: a connection to the fork whose messages become items of a stream.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tine_host::{ClientInfo, ClientSink, CloseReason, Connection, Delivery, ForkHandle, Requester};
use tine_ipc::StreamError;
use tine_ipc::typed::StreamResponder;
use tine_local::{TableChange, TineSubscribeResponse};
use tine_types::bsatn::Reader;
use tine_types::json::bsatn_to_json;
use tine_types::protocol::{
    ClientMessage, QueryRows, RowList, ServerMessage, TableUpdate, TableUpdateRows, TransactionUpdate,
};
use tine_types::{AlgebraicType, ConnectionId};

/// Items that wait for a program to take them; beyond it is too slow.
const ITEMS_WAITING_MAX: usize = 16_384;

/// Bytes of rows that wait for it.
const BYTES_WAITING_MAX: usize = 64 << 20;

/// See the module documentation.
pub(super) struct Subscription {
    /// `None` when it is over.
    out: Mutex<Option<Out>>,
    /// Dropping it disconnects.
    connection: Mutex<Option<Connection>>,
}

struct Out {
    stream: StreamResponder<TineSubscribeResponse>,
    waiting: VecDeque<(TineSubscribeResponse, usize)>,
    waiting_bytes: usize,
    fork: ForkHandle,
    json: bool,
}

/// The host's end. Set once, before the host knows it.
#[derive(Default)]
struct Sink(OnceLock<Arc<Subscription>>);

impl Subscription {
    /// Subscribes; what is wrong with the queries ends the stream.
    pub fn start(
        fork: &ForkHandle,
        requester: Requester,
        connection_id: ConnectionId,
        queries: Vec<String>,
        json: bool,
        stream: StreamResponder<TineSubscribeResponse>,
    ) -> Arc<Subscription> {
        let subscription = Arc::new_cyclic(|this: &Weak<Subscription>| {
            // May be called at once, also from here, when there is nothing to send yet.
            let this = this.clone();
            stream.on_ready(move || {
                if let Some(subscription) = this.upgrade() {
                    subscription.flush();
                }
            });
            let out = Out { stream, waiting: VecDeque::new(), waiting_bytes: 0, fork: fork.clone(), json };
            Subscription { out: Mutex::new(Some(out)), connection: Mutex::new(None) }
        });
        let sink = Arc::new(Sink::default());
        assert!(sink.0.set(subscription.clone()).is_ok(), "set once");
        let info = ClientInfo {
            identity: requester.identity,
            connection_id,
            token: "".into(),
            jwt_payload: requester.jwt_payload,
            confirmed: Some(false),
        };
        let queries = queries.into_iter().map(String::into_boxed_str).collect();
        let begun = fork.connect(info, sink).and_then(|mut connection| {
            let subscribe = ClientMessage::Subscribe { request_id: 0, query_set_id: 0, queries };
            connection.submit(&mut vec![subscribe])?;
            Ok(connection)
        });
        match begun {
            Ok(connection) => *subscription.connection.lock() = Some(connection),
            Err(error) => subscription.fail(&format!("{}: {error}", error.code())),
        }
        if subscription.is_over() {
            subscription.end();
        }
        subscription
    }

    pub fn is_over(&self) -> bool {
        self.out.lock().is_none()
    }

    /// Ends it from the program's side.
    pub fn end(&self) {
        let out = self.out.lock().take();
        let connection = self.connection.lock().take();
        drop((out, connection));
    }

    fn fail(&self, message: &str) {
        if let Some(out) = self.out.lock().take() {
            out.stream.err(message);
        }
    }

    /// Sends what waits, as far as the program has room.
    fn flush(&self) {
        let mut guard = self.out.lock();
        let Some(out) = guard.as_mut() else { return };
        if out.stream.is_cancelled() {
            drop(guard);
            return self.end();
        }
        while let Some((item, bytes)) = out.waiting.front() {
            match out.stream.send(item) {
                Ok(()) => {
                    out.waiting_bytes -= bytes;
                    out.waiting.pop_front();
                }
                Err(StreamError::NoCredit) => return,
                Err(_) => {
                    drop(guard);
                    return self.end();
                }
            }
        }
    }

    fn push(&self, item: TineSubscribeResponse, bytes: usize) {
        let is_too_slow = {
            let mut guard = self.out.lock();
            let Some(out) = guard.as_mut() else { return };
            out.waiting_bytes += bytes;
            out.waiting.push_back((item, bytes));
            out.waiting.len() > ITEMS_WAITING_MAX || out.waiting_bytes > BYTES_WAITING_MAX
        };
        self.flush();
        if is_too_slow {
            self.fail("TN0607: the program takes its rows too slowly");
        }
    }

    fn take(&self, Delivery { message, lsn, .. }: Delivery) {
        let (fork, json) = match &*self.out.lock() {
            Some(out) => (out.fork.clone(), out.json),
            None => return,
        };
        let lsn = || lsn.expect("rows are those of a commit").get();
        let made = match message {
            ServerMessage::SubscribeApplied { rows, .. } => initial(&fork, lsn(), json, &rows),
            ServerMessage::TransactionUpdate(update) => changes(&fork, lsn(), json, &update),
            ServerMessage::SubscriptionError { error, .. } => Err(error),
            _ => return,
        };
        match made {
            Ok((item, bytes)) => self.push(item, bytes),
            Err(error) => self.fail(&error),
        }
    }
}

impl ClientSink for Sink {
    fn deliver(&self, messages: &mut Vec<Delivery>) {
        let subscription = self.0.get().expect("set before the host knows the sink");
        messages.drain(..).for_each(|delivery| subscription.take(delivery));
    }

    fn close(&self, reason: CloseReason) {
        let text = match reason {
            CloseReason::ModuleExited(text) => format!("TN0606: {text}"),
            CloseReason::Refused(text) => format!("TN0622: {text}"),
            CloseReason::NotDurable => "TN0730: the store cannot confirm commits any more".to_owned(),
        };
        self.0.get().expect("set before the host knows the sink").fail(&text);
    }
}

type Item = Result<(TineSubscribeResponse, usize), String>;

fn initial(fork: &ForkHandle, lsn: u64, json: bool, rows: &QueryRows) -> Item {
    let (mut tables, mut bytes) = (Vec::new(), 0);
    for table in &rows.tables {
        let inserts = row_bytes(fork, json, &table.table, &table.rows)?;
        bytes += inserts.iter().map(Vec::len).sum::<usize>();
        tables.push(TableChange { table: table.table.to_string(), inserts, deletes: Vec::new() });
    }
    Ok((TineSubscribeResponse { lsn, initial: true, tables }, bytes))
}

fn changes(fork: &ForkHandle, lsn: u64, json: bool, update: &TransactionUpdate) -> Item {
    let (mut tables, mut bytes) = (Vec::new(), 0);
    for update in update.query_sets.iter().flat_map(|set| &set.tables) {
        let TableUpdate { table, rows, .. } = &**update;
        let (inserts, deletes) = match rows {
            TableUpdateRows::Persistent { inserts, deletes } => {
                (row_bytes(fork, json, table, inserts)?, row_bytes(fork, json, table, deletes)?)
            }
            TableUpdateRows::Event { events } => (row_bytes(fork, json, table, events)?, Vec::new()),
        };
        bytes += inserts.iter().chain(&deletes).map(Vec::len).sum::<usize>();
        tables.push(TableChange { table: table.to_string(), inserts, deletes });
    }
    Ok((TineSubscribeResponse { lsn, initial: false, tables }, bytes))
}

fn row_bytes(fork: &ForkHandle, json: bool, table: &str, rows: &RowList) -> Result<Vec<Vec<u8>>, String> {
    if !json {
        return Ok(rows.rows().map(<[u8]>::to_vec).collect());
    }
    let module = fork.module();
    let Some(table) = module.schema().table_named(table) else {
        return Err(format!("TN0621: the rows of `{table}` can only be had as BSATN"));
    };
    let ty = AlgebraicType::Product(table.row_type.clone());
    let text = |row: &[u8]| bsatn_to_json(&ty, &mut Reader::new(row)).map(|value| value.to_string().into_bytes());
    rows.rows().map(text).collect::<Result<_, _>>().map_err(|error| format!("TN0615: {error}"))
}
