//! Ordered reads: subscribe, unsubscribe, one-off queries and SELECT. (Statements that change rows are in [`crate::statements`].)
//!
//! A read is answered in two steps. *Evaluating* looks at one version and at nothing else, so neighbouring reads may do it on several
//! threads at once. *Concluding* runs on the worker, in the order of the requests: it enters subscriptions and queues replies. No
//! write runs between the two, so a subscription's rows are those of the version it is entered at (G5).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tine_query::{Caller, Catalog, Modified, QueryError, SelectLimits, Setting, SubscriptionPlan};
use tine_tables::{TableRead, TableSchema, TableSnapshot};
use tine_types::Identity;
use tine_types::protocol::{ClientMessage, QueryRows, ServerMessage};

use crate::client::{ClientInfo, ReplyTo, SqlRows};
use crate::clients::{ClientKey, QUERIES_PER_SET_MAX, QUERY_SETS_PER_CLIENT_MAX, Subscriber, compile_queries};
use crate::jobs::{Job, Share};
use crate::local::{self, LocalReply};
use crate::meta::Meta;
use crate::module::ActiveModule;
use crate::statements;
use crate::system::{self, SystemTables};
use crate::views::ViewTables;
use crate::worker::ForkWorker;
use crate::{CallFailure, HostError};

/// One version with the module that runs on it.
pub(crate) struct View {
    pub tables: TableSnapshot,
    pub module: Arc<ActiveModule>,
    pub owner: Identity,
    pub database: Identity,
    pub limits: SelectLimits,
}

/// What evaluating reads from: a [`View`], or the worker itself when a read runs alone.
struct Source<'a> {
    tables: &'a dyn TableRead,
    module: &'a ActiveModule,
    owner: Identity,
    database: Identity,
    limits: SelectLimits,
    /// Who is connected, which only the worker knows.
    clients: Option<Vec<Arc<ClientInfo>>>,
    /// The views that the statement names; `tables` knows their rows.
    views: &'a [Arc<TableSchema>],
}

/// A read that was evaluated.
pub(crate) enum Answer {
    Subscribe {
        key: ClientKey,
        request_id: u32,
        query_set_id: u32,
        found: Result<Found, String>,
        _share: Share,
    },
    Query {
        key: ClientKey,
        request_id: u32,
        result: Result<QueryRows, String>,
        _share: Share,
    },
    Select {
        result: Result<SqlRows, CallFailure>,
        duration: Duration,
        reply: ReplyTo<SqlRows>,
    },
    Local {
        result: Result<LocalReply, CallFailure>,
        duration: Duration,
        reply: ReplyTo<LocalReply>,
    },
    /// Needs the worker.
    Later(Job),
}

/// What a subscription is entered with.
pub(crate) struct Found {
    queries: Vec<Box<str>>,
    plans: Vec<Arc<SubscriptionPlan>>,
    rows: QueryRows,
}

impl View {
    /// Answers a SELECT.
    pub fn select(&self, text: &str, caller: &Caller) -> Result<SqlRows, CallFailure> {
        self.source().select(text, caller)
    }

    fn source(&self) -> Source<'_> {
        Source {
            tables: &self.tables,
            module: &self.module,
            owner: self.owner,
            database: self.database,
            limits: self.limits,
            clients: None,
            views: &[],
        }
    }

    pub fn evaluate(&self, job: Job) -> Answer {
        self.source().evaluate(job)
    }
}

impl Source<'_> {
    fn evaluate(&self, job: Job) -> Answer {
        match job {
            Job::Query { message: ClientMessage::OneOffQuery { ref query, .. }, .. }
                if self.waits_for_worker(query) =>
            {
                Answer::Later(job)
            }
            Job::Query { message: ClientMessage::Subscribe { ref queries, .. }, .. }
                if queries.iter().any(|query| self.module.names_view(query)) =>
            {
                Answer::Later(job)
            }
            Job::Sql { ref text, .. } if self.waits_for_worker(text) => Answer::Later(job),
            Job::Query { key, caller, message, share } => match message {
                ClientMessage::Subscribe { request_id, query_set_id, queries } => {
                    let found = self.subscribe(queries, &caller);
                    Answer::Subscribe { key, request_id, query_set_id, found, _share: share }
                }
                ClientMessage::OneOffQuery { request_id, query } => {
                    let result = self.one_off(&query, &caller).map_err(|error| error.to_string());
                    Answer::Query { key, request_id, result, _share: share }
                }
                message => Answer::Later(Job::Query { key, caller, message, share }),
            },
            // A module with hooks may have been published after the request was queued: its hooks write.
            Job::Sql { requester, text, reply, alone: false, .. } if !self.module.has_hooks() => {
                let started = Instant::now();
                let caller = Caller { identity: requester.identity, is_owner: requester.identity == self.owner };
                let result = self.select(&text, &caller);
                Answer::Select { result, duration: started.elapsed(), reply }
            }
            Job::LocalRead { form, read, reply } => {
                let started = Instant::now();
                let result = local::read(self.tables, form, &read);
                Answer::Local { result, duration: started.elapsed(), reply }
            }
            job => Answer::Later(job),
        }
    }

    fn subscribe(&self, queries: Vec<Box<str>>, caller: &Caller) -> Result<Found, String> {
        if let Some(query) = queries.iter().find(|query| system::names_one(query)) {
            return Err(format!("system tables cannot be subscribed to, only queried: {query}"));
        }
        if queries.len() > QUERIES_PER_SET_MAX {
            return Err(format!("a query set may hold at most {QUERIES_PER_SET_MAX} queries"));
        }
        let catalog = Catalog { extra: self.views, ..self.module.catalog() };
        let plans = compile_queries(&queries, catalog, caller).map_err(|error| error.to_string())?;
        let rows = evaluate_plans(&plans, self.tables)?;
        self.check_row_limit(&rows, caller).map_err(|error| error.to_string())?;
        Ok(Found { queries, plans, rows })
    }

    fn one_off(&self, text: &str, caller: &Caller) -> Result<QueryRows, QueryError> {
        let rows = match system::may_be_named(text) {
            true => {
                let system = self.system_tables(caller);
                let extra = self.with_system();
                tine_query::one_off(text, Catalog { extra: &extra, ..self.module.catalog() }, caller, &system)?
            }
            false => {
                let catalog = Catalog { extra: self.views, ..self.module.catalog() };
                tine_query::one_off(text, catalog, caller, self.tables)?
            }
        };
        self.check_row_limit(&rows, caller)?;
        Ok(rows)
    }

    fn select(&self, text: &str, caller: &Caller) -> Result<SqlRows, CallFailure> {
        if Setting::parse(text).map_err(HostError::Query)? == Some(Setting::ShowRowLimit) {
            return Ok(statements::show_row_limit(Meta::read_row_limit(self.tables.store())?));
        }
        let mut limits = self.limits;
        if let Some(limit) = self.row_limit(caller) {
            limits.scanned_max = limits.scanned_max.min(limit);
        }
        let selected = match system::may_be_named(text) {
            true => {
                let system = self.system_tables(caller);
                let extra = self.with_system();
                tine_query::select(text, Catalog { extra: &extra, ..self.module.catalog() }, caller, &system, limits)
            }
            false => {
                let catalog = Catalog { extra: self.views, ..self.module.catalog() };
                tine_query::select(text, catalog, caller, self.tables, limits)
            }
        };
        let selected = selected.map_err(HostError::Query)?;
        Ok(SqlRows { columns: selected.columns, rows: selected.rows, modified: Modified::default() })
    }

    fn system_tables<'s>(&'s self, caller: &'s Caller) -> SystemTables<'s> {
        SystemTables {
            tables: self.tables,
            module: self.module,
            database: self.database,
            owner: self.owner,
            caller,
            clients: self.clients.as_deref().unwrap_or_default(),
        }
    }

    /// The system tables, and the views that the statement names.
    fn with_system(&self) -> Vec<Arc<TableSchema>> {
        system::schemas().iter().chain(self.views).cloned().collect()
    }

    /// Whether the text asks for what only the worker knows, and this is not the worker.
    fn waits_for_worker(&self, text: &str) -> bool {
        self.clients.is_none() && (system::needs_clients(text) || self.module.names_view(text))
    }

    /// The `row_limit` that the owner has set for others.
    fn row_limit(&self, caller: &Caller) -> Option<u64> {
        if caller.is_owner {
            return None;
        }
        // A version whose settings cannot be read is not readable at all: the query itself fails.
        Meta::read_row_limit(self.tables.store()).ok().flatten()
    }

    /// Holds whole rows of a table, whose way to them is not counted, to the limit.
    fn check_row_limit(&self, rows: &QueryRows, caller: &Caller) -> Result<(), QueryError> {
        let found: usize = rows.tables.iter().map(|table| table.rows.len()).sum();
        match self.row_limit(caller) {
            Some(max) if found as u64 > max => Err(QueryError::LimitExceeded { what: "rows", max }),
            _ => Ok(()),
        }
    }
}

fn evaluate_plans(plans: &[Arc<SubscriptionPlan>], tables: &dyn TableRead) -> Result<QueryRows, String> {
    let rows = plans.iter().map(|plan| plan.evaluate_rows(tables).map_err(|error| error.to_string()));
    Ok(QueryRows { tables: rows.collect::<Result<_, _>>()? })
}

impl ForkWorker {
    /// The state of now, for reads on other threads.
    pub fn share(&mut self) -> View {
        self.tables_mut().writer_mut().publish();
        let snapshot = self.fork.store.snapshot(self.fork.id).expect("a fork is dropped after its lane has closed");
        View {
            tables: TableSnapshot::new(snapshot, self.module.schema.clone()),
            module: self.module.clone(),
            owner: self.fork.owner,
            database: self.fork.database_identity,
            limits: self.fork.host.options.query_limits,
        }
    }

    /// Evaluates and concludes one read.
    pub fn read_alone(&mut self, job: Job) {
        let answer = self.source().evaluate(job);
        self.conclude(answer);
    }

    fn source(&self) -> Source<'_> {
        Source {
            tables: self.tables(),
            module: &self.module,
            owner: self.fork.owner,
            database: self.fork.database_identity,
            limits: self.fork.host.options.query_limits,
            clients: None,
            views: &[],
        }
    }

    /// Evaluates texts with what only the worker knows: who is connected, and the views that they name.
    fn evaluate_here<T>(
        &mut self,
        texts: &[Box<str>],
        caller: &Caller,
        evaluate: impl FnOnce(&Source<'_>) -> T,
    ) -> Result<T, String> {
        let views = self.materialise_named(texts.iter().map(|text| &**text), caller)?;
        let tables = ViewTables::new(self.tables(), &self.views);
        views.iter().try_for_each(|view| tables.prepare(view.id))?;
        let needs_clients = texts.iter().any(|text| system::needs_clients(text));
        let clients = if needs_clients { self.clients.accepted() } else { Vec::new() };
        Ok(evaluate(&Source { tables: &tables, clients: Some(clients), views: &views, ..self.source() }))
    }

    pub fn conclude(&mut self, answer: Answer) {
        match answer {
            Answer::Subscribe { key, request_id, query_set_id, found, .. } => {
                self.enter_subscription(key, request_id, query_set_id, found);
            }
            Answer::Query { key, request_id, result, .. } => {
                self.fork.host.metrics.queries.add(1);
                self.send_ordered(key, ServerMessage::OneOffQueryResult { request_id, result });
            }
            Answer::Select { result, duration, reply } => {
                self.fork.host.metrics.queries.add(1);
                self.reply(reply, result, duration);
            }
            Answer::Local { result, duration, reply } => self.reply(reply, result, duration),
            Answer::Later(Job::Sql { requester, text, reply, .. }) => {
                let started = Instant::now();
                let result = self.between_hooks(&requester, |worker, _, _| {
                    worker.fork.host.metrics.queries.add(1);
                    match tine_query::writes(&text) {
                        true => worker.run_statement(&requester, &text),
                        false => {
                            let caller = worker.caller(requester.identity);
                            let texts = std::slice::from_ref(&text);
                            let selected = worker.evaluate_here(texts, &caller, |source| source.select(&text, &caller));
                            selected.unwrap_or_else(|problem| Err(HostError::View(problem).into()))
                        }
                    }
                });
                self.reply(reply, result, started.elapsed());
            }
            Answer::Later(Job::Query { key, caller, message, .. }) => match message {
                ClientMessage::OneOffQuery { request_id, query } => {
                    self.fork.host.metrics.queries.add(1);
                    let texts = std::slice::from_ref(&query);
                    let result = self.evaluate_here(texts, &caller, |source| source.one_off(&query, &caller));
                    let result = result.and_then(|result| result.map_err(|error| error.to_string()));
                    self.send_ordered(key, ServerMessage::OneOffQueryResult { request_id, result });
                }
                ClientMessage::Unsubscribe { request_id, query_set_id, send_dropped_rows } => {
                    self.unsubscribe(key, request_id, query_set_id, send_dropped_rows);
                }
                ClientMessage::Subscribe { request_id, query_set_id, queries } => {
                    let texts = queries.clone();
                    let found = self.evaluate_here(&texts, &caller, |source| source.subscribe(queries, &caller));
                    self.enter_subscription(key, request_id, query_set_id, found.and_then(|found| found));
                }
                _ => unreachable!("the other messages are calls"),
            },
            Answer::Later(_) => unreachable!("only reads are evaluated"),
        }
    }

    fn enter_subscription(&mut self, key: ClientKey, request_id: u32, query_set_id: u32, found: Result<Found, String>) {
        let Some(client) = self.clients.get(key).filter(|client| client.accepted) else { return };
        let refusal = if client.query_sets.contains_key(&query_set_id) {
            Some(format!("query set {query_set_id} is already in use on this connection"))
        } else if client.query_sets.len() >= QUERY_SETS_PER_CLIENT_MAX {
            Some(format!("a connection may hold at most {QUERY_SETS_PER_CLIENT_MAX} query sets"))
        } else {
            None
        };
        let message = match refusal.map_or(found, Err) {
            Ok(Found { queries, plans, rows }) => {
                self.clients.subscribe(Subscriber { client: key, query_set_id }, queries, plans);
                self.fork.host.metrics.subscriptions_applied.add(1);
                ServerMessage::SubscribeApplied { request_id, query_set_id, rows }
            }
            Err(error) => ServerMessage::SubscriptionError { request_id: Some(request_id), query_set_id, error },
        };
        self.send_ordered(key, message);
    }

    fn unsubscribe(&mut self, key: ClientKey, request_id: u32, query_set_id: u32, send_dropped_rows: bool) {
        let message = match self.clients.unsubscribe(Subscriber { client: key, query_set_id }) {
            None => ServerMessage::SubscriptionError {
                request_id: Some(request_id),
                query_set_id,
                error: format!("there is no query set {query_set_id} on this connection"),
            },
            Some(plans) => match send_dropped_rows
                .then(|| evaluate_plans(&plans, &ViewTables::new(self.tables(), &self.views)))
                .transpose()
            {
                Ok(rows) => ServerMessage::UnsubscribeApplied { request_id, query_set_id, rows },
                Err(error) => ServerMessage::SubscriptionError { request_id: Some(request_id), query_set_id, error },
            },
        };
        self.send_ordered(key, message);
    }

    /// Queues a reply to a client that depends on everything committed so far. Nobody is told who is gone or was never accepted.
    fn send_ordered(&mut self, key: ClientKey, message: ServerMessage) {
        if self.clients.get(key).is_some_and(|client| client.accepted) {
            let head = self.head();
            self.clients.send(key, message, Some(head));
        }
    }
}
