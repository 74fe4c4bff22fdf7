//! Where lanes put the messages of one client, and where its connection task takes them from.
//!
//! Invariants:
//! * Lanes never wait here: `deliver` appends under a short lock and wakes the task at most once per
//!   sleep of the task. A task that is running has no waker here, so a reply made while the task
//!   itself runs the lane costs no wake-up.
//! * What is queued is bounded by number and bytes, counting messages the task has taken but not yet
//!   written. Beyond a bound the queue is thrown away and the task ends: only this client is harmed.
//! * The first reason to close counts, and nothing is accepted after it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::Mutex;
use tine_host::{ClientSink, CloseReason, Delivery};
use tine_types::protocol::{QueryRows, ReducerOutcome, RowList, ServerMessage};
use tine_types::protocol::{TableUpdateRows, TransactionUpdate};

use crate::metrics::Metrics;

/// Bytes counted for a message beside its rows.
const MESSAGE_BYTES: usize = 64;

/// Why no more messages are coming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The host or the server asked for it.
    Close(CloseReason),
    /// The client reads too slowly: more was queued than the bounds allow.
    Overflow,
    /// The server's time to shut down is over.
    Abort,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Delivery>,
    /// Messages and bytes queued here or taken and not yet released.
    messages: usize,
    bytes: usize,
    ending: Option<Ending>,
    waker: Option<Waker>,
}

pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    metrics: Arc<Metrics>,
    messages_max: usize,
    bytes_max: usize,
}

impl Outbox {
    pub fn new(messages_max: usize, bytes_max: usize, metrics: Arc<Metrics>) -> Outbox {
        Outbox { inner: Mutex::default(), metrics, messages_max, bytes_max }
    }

    /// Moves everything queued behind `taken`. Returns whether there was anything, and the end if it
    /// was reached. Registers the task for the next change when there was nothing.
    pub fn take(&self, taken: &mut VecDeque<Delivery>, context: &mut Context<'_>) -> (bool, Option<Ending>) {
        let mut inner = self.inner.lock();
        if inner.queue.is_empty() {
            match &mut inner.waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => inner.waker = Some(context.waker().clone()),
            }
            return (false, inner.ending.clone());
        }
        if taken.is_empty() {
            std::mem::swap(taken, &mut inner.queue);
        } else {
            taken.append(&mut inner.queue);
        }
        (true, inner.ending.clone())
    }

    /// Gives back the room of messages that were encoded.
    pub fn release(&self, messages: usize, bytes: usize) {
        let mut inner = self.inner.lock();
        assert!(inner.messages >= messages && inner.bytes >= bytes, "released more than was taken");
        inner.messages -= messages;
        inner.bytes -= bytes;
    }

    /// Ends the connection at once, without a close frame.
    pub fn abort(&self) {
        self.end(Ending::Abort, true);
    }

    fn end(&self, ending: Ending, replace: bool) {
        let mut inner = self.inner.lock();
        if inner.ending.is_none() || replace {
            inner.ending = Some(ending);
        }
        let waker = inner.waker.take();
        drop(inner);
        wake(waker);
    }
}

impl ClientSink for Outbox {
    fn deliver(&self, messages: &mut Vec<Delivery>) {
        let bytes: usize = messages.iter().map(|delivery| weight(&delivery.message)).sum();
        let mut inner = self.inner.lock();
        if inner.ending.is_some() {
            messages.clear();
            return;
        }
        let fits = inner.messages + messages.len() <= self.messages_max
            && (inner.bytes == 0 || inner.bytes + bytes <= self.bytes_max);
        let waker = if fits {
            inner.messages += messages.len();
            inner.bytes += bytes;
            inner.queue.extend(messages.drain(..));
            inner.waker.take()
        } else {
            self.metrics.clients_too_slow.increment();
            messages.clear();
            inner.ending = Some(Ending::Overflow);
            // The counts stay: the task may still hold messages it will release.
            let dropped = std::mem::take(&mut inner.queue);
            inner.messages -= dropped.len();
            inner.bytes -= dropped.iter().map(|delivery| weight(&delivery.message)).sum::<usize>();
            inner.waker.take()
        };
        drop(inner);
        wake(waker);
    }

    fn close(&self, reason: CloseReason) {
        self.end(Ending::Close(reason), false);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Bytes a message keeps in memory, near enough for a bound. Rows shared between clients count for
/// each, because each may be the last to hold them.
pub(crate) fn weight(message: &ServerMessage) -> usize {
    let rows = match message {
        ServerMessage::SubscribeApplied { rows, .. } => query_rows_weight(rows),
        ServerMessage::UnsubscribeApplied { rows, .. } => rows.as_ref().map_or(0, query_rows_weight),
        ServerMessage::OneOffQueryResult { result: Ok(rows), .. } => query_rows_weight(rows),
        ServerMessage::OneOffQueryResult { result: Err(text), .. } => text.len(),
        ServerMessage::TransactionUpdate(update) => update_weight(update),
        ServerMessage::ReducerResult { outcome, .. } => match outcome {
            ReducerOutcome::Ok { return_value, update } => return_value.len() + update_weight(update),
            ReducerOutcome::OkEmpty => 0,
            ReducerOutcome::Err(bytes) => bytes.len(),
            ReducerOutcome::InternalError(text) => text.len(),
        },
        ServerMessage::SubscriptionError { error, .. } => error.len(),
        ServerMessage::InitialConnection { token, .. } => token.len(),
        ServerMessage::ProcedureResult { status, .. } => match status {
            tine_types::protocol::ProcedureStatus::Returned(bytes) => bytes.len(),
            tine_types::protocol::ProcedureStatus::InternalError(text) => text.len(),
        },
    };
    MESSAGE_BYTES + rows
}

fn query_rows_weight(rows: &QueryRows) -> usize {
    rows.tables.iter().map(|table| row_list_weight(&table.rows)).sum()
}

fn update_weight(update: &TransactionUpdate) -> usize {
    let tables = update.query_sets.iter().flat_map(|set| &set.tables);
    tables
        .map(|table| match &table.rows {
            TableUpdateRows::Persistent { inserts, deletes } => row_list_weight(inserts) + row_list_weight(deletes),
            TableUpdateRows::Event { events } => row_list_weight(events),
        })
        .sum()
}

fn row_list_weight(rows: &RowList) -> usize {
    MESSAGE_BYTES + rows.data.len()
}
