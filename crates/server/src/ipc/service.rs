//! The commands of the service.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;
use parking_lot::Mutex;
use tine_host::{
    Actor, CallArguments, CallFailure, CallReturn, CheckpointId, ForkHandle, ForkRequest, Host, HostError, LocalBound,
    LocalRead, LocalReply, LocalWrite, Lsn, Reply, RowForm, SqlRows, VersionAt,
};
use tine_ipc::typed::{Responder, StreamResponder};
use tine_ipc::{ConnectionEvent, ConnectionId, PeerCredentials};
use tine_local::{self as local, *};
use tine_msgpack::Value;
use tine_types::AlgebraicType;
use tine_types::bsatn::Reader;
use tine_types::json::{bsatn_to_json, product_type_to_json};
use tokio::runtime::Handle;

use super::session::{OpenFork, Session, drop_fork};
use super::subscribe::Subscription;
use crate::server::Shared;

/// See the module documentation.
pub(super) struct Service {
    shared: Arc<Shared>,
    runtime: Handle,
    sessions: Mutex<HashMap<ConnectionId, Arc<Session>>>,
}

/// What a failed request is answered with.
type Refusal = String;

fn refusal(code: &str, message: impl std::fmt::Display) -> Refusal {
    format!("{code}: {message}")
}

fn host_refusal(error: &HostError) -> Refusal {
    refusal(error.code(), error)
}

fn call_refusal(failure: &CallFailure) -> Refusal {
    refusal(failure.code(), failure)
}

fn answer<R: Value>(responder: Responder<R>, result: Result<R, Refusal>) {
    match result {
        Ok(response) => responder.ok(&response),
        Err(refusal) => responder.err(refusal),
    }
}

fn form(json: bool) -> RowForm {
    if json { RowForm::Json } else { RowForm::Bsatn }
}

fn vectors(rows: Vec<Bytes>) -> Vec<Vec<u8>> {
    rows.into_iter().map(Vec::from).collect()
}

impl Service {
    pub fn new(shared: Arc<Shared>) -> Service {
        Service { shared, runtime: Handle::current(), sessions: Mutex::default() }
    }

    fn session(&self, connection: ConnectionId, peer: PeerCredentials) -> Arc<Session> {
        let mut sessions = self.sessions.lock();
        let made = || {
            // SAFETY: takes nothing and cannot fail.
            let own_uid = unsafe { libc::geteuid() };
            Arc::new(Session::new(peer.uid == own_uid))
        };
        sessions.entry(connection).or_insert_with(made).clone()
    }

    fn session_of<R: Value>(&self, responder: &Responder<R>) -> Arc<Session> {
        self.session(responder.connection(), responder.peer())
    }

    /// Runs what may block on a thread for that, and answers with its result.
    fn blocking<R: Value + Send + 'static>(
        &self,
        responder: Responder<R>,
        work: impl FnOnce(&Host) -> Result<R, Refusal> + Send + 'static,
    ) {
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            let done = shared.blocking(move |host| Ok(work(host))).await;
            answer(responder, done.unwrap_or_else(|error| Err(refusal(error.code(), &error))));
        });
    }

    fn read<R: Value + Send + 'static>(
        &self,
        number: u32,
        read: LocalRead,
        json: bool,
        committed: bool,
        responder: Responder<R>,
        make: impl FnOnce(LocalReply, Lsn) -> R + Send + 'static,
    ) {
        let session = self.session_of(&responder);
        let fork = match session.fork(number).and_then(|fork| session.owner(&fork).map(|_| fork)) {
            Ok(fork) => fork,
            Err(problem) => return responder.err(problem),
        };
        if committed && !fork.is_busy() {
            let read = fork.handle.local_read_committed(form(json), &read);
            return answer(responder, read.map(|(reply, lsn)| make(reply, lsn)).map_err(|error| call_refusal(&error)));
        }
        let pending = fork.begin();
        let reply = move |reply: Reply<LocalReply>| {
            let made = reply.result.map(|rows| make(rows, reply.lsn)).map_err(|error| call_refusal(&error));
            drop(pending);
            answer(responder, made);
        };
        self.shared.stalls.watch(|| fork.handle.local_read(form(json), read, Box::new(reply)));
    }

    fn write<R: Value + Send + 'static>(
        &self,
        number: u32,
        write: LocalWrite,
        json: bool,
        responder: Responder<R>,
        make: impl FnOnce(LocalReply, Lsn) -> R + Send + 'static,
    ) {
        let session = self.session_of(&responder);
        let found = session.fork(number).and_then(|fork| session.owner(&fork).map(|requester| (fork, requester)));
        let (fork, requester) = match found {
            Ok(found) => found,
            Err(problem) => return responder.err(problem),
        };
        let pending = fork.begin();
        let reply = move |reply: Reply<LocalReply>| {
            let made = reply.result.map(|rows| make(rows, reply.lsn)).map_err(|error| call_refusal(&error));
            drop(pending);
            answer(responder, made);
        };
        self.shared.stalls.watch(|| fork.handle.local_write(requester, form(json), write, Box::new(reply)));
    }
}

/// What a program learns of a fork that it opened.
fn opened(session: &Session, handle: ForkHandle) -> Result<TineOpenForkResponse, Refusal> {
    let info = handle.info().map_err(|error| host_refusal(&error))?;
    let module = handle.module();
    let tables = module.schema().tables().iter().map(|table| local::Table {
        name: table.name.to_string(),
        row_type: product_type_to_json(&table.row_type).to_string(),
        primary_key: table.primary_key_index().map(|index| index.name.to_string()),
    });
    let tables = tables.collect();
    let (lsn, ephemeral) = (info.head.get(), !handle.is_durable());
    let fork = session.add_fork(OpenFork::new(handle, false))?;
    Ok(TineOpenForkResponse { fork, name: info.name, lsn, ephemeral, tables })
}

/// Makes a fork; one that is not durable belongs to the session.
fn make_fork(
    host: &Host,
    session: &Session,
    parent: &ForkHandle,
    actor: &Actor,
    request: TineFork,
    unnamed: u64,
) -> Result<TineForkResponse, Refusal> {
    let name = match request.name {
        Some(name) => name,
        None if request.durable => return Err(refusal("TN0603", "a durable fork needs a name")),
        None => format!("local-{unnamed}"),
    };
    let asked = ForkRequest {
        name,
        ephemeral: !request.durable,
        at: request.at.map(|lsn| VersionAt::Lsn(Lsn::new(lsn))),
        ..ForkRequest::default()
    };
    let (made, _) =
        host.fork_create(&parent.fork_identity().to_hex(), actor, &asked).map_err(|error| host_refusal(&error))?;
    let handle = host.resolve(&made.identity.to_hex()).map_err(|error| host_refusal(&error))?;
    let fork = session.add_fork(OpenFork::new(handle.clone(), !request.durable));
    let fork = fork.inspect_err(|_| drop_fork(host, &handle))?;
    Ok(TineForkResponse { fork, name: made.name, lsn: made.head.get() })
}

fn query_response(rows: SqlRows, lsn: Lsn, json: bool) -> Result<TineQueryResponse, Refusal> {
    let ty = AlgebraicType::Product(rows.columns.clone());
    let text = |row: &Bytes| match json {
        false => Ok(row.to_vec()),
        true => bsatn_to_json(&ty, &mut Reader::new(row)).map(|value| value.to_string().into_bytes()),
    };
    let made: Result<Vec<Vec<u8>>, _> = rows.rows.iter().map(text).collect();
    let changed = rows.modified.inserted + rows.modified.updated + rows.modified.deleted;
    let row_type = product_type_to_json(&rows.columns).to_string();
    Ok(TineQueryResponse { lsn: lsn.get(), row_type, rows: made.map_err(|error| refusal("TN0615", error))?, changed })
}

fn arguments(input: Vec<u8>, json: bool) -> Result<CallArguments, Refusal> {
    match json {
        false => Ok(CallArguments::Bsatn(input.into())),
        true => {
            let value = serde_json::from_slice(&input).map_err(|error| refusal("TN0621", error))?;
            Ok(CallArguments::Json(value))
        }
    }
}

fn bound(value: Option<Vec<u8>>, is_excluded: bool) -> Option<LocalBound> {
    value.map(|value| LocalBound { value: value.into(), is_included: !is_excluded })
}

impl TineHandler for Service {
    fn authenticate(&self, request: TineAuthenticate, responder: Responder<TineAuthenticateResponse>) {
        let (shared, session) = (self.shared.clone(), self.session_of(&responder));
        self.runtime.spawn(async move {
            let caller = shared.auth.caller_required(&HeaderMap::new(), Some(&request.token)).await;
            answer(
                responder,
                caller.map_err(|error| refusal(error.code(), &error)).map(|caller| {
                    session.authenticate(caller.identity, caller.jwt_payload.clone());
                    TineAuthenticateResponse { identity: caller.identity.to_hex() }
                }),
            );
        });
    }

    fn open_fork(&self, request: TineOpenFork, responder: Responder<TineOpenForkResponse>) {
        let session = self.session_of(&responder);
        self.blocking(responder, move |host| {
            let handle = host.resolve(&request.address).map_err(|error| host_refusal(&error))?;
            session.requester(handle.owner())?;
            opened(&session, handle)
        });
    }

    fn close_fork(&self, request: TineCloseFork, responder: Responder<TineCloseForkResponse>) {
        let session = self.session_of(&responder);
        match session.remove_fork(request.fork) {
            Some(fork) if fork.is_owned => self.blocking(responder, move |host| {
                drop_fork(host, &fork.handle);
                Ok(TineCloseForkResponse {})
            }),
            // Closing is idempotent (G8).
            _ => responder.ok(&TineCloseForkResponse {}),
        }
    }

    fn fork(&self, request: TineFork, responder: Responder<TineForkResponse>) {
        let session = self.session_of(&responder);
        let found = session.fork(request.fork);
        let found = found.and_then(|fork| session.actor(fork.handle.owner()).map(|actor| (fork, actor)));
        let unnamed = self.shared.next_id();
        match found {
            Err(problem) => responder.err(problem),
            Ok((parent, actor)) => {
                let pending = parent.begin();
                self.blocking(responder, move |host| {
                    let _until_done = pending;
                    make_fork(host, &session, &parent.handle, &actor, request, unnamed)
                });
            }
        }
    }

    fn drop_fork(&self, request: TineDropFork, responder: Responder<TineDropForkResponse>) {
        let session = self.session_of(&responder);
        let Some(fork) = session.remove_fork(request.fork) else {
            return responder.ok(&TineDropForkResponse {});
        };
        self.blocking(responder, move |host| {
            let actor = session.actor(fork.handle.owner())?;
            match host.fork_delete(&fork.handle.fork_identity().to_hex(), &actor) {
                Ok(()) | Err(HostError::NotFound(_)) => Ok(TineDropForkResponse {}),
                Err(error) => Err(host_refusal(&error)),
            }
        });
    }

    fn get(&self, request: TineGet, responder: Responder<TineGetResponse>) {
        let TineGet { fork, table, index, key, json, committed } = request;
        let read = LocalRead::Get { table: table.into(), index: index.map(Into::into), key: key.into() };
        self.read(fork, read, json, committed, responder, |reply, lsn| TineGetResponse {
            lsn: lsn.get(),
            rows: vectors(reply.rows),
        });
    }

    fn scan(&self, request: TineScan, responder: Responder<TineScanResponse>) {
        let read = LocalRead::Scan {
            table: request.table.into(),
            index: request.index.map(Into::into),
            prefix: request.prefix.into(),
            lower: bound(request.lower, request.lower_excluded),
            upper: bound(request.upper, request.upper_excluded),
            limit: request.limit as usize,
        };
        self.read(request.fork, read, request.json, request.committed, responder, |reply, lsn| TineScanResponse {
            lsn: lsn.get(),
            rows: vectors(reply.rows),
            more: reply.has_more,
        });
    }

    fn insert(&self, request: TineInsert, responder: Responder<TineInsertResponse>) {
        let rows = request.rows.into_iter().map(Bytes::from).collect();
        let write = LocalWrite::Insert { table: request.table.into(), rows };
        self.write(request.fork, write, request.json, responder, |reply, lsn| TineInsertResponse {
            lsn: lsn.get(),
            rows: vectors(reply.rows),
        });
    }

    fn delete(&self, request: TineDelete, responder: Responder<TineDeleteResponse>) {
        let keys = request.keys.into_iter().map(Bytes::from).collect();
        let write = LocalWrite::Delete { table: request.table.into(), index: request.index.map(Into::into), keys };
        self.write(request.fork, write, request.json, responder, |reply, lsn| TineDeleteResponse {
            lsn: lsn.get(),
            deleted: reply.changed,
        });
    }

    fn begin_checkpoint(&self, request: TineBeginCheckpoint, responder: Responder<TineBeginCheckpointResponse>) {
        self.write(request.fork, LocalWrite::BeginCheckpoint, false, responder, |reply, lsn| {
            let checkpoint = reply.checkpoint.expect("beginning one gives its number").get();
            TineBeginCheckpointResponse { lsn: lsn.get(), checkpoint }
        });
    }

    fn commit_checkpoint(&self, request: TineCommitCheckpoint, responder: Responder<TineCommitCheckpointResponse>) {
        let write = LocalWrite::CommitCheckpoint(CheckpointId::new(request.checkpoint));
        self.write(request.fork, write, false, responder, |_, lsn| TineCommitCheckpointResponse { lsn: lsn.get() });
    }

    fn revert_checkpoint(&self, request: TineRevertCheckpoint, responder: Responder<TineRevertCheckpointResponse>) {
        let write = LocalWrite::RevertCheckpoint(CheckpointId::new(request.checkpoint));
        self.write(request.fork, write, false, responder, |_, lsn| TineRevertCheckpointResponse { lsn: lsn.get() });
    }

    fn call_reducer(&self, request: TineCallReducer, responder: Responder<TineCallReducerResponse>) {
        let session = self.session_of(&responder);
        let begun = session.fork(request.fork).map_err(Refusal::from).and_then(|fork| {
            let requester = session.requester(fork.handle.owner())?;
            Ok((fork, requester, arguments(request.input, request.json)?))
        });
        let (fork, requester, arguments) = match begun {
            Ok(begun) => begun,
            Err(problem) => return responder.err(problem),
        };
        let pending = fork.begin();
        // Kept until the reply came: dropping it tells the host that nobody waits.
        let guard = Arc::new(Mutex::new(None));
        let held = guard.clone();
        let reply = move |reply: Reply<CallReturn>| {
            let lsn = reply.lsn.get();
            let made = reply.result.map(|_| TineCallReducerResponse { lsn }).map_err(|error| call_refusal(&error));
            drop(pending);
            answer(responder, made);
            drop(held);
        };
        let call = || fork.handle.call(requester, &request.reducer, arguments, Box::new(reply));
        *guard.lock() = Some(self.shared.stalls.watch(call));
    }

    fn query(&self, request: TineQuery, responder: Responder<TineQueryResponse>) {
        let session = self.session_of(&responder);
        let begun = session.fork(request.fork);
        let begun = begun.and_then(|fork| session.requester(fork.handle.owner()).map(|requester| (fork, requester)));
        let (fork, requester) = match begun {
            Ok(begun) => begun,
            Err(problem) => return responder.err(problem),
        };
        let TineQuery { sql, at, json, .. } = request;
        let pending = fork.begin();
        if let Some(at) = at {
            return self.blocking(responder, move |host| {
                let _until_done = pending;
                let address = fork.handle.fork_identity().to_hex();
                let at = VersionAt::Lsn(Lsn::new(at));
                let selected = host.select_as_of(&address, &requester, &sql, at).map_err(|error| host_refusal(&error));
                selected.and_then(|(rows, lsn)| query_response(rows, lsn, json))
            });
        }
        let reply = move |reply: Reply<SqlRows>| {
            let lsn = reply.lsn;
            let made = reply.result.map_err(|error| call_refusal(&error));
            let made = made.and_then(|rows| query_response(rows, lsn, json));
            drop(pending);
            answer(responder, made);
        };
        self.shared.stalls.watch(|| fork.handle.sql(requester, &sql, Box::new(reply)));
    }

    fn sync(&self, request: TineSync, responder: Responder<TineSyncResponse>) {
        let session = self.session_of(&responder);
        match session.fork(request.fork) {
            Err(problem) => responder.err(problem),
            Ok(fork) if !fork.handle.is_durable() => responder.err(host_refusal(&HostError::NeverConfirmed)),
            Ok(fork) => self.blocking(responder, move |_| {
                let lsn = fork.handle.head().get();
                fork.handle.sync().map_err(|error| host_refusal(&error))?;
                Ok(TineSyncResponse { lsn })
            }),
        }
    }

    fn subscribe(&self, request: TineSubscribe, responder: StreamResponder<TineSubscribeResponse>) {
        let session = self.session(responder.connection(), responder.peer());
        let begun = session.fork(request.fork);
        let begun = begun.and_then(|fork| session.requester(fork.handle.owner()).map(|requester| (fork, requester)));
        let (fork, requester) = match begun {
            Ok(begun) => begun,
            Err(problem) => return responder.err(problem),
        };
        let mut number = [0; 16];
        self.shared.env.random_bytes(&mut number);
        // All-zero means none.
        let connection = tine_types::ConnectionId::new(u128::from_le_bytes(number) | 1);
        let begin =
            || Subscription::start(&fork.handle, requester, connection, request.queries, request.json, responder);
        let subscription = self.shared.stalls.watch(begin);
        if session.add_subscription(subscription.clone()).is_err() {
            subscription.end();
        }
    }

    fn event(&self, event: ConnectionEvent<'_>) {
        let ConnectionEvent::Closed { connection, .. } = event else { return };
        let Some(session) = self.sessions.lock().remove(&connection) else { return };
        let host = self.shared.host.clone();
        self.runtime.spawn_blocking(move || session.end(&host));
    }
}
