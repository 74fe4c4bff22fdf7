//! The clients of one fork: their query sets, what waits to be delivered to them, and who gets which part of a commit.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;

use tine_query::{Caller, Catalog, QueryError, SubscriptionIndex, SubscriptionPlan};
use tine_tables::{ChangeSet, TableId, TableRead};
use tine_types::protocol::{QuerySetUpdate, ServerMessage, TransactionUpdate};

use crate::cancel::Cancellations;
use crate::client::{ClientInfo, ClientSink, CloseReason, Delivery};
use crate::metrics::Metrics;
use crate::worker::Head;

/// Query sets one connection may hold: far above what applications use, low enough that bookkeeping stays small.
pub(crate) const QUERY_SETS_PER_CLIENT_MAX: usize = 4_096;

/// Queries in one query set.
pub(crate) const QUERIES_PER_SET_MAX: usize = 1_024;

/// A client on one fork; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClientKey(pub u64);

/// A query set of a client. Ordered by client, so that one commit's updates for a client come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Subscriber {
    pub client: ClientKey,
    pub query_set_id: u32,
}

pub(crate) struct Client {
    pub info: Arc<ClientInfo>,
    pub caller: Caller,
    pub sink: Arc<dyn ClientSink>,
    /// Number of its session record in the log.
    pub session: u64,
    /// The queries of each live query set, kept to compile them again after a publish.
    pub query_sets: HashMap<u32, Vec<Box<str>>>,
    outgoing: Vec<Delivery>,
    /// Procedures it waits for.
    pub procedures: Cancellations,
    /// The connect hook ran and did not refuse.
    pub accepted: bool,
}

/// See the module documentation.
pub(crate) struct Clients {
    clients: HashMap<ClientKey, Client>,
    index: SubscriptionIndex<Subscriber>,
    /// Clients whose `outgoing` is not empty.
    dirty: Vec<ClientKey>,
    /// Query sets have ended.
    ended: bool,
}

impl Clients {
    pub fn new() -> Self {
        Clients { clients: HashMap::new(), index: SubscriptionIndex::new(), dirty: Vec::new(), ended: false }
    }

    pub fn add(
        &mut self,
        key: ClientKey,
        info: Arc<ClientInfo>,
        caller: Caller,
        sink: Arc<dyn ClientSink>,
        session: u64,
    ) {
        let client = Client {
            info,
            caller,
            sink,
            session,
            query_sets: HashMap::new(),
            outgoing: Vec::new(),
            procedures: Cancellations::default(),
            accepted: false,
        };
        let previous = self.clients.insert(key, client);
        assert!(previous.is_none(), "client keys are never reused");
    }

    pub fn get(&self, key: ClientKey) -> Option<&Client> {
        self.clients.get(&key)
    }

    pub fn get_mut(&mut self, key: ClientKey) -> Option<&mut Client> {
        self.clients.get_mut(&key)
    }

    /// Forgets a client and its query sets.
    pub fn remove(&mut self, key: ClientKey) -> Option<Client> {
        let mut client = self.clients.remove(&key)?;
        client.procedures.cancel();
        for &query_set_id in client.query_sets.keys() {
            self.index.remove(Subscriber { client: key, query_set_id });
            self.ended = true;
        }
        Some(client)
    }

    pub fn subscribe(&mut self, subscriber: Subscriber, queries: Vec<Box<str>>, plans: Vec<Arc<SubscriptionPlan>>) {
        if let Some(client) = self.clients.get_mut(&subscriber.client) {
            client.query_sets.insert(subscriber.query_set_id, queries);
            self.index.add(subscriber, plans);
        }
    }

    /// Ends a query set and returns its plans; `None` when there is no such set.
    pub fn unsubscribe(&mut self, subscriber: Subscriber) -> Option<Vec<Arc<SubscriptionPlan>>> {
        self.clients.get_mut(&subscriber.client)?.query_sets.remove(&subscriber.query_set_id)?;
        self.ended = true;
        Some(self.index.remove(subscriber))
    }

    /// Queues a message; it goes out with [`Clients::flush`].
    pub fn send(&mut self, key: ClientKey, message: ServerMessage, head: Option<Head>) {
        if let Some(client) = self.clients.get_mut(&key) {
            if client.outgoing.is_empty() {
                self.dirty.push(key);
            }
            client.outgoing.push(Delivery::new(message, head));
        }
    }

    /// Hands every queued message to its connection.
    pub fn flush(&mut self) {
        for key in self.dirty.drain(..) {
            if let Some(client) = self.clients.get_mut(&key) {
                client.sink.deliver(&mut client.outgoing);
                client.outgoing.clear();
            }
        }
    }

    /// Queues a commit's updates for every affected client but `caller`, whose own are returned.
    pub fn announce(
        &mut self,
        changes: &ChangeSet,
        after: &dyn TableRead,
        head: Head,
        caller: Option<ClientKey>,
        metrics: &Metrics,
    ) -> Vec<QuerySetUpdate> {
        if changes.tables.is_empty() || self.index.plan_count() == 0 {
            return Vec::new();
        }
        let mut for_caller = Vec::new();
        let mut for_others: Vec<(ClientKey, Vec<QuerySetUpdate>)> = Vec::new();
        let mut failed: Vec<(Subscriber, QueryError)> = Vec::new();
        self.index.affected(
            changes,
            after,
            &mut |subscriber: Subscriber, tables| {
                let update = QuerySetUpdate { query_set_id: subscriber.query_set_id, tables };
                if Some(subscriber.client) == caller {
                    for_caller.push(update);
                    return;
                }
                match for_others.last_mut() {
                    Some((client, updates)) if *client == subscriber.client => updates.push(update),
                    _ => for_others.push((subscriber.client, vec![update])),
                }
            },
            &mut |subscriber, error| failed.push((subscriber, error)),
        );
        for (subscriber, error) in failed {
            self.fail_subscription(subscriber, &error);
        }
        metrics.updates_delivered.add((for_others.len() + usize::from(!for_caller.is_empty())) as u64);
        for (client, query_sets) in for_others {
            self.send(client, ServerMessage::TransactionUpdate(TransactionUpdate { query_sets }), Some(head));
        }
        for_caller
    }

    fn fail_subscription(&mut self, subscriber: Subscriber, error: &dyn Display) {
        self.unsubscribe(subscriber);
        let message = ServerMessage::SubscriptionError {
            request_id: None,
            query_set_id: subscriber.query_set_id,
            error: error.to_string(),
        };
        self.send(subscriber.client, message, None);
    }

    /// All query sets with their queries.
    pub fn query_sets(&self) -> Vec<(Subscriber, Vec<Box<str>>, Caller)> {
        let sets = self.clients.iter().flat_map(|(&key, client)| {
            client.query_sets.iter().map(move |(&query_set_id, queries)| {
                (Subscriber { client: key, query_set_id }, queries.clone(), client.caller)
            })
        });
        sets.collect()
    }

    /// Gives a query set other plans for the same queries. One without plans ends with the error, and so does one of tables whose rows
    /// have `changed`.
    pub fn replace_plans(
        &mut self,
        subscriber: Subscriber,
        plans: Result<Vec<Arc<SubscriptionPlan>>, String>,
        changed: &HashSet<TableId>,
    ) {
        self.index.remove(subscriber);
        match plans {
            Ok(plans) if plans.iter().flat_map(|plan| plan.tables_read()).any(|table| changed.contains(&table)) => {
                self.fail_subscription(subscriber, &"the columns of a table have changed: subscribe again");
            }
            Ok(plans) => {
                self.index.add(subscriber, plans);
            }
            Err(error) => self.fail_subscription(subscriber, &error),
        }
    }

    /// Whether anybody subscribes to a table.
    pub fn watches(&self, table: TableId) -> bool {
        self.index.watches(table)
    }

    /// Ends every subscription of a table with an error.
    pub fn fail_table(&mut self, table: TableId, error: &dyn Display) {
        for subscriber in self.index.subscribers_of(table) {
            self.fail_subscription(subscriber, error);
        }
    }

    /// Whether query sets have ended since this was asked last.
    pub fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.ended)
    }

    /// The clients that the module has accepted.
    pub fn accepted(&self) -> Vec<Arc<ClientInfo>> {
        self.clients.values().filter(|client| client.accepted).map(|client| client.info.clone()).collect()
    }

    /// Closes every connection, after delivering what is queued. The clients stay known until their connections are gone, so that the
    /// module hears of each.
    pub fn disconnect_all(&mut self, reason: &CloseReason) {
        self.flush();
        self.index = SubscriptionIndex::new();
        self.ended = true;
        for client in self.clients.values_mut() {
            client.query_sets.clear();
            client.sink.close(reason.clone());
        }
    }

    /// Closes every connection, after delivering what is queued.
    pub fn close_all(&mut self, reason: &CloseReason) {
        self.flush();
        for (_, client) in self.clients.drain() {
            client.sink.close(reason.clone());
        }
        self.index = SubscriptionIndex::new();
    }
}

/// Compiles the queries of one set; equal ones are kept once.
pub(crate) fn compile_queries(
    queries: &[Box<str>],
    catalog: Catalog<'_>,
    caller: &Caller,
) -> Result<Vec<Arc<SubscriptionPlan>>, QueryError> {
    let mut plans: Vec<Arc<SubscriptionPlan>> = Vec::with_capacity(queries.len());
    for query in queries {
        for plan in tine_query::compile_subscription_set(query, catalog, caller)? {
            if !plans.iter().any(|known| known.key() == plan.key()) {
                plans.push(plan);
            }
        }
    }
    Ok(plans)
}
