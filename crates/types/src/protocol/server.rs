//! Messages from the server to a client, and their encoding.

use std::sync::Arc;

use bytes::Bytes;

use crate::bsatn::BsatnWrite;
use crate::protocol::{RowList, TransactionUpdate};
use crate::{ConnectionId, Identity, TimeDuration, Timestamp};

/// Something the server tells a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerMessage {
    /// Who the client is. The first message of a connection.
    InitialConnection {
        /// The client's identity.
        identity: Identity,
        /// The connection.
        connection_id: ConnectionId,
        /// A token for that identity.
        token: String,
    },
    /// A query set is registered.
    SubscribeApplied {
        /// The request's.
        request_id: u32,
        /// The set.
        query_set_id: u32,
        /// Its rows, by query.
        rows: QueryRows,
    },
    /// A query set is gone.
    UnsubscribeApplied {
        /// The request's.
        request_id: u32,
        /// The set.
        query_set_id: u32,
        /// Its last rows, if they were asked for.
        rows: Option<QueryRows>,
    },
    /// A query set could not be registered, or failed later.
    SubscriptionError {
        /// The request's, if this answers one.
        request_id: Option<u32>,
        /// The set, which is gone.
        query_set_id: u32,
        /// Why.
        error: String,
    },
    /// Somebody else's commit touched the client's query sets.
    TransactionUpdate(TransactionUpdate),
    /// The answer to a one-off query.
    OneOffQueryResult {
        /// The request's.
        request_id: u32,
        /// Rows, or why there are none.
        result: Result<QueryRows, String>,
    },
    /// A reducer that the client called is done.
    ReducerResult {
        /// The request's.
        request_id: u32,
        /// When it ran.
        timestamp: Timestamp,
        /// How it ended.
        outcome: ReducerOutcome,
    },
    /// A procedure that the client called is done.
    ProcedureResult {
        /// How it ended.
        status: ProcedureStatus,
        /// When it started.
        timestamp: Timestamp,
        /// How long it took.
        duration: TimeDuration,
        /// The request's.
        request_id: u32,
    },
}

/// How a reducer ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReducerOutcome {
    /// Committed.
    Ok {
        /// BSATN of what it returned; usually nothing.
        return_value: Bytes,
        /// What it changed in the caller's query sets.
        update: TransactionUpdate,
    },
    /// Committed, returned nothing, touched no query set. Clients take it; servers may send
    /// [`ReducerOutcome::Ok`] just as well.
    OkEmpty,
    /// Failed with an error of its own: BSATN of the reducer's error type, usually a string.
    Err(Bytes),
    /// Failed otherwise.
    InternalError(String),
}

impl ReducerOutcome {
    /// Committed, with nothing to tell.
    pub fn ok_without_rows() -> Self {
        Self::Ok { return_value: Bytes::new(), update: TransactionUpdate::default() }
    }

    /// Failed with the reducer's own error text.
    pub fn error_text(text: &str) -> Self {
        let mut bytes = Vec::with_capacity(4 + text.len());
        bytes.put_str(text);
        Self::Err(bytes.into())
    }
}

/// How a procedure ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProcedureStatus {
    /// It returned this: BSATN of its return type.
    Returned(Bytes),
    /// It failed.
    InternalError(String),
}

/// Rows by query.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueryRows {
    /// One entry per query; a table may come more than once.
    pub tables: Vec<TableRows>,
}

/// Rows of one query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableRows {
    /// Canonical name of the table they are of.
    pub table: Arc<str>,
    /// The rows.
    pub rows: RowList,
}

pub(super) const INITIAL_CONNECTION: u8 = 0;
pub(super) const SUBSCRIBE_APPLIED: u8 = 1;
pub(super) const UNSUBSCRIBE_APPLIED: u8 = 2;
pub(super) const SUBSCRIPTION_ERROR: u8 = 3;
pub(super) const TRANSACTION_UPDATE: u8 = 4;
pub(super) const ONE_OFF_QUERY_RESULT: u8 = 5;
pub(super) const REDUCER_RESULT: u8 = 6;
pub(super) const PROCEDURE_RESULT: u8 = 7;

/// Appends a message, without the compression tag of its frame.
///
/// # Panics
/// If a row list or text has 2^32 bytes or more.
pub fn encode_server_message(message: &ServerMessage, out: &mut Vec<u8>) {
    match message {
        ServerMessage::ReducerResult { request_id, timestamp, outcome } => {
            out.put_u8(REDUCER_RESULT);
            out.put_u32(*request_id);
            out.put_timestamp(*timestamp);
            encode_outcome(outcome, out);
        }
        ServerMessage::TransactionUpdate(update) => {
            out.reserve(1 + update.encoded_len());
            out.put_u8(TRANSACTION_UPDATE);
            update.encode(out);
        }
        ServerMessage::InitialConnection { identity, connection_id, token } => {
            out.put_u8(INITIAL_CONNECTION);
            out.put_identity(identity);
            out.put_connection_id(*connection_id);
            out.put_str(token);
        }
        ServerMessage::SubscribeApplied { request_id, query_set_id, rows } => {
            out.put_u8(SUBSCRIBE_APPLIED);
            out.put_u32(*request_id);
            out.put_u32(*query_set_id);
            rows.encode(out);
        }
        ServerMessage::UnsubscribeApplied { request_id, query_set_id, rows } => {
            out.put_u8(UNSUBSCRIBE_APPLIED);
            out.put_u32(*request_id);
            out.put_u32(*query_set_id);
            put_option(rows.as_ref(), out, QueryRows::encode);
        }
        ServerMessage::SubscriptionError { request_id, query_set_id, error } => {
            out.put_u8(SUBSCRIPTION_ERROR);
            put_option(request_id.as_ref(), out, |id, out| out.put_u32(*id));
            out.put_u32(*query_set_id);
            out.put_str(error);
        }
        ServerMessage::OneOffQueryResult { request_id, result } => {
            out.put_u8(ONE_OFF_QUERY_RESULT);
            out.put_u32(*request_id);
            encode_query_result(result, out);
        }
        ServerMessage::ProcedureResult { status, timestamp, duration, request_id } => {
            out.put_u8(PROCEDURE_RESULT);
            encode_status(status, out);
            out.put_timestamp(*timestamp);
            out.put_time_duration(*duration);
            out.put_u32(*request_id);
        }
    }
}

fn encode_outcome(outcome: &ReducerOutcome, out: &mut Vec<u8>) {
    match outcome {
        ReducerOutcome::Ok { return_value, update } => {
            out.reserve(5 + return_value.len() + update.encoded_len());
            out.put_u8(0);
            out.put_bytes(return_value);
            update.encode(out);
        }
        ReducerOutcome::OkEmpty => out.put_u8(1),
        ReducerOutcome::Err(error) => {
            out.put_u8(2);
            out.put_bytes(error);
        }
        ReducerOutcome::InternalError(text) => {
            out.put_u8(3);
            out.put_str(text);
        }
    }
}

fn encode_query_result(result: &Result<QueryRows, String>, out: &mut Vec<u8>) {
    match result {
        Ok(rows) => {
            out.put_u8(0);
            rows.encode(out);
        }
        Err(text) => {
            out.put_u8(1);
            out.put_str(text);
        }
    }
}

fn encode_status(status: &ProcedureStatus, out: &mut Vec<u8>) {
    match status {
        ProcedureStatus::Returned(value) => {
            out.put_u8(0);
            out.put_bytes(value);
        }
        ProcedureStatus::InternalError(text) => {
            out.put_u8(1);
            out.put_str(text);
        }
    }
}

fn put_option<T>(value: Option<&T>, out: &mut Vec<u8>, put: impl FnOnce(&T, &mut Vec<u8>)) {
    match value {
        Some(value) => {
            out.put_u8(0);
            put(value, out);
        }
        None => out.put_u8(1),
    }
}

impl QueryRows {
    fn encode(&self, out: &mut Vec<u8>) {
        let size = |table: &TableRows| 4 + table.table.len() + table.rows.encoded_len();
        out.reserve(4 + self.tables.iter().map(size).sum::<usize>());
        out.put_len(self.tables.len());
        for table in &self.tables {
            out.put_str(&table.table);
            table.rows.encode(out);
        }
    }
}
